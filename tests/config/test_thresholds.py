from __future__ import annotations

import math
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._resource_sources import Space
from ml_pipeline.config._resources import Reading
from ml_pipeline.config._thresholds import ResourceThresholds, ThresholdWatch
from ml_pipeline.errors import SettingsError


class Alerts:
    """Keeps what was alerted."""

    def __init__(self) -> None:
        self.raised: list[tuple[str, float, float, str, dict[str, Any]]] = []

    def __call__(self, resource: str, value: float, threshold: float, *, unit: str = "", **details: Any) -> None:
        """Take an alert, as the alert manager would."""
        self.raised.append((resource, round(value, 6), threshold, unit, details))


def reading(*, memory_free: int = 100, **disks: int) -> Reading:
    spaces = {f"/{name}": Space(free, 100) for name, free in disks.items()}
    return Reading(seconds=0, cpu_seconds=0, memory=Space(memory_free, 100), disks=spaces)


def test_the_defaults_watch_memory_and_disks_and_leave_the_processor() -> None:
    """90 % of the memory used, 10 % of a disk free; a busy processor is no trouble."""
    alerts = Alerts()
    ThresholdWatch(ResourceThresholds(), alerts).check(reading(memory_free=10, data=9, logs=10), cpu_ratio=64.0)
    assert alerts.raised == [
        ("memory", 0.9, 0.9, "ratio", {"available_bytes": 10, "total_bytes": 100}),
        ("disk_free /data", 0.09, 0.1, "ratio", {"path": "/data", "free_bytes": 9, "total_bytes": 100}),
    ]


def test_a_crossing_is_said_once_until_the_value_was_well_back() -> None:
    """Wavering around the threshold is one crossing; going back by 5 % and crossing again is another."""
    alerts = Alerts()
    watch = ThresholdWatch(ResourceThresholds(memory_ratio=0.8, disk_free_ratio=0.2), alerts)
    for memory_free, disk_free in [(15, 19), (21, 20), (15, 19), (24, 21), (15, 19), (25, 22), (15, 19)]:
        watch.check(reading(memory_free=memory_free, data=disk_free), 0.0)
    assert [alert[:2] for alert in alerts.raised if alert[0] == "memory"] == [("memory", 0.85)] * 2
    assert [alert[:2] for alert in alerts.raised if alert[0] != "memory"] == [("disk_free /data", 0.19)] * 2


def test_each_disk_is_watched_for_itself() -> None:
    """Two disks that fill up are two alerts with two names."""
    alerts = Alerts()
    watch = ThresholdWatch(ResourceThresholds(memory_ratio=None), alerts)
    watch.check(reading(memory_free=0, data=5, logs=50), 0.0)
    watch.check(reading(memory_free=0, data=5, logs=5), 0.0)
    assert [alert[0] for alert in alerts.raised] == ["disk_free /data", "disk_free /logs"]


def test_the_processor_is_watched_in_cores_when_asked() -> None:
    """A threshold for the processor is in cores, like the samples."""
    alerts = Alerts()
    watch = ThresholdWatch(ResourceThresholds(memory_ratio=None, disk_free_ratio=None, cpu_ratio=2.0), alerts)
    watch.check(reading(memory_free=0, data=0), 1.9)
    watch.check(reading(memory_free=0, data=0), 2.5)
    assert alerts.raised == [("cpu", 2.5, 2.0, "cores", {})]


def test_what_is_not_known_crosses_nothing() -> None:
    """A machine that tells no numbers raises no alarm."""
    alerts = Alerts()
    ThresholdWatch(ResourceThresholds(), alerts).check(Reading(seconds=0, cpu_seconds=0), 0.0)
    assert alerts.raised == []


def test_an_alert_that_fails_is_counted_and_the_others_are_raised() -> None:
    """One resource's failing alert does not hide another's."""
    alerts = Alerts()

    def failing_for_memory(resource: str, value: float, threshold: float, *, unit: str = "", **details: Any) -> None:
        if resource == "memory":
            raise OSError("no store")
        alerts(resource, value, threshold, unit=unit, **details)

    with ml_pipeline.override(strict=False):
        ThresholdWatch(ResourceThresholds(), failing_for_memory).check(reading(memory_free=1, data=1), 0.0)
    assert [alert[0] for alert in alerts.raised] == ["disk_free /data"]
    assert _runtime.tally.telemetry_errors["monitoring_config", "OSError"] == 1


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"memory_ratio": 90}, "memory_ratio must lie between 0 and 1 (got 90); give a share such as 0.9, or None"),
        (
            {"disk_free_ratio": 0.0},
            "disk_free_ratio must lie between 0 and 1 (got 0.0); give a share such as 0.9, or None",
        ),
        ({"cpu_ratio": math.nan}, "cpu_ratio must be above 0 cores (got nan); give cores such as 3.5, or None"),
    ],
)
def test_a_threshold_that_makes_no_sense_is_refused(given: dict[str, float], text: str) -> None:
    """Configuration is judged before work starts; per cent given for a share is the usual slip."""
    with pytest.raises(SettingsError) as refused:
        ResourceThresholds(**given)
    assert str(refused.value) == text


def test_a_resource_that_is_well_back_is_told_once() -> None:
    """After a crossing; and at the first reading, for what an earlier process may have left open."""
    back: list[str] = []
    thresholds = ResourceThresholds(memory_ratio=0.8, disk_free_ratio=None)
    watch = ThresholdWatch(thresholds, lambda *_, **__: None, back.append)
    told = []
    for memory_free in (90, 90, 10, 22, 30, 90):
        watch.check(reading(memory_free=memory_free), 0.0)
        told.append(len(back))
    assert told == [1, 1, 1, 1, 2, 2]
    wavering = ThresholdWatch(thresholds, lambda *_, **__: None, back.append)
    wavering.check(reading(memory_free=22), 0.0)
    assert len(back) == 2
