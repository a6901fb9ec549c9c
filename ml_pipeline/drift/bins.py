"""The cells a feature is counted in, fixed by the reference.

Notations
=========

==========  ============================================================================  ===========
symbol      meaning                                                                       shape
==========  ============================================================================  ===========
B           bins of a numeric feature, at most the number asked for                       scalar
e_1 … e_B   right ends of the bins: the quantiles k/B of the reference, without repeats   (B,)
c_1 … c_B   centres: the median of the reference's values in each bin                     (B,)
k_0 … k_K   knots: what a value is compared with, ascending                               (B + 4,)
K           categories with a cell of their own, most frequent first                      scalar
==========  ============================================================================  ===========

A bin is ``(e_(k-1), e_k]``, the first one ``[minimum, e_1]``. Edges are values of the reference (inverse of the
empirical distribution function), so that a value held by a B-th of the rows ends a bin: discrete columns need no rule
of their own.

A feature's counts are one tuple of integers, and the first two cells mean the same everywhere:

* numeric: ``null, infinite, below the minimum, bin 1 … bin B, above the maximum``
* categorical: ``null, infinite (always 0), level 1 … level K, other, unseen``

A table of categories is *closed* while the reference has at most as many as may be kept: each has a cell, and whatever
else a batch brings is unseen, counted by name. Choosing the most frequent ones for cells instead would bias every later
comparison: categories rank high partly by luck, and fall back in the next sample. Only where there are too many is the
table *open*: the few that hold a hundredth of the rows, too many for luck to matter, have cells, and all else is
"other".
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from heapq import nsmallest
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

import numpy as np

from ml_pipeline.drift.columns import Tally, is_blank, numbers_of, tally
from ml_pipeline.errors import DriftInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

__all__ = [
    "FIRST",
    "INFINITE",
    "LAST",
    "NULL",
    "VALUES",
    "Bins",
    "CategoricalBins",
    "Counted",
    "NumericBins",
    "fingerprint",
    "fit_bins",
    "require_cells",
]

NULL = 0
INFINITE = 1
FIRST = 2
LAST = -1
VALUES = slice(FIRST, None)

_CELLS_BESIDE = 4
_BLOCK_ROWS = 1 << 16
_UNSEEN_NAMED = 1_000
_HEAVY_SHARE = 0.01
_HEAVY_ROWS = 50


@dataclass(frozen=True, slots=True)
class Counted:
    """One column, counted.

    Attributes:
        cells: Rows in each cell, in the layout of the module's docstring.
        unseen: Each unseen category and its rows: the first 1,000 in alphabetical order, so that parts merge exactly.
    """

    cells: tuple[int, ...]
    unseen: tuple[tuple[str, int], ...] = ()

    def merge(self, other: Counted) -> Counted:
        """Count two parts of a column as one.

        Args:
            other: The counts of the other part, by the same bins.

        Returns:
            The sums.
        """
        cells = tuple(map(sum, zip(self.cells, other.cells, strict=True)))
        return Counted(cells, _first(Counter(dict(self.unseen)) + Counter(dict(other.unseen))))

    def minus(self, part: Counted) -> Counted:
        """Count what is left of a column without some of its rows.

        Args:
            part: The counts of those rows, by the same bins.

        Returns:
            The differences.
        """
        cells = tuple(whole - less for whole, less in zip(self.cells, part.cells, strict=True))
        return Counted(cells, _first(Counter(dict(self.unseen)) - Counter(dict(part.unseen))))


@dataclass(frozen=True, slots=True)
class NumericBins:
    """The bins of a numeric feature.

    Attributes:
        name: The feature.
        minimum: Its smallest finite value in the reference; None if there was none.
        edges: Right ends of the bins, ascending; the last one is the reference's maximum.
        centres: The median of the reference in each bin: where a bin's rows stand when distances are measured.
    """

    kind: ClassVar[Literal["numeric"]] = "numeric"
    name: str
    minimum: float | None
    edges: tuple[float, ...]
    centres: tuple[float, ...]

    @property
    def cell_count(self) -> int:
        """Cells of the feature: B + 4."""
        return len(self.edges) + _CELLS_BESIDE

    @property
    def knots(self) -> tuple[float, ...]:
        """What values are compared with: ``-inf``, just below the minimum, the edges, the largest float, ``inf``."""
        below = -np.inf if self.minimum is None else math.nextafter(self.minimum, -math.inf)
        return (-np.inf, below, *self.edges, sys.float_info.max, np.inf)

    @property
    def points(self) -> tuple[float, ...]:
        """Where the rows of each value cell stand: minimum, centres, maximum; empty if the reference had no value."""
        return () if self.minimum is None else (self.minimum, *self.centres, self.edges[-1])

    def cells(self, at_most: Sequence[int], rows: int) -> tuple[int, ...]:
        """Turn cumulative counts, from numpy or from any query engine, into the feature's cells.

        Args:
            at_most: For each of ``knots``, the rows whose value is not null, not NaN and ``<=`` the knot.
            rows: All rows.

        Returns:
            Rows in each cell, shape (B + 4,).
        """
        steps = [upper - lower for lower, upper in pairwise(at_most)]
        return (rows - at_most[-1], at_most[0] + steps[-1], *steps[:-1])

    def count(self, array: NDArray[Any]) -> Counted | None:
        """Count a column.

        Args:
            array: The column, shape (rows,).

        Returns:
            Its counts; None if it holds anything but numbers and nulls.
        """
        numbers = numbers_of(array)
        if numbers is None:
            return None
        knots = np.array(self.knots)
        at_most = np.zeros(len(knots), dtype=np.int64)
        for start in range(0, len(numbers), _BLOCK_ROWS):
            # Sorting a block in cache and finding the few knots in it beats finding every value among the knots.
            with np.errstate(over="ignore"):
                block = np.array(numbers[start : start + _BLOCK_ROWS], dtype=np.float64)
            block.sort()
            at_most += np.searchsorted(block, knots, side="right")
        return Counted(self.cells(at_most.tolist(), len(numbers)))


@dataclass(frozen=True, slots=True)
class CategoricalBins:
    """The table of a categorical feature.

    Attributes:
        name: The feature.
        levels: The categories with a cell of their own, most frequent in the reference first.
        closed: Whether these are all the reference has; if not, a category it never had counts as "other".
        has_text: Whether the reference held any value that is not a number.
    """

    kind: ClassVar[Literal["categorical"]] = "categorical"
    name: str
    levels: tuple[str, ...]
    closed: bool
    has_text: bool

    @property
    def cell_count(self) -> int:
        """Cells of the feature: K + 4."""
        return len(self.levels) + _CELLS_BESIDE

    def cells(self, counted: Tally) -> Counted:
        """Turn the rows of each category, from numpy or from any query engine, into the feature's cells.

        Args:
            counted: The column's nulls and the rows of each category.

        Returns:
            Rows in each cell, shape (K + 4,), and the unseen categories.
        """
        known = [counted.levels.get(level, 0) for level in self.levels]
        rest = sum(counted.levels.values()) - sum(known)
        if not self.closed:
            return Counted((counted.nulls, 0, *known, rest, 0))
        fresh = counted.levels.keys() - set(self.levels) if rest else ()
        return Counted((counted.nulls, 0, *known, 0, rest), _first({name: counted.levels[name] for name in fresh}))

    def count(self, array: NDArray[Any]) -> Counted | None:
        """Count a column.

        Args:
            array: The column, shape (rows,).

        Returns:
            Its counts; None if it holds numbers where the reference held text.
        """
        counted = tally(self.name, array)
        retyped = self.has_text and not counted.has_text and counted.levels
        return None if retyped else self.cells(counted)


Bins: TypeAlias = NumericBins | CategoricalBins


def fit_bins(name: str, array: NDArray[Any], *, bins: int, levels: int, categorical: bool) -> Bins:
    """Lay out the cells of one feature after its reference.

    Args:
        name: The feature.
        array: Its reference, shape (rows,).
        bins: The most bins of a numeric feature.
        levels: The most categories of a closed table.
        categorical: Whether to take numbers for categories.

    Returns:
        Numeric bins for a column of numbers, and a table of categories for anything else.
    """
    numbers = None if categorical or is_blank(array) else numbers_of(array)
    if numbers is None:
        return _fit_table(name, tally(name, array), levels)
    return _fit_edges(name, numbers, bins)


def require_cells(bins: Bins, counted: Counted, rows: int) -> None:
    """Refuse counts that cannot be those of a column.

    Args:
        bins: The feature's bins.
        counted: The counts.
        rows: Rows of the column.

    Raises:
        DriftInputError: If there are too few or too many cells, one is negative, they do not add up to *rows*, or the
            unseen categories named are more than the unseen rows.
    """
    cells, named = counted.cells, sum(count for _, count in counted.unseen)
    if len(cells) != bins.cell_count or min(cells) < 0 or sum(cells) != rows or named > cells[LAST]:
        raise DriftInputError(
            f"the {bins.cell_count} cells of {bins.name!r} are >= 0 and add up to the {rows} rows",
            f"{len(cells)} cells, sum {sum(cells)}, {named} unseen by name",
            "count all rows, once, with the profile's own bins",
        )


def fingerprint(features: Iterable[Bins]) -> str:
    """Identify a set of bins, whatever the order of its features.

    Args:
        features: The cells of each feature.

    Returns:
        SHA-256 of their canonical JSON, 64 hex digits.
    """
    canonical = sorted(json.dumps([each.kind, asdict(each)], sort_keys=True) for each in features)
    return hashlib.sha256("\n".join(canonical).encode()).hexdigest()


def _fit_edges(name: str, numbers: NDArray[Any], bins: int) -> NumericBins:
    with np.errstate(over="ignore"):
        values = np.asarray(numbers, dtype=np.float64)
    values = np.sort(values[np.isfinite(values)])
    if len(values) == 0:
        return NumericBins(name, None, (), ())
    ranks = -(-np.arange(1, bins + 1) * len(values) // bins)
    edges = np.unique(values[ranks - 1])
    ends = np.searchsorted(values, edges, side="right")
    starts = np.concatenate(([0], ends[:-1]))
    centres = values[(starts + ends - 1) // 2]
    return NumericBins(name, float(values[0]), tuple(edges.tolist()), tuple(centres.tolist()))


def _fit_table(name: str, counted: Tally, levels: int) -> CategoricalBins:
    ranked = sorted(counted.levels, key=lambda level: (-counted.levels[level], level))
    closed = len(ranked) <= levels
    if not closed:
        heavy = max(_HEAVY_ROWS, _HEAVY_SHARE * sum(counted.levels.values()))
        ranked = [level for level in ranked if counted.levels[level] >= heavy]
    return CategoricalBins(name, tuple(ranked), closed, counted.has_text)


def _first(rows: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    return tuple((name, rows[name]) for name in nsmallest(_UNSEEN_NAMED, rows))
