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

import functools
import inspect
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, ParamSpec

from ml_pipeline import _runtime
from ml_pipeline.config import _alert_occurrences as _occurrences
from ml_pipeline.config import _context, _events
from ml_pipeline.config._alert_background import AlertBackground, open_store
from ml_pipeline.config._alert_block import alert_on_failure
from ml_pipeline.config._alert_channels import AlertChannel, AlertMessage, EmailChannel, refuse_namesakes
from ml_pipeline.config._alert_delivery import count_delivery
from ml_pipeline.config._alert_history import NEWEST
from ml_pipeline.config._alert_occurrences import number
from ml_pipeline.config._alert_records import (
    SEVERITIES,
    Alert,
    AlertSummary,
    Occurrence,
    Recorded,
    bounded_text,
    check_filters,
)
from ml_pipeline.config._events import AlertEvent, DriftEvent, OperationEvent
from ml_pipeline.config._failures import error_info, failed_operation
from ml_pipeline.errors import AlertError, closest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ml_pipeline.config._alert_delivery import DeliveryHook
    from ml_pipeline.config._alert_store import AlertStore
    from ml_pipeline.config._events import AlertState, Severity

__all__ = [
    "Alert",
    "AlertChannel",
    "AlertManager",
    "AlertMessage",
    "AlertSummary",
    "EmailChannel",
    "alert_manager",
    "alert_on_failure",
    "subscribe_to",
]

P = ParamSpec("P")
_SINK: Final = "alerting"


def _guarded(call: Callable[P, str]) -> Callable[P, str]:
    signature = inspect.signature(call)

    @functools.wraps(call)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> str:
        signature.bind(*args, **kwargs)  # what does not fit is an error of the calling code
        with _runtime.guard(_SINK):
            return call(*args, **kwargs)
        return ""

    return guarded


