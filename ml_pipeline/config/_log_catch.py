"""Exceptions that are logged where they are caught, with the values that led to them.

The values are those of the local variables, as the log would show them: redacted, bounded, on one line each. An object
whose ``repr`` raises says so. Nothing here raises into the job.
"""

from __future__ import annotations

import copy
import functools
import inspect
import logging
import sys
import traceback
from contextlib import aclosing
from types import FunctionType, ModuleType
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config._encoding import encode, to_plain
from ml_pipeline.config._failures import message_of
from ml_pipeline.config._log_format import EXTRA_KEY
from ml_pipeline.config._redaction import current
from ml_pipeline.errors import SettingsError, closest, without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import FrameType, TracebackType

__all__ = ["Catch", "exception_text", "level_number", "log_at", "place_in", "told_with_values"]

_MOST_FRAMES: Final = 20
"""Of one exception; those nearest to where it was raised."""
_MOST_VARIABLES: Final = 20
"""Of one frame."""
_MOST_EXCEPTIONS: Final = 20
_MOST_CHARACTERS: Final = 200
"""Of one value."""
_UNTOLD: Final = (ModuleType, type, FunctionType, type(len))
_FRAMES_TO_BLOCK: Final = 3
"""From the log call to the block that was left; one more to the caller of a decorated function."""
_RUNNERS: Final = frozenset({"asyncio", "concurrent", "threading"})
"""Whose calls of a function say nothing of who wanted it."""
_OUR_FILE: Final = (lambda: None).__code__.co_filename


class Catch:
    """Logs an exception that leaves a block or a function, and keeps it there; see ``PipelineLogger.catch``.

    Stateless, so that one object serves any number of threads, tasks and nested calls.

    Args:
        log: Logs at a level: level, message, the keyword arguments of a log call, and ``place``: file, line and
            function, where those of a caller would say nothing.
        exception: What is caught.
        level: Of the record.
        reraise: Whether the exception goes on all the same.
        onerror: Called with the exception once it is logged.
        exclude: What is let through though it is an *exception*.
        default: What a function returns instead of a result.
        message: What the record says; ``%s`` in it is the name of the function or block.

    Raises:
        SettingsError: If an argument is not of its kind.
    """

    def __init__(
        self,
        log: Callable[..., None],
        exception: type[BaseException] | tuple[type[BaseException], ...] = Exception,
        *,
        level: int | str = logging.ERROR,
        reraise: bool = False,
        onerror: Callable[[BaseException], object] | None = None,
        exclude: type[BaseException] | tuple[type[BaseException], ...] | None = None,
        default: Any = None,
        message: str = "An exception was caught in %s",
    ) -> None:
        self._log = log
        self._caught = _exceptions(exception)
        self._excluded = () if exclude is None else _exceptions(exclude)
        self._level = level_number(level)
        self._reraise = reraise
        self._onerror = onerror
        self._default = default
        self._message = message
        self._name = ""

    def __enter__(self) -> None:
        """Begin the block."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Log what leaves the block, and say whether it stays here."""
        if error is None or not isinstance(error, self._caught) or isinstance(error, self._excluded):
            return False
        if getattr(error, "stops_the_job", False):  # what has to be audited and cannot be does not run
            return False
        with _runtime.guard("log_catch"):
            self._tell(error, trace)
        if self._onerror is not None:
            with _runtime.guard("log_catch"):
                self._onerror(error)
        return not self._reraise

    def __call__(self, function: Any) -> Any:
        """Make a function whose exceptions are logged: plain, async, a generator or an async generator."""
        if not callable(function) or isinstance(function, type):
            raise SettingsError("catch decorates a function, or takes exception classes", function, "see its arguments")
        if inspect.isasyncgenfunction(function):
            return self._around_async_generator(function)
        if inspect.iscoroutinefunction(function):
            return self._around_coroutine(function)
        if inspect.isgeneratorfunction(function):
            return self._around_generator(function)
        return self._around_function(function)

    def _around_function(self, function: Any) -> Any:
        block = self._named_after(function)

        @functools.wraps(function)
        def caught(*args: Any, **kwargs: Any) -> Any:
            with block:
                return function(*args, **kwargs)
            return self._default

        return caught

    def _around_generator(self, function: Any) -> Any:
        block = self._named_after(function)

        @functools.wraps(function)
        def caught(*args: Any, **kwargs: Any) -> Any:
            with block:
                return (yield from function(*args, **kwargs))
            return self._default

        return caught

    def _around_coroutine(self, function: Any) -> Any:
        block = self._named_after(function)

        @functools.wraps(function)
        async def caught(*args: Any, **kwargs: Any) -> Any:
            with block:
                return await function(*args, **kwargs)
            return self._default

        return caught

    def _around_async_generator(self, function: Any) -> Any:
        block = self._named_after(function)

        @functools.wraps(function)
        async def caught(*args: Any, **kwargs: Any) -> Any:
            with block:
                async with aclosing(function(*args, **kwargs)) as source:
                    sent: Any = None
                    while True:
                        try:
                            item = await source.asend(sent)
                        except StopAsyncIteration:
                            return
                        sent = yield item

        return caught

    def _named_after(self, function: Any) -> Catch:
        block = copy.copy(self)
        block._name = str(getattr(function, "__qualname__", "") or type(function).__name__)
        return block

    def _tell(self, error: BaseException, trace: TracebackType | None) -> None:
        where = self._name or (trace.tb_frame.f_code.co_name if trace is not None else "a block")
        self._log(
            self._level,
            self._message.replace("%s", where),
            exc_info=(type(error), error, trace),
            extra=told_with_values(error, trace),
            stacklevel=_FRAMES_TO_BLOCK + bool(self._name),
            place=place_in(_past_ours(trace)) if self._name and _is_run(sys._getframe(_FRAMES_TO_BLOCK)) else None,
        )


