"""Log files as they grow: new lines, new channels, rotation and truncation."""

from __future__ import annotations

import datetime as dt
import os
import time
import zlib
from contextlib import ExitStack
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, BinaryIO, Final

from ml_pipeline.report._log_reader import cannot_be_read, opened_plain
from ml_pipeline.report._log_records import Keys, instant_key
from ml_pipeline.report._log_segments import find_channels

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from ml_pipeline.report._log_query import Query
    from ml_pipeline.report._log_reader import Reader
    from ml_pipeline.report._log_records import Record
    from ml_pipeline.report._log_segments import ChannelFiles

__all__ = ["Follower"]

_POLL_SECONDS: Final = 0.25
_LOOK_EVERY: Final = 4
_RETIRED_SECONDS: Final = 5.0
_MOST_BYTES: Final = 64 << 20
_by_time: Final = itemgetter(0, 1)


def _now() -> bytes:
    """Return the key of a record that is written at this moment."""
    return instant_key(dt.datetime.now(dt.UTC))


@dataclass(slots=True)
class _Growing:
    """One open file, and how far it was read."""

    file: BinaryIO
    keys: Keys
    position: int = 0
    leave_at: float = float("inf")

    def new_lines(self) -> bytes:
        """Return the whole lines that were added; after a truncation those from the start."""
        size = os.fstat(self.file.fileno()).st_size
        if size < self.position:
            self.position = 0
        self.file.seek(self.position)
        found = self.file.read(min(size - self.position, _MOST_BYTES))
        whole = found.rfind(b"\n") + 1
        if whole or len(found) < _MOST_BYTES:
            found = found[:whole]
        self.position += len(found)
        return found

    def is_still(self, path: Path) -> bool:
        """Say whether a path still leads to this file; a path that leads nowhere does for now."""
        try:
            return os.path.samestat(path.stat(), os.fstat(self.file.fileno()))
        except OSError:
            return True


class Follower:
    """Follows the channels of a log directory from where a `Reader` stopped.

    Args:
        reader: Its files are taken over when the first batch is asked for, each at the end of what it read. New
            channels are added to its keys.
        folder: The log directory.
        names: The channels that were asked for; new ones are noticed.
        query: What is wanted.
        warn: Told of each file that cannot be read.
        pause: Waits so many seconds.
        clock: Tells the seconds of a monotonic clock.
    """

    def __init__(
        self,
        reader: Reader,
        folder: Path,
        names: Sequence[str],
        query: Query,
        warn: Callable[[str], None],
        *,
        pause: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reader, self._keys = reader, reader.keys
        self._folder, self._names, self._query, self._warn = folder, names, query, warn
        self._pause, self._clock = pause, clock
        self._paths = [channel.current for channel in reader.channels]
        self._queries = [query.for_channel(channel) for channel in reader.channels]
        self._rotated = [set(channel.rotated) for channel in reader.channels]
        self._current: dict[int, _Growing] = {}
        self._retired: list[tuple[int, _Growing]] = []
        self._refused: set[Path] = set()
        self._held: list[Record] = []

    def batches(self) -> Generator[list[Record], None, None]:
        """Yield what is new, merged by time, each time something is; it ends by an exception of the pause."""
        with ExitStack() as closing:
            closing.callback(self._close)
            self._take_over()
            turn = 0
            while True:
                turn += 1
                if turn % _LOOK_EVERY == 0 and self._folder.is_dir():
                    for channel in find_channels(self._folder, self._names):
                        self._add(channel)
                ready = self._ready(_now(), self._poll())
                if ready:
                    yield ready
                else:
                    self._pause(_POLL_SECONDS)

    def _ready(self, begun: bytes, found: list[Record]) -> list[Record]:
        """Return what is in order; what was written while the files were read one by one waits for the next time.

        A record of a file that was read before it was written could be older, and is still to come.
        """
        until = max([begun, *(record.key for record in self._held)])
        ready = self._held + [record for record in found if record.key <= until]
        self._held = [record for record in found if record.key > until]
        return sorted(ready, key=_by_time)

    def _take_over(self) -> None:
        for number, key in enumerate(self._keys):
            opened = self._reader.opened.get(key)
            if opened is not None:
                file = os.fdopen(os.dup(opened.file.fileno()), "rb", buffering=0)
                self._current[number] = _Growing(file, Keys(), opened.end)

    def _poll(self) -> list[Record]:
        found: list[Record] = []
        for number, path in enumerate(self._paths):
            growing = self._current.get(number)
            if growing is None or not growing.is_still(path):
                self._replace(number, path, growing)
        for number, growing in (*self._retired, *self._current.items()):
            new = growing.new_lines()
            if new:
                found += self._queries[number].select(new, growing.keys, number, self._keys[number])
            elif growing.leave_at <= self._clock():
                growing.file.close()
        self._retired = [each for each in self._retired if not each[1].file.closed]
        return found

    def _replace(self, number: int, path: Path, before: _Growing | None) -> None:
        """Go on with the file that stands there now; a writer may not have noticed yet, so the old one stays open."""
        between = self._rotated_since(number, before) if before is not None or path.exists() else []
        for each in between:
            self._retire(number, self._open(each))
        self._retire(number, before)
        current = self._open(path)
        if current is None:
            self._current.pop(number, None)
        else:
            self._current[number] = current

    def _rotated_since(self, number: int, before: _Growing | None) -> list[Path]:
        """Return files that came and went between two looks, without the one that was looked at."""
        key, known = self._keys[number], self._rotated[number]
        rotated = [channel.rotated for channel in find_channels(self._folder, [key]) if channel.key == key]
        new = [path for path in (rotated[0] if rotated else []) if path not in known]
        known.update(new)
        if before is None or not new:
            return new
        own = next((path for path in new if path.exists() and before.is_still(path)), new[0])
        return [path for path in new if path != own]

    def _retire(self, number: int, growing: _Growing | None) -> None:
        if growing is not None:
            growing.leave_at = self._clock() + _RETIRED_SECONDS
            self._retired.append((number, growing))

    def _open(self, path: Path) -> _Growing | None:
        try:
            return _Growing(opened_plain(path), Keys())
        except FileNotFoundError:
            return None
        except (OSError, EOFError, zlib.error) as error:
            if path not in self._refused:
                self._refused.add(path)
                self._warn(cannot_be_read(path, error))
            return None

    def _add(self, channel: ChannelFiles) -> None:
        if channel.key not in self._keys:
            self._keys.append(channel.key)
            self._paths.append(channel.current)
            self._rotated.append(set())  # it was not there when following began: all of it is new
            self._queries.append(self._query.for_channel(channel))

    def _close(self) -> None:
        for _, growing in (*self._retired, *self._current.items()):
            growing.file.close()
