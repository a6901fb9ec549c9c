"""The tables of the embedded alert store, and how a file of an earlier version gains what it lacks."""

from __future__ import annotations

import sqlite3
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ml_pipeline.config import _sqlite

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["ADDED", "INDEXES", "TABLES", "open_database"]

TABLES: Final = """
CREATE TABLE IF NOT EXISTS alerts (
    sequence INTEGER PRIMARY KEY,
    alert_id TEXT NOT NULL UNIQUE,
    time REAL NOT NULL,
    state TEXT NOT NULL,
    kind TEXT NOT NULL,
    severity TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    operation TEXT NOT NULL,
    operation_id TEXT,
    run_id TEXT,
    user_id TEXT,
    model TEXT NOT NULL,
    feature TEXT NOT NULL,
    error_type TEXT NOT NULL,
    message TEXT NOT NULL,
    count INTEGER NOT NULL,
    held_back INTEGER NOT NULL,
    last_time REAL NOT NULL,
    details TEXT NOT NULL,
    automatic INTEGER NOT NULL,
    active INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS alerts_by_identity ON alerts (kind, pipeline, operation, time);
CREATE INDEX IF NOT EXISTS alerts_by_time ON alerts (time);
CREATE INDEX IF NOT EXISTS alerts_active ON alerts (time) WHERE active = 1;
CREATE TABLE IF NOT EXISTS places (
    sequence INTEGER PRIMARY KEY,
    place TEXT NOT NULL,
    alert_id TEXT NOT NULL REFERENCES alerts (alert_id),
    failure TEXT,
    error_type TEXT NOT NULL,
    time REAL NOT NULL
);
CREATE INDEX IF NOT EXISTS places_by_place ON places (place);
CREATE TABLE IF NOT EXISTS deliveries (
    sequence INTEGER PRIMARY KEY,
    delivery_id TEXT NOT NULL UNIQUE,
    alert_id TEXT NOT NULL REFERENCES alerts (alert_id),
    channel TEXT NOT NULL,
    state TEXT NOT NULL,
    attempts INTEGER NOT NULL,
    due REAL NOT NULL,
    lease_until REAL NOT NULL,
    settled REAL,
    error TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS deliveries_by_due ON deliveries (due) WHERE state = 'pending';
CREATE INDEX IF NOT EXISTS deliveries_by_alert ON deliveries (alert_id);
CREATE TABLE IF NOT EXISTS groups (
    channel TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    reason TEXT NOT NULL,
    last REAL NOT NULL,
    PRIMARY KEY (channel, pipeline, reason)
);
CREATE TABLE IF NOT EXISTS silences (
    silence_id TEXT PRIMARY KEY,
    matchers TEXT NOT NULL,
    since REAL NOT NULL,
    until REAL NOT NULL,
    reason TEXT NOT NULL,
    by TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS digests (period TEXT PRIMARY KEY);
"""

ADDED: Final = MappingProxyType(
    {
        "alerts": MappingProxyType(
            {
                "name": "TEXT NOT NULL DEFAULT ''",
                "labels": "TEXT NOT NULL DEFAULT '{}'",
                "runbook": "TEXT NOT NULL DEFAULT ''",
                "acknowledged_by": "TEXT NOT NULL DEFAULT ''",
                "acknowledged_time": "REAL",
                "escalated": "INTEGER NOT NULL DEFAULT 0",
                "muted": "TEXT NOT NULL DEFAULT ''",
                "rule": "TEXT NOT NULL DEFAULT ''",
                "resolved_time": "REAL",
                "escalate_after": "INTEGER",
                "escalate_time": "REAL",
                "good_since": "REAL",
            }
        ),
        "deliveries": MappingProxyType(
            {
                "reason": "TEXT NOT NULL DEFAULT 'firing'",
                "pipeline": "TEXT NOT NULL DEFAULT ''",
                "batch": "TEXT NOT NULL DEFAULT ''",
                "queued": "REAL NOT NULL DEFAULT 0",
                "told": "REAL",
                "note": "TEXT NOT NULL DEFAULT ''",
            }
        ),
    }
)
"""Columns that came after the first version. Each has a default, so that a process of that version can still write.

``batch`` is the id of the message that a delivery is part of, empty until that is claimed; ``told`` is since when that
message has been saying that the alert is open, empty where it was over by then.
"""

_TAKE_OVER: Final = """
UPDATE deliveries SET queued = due, batch = CASE attempts WHEN 0 THEN '' ELSE delivery_id END,
    pipeline = (SELECT pipeline FROM alerts WHERE alerts.alert_id = deliveries.alert_id)
"""
"""What was tried already has arrived under its own id, perhaps: nothing may join it."""

INDEXES: Final = """
CREATE INDEX IF NOT EXISTS alerts_open ON alerts (pipeline, kind) WHERE active = 1;
CREATE INDEX IF NOT EXISTS alerts_muted ON alerts (muted) WHERE active = 1 AND muted <> '';
CREATE INDEX IF NOT EXISTS alerts_to_escalate ON alerts (escalate_time)
    WHERE active = 1 AND escalated = 0 AND (escalate_time IS NOT NULL OR escalate_after IS NOT NULL);
CREATE INDEX IF NOT EXISTS alerts_made_good ON alerts (good_since) WHERE active = 1 AND good_since IS NOT NULL;
CREATE INDEX IF NOT EXISTS deliveries_by_batch ON deliveries (batch) WHERE batch <> '';
CREATE INDEX IF NOT EXISTS deliveries_open ON deliveries (channel, pipeline, reason)
    WHERE state = 'pending' AND batch = '';
"""


def open_database(path: Path) -> sqlite3.Connection:
    """Open the store's file, making it, or adding what a file of an earlier version lacks.

    Args:
        path: The file.

    Returns:
        The connection; see `ml_pipeline.config._sqlite.connect`.

    Raises:
        sqlite3.Error: If the file is not a database, stays locked, or cannot be written.
        OSError: If the folder cannot be made.
    """
    connection = _sqlite.connect(path, schema=TABLES)
    try:
        if any(_missing(connection).values()):
            _add_columns(connection)
        connection.executescript(INDEXES)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _add_columns(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        missing = _missing(connection)  # another process may have been quicker
        for table, columns in missing.items():
            for column in columns:
                connection.execute(f"ALTER TABLE {table} ADD COLUMN {column} {ADDED[table][column]}")
        if "batch" in missing["deliveries"]:
            connection.execute(_TAKE_OVER)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def _missing(connection: sqlite3.Connection) -> dict[str, list[str]]:
    missing = {}
    for table, columns in ADDED.items():
        present = {row["name"] for row in connection.execute(f"PRAGMA table_info({table})")}
        missing[table] = [name for name in columns if name not in present]
    return missing
