"""Every alert store keeps the same promises; the one in SQLite also keeps them across processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ml_pipeline.config._alert_sqlite import SqliteAlertStore
from ml_pipeline.config._alert_store import AlertStore
from ml_pipeline.testing.alert_fallback_contract import AlertFallbackContract
from ml_pipeline.testing.alert_outbox_contract import AlertOutboxContract
from ml_pipeline.testing.alert_store_contract import AlertStoreContract, record, said
from ml_pipeline.testing.alert_upkeep_contract import AlertUpkeepContract


class TestInMemory(AlertStoreContract, AlertOutboxContract, AlertFallbackContract, AlertUpkeepContract):
    """The store in memory."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[AlertStore]:
        """Return an empty store."""
        store = SqliteAlertStore(":memory:")
        yield store
        store.close()


class TestInFile(AlertStoreContract, AlertOutboxContract, AlertFallbackContract, AlertUpkeepContract):
    """The store in a file, which several processes may open."""

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Iterator[Callable[[], SqliteAlertStore]]:
        """Return what opens the same file once more."""
        stores: list[SqliteAlertStore] = []

        def another() -> SqliteAlertStore:
            stores.append(SqliteAlertStore(tmp_path / "alerts" / "outbox.db"))
            return stores[-1]

        yield another
        for store in stores:
            store.close()

    @pytest.fixture
    def store(self, opened: Callable[[], SqliteAlertStore]) -> AlertStore:
        """Return an empty store."""
        return opened()

    def test_the_cooldown_holds_across_openings(self, opened: Callable[[], SqliteAlertStore]) -> None:
        """A restart or a second process starts no new cooldown and loses no count."""
        first = opened()
        _, alert_id = record(first, said(1000.0), "email")
        assert record(opened(), said(1001.0)) == ("suppressed", alert_id)
        assert first.find(limit=1)[0].held_back == 1

    def test_a_lease_holds_across_openings(self, opened: Callable[[], SqliteAlertStore]) -> None:
        """What one has claimed, the other gets only when the lease has run out."""
        first, second = opened(), opened()
        record(first, said(1000.0), "email")
        assert first.claim(("email",), time=1000.0, lease_seconds=30.0) is not None
        assert second.claim(("email",), time=1001.0, lease_seconds=30.0) is None
        assert second.claim(("email",), time=1030.0, lease_seconds=30.0) is not None

    def test_two_openings_at_once_make_one_alert(self, opened: Callable[[], SqliteAlertStore]) -> None:
        """The look and the write are one: two stores that race raise one alert."""
        stores = [opened() for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(lambda index: record(stores[index % 4], said())[0], range(100)))
        assert outcomes.count("raised") == 1

    def test_two_openings_claim_each_delivery_once(self, opened: Callable[[], SqliteAlertStore]) -> None:
        """Four deliverers that race share a hundred deliveries without a double."""
        stores = [opened() for _ in range(4)]
        for index in range(50):
            record(stores[0], said(pipeline=f"p{index}"), "email")
        with ThreadPoolExecutor(4) as pool:
            claims = list(
                pool.map(lambda index: stores[index % 4].claim(("email",), time=1000.0, lease_seconds=9.0), range(100))
            )
        assert len({claim.delivery_id for claim in claims if claim}) == sum(claim is not None for claim in claims) == 50

    def test_news_is_synchronised_and_a_repeat_is_not(self, opened: Callable[[], SqliteAlertStore]) -> None:
        """A new alert waits for the disk; a repeat, of which a loop makes thousands, does not."""
        store = opened()
        levels: list[str] = []
        store.connection.set_trace_callback(
            lambda sql: levels.append(sql) if sql.startswith("PRAGMA synchronous") else None
        )
        record(store, said(1000.0))
        record(store, said(1001.0))
        assert levels == ["PRAGMA synchronous = FULL", "PRAGMA synchronous = NORMAL"]

    def test_places_are_bounded(self, opened: Callable[[], SqliteAlertStore], monkeypatch: pytest.MonkeyPatch) -> None:
        """Where failures are on their way to is forgotten, oldest first."""
        monkeypatch.setattr("ml_pipeline.config._alert_tables._MOST_PLACES", 10)
        store = opened()
        for index in range(50):
            record(store, said(automatic=True, failure="x", operation_id=f"a{index}", around=(f"b{index}",)))
        (count,) = store.connection.execute("SELECT count(*) FROM places").fetchone()
        assert count == 10

    def test_a_file_that_is_no_store_is_refused(self, tmp_path: Path) -> None:
        """Something else under the store's name is an error, and is left alone."""
        path = tmp_path / "outbox.db"
        path.write_bytes(b"not a database, but long enough to be taken for one" * 20)
        with pytest.raises(sqlite3.DatabaseError, match="file is not a database"):
            SqliteAlertStore(path)
        assert path.read_bytes().startswith(b"not a database")
