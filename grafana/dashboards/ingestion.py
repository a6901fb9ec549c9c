"""Data Ingestion Dashboard: does data come in, is it good, and from where does it not?"""

from __future__ import annotations

from typing import Final

from grafana.dashboards import _queries as q
from grafana.dashboards._board import Board
from grafana.dashboards._links import Logs, explore_url, link
from grafana.dashboards._panels import bars, lines, log_lines, ranking, timeline, words
from grafana.dashboards._tables import Column, failures, rows
from grafana.dashboards._words import AGO, FINE_OR_FAILING, higher_is_better, trouble

__all__ = ["BOARD"]

_KINDS: Final = 'kind=~"ingestion|validation|feature_extraction"'
_INGESTION: Final = 'kind="ingestion"'
_FAILED: Final = 'result="fail"'
_QUALITY: Final = Logs(channel="pipeline.*")
_CHANNELS: Final = "ml_pipeline|pipeline.*|training.data_preprocessing"
_OF_CHECK: Final = explore_url(
    '{job="ml_pipeline", channel=~"pipeline.*"} |= "${__data.fields.check:percentencode}"',
)
_NO_ERROR: Final = q.zero_of("ingested_records_total")

FINE_NOW: Final = (
    words(
        "Ingestion",
        f"max({q.state('pipeline', _INGESTION)})",
        FINE_OR_FAILING,
        about="Failing from the moment an ingestion fails until the next one succeeds.",
        unit="short",
        empty="no ingestion yet",
        runbook="IngestionErrors",
    ),
    words(
        "Newest data",
        q.last(where=_INGESTION),
        about="When an ingestion last succeeded; of several pipelines the newest. StaleData judges each.",
        unit=AGO,
        empty="no ingestion yet",
        runbook="StaleData",
    ),
    words(
        "Ingestions that failed",
        q.in_range("operations_total", where=f'{_INGESTION}, status="fail"'),
        trouble("none"),
        about="Ingestions that failed in this range.",
        unit="suffix: failed",
        empty="no ingestion yet",
        runbook="IngestionErrors",
    ),
    words(
        "Checks that failed",
        q.at_least_zero(q.in_range("quality_checks_total", where='result="fail"'), q.zero_of("quality_checks_total")),
        trouble("none", "orange"),
        about="Data quality checks that failed in this range.",
        unit="suffix: failed",
        empty="no check yet",
        logs=_QUALITY,
        runbook="DataQuality",
    ),
    words(
        "Checks that passed",
        q.share("quality_checks_total", 'result="pass"'),
        higher_is_better(0.99, 0.95),
        about="Share of the data quality checks in this range that passed. Orange below 99 %, red below 95 %.",
        unit="percentunit",
        empty="no check yet",
        decimals=1,
        logs=_QUALITY,
        runbook="DataQuality",
    ),
    words(
        "Rows ingested",
        q.in_range("ingested_records_total"),
        about="Rows ingested in this range, of all sources.",
        unit="short",
        empty="no rows yet",
        runbook="StaleData",
    ),
)

