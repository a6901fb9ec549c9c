"""Buffered mode: lines wait in memory, in order, until one of six things happens."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _log_buffer
from ml_pipeline.config._log_buffer import BufferedFile
from ml_pipeline.config._log_files import AppendFile
from ml_pipeline.config.logging_config import get_logger, log_operation, main_logger
from tests.support import eventually

LOGS = Path("ml_pipeline/logs")
FOREVER = 3_600


def _messages(name: str = "ml_pipeline.log") -> list[str]:
    path = LOGS / name
    return [json.loads(line)["message"] for line in path.read_bytes().splitlines()] if path.exists() else []


def _run(
    program: str, seconds: float = FOREVER, *, traced: bool = True, **options: Any
) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if traced or not name.startswith("COVERAGE_")}
    environment |= {"ML_PIPELINE_LOG_MODE": "buffered", "ML_PIPELINE_LOG_FLUSH_SECONDS": str(seconds)}
    environment["ML_PIPELINE_LOG_CONSOLE"] = "off"
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False, **options
    )


def test_lines_wait_until_their_time_is_over() -> None:
    """They are not in the file at first, and are without anybody asking for it."""
    ml_pipeline.configure(log_mode="buffered", log_flush_seconds=0.2)
    main_logger.info("one")
    get_logger("training.model_training", "t").info("two")
    assert eventually(_messages) == ["one"]
    assert eventually(lambda: _messages("training/model_training.log")) == ["two"]


def test_lines_are_written_where_no_more_threads_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that waits for the time then writes them itself."""
    start = threading.Thread.start

    def start_all_but_one(thread: threading.Thread) -> None:
        if thread.name == "ml-pipeline-log-flush":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_all_but_one)
    ml_pipeline.configure(log_mode="buffered", log_flush_seconds=0.02)
    main_logger.info("one")
    assert eventually(_messages) == ["one"]


def test_much_is_written_at_once() -> None:
    """Past 64 KiB the caller writes what waits."""
    ml_pipeline.configure(log_mode="buffered", log_flush_seconds=FOREVER)
    main_logger.info("first")
    assert not _messages()
    for _ in range(20):
        main_logger.info("x" * 4_000)
    assert 10 <= len(_messages()) <= 21
    assert _messages()[0] == "first"


def test_an_error_waits_for_nothing() -> None:
    """It is in both its files when the call returns, and what led to it is in its own."""
    ml_pipeline.configure(log_mode="buffered", log_flush_seconds=FOREVER)
    get_logger("training.model_training", "t").info("what led to it")
    main_logger.info("and this")
    main_logger.error("broken")
    assert _messages() == ["and this", "broken"]
    assert _messages("errors.log") == ["broken"]
    assert _messages("training/model_training.log") == ["what led to it"]


def test_a_change_of_settings_writes_what_waits() -> None:
    """To where it belongs: the old folder."""
    ml_pipeline.configure(log_mode="buffered", log_flush_seconds=FOREVER)
    main_logger.info("before")
    ml_pipeline.configure(log_dir="elsewhere")
    assert _messages() == ["before"]


def test_the_end_of_a_process_writes_what_waits() -> None:
    """Whether it ends well or by an exception."""
    program = 'from ml_pipeline.config.logging_config import main_logger\nmain_logger.info("last")\n'
    assert _run(program).returncode == 0
    assert _run(program + "raise SystemExit(3)").returncode == 3
    assert _messages() == ["last"] * 2


