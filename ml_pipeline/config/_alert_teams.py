"""Alerts in Microsoft Teams, as a card that a workflow posts when its webhook is called."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_http import HttpService
from ml_pipeline.config._alert_secrets import read_secret
from ml_pipeline.config._alert_words import facts, line, opening, ordered, runbook_address, said, title, trace
from ml_pipeline.config._encoding import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ml_pipeline.config._alert_channels import AlertMessage
    from ml_pipeline.config._alert_records import Alert

__all__ = ["TeamsChannel"]

_SETTING: Final = "teams_webhook_file"
_MOST_BYTES: Final = 24_000  # Teams takes 28 KB, with what it adds
_MOST_TRACE: Final = 2_000
_MOST_VALUE: Final = 300
_MOST_FACTS: Final = 4_000
_COLOURS: Final = {"info": "Accent", "warning": "Warning", "critical": "Attention"}


class TeamsChannel:
    """Posts each message to the webhook of a workflow, as an Adaptive Card.

    Its texts are runs, which Teams does not read as Markdown.

    Args:
        webhook_file: File with the address of the workflow, read at each attempt.
        say: Told of each step.

    Source: the schema of Adaptive Cards, version 1.4; Microsoft's page on webhooks of workflows, for the envelope.
    """

    name: Final = "teams"

    def __init__(self, webhook_file: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
        self._file = webhook_file
        remedy = f"write the address of a workflow's webhook into the file of ML_PIPELINE_{_SETTING.upper()}"
        self._service = HttpService("Microsoft Teams", remedy, say=say)

    def send(self, message: AlertMessage) -> None:
        """Post the card; see `AlertChannel.send`."""
        self._service.post(read_secret(self._file, _SETTING), _card(message), timeout_seconds=message.timeout_seconds)


def _card(message: AlertMessage) -> bytes:
    """Write the card, with as many of the alerts as one may hold."""
    parts = list(_parts(message))
    while len(content := _enveloped(parts, message)) > _MOST_BYTES and len(parts) > 1:
        parts = parts[: max(len(parts) * 3 // 4, 1)]
    return content


def _enveloped(parts: list[dict[str, Any]], message: AlertMessage) -> bytes:
    addresses = dict.fromkeys(filter(None, map(runbook_address, ordered(message)[0])))
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": parts,
        "actions": [{"type": "Action.OpenUrl", "title": "Runbook", "url": address} for address in list(addresses)[:3]],
    }
    attachment = {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": card}
    return encode({"type": "message", "attachments": [attachment]})


def _parts(message: AlertMessage) -> Iterator[dict[str, Any]]:
    whole, rest = ordered(message)
    yield _text(title(message), size="Large", weight="Bolder")
    for each in opening(message):
        yield _text(each)
    yield _text(f"Delivery {message.delivery_id}", isSubtle=True, size="Small")
    for alert in whole:
        yield from _section(alert, "Good" if "resolved" in (message.reason, alert.state) else _COLOURS[alert.severity])
    for alert in rest:
        yield _text(line(alert))


def _section(alert: Alert, colour: str) -> Iterator[dict[str, Any]]:
    yield _text(said(alert), color=colour, weight="Bolder") | {"separator": True}
    yield _text("\n".join(f"{label}: {value[:_MOST_VALUE]}" for label, value in facts(alert))[:_MOST_FACTS])
    if traceback := trace(alert):
        yield _text(traceback[-_MOST_TRACE:], fontType="Monospace", size="Small")


def _text(text: str, **style: Any) -> dict[str, Any]:
    return {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": text, **style}]}
