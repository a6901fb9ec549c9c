"""Operations that go well after they had failed: what resolves the alerts of their failures."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._alert_records import bounded_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ml_pipeline.config._alert_records import Alert
    from ml_pipeline.config._alert_store import AlertStore
    from ml_pipeline.config._events import OperationEvent

__all__ = ["Recoveries"]

LOOK_SECONDS: Final = 30.0
"""How long an operation that goes well again and again is not asked about; another process may say meanwhile that it
failed."""

_MOST_KNOWN: Final = 1_000


class Recoveries:
    """Notes in the store which failures are made good.

    Thread-safe, and cheap for operations that end well thousands of times. The alert is resolved by `Upkeep`, after its
    cooldown: what fails and goes well in turns is one alert.

    Args:
        store: Returns the store.
        is_there: Returns whether there is a store; without one nothing has failed.
        clock: Seconds since the Unix epoch.
        wake: Called when a failure was made good.
        monotonic: Seconds that only go forward.
    """

    def __init__(
        self,
        store: Callable[[], AlertStore],
        is_there: Callable[[], bool],
        *,
        clock: Callable[[], float],
        wake: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._is_there = is_there
        self._clock = clock
        self._wake = wake
        self._monotonic = monotonic
        self._looked: dict[tuple[str, str, str], float] = {}

    def completed(self, event: OperationEvent) -> None:
        """Take note that an operation ended well."""
        self.went_well(event.pipeline, event.name, event.attributes.get("model_name"))

    def went_well(self, pipeline: str, operation: str, model: object) -> None:
        """Take note that something ended well, an operation or not.

        Args:
            pipeline: Whose.
            operation: Its name.
            model: The model it was about.
        """
        key = (pipeline, operation, model if isinstance(model, str) else "")
        now = self._monotonic()
        if now - self._looked.get(key, float("-inf")) < LOOK_SECONDS:
            return
        if len(self._looked) >= _MOST_KNOWN:
            self._looked.clear()
        self._looked[key] = now
        if self._is_there():
            given = (bounded_text(pipeline, is_id=True), bounded_text(operation), bounded_text(model))
            if self._store().went_well(*given, time=self._clock()):
                self._wake()

    def failed(self, alert: Alert) -> None:
        """Take note that an operation failed, so that its next good end is looked at."""
        self._looked.pop((alert.pipeline, alert.operation, alert.model), None)
