"""One operation: its state, and the scope that observes a block or a function."""

from __future__ import annotations

import operator
import time
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._events import EMPTY, ErrorInfo, Kind, OperationEvent, OperationState
from ml_pipeline.config._failures import caused_by, error_info, is_failure, message_of
from ml_pipeline.config._log_format import plain_text, without_empty
from ml_pipeline.config._scoped import is_generator, scoped
from ml_pipeline.errors import OperationStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from ml_pipeline.config._open_operations import OpenOperations

__all__ = ["OperationRecord", "OperationScope", "complain", "split_numbers"]

P = ParamSpec("P")
R = TypeVar("R")


class OperationRecord:
    """What is known of one operation while it is open.

    Attributes:
        managed: Whether a ``with`` or a decorator ends it; an explicit completion then only adds facts.
        ended: How an explicit call said that it ended; None while nobody has.
        is_open: Whether its end has not been published yet.
        parent: The operation around it, where that is one of this process.
        previous: The context around it.
        started_with: The facts it began with.
        tokens: What brings that context back, where this one was entered.
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
        "started_with",
        "time",
        "tokens",
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
        self.started_with = dict(attributes)
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
        self.tokens: list[Any] = []
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

    def enter(self) -> None:
        """Make it the operation that the code from here on runs for."""
        self.tokens = _context.restore(self.context())

    def undo(self) -> bool:
        """Bring back the context around it, if it was entered here and has not been undone."""
        if not self.tokens:
            return False
        try:
            _context.undo(self.tokens)
        except ValueError:  # entered in another context, such as that of the task around this one
            return False
        self.tokens = []
        return True

    def ancestors(self) -> tuple[str, ...]:
        """Return the ids of the operations around it, the innermost first."""
        found, around = [self.parent_id] if self.parent_id else [], self.parent
        while around is not None:
            found += [around.parent_id] if around.parent_id else []
            around = around.parent
        return tuple(found)

    def fail_with(self, error: object) -> None:
        """Take in what it failed with, and which operation inside it that had failed before."""
        inner = caused_by(error, self.operation_id)
        if inner:
            self.attributes["caused_by"] = inner
        self.hear(error_info(error, self.operation_id, self.ancestors()))

    def is_inside(self, other: OperationRecord) -> bool:
        """Say whether it was started within another operation."""
        around = self.parent
        while around is not None and around is not other:
            around = around.parent
        return around is not None

    def refine(
        self, facts: Mapping[str, Any] = EMPTY, counts: object = None, metrics: object = None
    ) -> dict[str, object]:
        """Add what is said about it.

        Returns:
            The counts and scores that are no numbers: they are kept as facts, and are for `complain`.
        """
        refused: dict[str, object] = {}
        for label, values, kept in (("counts", counts, self.counts), ("metrics", metrics, self.metrics)):
            sound, unsound = split_numbers(values, label)
            kept.update(sound)
            refused.update(unsound)
        self.attributes.update({**without_empty(facts), **refused})
        return refused

    def hear(self, error: ErrorInfo) -> None:
        """Take an error; of several, an exception says more than a text, and a later one more than an earlier."""
        first, second = self.error, error
        if first is not None and first.type and not second.type:
            first, second = second, first
        self.error = second
        if first is not None and first.message not in second.message:
            self.attributes["reported_error"] = first.message

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
    it, and both go on. Made by `OperationLogger.operation`. Each entry is an operation of its own, also where several
    threads or tasks enter one scope.
    """

    __slots__ = ("_attributes", "_entered", "_kind", "_last", "_name", "_operations", "_user_id")

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
        self._entered: list[OperationRecord] = []
        self._last: OperationRecord | None = None

    @property
    def operation_id(self) -> str:
        """The operation's id; empty before the block begins."""
        record = self._record()
        return record.operation_id if record else ""

    @property
    def run_id(self) -> str:
        """The run it belongs to; empty before the block begins."""
        record = self._record()
        return record.run_id if record else ""

    def set(self, **attributes: Any) -> None:
        """Add facts about the operation, such as ``dataset_name``; they are on its end in every sink."""
        self._operations.refine(self._record(), self._kind, attributes)

    def count(self, **counts: float) -> None:
        """Set how many of what it handled, such as ``records=569``."""
        self._operations.refine(self._record(), self._kind, counts=counts)

    def measure(self, **metrics: float) -> None:
        """Set measured scores, such as ``roc_auc=0.92``."""
        self._operations.refine(self._record(), self._kind, metrics=metrics)

    def progress(self, done: float, total: float | None = None, **counts: float) -> None:
        """Say how far it has come.

        Args:
            done: How much is done.
            total: How much there is to do, if that is known.
            **counts: Whatever else was counted, such as ``epoch=3``.
        """
        given = {"done": done, "total": total, **counts}
        self._operations.report_progress(self._record(), self._kind, without_empty(given))

    def __enter__(self) -> Self:
        record = self._operations.open(self._kind, self._name, self._attributes, user_id=self._user_id)
        record.managed = True
        record.enter()
        self._entered.append(record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        record = self._record()
        if record is None or record not in self._entered:
            return
        self._entered.remove(record)
        self._last = record
        self._operations.leave(record)
        if error is None:
            self._operations.end(record, record.ended or "complete")
        elif is_failure(error):
            record.fail_with(error)
            self._operations.end(record, "fail")
        else:
            self._operations.end(record, "cancel", ErrorInfo(type(error).__name__, message_of(error)))

    def _record(self) -> OperationRecord | None:
        """The operation of the caller's context among those entered and not left; after the block, the last."""
        here = _context.operation_id.get()
        ours = (record for record in reversed(self._entered) if record.operation_id == here)
        return next(ours, self._entered[-1] if self._entered else self._last)

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
        if is_generator(function):
            raise OperationStateError(
                "an operation decorates a function that works when it is called, not a generator",
                getattr(function, "__qualname__", function),
                "use `with operation_logger.operation(...)` inside it",
            )
        name = self._name or getattr(function, "__name__", None)

        def scope() -> OperationScope:
            return OperationScope(self._operations, self._kind, name, self._user_id, self._attributes)

        return scoped(function, scope)


def split_numbers(values: object, label: str) -> tuple[dict[str, float], dict[str, object]]:
    """Tell what is a number, NumPy's included, from what is not.

    Args:
        values: A mapping, as a caller gave it; None stands for an empty one, and so does a value of None in it.
        label: What to call the whole, should it be no mapping.

    Returns:
        The numbers, and the rest as it was given.
    """
    sound: dict[str, float] = {}
    unsound: dict[str, object] = {}
    pairs, _ = _runtime.attempt(_as_dict, {} if values is None else values)
    if pairs is None:
        return {}, {label: values}
    for key, value in pairs.items():
        number = None if value is None else _number(value)
        if number is not None:
            sound[plain_text(key)] = number
        elif value is not None:
            unsound[plain_text(key)] = value
    return sound, unsound


def complain(refused: Mapping[str, object]) -> None:
    """Count and say that these were no numbers; with ``ML_PIPELINE_STRICT=1``, raise it."""
    for key, value in refused.items():
        with _runtime.guard("operation_logger"):
            raise OperationStateError(f"{key} must be a number", value, "it is kept as a fact of the operation")


def _as_dict(values: Any) -> dict[object, object]:
    return dict(values)


def _number(value: object) -> float | None:
    number, _ = _runtime.attempt(float, value)
    whole, _ = _runtime.attempt(operator.index, value)
    return number if number is None or whole is None else whole
