"""Several channels of the log as one stream of records, merged by time, or the last records of it.

Of a file only what can lie between the times is read: the place to begin is found by bisection. Lines in a file are in
the order of their time but for moments between threads and for clocks that were set back; two hours of that are
allowed for, an end of daylight saving time included.
"""

from __future__ import annotations

import datetime as dt
import gzip
import heapq
import os
import shutil
import tempfile
import zlib
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, Final, Self

from ml_pipeline.report._log_records import BLOCK_BYTES, Keys, blocks, first_start, instant_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    from ml_pipeline.report._log_query import Query
    from ml_pipeline.report._log_records import Record
    from ml_pipeline.report._log_segments import ChannelFiles

__all__ = ["OpenFile", "Reader", "cannot_be_read", "opened_plain"]

_CLOCK_SET_BACK: Final = dt.timedelta(hours=2)
_PROBE_BYTES: Final = 64 << 10
_FIRST_WINDOW_BYTES: Final = 256 << 10
_MOST_LOOKS: Final = 20


@dataclass(slots=True)
class OpenFile:
    """A file that was opened, and where the records end that belong to one reading.

    Attributes:
        file: Unbuffered.
        end: What lies behind it is not read.
    """

    file: BinaryIO
    end: int

    @classmethod
    def of(cls, path: Path, *, whole_lines: bool = False) -> OpenFile:
        """Open a file and take its end of this moment, or the end of its last whole line."""
        file: BinaryIO = path.open("rb", buffering=0)
        end = file.seek(0, os.SEEK_END)
        return cls(file, _after_last_line(file, end) if whole_lines else end)

    def read_from(self, begin: int) -> Callable[[int], bytes]:
        """Return what reads on from a position, as far as the end."""
        self.file.seek(begin)
        return lambda size: self.file.read(max(0, min(size, self.end - self.file.tell())))

    def next_record(self, position: int) -> tuple[int, bytes]:
        """Return where the first record begins behind a position, and its key; an empty key where none was found."""
        self.file.seek(position)
        chunk = self.file.read(min(_PROBE_BYTES, self.end - position))
        at = first_start(chunk)
        return position + at, Keys().of(chunk[at:].partition(b"\n")[0])

    def is_at(self, path: Path) -> bool:
        """Say whether a path leads to this file."""
        try:
            return os.path.samestat(path.stat(), os.fstat(self.file.fileno()))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class Reader:
    """Reads channels; the current files are those of the moment it was made, so that a rotation changes nothing.

    ``channels`` are their files, ``keys`` their names by the number that a record has, ``opened`` the current files.

    Args:
        find: Lists their files, as they are at the moment.
        query: What is wanted.
        warn: Told of each file that cannot be read, in one line.
        whole_lines: Whether a last line without an end is left for later, as following does.
    """

    def __init__(
        self,
        find: Callable[[], Sequence[ChannelFiles]],
        query: Query,
        warn: Callable[[str], None],
        *,
        whole_lines: bool = False,
    ) -> None:
        self.opened: dict[str, OpenFile] = {}
        self._query = query
        self._warn = warn
        self._whole_lines = whole_lines
        self._earliest = _moved(query.since, -_CLOCK_SET_BACK)
        self._latest = _moved(query.until, _CLOCK_SET_BACK)
        self._closing = ExitStack()
        with self._closing as failing:
            self.channels = self._settled(find)
            self._closing = failing.pop_all()
        self.keys = [channel.key for channel in self.channels]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.close()

    def records(self) -> Iterator[Record]:
        """Yield every record that is wanted, merged by time; each file's keep their order."""
        return heapq.merge(*(self._records_of(number) for number in range(len(self.channels))))

    def last(self, count: int) -> list[Record]:
        """Return the last records that are wanted, reading the files from their ends."""
        if not count:
            return []
        each = (self._last_of(number, count) for number in range(len(self.channels)))
        return list(heapq.merge(*each))[-count:]

    def _settled(self, find: Callable[[], Sequence[ChannelFiles]]) -> list[ChannelFiles]:
        """Open the current files, then list the rotated ones, until no file was rotated between the two.

        A list from before would lack a file that was rotated away before it was opened; and a file that is still the
        current one after the list was made is newer than all in the list.
        """
        found = {channel.key: channel for channel in find()}
        unsettled = list(found.values())
        for _ in range(_MOST_LOOKS):
            self._open(unsettled)
            listed = {channel.key: channel for channel in find()}
            unsettled = [
                channel
                for key, channel in listed.items()
                if key not in found or (key in self.opened and not self.opened[key].is_at(channel.current))
            ]
            found |= listed
            if not unsettled:
                break
        return [found[key] for key in sorted(found)]

    def _open(self, channels: Sequence[ChannelFiles]) -> None:
        for channel in channels:
            before = self.opened.pop(channel.key, None)
            if before is not None:
                before.close()
            try:
                opened = OpenFile.of(channel.current, whole_lines=self._whole_lines)
            except FileNotFoundError:
                continue
            except OSError as error:
                self._cannot(channel.current, error)
            else:
                self.opened[channel.key] = opened
                self._closing.callback(opened.close)

    def _records_of(self, number: int) -> Iterator[Record]:
        channel = self.channels[number]
        keys = Keys()
        for path in self._rotated(channel):
            yield from self._guarded(path, number, partial(self._rotated_blocks, path), keys)
        current = self.opened.get(channel.key)
        if current is not None:
            yield from self._guarded(channel.current, number, partial(self._plain_blocks, current), keys)

    def _guarded(self, path: Path, number: int, read: Callable[[], Iterator[bytes]], keys: Keys) -> Iterator[Record]:
        key, query = self.keys[number], self._query.for_channel(self.channels[number])
        try:
            for block in read():
                if self._latest and Keys().of(block[:_PROBE_BYTES].partition(b"\n")[0]) > self._latest:
                    return
                yield from query.select(block, keys, number, key)
        except (OSError, EOFError, zlib.error) as error:
            self._cannot(path, error)

    def _rotated(self, channel: ChannelFiles) -> list[Path]:
        """Return the rotated files that may hold what is wanted, oldest first, without the one that is open."""
        current = self.opened.get(channel.key)
        found = []
        for path in channel.rotated:
            state = _state(path)
            if state is None or (current is not None and os.path.samestat(state, os.fstat(current.file.fileno()))):
                continue
            written = instant_key(dt.datetime.fromtimestamp(state.st_mtime, dt.UTC))
            if written >= self._earliest:
                found.append(path)
        return found

    def _rotated_blocks(self, path: Path) -> Iterator[bytes]:
        try:
            opened = OpenFile.of(path)
        except FileNotFoundError:  # compressed, perhaps since the directory was read
            try:
                with gzip.open(_packed(path)) as file:
                    yield from blocks(file.read)
            except FileNotFoundError:  # its retention ended meanwhile
                return
        else:
            try:
                yield from self._plain_blocks(opened)
            finally:
                opened.close()

    def _plain_blocks(self, opened: OpenFile) -> Iterator[bytes]:
        yield from blocks(opened.read_from(self._begin(opened)))

    def _begin(self, opened: OpenFile) -> int:
        low, high = 0, opened.end if self._earliest else 0
        while high - low > BLOCK_BYTES:
            middle = (low + high) // 2
            start, key = opened.next_record(middle)
            if key and key < self._earliest:
                low = start
            else:
                high = middle
        return low

    def _last_of(self, number: int, count: int) -> list[Record]:
        channel = self.channels[number]
        current = self.opened.get(channel.key)
        found: list[Record] = []
        if current is not None:
            found = self._last_in(channel.current, number, current, count)
        for path in reversed(self._rotated(channel)):
            if len(found) >= count:
                break
            found = self._last_rotated(path, number, count - len(found)) + found
        return found

    def _last_rotated(self, path: Path, number: int, count: int) -> list[Record]:
        try:
            opened = OpenFile.of(path)
        except OSError:
            records = self._guarded(path, number, partial(self._rotated_blocks, path), Keys())
            return list(deque(records, count))
        try:
            return self._last_in(path, number, opened, count)
        finally:
            opened.close()

    def _last_in(self, path: Path, number: int, opened: OpenFile, count: int) -> list[Record]:
        """Read windows of growing size before the end of a file until enough is found."""
        floor, size = self._begin(opened), _FIRST_WINDOW_BYTES
        while True:
            begin = opened.end - size
            begin = floor if begin <= floor else opened.next_record(begin)[0]
            read = opened.read_from(begin)
            found = deque(self._guarded(path, number, partial(blocks, read), Keys()), count)
            if len(found) >= count or begin <= floor:
                return list(found)
            size *= 4

    def _cannot(self, path: Path, error: Exception) -> None:
        self._warn(cannot_be_read(path, error))


