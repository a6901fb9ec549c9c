"""Alerts, silences and their counts as rows of a table, and what people give on the command line about them."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_silences import MATCHED
from ml_pipeline.config._encoding import encode, one_line, rfc3339
from ml_pipeline.errors import AlertError, SettingsError, closest
from ml_pipeline.report._log_query import parse_time

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ml_pipeline.config._alert_records import Alert, AlertSummary, DeliveryRecord
    from ml_pipeline.config._alert_silences import Silence

__all__ = [
    "ALERT_COLUMNS",
    "DELIVERY_COLUMNS",
    "SILENCE_COLUMNS",
    "alert_fields",
    "alert_row",
    "delivery_row",
    "duration_seconds",
    "found_or_refused",
    "lasting_or_refused",
    "matchers_of",
    "moment",
    "open_or_refused",
    "silence_row",
    "summary_fields",
    "summary_rows",
]

ALERT_COLUMNS: Final = ("time", "severity", "state", "kind", "operation", "times", "message", "id")
DELIVERY_COLUMNS: Final = ("channel", "why", "state", "attempts", "next or last", "error", "id")
SILENCE_COLUMNS: Final = ("until", "alerts", "reason", "by", "id")

_DURATION: Final = re.compile(r"([1-9][0-9]{0,8})([smhdw])")
_UNIT_SECONDS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0, "w": 604_800.0}


def alert_row(alert: Alert) -> tuple[str, ...]:
    """Return the cells of `ALERT_COLUMNS`."""
    what = (alert.kind, alert.operation, str(alert.count), alert.message, alert.alert_id)
    return (_time(alert.time), alert.severity, _state(alert), *what)


def alert_fields(alert: Alert) -> Iterator[tuple[str, str]]:
    """Name what is known of an alert, without what is empty; the details last, each on a line of its own."""
    plain = alert.to_dict() | {"state": _state(alert)}
    details = plain.pop("details")
    for name, value in {**plain, **{f"details.{key}": each for key, each in details.items()}}.items():
        if value not in ("", None, False) and value != {}:
            yield name, _text(value) if isinstance(value, str) else encode(value).decode()


def delivery_row(delivery: DeliveryRecord) -> tuple[str, ...]:
    """Return the cells of `DELIVERY_COLUMNS`."""
    time = delivery.due if delivery.settled is None else delivery.settled
    what = (delivery.channel, delivery.reason, delivery.state, str(delivery.attempts))
    return (*what, _time(time), delivery.error, delivery.delivery_id)


def silence_row(silence: Silence) -> tuple[str, ...]:
    """Return the cells of `SILENCE_COLUMNS`."""
    alerts = " ".join(f"{field}={text}" for field, text in silence.matchers.items())
    return (_time(silence.until), alerts, silence.reason, silence.by, silence.silence_id)


def summary_rows(summary: AlertSummary) -> Iterator[tuple[str, str, str]]:
    """Name what was counted, each with how many."""
    yield "alerts", "", str(summary.alerts)
    yield "held back", "", str(summary.held_back)
    for what, counts in (("severity", summary.by_severity), ("kind", summary.by_kind)):
        for which, count in sorted(counts.items()):
            yield what, which, str(count)
    for channel, states in sorted(summary.deliveries.items()):
        for state, count in sorted(states.items()):
            yield channel, state, str(count)


def summary_fields(summary: AlertSummary) -> dict[str, Any]:
    """Return what was counted as plain JSON values."""
    return {
        "since": rfc3339(summary.since),
        "alerts": summary.alerts,
        "by_kind": dict(summary.by_kind),
        "by_severity": dict(summary.by_severity),
        "held_back": summary.held_back,
        "deliveries": {channel: dict(states) for channel, states in summary.deliveries.items()},
    }


def found_or_refused(alert: Alert | None, alert_id: str) -> Alert:
    """Return the alert.

    Raises:
        AlertError: If there is none.
    """
    if alert is None:
        raise AlertError("an alert that is shown must be in the history", alert_id, "see `ml-pipeline alerts list`")
    return alert


def open_or_refused(alert: Alert | None, alert_id: str) -> None:
    """Make sure that something can be done about an alert.

    Raises:
        AlertError: If there is none, or it is resolved.
    """
    if alert is None or alert.state == "resolved":
        remedy = "see `ml-pipeline alerts list --active`"
        raise AlertError("an alert that is seen to or resolved must be open", alert_id, remedy)


def lasting_or_refused(silences: Sequence[Silence], silence_id: str) -> None:
    """Make sure that a silence can be ended.

    Raises:
        AlertError: If it is none of these.
    """
    if silence_id not in [silence.silence_id for silence in silences]:
        raise AlertError("a silence that is ended must last still", silence_id, "see `ml-pipeline alerts silences`")


def matchers_of(given: Sequence[str]) -> dict[str, str]:
    """Read what a silence matches.

    Args:
        given: Such as ``name=DataDrift``.

    Raises:
        SettingsError: If one is not a known field, an equals sign and a text, or a field stands there twice.
    """
    matchers: dict[str, str] = {}
    for each in given:
        field, equals, text = each.partition("=")
        if not (equals and text):
            raise SettingsError("a silence matches by FIELD=TEXT", each, "as in name=DataDrift")
        if field not in MATCHED:
            raise SettingsError("a silence matches by a field that it can match by", field, closest(field, MATCHED))
        if field in matchers:
            raise SettingsError("a silence matches by each field once", each, "make two silences")
        matchers[field] = text
    return matchers


def duration_seconds(text: str, *, option: str = "--for") -> float:
    """Read how long.

    Args:
        text: Such as ``30m``, ``2h`` or ``3d``.
        option: Which option gave it, for the message.

    Raises:
        SettingsError: If it is no such length.
    """
    found = _DURATION.fullmatch(text.strip().lower())
    if found is None:
        raise SettingsError(f"{option} must be a number and a unit", text, "such as 30m, 2h, 3d")
    return int(found[1]) * _UNIT_SECONDS[found[2]]


def moment(text: str) -> float:
    """Read since when; see `parse_time`.

    Returns:
        Seconds since the Unix epoch.

    Raises:
        SettingsError: If it is no time.
    """
    return dt.datetime.fromisoformat(parse_time(text, dt.datetime.now(dt.UTC)).decode()).timestamp()


def _text(value: str) -> str:
    """Write a text of any origin for a terminal; a traceback keeps its lines."""
    return "\n    ".join(one_line(line) for line in value.splitlines())


def _state(alert: Alert) -> str:
    if alert.state == "resolved":
        return "resolved"
    if alert.muted:
        return f"muted ({alert.muted})"
    return f"seen to by {alert.acknowledged_by}" if alert.acknowledged_by else "open"


def _time(seconds: float) -> str:
    return rfc3339(seconds)[:19] + "Z"
