"""The example pipeline: a classifier trained and used on clinical data, every step observed.

Run it as a script, or as ``ml-pipeline run``::

    python ml_pipeline/examples/logging_monitoring_example.py --fail-at train
"""

from __future__ import annotations

import os
import sys
import threading
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

if not __package__:  # run as a file: the package may not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import typer
from rich.console import Console

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline._command import FAILED, run_command
from ml_pipeline.config.alerting import alert_manager
from ml_pipeline.config.data_lineage import lineage_tracker
from ml_pipeline.config.monitoring_config import resource_monitor
from ml_pipeline.config.prometheus_metrics import MetricsServer, start_metrics_server
from ml_pipeline.pipelines.sklearn_pipeline import STEPS, PipelineOptions, PipelineResult, SklearnPipeline
from ml_pipeline.report.console import LiveProgress, print_summary
from ml_pipeline.report.summary import RunRecorder, write_summary

__all__ = ["main", "run"]


def run(
    *,
    fail_at: Annotated[str | None, typer.Option(metavar="STEP", help=f"Make a step fail: {', '.join(STEPS)}.")] = None,
    trees: Annotated[int, typer.Option(help="Size of the forest.")] = 100,
    batches: Annotated[int, typer.Option(help="Into how many batches the held-out rows are predicted.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the split and the forest.")] = 0,
    user: Annotated[str, typer.Option(help="Who runs it, for the audit trail.")] = "ml-pipeline",
    metrics_port: Annotated[int | None, typer.Option(help="Serve /metrics on this port while it runs.")] = None,
    linger: Annotated[float, typer.Option(metavar="SECONDS", help="Serve /metrics this long after the run.")] = 0.0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log lines instead of progress.")] = False,
) -> int:
    """Run the example pipeline once: ingest, validate, extract features, train, evaluate, deploy, predict."""
    _configure(verbose=verbose)
    options = PipelineOptions(trees=trees, batches=batches, seed=seed, user_id=user, fail_at=fail_at)
    server = _metrics_server(metrics_port)
    resource_monitor.start()
    try:
        code = _observed_run(options, verbose=verbose)
        if linger and server:
            Console(stderr=True).print(f"serving {server.url} for {linger:g} s more")
            threading.Event().wait(linger)
    finally:
        resource_monitor.stop()
        if server:
            server.close()
    return code


def _observed_run(options: PipelineOptions, *, verbose: bool) -> int:
    pipeline = SklearnPipeline(options)
    with RunRecorder() as recorder:
        with nullcontext() if verbose else LiveProgress():
            _, failure = _runtime.attempt(pipeline.run)
        alert_manager.flush(_runtime.settings().smtp_timeout_seconds)
        lineage_tracker.export_json()
        files = _files(pipeline.result)
        summary = recorder.summary(
            pipeline.result.run_id,
            dataset=pipeline.result.dataset,
            model_version=pipeline.result.model_version,
            model_sha256=pipeline.result.model_sha256,
            scores=pipeline.result.scores,
            predictions=pipeline.result.predictions,
            error=f"{type(failure).__name__}: {failure}" if failure else None,
            files=files,
        )
    write_summary(_runtime.settings().data_dir / "runs", summary)
    print_summary(summary, files)
    return FAILED if failure else 0


def _configure(*, verbose: bool) -> None:
    """Settle what the example wants unless the environment says otherwise."""
    wanted: dict[str, Any] = {"log_features": "full", "log_console": "on" if verbose else "off"}
    ml_pipeline.configure(
        **{
            name: value
            for name, value in wanted.items()
            if f"ML_PIPELINE_{name.upper()}" not in os.environ or (verbose and name == "log_console")
        }
    )


def _metrics_server(port: int | None) -> MetricsServer | None:
    if port is not None:
        return start_metrics_server(port)  # asked for by name: a port that is taken is an error
    if _runtime.settings().metrics_port is not None:
        with _runtime.guard("prometheus_metrics"):
            return start_metrics_server()
    return None


def _files(result: PipelineResult) -> dict[str, str]:
    settings = _runtime.settings()
    lineage = settings.data_dir / "metadata" / "lineage"
    files = {
        "Logs": settings.log_dir,
        "Alerts": settings.log_dir / "alerts.json",
        "Lineage": lineage / "lineage.svg",
        "Summary": settings.data_dir / "runs" / "latest" / "summary.json",
    }
    if result.model_path:
        files["Model"] = result.model_path
    return {name: os.path.relpath(path) for name, path in files.items()}


def main(arguments: list[str] | None = None) -> int:
    """Run the script.

    Args:
        arguments: Command-line arguments; by default the process's own.

    Returns:
        The exit code.
    """
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(run)
    return run_command(app, arguments)


if __name__ == "__main__":
    sys.exit(main())
