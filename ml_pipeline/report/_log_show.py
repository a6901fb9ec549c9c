"""Log records as text: a table, JSON, the text format, or everything a record says. Nothing in it steers a terminal."""

from __future__ import annotations

import datetime as dt
import os
import re
import sys
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import orjson

from ml_pipeline.config._encoding import encode, one_line
from ml_pipeline.errors import SettingsError, closest
from ml_pipeline.report._log_records import NOT_JSON_FIELDS, fields_of, json_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from ml_pipeline.report._log_records import Record

__all__ = ["FORMATS", "Output"]

_RESET: Final = "\x1b[0m"
_DIM: Final = "\x1b[2m"
_COLOURS: Final = {"WARNING": "\x1b[33m", "ERROR": "\x1b[31m", "CRITICAL": "\x1b[1;31m", "DEBUG": _DIM, "TRACE": _DIM}
_LEVEL_WIDTH: Final = 8
_LOGGER_WIDTH: Final = 20
_TIME_WIDTH: Final = 27
_SHOWN_DEPTH: Final = 3
_BATCH_BYTES: Final = 64 << 10
_PLAIN_KEY: Final = re.compile(r"\w[\w/@%+-]*")
_HEADLINE: Final = frozenset({"timestamp", "level", "logger", "message"})
_BLOCKS: Final = frozenset({"context", "exception", "following"})


