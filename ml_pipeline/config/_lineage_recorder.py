"""Takes what is said about lineage to the store, and tells everyone once it is there."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeAlias

from ml_pipeline import _runtime
from ml_pipeline.config._events import LineageEvent, OperationEvent
from ml_pipeline.config._ids import new_id
from ml_pipeline.config._lineage_model import PREDICTION, placeholder
from ml_pipeline.config._lineage_rules import Plan, StepRules
from ml_pipeline.config._lineage_sqlite import in_open_store
from ml_pipeline.errors import LineageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ml_pipeline.config._lineage_automatic import Ending
    from ml_pipeline.config._lineage_step import Step
    from ml_pipeline.config._lineage_store import LineageStore, Written

__all__ = ["SINK", "LineageRecorder"]

SINK: Final = "data_lineage"

_MOST_PENDING: Final = 1_000
_RETRY_SECONDS: Final = 5.0
_HOPELESS: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What a second attempt would raise again; what a store's engine raises is none of these."""

_Item: TypeAlias = "Step | Ending"


class LineageRecorder:
    """Takes steps from calls and operations, and keeps each once.

    Thread-safe. A step that the store does not take is kept in memory and tried again with the next one, at most every
    five seconds, so that a locked store costs the pipeline one wait and no lineage.

    Args:
        store: Returns the store, opening it if need be.
        publish: Tells everyone what was recorded, once it is.
        recorded: Called after each write.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        store: Callable[[], LineageStore],
        publish: Callable[[LineageEvent], None],
        recorded: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._publish = publish
        self._recorded = recorded
        self._clock = clock
        self._lock = threading.RLock()
        self._rules = StepRules()
        self._pending: deque[_Item] = deque()
        self._try_again = 0.0

    def called(self, step: Step) -> None:
        """Record what a ``track_*`` call said.

        Raises:
            LineageError: With ``ML_PIPELINE_STRICT=1``, after recording, if the call was wrong.
            Exception: What the store raises; the step is then kept for the next attempt.
        """
        self._record(self._rules.placed(step))

    def on_operation(self, event: OperationEvent) -> None:
        """Note the start of an operation, and record what it did at its end."""
        if event.attributes.get("single"):
            self._rules.predicted(event)
        elif event.type == "start":
            self._rules.started(event)
        elif event.type != "progress" and (ending := self._rules.ended(event)) is not None:
            self._record(ending)

    def flush(self) -> None:
        """Try once more to write what the store has not taken.

        Raises:
            Exception: What the store raises.
        """
        with self._lock:
            self._try_again = 0.0
            if self._pending:
                self._record()

    def _record(self, *items: _Item) -> None:
        kept: list[tuple[Plan, Written]] = []
        try:
            with self._lock:
                self._enqueue(items)
                while self._pending and self._clock() >= self._try_again:
                    kept += self._first_kept()
        finally:
            for plan, written in kept:
                for event in _events(plan, written):
                    self._publish(event)
        for plan, _ in kept:
            _complain(plan)

    def _enqueue(self, items: tuple[_Item, ...]) -> None:
        self._pending.extend(items)
        if len(self._pending) > _MOST_PENDING:
            self._pending.popleft()
            dropped = LineageError(
                f"lineage that the store does not take is kept for up to {_MOST_PENDING:,} steps",
                remedy="the oldest is dropped; make the store writable",
            )
            _runtime.telemetry_error(SINK, dropped)

    def _first_kept(self) -> list[tuple[Plan, Written]]:
        # Until the store has answered, the next attempt has to wait; what it raises goes on to the caller.
        self._try_again = self._clock() + _RETRY_SECONDS
        try:
            kept = self._kept(self._pending[0])
        except _HOPELESS:
            self._pending.popleft()
            self._try_again = 0.0
            raise
        self._pending.popleft()
        self._try_again = 0.0
        return kept

    def _kept(self, item: _Item) -> list[tuple[Plan, Written]]:
        kept = in_open_store(self._store, lambda store: self._kept_in(store, item))
        for plan, _ in kept:
            self._rules.remember(plan)
            self._recorded()
        return kept

    def _kept_in(self, store: LineageStore, item: _Item) -> list[tuple[Plan, Written]]:
        plan = self._rules.plan(item, store)
        return [] if plan is None else [(plan, store.write(plan.nodes, plan.edges, remove=plan.remove))]


def _events(plan: Plan, written: Written) -> list[LineageEvent]:
    """Return what to tell: one event for the step, and one for the parts of its target, if it has new ones."""
    step = plan.news
    if step is None:
        return []
    stand_ins = [placeholder(node_id) for node_id in plan.unknown]
    event = LineageEvent(
        time=step.origin.time,
        pipeline=step.origin.pipeline,
        run_id=step.origin.run_id,
        operation_id=step.origin.operation_id,
        user_id=step.origin.user_id,
        kind=step.kind,
        nodes=(*stand_ins, *step.made, step.target),
        edges=tuple(edge for edge in plan.edges if edge.kind == step.kind),
        new_nodes={kind: count for kind, count in written.nodes.items() if kind != PREDICTION},
        new_edges=max(written.edges[step.kind] - len(plan.remove), 0),
        automatic=step.origin.automatic,
    )
    if not written.edges[PREDICTION]:
        return [event]
    # The parts are counted, not listed: a batch may have ten thousand.
    new = {PREDICTION: written.nodes[PREDICTION]}
    parts = replace(
        event,
        event_id=new_id(),
        kind=PREDICTION,
        nodes=(step.target,),
        edges=(),
        new_nodes=new,
        new_edges=written.edges[PREDICTION],
    )
    return [event, parts]


def _complain(plan: Plan) -> None:
    if plan.news is None:
        return
    problems = list(plan.news.problems)
    if plan.unknown:
        problems.append(
            LineageError(
                f"an input of a step of kind {plan.news.kind} must have been recorded before it",
                plan.unknown[0],
                "it is kept as a node of type 'unknown'; pass the id that a track_* call returned",
            )
        )
    for problem in problems:
        with _runtime.guard(SINK):
            raise problem
