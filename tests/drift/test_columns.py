"""How a column's values are read."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

from ml_pipeline.drift.columns import LABEL_CHARACTERS, arrays_of, is_blank, numbers_of, tally
from ml_pipeline.errors import DriftInputError


def column(values: Any) -> np.ndarray[Any, Any]:
    return arrays_of({"x": values})["x"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5, None], [1.0, 2.5, np.nan]),
        ([True, False], [1.0, 0.0]),
        ([Decimal("1.5"), Fraction(1, 4), np.float32(2)], [1.5, 0.25, 2.0]),
        ([1, pd.NA, pd.NaT, float("nan")], [1.0, np.nan, np.nan, np.nan]),
        (np.array([1, 2], dtype=np.int8), [1.0, 2.0]),
        (pd.Series([1, None], dtype="Int64"), [1.0, np.nan]),
        (np.array(["1970-01-02", "NaT"], dtype="datetime64[D]"), [86_400.0, np.nan]),
        (np.array([90, "NaT"], dtype="timedelta64[m]"), [5_400.0, np.nan]),
        (np.ma.masked_array([1.0, 2.0], mask=[False, True]), [1.0, np.nan]),
        ((3, 4), [3.0, 4.0]),
        ([], []),
        (np.array([], dtype=str), []),
    ],
)
def test_numbers(values: Any, expected: list[float]) -> None:
    """Numbers, booleans, decimals, dates and every kind of null are read as floats."""
    numbers = numbers_of(column(values))
    assert numbers is not None
    np.testing.assert_array_equal(numbers.astype(float), expected)


@pytest.mark.parametrize(
    "values",
    [["1.5", "2"], [1, "N/A"], np.array(["a"]), [10**400], [dt.date(2024, 1, 1)], [np.timedelta64(1, "s")], [b"1"]],
)
def test_no_numbers(values: Any) -> None:
    """Text, dates as objects, and integers past every float are no numbers, not even where they could be parsed."""
    assert numbers_of(column(values)) is None


@pytest.mark.parametrize(
    ("values", "nulls", "levels", "has_text"),
    [
        (["a", "b", "a", None, float("nan")], 2, {"a": 2, "b": 1}, True),
        ([1, 1.0, np.int8(1), "1", True], 0, {"1": 4, "True": 1}, True),
        ([2.0, 2.5, float("inf"), -0.0], 0, {"2": 1, "2.5": 1, "inf": 1, "0": 1}, False),
        (np.array([3, 3, 4]), 0, {"3": 2, "4": 1}, False),
        (np.array([3.0, np.nan]), 1, {"3": 1}, False),
        (np.array([True, False, True]), 0, {"True": 2, "False": 1}, False),
        (np.array(["x", "y"]), 0, {"x": 1, "y": 1}, True),
        ([b"caf\xc3\xa9", b"\xff"], 0, {"café": 1, "\\xff": 1}, True),
        (pd.Series(["u", None, "u"], dtype="category"), 1, {"u": 2}, True),
        (pd.Series(["u", None], dtype="string"), 1, {"u": 1}, True),
        ([pd.NA, pd.NaT, None], 3, {}, False),
        ([dt.date(2024, 1, 1)], 0, {"2024-01-01": 1}, True),
        (["z" * 300], 0, {"z" * LABEL_CHARACTERS: 1}, True),
        (np.ma.masked_array(["a", "b"], mask=[True, False]), 1, {"b": 1}, True),
    ],
)
def test_categories(values: Any, nulls: int, levels: dict[str, int], has_text: bool) -> None:
    """Categories are counted by their text, nulls apart, and an integer that became a float keeps its text."""
    counted = tally("x", column(values))
    assert (counted.nulls, counted.levels, counted.has_text) == (nulls, levels, has_text)


def test_blank() -> None:
    """Only objects and strings can be so empty that their kind is unknown."""
    assert is_blank(column([None, None]))
    assert is_blank(column([]))
    assert not is_blank(column([None, 0]))
    assert not is_blank(column(np.array([np.nan])))


def test_names_are_text() -> None:
    """Column names that are not text are used as text."""
    assert list(arrays_of({1: [0.0], "b": [0.0]})) == ["1", "b"]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (None, "columns are a mapping from feature name to values (got 'NoneType'); pass a dict or a data frame"),
        ({1: [0], "1": [0]}, "column names are distinct as text (got [1, '1']); rename the columns that read alike"),
        ({"a": [1], "b": [1, 2]}, "have the same number of rows (got {'a': 1, 'b': 2}); pass columns of one table"),
        ({"a": [[1, 2]]}, "column 'a' is one-dimensional (got (1, 2)); pass one value a row"),
        ({"a": 3}, "column 'a' is one-dimensional (got ()); pass one value a row"),
        ({"a": np.array([1j])}, "column 'a' holds numbers, dates, booleans or categories (got dtype('complex128'))"),
    ],
)
def test_unreadable(columns: Any, message: str) -> None:
    """What is no table of columns is refused with the rule, the value and the remedy."""
    with pytest.raises(DriftInputError) as caught:
        arrays_of(columns)
    assert message in str(caught.value)


def test_array_that_refuses() -> None:
    """A column whose own conversion fails is refused by name."""

    class Broken:
        def __array__(self, dtype: object = None, copy: object = None) -> object:
            raise TypeError("no array today")

    with pytest.raises(DriftInputError, match=r"column 'a' is one-dimensional \(got 'no array today'\)"):
        arrays_of({"a": Broken()})


def test_unhashable_categories() -> None:
    """A column of lists is refused by name."""
    values = np.empty(2, dtype=object)
    values[:] = [[1], [2, 3]]
    with pytest.raises(DriftInputError, match=r"values of the categorical column 'tags' are hashable scalars"):
        tally("tags", values)
