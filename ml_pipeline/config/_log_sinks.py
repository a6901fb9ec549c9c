"""Sinks that a program adds: a file of its own, a function, anything with ``write``.

A sink is a `logging.Handler` like any other. What it is given is redacted and bounded as in our own files, whatever the
format. A sink that raises is counted and said once, and the job goes on; one that logs does not get its own record.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import threading
import time
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _environment, _runtime
from ml_pipeline.config._channels import CHANNELS, OPEN_ENDED
from ml_pipeline.config._log_catch import level_number
from ml_pipeline.config._log_files import AppendFile
from ml_pipeline.config._log_retention import Keeper, Retention
from ml_pipeline.config._log_rotation import Rotation, day_of
from ml_pipeline.config._log_shapes import Shape, shape_of
from ml_pipeline.config._log_words import Period, RotationWords, retention_days, rotation_words
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Callable

    from ml_pipeline.settings import Settings

__all__ = ["Sink", "add_sink", "remove_sinks"]

_FOR_EVER: Final = 1_000_000
_NEVER: Final = float("inf")
_PLACEHOLDER: Final = re.compile(r"\{time|[{}][^/\\]*$")
"""As in loguru's paths; in the name of a file, no braces at all."""


class Sink(logging.Handler):
    """What `PipelineLogger.add` returns; `PipelineLogger.remove` takes it.

    Args:
        shape: Makes of a record what *put* is given.
        put: Writes it; never called twice at once. A record of another thread waits for it, at most
            ``LOG_SLOW_SECONDS``; it is dropped and counted then, as are those after it until *put* has returned.
        done: Called when the sink is closed; it may be used again.
        select: Says which records are meant; None: all.
    """

    def __init__(
        self,
        shape: Shape,
        put: Callable[[Any], object],
        done: Callable[[], object],
        select: Callable[[logging.LogRecord], object] | None,
    ) -> None:
        super().__init__()
        self._shape = shape
        self._put = put
        self._done = done
        self._here = threading.local()
        self._is_removed = False
        self._is_stuck = False
        if select is not None:
            self.addFilter(select)  # type: ignore[arg-type]

    def handle(self, record: logging.LogRecord) -> bool:
        """Write the record, unless it was made inside this sink by the same thread; see `logging.Handler.handle`."""
        if getattr(self._here, "is_inside", False):
            _runtime.tally.log_records_dropped["recursion"] += 1
            return False
        self._here.is_inside = True
        try:
            with _runtime.guard("log_sink", _count_dropped):
                return self._written(record)
        finally:
            self._here.is_inside = False
        return False

    def _written(self, record: logging.LogRecord) -> bool:
        passed = self.filter(record)
        if passed:
            # Outside the lock: to format a record is to run code of the objects in it, which may wait for others.
            shaped = self._shape(record)
            self._take_turn()
            try:
                if not self._is_removed:
                    self._put(shaped)
            finally:
                self._is_stuck = False
                self.release()
        return bool(passed)

    def _take_turn(self) -> None:
        # One at a time, as `logging` promises its handlers, and in order: so others wait. But not for ever, for the
        # sink may itself be waiting for one of them, as a function does that joins a thread.
        seconds = _runtime.settings().log_slow_seconds
        timeout = 0 if self._is_stuck else seconds or -1
        if self.lock is None or self.lock.acquire(timeout=timeout):
            return
        self._is_stuck = True
        raise TimeoutError(
            f"a sink must let other threads have their turn (got none in {seconds:g} s); in it, wait for no thread "
            "that logs, and put what takes long in a queue"
        )

    def close(self) -> None:
        """Let go of what is open; a later record opens it again, for `logging` closes handlers that are still used."""
        with self.lock or threading.Lock(), _runtime.guard("log_sink"):
            self._done()
        super().close()

    def remove(self) -> None:
        """Write nothing any more; a record that another thread is writing is waited for."""
        with self.lock or threading.Lock():
            self._is_removed = True
        self.close()


