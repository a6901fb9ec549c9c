"""A journal of open operations on disk, so that the next start can tell which ones a killed process left open."""

from __future__ import annotations

import os
import platform
import re
import threading
from typing import TYPE_CHECKING, Any, Final

import orjson

from ml_pipeline import _platform
from ml_pipeline.config._encoding import dumps
from ml_pipeline.config._ids import new_id
from ml_pipeline.config._log_files import AppendFile
from ml_pipeline.config._redaction import current

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

__all__ = ["OperationJournal"]

_NAME: Final = re.compile(r"(?P<host>[^_]+)_(?P<pid>\d+)_(?P<start>[\d.]+)_[0-9a-f]+\.jsonl")
_COMPACT_BYTES: Final = 1 << 18
_EXEMPT: Final = (
    frozenset({"start", "end"}),
    frozenset({"operation_id", "parent_id", "run_id", "user_id", "pipeline", "kind"}),
)


class OperationJournal:
    """One file a process and journal: a line when an operation starts, a line when it ends; removed at a clean end.

    The file's name says who writes it: host, pid and start time of the process. A file whose process is gone holds the
    operations that process never ended. Files of other hosts are left to those hosts. Thread-safe. Its size is bounded
    by what is open: a file that has grown past that is replaced by one that holds nothing else.

    Args:
        folder: Where the journals of all processes lie.
        open_operations: What is open already, as `started` takes it.
        process_start: Names the moment a pid's process started, or None where it is gone.
    """

    def __init__(
        self,
        folder: Path,
        open_operations: Iterable[Mapping[str, Any]] = (),
        process_start: Callable[[int], str | None] = _platform.process_start,
    ) -> None:
        self._folder = folder
        self._process_start = process_start
        self._host = re.sub(r"[^A-Za-z0-9.-]", "-", platform.node()) or "host"
        self._stem = f"{self._host}_{os.getpid()}_{process_start(os.getpid()) or 0}"
        self._file = AppendFile(self._new_path())
        self._lock = threading.RLock()
        self._open: dict[str, Mapping[str, Any]] = {}
        self._written = 0
        self._compact_at = _COMPACT_BYTES
        for operation in open_operations:
            self.started(operation)

    def started(self, operation: Mapping[str, Any]) -> None:
        """Record that an operation is open; one that is recorded already is not recorded again.

        Args:
            operation: What is needed to report it later; ``operation_id`` is its key.

        Raises:
            OSError: If it could not be written.
        """
        with self._lock:
            if operation["operation_id"] not in self._open:
                self._open[operation["operation_id"]] = operation
                self._append({"start": operation})

    def ended(self, operation_id: str) -> None:
        """Record that it ended, however it ended.

        Raises:
            OSError: If it could not be written.
        """
        with self._lock:
            if self._open.pop(operation_id, None) is None:
                return
            self._append({"end": operation_id})
            if self._written > self._compact_at:
                self._compact()

    def close(self) -> None:
        """Remove the file: nothing is open, or what is open is recorded elsewhere."""
        with self._lock:
            self._file.close()
            self._file.path.unlink(missing_ok=True)
            self._written = 0

    def left_behind(self) -> list[dict[str, Any]]:
        """Take over what processes that are gone left open; each operation is handed out once.

        Returns:
            The operations as `started` got them, oldest first. They count as open here until `ended` is called, so that
            nothing is lost if this process is killed before it has reported them.
        """
        found: dict[str, dict[str, Any]] = {}
        for path in self._orphans():
            found.update(self._claim(path))
        return [found[operation_id] for operation_id in sorted(found)]

    def _new_path(self) -> Path:
        return self._folder / f"{self._stem}_{new_id()[-12:]}.jsonl"

    def _append(self, entry: Mapping[str, Any]) -> None:
        line = _line(entry)
        self._written += len(line)
        self._file.write(line)

    def _compact(self) -> None:
        lines = b"".join(_line({"start": operation}) for operation in self._open.values())
        self._file.close()
        _platform.replace_durably(self._file.path, lines)
        self._written = len(lines)
        self._compact_at = max(_COMPACT_BYTES, 2 * len(lines))

    def _orphans(self) -> list[Path]:
        if not self._folder.is_dir():
            return []
        found = []
        for path in sorted(self._folder.iterdir()):
            name = _NAME.fullmatch(path.name)
            if name and name["host"] == self._host and self._process_start(int(name["pid"])) != name["start"]:
                found.append(path)
        return found

    def _claim(self, path: Path) -> dict[str, dict[str, Any]]:
        claimed = self._new_path()
        try:
            path.rename(claimed)  # atomic: of two processes that start together, one gets it
        except FileNotFoundError:
            return {}
        operations = _unfinished(claimed)
        for operation in operations.values():
            self.started(operation)
        claimed.unlink()
        return operations


def _line(entry: Mapping[str, Any]) -> bytes:
    return dumps(entry, current(), _EXEMPT) + b"\n"


def _unfinished(path: Path) -> dict[str, dict[str, Any]]:
    started: dict[str, dict[str, Any]] = {}
    ended: set[str] = set()
    for line in path.read_bytes().splitlines():
        try:
            entry = orjson.loads(line)
        except ValueError:  # the line its writer was killed in
            continue
        start = entry.get("start") if isinstance(entry, dict) else None
        if isinstance(start, dict) and isinstance(start.get("operation_id"), str):
            started[start["operation_id"]] = start
        elif isinstance(entry, dict):
            ended.add(str(entry.get("end")))
    return {key: operation for key, operation in started.items() if key not in ended}
