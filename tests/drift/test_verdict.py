"""The verdict: each fault that other tools are known for, every batch that can go wrong, and the sentences."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ml_pipeline.drift import FeatureDrift, Floors, ReferenceProfile, Verdict, check
from ml_pipeline.errors import DriftInputError
from tests.drift.tables import Table, mixed, normals

REFERENCE = mixed(2_000, 0)
PROFILE = ReferenceProfile.fit(REFERENCE)


def feature(name: str, batch: Any, profile: ReferenceProfile = PROFILE) -> FeatureDrift:
    report = check(profile, batch)
    return next(each for each in report.judged if each.name == name)


# Faults of other tools.


def test_the_reference_is_a_sample_too() -> None:
    """Categories drawn from one law are called drifted in at most 5 % of batches, not in 58 %."""
    random = np.random.default_rng(1)
    shares = np.array([0.4, 0.3, 0.15, 0.1, 0.05])
    flagged = 0
    for _ in range(200):
        reference, batch = (np.array(list("abcde"), dtype=object)[random.choice(5, 500, p=shares)] for _ in range(2))
        flagged += check(ReferenceProfile.fit({"c": reference}), {"c": batch}).verdict is Verdict.DRIFT
    assert flagged <= 15


@pytest.mark.parametrize("levels", [40, 300, 5_000])
def test_rare_categories_cry_no_wolf(levels: int) -> None:
    """With many rare categories a batch always brings some that the reference has not; that alone is no drift."""
    random = np.random.default_rng(2)
    shares = 1 / np.arange(1, levels + 1)
    names = np.array([f"level {i}" for i in range(levels)], dtype=object)
    flagged = 0
    for _ in range(100):
        reference, batch = (names[random.choice(levels, 1_000, p=shares / shares.sum())] for _ in range(2))
        flagged += check(ReferenceProfile.fit({"c": reference}), {"c": batch}).verdict is Verdict.DRIFT
    assert flagged <= 10


def test_ids_cry_no_wolf() -> None:
    """A column of identifiers, new in each batch, is no drift: it has no category that could become rarer."""
    reference = {"id": np.array([f"id {i}" for i in range(3_000)], dtype=object)}
    batch = {"id": np.array([f"id {i}" for i in range(3_000, 4_000)], dtype=object)}
    assert check(ReferenceProfile.fit(reference), batch).verdict is Verdict.NO_DRIFT


@pytest.mark.parametrize("outlier", [1e6, -1e12, 1e300])
def test_one_outlier_hides_no_shift(outlier: float) -> None:
    """A shift of one sigma is drift although one value of the reference is a million sigma away."""
    random = np.random.default_rng(3)
    profile = ReferenceProfile.fit({"x": np.append(random.normal(size=2_000), outlier)})
    assert check(profile, {"x": random.normal(1, 1, 500)}).verdict is Verdict.DRIFT
    assert check(profile, {"x": random.normal(0, 1, 500)}).verdict is Verdict.NO_DRIFT


def test_new_nulls_are_drift() -> None:
    """A column that turns null in 30 % of the rows has drifted, though its other values have not."""
    batch = mixed(1_000, 4)
    batch["age"] = np.where(np.arange(1_000) % 10 < 3, np.nan, batch["age"])
    found = feature("age", batch)
    assert found.verdict is Verdict.DRIFT
    assert found.reason.startswith("nulls went from 0 % to 30 % (p = ")
    assert (found.reference_null_share, found.batch_null_share, found.null_gap) == (0, 0.3, 0.3)


def test_new_null_categories_are_drift() -> None:
    """So has a categorical column, and one whose nulls went away."""
    batch = mixed(1_000, 4)
    batch["site"][np.arange(1_000) % 10 < 3] = None
    batch["score"] = np.nan_to_num(batch["score"], nan=50.0)
    assert check(PROFILE, batch).drifted == ("score", "site")


def test_new_infinities_are_drift() -> None:
    """Infinite values have a cell of their own."""
    batch = mixed(1_000, 4)
    batch["age"] = np.where(np.arange(1_000) % 10 < 1, np.inf, batch["age"])
    assert feature("age", batch).reason.startswith("infinite values went from 0 % to 10 % (p = ")


@pytest.mark.parametrize("rows", [0, 1, 20, 49])
def test_few_rows_are_no_drift(rows: int) -> None:
    """On fewer than 50 rows there is no verdict, on any feature, however far off they are."""
    report = check(PROFILE, {name: column[:rows] for name, column in normals(50, 4, 5).items()} | {"x": np.zeros(rows)})
    assert report.verdict is Verdict.INSUFFICIENT_DATA
    assert report.reason == f"the batch has {rows} rows, a verdict needs 50"
    batch = {name: np.repeat(column[:1], rows) for name, column in REFERENCE.items()}
    assert {each.verdict for each in check(PROFILE, batch).features} == {Verdict.INSUFFICIENT_DATA}
    assert {each.p_adjusted for each in check(PROFILE, batch).features} == {None}


def test_few_reference_rows() -> None:
    """A reference of fewer than 50 rows judges nothing either."""
    profile = ReferenceProfile.fit(mixed(49, 0))
    report = check(profile, mixed(500, 1))
    assert (report.verdict, report.reason) == ("insufficient_data", "the reference has 49 rows, a verdict needs 50")
    assert report.detectable_shift is None


def test_significant_but_small() -> None:
    """On a million rows a shift of 0.02 sigma is significant, said to be, and no drift."""
    random = np.random.default_rng(6)
    profile = ReferenceProfile.fit({"x": random.normal(size=1_000_000)})
    report = check(profile, {"x": random.normal(0.02, 1, 1_000_000)})
    assert report.verdict is Verdict.NO_DRIFT
    assert report.features[0].reason.startswith("significant but small: D = 0.00")
    assert report.features[0].p_adjusted is not None
    assert report.features[0].p_adjusted < 1e-20
    # More rows do not make a smaller shift worth a verdict: the effect floor is what could be found.
    assert report.detectable_shift == pytest.approx(0.1)


def test_small_change_in_nulls() -> None:
    """A significant change in nulls below its floor is said to be small."""
    random = np.random.default_rng(7)
    values, order = random.normal(size=20_000), random.random(20_000)
    reference, batch = ({"x": np.where(order < share, np.nan, values)} for share in (0.1, 0.13))
    report = check(ReferenceProfile.fit(reference), batch)
    assert report.features[0].reason.startswith("significant but small: nulls went from ")
    assert report.verdict is Verdict.NO_DRIFT


def test_one_feature_is_enough() -> None:
    """The batch drifts if one of its twenty features does, not only if half of them do."""
    profile = ReferenceProfile.fit(normals(1_000, 20, 8))
    batch = normals(1_000, 20, 9)
    batch["x7"] = batch["x7"] + 0.5
    report = check(profile, batch)
    assert (report.verdict, report.drifted) == ("drift", ("x7",))
    assert report.reason == "1 of 20 features drifted: x7"


def test_all_null_column() -> None:
    """A column that turned all null has drifted; one that always was cannot be judged; neither raises."""
    reference = {"x": np.ones(100), "never": np.full(100, np.nan), "blank": np.array([None] * 100)}
    profile = ReferenceProfile.fit(reference)
    batch = {"x": np.full(100, np.nan), "never": np.full(100, np.nan), "blank": np.array([None] * 100)}
    report = check(profile, batch)
    assert [each.verdict for each in report.features] == ["drift", "insufficient_data", "insufficient_data"]
    assert report.features[1].reason == "0 rows of the batch have a value, a verdict needs 50"
    assert check(profile, reference).verdict is Verdict.NO_DRIFT
    assert check(profile, reference).reason.endswith("; too few values to judge never, blank")


def test_nothing_to_judge() -> None:
    """If no feature has enough values there is no verdict."""
    blank = {"x": np.full(100, np.nan)}
    report = check(ReferenceProfile.fit(blank), blank)
    assert (report.verdict, report.reason) == ("insufficient_data", "no feature has values in 50 rows or more")


def test_values_return_to_an_empty_column() -> None:
    """A column that was all null in the reference and no longer is has drifted by its nulls."""
    profile = ReferenceProfile.fit({"x": np.full(100, np.nan)})
    assert feature("x", {"x": np.ones(100)}, profile).reason.startswith("nulls went from 100 % to 0 %")


# Batches that go wrong.


def test_missing_column() -> None:
    """A batch without a column has no verdict, unless another column drifted."""
    batch = mixed(500, 1)
    del batch["site"]
    report = check(PROFILE, batch)
    assert (report.verdict, report.missing_columns) == ("insufficient_data", ("site",))
    assert report.reason == "columns are missing or of another type: site"
    assert report.features[-1].reason == "the batch has no such column"
    batch["age"] = batch["age"] + 8
    assert check(PROFILE, batch).verdict is Verdict.DRIFT


def test_extra_and_reordered_columns() -> None:
    """Order does not matter, and columns that are no feature are named and ignored."""
    batch = mixed(500, 1)
    shuffled: Table = {"note": np.zeros(500)} | dict(reversed(batch.items()))
    report = check(PROFILE, shuffled)
    assert report.extra_columns == ("note",)
    assert report.features == check(PROFILE, batch).features
    assert report.verdict is Verdict.NO_DRIFT


def test_retyped_columns() -> None:
    """A column of another type has no verdict of its own, and says which type it holds."""
    batch = mixed(500, 1) | {"age": np.array(["seventy"] * 500), "site": np.arange(500.0)}
    report = check(PROFILE, batch)
    assert (report.verdict, report.retyped_columns) == ("insufficient_data", ("age", "site"))
    assert feature("age", batch).reason == "the column holds text where the reference holds numbers"
    assert feature("site", batch).reason == "the column holds numbers where the reference holds text"


@pytest.mark.parametrize("batch", [{}, {"other": np.zeros(100)}, {"other": np.zeros(0)}])
def test_no_known_column(batch: Table) -> None:
    """A batch with none of the features has no verdict."""
    report = check(PROFILE, batch)
    assert report.verdict is Verdict.INSUFFICIENT_DATA
    assert report.missing_columns == tuple(sorted(REFERENCE))
    assert report.detectable_gap is None


def test_all_null_batch() -> None:
    """A batch of nulls alone is drift of every feature that was not."""
    assert check(PROFILE, {name: [None] * 200 for name in REFERENCE}).drifted == tuple(REFERENCE)


NUMBERS = st.floats(width=64) | st.sampled_from([0.0, 1.0, np.nan, np.inf, -np.inf, 5e-324, 1.7976931348623157e308])
COLUMNS = st.tuples(st.lists(NUMBERS, min_size=1, max_size=12), st.integers(0, 120))


def repeated(pattern: list[float], rows: int) -> np.ndarray[Any, Any]:
    return np.resize(np.array(pattern), rows)


@settings(max_examples=300)
@given(COLUMNS, COLUMNS)
def test_any_floats(reference: tuple[list[float], int], batch: tuple[list[float], int]) -> None:
    """Whatever floats come in, a verdict comes out, ready for JSON, without an exception or a warning of numpy's."""
    profile = ReferenceProfile.fit({"x": repeated(reference[0], max(1, reference[1]))})
    report = check(profile, {"x": repeated(*batch)})
    json.dumps(report.to_dict(), allow_nan=False)
    enough = min(profile.rows, report.batch_rows) >= 50
    assert enough or report.verdict is Verdict.INSUFFICIENT_DATA


