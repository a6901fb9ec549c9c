"""Who and what a line of code is running for: one context variable a key, undone by token.

asyncio tasks inherit these variables by themselves; threads and process pools get them through `Carried`.
"""

from __future__ import annotations

import inspect
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, Generic, ParamSpec, TypeAlias, TypeVar

from ml_pipeline.config import _redaction
from ml_pipeline.config._encoding import to_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextvars import Token

__all__ = [
    "NOTHING_KNOWN",
    "VARIABLES",
    "Carried",
    "current",
    "fields",
    "memo",
    "operation",
    "operation_id",
    "restore",
    "run_id",
    "span_id",
    "trace_id",
    "undo",
    "user_id",
]

Known: TypeAlias = tuple[object, bytes]
P = ParamSpec("P")
R = TypeVar("R")

operation: Final[ContextVar[str | None]] = ContextVar("ml_pipeline_operation", default=None)
operation_id: Final[ContextVar[str | None]] = ContextVar("ml_pipeline_operation_id", default=None)
run_id: Final[ContextVar[str | None]] = ContextVar("ml_pipeline_run_id", default=None)
user_id: Final[ContextVar[str | None]] = ContextVar("ml_pipeline_user_id", default=None)
trace_id: Final[ContextVar[str | None]] = ContextVar("ml_pipeline_trace_id", default=None)
span_id: Final[ContextVar[str | None]] = ContextVar("ml_pipeline_span_id", default=None)

fields: Final[ContextVar[Mapping[str, Any] | None]] = ContextVar("ml_pipeline_fields", default=None)
"""What else every line carries, under ``context``; None: nothing."""

NOTHING_KNOWN: Final[Known] = (None, b"")

_nowhere: Final[list[Known]] = [NOTHING_KNOWN]
memo: Final[ContextVar[list[Known]]] = ContextVar("ml_pipeline_memo", default=_nowhere)
"""One place to keep what a log line says of the ids here, and who found it; another one wherever an id is another.

`restore` and `undo` see to that, and nothing else sets an id.
"""

VARIABLES: Final[Mapping[str, ContextVar[str | None]]] = {
    "operation": operation,
    "operation_id": operation_id,
    "run_id": run_id,
    "user_id": user_id,
    "trace_id": trace_id,
    "span_id": span_id,
}
"""Every variable by the key it has on a log line, in the order of the line's keys."""


def current() -> dict[str, str]:
    """Return the keys that are set here."""
    return {key: value for key, variable in VARIABLES.items() if (value := variable.get()) is not None}


def restore(values: Mapping[str, str | None]) -> list[tuple[ContextVar[Any], Token[Any]]]:
    """Set several variables at once.

    Args:
        values: New values by key; keys that are not named keep theirs.

    Returns:
        What `undo` needs.
    """
    # What a signal handler logs in the middle is known of neither the state before nor the one after.
    tokens: list[tuple[ContextVar[Any], Token[Any]]] = [(memo, memo.set([NOTHING_KNOWN]))]
    tokens += [(VARIABLES[key], VARIABLES[key].set(value)) for key, value in values.items()]
    return [*tokens, (memo, memo.set([NOTHING_KNOWN]))]


def undo(tokens: Sequence[tuple[ContextVar[Any], Token[Any]]]) -> None:
    """Set back what `restore` set, in the same context."""
    for variable, token in reversed(tokens):
        variable.reset(token)


class Carried(Generic[P, R]):
    """A function together with the context it was taken from: picklable when the function is.

    Args:
        function: What to call; what a coroutine function returns runs in that context too.
        values: The context to call it in; by default that of the caller.
        carried: What every line carries there; by default as for the caller, or nothing where *values* are given.
    """

    __slots__ = ("_carried", "_function", "_is_async", "_values")

    def __init__(
        self,
        function: Callable[P, R],
        values: Mapping[str, str | None] | None = None,
        carried: Mapping[str, Any] | None = None,
    ) -> None:
        self._function = function
        self._is_async = inspect.iscoroutinefunction(function)
        self._carried = fields.get() if values is None and carried is None else carried
        self._values: dict[str, str | None] = dict.fromkeys(VARIABLES) | dict(current() if values is None else values)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        if self._is_async:
            return self._awaited(*args, **kwargs)  # type: ignore[return-value]
        tokens = self._entered()
        try:
            return self._function(*args, **kwargs)
        finally:
            undo(tokens)

    async def _awaited(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        tokens = self._entered()
        try:
            return await self._function(*args, **kwargs)  # type: ignore[misc]
        finally:
            undo(tokens)

    def _entered(self) -> list[tuple[ContextVar[Any], Token[Any]]]:
        return [(fields, fields.set(self._carried)), *restore(self._values)]

    def __reduce__(self) -> tuple[Any, ...]:
        # As they will stand on the line: a lock among them, or a gigabyte, must not keep the function from its process.
        carried = None if self._carried is None else to_plain(self._carried, _redaction.current())
        return (Carried, (self._function, self._values, carried))
