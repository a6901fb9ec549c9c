"""Hands a mail to an SMTP server: encrypted as asked, within its time, and without a word about the password."""

from __future__ import annotations

import contextlib
import smtplib
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.errors import AlertError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import EmailMessage
    from pathlib import Path

    from ml_pipeline.config._alert_mail import Envelope

__all__ = ["SmtpServer"]

_PERMANENT: Final = 500  # codes from here on; below it, "try again later"
_SHORTEST_SECONDS: Final = 0.001
_FAREWELL_SECONDS: Final = 1.0


class _Smtp(smtplib.SMTP):
    """A conversation whose every step has what is left of the time for all of it."""

    deadline = float("inf")

    def send(self, s: Any) -> None:
        if self.sock is not None and self.deadline < float("inf"):
            self.sock.settimeout(max(self.deadline - time.monotonic(), _SHORTEST_SECONDS))
        super().send(s)


class _SmtpOverTls(_Smtp, smtplib.SMTP_SSL):
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class SmtpServer:
    """Where mails are handed over.

    Attributes:
        host: The mail server.
        port: Its port.
        security: ``none``, ``starttls`` or ``tls``.
        user: Login name; None for no login.
        password_file: File that holds the password.
        tls_context: What to trust instead of the system's certificates.
    """

    host: str
    port: int
    security: str
    user: str | None = None
    password_file: Path | None = None
    tls_context: ssl.SSLContext | None = None

    def transmit(self, mail: EmailMessage, envelope: Envelope, *, timeout_seconds: float) -> dict[str, str]:
        """Hand over one mail.

        Args:
            mail: The mail.
            envelope: From whom to whom.
            timeout_seconds: How long it may take altogether.

        Returns:
            The recipients that the server refused while it took others, and why.

        Raises:
            AlertError: If the server refuses this mail for good (a 5xx to its sender, recipients or content).
            SettingsError: If the password is missing or cannot be sent.
            smtplib.SMTPException: If it may take the mail later. Refusals before the mail itself, such as a wrong
                password, are among these: an operator can put them right while the outbox keeps the mail.
            OSError: If the server cannot be reached or its certificate is not trusted.
        """
        smtp = self._connected(timeout_seconds)
        try:
            if self.security == "starttls":
                smtp.starttls(context=self._context())
            self._log_in(smtp)
            return _handed_over(smtp, mail, envelope)
        finally:
            # The mail is accepted or not by now: what the server says to a farewell changes nothing.
            smtp.deadline = min(smtp.deadline, time.monotonic() + _FAREWELL_SECONDS)
            with contextlib.suppress(smtplib.SMTPException, OSError):
                smtp.quit()
            smtp.close()

    def _connected(self, timeout_seconds: float) -> _Smtp:
        deadline = time.monotonic() + timeout_seconds
        name = _own_name()
        smtp: _Smtp
        if self.security == "tls":
            smtp = _SmtpOverTls(
                self.host, self.port, local_hostname=name, timeout=timeout_seconds, context=self._context()
            )
        else:
            smtp = _Smtp(self.host, self.port, local_hostname=name, timeout=timeout_seconds)
        smtp.deadline = deadline
        return smtp

    def _context(self) -> ssl.SSLContext:
        return self.tls_context or ssl.create_default_context()

    def _log_in(self, smtp: smtplib.SMTP) -> None:
        if self.user is None:
            return
        if self.password_file is None:
            raise SettingsError("a mail login needs a password", self.user, "set ML_PIPELINE_SMTP_PASSWORD_FILE")
        password = self.password_file.read_text("utf-8").strip()
        if not (password and f"{self.user}{password}".isascii()):
            remedy = f"correct ML_PIPELINE_SMTP_USER and {self.password_file}"
            raise SettingsError("a mail login must have a name and a password in ASCII", remedy=remedy)
        try:
            smtp.login(self.user, password)
        except smtplib.SMTPResponseException as refused:
            # The server's words are dropped: it may repeat what it was sent.
            raise smtplib.SMTPAuthenticationError(refused.smtp_code, "the mail server refused the login") from None


def _handed_over(smtp: smtplib.SMTP, mail: EmailMessage, envelope: Envelope) -> dict[str, str]:
    try:
        refused = smtp.send_message(mail, envelope.sender, envelope.recipients)
    except smtplib.SMTPRecipientsRefused as nobody:
        if all(code >= _PERMANENT for code, _ in nobody.recipients.values()):
            raise AlertError(
                "a mail server must take a recipient", _words(nobody.recipients), "correct ML_PIPELINE_ALERT_EMAIL_TO"
            ) from None
        raise
    except smtplib.SMTPResponseException as answer:
        if answer.smtp_code >= _PERMANENT:
            words = _word(answer.smtp_code, answer.smtp_error)
            raise AlertError("a mail server must take the alert", words, "see its log for the reason") from None
        raise
    return _words(refused)


def _words(refused: Mapping[str, tuple[int, bytes]]) -> dict[str, str]:
    return {recipient: _word(code, text) for recipient, (code, text) in refused.items()}


def _word(code: int, text: bytes | str) -> str:
    return f"{code} {text.decode('utf-8', 'replace') if isinstance(text, bytes) else text}"


def _own_name() -> str:
    """Name this machine as it names itself; smtplib would ask DNS, which may take longer than the mail."""
    name = socket.gethostname()
    return name if "." in name and name.isascii() else "[127.0.0.1]"
