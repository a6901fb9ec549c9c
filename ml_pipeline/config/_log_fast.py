"""The short way from a log call to its line: no ``LogRecord``, a few pieces of bytes joined.

Records are mostly alike. Of one more record only the moment, the message and the fields are new: its logger, level,
ids, call site and thread were encoded when they were first seen, and are looked up. What is new must be of Python's own
plain types, so no code of the caller's runs here that could raise, wait, or log in the middle.

Any other record is refused before anything is written, and goes the long way: a ``LogRecord``, then `_log_format`. Both
ways write the same bytes, which tests hold for any input; what a line says is decided in `_log_format` alone.
"""

from __future__ import annotations

import logging
import math
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias, TypeVar

import orjson

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._encoding import encode, rfc3339, to_plain
from ml_pipeline.config._log_format import EXTRA_KEY, GIVEN_KEYS, OWN_ATTRIBUTES, without_empty
from ml_pipeline.config._log_handle import LineFile

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType

__all__ = ["LOGGING_FILE", "REFUSALS", "Aim", "ShortWay", "formatted"]

K = TypeVar("K")
V = TypeVar("V")

LOGGING_FILE: Final = logging.Logger.info.__code__.co_filename

_PLAIN: Final = frozenset({str, int, bool, type(None)})
"""Types whose values JSON has a form for; of floats, those that are finite."""
_TEXT: Final = frozenset({str, type(None)})
_TAKEN: Final = OWN_ATTRIBUTES | {EXTRA_KEY}
_MOST_BYTES: Final = 4_096
"""Of message and fields together: within it, none of the bounds of `to_plain` can be reached."""
_MOST_KNOWN: Final = 5_000
"""Pieces of one kind; past it, all are forgotten and encoded anew."""
_DELETE: Final = 0x7F  # the one ASCII character that JSON leaves as it is and a line must not hold
_CONTEXT: Final = b',"context":'
_FRAMES_TO_CALLER: Final = 2
"""From `ShortWay.put` past the log call."""
_TO_WHOLE: Final = 1.5 * 2**52
"""A float this large holds nothing below 1, so that adding it rounds; to even, as `datetime` rounds."""
_FRACTIONS: Final = {number + _TO_WHOLE: b"%03d" % number for number in range(1_000)}
"""The last digits of a moment, by the microseconds of its millisecond, rounded so."""
_NEXT_MILLISECOND: Final = 999.5
"""So many microseconds are rounded up to a millisecond."""

REFUSALS: Final = (TypeError, ValueError, ArithmeticError, LookupError, MemoryError)
"""What formatting and encoding plain values can raise; such a record is refused."""

# Names of this module are found sooner than those of another.
_logging: Final = logging
_root: Final = logging.root
_LogRecord: Final = logging.LogRecord
_level_names: Final = logging._levelToName  # `addLevelName` changes it
_frame: Final = sys._getframe
_monotonic = time.monotonic
_append: Final = os.write
_joined: Final = b"".join
_dumps, _STRICT = orjson.dumps, orjson.OPT_STRICT_INTEGER
_operation, _user_id = _context.operation.get, _context.user_id.get
_operation_id, _run_id = _context.operation_id.get, _context.run_id.get
_trace_id, _span_id = _context.trace_id.get, _context.span_id.get
_carried, _memo = _context.fields.get, _context.memo.get


class Aim(NamedTuple):
    """Where the records of one logger and level go.

    Attributes:
        channel: The channel.
        shown: The name shown on the line.
        files: The files by channel.
    """

    channel: str
    shown: str
    files: list[tuple[str, LineFile]]


# A plain tuple is taken apart five times faster than a named one: the level's name, the name shown, the bytes from the
# second's fraction to the message, the files, and the cell that counts the records of them all.
_Target: TypeAlias = tuple[str, str, bytes, tuple[LineFile, ...], list[int]]
_Failed: TypeAlias = tuple[tuple[LineFile, Exception], ...]
_NONE: Final[_Failed] = ()
_OFTEN: Final = 255
"""After so many records of one target, and one, the files hear the time even if the clock stands."""


