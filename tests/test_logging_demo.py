"""The lab demo, run as its readers run it."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer

from ml_pipeline.config.logging_config import JSON_KEYS
from ml_pipeline.examples import logging_demo
from ml_pipeline.examples._demo_service import Service
from tests.support import ROOT, eventually

DEMO = ROOT / "ml_pipeline" / "examples" / "logging_demo.py"
NAMES = ["api_requests", "app_json", "data_drift", "errors", "ml_pipeline", "monitoring", "predictions"]
LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - (INFO|WARNING|ERROR) - (\w+) - (.+)")
Said = list[tuple[str, str, str]]


def _demo(*arguments: str, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", str(DEMO), *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _said(file: Path) -> Said:
    """The lines of a file in the text format: level, logger and message; those of tracebacks left out."""
    found = [LINE.fullmatch(line) for line in file.read_text("utf-8").splitlines() if not line.startswith("    ")]
    assert all(found), file
    return [(each[1], each[2], each[3]) for each in found if each]


def _messages(file: Path) -> list[str]:
    return [message for _, _, message in _said(file)]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run with the defaults."""
    folder = tmp_path_factory.mktemp("lab")
    done = _demo(cwd=folder)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder


def test_a_run_leaves_seven_files_and_nothing_else(lab: Path) -> None:
    """In the current folder, flat, private to the user and group; stdout says where, and how many records each got."""
    assert sorted(path.name for path in lab.iterdir()) == [*(f"{name}.log" for name in NAMES), "stdout"]
    assert {(lab / f"{name}.log").stat().st_mode & 0o777 for name in NAMES} == {0o640}
    first, *listed = (lab / "stdout").read_text().splitlines()
    assert first == f"Log files in {lab}, with how many records this run added:"
    counted = {line.split()[0]: int(line.split()[1]) for line in listed}
    assert counted.pop("app_json.log") == 2
    assert counted == {f"{name}.log": len(_said(lab / f"{name}.log")) for name in NAMES if name != "app_json"}


def test_each_file_has_a_logger_of_its_own(lab: Path) -> None:
    """No two files share one, and no file has lines of two."""
    shown = [{logger for _, logger, _ in _said(lab / f"{name}.log")} for name in NAMES if name != "app_json"]
    shown.append({json.loads(line)["logger"] for line in (lab / "app_json.log").read_text().splitlines()})
    assert all(len(each) == 1 for each in shown)
    assert len(set().union(*shown)) == len(NAMES)


def test_the_training_is_real(lab: Path) -> None:
    """Mean, deviation and sizes are those of the data; the loss falls from epoch to epoch; the last accuracy is told."""
    data = load_breast_cancer().data[:, :10]
    messages = _messages(lab / "ml_pipeline.log")
    assert messages[:5] == [
        "Data loaded from UCI Breast Cancer Wisconsin (Diagnostic): (569, 10)",
        f"Data mean: {data.mean():.4f}, standard deviation: {data.std():.4f}",
        "Model training started for SGDClassifier",
        "Training set size: (341, 10)",
        "Validation set size: (114, 10)",
    ]
    epochs = [
        re.fullmatch(r"Epoch (\d+)/10: loss (\d\.\d{4}), validation accuracy (0\.\d{4})", m) for m in messages[5:-1]
    ]
    told = [(int(each[1]), float(each[2]), float(each[3])) for each in epochs if each]
    assert [number for number, _, _ in told] == list(range(1, 11))
    losses = [loss for _, loss, _ in told]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < losses[0] / 2
    assert messages[-1] == f"Training completed. Accuracy: {told[-1][2]:.4f}"
    assert told[-1][2] > 0.85


def test_the_predictions_are_real(lab: Path) -> None:
    """Each was asked for over HTTP, its features are a row of the data, and both decisions occur."""
    pattern = re.compile(r"Prediction (\d+): (approve|deny), confidence ([01]\.\d{4}), features (\{.+\})")
    made = [pattern.fullmatch(message) for message in _messages(lab / "predictions.log")]
    assert [int(each[1]) for each in made if each] == list(range(1, len(made) + 1))
    assert {each[2] for each in made if each} == {"approve", "deny"}
    assert all(0.5 <= float(each[3]) <= 1 for each in made if each)
    rows = {tuple(row) for row in load_breast_cancer().data[:, :10].tolist()}
    assert {tuple(json.loads(each[4]).values()) for each in made if each} <= rows
    assert len(made) == sum(" POST" in f" {m}" and " 200 " in m for m in _messages(lab / "api_requests.log"))


