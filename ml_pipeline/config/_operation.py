"""One operation: its state, and the scope that observes a block or a function."""

from __future__ import annotations

import asyncio
import functools
import inspect
import time
import traceback
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._events import ErrorInfo, Kind, OperationEvent, OperationState
from ml_pipeline.errors import OperationStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from ml_pipeline.config._open_operations import OpenOperations

__all__ = ["OperationRecord", "OperationScope", "error_info", "numbers"]

P = ParamSpec("P")
R = TypeVar("R")

_SEEN_BY: Final = "__ml_pipeline_operation_id__"
"""Set on an exception by the innermost operation it failed: the ones around it need not tell its traceback again."""


class OperationRecord:
    """What is known of one operation while it is open.

    Attributes:
        managed: Whether a ``with`` or a decorator ends it; an explicit completion then only adds facts.
        ended: How an explicit call said that it ended; None while nobody has.
        is_open: Whether its end has not been published yet.
        previous: The context around it.
    """

    __slots__ = (
        "attributes",
        "clock_start",
        "counts",
        "ended",
        "error",
        "is_open",
        "kind",
        "managed",
        "metrics",
        "name",
        "operation_id",
        "parent",
        "parent_id",
        "pipeline",
        "previous",
        "run_id",
        "time",
        "user_id",
    )

    def __init__(
        self,
        operation_id: str,
        kind: Kind,
        name: str,
        attributes: Mapping[str, Any],
        *,
        run_id: str,
        user_id: str | None,
    ) -> None:
        self.operation_id = operation_id
        self.kind = kind
        self.name = name
        self.attributes = dict(attributes)
        self.counts: dict[str, float] = {}
        self.metrics: dict[str, float] = {}
        self.error: ErrorInfo | None = None
        self.run_id = run_id
        self.user_id = user_id
        self.pipeline = _runtime.settings().name
        self.parent: OperationRecord | None = None
        self.parent_id: str | None = _context.operation_id.get()
        self.previous: dict[str, str | None] = {
            key: _context.VARIABLES[key].get() for key in ("operation", "operation_id", "run_id", "user_id")
        }
        self.managed = False
        self.ended: OperationState | None = None
        self.is_open = True
        self.time = time.time()
        self.clock_start = time.perf_counter()

    def context(self) -> dict[str, str | None]:
        """Return the context variables that hold inside it."""
        return {
            "operation": self.name,
            "operation_id": self.operation_id,
            "run_id": self.run_id,
            "user_id": self.user_id,
        }

    def event(self, type_: OperationState) -> OperationEvent:
        """Return what happened to it now as an event."""
        return OperationEvent(
            type=type_,
            kind=self.kind,
            name=self.name,
            pipeline=self.pipeline,
            run_id=self.run_id,
            operation_id=self.operation_id,
            user_id=self.user_id,
            parent_id=self.parent_id,
            attributes=dict(self.attributes),
            counts=dict(self.counts),
            metrics=dict(self.metrics),
            duration_seconds=None if type_ == "start" else time.perf_counter() - self.clock_start,
            error=self.error,
        )

    def journal_entry(self) -> dict[str, Any]:
        """Return what the next start needs to report it, should this process be killed."""
        names = ("operation_id", "parent_id", "run_id", "user_id", "pipeline", "kind", "name", "time", "attributes")
        return {name: getattr(self, name) for name in names}


