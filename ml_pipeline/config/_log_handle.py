"""What log lines go to, and the open file below it: closed when nobody holds it, and asked how its last line ends."""

from __future__ import annotations

import contextlib
import os
import stat
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Handle", "LineFile", "ends_torn"]


class Handle:
    """An open file, by its number, which is closed when the last reference to this object is gone.

    So a thread that is about to write never finds that its number stands for another file meanwhile. Nor does who
    closes it: where a program has closed our number and opened a file of its own under it, that one stays open.

    Args:
        number: The file descriptor.
        held: What it is.

    Attributes:
        number: The file descriptor.
        is_regular: Whether the kernel keeps the appends of several threads apart, as that of a pipe does not.
    """

    __slots__ = ("_identity", "is_regular", "number")

    def __init__(self, number: int, held: os.stat_result) -> None:
        self.number = number
        self.is_regular = stat.S_ISREG(held.st_mode)
        self._identity = held.st_dev, held.st_ino

    def status(self) -> os.stat_result | None:
        """The present state of the file; None if someone has closed it, whatever its number stands for now."""
        with contextlib.suppress(OSError):
            held = os.fstat(self.number)
            if (held.st_dev, held.st_ino) == self._identity:
                return held
        return None

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):  # it may have been interrupted before it had any
            if self.status() is not None:
                os.close(self.number)


class LineFile(ABC):
    """What lines go to: a file, or a buffer before it. Thread-safe.

    Attributes:
        handle: The open file, while nothing but an append is to be done. Who appends a line to it calls `finish` if it
            was not taken whole. None: lines are for `quick` and `write`.
    """

    __slots__ = ("handle",)

    def __init__(self) -> None:
        self.handle: Handle | None = None

    def quick(self, line: bytes) -> bool:  # noqa: ARG002
        """Take a line, if that is quick; False, and nothing done, if it is not.

        Raises:
            OSError: If it cannot be written.
        """
        return False

    def finish(self, rest: bytes) -> None:  # noqa: ARG002
        """Take what was not appended of a line: nothing, where that raised an error.

        Raises:
            OSError: If it cannot be written.
        """
        raise AssertionError  # pragma: no cover - who offers no handle is never asked

    def tick(self, now: float) -> None:  # noqa: B027 - a buffer has nothing to do
        """Hear the time, by ``time.monotonic``, in every millisecond that has lines: who appends reads no clock."""

    @abstractmethod
    def write(self, line: bytes) -> None:
        """Take a line.

        Raises:
            Exception: If it cannot be written.
        """


def ends_torn(path: Path, held: os.stat_result, *, unseen: bool = False) -> bool | None:
    """Say whether a file's last line has no end, because its writer was killed or the disk was full.

    A line that another process is writing at this moment is waited for, or it would be taken for a torn one: a write
    across a page boundary shows its first part before its second.

    Args:
        path: Where the file lies.
        held: The file that is meant.
        unseen: What to answer where the file cannot be read, though it may be written: to this user, or because the
            process has no descriptor left.

    Returns:
        Whether it has none; None if the file does not lie there any more.
    """
    try:
        return _ends_torn(path, held)
    except OSError:
        return unseen


def _ends_torn(path: Path, held: os.stat_result) -> bool | None:
    try:
        file = path.open("rb", buffering=0)
    except FileNotFoundError:
        return None
    with file:
        while os.path.samestat(os.fstat(file.fileno()), held):
            end = file.seek(0, os.SEEK_END)
            if not end:
                return False
            file.seek(end - 1)
            if file.read(1) == b"\n":
                return False
            # Takes the lock of the file in the kernel, which a write under way holds until it is whole.
            os.utime(file.fileno() if os.utime in os.supports_fd else path)
            if file.seek(0, os.SEEK_END) == end:
                return True
    return None
