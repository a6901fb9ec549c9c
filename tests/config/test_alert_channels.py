"""E-mail through real SMTP servers on the loopback address, well-behaved and not."""

from __future__ import annotations

import base64
import contextlib
import email
import email.policy
import html.parser
import smtplib
import socket
import socketserver
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from hypothesis import given
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _alert_mail
from ml_pipeline.config._alert_channels import AlertMessage, EmailChannel
from ml_pipeline.config._alert_records import Alert, bounded_details, bounded_text
from ml_pipeline.errors import AlertError, DeliveryError, SettingsError
from tests.config.alert_receivers import SmtpEnd, drip
from tests.config.alerting_world import PASSWORD, Mailbox, Server, authenticator
from tests.config.postfix import self_signed
from tests.support import eventually, free_port

ID = "0192f3a4-0000-7000-8000-000000000009"
SENDER = "pipeline@example.org"
RECIPIENTS = ("ops@example.org", "ml@example.org")
ALERT = Alert(
    alert_id="0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6",
    time=1_700_000_000.0,
    last_time=1_700_000_060.0,
    kind="processing_failure",
    severity="critical",
    pipeline="adni",
    operation="data_ingestion",
    operation_id="0192f3a4-5b6c-7d8e-9fa0-000000000001",
    model="m",
    error_type="TimeoutError",
    message="data_ingestion failed: TimeoutError: Connection timeout",
    count=2,
    details={"rows": 3, "host": "db<1>", "stacktrace": "Traceback:\n  <module>\nTimeoutError"},
)
HEADERS = {
    "Subject", "From", "To", "Date", "Message-ID", "In-Reply-To", "References", "List-Id", "Auto-Submitted", "MIME-Version",
    "Content-Type",
}  # fmt: skip


StartServer = Callable[..., tuple[Mailbox, int]]


@pytest.fixture
def start() -> Iterator[StartServer]:
    """Return what starts a server and tells its mailbox and port."""
    running: list[Server] = []

    def started(**options: Any) -> tuple[Mailbox, int]:
        mailbox = Mailbox()
        running.append(Server(mailbox, **options))
        running[-1].start()
        return mailbox, running[-1].port

    yield started
    for server in running:
        server.stop()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a self-signed certificate for 127.0.0.1 and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))


