"""The sentences of a report: each says what was found and by which number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_pipeline.drift.bins import INFINITE, NULL

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_pipeline.drift.measure import Measured

__all__ = ["listed", "missing_change", "p_text", "too_few_rows", "too_few_values"]

_NAMED = 5
_SMALLEST_SHOWN_P = 1e-300


def p_text(p_value: float) -> str:
    """Show a p-value.

    Args:
        p_value: The value; it may have underflowed to 0.

    Returns:
        Such as ``p = 0.0031``.
    """
    return f"p = {p_value:.2g}" if p_value >= _SMALLEST_SHOWN_P else f"p < {_SMALLEST_SHOWN_P:g}"


def listed(names: Sequence[str]) -> str:
    """List names, the first few in full.

    Args:
        names: The names.

    Returns:
        Such as ``age, sex and 3 more``.
    """
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def missing_change(measured: Measured) -> str:
    """Say how the share of nulls (or of infinite values) changed.

    Args:
        measured: The feature.

    Returns:
        Such as ``nulls went from 0 % to 30 %``.
    """
    kind = max((NULL, INFINITE), key=lambda cell: abs(measured.shares[1, cell] - measured.shares[0, cell]))
    reference, batch = (100 * float(share) for share in measured.shares[:, kind])
    return f"{'nulls' if kind == NULL else 'infinite values'} went from {reference:.3g} % to {batch:.3g} %"


def too_few_rows(reference_rows: int, batch_rows: int, minimum_rows: int) -> str:
    """Say which sample is too small for any verdict.

    Args:
        reference_rows: Rows of the reference.
        batch_rows: Rows of the batch.
        minimum_rows: Rows that a verdict needs.

    Returns:
        Such as ``the batch has 20 rows, a verdict needs 50``.
    """
    which, rows = ("batch", batch_rows) if batch_rows < minimum_rows else ("reference", reference_rows)
    return f"the {which} has {rows} rows, a verdict needs {minimum_rows}"


def too_few_values(measured: Measured, minimum_rows: int) -> str:
    """Say which sample has too few values of a feature for a verdict on it.

    Args:
        measured: The feature.
        minimum_rows: Rows with a value that a verdict needs.

    Returns:
        Such as ``12 rows of the batch have a value, a verdict needs 50``.
    """
    reference, batch = measured.valued
    which, rows = ("batch", batch) if batch < minimum_rows else ("reference", reference)
    return f"{rows} rows of the {which} have a value, a verdict needs {minimum_rows}"
