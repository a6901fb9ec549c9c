"""One reading of what this process uses and of what the machine has left, and the event that is made of it."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ml_pipeline import _runtime
from ml_pipeline.config._events import ResourceSample
from ml_pipeline.config._resource_sources import Source, Space, choose_source, high_water_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

__all__ = ["PROBE", "SINK", "Probe", "Reading", "existing", "to_sample", "watched_folders"]

SINK: Final = "monitoring_config"
"""The name under which failures of monitoring are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What one look at the process and the machine showed; a part that could not be read is 0.

    Attributes:
        seconds: When, on a clock that only goes forward.
        cpu_seconds: Processor time of this process so far, all threads, user and system.
        memory_bytes: Resident memory of this process.
        peak_memory_bytes: The most that was ever resident.
        read_bytes: Read from storage by this process so far.
        written_bytes: Written to storage by this process so far.
        memory: The machine's memory, or that of the control group where it has less.
        disks: The disk below each folder, by the folder's path.
    """

    seconds: float
    cpu_seconds: float
    memory_bytes: int = 0
    peak_memory_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    memory: Space = field(default_factory=Space)
    disks: Mapping[str, Space] = field(default_factory=dict)

    def cpu_ratio_since(self, seconds: float, cpu_seconds: float) -> float:
        """Return processor time over wall time since an earlier reading; 1.0 is one core, never negative."""
        elapsed = self.seconds - seconds
        return max(0.0, (self.cpu_seconds - cpu_seconds) / elapsed) if elapsed > 0 else 0.0


class Probe:
    """Takes readings. Thread-safe; a part that fails is counted and left at 0, and the others are still read.

    Args:
        source: Where memory and I/O are read; by default `choose_source` decides at the first reading.
        clock: Seconds that only go forward.
        cpu_clock: Processor seconds of this process.
        high_water: Bytes of resident memory at their highest.
    """

    def __init__(
        self,
        source: Source | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
        cpu_clock: Callable[[], float] = time.process_time,
        high_water: Callable[[], int] = high_water_bytes,
    ) -> None:
        self._source = source
        self._high_water = high_water
        self.clock = clock
        self.cpu_clock = cpu_clock

    def read(self, folders: Iterable[Path] = ()) -> Reading:
        """Look once.

        Args:
            folders: Whose disks to look at; one that is not there yet stands for the nearest folder above it.

        Returns:
            The reading.
        """
        source = self._source or choose_source()
        self._source = source
        seconds, cpu_seconds = self.clock(), self.cpu_clock()
        resident = peak = read = written = 0
        memory = Space()
        with _runtime.guard(SINK):
            resident, peak = source.resident_bytes(), self._high_water()
        with _runtime.guard(SINK):
            read, written = source.io_bytes()
        with _runtime.guard(SINK):
            memory = source.machine_memory()
        return Reading(
            seconds=seconds,
            cpu_seconds=cpu_seconds,
            memory_bytes=resident,
            peak_memory_bytes=peak,
            read_bytes=read,
            written_bytes=written,
            memory=memory,
            disks=_disks(folders),
        )


PROBE: Final = Probe()


def watched_folders() -> tuple[Path, ...]:
    """Return the folders whose disks are watched: those of the data and of the logs."""
    settings = _runtime.settings()
    return tuple(dict.fromkeys((settings.data_dir, settings.log_dir)))


def existing(path: Path) -> Path:
    """Return *path*, or the nearest folder above it that exists."""
    return next((place for place in (path, *path.parents) if place.exists()), path)


def to_sample(name: str, reading: Reading, cpu_ratio: float) -> ResourceSample:
    """Make the event of a reading, for the operation that the caller's context is in.

    Args:
        name: What was running.
        reading: What it used.
        cpu_ratio: Processor time over wall time since the reading before.
    """
    return ResourceSample(
        name=name,
        cpu_ratio=cpu_ratio,
        memory_bytes=reading.memory_bytes,
        memory_available_bytes=reading.memory.free_bytes,
        disk_free_bytes=MappingProxyType({path: space.free_bytes for path, space in reading.disks.items()}),
        read_bytes=reading.read_bytes,
        written_bytes=reading.written_bytes,
    )


def _disks(folders: Iterable[Path]) -> Mapping[str, Space]:
    disks = {}
    for folder in folders:
        with _runtime.guard(SINK):
            usage = shutil.disk_usage(existing(folder))
            disks[str(folder)] = Space(usage.free, usage.total)
    return MappingProxyType(disks)
