"""Retention: rotated files are compressed when nobody writes to them any more, and removed when they are old."""

from __future__ import annotations

import errno
import gzip
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ml_pipeline import _platform, _runtime
from ml_pipeline.config import _log_retention
from ml_pipeline.config._log_files import AppendFile, AppendFiles
from ml_pipeline.config._log_retention import Keeper, Retention, channel_files, compress
from ml_pipeline.config._log_rotation import Rotation, day_of, day_text, rotated_files
from ml_pipeline.config.logging_config import get_logger, main_logger
from ml_pipeline.settings import load_settings
from tests.processes import in_fork
from tests.support import eventually

NOW = time.time()
TODAY = day_of(NOW)
REST = 5.0
CONTENT = b"".join(b"line %d\n" % number for number in range(10_000))


def rotated(
    folder: Path, *, days_ago: int = 0, number: int = 1, name: str = "ml_pipeline.log", suffix: str = ""
) -> Path:
    """A file that was set aside."""
    path = folder / f"{name}.{day_text(TODAY - days_ago)}.{number}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(CONTENT)
    return path


def keeper(folder: Path, *, days: int = 90, total_bytes: int | None = None, later: float = 0.0) -> Keeper:
    """A keeper of the log directory, some time later."""
    return Keeper(lambda: channel_files(folder), Retention(days, total_bytes), clock=lambda: time.time() + later)


def names(folder: Path) -> list[str]:
    """Every file below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


# compression


def test_a_rotated_file_is_compressed_after_a_rest(tmp_path: Path) -> None:
    """Not sooner than five seconds after it was set aside; with its lines, its mode and its time."""
    path = rotated(tmp_path)
    path.chmod(0o640)
    os.utime(path, (NOW - 99, NOW - 99))
    changed = path.stat().st_ctime  # which a renaming sets
    assert not compress(path, now=changed + REST - 0.01)
    assert names(tmp_path) == [path.name]
    assert compress(path, now=changed + REST)
    packed = tmp_path / f"{path.name}.gz"
    assert names(tmp_path) == [packed.name]
    assert gzip.decompress(packed.read_bytes()) == CONTENT
    assert stat.S_IMODE(packed.stat().st_mode) == 0o640
    assert packed.stat().st_mtime == pytest.approx(NOW - 99)
    assert compress(path, now=changed + REST)  # it is gone: nothing is left to do


def test_a_file_that_someone_still_has_open_is_not_compressed(tmp_path: Path) -> None:
    """However long ago it was set aside, and whatever process it is: a stopped one may wake up inside its write."""
    file = AppendFile(tmp_path / "ml_pipeline.log", Rotation(tmp_path))
    file.write(b"one\n")
    old = file.path.rename(tmp_path / f"ml_pipeline.log.{day_text(TODAY)}.1")
    later = time.time() + 3_600
    assert in_fork(lambda: compress(old, now=later)) is False
    os.write(file._descriptor, b"two\n")
    file.close()
    assert compress(old, now=later)
    assert gzip.decompress(old.with_name(f"{old.name}.gz").read_bytes()) == b"one\ntwo\n"


def test_a_file_that_grows_meanwhile_is_left_for_later(tmp_path: Path) -> None:
    """Where a file system has no locks, a line that comes in the middle is not lost."""
    path = rotated(tmp_path)

    def late() -> bool:  # is asked before each piece is compressed
        with path.open("ab") as file:
            file.write(b"late\n")
        return False

    assert not compress(path, now=time.time() + 60, is_ending=late)
    assert names(tmp_path) == [path.name]
    assert path.read_bytes() == CONTENT + b"late\n"


@pytest.mark.parametrize(("made_of", "kept"), [(CONTENT, True), (CONTENT[:-9], False), (b"", False)])
def test_a_kill_before_the_last_step_is_made_good(made_of: bytes, *, kept: bool, tmp_path: Path) -> None:
    """Where both forms lie there, the whole compressed one stays; one that lacks the last lines is made anew."""
    path = rotated(tmp_path)
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(made_of, mtime=1))
    before = packed.read_bytes()
    assert compress(path, now=time.time() + 60)
    assert names(tmp_path) == [packed.name]
    assert gzip.decompress(packed.read_bytes()) == CONTENT
    assert (packed.read_bytes() == before) is kept


@pytest.mark.parametrize("made_of", [CONTENT.replace(b"line 7\n", b"LINE 7\n"), b"another\n", CONTENT + b"more\n"])
def test_two_forms_with_other_lines_are_both_kept(
    made_of: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No step of ours takes one for the other, whichever is the false one; it is said, once."""
    path = rotated(tmp_path)
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(gzip.compress(made_of, mtime=1))
    for _ in range(2):
        assert compress(path, now=time.time() + 60)
    assert path.read_bytes() == CONTENT
    assert gzip.decompress(packed.read_bytes()) == made_of
    assert (
        capsys.readouterr().err.count(
            f"{path.name} is not compressed, for {packed.name} holds other lines: remove the one that is false"
        )
        == 1
    )


