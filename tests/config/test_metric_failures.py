"""A failure outlives the process that had it, and so does the success that made it good."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
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
from ml_pipeline.config._metric_failures import Ends, OpenFailures
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
for end in ("failure", "success"):
    name = f"ml_pipeline_operation_last_{end}_timestamp_seconds"
    print(REGISTRY.get_sample_value(name, {"pipeline": "nightly", "kind": "training"}))
"""
KILLED = FAILING.replace('raise ValueError("no labels")', "import os; os.kill(os.getpid(), 9)")


def _run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ML_PIPELINE_NAME": "nightly", "ML_PIPELINE_LOG_CONSOLE": "off"},
        capture_output=True,
        text=True,
        check=False,
    )


def _told() -> list[float | None]:
    """When training failed and succeeded, as a new process tells."""
    return [None if line == "None" else float(line) for line in _run(TELLING).stdout.split()]


def test_a_process_tells_of_the_failure_of_the_one_before_it() -> None:
    """It has the time of that failure, and, once a process has succeeded since, the time of that too."""
    assert _told() == [None, None]
    began = time.time()
    assert _run(FAILING).returncode == 1
    failed, _ = _told()
    assert failed is not None
    assert began < failed < time.time()
    assert _told() == [failed, None]
    assert _run(SUCCEEDING).returncode == 0
    again, succeeded = _told()
    assert again == failed
    assert succeeded is not None
    assert failed < succeeded < time.time()


def test_what_a_kill_left_open_is_a_failure() -> None:
    """The next process finds it, and tells of it like of a step that failed."""
    began = time.time()
    assert _run(KILLED).returncode == -9
    failed, succeeded = _told()
    assert failed is not None
    assert began < failed < time.time()
    assert succeeded is None


NOW = 1705314700.5
WEEK_SECONDS = 7 * 86_400


def _failures() -> OpenFailures:
    return OpenFailures(now=lambda: NOW)


def _metrics(failures: OpenFailures | None = None) -> tuple[PipelineMetrics, Any]:
    registry = CollectorRegistry()
    metrics = PipelineMetrics(registry, Tally(), failures or _failures())
    name = "ml_pipeline_operation_last_failure_timestamp_seconds"
    return metrics, lambda kind: registry.get_sample_value(name, {"pipeline": "test", "kind": kind})


def _end(type_: Any, kind: Any, time: float = NOW, pipeline: str = "test") -> OperationEvent:
    return OperationEvent(type=type_, kind=kind, name=kind, duration_seconds=0.3, time=time, pipeline=pipeline)


def test_only_the_same_kind_of_the_same_pipeline_makes_good() -> None:
    """A run that succeeds around it, or another pipeline's training, leaves a failed training open."""
    before, _ = _metrics()
    before(_end("fail", "training"))
    before(_end("complete", "custom"))
    before(_end("complete", "training", pipeline="other"))
    assert _failures().of("test") == {"training": Ends(NOW)}
    after, failure_of = _metrics()
    after(_end("complete", "ingestion"))
    assert failure_of("training") == NOW
    assert failure_of("ingestion") is None


def test_the_latest_failure_and_the_first_success_after_it_count() -> None:
    """A second failure of a kind replaces the first, made good or not; later successes change nothing."""
    metrics, _ = _metrics()
    for type_, at in (("fail", 1.0), ("complete", 2.0), ("fail", 3.0)):
        metrics(_end(type_, "training", NOW + at))
    assert _failures().of("test") == {"training": Ends(NOW + 3)}
    metrics(_end("complete", "training", NOW + 4))
    metrics(_end("complete", "training", NOW + 5))
    assert _failures().of("test") == {"training": Ends(NOW + 3, NOW + 4)}


def test_after_a_week_nobody_tells_of_it() -> None:
    """A step that is no longer done is not red for ever: its file goes."""
    failures = _failures()
    failures.failed("test", "deployment", NOW - WEEK_SECONDS - 1)
    failures.failed("test", "training", NOW - WEEK_SECONDS + 1)
    assert set(failures.of("test")) == {"training"}
    assert [path.name.split(".")[1] for path in _runtime.settings().data_dir.rglob("*.json")] == ["training"]


@given(st.text(st.characters(), max_size=300), st.integers(0, 4_000_000_000))
def test_any_name_of_a_pipeline(pipeline: str, seconds: int) -> None:
    """Names with slashes, dots, line ends and lone surrogates are kept apart like any other."""
    folder = Path(tempfile.mkdtemp(dir="."))  # of this example alone
    failures = OpenFailures(lambda: folder, now=lambda: float(seconds))
    failures.failed(pipeline, "training", float(seconds))
    assert failures.of(pipeline) == {"training": Ends(float(seconds))}
    assert failures.of(pipeline + "x") == {}
    failures.succeeded(pipeline, "training", seconds + 1.0)
    assert failures.of(pipeline) == {"training": Ends(float(seconds), seconds + 1.0)}


@pytest.mark.parametrize(
    "content",
    [b"", b'{"kind": "training", "fai', b"[]", b'{"kind": "training"}', b'{"kind": "training", "failure": "soon"}'],
)
def test_a_broken_file_tells_nothing(content: bytes) -> None:
    """What a full disk cut off stops nothing, and goes with the next success or the next start."""
    failures = _failures()
    for clear in (lambda: failures.of("test"), lambda: failures.succeeded("test", "training", NOW)):
        failures.failed("test", "training", NOW)
        failures.failed("test", "custom", NOW)
        (path,) = _runtime.settings().data_dir.rglob("*.training.json")
        path.write_bytes(content)
        clear()
        assert not path.exists()
        assert failures.of("test") == {"custom": Ends(NOW)}


def test_a_folder_that_cannot_be_written_stops_nothing() -> None:
    """The metrics move all the same, and the trouble is counted."""
    ml_pipeline.configure(strict=False)
    Path("blocked").write_text("a file where the folder should be")
    metrics, failure_of = _metrics(OpenFailures(lambda: Path("blocked/failed")))
    metrics(_end("fail", "training"))
    metrics(_end("complete", "ingestion"))
    assert failure_of("training") == NOW
    assert _runtime.tally.telemetry_errors["open_failures", "NotADirectoryError"] >= 1
