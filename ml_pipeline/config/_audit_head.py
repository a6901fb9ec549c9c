"""``audit.head``: which record is the last one, so that records cut off the end of the trail are missed.

The file holds one line of a fixed length, which is overwritten in place after the records are on disk, by a single
write into the file's first sector. So it is always whole, in a killed process's file as on a disk that lost its power,
and never says more than the trail holds. It is not forced to disk itself: after a power failure it may name an earlier
record, and what stands behind that is accepted where it is chained. Writing a new file and renaming it over the old
one would double the cost of a record, for the file system then puts the new file on disk first.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._audit_chain import Place, sign_members, signed, signed_place
from ml_pipeline.config._audit_files import OpenFile, replace_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DAMAGED", "Head", "head_path", "read_head"]

DAMAGED: Final = "it was changed or damaged, or written with another key"

_PURPOSE: Final = b"audit.head"
_LENGTH: Final = 256
_TRIES: Final = 5


class Head:
    """The head of a trail, open for writing. Only for the holder of the trail's lock.

    Attributes:
        is_new: Whether no record had been written beside it when it was read or made.
    """

    def __init__(self, path: Path, key: bytes | None) -> None:
        self._file = OpenFile(path, is_looked_for=False)
        self._key = key
        self.is_new = False

    def is_in_place(self) -> bool:
        """Say whether what is open still lies at the path."""
        return self._file.is_in_place()

    def read(self) -> Place | None:
        """Read the place the head names; None if there is no head, or it is not sound."""
        if not self.is_in_place():
            self._file.close()
        try:
            descriptor = self._file.open()
        except FileNotFoundError:
            return None
        os.lseek(descriptor, 0, os.SEEK_SET)
        content = os.read(descriptor, _LENGTH + 1)
        place = _parsed(content, self._key)
        self.is_new = place is not None and content == _line(place, self._key, is_new=True)
        return place

    def make(self, place: Place) -> None:
        """Put a new head in place of whatever lies there; it is on disk when this returns."""
        self._file.close()
        replace_file(self._file.path, _line(place, self._key, is_new=True))
        self.is_new = True

    def write(self, place: Place) -> None:
        """Name another place."""
        descriptor = self._file.open()
        line = _line(place, self._key)
        if hasattr(os, "pwrite"):
            os.pwrite(descriptor, line, 0)
            return
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, line)

    def settle(self) -> None:
        """Wait until the head is on disk."""
        os.fsync(self._file.open())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def head_path(trail: Path) -> Path:
    """Where the head of a trail lies."""
    return trail.with_suffix(".head")


def read_head(path: Path, key: bytes | None) -> Place | str | None:
    """Read a head beside those who write it.

    Returns:
        The place it names; None if there is no head; what is wrong with it, if anything is.

    Raises:
        OSError: If it cannot be read.
    """
    for _ in range(_TRIES):  # a write may show its first bytes before its last
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        place = _parsed(content, key)
        if place is not None:
            return place
    return DAMAGED


def _line(place: Place, key: bytes | None, *, is_new: bool = False) -> bytes:
    body = b'{"seq":%d,"hash":"%b"%b' % (place.sequence, place.hash.encode(), b',"new":true' if is_new else b"")
    return sign_members(_PURPOSE, body, key)[:-1].ljust(_LENGTH - 1) + b"\n"


def _parsed(content: bytes, key: bytes | None) -> Place | None:
    if len(content) != _LENGTH:
        return None
    fields = signed(_PURPOSE, content.rstrip() + b"\n", key)
    place = None if fields is None else signed_place(fields)
    if fields is None or place is None:
        return None
    return place if content == _line(place, key, is_new="new" in fields) else None
