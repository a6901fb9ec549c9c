"""The recorder: everything of one run, nothing of another, within bounds that cut no run short."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ml_pipeline.config._events import AlertEvent, Bus, DriftEvent, ErrorInfo, OperationEvent
from ml_pipeline.report.summary import RunRecorder, write_summary
from tests.report.runs import RUN_ID


def _start(number: int, **changes: object) -> OperationEvent:
    about = {"run_id": RUN_ID, "operation_id": f"op-{number}", "parent_id": "op-0" if number else None}
    return OperationEvent(type="start", kind="custom", name=f"step {number}", **(about | changes))  # type: ignore[arg-type]


def _fail(number: int) -> OperationEvent:
    return OperationEvent(
        type="fail",
        kind="custom",
        name=f"step {number}",
        run_id=RUN_ID,
        operation_id=f"op-{number}",
        parent_id="op-0",
        time=1_000.0,
        duration_seconds=10.0,
        error=ErrorInfo("OSError", "disk full"),
    )


def test_a_long_run_is_kept_whole(tmp_path: Path) -> None:
    """Ten thousand operations are in the summary, and in its file, each with its ids."""
    bus = Bus()
    with RunRecorder(bus) as recorder:
        for number in range(10_000):
            bus.publish(_start(number))
        summary = recorder.summary(RUN_ID)
    assert len(summary["operations"]) == 10_000
    assert (summary["status"], summary["operations_left_out"]) == ("open", 0)
    written = json.loads(write_summary(tmp_path, summary).read_bytes())
    assert written == summary
    assert [op["operation_id"] for op in written["operations"]] == [f"op-{number}" for number in range(10_000)]
    assert (tmp_path / "latest" / "summary.json").read_bytes() == (tmp_path / RUN_ID / "summary.json").read_bytes()


def test_past_the_bound_failures_are_still_kept() -> None:
    """A step that fails after ten thousand others is what the reader looks for; the others are counted."""
    bus = Bus()
    with RunRecorder(bus) as recorder:
        for number in range(10_003):
            bus.publish(_start(number))
        bus.publish(_fail(10_001))
        summary = recorder.summary(RUN_ID)
    assert summary["operations_left_out"] == 2
    last = summary["operations"][-1]
    assert (last["name"], last["status"], last["error"]) == ("step 10001", "failed", "OSError: disk full")
    assert last["started"] == "1970-01-01T00:16:30.000000Z", "ten seconds before it failed"


def test_runs_are_kept_apart() -> None:
    """Operations, alerts and drift of another run are not in the summary; alerts of no run are."""
    bus = Bus()
    alert = {"kind": "data_drift", "severity": "warning", "message": "m", "state": "raised"}
    drift = {"model": "m", "verdict": "drift", "rows": 5}
    with RunRecorder(bus) as recorder:
        for run_id in (RUN_ID, "another", None):
            bus.publish(AlertEvent(alert_id=f"alert of {run_id}", run_id=run_id, **alert))  # type: ignore[arg-type]
            bus.publish(DriftEvent(batch=f"batch of {run_id}", run_id=run_id, **drift))  # type: ignore[arg-type]
        bus.publish(_start(1, run_id="another"))
        summary = recorder.summary(RUN_ID)
    assert summary["operations"] == []
    assert summary["status"] == "unknown"
    assert [each["alert_id"] for each in summary["alerts"]] == [f"alert of {RUN_ID}", "alert of None"]
    assert [each["batch"] for each in summary["drift"]] == [f"batch of {RUN_ID}", "batch of None"]


def test_alerts_are_bounded() -> None:
    """The first thousand; what refines one of them is taken in."""
    bus = Bus()
    with RunRecorder(bus) as recorder:
        for number in range(1_100):
            about = {"alert_id": f"a{number % 1_050}", "kind": "k", "severity": "info", "state": "raised"}
            bus.publish(AlertEvent(message=f"alert {number}", run_id=RUN_ID, **about))  # type: ignore[arg-type]
        alerts = recorder.summary(RUN_ID)["alerts"]
    assert len(alerts) == 1_000
    assert alerts[0]["message"] == "alert 1050"


def test_facts_are_made_plain() -> None:
    """What the caller knows beside it goes in as plain values, each item of a list within bounds of its own."""
    details = [{"features": [{"name": str(number), "edges": (0.5,) * 900}] * 20} for number in range(10)]
    summary = RunRecorder(Bus()).summary(RUN_ID, drift_details=details, model=Path("a/b"))
    assert summary["model"] == "a/b"
    assert [len(each["features"][-1]["edges"]) for each in summary["drift_details"]] == [900] * 10


def test_a_run_has_samples_of_its_own() -> None:
    """However short it was, and only while it was recorded."""
    with RunRecorder(Bus()) as recorder:
        summary = recorder.summary(RUN_ID)
    assert summary["resources"][0]["name"] == "run"
    assert summary["resources"][0]["memory_bytes"] > 0


def test_the_recorder_ends_with_its_block() -> None:
    """Afterwards nothing is taken in, also where the block raised."""
    bus = Bus()
    recorder = RunRecorder(bus)
    with pytest.raises(ValueError, match="stop"), recorder:
        raise ValueError("stop")
    bus.publish(_start(0))
    assert recorder.summary(RUN_ID)["operations"] == []
