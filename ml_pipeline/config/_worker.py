"""Work off the caller's thread: one background thread, few and named jobs, each run at most so often."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from ml_pipeline import _runtime

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Worker"]


class Worker:
    """Runs named jobs in the background; a job submitted again while it waits is still one job.

    So the queue is as long as there are names, and a storm of submissions costs a storm of dictionary look-ups.
    Thread-safe. The thread starts with the first job and is a daemon: `close` runs what is left on the caller's thread.

    Args:
        name: Of the thread, and of the sink that a failing job is counted under.
        clock: Seconds that only go forward.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._clock = clock
        self._changed = threading.Condition()
        self._running = threading.Lock()
        self._due: dict[str, tuple[float, Callable[[], None]]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    def submit(self, key: str, job: Callable[[], None], *, delay_seconds: float = 0.0) -> None:
        """Have *job* run once, after the delay; if a job of that name is waiting, the earlier of the two times holds.

        Args:
            key: Name of the job.
            job: What to run.
            delay_seconds: How long to wait for more submissions of the same name.
        """
        due = self._clock() + delay_seconds
        with self._changed:
            waiting = self._due.get(key)
            self._due[key] = (due if waiting is None else min(due, waiting[0]), job)
            if self._thread is None and not self._closed:
                self._thread = threading.Thread(target=self._run, name=f"ml-pipeline-{self._name}", daemon=True)
                self._thread.start()
            elif waiting is None or due < waiting[0]:
                self._changed.notify()

    def flush(self) -> None:
        """Run everything that waits now, whatever its delay, on the caller's thread, after the job that is running."""
        while True:
            with self._changed:
                if not self._due:
                    break
                key = next(iter(self._due))
                _, job = self._due.pop(key)
            self._do(job)
        with self._running:
            return

    def close(self) -> None:
        """Flush, and end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self.flush()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            self._do(job)

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            while not self._closed:
                if not self._due:
                    self._changed.wait()
                    continue
                key = min(self._due, key=lambda name: self._due[name][0])
                wait = self._due[key][0] - self._clock()
                if wait <= 0:
                    return self._due.pop(key)[1]
                self._changed.wait(wait)
            return None

    def _do(self, job: Callable[[], None]) -> None:
        with self._running, _runtime.guard(self._name):
            job()
