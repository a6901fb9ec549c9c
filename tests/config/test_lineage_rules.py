"""What operations record by themselves, and how a ``track_*`` call for the same step joins their record."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ml_pipeline.config import _context
from ml_pipeline.config._events import Bus, Event, LineageEvent, OperationEvent
from ml_pipeline.config._lineage_store import EdgeQuery
from ml_pipeline.config._lineage_view import detail
from ml_pipeline.config.data_lineage import EdgeRecord, LineageTracker, MemoryLineageStore
from ml_pipeline.config.operation_logger import OperationLogger

OTHER_RUN = "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6"


class House:
    """A bus with an operation logger and a tracker on it, as in the package, but private."""

    def __init__(self) -> None:
        self.bus = Bus()
        self.store = MemoryLineageStore()
        self.tracker = LineageTracker(self.store, self.bus)
        self.operations = OperationLogger(self.bus)
        self.told: list[LineageEvent] = []
        self.bus.subscribe("data_lineage", self.tracker.on_event)
        self.bus.subscribe("test", self._keep)

    def _keep(self, event: Event) -> None:
        if isinstance(event, LineageEvent):
            self.told.append(event)

    def edges(self, kind: str | None = None) -> list[EdgeRecord]:
        """Return every edge, or those of one kind."""
        return self.store.edges(EdgeQuery(kind=kind))

    def only_edge(self, kind: str | None = None) -> EdgeRecord:
        """Return the one edge there is, or the one of its kind."""
        (edge,) = self.edges(kind)
        return edge

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Act outside any operation of this run."""
        tokens = _context.restore({"run_id": OTHER_RUN, "operation_id": None, "user_id": None})
        try:
            yield
        finally:
            _context.undo(tokens)

    def names(self, type_: str | None = None) -> list[str]:
        """Return name and version of every node, or of those of one type."""
        return [f"{node.name} {node.version}".strip() for node in self.tracker.find(type_)]


@pytest.fixture
def house() -> House:
    return House()


