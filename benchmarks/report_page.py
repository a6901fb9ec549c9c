"""The page of a run: how long it takes to build, and how large it gets, as the run grows.

``make_summary`` and ``make_logs`` invent a run of any number of operations, a few of them failed; ``build`` writes its
page as a pipeline does. Run as a script it prints one line a size::

    python -m benchmarks.report_page [--operations 10 1000 10000]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import orjson

from benchmarks.harness import Case
from ml_pipeline.config._encoding import rfc3339
from ml_pipeline.report.page import write_report

__all__ = ["CASES", "build", "make_logs", "make_summary"]

STARTED = 1_795_000_000.0
STEP_SECONDS = 0.05
INNER = 9
FAILED_EVERY = 997
FEATURES = 30
BINS = 64

_PROGRAM = """
import json, sys
from benchmarks.report_page import build
seconds, size = build(int(sys.argv[1]))
print(json.dumps({"page_s": seconds, "page_kb": size / 1000}))
"""

CASES = [Case(f"{operations:,} operations", _PROGRAM, (str(operations),)) for operations in (10, 1_000, 10_000)]


def make_summary(operations: int) -> dict[str, Any]:
    """Invent the summary of a run.

    Args:
        operations: How many it has: one around all, and steps of nine inner operations each.

    Returns:
        What `RunRecorder.summary` would have returned, with scores, samples and drift.
    """
    run = _operation(0, "pipeline_run", 0.0, operations * STEP_SECONDS, status="failed")
    inner = []
    for number in range(1, operations):
        outer = number - (number - 1) % (INNER + 1)
        name = "batch" if number == outer else f"check_{number - outer}"
        status = "failed" if number % FAILED_EVERY == 0 else "ok"
        seconds = STEP_SECONDS * (INNER + 1 if number == outer else 1) * 0.9
        parent = "op-0" if number == outer else f"op-{outer}"
        inner.append(_operation(number, name, number * STEP_SECONDS, seconds, parent=parent, status=status))
    return {
        "run_id": "01a1fc3f-0e18-7000-8a30-b094bf394c1a",
        "pipeline": "benchmark",
        "status": "failed",
        "started": rfc3339(STARTED),
        "duration_seconds": operations * STEP_SECONDS,
        "operations": [run, *inner],
        "alerts": [_alert(number) for number in range(operations // FAILED_EVERY)],
        "resources": [_sample(number, operations) for number in range(240)],
        "drift_details": [_drift(batch) for batch in range(3)],
        "scores": {"roc_auc": 0.97, "accuracy": 0.94},
    }


def make_logs(folder: Path, summary: dict[str, Any]) -> None:
    """Write the log lines that the operations of a run would have left.

    Args:
        folder: The folder of the logs.
        summary: From `make_summary`.
    """
    ends = {"ok": ("complete", "INFO"), "failed": ("fail", "ERROR")}
    with (folder / "ml_pipeline.log").open("wb") as log:
        for op in sorted(summary["operations"][1:], key=lambda op: str(op["started"])):
            for event, level in (("start", "INFO"), ends[op["status"]]):
                line = {
                    "timestamp": op["started"],
                    "level": level,
                    "logger": "operation_logger",
                    "message": f"{op['name']} {event}",
                    "operation_id": op["operation_id"],
                    "run_id": summary["run_id"],
                    "context": {"event": event, "kind": "custom", "parent_id": op["parent_id"]},
                }
                log.write(orjson.dumps(line) + b"\n")


def build(operations: int) -> tuple[float, int]:
    """Write the page of a run.

    Args:
        operations: How many the run has.

    Returns:
        Seconds it took, with reading the logs and the disk's sync, and its size in bytes.
    """
    summary = make_summary(operations)
    with tempfile.TemporaryDirectory() as folder:
        make_logs(Path(folder), summary)
        begin = time.perf_counter()
        page = write_report(Path(folder) / "runs", summary, log_dir=Path(folder))
        return time.perf_counter() - begin, page.stat().st_size


def _operation(
    number: int, name: str, start: float, seconds: float, *, parent: str | None = None, status: str
) -> dict[str, Any]:
    return {
        "operation_id": f"op-{number}",
        "parent_id": parent,
        "kind": "custom",
        "name": name,
        "status": status,
        "started": rfc3339(STARTED + start),
        "duration_seconds": seconds,
        "counts": {"records": 64},
        "metrics": {},
        "error": "TimeoutError: the store did not answer" if status == "failed" else None,
    }


def _alert(number: int) -> dict[str, Any]:
    return {
        "time": rfc3339(STARTED + number),
        "kind": "processing_failure",
        "severity": "critical",
        "operation": "check",
        "message": "check failed: TimeoutError: the store did not answer",
    }


def _sample(number: int, operations: int) -> dict[str, Any]:
    return {
        "name": "run",
        "time": rfc3339(STARTED + number * operations * STEP_SECONDS / 240),
        "cpu_ratio": 0.5 + (number % 7) / 10,
        "memory_bytes": 200_000_000 + number * 100_000,
    }


def _drift(batch: int) -> dict[str, Any]:
    shares = [1 / BINS] * BINS
    edges = [number / 10 for number in range(BINS + 1)]
    features = [
        {
            "name": f"feature_{number}",
            "kind": "numeric",
            "verdict": "no_drift",
            "effect": 0.02 + number / 1000,
            "p_adjusted": 0.4,
            "labels": ["null", "infinite", "below", *(f"{edge:g}" for edge in edges[1:]), "above"],
            "edges": edges,
            "reference": [0.0, 0.0, 0.0, *shares, 0.0],
            "batch": [0.0, 0.0, 0.0, *shares, 0.0],
        }
        for number in range(FEATURES)
    ]
    about = {"verdict": "no_drift", "reason": f"none of {FEATURES} features drifted", "rows": 1_000}
    return {"batch": f"batch-{batch}", "detectable_shift": 0.2, "features": features, **about}


def main() -> None:
    """Print how long pages of several sizes take."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--operations", type=int, nargs="+", default=[10, 1_000, 10_000])
    print("operations   best of 5, s   size, kB")
    for operations in parser.parse_args().operations:
        results = [build(operations) for _ in range(5)]
        print(f"{operations:10,}   {min(results)[0]:12.3f}   {results[0][1] / 1000:8.1f}")


if __name__ == "__main__":
    main()
