"""Any value as plain JSON, on one line, within bounds, without an exception.

What users put into a log line, an alert or a lineage node is theirs to choose: cycles, NumPy arrays, objects whose
``repr`` raises. What comes out can be read by any JSON parser, forges no line, and drives no terminal.
"""

from __future__ import annotations

import datetime as dt
import enum
import itertools
import math
import re
from collections import deque
from collections.abc import ItemsView, Mapping
from collections.abc import Set as AbstractSet
from decimal import Decimal
from functools import lru_cache
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from uuid import UUID

import orjson

from ml_pipeline._runtime import attempt
from ml_pipeline.config._fields import Fields, Row, has_own_repr, inside, names_in, of_dataclass, rows
from ml_pipeline.config._redaction import LONGEST_MATCH, REDACTED

if TYPE_CHECKING:
    from ml_pipeline.config._redaction import Redaction

__all__ = ["dumps", "encode", "one_line", "rfc3339", "to_plain"]

MAX_CHARACTERS: Final = 8_192
"""Of one string."""
MAX_ITEMS: Final = 1_000
"""Of one container."""
MAX_DEPTH: Final = 16
MAX_TOTAL_CHARACTERS: Final = 262_144
"""Of all strings of one value together."""
MAX_VALUES: Final = 20_000
"""Of one value altogether."""

_A_SECOND: Final = 1_000_000
_LARGEST_INTEGER: Final = 2**53
_MOST_BITS: Final = 8_192
_MOST_SEARCHED_FOR: Final = 200  # texts that names hide, in what the class of a value says of it
_SHOWN_ELEMENTS: Final = 32
_CUT: Final = "…"
_AS_THEY_ARE: Final = "as they are"
_SEARCHED: Final = "searched"
_HIDDEN: Final = "hidden"
_UNSAFE_IN_TEXT: Final = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSAFE_IN_JSON: Final = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]")
_IDS_AND_AMOUNTS: Final = (UUID, Decimal)  # one searches for their ``str``; their ``repr`` puts a name around it
_CHANGED_BY_OTHERS: Final = (dict, set, frozenset, deque)
_class_name: Final = type.__dict__["__name__"].__get__  # what a metaclass says instead may raise


Exempt: TypeAlias = tuple[frozenset[str], ...]
"""Names by depth, the outermost first, whose texts a redaction leaves alone."""

LINE_EXEMPT: Final[Exempt] = (
    frozenset({"timestamp", "level", "logger", "channel", "pipeline", "operation_id", "run_id", "user_id"})
    | frozenset({"trace_id", "span_id", "file", "function"}),
)
"""Of a log line: when, where from and under which ids. What it says is redacted."""

AUDIT_EXEMPT: Final[Exempt] = (LINE_EXEMPT[0] | {"message"}, frozenset({"action", "object", "version", "result"}))
"""Of an audit line: who did what to what, and how it ended, too; a trail without these would be none."""


def dumps(value: object, redaction: Redaction | None = None, exempt: Exempt = ()) -> bytes:
    """Encode any value as one line of JSON.

    Args:
        value: Anything; see `to_plain`.
        redaction: See `to_plain`.
        exempt: See `to_plain`.

    Returns:
        UTF-8 JSON without a line break. Characters that end lines, steer terminals or reverse text are escaped.
    """
    return encode(to_plain(value, redaction, exempt))


def encode(plain: object) -> bytes:
    """Encode what `to_plain` returned, as `dumps` does."""
    return _UNSAFE_IN_JSON.sub(_json_escape, orjson.dumps(plain))


