"""Failures that nothing has made good yet, kept on disk so that the next process tells of them too.

Metrics live as long as their process. One that failed and ended before anybody scraped it would have failed unseen: its
successor therefore starts with the time of that failure, until the same kind of operation succeeds.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Final

import orjson

from ml_pipeline import _runtime
from ml_pipeline.config._encoding import dumps, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["OpenFailures"]

_STEM_CHARACTERS: Final = 16
_UNREADABLE: Final = (OSError, ValueError, LookupError, TypeError)


class OpenFailures:
    """One small file for each pipeline and kind of operation whose last end was a failure.

    Processes may share the folder: each file is replaced as a whole, and a success removes it whoever wrote it.

    Args:
        folder: Says where the files lie; asked each time, because settings change.
    """

    def __init__(self, folder: Callable[[], Path] = lambda: _runtime.settings().data_dir / "failed") -> None:
        self._folder = folder

    def failed(self, pipeline: str, kind: str, time: float) -> None:
        """Remember a failure.

        Args:
            pipeline: Whose operation failed.
            kind: Of the operation.
            time: When, in seconds since the epoch.
        """
        with _runtime.guard("open_failures"):
            path = self._path(pipeline, kind)
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_native_id()}.partial")
            partial.write_bytes(dumps({"pipeline": pipeline, "kind": kind, "time": rfc3339(time)}))
            partial.replace(path)

    def made_good(self, pipeline: str, kind: str) -> None:
        """Forget the failures of a kind of operation, which has just succeeded."""
        with _runtime.guard("open_failures"), contextlib.suppress(FileNotFoundError):
            os.unlink(self._path(pipeline, kind))  # noqa: PTH108 - at every success: half the time of its method

    def of(self, pipeline: str) -> dict[str, float]:
        """Return when each kind of operation of a pipeline failed that did not succeed since, in seconds."""
        found: dict[str, float] = {}
        with _runtime.guard("open_failures"):
            for path in self._folder().glob(f"{_stem(pipeline)}.*.json"):
                with contextlib.suppress(*_UNREADABLE):  # half a file of a full disk tells nothing
                    told = orjson.loads(path.read_bytes())
                    found[str(told["kind"])] = datetime.fromisoformat(told["time"]).timestamp()
        return found

    def _path(self, pipeline: str, kind: str) -> Path:
        return self._folder() / f"{_stem(pipeline)}.{kind}.json"


def _stem(pipeline: str) -> str:
    """A name for a file, whatever characters the pipeline's has."""
    return hashlib.sha256(pipeline.encode("utf-8", "replace")).hexdigest()[:_STEM_CHARACTERS]
