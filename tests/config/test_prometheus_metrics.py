"""Metrics: the promised names and labels, the right values, within bounds, in text that every parser reads."""

from __future__ import annotations

import gc
import math
import socket
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

import ml_pipeline
from ml_pipeline._tally import Tally
from ml_pipeline.config._events import (
    AlertEvent,
    AuditEvent,
    Bus,
    DriftEvent,
    ErrorInfo,
    Event,
    LineageEvent,
    OperationEvent,
    ResourceSample,
)
from ml_pipeline.config._metric_specs import FROM_TALLY
from ml_pipeline.config._routes import OPERATIONS
from ml_pipeline.config.operation_logger import OperationLogger
from ml_pipeline.config.prometheus_metrics import (
    METRICS,
    MetricsServer,
    PipelineMetrics,
    pipeline_metrics,
    start_metrics_server,
)
from ml_pipeline.errors import SettingsError
from tests.support import require

PROMISED = """
operations_total{pipeline,kind,status} operation_duration_seconds{pipeline,kind} operations_in_progress{pipeline,kind}
operation_last_success_timestamp_seconds{pipeline,kind} operation_last_failure_timestamp_seconds{pipeline,kind}
operation_progress_ratio{pipeline,kind}
ingested_records_total{pipeline,source} ingestion_errors_total{pipeline,source,error}
validation_failures_total{pipeline,check} training_score{pipeline,model,metric} training_epoch{pipeline,model}
predictions_total{pipeline,model,version,decision} prediction_duration_seconds{pipeline,model}
prediction_confidence{pipeline,model} model_performance{pipeline,model,metric,basis} drift_checks_total{pipeline,verdict}
drift_effect{pipeline,feature} drift_detected{pipeline} drifted_features{pipeline}
quality_checks_total{pipeline,check,result} alerts_total{pipeline,kind,severity} alerts_active{pipeline,severity}
alerts_suppressed_total{pipeline,reason} alert_deliveries_total{channel,result} alert_delivery_seconds{channel}
lineage_nodes_total{type} lineage_edges_total{kind} log_records_total{channel,level} log_records_dropped_total{reason}
audit_records_total telemetry_errors_total{sink,error} api_requests_total{method,route,code}
api_request_duration_seconds{method,route} process_cpu_ratio{pipeline} process_resident_memory_bytes{pipeline}
system_memory_available_bytes disk_free_bytes{path} model_deployments_total{pipeline,model} build_info{version,python}
model_info{pipeline,model,version,stage} process_read_bytes{pipeline} process_written_bytes{pipeline}
"""


