from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._alert_records import Alert, Occurrence
from ml_pipeline.config._alert_sqlite import SqliteAlertStore
from ml_pipeline.config._health import HealthCheck, HealthChecks, Status, worst
from ml_pipeline.config._health_checks import (
    BUILT_IN,
    check_disk,
    check_folder,
    check_memory,
    check_outbox,
    check_store,
)
from ml_pipeline.config._resource_sources import Space
from ml_pipeline.config._sqlite import connect
from ml_pipeline.config.monitoring_config import health_check

if TYPE_CHECKING:
    from collections.abc import Iterator

GIB = 1 << 30


def files_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


class TestHealthChecks:
    """How checks are run and put together."""

    def test_the_status_is_the_worst_of_the_checks(self) -> None:
        """Every check is named, with its status and its reason."""
        health = HealthChecks({"disk": lambda: ("ok", "roomy"), "gpu": lambda: ("degraded", "2 of 4 answer")})()
        assert health.status == "degraded"
        assert health.checks == (
            HealthCheck("disk", "ok", "roomy"),
            HealthCheck("gpu", "degraded", "2 of 4 answer"),
        )
        assert health["gpu"].reason == "2 of 4 answer"
        with pytest.raises(KeyError, match="queue"):
            health["queue"]

    @pytest.mark.parametrize(
        ("statuses", "expected"),
        [([], "ok"), (["ok", "degraded"], "degraded"), (["failing", "degraded", "ok"], "failing")],
    )
    def test_worst(self, statuses: list[Status], expected: Status) -> None:
        """Failing is worse than degraded, and nothing is ok."""
        assert worst(statuses) == expected

    def test_a_check_that_raises_fails_alone(self) -> None:
        """Its error is the reason, on one line; the other checks are run, and nothing is counted against telemetry."""

        def broken() -> tuple[Status, str]:
            raise TimeoutError("no answer\nfrom the queue")

        health = HealthChecks({"queue": broken, "disk": lambda: ("ok", "roomy")})()
        assert health["queue"] == HealthCheck("queue", "failing", "TimeoutError: no answer from the queue")
        assert health["disk"].status == "ok"
        assert not _runtime.tally.telemetry_errors

    def test_an_error_without_text_is_named(self) -> None:
        """Even an exception that cannot be shown does not get out."""

        class UnspeakableError(Exception):
            def __str__(self) -> str:
                raise ValueError("no words")

        def broken() -> tuple[Status, str]:
            raise UnspeakableError

        assert HealthChecks({"queue": broken})()["queue"].reason == "UnspeakableError: "

    @pytest.mark.parametrize("answer", [None, True, ("fine", "well"), ("ok", 3), "ok"])
    def test_a_check_that_answers_something_else_is_failing(self, answer: object) -> None:
        """The reason says what a check must return."""
        health = HealthChecks({"queue": lambda: answer})()  # type: ignore[dict-item,return-value]
        assert health["queue"].reason == (
            f"TypeError: a check must return a status of ok, degraded, failing and a reason (got {answer!r})"
        )

    def test_checks_can_be_added_replaced_and_left_out(self) -> None:
        """A registered check runs with the others until it is unregistered."""
        checks = HealthChecks({})
        checks.register("gpu", lambda: ("failing", "gone"))
        checks.register("gpu", lambda: ("ok", "4 of 4"))
        assert checks()["gpu"].reason == "4 of 4"
        checks.unregister("gpu")
        checks.unregister("gpu")
        assert checks().checks == ()