def add_sink(
    logger: logging.Logger,
    target: object,
    resolve: Callable[[str], tuple[str, str]],
    *,
    level: int | str = logging.NOTSET,
    filter: Any = None,  # noqa: A002 - the name that loguru and `logging` have for it
    format: Any = None,  # noqa: A002 - likewise
    rotation: str | int | dt.timedelta | dt.time | None = None,
    retention: str | dt.timedelta | None = None,
) -> Sink:
    """Make a sink and add it to a logger; see `PipelineLogger.add`.

    Args:
        logger: Its records, and those of the loggers below it, are meant.
        target: A path, a function, or an object with ``write``.
        resolve: Tells, for the name of a logger, its channel and the name shown.
        level: The least level.
        filter: Which records are meant.
        format: What is written of one.
        rotation: When a file is set aside.
        retention: How long it is kept then.

    Raises:
        SettingsError: If an argument is not of its kind.
    """
    least, select = level_number(level), _selection(filter, resolve)
    if isinstance(target, (str, os.PathLike)):
        words = None if rotation is None else rotation_words(rotation)
        if retention is not None and words is None:
            raise SettingsError("retention needs a rotation", retention, "give both, as in rotation='1 day'")
        days = _FOR_EVER if retention is None else retention_days(retention)
        shape = shape_of(_runtime.settings().log_format if format is None else format, resolve)
        file = _File(_path(target), words, days)
        sink = Sink(shape.line, file.write, file.close, select)
    else:
        if rotation is not None or retention is not None:
            raise SettingsError("rotation and retention are for a path", target, "leave them out")
        sink = _sink_of_object(target, "text" if format is None else format, resolve, select)
    sink.setLevel(least)
    logger.addHandler(sink)
    return sink


def remove_sinks(logger: logging.Logger, sink: logging.Handler | None) -> None:
    """Remove one sink, or all of a logger; see `PipelineLogger.remove`.

    Raises:
        SettingsError: If it is none of this logger's.
    """
    own = [each for each in logger.handlers if isinstance(each, Sink)]
    if sink is not None and sink not in own:
        raise SettingsError("remove takes what add of the same logger returned", sink, "or nothing, for all of them")
    for each in own if sink is None else [each for each in own if each is sink]:
        logger.removeHandler(each)
        each.remove()


class _File:
    """A file of a sink. A forked child has its own; so has the time after `configure`."""

    def __init__(self, path: Path, words: RotationWords | None, days: int) -> None:
        self._path = path
        self._words = words
        self._days = days

    def write(self, line: str) -> None:
        _open_files.get().of(self).write(line.encode("utf-8", "backslashreplace"))

    def close(self) -> None:
        files = _open_files.peek()
        if files is not None:
            files.close_one(self)

    def opened(self) -> tuple[AppendFile, Keeper | None]:
        slow_seconds = _runtime.settings().log_slow_seconds
        if self._words is None:
            return AppendFile(self._path, slow_seconds=slow_seconds), None
        rotation = _WordRotation(self._path.parent, self._words)
        file = AppendFile(self._path, rotation, slow_seconds=slow_seconds)
        keeper = Keeper(lambda: [self._path], Retention(self._days), before=file.let_go)
        rotation.on_rotated = keeper.wake
        return file, keeper


class _OpenFiles:
    """The files of all sinks that are open in this process."""

    def __init__(self, settings: Settings) -> None:
        del settings
        self._opened: dict[_File, tuple[AppendFile, Keeper | None]] = {}

    def of(self, file: _File) -> AppendFile:
        found = self._opened.get(file) or self._opened.setdefault(file, file.opened())
        return found[0]

    def close_one(self, file: _File) -> None:
        opened, keeper = self._opened.pop(file, (None, None))
        if keeper is not None:
            keeper.close()
        if opened is not None:
            opened.close()

    def close(self) -> None:
        for file in list(self._opened):
            self.close_one(file)


_open_files: Final = _runtime.Lazy(_OpenFiles, _OpenFiles.close)


