"""How long it takes from a failure to a mail that a server has accepted, each in a process of its own.

The path through Prometheus and Alertmanager is measured where the whole stack runs, in ``tests/stack/docker``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aiosmtpd.controller import Controller

from benchmarks.harness import ROOT
from tests.config.postfix import PASSWORD, REALM, USER, running_postfix, self_signed
from tests.support import free_port

__all__ = ["deliver", "page"]

MAILS = int(os.environ.get("BENCH_MAILS", "50"))
PATIENCE_SECONDS = 120.0
GOAL_SECONDS = 2.0
GOAL_LATER_SECONDS = 60.0

_PROGRAM = """
import sys
from benchmarks.alert_delivery import deliver
deliver(sys.argv[1])
"""

Attempted = Callable[[str], None]
"""Told of each attempt to deliver while it is made: ``failed`` or ``sent``."""


@dataclass(frozen=True)
class _Way:
    """A server, and what fails.

    Attributes:
        name: What the table calls it.
        what: What fails, an argument of `deliver`.
        serving: Runs the server, and gives the settings and what is to be told of attempts.
        goal_seconds: How long it may take.
    """

    name: str
    what: str
    serving: Callable[[], contextlib.AbstractContextManager[tuple[Mapping[str, str], Attempted]]]
    goal_seconds: float = GOAL_SECONDS


def deliver(what: str) -> None:
    """Fail, wait for the mail, and print what became of each attempt and at last how many seconds it took.

    Args:
        what: ``operation`` or ``call``.
    """
    from ml_pipeline.config._events import Bus
    from ml_pipeline.config.alerting import AlertManager
    from ml_pipeline.config.operation_logger import OperationLogger

    is_there = threading.Event()

    def attempted(_channel: str, result: str, _seconds: float) -> None:
        print(result, flush=True)
        if result == "sent":
            is_there.set()

    bus = Bus()
    alerts = AlertManager(bus=bus, on_delivery=attempted)
    bus.subscribe("alerting", alerts.observe)
    operations = OperationLogger(bus)
    begin = time.perf_counter()
    if what == "call":
        alerts.alert_processing_failure("data_ingestion", "Connection timeout")
    else:
        with contextlib.suppress(TimeoutError), operations.operation("training", "fit"):
            begin = time.perf_counter()
            raise TimeoutError("Connection timeout")
    assert is_there.wait(PATIENCE_SECONDS), "the mail should be there by now"
    print(time.perf_counter() - begin)


def page(say: Callable[[str], None], mails: int = MAILS) -> str:
    """Measure every way, and lay the distributions out as a Markdown table.

    Args:
        say: Told of each way before it is measured.
        mails: How many of each; their number is in the heading.
    """
    lines = [
        f"### From a failure to a mail that the server has accepted, s ({mails} each)",
        "",
        "| | min | median | 95th percentile | max | goal |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for way in _ways():
        say(way.name)
        with way.serving() as (settings, attempted):
            took = sorted(_once(way.what, settings, attempted) for _ in range(mails))
        cells = [took[0], statistics.median(took), _percentile(took, 0.95), took[-1]]
        shown = " | ".join(f"{seconds:.2f}" for seconds in cells)
        lines.append(f"| {way.name} | {shown} | {way.goal_seconds:.0f} |")
    lines += [
        "",
        "Through Prometheus and Alertmanager (goal: 30 s): `make test-stack ARGS='-k become_mails'` prints it.",
    ]
    return "\n".join(lines) + "\n"


def _ways() -> list[_Way]:
    ways = [
        _Way("an `alert_*` call, aiosmtpd", "call", _accepting),
        _Way("a failed operation, aiosmtpd", "operation", _accepting),
        _Way("a failed operation, the first attempt answered with 421", "operation", _later, GOAL_LATER_SECONDS),
        _Way("a failed operation, the first connection refused", "operation", _refusing, GOAL_LATER_SECONDS),
    ]
    if shutil.which("postfix") and shutil.which("saslpasswd2") and not os.geteuid():
        ways.insert(2, _Way("a failed operation, Postfix with STARTTLS and login", "operation", _postfix))
    return ways


class _Mailbox:
    """Takes mails; the first attempt at each is put off, where it is told so."""

    def __init__(self, *, puts_off: bool = False) -> None:
        self._puts_off = puts_off
        self._seen = 0

    async def handle_DATA(self, *_: object) -> str:  # noqa: N802 - aiosmtpd's name
        """Take a mail, or say "later"."""
        self._seen += 1
        return "421 4.3.2 later" if self._puts_off and self._seen % 2 else "250 OK"


@contextlib.contextmanager
def _server(mailbox: _Mailbox, port: int) -> Iterator[Controller]:
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield controller
    finally:
        controller.stop()


def _settings(port: int, **others: str) -> dict[str, str]:
    given = {
        "SMTP_HOST": "127.0.0.1",
        "SMTP_PORT": str(port),
        "SMTP_SECURITY": "none",
        "ALERT_EMAIL_FROM": f"pipeline@{REALM}",
        "ALERT_EMAIL_TO": f"ops@{REALM}",
        **others,
    }
    return {f"ML_PIPELINE_{name}": value for name, value in given.items()}


@contextlib.contextmanager
def _accepting(*, puts_off: bool = False) -> Iterator[tuple[Mapping[str, str], Attempted]]:
    port = free_port()
    with _server(_Mailbox(puts_off=puts_off), port):
        yield _settings(port), lambda _: None


def _later() -> contextlib.AbstractContextManager[tuple[Mapping[str, str], Attempted]]:
    return _accepting(puts_off=True)


@contextlib.contextmanager
def _refusing() -> Iterator[tuple[Mapping[str, str], Attempted]]:
    """Listen from the first refused attempt until the mail is there."""
    port = free_port()
    listening = contextlib.ExitStack()

    def attempted(result: str) -> None:
        if result == "failed":
            listening.enter_context(_server(_Mailbox(), port))
        else:
            listening.close()

    with listening:
        yield _settings(port), attempted


@contextlib.contextmanager
def _postfix() -> Iterator[tuple[Mapping[str, str], Attempted]]:
    with tempfile.TemporaryDirectory() as folder:
        certificate = self_signed(Path(folder))
        password = Path(folder) / "password"
        password.write_text(PASSWORD)
        with running_postfix(certificate) as server:
            login = {"SMTP_USER": f"{USER}@{REALM}", "SMTP_PASSWORD_FILE": str(password), "SMTP_SECURITY": "starttls"}
            yield {**_settings(server.port, **login), "SSL_CERT_FILE": str(certificate[0])}, lambda _: None


def _once(what: str, settings: Mapping[str, str], attempted: Attempted) -> float:
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, what],
            cwd=folder,
            env={**os.environ, **settings, "PYTHONPATH": str(ROOT), "ML_PIPELINE_LOG_CONSOLE": "off"},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        said = ""
        with process:
            for line in process.stdout:
                said = line.strip()
                if said in ("failed", "sent"):
                    attempted(said)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, what)
    return float(said)


def _percentile(ordered: Sequence[float], share: float) -> float:
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]
