"""Running on: fresh batches until SIGTERM, retraining in between, and metrics pushed to a real Pushgateway."""

from __future__ import annotations

import json
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ml_pipeline import configure
from ml_pipeline.config.operation_logger import operation_logger
from ml_pipeline.config.prometheus_metrics import MetricsPusher, push_metrics
from ml_pipeline.errors import SettingsError
from tests.support import eventually, free_port, require, run_example, started_example

LOG = Path("ml_pipeline/logs/ml_pipeline.log")


def _ended(name: str) -> list[dict[str, Any]]:
    written = LOG.read_text().rpartition("\n")[0] if LOG.exists() else ""  # the last line may be half read
    lines = [json.loads(line) for line in written.splitlines()]
    return [line for line in lines if line.get("operation") == name and line["context"].get("event") == "complete"]


def test_rounds_until_sigterm(isolated: Path) -> None:
    """Rounds of fresh batches, a training every second one; SIGTERM lets the round finish and the exit code is 0."""
    with started_example("--loop", "0.05", "--retrain-every", "2") as process:
        eventually(lambda: len(_ended("batch_run")) >= 3 and len(_ended("pipeline_run")) >= 2, seconds=60)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    assert "Traceback" not in stderr
    events = [json.loads(line)["context"].get("event") for line in LOG.read_text().splitlines()]
    assert "cancel" not in events
    assert "abandon" not in events
    rounds = _ended("batch_run")
    assert len({line["run_id"] for line in rounds}) == len(rounds), "each round is a run of its own"


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this system has no SIGHUP")
def test_settings_are_read_while_it_runs(isolated: Path) -> None:
    """SIGHUP has it read ``.env`` again, and does not end it."""

    def lines() -> list[str]:
        return LOG.read_text().splitlines() if LOG.exists() else []

    with started_example("--loop", "0.05") as process:
        eventually(lambda: len(_ended("batch_run")) >= 1, seconds=60)
        Path(".env").write_text("ML_PIPELINE_LOG_FORMAT=text\n")
        process.send_signal(signal.SIGHUP)
        eventually(lambda: lines()[-1].startswith("20"), seconds=60)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr


def test_incidents_on_purpose(isolated: Path) -> None:
    """`--incidents` lets something go wrong every so many rounds: a shifted batch, then one failing step after another."""

    def failed() -> set[str]:
        if not LOG.exists():
            return set()
        lines = [json.loads(line) for line in LOG.read_text().rpartition("\n")[0].splitlines()]
        return {line["operation"] for line in lines if line["context"].get("event") == "fail"}

    wanted = {"feature_extraction", "model_training", "data_ingestion", "batch_run", "pipeline_run"}
    with started_example("--loop", "0.05", "--incidents", "2", ML_PIPELINE_STRICT="0") as process:
        eventually(lambda: wanted <= failed(), seconds=60)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr
    drift = Path("ml_pipeline/logs/monitoring/data_drift.log").read_text()
    assert '"verdict":"drift"' in drift.replace(" ", "")


def test_sigterm_in_the_first_training_is_a_clean_end(isolated: Path) -> None:
    """A container that is told to stop while it trains for the first time: exit code 0, the training cancelled."""
    training = Path("ml_pipeline/logs/training/model_training.log")
    with started_example("--loop", "1", "--trees", "200000") as process:
        eventually(lambda: training.exists() and "Validation set size" in training.read_text(), seconds=60)
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 0, stderr


def test_a_batch_holds_a_row_once() -> None:
    """A test of drift takes rows for independent: within a batch none is drawn twice."""
    from ml_pipeline.pipelines.batches import BatchSource

    source = BatchSource({"row": np.arange(114.0)})
    for _ in range(20):
        values = source.draw().columns["row"]
        assert len(set(values.tolist())) == len(values) == 64


def test_batches_are_never_rows_that_were_trained_on(isolated: Path) -> None:
    """Every row predicted is one of the held-out rows: none of them is in the training or validation part."""
    from ml_pipeline.pipelines import _sklearn_steps as steps
    from ml_pipeline.pipelines.batches import BatchSource
    from ml_pipeline.pipelines.table import bundled_table

    table = bundled_table()
    features = steps.extract_features(table)
    held_out = {tuple(row) for row in zip(*(values.tolist() for values in features.held_out.values()), strict=True)}
    batch = BatchSource(features.held_out).draw()
    drawn = {tuple(row) for row in zip(*(values.tolist() for values in batch.columns.values()), strict=True)}
    assert drawn <= held_out
    learned = table.rows - len(next(iter(features.held_out.values())))
    assert learned == len(features.train) + len(features.validation)