def opened_plain(path: Path) -> BinaryIO:
    """Open a file, or a copy of what was compressed away under its name."""
    try:
        return path.open("rb", buffering=0)
    except FileNotFoundError:
        with gzip.open(_packed(path)) as packed, ExitStack() as failing:
            copy: BinaryIO = failing.enter_context(tempfile.TemporaryFile(buffering=0))
            shutil.copyfileobj(packed, copy, BLOCK_BYTES)
            failing.pop_all()
        return copy


def cannot_be_read(path: Path, error: Exception) -> str:
    """Say that a file, or what was compressed away under its name, cannot be read, and why."""
    named = path if path.exists() or not _packed(path).exists() else _packed(path)
    return f"{named}: cannot be read: {getattr(error, 'strerror', None) or error}"


def _after_last_line(file: BinaryIO, end: int) -> int:
    while end:
        begin = max(end - _PROBE_BYTES, 0)
        file.seek(begin)
        at = file.read(end - begin).rfind(b"\n")
        if at >= 0:
            return begin + at + 1
        end = begin
    return 0


def _packed(path: Path) -> Path:
    return path.with_name(path.name + ".gz")


def _state(path: Path) -> os.stat_result | None:
    for each in (path, _packed(path)):
        try:
            return each.stat()
        except OSError:
            continue
    return None


def _moved(key: bytes, by: dt.timedelta) -> bytes:
    if not key:
        return b""
    try:
        return instant_key(dt.datetime.fromisoformat(key.decode()) + by)
    except OverflowError:
        return key
