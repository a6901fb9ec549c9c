"""The other ends of the channels, on real sockets: they take messages, or fail in the way they are told to."""

from __future__ import annotations

import base64
import contextlib
import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from ml_pipeline.config._alert_channels import AlertChannel, EmailChannel
from ml_pipeline.config._alert_local import ConsoleChannel, FileChannel

SECRET = "T0Cret-horse-battery-Pfad42"
DRIP_SECONDS = 0.05
HEADERS = {
    "Subject", "From", "To", "Date", "Message-ID", "In-Reply-To", "References", "List-Id", "Auto-Submitted", "MIME-Version",
    "Content-Type",
}  # fmt: skip

Posted = tuple[dict[str, str], bytes]


class _Posts(BaseHTTPRequestHandler):
    end: HttpEnd

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        fault = self.end.fault
        if not fault:
            self.end.posted.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.end.paths.append(self.path)
            self._say(202, b"ok")
        elif fault.isdigit():
            self._say(int(fault), self.end.words or f"no: {self.path} {body.decode()}".encode())
        else:
            self._fail(fault)

    def do_GET(self) -> None:
        answer = self.end.answers.get(self.path.partition("?")[0])
        self._say(503 if answer is None else 200, json.dumps(answer).encode())

    def _say(self, status: int, words: bytes) -> None:
        self.send_response(status, f"because of {SECRET}")
        for name, value in {"Location": self.end.address, "X-Echo": self.path, **self.end.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(words)))
        self.end_headers()
        with contextlib.suppress(OSError):
            self.wfile.write(words)

    def _fail(self, how: str) -> None:
        beginnings = {
            "garbage": f"{SECRET} is no HTTP\r\n",
            "cut": "HTTP/1.",
            "headers": f"HTTP/1.1 503 no\r\n{SECRET}",
        }
        if how == "hang":
            self.end.over.wait(30)
        elif how == "body":
            self.end.posted.append(({}, b""))
            drip(self.wfile.write, b"HTTP/1.1 202 OK\r\nContent-Length: 9999\r\n\r\n", self.end.over)
        elif how == "drip":
            drip(self.wfile.write, b"HTTP/1.1 200 OK\r\nX-Long: ", self.end.over)
        else:
            self.wfile.write(beginnings.get(how, "").encode())
        self.close_connection = True

    def log_message(self, *args: Any) -> None:
        """Say nothing."""


class _Served:
    """A receiver on a port of its own.

    Attributes:
        over: Set when it is to stop, whatever it is doing.
        port: The port.
    """

    def __init__(self, server: ThreadingHTTPServer | socketserver.ThreadingTCPServer) -> None:
        self.over = threading.Event()
        server.daemon_threads = True
        self._server = server
        self.port = server.server_address[1]

    @contextlib.contextmanager
    def serving(self) -> Iterator[None]:
        """Serve while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.over.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


class HttpEnd(_Served):
    """A service that takes POSTs; every answer of its own repeats the secret. What is asked for, it has in `answers`."""

    temporary: tuple[str, ...] = ("503", "408", "429", "302", "drop", "hang", "drip", "cut", "garbage", "headers")
    permanent: tuple[str, ...] = ("400", "401", "403", "404", "410", "413")

    def __init__(self, read: Callable[[Any], str]) -> None:
        self.secret = SECRET
        self.channel: AlertChannel
        self.fault = ""
        self.headers: dict[str, str] = {}
        self.words = b""
        self.posted: list[Posted] = []
        self.paths: list[str] = []
        self.answers: dict[str, Any] = {}
        self._read = read
        super().__init__(ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Posts,), {"end": self})))
        self.address = f"http://127.0.0.1:{self.port}/services/{SECRET}?sig={SECRET}"

    def break_by(self, fault: str) -> None:
        """Answer so from now on."""
        self.fault = fault

    def mend(self) -> None:
        """Take what comes."""
        self.fault = ""

    def texts(self) -> list[str]:
        """Return all texts of each body, which must be JSON."""
        return [self._read(json.loads(body)) for _, body in self.posted]

    def keys(self) -> list[str]:
        """Return the delivery's id, wherever in the body it stands."""
        return [next(iter(delivery_ids(text))) for text in self.texts()]


def drip(write: Callable[[bytes], object], beginning: bytes, over: threading.Event) -> None:
    """Write a byte at a time, for ever or until the other side has gone."""
    with contextlib.suppress(OSError):
        for each in beginning + b"x" * 2_000:
            write(bytes((each,)))
            if over.wait(DRIP_SECONDS):
                return


def delivery_ids(text: str) -> Iterator[str]:
    """Find the ids of deliveries in a text."""
    yield from (word.strip("\"',<>") for word in text.split() if "0192f3a4-0000-7000" in word)


def all_texts(plain: Any) -> str:
    """Join every text in a JSON value."""
    if isinstance(plain, dict):
        return "\n".join(map(all_texts, plain.values()))
    return "\n".join(map(all_texts, plain)) if isinstance(plain, list) else str(plain)


