"""The ways an alert reaches a person: the contract of a channel, and e-mail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from ml_pipeline import _runtime
from ml_pipeline.config._alert_records import SEVERITIES
from ml_pipeline.errors import AlertError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ml_pipeline.config._alert_records import Alert
    from ml_pipeline.settings import Settings

__all__ = ["AlertChannel", "AlertMessage", "EmailChannel", "Reason", "refuse_namesakes"]

Reason = Literal["firing", "resolved", "escalated", "digest", "test"]
"""Why a message is sent: alerts were raised, are over, have become critical, are summed up; or somebody tries it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertMessage:
    """What a channel is to deliver.

    Attributes:
        delivery_id: The same at every attempt, so that a receiver can tell a repeat.
        alerts: The alerts as they stand now, at least one. Their texts may come from anywhere: a channel escapes them
            for its format.
        reason: Why they are sent; a digest's alerts are those it sums up.
        timeout_seconds: How long sending may take.
        note: A sentence for the top, such as why this channel is used; empty for none.
    """

    delivery_id: str
    alerts: tuple[Alert, ...]
    reason: Reason = "firing"
    timeout_seconds: float
    note: str = ""

    @property
    def alert(self) -> Alert:
        """The most severe one, and of several the first."""
        return max(self.alerts, key=lambda alert: SEVERITIES.index(alert.severity))


class AlertChannel(Protocol):
    """Delivers one message at a time; a manager calls it off the pipeline's thread, and never from two at once.

    Attributes:
        name: What the outbox and ``ml_pipeline_alert_deliveries_total{channel}`` call it; it must stay the same from
            start to start.
    """

    @property
    def name(self) -> str: ...

    def send(self, message: AlertMessage) -> None:
        """Deliver *message*, within its time.

        Args:
            message: What to deliver.

        Raises:
            AlertError: If it can never be delivered; it becomes a dead letter at once.
            Exception: If it may be delivered later; it is tried again. No text of an exception holds a secret.
        """
        ...


def refuse_namesakes(channels: Sequence[AlertChannel]) -> None:
    """Make sure that the outbox can tell the channels apart.

    Raises:
        AlertError: If two of them have the same name.
    """
    names = [channel.name for channel in channels]
    if len(set(names)) < len(names):
        raise AlertError("each alert channel must have a name of its own", names, "rename one of them")


class EmailChannel:
    """Sends each message as a mail: plain text and HTML, with a ``Message-ID`` that is the same at every attempt.

    Certificates are checked, and a server that cannot encrypt although it should gets nothing. The password is read
    from its file at each attempt, so that it may be changed while a pipeline runs.

    Args:
        host: The mail server.
        port: Its port.
        sender: Address the mails come from.
        recipients: Addresses they go to.
        security: ``none``, ``starttls`` or ``tls``.
        user: Login name; None for no login.
        password_file: File that holds the password.
        token_file: File that holds an access token, for a login by XOAUTH2 in place of a password.
        tls_context: What to trust instead of the system's certificates.
        say: Told of each step.

    Raises:
        AlertError: If an address cannot be one, or there is no recipient.
    """

    name: Final = "email"

    def __init__(
        self,
        host: str,
        port: int,
        *,
        sender: str,
        recipients: Sequence[str],
        security: str = "starttls",
        user: str | None = None,
        password_file: Path | None = None,
        token_file: Path | None = None,
        tls_context: ssl.SSLContext | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        from ml_pipeline.config._alert_mail import Envelope
        from ml_pipeline.config._alert_smtp import SmtpServer

        self._envelope = Envelope(sender, tuple(recipients))
        self._server = SmtpServer(
            host=host,
            port=port,
            security=security,
            user=user,
            password_file=password_file,
            token_file=token_file,
            tls_context=tls_context,
            say=say,
        )

    @classmethod
    def from_settings(cls, settings: Settings, say: Callable[[str], None] = lambda _: None) -> EmailChannel:
        """Make the channel that the settings describe.

        Args:
            settings: With ``smtp_host`` set.
            say: Told of each step.

        Raises:
            AlertError: As the class does.
        """
        return cls(
            settings.smtp_host or "",
            settings.smtp_port,
            sender=settings.alert_email_from or "",
            recipients=settings.alert_email_to,
            security=settings.smtp_security,
            user=settings.smtp_user,
            password_file=settings.smtp_password_file,
            token_file=settings.smtp_oauth_token_file,
            say=say,
        )

    def send(self, message: AlertMessage) -> None:
        """Hand the mail to the server; see `AlertChannel.send`.

        A recipient that the server refuses while it takes others is said once on stderr.
        """
        from ml_pipeline.config._alert_mail import compose

        mail = compose(message, self._envelope)
        refused = self._server.transmit(mail, self._envelope, timeout_seconds=message.timeout_seconds)
        if refused:
            partly = AlertError(
                "a mail server must take every recipient", refused, "correct ML_PIPELINE_ALERT_EMAIL_TO"
            )
            _runtime.telemetry_error("alerting", partly)
