"""What differs between operating systems, in one place, each with a fallback.

Nothing here is imported at module level that one system lacks: a machine without ``fcntl`` or ``/proc`` runs the same
pipeline with a little less certainty, and this page says how much less.
"""

from __future__ import annotations

import contextlib
import itertools
import logging  # noqa: F401 - a fork takes its lock after those of `ForkBarrier`: an import under way may need it
import os
import stat
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "ANEW",
    "GROUP_READS_FILE",
    "ForkBarrier",
    "after_fork_in_child",
    "before_fork",
    "boot_id",
    "importing",
    "is_worker",
    "lock_exclusive",
    "make_group_folder",
    "open_file",
    "open_for_group",
    "overwrite",
    "process_start",
    "rename_hindrance",
    "replace_durably",
    "replace_whole",
    "try_lock",
    "unlock",
    "write_stderr",
]

GROUP_READS_FILE: Final = 0o640
"""The mode of a file that its group may read, and nobody else."""

ANEW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0)
"""Flags of a file that is written from its beginning."""

_GROUP_READS_FOLDER = 0o750
_ANYONE = 0o666  # less the umask
_LAST_STREAM = 2
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


def boot_id(*, proc: Path = _PROC) -> str | None:
    """Name the present start of the machine; None where the system has no name for it.

    Args:
        proc: The process file system; a test gives its own.

    Returns:
        The id that Linux draws at each start, the same for every container of the machine.
    """
    try:
        return (proc / "sys" / "kernel" / "random" / "boot_id").read_text("ascii").strip() or None
    except (OSError, ValueError):
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


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the advisory lock of an open file if that needs no waiting; only where `rename_hindrance` finds none.

    The lock belongs to the open file, not to the process: a forked child that inherits the file holds it too, and the
    kernel gives it back when the last of them has closed it, however they end.

    Args:
        descriptor: An open file.
        shared: Beside other shared ones, instead of alone.

    Returns:
        Whether it was taken.

    Raises:
        OSError: If the file system refuses locks.
    """
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def rename_hindrance() -> str | None:
    """Say why a file that other processes write to cannot be renamed safely; None where it can."""
    if sys.platform == "win32":
        return "Windows renames no file that is open"
    try:
        import fcntl  # noqa: F401
    except ImportError:
        return "this system has no file locks"
    return None


def unlock(descriptor: int) -> None:
    """Give up the lock that `lock_exclusive` or `try_lock` took."""
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


def replace_whole(path: Path, content: bytes) -> None:
    """Replace a file whole for who reads it; after a crash of the machine it may be empty or cut off.

    Args:
        path: The file; its folder is made if it is missing.
        content: All of its new bytes. Of several threads that replace it at once, one wins.

    Raises:
        OSError: If the disk is full or the folder cannot be written; the old file is then untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as partial, os.fdopen(open_file(partial, ANEW), "wb") as file:
        file.write(content)


