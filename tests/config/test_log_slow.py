"""Log files that are slow: the job goes on, what is dropped is counted, and logging recovers by itself.

The fault is a real one: a pipe whose reader stops reading, and a file system that is frozen, so that the kernel holds
back every write to it until it is thawed.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline import _runtime, configure
from ml_pipeline.config._log_files import AppendFile
from ml_pipeline.config._log_slow import SlowWrite, Stall, run_within
from ml_pipeline.config.logging_config import _outlet, get_logger
from tests.support import eventually, require

LIMIT = 0.1
SHORT = 5.0
"""Seconds that no log call takes, however busy the machine is."""
NAME = "training/model_training.log"
SAID = (
    "ml_pipeline: logging_config: SlowWrite: a log file must take a record within ML_PIPELINE_LOG_SLOW_SECONDS (0.1) "
)
logger = get_logger("training.model_training", "trainer")


class Pipe:
    """A log file that is a pipe, and whoever reads it."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self._read = b""

    def fill(self, path: Path) -> None:
        """Write empty lines to it until the kernel takes no more."""
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        with suppress(BlockingIOError):
            while os.write(descriptor, b"\n" * 4_096):
                pass
        os.close(descriptor)

    def read(self) -> list[int]:
        """The numbers of all records read so far."""
        with suppress(BlockingIOError):
            while piece := os.read(self._descriptor, 1 << 16):
                self._read += piece
        return numbers(self._read)

    def close(self) -> None:
        """Stop reading for good, which ends every write that is held back."""
        os.close(self._descriptor)


def numbers(content: bytes) -> list[int]:
    """The numbers of the records whose lines are whole, each of which must be one."""
    return [int(json.loads(line)["message"].split()[0]) for line in content.split(b"\n")[:-1] if line]


@pytest.fixture
def folder(isolated: Path) -> Path:
    """The log directory of a job that is not strict, as users' jobs are."""
    folder = isolated / "logs"
    configure(strict=False, log_dir=folder, log_slow_seconds=LIMIT)
    return folder


@pytest.fixture
def pipe(folder: Path) -> Iterator[Pipe]:
    """The log file of the training channel, which is full."""
    pipe = Pipe(folder / NAME)
    pipe.fill(folder / NAME)
    yield pipe
    pipe.close()


def log(first: int, last: int, filling: int = 0) -> float:
    """Write numbered records; the seconds of the longest call."""
    longest = 0.0
    for number in range(first, last + 1):
        begun = time.monotonic()
        logger.info("%d %s", number, "x" * filling)
        longest = max(longest, time.monotonic() - begun)
    return longest


def dropped() -> int:
    """How many records are counted as dropped, all for one reason."""
    assert set(_runtime.tally.log_records_dropped) <= {"SlowWrite"}
    return _runtime.tally.log_records_dropped["SlowWrite"]


def told(folder: Path) -> list[str]:
    """What the log says of files that are quick again."""
    path = folder / "monitoring" / "monitoring.log"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line)["message"] for line in lines]


def file() -> AppendFile:
    """That of the training channel."""
    return _outlet.get()._files[NAME]  # type: ignore[return-value]


def stall() -> Stall:
    """Of the same, whether there is a buffer before it or not."""
    found: Any = file()
    return getattr(found, "_file", found).stall  # type: ignore[no-any-return]


def begin_a_write(number: int) -> threading.Thread:
    """Log a record that the kernel holds back."""
    thread = begin(lambda: log(number, number))
    eventually(lambda: file()._state)
    return thread


def begin(action: Callable[[], object]) -> threading.Thread:
    """Do something that may be held up."""
    thread = threading.Thread(target=action, daemon=True)
    thread.start()
    return thread


def test_threads_go_on_while_a_write_is_held_back(folder: Path, pipe: Pipe, capsys: pytest.CaptureFixture[str]) -> None:
    """One is in the write and must wait; the others drop what finds no room, and what found some is written later."""
    stuck = begin_a_write(0)
    longest = log(1, 1_000, 300)
    assert longest < SHORT
    assert stuck.is_alive()
    assert 700 < dropped() < 1_000
    begun = time.monotonic()
    log(1_001, 1_100, 300)
    assert time.monotonic() - begun < SHORT < 100 * LIMIT, "it is known to be slow"
    lost = dropped()
    eventually(lambda: len(pipe.read()) == 1_101 - lost)
    stuck.join()
    eventually(lambda: told(folder))
    log(2_000, 2_005)
    assert pipe.read()[-6:] == list(range(2_000, 2_006))
    assert pipe.read()[1:] == sorted(pipe.read()[1:])
    assert dropped() == lost
    assert sum(_runtime.tally.log_records.values()) == 1_107 - lost + len(told(folder))
    assert capsys.readouterr().err.count(SAID) == 1
    assert len(told(folder)) == 1
    assert told(folder)[0].startswith(f"{folder / NAME} is quick again after ")
    assert told(folder)[0].endswith(f" s; {lost} records to it were dropped")


