"""Faults under the loggers, each injected for real: the job never notices, and logging recovers by itself."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline import _runtime, configure
from ml_pipeline.config import _log_files
from ml_pipeline.config._log_retention import Keeper, Retention, channel_files
from ml_pipeline.config._log_rotation import rotated_files
from ml_pipeline.config.logging_config import get_logger
from tests.processes import in_fork
from tests.support import eventually

TRAINING = Path("training/model_training.log")
SAID = "ml_pipeline: logging_config: "


@pytest.fixture
def lenient(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A log directory of a job that is not strict, as users' jobs are; the files are looked at in quick succession."""
    monkeypatch.setattr(_log_files, "_LOOK_SECONDS", 0.0)
    folder = isolated / "logs"
    configure(strict=False, log_dir=folder, log_max_bytes=10_000)
    return folder


def log(first: int, last: int, filling: int = 0) -> None:
    """Write numbered records."""
    logger = get_logger("training.model_training", "trainer")
    for number in range(first, last + 1):
        logger.info("%d %s", number, "x" * filling)


def content_of(path: Path) -> list[bytes]:
    """Every line, from the oldest file that was set aside to the present one."""
    files = [*(old.path for old in rotated_files(path)), path]
    return b"".join(each.read_bytes() for each in files if each.exists()).splitlines()


def numbers(lines: list[bytes]) -> list[int]:
    """The numbers of the records, each of which must be whole."""
    return [int(json.loads(line)["message"].split()[0]) for line in lines]


def dropped() -> int:
    """How many records are counted as lost."""
    return sum(_runtime.tally.log_records_dropped.values())


def written() -> int:
    """How many records are counted as written."""
    return sum(
        count for (channel, _), count in _runtime.tally.log_records.items() if channel == "training.model_training"
    )


# a disk that is full


def test_a_disk_that_fills_up_and_is_freed(
    lenient: Path, small_disk: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """What does not fit is counted and said once; once there is room all is written again, set aside and compressed."""
    small_disk(lenient, "size=64k,mode=0750")
    log(0, 399, 300)
    lost = dropped()
    assert lost > 200
    assert written() + lost == 400
    for old in rotated_files(lenient / TRAINING)[:3]:  # an administrator makes room
        old.path.unlink()
    before = content_of(lenient / TRAINING)
    log(400, 420, 300)
    assert dropped() == lost
    after = content_of(lenient / TRAINING)[len(before) :]
    assert numbers([line for line in after if line.startswith(b"{")]) == list(range(400, 421))
    assert len([line for line in before + after if not line.endswith(b"}")]) <= 1, (
        "the line that met the end of the disk"
    )
    assert capsys.readouterr().err.count(f"{SAID}OSError: [Errno 28] No space left on device") == 1


def test_a_disk_without_room_for_a_compressed_file(lenient: Path, small_disk: Callable[..., Path]) -> None:
    """The file stays as it is, nothing half is left, and it is compressed once there is room."""
    small_disk(lenient, "size=64k,mode=0750")
    (lenient / "training").mkdir()
    old = lenient / f"{TRAINING}.{time.strftime('%Y-%m-%d', time.gmtime())}.1"
    old.write_bytes(os.urandom(20_000))
    ballast = lenient / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4_096)
    keeper = Keeper(lambda: channel_files(lenient), Retention(90), clock=lambda: time.time() + 60)
    content = old.read_bytes()
    assert keeper.sweep()
    assert [path.name for path in (lenient / "training").iterdir()] == [old.name]
    assert old.read_bytes() == content
    assert _runtime.tally.telemetry_errors == {("log_retention", "OSError"): 1}
    ballast.unlink()
    assert not keeper.sweep()
    assert [path.name for path in (lenient / "training").iterdir()] == [f"{old.name}.gz"]


def test_a_disk_that_becomes_read_only_and_writable_again(lenient: Path, small_disk: Callable[..., Path]) -> None:
    """As a kernel does it after an error of the disk; the records in between are counted."""
    small_disk(lenient, "size=1m,mode=0750")
    log(0, 4)
    _runtime.shutdown()  # a file that is open for writing keeps a disk writable
    subprocess.run(["mount", "-o", "remount,ro", str(lenient)], check=True)
    log(5, 9)
    subprocess.run(["mount", "-o", "remount,rw", str(lenient)], check=True)
    log(10, 14)
    assert numbers(content_of(lenient / TRAINING)) == [*range(5), *range(10, 15)]
    assert dropped() == 5


