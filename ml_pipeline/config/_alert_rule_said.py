"""What a rule says when it fires: the observation, as an occurrence."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from ml_pipeline.config import _alert_occurrences as _occurrences
from ml_pipeline.config._alert_names import FAILURE_KIND
from ml_pipeline.config._alert_occurrences import number
from ml_pipeline.config._alert_records import Occurrence, bounded_details, bounded_text
from ml_pipeline.config._alert_rules import MEASURED_KIND
from ml_pipeline.config._alert_subjects import FAILURES, SUBJECTS
from ml_pipeline.config._events import EMPTY, OperationEvent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ml_pipeline.config._alert_conditions import Scalar
    from ml_pipeline.config._alert_rules import AlertRule
    from ml_pipeline.config._events import Event

__all__ = ["Key", "Seen", "kind_of", "occurrence"]

Key: TypeAlias = tuple[str, str, str, str]
"""Pipeline, operation, model and feature."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One observation.

    Attributes:
        pipeline: Where it was made.
        operation: The operation that it concerns.
        model: The model that it concerns.
        feature: What was observed, with what tells its series apart.
        value: What it was.
        baseline: What a drop is measured from.
        labels: Those of a measured value.
        event: The event that it is part of.
    """

    pipeline: str
    operation: object
    model: object
    feature: str
    value: Scalar
    baseline: float | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    event: Event | None = None

    @property
    def key(self) -> Key:
        """What tells its series from others."""
        return self.pipeline, str(self.operation), str(self.model), self.feature


def occurrence(rule: AlertRule, seen: Seen, points: Iterable[tuple[float, float]], time: float) -> Occurrence:
    """Describe that a rule fires.

    Args:
        rule: The rule.
        seen: The observation that it fires at.
        points: The last times and values.
        time: Now.
    """
    threshold = seen.baseline - rule.drop if rule.drop is not None and seen.baseline is not None else rule.threshold
    facts = {
        "value": seen.value,
        "threshold": threshold,
        "baseline": seen.baseline,
        "series": [[round(at, 3), value] for at, value in points] or None,
    }
    shown = {
        **facts,
        "name": rule.name,
        "kind": kind_of(rule),
        "severity": rule.severity,
        "pipeline": seen.pipeline,
        "operation": seen.operation,
        "model": seen.model,
        "feature": seen.feature,
    }
    labels = {**rule.labels, **{bounded_text(label): bounded_text(text) for label, text in seen.labels.items()}}
    message = rule.template.fill(shown, labels) if rule.message else _sentence(rule, seen, threshold)
    said = _of_failure(rule, seen, message, facts, time) or _occurrences.from_call(
        kind_of(rule),
        rule.severity,
        message,
        facts,
        time=time,
        operation=seen.operation,
        model=seen.model,
        feature=seen.feature,
    )
    about: dict[str, Any] = {"pipeline": seen.pipeline}
    if seen.event is not None:  # which is not always published in its operation's context
        about |= {name: getattr(seen.event, name) for name in ("operation_id", "run_id", "user_id")}
    ids: dict[str, Any] = {name: bounded_text(text, is_id=True) or None for name, text in about.items()}
    alert = replace(said.alert, name=rule.name, labels=labels, runbook=rule.runbook, **ids)
    return replace(
        said,
        alert=alert,
        cooldown_seconds=rule.cooldown_seconds,
        escalate_after=rule.escalate_after,
        escalate_seconds=rule.escalate_seconds,
    )


def _of_failure(rule: AlertRule, seen: Seen, message: str, facts: Mapping[str, Any], time: float) -> Occurrence | None:
    """Describe the failure of an operation as it is without the rule, so that a call about it is one with it."""
    event = seen.event
    if not isinstance(event, OperationEvent) or event.type not in FAILURES or kind_of(rule) != FAILURE_KIND:
        return None
    said = _occurrences.from_operation(event, time=time)
    details = bounded_details({**said.alert.details, **facts})
    alert = replace(said.alert, severity=rule.severity, message=message, feature=seen.feature, details=details)
    return replace(said, alert=alert)


def _sentence(rule: AlertRule, seen: Seen, threshold: Scalar | None) -> str:
    concerns = seen.event and (seen.model or seen.operation)  # the labels of a measured value tell it
    subject = ": ".join(bounded_text(each) for each in (concerns, seen.feature) if each)
    if rule.equals is not None:
        what = f"is {number(seen.value)}"
    elif rule.drop is not None:
        what = f"is {number(seen.value)}, more than {number(rule.drop)} below its baseline {number(seen.baseline)}"
    else:
        side = "above" if rule.above is not None else "below"
        what = f"is {number(seen.value)}, {side} {number(threshold)}"
    often = f", {rule.needed} of {rule.window} times" if rule.window > 1 else ""
    long = f", for {number(rule.for_seconds)} s" if rule.for_seconds else ""
    return f"{subject} {what}{often}{long}"


def kind_of(rule: AlertRule) -> str:
    """Return the kind of a rule's alerts."""
    subject = SUBJECTS.get(rule.on)
    if rule.kind or subject is None:
        return rule.kind or MEASURED_KIND
    return subject.kinds.get(rule.value.partition(".")[0], subject.kind)
