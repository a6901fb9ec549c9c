"""What the tests of alerting share: a clock, a channel, a manager with its bus, and a real mail server."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

import ml_pipeline
from ml_pipeline.config import _context
from ml_pipeline.config._events import AlertEvent, Bus, ErrorInfo, Event, OperationEvent
from ml_pipeline.config.alerting import AlertManager, AlertMessage

PASSWORD = "correct-horse-battery"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.now


class Pager:
    """A channel that keeps what it is given, or fails as it is told to."""

    name = "pager"

    def __init__(self) -> None:
        self.sent: list[AlertMessage] = []
        self.failures: list[Exception] = []

    def send(self, message: AlertMessage) -> None:
        """Take a message, or raise the next failure."""
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(message)


class World:
    """A manager with a bus, a clock and a channel of its own, and all that it published."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pager = Pager()
        self.bus = Bus()
        self.attempts: list[tuple[str, str, float]] = []
        self.alerts = self.manager()
        self.bus.subscribe("alerting", self.alerts.observe)
        self.events: list[AlertEvent] = []
        self.bus.subscribe("test", self._keep)

    def manager(self) -> AlertManager:
        """Make another manager on the same store, as another process would."""
        return AlertManager(
            channels=[self.pager],
            clock=self.clock,
            bus=self.bus,
            on_delivery=lambda *attempt: self.attempts.append(attempt),
        )

    def fail(self, operation_id: str, parent_id: str | None = None, **fields: Any) -> None:
        """Publish the failure of an operation."""
        given = {
            "kind": "ingestion",
            "name": "data_ingestion",
            "run_id": "run",
            "error": ErrorInfo("TimeoutError", "Connection timeout", "Traceback"),
            **fields,
        }
        self.bus.publish(OperationEvent(type="fail", operation_id=operation_id, parent_id=parent_id, **given))

    def states(self) -> list[str]:
        """Return what happened to alerts, in order."""
        return [event.state for event in self.events]

    def _keep(self, event: Event) -> None:
        if isinstance(event, AlertEvent):
            self.events.append(event)


@contextlib.contextmanager
def inside(**values: str) -> Iterator[None]:
    """Be in the context of an operation."""
    tokens = _context.restore(values)
    try:
        yield
    finally:
        _context.undo(tokens)


class Mailbox:
    """Keeps what arrives, and answers as a test wants it to."""

    def __init__(self) -> None:
        self.received: list[tuple[Envelope, EmailMessage]] = []
        self.rcpt: dict[str, str] = {}
        self.data: list[str] = []
        self.quit = "221 Bye"

    async def handle_RCPT(  # noqa: N802 - aiosmtpd's own name
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        """Answer a recipient."""
        answer = self.rcpt.get(address, "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        """Take a mail, or refuse it."""
        answer = self.data.pop(0) if self.data else "250 OK"
        if answer == "drop":
            assert server.transport is not None
            server.transport.close()
        elif answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            parsed = email.message_from_bytes(envelope.content, policy=email.policy.default)
            self.received.append((envelope, parsed))
        return answer

    async def handle_QUIT(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802 - as above
        """Say goodbye."""
        return self.quit


class Server(Controller):
    """A server on whatever port is free, which hangs up when it stops."""

    def __init__(self, mailbox: Mailbox, **options: Any) -> None:
        super().__init__(mailbox, hostname="127.0.0.1", port=0, **options)
        self._lines: list[SMTP] = []

    def factory(self) -> SMTP:
        """Make the protocol of one connection."""
        line: SMTP = super().factory()  # type: ignore[no-untyped-call]
        self._lines.append(line)
        return line

    def stop(self, no_assert: bool = False) -> None:
        """Hang up, then stop."""
        self.loop.call_soon_threadsafe(self._hang_up)
        super().stop(no_assert)

    async def _create_server(self) -> asyncio.Server:
        server = await super()._create_server()
        assert isinstance(server, asyncio.Server)
        self.port = server.sockets[0].getsockname()[1]
        return server

    def _hang_up(self) -> None:
        for line in self._lines:
            if line.transport is not None:
                line.transport.close()


def authenticator(server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: Any) -> AuthResult:
    """Take one user with one password."""
    right = isinstance(data, LoginPassword) and (data.login, data.password) == (b"robot", PASSWORD.encode())
    return AuthResult(success=right, handled=False)


@contextlib.contextmanager
def mail_server(**options: Any) -> Iterator[Mailbox]:
    """Run a mail server that the settings name, and give its mailbox."""
    mailbox = Mailbox()
    server = Server(mailbox, **options)
    server.start()
    mail_through(server.port)
    try:
        yield mailbox
    finally:
        server.stop()


def mail_through(port: int) -> None:
    """Have alerts mailed through a server of this machine, in clear text."""
    ml_pipeline.configure(
        smtp_host="127.0.0.1",
        smtp_port=port,
        smtp_security="none",
        alert_email_from="a@example.org",
        alert_email_to="b@example.org",
    )
