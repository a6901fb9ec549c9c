"""Lines that wait in memory and go to their files many at a time: ``ML_PIPELINE_LOG_MODE=buffered``.

They are written when the time is over, when 64 KiB wait, at an ERROR, before a fork and at the end of the process. What
waits when a process is killed is lost: that is the price. To be killed is ``kill -9``, ``os._exit`` and the machine's
power, and also SIGTERM where nobody handles it, as ``docker stop`` and Kubernetes send it: a job that is ended so turns
it into an exit, as with ``signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))``.

In the workers of `multiprocessing` and joblib, which their parent may end so at any time, and in the exit handlers that
run after our own, nothing waits: there the mode is as ``write-through``.

Each round of writing has a thread of its own, so that a file that is slow, see `_log_slow`, holds up no other.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from ml_pipeline import _platform, _runtime
from ml_pipeline.config._log_handle import LineFile
from ml_pipeline.config._log_slow import run_within

if TYPE_CHECKING:
    from collections.abc import Callable

    from ml_pipeline.config._log_files import AppendFile, AppendFiles

__all__ = ["BufferedFile", "BufferedFiles", "UrgentFile", "may_wait"]

_FULL_BYTES: Final = 65_536
_MOST_BYTES: Final = 16 * _FULL_BYTES
"""Of what waits for a write that is slow; more is dropped."""


def may_wait() -> bool:
    """Say whether what waits in this process will be written: not in a worker, nor past the end of the main thread."""
    return threading.main_thread().is_alive() and not _platform.is_worker()


class BufferedFiles:
    """The buffers before the files of a folder, by relative path, and the thread that empties them.

    Args:
        files: The files.
        seconds: How long a line waits at most.
        lost: Told of what a file raised, and of how many lines it cost.
    """

    def __init__(self, files: AppendFiles, seconds: float, lost: Callable[[Exception, int], None]) -> None:
        self._files = files
        self._seconds = seconds
        self._lost = lost
        self._patience = files.slow_seconds or None
        self._buffers: dict[str, BufferedFile] = {}
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __getitem__(self, relative: str) -> BufferedFile:
        known = self._buffers.get(relative)
        if known is not None:
            return known
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ml-pipeline-log-buffer", daemon=True)
            self._thread.start()
        return self._buffers.setdefault(relative, BufferedFile(self._files[relative], self._lost))

    def urgent(self, relative: str) -> UrgentFile:
        """Return the same file for lines that do not wait, and before which no other line does."""
        return UrgentFile(self[relative], self.flush)

    def flush(self) -> None:
        """Write what waits."""
        for buffer in list(self._buffers.values()):
            buffer.flush()

    def close(self) -> None:
        """Write what waits, and close the files."""
        self._over.set()
        for buffer in list(self._buffers.values()):
            buffer.wait_no_more()
        self._files.close()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            if any(buffer.waits for buffer in list(self._buffers.values())):
                self._flush_beside()

    def _flush_beside(self) -> None:
        """Write what waits, in a thread that is left behind if it takes too long."""

        def flush() -> None:
            _runtime.attempt(self.flush)  # what is lost has been counted and said

        thread = threading.Thread(target=flush, name="ml-pipeline-log-flush", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # too many threads
            flush()
        else:
            thread.join(self._patience)


class BufferedFile(LineFile):
    """Lines that wait for one file. Thread-safe.

    A line is put at the end in one step of the interpreter, and what was written is taken from the front in another, so
    that only who writes needs a lock.

    Args:
        file: Where they go.
        lost: See `BufferedFiles`.
    """

    __slots__ = ("_file", "_is_writing", "_lock", "_lost", "_most", "_put", "_waiting")

    _put: Callable[[bytes], None]

    def __init__(self, file: AppendFile, lost: Callable[[Exception, int], None]) -> None:
        super().__init__()
        self._file = file
        self._lost = lost
        self._waiting = bytearray()
        self._put = self._waiting.extend
        self._most = _FULL_BYTES
        self._lock = threading.RLock()
        self._is_writing = False

    @property
    def waits(self) -> bool:
        """Whether a line does."""
        return bool(self._waiting)

    def quick(self, line: bytes) -> bool:
        """Keep a line, and write what waits if that is much; see `AppendFile.write` for what it raises."""
        put = self._put  # as a method of this object it would be looked up anew at each call
        put(line)
        if len(self._waiting) >= self._most:
            self.flush()
        return True

    def write(self, line: bytes) -> None:
        """Do the same."""
        self.quick(line)

    def wait_no_more(self) -> None:
        """Write what waits, and each later line at once: another thread may still have this file in hand."""
        self._most = 0
        self.flush()

    def flush(self) -> None:
        """Write what waits; whoever comes meanwhile waits until it is written, but not for a file that is slow."""
        stall, failures = self._file.stall, list[tuple[Exception, int]]()
        if not run_within(self._lock, 0.0 if stall.is_on else stall.patience, self._write_waiting, failures):
            stall.begin()
            if len(self._waiting) >= _MOST_BYTES:
                self._put = self._refuse
        for failed, lines in failures:
            self._lost(failed, lines)

    def _write_waiting(self, failures: list[tuple[Exception, int]]) -> None:
        if self._is_writing:  # a signal handler, or a ``__del__``, inside the write below
            return
        self._is_writing = True
        try:
            while lines := bytes(self._waiting):
                failed = self._written(lines)
                if failed is not None:
                    failures.append((failed, lines.count(b"\n")))
                if self._most:  # else nobody comes for what came meanwhile
                    break
        finally:
            self._is_writing = False

    def _refuse(self, line: bytes) -> None:
        """Stand in for keeping a line while too much waits."""
        if self._file.stall.is_on and len(self._waiting) >= _MOST_BYTES:
            self._file.stall.drop(line)
        self._put = self._waiting.extend
        self._put(line)

    def _written(self, lines: bytes) -> Exception | None:
        """Write what is at the front, and take it from there; return what the file raised."""
        size, taken, is_over = len(lines), self._file.taken, False
        taken.clear()
        try:
            failed = _runtime.attempt(self._file.write, lines)[1]
            is_over = True
        finally:
            # A signal handler may raise at any call, also right after the kernel has taken the lines; kept here, they
            # would be written twice. So there is no call between the question and the answer.
            if taken or is_over:
                del self._waiting[:size]
        return failed


class UrgentFile(LineFile):
    """A file whose lines do not wait.

    Args:
        file: The file.
        flush: Writes what waits, of every file: what led to an error is wanted with it.
    """

    __slots__ = ("_file", "_flush")

    def __init__(self, file: BufferedFile, flush: Callable[[], None]) -> None:
        super().__init__()
        self._file = file
        self._flush = flush

    def quick(self, line: bytes) -> bool:
        """Write a line, after all that wait."""
        self._file.quick(line)
        self._flush()
        return True

    def write(self, line: bytes) -> None:
        """Do the same."""
        self.quick(line)
