"""The records of an audit trail for someone who audits: a table for a spreadsheet, or the lines as they are."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, Final

import orjson

from ml_pipeline._platform import ANEW, GROUP_READS_FILE, open_file
from ml_pipeline.config._audit_head import head_path
from ml_pipeline.config._audit_journal import journal_path, read_missing
from ml_pipeline.config._audit_segments import anchor_path, trail_lines
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from ml_pipeline.settings import Settings

__all__ = ["COLUMNS", "FORMATS", "Wanted", "export_trail", "export_trail_to", "kept_files"]

FORMATS: Final = ("csv", "jsonl")

COLUMNS: Final = (
    *("seq", "timestamp", "user_id", "action", "object", "version", "result", "operation", "pipeline"),
    *("operation_id", "run_id", "context", "exception", "prev", "hash"),
)
"""Of the table; ``context`` and ``exception`` hold the rest of what the record says, as JSON."""

_IN_CONTEXT: Final = ("action", "object", "version", "result")
_OF_DATA_FOLDER: Final = (
    *("alerts", "failed", "metadata", "operations", "runs"),
    *("feature_key", "log_levels.json", ".log_levels.json.lock"),
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which records are exported; None is any.

    Attributes:
        since: The earliest moment, RFC 3339 in UTC with six digits, as the records have it.
        until: The moment before which a record must be.
        user: The user's id.
        object: What it was done to: a data set, a model.
    """

    since: str | None = None
    until: str | None = None
    user: str | None = None
    object: str | None = None

    def fits(self, record: dict[str, Any]) -> bool:
        """Say whether a record is wanted."""
        moment, context = record.get("timestamp"), _context_of(record)
        moment = moment if isinstance(moment, str) else ""
        return (
            (self.since is None or moment >= self.since)
            and (self.until is None or moment < self.until)
            and (self.user is None or record.get("user_id") == self.user)
            and (self.object is None or self.object in (context.get("object"), context.get("dataset_name")))
        )


def export_trail_to(
    target: Path,
    trail: Path,
    form: str,
    wanted: Wanted,
    *,
    key: bytes | None = None,
    logs: Iterable[Path] = (),
    kept: Iterable[Path] = (),
    force: bool = False,
) -> tuple[int, int]:
    """Write the wanted records to a file, which is there once all of them are written.

    Args:
        target: The file.
        trail: See `export_trail`.
        form: See `export_trail`.
        wanted: See `export_trail`.
        key: See `export_trail`.
        logs: Log files that must not be replaced, beside the trail.
        kept: Other files and folders that must not be touched either; see `kept_files`.
        force: Whether to replace another file that is there.

    Returns:
        See `export_trail`.

    Raises:
        OSError: If the trail cannot be read or the file cannot be written; it is then as it was.
        SettingsError: If the file is there and must not be replaced.
    """
    _refuse(target, (trail, *logs), kept, force=force)
    partial = target.with_name(f".{target.name}.partial")
    try:
        with os.fdopen(open_file(partial, ANEW, GROUP_READS_FILE), "wb") as file:
            counts = export_trail(trail, file, form, wanted, key)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return counts


def kept_files(settings: Settings) -> list[Path]:
    """Name the files and folders that a pipeline works with beside its logs: keys, passwords, stores."""
    values = (getattr(settings, field) for field in type(settings).model_fields if field.endswith("_file"))
    return [*(each for each in values if each is not None), *(settings.data_dir / each for each in _OF_DATA_FOLDER)]


def export_trail(
    trail: Path, target: IO[bytes], form: str, wanted: Wanted, key: bytes | None = None
) -> tuple[int, int]:
    """Write the wanted records of a trail, those of its rotated files too, in their order.

    Args:
        trail: The file that is written to; the others lie beside it.
        target: What is written to.
        form: One of `FORMATS`. In a table, a cell that a spreadsheet would take for a formula gets a ``'`` in front.
        wanted: Which records.
        key: The secret of the trail: without it, what its journal holds alone since the machine stopped is left out.

    Returns:
        How many were written, and how many lines are no records.

    Raises:
        OSError: If the trail cannot be read.
    """
    written = unreadable = 0
    if form == "csv":
        target.write(_row(COLUMNS))
    for _, _, line in trail_lines(trail, missing=read_missing(trail, key)):
        record = _parsed(line)
        if record is None:
            unreadable += 1
        elif wanted.fits(record):
            target.write(line if form == "jsonl" else _row(_cells(record)))
            written += 1
    return written, unreadable


def _refuse(target: Path, logs: Iterable[Path], kept: Iterable[Path], *, force: bool) -> None:
    if any(_belongs_to(target, log) for log in logs):
        rule = "an export must not be written over a log file or under its name"
        raise SettingsError(rule, str(target), "name another file")
    if any(_lies_in(target, each) for each in kept):
        rule = "an export must not be written over a key, a store or another file that the pipeline works with"
        raise SettingsError(rule, str(target), "name another file")
    if target.exists() and not target.is_file():
        rule = "an export must be written to a file, or with - to the standard output"
        raise SettingsError(rule, str(target), "name a file")
    if os.path.lexists(target) and not force:
        rule = "an export must not replace a file that is there"
        raise SettingsError(rule, str(target), "name another file, or give --force")


def _lies_in(target: Path, kept: Path) -> bool:
    """Say whether a file is a certain one, or lies below a folder."""
    around = tuple(os.path.join(place, "") for place in _places(kept))  # noqa: PTH118 - with a separator at its end
    if any(f"{place}{os.sep}".startswith(around) for place in _places(target)):
        return True
    return target.exists() and kept.exists() and kept.samefile(target)


def _belongs_to(target: Path, log: Path) -> bool:
    """Say whether a file is a log file, one that was set aside of it, or what lies beside a trail."""
    own = [each for at in (log, log.resolve()) for each in (at, head_path(at), journal_path(at), anchor_path(at))]
    taken = {place for each in own for place in _places(each)}
    set_aside = tuple(f"{place}." for place in _places(log))
    if any(place in taken or place.startswith(set_aside) for place in _places(target)):
        return True
    # The same file under another name, or in other letters where those do not count.
    return target.exists() and any(each.exists() and each.samefile(target) for each in own)


def _places(path: Path) -> set[str]:
    """Where a file lies: if it is a link, the link itself and what it leads to."""
    return {os.path.realpath(path), str(path.parent.resolve() / path.name)}


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None


def _context_of(record: dict[str, Any]) -> dict[str, Any]:
    context = record.get("context")
    return context if isinstance(context, dict) else {}


def _cells(record: dict[str, Any]) -> tuple[str, ...]:
    context = _context_of(record)
    values = {**record, **{name: context.get(name) for name in _IN_CONTEXT}}
    values["context"] = {name: value for name, value in context.items() if name not in _IN_CONTEXT}
    return tuple(_cell(values.get(column)) for column in COLUMNS)


def _cell(value: object) -> str:
    if value is None or value == {}:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return f"'{text}" if text.startswith(_FORMULA) else text


def _row(cells: tuple[str, ...]) -> bytes:
    row = io.StringIO()
    csv.writer(row, quoting=csv.QUOTE_ALL).writerow(cells)  # RFC 4180; a `;` parts cells elsewhere
    return row.getvalue().encode()
