"""Metrics for Prometheus: one class that declares them all, fed by the event bus.

The default instance registers with prometheus-client's own ``REGISTRY``, so that an application that already serves
``/metrics`` serves these too. Where it does not, `start_metrics_server` does.
"""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily

from ml_pipeline import __version__, _runtime
from ml_pipeline.config._events import (
    AlertEvent,
    Bus,
    DriftEvent,
    Event,
    LineageEvent,
    OperationEvent,
    ResourceSample,
)
from ml_pipeline.config._metric_specs import FROM_TALLY, METRICS, PREFIX, MetricSpec
from ml_pipeline.config._push import push_metrics
from ml_pipeline.config._routes import OPERATIONS
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

__all__ = ["METRICS", "MetricSpec", "MetricsServer", "PipelineMetrics", "pipeline_metrics", "push_metrics", "start_metrics_server"]

_OTHER: Final = "other"
_MOST_SERIES: Final = 1_000
"""Of one metric; past it, every further value of a label is counted under ``other``."""

_ENDS: Final = ("complete", "fail", "cancel", "abandon")
_ALERT_KINDS: Final = ("processing_failure", "resource_threshold", "data_quality", "model_performance", "data_drift")
_SEVERITIES: Final = ("info", "warning", "critical")
_VERDICTS: Final = ("drift", "no_drift", "insufficient_data")
_KINDS: Final = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


