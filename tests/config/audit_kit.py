"""Trails to test with: written through the trail itself, in several files, and read back as plain lines."""

from __future__ import annotations

import gzip
import io
import os
from collections.abc import Callable
from pathlib import Path

from ml_pipeline.config._audit import AuditTrail
from ml_pipeline.config._audit_segments import segment_files
from ml_pipeline.config._log_rotation import DAY_SECONDS, Rotation, day_of

KEY = b"k" * 32
DAY_ONE = 20_000 * DAY_SECONDS + 43_200.0
"""Noon of 2024-10-04."""


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: float = DAY_ONE) -> None:
        self.now = now

    def __call__(self) -> float:
        """The moment it shows."""
        return self.now

    def pass_days(self, days: float) -> None:
        """Set it forward."""
        self.now += days * DAY_SECONDS


def rotating(path: Path, *, max_bytes: int | None = None, clock: Callable[[], float] | None = None) -> Rotation:
    """A rotation of a trail, by size, by day, or both."""
    folder = path.parent
    return (
        Rotation(folder, max_bytes=max_bytes) if clock is None else Rotation(folder, max_bytes=max_bytes, clock=clock)
    )


def write_trail(path: Path, count: int, *, key: bytes | None = None, max_bytes: int | None = None) -> None:
    """Write records ``record 0`` and on; with *max_bytes*, into several files."""
    trail = AuditTrail(path, key, rotation=None if max_bytes is None else rotating(path, max_bytes=max_bytes))
    for number in range(count):
        trail.append({"message": f"record {number}", "context": {"hash": "x", "n": [1, {"hash": "nested"}]}})
    trail.close()


def write_daily(path: Path, days: int, *, key: bytes | None = None) -> int:
    """Write two records a day, each day a file; return the first day."""
    clock = Clock()
    trail = AuditTrail(path, key, rotation=rotating(path, clock=clock))
    for day in range(days):
        trail.append_all([{"message": f"day {day}"}] * 2)
        os.utime(path, (clock.now, clock.now))
        clock.pass_days(1)
    trail.close()
    return day_of(DAY_ONE)


def files_of(path: Path) -> list[Path]:
    """The files of a trail, oldest first, each once; the one that is written to last, whether it exists or not."""
    return [*(each.path for each in segment_files(path)), path]


def content_of(path: Path) -> bytes:
    """What a file of a trail holds, unpacked; nothing where it is missing."""
    if not path.exists():
        return b""
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def lines_of(path: Path) -> list[tuple[str, int, bytes]]:
    """Every line of a trail: the file, the number in it, the line."""
    return [(each.name, at, line) for each in files_of(path) for at, line in enumerate(io.BytesIO(content_of(each)), 1)]


def pack(path: Path) -> None:
    """Compress a file of a trail, as is done in the background."""
    path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
