"""Rotation and retention in words: ``"100 MB"``, ``"1 week"``, ``"00:00"``, ``"sunday at 03:30"``.

Times of day are those of UTC, as the timestamps of the lines are. A period has a fixed beginning (a day at midnight, a
week on Monday), so that every process finds the same one, after a restart too.
"""

from __future__ import annotations

import datetime as dt
import math
import re
from dataclasses import dataclass
from typing import Final

from ml_pipeline._environment import AMOUNT, byte_count
from ml_pipeline.config._log_rotation import DAY_SECONDS
from ml_pipeline.errors import SettingsError

__all__ = ["Period", "RotationWords", "retention_days", "rotation_words"]

_SECONDS: Final = {"second": 1, "minute": 60, "hour": 3_600, "day": DAY_SECONDS, "week": 7 * DAY_SECONDS} | {
    "month": 30 * DAY_SECONDS,  # for retention alone
    "year": 365 * DAY_SECONDS,
}
_SHORT: Final = {"s": "second", "sec": "second", "m": "minute", "min": "minute", "h": "hour", "d": "day", "w": "week"}
_EVERY: Final = {"hourly": "1 hour", "daily": "1 day", "weekly": "1 week"}
_WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_FIRST_MONDAY: Final = 4 * DAY_SECONDS  # 1970-01-05
_SHORTEST_SECONDS: Final = 60
_LONGEST_SECONDS: Final = 7 * DAY_SECONDS
_MOST_DAYS: Final = 100_000

_TIME: Final = re.compile(r"(?P<hour>[0-9]{1,2}):(?P<minute>[0-9]{2})(:(?P<second>[0-9]{2}))?", re.ASCII)

_ROTATION_RULE: Final = "a rotation must be a size, a period, a time of day, or several of them separated by commas"
_ROTATION_REMEDY: Final = "write for example '100 MB', '1 week', '00:00' or 'sunday at 03:30'"
_RETENTION_RULE: Final = "a retention must be a number of whole days, weeks, months (of 30 days) or years"
_RETENTION_REMEDY: Final = "write for example '30 days' or '1 week'"


@dataclass(frozen=True, slots=True)
class Period:
    """Time cut into equal pieces.

    Attributes:
        seconds: How long each is.
        offset_seconds: When one of them begins, in seconds since 1970-01-01 in UTC.
    """

    seconds: int
    offset_seconds: int = 0

    def number(self, moment: float) -> int:
        """Which piece a moment lies in."""
        return math.floor((moment - self.offset_seconds) / self.seconds)

    def begin(self, number: int) -> int:
        """When a piece begins, in seconds since 1970."""
        return number * self.seconds + self.offset_seconds


@dataclass(frozen=True, slots=True)
class RotationWords:
    """When a file is set aside; at least one of the two is given.

    Attributes:
        max_bytes: At this size.
        period: When another piece of time begins than that of its last line.
    """

    max_bytes: int | None = None
    period: Period | None = None


def rotation_words(words: str | int | dt.timedelta | dt.time) -> RotationWords:
    """Read when a file is to be set aside.

    Args:
        words: Such as ``"100 MB"``, ``"1 week"``, ``"00:00"``, ``"monday at 12:00"``, ``"daily"``, or a size and a time
            together, ``"100 MB, 00:00"``. A number alone is a size in bytes.

    Raises:
        SettingsError: If they say nothing of the kind.
    """
    max_bytes, period = None, None
    for part in _parts(words):
        size = byte_count(part) or None
        found = None if size is not None else _time_of_day(part) or _every(part)
        if (size is None and found is None) or (size and max_bytes) or (found and period):
            raise SettingsError(_ROTATION_RULE, words, _ROTATION_REMEDY)
        max_bytes, period = size or max_bytes, found or period
    return RotationWords(max_bytes, period)


def retention_days(words: str | dt.timedelta) -> int:
    """Read how many days a file is kept that was set aside.

    Args:
        words: Such as ``"30 days"`` or ``"1 week"``.

    Raises:
        SettingsError: If they say nothing of the kind.
    """
    text = f"{words.total_seconds()} seconds" if isinstance(words, dt.timedelta) else words
    seconds = _duration(str(text).strip().lower())
    if seconds is None or seconds % DAY_SECONDS or not DAY_SECONDS <= seconds <= _MOST_DAYS * DAY_SECONDS:
        raise SettingsError(_RETENTION_RULE, words, _RETENTION_REMEDY)
    return int(seconds) // DAY_SECONDS


def _parts(words: object) -> list[str]:
    if isinstance(words, dt.timedelta):
        return [f"{words.total_seconds()} seconds"]
    if isinstance(words, dt.time):
        words = words.isoformat("seconds") if words.tzinfo is None and not words.microsecond else None
    if type(words) is int:
        words = f"{words} b"
    parts = [part.strip().lower() for part in words.split(",")] if isinstance(words, str) else [""]
    return parts if all(parts) else [""]


def _every(part: str) -> Period | None:
    part = _EVERY.get(part, part)
    seconds = _duration(part)
    if seconds is None or seconds != int(seconds) or not _SHORTEST_SECONDS <= seconds <= _LONGEST_SECONDS:
        return None
    return Period(int(seconds), 0 if seconds % (7 * DAY_SECONDS) else _FIRST_MONDAY)


def _duration(part: str) -> float | None:
    amount = AMOUNT.fullmatch(part)
    if amount is None:
        return None
    unit = _SHORT.get(amount["unit"], amount["unit"].removesuffix("s"))
    return float(amount["number"]) * _SECONDS[unit] if unit in _SECONDS else None


def _time_of_day(part: str) -> Period | None:
    day, at, clock = part.rpartition(" at ") if " at " in part else ("", "", part)
    if part in _WEEKDAYS:
        day, clock = part, "00:00"
    time = _TIME.fullmatch(clock.strip())
    if time is None or (at and day not in _WEEKDAYS):
        return None
    hour, minute, second = int(time["hour"]), int(time["minute"]), int(time["second"] or 0)
    if hour >= 24 or minute >= 60 or second >= 60:  # noqa: PLR2004 - a clock's own numbers
        return None
    offset = hour * 3_600 + minute * 60 + second
    if not day:
        return Period(DAY_SECONDS, offset)
    return Period(7 * DAY_SECONDS, _FIRST_MONDAY + _WEEKDAYS.index(day) * DAY_SECONDS + offset)
