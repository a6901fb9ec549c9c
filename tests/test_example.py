"""The example pipeline, run as users run it: what it shows, what it leaves, and what a failure looks like."""

from __future__ import annotations

import hashlib
import json
import re
import signal
import sqlite3
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from tests.support import eventually, run_example, started_example

LOGS = Path("ml_pipeline/logs")
DATA = Path("ml_pipeline/data_storage")
TRAINING = LOGS / "training" / "model_training.log"
STEPS = ("ingest", "validate", "features", "train", "evaluate", "deploy", "predict", "drift")
NAMES = (
    "data_ingestion",
    "data_validation",
    "feature_extraction",
    "model_training",
    "model_evaluation",
    "model_deployment",
    "prediction",
    "drift_check",
)


def _lines(path: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (LOGS / path).read_text("utf-8").splitlines()]


def test_a_run_leaves_every_file_of_the_design(isolated: Path) -> None:
    """One run: exit code 0, and logs, lineage, model and summary in their places, consistent with each other."""
    done = run_example()
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert {"errors.log"}.isdisjoint(path.name for path in LOGS.iterdir()), "nothing failed"
    model = Path("artifacts/models/breast_cancer_classifier_model.pkl")
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert model.with_name(model.name + ".sha256").read_text() == f"{digest}  {model.name}\n"
    summary = json.loads((DATA / "runs" / "latest" / "summary.json").read_text())
    assert (summary["status"], summary["model_sha256"]) == ("ok", digest)
    assert [op["name"] for op in summary["operations"] if op["parent_id"]] == [*NAMES, *NAMES[-2:], *NAMES[-2:]]
    assert summary["scores"]["roc_auc"] > 0.95
    assert summary["predictions"] == len(_lines("inference/predictions.log")) == 3 * 64
    for fragment in ("roc_auc", summary["run_id"], "lineage.svg", str(model)):
        assert fragment in done.stdout
    ET.parse(DATA / "metadata" / "lineage" / "lineage.svg")
    assert "digraph" in (DATA / "metadata" / "lineage" / "lineage.dot").read_text()
    assert json.loads((LOGS / "alerts.json").read_text()) == []


def test_the_training_log_holds_the_five_messages(isolated: Path) -> None:
    """The training channel, in the text format, is the design's sample for this data set."""
    done = run_example(ML_PIPELINE_LOG_FORMAT="text")
    assert done.returncode == 0, done.stderr
    stamp = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - INFO - model_trainer - "
    expected = (
        "Model training started for RandomForestClassifier",
        r"Training set size: \(341, 30\)",
        r"Validation set size: \(114, 30\)",
        r"Training completed\. Accuracy: 0\.\d{4}",
        "Model saved to artifacts/models/breast_cancer_classifier_model.pkl",
    )
    text = (LOGS / "training" / "model_training.log").read_text()
    assert re.fullmatch("".join(f"{stamp}{line}\n" for line in expected), text), text


def test_every_line_of_a_run_carries_its_ids(isolated: Path) -> None:
    """Log lines inside a step, its lineage and the summary name the same operation and run."""
    assert run_example().returncode == 0
    summary = json.loads((DATA / "runs" / "latest" / "summary.json").read_text())
    training = next(op for op in summary["operations"] if op["kind"] == "training")
    for line in _lines("training/model_training.log"):
        assert (line["operation_id"], line["run_id"]) == (training["operation_id"], summary["run_id"])
    edges = json.loads((DATA / "metadata" / "lineage" / "edges.json").read_text())
    assert {edge["run_id"] for edge in edges} == {summary["run_id"]}
    assert training["operation_id"] in {edge["operation_id"] for edge in edges}


def test_a_prediction_is_walked_back_to_its_source(isolated: Path) -> None:
    """From a line of predictions.log, through the lineage files, to the source file; and forth again."""
    assert run_example().returncode == 0
    line = _lines("inference/predictions.log")[0]
    prediction_id = line["context"]["prediction_id"]  # type: ignore[index]
    edges = json.loads((DATA / "metadata" / "lineage" / "edges.json").read_text())
    nodes = {node["node_id"]: node for node in json.loads((DATA / "metadata" / "lineage" / "nodes.json").read_text())}
    start = next(key for key, node in nodes.items() if node["type"] == "prediction" and prediction_id in node["name"])
    reached, frontier = {start}, [start]
    while frontier:
        above = {edge["source_id"] for edge in edges if edge["target_id"] in frontier} - reached
        reached |= above
        frontier = list(above)
    types = {nodes[key]["type"] for key in reached}
    assert {"source", "dataset", "validation", "features", "model", "deployment", "batch", "prediction"} <= types


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_is_seen_everywhere(step: str, isolated: Path) -> None:
    """`--fail-at STEP`: exit code 1, one traceback, one alert, the step marked failed, everything before it kept."""
    done = run_example("--fail-at", step)
    assert done.returncode == 1
    name = NAMES[STEPS.index(step)]
    (alert,) = json.loads((LOGS / "alerts.json").read_text())
    assert (alert["kind"], alert["operation"], alert["error_type"]) == (
        "processing_failure",
        name,
        "InjectedFailureError",
    )
    errors = _lines("errors.log")
    told = [line for line in errors if "Traceback" in str(line.get("exception"))]
    assert [line["operation"] for line in told] == [name]
    summary = json.loads((DATA / "runs" / "latest" / "summary.json").read_text())
    status = {op["name"]: op["status"] for op in summary["operations"]}
    assert summary["status"] == status[name] == "failed"
    assert all(status[earlier] == "ok" for earlier in NAMES[: STEPS.index(step)])
    assert f"step {step} fails because it was asked to" in done.stdout


