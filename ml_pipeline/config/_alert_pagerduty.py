"""Alerts as PagerDuty events: triggered, acknowledged and resolved under one key for each cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_http import HttpService
from ml_pipeline.config._alert_records import bounded_text
from ml_pipeline.config._alert_secrets import read_secret
from ml_pipeline.config._alert_words import cut, facts, opening, ordered, runbook_address, said, trace
from ml_pipeline.config._encoding import encode, one_line, rfc3339
from ml_pipeline.config._ids import content_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ml_pipeline.config._alert_channels import AlertMessage
    from ml_pipeline.config._alert_records import Alert

__all__ = ["PagerDutyChannel", "dedup_key"]

_SETTING: Final = "pagerduty_key_file"
_ADDRESS: Final = "https://events.pagerduty.com/v2/enqueue"
_MOST_SUMMARY: Final = 1_024
_MOST_TRACE: Final = 8_000


class PagerDutyChannel:
    """Sends each alert of a message as an event of its own.

    Of a message that was sent in part, the rest is sent next time; where that is another process it sends all again,
    which changes nothing: what has the same key is one incident.
    Digests are not for somebody who is woken up, and are left out.

    Args:
        key_file: File with the integration key, read at each attempt.
        address: Where events go; that of the service region.
        say: Told of each step.

    Source: PagerDuty's reference of the Events API v2.
    """

    name: Final = "pagerduty"

    def __init__(self, key_file: Path, *, address: str = _ADDRESS, say: Callable[[str], None] = lambda _: None) -> None:
        self._file = key_file
        self._begun = ""
        self._taken: set[int] = set()
        self._address = address
        remedy = f"write the key of an Events API v2 integration into the file of ML_PIPELINE_{_SETTING.upper()}"
        self._service = HttpService("PagerDuty", remedy, say=say)

    def send(self, message: AlertMessage) -> None:
        """Send the events; see `AlertChannel.send`."""
        if self._begun != message.delivery_id:
            self._begun, self._taken = message.delivery_id, set()
        key = {"routing_key": read_secret(self._file, _SETTING)}
        events = [encode(key | event) for event in _events(message)]
        left = [event for event in events if hash(event) not in self._taken]
        self._service.post(
            self._address,
            *left,
            timeout_seconds=message.timeout_seconds,
            on_taken=lambda event: self._taken.add(hash(event)),
        )
        self._begun = ""


def dedup_key(alert: Alert) -> str:
    """Name the cause of an alert, the same whenever it is told.

    The exception's type, part of an alert's identity, is left out: an alert may learn of it after its first message,
    and the event that resolves it must still find the incident.
    """
    parts = ("kind", "pipeline", "operation", "model", "feature", "rule")
    return content_id("alert", {part: one_line(str(getattr(alert, part))) for part in parts})


def _events(message: AlertMessage) -> Iterator[dict[str, Any]]:
    whole, rest = ordered(message)
    for alert in () if message.reason == "digest" else (*whole, *rest):
        key = {"dedup_key": dedup_key(alert)}
        if message.reason == "test":
            key = {"dedup_key": f"test:{message.delivery_id}"}
        is_over = alert.state == "resolved" or message.reason == "resolved"
        if not is_over:
            yield {"event_action": "trigger", **key, **_told(alert, message)}
        if is_over or message.reason == "test":
            yield {"event_action": "resolve", **key}
        elif alert.acknowledged_by:
            yield {"event_action": "acknowledge", **key}


def _told(alert: Alert, message: AlertMessage) -> dict[str, Any]:
    name = _name(alert.pipeline)
    details = dict(facts(alert)) | ({"Note": " ".join(opening(message))} if opening(message) else {})
    address = runbook_address(alert)
    return {
        "client": "ml-pipeline",
        "payload": {
            "summary": cut(f"{name}: {said(alert)}", _MOST_SUMMARY),
            "source": name or "ml_pipeline",
            "severity": alert.severity,
            "timestamp": rfc3339(alert.time),
            "component": _name(alert.operation or alert.model),
            "group": name,
            "class": _name(alert.name or alert.kind),
            "custom_details": details | {"Traceback": trace(alert)[:_MOST_TRACE]},
        },
        "links": [{"href": address, "text": "Runbook"}] if address else [],
    }


def _name(text: str) -> str:
    return bounded_text(text, is_id=True)
