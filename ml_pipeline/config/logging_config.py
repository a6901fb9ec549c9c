"""Structured logging on the standard ``logging`` API: channels, two formats, and the audit trail.

Use it like any logger::

    from ml_pipeline.config.logging_config import get_logger, log_operation, main_logger

    main_logger.info("Processing data", extra=log_operation(operation="data_processing", user_id="user123"))
    get_logger("training.model_training").info("epoch %d", 3)

One handler on the logger ``ml_pipeline`` writes each record to the file of its channel (`CHANNELS`), ERROR and up also
to ``errors.log``, and to the console. Loggers below it propagate as always, so ``caplog`` and handlers of one's own see
every record. Importing this module opens nothing; files are opened by the first record that goes to them.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config import _events, _log_events
from ml_pipeline.config._audit import AuditTrail, read_key
from ml_pipeline.config._channels import AUDIT, CHANNELS, ERRORS, ROOT, Channel, LoggerNames, channel_path
from ml_pipeline.config._log_files import AppendFiles
from ml_pipeline.config._log_format import EXTRA_KEY, JSON_KEYS, json_line, line_fields, text_line
from ml_pipeline.errors import OperationStateError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_pipeline.settings import Settings

__all__ = [
    "CHANNELS",
    "JSON_KEYS",
    "AuditLogger",
    "Channel",
    "PipelineLogger",
    "audit_logger",
    "get_logger",
    "log_operation",
    "main_logger",
]

_names: Final = LoggerNames()


class PipelineLogger(logging.Logger):
    """A standard logger whose level comes from the settings until someone sets another."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's own name
        """Say whether a record of this level would be written; see `logging.Logger.isEnabledFor`."""
        _level.get()
        return super().isEnabledFor(level)

    def getEffectiveLevel(self) -> int:  # noqa: N802 - logging's own name
        """Return the level in force; see `logging.Logger.getEffectiveLevel`."""
        _level.get()
        return super().getEffectiveLevel()


class AuditLogger(PipelineLogger):
    """A logger whose records go to the audit trail alone, whatever levels and ``disabled`` say.

    The message is the action; ``extra=log_operation(user_id=…, object=…, version=…, result=…)`` says who, what and how
    it ended.
    """

    def isEnabledFor(self, level: int) -> bool:  # noqa: ARG002, N802 - logging's own signature
        """Say yes: nothing but a failing disk keeps a record from the audit trail."""
        return True

    def handle(self, record: logging.LogRecord) -> None:
        """Publish the record as an `AuditEvent`."""
        _log_events.publish_audit_record(record)


def get_logger(channel: str, name: str | None = None) -> PipelineLogger:
    """Return the logger of a channel.

    Args:
        channel: A key of `CHANNELS`, or ``airflow.<dag_id>``.
        name: What the lines show as their logger; by default the calling module.

    Returns:
        The logger ``ml_pipeline.<channel>.<name>``; the same object for the same arguments.

    Raises:
        UnknownChannelError: If the channel is not in the table; the message names the closest.
    """
    channel_path(channel)
    shown = name or str(sys._getframe(1).f_globals.get("__name__", ROOT))
    logger: PipelineLogger = _adopted(logging.getLogger(_names.register(channel, shown)), PipelineLogger)
    return logger


def log_operation(operation: str | None = None, user_id: str | None = None, **context: Any) -> dict[str, Any]:
    """Make the ``extra=`` of a log call: who does what, and any facts about it.

    Args:
        operation: What is being done; by default the operation around the call.
        user_id: Who is doing it; by default the user around the call.
        **context: Whatever belongs to the line. No name clashes with anything: it lies under ``context``.

    Returns:
        A dictionary for ``extra=``.
    """
    return {EXTRA_KEY: {"operation": operation, "user_id": user_id, "context": context}}


