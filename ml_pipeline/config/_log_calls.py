"""The log calls of our loggers, which spare a record the detour over a ``LogRecord`` where nobody else would see it."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any, ClassVar, Final, cast

from ml_pipeline.config._log_fast import LOGGING_FILE

if TYPE_CHECKING:
    from types import FrameType

    from ml_pipeline import _runtime
    from ml_pipeline.config._log_outlet import Outlet

__all__ = ["DirectCalls", "log_call"]


def log_call(level: int, outlet: _runtime.Lazy[Outlet]) -> Any:
    """Make a log call such as `logging.Logger.info` that tries the short way first.

    Args:
        level: The level of its records.
        outlet: Where they go.
    """

    def call(self: DirectCalls, msg: object, *args: object, extra: Any = None, **kwargs: Any) -> None:
        try:
            enabled = self._cache[level]  # type: ignore[attr-defined]
        except KeyError:
            enabled = self.isEnabledFor(level)
        if not enabled or self.disabled:
            return
        short = None if kwargs else outlet.get().short
        if short is None or not short.put(self, level, msg, args, extra):
            self._log(level, msg, args, extra=extra, **kwargs)

    name = logging.getLevelName(level).lower()
    call.__name__, call.__qualname__ = name, f"DirectLogger.{name}"
    call.__doc__ = f"See `logging.Logger.{name}`."
    return call


_OUR_FILE: Final = log_call.__code__.co_filename


class DirectCalls(logging.Logger):
    """What a logger needs for its log calls to be those of `log_call`.

    They take what those of `logging.Logger` take; ``exception`` is that one's, which calls ``error``.
    """

    _outlet: ClassVar[_runtime.Lazy[Outlet]]

    def log(self, level: int, msg: object, *args: object, extra: Any = None, **kwargs: Any) -> None:
        """See `logging.Logger.log`."""
        if type(level) is not int:
            super().log(level, msg, *args, extra=extra, **kwargs)
        elif self.isEnabledFor(level):
            short = None if kwargs else self._outlet.get().short
            if short is None or not short.put(self, level, msg, args, extra):
                self._log(level, msg, args, extra=extra, **kwargs)

    def findCaller(self, stack_info: bool = False, stacklevel: int = 1) -> Any:  # noqa: N802 - logging's own name
        """Find the place of the log call, past the calls of this class; see `logging.Logger.findCaller`."""
        ours, frame = 0, cast("FrameType | None", sys._getframe())
        while frame is not None and frame.f_code.co_filename in {_OUR_FILE, LOGGING_FILE}:
            ours += frame.f_code.co_filename == _OUR_FILE
            frame = frame.f_back
        return super().findCaller(stack_info, stacklevel + ours)
