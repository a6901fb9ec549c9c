"""What `LineageTracker` records when it is called, what it answers, and what it does with what goes wrong."""

from __future__ import annotations

import functools
import json
import math
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config import _lineage_steps as steps
from ml_pipeline.config._events import Bus, Event, LineageEvent
from ml_pipeline.config._lineage_model import EdgeKey
from ml_pipeline.config._lineage_recorder import LineageRecorder
from ml_pipeline.config._lineage_step import About, Origin
from ml_pipeline.config._lineage_store import EdgeQuery, NodeQuery, Written
from ml_pipeline.config.data_lineage import (
    EdgeRecord,
    LineageStore,
    LineageTracker,
    MemoryLineageStore,
    NodeRecord,
    SqliteLineageStore,
    lineage_tracker,
)
from ml_pipeline.errors import LineageError
from tests.support import eventually


class Published:
    """A bus, and every lineage event that it carried."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.events: list[LineageEvent] = []
        self.bus.subscribe("test", self._keep)

    def _keep(self, event: Event) -> None:
        if isinstance(event, LineageEvent):
            self.events.append(event)


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def tracker(published: Published) -> LineageTracker:
    return LineageTracker(MemoryLineageStore(), published.bus)


def a_pipeline(tracker: LineageTracker) -> dict[str, str]:
    """Record one thing of each type, and return their ids by type."""
    source, dataset = tracker.track_data_ingestion("ADNI", "ADNI_2024", 5000, dataset_version="1")
    validation = tracker.track_validation(dataset, passed=True, checks={"complete": True})
    features = tracker.track_transformation(validation, "train", output_version="1")
    model = tracker.track_training(features, "classifier", "1.0.0", metrics={"roc_auc": 0.92})
    deployment = tracker.track_deployment(model, "production")
    batch = tracker.track_inference(deployment, features, batch_name="june", prediction_ids=["p1", "p2"])
    prediction = tracker.find(type="prediction", name="p1")[0].node_id
    return {
        "source": source,
        "dataset": dataset,
        "validation": validation,
        "features": features,
        "model": model,
        "deployment": deployment,
        "batch": batch,
        "prediction": prediction,
    }


def names(nodes: tuple[NodeRecord, ...] | list[NodeRecord]) -> list[str]:
    return [node.name for node in nodes]


def more_than(items: list[str], count: int) -> bool:
    return len(items) > count


class ClosedAtFirst(SqliteLineageStore):
    """A store that is closed at the moment when it is to be read or written."""

    closed = False

    def nodes(self, query: NodeQuery) -> list[NodeRecord]:
        """Close, and read."""
        self.close()
        self.closed = True
        return super().nodes(query)

    def write(
        self, nodes: Sequence[NodeRecord], edges: Sequence[EdgeRecord], *, remove: Collection[EdgeKey] = ()
    ) -> Written:
        """Close, and write."""
        self.close()
        self.closed = True
        return super().write(nodes, edges, remove=remove)


class TestRecording:
    """The six calls."""

    def test_the_call_that_the_documentation_shows(self) -> None:
        """An ingestion returns the ids of source and data set."""
        source_id, data_id = lineage_tracker.track_data_ingestion(
            source_name="ADNI", dataset_name="ADNI_2024", records_count=5000
        )
        assert names([lineage_tracker.node(source_id), lineage_tracker.node(data_id)]) == ["ADNI", "ADNI_2024"]

    def test_ids_are_the_same_everywhere(self, tracker: LineageTracker) -> None:
        """An id is derived from type, name and version alone, so every process and every release gives the same."""
        assert tracker.track_data_ingestion("ADNI", "ADNI_2024") == (
            "source:f0be633de246bf56aac17a79",
            "dataset:25cb2bf9911b24a21b8b7cae",
        )
        assert a_pipeline(tracker) == a_pipeline(LineageTracker(MemoryLineageStore(), Bus()))

    def test_records_a_whole_pipeline(self, tracker: LineageTracker) -> None:
        """Each call adds its node and the edges of its kind; both ends of an inference are recorded."""
        ids = a_pipeline(tracker)
        for type_, node_id in ids.items():
            assert tracker.node(node_id).type == type_
            assert node_id.startswith(f"{type_}:")
        kinds = sorted((edge.kind, edge.status) for edge in tracker.downstream(ids["source"]).edges)
        assert kinds == sorted(
            (kind, "complete")
            for kind in (
                "ingestion",
                "validation",
                "transformation",
                "training",
                "deployment",
                "inference",
                "inference",
                "prediction",
                "prediction",
            )
        )

    def test_a_version_or_a_hash_makes_another_thing(self, tracker: LineageTracker) -> None:
        """Version and content hash tell data sets of one name apart; the version comes first."""

        def dataset(**facts: str) -> str:
            return tracker.track_data_ingestion("ADNI", "visits", **facts)[1]  # type: ignore[arg-type]

        plain, first, hashed = dataset(), dataset(dataset_version="1"), dataset(content_hash="ab12")
        assert len({plain, first, hashed}) == 3
        assert dataset(dataset_version="1", content_hash="ab12") == first
        assert tracker.node(first).attributes["content_hash"] == "ab12"

    def test_what_is_found_on_one_thing_is_not_found_on_another(self, tracker: LineageTracker) -> None:
        """Validations, deployments and batches of one name belong to the thing that they were made for."""
        one, other = (tracker.track_data_ingestion("clinic", name)[1] for name in ("june", "july"))
        assert tracker.track_validation(one, passed=True) != tracker.track_validation(other, passed=False)
        models = [tracker.track_training(data, "classifier", data) for data in (one, other)]
        places = [tracker.track_deployment(model) for model in models]
        batches = [tracker.track_inference(place, batch_name="b") for place in places]
        assert len({*models, *places, *batches}) == 6
        assert "july" not in names(tracker.upstream(batches[0]).nodes)

    def test_keeps_the_facts(self, tracker: LineageTracker) -> None:
        """What describes the thing lies on its node; what describes the doing, further arguments included, on its edges."""
        _, data = tracker.track_data_ingestion(
            "ADNI", "visits", 7, source_uri="s3://x", columns=["age"], name="n", args=1
        )
        model = tracker.track_training(
            [data],
            "classifier",
            "1",
            model_type="forest",
            metrics={"auc": 0.9},
            parameters={"trees": 5},
            artifact_sha256="f",
        )
        assert tracker.node(data).attributes == {"records_count": 7, "columns": ["age"]}
        assert tracker.node(model).attributes == {
            "model_type": "forest",
            "metrics": {"auc": 0.9},
            "artifact_sha256": "f",
        }
        ingestion, training = tracker.upstream(model).edges[::-1]
        assert ingestion.attributes == {"records_count": 7, "name": "n", "args": 1}
        assert training.attributes == {"metrics": {"auc": 0.9}, "parameters": {"trees": 5}}

    def test_carries_who_and_when(self, tracker: LineageTracker) -> None:
        """Nodes and edges name pipeline, run, user and operation of the call."""
        tokens = _context.restore({"run_id": "r1", "operation_id": "o1", "user_id": "ann"})
        source, data = tracker.track_data_ingestion("ADNI", "visits")
        _context.undo(tokens)
        (edge,) = tracker.upstream(data).edges
        assert (edge.pipeline, edge.run_id, edge.user_id, edge.operation_id) == ("test", "r1", "ann", "o1")
        kept = tracker.node(source)
        assert (kept.pipeline, kept.run_id, kept.user_id) == ("test", "r1", "ann")
        assert kept.first_seen == kept.last_seen > 1e9

    def test_joins_the_run_of_the_settings(self, tracker: LineageTracker) -> None:
        """Outside any operation, a run that the settings name is the run."""
        run_id = "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6"
        with ml_pipeline.override(run_id=run_id):
            source, _ = tracker.track_data_ingestion("ADNI", "visits")
        assert names(tracker.find(run_id=run_id)) == ["ADNI", "visits"]
        assert tracker.node(source).run_id == run_id

    def test_outside_any_operation_the_last_word_holds(self, tracker: LineageTracker) -> None:
        """A step that failed and was tried again is complete."""
        _, data = tracker.track_data_ingestion("ADNI", "visits", status="failed")
        assert [edge.status for edge in tracker.upstream(data, include_failed=True).edges] == ["failed"]
        tracker.track_data_ingestion("ADNI", "visits")
        assert [edge.status for edge in tracker.upstream(data).edges] == ["complete"]

    def test_takes_inputs_in_any_form(self, tracker: LineageTracker) -> None:
        """One id, several, a node, an array of ids or a generator; each input once."""
        ids = [tracker.track_data_ingestion("s", name)[1] for name in "ab"]
        forms: list[tuple[Any, int]] = [
            (ids[0], 1),
            (ids, 2),
            ((*ids, *ids), 2),
            (tracker.node(ids[0]), 1),
            (np.array(ids), 2),
            ((one for one in ids), 2),
        ]
        for index, (form, count) in enumerate(forms):
            features = tracker.track_transformation(form, f"features {index}")
            edges = tracker.upstream(features).edges
            assert sum(edge.target_id == features for edge in edges) == count

    def test_lists_predictions_within_bounds(self, tracker: LineageTracker) -> None:
        """Up to 10,000 single predictions become nodes; the batch says how many more there were."""
        _, data = tracker.track_data_ingestion("s", "d")
        model = tracker.track_training(data, "m")
        many = [f"p{index}" for index in range(10_003)]
        batch = tracker.track_inference(model, batch_name="big", predictions_count=10_003, prediction_ids=many)
        facts = {"predictions_count": 10_003, "predictions_listed": 10_000, "predictions_left_out": 3}
        assert tracker.node(batch).attributes == facts
        assert len(tracker.find(type="prediction", limit=20_000)) == 10_000

    def test_tells_what_it_recorded(self, tracker: LineageTracker, published: Published) -> None:
        """Each step is one event with the nodes named, the target last, and what was new; predictions are another."""
        a_pipeline(tracker)
        told = [(event.kind, event.new_nodes, event.new_edges) for event in published.events]
        assert told == [
            ("ingestion", {"source": 1, "dataset": 1}, 1),
            ("validation", {"validation": 1}, 1),
            ("transformation", {"features": 1}, 1),
            ("training", {"model": 1}, 1),
            ("deployment", {"deployment": 1}, 1),
            ("inference", {"batch": 1}, 2),
            ("prediction", {"prediction": 2}, 2),
        ]
        assert [node.name for node in published.events[0].nodes] == ["ADNI", "ADNI_2024"]
        assert [edge.kind for edge in published.events[5].edges] == ["inference", "inference"]
        assert not any(event.automatic for event in published.events)
        assert len({event.event_id for event in published.events}) == 7
        published.events.clear()
        a_pipeline(tracker)
        assert {(tuple(event.new_nodes), event.new_edges) for event in published.events} == {((), 0)}

    def test_keeps_all_of_many_threads(self, tracker: LineageTracker) -> None:
        """Threads that record at once lose nothing."""
        _, data = tracker.track_data_ingestion("s", "d")

        def work(number: int) -> None:
            for index in range(25):
                tracker.track_training(data, f"m{number}", str(index))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(tracker.downstream(data).nodes) == 100


class TestQuestions:
    """Walking, searching, and asking for what is not there."""

    def test_walks_up_breadth_first(self, tracker: LineageTracker) -> None:
        """Upstream of a prediction is everything it rests on, nearest first."""
        walk = tracker.upstream(a_pipeline(tracker)["prediction"])
        assert walk.start.name == "p1"
        assert [node.type for node in walk.nodes[:3]] == ["batch", "deployment", "features"]
        assert {node.type for node in walk.nodes[3:]} == {"model", "validation", "dataset", "source"}
        assert not walk.truncated

    def test_walks_down(self, tracker: LineageTracker) -> None:
        """Downstream of a source is everything that was made of it."""
        walk = tracker.downstream(a_pipeline(tracker)["source"])
        assert names(walk.nodes)[:3] == ["ADNI_2024", "data_validation", "train"]
        assert len(walk.nodes) == 8

    def test_finds_the_way(self, tracker: LineageTracker) -> None:
        """A path is a shortest one, both ends included; against the edges there is none."""
        ids = a_pipeline(tracker)
        way = [node.type for node in tracker.path(ids["source"], ids["prediction"])]
        assert way == ["source", "dataset", "validation", "features", "batch", "prediction"]
        assert tracker.path(ids["model"], ids["dataset"]) == []
        assert names(tracker.path(ids["model"], ids["model"])) == ["classifier"]

    def test_leaves_out_what_failed(self, tracker: LineageTracker) -> None:
        """A failed step made nothing: it is walked only where that is asked for."""
        _, data = tracker.track_data_ingestion("s", "d")
        model = tracker.track_training(data, "m", status="failed")
        assert tracker.upstream(model).nodes == ()
        assert names(tracker.upstream(model, include_failed=True).nodes) == ["d", "s"]
        assert tracker.path(data, model) == []
        assert names(tracker.path(data, model, include_failed=True)) == ["d", "m"]

    def test_goes_round_a_cycle_once(self, tracker: LineageTracker) -> None:
        """A graph with cycles, even of one node, is walked to its end."""
        first = tracker.track_transformation(tracker.track_data_ingestion("s", "d")[1], "a")
        second = tracker.track_transformation(first, "b")
        tracker.track_transformation(second, "a")
        tracker.track_transformation(first, "a")
        assert names(tracker.downstream(first).nodes) == ["b"]
        assert len(tracker.downstream(first).edges) == 3
        assert names(tracker.upstream(second).nodes) == ["a", "d", "s"]

    def test_stops_at_its_bound(self, tracker: LineageTracker) -> None:
        """A walk that reaches its bound says so; a path that would need more raises."""
        ids = a_pipeline(tracker)
        short = tracker.downstream(ids["source"], max_nodes=3)
        assert (len(short.nodes), short.truncated) == (3, True)
        assert {end for edge in short.edges for end in edge.key[1:3]} <= {
            short.start.node_id,
            *(node.node_id for node in short.nodes),
        }
        exact = tracker.downstream(ids["source"], max_nodes=8)
        assert (len(exact.nodes), exact.truncated) == (8, False)
        with pytest.raises(LineageError) as raised:
            tracker.path(ids["source"], ids["prediction"], max_nodes=2)
        assert str(raised.value) == (
            "a path must be found among the nodes looked at (got 'max_nodes=2'); allow more of them"
        )

    def test_finds_by_type_and_name(self, tracker: LineageTracker) -> None:
        """A search takes type, name, both or neither, and gives up to so many."""
        a_pipeline(tracker)
        assert names(tracker.find("model")) == ["classifier"]
        assert names(tracker.find(name="june", type="batch")) == ["june"]
        assert tracker.find("model", "june") == []
        assert len(tracker.find()) == 9
        assert len(tracker.find(limit=2)) == 2

    @pytest.mark.parametrize("ask", [LineageTracker.node, LineageTracker.upstream, LineageTracker.downstream])
    def test_an_unknown_node_is_an_error(self, tracker: LineageTracker, ask: Callable[..., object]) -> None:
        """A question about what is not there names it, and the closest thing that is."""
        model = a_pipeline(tracker)["model"]
        for asked, answer in (
            ("classifier", f"did you mean {model!r}, the model 'classifier'?"),
            ("clasifier", f"did you mean {model!r}, the model 'classifier'?"),
            (model[:-1], f"did you mean {model!r}, the model 'classifier'?"),
            ("zzz", "find() returns the nodes there are"),
        ):
            with pytest.raises(LineageError) as raised:
                ask(tracker, asked)
            assert str(raised.value) == f"a lineage node must have been recorded (got {asked!r}); {answer}"

    def test_both_ends_of_a_path_must_be_there(self, tracker: LineageTracker) -> None:
        """A path from or to an unknown node is an error, not an empty answer."""
        ids = a_pipeline(tracker)
        with pytest.raises(LineageError, match="got 'nowhere'"):
            tracker.path("nowhere", ids["model"])
        with pytest.raises(LineageError, match="got 'nowhere'"):
            tracker.path(ids["model"], "nowhere")

    def test_an_empty_store_answers(self, tracker: LineageTracker) -> None:
        """Before anything was recorded there is nothing, and no failure."""
        assert tracker.find() == []
        with pytest.raises(LineageError, match="find"):
            tracker.upstream("\ud800")


MISUSES: list[tuple[Callable[[LineageTracker], object], str]] = [
    (
        lambda tracker: tracker.track_training("dataset:nope", "m"),
        (
            "an input of a step of kind training must have been recorded before it (got 'dataset:nope'); "
            "it is kept as a node of type 'unknown'; pass the id that a track_* call returned"
        ),
    ),
    (
        lambda tracker: tracker.track_training(None, "m", reason="no data"),  # type: ignore[arg-type]
        "a step of kind training must have an input (got ()); pass the id that a track_* call returned",
    ),
    (
        lambda tracker: tracker.track_data_ingestion("", "d"),
        "a lineage node of type source must have a name (got ''); name it",
    ),
    (
        lambda tracker: tracker.track_data_ingestion("s", "d", status="broken"),  # type: ignore[arg-type]
        "the status of a step must be 'complete' or 'failed' (got 'broken'); it is kept as failed",
    ),
    (
        lambda tracker: tracker.track_training(
            [tracker.track_data_ingestion("s", f"d{index}")[1] for index in range(3)] * 2
            + [f"n{index}" for index in range(10_000)],
            "m",
        ),
        "a step may have at most 10,000 inputs (got '10001 or more'); group them",
    ),
]


class TestMisuse:
    """A wrong call is recorded with its data, counted, and raised only under strict telemetry."""

    @pytest.mark.parametrize(("call", "message"), MISUSES)
    def test_raises_under_strict(
        self, tracker: LineageTracker, call: Callable[[LineageTracker], object], message: str
    ) -> None:
        """Under strict telemetry each misuse raises, after it was recorded."""
        with pytest.raises(LineageError) as raised:
            call(tracker)
        assert str(raised.value) == message
        assert tracker.find()

    @pytest.mark.parametrize(("call", "message"), MISUSES)
    def test_is_counted_otherwise(
        self,
        tracker: LineageTracker,
        call: Callable[[LineageTracker], object],
        message: str,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        """Otherwise the call returns its ids, and the misuse is counted and said once."""
        with ml_pipeline.override(strict=False):
            assert call(tracker)
            call(tracker)
        assert _runtime.tally.telemetry_errors["data_lineage", "LineageError"] >= 2
        assert capsys.readouterr().err.count(message) == 1

    def test_an_input_named_before_it_is_recorded(self, tracker: LineageTracker) -> None:
        """A placeholder connects what is already known, and becomes the real thing when that is recorded."""
        elsewhere = LineageTracker(MemoryLineageStore(), Bus())
        source, data = elsewhere.track_data_ingestion("ADNI", "visits", 7)
        with ml_pipeline.override(strict=False):
            model = tracker.track_training(data, "m")
        assert (tracker.node(data).type, tracker.node(data).name) == ("unknown", data)
        tracker.track_data_ingestion("ADNI", "visits", 7)
        assert (tracker.node(data).type, tracker.node(data).name) == ("dataset", "visits")
        assert names(tracker.path(source, model)) == ["ADNI", "visits", "m"]

    def test_without_an_input_the_node_keeps_the_facts(self, tracker: LineageTracker) -> None:
        """A step without an edge to keep its facts on keeps them on what it made."""
        with ml_pipeline.override(strict=False):
            model = tracker.track_training([], "m", reason="lost")
        assert tracker.node(model).attributes == {"reason": "lost"}

    def test_an_unknown_status_is_taken_as_failed(self, tracker: LineageTracker) -> None:
        """What is not known to be complete is not walked as if it were."""
        with ml_pipeline.override(strict=False):
            _, data = tracker.track_data_ingestion("s", "d", status="done")  # type: ignore[arg-type]
        assert tracker.upstream(data).nodes == ()


class Unprintable:
    """Raises from everything that may be asked of it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")

    def __iter__(self) -> Any:
        raise RuntimeError("no items")

    def __len__(self) -> int:
        raise RuntimeError("no length")


