"""Running the example pipeline once or in rounds, and leaving the files of each run."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from rich.console import Console

from ml_pipeline import _runtime
from ml_pipeline.config.alerting import alert_manager
from ml_pipeline.config.data_lineage import lineage_tracker
from ml_pipeline.config.prometheus_metrics import MetricsPusher, push_metrics
from ml_pipeline.pipelines.sklearn_pipeline import PipelineOptions, PipelineResult, SklearnPipeline
from ml_pipeline.report.page import write_report
from ml_pipeline.report.summary import RunRecorder, write_summary

if TYPE_CHECKING:
    from pathlib import Path

    from ml_pipeline.pipelines.batch_pipeline import BatchPipeline

__all__ = ["Outcome", "in_rounds", "observe"]

_INCIDENTS: Final = ("shift", "features", "train", "ingest")
_SHIFTED_ROUNDS: Final = 4
"""Drift is an alarm only when it lasts."""


@dataclass(frozen=True)
class Outcome:
    """What a run came to.

    Attributes:
        summary: As in ``summary.json``.
        files: What lies where, by what it is; paths below the working directory are relative.
        failure: What the failing step raised; None for a fine run.
        serving: Handles further batches with the deployed model; None where no model was deployed.
    """

    summary: dict[str, Any]
    files: dict[str, str]
    failure: Exception | None
    serving: BatchPipeline | None


def observe(pipeline: SklearnPipeline) -> Outcome:
    """Run a pipeline, and leave its summary and its page whatever comes of it.

    Args:
        pipeline: What to run.

    Returns:
        What came of it; a failing step is told, not raised.
    """
    failure: Exception | None = None
    with MetricsPusher(), RunRecorder() as recorder:
        try:
            _, failure = _runtime.attempt(pipeline.run)
        finally:  # also where Ctrl-C stopped it: a run that was cancelled has its page too
            outcome = _leave_files(pipeline, recorder, failure)
    return outcome


def _leave_files(pipeline: SklearnPipeline, recorder: RunRecorder, failure: Exception | None) -> Outcome:
    settings, result, serving = _runtime.settings(), pipeline.result, pipeline.serving
    alert_manager.flush(settings.smtp_timeout_seconds)
    files = _files(result)
    summary = recorder.summary(
        result.run_id,
        dataset=result.dataset,
        model_version=result.model_version,
        model_sha256=result.model_sha256,
        scores=result.scores,
        predictions=serving.predictions if serving else 0,
        drift_details=serving.drift_details if serving else [],
        error=f"{type(failure).__name__}: {failure}" if failure else None,
        files=files,
    )
    with _runtime.guard("report"):
        runs = settings.data_dir / "runs"
        write_summary(runs, summary)
        write_report(runs, summary, lineage_svg=_drawing(result.run_id), log_dir=settings.log_dir)
    with _runtime.guard("data_lineage"):
        lineage_tracker.flush()  # the end of the run has asked for it already; not a second time
    return Outcome(summary, files, failure, serving)


def in_rounds(
    options: PipelineOptions, outcome: Outcome, *, seconds: float, retrain_every: int = 0, incidents: int = 0
) -> int:
    """Handle fresh batches until SIGTERM, which lets the round that is running finish.

    Args:
        options: For training anew.
        outcome: Of the first run, whose model is used.
        seconds: From the start of one round to the start of the next.
        retrain_every: Train, evaluate and deploy anew every so many rounds; 0 for never.
        incidents: Let something go wrong every so many rounds, in turn what `_INCIDENTS` names; 0 for never.

    Returns:
        The exit code: 0, for being told to stop is no failure.
    """
    stop = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
    console, serving, number = Console(stderr=True), outcome.serving, 0
    try:
        while not stop.wait(seconds):
            number += 1
            incident = _incident(number, incidents)
            if serving is None or incident == "train" or (retrain_every and number % retrain_every == 0):
                step = options.fail_at if incident in (None, "shift") else incident
                fresh = observe(SklearnPipeline(replace(options, fail_at=step)))
                serving, failure = fresh.serving or serving, fresh.failure
            else:
                failure = _round(serving, incident)
            told = f"failed: {type(failure).__name__}" if failure else _told(serving)
            console.print(f"round {number}: {told}", highlight=False)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _incident(number: int, every: int) -> str | None:
    """Return what shall go wrong in a round: a step, or ``shift`` for a batch that drifts; drift lasts a few rounds."""
    turn, since = divmod(number, every) if every else (0, 0)
    if turn == 0:
        return None
    incident = _INCIDENTS[(turn - 1) % len(_INCIDENTS)]
    return incident if since < (_SHIFTED_ROUNDS if incident == "shift" else 1) else None


def _round(serving: BatchPipeline, incident: str | None) -> Exception | None:
    fail_at = serving.fail_at
    shift = incident == "shift"
    serving.fail_at = fail_at if shift or incident is None else incident
    _, failure = _runtime.attempt(lambda: serving.round(drift=shift))
    serving.fail_at = fail_at
    if _runtime.settings().pushgateway_url:
        push_metrics()
    return failure


def _told(serving: BatchPipeline | None) -> str:
    last = serving.drift_details[-1] if serving and serving.drift_details else None
    return f"{last['rows']} predictions, {last['verdict']}" if last else "no batch"


def _drawing(run_id: str) -> str:
    drawing: Path | None = None
    with _runtime.guard("data_lineage"):
        folder = _runtime.settings().data_dir / "runs" / run_id
        drawing = lineage_tracker.export_svg(folder / "lineage.svg", run_id=run_id)
    return drawing.read_text("utf-8") if drawing and drawing.is_file() else ""


def _files(result: PipelineResult) -> dict[str, str]:
    settings = _runtime.settings()
    latest = settings.data_dir / "runs" / "latest"
    files = {
        "Report": latest / "report.html",
        "Logs": settings.log_dir,
        "Alerts": settings.log_dir / "alerts.json",
        "Lineage": settings.data_dir / "metadata" / "lineage" / "lineage.svg",
        "Summary": latest / "summary.json",
    }
    if result.model_path:
        files["Model"] = result.model_path
    return {name: os.path.relpath(path) for name, path in files.items()}
