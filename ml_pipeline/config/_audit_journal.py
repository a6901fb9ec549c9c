"""``.audit.journal``: the last records once more, where they are on disk sooner than at the end of the trail.

A file that grows has its new length written too, which costs the disk a second step. So while one process writes, its
records go to the end of the trail as ever, where every reader sees them, but what is waited for is their copy in the
journal, a file of a fixed length whose bytes are overwritten in place. Whenever the journal is full, and after another
process has written, the wait is for the trail itself.

Only a power failure leaves records in the journal that the trail lacks. Each names the hash of the one before it, so
that they are known as what comes next: who reads the trail reads them as its end, and the next writer puts them there.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Final

import orjson

from ml_pipeline.config._audit_chain import Place, place_of
from ml_pipeline.config._audit_files import OpenFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["Journal", "journal_path", "kept_lines"]

_BYTES: Final = 1 << 18
_MARK: Final = b"audit.journal "
_OWNER_BYTES: Final = 8
_HEADER_BYTES: Final = len(_MARK) + 2 * _OWNER_BYTES + 1
_NEEDED: Final = ("pread", "pwrite", "fdatasync")


class Journal:
    """The journal of a trail, open for writing. Only for the holder of the trail's lock.

    It begins with a line that names who writes it. Where that is another, who has put the whole trail on disk before,
    nothing that was kept here is needed any more.
    """

    def __init__(self, path: Path) -> None:
        self._file = OpenFile(path, os.O_CREAT)
        self._header = b""
        self._end: int | None = None
        self._copied = (0, 0)

    def begin(self) -> None:
        """Have it know that the whole trail is on disk, and that nobody else has written since."""
        self._copied = (0, 0)
        self._end = 0 if _is_possible() else None

    def keep(self, lines: bytes) -> int | None:
        """Copy lines to it that were just appended to the trail.

        Args:
            lines: The lines; they count once `advance` is called.

        Returns:
            The descriptor of the file that must be synchronised; None if that is the trail's.
        """
        if self._end is None or not lines:
            return None
        start = self._end or _HEADER_BYTES
        if start + len(lines) > _BYTES:
            return None
        with contextlib.suppress(OSError):  # then it is done without
            descriptor = self._own() if self._end else self._take()
            self._copied = start, len(lines)
            if descriptor is not None and os.pwrite(descriptor, lines, start) == len(lines):
                return descriptor
        self._end = None
        return None

    def advance(self) -> None:
        """Have the lines count that `keep` has copied: they are on disk."""
        (start, size), self._copied = self._copied, (0, 0)
        self._end = start + size

    def take_back(self) -> None:
        """Blot out the lines that `keep` has copied: they were given up."""
        (start, size), self._copied = self._copied, (0, 0)
        if size:
            with contextlib.suppress(OSError):
                descriptor = self._own()
                if descriptor is not None:
                    os.pwrite(descriptor, bytes(size), start)

    def is_in_use(self) -> bool:
        """Say whether it holds lines, whoever has written them, that could be taken for the end of the trail."""
        if not _is_possible() or not self._file.path.is_file():
            return False
        return os.pread(self._open(), len(_MARK), 0) == _MARK

    def clear(self) -> None:
        """Leave nothing of that in it: the whole trail is on disk. Who else writes to it will notice."""
        os.pwrite(self._open(), bytes(_HEADER_BYTES), 0)

    def close(self) -> None:
        """Close the file and know nothing of it any more; what it holds stays."""
        self._end = None
        self._file.close()

    def _open(self) -> int:
        if not self._file.is_in_place():
            self._file.close()
        return self._file.open()

    def _own(self) -> int | None:
        """The descriptor, if the file is still there and ours."""
        if not self._file.is_in_place():
            return None
        descriptor = self._file.open()
        return descriptor if os.pread(descriptor, _HEADER_BYTES, 0) == self._header else None

    def _take(self) -> int:
        """Make the file ours, and make it if it is missing."""
        descriptor = self._open()
        if self._file.size() != _BYTES:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, bytes(_BYTES), 0)  # a hole would be filled, at a cost, by each write
            os.fsync(descriptor)
        self._header = _MARK + os.urandom(_OWNER_BYTES).hex().encode() + b"\n"
        os.pwrite(descriptor, self._header, 0)
        return descriptor


def _is_possible() -> bool:
    return all(hasattr(os, name) for name in _NEEDED)


def journal_path(trail: Path) -> Path:
    """Where the journal of a trail lies."""
    return trail.with_name(f".{trail.stem}.journal")


def kept_lines(trail: Path, last: Place) -> Iterator[bytes]:
    """Read what a journal holds of the end of a trail.

    Args:
        trail: The file that is written to.
        last: The last record of the trail itself.

    Yields:
        The lines that follow it; whether they are sound must still be seen.

    Raises:
        OSError: If it cannot be read.
    """
    try:
        content = journal_path(trail).read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return
    if not content.startswith(_MARK):
        return
    for line in content[_HEADER_BYTES:].split(b"\n"):
        place = place_of(line)
        if place.sequence == last.sequence + 1 and orjson.loads(line).get("prev") == last.hash:
            yield line + b"\n"
            last = place
