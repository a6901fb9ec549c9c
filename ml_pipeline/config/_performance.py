"""How long operations take: exact counts and sums, and quantiles from a bounded sample.

Notations:

====== ======================================================= =========
Symbol Meaning                                                 Unit
====== ======================================================= =========
n      observations of one operation                           1
k      size of its sample, min(n, 4,096)                       1
x[i]   the sample in ascending order, i = 0 … k - 1            s
p      the probability of a quantile, 0 to 1                   1
h      (k - 1) p, the place of the quantile in the sample      1
Q(p)   x[⌊h⌋] + (h - ⌊h⌋) (x[⌊h⌋ + 1] - x[⌊h⌋])                s
====== ======================================================= =========

Source: R. J. Hyndman and Y. Fan, "Sample quantiles in statistical packages", The American Statistician 50 (1996),
definition 7, which numpy calls ``linear``; J. S. Vitter, "Random sampling with a reservoir", ACM Transactions on
Mathematical Software 11 (1985), algorithm R.
"""

from __future__ import annotations

import math
import os
import random
import threading
from array import array
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ml_pipeline import _runtime
from ml_pipeline.config._events import OperationEvent
from ml_pipeline.config._resources import SINK
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ml_pipeline.config._events import Event

__all__ = ["PerformanceMonitor", "Statistics", "quantile"]

_SAMPLE_SIZE: Final = 4_096
_MOST_OPERATIONS: Final = 256
_UNIFORM: Final = random.Random(0).random  # noqa: S311 - a sample is no secret, and the job's own stream stays its own
_TIMED: Final = frozenset({"complete", "fail", "cancel"})  # when an abandoned operation ended, nobody saw


@dataclass(frozen=True, slots=True)
class Statistics:
    """How long one operation took, in seconds.

    Without any observation `count` is 0 and everything else NaN: asking early must not break a run, and a duration of
    nothing is not a number.

    Attributes:
        count: Observations, exact.
        mean: Exact up to rounding.
        min: The shortest, exact.
        max: The longest, exact.
        median: Half took no longer; this and the following are exact up to 4,096 observations, and past that estimated
            from a uniform sample of that size over all of them.
        p95: 95 % took no longer.
        p99: 99 % took no longer.
    """

    count: int = 0
    mean: float = math.nan
    min: float = math.nan
    max: float = math.nan
    median: float = math.nan
    p95: float = math.nan
    p99: float = math.nan


def quantile(ordered: Sequence[float], probability: float) -> float:
    """Interpolate a quantile linearly between the two nearest observations.

    Args:
        ordered: Observations in ascending order, shape (k,), k >= 1, any unit.
        probability: Share of the observations at or below the result, 0 to 1.

    Returns:
        The quantile, in the unit of the observations; what ``numpy.quantile`` returns by default.

    Source: Hyndman and Fan (1996), definition 7.
    """
    place = (len(ordered) - 1) * probability
    lower = math.floor(place)
    below, above = ordered[lower], ordered[min(lower + 1, len(ordered) - 1)]
    return below + (place - lower) * (above - below)


class _Durations:
    """The observations of one operation."""

    __slots__ = ("count", "longest", "sample", "shortest", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self.shortest = math.inf
        self.longest = 0.0
        self.sample = array("d")

    def add(self, seconds: float, size: int, uniform: Callable[[], float]) -> None:
        self.count += 1
        self.total += seconds
        self.shortest = min(self.shortest, seconds)
        self.longest = max(self.longest, seconds)
        if len(self.sample) < size:
            self.sample.append(seconds)
            return
        place = int(uniform() * self.count)
        if place < size:
            self.sample[place] = seconds


class PerformanceMonitor:
    """Keeps how long each operation takes, in bounded memory: 32 KiB an operation, 8 MiB in all.

    The sample behind the quantiles is a uniform one over all observations, not the latest: so that the quantiles
    describe the same observations as the count, the mean, the minimum and the maximum do, and a p99 past the maximum or
    a median of another epoch cannot be. What is slow *now* is the question of a Prometheus histogram.

    Thread-safe. A forked child starts its own statistics.

    Args:
        sample_size: Observations kept for the quantiles of one operation.
        most_operations: Names kept; observations under further names are dropped and counted in `dropped`.
        uniform: Returns a random number, 0 <= u < 1.
        pid: Returns the id of the process it is called in.
    """

    def __init__(
        self,
        *,
        sample_size: int = _SAMPLE_SIZE,
        most_operations: int = _MOST_OPERATIONS,
        uniform: Callable[[], float] = _UNIFORM,
        pid: Callable[[], int] = os.getpid,
    ) -> None:
        self._sample_size = sample_size
        self._most_operations = most_operations
        self._uniform = uniform
        self._pid = pid
        self.clear()

    def clear(self) -> None:
        """Forget every observation."""
        self._owner = self._pid()
        self._lock = threading.Lock()
        self._durations: dict[str, _Durations] = {}
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Observations under more names than are kept."""
        return self._dropped

    def record(self, operation: str, seconds: float) -> None:
        """Add one observation.

        Args:
            operation: What took that long; a stable name, without ids in it.
            seconds: How long, finite and >= 0.

        Raises:
            SettingsError: Only with ``ML_PIPELINE_STRICT=1``, if *seconds* is not a duration; else it is counted as a
                telemetry error and left out.
        """
        with _runtime.guard(SINK):
            if not 0.0 <= seconds < math.inf:
                raise SettingsError(
                    "a duration must be a finite number of seconds, 0 or more",
                    seconds,
                    "pass the difference of two readings of time.perf_counter()",
                )
            self._add(operation, float(seconds))

    def observe(self, event: Event) -> None:
        """Record the duration of an operation that has ended, however it ended; any other event is ignored.

        Args:
            event: What the bus delivers.
        """
        if isinstance(event, OperationEvent) and event.type in _TIMED and event.duration_seconds is not None:
            self.record(event.name, event.duration_seconds)

    def operations(self) -> tuple[str, ...]:
        """Return the names that have observations, in the order of their first."""
        self._leave_parent()
        with self._lock:
            return tuple(self._durations)

    def statistics(self, operation: str) -> Statistics:
        """Summarise how long an operation took so far.

        Args:
            operation: Its name, as it was recorded.

        Returns:
            The summary, in seconds; for a name without observations one with the count 0 and NaN for the rest.
        """
        self._leave_parent()
        with self._lock:
            kept = self._durations.get(operation)
            if kept is None:
                return Statistics()
            count, total, shortest, longest = kept.count, kept.total, kept.shortest, kept.longest
            sample = kept.sample[:]
        ordered = sorted(sample)
        return Statistics(
            count=count,
            mean=total / count,
            min=shortest,
            max=longest,
            median=quantile(ordered, 0.5),
            p95=quantile(ordered, 0.95),
            p99=quantile(ordered, 0.99),
        )

    def _add(self, operation: str, seconds: float) -> None:
        self._leave_parent()
        with self._lock:
            kept = self._durations.get(operation)
            if kept is None and len(self._durations) < self._most_operations:
                kept = self._durations[operation] = _Durations()
            if kept is not None:
                kept.add(seconds, self._sample_size, self._uniform)
                return
            self._dropped += 1
        _runtime.say_once(
            "performance:names",
            f"performance_monitor keeps {self._most_operations} operation names and drops {operation!r}; "
            "give operations stable names, without ids in them",
        )

    def _leave_parent(self) -> None:
        if self._owner != self._pid():  # the lock may have been held by a thread that has stayed behind
            self.clear()
