"""The example pipeline: a classifier trained and used on clinical data, every step observed.

Run it as a script, or as ``ml-pipeline run``::

    python ml_pipeline/examples/logging_monitoring_example.py --drift
    python ml_pipeline/examples/logging_monitoring_example.py --fail-at train
    python ml_pipeline/examples/logging_monitoring_example.py --data patients.csv --target diagnosis
"""

from __future__ import annotations

import functools
import math
import os
import sys
import threading
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

if not __package__:  # run as a file: the package may not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    if find_spec("typer") is None:
        sys.exit("the package typer is missing: run make setup")

import typer
from rich.console import Console

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline._command import FAILED, TERMINATED, run_script
from ml_pipeline.config.logging_config import configure_logging
from ml_pipeline.config.monitoring_config import resource_monitor
from ml_pipeline.config.prometheus_metrics import MetricsServer, start_metrics_server
from ml_pipeline.examples._observed import Outcome, in_rounds, observe
from ml_pipeline.pipelines.reading import read_table
from ml_pipeline.pipelines.sklearn_pipeline import STEPS, PipelineOptions, SklearnPipeline
from ml_pipeline.pipelines.table import Table, Task, bundled_table
from ml_pipeline.report.console import LiveProgress, print_summary

__all__ = ["main", "run"]


def run(
    *,
    data: Annotated[Path | None, typer.Option(help="CSV or Parquet file; by default the bundled data set.")] = None,
    target: Annotated[str | None, typer.Option(help="Its column to predict.")] = None,
    task: Annotated[
        str | None, typer.Option(help="classification or regression; by default told by the target.")
    ] = None,
    drop: Annotated[list[str] | None, typer.Option(help="A column to leave out; may be given again.")] = None,
    model_name: Annotated[str | None, typer.Option(help="Names the model and its file.")] = None,
    trees: Annotated[int, typer.Option(help="Size of the forest.")] = 100,
    batches: Annotated[int, typer.Option(help="How many batches are predicted.")] = 3,
    seed: Annotated[int, typer.Option(help="Of the split, the forest and the batches.")] = 0,
    drift: Annotated[bool, typer.Option("--drift", help="Shift the last batch on purpose.")] = False,
    fail_at: Annotated[str | None, typer.Option(metavar="STEP", help=f"Make a step fail: {', '.join(STEPS)}.")] = None,
    user: Annotated[str, typer.Option(help="Who runs it, for the audit trail.")] = "ml-pipeline",
    loop: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Then handle a fresh batch this often, until SIGTERM.")
    ] = None,
    retrain_every: Annotated[int, typer.Option(metavar="N", help="With --loop: train anew every N rounds.")] = 0,
    incidents: Annotated[
        int, typer.Option(metavar="N", min=0, help="With --loop: let something go wrong every N rounds.")
    ] = 0,
    metrics_port: Annotated[int | None, typer.Option(help="Serve /metrics on this port while it runs.")] = None,
    linger: Annotated[float, typer.Option(metavar="SECONDS", help="Serve /metrics this long after the run.")] = 0.0,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the log lines instead of progress.")] = False,
) -> int:
    """Ingest, validate, extract features, train, evaluate, deploy, predict and check for drift, every step observed."""
    _configure(verbose=verbose)
    read = _source(data, target, task, drop or [])
    options = PipelineOptions(
        model_name=model_name or ("breast_cancer_classifier" if data is None else _model_name(read())),
        trees=trees,
        batches=batches,
        seed=seed,
        drift=drift,
        user_id=user,
        fail_at=fail_at,
        read=read,
    )
    if loop is not None and not 0 < loop < math.inf:
        raise ml_pipeline.SettingsError("--loop must be a positive number of seconds", loop, "give one like 60")
    server = _metrics_server(metrics_port)
    resource_monitor.start()
    if loop is not None:
        configure_logging(reload=True)  # it runs for days: SIGHUP reads the settings again
    try:
        with nullcontext() if verbose else LiveProgress():
            outcome = observe(SklearnPipeline(options))
        print_summary(outcome.summary, outcome.files)
        if drift and outcome.failure is None:
            Console().print("The last batch was shifted on purpose (--drift): open the report to see where.")
        if loop is not None:
            return in_rounds(options, outcome, seconds=loop, retrain_every=retrain_every, incidents=incidents)
        _linger(server, linger)
    except SystemExit as stopped:
        if loop is None or stopped.code != TERMINATED:
            raise
        return 0  # told to stop while it was training for the first time
    finally:
        if loop is not None:
            configure_logging(reload=False)
        resource_monitor.stop()
        if server:
            server.close()
    return _exit_code(outcome)


def _source(data: Path | None, target: str | None, task: str | None, drop: list[str]) -> Any:
    """Return what reads the table; a file is read once here, so that a bad one is refused before any work starts."""
    if data is None:
        for option, value in (("--target", target), ("--task", task), ("--drop", drop)):
            if value:
                raise ml_pipeline.InputDataError(f"{option} says something about --data", value, "give --data FILE too")
        return bundled_table
    if target is None:
        raise ml_pipeline.InputDataError("--data needs a column to predict", str(data), "add --target COLUMN")
    return functools.cache(functools.partial(read_table, data, target, task=_task(task), drop=tuple(drop)))


def _task(task: str | None) -> Task | None:
    if task in (None, "classification", "regression"):
        return task  # type: ignore[return-value]  # mypy does not narrow by membership
    raise ml_pipeline.SettingsError("--task must be classification or regression", task, "leave it out to have it told")


def _model_name(table: Table) -> str:
    stem = "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in table.name)
    return f"{stem}_{'classifier' if table.task == 'classification' else 'regressor'}"


def _configure(*, verbose: bool) -> None:
    """Settle what the example wants unless the environment says otherwise."""
    wanted: dict[str, Any] = {"log_features": "full", "log_console": "on" if verbose else "off"}
    free = {name: value for name, value in wanted.items() if f"ML_PIPELINE_{name.upper()}" not in os.environ}
    ml_pipeline.configure(**(free | {"log_console": "on"} if verbose else free))


def _metrics_server(port: int | None) -> MetricsServer | None:
    if port is not None:
        return start_metrics_server(port)  # asked for by name: a port that is taken is an error
    if _runtime.settings().metrics_port is not None:
        with _runtime.guard("prometheus_metrics"):
            return start_metrics_server()
    return None


def _linger(server: MetricsServer | None, seconds: float) -> None:
    if server and seconds > 0:
        Console(stderr=True).print(f"serving {server.url} for {seconds:g} s more")
        threading.Event().wait(seconds)


def _exit_code(outcome: Outcome) -> int:
    return FAILED if outcome.failure else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the script.

    Args:
        arguments: Command-line arguments; by default the process's own.

    Returns:
        The exit code.
    """
    return run_script(run, arguments)


if __name__ == "__main__":
    sys.exit(main())
