"""The audit trail: one JSON line a record, each holding the hash of the one before it.

A record is on disk when `AuditTrail.append` returns. The trail is a plain file, ``audit.log``, to which lines are only
appended. Beside it lie ``audit.head``, which names the last record; what was set aside of the trail,
``audit.log.2026-11-20.1`` or the same with ``.gz``; and ``audit.anchor``, once the oldest of that were removed. The
chain goes on from file to file.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _platform, _runtime
from ml_pipeline.config._audit_chain import GENESIS, START, last_line, place_of, record_bodies, seal
from ml_pipeline.config._audit_commit import GroupCommit
from ml_pipeline.config._audit_files import OpenFile, make_durable
from ml_pipeline.config._audit_head import Head, head_path
from ml_pipeline.config._audit_journal import Journal
from ml_pipeline.config._audit_retention import expire
from ml_pipeline.config._audit_segments import end_of_segments, segment_files
from ml_pipeline.config._audit_verify import AuditReport, verify
from ml_pipeline.config._log_retention import Keeper, Retention
from ml_pipeline.config._log_rotation import Rotation
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from ml_pipeline.settings import Settings

__all__ = ["GENESIS", "AuditReport", "AuditTrail", "read_key", "verify"]

_FEWEST_KEY_BYTES: Final = 16
_FOREVER: Final = Retention(days=1 << 40)


class AuditTrail:
    """Appends records to one trail, each on disk when `append` returns; threads and processes may share it.

    Args:
        path: The file that is written to.
        key: Secret for HMAC; None for plain hashes.
        rotation: Sets the file aside when it is full or its day is over; None: nobody does.
        retention_days: What was set aside longer ago is removed, and leaves an anchor; None: nothing is.
    """

    def __init__(
        self,
        path: Path,
        key: bytes | None = None,
        *,
        rotation: Rotation | None = None,
        retention_days: int | None = None,
    ) -> None:
        self._file = OpenFile(path, os.O_APPEND | os.O_CREAT)
        self._key = key
        self._rotation = rotation
        self._retention_days = retention_days
        self._keeper: Keeper | None = None
        if rotation is not None:
            self._keeper = Keeper(lambda: [path], _FOREVER, before=self._expire)
            rotation.on_rotated = self._keeper.wake
        self._head = Head(head_path(path), key)
        self._journal = Journal(path, key)
        self._place = START
        self._forget()
        this = weakref.ref(self)
        _platform.after_fork_in_child(lambda: _leave_to_parent(this))

    @classmethod
    def of(cls, settings: Settings, path: Path) -> AuditTrail:
        """Make the trail that the settings ask for.

        Args:
            settings: Where the key lies, and how large and how old a file may get.
            path: The file that is written to.

        Raises:
            SettingsError: If the key cannot be read or is too short.
        """
        rotation = Rotation(path.parent, max_bytes=settings.log_max_bytes)
        key = read_key(settings.audit_key_file)
        return cls(path, key, rotation=rotation, retention_days=settings.audit_retention_days)

    def append(self, fields: Mapping[str, Any]) -> None:
        """Write one record.

        Called from a signal handler or a ``__del__`` that has interrupted a write of the same thread, it returns at
        once, and the write below takes the record along.

        Args:
            fields: What it says; ``seq``, counted from 1, ``prev`` and ``hash`` are added.

        Raises:
            OSError: If it is not on disk; the trail then ends where it ended before.
        """
        self._group.put(record_bodies((fields,)))

    def append_encoded(self, body: bytes) -> None:
        """Write one record that is encoded as `record_bodies` does; see `append`."""
        self._group.put((body,))

    def append_all(self, records: Iterable[Mapping[str, Any]]) -> None:
        """Write records, one behind the other, with one wait for the disk.

        Args:
            records: What each says; see `append`.

        Raises:
            OSError: If they are not on disk; then none of them is in the trail.
        """
        self._group.put(record_bodies(records))

    def check(self) -> None:
        """Make sure that a record could be written now.

        Raises:
            OSError: If the file cannot be opened, locked or synchronised.
        """
        self._group.put(())

    def close(self) -> None:
        """Close the files; a later record opens them again."""
        if self._keeper is not None:
            self._keeper.close()
        self._group.alone(self._settle)
        self._group.alone(self._close_all)

    def _settle(self) -> None:
        """Wait until the trail itself is on disk, so that who copies it at rest needs no journal."""
        if self._journal.is_in_use:
            with _runtime.guard("audit"):
                descriptor = self._locked()
                try:
                    self._journal.settle(descriptor)
                finally:
                    _platform.unlock(descriptor)

    def _close_all(self) -> None:
        self._head.close()
        self._journal.close()
        self._file.close()

    def _forget(self) -> None:
        self._group = GroupCommit(self._commit)
        self._end = -1
        self._day = self._today = 0
        self._is_first = self._is_torn = False

    def _commit(self, bodies: list[bytes]) -> None:
        is_done = False
        try:
            descriptor = self._locked()
            self._write(descriptor, bodies)
            _platform.unlock(descriptor)
            is_done = True
        finally:
            if not is_done:  # the next attempt opens the files anew
                self._head.close()
                self._journal.close()
                with contextlib.suppress(OSError):  # not locked yet
                    self._file.close(unlock=True)

    def _locked(self) -> int:
        """Open the file and take the lock that keeps other processes out; the file is then at its end."""
        while True:
            descriptor = self._open()
            _platform.lock_exclusive(descriptor)
            if self._file.is_in_place():  # else it was set aside or removed: nobody looks there for more
                self._catch_up(descriptor)
                if not self._is_set_aside(descriptor):
                    return descriptor
            self._head.close()
            self._journal.leave(descriptor)
            self._file.close(unlock=True)
            self._end = -1

    def _open(self) -> int:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return self._file.open()
        _platform.make_group_folder(self._file.path.parent)
        return self._file.open()

    def _catch_up(self, descriptor: int) -> None:
        """Find the end of the trail again if another process wrote since, or something happened to the files."""
        if os.lseek(descriptor, 0, os.SEEK_END) == self._end and self._head.is_in_place():
            return
        rotation = self._rotation
        if rotation is not None and self._day != rotation.today():
            self._day = rotation.day_of_file(os.fstat(descriptor))
        size = self._journal.join(descriptor)
        head = self._head.read()
        whole, last = last_line(descriptor, size)
        found = place_of(last) if last else end_of_segments(self._file.path)
        if whole != size and (head is None or found.sequence >= head.sequence):
            os.ftruncate(descriptor, whole)  # its writer was killed before `append` returned: nobody was told of it
            size = whole
        # Where records are missing, the next one keeps its number, and so shows the gap.
        self._place = max(self._place, head or START, found, key=lambda place: place.sequence)
        self._end = size
        self._is_torn = whole != size
        if head is None:
            self._head.make(self._place)
        # The first record beside a new head says so, and with it that a head must be there from then on.
        self._is_first = self._head.is_new and head in (None, self._place)

    def _is_set_aside(self, descriptor: int) -> bool:
        rotation = self._rotation
        if rotation is None:
            return False
        self._today = rotation.today()
        if not self._end or not rotation.is_due(self._end, self._day, self._today):
            return False
        with _runtime.guard("audit_rotation"):  # a file that cannot be set aside is written on
            self._head.settle()
            self._journal.settle(descriptor)
            # Never before a day that has been: the order of the names is that of the chain, whatever the clock says.
            newest = max([self._day, *(each.day for each in segment_files(self._file.path))])
            rotation.rotate(self._file.path, os.fstat(descriptor), newest)
            make_durable(self._file.path.parent)
        return self._file.status() is None

    def _write(self, descriptor: int, bodies: list[bytes]) -> None:
        content, place = seal(bodies, self._place, self._key, is_first=self._is_first)
        if self._is_torn and bodies:
            content = b"\n" + content
        try:
            rest = content
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            self._journal.keep(descriptor, content, self._end)
            # One step decides, whenever a signal comes: before it the records are taken back and may be written
            # again, after it they are neither.
            self._group.settle()
        finally:
            if not self._group.is_settled:
                try:
                    self._journal.take_back(descriptor)
                finally:
                    os.ftruncate(descriptor, self._end)
        if bodies:
            self._place, self._end, self._is_first, self._is_torn = place, self._end + len(content), False, False
            with _runtime.guard("audit"):  # the records are on disk, and a head that is behind is no harm
                self._head.write(place)
                self._journal.begin(self._end, place)
            self._day = self._today

    def _expire(self) -> None:
        if self._retention_days is not None and self._rotation is not None:
            with _runtime.guard("audit_retention"):
                expire(self._file.path, self._key, oldest=self._rotation.today() - self._retention_days)


def _leave_to_parent(reference: weakref.ref[AuditTrail]) -> None:
    """In a forked child: give up what it shares with its parent, whose lock it would hold if that were killed."""
    trail = reference()
    if trail is not None:
        trail._close_all()
        trail._forget()


def read_key(path: Path | None) -> bytes | None:
    """Read the secret of the audit trail.

    Args:
        path: The file that holds it; white space around it is dropped.

    Returns:
        The secret; None without a file.

    Raises:
        SettingsError: If the file cannot be read or holds fewer than 16 bytes.
    """
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as unreadable:
        raise SettingsError(
            "ML_PIPELINE_AUDIT_KEY_FILE must be a readable file", str(path), f"correct it ({unreadable.strerror})"
        ) from None
    if len(key) < _FEWEST_KEY_BYTES:
        raise SettingsError(
            f"the key in ML_PIPELINE_AUDIT_KEY_FILE must have at least {_FEWEST_KEY_BYTES} bytes",
            f"{len(key)} bytes",
            "write a longer one, for instance with `openssl rand -hex 32`",
        )
    return key