class Own:
    """Metrics in a registry of their own, fed by a bus of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.tally = Tally()
        self.metrics = PipelineMetrics(self.registry, self.tally)
        self.bus = Bus()
        self.bus.subscribe("metrics", self.metrics)
        self.log = OperationLogger(self.bus)

    def __call__(self, name: str, **labels: str) -> float | None:
        """Return the value of one series, of the pipeline ``test`` unless another is named."""
        spec = METRICS.get(name.removesuffix("_sum").removesuffix("_count").removesuffix("_bucket"))
        if spec is not None and "pipeline" in spec.labels:
            labels.setdefault("pipeline", "test")
        return self.registry.get_sample_value(f"ml_pipeline_{name}", labels)

    def series(self, name: str) -> list[dict[str, str]]:
        """Return the labels of every series of a metric."""
        return [
            sample.labels
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == f"ml_pipeline_{name}"
        ]


@pytest.fixture
def own() -> Own:
    """Metrics that no other test moves."""
    return Own()


def _end(type_: Any = "complete", kind: Any = "custom", **known: Any) -> OperationEvent:
    return OperationEvent(type=type_, kind=kind, name=kind, **{"duration_seconds": 0.3, **known})


def _alert(state: Any, alert_id: str = "a", severity: Any = "warning", **known: Any) -> AlertEvent:
    return AlertEvent(alert_id=alert_id, state=state, kind="data_drift", severity=severity, message="m", **known)


def test_the_promised_metrics_exist_with_exactly_these_labels(own: Own) -> None:
    """Boards and rules stand on names and labels: all of the promised ones, and nothing else."""
    promised = {}
    for each in PROMISED.split():
        name, _, labels = each.rstrip("}").partition("{")
        promised[name] = tuple(labels.split(",")) if labels else ()
    assert {name: spec.labels for name, spec in METRICS.items()} == promised
    assert len(METRICS) >= 30
    assert all(spec.help.endswith(".") for spec in METRICS.values())
    assert not [name for name, spec in METRICS.items() if spec.type == "gauge" and name.endswith(("_count", "_total"))]
    registered = {family.name.removeprefix("ml_pipeline_"): family for family in own.registry.collect()}
    assert set(registered) == {name.removesuffix("_total") for name in METRICS}
    for name, spec in METRICS.items():
        family = registered[name.removesuffix("_total")]
        assert (family.type, family.documentation) == (spec.type, spec.help)


def test_two_sets_of_metrics_are_apart(own: Own) -> None:
    """A second pipeline builds its own in its own registry; the default ones are in prometheus-client's."""
    other = Own()
    own.bus.publish(_end())
    assert own("operations_total", kind="custom", status="complete") == 1
    assert other("operations_total", kind="custom", status="complete") is None
    assert pipeline_metrics.registry is REGISTRY
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        PipelineMetrics(own.registry)


def test_known_counters_are_0_from_a_pipelines_first_event_on(own: Own) -> None:
    """The first failure, alert or drift of a pipeline is an increase, not a birth at 1."""
    own.bus.publish(AuditEvent(action="anything", pipeline="adni"))
    for kind in OPERATIONS:
        for status in ("complete", "fail", "cancel", "abandon"):
            assert own("operations_total", pipeline="adni", kind=kind, status=status) == 0
        assert own("operation_duration_seconds_count", pipeline="adni", kind=kind) == 0
        assert own("operations_in_progress", pipeline="adni", kind=kind) == 0
    for severity in ("info", "warning", "critical"):
        assert own("alerts_active", pipeline="adni", severity=severity) == 0
        for kind in ("processing_failure", "resource_threshold", "data_quality", "model_performance", "data_drift"):
            assert own("alerts_total", pipeline="adni", kind=kind, severity=severity) == 0
    for verdict in ("drift", "no_drift", "insufficient_data"):
        assert own("drift_checks_total", pipeline="adni", verdict=verdict) == 0
    assert own("alerts_suppressed_total", pipeline="adni", reason="cooldown") == 0
    for edge in ("ingestion", "validation", "transformation", "training", "deployment", "inference"):
        assert own("lineage_edges_total", kind=edge) == 0
    assert own("audit_records_total") == 0


@pytest.mark.parametrize("how", ["complete", "fail", "cancel", "abandon", "refused"])
def test_in_progress_returns_to_0_after_every_end(own: Own, how: str) -> None:
    """Whichever way an operation ends, nothing stays in progress, and one end is counted."""
    errors: dict[str, Any] = {"fail": ValueError, "cancel": KeyboardInterrupt}

    def refuse(event: Event) -> None:
        if how == "refused" and isinstance(event, OperationEvent) and event.type == "start":
            raise OSError("sink")

    own.bus.subscribe("refusing", refuse)
    if how == "abandon":
        own.log.log_training_start("m")
        assert own("operations_in_progress", kind="training") == 1
        own.log._operations._abandon_open()
    else:
        try:
            with own.log.operation("training"):
                assert own("operations_in_progress", kind="training") == 1
                if how in errors:
                    raise errors[how]
        except (ValueError, KeyboardInterrupt, OSError):
            pass
    assert own("operations_in_progress", kind="training") == 0
    status = "cancel" if how == "refused" else how
    assert own("operations_total", kind="training", status=status) == 1


