"""Summaries of runs that tests show: a fine one, and what can become of it."""

from __future__ import annotations

import datetime as dt
from typing import Any

__all__ = ["RUN_ID", "STARTED", "at", "drift_details", "failed_run", "fine_run", "operation"]

RUN_ID = "01a1fc3f-0e18-7000-8a30-b094bf394c1a"
STARTED = dt.datetime(2026, 11, 21, 9, 30, tzinfo=dt.UTC)
STEPS = ("data_ingestion", "data_validation", "model_training", "prediction")


def at(seconds: float) -> str:
    """Return a moment of the run as RFC 3339."""
    return (STARTED + dt.timedelta(seconds=seconds)).isoformat(timespec="microseconds").replace("+00:00", "Z")


def operation(
    number: int, name: str, *, parent: int | None = 0, status: str = "ok", start: float = 0.0, seconds: float = 1.0
) -> dict[str, Any]:
    """Return one operation; number 0 is the outermost."""
    return {
        "operation_id": f"op-{number}",
        "parent_id": None if parent is None else f"op-{parent}",
        "run_id": RUN_ID,
        "kind": "custom",
        "name": name,
        "status": status,
        "started": at(start),
        "duration_seconds": None if status == "open" else seconds,
        "counts": {"records": 569},
        "metrics": {},
        "error": "TimeoutError: the store did not answer" if status == "failed" else None,
    }


def fine_run(**changes: object) -> dict[str, Any]:
    """Return the summary of a run in which all went well."""
    steps = [operation(number, name, start=number - 1) for number, name in enumerate(STEPS, 1)]
    return {
        "run_id": RUN_ID,
        "pipeline": "clinic",
        "status": "ok",
        "started": at(0),
        "duration_seconds": 4.0,
        "operations": [operation(0, "pipeline_run", parent=None, seconds=4.0), *steps],
        "operations_left_out": 0,
        "alerts": [],
        "drift": [],
        "resources": [
            {"name": "run", "time": at(second / 10), "cpu_ratio": 0.5, "memory_bytes": 2e8} for second in range(40)
        ],
        "telemetry_errors": [],
        "dataset": "visits 052841a65ec7",
        "model_version": "12f4521d0348",
        "scores": {"accuracy": 0.94, "roc_auc": 0.9758},
        "predictions": 1140,
        "drift_details": [drift_details("batch-1")],
        "error": None,
        "files": {"Logs": "ml_pipeline/logs"},
        **changes,
    }


def failed_run(**changes: object) -> dict[str, Any]:
    """Return the summary of the run when training fails."""
    run = fine_run(status="failed", scores={}, predictions=0, model_version="", drift_details=[])
    run["operations"] = [
        operation(0, "pipeline_run", parent=None, status="failed", seconds=3.0),
        *run["operations"][1:3],
        operation(3, "model_training", status="failed", start=2.0, seconds=0.5),
    ]
    run["error"] = run["operations"][0]["error"]
    run["alerts"] = [
        {
            "severity": "critical",
            "time": at(2.5),
            "kind": "processing_failure",
            "operation": "model_training",
            "message": "model_training failed: TimeoutError: the store did not answer",
        }
    ]
    return run | changes


def drift_details(batch: str, verdict: str = "no_drift", effect: float = 0.03) -> dict[str, Any]:
    """Return what a pipeline tells of a drift check of one numeric and one categorical feature."""
    return {
        "batch": batch,
        "verdict": verdict,
        "reason": "1 of 2 features drifted: age" if verdict == "drift" else "none of 2 features drifted",
        "rows": 64,
        "detectable_shift": 0.3,
        "features": [
            {
                "name": "age",
                "kind": "numeric",
                "verdict": verdict,
                "effect": effect,
                "p_adjusted": 0.0004,
                "labels": ["null", "infinite", "below 40", "40 to 60", "60 to 80", "above 80"],
                "edges": [40.0, 60.0, 80.0],
                "reference": [0.0, 0.0, 0.0, 0.5, 0.5, 0.0],
                "batch": [0.1, 0.0, 0.0, 0.1, 0.6, 0.2],
            },
            {
                "name": "site",
                "kind": "categorical",
                "verdict": "no_drift",
                "effect": 0.01,
                "p_adjusted": 0.7,
                "labels": ["null", "infinite", "A", "B", "other", "unseen"],
                "edges": [],
                "reference": [0.0, 0.0, 0.6, 0.4, 0.0, 0.0],
                "batch": [0.0, 0.0, 0.5, 0.49, 0.0, 0.01],
            },
        ],
    }
