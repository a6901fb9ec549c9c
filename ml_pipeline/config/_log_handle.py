"""An open file that is closed when nobody holds it any more."""

from __future__ import annotations

import contextlib
import os
import stat

__all__ = ["Handle"]


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
        with contextlib.suppress(OSError):
            if self.status() is not None:
                os.close(self.number)
