"""Every alert store keeps the same promises; the one in SQLite also keeps them across processes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ml_pipeline.config._alert_sqlite import SqliteAlertStore
from ml_pipeline.config._alert_store import AlertStore
from ml_pipeline.testing.alert_fallback_contract import AlertFallbackContract
from ml_pipeline.testing.alert_outbox_contract import AlertOutboxContract
from ml_pipeline.testing.alert_sharing_contract import AlertSharingContract
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


class TestInFile(
    AlertStoreContract, AlertOutboxContract, AlertFallbackContract, AlertUpkeepContract, AlertSharingContract
):
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


@pytest.mark.parametrize("channels", [("email",), ("alertmanager", "email")])
def test_a_long_outbox_costs_no_more_for_each_message_in_it(channels: tuple[str, ...]) -> None:
    """A storm while the mail server is away holds nobody up: four times as much is not sixteen times the work."""

    def steps(alerts: int) -> int:
        store = SqliteAlertStore(":memory:")
        for number in range(alerts):
            record(store, said(1000.0, operation=f"operation {number}"), *channels)
        done = []
        store.connection.set_progress_handler(lambda: done.append(None), 1_000)
        delivery = store.claim(channels, time=1000.0, lease_seconds=10.0, early=True)
        assert delivery is not None
        store.next_due(channels)
        store.settle(delivery.delivery_id, "pending", time=1001.0, due=1003.0)
        store.next_due(channels)
        assert store.claim(channels, time=1004.0, lease_seconds=10.0) is not None
        store.close()
        return len(done)

    assert steps(1_200) < 6 * steps(300)
