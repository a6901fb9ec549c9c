"""Where records go: the files of their channels, and the console."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Final

from ml_pipeline import _runtime
from ml_pipeline.config import _log_events, _redaction
from ml_pipeline.config._channels import AUDIT, CHANNELS, ERRORS, channel_path
from ml_pipeline.config._log_buffer import BufferedFiles, may_wait
from ml_pipeline.config._log_fast import Aim, ShortWay
from ml_pipeline.config._log_files import AppendFiles
from ml_pipeline.config._log_format import first_text_line, json_line, line_fields, text_line

if TYPE_CHECKING:
    from collections.abc import Callable

    from ml_pipeline.config._log_handle import LineFile
    from ml_pipeline.settings import Settings

__all__ = ["Outlet"]

_ALARMING: Final = ("ERROR", "CRITICAL")


class Outlet:
    """The open files and the console, under one set of settings.

    Args:
        settings: What is written, where, and in which format.
        resolve: Tells, for the name of a logger, its channel and the name shown.
        on_look: Called when a file is looked at, at most once a second each, on the way of a record.
        ours: See `ShortWay`.
        deaf: See `ShortWay`.

    Attributes:
        short: The short way of plain records; None where these settings leave it to ``LogRecord``.
    """

    def __init__(
        self,
        settings: Settings,
        resolve: Callable[[str], tuple[str, str]],
        on_look: Callable[[], object],
        *,
        ours: list[logging.Handler],
        deaf: list[logging.Handler],
    ) -> None:
        self._resolve = resolve
        files = AppendFiles.of(settings, on_look)
        is_buffered = settings.log_mode == "buffered" and may_wait()
        self._buffers = BufferedFiles(files, settings.log_flush_seconds, _lost) if is_buffered else None
        self._files = self._buffers or files
        self._text = settings.log_format == "text"
        self._console = settings.log_console
        redaction = _redaction.current()
        self.short: ShortWay | None = None
        if not (self._text or redaction.patterned):
            show = None if self._console == "off" else self._show_message
            self.short = ShortWay(settings.name, redaction.hides, self._aim, show, _lost, ours=ours, deaf=deaf)
        for channel in CHANNELS.keys() - {AUDIT}:
            for level in _ALARMING:  # a counter that is born at 1 never satisfies `increase() > 0`
                _runtime.tally.log_records.cell((channel, level))

    def write(self, record: logging.LogRecord) -> None:
        """Write a record to the files of its channel, and to the console."""
        channel, shown = self._resolve(record.name)
        if channel == AUDIT:  # a plain logger below the audit logger: no line may stand outside the chain
            _log_events.publish_audit_record(record)
            return
        line = b""
        with _runtime.guard("logging_config", _count_dropped):
            line = self._line(record, channel, shown)
        if line:
            self._append(channel, record, line)
            if record.levelno >= logging.ERROR and channel != ERRORS:
                self._append(ERRORS, record, line)
        with _runtime.guard("console"):
            self._show(lambda coloured: text_line(record, shown, coloured=coloured))

    def forget_targets(self) -> None:
        """Look up anew where each logger's records go."""
        if self.short is not None:
            self.short.forget_targets()

    def close(self) -> None:
        """Close the files."""
        self._files.close()

    def flush(self) -> None:
        """Write what waits in memory."""
        if self._buffers is not None:
            self._buffers.flush()

    def _aim(self, logger: str, level: int) -> Aim:
        channel, shown = self._resolve(logger)
        if channel == AUDIT:
            raise LookupError("the audit trail is no file of lines")
        channels = (channel, ERRORS) if level >= logging.ERROR and channel != ERRORS else (channel,)
        return Aim(channel, shown, [(each, self._file(each, level)) for each in channels])

    def _file(self, channel: str, level: int) -> LineFile:
        path = channel_path(channel)
        return self._files[path] if self._buffers is None or level < logging.ERROR else self._buffers.urgent(path)

    def _show_message(self, created: float, level: str, shown: str, message: str) -> None:
        with _runtime.guard("console"):
            self._show(lambda coloured: first_text_line(created, level, shown, message, coloured=coloured) + "\n")

    def _line(self, record: logging.LogRecord, channel: str, shown: str) -> bytes:
        if self._text:
            return text_line(record, shown).encode("utf-8", "backslashreplace")
        return json_line(line_fields(record, channel, shown))

    def _append(self, channel: str, record: logging.LogRecord, line: bytes) -> None:
        with _runtime.guard("logging_config", _count_dropped):
            self._file(channel, record.levelno).write(line)
            _runtime.tally.log_records.cell((channel, record.levelname))[0] += 1

    def _show(self, text: Callable[[bool], str]) -> None:
        if self._console == "off" or (self._console == "auto" and _root_shows()):
            return
        stream = sys.stderr
        if stream is not None and not getattr(stream, "closed", False):
            stream.write(text(_log_events.takes_colour(stream)))
            stream.flush()


def _lost(error: Exception, lines: int = 1) -> None:
    with _runtime.guard("logging_config", lambda error: _count_dropped(error, lines)):
        raise error


def _count_dropped(error: Exception, lines: int = 1) -> None:
    _runtime.tally.log_records_dropped[type(error).__name__] += lines


def _root_shows() -> bool:
    return any(
        isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
        for handler in logging.getLogger().handlers
    )
