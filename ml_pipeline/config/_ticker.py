"""One daemon thread that calls many jobs, each at its own interval."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from ml_pipeline import _runtime

__all__ = ["TICKER", "Job", "Ticker"]

Job: TypeAlias = Callable[[], object]


class Ticker:
    """Calls each job again and again, from a thread that lives only while there is a job.

    One thread serves any number of jobs, so a thousand monitored tasks cost one thread. A job that fails is counted and
    called again; one that takes longer than its interval is called less often. Thread-safe; a forked child starts with
    no jobs, and at the end of the process nothing is called any more.

    Args:
        name: Of the thread, and of the sink that a failing job is counted under.
        clock: Seconds that only go forward.
        pid: Returns the id of the process it is called in.
    """

    def __init__(
        self, name: str, *, clock: Callable[[], float] = time.monotonic, pid: Callable[[], int] = os.getpid
    ) -> None:
        self._name = name
        self._clock = clock
        self._pid = pid
        self._ends_with_process = False
        self._begin()

    def _begin(self) -> None:
        self._owner = self._pid()
        self._changed = threading.Condition()
        self._due: dict[Job, tuple[float, float]] = {}
        self._thread: threading.Thread | None = None

    def _leave_parent(self) -> None:
        if self._owner != self._pid():  # the lock may have been held, and the thread has stayed behind
            self._begin()

    def start(self, job: Job, interval_seconds: float) -> None:
        """Call *job* every *interval_seconds*, first after one interval; started again, it has the new interval.

        Args:
            job: What to call; hashable, and the same object for `stop`.
            interval_seconds: From one call to the next, > 0; infinite: never.
        """
        self._leave_parent()
        if not self._ends_with_process:
            self._ends_with_process = True
            _runtime.on_exit(self.stop_all)
        with self._changed:
            self._due[job] = (self._clock() + interval_seconds, interval_seconds)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=f"ml-pipeline-{self._name}", daemon=True)
                self._thread.start()
            else:
                self._changed.notify()

    def stop(self, job: Job) -> None:
        """Do not call *job* again; a call that is under way goes on. Stopping what never started does nothing."""
        self._leave_parent()
        with self._changed:
            if self._due.pop(job, None):
                self._changed.notify()

    def stop_all(self) -> None:
        """Stop every job."""
        self._leave_parent()
        with self._changed:
            self._due.clear()
            self._changed.notify()

    def _run(self) -> None:
        while (job := self._next()) is not None:
            with _runtime.guard(self._name):
                job()

    def _next(self) -> Job | None:
        with self._changed:
            while self._due:
                job = min(self._due, key=lambda each: self._due[each][0])
                due, interval = self._due[job]
                now = self._clock()
                if due <= now:
                    self._due[job] = (now + interval, interval)
                    return job
                self._changed.wait(min(due - now, threading.TIMEOUT_MAX))
            self._thread = None
            return None


TICKER: Final = Ticker("monitoring_config")
