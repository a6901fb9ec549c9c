from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._worker import Worker
from tests.processes import in_fork, run_python
from tests.support import eventually


class Clock:
    """Stands still until it is set."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """Return the seconds."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def worker(clock: Clock) -> Iterator[Worker]:
    """A worker by that clock, closed at the end."""
    worker = Worker("test", clock)
    yield worker
    worker.close()
    assert threads() == 0


def threads() -> int:
    """How many threads of the tests' workers there are."""
    return sum(thread.name == "ml-pipeline-test" for thread in threading.enumerate())


def nothing() -> None:
    """Do nothing."""


def test_there_is_no_thread_before_the_first_job(worker: Worker) -> None:
    """A worker that is never used costs nothing; one that is used has one thread, a daemon."""
    worker.flush()
    assert threads() == 0
    worker.submit("a", nothing, delay_seconds=9)
    worker.submit("b", nothing, delay_seconds=9)
    assert threads() == 1
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "ml-pipeline-test")


def test_a_job_runs_once_in_the_background(worker: Worker) -> None:
    """Off the caller's thread."""
    ran: list[int] = []
    worker.submit("a", lambda: ran.append(threading.get_ident()))
    eventually(lambda: ran)
    worker.flush()
    assert len(ran) == 1
    assert ran != [threading.get_ident()]


def test_jobs_of_one_name_that_wait_are_one(worker: Worker, clock: Clock) -> None:
    """The newest of them runs, at the earliest of their times, so that a storm does not put it off for ever."""
    ran: list[str] = []
    done = threading.Event()
    worker.submit("a", lambda: ran.append("first"), delay_seconds=5)
    for _ in range(1_000):
        worker.submit("a", lambda: ran.append("newest"), delay_seconds=60)
    worker.submit("b", done.set, delay_seconds=6)
    clock.now += 4
    worker.submit("wake", nothing)
    worker_is_idle(worker)
    assert ran == []
    clock.now += 2
    worker.submit("wake", nothing)
    done.wait(30)
    assert ran == ["newest"]


def worker_is_idle(worker: Worker) -> None:
    """Wait until what is due has run."""
    eventually(lambda: "wake" not in worker._due and worker._runner is None)


def test_an_earlier_time_brings_a_job_forward(worker: Worker) -> None:
    """What was put off for an hour is done when somebody wants it now."""
    done = threading.Event()
    worker.submit("a", nothing, delay_seconds=3_600)
    worker.submit("a", done.set)
    assert done.wait(30)


def test_an_endless_delay_waits_for_the_flush(worker: Worker) -> None:
    """No wait is too long for the system's clock."""
    ran: list[int] = []
    worker.submit("a", lambda: ran.append(1), delay_seconds=math.inf)
    worker.submit("b", lambda: ran.append(2), delay_seconds=1e300)
    worker.submit("wake", nothing)
    worker_is_idle(worker)
    assert ran == []
    worker.flush()
    assert ran == [1, 2]
    assert threads() == 1


def test_a_flush_runs_what_waits_on_the_callers_thread(worker: Worker) -> None:
    """Whatever its delay, in the order it was submitted."""
    ran: list[tuple[str, int]] = []
    for name in "cab":
        worker.submit(name, lambda name=name: ran.append((name, threading.get_ident())), delay_seconds=60)  # type: ignore[misc]
    worker.flush()
    assert ran == [(name, threading.get_ident()) for name in "cab"]
    worker.flush()
    assert len(ran) == 3


def test_a_flush_waits_for_the_job_that_is_running_and_for_what_it_submits(worker: Worker) -> None:
    """Afterwards nothing is left to do."""
    is_running, may_end, ran = threading.Event(), threading.Event(), []

    def slow() -> None:
        is_running.set()
        may_end.wait(30)
        worker.submit("last", lambda: ran.append("last"), delay_seconds=60)
        ran.append("slow")

    worker.submit("slow", slow)
    is_running.wait(30)
    flushing = threading.Thread(target=worker.flush)
    flushing.start()
    assert ran == []
    may_end.set()
    flushing.join(30)
    assert ran == ["slow", "last"]


def test_one_job_runs_at_a_time(worker: Worker) -> None:
    """Whether the background or a flush runs it."""
    running: list[int] = []
    most: list[int] = []

    def job() -> None:
        running.append(1)
        most.append(len(running))
        running.pop()

    def flush() -> None:
        for number in range(200):
            worker.submit(f"job {number % 7}", job)
            worker.flush()

    flushing = [threading.Thread(target=flush) for _ in range(4)]
    for thread in flushing:
        thread.start()
    for thread in flushing:
        thread.join()
    worker.flush()
    assert set(most) == {1}


def test_no_job_is_lost_between_the_background_and_a_flush(clock: Clock) -> None:
    """After a flush, whatever was submitted before it has run to its end."""
    worker, ran = Worker("test", clock), []
    for number in range(500):
        worker.submit("job", lambda number=number: ran.append(number))  # type: ignore[misc]
        worker.flush()
        assert ran[-1] == number
    worker.close()
    assert ran == list(range(500))


def test_a_job_may_submit_flush_and_close(worker: Worker) -> None:
    """Its own worker: nothing waits for itself."""
    ran: list[str] = []
    done = threading.Event()

    def job() -> None:
        worker.submit("inner", lambda: ran.append("inner"), delay_seconds=60)
        worker.flush()
        ran.append("outer")
        worker.close()
        done.set()

    worker.submit("outer", job)
    assert done.wait(30)
    assert ran == ["inner", "outer"]
    eventually(lambda: threads() == 0)


