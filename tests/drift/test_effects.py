"""The effects against scipy's, closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import distance

from ml_pipeline.drift import Effects, Floors, PsiEffect
from ml_pipeline.drift.bins import NumericBins, fit_bins
from ml_pipeline.drift.effects import cdf_gap, jensen_shannon, psi, total_variation, wasserstein
from ml_pipeline.errors import DriftInputError

TABLE = np.array([[10.0, 30, 40, 20], [20, 30, 10, 60]])


def binned(reference: np.ndarray, batch: np.ndarray) -> tuple[NumericBins, np.ndarray]:
    bins = fit_bins("x", reference, bins=64, levels=1000, categorical=False)
    assert isinstance(bins, NumericBins)
    counted = [bins.count(sample) for sample in (reference, batch)]
    return bins, np.array([each.cells[2:] for each in counted if each], dtype=float)


@pytest.mark.parametrize("shift", [0.1, 0.5, 2.0])
def test_wasserstein_of_a_shift(shift: float) -> None:
    """W of a shift by δ sigma is δ: scipy's distance, less what the last bin hides."""
    random = np.random.default_rng(0)
    reference, batch = random.normal(5, 3, 20_000), random.normal(5 + 3 * shift, 3, 20_000)
    bins, table = binned(reference, batch)
    found = wasserstein(bins.points, table)
    # What lies past the reference's maximum is taken to stand there: batch values are clipped for the comparison.
    clipped = np.clip(batch, reference.min(), reference.max())
    expected = stats.wasserstein_distance(reference, clipped) / reference.std()
    assert found == pytest.approx(expected, rel=0.03 + 0.03 * shift)
    assert found == pytest.approx(shift, rel=0.07 + 0.03 * shift)


def test_wasserstein_on_points_is_scipys() -> None:
    """On given points W is scipy's distance of the two weighted samples over the reference's standard deviation."""
    points = np.array([-2.0, 0.5, 1.0, 7.0])
    expected = stats.wasserstein_distance(points, points, *TABLE)
    spread = math.sqrt(np.cov(points, fweights=TABLE[0].astype(int), ddof=0))
    assert wasserstein(points, TABLE) == pytest.approx(expected / spread, rel=1e-12)


@given(st.floats(-1e300, 1e300), st.floats(1e-6, 1e150))
def test_wasserstein_has_no_unit(offset: float, unit: float) -> None:
    """In standard deviations, W does not change with the unit, even near the largest floats."""
    points = np.array([0.0, 1.0, 2.0, 4.0])
    assert wasserstein(points * unit, TABLE) == pytest.approx(wasserstein(points, TABLE), rel=1e-9)
    found = wasserstein(np.sort(points * 1e300 + offset), TABLE)
    assert found is not None
    assert math.isfinite(found)


def test_wasserstein_without_spread() -> None:
    """A reference on one point has no standard deviation to measure in."""
    assert wasserstein([0.1, 0.1, 0.1], np.array([[0.0, 9, 0], [0, 0, 9]])) is None
    assert wasserstein([0.1, 0.2, 0.3], np.array([[0.0, 9, 0], [0, 0, 9]])) is None
    assert wasserstein([], np.array([[0.0, 0.0], [0.0, 9.0]])) is None


def test_one_outlier_hides_nothing() -> None:
    """One value of 10⁹ in the reference leaves the W of a shift by one sigma at one sigma."""
    random = np.random.default_rng(1)
    reference = np.append(random.normal(size=5_000), 1e9)
    bins, table = binned(reference, random.normal(1.0, 1.0, 5_000))
    assert wasserstein(bins.points, table) == pytest.approx(1.0, abs=0.08)
    assert cdf_gap(table) == pytest.approx(2 * stats.norm.cdf(0.5) - 1, abs=0.03)


def test_cdf_gap_is_kolmogorov_smirnovs() -> None:
    """D is the two-sample Kolmogorov-Smirnov statistic, up to what lies inside one bin."""
    random = np.random.default_rng(2)
    reference, batch = random.normal(size=3_000), random.normal(0.3, 1.2, 2_000)
    _, table = binned(reference, batch)
    exact = stats.ks_2samp(reference, batch).statistic
    assert exact - 1 / 64 <= cdf_gap(table) <= exact


def test_cdf_gap_of_discrete_values_is_exact() -> None:
    """Where each value has a bin, D is the Kolmogorov-Smirnov statistic itself."""
    random = np.random.default_rng(3)
    reference, batch = random.poisson(3, 2_000), random.poisson(3.4, 1_000)
    _, table = binned(reference, batch)
    assert cdf_gap(table) == pytest.approx(stats.ks_2samp(reference, batch).statistic, abs=1e-12)


def test_total_variation() -> None:
    """The largest gap between the shares of any set of categories."""
    assert total_variation(np.array([[5.0, 5, 0], [0, 5, 5]])) == pytest.approx(0.5)


