"""The contract of a lineage store, as tests: subclass it for a store of your own."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest

from ml_pipeline.config._lineage_model import EDGE_BYTES, EdgeRecord, NodeRecord, placeholder
from ml_pipeline.config._lineage_store import EdgeQuery, LineageStore, NodeQuery

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["LineageStoreContract", "edge", "node"]


def node(node_id: str, /, *, at: float = 1.0, **fields: Any) -> NodeRecord:
    """Make a node that was seen once, *at* that time; what is not named is the same everywhere."""
    given: dict[str, Any] = {"node_id": node_id, "type": "dataset", "name": node_id, "first_seen": at, "last_seen": at}
    return NodeRecord(**given | fields)


def edge(source: str, target: str, kind: str = "training", *, at: float = 1.0, **fields: Any) -> EdgeRecord:
    """Make an edge that was seen once, *at* that time; what is not named is the same everywhere."""
    return EdgeRecord(
        **{"source_id": source, "target_id": target, "kind": kind, "first_seen": at, "last_seen": at, **fields}
    )


class LineageStoreContract:
    """What any `LineageStore` must do; subclass it and give the fixture ``store``."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[LineageStore]:
        """Return the store under test, empty."""
        raise NotImplementedError("a contract is held to a store: override the fixture `store`")

    def test_keeps_every_field(self, store: LineageStore) -> None:
        """What was written comes back field by field."""
        kept = node(
            "a",
            version="1",
            attributes={"columns": ["x", "y"], "nested": {"deep": None}, "text": 'quote " and\nline'},
            pipeline="clinic",
            run_id="r1",
            user_id="ann",
            automatic=True,
        )
        link = edge("a", "b", status="failed", operation_id="o1", run_id="r1", attributes={"n": 1.5}, automatic=True)
        store.write([kept, node("b")], [link])
        assert store.nodes(NodeQuery(ids=["a"])) == [kept]
        assert store.edges(EdgeQuery()) == [link]

    def test_counts_what_is_new(self, store: LineageStore) -> None:
        """A write says how many nodes of each type and edges of each kind were not there before."""
        first = store.write([node("a"), node("b", type="model")], [edge("a", "b")])
        assert (first.nodes, first.edges) == (Counter(dataset=1, model=1), Counter(training=1))
        again = store.write([node("a"), node("c")], [edge("a", "b"), edge("a", "c", "ingestion")])
        assert (again.nodes, again.edges) == (Counter(dataset=1), Counter(ingestion=1))

    def test_joins_a_node(self, store: LineageStore) -> None:
        """A second record adds attributes, the newer winning, and leaves the first's origin."""
        store.write([node("a", at=1, run_id="r1", user_id="ann", attributes={"kept": 1, "changed": 1})], [])
        store.write([node("a", at=2, run_id="r2", user_id="bob", attributes={"changed": 2, "added": 2})], [])
        (joined,) = store.nodes(NodeQuery())
        assert joined.attributes == {"kept": 1, "changed": 2, "added": 2}
        assert (joined.first_seen, joined.last_seen, joined.run_id, joined.user_id) == (1, 2, "r1", "ann")

    def test_joins_an_edge(self, store: LineageStore) -> None:
        """An edge is its kind, ends and operation; the status said last holds."""
        ends = [node("a"), node("b")]
        store.write(ends, [edge("a", "b", operation_id="o1", status="failed", attributes={"first": 1})])
        store.write(ends, [edge("a", "b", operation_id="o1", at=2, user_id="ann", attributes={"second": 2})])
        (joined,) = store.edges(EdgeQuery())
        assert (joined.status, joined.attributes) == ("complete", {"first": 1, "second": 2})
        assert (joined.first_seen, joined.last_seen, joined.user_id) == (1, 2, "ann")

    def test_tells_edges_apart_by_operation(self, store: LineageStore) -> None:
        """Two operations make two edges; what was said outside any is a third, and only one."""
        edges = [edge("a", "b", operation_id=operation) for operation in ("o1", "o2", None, None)]
        store.write([node("a"), node("b")], edges)
        assert [kept.operation_id for kept in store.edges(EdgeQuery())] == ["o1", "o2", None]

    def test_prefers_what_was_called(self, store: LineageStore) -> None:
        """An automatic record never overrides what a call said, in whichever order they come."""
        called, automatic = {"n": 1, "called": True}, {"n": 2, "ended": "complete"}
        store.write([node("a", attributes=called)], [])
        store.write([node("a", attributes=automatic, automatic=True)], [])
        store.write([node("b", attributes=automatic, automatic=True)], [])
        store.write([node("b", attributes=called)], [])
        for kept in store.nodes(NodeQuery()):
            assert kept.attributes == {"n": 1, "called": True, "ended": "complete"}
            assert not kept.automatic

    def test_gives_a_placeholder_its_name(self, store: LineageStore) -> None:
        """A placeholder takes on the first real type and name, counts as new then, and never comes back."""
        stand_in = placeholder("x")
        unknown = node("x", type=stand_in.type)
        store.write([unknown], [])
        named = store.write([node("x", type="model", name="classifier", version="1")], [])
        assert named.nodes == Counter(model=1)
        assert not store.write([unknown], []).nodes
        (kept,) = store.nodes(NodeQuery())
        assert (kept.type, kept.name, kept.version) == ("model", "classifier", "1")

    def test_removes_edges_and_orphans(self, store: LineageStore) -> None:
        """A removed edge takes along the ends that only automatic records named and nothing else touches."""
        guess, used = node("guess", automatic=True), node("used", automatic=True)
        links = [edge("a", "guess", operation_id="o1"), edge("a", "used"), edge("used", "b")]
        store.write([node("a"), node("b"), guess, used], links)
        store.write([], [], remove=[links[0].key, links[1].key, ("training", "no", "such", None)])
        assert {kept.node_id for kept in store.nodes(NodeQuery())} == {"a", "b", "used"}
        assert [kept.key for kept in store.edges(EdgeQuery())] == [links[2].key]

    def test_selects_nodes(self, store: LineageStore) -> None:
        """Every condition on nodes narrows the answer, which is in the order of first recording."""
        store.write(
            [
                node("a", at=5, type="source", run_id="r1"),
                node("b", at=1, run_id="r1"),
                node("c", at=3, run_id="r2"),
                node("d", at=4, name="b", type="model"),
            ],
            [edge("c", "d", run_id="r3")],
        )

        def ids(**conditions: Any) -> list[str]:
            return [kept.node_id for kept in store.nodes(NodeQuery(**conditions))]

        assert ids() == ["a", "b", "c", "d"]
        assert ids(ids=["d", "a", "none"]) == ["a", "d"]
        assert ids(ids=[]) == []
        assert ids(type="dataset") == ["b", "c"]
        assert ids(not_type="dataset") == ["a", "d"]
        assert ids(name="b") == ["b", "d"]
        assert ids(name="b", type="model") == ["d"]
        assert ids(run_id="r1") == ["a", "b"]
        assert ids(run_id="r3") == ["c", "d"]
        assert ids(newest=2) == ["a", "d"]
        assert ids(newest=1, type="dataset") == ["c"]
        assert store.count_nodes(NodeQuery()) == 4
        assert store.count_nodes(NodeQuery(not_type="model", newest=2)) == 2

    def test_selects_edges(self, store: LineageStore) -> None:
        """Every condition on edges narrows the answer, which is in the order of first recording."""
        store.write(
            [node(name) for name in "abc"],
            [
                edge("a", "b", "ingestion", operation_id="o1", run_id="r1"),
                edge("b", "c", operation_id="o2", run_id="r1"),
                edge("a", "c", operation_id="o2"),
            ],
        )

        def ends(**conditions: Any) -> list[str]:
            return [kept.source_id + kept.target_id for kept in store.edges(EdgeQuery(**conditions))]

        assert ends() == ["ab", "bc", "ac"]
        assert ends(sources=["a"]) == ["ab", "ac"]
        assert ends(targets=["c"]) == ["bc", "ac"]
        assert ends(sources=["a", "b"], targets=["b"]) == ["ab"]
        assert ends(kind="training") == ["bc", "ac"]
        assert ends(operation_id="o2") == ["bc", "ac"]
        assert ends(run_id="r1") == ["ab", "bc"]
        assert ends(targets=[]) == []

    def test_bounds_attributes(self, store: LineageStore) -> None:
        """However often attributes are added, what is kept stays within its bound and says what is left out."""
        for index in range(8):
            facts = {f"key{index}": "x" * (EDGE_BYTES // 5)}
            store.write([node("a"), node("b")], [edge("a", "b", attributes=facts)])
        (kept,) = store.edges(EdgeQuery())
        assert sum(len(str(value)) for value in kept.attributes.values()) <= EDGE_BYTES
        assert kept.attributes["…"].endswith(" left out")

    def test_keeps_all_of_many_threads(self, store: LineageStore) -> None:
        """Threads that write at once lose nothing, and see one node where they name one."""

        def work(number: int) -> None:
            for index in range(20):
                made = f"{number}-{index}"
                store.write([node("shared"), node(made)], [edge("shared", made)])

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert store.count_nodes(NodeQuery()) == 81
        assert len(store.edges(EdgeQuery(sources=["shared"]))) == 80