@pytest.mark.parametrize("damage", [lambda content: content[:-9], lambda content: content[:40] + b"x" * 40])
def test_a_compressed_form_that_cannot_be_unpacked_is_made_anew(
    damage: Callable[[bytes], bytes], tmp_path: Path
) -> None:
    """It holds nothing that is not in the file beside it."""
    path = rotated(tmp_path)
    packed = tmp_path / f"{path.name}.gz"
    packed.write_bytes(damage(gzip.compress(CONTENT)))
    assert compress(path, now=time.time() + 60)
    assert names(tmp_path) == [packed.name]
    assert gzip.decompress(packed.read_bytes()) == CONTENT


def test_an_empty_file_is_compressed_too(tmp_path: Path) -> None:
    """And a compressed form that is too short to be one is made anew."""
    path = rotated(tmp_path)
    path.write_bytes(b"")
    (tmp_path / f"{path.name}.gz").write_bytes(b"x")
    assert compress(path, now=time.time() + 60)
    assert gzip.decompress((tmp_path / f"{path.name}.gz").read_bytes()) == b""


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is counted, the other files are compressed, and the next sweep succeeds."""
    monkeypatch.setenv("ML_PIPELINE_STRICT", "0")
    _runtime.reset()
    paths = [rotated(tmp_path, number=1), rotated(tmp_path, number=2)]
    full = [OSError(errno.ENOSPC, "No space left on device")]
    really = os.fsync

    def fsync(descriptor: int) -> None:
        if full:
            raise full.pop()
        really(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    mine = keeper(tmp_path, later=60)
    mine.sweep()
    assert names(tmp_path) == [paths[0].name, f"{paths[1].name}.gz"]
    assert dict(_runtime.tally.telemetry_errors) == {("log_retention", "OSError"): 1}
    assert not mine.sweep()
    assert names(tmp_path) == [f"{path.name}.gz" for path in paths]


def test_a_clock_that_was_wrong_keeps_no_file_for_ever(tmp_path: Path) -> None:
    """A file from a day in the future is compressed; one from a minute ahead waits for it to come."""
    path = rotated(tmp_path)
    assert not compress(path, now=NOW - 60)
    assert compress(path, now=NOW - 3 * 86_400)


# age


def test_files_past_their_days_are_removed(tmp_path: Path) -> None:
    """By the day in their name, compressed or not; the last day is kept, and so is the present file."""
    for days_ago in (0, 29, 30, 31, 400):
        rotated(tmp_path, days_ago=days_ago, suffix=".gz")
    rotated(tmp_path, days_ago=31, number=2)
    (tmp_path / "ml_pipeline.log").write_bytes(CONTENT)
    assert not keeper(tmp_path, days=30).sweep()
    assert names(tmp_path) == ["ml_pipeline.log"] + [
        f"ml_pipeline.log.{day_text(TODAY - days_ago)}.1.gz" for days_ago in (30, 29, 0)
    ]


def test_nothing_else_is_ever_removed(tmp_path: Path) -> None:
    """Not the audit trail's files, the alerts', nor those of other programs; of DAGs, those with a DAG's name."""
    kept = [
        rotated(tmp_path, days_ago=400, name=name, suffix=suffix)
        for name in ("audit.log", "alerts.json", "nginx.log", "airflow/no..dag.log", "training/theirs.log")
        for suffix in ("", ".gz")
    ]
    kept += [rotated(tmp_path, days_ago=400, suffix=".bz2"), rotated(tmp_path, days_ago=400, suffix=".gz.partial")]
    for name in ("errors.log", "training/model_training.log", "airflow/daily.log", "monitoring/data_drift.log"):
        rotated(tmp_path, days_ago=400, name=name)
    keeper(tmp_path, days=1, total_bytes=1, later=60).sweep()
    assert names(tmp_path) == sorted(path.relative_to(tmp_path).as_posix() for path in kept)


