"""The embedded alert store and outbox: one SQLite file, which several processes may use."""

from __future__ import annotations

import contextlib
import threading
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from ml_pipeline.config._alert_sqlite_schema import open_database
from ml_pipeline.config._alert_tables import AlertTables
from ml_pipeline.config._alert_tables_base import FALLBACK_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ml_pipeline.config._alert_tables_base import Row

__all__ = ["SqliteAlertStore", "SqliteDatabase"]

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})


class SqliteDatabase:
    """One SQLite file, which several processes may share; a `Database`. Thread-safe.

    Args:
        path: The file; it and its folder are made at once. ``:memory:`` keeps everything in memory.

    Raises:
        sqlite3.Error: If the file is not a database, stays locked, or cannot be written.
        OSError: If the folder cannot be made.
    """

    def __init__(self, path: Path | str) -> None:
        self.lock = threading.RLock()
        self.connection = open_database(Path(path))

    def rows(self, statement: str, given: Mapping[str, Any] = _NOTHING, /) -> list[Row]:
        """See `Database.rows`."""
        with self.lock:
            return cast("list[Row]", self.connection.execute(statement, given or ()).fetchall())

    def execute(self, statement: str, given: Mapping[str, Any] = _NOTHING, /) -> int:
        """See `Database.execute`."""
        with self.lock:
            return self.connection.execute(statement, given or ()).rowcount

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """See `Database.transaction`."""
        with self.lock:
            self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.connection.execute("COMMIT")
            finally:
                if self.connection.in_transaction:  # not after a commit, nor where SQLite rolled back by itself
                    self.connection.execute("ROLLBACK")

    def close(self) -> None:
        """See `Database.close`."""
        with self.lock:
            self.connection.close()


class SqliteAlertStore(AlertTables):
    """Alerts and outbox in one SQLite file, which several processes may share; an `AlertStore`.

    Args:
        path: As `SqliteDatabase` takes it.
        fallback_seconds: How long the other channels wait for Alertmanager to take an alert.

    Raises:
        sqlite3.Error: If the file is not a database, stays locked, or cannot be written.
        OSError: If the folder cannot be made.
    """

    def __init__(self, path: Path | str, *, fallback_seconds: float = FALLBACK_SECONDS) -> None:
        database = SqliteDatabase(path)
        super().__init__(database, fallback_seconds=fallback_seconds)
        self.connection = database.connection
