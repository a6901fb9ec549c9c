"""The chain of the audit trail: how a record is sealed, and how a line is judged.

The hash of a line is SHA-256, or HMAC-SHA256 with a key, over its bytes before ``,"hash":``. Because ``prev`` stands
before that, a line vouches for every line above it. Without a key, someone who can write the files can also compute a
new chain: then only a copy kept elsewhere shows it.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import os
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from ml_pipeline.config._encoding import AUDIT_EXEMPT, encode, to_plain
from ml_pipeline.config._redaction import current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ml_pipeline.config._redaction import Redaction

__all__ = [
    "GENESIS",
    "START",
    "Chain",
    "Place",
    "digest",
    "joined_body",
    "last_line",
    "place_of",
    "read_at",
    "record_bodies",
    "seal",
    "sign",
    "sign_members",
    "signed",
    "signed_place",
]

GENESIS: Final = "0" * 64
"""What stands for the hash before the first record."""


class Place(NamedTuple):
    """Where a chain stands: the number of a record and its hash."""

    sequence: int
    hash: str


START: Final = Place(0, GENESIS)
"""Before the first record."""

_NOWHERE: Final = Place(-1, GENESIS)
_HASH: Final = re.compile(r"[0-9a-f]{64}")
_HASH_MARK: Final = b',"hash":"'
_SIGN_MARK: Final = b',"mac":"'
_END: Final = b'"}\n'
_FIRST_MARK: Final = b'"head":"new",'
_OURS: Final = frozenset({"head", "seq", "prev", "hash"})
_PLAIN: Final = frozenset({str, int, bool, type(None)})
"""Kinds of values that JSON has a form for; of integers, those that it keeps exact."""
_LARGEST_INTEGER: Final = 2**53
_DEEPEST: Final = 4
_MOST_BYTES: Final = 4_096
_DELETE: Final = 0x7F
_TAIL_BYTES: Final = 1 << 12


def record_bodies(records: Iterable[Mapping[str, Any]]) -> list[bytes]:
    """Encode what records say, as far as it does not depend on their place; the chain's own names are the chain's."""
    redaction = current()
    hides = None if redaction.patterned else redaction.hides
    return [_short_body(fields, hides) or _long_body(fields, redaction) for fields in records]


def _long_body(fields: Mapping[str, Any], redaction: Redaction) -> bytes:
    plain = to_plain(fields, redaction, AUDIT_EXEMPT)
    for name in _OURS:
        plain.pop(name, None)
    # The chain's own fields come after the bounds that a caller's fields are cut to.
    return encode(plain)[:-1] + (b"," if plain else b"")


def _short_body(fields: Mapping[str, Any], hides: Callable[[str], bool] | None) -> bytes | None:
    """Encode a record that is small, of plain kinds and without secrets, as most are; None for any other."""
    if hides is None or type(fields) is not dict or not _OURS.isdisjoint(fields):
        return None
    line = _short_line(b"", fields, hides, 0)
    if line is None:
        return None
    return line[:-1] + b"," if fields else b"{"


def joined_body(before: bytes, context: dict[str, Any], hides: Callable[[str], bool]) -> bytes | None:
    """Encode a record whose last field is its context, behind what is encoded already; None where that is not short.

    Args:
        before: All other members, with the brace.
        context: The fields of the context.
        hides: Says whether the value of a field of this name is redacted.
    """
    line = _short_line(before + b',"context":', context, hides, 1)
    return None if line is None else line + b","


def _short_line(before: bytes, fields: dict[str, Any], hides: Callable[[str], bool], depth: int) -> bytes | None:
    if not _is_plain(fields, hides, depth):
        return None
    try:
        line = before + orjson.dumps(fields, None, orjson.OPT_STRICT_INTEGER)
    except TypeError:  # a lone surrogate, a key that is no text, or an integer that is too large
        return None
    # Within so few bytes, no bound is reached; and what would have to be escaped is left to `encode`.
    return None if len(line) > _MOST_BYTES or not line.isascii() or _DELETE in line else line


def _is_plain(fields: dict[str, Any], hides: Callable[[str], bool], depth: int) -> bool:
    for name, value in list(fields.items()):
        if depth and (type(name) is not str or hides(name)):
            return False
        kind = type(value)
        if kind not in _PLAIN and not (
            (kind is float and math.isfinite(value))
            or (kind is dict and depth < _DEEPEST and _is_plain(value, hides, depth + 1))
        ):
            return False
    return True


def seal(bodies: Iterable[bytes], before: Place, key: bytes | None, *, is_first: bool) -> tuple[bytes, Place]:
    """Make the lines of records.

    Args:
        bodies: From `record_bodies`.
        before: The record they follow.
        key: The secret of the trail.
        is_first: Whether the first of them is the first that is written beside a new head.

    Returns:
        The lines, one behind the other, and the place of the last.
    """
    sequence, last = before.sequence, before.hash.encode()
    mark = _FIRST_MARK if is_first else b""
    parts: list[bytes] = []
    for body in bodies:
        sequence += 1
        unsealed = b'%b%b"seq":%d,"prev":"%b"' % (body, mark, sequence, last)
        last = digest(unsealed, key).encode()
        parts += unsealed, _HASH_MARK, last, _END
        mark = b""
    return b"".join(parts), Place(sequence, last.decode())


def digest(content: bytes, key: bytes | None) -> str:
    """Hash with or without a key."""
    return hashlib.sha256(content).hexdigest() if key is None else hmac.digest(key, content, "sha256").hex()


def sign(purpose: bytes, fields: Mapping[str, Any], key: bytes | None) -> bytes:
    """Make a line that says who wrote it; *purpose* keeps it from being taken for another kind of line."""
    return sign_members(purpose, orjson.dumps(fields)[:-1], key)


def sign_members(purpose: bytes, body: bytes, key: bytes | None) -> bytes:
    """Do so with fields that are encoded already, less the last brace."""
    return body + _SIGN_MARK + digest(purpose + b"\n" + body, key).encode() + _END


def signed(purpose: bytes, line: bytes, key: bytes | None) -> dict[str, Any] | None:
    """Read a line of `sign`; None if it was changed, or written with another key or for another purpose."""
    body, mark, rest = line.rpartition(_SIGN_MARK)
    sound = hmac.compare_digest(digest(purpose + b"\n" + body, key).encode() + _END, rest)
    if not mark or not sound:
        return None
    try:
        fields = orjson.loads(body + b"}")
    except ValueError:  # without a key, anyone can make the hash fit
        return None
    return fields if isinstance(fields, dict) else None


def signed_place(fields: Mapping[str, Any]) -> Place | None:
    """The place that a line of `sign` names; None if it names none."""
    sequence, found = fields.get("seq"), fields.get("hash")
    if type(sequence) is not int or not 0 <= sequence <= _LARGEST_INTEGER or not isinstance(found, str):
        return None
    return Place(sequence, found) if _HASH.fullmatch(found) else None


def place_of(line: bytes) -> Place:
    """The place of a line; `START` for none, and number -1 for what is no record."""
    if not line:
        return START
    try:
        record = orjson.loads(line)
        place = Place(int(record["seq"]), str(record["hash"]))
        return place if _HASH.fullmatch(place.hash) else _NOWHERE
    except (ValueError, LookupError, TypeError, OverflowError):
        return _NOWHERE


def last_line(descriptor: int, end: int) -> tuple[int, bytes]:
    """Where the last whole line of a file ends, and that line; a record may be longer than one step backwards."""
    size = _TAIL_BYTES
    while True:
        start = max(0, end - size)
        tail = read_at(descriptor, start, end)
        whole = tail.rfind(b"\n") + 1
        before = tail.rfind(b"\n", 0, max(whole - 1, 0))
        if start == 0 or (whole and before >= 0):
            return start + whole, tail[before + 1 : whole]
        size *= 4


def read_at(descriptor: int, start: int, end: int) -> bytes:
    """Read a stretch of an open file, less where the file ends sooner."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, end - start, start)
    os.lseek(descriptor, start, os.SEEK_SET)
    return os.read(descriptor, end - start)