def test_the_drift_checks_are_real(lab: Path) -> None:
    """Batches as they were drawn have no drift, the one shifted on purpose has it, in the features that were shifted."""
    *unshifted, shifted = _said(lab / "data_drift.log")
    assert [(level, message.split(";")[0]) for level, _, message in unshifted] == [
        ("INFO", f"Batch {number} (64 rows): no drift detected: none of 10 features drifted") for number in (1, 2)
    ]
    assert shifted == (
        "WARNING",
        "drift_monitor",
        (
            "Batch 3 (64 rows, shifted on purpose): drift detected: 3 of 10 features drifted: "
            "mean radius, mean texture, mean perimeter"
        ),
    )


def test_the_monitoring_counts_what_happened(lab: Path) -> None:
    """Requests, errors and the average latency agree with the lines of the requests themselves."""
    requests = [re.fullmatch(r"\w+ /\S+ (\d{3}) (\d+\.\d\d) ms", m) for m in _messages(lab / "api_requests.log")]
    codes = [int(each[1]) for each in requests if each]
    assert sorted(set(codes)) == [200, 400, 500]
    last = re.fullmatch(
        r"Requests: (\d+), errors: (\d+), average latency: (\d+\.\d\d) ms", _messages(lab / "monitoring.log")[-1]
    )
    assert last
    assert (int(last[1]), int(last[2])) == (len(requests), sum(code >= 400 for code in codes))
    assert float(last[3]) == pytest.approx(fmean(float(each[2]) for each in requests if each), abs=0.011)


def test_the_requests_have_the_level_of_their_status(lab: Path) -> None:
    """A wrong request is a warning, a failure of the service an error."""
    wanted = {"2": "INFO", "4": "WARNING", "5": "ERROR"}
    for level, _, message in _said(lab / "api_requests.log"):
        assert level == wanted[message.split()[2][0]]


def test_the_audit_events_are_json(lab: Path) -> None:
    """Started and completed, with the package's keys: who, on which data, with what result, under one run."""
    started, completed = map(json.loads, (lab / "app_json.log").read_text().splitlines())
    assert (started["message"], completed["message"]) == ("ml_pipeline_started", "ml_pipeline_completed")
    for event in (started, completed):
        assert list(event) == [key for key in JSON_KEYS if key in event]
        assert (event["user_id"], event["operation"], event["run_id"]) == (
            "ml-pipeline",
            "logging_demo",
            started["run_id"],
        )
        assert event["context"]["object"] == "breast_cancer_wisconsin"
    assert started["context"]["seed"] == 0
    assert (completed["context"]["result"], completed["context"]["drifted_batches"]) == ("ok", 1)
    accuracy = _messages(lab / "ml_pipeline.log")[-1].split()[-1]
    assert f"{completed['context']['accuracy']:.4f}" == accuracy


def test_the_errors_have_their_full_tracebacks(lab: Path) -> None:
    """A division by zero and a missing file, each as Python tells it, indented below its line."""
    text = (lab / "errors.log").read_text()
    assert [(level, message) for level, _, message in _said(lab / "errors.log")] == [
        ("ERROR", "GET /latency: ZeroDivisionError: float division by zero"),
        (
            "ERROR",
            f"GET /earlier-model: FileNotFoundError: [Errno 2] No such file or directory: '{lab / 'earlier_model.pkl'}'",
        ),
    ]
    assert text.count("    Traceback (most recent call last):\n") == 2
    assert "return 1_000 * self.seconds / self.requests\n" in text
    assert text.count("_demo_service.py") >= 4
    assert text.endswith(f"    FileNotFoundError: [Errno 2] No such file or directory: '{lab / 'earlier_model.pkl'}'\n")


def test_it_runs_as_a_module_and_a_second_run_appends(isolated: Path) -> None:
    """What the first run wrote stays as it is; the folder is made."""
    command = [
        sys.executable,
        "-m",
        "ml_pipeline.examples.logging_demo",
        "--out",
        "a/b",
        "--epochs",
        "2",
        "--requests",
        "3",
    ]
    subprocess.run(command, check=True, capture_output=True)
    first = {name: (isolated / "a" / "b" / f"{name}.log").read_bytes() for name in NAMES}
    subprocess.run(command, check=True, capture_output=True)
    for name in NAMES:
        both = (isolated / "a" / "b" / f"{name}.log").read_bytes()
        assert both.startswith(first[name])
        assert both.count(b"\n") == 2 * first[name].count(b"\n")
    assert [path.name for path in isolated.iterdir()] == ["a"]


