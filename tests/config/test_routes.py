"""The table of routes tells the truth: each event moves the metrics, and writes the files, that its route declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from prometheus_client import CollectorRegistry

from ml_pipeline._tally import Tally
from ml_pipeline.config import _events, logging_config
from ml_pipeline.config._channels import channel_path
from ml_pipeline.config._events import (
    AlertEvent,
    AuditEvent,
    Bus,
    DriftEvent,
    ErrorInfo,
    Event,
    LineageEvent,
    LineageNode,
    OperationEvent,
    ResourceSample,
)
from ml_pipeline.config._metric_specs import FROM_TALLY, METRICS
from ml_pipeline.config._routes import OPERATIONS, OTHERS, Route
from ml_pipeline.config.prometheus_metrics import PipelineMetrics

LOGS = Path("ml_pipeline/logs")
OF_CALLS = {
    "alert_deliveries_total",
    "alert_delivery_seconds",
    "api_requests_total",
    "api_request_duration_seconds",
    "build_info",
}
"""Metrics that a method of `PipelineMetrics` moves, or nothing."""

FACTS = {"source_name": "ADNI", "model_name": "m", "model_version": "2", "environment": "production"}


def _operation(type_: Any, kind: Any, **known: Any) -> OperationEvent:
    known = {"operation_id": "op", "run_id": "run", "attributes": FACTS, "duration_seconds": 1.0, **known}
    return OperationEvent(type=type_, kind=kind, name=OPERATIONS[kind].name, **known)


def _whole_life(kind: str) -> list[Event]:
    """Every event that an operation of one kind can have, with everything that can be said of it."""
    checks = {**FACTS, "checks": {"missing": True, "range": False}}
    events: list[Event] = [
        _operation("start", kind, duration_seconds=None),
        _operation("progress", kind, counts={"done": 1, "total": 2, "epoch": 1}),
        _operation("complete", kind, attributes=checks, counts={"records": 5}, metrics={"roc_auc": 0.9}),
        _operation("start", kind, duration_seconds=None),
        _operation("fail", kind, attributes=checks, error=ErrorInfo("TimeoutError", "slow")),
        _operation("cancel", kind),
        _operation("abandon", kind, attributes={"earlier_process": True}, duration_seconds=None),
    ]
    if kind == "prediction":
        one = {**FACTS, "single": True, "decision": "AD"}
        events.append(_operation("complete", kind, attributes=one, metrics={"confidence": 0.9}))
    return events


def _alert(state: Any, **known: Any) -> AlertEvent:
    return AlertEvent(alert_id="a", state=state, kind="data_drift", severity="warning", message="m", **known)


LIVES: dict[str, tuple[Route, list[Event]]] = {
    **{kind: (route, _whole_life(kind)) for kind, route in OPERATIONS.items()},
    "AlertEvent": (OTHERS["AlertEvent"], [_alert("raised"), _alert("suppressed", reason="cooldown")]),
    "ResourceSample": (
        OTHERS["ResourceSample"],
        [
            ResourceSample(
                name="x",
                cpu_ratio=0.5,
                memory_bytes=1,
                memory_available_bytes=2,
                disk_free_bytes={"/": 3},
                read_bytes=4,
                written_bytes=5,
            )
        ],
    ),
    "DriftEvent": (
        OTHERS["DriftEvent"],
        [DriftEvent(model="m", batch="b", verdict="drift", rows=9, effects={"age": 0.5}, drifted=("age",))],
    ),
    "LineageEvent": (
        OTHERS["LineageEvent"],
        [
            LineageEvent(
                kind="training",
                nodes=(LineageNode(node_id="model:1", type="model", name="m"),),
                edges=(),
                new_nodes={"model": 1},
                new_edges=1,
                automatic=True,
            )
        ],
    ),
    "AuditEvent": (OTHERS["AuditEvent"], [AuditEvent(action="review")]),
}


def _values(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (family.name, (("sample", sample.name), *sorted(sample.labels.items()))): sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith("_created")
    }


@pytest.mark.parametrize("which", LIVES)
def test_an_event_moves_exactly_the_metrics_of_its_route(which: str) -> None:
    """The registry before and after differs in the declared metrics, all of them, and in no other."""
    route, events = LIVES[which]
    registry = CollectorRegistry()
    metrics = PipelineMetrics(registry, Tally())
    metrics(AuditEvent(action="first"))  # from here on, what is known beforehand exists at 0
    moved = set()
    for event in events:
        before = _values(registry)
        metrics(event)
        moved |= {name for name, labels in _moves(before, _values(registry))}
    names = {f"ml_pipeline_{name.removesuffix('_total')}" for name in set(route.metrics) - FROM_TALLY}
    assert moved == names


def _moves(before: dict[Any, float], after: dict[Any, float]) -> set[Any]:
    return {key for key, value in after.items() if value != before.get(key, 0.0)}


@pytest.mark.parametrize("which", LIVES)
def test_an_event_is_logged_in_the_channel_of_its_route(which: str) -> None:
    """Each event is a line in that file, failures also in errors.log, and audited where the table says so."""
    route, events = LIVES[which]
    bus = Bus()
    logging_config.subscribe_to(bus)
    for event in events:
        bus.publish(event)
    written = {
        str(path.relative_to(LOGS)): [json.loads(line) for line in path.read_bytes().splitlines()]
        for path in LOGS.rglob("*.log")
    }
    single = [event for event in events if isinstance(event, OperationEvent) and event.attributes.get("single")]
    ends = [event for event in events if isinstance(event, OperationEvent) and event.type not in ("start", "progress")]
    audited = len(ends) - len(single) if route.kind else 1
    expected = {channel_path(route.channel): len(events) - len(single)}
    expected |= {"audit.log": audited} if route.audited else {}
    expected |= {"inference/predictions.log": len(single)} if single else {}
    expected |= {"errors.log": 1} if route.kind else {}
    assert {name: len(lines) for name, lines in written.items()} == expected


def test_every_kind_and_event_has_a_route() -> None:
    """The table and the types know the same kinds and the same events."""
    assert set(OPERATIONS) == set(get_args(_events.Kind))
    assert all(route.kind == kind and route.event == "OperationEvent" for kind, route in OPERATIONS.items())
    types = {each.__name__ for each in get_args(Event)}
    assert set(OTHERS) == types - {"OperationEvent"}
    assert all(route.event == name and not route.kind for name, route in OTHERS.items())


def test_every_metric_has_a_source() -> None:
    """Each metric is moved by a route, read from the tally, or moved by a call of its own; no route names another."""
    of_routes = {name for route in (*OPERATIONS.values(), *OTHERS.values()) for name in route.metrics}
    assert of_routes <= set(METRICS)
    assert set(METRICS) == of_routes | set(FROM_TALLY) | OF_CALLS
    assert not OF_CALLS & of_routes


def test_every_channel_of_a_route_exists() -> None:
    """No event is sent to a channel that the channel table does not have."""
    assert all(channel_path(route.channel) for route in (*OPERATIONS.values(), *OTHERS.values()))


def test_every_failure_raises_an_alert_and_every_step_has_its_edge() -> None:
    """What the design promises of the table: failures alert, steps that make something are in the lineage."""
    assert {route.alert for route in OPERATIONS.values()} == {"processing_failure"}
    assert {kind: route.edge for kind, route in OPERATIONS.items() if route.edge} == {
        "ingestion": "ingestion",
        "validation": "validation",
        "feature_extraction": "transformation",
        "training": "training",
        "deployment": "deployment",
        "prediction": "inference",
    }
