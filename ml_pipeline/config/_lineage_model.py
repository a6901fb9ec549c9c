"""What a lineage store keeps: nodes and edges with where they came from, and how a second record joins the first."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from ml_pipeline.config._encoding import encode, to_plain
from ml_pipeline.config._events import EMPTY, LineageEdge, LineageNode
from ml_pipeline.config._ids import content_id
from ml_pipeline.config._redaction import current

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "BATCH",
    "DATASET",
    "DEPLOYMENT",
    "FEATURES",
    "MODEL",
    "NODE_TYPES",
    "PREDICTION",
    "SOURCE",
    "UNKNOWN",
    "VALIDATION",
    "EdgeKey",
    "EdgeRecord",
    "Lineage",
    "NodeRecord",
    "Status",
    "described",
    "digest_of",
    "is_new",
    "known",
    "merge_edge",
    "merge_node",
    "name_of",
    "placeholder",
]

SOURCE: Final = "source"
DATASET: Final = "dataset"
VALIDATION: Final = "validation"
FEATURES: Final = "features"
MODEL: Final = "model"
DEPLOYMENT: Final = "deployment"
BATCH: Final = "batch"
PREDICTION: Final = "prediction"
UNKNOWN: Final = "unknown"
"""Stands for an id that was named as an input before anything was recorded under it."""

NODE_TYPES: Final = (SOURCE, DATASET, VALIDATION, FEATURES, MODEL, DEPLOYMENT, BATCH, PREDICTION, UNKNOWN)
"""In the order in which a pipeline makes them."""

NODE_BYTES: Final = 262_144
"""Of the attributes of one node, as JSON."""
EDGE_BYTES: Final = 32_768
"""Of the attributes of one edge; a step has as many edges as inputs, and each carries the facts of the step."""

_NAME_CHARACTERS: Final = 1_000
_DIGEST_CHARACTERS: Final = 24

Status = Literal["complete", "failed"]
EdgeKey: TypeAlias = tuple[str, str, str, str | None]
"""(kind, source id, target id, operation id): what makes two records one edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeRecord(LineageNode):
    """A node as it is kept.

    Attributes:
        pipeline: The pipeline that recorded it first.
        run_id: The run that recorded it first.
        user_id: Who recorded it first.
        first_seen: When, in seconds since the Unix epoch.
        last_seen: When it was named last.
        automatic: True while only operations, and no ``track_*`` call, have named it.
    """

    pipeline: str = ""
    run_id: str | None = None
    user_id: str | None = None
    first_seen: float
    last_seen: float
    automatic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeRecord(LineageEdge):
    """An edge as it is kept.

    Attributes:
        operation_id: The operation that made the target from the source; None outside any.
        pipeline: The pipeline it belongs to.
        run_id: The run it belongs to.
        user_id: Who recorded it first.
        first_seen: When, in seconds since the Unix epoch.
        last_seen: When it was said last.
        automatic: True while only the operation itself, and no ``track_*`` call, has said it.
    """

    operation_id: str | None = None
    pipeline: str = ""
    run_id: str | None = None
    user_id: str | None = None
    first_seen: float
    last_seen: float
    automatic: bool = False

    @property
    def key(self) -> EdgeKey:
        """What makes this edge one with another record of it."""
        return (self.kind, self.source_id, self.target_id, self.operation_id)


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a walk from one node reached.

    Attributes:
        start: Where the walk began.
        nodes: What it reached, breadth first, so the nearest come first; without *start*.
        edges: The edges it went along, each once.
        truncated: True where the walk ended at its bound and there is more.
    """

    start: NodeRecord
    nodes: tuple[NodeRecord, ...]
    edges: tuple[EdgeRecord, ...]
    truncated: bool = False


def described(node_type: str, name: object, version: object = "", **facts: object) -> LineageNode:
    """Name a thing by what makes it this one.

    Args:
        node_type: One of `NODE_TYPES`.
        name: What people call it; anything is turned into text.
        version: Which one of that name.
        **facts: What else is known; what is None or empty is left out.

    Returns:
        The node, with the id that every process gives to the same type, name and version.
    """
    shown, which = name_of(name), name_of(version)
    identity = {"type": node_type, "name": shown, "version": which}
    return LineageNode(
        node_id=content_id(node_type, identity), type=node_type, name=shown, version=which, attributes=known(facts)
    )


def name_of(value: object) -> str:
    """Turn any value into the text of a name, a version or an id.

    Args:
        value: Anything; None is no name.

    Returns:
        Text of bounded length. A longer one keeps its beginning and carries its SHA-256, so that two stay two.
    """
    plain = value if type(value) is str else to_plain(value)
    text = "" if plain is None else plain if isinstance(plain, str) else encode(plain).decode()
    if len(text) > _NAME_CHARACTERS:
        digest = hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()[:16]
        text = f"{text[:_NAME_CHARACTERS]}… {len(text) - _NAME_CHARACTERS} more characters, sha256 {digest}"
    return str(to_plain(text))


def digest_of(node_id: str) -> str:
    """Return the digest within a node's id, which is the version of what exists only for that node's sake."""
    digest = node_id.rpartition(":")[2]
    if len(digest) == _DIGEST_CHARACTERS and set(digest) <= set("0123456789abcdef"):
        return digest
    return content_id(UNKNOWN, {"id": node_id}).rpartition(":")[2]


def placeholder(node_id: str) -> LineageNode:
    """Stand in for a node that nobody has recorded yet; it takes on its type and name when somebody does."""
    return LineageNode(node_id=node_id, type=UNKNOWN, name=node_id)


def known(facts: Mapping[str, object]) -> Mapping[str, Any]:
    """Return *facts* as plain, bounded values, redacted, without those that say nothing."""
    if not facts:
        return EMPTY
    return {key: value for key, value in to_plain(facts, current()).items() if value not in (None, "", [], {})}


def merge_node(old: NodeRecord | None, new: NodeRecord) -> NodeRecord:
    """Join a node's new record to what the store holds.

    Args:
        old: What the store holds, if it holds the node.
        new: What is said now.

    Returns:
        The node to keep: attributes of both, the newer winning unless an automatic record meets an explicit one; the
        first's origin; the type and name of a placeholder are replaced by the first real ones.
    """
    if old is None:
        return replace(new, attributes=_fitting(new.attributes, NODE_BYTES))
    named = new if old.type == UNKNOWN else old
    return replace(
        old,
        type=named.type,
        name=named.name,
        version=named.version,
        attributes=_joined(old, new, NODE_BYTES),
        last_seen=max(old.last_seen, new.last_seen),
        automatic=old.automatic and new.automatic,
    )


def merge_edge(old: EdgeRecord | None, new: EdgeRecord) -> EdgeRecord:
    """Join an edge's new record to what the store holds.

    Args:
        old: What the store holds, if it holds the edge.
        new: What is said now.

    Returns:
        The edge to keep: attributes as in `merge_node`, the status said last, the first's user and time.
    """
    if old is None:
        return replace(new, attributes=_fitting(new.attributes, EDGE_BYTES))
    return replace(
        old,
        status=new.status,
        attributes=_joined(old, new, EDGE_BYTES),
        pipeline=new.pipeline,
        run_id=new.run_id or old.run_id,
        user_id=old.user_id or new.user_id,
        last_seen=max(old.last_seen, new.last_seen),
        automatic=old.automatic and new.automatic,
    )


def is_new(old: NodeRecord | None, merged: NodeRecord) -> bool:
    """Say whether joining made a node that nobody had recorded before: none was kept, or a placeholder only."""
    return old is None or old.type == UNKNOWN != merged.type


def _joined(old: NodeRecord | EdgeRecord, new: NodeRecord | EdgeRecord, most_bytes: int) -> Mapping[str, Any]:
    if not old.attributes or not new.attributes:
        return _fitting(old.attributes or new.attributes, most_bytes)
    first, second = (new, old) if new.automatic and not old.automatic else (old, new)
    return _fitting({**first.attributes, **second.attributes}, most_bytes)


def _fitting(attributes: Mapping[str, Any], most_bytes: int) -> Mapping[str, Any]:
    if not attributes or len(encode(dict(attributes))) <= most_bytes:
        return attributes
    kept: dict[str, Any] = {}
    room = most_bytes
    for key, value in attributes.items():
        room_after = room - len(encode({key: value}))
        if room_after >= 0:
            kept[key], room = value, room_after
    kept["…"] = f"{len(attributes) - len(kept)} left out"
    return kept
