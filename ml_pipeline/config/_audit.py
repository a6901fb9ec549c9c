"""The audit trail: one JSON line a record, each holding the hash of the one before it.

The hash of a line is SHA-256, or HMAC-SHA256 with a key, over its bytes before ``,"hash":``. Because ``prev`` stands
before that, a line vouches for every line above it. Without a key, someone who can write the file can also compute a
new chain: then only a copy kept elsewhere shows it.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import orjson

from ml_pipeline import _platform
from ml_pipeline.config._encoding import encode, to_plain
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["AuditReport", "AuditTrail", "read_key", "verify"]

GENESIS: Final = "0" * 64
"""What stands for the hash before the first record."""

_HASH_MARK: Final = b',"hash":"'
_TAIL_BYTES: Final = 1 << 16
_FEWEST_KEY_BYTES: Final = 16


class AuditTrail:
    """Appends records to one file, each on disk when `append` returns; threads and processes may share it.

    Args:
        path: The file.
        key: Secret for HMAC; None for plain hashes.
    """

    def __init__(self, path: Path, key: bytes | None = None) -> None:
        self._path = path
        self._key = key
        self._lock = threading.RLock()
        self._writing = False
        self._interrupting: deque[Mapping[str, Any]] = deque()
        self._descriptor: int | None = None
        self._end = 0
        self._sequence = 0
        self._previous = GENESIS

    def append(self, fields: Mapping[str, Any]) -> None:
        """Write one record.

        Args:
            fields: What it says; ``seq``, counted from 1, ``prev`` and ``hash`` are added.

        Raises:
            OSError: If it is not on disk; the trail then ends where it ended before.
        """
        with self._lock:
            if self._writing:  # a signal handler or ``__del__`` inside the write below, which takes this along
                self._interrupting.append(fields)
                return
            self._append(fields)
            while True:
                try:
                    waiting = self._interrupting.popleft()
                except IndexError:
                    return
                self._append(waiting)

    def _append(self, fields: Mapping[str, Any]) -> None:
        self._writing = True
        try:
            with self._locked() as descriptor:
                self._catch_up(descriptor)
                self._write(descriptor, fields)
        finally:
            self._writing = False

    def check(self) -> None:
        """Make sure that a record could be written now.

        Raises:
            OSError: If the file cannot be opened, locked or synchronised.
        """
        with self._lock, self._locked() as descriptor:
            os.fsync(descriptor)

    def close(self) -> None:
        """Close the file; a later record opens it again."""
        with self._lock:
            if self._descriptor is not None:
                os.close(self._descriptor)
                self._descriptor = None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The open file, under the lock that keeps other processes out."""
        while True:
            descriptor = self._open()
            _platform.lock_exclusive(descriptor)
            if self._is_in_place(descriptor):
                break
            self.close()  # it was moved or removed: what is written to it now, nobody would find
        try:
            yield descriptor
        finally:
            _platform.unlock(descriptor)

    def _open(self) -> int:
        if self._descriptor is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self._path, flags, 0o640)
        return self._descriptor

    def _is_in_place(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def _catch_up(self, descriptor: int) -> None:
        """Read the last record again if another process wrote since, and cut off one that was never completed."""
        end = os.fstat(descriptor).st_size
        if end == self._end:
            return
        whole, last = _last_line(descriptor, end)
        if whole != end:  # its writer was killed before `append` returned: nobody was told that it exists
            os.ftruncate(descriptor, whole)
        if whole >= self._end:
            self._sequence, self._previous = _position(last)
        # A file that has shrunk has lost records: the next one keeps its number, and so shows the gap.
        self._end = whole

    def _write(self, descriptor: int, fields: Mapping[str, Any]) -> None:
        # The chain's own fields come after the bounds that a caller's fields are cut to.
        body = encode({**to_plain(fields), "seq": self._sequence + 1, "prev": self._previous})[:-1]
        digest = _digest(body, self._key)
        line = body + _HASH_MARK + digest.encode() + b'"}\n'
        try:
            rest = line
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fsync(descriptor)
        except OSError:
            os.ftruncate(descriptor, self._end)
            raise
        self._sequence, self._previous, self._end = self._sequence + 1, digest, self._end + len(line)


@dataclass(frozen=True, slots=True)
class AuditReport:
    """What `verify` found.

    Attributes:
        intact: Whether every record is as it was written.
        records: How many records are intact, from the first on.
        line: The first line that is not, counted from 1; None where all are.
        reason: What is wrong with it.
        torn: Whether the file ends in a record that was never completed, which is no tampering.
    """

    intact: bool
    records: int
    line: int | None = None
    reason: str = ""
    torn: bool = False


def verify(path: Path, key: bytes | None = None) -> AuditReport:
    """Walk the chain of an audit file and find the first record that was changed, removed or inserted.

    Args:
        path: The file.
        key: The secret it was written with.

    Returns:
        The report; a file that does not exist or is empty is intact and has no records.

    Raises:
        OSError: If the file cannot be read.
    """
    previous, count = GENESIS, 0
    for number, line in _lines(path):
        if not line.endswith(b"\n"):
            return AuditReport(intact=True, records=count, torn=True)
        reason = _fault(line, count + 1, previous, key)
        if reason:
            return AuditReport(intact=False, records=count, line=number, reason=reason)
        previous, count = _position(line)[1], count + 1
    return AuditReport(intact=True, records=count)


def read_key(path: Path | None) -> bytes | None:
    """Read the secret of the audit trail.

    Args:
        path: The file that holds it; white space around it is dropped.

    Returns:
        The secret; None without a file.

    Raises:
        SettingsError: If the file cannot be read or holds fewer than 16 bytes.
    """
    if path is None:
        return None
    try:
        key = path.read_bytes().strip()
    except OSError as unreadable:
        raise SettingsError(
            "ML_PIPELINE_AUDIT_KEY_FILE must be a readable file", str(path), f"correct it ({unreadable.strerror})"
        ) from None
    if len(key) < _FEWEST_KEY_BYTES:
        raise SettingsError(
            f"the key in ML_PIPELINE_AUDIT_KEY_FILE must have at least {_FEWEST_KEY_BYTES} bytes",
            f"{len(key)} bytes",
            "write a longer one, for instance with `openssl rand -hex 32`",
        )
    return key


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        yield from enumerate(file, 1)


def _fault(line: bytes, sequence: int, previous: str, key: bytes | None) -> str:
    body, mark, rest = line.rpartition(_HASH_MARK)
    if not mark:
        return "it is no audit record"
    if not hmac.compare_digest(_digest(body, key).encode(), rest.removesuffix(b'"}\n')):
        return f"record {sequence} was changed, or written with another key"
    found, _ = _position(line)
    if found != sequence:
        return f"record {sequence} should stand here, but this is record {found}: records are missing or added"
    if orjson.loads(line).get("prev") != previous:
        return f"record {sequence} does not follow the record before it"
    return ""


def _digest(body: bytes, key: bytes | None) -> str:
    return hashlib.sha256(body).hexdigest() if key is None else hmac.new(key, body, hashlib.sha256).hexdigest()


def _position(line: bytes) -> tuple[int, str]:
    """Sequence number and hash of a line; (0, GENESIS) before the first, (-1, …) for what is no record."""
    if not line:
        return 0, GENESIS
    try:
        record = orjson.loads(line)
        return int(record["seq"]), str(record["hash"])
    except (ValueError, LookupError, TypeError, OverflowError):
        return -1, GENESIS


def _last_line(descriptor: int, end: int) -> tuple[int, bytes]:
    """Where the last whole line ends, and that line; a record may be longer than one step backwards."""
    size = _TAIL_BYTES
    while True:
        start = max(0, end - size)
        tail = os.pread(descriptor, end - start, start) if hasattr(os, "pread") else _read_at(descriptor, start, end)
        whole = tail.rfind(b"\n") + 1
        before = tail.rfind(b"\n", 0, max(whole - 1, 0))
        if start == 0 or (whole and before >= 0):
            return start + whole, tail[before + 1 : whole]
        size *= 4


def _read_at(descriptor: int, start: int, end: int) -> bytes:
    os.lseek(descriptor, start, os.SEEK_SET)
    return os.read(descriptor, end - start)
