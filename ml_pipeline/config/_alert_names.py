"""What alerts are called: as the Prometheus rules that mean the same, so that both paths tell one alert."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._routes import OPERATIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FAILURE_KIND", "INHIBITED", "alert_name", "rule_of"]

FAILURE_KIND: Final = "processing_failure"
"""The kind of an alert about an operation that failed."""

_OPERATIONS: Final = MappingProxyType({"training": "TrainingFailure", "ingestion": "IngestionErrors"})
_OTHER_OPERATIONS: Final = "PipelineFailure"
_RESOURCES: Final = MappingProxyType({"cpu": "HighCpu", "memory": "HighMemory", "disk_free": "DiskFilling"})
_KINDS: Final = MappingProxyType(
    {"data_drift": "DataDrift", "data_quality": "DataQuality", "model_performance": "ModelPerformanceDown"}
)
_KIND_OF: Final = MappingProxyType({route.name: kind for kind, route in OPERATIONS.items()})

_OWN: Final = frozenset((*_OPERATIONS.values(), _OTHER_OPERATIONS, *_RESOURCES.values(), *_KINDS.values()))

INHIBITED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"IngestionErrors": ("data_drift", "data_quality", "model_performance")}
)
"""By the name of an open alert: the kinds of alert that it causes, which are muted in its pipeline for as long."""


def alert_name(kind: str, *, operation_kind: str = "", operation: str = "", feature: str = "") -> str:
    """Name an alert that no rule of the user names.

    Args:
        kind: Of the alert.
        operation_kind: Of the operation that failed; empty where only its name is known.
        operation: Name of that operation.
        feature: What was judged; of a resource its name, as in ``disk_free /data``.

    Returns:
        The name of the Prometheus rule that means the same, or the kind in CamelCase where there is none.
    """
    if kind == FAILURE_KIND:
        return _OPERATIONS.get(operation_kind or _KIND_OF.get(operation, ""), _OTHER_OPERATIONS)
    camel = "".join(part.capitalize() for part in kind.split("_"))
    if kind == "resource_threshold":
        return _RESOURCES.get(feature.partition(" ")[0], camel)
    return _KINDS.get(kind, camel)


def rule_of(kind: str, name: str) -> str:
    """Return the rule of the user's that an alert's name is, which is part of its identity; empty where it is none.

    Args:
        kind: Of the alert.
        name: Of the alert.
    """
    return "" if name in _OWN or name == alert_name(kind) else name
