"""What becomes of the alerts of a store while time passes: muted, escalated, acknowledged, forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from ml_pipeline.config._alert_names import INHIBITED
from ml_pipeline.config._alert_records import DeliveryRecord
from ml_pipeline.config._alert_silences import Silence
from ml_pipeline.config._alert_tables_base import alert_of, as_json
from ml_pipeline.config._alert_tables_outbox import MOST_IN_A_MESSAGE, OutboxTables

if TYPE_CHECKING:
    from ml_pipeline.config._alert_records import Alert
    from ml_pipeline.config._alert_tables_base import Row

__all__ = ["INHIBITION_SECONDS", "LOOK_AGAIN_SECONDS", "ChannelsOf", "UpkeepTables"]

ChannelsOf: TypeAlias = Callable[["Alert"], Sequence[str]]

INHIBITION_SECONDS: Final = 3_600.0
"""How long a failure that nobody resolves mutes what it causes, counted from when it was last said."""

LOOK_AGAIN_SECONDS: Final = 30.0
"""How often to see whether what mutes an alert is over."""

_RESOLVE: Final = """
UPDATE alerts SET state = 'resolved', active = 0, last_time = :time, resolved_time = :time, muted = ''
WHERE alert_id = :alert_id
"""
_ACKNOWLEDGE: Final = """
UPDATE alerts SET acknowledged_by = :by, acknowledged_time = :time WHERE alert_id = :alert_id AND state <> 'resolved'
"""
_BY_ID: Final = "SELECT * FROM alerts WHERE alert_id = :alert_id"
_DELIVERIES: Final = """
SELECT batch AS delivery_id, channel, reason, state, attempts, due, settled, error FROM deliveries
WHERE alert_id = :alert_id ORDER BY sequence
"""
_HOLD: Final = """
UPDATE alerts SET count = count + :count, held_back = held_back + :count, last_time = max(last_time, :time),
    good_since = CASE WHEN good_since > :time THEN good_since END
WHERE alert_id = :alert_id
"""
_SILENCES: Final = "SELECT * FROM silences WHERE until > :time ORDER BY until"
_ADD_SILENCE: Final = """
INSERT INTO silences (silence_id, matchers, since, until, reason, by)
VALUES (:silence_id, :matchers, :since, :until, :reason, :by) ON CONFLICT DO NOTHING
"""
_END_SILENCE: Final = "UPDATE silences SET until = :time WHERE silence_id = :silence_id AND until > :time"
_CAUSES: Final = """
SELECT alert_id FROM alerts WHERE active = 1 AND pipeline = :pipeline AND alert_id <> :alert_id
    AND name IN (SELECT value FROM json_each(:names)) AND last_time > :time - :window AND last_time <= :time LIMIT 1
"""
_WENT_WELL: Final = """
UPDATE alerts SET good_since = :time WHERE active = 1 AND kind = 'processing_failure' AND rule = ''
    AND good_since IS NULL AND pipeline = :pipeline AND operation = :operation AND model = :model AND last_time <= :time
"""
_FAILED: Final = """
SELECT alert_id FROM alerts WHERE active = 1 AND kind = 'processing_failure' AND rule = ''
    AND good_since IS NULL AND pipeline = :pipeline AND operation = :operation AND model = :model LIMIT 1
"""
_MADE_GOOD: Final = "SELECT * FROM alerts WHERE active = 1 AND good_since IS NOT NULL"
_MUTED: Final = "SELECT * FROM alerts WHERE active = 1 AND muted <> ''"
_MUTE: Final = "UPDATE alerts SET muted = :muted WHERE alert_id = :alert_id"
_TO_ESCALATE: Final = """
SELECT * FROM alerts WHERE active = 1 AND escalated = 0 AND acknowledged_by = ''
    AND (escalate_time IS NOT NULL OR escalate_after IS NOT NULL)
    AND (escalate_time <= :time OR count >= escalate_after)
