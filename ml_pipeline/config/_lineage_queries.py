"""What `LineageTracker` answers: walks, searches and files."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import TYPE_CHECKING

from ml_pipeline.config._lineage_model import Lineage, NodeRecord, name_of
from ml_pipeline.config._lineage_sqlite import in_open_store
from ml_pipeline.config._lineage_store import LineageStore, NodeQuery
from ml_pipeline.config._lineage_walk import node_of, path_between, walk

if TYPE_CHECKING:
    from ml_pipeline.config._lineage_export import LineageFiles
    from ml_pipeline.config._lineage_walk import Direction

__all__ = ["LineageQueries"]


class LineageQueries(abc.ABC):
    """The reading half of `LineageTracker`. These calls are questions: unlike ``track_*``, they raise."""

    @abc.abstractmethod
    def _reading(self) -> LineageStore:
        """Return the store."""

    @abc.abstractmethod
    def _files(self) -> LineageFiles:
        """Return what writes the files."""

    def node(self, node_id: str) -> NodeRecord:
        """Return one node.

        Args:
            node_id: What a ``track_*`` call returned.

        Returns:
            The node with its type, name, version and attributes, and who recorded it first.

        Raises:
            LineageError: If there is no such node; the message names the closest.
        """
        return in_open_store(self._reading, lambda store: node_of(store, node_id))

    def find(
        self,
        type: str | None = None,  # noqa: A002 - the field's own name
        name: str | None = None,
        *,
        run_id: str | None = None,
        limit: int = 10_000,
    ) -> list[NodeRecord]:
        """Return nodes by what they are called.

        Args:
            type: ``source``, ``dataset``, ``validation``, ``features``, ``model``, ``deployment``, ``batch``,
                ``prediction`` or ``unknown``; None for any.
            name: The exact name; None for any.
            run_id: Only what this run touched.
            limit: How many at most; those seen last.

        Returns:
            The nodes, in the order in which they were first recorded; empty if there are none.
        """
        wanted = None if name is None else name_of(name)
        query = NodeQuery(type=type, name=wanted, run_id=run_id, newest=limit)
        return in_open_store(self._reading, lambda store: store.nodes(query))

    def upstream(self, node_id: str, *, include_failed: bool = False, max_nodes: int = 10_000) -> Lineage:
        """Return everything that a node was made from.

        Args:
            node_id: Where to begin, such as the id of a batch.
            include_failed: Whether to follow edges of steps that failed, which made nothing.
            max_nodes: How many nodes to return at most.

        Returns:
            The ancestors, breadth first, and the edges between them; ``truncated`` says whether there are more.

        Raises:
            LineageError: If there is no such node; the message names the closest.
        """
        return self._walk("upstream", node_id, include_failed, max_nodes)

    def downstream(self, node_id: str, *, include_failed: bool = False, max_nodes: int = 10_000) -> Lineage:
        """Return everything that was made from a node.

        Args:
            node_id: Where to begin, such as the id of a source.
            include_failed: Whether to follow edges of steps that failed, which made nothing.
            max_nodes: How many nodes to return at most.

        Returns:
            The descendants, breadth first, and the edges between them; ``truncated`` says whether there are more.

        Raises:
            LineageError: If there is no such node; the message names the closest.
        """
        return self._walk("downstream", node_id, include_failed, max_nodes)

    def path(
        self, from_id: str, to_id: str, *, include_failed: bool = False, max_nodes: int = 100_000
    ) -> list[NodeRecord]:
        """Return a shortest way from one node down to another.

        Args:
            from_id: Where it begins, such as a source.
            to_id: Where it ends, such as a single prediction.
            include_failed: Whether to follow edges of steps that failed.
            max_nodes: How many nodes to look at, at most.

        Returns:
            The nodes on the way, both ends included; empty if none leads there.

        Raises:
            LineageError: If either node is not there, or *max_nodes* were not enough.
        """
        return in_open_store(
            self._reading,
            lambda store: path_between(store, from_id, to_id, include_failed=include_failed, max_nodes=max_nodes),
        )

    def export_json(self, folder: str | Path | None = None, *, run_id: str | None = None) -> tuple[Path, Path]:
        """Write ``nodes.json`` and ``edges.json``, each one array with one object a line, replaced whole.

        Args:
            folder: Where; by default the lineage folder of the data directory.
            run_id: Only what this run touched; None for everything, however much it is.

        Returns:
            The paths of the nodes and of the edges.

        Raises:
            OSError: If the folder cannot be written; the files there are then as they were.
        """
        return self._files().write_json(None if folder is None else Path(folder), run_id)

    def export_dot(self, path: str | Path | None = None, *, run_id: str | None = None) -> Path:
        """Write the graph in the DOT language, for Graphviz; up to 2,000 nodes, those seen last.

        Args:
            path: The file; by default ``lineage.dot`` in the lineage folder of the data directory.
            run_id: Only what this run touched.

        Returns:
            The path.

        Raises:
            OSError: If the file cannot be written.
        """
        return self._files().write_dot(None if path is None else Path(path), run_id)

    def export_svg(self, path: str | Path | None = None, *, run_id: str | None = None) -> Path:
        """Draw the graph, for a browser or a document; up to 300 nodes, those seen last.

        Single predictions are not drawn; their batch says how many it has.

        Args:
            path: The file; by default ``lineage.svg`` in the lineage folder of the data directory.
            run_id: Only what this run touched.

        Returns:
            The path.

        Raises:
            OSError: If the file cannot be written.
        """
        return self._files().write_svg(None if path is None else Path(path), run_id)

    def _walk(self, direction: Direction, node_id: str, include_failed: bool, max_nodes: int) -> Lineage:
        return in_open_store(
            self._reading,
            lambda store: walk(store, node_id, direction, include_failed=include_failed, max_nodes=max_nodes),
        )
