"""A feature's distribution in the reference and in a batch, ready to draw."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from ml_pipeline.drift.bins import NumericBins
from ml_pipeline.errors import DriftInputError, closest

if TYPE_CHECKING:
    from ml_pipeline.drift.bins import Bins
    from ml_pipeline.drift.counts import BatchCounts
    from ml_pipeline.drift.profile import ReferenceProfile

__all__ = ["Distribution", "distribution"]


@dataclass(frozen=True, slots=True)
class Distribution:
    """Shares of rows, cell by cell.

    Attributes:
        feature: The feature.
        kind: Whether it is numeric or categorical.
        labels: What each cell holds: ``null``, ``infinite``, then the values, as text.
        edges: Ends of the bins of a numeric feature, ascending, one more than bins; the cells from the fourth to the
            last but one lie between them. Empty for a categorical one.
        reference: Share of the reference's rows in each cell; they add up to 1.
        batch: Share of the batch's rows in each cell; all 0 for an empty batch.
    """

    feature: str
    kind: Literal["numeric", "categorical"]
    labels: tuple[str, ...]
    edges: tuple[float, ...]
    reference: tuple[float, ...]
    batch: tuple[float, ...]


def distribution(profile: ReferenceProfile, batch: BatchCounts, feature: str) -> Distribution:
    """Look up how a feature's rows are spread.

    Args:
        profile: The reference.
        batch: A batch, counted with it.
        feature: The feature.

    Returns:
        Both distributions over the same cells.

    Raises:
        DriftInputError: If the feature is unknown, the batch has no counts of it, or was counted by other bins.
    """
    batch.require_bins(profile.bins_id)
    if feature not in batch.columns:
        known = closest(feature, batch.columns) if batch.columns else "the batch has no column of the profile"
        raise DriftInputError("a distribution is that of a feature the batch has counts of", feature, known)
    bins = profile.bins[feature]
    edges = (bins.minimum, *bins.edges) if isinstance(bins, NumericBins) and bins.minimum is not None else ()
    return Distribution(
        feature,
        bins.kind,
        _labels(bins),
        edges,
        _shares(profile.counts.columns[feature].cells),
        _shares(batch.columns[feature].cells),
    )


def _labels(bins: Bins) -> tuple[str, ...]:
    if not isinstance(bins, NumericBins):
        return ("null", "infinite", *bins.levels, "other", "unseen")
    if bins.minimum is None:
        return ("null", "infinite", "below", "above")
    steps = (f"{low:.4g} to {high:.4g}" for low, high in pairwise((bins.minimum, *bins.edges)))
    return ("null", "infinite", f"below {bins.minimum:.4g}", *steps, f"above {bins.edges[-1]:.4g}")


def _shares(cells: tuple[int, ...]) -> tuple[float, ...]:
    rows = sum(cells)
    return tuple(cell / rows if rows else 0.0 for cell in cells)