def test_a_second_run_adds_to_the_first(isolated: Path) -> None:
    """Two runs share source, data set and model in the lineage, and have batches of their own; the trail goes on."""
    assert run_example().returncode == 0
    first = len(_lines("audit.log"))
    assert run_example().returncode == 0
    nodes = json.loads((DATA / "metadata" / "lineage" / "nodes.json").read_text())
    count = {kind: sum(node["type"] == kind for node in nodes) for kind in ("source", "dataset", "model", "batch")}
    assert count == {"source": 1, "dataset": 1, "model": 1, "batch": 6}
    assert [line["seq"] for line in _lines("audit.log")] == list(range(1, 2 * first + 1))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--fail-at", "nope"),
            "error: the step that shall fail must be a step (got 'nope'); one of: " + ", ".join(STEPS) + "\n",
        ),
        (("--trees", "0"), "error: trees must be 1 or more (got 0); give a positive number\n"),
        (("--no-such-option",), "error: No such option: --no-such-option See --help.\n"),
        (("--metrics-port", "99999"), "error: a port must lie between 1 and 65535 (got 99999); choose another\n"),
    ],
)
def test_a_bad_argument_is_one_clear_line(arguments: tuple[str, ...], line: str, isolated: Path) -> None:
    """The line names the rule, the value and the remedy; exit code 2; nothing is written."""
    done = run_example(*arguments)
    assert (done.returncode, done.stderr) == (2, line)
    assert list(isolated.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ML_PIPELINE_LOG_LEVL", "INFO", "did you mean 'ML_PIPELINE_LOG_LEVEL'?"),
        ("ML_PIPELINE_SMTP_PORT", "0", "ML_PIPELINE_SMTP_PORT: input should be greater than or equal to 1 (got '0')"),
        ("ML_PIPELINE_METRICS_PORT", "http", "ML_PIPELINE_METRICS_PORT: input should be a valid integer"),
    ],
)
def test_a_bad_setting_is_one_clear_line(name: str, value: str, message: str, isolated: Path) -> None:
    """A setting that is wrong stops the example before it starts: one line, exit code 2."""
    done = run_example(**{name: value})
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_ends_cleanly(number: signal.Signals, code: int, isolated: Path) -> None:
    """Ctrl-C or SIGTERM in the middle of training: its operations end as cancelled, and every file is whole."""
    with started_example("--trees", "200000") as process:
        eventually(lambda: TRAINING.exists() and "Validation set size" in TRAINING.read_text())
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert "Traceback" not in stderr
    events = [
        (line["operation"], line["context"]["event"])
        for line in _lines("ml_pipeline.log")
        if "event" in line.get("context", {})
    ]  # type: ignore[index, operator]
    assert events[-2:] == [("model_training", "cancel"), ("pipeline_run", "cancel")]
    json.loads((DATA / "metadata" / "lineage" / "nodes.json").read_text())
    summary = json.loads((DATA / "runs" / "latest" / "summary.json").read_text())
    assert summary["status"] == "cancelled"
    assert (DATA / "runs" / "latest" / "report.html").is_file()


def test_a_killed_run_is_reported_by_the_next(isolated: Path) -> None:
    """`kill -9` in the middle of training: what was logged is there and whole; the next run reports what was open."""
    with started_example("--trees", "200000") as process:
        eventually(lambda: TRAINING.exists() and "Validation set size" in TRAINING.read_text())
        process.kill()
    killed = {
        line["operation_id"]
        for line in _lines("ml_pipeline.log")
        if line["operation"] in ("model_training", "pipeline_run")
    }
    for store in (DATA / "metadata" / "lineage" / "lineage.db", DATA / "alerts" / "outbox.db"):
        if store.exists():
            with sqlite3.connect(store) as connection:
                assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            connection.close()
    assert run_example().returncode == 0
    abandoned = [line for line in _lines("ml_pipeline.log") if line.get("context", {}).get("event") == "abandon"]  # type: ignore[union-attr]
    assert {line["operation_id"] for line in abandoned} == killed
    assert len(abandoned) == 2
