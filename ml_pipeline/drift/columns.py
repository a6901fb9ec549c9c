"""What a column holds: numbers, categories, or no value at all.

Whatever ``numpy.asarray`` makes of a column is accepted: lists, arrays of any dtype, masked arrays, data-frame columns.
One reading of each value is fixed here, so that a column counts alike however it was stored:

==================================================  ===========================================================
given                                               read as
==================================================  ===========================================================
``None``, NaN, NaT, pandas' ``NA``, a masked entry  null
integers, floats, booleans, ``Decimal``             a number (float64)
dates and durations of numpy                        a number: seconds (since 1970)
anything else                                       a category: its text, cut at 200 characters
a number in a categorical column                    a category: ``1``, ``1.0`` and ``numpy.int8(1)`` are all "1"
==================================================  ===========================================================
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from numbers import Real
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ml_pipeline.errors import DriftInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["LABEL_CHARACTERS", "Columns", "Tally", "arrays_of", "is_blank", "numbers_of", "tally"]

LABEL_CHARACTERS = 200
"""A category's text is cut here, so that a column of free text cannot make a profile grow without bound."""

_NULL_TYPES = frozenset({"NoneType", "NAType", "NaTType"})
_EPOCH = np.datetime64(0, "us")


class Columns(Protocol):
    """Named columns of equal length: a dict of arrays, or a data frame."""

    def keys(self) -> Iterable[Any]:
        """Return the columns' names."""

    def __getitem__(self, name: Any, /) -> Any:
        """Return one column."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How often each category of a column occurs.

    Attributes:
        nulls: Entries without a value.
        levels: Rows of each category.
        has_text: Whether any value is not a number.
    """

    nulls: int
    levels: Mapping[str, int]
    has_text: bool


def arrays_of(columns: Columns) -> dict[str, NDArray[Any]]:
    """Read named columns as one-dimensional arrays of equal length.

    Args:
        columns: Column name -> values, each of shape (rows,). Names are used as text.

    Returns:
        The same columns in the same order, as arrays; nothing is copied that numpy can view.

    Raises:
        DriftInputError: If it is not a mapping, two names read alike, a column is not one-dimensional, or lengths
            differ.
    """
    if not hasattr(columns, "keys"):
        raise DriftInputError(
            "columns are a mapping from feature name to values", type(columns).__name__, "pass a dict or a data frame"
        )
    names = list(columns.keys())
    arrays = {str(name): _array(str(name), columns[name]) for name in names}
    if len(arrays) != len(names):
        raise DriftInputError("column names are distinct as text", names, "rename the columns that read alike")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DriftInputError("columns have the same number of rows", lengths, "pass columns of one table")
    return arrays


def numbers_of(array: NDArray[Any]) -> NDArray[Any] | None:
    """Read a column as numbers.

    Args:
        array: A column, shape (rows,).

    Returns:
        An array of a boolean, integer or float dtype with NaN for nulls, shape (rows,); None if any value is not a
        number that a float can hold.
    """
    kind = array.dtype.kind
    if kind in "biuf":
        return array
    if kind in "mM":
        since = array.astype("datetime64[us]") - _EPOCH if kind == "M" else array.astype("timedelta64[us]")
        return np.asarray(since / np.timedelta64(1, "s"))
    if kind in "OT":
        return _numbers_of_objects(array.tolist())
    return np.empty(0) if len(array) == 0 else None


def is_blank(array: NDArray[Any]) -> bool:
    """Tell whether a column of Python objects holds nothing but nulls, so that its kind is anyone's guess.

    Args:
        array: A column, shape (rows,).

    Returns:
        True for objects (or strings) that are all null; False for every other dtype.
    """
    return array.dtype.kind in "OT" and all(map(_is_null, array.tolist()))