class TestBuiltIn:
    """The checks that are there from the start."""

    def test_a_fresh_pipeline_is_in_working_order_and_stays_fresh(self, isolated: Path) -> None:
        """Before the first event every place can be written, nothing is reported, and the check leaves no file."""
        health = health_check()
        assert [check.name for check in health.checks] == list(BUILT_IN)
        assert {check.status for check in health.checks if check.name not in ("disk", "memory")} == {"ok"}
        assert health["settings"].reason == "every setting is known and in range"
        assert health["log_folder"].reason.endswith(f"can be made: {isolated} can be written")
        assert health["lineage_store"].reason.endswith("lineage.db is made when first used")
        assert health["alert_outbox"].reason.endswith("outbox.db is made when first used")
        assert health["telemetry"].reason == "no telemetry error so far"
        assert "GiB free for" in health["disk"].reason
        assert "% used" in health["memory"].reason
        assert files_below(isolated) == set()

    def test_a_folder_that_exists_is_really_written_to_and_left_as_it_was(self, tmp_path: Path) -> None:
        """The attempt is real, and its file is gone."""
        before = files_below(tmp_path)
        assert check_folder(tmp_path) == ("ok", f"{tmp_path} can be written")
        assert files_below(tmp_path) == before

    def test_a_folder_below_a_file_cannot_be_written(self, tmp_path: Path) -> None:
        """The reason names the folder and what the system said."""
        (tmp_path / "file").write_text("")
        with ml_pipeline.override(log_dir=tmp_path / "file" / "logs"):
            found = health_check()
        assert found.status == "failing"
        assert found["log_folder"].reason == f"{tmp_path / 'file' / 'logs'} cannot be written: Not a directory"
        assert found["data_folder"].status == "ok"

    @pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc on this system")
    def test_a_read_only_place_cannot_be_written(self) -> None:
        """Also for root, a file system that takes no files is failing."""
        assert check_folder(Path("/proc/self"))[0] == "failing"

    @pytest.mark.parametrize(
        ("free", "total", "status"),
        [
            (50 * GIB, 100 * GIB, "ok"),
            (50 * GIB, 1_000 * GIB, "ok"),
            (9 * GIB, 100 * GIB, "degraded"),
            (9 * GIB, 50 * GIB, "ok"),
            (GIB // 20, GIB, "failing"),
            (0, 0, "ok"),
        ],
    )
    def test_a_disk_is_judged_by_share_and_by_size(self, free: int, total: int, status: Status) -> None:
        """A tenth of a large disk is room enough; under 0.1 GiB there is none."""
        assert check_disk({"/data": Space(free, total)}) == (status, f"{free / GIB:.1f} GiB free for /data")

    def test_without_folders_no_disk_is_judged(self) -> None:
        """Nothing watched is nothing wrong."""
        assert check_disk({}) == ("ok", "no folder is watched")

    @pytest.mark.parametrize(
        ("free", "found"),
        [
            (50, ("ok", "50% used, 50.0 GiB available")),
            (10, ("degraded", "90% used, 10.0 GiB available")),
            (1, ("failing", "99% used, 1.0 GiB available")),
        ],
    )
    def test_memory_is_judged_by_share(self, free: int, found: tuple[Status, str]) -> None:
        """Degraded from 90 % used, failing from 98 %."""
        assert check_memory(Space(free * GIB, 100 * GIB)) == found

    def test_a_bad_setting_is_degraded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The running pipeline goes on without it; the next process would not start."""
        monkeypatch.setenv("ML_PIPELINE_SMTP_PORT", "99999")
        found = health_check()["settings"]
        assert found.status == "degraded"
        assert found.reason.startswith("ML_PIPELINE_SMTP_PORT: input should be less than or equal to 65535")

    def test_telemetry_errors_are_told_with_where_and_what(self, capsys: pytest.CaptureFixture[str]) -> None:
        """What telemetry failed to do degrades it, and the commonest failures are named."""
        for _ in range(2):
            _runtime.telemetry_error("data_lineage", OSError("gone"))
        _runtime.tally.log_records_dropped["encoding"] += 3
        found = health_check()["telemetry"]
        assert (found.status, found.reason) == (
            "degraded",
            "so far: 2 OSError in data_lineage, 3 log records dropped (encoding)",
        )


class TestStore:
    """A look at a store, which must not touch it."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Where a store would be, in a folder that is not made yet."""
        return tmp_path / "stores" / "store.db"

    def test_a_closed_store_is_read_and_nothing_is_left_beside_it(self, path: Path) -> None:
        """Reading a store that nobody has open makes no file."""
        connect(path, schema="CREATE TABLE IF NOT EXISTS t (x)").close()
        before = files_below(path.parent)
        assert check_store(path) == ("ok", f"{path} can be read and written")
        assert files_below(path.parent) == before == {path}

    def test_a_store_in_use_is_read_beside_its_owner(self, path: Path) -> None:
        """An owner in the middle of a write is not disturbed, nor does it disturb."""
        with contextlib.closing(connect(path, schema="CREATE TABLE IF NOT EXISTS t (x)")) as owner:
            owner.execute("BEGIN IMMEDIATE")
            owner.execute("INSERT INTO t VALUES (1)")
            before = files_below(path.parent)
            assert check_store(path)[0] == "ok"
            assert files_below(path.parent) == before
            owner.execute("COMMIT")
            assert owner.execute("SELECT count(*) FROM t").fetchone()[0] == 1

    def test_a_store_that_is_no_database_is_failing(self, isolated: Path) -> None:
        """The reason is what SQLite said, under the store's own name."""
        path = _runtime.settings().data_dir / "metadata" / "lineage" / "lineage.db"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"not a database, but long enough to be looked at\n" * 100)
        health = health_check()
        assert health["lineage_store"].reason == "DatabaseError: file is not a database"
        assert health["alert_outbox"].status == "ok"
        assert health.status == "failing"

    def test_a_store_that_cannot_be_written_is_failing(self, path: Path) -> None:
        """A store made by another account is named."""
        connect(path, schema="CREATE TABLE IF NOT EXISTS t (x)").close()
        assert check_store(path, lambda store, mode: False) == ("failing", f"{path} cannot be written")


