"""Log files as records, in big steps: blocks of whole records, of which only those that may be wanted are looked at.

A record is a JSON line, or a line of the text format with the lines that follow it. A line without a timestamp belongs
to the record before it. A record's key is its time as RFC 3339 in UTC with six digits, as bytes: it sorts by time, and
in a JSON line of this package it stands at a fixed place, so that it costs one slice.
"""

from __future__ import annotations

import datetime as dt
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "BLOCK_BYTES",
    "JSON_LEVEL",
    "NOT_JSON_FIELDS",
    "TEXT_LEVEL",
    "Keys",
    "Record",
    "blocks",
    "candidates",
    "fields_of",
    "first_start",
    "instant_key",
    "json_fields",
    "records_in",
]

BLOCK_BYTES: Final = 64 << 10
"""How much is read at a time; larger buffers go back to the kernel each time, and cost twice as much."""

_MOST_BYTES: Final = 64 << 20
_STAMP: Final = b'{"timestamp":"'
_KEY: Final = slice(len(_STAMP), len(_STAMP) + len("2026-01-15T09:30:25.123456Z"))
_AFTER_KEY: Final = slice(_KEY.stop - 1, _KEY.stop + 1)
_TEXT_STAMP: Final = len("2026-01-15 09:30:25,123")
_MINUTE: Final = len("2026-01-15 09:30")
JSON_LEVEL: Final = _KEY.stop
"""Where the level stands in a JSON line of this package, from the quote before it on."""
TEXT_LEVEL: Final = _TEXT_STAMP
"""Likewise in a line of the text format, from the dash before it on."""
NOT_JSON_FIELDS: Final = 3
"""What begins like a JSON line and is none has at most so many fields."""
_START: Final = re.compile(rb'\{"|\d{4}-\d\d-\d\d[ T]\d\d:')
_LINE_START: Final = re.compile(rb'\n(?=\{"|\d{4}-\d\d-\d\d[ T]\d\d:)')
_TEXT: Final = re.compile(r"(.{23}) - (.+?) - (.+?) - (.*)")
_MOST_MINUTES: Final = 1_000


class Record(NamedTuple):
    """One record; records compare by time, then by the number of their channel.

    Attributes:
        key: Its time; empty where nothing before it has one either.
        number: Which of the channels read it belongs to.
        raw: Its bytes without the line end.
        fields: What it says, where that was looked at already.
    """

    key: bytes
    number: int
    raw: bytes
    fields: dict[str, Any] | None = None


def instant_key(instant: dt.datetime) -> bytes:
    """Return the key of an instant that knows its time zone."""
    utc = instant.astimezone(dt.UTC).isoformat(timespec="microseconds")
    return utc.replace("+00:00", "Z").encode()


class Keys:
    """Finds the key of each record of one file, read in order.

    Args:
        before: The key of records before the first that has one.
    """

    def __init__(self, before: bytes = b"") -> None:
        self._last = before
        self._minutes: dict[bytes, tuple[bytes, bytes]] = {}

    def of(self, raw: bytes) -> bytes:
        """Return the key of a record; one without a timestamp has that of the record before it."""
        if raw.startswith(_STAMP) and raw[_AFTER_KEY] == b'Z"':
            self._last = raw[_KEY]
        else:
            self._last = (self._foreign(raw) if raw[:1] == b"{" else self._local(raw)) or self._last
        return self._last

    def _foreign(self, raw: bytes) -> bytes:
        """Read the timestamp of a JSON line that somebody else wrote; one without an offset is taken for UTC."""
        stamp = (json_fields(raw) or {}).get("timestamp")
        if not isinstance(stamp, str):
            return b""
        try:
            instant = dt.datetime.fromisoformat(stamp)
            return instant_key(instant if instant.tzinfo else instant.replace(tzinfo=dt.UTC))
        except (ValueError, OverflowError):
            return b""

    def _local(self, raw: bytes) -> bytes:
        """Read a timestamp in local time, ``2026-01-15 09:30:25,123``."""
        stamp = raw[:_TEXT_STAMP]
        if not _START.match(stamp):
            return b""
        minute = stamp[:_MINUTE]
        both = self._minutes.get(minute)
        if both is None:
            both = _utc_minutes(minute)
            if len(self._minutes) >= _MOST_MINUTES:
                self._minutes.clear()
            self._minutes[minute] = both
        if not both[0]:
            return b""
        rest = stamp[_MINUTE:].replace(b",", b".")
        first, second = (each + rest + b"000Z" for each in both)
        # When the clocks go back an hour stands in the file twice: the second time it would run backwards.
        return second if first < self._last else first


def _utc_minutes(minute: bytes) -> tuple[bytes, bytes]:
    """Return a local minute in UTC, for the first and for the second time that the clocks show it."""
    try:
        local = dt.datetime.fromisoformat(minute.decode())
        first, second = (local.replace(fold=fold).astimezone(dt.UTC) for fold in (0, 1))
    except (ValueError, OverflowError):
        return b"", b""
    return first.isoformat()[:_MINUTE].encode(), second.isoformat()[:_MINUTE].encode()


