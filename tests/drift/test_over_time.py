"""Floors learned from chunks, and the alarm."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ml_pipeline.drift import (
    BatchCounts,
    DriftAlarm,
    DriftReport,
    Floors,
    ReferenceProfile,
    Verdict,
    check,
    learn_floors,
)
from ml_pipeline.errors import DriftInputError
from tests.drift.tables import Table, mixed


def sites(chunks: int, seed: int, spread: float) -> list[Table]:
    """Chunks that each have a mean and a share of their own, as days and sites do."""
    random = np.random.default_rng(seed)
    return [
        {
            "x": random.normal(random.normal(0, spread), 1, 400),
            "c": np.where(random.random(400) < 0.5 + random.uniform(-1, 1) * spread / 2, "a", "b").astype(object),
        }
        for _ in range(chunks)
    ]


def profiled(chunks: list[Table]) -> tuple[ReferenceProfile, list[BatchCounts]]:
    profile = ReferenceProfile.fit({name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]})
    return profile, [profile.count(chunk) for chunk in chunks]


def test_chunks_that_differ_raise_the_floors() -> None:
    """Where the reference's own chunks differ, only a batch that differs more is drift."""
    profile, counts = profiled(sites(100, 0, 0.3))
    learned = learn_floors(profile, counts)
    batches = sites(200, 1, 0.3)
    before = sum(check(profile, batch).verdict is Verdict.DRIFT for batch in batches)
    after = sum(check(learned, batch).verdict is Verdict.DRIFT for batch in batches)
    assert before >= 100
    assert after <= 20
    assert check(learned, {"x": batches[0]["x"] + 3, "c": batches[0]["c"]}).drifted == ("x",)


def test_floors_are_median_and_three_mad() -> None:
    """A learned floor is the median plus three scaled MAD of the leave-one-out effects, here by hand for nulls."""
    random = np.random.default_rng(2)
    shares = random.uniform(0, 0.4, 25)
    chunks = [{"x": np.where(random.random(200) < share, np.nan, 1.0)} for share in shares]
    profile, counts = profiled(chunks)
    nulls = np.array([np.isnan(chunk["x"]).sum() for chunk in chunks])
    gaps = np.abs(nulls / 200 - (nulls.sum() - nulls) / 4_800)
    mad = np.median(np.abs(gaps - np.median(gaps)))
    learned = learn_floors(profile, counts).floors["x"]
    assert learned.null_gap == pytest.approx(np.median(gaps) + 3 * 1.4826 * mad)
    assert (learned.cdf_gap, learned.wasserstein, learned.psi) == (0.05, 0.1, 0.1)


def test_equal_chunks_leave_the_floors() -> None:
    """Chunks without any spread do not give a threshold of zero width: the floors without history stand."""
    chunk = mixed(200, 3)
    profile, counts = profiled([chunk] * 20)
    assert set(learn_floors(profile, counts).floors.values()) == {Floors()}
    assert set(learn_floors(profile, counts, floors=Floors(psi=0.3)).floors.values()) == {Floors(psi=0.3)}


def test_one_wild_chunk_changes_little() -> None:
    """The floors are robust: a chunk gone wrong in the history does not raise them by its own size."""
    chunks = sites(40, 4, 0.1)
    wild = [*chunks[:-1], {"x": chunks[-1]["x"] + 50, "c": chunks[-1]["c"]}]
    usual, shaken = (learn_floors(*profiled(each)).floors["x"] for each in (chunks, wild))
    assert shaken.cdf_gap < usual.cdf_gap + 0.05


def test_values_that_are_mostly_null() -> None:
    """A feature with values in too few chunks learns floors of its nulls alone."""
    chunks = [{"x": np.where(np.arange(100) < (100 if i < 5 else 10), 1.0 * i, np.nan)} for i in range(25)]
    learned = learn_floors(*profiled(chunks)).floors["x"]
    assert (learned.cdf_gap, learned.wasserstein, learned.psi) == (0.05, 0.1, 0.1)


