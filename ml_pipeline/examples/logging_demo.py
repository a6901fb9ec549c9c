"""The lab demo: seven log files in one folder, each written by a logger of its own, with real work behind every line.

A classifier is trained over some epochs, batches are checked for drift, and a small prediction service on the loopback
address answers requests, some of which fail. Run it as a script or as a module; a second run appends::

    python ml_pipeline/examples/logging_demo.py
    python -m ml_pipeline.examples.logging_demo --out lab --seed 7

The files lie flat in the folder and hold the text format, ``app_json.log`` JSON Lines. A pipeline of one's own needs
less: what `get_logger` returns writes to the files of the package's channel table without any of the handlers here.
"""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final

if not __package__:  # run as a file: the package may not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    if find_spec("typer") is None:
        sys.exit("the package typer is missing: run make setup")

import numpy as np
import typer

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline._command import FAILED, run_script
from ml_pipeline.config import _context, _ids
from ml_pipeline.config._encoding import one_line
from ml_pipeline.config._log_files import AppendFile
from ml_pipeline.config._log_format import json_line, line_fields, text_line
from ml_pipeline.config.logging_config import get_logger, log_operation
from ml_pipeline.drift import Verdict, check
from ml_pipeline.examples._demo_service import Service, ask, served
from ml_pipeline.pipelines._sklearn_steps import Features, Model, extract_features
from ml_pipeline.pipelines.batches import BatchSource
from ml_pipeline.pipelines.table import Table, bundled_table

__all__ = ["FILES", "DemoFile", "main", "run"]


@dataclass(frozen=True, slots=True)
class DemoFile:
    """One of the seven files.

    Attributes:
        name: What it is called, without ``.log``.
        channel: The package's channel for such records.
        shown: The name that its lines show as their logger.
        holds: What lies in it, in a few words.
    """

    name: str
    channel: str
    shown: str
    holds: str


FILES: Final = (
    DemoFile("ml_pipeline", "ml_pipeline", "model_trainer", "the data's mean and deviation, epochs, accuracy"),
    DemoFile("predictions", "inference.predictions", "predictor", "features, approve or deny, confidence"),
    DemoFile("data_drift", "monitoring.data_drift", "drift_monitor", "drift and no-drift verdicts"),
    DemoFile("monitoring", "monitoring.monitoring", "service_monitor", "requests, errors, average latency"),
    DemoFile("api_requests", "inference.api_requests", "api", "every request with its status and latency"),
    DemoFile("app_json", "ml_pipeline", "app", "who ran what on which data, as JSON"),
    DemoFile("errors", "errors", "error_handler", "failures with their full tracebacks"),
)
"""What the demo writes."""

_JSON: Final = "app_json"
_STEP: Final = 0.002  # small enough that the epochs differ
_UNSHIFTED_BATCHES: Final = 2
_MOST: Final = 1_000_000
_LARGEST_SEED: Final = 2**32 - 1
_SAID: Final = {
    Verdict.DRIFT: "drift detected",
    Verdict.NO_DRIFT: "no drift detected",
    Verdict.INSUFFICIENT_DATA: "too few data for a verdict",
}


def run(
    *,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder of the seven files.")] = Path(),
    epochs: Annotated[int, typer.Option(help="Passes over the training rows.")] = 10,
    requests: Annotated[int, typer.Option(help="Predictions asked of the service.")] = 20,
    seed: Annotated[int, typer.Option(help="Of all that is drawn at random.")] = 0,
    user: Annotated[str, typer.Option(help="Who runs it, for app_json.log.")] = "ml-pipeline",
) -> int:
    """Train, check for drift and serve predictions, and log each to a file of its own."""
    settings = ml_pipeline.configure()  # what is wrong in the environment is said before anything is written
    _require("--epochs", epochs, 1, _MOST)
    _require("--requests", requests, 1, _MOST)
    _require("--seed", seed, 0, _LARGEST_SEED)
    folder = _folder(out)
    ids = {"run_id": settings.run_id or _ids.new_id(), "operation": "logging_demo", "user_id": user}
    before = _context.restore(ids)
    try:
        with _demo_loggers(folder) as (loggers, handlers):
            _work(loggers, folder, epochs=epochs, requests=requests, seed=seed)
    finally:
        _context.undo(before)
    typer.echo(f"Log files in {one_line(str(folder))}, with how many records this run added:")
    for handler in handlers:
        typer.echo(f"  {handler.file.name + '.log':<17}{handler.written:>4}  {handler.file.holds}")
    lost = sum(handler.lost for handler in handlers)
    if lost:
        typer.echo(f"error: {lost} records could not be written, for the reason said above", err=True)
    return FAILED if lost else 0


def _require(option: str, given: int, least: int, most: int) -> None:
    if not least <= given <= most:
        raise ml_pipeline.SettingsError(f"{option} must be between {least} and {most}", given, "choose another number")


def _folder(out: Path) -> Path:
    rule, folder = "--out must be a folder that can be written", out.absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as refused:
        raise ml_pipeline.SettingsError(rule, str(out), f"choose another ({refused.strerror})") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ml_pipeline.SettingsError(rule, str(out), "choose another, or change its permissions")
    return folder


# The loggers


