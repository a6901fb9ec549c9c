"""Data Drift Dashboard: has the data moved, since when, which feature, and does it hurt the model?"""

from __future__ import annotations

from typing import Final

from grafana.dashboards import _queries as q
from grafana.dashboards._board import Board
from grafana.dashboards._links import Logs, explore_url, link
from grafana.dashboards._panels import bars, lines, log_lines, ranking, timeline, words
from grafana.dashboards._tables import Column, failures, rows
from grafana.dashboards._words import AGO, VERDICTS, lower_is_better, trouble

__all__ = ["BOARD"]

_CHECK: Final = 'kind="drift_check"'
_LINES: Final = Logs(channel="monitoring.data_drift")
_EFFECT: Final = lower_is_better(0.2, 0.4)
_FEATURE: Final = "${__data.fields.feature:percentencode}"
_OF_FEATURE: Final = explore_url(f'{{job="ml_pipeline", channel="monitoring.data_drift"}} |= "{_FEATURE}"')
_COLOURS: Final = {"drift": "orange", "no_drift": "green", "insufficient_data": "purple"}

FINE_NOW: Final = (
    words(
        "Last batch",
        q.now("drift_detected"),
        VERDICTS,
        about="Whether the last batch drifted from its reference; with several pipelines, drift if one did.",
        unit="short",
        empty="no drift check yet",
        logs=_LINES,
        runbook="DataDrift",
    ),
    words(
        "Features drifted",
        f"sum({q.now('drifted_features', 'pipeline')})",
        trouble("none", "orange"),
        about="Features that drifted in the last batch: surely (not by chance) and enough to matter.",
        unit="suffix: drifted",
        empty="no drift check yet",
        logs=_LINES,
        runbook="DataDrift",
    ),
    words(
        "Largest effect",
        q.now("drift_effect"),
        _EFFECT,
        decimals=2,
        about="Largest gap between the distributions of a feature in the last batch, 0 to 1. A hint, not the verdict: "
        "orange from 0.2, red from 0.4.",
        unit="percentunit",
        empty="no drift check yet",
        logs=_LINES,
        runbook="DataDrift",
    ),
    words(
        "Last check",
        q.last(where=_CHECK),
        about="When a batch was last compared with its reference; of several pipelines the newest.",
        unit=AGO,
        empty="no drift check yet",
        logs=_LINES,
        runbook="PipelineSilent",
    ),
    words(
        "Batches that drifted",
        q.share("drift_checks_total", 'verdict="drift"'),
        lower_is_better(0.1, 0.5),
        decimals=1,
        about="Share of the batches in this range that drifted. Orange from 10 %, red from 50 %.",
        unit="percentunit",
        empty="no drift check yet",
        logs=_LINES,
        runbook="DataDrift",
    ),
    words(
        "Too little data to judge",
        q.in_range("drift_checks_total", where='verdict="insufficient_data"'),
        trouble("none", "orange"),
        about="Batches in this range that were too small, or lacked a column: nobody knows whether they drifted.",
        unit="suffix: unjudged",
        empty="no drift check yet",
        logs=_LINES,
        runbook="DataQuality",
    ),
)

SINCE_WHEN: Final = (
    timeline(
        "Verdict on the last batch",
        q.now("drift_detected", "pipeline"),
        "{{pipeline}}",
        VERDICTS,
        about="Drift from the batch that drifted until the next one that did not.",
        unit="short",
        empty="no drift check yet",
        logs=_LINES,
        runbook="DataDrift",
    ),
    bars(
        "Batches checked, by verdict",
        {"{{verdict}}": f"60 * {q.rate('drift_checks_total', 'verdict')}"},
        colours=_COLOURS,
        about="Batches compared with their reference, a minute, by verdict.",
        unit="opm",
        empty="no drift check yet",
        logs=_LINES,
        runbook="DataDrift",
    ),
    lines(
        "How many features drifted",
        {"{{pipeline}}": q.now("drifted_features", "pipeline")},
        about="How many features drifted in the last batch.",
        unit="short",
        empty="no drift check yet",
        logs=_LINES,
        runbook="DataDrift",
    ),
    lines(
        "Effect of the features that moved most",
        {"{{feature}}": f"topk(8, {q.now('drift_effect', 'feature')})"},
        limits=_EFFECT,
        high=1,
        about="The eight features with the largest gap between batch and reference at each moment.",
        unit="percentunit",
        empty="no drift check yet",
        logs=_LINES,
        runbook="DataDrift",
    ),
)

