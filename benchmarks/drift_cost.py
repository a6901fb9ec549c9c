"""A drift check of 500,000 rows and 20 features after one fit, beside the least that any check does and a peer."""

from __future__ import annotations

import importlib.util

from benchmarks.harness import Case

__all__ = ["CASES", "accuracy"]

_MEASURE = """
import json, resource, sys, time
from benchmarks import drift_check as drift
who, rows = sys.argv[1], int(sys.argv[2])
fit, check = {
    "floor": (drift.fit_floor, drift.floor),
    "ours": (drift.fit_ours, drift.ours),
    "evidently": (drift.fit_evidently, drift.evidently),
}[who]
fitted, batch = fit(drift.make_data(rows, 1)), drift.make_data(rows, 2)
if who == "evidently":
    batch = drift.fit_evidently(batch)
begin = time.perf_counter()
check(fitted, batch)
seconds = time.perf_counter() - begin
print(json.dumps({"check_s": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""

_PEERS = ["evidently"] if importlib.util.find_spec("evidently") else []

CASES = [
    Case(title, _MEASURE, (who, "500000"))
    for who, title in (
        ("floor", "numpy, PSI on quantile bins (the floor)"),
        ("ours", "ml_pipeline.drift"),
        *((peer, peer.capitalize()) for peer in _PEERS),
    )
]
"""The peer only where it is installed: it needs packages that the project's own environment does not have."""


def accuracy() -> str:
    """Return how often a check of 200 batches is wrong where nothing drifted, and right where something did."""
    from benchmarks import drift_check as drift

    lines = ["### Drift verdicts, 200 batches of 1,000 rows and 20 features", ""]
    lines += ["| reference rows | batches with a false flag | shift of .2 sigma in 1 feature found |", "|--:|--:|--:|"]
    for rows in drift.REFERENCE_ROWS:
        alarms = drift.simulate(rows, 200)
        power = drift.simulate(rows, 200, drift.SHIFT_IN_SIGMA)
        lines.append(f"| {rows:,} | {alarms:.1%} | {power:.1%} |")
    return "\n".join(lines) + "\n"
