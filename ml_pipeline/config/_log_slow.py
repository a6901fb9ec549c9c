"""Log files that are slow to take a line, as on a network folder whose server is away: nobody waits for them twice.

A write that the kernel holds back cannot be called back, so whoever is in it waits. After it, or for whoever waited for
it in vain, the file counts as slow: lines to it are kept in memory for a thread that writes them as soon as the kernel
takes them. What does not fit in there is dropped and counted. Once a write is quick the file is written to as before.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config._encoding import rfc3339
from ml_pipeline.errors import MLPipelineError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["SlowWrite", "Stall", "run_within"]

_MOST_BYTES: Final = 65_536
_NEVER: Final = float("inf")
_SINK: Final = "logging_config"


class SlowWrite(MLPipelineError, OSError):  # noqa: N818 - the reason under which what is dropped is counted
    """A record was dropped because its file is slow."""


class Stall:
    """What becomes of the lines of one file while it is slow. Thread-safe.

    Args:
        path: The file.
        seconds: How long a write to it may take; 0: as long as it does.
        write: Writes lines, however long that takes, and calls `judge`.

    Attributes:
        is_on: Whether the file is slow at present.
        seconds: As given; infinite for 0.
        patience: The same as locks take it: -1 for without end.
    """

    __slots__ = (
        "_dropped",
        "_is_quick",
        "_lock",
        "_path",
        "_since",
        "_thread",
        "_waiting",
        "_write",
        "is_on",
        "patience",
        "seconds",
    )

    def __init__(self, path: Path, seconds: float, write: Callable[[bytes], object]) -> None:
        self.is_on = False
        self.seconds = seconds or _NEVER
        self.patience = seconds or -1.0
        self._path = path
        self._write = write
        self._lock = threading.RLock()
        self._waiting = bytearray()
        self._thread: threading.Thread | None = None
        self._since = 0.0
        self._dropped = 0
        self._is_quick = False

    def judge(self, seconds: float) -> None:
        """Hear how long a write took."""
        self._is_quick = seconds <= self.seconds
        if not self._is_quick:
            self.begin()

    def begin(self) -> None:
        """The file is slow from now on; said once until it is not."""
        with self._lock:
            if self.is_on:
                return
            self.is_on, self._since, self._dropped = True, time.time(), 0
        _runtime.telemetry_error(_SINK, self._error())

    def takes(self, line: bytes) -> bool:
        """Keep a line, or several, for the thread that waits for the file.

        Args:
            line: Its bytes, with the line end.

        Returns:
            False, and nothing kept, if the file is not slow.

        Raises:
            SlowWrite: If there is no room for it.
        """
        with self._lock:
            if not self.is_on:
                return False
            if self._waiting and len(self._waiting) + len(line) > _MOST_BYTES:
                self.drop(line)
            if self._thread is None:
                self._start(line)
            self._waiting += line
        return True

    def drop(self, lines: bytes) -> None:
        """Keep some lines not even here.

        Raises:
            SlowWrite: Always; it tells whoever counts what is dropped.
        """
        with self._lock:
            self._dropped += lines.count(b"\n")
        raise self._error()

    def close(self) -> None:
        """Give the thread the time of one write; what waits then is dropped."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(self.seconds)
        with self._lock:
            lines = self._taken()
            self._dropped += lines.count(b"\n")
        if lines:
            _lose(self._error(), lines)

    def _start(self, line: bytes) -> None:
        thread = threading.Thread(target=self._run, name="ml-pipeline-slow-log", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # too many threads, or the interpreter is ending
            self.drop(line)
        self._thread = thread

    def _run(self) -> None:
        while lines := self._next():
            _, failed = _runtime.attempt(self._write, lines)
            if failed is not None:
                _lose(failed, lines)

    def _next(self) -> bytes:
        """Take what waits; where nothing does, the thread ends, and with it the stall if the last write was quick."""
        with self._lock:
            lines = self._taken()
            if lines:
                return lines
            self._thread, self.is_on = None, not self._is_quick
            passed, dropped = time.time() - self._since, self._dropped
        if not self.is_on:
            _say_over(self._path, passed, dropped)
        return b""

    def _taken(self) -> bytes:
        lines, self._waiting = bytes(self._waiting), bytearray()
        return lines

    def _error(self) -> SlowWrite:
        return SlowWrite(
            f"a log file must take a record within ML_PIPELINE_LOG_SLOW_SECONDS ({self.seconds:g})",
            f"{self._path}, not since {rfc3339(self._since)}",
            f"look at its disk; until it is quick, {_MOST_BYTES // 1024} KiB wait in memory and the others are dropped",
        )


def run_within(lock: Any, patience: float, action: Callable[..., object], *arguments: object) -> bool:
    """Run something while holding a lock, if that is to be had in time.

    Args:
        lock: The lock.
        patience: How many seconds to wait for it; -1: without end.
        action: What to run.
        *arguments: What to give it.

    Returns:
        Whether it ran.

    Raises:
        Exception: What it raises.
    """
    held: list[bool] = []
    try:
        held.extend(map(lock.acquire, (True,), (patience,)))  # taken and told in one step of the interpreter
        if held[0]:
            action(*arguments)
        return held[0]
    finally:
        if True in held:
            lock.release()


def _lose(error: Exception, lines: bytes) -> None:
    _runtime.tally.log_records_dropped[type(error).__name__] += lines.count(b"\n")
    _runtime.telemetry_error(_SINK, error)


def _say_over(path: Path, seconds: float, dropped: int) -> None:
    logging.getLogger("ml_pipeline.monitoring.monitoring").warning(
        "%s is quick again after %.1f s; %d records to it were dropped", path, seconds, dropped
    )
