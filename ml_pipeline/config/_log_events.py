"""Events as log lines and audit lines."""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config import _context, _events
from ml_pipeline.config._channels import AUDIT, ROOT
from ml_pipeline.config._encoding import rfc3339, to_plain
from ml_pipeline.config._events import (
    AlertEvent,
    AuditEvent,
    DriftEvent,
    Event,
    LineageEvent,
    OperationEvent,
    ResourceSample,
)
from ml_pipeline.config._log_format import (
    EXTRA_KEY,
    beside,
    context_of,
    exception_of,
    given_fields,
    is_empty,
    message_of,
    plain_text,
    without_empty,
)
from ml_pipeline.config._redaction import current
from ml_pipeline.config._routes import OPERATIONS, OTHERS
from ml_pipeline.errors import without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable

    from ml_pipeline.settings import Settings

__all__ = [
    "EventLog",
    "audit_fields",
    "process_user",
    "publish_audit_record",
    "publish_configuration_change",
    "takes_colour",
    "told_of",
]

_LEVELS: Final = {"fail": logging.ERROR, "cancel": logging.WARNING, "abandon": logging.WARNING}
_ALERT_LEVELS: Final = {"info": logging.INFO, "warning": logging.WARNING, "critical": logging.ERROR}
_RESULTS: Final = {"complete": "success", "fail": "failure", "cancel": "cancelled", "abandon": "abandoned"}
_ENDED: Final = {"complete": "completed", "fail": "failed", "cancel": "cancelled", "abandon": "abandoned"}
_SAID_TO_BE: Final = re.compile(r".+_(name|version)|batch|environment|checks|artifact_sha256")
"""Attributes that an auditor wants beside the object: other names and versions, and what was checked."""
_AUDITED: Final = tuple(each.name for each in fields(AuditEvent) if each.name != "event_id")


class EventLog:
    """The subscriber that writes a line for every event.

    Args:
        logger_for: Returns the logger of a channel under a shown name.
        write_audit: Appends the fields of one audit line.
        require_audit: Raises where the trail is required and cannot be written.
    """

    def __init__(
        self,
        logger_for: Callable[[str, str], logging.Logger],
        write_audit: Callable[[Mapping[str, Any]], None],
        require_audit: Callable[[], None],
    ) -> None:
        self._logger_for = logger_for
        self._write_audit = write_audit
        self._require_audit = require_audit

    def __call__(self, event: Event) -> None:
        """Log the event, then audit it where its route says so."""
        match event:
            case OperationEvent():
                self._operation(event)
            case AlertEvent():
                level = _ALERT_LEVELS.get(event.severity, logging.WARNING) if event.state == "raised" else logging.INFO
                self._log(event, "alerting", level, _alert_message(event), _fields(event))
            case ResourceSample():
                self._log(event, "monitoring_config", logging.INFO, _sample_message(event), _fields(event))
            case DriftEvent():
                level = logging.WARNING if event.verdict == "drift" else logging.INFO
                self._log(
                    event,
                    "drift",
                    level,
                    f"{event.model} {event.batch}: {event.verdict}. {event.reason}",
                    _fields(event),
                )
            case LineageEvent():
                self._lineage(event)
            case AuditEvent():
                self._write_audit(_audit_fields(event))

    def _operation(self, event: OperationEvent) -> None:
        route = OPERATIONS[event.kind]
        if event.type == "start" and route.audited:
            self._require_audit()
        context = {
            "event": event.type,
            "kind": event.kind,
            "parent_id": event.parent_id,
            "counts": event.counts,
            "metrics": event.metrics,
            "duration_seconds": event.duration_seconds,
        }
        channel = "inference.predictions" if event.attributes.get("single") else route.channel
        level = _LEVELS.get(event.type, logging.INFO)
        self._log(
            event,
            "operation_logger",
            level,
            _operation_message(event),
            context,
            given=event.attributes,
            channel=channel,
            operation=event.name,
        )
        # One prediction is a line in predictions.log; the batch, or the service's request, is what is audited.
        if route.audited and event.type in _RESULTS and not event.attributes.get("single"):
            self._write_audit(_audit_fields(_audit_of(event)))

    def _lineage(self, event: LineageEvent) -> None:
        names = ", ".join(f"{node.type} {node.name}" for node in event.nodes)
        self._log(
            event, "data_lineage", logging.INFO, f"Lineage recorded: {event.kind} of {names}", _lineage_context(event)
        )
        if not event.automatic and event.operation_id is None:
            audited = AuditEvent(
                time=event.time,
                run_id=event.run_id,
                user_id=event.user_id,
                action=event.kind,
                object=event.nodes[-1].name if event.nodes else "",
                version=event.nodes[-1].version if event.nodes else "",
                result="failure" if any(edge.status == "failed" for edge in event.edges) else "success",
                details={"nodes": [node.node_id for node in event.nodes]},
            )
            self._write_audit(_audit_fields(audited))

    def _log(
        self,
        event: Event,
        shown: str,
        level: int,
        message: str,
        context: Mapping[str, Any],
        *,
        given: Mapping[str, Any] = _events.EMPTY,
        channel: str | None = None,
        operation: str | None = None,
    ) -> None:
        logger = self._logger_for(channel or OTHERS[type(event).__name__].channel, shown)
        if not logger.isEnabledFor(level):
            return
        error = getattr(event, "error", None)
        exception = {"type": error.type, "message": error.message, "stacktrace": error.stacktrace} if error else None
        extra = {
            "operation": operation,
            "operation_id": event.operation_id,
            "run_id": event.run_id,
            "user_id": event.user_id,
            "pipeline": event.pipeline,
            "exception": exception,
            "context": beside({"event_id": event.event_id, **context}, given),
        }
        # No call site: the line is about the operation, and the place in our own code would only mislead.
        record = logger.makeRecord(logger.name, level, "", 0, message, (), None, None, {EXTRA_KEY: extra})
        record.created, record.msecs = event.time, round(event.time % 1 * 1000, 3)
        logger.handle(record)


