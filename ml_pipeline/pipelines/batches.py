"""Batches of new rows for a model in use, drawn from rows it was never trained on.

A row may be in many batches, and in one batch once: a test of drift takes the rows of a batch for independent, and rows
drawn twice would make it find drift in one batch of five where there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np

from ml_pipeline.pipelines.table import hash_columns

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_pipeline.pipelines.table import Array

__all__ = ["Batch", "BatchSource", "shifted"]

_FEWEST_ROWS: Final = 64
_MOST_ROWS: Final = 1_000
_SHIFTED_COLUMNS: Final = 3
_SHIFT: Final = 1.5


@dataclass(frozen=True)
class Batch:
    """Rows to predict.

    Attributes:
        number: Counted from 1.
        columns: As they were ingested, each of shape (n,).
    """

    number: int
    columns: Mapping[str, Array]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(next(iter(self.columns.values()), ()))

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the rows, hexadecimal."""
        return hash_columns(self.columns)


class BatchSource:
    """Draws batches, each without replacement, from the same rows again and again.

    Args:
        columns: The rows to draw from, each column of shape (k,).
        seed: Of the draws.
    """

    def __init__(self, columns: Mapping[str, Array], seed: int = 0) -> None:
        self._columns = columns
        self._random = np.random.default_rng(seed)
        self._drawn = 0
        available = len(next(iter(columns.values())))
        # Small enough that a few hundred rows to draw from pass for a population, large enough to be judged.
        self._rows = min(max(_FEWEST_ROWS, available // 4), _MOST_ROWS, available)

    def draw(self, *, drift: bool = False) -> Batch:
        """Return the next batch.

        Args:
            drift: Whether to shift it on purpose.
        """
        self._drawn += 1
        size = len(next(iter(self._columns.values())))
        rows = self._random.choice(size, self._rows, replace=False)
        columns = {name: values[rows] for name, values in self._columns.items()}
        return Batch(self._drawn, shifted(columns) if drift else columns)


def shifted(columns: Mapping[str, Array]) -> dict[str, Array]:
    """Shift the first three numeric columns by 1.5 standard deviations, as an instrument set up anew might."""
    numeric = [name for name, values in columns.items() if values.dtype != object][:_SHIFTED_COLUMNS]
    return {
        name: values + _SHIFT * np.nanstd(values) if name in numeric else values for name, values in columns.items()
    }
