"""Any CSV or Parquet file as a `Table`; what cannot be learned from is refused before any work starts."""

from __future__ import annotations

import csv
import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ml_pipeline.errors import InputDataError, closest
from ml_pipeline.pipelines.table import FEWEST_ROWS, Array, Table, Task, is_missing

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = ["read_table"]

_PARQUET_MARK: Final = b"PAR1"
_SNIFFED_BYTES: Final = 1 << 16
_DELIMITERS: Final = ",;\t|"
_MOST_CLASSES: Final = 20
_FEWEST_OF_A_CLASS: Final = 10
_ID_NAME: Final = re.compile(
    r"(^|[_\s.-])(id|ids|uuid|guid|index|idx|key|rowid|row_?number|unnamed: ?\d+)$", re.IGNORECASE
)
_DATE_FORMATS: Final = ("%Y/%m/%d", "%d.%m.%Y", "%b %d %Y")
"""Beside ISO 8601; a date like 03/04/2024 is left a text, for nobody can tell which of the two is the month."""

_SECONDS_A_DAY: Final = 86_400.0


def read_table(path: Path, target: str, *, task: Task | None = None, drop: Sequence[str] = ()) -> Table:
    """Read a file of rows and columns.

    Numbers become floats, with NaN for what is missing; texts and booleans become categories; a date becomes days since
    1970, its month and its weekday. Rows without a target are left out.

    Args:
        path: A CSV file (UTF-8; comma, semicolon, tab or bar) or a Parquet file.
        target: The column to predict.
        task: What it is; by default a number with more than 20 values is a regression, all else a classification.
        drop: Columns to leave out.

    Returns:
        The table; its hash is that of the file.

    Raises:
        InputDataError: If the file cannot be read, or the table cannot be learned from; the message says why.
    """
    content = _content(path)
    arrow = _parquet(path) if content.startswith(_PARQUET_MARK) else _csv(path, content)
    names = [str(name) for name in arrow.column_names]
    _check_names(path, names, target, drop)
    values = {name: column for name, column in zip(names, arrow.columns, strict=True) if name not in drop}
    truth, task = _target(values.pop(target), target, task)
    kept = ~is_missing(truth)
    columns: dict[str, Array] = {}
    refused: dict[str, str] = {}
    for name, column in values.items():
        made = _feature(name, column)
        fault = _fault(name, made[name][kept])
        if fault:
            refused[name] = fault
        columns.update({key: array[kept] for key, array in made.items()})
    truth = truth[kept]
    _check_rows(target, truth, task)
    if refused:
        told = ", ".join(f"{name!r} {fault}" for name, fault in refused.items())
        flags = " ".join(f"--drop {name!r}" for name in refused)
        raise InputDataError(f"every column must have something to learn from, and {told}", remedy=f"add {flags}")
    if not columns:
        raise InputDataError("a table must have a column beside its target", target, "give a file with features")
    return Table(
        name=path.stem,
        source=path.name,
        uri=path.absolute().as_uri(),
        columns=columns,
        target=truth,
        target_name=target,
        task=task,
        content_hash=_file_hash(path),
    )


def _content(path: Path) -> bytes:
    """The beginning of the file, after everything that needs no parser has been judged."""
    if not path.exists():
        near = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        raise InputDataError(
            "a data file must exist", str(path), closest(path.name, near) if near else "correct the path"
        )
    if not path.is_file():
        raise InputDataError("a data file must be a file, not a folder", str(path), "name one file in it")
    try:
        with path.open("rb") as file:
            content = file.read(_SNIFFED_BYTES)
    except OSError as unreadable:
        raise InputDataError("a data file must be readable", str(path), f"allow it ({unreadable.strerror})") from None
    if not content.strip():
        raise InputDataError("a data file must not be empty", str(path), "give one with a header and rows")
    return content


def _parquet(path: Path) -> Any:
    pyarrow = _pyarrow()
    from pyarrow import parquet

    try:
        return parquet.read_table(path)
    except (pyarrow.ArrowException, OSError) as broken:
        raise InputDataError("a Parquet file must be whole", str(path), f"write it again ({_brief(broken)})") from None


def _csv(path: Path, content: bytes) -> Any:
    if b"\x00" in content:
        raise InputDataError(
            "a data file must be CSV text or Parquet, and this one is binary", str(path), "export it as CSV or Parquet"
        )
    pyarrow = _pyarrow()
    from pyarrow import csv as arrow_csv

    header = content.removeprefix(b"\xef\xbb\xbf").splitlines()[0]
    delimiter = max(_DELIMITERS, key=lambda mark: header.count(mark.encode()))
    try:
        # One block: pyarrow settles a type by the first block, and a number may turn up after a million blanks.
        options = arrow_csv.ReadOptions(block_size=max(path.stat().st_size + 1, _SNIFFED_BYTES))
        table = arrow_csv.read_csv(
            path,
            read_options=options,
            parse_options=arrow_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow_csv.ConvertOptions(
                strings_can_be_null=True, timestamp_parsers=[arrow_csv.ISO8601, *_DATE_FORMATS]
            ),
        )
    except (pyarrow.ArrowException, OSError) as broken:
        reason = _brief(broken)
        raise InputDataError(
            "every row of a CSV file must have as many fields as its header",
            str(path),
            f"mend it ({_where(path, delimiter) or reason})",
        ) from None
    undecoded = [str(field.name) for field in table.schema if pyarrow.types.is_binary(field.type)]
    if undecoded:
        raise InputDataError("a CSV file must be UTF-8 text", str(path), f"convert it (column {undecoded[0]!r} is not)")
    if table.num_rows == 0:
        raise InputDataError("a data file must have rows below its header", str(path), "give one with rows")
    return table


