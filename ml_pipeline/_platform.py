"""What differs between operating systems, in one place, each with a fallback.

Nothing here is imported at module level that one system lacks: a machine without ``fcntl`` or ``/proc`` runs the same
pipeline with a little less certainty, and this page says how much less.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["after_fork_in_child", "lock_exclusive", "process_start", "replace_durably", "unlock"]

_PROC = Path("/proc")
_STATE_FIELD = 0  # of the fields after the command in /proc/<pid>/stat; proc(5) counts it as the 3rd
_START_TIME_FIELD = 19
_DEAD = frozenset("ZXx")  # a zombie has ended, though its parent has not asked how


def process_start(pid: int, *, proc: Path = _PROC) -> str | None:
    """Name the moment a process started, so that its pid can be told from the same pid used again.

    Args:
        pid: The process.
        proc: The process file system; a test gives its own.

    Returns:
        A text that is the same for as long as that process lives, or None if there is none. On Linux it is the start
        time in clock ticks since boot, which no change of the clock moves; elsewhere psutil's creation time.
    """
    try:
        stat = (proc / str(pid) / "stat").read_text("ascii", "replace")
    except FileNotFoundError:
        if (proc / "self" / "stat").exists():
            return None
    except (OSError, ValueError):
        pass
    else:
        fields = stat.rpartition(")")[2].split()
        if len(fields) > _START_TIME_FIELD:
            return None if fields[_STATE_FIELD] in _DEAD else fields[_START_TIME_FIELD]
    return _process_start_by_psutil(pid)


def _process_start_by_psutil(pid: int) -> str | None:
    import psutil

    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else f"{process.create_time():.2f}"
    except (psutil.Error, ValueError, OverflowError):  # gone, hidden, or no number a process can have
        return None


def lock_exclusive(descriptor: int) -> None:
    """Wait for the exclusive advisory lock of an open file; without ``fcntl`` a byte-range lock of Windows.

    Args:
        descriptor: An open, writable file.

    Raises:
        OSError: If the file system refuses locks.
    """
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_LOCK, 1)
        return
    try:
        import fcntl
    except ImportError:  # no POSIX locks: one process a file is then the user's promise
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)


def unlock(descriptor: int) -> None:
    """Give up the lock that `lock_exclusive` took."""
    if sys.platform == "win32":
        import msvcrt

        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_UNLCK, 1)
        return
    try:
        import fcntl
    except ImportError:
        return
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def replace_durably(path: Path, content: bytes) -> None:
    """Replace a file whole: a reader, or the next start after a crash, sees the old content or the new, never half.

    Args:
        path: The file; its folder is made if it is missing.
        content: All of its new bytes. Of several threads that replace it at once, one wins.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the old file is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def after_fork_in_child(action: Callable[[], None]) -> None:
    """Have *action* run in every child that is forked from now on; nothing where there is no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)
