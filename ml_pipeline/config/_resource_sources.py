"""Where the numbers of a reading come from: ``/proc`` and control groups on Linux, psutil elsewhere.

Files are opened for each reading (some 50 µs for all of them), so that there is nothing to close, nothing for a forked
child to inherit, and no descriptor that another thread could close in between.
"""

from __future__ import annotations

import contextlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ProcSource", "PsutilSource", "Source", "Space", "choose_source", "high_water_bytes"]

_PROC: Final = Path("/proc")
_CGROUP: Final = Path("/sys/fs/cgroup")
_READ_BYTES: Final = 16_384
_KIB: Final = 1_024

_CgroupFiles = tuple[str, str, bytes]
_CGROUP_V2: Final[_CgroupFiles] = ("memory.max", "memory.current", b"inactive_file")
_CGROUP_V1: Final[_CgroupFiles] = ("memory.limit_in_bytes", "memory.usage_in_bytes", b"total_inactive_file")


@dataclass(frozen=True, slots=True)
class Space:
    """Room in memory or on a disk.

    Attributes:
        free_bytes: What can still be had.
        total_bytes: All there is; 0 where the system does not tell.
    """

    free_bytes: int = 0
    total_bytes: int = 0

    @property
    def free_ratio(self) -> float:
        """Free over total, 0 to 1; what is not known counts as free."""
        return self.free_bytes / self.total_bytes if self.total_bytes else 1.0


class Source(Protocol):
    """Where the numbers come from. Thread-safe; holds nothing open."""

    def resident_bytes(self) -> int:
        """Return the resident memory of the calling process."""
        ...

    def io_bytes(self) -> tuple[int, int]:
        """Return what it read from and wrote to storage so far; (0, 0) where the system does not tell."""
        ...

    def machine_memory(self) -> Space:
        """Return the memory that is there, and what of it can be had without swapping."""
        ...


class ProcSource:
    """Reads ``/proc`` and, for the memory of a container, its control groups (version 1 or 2).

    The control groups around the process are looked up once; their limits are read each time.

    Args:
        proc: The process file system.
        cgroup: Where control groups are mounted.

    Source: Linux ``Documentation/filesystems/proc.rst``, ``admin-guide/cgroup-v2.rst``, ``cgroup-v1/memory.rst``.
    """

    def __init__(self, proc: Path = _PROC, cgroup: Path = _CGROUP) -> None:
        self._statm = proc / "self" / "statm"
        self._io = proc / "self" / "io"
        self._meminfo = proc / "meminfo"
        self._cgroup = proc / "self" / "cgroup"
        self._mount = cgroup
        self._known_groups: tuple[tuple[Path, _CgroupFiles], ...] | None = None

    def resident_bytes(self) -> int:
        """Return the second field of ``statm``, in bytes."""
        return int(_read(self._statm).split(None, 2)[1]) * os.sysconf("SC_PAGE_SIZE")

    def io_bytes(self) -> tuple[int, int]:
        """Return ``read_bytes`` and ``write_bytes`` of ``io``; some containers keep that file from its own process."""
        try:
            text = _read(self._io)
        except OSError:
            return 0, 0
        return _field(text, b"read_bytes:"), _field(text, b"write_bytes:")

    def machine_memory(self) -> Space:
        """Return ``MemAvailable`` of ``MemTotal``, or what the tightest control group leaves."""
        text = _read(self._meminfo)
        machine = tightest = Space(_field(text, b"MemAvailable:") * _KIB, _field(text, b"MemTotal:") * _KIB)
        if self._known_groups is None:
            self._known_groups = tuple(
                (folder, files) for folder, files in self._groups() if (folder / files[0]).exists()
            )
        for folder, files in self._known_groups:
            with contextlib.suppress(OSError, ValueError):  # no limit ("max"), or the group is gone
                limit = int(_read(folder / files[0]))
                if limit < machine.total_bytes:
                    tightest = min(tightest, _group_space(folder, files, limit), key=lambda space: space.free_bytes)
        return tightest

    def _groups(self) -> Iterator[tuple[Path, _CgroupFiles]]:
        try:
            lines = _read(self._cgroup).decode("utf-8", "surrogateescape").splitlines()
        except OSError:  # a kernel without control groups
            return
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            root = self._mount / "memory" if controllers else self._mount
            files = _CGROUP_V1 if controllers else _CGROUP_V2
            group = root / path.lstrip("/")
            # Inside a container the path may be the host's, which is not mounted here: then the root is the container.
            yield from ((folder, files) for folder in (group, *group.parents) if folder.is_relative_to(root))


class PsutilSource:
    """Reads what psutil knows, on any system it supports."""

    def resident_bytes(self) -> int:
        """Return ``memory_info().rss``."""
        import psutil

        return int(psutil.Process().memory_info().rss)

    def io_bytes(self) -> tuple[int, int]:
        """Return ``io_counters()``, which macOS does not have."""
        import psutil

        try:
            counters = psutil.Process().io_counters()
        except (AttributeError, psutil.Error):
            return 0, 0
        return counters.read_bytes, counters.write_bytes

    def machine_memory(self) -> Space:
        """Return ``virtual_memory()``."""
        import psutil

        memory = psutil.virtual_memory()
        return Space(memory.available, memory.total)


def choose_source(proc: Path = _PROC) -> Source:
    """Return the source for this system: ``/proc`` where it is mounted, psutil elsewhere."""
    return ProcSource(proc) if (proc / "self" / "statm").exists() else PsutilSource()


def high_water_bytes(proc: Path = _PROC) -> int:
    """Return the most memory that was ever resident in this process; 0 where the system does not tell.

    Linux is asked for ``VmHWM``: what ``getrusage`` says there survives ``exec``, so that the child of a large process
    would seem to have been as large.
    """
    try:
        status = (proc / "self" / "status").read_text("ascii", "replace")
        return int(status.partition("VmHWM:")[2].split(maxsplit=1)[0]) * _KIB
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * _KIB


def _group_space(folder: Path, files: _CgroupFiles, limit: int) -> Space:
    _, usage_file, reclaimable = files
    # The page cache that the kernel would give back first is not in use; container runtimes count the same way.
    used = int(_read(folder / usage_file)) - _field(_read(folder / "memory.stat"), reclaimable)
    return Space(max(0, limit - used), limit)


def _read(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        return os.read(descriptor, _READ_BYTES)
    finally:
        os.close(descriptor)


def _field(text: bytes, name: bytes) -> int:
    """Return the number after *name* at the start of a line.

    Raises:
        ValueError: If there is no such line.
    """
    return int((b"\n" + text).partition(b"\n" + name)[2].split(None, 1)[0])
