"""ML Pipeline Overview: is every pipeline fine, since when not, which step, why?"""

from __future__ import annotations

from typing import Final

from grafana.dashboards import _queries as q
from grafana.dashboards._board import Board
from grafana.dashboards._links import ERRORS, TROUBLE, Logs, explore_url, link
from grafana.dashboards._panels import bars, lines, log_lines, ranking, timeline, words
from grafana.dashboards._tables import Column, failures, rows
from grafana.dashboards._words import AGO, FINE_OR_FAILING, STATUS_COLOURS, YES_OR_NO, Scale, higher_is_better, trouble

__all__ = ["BOARD"]

_RUN: Final = 'kind="custom"'
_ENDED: Final = q.in_range("operations_total", "pipeline", _RUN)
_PIPELINE: Final = "${__data.fields.pipeline:percentencode}"
_OF_PIPELINE: Final = explore_url(f'{{job="ml_pipeline", pipeline="{_PIPELINE}", level=~"WARNING|ERROR|CRITICAL"}}')
_OF_STEP: Final = explore_url(
    f'{{job="ml_pipeline", pipeline="{_PIPELINE}"}} | json kind="context.kind" '
    '| kind="${__data.fields.kind:percentencode}"'
)
_REPORTS: Final = Scale(
    ((None, "red"), (1, "green"), (2, "text")),
    {"0": ("no", "red"), "1": ("yes", "green"), "2": ("its job is over", "text")},
)
_STATE: Final = Scale(((None, "green"), (1, "red")), {"0": ("fine", "green")})

FINE_NOW: Final = (
    words(
        "Pipelines failing",
        f"count(({q.failing_now()}) > 0) or 0 * count({q.failing_now()})",
        trouble("all fine"),
        about="Pipelines with a step whose last try failed. It goes back to fine when that step next succeeds.",
        unit="suffix: failing",
        empty="no run yet",
        runbook="PipelineFailure",
    ),
    words(
        "Alerts firing",
        q.at_least_zero(f"count({q.FIRING})", f"0 * count({q.WATCHDOG})"),
        trouble("none"),
        about="Alerts that fire now, for the chosen pipelines and for the stack itself. See the Alerts Dashboard.",
        unit="suffix: firing",
        empty="alerting is silent: the watchdog is missing",
        runbook="Watchdog",
    ),
    words(
        "Pipelines reporting",
        f"count({q.living('operations_in_progress', 'pipeline')})",
        about="Pipelines with a process that reports now: scraped, or a job that pushed within the last minute.",
        unit="suffix: reporting",
        empty="no pipeline reports",
        runbook="PipelineAbsent",
    ),
    words(
        "Last success",
        q.last(where=_RUN),
        about="When a whole run last succeeded; of several pipelines the newest. The table shows each.",
        unit=AGO,
        empty="no run has succeeded",
        runbook="PipelineSilent",
    ),
    words(
        "Last failure",
        q.last(of="failure"),
        about="When any step or run last failed; of several pipelines the newest.",
        unit=AGO,
        empty="no failure in this range",
        runbook="PipelineFailure",
    ),
    words(
        "Runs that succeeded",
        q.share("operations_total", 'status="complete"', _RUN),
        higher_is_better(0.99, 0.9),
        about="Share of the whole runs in this range that ended well. Orange below 99 %, red below 90 %.",
        unit="percentunit",
        empty="no run in this range",
        decimals=1,
        runbook="PipelineFailure",
    ),
)

SINCE_WHEN: Final = (
    timeline(
        "State of each step",
        q.state("pipeline, kind"),
        "{{pipeline}} {{kind}}",
        about="Failing from the moment a step fails until it next succeeds. The whole run is the kind custom.",
        unit="short",
        empty="no step has ended yet",
        runbook="PipelineFailure",
    ),
    bars(
        "Operations ended",
        {"{{status}}": f"60 * {q.rate('operations_total', 'status')}"},
        colours=STATUS_COLOURS,
        about="Operations that ended, a minute, by how: complete, fail, cancel, or abandon (the process died).",
        unit="opm",
        empty="no operation has ended yet",
        runbook="PipelineFailure",
    ),
    lines(
        "Time a step takes (95 %)",
        {"{{pipeline}} {{kind}}": q.quantile(0.95, "operation_duration_seconds", "pipeline, kind")},
        exemplars=True,
        about="95 of 100 operations took no longer. The points are single operations; one leads to its lines.",
        unit="s",
        empty="no step has ended yet",
        runbook="StepTooSlow",
    ),
    bars(
        "Predictions",
        {"{{model}} {{version}}": q.rate("predictions_total", "model, version", q.MODEL)},
        about="Predictions a second, by model and version. A gap means that nothing was asked, or nothing answered.",
        unit="short",
        empty="no prediction yet",
        logs=Logs(channel="inference.*"),
        runbook="PredictionErrors",
    ),
)

