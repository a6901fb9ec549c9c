"""Logging from every place a job may log from: no record is lost or doubled, and each has the ids of its own place."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from joblib import Parallel, delayed

from ml_pipeline.config._context import user_id
from ml_pipeline.config.logging_config import audit_logger, get_logger, main_logger
from ml_pipeline.config.operation_logger import operation_logger

LOGS = Path("ml_pipeline/logs")
WORKERS, RECORDS = 4, 50


def _lines(name: str = "ml_pipeline.log") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (LOGS / name).read_bytes().splitlines()]


def _work(worker: int) -> None:
    """What a worker does: records, an error, an audited action."""
    for number in range(RECORDS):
        get_logger("training.model_training", "worker").info("%d:%d", worker, number)
    main_logger.error("error of %d", worker)
    audit_logger.info("worked")


def _assert_all_there() -> None:
    told = [line["message"] for line in _lines("training/model_training.log")]
    assert Counter(told) == Counter(f"{worker}:{number}" for worker in range(WORKERS) for number in range(RECORDS))
    for worker in range(WORKERS):
        assert [text for text in told if text.startswith(f"{worker}:")] == [f"{worker}:{n}" for n in range(RECORDS)]
    errors = Counter(f"error of {worker}" for worker in range(WORKERS))
    assert Counter(line["message"] for line in _lines("errors.log")) == errors
    assert [line["seq"] for line in _lines("audit.log")] == list(range(1, WORKERS + 1))


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_processes_of_each_start_method(method: str) -> None:
    """Workers that are forked, spawned or forked by a server write to the files of their parent."""
    context = multiprocessing.get_context(method)
    workers = [context.Process(target=_work, args=(worker,)) for worker in range(WORKERS)]
    for process in workers:
        process.start()
    for process in workers:
        process.join()
    assert [process.exitcode for process in workers] == [0] * WORKERS
    _assert_all_there()


def test_workers_of_joblib() -> None:
    """The reusable workers of loky, which scikit-learn's ``n_jobs`` starts, do too."""
    from joblib.externals.loky import get_reusable_executor

    try:
        Parallel(n_jobs=2, backend="loky")(delayed(_work)(worker) for worker in range(WORKERS))
    finally:
        get_reusable_executor().shutdown(wait=True)
    _assert_all_there()


def test_a_thousand_tasks_keep_their_own_ids() -> None:
    """Tasks that take turns in one thread: each line has the user and the operation of its own task."""

    async def task(number: int) -> None:
        user_id.set(f"user-{number}")
        async with operation_logger.operation("custom", f"task-{number}"):
            await asyncio.sleep(0)
            main_logger.info("in %d", number)
            await asyncio.sleep(0)

    async def all_of_them() -> None:
        await asyncio.gather(*(task(number) for number in range(1_000)))

    asyncio.run(all_of_them())
    inside = [line for line in _lines() if line["message"].startswith("in ")]
    assert len(inside) == 1_000
    for line in inside:
        number = line["message"].removeprefix("in ")
        assert (line["user_id"], line["operation"]) == (f"user-{number}", f"task-{number}")
    assert len({line["operation_id"] for line in inside}) == 1_000


def test_threads_that_are_born_and_die() -> None:
    """Two hundred threads, one after another and each in a context of its own, leave no id behind for the next."""
    for number in range(200):

        def one(number: int = number) -> None:
            user_id.set(f"user-{number}")
            main_logger.info("%d", number)

        thread = threading.Thread(target=one, name=f"thread-{number}")
        thread.start()
        thread.join()
    main_logger.info("outside")
    *lines, outside = _lines()
    assert [(line["message"], line["user_id"], line["thread"]) for line in lines] == [
        (str(number), f"user-{number}", f"thread-{number}") for number in range(200)
    ]
    assert "user_id" not in outside


def test_a_handler_of_ones_own_may_log() -> None:
    """A foreign handler that logs in turn through our logger does so once a record, without end or deadlock."""
    import logging

    class Echo(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if not record.getMessage().startswith("echo"):
                main_logger.info("echo of %s", record.getMessage())

    echo = Echo()
    main_logger.addHandler(echo)
    try:
        main_logger.info("one")
    finally:
        main_logger.removeHandler(echo)
    main_logger.info("two")
    assert Counter(line["message"] for line in _lines()) == {"one": 1, "echo of one": 1, "two": 1}


AT_EXIT = """
import atexit, threading
from ml_pipeline.config.logging_config import audit_logger, main_logger

class Dying:
    def __del__(self, log=main_logger):
        log.info("died")

kept = Dying()  # dies when the module is taken apart

def last():
    main_logger.info("at exit")
    audit_logger.info("left")

atexit.register(last)  # before our own, which therefore runs earlier
main_logger.info("main")
threading.Thread(target=lambda: main_logger.info("thread")).start()
"""
DAEMON = """
import threading
from ml_pipeline.config.logging_config import main_logger
started = threading.Event()

def daemon():
    while True:
        main_logger.info("daemon")
        started.set()

threading.Thread(target=daemon, daemon=True).start()
started.wait()
"""


def test_logging_at_the_exit_of_the_interpreter() -> None:
    """Exit handlers, threads and objects that die with their module may log until the very end."""
    done = subprocess.run([sys.executable, "-c", AT_EXIT], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    told = Counter(line["message"] for line in _lines())
    assert told == {"main": 1, "thread": 1, "at exit": 1, "died": 1}
    assert [line["message"] for line in _lines("audit.log")] == ["left"]


def test_a_daemon_thread_that_logs_to_the_last_moment() -> None:
    """The interpreter ends under it, without a deadlock and without half a line."""
    done = subprocess.run([sys.executable, "-c", DAEMON], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert {line["message"] for line in _lines()} == {"daemon"}


FORKED_IN_AN_IMPORT = """
import importlib.abc, os, sys, threading
from ml_pipeline.config.logging_config import audit_logger, main_logger

reached = threading.Event()

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            reached.set()
            threading.Event().wait(0.3)  # the fork comes within it

sys.meta_path.insert(0, Slow())
log = audit_logger if sys.argv[2] == "audit" else main_logger
thread = threading.Thread(target=log.info, args=("thread",))
thread.start()
reached.wait()
child = os.fork()
if not child:
    import signal
    signal.alarm(20)
    log.info("child")
    os._exit(0)
status = os.waitpid(child, 0)[1]
thread.join()
sys.exit(status)
"""


@pytest.mark.parametrize(
    ("module", "channel"),
    [
        ("pydantic", "ml_pipeline"),
        ("concurrent.futures", "ml_pipeline"),  # whose import needs the lock of `logging`
        ("ml_pipeline.config.alerting", "audit"),
    ],
)
def test_a_fork_while_another_thread_writes_the_first_record(module: str, channel: str) -> None:
    """That thread is in the middle of an import; the child can log all the same."""
    done = subprocess.run(
        [sys.executable, "-c", FORKED_IN_AN_IMPORT, module, channel],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert Counter(line["message"] for line in _lines(f"{channel}.log")) == {"thread": 1, "child": 1}
