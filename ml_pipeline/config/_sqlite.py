"""How the embedded stores open their SQLite files."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["connect"]

_BUSY_SECONDS = 5.0
_PAUSE_SECONDS = 0.01
_PRIMARY_CODE = 0xFF  # of an extended result code


def connect(path: Path, *, schema: str, busy_seconds: float = _BUSY_SECONDS) -> sqlite3.Connection:
    """Open a store in WAL mode, making its folder and tables where they are missing.

    The connection may be used by any thread, one at a time: its owner holds a lock around each use. Statements commit
    by themselves unless the owner says ``BEGIN IMMEDIATE``. A commit survives the process; ``synchronous=NORMAL`` means
    that a power cut may take the last ones, whole.

    Args:
        path: The database file.
        schema: Statements that make the tables, each ``IF NOT EXISTS``.
        busy_seconds: How long a write waits for another process's.

    Returns:
        The open connection; rows come as `sqlite3.Row`.

    Raises:
        sqlite3.Error: If the file is not a database, locked for longer, or cannot be written.
        OSError: If the folder cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
    try:
        connection.row_factory = sqlite3.Row
        _prepare(connection, schema, time.monotonic() + busy_seconds)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection, schema: str, deadline: float) -> None:
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("PRAGMA foreign_keys=ON")
            connection.executescript(schema)
        except sqlite3.OperationalError as failed:
            # Several processes that make the same file at once turn each other away without waiting.
            if failed.sqlite_errorcode & _PRIMARY_CODE != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return
