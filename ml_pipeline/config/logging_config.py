"""Structured logging on the standard ``logging`` API: channels, two formats, and the audit trail.

Use it like any logger::

    from ml_pipeline.config.logging_config import get_logger, log_operation, main_logger

    main_logger.info("Processing data", extra=log_operation(operation="data_processing", user_id="user123"))
    get_logger("training.model_training").info("epoch %d", 3)

One handler on the logger ``ml_pipeline`` writes each record to the file of its channel (`CHANNELS`), ERROR and up also
to ``errors.log``, and to the console. Loggers below it propagate as always, so ``caplog`` and handlers of one's own see
every record. Importing this module opens nothing; files are opened by the first record that goes to them.

Where nobody else listens, a record takes the short way of `_log_fast`; otherwise it is a ``LogRecord`` as ever. Its
line is the same.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from ml_pipeline import _platform, _runtime
from ml_pipeline.config import _events, _log_events
from ml_pipeline.config._audit import AuditTrail
from ml_pipeline.config._audit_calls import SINK, AuditCalls
from ml_pipeline.config._audit_loss import AuditLoss
from ml_pipeline.config._channels import AUDIT, CHANNELS, ROOT, Channel, LoggerNames, channel_path
from ml_pipeline.config._log_calls import DirectCalls, log_call
from ml_pipeline.config._log_capture import Capture
from ml_pipeline.config._log_extras import Extras
from ml_pipeline.config._log_format import EXTRA_KEY, JSON_KEYS
from ml_pipeline.config._log_levels import UNSET, LevelsInForce, withdraw_levels
from ml_pipeline.config._log_loguru import LoguruSink
from ml_pipeline.config._log_outlet import Outlet
from ml_pipeline.config._log_reload import Reload
from ml_pipeline.config._log_sampling import SiteFilter
from ml_pipeline.errors import MLPipelineError, OperationStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ml_pipeline.settings import Settings

__all__ = [
    "CHANNELS",
    "JSON_KEYS",
    "AuditLogger",
    "Channel",
    "PipelineLogger",
    "audit_logger",
    "capture_sink",
    "configure_logging",
    "get_logger",
    "log_operation",
    "main_logger",
]

L = TypeVar("L", bound=logging.Logger)

_names: Final = LoggerNames()


def _open_outlet(settings: Settings) -> Outlet:
    _limiter.get()
    return Outlet(settings, _names.resolve, _look_at_levels, ours=[_router], deaf=[_capture.handler])


_outlet: Final = _runtime.Lazy(_open_outlet, Outlet.close)


class PipelineLogger(Extras):
    """A standard logger whose level comes from the settings until someone sets another."""

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's own name
        """Say whether a record of this level would be written; see `logging.Logger.isEnabledFor`."""
        _put_level_in_force()
        return super().isEnabledFor(level)

    def getEffectiveLevel(self) -> int:  # noqa: N802 - logging's own name
        """Return the level in force; see `logging.Logger.getEffectiveLevel`."""
        _put_level_in_force()
        return super().getEffectiveLevel()

    def __reduce__(self) -> tuple[Callable[..., PipelineLogger], tuple[str, str, str]]:
        """Travel to another process by name and channel, which may not have imported this module; see `pickle`."""
        super().__reduce__()  # raises where the name has come to stand for another logger
        return _restored, (self.name, *_names.resolve(self.name))

    def _resolve(self, name: str) -> tuple[str, str]:
        return _names.resolve(name)


class DirectLogger(DirectCalls, PipelineLogger):
    """A logger of ours that is of no other class too: its records take the short way where they can."""

    _outlet = _outlet
    debug = log_call(logging.DEBUG, _outlet)
    info = log_call(logging.INFO, _outlet)
    warning = log_call(logging.WARNING, _outlet)
    error = log_call(logging.ERROR, _outlet)
    critical = log_call(logging.CRITICAL, _outlet)

    def getChild(self, suffix: str) -> DirectLogger:  # noqa: N802 - logging's own name
        """Return a logger below this one, of this class where it is of no other; see `logging.Logger.getChild`."""
        with _new_of(DirectLogger, f"{self.name}.{suffix}"):
            child: logging.Logger = super().getChild(suffix)
        return cast("DirectLogger", child if type(child) is not logging.Logger else _adopted(child, PipelineLogger))


class AuditLogger(PipelineLogger):
    """A logger whose records go to the audit trail alone, whatever levels and ``disabled`` say.

    The message is the action; ``extra=log_operation(user_id=…, object=…, version=…, result=…)`` says who, what and how
    it ended.
    """

    is_audit = True

    def isEnabledFor(self, level: int) -> bool:  # noqa: ARG002, N802 - logging's own signature
        """Say yes: nothing but a failing disk keeps a record from the audit trail."""
        return True

    def getChild(self, suffix: str) -> AuditLogger:  # noqa: N802 - logging's own name
        """Return a logger below this one, which is an audit logger too; see `logging.Logger.getChild`."""
        return _named(f"{self.name}.{suffix}", AuditLogger)

    def handle(self, record: logging.LogRecord) -> None:
        """Publish the record as an `AuditEvent`."""
        _log_events.publish_audit_record(record)


class DirectAuditLogger(AuditCalls, AuditLogger):
    """An audit logger that is of no other class too: its records take the short way where they can."""

    def _write(self, record: Mapping[str, Any] | bytes) -> None:
        write_audit(record)


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
    return _logger_of(channel, _names.register(channel, shown))


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


def configure_logging(*, capture: bool | None = None, reload: bool | None = None, **values: object) -> None:
    """Change how this process logs.

    Args:
        capture: True sends the records of all other loggers, ``warnings`` and uncaught exceptions to the files
            ``ml_pipeline.log`` and ``errors.log`` too, with the current ids; False stops that. Off until asked for.
        reload: True reads the settings again, ``.env`` too, when the process gets SIGHUP, and notices within a second
            what ``ml-pipeline logs level`` told, even while nothing is logged; False stops that. Off until asked for.
        **values: Settings by name, such as ``log_level="DEBUG"``; see `ml_pipeline.configure`.

    Raises:
        SettingsError: If a setting is unknown or out of range, or *reload* is asked for outside the main thread.
    """
    if values:
        _runtime.configure(**values)
    if capture is not None:
        (_capture.start if capture else _capture.stop)()
    if reload is not None:
        (_reload.start if reload else _reload.stop)()


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
        _outlet.get().write(record)


def _logger_of(channel: str, name: str) -> PipelineLogger:
    logger = _named(name, AuditLogger if channel == AUDIT else PipelineLogger)
    levels = _levels.peek()
    if levels is not None:
        levels.adopt(logger)
    return logger


def _restored(name: str, channel: str, shown: str) -> PipelineLogger:
    if _names.resolve(name) != (channel, shown):  # this process has not met that name, or for another channel
        name = _names.register(channel, shown)
    return _logger_of(channel, name)


def _named(name: str, kind: type[L]) -> L:
    known = logging.Logger.manager.loggerDict.get(name)
    if isinstance(known, kind):
        return known
    with _new_of(kind, name):
        logger = logging.getLogger(name)
    return _adopted(logger, kind)


@contextlib.contextmanager
def _new_of(kind: type[logging.Logger], name: str) -> Iterator[None]:
    """Have the logger of a name, if it is new, made of our class, unless the program wants all to be of its own."""
    # To change the class of one that is made would cost each record a tenth: CPython 3.11 then keeps its attributes in
    # a dictionary, where to read one takes four times as long.
    manager = logging.Logger.manager

    def made(each: str) -> logging.Logger:
        return (_direct(kind) if each == name else logging.Logger)(each)

    with logging._lock:  # type: ignore[attr-defined]
        theirs = manager.loggerClass
        if theirs is None and logging.getLoggerClass() is logging.Logger:
            manager.loggerClass = cast("type[logging.Logger]", made)
        try:
            yield
        finally:
            manager.loggerClass = theirs


def _direct(kind: type[logging.Logger]) -> type[logging.Logger]:
    return DirectAuditLogger if issubclass(kind, AuditLogger) else DirectLogger


def _adopted(logger: logging.Logger, kind: type[L]) -> L:
    # A logger that someone made before us keeps its handlers, level and children, and what its own class adds; without
    # our class in front, audit records would be plain lines.
    if not isinstance(logger, kind):
        own = type(logger)
        logger.__class__ = _direct(kind) if own is logging.Logger else type(kind.__name__, (kind, own), {})
    _forget_targets()
    return cast("L", logger)


def _put_level_in_force() -> bool:
    return _levels.get().put()


def _release_level() -> None:
    withdraw_levels(main_logger)


def _look_at_levels() -> None:
    levels = _levels.peek()
    if levels is not None:
        levels.look()


def _flush() -> None:
    outlet = _outlet.peek()
    if outlet is not None:
        outlet.flush()


def _forget_targets() -> None:
    outlet = _outlet.peek()  # what a name stands for may have changed with a new one
    if outlet is not None:
        outlet.forget_targets()


def write_audit(record: Mapping[str, Any] | bytes) -> None:
    """Append one record to the audit trail; what cannot be audited is counted, or stops the operation.

    Args:
        record: The fields of the line, without ``seq``, ``prev`` and ``hash``; or these, encoded.

    Raises:
        OperationStateError: If it cannot be written and ``ML_PIPELINE_AUDIT_REQUIRED`` is set.
    """
    if isinstance(record, bytes):
        _audited(lambda trail: trail.append_encoded(record), count=1)
    else:
        _audited(lambda trail: trail.append(record), count=1)


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
        loss = _loss.peek()
        if loss is not None:
            loss.went_well()
        return
    if count:
        _runtime.tally.log_records_dropped[f"audit {type(failed).__name__}"] += count
    if _runtime.settings().audit_required:
        _runtime.telemetry_error("audit", failed)
        remedy = failed.remedy if isinstance(failed, MLPipelineError) else "mend the disk"
        stop = OperationStateError(
            "an operation that cannot be audited does not run",
            failed.rule if isinstance(failed, MLPipelineError) else str(failed),
            f"{remedy} or unset ML_PIPELINE_AUDIT_REQUIRED",
        )
        stop.stops_the_job = True
        raise stop
    _loss.get().failed(failed)
    if _runtime.settings().strict:  # counted where the record came from
        raise failed
    _runtime.telemetry_error("audit", failed)


main_logger: Final = _named(ROOT, PipelineLogger)
audit_logger: Final = _named(f"{ROOT}.{AUDIT}", AuditLogger)

_levels: Final = _runtime.Lazy(
    lambda settings: LevelsInForce(settings, main_logger, _names.resolve), lambda _: _release_level()
)
_loss: Final = _runtime.Lazy(lambda _: AuditLoss(), lambda _: None)
_trail: Final = _runtime.Lazy(  # apart from the other files, which an unreadable key must not take along
    lambda settings: AuditTrail.of(settings, settings.log_dir / CHANNELS[AUDIT].path),
    AuditTrail.close,
)

_capture: Final = Capture(main_logger, lambda record: _outlet.get().write(record))
_reload: Final = Reload(_look_at_levels)
capture_sink: Final = LoguruSink(
    lambda record: _outlet.get().write(record), lambda: _capture.handler in logging.getLogger().handlers
)
"""What brings the records of loguru's own logger in: ``loguru.logger.add(capture_sink)``."""

if main_logger.level == logging.NOTSET:
    main_logger.setLevel(UNSET)
_router: Final = next((each for each in main_logger.handlers if isinstance(each, _Router)), None) or _Router()
_limiter: Final = _runtime.Lazy(
    lambda settings: SiteFilter(_router, settings.log_records_per_second), SiteFilter.close, phase=1
)
if _router not in main_logger.handlers:
    main_logger.addHandler(_router)
    _runtime.on_configure(_log_events.publish_configuration_change)
    _platform.before_fork(_flush)
    _platform.after_fork_in_child(_release_level)  # a child forgets what its parent had open, and reads it anew


def subscribe_to(bus: _events.Bus) -> None:
    """Have every event of *bus* logged, and audited where the table of routes says so."""
    bus.subscribe(SINK, _log_events.EventLog(get_logger, write_audit, require_audit))