def _cycle() -> list[object]:
    cycle: list[object] = []
    cycle.append(cycle)
    return cycle


HOSTILE: list[Any] = [
    "line\nbreak",
    "quote \" apostrophe ' back\\slash",
    "\x1b[31mred\x1b[0m \u202e reversed \x00",
    "</title><script>alert(1)</script>&amp;",
    "\ud800 \uffff",
    "ünïcödé 数据",
    math.nan,
    math.inf,
    np.float64("nan"),
    np.int64(5),
    np.arange(3),
    np.zeros((100, 100)),
    b"bytes\xff",
    _cycle(),
    Unprintable(),
    {"ended": ["unhashable"]},
    2**70,
    None,
    "x" * 1_000_000,
]


class TestHostileValues:
    """Whatever stands in a name or a fact, nothing is raised, and every file is whole."""

    @pytest.mark.parametrize("value", HOSTILE, ids=lambda value: type(value).__name__)
    def test_takes_any_value_anywhere(self, value: Any, isolated: Path) -> None:
        """As names, versions, ids, facts and keywords; stored within bounds, exported as valid JSON."""
        tracker = LineageTracker(bus=Bus())
        with ml_pipeline.override(strict=False):
            _, data = tracker.track_data_ingestion(
                value, value, value, dataset_version=value, columns=value, ended=value
            )
            checked = tracker.track_validation(data, value, passed=value, checks=value, status=value)
            features = tracker.track_transformation([value, checked], value, parameters=value, name=value, args=value)
            model = tracker.track_training(features, value, value, metrics=value)
            placed = tracker.track_deployment(model, value, endpoint=value)
            batch = tracker.track_inference(placed, value, batch_name=value, prediction_ids=value, operation_id=value)
            tracker.track_training(features, value, value, operation_id=value)
            paths = [*tracker.export_json(), tracker.export_dot(), tracker.export_svg()]
            assert tracker.upstream(batch).nodes
        nodes, edges = (json.loads(path.read_bytes()) for path in paths[:2])
        assert {edge["target_id"] for edge in edges} <= {node["node_id"] for node in nodes}
        assert all(path.stat().st_size < 2_000_000 for path in paths)
        errors = {key[1] for key in _runtime.tally.telemetry_errors}
        assert errors <= {"LineageError"}

    def test_long_names_stay_two(self, tracker: LineageTracker) -> None:
        """Two names that differ after a million characters are two nodes, each kept short and marked."""
        one, other = ("x" * 1_000_000 + end for end in "ab")
        first, second = tracker.track_data_ingestion("s", one)[1], tracker.track_data_ingestion("s", other)[1]
        assert first != second
        shown = tracker.node(first).name
        assert len(shown) < 1_100
        assert "… 999001 more characters, sha256 " in shown

    @settings(max_examples=40, suppress_health_check=list(HealthCheck), deadline=None)
    @given(
        name=st.text(),
        version=st.text(),
        fact=st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ),
    )
    def test_text_comes_back_as_it_was(self, name: str, version: str, fact: Any) -> None:
        """Any text as a name is found by that name, in the store and in the JSON files."""
        tracker = LineageTracker(MemoryLineageStore(), Bus())
        with ml_pipeline.override(strict=False):
            _, data = tracker.track_data_ingestion("s", name, dataset_version=version, fact=fact)
            nodes, edges = tracker.export_json("out")
        assert data in {node.node_id for node in tracker.find("dataset", name)}
        assert name in {node["name"] for node in json.loads(nodes.read_bytes())}
        assert len(edges.read_text(encoding="utf-8").splitlines()) == 3


