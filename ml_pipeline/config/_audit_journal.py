"""``audit.journal``: the newest records once more, so that a record waits for the disk once instead of twice.

A file that grows changes its length too, which the file system notes in a journal of its own, and waits for that. So a
record is appended to the trail, where everybody reads it, without waiting; then it is written into this file, whose
length and place never change, and only this one is waited for. When it is full, the trail is waited for and the journal
begins anew. A process that writes few records never makes one, and waits for the trail itself.

Whoever is killed, the system's cache still holds the whole trail. Only where the machine stopped, which shows in the id
that it draws at each start, may the trail on disk lack its last records; those are in the journal, each as far behind
its beginning as behind the length that the trail had then. What belongs there, the chain decides: a line counts where
its hash is its own and it follows the line before it.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from ml_pipeline import _platform, _runtime
from ml_pipeline.config._audit_chain import Chain, Place, read_at, sign, signed, signed_place
from ml_pipeline.config._audit_files import OpenFile, make_durable, replace_file, synchronise

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Journal", "Missing", "journal_path", "read_missing"]

_PURPOSE: Final = b"audit.journal"
_HEADER: Final = 512
"""Bytes of the first line, which says where the journal began: a disk writes so many whole or not at all."""
_ROOM: Final = (1 << 19) - _HEADER
"""Bytes of the records behind it."""
_FEW: Final = 16
"""Waits for the trail itself before a process makes a journal."""
_LATER: Final = -1_000
"""So many more where the journal cannot be written."""
_NOT_IN_USE: Final = -1


class _Beginning(NamedTuple):
    """Where a journal began.

    Attributes:
        boot: The id of the machine's start.
        file: The number of the trail in its file system.
        at: The length of the trail, all of which was on disk.
        place: The last record of the trail.
    """

    boot: str
    file: int
    at: int
    place: Place


class Missing(NamedTuple):
    """What the trail lacks since the machine stopped.

    Attributes:
        at: Where in the trail it belongs.
        content: Whole lines, for there and in place of what lies there.
        records: How many of them stand in the journal alone.
    """

    at: int
    content: bytes
    records: int


class Journal:
    """Has the newest records of a trail on disk. Only for the holder of the trail's lock.

    Args:
        trail: The file that is written to.
        key: The secret of the trail.
    """

    def __init__(self, trail: Path, key: bytes | None) -> None:
        self._trail = trail
        self._key = key
        self._file = OpenFile(journal_path(trail))
        self._boot = _platform.boot_id()
        self._waits = 0
        self._at = _NOT_IN_USE
        self._is_complete = False
        self._may_lack = False

    def keep(self, trail: int, content: bytes, end: int) -> None:
        """Have lines on disk that were just appended to the trail.

        Args:
            trail: The trail's descriptor.
            content: The lines.
            end: The length of the trail before them.

        Raises:
            OSError: If they are on disk neither here nor there.
        """
        at = end - self._at
        is_room = self._at != _NOT_IN_USE and 0 <= at <= _ROOM - len(content)
        if is_room and not self._may_lack and self._file.is_in_place():
            try:
                self._write(content, _HEADER + at)
            except OSError:
                self._waits = _LATER
            else:
                return
        self.settle(trail, content)

    def begin(self, inode: int, end: int, place: Place) -> None:
        """Begin anew, where `keep` waited for the trail itself and many records are written.

        Args:
            inode: The trail's number in its file system.
            end: Its length.
            place: Its last record.
        """
        if self._at == _NOT_IN_USE and self._is_wanted():
            try:
                self._begin(inode, end, place)
            except OSError:  # then the next records wait for the trail, too
                self._waits = _LATER

    def _begin(self, inode: int, end: int, place: Place) -> None:
        if not self._file.is_in_place():
            self._file.close()
            self._make()
        beginning = {"boot": self._boot, "file": inode, "at": end}
        line = sign(_PURPOSE, {**beginning, "seq": place.sequence, "hash": place.hash}, self._key)
        # Not waited for: it comes to disk with the first record behind it, and what is before that is in the trail.
        os.pwrite(self._file.open(), line[:-1].ljust(_HEADER - 1) + b"\n", 0)
        self._at = end

    def join(self, trail: int, inode: int) -> int:
        """Go on where another process has written; complete the trail first, if the machine stopped since.

        Args:
            trail: The trail's descriptor.
            inode: Its number in its file system.

        Returns:
            The length of the trail.

        Raises:
            OSError: If what the trail lacks cannot be written.
        """
        size, at = os.lseek(trail, 0, os.SEEK_END), _NOT_IN_USE
        if not self._is_complete or self._is_wanted() or self._may_lack:
            beginning = self._beginning()
            if beginning is None or beginning.at > size:
                pass
            elif beginning.boot != self._boot:
                size = max(size, self._complete(trail, beginning))
            elif beginning.file == inode and (self._is_wanted() or beginning.at == self._at):
                at = beginning.at
        self._may_lack = self._may_lack and at == self._at  # else another process has waited for the trail since
        self._at = at
        if self._may_lack:
            self.settle(trail)
        self._is_complete = True
        return size

    def settle(self, trail: int, newest: bytes = b"") -> None:
        """Wait until the trail is on disk, and the journal is no longer needed.

        Args:
            trail: The trail's descriptor.
            newest: What was appended last and is not in the journal.

        Raises:
            OSError: If it is not on disk. What the journal holds stays there, and the next attempt writes it to the
                trail again: a system that could not write what it was given takes it for written afterwards.
        """
        try:
            if not self._may_lack:
                synchronise(trail)
        except OSError:
            if self._at == _NOT_IN_USE:
                raise
            self._may_lack = True
        if self._may_lack:
            self._write_again(trail, newest)
        self._may_lack = False
        self._at = _NOT_IN_USE
        self._waits += 1

    @property
    def is_in_use(self) -> bool:
        """Whether records stand here that the trail was not waited for."""
        return self._at != _NOT_IN_USE

    def leave(self, trail: int) -> None:
        """Have what was written of a trail on disk that no longer lies at its path, as well as that can be told."""
        if self.is_in_use:
            self._at = _NOT_IN_USE
            with contextlib.suppress(OSError):
                synchronise(trail)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._at = _NOT_IN_USE

    def _is_wanted(self) -> bool:
        return self._boot is not None and self._waits > _FEW and hasattr(os, "pwrite")

    def _write(self, content: bytes, at: int) -> None:
        descriptor = self._file.open()
        if os.pwrite(descriptor, content, at) != len(content):
            raise OSError(errno.EIO, "written in part", str(self._file.path))
        synchronise(descriptor)

    def _write_again(self, trail: int, newest: bytes) -> None:
        beginning, end = self._beginning(), os.lseek(trail, 0, os.SEEK_END) - len(newest)
        lines = b"" if beginning is None else self._merged(trail, beginning)[0]
        if beginning is None or beginning.at != self._at or len(lines) < end - self._at:
            raise OSError(errno.EIO, "records could not be put on disk, nor be read back", str(self._trail))
        _platform.overwrite(trail, lines[: end - self._at] + newest, self._at)
        synchronise(trail)

    def _make(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            if os.lseek(self._file.open(), 0, os.SEEK_END) == _HEADER + _ROOM:
                return
            self._file.close()
        # Zeros that are written, and no hole: to fill a hole changes what the file system has to note.
        replace_file(self._file.path, bytes(_HEADER + _ROOM))

    def _beginning(self) -> _Beginning | None:
        if not self._file.is_in_place():
            self._file.close()
        try:
            header = read_at(self._file.open(), 0, _HEADER)
        except OSError:  # there is none, or nothing that could be used
            return None
        return _parsed(header, self._key)

    def _merged(self, trail: int, beginning: _Beginning) -> tuple[bytes, Missing | None]:
        newest = read_at(trail, beginning.at, beginning.at + _ROOM)
        return _merged(beginning, newest, read_at(self._file.open(), _HEADER, _HEADER + _ROOM), self._key)

    def _complete(self, trail: int, beginning: _Beginning) -> int:
        """Write to the trail what an earlier start of the machine left here alone, and remove this file.

        Returns:
            How far that reaches.
        """
        _, missing = self._merged(trail, beginning)
        if missing is not None:
            _platform.overwrite(trail, missing.content, missing.at)
            synchronise(trail)
            _runtime.say_once(
                f"audit journal {missing.at}",
                f"{self._trail.name} lacked {missing.records} records after the machine had stopped: they were "
                f"written to it again from {self._file.path.name}",
            )
        self._file.close()
        with contextlib.suppress(OSError):
            self._file.path.unlink(missing_ok=True)
            make_durable(self._file.path.parent)
        return 0 if missing is None else missing.at + len(missing.content)


def journal_path(trail: Path) -> Path:
    """Where the journal of a trail lies."""
    return trail.with_suffix(".journal")


def read_missing(trail: Path, key: bytes | None) -> Missing | None:
    """Find what a trail lacks since the machine stopped, beside those who write it; None if that is nothing.

    Raises:
        OSError: If a file cannot be read.
    """
    try:
        with journal_path(trail).open("rb") as file:
            beginning = _parsed(file.read(_HEADER), key)
            if beginning is None or beginning.boot == _platform.boot_id():
                return None
            records = file.read(_ROOM)
        with trail.open("rb") as file:
            if beginning.at > os.fstat(file.fileno()).st_size:
                return None
            file.seek(beginning.at)
            return _merged(beginning, file.read(_ROOM), records, key)[1]
    except (FileNotFoundError, IsADirectoryError):
        return None


def _parsed(header: bytes, key: bytes | None) -> _Beginning | None:
    fields = signed(_PURPOSE, header.rstrip() + b"\n", key)
    place = None if fields is None else signed_place(fields)
    if fields is None or place is None:
        return None
    boot, file, at = fields.get("boot"), fields.get("file"), fields.get("at")
    if type(boot) is not str or type(file) is not int or type(at) is not int or at < 0:
        return None
    return _Beginning(boot, file, at, place)


def _merged(beginning: _Beginning, trail: bytes, journal: bytes, key: bytes | None) -> tuple[bytes, Missing | None]:
    """Follow the chain from where a journal began, through the trail and, where that does not go on, the journal.

    Returns:
        All lines that were found, and what of them the trail lacks.
    """
    chain = Chain(beginning.place, key)
    merged, first, last, records = bytearray(), 0, 0, 0
    while True:
        start = len(merged)
        for lines in (trail, journal):
            line = lines[start : lines.find(b"\n", start) + 1]
            if line and not chain.fault(line):
                break
        else:
            break
        merged += line
        if lines is journal:
            first, last, records = (first if records else start), len(merged), records + 1
    found = bytes(merged)
    return found, Missing(beginning.at + first, found[first:last], records) if records else None
