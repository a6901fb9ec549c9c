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
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, TypeVar

import orjson

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._encoding import encode, rfc3339, to_plain
from ml_pipeline.config._log_format import EXTRA_KEY, OWN_ATTRIBUTES, without_empty

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import CodeType, FrameType


__all__ = ["LOGGING_FILE", "Aim", "LineFile", "ShortWay"]

K = TypeVar("K")
V = TypeVar("V")

LOGGING_FILE: Final = logging.Logger.info.__code__.co_filename

_PLAIN: Final = frozenset({str, int, bool, type(None)})
"""Types whose values JSON has a form for; of floats, those that are finite."""
_TEXT: Final = frozenset({str, type(None)})
_GIVEN: Final = {"operation", "user_id", "context"}
_TAKEN: Final = OWN_ATTRIBUTES | {EXTRA_KEY}
_MOST_BYTES: Final = 4_096
"""Of message and fields together: within it, none of the bounds of `to_plain` can be reached."""
_MOST_KNOWN: Final = 5_000
"""Pieces of one kind; past it, all are forgotten and encoded anew."""
_DELETE: Final = 0x7F  # the one ASCII character that JSON leaves as it is and a line must not hold
_CONTEXT: Final = b',"context":'
_FRAMES_TO_CALLER: Final = 2
"""From `ShortWay.put` past the log call."""
_NEXT_SECOND: Final = 999_999.5
"""So many microseconds are rounded up to a second; to even, as `datetime` rounds."""

_REFUSALS: Final = (TypeError, ValueError, ArithmeticError, LookupError, MemoryError)
"""What formatting and encoding plain values can raise; such a record is refused."""

# Names of this module are found sooner than those of another.
_logging: Final = logging
_LogRecord: Final = logging.LogRecord
_level_name: Final = logging.getLevelName
_frame: Final = sys._getframe
_time, _monotonic = time.time, time.monotonic
_dumps, _STRICT = orjson.dumps, orjson.OPT_STRICT_INTEGER
_operation, _user_id = _context.operation.get, _context.user_id.get
_operation_id, _run_id = _context.operation_id.get, _context.run_id.get
_trace_id, _span_id = _context.trace_id.get, _context.span_id.get
_carried = _context.fields.get


class LineFile(Protocol):
    """What lines go to: a file, or a buffer before it. Thread-safe."""

    def quick(self, line: bytes, now: float) -> bool:
        """Take a line, if that is quick; False, and nothing done, if it is not.

        Raises:
            OSError: If it cannot be written.
        """

    def write(self, line: bytes) -> None:
        """Take a line.

        Raises:
            Exception: If it cannot be written.
        """


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


class _Target(NamedTuple):
    level_name: str
    shown: str
    head: bytes
    files: list[tuple[tuple[str, str], LineFile]]


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
        self._second = (0.0, b"")
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
        above: logging.Logger | None = logger
        while above is not None and not above.handlers and above.propagate:
            above = above.parent
        ours = self._ours
        if above is None or above.handlers != ours or logger.filters or ours[0].filters or ours[0].level:
            return False
        while above.propagate and (above := above.parent) is not None:
            if above.handlers and above.handlers != self._deaf:
                return False
        if type(message) is not str or _logging._logRecordFactory is not _LogRecord:  # type: ignore[attr-defined]
            return False
        try:
            # Where does it go?
            target = self._targets[level].get(logger) if level in self._targets else None
            if target is None or target[0] != _level_name(level):
                target = self._learn_target(logger, level)
            level_name, shown, head, files = target

            # What does it say?
            operation, user_id, named, fields, free = _operation(), _user_id(), b"", b"", self._free
            if extra is not None:
                if type(extra) is not dict:
                    return False
                if EXTRA_KEY in extra:
                    operation, user_id, extra = _taken_apart(extra, operation, user_id)
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
                message = _formatted(message, args)
            said = _dumps(message)
            if len(said) + len(fields) > _MOST_BYTES or not message:
                return False

            # When, where and on whose behalf was it said?
            around = (operation, _operation_id(), _run_id(), user_id, _trace_id(), _span_id())
            ids = self._ids.get(around) or self._learn_ids(around)
            site = origin = b""
            if _logging._srcfile:
                frame = _frame(_FRAMES_TO_CALLER)
                known = self._sites.get((id(frame.f_code), frame.f_lasti))
                site = known[1] if known is not None else self._learn_site(frame)
            if _logging.logThreads or _logging.logProcesses:
                origin = self._origin()
            created = _time()
            second, moment = self._second
            microseconds = (created - second) * 1e6
            if 0.0 <= microseconds < _NEXT_SECOND:
                fraction = b"%06.0f" % microseconds
            else:
                moment, fraction = self._learn_second(created)

            line = b"".join((moment, fraction, head, said, ids, site, origin, named, fields, b"}\n"))
            if _DELETE in line or not line.isascii():  # what ends a line or steers a terminal has to be escaped
                said, fields = encode(message), encode(extra) if fields else b""
                line = b"".join((moment, fraction, head, said, ids, site, origin, named, fields, b"}\n"))
        except _REFUSALS:
            return False
        self._write(files, line)
        if self._show is not None:
            self._show(created, level_name, shown, message)
        return True

    def _write(self, files: list[tuple[tuple[str, str], LineFile]], line: bytes) -> None:
        counts, now = _runtime.tally.log_records, _monotonic()
        for counted, file in files:
            try:
                failed = None if file.quick(line, now) else _runtime.attempt(file.write, line)[1]
            except OSError as error:
                failed = error
            if failed is None:
                counts[counted] += 1
            else:
                self._lost(failed)

    def _learn_target(self, logger: logging.Logger, level: int) -> _Target:
        name = logging.getLevelName(level)
        channel, shown, files = self._aim(logger.name, level)
        head = b'Z"' + _members({"level": name, "logger": shown, "channel": channel}) + b',"message":'
        target = _Target(name, shown, head, [((each, name), file) for each, file in files])
        return _learnt(_learnt_once(self._targets, level), logger, target)

    def _learn_names(self, names: dict[Any, Any], free: set[str]) -> None:
        taken = _TAKEN if free is self._free else frozenset()
        for name in names:
            if type(name) is not str or name in taken or self._hides(name):
                raise ValueError(name)
        if len(free) >= _MOST_KNOWN:
            free.clear()
        free.update(names)

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

    def _learn_second(self, created: float) -> tuple[bytes, bytes]:
        text = rfc3339(created).encode()
        moment, fraction = b'{"timestamp":"' + text[:-7], text[-7:-1]
        second = float(math.floor(created))
        if (created - second) * 1e6 < _NEXT_SECOND:
            self._second = second, moment
        return moment, fraction


def _taken_apart(extra: dict[Any, Any], operation: Any, user_id: Any) -> tuple[Any, Any, dict[Any, Any]]:
    given = extra[EXTRA_KEY]
    if len(extra) != 1 or type(given) is not dict or given.keys() != _GIVEN:
        raise ValueError(EXTRA_KEY)
    own_operation, own_user_id, context = given["operation"], given["user_id"], given["context"]
    if type(own_operation) not in _TEXT or type(own_user_id) not in _TEXT or type(context) is not dict:
        raise TypeError(EXTRA_KEY)
    return own_operation or operation, own_user_id or user_id, context


def _formatted(message: str, args: tuple[Any, ...]) -> str:
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
