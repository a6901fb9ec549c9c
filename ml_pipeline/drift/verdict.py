"""The verdict: evidence and effect, or no drift.

A feature drifts if one of its tests survives the correction over the features *and* the effect that goes with
that test reaches its floor. Evidence alone is not enough, since on a million rows everything is significant; effect
alone is not enough, since on fifty rows everything is large.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ml_pipeline.drift.bins import FIRST, LAST, NULL, CategoricalBins
from ml_pipeline.drift.counts import BatchCounts
from ml_pipeline.drift.effects import Floors
from ml_pipeline.drift.evidence import benjamini_hochberg, detectable_gap
from ml_pipeline.drift.measure import measure
from ml_pipeline.drift.reasons import listed, missing_change, p_text, too_few_rows, too_few_values
from ml_pipeline.drift.report import DriftReport, FeatureDrift, Verdict
from ml_pipeline.errors import DriftInputError, closest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ml_pipeline.drift.bins import Bins
    from ml_pipeline.drift.columns import Columns
    from ml_pipeline.drift.evidence import Evidence
    from ml_pipeline.drift.measure import Measured
    from ml_pipeline.drift.profile import ReferenceProfile

__all__ = ["LEAST_ROWS", "check"]

LEAST_ROWS = 50
"""No verdict on fewer rows: the laws of the statistics hold for many."""

_UNSEEN_NAMED = 5
_SHIFT_OF_GAP = math.sqrt(2 * math.pi)


def check(
    profile: ReferenceProfile,
    batch: Columns | BatchCounts,
    *,
    q: float = 0.05,
    floors: Floors | None = None,
    minimum_rows: int = LEAST_ROWS,
    score: str | None = None,
) -> DriftReport:
    """Judge whether a batch drifted from the reference.

    Args:
        profile: The reference.
        batch: Feature name -> values, each of shape (m,), in any order; or counts by this profile's bins.
        q: False discovery rate among the features: the share of batches without drift that may be called drifted.
        floors: Effects that a verdict needs; what the profile has learned of a feature raises them, never lowers them.
        minimum_rows: Rows that a verdict needs, in the reference and in the batch; 50 at least.
        score: The feature that is the model's own score. It is judged alone, at the level *q*: one test needs no
            correction.

    Returns:
        The verdict on the batch and on each feature.

    Raises:
        DriftInputError: If the batch cannot be read at all, was counted by other bins, or an argument is out of range.
    """
    if not 0 < q < 1:
        raise DriftInputError("q is a rate between 0 and 1", q, "0.05 calls one batch in twenty without drift drifted")
    if minimum_rows < LEAST_ROWS:
        raise DriftInputError(
            f"a verdict needs at least {LEAST_ROWS} rows", minimum_rows, "merge batches until there are enough"
        )
    if score is not None and score not in profile.bins:
        raise DriftInputError("the score is a feature of the profile", score, closest(score, profile.bins))
    counts = batch if isinstance(batch, BatchCounts) else profile.count(batch)
    counts.require_bins(profile.bins_id)
    return _Check(profile, counts, q, floors or Floors(), minimum_rows, score).report()


@dataclass(frozen=True, slots=True)
class _Check:
    profile: ReferenceProfile
    counts: BatchCounts
    q: float
    floors: Floors
    minimum_rows: int
    score: str | None

    def report(self) -> DriftReport:
        measured = self.measured()
        others = _corrected([each for name, each in measured.items() if name != self.score])
        alone = _corrected([each for name, each in measured.items() if name == self.score])
        corrected = {each.bins.name: each for each in (*others, *alone)}
        judged = {
            name: self.judge(corrected[name]) if name in corrected else self.unjudged(bins)
            for name, bins in self.profile.bins.items()
        }
        gap = self.detectable(sum(map(bool, map(_tests, others))))
        verdict, reason = self.conclude(list(judged.values()), gap)
        return DriftReport(
            verdict=verdict,
            reason=reason,
            reference_rows=self.profile.rows,
            batch_rows=self.counts.rows,
            score=None if self.score is None else judged.pop(self.score),
            features=tuple(judged.values()),
            missing_columns=self.counts.missing,
            retyped_columns=self.counts.retyped,
            extra_columns=self.counts.extra,
            q=self.q,
            detectable_gap=gap,
            detectable_shift=None if gap is None else gap * _SHIFT_OF_GAP,
        )

    @property
    def too_few(self) -> bool:
        return min(self.profile.rows, self.counts.rows) < self.minimum_rows

    def measured(self) -> dict[str, Measured]:
        if self.too_few:
            return {}
        reference, batch = self.profile.counts.columns, self.counts.columns
        return {
            name: measure(bins, reference[name], batch[name], minimum_rows=self.minimum_rows)
            for name, bins in self.profile.bins.items()
            if name in batch
        }

    def judge(self, measured: Measured) -> FeatureDrift:
        large, small = self.findings(measured)
        if large:
            verdict, reason = Verdict.DRIFT, ", ".join(large)
        elif measured.effects is None:
            verdict, reason = Verdict.INSUFFICIENT_DATA, too_few_values(measured, self.minimum_rows)
        elif small:
            verdict, reason = Verdict.NO_DRIFT, f"significant but small: {', '.join(small)}"
        else:
            verdict, reason = Verdict.NO_DRIFT, f"no more than chance: {measured.effects}"
        return _feature(measured, verdict, reason)

    def findings(self, measured: Measured) -> tuple[list[str], list[str]]:
        learned = self.profile.floors.get(measured.bins.name, self.floors)
        floors = self.floors.raised_to(learned)
        large: list[str] = []
        small: list[str] = []
        test, effects = measured.distribution, measured.effects
        if test and effects and test.p_adjusted <= self.q:
            reached = effects.reached(floors)
            (large if reached else small).append(f"{', '.join(reached) or effects} ({p_text(test.p_adjusted)})")
        test = measured.missing
        if test and test.p_adjusted <= self.q:
            reaches = measured.null_gap >= floors.null_gap
            (large if reaches else small).append(f"{missing_change(measured)} ({p_text(test.p_adjusted)})")
        return large, small

    def unjudged(self, bins: Bins) -> FeatureDrift:
        if bins.name in self.counts.missing:
            reason = "the batch has no such column"
        elif bins.name in self.counts.retyped:
            held, wanted = ("numbers", "text") if isinstance(bins, CategoricalBins) else ("text", "numbers")
            reason = f"the column holds {held} where the reference holds {wanted}"
        else:
            reason = too_few_rows(self.profile.rows, self.counts.rows, self.minimum_rows)
        nulls = self.profile.counts.columns[bins.name].cells[NULL]
        return FeatureDrift(
            bins.name, bins.kind, Verdict.INSUFFICIENT_DATA, reason, reference_null_share=nulls / self.profile.rows
        )

    def detectable(self, tested: int) -> float | None:
        if tested == 0:
            return None
        # However much evidence there is, the effect has to reach a floor as well.
        floor = min(self.floors.cdf_gap, self.floors.wasserstein / _SHIFT_OF_GAP)
        return max(floor, detectable_gap(self.profile.rows, self.counts.rows, tests=tested, q=self.q))

    def conclude(self, judged: Sequence[FeatureDrift], gap: float | None) -> tuple[Verdict, str]:
        named = _by_verdict(judged)
        if drifted := named[Verdict.DRIFT]:
            return Verdict.DRIFT, f"{len(drifted)} of {len(judged)} features drifted: {listed(drifted)}"
        if self.too_few:
            return Verdict.INSUFFICIENT_DATA, too_few_rows(self.profile.rows, self.counts.rows, self.minimum_rows)
        if unusable := (*self.counts.missing, *self.counts.retyped):
            return Verdict.INSUFFICIENT_DATA, f"columns are missing or of another type: {listed(unusable)}"
        if not named[Verdict.NO_DRIFT]:
            return Verdict.INSUFFICIENT_DATA, f"no feature has values in {self.minimum_rows} rows or more"
        found = "" if gap is None else f"; a shift of {gap * _SHIFT_OF_GAP:.2g} sigma would have shown (80 % power)"
        unjudged = named[Verdict.INSUFFICIENT_DATA]
        left_out = f"; too few values to judge {listed(unjudged)}" if unjudged else ""
        return Verdict.NO_DRIFT, f"none of {len(judged)} features drifted{found}{left_out}"


def _by_verdict(judged: Sequence[FeatureDrift]) -> Mapping[Verdict, list[str]]:
    return {verdict: [each.name for each in judged if each.verdict is verdict] for verdict in Verdict}


def _tests(measured: Measured) -> list[Evidence]:
    # A test with nothing to compare cannot err, and would only dilute the correction of the others.
    return [test for test in (measured.distribution, measured.missing) if test and test.df]


def _corrected(measured: Sequence[Measured]) -> list[Measured]:
    # A feature has one place in the correction over the features, which its tests (of values, of nulls) share.
    tested = [each for each in measured if _tests(each)]
    least = [len(tests) * min(test.p_value for test in tests) for tests in map(_tests, tested)]
    factors = [
        adjusted / p_value if p_value else float(len(tested))
        for adjusted, p_value in zip(benjamini_hochberg(least), least, strict=True)
    ]
    done = [_multiplied(each, factor * len(_tests(each))) for each, factor in zip(tested, factors, strict=True)]
    return [*done, *(each for each in measured if not _tests(each))]


def _multiplied(measured: Measured, factor: float) -> Measured:
    def correct(test: Evidence | None) -> Evidence | None:
        return replace(test, p_adjusted=min(1.0, factor * test.p_value)) if test and test.df else test

    return replace(measured, distribution=correct(measured.distribution), missing=correct(measured.missing))


def _feature(measured: Measured, verdict: Verdict, reason: str) -> FeatureDrift:
    reference, batch = measured.shares.tolist()
    categorical = isinstance(measured.bins, CategoricalBins)
    return FeatureDrift(
        name=measured.bins.name,
        kind=measured.bins.kind,
        verdict=verdict,
        reason=reason,
        distribution=measured.distribution,
        missing=measured.missing,
        effects=measured.effects,
        reference_null_share=reference[NULL],
        batch_null_share=batch[NULL],
        null_gap=measured.null_gap,
        unseen_share=batch[LAST] if categorical else 0.0,
        unseen=tuple(measured.unseen)[:_UNSEEN_NAMED],
        outside_share=0.0 if categorical else batch[FIRST] + batch[LAST],
    )
