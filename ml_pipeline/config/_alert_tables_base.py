"""What the parts of the embedded alert store share: the connection, its transactions, and alerts as rows."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from ml_pipeline.config._alert_records import Alert
from ml_pipeline.config._alert_sqlite_schema import open_database
from ml_pipeline.config._encoding import encode

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["COLUMNS", "FALLBACK_SECONDS", "AlertDatabase", "alert_of", "as_json", "values_of"]

FALLBACK_SECONDS: Final = 60.0

COLUMNS: Final = tuple(Alert.__dataclass_fields__)
"""The columns of the table ``alerts`` that are fields of an `Alert`."""


class AlertDatabase:
    """One SQLite file, which several processes may share. Thread-safe.

    Args:
        path: The file; it and its folder are made at once. ``:memory:`` keeps everything in memory.
        fallback_seconds: How long the other channels wait for Alertmanager to take an alert.

    Raises:
        sqlite3.Error: If the file is not a database, stays locked, or cannot be written.
        OSError: If the folder cannot be made.
    """

    def __init__(self, path: Path | str, *, fallback_seconds: float = FALLBACK_SECONDS) -> None:
        self._fallback_seconds = fallback_seconds
        self._lock = threading.RLock()
        self._connection = open_database(Path(path))

    def close(self) -> None:
        """See `AlertStore.close`."""
        with self._lock:
            self._connection.close()

    def _rows(self, statement: str, given: Mapping[str, Any] | Sequence[Any] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(statement, given).fetchall()

    @contextlib.contextmanager
    def _transaction(self, *, durable: bool = False) -> Iterator[None]:
        with self._lock:
            self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:  # not after a commit, nor where SQLite rolled back by itself
                    self._connection.execute("ROLLBACK")


def as_json(texts: Sequence[str]) -> str:
    """Write texts as the JSON array that ``json_each`` reads."""
    return orjson.dumps(list(texts)).decode()


def values_of(alert: Alert) -> dict[str, Any]:
    """Return an alert's values by column."""
    values = {name: getattr(alert, name) for name in COLUMNS}
    return values | {
        "details": encode(dict(alert.details)).decode(),
        "labels": encode(dict(alert.labels)).decode(),
        "rule": alert.rule,
    }


def alert_of(row: sqlite3.Row) -> Alert:
    """Return the alert that a row of the table ``alerts`` holds."""
    values = {name: row[name] for name in COLUMNS}
    return Alert(
        **values
        | {
            "details": orjson.loads(row["details"]),
            "labels": orjson.loads(row["labels"]),
            "escalated": bool(row["escalated"]),
        }
    )
