"""The self-test: what the check does on the user's own reference, where there is no drift by construction.

Splits of the reference are replayed as batches against the rest of it. How many are called drifted is the false-alarm
rate on this very data, correlations, ties and all; the same splits with one feature shifted give the power.

Source: C. J. Clopper and E. S. Pearson, "The use of confidence or fiducial limits" (1934), for the interval of the
rate.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from ml_pipeline.drift.bins import NumericBins
from ml_pipeline.drift.columns import arrays_of, numbers_of
from ml_pipeline.drift.profile import ReferenceProfile
from ml_pipeline.drift.reasons import listed
from ml_pipeline.drift.verdict import LEAST_ROWS, check
from ml_pipeline.errors import DriftInputError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from ml_pipeline.drift.bins import Bins
    from ml_pipeline.drift.columns import Columns
    from ml_pipeline.drift.effects import Floors
    from ml_pipeline.drift.report import DriftReport

__all__ = ["SelfTest", "self_test"]

_POWER = 0.8
_SHIFTS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0)
_LEAST_TRIALS = 20
_TRIALS_PER_SHIFT = 4
_TAIL = 0.025


@dataclass(frozen=True, slots=True)
class SelfTest:
    """How the check behaves on batches of the reference.

    Attributes:
        repetitions: No-drift batches replayed.
        batch_rows: Rows of each.
        reference_rows: Rows they were compared with.
        false_alarms: Batches called drifted.
        flagged: In how many batches each feature was called drifted, of those that ever were.
        power: For each shift tried, in sigma of the one feature shifted: the share of batches in which that feature was
            called drifted.
        detectable_shift: The smallest shift tried that is found with 80 % power, in sigma; None if none was, or no
            feature is numeric.
    """

    repetitions: int
    batch_rows: int
    reference_rows: int
    false_alarms: int
    flagged: Mapping[str, int]
    power: tuple[tuple[float, float], ...]
    detectable_shift: float | None

    @property
    def false_alarm_rate(self) -> float:
        """Share of no-drift batches called drifted."""
        return self.false_alarms / self.repetitions

    @property
    def false_alarm_interval(self) -> tuple[float, float]:
        """95 % interval of the false-alarm rate, by Clopper and Pearson."""
        hits, misses = self.false_alarms, self.repetitions - self.false_alarms
        low = float(special.betaincinv(hits, misses + 1, _TAIL)) if hits else 0.0
        high = float(special.betaincinv(hits + 1, misses, 1 - _TAIL)) if misses else 1.0
        return low, high

    def __str__(self) -> str:
        low, high = self.false_alarm_interval
        names = sorted(self.flagged, key=lambda name: (-self.flagged[name], name))
        by = f", most often for {listed(names)}" if names else ""
        shift = self.detectable_shift
        found = "no shift tried was" if shift is None else f"a shift of one feature by {shift:g} sigma is"
        return (
            f"{self.false_alarms} of {self.repetitions} batches of {self.batch_rows} rows without drift were called "
            f"drifted ({self.false_alarm_rate:.1%}, 95 % interval {low:.1%} to {high:.1%}){by}; "
            f"{found} found with 80 % power"
        )


def self_test(
    columns: Columns,
    *,
    batch_rows: int = 1000,
    repetitions: int = 200,
    seed: int = 0,
    contiguous: bool = False,
    categorical: Collection[str] = (),
    q: float = 0.05,
    floors: Floors | None = None,
) -> SelfTest:
    """Replay splits of a reference, without drift and with one feature shifted.

    Args:
        columns: Feature name -> values of the reference, each of shape (n,).
        batch_rows: Rows of a batch; both it and the rest keep 50 rows or more.
        repetitions: No-drift batches; a quarter as many (20 or more) are replayed for each shift.
        seed: Of the splits: the same seed gives the same result.
        contiguous: Take runs of successive rows instead of random rows. Where rows are in order of time, this shows
            what drift the reference itself has, and whether floors should be learned from its chunks.
        categorical: Features whose numbers are codes, as in `ReferenceProfile.fit`.
        q: False discovery rate, as in `check`.
        floors: Effects that a verdict needs, as in `check`.

    Returns:
        False alarms and power.

    Raises:
        DriftInputError: If the reference is too small to be split, or an argument is out of range.
    """
    arrays = arrays_of(columns)
    profile = ReferenceProfile.fit(arrays, categorical=categorical)
    arrays = {name: _as_counted(profile.bins[name], array) for name, array in arrays.items()}
    if not LEAST_ROWS <= batch_rows <= profile.rows - LEAST_ROWS:
        raise DriftInputError(
            f"a batch and the rest of the {profile.rows} rows have at least {LEAST_ROWS} rows each",
            batch_rows,
            "choose smaller batches or a larger reference",
        )
    if repetitions < 1:
        raise DriftInputError("a self-test has at least one repetition", repetitions, "200 tell 5 % from 10 %")
    replay = _Replay(profile, arrays, np.random.default_rng(seed), batch_rows, contiguous, {"q": q, "floors": floors})
    drifted = [report.drifted for report in (replay.judge({}) for _ in range(repetitions))]
    power = replay.power(max(_LEAST_TRIALS, repetitions // _TRIALS_PER_SHIFT))
    return SelfTest(
        repetitions,
        batch_rows,
        profile.rows - batch_rows,
        sum(map(bool, drifted)),
        {name: hits for name in profile.bins if (hits := sum(name in names for names in drifted))},
        power,
        next((shift for shift, share in power if share >= _POWER), None),
    )


def _as_counted(bins: Bins, array: NDArray[Any]) -> NDArray[Any]:
    # Read once, not once a replay.
    numbers = numbers_of(array) if isinstance(bins, NumericBins) else None
    with np.errstate(over="ignore"):
        return array if numbers is None else numbers.astype(np.float64)


@dataclass(frozen=True, slots=True)
class _Replay:
    profile: ReferenceProfile
    arrays: Mapping[str, NDArray[Any]]
    random: np.random.Generator
    batch_rows: int
    contiguous: bool
    options: Mapping[str, Any]

    def judge(self, shifted: Mapping[str, float]) -> DriftReport:
        rows = self.split()
        batch = {name: array[rows] for name, array in self.arrays.items()}
        rest = self.profile.with_counts(self.profile.counts.minus(self.profile.count(batch)))
        return check(rest, batch | {name: batch[name] + by for name, by in shifted.items()}, **self.options)

    def split(self) -> NDArray[np.int64]:
        rows = self.profile.rows
        if self.contiguous:
            return np.arange(self.batch_rows) + self.random.integers(rows - self.batch_rows + 1)
        return self.random.choice(rows, self.batch_rows, replace=False, shuffle=False)

    def power(self, trials: int) -> tuple[tuple[float, float], ...]:
        # A feature is shifted in units of its own spread; one without any cannot be.
        spreads = [(name, spread) for name in self.arrays if (spread := self.spread(name)) > 0]
        shares: list[tuple[float, float]] = []
        for shift in _SHIFTS if spreads else ():
            turns = (spreads[trial % len(spreads)] for trial in range(trials))
            found = sum(name in self.judge({name: shift * spread}).drifted for name, spread in turns)
            shares.append((shift, found / trials))
            if found / trials >= _POWER:
                break
        return tuple(shares)

    def spread(self, name: str) -> float:
        if not isinstance(self.profile.bins[name], NumericBins):
            return 0.0
        values = self.arrays[name]
        values = values[np.isfinite(values)]
        with np.errstate(over="ignore", invalid="ignore"):
            spread = float(values.std()) if len(values) else 0.0
        return spread if np.isfinite(spread) else 0.0
