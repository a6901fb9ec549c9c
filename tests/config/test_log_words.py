"""Rotation and retention in words: what is understood, and what is refused clearly."""

from __future__ import annotations

import contextlib
import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.config._log_words import Period, RotationWords, retention_days, rotation_words
from ml_pipeline.errors import SettingsError

DAY = 86_400
WEEK = 7 * DAY
MONDAY = dt.datetime(2026, 11, 16, tzinfo=dt.UTC).timestamp()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("100 MB", RotationWords(100_000_000)),
        ("100mb", RotationWords(100_000_000)),
        ("1.5 GiB", RotationWords(1_610_612_736)),
        ("10 KB", RotationWords(10_000)),
        ("512 B", RotationWords(512)),
        (4096, RotationWords(4096)),
        ("1 week", RotationWords(None, Period(WEEK, 4 * DAY))),
        ("weekly", RotationWords(None, Period(WEEK, 4 * DAY))),
        ("12 hours", RotationWords(None, Period(12 * 3600))),
        ("30 min", RotationWords(None, Period(1800))),
        ("daily", RotationWords(None, Period(DAY))),
        (dt.timedelta(hours=2), RotationWords(None, Period(7200))),
        ("00:00", RotationWords(None, Period(DAY, 0))),
        ("3:30", RotationWords(None, Period(DAY, 12_600))),
        (dt.time(13, 30), RotationWords(None, Period(DAY, 48_600))),
        ("sunday", RotationWords(None, Period(WEEK, 10 * DAY))),
        ("Monday at 12:00", RotationWords(None, Period(WEEK, 4 * DAY + 43_200))),
        ("100 MB, 00:00", RotationWords(100_000_000, Period(DAY, 0))),
    ],
)
def test_words_are_understood(words: Any, expected: RotationWords) -> None:
    """A size, a period, a time of day, a weekday, or a size and a time together."""
    assert rotation_words(words) == expected


@pytest.mark.parametrize(
    "words",
    ["", "soon", "MB", "0 MB", "-1 MB", "100 XB", "1 second", "2 weeks", "1 month", "24:00", "12:60", "noday at 12:00",
     "monday at", "1 MB, 2 MB", "00:00, 1 day", "1 day,", "1 MB; 1 day", "٣ days", None, 3.5, True, dt.timedelta(days=9),
     dt.time(1, tzinfo=dt.UTC), b"1 day"],
)  # fmt: skip
def test_other_words_are_refused(words: Any) -> None:
    """The message names the rule, the words and what to write."""
    with pytest.raises(SettingsError) as refused:
        rotation_words(words)
    assert str(refused.value).startswith("a rotation must be a size, a period, a time of day, or several of them")
    assert str(refused.value).endswith("; write for example '100 MB', '1 week', '00:00' or 'sunday at 03:30'")


@pytest.mark.parametrize(
    ("words", "days"),
    [("1 week", 7), ("30 days", 30), ("1 day", 1), ("6 months", 180), ("2 years", 730), ("24 hours", 1),
     (dt.timedelta(days=10), 10)],
)  # fmt: skip
def test_retention(words: Any, days: int) -> None:
    """Whole days, in several words."""
    assert retention_days(words) == days


@pytest.mark.parametrize("words", ["", "12 hours", "0 days", "10 files", "1 GB", "-1 day", 10, None, "999999999 years"])
def test_other_retentions_are_refused(words: Any) -> None:
    """What is no number of whole days."""
    with pytest.raises(SettingsError) as refused:
        retention_days(words)
    assert str(refused.value).startswith(
        "a retention must be a number of whole days, weeks, months (of 30 days) or years (got "
    )
    assert str(refused.value).endswith("; write for example '30 days' or '1 week'")


def test_a_week_begins_on_monday() -> None:
    """One second before Monday belongs to the week before."""
    period = rotation_words("1 week").period
    assert period is not None
    assert period.number(MONDAY) == period.number(MONDAY - 1) + 1
    assert period.begin(period.number(MONDAY + 3 * DAY)) == MONDAY


@given(st.integers(60, WEEK), st.integers(0, WEEK), st.floats(0, 4e9))
def test_a_moment_lies_in_its_piece(seconds: int, offset: int, moment: float) -> None:
    """Pieces follow each other without a gap."""
    period = Period(seconds, offset)
    begin = period.begin(period.number(moment))
    assert begin <= moment < begin + seconds


@given(st.text(max_size=30))
def test_any_text_is_understood_or_refused(text: str) -> None:
    """Nothing else comes out of it."""
    for read in (rotation_words, retention_days):
        with contextlib.suppress(SettingsError):
            read(text)
