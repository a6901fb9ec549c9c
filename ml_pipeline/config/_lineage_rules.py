"""Which record a step belongs to, so that whatever is said several times is kept once.

A step is told by an operation at its end, by a ``track_*`` call, or by both in either order. The rules:

- A call inside an operation of its own kind belongs to that operation. What the call says is kept; the end of the
  operation adds facts and, if it failed, the status.
- A call beside an operation, before its end or after it, belongs to it when both name the same things in one run.
- A failed operation's edges stay failed, whatever is said later.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._lineage_automatic import FAILED_ENDS, Ending, about_of, step_of
from ml_pipeline.config._lineage_model import UNKNOWN, EdgeRecord, NodeRecord, known, name_of, placeholder
from ml_pipeline.config._lineage_store import EdgeQuery, LineageStore, NodeQuery
from ml_pipeline.config._routes import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ml_pipeline.config._events import OperationEvent
    from ml_pipeline.config._lineage_model import EdgeKey
    from ml_pipeline.config._lineage_step import About, Step

__all__ = ["Plan", "StepRules"]

_MOST_OPEN: Final = 10_000
_MOST_PREDICTIONS: Final = 1_000  # noted inside one batch: they are all written at its end, while the caller waits
_REMEMBERED: Final = 64


@dataclass(slots=True)
class _OpenOperation:
    kind: str
    parent_id: str | None
    began: float
    predictions: list[str] = field(default_factory=list)
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Plan:
    """What one step changes in the store, and what is to be kept in mind once it has.

    Attributes:
        nodes: What is written.
        edges: What is written.
        remove: Edges that another record of the same step replaces.
        news: The step, if it is to be told; None where a call has told it already.
        unknown: Inputs that nobody has recorded.
        ended: The step of the operation that has ended, which a call may still name.
        answered: The call beside that operation, which it has taken over.
    """

    nodes: Sequence[NodeRecord]
    edges: Sequence[EdgeRecord]
    remove: frozenset[EdgeKey] = frozenset()
    news: Step | None = None
    unknown: tuple[str, ...] = ()
    ended: Step | None = None
    answered: Step | None = None


class StepRules:
    """Remembers the open operations and the latest steps of this process, and plans what a step changes.

    Not locked, but for the open operations: whoever plans holds one lock from the plan to the write.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[str, _OpenOperation] = {}
        self._endings: deque[Step] = deque(maxlen=_REMEMBERED)
        self._calls: deque[Step] = deque(maxlen=_REMEMBERED)

    def started(self, event: OperationEvent) -> None:
        """Note that an operation is open."""
        with self._lock:
            if len(self._open) >= _MOST_OPEN:  # ends that never came, as of operations in a pool that was killed
                del self._open[next(iter(self._open))]
            edge = OPERATIONS[event.kind].edge
            self._open[event.operation_id or ""] = _OpenOperation(edge, event.parent_id, event.time)

    def predicted(self, event: OperationEvent) -> None:
        """Note a single prediction, if it was made inside a batch."""
        batch = self._open.get(event.parent_id or event.operation_id or "")
        if batch is None or batch.kind != "inference" or event.type != "complete":
            return
        if len(batch.predictions) < _MOST_PREDICTIONS:
            batch.predictions.append(name_of(event.attributes.get("prediction_id") or event.event_id))
        else:
            batch.left_out += 1

    def ended(self, event: OperationEvent) -> Ending | None:
        """Return what an operation's end has to record, if its kind records anything."""
        seen = self._open.pop(event.operation_id or "", None)
        if not OPERATIONS[event.kind].edge:
            return None
        return Ending(event, seen.began, tuple(seen.predictions), seen.left_out) if seen else Ending(event)

    def placed(self, step: Step) -> Step:
        """Return *step* under the operation that does it: the nearest around the call that is of the step's kind."""
        origin, around = step.origin, step.origin.operation_id
        if origin.owned or around is None:
            return step
        if around not in self._open:  # carried here from another process, by someone who knows what it does
            return replace(step, origin=replace(origin, owned=True))
        while around is not None and (seen := self._open.get(around)) is not None:
            if seen.kind == step.kind:
                return replace(step, origin=replace(origin, operation_id=around, owned=True))
            around = seen.parent_id
        return step

    def plan(self, item: Step | Ending, store: LineageStore) -> Plan | None:
        """Return what a call or the end of an operation changes; None where an operation does not say enough."""
        return self._plan_ending(item, store) if isinstance(item, Ending) else self._plan_call(item, store)

    def remember(self, plan: Plan) -> None:
        """Keep a plan that was carried out in mind, for what is said about the same step next."""
        if plan.ended is not None:
            self._endings.append(plan.ended)
        elif plan.news is not None and not plan.news.origin.owned:
            self._calls.append(plan.news)
        if plan.answered is not None:
            self._calls.remove(plan.answered)

    def _plan_call(self, step: Step, store: LineageStore) -> Plan:
        ending = None if step.origin.owned else _last(self._endings, lambda ended: _same_step(ended, step))
        if ending is not None:
            run_id, operation_id = ending.origin.run_id, ending.origin.operation_id
            step = replace(step, origin=replace(step.origin, run_id=run_id, operation_id=operation_id, owned=True))
        kept = _of_operation(step.origin.operation_id, step.kind, store)
        if any(str(edge.attributes.get("ended")) in FAILED_ENDS for edge in kept):
            step = replace(step, status="failed")
        automatic = [edge for edge in kept if edge.automatic]
        for edge in automatic[:1]:
            step = replace(step, facts={**edge.attributes, **step.facts})
        edges = step.edges()
        remove = frozenset(edge.key for edge in automatic) - {edge.key for edge in edges}
        return _with_stand_ins(step, edges, store, remove)

    def _plan_ending(self, ending: Ending, store: LineageStore) -> Plan | None:
        event, about = ending.event, about_of(ending)
        kind = OPERATIONS[event.kind].edge
        step = step_of(ending, kind, store)
        said = [edge for edge in _of_operation(event.operation_id, kind, store) if not edge.automatic]
        beside = self._said_beside(step) if step is not None and ending.began is not None and not said else None
        if beside is not None:
            said = _edges_of(beside, store)
        if said:
            ends = {end for edge in said for end in edge.key[1:3]}
            nodes = [node for node in step.nodes() if node.node_id in ends] if step else []
            refined = [_ended(edge, about, step.facts if step else known(about.attributes)) for edge in said]
            remove = frozenset(edge.key for edge in said) - {edge.key for edge in refined}
            return Plan(nodes, refined, remove, ended=step, answered=beside)
        return None if step is None else replace(_with_stand_ins(step, step.edges(), store), ended=step)

    def _said_beside(self, step: Step) -> Step | None:
        """Find what a call said about this operation from outside of it, while it was open."""
        return _last(self._calls, lambda call: call.origin.time >= step.origin.began and _same_step(step, call))


