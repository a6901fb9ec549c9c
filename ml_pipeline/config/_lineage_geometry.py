"""Boxes and curves in pixels: where a layered drawing puts each node, each arrow and each arrow's label."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from ml_pipeline.config._lineage_layout import Layout, lay_out

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["BOX_HEIGHT", "BOX_WIDTH", "COLUMN_GAP", "Geometry", "Point", "Route", "arrange"]

BOX_WIDTH: Final = 208.0
BOX_HEIGHT: Final = 64.0
COLUMN_GAP: Final = 132.0
_ROW_GAP: Final = 20.0
_BEND_HEIGHT: Final = 8.0
_LABEL_X: Final = 0.42
_LABEL_Y: Final = 0.35
"""A place on an S-shaped curve, as shares of its width and height: before the middle, where arrows cross."""
_PORT_STEP: Final = 12.0
_PORT_MARGIN: Final = 12.0

Point: TypeAlias = tuple[float, float]
"""(x, y) in pixels, from the upper left corner of the graph."""


@dataclass(frozen=True, slots=True)
class Route:
    """One arrow.

    Attributes:
        points: What it passes, from left to right: the edge of a box, then both edges of every column between, then
            the edge of a box. Empty for an arrow from a box to itself.
        turned: Whether its head is at the left end.
        label: Where the middle of its label stands.
    """

    points: tuple[Point, ...]
    turned: bool
    label: Point


@dataclass(frozen=True, slots=True)
class Geometry:
    """A graph in pixels.

    Attributes:
        boxes: Upper left corner of each box.
        routes: Of each arrow.
        width: Of the whole.
        height: Of the whole.
    """

    boxes: tuple[Point, ...]
    routes: tuple[Route, ...]
    width: float
    height: float


def arrange(count: int, arrows: Sequence[tuple[int, int]]) -> Geometry:
    """Place boxes and arrows.

    Args:
        count: How many boxes, numbered from 0.
        arrows: (source, target) of each.

    Returns:
        The places; no two boxes overlap.
    """
    layout = lay_out(count, arrows, box=BOX_HEIGHT, gap=_ROW_GAP, bend=_BEND_HEIGHT)
    boxes = tuple(
        (_left_edge(column), middle - BOX_HEIGHT / 2)
        for column, middle in zip(layout.column, layout.height, strict=True)
    )
    routes = _routes(arrows, layout)
    lowest = [y for route in routes for _, y in route.points] + [y + BOX_HEIGHT for _, y in boxes]
    width = max((x + BOX_WIDTH for x, _ in boxes), default=0.0)
    return Geometry(boxes, routes, width, max(lowest, default=0.0))


def _left_edge(column: int) -> float:
    return column * (BOX_WIDTH + COLUMN_GAP)


def _routes(arrows: Sequence[tuple[int, int]], layout: Layout) -> tuple[Route, ...]:
    ends = [(b, a) if turned else (a, b) for (a, b), turned in zip(arrows, layout.turned, strict=True)]
    leaving, arriving = _ports(ends, layout)
    routes = []
    for index, (left, right) in enumerate(ends):
        points = [(_left_edge(layout.column[left]) + BOX_WIDTH, layout.height[left] + leaving[index])]
        for column, height in layout.bends[index]:
            points += [(_left_edge(column), height), (_left_edge(column) + BOX_WIDTH, height)]
        points.append((_left_edge(layout.column[right]), layout.height[right] + arriving[index]))
        (x1, y1), (x2, y2) = points[:2]
        label = (x1 + _LABEL_X * (x2 - x1), y1 + _LABEL_Y * (y2 - y1))
        routes.append(Route(() if left == right else tuple(points), layout.turned[index], label))
    return tuple(routes)


def _ports(ends: Sequence[tuple[int, int]], layout: Layout) -> tuple[dict[int, float], dict[int, float]]:
    """Return how far from the middle of its boxes each arrow leaves and arrives, so that none lies on another."""
    leaving: dict[int, list[tuple[float, int]]] = defaultdict(list)
    arriving: dict[int, list[tuple[float, int]]] = defaultdict(list)
    for index, (left, right) in enumerate(ends):
        bends = layout.bends[index]
        leaving[left].append((bends[0][1] if bends else layout.height[right], index))
        arriving[right].append((bends[-1][1] if bends else layout.height[left], index))
    return _spread(leaving.values()), _spread(arriving.values())


def _spread(sides: Iterable[list[tuple[float, int]]]) -> dict[int, float]:
    offsets = {}
    for side in sides:
        step = min(_PORT_STEP, (BOX_HEIGHT - 2 * _PORT_MARGIN) / max(len(side) - 1, 1))
        for place, (_, index) in enumerate(sorted(side)):
            offsets[index] = (place - (len(side) - 1) / 2) * step
    return offsets
