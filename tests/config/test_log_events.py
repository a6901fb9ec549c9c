"""Every event as a log line: its channel, level, message and ids; a caller's fields beside ours."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline.config import logging_config
from ml_pipeline.config._events import (
    AlertEvent,
    Bus,
    DriftEvent,
    ErrorInfo,
    Event,
    LineageEdge,
    LineageEvent,
    LineageNode,
    OperationEvent,
    ResourceSample,
)
from ml_pipeline.config._log_events import EventLog, takes_colour
from ml_pipeline.config._routes import OPERATIONS
from ml_pipeline.config.logging_config import main_logger

LOGS = Path("ml_pipeline/logs")


def _lines(name: str = "ml_pipeline.log") -> list[dict[str, Any]]:
    path = LOGS / name
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def _told(*events: Event) -> None:
    bus = Bus()
    logging_config.subscribe_to(bus)
    for event in events:
        bus.publish(event)


def _operation(type_: Any = "complete", kind: Any = "custom", **known: Any) -> OperationEvent:
    known = {"name": OPERATIONS[kind].name, "operation_id": "op", "run_id": "run", "duration_seconds": 1.5, **known}
    return OperationEvent(type=type_, kind=kind, **known)


def test_an_operations_line() -> None:
    """The line of an end has the event's own time and ids, and counts, scores and duration under context."""
    _told(
        _operation(
            time=1705314625.123,
            user_id="ann",
            parent_id="above",
            pipeline="adni",
            attributes={"source_name": "ADNI"},
            counts={"records": 1_234_567},
            metrics={"roc_auc": 0.925},
        )
    )
    (line,) = _lines()
    assert line.pop("process")
    assert line.pop("thread")
    assert line["context"].pop("event_id")
    assert line == {
        "timestamp": "2024-01-15T10:30:25.123000Z",
        "level": "INFO",
        "logger": "operation_logger",
        "channel": "ml_pipeline",
        "message": "operation completed after 1.500 s (records=1234567, roc_auc=0.925)",
        "pipeline": "adni",
        "operation": "operation",
        "operation_id": "op",
        "run_id": "run",
        "user_id": "ann",
        "context": {
            "event": "complete",
            "kind": "custom",
            "parent_id": "above",
            "counts": {"records": 1234567},
            "metrics": {"roc_auc": 0.925},
            "duration_seconds": 1.5,
            "source_name": "ADNI",
        },
    }


@pytest.mark.parametrize(
    ("type_", "level", "message"),
    [
        ("start", "INFO", "operation started"),
        ("progress", "INFO", "operation in progress: done=1"),
        ("complete", "INFO", "operation completed after 1.500 s (done=1)"),
        ("fail", "ERROR", "operation failed after 1.500 s: E: why (done=1)"),
        ("cancel", "WARNING", "operation cancelled after 1.500 s: E: why (done=1)"),
        ("abandon", "WARNING", "operation abandoned after 1.500 s: E: why (done=1)"),
    ],
)
def test_levels_and_messages(type_: str, level: str, message: str) -> None:
    """Failures are errors, cancelled and abandoned operations warnings; the message says what, how long and why."""
    error = ErrorInfo("E", "why", "trace") if type_ in ("fail", "cancel", "abandon") else None
    _told(_operation(type_, counts={"done": 1}, error=error))
    (line,) = _lines()
    assert (line["level"], line["message"]) == (level, message)
    assert line.get("exception") == ({"type": "E", "message": "why", "stacktrace": "trace"} if error else None)
    assert _lines("errors.log") == ([line] if level == "ERROR" else [])


def test_an_error_that_is_only_a_text() -> None:
    """A failure told in words has no exception type, and its line no empty fields."""
    _told(_operation("fail", error=ErrorInfo("", "Connection timeout"), duration_seconds=None))
    (line,) = _lines()
    assert line["message"] == "operation failed: error: Connection timeout"
    assert line["exception"] == {"message": "Connection timeout"}
    _told(_operation("progress"))
    assert _lines()[1]["message"] == "operation in progress"


