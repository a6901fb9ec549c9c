"""A log record as one line: JSON with fixed keys, or the text format.

The keys and their order are fixed, and a key is absent when it is empty. Everything the caller gives lies under
``context``, so that no field of a caller can take the place of one of ours.
"""

from __future__ import annotations

import logging
import time
import traceback
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._encoding import dumps, one_line, rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EXTRA_KEY", "JSON_KEYS", "json_line", "line_fields", "text_line"]

EXTRA_KEY: Final = "ml_pipeline"
"""The one attribute of a ``LogRecord`` that `log_operation` sets, so that its fields clash with nothing."""

JSON_KEYS: Final = (
    "timestamp",
    "level",
    "logger",
    "channel",
    "message",
    "pipeline",
    "operation",
    "operation_id",
    "run_id",
    "user_id",
    "trace_id",
    "span_id",
    "file",
    "line",
    "function",
    "process",
    "thread",
    "exception",
    "context",
)
"""The keys of a line, in order."""

_OWN_ATTRIBUTES: Final = frozenset(
    {*logging.LogRecord("", 0, "", 0, "", None, None).__dict__, "message", "asctime", "taskName", EXTRA_KEY}
)
_NOTHING_GIVEN: Final[Mapping[str, Any]] = MappingProxyType({})
_RESET: Final = "\x1b[0m"
_COLOURS: Final = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m", "DEBUG": "\x1b[2m"}


def line_fields(record: logging.LogRecord, channel: str, shown: str) -> dict[str, Any]:
    """Collect what a record says, under the fixed keys and in their order.

    Args:
        record: The record.
        channel: Its channel.
        shown: The name shown for its logger.

    Returns:
        The fields that are not empty; ``context`` holds values as they were given.
    """
    given = getattr(record, EXTRA_KEY, None)
    if not isinstance(given, dict):
        given = _NOTHING_GIVEN
    fields: dict[str, Any] = {
        "timestamp": rfc3339(record.created),
        "level": record.levelname,
        "logger": shown,
        "channel": channel,
        "message": message_of(record),
        "pipeline": given.get("pipeline") or _runtime.settings().name,
    }
    for key, variable in _context.VARIABLES.items():
        fields[key] = given.get(key) or variable.get()
    if record.pathname:
        fields.update(file=record.pathname, line=record.lineno, function=record.funcName)
    fields.update(process=record.process, thread=record.threadName)
    fields["exception"] = given.get("exception") or _exception(record)
    fields["context"] = _context_of(record, given)
    return {key: value for key, value in fields.items() if value not in (None, "", {})}


def json_line(fields: Mapping[str, Any]) -> bytes:
    """Encode the fields of a line as one line of JSON, with its line end."""
    return dumps(fields) + b"\n"


def text_line(record: logging.LogRecord, shown: str, *, coloured: bool = False) -> str:
    """Write a record in the text format: timestamp in local time, level, logger, message.

    Args:
        record: The record.
        shown: The name shown for its logger.
        coloured: Whether to colour the level, for a terminal.

    Returns:
        One line with its line end; a traceback follows on lines that are indented, so that no text in it can pass for
        a line of the log.
    """
    moment = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
    level = record.levelname
    if coloured and level in _COLOURS:
        level = f"{_COLOURS[level]}{level}{_RESET}"
    # The milliseconds are those of the record, which logging has truncated, not rounded.
    lines = [f"{moment},{int(record.msecs):03d} - {level} - {one_line(shown)} - {one_line(message_of(record))}"]
    exception = (getattr(record, EXTRA_KEY, None) or _NOTHING_GIVEN).get("exception") or _exception(record)
    if exception and exception.get("stacktrace"):
        lines += ["    " + one_line(line) for line in exception["stacktrace"].rstrip().split("\n")]
    return "\n".join(lines) + "\n"


def message_of(record: logging.LogRecord) -> str:
    """Return the message with its arguments, or both side by side where they do not fit each other."""
    message, broken = _runtime.attempt(record.getMessage)
    if broken is None:
        return str(message)
    arguments, unprintable = _runtime.attempt(repr, record.args)
    return f"{record.msg if isinstance(record.msg, str) else type(record.msg).__name__} {unprintable or arguments}"


def _exception(record: logging.LogRecord) -> dict[str, str] | None:
    if not record.exc_info or record.exc_info[1] is None:
        return {"stacktrace": record.exc_text} if record.exc_text else None
    kind, error, trace = record.exc_info
    return exception_fields(kind.__name__ if kind else "", error, trace)


def exception_fields(kind: str, error: BaseException, trace: Any) -> dict[str, str]:
    """Return an exception as text: type, message, stacktrace; none of them can raise."""
    message, broken = _runtime.attempt(str, error)
    lines, unprintable = _runtime.attempt(traceback.format_exception, type(error), error, trace)
    return {
        "type": kind,
        "message": str(message) if broken is None else f"<{type(broken).__name__} when printed>",
        "stacktrace": "".join(lines or []) if unprintable is None else "",
    }


def _context_of(record: logging.LogRecord, given: Mapping[str, Any]) -> dict[str, Any]:
    context = {key: value for key, value in record.__dict__.items() if key not in _OWN_ATTRIBUTES}
    inner = given.get("context")
    if isinstance(inner, dict):
        context.update(inner)
    if record.stack_info:
        context["stack"] = record.stack_info
    return context
