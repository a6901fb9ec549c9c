"""What the run used: processor and memory over time, above the steps it was at."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ml_pipeline.report.charts import closed, curves, grid, round_up, steps_path, straight_path, time_axis, x
from ml_pipeline.report.icons import tone
from ml_pipeline.report.markup import Html, el
from ml_pipeline.report.samples import RUN_SERIES
from ml_pipeline.report.tables import Column, table
from ml_pipeline.report.values import clip, counted, mappings, moment, number, size, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ml_pipeline.report.run import Operation, Run

__all__ = ["resources_section"]

_LEAST_POINTS: Final = 3
_MOST_POINTS: Final = 500
_MOST_STEPS: Final = 60
_MOST_NAMES: Final = 12
_LABELLED_SHARE: Final = 0.07
_MIB: Final = 1 << 20
_GIB: Final = 1 << 30
_CHART_HEIGHT: Final = 110
_COLUMNS: Final = (
    Column("monitored"),
    Column("samples", "right"),
    Column("highest CPU", "right"),
    Column("highest memory", "right"),
    Column("least memory free", "right"),
)


class _Sample(NamedTuple):
    """One sample; *at* in seconds since the start of the run, *available* None where it was not read."""

    at: float
    cpu: float
    memory: float
    available: float | None


class _Chart(NamedTuple):
    """What one chart shows; its first label is that of its top."""

    title: str
    css: str
    said: str
    labels: list[tuple[float, str]]
    path: str


def resources_section(run: Run) -> Html:
    """Show what a run used."""
    series = _series(run)
    curve = _thinned(_curve(series, run.seconds))
    others = {name: samples for name, samples in series.items() if name != RUN_SERIES}
    drawn: list[Html] = []
    if len(curve) >= _LEAST_POINTS:
        steps = _widest(run.steps)
        bands, span = _bands(steps, run.seconds), (curve[0].at / run.seconds, curve[-1].at / run.seconds)
        charts = (_drawn(chart, *span, bands) for chart in (_cpu(curve, run.seconds), _memory(curve, run.seconds)))
        drawn += [_lane(steps, run.seconds), *charts, time_axis(run.seconds)]
    elif not others:
        drawn.append(el("p", "No samples were taken: the run was too short, or nothing monitored it.", class_="note"))
    if others:
        drawn.append(_table(others))
    return el("section", el("header", el("h2", "Resources"), _peaks(series)), *drawn, class_="card", id="resources")


def _series(run: Run) -> dict[str, list[_Sample]]:
    series: dict[str, list[_Sample]] = {}
    for given in mappings(run.summary.get("resources")):
        sample = _sample(given, run.started)
        if sample is not None:
            series.setdefault(text(given.get("name")), []).append(sample)
    return {name: sorted(samples, key=lambda sample: sample.at) for name, samples in series.items()}


def _sample(given: Mapping[str, Any], started: float | None) -> _Sample | None:
    at, cpu, memory = moment(given.get("time")), number(given.get("cpu_ratio")), number(given.get("memory_bytes"))
    if at is None or started is None or cpu is None or memory is None:
        return None
    available = number(given.get("memory_available_bytes"))
    return _Sample(at - started, max(cpu, 0.0), max(memory, 0.0), available or None)


def _curve(series: Mapping[str, Sequence[_Sample]], end: float) -> list[_Sample]:
    """Choose what to draw: the run's own samples, or else the name that has the most; only while the run ran."""
    drawn = series.get(RUN_SERIES) or max(series.values(), key=len, default=[])
    first = next((index for index, sample in enumerate(drawn) if sample.at >= 0), len(drawn))
    last = next((index for index, sample in enumerate(drawn) if sample.at > end), len(drawn) - 1)
    # What lies just outside tells of the run's first and last moments, too.
    return [sample._replace(at=min(max(sample.at, 0.0), end)) for sample in drawn[max(first - 1, 0) : last + 1]]


