"""Group commit: of all threads that wait for the disk, one writes for all of them.

A thread puts its records into a queue. If nobody is writing it takes all that is queued and writes it at once; if
somebody is, it waits until its records are written or it is its turn. A thread that is interrupted while it writes, by
a signal handler or a ``__del__`` that also writes, must not wait for itself: it takes those records along.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["GroupCommit"]

_LONGEST_WAIT_SECONDS: Final = 1.0
"""Before it looks for itself: a thread that was interrupted while it woke others has not woken all of them."""


class _Waiting:
    """Records of one call, and the bell that wakes it."""

    __slots__ = ("_bell", "batch", "bodies", "is_abandoned")

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self.bodies = bodies
        self.batch: _Batch | None = None
        self.is_abandoned = False
        self._bell = threading.Lock()
        self._bell.acquire()

    @property
    def is_done(self) -> bool:
        return self.batch is not None and self.batch.is_done

    def wait(self) -> None:
        self._bell.acquire(timeout=_LONGEST_WAIT_SECONDS)

    def wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # it was woken before and has not yet noticed
            self._bell.release()


class _Batch:
    """Records that are written at once, and what became of them."""

    __slots__ = ("error", "is_done")

    def __init__(self) -> None:
        self.error: OSError | None = None
        self.is_done = False


class GroupCommit:
    """Gathers what several threads write.

    Args:
        commit: Writes records, all or none; raises ``OSError`` if they are not on disk. It calls `settle` once they
            are, or what interrupts it after that has them written again.
    """

    def __init__(self, commit: Callable[[list[bytes]], None]) -> None:
        self._commit = commit
        self._queue: deque[_Waiting] = deque()
        self._leading = threading.RLock()
        self._is_busy = False
        self._batch = _Batch()

    @property
    def is_settled(self) -> bool:
        """Whether the records of the commit under way are on disk."""
        return self._batch.is_done

    def settle(self) -> None:
        """Called by a commit: its records are on disk, whatever else happens to it."""
        self._batch.is_done = True

    def put(self, bodies: Sequence[bytes]) -> None:
        """Write records, and wait until they are on disk; inside an interrupted write, leave them to it.

        Args:
            bodies: The records, which stay together; without any, what is waited for is that some could be written.

        Raises:
            OSError: If they are not on disk.
        """
        mine = _Waiting(bodies)
        self._queue.append(mine)
        try:
            while not mine.is_done:
                if not self._leading.acquire(blocking=False):
                    mine.wait()
                    continue
                try:
                    if self._is_busy:  # the frame below is in the middle of a write
                        return
                    self._lead()
                finally:
                    self._leading.release()
                self._pass_on()
        finally:
            if not mine.is_done:  # nobody waits for it any more; after Ctrl-C, this thread may have been the next
                mine.is_abandoned = True
                self._pass_on()
        if mine.batch is not None and mine.batch.error is not None:
            raise mine.batch.error

    def alone(self, action: Callable[[], None]) -> None:
        """Run something while nobody writes; nothing where this thread is in the middle of a write."""
        with self._leading:
            if not self._is_busy:
                action()
        self._pass_on()

    def _lead(self) -> None:
        """Write what is queued, and what nobody else would write."""
        self._write_all()
        while self._queue and self._queue[0].is_abandoned:
            self._write_all()

    def _write_all(self) -> None:
        members: list[_Waiting] = []
        try:
            self._is_busy = True
            # They stay queued until they are done: if this thread is interrupted, by Ctrl-C for instance, the next one
            # writes them.
            members = [each for each in list(self._queue) if not each.is_done]
            self._batch = batch = _Batch()
            for each in members:
                each.batch = batch
            error = self._attempted([body for each in members for body in each.bodies])
            if not batch.is_done:  # else an error came after the records were on disk
                batch.error = error
                batch.is_done = True
            while self._queue and self._queue[0].is_done:  # while busy: a handler in between would take some too
                self._queue.popleft()
        finally:
            self._is_busy = False
            for each in members:
                if each.is_done:
                    each.wake()

    def _attempted(self, bodies: list[bytes]) -> OSError | None:
        try:
            self._commit(bodies)
        except OSError as failed:
            return failed
        return None

    def _pass_on(self) -> None:
        """Have one of those who came meanwhile write."""
        for each in list(self._queue):
            if not (each.is_abandoned or each.is_done):
                each.wake()
                return
