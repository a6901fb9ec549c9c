"""The embedded lineage store: one SQLite file, which several processes may write."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, TypeVar

import orjson

from ml_pipeline.config import _sqlite
from ml_pipeline.config._encoding import encode
from ml_pipeline.config._lineage_model import EdgeRecord, NodeRecord, is_new, merge_edge, merge_node
from ml_pipeline.config._lineage_store import EdgeQuery, LineageStore, NodeQuery, Written

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from ml_pipeline.config._lineage_model import EdgeKey

__all__ = ["SqliteLineageStore", "in_open_store"]

T = TypeVar("T")

_MOST_CLOSINGS: Final = 6  # by one `configure`, which closes what is opened again while it works

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS nodes (
    sequence INTEGER PRIMARY KEY,
    node_id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    attributes TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    run_id TEXT,
    user_id TEXT,
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    automatic INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS nodes_by_name ON nodes (name, type, last_seen);
CREATE INDEX IF NOT EXISTS nodes_by_run ON nodes (run_id);
CREATE INDEX IF NOT EXISTS nodes_by_time ON nodes (last_seen);
CREATE TABLE IF NOT EXISTS edges (
    sequence INTEGER PRIMARY KEY,
    source_id TEXT NOT NULL,
    target_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    status TEXT NOT NULL,
    attributes TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    pipeline TEXT NOT NULL,
    run_id TEXT,
    user_id TEXT,
    first_seen REAL NOT NULL,
    last_seen REAL NOT NULL,
    automatic INTEGER NOT NULL,
    UNIQUE (source_id, target_id, kind, operation_id)
);
CREATE INDEX IF NOT EXISTS edges_by_target ON edges (target_id);
CREATE INDEX IF NOT EXISTS edges_by_operation ON edges (operation_id);
CREATE INDEX IF NOT EXISTS edges_by_run ON edges (run_id);
"""

_PUT_NODE: Final = """
INSERT INTO nodes (
    node_id, type, name, version, attributes, pipeline, run_id, user_id, first_seen, last_seen, automatic
) VALUES (
    :node_id, :type, :name, :version, :attributes, :pipeline, :run_id, :user_id, :first_seen, :last_seen, :automatic
) ON CONFLICT (node_id) DO UPDATE SET
    type = excluded.type, name = excluded.name, version = excluded.version, attributes = excluded.attributes,
    last_seen = excluded.last_seen, automatic = excluded.automatic
"""

_PUT_EDGE: Final = """
INSERT INTO edges (
    source_id, target_id, kind, status, attributes, operation_id, pipeline, run_id, user_id, first_seen, last_seen,
    automatic
) VALUES (
    :source_id, :target_id, :kind, :status, :attributes, :operation_id, :pipeline, :run_id, :user_id, :first_seen,
    :last_seen, :automatic
) ON CONFLICT (source_id, target_id, kind, operation_id) DO UPDATE SET
    status = excluded.status, attributes = excluded.attributes, pipeline = excluded.pipeline,
    run_id = excluded.run_id, user_id = excluded.user_id, last_seen = excluded.last_seen,
    automatic = excluded.automatic
"""

_GET_EDGE: Final = "SELECT * FROM edges WHERE kind = ? AND source_id = ? AND target_id = ? AND operation_id = ?"
_DROP_EDGE: Final = "DELETE FROM edges WHERE kind = ? AND source_id = ? AND target_id = ? AND operation_id = ?"
_DROP_ORPHAN: Final = """
DELETE FROM nodes WHERE node_id = ?1 AND automatic = 1
    AND NOT EXISTS (SELECT 1 FROM edges WHERE source_id = ?1 OR target_id = ?1)
"""

_CONDITIONS: Final = {
    "ids": "node_id IN (SELECT value FROM json_each(:ids))",
    "type": "type = :type",
    "not_type": "type != :not_type",
    "name": "name = :name",
    "sources": "source_id IN (SELECT value FROM json_each(:sources))",
    "targets": "target_id IN (SELECT value FROM json_each(:targets))",
    "kind": "kind = :kind",
    "operation_id": "operation_id = :operation_id",
    "run_id": "run_id = :run_id",
}
_LISTS: Final = frozenset({"ids", "sources", "targets"})
_TOUCHED_BY_RUN: Final = """(run_id = :run_id OR node_id IN (
    SELECT source_id FROM edges WHERE run_id = :run_id UNION SELECT target_id FROM edges WHERE run_id = :run_id))"""