def _thinned(samples: list[_Sample]) -> list[_Sample]:
    stride = -(-len(samples) // _MOST_POINTS)
    return samples[::stride] if stride > 1 else samples


def _widest(steps: Sequence[Operation]) -> list[Operation]:
    widest = sorted(steps, key=lambda op: -(op.seconds or 0.0))[:_MOST_STEPS]
    return sorted(widest, key=lambda op: op.start)


def _peaks(series: Mapping[str, Sequence[_Sample]]) -> Html | None:
    everything = [sample for samples in series.values() for sample in samples]
    if not everything:
        return None
    return el("p", f"this process at its highest: {size(max(sample.memory for sample in everything))} of memory")


def _lane(steps: Sequence[Operation], end: float) -> Html:
    """Name the steps above the charts, each in a box that clips its name."""
    boxes = []
    for index, op in enumerate(steps):
        width = (op.seconds or 0.0) / end
        name = el("text", clip(op.name, 60), x=6, y=15) if width >= _LABELLED_SHARE else None
        boxes.append(
            el(
                "svg",
                el("rect", width="100%", height=22, rx=3),
                name,
                x=x(op.start / end),
                width=x(width),
                height=22,
                overflow="hidden",
                class_=tone(op.status) + (" even" if index % 2 else ""),
            )
        )
    return el("svg", *boxes, width="100%", height=24, class_="lane", aria_hidden="true")


def _cpu(curve: Sequence[_Sample], end: float) -> _Chart:
    used = curve[1:]  # the ratio of the first sample is that of the time before it
    highest = max(sample.cpu for sample in used)
    most = _top(highest)
    busy = sum(after.cpu * (after.at - before.at) for before, after in pairwise(curve))
    mean = busy / max(curve[-1].at - curve[0].at, 1e-9)
    return _Chart(
        "CPU",
        "cpu",
        f"mean {mean:.2f}, highest {highest:.2f} cores",
        [(most, f"{most:g} cores" if most != 1 else "1 core"), (most / 2, f"{most / 2:g}")],
        steps_path([sample.at / end for sample in curve], [sample.cpu / most for sample in used]),
    )


def _memory(curve: Sequence[_Sample], end: float) -> _Chart:
    used = [sample.memory for sample in curve]
    unit = _GIB if max(used) >= _GIB else _MIB
    most = _top(max(used) / unit) * unit
    return _Chart(
        "Memory",
        "memory",
        f"{size(used[0])} at first, {size(max(used))} at its highest",
        [(most, size(most)), (most / 2, size(most / 2))],
        straight_path((sample.at / end, sample.memory / most) for sample in curve),
    )


def _drawn(chart: _Chart, left: float, right: float, bands: Sequence[Html]) -> Html:
    area = el("path", d=closed(chart.path, left, right), class_="area")
    ground = el("line", x1="0", x2="100%", y1="100%", y2="100%", class_="tick")
    plot = el(
        "svg",
        *bands,
        curves(area, el("path", d=chart.path, class_="curve")),
        grid(chart.labels[0][0], chart.labels),
        ground,
        width="100%",
        height=_CHART_HEIGHT,
        class_=f"plot {chart.css}",
        role="img",
        aria_label=f"{chart.title} over the run: {chart.said}",
    )
    return el("div", el("h3", chart.title, el("span", chart.said)), plot, class_="chart")


def _bands(steps: Sequence[Operation], end: float) -> list[Html]:
    return [
        el(
            "rect",
            x=x(op.start / end),
            width=x((op.seconds or 0.0) / end),
            y="0",
            height="100%",
            class_="band even" if index % 2 else "band",
        )
        for index, op in enumerate(steps)
    ]


def _top(value: float) -> float:
    """Choose where an axis ends: not far above the highest value."""
    rounded = round_up(max(value, 1e-3))
    return next(part for part in (rounded * 0.6, rounded * 0.8, rounded) if part >= value or part == rounded)


def _table(others: Mapping[str, Sequence[_Sample]]) -> Html:
    names = sorted(others, key=lambda name: -max(sample.memory for sample in others[name]))
    rows = []
    for name in names[:_MOST_NAMES]:
        samples = others[name]
        free = min((sample.available for sample in samples if sample.available is not None), default=None)
        rows.append(
            (
                clip(name, 60) or "(unnamed)",
                counted(len(samples), "sample"),
                f"{max(sample.cpu for sample in samples):.2f} cores",
                size(max(sample.memory for sample in samples)),
                size(free),
            )
        )
    return table(_COLUMNS, rows, left_out=len(names) - len(rows))
