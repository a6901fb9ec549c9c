"""Writers of one log that are killed while it is rotated and compressed: every line that was told written is there.

A kill that strikes between two pages of one write leaves the first part of a line that nobody was told of. What another
process writes next stands behind it, whole.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from ml_pipeline import _runtime, configure
from ml_pipeline.config import _log_retention
from ml_pipeline.config._log_files import AppendFiles
from ml_pipeline.config._log_retention import Keeper, Retention
from ml_pipeline.config._log_rotation import rotated_files
from ml_pipeline.config.logging_config import get_logger
from ml_pipeline.settings import load_settings
from tests.support import eventually

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "10"))
WRITERS = 4
GENERATIONS = 2
MOST_MORE = 1_000  # records, before a writer is killed
FEWEST_BYTES = 10_000
NAME = "training/model_training.log"
BEGIN = b'{"timestamp":'

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


@dataclass
class Writer:
    """One of the processes, which is killed and begins anew where it was."""

    number: int
    told_path: Path
    pid: int = 0

    def told(self) -> list[int]:
        """What it was told is written."""
        lines = self.told_path.read_bytes().split(b"\n")[:-1] if self.told_path.exists() else []
        return [int(line) for line in lines]

    def start(self, work: Callable[[int, int, int], None]) -> None:
        """Fork it; it writes until it is killed."""
        first = max(self.told(), default=-1) + 2  # the one behind the last may be in the file, too
        self.pid = os.fork()
        if self.pid:
            return
        try:
            told = os.open(self.told_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            work(self.number, first, told)
        finally:
            os._exit(1)

    def kill(self) -> int:
        """Kill it and return the signal that ended it."""
        pid, self.pid = self.pid, 0
        if not pid:
            return 0
        os.kill(pid, signal.SIGKILL)
        return os.WTERMSIG(os.waitpid(pid, 0)[1])


def write_by_logger(writer: int, first: int, told: int) -> None:
    """Log for ever, by the logger that everyone uses."""
    _log_retention._REST_SECONDS = 0.005  # type: ignore[misc]
    logger = get_logger("training.model_training", "writer")
    number = first
    while True:
        logger.info("%d:%d:%s", writer, number, "x" * (number % 700))
        os.write(told, b"%d\n" % number)
        number += 1


def content_of(path: Path) -> bytes:
    """All lines, from the oldest file to the present one; of two forms of one file the uncompressed."""
    forms: dict[tuple[int, int], bytes] = {}
    for old in rotated_files(path):
        read = old.path.read_bytes()
        forms.setdefault((old.day, old.number), gzip.decompress(read) if old.is_packed else read)
    return b"".join([*forms.values(), path.read_bytes() if path.exists() else b""])


def numbers_of(path: Path) -> dict[int, list[int]]:
    """What each writer has written, in the order of the files."""
    found: dict[int, list[int]] = {writer: [] for writer in range(WRITERS)}
    pieces = []
    for line in content_of(path).splitlines():
        begin = max(line.rfind(BEGIN), 0)  # what was torn may be less than that
        if begin or not line.endswith(b"}"):
            pieces.append(line[:begin] or line)
        if line.endswith(b"}"):
            writer, number, filling = json.loads(line[begin:])["message"].split(":")
            assert len(filling) == int(number) % 700
            found[int(writer)].append(int(number))
    assert len(pieces) <= WRITERS * GENERATIONS, "at most what each killed one was writing"
    assert all(piece.startswith(BEGIN[: len(piece)]) and piece.count(BEGIN) <= 1 for piece in pieces)
    return found


def assert_all_there(path: Path, writers: list[Writer]) -> None:
    """Nothing that was told written is missing, nothing is there twice, and each writer's lines are in order."""
    found = numbers_of(path)
    for writer in writers:
        numbers, told = found[writer.number], writer.told()
        assert told
        assert [number for number, count in Counter(numbers).items() if count > 1] == []
        assert sorted(set(told) - set(numbers)) == []
        assert numbers == sorted(numbers)