@settings(max_examples=100)
@given(st.lists(st.one_of(NUMBERS, st.none(), st.text(max_size=3), st.booleans(), st.binary(max_size=2)), max_size=120))
def test_any_objects(values: list[object]) -> None:
    """Whatever scalars a column holds, a verdict comes out, against a column of numbers and one of categories."""
    report = check(ReferenceProfile.fit({"x": np.arange(100), "c": ["a", "b"] * 50}), {"x": values, "c": values})
    assert report.batch_rows == len(values)
    json.dumps(report.to_dict(), allow_nan=False)


@settings(max_examples=50)
@given(st.lists(st.floats(width=64) | st.none(), min_size=50, max_size=80), st.randoms())
def test_an_equal_batch_has_no_effect(values: list[float | None], random: Any) -> None:
    """A batch with the reference's very rows, in any order, has no effect and no drift."""
    shuffled = list(values)
    random.shuffle(shuffled)
    found = check(ReferenceProfile.fit({"x": values}), {"x": shuffled}).features[0]
    assert found.verdict is not Verdict.DRIFT
    assert found.effect == 0
    if found.effects:
        assert (found.effects.wasserstein or 0, found.effects.jensen_shannon, found.effects.psi.excess) == (0, 0, 0)


# The correction, the score, the report.