class OperationScope:
    """Observes a ``with`` block, an ``async with`` block, or every call of a decorated function.

    The end of the block is the end of the operation: an exception fails it, Ctrl-C, an exit or a cancelled task cancels
    it, and both go on. Made by `OperationLogger.operation`.
    """

    __slots__ = ("_attributes", "_kind", "_name", "_operations", "_record", "_tokens", "_user_id")

    def __init__(
        self,
        operations: OpenOperations,
        kind: str,
        name: str | None,
        user_id: str | None,
        attributes: Mapping[str, Any],
    ) -> None:
        self._operations = operations
        self._kind = kind
        self._name = name
        self._user_id = user_id
        self._attributes = attributes
        self._record: OperationRecord | None = None
        self._tokens: list[Any] = []

    @property
    def operation_id(self) -> str:
        """The operation's id; empty before the block begins."""
        return self._record.operation_id if self._record else ""

    @property
    def run_id(self) -> str:
        """The run it belongs to; empty before the block begins."""
        return self._record.run_id if self._record else ""

    def set(self, **attributes: Any) -> None:
        """Add facts about the operation, such as ``dataset_name``; they are on its end in every sink."""
        if self._record:
            self._record.attributes.update(attributes)

    def count(self, **counts: float) -> None:
        """Set how many of what it handled, such as ``records=569``."""
        if self._record:
            self._record.counts.update(numbers(counts))

    def measure(self, **metrics: float) -> None:
        """Set measured scores, such as ``roc_auc=0.92``."""
        if self._record:
            self._record.metrics.update(numbers(metrics))

    def progress(self, done: float, total: float | None = None, **counts: float) -> None:
        """Say how far it has come.

        Args:
            done: How much is done.
            total: How much there is to do, if that is known.
            **counts: Whatever else was counted, such as ``epoch=3``.
        """
        if self._record:
            given = {"done": done, **({} if total is None else {"total": total}), **counts}
            self._operations.report_progress(self._record, given, {})

    def __enter__(self) -> Self:
        record = self._operations.open(self._kind, self._name, self._attributes, user_id=self._user_id)
        record.managed = True
        self._tokens = _context.restore(record.context())
        self._record = record
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        record = self._record
        if record is None:
            return
        _leave(record, self._tokens)
        if error is None:
            self._operations.end(record, record.ended or "complete")
        elif isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError):
            self._operations.end(record, "fail", error_info(error, record.operation_id))
        else:
            self._operations.end(record, "cancel", ErrorInfo(type(error).__name__, str(error)))

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Observe every call of *function*, which may be a coroutine function; each call is an operation of its own.

        Raises:
            OperationStateError: If it is a generator function, whose call does no work that could be observed.
        """
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise OperationStateError(
                "an operation decorates a function that works when it is called, not a generator",
                function.__qualname__,
                "use `with operation_logger.operation(...)` inside it",
            )
        name = self._name or function.__name__

        def scope() -> OperationScope:
            return OperationScope(self._operations, self._kind, name, self._user_id, self._attributes)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def observed_async(*args: P.args, **kwargs: P.kwargs) -> Any:
                with scope():
                    return await function(*args, **kwargs)

            return observed_async  # type: ignore[return-value]

        @functools.wraps(function)
        def observed(*args: P.args, **kwargs: P.kwargs) -> R:
            with scope():
                return function(*args, **kwargs)

        return observed


def error_info(error: BaseException | str, operation_id: str = "") -> ErrorInfo:
    """Turn an exception, or a text that stands for one, into plain text.

    Args:
        error: What went wrong.
        operation_id: The operation it failed; the first one to ask keeps the traceback.

    Returns:
        Type, message and traceback; the traceback is empty where an operation inside this one has told it.
    """
    if isinstance(error, str):
        return ErrorInfo("", error)
    seen_by = getattr(error, _SEEN_BY, None)
    if operation_id and seen_by is None:
        _runtime.attempt(setattr, error, _SEEN_BY, operation_id)
    message, _ = _runtime.attempt(str, error)
    if seen_by not in (None, operation_id):
        return ErrorInfo(type(error).__name__, message or "")
    lines, _ = _runtime.attempt(traceback.format_exception, type(error), error, error.__traceback__)
    return ErrorInfo(type(error).__name__, message or "", "".join(lines or []))


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Keep what is a number, NumPy's included; what is not is counted as a failure of telemetry and left out."""
    kept: dict[str, float] = {}
    for key, value in values.items():
        number, broken = _runtime.attempt(float, value)
        if broken is None and number is not None:
            kept[key] = int(number) if isinstance(value, int) else number
        elif value is not None:
            _runtime.telemetry_error("operation_logger", OperationStateError(f"{key} must be a number", value))
    return kept


def _leave(record: OperationRecord, tokens: list[Any]) -> None:
    try:
        _context.undo(tokens)
    except ValueError:  # the block was left in another context than it was entered in, as async generators do
        _context.restore(record.previous)