def server_side(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    """Make the TLS context of a server."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context


def channel(port: int, **options: Any) -> EmailChannel:
    """Make a channel to a server of this machine, in clear text unless told otherwise."""
    given = {"sender": SENDER, "recipients": RECIPIENTS, "security": "none", **options}
    return EmailChannel("127.0.0.1", port, **given)


def message(alert: Alert = ALERT, *, timeout_seconds: float = 10.0) -> AlertMessage:
    """Make what a channel is given."""
    return AlertMessage(delivery_id=ID, alerts=(alert,), timeout_seconds=timeout_seconds)


def part(mail: EmailMessage, subtype: str) -> str:
    """Return the text of one of the two parts."""
    body = mail.get_body((subtype,))
    assert isinstance(body, EmailMessage)
    return str(body.get_content()).replace("\r\n", "\n")


def test_a_mail_says_what_happened(start: StartServer) -> None:
    """Subject, sender, recipients, time, and every known fact in both parts; nothing answers it by itself."""
    mailbox, port = start()
    channel(port).send(message())
    ((envelope, mail),) = mailbox.received
    assert (envelope.mail_from, tuple(envelope.rcpt_tos)) == (SENDER, RECIPIENTS)
    assert mail["Subject"].strip() == "[CRITICAL] adni: data_ingestion failed: TimeoutError: Connection timeout"
    assert (mail["From"], mail["To"]) == (SENDER, ", ".join(RECIPIENTS))
    assert (mail["Auto-Submitted"], mail["Date"]) == ("auto-generated", "Tue, 14 Nov 2023 22:13:20 +0000")
    text, page = part(mail, "plain"), part(mail, "html")
    facts = ("data_ingestion failed", "TimeoutError", "2023-11-14T22:13:20.000000Z", "2 times", ALERT.alert_id, "rows")
    assert all(fact in text and fact in page for fact in facts)
    assert "Traceback:\n  <module>\nTimeoutError" in text
    assert "db&lt;1&gt;" in page
    assert "&lt;module&gt;" in page


def test_a_repeat_is_recognised_by_its_message_id(start: StartServer) -> None:
    """Every attempt of one delivery has the same Message-ID, in the sender's domain."""
    mailbox, port = start()
    for _ in range(2):
        channel(port).send(message())
    ids = {mail["Message-ID"] for _, mail in mailbox.received}
    assert ids == {f"<{ID}@example.org>"}


@pytest.mark.parametrize(
    "hostile",
    [
        "x\r\nBcc: evil@example.org",
        "x\n\n<script>alert(1)</script>",
        "=?utf-8?q?x=0D=0ABcc:_evil@example.org?=",
        "\x1b[31mred\x1b[0m \u202eesrever \x00",
        "€" * 5000,
        "a" * 1_000_000,
        '"quoted" <evil@example.org>, ',
    ],
)
def test_no_text_breaks_a_mail(start: StartServer, hostile: str) -> None:
    """Line breaks, encoded words, ANSI codes, HTML and a megabyte add no header and no markup."""
    mailbox, port = start()
    alert = replace(
        ALERT,
        message=bounded_text(hostile, 1000),
        operation=bounded_text(hostile),
        pipeline=bounded_text(hostile),
        details=bounded_details({hostile: hostile, "stacktrace": hostile}),
    )
    channel(port).send(message(alert))
    ((envelope, mail),) = mailbox.received
    assert tuple(envelope.rcpt_tos) == RECIPIENTS
    assert {*mail} <= HEADERS | {"X-Peer", "X-MailFrom", "X-RcptTo"}
    assert "<script>" not in part(mail, "html")
    assert "\x1b" not in part(mail, "plain")


@given(st.text(max_size=400), st.text(max_size=60), st.dictionaries(st.text(max_size=30), st.text(max_size=300)))
def test_any_text_makes_a_whole_mail(text: str, name: str, details: dict[str, str]) -> None:
    """Whatever is said: ASCII, lines within the limit of SMTP, the same headers, and HTML that closes what it opens."""
    alert = replace(
        ALERT, message=bounded_text(text, 1000), operation=bounded_text(name), details=bounded_details(details)
    )
    mail = _alert_mail.compose(message(alert), _alert_mail.Envelope(SENDER, RECIPIENTS))
    written = mail.as_bytes()
    assert written.isascii()
    assert max(len(line) for line in written.split(b"\r\n")) <= 998
    parsed = email.message_from_bytes(written, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    assert {*parsed} <= HEADERS
    assert not parsed.defects
    balance = _Balance()
    balance.feed(part(parsed, "html"))
    assert balance.open == []


class _Balance(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "img":  # it has no end
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_starttls_with_a_certificate_that_is_trusted(start: StartServer, certificate: tuple[Path, Path]) -> None:
    """The conversation is encrypted before the mail is handed over."""
    mailbox, port = start(tls_context=server_side(certificate), require_starttls=True)
    trusting = ssl.create_default_context(cafile=certificate[0])
    channel(port, security="starttls", tls_context=trusting).send(message())
    assert len(mailbox.received) == 1


def test_implicit_tls_with_a_certificate_that_is_trusted(
    start: StartServer, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system's own certificates are what is trusted by default."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    mailbox, port = start(ssl_context=server_side(certificate))
    channel(port, security="tls").send(message())
    assert len(mailbox.received) == 1


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_that_is_not_trusted_gets_nothing(
    start: StartServer, certificate: tuple[Path, Path], security: str
) -> None:
    """An unknown certificate ends the conversation; the mail may go later, when it is put right."""
    context = server_side(certificate)
    mailbox, port = start(**({"ssl_context": context} if security == "tls" else {"tls_context": context}))
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed certificate"):
        channel(port, security=security).send(message())
    assert mailbox.received == []


def test_a_server_that_cannot_encrypt_gets_nothing(start: StartServer) -> None:
    """Where encryption was asked for, there is no falling back to clear text."""
    mailbox, port = start()
    with pytest.raises(smtplib.SMTPNotSupportedError, match="STARTTLS extension not supported"):
        channel(port, security="starttls").send(message())
    assert mailbox.received == []


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")
def test_a_login_uses_the_password_in_its_file(start: StartServer, tmp_path: Path) -> None:
    """The file is read at each attempt: a password that was put right works at the next one."""
    mailbox, port = start(authenticator=authenticator, auth_required=True, auth_require_tls=False)
    secret = tmp_path / "password"
    secret.write_text("wrong-" + PASSWORD)
    sending = channel(port, user="robot", password_file=secret)
    with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
        sending.send(message())
    assert str(refused.value) == "(535, 'the mail server refused the login')"
    assert mailbox.received == []
    secret.write_text(PASSWORD + "\n")
    sending.send(message())
    assert len(mailbox.received) == 1


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "a mail login needs a password (got 'robot'); set ML_PIPELINE_SMTP_PASSWORD_FILE"),
        ("pässword", "a mail login must have a name and a password in ASCII; correct ML_PIPELINE_SMTP_USER and "),
        ("", "a mail login must have a name and a password in ASCII; correct ML_PIPELINE_SMTP_USER and "),
    ],
)
def test_a_password_that_cannot_be_used_is_named_but_not_shown(
    start: StartServer, tmp_path: Path, content: str | None, text: str
) -> None:
    """A missing, empty or unusable password is a setting to correct; the mail waits for that."""
    _, port = start()
    secret = tmp_path / "password"
    if content is not None:
        secret.write_text(content)
    with pytest.raises(SettingsError) as wrong:
        channel(port, user="robot", password_file=None if content is None else secret).send(message())
    assert str(wrong.value).startswith(text)
    assert not content or content not in str(wrong.value)


def test_a_temporary_answer_leaves_the_mail_for_later(start: StartServer) -> None:
    """After a 4xx the next attempt is a new one; nothing has arrived twice."""
    mailbox, port = start()
    mailbox.data = ["451 try later"]
    with pytest.raises(smtplib.SMTPDataError, match="451"):
        channel(port).send(message())
    mailbox.rcpt = dict.fromkeys(RECIPIENTS, "450 greylisted")
    with pytest.raises(smtplib.SMTPRecipientsRefused, match="450"):
        channel(port).send(message())
    mailbox.rcpt = {}
    channel(port).send(message())
    assert len(mailbox.received) == 1


def test_a_permanent_answer_ends_the_delivery(start: StartServer) -> None:
    """A 5xx to the mail or to every recipient is an `AlertError`, which nobody tries again."""
    mailbox, port = start()
    mailbox.data = ["554 no such thing"]
    with pytest.raises(AlertError) as refused:
        channel(port).send(message())
    assert str(refused.value) == (
        "a mail server must take the alert (got '554 no such thing'); see its log for the reason"
    )
    mailbox.rcpt = dict.fromkeys(RECIPIENTS, "550 unknown")
    with pytest.raises(AlertError, match=r"^a mail server must take a recipient \(got .*550 unknown.*correct ML_PIPE"):
        channel(port).send(message())


def test_one_recipient_refused_keeps_nobody_else_waiting(
    start: StartServer, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those the server takes get the mail; the other is named on stderr and counted."""
    mailbox, port = start()
    mailbox.rcpt = {RECIPIENTS[1]: "550 unknown"}
    channel(port).send(message())
    assert [envelope.rcpt_tos for envelope, _ in mailbox.received] == [[RECIPIENTS[0]]]
    said = capsys.readouterr().err
    assert "a mail server must take every recipient (got {'ml@example.org': '550 unknown'})" in said
    assert _runtime.tally.telemetry_errors["alerting", "AlertError"] == 1


def test_an_unkind_farewell_changes_nothing(start: StartServer) -> None:
    """The mail is accepted: that the server then says 421 makes no second one."""
    mailbox, port = start()
    mailbox.quit = "421 going down"
    channel(port).send(message())
    assert len(mailbox.received) == 1


def test_a_server_that_drops_the_line_may_get_the_mail_again(start: StartServer) -> None:
    """Without an answer to the mail nobody knows: it is tried again, under the same Message-ID."""
    mailbox, port = start()
    mailbox.data = ["drop"]
    with pytest.raises(smtplib.SMTPServerDisconnected):
        channel(port).send(message())
    channel(port).send(message())
    assert len(mailbox.received) == 1


def test_a_server_that_is_not_there() -> None:
    """A refused connection is an error of the moment."""
    with pytest.raises(ConnectionRefusedError):
        channel(free_port()).send(message())


def test_a_server_that_hangs_costs_its_time_and_no_more() -> None:
    """Neither silence at the start nor silence in the middle keeps a delivery longer than it may take."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        begun = time.monotonic()
        with pytest.raises(
            DeliveryError, match=r"^a mail server must take a mail in time \(got '0.3 s'\); it is tried again$"
        ):
            channel(port).send(message(timeout_seconds=0.3))
        threading.Thread(target=_greet, args=(listening,), daemon=True).start()
        with pytest.raises(
            DeliveryError, match=r"^a mail server must take a mail in time \(got '0.3 s'\); it is tried again$"
        ):
            channel(port).send(message(timeout_seconds=0.3))
        assert time.monotonic() - begun < 5


def _greet(listening: socket.socket) -> None:
    # The connection that timed out before this one may still be waiting in line.
    held = []
    for _ in range(2):
        connection, _ = listening.accept()
        held.append(connection)
        with connection.makefile("rwb", 0) as _unused:
            connection.sendall(b"220 hello\r\n")
    threading.Event().wait(2)
    for connection in held:
        connection.close()


@pytest.mark.parametrize(
    "address", ["", "ops", "@example.org", "ops@", "a b@example.org", "o@x.org\r\nBcc: e@x.org", "a@b@c.org", "<a@b.c>"]
)
def test_an_address_that_cannot_be_one_is_refused(address: str) -> None:
    """A bad sender or recipient is an error when the channel is made, naming it."""
    with pytest.raises(AlertError) as refused:
        channel(25, recipients=("ok@example.org", address))
    assert str(refused.value).startswith("a mail address must be like ops@example.org (got ")
    with pytest.raises(AlertError):
        channel(25, sender=address)


def test_a_mail_needs_a_recipient() -> None:
    """A channel to nobody is an error when it is made."""
    with pytest.raises(AlertError) as refused:
        channel(25, recipients=())
    assert str(refused.value) == "an alert mail needs a recipient; set ML_PIPELINE_ALERT_EMAIL_TO"


def test_the_settings_describe_a_channel(start: StartServer) -> None:
    """Host, port, security, sender and recipients come from the settings."""
    mailbox, port = start()
    settings = ml_pipeline.configure(
        smtp_host="127.0.0.1",
        smtp_port=port,
        smtp_security="none",
        alert_email_from=SENDER,
        alert_email_to=", ".join(RECIPIENTS),
    )
    EmailChannel.from_settings(settings).send(message())
    assert [envelope.mail_from for envelope, _ in mailbox.received] == [SENDER]


def test_a_domain_outside_ascii_is_written_in_ascii() -> None:
    """The Message-ID is ASCII whatever the sender's domain."""
    envelope = _alert_mail.Envelope("ops@münchen.example", RECIPIENTS)
    assert _alert_mail.compose(message(), envelope)["Message-ID"] == f"<{ID}@xn--mnchen-3ya.example>"


# a server that draws everything out


@pytest.fixture
def smtp_end(tmp_path: Path) -> Iterator[SmtpEnd]:
    """Return a server that does as it is told."""
    end = SmtpEnd(tmp_path / "password")
    with end.serving():
        yield end


def test_a_farewell_that_drips_costs_a_second_and_no_mail(smtp_end: SmtpEnd) -> None:
    """The mail has been taken by then: nothing is sent twice."""
    smtp_end.break_by("drip farewell")
    begun = time.monotonic()
    smtp_end.channel.send(message())
    assert time.monotonic() - begun < 6
    assert len(smtp_end.mails) == 1


@pytest.mark.parametrize("security", ["tls", "starttls"])
@pytest.mark.parametrize("how", [b"\x16\x03\x03\x00\x7a", b""])
def test_a_handshake_that_never_ends_is_cut_off(security: str, how: bytes) -> None:
    """A byte of TLS at a time, or none at all, takes no longer than the mail may."""
    over = threading.Event()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError):
                if security == "starttls":
                    self.wfile.write(b"220 hello\r\n")
                    self.rfile.readline()
                    self.wfile.write(b"250-here\r\n250 STARTTLS\r\n")
                    self.rfile.readline()
                    self.wfile.write(b"220 go on\r\n")
                if how:
                    drip(self.wfile.write, how, over)
                over.wait(20)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        begun = time.monotonic()
        with pytest.raises(DeliveryError, match="must take a mail in time"):
            channel(server.server_address[1], security=security).send(message(timeout_seconds=0.5))
        assert time.monotonic() - begun < 6
        over.set()
        server.shutdown()


def open_handles() -> int:
    """Count the open files of this process, where the system tells."""
    folder = Path("/proc/self/fd")
    return sum(1 for _ in folder.iterdir()) if folder.exists() else 0


def test_the_threads_of_deadlines_end(smtp_end: SmtpEnd) -> None:
    """Neither a mail that was taken nor one that was cut off leaves a thread or a connection behind."""
    threads, handles = threading.active_count(), open_handles()
    for fault in ("", "drip", "hang", "drop"):
        smtp_end.break_by(fault)
        with contextlib.suppress(DeliveryError, smtplib.SMTPException):
            smtp_end.channel.send(message(timeout_seconds=0.3))
    smtp_end.over.set()
    eventually(lambda: threading.active_count() <= threads)
    eventually(lambda: open_handles() <= handles)


def test_a_token_is_a_login_by_xoauth2(tmp_path: Path) -> None:
    """As Gmail and Exchange Online want it; the user and the token arrive whole."""
    given: list[bytes] = []

    class Mailing(Mailbox):
        async def auth_XOAUTH2(  # noqa: N802 - aiosmtpd's own name
            self, server: SMTP, arguments: list[bytes]
        ) -> AuthResult:
            given.append(base64.b64decode(arguments[1]))
            return AuthResult(success=True, auth_data=b"robot")

    token = tmp_path / "token"
    token.write_text("ya29.token\n")
    mailbox = Mailing()
    server = Server(mailbox, auth_require_tls=False)
    server.start()
    try:
        channel(server.port, user="robot@example.org", token_file=token).send(message())
    finally:
        server.stop()
    assert given == [b"user=robot@example.org\x01auth=Bearer ya29.token\x01\x01"]
    assert len(mailbox.received) == 1