def test_a_seed_decides_everything_but_time(isolated: Path) -> None:
    """The same seed gives the same messages, another seed others."""
    for folder, seed in (("one", "0"), ("two", "0"), ("three", "11")):
        assert logging_demo.main(["--out", folder, "--seed", seed, "--epochs", "3"]) == 0
    for name in ("ml_pipeline", "predictions", "data_drift"):
        one, two, three = (_messages(isolated / folder / f"{name}.log") for folder in ("one", "two", "three"))
        assert one == two
        assert one != three


def test_nothing_is_left_open_or_changed(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No file handle, no thread, no handler; the loggers are as they were, and nothing lies in the package's folder."""

    def state() -> object:
        loggers = [logging.getLogger(name) for name in sorted(logging.Logger.manager.loggerDict) if name in of_demo]
        told = [(each.name, each.level, each.propagate, list(each.handlers)) for each in loggers]
        files = sorted(_open_files())
        return told, files, threading.active_count()

    logging_demo.main(["--requests", "1", "--epochs", "1"])  # imports what is imported late
    of_demo = [name for name in logging.Logger.manager.loggerDict if name.startswith("ml_pipeline.")]
    before = state()
    assert logging_demo.main(["--requests", "6", "--epochs", "1"]) == 0
    assert state() == before
    assert sorted(path.name for path in isolated.iterdir()) == [f"{name}.log" for name in NAMES]
    assert "Log files in " in capsys.readouterr().out


def _open_files() -> Iterator[str]:
    for descriptor in Path("/proc/self/fd").iterdir() if Path("/proc/self/fd").is_dir() else ():
        with suppress(FileNotFoundError):  # the one that lists them
            yield str(descriptor.readlink())


def test_settings_of_the_environment_do_not_bend_it(isolated: Path) -> None:
    """Level and format are the demo's own; a proxy is not asked for the loopback address; a run id is joined."""
    run_id = "01a1fec4-13f0-7000-8f39-8e0a028cfbd0"
    done = _demo(
        ML_PIPELINE_LOG_LEVEL="CRITICAL",
        ML_PIPELINE_LOG_FORMAT="json",
        ML_PIPELINE_RUN_ID=run_id,
        http_proxy="http://127.0.0.1:9",
        HTTP_PROXY="http://127.0.0.1:9",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert all(_said(isolated / f"{name}.log") for name in NAMES if name != "app_json")
    assert {json.loads(line)["run_id"] for line in (isolated / "app_json.log").read_text().splitlines()} == {run_id}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ("--out", "taken"),
            "error: --out must be a folder that can be written (got 'taken'); choose another (File exists)\n",
        ),
        (
            ("--out", "taken/below"),
            "error: --out must be a folder that can be written (got 'taken/below'); choose another (Not a directory)\n",
        ),
        (("--epochs", "0"), "error: --epochs must be between 1 and 1000000 (got 0); choose another number\n"),
        (("--requests", "0"), "error: --requests must be between 1 and 1000000 (got 0); choose another number\n"),
        (("--seed", "-1"), "error: --seed must be between 0 and 4294967295 (got -1); choose another number\n"),
        (("--nope",), "error: No such option: --nope See --help.\n"),
    ],
)
def test_a_bad_argument_is_one_clear_line(
    arguments: tuple[str, ...], line: str, isolated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit code 2, and nothing is written."""
    (isolated / "taken").write_text("")
    assert logging_demo.main(list(arguments)) == 2
    assert capsys.readouterr().err == line
    assert [path.name for path in isolated.iterdir()] == ["taken"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is written."""
    (isolated / "closed").mkdir(mode=0o500)
    assert logging_demo.main(["--out", "closed"]) == 2
    assert capsys.readouterr().err == (
        "error: --out must be a folder that can be written (got 'closed'); choose another, or change its permissions\n"
    )


def test_a_bad_setting_is_one_clear_line(isolated: Path) -> None:
    """As everywhere in the package."""
    done = _demo(ML_PIPELINE_LOG_LEVL="INFO")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "did you mean 'ML_PIPELINE_LOG_LEVEL'?" in done.stderr
    assert list(isolated.iterdir()) == []


def test_a_file_that_cannot_be_written_fails_the_run(isolated: Path) -> None:
    """The other six are whole; the failure is said once, counted, and decides the exit code."""
    (isolated / "monitoring.log").mkdir()
    done = _demo(ML_PIPELINE_STRICT="0")
    assert done.returncode == 1
    said, counted = done.stderr.splitlines()
    assert said.startswith("ml_pipeline: logging_demo: IsADirectoryError: ")
    assert counted == "error: 4 records could not be written, for the reason said above"
    assert re.search(r"^  monitoring\.log +0  ", done.stdout, re.MULTILINE)
    assert len((isolated / "app_json.log").read_text().splitlines()) == 2


def test_a_folder_cannot_steer_the_terminal(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Its name is shown on one line, escaped."""
    assert logging_demo.main(["--out", "a\x1b[31m\nb", "--epochs", "1", "--requests", "1"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_run_ends_cleanly(number: signal.Signals, code: int, isolated: Path) -> None:
    """In the middle of the requests: no traceback, whole lines, and no event says that it was completed."""
    process = subprocess.Popen(
        [sys.executable, str(DEMO), "--requests", "1000000", "--epochs", "1"], stderr=subprocess.PIPE, text=True
    )
    try:
        requests = isolated / "api_requests.log"
        eventually(lambda: requests.exists() and len(requests.read_bytes()) > 1_000, seconds=120)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
    assert process.returncode == code
    assert "Traceback" not in stderr
    assert stderr.count("\n") <= 1
    assert all((isolated / f"{name}.log").read_text().endswith("\n") for name in NAMES if name != "monitoring")
    assert [json.loads(line)["message"] for line in (isolated / "app_json.log").read_text().splitlines()] == [
        "ml_pipeline_started"
    ]


def test_help_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    """`--help` names every option."""
    assert logging_demo.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(option in text for option in ("--out", "--epochs", "--requests", "--seed", "--user"))


# The service


@pytest.fixture(scope="module")
def service() -> Service:
    """One with a model of one epoch, and loggers that write nothing."""
    silent = logging.getLogger("logging_demo_test")
    silent.setLevel(logging.CRITICAL + 1)
    table = logging_demo._ten_measurements(logging_demo.bundled_table())
    model, _, _ = logging_demo._train(silent, table, epochs=1, seed=0)
    return Service(model, dict.fromkeys(("api_requests", "predictions", "errors"), silent), Path("nowhere"))


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"{", "the body of a prediction request must be a JSON object (got b'{'); send one"),
        (b"\xff", r"the body of a prediction request must be a JSON object (got b'\xff'); send one"),
        (b"[1]", "the body of a prediction request must be a JSON object (got b'[1]'); send one"),
        (b"{}", "the feature 'mean radius' must be a number (got None); give every feature"),
        (b'{"mean radius": true}', "the feature 'mean radius' must be a number (got True); give every feature"),
        (b'{"mean radius": "1"}', "the feature 'mean radius' must be a number (got '1'); give every feature"),
    ],
)
def test_a_wrong_request_is_refused_with_its_reason(service: Service, body: bytes, error: str) -> None:
    """Status 400: rule, value and remedy; it counts as an error."""
    before = service.errors
    assert service.answer("POST", "/predict", body) == (400, {"error": error})
    assert service.errors == before + 1


def test_an_unknown_route_names_those_there_are(service: Service) -> None:
    """Status 404."""
    error = "the routes are POST /predict, GET /latency, GET /earlier-model"
    assert service.answer("GET", "/predict", b"") == (404, {"error": error})


def test_the_latency_is_an_average_once_there_are_requests(service: Service) -> None:
    """The failure of the demo is that of a service nobody has asked yet."""
    service.answer("GET", "/", b"")
    code, told = service.answer("GET", "/latency", b"")
    assert code == 200
    assert told["average_milliseconds"] > 0


def test_a_prediction_is_the_model_s(service: Service) -> None:
    """A row far on the benign side is approved, one far on the other is denied."""
    names = service._model.encoder.numeric
    data = load_breast_cancer()
    for rows, decision in ((data.target == 1, "approve"), (data.target == 0, "deny")):
        typical = np.median(data.data[rows][:, :10], axis=0).tolist()
        body = json.dumps(dict(zip(names, typical, strict=True))).encode()
        code, told = service.answer("POST", "/predict", body)
        assert (code, told["decision"]) == (200, decision)
        assert told["confidence"] > 0.5