@pytest.mark.parametrize(
    ("kind", "attributes", "expected"),
    [
        (
            "training",
            {"model_name": "clf", "model_version": "1.0.0", "dataset_name": "adni", "dataset_version": "v1"},
            ("clf", "1.0.0", {"dataset_name": "adni", "dataset_version": "v1"}),
        ),
        ("training", {"model_name": "clf", "dataset_version": "v1"}, ("clf", None, {"dataset_version": "v1"})),
        (
            "feature_extraction",
            {"dataset_name": "adni", "dataset_version": "v1", "output_name": "f", "output_version": "9"},
            ("f", "9", {"dataset_name": "adni", "dataset_version": "v1"}),
        ),
        (
            "prediction",
            {"model_name": "clf", "model_version": "2", "batch": "june"},
            ("clf", "2", {"batch": "june"}),
        ),
        ("ingestion", {"source_name": "clinic"}, ("clinic", None, {})),
    ],
)
def test_an_object_is_audited_with_its_own_version(kind: Any, attributes: dict[str, str], expected: Any) -> None:
    """The version beside an object is that object's; the other names and versions stand beside it."""
    _told(_operation(kind=kind, attributes=attributes))
    context = _lines("audit.log")[0]["context"]
    assert (context["object"], context.get("version")) == expected[:2]
    assert expected[2].items() <= context.items()


def test_a_validation_that_found_faults_is_audited_as_a_failure() -> None:
    """The operation ran to its end, and the data did not pass: the trail says so, with the checks."""
    _told(_operation(kind="validation", attributes={"dataset_name": "d", "checks": {"no_nulls": False}}))
    context = _lines("audit.log")[0]["context"]
    assert (context["result"], context["checks"]) == ("failure", {"no_nulls": False})


def test_a_single_prediction_has_its_own_file_and_is_not_audited() -> None:
    """One prediction is a line in predictions.log; the batch around it is what is audited."""
    _told(_operation(kind="prediction", attributes={"single": True, "decision": "AD"}, metrics={"confidence": 0.9}))
    (line,) = _lines("inference/predictions.log")
    assert (line["message"], line["context"]["metrics"]) == ("prediction: AD", {"confidence": 0.9})
    assert not (LOGS / "audit.log").exists()
    _told(_operation(kind="prediction", attributes={"batch": "b1"}))
    assert _lines("audit.log")[0]["context"]["object"] == "b1"


def test_a_callers_field_never_takes_the_place_of_ours() -> None:
    """Attributes with names of our own fields lie below ``given``; nothing is lost and nothing forged."""
    attributes = {"event": "fail", "kind": "x", "counts": 5, "event_id": "mine", "parent_id": "p", "rows": 3}
    _told(_operation("start", attributes=attributes, duration_seconds=None))
    context = _lines()[0]["context"]
    assert context.pop("event_id") != "mine"
    assert context == {
        "event": "start",
        "kind": "custom",
        "given": {"event": "fail", "kind": "x", "counts": 5, "event_id": "mine", "parent_id": "p"},
        "rows": 3,
    }


class Evil:
    """An object that refuses everything it can be asked."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("evil")

    __repr__ = __str__ = __bool__ = __len__ = __iter__ = __format__ = __eq__ = __getattr__ = _refuse
    __hash__ = _refuse


hostile = st.one_of(
    st.builds(Evil),
    st.text(st.characters(exclude_categories=())),
    st.binary(),
    st.floats(),
    st.lists(st.floats(), max_size=3).map(np.array),
    st.just("x\n2024-01-15 10:30:25,123 - INFO - root - forged"),
)
KEYS = [
    "dataset_name",
    "model_name",
    "batch",
    "decision",
    "dataset_version",
    "single",
    "event",
    "name",
    "message",
    "\n",
]


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(sorted(OPERATIONS)),
    attributes=st.dictionaries(st.sampled_from(KEYS), hostile, max_size=5),
    name=st.text(min_size=1),
    text=st.booleans(),
)
def test_hostile_attributes_make_one_line(kind: str, attributes: dict[str, Any], name: str, *, text: bool) -> None:
    """Whatever is said of an operation, each event is one line in the log, and one in the audit trail."""
    if "single" in attributes:
        attributes["single"] = True
    with ml_pipeline.override(log_format="text" if text else "json", log_dir=Path(f"logs_{id(attributes)}")) as now:
        _told(_operation("complete", kind, attributes=attributes, name=name))
        files = {path.name: path.read_bytes() for path in now.log_dir.rglob("*.log")}
        for path in now.log_dir.rglob("*.log"):
            path.unlink()
    audited = OPERATIONS[kind].audited and "single" not in attributes
    assert sorted(files) == sorted(
        [*(["audit.log"] if audited else []), "predictions.log" if "single" in attributes else "ml_pipeline.log"]
    )
    assert all(len(content.decode("utf-8").splitlines()) == 1 for content in files.values())


def test_an_array_is_a_fact_like_any_other() -> None:
    """An attribute that is an array, which cannot be tested for truth, does not lose the line."""
    weights = np.array([0.2, 0.8])
    _told(_operation(kind="training", attributes={"class_weights": weights, "model_name": np.array(["m"])}))
    assert _lines()[0]["context"]["class_weights"] == [0.2, 0.8]
    assert _lines("audit.log")[0]["context"]["object"] == "['m']"


def _alert(severity: Literal["info", "warning", "critical"]) -> AlertEvent:
    return AlertEvent(
        alert_id="a1", state="raised", kind="data_quality", severity=severity, message="bad rows", details={"rows": 3}
    )


@pytest.mark.parametrize(("severity", "level"), [("info", "INFO"), ("warning", "WARNING"), ("critical", "ERROR")])
def test_alerts(severity: Literal["info", "warning", "critical"], level: str) -> None:
    """An alert's line has the level of its severity, and everything that is known of it."""
    _told(_alert(severity))
    (line,) = _lines()
    assert (line["level"], line["logger"]) == (level, "alerting")
    assert line["message"] == f"Alert raised ({severity}, data_quality): bad rows"
    assert line["context"]["details"] == {"rows": 3}
    assert "reason" not in line["context"]


