from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._ticker import Ticker

DEADLINE_SECONDS = 10.0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, "the deadline has passed"
        threading.Event().wait(0.005)


def threads_of(name: str) -> int:
    return sum(thread.name == f"ml-pipeline-{name}" for thread in threading.enumerate())


class Job:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        self.calls += 1


def test_one_thread_calls_every_job_and_ends_with_the_last() -> None:
    """Many jobs cost one thread, and without jobs there is none."""
    ticker, jobs = Ticker("many"), [Job() for _ in range(20)]
    assert threads_of("many") == 0
    for job in jobs:
        ticker.start(job, 0.01)
    assert threads_of("many") == 1
    wait_until(lambda: all(job.calls >= 2 for job in jobs))
    for job in jobs:
        ticker.stop(job)
    wait_until(lambda: threads_of("many") == 0)


def test_a_stopped_job_is_not_called_again() -> None:
    """The others go on."""
    ticker, stopped, going_on = Ticker("stopped"), Job(), Job()
    ticker.start(stopped, 0.01)
    ticker.start(going_on, 0.01)
    wait_until(lambda: stopped.calls >= 1)
    ticker.stop(stopped)
    ticker.stop(stopped)
    wait_until(lambda: going_on.calls > 3)
    calls, so_far = stopped.calls, going_on.calls
    wait_until(lambda: going_on.calls > so_far + 3)
    assert stopped.calls <= calls + 1
    ticker.stop_all()


def test_a_job_started_again_has_the_new_interval() -> None:
    """A job that was never due is called soon after it is given an interval."""
    ticker, job = Ticker("again"), Job()
    ticker.start(job, math.inf)
    ticker.start(job, 0.01)
    wait_until(lambda: job.calls >= 1)
    ticker.stop_all()


def test_the_interval_is_kept_between_calls() -> None:
    """By the clock given, a job that is not due is not called."""
    now = [0.0]
    ticker, early, late = Ticker("interval", clock=lambda: now[0]), Job(), Job()
    ticker.start(late, 100.0)
    ticker.start(early, 0.0)
    wait_until(lambda: early.calls > 20)
    assert late.calls == 0
    now[0] = 100.0
    wait_until(lambda: late.calls == 1)
    ticker.stop_all()


def test_a_failing_job_is_counted_and_called_again(capsys: pytest.CaptureFixture[str]) -> None:
    """One bad sample does not end the sampling."""
    ticker, calls = Ticker("failing"), Job()

    def job() -> None:
        calls()
        raise OSError("gone")

    with ml_pipeline.override(strict=False):
        ticker.start(job, 0.01)
        wait_until(lambda: calls.calls >= 3)
        ticker.stop(job)
        wait_until(lambda: threads_of("failing") == 0)
    assert _runtime.tally.telemetry_errors["failing", "OSError"] >= 2
    assert capsys.readouterr().err.count("failing: OSError: gone") == 1


def test_nothing_is_called_after_the_end_of_the_process_begins() -> None:
    """At exit every job is stopped before files are closed."""
    ticker, job = Ticker("exit"), Job()
    ticker.start(job, 0.01)
    _runtime.shutdown()
    wait_until(lambda: threads_of("exit") == 0)


def test_a_forked_child_starts_without_jobs_and_locks() -> None:
    """In another process the parent's thread does not exist, and its lock may be held for ever."""
    pid = [1]
    ticker, parents, childs = Ticker("forked", pid=lambda: pid[0]), Job(), Job()
    ticker.start(parents, math.inf)
    parents_lock = ticker._changed
    with parents_lock:
        pid[0] = 2
        ticker.start(childs, 0.01)
        wait_until(lambda: childs.calls >= 1)
        assert parents not in ticker._due
        ticker.stop_all()
    wait_until(lambda: threads_of("forked") == 1)
    with parents_lock:
        parents_lock.notify_all()