def test_the_end_of_an_operation_of_an_earlier_process(own: Own) -> None:
    """It is counted as abandoned, and was never in progress here."""
    own.bus.publish(_end("abandon", attributes={"earlier_process": True}, duration_seconds=None))
    assert own("operations_total", kind="custom", status="abandon") == 1
    assert own("operations_in_progress", kind="custom") == 0


def test_durations_and_success(own: Own) -> None:
    """Completed and failed operations have a duration; each moves the time of its own kind of end."""
    own.bus.publish(_end(time=1705314625.5))
    own.bus.publish(_end("fail", duration_seconds=3.0, time=1705314700.0))
    own.bus.publish(_end("cancel", duration_seconds=9.0))
    assert own("operation_duration_seconds_count", kind="custom") == 2
    assert own("operation_duration_seconds_sum", kind="custom") == pytest.approx(3.3)
    assert own("operation_duration_seconds_bucket", kind="custom", le="0.5") == 1
    assert own("operation_last_success_timestamp_seconds", kind="custom") == 1705314625.5
    assert own("operation_last_failure_timestamp_seconds", kind="custom") == 1705314700.0


@pytest.mark.parametrize(
    ("counts", "ratio"),
    [
        ({"done": 1, "total": 4}, 0.25),
        ({"done": 9, "total": 4}, 1.0),
        ({"done": -1, "total": 4}, 0.0),
        ({"done": 1, "total": 0}, 0.0),
        ({"done": 1}, 0.0),
    ],
)
def test_progress_is_a_ratio(own: Own, counts: dict[str, float], ratio: float) -> None:
    """Progress lies between 0 and 1, starts at 0, and ends at 1."""
    own.bus.publish(_end("start", duration_seconds=None))
    own.bus.publish(_end("progress", counts=counts))
    assert own("operation_progress_ratio", kind="custom") == ratio
    own.bus.publish(_end())
    assert own("operation_progress_ratio", kind="custom") == 1


def test_ingestion(own: Own) -> None:
    """Records by source; errors by source and exception; a text as error is ``unknown``."""
    own.bus.publish(_end(kind="ingestion", attributes={"source_name": "ADNI"}, counts={"records": 5000}))
    own.bus.publish(_end("fail", "ingestion", attributes={"source_name": "ADNI"}, error=ErrorInfo("TimeoutError", "m")))
    own.bus.publish(_end("fail", "ingestion", attributes={"source_name": "ADNI"}, error=ErrorInfo("", "text")))
    own.bus.publish(_end("fail", "ingestion"))
    assert own("ingested_records_total", source="ADNI") == 5000
    assert own("ingestion_errors_total", source="ADNI", error="TimeoutError") == 1
    assert own("ingestion_errors_total", source="ADNI", error="unknown") == 1
    assert own("ingestion_errors_total", source="", error="unknown") == 1


def test_validation(own: Own) -> None:
    """Each check is counted by its result; a failure that never happened is known at 0."""
    own.bus.publish(_end(kind="validation", attributes={"checks": {"missing": True, "range": False}}))
    own.bus.publish(_end(kind="validation", attributes={"checks": "none"}))
    assert own("quality_checks_total", check="missing", result="pass") == 1
    assert own("quality_checks_total", check="range", result="fail") == 1
    assert (own("validation_failures_total", check="missing"), own("validation_failures_total", check="range")) == (
        0,
        1,
    )


def test_training_and_evaluation(own: Own) -> None:
    """Epochs while it runs, scores at its end; an evaluation is realised performance unless it says so."""
    model = {"model_name": "m"}
    own.bus.publish(_end("progress", "training", attributes=model, counts={"epoch": 3, "done": 3, "total": 10}))
    own.bus.publish(_end(kind="training", attributes=model, metrics={"roc_auc": 0.92}))
    own.bus.publish(_end("fail", "training", attributes=model, metrics={"loss": 9.0}))
    own.bus.publish(_end(kind="evaluation", attributes=model, metrics={"recall": 0.8}))
    own.bus.publish(_end(kind="evaluation", attributes={**model, "basis": "estimated"}, metrics={"recall": 0.7}))
    own.bus.publish(_end("fail", "evaluation", attributes=model, metrics={"precision": 0.1}))
    assert own("training_epoch", model="m") == 3
    assert own.series("training_score") == [{"pipeline": "test", "model": "m", "metric": "roc_auc"}]
    assert own("training_score", model="m", metric="roc_auc") == 0.92
    assert own("model_performance", model="m", metric="recall", basis="realised") == 0.8
    assert own("model_performance", model="m", metric="recall", basis="estimated") == 0.7
    assert len(own.series("model_performance")) == 2


