"""False alarms and power of the whole check, by simulation with fixed seeds."""

from __future__ import annotations

import numpy as np
import pytest

from ml_pipeline.drift import ReferenceProfile, check
from tests.drift.tables import normals

FEATURES = 20
REPETITIONS = 200


def drifted(reference_rows: int, shift: float, seed: int) -> float:
    """Share of batches of 1,000 rows called drifted, with one of twenty features shifted."""
    hits = 0
    for repetition in range(REPETITIONS):
        profile = ReferenceProfile.fit(normals(reference_rows, FEATURES, seed + 2 * repetition))
        batch = normals(1_000, FEATURES, seed + 2 * repetition + 1)
        batch["x0"] = batch["x0"] + shift
        hits += bool(check(profile, batch).drifted)
    return hits / REPETITIONS


@pytest.mark.parametrize("reference_rows", [1_000, 10_000])
def test_false_alarms(reference_rows: int) -> None:
    """Without drift, at most 5 % of batches have any feature called drifted."""
    assert drifted(reference_rows, 0.0, seed=0) <= 0.05


@pytest.mark.parametrize("reference_rows", [1_000, 10_000])
def test_power(reference_rows: int) -> None:
    """A shift of 0.2 sigma in one of twenty features is found in at least 75 % of batches."""
    assert drifted(reference_rows, 0.2, seed=200_000) >= 0.75


def test_small_batches_cry_no_wolf() -> None:
    """Nor do batches of 60 rows with nulls, ties and rare categories alarm more often than they should."""
    random = np.random.default_rng(6)

    def table(rows: int) -> dict[str, np.ndarray]:
        numbers = {f"x{i}": random.normal(size=rows) for i in range(5)}
        holes = {f"h{i}": np.where(random.random(rows) < 0.3, np.nan, random.normal(size=rows)) for i in range(5)}
        ties = {f"t{i}": random.poisson(0.3, rows) for i in range(5)}
        names = np.array(list("abcdefgh"), dtype=object)
        shares = 1 / np.arange(1, 9) ** 2
        levels = {f"c{i}": names[random.choice(8, rows, p=shares / shares.sum())] for i in range(5)}
        return numbers | holes | ties | levels

    hits = sum(bool(check(ReferenceProfile.fit(table(500)), table(60)).drifted) for _ in range(REPETITIONS))
    assert hits / REPETITIONS <= 0.07
