"""Files of the audit trail: opened by one who holds the trail's lock, replaced whole, and on disk by name too."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from ml_pipeline import _platform
from ml_pipeline.config._log_handle import Handle
from ml_pipeline.config._log_rotation import is_in_place

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["OpenFile", "make_durable", "replace_file"]


class OpenFile:
    """One file, open for reading and writing until something else lies at its path.

    Args:
        path: The file.
        flags: For ``os.open``, beside reading and writing.
    """

    def __init__(self, path: Path, flags: int = 0) -> None:
        self.path = path
        self._text = str(path)
        self._flags = flags | os.O_RDWR | getattr(os, "O_BINARY", 0)
        self._handle: Handle | None = None
        self._link: str | None = None

    def open(self) -> int:
        """Return the descriptor, opening the file if it is not open.

        Raises:
            OSError: If it cannot be opened.
        """
        if self._handle is None:
            descriptor = os.open(self.path, self._flags, _platform.GROUP_READS_FILE)
            held = os.fstat(descriptor)
            self._handle, self._link = Handle(descriptor, held), None
            if self._flags & os.O_CREAT and not held.st_size:
                _set_mode(descriptor)
                make_durable(self.path.parent)
        return self._handle.number

    def is_in_place(self) -> bool:
        """Say whether what is open lies at the path.

        Only the first time is `os.stat` asked: the next write to a file it was asked about gets a time of its own,
        which the disk then writes too, even for another file that is synchronised. Where the system tells under which
        path a file is open, that is enough from then on; not where a link is part of the path: it may lead elsewhere.
        """
        number = None if self._handle is None else self._handle.number
        if self._link and _path_of(number) == self._link == self._absolute():
            return True
        if self.status() is None:
            return False
        if self._link is None:
            self._link = path if (path := _path_of(number)) == self._absolute() else ""
        return True

    def size(self) -> int | None:
        """The size of what is open, if it lies at the path; None if it does not, or nothing is open.

        Raises:
            OSError: If the file cannot be read.
        """
        return os.lseek(self.open(), 0, os.SEEK_END) if self.is_in_place() else None

    def status(self) -> os.stat_result | None:
        """The state of what is open, if it lies at the path; None if it does not, or nothing is open."""
        held = None if self._handle is None else self._handle.status()
        return held if held is not None and is_in_place(self.path, held) else None

    def _absolute(self) -> str:
        return self._text if self._text.startswith("/") else f"{os.getcwd()}/{self._text}"  # noqa: PTH109 - likewise

    def close(self, *, unlock: bool = False) -> None:
        """Close the file, but not what someone else has opened under the same number.

        Args:
            unlock: Give up its lock first, which a child that was forked meanwhile would keep.
        """
        handle, self._handle = self._handle, None  # which closes it, when this returns
        if unlock and handle is not None and handle.status() is not None:
            _platform.unlock(handle.number)


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file whole; its content and its name are on disk when this returns.

    Raises:
        OSError: If it cannot be written; the old file is then untouched.
    """
    _platform.replace_durably(path, content, for_group=True)
    make_durable(path.parent)


def make_durable(folder: Path) -> None:
    """Put on disk which names a folder holds; where a folder cannot be opened, the system sees to that."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # Windows
        return
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _path_of(number: int | None) -> str:
    """Under which path a file is open, as Linux tells; empty where nobody does."""
    try:
        return os.readlink(f"/proc/self/fd/{number}")  # noqa: PTH115 - `Path` costs as much as the call itself
    except OSError:
        return ""


def _set_mode(descriptor: int) -> None:
    if hasattr(os, "fchmod"):
        with contextlib.suppress(PermissionError):  # another user's, made a moment ago
            os.fchmod(descriptor, _platform.GROUP_READS_FILE)  # whatever the umask