WHERE: Final = (
    rows(
        "Each pipeline",
        ["pipeline"],
        [
            Column("Failing steps", q.failing_now(), scale=_STATE),
            Column(
                "Reports",
                f"({q.living('operations_in_progress', 'pipeline')} >= bool 0) "
                f"or 2 * ({q.now('operations_in_progress', 'pipeline')} >= bool 0) "
                f"or 0 * max by (pipeline) (max_over_time({q.selector('operations_in_progress')}[$__range]))",
                scale=_REPORTS,
            ),
            Column("Last success", q.last("pipeline", _RUN), AGO),
            Column("Last failure", q.last("pipeline", of="failure"), AGO),
            Column("Runs", _ENDED),
            Column("Failures", q.in_range("operations_total", "pipeline", 'status="fail"')),
        ],
        sort="Failing steps",
        links=[link("Warnings and errors of this pipeline", _OF_PIPELINE)],
        about="One row a pipeline: how many steps stand failed, whether it still reports, and its runs in this range. "
        "A name leads to its lines.",
        unit="short",
        empty="no pipeline in this range",
        runbook="PipelineSilent",
    ),
    rows(
        "Each step",
        ["kind", "pipeline"],
        [
            Column("State", q.state("pipeline, kind"), scale=FINE_OR_FAILING),
            Column("Done", q.in_range("operations_total", "pipeline, kind", 'status="complete"')),
            Column("Failed", q.in_range("operations_total", "pipeline, kind", 'status="fail"')),
            Column("Cancelled", q.in_range("operations_total", "pipeline, kind", 'status=~"cancel|abandon"')),
            Column("95 % took", q.quantile_in_range(0.95, "operation_duration_seconds", "pipeline, kind"), "s", 2),
            Column("Running", q.living("operations_in_progress", "pipeline, kind", how="sum")),
        ],
        sort="Failed",
        links=[link("Lines of this kind of step", _OF_STEP)],
        about="One row a kind of step: its state, how its operations ended in this range, and how long they took. "
        "A kind leads to its lines.",
        unit="short",
        empty="no step in this range",
        runbook="StepTooSlow",
    ),
    ranking(
        "Where the time goes",
        q.in_range("operation_duration_seconds_sum", "kind", 'kind!="custom"'),
        "{{kind}}",
        about="Wall time spent in each kind of step in this range, without the runs around them.",
        unit="s",
        empty="no step in this range",
        runbook="StepTooSlow",
    ),
    lines(
        "How far the running step is",
        {"{{pipeline}} {{kind}}": q.living("operation_progress_ratio", "pipeline, kind")},
        high=1,
        w=8,
        about="Done share of the operation that last reported progress. A line that lies still is a step that hangs.",
        unit="percentunit",
        empty="no step reports progress",
        runbook="StepTooSlow",
    ),
    rows(
        "Models in use",
        ["model", "pipeline", "version", "stage"],
        [Column("In use", q.now("model_info", "model, pipeline, version, stage", q.MODEL), scale=YES_OR_NO)],
        w=8,
        about="The version of each model in each stage, as the running processes report it.",
        unit="short",
        empty="no model deployed yet",
        logs=Logs(channel="inference.model_loading"),
        runbook="ModelPerformanceDown",
    ),
)

SERVICE: Final = (
    bars(
        "Requests to the prediction service",
        {"{{code}}": q.rate("api_requests_total", "code")},
        about="Requests a second, by status code. 5xx are errors of ours.",
        unit="reqps",
        empty="no prediction service runs",
        logs=Logs(channel="inference.api_requests"),
        runbook="PredictionErrors",
    ),
    lines(
        "Time of a request (95 %)",
        {"{{route}}": q.quantile(0.95, "api_request_duration_seconds", "route")},
        about="95 of 100 requests took no longer, by route.",
        unit="s",
        empty="no prediction service runs",
        logs=Logs(channel="inference.api_requests"),
        runbook="PredictionLatency",
    ),
)

WHY: Final = (
    failures(
        "Latest failures",
        ERRORS,
        about="The latest errors. An operation_id leads to every line of that step, a run_id to the whole run.",
        unit="short",
        empty="no error in this range",
        runbook="PipelineFailure",
    ),
    log_lines(
        "Warnings and errors",
        TROUBLE,
        about="What the pipelines warned of, newest first.",
        unit="short",
        empty="no warning in this range",
        runbook="PipelineFailure",
    ),
)

BOARD: Final = Board(
    uid="ml-overview",
    title="ML Pipeline Overview",
    about="Is every pipeline fine? If not: since when, which step, and why.",
    models="model_info",
    rows={
        "Is it fine now?": FINE_NOW,
        "Since when?": SINCE_WHEN,
        "Where?": WHERE,
        "The prediction service": SERVICE,
        "Why?": WHY,
    },
)