def told_with_values(
    error: BaseException, trace: TracebackType | None, given: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Make the ``extra=`` of a record whose exception text shows the values.

    Args:
        error: The exception.
        trace: Its traceback.
        given: What `log_operation` made, to go with it.
    """
    told = {"type": type(error).__name__, "message": message_of(error), "stacktrace": exception_text(error, trace)}
    about = {"operation": None, "user_id": None, "context": {}, **(given or {})}
    return {EXTRA_KEY: {**about, "exception": told}}


def log_at(
    logger: logging.Logger,
    level: int,
    message: str,
    place: tuple[str, int, str],
    *,
    exc_info: Any,
    extra: Mapping[str, object] | None = None,
) -> None:
    """Log as from a place that is on no stack.

    Args:
        logger: The logger, which is enabled for the level.
        level: The level.
        message: The message.
        place: File, line and function.
        exc_info: The exception.
        extra: As a log call takes it.
    """
    file, line, function = place
    logger.handle(logger.makeRecord(logger.name, level, file, line, message, (), exc_info, function, extra))


def place_in(trace: TracebackType | None) -> tuple[str, int, str]:
    """Return the file, line and function of a traceback's first frame; nowhere without one."""
    if trace is None:
        return "", 0, ""
    return trace.tb_frame.f_code.co_filename, trace.tb_lineno, trace.tb_frame.f_code.co_name


def exception_text(error: BaseException, trace: TracebackType | None = None) -> str:
    """Write an exception as Python does, with the values of the local variables below each line of code.

    Args:
        error: The exception; what it was raised from, or while handling, is told too.
        trace: Its traceback; by default its own.

    Returns:
        The text, redacted, in which a value is one line of at most 200 characters, in JSON.
    """
    text, broken = _runtime.attempt(_formatted, error, error.__traceback__ if trace is None else trace)
    if broken is not None:
        lines, broken = _runtime.attempt(traceback.format_exception, type(error), error, error.__traceback__)
        text = current().text("".join(lines or []))
    return text if text and broken is None else f"{type(error).__name__}: {message_of(error)}\n"


def level_number(level: int | str) -> int:
    """Return the number of a level.

    Args:
        level: The number, or a name.

    Raises:
        SettingsError: If there is no level of that name.
    """
    if type(level) is int:
        return level
    names = logging.getLevelNamesMapping()
    if not isinstance(level, str) or level.upper() not in names:
        remedy = closest(level.upper(), names) if isinstance(level, str) else "as in level='WARNING'"
        raise SettingsError("a level must be a number or the name of one", level, remedy)
    return names[level.upper()]


def _exceptions(given: Any) -> tuple[type[BaseException], ...]:
    kinds = given if isinstance(given, tuple) else (given,)
    for kind in kinds:
        if not isinstance(kind, type) or not issubclass(kind, BaseException):
            raise SettingsError("catch takes exception classes", given, "as in catch((OSError, ValueError))")
    return kinds


def _formatted(error: BaseException, trace: TracebackType | None) -> str:
    trace = _past_ours(trace)
    told = traceback.TracebackException(type(error), error, trace)
    summaries: list[traceback.FrameSummary] = []
    values: list[dict[str, object]] = []
    for each, of_error, of_trace in _chained(told, error, trace):
        del of_error
        pairs = list(zip(each.stack, (frame for frame, _ in traceback.walk_tb(of_trace)), strict=False))
        for summary, frame in reversed(pairs[-_MOST_FRAMES:]):  # the nearest first: they share one allowance
            summaries.append(summary)
            values.append(_variables(frame))
    for summary, shown in zip(summaries, to_plain(values[: _MOST_FRAMES * 2], current()), strict=False):
        summary.locals = {name: _short(value) for name, value in shown.items()} if isinstance(shown, dict) else None
    return current().text("".join(told.format()))


def _past_ours(trace: TracebackType | None) -> TracebackType | None:
    """What is left of a traceback without the functions around those that were decorated."""
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == _OUR_FILE:
        trace = trace.tb_next
    return trace


def _is_run(caller: FrameType) -> bool:
    return str(caller.f_globals.get("__name__")).partition(".")[0] in _RUNNERS


def _chained(
    told: traceback.TracebackException, error: BaseException, trace: TracebackType | None
) -> Iterator[tuple[traceback.TracebackException, BaseException, TracebackType | None]]:
    """The exception, its causes and the members of its groups, each beside what will be printed of it."""
    waiting: list[tuple[Any, Any, Any]] = [(told, error, trace)]
    for _ in range(_MOST_EXCEPTIONS):
        if not waiting:
            return
        each, raised, of_trace = waiting.pop(0)
        yield each, raised, of_trace
        others = [(each.__cause__, raised.__cause__), (each.__context__, raised.__context__)]
        if each.exceptions and isinstance(raised, BaseExceptionGroup):
            others += zip(each.exceptions, raised.exceptions, strict=False)
        waiting += [(its, real, real.__traceback__) for its, real in others if its is not None and real is not None]


def _variables(frame: FrameType) -> dict[str, object]:
    found = frame.f_locals
    if found is frame.f_globals:  # the code of a module, of whose names only those in the code are of interest
        found = {name: found[name] for name in frame.f_code.co_names if name in found}
    told = [name for name, value in found.items() if not name.startswith("__") and not issubclass(type(value), _UNTOLD)]
    shown = {name: found[name] for name in told[:_MOST_VARIABLES]}
    if _runtime.settings().log_features != "full":
        for name, value in shown.items():
            stand_in, broken = _runtime.attempt(_stand_in, name, value)
            shown[name] = stand_in if broken is None else "<not shown>"
    return shown


def _stand_in(name: str, value: object) -> object:
    """The value, or only what sort of thing it is where it may be the features of a person: personal data."""
    shape = getattr(value, "shape", None) if hasattr(type(value), "__array__") else ()
    if shape == () and name != "features":
        return value
    kind = f"{type(value).__name__} {shape}" if shape else type(value).__name__
    return f"<{kind}: not shown unless ML_PIPELINE_LOG_FEATURES is full>"


def _short(value: object) -> str:
    text = without_credentials(encode(value).decode())
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}… {len(text) - _MOST_CHARACTERS} more"