def _where(path: Path, delimiter: str) -> str:
    """The first ragged row, as people count lines."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        reader = csv.reader(file, delimiter=delimiter)
        wanted = len(next(reader, []))
        for row in reader:
            if row and len(row) != wanted:
                return f"line {reader.line_num} has {len(row)} fields, the header has {wanted}"
    return ""


def _pyarrow() -> Any:
    try:
        import pyarrow as pa
    except ImportError:
        raise InputDataError(
            "reading CSV and Parquet files needs the extra 'tables'",
            remedy="run make setup, or pip install 'ml-pipeline-observability[tables]'",
        ) from None
    return pa


def _check_names(path: Path, names: list[str], target: str, drop: Iterable[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputDataError("every column must have a name of its own", twice, f"rename one of them in {path.name}")
    if target not in names:
        suggestion = closest(target, names)
        known = "" if suggestion.startswith("known") else f" known: {', '.join(names)}"
        raise InputDataError(f"the target must be a column of {path.name}", target, suggestion + known)
    for name in drop:
        if name not in names:
            raise InputDataError("a column to drop must be in the table", name, closest(name, names))
    if target in drop:
        raise InputDataError("the target cannot be dropped", target, "drop other columns")


def _target(column: Any, name: str, task: Task | None) -> tuple[Array, Task]:
    import pyarrow as pa

    if column.null_count == len(column):
        raise InputDataError("the target must have values, and all are missing", name, "choose another column")
    numeric = pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)
    if task == "regression" and not numeric:
        raise InputDataError(
            "the target of a regression must be a number", f"{name}: {column.type}", "use --task classification"
        )
    if task is None:
        task = "regression" if numeric and len(column.unique()) > _MOST_CLASSES else "classification"
    if task == "regression":
        return _floats(column), task
    classes = [None if value is None or value != value else str(value) for value in column.to_pylist()]  # noqa: PLR0124 - NaN
    return np.array(classes, dtype=object), task


def _feature(name: str, column: Any) -> dict[str, Array]:
    import pyarrow as pa

    kind = column.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return _dates(name, column)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind):
        return {name: _floats(column)}
    texts = [None if value is None else str(value) for value in column.to_pylist()]
    return {name: np.array(texts, dtype=object)}


def _floats(column: Any) -> Array:
    import pyarrow as pa

    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)


def _dates(name: str, column: Any) -> dict[str, Array]:
    import pyarrow as pa

    moments = column.cast(pa.timestamp("s")).to_numpy(zero_copy_only=False).astype("datetime64[s]")
    missing = np.isnat(moments)
    seconds = np.where(missing, np.nan, moments.astype(np.int64).astype(np.float64))
    days = np.floor(seconds / _SECONDS_A_DAY)
    months = np.where(missing, np.nan, moments.astype("datetime64[M]").astype(np.int64) % 12 + 1.0)
    # 1970-01-01 was a Thursday, and weeks are counted from Monday.
    return {name: seconds / _SECONDS_A_DAY, f"{name}_month": months, f"{name}_weekday": (days + 3) % 7}


def _fault(name: str, values: Array) -> str:
    """Why nothing can be learned from a column; empty where something can."""
    present = values[~is_missing(values)]
    if len(present) == 0:
        return "is all missing"
    if present.dtype != object and not np.isfinite(present).all():
        return "holds infinite values"
    distinct = len(set(present.tolist()))
    if distinct == 1 and len(present) == len(values):
        return f"is constant ({present.tolist()[0]!r})"
    if distinct == len(values) > 1 and (values.dtype == object or _ID_NAME.search(name) or _counts_up(values)):
        return "is an id (no two rows share a value)"
    return ""


def _counts_up(values: Array) -> bool:
    """Whether a column just numbers the rows."""
    first = values[0]
    return bool(first in (0, 1) and np.array_equal(values, np.arange(first, first + len(values))))


def _check_rows(name: str, truth: Array, task: Task) -> None:
    if len(truth) < FEWEST_ROWS:
        raise InputDataError(
            f"a table must have at least {FEWEST_ROWS} rows with a target", len(truth), "give more data"
        )
    if task == "regression":
        if len(set(truth.tolist())) == 1:
            raise InputDataError(f"the target {name!r} must vary", truth[0], "choose another column")
        return
    classes, counts = np.unique(truth.astype(str), return_counts=True)
    if len(classes) == 1:
        raise InputDataError(
            f"the target {name!r} must have two classes or more", str(classes[0]), "choose another column"
        )
    if len(classes) > len(truth) // _FEWEST_OF_A_CLASS:
        raise InputDataError(
            f"the target {name!r} has too many classes for its rows",
            f"{len(classes)} in {len(truth)} rows",
            "use --task regression or another column",
        )
    rarest = int(counts.argmin())
    if counts[rarest] < _FEWEST_OF_A_CLASS:
        raise InputDataError(
            f"every class of the target {name!r} must have at least {_FEWEST_OF_A_CLASS} rows",
            f"{classes[rarest]}: {counts[rarest]}",
            "merge it with another class, or leave its rows out",
        )


def _file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _brief(error: Exception) -> str:
    return " ".join(str(error).split())[:160]
