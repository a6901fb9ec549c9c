"""``audit.journal``: the newest records once more, so that a record waits for the disk once instead of twice.

A file that grows changes its length too, which the file system notes in a journal of its own, and waits for that. So a
record is appended to the trail, where everybody reads it, without waiting; then it is written into this file, whose
length and place never change, and only this one is waited for. When it is full, the trail is waited for and the journal
begins anew. A process that writes few records never makes one, and waits for the trail itself.

Whoever is killed, the system's cache still holds the whole trail. Only where the machine stopped, which shows in the id
that it draws at each start, may the trail on disk lack its last records; those are in the journal, each as far behind
its beginning as behind the length that the trail had then. A journal belongs to the trail that holds, just there, the
record that it says it began behind; what is missing from there on, the chain decides: a line counts where its hash is
its own and it follows the line before it.

Only who finds the last line of the trail in the journal goes on in it: what a killed writer left in the cache alone
would be a gap that nothing behind it could be read past.
"""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Final, NamedTuple

from ml_pipeline import _platform, _runtime
from ml_pipeline.config._audit_chain import Chain, Place, last_line, place_of, read_at, sign, signed, signed_place
from ml_pipeline.config._audit_files import OpenFile, replace_file, synchronise

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
        at: The length of the trail, all of which was on disk.
        place: The last record of the trail.
        is_lacking: Whether the trail was then found not to take what stands here.
    """

    boot: str
    at: int
    place: Place
    is_lacking: bool


class Missing(NamedTuple):
    """What a trail lacks since the machine stopped.

    Attributes:
        inode: The file that lacks it, by its number in its file system.
        at: Where it belongs.
        content: Whole lines, for there and in place of what lies there.
        records: How many of them stand in the journal alone.
    """

    inode: int
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
        self._file = OpenFile(journal_path(trail), is_looked_for=False)
        self._boot = _platform.boot_id()
        self._waits = 0
        self._at = _NOT_IN_USE

    @property
    def is_in_use(self) -> bool:
        """Whether records may stand here that the trail was not waited for."""
        return self._at != _NOT_IN_USE

    def join(self, trail: int) -> int:
        """Go on where others have written; complete the trail first, if the machine stopped since or its disk failed.

        Args:
            trail: The trail's descriptor.

        Returns:
            The length of the trail.

        Raises:
            OSError: If what the trail lacks cannot be written.
        """
        at, size = _NOT_IN_USE, os.lseek(trail, 0, os.SEEK_END)
        beginning = None if self._boot is None else self._beginning()
        if beginning is not None and _belongs(beginning, trail, size):
            if beginning.boot != self._boot:
                size = max(size, self._complete(trail, beginning))
            elif beginning.is_lacking:
                self._write_again(trail, beginning, size)
            elif self._is_wanted() and self._holds_last(trail, beginning, size):
                at = beginning.at
        self._at = at
        return size

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
        if not (self.is_in_use and 0 <= at <= _ROOM - len(content) and self._file.is_in_place()):
            self.settle(trail, content)
            return
        try:
            self._write(content, _HEADER + at)
        except OSError:
            self.settle(trail, content)
            self._give_up()

    def begin(self, end: int, place: Place) -> None:
        """Begin anew, where `keep` waited for the trail itself and many records are written.

        Args:
            end: The trail's length.
            place: Its last record.
        """
        if not self.is_in_use and self._is_wanted():
            try:
                self._make()
                self._note(_Beginning(self._boot or "", end, place, is_lacking=False))
            except OSError:
                self._give_up()
            else:
                self._at = end

    def settle(self, trail: int, newest: bytes = b"") -> None:
        """Wait until the trail is on disk, and the journal is no longer needed.

        Args:
            trail: The trail's descriptor.
            newest: What was appended last and is not in the journal.

        Raises:
            OSError: If it is not on disk. What the journal holds stays there, and who comes next writes it to the trail
                again: a system that could not write what it was given takes it for written afterwards.
        """
        try:
            synchronise(trail)
        except OSError:
            end = os.lseek(trail, 0, os.SEEK_END) - len(newest)
            beginning = self._beginning()
            if beginning is None or beginning.boot != self._boot or not _belongs(beginning, trail, end):
                raise
            self._write_again(trail, beginning, end, newest)
        self._at = _NOT_IN_USE
        self._waits += 1

    def leave(self, trail: int) -> None:
        """Have what was written of a trail on disk that no longer lies at its path, as well as that can be told."""
        if self.is_in_use:
            with contextlib.suppress(OSError):
                synchronise(trail)
        self.close()

    def take_back(self, trail: int) -> None:
        """Have everyone wait for the trail with the next record, before one is taken back.

        On disk the trail may keep that one; the next, if it stood in the journal alone, would be displaced by it.

        Args:
            trail: The trail's descriptor.
        """
        beginning = self._beginning()
        if beginning is not None and not beginning.is_lacking:  # else the next one writes the trail again
            with contextlib.suppress(OSError):
                self.settle(trail)
                self._remove()

    def _remove(self) -> None:
        self.close()
        with contextlib.suppress(OSError):
            self._file.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._at = _NOT_IN_USE

    def _is_wanted(self) -> bool:
        return self._boot is not None and self._waits > _FEW and hasattr(os, "pwrite")

    def _give_up(self) -> None:
        """Do without for a while; nobody else is to go on in a journal that could not be written."""
        self._waits = _LATER
        self._remove()

    def _write(self, content: bytes, at: int) -> None:
        descriptor = self._file.open()
        if os.pwrite(descriptor, content, at) != len(content):
            raise OSError(errno.EIO, "written in part", str(self._file.path))
        synchronise(descriptor)

    def _note(self, beginning: _Beginning) -> None:
        fields = {"boot": beginning.boot, "at": beginning.at, "lacking": beginning.is_lacking}
        line = sign(_PURPOSE, {**fields, "seq": beginning.place.sequence, "hash": beginning.place.hash}, self._key)
        # Not waited for: it comes to disk with the first record behind it, and what is before that is in the trail.
        os.pwrite(self._file.open(), line[:-1].ljust(_HEADER - 1) + b"\n", 0)

    def _make(self) -> None:
        """Have a file of the right length, whose beginning may be written over."""
        if not self._file.is_in_place():
            self._file.close()
        with contextlib.suppress(FileNotFoundError):
            descriptor = self._file.open()
            header = read_at(descriptor, 0, _HEADER)
            is_ours = not header.strip(b"\0") or _parsed(header, self._key) is not None
            if is_ours and os.lseek(descriptor, 0, os.SEEK_END) == _HEADER + _ROOM:
                return
            self._file.close()
            if not is_ours and len(header) == _HEADER:  # of a trail with another key, which may lack what it holds
                kept = self._file.path.replace(self._file.path.with_name(f"{self._file.path.name}.old"))
                _runtime.say_once(
                    "audit journal", f"{self._file.path.name} was not written with this key: it is kept as {kept.name}"
                )
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

    def _holds_last(self, trail: int, beginning: _Beginning, size: int) -> bool:
        """Say whether the last line stands here, too; if not, its writer waited for the trail, or was killed before."""
        whole, line = last_line(trail, size)
        at = whole - len(line) - beginning.at
        return at < 0 or read_at(self._file.open(), _HEADER + at, _HEADER + at + len(line)) == line

    def _complete(self, trail: int, beginning: _Beginning) -> int:
        """Write to the trail what an earlier start of the machine left here alone.

        Returns:
            How far that reaches.
        """
        missing = self._merged(trail, beginning, beginning.at + _ROOM)[1]
        if missing is not None:
            _platform.overwrite(trail, missing.content, missing.at)
            _runtime.say_once(
                f"audit journal {missing.at}",
                f"{self._trail.name} lacked {missing.records} records after the machine had stopped: they were "
                f"written to it again from {self._file.path.name}",
            )
        synchronise(trail)  # also where nothing is missing: whoever wrote it may have been killed before it was on disk
        self._remove()
        return 0 if missing is None else missing.at + len(missing.content)

    def _write_again(self, trail: int, beginning: _Beginning, end: int, newest: bytes = b"") -> None:
        """Write to a trail whose disk has failed what stands there and here since the journal began."""
        try:
            self._overwrite(trail, beginning, end, newest)
        except OSError:
            with contextlib.suppress(OSError):  # for who comes next, to whom the system says nothing of it
                self._note(beginning._replace(is_lacking=True))
                synchronise(self._file.open())
            raise
        self._remove()

    def _overwrite(self, trail: int, beginning: _Beginning, end: int, newest: bytes) -> None:
        lines = self._merged(trail, beginning, end)[0]
        if len(lines) < end - beginning.at:
            raise OSError(errno.EIO, "records could not be put on disk, nor be read back", str(self._trail))
        _platform.overwrite(trail, lines + newest, beginning.at)
        synchronise(trail)

    def _merged(self, trail: int, beginning: _Beginning, end: int) -> tuple[bytes, Missing | None]:
        lines = read_at(trail, beginning.at, end)
        return _merged(beginning, 0, lines, read_at(self._file.open(), _HEADER, _HEADER + _ROOM), self._key)


def journal_path(trail: Path) -> Path:
    """Where the journal of a trail lies."""
    return trail.with_suffix(".journal")


def read_missing(trail: Path, key: bytes | None) -> Missing | None:
    """Find what a trail lacks since the machine stopped, beside those who write it.

    Returns:
        What it lacks; None if that is nothing, or the system does not tell when it started.

    Raises:
        OSError: If a file cannot be read.
    """
    boot = _platform.boot_id()
    with contextlib.suppress(FileNotFoundError, IsADirectoryError), contextlib.ExitStack() as stack:
        file = stack.enter_context(journal_path(trail).open("rb"))
        beginning, records = _parsed(file.read(_HEADER), key), file.read(_ROOM)
        if beginning is not None and boot not in (None, beginning.boot):
            file = stack.enter_context(trail.open("rb"))
            held = os.fstat(file.fileno())
            if _belongs(beginning, file.fileno(), held.st_size):
                file.seek(beginning.at)
                return _merged(beginning, held.st_ino, file.read(_ROOM), records, key)[1]
    return None


def _belongs(beginning: _Beginning, trail: int, size: int) -> bool:
    """Say whether a journal began in this file, which holds the record before it just there."""
    if beginning.at > size:
        return False
    whole, line = last_line(trail, beginning.at)
    return whole == beginning.at and place_of(line) == beginning.place


def _parsed(header: bytes, key: bytes | None) -> _Beginning | None:
    fields = signed(_PURPOSE, header.rstrip() + b"\n", key)
    place = None if fields is None else signed_place(fields)
    if fields is None or place is None:
        return None
    boot, at, is_lacking = fields.get("boot"), fields.get("at"), fields.get("lacking")
    if type(boot) is not str or type(at) is not int or at < 0 or type(is_lacking) is not bool:
        return None
    return _Beginning(boot, at, place, is_lacking)


def _merged(
    beginning: _Beginning, inode: int, trail: bytes, journal: bytes, key: bytes | None
) -> tuple[bytes, Missing | None]:
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
    return found, Missing(inode, beginning.at + first, found[first:last], records) if records else None