def blocks(read: Callable[[int], bytes], *, whole_lines: bool = False) -> Iterator[bytes]:
    """Read a file in blocks of whole records.

    Args:
        read: Returns at most so many bytes, none at the end.
        whole_lines: Whether a last line without an end is left out even where it seems whole.

    Yields:
        Blocks that begin where a record does. A last JSON line that is not whole is left out: its writer is not done
        with it, or was killed.
    """
    rest: list[bytes] = []
    size = 0
    while chunk := read(BLOCK_BYTES):
        cut = _last_start(chunk)
        if cut or size > _MOST_BYTES:
            yield b"".join((*rest, chunk[:cut]))
            rest, size = [], 0
        rest.append(chunk[cut:])
        size += len(chunk)
    last = b"".join(rest)
    end = last.rfind(b"\n") + 1
    if end < len(last) and (whole_lines or (last[end : end + 1] == b"{" and json_fields(last[end:]) is None)):
        last = last[:end]
    if last:
        yield last


def first_start(chunk: bytes) -> int:
    """Return where the first record begins after a line end in a chunk; its length where none does."""
    found = _LINE_START.search(chunk)
    return found.end() if found else len(chunk)


def _last_start(chunk: bytes) -> int:
    end = len(chunk)
    while (end := chunk.rfind(b"\n", 0, end)) >= 0:
        if _START.match(chunk, end + 1):
            return end + 1
    return 0


def records_in(block: bytes) -> Sequence[bytes]:
    """Take a block apart into its records."""
    block = block.rstrip(b"\n")
    lines = block.split(b"\n") if block else []
    if not [line for line in lines if not line.startswith(_STAMP)]:
        return lines
    starts = [0, *(found.end() for found in _LINE_START.finditer(block)), len(block) + 1]
    cut = (block[start : end - 1].rstrip(b"\n") for start, end in pairwise(starts))
    return [raw for raw in cut if raw]


def candidates(block: bytes, needles: Sequence[bytes]) -> Sequence[bytes]:
    """Take those records out of a block that hold at least one of some texts.

    Args:
        block: Whole records.
        needles: The texts.

    Returns:
        The records, in order; the others were not touched.
    """
    spans = {span for needle in needles for span in _spans(block, needle)}
    return [block[start:end].rstrip(b"\n") for start, end in sorted(spans)]


def _spans(block: bytes, needle: bytes) -> Iterator[tuple[int, int]]:
    at = block.find(needle)
    while at >= 0:
        start = block.rfind(b"\n", 0, at) + 1
        while start and not _START.match(block, start):
            start = block.rfind(b"\n", 0, start - 1) + 1
        end = block.find(b"\n", at)
        while 0 <= end < len(block) - 1 and not _START.match(block, end + 1):
            end = block.find(b"\n", end + 1)
        end = end if end >= 0 else len(block)
        yield start, end
        at = block.find(needle, end)


def fields_of(record: Record, channel: str) -> dict[str, Any]:
    """Return what a record says, under the keys of the JSON format.

    Args:
        record: The record.
        channel: Its channel.

    Returns:
        The fields of a JSON line. Of a line in the text format: timestamp, level, logger, channel and message, and what
        follows the line as the exception's stacktrace. Of any other: timestamp, channel, and all of it as the message.
    """
    if record.fields is not None:
        return record.fields
    return _json_record(record.raw) or _text_record(record, channel)


def _json_record(raw: bytes) -> dict[str, Any] | None:
    """Read a JSON line, with the lines that follow it, or return None where it is none."""
    if raw[:1] != b"{":
        return None
    fields = json_fields(raw)
    if fields is None and b"\n" in raw:
        head, _, rest = raw.partition(b"\n")
        fields = json_fields(head)
        if fields is not None:
            fields["following"] = rest.decode("utf-8", "backslashreplace")
    return fields


def _text_record(record: Record, channel: str) -> dict[str, Any]:
    line, _, rest = record.raw.decode("utf-8", "backslashreplace").partition("\n")
    about = {"timestamp": record.key.decode()} if record.key else {}
    parts = _TEXT.fullmatch(line)
    if parts is None or record.raw[:1] == b"{" or not _START.match(record.raw):
        return {**about, "channel": channel, "message": f"{line}\n{rest}" if rest else line}
    found: dict[str, Any] = {
        **about,
        "level": parts[2],
        "logger": parts[3],
        "channel": channel,
        "message": parts[4],
    }
    if rest:
        found["exception"] = {"stacktrace": "\n".join(each.removeprefix("    ") for each in rest.split("\n"))}
    return found


def json_fields(line: bytes) -> dict[str, Any] | None:
    """Return the fields of a JSON line; None where it is no JSON object."""
    try:
        fields = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return fields if type(fields) is dict else None
