"""Views of a logger: with fields that each of its records carries, with lazy values, with a limit; and more calls.

A view is a `logging.LoggerAdapter`, so it takes every call that a logger takes, and what it writes takes the same way.
"""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._log_catch import Catch, log_at, told_with_values
from ml_pipeline.config._log_fast import LOGGING_FILE
from ml_pipeline.config._log_format import EXTRA_KEY, plain_text
from ml_pipeline.config._log_sampling import LIMITS, judge_limit
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, MutableMapping
    from contextvars import Token
    from types import FrameType

    Adapter = logging.LoggerAdapter[logging.Logger]
else:
    Adapter = logging.LoggerAdapter

__all__ = ["Contextualized", "View", "caught"]

_NOTHING_GIVEN: Final[dict[str, Any]] = {"operation": None, "user_id": None, "context": {}}


class View(Adapter):
    """A logger and what its records have in common; made by ``bind``, ``opt``, ``patch`` and ``limit``.

    The same view may be used from any thread. It is never changed: each of its calls that add something returns
    another.

    Args:
        logger: The logger.
        fields: What every record carries; ``operation`` and ``user_id`` stand under these keys of the line.
    """

    def __init__(self, logger: logging.Logger, fields: Mapping[str, Any]) -> None:
        super().__init__(logger, dict(fields))
        self._lazy = self._values = False
        self._patches: tuple[Callable[[dict[str, Any]], object], ...] = ()
        self._limit: tuple[float | None, int | None] | None = None

    def bind(self, **fields: Any) -> View:
        """Return a view whose records carry these fields too; see `PipelineLogger.bind`."""
        return self._with(extra={**(self.extra or {}), **fields})

    def opt(self, *, lazy: bool | None = None, values: bool | None = None) -> View:
        """Return a view with lazy values, or exceptions with theirs; see `PipelineLogger.opt`."""
        return self._with(
            _lazy=self._lazy if lazy is None else bool(lazy), _values=self._values if values is None else bool(values)
        )

    def patch(self, function: Callable[[dict[str, Any]], object]) -> View:
        """Return a view whose records a function has changed before they are made; see `PipelineLogger.patch`."""
        if not callable(function):
            raise SettingsError("patch takes a function that changes the fields it is given", function, "give one")
        return self._with(_patches=(*self._patches, function))

    def limit(self, *, per_second: float | None = None, every: int | None = None) -> View:
        """Return a view that holds back what is too much; see `PipelineLogger.limit`."""
        if getattr(self.logger, "is_audit", False):
            raise SettingsError("the audit trail is never sampled", self.logger.name, "write every record")
        judge_limit(per_second, every)
        return self._with(_limit=(per_second, every))

    def catch(self, exception: Any = Exception, **options: Any) -> Any:
        """Log an exception with the values that led to it; see `PipelineLogger.catch`."""
        return caught(self, exception, options)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        """Join the fields of the view and those of the call, whose own win; see `logging.LoggerAdapter.process`."""
        raw = dict(kwargs.get("extra") or {})
        given = raw.pop(EXTRA_KEY, None)
        given = {**_NOTHING_GIVEN, **given} if type(given) is dict else dict(_NOTHING_GIVEN)
        bound = {name: value for name, value in (self.extra or {}).items() if name not in raw}
        operation, user_id = bound.pop("operation", None), bound.pop("user_id", None)
        given["operation"] = given["operation"] or operation
        given["user_id"] = given["user_id"] or user_id
        given["context"] = {**bound, **given["context"]}
        for patch in self._patches:
            msg = self._patched(patch, msg, given)
        if self._values:
            given = _with_values(kwargs.get("exc_info"), given)
        kwargs["extra"] = {EXTRA_KEY: given, **raw}
        return msg, kwargs

    def passes(self, level: int, place: tuple[str, int] | None) -> bool:  # noqa: ARG002 - of those that choose
        """Say whether a record of this level and file and line is written."""
        return True

    def _patched(self, patch: Callable[[dict[str, Any]], object], msg: Any, given: dict[str, Any]) -> Any:
        fields = {"message": msg, **given, "context": dict(given["context"])}
        with _runtime.guard("log_patch"):
            patch(fields)
            if not isinstance(fields.get("context"), dict):
                raise SettingsError("a patch must leave the context a dictionary", fields.get("context"), "change it")
            given.update((name, fields[name]) for name in ("operation", "user_id", "context") if name in fields)
            return fields.get("message", msg)
        return msg

    def _with(self, **changes: Any) -> View:
        state = {**self.__dict__, **changes}
        kind = ChoosingView if state["_lazy"] or state["_limit"] else View
        other = kind(self.logger, {})
        other.__dict__.update(state)
        return other