def to_plain(value: object, redaction: Redaction | None = None, exempt: Exempt = ()) -> Any:
    """Turn any value into dictionaries, lists, strings, numbers, booleans and None.

    Args:
        value: Anything. NaN and infinities become the texts ``NaN``, ``Infinity``, ``-Infinity``, because JSON has no
            number for them and ``null`` would say that nothing was measured. Arrays of more than 32 elements become
            their type and shape; a `UUID` or `Decimal`, its ``str``; what no rule covers, its ``repr``. Of two keys
            that come out as the same text, as 1 and ``"1"`` do, the later gets its position: ``1 (2)``.
        redaction: What to hide; None hides nothing. Below a hidden name every text is `REDACTED`, at any depth, and
            whatever would have become a text; numbers stay, and so do names. Its patterns are searched for in texts
            and in names, but not below ``user_id``. With one, any sequence, namespace, attrs class and pydantic
            model is looked into; without one they become their ``repr``, as what no rule covers. With one, dataclasses
            and those classes are told by the fields that their ``repr`` shows (``repr=False`` leaves one out); where
            somebody wrote the ``__repr__`` of the class, which may mask more, by its text, in which `REDACTED` stands
            for whatever the names of the fields hide.
        exempt: Names whose texts are left alone, by depth. With any, the outermost names are fixed ones, which hide
            nothing and are not searched.

    Returns:
        A new value, bounded in depth, length and number of items; what is left out is marked with ``…``.
    """
    return _Plain(redaction, exempt).convert(value, 0)


def one_line(text: str) -> str:
    r"""Escape what would end the line or steer a terminal.

    Args:
        text: Any text.

    Returns:
        The text with control characters, bidirectional ones and lone surrogates as ``\n``, ``\x1b`` and so on.
    """
    return _UNSAFE_IN_TEXT.sub(_text_escape, text)


def rfc3339(seconds: float) -> str:
    """Write a moment as RFC 3339 in UTC with six digits.

    Args:
        seconds: Since the Unix epoch.

    Returns:
        Such as ``2026-01-15T09:30:25.123456Z``.
    """
    second = math.floor(seconds)
    microseconds = round((seconds - second) * 1e6)  # to even, as `datetime` rounds
    if microseconds == _A_SECOND:
        second, microseconds = second + 1, 0
    return f"{_to_the_second(second)}.{microseconds:06d}Z"


@lru_cache(maxsize=4)
def _to_the_second(seconds: int) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).isoformat()[:-6]


