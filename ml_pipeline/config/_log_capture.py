"""What does not come through our loggers: other loggers, warnings, and exceptions nobody caught."""

from __future__ import annotations

import logging
import sys
import threading
import warnings
from typing import TYPE_CHECKING, Any

from ml_pipeline.config._channels import ROOT
from ml_pipeline.config._log_catch import log_at, place_in

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

__all__ = ["Capture"]


class Capture:
    """Sends foreign records, warnings and uncaught exceptions through our sinks; off until it is started.

    Starting twice is starting once, and stopping puts back what was there before. Records of our own loggers pass by:
    their handler has them already.

    Args:
        logger: Where uncaught exceptions are logged.
        write: Writes one record with the ids of its context.
    """

    def __init__(self, logger: logging.Logger, write: Callable[[logging.LogRecord], None]) -> None:
        self._logger = logger
        self._handler = _Foreign(write)
        self._hooks: tuple[Any, Any] | None = None
        self._captures_warnings = False

    @property
    def handler(self) -> logging.Handler:
        """The handler that stands at the root while captured; it passes our own records by."""
        return self._handler

    def start(self) -> None:
        """Begin to capture."""
        if self._hooks is not None:
            return
        self._hooks = (sys.excepthook, threading.excepthook)
        logging.getLogger().addHandler(self._handler)
        before = warnings.showwarning
        logging.captureWarnings(capture=True)
        self._captures_warnings = warnings.showwarning is not before  # otherwise the program had asked for it itself
        sys.excepthook = self._uncaught
        threading.excepthook = self._uncaught_in_thread

    def stop(self) -> None:
        """Stop capturing; hooks that someone set since then are left to them."""
        if self._hooks is None:
            return
        before, before_in_threads = self._hooks
        self._hooks = None
        logging.getLogger().removeHandler(self._handler)
        if self._captures_warnings:
            logging.captureWarnings(capture=False)
        if sys.excepthook == self._uncaught:
            sys.excepthook = before
        if threading.excepthook == self._uncaught_in_thread:
            threading.excepthook = before_in_threads

    def _uncaught(self, kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if issubclass(kind, Exception):
            self._tell("Uncaught exception", kind, error, trace)
        (self._hooks[0] if self._hooks else sys.__excepthook__)(kind, error, trace)

    def _uncaught_in_thread(self, arguments: threading.ExceptHookArgs) -> None:
        if issubclass(arguments.exc_type, Exception) and arguments.exc_value is not None:
            name = arguments.thread.name if arguments.thread else "a thread"
            self._tell(
                f"Uncaught exception in {name}", arguments.exc_type, arguments.exc_value, arguments.exc_traceback
            )
        (self._hooks[1] if self._hooks else threading.__excepthook__)(arguments)

    def _tell(self, message: str, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        raised = trace
        while raised is not None and raised.tb_next is not None:
            raised = raised.tb_next
        if self._logger.isEnabledFor(logging.CRITICAL):
            log_at(self._logger, logging.CRITICAL, message, place_in(raised), exc_info=(kind, error, trace))


class _Foreign(logging.Handler):
    def __init__(self, write: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._write = write

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != ROOT and not record.name.startswith(ROOT + "."):
            self._write(record)