class ChoosingView(View):
    """A view that looks at a record before it is made: at whether it passes, or at values that are to be computed."""

    def log(self, level: int, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at a level; see `logging.LoggerAdapter.log`."""
        if not self.isEnabledFor(level) or not self.passes(level, None):
            return
        if self._lazy:
            args = tuple(map(_computed, args))
            kwargs["extra"] = _all_computed(kwargs.get("extra"))
        msg, kwargs = self.process(msg, kwargs)  # type: ignore[assignment]
        kwargs["stacklevel"] = kwargs.get("stacklevel", 1) + 1
        self.logger.log(level, msg, *args, **kwargs)

    def passes(self, level: int, place: tuple[str, int] | None) -> bool:
        """See `View.passes`; the place of a log call that is on the stack is looked for there."""
        if self._limit is None:
            return True
        frame: FrameType | None = sys._getframe(2)
        while frame is not None and frame.f_code.co_filename == LOGGING_FILE:
            frame = frame.f_back
        where = place or (("", 0) if frame is None else (frame.f_code.co_filename, frame.f_lineno))
        return LIMITS.get().of(*self._limit).passes((self.logger.name, *where, level))


def caught(logger: logging.Logger | View, exception: Any, options: dict[str, Any]) -> Any:
    """Make what ``catch`` returns: a block and decorator, or the decorated function where it was given one."""
    log = functools.partial(_log, logger)
    if callable(exception) and not isinstance(exception, type):
        return Catch(log, **options)(exception)
    return Catch(log, exception, **options)


def _log(
    logger: logging.Logger | View,
    level: int,
    message: str,
    *,
    place: tuple[str, int, str] | None,
    stacklevel: int,
    **given: Any,
) -> None:
    """Log as from a caller on the stack, or from a place that is not there, such as that of a coroutine of a task."""
    if place is None:
        logger.log(level, message, stacklevel=stacklevel + 1, **given)
        return
    view = logger if isinstance(logger, View) else View(logger, {})
    if view.isEnabledFor(level) and view.passes(level, place[:2]):
        message, kwargs = view.process(message, given)
        log_at(view.logger, level, message, place, exc_info=kwargs["exc_info"], extra=kwargs["extra"])


class Contextualized:
    """Fields of every record made inside a block or function, by any logger; see `PipelineLogger.contextualize`.

    Args:
        fields: The fields; those named as an id of the context, such as ``user_id``, become that id.
    """

    def __init__(self, fields: Mapping[str, Any]) -> None:
        self._ids = {name: plain_text(fields[name]) or None for name in _context.VARIABLES if name in fields}
        self._fields = {name: value for name, value in fields.items() if name not in self._ids}

    def __enter__(self) -> None:
        """Begin the block."""
        _leave_ended()
        around = next((each for each in _around() if not each.is_over), None)
        ids = {name: _context.VARIABLES[name].get() for name in self._ids}
        entry = _Entry(self, _context.fields.get(), around, ids)
        entry.tokens = [
            (_context.fields, _context.fields.set({**(entry.fields or {}), **self._fields})),
            (_entered, _entered.set(entry)),
            *_context.restore(self._ids),
        ]

    def __exit__(self, *raised: object) -> None:
        """End the block: what was there before holds again.

        A generator may be left in another context than that in which it entered, as when it is collected, or resumed
        by a framework. Where that one is a copy, the fields go from the copy, and from the one that was entered when
        the block around them ends or the next one begins. Where it is none, there is nothing of them to take away.
        """
        entry = next((each for each in _around() if each.block is self), None)
        if entry is None:  # nothing of it was ever here
            return
        entry.is_over = True
        if entry is _entered.get() and not entry.undo():
            _context.fields.set(entry.fields)
            _entered.set(entry.around)
            _context.restore(entry.ids)
        _leave_ended()

    def __call__(self, function: Any) -> Any:
        """Make a function inside which the fields hold, plain or async; a generator has them in its own ``with``."""
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                with Contextualized({**self._ids, **self._fields}):
                    return await function(*args, **kwargs)

            return awaited
        if not callable(function) or inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise SettingsError(
                "contextualize decorates a plain or async function", function, "use it in a with statement instead"
            )

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            with Contextualized({**self._ids, **self._fields}):
                return function(*args, **kwargs)

        return called


class _Entry:
    """One time that a block was entered: what held before, and what brings it back."""

    __slots__ = ("__weakref__", "around", "block", "fields", "ids", "is_over", "tokens")

    def __init__(
        self,
        block: Contextualized,
        fields: Mapping[str, Any] | None,
        around: _Entry | None,
        ids: Mapping[str, str | None],
    ) -> None:
        self.block = block
        self.fields = fields
        self.around = around
        self.ids = ids
        self.is_over = False
        self.tokens: list[tuple[ContextVar[Any], Token[Any]]] = []

    def undo(self) -> bool:
        """Bring back what held before, if this is the context that was entered, and nobody has."""
        if not self.tokens:
            return False
        try:
            _context.undo(self.tokens)
        except (ValueError, RuntimeError):  # this context is a copy of that one, which may be doing it now
            return False
        self.tokens, self.around = [], None  # tasks that start each other would hold all of those before them
        return True


_entered: Final[ContextVar[_Entry | None]] = ContextVar("ml_pipeline_contextualized", default=None)
"""The innermost block that was entered here, or where this context was copied from."""


def _around() -> Iterator[_Entry]:
    entry = _entered.get()
    while entry is not None:
        yield entry
        entry = entry.around


def _leave_ended() -> None:
    """Leave the blocks entered here that have ended elsewhere, or before one inside them."""
    entry = _entered.get()
    while entry is not None and entry.is_over and entry.undo():
        entry = _entered.get()


def _computed(value: object) -> object:
    if not callable(value):
        return value
    result, broken = _runtime.attempt(value)
    return result if broken is None else f"<{type(broken).__name__} when computed>"


def _all_computed(extra: Any) -> Any:
    if type(extra) is not dict:
        return extra
    given = extra.get(EXTRA_KEY)
    computed = {name: _computed(value) for name, value in extra.items() if name != EXTRA_KEY}
    if type(given) is dict and type(given.get("context")) is dict:
        given = {**given, "context": {name: _computed(value) for name, value in given["context"].items()}}
    return computed if EXTRA_KEY not in extra else {EXTRA_KEY: given, **computed}


def _with_values(exc_info: Any, given: dict[str, Any]) -> dict[str, Any]:
    error = exc_info[1] if isinstance(exc_info, tuple) else exc_info
    if error is True or error == 1:
        error = sys.exc_info()[1]
    if not isinstance(error, BaseException):
        return given
    told: dict[str, Any] = told_with_values(error, error.__traceback__, given)[EXTRA_KEY]
    return told
