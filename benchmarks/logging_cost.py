"""What one log record costs its caller, beside peers that write the same fields, and beside the least that is possible.

Every case logs the same record of six fields again and again, through to the kernel unless it says that it is buffered.
Time is that of the processor, of all threads and processes: others use the machine too. "Plain" has no call site,
thread or process (the switches that the standard library's documentation names); "everything" has them, and ids from
the context.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks.harness import Case, Measured

__all__ = ["CASES", "GROWTH", "goals"]

RECORDS = 200_000

_PROGRAM = Path(__file__).with_name("logging_program.py").read_text("utf-8")

_FEWER = {
    "loguru": 10,
    "opentelemetry": 10,
    "logfire": 50,
    "ours redacted": 10,
    "standard plain": 4,
    "standard queue": 4,
    "standard everything": 4,
    "standard 8 threads": 4,
    "standard 4 processes": 4,
    "standard 4 processes, queue": 10,
}
"""By how much fewer records tell as much, of the cases that are slow."""


def _case(name: str, records: int = RECORDS) -> Case:
    return Case(name, _PROGRAM, (name, str(records // _FEWER.get(name, 1))))


CASES = [
    _case(name)
    for name in (
        "bare write",
        "limit",
        "ours plain",
        "structlog plain",
        "ours everything",
        "structlog everything",
        "ours two files",
        "ours buffered",
        "limit buffered",
        "ours redacted",
        "standard plain",
        "standard everything",
        "standard queue",
        "loguru",
        "opentelemetry",
        "logfire",
        "ours disabled",
        "standard disabled",
        "ours 8 threads",
        "standard 8 threads",
        "ours 4 processes",
        "standard 4 processes",
        "standard 4 processes, queue",
    )
]
"""One interleaved run of all."""

GROWTH = [
    *(
        Case(f"{records:,} records", _PROGRAM, ("ours plain", str(records)))
        for records in (1_000, 10_000, 100_000, 1_000_000)
    ),
    *(
        Case(f"{records:,} records, 4 processes", _PROGRAM, ("ours 4 processes", str(records)))
        for records in (100_000, 1_000_000)
    ),
    *(Case(name, _PROGRAM, (name, "100000")) for name in ("1 channel", "10 channels", "50 channels")),
]
"""The cost of a record, whatever came before it."""

_GOALS = (
    ("ours plain", "structlog plain", 0.55),
    ("ours plain", "limit", 2.3),
    ("ours everything", "structlog everything", 0.6),
    ("ours everything", "ours plain", 1.8),
    ("ours buffered", "structlog plain", 0.4),
    ("ours buffered", "limit buffered", 4.0),
    ("ours everything", "standard everything", 0.35),
    ("ours plain", "standard plain", 0.35),
    ("ours everything", "loguru", 0.35),
    ("ours everything", "opentelemetry", 0.35),
    ("ours everything", "logfire", 0.35),
    ("ours disabled", "standard disabled", 1.0),
    ("ours 8 threads", "standard 8 threads", 1.0),
    ("ours 4 processes", "standard 4 processes", 1.0),
    ("ours 4 processes", "standard 4 processes, queue", 1.0),
)


def goals(results: Sequence[Measured]) -> str:
    """Lay out what was wanted beside what was seen, as ratios of the best of each; a further file's is a median.

    Args:
        results: Of `CASES`.
    """
    best = {result.case.name: result.best("us") for result in results}
    rows = [(f"{ours} / {peer}", best[ours] / best[peer], goal) for ours, peer, goal in _GOALS]
    further = next(result.median("further") for result in results if "further" in result.values)
    rows.append(("a further file / bare write", further, 1.2))
    grown = {result.case.name: result.best("grown_mb") for result in results}
    lines = [f"| {name} | {seen:.2f} | {goal} |" for name, seen, goal in rows]
    more = grown["ours plain"] - grown["standard plain"]
    lines.append(f"| memory grown by logging, over the standard library's, MB | {more:.1f} | 5 |")
    return "\n".join(["| ratio | seen | goal, at most |", "|---|--:|--:|", *lines]) + "\n"