class _Mails(socketserver.StreamRequestHandler):
    end: SmtpEnd

    def handle(self) -> None:
        with contextlib.suppress(OSError):
            if self.end.fault == "hang":
                self.end.over.wait(30)
            elif self.end.fault == "drip":
                drip(self.wfile.write, b"220 ", self.end.over)
            else:
                self._talk()

    def _talk(self) -> None:
        self._say("220", "greeting")
        while line := self.rfile.readline():
            verb = line.split(b" ")[0].strip().upper().decode()
            if verb == "QUIT" and self.end.fault == "drip farewell":
                drip(self.wfile.write, b"221 ", self.end.over)
            if verb in ("EHLO", "HELO") and self.end.fault.endswith("hello"):
                self._say("550", "hello")
            elif verb == "EHLO":
                self.wfile.write(b"250-here\r\n250 AUTH PLAIN XOAUTH2\r\n")
            elif verb != "DATA":
                self._say(*_PLACES.get(verb, ("250", "")))
            if verb == "QUIT" or (verb == "DATA" and not self._data()):
                return

    def _data(self) -> bool:
        fault = self.end.fault
        if fault == "drop":
            return False
        self._say("354", "go on")
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
        if fault == "drop after data":
            return False
        if fault == "endless line":
            self.wfile.write(b"250 " + b"x" * 20_000 + b"\r\n")
        if fault in ("", "drip farewell"):
            parsed = email.message_from_bytes(b"".join(lines), policy=email.policy.default)
            assert isinstance(parsed, EmailMessage)
            self.end.mails.append(parsed)
        self._say(fault if fault.isdigit() else "250", "")
        return True

    def _say(self, code: str, place: str) -> None:
        fault = self.end.fault
        if place and fault.endswith(f" {place}") and fault[:3].isdigit():
            code = fault[:3]
        login = base64.b64encode(f"\0robot\0{SECRET}".encode()).decode()
        self.wfile.write(f"{code} because of {SECRET} and {login}\r\n".encode())


_PLACES = {"AUTH": ("235", "auth"), "RCPT": ("250", "rcpt"), "MAIL": ("250", "from"), "QUIT": ("221", "")}


class SmtpEnd(_Served):
    """A mail server that speaks as much SMTP as is needed; every answer of its own repeats the password."""

    temporary: tuple[str, ...] = (
        "451",
        "450 rcpt",
        "421 greeting",
        "550 hello",
        "454 auth",
        "535 auth",
        "drop",
        "drop after data",
        "endless line",
        "hang",
        "drip",
    )
    permanent: tuple[str, ...] = ("554", "552", "550 rcpt", "553 from")

    def __init__(self, secret_file: Path, **options: Any) -> None:
        self.secret = SECRET
        secret_file.write_text(SECRET)
        self.fault = ""
        self.mails: list[EmailMessage] = []
        super().__init__(socketserver.ThreadingTCPServer(("127.0.0.1", 0), type("Handler", (_Mails,), {"end": self})))
        self.said: list[str] = []
        self.channel: AlertChannel = EmailChannel(
            "127.0.0.1",
            self.port,
            **{
                "sender": '"a b"@example.org',
                "recipients": ["o'hara+ml@example.org", '"ops, all"@example.org'],
                "security": "none",
                "user": "robot",
                "password_file": secret_file,
                "say": self.said.append,
                **options,
            },
        )

    def break_by(self, fault: str) -> None:
        """Answer so from now on."""
        self.fault = fault

    def mend(self) -> None:
        """Take what comes."""
        self.fault = ""

    def texts(self) -> list[str]:
        """Return subject and plain text of each mail, which must have no header but its own and no script."""
        for mail in self.mails:
            assert {*mail} <= HEADERS
            assert not mail.defects
            page = mail.get_body(("html",))
            assert page is not None
            assert "<script" not in page.get_content()
            assert "<img src=x" not in page.get_content()
        return [f"{mail['Subject']}\n{plain_part(mail)}" for mail in self.mails]

    def keys(self) -> list[str]:
        """Return the Message-IDs."""
        return [mail["Message-ID"] for mail in self.mails]


def plain_part(mail: EmailMessage) -> str:
    """Return the plain text of a mail."""
    body = mail.get_body(("plain",))
    assert isinstance(body, EmailMessage)
    return str(body.get_content()).replace("\r\n", "\n")


class ConsoleEnd:
    """A terminal."""

    secret = ""
    temporary: tuple[str, ...] = ("closed",)
    permanent: tuple[str, ...] = ()

    def __init__(self) -> None:
        self.channel: AlertChannel = ConsoleChannel(self._write)
        self.fault = ""
        self.written: list[str] = []

    def break_by(self, fault: str) -> None:
        """Be closed from now on."""
        self.fault = fault

    def mend(self) -> None:
        """Be open."""
        self.fault = ""

    def texts(self) -> list[str]:
        """Return what was written, which must be whole lines that steer nothing."""
        for text in self.written:
            assert all(line.isprintable() and line.startswith("ml_pipeline: [") for line in text.splitlines())
        return self.written

    def keys(self) -> list[str]:
        """Return the lines: a person sees that they are the same."""
        return self.written

    def _write(self, text: str) -> None:
        if self.fault:
            raise ValueError("I/O operation on closed file")
        self.written.append(text)


class FileEnd:
    """A file in a folder that may be in the way."""

    secret = ""
    temporary: tuple[str, ...] = ("no folder",)
    permanent: tuple[str, ...] = ()

    def __init__(self, folder: Path) -> None:
        self.path = folder / "alerts" / "delivered.jsonl"
        self.channel: AlertChannel = FileChannel(self.path)

    def break_by(self, fault: str) -> None:
        """Put a file where the folder should be."""
        self.path.parent.write_text("in the way")

    def mend(self) -> None:
        """Take it away."""
        self.path.parent.unlink()

    def texts(self) -> list[str]:
        """Return the alerts of each delivery, each of which must be a line of JSON."""
        if not self.path.exists():
            return []
        return [all_texts(json.loads(line)) for line in self.path.read_bytes().split(b"\n")[:-1]]

    def keys(self) -> list[str]:
        """Return the deliveries' ids."""
        return [next(iter(delivery_ids(text))) for text in self.texts()]
