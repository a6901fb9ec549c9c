"""Any table in: real files of others are read, and what cannot be learned from is refused with one clear line."""

from __future__ import annotations

import datetime as dt
import hashlib
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from ml_pipeline.errors import InputDataError
from ml_pipeline.pipelines.reading import read_table


def _rows(count: int = 60) -> str:
    return "age,town,visit,sick\n" + "".join(
        f"{20 + index % 50},{'ab'[index % 2]},2024-01-{1 + index % 28:02d},{'yes' if index % 3 else 'no'}\n"
        for index in range(count)
    )


def _written(text: str | bytes, name: str = "table.csv") -> Path:
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_numbers_texts_and_dates_become_features() -> None:
    """Numbers are floats, texts are categories, a date becomes days, month and weekday; the hash is the file's."""
    path = _written(_rows())
    table = read_table(path, "sick")
    assert list(table.columns) == ["age", "town", "visit", "visit_month", "visit_weekday"]
    assert table.columns["age"].dtype == np.float64
    assert table.columns["town"].dtype == object
    day = dt.date(2024, 1, 1)
    assert table.columns["visit"][0] == (day - dt.date(1970, 1, 1)).days
    assert (table.columns["visit_month"][0], table.columns["visit_weekday"][0]) == (day.month, day.weekday())
    assert table.task == "classification"
    assert table.content_hash == hashlib.sha256(path.read_bytes()).hexdigest()


def test_missing_values_and_missing_targets() -> None:
    """Blanks are NaN or None; a row without a target is left out."""
    text = _rows().replace("20,a,2024-01-01,no", ",,,no", 1).replace("21,b,2024-01-02,yes", "21,b,2024-01-02,", 1)
    table = read_table(_written(text), "sick")
    assert table.rows == 59
    assert np.isnan(table.columns["age"][0])
    assert table.columns["town"][0] is None
    assert np.isnan(table.columns["visit_weekday"][0])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_is_found(delimiter: str) -> None:
    """Comma, semicolon, tab and bar are told apart by the header."""
    assert read_table(_written(_rows().replace(",", delimiter)), "sick").rows == 60


def test_byte_order_mark_and_windows_lines() -> None:
    """What spreadsheets write is read."""
    text = b"\xef\xbb\xbf" + _rows().replace("\n", "\r\n").encode()
    assert "age" in read_table(_written(text), "sick").columns


def test_parquet_is_the_same_table_as_csv() -> None:
    """A Parquet file with the same values gives the same features."""
    first = read_table(_written(_rows()), "sick")
    from pyarrow import csv

    parquet.write_table(csv.read_csv("table.csv"), "table.parquet")
    second = read_table(Path("table.parquet"), "sick")
    for name, values in first.columns.items():
        np.testing.assert_array_equal(values, second.columns[name])


def test_the_task_follows_the_target() -> None:
    """A number with many values is a regression, with few a classification, and the caller may say so."""
    table = "x,y,few\n" + "".join(f"{index % 7}.5,{index * 1.5},{index % 2}\n" for index in range(1, 80))
    path = _written(table)
    assert read_table(path, "y").task == "regression"
    assert read_table(path, "few", drop=["y"]).task == "classification"
    assert read_table(path, "few", task="regression", drop=["y"]).task == "regression"


def test_real_tables_of_other_packages() -> None:
    """Tables that ship inside statsmodels, vega_datasets and scikit-learn are read as they are."""
    from importlib.resources import files

    folders = {name: Path(str(files(name))) for name in ("statsmodels.datasets", "vega_datasets", "sklearn.datasets")}
    wanted = [
        ("statsmodels.datasets", "fair/fair.csv", "rate_marriage", (), "classification", 6366),
        ("statsmodels.datasets", "star98/star98.csv", "MATHTOT", (), "regression", 303),
        ("statsmodels.datasets", "randhie/randhie.csv", "mdvis", (), "regression", 20190),
        ("statsmodels.datasets", "modechoice/modechoice.csv", "choice", (), "classification", 840),
        ("vega_datasets", "_data/seattle-weather.csv", "weather", ("date",), "classification", 1461),
        ("vega_datasets", "_data/stocks.csv", "symbol", (), "classification", 560),
        ("sklearn.datasets", "data/iris.csv", "virginica", ("150",), "classification", 150),
    ]
    for package, name, target, drop, task, rows in wanted:
        table = read_table(folders[package] / name, target, drop=drop)
        assert (name, table.task, table.rows) == (name, task, rows)