@pytest.mark.parametrize(
    ("chunks", "rows", "message"),
    [
        (1, 100, "floors are learned from at least 20 chunks (got 1); cut the reference finer, or do without"),
        (19, 100, "floors are learned from at least 20 chunks (got 19)"),
        (20, 49, "a chunk has at least 50 rows (got 49); cut the reference coarser"),
    ],
)
def test_too_little_history(chunks: int, rows: int, message: str) -> None:
    """One chunk, or a handful, or chunks of a few rows, give no floor at all."""
    profile, counts = profiled([mixed(rows, seed) for seed in range(chunks)])
    with pytest.raises(DriftInputError) as caught:
        learn_floors(profile, counts)
    assert message in str(caught.value)


def test_foreign_history() -> None:
    """Chunks by other bins, and chunks without a feature, are refused."""
    profile, _ = profiled([mixed(60, seed) for seed in range(20)])
    other, foreign = profiled([mixed(70, seed) for seed in range(20)])
    with pytest.raises(DriftInputError, match="count with the profile they are used with"):
        learn_floors(profile, foreign)
    partial = other.count({"age": mixed(60, 0)["age"]})
    with pytest.raises(
        DriftInputError, match=r"a chunk of the reference has every feature \(got \['score', 'site', 'vis"
    ):
        learn_floors(other, [*foreign[1:], partial])


# The alarm.

REFERENCE = np.random.default_rng(5).normal(size=2_000)
PROFILE = ReferenceProfile.fit({"x": REFERENCE})


def report(shift: float, rows: int = 2_000) -> DriftReport:
    return check(PROFILE, {"x": REFERENCE[:rows] + shift})


MILD, NONE, SEVERE, FEW = report(0.2), report(0.0), report(1.0), report(0.0, rows=10)


def test_reports_are_what_they_are_called() -> None:
    """The chunks below are mild, without drift, severe, and too few rows."""
    assert [each.verdict for each in (MILD, NONE, SEVERE, FEW)] == ["drift", "no_drift", "drift", "insufficient_data"]


@pytest.mark.parametrize(
    ("reports", "raised", "reason"),
    [
        ([], False, "no chunk yet"),
        ([MILD], False, "1 of the last 1 chunks drifted"),
        ([MILD, NONE, MILD], True, "2 of the last 3 chunks drifted"),
        ([MILD, NONE, NONE, MILD], False, "1 of the last 3 chunks drifted"),
        ([MILD, MILD, NONE, NONE], False, "1 of the last 3 chunks drifted"),
        ([SEVERE], True, "severe drift of x"),
        ([SEVERE, NONE], False, "1 of the last 2 chunks drifted"),
    ],
)
def test_alarm(reports: list[DriftReport], raised: bool, reason: str) -> None:
    """Two of three chunks raise the alarm, one does not, a severe effect does at once, and calm lowers it."""
    alarm = DriftAlarm()
    for each in reports:
        alarm = alarm.after(each)
    assert (alarm.raised, alarm.reason) == (raised, reason)


def test_insufficient_data_says_nothing() -> None:
    """A chunk without a verdict neither raises the alarm nor lowers it, and says so."""
    raised = DriftAlarm().after(MILD).after(MILD)
    after = raised.after(FEW)
    assert (after.raised, after.recent) == (True, (True, True))
    assert after.reason == "unchanged, insufficient data: the batch has 10 rows, a verdict needs 50"


def test_severe_nulls() -> None:
    """A column that turns null in a fifth of the rows is severe."""
    holes = np.where(np.arange(2_000) % 4 == 0, math.nan, REFERENCE)
    assert DriftAlarm().after(check(PROFILE, {"x": holes})).reason == "severe drift of x"


def test_alarm_resumes() -> None:
    """The state is its fields: kept and given back, it goes on where it was."""
    before = DriftAlarm(needed=3, window=5).after(MILD).after(MILD)
    again = DriftAlarm(needed=3, window=5, recent=before.recent)
    assert again.after(MILD).raised
    assert not before.after(NONE).raised


@pytest.mark.parametrize(("needed", "window"), [(0, 3), (4, 3)])
def test_impossible_alarm(needed: int, window: int) -> None:
    """The number needed is at least 1 and at most the window."""
    with pytest.raises(
        DriftInputError, match=r"an alarm needs k of m chunks, 1 <= k <= m \(got \(\d, 3\)\); 2 of 3 is"
    ):
        DriftAlarm(needed=needed, window=window)
