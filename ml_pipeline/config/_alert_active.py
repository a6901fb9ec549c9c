"""Keeps the number of active alerts right: those of an earlier process are active too, and so are another's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ml_pipeline.config._alert_occurrences import to_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from ml_pipeline.config._alert_records import Alert
    from ml_pipeline.config._alert_store import AlertStore

__all__ = ["LOOK_SECONDS", "ActiveAlerts"]

LOOK_SECONDS: Final = 20.0
_MOST: Final = 1_000


class ActiveAlerts:
    """Has the metrics know the alerts of a pipeline that the store says are active.

    For one thread. What this process raises and resolves itself, the metrics know at once by its events.

    Args:
        store: Returns the store.
        pipeline: Whose alerts are counted.
        clock: Seconds since the Unix epoch.
    """

    def __init__(self, store: Callable[[], AlertStore], pipeline: str, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._pipeline = pipeline
        self._clock = clock
        self._looked = float("-inf")
        self._known: frozenset[str] = frozenset()

    def look(self) -> None:
        """Ask the store, unless that was done a moment ago."""
        now = self._clock()
        if 0 <= now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        from ml_pipeline.config.prometheus_metrics import pipeline_metrics

        found = self._store().find(limit=_MOST, only_active=True)
        active: dict[str, Alert] = {each.alert_id: each for each in found if each.pipeline == self._pipeline}
        if len(found) < _MOST:
            for alert_id in self._known - set(active):
                pipeline_metrics.alert_is_over(alert_id)
        for alert in reversed(active.values()):
            pipeline_metrics.alert_is_open(to_event(alert, "raised"))
        self._known = frozenset(active)
