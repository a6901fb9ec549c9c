"""The outbox of an alert store: messages of one or several alerts, each for whoever claims it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_records import Delivery
from ml_pipeline.config._alert_store import ALERTMANAGER
from ml_pipeline.config._alert_tables_base import Tables, alert_of, as_json
from ml_pipeline.config._ids import new_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_pipeline.config._alert_records import Alert, DeliveryReason, DeliveryState
    from ml_pipeline.config._alert_tables_base import Row

__all__ = ["GROUP_SECONDS", "MOST_IN_A_MESSAGE", "OutboxTables"]

GROUP_SECONDS: Final = 30.0
"""What is raised so soon after the last message of its group shares the next one, which so long after that is due."""

MOST_IN_A_MESSAGE: Final = 100
"""Alerts; the rest is counted. Alertmanager, which groups by itself, is told of all."""

_MOST_AT_ONCE: Final = 10_000
_STANDS_IN: Final = "Alertmanager has not taken this, so the pipeline sends it itself."

_MOST_AHEAD_SECONDS: Final = 60.0  # the clocks of several hosts are not quite one

_AHEAD: Final = "state = 'pending' AND queued > :ahead"
_TURN_BACK: Final = f"""
UPDATE deliveries SET queued = :time, due = :time,
    lease_until = CASE WHEN lease_until > :until THEN :until ELSE lease_until END
WHERE {_AHEAD}
"""  # noqa: S608 - a constant
_QUEUE: Final = """
INSERT INTO deliveries
    (delivery_id, alert_id, channel, state, attempts, due, lease_until, error, reason, pipeline, queued, note)
VALUES (:delivery_id, :alert_id, :channel, 'pending', 0, :due, 0, '', :reason, :pipeline, :queued, :note)
"""
_LAST: Final = "SELECT last FROM groups WHERE channel = :channel AND pipeline = :pipeline AND reason = :reason"
_MINE: Final = "state = 'pending' AND channel IN (SELECT value FROM json_each(:channels))"
# What this would say may be on its way elsewhere: through Alertmanager, or through what stands in for it.
_OF_OTHERS: Final = f"""other.alert_id = mine.alert_id AND other.reason = mine.reason AND other.state = 'pending'
    AND other.reason <> 'resolved' AND (other.channel = '{ALERTMANAGER}') <> (mine.channel = '{ALERTMANAGER}')"""
_SAID_ELSEWHERE: Final = f"""
    SELECT mine.{{column}} FROM deliveries AS other JOIN deliveries AS mine ON {_OF_OTHERS}
    WHERE other.lease_until > :time AND mine.state = 'pending'
"""  # noqa: S608 - a constant
_ELSEWHERE: Final = f"sequence IN ({_SAID_ELSEWHERE.format(column='sequence')})"
_DUE: Final = f"""
SELECT * FROM deliveries WHERE {_MINE} AND (due <= :time OR (:early = 1 AND batch = '')) AND lease_until <= :time
    AND NOT {_ELSEWHERE} AND (batch = '' OR batch NOT IN ({_SAID_ELSEWHERE.format(column="batch")}))
ORDER BY due, sequence LIMIT 1
"""  # noqa: S608 - a constant
_GATHER: Final = f"""
UPDATE deliveries SET batch = :batch, told = CASE
    (SELECT state FROM alerts WHERE alerts.alert_id = deliveries.alert_id) WHEN 'resolved' THEN NULL ELSE :time END
WHERE state = 'pending' AND batch = '' AND channel = :channel AND pipeline = :pipeline AND reason = :reason
    AND NOT {_ELSEWHERE}
"""  # noqa: S608 - a constant
_SET_LAST: Final = """
INSERT INTO groups (channel, pipeline, reason, last) VALUES (:channel, :pipeline, :reason, :time)
ON CONFLICT (channel, pipeline, reason) DO UPDATE SET last = excluded.last
"""
_CLAIM: Final = """
UPDATE deliveries SET attempts = attempts + 1, lease_until = :until
WHERE batch = :batch AND state = 'pending'
"""
_SAID: Final = """
SELECT alerts.* FROM deliveries JOIN alerts USING (alert_id) WHERE batch = :batch AND deliveries.state = 'pending'
ORDER BY CASE severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END, alerts.sequence LIMIT :most
"""
_BATCH: Final = """
SELECT count(*) AS said, min(queued) AS queued, max(note) AS note, max(attempts) AS attempt
FROM deliveries WHERE batch = :batch AND state = 'pending'
"""
_SETTLE: Final = """
UPDATE deliveries SET state = :state, due = :due, lease_until = 0, error = :error,
    settled = CASE :state WHEN 'pending' THEN NULL ELSE :time END
