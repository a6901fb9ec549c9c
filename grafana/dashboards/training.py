"""Training Dashboard: did the last training succeed, how good is the model, and what does it predict?"""

from __future__ import annotations

from typing import Final

from grafana.dashboards import _queries as q
from grafana.dashboards._board import Board
from grafana.dashboards._links import Logs
from grafana.dashboards._panels import bars, heat, lines, log_lines, timeline, words
from grafana.dashboards._tables import Column, failures, rows
from grafana.dashboards._words import AGO, FINE_OR_FAILING, STATUS_COLOURS, YES_OR_NO, higher_is_better, lower_is_better

__all__ = ["BOARD"]

_KINDS: Final = 'kind=~"training|evaluation|deployment"'
_TRAINING: Final = 'kind="training"'
_LINES: Final = Logs(channel="training.*")
_PERFORMANCE: Final = Logs(channel="monitoring.model_performance")
_KEYS: Final = "pipeline, model, metric"

FINE_NOW: Final = (
    words(
        "Last training",
        f"max({q.state('pipeline', _TRAINING)})",
        FINE_OR_FAILING,
        about="Whether the last training succeeded; with several pipelines, failing if one of them failed.",
        unit="short",
        empty="no training yet",
        logs=_LINES,
        runbook="TrainingFailure",
    ),
    words(
        "Trained",
        q.last(where=_TRAINING),
        about="When a training last succeeded; of several pipelines the newest.",
        unit=AGO,
        empty="no training yet",
        logs=_LINES,
        runbook="TrainingFailure",
    ),
    words(
        "Score of the last training",
        q.now("training_score", where=q.MODEL, how="min"),
        decimals=3,
        about="Score at the end of the last training; of several metrics or models the least. The table shows each.",
        unit="short",
        empty="no training yet",
        logs=_LINES,
        runbook="ModelPerformanceDown",
    ),
    words(
        "Against its training",
        f"min({q.now('model_performance', _KEYS, q.MODEL)} / {q.now('training_score', _KEYS, q.MODEL)})",
        higher_is_better(0.98, 0.95),
        decimals=1,
        about="Performance of the model in use as a share of its score at the end of training; the worst where there "
        "are several. For scores where more is better: orange below 98 %, red below 95 %.",
        unit="percentunit",
        empty="nothing to compare yet",
        logs=_PERFORMANCE,
        runbook="ModelPerformanceDown",
    ),
    words(
        "In production",
        q.now("model_info", "model, version", f'{q.MODEL}, stage="production"'),
        legend="{{model}} {{version}}",
        about="Model and version in production, as the running processes report it.",
        unit="short",
        empty="no model deployed yet",
        logs=Logs(channel="inference.model_loading"),
        runbook="ModelPerformanceDown",
    ),
    words(
        "Deployments",
        q.in_range("model_deployments_total", where=q.MODEL),
        about="Deployments that succeeded in this range. Each is marked on the graphs.",
        unit="short",
        empty="no deployment yet",
        runbook="TrainingFailure",
    ),
)

SINCE_WHEN: Final = (
    timeline(
        "State of training, evaluation and deployment",
        q.state("pipeline, kind", _KINDS),
        "{{pipeline}} {{kind}}",
        about="Failing from the moment a step fails until it next succeeds.",
        unit="short",
        empty="no training yet",
        logs=_LINES,
        runbook="TrainingFailure",
    ),
    lines(
        "Score at the end of training",
        {"{{model}} {{metric}}": q.now("training_score", "model, metric", q.MODEL)},
        low=None,
        about="Score of each training, held until the next one. Deployments are marked.",
        unit="short",
        empty="no training yet",
        logs=_LINES,
        runbook="ModelPerformanceDown",
    ),
    lines(
        "Performance in use",
        {"{{model}} {{metric}} ({{basis}})": q.now("model_performance", "model, metric, basis", q.MODEL)},
        low=None,
        about="Realised: against labels that came in. Estimated: without labels, from the model's own confidence.",
        unit="short",
        empty="no performance measured yet",
        logs=_PERFORMANCE,
        runbook="ModelPerformanceDown",
    ),
    lines(
        "Time a step takes (95 %)",
        {"{{pipeline}} {{kind}}": q.quantile(0.95, "operation_duration_seconds", "pipeline, kind", _KINDS)},
        exemplars=True,
        about="95 of 100 operations took no longer. The points are single operations; one leads to its lines.",
        unit="s",
        empty="no training yet",
        logs=_LINES,
        runbook="StepTooSlow",
    ),
    lines(
        "Epoch",
        {"{{model}}": q.living("training_epoch", "model", q.MODEL)},
        about="Epoch that the running training has reached. A line that lies still is a training that hangs, or ended.",
        unit="short",
        empty="no training reports epochs",
        logs=_LINES,
        runbook="StepTooSlow",
    ),
    bars(
        "Trainings ended",
        {"{{status}}": f"60 * {q.rate('operations_total', 'status', _TRAINING)}"},
        colours=STATUS_COLOURS,
        about="Trainings that ended, a minute, by how: complete, fail, cancel, or abandon (the process died).",
        unit="opm",
        empty="no training yet",
        logs=_LINES,
        runbook="TrainingFailure",
    ),
)

