"""What a drift check says: frozen, comparable, ready for JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ml_pipeline.drift.effects import Effects
    from ml_pipeline.drift.evidence import Evidence

__all__ = ["DriftReport", "FeatureDrift", "Verdict"]


class Verdict(StrEnum):
    """The three answers of a drift check."""

    DRIFT = "drift"
    NO_DRIFT = "no_drift"
    INSUFFICIENT_DATA = "insufficient_data"


@dataclass(frozen=True, slots=True)
class FeatureDrift:
    """The verdict on one feature.

    Attributes:
        name: The feature.
        kind: Whether it is numeric or categorical.
        verdict: The answer.
        reason: Why, in one sentence.
        distribution: The test of the values; None where too few rows have one.
        missing: The test of the shares of nulls and infinite values; None where neither sample has any.
        effects: How far the values moved; None where they were not tested.
        reference_null_share: Share of nulls in the reference.
        batch_null_share: Share of nulls in the batch; None without rows.
        null_gap: Change in the share of nulls or of infinite values, whichever is larger.
        unseen_share: Share of the batch in categories that the reference never had.
        unseen: The first few of these categories, in alphabetical order.
        outside_share: Share of the batch below the reference's minimum or above its maximum.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    verdict: Verdict
    reason: str
    distribution: Evidence | None = None
    missing: Evidence | None = None
    effects: Effects | None = None
    reference_null_share: float = 0.0
    batch_null_share: float | None = None
    null_gap: float = 0.0
    unseen_share: float = 0.0
    unseen: tuple[str, ...] = ()
    outside_share: float = 0.0

    @property
    def p_adjusted(self) -> float | None:
        """The smallest corrected p-value of the feature's tests; None if there was none."""
        tests = (self.distribution, self.missing)
        return min((test.p_adjusted for test in tests if test is not None), default=None)

    @property
    def effect(self) -> float:
        """One number to plot for any kind of feature, in [0, 1]: D or the change in nulls, whichever is larger."""
        return max(self.effects.cdf_gap if self.effects else 0.0, self.null_gap)


@dataclass(frozen=True, slots=True)
class DriftReport:
    """The verdict on one batch.

    Attributes:
        verdict: ``drift`` if any feature drifted; ``insufficient_data`` if none could be judged, or a column is missing
            or of another type; else ``no_drift``.
        reason: Why, in one sentence.
        reference_rows: Rows of the reference.
        batch_rows: Rows of the batch.
        score: The verdict on the model's score, where one was named; it comes first, and needs no correction.
        features: The verdict on each other feature, in the profile's order.
        missing_columns: Features the batch has no column for.
        retyped_columns: Features whose column holds text where the reference holds numbers, or numbers where it holds
            text.
        extra_columns: Columns that are no feature.
        q: The false discovery rate among the features.
        detectable_gap: The smallest shift this batch would have shown with 80 % power, as a gap D between normal
            distribution functions; None where nothing could be tested.
        detectable_shift: The same in standard deviations of a normal feature.
    """

    verdict: Verdict
    reason: str
    reference_rows: int
    batch_rows: int
    score: FeatureDrift | None
    features: tuple[FeatureDrift, ...]
    missing_columns: tuple[str, ...]
    retyped_columns: tuple[str, ...]
    extra_columns: tuple[str, ...]
    q: float
    detectable_gap: float | None
    detectable_shift: float | None

    @property
    def judged(self) -> tuple[FeatureDrift, ...]:
        """The score, where there is one, and the features."""
        return self.features if self.score is None else (self.score, *self.features)

    @property
    def drifted(self) -> tuple[str, ...]:
        """Names of what drifted, the score first."""
        return tuple(each.name for each in self.judged if each.verdict is Verdict.DRIFT)

    def to_dict(self) -> dict[str, Any]:
        """Flatten the report for JSON.

        Returns:
            Nested dicts and lists of text, finite numbers and None.
        """
        return {**asdict(self), "drifted": list(self.drifted)}
