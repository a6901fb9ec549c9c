"""Every exception in one place: what no board shows, what the demo cannot fill, which rules do not hold, and why."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["EMPTY_IN_DEMO", "EMPTY_QUERIES_IN_DEMO", "LINTER_EXCEPTIONS", "NOT_ON_A_BOARD"]

_SERVICE: Final = "the demo runs no prediction service"
_QUIET: Final = "empty until an alert fires, which is how it should be"
_NOT_YET: Final = "empty until a pipeline has raised an alert and delivered it"

EMPTY_IN_DEMO: Final[Mapping[tuple[str, str], str]] = MappingProxyType(
    {
        ("ml-overview", "Last failure"): "empty until a step fails; with DEMO_TRAFFIC=0 none does",
        ("ml-overview", "Requests to the prediction service"): _SERVICE,
        ("ml-overview", "Time of a request (95 %)"): _SERVICE,
        ("ml-alerts", "What fired"): _QUIET,
        ("ml-alerts", "Firing now"): _QUIET,
        ("ml-alerts", "Time spent firing"): _QUIET,
        ("ml-alerts", "Sent by the pipelines themselves"): _NOT_YET,
    }
)
"""Panels, by uid and title, whose queries return nothing from the running example, or not at once."""

EMPTY_QUERIES_IN_DEMO: Final[Mapping[tuple[str, str, str], str]] = MappingProxyType(
    {
        ("ml-overview", "Each pipeline", "D"): "no time of a last failure until a step fails",
        ("ml-training", "Training against use", "C"): "the demo estimates no performance: its labels come in at once",
        ("ml-resources", "Each disk", "C"): "a disk that does not shrink is never full",
        ("ml-alerts", "Time to send (95 %)", "B"): _NOT_YET,
    }
)
"""Single queries, by uid, title and refId, that return nothing beside others of their panel that do."""

NOT_ON_A_BOARD: Final[Mapping[str, str]] = MappingProxyType({})
"""Metrics of ours, without the prefix, that no board shows."""

LINTER_EXCEPTIONS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "template-datasource": "logs come from Loki and silences from Alertmanager: further variables, named by kind",
        "template-job": "a pushed pipeline has its own job, so boards choose by the label pipeline",
        "template-instance": "a pushed pipeline has no instance, so boards choose by the label pipeline",
        "target-job": "see template-job",
        "target-instance": "see template-instance",
        "target-rate-interval": "what is said of the time shown is asked once, with $__range; never in a graph",
        "target-counter-agg": "max_over_time and offset beside increase: it misses the first value of a new series",
        "target-logql-auto": "no LogQL query has a range: lines are shown as they are",
        "uneditable": "boards are made to be changed in Grafana, and exported",
        "panel-units": "a field of words, or of a count, has the unit short",
    }
)
"""Rules of the dashboard linter that do not hold as they stand."""
