"""The tests against scipy's, closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats

from ml_pipeline.drift.evidence import (
    benjamini_hochberg,
    detectable_gap,
    homogeneity_test,
    pool_neighbours,
    pool_rare,
    smooth_test,
)

CELLS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=30)


def simulated(reference: int, batch: int, cells: int, repetitions: int, seed: int) -> NDArray[np.float64]:
    """Tables of two samples from one uniform law, shape (repetitions, 2, cells)."""
    random = np.random.default_rng(seed)
    shares = np.full(cells, 1 / cells)
    parts = [random.multinomial(rows, shares, size=repetitions) for rows in (reference, batch)]
    return np.stack(parts, axis=1).astype(float)


def test_homogeneity_is_the_chi_square_of_a_contingency_table() -> None:
    """χ², degrees of freedom and p-value are scipy's, without Yates' correction."""
    table = np.array([[30.0, 50, 20, 10], [60, 40, 35, 5]])
    expected = stats.chi2_contingency(table, correction=False)
    found = homogeneity_test(table)
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-12)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-9)
    assert (found.test, found.df) == ("homogeneity", expected.dof)


@given(st.tuples(*[st.integers(0, 40)] * 4))
def test_thin_tables_are_tested_exactly(cells: tuple[int, int, int, int]) -> None:
    """A 2 x 2 table that expects fewer than five rows somewhere gets Fisher's exact p-value."""
    table = np.array(cells, dtype=float).reshape(2, 2)
    if not (table.sum(axis=0).all() and table.sum(axis=1).all()):
        return
    found = homogeneity_test(table)
    exact = stats.contingency.expected_freq(table).min() < 5
    expected = stats.fisher_exact(table).pvalue if exact else stats.chi2_contingency(table, correction=False).pvalue
    assert found.test == ("exact" if exact else "homogeneity")
    assert found.p_value == pytest.approx(expected, rel=1e-6)


def test_exact_test_of_many_rows() -> None:
    """The exact p-value holds for a million rows, where binomial coefficients overflow."""
    table = np.array([[999_990.0, 10], [995, 5]])
    assert homogeneity_test(table).p_value == pytest.approx(stats.fisher_exact(table).pvalue, rel=1e-6)


def test_smooth_test_with_every_polynomial_is_the_chi_square() -> None:
    """On five cells four polynomials say all there is: T of order 4 is the χ² of homogeneity."""
    table = np.array([[40.0, 20, 35, 25, 30], [20, 40, 30, 20, 45]])
    found = smooth_test(table)
    orders = [stats.chi2_contingency(table, correction=False)]
    assert found.df == 4
    assert found.statistic == pytest.approx(orders[0].statistic, rel=1e-9)
    assert found.p_value == pytest.approx(3 * orders[0].pvalue, rel=1e-9)


def test_first_order_is_the_rank_sum_test() -> None:
    """Of order 1, T is the square of the Wilcoxon rank-sum statistic on mid-ranks."""
    random = np.random.default_rng(0)
    table = np.array([np.full(20, 50.0), random.multinomial(1000, np.linspace(0.8, 1.2, 20) / 20)])
    found = smooth_test(table)
    cells = np.arange(20)
    samples = [np.repeat(cells, rows.astype(int)) for rows in table]
    expected = stats.mannwhitneyu(*samples, use_continuity=False, method="asymptotic")
    assert found.df == 1
    assert found.p_value == pytest.approx(3 * expected.pvalue, rel=0.01)


@pytest.mark.parametrize(("reference", "batch", "cells"), [(1000, 1000, 64), (10_000, 1000, 64), (1000, 60, 12)])
def test_smooth_p_values_are_honest(reference: int, batch: int, cells: int) -> None:
    """Without drift, no level is exceeded more often than it says, whatever the sizes."""
    p_values = np.array([smooth_test(table).p_value for table in simulated(reference, batch, cells, 2_000, 1)])
    for level in (0.1, 0.05, 0.01):
        # Three standard deviations of 2,000 repetitions above the level.
        assert (p_values <= level).mean() <= level + 3 * math.sqrt(level * (1 - level) / 2_000)
    assert (p_values <= 0.05).mean() >= 0.02


