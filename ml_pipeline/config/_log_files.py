"""Files that are appended to one whole line at a time, handed to the kernel before the call returns.

At most once a second, on the way of a write, a file is looked at: whether it still lies at its path, and whether it is
due to be set aside. Between two looks the short way appends to it without a lock or a clock. Such an append is not
timed, see `_log_slow`; as there is a look at least as often as a write may take, the one after a slow one is timed.
"""

from __future__ import annotations

import contextlib
import os
import stat
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Final

from ml_pipeline import _platform, _runtime
from ml_pipeline.config._log_handle import Handle, LineFile, ends_torn
from ml_pipeline.config._log_retention import Keeper, Retention, channel_files
from ml_pipeline.config._log_rotation import Rotation, is_in_place
from ml_pipeline.config._log_slow import Stall, run_within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ml_pipeline.settings import Settings

__all__ = ["AppendFile", "AppendFiles"]

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0)
_LOOK_SECONDS: Final = 1.0
_NOW: Final = float("-inf")
_UNBOUNDED: Final = 1 << 62
_MOST_BYTES_A_SECOND: Final = 1 << 30
"""Nobody appends more by the handle: from the room that is left follows when a file has to be looked at."""
_SPARE_BYTES: Final = _MOST_BYTES_A_SECOND // 1_000
"""Where a file has less room, its bytes are counted: the time is told once in a millisecond."""
_MOST_TRIES: Final = 100  # some file systems name a file by another number each time it is asked for
_IDLE, _WRITING, _CLOSING = range(3)


