"""Where lineage is kept: the contract of a store, and one in memory."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ml_pipeline.config._lineage_model import EdgeKey, EdgeRecord, NodeRecord, is_new, merge_edge, merge_node

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

__all__ = ["EdgeQuery", "LineageStore", "MemoryLineageStore", "NodeQuery", "Written"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeQuery:
    """Which nodes: those that meet every condition that is not None.

    Attributes:
        ids: One of these.
        type: Of this type.
        not_type: Of any type but this.
        name: Of this name.
        run_id: Recorded first by this run, or touched by an edge of it.
        newest: Only so many, those seen last.
    """

    ids: Collection[str] | None = None
    type: str | None = None
    not_type: str | None = None
    name: str | None = None
    run_id: str | None = None
    newest: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeQuery:
    """Which edges: those that meet every condition that is not None.

    Attributes:
        sources: Beginning at one of these nodes.
        targets: Ending at one of these nodes.
        kind: Of this kind.
        operation_id: Of this operation.
        run_id: Of this run.
    """

    sources: Collection[str] | None = None
    targets: Collection[str] | None = None
    kind: str | None = None
    operation_id: str | None = None
    run_id: str | None = None


@dataclass(frozen=True, slots=True)
class Written:
    """What one write added.

    Attributes:
        nodes: Nodes that were not there before, by type; a placeholder that took on its type counts as one.
        edges: Edges that were not there before, by kind.
    """

    nodes: Counter[str] = field(default_factory=Counter)
    edges: Counter[str] = field(default_factory=Counter)


class LineageStore(Protocol):
    """Keeps nodes by id and edges by key.

    Thread-safe; other processes may write to the same data at the same time. A store does not outlive a fork: a child
    opens its own. Attributes are plain JSON values already, and bounded. Any method raises what its engine raises;
    whoever records with it counts that and tries again, so a write that raised must have changed nothing.
    """

    def write(
        self, nodes: Sequence[NodeRecord], edges: Sequence[EdgeRecord], *, remove: Collection[EdgeKey] = ()
    ) -> Written:
        """Keep nodes and edges, all or none; they outlive the process when the call returns.

        Args:
            nodes: Joined to what is there by `merge_node`.
            edges: Joined to what is there by `merge_edge`; both ends are among *nodes* or kept already.
            remove: Edges to forget after that, with those of their ends that only automatic records named and that
                have no edge left; a key that is not there is no error.

        Returns:
            What had not been there before.
        """
        ...

    def nodes(self, query: NodeQuery) -> list[NodeRecord]:
        """Return the nodes asked for, in the order in which they were first recorded."""
        ...

    def edges(self, query: EdgeQuery) -> list[EdgeRecord]:
        """Return the edges asked for, in the order in which they were first recorded."""
        ...

    def count_nodes(self, query: NodeQuery) -> int:
        """Return how many nodes `nodes` would return."""
        ...

    def close(self) -> None:
        """Give back files and connections; the store is not used afterwards."""
        ...


class MemoryLineageStore:
    """Lineage in this process alone, for tests and for looking around; every question reads every record."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._nodes: dict[str, NodeRecord] = {}
        self._edges: dict[EdgeKey, EdgeRecord] = {}

    def write(
        self, nodes: Sequence[NodeRecord], edges: Sequence[EdgeRecord], *, remove: Collection[EdgeKey] = ()
    ) -> Written:
        """See `LineageStore.write`."""
        with self._lock:
            written = Written(
                Counter(node.type for node in nodes if self._put_node(node)),
                Counter(edge.kind for edge in edges if self._put_edge(edge)),
            )
            for key in remove:
                self._edges.pop(key, None)
            self._drop_orphans({end for key in remove for end in key[1:3]})
        return written

    def nodes(self, query: NodeQuery) -> list[NodeRecord]:
        """See `LineageStore.nodes`."""
        with self._lock:
            of_run = [] if query.run_id is None else self.edges(EdgeQuery(run_id=query.run_id))
            touched = {end for edge in of_run for end in edge.key[1:3]}
            found = [
                (node.last_seen, index, node)
                for index, node in enumerate(self._nodes.values())
                if (query.ids is None or node.node_id in query.ids)
                and query.type in (None, node.type)
                and query.not_type != node.type
                and query.name in (None, node.name)
                and (query.run_id in (None, node.run_id) or node.node_id in touched)
            ]
        if query.newest is not None:
            found = sorted(found, key=lambda item: item[:2], reverse=True)[: query.newest]
        return [node for _, _, node in sorted(found, key=lambda item: item[1])]

    def edges(self, query: EdgeQuery) -> list[EdgeRecord]:
        """See `LineageStore.edges`."""
        with self._lock:
            return [
                edge
                for edge in self._edges.values()
                if (query.sources is None or edge.source_id in query.sources)
                and (query.targets is None or edge.target_id in query.targets)
                and query.kind in (None, edge.kind)
                and query.operation_id in (None, edge.operation_id)
                and query.run_id in (None, edge.run_id)
            ]

    def count_nodes(self, query: NodeQuery) -> int:
        """See `LineageStore.count_nodes`."""
        return len(self.nodes(query))

    def close(self) -> None:
        """Do nothing: there is nothing to give back, and the records stay."""

    def _put_node(self, node: NodeRecord) -> bool:
        old = self._nodes.get(node.node_id)
        self._nodes[node.node_id] = merged = merge_node(old, node)
        return is_new(old, merged)

    def _put_edge(self, edge: EdgeRecord) -> bool:
        old = self._edges.get(edge.key)
        self._edges[edge.key] = merge_edge(old, edge)
        return old is None

    def _drop_orphans(self, candidates: set[str]) -> None:
        used = {end for key in self._edges for end in key[1:3]} if candidates else set()
        for node_id in candidates - used:
            if node_id in self._nodes and self._nodes[node_id].automatic:
                del self._nodes[node_id]