class ShortWay:
    """Writes plain records to their files and to the console, under one set of settings and in one process.

    Thread-safe: what its tables hold depends on the key alone.

    Args:
        pipeline: The name that stands on every line.
        hides: Says whether the value of a field of this name is redacted; such a record is refused.
        aim: Tells where the records of a logger, by its name, and a level go.
        show: Shows moment, level, name and message on the console; None where there is none.
        lost: Told of what a file raised.
        ours: Our handler, alone in a list.
        deaf: Handlers, in a list, that are known to pass our records by.
    """

    def __init__(
        self,
        pipeline: str,
        hides: Callable[[str], bool],
        aim: Callable[[str, int], Aim],
        show: Callable[[float, str, str, str], None] | None,
        lost: Callable[[Exception], None],
        *,
        ours: list[logging.Handler],
        deaf: list[logging.Handler],
    ) -> None:
        self._pipeline = pipeline
        self._hides = hides
        self._aim = aim
        self._show = show
        self._lost = lost
        self._ours = ours
        self._deaf = deaf
        self._moment = (0.0, 0.0, b"")
        self._files: dict[LineFile, None] = {}
        self._targets: dict[int, dict[logging.Logger, _Target]] = {}
        self._free: set[str] = set()
        self._free_within: set[str] = set()
        self._ids: dict[tuple[str | None, ...], bytes] = {}
        self._sites: dict[tuple[int, int], tuple[CodeType, bytes]] = {}
        self._origins: dict[tuple[str | None, bool], bytes] = {}

    def forget_targets(self) -> None:
        """Look up anew where each logger's records go."""
        self._targets.clear()

    def put(  # noqa: C901, PLR0911, PLR0912, PLR0915 - one function, from top to bottom: ten would cost twice as much
        self, logger: logging.Logger, level: int, message: object, args: tuple[Any, ...], extra: Any
    ) -> bool:
        """Write a record; False, and nothing written, where it must go the long way.

        Args:
            logger: Where it was logged; *level*, *message*, *args* and *extra* are as given there, by the caller of
                the function that calls this one.
            level: Its level.
            message: Its message.
            args: What belongs into the message.
            extra: Its fields, or what `log_operation` made of them.
        """
        # Is there anyone else to whom it must go? Who adds a handler or filter does not tell us, so all are looked at.
        above = logger
        while not above.handlers:
            if not above.propagate or above.parent is None:
                return False
            above = above.parent
        ours = self._ours
        if above.handlers != ours or logger.filters or ours[0].filters or ours[0].level:
            return False
        while above.propagate and above.parent is not None:
            above = above.parent
            if above is _root:  # of another class than ours: looked at in one place, both would be slow
                if _root.handlers and _root.handlers != self._deaf:
                    return False
                break
            if above.handlers and above.handlers != self._deaf:
                return False
        if type(message) is not str or _logging._logRecordFactory is not _LogRecord:  # type: ignore[attr-defined]
            return False
        try:
            # Where does it go?
            try:
                target = self._targets[level][logger]
            except KeyError:
                target = self._learn_target(logger, level)
            if target[0] != _level_names.get(level, target[0]):
                target = self._learn_target(logger, level)
            level_name, shown, head, files, count = target

            # What does it say?
            named = fields = site = origin = b""
            free, given = self._free, None
            if extra is not None:
                if type(extra) is not dict:
                    return False
                if EXTRA_KEY in extra:
                    *given, extra = _taken_apart(extra)
                    free = self._free_within
            carried = _carried()
            if carried:
                extra = {**carried, **(extra or {})}
            if extra:
                if not free.issuperset(extra):
                    self._learn_names(extra, free)
                for value in extra.values():
                    if type(value) not in _PLAIN and (type(value) is not float or value - value != 0.0):
                        return False
                named, fields = _CONTEXT, _dumps(extra, None, _STRICT)
            if args:
                message = formatted(message, args)
            said = _dumps(message)
            if len(said) + len(fields) > _MOST_BYTES or not message:
                return False

            # When, where and on whose behalf was it said?
            ids_of, ids = _memo()[0] if given is None else _context.NOTHING_KNOWN
            if ids_of is not self:
                ids = self._ids_here(given)
            if _logging._srcfile:
                frame = _frame(_FRAMES_TO_CALLER)
                known = self._sites.get((id(frame.f_code), frame.f_lasti))
                site = known[1] if known is not None else self._learn_site(frame)
            if _logging.logThreads or _logging.logProcesses:
                origin = self._origin()
            created = time.time()  # by its name, as a test may put another clock there
            second, milliseconds, moment = self._moment
            fraction = _FRACTIONS.get((created - second) * 1e6 - milliseconds + _TO_WHOLE)
            if fraction is None:
                moment, fraction = self._learn_moment(created)

            line = _joined((moment, fraction, head, said, ids, site, origin, named, fields, b"}\n"))
            if _DELETE in line or not line.isascii():  # what ends a line or steers a terminal has to be escaped
                said, fields = encode(message), encode(extra) if fields else b""
                line = _joined((moment, fraction, head, said, ids, site, origin, named, fields, b"}\n"))
        except REFUSALS:
            return False
        # Appended here, as a call takes a third of the time that this does.
        size, failed = len(line), _NONE
        for file in files:
            handle = file.handle
            try:
                if handle is None:
                    if not file.quick(line):
                        failed = _with(failed, file, _runtime.attempt(file.write, line)[1])
                elif (written := _append(handle.number, line)) != size:
                    file.finish(line[written:])
            except OSError as error:
                if handle is not None:
                    if error.errno is None:  # not the kernel's: a signal handler has raised it
                        raise
                    file.finish(b"")
                failed = _with(failed, file, error)
        if failed:
            self._lose(logger, level, files, failed)
        else:
            count[0] = records = count[0] + 1
            if not records & _OFTEN:
                self._tick()
        if self._show is not None:
            self._show(created, level_name, shown, message)
        return True

    def _lose(self, logger: logging.Logger, level: int, files: tuple[LineFile, ...], failed: _Failed) -> None:
        """Count the files that have the line, and tell of the others."""
        errors = dict(failed)
        for file, (channel, _) in zip(files, self._aim(logger.name, level).files, strict=False):  # a name may be new
            if file not in errors:
                _runtime.tally.log_records.cell((channel, logging.getLevelName(level)))[0] += 1
        for error in errors.values():
            self._lost(error)

    def _tick(self) -> None:
        now = _monotonic()
        for file in list(self._files):
            file.tick(now)

    def _learn_target(self, logger: logging.Logger, level: int) -> _Target:
        name = logging.getLevelName(level)
        channel, shown, files = self._aim(logger.name, level)
        self._files.update((file, None) for _, file in files)
        head = b'Z"' + _members({"level": name, "logger": shown, "channel": channel}) + b',"message":'
        count = _runtime.tally.log_records.cell(*((each, name) for each, _ in files))
        target = name, shown, head, tuple(file for _, file in files), count
        return _learnt(_learnt_once(self._targets, level), logger, target)

    def _learn_names(self, names: dict[Any, Any], free: set[str]) -> None:
        taken = _TAKEN if free is self._free else frozenset()
        for name in names:
            if type(name) is not str or name in taken or self._hides(name):
                raise ValueError(name)
        if len(free) >= _MOST_KNOWN:
            free.clear()
        free.update(names)

    def _ids_here(self, given: list[Any] | None) -> bytes:
        operation, user_id = (None, None) if given is None else given
        around = (
            operation or _operation(),
            _operation_id(),
            _run_id(),
            user_id or _user_id(),
            _trace_id(),
            _span_id(),
        )
        ids = self._ids.get(around) or self._learn_ids(around)
        if given is None:
            _memo()[0] = self, ids
        return ids

    def _learn_ids(self, around: tuple[str | None, ...]) -> bytes:
        if not _TEXT.issuperset(map(type, around)):
            raise TypeError(around)
        fields = dict(zip(_context.VARIABLES, around, strict=True))
        return _learnt(self._ids, around, _members({"pipeline": self._pipeline, **fields}))

    def _learn_site(self, frame: FrameType) -> bytes:
        # The key is an address, which stays taken because the table holds what lies there; and a place in it, because
        # to ask for its line would take the longer the further down it stands.
        caller: FrameType | None = frame
        while caller is not None and caller.f_code.co_filename == LOGGING_FILE:  # a `LoggerAdapter`, or `warn`
            caller = caller.f_back
        if caller is None:
            raise ValueError(frame)
        code, last = caller.f_code, caller.f_lasti
        known = self._sites.get((id(code), last))
        if known is not None:
            return known[1]
        site = {"file": code.co_filename, "line": caller.f_lineno, "function": code.co_name}
        encoded = _members(site) if code.co_filename else b""
        _learnt(self._sites, (id(code), last), (code, encoded))
        return encoded

    def _origin(self) -> bytes:
        key = (threading.current_thread().name if logging.logThreads else None, logging.logProcesses)
        known = self._origins.get(key)
        if known is not None:
            return known
        thread, has_process = key
        fields = {"process": os.getpid() if has_process else None, "thread": thread}
        return _learnt(self._origins, key, _members(fields))

    def _learn_moment(self, created: float) -> tuple[bytes, bytes]:
        text = rfc3339(created).encode()
        moment, fraction = b'{"timestamp":"' + text[:-4], text[-4:-1]
        second = float(math.floor(created))
        milliseconds = (created - second) * 1e6 // 1_000 * 1_000
        self._tick()
        if (created - second) * 1e6 - milliseconds < _NEXT_MILLISECOND:
            self._moment = second, milliseconds, moment
        return moment, fraction


