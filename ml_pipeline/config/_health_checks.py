"""The checks that every health check begins with."""

from __future__ import annotations

import contextlib
import os
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ml_pipeline import _runtime
from ml_pipeline.config._health import Check, Status, worst
from ml_pipeline.config._resources import PROBE, existing, watched_folders
from ml_pipeline.config._thresholds import DISK_FREE_RATIO, MEMORY_RATIO
from ml_pipeline.errors import SettingsError, StoreError

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from ml_pipeline.config._resource_sources import Space

__all__ = [
    "BUILT_IN",
    "check_disk",
    "check_folder",
    "check_memory",
    "check_outbox",
    "check_shared_outbox",
    "check_store",
]

_GIB: Final = 1 << 30
_ROOMY_BYTES: Final = 10 * _GIB
_FULL_BYTES: Final = _GIB // 10
_EXHAUSTED_MEMORY_RATIO: Final = 0.98
_SHOWN_ERRORS: Final = 3
_PEEK_SECONDS: Final = 1.0
_OVERDUE_SECONDS: Final = 600.0
_DAY_SECONDS: Final = 86_400.0
_DELIVERIES: Final = """
SELECT count(*) FILTER (WHERE state = 'pending') AS pending,
    count(*) FILTER (WHERE state = 'pending' AND due < :overdue) AS overdue,
    count(*) FILTER (WHERE state = 'dead' AND settled > :given_up) AS dead
FROM deliveries
"""

Found = tuple[Status, str]


def check_settings() -> Found:
    """Judge the settings as a process started now would read them; a running one goes on without a bad one."""
    from ml_pipeline.settings import load_settings

    try:
        load_settings()
    except SettingsError as wrong:
        return "degraded", str(wrong)
    return "ok", "every setting is known and in range"


def check_folder(folder: Path) -> Found:
    """Write to a file without a name in *folder*; where it is not there yet, in the nearest folder above it."""
    import tempfile

    place = existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place) as file:
            file.write(b"\n")
            file.flush()
    except OSError as error:
        return "failing", f"{folder} cannot be written: {error.strerror}"
    return "ok", f"{folder} can be written" if place == folder else f"{folder} can be made: {place} can be written"


def check_disk(disks: Mapping[str, Space]) -> Found:
    """Judge the space that is left: degraded under 10 % and 10 GiB, failing under 0.1 GiB."""
    found = [_judge_disk(space) for space in disks.values()]
    left = ", ".join(f"{space.free_bytes / _GIB:.1f} GiB free for {path}" for path, space in disks.items())
    return worst(found), left or "no folder is watched"


def check_memory(memory: Space) -> Found:
    """Judge the memory that is left: degraded from 90 % used, failing from 98 %."""
    used = 1 - memory.free_ratio
    status: Status = "failing" if used >= _EXHAUSTED_MEMORY_RATIO else "degraded" if used >= MEMORY_RATIO else "ok"
    return status, f"{used:.0%} used, {memory.free_bytes / _GIB:.1f} GiB available"


def check_store(path: Path, access: Callable[[Path, int], bool] = os.access) -> Found:
    """Read the catalogue of a SQLite store; one that is not there yet is as it should be, and is not made."""
    if not path.exists():
        return "ok", f"{path} is made when first used"
    with contextlib.closing(_open_read_only(path)) as store:
        store.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not access(path, os.W_OK):
        return "failing", f"{path} cannot be written"
    return "ok", f"{path} can be read and written"


def check_outbox(path: Path, clock: Callable[[], float] = time.time) -> Found:
    """Judge the store of alerts, and whether their deliveries go out: none overdue, and none given up in a day."""
    found = check_store(path)
    if found[0] != "ok" or not path.exists():
        return found
    with contextlib.closing(_open_read_only(path)) as store:
        return _judge_deliveries(*store.execute(_DELIVERIES, _moments(clock())).fetchone())


def check_shared_outbox(url: str, password_file: Path | None, clock: Callable[[], float] = time.time) -> Found:
    """Judge the database that several hosts keep their alerts in, likewise; without it each delivers by itself."""
    from ml_pipeline.config._alert_postgres import PostgresAlertStore

    with contextlib.closing(PostgresAlertStore(url, password_file)) as store:
        try:
            (row,) = store.database.rows(_DELIVERIES, _moments(clock()))
        except StoreError as away:
            return "degraded", str(away)
        return _judge_deliveries(row["pending"], row["overdue"], row["dead"])


def check_telemetry() -> Found:
    """Report what telemetry itself has failed to do in this process."""
    errors, dropped = _runtime.tally.telemetry_errors, _runtime.tally.log_records_dropped
    if not errors and not dropped:
        return "ok", "no telemetry error so far"
    shown = [f"{count} {error} in {sink}" for (sink, error), count in errors.most_common(_SHOWN_ERRORS)]
    shown += [f"{count} log records dropped ({reason})" for reason, count in dropped.most_common(_SHOWN_ERRORS)]
    return "degraded", "so far: " + ", ".join(shown)


def _check_outbox() -> Found:
    settings = _runtime.settings()
    own = check_outbox(settings.data_dir / "alerts" / "outbox.db")
    if settings.database_url is None or own[0] != "ok":
        return own
    return check_shared_outbox(settings.database_url, settings.database_password_file)


def _moments(now: float) -> dict[str, float]:
    return {"overdue": now - _OVERDUE_SECONDS, "given_up": now - _DAY_SECONDS}


def _judge_deliveries(pending: int, overdue: int, dead: int) -> Found:
    reason = f"deliveries: {pending} pending, {overdue} of them overdue, {dead} given up in the last day"
    return "degraded" if overdue or dead else "ok", reason


def _judge_disk(space: Space) -> Status:
    if space.total_bytes and space.free_bytes < _FULL_BYTES:
        return "failing"
    return "degraded" if space.free_ratio < DISK_FREE_RATIO and space.free_bytes < _ROOMY_BYTES else "ok"


def _open_read_only(path: Path) -> sqlite3.Connection:
    import sqlite3

    # A reader of a store in WAL mode makes the files beside it where there are none, and leaves them. Without them
    # nobody has the store open, and it can be read as it lies.
    in_use = path.with_name(f"{path.name}-wal").exists()
    uri = f"{path.as_uri()}?mode=ro" + ("" if in_use else "&immutable=1")
    return sqlite3.connect(uri, uri=True, timeout=_PEEK_SECONDS)


BUILT_IN: Final[Mapping[str, Check]] = MappingProxyType(
    {
        "settings": check_settings,
        "log_folder": lambda: check_folder(_runtime.settings().log_dir),
        "data_folder": lambda: check_folder(_runtime.settings().data_dir),
        "disk": lambda: check_disk(PROBE.read(watched_folders()).disks),
        "memory": lambda: check_memory(PROBE.read().memory),
        "lineage_store": lambda: check_store(_runtime.settings().data_dir / "metadata" / "lineage" / "lineage.db"),
        "alert_outbox": _check_outbox,
        "telemetry": check_telemetry,
    }
)
"""By name, in the order in which they are shown."""
