"""Repeats that are held back without asking the store: recognised in memory, and counted there for a second at most."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Final, TypeAlias

from ml_pipeline import _runtime
from ml_pipeline.config._worker import Worker

if TYPE_CHECKING:
    from ml_pipeline.config._alert_records import Alert

__all__ = ["Cooldowns", "Holder"]

WRITE_SECONDS: Final = 1.0
"""How long a count waits at most. It is as long until the store is asked again, which another process may have told
that the alert is over."""

_MOST_KNOWN: Final = 10_000
_MOST_COUNTED: Final = 10_000

Holder: TypeAlias = Callable[[str, int, float], bool]
"""Counts repeats of an alert in the store: its id, how many, when the last was said. Returns whether it is open."""


class Cooldowns:
    """The identities that were held back a moment ago, by whatever tells one of their repeats.

    Thread-safe. Counts are written in the background, and by `close` at the end of the process; a process that is
    killed may lose those of its last second.

    Args:
        hold: Writes counts.
        clock: Seconds since the Unix epoch.
        monotonic: Seconds that only go forward.
    """

    def __init__(
        self, hold: Holder, *, clock: Callable[[], float], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._hold = hold
        self._clock = clock
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, tuple[str, float, float, float]] = OrderedDict()
        self._counts: dict[str, tuple[int, float]] = {}
        self._worker = Worker("alerting")

    def learn(self, key: Hashable, alert: Alert, cooldown_seconds: float) -> None:
        """Hold back what has this key from now on, for a second at most.

        Args:
            key: Tells a repeat.
            alert: The alert that it repeats.
            cooldown_seconds: How long its repeats are held back, counted from when it was raised.
        """
        stale = self._monotonic() + WRITE_SECONDS
        with self._lock:
            self._known[key] = (alert.alert_id, alert.time, alert.time + cooldown_seconds, stale)
            self._known.move_to_end(key)
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)

    def held(self, key: Hashable) -> str:
        """Count a repeat, if it is known to be one.

        Args:
            key: Tells a repeat.

        Returns:
            Id of the alert that it repeats; empty where the store has to be asked.
        """
        known = self._known.get(key)
        if known is None:
            return ""
        alert_id, since, until, stale = known
        now = self._clock()
        if not since <= now < until or self._monotonic() >= stale:
            return ""
        with self._lock:
            count, _ = self._counts.get(alert_id, (0, now))
            if not count and len(self._counts) >= _MOST_COUNTED:
                return ""
            self._counts[alert_id] = (count + 1, now)
        if not count:
            self._worker.submit("count", self._write, delay_seconds=WRITE_SECONDS)
        return alert_id

    def forget(self, alert_id: str) -> None:
        """Hold back nothing under an alert any more, because it is over."""
        with self._lock:
            for key in [key for key, known in self._known.items() if known[0] == alert_id]:
                del self._known[key]

    def write(self) -> None:
        """Write what was counted, now."""
        if self._counts:
            self._write()

    def close(self) -> None:
        """Write what was counted, and end."""
        self._worker.close()
        self.write()

    def _write(self) -> None:
        with self._lock:
            counts, self._counts = self._counts, {}
        while counts:
            alert_id, (count, last) = counts.popitem()
            is_open, failed = _runtime.attempt(self._hold, alert_id, count, last)
            if failed is not None:
                self._keep({**counts, alert_id: (count, last)})
                raise failed
            if not is_open:
                self.forget(alert_id)

    def _keep(self, counts: dict[str, tuple[int, float]]) -> None:
        """Take back what could not be written."""
        with self._lock:
            for alert_id, (count, last) in counts.items():
                since, later = self._counts.get(alert_id, (0, last))
                self._counts[alert_id] = (count + since, max(last, later))
        self._worker.submit("count", self._write, delay_seconds=WRITE_SECONDS)
