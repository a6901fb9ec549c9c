"""How a measured value went around the moment of an alert, as the alert's details hold it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeGuard

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["LIMIT", "SERIES", "Course", "course_of"]

SERIES: Final = "series"
"""Where an alert's details hold the points, as ``[[time, value], …]``."""

LIMIT: Final = "threshold"
"""Where they hold the value that should not have been crossed."""

_MOST_POINTS: Final = 10_000
_MOST: Final = 1e300  # past it, differences are no numbers


@dataclass(frozen=True, slots=True)
class Course:
    """How a value went.

    Attributes:
        points: Times and values, n >= 2, in the order of time.
        threshold: What should not have been crossed; None where that is not known.
    """

    points: tuple[tuple[float, float], ...]
    threshold: float | None = None

    def words(self) -> str:
        """Tell the course in a line, for those who see no pictures."""
        values = [value for _, value in self.points]
        span = f"{self.points[-1][0] - self.points[0][0]:.3g} s"
        told = f"{len(values)} values over {span}: from {values[0]:.3g} to {values[-1]:.3g}"
        limit = "" if self.threshold is None else f"; threshold {self.threshold:.3g}"
        return f"{told} (least {min(values):.3g}, most {max(values):.3g}){limit}"


def course_of(details: Mapping[str, Any]) -> Course | None:
    """Find the course that an alert's details hold.

    Args:
        details: Of any alert, with anything in it.

    Returns:
        The course; None where there are no two finite points at different times.
    """
    series = details.get(SERIES)
    if not isinstance(series, (list, tuple)) or len(series) > _MOST_POINTS:
        return None
    points = tuple(sorted((float(point[0]), float(point[1])) for point in series if _is_point(point)))
    if len(points) < len(series) or not points or points[0][0] == points[-1][0]:
        return None
    limit = details.get(LIMIT)
    return Course(points, float(limit) if _is_number(limit) else None)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _MOST


def _is_point(point: object) -> bool:
    return isinstance(point, (list, tuple)) and len(point) == 2 and all(map(_is_number, point))  # noqa: PLR2004 - a pair
