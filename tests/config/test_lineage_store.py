"""The contract of a lineage store, held to every backend; and what only the embedded one does."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_pipeline.config._lineage_sqlite import SqliteLineageStore
from ml_pipeline.config._lineage_store import LineageStore, MemoryLineageStore, NodeQuery
from ml_pipeline.testing.lineage_store_contract import LineageStoreContract, edge, node


class TestMemoryStore(LineageStoreContract):
    """The store in memory keeps the contract."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[LineageStore]:
        """Return an empty store."""
        opened = MemoryLineageStore()
        yield opened
        opened.close()


class TestSqliteStore(LineageStoreContract):
    """The embedded store keeps the contract, and more."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[LineageStore]:
        """Return an empty store."""
        opened = SqliteLineageStore(tmp_path / "lineage" / "lineage.db")
        yield opened
        opened.close()

    def test_survives_its_process(self, tmp_path: Path) -> None:
        """What was written is there when the file is opened again."""
        path = tmp_path / "deep" / "folder" / "lineage.db"
        first = SqliteLineageStore(path)
        first.write([node("a"), node("b")], [edge("a", "b")])
        second = SqliteLineageStore(path)
        assert second.count_nodes(NodeQuery()) == 2
        first.close()
        second.close()

    def test_changes_nothing_where_it_raises(self, tmp_path: Path) -> None:
        """A write that fails half-way leaves no part of itself, and the store goes on."""
        store = SqliteLineageStore(tmp_path / "lineage.db")
        with pytest.raises(sqlite3.Error):
            store.write([node("a"), node("b", type=None)], [])
        assert store.nodes(NodeQuery()) == []
        store.write([node("a")], [])
        assert store.count_nodes(NodeQuery()) == 1
        store.close()

    def test_raises_while_another_holds_the_file(self, tmp_path: Path) -> None:
        """A write waits as long as it was told to for another process, then raises."""
        store = SqliteLineageStore(tmp_path / "lineage.db", busy_seconds=0.05)
        other = sqlite3.connect(tmp_path / "lineage.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            store.write([node("a")], [])
        other.execute("ROLLBACK")
        store.write([node("a")], [])
        other.close()
        store.close()

    def test_refuses_a_file_that_is_no_database(self, tmp_path: Path) -> None:
        """A file of something else is not overwritten."""
        path = tmp_path / "lineage.db"
        path.write_text("not a database, but long enough to be looked at as one" * 4)
        with pytest.raises(sqlite3.DatabaseError, match="not a database"):
            SqliteLineageStore(path)
        assert path.read_text().startswith("not a database")
