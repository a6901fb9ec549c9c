"""Work off the caller's thread: one background thread, few and named jobs, each run at most so often."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from ml_pipeline import _runtime

__all__ = ["Job", "Worker"]

Job: TypeAlias = Callable[[], None]

_MOST_ROUNDS: Final = 3
"""How often `Worker.flush` looks for jobs that the jobs it ran have submitted."""


class Worker:
    """Runs named jobs in the background, one at a time; a job submitted again while it waits is still one job.

    So the queue is as long as there are names, and a storm of submissions costs a storm of dictionary look-ups.
    Thread-safe, and a job may itself submit, flush or close. The thread starts with the first job and is a daemon:
    `close` runs what is left on the caller's thread. A forked child starts with no jobs and no thread.

    Args:
        name: Of the thread, and of the sink that a failing job is counted under.
        clock: Seconds that only go forward.
        pid: Returns the id of the process it is called in.
    """

    def __init__(
        self, name: str, clock: Callable[[], float] = time.monotonic, *, pid: Callable[[], int] = os.getpid
    ) -> None:
        self._name = name
        self._clock = clock
        self._pid = pid
        self._begin()

    def submit(self, key: str, job: Job, *, delay_seconds: float = 0.0) -> None:
        """Have *job* run once, after the delay; if a job of that name is waiting, the earlier of the two times holds.

        After `close` it runs at once, on the caller's thread.

        Args:
            key: Name of the job.
            job: What to run.
            delay_seconds: How long to wait for more submissions of the same name.
        """
        self._leave_parent()
        due = self._clock() + delay_seconds
        with self._changed:
            waiting = self._due.get(key)
            self._due[key] = (due if waiting is None else min(due, waiting[0]), job)
            runs_here = self._closed and self._runner != threading.get_ident()
            if self._thread is None and not self._closed:
                self._start()
            elif waiting is None or due < waiting[0]:
                self._changed.notify_all()
        if runs_here:
            self.flush()

    def flush(self) -> None:
        """Run everything that waits now, whatever its delay, on the caller's thread, after the job that is running.

        What those jobs submit is run too, but a job that submits itself again is not run for ever.
        """
        self._leave_parent()
        for _ in range(_MOST_ROUNDS):
            waiting = self._waiting()
            for key in waiting:
                self._run_here(key)
            if not waiting:
                return

    def close(self) -> None:
        """Flush, and end the thread."""
        self._leave_parent()
        with self._changed:
            self._closed = True
            thread = self._thread
            self._changed.notify_all()
        self.flush()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[str, tuple[float, Job]] = {}
        self._thread: threading.Thread | None = None
        self._runner: int | None = None  # the thread that runs a job now
        self._closed = False
        self._owner = self._pid()

    def _leave_parent(self) -> None:
        if self._owner != self._pid():  # the lock may have been held, and the thread has stayed behind
            self._begin()

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name=f"ml-pipeline-{self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as refused:  # too many threads, or the interpreter is ending: `flush` and `close` will do
            _runtime.telemetry_error(self._name, refused)
        else:
            self._thread = thread

    def _run(self) -> None:
        try:
            while (job := self._next()) is not None:
                self._do(job, None)
        finally:  # under strict telemetry a failing job ends this thread, but not the ones after it
            with self._changed:
                self._thread = None
                if self._due and not self._closed:
                    self._start()

    def _next(self) -> Job | None:
        """Wait for a job that is due, and for the one that is running elsewhere; None when the worker is closed."""
        with self._changed:
            while not self._closed:
                key = min(self._due, key=lambda name: self._due[name][0], default=None)
                if key is None or self._runner is not None:
                    self._changed.wait()
                    continue
                wait = self._due[key][0] - self._clock()
                if wait <= 0:
                    self._runner = threading.get_ident()
                    return self._due.pop(key)[1]
                self._changed.wait(min(wait, threading.TIMEOUT_MAX))
            return None

    def _waiting(self) -> list[str]:
        """Name what waits, once no other thread is running a job, which might submit more."""
        with self._changed:
            while self._runner not in (None, threading.get_ident()):
                self._changed.wait()
            return list(self._due)

    def _run_here(self, key: str) -> None:
        with self._changed:
            while self._runner not in (None, threading.get_ident()):
                self._changed.wait()
            if key not in self._due:
                return
            _, job = self._due.pop(key)
            around, self._runner = self._runner, threading.get_ident()  # a job may flush: it goes on afterwards
        self._do(job, around)

    def _do(self, job: Job, around: int | None) -> None:
        try:
            with _runtime.guard(self._name):
                job()
        finally:
            with self._changed:
                self._runner = around
                self._changed.notify_all()
