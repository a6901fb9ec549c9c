"""The reference, profiled once: bins, counts and learned floors, which travel with the registered model."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ml_pipeline.drift.bins import fingerprint, fit_bins, require_cells
from ml_pipeline.drift.columns import arrays_of
from ml_pipeline.drift.counts import BatchCounts
from ml_pipeline.drift.profile_json import parse_profile, profile_text
from ml_pipeline.errors import DriftInputError, closest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from ml_pipeline.drift.bins import Bins, Counted
    from ml_pipeline.drift.columns import Columns
    from ml_pipeline.drift.effects import Floors

__all__ = ["ReferenceProfile"]

_BINS = (2, 1024)
_LEVELS = (1, 10_000)


@dataclass(frozen=True, slots=True)
class ReferenceProfile:
    """What the data looked like when the model was trained; it never changes, every change is a new profile.

    Attributes:
        bins: The cells of each feature.
        counts: The reference, counted in them.
        floors: Effect floors learned from chunks of the reference, a feature each; empty until `learn_floors`.
    """

    bins: Mapping[str, Bins]
    counts: BatchCounts
    floors: Mapping[str, Floors] = field(default_factory=dict)

    @classmethod
    def fit(
        cls, columns: Columns, *, bins: int = 64, levels: int = 1000, categorical: Collection[str] = ()
    ) -> ReferenceProfile:
        """Profile a reference.

        Args:
            columns: Feature name -> values, each of shape (n,): numbers, or categories (strings, mixed objects).
                ``None`` and NaN are nulls.
            bins: The most quantile bins of a numeric feature, 2 to 1,024.
            levels: The most categories a feature may have for each to be counted, 1 to 10,000. Of a feature with more,
                those that hold a hundredth of the rows are counted, and the rest together as "other".
            categorical: Features whose numbers are codes, not amounts.

        Returns:
            The profile: some kilobytes a feature, whatever n.

        Raises:
            DriftInputError: If there is no column or no row, a column cannot be read, or an argument is out of range.
        """
        _require_between("bins", bins, _BINS)
        _require_between("levels", levels, _LEVELS)
        arrays = arrays_of(columns)
        if not any(map(len, arrays.values())):
            raise DriftInputError(
                "a reference has columns and rows", list(arrays), "profile the data the model was trained on"
            )
        for name in categorical:
            if name not in arrays:
                raise DriftInputError("a categorical feature is a column", name, closest(name, arrays))
        fitted = {
            name: fit_bins(name, array, bins=bins, levels=levels, categorical=name in categorical)
            for name, array in arrays.items()
        }
        profile = cls(fitted, BatchCounts(fingerprint(fitted.values()), 0, {}))
        return replace(profile, counts=profile.count(arrays))

    @property
    def rows(self) -> int:
        """Rows of the reference."""
        return self.counts.rows

    @property
    def bins_id(self) -> str:
        """Fingerprint of the bins: profiles and counts with the same one add up."""
        return self.counts.bins_id

    def count(self, columns: Columns) -> BatchCounts:
        """Count a batch in the profile's cells.

        Args:
            columns: Feature name -> values, each of shape (m,), in any order. A feature without a column, a column
                without a feature, and a column of another type are noted, not refused.

        Returns:
            The counts. Those of the parts of a batch merge into those of the batch.

        Raises:
            DriftInputError: If a column cannot be read, or lengths differ.
        """
        arrays = arrays_of(columns)
        counted = {name: bins.count(arrays[name]) for name, bins in self.bins.items() if name in arrays}
        rows = len(next(iter(arrays.values()), ()))
        return self._batch(rows, counted, extra=arrays.keys() - self.bins.keys())

    def assemble(self, rows: int, columns: Mapping[str, Counted]) -> BatchCounts:
        """Take counts that another engine made, such as a query over a cluster.

        Args:
            rows: Rows of the batch.
            columns: For each feature what `NumericBins.cells` or `CategoricalBins.cells` made of the engine's counts.

        Returns:
            The counts, equal to those `count` would have made of the same rows.

        Raises:
            DriftInputError: If a feature is unknown, or its cells do not fit its bins or do not add up to *rows*.
        """
        for name, counted in columns.items():
            if name not in self.bins:
                raise DriftInputError("counts are those of the profile's features", name, closest(name, self.bins))
            require_cells(self.bins[name], counted, rows)
        return self._batch(rows, columns)

    def merge(self, other: ReferenceProfile) -> ReferenceProfile:
        """Add up two profiles of parts of one reference.

        Args:
            other: A profile with the same bins. (Fit one on a sample, then count every part with it.)

        Returns:
            The profile of all rows of both; of learned floors, the higher.

        Raises:
            DriftInputError: If the bins differ.
        """
        floors = dict(other.floors)
        for name, learned in self.floors.items():
            floors[name] = learned.raised_to(floors.get(name, learned))
        return replace(self, counts=self.counts.merge(other.counts), floors=floors)

    def with_counts(self, counts: BatchCounts) -> ReferenceProfile:
        """Keep the bins and take other rows for the reference.

        Args:
            counts: Counts by this profile's bins; every feature has to be counted.

        Returns:
            A profile whose reference is those rows.

        Raises:
            DriftInputError: If the bins differ, or a feature is missing or retyped.
        """
        counts.require_bins(self.bins_id)
        absent = sorted(self.bins.keys() - counts.columns.keys())
        if absent:
            raise DriftInputError(
                "a reference has a column for every feature", absent, "count a table that has them all"
            )
        return replace(self, counts=counts)

    def to_json(self) -> str:
        """Write the profile as text.

        Returns:
            One JSON object, ASCII only, with its format and version.
        """
        return profile_text(self.bins, self.counts, self.floors)

    @classmethod
    def from_json(cls, text: str) -> ReferenceProfile:
        """Read a profile back.

        Args:
            text: What `to_json` wrote.

        Returns:
            An equal profile.

        Raises:
            DriftInputError: If the text is cut off, altered, of another format or of another version.
        """
        return cls(*parse_profile(text))

    def _batch(self, rows: int, counted: Mapping[str, Counted | None], extra: Collection[str] = ()) -> BatchCounts:
        return BatchCounts(
            self.bins_id,
            rows,
            {name: column for name, column in counted.items() if column is not None},
            missing=tuple(sorted(self.bins.keys() - counted.keys())),
            retyped=tuple(sorted(name for name, column in counted.items() if column is None)),
            extra=tuple(sorted(extra)),
        )


def _require_between(name: str, value: int, limits: tuple[int, int]) -> None:
    low, high = limits
    if not low <= value <= high:
        raise DriftInputError(
            f"{name} is a whole number from {low} to {high}", value, "leave it out to keep the default"
        )
