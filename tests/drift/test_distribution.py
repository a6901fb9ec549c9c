"""Distributions as a report draws them."""

from __future__ import annotations

import numpy as np
import pytest

from ml_pipeline.drift import ReferenceProfile, distribution
from ml_pipeline.errors import DriftInputError
from tests.drift.tables import mixed

REFERENCE = {"x": [1.0, 2.0, 2.0, None], "c": ["a", "a", "b", "c"], "blank": [np.nan] * 4}
PROFILE = ReferenceProfile.fit(REFERENCE | {"blank": np.full(4, np.nan)}, bins=4)


def test_numeric() -> None:
    """A numeric feature has a label and two shares a cell, and the ends of its bins."""
    found = distribution(PROFILE, PROFILE.count({"x": [0.0, 2.0, np.inf, 3.0, np.nan]}), "x")
    assert found.labels == ("null", "infinite", "below 1", "1", "1 to 2", "above 2")
    assert list(found.edges) == [1.0, 1.0, 2.0]
    assert list(found.reference) == [0.25, 0, 0, 0.25, 0.5, 0]
    assert list(found.batch) == [0.2, 0.2, 0.2, 0, 0.2, 0.2]


def test_categorical() -> None:
    """A categorical feature shows its most frequent categories by name and folds the others."""
    found = distribution(PROFILE, PROFILE.count({"c": ["a", "b", "c", "d"]}), "c", levels=1)
    assert found.labels == ("null", "infinite", "a", "other", "unseen")
    assert list(found.edges) == []
    assert list(found.reference) == [0, 0, 0.5, 0.5, 0]
    assert list(found.batch) == [0, 0, 0.25, 0.5, 0.25]


def test_no_values() -> None:
    """A feature without values in the reference, and a batch without rows, have distributions too."""
    found = distribution(PROFILE, PROFILE.count({"blank": np.array([])}), "blank")
    assert found.labels == ("null", "infinite", "below", "above")
    assert (found.reference, found.batch) == ((1, 0, 0, 0), (0, 0, 0, 0))


@pytest.mark.parametrize("feature", ["age", "score", "visits", "site"])
def test_shares_add_up(feature: str) -> None:
    """Shares add up to 1, one a label."""
    profile = ReferenceProfile.fit(mixed(500, 0))
    found = distribution(profile, profile.count(mixed(300, 1)), feature)
    assert len(found.labels) == len(found.reference) == len(found.batch)
    assert sum(found.reference) == pytest.approx(1)
    assert sum(found.batch) == pytest.approx(1)


def test_unknown_feature() -> None:
    """A feature that the batch has no counts of is refused, with the closest that it has."""
    counts = PROFILE.count({"x": [1.0]})
    with pytest.raises(DriftInputError, match=r"a feature the batch has counts of \(got 'y'\); known: x"):
        distribution(PROFILE, counts, "y")
    with pytest.raises(DriftInputError, match="the batch has no column of the profile"):
        distribution(PROFILE, PROFILE.count({}), "x")