class AppendFile(LineFile):
    """One file, opened at the first write; threads and processes may share it, because every write is one append.

    A file that was removed, or that another took the place of, is noticed within a second; what was written to it until
    then is where it went.

    Args:
        path: The file; its folder is made at the first write.
        rotation: Sets the file aside when it is full or its day is over; None: nobody does.
        on_look: Called at each look.
        monotonic: Seconds that only go forward.
        slow_seconds: How long a write may take; 0: as long as it does.

    Attributes:
        path: The file.
        stall: What becomes of lines while the file is slow.
        taken: How many bytes the kernel took of the last line that `write` handed to it; empty if it has not come
            to that since someone cleared it. It tells even where a signal handler has raised in the middle.
    """

    __slots__ = (
        "_day",
        "_descriptor",
        "_full_at",
        "_handle",
        "_lock",
        "_look_at",
        "_monotonic",
        "_on_look",
        "_room",
        "_rotation",
        "_state",
        "_torn",
        "path",
        "stall",
        "taken",
    )

    def __init__(
        self,
        path: Path,
        rotation: Rotation | None = None,
        *,
        on_look: Callable[[], object] | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        slow_seconds: float = 0.0,
    ) -> None:
        super().__init__()
        self.path = path
        self.stall = Stall(path, slow_seconds, self._write_alone)
        self.taken: deque[int] = deque(maxlen=1)
        self._rotation = rotation
        self._on_look = on_look
        self._monotonic = monotonic
        self._lock = threading.RLock()  # a signal handler may log while this thread is inside a write
        self._state = _IDLE
        self._descriptor = -1
        self._handle: Handle | None = None
        self._torn = False
        self._full_at: float = _UNBOUNDED
        self._room: float = _UNBOUNDED  # less what was appended by the handle
        self._look_at = _NOW
        self._day = 0

    def tick(self, now: float) -> None:
        """Take the handle back until the file has been looked at, if that is due by ``time.monotonic``."""
        if now >= self._look_at:
            self.handle = None

    def finish(self, rest: bytes) -> None:
        """Write what a disk that is filling has not taken of a line; the file is looked at before the next one."""
        self.handle, self._look_at = None, _NOW
        if rest:
            with self._lock:
                self._complete(rest)

    def write(self, line: bytes) -> None:
        """Append one line.

        Args:
            line: Its bytes, with the line end.

        Raises:
            OSError: If it could not be written whole; the next line then starts on a line of its own.
            SlowWrite: If the file is slow, and too much waits for it already.
        """
        stall = self.stall
        while not (stall.is_on and stall.takes(line)):
            if run_within(self._lock, stall.patience, self._write, line):
                return
            stall.begin()

    def close(self) -> None:
        """Close the file; a later write opens it again. One that is slow is left to the write that waits for it."""
        self.stall.close()
        run_within(self._lock, self.stall.patience, self._close)

    def _close(self) -> None:
        if self._state:  # a signal handler inside the write below, which still needs it
            self._state = _CLOSING
        else:
            self._shut()

    def _write_alone(self, line: bytes) -> None:
        with self._lock:
            self._write(line)

    def _write(self, line: bytes) -> None:
        if self._state:
            self._write_apart(line)
            return
        begun = self._monotonic()
        try:
            self._state = _WRITING
            self.handle = None  # if this one takes long, no other thread is to follow it
            is_due = self._room <= 0 or begun >= self._look_at
            handle = (None if is_due else self._handle) or self._look()
            if self._torn:
                line = b"\n" + line
            # Written and told in one step of the interpreter: a signal handler raises before or after, not between.
            self.taken.extend(map(os.write, (handle.number,), (line,)))
            written = self.taken[-1]
            self._room -= written
            if self._torn or written != len(line):
                self._complete(line[written:])
        except OSError:
            self._look_at = _NOW  # the next write looks what has become of the file
            raise
        finally:
            if self._state == _CLOSING:
                self._shut()
            self._state = _IDLE
            seconds = self._monotonic() - begun
            if seconds > self.stall.seconds or self.stall.is_on:
                self.stall.judge(seconds)
        if self._room > _SPARE_BYTES and handle is self._handle and handle.is_regular and not self.stall.is_on:
            self.handle = handle

    def let_go(self) -> None:
        """Close the file if it no longer lies at its path, so that nobody waits for the next write to do so."""
        with self._lock:
            if not self._state and self._descriptor >= 0:
                self._held()

    def _complete(self, rest: bytes) -> None:
        """Write what a disk that is filling has not taken of a line; the next attempt says so, or succeeds."""
        while rest:
            self._torn = True
            rest = rest[os.write(self._descriptor, rest) :]
        self._torn = False

    def _write_apart(self, line: bytes) -> None:
        """Append a line from within a write of the same thread, which a signal or a ``__del__`` has interrupted."""
        descriptor, _, torn = self._opened()
        try:
            rest = b"\n" + line if torn or self._torn else line
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        finally:
            os.close(descriptor)

    def _look(self) -> Handle:
        """Return the open file, which is the one at the path, and not due to be set aside."""
        handle, held = self._held() or self._open()
        is_file = handle.is_regular
        if is_file and held.st_size != self._full_at - self._room:  # others wrote to it, or have cut it
            self._torn = bool(ends_torn(self.path, held, unseen=self._torn))
        rotation = self._rotation
        left_today: float = _UNBOUNDED
        if rotation is not None and is_file:
            left_today = rotation.seconds_left_today()
            if not held.st_size:  # new, or cut to nothing by someone
                self._day, self._torn = rotation.today(), False
            elif rotation.is_due(held.st_size, self._day) and self._rotated(rotation, held):
                self._shut()
                handle, held = self._open()
            self._room = rotation.room(held.st_size)
        self._full_at = held.st_size + self._room
        spared = self._room - _SPARE_BYTES
        filled = spared / _MOST_BYTES_A_SECOND if spared > 0 else _UNBOUNDED
        self._look_at = self._monotonic() + min(_LOOK_SECONDS, left_today, self.stall.seconds, filled)
        if self._on_look is not None:
            self._on_look()
        return handle

    def _rotated(self, rotation: Rotation, held: os.stat_result) -> bool:
        with _runtime.guard("log_rotation"):  # a file that cannot be set aside is written on
            return rotation.rotate(self.path, held, self._day)
        return False

    def _held(self) -> tuple[Handle, os.stat_result] | None:
        """What is open, and its state, if it lies at the path; if not, it is closed."""
        handle = self._handle
        if handle is None:
            return None
        held = handle.status()
        try:
            if held is not None and is_in_place(self.path, held):
                return handle, held
        except PermissionError:  # the folder lets nobody look: what is open is as good as it gets
            if held is not None:
                return handle, held
        except OSError:  # the file system is gone
            pass
        self._shut()
        return None

    def _shut(self) -> None:
        self._handle = self.handle = None  # which closes it, now or when the write of another thread has ended
        self._descriptor, self._look_at = -1, _NOW

    def _open(self) -> tuple[Handle, os.stat_result]:
        self._descriptor, held, self._torn = self._opened()
        self._handle = handle = Handle(self._descriptor, held)
        self._room, self._full_at = _UNBOUNDED, _UNBOUNDED + held.st_size
        if self._rotation is not None:
            self._day = self._rotation.day_of_file(held)
        return handle, held

    def _opened(self) -> tuple[int, os.stat_result, bool]:
        """Open the file that lies at the path; also what it is, and whether its last line has no end."""
        if self._rotation is not None:
            _platform.make_group_folder(self._rotation.folder)
        _platform.make_group_folder(self.path.parent)
        for is_last in [False] * _MOST_TRIES + [True]:
            descriptor = _platform.open_for_group(self.path, _FLAGS)
            torn = None
            try:
                held = os.fstat(descriptor)
                torn = self._settled(descriptor, held)
                if torn is None and is_last:
                    torn = False
            finally:
                if torn is None:
                    os.close(descriptor)
            if torn is not None:
                return descriptor, held, torn
        raise AssertionError  # pragma: no cover - the last try returns

    def _settled(self, descriptor: int, held: os.stat_result) -> bool | None:
        """Say whether the last line has no end; None if another process has set the file aside meanwhile."""
        if not stat.S_ISREG(held.st_mode):  # a pipe or terminal, such as a link to /dev/stdout, has no end to look at
            return False
        if self._rotation is not None:
            if _platform.rename_hindrance() is None:
                with contextlib.suppress(OSError):  # no locks on this file system: then the time it rests must do
                    _platform.try_lock(descriptor, shared=True)  # keeps others from compressing it
            if not is_in_place(self.path, held):
                return None
        return ends_torn(self.path, held) if held.st_size else False


