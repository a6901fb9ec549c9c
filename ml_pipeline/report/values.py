"""Values of a summary as people read them.

A summary may come from a file, of another version or edited by hand: what is not of the type that is looked for is
taken as missing.
"""

from __future__ import annotations

import datetime as dt
import math
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "NONE",
    "clip",
    "clock",
    "counted",
    "day",
    "duration",
    "integer",
    "mapping",
    "mappings",
    "moment",
    "number",
    "numbers",
    "percent",
    "probability",
    "quantity",
    "size",
    "text",
    "texts",
]

NONE: Final = "\N{EN DASH}"
"""Stands where there is no value."""

MOST_CHARACTERS: Final = 300
_MILLISECOND: Final = 0.001
_MINUTE: Final = 60
_HOUR: Final = 3_600
_DAY: Final = 86_400
_KIB: Final = 1024
_WHOLE: Final = 1e15
_SMALLEST_P: Final = 0.001


def text(value: object) -> str:
    """Return a text or a number as text, clipped; anything else as an empty one."""
    if isinstance(value, str):
        return clip(value)
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


def number(value: object) -> float | None:
    """Return a finite number, or None."""
    if isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    return None


def integer(value: object) -> int:
    """Return a finite number as a whole one; 0 for anything else."""
    return int(number(value) or 0)


def mapping(value: object) -> Mapping[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def mappings(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of a JSON array, without what is no object."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, (list, tuple)) else []


def numbers(value: object) -> list[float]:
    """Return a JSON array of numbers; what is none of them counts as 0."""
    return [number(item) or 0.0 for item in value] if isinstance(value, (list, tuple)) else []


def texts(value: object) -> list[str]:
    """Return a JSON array of texts."""
    return [text(item) for item in value] if isinstance(value, (list, tuple)) else []


def moment(value: object) -> float | None:
    """Read an RFC 3339 moment as seconds since the Unix epoch; None for anything else."""
    if not isinstance(value, str):
        return None
    try:
        read = dt.datetime.fromisoformat(value)
        return (read if read.tzinfo else read.replace(tzinfo=dt.UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def clip(value: str, most: int = MOST_CHARACTERS) -> str:
    """Leave out the middle of a text that is too long: names differ at their ends as often as at their beginnings."""
    if len(value) <= most:
        return value
    return f"{value[: most - most // 3 - 1]}…{value[-(most // 3) :]}"


def clock(seconds: float, *, digits: int = 0) -> str:
    """Write a moment as a time of day in UTC."""
    read = _EPOCH + dt.timedelta(seconds=seconds)
    return f"{read:%H:%M:%S}" + (f".{read.microsecond:06d}"[: digits + 1] if digits else "")


def day(seconds: float) -> str:
    """Write a moment as a date in UTC."""
    return f"{_EPOCH + dt.timedelta(seconds=seconds):%Y-%m-%d}"


def duration(seconds: float | None) -> str:
    """Write a span of time with three digits or two units; a dash for None."""
    if seconds is None:
        return NONE
    if seconds < _MILLISECOND / 2:
        return "0 ms" if seconds < 5e-5 else f"{seconds * 1e3:.1f} ms"  # noqa: PLR2004 - rounds to 0.0 ms
    if seconds < 0.9995:  # noqa: PLR2004 - rounds to 1.00 s
        return f"{seconds * 1e3:.3g} ms"
    if seconds < _MINUTE - 0.05:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    for unit, of, name, part in ((_MINUTE, _HOUR, "min", "s"), (_HOUR, _DAY, "h", "min")):
        if whole < of:
            rest = whole % unit // (unit // 60)
            return f"{whole // unit} {name}" + (f" {rest} {part}" if rest else "")
    return f"{whole // _DAY:,} d" + (f" {whole % _DAY // _HOUR} h" if whole % _DAY >= _HOUR else "")


def size(count: float | None) -> str:
    """Write a number of bytes with three digits; a dash for None."""
    if count is None:
        return NONE
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < _KIB - 0.5:
            return f"{count:.0f} {unit}" if unit == "B" or abs(count) >= 100 else f"{count:.3g} {unit}"  # noqa: PLR2004
        count /= _KIB
    return f"{count:,.4g} TiB"


def quantity(value: float) -> str:
    """Write a count whole with separators, anything else with four digits."""
    if value == round(value) and abs(value) < _WHOLE:
        return f"{value:,.0f}"
    return f"{value:,.4g}"


def counted(count: int, noun: str, plural: str = "") -> str:
    """Write how many there are of something: ``1 alert``, ``1,200 alerts``, ``no alerts``."""
    if count == 1:
        return f"1 {noun}"
    return f"{f'{count:,}' if count else 'no'} {plural or noun + 's'}"


def percent(share: float) -> str:
    """Write a share as a percentage; what is there is never written as 0 %, what is missing never as 100 %."""
    if 0 < share < _SMALLEST_P:
        return "< 0.1 %"
    if 1 - _SMALLEST_P < share < 1:
        return "> 99.9 %"
    return f"{share:.1%}".replace("%", " %").replace(".0 ", " ")


def probability(p: float) -> str:
    """Write a p-value, which past three digits says nothing."""
    return "p < 0.001" if p < _SMALLEST_P else f"p = {p:.3f}"


_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
