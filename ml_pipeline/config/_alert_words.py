"""What a message to a person says, in plain words; each channel puts them into its own format."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._alert_course import LIMIT, SERIES, course_of
from ml_pipeline.config._alert_records import (
    MOST_MESSAGE_CHARACTERS,
    MOST_NAME_CHARACTERS,
    SEVERITIES,
    STACKTRACE,
    bounded_text,
)
from ml_pipeline.config._encoding import dumps, one_line, rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ml_pipeline.config._alert_channels import AlertMessage
    from ml_pipeline.config._alert_records import Alert

__all__ = [
    "counted",
    "cut",
    "facts",
    "line",
    "opening",
    "ordered",
    "plain_text",
    "runbook_address",
    "said",
    "tag",
    "title",
    "trace",
]

MOST_SECTIONS: Final = 20
"""Alerts that a message tells whole; the others get a line each, so that no server refuses it for its size."""

_RULE: Final = "-" * 60
_MOST_PIPELINE_CHARACTERS: Final = 60
_MOST_VALUE_CHARACTERS: Final = 4_000
_MOST_TRACE_CHARACTERS: Final = 10_000
_CLICKABLE: Final = re.compile(r"https?://[!-~]{1,1000}")
_TAGS: Final = {"resolved": "RESOLVED", "escalated": "ESCALATED", "digest": "DIGEST", "test": "TEST"}
_REASONS: Final = {
    "firing": "",
    "resolved": "Resolved: the cause is gone.",
    "escalated": "Escalated: it is worse than it was, or goes on and nobody has acknowledged it.",
    "test": "A test: nothing has happened.",
}


def cut(text: str, most_characters: int) -> str:
    """Leave out the end of a text that is too long, and mark that."""
    return text if len(text) <= most_characters else text[: most_characters - 1] + "…"


def tag(message: AlertMessage) -> str:
    """Return the one word that comes first: the severity of alerts that fire, or else why the message is sent."""
    return _TAGS.get(message.reason) or message.alert.severity.upper()


def title(message: AlertMessage, most_characters: int = 160) -> str:
    """Say on one line what the message is about: its worst alert, and how many more there are.

    Args:
        message: The message.
        most_characters: Longest title; how many more there are is never what is cut off.
    """
    if message.reason == "digest":
        pipelines = sorted({alert.pipeline for alert in message.alerts})
        told, rest = counted(message.alerts), ""
        name = pipelines[0] if len(pipelines) == 1 else f"{len(pipelines)} pipelines" if pipelines else ""
    else:
        worst = message.alert
        name, told = worst.pipeline, said(worst)
        rest = f" + {len(message.alerts) - 1} more" if len(message.alerts) > 1 else ""
    name = bounded_text(name, _MOST_PIPELINE_CHARACTERS, is_id=True)
    text = one_line(f"[{tag(message)}] {name}: {told}" if name else f"[{tag(message)}] {told}")
    return cut(text, most_characters - len(rest)) + rest


def opening(message: AlertMessage) -> list[str]:
    """Return the lines that come before the alerts: the note, and why the message is sent."""
    note = one_line(message.note[:MOST_MESSAGE_CHARACTERS])
    return [each for each in (note, _reason(message)) if each]


def counted(alerts: Sequence[Alert]) -> str:
    """Count alerts by severity, as in ``3 alerts: 1 critical, 2 warning``."""
    if not alerts:
        return "no alerts"
    found = Counter(alert.severity for alert in alerts)
    parts = ", ".join(f"{found[each]} {each}" for each in reversed(SEVERITIES) if found[each])
    return f"{len(alerts)} alert{'s' if len(alerts) > 1 else ''}: {parts}"


def ordered(message: AlertMessage) -> tuple[Sequence[Alert], Sequence[Alert]]:
    """Put the alerts in the order of telling.

    Args:
        message: The message.

    Returns:
        Those that are told whole, the most severe first; and those that get a line each. A digest has lines alone.
    """
    alerts = sorted(message.alerts, key=lambda alert: -SEVERITIES.index(alert.severity))
    most = 0 if message.reason == "digest" else MOST_SECTIONS
    return alerts[:most], alerts[most:]


def facts(alert: Alert) -> Iterator[tuple[str, str]]:
    """Yield what is known of an alert, as names and one-line texts; without its message and traceback."""
    course = course_of(alert.details)
    shown = {
        "Severity": alert.severity,
        "State": "resolved" if alert.state == "resolved" else "",
        "Alert": alert.name,
        "Kind": alert.kind,
        "Pipeline": alert.pipeline,
        "Operation": alert.operation,
        "Model": alert.model,
        "Concerns": alert.feature,
        "Exception": alert.error_type,
        "Time": rfc3339(alert.time),
        "Said": f"{alert.count} times, last at {rfc3339(alert.last_time)}" if alert.count > 1 else "",
        "Seen to by": alert.acknowledged_by,
        "User": alert.user_id,
        "Operation id": alert.operation_id,
        "Run id": alert.run_id,
        "Alert id": alert.alert_id,
        "Labels": ", ".join(f"{name}={value}" for name, value in alert.labels.items()),
        "Runbook": alert.runbook,
        "Course": course.words() if course else "",
    }
    yield from ((label, _value(value)) for label, value in shown.items() if value)
    drawn = (SERIES, LIMIT) if course else ()
    for name, value in alert.details.items():
        if name != STACKTRACE and name not in drawn:
            yield cut(one_line(name), MOST_NAME_CHARACTERS), _value(value)


def trace(alert: Alert) -> str:
    """Return the traceback, line by line; empty where there is none."""
    whole = str(alert.details.get(STACKTRACE, ""))[:_MOST_TRACE_CHARACTERS]
    return "\n".join(one_line(line) for line in whole.split("\n"))


def runbook_address(alert: Alert) -> str:
    """Return the address of the page that helps, where it is one that a click may open; else nothing."""
    return alert.runbook if _CLICKABLE.fullmatch(alert.runbook) else ""


def plain_text(message: AlertMessage) -> str:
    """Tell the whole message as text.

    Args:
        message: The message.

    Returns:
        Lines that no text in it can add to, and no character steers.
    """
    whole, rest = ordered(message)
    parts = ["\n".join(opening(message))] if opening(message) else []
    parts += [f"\n{_RULE}\n\n".join(_section(alert) for alert in whole)] if whole else []
    parts += ["\n".join(line(alert) for alert in rest)] if rest else []
    return "\n\n".join(parts).rstrip() + "\n"


def said(alert: Alert) -> str:
    """Return the message of an alert, on one line."""
    return cut(one_line(alert.message[:MOST_MESSAGE_CHARACTERS]), MOST_MESSAGE_CHARACTERS)


def line(alert: Alert) -> str:
    """Tell an alert on one line."""
    often = f" ({alert.count} times)" if alert.count > 1 else ""
    name = bounded_text(alert.pipeline, _MOST_PIPELINE_CHARACTERS, is_id=True)
    return f"{rfc3339(alert.time)} {alert.severity.upper()} {name}: {said(alert)}{often}"


def _section(alert: Alert) -> str:
    rows = "\n".join(f"{label + ':':<14} {value}" for label, value in facts(alert))
    return f"{said(alert)}\n\n{rows}\n\n{trace(alert)}".rstrip() + "\n"


def _value(value: object) -> str:
    text = value[:_MOST_VALUE_CHARACTERS] if isinstance(value, str) else dumps(value).decode()
    return cut(one_line(text), _MOST_VALUE_CHARACTERS)


def _reason(message: AlertMessage) -> str:
    return f"In sum: {counted(message.alerts)}." if message.reason == "digest" else _REASONS[message.reason]