def _with(failed: _Failed, file: LineFile, error: Exception | None) -> _Failed:
    return failed if error is None else (*failed, (file, error))


def _taken_apart(extra: dict[Any, Any]) -> tuple[str | None, str | None, dict[Any, Any]]:
    given = extra[EXTRA_KEY]
    if len(extra) != 1 or type(given) is not dict or given.keys() != GIVEN_KEYS:
        raise ValueError(EXTRA_KEY)
    operation, user_id, context = given["operation"], given["user_id"], given["context"]
    if type(operation) not in _TEXT or type(user_id) not in _TEXT or type(context) is not dict:
        raise TypeError(EXTRA_KEY)
    return operation, user_id, context


def formatted(message: str, args: tuple[Any, ...]) -> str:
    """Put arguments into a message, where they are of plain kinds; one of `REFUSALS` if not, or if they do not fit."""
    for value in args:
        if type(value) not in _PLAIN and type(value) is not float:
            raise TypeError(message)
    return message % args


def _members(fields: dict[str, Any]) -> bytes:
    members = encode(to_plain(without_empty(fields)))[1:-1]
    return b"," + members if members else b""


def _learnt(table: dict[K, V], key: K, value: V) -> V:
    if len(table) >= _MOST_KNOWN:
        table.clear()
    table[key] = value
    return value


def _learnt_once(tables: dict[int, dict[K, V]], level: int) -> dict[K, V]:
    if len(tables) >= _MOST_KNOWN:
        tables.clear()
    return tables.setdefault(level, {})
