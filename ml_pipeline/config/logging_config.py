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
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from ml_pipeline import _runtime
from ml_pipeline.config import _events, _log_events
from ml_pipeline.config._audit import AuditTrail, read_key
from ml_pipeline.config._channels import AUDIT, CHANNELS, ERRORS, ROOT, Channel, LoggerNames, channel_path
from ml_pipeline.config._log_capture import Capture
from ml_pipeline.config._log_files import AppendFiles
from ml_pipeline.config._log_format import EXTRA_KEY, JSON_KEYS, json_line, line_fields, text_line
from ml_pipeline.errors import OperationStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ml_pipeline.settings import Settings

__all__ = [
    "CHANNELS",
    "JSON_KEYS",
    "AuditLogger",
    "Channel",
    "PipelineLogger",
    "audit_logger",
    "configure_logging",
    "get_logger",
    "log_operation",
    "main_logger",
]

L = TypeVar("L", bound=logging.Logger)

_ALARMING: Final = ("ERROR", "CRITICAL")

_names: Final = LoggerNames()


class PipelineLogger(logging.Logger):
    """A standard logger whose level comes from the settings until someone sets another."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's own name
        """Say whether a record of this level would be written; see `logging.Logger.isEnabledFor`."""
        _put_level_in_force()
        return super().isEnabledFor(level)

    def getEffectiveLevel(self) -> int:  # noqa: N802 - logging's own name
        """Return the level in force; see `logging.Logger.getEffectiveLevel`."""
        _put_level_in_force()
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
    shown = str(name or sys._getframe(1).f_globals.get("__name__", ROOT))
    kind = AuditLogger if channel == AUDIT else PipelineLogger
    return _adopted(logging.getLogger(_names.register(channel, shown)), kind)


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


def configure_logging(*, capture: bool | None = None, **values: object) -> None:
    """Change how this process logs.

    Args:
        capture: True sends the records of all other loggers, ``warnings`` and uncaught exceptions to the files
            ``ml_pipeline.log`` and ``errors.log`` too, with the current ids; False stops that. Off until asked for.
        **values: Settings by name, such as ``log_level="DEBUG"``; see `ml_pipeline.configure`.

    Raises:
        SettingsError: If a setting is unknown or out of range.
    """
    if values:
        _runtime.configure(**values)
    if capture is not None:
        (_capture.start if capture else _capture.stop)()


class _Sinks:
    """The open files and the console, under one set of settings."""

    def __init__(self, settings: Settings) -> None:
        self._files = AppendFiles(settings.log_dir)
        self._text = settings.log_format == "text"
        self._console = settings.log_console
        for channel in CHANNELS.keys() - {AUDIT}:
            for level in _ALARMING:  # a counter that is born at 1 never satisfies `increase() > 0`
                _runtime.tally.log_records[channel, level] += 0

    def write(self, record: logging.LogRecord) -> None:
        channel, shown = _names.resolve(record.name)
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
            self._show(record, shown)

    def close(self) -> None:
        self._files.close()

    def _line(self, record: logging.LogRecord, channel: str, shown: str) -> bytes:
        if self._text:
            return text_line(record, shown).encode("utf-8", "backslashreplace")
        return json_line(line_fields(record, channel, shown))

    def _append(self, channel: str, record: logging.LogRecord, line: bytes) -> None:
        with _runtime.guard("logging_config", _count_dropped):
            self._files[channel_path(channel)].write(line)
            _runtime.tally.log_records[channel, record.levelname] += 1

    def _show(self, record: logging.LogRecord, shown: str) -> None:
        if self._console == "off" or (self._console == "auto" and _root_shows()):
            return
        stream = sys.stderr
        if stream is not None and not getattr(stream, "closed", False):
            stream.write(text_line(record, shown, coloured=_log_events.takes_colour(stream)))
            stream.flush()


def _count_dropped(error: Exception) -> None:
    _runtime.tally.log_records_dropped[type(error).__name__] += 1


class _Router(logging.Handler):
    """The one handler on the logger ``ml_pipeline``: inert until a record comes."""

    def handle(self, record: logging.LogRecord) -> bool:
        # Without the lock of `logging.Handler`: to format a record is to run code of the objects in it, which may wait
        # for another thread that logs. Each file has a lock of its own.
        passed = self.filter(record)
        if passed:
            self.emit(record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        # A logger that is not ours, such as one made before this module was imported, has not asked for the level.
        if _put_level_in_force() and not logging.getLogger(record.name).isEnabledFor(record.levelno):
            return
        _sinks.get().write(record)


def _root_shows() -> bool:
    return any(
        isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
        for handler in logging.getLogger().handlers
    )


def _adopted(logger: logging.Logger, kind: type[L]) -> L:
    # A logger that someone made before us keeps its handlers, level and children, and what its own class adds; without
    # our class in front, audit records would be plain lines.
    if not isinstance(logger, kind):
        own = type(logger)
        logger.__class__ = kind if own is logging.Logger else type(kind.__name__, (kind, own), {})
    return cast("L", logger)


class _Unset(int):
    """The level of the logger ``ml_pipeline`` until the settings are read, told from a level of 1 by its identity.

    Everything passes, so that a plain child logger's first record reaches our handler, which reads the settings. It
    could not read them sooner: such a logger looks for its level under `logging`'s own lock.
    """

    __slots__ = ()


_UNSET: Final = _Unset(1)


def _put_level_in_force() -> bool:
    level = _level.get()
    if main_logger.level is not _UNSET:
        return False  # ours is in force, or a user has set another
    main_logger.setLevel(level)
    return True


def _release_level(level: int) -> None:
    if main_logger.level == level:
        main_logger.setLevel(_UNSET)


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


def _audited(action: Callable[[AuditTrail], object], *, count: int) -> None:
    _, failed = _runtime.attempt(lambda: action(_trail.get()))
    if failed is None:
        _runtime.tally.audit_records += count
        return
    if count:
        _runtime.tally.log_records_dropped[f"audit {type(failed).__name__}"] += count
    if _runtime.settings().audit_required:
        _runtime.telemetry_error("audit", failed)
        stop = OperationStateError(
            "an operation that cannot be audited does not run",
            str(failed),
            "mend the disk or unset ML_PIPELINE_AUDIT_REQUIRED",
        )
        stop.stops_the_job = True
        raise stop
    raise failed


main_logger: Final = _adopted(logging.getLogger(ROOT), PipelineLogger)
audit_logger: Final = _adopted(logging.getLogger(f"{ROOT}.{AUDIT}"), AuditLogger)

_level: Final = _runtime.Lazy(lambda settings: logging.getLevelNamesMapping()[settings.log_level], _release_level)
_sinks: Final = _runtime.Lazy(_Sinks, _Sinks.close)
_trail: Final = _runtime.Lazy(  # apart from the other files, which an unreadable key must not take along
    lambda settings: AuditTrail(settings.log_dir / CHANNELS[AUDIT].path, read_key(settings.audit_key_file)),
    AuditTrail.close,
)

_capture: Final = Capture(main_logger, lambda record: _sinks.get().write(record))

if main_logger.level == logging.NOTSET:
    main_logger.setLevel(_UNSET)
if not any(isinstance(handler, _Router) for handler in main_logger.handlers):
    main_logger.addHandler(_Router())
    _runtime.on_configure(_log_events.publish_configuration_change)


def subscribe_to(bus: _events.Bus) -> None:
    """Have every event of *bus* logged, and audited where the table of routes says so."""
    bus.subscribe("logging_config", _log_events.EventLog(get_logger, write_audit, require_audit))