def test_deployment_shows_one_version_a_stage(own: Own) -> None:
    """`model_info` names the version in use; the one before it is gone; failed deployments change nothing."""
    for version in ("1", "1", "2"):
        facts = {"model_name": "m", "model_version": version, "environment": "production"}
        own.bus.publish(_end(kind="deployment", attributes=facts))
    own.bus.publish(_end("fail", "deployment", attributes={**facts, "model_version": "3"}))
    own.bus.publish(_end(kind="deployment", attributes={**facts, "environment": "staging"}))
    assert own("model_deployments_total", model="m") == 4
    assert sorted((each["stage"], each["version"]) for each in own.series("model_info")) == [
        ("production", "2"),
        ("staging", "2"),
    ]


def test_a_thousand_deployments_are_no_reason_for_other(own: Own) -> None:
    """Versions that are gone do not count towards the bound of series."""
    for version in range(1_100):
        own.bus.publish(_end(kind="deployment", attributes={"model_name": "m", "model_version": version}))
    assert [each["version"] for each in own.series("model_info")] == ["1099"]


def test_a_quantity_is_no_class(own: Own) -> None:
    """Decisions of a regression count together, without a label value each; text, integers and flags are classes."""
    quantities: list[Any] = [113.01, np.float64(7.5), np.float32(0.25), float("nan"), 1.0]
    classes: list[Any] = ["AD", 1, np.int64(2), True, np.bool_(False)]
    for decision in quantities + classes:
        own.log.log_prediction(features=[1], decision=decision, model_name="m")
    counted = {series["decision"]: own("predictions_total", **series) for series in own.series("predictions_total")}
    assert counted == {"": 5, "AD": 1, "1": 1, "2": 1, "True": 1, "False": 1}


def test_models_are_bounded(own: Own) -> None:
    """Past a thousand models, new versions of the others are one series."""
    for number in range(1_002):
        for version in ("1", "2"):
            facts = {"model_name": f"m{number}", "model_version": version}
            own.bus.publish(_end(kind="deployment", attributes=facts))
    assert len(own.series("model_info")) == 1_001
    assert own("model_info", model="other", version="other", stage="other") == 1


def test_predictions(own: Own) -> None:
    """Single predictions count by decision, with their confidence; a batch has a duration; neither is the other."""
    with own.log.operation("prediction", model_name="m", model_version="2"):
        own.log.log_prediction(features=[1], decision="AD", confidence=0.9)
        own.log.log_prediction(features=[1], decision=1)
        own.log.log_prediction(features=[1], decision="AD", confidence=float("nan"))
    assert own("predictions_total", model="m", version="2", decision="AD") == 2
    assert own("predictions_total", model="m", version="2", decision="1") == 1
    assert (own("prediction_confidence_count", model="m"), own("prediction_confidence_sum", model="m")) == (1, 0.9)
    assert own("prediction_duration_seconds_count", model="m") == 1
    assert own("operations_total", kind="prediction", status="complete") == 1


