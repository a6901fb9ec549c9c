"""One feature measured: the tests and effects that its counts in the reference and in the batch give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ml_pipeline.drift.bins import FIRST, INFINITE, NULL, VALUES, CategoricalBins
from ml_pipeline.drift.effects import Effects, cdf_gap, jensen_shannon, psi, total_variation, wasserstein
from ml_pipeline.drift.evidence import homogeneity_test, pool_neighbours, pool_rare, smooth_test

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ml_pipeline.drift.bins import Bins, Counted
    from ml_pipeline.drift.evidence import Evidence

__all__ = ["Measured", "measure"]


@dataclass(frozen=True, slots=True)
class Measured:
    """What two sets of counts of one feature say, before any correction or floor.

    Attributes:
        bins: The feature's cells.
        shares: Rows of the reference and of the batch in each cell, as shares of all rows, shape (2, cells).
        unseen: Categories that only the batch has, with their rows.
        valued: Rows of the reference and of the batch that have a finite value.
        distribution: The test of the values; None where too few rows have one.
        missing: The test of nulls and infinite values; None where neither sample, or nothing else in both, has any.
        effects: How far the values moved; None where they were not tested.
    """

    bins: Bins
    shares: NDArray[np.float64]
    unseen: Mapping[str, int]
    valued: tuple[int, int]
    distribution: Evidence | None
    missing: Evidence | None
    effects: Effects | None

    @property
    def null_gap(self) -> float:
        """Change in the share of nulls or of infinite values, whichever is larger."""
        reference, batch = self.shares[:, [NULL, INFINITE]]
        return float(np.abs(batch - reference).max())


def measure(bins: Bins, reference: Counted, batch: Counted, *, minimum_rows: int) -> Measured:
    """Compare a batch's counts of a feature with the reference's.

    Args:
        bins: The feature's cells.
        reference: The reference's counts; at least one row.
        batch: The batch's counts; at least one row.
        minimum_rows: Rows with a value that both need for the values to be compared.

    Returns:
        Tests, not yet corrected, and effects.
    """
    table = np.array([reference.cells, batch.cells], dtype=np.float64)
    valued = (int(table[0, VALUES].sum()), int(table[1, VALUES].sum()))
    distribution, effects = _compare(bins, reference, batch) if min(valued) >= minimum_rows else (None, None)
    shares = table / table.sum(axis=1, keepdims=True)
    known = dict(reference.unseen)
    unseen = {name: rows for name, rows in batch.unseen if name not in known}
    return Measured(bins, shares, unseen, valued, distribution, _missing(table), effects)


def _compare(bins: Bins, reference: Counted, batch: Counted) -> tuple[Evidence, Effects]:
    if isinstance(bins, CategoricalBins):
        table = pool_rare(*_levels(bins, reference, batch))
        effects = Effects(total_variation(table), None, jensen_shannon(table), psi(table))
        return homogeneity_test(table), effects
    values = np.array([reference.cells[VALUES], batch.cells[VALUES]], dtype=np.float64)
    table = pool_neighbours(*values)
    effects = Effects(cdf_gap(values), wasserstein(bins.points, values), jensen_shannon(table), psi(table))
    return smooth_test(table), effects


def _levels(bins: CategoricalBins, *samples: Counted) -> list[list[int]]:
    # Unseen categories are compared one by one, and all in alphabetical order. As one cell, empty in the reference by
    # construction, or after the others, they would make every rare category that happens to come up count as drift.
    rows = [dict(zip(bins.levels, sample.cells[FIRST:], strict=False)) | dict(sample.unseen) for sample in samples]
    names = sorted({name for levels in rows for name in levels})
    rest = [sum(sample.cells[VALUES]) - sum(levels.values()) for sample, levels in zip(samples, rows, strict=True)]
    return [[other, *(levels.get(name, 0) for name in names)] for other, levels in zip(rest, rows, strict=True)]


def _missing(table: NDArray[np.float64]) -> Evidence | None:
    if not table[:, [NULL, INFINITE]].any():
        return None
    kinds = np.column_stack([table[:, NULL], table[:, INFINITE], table[:, VALUES].sum(axis=1)])
    evidence = homogeneity_test(pool_rare(*kinds))
    return evidence if evidence.df else None
