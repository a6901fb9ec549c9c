"""One thing made from others: what a ``track_*`` call or the end of an operation says, before it is kept."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._events import EMPTY, LineageNode
from ml_pipeline.config._lineage_model import PREDICTION, EdgeRecord, NodeRecord, Status, name_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ml_pipeline.errors import LineageError

__all__ = ["About", "Origin", "Step"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Who says that a step was done, and when.

    Attributes:
        operation_id: The operation the step belongs to.
        owned: Whether that operation is known to be the one that did the step, not merely the one around the call.
        automatic: Whether the operation says so itself.
        began: When the step began; the same as *time* for a call.
    """

    time: float
    began: float
    pipeline: str
    run_id: str | None
    operation_id: str | None
    user_id: str | None
    owned: bool = False
    automatic: bool = False

    @classmethod
    def here(cls, operation_id: object = None) -> Origin:
        """Return the origin of a call made now, in the context of the caller."""
        now, settings = time.time(), _runtime.settings()
        return cls(
            time=now,
            began=now,
            pipeline=settings.name,
            run_id=_context.run_id.get() or settings.run_id,
            operation_id=_context.operation_id.get() if operation_id is None else name_of(operation_id),
            user_id=_context.user_id.get(),
            owned=operation_id is not None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing made from others.

    Attributes:
        kind: The kind of its edges.
        target: What was made.
        inputs: Ids of what it was made from.
        made: Inputs that the step itself describes; the others must be recorded already.
        parts: What the target consists of, each an edge away from it; the predictions of a batch.
        facts: What is known about the doing; kept on the edges.
        guessed: Whether the target's name was not given, but taken from the source.
        problems: What was wrong with the call.
    """

    kind: str
    origin: Origin
    target: LineageNode
    inputs: tuple[str, ...]
    made: tuple[LineageNode, ...] = ()
    parts: tuple[LineageNode, ...] = ()
    status: Status = "complete"
    facts: Mapping[str, Any] = field(default_factory=dict)
    guessed: bool = False
    problems: tuple[LineageError, ...] = ()

    def nodes(self, stand_ins: Sequence[LineageNode] = ()) -> list[NodeRecord]:
        """Return every node to keep: inputs first, then what was made, then its parts.

        Args:
            stand_ins: Placeholders for inputs that nobody has recorded.
        """
        return [self._node(node) for node in (*stand_ins, *self.made, self.target, *self.parts)]

    def edges(self) -> list[EdgeRecord]:
        """Return every edge to keep, those of the step's kind first."""
        made = [self._edge(source, self.target.node_id, self.kind, self.facts) for source in self.inputs]
        return made + [self._edge(self.target.node_id, part.node_id, PREDICTION, EMPTY) for part in self.parts]

    def _node(self, node: LineageNode) -> NodeRecord:
        origin = self.origin
        return NodeRecord(
            node_id=node.node_id,
            type=node.type,
            name=node.name,
            version=node.version,
            attributes=node.attributes,
            pipeline=origin.pipeline,
            run_id=origin.run_id,
            user_id=origin.user_id,
            first_seen=origin.time,
            last_seen=origin.time,
            automatic=origin.automatic,
        )

    def _edge(self, source_id: str, target_id: str, kind: str, facts: Mapping[str, Any]) -> EdgeRecord:
        origin = self.origin
        return EdgeRecord(
            source_id=source_id,
            target_id=target_id,
            kind=kind,
            status=self.status,
            attributes=facts,
            operation_id=origin.operation_id,
            pipeline=origin.pipeline,
            run_id=origin.run_id,
            user_id=origin.user_id,
            first_seen=origin.time,
            last_seen=origin.time,
            automatic=origin.automatic,
        )


@dataclass(frozen=True, slots=True)
class About:
    """What every step is told beside its own facts: who says so, how it ended, and whatever else is known."""

    origin: Origin
    status: object = "complete"
    attributes: Mapping[str, object] = field(default_factory=dict)
