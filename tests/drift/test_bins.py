"""The cells: where they lie, and that any engine fills them alike."""

from __future__ import annotations

import sqlite3
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ml_pipeline.drift import CategoricalBins, Counted, NumericBins, ReferenceProfile, Tally
from ml_pipeline.drift.bins import fingerprint, fit_bins, require_cells
from ml_pipeline.errors import DriftInputError


def numeric(values: Any, bins: int = 64) -> NumericBins:
    fitted = fit_bins("x", np.asarray(values), bins=bins, levels=1000, categorical=False)
    assert isinstance(fitted, NumericBins)
    return fitted


def table(values: list[Any], levels: int = 1000) -> CategoricalBins:
    fitted = fit_bins("x", np.array(values, dtype=object), bins=64, levels=levels, categorical=True)
    assert isinstance(fitted, CategoricalBins)
    return fitted


def cells_of(bins: NumericBins | CategoricalBins, values: Any) -> tuple[int, ...]:
    counted = bins.count(np.asarray(values))
    assert counted is not None
    return counted.cells


def test_edges_are_quantiles() -> None:
    """Edges are quantiles at k/64, as numpy's inverted_cdf has them, and so are the medians."""
    values = np.random.default_rng(0).normal(size=10_001)
    bins = numeric(values)
    expected = np.quantile(values, np.arange(1, 65) / 64, method="inverted_cdf")
    np.testing.assert_array_equal(bins.edges, expected)
    inside = values[values <= bins.edges[0]]
    assert bins.centres[0] == np.quantile(inside, 0.5, method="lower")
    assert bins.minimum == values.min()


def test_counts_are_a_histogram() -> None:
    """Between minimum and maximum the cells are numpy's histogram of right-closed bins."""
    random = np.random.default_rng(1)
    bins = numeric(random.normal(size=2_000))
    batch = random.normal(size=100_000) * 1.5
    # numpy closes bins on the left; mirrored, they close on the right.
    edges = -np.array([np.nextafter(bins.minimum or 0, -np.inf), *bins.edges])[::-1]
    mirrored, _ = np.histogram(-batch, edges)
    assert cells_of(bins, batch)[3:-1] == tuple(mirrored[::-1])
    assert bins.minimum is not None
    assert cells_of(bins, batch)[2] == (batch < bins.minimum).sum()
    assert cells_of(bins, batch)[-1] == (batch > bins.edges[-1]).sum()


@pytest.mark.parametrize("values", [[0, 1], [0, 0, 0, 1], [1, 2, 3, 4, 5] * 20])
def test_discrete_values_have_bins_of_their_own(values: list[int]) -> None:
    """A value that holds a 64th of the rows ends a bin, so a binary column has two."""
    distinct = sorted(set(values))
    bins = numeric(np.array(values))
    assert bins.edges == tuple(distinct)
    assert cells_of(bins, np.array(values))[3:-1] == tuple(values.count(value) for value in distinct)


def test_special_cells() -> None:
    """Null, infinite, below and above each have a cell."""
    bins = numeric([1.0, 2.0])
    values = [np.nan, np.inf, -np.inf, 0.999, -1e308, 1.0, 2.0, 2.0000001, 1e308]
    assert cells_of(bins, values) == (1, 2, 2, 1, 1, 2)


def test_largest_floats() -> None:
    """Neither end of the floats is lost, and no warning is raised on the way."""
    ends = [-1.7976931348623157e308, 1.7976931348623157e308]
    assert cells_of(numeric(ends), ends) == (0, 0, 0, 1, 1, 0)
    assert cells_of(numeric(ends), np.array([np.longdouble("1e4000")])) == (0, 1, 0, 0, 0, 0)


def test_reference_without_values() -> None:
    """With no value in the reference, every finite value lies above it."""
    bins = numeric([np.nan, np.inf])
    assert (bins.minimum, bins.edges, bins.points) == (None, (), ())
    assert cells_of(bins, [np.nan, -np.inf, 5.0, -1e308, 1.7976931348623157e308]) == (1, 1, 0, 3)


def test_text_is_no_number() -> None:
    """A numeric feature does not count text, but an empty column has no type to be wrong."""
    assert numeric([1.0]).count(np.array(["1.0"])) is None
    assert cells_of(numeric([1.0]), np.array([], dtype=str)) == (0, 0, 0, 0, 0)


def test_closed_table() -> None:
    """Every category of the reference has a cell, most frequent first; others are counted by name."""
    bins = table(["b", "a", "b", None, "c"])
    assert (bins.levels, bins.closed) == (("b", "a", "c"), True)
    values = np.array(["a", "z", None, "b", "y", "z"], dtype=object)
    assert bins.count(values) == Counted((1, 0, 1, 1, 0, 0, 3), (("y", 1), ("z", 2)))


