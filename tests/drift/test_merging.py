"""Counts add up: in any order, in any parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.drift import BatchCounts, ReferenceProfile
from ml_pipeline.errors import DriftInputError
from tests.drift.tables import Table, mixed

LABELS = st.sampled_from(["a", "b", "c", "new", "newer", "newest", "n4", "n5", "n6", None])
ROWS = st.lists(st.tuples(st.floats(width=64) | st.none(), LABELS), max_size=40)
PROFILE = ReferenceProfile.fit({"x": np.arange(200.0), "c": np.array(["a", "b", "c", "c"] * 50, dtype=object)})


def count(rows: list[tuple[float | None, str | None]]) -> BatchCounts:
    numbers: list[float | None] = [number for number, _ in rows]
    labels: list[str | None] = [label for _, label in rows]
    return PROFILE.count({"x": numbers, "c": labels})


@given(ROWS, ROWS, ROWS)
def test_parts_merge_into_the_whole(
    first: list[tuple[float | None, str | None]],
    second: list[tuple[float | None, str | None]],
    third: list[tuple[float | None, str | None]],
) -> None:
    """Merging is associative and commutative, and equals counting the concatenation."""
    one, two, three = count(first), count(second), count(third)
    whole = count(first + second + third)
    assert one.merge(two).merge(three) == whole
    assert one.merge(two.merge(three)) == whole
    assert three.merge(two).merge(one) == whole


@given(ROWS, st.randoms())
def test_order_of_rows_does_not_matter(rows: list[tuple[float | None, str | None]], random: Any) -> None:
    """Counts are those of a set of rows, not of a sequence."""
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert count(shuffled) == count(rows)


@given(ROWS, ROWS)
def test_minus_undoes_merge(
    first: list[tuple[float | None, str | None]], second: list[tuple[float | None, str | None]]
) -> None:
    """Taking a part away leaves the other."""
    one, two = count(first), count(second)
    assert one.merge(two).minus(two) == one


def test_blocks_add_up() -> None:
    """A column longer than a block is counted like its parts."""
    batch = mixed(150_001, 3)
    profile = ReferenceProfile.fit(mixed(1_000, 4))
    parts = [
        {name: column[start : start + 40_000] for name, column in batch.items()} for start in range(0, 150_001, 40_000)
    ]
    merged = profile.count(parts[0])
    for part in parts[1:]:
        merged = merged.merge(profile.count(part))
    assert merged == profile.count(batch)


def test_odd_columns_are_remembered() -> None:
    """A column that any part lacks or has in another type is not counted in the whole, and is named."""
    whole = mixed(200, 5)
    lacking = {name: column for name, column in whole.items() if name != "age"}
    retyped: Table = {**whole, "visits": np.array(["two"] * 200), "note": np.zeros(200)}
    profile = ReferenceProfile.fit(whole)
    for merged in (
        profile.count(lacking).merge(profile.count(retyped)),
        profile.count(retyped).merge(profile.count(lacking)),
    ):
        assert (merged.missing, merged.retyped, merged.extra) == (("age",), ("visits",), ("note",))
        assert sorted(merged.columns) == ["score", "site"]
        assert merged.rows == 400


def test_profiles_merge() -> None:
    """A profile of a sample, counted over every part, is the profile of all rows."""
    parts = [mixed(300, seed) for seed in range(3)]
    bins = ReferenceProfile.fit(parts[0])
    profiles = [bins.with_counts(bins.count(part)) for part in parts]
    merged = profiles[0].merge(profiles[1]).merge(profiles[2])
    everything = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    assert merged == bins.with_counts(bins.count(everything))
    assert merged.rows == 900


def test_other_bins_do_not_add_up() -> None:
    """Counts by different bins are refused."""
    one, two = (ReferenceProfile.fit(mixed(100, seed)) for seed in (1, 2))
    with pytest.raises(
        DriftInputError, match=r"counts come from the bins \w{12} \(got '\w{12}'\); count with the profile"
    ):
        one.merge(two)
    with pytest.raises(DriftInputError, match="count with the profile they are used with"):
        one.with_counts(two.counts)


def test_part_of_another_table() -> None:
    """A part with rows that the table has not cannot be taken away."""
    few, many = count([(1.0, "a")]), count([(1.0, "a"), (2.0, "b")])
    with pytest.raises(DriftInputError, match=r"a part has the table's columns, and rows of it \(got 2\)"):
        few.minus(many)


def test_reference_needs_every_feature() -> None:
    """Counts without a feature cannot become a reference."""
    with pytest.raises(DriftInputError, match=r"a reference has a column for every feature \(got \['c'\]\)"):
        PROFILE.with_counts(PROFILE.count({"x": np.arange(5.0)}))
