"""Runs cases side by side: each in a process of its own, interleaved, best and median of several rounds.

Absolute figures of a shared machine swing by a factor of two; ratios within one interleaved run do not.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Case", "Measured", "measure", "table"]

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        name: What the table calls it.
        program: Python source; its last line of output is JSON, a number by quantity.
        arguments: Of the program.
    """

    name: str
    program: str
    arguments: tuple[str, ...] = ()


@dataclass
class Measured:
    """What the rounds gave, by quantity."""

    case: Case
    values: dict[str, list[float]] = field(default_factory=dict)

    def best(self, quantity: str) -> float:
        """Return the smallest value of all rounds."""
        return min(self.values[quantity])

    def median(self, quantity: str) -> float:
        """Return the middle value of all rounds."""
        return statistics.median(self.values[quantity])


def measure(cases: Sequence[Case], *, rounds: int = 5, say: Callable[[str], None] = lambda _: None) -> list[Measured]:
    """Run every case once a round, in turn.

    Args:
        cases: What to run.
        rounds: How often.
        say: Told of each process before it starts.

    Returns:
        The values of every round, in the order of *cases*.

    Raises:
        subprocess.CalledProcessError: If a case fails.
    """
    results = [Measured(case) for case in cases]
    for number in range(1, rounds + 1):
        for result in results:
            say(f"round {number} of {rounds}: {result.case.name}")
            for quantity, value in _run(result.case).items():
                result.values.setdefault(quantity, []).append(value)
    return results


def table(title: str, results: Sequence[Measured], quantities: Mapping[str, str], baseline: int | None = 0) -> str:
    """Lay results out as a Markdown table.

    Args:
        title: Of the table.
        results: From `measure`.
        quantities: Heading by quantity.
        baseline: The row that others are compared with, by the best of each; None for no comparison.

    Returns:
        The table, with best and median of each quantity, and the ratio to the baseline.
    """
    heads = [
        "",
        *(f"{head}: best | median" + (" | ratio" if baseline is not None else "") for head in quantities.values()),
    ]
    columns = " | ".join(heads).split(" | ")
    lines = [f"### {title}", "", "| " + " | ".join(columns) + " |", "|---" + "|--:" * (len(columns) - 1) + "|"]
    for result in results:
        cells = [result.case.name]
        for quantity in quantities:
            cells += [f"{result.best(quantity):.4g}", f"{result.median(quantity):.4g}"]
            if baseline is not None:
                cells.append(f"{result.best(quantity) / results[baseline].best(quantity):.3f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _run(case: Case) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [sys.executable, "-c", case.program, *case.arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "ML_PIPELINE_LOG_CONSOLE": "off", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.stderr.write(done.stderr)
        raise subprocess.CalledProcessError(done.returncode, case.name)
    values: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return values