def test_kill_9_while_four_processes_write_and_rotate_one_file(isolated: Path) -> None:
    """At random moments, over and over: no line that was told written is lost, doubled, torn or out of its order."""
    moments = random.Random(20_261_121)
    for turn in range(ROUNDS):
        folder = isolated / f"round {turn}"
        configure(log_dir=folder / "logs", log_max_bytes=FEWEST_BYTES)
        folder.mkdir()
        writers = [Writer(number, folder / f"told {number}") for number in range(WRITERS)]
        for _ in range(GENERATIONS):
            try:
                before = [len(writer.told()) for writer in writers]
                for writer in writers:
                    writer.start(write_by_logger)
                for writer in moments.sample(writers, len(writers)):
                    until = before[writer.number] + 20 + moments.randrange(MOST_MORE)
                    eventually(lambda writer=writer, until=until: len(writer.told()) > until)  # type: ignore[misc]
                    assert writer.kill() == signal.SIGKILL
            finally:
                for writer in writers:
                    writer.kill()
        path = folder / "logs" / NAME
        assert len(rotated_files(path)) > 2
        assert_all_there(path, writers)
        _sweep(path)
        assert_all_there(path, writers)
        assert list((folder / "logs").rglob("*.partial")) == []
        assert all(old.is_packed for old in rotated_files(path))


def _sweep(path: Path) -> None:
    """Do what the next process that rotates would do for those that were killed."""
    assert not Keeper(lambda: [path], Retention(90), clock=lambda: time.time() + 60).sweep()


def test_a_kill_inside_each_step_of_a_compression(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it strikes, the lines are all there, and the next sweep ends what was begun."""
    steps = ["open", "fsync", "chmod", "utime", "rename", "unlink"]
    for step in steps:
        path = isolated / step / "ml_pipeline.log"
        path.parent.mkdir()
        rotated = path.with_name("ml_pipeline.log.2026-11-20.1")
        rotated.write_bytes(b"line\n" * 10_000)
        pid = os.fork()
        if not pid:
            _die_in(step)
            Keeper(lambda path=path: [path], Retention(99_999), clock=lambda: time.time() + 60).sweep()  # type: ignore[misc]
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL, step
        assert content_of(path) == b"line\n" * 10_000
        assert not Keeper(lambda path=path: [path], Retention(99_999), clock=lambda: time.time() + 60).sweep()  # type: ignore[misc]
        assert content_of(path) == b"line\n" * 10_000
        assert [each.name for each in path.parent.iterdir()] == [f"{rotated.name}.gz"]


def _die_in(step: str) -> None:
    """Have this process killed just before a step of the compression."""

    def die(*_arguments: object, **_options: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if step in ("fsync", "utime"):
        setattr(os, step, die)
    elif step == "open":
        _log_retention._write_packed = die  # type: ignore[assignment]
    else:
        setattr(Path, step, die)


def test_a_kill_before_and_after_the_renaming_loses_nothing(isolated: Path) -> None:
    """The lock goes with the process that held it, and the next writer goes on."""
    for step in ("before", "after"):
        folder = isolated / step
        settings = load_settings({"log_dir": folder, "log_max_bytes": FEWEST_BYTES})
        pid = os.fork()
        if not pid:
            rename = Path.rename

            def die(old: Path, new: Path, step: str = step, rename: Callable[[Path, Path], Path] = rename) -> None:
                if step == "after":
                    rename(old, new)
                os.kill(os.getpid(), signal.SIGKILL)

            Path.rename = die  # type: ignore[assignment, method-assign]
            files = AppendFiles.of(settings)
            for number in range(1_000):
                files["ml_pipeline.log"].write(b"%099d\n" % number)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        files = AppendFiles.of(settings)
        files["ml_pipeline.log"].write(b"%099d\n" % 100)
        files.close()
        assert content_of(folder / "ml_pipeline.log").splitlines() == [b"%099d" % number for number in range(101)]
        assert dict(_runtime.tally.telemetry_errors) == {}
