"""The audit trail beside the recipe everybody writes: a ``FileHandler`` with a JSON formatter and ``os.fsync``.

Both write to the same disk in turns, a short stretch each, so that a busy disk slows both; what counts is the ratio.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.harness import Case
from benchmarks.logging_program import forked

__all__ = ["CASES", "compare"]

STRETCHES = 9
RECORDS = {"logger": 60, "trail": 60, "threads": 100, "processes": 100, "batch": 10_000}
THREADS = 8
PROCESSES = 4
FACTS = {"user_id": "ann", "object": "ADNI_2024", "version": "v1.0", "result": "success", "rows": 8000}
LINE = {
    "timestamp": "2026-01-15T09:30:25.123456Z",
    "level": "INFO",
    "logger": "audit",
    "channel": "audit",
    "message": "training",
    "pipeline": "benchmark",
    "operation": "training",
    "operation_id": "01a1fc3f-0e18-7000-8a30-b094bf394c1a",
    "run_id": "01a1fc3f-0e18-7000-8a30-b094bf394c1b",
    "user_id": "ann",
    "process": 4711,
    "thread": "MainThread",
    "context": {"action": "training", **FACTS},
}

_PROGRAM = """
import json, sys
from benchmarks.audit import compare
print(json.dumps(compare(sys.argv[1])))
"""

CASES = [
    Case(f"{THREADS} threads, audit_logger", _PROGRAM, ("threads",)),
    Case(f"{PROCESSES} processes, audit_logger", _PROGRAM, ("processes",)),
    Case("1 thread, audit_logger", _PROGRAM, ("logger",)),
    Case("1 thread, the trail itself", _PROGRAM, ("trail",)),
    Case(f"one batch of {RECORDS['batch']:,}", _PROGRAM, ("batch",)),
]


class Recipe(logging.FileHandler):
    """What the recipe does: format, write, flush, synchronise."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        super().emit(record)
        os.fsync(self.stream.fileno())


class JsonFormatter(logging.Formatter):
    """A line with the same fields as ours, chain aside."""

    def format(self, record: logging.LogRecord) -> str:
        """Write them as JSON."""
        return json.dumps({**LINE, "timestamp": self.formatTime(record), "context": record.__dict__["facts"]})


def compare(what: str) -> dict[str, float]:
    """Measure one case.

    Args:
        what: One of `RECORDS`.

    Returns:
        Microseconds a record of the recipe and of ours, the median of all stretches; how many times as fast ours is,
        and how many records a second it takes.
    """
    from ml_pipeline.config._audit import AuditTrail
    from ml_pipeline.config.logging_config import audit_logger, log_operation

    handler = Recipe("recipe.log")
    handler.setFormatter(JsonFormatter())
    recipe = logging.getLogger("recipe")
    recipe.addHandler(handler)
    recipe.propagate, recipe.level = False, logging.INFO
    trail = AuditTrail(Path("trail/audit.log"))
    records = [LINE] * RECORDS["batch"]

    def by_recipe(count: int) -> None:
        for _ in range(count):
            recipe.info("training", extra={"facts": FACTS})

    def by_logger(count: int) -> None:
        for _ in range(count):
            audit_logger.info("training", extra=log_operation("training", **FACTS))

    def by_trail(count: int) -> None:
        for _ in range(count):
            trail.append(LINE)

    def by_batch(_: int) -> None:
        trail.append_all(records)

    ours = {"trail": by_trail, "batch": by_batch}.get(what, by_logger)
    measured = {"threads": _by_threads, "processes": _by_processes}.get(what, _alone)
    few = min(RECORDS[what], 100)
    by_recipe(1)
    ours(1)  # what is imported and read at the first record is no part of the others
    pairs = [(measured(by_recipe, few), measured(ours, RECORDS[what])) for _ in range(STRETCHES)]
    theirs, own = median(pair[0] for pair in pairs), median(pair[1] for pair in pairs)
    return {"recipe_us": theirs, "ours_us": own, "times": theirs / own, "per_s": 1e6 / own}


def _alone(write: Callable[[int], None], count: int) -> float:
    begin = time.perf_counter()
    write(count)
    return (time.perf_counter() - begin) / count * 1e6


def _by_threads(write: Callable[[int], None], count: int) -> float:
    workers = [threading.Thread(target=write, args=(count,)) for _ in range(THREADS)]
    begin = time.perf_counter()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (time.perf_counter() - begin) / (count * THREADS) * 1e6


def _by_processes(write: Callable[[int], None], count: int) -> float:
    begin = time.perf_counter()
    for pid in [forked(write, count) for _ in range(PROCESSES)]:
        _, status = os.waitpid(pid, 0)
        if status:
            sys.exit("a process failed")
    return (time.perf_counter() - begin) / (count * PROCESSES) * 1e6
