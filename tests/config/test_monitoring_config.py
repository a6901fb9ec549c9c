from __future__ import annotations

import asyncio
import inspect
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._events import Bus, Event, OperationEvent
from ml_pipeline.config._performance import PerformanceMonitor
from ml_pipeline.config._resources import Probe
from ml_pipeline.config._ticker import Job, Ticker
from ml_pipeline.config.alerting import alert_manager
from ml_pipeline.config.monitoring_config import (
    ResourceUsage,
    monitor_resources,
    performance_monitor,
    record_drift,
    subscribe_to,
)
from ml_pipeline.errors import SettingsError
from tests.config.monitoring_fakes import FakeSource, Published
from tests.support import eventually, used_memory

MIB = 1 << 20


def burn(cpu_seconds: float) -> None:
    end = time.process_time() + cpu_seconds
    while time.process_time() < end:
        pass


class LateTicker(Ticker):
    """Calls nothing by itself, and keeps what it was given."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.jobs: list[Job] = []

    def start(self, job: Job, interval_seconds: float) -> None:
        """Keep the job."""
        self.jobs.append(job)


@pytest.fixture
def published() -> Published:
    return Published()


@pytest.fixture
def performance() -> PerformanceMonitor:
    return PerformanceMonitor()


@pytest.fixture
def ticker() -> Iterator[Ticker]:
    ticker = Ticker("test")
    yield ticker
    ticker.stop_all()


@pytest.fixture
def monitor(published: Published, performance: PerformanceMonitor, ticker: Ticker) -> Callable[..., monitor_resources]:
    """Make a monitor that publishes to the test alone."""

    def make(name: str = "training", **values: Any) -> monitor_resources:
        given = {"publish": published, "performance": performance, "ticker": ticker, **values}
        return monitor_resources(name, **given)

    return make


Make = Callable[..., monitor_resources]


class TestMeasuring:
    """The numbers, against the process's own clocks and real work."""

    def test_processor_time_is_that_of_the_process_clock(self, monitor: Make) -> None:
        """0.3 s of work are 0.3 s of processor time, whatever else the machine does."""
        start = time.process_time()
        with monitor() as usage:
            burn(0.3)
        assert usage.cpu_seconds == pytest.approx(time.process_time() - start, abs=0.05)
        assert usage.cpu_seconds >= 0.3
        assert usage.mean_cpu_ratio == pytest.approx(usage.cpu_seconds / usage.wall_seconds)
        assert usage.max_cpu_ratio >= usage.mean_cpu_ratio > 0

    def test_memory_held_at_the_end_is_in_the_peak(self, monitor: Make) -> None:
        """50 MB that are really used show up as at least 40."""
        with monitor() as usage:
            block = used_memory(50 * MIB)
        assert usage.peak_memory_bytes - usage.start_memory_bytes >= 40 * MIB
        block.close()

    def test_a_peak_that_no_sample_saw_is_known(self) -> None:
        """Memory that was taken and given back between two samples is in the peak of a process that grew to it."""
        code = (
            "from ml_pipeline.config.monitoring_config import monitor_resources\n"
            "with monitor_resources('x', interval_seconds=60, publish=lambda event: None) as usage:\n"
            "    block = b'x' * (200 << 20)\n"
            "    del block\n"
            "print(usage.samples, (usage.peak_memory_bytes - usage.start_memory_bytes) >> 20)\n"
        )
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
        samples, grown = map(int, child.stdout.split())
        assert samples == 2
        assert 190 <= grown <= 230

    def test_written_bytes_are_those_of_the_block(self, monitor: Make, tmp_path: Path) -> None:
        """What was written before the block is not in it."""
        with monitor() as usage, (tmp_path / "data").open("wb") as file:
            file.write(os.urandom(4 * MIB))
            file.flush()
            os.fsync(file.fileno())
        assert usage.written_bytes == 0 or 4 * MIB <= usage.written_bytes < 64 * MIB
        assert usage.read_bytes >= 0

    def test_the_shortest_block_has_two_samples(self, monitor: Make) -> None:
        """One at once, one at the end, and the free space of data and logs."""
        with monitor() as usage:
            pass
        assert usage.samples == 2
        assert [point.seconds for point in usage.points] == [0.0, usage.wall_seconds]
        settings = _runtime.settings()
        assert set(usage.min_disk_free_bytes) == {str(settings.data_dir), str(settings.log_dir)}

    def test_samples_are_taken_while_the_block_runs(self, monitor: Make) -> None:
        """A usage can be read before its block has ended."""
        with monitor(interval_seconds=0.01) as usage:
            eventually(lambda: usage.samples >= 4)
            assert usage.wall_seconds > 0
        samples = usage.samples
        assert samples >= 5
        assert usage.samples == samples

    def test_nothing_samples_after_the_last_block(self, monitor: Make) -> None:
        """The thread is there while a block runs, and ends by itself."""
        with monitor():
            assert any(thread.name == "ml-pipeline-test" for thread in threading.enumerate())
        eventually(lambda: all(thread.name != "ml-pipeline-test" for thread in threading.enumerate()))

    def test_a_tick_under_way_when_the_block_ends_adds_nothing(self, monitor: Make, published: Published) -> None:
        """A usage is complete when its block has ended."""
        ticker = LateTicker("late")
        with monitor(ticker=ticker) as usage:
            pass
        (tick,) = ticker.jobs
        tick()
        assert usage.samples == 2
        assert len(published.samples) == 1


