"""Any value as plain JSON, on one line, within bounds, without an exception.

What users put into a log line, an alert or a lineage node is theirs to choose: cycles, NumPy arrays, objects whose
``repr`` raises. What comes out can be read by any JSON parser, forges no line, and drives no terminal.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import math
import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import PurePath
from typing import Any, Final

import orjson

from ml_pipeline._runtime import attempt

__all__ = ["dumps", "one_line", "rfc3339", "to_plain"]

MAX_CHARACTERS: Final = 8_192
"""Of one string."""
MAX_ITEMS: Final = 1_000
"""Of one container."""
MAX_DEPTH: Final = 16
MAX_TOTAL_CHARACTERS: Final = 262_144
"""Of all strings of one value together."""
MAX_VALUES: Final = 20_000
"""Of one value altogether."""

_LARGEST_INTEGER: Final = 2**53
_SHOWN_ELEMENTS: Final = 32
_CUT: Final = "…"
_UNSAFE_IN_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")
_UNSAFE_IN_JSON: Final = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8-\xae]|\xe2\x81[\xa6-\xa9]")


def dumps(value: object) -> bytes:
    """Encode any value as one line of JSON.

    Args:
        value: Anything; see `to_plain`.

    Returns:
        UTF-8 JSON without a line break. Characters that end lines, steer terminals or reverse text are escaped.
    """
    return encode(to_plain(value))


def encode(plain: object) -> bytes:
    """Encode what `to_plain` returned, as `dumps` does."""
    return _UNSAFE_IN_JSON.sub(_json_escape, orjson.dumps(plain))


def to_plain(value: object) -> Any:
    """Turn any value into dictionaries, lists, strings, numbers, booleans and None.

    Args:
        value: Anything. NaN and infinities become the texts ``NaN``, ``Infinity``, ``-Infinity``, because JSON has no
            number for them and ``null`` would say that nothing was measured. Arrays of more than 32 elements become
            their type and shape. What no rule covers becomes its ``repr``.

    Returns:
        A new value, bounded in depth, length and number of items; what is left out is marked with ``…``.
    """
    return _Plain().convert(value, 0)


def one_line(text: str) -> str:
    r"""Escape what would end the line or steer a terminal.

    Args:
        text: Any text.

    Returns:
        The text with control and bidirectional characters as ``\n``, ``\x1b`` and so on.
    """
    return _UNSAFE_IN_TEXT.sub(_text_escape, text)


def rfc3339(seconds: float) -> str:
    """Write a moment as RFC 3339 in UTC with six digits.

    Args:
        seconds: Since the Unix epoch.

    Returns:
        Such as ``2026-01-15T09:30:25.123456Z``.
    """
    moment = dt.datetime.fromtimestamp(seconds, dt.UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond:06d}Z"


class _Plain:
    """One conversion, and how much of its allowance is left."""

    __slots__ = ("_characters", "_parents", "_values")

    def __init__(self) -> None:
        self._characters = MAX_TOTAL_CHARACTERS
        self._values = MAX_VALUES
        self._parents: set[int] = set()

    def convert(self, value: object, depth: int) -> Any:
        self._values -= 1
        if value is None or value is True or value is False:
            return value
        kind = type(value)
        if kind is str:
            return self._text(value)  # type: ignore[arg-type]
        if kind is int:
            return value if -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER else self._text(str(value))  # type: ignore[operator]
        if kind is float:
            return value if math.isfinite(value) else _named(value)  # type: ignore[arg-type]
        plain, broken = attempt(self._composite, value, depth)
        return plain if broken is None else f"<{kind.__name__}: {type(broken).__name__} when read>"

    def _composite(self, value: Any, depth: int) -> Any:
        # Everything from here on runs code of the value's own class, which may raise anything.
        if isinstance(value, (Mapping, list, tuple, AbstractSet)):
            return self._container(value, depth)
        return self._scalar(value, depth)

    def _container(self, value: Any, depth: int) -> Any:
        if depth >= MAX_DEPTH or self._values <= 0 or id(value) in self._parents:
            return _CUT
        self._parents.add(id(value))
        try:
            if isinstance(value, Mapping):
                return self._mapping(value, depth)
            return self._items(value, depth)
        finally:
            self._parents.discard(id(value))

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        plain: dict[str, Any] = {}
        for index, (key, item) in enumerate(value.items()):
            if index >= MAX_ITEMS or self._values <= 0:
                plain[_CUT] = f"{len(value) - index} more"
                break
            plain[self._text(key if isinstance(key, str) else _printed(key))] = self.convert(item, depth + 1)
        return plain

    def _items(self, value: Any, depth: int) -> list[Any]:
        plain: list[Any] = []
        for index, item in enumerate(value):
            if index >= MAX_ITEMS or self._values <= 0:
                plain.append(f"{_CUT} {len(value) - index} more")
                break
            plain.append(self.convert(item, depth + 1))
        return plain

    def _scalar(self, value: Any, depth: int) -> Any:
        for kind, rule in _RULES:
            if isinstance(value, kind):
                return self.convert(rule(value), depth)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return self.convert(_Fields(value), depth)
        if hasattr(value, "dtype") or hasattr(value, "dtypes"):
            return self.convert(_array(value), depth)
        return self._text(_printed(value))

    def _text(self, text: str) -> str:
        room = min(MAX_CHARACTERS, max(self._characters, 0))
        if len(text) > room:
            text = f"{text[:room]}{_CUT} {len(text) - room} more characters"
        self._characters -= min(len(text), room)
        if not text.isascii():
            text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        return text


class _Fields(Mapping[str, Any]):
    """The fields of a dataclass, read one at a time so that nothing is copied deeply."""

    def __init__(self, value: Any) -> None:
        self._value = value
        self._names = [field.name for field in dataclasses.fields(value)]

    def __getitem__(self, name: str) -> Any:
        return getattr(self._value, name)

    def __iter__(self) -> Any:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _array(value: Any) -> object:
    shape = getattr(value, "shape", None)
    size = getattr(value, "size", None)
    if isinstance(size, int) and size <= _SHOWN_ELEMENTS and hasattr(value, "tolist"):
        plain = value.tolist()
        return _printed(plain) if type(plain) is type(value) else plain
    return f"<{type(value).__name__} {shape} {getattr(value, 'dtype', '')}>".replace(" >", ">")


def _moment(value: dt.datetime) -> str:
    return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z") if value.tzinfo else value.isoformat()


_RULES: Final[tuple[tuple[Any, Any], ...]] = (
    (enum.Enum, lambda value: value.value if isinstance(value.value, (str, int, float)) else str(value)),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    ((bytes, bytearray), lambda value: bytes(value[: MAX_CHARACTERS + 1]).decode("utf-8", "backslashreplace")),
    (dt.datetime, _moment),
    ((dt.date, dt.time), lambda value: value.isoformat()),
    (dt.timedelta, lambda value: value.total_seconds()),
    (PurePath, str),
    (BaseException, lambda value: f"{type(value).__name__}: {_printed(value, str)}"),
    (type, lambda value: f"{value.__module__}.{value.__qualname__}"),
)


def _printed(value: object, how: Any = repr) -> str:
    text, broken = attempt(how, value)
    return str(text) if broken is None else f"<{type(value).__name__}: {type(broken).__name__} when printed>"


def _named(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _json_escape(match: re.Match[bytes]) -> bytes:
    return f"\\u{ord(match.group().decode('utf-8')):04x}".encode()


def _text_escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")