def test_resource_samples() -> None:
    """A sample lies in system_metrics.log."""
    _told(ResourceSample(name="training", cpu_ratio=1.25, memory_bytes=2**30, memory_available_bytes=2**31))
    (line,) = _lines("monitoring/system_metrics.log")
    assert (line["message"], line["level"]) == ("training: cpu 125%, memory 1024 MiB", "INFO")
    assert line["context"]["memory_bytes"] == 2**30


@pytest.mark.parametrize(
    ("verdict", "level"), [("drift", "WARNING"), ("no_drift", "INFO"), ("insufficient_data", "INFO")]
)
def test_drift_verdicts(verdict: Any, level: str) -> None:
    """A verdict lies in data_drift.log; drift is a warning."""
    _told(DriftEvent(model="m", batch="b", verdict=verdict, rows=9, effects={"age": 0.5}, reason="Because."))
    (line,) = _lines("monitoring/data_drift.log")
    assert (line["message"], line["level"]) == (f"m b: {verdict}. Because.", level)
    assert line["context"]["effects"] == {"age": 0.5}


def test_lineage() -> None:
    """Recorded lineage is a line with the nodes' ids."""
    node = LineageNode(node_id="data:1", type="data", name="ADNI")
    edge = LineageEdge(source_id="source:1", target_id="data:1", kind="ingestion")
    _told(LineageEvent(kind="ingestion", nodes=(node,), edges=(edge,), automatic=True))
    (line,) = _lines()
    assert (line["message"], line["logger"]) == ("Lineage recorded: ingestion of data ADNI", "data_lineage")
    assert line["context"]["nodes"] == ["data:1"]


def test_levels_hold_for_events_and_not_for_the_audit_trail() -> None:
    """Under LOG_LEVEL=ERROR a completed training leaves no line, and its audit record all the same."""
    ml_pipeline.configure(log_level="ERROR")
    _told(_operation(kind="training"), _operation("fail", kind="training"))
    assert [line["level"] for line in _lines()] == ["ERROR"]
    assert [line["context"]["result"] for line in _lines("audit.log")] == ["success", "failure"]


def test_event_records_reach_foreign_handlers_with_their_time(caplog: pytest.LogCaptureFixture) -> None:
    """Other handlers get a record like any other, with the event's time and no false call site."""
    _told(_operation(time=1705314625.123))
    (record,) = caplog.records
    assert (record.created, record.msecs, record.pathname) == (1705314625.123, 123.0, "")
    assert (
        logging.Formatter("%(asctime)s %(message)s").format(record).endswith(",123 operation completed after 1.500 s")
    )
    assert main_logger.handlers


def test_what_is_required_is_asked_before_the_start_is_logged() -> None:
    """The trail is checked before the first line of an audited operation, and not for others."""
    asked: list[str] = []
    log = EventLog(
        logging_config.get_logger,
        lambda fields: asked.append(f"written {fields['message']}"),
        lambda: asked.append(f"required, lines so far: {len(_lines())}"),
    )
    for event in (_operation("start", "training"), _operation("start"), _operation("complete", "training")):
        log(event)
    assert asked == ["required, lines so far: 0", "written training"]


def test_colour_is_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that is no terminal, or says nothing about it, gets no colour; NO_COLOR wins."""

    class Terminal:
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    assert takes_colour(Terminal())
    assert not takes_colour(object())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not takes_colour(Terminal())
