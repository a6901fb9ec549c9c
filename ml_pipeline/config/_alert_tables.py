"""An alert store and outbox in the tables of a database, which several processes may use."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_records import (
    SEVERITIES,
    Alert,
    AlertSummary,
    DeliveryState,
    Occurrence,
    Recorded,
    judge,
    merged,
    repeated,
)
from ml_pipeline.config._alert_tables_base import COLUMNS, alert_of, as_json, values_of
from ml_pipeline.config._alert_tables_upkeep import UpkeepTables
from ml_pipeline.config._events import EMPTY

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ml_pipeline.config._alert_tables_base import Row

__all__ = ["AlertTables"]

SAME_FAILURE_SECONDS: Final = 300.0
"""How long a failure that was alerted is recognised in the operations around it."""

_MOST_PLACES: Final = 10_000

_STORED: Final = (*COLUMNS, "rule")
_INSERT: Final = (
    f"INSERT INTO alerts ({', '.join(_STORED)}, automatic, active, escalate_after, escalate_time) "  # noqa: S608 - names of columns, not values
    f"VALUES ({', '.join(f':{name}' for name in _STORED)}, :automatic, 1, :escalate_after, :escalate_time)"
)
_UPDATE: Final = (
    f"UPDATE alerts SET {', '.join(f'{name} = :{name}' for name in _STORED)}, "  # noqa: S608 - as above
    "automatic = :automatic, good_since = CASE WHEN good_since > :last_time THEN good_since END "
    "WHERE alert_id = :alert_id"
)

# As `may_be_one` says it.
_MAY_BE_ONE: Final = """(operation_id = :operation_id OR (
    (operation_id IS NULL OR :operation_id IS NULL) AND (run_id = :run_id OR run_id IS NULL OR :run_id IS NULL)
))"""
# Of two that may be one failure, an unknown model or exception type matches any; an unknown feature does within one
# operation. Two different operations have only repeats in common.
_SAME_IDENTITY: Final = f"""
    kind = :kind AND pipeline = :pipeline AND operation = :operation AND rule = :rule AND (
        (model = :model AND error_type = :error_type AND feature = :feature)
        OR ({_MAY_BE_ONE}
            AND (model = :model OR model = '' OR :model = '')
            AND (error_type = :error_type OR error_type = '' OR :error_type = '')
            AND (feature = :feature OR (operation_id = :operation_id AND (feature = '' OR :feature = '')))))
"""
_IN_COOLDOWN: Final = f"""
SELECT * FROM alerts WHERE {_SAME_IDENTITY} AND state <> 'resolved'
    AND time > :time - :cooldown AND time < :time + :cooldown
ORDER BY CASE WHEN model = :model THEN 1 ELSE 0 END + CASE WHEN error_type = :error_type THEN 1 ELSE 0 END
    + CASE WHEN feature = :feature THEN 1 ELSE 0 END DESC, sequence DESC LIMIT 1
"""  # noqa: S608 - a constant
_COUNT_FROM_NONE: Final = "UPDATE alerts SET count = 0, held_back = 0 WHERE alert_id = :alert_id"
_OPEN: Final = "SELECT * FROM alerts WHERE alert_id = :alert_id AND state <> 'resolved'"
_SUPERSEDE: Final = """
UPDATE alerts SET active = 0 WHERE active = 1 AND kind = :kind AND pipeline = :pipeline AND operation = :operation
    AND model = :model AND feature = :feature AND error_type = :error_type AND rule = :rule
"""

# A place without a failure is the alert's own operation, where whatever is said is about that alert; said of another
# operation, it has left that one.
_AT_PLACE: Final = """
SELECT alerts.*, (places.failure IS NOT NULL OR place IS NOT :operation_id) AS passing
FROM places JOIN alerts USING (alert_id)
WHERE place IN (SELECT value FROM json_each(:places)) AND kind = :kind AND (rule = :rule OR rule = '' OR :rule = '')
    AND places.time > :time - :window AND places.time < :time + :window
    AND (failure IS NULL OR (failure = :failure
        AND (places.error_type = :error_type OR places.error_type = '' OR :error_type = '')))