def test_alerts(own: Own) -> None:
    """Raised alerts are active until they are resolved, under the severity they have now, and never below none."""
    for state in ("raised", "suppressed", "refined", "raised"):
        own.bus.publish(_alert(state, reason="cooldown" if state == "suppressed" else ""))
    assert own("alerts_total", kind="data_drift", severity="warning") == 2
    assert own("alerts_suppressed_total", reason="cooldown") == 1
    assert own("alerts_active", severity="warning") == 1
    own.bus.publish(_alert("refined", severity="critical"))
    assert (own("alerts_active", severity="warning"), own("alerts_active", severity="critical")) == (0, 1)
    for _ in range(2):
        own.bus.publish(_alert("resolved", severity="critical"))
    own.bus.publish(_alert("resolved", "of an earlier process"))
    own.bus.publish(_alert("refined", "of an earlier process"))
    assert [own("alerts_active", severity=each) for each in ("info", "warning", "critical")] == [0, 0, 0]


def test_an_alert_raised_anew_is_one_active_alert(own: Own) -> None:
    """After its cooldown an alert of the same identity is raised under another id, and takes the place of the first."""
    own.bus.publish(_alert("raised", "first"))
    own.bus.publish(_alert("raised", "second"))
    assert own("alerts_active", severity="warning") == 1
    own.bus.publish(_alert("resolved", "second"))
    assert own("alerts_active", severity="warning") == 0


def test_drift(own: Own) -> None:
    """A verdict moves the gauges; too little data counts as a check and leaves them."""
    drift = {"model": "m", "batch": "b", "rows": 9}
    own.bus.publish(DriftEvent(verdict="drift", effects={"age": 0.5, "sex": 0.1}, drifted=("age",), **drift))  # type: ignore[arg-type]
    own.bus.publish(DriftEvent(verdict="insufficient_data", **drift))  # type: ignore[arg-type]
    assert (own("drift_detected"), own("drifted_features"), own("drift_effect", feature="age")) == (1, 1, 0.5)
    assert own("drift_checks_total", verdict="drift") == own("drift_checks_total", verdict="insufficient_data") == 1
    own.bus.publish(DriftEvent(verdict="no_drift", **drift))  # type: ignore[arg-type]
    assert (own("drift_detected"), own("drifted_features")) == (0, 0)


def test_resources_lineage_delivery_and_requests(own: Own) -> None:
    """The other events and calls move theirs."""
    own.bus.publish(
        ResourceSample(
            name="x",
            cpu_ratio=1.5,
            memory_bytes=10,
            memory_available_bytes=20,
            disk_free_bytes={"/": 30},
            read_bytes=40,
            written_bytes=50,
        )
    )
    own.bus.publish(LineageEvent(kind="training", nodes=(), edges=(), new_nodes={"model": 1}, new_edges=2))
    own.metrics.alert_delivered("email", "sent", 1.5)
    own.metrics.alert_delivered("email", "failed", 9.0)
    own.metrics.api_request("POST", "/predict/{model}", 200, 0.01)
    assert (own("process_cpu_ratio"), own("process_resident_memory_bytes")) == (1.5, 10)
    assert (own("system_memory_available_bytes"), own("disk_free_bytes", path="/")) == (20, 30)
    assert (own("process_read_bytes"), own("process_written_bytes")) == (40, 50)
    assert (own("lineage_nodes_total", type="model"), own("lineage_edges_total", kind="training")) == (1, 2)
    assert own("alert_deliveries_total", channel="email", result="failed") == 1
    assert own("alert_delivery_seconds_sum", channel="email") == 1.5
    assert own("api_requests_total", method="POST", route="/predict/{model}", code="200") == 1
    assert own("api_request_duration_seconds_count", method="POST", route="/predict/{model}") == 1
    assert own.series("build_info")[0]["version"] == ml_pipeline.__version__


def test_counts_of_hot_paths_are_read_when_asked_for(own: Own) -> None:
    """What is counted in plain integers is in the exposition, by its labels."""
    own.tally.log_records["training.model_training", "INFO"] += 3
    own.tally.log_records_dropped["OSError"] += 1
    own.tally.audit_records += 2
    own.tally.count_error("alerting", "TimeoutError")
    assert own("log_records_total", channel="training.model_training", level="INFO") == 3
    assert own("log_records_dropped_total", reason="OSError") == 1
    assert own("audit_records_total") == 2
    assert own("telemetry_errors_total", sink="alerting", error="TimeoutError") == 1
    assert {name for name, spec in METRICS.items() if name in FROM_TALLY and spec.type == "counter"} == set(FROM_TALLY)


