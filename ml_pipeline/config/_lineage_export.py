"""Lineage as files: JSON for programs, DOT for Graphviz, SVG for people; each replaced whole."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline._platform import replace_durably
from ml_pipeline.config._encoding import encode, one_line, rfc3339
from ml_pipeline.config._lineage_sqlite import in_open_store
from ml_pipeline.config._lineage_store import EdgeQuery, LineageStore, NodeQuery
from ml_pipeline.config._lineage_view import View, arrow_label, detail, heading, summary, view
from ml_pipeline.config._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ml_pipeline.config._lineage_model import EdgeRecord, NodeRecord

__all__ = ["LineageFiles", "to_dot"]

_SHORTEST_SECONDS: Final = 1.0
_PAUSE_FACTOR: Final = 10.0  # a graph that takes long to write is written less often: a tenth of one core at most
_NODES_IN_SVG: Final = 300
_NODES_IN_DOT: Final = 2_000


class LineageFiles:
    """Writes the files of one store, and keeps the default ones up to date off the caller's thread.

    Thread-safe.

    Args:
        store: Returns the store, opening it if need be.
        folder: Where files go that are not given a place.
        most_nodes: Past this many nodes, files are written only on demand; None: always only on demand.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        store: Callable[[], LineageStore],
        folder: Path,
        most_nodes: int | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._folder = folder
        self._most_nodes = most_nodes
        self._clock = clock
        self._lock = threading.Lock()
        self._worker = Worker("data_lineage", clock)
        self._stale = False
        self._next = 0.0

    def recorded(self) -> None:
        """Note that the store holds something that the files do not."""
        self._stale = True

    def run_ended(self) -> None:
        """Bring the files up to date soon; at most once a second, and less often the longer it takes."""
        if self._stale and self._most_nodes is not None:
            self._worker.submit("export", self._update, delay_seconds=max(0.0, self._next - self._clock()))

    def flush(self) -> None:
        """Bring the files up to date now."""
        self.run_ended()
        self._worker.flush()

    def close(self) -> None:
        """Bring the files up to date, and end the thread."""
        self.run_ended()
        self._worker.close()

    def write_json(self, folder: Path | None, run_id: str | None) -> tuple[Path, Path]:
        """Write ``nodes.json`` and ``edges.json``; see `LineageTracker.export_json`."""
        folder = self._folder if folder is None else folder
        nodes_path, edges_path = folder / "nodes.json", folder / "edges.json"
        with self._lock:
            # The edges first, so that both ends of each are among the nodes.
            edges, nodes = in_open_store(
                self._store,
                lambda store: (store.edges(EdgeQuery(run_id=run_id)), store.nodes(NodeQuery(run_id=run_id))),
            )
            replace_durably(nodes_path, _array(map(_node_json, nodes)))
            replace_durably(edges_path, _array(map(_edge_json, edges)))
        return nodes_path, edges_path

    def write_dot(self, path: Path | None, run_id: str | None) -> Path:
        """Write the graph for Graphviz; see `LineageTracker.export_dot`."""
        return self._write_text(path, "lineage.dot", to_dot, run_id, _NODES_IN_DOT)

    def write_svg(self, path: Path | None, run_id: str | None) -> Path:
        """Write the drawing; see `LineageTracker.export_svg`."""
        from ml_pipeline.config._lineage_svg import to_svg  # drawing is for later than the import of this module

        return self._write_text(path, "lineage.svg", to_svg, run_id, _NODES_IN_SVG)

    def _write_text(
        self, path: Path | None, name: str, draw: Callable[[View], str], run_id: str | None, most_nodes: int
    ) -> Path:
        path = self._folder / name if path is None else path
        text = draw(in_open_store(self._store, lambda store: view(store, run_id=run_id, most_nodes=most_nodes)))
        with self._lock:
            replace_durably(path, text.encode())
        return path

    def _update(self) -> None:
        began, done = self._clock(), False
        self._stale = False  # before reading: what is recorded from here on makes the files stale again
        try:
            self._write_all()
            done = True
        finally:
            self._stale = self._stale or not done
            pause = max(_SHORTEST_SECONDS, _PAUSE_FACTOR * (self._clock() - began))
            self._next = began + pause

    def _write_all(self) -> None:
        count = in_open_store(self._store, lambda store: store.count_nodes(NodeQuery()))
        if self._most_nodes is not None and count > self._most_nodes:
            _runtime.say_once(
                "data_lineage:export",
                f"data_lineage: {count:,} nodes are more than ML_PIPELINE_LINEAGE_EXPORT_NODES={self._most_nodes:,}; "
                f"the files in {self._folder} are written only by export_json, export_dot and export_svg",
            )
            return
        self.write_json(None, None)
        self.write_dot(None, None)
        self.write_svg(None, None)


def to_dot(shown: View) -> str:
    """Write a graph in the DOT language.

    Args:
        shown: What to write.

    Returns:
        A directed graph from left to right. Every text is a quoted string; see the language's definition.

    Source: Graphviz, "DOT Language", section "ID".
    """
    lines = [
        f"// {one_line(summary(shown))}",
        "digraph lineage {",
        "  rankdir=LR;",
        "  node [shape=box, style=rounded];",
    ]
    for node in shown.nodes:
        label = "\\n".join(_escaped(part) for part in (node.type, heading(node), detail(node)) if part)
        lines.append(f'  {_quoted(node.node_id)} [label="{label}"];')
    for arrow in shown.arrows:
        drawn = ', style=dashed, color="#cf222e", fontcolor="#cf222e"' if arrow.status == "failed" else ""
        ends = f"{_quoted(arrow.source_id)} -> {_quoted(arrow.target_id)}"
        lines.append(f"  {ends} [label={_quoted(arrow_label(arrow))}{drawn}];")
    return "\n".join((*lines, "}", ""))


def _quoted(text: str) -> str:
    return f'"{_escaped(text)}"'


def _escaped(text: str) -> str:
    return one_line(text).replace("\\", "\\\\").replace('"', '\\"')


def _array(objects: Iterable[dict[str, Any]]) -> bytes:
    """Encode one array, an object a line: a reader of JSON sees an array, and `diff` and `grep` see lines."""
    return b"[" + b",".join(b"\n" + encode(item) for item in objects) + b"\n]\n"


def _node_json(node: NodeRecord) -> dict[str, Any]:
    return {
        "node_id": node.node_id,
        "type": node.type,
        "name": node.name,
        "version": node.version,
        "pipeline": node.pipeline,
        "run_id": node.run_id,
        "user_id": node.user_id,
        "first_seen": rfc3339(node.first_seen),
        "last_seen": rfc3339(node.last_seen),
        "automatic": node.automatic,
        "attributes": dict(node.attributes),
    }


def _edge_json(edge: EdgeRecord) -> dict[str, Any]:
    return {
        "source_id": edge.source_id,
        "target_id": edge.target_id,
        "kind": edge.kind,
        "status": edge.status,
        "operation_id": edge.operation_id,
        "pipeline": edge.pipeline,
        "run_id": edge.run_id,
        "user_id": edge.user_id,
        "first_seen": rfc3339(edge.first_seen),
        "last_seen": rfc3339(edge.last_seen),
        "automatic": edge.automatic,
        "attributes": dict(edge.attributes),
    }
