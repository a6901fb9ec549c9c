"""``alert_on_failure``: a block or a function whose failure is an alert."""

from __future__ import annotations

from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ml_pipeline.config._alert_occurrences import block, left
from ml_pipeline.config._failures import is_failure
from ml_pipeline.config._ids import new_id
from ml_pipeline.config._scoped import is_generator, scoped
from ml_pipeline.errors import AlertError

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import Token
    from types import TracebackType
    from typing import Self

    from ml_pipeline.config._events import Severity
    from ml_pipeline.config.alerting import AlertManager

__all__ = ["alert_on_failure"]

P = ParamSpec("P")
R = TypeVar("R")


class alert_on_failure:  # noqa: N801 - reads as a statement: `with alert_on_failure("nightly_import"):`
    """Alert when a block or a function fails, and let the exception go on; resolve that when it goes well again.

    Both ``with`` (or ``async with``) and decorator, for functions and for ``async def``. An exception that was alerted
    inside, by a failed operation or by another such block, is the same failure and adds to that alert. Ctrl-C, an exit
    and a cancelled task are no failures. Blocks may be nested and run at once, each with an object of its own; a
    decorated function sees to that itself.

    Args:
        operation: What the block does, such as ``nightly_import``.
        severity: ``info``, ``warning`` or ``critical``.
        manager: Raises the alert; by default `alert_manager`, looked up when the block fails.
    """

    __slots__ = ("_block", "_manager", "_operation", "_severity", "_token")

    def __init__(self, operation: str, *, severity: Severity = "critical", manager: AlertManager | None = None) -> None:
        self._operation = operation
        self._severity: Severity = severity
        self._manager = manager
        self._block = ""
        self._token: Token[str | None] | None = None

    def __enter__(self) -> Self:
        self._block = new_id()
        self._token = block.set(self._block)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._token is not None:
            block.reset(self._token)
            self._token = None
        if error is None:
            self._found().went_well(self._operation)
        elif is_failure(error):
            token = left.set(self._block)
            try:
                self._found().alert_processing_failure(self._operation, error, severity=self._severity)
            finally:
                left.reset(token)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Alert when a call of *function*, which may be a coroutine function, fails.

        Raises:
            AlertError: If it is a generator function, whose call does no work that could fail.
        """
        if is_generator(function):
            raise AlertError(
                "alert_on_failure decorates a function that works when it is called, not a generator",
                function.__qualname__,
                "use `with alert_on_failure(...)` inside it",
            )
        return scoped(function, self._again)

    def _again(self) -> alert_on_failure:
        return alert_on_failure(self._operation, severity=self._severity, manager=self._manager)

    def _found(self) -> AlertManager:
        if self._manager is not None:
            return self._manager
        from ml_pipeline.config.alerting import alert_manager

        return alert_manager