class Output:
    """Writes records to a stream, many at a time.

    Args:
        name: The format: of `FORMATS`.
        channels: The channels by number; it may grow.
        stream: Where to; by default the standard output.
        coloured: Whether to colour; by default on a terminal where ``NO_COLOR`` is not set.

    Raises:
        SettingsError: If there is no such format.
    """

    def __init__(
        self, name: str, channels: Sequence[str], *, stream: BinaryIO | None = None, coloured: bool | None = None
    ) -> None:
        if name not in FORMATS:
            raise SettingsError("--format must be table, json, pretty or text", name, closest(name, FORMATS))
        is_terminal = stream is None and sys.stdout.isatty()
        self._write = FORMATS[name]
        self._channels = channels
        self._stream = sys.stdout.buffer if stream is None else stream
        self._coloured = is_terminal and not os.environ.get("NO_COLOR") if coloured is None else coloured
        self.refused: OSError | None = None
        self._waiting: list[bytes] = []
        self._size = 0
        if name == "table" and is_terminal:
            self._add(_heading(coloured=self._coloured))

    def write(self, record: Record) -> None:
        """Write a record, now or with those that follow it."""
        self._add(self._write(record, self._channels[record.number], self._coloured))
        if self._size >= _BATCH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand on what is waiting.

        Raises:
            OSError: If it cannot be written, as on a disk that is full; ``refused`` is this error then.
        """
        waiting, self._waiting, self._size = b"".join(self._waiting), [], 0
        try:
            if waiting:
                self._stream.write(waiting)
                self._stream.flush()
        except OSError as error:
            self.refused = error
            raise

    def _add(self, line: bytes) -> None:
        self._waiting.append(line)
        self._size += len(line)


def _table(record: Record, channel: str, coloured: bool) -> bytes:
    fields = fields_of(record, channel)
    return _line(_headline(record, fields, coloured))


def _json(record: Record, channel: str, _coloured: bool) -> bytes:
    """Return a JSON line as it stands; of any other record, what it says as JSON."""
    head, _, rest = record.raw.partition(b"\n")
    fields = None if rest else record.fields
    if fields is None or len(fields) <= NOT_JSON_FIELDS or head[:1] != b"{":
        fields = json_fields(head) if head[:1] == b"{" else None
    if fields is None:
        return encode(fields_of(record, channel)) + b"\n"
    lines = [head if _is_safe(head) else encode(fields)]
    if rest:
        following = rest.decode("utf-8", "backslashreplace")
        lines.append(encode({"timestamp": fields.get("timestamp"), "channel": channel, "message": following}))
    return b"\n".join(lines) + b"\n"


def _text(record: Record, channel: str, _coloured: bool) -> bytes:
    """Return the text format: a line of it as it stands, a JSON line with its time in local time."""
    fields = fields_of(record, channel)
    if record.raw[:1] != b"{":
        return b"".join(_line(one_line(each)) for each in _lines(record.raw.decode("utf-8", "backslashreplace")))
    head = " - ".join((_local(record.key), *(_word(fields, key) for key in ("level", "logger", "message"))))
    below = (f"    {one_line(each)}" for each in (*_lines(_stacktrace(fields)), *_lines(fields.get("following"))))
    return b"".join(_line(each) for each in (one_line(head), *below))


def _pretty(record: Record, channel: str, coloured: bool) -> bytes:
    fields = fields_of(record, channel)
    lines = [_headline(record, fields, coloured)]
    for key, value in fields.items():
        if key not in _HEADLINE and key not in _BLOCKS:
            lines.append(_dimmed(f"    {one_line(key)}: ", coloured) + _shown(value))
    context = fields.get("context")
    if isinstance(context, dict):
        lines += (_dimmed(f"    {name}: ", coloured) + _shown(value) for name, value in _flat(context))
    lines += (f"      {one_line(each)}" for each in (*_lines(_stacktrace(fields)), *_lines(fields.get("following"))))
    return b"".join(_line(each) for each in lines)


FORMATS: Final[Mapping[str, Callable[[Record, str, bool], bytes]]] = {
    "table": _table,
    "json": _json,
    "pretty": _pretty,
    "text": _text,
}
"""How a record is written, by the name of the format."""


def _heading(*, coloured: bool) -> bytes:
    head = f"{'time':{_TIME_WIDTH}} {'level':{_LEVEL_WIDTH}} {'logger':{_LOGGER_WIDTH}} message"
    return _line(_dimmed(head, coloured))


def _headline(record: Record, fields: Mapping[str, Any], coloured: bool) -> str:
    level = one_line(_word(fields, "level"))
    colour = _COLOURS.get(level, "") if coloured else ""
    shown = f"{colour}{level:{_LEVEL_WIDTH}}{_RESET}" if colour else f"{level:{_LEVEL_WIDTH}}"
    rest = one_line(f"{_word(fields, 'logger'):{_LOGGER_WIDTH}} {_word(fields, 'message')}")
    moment = one_line(record.key.decode("ascii", "backslashreplace")) or "-"
    return f"{moment:{_TIME_WIDTH}} {shown} {rest}"


def _word(fields: Mapping[str, Any], key: str) -> str:
    value = fields.get(key, "-")
    return value if type(value) is str else orjson.dumps(value).decode()


def _shown(value: object) -> str:
    return one_line(value if isinstance(value, str) else orjson.dumps(value).decode())


def _flat(values: Mapping[str, Any], above: str = "context.") -> Iterator[tuple[str, Any]]:
    """Yield the values of a context by their dotted paths, as ``--where`` takes them."""
    for key, value in values.items():
        name = above + (key if _PLAIN_KEY.fullmatch(key) else f'"{one_line(key)}"')
        if isinstance(value, dict) and value and above.count(".") < _SHOWN_DEPTH:
            yield from _flat(value, f"{name}.")
        else:
            yield name, value


def _stacktrace(fields: Mapping[str, Any]) -> str:
    exception = fields.get("exception")
    if not isinstance(exception, dict):
        return ""
    return str(exception.get("stacktrace") or f"{exception.get('type', '')}: {exception.get('message', '')}")


def _lines(text: object) -> list[str]:
    return text.rstrip("\n").split("\n") if isinstance(text, str) and text else []


def _local(key: bytes) -> str:
    try:
        moment = dt.datetime.fromisoformat(key.decode()).astimezone()
    except (ValueError, OverflowError):
        return "-"
    return f"{moment:%Y-%m-%d %H:%M:%S},{moment.microsecond // 1000:03d}"


def _is_safe(line: bytes) -> bool:
    if line.isascii() and b"\x7f" not in line:  # what is below a space cannot stand in valid JSON
        return b"\r" not in line and b"\t" not in line
    text = line.decode("utf-8", "backslashreplace")
    return one_line(text) == text


def _dimmed(text: str, coloured: bool) -> str:
    return f"{_DIM}{text}{_RESET}" if coloured else text


def _line(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace") + b"\n"