@pytest.mark.parametrize("count", [math.nan, math.inf, -math.inf, -5])
def test_no_value_spoils_a_counter_for_ever(own: Own, count: float) -> None:
    """A NaN or an infinity is not added; what comes after is counted as ever."""
    for records in (count, 5):
        own.bus.publish(_end(kind="ingestion", attributes={"source_name": "s"}, counts={"records": records}))
        own.bus.publish(_end(kind="prediction", attributes={"single": True}, metrics={"confidence": 0.5}))
        if not math.isfinite(count):
            own.bus.publish(_end(kind="prediction", attributes={"single": True}, metrics={"confidence": count}))
    assert own("ingested_records_total", source="s") == 5
    assert own("prediction_confidence_sum", model="") == 1


def test_label_values_are_bounded(own: Own) -> None:
    """Past a thousand series of one metric, what is new is counted under ``other``, beside its pipeline."""
    for number in range(1_200):
        own.bus.publish(_end(kind="prediction", attributes={"single": True, "decision": number}))
        own.metrics.api_request("GET", f"/{number}", 200, 0.01)
        own.bus.publish(LineageEvent(kind="x", nodes=(), edges=(), new_nodes={f"type {number}": 1}))
    assert len(own.series("predictions_total")) == 1_001
    assert own("predictions_total", model="other", version="other", decision="other") == 200
    assert own("predictions_total", model="", version="", decision="7") == 1
    assert len(own.series("api_requests_total")) == 1_001
    assert own("api_requests_total", method="other", route="other", code="other") == 200
    assert own("lineage_nodes_total", type="other") == 200
    assert own("operations_total", kind="custom", status="fail") == 0


def test_pipelines_are_bounded(own: Own) -> None:
    """Past twenty pipelines, the others share the name ``other``, and keep kind and status."""
    for number in range(60):
        own.bus.publish(_end("fail", pipeline=f"p{number}"))
    assert len({each["pipeline"] for each in own.series("operations_total")}) == 21
    assert own("operations_total", pipeline="other", kind="custom", status="fail") == 40
    assert own("operations_total", pipeline="p19", kind="custom", status="fail") == 1


def test_counts_of_hot_paths_are_bounded_too(own: Own) -> None:
    """However many DAGs have a channel, the exposition has a thousand series of them and one for the others."""
    for number in range(1_500):
        own.tally.log_records[f"airflow.dag_{number}", "INFO"] += 1
    assert len(own.series("log_records_total")) == 1_001
    assert own("log_records_total", channel="other", level="other") == 500


def test_active_alerts_are_bounded(own: Own) -> None:
    """Ten thousand alerts are tracked; those past them are counted as raised."""
    for number in range(10_005):
        own.metrics(_alert("raised", str(number), operation=f"step {number}"))
    assert own("alerts_active", severity="warning") == 10_000
    assert own("alerts_total", kind="data_drift", severity="warning") == 10_005


class Evil:
    """An object that refuses to be printed."""

    def __repr__(self) -> str:
        raise RuntimeError("evil")


hostile = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=30),
    st.sampled_from(['a"b', "a\\", "a\nb", "\ud800", "x" * 1_000_000, "a}b", "# EOF", "\u2028", "a,b=", "\r"]),
    st.builds(Evil),
    st.binary(max_size=5),
    st.floats(),
    st.none(),
)


def _openmetrics(own: Own) -> list[Any]:
    text = generate_openmetrics(own.registry).decode("utf-8")  # type: ignore[no-untyped-call]
    return list(parse_openmetrics(text))  # type: ignore[no-untyped-call]


def _samples(families: Any) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(f"{key}={value}" for key, value in sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_created") and "timestamp" not in sample.name
    }


