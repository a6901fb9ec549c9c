"""``alerts.json``: the newest alerts as one JSON array, for people and for tools that read files."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ml_pipeline import _platform
from ml_pipeline.config._encoding import encode
from ml_pipeline.config._worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from ml_pipeline.config._alert_records import Alert

__all__ = ["NEWEST", "HistoryFile"]

NEWEST: Final = 10_000
"""How many alerts the file holds."""

_SHORTEST_SECONDS: Final = 1.0
_MOST_OF_THE_TIME: Final = 0.1


class HistoryFile:
    """Replaces the file whole, off the caller's thread, at most once a second and for at most a tenth of the time.

    Args:
        path: The file.
        lock: A file that processes which write the same history take turns with.
        newest: Returns the alerts to write, newest first.
    """

    def __init__(self, path: Path, lock: Path, newest: Callable[[], Iterable[Alert]]) -> None:
        self._path = path
        self._lock = lock
        self._newest = newest
        self._worker = Worker("alerting")
        self._took_seconds = 0.0

    def touch(self) -> None:
        """Have the file written soon."""
        delay = max(_SHORTEST_SECONDS, self._took_seconds / _MOST_OF_THE_TIME)
        self._worker.submit(self._path.name, self._write, delay_seconds=delay)

    def flush(self) -> None:
        """Write the file now."""
        self.touch()
        self._worker.flush()

    def close(self) -> None:
        """Write what is still to be written, and end."""
        self._worker.close()

    def _write(self) -> None:
        started = time.monotonic()
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        _platform.make_group_folder(self._path.parent)
        with self._lock.open("ab") as turn:
            _platform.lock_exclusive(turn.fileno())
            try:
                lines = [encode(alert.to_dict()) for alert in self._newest()]
                _platform.replace_durably(self._path, b"[\n" + b",\n".join(lines) + b"\n]\n" if lines else b"[]\n")
            finally:
                _platform.unlock(turn.fileno())
        self._took_seconds = time.monotonic() - started