class SqliteLineageStore:
    """Lineage in one SQLite file; a `LineageStore`.

    Args:
        path: The file; it and its folder are made at once.
        busy_seconds: How long a write waits for another process before it raises.

    Raises:
        sqlite3.Error: If the file is not a database, stays locked, or cannot be written.
        OSError: If the folder cannot be made.
    """

    def __init__(self, path: Path, *, busy_seconds: float = 2.0) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection = _sqlite.connect(path, schema=_SCHEMA, busy_seconds=busy_seconds)

    def write(
        self, nodes: Sequence[NodeRecord], edges: Sequence[EdgeRecord], *, remove: Collection[EdgeKey] = ()
    ) -> Written:
        """See `LineageStore.write`."""
        with self._transaction() as connection:
            written = Written(
                Counter(node.type for node in nodes if _put_node(connection, node)),
                Counter(edge.kind for edge in edges if _put_edge(connection, edge)),
            )
            for kind, source, target, operation in remove:
                connection.execute(_DROP_EDGE, (kind, source, target, operation or ""))
                connection.execute(_DROP_ORPHAN, (source,))
                connection.execute(_DROP_ORPHAN, (target,))
        return written

    def nodes(self, query: NodeQuery) -> list[NodeRecord]:
        """See `LineageStore.nodes`."""
        return [_node(row) for row in self._rows((*_selected(query), "ORDER BY sequence"), _given(query))]

    def edges(self, query: EdgeQuery) -> list[EdgeRecord]:
        """See `LineageStore.edges`."""
        given = _given(query)
        statement = ("SELECT * FROM edges", *_where(given, _CONDITIONS), "ORDER BY sequence")
        return [_edge(row) for row in self._rows(statement, given)]

    def count_nodes(self, query: NodeQuery) -> int:
        """See `LineageStore.count_nodes`."""
        return int(self._rows(("SELECT count(*) FROM (", *_selected(query), ")"), _given(query))[0][0])

    def close(self) -> None:
        """Close the file; a later call raises ``sqlite3.ProgrammingError``."""
        with self._lock:
            self._connection.close()

    def _rows(self, statement: Sequence[str], given: Mapping[str, Any]) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(" ".join(statement), given).fetchall()

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            finally:
                if self._connection.in_transaction:  # not after a commit, nor where SQLite rolled back by itself
                    self._connection.execute("ROLLBACK")


def in_open_store(store: Callable[[], LineageStore], action: Callable[[LineageStore], T]) -> T:
    """Do something in the store; do it again in the new one if another thread's `configure` closed it meanwhile.

    Args:
        store: Returns the store, opening it if need be.
        action: What to do in it, from the beginning: what was read from the closed store is not written to the new one.

    Returns:
        What *action* returned.

    Raises:
        Exception: What *store* or *action* raises.
    """
    for _ in range(_MOST_CLOSINGS):
        opened = store()
        try:
            return action(opened)
        except sqlite3.ProgrammingError:
            if store() is opened:
                raise
    return action(store())


def _put_node(connection: sqlite3.Connection, node: NodeRecord) -> bool:
    row = connection.execute("SELECT * FROM nodes WHERE node_id = ?", (node.node_id,)).fetchone()
    old = None if row is None else _node(row)
    merged = merge_node(old, node)
    connection.execute(_PUT_NODE, _values(merged))
    return is_new(old, merged)


def _put_edge(connection: sqlite3.Connection, edge: EdgeRecord) -> bool:
    # An edge outside any operation is kept under an empty id: in a unique index, no two NULLs are the same.
    key = (edge.kind, edge.source_id, edge.target_id, edge.operation_id or "")
    row = connection.execute(_GET_EDGE, key).fetchone()
    merged = merge_edge(None if row is None else _edge(row), edge)
    connection.execute(_PUT_EDGE, _values(merged) | {"operation_id": merged.operation_id or ""})
    return row is None


def _selected(query: NodeQuery) -> tuple[str, ...]:
    """Return the pieces of a statement that selects nodes."""
    pieces = ["SELECT * FROM nodes", *_where(_given(query), _CONDITIONS | {"run_id": _TOUCHED_BY_RUN})]
    if query.newest is not None:
        pieces.append("ORDER BY last_seen DESC, sequence DESC LIMIT :newest")
    return ("SELECT * FROM (", *pieces, ")")


def _where(given: Mapping[str, object], conditions: Mapping[str, str]) -> tuple[str, ...]:
    chosen = [conditions[key] for key in given if key in conditions]
    return ("WHERE", " AND ".join(chosen)) if chosen else ()


def _given(query: NodeQuery | EdgeQuery) -> dict[str, Any]:
    """Return the conditions that are set, as SQLite takes them."""
    given = {name: getattr(query, name) for name in query.__dataclass_fields__}
    return {
        name: orjson.dumps(list(value)).decode() if name in _LISTS else value
        for name, value in given.items()
        if value is not None
    }


def _values(record: NodeRecord | EdgeRecord) -> dict[str, Any]:
    values = {name: getattr(record, name) for name in record.__dataclass_fields__}
    return values | {"attributes": encode(dict(record.attributes)).decode()}


def _node(row: sqlite3.Row) -> NodeRecord:
    return NodeRecord(**_fields(row))


def _edge(row: sqlite3.Row) -> EdgeRecord:
    fields = _fields(row)
    return EdgeRecord(**fields | {"operation_id": fields["operation_id"] or None})


def _fields(row: sqlite3.Row) -> dict[str, Any]:
    fields = dict(row)
    del fields["sequence"]
    return fields | {"attributes": orjson.loads(row["attributes"]), "automatic": bool(row["automatic"])}
