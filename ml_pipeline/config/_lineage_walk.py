"""Walking the graph: what a thing came from, what came of it, and the way between two things."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final, Literal

from ml_pipeline.config._lineage_model import EdgeKey, EdgeRecord, Lineage, NodeRecord, name_of
from ml_pipeline.config._lineage_store import EdgeQuery, LineageStore, NodeQuery
from ml_pipeline.errors import LineageError

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Direction", "node_of", "path_between", "walk"]

Direction = Literal["upstream", "downstream"]

_COMPARED: Final = 1_000
_COMPARED_CHARACTERS: Final = 100


def node_of(store: LineageStore, node_id: object) -> NodeRecord:
    """Return the node of an id.

    Raises:
        LineageError: If there is none; the message names the closest there is.
    """
    wanted = name_of(node_id)
    found = store.nodes(NodeQuery(ids=(wanted,)))
    if not found:
        raise LineageError("a lineage node must have been recorded", node_id, _closest(store, wanted))
    return found[0]


def walk(
    store: LineageStore, node_id: object, direction: Direction, *, include_failed: bool, max_nodes: int
) -> Lineage:
    """Follow edges from one node, breadth first; a cycle is gone round once.

    Args:
        store: Where the graph is kept.
        node_id: Where to begin.
        direction: Against the edges or along them.
        include_failed: Whether to follow edges that failed.
        max_nodes: How many nodes to reach at most.

    Raises:
        LineageError: If there is no such node.
    """
    start = node_of(store, node_id)
    reached: dict[str, NodeRecord] = {start.node_id: start}
    edges: dict[EdgeKey, EdgeRecord] = {}
    frontier = [start.node_id]
    truncated = False
    while frontier and not truncated:
        found = _edges_at(store, frontier, direction, include_failed)
        ahead = dict.fromkeys(_far_end(edge, direction) for edge in found)
        new = [far for far in ahead if far not in reached]
        truncated = len(reached) - 1 + len(new) > max_nodes
        new = new[: max_nodes - len(reached) + 1]
        by_id = {node.node_id: node for node in store.nodes(NodeQuery(ids=new))}
        reached |= {far: by_id[far] for far in new if far in by_id}
        edges |= {edge.key: edge for edge in found if _far_end(edge, direction) in reached}
        frontier = [far for far in new if far in by_id]
    return Lineage(start, tuple(reached.values())[1:], tuple(edges.values()), truncated)


def path_between(
    store: LineageStore, from_id: object, to_id: object, *, include_failed: bool, max_nodes: int
) -> list[NodeRecord]:
    """Find a shortest way along the edges.

    Args:
        store: Where the graph is kept.
        from_id: Where it begins.
        to_id: Where it ends.
        include_failed: Whether to follow edges that failed.
        max_nodes: How many nodes to look at, at most.

    Returns:
        The nodes on the way, both ends included; empty if there is no way.

    Raises:
        LineageError: If either node is not there, or no way was found among the first *max_nodes*.
    """
    start, end = node_of(store, from_id), node_of(store, to_id)
    before: dict[str, str] = {start.node_id: ""}
    frontier = [start.node_id]
    while frontier and end.node_id not in before:
        if len(before) > max_nodes:
            raise LineageError(
                "a path must be found among the nodes looked at", f"max_nodes={max_nodes}", "allow more of them"
            )
        found = _edges_at(store, frontier, "downstream", include_failed)
        steps = {edge.target_id: edge.source_id for edge in reversed(found) if edge.target_id not in before}
        before |= steps
        frontier = list(steps)
    way: list[str] = []
    at = end.node_id if end.node_id in before else ""
    while at:
        way.append(at)
        at = before[at]
    by_id = {node.node_id: node for node in store.nodes(NodeQuery(ids=way))}
    return [by_id[node_id] for node_id in reversed(way)]


def _edges_at(
    store: LineageStore, nodes: Collection[str], direction: Direction, include_failed: bool
) -> list[EdgeRecord]:
    query = EdgeQuery(targets=nodes) if direction == "upstream" else EdgeQuery(sources=nodes)
    return [edge for edge in store.edges(query) if include_failed or edge.status == "complete"]


def _far_end(edge: EdgeRecord, direction: Direction) -> str:
    return edge.source_id if direction == "upstream" else edge.target_id


def _closest(store: LineageStore, wanted: str) -> str:
    """Name the nodes that were most likely meant: ids are hashes, so what was given is often a name."""
    named = store.nodes(NodeQuery(name=wanted, newest=1))
    if not named:
        recent = store.nodes(NodeQuery(newest=_COMPARED))
        by_text = {text[:_COMPARED_CHARACTERS]: node for node in recent for text in (node.name, node.node_id)}
        close = difflib.get_close_matches(wanted[:_COMPARED_CHARACTERS], by_text, n=1, cutoff=0.6)
        named = [by_text[text] for text in close]
    if not named:
        return "find() returns the nodes there are"
    return f"did you mean {named[0].node_id!r}, the {named[0].type} {named[0].name[:_COMPARED_CHARACTERS]!r}?"
