"""What an ``alert_*`` call costs its caller, beside a plain SQLite commit that is on disk when it returns.

So is a value that a rule watches, which writes nothing while nothing fires. Both write to the same disk in turns, a
short stretch each, so that a busy disk slows both.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness import Case

__all__ = ["CASES", "QUANTITIES", "compare"]

STRETCHES = 9
CALLS = 40
HELD_CALLS = 5_000
ROW = json.dumps({"kind": "processing_failure", "operation": "data_ingestion", "details": "x" * 400})

_PROGRAM = """
import json, sys
from benchmarks.alerting import compare
print(json.dumps(compare(sys.argv[1])))
"""

CASES = [
    Case("a new alert", _PROGRAM, ("new",)),
    Case("a new alert of an exception", _PROGRAM, ("exception",)),
    Case("held back by its cooldown", _PROGRAM, ("held",)),
    Case("an exception held back", _PROGRAM, ("held exception",)),
    Case("a value that a rule watches", _PROGRAM, ("value",)),
]
QUANTITIES = {
    "plain_us": "plain commit, µs",
    "ours_us": "ours, µs",
    "p95_us": "ours, 95th percentile, µs",
    "times": "ours / plain",
}


def compare(what: str) -> dict[str, float]:
    """Measure one case.

    Args:
        what: The argument of one of `CASES`.

    Returns:
        Microseconds a call: the median of a plain commit, the median and the 95th percentile of ours, and how many
        plain commits ours costs.
    """
    from ml_pipeline.config.alerting import AlertManager, AlertRule

    alerts = AlertManager(channels=())
    alerts.add_rule(AlertRule(name="QueueTooLong", on="queue_length", above=100, clear=80, needed=2, window=5))
    plain = sqlite3.connect(Path("plain.db"), isolation_level=None)
    plain.execute("PRAGMA journal_mode=WAL")
    plain.execute("PRAGMA synchronous=FULL")
    plain.execute("CREATE TABLE plain (id INTEGER, row TEXT)")
    failure = _raised()

    def commit(number: int) -> None:
        plain.execute("INSERT INTO plain VALUES (?, ?)", (number, ROW))

    def alert(number: int) -> None:
        name = "data_ingestion" if what.startswith("held") else f"step {number}"
        error: Any = failure if what.endswith("exception") else f"row {number}: Connection timeout"
        alerts.alert_processing_failure(name, error)

    def value(number: int) -> None:
        alerts.observe_value("queue_length", number % 90, site="a", model="m")

    call, count = (value, HELD_CALLS) if what == "value" else (alert, HELD_CALLS if what.startswith("held") else CALLS)
    theirs: list[float] = []
    ours: list[float] = []
    for stretch in range(STRETCHES):
        theirs += _microseconds(commit, CALLS, stretch)
        ours += _microseconds(call, count, stretch)
    own = sorted(ours)
    result = {"plain_us": median(theirs), "ours_us": median(own), "p95_us": own[int(len(own) * 0.95)]}
    return {**result, "times": result["ours_us"] / result["plain_us"]}


def _microseconds(call: Callable[[int], None], count: int, stretch: int) -> list[float]:
    took = []
    for number in range(stretch * count, (stretch + 1) * count):
        begin = time.perf_counter()
        call(number)
        took.append((time.perf_counter() - begin) * 1e6)
    return took


def _raised() -> Exception:
    try:
        json.loads("{")
    except ValueError as error:
        return error
    raise AssertionError