class BrokenStore(MemoryLineageStore):
    """Refuses to write while `error` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.error: Exception | None = None
        self.attempts = 0

    def write(self, *arguments: Any, **keywords: Any) -> Written:
        """Write, or raise."""
        self.attempts += 1
        if self.error is not None:
            raise self.error
        return super().write(*arguments, **keywords)


class TestFailingStore:
    """A store that fails costs no id and no lineage."""

    def test_ids_are_returned_and_the_failure_is_counted(self) -> None:
        """The ids of a step do not depend on the store."""
        store = BrokenStore()
        broken = LineageTracker(store, Bus())
        store.error = sqlite3.OperationalError("disk I/O error")
        with ml_pipeline.override(strict=False):
            ids = broken.track_data_ingestion("ADNI", "visits")
            store.error = None
        assert ids == LineageTracker(MemoryLineageStore(), Bus()).track_data_ingestion("ADNI", "visits")
        assert _runtime.tally.telemetry_errors == {("data_lineage", "OperationalError"): 1}

    def test_raises_under_strict(self) -> None:
        """Under strict telemetry the store's own error is raised."""
        store = BrokenStore()
        store.error = sqlite3.OperationalError("disk I/O error")
        with pytest.raises(sqlite3.OperationalError, match="disk I/O error"):
            LineageTracker(store, Bus()).track_data_ingestion("ADNI", "visits")
        store.error = None

    def test_writes_later_what_the_store_did_not_take(self, published: Published) -> None:
        """Nothing is asked of a failing store for five seconds; then everything is written and told, in order."""
        store, now = BrokenStore(), [0.0]
        recorder = LineageRecorder(lambda: store, published.bus.publish, lambda: None, clock=lambda: now[0])
        told = [steps.ingestion(About(Origin.here()), "s", f"d{index}") for index in range(3)]
        store.error = sqlite3.OperationalError("database is locked")
        with pytest.raises(sqlite3.OperationalError):
            recorder.called(told[0])
        recorder.called(told[1])
        assert store.attempts == 1
        store.error, now[0] = None, 5.0
        recorder.called(told[2])
        assert [event.nodes[-1].name for event in published.events] == ["d0", "d1", "d2"]
        assert len(store.edges(EdgeQuery())) == 3

    def test_writes_at_the_end_what_the_store_did_not_take(self) -> None:
        """Closing tries once more."""
        store = BrokenStore()
        tracker = LineageTracker(store, Bus())
        with ml_pipeline.override(strict=False):
            store.error = sqlite3.OperationalError("database is locked")
            tracker.track_data_ingestion("s", "d")
            store.error = None
        assert names(store.nodes(NodeQuery())) == ["s", "d"]

    def test_keeps_only_so_much(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Past a thousand steps the oldest is dropped, counted, and said."""
        store = BrokenStore()
        tracker = LineageTracker(store, Bus())
        with ml_pipeline.override(strict=False):
            store.error = sqlite3.OperationalError("database is locked")
            for index in range(1_002):
                tracker.track_data_ingestion("s", f"d{index}")
            store.error = None
        kept = names(store.nodes(NodeQuery(type="dataset")))
        assert (len(kept), kept[0]) == (1_000, "d2")
        assert _runtime.tally.telemetry_errors["data_lineage", "LineageError"] == 2
        assert (
            "lineage that the store does not take is kept for up to 1,000 steps; "
            "the oldest is dropped; make the store writable"
        ) in capsys.readouterr().err

    def test_does_not_try_again_what_cannot_succeed(self) -> None:
        """A step that no second attempt would help does not keep the ones after it waiting."""
        store = BrokenStore()
        tracker = LineageTracker(store, Bus())
        with ml_pipeline.override(strict=False):
            store.error = TypeError("not a row")
            tracker.track_data_ingestion("s", "lost")
            store.error = None
            tracker.track_data_ingestion("s", "kept")
        assert names(store.nodes(NodeQuery(type="dataset"))) == ["kept"]

    def test_a_locked_file_keeps_nobody_waiting_long(self, isolated: Path) -> None:
        """While another program holds the file, the call returns its ids; afterwards the step is in the file."""
        path = isolated / "lineage.db"
        store = SqliteLineageStore(path, busy_seconds=0.05)
        tracker = LineageTracker(store, Bus())
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with ml_pipeline.override(strict=False):
            assert all(tracker.track_data_ingestion("s", "d"))
            other.execute("ROLLBACK")
        other.close()
        assert store.count_nodes(NodeQuery()) == 2
        store.close()

    def test_a_file_that_is_no_database(self, isolated: Path) -> None:
        """A broken store file costs the lineage and nothing else."""
        folder = isolated / "data" / "metadata" / "lineage"
        folder.mkdir(parents=True)
        (folder / "lineage.db").write_text("this is not a database " * 100)
        with ml_pipeline.override(strict=False, data_dir=isolated / "data"):
            assert all(LineageTracker(bus=Bus()).track_data_ingestion("s", "d"))
        assert _runtime.tally.telemetry_errors["data_lineage", "DatabaseError"] >= 1


PROCESS = """
import sys
from ml_pipeline.config._events import Bus
from ml_pipeline.config.data_lineage import LineageTracker
tracker = LineageTracker(bus=Bus())
for index in range(40):
    _, data = tracker.track_data_ingestion("shared", f"{sys.argv[1]}-{index}")
    tracker.track_training(data, "model", sys.argv[1])
"""

FORK = """
import os
from ml_pipeline.config._events import Bus
from ml_pipeline.config.data_lineage import LineageTracker
tracker = LineageTracker(bus=Bus())
_, data = tracker.track_data_ingestion("parent", "before the fork")
child = os.fork()
if child == 0:
    tracker.track_training(data, "child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
assert [node.name for node in tracker.downstream(data).nodes] == ["child"]
"""


class TestProcesses:
    """One store, several processes."""

    def test_two_processes_write_one_store(self, isolated: Path) -> None:
        """Both records are whole, and what both name is there once."""
        running = [
            subprocess.Popen([sys.executable, "-c", PROCESS, name], env={**os.environ, "ML_PIPELINE_STRICT": "1"})
            for name in ("one", "two")
        ]
        assert [process.wait(60) for process in running] == [0, 0]
        tracker = LineageTracker(bus=Bus())
        (shared,) = tracker.find("source", "shared")
        assert len(tracker.downstream(shared.node_id).nodes) == 82

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
    def test_a_forked_child_opens_its_own(self, isolated: Path) -> None:
        """A child goes on recording to the same file, through a connection of its own."""
        done = subprocess.run([sys.executable, "-c", FORK], check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    def test_follows_the_settings(self, isolated: Path) -> None:
        """After `configure`, the same tracker records under the new data directory."""
        tracker = LineageTracker(bus=Bus())
        for folder in ("first", "second"):
            with ml_pipeline.override(data_dir=isolated / folder):
                tracker.track_data_ingestion("s", folder)
                assert names(tracker.find("dataset")) == [folder]
            assert (isolated / folder / "metadata" / "lineage" / "lineage.db").is_file()

    def test_a_store_closed_under_a_step_is_opened_again(self, isolated: Path) -> None:
        """What another thread's `configure` closes between two looks at the store is done again, and counts no error."""
        first = ClosedAtFirst(isolated / "first.db")
        second = SqliteLineageStore(isolated / "second.db")
        opened: list[LineageStore] = [first, second]
        recorder = LineageRecorder(lambda: opened[first.closed], Bus().publish, lambda: None)
        recorder.called(steps.ingestion(About(Origin.here()), "s", "d"))
        assert first.closed
        assert names(second.nodes(NodeQuery())) == ["s", "d"]
        second.close()

    def test_a_store_that_stays_closed_raises(self, isolated: Path) -> None:
        """A store that its owner closed is not opened again behind their back."""
        store = SqliteLineageStore(isolated / "lineage.db")
        tracker = LineageTracker(store, Bus())
        store.close()
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            tracker.find()

    def test_threads_go_on_while_the_settings_change(self, isolated: Path) -> None:
        """Threads that record and ask while `configure` closes the store lose nothing and count no error."""
        tracker, stop = LineageTracker(bus=Bus()), threading.Event()
        recorded: list[str] = []

        def work(number: int) -> None:
            index = 0
            while not stop.is_set():
                tracker.track_data_ingestion("s", f"{number} {index}")
                recorded.append(f"{number} {index}")
                tracker.find(limit=1)
                index += 1

        with ml_pipeline.override(data_dir=isolated / "0", lineage_export_nodes=1):
            with ThreadPoolExecutor(2) as pool:
                futures = [pool.submit(work, number) for number in range(2)]
                for turn in range(20):
                    ml_pipeline.configure(data_dir=isolated / str(turn % 2))
                    eventually(functools.partial(more_than, recorded, len(recorded)))
                stop.set()
            assert [future.exception() for future in futures] == [None, None]
            kept: set[str] = set()
            for folder in "01":
                ml_pipeline.configure(data_dir=isolated / folder)
                kept.update(names(tracker.find("dataset", limit=100_000)))
        assert kept == set(recorded)
        assert not _runtime.tally.telemetry_errors

    def test_importing_opens_nothing(self, isolated: Path) -> None:
        """Neither the import nor a tracker that nobody used makes a file, a folder or a thread."""
        LineageTracker(bus=Bus())
        assert list(isolated.iterdir()) == []
        eventually(lambda: not any("data_lineage" in thread.name for thread in threading.enumerate()))
