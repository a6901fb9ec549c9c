"""The drift check beside the least any check could do, and beside Evidently; then its false alarms and its power.

``floor``, ``ours`` and ``evidently`` each take what their ``fit_*`` prepared and check one batch once, so that a
harness can time them interleaved (`CASES`; `PEERS` take minutes). As a program it prints both tables::

    python -m benchmarks.drift_check [--rows 500000] [--repetitions 200] [--evidently]
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.harness import Case
from ml_pipeline.drift import ReferenceProfile, check

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from ml_pipeline.drift import DriftReport

    Table = dict[str, NDArray[Any]]
    Shares = dict[str, tuple[Any, NDArray[np.float64]]]

_MEASURE = """
import json, sys, time
from benchmarks import drift_check
fit, run, rows = getattr(drift_check, sys.argv[1]), getattr(drift_check, sys.argv[2]), int(sys.argv[3])
reference, batch = fit(drift_check.make_data(rows, 1)), drift_check.make_data(rows, 2)
if run is drift_check.evidently:
    batch = fit(batch)
begin = time.perf_counter()
run(reference, batch)
print(json.dumps({"s": time.perf_counter() - begin}))
"""

CASES = [
    Case("numpy PSI on quantile bins", _MEASURE, ("fit_floor", "floor", "500000")),
    Case("ml_pipeline.drift", _MEASURE, ("fit_ours", "ours", "500000")),
]
PEERS = [Case("Evidently", _MEASURE, ("fit_evidently", "evidently", "500000"))]

BINS = 10
SHIFTED = "normal_0"
SHIFT_IN_SIGMA = 0.2
BATCH_ROWS = 1_000
REFERENCE_ROWS = (1_000, 10_000)
ROUNDS = 5


def make_data(rows: int, seed: int) -> Table:
    """Draw a table as they come: correlated, skewed, with ties, zeros, nulls and rare categories.

    Args:
        rows: Rows of the table.
        seed: The same seed draws the same table.

    Returns:
        Sixteen numeric and four categorical (object) columns, each of shape (rows,).
    """
    random = np.random.default_rng(seed)
    factors = random.normal(size=(3, rows))
    loadings = np.random.default_rng(0).normal(size=(16, 3)) / 2
    latent = loadings @ factors + random.normal(size=(16, rows))
    latent /= np.sqrt((loadings**2).sum(axis=1) + 1)[:, None]
    table: Table = {f"normal_{i}": latent[i] for i in range(6)}
    table |= {f"skewed_{i}": np.exp(latent[6 + i]) for i in range(3)}
    table |= {f"count_{i}": np.floor(np.exp(1 + latent[9 + i] / 2)) for i in range(3)}
    table |= {f"zeros_{i}": np.maximum(latent[12 + i], 0) for i in range(2)}
    table |= {f"nulls_{i}": np.where(random.random(rows) < 0.05, np.nan, latent[14 + i]) for i in range(2)}
    for name, levels in (("sex", 2), ("site", 8), ("drug", 40), ("postcode", 300)):
        shares = 1 / np.arange(1, levels + 1)
        names = np.array([f"{name}_{level}" for level in range(levels)], dtype=object)
        table[name] = names[random.choice(levels, rows, p=shares / shares.sum())]
    return table


def fit_floor(reference: Table) -> Shares:
    """Keep the reference's quantile edges and shares: what any PSI needs.

    Args:
        reference: The reference table.

    Returns:
        For each column its edges (or categories) and the reference's share of each bin.
    """
    fitted: Shares = {}
    for name, column in reference.items():
        if column.dtype == object:
            levels = Counter(column.tolist())
            fitted[name] = tuple(levels), np.array(list(levels.values())) / len(column)
        else:
            edges = np.unique(np.nanquantile(column, np.linspace(0, 1, BINS + 1)))
            fitted[name] = edges, np.histogram(column, edges)[0] / len(column)
    return fitted


def floor(reference: Shares, batch: Table) -> dict[str, float]:
    """Compute one PSI a column on ten quantile bins: no test, no nulls, no verdict.

    Args:
        reference: What `fit_floor` kept.
        batch: The batch.

    Returns:
        PSI a column.
    """
    indices = {}
    for name, (cells, expected) in reference.items():
        column = batch[name]
        if column.dtype == object:
            counted = Counter(column.tolist())
            counts = np.array([counted[level] for level in cells])
        else:
            counts = np.histogram(column, cells)[0]
        actual, wanted = np.maximum(counts / len(column), 1e-6), np.maximum(expected, 1e-6)
        indices[name] = float(((actual - wanted) * np.log(actual / wanted)).sum())
    return indices


def fit_ours(reference: Table) -> ReferenceProfile:
    """Profile the reference.

    Args:
        reference: The reference table.

    Returns:
        The profile.
    """
    return ReferenceProfile.fit(reference)


def ours(reference: ReferenceProfile, batch: Table) -> DriftReport:
    """Check the batch.

    Args:
        reference: What `fit_ours` made.
        batch: The batch.

    Returns:
        The full report.
    """
    return check(reference, batch)


def fit_evidently(table: Table) -> Any:
    """Put a table into the form that Evidently takes.

    Args:
        table: The reference or the batch.

    Returns:
        A data frame.
    """
    import pandas as pd

    return pd.DataFrame(table)


def evidently(reference: Any, batch: Any) -> Any:
    """Run Evidently's drift preset with its defaults.

    Args:
        reference: The reference, from `fit_evidently`.
        batch: The batch, from `fit_evidently`.

    Returns:
        Its result as a dict.
    """
    report = import_module("evidently").Report
    preset = import_module("evidently.presets").DataDriftPreset
    return report([preset()]).run(batch, reference).dict()


def simulate(reference_rows: int, repetitions: int, shift: float = 0.0) -> float:
    """Share of batches called drifted, each against a reference of its own.

    Args:
        reference_rows: Rows of each reference.
        repetitions: Batches of 1,000 rows.
        shift: Shift of one of the twenty features in all batches, in its sigma.

    Returns:
        The false-alarm rate for no shift, else the power.
    """
    drifted = 0
    for seed in range(repetitions):
        profile = fit_ours(make_data(reference_rows, reference_rows + seed))
        batch = make_data(BATCH_ROWS, -seed % 2**32)
        batch[SHIFTED] = batch[SHIFTED] + shift
        drifted += bool(ours(profile, batch).drifted)
    return drifted / repetitions


def best_seconds(rounds: int, *calls: Callable[[], object]) -> list[float]:
    """Time calls interleaved.

    Args:
        rounds: How often each is timed.
        calls: What to time.

    Returns:
        The best time of each, in seconds.
    """
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for index, call in enumerate(calls):
            start = time.perf_counter()
            call()
            best[index] = min(best[index], time.perf_counter() - start)
    return best


def main() -> None:
    """Print how long the checks take, and how often they are right."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--rows", type=int, default=500_000)
    parser.add_argument("--repetitions", type=int, default=200, help="200 tell 3 %% from 8 %%")
    parser.add_argument("--evidently", action="store_true", help="time Evidently too (extra bench; minutes)")
    arguments = parser.parse_args()
    reference, batch = make_data(arguments.rows, 1), make_data(arguments.rows, 2)
    shares, profile = fit_floor(reference), fit_ours(reference)
    floor_seconds, our_seconds = best_seconds(ROUNDS, lambda: floor(shares, batch), lambda: ours(profile, batch))
    print(f"check of {arguments.rows:,} x {len(batch)}        seconds   times the floor   times Evidently")
    print(f"numpy PSI on quantile bins    {floor_seconds:8.3f}   {1:15.2f}")
    ratio = ""
    if arguments.evidently:
        left, right = fit_evidently(reference), fit_evidently(batch)
        (peer_seconds,) = best_seconds(1, lambda: evidently(left, right))
        print(f"Evidently                     {peer_seconds:8.3f}   {peer_seconds / floor_seconds:15.2f}   {1:15.3f}")
        ratio = f"   {our_seconds / peer_seconds:15.3f}"
    print(f"ml_pipeline.drift             {our_seconds:8.3f}   {our_seconds / floor_seconds:15.2f}{ratio}")
    print(f"\nreference rows   false alarms   power at {SHIFT_IN_SIGMA} sigma in 1 of {len(batch)}")
    for rows in REFERENCE_ROWS:
        alarms = simulate(rows, arguments.repetitions)
        power = simulate(rows, arguments.repetitions, SHIFT_IN_SIGMA)
        print(f"{rows:14,}   {alarms:12.1%}   {power:10.1%}")


if __name__ == "__main__":
    main()
