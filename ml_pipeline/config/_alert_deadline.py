"""The time that one attempt to deliver may take, whatever the server does meanwhile."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Deadline"]

_SHORTEST_SECONDS = 0.001
_GRACE_SECONDS = 0.05
"""A silent server is noticed by the socket itself, whose error says more than a line that was cut."""


class Deadline:
    """A ``with`` block that cuts its connections when the time is over.

    A timeout of a socket begins anew with every byte, so that a server which sends one a second is never late. The
    system's resolver alone has times of its own. For one thread at a time.

    Args:
        seconds: How long the block may take.
        say: Told of each step that was reached.
    """

    def __init__(self, seconds: float, say: Callable[[str], None] = lambda _: None) -> None:
        self.say = say
        self._ends = time.monotonic() + seconds
        self._lines: list[int] = []
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._disarm()
            while self._lines:
                os.close(self._lines.pop())

    @property
    def is_over(self) -> bool:
        """Whether no time is left."""
        return time.monotonic() >= self._ends

    def left(self) -> float:
        """Return how many seconds are left, always a few."""
        return max(self._ends - time.monotonic(), _SHORTEST_SECONDS)

    def connect(self, host: str, port: int) -> socket.socket:
        """Open a connection that ends with the time.

        Args:
            host: Name or number.
            port: Its port.

        Returns:
            A connection to the first of the host's addresses that answers.

        Raises:
            OSError: If none does.
        """
        failed: OSError = socket.gaierror(socket.EAI_NONAME, "no address")
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for place, (family, kind, protocol, _, address) in enumerate(found):
            line = socket.socket(family, kind, protocol)
            line.settimeout(self.left() / (len(found) - place))  # one that never answers leaves time for the others
            try:
                line.connect(address)
            except OSError as unreachable:
                line.close()
                failed = unreachable
            else:
                line.settimeout(self.left())
                self._watch(line)
                self.say(f"connected to {host}, port {port}")
                return line
        raise failed

    def shorten(self, seconds: float) -> None:
        """Leave at most so much more time."""
        self._ends = min(self._ends, time.monotonic() + seconds)
        with self._lock:
            self._arm()

    def _watch(self, line: socket.socket) -> None:
        # A second handle of the same connection: whoever wraps the first one in TLS takes it away.
        with self._lock:
            self._lines.append(os.dup(line.fileno()))
            self._arm()

    def _arm(self) -> None:
        self._disarm()
        if self._lines:
            self._timer = threading.Timer(self.left() + _GRACE_SECONDS, self._cut)
            self._timer.daemon = True
            self._timer.start()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _cut(self) -> None:
        with self._lock:
            if self._timer is None:
                return
            for handle in self._lines:
                with contextlib.suppress(OSError), socket.socket(fileno=os.dup(handle)) as line:
                    line.shutdown(socket.SHUT_RDWR)