WHERE: Final = (
    rows(
        "Training against use",
        ["model", "pipeline", "metric"],
        [
            Column("At training", q.now("training_score", _KEYS, q.MODEL), "short", 3),
            Column("Realised", q.now("model_performance", _KEYS, f'{q.MODEL}, basis="realised"'), "short", 3),
            Column("Estimated", q.now("model_performance", _KEYS, f'{q.MODEL}, basis="estimated"'), "short", 3),
        ],
        about="Each metric at the end of training and in use. Estimated stays empty where nothing estimates it.",
        unit="short",
        empty="no training yet",
        logs=_PERFORMANCE,
        runbook="ModelPerformanceDown",
    ),
    rows(
        "Versions",
        ["model", "pipeline", "version", "stage"],
        [Column("In use", q.now("model_info", "model, pipeline, version, stage", q.MODEL), scale=YES_OR_NO)],
        about="The version of each model in each stage.",
        unit="short",
        empty="no model deployed yet",
        logs=Logs(channel="inference.model_loading"),
        runbook="ModelPerformanceDown",
    ),
)

PREDICTIONS: Final = (
    bars(
        "Share of each decision",
        {"{{decision}}": q.rate("predictions_total", "decision", q.MODEL)},
        percent=True,
        w=8,
        about="How the decisions divide. A shift without a deployment is drift, of the data or of the world.",
        unit="short",
        empty="no prediction yet",
        logs=Logs(channel="inference.*"),
        runbook="DataDrift",
    ),
    lines(
        "Time of a prediction",
        {
            name: q.quantile(share, "prediction_duration_seconds", where=q.MODEL)
            for name, share in (("50 %", 0.5), ("95 %", 0.95), ("99 %", 0.99))
        },
        limits=lower_is_better(1, 2.5),
        exemplars=True,
        w=8,
        about="Time of a prediction or a batch: half, 95 and 99 of 100 took no longer.",
        unit="s",
        empty="no prediction yet",
        logs=Logs(channel="inference.*"),
        runbook="PredictionLatency",
    ),
    heat(
        "Confidence",
        q.rate("prediction_confidence_bucket", "le", q.MODEL),
        w=8,
        about="How sure the model is, 0 to 1: darker is more predictions. A blur in the middle is a model at a loss.",
        unit="percentunit",
        empty="no prediction yet",
        logs=Logs(channel="inference.*"),
        runbook="ModelPerformanceDown",
    ),
)

WHY: Final = (
    failures(
        "Latest failures",
        Logs("ERROR|CRITICAL", "ml_pipeline|training.*|inference.*"),
        about="The latest errors. An operation_id leads to every line of that step, a run_id to the whole run.",
        unit="short",
        empty="no error in this range",
        runbook="TrainingFailure",
    ),
    log_lines(
        "What the training said",
        _LINES,
        about="Lines of training: sizes, epochs, scores, saved models; newest first.",
        unit="short",
        empty="no training in this range",
        runbook="TrainingFailure",
    ),
)

BOARD: Final = Board(
    uid="ml-training",
    title="Training Dashboard",
    about="Did the last training succeed, and is the model still as good? If not: since when, which metric, and why.",
    models="training_score",
    rows={
        "Is it fine now?": FINE_NOW,
        "Since when?": SINCE_WHEN,
        "Where?": WHERE,
        "What it predicts": PREDICTIONS,
        "Why?": WHY,
    },
)