# files and folders that others change


def remove_file(path: Path) -> None:
    path.unlink()


def remove_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


def remove_log_directory(path: Path) -> None:
    shutil.rmtree(path.parent.parent)


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def rename(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def replace(path: Path) -> None:
    path.with_name("new").touch()
    path.with_name("new").replace(path)


@pytest.mark.parametrize("fault", [remove_file, remove_folder, remove_log_directory, truncate, rename, replace])
def test_what_others_do_to_an_open_file_is_noticed(
    fault: Callable[[Path], None], lenient: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next look finds the right file, made again if it must be; nobody hears of it and nothing is dropped."""
    log(0, 4)
    fault(lenient / TRAINING)
    log(5, 9)
    assert numbers(content_of(lenient / TRAINING)) == [*range(5, 10)]
    assert dropped() == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("fault", [remove_log_directory, replace, truncate])
def test_it_is_noticed_within_a_second(fault: Callable[[Path], None], isolated: Path) -> None:
    """By the machine's own clock, with a writer that never pauses."""
    configure(log_dir=isolated / "logs")
    log(0, 0)
    path = isolated / "logs" / TRAINING
    fault(path)
    begun = time.monotonic()
    number = iter(range(1, 10_000_000))

    def is_written() -> bool:
        log(at := next(number), at)
        return path.exists() and path.stat().st_size > 0

    eventually(is_written, seconds=5)
    assert time.monotonic() - begun < 1.5


def test_a_file_that_was_cut_within_a_line_takes_no_line_with_it(lenient: Path) -> None:
    """The rest of the line stands alone."""
    log(0, 4)
    path = lenient / TRAINING
    os.truncate(path, path.stat().st_size - 10)
    log(5, 6)
    lines = content_of(path)
    assert numbers(lines[:4] + lines[5:]) == [0, 1, 2, 3, 5, 6]


def test_a_file_that_may_be_written_and_not_read(isolated: Path) -> None:
    """Its end cannot be looked at; that is no reason to lose a line."""

    def work() -> str:
        folder = isolated / "open"
        folder.mkdir()
        (folder / "x.log").write_bytes(b"one\n")
        folder.chmod(0o777)
        (folder / "x.log").chmod(0o222)
        if os.geteuid() == 0:
            for around in folder.absolute().parents:
                around.chmod(around.stat().st_mode | 0o111)
            os.setgid(65534)
            os.setuid(65534)
        file = _log_files.AppendFile(folder / "x.log")
        file.write(b"two\n")
        return "written"

    assert in_fork(work) == "written"
    assert (isolated / "open" / "x.log").read_bytes() == b"one\ntwo\n"


def test_permission_that_is_lost_and_given_back(isolated: Path) -> None:
    """Records are counted and said once while no file may be made, and written again once it may."""

    def work() -> list[Any]:
        for around in isolated.absolute().parents:
            around.chmod(around.stat().st_mode | 0o111)
        isolated.chmod(0o777)
        if os.geteuid() == 0:
            os.setgid(65534)
            os.setuid(65534)
        _log_files._LOOK_SECONDS = 0.0  # type: ignore[misc]
        configure(strict=False, log_dir=isolated / "logs")
        log(0, 4)
        folder = isolated / "logs" / "training"
        folder.chmod(0o000)
        log(5, 9)  # into the open file
        _runtime.shutdown()
        log(10, 14)
        lost = dropped()
        folder.chmod(0o750)
        log(15, 19)
        return [lost, dropped(), numbers(content_of(isolated / "logs" / TRAINING))]

    assert in_fork(work) == [5, 5, [*range(10), *range(15, 20)]]


def test_a_writer_racing_with_one_who_removes_the_folder(lenient: Path) -> None:
    """The job never raises, whatever moment it strikes; at the end all is written again."""
    done = threading.Event()

    def remove() -> None:
        while not done.is_set():
            shutil.rmtree(lenient, ignore_errors=True)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        log(0, 2_000)
    finally:
        done.set()
        thread.join()
    lost = dropped()
    log(3_000, 3_009)
    assert numbers(content_of(lenient / TRAINING))[-10:] == [*range(3_000, 3_010)]
    assert dropped() == lost