class TestPublishing:
    """What of a block goes to the bus."""

    def test_a_short_block_publishes_its_end(self, monitor: Make, published: Published) -> None:
        """One sample, whose ratio is that of the whole block."""
        with monitor() as usage:
            burn(0.1)
        (sample,) = published.samples
        assert sample.name == "training"
        assert sample.cpu_ratio == pytest.approx(usage.mean_cpu_ratio)
        assert sample.memory_bytes > 0
        assert sample.memory_available_bytes > 0

    def test_samples_are_published_no_more_often_than_asked(
        self, monitor: Make, published: Published, ticker: Ticker
    ) -> None:
        """Of a hundred samples a second, those go out that are the publishing interval apart, and the last."""
        now = [0.0]
        with monitor(interval_seconds=0.01, publish_seconds=15.0, probe=Probe(clock=lambda: now[0])) as usage:
            for at, count in [(14.0, 0), (15.0, 1), (29.0, 1), (31.0, 2), (40.0, 2)]:
                now[0] = at
                samples = usage.samples
                eventually(lambda seen=samples: usage.samples >= seen + 3)  # type: ignore[misc]
                assert len(published.samples) == count
        assert len(published.samples) == 3

    def test_samples_belong_to_the_operation_around_the_block(self, monitor: Make, published: Published) -> None:
        """Also those that the sampling thread publishes carry the ids of the block's context."""
        tokens = _context.restore({"operation_id": "op-1", "run_id": "run-1", "user_id": "user-1"})
        try:
            with monitor(interval_seconds=0.01, publish_seconds=0.01):
                eventually(lambda: len(published.samples) >= 2)
        finally:
            _context.undo(tokens)
        ids = {(sample.operation_id, sample.run_id, sample.user_id) for sample in published.samples}
        assert ids == {("op-1", "run-1", "user-1")}


class TestDuration:
    """What of a block goes to the performance monitor."""

    def test_the_duration_is_recorded_under_the_name(self, monitor: Make, performance: PerformanceMonitor) -> None:
        """A block's duration is one observation, whether it ended well or not."""
        now = [0.0]
        probe = Probe(clock=lambda: now[0])
        with monitor(probe=probe):
            now[0] = 2.5

        @monitor(probe=probe)
        def fail() -> None:
            now[0] = 4.0
            raise ValueError("no data")

        with pytest.raises(ValueError, match="no data"):
            fail()
        found = performance.statistics("training")
        assert (found.count, found.min, found.max) == (2, 1.5, 2.5)

    def test_an_operation_of_the_same_name_is_not_recorded_twice(
        self, monitor: Make, performance: PerformanceMonitor
    ) -> None:
        """Inside the operation `training`, the block `training` leaves the duration to the operation's end."""
        tokens = _context.restore({"operation": "training"})
        try:
            with monitor("training"), monitor("fit"):
                pass
        finally:
            _context.undo(tokens)
        assert performance.operations() == ("fit",)

    def test_the_default_monitor_hears_of_every_operation_that_ends(self) -> None:
        """The module subscribes its singleton to a bus."""
        bus, name = Bus(), "operation of this test alone"
        performance_monitor.clear()  # it keeps a bounded number of names, and other tests have theirs
        subscribe_to(bus)
        bus.publish(OperationEvent(type="start", kind="custom", name=name))
        bus.publish(OperationEvent(type="complete", kind="custom", name=name, duration_seconds=1.5))
        assert performance_monitor.statistics(name).count == 1
        assert performance_monitor.statistics(name).mean == 1.5


