"""The summary of one run, collected from the event bus while it runs."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline._platform import replace_durably
from ml_pipeline.config._encoding import dumps, rfc3339, to_plain
from ml_pipeline.config._events import DEFAULT_BUS, AlertEvent, Bus, DriftEvent, Event, OperationEvent, ResourceSample

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

__all__ = ["RunRecorder", "write_summary"]

_MOST_OPERATIONS: Final = 10_000
_MOST_SAMPLES: Final = 1_000
_STATUS: Final = {"complete": "ok", "fail": "failed", "cancel": "cancelled", "abandon": "abandoned"}


class RunRecorder:
    """Listens while a run runs, and then says what happened; a ``with`` block or `start` and `stop`.

    Bounded: of more than 10,000 operations or 1,000 resource samples the first are kept and the rest are counted.

    Args:
        bus: What to listen to.
    """

    def __init__(self, bus: Bus = DEFAULT_BUS) -> None:
        self._bus = bus
        self._lock = threading.Lock()
        self._unsubscribe: Any = None
        self._operations: dict[str, dict[str, Any]] = {}
        self._alerts: dict[str, dict[str, Any]] = {}
        self._samples: list[dict[str, Any]] = []
        self._drift: list[dict[str, Any]] = []
        self._left_out = 0

    def __enter__(self) -> Self:
        self._unsubscribe = self._bus.subscribe("report", self)
        return self

    def __exit__(self, *_: object) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()

    def __call__(self, event: Event) -> None:
        """Take from the event what the summary needs."""
        with self._lock:
            match event:
                case OperationEvent() if not event.attributes.get("single"):
                    self._operation(event)
                case AlertEvent() if event.state in ("raised", "refined"):
                    self._alert(event)
                case ResourceSample() if len(self._samples) < _MOST_SAMPLES:
                    self._samples.append(_sample(event))
                case DriftEvent():
                    self._drift.append({name: getattr(event, name) for name in DriftEvent.__slots__})
                case _:
                    pass

    def summary(self, run_id: str, **facts: object) -> dict[str, Any]:
        """Return what is known of one run.

        Args:
            run_id: The run.
            **facts: What the caller knows beside it, such as ``scores`` and ``files``.

        Returns:
            Plain values, ready for JSON: ``run_id``, ``status``, ``started``, ``duration_seconds``, ``operations``,
            ``alerts``, ``resources``, ``drift``, ``telemetry_errors``, and the facts.
        """
        with self._lock:
            operations = [op for op in self._operations.values() if op["run_id"] == run_id]
            alerts = [alert for alert in self._alerts.values() if alert["run_id"] in (run_id, None)]
        outermost = next((op for op in operations if op["parent_id"] is None), {})
        plain: dict[str, Any] = to_plain(
            {
                "run_id": run_id,
                "pipeline": _runtime.settings().name,
                "status": outermost.get("status", "unknown"),
                "started": outermost.get("started"),
                "duration_seconds": outermost.get("duration_seconds"),
                "operations": operations,
                "operations_left_out": self._left_out,
                "alerts": alerts,
                "drift": self._drift,
                "resources": self._samples,
                "telemetry_errors": [
                    {"sink": sink, "error": error, "count": count}
                    for (sink, error), count in sorted(_runtime.tally.telemetry_errors.items())
                ],
                **facts,
            }
        )
        return plain

    def _operation(self, event: OperationEvent) -> None:
        known = self._operations.get(event.event_id if event.operation_id is None else event.operation_id)
        if known is None:
            if len(self._operations) >= _MOST_OPERATIONS:
                self._left_out += 1
                return
            known = self._operations[event.operation_id or event.event_id] = _opened(event)
        if event.type in _STATUS:
            known["status"] = _STATUS[event.type]
            known["duration_seconds"] = event.duration_seconds
            known["counts"], known["metrics"] = dict(event.counts), dict(event.metrics)
            known["error"] = f"{event.error.type}: {event.error.message}" if event.error else None

    def _alert(self, event: AlertEvent) -> None:
        self._alerts[event.alert_id] = {
            "alert_id": event.alert_id,
            "run_id": event.run_id,
            "time": rfc3339(event.time),
            "kind": event.kind,
            "severity": event.severity,
            "operation": event.operation,
            "message": event.message,
        }


def write_summary(folder: Path, summary: Mapping[str, Any]) -> Path:
    """Write ``<run_id>/summary.json`` below *folder*, and point ``latest`` at that run.

    Args:
        folder: The folder of all runs.
        summary: From `RunRecorder.summary`.

    Returns:
        The file.

    Raises:
        OSError: If it cannot be written.
    """
    path = folder / str(summary["run_id"]) / "summary.json"
    replace_durably(path, dumps(summary) + b"\n")
    point_latest(folder, str(summary["run_id"]))
    return path


def point_latest(folder: Path, run_id: str) -> None:
    """Make ``latest`` a link to a run's folder; where links are not to be had, a file that holds its name."""
    latest = folder / "latest"
    partial = folder / f".latest.{os.getpid()}.partial"
    partial.unlink(missing_ok=True)
    try:
        partial.symlink_to(run_id, target_is_directory=True)
    except OSError:
        partial.write_text(run_id + "\n", encoding="utf-8")
    partial.replace(latest)


def _opened(event: OperationEvent) -> dict[str, Any]:
    return {
        "operation_id": event.operation_id,
        "parent_id": event.parent_id,
        "run_id": event.run_id,
        "kind": event.kind,
        "name": event.name,
        "status": "open",
        "started": rfc3339(event.time),
        "duration_seconds": None,
        "counts": {},
        "metrics": {},
        "error": None,
    }


def _sample(event: ResourceSample) -> dict[str, Any]:
    return {
        "name": event.name,
        "time": rfc3339(event.time),
        "cpu_ratio": event.cpu_ratio,
        "memory_bytes": event.memory_bytes,
    }
