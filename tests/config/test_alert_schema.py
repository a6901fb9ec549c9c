"""A store's file of an earlier version is opened, gains what it lacks, and loses nothing."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ml_pipeline.config._alert_sqlite import SqliteAlertStore
from ml_pipeline.testing.alert_store_contract import record, said

FIRST_VERSION = """
CREATE TABLE alerts (
    sequence INTEGER PRIMARY KEY, alert_id TEXT NOT NULL UNIQUE, time REAL NOT NULL, state TEXT NOT NULL,
    kind TEXT NOT NULL, severity TEXT NOT NULL, pipeline TEXT NOT NULL, operation TEXT NOT NULL, operation_id TEXT,
    run_id TEXT, user_id TEXT, model TEXT NOT NULL, feature TEXT NOT NULL, error_type TEXT NOT NULL,
    message TEXT NOT NULL, count INTEGER NOT NULL, held_back INTEGER NOT NULL, last_time REAL NOT NULL,
    details TEXT NOT NULL, automatic INTEGER NOT NULL, active INTEGER NOT NULL
);
CREATE TABLE places (
    sequence INTEGER PRIMARY KEY, place TEXT NOT NULL, alert_id TEXT NOT NULL REFERENCES alerts (alert_id),
    failure TEXT, error_type TEXT NOT NULL, time REAL NOT NULL
);
CREATE TABLE deliveries (
    sequence INTEGER PRIMARY KEY, delivery_id TEXT NOT NULL UNIQUE,
    alert_id TEXT NOT NULL REFERENCES alerts (alert_id), channel TEXT NOT NULL, state TEXT NOT NULL,
    attempts INTEGER NOT NULL, due REAL NOT NULL, lease_until REAL NOT NULL, settled REAL, error TEXT NOT NULL
);
"""
INSERT_ALERT = """
INSERT INTO alerts (alert_id, time, state, kind, severity, pipeline, operation, model, feature, error_type, message,
    count, held_back, last_time, details, automatic, active)
VALUES (?, 1000.0, 'raised', 'processing_failure', 'critical', 'p', ?, '', '', '', 'x failed', 2, 1, 1001.0,
    '{"rows":3}', 0, 1)
"""
INSERT_DELIVERY = """
INSERT INTO deliveries (delivery_id, alert_id, channel, state, attempts, due, lease_until, error)
VALUES (?, ?, 'email', 'pending', ?, 1000.0, 0, '')
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Return a file of the first version, with an alert that was never tried and one that was."""
    path = tmp_path / "outbox.db"
    connection = sqlite3.connect(path)
    connection.executescript(FIRST_VERSION)
    for alert_id, attempts in (("tried", 1), ("new", 0), ("newer", 0)):
        connection.execute(INSERT_ALERT, (alert_id, alert_id))
        connection.execute(INSERT_DELIVERY, (f"delivery of {alert_id}", alert_id, attempts))
    connection.commit()
    connection.close()
    return path


def test_what_an_earlier_version_wrote_is_read(old: Path) -> None:
    """Its alerts have the new fields, empty; a repeat is counted under them, and a new alert joins them."""
    store = SqliteAlertStore(old)
    first = store.find(limit=10)[-1]
    assert (first.alert_id, first.count, first.details) == ("tried", 2, {"rows": 3})
    assert (first.name, first.labels, first.muted, first.escalated) == ("", {}, "", False)
    assert record(store, said(1002.0, operation="new")) == ("suppressed", "new")
    assert record(store, said(1002.0, operation="other"))[0] == "raised"
    store.close()


def test_two_that_open_it_at_once_both_can(old: Path) -> None:
    """Whoever comes second finds the columns there."""
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: SqliteAlertStore(old), range(4)))
    assert [len(store.find(limit=10)) for store in stores] == [3] * 4
    for store in stores:
        store.close()


def test_a_process_of_the_earlier_version_can_go_on(old: Path) -> None:
    """What it writes without knowing the new columns is whole."""
    store = SqliteAlertStore(old)
    connection = sqlite3.connect(old)
    connection.execute(INSERT_ALERT, ("late", "late"))
    connection.execute(INSERT_DELIVERY, ("delivery of late", "late", 0))
    connection.commit()
    connection.close()
    assert store.find(limit=1)[0].alert_id == "late"
    store.close()
