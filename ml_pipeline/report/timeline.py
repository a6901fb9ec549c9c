"""When each operation ran: a bounded picture of any number of them.

Siblings of one name are drawn one by one while there are few, and together in one row where there are many; what did
not end well keeps a row of its own. Below such a row, the operations inside all of its members are drawn the same way.
"""

from __future__ import annotations

import statistics
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from ml_pipeline.report.charts import bar, tick_lines, time_axis
from ml_pipeline.report.icons import icon, tone
from ml_pipeline.report.markup import Html, el
from ml_pipeline.report.values import clip, counted, duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ml_pipeline.report.run import Operation, Run

__all__ = ["Row", "rows", "timeline_section"]

MOST_ROWS: Final = 60
_MOST_ALONE: Final = 5
_WRONG_ALONE: Final = 3
_MOST_SEGMENTS: Final = 300
_DEEPEST_INDENT: Final = 5
_WORST_FIRST: Final = ("failed", "cancelled", "abandoned", "open")
_MOST_CHARACTERS: Final = 120


@dataclass(slots=True)
class Row:
    """One row of the picture.

    Attributes:
        name: What it is called.
        operations: What it shows.
        depth: How many operations are around it.
        inside: The rows below it.
    """

    name: str
    operations: Sequence[Operation]
    depth: int
    inside: list[Row] = field(default_factory=list)

    @property
    def status(self) -> str:
        """The worst status of its operations."""
        found = {op.status for op in self.operations}
        return next((status for status in _WORST_FIRST if status in found), self.operations[0].status)

    @property
    def seconds(self) -> float | None:
        """What its operations took in all; None where no end was seen."""
        known = [op.seconds for op in self.operations if op.seconds is not None]
        return sum(known) if known else None

    def all(self) -> Iterable[Row]:
        """The row and all below it, from top to bottom."""
        yield self
        for row in self.inside:
            yield from row.all()


def rows(run: Run, most: int = MOST_ROWS) -> list[Row]:
    """Choose what to draw.

    Args:
        run: The run.
        most: How many rows at most.

    Returns:
        The rows from top to bottom, those of outer operations before those of inner ones where there is no room for
        all.
    """
    outermost = _group(run.children.get(None, []), 0, most)
    room = most - len(outermost)
    waiting = deque(outermost)
    while waiting and room > 0:
        row = waiting.popleft()
        inner = [op for outer in row.operations for op in run.children.get(outer.operation_id, ())]
        row.inside = _group(inner, row.depth + 1, room)
        room -= len(row.inside)
        waiting.extend(row.inside)
    return [row for outer in outermost for row in outer.all()]


def timeline_section(run: Run) -> Html | None:
    """Show when each operation ran; nothing for a run without any."""
    if not run.operations:
        return None
    drawn = rows(run)
    shown = sum(len(row.operations) for row in drawn)
    ticks = el("svg", tick_lines(run.seconds, "ticks"), height="100%", class_="ticks", aria_hidden="true")
    axis = el("div", el("span"), time_axis(run.seconds), el("span"), class_="axis")
    return el(
        "section",
        el("header", el("h2", "Timeline"), el("p", _said(run, drawn, shown))),
        el("div", axis, ticks, el("ol", *(_drawn_row(row, run) for row in drawn)), class_="steps"),
        class_="card",
        id="timeline",
    )


def _said(run: Run, drawn: Sequence[Row], shown: int) -> str:
    said = [counted(len(run.operations), "operation")]
    if len(drawn) < shown:
        said.append(f"in {counted(len(drawn), 'row')}: those of one name drawn together")
    inner = len(run.operations) - shown
    if inner:
        said.append(f"{inner:,} inside them not drawn")
    if run.left_out:
        said.append(f"{run.left_out:,} more were only counted")
    return ", ".join(said)


def _group(siblings: Sequence[Operation], depth: int, room: int) -> list[Row]:
    by_name: dict[str, list[Operation]] = {}
    for op in siblings:
        by_name.setdefault(op.name, []).append(op)
    found = [row for name, alike in by_name.items() for row in _alike(name, alike, depth)]
    if len(found) > room:
        found.sort(key=lambda row: (row.status == "ok", -(row.seconds or 0.0)))
        rest = [op for row in found[room - 1 :] for op in row.operations]
        found[room - 1 :] = [Row(counted(len({op.name for op in rest}), "other name"), rest, depth)]
    return sorted(found, key=lambda row: row.operations[0].start)


def _alike(name: str, alike: Sequence[Operation], depth: int) -> list[Row]:
    if len(alike) <= _MOST_ALONE:
        return [Row(name, [op], depth) for op in alike]
    alone = [op for op in alike if op.status != "ok"][:_WRONG_ALONE]
    together = [op for op in alike if op not in alone] if alone else alike
    return [
        Row(f"{name} \N{MULTIPLICATION SIGN}{len(together):,}", together, depth),
        *(Row(name, [op], depth) for op in alone),
    ]


def _drawn_row(row: Row, run: Run) -> Html:
    status = row.status
    icon_and_label = (
        icon(status),
        el("span", clip(row.name, _MOST_CHARACTERS), el("span", f", {status}", class_="unseen"), class_="label"),
        *(el("small", fact, class_="why" if why else None) for fact, why in _details(row) if fact),
    )
    return el(
        "li",
        el("div", *icon_and_label, class_="name"),
        el(
            "svg",
            el("use", href="#ticks"),
            *_bars(row, run.seconds),
            width="100%",
            height=24,
            class_="track",
            aria_hidden="true",
        ),
        el("span", duration(row.seconds), class_="took"),
        class_=f"{tone(status)} d{min(row.depth, _DEEPEST_INDENT)}" + (" parent" if row.inside else ""),
    )


def _details(row: Row) -> list[tuple[str, bool]]:
    first = row.operations[0]
    if len(row.operations) == 1:
        # An error is told where it arose, and not again by every operation around it.
        is_told_inside = any(inner.error == first.error for row in row.inside for inner in row.operations)
        error = "" if is_told_inside else clip(first.error, 2 * _MOST_CHARACTERS)
        return [(clip(first.facts, _MOST_CHARACTERS), False), (error, True)]
    took = [op.seconds for op in row.operations if op.seconds is not None]
    went = Counter(op.status for op in row.operations)
    said = ", ".join(f"{count:,} {status}" for status, count in went.items())
    if took:
        said += f"; median {duration(statistics.median(took))}, longest {duration(max(took))}"
    return [(said, False)]


def _bars(row: Row, end: float) -> list[Html]:
    top, height = (9, 6) if row.inside else (7, 10)
    wrong = row.status in ("failed", "cancelled", "abandoned") and not row.inside
    return [
        bar(start / end, (stop - start) / end, top=top, height=height, hatched=wrong)
        for start, stop in _segments(row.operations, end)
    ]


def _segments(operations: Iterable[Operation], end: float) -> list[tuple[float, float]]:
    """Merge what lies closer together than can be told apart."""
    merged: list[tuple[float, float]] = []
    for op in operations:
        stop = end if op.seconds is None and op.status == "open" else op.start + (op.seconds or 0.0)
        if merged and op.start - merged[-1][1] <= end / _MOST_SEGMENTS:
            merged[-1] = (merged[-1][0], max(merged[-1][1], stop))
        else:
            merged.append((op.start, stop))
    return merged