def test_jensen_shannon_is_scipys() -> None:
    """The distance to base 2, 1 for samples that share no cell."""
    assert jensen_shannon(TABLE) == pytest.approx(distance.jensenshannon(*TABLE, base=2), rel=1e-12)
    assert jensen_shannon(np.array([[3.0, 0], [0, 4.0]])) == 1.0


def test_psi_closed_form() -> None:
    """PSI is both Kullback-Leibler divergences added, less (B - 1)(1/n + 1/m)."""
    p, q = TABLE / TABLE.sum(axis=1, keepdims=True)
    expected = stats.entropy(p, q) + stats.entropy(q, p) - 3 * (1 / 100 + 1 / 120)
    assert psi(TABLE).excess == pytest.approx(expected, rel=1e-12)


def test_psi_of_an_empty_cell_is_finite() -> None:
    """A cell that one sample left counts as half a row, not as infinitely far."""
    found = psi(np.array([[50.0, 50], [100, 0]]))
    p, q = np.array([0.5, 0.5]), np.array([1.0, 0.005])
    assert found.excess == pytest.approx(float((q - p) @ np.log(q / p)) - 0.02)


@pytest.mark.parametrize(("reference", "batch", "cells"), [(1000, 1000, 64), (10_000, 1000, 64), (500, 100, 15)])
def test_psi_without_drift(reference: int, batch: int, cells: int) -> None:
    """Without drift PSI is (B - 1)(1/n + 1/m) on average, its p-values are uniform, and its interval holds 0."""
    random = np.random.default_rng(4)
    shares = np.full(cells, 1 / cells)
    draws = [
        np.array([random.multinomial(rows, shares) for rows in (reference, batch)], dtype=float) for _ in range(1_500)
    ]
    found = [psi(table) for table in draws]
    assert np.mean([each.p_value <= 0.05 for each in found]) == pytest.approx(0.05, abs=0.025)
    assert np.mean([each.low == 0 for each in found]) >= 0.95
    assert np.mean([each.excess for each in found]) < 0.25 * (cells - 1) * (1 / reference + 1 / batch)


def test_psi_interval_covers() -> None:
    """In 95 % of batches the interval holds the PSI of the two laws."""
    random = np.random.default_rng(5)
    p = np.full(20, 1 / 20)
    q = p * np.linspace(0.7, 1.3, 20)
    truth = float((q - p) @ np.log(q / p))
    found = [
        psi(np.array([random.multinomial(2_000, p), random.multinomial(1_000, q)], dtype=float)) for _ in range(1_000)
    ]
    assert np.mean([each.low <= truth <= each.high for each in found]) == pytest.approx(0.95, abs=0.03)


def test_psi_interval_of_a_huge_statistic() -> None:
    """Past the exact inversion the interval goes on without a step, and still holds the value."""
    p = np.array([0.5, 0.3, 0.2])
    q = np.array([0.3, 0.3, 0.4])
    truth = float((q - p) @ np.log(q / p))
    for rows in (40_000, 400_000, 40_000_000):
        found = psi(np.array([p, q]) * rows)
        assert found.low < truth < found.high
        assert found.high - found.low == pytest.approx(4 * 1.96 * math.sqrt(truth * 2 / rows), rel=0.05)


def test_psi_of_one_cell() -> None:
    """Two samples in one cell do not differ."""
    assert psi(np.array([[5.0], [9.0]])) == PsiEffect(0.0, 1.0, 0.0, 0.0)


@given(st.lists(st.integers(0, 1000), min_size=2, max_size=70), st.integers(1, 9))
def test_equal_shares_have_no_effect(cells: list[int], times: int) -> None:
    """A batch with the reference's very shares has every effect at 0."""
    if not any(cells):
        return
    table = np.array([cells, [times * rows for rows in cells]], dtype=float)
    assert cdf_gap(table) == total_variation(table) == 0
    assert wasserstein(np.arange(len(cells)), table) in (0, None)
    assert jensen_shannon(table) == 0
    assert psi(table[:, table.any(axis=0)]).excess == 0


def test_reached() -> None:
    """Each effect that reaches its floor is named with its value."""
    effects = Effects(0.2, 0.5, 0.1, PsiEffect(0.05, 0.01, 0.0, 0.1))
    assert effects.reached(Floors()) == ("D = 0.2", "W = 0.5 sigma")
    assert effects.reached(Floors(0.3, 0.6, 0.05)) == ("PSI = 0.05 above chance",)
    assert str(effects) == "D = 0.2, W = 0.5 sigma, PSI = 0.05 above chance"
    assert str(Effects(0.2, None, 0.1, PsiEffect(0.05, 0.01, 0.0, 0.1))) == "D = 0.2, PSI = 0.05 above chance"


@pytest.mark.parametrize("value", [0, -0.1, math.nan, math.inf, "0.1", None])
def test_floors_are_positive(value: float) -> None:
    """A floor of zero would make every significant change drift, and is refused."""
    with pytest.raises(
        DriftInputError, match=r"the effect floor cdf_gap is a positive number \(got .*\); leave it out"
    ):
        Floors(cdf_gap=value)
