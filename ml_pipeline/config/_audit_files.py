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
        self._flags = flags | os.O_RDWR | getattr(os, "O_BINARY", 0)
        self._handle: Handle | None = None

    def open(self) -> int:
        """Return the descriptor, opening the file if it is not open.

        Raises:
            OSError: If it cannot be opened.
        """
        if self._handle is None:
            descriptor = os.open(self.path, self._flags, _platform.GROUP_READS_FILE)
            held = os.fstat(descriptor)
            self._handle = Handle(descriptor, held)
            if self._flags & os.O_CREAT and not held.st_size:
                _set_mode(descriptor)
                make_durable(self.path.parent)
        return self._handle.number

    def status(self) -> os.stat_result | None:
        """The state of what is open, if it lies at the path; None if it does not, or nothing is open."""
        held = None if self._handle is None else self._handle.status()
        return held if held is not None and is_in_place(self.path, held) else None

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


def _set_mode(descriptor: int) -> None:
    if hasattr(os, "fchmod"):
        with contextlib.suppress(PermissionError):  # another user's, made a moment ago
            os.fchmod(descriptor, _platform.GROUP_READS_FILE)  # whatever the umask