def test_correction_is_benjamini_hochbergs() -> None:
    """Adjusted p-values are scipy's over the features, each counted once with its tests of values and of nulls."""
    reference = normals(500, 6, 10)
    reference["x5"] = np.where(np.arange(500) % 5 == 0, np.nan, reference["x5"])
    report = check(ReferenceProfile.fit(reference), normals(400, 6, 11))
    p_values = [[test.p_value for test in (each.distribution, each.missing) if test] for each in report.features]
    assert list(map(len, p_values)) == [1, 1, 1, 1, 1, 2]
    expected = stats.false_discovery_control([min(1, len(each) * min(each)) for each in p_values])
    np.testing.assert_allclose([each.p_adjusted or 0 for each in report.features], expected, rtol=1e-9)


def test_nothing_to_compare_dilutes_nothing() -> None:
    """Constant columns do not make the correction of the others harsher."""
    reference, batch = normals(500, 2, 12), normals(400, 2, 13)
    constants = {f"c{i}": np.ones(500) for i in range(50)}
    with_constants = check(
        ReferenceProfile.fit(reference | constants), batch | {n: c[:400] for n, c in constants.items()}
    )
    alone = check(ReferenceProfile.fit(reference), batch)
    assert with_constants.features[:2] == alone.features
    assert with_constants.detectable_gap == alone.detectable_gap


