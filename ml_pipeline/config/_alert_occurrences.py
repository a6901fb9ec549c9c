"""What calls for an alert: events and calls, as occurrences."""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._alert_names import alert_name
from ml_pipeline.config._alert_records import (
    MOST_MESSAGE_CHARACTERS,
    MOST_NAME_CHARACTERS,
    SEVERITIES,
    STACKTRACE,
    Alert,
    Occurrence,
    bounded_details,
    bounded_text,
)
from ml_pipeline.config._events import AlertEvent, ErrorInfo
from ml_pipeline.config._failures import message_of
from ml_pipeline.config._ids import new_id
from ml_pipeline.config._redaction import current
from ml_pipeline.config._routes import OPERATIONS, OTHERS

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping, Sequence

    from ml_pipeline.config._events import AlertState, DriftEvent, OperationEvent, Severity

__all__ = [
    "block",
    "drift_message",
    "from_call",
    "from_drift",
    "from_operation",
    "left",
    "number",
    "repeat_key",
    "to_event",
]

ABANDONED: Final = "Abandoned"
"""Stands for the exception type of an operation whose process ended before it did."""

block: Final[ContextVar[str | None]] = ContextVar("ml_pipeline_alert_block", default=None)
"""The innermost `alert_on_failure` block around the caller: a failure that leaves it may have been alerted inside."""

left: Final[ContextVar[str | None]] = ContextVar("ml_pipeline_alert_left", default=None)
"""The `alert_on_failure` block whose failure is being said right now."""

_MOST_TRACE_CHARACTERS: Final = 8_000
_MOST_SHOWN: Final = 5
_SHOWN_ATTRIBUTES: Final = ("source_name", "dataset_name", "dataset_version", "model_name", "model_version")
"""An alert leaves the machine: of an operation's facts it takes those that name things, never features of a person."""


def from_operation(event: OperationEvent, *, time: float) -> Occurrence:
    """Describe the failure of an operation, or that it was abandoned.

    Args:
        event: Of type ``fail`` or ``abandon``.
        time: Now.
    """
    is_failure = event.type == "fail"
    error = (event.error if is_failure else None) or ErrorInfo("" if is_failure else ABANDONED, "")
    shown = {name: event.attributes.get(name) for name in _SHOWN_ATTRIBUTES}
    details = {**shown, "duration_seconds": event.duration_seconds, "counts": dict(event.counts) or None}
    # A process that dies abandons all of its run at once: one cause, told by whichever operation comes first.
    run = (f"abandoned {event.run_id}",) if event.run_id and not is_failure else ()
    alert = Alert(
        alert_id=new_id(),
        time=time,
        last_time=time,
        kind=OPERATIONS[event.kind].alert,
        severity="critical",  # as the rules of Prometheus have it for both
        pipeline=bounded_text(event.pipeline, is_id=True),
        operation=bounded_text(event.name),
        operation_id=_id(event.operation_id),
        run_id=_id(event.run_id),
        user_id=_id(event.user_id),
        model=bounded_text(event.attributes.get("model_name")),
        error_type=bounded_text(error.type),
        message=_failure_message(event.name, error) if is_failure else f"{bounded_text(event.name)} was abandoned",
        details=bounded_details({**_trace(error), **details}),
        name=alert_name(OPERATIONS[event.kind].alert, operation_kind=event.kind),
    )
    return Occurrence(
        alert=alert,
        automatic=True,
        failure=bounded_text(error.message, MOST_MESSAGE_CHARACTERS),
        places=(*_given(_id(event.attributes.get("caused_by"))), *run),
        around=(*_given(_id(event.parent_id), block.get()), *run),
    )


def from_drift(event: DriftEvent, *, time: float) -> Occurrence:
    """Describe a batch that drifted.

    Args:
        event: One that is reason for an alarm.
        time: Now.
    """
    details = {
        "features": event.drifted,
        "effects": {name: event.effects[name] for name in event.drifted if name in event.effects},
        "batch": event.batch,
        "rows": event.rows,
        "reason": event.reason,
    }
    alert = Alert(
        alert_id=new_id(),
        time=time,
        last_time=time,
        kind=OTHERS["DriftEvent"].alert,
        severity="warning",
        pipeline=bounded_text(event.pipeline, is_id=True),
        operation_id=_id(event.operation_id),
        run_id=_id(event.run_id),
        user_id=_id(event.user_id),
        model=bounded_text(event.model),
        message=drift_message(event.model, event.drifted, event.batch),
        details=bounded_details(details),
        name=alert_name(OTHERS["DriftEvent"].alert),
    )
    return Occurrence(alert=alert, automatic=True)


