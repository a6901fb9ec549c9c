"""Records of loguru's own ``logger``, for those who use it: ``loguru.logger.add(capture_sink)``.

loguru is not imported here: what it hands to a function says everything.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config._channels import ROOT
from ml_pipeline.config._log_format import EXTRA_KEY

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

__all__ = ["LoguruSink"]

_HANDING_ON: Final = logging.Logger.callHandlers.__code__
_MOST_FRAMES: Final = 60


class LoguruSink:
    """A sink for loguru that writes its records as those of any other library.

    A record that came to loguru from `logging`, as some programs arrange it, is written once: not here if our handler
    had it, or if other loggers are captured.

    Args:
        write: Writes one record with the ids of its context.
        is_captured: Says whether records of other loggers are written anyway.
    """

    def __init__(self, write: Callable[[logging.LogRecord], None], is_captured: Callable[[], bool]) -> None:
        self._write = write
        self._is_captured = is_captured
        self.__name__ = "capture_sink"  # loguru shows it where a sink has failed

    def __call__(self, message: Any) -> None:
        """Write what loguru hands over.

        Args:
            message: A text with ``record``, a dictionary.
        """
        with _runtime.guard("loguru"):
            origin = _origin(sys._getframe(1))
            if origin is None or not (_is_ours(origin) or self._is_captured()):
                self._write(_record_of(message))


def _record_of(message: Any) -> logging.LogRecord:
    told = getattr(message, "record", None)
    if not isinstance(told, dict):  # not loguru: a text alone
        return logging.LogRecord("loguru", logging.INFO, "", 0, str(message).rstrip("\n"), None, None)
    error = told.get("exception")
    caught = None if error is None else (error.type, error.value, error.traceback)
    level, place = told["level"], getattr(told.get("file"), "path", "")
    record = logging.LogRecord(
        str(told.get("name") or "loguru"), level.no, place, told.get("line", 0), told["message"], None, caught,
        told.get("function"),
    )  # fmt: skip
    record.levelname = level.name
    record.created = told["time"].timestamp()
    record.threadName = getattr(told.get("thread"), "name", record.threadName)
    record.process = getattr(told.get("process"), "id", record.process)
    extra = dict(told.get("extra") or {})
    given = {key: extra.pop(key, None) for key in ("operation", "user_id")}
    setattr(record, EXTRA_KEY, {**given, "context": extra})
    return record


def _origin(frame: FrameType | None) -> str | None:
    """The name of the logger whose record is being handed on further up this stack; None where there is none."""
    for _ in range(_MOST_FRAMES):
        if frame is None:
            return None
        if frame.f_code is _HANDING_ON:
            return str(getattr(frame.f_locals.get("record"), "name", ""))
        frame = frame.f_back
    return None


def _is_ours(name: str) -> bool:
    return name == ROOT or name.startswith(ROOT + ".")