def test_underflowed_p_values_survive() -> None:
    """p-values that underflow to 0 stay 0 after the correction, and are shown as a bound."""
    random = np.random.default_rng(14)
    profile = ReferenceProfile.fit(normals(20_000, 3, 14))
    report = check(profile, {f"x{i}": random.normal(5, 1, 20_000) for i in range(3)})
    assert {each.p_adjusted for each in report.features} == {0.0}
    assert report.features[0].reason.endswith("(p < 1e-300)")


def test_score_needs_no_correction() -> None:
    """The model's score is judged first and alone, at the level q, whatever the number of features."""
    reference, batch = normals(1_000, 40, 15), normals(1_000, 40, 16)
    batch["x0"] = batch["x0"] + 0.17
    profile = ReferenceProfile.fit(reference)
    report = check(profile, batch, score="x0")
    assert report.score is not None
    assert report.score.distribution is not None
    assert report.score.distribution.p_adjusted == report.score.distribution.p_value
    assert (report.verdict, report.drifted, len(report.features)) == ("drift", ("x0",), 39)
    assert report.judged[0] is report.score
    assert check(profile, batch).verdict is Verdict.NO_DRIFT


def test_unseen_categories_are_named() -> None:
    """Categories that the reference never had are drift past the floor, and the first few are named."""
    batch = mixed(500, 1)
    batch["site"] = np.array(["A", "B", "C", "Z9", "Z8", "Z7", "Z6", "Z5", "Z4", "A"] * 50, dtype=object)
    found = feature("site", batch)
    assert (found.verdict, found.unseen_share) == ("drift", 0.6)
    assert found.unseen == ("Z4", "Z5", "Z6", "Z7", "Z8")


