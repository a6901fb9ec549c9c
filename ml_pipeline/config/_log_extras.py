"""What our loggers do beyond those of `logging`: sinks, caught exceptions, and views with something in common."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from ml_pipeline.config._log_sinks import add_sink, remove_sinks
from ml_pipeline.config._log_views import Contextualized, View, caught
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    import datetime as dt
    import os
    from collections.abc import Callable

__all__ = ["Extras"]


class Extras(logging.Logger):
    """Calls of a `PipelineLogger` that `logging` has no name for."""

    is_audit = False
    """Whether the records go to the audit trail, of which nothing is held back and which has no sinks."""

    def add(
        self,
        sink: str | os.PathLike[str] | Callable[[Any], object] | Any,
        *,
        level: int | str = logging.NOTSET,
        filter: Any = None,  # noqa: A002 - the name that loguru and `logging` have for it
        format: Any = None,  # noqa: A002 - likewise
        rotation: str | int | dt.timedelta | dt.time | None = None,
        retention: str | dt.timedelta | None = None,
    ) -> logging.Handler:
        """Send the records of this logger, and of those below it, to one more place.

        Args:
            sink: A path, opened at the first record; a function, which is given a text with the fields in its
                ``record``; or an object with ``write``. It is called for one record at a time; a record of another
                thread waits for its turn up to ``LOG_SLOW_SECONDS``, then it is dropped here and counted. A handler of
                one's own is for `logging.Logger.addHandler`.
            level: The least level, beside that of the logger.
            filter: Which records: a channel, logger or module by name, a function of the ``LogRecord``, or a
                `logging.Filter`.
            format: ``"json"``; ``"text"``; a template of the line's keys such as ``"{timestamp} {level} {message}"``; a
                function from the fields to a text; or a `logging.Formatter`. By default that of our files for a path,
                and text for others. Whatever it is, it is given nothing that our files would not hold.
            rotation: Of a path: when it is set aside, such as ``"100 MB"``, ``"1 week"``, ``"00:00"`` (in UTC).
            retention: Of a path: how long it is kept then, such as ``"30 days"``.

        Returns:
            The handler, for `remove`.

        Raises:
            SettingsError: If an argument is not of its kind.
        """
        if self.is_audit:
            raise SettingsError("the audit trail goes to its own file alone", self.name, "add a sink to another logger")
        options: dict[str, Any] = {"level": level, "filter": filter, "format": format}
        return add_sink(self, sink, self._resolve, **options, rotation=rotation, retention=retention)

    def remove(self, handler: logging.Handler | None = None) -> None:
        """Remove a sink that `add` has returned, when the record it is writing is written; without one, all of them.

        Raises:
            SettingsError: If it is none of this logger's.
        """
        remove_sinks(self, handler)

    def bind(self, **fields: Any) -> View:
        """Return a view of this logger whose records carry these fields.

        Args:
            **fields: As `log_operation` takes them: ``operation`` and ``user_id``, and whatever belongs to the lines.
        """
        return View(self, fields)

    def contextualize(self, **fields: Any) -> Contextualized:
        """Make a block, or decorate a function, in which the records of every logger of ours carry these fields.

        Args:
            **fields: ``user_id``, ``operation`` and the other ids of the context become those; the rest lies under
                ``context``. asyncio tasks that are started inside inherit them; threads and processes get them
                through `operation_logger.carry`.
        """
        return Contextualized(fields)

    def opt(self, *, lazy: bool = False, values: bool = False) -> View:
        """Return a view of this logger that treats what it is given differently.

        Args:
            lazy: Arguments and fields that can be called are called, if the record will be written:
                ``logger.opt(lazy=True).debug("%s", lambda: expensive())``.
            values: The text of an exception shows the values of the local variables, as with `catch`.
        """
        return View(self, {}).opt(lazy=lazy, values=values)

    def patch(self, function: Callable[[dict[str, Any]], object]) -> View:
        """Return a view of this logger whose records a function may change.

        Args:
            function: Is given ``message``, ``operation``, ``user_id`` and ``context`` in a dictionary, and changes it.
                What it raises is counted, and the record is written as it was.

        Raises:
            SettingsError: If it cannot be called.
        """
        return View(self, {}).patch(function)

    def limit(self, *, per_second: float | None = None, every: int | None = None) -> View:
        """Return a view of this logger that holds back what a noisy call site writes too much of.

        What is held back is counted, and said in a line of this logger at most every ten seconds and at the end.

        Args:
            per_second: At most so many records a second from one line of code, after a burst of as many.
            every: The first of so many records from one line of code.

        Raises:
            SettingsError: If neither is given or one is out of range, or this is the audit logger.
        """
        return View(self, {}).limit(per_second=per_second, every=every)

    def catch(
        self,
        exception: Any = Exception,
        *,
        level: int | str = logging.ERROR,
        reraise: bool = False,
        onerror: Callable[[BaseException], object] | None = None,
        exclude: type[BaseException] | tuple[type[BaseException], ...] | None = None,
        default: Any = None,
        message: str = "An exception was caught in %s",
    ) -> Any:
        """Log an exception that leaves a block or a function, with the values that led to it, and keep it there.

        The values of local variables are redacted and shortened; arrays and tables, and whatever is called
        ``features``, are shown only where ``ML_PIPELINE_LOG_FEATURES`` is ``full``. Use it as ``with logger.catch():``,
        or as a decorator, with or without arguments, of plain and async functions and generators.

        Args:
            exception: A class or several; or the function, where it decorates without arguments.
            level: Of the record.
            reraise: Whether the exception goes on all the same.
            onerror: Called with the exception once it is logged.
            exclude: What goes on unlogged though it is an *exception*.
            default: What a decorated function returns instead of a result.
            message: What the record says; ``%s`` in it is the name of the function.

        Raises:
            SettingsError: If an argument is not of its kind.
        """
        options: dict[str, Any] = {"level": level, "reraise": reraise, "onerror": onerror, "exclude": exclude}
        return caught(self, exception, {**options, "default": default, "message": message})

    def _resolve(self, name: str) -> tuple[str, str]:
        """The channel of a logger, and the name its lines show."""
        raise NotImplementedError