@settings(max_examples=40, deadline=None)
@example(values=['a"b', "a\\", "a\nb", "\ud800"], pipeline="\r")
@example(values=["# EOF", "a}b", "\u2028\x85", "a,b="], pipeline="x" * 1_000_000)
@given(values=st.lists(hostile, min_size=4, max_size=4), pipeline=st.text(st.characters(exclude_categories=())))
def test_the_exposition_parses_with_hostile_labels(values: list[Any], pipeline: str) -> None:
    """Under the strict OpenMetrics parser and the classic one, every series comes back as it is."""
    own = Own()
    model, version, decision, source = values
    facts = {"model_name": model, "model_version": version, "environment": source}
    checks = {value: False for value in values if isinstance(value, str)}
    for event in (
        _end(kind="ingestion", attributes={"source_name": source}, counts={"records": 1}, run_id="run"),
        _end(kind="deployment", attributes=facts),
        _end(kind="prediction", attributes={**facts, "single": True, "decision": decision}),
        _end(kind="validation", attributes={"checks": checks}),
        _end("fail", "ingestion", attributes={"source_name": source}, pipeline=pipeline, error=ErrorInfo(pipeline, "")),
        LineageEvent(kind=pipeline, nodes=(), edges=(), new_edges=1),
    ):
        own.bus.publish(event)
    own.tally.log_records[pipeline, pipeline] += 1
    own.tally.count_error(pipeline, pipeline)
    written = _samples(own.registry.collect())
    assert all(len(part) < 160 for key in written for part in key)
    assert _samples(_openmetrics(own)) == written
    assert _samples(parse_classic(generate_latest(own.registry).decode("utf-8"))) == written


def test_exemplars_carry_the_ids(own: Own) -> None:
    """From a bar of a histogram one finds the operation and the run behind it."""
    with own.log.operation("prediction", model_name="m") as op:
        own.log.log_prediction(features=[1], decision=1, confidence=0.7)
    found = {
        sample.name: sample.exemplar.labels
        for family in _openmetrics(own)
        for sample in family.samples
        if sample.exemplar
    }
    ids = {"operation_id": op.operation_id, "run_id": op.run_id}
    assert found == {
        "ml_pipeline_operation_duration_seconds_bucket": ids,
        "ml_pipeline_prediction_duration_seconds_bucket": ids,
        "ml_pipeline_prediction_confidence_bucket": ids,
    }


def _everything(own: Own) -> None:
    for kind in OPERATIONS:
        for type_ in ("start", "progress", "complete", "fail"):
            facts = {"model_name": "m", "source_name": "s", "checks": {"a": False}}
            own.bus.publish(_end(type_, kind, attributes=facts, counts={"epoch": 1}, metrics={"x": 1.0}))
    own.bus.publish(_end(kind="prediction", attributes={"single": True}, metrics={"confidence": 0.5}))
    own.bus.publish(_alert("raised"))
    own.bus.publish(DriftEvent(model="m", batch="b", verdict="drift", rows=1, effects={"a": 0.5}, drifted=("a",)))
    own.bus.publish(LineageEvent(kind="training", nodes=(), edges=(), new_nodes={"model": 1}, new_edges=1))
    own.bus.publish(
        ResourceSample(name="x", cpu_ratio=1, memory_bytes=1, memory_available_bytes=1, disk_free_bytes={"/": 1})
    )
    own.metrics.alert_delivered("email", "sent", 1.0)
    own.metrics.api_request("GET", "/", 200, 0.1)
    own.tally.log_records["a", "INFO"] += 1
    own.tally.log_records_dropped["x"] += 1
    own.tally.count_error("a", "b")