def test_what_a_killed_compression_left_is_removed(tmp_path: Path) -> None:
    """Once the file it was made from is gone; before, the next compression takes its place."""
    left = tmp_path / ".ml_pipeline.log.2020-01-01.1.gz.partial"
    theirs = tmp_path / ".nginx.log.2020-01-01.1.gz.partial"
    for path in (left, theirs):
        path.write_bytes(b"half")
    path = rotated(tmp_path)
    (tmp_path / f".{path.name}.gz.partial").write_bytes(b"half")
    assert not keeper(tmp_path, later=60).sweep()
    assert names(tmp_path) == [theirs.name, f"{path.name}.gz"]
    assert gzip.decompress((tmp_path / f"{path.name}.gz").read_bytes()) == CONTENT


def test_a_file_that_cannot_be_removed_keeps_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failure is counted."""
    monkeypatch.setenv("ML_PIPELINE_STRICT", "0")
    _runtime.reset()
    rotated(tmp_path, days_ago=99).unlink()
    (tmp_path / f"ml_pipeline.log.{day_text(TODAY - 99)}.1").mkdir()
    rotated(tmp_path, days_ago=98)
    keeper(tmp_path).sweep()
    assert names(tmp_path) == []
    assert sum(_runtime.tally.telemetry_errors.values()) == 1


# total size


def test_past_the_total_the_oldest_are_removed_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Across all channels; the present files count and stay; the warning comes once a day."""
    main_logger.info("reads the settings")  # and has its file, like that of the warning, elsewhere
    logs = tmp_path / "logs"
    logs.mkdir()
    present = logs / "ml_pipeline.log"
    present.write_bytes(CONTENT)
    for days_ago, name in ((3, "errors.log"), (2, "ml_pipeline.log"), (1, "errors.log")):
        rotated(logs, days_ago=days_ago, name=name, suffix=".gz")
    mine = keeper(logs, days=30, total_bytes=2 * len(CONTENT))
    mine.sweep()
    assert names(logs) == [f"errors.log.{day_text(TODAY - 1)}.1.gz", "ml_pipeline.log"]
    warning = (
        f"ML_PIPELINE_LOG_TOTAL_BYTES ({2 * len(CONTENT)}) removes log files that ML_PIPELINE_LOG_RETENTION_DAYS (30) "
        f"would keep: 2 of them, the last from {day_text(TODAY - 2)}; raise the one or lower the other"
    )
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [warning]
    rotated(logs, days_ago=2)
    mine.sweep()
    assert [record.getMessage() for record in caplog.records].count(warning) == 1
    assert len(names(logs)) == 2


