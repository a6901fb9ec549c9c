"""A log record as one line: JSON with fixed keys, or the text format.

The keys and their order are fixed, and a key is absent when it is empty. Everything the caller gives lies under
``context``, so that no field of a caller can take the place of one of ours.
"""

from __future__ import annotations

import datetime as dt
import logging
import traceback
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._encoding import LINE_EXEMPT, MAX_CHARACTERS, encode, one_line, rfc3339, to_plain
from ml_pipeline.config._redaction import current

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "EXTRA_KEY",
    "GIVEN_KEYS",
    "JSON_KEYS",
    "OWN_ATTRIBUTES",
    "beside",
    "context_of",
    "exception_of",
    "first_text_line",
    "given_fields",
    "is_empty",
    "json_line",
    "line_fields",
    "message_of",
    "plain_text",
    "text_line",
    "without_empty",
]

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

OWN_ATTRIBUTES: Final = frozenset({*logging.LogRecord("", 0, "", 0, "", None, None).__dict__, "message", "asctime"})
"""What a ``LogRecord`` of this Python has without any ``extra=``; ``taskName`` is one of them from 3.12 on."""

_OWN_AND_GIVEN: Final = OWN_ATTRIBUTES | {EXTRA_KEY}
GIVEN_KEYS: Final = frozenset({"operation", "user_id", "context"})
"""Of what `log_operation` makes."""
_NOTHING_GIVEN: Final[Mapping[str, Any]] = MappingProxyType({})
_CAN_BE_EMPTY: Final = frozenset({str, dict, tuple, MappingProxyType})
_MOST_STACKTRACE_CHARACTERS: Final = 65_536
_UNKNOWN_FILE: Final = "(unknown file)"  # `logging` with ``logging._srcfile = None``, its switch for speed
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
    given = given_fields(record)
    fields: dict[str, Any] = {
        "timestamp": rfc3339(record.created),
        "level": record.levelname,
        "logger": shown,
        "channel": channel,
        "message": message_of(record),
        "pipeline": given.get("pipeline") or _runtime.settings().name,
    }
    for key, variable in _context.VARIABLES.items():
        value = given.get(key)
        fields[key] = variable.get() if value is None or is_empty(value) else value
    if record.pathname and record.pathname != _UNKNOWN_FILE:
        fields.update(file=record.pathname, line=record.lineno, function=record.funcName)
    fields.update(process=record.process, thread=record.threadName)
    fields["exception"] = exception_of(record, given)
    fields["context"] = context_of(record, given)
    return without_empty(fields)


def json_line(fields: Mapping[str, Any]) -> bytes:
    """Encode the fields of a line as one line of JSON, redacted, with its line end."""
    redaction = current()
    plain = to_plain(fields, redaction, LINE_EXEMPT)
    stacktrace = (fields.get("exception") or _NOTHING_GIVEN).get("stacktrace")
    if stacktrace and not redaction.hides("stacktrace"):  # whole, where other texts are cut: its last lines say most
        plain["exception"]["stacktrace"] = stacktrace.encode("utf-8", "backslashreplace").decode("utf-8")
    return encode(plain) + b"\n"


def text_line(record: logging.LogRecord, shown: str, *, coloured: bool = False) -> str:
    """Write a record in the text format: timestamp in local time, level, logger, message.

    Args:
        record: The record.
        shown: The name shown for its logger.
        coloured: Whether to colour the level, for a terminal.

    Returns:
        One line with its line end; a traceback or stack follows on lines that are indented, so that no text in it can
        pass for a line of the log.
    """
    redaction = current()
    message = to_plain(message_of(record), redaction)
    lines = [first_text_line(record.created, record.levelname, shown, message, coloured=coloured)]
    exception = exception_of(record, given_fields(record)) or _NOTHING_GIVEN
    for block in (exception.get("stacktrace"), record.stack_info):
        if block:
            lines += ["    " + one_line(line) for line in redaction.text(block.rstrip()).split("\n")]
    return "\n".join(lines) + "\n"


