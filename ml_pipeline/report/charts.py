"""The pieces that charts are drawn from.

Positions along the horizontal axis are percentages, so that a drawing takes the width it is given and its texts keep
their size; what percentages cannot say, such as a curve, lies in a box of 1000 x 100 that is stretched.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from ml_pipeline.report.markup import Html, el, join
from ml_pipeline.report.values import duration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "HATCH",
    "bar",
    "closed",
    "curves",
    "grid",
    "round_up",
    "steps_path",
    "straight_path",
    "tick_lines",
    "ticks",
    "time_axis",
    "x",
]

_MOST_TICKS: Final = 6
_UNITS_SECONDS: Final = (60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400)
_WIDTH: Final = 1_000
_HEIGHT: Final = 100

HATCH: Final = el(
    "svg",
    el(
        "pattern",
        el("path", d="M1 -1v8"),
        id="hatch",
        class_="hatch",
        width=6,
        height=6,
        patternUnits="userSpaceOnUse",
        patternTransform="rotate(45)",
    ),
    width=0,
    height=0,
    aria_hidden="true",
    class_="unseen",
)
"""Stripes for bars of what did not end well; goes into the page before the first `bar`."""


def x(share: float) -> str:
    """Write a place along the axis, 0 to 1, as a percentage."""
    return f"{min(max(share, 0.0), 1.0) * 100:.3f}".rstrip("0").rstrip(".") + "%"


def ticks(end: float, most: int = _MOST_TICKS) -> list[float]:
    """Choose round moments of a time axis.

    Args:
        end: Where the axis ends, in seconds, > 0.
        most: How many steps at most.

    Returns:
        Moments from 0 on, none after *end*.
    """
    step = round_up(end / most)
    if step >= _UNITS_SECONDS[0]:
        days = round_up(end / most / _UNITS_SECONDS[-1]) * _UNITS_SECONDS[-1]
        step = next((unit for unit in _UNITS_SECONDS if unit * most >= end), days)
    return [step * index for index in range(int(end / step * (1 + 1e-9)) + 1)]


def round_up(value: float) -> float:
    """Return the next of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(digit * power for digit in (1, 2, 5, 10) if digit * power >= value * (1 - 1e-9))


def tick_lines(end: float, identity: str) -> Html:
    """Draw the ticks of a time axis once, to be shown in every row by their id."""
    drawn = [el("line", x1=x(at / end), x2=x(at / end), y1="0", y2="100%", class_="tick") for at in ticks(end)]
    return el("g", *drawn, id=identity)


def time_axis(end: float) -> Html:
    """Write the times below or above a chart."""
    drawn = []
    for at in ticks(end):
        anchor = "start" if at == 0 else "end" if at / end > 0.94 else "middle"  # noqa: PLR2004 - where it would stand out
        drawn.append(el("text", duration(at) if at else "0", x=x(at / end), y=13, text_anchor=anchor))
    return el("svg", *drawn, width="100%", height=18, aria_hidden="true")


def bar(start: float, width: float, *, top: int, height: int, hatched: bool = False) -> Html:
    """Draw a bar from *start*, *width* wide, both shares of the axis; the shortest is still seen."""
    left, wide = x(start), x(width)
    plain = el("rect", x=left, y=top, width=wide, height=height, class_="bar")
    if not hatched:
        return plain
    return join((plain, el("rect", x=left, y=top, width=wide, height=height, fill="url(#hatch)")))


def grid(most: float, labels: Sequence[tuple[float, str]]) -> Html:
    """Draw horizontal lines with what they mean; *most* is the value at the top."""
    drawn = []
    for value, label in labels:
        down = x(1 - value / most)
        drawn.append(el("line", x1="0", x2="100%", y1=down, y2=down, class_="tick"))
        drawn.append(el("text", label, x=3, y=down, dy=-4 if value < most else 12))
    return join(drawn)


def curves(*drawn: Html) -> Html:
    """Stretch a box of 1000 x 100 over the whole chart."""
    box = f"0 0 {_WIDTH} {_HEIGHT}"
    return el("svg", *drawn, viewBox=box, preserveAspectRatio="none", width="100%", height="100%")


def straight_path(points: Iterable[tuple[float, float]]) -> str:
    """Connect points, given as shares of the box, by straight lines."""
    return "".join(
        f"{'L' if index else 'M'}{_place(across, _WIDTH)} {_place(1 - up, _HEIGHT)}"
        for index, (across, up) in enumerate(points)
    )


def steps_path(edges: Sequence[float], heights: Sequence[float]) -> str:
    """Draw *heights* as steps between *edges*, one more than heights, all as shares of the box."""
    corners = (
        (edge, height) for (left, right), height in zip(pairwise(edges), heights, strict=True) for edge in (left, right)
    )
    return straight_path(corners)


def closed(path: str, left: float, right: float) -> str:
    """Close a path along the floor of the box, for an area."""
    return f"{path}L{_place(right, _WIDTH)} {_HEIGHT}L{_place(left, _WIDTH)} {_HEIGHT}z"


def _place(share: float, size: int) -> str:
    return f"{share * size:.1f}".rstrip("0").rstrip(".")
