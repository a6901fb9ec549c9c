"""A batch as one vector of counts a feature, which merges by adding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ml_pipeline.errors import DriftInputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_pipeline.drift.bins import Counted

__all__ = ["BatchCounts"]


@dataclass(frozen=True, slots=True)
class BatchCounts:
    """What a drift check needs to know of a batch; parts counted apart merge into the very counts of the whole.

    Attributes:
        bins_id: Fingerprint of the bins that counted it: only counts by the same bins add up.
        rows: Rows of the batch.
        columns: The counts of each feature that could be counted.
        missing: Features the batch (or a part of it) has no column for, sorted.
        retyped: Features whose column holds text where the reference holds numbers, or numbers where it holds text,
            sorted.
        extra: Columns that are no feature of the reference, sorted.
    """

    bins_id: str
    rows: int
    columns: Mapping[str, Counted]
    missing: tuple[str, ...] = ()
    retyped: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()

    def merge(self, other: BatchCounts) -> BatchCounts:
        """Count two parts of a batch as one.

        Args:
            other: The other part, counted by the same bins.

        Returns:
            The sums. A feature that one of the parts could not count is not counted at all.

        Raises:
            DriftInputError: If the parts were counted by different bins.
        """
        self.require_bins(other.bins_id)
        both = [name for name in self.columns if name in other.columns]
        return BatchCounts(
            self.bins_id,
            self.rows + other.rows,
            {name: self.columns[name].merge(other.columns[name]) for name in both},
            _union(self.missing, other.missing),
            _union(self.retyped, other.retyped),
            _union(self.extra, other.extra),
        )

    def minus(self, part: BatchCounts) -> BatchCounts:
        """Count what is left of a table without some of its rows.

        Args:
            part: The counts of those rows, by the same bins.

        Returns:
            The counts of all other rows.

        Raises:
            DriftInputError: If the bins or the columns differ, or *part* has rows that this table has not.
        """
        self.require_bins(part.bins_id)
        left = {name: each.minus(part.columns[name]) for name, each in self.columns.items() if name in part.columns}
        if len(left) < len(self.columns) or any(min(each.cells) < 0 for each in left.values()):
            raise DriftInputError(
                "a part has the table's columns, and rows of it", part.rows, "count a part of this very table"
            )
        return replace(self, rows=self.rows - part.rows, columns=left)

    def require_bins(self, bins_id: str) -> None:
        """Refuse to be used with other bins.

        Args:
            bins_id: The fingerprint that these counts must carry.

        Raises:
            DriftInputError: If they carry another one.
        """
        if self.bins_id != bins_id:
            raise DriftInputError(
                f"counts come from the bins {bins_id[:12]}",
                self.bins_id[:12],
                "count with the profile they are used with",
            )


def _union(left: tuple[str, ...], right: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted({*left, *right}))