def test_a_fork_doubles_nothing() -> None:
    """What waits is written before it; the child has a buffer of its own."""
    done = _run("""
import os, multiprocessing
from ml_pipeline.config.logging_config import main_logger
from ml_pipeline._runtime import shutdown
main_logger.info("before")
child = os.fork()
if not child:
    main_logger.info("child"); shutdown(); os._exit(0)
os.waitpid(child, 0)
main_logger.info("after")
worker = multiprocessing.get_context("fork").Process(target=main_logger.info, args=("worker",))
worker.start(); worker.join()
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert _messages() == ["before", "child", "after", "worker"]


def test_kill_9_loses_what_waits_and_nothing_else() -> None:
    """The price of the mode, as its documentation says."""
    done = _run("""
import os, signal
from ml_pipeline.config.logging_config import main_logger
main_logger.info("one"); main_logger.error("two"); main_logger.info("three")
os.kill(os.getpid(), signal.SIGKILL)
""")
    assert done.returncode == -signal.SIGKILL
    assert _messages() == ["one", "two"]


def test_threads_lose_tear_and_reorder_nothing() -> None:
    """Eight threads of 2,000 records each, while the clock and the size both empty the buffer."""
    ml_pipeline.configure(log_mode="buffered", log_flush_seconds=0.001)

    def write(writer: int) -> None:
        for number in range(2_000):
            main_logger.info("%d:%d", writer, number, extra=log_operation(rows=number))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    _runtime.shutdown()
    written = [tuple(map(int, message.split(":"))) for message in _messages()]
    assert len(written) == 16_000
    for writer in range(8):
        assert [number for each, number in written if each == writer] == list(range(2_000))


def test_a_disk_that_fails_is_said_and_every_lost_line_counted() -> None:
    """The job goes on; nothing is kept in memory for ever."""
    ml_pipeline.configure(strict=False, log_mode="buffered", log_flush_seconds=FOREVER)
    LOGS.mkdir(parents=True)
    (LOGS / "ml_pipeline.log").symlink_to("/dev/full")
    for _ in range(3):
        main_logger.info("lost")
    _runtime.shutdown()
    assert _runtime.tally.log_records_dropped == {"OSError": 3}
    assert _runtime.tally.telemetry_errors == {("logging_config", "OSError"): 1}


def test_who_still_holds_a_closed_buffer_loses_nothing(tmp_path: Path) -> None:
    """A line that another thread puts into it afterwards is written at once."""
    buffer = BufferedFile(AppendFile(tmp_path / "a.log"), lambda *_: None)
    buffer.write(b"one\n")
    assert not (tmp_path / "a.log").exists()
    buffer.wait_no_more()
    buffer.quick(b"two\n")
    assert (tmp_path / "a.log").read_bytes() == b"one\ntwo\n"


def test_a_write_inside_a_write_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal handler that logs while its thread writes the buffer doubles no line."""
    monkeypatch.setattr(_log_buffer, "_FULL_BYTES", 1)

    class Interrupted(AppendFile):
        def write(self, line: bytes) -> None:
            if b"one" in line:
                buffer.quick(b"signal\n")
            super().write(line)

    buffer = BufferedFile(Interrupted(tmp_path / "a.log"), lambda *_: None)
    buffer.quick(b"one\n")
    buffer.quick(b"two\n")
    assert (tmp_path / "a.log").read_bytes() == b"one\nsignal\ntwo\n"


class _Ended(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize("is_taken", [True, False])
def test_a_signal_handler_that_raises_doubles_and_loses_nothing(is_taken: bool, tmp_path: Path) -> None:
    """Whether it raises before the kernel takes the lines, or after."""

    class Interrupted(AppendFile):
        def write(self, line: bytes) -> None:
            if line != b"one\n" or is_taken:
                super().write(line)
            if line == b"one\n":
                raise _Ended

    buffer = BufferedFile(Interrupted(tmp_path / "a.log"), lambda *_: None)
    buffer.write(b"zero\n")
    buffer.flush()
    buffer.write(b"one\n")
    with pytest.raises(_Ended):
        buffer.flush()
    buffer.write(b"two\n")
    buffer.flush()
    assert (tmp_path / "a.log").read_bytes() == b"zero\none\ntwo\n"


def test_signals_at_any_moment_double_and_lose_nothing() -> None:
    """Hundreds of exceptions of a signal handler, between any two steps of the interpreter."""
    done = _run(
        """
import random, signal
from ml_pipeline.config.logging_config import main_logger

class Ended(BaseException):
    pass

def end(*_):
    raise Ended

main_logger.info("0")
signal.signal(signal.SIGALRM, end)
number, told, random = 0, ["0"], random.Random(5)
for _ in range(300):
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.001))
        for _ in range(5_000):  # far longer; it ends where the exception came in a ``__del__``, which lets none out
            number += 1
            main_logger.info("%d", number, extra={"pad": "x" * 1_000})
            told.append(str(number))
    except Ended:
        pass
print(*told)
""",
        traced=False,
    )  # a tracer takes most of the interrupts, and each record a hundred times as long
    assert done.returncode == 0, done.stderr
    written = Counter(_messages())
    assert max(written.values()) == 1
    assert set(done.stdout.split()) <= written.keys()


def test_a_worker_keeps_nothing_waiting() -> None:
    """Its parent may end it by a signal at any time, as a `multiprocessing.Pool` does when its block is left."""
    done = _run("""
import multiprocessing, os, signal, sys
from ml_pipeline.config.logging_config import main_logger

def work():
    main_logger.info("worker")
    os.kill(os.getpid(), signal.SIGTERM)

main_logger.info("parent")
worker = multiprocessing.get_context("fork").Process(target=work)
worker.start(); worker.join()
sys.exit(worker.exitcode != -signal.SIGTERM)
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert _messages() == ["parent", "worker"]


def test_the_last_exit_handler_loses_nothing() -> None:
    """One that was registered before our own, and therefore runs after it."""
    done = _run("""
import atexit
atexit.register(lambda: main_logger.info("late"))
from ml_pipeline.config.logging_config import main_logger
main_logger.info("normal")
""")
    assert (done.returncode, done.stderr) == (0, "")
    assert _messages() == ["normal", "late"]
