"""Raises and delivers alerts while the database comes and goes, and says what it told: ``python -m tests.config.alert_outages``.

A program of its own, because several of them stand for hosts. Arguments are its name, the folder that all of them deliver
into, and for how many seconds it raises alerts.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _alert_delivery, _alert_tables_outbox
from ml_pipeline.config._alert_shared import SharedAlertStore
from ml_pipeline.config._events import Bus
from ml_pipeline.config.alerting import AlertManager
from tests.config.alert_kills import Post


def main(name: str, folder: Path, seconds: float) -> dict[str, object]:
    """Raise alerts, and deliver until the database has been there, and nothing due, for two seconds.

    Returns:
        The operations whose calls returned, how long the longest call took, and how many failures were counted.
    """
    ml_pipeline.configure(name="outages", log_console="off")
    _alert_delivery._GATHER_SECONDS = 0.01  # type: ignore[misc]
    _alert_tables_outbox.GROUP_SECONDS = 0.05  # type: ignore[misc]
    _alert_tables_outbox.MOST_IN_A_MESSAGE = 1_000_000  # type: ignore[misc]
    SharedAlertStore.__init__.__kwdefaults__["retry_seconds"] = 0.5
    alerts = AlertManager(channels=[Post(folder / "post")], bus=Bus(), on_delivery=lambda *_: None)
    told: list[str] = []
    longest, end = 0.0, time.monotonic() + seconds
    while time.monotonic() < end:
        began = time.monotonic()
        alerts.alert_processing_failure(f"{name}.{len(told)}", "x")
        longest = max(longest, time.monotonic() - began)
        told.append(f"{name}.{len(told)}")
        time.sleep(0.01)
    store = alerts._store.get()
    assert isinstance(store, SharedAlertStore)
    end = time.monotonic() + 2.0
    while time.monotonic() < end:
        if not alerts.flush() or store._away is not None or store._is_moving:
            end = time.monotonic() + 2.0
        time.sleep(0.1)
    errors = _runtime.tally.telemetry_errors
    return {"told": told, "longest": longest, "errors": sum(errors.values())}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]))))
