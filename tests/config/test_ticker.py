from __future__ import annotations

import math
import os
import subprocess
import sys
import threading

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._ticker import Ticker
from tests.support import eventually


def threads_of(name: str) -> int:
    return sum(thread.name == f"ml-pipeline-{name}" for thread in threading.enumerate())


class Job:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> None:
        """Count one."""
        self.calls += 1


def test_one_thread_calls_every_job_and_ends_with_the_last() -> None:
    """Many jobs cost one thread, and without jobs there is none."""
    ticker, jobs = Ticker("many"), [Job() for _ in range(20)]
    assert threads_of("many") == 0
    for job in jobs:
        ticker.start(job, 0.01)
    assert threads_of("many") == 1
    eventually(lambda: all(job.calls >= 2 for job in jobs))
    for job in jobs:
        ticker.stop(job)
    eventually(lambda: threads_of("many") == 0)


def test_a_stopped_job_is_not_called_again() -> None:
    """The others go on."""
    ticker, stopped, going_on = Ticker("stopped"), Job(), Job()
    ticker.start(stopped, 0.01)
    ticker.start(going_on, 0.01)
    eventually(lambda: stopped.calls >= 1)
    ticker.stop(stopped)
    ticker.stop(stopped)
    eventually(lambda: going_on.calls > 3)
    calls, so_far = stopped.calls, going_on.calls
    eventually(lambda: going_on.calls > so_far + 3)
    assert stopped.calls <= calls + 1
    ticker.stop_all()


def test_a_job_started_again_has_the_new_interval() -> None:
    """A job that was never due is called soon after it is given an interval."""
    ticker, job = Ticker("again"), Job()
    ticker.start(job, math.inf)
    ticker.start(job, 0.01)
    eventually(lambda: job.calls >= 1)
    ticker.stop_all()


def test_the_interval_is_kept_between_calls() -> None:
    """By the clock given, a job that is not due is not called."""
    now = [0.0]
    ticker, early, late = Ticker("interval", clock=lambda: now[0]), Job(), Job()
    ticker.start(late, 100.0)
    ticker.start(early, 0.0)
    eventually(lambda: early.calls > 20)
    assert late.calls == 0
    now[0] = 100.0
    eventually(lambda: late.calls == 1)
    ticker.stop_all()


def test_a_failing_job_is_counted_and_called_again(capsys: pytest.CaptureFixture[str]) -> None:
    """One bad sample does not end the sampling."""
    ticker, calls = Ticker("failing"), Job()

    def job() -> None:
        calls()
        raise OSError("gone")

    with ml_pipeline.override(strict=False):
        ticker.start(job, 0.01)
        eventually(lambda: calls.calls >= 3)
        ticker.stop(job)
        eventually(lambda: threads_of("failing") == 0)
    assert _runtime.tally.telemetry_errors["failing", "OSError"] >= 2
    assert capsys.readouterr().err.count("failing: OSError: gone") == 1


def test_nothing_is_called_after_the_end_of_the_process_begins() -> None:
    """At exit every job is stopped before files are closed."""
    ticker, job = Ticker("exit"), Job()
    ticker.start(job, 0.01)
    _runtime.shutdown()
    eventually(lambda: threads_of("exit") == 0)


def test_in_another_process_there_is_nothing_to_stop() -> None:
    """A child that stops its parent's job stops nothing, and can start its own."""
    pid = [1]
    ticker, job = Ticker("child", pid=lambda: pid[0]), Job()
    pid[0] = 2
    ticker.stop(Job())
    ticker.start(job, 0.01)
    eventually(lambda: job.calls >= 1)
    ticker.stop_all()
    eventually(lambda: threads_of("child") == 0)


FORK = """
import os, threading
from ml_pipeline.config._ticker import Ticker

ticker, called, held = Ticker("forked"), threading.Event(), threading.Event()

def hold():
    with ticker._changed:
        held.set()
        threading.Event().wait()

ticker.start(print, 1000.0)
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    ticker.start(called.set, 0.01)
    os._exit(0 if called.wait(10) and print not in ticker._due else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_starts_without_jobs_and_locks() -> None:
    """A fork while another thread holds the lock leaves the child able to start a job of its own."""
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORK], timeout=30, capture_output=True, text=True, check=False
    )
    assert (child.returncode, child.stderr) == (0, "")
