"""The summary of one run, collected from the event bus while it runs."""

from __future__ import annotations

import os
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline._platform import replace_durably
from ml_pipeline.config._encoding import encode, rfc3339, to_plain
from ml_pipeline.config._events import DEFAULT_BUS, AlertEvent, Bus, DriftEvent, Event, OperationEvent, ResourceSample
from ml_pipeline.config._redaction import current
from ml_pipeline.report.samples import RunSampler, Samples

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

__all__ = ["RunRecorder", "write_summary"]

_TAKEN: Final = frozenset({OperationEvent, AlertEvent, ResourceSample, DriftEvent})
_MOST_OPERATIONS: Final = 10_000
_MOST_FAILED: Final = 1_000
_MOST_ALERTS: Final = 1_000
_MOST_DRIFT_CHECKS: Final = 1_000
_MOST_ITEMS: Final = 20_000
_OWN_ITEMS: Final = ("operations", "alerts", "drift", "resources", "telemetry_errors")
_IDS: Final = (frozenset({"operation_id", "parent_id", "run_id", "alert_id", "event_id", "user_id", "pipeline"}),)
_STATUS: Final = {"complete": "ok", "fail": "failed", "cancel": "cancelled", "abandon": "abandoned"}


class RunRecorder:
    """Listens while a run runs, and then says what happened; a ``with`` block.

    Bounded: of more than 10,000 operations the first are kept, and up to 1,000 later ones that failed, for these are
    what a reader looks for; the rest are counted. Of resource samples at most 240 a name are kept, spread over the run.

    Args:
        bus: What to listen to.
    """

    def __init__(self, bus: Bus = DEFAULT_BUS) -> None:
        self._bus = bus
        self._lock = threading.Lock()
        self._unsubscribe: Any = None
        self._operations: dict[str, dict[str, Any]] = {}
        self._alerts: dict[str, dict[str, Any]] = {}
        self._held_back: Counter[str | None] = Counter()
        self._drift: list[tuple[str | None, dict[str, Any]]] = []
        self._samples = Samples()
        self._sampler = RunSampler()
        self._left_out = 0

    def __enter__(self) -> Self:
        self._unsubscribe = self._bus.subscribe("report", self, _TAKEN.__contains__)
        self._sampler.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._sampler.__exit__()
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
                case AlertEvent() if event.state == "suppressed" and event.reason == "cooldown":
                    self._held_back[event.run_id] += event.count
                case ResourceSample():
                    self._samples.add(event)
                case DriftEvent() if len(self._drift) < _MOST_DRIFT_CHECKS:
                    self._drift.append((event.run_id, {name: getattr(event, name) for name in DriftEvent.__slots__}))
                case _:
                    pass

    def summary(self, run_id: str, **facts: object) -> dict[str, Any]:
        """Return what is known of one run.

        Args:
            run_id: The run.
            **facts: What the caller knows beside it, such as ``scores`` and ``files``.

        Returns:
            Plain values, ready for JSON: ``run_id``, ``status``, ``started``, ``duration_seconds``, ``operations``,
            ``alerts``, ``alerts_held_back`` (repeats of alerts raised earlier), ``resources``, ``drift``,
            ``telemetry_errors``, and the facts.
        """
        with self._lock:
            operations = [op for op in self._operations.values() if op["run_id"] == run_id]
            alerts = [alert for alert in self._alerts.values() if alert["run_id"] in (run_id, None)]
            drift = [check for of_run, check in self._drift if of_run in (run_id, None)]
            resources = self._samples.of_run(run_id) + self._sampler.samples()
        outermost = next((op for op in operations if op["parent_id"] is None), {})
        return _plain(
            {
                "run_id": run_id,
                "pipeline": _runtime.settings().name,
                "status": outermost.get("status", "unknown"),
                "started": outermost.get("started"),
                "duration_seconds": outermost.get("duration_seconds"),
                "operations": operations,
                "operations_left_out": self._left_out,
                "alerts": alerts,
                "alerts_held_back": self._held_back[run_id] + self._held_back[None],
                "drift": drift,
                "resources": resources,
                "telemetry_errors": [
                    {"sink": sink, "error": error, "count": count}
                    for (sink, error), count in sorted(_runtime.tally.telemetry_errors.items())
                ],
                **facts,
            }
        )

    def _operation(self, event: OperationEvent) -> None:
        key = event.operation_id or event.event_id
        known = self._operations.get(key)
        if known is None:
            if not self._has_room(event):
                return
            known = self._operations[key] = _opened(event)
        if event.type in _STATUS:
            known["status"] = _STATUS[event.type]
            known["duration_seconds"] = event.duration_seconds
            known["counts"], known["metrics"] = dict(event.counts), dict(event.metrics)
            known["error"] = f"{event.error.type}: {event.error.message}" if event.error else None

    def _has_room(self, event: OperationEvent) -> bool:
        """Say whether one more operation is kept, and count it where it is not; called with the lock held."""
        if len(self._operations) < _MOST_OPERATIONS:
            return True
        is_kept = event.type == "fail" and len(self._operations) < _MOST_OPERATIONS + _MOST_FAILED
        self._left_out += (event.type == "start") - is_kept
        return is_kept

    def _alert(self, event: AlertEvent) -> None:
        if event.alert_id not in self._alerts and len(self._alerts) >= _MOST_ALERTS:
            return
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
    replace_durably(path, encode(_plain(summary)) + b"\n")
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
        "started": rfc3339(event.time - (event.duration_seconds or 0.0)),
        "duration_seconds": None,
        "counts": {},
        "metrics": {},
        "error": None,
    }


def _plain(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Make plain values of all parts, redacted, each item of a list within bounds of its own: long runs stay whole."""
    plain: dict[str, Any] = {}
    for name, value in summary.items():
        if isinstance(value, (list, tuple)) and not current().hides(name):
            exempt = _IDS if name in _OWN_ITEMS else ()
            plain[name] = [to_plain(item, current(), exempt) for item in value[:_MOST_ITEMS]]
        else:
            plain.update(to_plain({name: value}, current(), _IDS if name in _IDS[0] else ()))
    return plain