def replace_durably(path: Path, content: bytes, *, for_group: bool = False) -> None:
    """Replace a file whole: a reader, or the next start after a crash, sees the old content or the new, never half.

    Args:
        path: As `replace_whole` takes it.
        content: As `replace_whole` takes it.
        for_group: Whether its group can read it, and nobody else, whatever the umask; also what is made of its folder.

    Raises:
        OSError: As `replace_whole` does.
    """
    if for_group:
        make_group_folder(path.parent)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
    opened = open_for_group if for_group else open_file
    with _replacing(path) as partial, os.fdopen(opened(partial, ANEW), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Yield where to write what is to take the place of a file; nothing of it is left if that fails."""
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.partial")
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def make_group_folder(path: Path) -> None:
    """Make a folder for its owner and group alone, whatever the umask; one that is there stays as it is.

    Args:
        path: The folder. Those around it that are missing are made too, and its group can pass through them.

    Raises:
        OSError: If it cannot be made, or something else lies there.
    """
    if path.is_dir():
        return
    around = itertools.takewhile(lambda parent: not parent.exists(), path.parents)
    for folder in reversed([path, *around]):
        folder.mkdir(exist_ok=True)
        mode = stat.S_IMODE(folder.stat().st_mode)
        with contextlib.suppress(OSError):  # another user's, made a moment ago, or a file system without modes
            # The bit that gives the folder's group to what is made in it comes from around it; chmod would clear it.
            folder.chmod(_GROUP_READS_FOLDER | (mode & stat.S_ISGID if folder == path else mode))


def open_for_group(path: Path, flags: int) -> int:
    """Open a file, made if it is missing; one that is made here can be read by its group, whatever the umask.

    Args:
        path: The file.
        flags: As `os.open` takes them.

    Returns:
        Its descriptor.

    Raises:
        OSError: If it cannot be opened.
    """
    with contextlib.suppress(FileNotFoundError):
        return open_file(path, flags & ~os.O_CREAT)
    flags |= os.O_CREAT
    try:
        descriptor = open_file(path, flags | os.O_EXCL, GROUP_READS_FILE)
    except FileExistsError:  # another was quicker, or a link leads to where nothing is
        return open_file(path, flags, GROUP_READS_FILE)
    if hasattr(os, "fchmod"):
        with contextlib.suppress(OSError):  # a file system without modes
            os.fchmod(descriptor, GROUP_READS_FILE)
    return descriptor


def open_file(path: Path, flags: int, mode: int = _ANYONE) -> int:
    """Open a file, never under the number of a standard stream.

    Where a stream is closed, as of some daemons, its number is the first that is free: whatever a native library says
    on stderr would go into the file, and make an audit trail one that was tampered with.

    Args:
        path: The file.
        flags: As `os.open` takes them.
        mode: Of a file that is made, less the umask.

    Returns:
        Its descriptor, 3 or more.

    Raises:
        OSError: If it cannot be opened.
    """
    descriptor = os.open(path, flags, mode)
    streams = []
    try:
        while descriptor <= _LAST_STREAM:
            streams.append(descriptor)
            descriptor = os.dup(descriptor)
    finally:
        for stream in streams:
            os.close(stream)
    return descriptor


def overwrite(descriptor: int, content: bytes, at: int) -> None:
    """Write into the middle of a file that is open for appending; only where there is a `boot_id`.

    Args:
        descriptor: The open file, which nobody else writes to meanwhile.
        content: What to write.
        at: Where.

    Raises:
        OSError: If it cannot be written; some of it may have been.
    """
    import fcntl

    flags = fcntl.fcntl(descriptor, fcntl.F_GETFL)
    fcntl.fcntl(descriptor, fcntl.F_SETFL, flags & ~os.O_APPEND)  # or the kernel appends, wherever one means to write
    try:
        while content:
            written = os.pwrite(descriptor, content, at)
            content, at = content[written:], at + written
    finally:
        fcntl.fcntl(descriptor, fcntl.F_SETFL, flags)


def before_fork(action: Callable[[], None]) -> None:
    """Have *action* run before every fork from now on; nothing where there is no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=action)


def after_fork_in_child(action: Callable[[], None]) -> None:
    """Have *action* run in every child that is forked from now on; nothing where there is no fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=action)


class ForkBarrier:
    """A lock that no fork comes between: a fork waits until nobody holds it, and the child finds it free.

    Thread-safe; whoever holds it may take it again, and may fork.

    Args:
        longest: How many seconds a fork waits at most: one that comes late is better than one that never comes.
    """

    def __init__(self, longest: float = 10.0) -> None:
        self._longest = longest
        self._lock = threading.RLock()
        self._is_taken = False
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._take, after_in_parent=self._give_back, after_in_child=self._renew)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def _take(self) -> None:
        self._is_taken = self._lock.acquire(timeout=self._longest)

    def _give_back(self) -> None:
        if self._is_taken:
            self._lock.release()

    def _renew(self) -> None:
        if self._is_taken:
            self._lock.release()
        else:  # its holder stayed with the parent
            self._lock = threading.RLock()


importing: Final = ForkBarrier()
"""Held around the import of a module of ours at its first use.

A child that was forked while another thread imported a module could never import it: the lock of that module stays
taken for ever, and its first log call would wait for it.
"""


def is_worker() -> bool:
    """Say whether `multiprocessing` or joblib started this process: it skips ``atexit``, and may be ended any time."""
    processes = sys.modules.get("multiprocessing.process")
    return processes is not None and processes.parent_process() is not None


def write_stderr(text: str) -> None:
    """Write to stderr, with escapes for what its encoding lacks.

    Raises:
        Exception: If there is none, or a broken one.
    """
    try:
        sys.stderr.write(text)
    except UnicodeEncodeError:
        sys.stderr.write(text.encode("ascii", "backslashreplace").decode("ascii"))
