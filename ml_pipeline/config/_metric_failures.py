"""Failures of late and what made them good, kept on disk so that the next process tells of both.

Metrics live as long as their process. One that failed and ended before anybody scraped it would have failed unseen, and
one that then succeeded would have succeeded unseen: the next process starts with the times of both.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from datetime import datetime
from typing import TYPE_CHECKING, Final, NamedTuple

import orjson

from ml_pipeline import _platform, _runtime
from ml_pipeline.config._encoding import dumps, rfc3339

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Ends", "OpenFailures"]

_STEM_CHARACTERS: Final = 16
_KEPT_SECONDS: Final = 7 * 86_400.0
"""Past it a failure that nothing made good, such as that of a step no longer done, is nobody's news."""
_UNREADABLE: Final = (ValueError, LookupError, TypeError)


class Ends(NamedTuple):
    """When a kind of operation last failed, and when it first succeeded after that, in seconds since the epoch."""

    failure: float
    success: float | None = None


class OpenFailures:
    """One small file for each pipeline and kind of operation that has failed within a week.

    Processes may share the folder: each file is replaced as a whole. It is not synchronised to the disk, because a step
    may fail a thousand times a second; after a power cut the newest may be missing.

    Args:
        folder: Says where the files lie; asked each time, because settings change.
        now: Seconds since the epoch.
    """

    def __init__(
        self,
        folder: Callable[[], Path] = lambda: _runtime.settings().data_dir / "failed",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._folder = folder
        self._now = now

    def failed(self, pipeline: str, kind: str, at: float) -> None:
        """Remember a failure.

        Args:
            pipeline: Whose operation failed.
            kind: Of the operation.
            at: When, in seconds since the epoch.
        """
        with _runtime.guard("open_failures"):
            self._write(pipeline, kind, Ends(at))

    def succeeded(self, pipeline: str, kind: str, at: float) -> None:
        """Remember that the failure of a kind of operation was made good; without one, nothing is written.

        Args:
            pipeline: As in `failed`, like the others.
            kind: Of the operation.
            at: When.
        """
        with _runtime.guard("open_failures"), contextlib.suppress(FileNotFoundError):
            path = self._path(pipeline, kind)
            _, ends = _read(path)
            if ends is None:
                path.unlink()
            elif ends.success is None:
                self._write(pipeline, kind, Ends(ends.failure, at))

    def of(self, pipeline: str) -> dict[str, Ends]:
        """Return the ends of each kind of operation of a pipeline that failed within a week, and drop older ones."""
        found: dict[str, Ends] = {}
        with _runtime.guard("open_failures"):
            for path in self._folder().glob(f"{_stem(pipeline)}.*.json"):
                with contextlib.suppress(FileNotFoundError):  # another process dropped it
                    kind, ends = _read(path)
                    if ends is None or ends.failure < self._now() - _KEPT_SECONDS:
                        path.unlink()
                    else:
                        found[kind] = ends
        return found

    def _write(self, pipeline: str, kind: str, ends: Ends) -> None:
        path = self._path(pipeline, kind)
        told = {"pipeline": pipeline, "kind": kind, "failure": rfc3339(ends.failure)}
        if ends.success is not None:
            told["success"] = rfc3339(ends.success)
        _platform.replace_whole(path, dumps(told))

    def _path(self, pipeline: str, kind: str) -> Path:
        return self._folder() / f"{_stem(pipeline)}.{kind}.json"


def _read(path: Path) -> tuple[str, Ends | None]:
    """The kind and its ends; None for those of a file that a full disk left cut off."""
    content = path.read_bytes()
    with contextlib.suppress(*_UNREADABLE):
        told = orjson.loads(content)
        failure, success = (
            datetime.fromisoformat(told[name]).timestamp() if name in told else None for name in ("failure", "success")
        )
        if failure is not None:
            return str(told["kind"]), Ends(failure, success)
    return "", None


def _stem(pipeline: str) -> str:
    """A name for a file, whatever characters the pipeline's has."""
    return hashlib.sha256(pipeline.encode("utf-8", "replace")).hexdigest()[:_STEM_CHARACTERS]
