"""An alert as a mail that no text in it can break: RFC 5322 with plain text and HTML."""

from __future__ import annotations

import datetime as dt
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._alert_records import STACKTRACE, bounded_text
from ml_pipeline.config._encoding import encode, one_line, rfc3339
from ml_pipeline.errors import AlertError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ml_pipeline.config._alert_records import Alert

__all__ = ["Envelope", "compose"]

_POLICY: Final = SMTP.clone(cte_type="7bit")  # a server without 8BITMIME takes it too
_MOST_SUBJECT_CHARACTERS: Final = 160
_PAGE: Final = (
    '<html><body style="font-family:sans-serif;color:#222">'
    '<p style="border-left:6px solid {colour};padding:4px 10px;font-size:16px">{message}</p>'
    '<table style="border-spacing:0">{rows}</table>{trace}</body></html>\n'
)
_ROW: Final = '<tr><td style="color:#666;padding:2px 16px 2px 0;vertical-align:top">{}</td><td>{}</td></tr>'
_TRACE: Final = '<pre style="background:#f4f4f4;padding:8px;white-space:pre-wrap">{}</pre>'
_COLOURS: Final = {"info": "#2a6fb0", "warning": "#d98e04", "critical": "#c0272d"}


class Envelope:
    """Who a mail is from and to, checked.

    Args:
        sender: Address, such as ``pipeline@example.org``.
        recipients: One or more addresses.

    Attributes:
        sender: The address.
        recipients: The addresses.
        domain: The sender's domain in ASCII, for Message-IDs.

    Raises:
        AlertError: If an address cannot be one, or there is no recipient.
    """

    def __init__(self, sender: str, recipients: tuple[str, ...]) -> None:
        if not recipients:
            raise AlertError("an alert mail needs a recipient", remedy="set ML_PIPELINE_ALERT_EMAIL_TO")
        self.sender = _checked(sender)
        self.recipients = tuple(_checked(recipient) for recipient in recipients)
        self.domain = sender.rpartition("@")[2].encode("idna").decode()


def compose(alert: Alert, delivery_id: str, envelope: Envelope) -> EmailMessage:
    """Write the mail of an alert; the same arguments give the same mail.

    Args:
        alert: What to tell.
        delivery_id: Becomes the Message-ID, by which a repeat is known.
        envelope: From whom to whom.

    Returns:
        The mail, in ASCII.

    Source: RFC 5322; RFC 3834 for ``Auto-Submitted``.
    """
    mail = EmailMessage(_POLICY)
    mail["Subject"] = _subject(alert)
    mail["From"] = envelope.sender
    mail["To"] = ", ".join(envelope.recipients)
    mail["Date"] = format_datetime(dt.datetime.fromtimestamp(alert.time, dt.UTC))
    mail["Message-ID"] = f"<{delivery_id}@{envelope.domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(_text(alert))
    mail.add_alternative(_html(alert), subtype="html")
    return mail


def _subject(alert: Alert) -> str:
    text = one_line(f"[{alert.severity.upper()}] {alert.pipeline}: {alert.message}")
    # A header is decoded once more before it is folded: an encoded word in the text could bring a line break with it.
    return bounded_text(text.replace("=?", "= ?"), _MOST_SUBJECT_CHARACTERS)


def _rows(alert: Alert) -> Iterator[tuple[str, str]]:
    shown = {
        "Severity": alert.severity,
        "Kind": alert.kind,
        "Pipeline": alert.pipeline,
        "Operation": alert.operation,
        "Model": alert.model,
        "Concerns": alert.feature,
        "Exception": alert.error_type,
        "Time": rfc3339(alert.time),
        "Said": f"{alert.count} times, last at {rfc3339(alert.last_time)}" if alert.count > 1 else "",
        "User": alert.user_id,
        "Operation id": alert.operation_id,
        "Run id": alert.run_id,
        "Alert id": alert.alert_id,
    }
    yield from ((label, one_line(value)) for label, value in shown.items() if value)
    for name, value in alert.details.items():
        if name != STACKTRACE:
            yield one_line(name), one_line(value) if isinstance(value, str) else encode(value).decode()


def _trace(alert: Alert) -> str:
    return "\n".join(one_line(line) for line in str(alert.details.get(STACKTRACE, "")).split("\n"))


def _text(alert: Alert) -> str:
    rows = "\n".join(f"{label + ':':<14} {value}" for label, value in _rows(alert))
    return f"{alert.message}\n\n{rows}\n\n{_trace(alert)}".rstrip() + "\n"


def _html(alert: Alert) -> str:
    trace = _trace(alert)
    return _PAGE.format(
        colour=_COLOURS[alert.severity],
        message=escape(alert.message),
        rows="".join(_ROW.format(escape(label), escape(value)) for label, value in _rows(alert)),
        trace=_TRACE.format(escape(trace)) if trace else "",
    )


def _checked(address: str) -> str:
    try:
        parsed = Address(addr_spec=address)
        parsed.domain.encode("idna")
    except (MessageError, ValueError, IndexError):
        parsed = None
    if parsed is None or not parsed.username or not parsed.domain or str(parsed) != address:
        raise AlertError("a mail address must be like ops@example.org", address, "correct it")
    return address