def test_a_write_that_was_slow_is_the_last_one_to_be_waited_for(
    folder: Path, pipe: Pipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next record is written by a thread; twice over, and each time it is said once."""
    for turn in (1, 2):
        stuck = begin_a_write(0)
        begun = time.monotonic()
        eventually(lambda begun=begun: time.monotonic() > begun + 2 * LIMIT)  # type: ignore[misc]
        assert stuck.is_alive()
        pipe.read()  # which makes room
        stuck.join()
        pipe.fill(folder / NAME)
        assert log(1, 100, 100) < SHORT
        assert _runtime.tally.telemetry_errors["logging_config", "SlowWrite"] == turn
        eventually(lambda turn=turn: len(pipe.read()) == 101 * turn)  # type: ignore[misc]
        eventually(lambda turn=turn: len(told(folder)) == turn)  # type: ignore[misc]
        pipe.fill(folder / NAME)
    assert dropped() == 0
    assert capsys.readouterr().err.count(SAID) == 2


def test_without_a_limit_a_write_is_waited_for(folder: Path, pipe: Pipe) -> None:
    """As long as it takes, in order and without a loss."""
    configure(log_slow_seconds=0)
    threads = [begin(lambda number=number: log(number, number)) for number in range(3)]  # type: ignore[misc]
    begun = time.monotonic()
    eventually(lambda: time.monotonic() > begun + 3 * LIMIT)
    assert all(thread.is_alive() for thread in threads)
    eventually(lambda: sorted(pipe.read()) == [0, 1, 2])
    for thread in threads:
        thread.join()
    assert dropped() == 0
    assert not told(folder)


def test_the_end_of_a_process_waits_for_a_slow_file_no_longer_than_for_one_write(folder: Path, pipe: Pipe) -> None:
    """What waits for it is then dropped and counted; what was in a write is written if the process lives on."""
    stuck = begin_a_write(0)
    log(1, 1)
    slow = stall()
    eventually(lambda: not slow._waiting)
    log(2, 10)
    begun = time.monotonic()
    _runtime.shutdown()
    assert time.monotonic() - begun < SHORT
    assert dropped() == 9
    eventually(lambda: pipe.read() == [0, 1])
    stuck.join()
    eventually(lambda: told(folder))
    assert told(folder)[0].endswith(" s; 9 records to it were dropped")


def test_buffered_records_of_other_channels_are_written_meanwhile(
    folder: Path, pipe: Pipe, capsys: pytest.CaptureFixture[str]
) -> None:
    """By the clock, and at an error; what waits for the slow file is bounded, and in order once it is quick again."""
    configure(log_mode="buffered", log_flush_seconds=0.05)
    log(0, 0)
    eventually(lambda: stall().is_on)
    begun = time.monotonic()
    log(1, 5_000, 500)
    assert time.monotonic() - begun < SHORT
    lost = dropped()
    assert 1_000 < lost < 5_000
    other = get_logger("inference.predictions", "other")
    other.info("one")
    path = folder / "inference" / "predictions.log"
    eventually(lambda: path.exists() and b'"one"' in path.read_bytes())
    begun = time.monotonic()
    other.error("two")
    assert time.monotonic() - begun < SHORT
    assert b'"two"' in path.read_bytes()
    assert b'"two"' in (folder / "errors.log").read_bytes()
    eventually(lambda: len(pipe.read()) == 5_001 - dropped())
    found = pipe.read()
    assert found == sorted(found)

    def is_over() -> bool:
        pipe.read()
        log(6_000, 6_000)
        return bool(told(folder))

    eventually(is_over)
    assert capsys.readouterr().err.count(SAID) >= 1


@pytest.fixture
def frozen(folder: Path) -> Iterator[Callable[[bool], None]]:
    """The log directory on a disk of its own, and how to freeze and thaw that."""
    make, freeze = require("mkfs.ext4"), require("fsfreeze")
    image = folder.parent / "image"
    with image.open("wb") as file:
        file.truncate(16 << 20)
    folder.mkdir()
    subprocess.run([make, "-q", image], check=True, capture_output=True)
    mounted = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"mounting needs root: {mounted.stderr.strip()}")

    def set_frozen(is_frozen: bool) -> None:
        subprocess.run([freeze, "--freeze" if is_frozen else "--unfreeze", folder], check=True)

    yield set_frozen
    subprocess.run([freeze, "--unfreeze", folder], check=False, capture_output=True)
    _runtime.shutdown()
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("mode", ["write-through", "buffered"])
def test_a_frozen_disk(folder: Path, frozen: Callable[[bool], None], mode: str) -> None:
    """As that of a virtual machine during a snapshot: only who was in a write waits, and all is well afterwards."""
    configure(log_mode=mode, log_flush_seconds=0.05, log_console="off")
    log(0, 9)
    assert _runtime.tally.telemetry_errors == {}
    frozen(True)
    others: list[threading.Thread] = []

    def one_more() -> bool:
        number = 10 + len(others)
        others.append(begin(lambda: log(number, number)))
        return stall().is_on

    eventually(one_more)
    assert log(1_000, 8_999, 500) < SHORT
    assert dropped() > 1_000
    frozen(False)
    for thread in others:
        thread.join()
    path = folder / "monitoring" / "monitoring.log"
    eventually(lambda: path.exists() and path.read_text().count("is quick again"))
    log(9_000, 9_009)
    _runtime.shutdown()
    found = numbers((folder / NAME).read_bytes())
    assert len(found) == len(set(found)) == 8_020 + len(others) - dropped()
    assert found[:10] == list(range(10))
    assert found[-10:] == list(range(9_000, 9_010))
    written = [number for number in found if number >= 1_000]
    assert written == sorted(written)


def test_the_write_after_a_slow_one_is_timed(tmp_path: Path) -> None:
    """The short way does not look at the clock, so the file is looked at as often as a write may take."""
    now = [1_000.0]
    file = AppendFile(tmp_path / "x.log", monotonic=lambda: now[0], slow_seconds=0.5)
    file.write(b"1\n")
    assert file.handle is not None
    now[0] += 0.5  # in that write, or in none
    file.tick(now[0])
    assert file.handle is None
    file.write(b"2\n")
    assert file.handle is not None
    now[0] += 0.5
    file.tick(now[0])
    assert file.handle is None
    assert not file.stall.is_on
    file.stall.judge(0.5)
    assert not file.stall.is_on
    file.stall.judge(0.6)
    assert file.handle is None
    file.close()


def test_what_is_dropped_is_said_with_the_rule_the_file_and_the_remedy(tmp_path: Path) -> None:
    """In one line; the time tells one stall from the next."""
    stall = Stall(tmp_path / "x.log", 2.0, lambda _: None)
    with pytest.raises(SlowWrite) as error:
        stall.drop(b"1\n")
    assert str(error.value) == (
        "a log file must take a record within ML_PIPELINE_LOG_SLOW_SECONDS (2) "
        f"(got '{tmp_path / 'x.log'}, not since 1970-01-01T00:00:00.000000Z'); look at its disk; "
        "until it is quick, 64 KiB wait in memory and the others are dropped"
    )


def test_a_lock_that_is_not_to_be_had_in_time() -> None:
    """Nothing is run then; what is run may raise, and gives the lock back."""
    lock, done, ran = threading.RLock(), list[int](), list[bool]()
    assert run_within(lock, 0.0, done.append, 1)
    with pytest.raises(ZeroDivisionError):
        run_within(lock, -1.0, lambda: 1 // 0)
    with lock:
        begin(lambda: ran.append(run_within(lock, 0.01, done.append, 2))).join()
    assert (done, ran) == ([1], [False])
    assert run_within(lock, 0.01, done.append, 3)


def test_a_disk_that_fails_and_is_slow(tmp_path: Path) -> None:
    """What waited for it is counted under what it raised."""
    _runtime.settings()
    raised = OSError(5, "Input/output error")
    called = threading.Event()

    def write(_: bytes) -> None:
        called.wait()
        failing.judge(0.0)
        raise raised

    failing = Stall(tmp_path / "x.log", 2.0, write)
    failing.begin()
    assert failing.takes(b"1\n2\n")
    called.set()
    eventually(lambda: not failing.is_on)
    assert not failing.takes(b"3\n")
    assert _runtime.tally.log_records_dropped == {"OSError": 2}


def test_where_no_thread_can_be_started_a_record_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the limit of threads of a machine: nobody waits."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    stall = Stall(tmp_path / "x.log", 2.0, lambda _: None)
    stall.begin()
    with pytest.raises(SlowWrite):
        stall.takes(b"1\n")
    assert stall.is_on
