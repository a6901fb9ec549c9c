"""Every metric: its name, labels, type and meaning, declared once."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["METRICS", "PREFIX", "MetricSpec"]

PREFIX: Final = "ml_pipeline_"

_STEP_BUCKETS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 900, 3600, 14400)
_REQUEST_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RATIO_BUCKETS: Final = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class MetricSpec:
    """One metric.

    Attributes:
        name: Without the prefix; a counter's ends in ``_total``.
        type: As Prometheus knows it.
        labels: Names of its labels, in order.
        help: What it counts or measures, in one sentence.
        buckets: Upper bounds of a histogram, in its unit.
    """

    name: str
    type: Literal["counter", "gauge", "histogram"]
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()


def _counter(name: str, labels: str, help_text: str) -> MetricSpec:
    return MetricSpec(name, "counter", tuple(labels.split()), help_text)


def _gauge(name: str, labels: str, help_text: str) -> MetricSpec:
    return MetricSpec(name, "gauge", tuple(labels.split()), help_text)


def _histogram(name: str, labels: str, help_text: str, buckets: tuple[float, ...]) -> MetricSpec:
    return MetricSpec(name, "histogram", tuple(labels.split()), help_text, buckets)


METRICS: Final[Mapping[str, MetricSpec]] = MappingProxyType(
    {
        spec.name: spec
        for spec in (
            _counter("operations_total", "pipeline kind status", "Operations that ended, by how they ended."),
            _histogram("operation_duration_seconds", "pipeline kind", "Wall time of an operation.", _STEP_BUCKETS),
            _gauge("operations_in_progress", "pipeline kind", "Operations that have started and not ended."),
            _gauge(
                "operation_last_success_timestamp_seconds",
                "pipeline kind",
                "When an operation of this kind last succeeded, in seconds since the Unix epoch.",
            ),
            _gauge(
                "operation_last_failure_timestamp_seconds",
                "pipeline kind",
                "When an operation of this kind last failed, or was found killed, in seconds since the Unix epoch.",
            ),
            _gauge(
                "operation_progress_ratio", "pipeline kind", "Done share of the operation that last reported, 0 to 1."
            ),
            _counter("ingested_records_total", "pipeline source", "Records ingested."),
            _counter("ingestion_errors_total", "pipeline source error", "Failed ingestions, by exception type."),
            _counter("validation_failures_total", "pipeline check", "Checks that failed in a validation."),
            _counter("quality_checks_total", "pipeline check result", "Data quality checks, by result."),
            _gauge("training_score", "pipeline model metric", "Score at the end of the last training."),
            _gauge("training_epoch", "pipeline model", "Epoch that the running training has reached."),
            _counter("model_deployments_total", "pipeline model", "Deployments that succeeded."),
            _counter(
                "predictions_total",
                "pipeline model version decision",
                "Predictions, by decision; empty where that is a quantity (a float), not a class.",
            ),
            _histogram(
                "prediction_duration_seconds", "pipeline model", "Time of a prediction or batch.", _REQUEST_BUCKETS
            ),
            _histogram(
                "prediction_confidence", "pipeline model", "Confidence of single predictions, 0 to 1.", _RATIO_BUCKETS
            ),
            _gauge(
                "model_performance",
                "pipeline model metric basis",
                "Performance of the model in use; basis is realised (with labels) or estimated (without).",
            ),
            _gauge("model_info", "pipeline model version stage", "The version of each model in each stage; always 1."),
            _counter("drift_checks_total", "pipeline verdict", "Batches compared with their reference, by verdict."),
            _gauge(
                "drift_effect", "pipeline feature", "Largest gap between the distributions of the last batch, 0 to 1."
            ),
            _gauge("drift_detected", "pipeline", "Whether the last batch drifted: 1 or 0."),
            _gauge("drifted_features", "pipeline", "How many features drifted in the last batch."),
            _counter("alerts_total", "pipeline kind severity", "Alerts raised."),
            _gauge("alerts_active", "pipeline severity", "Open alerts of the pipeline, as its alert store has them."),
            _counter("alerts_suppressed_total", "pipeline reason", "Alerts and repeats that were held back."),
            _counter("alert_deliveries_total", "channel result", "Attempts to deliver an alert, by result."),
            _histogram("alert_delivery_seconds", "channel", "From raising an alert to its delivery.", _STEP_BUCKETS),
            _counter("lineage_nodes_total", "type", "Lineage nodes that were new to the store."),
            _counter("lineage_edges_total", "kind", "Lineage edges that were new to the store."),
            _counter("log_records_total", "channel level", "Log records written."),
            _counter("log_records_dropped_total", "reason", "Log records that could not be written."),
            _counter("audit_records_total", "", "Audit records on disk."),
            _counter("telemetry_errors_total", "sink error", "Failures of the observability itself."),
            _counter("api_requests_total", "method route code", "Requests to the prediction service."),
            _histogram("api_request_duration_seconds", "method route", "Time of a request.", _REQUEST_BUCKETS),
            _gauge("process_cpu_ratio", "pipeline", "Processor time over wall time at the last sample; 1 is one core."),
            _gauge("process_resident_memory_bytes", "pipeline", "Resident memory at the last sample."),
            _gauge(
                "process_read_bytes", "pipeline", "Read from storage since the process started, at the last sample."
            ),
            _gauge(
                "process_written_bytes", "pipeline", "Written to storage since the process started, at the last sample."
            ),
            _gauge("system_memory_available_bytes", "", "Memory the machine could still give at the last sample."),
            _gauge("disk_free_bytes", "path", "Free bytes of the file system a path lies on, at the last sample."),
            _gauge("build_info", "version python", "Version of this package and of Python; always 1."),
        )
    }
)
"""Every metric by its name without the prefix ``ml_pipeline_``."""

FROM_TALLY: Final = frozenset(
    {"log_records_total", "log_records_dropped_total", "audit_records_total", "telemetry_errors_total"}
)
"""Metrics that a collector reads from plain integers, because their hot paths cannot afford a counter."""
