"""Effect: how far the batch lies from the reference, whatever the number of rows.

Notations
=========

==========  =============================================================================================  ==========
symbol      meaning                                                                                        shape
==========  =============================================================================================  ==========
n, m        rows of the reference and of the batch that have a value                                       scalar
p_j, q_j    share of the reference's and of the batch's rows in cell j                                     (J,)
x_j         where the rows of cell j stand: minimum, bin centres, maximum of the reference                 (J,)
Δ_j         (q_1 - p_1) + … + (q_j - p_j): the gap between the distribution functions                      (J,)
D           max |Δ_j|; without an order among the cells, the total variation ½ Σ |q_j - p_j|               scalar
sigma       standard deviation of the reference on the points x_j                                          scalar
W           Σ |Δ_j| (x_(j+1) - x_j) / sigma: Wasserstein-1 in reference sigma                              scalar
B           cells left after pooling thin ones                                                             scalar
PSI         Σ (q_j - p_j) ln(q_j / p_j), in nats                                                           scalar
==========  =============================================================================================  ==========

Rows past either end of the reference stand at that end, and a bin's rows at its median. So one wild value can neither
raise W nor, in the reference, hide a shift behind a huge sigma; the price is that W falls short of large shifts (by a
tenth at 2 sigma of a normal feature), which D has long called by then.

Sources: S. S. Vallender, "Calculation of the Wasserstein distance between probability distributions on the line"
(1974); J. Lin, "Divergence measures based on the Shannon entropy" (1991); B. Yurdakul and J. Naranjo, "Statistical
properties of the population stability index" (2020), for PSI / (1/n + 1/m) ~ χ²_(B-1) without drift.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from scipy import special

from ml_pipeline.errors import DriftInputError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Effects", "Floors", "PsiEffect", "cdf_gap", "jensen_shannon", "psi", "total_variation", "wasserstein"]

_EMPTY_CELL_ROWS = 0.5
_TAIL = 0.025
_TAIL_DEVIATE = 1.959963984540054
_LARGE_STATISTIC = 1e4
_LEAST_NONCENTRALITY = 1e-9


@dataclass(frozen=True, slots=True)
class Floors:
    """The smallest effects worth a verdict: one of them has to be reached.

    Attributes:
        cdf_gap: D.
        wasserstein: W, in reference sigma.
        psi: PSI less its mean without drift, in nats.
        null_gap: Change in the share of nulls (or of infinite values).
    """

    cdf_gap: float = 0.05
    wasserstein: float = 0.1
    psi: float = 0.1
    null_gap: float = 0.05

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (isinstance(value, (int, float)) and math.isfinite(value) and value > 0):
                raise DriftInputError(
                    f"the effect floor {field.name} is a positive number", value, "leave it out to keep the default"
                )

    def raised_to(self, other: Floors) -> Floors:
        """Take the higher floor of each effect.

        Args:
            other: The floors to compare with.

        Returns:
            Floors at least as high as both.
        """
        return Floors(
            **{field.name: max(getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        )


@dataclass(frozen=True, slots=True)
class PsiEffect:
    """The population stability index, with what it would be by chance taken off.

    Attributes:
        excess: PSI less its mean without drift, (B - 1)(1/n + 1/m), in nats; never below 0.
        p_value: Probability of a PSI as large without drift.
        low: Lower end of a 95 % interval for the PSI of the two laws, in nats.
        high: Its upper end.
    """

    excess: float
    p_value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Effects:
    """How far a feature moved; each effect is 0 for a batch with the reference's very shares.

    Attributes:
        cdf_gap: D, in [0, 1].
        wasserstein: W, in reference sigma; None for categories, and for a reference without spread.
        jensen_shannon: Jensen-Shannon distance to base 2, in [0, 1].
        psi: The population stability index above chance.
    """

    cdf_gap: float
    wasserstein: float | None
    jensen_shannon: float
    psi: PsiEffect

    def reached(self, floors: Floors) -> tuple[str, ...]:
        """Name the effects that are worth a verdict.

        Args:
            floors: What each effect has to reach.

        Returns:
            A phrase for each that does, such as ``D = 0.31``.
        """
        named = (
            (self.cdf_gap, floors.cdf_gap, "D = {:.2g}"),
            (self.wasserstein or 0.0, floors.wasserstein, "W = {:.2g} sigma"),
            (self.psi.excess, floors.psi, "PSI = {:.2g} above chance"),
        )
        return tuple(phrase.format(value) for value, floor, phrase in named if value >= floor)

    def __str__(self) -> str:
        shift = "" if self.wasserstein is None else f", W = {self.wasserstein:.2g} sigma"
        return f"D = {self.cdf_gap:.2g}{shift}, PSI = {self.psi.excess:.2g} above chance"


def cdf_gap(table: NDArray[np.float64]) -> float:
    """Measure the largest gap between two distribution functions.

    Args:
        table: Rows of the reference and of the batch in each ordered cell, shape (2, J).

    Returns:
        D in [0, 1]: the Kolmogorov-Smirnov distance at the cells' ends, a lower bound of the one at all values.
    """
    return float(np.abs(_gaps(table)).max())


def total_variation(table: NDArray[np.float64]) -> float:
    """Measure the largest gap between the shares of any set of cells: D where the cells have no order.

    Args:
        table: Rows of the reference and of the batch in each cell, shape (2, J).

    Returns:
        ½ Σ |q_j - p_j|, in [0, 1].
    """
    reference, batch = _shares(table)
    return float(np.abs(batch - reference).sum() / 2)


def wasserstein(points: ArrayLike, table: NDArray[np.float64]) -> float | None:
    """Measure the mean distance that rows have to travel from one distribution to the other.

    Args:
        points: Where the rows of each cell stand, ascending, shape (J,).
        table: Rows of the reference and of the batch in each cell, shape (2, J).

    Returns:
        W in standard deviations of the reference; None if the reference lies on one point.

    Source: Vallender (1974), the integral of |F - G|.
    """
    places = np.asarray(points, dtype=np.float64)
    if len(places) == 0:
        return None
    # Scaled before anything is squared or subtracted: the distance is free of units, and the largest floats stay
    # finite.
    places = places / (np.abs(places).max() or 1.0)
    places = places - places[0]
    reference, _ = _shares(table)
    spread = math.sqrt(float(reference @ (places - float(reference @ places)) ** 2))
    if np.count_nonzero(reference) <= 1 or spread == 0:
        return None
    return float(np.abs(_gaps(table)[:-1]) @ np.diff(places)) / spread


def jensen_shannon(table: NDArray[np.float64]) -> float:
    """Measure how well a single row tells which sample it came from.

    Args:
        table: Rows of the reference and of the batch in each cell, shape (2, J).

    Returns:
        The square root of the Jensen-Shannon divergence to base 2, in [0, 1].

    Source: Lin (1991), equation 4.1 with equal weights.
    """
    shares = _shares(table)
    nats = float(special.rel_entr(shares, shares.mean(axis=0)).sum() / 2)
    return math.sqrt(max(0.0, min(1.0, nats / math.log(2))))


def psi(table: NDArray[np.float64]) -> PsiEffect:
    """Measure the population stability index above what chance makes of it.

    Args:
        table: Rows of the reference and of the batch in each pooled cell, shape (2, B). An empty cell counts as half a
            row.

    Returns:
        The excess, its p-value and an interval from the noncentral χ² law of PSI / (1/n + 1/m).

    Source: Yurdakul and Naranjo (2020), theorem 1.
    """
    df = table.shape[1] - 1
    if df == 0:
        return PsiEffect(0.0, 1.0, 0.0, 0.0)
    sizes = table.sum(axis=1, keepdims=True)
    noise = float((1 / sizes).sum())
    reference, batch = np.maximum(table, _EMPTY_CELL_ROWS) / sizes
    index = float(((batch - reference) * np.log(batch / reference)).sum())
    # The logarithm's next term, Σ δ⁴ / 12 π³, lifts the mean at a few rows a cell; dividing it out keeps the p-value
    # honest there.
    lift = 1 + noise * float((sizes.sum() / table.sum(axis=0)).sum()) / (4 * df)
    statistic = index / noise / lift
    low, high = _noncentrality_interval(statistic, df)
    return PsiEffect(max(0.0, index - df * noise), float(special.chdtrc(df, statistic)), low * noise, high * noise)


def _noncentrality_interval(statistic: float, df: int) -> tuple[float, float]:
    if statistic > _LARGE_STATISTIC:
        # The law is normal by now, with variance 2·df + 4·λ, and inverting it exactly takes long.
        half = 2 * _TAIL_DEVIATE * math.sqrt(statistic)
        return statistic - df - half, statistic - df + half
    ends = (float(special.chndtrinc(statistic, df, tail)) for tail in (1 - _TAIL, _TAIL))
    # Below the central law's own quantile there is no solution: the search ends at a denormal, or at NaN.
    low, high = (end if end >= _LEAST_NONCENTRALITY else 0.0 for end in ends)
    return low, high


def _shares(table: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(table / table.sum(axis=1, keepdims=True))


def _gaps(table: NDArray[np.float64]) -> NDArray[np.float64]:
    reference, batch = np.cumsum(table, axis=1) / table.sum(axis=1, keepdims=True)
    return np.asarray(batch - reference)
