"""Metrics for Prometheus: one class that declares them all, fed by the event bus.

The default instance registers with prometheus-client's own ``REGISTRY``, so that an application that already serves
``/metrics`` serves these too. Where it does not, `start_metrics_server` does.
"""

from __future__ import annotations

import math
import platform
from dataclasses import replace
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Final, TypeVar

from prometheus_client import REGISTRY, CollectorRegistry

from ml_pipeline import __version__, _runtime
from ml_pipeline.config._events import (
    AlertEvent,
    AuditEvent,
    Bus,
    DriftEvent,
    Event,
    LineageEvent,
    OperationEvent,
    ResourceSample,
)
from ml_pipeline.config._metric_failures import OpenFailures
from ml_pipeline.config._metric_series import MOST_SERIES, OTHER, TallyCollector, declared, identity_of, label
from ml_pipeline.config._metric_specs import FROM_TALLY, METRICS, MetricSpec
from ml_pipeline.config._metrics_server import MetricsServer, start_metrics_server
from ml_pipeline.config._push import MetricsPusher, push_metrics
from ml_pipeline.config._routes import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "METRICS",
    "MetricSpec",
    "MetricsPusher",
    "MetricsServer",
    "PipelineMetrics",
    "pipeline_metrics",
    "push_metrics",
    "start_metrics_server",
]

E = TypeVar("E", bound=Event)

_MOST_PIPELINES: Final = 20
"""Of one process; the metrics of further ones have the pipeline ``other``."""
_MOST_ACTIVE_ALERTS: Final = 10_000

_ENDS: Final = ("complete", "fail", "cancel", "abandon")
_STILL_OPEN: Final = ("refined", "acknowledged", "escalated")
_SUPPRESSED_BECAUSE: Final = ("cooldown", "silence", "inhibition")
_ESTIMATED: Final = "estimated"
_ALERT_KINDS: Final = ("processing_failure", "resource_threshold", "data_quality", "model_performance", "data_drift")
_SEVERITIES: Final = ("info", "warning", "critical")
_VERDICTS: Final = ("drift", "no_drift", "insufficient_data")
_EDGES: Final = tuple(sorted({route.edge for route in OPERATIONS.values()} - {""}))