class TestShapes:
    """`with` and decorator, nested, recursive, asynchronous, in threads."""

    def test_blocks_nest(self, monitor: Make, performance: PerformanceMonitor) -> None:
        """Even one object can be entered inside itself: each block has its own usage."""
        both = monitor()
        with both as outer:
            with both as inner:
                pass
            assert outer is not inner
            assert inner.samples == 2
            assert outer.samples == 1
        assert outer.samples == 2
        assert performance.statistics("training").count == 2

    def test_a_decorated_function_stays_itself(self, monitor: Make, performance: PerformanceMonitor) -> None:
        """Arguments, result, name and docstring are those of the function."""

        @monitor("scaling")
        def scale(value: int, *, by: int = 2) -> int:
            """Multiply."""
            return value * by

        assert (scale(3), scale(3, by=5)) == (6, 15)
        assert (scale.__name__, scale.__doc__) == ("scale", "Multiply.")
        assert performance.statistics("scaling").count == 2

    def test_a_decorated_function_may_recurse(self, monitor: Make, performance: PerformanceMonitor) -> None:
        """Each call is a block of its own."""

        @monitor("factorial")
        def factorial(n: int) -> int:
            return n * factorial(n - 1) if n else 1

        assert factorial(4) == 24
        assert performance.statistics("factorial").count == 5

    def test_a_coroutine_function_stays_one_and_is_measured_to_its_end(
        self, monitor: Make, performance: PerformanceMonitor
    ) -> None:
        """Many tasks at once are measured each for itself, by one thread."""
        sampling: list[int] = []

        @monitor("fetch")
        async def fetch(seconds: float) -> float:
            await asyncio.sleep(seconds)
            sampling.append(sum(thread.name == "ml-pipeline-test" for thread in threading.enumerate()))
            return seconds

        async def main() -> list[float]:
            return await asyncio.gather(*(fetch(0.05) for _ in range(20)))

        assert inspect.iscoroutinefunction(fetch)
        assert asyncio.run(main()) == [0.05] * 20
        assert sampling == [1] * 20
        found = performance.statistics("fetch")
        assert found.count == 20
        assert found.min >= 0.049

    def test_threads_measure_at_once(self, monitor: Make, performance: PerformanceMonitor) -> None:
        """Blocks of several threads do not mix."""
        usages: list[ResourceUsage] = []
        ready = threading.Barrier(4)

        def work() -> None:
            with monitor(interval_seconds=0.01) as usage:
                ready.wait()
                eventually(lambda: usage.samples >= 3)
            usages.append(usage)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({id(usage) for usage in usages}) == 4
        assert performance.statistics("training").count == 4


class TestFaults:
    """The block comes first."""

    def test_what_the_block_raises_goes_on(self, monitor: Make, published: Published) -> None:
        """Exceptions pass through, also those that are no errors, and the end is sampled."""
        for kind in (ValueError, KeyboardInterrupt, SystemExit):
            with pytest.raises(kind), monitor():
                raise kind
        assert len(published.samples) == 3

    def test_what_an_async_function_raises_goes_on(self, monitor: Make, performance: PerformanceMonitor) -> None:
        """Cancellation and errors pass through a decorated coroutine function."""

        @monitor("fetch")
        async def fail() -> None:
            raise TimeoutError("too slow")

        with pytest.raises(TimeoutError, match="too slow"):
            asyncio.run(fail())
        assert performance.statistics("fetch").count == 1

    def test_failing_telemetry_never_breaks_the_block(
        self, monitor: Make, performance: PerformanceMonitor, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """With nothing working, the block runs, its result stands, and the failures are counted and said once."""

        def full(_: Event) -> None:
            raise OSError("disk full")

        def stopped() -> float:
            raise RuntimeError("clock stopped")

        with ml_pipeline.override(strict=False):
            with monitor(publish=full):
                done = True
            with monitor(probe=Probe(cpu_clock=stopped), publish=full) as usage:
                done = done and True
        assert done
        assert (usage.samples, usage.peak_memory_bytes) == (0, 0)
        assert performance.statistics("training").count == 2
        errors = _runtime.tally.telemetry_errors
        assert errors["monitoring_config", "OSError"] == 1
        assert errors["monitoring_config", "RuntimeError"] == 2
        assert capsys.readouterr().err.count("monitoring_config: OSError: disk full") == 1

    def test_failing_telemetry_is_seen_by_our_own_tests(self, monitor: Make) -> None:
        """Strict telemetry raises."""
        source = FakeSource()
        source.error = OSError("no such process")
        with pytest.raises(OSError, match="no such process"), monitor(probe=Probe(source)):
            pass

    @pytest.mark.parametrize("name", ["interval_seconds", "publish_seconds"])
    @pytest.mark.parametrize("value", [0, -1.0, math.nan])
    def test_an_interval_that_makes_no_sense(self, monitor: Make, name: str, value: float) -> None:
        """It is refused where strict; in a run it is counted, and the default used."""
        with pytest.raises(SettingsError) as refused:
            monitor(**{name: value})
        assert str(refused.value) == (
            f"{name} must be 0.01 seconds or more (got {value!r}); leave it out to have the default"
        )
        with ml_pipeline.override(strict=False), monitor(**{name: value}) as usage:
            pass
        assert usage.samples == 2
        assert _runtime.tally.telemetry_errors["monitoring_config", "SettingsError"] >= 1


def test_a_recorded_verdict_reaches_log_metrics_and_alerts() -> None:
    """`record_drift` is one event: a line in data_drift.log, the gauges, and an alert where the alarm says so."""
    record_drift(
        "clf", "june", "drift", rows=500, effects={"age": 0.4}, drifted=["age"], reason="age moved", alarm=True
    )
    line = json.loads(Path("ml_pipeline/logs/monitoring/data_drift.log").read_text())
    assert (line["level"], line["context"]["drifted"]) == ("WARNING", ["age"])
    assert REGISTRY.get_sample_value("ml_pipeline_drift_effect", {"pipeline": "test", "feature": "age"}) == 0.4
    (alert,) = alert_manager.history()
    assert (alert.kind, alert.model) == ("data_drift", "clf")
