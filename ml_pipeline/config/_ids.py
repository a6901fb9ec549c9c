"""Identifiers: time-ordered ones for what happens, content-derived ones for what exists."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import TYPE_CHECKING

import orjson

from ml_pipeline._platform import after_fork_in_child

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Uuid7Factory", "content_id", "new_id"]

_COUNTER_BITS = 12
_RANDOM_BYTES = 8
_DRAWN_BYTES = 512 * _RANDOM_BYTES


class Uuid7Factory:
    """Makes UUIDs of version 7: 48 bits of milliseconds, 12 of a counter, 62 of randomness.

    Thread-safe, and safe in a signal handler. Identifiers of one process ascend even within a millisecond and when the
    clock steps back; after a fork, the random part keeps parent and child apart.

    Args:
        clock_ns: Nanoseconds since the Unix epoch.
        random: Returns that many random bytes.

    Source: RFC 9562, section 5.7, with the counter of section 6.2, method 1.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns, random: Callable[[int], bytes] = os.urandom) -> None:
        self._clock_ns = clock_ns
        self._random = random
        self._last = 0
        self.renew()

    def __call__(self) -> str:
        """Return the next identifier, as 36 characters of text."""
        now = (self._clock_ns() // 1_000_000) << _COUNTER_BITS
        with self._lock:
            self._last = stamp = max(now, self._last + 1)
            drawn = self._draw()
        milliseconds, counter = stamp >> _COUNTER_BITS, stamp & ((1 << _COUNTER_BITS) - 1)
        random = int.from_bytes(drawn, "big") & ((1 << 62) - 1)
        text = f"{(milliseconds & ((1 << 48) - 1)) << 80 | 7 << 76 | counter << 64 | 2 << 62 | random:032x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def renew(self) -> None:
        """Take a new lock, which a thread that stayed with the parent may hold, and draw bytes of one's own."""
        self._lock = threading.RLock()
        self._drawn, self._used = b"", 0

    def _draw(self) -> bytes:
        # Many at a time: the system call lets another thread run, and of eight that make events each waits for all.
        if self._used >= len(self._drawn):
            self._drawn, self._used = self._random(_DRAWN_BYTES), 0
        begin, self._used = self._used, self._used + _RANDOM_BYTES
        return self._drawn[begin : begin + _RANDOM_BYTES]


new_id = Uuid7Factory()
"""The identifiers of operations, runs and events."""

after_fork_in_child(new_id.renew)


def content_id(kind: str, identity: Mapping[str, object]) -> str:
    """Derive an identifier from what a thing is, so that every process gives the same thing the same name.

    Args:
        kind: What sort of thing, such as ``dataset``.
        identity: The facts that make it this one; strings, numbers, booleans or None.

    Returns:
        ``<kind>:`` and the first 24 hexadecimal digits of the SHA-256 over the canonical JSON of *identity* (keys
        sorted, no white space, UTF-8).

    Raises:
        TypeError: For any other value, an integer past 64 bits, or text that is not Unicode.
    """
    canonical = orjson.dumps(dict(identity), option=orjson.OPT_SORT_KEYS)
    return f"{kind}:{hashlib.sha256(canonical).hexdigest()[:24]}"