class TestOutbox:
    """The store of alerts, as alerting makes it."""

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """Where the outbox would be."""
        return tmp_path / "outbox.db"

    @pytest.fixture
    def store(self, path: Path) -> Iterator[SqliteAlertStore]:
        """An outbox with two deliveries of an alert at second 1,000."""
        store = SqliteAlertStore(path)
        alert = Alert(
            alert_id="1",
            time=1_000.0,
            kind="data_drift",
            severity="warning",
            pipeline="test",
            message="It drifts.",
            last_time=1_000.0,
        )
        store.record(Occurrence(alert=alert), channels=["email", "webhook"], cooldown_seconds=300.0)
        yield store
        store.close()

    def test_deliveries_on_their_way_are_well(self, path: Path, store: SqliteAlertStore) -> None:
        """What waits for its turn is counted, and no reason to worry."""
        assert check_outbox(path, lambda: 1_100.0) == (
            "ok",
            "deliveries: 2 pending, 0 of them overdue, 0 given up in the last day",
        )

    def test_deliveries_that_nobody_makes_degrade(self, path: Path, store: SqliteAlertStore) -> None:
        """Ten minutes after they were due, nobody seems to be trying."""
        assert check_outbox(path, lambda: 1_601.0) == (
            "degraded",
            "deliveries: 2 pending, 2 of them overdue, 0 given up in the last day",
        )

    def test_a_delivery_given_up_degrades_for_a_day(self, path: Path, store: SqliteAlertStore) -> None:
        """A person should know, and one day later it is history."""
        for _ in range(2):
            delivery = store.claim(["email", "webhook"], time=1_000.0, lease_seconds=60.0)
            assert delivery is not None
            store.settle(delivery.delivery_id, "dead", time=1_010.0, error="refused")
        assert check_outbox(path, lambda: 1_020.0) == (
            "degraded",
            "deliveries: 0 pending, 0 of them overdue, 2 given up in the last day",
        )
        assert check_outbox(path, lambda: 87_500.0)[0] == "ok"

    def test_an_outbox_that_is_no_database_is_failing(self, path: Path) -> None:
        """Before anything is counted, the store itself must be sound."""
        path.write_text("not a database, but long enough to be looked at\n" * 100)
        found = HealthChecks({"outbox": lambda: check_outbox(path)})()["outbox"]
        assert (found.status, found.reason) == ("failing", "DatabaseError: file is not a database")
