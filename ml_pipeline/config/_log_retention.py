"""What becomes of rotated log files: compressed, and removed when they are too old or there are too many.

The work is done by a thread that starts when a file is set aside and ends when nothing is left to do. What a process
leaves undone at its end, the next one that rotates a file does. The audit trail is no matter of this module.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import os
import re
import stat
import threading
import time
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Final

from ml_pipeline import _platform, _runtime
from ml_pipeline.config._channels import AUDIT, CHANNELS, channel_path
from ml_pipeline.config._log_rotation import (
    SUFFIX_PATTERN,
    RotatedFile,
    day_of,
    day_text,
    is_in_place,
    rotated_files,
)
from ml_pipeline.errors import UnknownChannelError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

__all__ = ["Keeper", "Retention", "channel_files", "compress"]

_REST_SECONDS: Final = 5.0
"""From setting a file aside to compressing it: whoever still writes to it looks every second whether it is in place."""

_LONGEST_REST_SECONDS: Final = 60.0
_MOST_SWEEPS: Final = 60  # after the last rotation: then a file that is still open elsewhere waits for the next one
_SKEW_SECONDS: Final = 86_400
_CHUNK: Final = 1 << 20
_LEVEL: Final = 6  # as gzip itself: the levels above take twice as long for a hundredth less
_MODE: Final = 0o600
_DAG_FOLDER: Final = "airflow"
_DAG_FILE: Final = re.compile(rf"(?P<dag>.+?)\.log({SUFFIX_PATTERN})?")


@dataclass(frozen=True, slots=True)
class Retention:
    """How long rotated files are kept.

    Attributes:
        days: A file whose day is longer ago is removed.
        total_bytes: The oldest are removed where all log files together are larger; None: there is no such cap.
    """

    days: int
    total_bytes: int | None = None


class Keeper:
    """Compresses and removes what was set aside. Thread-safe.

    Args:
        files: Returns the log files whose rotated files are meant.
        retention: How long they are kept.
        before: Called at the start of each sweep.
        clock: Seconds since 1970.
    """

    def __init__(
        self,
        files: Callable[[], Iterable[Path]],
        retention: Retention,
        *,
        before: Callable[[], object] = lambda: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._files = files
        self._retention = retention
        self._before = before
        self._clock = clock
        self._lock = threading.RLock()
        self._sweeps_left = 0
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()
        self._warned_day: int | None = None

    def wake(self) -> None:
        """A file was set aside: have a thread see to it."""
        with self._lock:
            self._sweeps_left = _MOST_SWEEPS
            if self._thread is None or not self._thread.is_alive():
                self._ending = threading.Event()
                self._thread = threading.Thread(
                    target=self._run, args=(self._ending,), name="ml-pipeline-log-files", daemon=True
                )
                with contextlib.suppress(RuntimeError):  # the interpreter is at its end: left to the next process
                    self._thread.start()

    def close(self) -> None:
        """End the thread; a file it is compressing stays as it was."""
        with self._lock:
            thread, self._thread = self._thread, None
            self._ending.set()
        if thread is not None and thread.is_alive() and thread is not threading.current_thread():
            thread.join(_REST_SECONDS)

    def sweep(self) -> bool:
        """Remove what need not be kept, and compress what has rested long enough and nobody has open any more.

        Returns:
            Whether something is left to compress.
        """
        self._before()
        kept = self._remove(list(self._files()))
        left = 0
        for each in kept:
            if not each.is_packed and not self._ending.is_set():
                left += 1
                with _runtime.guard("log_retention"):  # one that cannot be compressed keeps no other from it
                    left -= compress(each.path, now=self._clock(), is_ending=self._ending.is_set)
        return left > 0

    def _run(self, ending: threading.Event) -> None:
        rest = _REST_SECONDS
        while not ending.is_set():
            with self._lock:
                self._sweeps_left -= 1
                sweeps_left = self._sweeps_left
            left = False
            with _runtime.guard("log_retention"):
                left = self.sweep()
            with self._lock:
                woken = self._sweeps_left != sweeps_left
                if not woken and (not left or not sweeps_left):
                    if self._thread is threading.current_thread():
                        self._thread = None
                    return
            rest = _REST_SECONDS if woken or sweeps_left >= _MOST_SWEEPS - 2 else min(rest * 2, _LONGEST_REST_SECONDS)
            ending.wait(rest)

    def _remove(self, files: list[Path]) -> list[RotatedFile]:
        found = [each for path in files for each in rotated_files(path)]
        self._remove_partial(files)
        oldest = day_of(self._clock()) - self._retention.days
        for each in found:
            if each.day < oldest:
                _unlink(each.path)
        kept = [each for each in found if each.day >= oldest]
        return kept if self._retention.total_bytes is None else self._cut(files, kept, self._retention.total_bytes)

    def _remove_partial(self, files: list[Path]) -> None:
        """Remove what a compression that was killed has left, where the file it was made from is gone too."""
        for folder in {path.parent for path in files}:
            for partial in folder.glob(".*.log.*.gz.partial"):
                source = partial.with_name(partial.name.removeprefix(".").removesuffix(".gz.partial"))
                if not source.exists() and any(source.name.startswith(f"{path.name}.") for path in files):
                    _unlink(partial)

    def _cut(self, files: list[Path], kept: list[RotatedFile], most: int) -> list[RotatedFile]:
        sizes = {each.path: _size(each.path) for each in kept}
        total = sum(sizes.values()) + sum(map(_size, files))
        waiting = sorted(kept, key=lambda each: (each.day, _changed(each.path), each.number))
        cut: list[RotatedFile] = []
        while total > most and waiting:
            cut.append(waiting.pop(0))
            _unlink(cut[-1].path)
            total -= sizes[cut[-1].path]
        if cut and not self._ending.is_set():
            self._warn(cut)
        return waiting

    def _warn(self, cut: list[RotatedFile]) -> None:
        """Say, once a day, that the cap took what the days would have kept."""
        today = day_of(self._clock())
        if self._warned_day != today:
            self._warned_day = today
            logging.getLogger("ml_pipeline.monitoring.monitoring").warning(
                "ML_PIPELINE_LOG_TOTAL_BYTES (%d) removes log files that ML_PIPELINE_LOG_RETENTION_DAYS (%d) would "
                "keep: %d of them, the last from %s; raise the one or lower the other",
                self._retention.total_bytes,
                self._retention.days,
                len(cut),
                day_text(cut[-1].day),
            )


def channel_files(folder: Path) -> list[Path]:
    """List the log files of every channel but the audit trail, those of DAGs as far as they exist.

    Args:
        folder: The log directory.
    """
    dags = folder / _DAG_FOLDER
    names = [path.name for path in dags.iterdir()] if dags.is_dir() else []
    found = {name["dag"] for name in map(_DAG_FILE.fullmatch, names) if name}
    paths = [channel.path for key, channel in CHANNELS.items() if key != AUDIT]
    for dag in sorted(found):
        with contextlib.suppress(UnknownChannelError):  # a file of someone else's
            paths.append(channel_path(f"{_DAG_FOLDER}.{dag}"))
    return [folder / path for path in paths]


def compress(path: Path, *, now: float, is_ending: Callable[[], bool] = lambda: False) -> bool:
    """Replace a rotated file by its compressed form, if it has rested and nobody has it open for writing.

    Writers hold a shared lock on what they have open, so a lock of one's own says that the last of them has let go. A
    kill at any moment leaves the file, or both forms, or the compressed one: never half of one under its name.

    Args:
        path: The rotated file.
        now: Seconds since 1970.
        is_ending: Says whether to leave it for another time.

    Returns:
        Whether nothing is left to do.

    Raises:
        OSError: If it cannot be read or the disk is full; the file is then as it was.
    """
    try:
        flags = os.O_RDWR | getattr(os, "O_BINARY", 0)  # a lock over a network needs write access
        descriptor = _platform.open_file(path, flags)
    except FileNotFoundError:
        return True
    with os.fdopen(descriptor, "rb") as source:
        before = os.fstat(descriptor)
        if not _has_rested(before, now) or not _platform.try_lock(descriptor):
            return False
        try:
            return not is_in_place(path, before) or _pack(path, source, before, is_ending)
        finally:
            _platform.unlock(descriptor)


def _pack(path: Path, source: BinaryIO, before: os.stat_result, is_ending: Callable[[], bool]) -> bool:
    packed = path.with_name(f"{path.name}.gz")
    held = _held_of(packed, source)
    if held is None:  # it was made of something else, and nobody can say which of the two is the true one
        _runtime.say_once(
            f"log_retention {path.name}",
            f"{path.name} is not compressed, for {packed.name} holds other lines: remove the one that is false",
        )
        return True
    if held != before.st_size:
        source.seek(0)
        partial = path.with_name(f".{packed.name}.partial")
        try:
            if not _write_packed(partial, path.name, source, before, is_ending):
                return False
            partial.rename(packed)
        finally:
            partial.unlink(missing_ok=True)
    path.unlink()
    return True


def _write_packed(
    partial: Path, name: str, source: BinaryIO, before: os.stat_result, is_ending: Callable[[], bool]
) -> bool:
    """Write the compressed form and say whether it is whole: the file has not changed meanwhile."""
    with os.fdopen(_platform.open_file(partial, _platform.ANEW, _MODE), "wb") as file:
        with gzip.GzipFile(name, "wb", _LEVEL, fileobj=file, mtime=before.st_mtime) as packing:
            left = before.st_size  # not to the end, which a writer that never lets go would move on and on
            while chunk := source.read(min(_CHUNK, left)):
                if is_ending():
                    return False
                packing.write(chunk)
                left -= len(chunk)
        file.flush()
        os.fsync(file.fileno())
    if hasattr(os, "chown"):
        with contextlib.suppress(OSError):  # a group that is not among one's own
            os.chown(partial, -1, before.st_gid)
    partial.chmod(stat.S_IMODE(before.st_mode))
    os.utime(partial, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = os.fstat(source.fileno())
    return (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def _held_of(packed: Path, source: BinaryIO) -> int | None:
    """Say how many bytes of a file its compressed form holds, from the first on; None if it holds others.

    -1 stands for one that is missing or cannot be unpacked.
    """
    held = 0
    try:
        with gzip.open(packed, "rb") as file:
            while chunk := file.read(_CHUNK):
                if source.read(len(chunk)) != chunk:
                    return None
                held += len(chunk)
    except (OSError, EOFError, zlib.error):
        return -1
    return held


def _has_rested(file: os.stat_result, now: float) -> bool:
    # A renaming changes the time of the inode. A clock that was wrong by days must not keep the file for ever.
    age = now - max(file.st_mtime, file.st_ctime)
    return age >= _REST_SECONDS or age < -_SKEW_SECONDS


def _unlink(path: Path) -> None:
    with _runtime.guard("log_retention"):  # one that cannot be removed keeps no other
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # gone, by another process
        return 0


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
