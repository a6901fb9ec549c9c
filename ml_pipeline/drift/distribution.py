"""A feature's distribution in the reference and in a batch, ready to draw."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from ml_pipeline.drift.bins import FIRST, LAST, NumericBins
from ml_pipeline.errors import DriftInputError, closest

if TYPE_CHECKING:
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
        edges: Ends of the bins of a numeric feature, ascending, one more than bins (the first two are equal where many
            rows hold the minimum); the cells from the fourth to the last but one lie between them. Empty for a
            categorical one.
        reference: Share of the reference's rows in each cell; they add up to 1.
        batch: Share of the batch's rows in each cell; all 0 for an empty batch.
    """

    feature: str
    kind: Literal["numeric", "categorical"]
    labels: tuple[str, ...]
    edges: tuple[float, ...]
    reference: tuple[float, ...]
    batch: tuple[float, ...]


def distribution(profile: ReferenceProfile, batch: BatchCounts, feature: str, *, levels: int = 50) -> Distribution:
    """Look up how a feature's rows are spread.

    Args:
        profile: The reference.
        batch: A batch, counted with it.
        feature: The feature.
        levels: Of a categorical feature, the categories shown by name: those most frequent in the reference.

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
    cells = profile.counts.columns[feature].cells, batch.columns[feature].cells
    if isinstance(bins, NumericBins):
        edges = () if bins.minimum is None else (bins.minimum, *bins.edges)
        labels = _steps(edges)
    else:
        edges, labels = (), ("null", "infinite", *bins.levels[:levels], "other", "unseen")
        cells = _folded(cells[0], levels), _folded(cells[1], levels)
    return Distribution(feature, bins.kind, labels, edges, _shares(cells[0]), _shares(cells[1]))


def _steps(edges: tuple[float, ...]) -> tuple[str, ...]:
    if not edges:
        return ("null", "infinite", "below", "above")
    steps = (f"{low:.4g} to {high:.4g}" if low < high else f"{low:.4g}" for low, high in pairwise(edges))
    return ("null", "infinite", f"below {edges[0]:.4g}", *steps, f"above {edges[-1]:.4g}")


def _folded(cells: tuple[int, ...], levels: int) -> tuple[int, ...]:
    shown = cells[FIRST:-2][:levels]
    return (*cells[:FIRST], *shown, sum(cells[FIRST + len(shown) : -1]), cells[LAST])


def _shares(cells: tuple[int, ...]) -> tuple[float, ...]:
    rows = sum(cells)
    return tuple(cell / rows if rows else 0.0 for cell in cells)