def _last(steps: deque[Step], fits: Callable[[Step], bool]) -> Step | None:
    return next((step for step in reversed(steps) if fits(step)), None)


def _same_step(ended: Step, call: Step) -> bool:
    """Say whether a call names what an operation did; what the operation left open, the call may fill in."""
    made, named = ended.target, call.target
    return (
        ended.kind == call.kind
        and call.origin.run_id in (None, ended.origin.run_id)
        and set(ended.inputs) <= set(call.inputs)
        and (ended.guessed or made.name == named.name)
        and made.version in ("", named.version)
    )


def _of_operation(operation_id: str | None, kind: str, store: LineageStore) -> list[EdgeRecord]:
    return store.edges(EdgeQuery(operation_id=operation_id, kind=kind)) if operation_id else []


def _edges_of(call: Step, store: LineageStore) -> list[EdgeRecord]:
    keys = {edge.key for edge in call.edges()}
    ends = [call.target.node_id, *(part.node_id for part in call.parts)]
    return [edge for edge in store.edges(EdgeQuery(targets=ends)) if edge.key in keys]


def _ended(edge: EdgeRecord, about: About, facts: Mapping[str, Any]) -> EdgeRecord:
    """Return what a call said, together with how the operation ended."""
    return replace(
        edge,
        status="failed" if about.status == "failed" else edge.status,
        attributes={**facts, **edge.attributes},
        operation_id=about.origin.operation_id,
        run_id=about.origin.run_id,
        last_seen=about.origin.time,
    )


def _with_stand_ins(
    step: Step, edges: Sequence[EdgeRecord], store: LineageStore, remove: frozenset[EdgeKey] = frozenset()
) -> Plan:
    made = {node.node_id for node in step.made}
    wanted = [node_id for node_id in step.inputs if node_id not in made]
    kept = {node.node_id for node in store.nodes(NodeQuery(ids=wanted, not_type=UNKNOWN))} if wanted else set()
    unknown = tuple(node_id for node_id in wanted if node_id not in kept)
    return Plan(step.nodes([placeholder(node_id) for node_id in unknown]), edges, remove, step, unknown)
