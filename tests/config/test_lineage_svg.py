"""The drawing of lineage: well-formed whatever the names, laid out without overlaps, readable by people and machines."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_pipeline.config._events import Bus
from ml_pipeline.config._lineage_geometry import BOX_HEIGHT, BOX_WIDTH, COLUMN_GAP, arrange
from ml_pipeline.config._lineage_layout import lay_out
from ml_pipeline.config._lineage_model import NODE_TYPES, NodeRecord, Status
from ml_pipeline.config._lineage_svg import to_svg
from ml_pipeline.config._lineage_view import Arrow, View, arrow_label, arrows_of, detail, view
from ml_pipeline.config.data_lineage import LineageTracker, MemoryLineageStore

SVG = "{http://www.w3.org/2000/svg}"

quietly = settings(max_examples=60, suppress_health_check=list(HealthCheck), deadline=None)


def node(name: str, kind: str = "dataset", version: str = "", **attributes: Any) -> NodeRecord:
    return NodeRecord(
        node_id=f"{kind}:{name}",
        type=kind,
        name=name,
        version=version,
        attributes=attributes,
        first_seen=0,
        last_seen=0,
    )


def arrow(source: str, target: str, status: Status = "complete", kind: str = "training") -> Arrow:
    return Arrow(f"dataset:{source}", f"dataset:{target}", status, ((kind, 1),))


def drawn(shown: View) -> ET.Element:
    return ET.fromstring(to_svg(shown))


def boxes(svg: ET.Element) -> dict[str, tuple[float, float]]:
    """Return the upper left corner of every box, by node id."""
    found = {}
    for group in svg.iter(f"{SVG}g"):
        if group.get("class") == "node":
            place = re.fullmatch(r"translate\((-?[\d.]+) (-?[\d.]+)\)", group.get("transform", ""))
            assert place is not None
            found[group.get("data-id", "")] = (float(place[1]), float(place[2]))
    return found


def overlap(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return abs(one[0] - other[0]) < BOX_WIDTH and abs(one[1] - other[1]) < BOX_HEIGHT


def texts(svg: ET.Element) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


@st.composite
def graphs(draw: st.DrawFn, *, acyclic: bool = False) -> tuple[int, list[tuple[int, int]]]:
    """Graphs of up to twelve nodes, with repeated edges, and unless acyclic with cycles and edges to the same node."""
    count = draw(st.integers(1, 12))
    end = st.integers(0, count - 1)
    edges = draw(st.lists(st.tuples(end, end), max_size=24))
    return count, [(min(pair), max(pair)) for pair in edges if pair[0] != pair[1]] if acyclic else edges


class TestLayout:
    """Columns and heights."""

    @quietly
    @given(graphs())
    def test_no_two_boxes_overlap(self, graph: tuple[int, list[tuple[int, int]]]) -> None:
        """Any graph, cycles included, is drawn with every box apart from every other, inside the picture."""
        count, edges = graph
        geometry = arrange(count, edges)
        assert not any(overlap(one, other) for one, other in combinations(geometry.boxes, 2))
        for x, y in geometry.boxes:
            assert 0 <= x <= geometry.width - BOX_WIDTH + 0.01
            assert -0.01 <= y <= geometry.height - BOX_HEIGHT + 0.01

    @quietly
    @given(graphs())
    def test_edges_run_from_left_to_right(self, graph: tuple[int, list[tuple[int, int]]]) -> None:
        """Every edge runs to a column further right, but those that close a cycle, and no edge lies under a box."""
        count, edges = graph
        layout = lay_out(count, edges, box=BOX_HEIGHT, gap=20, bend=8)
        for (source, target), turned, bends in zip(edges, layout.turned, layout.bends, strict=True):
            left, right = (target, source) if turned else (source, target)
            if source != target:
                assert layout.column[left] < layout.column[right]
                assert [column for column, _ in bends] == list(range(layout.column[left] + 1, layout.column[right]))
            for column, height in bends:
                for other in range(count):
                    if layout.column[other] == column:
                        assert abs(layout.height[other] - height) >= BOX_HEIGHT / 2

    @quietly
    @given(graphs(acyclic=True))
    def test_without_a_cycle_nothing_is_turned(self, graph: tuple[int, list[tuple[int, int]]]) -> None:
        """In a graph without cycles every arrow points right."""
        count, edges = graph
        assert not any(lay_out(count, edges, box=BOX_HEIGHT, gap=20, bend=8).turned)

    @quietly
    @given(graphs())
    def test_the_same_graph_is_the_same_picture(self, graph: tuple[int, list[tuple[int, int]]]) -> None:
        """The layout depends on nothing but the graph."""
        assert arrange(*graph) == arrange(*graph)

    def test_a_chain_is_a_straight_line(self) -> None:
        """A chain stands in one row, a column a node."""
        geometry = arrange(4, [(0, 1), (1, 2), (2, 3)])
        assert geometry.boxes == tuple((column * (BOX_WIDTH + COLUMN_GAP), 0.0) for column in range(4))
        assert all(y == BOX_HEIGHT / 2 for route in geometry.routes for _, y in route.points)

    def test_a_fan_is_even(self) -> None:
        """What one node makes stands evenly around its height."""
        (_, middle), *fan = arrange(4, [(0, 1), (0, 2), (0, 3)]).boxes
        assert [y - middle for _, y in fan] == pytest.approx([-(BOX_HEIGHT + 20), 0, BOX_HEIGHT + 20])

    def test_edges_that_need_not_cross_do_not(self) -> None:
        """Two chains recorded crosswise are drawn side by side."""
        layout = lay_out(4, [(0, 3), (1, 2)], box=64, gap=20, bend=8)
        assert (layout.height[0] < layout.height[1]) == (layout.height[3] < layout.height[2])

    def test_a_late_input_stands_beside_its_use(self) -> None:
        """A source that is needed only at the end is drawn near the end."""
        assert lay_out(5, [(0, 1), (1, 2), (2, 3), (4, 3)], box=64, gap=20, bend=8).column == (0, 1, 2, 3, 2)

    def test_several_arrows_between_two_boxes_lie_apart(self) -> None:
        """Arrows with the same ends leave and arrive at different heights."""
        one, other = arrange(2, [(0, 1), (0, 1)]).routes
        assert one.points[0] != other.points[0]
        assert one.points[-1] != other.points[-1]

    def test_a_graph_with_too_many_bends_is_still_drawn(self) -> None:
        """Past five thousand bends the longest edges run straight, and no box overlaps."""
        chain = [(index, index + 1) for index in range(149)]
        skips = [(index, other) for index in range(150) for other in range(index + 2, 150, 3)]
        geometry = arrange(150, chain + skips)
        assert not any(overlap(one, other) for one, other in combinations(geometry.boxes, 2))

    def test_nothing_is_a_picture_too(self) -> None:
        """A graph without nodes has no size."""
        geometry = arrange(0, [])
        assert (geometry.boxes, geometry.width, geometry.height) == ((), 0.0, 0.0)


class TestDrawing:
    """The SVG document."""

    def test_shows_every_node_with_type_name_and_fact(self) -> None:
        """A box says what a thing is, what it is called, and what a reader asks for first; a tooltip says all."""
        svg = drawn(View((node("visits", version="2024", records_count=5000),), ()))
        assert texts(svg)[2:5] == ["DATASET", "visits", "2024 · 5,000 records"]
        (group,) = (group for group in svg.iter(f"{SVG}g") if group.get("class") == "node")
        told = group.findtext(f"{SVG}title")
        assert told == (
            "dataset visits, 2024, 2024 · 5,000 records, dataset:visits, first recorded 1970-01-01T00:00:00.000000Z"
        )

    def test_labels_and_marks_arrows(self) -> None:
        """An arrow says its kind; a failed one is dashed, red, and says so."""
        shown = View((node("a"), node("b")), (arrow("a", "b"), arrow("a", "b", "failed")))
        svg = drawn(shown)
        paths = [path for path in svg.iter(f"{SVG}path") if str(path.get("class")).startswith("arrow")][:2]
        assert [path.get("class") for path in paths] == ["arrow", "arrow failed"]
        assert [path.findtext(f"{SVG}title") for path in paths] == ["training: a → b", "training failed: a → b"]
        assert {"training", "training failed"} <= set(texts(svg))

    def test_an_arrow_that_closes_a_cycle_points_left(self) -> None:
        """Its head is at its left end; an arrow from a box to itself is a loop."""
        names = ("a", "b")
        arrows = (arrow("a", "b"), arrow("b", "a"), arrow("a", "a"))
        svg = drawn(View(tuple(node(name) for name in names), arrows))
        heads = [
            (path.get("marker-start"), path.get("marker-end"))
            for path in svg.iter(f"{SVG}path")
            if path.get("class") == "arrow"
        ]
        head = "url(#lineage-head)"
        assert heads[:3] == [(None, head), (head, None), (None, head)]

    def test_the_legend_explains_what_is_there(self) -> None:
        """Types that are drawn are in the legend, in the order of a pipeline; others are not."""
        keys = texts(drawn(View((node("m", "model"), node("s", "source"), node("x", "gadget")), ())))[-5:]
        assert keys == ["source", "model", "unknown", "complete", "failed"]

    def test_every_type_has_its_colours(self) -> None:
        """Each type is drawn in a class of its own, with a colour for light paper and one for dark."""
        document = to_svg(View(tuple(node("x", kind) for kind in NODE_TYPES), ()))
        light, dark = document.split("@media (prefers-color-scheme:dark)")
        for kind in NODE_TYPES:
            assert f".lineage .{kind}{{fill:#" in light
            assert f".lineage .{kind}{{fill:#" in dark

    def test_its_style_is_its_own(self) -> None:
        """Set into a page, the drawing leaves the page's own text alone: every rule is about the drawing only."""
        svg = drawn(View((node("a"),), ()))
        style = (svg.findtext(f"{SVG}style") or "").replace("@media (prefers-color-scheme:dark){", "")
        rules = [rule for rule in re.split(r"\{[^}]*\}", style) if rule.strip(" \n}")]
        assert svg.get("class") == "lineage"
        assert all(part.strip(" \n}").startswith(".lineage ") for rule in rules for part in rule.split(","))

    def test_a_machine_can_read_it_out(self) -> None:
        """The document has a title and a summary, and is one image to assistive technology."""
        svg = drawn(View((node("a"), node("b")), (arrow("a", "b"),), nodes_left_out=1234, arrows_left_out=5))
        assert (svg.get("role"), svg.get("aria-labelledby")) == ("img", "lineage-title lineage-summary")
        assert svg.findtext(f"{SVG}title") == "Data lineage"
        summary = "2 nodes, 1 arrow; the nodes seen last, 1,234 more left out; 5 more arrows left out"
        assert svg.findtext(f"{SVG}desc") == summary
        assert summary in texts(svg)

    def test_shortens_long_names_in_the_middle(self) -> None:
        """A name that does not fit keeps its beginning and its end; the tooltip has it whole."""
        name = "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6/batch-17"
        svg = drawn(View((node(name, "batch", predictions_count=1),), ()))
        shown = texts(svg)[3]
        assert re.fullmatch(r"0192f3a4.*….*batch-17", shown)
        assert name in to_svg(View((node(name),), ()))
        assert texts(svg)[4] == "1 prediction"

    @quietly
    @given(name=st.text(), kind=st.sampled_from(NODE_TYPES) | st.text(), version=st.text(), fact=st.text())
    def test_any_name_is_well_formed(self, name: str, kind: str, version: str, fact: str) -> None:
        """Whatever names, types and facts hold, the document parses and holds no element of theirs."""
        hostile = node(name, kind, version, model_type=fact, uri=fact)
        own = Arrow(hostile.node_id, hostile.node_id, "complete", ((fact, 1),))
        svg = drawn(View((hostile,), (own,)))
        allowed = {"svg", "title", "desc", "style", "defs", "marker", "path", "rect", "text", "g"}
        assert {element.tag.removeprefix(SVG) for element in svg.iter()} <= allowed
        assert len(boxes(svg)) == 1

    @pytest.mark.parametrize(
        "name", ["</title><script>alert(1)</script>", '" onload="alert(1)', "\x1b[31m\x00\ud800\ufffe", "&amp;<", "]]>"]
    )
    def test_a_hostile_name_is_text(self, name: str) -> None:
        """Markup in a name is shown, not obeyed."""
        svg = drawn(View((node(name),), ()))
        assert not list(svg.iter(f"{SVG}script"))
        assert all("onload" not in element.attrib for element in svg.iter())

    def test_fetches_nothing(self) -> None:
        """The only address in the document is the name of its language."""
        document = to_svg(View((node("a", "source", uri="https://example.org/data"),), ()))
        assert not re.search(r"(?:href|src|@import|url\((?!#))", document)


