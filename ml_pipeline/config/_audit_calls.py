"""The log calls of the audit logger, which spare a record the detour where the trail alone takes it.

The detour is a ``LogRecord``, an event made from it, and the bus. What a line says is decided in `_log_events`; here is
decided whether anybody else would have seen the record on its way, and the line of a simple one is put together from
pieces that are known. Tests hold both ways to the same bytes, for any input.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import orjson

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._audit_chain import joined_body
from ml_pipeline.config._encoding import rfc3339
from ml_pipeline.config._events import DEFAULT_BUS, AuditEvent
from ml_pipeline.config._log_events import audit_fields, process_user, told_of
from ml_pipeline.config._log_fast import REFUSALS, formatted
from ml_pipeline.config._log_format import EXTRA_KEY, GIVEN_KEYS, OWN_ATTRIBUTES, without_empty
from ml_pipeline.config._redaction import current

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SINK", "AuditCalls"]

SINK: Final = "logging_config"
"""The name under which the log subscribes to the bus."""

_TEXT: Final = frozenset({str})
_SPECIAL: Final = frozenset({"action", "given", "exception"})
"""Names of details that `audit_fields` puts elsewhere."""
_WHEREABOUTS: Final = ("pipeline", *_context.VARIABLES, "process", "thread")
_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_NOTHING_GIVEN: Final[Mapping[str, Any]] = MappingProxyType({"context": _NOTHING})

# Names of this module are found sooner than those of another.
_carried: Final = _context.fields.get
_operation_id, _run_id, _user_id = _context.operation_id.get, _context.run_id.get, _context.user_id.get
_operation, _trace_id, _span_id = _context.operation.get, _context.trace_id.get, _context.span_id.get
_is_left_to: Final = DEFAULT_BUS.is_left_to
_record_factory: Final = logging.getLogRecordFactory


def _call(level: int) -> Any:
    def call(self: AuditCalls, msg: object, *args: object, extra: Any = None, **kwargs: Any) -> None:
        if kwargs or not self._put(msg, args, extra):
            self._log(level, msg, args, extra=extra, **_further_up(kwargs))

    name = logging.getLevelName(level).lower()
    call.__name__, call.__qualname__ = name, f"AuditCalls.{name}"
    call.__doc__ = f"See `logging.Logger.{name}`."
    return call


class AuditCalls(logging.Logger):
    """The log calls of an audit logger, which no level keeps back.

    They take what those of `logging.Logger` take; ``exception`` is that one's, which calls ``error``.
    """

    debug = _call(logging.DEBUG)
    info = _call(logging.INFO)
    warning = _call(logging.WARNING)
    error = _call(logging.ERROR)
    critical = _call(logging.CRITICAL)

    def log(self, level: int, msg: object, *args: object, extra: Any = None, **kwargs: Any) -> None:
        """See `logging.Logger.log`."""
        if type(level) is not int:
            super().log(level, msg, *args, extra=extra, **_further_up(kwargs))
        elif kwargs or not self._put(msg, args, extra):
            self._log(level, msg, args, extra=extra, **_further_up(kwargs))

    def _write(self, record: Mapping[str, Any] | bytes) -> None:
        """Append one line to the trail: its fields, or the fields encoded."""
        raise NotImplementedError

    def _put(self, msg: object, args: tuple[Any, ...], extra: Any) -> bool:
        """Write a record to the trail; False, and nothing written, where it must take the detour."""
        if type(msg) is not str or _record_factory() is not logging.LogRecord or not _is_left_to(SINK, AuditEvent):
            return False
        try:
            action = formatted(msg, args) if args else msg
            given, raw = _taken_apart(extra)
            details = {**(_carried() or _NOTHING), **raw, **given["context"]}
        except REFUSALS:
            return False
        failed = _runtime.attempt(self._append, action, details, given)[1]
        if failed is not None:  # by these names the detour counts it, where the event is taken and where it was made
            with _runtime.guard("audit"), _runtime.guard(SINK):
                raise failed
        return True

    def _append(self, action: str, details: dict[str, Any], given: Mapping[str, Any]) -> None:
        told = told_of(details, given)
        if "user_id" not in told:
            told["user_id"] = _user_id()
        told |= {
            "time": time.time(),
            "pipeline": _runtime.settings().name,
            "run_id": _run_id(),
            "operation_id": _operation_id(),
            "action": action,
        }
        self._write(_encoded(told) or audit_fields(**told))


def _encoded(told: Mapping[str, Any]) -> bytes | None:
    """Encode what `audit_fields` makes of the same, from pieces that are known; None where that is not simple."""
    redaction, action, details = current(), told["action"], told["details"]
    if redaction.patterned or not action or not _SPECIAL.isdisjoint(details):
        return None
    who = {"action": action, "object": told["object"], "version": told["version"], "result": told["result"]}
    context = without_empty({**who, **details})
    operation = context.pop("operation", None)
    if operation is not None and type(operation) is not str:
        return None
    try:
        where = _whereabouts(
            told["pipeline"],
            _operation() if operation is None else operation,
            told["operation_id"],
            told["run_id"],
            told["user_id"] or process_user(),
            _trace_id(),
            _span_id(),
            os.getpid(),
            threading.current_thread().name,
        )
        before = b'{"timestamp":"%b","level":"INFO","logger":"audit","channel":"audit","message":%b,%b' % (
            rfc3339(told["time"]).encode(),
            orjson.dumps(action),
            where,
        )
    except TypeError:
        return None
    return joined_body(before, context, redaction.hides)


@lru_cache(maxsize=1_000, typed=True)
def _whereabouts(*values: str | int | None) -> bytes:
    """Encode what many lines have alike."""
    return orjson.dumps(without_empty(dict(zip(_WHEREABOUTS, values, strict=True))))[1:-1]


def _further_up(options: dict[str, Any]) -> dict[str, Any]:
    """The caller is one further up than `logging` would think: past the log call of ours."""
    return {**options, "stacklevel": options.get("stacklevel", 1) + 1}


def _taken_apart(extra: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """What `log_operation` made, and what was given beside it."""
    if extra is None:
        return _NOTHING_GIVEN, _NOTHING
    if type(extra) is not dict:
        raise TypeError(extra)
    given = extra.get(EXTRA_KEY, _NOTHING_GIVEN)
    if given is not _NOTHING_GIVEN:
        if type(given) is not dict or given.keys() != GIVEN_KEYS or type(given["context"]) is not dict:
            raise TypeError(EXTRA_KEY)
        if len(extra) == 1:
            return given, _NOTHING
    if not OWN_ATTRIBUTES.isdisjoint(extra) or not _TEXT.issuperset(map(type, extra)):
        raise KeyError(*extra)
    return given, {name: value for name, value in extra.items() if name != EXTRA_KEY}
