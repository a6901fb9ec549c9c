"""``python -m benchmarks [GROUP …]``: measure, and print tables of ratios."""

from __future__ import annotations

import argparse
import sys

from benchmarks import (
    alert_delivery,
    alerting,
    audit,
    drift_cost,
    import_cost,
    logging_cost,
    logs,
    pipeline_overhead,
    report_page,
)
from benchmarks.harness import Case, measure, table

GROUPS: dict[str, tuple[str, list[Case], dict[str, str], int | None]] = {
    "steps": (
        "The example pipeline's steps, observed and bare",
        pipeline_overhead.STEPS,
        {"cpu_s": "CPU of the steps, s", "peak_mb": "peak memory, MB"},
        0,
    ),
    "fixed": (
        "Fixed cost of a run: start to end of the process",
        pipeline_overhead.FIXED,
        {"whole_s": "wall, s", "peak_mb": "peak memory, MB"},
        0,
    ),
    "drift": (
        "Drift check of 500,000 rows and 20 features",
        drift_cost.CASES,
        {"check_s": "check, s", "peak_mb": "peak memory, MB"},
        0,
    ),
    "report": ("The page of a run", report_page.CASES, {"page_s": "built in, s", "page_kb": "size, kB"}, None),
    "audit": (
        "The audit trail beside the standard library with fsync",
        audit.CASES,
        {"recipe_us": "recipe, µs", "ours_us": "ours, µs", "times": "times as fast", "per_s": "ours, records/s"},
        None,
    ),
    "alerting": ("An alert beside a plain SQLite commit", alerting.CASES, alerting.QUANTITIES, None),
    "logs": (f"Reading {logs.MEGABYTES} MB of logs", logs.CASES, logs.QUANTITIES, None),
    "logging": ("One log record of six fields", logging_cost.CASES, {"us": "CPU, µs", "wall_us": "wall, µs"}, 1),
    "logging-growth": (
        "The cost of a record does not grow",
        logging_cost.GROWTH,
        {"us": "CPU, µs", "peak_mb": "peak memory, MB"},
        0,
    ),
    "import": ("Import", import_cost.CASES, {"ms": "ms", "modules": "modules"}, None),
}
PAGES = {"alert-delivery": alert_delivery.page}
"""Groups that are distributions and not rounds side by side: each writes its own table."""


def main() -> None:
    """Measure the groups that were named, or all."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = [*GROUPS, *PAGES]
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"of: {', '.join(known)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="how often each case runs (default: 5)")
    arguments = parser.parse_args()
    unknown = set(arguments.groups) - set(known)
    if unknown:
        parser.error(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    for name in arguments.groups or known:
        if name in PAGES:
            print(PAGES[name](lambda line: print(line, file=sys.stderr)))
            continue
        title, cases, quantities, baseline = GROUPS[name]
        results = measure(cases, rounds=arguments.rounds, say=lambda line: print(line, file=sys.stderr))
        print(table(title, results, quantities, baseline))
        if name == "logging":
            print(logging_cost.goals(results))
        if name == "drift":
            print(drift_cost.accuracy())


if __name__ == "__main__":
    main()