class TestOperationsAlone:
    """Pipelines that never call the tracker."""

    def test_every_kind_records_its_step(self, house: House) -> None:
        """From ingestion to a batch of predictions, names alone make one connected graph."""
        operation = house.operations.operation
        with operation("custom", "run"):
            with operation("ingestion", source_name="ADNI", dataset_name="visits", dataset_version="1") as op:
                op.count(records=7)
            with operation("validation", dataset_name="visits", checks={"complete": True}):
                pass
            with operation("feature_extraction", dataset_name="visits", output_name="train", output_version="1"):
                pass
            with operation("training", dataset_name="train", model_name="m", model_version="1") as op:
                op.measure(roc_auc=0.9)
            with operation("deployment", model_name="m", environment="clinic"):
                pass
            facts = {"model_name": "m", "model_version": "1", "environment": "clinic", "dataset_name": "train"}
            with operation("prediction", batch="june", **facts) as op:
                op.count(predictions=2)
        assert [(edge.kind, edge.status, edge.automatic) for edge in house.edges()] == [
            (kind, "complete", True)
            for kind in (
                "ingestion",
                "validation",
                "transformation",
                "training",
                "deployment",
                "inference",
                "inference",
            )
        ]
        (batch,) = house.tracker.find("batch")
        assert {node.type for node in house.tracker.upstream(batch.node_id).nodes} == {
            "source",
            "dataset",
            "features",
            "model",
            "deployment",
        }
        assert batch.attributes == {"predictions_count": 2}
        assert house.tracker.find("dataset")[0].attributes == {"records_count": 7}
        assert house.tracker.find("model")[0].attributes == {"metrics": {"roc_auc": 0.9}}
        assert house.tracker.find("validation")[0].attributes == {"passed": True, "checks": {"complete": True}}
        assert len({edge.run_id for edge in house.edges()}) == 1

    def test_calls_of_the_operation_logger_do_the_same(self, house: House) -> None:
        """``log_*`` calls record the steps that they report."""
        log = house.operations
        started = log.log_data_ingestion_start("ADNI", "visits")
        log.log_data_ingestion_complete(started, records_count=7)
        log.log_feature_extraction("visits", "train")
        trained = log.log_training_start("m", "forest", "", dataset_name="train")
        log.log_training_complete(trained, model_version="1", metrics={"auc": 0.9})
        log.log_model_deployment("m", "1", "clinic")
        assert house.names() == ["ADNI", "visits", "train", "m 1", *house.names("deployment")]
        assert [edge.kind for edge in house.edges()] == ["ingestion", "transformation", "training", "deployment"]

    def test_ids_of_nodes_say_it_exactly(self, house: House) -> None:
        """Where an operation knows the ids of its inputs, they are used as they are."""
        _, one = house.tracker.track_data_ingestion("s", "d", dataset_version="1")
        _, two = house.tracker.track_data_ingestion("s", "d", dataset_version="2")
        with house.operations.operation("validation", data_id=one):
            pass
        with house.operations.operation("training", data_ids=[one, two], model_name="m"):
            pass
        (model,) = house.tracker.find("model")
        with house.operations.operation("deployment", model_id=model.node_id):
            pass
        assert [edge.source_id for edge in house.edges() if edge.automatic] == [one, one, two, model.node_id]
        assert house.names("deployment")[0].startswith("production")

    def test_a_name_without_a_version_means_the_latest(self, house: House) -> None:
        """Of several things of one name, the one seen last is meant; with a version, that one."""
        for version in ("1", "2"):
            house.tracker.track_data_ingestion("s", "d", dataset_version=version)
        with house.operations.operation("training", dataset_name="d", model_name="late"):
            pass
        with house.operations.operation("training", dataset_name="d", dataset_version="1", model_name="early"):
            pass
        with house.operations.operation("training", dataset_name="elsewhere", dataset_version="9", model_name="other"):
            pass
        sources = [house.tracker.node(edge.source_id) for edge in house.edges("training")]
        assert [f"{node.name} {node.version}" for node in sources] == ["d 2", "d 1", "elsewhere 9"]

    def test_a_version_that_is_not_kept_does_not_cut_the_history(self, house: House) -> None:
        """Data named with a version that nobody recorded are the latest of that name; the edge says what was asked."""
        house.operations.log_feature_extraction("ADNI_2024", "feat")
        house.operations.log_training_start("clf", "rf", "v1.0", dataset_name="feat")
        house.operations.log_training_complete()
        (model,) = house.tracker.find("model")
        upstream = house.tracker.upstream(model.node_id).nodes
        assert [(node.type, node.name) for node in upstream] == [("features", "feat"), ("dataset", "ADNI_2024")]
        assert house.only_edge("training").attributes["dataset_version"] == "v1.0"
        assert "dataset_version" not in house.only_edge("transformation").attributes

    def test_the_data_of_the_run_come_before_later_ones_of_others(self, house: House) -> None:
        """Where a version is not kept, data that this run touched stand in for it, though others were seen later."""
        operation = house.operations.operation
        with operation("custom", "run"):
            house.tracker.track_data_ingestion("s", "d", dataset_version="mine")
            with house.elsewhere():
                house.tracker.track_data_ingestion("s", "d", dataset_version="theirs")
            with operation("validation", dataset_name="d", dataset_version="9"):
                pass
        with house.elsewhere(), operation("training", dataset_name="d", dataset_version="9", model_name="m"):
            pass
        sources = [house.tracker.node(edge.source_id) for edge in house.edges() if edge.automatic]
        assert [node.version for node in sources] == ["mine", "theirs"]

    def test_a_version_of_a_model_is_a_model_of_its_own(self, house: House) -> None:
        """No model stands in for another version of it: what was deployed is what was named."""
        house.operations.log_model_deployment("m", "1", "clinic")
        house.operations.log_model_deployment("m", "2", "clinic")
        assert house.names("model") == ["m 1", "m 2"]

    @pytest.mark.parametrize(
        ("facts", "passed"),
        [
            ({}, None),
            ({"checks": {}}, None),
            ({"checks": "all"}, None),
            ({"checks": {"no_nulls": True, "in_range": True}}, True),
            ({"checks": {"no_nulls": True, "in_range": False}}, False),
            ({"checks": {"in_range": False}, "passed": True}, True),
            ({"passed": False}, False),
        ],
    )
    def test_a_validation_passes_by_its_checks(self, house: House, facts: dict[str, Any], passed: bool | None) -> None:
        """The verdict is the one given, or that of all checks together; without either it is not known."""
        with house.operations.operation("validation", dataset_name="d", **facts):
            pass
        (verdict,) = house.tracker.find("validation")
        assert verdict.attributes.get("passed") is passed
        assert house.only_edge().attributes.get("passed") is passed
        assert detail(verdict) == {None: "", True: "✓ passed", False: "✗ not passed"}[passed]

    @pytest.mark.parametrize(("found", "passed"), [(True, None), (False, False)])
    def test_a_validation_that_broke_off_has_not_passed(self, house: House, found: bool, passed: bool | None) -> None:
        """Checks that were still to come are open: one that found bad data decides, those that did not decide nothing."""
        with (
            pytest.raises(ValueError, match="lost"),
            house.operations.operation("validation", dataset_name="d", checks={"no_nulls": found}),
        ):
            raise ValueError("lost")
        assert house.tracker.find("validation")[0].attributes.get("passed") is passed

    @pytest.mark.parametrize(
        ("kind", "facts"),
        [
            ("ingestion", {"dataset_name": "d"}),
            ("validation", {}),
            ("feature_extraction", {"dataset_name": "d"}),
            ("feature_extraction", {"output_name": "f"}),
            ("training", {"model_name": "m", "dataset_version": "1"}),
            ("training", {"dataset_name": "d"}),
            ("deployment", {"environment": "production"}),
            ("prediction", {"model_name": "m"}),
            ("prediction", {"batch": "b"}),
            ("evaluation", {"model_name": "m", "dataset_name": "d"}),
            ("data_access", {"dataset_name": "d"}),
        ],
    )
    def test_who_does_not_say_enough_records_nothing(self, house: House, kind: str, facts: dict[str, str]) -> None:
        """Without the names of both ends there is no edge to record, and no failure either."""
        with house.operations.operation(kind, **facts):
            pass
        assert house.tracker.find() == []

    @pytest.mark.parametrize(
        ("error", "ended"),
        [(ValueError("no file"), "fail"), (KeyboardInterrupt(), "cancel"), (SystemExit(0), "cancel")],
    )
    def test_a_failure_leaves_a_failed_edge(self, house: House, error: BaseException, ended: str) -> None:
        """What failed or was cancelled is in the graph, marked, with its error and without its traceback."""
        with (
            pytest.raises(type(error)),
            house.operations.operation("ingestion", source_name="ADNI", dataset_name="visits"),
        ):
            raise error
        edge = house.only_edge()
        assert (edge.status, edge.attributes["ended"]) == ("failed", ended)
        assert edge.attributes["error"] == {"type": type(error).__name__, "message": str(error)}
        assert edge.attributes["duration_seconds"] >= 0

    def test_an_operation_left_by_an_earlier_process(self, house: House) -> None:
        """The end of an operation whose start was never seen here is recorded all the same."""
        facts = {"source_name": "ADNI", "earlier_process": True}
        house.bus.publish(
            OperationEvent(
                type="abandon",
                kind="ingestion",
                name="data_ingestion",
                operation_id="o1",
                run_id="r1",
                attributes=facts,
            )
        )
        edge = house.only_edge()
        assert (edge.status, edge.operation_id, edge.run_id) == ("failed", "o1", "r1")
        assert edge.attributes == {"ended": "abandon"}

    def test_single_predictions_are_no_batches(self, house: House) -> None:
        """A prediction by itself adds nothing; inside a batch it becomes a part of the batch."""
        house.operations.log_prediction(features=[1], decision="yes", model_name="m", model_version="1")
        with house.operations.operation("custom", "service"):
            house.operations.log_prediction(features=[1], decision="yes", model_name="m", model_version="1")
        assert house.tracker.find() == []
        with house.operations.operation("prediction", model_name="m", model_version="1", batch="june"):
            ids = [house.operations.log_prediction(features=[i], decision="no") for i in range(3)]
        assert [node.name for node in house.tracker.find("prediction")] == ids
        first = house.tracker.find("prediction", ids[0])[0]
        assert [node.type for node in house.tracker.upstream(first.node_id).nodes] == ["batch", "model"]

    def test_predictions_inside_a_batch_are_bounded(self, house: House) -> None:
        """Past a thousand predictions inside one operation, the batch says how many more there were."""
        with house.operations.operation("prediction", model_name="m", batch="june"):
            for index in range(1_002):
                house.operations.log_prediction(features=[index], decision="no")
        assert house.tracker.find("batch")[0].attributes == {"predictions_listed": 1_000, "predictions_left_out": 2}

    def test_tells_what_an_operation_recorded(self, house: House) -> None:
        """An automatic record is told as such, under its operation."""
        with house.operations.operation("ingestion", source_name="ADNI") as op:
            pass
        (event,) = house.told
        assert (event.automatic, event.operation_id, event.new_edges) == (True, op.operation_id, 1)