def tally(name: str, array: NDArray[Any]) -> Tally:
    """Count the categories of a column.

    Args:
        name: The column's name, for the error message.
        array: A column, shape (rows,).

    Returns:
        The nulls and the rows of each category.

    Raises:
        DriftInputError: If a value cannot be hashed (a list, a dict).
    """
    if array.dtype.kind in "biuf":
        return _tally_numbers(array)
    values = array.tolist()
    try:
        counter = Counter(values)
    except TypeError as error:
        raise DriftInputError(
            f"values of the categorical column {name!r} are hashable scalars",
            str(error),
            "drop the column or encode it",
        ) from error
    has_text = not all(_is_null_type(kind) or _is_number_type(kind) for kind in set(map(type, counter)))
    if any(not _is_plain(value) for value in counter):
        counter = _labelled(counter, values)
    nulls = counter.pop(None, 0)
    return Tally(nulls, counter, has_text)


def _labelled(counter: Counter[Any], values: list[Any]) -> Counter[Any]:
    kinds = {kind for kind in set(map(type, values)) if _is_number_type(kind)}
    if kinds & {bool, np.bool_} and kinds - {bool, np.bool_}:
        # Python takes True and 1 for one key, whichever came first: such a column is counted value by value.
        return Counter(map(_label, values))
    labelled: Counter[Any] = Counter()
    for value, count in counter.items():
        labelled[_label(value)] += count
    return labelled


def _numbers_of_objects(values: list[Any]) -> NDArray[Any] | None:
    kinds = set(map(type, values))
    if not all(_is_null_type(kind) or _is_number_type(kind) for kind in kinds):
        return None
    if any(_is_null_type(kind) and kind is not type(None) for kind in kinds):
        values = [None if _is_null_type(type(value)) else value for value in values]
    try:
        return np.array(values, dtype=np.float64)
    except (OverflowError, ValueError):
        return None


def _tally_numbers(array: NDArray[Any]) -> Tally:
    null = np.isnan(array) if array.dtype.kind == "f" else np.zeros(len(array), dtype=bool)
    values, counts = np.unique(array[~null], return_counts=True)
    levels: Counter[str] = Counter()
    for value, count in zip(values.tolist(), counts.tolist(), strict=True):
        levels[_text(value)] += count
    return Tally(int(null.sum()), levels, has_text=False)


def _array(name: str, values: Any) -> NDArray[Any]:
    if isinstance(values, np.ma.MaskedArray):
        mask = np.ma.getmaskarray(values)
        values = values.data.astype(object)
        values[mask] = None
    # A list of strings and NaN would become an array of strings, and the null the text "nan".
    of_objects = isinstance(values, (list, tuple))
    try:
        array = np.asarray(values, dtype=object) if of_objects else np.asarray(values)
    except (TypeError, ValueError) as error:
        raise DriftInputError(f"column {name!r} is one-dimensional", str(error), "pass one value a row") from error
    if array.ndim != 1:
        raise DriftInputError(f"column {name!r} is one-dimensional", array.shape, "pass one value a row")
    if array.dtype.kind in "cV":
        raise DriftInputError(
            f"column {name!r} holds numbers, dates, booleans or categories",
            array.dtype,
            "split it into columns of these",
        )
    return array


def _is_plain(value: object) -> bool:
    return value is None or (type(value) is str and len(value) <= LABEL_CHARACTERS)


def _is_null_type(kind: type) -> bool:
    return kind.__name__ in _NULL_TYPES


def _is_number_type(kind: type) -> bool:
    # numpy's durations are integers by inheritance, but they do not convert to float.
    return issubclass(kind, (Real, Decimal, np.bool_)) and not issubclass(kind, np.timedelta64)


def _is_null(value: object) -> bool:
    if _is_null_type(type(value)):
        return True
    return isinstance(value, (Real, Decimal, np.generic)) and bool(value != value)  # noqa: PLR0124 - NaN and NaT alone


def _label(value: Any) -> str | None:
    return None if _is_null(value) else _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        text = value.decode("utf-8", "backslashreplace")
    elif _is_number_type(type(value)) and not isinstance(value, (bool, np.bool_)):
        # A missing value elsewhere in the column turns its integers into floats: 1.0 is still the category "1".
        text = str(int(value)) if math.isfinite(value) and value == int(value) else repr(float(value))
    else:
        text = str(value)
    return text[:LABEL_CHARACTERS]
