"""What each kind of event writes in each sink: one declared table.

The sinks read their part of it, the reference documentation is made from it, and a test holds every sink to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OPERATIONS", "OTHERS", "Route"]

_OPERATION_METRICS: Final = (
    "operations_total",
    "operation_duration_seconds",
    "operations_in_progress",
    "operation_last_success_timestamp_seconds",
    "operation_last_failure_timestamp_seconds",
    "operation_progress_ratio",
)


@dataclass(frozen=True, slots=True)
class Route:
    """Where an event goes.

    Attributes:
        event: Its type.
        kind: The kind of operation; empty for the other events.
        name: What an operation of that kind is called unless it is given a name.
        channel: The log channel of its line.
        metrics: The metrics it moves, without the prefix.
        edge: The kind of lineage edge it records at its end.
        alert: The kind of alert its failure raises.
        audited: Whether its end is written to the audit trail.
        subjects: Which attributes name the object of its audit record, and that object's version; the first that is
            given counts.
    """

    event: str
    kind: str = ""
    name: str = ""
    channel: str = "ml_pipeline"
    metrics: tuple[str, ...] = ()
    edge: str = ""
    alert: str = ""
    audited: bool = False
    subjects: tuple[tuple[str, str], ...] = ()


_DATASET: Final = ("dataset_name", "dataset_version")
_FEATURES: Final = ("output_name", "output_version")
_MODEL: Final = ("model_name", "model_version")
_SOURCE: Final = ("source_name", "source_version")
_SUBJECTS: Final = {
    "ingestion": (_DATASET, _SOURCE),
    "validation": (_DATASET, _FEATURES),
    "feature_extraction": (_FEATURES, _DATASET),
    "data_access": (_DATASET, _SOURCE),
    "prediction": (_MODEL, ("batch", ""), _DATASET),
}


def _operation(kind: str, name: str, *metrics: str, edge: str = "", audited: bool = False) -> Route:
    return Route(
        event="OperationEvent",
        kind=kind,
        name=name,
        metrics=_OPERATION_METRICS + metrics,
        edge=edge,
        alert="processing_failure",
        audited=audited,
        subjects=_SUBJECTS.get(kind, (_MODEL, _DATASET)),
    )


OPERATIONS: Final[Mapping[str, Route]] = MappingProxyType(
    {
        route.kind: route
        for route in (
            _operation(
                "ingestion",
                "data_ingestion",
                "ingested_records_total",
                "ingestion_errors_total",
                edge="ingestion",
                audited=True,
            ),
            _operation(
                "validation",
                "data_validation",
                "validation_failures_total",
                "quality_checks_total",
                edge="validation",
                audited=True,
            ),
            _operation("feature_extraction", "feature_extraction", edge="transformation", audited=True),
            _operation("training", "model_training", "training_score", "training_epoch", edge="training", audited=True),
            _operation("evaluation", "model_evaluation", "model_performance"),
            _operation(
                "deployment",
                "model_deployment",
                "model_deployments_total",
                "model_info",
                edge="deployment",
                audited=True,
            ),
            _operation(
                "prediction",
                "prediction",
                "predictions_total",
                "prediction_duration_seconds",
                "prediction_confidence",
                edge="inference",
                audited=True,
            ),
            _operation("drift_check", "drift_check"),
            _operation("data_access", "data_access", audited=True),
            _operation("custom", "operation"),
        )
    }
)
"""By kind. Each operation's start, progress and end are in the log and the metrics, and its failure is an alert."""

OTHERS: Final[Mapping[str, Route]] = MappingProxyType(
    {
        route.event: route
        for route in (
            Route("AlertEvent", metrics=("alerts_total", "alerts_active", "alerts_suppressed_total")),
            Route(
                "ResourceSample",
                channel="monitoring.system_metrics",
                metrics=(
                    "process_cpu_ratio",
                    "process_resident_memory_bytes",
                    "system_memory_available_bytes",
                    "disk_free_bytes",
                    "process_read_bytes",
                    "process_written_bytes",
                ),
            ),
            Route(
                "DriftEvent",
                channel="monitoring.data_drift",
                metrics=("drift_checks_total", "drift_effect", "drift_detected", "drifted_features"),
                alert="data_drift",
            ),
            Route("LineageEvent", metrics=("lineage_nodes_total", "lineage_edges_total")),
            Route("AuditEvent", channel="audit", metrics=("audit_records_total",), audited=True),
        )
    }
)
"""By type, for every event that is not an operation's."""