def from_call(
    kind: str,
    severity: Severity,
    message: str,
    details: Mapping[str, Any],
    *,
    time: float,
    operation: object,
    operation_id: str | None = None,
    model: object = "",
    feature: object = "",
    error: ErrorInfo | None = None,
) -> Occurrence:
    """Describe what a caller says, in the context it says it in.

    Args:
        kind: Of the alert.
        severity: How bad it is.
        message: One sentence for a person; for a failure it is made from *error*.
        details: Whatever else was given.
        time: Now.
        operation: Name of the operation concerned.
        operation_id: Its id; by default that of the operation around the call.
        model: The model concerned.
        feature: What was judged.
        error: What a failed operation failed with; None for what is measured.
    """
    here = _id(_context.operation_id.get())
    operation_id = _id(operation_id) or here
    operation_name, judged = bounded_text(operation), bounded_text(feature)
    alert = Alert(
        alert_id=new_id(),
        time=time,
        last_time=time,
        kind=kind,
        severity=severity,
        pipeline=bounded_text(_runtime.settings().name, is_id=True),
        operation=operation_name,
        operation_id=operation_id,
        run_id=_id(_context.run_id.get()),
        user_id=_id(_context.user_id.get()),
        model=bounded_text(model),
        feature=judged,
        error_type=bounded_text(error.type) if error else "",
        message=_failure_message(operation, error) if error else bounded_text(message, MOST_MESSAGE_CHARACTERS),
        details=bounded_details({**(_trace(error) if error else {}), **details}),
        name=alert_name(kind, operation=operation_name, feature=judged),
    )
    if error is None:
        return Occurrence(alert=alert)
    return Occurrence(
        alert=alert,
        failure=bounded_text(error.message, MOST_MESSAGE_CHARACTERS),
        places=_given(left.get()),
        around=_given(here, block.get()),
    )


def repeat_key(kind: str, severity: str, *identity: str, error: object = None) -> Hashable:
    """Make what tells a repeat of a call, at the cost of a few look-ups.

    Args:
        kind: Of the alert.
        severity: How bad it is.
        *identity: Everything given that is part of the alert's identity.
        error: What went wrong, where that was given.

    Returns:
        Equal for two calls of which the second adds nothing to the first, in whatever words it is said; None where that
        takes a closer look.
    """
    if severity not in SEVERITIES or left.get() is not None:  # a failure that leaves a block may be known by it
        return None
    for part in identity:
        if type(part) is not str or len(part) > MOST_NAME_CHARACTERS:
            return None
    around = block.get()
    here = (_context.operation.get(), _context.operation_id.get(), _context.run_id.get(), around)
    # The operations around it will know the failure by its words, where it is not said of the operation it is said in.
    words = message_of(error) if isinstance(error, BaseException) else error
    told = words if error is not None and (around or identity[-1] not in ("", here[1])) else None
    if told is not None and (type(told) is not str or len(told) > MOST_MESSAGE_CHARACTERS):
        return None
    return (kind, severity, identity, here, told)


def to_event(alert: Alert, state: AlertState, reason: str = "", count: int = 1) -> AlertEvent:
    """Describe what happened to an alert.

    Args:
        alert: The alert as it stands now.
        state: What happened.
        reason: Why it was held back.
        count: How many times.
    """
    return AlertEvent(
        time=alert.last_time,
        pipeline=alert.pipeline,
        run_id=alert.run_id,
        operation_id=alert.operation_id,
        user_id=alert.user_id,
        alert_id=alert.alert_id,
        state=state,
        kind=alert.kind,
        severity=alert.severity,
        message=alert.message,
        operation=alert.operation,
        model=alert.model,
        feature=alert.feature,
        error_type=alert.error_type,
        # The traceback stands on the operation's own line.
        details={name: value for name, value in alert.details.items() if name != STACKTRACE},
        reason=reason,
        count=count,
    )


def number(value: object) -> str:
    """Write a measured value for a person: six digits of a number, anything else as it is."""
    text, failed = _runtime.attempt(format, value, ".6g")
    return bounded_text(value if failed else text)


def drift_message(model: object, features: Sequence[object], batch: object = "") -> str:
    """Say in one sentence which features of a model drifted."""
    names = ", ".join(bounded_text(name) for name in features[:_MOST_SHOWN]) or "its data"
    more = f" and {len(features) - _MOST_SHOWN} more" if len(features) > _MOST_SHOWN else ""
    where = f" ({bounded_text(batch)})" if batch else ""
    return bounded_text(f"{bounded_text(model)}: drift in {names}{more}{where}", MOST_MESSAGE_CHARACTERS)


def _failure_message(operation: object, error: ErrorInfo) -> str:
    parts = [f"{bounded_text(operation)} failed", error.type, error.message]
    return bounded_text(": ".join(part for part in parts if part), MOST_MESSAGE_CHARACTERS)


def _trace(error: ErrorInfo) -> dict[str, str]:
    # The end of a long traceback says more than its beginning.
    trace = error.stacktrace
    return {STACKTRACE: current().text(trace, max(len(trace) - _MOST_TRACE_CHARACTERS, 0))} if trace else {}


def _id(value: object) -> str | None:
    return bounded_text(value, is_id=True) or None


def _given(*values: str | None) -> tuple[str, ...]:
    return tuple(value for value in values if value)