"""
_ESCALATE: Final = "UPDATE alerts SET escalated = 1, severity = 'critical' WHERE alert_id = :alert_id"
_NEXT_ESCALATION: Final = """
SELECT min(escalate_time) AS next FROM alerts WHERE active = 1 AND escalated = 0 AND acknowledged_by = ''
    AND escalate_time IS NOT NULL
"""
_NEXT_END: Final = "SELECT min(until) AS next FROM silences WHERE until > :time"
_OF_PERIOD: Final = """
SELECT * FROM alerts WHERE time >= :since AND time < :until
ORDER BY CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END, sequence LIMIT :most
"""
_DIGESTED: Final = "SELECT period FROM digests WHERE period = :period"
_DIGEST: Final = "INSERT INTO digests (period) VALUES (:period) ON CONFLICT DO NOTHING"
_OLD: Final = """
SELECT alert_id FROM alerts WHERE last_time < :before
    AND alert_id NOT IN (SELECT alert_id FROM deliveries WHERE state = 'pending')
"""
_FORGET: Final = (
    f"DELETE FROM deliveries WHERE alert_id IN ({_OLD})",  # noqa: S608 - a constant
    f"DELETE FROM places WHERE alert_id IN ({_OLD})",  # noqa: S608 - a constant
    f"DELETE FROM alerts WHERE alert_id IN ({_OLD})",  # noqa: S608 - a constant
    "DELETE FROM silences WHERE until < :before",
)


class UpkeepTables(OutboxTables):
    """The part of a store that looks after alerts that were raised."""

    def get(self, alert_id: str) -> Alert | None:
        """See `AlertStore.get`."""
        rows = self._database.rows(_BY_ID, {"alert_id": alert_id})
        return alert_of(rows[0]) if rows else None

    def deliveries(self, alert_id: str) -> list[DeliveryRecord]:
        """See `AlertStore.deliveries`."""
        return [DeliveryRecord(**dict(row)) for row in self._database.rows(_DELIVERIES, {"alert_id": alert_id})]

    def acknowledge(self, alert_id: str, *, by: str, time: float) -> Alert | None:
        """See `AlertStore.acknowledge`."""
        with self._database.transaction():
            done = self._database.execute(_ACKNOWLEDGE, {"alert_id": alert_id, "by": by, "time": time})
            return self.get(alert_id) if done else None

    def hold(self, alert_id: str, count: int, *, time: float) -> Alert | None:
        """See `AlertStore.hold`."""
        with self._database.transaction():
            self._database.execute(_HOLD, {"alert_id": alert_id, "count": count, "time": time})
            return self.get(alert_id)

    def went_well(self, pipeline: str, operation: str, model: str, *, time: float) -> bool:
        """See `AlertStore.went_well`."""
        given = {"pipeline": pipeline, "operation": operation, "model": model}
        if not self._database.rows(_FAILED, given):
            return False
        with self._database.transaction():
            return self._database.execute(_WENT_WELL, {**given, "time": time}) > 0

    def resolve_mended(self, raised_before: float, *, time: float) -> list[Alert]:
        """See `AlertStore.resolve_mended`."""
        statement, given = f"{_MADE_GOOD} AND time <= :before ORDER BY sequence", {"before": raised_before}
        if not self._database.rows(statement, given):
            return []
        with self._database.transaction():
            return [self._resolve(row, time) for row in self._database.rows(statement, given)]

    def add_silence(self, silence: Silence) -> None:
        """See `AlertStore.add_silence`."""
        given = {name: getattr(silence, name) for name in ("silence_id", "since", "until", "reason", "by")}
        given["matchers"] = orjson.dumps(dict(silence.matchers)).decode()
        with self._database.transaction(durable=True):
            self._database.execute(_ADD_SILENCE, given)

    def end_silence(self, silence_id: str, *, time: float) -> bool:
        """See `AlertStore.end_silence`."""
        with self._database.transaction(durable=True):
            given = {"silence_id": silence_id, "time": time}
            return self._database.execute(_END_SILENCE, given) > 0

    def silences(self, time: float) -> list[Silence]:
        """See `AlertStore.silences`."""
        return [_silence(row) for row in self._database.rows(_SILENCES, {"time": time})]

    def unmute(self, channels_of: ChannelsOf, *, time: float) -> list[Alert]:
        """See `AlertStore.unmute`."""
        if not self._database.rows(_MUTED):
            return []
        released = []
        with self._database.transaction(durable=True):
            for row in self._database.rows(_MUTED):
                alert = alert_of(row)
                muted = self._muting(alert, time)
                if muted != alert.muted:
                    self._database.execute(_MUTE, {"alert_id": alert.alert_id, "muted": muted})
                if not muted:
                    released.append(replace(alert, muted=""))
                    self._queue(released[-1], channels_of(released[-1]), time)
        return released

    def escalate(self, channels_of: ChannelsOf, *, time: float) -> list[Alert]:
        """See `AlertStore.escalate`."""
        if not self._database.rows(_TO_ESCALATE, {"time": time}):
            return []
        escalated = []
        with self._database.transaction(durable=True):
            for row in self._database.rows(_TO_ESCALATE, {"time": time}):
                alert = replace(alert_of(row), severity="critical", escalated=True)
                self._database.execute(_ESCALATE, {"alert_id": alert.alert_id})
                if not alert.muted:  # it is delivered as critical when it is heard at all
                    self._queue(alert, channels_of(alert), time, reason="escalated")
                escalated.append(alert)
        return escalated

    def next_change(self, time: float) -> float | None:
        """See `AlertStore.next_change`."""
        times = [self._database.rows(_NEXT_ESCALATION)[0]["next"]]
        if self._database.rows(_MUTED):  # others may end a silence, or resolve a cause, at any time
            times += [self._database.rows(_NEXT_END, {"time": time})[0]["next"], time + LOOK_AGAIN_SECONDS]
        if self._database.rows(_MADE_GOOD):
            times.append(time + LOOK_AGAIN_SECONDS)
        return min((each for each in times if each is not None), default=None)

    def digest(self, period: str, channels: Sequence[str], note: str, *, since: float, until: float) -> bool:
        """See `AlertStore.digest`."""
        if self._database.rows(_DIGESTED, {"period": period}):
            return False
        with self._database.transaction(durable=True):
            if not self._database.execute(_DIGEST, {"period": period}):
                return False
            for row in self._database.rows(_OF_PERIOD, {"since": since, "until": until, "most": MOST_IN_A_MESSAGE}):
                self._queue(alert_of(row), channels, until, reason="digest", note=note)
        return True

    def forget(self, before: float) -> int:
        """See `AlertStore.forget`."""
        forgotten = 0
        if self._database.rows(f"{_OLD} LIMIT 1", {"before": before}):
            with self._database.transaction():
                for statement in _FORGET:
                    forgotten += self._database.execute(statement, {"before": before})
        return forgotten

    def _resolve(self, row: Row, time: float) -> Alert:
        alert = replace(alert_of(row), state="resolved", last_time=time, muted="")
        self._database.execute(_RESOLVE, {"time": time, "alert_id": alert.alert_id})
        self._queue_resolved(alert, time)
        return alert

    def _muting(self, alert: Alert, time: float) -> str:
        """Say what keeps an alert from being delivered now; empty for nothing."""
        if any(silence.since <= time and silence.matches(alert) for silence in self.silences(time)):
            return "silence"
        causes = [name for name, kinds in INHIBITED.items() if alert.kind in kinds]
        given: dict[str, Any] = {"pipeline": alert.pipeline, "alert_id": alert.alert_id, "time": time}
        if causes and self._database.rows(_CAUSES, {**given, "names": as_json(causes), "window": INHIBITION_SECONDS}):
            return "inhibition"
        return ""


def _silence(row: Row) -> Silence:
    return Silence(**{name: row[name] for name in row.keys()} | {"matchers": orjson.loads(row["matchers"])})  # noqa: SIM118