class _FileHandler(logging.Handler):
    """Writes the records of one logger to one file; each is with the kernel when the call returns.

    Args:
        folder: Where the file lies.
        file: Which of the seven.

    Attributes:
        written: How many records it wrote.
        lost: How many it could not write.
    """

    def __init__(self, folder: Path, file: DemoFile) -> None:
        super().__init__()
        self._appended = AppendFile(folder / f"{file.name}.log")
        self.file = file
        self.written = 0
        self.lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        with _runtime.guard("logging_demo", self._count_lost):
            self._appended.write(self._line(record))
            self.written += 1

    def close(self) -> None:
        self._appended.close()
        super().close()

    def _line(self, record: logging.LogRecord) -> bytes:
        if self.file.name == _JSON:
            return json_line(line_fields(record, self.file.channel, self.file.shown))
        return text_line(record, self.file.shown).encode("utf-8", "backslashreplace")

    def _count_lost(self, _error: Exception) -> None:
        self.lost += 1


@contextmanager
def _demo_loggers(folder: Path) -> Iterator[tuple[Mapping[str, logging.Logger], list[_FileHandler]]]:
    """The loggers by the names of their files, and what writes these; afterwards nothing is open or changed."""
    loggers = {file.name: get_logger(file.channel, file.shown) for file in FILES}
    with ExitStack() as undo:
        yield loggers, [undo.enter_context(_attached(loggers[file.name], folder, file)) for file in FILES]


@contextmanager
def _attached(logger: logging.Logger, folder: Path, file: DemoFile) -> Iterator[_FileHandler]:
    handler, level, propagate = _FileHandler(folder, file), logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # or the package would write each record to its own folder too
    try:
        yield handler
    finally:
        logger.propagate = propagate
        logger.setLevel(level)
        logger.removeHandler(handler)
        handler.close()


# The work


def _work(loggers: Mapping[str, logging.Logger], folder: Path, *, epochs: int, requests: int, seed: int) -> None:
    started = time.perf_counter()
    table = _ten_measurements(bundled_table())
    about: dict[str, Any] = {"object": table.name, "version": table.version}
    settled = log_operation(**about, epochs=epochs, requests=requests, seed=seed)
    loggers[_JSON].info("ml_pipeline_started", extra=settled)
    model, features, accuracy = _train(loggers["ml_pipeline"], table, epochs=epochs, seed=seed)
    drifted = _check_for_drift(loggers["data_drift"], features, seed=seed)
    service = Service(model, loggers, folder)
    with served(service) as url:
        ask(loggers["monitoring"], service, url, features.held_out, requests=requests, seed=seed)
    about |= {"result": "ok", "accuracy": accuracy, "drifted_batches": drifted}
    about |= {"requests": service.requests, "errors": service.errors}
    took = round(time.perf_counter() - started, 3)
    loggers[_JSON].info("ml_pipeline_completed", extra=log_operation(**about, duration_seconds=took))


def _ten_measurements(table: Table) -> Table:
    # The other twenty are deviations and extremes of these; ten fit on a line of the log.
    return replace(table, columns={name: each for name, each in table.columns.items() if name.startswith("mean ")})


def _train(log: logging.Logger, table: Table, *, epochs: int, seed: int) -> tuple[Model, Features, float]:
    """Fit a linear classifier, an epoch being one pass over the rows; its accuracy is that on the validation rows."""
    from sklearn.linear_model import SGDClassifier
    from sklearn.metrics import log_loss

    data = np.column_stack(list(table.columns.values()))
    log.info(f"Data loaded from {table.source}: {data.shape}")
    log.info(f"Data mean: {data.mean():.4f}, standard deviation: {data.std():.4f}")
    features = extract_features(table, seed=seed)
    log.info("Model training started for SGDClassifier")
    log.info(f"Training set size: {features.train.shape}")
    log.info(f"Validation set size: {features.validation.shape}")
    classifier = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=_STEP, random_state=seed)
    classes, accuracy = np.unique(features.train_target), 0.0
    for epoch in range(1, epochs + 1):
        classifier.partial_fit(features.train, features.train_target, classes=classes)
        loss = log_loss(features.train_target, classifier.predict_proba(features.train))
        accuracy = float(classifier.score(features.validation, features.validation_target))
        log.info(f"Epoch {epoch}/{epochs}: loss {loss:.4f}, validation accuracy {accuracy:.4f}")
    log.info(f"Training completed. Accuracy: {accuracy:.4f}")
    return Model("biopsy_classifier", table.task, features.encoder, classifier, features.profile), features, accuracy


def _check_for_drift(log: logging.Logger, features: Features, *, seed: int) -> int:
    """Judge batches against the training rows, the last of them shifted on purpose; returns how many drifted."""
    source = BatchSource(features.held_out, seed=seed)
    found = 0
    for number in range(1, _UNSHIFTED_BATCHES + 2):
        shifted = number > _UNSHIFTED_BATCHES
        batch = source.draw(drift=shifted)
        report = check(features.profile, batch.columns)
        drifted = report.verdict is Verdict.DRIFT
        rows = f"{batch.rows} rows{', shifted on purpose' if shifted else ''}"
        log.log(
            logging.WARNING if drifted else logging.INFO,
            f"Batch {number} ({rows}): {_SAID[report.verdict]}: {report.reason}",
        )
        found += drifted
    return found


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