class _Plain:
    """One conversion, how much of its allowance is left, and what is done with the texts where it stands."""

    __slots__ = ("_characters", "_exempt", "_hid", "_parents", "_redaction", "_texts", "_values")

    def __init__(self, redaction: Redaction | None, exempt: Exempt) -> None:
        self._characters = MAX_TOTAL_CHARACTERS
        self._values = MAX_VALUES
        self._parents: set[int] = set()
        self._redaction = redaction
        self._exempt = exempt
        self._hid: set[str] | None = None  # the texts hidden so far, where they must not stand in another text either
        self._texts = _SEARCHED if redaction is not None and redaction.patterned else _AS_THEY_ARE

    def convert(self, value: object, depth: int) -> Any:
        self._values -= 1
        if value is None or value is True or value is False:
            return value
        kind = type(value)
        if kind is str:
            return self._text(value)  # type: ignore[arg-type]
        if kind is int:
            return value if -_LARGEST_INTEGER <= value <= _LARGEST_INTEGER else self._text(_digits(value))  # type: ignore[operator, arg-type]
        if kind is float:
            return value if math.isfinite(value) else _named(value)  # type: ignore[arg-type]
        if kind is dict or kind is list:
            return self._container(value, depth, id(value))
        plain, broken = attempt(self._composite, value, depth)
        return plain if broken is None else self._text(f"<{_class_name(kind)}: {_class_name(type(broken))} when read>")

    def _composite(self, value: Any, depth: int) -> Any:
        # Everything from here on runs code of the value's own class, which may raise anything.
        if isinstance(value, (Mapping, list, tuple, AbstractSet)):
            return self._container(value, depth, id(value))
        return self._scalar(value, depth)

    def _container(self, value: Any, depth: int, identity: int) -> Any:
        if identity in self._parents:
            return _CUT
        if depth >= MAX_DEPTH or self._values <= 0:
            self._notes(_CUT)
            return _CUT
        self._parents.add(identity)
        is_object = type(value) is dict or isinstance(value, Mapping)
        plain: Any = {} if is_object else []
        # What was read before it broke is kept.
        _, broken = attempt(self._fill_object if is_object else self._fill_array, plain, value, depth)
        self._parents.discard(identity)
        if broken is not None:
            _mark(plain, f"{_class_name(type(broken))} when read")
        return plain

    def _fill_object(self, plain: dict[str, Any], value: Mapping[Any, Any], depth: int) -> None:
        redaction = self._redaction
        by_name = redaction is None or (self._texts is _AS_THEY_ARE and not redaction.patterned)
        for index, (key, item) in enumerate(_snapshot(value, value.items())):
            if index >= MAX_ITEMS or self._values <= 0:
                _mark(plain, f"{len(value) - index} more")
                return
            field = key if type(key) is str else _key(key)
            if redaction is None or (by_name and not redaction.hides(field)):  # nothing to hide: most fields
                name, shown = self._text(field), self.convert(item, depth + 1)
            else:
                name, shown = self._redacted(redaction, field, item, depth)
            while name in plain:
                name = f"{name} ({index + 1})"
            plain[name] = shown

    def _redacted(self, redaction: Redaction, field: str, item: object, depth: int) -> tuple[str, Any]:
        around = self._texts
        searched = _SEARCHED if redaction.patterned else _AS_THEY_ARE
        is_fixed = depth == 0 and bool(self._exempt)
        is_exempt = depth < len(self._exempt) and field in self._exempt[depth]
        is_user = field == "user_id"
        try:
            self._texts = _AS_THEY_ARE if is_fixed or is_exempt or is_user else searched
            name = self._text(field)
            if around is _HIDDEN or not (is_fixed or is_exempt or not redaction.hides(field)):
                self._texts = _HIDDEN
            elif is_fixed and not is_exempt:
                self._texts = searched
            return name, self.convert(item, depth + 1)
        finally:
            self._texts = around

    def _fill_array(self, plain: list[Any], value: Any, depth: int) -> None:
        redaction = self._redaction
        names = () if redaction is None or type(value) is list else names_in(value)
        pairs = redaction is not None and isinstance(value, ItemsView)
        for index, item in enumerate(_snapshot(value, value)):
            if index >= MAX_ITEMS or self._values <= 0:
                _mark(plain, f"{len(value) - index} more")
                return
            if pairs:
                key, _ = item
                plain.append(self.convert(Row(item, ("", key)), depth + 1))
            elif redaction is not None and index < len(names) and redaction.hides(_key(names[index])):
                plain.append(self._hidden(item, depth + 1))
            else:
                plain.append(self.convert(item, depth + 1))

    def _hidden(self, value: object, depth: int) -> Any:
        around, self._texts = self._texts, _HIDDEN
        try:
            return self.convert(value, depth)
        finally:
            self._texts = around

    def _scalar(self, value: Any, depth: int) -> Any:
        for kind, rule in _RULES:
            if isinstance(value, kind):
                return self.convert(rule(value), depth)
        if isinstance(value, (bytes, bytearray)):
            most = MAX_CHARACTERS + (LONGEST_MATCH if self._texts is _SEARCHED else 0)
            shown = bytes(value[:most]).decode("utf-8", "backslashreplace")
            return self._text(shown, max(len(value) - most, 0))
        fields = of_dataclass(value, shown_only=self._redaction is not None)
        if fields is None and hasattr(value, "shape") and (hasattr(value, "dtype") or hasattr(value, "dtypes")):
            return self._table(value, depth)
        within: Any = fields
        if self._redaction is not None:  # without one: ids are made of it, and must stay
            within = inside(value) if fields is None else fields
            if isinstance(within, Fields) and has_own_repr(type(value)):
                return self._in_own_words(value, within, depth)
        return self._text(_printed(value)) if within is None else self._container(within, depth, id(value))

    def _in_own_words(self, value: Any, fields: Fields, depth: int) -> Any:
        """The ``repr`` of its class, without the texts that the names of its fields hide."""
        around, self._hid = self._hid, set()
        characters = self._characters
        self._container(fields, depth, id(value))
        hid, self._hid, self._characters = self._hid, around, characters
        for each in hid:
            self._notes(each)
        forms = sorted({form for each in hid for form in (each, repr(each)[1:-1]) if form}, key=len, reverse=True)
        if _CUT in hid or len(forms) > _MOST_SEARCHED_FOR:  # not all of them are known, or it would take long
            return self._text(f"<{_class_name(type(value))}: {_CUT}>")
        text = _printed(value)
        if not forms:
            return self._text(text)
        most = MAX_CHARACTERS + LONGEST_MATCH
        shown = re.sub("|".join(map(re.escape, forms)), REDACTED, text[:most])
        if len(text) <= most:
            return self._text(shown)
        longest = len(forms[0])  # so much at the end may be half of one
        return self._text(shown[:-longest], len(text) - most + longest)

    def _notes(self, hidden: str) -> None:
        if self._hid is not None:
            self._hid.add(hidden)

    def _table(self, value: Any, depth: int) -> Any:
        plain: Any = _array(value)
        redaction = self._redaction
        if redaction is None or type(plain) not in (list, tuple):
            return self.convert(plain, depth)
        kind = type(value)
        if hasattr(kind, "name") and redaction.hides(_key(value.name)):
            return self._hidden(plain, depth)
        if hasattr(kind, "dtype") and getattr(value.dtype, "names", None):
            return self.convert(rows(plain, value.dtype), depth)
        named = type(plain) is list and hasattr(kind, "index")
        return self.convert(Row(plain, tuple(value.index)) if named else plain, depth)

    def _text(self, text: str, unseen: int = 0) -> str:
        if self._texts is _HIDDEN:
            self._notes(text)
            text, unseen = REDACTED, 0
        room = min(MAX_CHARACTERS, max(self._characters, 0))
        more = max(len(text) - room, 0) + unseen
        self._characters -= min(len(text), room)
        if self._texts is _SEARCHED and self._redaction is not None:  # before it is cut: half a secret is one, too
            text = self._redaction.text(text, 0, room)
        elif more:
            text = text[:room]
        if more:
            text = f"{text}{_CUT} {more} more characters" if room else _CUT
        if not text.isascii():
            text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        return text


