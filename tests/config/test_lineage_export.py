"""Lineage as files: when they are written, what they hold, and that no reader ever sees half of one."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._events import Bus
from ml_pipeline.config._lineage_export import LineageFiles, to_dot
from ml_pipeline.config._lineage_model import NodeRecord
from ml_pipeline.config._lineage_view import Arrow, View
from ml_pipeline.config.data_lineage import LineageTracker, MemoryLineageStore
from ml_pipeline.config.operation_logger import OperationLogger
from tests.support import eventually, require

NAMES = ("edges.json", "lineage.dot", "lineage.svg", "nodes.json")


@pytest.fixture
def folder() -> Path:
    """Where the default store and its files are."""
    return _runtime.settings().data_dir / "metadata" / "lineage"


@pytest.fixture
def tracker() -> LineageTracker:
    return LineageTracker(bus=Bus())


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


class TestJson:
    """``nodes.json`` and ``edges.json``."""

    def test_one_array_with_one_object_a_line(self, tracker: LineageTracker, folder: Path) -> None:
        """Both files are JSON arrays, in the order of recording, with a line an object and keys in a fixed order."""
        _, data = tracker.track_data_ingestion("ADNI", "visits", 5)
        tracker.track_training(data, "m", "1", status="failed")
        nodes_path, edges_path = tracker.export_json()
        assert (nodes_path, edges_path) == (folder / "nodes.json", folder / "edges.json")
        for path, objects in ((nodes_path, 3), (edges_path, 2)):
            lines = path.read_text().splitlines()
            assert (lines[0], lines[-1], len(lines)) == ("[", "]", objects + 2)
            assert [json.loads(line.rstrip(",")) for line in lines[1:-1]] == read(path)
        assert [node["name"] for node in read(nodes_path)] == ["ADNI", "visits", "m"]
        assert list(read(nodes_path)[0]) == [
            "node_id",
            "type",
            "name",
            "version",
            "pipeline",
            "run_id",
            "user_id",
            "first_seen",
            "last_seen",
            "automatic",
            "attributes",
        ]
        assert list(read(edges_path)[0]) == [
            "source_id",
            "target_id",
            "kind",
            "status",
            "operation_id",
            "pipeline",
            "run_id",
            "user_id",
            "first_seen",
            "last_seen",
            "automatic",
            "attributes",
        ]

    def test_says_who_when_and_where(self, tracker: LineageTracker) -> None:
        """Nodes and edges carry pipeline, run, user, operation and an RFC 3339 time in UTC."""
        operations = OperationLogger(Bus())
        with operations.operation("ingestion", user_id="ann") as op:
            tracker.track_data_ingestion("ADNI", "visits", 5)
        nodes, edges = (read(path) for path in tracker.export_json())
        for record in (*nodes, *edges):
            assert (record["pipeline"], record["run_id"], record["user_id"]) == ("test", op.run_id, "ann")
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record["first_seen"])
        assert (edges[0]["operation_id"], edges[0]["attributes"]) == (op.operation_id, {"records_count": 5})

    def test_is_the_same_when_nothing_changed(self, tracker: LineageTracker) -> None:
        """Two exports of one store are the same bytes."""
        tracker.track_data_ingestion("ADNI", "visits")
        first, second = ([path.read_bytes() for path in tracker.export_json(name)] for name in ("a", "b"))
        assert first == second

    def test_an_empty_store_is_two_empty_arrays(self, tracker: LineageTracker, isolated: Path) -> None:
        """Without lineage the files are there and empty."""
        assert [read(path) for path in tracker.export_json(isolated / "out")] == [[], []]

    def test_one_run(self, tracker: LineageTracker) -> None:
        """An export of one run holds what it touched: the shared nodes too, the other run's edges not."""
        operations = OperationLogger(Bus())
        runs = []
        for version in ("1", "2"):
            with operations.operation("custom", "run") as op:
                _, data = tracker.track_data_ingestion("ADNI", "visits")
                tracker.track_training(data, "m", version)
            runs.append(op.run_id)
        nodes, edges = (read(path) for path in tracker.export_json("out", run_id=runs[1]))
        assert [f"{node['name']} {node['version']}" for node in nodes] == ["ADNI ", "visits ", "m 2"]
        assert {edge["run_id"] for edge in edges} == {runs[1]}
        assert "m 2" not in tracker.export_dot("out/one.dot", run_id=runs[0]).read_text()
        assert tracker.export_svg("out/one.svg", run_id=runs[0]).read_text().count('class="node"') == 3

    def test_a_folder_that_cannot_be_made(self, tracker: LineageTracker, isolated: Path) -> None:
        """A place that cannot be written raises: files that were asked for are a request, not telemetry."""
        (isolated / "file").write_text("in the way")
        with pytest.raises(OSError, match="file"):
            tracker.export_json(isolated / "file" / "below")
        with pytest.raises(OSError, match="file"):
            tracker.export_svg(isolated / "file" / "lineage.svg")


