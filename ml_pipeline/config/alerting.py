"""Alerts: one for each cause, on disk before the call returns, delivered in the background.

::

    alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")

    @alert_on_failure("nightly_import")
    def nightly_import(): ...

Failed operations and batches that drifted raise their alerts by themselves. A call about the same failure adds to that
alert, and a repeat within the cooldown is counted under it: neither makes a second one. Mails go out when
``ML_PIPELINE_SMTP_HOST`` is set.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config import _alert_occurrences as _occurrences
from ml_pipeline.config import _events
from ml_pipeline.config._alert_background import AlertBackground, open_store
from ml_pipeline.config._alert_block import alert_on_failure
from ml_pipeline.config._alert_calls import AlertCalls
from ml_pipeline.config._alert_care import AlertCare
from ml_pipeline.config._alert_channels import AlertChannel, AlertMessage, EmailChannel, refuse_namesakes
from ml_pipeline.config._alert_delivery import count_delivery
from ml_pipeline.config._alert_history import NEWEST
from ml_pipeline.config._alert_records import Alert, AlertSummary, Occurrence, Recorded, bounded_text, check_filters
from ml_pipeline.config._alert_rule_calls import RuleCalls
from ml_pipeline.config._alert_rules import AlertRule
from ml_pipeline.config._alert_subjects import FAILURES
from ml_pipeline.config._events import AlertEvent, DriftEvent, OperationEvent
from ml_pipeline.errors import AlertError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from ml_pipeline.config._alert_delivery import DeliveryHook
    from ml_pipeline.config._alert_records import DeliveryRecord
    from ml_pipeline.config._alert_store import AlertStore
    from ml_pipeline.config._events import AlertState

__all__ = [
    "Alert",
    "AlertChannel",
    "AlertManager",
    "AlertMessage",
    "AlertRule",
    "AlertSummary",
    "EmailChannel",
    "alert_manager",
    "alert_on_failure",
    "subscribe_to",
]

_SINK: Final = "alerting"
_ALARMING: Final = frozenset({OperationEvent, DriftEvent})
"""Types of events that alert by themselves; others do where a rule is on them."""


class AlertManager(AlertCalls, AlertCare, RuleCalls):
    """Raises alerts, holds back repeats, keeps the history, and has alerts delivered.

    Thread-safe, and processes may share a store: cooldown and deliveries hold across them. Making one opens nothing.
    Arguments that do not fit are a TypeError; what else goes wrong is counted, and raised under ML_PIPELINE_STRICT=1.

    Args:
        store: Where alerts are kept; by default the database that the settings name, or ``DATA_DIR/alerts/outbox.db``,
            shown in ``LOG_DIR/alerts.json``. A store that is given is neither shown there nor closed, and is not for
            use after a fork.
        channels: Where alerts are delivered; by default e-mail, where the settings name a mail server.
        clock: Seconds since the Unix epoch.
        bus: Where alerts are published as events; by default the bus that everything is published on.
        on_delivery: Told of each attempt to deliver: channel, result, seconds since the alert was raised.

    Raises:
        AlertError: If two channels have the same name.
    """

    def __init__(
        self,
        store: AlertStore | None = None,
        channels: Sequence[AlertChannel] | None = None,
        clock: Callable[[], float] = time.time,
        bus: _events.Bus | None = None,
        on_delivery: DeliveryHook = count_delivery,
    ) -> None:
        refuse_namesakes(channels or ())
        RuleCalls.__init__(self, clock, reads_file=store is None)
        self._clock, self._bus = clock, bus
        self._store: _runtime.Lazy[AlertStore] = (
            _runtime.Lazy(lambda _: store, lambda _: None)
            if store is not None
            else _runtime.Lazy(lambda settings: open_store(settings, self._touch), lambda opened: opened.close())
        )
        options: Any = {"clock": clock, "on_delivery": on_delivery, "publish": self._publish}
        options["is_shared"] = store is None
        self._background: _runtime.Lazy[AlertBackground] = _runtime.Lazy(
            lambda settings: AlertBackground(settings, self._store.get, channels, **options),
            AlertBackground.close,
            phase=1,
        )

    def history(
        self,
        *,
        limit: int = 100,
        kind: str | None = None,
        severity: str | None = None,
        since: float | None = None,
        state: str | None = None,
        only_active: bool = False,
    ) -> list[Alert]:
        """Return alerts, newest first.

        Args:
            limit: At most so many.
            kind: Only of this kind.
            severity: Only of this severity.
            since: Only those raised at this time, in seconds since the Unix epoch, or later.
            state: Only ``raised``, ``refined`` or ``resolved`` ones.
            only_active: Only those that `active` returns.

        Raises:
            AlertError: Only with ``ML_PIPELINE_STRICT=1``, if the limit, the severity or the state cannot be.
        """
        with _runtime.guard(_SINK):
            check_filters(limit, severity, state)
            self._write_counts()
            return self._store.get().find(
                limit=limit, kind=kind, severity=severity, since=since, state=state, only_active=only_active
            )
        return []

    def active(self) -> list[Alert]:
        """Return the alerts that nobody has resolved, newest first; of one identity, only the latest."""
        return self.history(limit=NEWEST, only_active=True)

    def latest(self, kind: str, pipeline: str, **identity: str) -> Alert | None:
        """Return the last alert of a kind that has these fields, open or not; None if there is none.

        Args:
            kind: Of the alert.
            pipeline: Where it was raised.
            **identity: Other fields that are texts, such as ``model``.
        """
        with _runtime.guard(_SINK):
            found = self._store.get().find(limit=1, kind=kind, identity={"pipeline": pipeline, **identity})
            return found[0] if found else None
        return None

    def get(self, alert_id: str) -> Alert | None:
        """Return one alert as it stands now; None if there is none of that id."""
        with _runtime.guard(_SINK):
            self._write_counts()
            return self._store.get().get(alert_id)
        return None

    def deliveries(self, alert_id: str) -> list[DeliveryRecord]:
        """Return what became of an alert on each channel, in the order it was to be said."""
        with _runtime.guard(_SINK):
            return self._store.get().deliveries(alert_id)
        return []

    def resolve(self, alert_id: str) -> bool:
        """Say that the cause of an alert is gone; the next occurrence is then a new alert, whatever the cooldown.

        Args:
            alert_id: The alert.

        Returns:
            Whether it was open.

        Raises:
            AlertError: Only with ``ML_PIPELINE_STRICT=1``, if there is no open alert of that id.
        """
        with _runtime.guard(_SINK):
            alert = self._store.get().resolve(alert_id, time=self._clock())
            if alert is None:
                raise AlertError("an alert that is resolved must be open", alert_id, "see alert_manager.active()")
            self._resolved(alert)
            return True
        return False

    def went_well(self, operation: str, *, model: str = "") -> None:
        """Say that an operation ended well: the alert of its failure before is resolved when its cooldown is over.

        What `operation_logger` observes, and what runs under `alert_on_failure`, says so by itself.

        Args:
            operation: Its name, as `alert_processing_failure` was given it.
            model: The model it concerns.
        """
        with _runtime.guard(_SINK):
            self._background.get().recoveries.went_well(_runtime.settings().name, operation, model)

    def clear(
        self,
        kind: str,
        pipeline: str,
        *,
        operation: str | None = None,
        model: str | None = None,
        feature: str | None = None,
        name: str | None = None,
    ) -> list[str]:
        """Resolve the open alerts of an identity, because what they told of is over.

        Args:
            kind: Of the alerts.
            pipeline: Where they were raised.
            operation: Only of this operation; None for any.
            model: Only of this model; None for any.
            feature: Only of what was judged; None for any.
            name: Only of this name; None for any.

        Returns:
            Ids of the alerts that were open.
        """
        given = {"kind": kind, "pipeline": pipeline, "operation": operation, "model": model, "feature": feature}
        identity = {part: bounded_text(value) for part, value in {**given, "name": name}.items() if value is not None}
        identity["pipeline"] = bounded_text(pipeline, is_id=True)
        with _runtime.guard(_SINK):
            cleared = self._store.get().clear(self._clock(), **identity)
            for alert in cleared:
                self._resolved(alert)
            return [alert.alert_id for alert in cleared]
        return []

    def summary(self, period_seconds: float = 86_400.0) -> AlertSummary:
        """Count the alerts of the last while.

        Args:
            period_seconds: How long that is; a day by default.
        """
        since = self._clock() - period_seconds
        with _runtime.guard(_SINK):
            self._write_counts()
            return self._store.get().summarise(since)
        return AlertSummary(since=since, alerts=0, by_kind={}, by_severity={}, held_back=0, deliveries={})

    def flush(self, timeout_seconds: float = 10.0) -> bool:
        """Deliver what is due now and write ``alerts.json``, before this returns.

        Args:
            timeout_seconds: When to give up.

        Returns:
            Whether nothing is due any more; what is, stays in the outbox.
        """
        with _runtime.guard(_SINK):
            return self._background.get().flush(timeout_seconds)
        return False

    def takes(self, kind: type[_events.Event]) -> bool:
        """Say whether events of a type may call for an alert now, or for what `observe` does at the first event."""
        return kind in _ALARMING or not self._background.is_open or self._has_rules_on(kind)

    def observe(self, event: _events.Event) -> None:
        """Raise the alert that an event calls for; what a bus calls.

        Args:
            event: Any event. The first one of a process also resumes what an earlier one left undelivered.
        """
        if isinstance(event, AlertEvent):
            return
        background = self._background.get()
        if isinstance(event, OperationEvent) and event.type == "complete":
            background.recoveries.completed(event)
        if self._is_left_to_rules(event):
            return
        if isinstance(event, OperationEvent):
            if event.type in FAILURES:
                self.say(_occurrences.from_operation(event, time=self._clock()))
        elif isinstance(event, DriftEvent) and event.alarm:
            self.say(_occurrences.from_drift(event, time=self._clock()))

    def say(self, occurrence: Occurrence) -> str:
        """Raise the alert that an occurrence calls for, or add it to the one that it belongs to.

        Args:
            occurrence: What was said, by a call, an event or a rule.

        Returns:
            The alert's id; that of an earlier alert where this adds to it, or is held back by its cooldown.
        """
        recorded = Recorded(occurrence.alert, "raised")  # where the store fails, log and metrics still learn of it
        with _runtime.guard(_SINK):
            recorded = self._record(occurrence)
        alert = recorded.alert
        if recorded.outcome == "suppressed":
            self._publish(replace(occurrence.alert, alert_id=alert.alert_id), "suppressed", reason="cooldown")
        elif recorded.outcome != "implied":
            self._publish(alert, recorded.outcome)
        if recorded.outcome == "raised" and alert.muted:
            self._publish(alert, "suppressed", reason=alert.muted)
        return alert.alert_id

    def _record(self, said: Occurrence) -> Recorded:
        background = self._background.get()
        cooldown = said.cooldown_seconds
        if cooldown is None:
            cooldown = _runtime.settings().alert_cooldown_seconds
        channels = background.channels_of(said.alert)
        recorded = self._store.get().record(said, channels=channels, cooldown_seconds=cooldown)
        if recorded.outcome == "suppressed" and said.key is not None:
            background.cooldowns.learn(said.key, recorded.alert, cooldown)
        background.recoveries.failed(recorded.alert)
        if recorded.outcome == "raised":
            background.raised(recorded.alert)
        elif said.escalate_after is not None or recorded.outcome == "refined":
            background.wake()
        elif recorded.outcome != "implied":
            background.touch()
        return recorded

    def _held(self, key: Hashable) -> str:
        background = self._background.peek()
        return "" if background is None else background.cooldowns.held(key)

    def _write_counts(self) -> None:
        background = self._background.peek()
        if background is not None:
            background.cooldowns.write()

    def _touch(self) -> None:
        background = self._background.peek()
        if background is not None:
            background.touch()

    def _resolved(self, alert: Alert) -> None:
        background = self._background.get()
        background.cooldowns.forget(alert.alert_id)
        background.wake()  # there is a notice to deliver, and what the alert muted
        self._publish(alert, "resolved")

    def _publish(self, alert: Alert, state: AlertState, *, reason: str = "", count: int = 1) -> None:
        (self._bus or _events.DEFAULT_BUS).publish(_occurrences.to_event(alert, state, reason, count))


alert_manager: Final = AlertManager()
"""The manager that events raise their alerts with; inert until the first one."""


def subscribe_to(bus: _events.Bus) -> None:
    """Have `alert_manager` raise the alerts that the events of *bus* call for."""
    bus.subscribe(_SINK, alert_manager.observe, alert_manager.takes)