ORDER BY passing, places.sequence DESC LIMIT 1
"""
_ADD_PLACE: Final = """
INSERT INTO places (place, alert_id, failure, error_type, time)
SELECT :place, :alert_id, :failure, :error_type, :time WHERE NOT EXISTS (
    SELECT 1 FROM places
    WHERE place = :place AND alert_id = :alert_id AND failure IS :failure AND error_type = :error_type
)
"""
_FORGET_PLACES: Final = "DELETE FROM places WHERE sequence <= (SELECT max(sequence) FROM places) - :most"

_COUNT_ALERTS: Final = """
SELECT kind, severity, count(*) AS alerts, sum(held_back) AS held_back FROM alerts
WHERE time >= :since AND time < :until GROUP BY kind, severity
"""
_COUNT_DELIVERIES: Final = """
SELECT channel, deliveries.state, count(*) AS alerts FROM deliveries JOIN alerts USING (alert_id)
WHERE time >= :since AND time < :until AND reason <> 'digest' GROUP BY channel, deliveries.state
"""

_CONDITIONS: Final = {
    "kind": "kind = :kind",
    "severity": "severity = :severity",
    "state": "state = :state",
    "since": "time >= :since",
}


class AlertTables(UpkeepTables):
    """Alerts and outbox in the tables of one database; an `AlertStore`."""

    def record(self, said: Occurrence, *, channels: Sequence[str], cooldown_seconds: float) -> Recorded:
        """See `AlertStore.record`."""
        if said.cooldown_seconds is not None:
            cooldown_seconds = said.cooldown_seconds
        with self._database.lock:
            # A look beforehand only decides how hard to synchronise: what is news survives a power cut, and a repeat,
            # of which there may be thousands in a loop, does not wait for the disk.
            durable = self._belongs_to(said, cooldown_seconds) is None
            with self._database.transaction(durable=durable):
                found = self._belongs_to(said, cooldown_seconds)
                recorded = self._raise(said, channels) if found is None else self._again(*found, said, channels)
                self._add_places(said, recorded.alert.alert_id)
        return recorded

    def know(self, said: Occurrence, *, cooldown_seconds: float) -> None:
        """Take note of an alert that another store keeps, so that its repeats are counted under it here, from none on.

        Args:
            said: The alert as it stands there, and where its failure is on its way to.
            cooldown_seconds: How long a repeat is counted under it.
        """
        given = {"alert_id": said.alert.alert_id}
        if self.get(said.alert.alert_id) is None:
            self.record(said, channels=(), cooldown_seconds=cooldown_seconds)
            with self._database.transaction():
                self._database.execute(_COUNT_FROM_NONE, given)

    def resolve(self, alert_id: str, *, time: float) -> Alert | None:
        """See `AlertStore.resolve`."""
        with self._database.transaction():
            rows = self._database.rows(_OPEN, {"alert_id": alert_id})
            return self._resolve(rows[0], time) if rows else None

    def clear(self, time: float, **identity: str) -> list[Alert]:
        """See `AlertStore.clear`."""
        conditions = "".join(f" AND {name} = :{name}" for name in identity)
        statement = f"SELECT * FROM alerts WHERE active = 1{conditions} ORDER BY sequence"  # noqa: S608 - as above
        if not self._database.rows(statement, identity):  # most of the time: no write lock for finding nothing
            return []
        with self._database.transaction():
            return [self._resolve(row, time) for row in self._database.rows(statement, identity)]

    def find(
        self,
        *,
        limit: int,
        kind: str | None = None,
        severity: str | None = None,
        state: str | None = None,
        since: float | None = None,
        only_active: bool = False,
        identity: Mapping[str, str] = EMPTY,
    ) -> list[Alert]:
        """See `AlertStore.find`."""
        given = {"kind": kind, "severity": severity, "state": state, "since": since}
        conditions = [_CONDITIONS[name] for name, value in given.items() if value is not None]
        conditions += [f"{name} = :{name}" for name in identity]
        conditions += ["active = 1"] if only_active else []
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        statement = f"SELECT * FROM alerts {where} ORDER BY time DESC, sequence DESC LIMIT :limit"  # noqa: S608 - as above
        return [alert_of(row) for row in self._database.rows(statement, given | {"limit": limit, **identity})]

    def summarise(self, since: float, until: float = math.inf) -> AlertSummary:
        """See `AlertStore.summarise`."""
        with self._database.lock:
            rows = self._database.rows(_COUNT_ALERTS, {"since": since, "until": until})
            sent = self._database.rows(_COUNT_DELIVERIES, {"since": since, "until": until})
        by_kind: Counter[str] = Counter()
        by_severity: Counter[str] = Counter()
        for row in rows:
            by_kind[row["kind"]] += row["alerts"]
            by_severity[row["severity"]] += row["alerts"]
        deliveries: dict[str, dict[DeliveryState, int]] = {}
        for row in sent:
            deliveries.setdefault(row["channel"], {})[row["state"]] = row["alerts"]
        return AlertSummary(
            since=since,
            alerts=by_kind.total(),
            by_kind=dict(by_kind),
            by_severity=dict(by_severity),
            held_back=sum(row["held_back"] for row in rows),
            deliveries=deliveries,
        )

    def _belongs_to(self, said: Occurrence, cooldown_seconds: float) -> tuple[Row, bool] | None:
        """Find the alert that an occurrence belongs to, and whether as a failure on its way up."""
        given = _values(said) | {"cooldown": cooldown_seconds}
        row = self._at_place(said, given)
        if row is not None:
            existing, passing = alert_of(row), bool(row["passing"])
            outcome = judge(existing, automatic=bool(row["automatic"]), said=said, passing=passing)
            is_held_back = existing.state != "resolved" and abs(said.alert.time - existing.time) < cooldown_seconds
            if outcome != "suppressed" or is_held_back:
                return row, passing
        rows = self._database.rows(_IN_COOLDOWN, given)
        return (rows[0], False) if rows else None

    def _at_place(self, said: Occurrence, given: Mapping[str, Any]) -> Row | None:
        if said.failure is None:
            return None
        places = as_json([place for place in (said.alert.operation_id, *said.places) if place])
        rows = self._database.rows(
            _AT_PLACE, {**given, "places": places, "failure": said.failure, "window": SAME_FAILURE_SECONDS}
        )
        return rows[0] if rows else None

    def _raise(self, said: Occurrence, channels: Sequence[str]) -> Recorded:
        values = _values(said)
        self._database.execute(_SUPERSEDE, values)
        muted = self._muting(said.alert, said.alert.time)
        self._database.execute(_INSERT, values | {"muted": muted})
        if not muted:
            self._queue(said.alert, channels, said.alert.time)
        return Recorded(replace(said.alert, muted=muted), "raised")

    def _again(self, row: Row, passing: bool, said: Occurrence, channels: Sequence[str]) -> Recorded:
        existing, automatic = alert_of(row), bool(row["automatic"])
        outcome = judge(existing, automatic=automatic, said=said, passing=passing)
        if outcome == "implied":
            return Recorded(existing, outcome)
        is_open = existing.state != "resolved"
        is_worse = is_open and SEVERITIES.index(said.alert.severity) > SEVERITIES.index(existing.severity)
        is_news = is_worse and outcome == "suppressed"
        if is_news:
            outcome, alert = "refined", _worse(existing, said)
        else:
            alert = repeated(existing, said) if outcome == "suppressed" else merged(existing, said)
        values = values_of(alert) | {"automatic": automatic and said.automatic}
        self._database.execute(_UPDATE, values)
        if is_worse and not alert.muted:
            self._queue_worse(alert, channels, said.alert.time, is_news=is_news)
        return Recorded(alert, outcome)

    def _add_places(self, said: Occurrence, alert_id: str) -> None:
        if said.failure is None:
            return
        given = {"alert_id": alert_id, "error_type": said.alert.error_type, "time": said.alert.time}
        places: list[dict[str, Any]] = [{**given, "place": place, "failure": said.failure} for place in said.around]
        if said.alert.operation_id:
            places.append({**given, "place": said.alert.operation_id, "failure": None})
        for place in places:
            self._database.execute(_ADD_PLACE, place)
        self._database.execute(_FORGET_PLACES, {"most": _MOST_PLACES})


def _worse(existing: Alert, said: Occurrence) -> Alert:
    """Have an alert say what a repeat says that is more severe: no cooldown holds that back."""
    told = replace(said, alert=replace(said.alert, message=existing.message))
    escalated = existing.escalated or said.alert.severity == SEVERITIES[-1]
    return replace(merged(existing, told), message=said.alert.message, escalated=escalated)


def _values(said: Occurrence) -> dict[str, Any]:
    alert = said.alert
    escalate_time = None if said.escalate_seconds is None else alert.time + said.escalate_seconds
    given = {"automatic": said.automatic, "escalate_after": said.escalate_after, "escalate_time": escalate_time}
    return values_of(alert) | given