class AppendFiles:
    """The open files below one folder, by relative path.

    Args:
        folder: Where they lie.
        rotation: Sets them aside when they are full or their day is over; None: nobody does.
        retention: How long what was set aside is kept; None: nobody touches it.
        on_look: Called when one of them is looked at.
        slow_seconds: See `AppendFile`.
    """

    def __init__(
        self,
        folder: Path,
        rotation: Rotation | None = None,
        retention: Retention | None = None,
        on_look: Callable[[], object] | None = None,
        *,
        slow_seconds: float = 0.0,
    ) -> None:
        self.folder = folder
        self.slow_seconds = slow_seconds
        self._on_look = on_look
        self._files: dict[str, AppendFile] = {}
        self._rotation = rotation
        self._keeper = None
        if rotation is not None and retention is not None:
            self._keeper = Keeper(lambda: channel_files(folder), retention, before=self._settle)
            rotation.on_rotated = self._keeper.wake

    @classmethod
    def of(cls, settings: Settings, on_look: Callable[[], object] | None = None) -> AppendFiles:
        """Make the log files that the settings ask for; *on_look* is called when one of them is looked at."""
        rotation = Rotation(settings.log_dir, max_bytes=settings.log_max_bytes)
        retention = Retention(settings.log_retention_days, settings.log_total_bytes)
        return cls(settings.log_dir, rotation, retention, on_look, slow_seconds=settings.log_slow_seconds)

    def __getitem__(self, relative: str) -> AppendFile:
        file = self._files.get(relative)
        if file is not None:
            return file
        file = AppendFile(self.folder / relative, self._rotation, on_look=self._on_look, slow_seconds=self.slow_seconds)
        return self._files.setdefault(relative, file)

    def close(self) -> None:
        """Close every file, and leave those that were set aside to whoever comes next."""
        if self._keeper is not None:
            self._keeper.close()
        for file in list(self._files.values()):
            file.close()

    def _settle(self) -> None:
        """Set aside what nobody writes to any more, and let go of what others have set aside."""
        for path in channel_files(self.folder):
            self._rotate_idle(path)
        for file in list(self._files.values()):
            file.let_go()

    def _rotate_idle(self, path: Path) -> None:
        with _runtime.guard("log_rotation"), contextlib.suppress(FileNotFoundError):
            held = path.stat()
            if self._rotation is not None and stat.S_ISREG(held.st_mode):
                day = self._rotation.day_of_file(held)
                if self._rotation.is_due(held.st_size, day):
                    self._rotation.rotate(path, held, day)
