from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._resources import Probe
from ml_pipeline.config._ticker import Ticker
from ml_pipeline.config.alerting import AlertRule, alert_manager
from ml_pipeline.config.monitoring_config import ResourceMonitor, ResourceThresholds
from ml_pipeline.errors import SettingsError
from tests.config.monitoring_fakes import FakeSource, Published
from tests.support import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ml_pipeline.config._events import Event


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def ticker() -> Iterator[Ticker]:
    ticker = Ticker("background")
    yield ticker
    ticker.stop_all()


class TestResourceMonitor:
    """The monitor in the background."""

    def test_a_sample_is_returned_and_published(self, published: Published) -> None:
        """The ratio of each sample is that since the one before."""
        now, cpu = [10.0], [1.0]
        probe = Probe(FakeSource(), clock=lambda: now[0], cpu_clock=lambda: cpu[0])
        monitor = ResourceMonitor(publish=published, probe=probe)
        now[0], cpu[0] = 12.0, 2.0
        first = monitor.sample()
        now[0], cpu[0] = 13.0, 4.0
        second = monitor.sample()
        assert (first.name, first.cpu_ratio, second.cpu_ratio) == ("process", 0.5, 2.0)
        assert (first.memory_bytes, first.memory_available_bytes) == (40, 50)
        assert (first.read_bytes, first.written_bytes) == (3, 4)
        assert published.samples == [first, second]

    def test_a_sample_that_cannot_be_published_is_counted_and_returned(self) -> None:
        """The caller has its sample, and the run goes on."""

        def full(_: Event) -> None:
            raise OSError("disk full")

        with ml_pipeline.override(strict=False):
            sample = ResourceMonitor(publish=full, probe=Probe(FakeSource())).sample()
        assert sample.memory_bytes == 40
        assert _runtime.tally.telemetry_errors["monitoring_config", "OSError"] == 1

    def test_it_samples_at_once_and_then_in_the_background(self, published: Published, ticker: Ticker) -> None:
        """Metrics have a value from the start; the samples belong to no operation."""
        monitor = ResourceMonitor(publish=published, ticker=ticker)
        monitor.start(1_000.0)
        assert len(published.samples) == 1
        tokens = _context.restore({"operation_id": "op-1"})
        try:
            monitor.start(0.01)
            eventually(lambda: len(published.samples) >= 4)
        finally:
            _context.undo(tokens)
            monitor.stop()
        assert {sample.operation_id for sample in published.samples[2:]} == {None}
        eventually(lambda: all(thread.name != "ml-pipeline-background" for thread in threading.enumerate()))

    def test_stopping_what_never_started_does_nothing(self, ticker: Ticker) -> None:
        """Stop may be called twice, or too early."""
        monitor = ResourceMonitor(ticker=ticker)
        monitor.stop()
        monitor.stop()

    def test_a_crossing_is_alerted_once(self, published: Published) -> None:
        """A monitor with thresholds raises an alert for a crossing, not for every sample."""
        source, alerts = FakeSource(), list[tuple[str, float]]()

        def alert(resource: str, value: float, threshold: float, *, unit: str = "", **details: Any) -> None:
            alerts.append((resource, value))

        thresholds = ResourceThresholds(memory_ratio=0.9, disk_free_ratio=None)
        monitor = ResourceMonitor(publish=published, probe=Probe(source), thresholds=thresholds, alert=alert)
        for free in (50, 5, 4, 50, 5):
            source.free = free
            monitor.sample()
        assert alerts == [("memory", 0.95), ("memory", 0.95)]
        assert len(published.samples) == 5

    def test_by_default_the_alert_manager_is_told(self, published: Published) -> None:
        """A crossing is an alert like any other, under the resource's name."""
        source = FakeSource()
        source.free = 5
        thresholds = ResourceThresholds(memory_ratio=0.9, disk_free_ratio=None)
        ResourceMonitor(publish=published, probe=Probe(source), thresholds=thresholds).sample()
        (alert,) = alert_manager.history()
        assert (alert.kind, alert.feature, alert.severity) == ("resource_threshold", "memory", "warning")

    def test_its_alert_is_resolved_when_the_resource_is_well_back(self, published: Published) -> None:
        """By the monitor itself."""
        source = FakeSource()
        source.free = 5
        thresholds = ResourceThresholds(memory_ratio=0.9, disk_free_ratio=None)
        monitor = ResourceMonitor(publish=published, probe=Probe(source), thresholds=thresholds)
        monitor.sample()
        source.free = 50
        monitor.sample()
        assert [alert.state for alert in alert_manager.history()] == ["resolved"]

    def test_what_a_rule_watches_is_left_to_it(self, published: Published) -> None:
        """One cause, one alert; other resources are alerted as ever."""
        rules = [
            AlertRule(name="MemoryLow", on="resources", value="memory_available_bytes", below=10),
            AlertRule(name="DiskLow", on="resources", value="disk_free_bytes.*", below=10),
        ]
        thresholds = ResourceThresholds(memory_ratio=0.9, disk_free_ratio=0.999999, cpu_ratio=1e-9)
        for rule in rules:
            alert_manager.add_rule(rule)
        source = FakeSource()
        source.free = 5
        ResourceMonitor(publish=published, probe=Probe(source), thresholds=thresholds).sample()
        for rule in rules:
            alert_manager.remove_rule(rule.name)
        assert {alert.feature for alert in alert_manager.history()} == {"cpu"}
        assert alert_manager.has_rule_on("memory") is False

    def test_without_thresholds_nothing_is_alerted(self, published: Published) -> None:
        """A monitor of its own accord never alerts."""
        source, alerts = FakeSource(), list[str]()

        def alert(resource: str, value: float, threshold: float, *, unit: str = "", **details: Any) -> None:
            alerts.append(resource)

        source.free = 0
        ResourceMonitor(publish=published, probe=Probe(source), alert=alert).sample()
        assert alerts == []

    @pytest.mark.parametrize("interval", [0, -3.0, math.nan])
    def test_a_bad_interval_is_refused_before_work_starts(self, interval: float, ticker: Ticker) -> None:
        """The message names the rule, the value and the remedy, strict or not."""
        with ml_pipeline.override(strict=False), pytest.raises(SettingsError) as refused:
            ResourceMonitor(ticker=ticker).start(interval)
        assert str(refused.value) == (
            f"interval_seconds must be 0.01 seconds or more (got {interval!r}); leave it out to have the default"
        )
