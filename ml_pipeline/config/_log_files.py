"""Files that are appended to one whole line at a time, handed to the kernel before the call returns."""

from __future__ import annotations

import os
import stat
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["AppendFile", "AppendFiles", "ends_torn"]

_MODE = 0o640
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)


class AppendFile:
    """One file, opened at the first write; threads and processes may share it, because every write is one append.

    Args:
        path: The file; its folder is made at the first write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()  # a signal handler may log while this thread is inside a write
        self._descriptor: int | None = None
        self._torn = False

    def write(self, line: bytes) -> None:
        """Append one line.

        Args:
            line: Its bytes, with the line end.

        Raises:
            OSError: If it could not be written whole; the next line then starts on a line of its own.
        """
        with self._lock:
            descriptor = self._open()
            rest = b"\n" + line if self._torn else line
            while rest:  # a short write means a disk that is filling: the next one says so, or completes the line
                rest = rest[os.write(descriptor, rest) :]
                self._torn = bool(rest)

    def close(self) -> None:
        """Close the file; a later write opens it again."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    def _open(self) -> int:
        if self._descriptor is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, _FLAGS, _MODE)
            # A pipe or terminal, such as a link to /dev/stdout, has no end to look at.
            self._torn = stat.S_ISREG(os.fstat(self._descriptor).st_mode) and ends_torn(self.path)
        return self._descriptor


class AppendFiles:
    """The open files below one folder, by relative path.

    Args:
        folder: Where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._files: dict[str, AppendFile] = {}

    def __getitem__(self, relative: str) -> AppendFile:
        file = self._files.get(relative)
        return file if file is not None else self._files.setdefault(relative, AppendFile(self.folder / relative))

    def close(self) -> None:
        """Close every file."""
        for file in list(self._files.values()):
            file.close()


def ends_torn(path: Path) -> bool:
    """Say whether a file's last line has no end, because its writer was killed or the disk was full.

    A line that another process is writing at this moment is waited for, or it would be taken for a torn one: a write
    across a page boundary shows its first part before its second.
    """
    with path.open("rb", buffering=0) as file:
        while end := file.seek(0, os.SEEK_END):
            file.seek(end - 1)
            if file.read(1) == b"\n":
                return False
            os.utime(path)  # takes the lock of the file in the kernel, which a write under way holds until it is whole
            if file.seek(0, os.SEEK_END) == end:
                return True
    return False