WHERE: Final = (
    ranking(
        "Features that moved most",
        f"topk(15, {q.now('drift_effect', 'feature')})",
        "{{feature}}",
        _EFFECT,
        high=1,
        decimals=2,
        w=12,
        h=12,
        about="The fifteen features with the largest gap in the last batch.",
        unit="percentunit",
        empty="no drift check yet",
        logs=_LINES,
        runbook="DataDrift",
    ),
    rows(
        "Each feature",
        ["feature", "pipeline"],
        [
            Column("Last batch", q.now("drift_effect", "pipeline, feature"), "percentunit", 1, _EFFECT),
            Column(
                "Largest",
                f"max by (pipeline, feature) (max_over_time({q.selector('drift_effect')}[$__range]))",
                "percentunit",
                1,
                _EFFECT,
            ),
            Column(
                "Usual",
                f"max by (pipeline, feature) (quantile_over_time(0.5, {q.selector('drift_effect')}[$__range]))",
                "percentunit",
                1,
            ),
        ],
        sort="Last batch",
        links=[link("Lines that name this feature", _OF_FEATURE)],
        h=12,
        about="The gap of each feature in the last batch, and the largest and the middle one in this range. "
        "A feature leads to the lines that name it.",
        unit="percentunit",
        empty="no drift check yet",
        logs=_LINES,
        runbook="DataDrift",
    ),
)

DOES_IT_MATTER: Final = (
    lines(
        "Performance in use",
        {"{{model}} {{metric}} ({{basis}})": q.now("model_performance", "model, metric, basis", q.MODEL)},
        low=None,
        w=8,
        about="Whether the model suffers. Estimated performance needs no labels, and so comes first.",
        unit="short",
        empty="no performance measured yet",
        logs=Logs(channel="monitoring.model_performance"),
        runbook="ModelPerformanceDown",
    ),
    bars(
        "Share of each decision",
        {"{{decision}}": q.rate("predictions_total", "decision", q.MODEL)},
        percent=True,
        w=8,
        about="Whether the model decides otherwise than before.",
        unit="short",
        empty="no prediction yet",
        logs=Logs(channel="inference.*"),
        runbook="DataDrift",
    ),
    lines(
        "Mean confidence",
        {
            "{{model}}": f"{q.rate('prediction_confidence_sum', 'model', q.MODEL)} "
            f"/ {q.rate('prediction_confidence_count', 'model', q.MODEL)}"
        },
        low=None,
        high=1,
        w=8,
        about="How sure the model is on average. Data that it has not seen before often lowers it.",
        unit="percentunit",
        empty="no prediction yet",
        logs=Logs(channel="inference.*"),
        runbook="ModelPerformanceDown",
    ),
)

WHY: Final = (
    failures(
        "Latest batches that drifted",
        Logs("WARNING|ERROR|CRITICAL", "monitoring.data_drift"),
        about="The latest batches that drifted or could not be checked, with the features. An operation_id leads to "
        "the check, a run_id to the run that brought the batch.",
        unit="short",
        empty="no drift in this range",
        runbook="DataDrift",
    ),
    log_lines(
        "What the checks said",
        _LINES,
        about="Lines of the drift checks, newest first.",
        unit="short",
        empty="no drift check in this range",
        runbook="DataDrift",
    ),
)

BOARD: Final = Board(
    uid="ml-drift",
    title="Data Drift Dashboard",
    about="Has the data moved? If so: since when, which features, and does the model suffer?",
    models="model_info",
    rows={
        "Is it fine now?": FINE_NOW,
        "Since when?": SINCE_WHEN,
        "Where?": WHERE,
        "Does it matter?": DOES_IT_MATTER,
        "Why?": WHY,
    },
)