class PipelineMetrics:
    """All metrics of the package, in one registry, and the rules by which events move them.

    Thread-safe. Label sets that are known beforehand exist at 0 from a pipeline's first event on, because a counter
    that is born at 1 never satisfies ``increase() > 0``. Children are kept, and their number is bounded.

    Args:
        registry: Where to register.
        tally: Plain integers that some of the counters are read from.

    Raises:
        ValueError: If *registry* already holds these metrics.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY, tally: _runtime.Tally = _runtime.tally) -> None:
        self.registry = registry
        self._metrics: dict[str, Any] = {
            name: _declared(spec, registry) for name, spec in METRICS.items() if name not in FROM_TALLY
        }
        self._children: dict[tuple[str, ...], Any] = {}
        self._series: dict[str, int] = dict.fromkeys(METRICS, 0)
        self._prepared: set[str] = set()
        self._stages: dict[tuple[str, str, str], str] = {}
        registry.register(_TallyCollector(tally))
        self._child("build_info", __version__, platform.python_version()).set(1)

    def __call__(self, event: Event) -> None:
        """Move the metrics of one event."""
        if event.pipeline not in self._prepared:
            self._prepare(event.pipeline)
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
            case _:
                pass  # audit records are read from the tally, which counts what reached the disk

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

    def _child(self, name: str, *labels: str) -> Any:
        key = (name, *labels)
        child = self._children.get(key)
        if child is None:
            if self._series[name] >= _MOST_SERIES:
                labels = (*labels[:1], *(_OTHER for _ in labels[1:]))
            child = self._metrics[name].labels(*labels) if labels else self._metrics[name]
            self._series[name] += 1
            if self._series[name] <= _MOST_SERIES:
                self._children[key] = child
        return child

    def _prepare(self, pipeline: str) -> None:
        self._prepared.add(pipeline)
        for kind in OPERATIONS:
            for end in _ENDS:
                self._child("operations_total", pipeline, kind, end)
            self._child("operation_duration_seconds", pipeline, kind)
            self._child("operations_in_progress", pipeline, kind)
        for severity in _SEVERITIES:
            for kind in _ALERT_KINDS:
                self._child("alerts_total", pipeline, kind, severity)
            self._child("alerts_active", pipeline, severity)
        self._child("alerts_suppressed_total", pipeline, "cooldown")
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
            self._child("operation_progress_ratio", event.pipeline, event.kind).set(min(done / total, 1.0))
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
        rule = _RULES.get(kind)
        if rule is not None:
            rule(self, event)

    def _ingestion(self, event: OperationEvent) -> None:
        source = str(event.attributes.get("source_name", ""))
        records = self._child("ingested_records_total", event.pipeline, source)
        if event.type == "complete":
            records.inc(max(event.counts.get("records", 0), 0))
        elif event.type == "fail":
            error = event.error.type if event.error and event.error.type else "unknown"
            self._child("ingestion_errors_total", event.pipeline, source, error).inc()

    def _validation(self, event: OperationEvent) -> None:
        checks = event.attributes.get("checks")
        for check, passed in (checks if isinstance(checks, dict) else {}).items():
            self._child("quality_checks_total", event.pipeline, str(check), "pass" if passed else "fail").inc()
            failures = self._child("validation_failures_total", event.pipeline, str(check))
            if not passed:
                failures.inc()

    def _training(self, event: OperationEvent) -> None:
        if event.type == "complete":
            for metric, value in event.metrics.items():
                self._child("training_score", event.pipeline, _model(event), metric).set(value)

    def _evaluation(self, event: OperationEvent) -> None:
        if event.type == "complete":
            for metric, value in event.metrics.items():
                self._child("model_performance", event.pipeline, _model(event), metric, "realised").set(value)

    def _deployment(self, event: OperationEvent) -> None:
        deployed = self._child("model_deployments_total", event.pipeline, _model(event))
        if event.type != "complete":
            return
        deployed.inc()
        stage = str(event.attributes.get("environment", ""))
        version = str(event.attributes.get("model_version", ""))
        place = (event.pipeline, _model(event), stage)
        before = self._stages.get(place)
        if before is not None and before != version:
            self._metrics["model_info"].remove(event.pipeline, _model(event), before, stage)
            self._children.pop(("model_info", event.pipeline, _model(event), before, stage), None)
        self._stages[place] = version
        self._child("model_info", event.pipeline, _model(event), version, stage).set(1)

    def _prediction(self, event: OperationEvent) -> None:
        if event.type == "complete" and event.duration_seconds is not None:
            self._child("prediction_duration_seconds", event.pipeline, _model(event)).observe(
                event.duration_seconds, _exemplar(event)
            )

    def _single_prediction(self, event: OperationEvent) -> None:
        version, decision = str(event.attributes.get("model_version", "")), str(event.attributes.get("decision", ""))
        self._child("predictions_total", event.pipeline, _model(event), version, decision).inc()
        confidence = event.metrics.get("confidence")
        if confidence is not None:
            self._child("prediction_confidence", event.pipeline, _model(event)).observe(confidence, _exemplar(event))

    def _alert(self, event: AlertEvent) -> None:
        active = self._child("alerts_active", event.pipeline, event.severity)
        if event.state == "raised":
            self._child("alerts_total", event.pipeline, event.kind, event.severity).inc()
            active.inc()
        elif event.state == "suppressed":
            self._child("alerts_suppressed_total", event.pipeline, event.reason).inc()
        elif event.state == "resolved":
            active.dec()

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


class _TallyCollector:
    """Reads the counters of the hot paths when Prometheus asks, not when something happens."""

    def __init__(self, tally: _runtime.Tally) -> None:
        self._tally = tally

    def describe(self) -> Iterable[CounterMetricFamily]:
        return [self._family(name) for name in sorted(FROM_TALLY)]

    def collect(self) -> Iterator[CounterMetricFamily]:
        tally = self._tally
        yield self._family("log_records_total", {key: tally.log_records[key] for key in list(tally.log_records)})
        dropped = {(reason,): tally.log_records_dropped[reason] for reason in list(tally.log_records_dropped)}
        yield self._family("log_records_dropped_total", dropped)
        yield self._family("audit_records_total", {(): tally.audit_records})
        errors = {key: tally.telemetry_errors[key] for key in list(tally.telemetry_errors)}
        yield self._family("telemetry_errors_total", errors)

    def _family(self, name: str, values: Mapping[Any, int] | None = None) -> CounterMetricFamily:
        spec = METRICS[name]
        family = CounterMetricFamily(PREFIX + name.removesuffix("_total"), spec.help, labels=spec.labels)
        for labels, value in (values or {}).items():
            family.add_metric(labels, value)
        return family


class MetricsServer:
    """A running ``/metrics`` endpoint.

    Attributes:
        url: Where it answers.
    """

    def __init__(self, server: WSGIServer, thread: Thread, url: str) -> None:
        self._server = server
        self._thread = thread
        self.url = url

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_metrics_server(
    port: int | None = None, host: str | None = None, registry: CollectorRegistry = REGISTRY
) -> MetricsServer:
    """Serve the metrics over HTTP in a background thread.

    Args:
        port: Where to listen; by default ``ML_PIPELINE_METRICS_PORT``. 0 takes a free one, see ``url``.
        host: On which address; by default ``ML_PIPELINE_METRICS_HOST``.
        registry: What to serve.

    Returns:
        The running server.

    Raises:
        SettingsError: If no port is set, or it is taken or out of range.
    """
    settings = _runtime.settings()
    port = settings.metrics_port if port is None else port
    host = host or settings.metrics_host
    if port is None:
        raise SettingsError("a metrics server needs a port", remedy="give one, or set ML_PIPELINE_METRICS_PORT")
    if not 0 <= port <= 65_535:  # noqa: PLR2004 - the range of TCP ports
        raise SettingsError("a port must lie between 1 and 65535", port, "choose another")
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as taken:
        raise SettingsError(
            f"the metrics port must be free and {host} an address of this machine",
            port,
            f"choose another ({taken.strerror})",
        ) from None
    return MetricsServer(server, thread, f"http://{host}:{server.server_port}/metrics")


def _declared(spec: MetricSpec, registry: CollectorRegistry) -> Any:
    options = {"buckets": spec.buckets} if spec.buckets else {}
    return _KINDS[spec.type](PREFIX + spec.name, spec.help, spec.labels, registry=registry, **options)


def _model(event: OperationEvent) -> str:
    return str(event.attributes.get("model_name", ""))


def _exemplar(event: OperationEvent) -> dict[str, str] | None:
    ids = {"operation_id": event.operation_id, "run_id": event.run_id}
    return {key: value for key, value in ids.items() if value} or None


pipeline_metrics: Final = PipelineMetrics()
"""The default metrics, in prometheus-client's own registry."""


def subscribe_to(bus: Bus) -> None:
    """Have every event of *bus* move the default metrics."""
    bus.subscribe("prometheus_metrics", pipeline_metrics)
