"""What was checked for drift, as the page reads it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.report.values import integer, mapping, mappings, number, numbers, text, texts

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Batch", "Feature", "batches_of"]

DEFAULT_FLOOR: Final = 0.05
"""That of `ml_pipeline.drift.Floors`, which a page can do without loading."""


@dataclass(frozen=True, slots=True)
class Feature:
    """The verdict on one feature of one batch.

    Attributes:
        name: The feature.
        kind: ``numeric`` or ``categorical``.
        verdict: ``drift``, ``no_drift`` or ``insufficient_data``.
        reason: Why.
        effect: How far it moved, 0 to 1.
        floor: The effect that a verdict needs.
        p_adjusted: The corrected p-value; None where nothing was tested.
        labels: What each cell of its distribution holds.
        edges: Ends of the bins of a numeric feature.
        reference: Share of the reference in each cell; empty where the distribution was not kept.
        batch: Share of the batch in each cell.
    """

    name: str
    kind: str
    verdict: str
    reason: str
    effect: float
    floor: float
    p_adjusted: float | None
    labels: tuple[str, ...]
    edges: tuple[float, ...]
    reference: tuple[float, ...]
    batch: tuple[float, ...]

    @property
    def is_drawn(self) -> bool:
        """Whether both distributions are known, cell by cell."""
        return 0 < len(self.reference) == len(self.batch) == len(self.labels)


@dataclass(frozen=True, slots=True)
class Batch:
    """The verdict on one batch.

    Attributes:
        name: The batch, without the run's id before it.
        verdict: ``drift``, ``no_drift`` or ``insufficient_data``.
        reason: Why.
        rows: How many it has; None where that is not known.
        detectable_shift: The smallest shift it would have shown, in standard deviations.
        features: The verdict on each feature.
    """

    name: str
    verdict: str
    reason: str
    rows: int | None
    detectable_shift: float | None
    features: tuple[Feature, ...]

    @property
    def strongest(self) -> float:
        """The largest effect of any feature."""
        return max((feature.effect for feature in self.features), default=0.0)


def batches_of(summary: Mapping[str, Any]) -> list[Batch]:
    """Read the drift checks of a run.

    Args:
        summary: With ``drift_details``, or else with the ``drift`` events, which say less.

    Returns:
        The batches in their order.
    """
    run_id = text(summary.get("run_id"))
    details = mappings(summary.get("drift_details"))
    return [_batch(given, run_id) for given in details or map(_details_of, mappings(summary.get("drift")))]


def _batch(given: Mapping[str, Any], run_id: str) -> Batch:
    floor = number(given.get("floor")) or DEFAULT_FLOOR
    rows = number(given.get("rows"))
    return Batch(
        name=text(given.get("batch")).removeprefix(f"{run_id}/") or "(unnamed)",
        verdict=text(given.get("verdict")),
        reason=text(given.get("reason")),
        rows=None if rows is None else integer(rows),
        detectable_shift=number(given.get("detectable_shift")),
        features=tuple(_feature(feature, floor) for feature in mappings(given.get("features"))),
    )


def _feature(given: Mapping[str, Any], floor: float) -> Feature:
    return Feature(
        name=text(given.get("name")) or "(unnamed)",
        kind=text(given.get("kind")),
        verdict=text(given.get("verdict")),
        reason=text(given.get("reason")),
        effect=min(max(number(given.get("effect")) or 0.0, 0.0), 1.0),
        floor=number(given.get("floor")) or floor,
        p_adjusted=number(given.get("p_adjusted")),
        labels=tuple(texts(given.get("labels"))),
        edges=tuple(numbers(given.get("edges"))),
        reference=tuple(numbers(given.get("reference"))),
        batch=tuple(numbers(given.get("batch"))),
    )


def _details_of(event: Mapping[str, Any]) -> dict[str, Any]:
    drifted = set(texts(event.get("drifted")))
    features = [
        {"name": name, "effect": effect, "verdict": "drift" if name in drifted else "no_drift"}
        for name, effect in mapping(event.get("effects")).items()
    ]
    return {**event, "features": features}
