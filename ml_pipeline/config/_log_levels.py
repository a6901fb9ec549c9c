"""Levels per channel and per module, from the settings and from the command line, changed while the process runs.

A name stands for a channel (``training.model_training``), a group of channels (``training``), a module by the name its
lines show (``my.package``, and what lies below it), or everything (``ml_pipeline``). Each becomes the level of standard
loggers, so nothing is asked at a log call that `logging` would not ask. A level that a program set is left alone.

``ml-pipeline logs level`` reaches a running process through a file in its data folder. A process looks at it when it
looks after its log files: at most once a second, on the way of a record. One whose records are all below its level
writes none and so does not look: a look at each call that is not written would cost more than the call, and a thread
only for this would make every process that logs one of several threads. `Reload` has one, for who asks for it.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from ml_pipeline import _platform, _runtime
from ml_pipeline._environment import LEVEL_NAMES, level_rules
from ml_pipeline.config._channels import AUDIT, CHANNELS, OPEN_ENDED, ROOT
from ml_pipeline.errors import SettingsError, closest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from ml_pipeline.settings import Settings

__all__ = ["UNSET", "LevelsInForce", "Told", "taken_for_module", "tell_level", "told_levels", "withdraw_levels"]

_FILE: Final = "log_levels.json"
_DEFAULT: Final = "DEFAULT"
_MOST_BYTES: Final = 1_000_000


class OurLevel(int):
    """A level that is ours to change; one that a program set is an ``int``."""

    __slots__ = ()


UNSET: Final = OurLevel(1)
"""The level of the logger ``ml_pipeline`` until the settings are read.

