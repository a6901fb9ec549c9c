"""Alerts as signed JSON, posted to an address of the user's."""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import hmac
import time
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._alert_http import HttpService
from ml_pipeline.config._alert_secrets import read_secret
from ml_pipeline.config._alert_words import title
from ml_pipeline.config._encoding import encode, to_plain
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ml_pipeline.config._alert_channels import AlertMessage

__all__ = ["WebhookChannel", "as_json", "signature"]

_SETTING: Final = "alert_webhook_key_file"
_PREFIX: Final = "whsec_"


class WebhookChannel:
    """Posts each message as JSON, with a signature that tells its receiver who it is from and when.

    Args:
        address: Where to.
        key_file: File with the key: any line of text, or ``whsec_`` and Base64; None for no signature.
        clock: Seconds since the Unix epoch, for the signature.
        say: Told of each step.

    Source: the Standard Webhooks specification 1.0, for the headers ``webhook-id``, ``webhook-timestamp`` and
    ``webhook-signature``; any of its libraries verifies them.
    """

    name: Final = "webhook"

    def __init__(
        self,
        address: str,
        key_file: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._address = address
        self._key_file = key_file
        self._clock = clock
        self._service = HttpService("the webhook", "correct ML_PIPELINE_ALERT_WEBHOOK_URL", is_secret=False, say=say)

    def send(self, message: AlertMessage) -> None:
        """Post the message; see `AlertChannel.send`."""
        content = as_json(message)
        headers = {"webhook-id": message.delivery_id, "webhook-timestamp": str(int(self._clock()))}
        if self._key_file is not None:
            key = _key(read_secret(self._key_file, _SETTING), self._key_file)
            headers["webhook-signature"] = signature(key, content, **_signed(headers))
        self._service.post(self._address, content, timeout_seconds=message.timeout_seconds, headers=headers)


def as_json(message: AlertMessage) -> bytes:
    """Write a message as one JSON object.

    Args:
        message: The message.

    Returns:
        UTF-8 with ``version`` (1), ``delivery_id``, ``reason``, ``title``, ``note`` and ``alerts``, each of these as it
        stands in ``alerts.json``.
    """
    alerts = [to_plain(alert.to_dict()) for alert in message.alerts]
    top = {"version": 1, "delivery_id": message.delivery_id, "reason": message.reason}
    return encode({**top, **to_plain({"title": title(message), "note": message.note}), "alerts": alerts})


def signature(key: bytes, content: bytes, *, message_id: str, timestamp: str) -> str:
    """Sign what is posted.

    Args:
        key: The key that both sides have.
        content: The body, byte for byte.
        message_id: The header ``webhook-id``.
        timestamp: The header ``webhook-timestamp``: seconds since the Unix epoch.

    Returns:
        ``v1,`` and the Base64 of the HMAC-SHA256 over id, time and body with dots between them.
    """
    signed = b".".join((message_id.encode(), timestamp.encode(), content))
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _signed(headers: dict[str, str]) -> dict[str, str]:
    return {"message_id": headers["webhook-id"], "timestamp": headers["webhook-timestamp"]}


def _key(text: str, file: Path) -> bytes:
    if not text.startswith(_PREFIX):
        return text.encode()
    key = b""
    with contextlib.suppress(binascii.Error):
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    if not key:
        raise SettingsError(f"a key that begins with {_PREFIX} must go on in Base64", str(file), "correct that file")
    return key
