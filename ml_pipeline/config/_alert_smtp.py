"""Hands a mail to an SMTP server: encrypted as asked, within its time, and without a word about the password."""

from __future__ import annotations

import base64
import contextlib
import smtplib
import socket
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_deadline import Deadline
from ml_pipeline.errors import AlertError, DeliveryError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from email.message import EmailMessage
    from pathlib import Path

    from ml_pipeline.config._alert_mail import Envelope

__all__ = ["SmtpServer"]

_READY: Final = 220
_PERMANENT: Final = 500  # codes from here on; below it, "try again later"
_FAREWELL_SECONDS: Final = 1.0
_SHORTEST_SECRET: Final = 4


class _Smtp(smtplib.SMTP):
    """A conversation whose every step has what is left of the time for all of it."""

    deadline = Deadline(0.0)
    hidden: tuple[bytes, ...] = ()
    taken = b""

    def open(self, host: str, port: int, deadline: Deadline, hidden: tuple[bytes, ...]) -> None:
        """Connect; what the server says from here on is without what is hidden, whatever becomes of its words."""
        self.deadline, self.hidden = deadline, hidden
        self._host = host  # whom the certificate must name
        code, words = self.connect(host, port)
        if code != _READY:
            raise smtplib.SMTPConnectError(code, words)

    def getreply(self) -> tuple[int, bytes]:
        try:
            code, words = super().getreply()
        except smtplib.SMTPResponseException as broken:  # smtplib's own 500, which is no refusal by the server
            raise smtplib.SMTPServerDisconnected(str(broken.smtp_error)) from None
        for secret in self.hidden:
            words = words.replace(secret, b"***")
        return code, words

    def send(self, s: Any) -> None:
        if self.sock is not None:
            self.sock.settimeout(self.deadline.left())
        super().send(s)

    def data(self, msg: Any) -> tuple[int, bytes]:
        code, self.taken = super().data(msg)
        return code, self.taken

    def _get_socket(self, host: str, port: int, timeout: Any) -> socket.socket:  # noqa: ARG002 - smtplib's own call
        return self.deadline.connect(host, port)


class _SmtpOverTls(smtplib.SMTP_SSL, _Smtp):  # in this order: it encrypts what `_Smtp` connects
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
        token_file: File that holds an access token, for a login by XOAUTH2 in place of a password.
        tls_context: What to trust instead of the system's certificates.
        say: Told of each step.
    """

    host: str
    port: int
    security: str
    user: str | None = None
    password_file: Path | None = None
    token_file: Path | None = None
    tls_context: ssl.SSLContext | None = None
    say: Callable[[str], None] = lambda _: None

    def transmit(self, mail: EmailMessage, envelope: Envelope, *, timeout_seconds: float) -> dict[str, str]:
        """Hand over one mail.

        Args:
            mail: The mail.
            envelope: From whom to whom.
            timeout_seconds: How long it may take altogether, whatever the server does.

        Returns:
            The recipients that the server refused while it took others, and why.

        Raises:
            AlertError: If the server refuses this mail for good (a 5xx to its sender, recipients or content).
            SettingsError: If the password is missing or cannot be sent.
            DeliveryError: If the server was not done in time.
            smtplib.SMTPException: If it may take the mail later. Refusals before the mail itself, such as a wrong
                password, are among these: an operator can put them right while the outbox keeps the mail.
            OSError: If the server cannot be reached or its certificate is not trusted.
        """
        secret = self._secret()
        failed: Exception
        with Deadline(timeout_seconds, self.say) as deadline:
            try:
                return self._converse(mail, envelope, deadline, secret)
            except (smtplib.SMTPException, OSError, AlertError) as error:
                failed = error
            is_late = deadline.is_over and not isinstance(failed, AlertError)
        if is_late:
            raise DeliveryError("a mail server must take a mail in time", f"{timeout_seconds:g} s", "it is tried again")
        raise failed

    def _converse(self, mail: EmailMessage, envelope: Envelope, deadline: Deadline, secret: str) -> dict[str, str]:
        smtp = self._line()
        try:
            smtp.open(self.host, self.port, deadline, self._forms(secret))
            if self.security == "starttls":
                smtp.starttls(context=self._context())
            if isinstance(smtp.sock, ssl.SSLSocket):
                self.say(f"encrypted with {smtp.sock.version()}")
            smtp.ehlo_or_helo_if_needed()  # here, where a refusal is not one of the mail
            if self.user is not None:
                self._log_in(smtp, self.user, secret)
            refused = _handed_over(smtp, mail, envelope)
            self.say(f"the server has taken the mail ({_word(250, smtp.taken)})")
            return refused
        finally:
            # The mail is accepted or not by now: what the server says to a farewell changes nothing.
            deadline.shorten(_FAREWELL_SECONDS)
            with contextlib.suppress(smtplib.SMTPException, OSError):
                smtp.quit()
            smtp.close()

    def _line(self) -> _Smtp:
        name = _own_name()
        if self.security == "tls":
            return _SmtpOverTls(local_hostname=name, context=self._context())
        return _Smtp(local_hostname=name)

    def _context(self) -> ssl.SSLContext:
        return self.tls_context or ssl.create_default_context()

    def _secret(self) -> str:
        if self.user is None:
            return ""
        file = self.token_file or self.password_file
        if file is None:
            raise SettingsError("a mail login needs a password", self.user, "set ML_PIPELINE_SMTP_PASSWORD_FILE")
        secret = file.read_bytes().strip().decode("utf-8", "replace")
        if not (secret and f"{self.user}{secret}".isascii()):
            remedy = f"correct ML_PIPELINE_SMTP_USER and {file}"
            raise SettingsError("a mail login must have a name and a password in ASCII", remedy=remedy)
        return secret

    def _log_in(self, smtp: smtplib.SMTP, user: str, secret: str) -> None:
        code = 0
        try:
            if self.token_file is None:
                smtp.login(user, secret)
            else:
                # An empty answer to what the server objects to makes it say its code.
                smtp.auth("XOAUTH2", lambda challenge=None: "" if challenge else _bearer(user, secret))
        except smtplib.SMTPResponseException as refused:
            code = refused.smtp_code
        if code:  # out here, where the server's words are no context of it
            raise smtplib.SMTPAuthenticationError(code, "the mail server refused the login")
        self.say(f"logged in as {user}")

    def _forms(self, secret: str) -> tuple[bytes, ...]:
        """What a server could repeat: the secret as it is, and as it was sent."""
        if len(secret) < _SHORTEST_SECRET:
            return ()
        user = self.user or ""
        forms = [form.encode() for form in (_bearer(user, secret), f"\0{user}\0{secret}", secret)]
        return (*(base64.b64encode(form) for form in forms), *forms)


def _bearer(user: str, token: str) -> str:
    return f"user={user}\1auth=Bearer {token}\1\1"


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