WHERE batch = :batch AND (state = 'pending' OR :state = 'sent')
"""
_COVER: Final = f"""
UPDATE deliveries SET state = 'covered', settled = :time, lease_until = 0
WHERE state = 'pending' AND reason <> 'resolved'
    AND (alert_id, reason) IN (SELECT alert_id, reason FROM deliveries WHERE batch = :batch AND state = 'sent')
    AND (channel = '{ALERTMANAGER}') <> (SELECT channel = '{ALERTMANAGER}' FROM deliveries WHERE batch = :batch LIMIT 1)
"""  # noqa: S608 - a constant
_TOLD: Final = """
SELECT * FROM alerts WHERE active = 1 AND alert_id IN (
    SELECT alert_id FROM deliveries WHERE channel = :channel AND state = 'sent' AND reason IN ('firing', 'escalated')
) ORDER BY sequence LIMIT :limit
"""
# What the message could not say: that the alert was resolved while it was on its way.
_RESOLVED_SINCE: Final = """
SELECT alerts.* FROM deliveries JOIN alerts USING (alert_id)
WHERE batch = :batch AND reason IN ('firing', 'escalated') AND alerts.state = 'resolved'
    AND alerts.resolved_time >= deliveries.told
"""
_HEARD: Final = """
SELECT channel FROM deliveries
WHERE alert_id = :alert_id AND reason IN ('firing', 'escalated') AND state = 'sent' AND channel NOT IN (
    SELECT channel FROM deliveries WHERE alert_id = :alert_id AND reason = 'resolved'
)
GROUP BY channel ORDER BY min(sequence)
"""
_ON_CHANNELS: Final = """
SELECT channel, max(CASE WHEN state = 'pending' AND batch = '' THEN 1 ELSE 0 END) AS waits FROM deliveries
WHERE alert_id = :alert_id AND reason IN ('firing', 'escalated') GROUP BY channel
"""
_NO_LONGER: Final = """
UPDATE deliveries SET state = 'covered', settled = :time
WHERE alert_id = :alert_id AND reason = 'escalated' AND state = 'pending' AND batch = ''
"""
# A message goes when the last of what it says can; each delivery is looked at once, for there may be thousands.
_NEXT_DUE: Final = f"""
SELECT min(free) AS due FROM (SELECT max(free) AS free FROM (
    SELECT message, max(due, lease_until, elsewhere) AS free FROM (
        SELECT CASE batch WHEN '' THEN delivery_id ELSE batch END AS message, due, lease_until,
            coalesce((SELECT max(other.lease_until) FROM deliveries AS other WHERE {_OF_OTHERS}), 0) AS elsewhere
        FROM deliveries AS mine WHERE {_MINE}
    ) AS waiting
) AS timed GROUP BY message) AS messages
"""  # noqa: S608 - a constant


class OutboxTables(Tables):
    """The part of a store that deliverers use."""

    def claim(
        self, channels: Sequence[str], *, time: float, lease_seconds: float, early: bool = False
    ) -> Delivery | None:
        """See `AlertStore.claim`."""
        given = {"channels": as_json(channels), "time": time, "early": early}
        self._turn_back(time, time + lease_seconds)
        if not self._database.rows(_DUE, given):  # most of the time: no write lock for finding nothing
            return None
        with self._database.transaction():
            row = next(iter(self._database.rows(_DUE, given)), None)
            if row is None:
                return None
            batch = row["batch"] or self._gather(row, time)
            self._database.execute(_CLAIM, {"batch": batch, "until": time + lease_seconds})
            most = _MOST_AT_ONCE if row["channel"] == ALERTMANAGER else MOST_IN_A_MESSAGE
            alerts = self._database.rows(_SAID, {"batch": batch, "most": most})
            (whole,) = self._database.rows(_BATCH, {"batch": batch})
        return Delivery(
            delivery_id=batch,
            channel=row["channel"],
            attempt=whole["attempt"],
            alerts=tuple(alert_of(alert) for alert in alerts),
            reason=row["reason"],
            queued=whole["queued"],
            more=whole["said"] - len(alerts),
            note=whole["note"],
        )

    def settle(self, delivery_id: str, state: DeliveryState, *, time: float, due: float = 0.0, error: str = "") -> None:
        """See `AlertStore.settle`."""
        given = {"batch": delivery_id, "state": state, "time": time, "due": due, "error": error}
        with self._database.transaction():
            self._database.execute(_SETTLE, given)
            if state == "sent":
                self._database.execute(_COVER, given)
                for row in self._database.rows(_RESOLVED_SINCE, given):
                    self._queue_resolved(alert_of(row), time)

    def told(self, channel: str, *, limit: int) -> list[Alert]:
        """See `AlertStore.told`."""
        return [alert_of(row) for row in self._database.rows(_TOLD, {"channel": channel, "limit": limit})]

    def next_due(self, channels: Sequence[str]) -> float | None:
        """See `AlertStore.next_due`."""
        due: float | None = self._database.rows(_NEXT_DUE, {"channels": as_json(channels)})[0]["due"]
        return due

    def _turn_back(self, time: float, until: float) -> None:
        """Have what was put here in what is now the future, for the clock was set back, due now."""
        given = {"time": time, "ahead": time + _MOST_AHEAD_SECONDS, "until": until}
        if self._database.rows(f"SELECT 1 FROM deliveries WHERE {_AHEAD} LIMIT 1", given):  # noqa: S608 - a constant
            with self._database.transaction():
                self._database.execute(_TURN_BACK, given)

    def _gather(self, row: Row, time: float) -> str:
        """Make one message of everything that waits in a group; its first delivery gives it its id."""
        group = {name: row[name] for name in ("channel", "pipeline", "reason")}
        batch: str = row["delivery_id"]
        self._database.execute(_GATHER, {**group, "batch": batch, "time": time})
        self._database.execute(_SET_LAST, {**group, "time": time})
        return batch

    def _queue(
        self, alert: Alert, channels: Sequence[str], time: float, *, reason: DeliveryReason = "firing", note: str = ""
    ) -> None:
        pipeline = "" if reason == "digest" else alert.pipeline
        stands_in = ALERTMANAGER in channels and reason != "resolved"  # who was told of an alert is told of its end
        for channel in channels:
            if channel == ALERTMANAGER:  # it groups by itself
                due, said = time, note
            elif stands_in:
                due, said = time + self._fallback_seconds, note or _STANDS_IN
            else:
                due, said = self._shared(channel, pipeline, reason, time), note
            given: dict[str, Any] = {
                "delivery_id": new_id(),
                "alert_id": alert.alert_id,
                "channel": channel,
                "due": due,
            }
            given |= {"reason": reason, "pipeline": pipeline, "queued": time, "note": said}
            self._database.execute(_QUEUE, given)

    def _queue_worse(self, alert: Alert, channels: Sequence[str], time: float, *, is_news: bool) -> None:
        """Say that an alert is more severe now; a message that still waits says it by itself.

        Args:
            alert: As it stands now.
            channels: Where one of that severity goes; who has not heard of it yet hears of it as of a new one.
            time: Now.
            is_news: Whether it has become worse since it was raised, or is only seen better.
        """
        rows = self._database.rows(_ON_CHANNELS, {"alert_id": alert.alert_id})
        waits = {row["channel"]: bool(row["waits"]) for row in rows}
        if ALERTMANAGER in channels:  # which knows who is to hear of what is so severe
            fresh, again = [], [] if waits.get(ALERTMANAGER, True) else list(channels)
        else:
            fresh = [channel for channel in channels if channel not in waits]
            again = [channel for channel in channels if not waits.get(channel, True)]
        self._queue(alert, fresh, time)
        if is_news:
            self._queue(alert, again, time, reason="escalated")

    def _shared(self, channel: str, pipeline: str, reason: str, time: float) -> float:
        """Say when the next message of a group may go."""
        rows = self._database.rows(_LAST, {"channel": channel, "pipeline": pipeline, "reason": reason})
        since = time - rows[0]["last"] if rows else GROUP_SECONDS
        # A last message in what is now the future is no reason to wait for it; one of a moment later is, for whoever
        # had to wait for the store while that was made.
        return time + GROUP_SECONDS - max(since, 0.0) if abs(since) < GROUP_SECONDS else time

    def _queue_resolved(self, alert: Alert, time: float) -> None:
        """Say that an alert is over wherever people have heard of it; that it is critical need not be said any more."""
        self._database.execute(_NO_LONGER, {"time": time, "alert_id": alert.alert_id})
        heard = [row["channel"] for row in self._database.rows(_HEARD, {"alert_id": alert.alert_id})]
        self._queue(alert, heard, time, reason="resolved")
