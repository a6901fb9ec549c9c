"""Resource and performance monitoring, and the health check.

::

    from ml_pipeline.config.monitoring_config import monitor_resources, performance_monitor

    with monitor_resources("training") as usage:
        train_model()
    usage.peak_memory_bytes
    performance_monitor.statistics("training").p95

Samples are published to the bus, from where log and metrics take them. What is sampled is this process as a whole: the
workers of a process pool are not in it, and monitor themselves.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypedDict, TypeVar

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._events import DEFAULT_BUS, Bus, DriftEvent, OperationEvent, Verdict
from ml_pipeline.config._events import publish as _publish
from ml_pipeline.config._health import Health, HealthCheck, HealthChecks
from ml_pipeline.config._health_checks import BUILT_IN
from ml_pipeline.config._performance import PerformanceMonitor, Statistics
from ml_pipeline.config._resources import PROBE, SINK, Probe, to_sample, watched_folders
from ml_pipeline.config._scoped import scoped
from ml_pipeline.config._thresholds import ResourceThresholds, ThresholdWatch
from ml_pipeline.config._ticker import TICKER, Ticker
from ml_pipeline.config._usage import ResourceUsage, UsagePoint
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType

    from ml_pipeline.config._events import Event, ResourceSample
    from ml_pipeline.config._resources import Reading
    from ml_pipeline.config._thresholds import ResourceAlert

__all__ = [
    "Health",
    "HealthCheck",
    "HealthChecks",
    "PerformanceMonitor",
    "ResourceMonitor",
    "ResourceThresholds",
    "ResourceUsage",
    "Statistics",
    "UsagePoint",
    "health_check",
    "monitor_resources",
    "performance_monitor",
    "record_drift",
    "resource_monitor",
    "subscribe_to",
]

P = ParamSpec("P")
R = TypeVar("R")

_BLOCK_SECONDS: Final = 0.5
_PUBLISH_SECONDS: Final = 15.0  # the scrape interval of Prometheus: more often is read by nobody
_SHORTEST_SECONDS: Final = 0.01

performance_monitor: Final = PerformanceMonitor()
"""Durations of every operation that ended and of every block under `monitor_resources`, by name."""

health_check: Final = HealthChecks(BUILT_IN)
"""``health_check()`` runs the checks; ``health_check.register(name, check)`` adds one."""


class _Tools(TypedDict):
    interval_seconds: float
    publish_seconds: float
    publish: Callable[[Event], None]
    performance: PerformanceMonitor
    probe: Probe
    ticker: Ticker


class monitor_resources:  # noqa: N801 - reads as a statement: `with monitor_resources("training"):`
    """Sample processor, memory, disk and I/O while a block or a function runs.

    Both ``with`` and decorator, for functions and for ``async def``; of a generator function, only the call that makes
    the generator is measured. A sample is taken at once, one every interval, and one at the end, so that the shortest
    block has two. Blocks may be nested and run at once, each with an object of its own; a decorated function sees to
    that itself. What the block raises goes on; what fails in here never reaches the block.

    The block's duration is recorded in `performance_monitor` under *name*, unless the operation around it has the same
    name and will be recorded itself.

    Args:
        name: What is running, such as ``training``.
        interval_seconds: From one sample to the next, at least 0.01; a bad value is counted, and 0.5 used.
        publish_seconds: A sample goes to log and metrics at most this often, at least 0.01, and one at the end; a bad
            value is counted, and 15 used.
        publish: Where samples go; by default the bus.
        performance: Where the duration goes; by default `performance_monitor`.
        probe: Takes the readings.
        ticker: Calls for the samples.

    Raises:
        SettingsError: Only with ``ML_PIPELINE_STRICT=1``, if an interval is out of range.
    """

    __slots__ = ("_blocks", "_name", "_tools")

    def __init__(
        self,
        name: str,
        *,
        interval_seconds: float = _BLOCK_SECONDS,
        publish_seconds: float = _PUBLISH_SECONDS,
        publish: Callable[[Event], None] = _publish,
        performance: PerformanceMonitor = performance_monitor,
        probe: Probe = PROBE,
        ticker: Ticker = TICKER,
    ) -> None:
        self._name = name
        self._tools: _Tools = {
            "interval_seconds": _usable("interval_seconds", interval_seconds, _BLOCK_SECONDS),
            "publish_seconds": _usable("publish_seconds", publish_seconds, _PUBLISH_SECONDS),
            "publish": publish,
            "performance": performance,
            "probe": probe,
            "ticker": ticker,
        }
        self._blocks: list[_Block] = []

    def __enter__(self) -> ResourceUsage:
        block = _Block(self._name, self._tools)
        with _runtime.guard(SINK):
            block.start()
        self._blocks.append(block)
        return block.usage

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._blocks.pop().finish()

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        """Sample whenever *function* runs.

        Args:
            function: A function, or a coroutine function, which stays one.

        Returns:
            The function, monitored.
        """
        return scoped(function, lambda: monitor_resources(self._name, **self._tools))


class _Block:
    """One run of a monitored block."""

    __slots__ = ("_ended", "_lock", "_published", "_started", "_tick", "_timed_elsewhere", "_tools", "usage")

    def __init__(self, name: str, tools: _Tools) -> None:
        self.usage = ResourceUsage(name)
        self._tools = tools
        self._lock = threading.Lock()
        self._ended = False
        self._published: Reading | None = None
        self._tick = _context.Carried(self._sample)  # the ticker's thread publishes for the operation around the block
        self._timed_elsewhere = _context.operation.get() == name
        self._started = tools["probe"].clock()

    def start(self) -> None:
        self._published = first = self._tools["probe"].read(watched_folders())
        self.usage.add(first)
        self._tools["ticker"].start(self._tick, self._tools["interval_seconds"])
        self._started = self._tools["probe"].clock()  # what opening telemetry cost is not the block's

    def finish(self) -> None:
        seconds = self._tools["probe"].clock() - self._started
        with _runtime.guard(SINK):
            self._tools["ticker"].stop(self._tick)
            self._sample(last=True)
        if not self._timed_elsewhere:
            self._tools["performance"].record(self.usage.name, seconds)

    def _sample(self, *, last: bool = False) -> None:
        with self._lock:
            if self._ended:  # a tick that was under way when the block ended
                return
            self._ended = last
            reading = self._tools["probe"].read(watched_folders())
            self.usage.add(reading)
            before = self._published or reading
            if not last and reading.seconds - before.seconds < self._tools["publish_seconds"]:
                return
            self._published = reading
        ratio = reading.cpu_ratio_since(before.seconds, before.cpu_seconds)
        self._tools["publish"](to_sample(self.usage.name, reading, ratio))


class ResourceMonitor:
    """Samples the process in the background, for metrics, and alerts when a resource runs out.

    Thread-safe. Nothing runs until `start`, and a forked child starts with nothing running.

    Args:
        name: Of the samples.
        thresholds: From where on to alert; None, as in `resource_monitor`, never does.
        alert: Called once a crossing; by default ``alert_manager.alert_resource_threshold``, unless an alert rule is on
            that resource.
        clear: Called with a resource that is well back; by default its alert is resolved.
        publish: Where samples go; by default the bus.
        probe: Takes the readings.
        ticker: Calls for the samples.
    """

    def __init__(
        self,
        *,
        name: str = "process",
        thresholds: ResourceThresholds | None = None,
        alert: ResourceAlert | None = None,
        clear: Callable[[str], object] | None = None,
        publish: Callable[[Event], None] = _publish,
        probe: Probe = PROBE,
        ticker: Ticker = TICKER,
    ) -> None:
        self._name = name
        self._watch = ThresholdWatch(thresholds, alert or _alert, clear or _clear) if thresholds else None
        self._publish = publish
        self._probe = probe
        self._ticker = ticker
        self._tick = _context.Carried(self.sample, {})  # the process belongs to no operation
        self._before = (probe.clock(), probe.cpu_clock())

    def sample(self) -> ResourceSample:
        """Take a sample now, publish it, and alert where it crosses a threshold.

        Returns:
            The sample; its `cpu_ratio` is that since the sample before, or since the monitor was made.
        """
        reading = self._probe.read(watched_folders())
        before, self._before = self._before, (reading.seconds, reading.cpu_seconds)
        sample = to_sample(self._name, reading, reading.cpu_ratio_since(*before))
        with _runtime.guard(SINK):
            self._publish(sample)
        if self._watch is not None:
            self._watch.check(reading, sample.cpu_ratio)
        return sample

    def start(self, interval_seconds: float = _PUBLISH_SECONDS) -> None:
        """Take a sample now and one every interval until `stop`; started again, it has the new interval.

        Args:
            interval_seconds: From one sample to the next, at least 0.01.

        Raises:
            SettingsError: If the interval is out of range.
        """
        _require_seconds("interval_seconds", interval_seconds)
        with _runtime.guard(SINK):
            self.sample()
            self._ticker.start(self._tick, interval_seconds)

    def stop(self) -> None:
        """Take no more samples; a monitor that was never started is left alone."""
        self._ticker.stop(self._tick)


resource_monitor: Final = ResourceMonitor()
"""The background monitor of this process; it samples between ``start()`` and ``stop()``."""


def record_drift(
    model: str,
    batch: str,
    verdict: Verdict,
    *,
    rows: int,
    effects: Mapping[str, float] | None = None,
    drifted: Sequence[str] = (),
    reason: str = "",
    alarm: bool = False,
    bus: Bus = DEFAULT_BUS,
) -> None:
    """Tell every sink the verdict on a batch: a line in ``monitoring/data_drift.log``, the metrics, and an alert.

    Args:
        model: The model whose input or output was checked.
        batch: What the batch is called.
        verdict: ``drift``, ``no_drift`` or ``insufficient_data``, as `ml_pipeline.drift.check` answers.
        rows: How many rows the batch had.
        effects: How far each feature moved, 0 to 1: the ``effect`` of each feature of a report.
        drifted: The features that drifted.
        reason: One sentence for a person.
        alarm: Whether to raise an alert, as `ml_pipeline.drift.DriftAlarm` decides.
        bus: Where the event goes.
    """
    event = DriftEvent(
        model=model,
        batch=batch,
        verdict=verdict,
        rows=rows,
        effects=dict(effects or {}),
        drifted=tuple(drifted),
        reason=reason,
        alarm=alarm,
    )
    bus.publish(event)


def subscribe_to(bus: Bus) -> None:
    """Have `performance_monitor` record the duration of every operation that ends.

    Args:
        bus: Where operations are published.
    """
    bus.subscribe(SINK, performance_monitor.observe, frozenset({OperationEvent}).__contains__)


def _alert(resource: str, value: float, threshold: float, *, unit: str = "", **details: Any) -> None:
    from ml_pipeline.config.alerting import alert_manager

    if not alert_manager.has_rule_on(resource):  # it tells the same cause
        alert_manager.alert_resource_threshold(resource, value, threshold, unit=unit, **details)


def _clear(resource: str) -> None:
    from ml_pipeline.config.alerting import alert_manager

    alert_manager.clear_resource(resource)


def _require_seconds(name: str, value: float) -> float:
    if not value >= _SHORTEST_SECONDS:
        raise SettingsError(
            f"{name} must be {_SHORTEST_SECONDS} seconds or more", value, "leave it out to have the default"
        )
    return value


def _usable(name: str, value: float, default: float) -> float:
    with _runtime.guard(SINK):
        return _require_seconds(name, value)
    return default
