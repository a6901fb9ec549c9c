"""Alerts in Slack, through an incoming webhook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_http import HttpService
from ml_pipeline.config._alert_secrets import read_secret
from ml_pipeline.config._alert_words import cut, facts, line, opening, ordered, runbook_address, said, title, trace
from ml_pipeline.config._encoding import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ml_pipeline.config._alert_channels import AlertMessage
    from ml_pipeline.config._alert_records import Alert

__all__ = ["SlackChannel"]

_SETTING: Final = "slack_webhook_file"
_MOST_BLOCKS: Final = 50
_MOST_HEADER: Final = 150
_MOST_TEXT: Final = 2_900  # Slack takes 3,000, and counts some characters twice
_MOST_WHOLE: Final = 8
_WORDS: Final = frozenset(
    {
        "action_prohibited",
        "channel_is_archived",
        "channel_not_found",
        "invalid_blocks",
        "invalid_payload",
        "invalid_token",
        "no_service",
        "no_team",
        "no_text",
        "posting_to_general_channel_denied",
        "rate_limited",
        "rollup_error",
        "team_disabled",
        "too_many_attachments",
        "user_not_found",
    }
)


class SlackChannel:
    """Posts each message to an incoming webhook.

    No text in it is read as Slack's markup, so that none can call a whole channel or dress up a link.

    Args:
        webhook_file: File with the webhook's address, read at each attempt.
        say: Told of each step.

    Source: Slack's reference of Block Kit and of incoming webhooks, for blocks, limits and answers.
    """

    name: Final = "slack"

    def __init__(self, webhook_file: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
        self._file = webhook_file
        remedy = f"write the address of a webhook that works into the file of ML_PIPELINE_{_SETTING.upper()}"
        self._service = HttpService("Slack", remedy, _WORDS, say=say)

    def send(self, message: AlertMessage) -> None:
        """Post the message; see `AlertChannel.send`."""
        head = title(message, _MOST_HEADER)
        blocks = [{"type": "header", "text": _plain(head)}, *_blocks(message)][:_MOST_BLOCKS]
        content = encode({"text": _unmarked(head), "blocks": blocks})
        self._service.post(read_secret(self._file, _SETTING), content, timeout_seconds=message.timeout_seconds)


def _blocks(message: AlertMessage) -> Iterator[dict[str, Any]]:
    whole, rest = ordered(message)
    whole, rest = whole[:_MOST_WHOLE], [*whole[_MOST_WHOLE:], *rest]
    top = " ".join(opening(message))
    if top:
        yield {"type": "section", "text": _plain(top)}
    for alert in whole:
        yield from _section(alert)
    if rest:
        yield {"type": "section", "text": _plain("\n".join(line(alert)[:200] for alert in rest))}
    yield {"type": "context", "elements": [_plain(f"Delivery {message.delivery_id}")]}


def _section(alert: Alert) -> Iterator[dict[str, Any]]:
    known = "\n".join(f"{label}: {value}" for label, value in facts(alert))
    yield {"type": "divider"}
    yield {"type": "section", "text": _plain(said(alert))}
    yield _preformatted(known)
    if traceback := trace(alert):
        yield _preformatted(traceback)
    if address := runbook_address(alert):
        link = {"type": "link", "url": address, "text": "Runbook"}
        yield {"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [link]}]}


def _plain(text: str) -> dict[str, Any]:
    return {"type": "plain_text", "text": cut(text, _MOST_TEXT) or " ", "emoji": False}


def _preformatted(text: str) -> dict[str, Any]:
    part = {"type": "rich_text_preformatted", "elements": [{"type": "text", "text": cut(text, _MOST_TEXT) or " "}]}
    return {"type": "rich_text", "elements": [part]}


def _unmarked(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