def test_a_job_that_submits_itself_does_not_keep_a_flush(worker: Worker) -> None:
    """Such as a delivery that is tried again later: it is run a few times, and goes on waiting."""
    ran: list[int] = []

    def again() -> None:
        ran.append(1)
        if len(ran) < 1_000:
            worker.submit("again", again, delay_seconds=60)

    worker.submit("again", again, delay_seconds=60)
    worker.flush()
    assert 1 <= len(ran) <= 3
    worker.close()
    worker.submit("again", again)
    assert len(ran) <= 9


def test_closing_runs_what_waits_and_ends_the_thread(worker: Worker) -> None:
    """And may be done twice."""
    ran: list[int] = []
    worker.submit("a", lambda: ran.append(1), delay_seconds=60)
    worker.close()
    assert (ran, threads()) == ([1], 0)
    worker.close()


def test_after_closing_a_job_runs_at_once(worker: Worker) -> None:
    """Nothing that is submitted is lost, and no thread is started for it."""
    ran: list[int] = []
    worker.close()
    worker.submit("a", lambda: ran.append(threading.get_ident()), delay_seconds=60)
    assert ran == [threading.get_ident()]
    assert threads() == 0


def fail() -> None:
    """Fail."""
    raise OSError("disk full")


def test_a_failing_job_is_counted_and_the_next_one_runs(worker: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    """Under the worker's name; in the background and in a flush."""
    ml_pipeline.configure(strict=False)
    done = threading.Event()
    worker.submit("a", fail)
    eventually(lambda: _runtime.tally.telemetry_errors == {("test", "OSError"): 1})
    worker.submit("b", done.set)
    assert done.wait(30)
    worker.submit("c", fail, delay_seconds=60)
    worker.flush()
    assert _runtime.tally.telemetry_errors == {("test", "OSError"): 2}
    assert capsys.readouterr().err.count("test: OSError: disk full") == 1


def test_strict_telemetry_raises_where_the_job_runs(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a flush to its caller, in the background to the thread's hook; and the jobs after it still run."""
    raised: list[BaseException | None] = []
    monkeypatch.setattr(threading, "excepthook", lambda unhandled: raised.append(unhandled.exc_value))
    done = threading.Event()
    worker.submit("a", fail)
    eventually(lambda: raised)
    worker.submit("b", done.set)
    assert done.wait(30)
    worker.submit("c", fail, delay_seconds=60)
    with pytest.raises(OSError, match="disk full"):
        worker.flush()
    assert [str(each) for each in raised] == ["disk full"]


def test_what_waits_behind_a_strict_failure_runs_too(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nobody submits another job."""
    monkeypatch.setattr(threading, "excepthook", lambda unhandled: None)
    is_running, may_fail, done = threading.Event(), threading.Event(), threading.Event()

    def fail_slowly() -> None:
        is_running.set()
        may_fail.wait(30)
        fail()

    worker.submit("a", fail_slowly)
    is_running.wait(30)
    worker.submit("b", done.set)
    may_fail.set()
    assert done.wait(30)


def test_where_no_thread_can_be_started_the_flush_does_the_work(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the interpreter, or past a limit of the system; the caller is not told off."""
    ml_pipeline.configure(strict=False)

    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    ran: list[int] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        worker.submit("a", lambda: ran.append(1))
        assert _runtime.tally.telemetry_errors == {("test", "RuntimeError"): 1}
        worker.flush()
    assert ran == [1]
    worker.submit("b", lambda: ran.append(2))
    eventually(lambda: ran == [1, 2])


def test_a_forked_child_starts_with_no_jobs_and_no_thread(worker: Worker) -> None:
    """What the parent still has to do, the parent does; the child's own jobs run in the child."""
    worker.submit("parents", nothing, delay_seconds=60)

    def in_child() -> list[object]:
        ran: list[str] = []
        worker.flush()
        before = threads()
        worker.submit("childs", lambda: ran.append("child"), delay_seconds=60)
        during = threads()
        worker.close()
        return [ran, before, during, threads()]

    assert in_fork(in_child) == [["child"], 0, 1, 0]
    assert list(worker._due) == ["parents"]


@pytest.mark.parametrize("call", ["submit", "flush", "close"])
def test_a_fork_in_the_middle_of_a_job_hangs_nobody(worker: Worker, call: str) -> None:
    """Its thread stays with the parent, and whatever it held."""
    is_running, may_end = threading.Event(), threading.Event()

    def slow() -> None:
        is_running.set()
        may_end.wait(30)

    calls: dict[str, Callable[[], None]] = {
        "submit": lambda: worker.submit("a", nothing),
        "flush": worker.flush,
        "close": worker.close,
    }
    worker.submit("slow", slow)
    is_running.wait(30)
    try:
        assert in_fork(lambda: calls[call]() is None) is True
    finally:
        may_end.set()


def test_what_waits_at_the_end_of_the_process_is_done() -> None:
    """Where the worker is a resource of the process, before its files are closed."""
    code = (
        "from ml_pipeline import _runtime\nfrom ml_pipeline.config._worker import Worker\n"
        "file = _runtime.Lazy(lambda settings: 'file', lambda file: print('closed'))\n"
        "worker = _runtime.Lazy(lambda settings: Worker('test'), Worker.close, 1)\n"
        "worker.get().submit('write', lambda: print('written to', file.get()), delay_seconds=3600)\n"
    )
    done = run_python(code)
    assert (done.stdout, done.stderr) == ("written to file\nclosed\n", "")
