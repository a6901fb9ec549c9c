"""Removing what is older than the audit trail must be kept; what is removed leaves an anchor in the chain.

The oldest file goes only after its records were checked and the anchor, which says where the chain goes on, is on disk:
a kill at any moment leaves a trail that verifies. A file that was tampered with is kept, for it is evidence.
"""

from __future__ import annotations

import contextlib
from datetime import date
from typing import TYPE_CHECKING, Final

from ml_pipeline import _runtime
from ml_pipeline.config._audit_chain import START, Chain
from ml_pipeline.config._audit_files import make_durable
from ml_pipeline.config._audit_segments import (
    Anchor,
    anchor_path,
    open_segment,
    read_anchor,
    segment_files,
    segment_lines,
    twin_fault,
    write_anchor,
)
from ml_pipeline.config._audit_verify import Fault, first_fault
from ml_pipeline.config._log_rotation import day_text, locked_if_free

if TYPE_CHECKING:
    from pathlib import Path

    from ml_pipeline.config._log_rotation import RotatedFile

__all__ = ["expire"]

_EARLIEST_DAY: Final = (date(2010, 1, 1) - date(1970, 1, 1)).days
"""A file from before this program is that of a clock that was wrong, and may be from yesterday."""


def expire(trail: Path, key: bytes | None, *, oldest: int) -> None:
    """Remove the files whose day is over for long enough, the oldest first.

    Args:
        trail: The file that is written to.
        key: The secret of the trail.
        oldest: The first day that is kept, counted from 1970-01-01.

    Raises:
        OSError: If a file cannot be read or removed.
    """
    with locked_if_free(trail.with_name(f".{trail.stem}-retention.lock")) as is_locked:
        while is_locked and _expire_next(trail, key, oldest):
            pass


def _expire_next(trail: Path, key: bytes | None, oldest: int) -> bool:
    anchor = read_anchor(trail, key)
    if isinstance(anchor, str):
        _runtime.say_once("audit anchor", f"no audit file is removed: {anchor_path(trail).name}: {anchor}")
        return False
    segments = segment_files(trail)
    for left in segments:  # a kill came between the anchor and the removal
        if anchor is not None and (left.day, left.number) <= anchor.through:
            _remove(trail, left)
            return True
    if not segments or not _EARLIEST_DAY <= segments[0].day < oldest:
        return False
    successor = _anchor_after(segments[0], key, anchor)
    if successor is None:
        return False
    write_anchor(trail, successor, key)
    _remove(trail, segments[0])
    return True


def _anchor_after(segment: RotatedFile, key: bytes | None, anchor: Anchor | None) -> Anchor | None:
    before = anchor or Anchor(START, (0, 0), is_marked=False)
    chain = Chain(before.place, key, is_marked=before.is_marked)
    with open_segment(segment) as file:
        fault = first_fault(segment_lines(segment.path.name, file), chain)
    twin = twin_fault(segment)
    if fault is None and twin is not None:
        fault = Fault(*twin, f"it is not what {segment.path.name} holds")
    if fault is not None:
        where = "" if fault.file == segment.path.name else f"{fault.file}, "
        _runtime.say_once(
            f"audit {segment.path.name}",
            f"{segment.path.name} is kept past {day_text(segment.day)}, for it is not intact: "
            f"{where}line {fault.line}: {fault.reason}",
        )
        return None
    return Anchor(chain.place, (segment.day, segment.number), chain.is_marked)


def _remove(trail: Path, segment: RotatedFile) -> None:
    plain = segment.path.name.removesuffix(".gz")
    for name in (plain, f"{plain}.gz"):
        with contextlib.suppress(FileNotFoundError):
            trail.with_name(name).unlink()
    make_durable(trail.parent)
