"""Resource samples of a run, from the bus and of its own, within bounds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._encoding import rfc3339
from ml_pipeline.config.monitoring_config import PerformanceMonitor, ResourceUsage, monitor_resources

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from ml_pipeline.config._events import Event, ResourceSample

__all__ = ["RUN_SERIES", "RunSampler", "Samples"]

RUN_SERIES: Final = "run"
"""The name of the samples that were taken for the run's own chart."""

_SECONDS: Final = 0.1
_MOST_SAMPLES: Final = 240
_MOST_NAMES: Final = 32


class Samples:
    """The samples of each name, spread over all of the time: when a name has too many, every second one goes."""

    def __init__(self) -> None:
        self._kept: dict[str, list[dict[str, Any]]] = {}
        self._strides: dict[str, int] = {}
        self._seen: dict[str, int] = {}

    def add(self, sample: ResourceSample) -> None:
        """Take in one sample; those of a 33rd name are left out."""
        name = sample.name
        if name not in self._kept and len(self._kept) >= _MOST_NAMES:
            return
        kept = self._kept.setdefault(name, [])
        seen = self._seen[name] = self._seen.get(name, 0) + 1
        if (seen - 1) % self._strides.setdefault(name, 1):
            return
        kept.append(_plain(sample))
        if len(kept) > _MOST_SAMPLES:
            del kept[1::2]
            self._strides[name] *= 2

    def of_run(self, run_id: str) -> list[dict[str, Any]]:
        """Return the samples that were taken for a run or for none, by name and in their order."""
        return [
            {key: value for key, value in sample.items() if key != "run_id"}
            for samples in self._kept.values()
            for sample in samples
            if sample["run_id"] in (run_id, None)
        ]


class RunSampler:
    """Takes samples of its own, closer together than those on the bus, for a chart of a run of any length.

    Args:
        clock: Seconds since the Unix epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._started = 0.0
        self._usage: ResourceUsage | None = None
        self._block = monitor_resources(
            RUN_SERIES, interval_seconds=_SECONDS, publish=_ignore, performance=PerformanceMonitor()
        )

    def __enter__(self) -> Self:
        self._started = self._clock()
        self._usage = self._block.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._block.__exit__(None, None, None)

    def samples(self) -> list[dict[str, Any]]:
        """Return the samples so far, as `Samples.of_run` does."""
        return [
            {
                "name": RUN_SERIES,
                "time": rfc3339(self._started + point.seconds),
                "cpu_ratio": point.cpu_ratio,
                "memory_bytes": point.memory_bytes,
            }
            for point in (self._usage.points if self._usage else ())
        ]


def _plain(sample: ResourceSample) -> dict[str, Any]:
    return {
        "run_id": sample.run_id,
        "name": sample.name,
        "time": rfc3339(sample.time),
        "cpu_ratio": sample.cpu_ratio,
        "memory_bytes": sample.memory_bytes,
        "memory_available_bytes": sample.memory_available_bytes,
    }


def _ignore(_: Event) -> None:
    """The samples on the bus are those of the monitors that the user started."""