def test_promtool_has_nothing_to_say(own: Own) -> None:
    """Prometheus's own linter finds no fault with names, types or help of any metric."""
    promtool = require("promtool")
    _everything(own)
    assert {name.removesuffix("_total") for name in METRICS} == {
        family.name.removeprefix("ml_pipeline_") for family in own.registry.collect() if family.samples
    }
    done = subprocess.run(
        [promtool, "check", "metrics"], input=generate_latest(own.registry), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_threads_count_exactly(own: Own) -> None:
    """Eight threads that begin and end operations at once lose no end, and nothing stays in progress."""

    def work() -> None:
        for _ in range(200):
            with own.log.operation("custom"):
                pass

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert own("operations_total", kind="custom", status="complete") == 1_600
    assert own("operation_duration_seconds_count", kind="custom") == 1_600
    assert own("operations_in_progress", kind="custom") == 0


@pytest.fixture
def server(own: Own) -> Iterator[MetricsServer]:
    """A running endpoint on a free port."""
    server = start_metrics_server(0, registry=own.registry)
    yield server
    server.close()


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode("utf-8")
    return text


def test_the_server_serves_what_is_there_now(own: Own, server: MetricsServer) -> None:
    """On loopback by default, with the values of the moment."""
    own.bus.publish(_end())
    assert server.url.startswith("http://127.0.0.1:")
    assert 'ml_pipeline_operations_total{kind="custom",pipeline="test",status="complete"} 1.0\n' in _get(server.url)


def test_a_taken_port_is_one_clear_error(own: Own, server: MetricsServer) -> None:
    """The rule, the port and the remedy; nothing is left running."""
    port = int(server.url.split(":")[2].partition("/")[0])
    before = threading.active_count()
    with pytest.raises(SettingsError) as caught:
        start_metrics_server(port, registry=own.registry)
    assert str(caught.value) == (
        f"the metrics port must be free and 127.0.0.1 an address of this machine (got {port}); "
        "choose another (Address already in use)"
    )
    assert threading.active_count() == before
    del caught
    gc.collect()


@pytest.mark.parametrize("port", [-1, 65_536, 10**6])
def test_a_port_out_of_range_is_one_clear_error(port: int) -> None:
    """The rule, the port and the remedy."""
    with pytest.raises(SettingsError) as caught:
        start_metrics_server(port)
    assert str(caught.value) == f"a port must lie between 1 and 65535 (got {port}); choose another"


@pytest.mark.parametrize("host", ["203.0.113.1", "a" * 70])
def test_a_host_that_is_not_ours_is_one_clear_error(host: str) -> None:
    """An address of another machine, or a name nobody can resolve, is told like a taken port."""
    with pytest.raises(SettingsError) as caught:
        start_metrics_server(0, host)
    assert str(caught.value).startswith(
        f"the metrics port must be free and {host} an address of this machine (got 0); "
    )


def test_without_a_port_the_settings_decide(own: Own) -> None:
    """Port and host come from the settings; with neither, the error says which to set."""
    with pytest.raises(SettingsError) as caught:
        start_metrics_server()
    assert str(caught.value) == "a metrics server needs a port; give one, or set ML_PIPELINE_METRICS_PORT"
    with socket.socket() as probe:
        probe.bind(("127.0.0.2", 0))
        port = probe.getsockname()[1]
    ml_pipeline.configure(metrics_port=port, metrics_host="127.0.0.2")
    server = start_metrics_server(registry=own.registry)
    try:
        assert server.url == f"http://127.0.0.2:{port}/metrics"
        assert "ml_pipeline_build_info" in _get(server.url)
    finally:
        server.close()


def test_close_frees_the_port_and_ends_the_thread(own: Own) -> None:
    """After `close`, also said twice, the port can be taken again at once."""
    before = threading.active_count()
    server = start_metrics_server(0, registry=own.registry)
    port = int(server.url.split(":")[2].partition("/")[0])
    server.close()
    server.close()
    assert threading.active_count() == before
    again = start_metrics_server(port, registry=own.registry)
    again.close()


def test_an_ipv6_address_is_written_as_urls_want_it(own: Own) -> None:
    """The address of an IPv6 host stands in brackets."""
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6")
    server = start_metrics_server(0, "::1", own.registry)
    assert server.url.startswith("http://[::1]:")
    server.close()
