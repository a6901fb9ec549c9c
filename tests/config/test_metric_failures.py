"""A failure outlives the process that had it, until the same kind of operation succeeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline._tally import Tally
from ml_pipeline.config._events import OperationEvent
from ml_pipeline.config._metric_failures import OpenFailures
from ml_pipeline.config.prometheus_metrics import PipelineMetrics

FAILING = """
from ml_pipeline.config.operation_logger import operation_logger
with operation_logger.operation("training"):
    raise ValueError("no labels")
"""
SUCCEEDING = FAILING.replace('raise ValueError("no labels")', "pass")
TELLING = """
from prometheus_client import REGISTRY
from ml_pipeline.config.operation_logger import operation_logger
with operation_logger.operation("ingestion"):
    pass
print(REGISTRY.get_sample_value("ml_pipeline_operation_last_failure_timestamp_seconds",
                                {"pipeline": "nightly", "kind": "training"}))
"""


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ML_PIPELINE_NAME": "nightly", "ML_PIPELINE_LOG_CONSOLE": "off"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_process_tells_of_the_failure_of_the_one_before_it(isolated: Path) -> None:
    """It has the time of that failure, of that kind alone, until a process succeeds at that kind."""
    assert _run(TELLING).stdout.strip() == "None"
    assert _run(FAILING).returncode == 1
    (kept,) = isolated.rglob("*.training.json")
    failed = kept.stat().st_mtime
    assert float(_run(TELLING).stdout) == pytest.approx(failed, abs=5.0)
    assert _run(SUCCEEDING).returncode == 0
    assert not kept.exists()
    assert _run(TELLING).stdout.strip() == "None"


def _metrics(pipeline: str = "test") -> tuple[PipelineMetrics, Any]:
    registry = CollectorRegistry()
    name = "ml_pipeline_operation_last_failure_timestamp_seconds"
    return PipelineMetrics(registry, Tally()), lambda kind: registry.get_sample_value(
        name, {"pipeline": pipeline, "kind": kind}
    )


def _end(type_: Any, kind: Any, time: float = 1705314700.5, pipeline: str = "test") -> OperationEvent:
    return OperationEvent(type=type_, kind=kind, name=kind, duration_seconds=0.3, time=time, pipeline=pipeline)


def test_only_the_same_kind_of_the_same_pipeline_makes_good() -> None:
    """A run that succeeds around it, or another pipeline's training, leaves a failed training open."""
    before, _ = _metrics()
    before(_end("fail", "training"))
    before(_end("complete", "custom"))
    before(_end("complete", "training", pipeline="other"))
    after, failure_of = _metrics()
    after(_end("complete", "ingestion"))
    assert failure_of("training") == 1705314700.5
    assert failure_of("ingestion") is None


def test_the_latest_failure_counts() -> None:
    """A second failure of a kind replaces the first."""
    metrics, _ = _metrics()
    metrics(_end("fail", "training", 1705314700.0))
    metrics(_end("fail", "training", 1705314800.0))
    assert OpenFailures().of("test") == {"training": 1705314800.0}


@given(st.text(st.characters(), max_size=300), st.integers(0, 4_000_000_000))
def test_any_name_of_a_pipeline(pipeline: str, seconds: int) -> None:
    """Names with slashes, dots, line ends and lone surrogates are kept apart like any other."""
    folder = Path("failures")
    failures = OpenFailures(lambda: folder)
    failures.failed(pipeline, "training", float(seconds))
    assert failures.of(pipeline) == {"training": float(seconds)}
    assert failures.of(pipeline + "x") == {}
    failures.made_good(pipeline, "training")
    assert failures.of(pipeline) == {}
    assert not list(folder.iterdir())


@pytest.mark.parametrize("content", [b"", b'{"kind": "training", "ti', b"[]", b'{"kind": "training", "time": "soon"}'])
def test_a_broken_file_is_passed_by(content: bytes) -> None:
    """What a full disk cut off tells nothing, and stops nothing."""
    failures = OpenFailures()
    failures.failed("test", "training", 1.0)
    failures.failed("test", "custom", 2.0)
    (path,) = _runtime.settings().data_dir.rglob("*.training.json")
    path.write_bytes(content)
    assert failures.of("test") == {"custom": 2.0}


def test_a_folder_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics move all the same, and the trouble is counted."""
    ml_pipeline.configure(strict=False)
    blocked = Path("blocked")
    blocked.write_text("a file where the folder should be")
    metrics, failure_of = _metrics()
    monkeypatch.setattr(metrics, "_failures", OpenFailures(lambda: blocked / "failed"))
    metrics(_end("fail", "training"))
    metrics(_end("complete", "ingestion"))
    assert failure_of("training") == 1705314700.5
    assert _runtime.tally.telemetry_errors["open_failures", "NotADirectoryError"] >= 1