Everything passes, so that a plain child logger's first record reaches our handler, which reads the settings. It could
not read them sooner: such a logger looks for its level under `logging`'s own lock.
"""


class Told(NamedTuple):
    """What someone told running processes.

    Attributes:
        name: Of channel, group or module.
        level: Its least level.
        pid: The one process that is meant; None: all that use this data folder.
        start: When that process started, to tell it from a later one of the same id.
    """

    name: str
    level: str
    pid: int | None = None
    start: str | None = None


class LevelsInForce:
    """Puts the levels on the loggers, and does so again when someone has told others. Thread-safe.

    Args:
        settings: Where the levels of the start are.
        main: The logger ``ml_pipeline``.
        resolve: Tells, for the name of a logger, its channel and the name shown.
    """

    def __init__(self, settings: Settings, main: logging.Logger, resolve: Callable[[str], tuple[str, str]]) -> None:
        self._settings = settings
        self._main = main
        self._resolve = resolve
        self._path = settings.data_dir / _FILE
        self._seen: object = None
        self._rules: dict[str, OurLevel] = {}
        self._is_put = False
        self._has_changed()
        self._read()

    def put(self) -> bool:
        """Put the levels in force; say whether they were not yet."""
        if self._is_put and self._main.level is not UNSET:  # which someone who set another for a while puts back
            return False
        with _runtime.guard("log_levels"):
            self._apply()
        self._is_put = True
        return True

    def adopt(self, logger: logging.Logger) -> None:
        """Give a logger that is new the level that is meant for its module."""
        if self._is_put and len(self._rules) > 1:
            for each, level in self._wanted_of({logger.name: logger}):
                _set(each, level)

    def look(self) -> None:
        """See whether someone has told other levels, and put those in force."""
        with _runtime.guard("log_levels"):
            if self._has_changed():
                self._read()
                if self._is_put:
                    self._apply()

    def _has_changed(self) -> bool:
        try:
            held = os.stat(self._path)  # noqa: PTH116 - half of what `Path.stat` costs
            now: object = (held.st_ino, held.st_mtime_ns, held.st_size)
        except OSError:  # there is none, or nobody may see it
            now = None
        before, self._seen = self._seen, now
        return before != now

    def _read(self) -> None:
        told: list[Told] = []
        if self._seen is not None:
            with _runtime.guard("log_levels"):
                told = told_levels(self._settings.data_dir)
        rules: dict[str, str] = {ROOT: self._settings.log_level}
        for rule in self._settings.log_levels:
            name, _, level = rule.partition("=")
            rules[name] = level
        for each in sorted(filter(_is_for_us, told), key=lambda each: each.pid is not None):
            rules[each.name] = each.level
        names = logging.getLevelNamesMapping()
        self._rules = {name: OurLevel(names[level]) for name, level in rules.items()}

    def _apply(self) -> None:
        known = _loggers()
        wanted = dict(self._wanted_of(known))
        for each in known.values():
            if isinstance(each.level, OurLevel) and each not in wanted:
                each.setLevel(logging.NOTSET)
        for each, level in wanted.items():
            _set(each, level)

    def _wanted_of(self, known: Mapping[str, logging.Logger]) -> Iterator[tuple[logging.Logger, OurLevel]]:
        for name, level in self._rules.items():
            if name == ROOT:
                if isinstance(self._main.level, OurLevel):
                    yield self._main, level
            else:  # those below follow, whoever makes them, and when
                yield logging.getLogger(name), level
                yield logging.getLogger(f"{ROOT}.{name}"), level
        for name, logger in known.items():
            if name.startswith(ROOT + "."):
                of_module = self._level_of_module(self._resolve(name)[1])
                if of_module is not None:
                    yield logger, of_module

    def _level_of_module(self, shown: str) -> OurLevel | None:
        while shown:
            if shown in self._rules and shown != ROOT:
                return self._rules[shown]
            shown = shown.rpartition(".")[0]
        return None


def withdraw_levels(main: logging.Logger) -> None:
    """Take back every level that is ours, so that the settings are read at the next record."""
    for each in _loggers().values():
        if isinstance(each.level, OurLevel) and each is not main:
            each.setLevel(logging.NOTSET)
    if isinstance(main.level, OurLevel):
        main.setLevel(UNSET)


def told_levels(folder: Path) -> list[Told]:
    """Read what running processes were told.

    Args:
        folder: The data folder.

    Returns:
        In the order it was told; nothing where there is no file.

    Raises:
        SettingsError: If the file is not one that `tell_level` wrote.
    """
    path = folder / _FILE
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return []
    try:
        rows = [Told(**row) for row in orjson.loads(content)]
        for row in rows:
            level_rules(row.name + "=" + row.level)
    except (TypeError, ValueError, AttributeError):
        raise SettingsError(
            "the levels that were told must be as `ml-pipeline logs level` writes them", str(path), "remove the file"
        ) from None
    return rows


def tell_level(folder: Path, name: str, level: str, pid: int | None = None) -> Told | None:
    """Tell running processes, and those that start later, the least level of a channel or module.

    Args:
        folder: The data folder that they use.
        name: A channel, a group of channels, a module, or ``ml_pipeline``.
        level: The level; ``default`` takes back what was told of this name.
        pid: Only this process.

    Returns:
        What is told from now on; None where something was taken back.

    Raises:
        SettingsError: If name, level or process cannot be.
        OSError: If the data folder cannot be written.
    """
    told = _judged(name, level, pid)
    path = folder / _FILE
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f".{_FILE}.lock").open("ab") as lock:
        _platform.lock_exclusive(lock.fileno())
        try:
            others = [each for each in told_levels(folder) if (each.name, each.pid) != (told.name, told.pid)]
            kept = [each for each in others if each.pid is None or _platform.process_start(each.pid) == each.start]
            rows = kept if told.level == _DEFAULT else [*kept, told]
            _platform.replace_durably(path, orjson.dumps([row._asdict() for row in rows]) + b"\n")
        finally:
            _platform.unlock(lock.fileno())
    return None if told.level == _DEFAULT else told


def taken_for_module(name: str) -> str | None:
    """Say so if a name is no channel or group of them, and which it may have been meant to be; None if it is one."""
    parts = [key.split(".") for key in (*CHANNELS, OPEN_ENDED)]
    known = {".".join(part[:length]) for part in parts for length in range(1, len(part) + 1)}
    if name in known or name.startswith(f"{OPEN_ENDED}."):
        return None
    meant = closest(name, known)
    return f"there is no channel {name}{f' ({meant})' if meant.endswith('?') else ''}: it is taken for a module"


def _judged(name: str, level: str, pid: int | None) -> Told:
    if name == AUDIT:
        raise SettingsError("the audit trail has no level: every record is written", name, "name another channel")
    wanted = level.upper()
    if wanted not in (*LEVEL_NAMES, _DEFAULT):
        raise SettingsError("a level must be one of the known names", level, closest(wanted, (*LEVEL_NAMES, _DEFAULT)))
    try:
        level_rules(f"{name}={LEVEL_NAMES[0] if wanted == _DEFAULT else wanted}")
    except ValueError as unfit:
        raise SettingsError("a level is for a channel or a module", name, str(unfit)) from None
    start = None if pid is None else _platform.process_start(pid)
    if pid is not None and start is None:
        raise SettingsError("--pid must be the id of a running process", pid, "`ps` lists them")
    return Told(name, wanted, pid, start)


def _is_for_us(told: Told) -> bool:
    return told.pid is None or (told.pid == os.getpid() and _platform.process_start(told.pid) == told.start)


def _loggers() -> dict[str, logging.Logger]:
    known: Iterable[tuple[str, object]] = list(logging.getLogger().manager.loggerDict.items())
    return {name: logger for name, logger in known if isinstance(logger, logging.Logger)}


def _set(logger: logging.Logger, level: OurLevel) -> None:
    if logger.level != level and (logger.level == logging.NOTSET or isinstance(logger.level, OurLevel)):
        logger.setLevel(level)
