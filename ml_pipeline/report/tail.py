"""The end of a log file, line by line backwards, however long the file is."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["MOST_BYTES", "lines_from_end"]

MOST_BYTES: Final = 4 << 20
"""How much of the end of one file is read."""

_BLOCK_BYTES: Final = 64 << 10


def lines_from_end(path: Path, *, most_bytes: int = MOST_BYTES) -> Iterator[bytes]:
    """Read the lines of a file from its last to its first, without their ends.

    Args:
        path: The file; one that is missing, no regular file or not readable has no lines.
        most_bytes: How much of its end is read at most; a line that begins before that is left out.

    Yields:
        The lines that are not empty.
    """
    try:
        file = path.open("rb") if path.is_file() else None  # to open a pipe would wait for its writer
    except OSError:
        file = None
    if file is None:
        return
    with file:
        begin = file.seek(0, os.SEEK_END)
        floor = max(begin - most_bytes, 0)
        parts: list[bytes] = []  # of the line that the blocks read so far have not yet begun
        while begin > floor:
            end, begin = begin, max(begin - _BLOCK_BYTES, floor)
            file.seek(begin)
            head, *whole = file.read(end - begin).split(b"\n")
            if whole:
                yield from _not_empty(whole[-1] + b"".join(reversed(parts)))
                for line in reversed(whole[:-1]):
                    yield from _not_empty(line)
                parts = []
            parts.append(head)
        if floor == 0:
            yield from _not_empty(b"".join(reversed(parts)))


def _not_empty(line: bytes) -> Iterator[bytes]:
    if line.strip():
        yield line
