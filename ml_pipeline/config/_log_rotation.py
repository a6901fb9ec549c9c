"""When a log file is set aside, and under which name: ``NAME.log.2026-11-20.3``, later ``NAME.log.2026-11-20.3.gz``.

A file is set aside by renaming it, so that no line moves: who still has it open goes on writing to it until it looks.
Days are those of UTC, as the timestamps of the JSON lines are: they are all equally long, whatever the time zone, and
the hosts of one file agree on them.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Final

from ml_pipeline import _platform, _runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = [
    "DAY_SECONDS",
    "SUFFIX_PATTERN",
    "RotatedFile",
    "Rotation",
    "day_of",
    "day_text",
    "is_in_place",
    "locked_if_free",
    "rotated_files",
]

DAY_SECONDS: Final = 86_400

SUFFIX_PATTERN: Final = r"\.(?P<day>[0-9]{4}-[0-9]{2}-[0-9]{2})\.(?P<number>[0-9]{1,18})(?P<packed>\.gz)?"
"""What stands behind the name of a log file in the name of one that was set aside of it."""

_EPOCH: Final = date(1970, 1, 1).toordinal()
_UNBOUNDED: Final = 1 << 62
_LAST_DAY: Final = date.max.toordinal() - _EPOCH
_COARSE_SECONDS: Final = 0.02  # the time of a file is that of the kernel's last tick: at midnight, of the day before
_SUFFIX: Final = re.compile(SUFFIX_PATTERN)


@dataclass(frozen=True, slots=True)
class RotatedFile:
    """A log file that was set aside.

    Attributes:
        day: The day its lines are from, counted from 1970-01-01.
        number: Counts the files of a day, from 1 on; the higher, the later.
        path: Where it lies.
        is_packed: Whether it is compressed. For a moment, or after a kill, both forms lie there, with the same lines.
    """

    day: int
    number: int
    path: Path
    is_packed: bool


class Rotation:
    """Sets the files of a folder aside, once each, whoever else writes to them.

    Args:
        folder: Where the lock lies that keeps processes apart; the files lie in it or below.
        max_bytes: A file of this size is full; None: only the day counts.
        clock: Seconds since 1970.
    """

    def __init__(self, folder: Path, *, max_bytes: int | None = None, clock: Callable[[], float] = time.time) -> None:
        self.folder = folder
        self._lock_path = folder / ".rotation.lock"
        self._max_bytes = _UNBOUNDED if max_bytes is None else max_bytes
        self._clock = clock
        self.on_rotated: Callable[[], None] = lambda: None
        """Called after each file that was set aside."""

    def today(self) -> int:
        """The present day, counted from 1970-01-01."""
        return day_of(self._clock())

    def day_of_file(self, held: os.stat_result) -> int:
        """The day of a file's last line; where there is none, the present day."""
        return day_of(held.st_mtime + _COARSE_SECONDS) if held.st_size else self.today()

    def seconds_left_today(self) -> float:
        """Until the next day, by the present clock."""
        return DAY_SECONDS - self._clock() % DAY_SECONDS

    def room(self, size: int) -> float:
        """How many bytes may be written to a file of this size before it is worth asking `is_due` again."""
        return self._max_bytes - size if size < self._max_bytes else self._max_bytes

    def is_due(self, size: int, day: int, today: int | None = None) -> bool:
        """Say whether a file is full, or of another day.

        A clock that is set back by less than a day goes on in the same file: two hosts whose clocks differ would take
        turns at midnight. One that is set back further had been wrong, and its day would never be over.

        Args:
            size: Of the file; an empty one is never due.
            day: The day of its lines.
            today: The present day, if it is known.
        """
        if today is None:
            today = self.today()
        return size > 0 and (size >= self._max_bytes or today > day or day - today > 1)

    def rotate(self, path: Path, held: os.stat_result, day: int) -> bool:
        """Set a file aside, unless another process just did.

        Args:
            path: The file. A link is left alone: it is someone's own arrangement.
            held: The file that is due, to tell it from one that has taken its place.
            day: The day of its lines.

        Returns:
            Whether another file belongs at *path* now. If not, because someone else holds the lock, ask again later.

        Raises:
            OSError: If the folder cannot be written or the file system refuses locks.
        """
        hindrance = _platform.rename_hindrance()
        if hindrance:
            _runtime.say_once("rotation", f"log files are not rotated: {hindrance}")
            return False
        if path.is_symlink():
            return False
        with locked_if_free(self._lock_path) as is_locked:
            if not is_locked:  # never waited for: a log call does not hang
                return False
            if not is_in_place(path, held):
                return True
            path.rename(_next_name(path, day))
        self.on_rotated()
        return True


@contextlib.contextmanager
def locked_if_free(path: Path) -> Iterator[bool]:
    """Hold the lock of a file, made if it is missing, if that needs no waiting; only where files can be locked.

    Args:
        path: The file, which nobody writes to.

    Yields:
        Whether it is held; if not, another process holds it, or has just put another file in its place.

    Raises:
        OSError: If the file cannot be opened, or the file system refuses locks.
    """
    descriptor = _platform.open_for_group(path, os.O_RDWR)
    try:
        is_locked = _platform.try_lock(descriptor) and is_in_place(path, os.fstat(descriptor))
        try:
            yield is_locked
        finally:
            _platform.unlock(descriptor)  # a child forked meanwhile would keep what a mere close leaves
    finally:
        os.close(descriptor)


def rotated_files(path: Path) -> list[RotatedFile]:
    """Find what was set aside of a log file.

    Args:
        path: The log file itself.

    Returns:
        Its rotated files, oldest first; none where the folder is missing.

    Raises:
        OSError: If the folder cannot be read.
    """
    found = []
    try:
        names = [each.name for each in path.parent.iterdir()]
    except FileNotFoundError:
        return []
    for name in names:
        suffix = _SUFFIX.fullmatch(name.removeprefix(path.name)) if name.startswith(path.name) else None
        day = _day_in(suffix["day"]) if suffix else None
        if suffix and day is not None:
            found.append(RotatedFile(day, int(suffix["number"]), path.with_name(name), bool(suffix["packed"])))
    return sorted(found, key=lambda each: (each.day, each.number, each.is_packed))


def day_of(seconds: float) -> int:
    """The day of a moment in UTC, counted from 1970-01-01 and kept to the days a name can hold."""
    return min(max(int(seconds // DAY_SECONDS), 0), _LAST_DAY)


def day_text(day: int) -> str:
    """A day as it stands in a name, such as ``2026-11-20``."""
    return date.fromordinal(_EPOCH + day).isoformat()


def is_in_place(path: Path, held: os.stat_result) -> bool:
    """Say whether an open file is the one at a path.

    Raises:
        OSError: If that cannot be seen.
    """
    try:
        return os.path.samestat(path.stat(), held)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _day_in(text: str) -> int | None:
    try:
        return date.fromisoformat(text).toordinal() - _EPOCH
    except ValueError:
        return None


def _next_name(path: Path, day: int) -> Path:
    # Past every number of that day, so that a clock that was set back never meets a name that is taken.
    number = max((each.number for each in rotated_files(path) if each.day == day), default=0) + 1
    return path.with_name(f"{path.name}.{day_text(day)}.{number}")