class TestUpToDate:
    """The files beside the default store."""

    def test_at_the_end_of_a_run(self, folder: Path) -> None:
        """When the outermost operation ends, all four files are written, off the caller's thread."""
        bus = Bus()
        tracker, operations = LineageTracker(bus=bus), OperationLogger(bus)
        bus.subscribe("data_lineage", tracker.on_event)
        with operations.operation("custom", "run"):
            with operations.operation("ingestion", source_name="ADNI", dataset_name="visits"):
                pass
            assert not (folder / "nodes.json").exists()
        eventually((folder / "lineage.svg").exists)
        assert sorted(path.name for path in folder.iterdir() if path.suffix != ".db" and ".db-" not in path.name) == [
            *NAMES
        ]
        assert len(read(folder / "nodes.json")) == 2

    def test_a_run_without_lineage_writes_nothing(self, folder: Path) -> None:
        """Operations that record no step leave no files, not even the store's."""
        bus = Bus()
        tracker, operations = LineageTracker(bus=bus), OperationLogger(bus)
        bus.subscribe("data_lineage", tracker.on_event)
        with operations.operation("custom", "run"):
            operations.log_prediction(features=[1], decision="yes")
        tracker.flush()
        assert not folder.exists()

    def test_flush(self, tracker: LineageTracker, folder: Path) -> None:
        """`flush` brings them up to date at once; before any use it does nothing."""
        tracker.flush()
        assert not folder.exists()
        tracker.track_data_ingestion("ADNI", "visits")
        tracker.flush()
        assert all((folder / name).is_file() for name in NAMES)

    def test_at_most_once_a_second(self, isolated: Path) -> None:
        """A second run that ends within a second waits; whoever closes does not."""
        store = MemoryLineageStore()
        tracker = LineageTracker(store, Bus())
        files = LineageFiles(lambda: store, isolated / "out", 100, clock=lambda: 50.0)
        nodes = isolated / "out" / "nodes.json"

        def record(name: str) -> None:
            tracker.track_data_ingestion("s", name)
            files.recorded()
            files.run_ended()

        record("first")
        eventually((isolated / "out" / "lineage.svg").exists)
        record("second")
        assert [node["name"] for node in read(nodes)] == ["s", "first"]
        files.close()
        assert [node["name"] for node in read(nodes)] == ["s", "first", "second"]

    def test_at_exit(self, isolated: Path) -> None:
        """A process that only calls the tracker leaves the files when it ends."""
        code = (
            "from ml_pipeline.config.data_lineage import LineageTracker; from ml_pipeline.config._events import Bus\n"
            "LineageTracker(bus=Bus()).track_data_ingestion('ADNI', 'visits')"
        )
        environment = {**os.environ, "ML_PIPELINE_DATA_DIR": str(isolated / "data")}
        subprocess.run([sys.executable, "-c", code], check=True, env=environment)
        assert len(read(isolated / "data" / "metadata" / "lineage" / "nodes.json")) == 2

    def test_past_the_size_only_on_demand(
        self, tracker: LineageTracker, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Past the set number of nodes the files are left alone, which is said once; asked for, they are written."""
        with ml_pipeline.override(lineage_export_nodes=2):
            tracker.track_data_ingestion("s", "a")
            tracker.flush()
            for name in ("b", "c"):
                tracker.track_data_ingestion("s", name)
                tracker.flush()
            assert len(read(folder / "nodes.json")) == 2
            assert len(read(tracker.export_json()[0])) == 4
        said = capsys.readouterr().err
        assert said.count("ml_pipeline: data_lineage: ") == 1
        assert (
            f"data_lineage: 3 nodes are more than ML_PIPELINE_LINEAGE_EXPORT_NODES=2; the files in {folder} "
            "are written only by export_json, export_dot and export_svg"
        ) in said

    def test_a_tracker_with_a_store_of_its_own_writes_only_on_demand(self, folder: Path) -> None:
        """A second tracker never replaces the files of the first."""
        bus = Bus()
        tracker, operations = LineageTracker(MemoryLineageStore(), bus), OperationLogger(bus)
        bus.subscribe("data_lineage", tracker.on_event)
        with operations.operation("ingestion", source_name="ADNI"):
            pass
        tracker.flush()
        assert not folder.exists()
        assert tracker.export_dot().parent == folder

    def test_a_folder_that_cannot_be_written_is_counted(self, tracker: LineageTracker, folder: Path) -> None:
        """Files that cannot be replaced cost the files, not the pipeline, and are tried again."""
        with ml_pipeline.override(strict=False):
            tracker.track_data_ingestion("s", "a")
            (folder / "nodes.json").mkdir()
            tracker.flush()
            assert _runtime.tally.telemetry_errors["data_lineage", "IsADirectoryError"] == 1
            (folder / "nodes.json").rmdir()
            tracker.flush()
            assert len(read(folder / "nodes.json")) == 2

    def test_threads_that_export_at_once(self, tracker: LineageTracker, folder: Path) -> None:
        """Exports from several threads follow one another, and the files are whole."""
        tracker.track_data_ingestion("s", "a")
        threads = [threading.Thread(target=tracker.export_json) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(read(folder / "nodes.json")) == 2


KILLED = """
from ml_pipeline.config._events import Bus
from ml_pipeline.config.data_lineage import LineageTracker
tracker = LineageTracker(bus=Bus())
for index in range(100_000):
    tracker.track_data_ingestion("s", f"d{index}")
    tracker.export_json()
    print(index, flush=True)
"""


def test_killed_at_any_moment_the_files_are_whole(isolated: Path) -> None:
    """After ``kill -9`` both files are valid, and the store has everything that was recorded."""
    folder = isolated / "data" / "metadata" / "lineage"
    environment = {**os.environ, "ML_PIPELINE_DATA_DIR": str(isolated / "data")}
    for least in (1, 7, 20):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= least:
                break
        process.kill()
        process.wait()
        process.stdout.close()
        nodes, edges = read(folder / "nodes.json"), read(folder / "edges.json")
        assert {edge["target_id"] for edge in edges} <= {node["node_id"] for node in nodes}
        with ml_pipeline.override(data_dir=isolated / "data"):
            assert len(LineageTracker(bus=Bus()).find("dataset")) >= least


def shown(name: str, *, version: str = "", kind: str = "dataset", **attributes: Any) -> NodeRecord:
    return NodeRecord(
        node_id=f"{kind}:{name}",
        type=kind,
        name=name,
        version=version,
        attributes=attributes,
        first_seen=0,
        last_seen=0,
    )


QUOTED = r'"(?:[^"\\]|\\.)*"'


class TestDot:
    """The DOT language."""

    def test_a_graph_of_two(self) -> None:
        """Nodes show type, name and the fact that matters; edges their kind; what failed is dashed."""
        graph = View(
            (shown("visits", version="1", records_count=5000), shown("m", kind="model", model_type="forest")),
            (
                Arrow("dataset:visits", "model:m", "complete", (("training", 1),)),
                Arrow("dataset:visits", "model:m", "failed", (("training", 2), ("scoring", 1))),
            ),
            nodes_left_out=3,
        )
        assert to_dot(graph) == (
            "// 2 nodes, 2 arrows; the nodes seen last, 3 more left out\n"
            "digraph lineage {\n"
            "  rankdir=LR;\n"
            "  node [shape=box, style=rounded];\n"
            '  "dataset:visits" [label="dataset\\nvisits\\n1 · 5,000 records"];\n'
            '  "model:m" [label="model\\nm\\nforest"];\n'
            '  "dataset:visits" -> "model:m" [label="training"];\n'
            '  "dataset:visits" -> "model:m" [label="training \u00d72, scoring failed", style=dashed, '
            'color="#cf222e", fontcolor="#cf222e"];\n'
            "}\n"
        )

    @settings(max_examples=100, suppress_health_check=list(HealthCheck), deadline=None)
    @given(name=st.text(), version=st.text())
    def test_any_name_stays_inside_its_quotes(self, name: str, version: str) -> None:
        """Whatever a name holds, every line is one statement of quoted strings."""
        lines = to_dot(View((shown(name, version=version),), ())).split("\n")
        assert len(lines) == 7
        statement = re.fullmatch(rf"  ({QUOTED}) \[label=({QUOTED})\];", lines[4])
        assert statement is not None
        assert not re.search("[\x00-\x1f\x7f]", lines[4])

    def test_graphviz_reads_it(self, tracker: LineageTracker, isolated: Path) -> None:
        """Graphviz itself accepts a graph of hostile names."""
        dot = require("dot")
        for name in ('a "quoted" \\name', "back\\", "<b>html</b>", "line\nbreak", "{record|fields}", "ünïcödé 数据"):
            tracker.track_data_ingestion(name, name)
        path = tracker.export_dot(isolated / "hostile.dot")
        done = subprocess.run([dot, "-Tplain", str(path)], check=False, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