def test_rows_outside_the_range_are_counted() -> None:
    """The share below the reference's minimum and above its maximum is reported."""
    batch = mixed(500, 1)
    batch["age"] = np.where(np.arange(500) < 50, 200.0, np.where(np.arange(500) < 75, -1.0, batch["age"]))
    assert feature("age", batch).outside_share == pytest.approx(0.15, abs=0.01)


def test_higher_floors_want_more() -> None:
    """Given floors decide, and floors learned of a feature raise them."""
    batch = mixed(1_000, 4)
    batch["age"] = batch["age"] + 4
    high = Floors(cdf_gap=0.9, wasserstein=3, psi=9)
    assert check(PROFILE, batch).drifted == ("age",)
    assert check(PROFILE, batch, floors=high).drifted == ()
    learned = ReferenceProfile(PROFILE.bins, PROFILE.counts, {"age": high})
    assert check(learned, batch).drifted == ()
    assert check(ReferenceProfile(PROFILE.bins, PROFILE.counts, {"site": high}), batch).drifted == ("age",)


def test_detectable_shift_is_printed() -> None:
    """A report without drift says what the batch could have found."""
    report = check(ReferenceProfile.fit(normals(1_000, 20, 17)), normals(1_000, 20, 18))
    assert report.reason == "none of 20 features drifted; a shift of 0.19 sigma would have shown (80 % power)"
    assert report.detectable_gap is not None
    assert report.detectable_shift == pytest.approx(report.detectable_gap * np.sqrt(2 * np.pi))


def test_long_lists_are_cut() -> None:
    """A reason names the first few of many features."""
    report = check(ReferenceProfile.fit(normals(200, 8, 19)), {f"x{i}": np.full(200, 9.0) for i in range(8)})
    assert report.reason == "8 of 8 features drifted: x0, x1, x2, x3, x4 and 3 more"


def test_report_as_a_dict() -> None:
    """The report flattens to what JSON can hold, verdicts as text."""
    report = check(PROFILE, mixed(500, 1), score="age")
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert (document["verdict"], document["drifted"]) == ("no_drift", [])
    assert document["score"]["name"] == "age"
    assert document["features"][0]["effects"]["psi"]["excess"] >= 0


def test_counts_instead_of_columns() -> None:
    """Counts made elsewhere give the very report that the rows would."""
    batch = mixed(500, 1)
    assert check(PROFILE, PROFILE.count(batch)) == check(PROFILE, batch)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"q": 0}, "q is a rate between 0 and 1 (got 0); 0.05 calls one batch in twenty without drift drifted"),
        ({"q": 1.5}, "q is a rate between 0 and 1 (got 1.5)"),
        ({"minimum_rows": 20}, "a verdict needs at least 50 rows (got 20); merge batches until there are enough"),
        ({"score": "agee"}, "the score is a feature of the profile (got 'agee'); did you mean 'age'?"),
    ],
)
def test_refused_arguments(options: dict[str, Any], message: str) -> None:
    """Arguments out of range are refused with the rule, the value and the remedy."""
    with pytest.raises(DriftInputError) as caught:
        check(PROFILE, mixed(100, 1), **options)
    assert message in str(caught.value)


def test_counts_of_another_profile() -> None:
    """Counts by other bins are refused."""
    with pytest.raises(DriftInputError, match="count with the profile they are used with"):
        check(PROFILE, ReferenceProfile.fit(mixed(100, 9)).counts)