def test_under_the_total_nothing_is_removed_and_nothing_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files that are past their days do not count: they went first."""
    rotated(tmp_path, days_ago=1, suffix=".gz")
    rotated(tmp_path, days_ago=91, suffix=".gz")
    keeper(tmp_path, total_bytes=len(CONTENT)).sweep()
    assert len(names(tmp_path)) == 1
    assert not caplog.records


def test_the_present_files_alone_may_be_past_the_total(tmp_path: Path) -> None:
    """They are never removed."""
    (tmp_path / "ml_pipeline.log").write_bytes(CONTENT)
    keeper(tmp_path, total_bytes=1).sweep()
    assert names(tmp_path) == ["ml_pipeline.log"]


# the thread


def threads() -> list[str]:
    """The threads of keepers."""
    return [thread.name for thread in threading.enumerate() if thread.name == "ml-pipeline-log-files"]


def test_no_thread_runs_where_nothing_rotates(isolated: Path) -> None:
    """Only a file that was set aside starts one."""
    files = AppendFiles.of(load_settings({"log_dir": isolated}))
    files["ml_pipeline.log"].write(b"line\n")
    assert not threads()
    files.close()


def test_a_rotated_file_is_seen_to_by_a_thread_that_then_ends(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is compressed under real time, idle channels of earlier days are set aside too, and old files removed."""
    monkeypatch.setattr(_log_retention, "_REST_SECONDS", 0.05)
    rotated(isolated, days_ago=91)
    idle = isolated / "training" / "model_training.log"
    idle.parent.mkdir()
    for path, days_ago in ((idle, 2), (isolated / "ml_pipeline.log", 1)):
        path.write_bytes(CONTENT)
        os.utime(path, (NOW - days_ago * 86_400,) * 2)
    files = AppendFiles.of(load_settings({"log_dir": isolated}))
    files["ml_pipeline.log"].write(b"today\n")
    assert threads()
    eventually(lambda: not threads())
    assert [name for name in names(isolated) if name != ".rotation.lock"] == [
        "ml_pipeline.log",
        f"ml_pipeline.log.{day_text(TODAY - 1)}.1.gz",
        f"training/model_training.log.{day_text(TODAY - 2)}.1.gz",
    ]
    files.close()


def test_an_idle_file_that_others_set_aside_is_let_go(isolated: Path) -> None:
    """So that it can be compressed without waiting for the next line."""
    files = AppendFiles.of(load_settings({"log_dir": isolated}))
    file = files["errors.log"]
    file.write(b"line\n")
    file.path.rename(isolated / f"errors.log.{day_text(TODAY)}.1")
    files._settle()
    assert file._descriptor < 0
    file.write(b"next\n")
    assert file.path.read_bytes() == b"next\n"
    files.close()


def test_a_file_that_stays_open_elsewhere_is_asked_for_ever_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not for ever: the thread ends, and the next rotation starts another."""
    monkeypatch.setattr(_log_retention, "_REST_SECONDS", 0.001)
    monkeypatch.setattr(_log_retention, "_LONGEST_REST_SECONDS", 0.002)
    monkeypatch.setattr(_log_retention, "_MOST_SWEEPS", 5)
    path = rotated(tmp_path)
    sweeps: list[int] = []
    mine = Keeper(lambda: [tmp_path / "ml_pipeline.log"], Retention(90), before=lambda: sweeps.append(1))
    with path.open("ab") as held:
        _platform.try_lock(held.fileno(), shared=True)
        mine.wake()
        eventually(lambda: not threads())
        assert len(sweeps) == 5
    mine.wake()
    eventually(lambda: names(tmp_path) == [f"{path.name}.gz"])
    mine.close()


def test_the_end_of_the_process_waits_for_no_large_file(tmp_path: Path) -> None:
    """The compression under way is given up, and its file stays as it was."""
    path = rotated(tmp_path)
    os.truncate(path, 1 << 32)  # four gigabytes of zeros, none on the disk
    mine = keeper(tmp_path, later=60)
    mine.wake()
    eventually(lambda: list(tmp_path.glob(".*.partial")))
    begun = time.monotonic()
    mine.close()
    assert time.monotonic() - begun < 4
    assert names(tmp_path) == [path.name]
    assert not threads()


def test_the_loggers_rotate_by_the_settings(isolated: Path) -> None:
    """Every record is there once, in order, over the files that were set aside; the audit trail is not among them."""
    from ml_pipeline import configure

    configure(log_dir=isolated / "logs", log_max_bytes=10_000)
    logger = get_logger("training.model_training")
    for number in range(200):
        logger.info("number %d", number)
    path = isolated / "logs" / "training" / "model_training.log"
    assert len(rotated_files(path)) > 1
    text = "".join(each.read_text() for each in [*(old.path for old in rotated_files(path)), path])
    assert [line.split('"message":"number ')[1].split('"')[0] for line in text.splitlines()] == [
        str(number) for number in range(200)
    ]
