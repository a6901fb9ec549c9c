"""The part of the graph that a person looks at: bounded, and with repeated edges drawn as one."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._lineage_model import (
    BATCH,
    DEPLOYMENT,
    PREDICTION,
    SOURCE,
    VALIDATION,
    NodeRecord,
    Status,
)
from ml_pipeline.config._lineage_store import EdgeQuery, LineageStore, NodeQuery

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ml_pipeline.config._lineage_model import EdgeRecord

__all__ = ["Arrow", "View", "arrow_label", "detail", "heading", "summary", "view"]

MOST_ARROWS: Final = 2_000
_TIMES: Final = "\u00d7"
_SHORT_DIGEST: Final = 8
_DIGEST: Final = re.compile("[0-9a-f]{12,}")
_FOR_ANOTHERS_SAKE: Final = frozenset({VALIDATION, DEPLOYMENT, BATCH})
"""Types whose version is the digest of the node that they belong to, which tells a reader nothing."""


@dataclass(frozen=True, slots=True)
class Arrow:
    """All edges of one status from one node to another.

    Attributes:
        kinds: How many edges of each kind.
    """

    source_id: str
    target_id: str
    status: Status
    kinds: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class View:
    """What is shown.

    Attributes:
        nodes: Without single predictions, which are counted in their batches.
        arrows: Between these nodes.
        nodes_left_out: How many more nodes there are.
        arrows_left_out: How many more arrows there are.
    """

    nodes: tuple[NodeRecord, ...]
    arrows: tuple[Arrow, ...]
    nodes_left_out: int = 0
    arrows_left_out: int = 0


def view(store: LineageStore, *, run_id: str | None, most_nodes: int) -> View:
    """Read what is shown of a graph: the nodes seen last, and what lies between them.

    Args:
        store: Where the graph is kept.
        run_id: Only what this run touched; None for everything.
        most_nodes: How many nodes are shown.
    """
    query = NodeQuery(not_type=PREDICTION, run_id=run_id)
    nodes = store.nodes(NodeQuery(not_type=PREDICTION, run_id=run_id, newest=most_nodes))
    ids = [node.node_id for node in nodes]
    arrows = arrows_of(store.edges(EdgeQuery(sources=ids, targets=ids, run_id=run_id)))
    return View(
        tuple(nodes),
        arrows[:MOST_ARROWS],
        store.count_nodes(query) - len(nodes) if len(nodes) == most_nodes else 0,
        max(len(arrows) - MOST_ARROWS, 0),
    )


def arrows_of(edges: Iterable[EdgeRecord]) -> tuple[Arrow, ...]:
    """Draw the edges of each status between two nodes as one arrow."""
    kinds: dict[tuple[str, str, Status], Counter[str]] = {}
    for edge in edges:
        kinds.setdefault((edge.source_id, edge.target_id, edge.status), Counter())[edge.kind] += 1
    return tuple(Arrow(*ends, tuple(counts.items())) for ends, counts in kinds.items())


def summary(shown: View) -> str:
    """Say in one line how much is shown, and how much is not."""
    line = f"{_counted(len(shown.nodes), 'node')}, {_counted(len(shown.arrows), 'arrow')}"
    if shown.nodes_left_out:
        line += f"; the nodes seen last, {shown.nodes_left_out:,} more left out"
    if shown.arrows_left_out:
        line += f"; {shown.arrows_left_out:,} more arrows left out"
    return line


def heading(node: NodeRecord) -> str:
    """Return the node's name."""
    return node.name or "(unnamed)"


def detail(node: NodeRecord) -> str:
    """Say the one or two facts about a node that a reader asks for first."""
    facts = node.attributes
    parts = [] if node.type in _FOR_ANOTHERS_SAKE else [_version(node.version)]
    if node.type == VALIDATION and isinstance(facts.get("passed"), bool):
        parts.append("✓ passed" if facts["passed"] else "✗ not passed")
    elif node.type == SOURCE:
        parts.append(str(facts.get("uri", "")))
    elif node.type == BATCH:
        parts.append(_counted(facts.get("predictions_count"), "prediction"))
    elif "model_type" in facts:
        parts.append(str(facts["model_type"]))
    else:
        parts.append(_counted(facts.get("records_count"), "record"))
    return " · ".join(part for part in parts if part)


def arrow_label(arrow: Arrow) -> str:
    """Say the kinds of an arrow's edges, and how many there are of each."""
    kinds = ", ".join(kind if count == 1 else f"{kind} {_TIMES}{count:,}" for kind, count in arrow.kinds)
    return f"{kinds} failed" if arrow.status == "failed" else kinds


def _version(version: str) -> str:
    return version[:_SHORT_DIGEST] if _DIGEST.fullmatch(version) and not version.isdecimal() else version


def _counted(count: object, noun: str) -> str:
    if not isinstance(count, (int, float)):
        return ""
    return f"{count:,g} {noun}" if count == 1 else f"{count:,.10g} {noun}s"
