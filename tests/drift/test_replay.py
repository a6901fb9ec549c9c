"""The self-test on references whose behaviour is known."""

from __future__ import annotations

import numpy as np
import pytest

from ml_pipeline.drift import SelfTest, self_test
from ml_pipeline.errors import DriftInputError
from tests.drift.tables import mixed, normals


def test_independent_rows() -> None:
    """On independent rows few batches are called drifted, and about the promised shift is found."""
    found = self_test(normals(5_000, 10, 0), batch_rows=1_000, repetitions=100)
    low, high = found.false_alarm_interval
    assert low <= 0.05
    assert found.false_alarm_rate <= 0.1
    assert low <= found.false_alarm_rate <= high
    assert found.detectable_shift is not None
    assert 0.1 <= found.detectable_shift <= 0.25
    assert found.power[-1][1] >= 0.8
    assert (found.reference_rows, found.batch_rows, found.repetitions) == (4_000, 1_000, 100)


def test_rows_in_order_of_time() -> None:
    """Where the reference itself drifts, successive rows show it and random rows do not."""
    random = np.random.default_rng(1)
    columns = {"steady": random.normal(size=4_000), "trend": random.normal(size=4_000) + np.linspace(0, 3, 4_000)}
    in_order = self_test(columns, batch_rows=500, repetitions=20, contiguous=True)
    assert in_order.false_alarm_rate >= 0.8
    assert in_order.flagged["trend"] > in_order.flagged.get("steady", 0)
    assert self_test(columns, batch_rows=500, repetitions=20).false_alarms <= 4


def test_same_seed_same_result() -> None:
    """The result is a function of the data, the arguments and the seed."""
    table = mixed(600, 2)
    assert self_test(table, batch_rows=200, repetitions=20) == self_test(table, batch_rows=200, repetitions=20)


def test_nothing_to_shift() -> None:
    """Categories, codes, constants and nulls cannot be shifted: there is no detectable shift, and that is said."""
    columns = {
        "c": np.array(["a", "b"] * 100, dtype=object),
        "code": np.arange(200) % 3,
        "one": np.ones(200),
        "none": np.full(200, np.nan),
        "huge": np.array([1.7e308, -1.7e308] * 100),
    }
    found = self_test(columns, batch_rows=100, repetitions=20, categorical=["code"])
    assert (found.power, found.detectable_shift) == ((), None)
    assert str(found).endswith("no shift tried was found with 80 % power")


def test_sentence() -> None:
    """The summary names rate, interval, features and shift; the interval is Clopper and Pearson's."""
    found = SelfTest(200, 1_000, 4_000, 10, {"b": 2, "a": 2, "c": 6}, ((0.2, 0.9),), 0.2)
    assert str(found) == (
        "10 of 200 batches of 1000 rows without drift were called drifted (5.0%, 95 % interval 2.4% to 9.0%), "
        "most often for c, a, b; a shift of one feature by 0.2 sigma is found with 80 % power"
    )
    assert SelfTest(10, 100, 100, 0, {}, (), None).false_alarm_interval == pytest.approx((0, 0.3085), abs=1e-4)
    assert SelfTest(10, 100, 100, 10, {}, (), None).false_alarm_interval == pytest.approx((0.6915, 1), abs=1e-4)


@pytest.mark.parametrize("batch_rows", [49, 451])
def test_too_small_to_split(batch_rows: int) -> None:
    """Both the batch and the rest keep 50 rows."""
    with pytest.raises(DriftInputError, match=r"a batch and the rest of the 500 rows have at least 50 rows each \(got"):
        self_test(mixed(500, 3), batch_rows=batch_rows)


def test_no_repetitions() -> None:
    """A self-test of nothing is refused."""
    with pytest.raises(DriftInputError, match=r"a self-test has at least one repetition \(got 0\); 200 tell"):
        self_test(mixed(500, 3), batch_rows=100, repetitions=0)
