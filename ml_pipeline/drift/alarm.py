"""When verdicts become an alarm: k of the last m chunks, or one severe effect.

At a false-alarm rate of 5 % a verdict a batch would page once in twenty batches; two of three chunks agree by chance
once in 140.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ml_pipeline.drift.effects import Floors
from ml_pipeline.drift.report import Verdict
from ml_pipeline.errors import DriftInputError

if TYPE_CHECKING:
    from ml_pipeline.drift.report import DriftReport, FeatureDrift

__all__ = ["SEVERE", "DriftAlarm"]

SEVERE = Floors(cdf_gap=0.2, wasserstein=0.5, psi=0.25, null_gap=0.2)
"""What half a standard deviation does to a normal feature: no second chunk is waited for."""


@dataclass(frozen=True, slots=True)
class DriftAlarm:
    """The state of an alarm over successive chunks; each chunk gives a new state.

    Attributes:
        needed: Drifted chunks that raise it (k).
        window: Chunks it looks back on (m).
        severe: Effects that raise it at once, where the verdict is drift.
        recent: Whether each of the last chunks drifted, oldest first. Keep it, with the arguments, to resume in another
            process.
        raised: Whether the alarm is on.
        reason: Why, in one sentence.
    """

    needed: int = 2
    window: int = 3
    severe: Floors = SEVERE
    recent: tuple[bool, ...] = ()
    raised: bool = False
    reason: str = "no chunk yet"

    def __post_init__(self) -> None:
        if not 1 <= self.needed <= self.window:
            raise DriftInputError(
                "an alarm needs k of m chunks, 1 <= k <= m", (self.needed, self.window), "2 of 3 is the default"
            )

    def after(self, report: DriftReport) -> DriftAlarm:
        """Take in the verdict on the next chunk.

        Args:
            report: The check of that chunk. One with insufficient data says nothing, and changes nothing but the
                reason.

        Returns:
            The new state.
        """
        if report.verdict is Verdict.INSUFFICIENT_DATA:
            return replace(self, reason=f"unchanged, insufficient data: {report.reason}")
        recent = (*self.recent, report.verdict is Verdict.DRIFT)[-self.window :]
        severe = [each.name for each in report.judged if self._is_severe(each)]
        if severe:
            return replace(self, recent=recent, raised=True, reason=f"severe drift of {', '.join(severe)}")
        hits = sum(recent)
        return replace(
            self, recent=recent, raised=hits >= self.needed, reason=f"{hits} of the last {len(recent)} chunks drifted"
        )

    def _is_severe(self, feature: FeatureDrift) -> bool:
        if feature.verdict is not Verdict.DRIFT:
            return False
        values = feature.effects is not None and bool(feature.effects.reached(self.severe))
        return values or feature.null_gap >= self.severe.null_gap
