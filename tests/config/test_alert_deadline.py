"""The time of an attempt, and the connections that end with it."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from ml_pipeline.config._alert_deadline import Deadline
from tests.support import eventually, free_port


def blocked(stack: ExitStack) -> int:
    """Return the port of a server whose queue is full: a connection to it is neither taken nor refused."""
    listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(20):
        waiting = stack.enter_context(socket.socket())
        waiting.setblocking(False)
        waiting.connect_ex(listening.getsockname())
    return int(listening.getsockname()[1])


def resolve_to(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    """Have every name stand for these ports of this machine, in this order."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)


def test_an_address_that_never_answers_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as that of a network that leads nowhere: each address has its share of what is left."""
    with ExitStack() as stack:
        there = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        resolve_to(monkeypatch, free_port(), blocked(stack), there.getsockname()[1])
        deadline, begun = stack.enter_context(Deadline(3.0)), time.monotonic()
        line = stack.enter_context(deadline.connect("mail.example.org", 25))
        assert line.getpeername() == there.getsockname()
        assert time.monotonic() - begun < 3.0
        assert not deadline.is_over


def test_no_address_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one's reason is told, within the time; a name without any address has one too."""
    with ExitStack() as stack:
        resolve_to(monkeypatch, free_port(), blocked(stack))
        deadline = stack.enter_context(Deadline(0.3))
        with pytest.raises(TimeoutError):
            deadline.connect("mail.example.org", 25)
        resolve_to(monkeypatch)
        with pytest.raises(socket.gaierror, match="no address"):
            deadline.connect("mail.example.org", 25)


def test_a_connection_is_cut_when_the_time_is_over() -> None:
    """Whoever is reading from it is woken, although a byte came a moment ago; what was said on the way is told."""
    said: list[str] = []
    with ExitStack() as stack:
        there = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        port = there.getsockname()[1]
        deadline = stack.enter_context(Deadline(0.3, said.append))
        line = stack.enter_context(deadline.connect("127.0.0.1", port))
        line.settimeout(None)
        stack.enter_context(there.accept()[0])
        assert line.recv(1) == b""
        assert deadline.is_over
        assert deadline.left() > 0, "a timeout of 0 would mean something else"
    assert said == [f"connected to 127.0.0.1, port {port}"]


def test_time_can_be_taken_away_but_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shorter one holds."""
    with ExitStack() as stack:
        there = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        deadline = stack.enter_context(Deadline(60.0))
        line: Any = stack.enter_context(deadline.connect("127.0.0.1", there.getsockname()[1]))
        deadline.shorten(0.1)
        deadline.shorten(50.0)
        assert deadline.left() <= 0.1
        line.settimeout(30)
        assert line.recv(1) == b""


def test_a_deadline_that_is_kept_leaves_the_connection_alone() -> None:
    """After the block nothing is cut any more, and no thread is left."""
    threads = threading.active_count()
    with socket.create_server(("127.0.0.1", 0)) as there:
        with Deadline(0.2) as deadline:
            line = deadline.connect("127.0.0.1", there.getsockname()[1])
        with line, there.accept()[0] as other:
            eventually(lambda: deadline.is_over and threading.active_count() <= threads)
            other.sendall(b"x")
            assert line.recv(1) == b"x"