SINCE_WHEN: Final = (
    timeline(
        "State of ingestion, validation and features",
        q.state("pipeline, kind", _KINDS),
        "{{pipeline}} {{kind}}",
        about="Failing from the moment a step fails until it next succeeds.",
        unit="short",
        empty="no ingestion yet",
        runbook="IngestionErrors",
    ),
    bars(
        "Rows ingested, by source",
        {"{{source}}": q.rate("ingested_records_total", "source")},
        about="Rows a second, by source. A source that has gone quiet is a gap in its colour.",
        unit="short",
        empty="no rows yet",
        runbook="StaleData",
    ),
    bars(
        "Ingestion errors, by type",
        {
            "{{error}}": q.at_least_zero(
                f"60 * {q.rate('ingestion_errors_total', 'error')}", q.zero_of("ingested_records_total", label="error")
            )
        },
        about="Failed ingestions a minute, by the type of the exception. A flat line at none: there were no errors.",
        unit="cpm",
        empty="no ingestion yet",
        runbook="IngestionErrors",
    ),
    bars(
        "Checks that failed, by check",
        {"{{check}}": f"60 * {q.rate('validation_failures_total', 'check')}"},
        about="Failed checks of validations a minute, by check.",
        unit="cpm",
        empty="no validation yet",
        logs=_QUALITY,
        runbook="DataQuality",
    ),
    lines(
        "Time a step takes (95 %)",
        {"{{pipeline}} {{kind}}": q.quantile(0.95, "operation_duration_seconds", "pipeline, kind", _KINDS)},
        exemplars=True,
        about="95 of 100 operations took no longer. The points are single operations; one leads to its lines.",
        unit="s",
        empty="no ingestion yet",
        runbook="StepTooSlow",
    ),
    lines(
        "Age of the newest data",
        {"{{pipeline}}": f"time() - {q.now('operation_last_success_timestamp_seconds', 'pipeline', _INGESTION)}"},
        about="Time since an ingestion last succeeded. It climbs while nothing comes in.",
        unit="s",
        empty="no ingestion yet",
        runbook="StaleData",
    ),
)

WHERE: Final = (
    rows(
        "Each source",
        ["source", "pipeline"],
        [
            Column("Rows", q.in_range("ingested_records_total", "pipeline, source")),
            Column(
                "Errors",
                f"{q.in_range('ingestion_errors_total', 'pipeline, source')} "
                f"or 0 * sum by (pipeline, source) ({q.selector('ingested_records_total')})",
                scale=trouble("none"),
            ),
        ],
        sort="Errors",
        about="Rows and failed ingestions of each source in this range.",
        unit="short",
        empty="no rows yet",
        runbook="IngestionErrors",
    ),
    rows(
        "Each check",
        ["check", "pipeline"],
        [
            Column("Passed", q.in_range("quality_checks_total", "pipeline, check", 'result="pass"')),
            Column(
                "Failed",
                f"{q.in_range('quality_checks_total', 'pipeline, check', _FAILED)} "
                f"or 0 * sum by (pipeline, check) ({q.selector('quality_checks_total')})",
                scale=trouble("none", "orange"),
            ),
        ],
        sort="Failed",
        links=[link("Lines that name this check", _OF_CHECK)],
        about="How each data quality check went in this range. A check leads to the lines that name it.",
        unit="short",
        empty="no check yet",
        logs=_QUALITY,
        runbook="DataQuality",
    ),
    ranking(
        "Errors by type and source",
        q.at_least_zero(
            q.in_range("ingestion_errors_total", "source, error"),
            q.zero_of("ingested_records_total", label="error"),
        ),
        "{{source}} {{error}}",
        trouble("none"),
        w=24,
        h=5,
        about="Failed ingestions in this range, by source and by the type of the exception.",
        unit="short",
        empty="no ingestion yet",
        runbook="IngestionErrors",
    ),
)

WHY: Final = (
    failures(
        "Latest failures",
        Logs("ERROR|CRITICAL", _CHANNELS),
        about="The latest errors. An operation_id leads to every line of that step, a run_id to the whole run.",
        unit="short",
        empty="no error in this range",
        runbook="IngestionErrors",
    ),
    log_lines(
        "What the checks found",
        _QUALITY,
        about="Lines of the data quality checks and the pipeline's steps, newest first.",
        unit="short",
        empty="no check in this range",
        runbook="DataQuality",
    ),
)

BOARD: Final = Board(
    uid="ml-ingestion",
    title="Data Ingestion Dashboard",
    about="Does data come in, and is it good? If not: since when, from which source, and why.",
    rows={"Is it fine now?": FINE_NOW, "Since when?": SINCE_WHEN, "Where?": WHERE, "Why?": WHY},
)