def first_text_line(created: float, level: str, shown: str, message: str, *, coloured: bool) -> str:
    """Write what `text_line` begins with, without a line end.

    Args:
        created: The moment, in seconds since the epoch.
        level: The name of the level.
        shown: The name shown for the logger.
        message: The message.
        coloured: Whether to colour the level.
    """
    # The record's own milliseconds are truncated from a binary fraction: the same moment would differ from the JSON's.
    moment = dt.datetime.fromtimestamp(created, dt.UTC).astimezone()
    level = one_line(level)
    if coloured and level in _COLOURS:
        level = f"{_COLOURS[level]}{level}{_RESET}"
    stamp = f"{moment:%Y-%m-%d %H:%M:%S},{moment.microsecond // 1000:03d}"
    return f"{stamp} - {level} - {one_line(shown)} - {one_line(message)}"


def message_of(record: logging.LogRecord) -> str:
    """Return the message with its arguments, or both side by side where they do not fit each other."""
    message, broken = _runtime.attempt(record.getMessage)
    if broken is None:
        return str(message)
    arguments, unprintable = _runtime.attempt(repr, record.args)
    said = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
    return f"{said} {arguments if unprintable is None else f'<{type(unprintable).__name__} when printed>'}"


def given_fields(record: logging.LogRecord) -> Mapping[str, Any]:
    """Return what `log_operation` or an event put on a record; empty where neither did."""
    given = getattr(record, EXTRA_KEY, None)
    return given if type(given) is dict and given.keys() >= GIVEN_KEYS else _NOTHING_GIVEN


def exception_of(record: logging.LogRecord, given: Mapping[str, Any]) -> dict[str, str] | None:
    """Return a record's exception as text: type, message and stacktrace; None where it has none."""
    told: dict[str, str] | None = given.get("exception")
    if told:
        return without_empty({**told, "stacktrace": _bounded(told.get("stacktrace", ""))})
    if not record.exc_info or record.exc_info[1] is None:
        return {"stacktrace": _bounded(record.exc_text)} if record.exc_text else None
    _, error, trace = record.exc_info
    message, broken = _runtime.attempt(str, error)
    lines, unprintable = _runtime.attempt(traceback.format_exception, type(error), error, trace)
    return {
        "type": type(error).__name__,
        "message": str(message) if broken is None else f"<{type(broken).__name__} when printed>",
        "stacktrace": _bounded("".join(lines or [])) if unprintable is None else "",
    }


def context_of(record: logging.LogRecord, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything that a record's caller gave beyond the fixed keys, and what the lines around it carry too."""
    context = dict(_context.fields.get() or {})
    own = OWN_ATTRIBUTES if given is _NOTHING_GIVEN else _OWN_AND_GIVEN
    context |= {key: value for key, value in record.__dict__.items() if key not in own}
    context |= given.get("context", _NOTHING_GIVEN)
    if record.stack_info:
        context.setdefault("stack_info", record.stack_info)
    return context


def beside(ours: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Put what was given beside what is ours, without what is empty.

    Args:
        ours: Fields whose names are taken, empty or not.
        given: What a caller gave; where a name is taken, the value lies below ``given``.

    Returns:
        Ours first.
    """
    if ours.keys().isdisjoint(given) and "given" not in given:  # as nearly always
        return without_empty({**ours, **given})
    clashing = {name: value for name, value in given.items() if name in ours or name == "given"}
    free = {name: value for name, value in given.items() if name not in clashing}
    return without_empty({**ours, "given": clashing, **free})


def without_empty(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are not empty."""
    return {
        key: value
        for key, value in fields.items()
        if value is not None and (type(value) not in _CAN_BE_EMPTY or value)  # see `is_empty`, whose call would cost
    }


def is_empty(value: object) -> bool:
    """Say whether there is nothing to write, by type alone: a caller's object may refuse to be compared or tested."""
    return value is None or (type(value) in _CAN_BE_EMPTY and not value)


def plain_text(value: object) -> str:
    """Return any value as a text, within bounds; empty for None."""
    if type(value) is str and len(value) <= MAX_CHARACTERS and value.isascii():  # as nearly all are
        return value
    plain = to_plain(value)
    return "" if plain is None else str(plain)


def _bounded(stacktrace: str) -> str:
    stacktrace = current().text(stacktrace)  # before it is cut: half a secret is one, too
    if len(stacktrace) <= _MOST_STACKTRACE_CHARACTERS:
        return stacktrace
    half = _MOST_STACKTRACE_CHARACTERS // 2
    left_out = len(stacktrace) - 2 * half
    return f"{stacktrace[:half]}\n… {left_out} more characters …\n{stacktrace[-half:]}"