class _WordRotation(Rotation):
    """A rotation at a size, at the beginning of a period, or at both, where `Rotation` has days."""

    def __init__(self, folder: Path, words: RotationWords, *, clock: Callable[[], float] = time.time) -> None:
        super().__init__(folder, max_bytes=words.max_bytes, clock=clock)
        self._period: Period | None = words.period

    def today(self) -> int:
        """The number of the present period; there is but one where only the size counts."""
        return 0 if self._period is None else self._period.number(self._clock())

    def day_of_file(self, held: os.stat_result) -> int:
        """The period of a file's last line."""
        return self._period.number(held.st_mtime) if self._period and held.st_size else self.today()

    def seconds_left_today(self) -> float:
        """Until the next period."""
        if self._period is None:
            return _NEVER
        now = self._clock()
        return self._period.begin(self._period.number(now) + 1) - now

    def rotate(self, path: Path, held: os.stat_result, day: int) -> bool:
        """Set a file aside under the day of its last line, from which the days it is kept are counted."""
        del day  # a period
        return super().rotate(path, held, day_of(held.st_mtime))


def _path(given: str | os.PathLike[str]) -> Path:
    try:
        path = _environment.absolute(Path(given))
        real = Path(os.path.realpath(path))
    except (TypeError, ValueError) as unfit:
        raise SettingsError("the path of a sink must be one that a file can have", given, str(unfit)) from None
    if _PLACEHOLDER.search(str(given)):
        raise SettingsError(
            "the path of a sink has no placeholders",
            str(given),
            "with rotation='1 day' files are set aside by their day",
        )
    folder = Path(os.path.realpath(_runtime.settings().log_dir))
    if real.is_relative_to(folder) and _is_ours(real.relative_to(folder)):
        raise SettingsError(
            "a sink must not write to the file of a channel", str(path), "name another file, or use get_logger"
        )
    if path.is_dir():
        raise SettingsError("the path of a sink must be a file, not a folder", str(path), "add a file name")
    return path


def _is_ours(name: PurePath) -> bool:
    """Say whether a file below the log folder is a channel's, one beside it such as a rotated one, or a lock."""
    channel = name.with_name(name.name.partition(".")[0] + ".log").as_posix()
    return (
        channel in {each.path for each in CHANNELS.values()}
        or name.parts[0] == OPEN_ENDED
        or name.name.startswith((".", "alerts.json"))
    )


def _sink_of_object(target: Any, format: Any, resolve: Any, select: Any) -> Sink:  # noqa: A002
    if inspect.iscoroutinefunction(target):
        raise SettingsError(
            "a sink must not be a coroutine function: a log call waits for nobody", target, "put the text in a queue"
        )
    if isinstance(target, logging.Handler):
        raise SettingsError("add makes a handler of its own", target, "give this one to addHandler")
    write = getattr(target, "write", None)
    if callable(write):
        shape = shape_of(format, resolve, coloured=_is_terminal(target))
        flush = getattr(target, "flush", None) or (lambda: None)

        def put(text: str) -> None:
            write(text)
            flush()

        return Sink(shape.line, put, lambda: None, select)
    if callable(target) and not isinstance(target, type):
        return Sink(shape_of(format, resolve).message, target, lambda: None, select)
    raise SettingsError("a sink must be a path, a function, or an object with write", target, "give one of them")


def _is_terminal(stream: Any) -> bool:
    from ml_pipeline.config._log_events import takes_colour

    return stream in (sys.stderr, sys.stdout) and takes_colour(stream)


def _selection(given: Any, resolve: Callable[[str], tuple[str, str]]) -> Callable[[logging.LogRecord], object] | None:
    if given is None:
        return None
    if isinstance(given, str):
        prefix = given + "."

        def is_meant(record: logging.LogRecord) -> bool:
            return any(name == given or name.startswith(prefix) for name in (*resolve(record.name), record.name))

        return is_meant
    if callable(given) or hasattr(given, "filter"):
        return given  # type: ignore[no-any-return]
    raise SettingsError(
        "filter must be a function of a record, a channel or module by name, or a logging.Filter", given, "give one"
    )


def _count_dropped(error: Exception) -> None:
    _runtime.tally.log_records_dropped[type(error).__name__] += 1
