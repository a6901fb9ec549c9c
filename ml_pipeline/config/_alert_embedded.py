"""The embedded alert store while its file cannot be used: the memory stands in, and what it took moves over."""

from __future__ import annotations

import contextlib
import math
import sqlite3
import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_shared import SharedAlertStore
from ml_pipeline.config._alert_sqlite import SqliteAlertStore, SqliteDatabase
from ml_pipeline.config._alert_tables import AlertTables
from ml_pipeline.config._alert_tables_base import FALLBACK_SECONDS
from ml_pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ml_pipeline.config._alert_tables_base import Row

__all__ = ["EmbeddedAlertStore", "ReopenedDatabase", "open_embedded"]

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_OF_THE_FILE: Final = (sqlite3.OperationalError, sqlite3.DatabaseError)
"""Full, locked, damaged, not to be written; these alone, for what a statement does wrong is below the second too."""


class ReopenedDatabase:
    """A SQLite file that is opened when it is used, and again where it was removed; a `Database`. Thread-safe.

    Args:
        path: The file; it and its folder are made at the first use.

    Raises:
        StoreError: From each use, if the file cannot be made, read or written now.
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self._path = path
        self._opened: SqliteDatabase | None = None
        self._file: tuple[int, int] | None = None
        self._depth = 0

    def rows(self, statement: str, given: Mapping[str, Any] = _NOTHING, /) -> list[Row]:
        """See `Database.rows`."""
        with self._use() as database:
            return database.rows(statement, given)

    def execute(self, statement: str, given: Mapping[str, Any] = _NOTHING, /) -> int:
        """See `Database.execute`."""
        with self._use() as database:
            return database.execute(statement, given)

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """See `Database.transaction`."""
        with self._use() as database, database.transaction(durable=durable):
            yield

    def close(self) -> None:
        """See `Database.close`."""
        with self.lock:
            if self._opened is not None:
                self._opened.close()
            self._opened = None

    @contextlib.contextmanager
    def _use(self) -> Iterator[SqliteDatabase]:
        with self.lock:
            database = self._database()
            self._depth += 1
            try:
                yield database
            except sqlite3.DatabaseError as failed:
                if type(failed) not in _OF_THE_FILE:
                    raise
                raise self._unusable(failed) from failed
            finally:
                self._depth -= 1

    def _database(self) -> SqliteDatabase:
        if self._depth and self._opened is not None:  # within a transaction
            return self._opened
        if self._opened is None or self._identity() != self._file:
            self.close()  # SQLite leaves alone what stands under the name now
            try:
                self._opened = SqliteDatabase(self._path)
            except (OSError, sqlite3.Error) as failed:
                raise self._unusable(failed) from failed
            self._file = self._identity()
        return self._opened

    def _identity(self) -> tuple[int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def _unusable(self, failed: Exception) -> StoreError:
        return StoreError(
            "the alert outbox must be a file that can be read and written",
            f"{self._path}: {failed}",
            "see to the file or its disk; until then a running pipeline keeps its alerts in memory",
        )


class EmbeddedAlertStore(SharedAlertStore):
    """Alerts in one SQLite file of this host, and in memory while that cannot be used; an `AlertStore`. Thread-safe.

    A disk that is full is when alerts are wanted most. What is raised meanwhile is delivered, and moves to the file
    when that can be used again; other processes do not see it until then, and the end of this one by force loses it.

    Args:
        path: The file; it and its folder are made at the first use.
        fallback_seconds: How long the other channels wait for Alertmanager to take an alert.
        on_return: Called when the file can be used again.
        monotonic: Seconds that only go forward.
    """

    def __init__(
        self,
        path: Path,
        *,
        fallback_seconds: float = FALLBACK_SECONDS,
        on_return: Callable[[], None] = lambda: None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            AlertTables(ReopenedDatabase(path), fallback_seconds=fallback_seconds),
            lambda: SqliteAlertStore(":memory:", fallback_seconds=fallback_seconds),
            lambda: False,
            on_return=on_return,
            monotonic=monotonic,
        )

    def close(self) -> None:
        """See `AlertStore.close`; what the memory holds is given one more chance to reach the file."""
        if self._away is not None:
            self._look_at = -math.inf
            self._reach()
        super().close()


def open_embedded(
    path: Path, *, fallback_seconds: float, on_return: Callable[[], None], strict: bool
) -> AlertTables | EmbeddedAlertStore:
    """Open the store of this host.

    Args:
        path: The file.
        fallback_seconds: As `EmbeddedAlertStore` takes it.
        on_return: As `EmbeddedAlertStore` takes it.
        strict: Whether a file that cannot be used is an error of whoever uses it, with nothing to stand in.
    """
    if strict:
        return AlertTables(ReopenedDatabase(path), fallback_seconds=fallback_seconds)
    return EmbeddedAlertStore(path, fallback_seconds=fallback_seconds, on_return=on_return)