def publish_audit_record(record: logging.LogRecord) -> None:
    """Publish a record of the audit logger as an `AuditEvent`.

    Args:
        record: Its message is the action; ``extra=`` may have given user, object, version and result.
    """
    given = given_fields(record)
    told = told_of(context_of(record, given), given)
    told["details"].update(without_empty({"exception": exception_of(record, given)}))
    with _runtime.guard("audit"):
        _events.publish(AuditEvent(time=record.created, action=message_of(record), **told))


def told_of(details: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Take apart what the caller of the audit logger gave, as the attributes of an `AuditEvent`.

    Args:
        details: Everything beyond the fixed keys; what has an attribute of its own is taken out.
        given: What `log_operation` made; empty where it did not.
    """
    told = {
        "result": plain_text(details.pop("result", "success")),
        "object": plain_text(details.pop("object", None)),
        "version": plain_text(details.pop("version", None)),
        "details": details,
    }
    operation, user_id = given.get("operation"), given.get("user_id")
    if is_empty(user_id):  # a plain ``extra=`` may say it too
        user_id = details.pop("user_id", None)
    if not is_empty(operation):
        details["operation"] = operation
    if not is_empty(user_id):
        told["user_id"] = plain_text(user_id)
    return told


def takes_colour(stream: Any) -> bool:
    """Say whether colours may be written: only to a terminal, and never where ``NO_COLOR`` is set."""
    return not os.environ.get("NO_COLOR") and bool(getattr(stream, "isatty", lambda: False)())


def _operation_message(event: OperationEvent) -> str:
    subject = event.name
    if event.type == "start":
        return f"{subject} started"
    if event.attributes.get("single"):
        return f"{subject}: {_told(event, 'decision')}"
    numbers = ", ".join(f"{key}={_number(value)}" for key, value in {**event.counts, **event.metrics}.items())
    if event.type == "progress":
        return f"{subject} in progress: {numbers}" if numbers else f"{subject} in progress"
    took = f" after {event.duration_seconds:.3f} s" if event.duration_seconds is not None else ""
    why = f": {event.error.type or 'error'}: {event.error.message}" if event.error else ""
    return f"{subject} {_ENDED[event.type]}{took}{why}" + (f" ({numbers})" if numbers else "")


def _told(event: OperationEvent, name: str) -> str:
    """A fact as text, hidden where its name is: the message must not say what the context does not."""
    (told,) = to_plain({name: event.attributes.get(name)}, current()).values()
    return "" if told is None else str(told)


def _number(value: float) -> str:
    """A count is written whole; six digits are enough for what was measured."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def _audit_of(event: OperationEvent) -> AuditEvent:
    given = event.attributes
    subjects = OPERATIONS[event.kind].subjects
    name, version = next((pair for pair in subjects if plain_text(given.get(pair[0]))), ("", ""))
    others = [key for key in given if key not in (name, version) and _SAID_TO_BE.fullmatch(str(key))]
    checks = given.get("checks")
    failed = event.type == "complete" and isinstance(checks, Mapping) and not all(checks.values())
    return AuditEvent(
        time=event.time,
        pipeline=event.pipeline,
        run_id=event.run_id,
        operation_id=event.operation_id,
        user_id=event.user_id,
        action=event.kind,
        object=plain_text(given.get(name)) or event.name,
        version=plain_text(given.get(version)),
        result="failure" if failed else _RESULTS[event.type],
        details={
            **{key: given[key] for key in others},
            "operation": event.name,
            "counts": event.counts,
            "metrics": event.metrics,
            "error": event.error.message if event.error else None,
        },
    )


def audit_fields(
    *,
    time: float,
    pipeline: str,
    run_id: str | None,
    operation_id: str | None,
    user_id: str | None,
    action: str,
    object: str,  # noqa: A002 - as an `AuditEvent` has it
    version: str,
    result: str,
    details: Mapping[str, Any],
) -> dict[str, Any]:
    """Make the fields of an audit line from what an `AuditEvent` says, and from where this is called."""
    details = without_empty(details)
    operation = details.pop("operation", None)
    exception = details.pop("exception") if isinstance(details.get("exception"), dict) else None
    who = {"action": action, "object": object, "version": version, "result": result}
    fields = {
        "timestamp": rfc3339(time),
        "level": "INFO",
        "logger": AUDIT,
        "channel": AUDIT,
        "message": action,
        "pipeline": pipeline,
        "operation": _context.operation.get() if operation is None else operation,
        "operation_id": operation_id,
        "run_id": run_id,
        "user_id": user_id or process_user(),
        "trace_id": _context.trace_id.get(),
        "span_id": _context.span_id.get(),
        "process": os.getpid(),
        "thread": threading.current_thread().name,
        "exception": exception,
        "context": beside(who, details),
    }
    return without_empty(fields)


def _audit_fields(event: AuditEvent) -> dict[str, Any]:
    return audit_fields(**{name: getattr(event, name) for name in _AUDITED})


def process_user() -> str | None:
    """An audit line without a user names the account the process runs as: someone always did it."""
    return next((value for name in ("USER", "LOGNAME", "USERNAME") if (value := os.environ.get(name))), None) or (
        f"uid {os.getuid()}" if hasattr(os, "getuid") else None
    )


def _fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in type(event).__slots__}


def _alert_message(event: AlertEvent) -> str:
    return f"Alert {event.state} ({event.severity}, {event.kind}): {event.message}"


def _sample_message(event: ResourceSample) -> str:
    return f"{event.name}: cpu {event.cpu_ratio:.0%}, memory {event.memory_bytes / 2**20:.0f} MiB"


def _lineage_context(event: LineageEvent) -> dict[str, Any]:
    return {"kind": event.kind, "nodes": [node.node_id for node in event.nodes], "edges": len(event.edges)}


def publish_configuration_change(before: Settings, after: Settings) -> None:
    """Publish which settings changed, from what to what; never a secret's value."""
    from ml_pipeline.settings import is_secret

    changed = {
        name: "***" if is_secret(name) else [_shown(getattr(before, name)), _shown(getattr(after, name))]
        for name in type(after).model_fields
        if getattr(before, name) != getattr(after, name)
    }
    _events.publish(AuditEvent(action="configuration_change", object=ROOT, details={"changed": changed}))


def _shown(value: object) -> object:
    return without_credentials(value) if isinstance(value, str) else value
