"""What a run used: its own chart, the monitors' samples, and what bounds them."""

from __future__ import annotations

import math
import time
from itertools import pairwise
from typing import Any

import pytest

from ml_pipeline.config._events import Bus, ResourceSample
from ml_pipeline.report.resources import resources_section
from ml_pipeline.report.run import Run
from ml_pipeline.report.samples import RUN_SERIES, RunSampler, Samples
from tests.report.runs import at, fine_run
from tests.report.strict_html import Page


def _read(resources: list[Any]) -> Page:
    page = Page()
    page.feed(str(resources_section(Run(fine_run(resources=resources)))))
    assert page.open == []
    return page


def _sample(name: str, seconds: float, cpu: float = 0.5, memory: float = 2e8, **more: Any) -> dict[str, Any]:
    return {"name": name, "time": at(seconds), "cpu_ratio": cpu, "memory_bytes": memory, **more}


def test_the_chart_of_a_run() -> None:
    """Processor and memory over the run, with mean and highest; what lies outside the run is drawn at its ends."""
    memory = [98, 99, 100, 150, 120, 110, 300]
    page = _read(
        [_sample("run", number - 1.5, cpu=number / 10, memory=size * 2**20) for number, size in enumerate(memory)]
    )
    assert "CPU mean 0.40, highest 0.60 cores" in page.text, "half of .2, .3, .4, .5 and half of .6, over 4 s"
    assert "Memory 99 MiB at first, 300 MiB at its highest" in page.text
    assert "Memory over the run: 99 MiB at first, 300 MiB at its highest" in page.attributes["aria-label"]
    assert all("NaN" not in path and "inf" not in path for path in page.attributes["d"])


def test_the_steps_stand_behind_the_chart() -> None:
    """Those wide enough by name."""
    page = _read([_sample("run", second) for second in range(5)])
    assert "data_ingestion data_validation model_training prediction" in page.text


def test_the_monitors_are_a_table() -> None:
    """What each used at its highest, and the least memory the machine had left."""
    text = _read(
        [
            _sample("training", 1.0, cpu=0.9, memory=3e8, memory_available_bytes=2**34),
            _sample("training", 2.0, cpu=1.5, memory=2e8, memory_available_bytes=2**33),
            _sample("loading", 1.0, memory=1e8),
        ]
    ).text
    assert "training 2 samples 1.50 cores 286 MiB 8 GiB" in text
    assert "loading 1 sample 0.50 cores 95.4 MiB" in text


def test_without_samples_it_says_why() -> None:
    """A run can be too short."""
    assert "No samples were taken" in _read([]).text


@pytest.mark.parametrize(
    "odd",
    [
        [_sample("run", second, cpu=math.nan) for second in range(5)],
        [_sample("run", second, cpu=-1, memory=-5) for second in range(5)],
        [_sample("run", 1.0) for _ in range(5)],
        [_sample("run", second) | {"time": "x"} for second in range(5)],
        [_sample("run", 1e6 + second) for second in range(5)],
        [None, "x", {}],
    ],
)
def test_odd_samples(odd: list[Any]) -> None:
    """Numbers that are none, moments that are none or all the same: drawn as far as they go."""
    page = _read(odd)
    assert all("nan" not in path for path in page.attributes.get("d", []))


def _event(name: str, number: int, run_id: str | None = "r") -> ResourceSample:
    return ResourceSample(
        name=name, cpu_ratio=float(number), memory_bytes=1, memory_available_bytes=2, run_id=run_id, time=float(number)
    )


def test_samples_are_spread_over_all_of_the_time() -> None:
    """However many there are of a name, at most 240 are kept, evenly spread, the first among them."""
    samples = Samples()
    for number in range(100_000):
        samples.add(_event("process", number))
    kept = [sample["cpu_ratio"] for sample in samples.of_run("r")]
    assert 100 < len(kept) <= 240
    assert kept[0] == 0
    assert {later - earlier for earlier, later in pairwise(kept)} == {512.0}
    assert kept[-1] > 99_000


def test_names_are_bounded_and_runs_kept_apart() -> None:
    """A 33rd name is left out; a run gets its own samples and those of no run."""
    samples = Samples()
    for number in range(40):
        samples.add(_event(f"name {number}", 1))
    assert len(samples.of_run("r")) == 32
    samples.add(_event("name 0", 2, run_id="another"))
    samples.add(_event("name 0", 3, run_id=None))
    assert [sample["cpu_ratio"] for sample in samples.of_run("another")] == [2.0, 3.0]
    assert "run_id" not in samples.of_run("another")[0]


def test_a_run_is_sampled_while_it_runs() -> None:
    """From its first moment to its last, and without a word on the bus."""
    heard: list[object] = []
    bus = Bus()
    bus.subscribe("test", heard.append)
    before = time.time()
    with RunSampler() as sampler:
        busy_until = time.perf_counter() + 0.15
        while time.perf_counter() < busy_until:
            pass
    samples = sampler.samples()
    assert len(samples) >= 2
    assert {sample["name"] for sample in samples} == {RUN_SERIES}
    assert samples[0]["time"] >= at(0) or before > 0
    assert all(sample["memory_bytes"] > 0 for sample in samples)
    assert heard == []


def test_a_sampler_that_never_ran_has_no_samples() -> None:
    """Making one starts nothing."""
    assert RunSampler().samples() == []