@pytest.fixture
def pushgateway(tmp_path: Path) -> Iterator[str]:
    """The URL of a real Pushgateway."""
    program, port = require("prometheus-pushgateway"), free_port()
    server = subprocess.Popen(
        # Debian's build keeps what was pushed in a folder of the system unless it is told where.
        [program, f"--web.listen-address=127.0.0.1:{port}", f"--persistence.file={tmp_path / 'pushed'}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            with urllib.request.urlopen(f"{url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        eventually(ready)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def test_metrics_of_a_batch_job_are_pushed(pushgateway: str) -> None:
    """A run with a gateway set: its metrics are there afterwards, under the pipeline's name."""
    assert run_example(ML_PIPELINE_PUSHGATEWAY_URL=pushgateway, ML_PIPELINE_NAME="nightly/batch").returncode == 0
    with urllib.request.urlopen(f"{pushgateway}/api/v1/metrics", timeout=10) as answer:
        (group,) = json.load(answer)["data"]
    assert group["labels"]["job"] == "nightly/batch"
    (series,) = [
        metric
        for metric in group["ml_pipeline_operations_total"]["metrics"]
        if metric["labels"]["kind"] == "training" and metric["labels"]["status"] == "complete"
    ]
    assert (series["value"], series["labels"]["pipeline"]) == ("1", "nightly/batch")


def test_metrics_are_pushed_while_the_job_runs(pushgateway: str) -> None:
    """The gateway has the counters at 0 before anything ended, and their last values afterwards."""

    def completed() -> str:
        with urllib.request.urlopen(f"{pushgateway}/api/v1/metrics", timeout=10) as answer:
            groups = json.load(answer)["data"]
        operations = groups[0]["ml_pipeline_operations_total"]["metrics"] if groups else []
        wanted = {"pipeline": "while-it-runs", "kind": "custom", "status": "complete"}  # other tests have theirs
        values = [metric["value"] for metric in operations if wanted.items() <= metric["labels"].items()]
        return str(values[0]) if values else ""

    configure(pushgateway_url=pushgateway, name="while-it-runs")
    with MetricsPusher(every_seconds=0.05), operation_logger.operation("custom"):
        before = eventually(completed)
    assert float(completed()) == float(before) + 1


def test_push_replaces_and_groups(pushgateway: str) -> None:
    """Pushing again replaces; a grouping label keeps two hosts apart."""
    with operation_logger.operation("custom"):
        pass
    for host in ("a", "a", "b"):
        assert push_metrics("job", pushgateway, grouping={"instance": host})
    with urllib.request.urlopen(f"{pushgateway}/api/v1/metrics", timeout=10) as answer:
        groups = json.load(answer)["data"]
    assert sorted(group["labels"]["instance"] for group in groups) == ["a", "b"]


def test_push_without_a_gateway_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """No URL, or nobody there: the job goes on, the remedy is said; strictly it raises."""
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(
        SettingsError, match=r"pushing metrics needs a gateway; give url, or set ML_PIPELINE_PUSHGATEWAY_URL"
    ):
        push_metrics()
    with pytest.raises(SettingsError, match=rf"the Pushgateway must answer \(got '{url}/metrics/job/test'\); start it"):
        push_metrics(url=url)
    configure(strict=False)
    assert push_metrics(url=url) is False
    assert "the Pushgateway must answer" in capsys.readouterr().err


def test_a_table_of_ones_own(isolated: Path) -> None:
    """`--data` and `--target`: a table that ships with another package is learned from, and the model is named after it."""
    from importlib.resources import files

    table = Path(str(files("vega_datasets"))) / "_data" / "seattle-weather.csv"
    done = run_example("--data", str(table), "--target", "weather")
    assert done.returncode == 0, done.stderr
    assert Path("artifacts/models/seattle-weather_classifier_model.pkl").is_file()
    summary = json.loads(Path("ml_pipeline/data_storage/runs/latest/summary.json").read_text())
    assert summary["dataset"].startswith("seattle-weather ")
    assert summary["scores"]["accuracy"] > 0.6


def test_a_regression_of_ones_own(isolated: Path) -> None:
    """A number as target is a regression, told or not: its scores are those of a regression."""
    from importlib.resources import files

    table = Path(str(files("statsmodels.datasets"))) / "star98" / "star98.csv"
    done = run_example("--data", str(table), "--target", "MATHTOT", "--task", "regression")
    assert done.returncode == 0, done.stderr
    summary = json.loads(Path("ml_pipeline/data_storage/runs/latest/summary.json").read_text())
    assert set(summary["scores"]) == {"r2", "mean_absolute_error", "root_mean_squared_error"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("--loop", "-1"), "error: --loop must be a positive number of seconds (got -1.0); give one like 60\n"),
        (
            ("--model-name", "../evil"),
            (
                "error: model_name must be up to 100 letters, digits, '_', '-' and '.', and begin with a letter or digit "
                "(got '../evil'); it names files\n"
            ),
        ),
        (("--data", "t.csv"), "error: --data needs a column to predict (got 't.csv'); add --target COLUMN\n"),
        (("--target", "y"), "error: --target says something about --data (got 'y'); give --data FILE too\n"),
        (
            ("--data", "t.csv", "--target", "y", "--task", "guess"),
            "error: --task must be classification or regression (got 'guess'); leave it out to have it told\n",
        ),
        (
            ("--data", "none.csv", "--target", "y"),
            "error: a data file must exist (got 'none.csv'); did you mean 'one.csv'?\n",
        ),
        (
            ("--data", "one.csv", "--target", "y"),
            "error: a table must have at least 50 rows with a target (got 1); give more data\n",
        ),
    ],
)
def test_a_bad_table_is_one_clear_line(arguments: tuple[str, ...], line: str, isolated: Path) -> None:
    """Whatever is wrong with the file or the options: one line, exit code 2, and nothing is written."""
    Path("one.csv").write_text("x,y\n1,a\n")
    done = run_example(*arguments)
    assert (done.returncode, done.stderr) == (2, line)
    assert [path.name for path in isolated.iterdir()] == ["one.csv"]