def test_open_table() -> None:
    """Of too many categories only those with a hundredth of the rows, and 50 rows at least, have a cell."""
    bins = table(["often"] * 60 + ["seldom"] * 49 + [f"once {i}" for i in range(10)], levels=11)
    assert (bins.levels, bins.closed) == (("often",), False)
    assert cells_of(bins, np.array(["often", "seldom", "new"], dtype=object)) == (0, 0, 1, 2, 0)


def test_unseen_names_are_bounded() -> None:
    """At most 1,000 unseen categories are named; all are counted."""
    counted = table(["a"]).count(np.array([f"{i:05}" for i in range(1_500)], dtype=object))
    assert counted is not None
    assert counted.cells == (0, 0, 0, 0, 1_500)
    assert [name for name, _ in counted.unseen] == [f"{i:05}" for i in range(1_000)]


def test_numbers_are_no_text() -> None:
    """A table of text does not count numbers; one of numbers does, and an all-null column fits any table."""
    assert table(["a", "b"]).count(np.array([1.0, 2.0])) is None
    assert cells_of(table([1, 2, 2]), np.array([1.0, np.nan])) == (1, 0, 0, 1, 0, 0)
    assert cells_of(table(["a"]), np.array([np.nan])) == (1, 0, 0, 0, 0)


def test_blank_reference_takes_any_type() -> None:
    """A reference of nulls alone has a table without categories, and any value is unseen."""
    bins = fit_bins("x", np.array([None, None]), bins=64, levels=1000, categorical=False)
    assert bins == CategoricalBins("x", (), True, False)
    assert cells_of(bins, np.array([1.0, 2.0])) == (0, 0, 0, 2)
    assert cells_of(bins, np.array(["a"], dtype=object)) == (0, 0, 0, 1)


@given(st.lists(st.floats(width=64) | st.none(), max_size=60), st.lists(st.floats(width=64), min_size=1, max_size=30))
def test_sql_counts_alike(batch: list[float | None], reference: list[float]) -> None:
    """A query engine that counts ``x <= knot`` gives the very same cells."""
    bins = numeric(np.array(reference), bins=8)
    with sqlite3.connect(":memory:") as engine:
        engine.execute("create table batch (x real)")
        engine.executemany("insert into batch values (?)", [(value,) for value in batch])
        counts = [
            engine.execute("select count(case when x <= ? then 1 end) from batch", (knot,)).fetchone()[0]
            for knot in bins.knots
        ]
    values: NDArray[Any] = np.array(batch, dtype=object)
    assert bins.cells(counts, len(batch)) == cells_of(bins, values)


def test_group_by_counts_alike() -> None:
    """The rows of each category, grouped by another engine, give the very same cells and the very same batch."""
    random = np.random.default_rng(2)
    reference = {"site": random.choice(["A", "B", "C"], 500).astype(object)}
    batch = {"site": np.array(["A", "B", "D", None])[random.integers(0, 4, 300)]}
    profile = ReferenceProfile.fit(reference)
    bins = profile.bins["site"]
    assert isinstance(bins, CategoricalBins)
    names, rows = np.unique(batch["site"][batch["site"] != None], return_counts=True)  # noqa: E711 - elementwise
    nulls = int(sum(value is None for value in batch["site"]))
    counted = bins.cells(Tally(nulls, dict(zip(names.tolist(), rows.tolist(), strict=True)), has_text=True))
    assert profile.assemble(300, {"site": counted}) == profile.count(batch)


@pytest.mark.parametrize("cells", [(0, 0, 0, 1), (0, 0, 0, 1, 0, 1), (0, 0, 0, -1, 3, 0)])
def test_impossible_cells(cells: tuple[int, ...]) -> None:
    """Cells of the wrong number, sum or sign are refused."""
    with pytest.raises(DriftInputError, match=r"the 6 cells of 'x' are >= 0 and add up to the 3 rows \(got '\d cells"):
        require_cells(numeric([1.0, 2.0]), Counted(cells), 3)


def test_impossible_names() -> None:
    """More rows of unseen categories by name than there are unseen rows are refused."""
    with pytest.raises(DriftInputError, match="2 unseen by name"):
        require_cells(table(["a"]), Counted((0, 0, 1, 0, 1), (("b", 2),)), 2)


def test_fingerprint() -> None:
    """The fingerprint of bins ignores the features' order and nothing else."""
    one, two = numeric([1.0, 2.0]), table(["a"])
    assert fingerprint([one, two]) == fingerprint([two, one])
    assert fingerprint([one, two]) != fingerprint([one, table(["b"])])
