"""The outbox cannot be written, or is gone: alerts are delivered from memory, and move to the file when it is back."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.cli import main
from ml_pipeline.config._alert_embedded import EmbeddedAlertStore, ReopenedDatabase
from ml_pipeline.config._alert_store import AlertStore
from ml_pipeline.config.alerting import AlertManager
from ml_pipeline.errors import StoreError
from ml_pipeline.testing.alert_fallback_contract import AlertFallbackContract
from ml_pipeline.testing.alert_outbox_contract import AlertOutboxContract
from ml_pipeline.testing.alert_store_contract import AlertStoreContract, record, said
from ml_pipeline.testing.alert_upkeep_contract import AlertUpkeepContract
from tests.config.alerting_world import World

OUTBOX = Path("ml_pipeline/data_storage/alerts/outbox.db")


@pytest.fixture
def world(isolated: Path) -> World:
    """Return a manager that goes on, as a pipeline's does, when the outbox fails."""
    ml_pipeline.configure(strict=False)
    return World()


class TestItsFile(AlertStoreContract, AlertOutboxContract, AlertFallbackContract, AlertUpkeepContract):
    """While the file can be used it is an alert store as any."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[AlertStore]:
        """Return an empty store."""
        store = EmbeddedAlertStore(tmp_path / "outbox.db")
        yield store
        store.close()


def spoil(path: Path) -> None:
    """Have something else stand in place of the outbox."""
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a database, but long enough to be taken for one" * 20)


def block(path: Path) -> None:
    """Have a file stand where the outbox's folder would."""
    path.parent.parent.mkdir(parents=True)
    path.parent.write_text("no folder")


@pytest.mark.parametrize("harm", [spoil, block])
def test_what_cannot_be_kept_is_delivered(
    world: World, harm: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """An outbox that cannot be used costs no alert, and no repeat is told twice."""
    harm(OUTBOX)
    first = world.alerts.alert_processing_failure(operation="a", error="x")
    assert world.alerts.alert_processing_failure(operation="a", error="x") == first
    assert world.alerts.flush()
    assert [message.alert.alert_id for message in world.pager.sent] == [first]
    told = capsys.readouterr().err
    assert "the alert outbox must be a file that can be read and written (got" in told
    assert "see to the file or its disk; until then a running pipeline keeps its alerts in memory" in told


def test_what_cannot_be_kept_is_delivered_in_the_background(world: World) -> None:
    """The end of the process delivers what memory holds, too."""
    block(OUTBOX)
    world.alerts.alert_processing_failure(operation="a", error="x")
    _runtime.shutdown()
    assert [message.alert.operation for message in world.pager.sent] == ["a"]


def test_memory_moves_to_the_file_at_the_end(world: World) -> None:
    """What was put right while the process ran is in the history, and what was not delivered still is to be."""
    block(OUTBOX)
    world.pager.failures = [ConnectionError("away")] * 9
    alert_id = world.alerts.alert_processing_failure(operation="a", error="x")
    OUTBOX.parent.unlink()
    _runtime.shutdown()
    with sqlite3.connect(OUTBOX) as file:
        assert file.execute("SELECT alert_id, state FROM deliveries").fetchall() == [(alert_id, "pending")]


def test_a_full_disk(world: World, small_disk: Callable[..., Path]) -> None:
    """That the disk is full is told, though the outbox is on it; with room again the alert is in the history."""
    folder = small_disk(Path("small"), "size=1m")
    ml_pipeline.configure(data_dir=str(folder))
    world.alerts.alert_processing_failure(operation="before", error="x")
    assert world.alerts.flush()
    filling = folder / "filling"
    with pytest.raises(OSError, match="No space left"):
        filling.write_bytes(bytes(2_000_000))
    held = [world.alerts.alert_resource_threshold(f"disk {number}", 0.0, 1.0) for number in range(9)]
    world.clock.now += 60
    assert world.alerts.flush()
    assert {alert.alert_id for message in world.pager.sent for alert in message.alerts} >= set(held)
    filling.unlink()
    _runtime.shutdown()
    assert {alert.alert_id for alert in AlertManager(channels=[], clock=world.clock).history()} > set(held)


def test_a_locked_file_is_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever holds the file locked holds up one call, not each."""
    monkeypatch.setattr("ml_pipeline.config._sqlite.connect.__kwdefaults__", {"busy_seconds": 0.05})
    store = EmbeddedAlertStore(tmp_path / "outbox.db", monotonic=lambda: 0.0)
    _, first = record(store, said(1000.0))
    holder = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    assert record(store, said(1001.0))[0] == "suppressed"
    assert record(store, said(1002.0, operation="other"), "email")[0] == "raised"
    assert record(store, said(1003.0)) == ("suppressed", first)
    holder.execute("COMMIT")
    holder.close()
    store.close()
    again = EmbeddedAlertStore(tmp_path / "outbox.db")
    assert [(alert.operation, alert.count) for alert in again.find(limit=9)] == [("other", 1), ("data_ingestion", 3)]
    assert again.next_due(("email",)) == 1002.0
    again.close()


def test_a_removed_outbox_is_made_anew(world: World) -> None:
    """Whoever removes the data folder of a running pipeline removes no alert that it raises after that."""
    world.alerts.alert_processing_failure(operation="before", error="x")
    assert world.alerts.flush()
    shutil.rmtree("ml_pipeline/data_storage")
    world.clock.now += 60
    after = world.alerts.alert_processing_failure(operation="after", error="x")
    assert OUTBOX.exists()
    assert world.alerts.flush()
    assert [message.alert.operation for message in world.pager.sent] == ["before", "after"]
    _runtime.shutdown()
    assert [alert.alert_id for alert in AlertManager(channels=[]).history()] == [after]


def test_a_wrong_statement_is_not_the_files_fault(tmp_path: Path) -> None:
    """Only what concerns the file is a `StoreError`; and within a transaction nothing is opened anew."""
    database = ReopenedDatabase(tmp_path / "outbox.db")
    with pytest.raises(sqlite3.IntegrityError), database.transaction():
        database.execute("INSERT INTO digests (period) VALUES ('a'), ('a')")
    assert database.rows("SELECT * FROM digests") == []
    database.close()
    (tmp_path / "outbox.db").write_bytes(b"spoilt" * 4096)
    with pytest.raises(StoreError):
        database.rows("SELECT * FROM digests")


def test_strict_telemetry_and_the_commands_say_so(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing stands in for a reader: an outbox that cannot be read is one line, not an empty list."""
    spoil(OUTBOX)
    with pytest.raises(StoreError, match="the alert outbox must be a file that can be read and written"):
        AlertManager(channels=[]).alert_processing_failure(operation="a", error="x")
    capsys.readouterr()
    assert main(["alerts", "list"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert "Traceback" not in told.err
