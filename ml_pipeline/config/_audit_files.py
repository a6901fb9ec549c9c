"""Files of the audit trail: opened by one who holds the trail's lock, replaced whole, and on disk by name too."""

from __future__ import annotations

import contextlib
import math
import os
import time
from typing import TYPE_CHECKING, Final

from ml_pipeline import _platform
from ml_pipeline.config._log_handle import Handle
from ml_pipeline.config._log_rotation import is_in_place

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["OpenFile", "make_durable", "replace_file", "synchronise"]

synchronise: Final = getattr(os, "fdatasync", os.fsync)
"""Waits until a file is on disk: its size too, but not the time of its last change."""

_LOOK_SECONDS: Final = 1.0
"""Between two looks at what lies at the path, where the name of what is open stays the same."""


class OpenFile:
    """One file, open for reading and writing until something else lies at its path.

    Args:
        path: The file.
        flags: For ``os.open``, beside reading and writing.
        is_looked_for: Whether `is_in_place` looks for another file at the path from time to time; of several files that
            belong together, one is enough, or they would be found to have gone at different moments.
    """

    def __init__(self, path: Path, flags: int = 0, *, is_looked_for: bool = True) -> None:
        self.path = path
        self._look_seconds = _LOOK_SECONDS if is_looked_for else math.inf
        self._flags = flags | os.O_RDWR | getattr(os, "O_BINARY", 0)
        self._handle: Handle | None = None
        self._link = self._name = ""
        self._look_at = 0.0

    def open(self) -> int:
        """Return the descriptor, opening the file if it is not open.

        Raises:
            OSError: If it cannot be opened.
        """
        if self._handle is None:
            descriptor = _platform.open_file(self.path, self._flags, _platform.GROUP_READS_FILE)
            held = os.fstat(descriptor)
            self._handle = Handle(descriptor, held)
            if self._flags & os.O_CREAT and not held.st_size:
                _set_mode(descriptor)
                make_durable(self.path.parent)
            self.is_in_place()  # by what name, is known from the beginning
        return self._handle.number

    def status(self) -> os.stat_result | None:
        """The state of what is open, if it lies at the path; None if it does not, or nothing is open."""
        held = None if self._handle is None else self._handle.status()
        return held if held is not None and is_in_place(self.path, held) else None

    def is_in_place(self) -> bool:
        """Say whether what is open lies at the path; within a second, if what changed is a link or folder on the way.

        The kernel is asked for the present name of what is open. To ask for its state would make each record dearer:
        since Linux 6.13 a file that was asked for it gets a new time at its next write, and that is more to wait for.
        """
        now = time.monotonic()
        try:
            if now < self._look_at and os.readlink(self._link) == self._name:  # noqa: PTH115 - a `Path` costs as much
                return True
        except OSError:
            self._look_at = 0.0
        return self._is_found(now)

    def _is_found(self, now: float) -> bool:
        if self._handle is None:
            return False
        self._link, self._name, self._look_at = f"/proc/self/fd/{self._handle.number}", "", 0.0
        with contextlib.suppress(OSError):  # without such names, each time is a look
            self._name = os.readlink(self._link)  # noqa: PTH115 - before the look, or it might be that of a file removed
        if self.status() is None:
            return False
        self._look_at = now + self._look_seconds if self._name else 0.0
        return True

    def close(self, *, unlock: bool = False) -> None:
        """Close the file, but not what someone else has opened under the same number.

        Args:
            unlock: Give up its lock first, which a child that was forked meanwhile would keep.
        """
        handle, self._handle = self._handle, None  # which closes it, when this returns
        self._look_at = 0.0
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
