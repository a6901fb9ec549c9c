"""Reading the log files: ``ml-pipeline logs`` beside ``grep`` and ``jq``, which must be installed.

The log is the example pipeline's own, repeated with other times and other run ids until it is large. Each program
writes what it finds to a file, because ``grep`` stops at the first line where its output goes nowhere.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.harness import ROOT, Case

__all__ = ["CASES", "QUANTITIES", "compared", "make_logs"]

MEGABYTES = int(os.environ.get("BENCH_MEGABYTES", "200"))
EXAMPLE = ROOT / "ml_pipeline" / "examples" / "logging_monitoring_example.py"
LOGS = Path("ml_pipeline") / "logs"
STAMP = re.compile(rb'(?<=\{"timestamp":")\d{4}-\d\d-\d\dT\d\d:\d\d')
RUN = re.compile(rb'"run_id":"([^"]+)"')
FIRST_MINUTE = 29_700_000
"""Minutes since the epoch: the first repetition's."""

_PROGRAM = """
import json, sys
from benchmarks.logs import compared
print(json.dumps(compared(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])))
"""
QUANTITIES = {
    "grep_s": "grep, CPU s",
    "jq_s": "jq, CPU s",
    "ours_s": "ml-pipeline logs, CPU s",
    "to_grep": "to grep",
    "to_jq": "to jq",
}


def _case(name: str, grep: str, jq: str, *ours: str) -> Case:
    return Case(name, _PROGRAM, (str(MEGABYTES), grep, jq, *ours))


CASES = [
    _case("one run", '"run_id":"RUN"', 'select(.run_id == "RUN")', "--run", "RUN"),
    _case(
        "WARNING and up",
        '"level":"(WARNING|ERROR|CRITICAL)"',
        'select(.level | IN("WARNING", "ERROR", "CRITICAL"))',
        "--level",
        "WARNING",
    ),
    _case(
        "a field that few lines have",
        '"roc_auc":(0\\.9|1)',
        "select(.context.metrics.roc_auc > 0.9)",
        "--where",
        "context.metrics.roc_auc > 0.9",
    ),
    _case(
        "a field that most lines have",
        '"confidence":(0\\.[5-9]|1)',
        "select(.context.metrics.confidence > 0.5)",
        "--where",
        "context.metrics.confidence > 0.5",
    ),
    _case("every line (ours by time)", "", "."),
    _case("every line, as a table", "", "[.timestamp, .level, .logger, .message]", "--format", "table"),
]


def make_logs(megabytes: int) -> str:
    """Fill the log directory below the working directory.

    Args:
        megabytes: How large.

    Returns:
        The id of a run in its middle.
    """
    subprocess.run([sys.executable, str(EXAMPLE), "--trees", "10", "--drift"], check=True, capture_output=True)
    files = {path: path.read_bytes() for path in sorted(LOGS.rglob("*.log")) if path.name != "errors.log"}
    repetitions = -(-megabytes * 1_000_000 // sum(map(len, files.values())))
    found = RUN.search(files[LOGS / "ml_pipeline.log"])
    assert found, "the example names its run"
    for path, lines in files.items():
        with path.open("wb") as file:
            for number in range(repetitions):
                minute = time.strftime("%Y-%m-%dT%H:%M", time.gmtime((FIRST_MINUTE + number) * 60)).encode()
                file.write(STAMP.sub(minute, lines).replace(found[1], _run_id(number)))
    return _run_id(repetitions // 2).decode()


def compared(megabytes: int, grep: str, jq: str, ours: list[str]) -> dict[str, float]:
    """Ask the same of the logs in three ways, one after the other.

    Args:
        megabytes: How large the logs are.
        grep: A pattern; ``RUN`` stands for a run's id, here and below.
        jq: A program.
        ours: Options.

    Returns:
        The CPU seconds of each, with the start of its process, and two ratios. Each is one thread, whose time on an
        idle machine is that too.
    """
    run_id = make_logs(megabytes)
    files = [str(path) for path in sorted(LOGS.rglob("*.log")) if path.name != "errors.log"]
    kind = "-E" if "(" in grep else "-F"
    taken = {
        "grep_s": _seconds("grep", "-h", kind, grep.replace("RUN", run_id), *files),
        "jq_s": _seconds("jq", "-c", jq.replace("RUN", run_id), *files),
        "ours_s": _seconds(
            sys.executable,
            "-m",
            "ml_pipeline",
            "logs",
            "--format",
            "json",
            *(each.replace("RUN", run_id) for each in ours),
        ),
    }
    return {
        **taken,
        "to_grep": taken["ours_s"] / taken["grep_s"],
        "to_jq": taken["ours_s"] / taken["jq_s"],
    }


def _seconds(*command: str) -> float:
    with Path("found").open("wb") as found:
        before = os.times()
        subprocess.run(command, stdout=found, check=True, env={**os.environ, "LC_ALL": "C"})
        after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system


def _run_id(number: int) -> bytes:
    return b"01a1fc3f-0e18-7000-8a30-%012d" % number
