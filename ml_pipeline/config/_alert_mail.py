"""Alerts as a mail that no text in them can break: RFC 5322 with plain text, HTML and pictures."""

from __future__ import annotations

import datetime as dt
import re
from email.errors import MessageError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._alert_course import course_of
from ml_pipeline.config._alert_picture import HEIGHT, WIDTH, draw
from ml_pipeline.config._alert_words import (
    facts,
    line,
    opening,
    ordered,
    plain_text,
    runbook_address,
    said,
    title,
    trace,
)
from ml_pipeline.errors import AlertError

if TYPE_CHECKING:
    from ml_pipeline.config._alert_channels import AlertMessage
    from ml_pipeline.config._alert_records import Alert

__all__ = ["Envelope", "compose"]

_POLICY: Final = SMTP.clone(cte_type="7bit")  # a server without 8BITMIME takes it too
_MOST_REFERENCES: Final = 20
_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_HOST: Final = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*")
_PAGE: Final = '<html><body style="font-family:sans-serif;color:#222">\n{}\n</body></html>\n'
_NOTE: Final = "<p>{}</p>"
_SECTION: Final = (
    '<p style="border-left:6px solid {colour};padding:4px 10px;font-size:16px;margin-top:24px">{message}</p>'
    '{image}<table style="border-spacing:0">{rows}</table>{trace}'
)
_LINE: Final = '<p style="border-left:4px solid {};padding:0 8px;margin:4px 0;font-size:13px">{}</p>'
_IMAGE: Final = '<p><img src="cid:{}" alt="{}" width="{}" height="{}"></p>'
_ROW: Final = '<tr><td style="color:#666;padding:2px 16px 2px 0;vertical-align:top">{}</td><td>{}</td></tr>'
_LINK: Final = '<a href="{0}">{0}</a>'
_TRACE: Final = '<pre style="background:#f4f4f4;padding:8px;white-space:pre-wrap">{}</pre>'
_OVER: Final = "#2e8540"
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
        list_domain: The same for the List-Id, which takes no number in its place.

    Raises:
        AlertError: If an address cannot be one, or there is no recipient.
    """

    def __init__(self, sender: str, recipients: tuple[str, ...]) -> None:
        if not recipients:
            raise AlertError("an alert mail needs a recipient", remedy="set ML_PIPELINE_ALERT_EMAIL_TO")
        self.sender = _checked(sender)
        self.recipients = tuple(_checked(recipient) for recipient in recipients)
        self.domain = sender.rpartition("@")[2].encode("idna").decode()
        self.list_domain = self.domain if _HOST.fullmatch(self.domain) else "localhost"


def compose(message: AlertMessage, envelope: Envelope) -> EmailMessage:
    """Write the mail of a message; the same arguments give the same mail, but for the lines between its parts.

    Mails about one alert are a thread: each answers one that was never sent, whose id is made from the alert's.

    Args:
        message: What to tell. Its delivery id becomes the Message-ID, by which a repeat is known.
        envelope: From whom to whom.

    Returns:
        The mail, in ASCII.

    Source: RFC 5322, section 3.6.4 for threads; RFC 2919 for ``List-Id``; RFC 3834 for ``Auto-Submitted``; RFC 2392
    for the pictures.
    """
    mail = EmailMessage(_POLICY)
    mail["Subject"] = title(message).replace("=?", "= ?")  # it is decoded once more before it is folded
    mail["From"] = envelope.sender
    mail["To"] = ", ".join(envelope.recipients)
    mail["Date"] = format_datetime(dt.datetime.fromtimestamp(_moment(message), dt.UTC))
    mail["Message-ID"] = f"<{message.delivery_id}@{envelope.domain}>"
    if message.reason not in ("digest", "test"):
        worst = message.alert
        others = [each.alert_id for each in message.alerts if each.alert_id != worst.alert_id]
        roots = [f"<{alert_id}@{envelope.domain}>" for alert_id in (*others[:_MOST_REFERENCES], worst.alert_id)]
        mail["In-Reply-To"] = roots[-1]
        mail["References"] = " ".join(roots)
    mail["List-Id"] = f"ml-pipeline alerts <ml-pipeline-alerts.{envelope.list_domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(plain_text(message))
    page, pictures = _page(message, envelope.domain)
    mail.add_alternative(page, subtype="html")
    part = mail.get_payload(1)
    assert isinstance(part, EmailMessage)  # noqa: S101 - as it was made two lines before
    for content_id, picture in pictures.items():
        part.add_related(picture, "image", "png", cid=f"<{content_id}>", disposition="inline")
    return mail


def _moment(message: AlertMessage) -> float:
    # What is told of later than it was raised is dated by its delivery id, which holds the time it was made.
    if message.reason == "firing" or not _UUID7.fullmatch(message.delivery_id):
        return message.alert.time if message.alerts else 0.0
    return int(message.delivery_id.replace("-", "")[:12], 16) / 1000


def _page(message: AlertMessage, domain: str) -> tuple[str, dict[str, bytes]]:
    whole, rest = ordered(message)
    pictures: dict[str, bytes] = {}
    parts = [_NOTE.format(escape(each)) for each in opening(message)]
    for alert in whole:
        course = course_of(alert.details)
        image = ""
        if course is not None:
            content_id = f"{len(pictures)}.{message.delivery_id}@{domain}"
            pictures[content_id] = draw(course)
            image = _IMAGE.format(escape(content_id), escape(course.words()), WIDTH // 2, HEIGHT // 2)
        is_over = "resolved" in (message.reason, alert.state)
        parts.append(_section(alert, _OVER if is_over else _COLOURS[alert.severity], image))
    parts += [_LINE.format(_COLOURS[alert.severity], escape(line(alert))) for alert in rest]
    return _PAGE.format("\n".join(parts)), pictures


def _section(alert: Alert, colour: str, image: str) -> str:
    help_page = escape(runbook_address(alert))
    rows = "".join(
        _ROW.format(escape(label), _LINK.format(help_page) if label == "Runbook" and help_page else escape(value))
        for label, value in facts(alert)
    )
    traceback = escape(trace(alert))
    return _SECTION.format(
        colour=colour,
        message=escape(said(alert)),
        image=image,
        rows=rows,
        trace=_TRACE.format(traceback) if traceback else "",
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