class TestCallsAndOperations:
    """A call and an operation that mean the same step."""

    def test_inside_its_operation(self, house: House) -> None:
        """The call is kept, under the operation; its end adds how it went, and nothing is said twice."""
        with house.operations.operation("training", dataset_name="unused", model_name="unused") as op:
            op.measure(auc=0.9)
            _, data = house.tracker.track_data_ingestion("s", "d")
            model = house.tracker.track_training(data, "m", "1", parameters={"trees": 5})
        edge = house.only_edge("training")
        assert (edge.operation_id, edge.run_id, edge.automatic) == (op.operation_id, op.run_id, False)
        assert edge.attributes["parameters"] == {"trees": 5}
        assert edge.attributes["ended"] == "complete"
        assert edge.attributes["metrics"] == {"auc": 0.9}
        assert house.names() == ["s", "d", "m 1"]
        assert house.tracker.node(model).name == "m"
        assert [event.kind for event in house.told] == ["ingestion", "training"]

    def test_the_operation_adds_facts_to_the_same_things(self, house: House) -> None:
        """What the operation knows and the call did not say goes to the node; what both say, the call says."""
        with house.operations.operation("training", dataset_name="d", model_name="m", model_type="forest") as op:
            op.measure(auc=0.5)
            _, data = house.tracker.track_data_ingestion("s", "d")
            model = house.tracker.track_training(data, "m", metrics={"auc": 0.9})
        assert house.tracker.node(model).attributes == {"metrics": {"auc": 0.9}, "model_type": "forest"}

    def test_in_a_step_of_another_kind_inside_it(self, house: House) -> None:
        """The call belongs to the nearest operation of its own kind around it."""
        with (
            house.operations.operation("ingestion", source_name="ADNI", dataset_name="visits") as outer,
            house.operations.operation("custom", "download"),
        ):
            house.tracker.track_data_ingestion("ADNI", "visits")
        assert house.only_edge().operation_id == outer.operation_id

    @pytest.mark.parametrize("status", ["complete", "failed"])
    def test_one_failure_said_three_times(self, house: House, status: Any) -> None:
        """An error call, a track call and an exception are one failed edge, whatever the track call says."""

        @house.operations.operation("ingestion", source_name="ADNI", dataset_name="visits")
        def ingest() -> None:
            house.operations.log_data_ingestion_error(error=TimeoutError("slow"))
            house.tracker.track_data_ingestion("ADNI", "visits", status=status)
            raise TimeoutError("slow")

        with pytest.raises(TimeoutError):
            ingest()
        edge = house.only_edge()
        assert (edge.status, edge.attributes["error"]["message"]) == ("failed", "slow")

    def test_a_failure_reaches_the_call_without_the_operation_naming_anything(self, house: House) -> None:
        """An operation that says nothing itself still marks what was said inside it."""

        @house.operations.operation("training")
        def train() -> None:
            _, data = house.tracker.track_data_ingestion("s", "d")
            house.tracker.track_training(data, "m")
            raise ValueError("bad")

        with pytest.raises(ValueError, match="bad"):
            train()
        edge = house.only_edge("training")
        assert edge.status == "failed"
        assert edge.attributes["error"] == {"type": "ValueError", "message": "bad"}
        assert house.only_edge("ingestion").status == "complete"

    def test_a_failed_operation_stays_failed(self, house: House) -> None:
        """A call after the failure does not turn it into a success."""
        failed = house.operations.log_data_ingestion_start("ADNI", "visits")
        house.operations.log_data_ingestion_error(failed, error="slow")
        house.tracker.track_data_ingestion("ADNI", "visits", 5, operation_id=failed)
        edge = house.only_edge()
        assert (edge.status, edge.attributes["records_count"]) == ("failed", 5)

    def test_what_a_call_says_failed_stays_failed(self, house: House) -> None:
        """An operation that ends well does not overrule a call that says its step failed."""
        with house.operations.operation("ingestion", source_name="ADNI", dataset_name="visits"):
            house.tracker.track_data_ingestion("ADNI", "visits", status="failed")
        assert house.only_edge().status == "failed"

    def test_after_its_operation(self, house: House) -> None:
        """A call right after the operation, naming the same things, joins its record."""
        done = house.operations.log_data_ingestion_start("ADNI", "visits")
        house.operations.log_data_ingestion_complete(done, records_count=5)
        house.tracker.track_data_ingestion("ADNI", "visits", reviewed=True)
        house.tracker.track_data_ingestion("ADNI", "visits", reviewed=True)
        edge = house.only_edge()
        assert (edge.operation_id, edge.automatic) == (done, False)
        assert (edge.attributes["reviewed"], edge.attributes["records_count"]) == (True, 5)

    def test_after_its_operation_within_a_run(self, house: House) -> None:
        """The same holds inside the operation around both."""
        with house.operations.operation("custom", "run"):
            with house.operations.operation("ingestion", source_name="ADNI", dataset_name="visits") as inner:
                pass
            house.tracker.track_data_ingestion("ADNI", "visits")
        assert house.only_edge().operation_id == inner.operation_id

    def test_beside_its_operation_before_the_end(self, house: House) -> None:
        """A call made elsewhere while the operation is open is joined by its end."""
        model = house.tracker.track_training(house.tracker.track_data_ingestion("s", "d")[1], "m", "1")
        with house.operations.operation("prediction", model_name="m", model_version="1", batch="june") as op:
            with ThreadPoolExecutor(1) as elsewhere:  # a thread without the operation's context
                call = functools.partial(house.tracker.track_inference, batch_name="june", prediction_ids=["p1"])
                batch = elsewhere.submit(call, model).result()
            assert {edge.operation_id for edge in house.edges()} == {None}
        assert house.only_edge("inference").operation_id == op.operation_id
        assert house.only_edge("inference").attributes["ended"] == "complete"
        assert house.only_edge("prediction").operation_id == op.operation_id
        assert house.only_edge("training").operation_id is None
        assert [node.node_id for node in house.tracker.find("batch")] == [batch]

    def test_a_call_before_the_operation_is_another_step(self, house: House) -> None:
        """What was said before an operation began is not about that operation."""
        house.tracker.track_data_ingestion("ADNI", "visits")
        with house.operations.operation("ingestion", source_name="ADNI", dataset_name="visits") as op:
            pass
        assert [edge.operation_id for edge in house.edges()] == [None, op.operation_id]

    def test_a_call_in_another_run_is_another_step(self, house: House) -> None:
        """The same names in the next run are the next run's step."""
        with house.operations.operation("ingestion", source_name="ADNI", dataset_name="visits") as first:
            pass
        with house.operations.operation("custom", "run") as second:
            house.tracker.track_data_ingestion("ADNI", "visits")
        assert [edge.operation_id for edge in house.edges()] == [first.operation_id, second.operation_id]

    def test_each_time_is_an_edge_of_its_own(self, house: House) -> None:
        """Two operations on the same things are two edges between the same nodes."""
        for _ in range(2):
            with house.operations.operation("ingestion", source_name="ADNI", dataset_name="visits"):
                house.tracker.track_data_ingestion("ADNI", "visits")
        assert len(house.edges()) == 2
        assert house.names() == ["ADNI", "visits"]

    def test_a_call_corrects_a_guess(self, house: House) -> None:
        """An operation that named only the source guessed the data set's name; the call's name replaces it."""
        done = house.operations.log_data_ingestion_start("ADNI")
        house.operations.log_data_ingestion_error(done, error="slow")
        house.tracker.track_data_ingestion("ADNI", "ADNI_2024", dataset_version="1")
        assert house.names() == ["ADNI", "ADNI_2024 1"]
        edge = house.only_edge()
        assert (edge.operation_id, edge.status) == (done, "failed")
        assert [event.new_edges for event in house.told] == [1, 0]

    def test_a_call_fills_in_a_version(self, house: House) -> None:
        """A failed training knows no version yet; the call that does names the same model."""
        _, data = house.tracker.track_data_ingestion("s", "d")
        failed = house.operations.log_training_start("m", dataset_name="d")
        house.operations.log_training_error(failed, error="diverged")
        house.tracker.track_training(data, "m", "1", status="failed")
        assert house.names("model") == ["m 1"]
        assert house.only_edge("training").operation_id == failed

    def test_a_call_that_names_another_thing_is_another_step(self, house: House) -> None:
        """Another version, another name or another input is not the step that the operation did."""
        _, data = house.tracker.track_data_ingestion("s", "d")
        _, other = house.tracker.track_data_ingestion("s", "other")
        with house.operations.operation("training", dataset_name="d", model_name="m", model_version="1"):
            pass
        house.tracker.track_training(data, "m", "2")
        house.tracker.track_training(data, "n", "1")
        house.tracker.track_training(other, "m", "1")
        assert len(house.edges("training")) == 4

    def test_naming_the_operation_replaces_its_record(self, house: House) -> None:
        """A call that names the operation is that operation's record, whatever the operation had named."""
        with house.operations.operation("training", dataset_name="d", model_name="m") as op:
            pass
        _, data = house.tracker.track_data_ingestion("s", "real")
        house.tracker.track_training(data, "better", operation_id=op.operation_id)
        edge = house.only_edge("training")
        assert (edge.source_id, edge.attributes["ended"]) == (data, "complete")
        assert house.names() == ["s", "real", "better"]

    def test_carried_into_a_thread(self, house: House) -> None:
        """A call in a pool that was given the context belongs to the operation it came from."""
        _, data = house.tracker.track_data_ingestion("s", "d")

        def train(version: str) -> str:
            return house.tracker.track_training(data, "m", version)

        with house.operations.operation("training") as op, ThreadPoolExecutor(2) as pool:
            carried: Callable[[str], str] = house.operations.carry(train)
            list(pool.map(carried, ["1", "2"]))
        assert {edge.operation_id for edge in house.edges("training")} == {op.operation_id}
        assert len(house.edges("training")) == 2

    def test_an_operation_that_this_process_never_saw(self, house: House) -> None:
        """In a worker process, the operation around a call is taken as the one that does it."""
        tracker = LineageTracker(house.store, Bus())
        with house.operations.operation("training") as op:
            tracker.track_training(house.tracker.track_data_ingestion("s", "d")[1], "m")
        assert house.only_edge("training").operation_id == op.operation_id
        assert house.only_edge("training").attributes["ended"] == "complete"

    def test_operations_that_never_end_are_forgotten(self, house: House) -> None:
        """Past ten thousand open operations the oldest is let go; its end is recorded all the same."""
        for index in range(10_001):
            house.bus.publish(OperationEvent(type="start", kind="custom", name="c", operation_id=f"c{index}"))
        facts = {"source_name": "ADNI"}
        house.bus.publish(
            OperationEvent(type="complete", kind="ingestion", name="i", operation_id="c0", attributes=facts)
        )
        assert house.only_edge().operation_id == "c0"