class PipelineMetrics:
    """All metrics of the package, in one registry, and the rules by which events move them.

    Thread-safe. Label sets that are known beforehand exist at 0 from a pipeline's first event on, because a counter
    that is born at 1 never satisfies ``increase() > 0``. Children are kept, and their number is bounded.

    Args:
        registry: Where to register.
        tally: Plain integers that some of the counters are read from.
        failures: Remembers what failed in earlier processes.

    Raises:
        ValueError: If *registry* already holds these metrics.
    """

    def __init__(
        self,
        registry: CollectorRegistry = REGISTRY,
        tally: _runtime.Tally = _runtime.tally,
        failures: OpenFailures | None = None,
    ) -> None:
        self.registry = registry
        self._failures = failures or OpenFailures()
        self._metrics: dict[str, Any] = {
            name: declared(spec, registry) for name, spec in METRICS.items() if name not in FROM_TALLY
        }
        self._children: dict[tuple[str, ...], Any] = {}
        self._series: dict[str, int] = dict.fromkeys(METRICS, 0)
        self._prepared: set[str] = set()
        self._stages: dict[tuple[str, str, str], str] = {}
        self._active: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._latest: dict[tuple[str, ...], str] = {}
        registry.register(TallyCollector(tally))
        self._child("build_info", __version__, platform.python_version()).set(1)

    def __call__(self, event: Event) -> None:
        """Move the metrics of one event."""
        if event.pipeline not in self._prepared:
            event = self._admitted(event)
        match event:
            case OperationEvent():
                self._operation(event)
            case AlertEvent():
                self._alert(event)
            case ResourceSample():
                self._resources(event)
            case DriftEvent():
                self._drift(event)
            case LineageEvent():
                self._lineage(event)

    def takes(self, kind: type[Event]) -> bool:
        """Say whether events of a type move anything: audit records are counted in the tally, once on disk."""
        return kind is not AuditEvent or _runtime.settings().name not in self._prepared

    def alert_is_open(self, alert: AlertEvent) -> None:
        """Count an alert that an earlier process or another one raised among those that are active.

        Args:
            alert: As it stands now; one that is known changes nothing, unless its severity is another one now.
        """
        if self._active.get(alert.alert_id, ("",))[0] != alert.severity:
            event = alert if alert.pipeline in self._prepared else self._admitted(alert)
            self._no_longer_active(event.alert_id)
            self._is_active(event.alert_id, event.severity, identity_of(event))

    def alert_is_over(self, alert_id: str) -> None:
        """Take an alert that another process resolved from those that are active.

        Args:
            alert_id: The alert; one that is not known changes nothing.
        """
        self._no_longer_active(alert_id)

    def alert_channels(self, names: Iterable[str]) -> None:
        """Have what is delivered through these channels counted from 0 on."""
        for name in names:
            self._child("alert_delivery_seconds", name)
            for result in ("sent", "failed", "dead"):
                self._child("alert_deliveries_total", name, result)

    def alert_delivered(self, channel: str, result: str, seconds: float) -> None:
        """Count one attempt to deliver an alert.

        Args:
            channel: Such as ``email``.
            result: ``sent``, ``failed`` or ``dead``.
            seconds: From raising the alert until now.
        """
        self._child("alert_deliveries_total", channel, result).inc()
        if result == "sent":
            self._child("alert_delivery_seconds", channel).observe(seconds)

    def api_request(self, method: str, route: str, code: int, seconds: float) -> None:
        """Count one request to a prediction service.

        Args:
            method: Such as ``POST``.
            route: The route's pattern, not its path: ``/models/{name}``.
            code: HTTP status.
            seconds: How long it took.
        """
        self._child("api_requests_total", method, route, str(code)).inc()
        self._child("api_request_duration_seconds", method, route).observe(seconds)

    def _child(self, name: str, *labels: object) -> Any:
        key = (name, *map(label, labels))
        child = self._children.get(key)
        return child if child is not None else self._new_child(name, key)

    def _new_child(self, name: str, key: tuple[str, ...]) -> Any:
        labels = key[1:]
        if self._series[name] >= MOST_SERIES:
            labels = tuple(
                value if name_of == "pipeline" else OTHER
                for name_of, value in zip(METRICS[name].labels, labels, strict=True)
            )
        child = self._metrics[name].labels(*labels) if labels else self._metrics[name]
        if self._series[name] < MOST_SERIES:
            self._series[name] += 1
            self._children[key] = child
        return child

    def _remove(self, name: str, *labels: object) -> None:
        key = (name, *map(label, labels))
        if self._children.pop(key, None) is not None:
            self._metrics[name].remove(*key[1:])
            self._series[name] -= 1

    def _admitted(self, event: E) -> E:
        if len(self._prepared) >= _MOST_PIPELINES:
            event = replace(event, pipeline=OTHER)
        if event.pipeline not in self._prepared:
            self._prepare(event.pipeline)
        return event

    def _prepare(self, pipeline: str) -> None:
        self._prepared.add(pipeline)
        for kind, ends in self._failures.of(pipeline).items():
            self._child("operation_last_failure_timestamp_seconds", pipeline, kind).set(ends.failure)
            if ends.success is not None:
                self._child("operation_last_success_timestamp_seconds", pipeline, kind).set(ends.success)
        for edge in _EDGES:
            self._child("lineage_edges_total", edge)
        for kind in OPERATIONS:
            for end in _ENDS:
                self._child("operations_total", pipeline, kind, end)
            self._child("operation_duration_seconds", pipeline, kind)
            self._child("operations_in_progress", pipeline, kind)
        for severity in _SEVERITIES:
            for kind in _ALERT_KINDS:
                self._child("alerts_total", pipeline, kind, severity)
            self._child("alerts_active", pipeline, severity)
        for reason in _SUPPRESSED_BECAUSE:
            self._child("alerts_suppressed_total", pipeline, reason)
        for verdict in _VERDICTS:
            self._child("drift_checks_total", pipeline, verdict)

    def _operation(self, event: OperationEvent) -> None:
        pipeline, kind = event.pipeline, event.kind
        if event.attributes.get("single"):
            self._single_prediction(event)
            return
        if event.type == "start":
            self._child("operations_in_progress", pipeline, kind).inc()
            self._child("operation_progress_ratio", pipeline, kind).set(0)
        elif event.type == "progress":
            self._progress(event)
        else:
            self._end(event)

    def _progress(self, event: OperationEvent) -> None:
        done, total = event.counts.get("done"), event.counts.get("total")
        if done is not None and total:
            self._child("operation_progress_ratio", event.pipeline, event.kind).set(max(min(done / total, 1.0), 0.0))
        if event.kind == "training" and "epoch" in event.counts:
            self._child("training_epoch", event.pipeline, _model(event)).set(event.counts["epoch"])

    def _end(self, event: OperationEvent) -> None:
        pipeline, kind = event.pipeline, event.kind
        self._child("operations_total", pipeline, kind, event.type).inc()
        if event.type != "abandon" or not event.attributes.get("earlier_process"):
            self._child("operations_in_progress", pipeline, kind).dec()
        if event.duration_seconds is not None and event.type in ("complete", "fail"):
            self._child("operation_duration_seconds", pipeline, kind).observe(event.duration_seconds, _exemplar(event))
        if event.type == "complete":
            self._child("operation_last_success_timestamp_seconds", pipeline, kind).set(event.time)
            self._child("operation_progress_ratio", pipeline, kind).set(1)
            self._failures.succeeded(pipeline, kind, event.time)
        elif event.type == "fail" or (event.type == "abandon" and event.attributes.get("earlier_process")):
            self._child("operation_last_failure_timestamp_seconds", pipeline, kind).set(event.time)
            self._failures.failed(pipeline, kind, event.time)
        rule = _RULES.get(kind)
        if rule is not None:
            rule(self, event)

    def _ingestion(self, event: OperationEvent) -> None:
        source = event.attributes.get("source_name")
        records = self._child("ingested_records_total", event.pipeline, source)
        count = event.counts.get("records", 0)
        if event.type == "complete" and math.isfinite(count):  # one NaN would stay in a counter for ever
            records.inc(max(count, 0))
        elif event.type == "fail":
            error = event.error.type if event.error and event.error.type else "unknown"
            self._child("ingestion_errors_total", event.pipeline, source, error).inc()

    def _validation(self, event: OperationEvent) -> None:
        checks = event.attributes.get("checks")
        for check, passed in (checks if isinstance(checks, dict) else {}).items():
            self._child("quality_checks_total", event.pipeline, check, "pass" if passed else "fail").inc()
            failures = self._child("validation_failures_total", event.pipeline, check)
            if not passed:
                failures.inc()

    def _training(self, event: OperationEvent) -> None:
        if event.type == "complete":
            for metric, value in event.metrics.items():
                self._child("training_score", event.pipeline, _model(event), metric).set(value)

    def _evaluation(self, event: OperationEvent) -> None:
        if event.type == "complete":
            basis = _ESTIMATED if event.attributes.get("basis") == _ESTIMATED else "realised"
            for metric, value in event.metrics.items():
                self._child("model_performance", event.pipeline, _model(event), metric, basis).set(value)

    def _deployment(self, event: OperationEvent) -> None:
        deployed = self._child("model_deployments_total", event.pipeline, _model(event))
        if event.type != "complete":
            return
        deployed.inc()
        model, version = _model(event), label(event.attributes.get("model_version"))
        stage = label(event.attributes.get("environment"))
        place = (event.pipeline, model, stage)
        before = self._stages.get(place)
        if before is not None and before != version:
            self._remove("model_info", event.pipeline, model, before, stage)
        self._child("model_info", event.pipeline, model, version, stage).set(1)
        if len(self._stages) < MOST_SERIES or place in self._stages:
            self._stages[place] = version

    def _prediction(self, event: OperationEvent) -> None:
        if event.type == "complete" and event.duration_seconds is not None:
            self._child("prediction_duration_seconds", event.pipeline, _model(event)).observe(
                event.duration_seconds, _exemplar(event)
            )

    def _single_prediction(self, event: OperationEvent) -> None:
        version, decision = event.attributes.get("model_version"), event.attributes.get("decision")
        if isinstance(decision, Real) and not isinstance(decision, Integral):
            decision = ""  # a quantity, not a class: nearly every one would be a series of its own
        self._child("predictions_total", event.pipeline, _model(event), version, decision).inc()
        confidence = event.metrics.get("confidence")
        if confidence is not None and math.isfinite(confidence):
            self._child("prediction_confidence", event.pipeline, _model(event)).observe(confidence, _exemplar(event))

    def _alert(self, event: AlertEvent) -> None:
        if event.state == "raised":
            self._child("alerts_total", event.pipeline, event.kind, event.severity).inc()
        elif event.state == "suppressed":
            self._child("alerts_suppressed_total", event.pipeline, event.reason).inc(event.count)
        if event.state != "suppressed":
            self._track(event)

    def _track(self, event: AlertEvent) -> None:
        """Keep the number of active alerts: of one identity the latest, and never below 0 for one raised elsewhere."""
        known = self._no_longer_active(event.alert_id)
        if event.state == "raised":
            self._no_longer_active(self._latest.get(identity_of(event), ""))
        if event.state == "raised" or (event.state in _STILL_OPEN and known):
            self._is_active(event.alert_id, event.severity, identity_of(event))

    def _is_active(self, alert_id: str, severity: str, identity: tuple[str, ...]) -> None:
        if len(self._active) < _MOST_ACTIVE_ALERTS:
            self._active[alert_id], self._latest[identity] = (severity, identity), alert_id
            self._child("alerts_active", identity[0], severity).inc()

    def _no_longer_active(self, alert_id: str) -> bool:
        severity, identity = self._active.pop(alert_id, ("", ()))
        if not identity:
            return False
        self._latest.pop(identity, None)
        self._child("alerts_active", identity[0], severity).dec()
        return True

    def _resources(self, event: ResourceSample) -> None:
        self._child("process_cpu_ratio", event.pipeline).set(event.cpu_ratio)
        self._child("process_resident_memory_bytes", event.pipeline).set(event.memory_bytes)
        self._child("process_read_bytes", event.pipeline).set(event.read_bytes)
        self._child("process_written_bytes", event.pipeline).set(event.written_bytes)
        self._child("system_memory_available_bytes").set(event.memory_available_bytes)
        for path, free in event.disk_free_bytes.items():
            self._child("disk_free_bytes", path).set(free)

    def _drift(self, event: DriftEvent) -> None:
        self._child("drift_checks_total", event.pipeline, event.verdict).inc()
        if event.verdict == "insufficient_data":
            return  # the gauges keep the last answer: too little data is no news about drift
        self._child("drift_detected", event.pipeline).set(event.verdict == "drift")
        self._child("drifted_features", event.pipeline).set(len(event.drifted))
        for feature, effect in event.effects.items():
            self._child("drift_effect", event.pipeline, feature).set(effect)

    def _lineage(self, event: LineageEvent) -> None:
        for kind, count in event.new_nodes.items():
            self._child("lineage_nodes_total", kind).inc(count)
        if event.new_edges:
            self._child("lineage_edges_total", event.kind).inc(event.new_edges)


_RULES: Final[Mapping[str, Any]] = {
    "ingestion": PipelineMetrics._ingestion,
    "validation": PipelineMetrics._validation,
    "training": PipelineMetrics._training,
    "evaluation": PipelineMetrics._evaluation,
    "deployment": PipelineMetrics._deployment,
    "prediction": PipelineMetrics._prediction,
}


def _model(event: OperationEvent) -> str:
    return label(event.attributes.get("model_name"))


def _exemplar(event: OperationEvent) -> dict[str, str] | None:
    ids = {"operation_id": event.operation_id, "run_id": event.run_id}
    return {key: value for key, value in ids.items() if value} or None


pipeline_metrics: Final = PipelineMetrics()
"""The default metrics, in prometheus-client's own registry."""


def subscribe_to(bus: Bus) -> None:
    """Have every event of *bus* move the default metrics."""
    bus.subscribe("prometheus_metrics", pipeline_metrics, pipeline_metrics.takes)
