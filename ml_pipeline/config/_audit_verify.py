"""Walking an audit trail, to find the first record that was changed, removed or inserted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from ml_pipeline.config._audit_chain import START, Chain, Place
from ml_pipeline.config._audit_head import head_path, read_head
from ml_pipeline.config._audit_journal import Missing, read_missing
from ml_pipeline.config._audit_segments import (
    Anchor,
    anchor_path,
    read_anchor,
    segment_files,
    trail_lines,
    twin_fault,
)

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["AuditReport", "Fault", "first_fault", "verify"]

_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What `verify` found.

    Attributes:
        intact: Whether every record is as it was written, and none is missing.
        records: How many records are intact, from the first on.
        line: The first line that is not, counted from 1; None where all are.
        reason: What is wrong with it.
        torn: Whether the trail ends in a record that was never completed, which is no tampering.
        file: Name of the file with that line; empty where all are intact.
        has_head: Whether a head says where the trail must end; without one, a cut at the end does not show.
        removed: Number of the last record that was removed because of its age; 0 where none was.
        pending: How many of the records stand in the journal alone since the machine stopped; the next writer puts them
            into the trail.
    """

    intact: bool
    records: int
    line: int | None = None
    reason: str = ""
    torn: bool = False
    file: str = ""
    has_head: bool = True
    removed: int = 0
    pending: int = 0


def verify(path: Path, key: bytes | None = None) -> AuditReport:
    """Walk the chain of an audit trail, with its rotated files, its head and its anchor.

    Args:
        path: The file that is written to; the others lie beside it.
        key: The secret it was written with.

    Returns:
        The report; a trail that does not exist or is empty is intact and has no records.

    Raises:
        OSError: If a file cannot be read.
    """
    for tries_left in reversed(range(_TRIES)):
        files = _Files.of(path, key)
        try:
            report = _verified(path, key, files)
        except FileNotFoundError:  # it was removed because of its age while we came to it
            if not tries_left:
                raise
            continue
        if report.intact or _Files.of(path, key).settled == files.settled:
            break
    return report


class Fault(NamedTuple):
    """The first line of a trail that is not as it was written."""

    file: str
    line: int
    reason: str
    is_torn: bool = False


def first_fault(lines: Iterable[tuple[str, int, bytes]], chain: Chain) -> Fault | None:
    """Go through lines until one is wrong.

    Args:
        lines: The name of a file, the number of a line in it, and the line.
        chain: Grows by the lines that are intact.

    Returns:
        The fault, if there is one; a line without an end may be one that was never completed.
    """
    for file, number, line in lines:
        reason = chain.fault(line)
        if reason:
            return Fault(file, number, reason, is_torn=not line.endswith(b"\n"))
    return None


class _Files(NamedTuple):
    """What lies beside the trail, read before the trail, which may only have grown since."""

    head: Place | str | None
    anchor: Anchor | str | None
    missing: Missing | None
    names: list[tuple[int, int]]

    @classmethod
    def of(cls, path: Path, key: bytes | None) -> _Files:
        head, anchor = read_head(head_path(path), key), read_anchor(path, key)
        names = [(each.day, each.number) for each in segment_files(path)]
        return cls(head, anchor, read_missing(path, key), names)

    @property
    def settled(self) -> tuple[object, ...]:
        """What stays while records are merely written."""
        return self.head is None, self.anchor, self.missing, self.names


def _verified(path: Path, key: bytes | None, files: _Files) -> AuditReport:
    anchor = files.anchor if isinstance(files.anchor, Anchor) else Anchor(START, (0, 0), is_marked=False)
    head = files.head if isinstance(files.head, Place) else None
    chain = Chain(anchor.place, key, head, is_marked=anchor.is_marked)
    counter = _Counter(path.name)
    fault = first_fault(counter.counted(trail_lines(path, after=anchor.through, missing=files.missing)), chain)
    is_torn = fault is not None and fault.is_torn and fault.file == path.name
    if is_torn and (head is None or chain.place.sequence >= head.sequence):
        fault = None
    else:
        is_torn = False
    fault = fault or _fault_beside(path, files, chain, counter.lines + 1)
    return AuditReport(
        intact=fault is None,
        records=chain.place.sequence - anchor.place.sequence,
        line=fault and fault.line,
        reason=fault.reason if fault else "",
        torn=is_torn and fault is None,
        file=fault.file if fault else "",
        has_head=files.head is not None,
        removed=anchor.place.sequence,
        pending=files.missing.records if files.missing else 0,
    )


class _Counter:
    """Counts the lines of one of the files."""

    def __init__(self, file: str) -> None:
        self.lines = 0
        self._file = file

    def counted(self, lines: Iterable[tuple[str, int, bytes]]) -> Iterable[tuple[str, int, bytes]]:
        for each in lines:
            self.lines = each[1] if each[0] == self._file else 0
            yield each


def _fault_beside(path: Path, files: _Files, chain: Chain, line: int) -> Fault | None:
    """Find what is wrong although every line is sound."""
    if isinstance(files.anchor, str):
        return Fault(anchor_path(path).name, 1, f"{anchor_path(path).name}: {files.anchor}")
    through = files.anchor.through if files.anchor else (0, 0)
    for segment in segment_files(path):
        twin = twin_fault(segment) if (segment.day, segment.number) > through else None
        if twin is not None:
            return Fault(*twin, f"it is not what {segment.path.name} holds, which is intact: remove {twin[0]}")
    head = head_path(path).name
    if isinstance(files.head, str):
        return Fault(head, 1, f"{head}: {files.head}")
    last = chain.place.sequence
    if files.head is None:
        missing = f"{head} is missing, though a record was written beside it: records may be missing from here on"
        return Fault(path.name, line, missing) if chain.is_marked else None
    if last < files.head.sequence:
        which = (
            f"records {last + 1} to {files.head.sequence} are"
            if last + 1 < files.head.sequence
            else f"record {last + 1} is"
        )
        return Fault(path.name, line, f"{which} missing here: {head} names record {files.head.sequence} as the last")
    return None
