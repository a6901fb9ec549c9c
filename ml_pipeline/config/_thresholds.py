"""When a resource is running out: thresholds, and saying each crossing once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from ml_pipeline import _runtime
from ml_pipeline.config._resources import SINK
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ml_pipeline.config._resources import Reading

__all__ = ["DISK_FREE_RATIO", "MEMORY_RATIO", "ResourceAlert", "ResourceThresholds", "ThresholdWatch"]

MEMORY_RATIO: Final = 0.9
DISK_FREE_RATIO: Final = 0.1
_MARGIN: Final = 0.05


class ResourceAlert(Protocol):
    """Raises an alert; what `AlertManager.alert_resource_threshold` is."""

    def __call__(self, resource: str, value: float, threshold: float, *, unit: str = "", **details: Any) -> object:
        """Say that *resource* has reached *value*, past *threshold*, both in *unit*."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceThresholds:
    """From where on a resource is alerted; None leaves it alone.

    Attributes:
        memory_ratio: Used over all memory of the machine or the container, 0 to 1.
        disk_free_ratio: Free over all space of a watched disk, 0 to 1; alerted below it.
        cpu_ratio: Processor time of the process over wall time, in cores. None, for a training that keeps every core
            busy is no trouble.

    Raises:
        SettingsError: If a threshold can never or will always be crossed.
    """

    memory_ratio: float | None = MEMORY_RATIO
    disk_free_ratio: float | None = DISK_FREE_RATIO
    cpu_ratio: float | None = None

    def __post_init__(self) -> None:
        for name in ("memory_ratio", "disk_free_ratio"):
            value = getattr(self, name)
            if value is not None and not 0.0 < value < 1.0:
                raise SettingsError(f"{name} must lie between 0 and 1", value, "give a share such as 0.9, or None")
        if self.cpu_ratio is not None and not self.cpu_ratio > 0.0:
            raise SettingsError("cpu_ratio must be above 0 cores", self.cpu_ratio, "give cores such as 3.5, or None")


@dataclass(frozen=True, slots=True)
class _Level:
    resource: str
    value: float
    threshold: float
    unit: str
    alarming_above: bool
    details: dict[str, Any]

    @property
    def is_crossed(self) -> bool:
        return self.value >= self.threshold if self.alarming_above else self.value < self.threshold

    @property
    def is_back(self) -> bool:
        if self.alarming_above:
            return self.value < self.threshold * (1 - _MARGIN)
        return self.value > self.threshold * (1 + _MARGIN)


class ThresholdWatch:
    """Alerts once when a threshold is crossed, and again only after the value has been well back: 5 % of the threshold.

    Without that margin, a value that wavers around its threshold would alert at every other sample.

    Args:
        thresholds: What to watch.
        alert: Called at each crossing; one that fails is counted as a telemetry error.
        clear: Called with the resource when it is well back, and once where it is so from the beginning: an earlier
            process may have left its alert open.
    """

    def __init__(
        self,
        thresholds: ResourceThresholds,
        alert: ResourceAlert,
        clear: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._thresholds = thresholds
        self._alert = alert
        self._clear = clear
        self._crossed: dict[str, bool] = {}

    def check(self, reading: Reading, cpu_ratio: float) -> None:
        """Judge one reading.

        Args:
            reading: What was read.
            cpu_ratio: Processor time over wall time since the reading before.
        """
        for level in self._levels(reading, cpu_ratio):
            was_crossed = self._crossed.get(level.resource)
            if level.is_back and was_crossed is not False:
                self._crossed[level.resource] = False
                with _runtime.guard(SINK):
                    self._clear(level.resource)
            elif level.is_crossed and not was_crossed:
                self._crossed[level.resource] = True
                with _runtime.guard(SINK):
                    self._alert(level.resource, level.value, level.threshold, unit=level.unit, **level.details)

    def _levels(self, reading: Reading, cpu_ratio: float) -> Iterator[_Level]:
        limits, memory = self._thresholds, reading.memory
        if limits.memory_ratio is not None:
            details: dict[str, Any] = {"available_bytes": memory.free_bytes, "total_bytes": memory.total_bytes}
            yield _Level("memory", 1 - memory.free_ratio, limits.memory_ratio, "ratio", True, details)
        if limits.cpu_ratio is not None:
            yield _Level("cpu", cpu_ratio, limits.cpu_ratio, "cores", True, {})
        if limits.disk_free_ratio is not None:
            for path, disk in reading.disks.items():
                details = {"path": path, "free_bytes": disk.free_bytes, "total_bytes": disk.total_bytes}
                # The path is in the name: two disks that fill up are two alerts.
                yield _Level(f"disk_free {path}", disk.free_ratio, limits.disk_free_ratio, "ratio", False, details)
