"""The files of an audit trail: those that were set aside, oldest first, then the one that is written to."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, BinaryIO, Final, TypeAlias

from ml_pipeline.config._audit_chain import START, Place, last_line, place_of, sign, signed, signed_place
from ml_pipeline.config._audit_files import replace_file
from ml_pipeline.config._audit_head import DAMAGED
from ml_pipeline.config._log_rotation import RotatedFile, rotated_files

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from ml_pipeline.config._audit_journal import Missing

__all__ = [
    "Anchor",
    "anchor_path",
    "end_of_segments",
    "open_segment",
    "read_anchor",
    "segment_files",
    "segment_lines",
    "trail_lines",
    "twin_fault",
    "write_anchor",
]

Lines: TypeAlias = BinaryIO | gzip.GzipFile

_UNREADABLE: Final = (gzip.BadGzipFile, EOFError, zlib.error)
"""What a damaged ``.gz`` raises."""

_PURPOSE: Final = b"audit.anchor"


@dataclass(frozen=True, slots=True)
class Anchor:
    """Where the chain goes on, after the files that were removed because of their age.

    Attributes:
        place: The last record that was removed.
        through: Day and number of the last file that was removed.
        is_marked: Whether one of the removed records was written beside a new head.
    """

    place: Place
    through: tuple[int, int]
    is_marked: bool


def anchor_path(trail: Path) -> Path:
    """Where the anchor of a trail lies."""
    return trail.with_suffix(".anchor")


def read_anchor(trail: Path, key: bytes | None) -> Anchor | str | None:
    """Read the anchor of a trail.

    Returns:
        The anchor; None if there is none; what is wrong with it, if anything is.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        line = anchor_path(trail).read_bytes()
    except FileNotFoundError:
        return None
    fields = signed(_PURPOSE, line, key)
    place = None if fields is None else signed_place(fields)
    if fields is None or place is None:
        return DAMAGED
    day, number, is_marked = fields.get("day"), fields.get("number"), fields.get("head")
    if type(day) is not int or type(number) is not int or type(is_marked) is not bool:
        return DAMAGED
    return Anchor(place, (day, number), is_marked)


def write_anchor(trail: Path, anchor: Anchor, key: bytes | None) -> None:
    """Replace the anchor of a trail; it is on disk when this returns."""
    day, number = anchor.through
    fields = {
        "seq": anchor.place.sequence,
        "hash": anchor.place.hash,
        "day": day,
        "number": number,
        "head": anchor.is_marked,
    }
    replace_file(anchor_path(trail), sign(_PURPOSE, fields, key))


def segment_files(trail: Path) -> list[RotatedFile]:
    """Find what was set aside, oldest first, each once: for a moment, both forms of a file lie there."""
    found: dict[tuple[int, int], RotatedFile] = {}
    for each in rotated_files(trail):
        found.setdefault((each.day, each.number), each)
    return list(found.values())


def open_segment(segment: RotatedFile) -> Lines:
    """Open a file that was set aside, in whichever form it lies there by now.

    Raises:
        FileNotFoundError: If it is gone.
    """
    if segment.is_packed:
        return gzip.open(segment.path, "rb")
    try:
        return segment.path.open("rb")
    except FileNotFoundError:  # it was compressed meanwhile
        return gzip.open(segment.path.with_name(f"{segment.path.name}.gz"), "rb")


def end_of_segments(trail: Path) -> Place:
    """The place of the last record that was set aside; `START` where there is none or it cannot be read."""
    for segment in reversed(segment_files(trail)):
        with contextlib.suppress(FileNotFoundError, IsADirectoryError, *_UNREADABLE), open_segment(segment) as file:
            if not isinstance(file, gzip.GzipFile):
                return place_of(last_line(file.fileno(), os.fstat(file.fileno()).st_size)[1])
            line = b""
            for line in file:  # noqa: B007 - the last one is what is wanted
                pass
            return place_of(line)
    return START


def trail_lines(
    trail: Path, *, after: tuple[int, int] = (0, 0), missing: Missing | None = None
) -> Iterator[tuple[str, int, bytes]]:
    """Read every line of a trail.

    Args:
        trail: The file that is written to; the others lie beside it.
        after: Day and number of the last file that does not count.
        missing: What that file lacks since the machine stopped.

    Yields:
        The name of the file, the number of the line in it, and the line; see `segment_lines`.

    Raises:
        OSError: If a file cannot be read.
    """
    with contextlib.ExitStack() as stack:
        current: BinaryIO | None = None
        with contextlib.suppress(FileNotFoundError):
            current = stack.enter_context(trail.open("rb"))
        # Opened first: if it is set aside meanwhile, it is listed too, and must not be read twice.
        held = None if current is None else os.fstat(current.fileno())
        for segment in segment_files(trail):
            if (segment.day, segment.number) <= after:
                continue
            try:
                file = open_segment(segment)
            except IsADirectoryError:
                yield segment.path.name, 1, b""
                continue
            with file:
                if held is not None and not segment.is_packed and os.path.samestat(os.fstat(file.fileno()), held):
                    break
                yield from segment_lines(segment.path.name, file)
        if current is not None and held is not None:
            lines: Iterable[bytes] = current
            if missing is not None and missing.inode == held.st_ino:
                lines = _completed(current, missing)
            yield from segment_lines(trail.name, lines)


def _completed(file: BinaryIO, missing: Missing) -> Iterator[bytes]:
    while file.tell() < missing.at and (line := file.readline()):
        yield line
    yield from io.BytesIO(missing.content)
    file.seek(missing.at + len(missing.content))
    yield from file


def twin_fault(segment: RotatedFile) -> tuple[str, int] | None:
    """Compare the two forms of a file that was set aside, where both lie there.

    Args:
        segment: As `segment_files` finds it: in its plain form, where there is one.

    Returns:
        The name of the compressed form and the first line in which it differs; None where it does not.

    Raises:
        OSError: If one of them cannot be read.
    """
    packed = segment.path.with_name(f"{segment.path.name}.gz")
    if segment.is_packed or not packed.exists():
        return None
    number = 0
    try:
        with segment.path.open("rb") as plain, gzip.open(packed, "rb") as file:
            for number, (line, twin) in enumerate(zip_longest(plain, file), 1):
                if line != twin:
                    return packed.name, number
    except FileNotFoundError:  # one of them was removed meanwhile, as is done once they are the same
        return None
    except (IsADirectoryError, *_UNREADABLE):
        return packed.name, number + 1
    return None


def segment_lines(name: str, file: Iterable[bytes]) -> Iterator[tuple[str, int, bytes]]:
    """Number the lines of one file; one without any bytes stands for all that cannot be read."""
    number = 0
    try:
        for number, line in enumerate(file, 1):
            yield name, number, line
    except _UNREADABLE:
        yield name, number + 1, b""
