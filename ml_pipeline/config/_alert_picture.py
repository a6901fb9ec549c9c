"""A small picture of a measured value around the moment of an alert: a PNG of lines, written without a library.

The canvas is kept column by column, one palette index a pixel, since a line over
time is drawn column by column; a row of the PNG is every `HEIGHT`-th pixel of it.

Source: the PNG specification, third edition (W3C, 2025): chunks IHDR, PLTE, IDAT and IEND; colour type 3.
"""

from __future__ import annotations

import math
import struct
import zlib
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ml_pipeline.config._alert_course import Course

__all__ = ["HEIGHT", "WIDTH", "draw"]

WIDTH: Final = 960
HEIGHT: Final = 240
"""In pixels; shown at half of it, for screens with fine ones."""

_LEFT, _TOP, _END, _FLOOR = 156, 16, WIDTH - 16, HEIGHT - 40  # where the lines are drawn
_PALETTE: Final = bytes.fromhex("ffffff c8c8c8 e6eff8 2a6fb0 c0272d 555555")
_FRAME, _AREA, _LINE, _THRESHOLD, _INK = range(1, 6)
_HALF_LINE: Final = 2
_DASH: Final = 16
_SCALE: Final = 4  # of a letter's pixel
_LETTER, _LETTER_HEIGHT = 4 * _SCALE, 5 * _SCALE
_LETTERS: Final = (  # three columns of five pixels each, the top one first
    "0=1f111f 1=091f01 2=17151d 3=15151f 4=1c041f 5=1d1517 6=1f1517 7=101718 8=1f151f 9=1d151f "
    ".=000100 -=040404 :=000a00 +=040e04 e=1f151d"
)
_FONT: Final = {pair[0]: bytes.fromhex(pair[2:]) for pair in _LETTERS.split()}


def draw(course: Course) -> bytes:
    """Draw a course: the values as a line over time, the threshold dashed, and their scales.

    Args:
        course: What to draw.

    Returns:
        A PNG of `WIDTH` times `HEIGHT` pixels, a few kilobytes.
    """
    values = [value for _, value in course.points]
    limits = [] if course.threshold is None else [course.threshold]
    low, high = min(values + limits), max(values + limits)
    room = (high - low) * 0.06 or abs(high) * 0.1 or 1.0

    def height(value: float) -> float:
        return _FLOOR - (value - low + room) / (high - low + 2 * room) * (_FLOOR - _TOP)

    canvas = bytearray(WIDTH * HEIGHT)
    for x, (top, bottom) in _spans(course.points, height).items():
        _fill(canvas, x, bottom, _FLOOR, _AREA)
        _fill(canvas, x, top - _HALF_LINE, bottom + _HALF_LINE, _LINE)
    for x in range(_LEFT, _END):
        _fill(canvas, x, _FLOOR, _FLOOR + 2, _FRAME)
        if limits and x // _DASH % 2 == 0:
            _fill(canvas, x, height(limits[0]) - 1, height(limits[0]) + 2, _THRESHOLD)
    _label(canvas, limits, height, (low, high))
    first, last = (_clock(course.points[index][0]) for index in (0, -1))
    _write(canvas, first, _LEFT, _FLOOR + 12, _INK)
    _write(canvas, last, _END - len(last) * _LETTER, _FLOOR + 12, _INK)
    return _png(canvas)


def _spans(points: Sequence[tuple[float, float]], height: Callable[[float], float]) -> dict[int, tuple[float, float]]:
    # In each column, from where to where the line goes.
    spans: dict[int, tuple[float, float]] = {}
    begin, wide = points[0][0], points[-1][0] - points[0][0]
    placed = [(_LEFT + (time - begin) / wide * (_END - 1 - _LEFT), height(value)) for time, value in points]
    for (x0, y0), (x1, y1) in pairwise(placed):
        slope = (y1 - y0) / (x1 - x0) if x1 > x0 else 0.0
        for x in range(int(x0), int(x1) + 1):
            ends = (y0 + (max(x, x0) - x0) * slope, y0 + (min(x + 1, x1) - x0) * slope if x1 > x0 else y1)
            top, bottom = spans.get(x, (math.inf, -math.inf))
            spans[x] = min(top, *ends), max(bottom, *ends)
    return spans


def _label(
    canvas: bytearray, limits: Sequence[float], height: Callable[[float], float], ends: tuple[float, float]
) -> None:
    taken: list[float] = []
    for value, ink in [*((limit, _THRESHOLD) for limit in limits), *((end, _INK) for end in ends)]:
        y = height(value) - _LETTER_HEIGHT / 2
        if all(abs(y - other) > _LETTER_HEIGHT for other in taken):
            text = f"{value:.3g}"
            _write(canvas, text, _LEFT - _SCALE - len(text) * _LETTER, int(y), ink)
            taken.append(y)


def _write(canvas: bytearray, text: str, left: int, top: int, ink: int) -> None:
    for place, letter in enumerate(text):
        for column, bits in enumerate(_FONT[letter]):
            for row in range(5):
                if bits >> (4 - row) & 1:
                    for x in range(_SCALE):
                        y = top + row * _SCALE
                        _fill(canvas, left + place * _LETTER + column * _SCALE + x, y, y + _SCALE, ink)


def _fill(canvas: bytearray, x: int, top: float, bottom: float, ink: int) -> None:
    first, after = max(round(top), 0), min(round(bottom), HEIGHT)
    if first < after:
        canvas[x * HEIGHT + first : x * HEIGHT + after] = bytes((ink,)) * (after - first)


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 3600 % 24:02}:{int(seconds) // 60 % 60:02}:{int(seconds) % 60:02}"


def _png(canvas: bytearray) -> bytes:
    rows = b"".join(b"\0" + canvas[y::HEIGHT] for y in range(HEIGHT))
    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 3, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"PLTE", _PALETTE), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