class Chain:
    """Judges the lines of a trail, one after the other.

    Args:
        start: The place before the first line.
        key: The secret of the trail.
        head: The place its head names, if it has one.
        is_marked: Whether a record before the first line was written beside a new head.

    Attributes:
        place: The last record that was found intact.
        is_marked: Whether a record so far was written beside a new head.
    """

    def __init__(self, start: Place, key: bytes | None, head: Place | None = None, *, is_marked: bool = False) -> None:
        self.place = start
        self.is_marked = is_marked
        self._key = key
        self._head = head

    def fault(self, line: bytes) -> str:
        """Say what is wrong with the next line; if nothing is, the chain has grown by it."""
        expected = self.place.sequence + 1
        body, mark, rest = line.rpartition(_HASH_MARK)
        if not line:
            return "from here on the file cannot be unpacked"
        if not mark:
            return "it is no audit record"
        found = digest(body, self._key)
        if not hmac.compare_digest(found.encode() + _END, rest):
            return f"record {expected} was changed, or written with another key"
        number = place_of(line).sequence
        if number != expected:
            return f"record {expected} should stand here, but this is record {number}: records are missing or added"
        reason = self._misplaced(orjson.loads(line), found)
        if not reason:
            self.place = Place(expected, found)
        return reason

    def _misplaced(self, record: dict[str, Any], found: str) -> str:
        expected = self.place.sequence + 1
        if record.get("prev") != self.place.hash:
            return f"record {expected} does not follow the record before it"
        if "head" in record and self.is_marked:
            return f"record {expected} began a new audit.head: the one before was removed, and records may be missing"
        if self._head is not None and self._head.sequence == expected and self._head.hash != found:
            return f"record {expected} is not the one that audit.head names"
        self.is_marked = self.is_marked or "head" in record
        return ""
