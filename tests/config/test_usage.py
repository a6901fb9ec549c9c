from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.config._resource_sources import Space
from ml_pipeline.config._resources import Reading
from ml_pipeline.config._usage import ResourceUsage, UsagePoint


def filled(*readings: Reading) -> ResourceUsage:
    usage = ResourceUsage("training")
    for reading in readings:
        usage.add(reading)
    return usage


def test_before_the_first_sample_everything_is_nothing() -> None:
    """A usage whose samples all failed can still be read."""
    usage = ResourceUsage("training")
    assert (usage.samples, usage.wall_seconds, usage.cpu_seconds, usage.mean_cpu_ratio, usage.max_cpu_ratio) == (0,) * 5
    assert (usage.start_memory_bytes, usage.peak_memory_bytes, usage.read_bytes, usage.written_bytes) == (0,) * 4
    assert usage.points == ()
    assert dict(usage.min_disk_free_bytes) == {}


def test_aggregates_are_those_between_the_first_and_the_last_sample() -> None:
    """Totals are differences; extremes are over all samples."""
    usage = filled(
        Reading(
            seconds=10, cpu_seconds=5, memory_bytes=100, read_bytes=7, written_bytes=1, disks={"/data": Space(90, 100)}
        ),
        Reading(seconds=11, cpu_seconds=7, memory_bytes=300, disks={"/data": Space(20, 100), "/logs": Space(5, 9)}),
        Reading(
            seconds=14, cpu_seconds=8, memory_bytes=200, read_bytes=9, written_bytes=5, disks={"/data": Space(50, 100)}
        ),
    )
    assert (usage.samples, usage.wall_seconds, usage.cpu_seconds) == (3, 4, 3)
    assert (usage.mean_cpu_ratio, usage.max_cpu_ratio) == (0.75, 2.0)
    assert (usage.start_memory_bytes, usage.peak_memory_bytes) == (100, 300)
    assert (usage.read_bytes, usage.written_bytes) == (2, 4)
    assert usage.min_disk_free_bytes == {"/data": 20, "/logs": 5}
    assert repr(usage) == (
        "ResourceUsage(name='training', wall_seconds=4.000, cpu_seconds=3.000, peak_memory_bytes=300, samples=3)"
    )


def test_a_peak_between_samples_is_known_from_the_high_water_mark() -> None:
    """Where the mark rose during the block, the peak is the block's."""
    usage = filled(
        Reading(seconds=0, cpu_seconds=0, memory_bytes=100, peak_memory_bytes=150),
        Reading(seconds=1, cpu_seconds=0, memory_bytes=110, peak_memory_bytes=900),
    )
    assert usage.peak_memory_bytes == 900


def test_a_peak_from_before_the_block_is_not_its_own() -> None:
    """A mark that did not move says nothing about the block."""
    usage = filled(
        Reading(seconds=0, cpu_seconds=0, memory_bytes=100, peak_memory_bytes=900),
        Reading(seconds=1, cpu_seconds=0, memory_bytes=110, peak_memory_bytes=900),
    )
    assert usage.peak_memory_bytes == 110


def test_a_window_too_short_to_judge_does_not_make_the_maximum() -> None:
    """A millisecond at full speed is no peak load; the maximum is still never below the mean."""
    usage = filled(*(Reading(seconds=at, cpu_seconds=cpu) for at, cpu in ((0, 0), (1, 0.5), (1.001, 0.504))))
    assert usage.max_cpu_ratio == pytest.approx(0.504 / 1.001)
    assert filled(Reading(seconds=0, cpu_seconds=0), Reading(seconds=0.01, cpu_seconds=0.01)).max_cpu_ratio == 1.0


def test_a_few_samples_are_points_one_by_one() -> None:
    """A chart begins at the start, without load, and has a point for each sample, even for two at one moment."""
    usage = filled(
        Reading(seconds=5, cpu_seconds=1, memory_bytes=10),
        Reading(seconds=7, cpu_seconds=2, memory_bytes=20),
        Reading(seconds=7, cpu_seconds=2, memory_bytes=30),
    )
    assert usage.points == (UsagePoint(0, 0, 10), UsagePoint(2, 0.5, 20), UsagePoint(2, 0, 30))


steps = st.tuples(st.floats(0.01, 10.0), st.floats(0.0, 2.0), st.integers(0, 1 << 40))


@given(few=st.lists(steps, min_size=1, max_size=40), times=st.integers(1, 60))
def test_a_chart_is_bounded_even_and_loses_no_peak(few: list[tuple[float, float, int]], times: int) -> None:
    """Over any number of samples: at most 240 points in order, the highest memory kept, processor time conserved."""
    usage, at, cpu = ResourceUsage("training"), 0.0, 0.0
    readings = few * times
    for seconds, ratio, memory in readings:
        usage.add(Reading(seconds=at, cpu_seconds=cpu, memory_bytes=memory))
        at, cpu = at + seconds, cpu + seconds * ratio
    points = usage.points
    assert len(points) == len(readings) if len(readings) < 240 else 119 < len(points) <= 240
    ends = [point.seconds for point in points]
    assert ends == sorted(ends)
    assert ends[-1] == usage.wall_seconds
    assert max(point.memory_bytes for point in points) == usage.peak_memory_bytes
    spent = sum(point.cpu_ratio * (point.seconds - before) for before, point in zip([0.0, *ends], points, strict=False))
    assert spent == pytest.approx(usage.cpu_seconds, rel=1e-6, abs=1e-6)


def test_points_cover_equal_numbers_of_samples() -> None:
    """A regular series stays regular when it is thinned; only the last point may cover less."""
    usage = filled(*(Reading(seconds=at, cpu_seconds=0) for at in range(1_000)))
    ends = [point.seconds for point in usage.points]
    gaps = {after - before for before, after in pairwise(ends[:-1])}
    assert gaps == {8.0}
    assert ends[-1] == 999