def test_without_the_extra_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where pyarrow is not installed, one line says how to install it."""
    path = _written(_rows())
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputDataError) as error:
        read_table(path, "sick")
    assert str(error.value) == (
        "reading CSV and Parquet files needs the extra 'tables'; "
        "run make setup, or pip install 'ml-pipeline-observability[tables]'"
    )


ID = _rows().replace("age,", "patient_id,age,", 1).splitlines()
ID = [ID[0], *(f"{1000 + index * 7},{line}" for index, line in enumerate(ID[1:]))]


@pytest.mark.parametrize(
    ("content", "target", "message"),
    [
        (b"", "sick", "a data file must not be empty (got 'table.csv'); give one with a header and rows"),
        (b"age,sick\n", "sick", "a data file must have rows below its header (got 'table.csv'); give one with rows"),
        (
            b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
            "sick",
            "a data file must be CSV text or Parquet, and this one is binary (got 'table.csv'); export it as CSV or Parquet",
        ),
        (
            _rows() + "1,2\n",
            "sick",
            (
                "every row of a CSV file must have as many fields as its header (got 'table.csv'); "
                "mend it (line 62 has 2 fields, the header has 4)"
            ),
        ),
        (
            _rows(),
            "sik",
            "the target must be a column of table.csv (got 'sik'); did you mean 'sick'? known: age, town, visit, sick",
        ),
        (
            "a,sick\n" + "1,\n2,\n" * 40,
            "sick",
            "the target must have values, and all are missing (got 'sick'); choose another column",
        ),
        (
            "a,sick\n" + "1,yes\n2,yes\n" * 40,
            "sick",
            "the target 'sick' must have two classes or more (got 'yes'); choose another column",
        ),
        (
            _rows(20),
            "sick",
            "a table must have at least 50 rows with a target (got 20); give more data",
        ),
        (
            "a,b,sick\n" + "1,,yes\n2,,no\n" * 40,
            "sick",
            "every column must have something to learn from, and 'b' is all missing; add --drop 'b'",
        ),
        (
            "a,b,sick\n" + "1,7,yes\n2,7,no\n" * 40,
            "sick",
            "every column must have something to learn from, and 'b' is constant (7.0); add --drop 'b'",
        ),
        (
            "a,b,sick\n" + "1,2,yes\n2,inf,no\n" * 40,
            "sick",
            "every column must have something to learn from, and 'b' holds infinite values; add --drop 'b'",
        ),
        (
            "\n".join(ID) + "\n",
            "sick",
            (
                "every column must have something to learn from, and 'patient_id' is an id (no two rows share a value); "
                "add --drop 'patient_id'"
            ),
        ),
        (
            _rows() + "30,a,2024-01-01,maybe\n" * 3,
            "sick",
            (
                "every class of the target 'sick' must have at least 10 rows (got 'maybe: 3'); "
                "merge it with another class, or leave its rows out"
            ),
        ),
        (
            _rows().replace("town", "age"),
            "sick",
            "every column must have a name of its own (got ['age']); rename one of them in table.csv",
        ),
        (
            b"town,sick\n" + "Zürich,yes\nBern,no\n".encode("latin-1") * 40,
            "sick",
            "a CSV file must be UTF-8 text (got 'table.csv'); convert it (column 'town' is not)",
        ),
        (b"PAR1" + b"\x01" * 40, "sick", "a Parquet file must be whole (got 'table.csv'); write it again ("),
    ],
    ids=lambda value: value[:12] if isinstance(value, bytes) else str(value)[:24],
)
def test_what_cannot_be_learned_from_is_refused(content: str | bytes, target: str, message: str) -> None:
    """One line names the rule, the value and the remedy."""
    with pytest.raises(InputDataError) as error:
        read_table(_written(content), target)
    assert str(error.value).startswith(message)
    assert "\n" not in str(error.value)


def test_no_such_file_and_a_folder() -> None:
    """A path that leads nowhere suggests the closest name; a folder is named as such."""
    _written(_rows(), "patients.csv")
    with pytest.raises(
        InputDataError, match=r"a data file must exist \(got 'patient.csv'\); did you mean 'patients.csv'\?"
    ):
        read_table(Path("patient.csv"), "sick")
    with pytest.raises(InputDataError, match=r"a data file must be a file, not a folder"):
        read_table(Path(), "sick")


def test_a_column_to_drop_must_exist() -> None:
    """A misspelt --drop is an error that names the closest column."""
    with pytest.raises(
        InputDataError, match=r"a column to drop must be in the table \(got 'twon'\); did you mean 'town'\?"
    ):
        read_table(_written(_rows()), "sick", drop=["twon"])


def test_a_null_column_among_numbers_is_typed_by_all_rows() -> None:
    """A column whose first thousands of values are blank and later ones numbers is still a number."""
    text = "a,b,sick\n" + "1,,yes\n2,,no\n" * 4000 + "3,5.5,yes\n4,6.5,no\n"
    assert read_table(_written(text), "sick").columns["b"].dtype == np.float64
    assert pa.__version__