def _key(value: object) -> str:
    return str.__str__(value) if issubclass(type(value), str) else _printed(value)


def _snapshot(container: Any, items: Any) -> Any:
    """Take the items that will be shown in one step, where another thread's change would end the iteration."""
    return list(itertools.islice(items, MAX_ITEMS + 1)) if type(container) in _CHANGED_BY_OTHERS else items


def _mark(plain: Any, what: str) -> None:
    """Say what was left out of a container."""
    if isinstance(plain, list):
        plain.append(f"{_CUT} {what}")
    else:
        plain[_CUT if _CUT not in plain else f"{_CUT} ({len(plain) + 1})"] = what


def _array(value: Any) -> object:
    shape = value.shape  # of its class, as all that is asked here: a table may have columns of these names
    if hasattr(type(value), "tolist") and isinstance(shape, tuple) and math.prod(shape) <= _SHOWN_ELEMENTS:
        plain = value.tolist()
        return _printed(plain) if type(plain) is type(value) else plain
    dtype = f" {value.dtype}" if hasattr(type(value), "dtype") else ""
    return f"<{type(value).__name__} {shape}{dtype}>"


def _digits(value: int) -> str:
    text, _ = attempt(str, value) if value.bit_length() <= _MOST_BITS else (None, None)
    return text if text is not None else f"<int of {value.bit_length()} bits>"


def _moment(value: dt.datetime) -> str:
    return value.astimezone(dt.UTC).isoformat().replace("+00:00", "Z") if value.tzinfo else value.isoformat()


_RULES: Final[tuple[tuple[Any, Any], ...]] = (
    (enum.Enum, lambda value: value.value if isinstance(value.value, (str, int, float)) else str(value)),
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    (dt.datetime, _moment),
    ((dt.date, dt.time), lambda value: value.isoformat()),
    (dt.timedelta, lambda value: value.total_seconds()),
    (PurePath, str),
    (BaseException, lambda value: f"{type(value).__name__}: {_printed(value, str)}"),
    (type, lambda value: f"{value.__module__}.{value.__qualname__}"),
)


def _printed(value: object, how: Any = repr) -> str:
    if type(value) in _IDS_AND_AMOUNTS:  # exactly: what else a class of one's own says may be hostile
        how = str
    text, broken = attempt(how, value)
    if broken is None:
        return str.__str__(text)
    return f"<{_class_name(type(value))}: {_class_name(type(broken))} when printed>"


def _named(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


def _json_escape(match: re.Match[bytes]) -> bytes:
    return f"\\u{ord(match.group().decode('utf-8')):04x}".encode()


def _text_escape(match: re.Match[str]) -> str:
    return match.group().encode("unicode_escape").decode("ascii")
