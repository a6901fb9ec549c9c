from __future__ import annotations

import math
import random
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._events import AuditEvent, Bus, OperationEvent, OperationState
from ml_pipeline.config._performance import PerformanceMonitor, Statistics, quantile
from ml_pipeline.errors import SettingsError

durations = st.lists(st.floats(min_value=0.0, max_value=1e6), min_size=1, max_size=200)


@given(values=durations, probability=st.floats(min_value=0.0, max_value=1.0))
def test_quantile_is_that_of_numpy(values: list[float], probability: float) -> None:
    """The quantile is numpy's `linear`, for any sample and probability."""
    expected = np.quantile(values, probability, method="linear")
    assert quantile(sorted(values), probability) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(values=durations)
def test_statistics_are_those_of_numpy(values: list[float]) -> None:
    """All seven numbers agree with numpy's, and are in order."""
    monitor = PerformanceMonitor()
    for value in values:
        monitor.record("step", value)
    found = monitor.statistics("step")
    assert (found.count, found.min, found.max) == (len(values), min(values), max(values))
    assert found.mean == pytest.approx(np.mean(values), rel=1e-9)
    expected = np.quantile(values, [0.5, 0.95, 0.99])
    assert [found.median, found.p95, found.p99] == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert found.min <= found.median <= found.p95 <= found.p99 <= found.max


def test_a_name_without_observations_has_the_count_0_and_no_numbers() -> None:
    """Asking early raises nothing and makes nothing up."""
    monitor = PerformanceMonitor()
    found = monitor.statistics("step")
    assert found.count == 0
    numbers = (found.mean, found.min, found.max, found.median, found.p95, found.p99)
    assert all(math.isnan(number) for number in numbers)
    assert monitor.operations() == ()


def test_one_observation_is_every_statistic() -> None:
    """With a single observation all numbers are that one."""
    monitor = PerformanceMonitor()
    monitor.record("step", np.float64(2.5))
    assert monitor.statistics("step") == Statistics(1, 2.5, 2.5, 2.5, 2.5, 2.5, 2.5)
    assert type(monitor.statistics("step").mean) is float


def test_past_its_size_the_sample_stands_for_all_observations() -> None:
    """Count, mean, minimum and maximum stay exact; quantiles are estimated from the whole time, not from the end."""
    monitor = PerformanceMonitor(sample_size=1_000, uniform=random.Random(1).random)
    for value in range(20_000):
        monitor.record("step", value)
    found = monitor.statistics("step")
    assert (found.count, found.mean, found.min, found.max) == (20_000, 9_999.5, 0, 19_999)
    # Five standard errors of a quantile of 1,000: 5 sqrt(p (1 - p) / 1,000) of 20,000.
    assert found.median == pytest.approx(10_000, abs=1_600)
    assert found.p95 == pytest.approx(19_000, abs=700)


def test_each_observation_is_kept_as_likely_as_any_other() -> None:
    """The sample is uniform: each tenth of the observations has a tenth of the sample."""
    uniform = random.Random(2).random
    kept = np.zeros(100)
    for _ in range(500):
        monitor = PerformanceMonitor(sample_size=10, uniform=uniform)
        for value in range(100):
            monitor.record("step", value)
        kept[[int(value) for value in monitor._durations["step"].sample]] += 1
    tenths = kept.reshape(10, 10).sum(axis=1)
    assert tenths.sum() == 5_000
    assert tenths == pytest.approx(500, abs=5 * math.sqrt(5_000 * 0.1 * 0.9))


def test_the_random_numbers_of_the_job_are_not_touched() -> None:
    """A job that seeded `random` draws the same numbers with and without monitoring."""
    state = random.getstate()
    monitor = PerformanceMonitor(sample_size=1)
    for _ in range(10):
        monitor.record("step", 1.0)
    assert random.getstate() == state


def test_names_past_the_limit_are_dropped_counted_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """Memory is bounded by the number of names; known names go on."""
    monitor = PerformanceMonitor(most_operations=2)
    for name in ("a", "b", "step-1", "step-2", "a"):
        monitor.record(name, 1.0)
    assert monitor.operations() == ("a", "b")
    assert monitor.statistics("a").count == 2
    assert monitor.dropped == 2
    assert capsys.readouterr().err == (
        "ml_pipeline: performance_monitor keeps 2 operation names and drops 'step-1'; "
        "give operations stable names, without ids in them\n"
    )


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf])
def test_what_is_no_duration_is_refused(seconds: float) -> None:
    """Strict telemetry names the rule, the value and the remedy."""
    monitor = PerformanceMonitor()
    with pytest.raises(SettingsError) as refused:
        monitor.record("step", seconds)
    assert str(refused.value) == (
        f"a duration must be a finite number of seconds, 0 or more (got {seconds!r}); "
        "pass the difference of two readings of time.perf_counter()"
    )


def test_a_bad_duration_never_stops_a_run() -> None:
    """Without strictness it is counted and left out."""
    monitor = PerformanceMonitor()
    with ml_pipeline.override(strict=False):
        monitor.record("step", -1.0)
    assert monitor.operations() == ()
    assert _runtime.tally.telemetry_errors["monitoring_config", "SettingsError"] == 1


def test_threads_lose_no_observation() -> None:
    """Eight threads recording at once are all counted."""
    monitor = PerformanceMonitor()
    ready = threading.Barrier(8)

    def record() -> None:
        ready.wait()
        for _ in range(500):
            monitor.record("step", 1.0)

    threads = [threading.Thread(target=record) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert monitor.statistics("step").count == 4_000


def test_a_forked_child_starts_its_own_statistics() -> None:
    """In another process there is nothing yet, and no lock that another thread held."""
    pid = [1]
    monitor = PerformanceMonitor(pid=lambda: pid[0])
    monitor.record("step", 1.0)
    monitor._lock.acquire()
    pid[0] = 2
    assert monitor.statistics("step").count == 0
    assert monitor.operations() == ()


def test_clear_forgets_everything() -> None:
    """After `clear` the monitor is as new."""
    monitor = PerformanceMonitor(most_operations=1)
    monitor.record("a", 1.0)
    monitor.record("b", 1.0)
    monitor.clear()
    assert (monitor.operations(), monitor.dropped) == ((), 0)


@pytest.mark.parametrize(
    ("state", "count"),
    [("start", 0), ("progress", 0), ("complete", 1), ("fail", 1), ("cancel", 1), ("abandon", 0)],
)
def test_an_operation_is_recorded_once_when_it_ends(state: OperationState, count: int) -> None:
    """However an operation ended, its duration counts; nobody saw when an abandoned one did."""
    bus, monitor = Bus(), PerformanceMonitor()
    bus.subscribe("performance", monitor.observe)
    bus.publish(OperationEvent(type=state, kind="training", name="model_training", duration_seconds=2.0))
    assert monitor.statistics("model_training").count == count


def test_events_without_a_duration_are_ignored() -> None:
    """Neither another type of event nor an end without a duration is an observation."""
    monitor = PerformanceMonitor()
    monitor.observe(AuditEvent(action="training"))
    monitor.observe(OperationEvent(type="complete", kind="custom", name="step"))
    assert monitor.operations() == ()
