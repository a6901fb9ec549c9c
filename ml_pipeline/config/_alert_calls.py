"""The calls that raise alerts: one for each kind."""

from __future__ import annotations

import functools
import inspect
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, ParamSpec

from ml_pipeline import _runtime
from ml_pipeline.config import _alert_occurrences as _occurrences
from ml_pipeline.config import _context
from ml_pipeline.config._alert_names import FAILURE_KIND
from ml_pipeline.config._alert_occurrences import number, repeat_key
from ml_pipeline.config._alert_records import SEVERITIES, Occurrence, bounded_text
from ml_pipeline.config._failures import error_info, failed_operation
from ml_pipeline.errors import AlertError, closest

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from ml_pipeline.config._events import Severity

__all__ = ["AlertCalls"]

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


class AlertCalls:
    """What an `AlertManager` is told by the code that watches for trouble; `say` does the rest."""

    _clock: Callable[[], float]

    def say(self, occurrence: Occurrence) -> str:
        """Raise the alert that an occurrence calls for; see `AlertManager.say`."""
        raise NotImplementedError

    def _held(self, key: Hashable) -> str:
        """Count what has this key, where it is known to repeat an alert in its cooldown, and return that one's id."""
        raise NotImplementedError

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
        operation_id = operation_id or failed_operation(error)
        failure = type(error).__name__ if isinstance(error, BaseException) else ""
        key = repeat_key(FAILURE_KIND, severity, operation, model, failure, operation_id or "", error=error)
        if key is not None and (held := self._held(key)):
            return held
        given = {"operation": operation, "operation_id": operation_id, "model": model, "error": error_info(error)}
        return self._called(FAILURE_KIND, severity, "", details, key=key, **given)

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
        key = repeat_key("resource_threshold", severity, resource)
        if key is not None and (held := self._held(key)):
            return held
        shown = f" ({bounded_text(unit)})" if unit else ""
        message = f"{bounded_text(resource)} is {number(value)}, threshold {number(threshold)}{shown}"
        facts = {"value": value, "threshold": threshold, "unit": unit or None}
        return self._judged("resource_threshold", severity, message, {**facts, **details}, key=key, feature=resource)

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
        key = repeat_key("data_quality", severity, check, dataset)
        if key is not None and (held := self._held(key)):
            return held
        judged = f"{bounded_text(dataset)}: {bounded_text(check)}" if dataset else check
        rows = "" if failed is None else f" for {number(failed)}" + ("" if total is None else f" of {number(total)}")
        facts = {"check": check, "dataset": dataset or None, "failed": failed, "total": total}
        message = message or f"{bounded_text(judged)} failed{rows}"
        return self._judged("data_quality", severity, message, {**facts, **details}, key=key, feature=judged)

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
        key = repeat_key("model_performance", severity, model, metric)
        if key is not None and (held := self._held(key)):
            return held
        message = f"{bounded_text(model)}: {bounded_text(metric)} is {number(value)}, threshold {number(threshold)}"
        details = {"value": value, "threshold": threshold, **details}
        return self._judged("model_performance", severity, message, details, key=key, model=model, feature=metric)

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
        key = repeat_key("data_drift", severity, model, single)
        if key is not None and (held := self._held(key)):
            return held
        names = [single] if single else list(features)
        facts = {"features": names, "effect": effect, "batch": batch or None, **details}
        message = _occurrences.drift_message(model, names, batch)
        return self._judged("data_drift", severity, message, facts, key=key, operation="", model=model, feature=single)

    def _judged(self, kind: str, severity: Severity, message: str, details: dict[str, Any], **more: Any) -> str:
        return self._called(kind, severity, message, details, **{"operation": _context.operation.get(), **more})

    def _called(
        self, kind: str, severity: Severity, message: str, details: dict[str, Any], *, key: Hashable, **more: Any
    ) -> str:
        given: Severity = severity if severity in SEVERITIES else "warning"
        said = _occurrences.from_call(kind, given, message, details, time=self._clock(), **more)
        alert_id = self.say(replace(said, key=key))
        if given != severity:
            with _runtime.guard(_SINK):
                raise AlertError("a severity must be one of the known ones", severity, closest(severity, SEVERITIES))
        return alert_id
