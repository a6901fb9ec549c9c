"""Values as people read them, and markup that no value can break out of."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.report import values
from ml_pipeline.report.markup import EMPTY, Html, el, join, lines
from tests.report.strict_html import Page


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (None, values.NONE),
        (0.0, "0 ms"),
        (0.00012, "0.1 ms"),
        (0.0046, "4.6 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1 s"),
        (12.345, "12.3 s"),
        (59.96, "1 min"),
        (125.0, "2 min 5 s"),
        (3_600.0, "1 h"),
        (11_521.0, "3 h 12 min"),
        (200_000.0, "2 d 7 h"),
        (86_400_000.0, "1,000 d"),
    ],
)
def test_a_duration_has_three_digits_or_two_units(seconds: float | None, written: str) -> None:
    """From a tenth of a millisecond to years."""
    assert values.duration(seconds) == written


@pytest.mark.parametrize(
    ("count", "written"),
    [
        (None, values.NONE),
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1 KiB"),
        (226_213_888, "216 MiB"),
        (1_048_000, "1023 KiB"),
        (24_520_384_512, "22.8 GiB"),
        (5e15, "4,547 TiB"),
    ],
)
def test_a_size_has_a_binary_unit(count: float | None, written: str) -> None:
    """As the log lines have it."""
    assert values.size(count) == written


@given(st.floats(min_value=0, max_value=1e12))
def test_no_number_is_written_in_powers(value: float) -> None:
    """Neither a duration nor a size ever shows an exponent, nor 60 s or 60 min."""
    for written in (values.duration(value), values.size(value)):
        assert "e+" not in written
        assert not re.search(r"\b60 (s|min)\b", written)


@pytest.mark.parametrize(
    ("share", "written"),
    [(0.0, "0 %"), (0.0001, "< 0.1 %"), (0.031, "3.1 %"), (0.25, "25 %"), (0.9999, "> 99.9 %"), (1.0, "100 %")],
)
def test_a_share_that_is_there_is_never_nothing(share: float, written: str) -> None:
    """Only what is missing is 0 %, and only all is 100 %."""
    assert values.percent(share) == written


@pytest.mark.parametrize(
    ("count", "written"), [(0, "no alerts"), (1, "1 alert"), (2, "2 alerts"), (12_345, "12,345 alerts")]
)
def test_counts_are_written_with_their_noun(count: int, written: str) -> None:
    """In the singular where there is one."""
    assert values.counted(count, "alert") == written


def test_what_is_not_of_its_type_is_missing() -> None:
    """A summary from elsewhere can hold anything; nothing of it raises."""
    odd = [None, True, math.nan, math.inf, "NaN", [], {}, object()]
    assert [values.number(value) for value in odd] == [None] * 8
    assert [values.text(value) for value in odd] == ["", "", "nan", "inf", "NaN", "", "", ""]
    assert values.mapping([1]) == {}
    assert values.mappings([1, {"a": 1}, "… 3 more"]) == [{"a": 1}]
    assert values.mappings("text") == []
    assert values.numbers([1, "x", 2.5]) == [1.0, 0.0, 2.5]
    assert values.texts(None) == []
    assert values.integer("7") == 0
    assert [values.moment(value) for value in ("yesterday", 5, "9999-99-99", None)] == [None] * 4


def test_moments_are_utc() -> None:
    """Whatever their offset; without one they are taken as UTC."""
    assert values.moment("2026-11-21T09:30:00Z") == values.moment("2026-11-21T10:30:00+01:00")
    seconds = values.moment("2026-11-21T09:30:00.123456")
    assert seconds is not None
    assert (values.day(seconds), values.clock(seconds, digits=3)) == ("2026-11-21", "09:30:00.123")


def test_p_values_say_no_more_than_they_know() -> None:
    """Three digits."""
    assert (values.probability(1e-9), values.probability(0.0123)) == ("p < 0.001", "p = 0.012")


@given(st.text(), st.integers(min_value=4, max_value=50))
def test_a_clipped_text_keeps_its_ends(text: str, most: int) -> None:
    """A text that is too long has exactly the room it is given."""
    clipped = values.clip(text, most)
    assert clipped == text if len(text) <= most else len(clipped) == most
    assert text.startswith(clipped[:2])


@given(st.text(), st.text())
def test_no_text_becomes_markup(text: str, attribute: str) -> None:
    """Whatever a value holds, it comes out as the one text and the one attribute it went in as."""
    page = Page()
    page.feed(str(el("p", text, title=attribute)))
    page.close()
    assert page.tags == ["p"]
    assert not any(character in "".join(page.texts) for character in "\x00\x1b\u202e\u2066\r")
    assert set(page.attributes) == {"title"}


def test_markup_is_built_once() -> None:
    """Finished markup goes in as it is; what was pasted together by hand is a text again."""
    bold = el("b", "a & b")
    assert el("p", bold, None, "") == "<p><b>a &amp; b</b></p>"
    assert el("p", f"{bold}") == "<p>&lt;b&gt;a &amp;amp; b&lt;/b&gt;</p>"
    assert join([bold, "<"]) == f"{bold}&lt;"
    assert isinstance(join([]), Html)
    assert join([]) == EMPTY
    assert lines("a <\n\tb") == "a &lt;\n\\tb"


def test_attributes() -> None:
    """Names lose their trailing underscore, numbers their needless digits, and what is None or false is left out."""
    assert el("rect", x=1.50001, y=2, class_="a", fill=None, hidden=False) == '<rect x="1.5" y="2" class="a"/>'
    assert el("input", type="checkbox", checked=True) == '<input type="checkbox" checked>'
    assert el("svg", aria_hidden="true") == '<svg aria-hidden="true"></svg>'