class _Sinks:
    """The open files and the console, under one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self._files = AppendFiles(settings.log_dir)
        self._text = settings.log_format == "text"
        self._console = settings.log_console
        self.audit_required = settings.audit_required
        self.audit = AuditTrail(settings.log_dir / CHANNELS[AUDIT].path, read_key(settings.audit_key_file))

    def write(self, record: logging.LogRecord) -> None:
        channel, shown = _names.resolve(record.name)
        line = (
            text_line(record, shown).encode("utf-8", "backslashreplace")
            if self._text
            else json_line(line_fields(record, channel, shown))
        )
        self._append(channel, channel_path(channel), record, line)
        if record.levelno >= logging.ERROR:
            self._append(ERRORS, CHANNELS[ERRORS].path, record, line)
        self._show(record, shown)

    def close(self) -> None:
        self._files.close()
        self.audit.close()

    def _append(self, channel: str, path: str, record: logging.LogRecord, line: bytes) -> None:
        with _runtime.guard("logging_config", self._dropped):
            self._files[path].write(line)
            _runtime.tally.log_records[channel, record.levelname] += 1

    def _dropped(self, error: Exception) -> None:
        _runtime.tally.log_records_dropped[type(error).__name__] += 1

    def _show(self, record: logging.LogRecord, shown: str) -> None:
        if self._console == "off" or (self._console == "auto" and _root_shows()):
            return
        stream = sys.stderr
        if stream is None or stream.closed:
            return
        with _runtime.guard("console"):
            stream.write(text_line(record, shown, coloured=_log_events.takes_colour(stream)))
            stream.flush()


class _Router(logging.Handler):
    """The one handler on the logger ``ml_pipeline``: inert until a record comes."""

    def emit(self, record: logging.LogRecord) -> None:
        with _runtime.guard("logging_config"):
            _sinks.get().write(record)


def _root_shows() -> bool:
    return any(
        isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
        for handler in logging.getLogger().handlers
    )


def _adopted(logger: logging.Logger, kind: type[PipelineLogger]) -> Any:
    # A logger that someone made before us keeps its handlers, level and children; only its class changes.
    if type(logger) is logging.Logger:
        logger.__class__ = kind
    return logger


class _Level:
    """The level of the logger ``ml_pipeline``, until a user sets another."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._ours = logging.NOTSET

    def apply(self, settings: Settings) -> bool:
        if self._logger.level == self._ours:
            self._logger.setLevel(settings.log_level)
            self._ours = self._logger.level
        return True


def write_audit(fields: Mapping[str, Any]) -> None:
    """Append one record to the audit trail; what cannot be audited is counted, or stops the operation.

    Args:
        fields: The line, without ``seq``, ``prev`` and ``hash``.

    Raises:
        OperationStateError: If it cannot be written and ``ML_PIPELINE_AUDIT_REQUIRED`` is set.
    """
    _audited(lambda trail: trail.append(fields), count=1)


def require_audit() -> None:
    """Make sure, where an audit trail is required, that it can be written before the work starts.

    Raises:
        OperationStateError: If it cannot and ``ML_PIPELINE_AUDIT_REQUIRED`` is set.
    """
    if _runtime.settings().audit_required:
        _audited(lambda trail: trail.check(), count=0)


def _audited(action: Any, *, count: int) -> None:
    _, failed = _runtime.attempt(lambda: action(_sinks.get().audit))
    if failed is None:
        _runtime.tally.audit_records += count
        return
    _runtime.tally.log_records_dropped[f"audit {type(failed).__name__}"] += count
    if _runtime.settings().audit_required:
        _runtime.telemetry_error("audit", failed)
        stop = OperationStateError(
            "an operation that cannot be audited does not run", str(failed), "mend the disk or unset AUDIT_REQUIRED"
        )
        stop.stops_the_job = True
        raise stop
    raise failed


main_logger: Final[PipelineLogger] = _adopted(logging.getLogger(ROOT), PipelineLogger)
audit_logger: Final[AuditLogger] = _adopted(logging.getLogger(f"{ROOT}.{AUDIT}"), AuditLogger)

_level: Final = _runtime.Lazy(_Level(main_logger).apply, lambda _: None)
_sinks: Final = _runtime.Lazy(_Sinks, _Sinks.close)

if not any(isinstance(handler, _Router) for handler in main_logger.handlers):
    main_logger.addHandler(_Router())
    _runtime.on_configure(_log_events.publish_configuration_change)


def subscribe_to(bus: _events.Bus) -> None:
    """Have every event of *bus* logged, and audited where the table of routes says so."""
    bus.subscribe("logging_config", _log_events.EventLog(get_logger, write_audit, require_audit))
