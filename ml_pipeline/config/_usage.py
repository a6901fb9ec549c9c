"""What one block of work used: running aggregates, and a chart of bounded size."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._events import EMPTY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_pipeline.config._resources import Reading

__all__ = ["ResourceUsage", "UsagePoint"]

_MOST_POINTS: Final = 239  # the start, and an even number that can be merged two by two
_SHORTEST_WINDOW_SECONDS: Final = 0.05  # below it, a ratio says more about the scheduler than about the work


@dataclass(frozen=True, slots=True)
class UsagePoint:
    """One point of a chart.

    Attributes:
        seconds: Since the start of the block.
        cpu_ratio: Processor time over wall time since the point before; 1.0 is one core, and 0 at the start.
        memory_bytes: The most resident memory seen since the point before.
    """

    seconds: float
    cpu_ratio: float
    memory_bytes: int


class _Chart:
    """At most `_MOST_POINTS` points over any length of time.

    When it is full, neighbours are merged and each later point covers twice as many samples: a short peak of memory
    stays visible, and ratios stay exact because the points hold processor time since the start.
    """

    __slots__ = ("_points", "_room", "_stride")

    def __init__(self) -> None:
        self._points: list[tuple[float, float, int]] = []
        self._stride = 1
        self._room = 0

    def add(self, seconds: float, cpu_seconds: float, memory_bytes: int) -> None:
        if self._room:
            self._room -= 1
            self._points[-1] = (seconds, cpu_seconds, max(self._points[-1][2], memory_bytes))
            return
        if len(self._points) == _MOST_POINTS:
            self._merge_neighbours()
        self._points.append((seconds, cpu_seconds, memory_bytes))
        if len(self._points) > 1:
            self._room = self._stride - 1

    def points(self) -> tuple[UsagePoint, ...]:
        rest = (
            UsagePoint(seconds, (cpu - cpu_before) / (seconds - before) if seconds > before else 0.0, memory)
            for (before, cpu_before, _), (seconds, cpu, memory) in pairwise(self._points)
        )
        return (*(UsagePoint(0.0, 0.0, memory) for _, _, memory in self._points[:1]), *rest)

    def _merge_neighbours(self) -> None:
        start, pairs = self._points[0], zip(self._points[1::2], self._points[2::2], strict=True)
        self._points = [start, *((end, cpu, max(memory, most)) for (_, _, memory), (end, cpu, most) in pairs)]
        self._stride *= 2


class ResourceUsage:
    """What a block of work used, filled while it runs and complete when it has ended.

    Everything is of this process as a whole: what other threads do meanwhile is in it, what worker processes do is not.
    Thread-safe, and of bounded size however long the block takes. Before the first sample all numbers are 0.

    Args:
        name: What was running.
    """

    __slots__ = ("_chart", "_first", "_last", "_least_free", "_lock", "_most_ratio", "_peak", "name", "samples")

    def __init__(self, name: str) -> None:
        self.name = name
        self.samples = 0
        self._lock = threading.Lock()
        self._chart = _Chart()
        self._first: Reading | None = None
        self._last: Reading | None = None
        self._peak = 0
        self._most_ratio = 0.0
        self._least_free: Mapping[str, int] = EMPTY

    def add(self, reading: Reading) -> None:
        """Take in one more reading.

        Args:
            reading: What was read; later than the one before.
        """
        with self._lock:
            first, before = self._first or reading, self._last or reading
            if reading.seconds - before.seconds >= _SHORTEST_WINDOW_SECONDS:
                ratio = reading.cpu_ratio_since(before.seconds, before.cpu_seconds)
                self._most_ratio = max(self._most_ratio, ratio)
            self._peak = max(self._peak, _peak_since(first, reading))
            self._least_free = _least(self._least_free, reading)
            cpu_seconds = max(0.0, reading.cpu_seconds - first.cpu_seconds)
            self._chart.add(reading.seconds - first.seconds, cpu_seconds, reading.memory_bytes)
            self._first, self._last = first, reading
            self.samples += 1

    @property
    def wall_seconds(self) -> float:
        """Time from the first sample to the last."""
        return self._last.seconds - self._first.seconds if self._first and self._last else 0.0

    @property
    def cpu_seconds(self) -> float:
        """Processor time between them, user and system, all threads."""
        return max(0.0, self._last.cpu_seconds - self._first.cpu_seconds) if self._first and self._last else 0.0

    @property
    def mean_cpu_ratio(self) -> float:
        """Processor time over wall time; 1.0 is one core."""
        return self.cpu_seconds / self.wall_seconds if self.wall_seconds > 0 else 0.0

    @property
    def max_cpu_ratio(self) -> float:
        """The highest ratio between two samples, never below the mean."""
        return max(self._most_ratio, self.mean_cpu_ratio)

    @property
    def start_memory_bytes(self) -> int:
        """Resident memory at the start."""
        return self._first.memory_bytes if self._first else 0

    @property
    def peak_memory_bytes(self) -> int:
        """Resident memory at its highest.

        Exact where the block took the process to a new high, because the kernel keeps that mark; else the highest
        that a sample saw.
        """
        return self._peak

    @property
    def read_bytes(self) -> int:
        """Read from storage; what came from the page cache is not in it."""
        return self._last.read_bytes - self._first.read_bytes if self._first and self._last else 0

    @property
    def written_bytes(self) -> int:
        """Written to storage, or handed to the kernel to be written."""
        return self._last.written_bytes - self._first.written_bytes if self._first and self._last else 0

    @property
    def min_disk_free_bytes(self) -> Mapping[str, int]:
        """The least free space seen, by watched folder."""
        return self._least_free

    @property
    def points(self) -> tuple[UsagePoint, ...]:
        """At most 240 points over the length of the block, for a chart."""
        with self._lock:
            return self._chart.points()

    def __repr__(self) -> str:
        return (
            f"ResourceUsage(name={self.name!r}, wall_seconds={self.wall_seconds:.3f}, "
            f"cpu_seconds={self.cpu_seconds:.3f}, peak_memory_bytes={self.peak_memory_bytes}, samples={self.samples})"
        )


def _peak_since(first: Reading, reading: Reading) -> int:
    if reading.peak_memory_bytes > first.peak_memory_bytes:
        return max(reading.memory_bytes, reading.peak_memory_bytes)
    return reading.memory_bytes


def _least(before: Mapping[str, int], reading: Reading) -> Mapping[str, int]:
    now = {path: space.free_bytes for path, space in reading.disks.items()}
    return MappingProxyType({**before, **{path: min(free, before.get(path, free)) for path, free in now.items()}})
