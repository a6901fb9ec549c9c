"""A table in memory, by column, and where it came from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["FEWEST_ROWS", "Array", "Table", "Task", "bundled_table", "hash_columns", "is_missing"]

FEWEST_ROWS: Final = 50
"""Fewer than this leave too little for each of the three parts of a split."""

Array: TypeAlias = NDArray[Any]
Task: TypeAlias = Literal["classification", "regression"]


@dataclass(frozen=True)
class Table:
    """Rows to learn from.

    Attributes:
        name: What the data set is called.
        source: Where it came from, as a name for people.
        uri: The same for programs.
        columns: Feature name to values, each of shape (n,); floats, or objects for categories.
        target: What is to be predicted, shape (n,).
        target_name: Its name.
        task: Whether the target is a class or a number.
        content_hash: SHA-256 of the data, hexadecimal.
    """

    name: str
    source: str
    uri: str
    columns: Mapping[str, Array]
    target: Array
    target_name: str
    task: Task
    content_hash: str

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.target)

    @property
    def version(self) -> str:
        """A short name of exactly these data: the beginning of their hash."""
        return self.content_hash[:12]


def bundled_table() -> Table:
    """Read the data set that comes with scikit-learn: 569 biopsies, 30 measurements each, benign or malignant.

    Returns:
        The table; no network is used.

    Source: W. N. Street, W. H. Wolberg, O. L. Mangasarian, "Nuclear feature extraction for breast tumor diagnosis",
        1993; the UCI Machine Learning Repository's "Breast Cancer Wisconsin (Diagnostic)".
    """
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    columns = {str(name): bunch.data[:, index] for index, name in enumerate(bunch.feature_names)}
    target = np.asarray(bunch.target_names)[bunch.target].astype(object)
    return Table(
        name="breast_cancer_wisconsin",
        source="UCI Breast Cancer Wisconsin (Diagnostic)",
        uri="sklearn://datasets/breast_cancer",
        columns=columns,
        target=target,
        target_name="diagnosis",
        task="classification",
        content_hash=hash_columns({**columns, "diagnosis": target}),
    )


def hash_columns(columns: Mapping[str, Array]) -> str:
    """Return the SHA-256 of columns: their names, types and values, in their order."""
    digest = hashlib.sha256()
    for name, values in columns.items():
        digest.update(f"{name}\x00{values.dtype}\x00{len(values)}\x00".encode())
        content = "\x1f".join(map(str, values)).encode() if values.dtype == object else values.tobytes()
        digest.update(content)
    return digest.hexdigest()


def is_missing(values: Array) -> Array:
    """Say which values are missing: None or NaN.

    Args:
        values: Of any type, shape (n,).

    Returns:
        Booleans, shape (n,).
    """
    if values.dtype == object:
        return np.array([value is None or value != value for value in values], dtype=bool)  # noqa: PLR0124 - NaN
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(len(values), dtype=bool)
