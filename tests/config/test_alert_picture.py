"""The picture of a value: a PNG that a browser shows, small whatever it is made from."""

from __future__ import annotations

import math
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.config._alert_course import Course, course_of
from ml_pipeline.config._alert_picture import HEIGHT, WIDTH, draw
from tests.support import require

RISING = Course(tuple((1.7e9 + 5 * index, 0.6 + index / 200 + math.sin(index) / 30) for index in range(60)), 0.85)
COLOURS = ("white", "frame", "area", "line", "threshold", "ink")


def pixels(picture: bytes) -> list[bytes]:
    """Read a PNG as its specification says: the palette's indices, row by row; every checksum must be right."""
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, place = {}, 8
    while place < len(picture):
        size, name = struct.unpack(">I4s", picture[place : place + 8])
        data = picture[place + 8 : place + 8 + size]
        assert struct.unpack(">I", picture[place + 8 + size : place + 12 + size]) == (zlib.crc32(name + data),)
        chunks[name], place = data, place + 12 + size
    assert list(chunks) == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (WIDTH, HEIGHT, 8, 3, 0, 0, 0)
    assert len(chunks[b"PLTE"]) == 3 * len(COLOURS)
    raw = zlib.decompress(chunks[b"IDAT"])
    assert len(raw) == HEIGHT * (WIDTH + 1)
    rows = [raw[start : start + WIDTH + 1] for start in range(0, len(raw), WIDTH + 1)]
    assert {row[0] for row in rows} == {0}
    return [row[1:] for row in rows]


def drawn(rows: list[bytes], colour: str) -> list[tuple[int, int]]:
    """Return the places of one colour, as column and row."""
    index = COLOURS.index(colour)
    return [(x, y) for y, row in enumerate(rows) for x, each in enumerate(row) if each == index]


def test_the_line_goes_as_the_value_does() -> None:
    """It rises from the lower left to the upper right, past the dashed threshold."""
    rows = pixels(draw(RISING))
    line = drawn(rows, "line")
    (left, low), (right, high) = min(line), max(line)
    assert low > high
    assert right - left > WIDTH * 0.8
    dashes = {y for x, y in drawn(rows, "threshold") if x > left}
    assert len(dashes) == 3
    assert high < min(dashes) < low
    assert drawn(rows, "ink"), "scales are written"


@given(
    st.lists(st.tuples(st.floats(-1e299, 1e299), st.floats(-1e299, 1e299)), min_size=2, max_size=40),
    st.none() | st.floats(-1e299, 1e299),
)
def test_any_numbers_make_a_picture(points: list[tuple[float, float]], threshold: float | None) -> None:
    """Whatever was measured: whole, small, and with a line in it."""
    course = course_of({"series": [list(point) for point in points], "threshold": threshold})
    if course is None:
        assert len({time for time, _ in points}) == 1
        return
    picture = draw(course)
    assert len(picture) < 20_000
    assert drawn(pixels(picture), "line")


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0])
def test_a_value_that_stays_is_a_level_line(value: float) -> None:
    """Without a rise there is still a scale."""
    line = drawn(pixels(draw(Course(((0.0, value), (60.0, value))))), "line")
    assert len({y for _, y in line}) <= 5


def test_a_browser_shows_it(tmp_path: Path) -> None:
    """Chromium takes it for a picture of its size."""
    (tmp_path / "picture.png").write_bytes(draw(RISING))
    page = tmp_path / "page.html"
    page.write_text(
        '<img src="picture.png" onload="document.title = `${this.naturalWidth}x${this.naturalHeight}`" '
        'onerror="document.title = `broken`">'
    )
    shown = subprocess.run(
        [require("chromium"), "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000",
         f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        check=True,
    ).stdout  # fmt: skip
    assert f"<title>{WIDTH}x{HEIGHT}</title>" in shown
