"""Exceptions as plain text, and which operation each of them failed first."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Final

from ml_pipeline import _runtime
from ml_pipeline.config._encoding import to_plain
from ml_pipeline.config._events import ErrorInfo
from ml_pipeline.config._redaction import current

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["caused_by", "error_info", "failed_operation", "is_failure", "message_of"]

_FAILED: Final = "__ml_pipeline_operation_id__"
"""Set on an exception: the innermost operation it failed, which has told its traceback."""

_AROUND: Final = "__ml_pipeline_around__"
"""Set beside it: the operations around that one, which need not tell it again."""

_MOST_LOOKED_AT: Final = 100
_STOPPED: Final = (None, 0, 143)
"""Codes of an exit that is no failure: 143 is the one after SIGTERM."""


def is_failure(error: BaseException) -> bool:
    """Say whether an exception that leaves an operation fails it, or only stops it.

    Args:
        error: What left the block.

    Returns:
        True for every ``Exception``, and for an exit with a code that says that something went wrong; False for Ctrl-C,
        a cancelled task, a closed generator and a plain exit.
    """
    if isinstance(error, SystemExit):
        return error.code not in _STOPPED
    return isinstance(error, Exception)


def error_info(error: object, operation_id: str = "", around: tuple[str, ...] = ()) -> ErrorInfo:
    """Turn an exception, or a text that stands for one, into plain text, redacted.

    Args:
        error: What went wrong.
        operation_id: The operation it failed; the innermost to ask tells the traceback.
        around: The operations around that one.

    Returns:
        Type, message and traceback; the traceback is empty where an operation inside this one has told it.
    """
    if not isinstance(error, BaseException):
        return ErrorInfo("", _text(error))
    told = operation_id in _mark(error, _AROUND)
    if operation_id and not told:
        _runtime.attempt(setattr, error, _FAILED, operation_id)
        _runtime.attempt(setattr, error, _AROUND, around)
    if told:
        return ErrorInfo(type(error).__name__, message_of(error))
    lines, _ = _runtime.attempt(traceback.format_exception, type(error), error, error.__traceback__)
    return ErrorInfo(type(error).__name__, message_of(error), current().text("".join(lines or [])))


def caused_by(error: object, operation_id: str) -> str:
    """Return the operation inside this one whose failure led to this error; empty where there is none.

    Args:
        error: What left the operation. Its causes, its context and the members of its group are looked at too.
        operation_id: The operation it left.
    """
    for each in _chain(error):
        if operation_id in _mark(each, _AROUND):
            return str(getattr(each, _FAILED, ""))
    return ""


def failed_operation(error: object) -> str | None:
    """Return the innermost operation that an exception failed, or one that led to it; None where there is none.

    Args:
        error: The exception. Its causes, its context and the members of its group are looked at too.
    """
    for each in _chain(error):
        failed, _ = _runtime.attempt(getattr, each, _FAILED, None)
        if isinstance(failed, str):
            return failed
    return None


def message_of(error: BaseException) -> str:
    """Return an exception's message, redacted; one that cannot be printed says so."""
    message, broken = _runtime.attempt(str, error)
    return _text(message) if broken is None else f"<{type(broken).__name__} when printed>"


def _text(value: object) -> str:
    plain = to_plain(value, current())
    return "" if plain is None else str(plain)


def _mark(error: object, name: str) -> tuple[str, ...]:
    marks, _ = _runtime.attempt(getattr, error, name, ())
    return marks if isinstance(marks, tuple) else ()


def _chain(error: object) -> Iterator[BaseException]:
    """The exception, what it was raised from or while handling, and the members of groups among them; each once."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting and len(seen) < _MOST_LOOKED_AT:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        waiting += [each.__cause__, None if each.__suppress_context__ else each.__context__]
        waiting += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