class TestView:
    """What is shown of a graph."""

    def test_shows_the_nodes_seen_last(self) -> None:
        """Past the bound the newest nodes are shown, the arrows between them, and how many are left out."""
        tracker = LineageTracker(store := MemoryLineageStore(), Bus())
        for index in range(5):
            _, data = tracker.track_data_ingestion(f"s{index}", f"d{index}")
            tracker.track_training(data, f"m{index}")
        shown = view(store, run_id=None, most_nodes=4)
        assert [kept.name for kept in shown.nodes] == ["m3", "s4", "d4", "m4"]
        assert (len(shown.arrows), shown.nodes_left_out) == (2, 11)
        assert view(store, run_id=None, most_nodes=15).nodes_left_out == 0

    def test_leaves_single_predictions_to_their_batches(self, isolated: Path) -> None:
        """A batch of thousands is one box."""
        tracker = LineageTracker(store := MemoryLineageStore(), Bus())
        model = tracker.track_training(tracker.track_data_ingestion("s", "d")[1], "m")
        tracker.track_inference(model, batch_name="b", predictions_count=2000, prediction_ids=["p1", "p2"])
        shown = view(store, run_id=None, most_nodes=300)
        assert [detail(kept) for kept in shown.nodes if kept.type == "batch"] == ["2,000 predictions"]
        assert "prediction" not in {kept.type for kept in shown.nodes}
        assert shown.nodes_left_out == 0

    def test_draws_repeated_edges_as_one(self) -> None:
        """Edges of one status between two nodes are one arrow, which says how many there are."""
        tracker = LineageTracker(store := MemoryLineageStore(), Bus())
        for operation in ("o1", "o2", "o3"):
            status: Status = "failed" if operation == "o3" else "complete"
            tracker.track_data_ingestion("s", "d", operation_id=operation, status=status)
        labels = [arrow_label(one) for one in view(store, run_id=None, most_nodes=10).arrows]
        assert labels == ["ingestion \u00d72", "ingestion failed"]
        assert arrows_of([]) == ()

    def test_bounds_the_arrows(self) -> None:
        """Past two thousand arrows the rest is counted."""
        tracker = LineageTracker(store := MemoryLineageStore(), Bus())
        sources = [tracker.track_data_ingestion("s", f"d{index}")[1] for index in range(50)]
        for index in range(45):
            tracker.track_training(sources, f"m{index}")
        shown = view(store, run_id=None, most_nodes=300)
        assert (len(shown.arrows), shown.arrows_left_out) == (2_000, 300)

    @pytest.mark.parametrize(
        ("shown", "expected"),
        [
            (node("v", "validation", "a" * 24, passed=True), "✓ passed"),
            (node("v", "validation", "a" * 24, passed=False), "✗ not passed"),
            (node("v", "validation", "a" * 24), ""),
            (node("s", "source", "3", uri="s3://x"), "3 · s3://x"),
            (node("d", "dataset", "ab12" * 16), "ab12ab12"),
            (node("d", "dataset", "202401151200"), "202401151200"),
            (node("d", "dataset", "1", records_count=1), "1 · 1 record"),
            (node("d", "dataset", "1", records_count=2.5), "1 · 2.5 records"),
            (node("d", "dataset", "1", records_count="many"), "1"),
            (node("m", "model", "1.0.0", model_type="forest"), "1.0.0 · forest"),
            (node("p", "deployment", "a" * 24, endpoint="x"), ""),
            (node("b", "batch", "a" * 24, predictions_count=12_000_000), "12,000,000 predictions"),
        ],
    )
    def test_says_what_matters_most(self, shown: NodeRecord, expected: str) -> None:
        """Each type of node shows its version, unless that is another node's digest, and one fact."""
        assert detail(shown) == expected
