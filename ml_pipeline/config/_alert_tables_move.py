"""Moves what one alert store holds to another: what a host kept while the database of several was away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_tables_base import as_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_pipeline.config._alert_tables import AlertTables
    from ml_pipeline.config._alert_tables_base import Database, Row

__all__ = ["holds_anything", "move"]

_AT_ONCE: Final = 40
"""Alerts; the store that they leave is locked meanwhile, over a slow network for some seconds."""

_ANYTHING: Final = "SELECT alert_id AS id FROM alerts UNION ALL SELECT silence_id FROM silences LIMIT 1"
_ALERTS: Final = "SELECT * FROM alerts ORDER BY sequence LIMIT :most"
_OF: Final = "alert_id IN (SELECT value FROM json_each(:ids))"
_WITH_THEM: Final = ("places", "deliveries")
_KNOWN: Final = "SELECT state FROM alerts WHERE alert_id = :alert_id"
_IDENTITY: Final = """active = 1 AND alert_id <> :alert_id AND kind = :kind AND pipeline = :pipeline
    AND operation = :operation AND model = :model AND feature = :feature AND error_type = :error_type AND rule = :rule
"""
_SUPERSEDE: Final = f"UPDATE alerts SET active = 0 WHERE {_IDENTITY} AND time <= :time"  # noqa: S608 - a constant
_NEWER: Final = f"SELECT alert_id FROM alerts WHERE {_IDENTITY} AND time > :time"  # noqa: S608 - a constant
_ADD_TO: Final = """
UPDATE alerts SET count = count + :count, held_back = held_back + :held_back, last_time = max(last_time, :last_time)
WHERE alert_id = :alert_id
"""
_REFINED: Final = (
    *("state", "severity", "operation_id", "run_id", "user_id", "model", "error_type", "details", "name", "labels"),
    "runbook",
)
_REFINE: Final = (
    f"UPDATE alerts SET {', '.join(f'{name} = :{name}' for name in _REFINED)} "  # noqa: S608 - names of columns
    "WHERE alert_id = :alert_id AND state <> 'resolved'"
)
_CARE: Final = """
UPDATE alerts SET acknowledged_by = :acknowledged_by, acknowledged_time = :acknowledged_time
WHERE alert_id = :alert_id AND acknowledged_by = ''
"""
_ESCALATE: Final = "UPDATE alerts SET escalated = 1, severity = 'critical' WHERE alert_id = :alert_id"
_SAME: Final = "alert_id = :alert_id AND channel = :channel AND reason = :reason"
_SAID: Final = f"SELECT state FROM deliveries WHERE {_SAME}"  # noqa: S608 - a constant
_SETTLE: Final = f"""
UPDATE deliveries SET state = :state, settled = :settled, error = :error, batch = :batch, told = :told,
    attempts = :attempts, lease_until = 0
WHERE {_SAME} AND state = 'pending'
"""  # noqa: S608 - a constant


def holds_anything(source: AlertTables) -> bool:
    """Say whether a store holds an alert or a silence."""
    return bool(source.database.rows(_ANYTHING))


def move(source: AlertTables, target: AlertTables) -> int:
    """Move the oldest alerts of a store, with what has become of their deliveries, and its silences.

    An alert that the target knows already gains what the source counted and knows besides, and no second delivery.
    Whatever goes wrong, nothing is lost: the source gives up what the target has on disk. The end of the process just
    between the two may count repeats twice, and delivers nothing twice.

    Args:
        source: Where they are; locked meanwhile.
        target: Where they go.

    Returns:
        How many alerts were moved.
    """
    with source.database.transaction(durable=True):
        alerts = source.database.rows(_ALERTS, {"most": _AT_ONCE})
        ids = {"ids": as_json(row["alert_id"] for row in alerts)}
        others = {
            table: source.database.rows(f"SELECT * FROM {table} WHERE {_OF} ORDER BY sequence", ids)  # noqa: S608 - as above
            for table in _WITH_THEM
        }
        others["silences"] = source.database.rows("SELECT * FROM silences")
        with target.database.transaction(durable=True):
            for row in alerts:
                _move_alert(row, target.database)
            for row in others["deliveries"]:
                _move_delivery(row, target.database)
            for table in ("places", "silences"):
                for row in others[table]:
                    _insert(target.database, table, row)
        for row in alerts:  # whoever was told of it there is told that it is over
            if row["state"] == "resolved":
                target.resolve(row["alert_id"], time=row["last_time"])
        for table in (*_WITH_THEM, "alerts"):
            source.database.execute(f"DELETE FROM {table} WHERE {_OF}", ids)  # noqa: S608 - names of tables
        source.database.execute("DELETE FROM silences")
    return len(alerts)


def _move_alert(row: Row, target: Database) -> None:
    values = _values(row)
    known = target.rows(_KNOWN, values)
    if known:
        target.execute(_ADD_TO, values)
        if row["state"] == "refined":
            target.execute(_REFINE, values)
        if row["acknowledged_by"]:
            target.execute(_CARE, values)
        if row["escalated"]:
            target.execute(_ESCALATE, values)
        return
    if row["active"] and target.rows(_NEWER, values):
        values["active"] = 0
    elif row["active"]:
        target.execute(_SUPERSEDE, values)
    _insert(target, "alerts", values)


def _move_delivery(row: Row, target: Database) -> None:
    if not target.rows(_SAID, _values(row)):
        _insert(target, "deliveries", row)
    elif row["state"] != "pending":
        target.execute(_SETTLE, _values(row))


def _insert(target: Database, table: str, row: Row | Mapping[str, Any]) -> None:
    values = _values(row)
    columns, places = ", ".join(values), ", ".join(f":{name}" for name in values)
    target.execute(f"INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING", values)  # noqa: S608 - names


def _values(row: Row | Mapping[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in row.keys() if name != "sequence"}  # noqa: SIM118 - a row is not a mapping