class AlertManager:
    """Raises alerts, holds back repeats, keeps the history, and has alerts delivered.

    Thread-safe, and processes may share a store: cooldown and deliveries hold across them. Making one opens nothing.
    Arguments that do not fit are a TypeError; what else goes wrong is counted, and raised under ML_PIPELINE_STRICT=1.

    Args:
        store: Where alerts are kept; by default ``DATA_DIR/alerts/outbox.db``, shown in ``LOG_DIR/alerts.json``. A
            store that is given is neither shown there nor closed, and is not for use after a fork.
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
        self._clock, self._bus = clock, bus
        self._store: _runtime.Lazy[AlertStore] = (
            _runtime.Lazy(lambda _: store, lambda _: None)
            if store is not None
            else _runtime.Lazy(open_store, lambda opened: opened.close())
        )
        options: Any = {"clock": clock, "on_delivery": on_delivery, "is_shared": store is None}
        self._background: _runtime.Lazy[AlertBackground] = _runtime.Lazy(
            lambda settings: AlertBackground(settings, self._store.get, channels, **options),
            AlertBackground.close,
            phase=1,
        )

    @_guarded
    def alert_processing_failure(
        self,
        operation: str,
        error: str | BaseException,
        *,
        severity: Severity = "critical",
        operation_id: str | None = None,
        model: str = "",
        **details: Any,
    ) -> str:
        """Say that an operation failed.

        Args:
            operation: Its name, such as ``data_ingestion``.
            error: What went wrong: a text, or the exception.
            severity: ``info``, ``warning`` or ``critical``.
            operation_id: Which one; by default the one that the exception failed, or else the one around the call.
            model: The model it concerns.
            **details: Whatever else may help.

        Returns:
            The alert's id; that of an earlier alert where this adds to it, or is held back by its cooldown.

        Raises:
            AlertError: Only with ``ML_PIPELINE_STRICT=1``, if the severity is unknown.
        """
        given = {"operation": operation, "model": model, "error": error_info(error)}
        given["operation_id"] = operation_id or failed_operation(error)
        return self._called("processing_failure", severity, "", details, **given)

    @_guarded
    def alert_resource_threshold(
        self,
        resource: str,
        value: float,
        threshold: float,
        *,
        unit: str = "",
        severity: Severity = "warning",
        **details: Any,
    ) -> str:
        """Say that a resource has crossed its threshold.

        Args:
            resource: Such as ``memory``; two resources are two alerts.
            value: What was measured.
            threshold: What it should not have crossed.
            unit: Of both.
            severity: ``info``, ``warning`` or ``critical``.
            **details: Whatever else may help.

        Returns:
            The alert's id; this returns and raises as `alert_processing_failure` does.
        """
        shown = f" ({bounded_text(unit)})" if unit else ""
        message = f"{bounded_text(resource)} is {number(value)}, threshold {number(threshold)}{shown}"
        facts = {"value": value, "threshold": threshold, "unit": unit or None}
        return self._judged("resource_threshold", severity, message, {**facts, **details}, feature=resource)

    @_guarded
    def alert_data_quality(
        self,
        check: str,
        *,
        dataset: str = "",
        failed: int | None = None,
        total: int | None = None,
        message: str = "",
        severity: Severity = "warning",
        **details: Any,
    ) -> str:
        """Say that data failed a check.

        Args:
            check: Such as ``age_not_null``; two checks, or two data sets, are two alerts.
            dataset: The data.
            failed: How many rows failed.
            total: Of how many.
            message: One sentence, in place of the one made from the above.
            severity: ``info``, ``warning`` or ``critical``.
            **details: Whatever else may help.

        Returns:
            The alert's id; this returns and raises as `alert_processing_failure` does.
        """
        judged = f"{bounded_text(dataset)}: {bounded_text(check)}" if dataset else check
        rows = "" if failed is None else f" for {number(failed)}" + ("" if total is None else f" of {number(total)}")
        facts = {"check": check, "dataset": dataset or None, "failed": failed, "total": total}
        message = message or f"{bounded_text(judged)} failed{rows}"
        return self._judged("data_quality", severity, message, {**facts, **details}, feature=judged)

    @_guarded
    def alert_model_performance(
        self,
        model: str,
        metric: str,
        value: float,
        threshold: float,
        *,
        severity: Severity = "warning",
        **details: Any,
    ) -> str:
        """Say that a model does worse than it should.

        Args:
            model: Its name.
            metric: Such as ``roc_auc``; two metrics are two alerts.
            value: What was measured.
            threshold: What it should have reached.
            severity: ``info``, ``warning`` or ``critical``.
            **details: Whatever else may help.

        Returns:
            The alert's id; this returns and raises as `alert_processing_failure` does.
        """
        message = f"{bounded_text(model)}: {bounded_text(metric)} is {number(value)}, threshold {number(threshold)}"
        details = {"value": value, "threshold": threshold, **details}
        return self._judged("model_performance", severity, message, details, model=model, feature=metric)

    @_guarded
    def alert_data_drift(
        self,
        model: str,
        features: str | Sequence[str],
        *,
        effect: float | None = None,
        batch: str = "",
        severity: Severity = "warning",
        **details: Any,
    ) -> str:
        """Say that the data of a model have drifted.

        Args:
            model: Its name.
            features: Several features, for one alert a model; or a single name, for one alert a feature.
            effect: How far, 0 to 1.
            batch: Which batch.
            severity: ``info``, ``warning`` or ``critical``.
            **details: Whatever else may help.

        Returns:
            The alert's id; this returns and raises as `alert_processing_failure` does.
        """
        single = features if isinstance(features, str) else ""
        names = [single] if single else list(features)
        facts = {"features": names, "effect": effect, "batch": batch or None, **details}
        message = _occurrences.drift_message(model, names, batch)
        return self._judged("data_drift", severity, message, facts, operation="", model=model, feature=single)

    def history(
        self,
        *,
        limit: int = 100,
        kind: str | None = None,
        severity: str | None = None,
        since: float | None = None,
        state: str | None = None,
    ) -> list[Alert]:
        """Return alerts, newest first.

        Args:
            limit: At most so many.
            kind: Only of this kind.
            severity: Only of this severity.
            since: Only those raised at this time, in seconds since the Unix epoch, or later.
            state: Only ``raised``, ``refined`` or ``resolved`` ones.

        Raises:
            AlertError: Only with ``ML_PIPELINE_STRICT=1``, if the limit, the severity or the state cannot be.
        """
        with _runtime.guard(_SINK):
            check_filters(limit, severity, state)
            return self._store.get().find(limit=limit, kind=kind, severity=severity, since=since, state=state)
        return []

    def active(self) -> list[Alert]:
        """Return the alerts that nobody has resolved, newest first; of one identity, only the latest."""
        with _runtime.guard(_SINK):
            return self._store.get().find(limit=NEWEST, only_active=True)
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
            self._background.get().touch()
            self._publish(alert, "resolved")
            return True
        return False

    def summary(self, period_seconds: float = 86_400.0) -> AlertSummary:
        """Count the alerts of the last while.

        Args:
            period_seconds: How long that is; a day by default.
        """
        since = self._clock() - period_seconds
        with _runtime.guard(_SINK):
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

    def observe(self, event: _events.Event) -> None:
        """Raise the alert that an event calls for; what a bus calls.

        Args:
            event: Any event. The first one of a process also resumes what an earlier one left undelivered.
        """
        if isinstance(event, AlertEvent):
            return
        self._background.get()
        if isinstance(event, OperationEvent):
            if event.type in ("fail", "abandon"):
                self._say(_occurrences.from_operation(event, time=self._clock()))
        elif isinstance(event, DriftEvent) and event.alarm:
            self._say(_occurrences.from_drift(event, time=self._clock()))

    def _judged(self, kind: str, severity: str, message: str, details: dict[str, Any], **more: Any) -> str:
        return self._called(kind, severity, message, details, **{"operation": _context.operation.get(), **more})

    def _called(self, kind: str, severity: str, message: str, details: dict[str, Any], **more: Any) -> str:
        given: Severity = severity if severity in SEVERITIES else "warning"
        alert_id = self._say(_occurrences.from_call(kind, given, message, details, time=self._clock(), **more))
        if given != severity:
            with _runtime.guard(_SINK):
                raise AlertError("a severity must be one of the known ones", severity, closest(severity, SEVERITIES))
        return alert_id

    def _say(self, said: Occurrence) -> str:
        recorded = Recorded(said.alert, "raised")  # where the store fails, log and metrics still learn of it
        with _runtime.guard(_SINK):
            background, cooldown = self._background.get(), _runtime.settings().alert_cooldown_seconds
            recorded = self._store.get().record(said, channels=background.channels, cooldown_seconds=cooldown)
            if recorded.outcome == "raised":
                background.wake()
            elif recorded.outcome != "implied":
                background.touch()
        alert_id = recorded.alert.alert_id
        if recorded.outcome == "suppressed":
            self._publish(replace(said.alert, alert_id=alert_id), "suppressed", reason="cooldown")
        elif recorded.outcome != "implied":
            self._publish(recorded.alert, recorded.outcome)
        return alert_id

    def _publish(self, alert: Alert, state: AlertState, *, reason: str = "") -> None:
        (self._bus or _events.DEFAULT_BUS).publish(_occurrences.to_event(alert, state, reason))


alert_manager: Final = AlertManager()
"""The manager that events raise their alerts with; inert until the first one."""


def subscribe_to(bus: _events.Bus) -> None:
    """Have `alert_manager` raise the alerts that the events of *bus* call for."""
    bus.subscribe(_SINK, alert_manager.observe)