@pytest.mark.parametrize(("reference", "batch", "cells"), [(1000, 1000, 8), (10_000, 200, 30)])
def test_homogeneity_p_values_are_honest(reference: int, batch: int, cells: int) -> None:
    """The reference is a sample, not the law: 5 % of batches without drift are significant, not 58 %."""
    tables = simulated(reference, batch, cells, 2_000, 2)
    p_values = np.array([homogeneity_test(pool_rare(*table)).p_value for table in tables])
    assert (p_values <= 0.05).mean() == pytest.approx(0.05, abs=0.02)


@given(CELLS)
def test_pooling_keeps_every_row(cells: list[tuple[int, int]]) -> None:
    """Joined cells hold the same rows, each expects five in the smaller sample, and two cells never become one."""
    reference, batch = np.array(cells).T
    if not (reference.any() and batch.any()):
        return
    for pooled in (pool_neighbours(reference, batch), pool_rare(reference, batch)):
        assert pooled.sum(axis=1).tolist() == [reference.sum(), batch.sum()]
        distinct = int(((reference + batch) > 0).sum())
        assert (pooled.shape[1] >= 2) == (distinct >= 2)
        if pooled.shape[1] > 2:
            assert stats.contingency.expected_freq(pooled).min() >= 5 - 1e-9


def test_pooling_joins_neighbours() -> None:
    """Thin cells join the next one, and the last ones the one before."""
    assert pool_neighbours([3, 3, 9, 9, 1], [3, 3, 9, 9, 1]).tolist() == [[6, 9, 10], [6, 9, 10]]
    assert pool_rare([1, 9, 3, 9, 3], [1, 9, 3, 9, 3]).tolist() == [[9, 9, 7], [9, 9, 7]]


def test_one_cell_cannot_differ() -> None:
    """Two samples in one cell give no evidence, with no degree of freedom."""
    found = smooth_test(pool_neighbours([0, 70], [0, 60]))
    assert (found.statistic, found.df, found.p_value) == (0.0, 0, 1.0)


def test_leaving_a_constant_is_seen() -> None:
    """Sixty rows that all left a column's only value are significant, though their cell expects fewer than five."""
    found = smooth_test(pool_neighbours([0, 1000, 0], [0, 0, 60]))
    assert found.test == "exact"
    assert found.p_value < 1e-50


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_benjamini_hochberg_is_scipys(p_values: list[float]) -> None:
    """Adjusted p-values are those of scipy."""
    np.testing.assert_allclose(benjamini_hochberg(p_values), stats.false_discovery_control(p_values), rtol=1e-12)


def test_no_tests_no_correction() -> None:
    """Without a test there is nothing to correct."""
    assert benjamini_hochberg([]) == []


@pytest.mark.parametrize("reference", [1_000, 10_000])
def test_detectable_gap_has_its_power(reference: int) -> None:
    """A normal shift of the gap said to be detectable is found in 80 % of batches at the level of 20 features."""
    random = np.random.default_rng(3)
    shift = detectable_gap(reference, 1_000, tests=20, q=0.05) * math.sqrt(2 * math.pi)
    ends = stats.norm.ppf(np.arange(1, 64) / 64)
    shares = [np.diff(stats.norm.cdf(ends - by), prepend=0, append=1) for by in (0, shift)]
    found = [
        smooth_test(
            np.array([random.multinomial(reference, shares[0]), random.multinomial(1_000, shares[1])], dtype=float)
        )
        for _ in range(1_500)
    ]
    assert np.mean([each.p_value <= 0.05 / 20 for each in found]) == pytest.approx(0.8, abs=0.04)


def test_detectable_gap_rule_of_thumb() -> None:
    """For 20 features n·m/(n+m)·D² is about 3."""
    gap = detectable_gap(2_000, 500, tests=20, q=0.05)
    assert 400 * gap**2 == pytest.approx(3, abs=0.3)
