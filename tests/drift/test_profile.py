"""Fitting a profile, and the profile as text."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.drift import CategoricalBins, Counted, Floors, NumericBins, ReferenceProfile
from ml_pipeline.errors import DriftInputError
from tests.drift.tables import mixed

VALUES = st.lists(
    st.floats(width=64) | st.none() | st.text(max_size=5) | st.booleans() | st.integers(-5, 5), min_size=1, max_size=30
)


def test_kinds_are_inferred() -> None:
    """Numbers are numeric and anything else categorical, unless numbers are said to be codes."""
    columns = {"a": [1, 2], "b": ["x", "y"], "c": [1, 2], "d": [None, None], "e": [True, None]}
    profile = ReferenceProfile.fit(columns, categorical=["c"])
    assert [each.kind for each in profile.bins.values()] == [
        "numeric",
        "categorical",
        "categorical",
        "categorical",
        "numeric",
    ]


def test_data_frame() -> None:
    """A data frame counts like a dict of its columns, whatever its dtypes."""
    table = mixed(400, 0)
    frame = pd.DataFrame(table)
    profile = ReferenceProfile.fit(frame)
    assert profile == ReferenceProfile.fit(table)
    retyped = frame.astype({"site": "category", "visits": "Int64", "score": "Float64"})
    assert profile.count(retyped) == profile.count(frame)


def test_size_is_bounded() -> None:
    """The text of a profile grows with the features, not with the rows or the categories."""
    random = np.random.default_rng(0)
    columns = {"x": random.normal(size=50_000), "id": np.array([f"id {i}" for i in range(50_000)], dtype=object)}
    assert len(ReferenceProfile.fit(columns).to_json()) < 5_000


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {}, "a reference has columns and rows (got []); profile the data the model was trained on"),
        ({"a": []}, {}, "a reference has columns and rows (got ['a'])"),
        ({"a": [1]}, {"bins": 1}, "bins is a whole number from 2 to 1024 (got 1); leave it out to keep the default"),
        ({"a": [1]}, {"levels": 0}, "levels is a whole number from 1 to 10000 (got 0)"),
        (
            {"age": [1]},
            {"categorical": ["agee"]},
            "a categorical feature is a column (got 'agee'); did you mean 'age'?",
        ),
    ],
)
def test_unfit_reference(columns: dict[str, Any], options: dict[str, Any], message: str) -> None:
    """A reference without rows, and arguments out of range, are refused."""
    with pytest.raises(DriftInputError) as caught:
        ReferenceProfile.fit(columns, **options)
    assert message in str(caught.value)


@given(st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=3), st.integers(2, 9))
def test_json_round_trip(columns: dict[str, list[Any]], bins: int) -> None:
    """A profile reads back equal, bit for bit, from ASCII text."""
    rows = min(map(len, columns.values()))
    profile = ReferenceProfile.fit({name: values[:rows] for name, values in columns.items()}, bins=bins)
    text = profile.to_json()
    assert text.isascii()
    again = ReferenceProfile.from_json(text)
    assert again == profile
    assert again.to_json() == text


def test_json_keeps_floors_and_unseen() -> None:
    """Learned floors and categories that came with later parts travel along."""
    profile = ReferenceProfile.fit({"c": ["a", "b"]})
    later = profile.with_counts(profile.count({"c": ["a", "new"]}))
    merged = profile.merge(ReferenceProfile(later.bins, later.counts, {"c": Floors(cdf_gap=1)}))
    assert merged.counts.columns["c"] == Counted((0, 0, 2, 1, 0, 1), (("new", 1),))
    assert ReferenceProfile.from_json(merged.to_json()) == merged


def test_merge_takes_the_higher_floors() -> None:
    """Of learned floors, each is the higher of the two profiles'."""
    profile = ReferenceProfile.fit({"a": [1, 2], "b": [1, 2], "c": [1, 2]})
    one = ReferenceProfile(profile.bins, profile.counts, {"a": Floors(cdf_gap=0.5), "b": Floors(psi=0.7)})
    two = ReferenceProfile(profile.bins, profile.counts, {"a": Floors(psi=0.6), "c": Floors(psi=0.9)})
    expected = {"a": Floors(cdf_gap=0.5, psi=0.6), "b": Floors(psi=0.7), "c": Floors(psi=0.9)}
    assert one.merge(two).floors == two.merge(one).floors == expected


TEXT = ReferenceProfile.fit({"x": np.arange(9.0), "c": ["a", "b", "c"] * 3}, bins=4).to_json()


@settings(max_examples=200)
@given(st.integers(0, len(TEXT) - 1))
def test_cut_off_text(length: int) -> None:
    """A text cut off anywhere is refused, never half read."""
    with pytest.raises(
        DriftInputError, match=r"a drift profile .*; save the profile again with to_json, or fit it again"
    ):
        ReferenceProfile.from_json(TEXT[:length])


@settings(max_examples=200)
@given(st.data())
def test_altered_fields(data: st.DataObject) -> None:
    """Whatever a field is replaced with, the profile reads back whole or is refused."""
    document = json.loads(TEXT)
    part = document if data.draw(st.booleans()) else data.draw(st.sampled_from(document["features"]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.lists(st.integers())
        | st.just({"x": 1})
    )
    with contextlib.suppress(DriftInputError):
        assert ReferenceProfile.from_json(json.dumps(document)).bins


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": "other"}, "a drift profile has the format 'ml_pipeline.drift.profile'"),
        ({"version": 2}, "a drift profile has version 1 (got 2)"),
        ({"rows": "9"}, "every field of its version (got \"TypeError: '9' is not a whole number\")"),
        ({"rows": 8}, "add up to the 8 rows"),
        ({"bins_id": "0" * 64}, "a drift profile's bins are those it was saved with"),
        ({"floors": {"y": {}}}, "learned floors belong to features (got ['y'])"),
        ({"features": [{"name": "x", "kind": "other"}]}, "ValueError: kind 'other'"),
        ({"features": [{}]}, "KeyError: 'name'"),
    ],
)
def test_refused_text(change: dict[str, Any], message: str) -> None:
    """A text of another format or version, or with an impossible field, is refused with that field."""
    with pytest.raises(DriftInputError) as caught:
        ReferenceProfile.from_json(json.dumps(json.loads(TEXT) | change))
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "null", "[" * 100_000, None])
def test_no_object(text: Any) -> None:
    """What is no JSON object at all is refused."""
    with pytest.raises(DriftInputError, match="a drift profile"):
        ReferenceProfile.from_json(text)


def test_assembled_counts_are_checked() -> None:
    """Counts from another engine must be of known features and add up."""
    profile = ReferenceProfile.fit({"age": [1.0, 2.0]})
    with pytest.raises(DriftInputError, match=r"the profile's features \(got 'agee'\); did you mean 'age'\?"):
        profile.assemble(2, {"agee": Counted((0,))})
    with pytest.raises(DriftInputError, match="add up to the 2 rows"):
        profile.assemble(2, {"age": Counted((0, 0, 0, 1, 0, 0))})
    assert profile.assemble(2, {}).missing == ("age",)


def test_bins_are_public() -> None:
    """What another engine needs of the bins is there: knots to compare with, and the categories."""
    profile = ReferenceProfile.fit({"age": [1.0, 2.0], "site": ["A", "B"]})
    age, site = profile.bins["age"], profile.bins["site"]
    assert isinstance(age, NumericBins)
    assert isinstance(site, CategoricalBins)
    assert age.knots == (-np.inf, np.nextafter(1.0, 0), 1.0, 2.0, np.finfo(float).max, np.inf)
    assert site.levels == ("A", "B")
