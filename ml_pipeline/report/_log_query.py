"""What is asked of the log: times, level, operation, run, user, text and expressions over the fields."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import orjson

from ml_pipeline.errors import SettingsError, closest
from ml_pipeline.report._log_records import (
    JSON_LEVEL,
    TEXT_LEVEL,
    Record,
    candidates,
    fields_of,
    instant_key,
    records_in,
)
from ml_pipeline.report._log_where import needle

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ml_pipeline.report._log_records import Keys
    from ml_pipeline.report._log_segments import ChannelFiles
    from ml_pipeline.report._log_where import Needles, Where

__all__ = ["LEVELS", "Query", "level_number", "parse_time"]

LEVELS: Final[Mapping[str, int]] = {
    "TRACE": 5,
    "DEBUG": 10,
    "INFO": 20,
    "SUCCESS": 25,
    "WARNING": 30,
    "ERROR": 40,
    "CRITICAL": 50,
}
"""The levels by name: those of ``logging``, and loguru's."""

_NUMBERED: Final = "Level "
_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGO: Final = re.compile(r"(\d{1,9})\s*([smhdw])")
_DAYS_BACK: Final = {"today": 0, "yesterday": 1}


@dataclass(frozen=True, slots=True)
class Query:
    """What a record must be to be shown; everything that is given must hold.

    Attributes:
        since: The earliest key.
        until: The first key that is too late.
        level: The least level, as a number.
        operation: The name or id of its operation.
        run: The id of its run.
        user: The id of its user.
        text: Stands in its message, exception or context.
        where: Expressions over its fields.
        own: The channel that it must name itself, as only a JSON line can.
    """

    since: bytes = b""
    until: bytes = b""
    level: int = 0
    operation: str = ""
    run: str = ""
    user: str = ""
    text: str = ""
    where: Sequence[Where] = ()
    own: str = ""
    _needles: Needles = field(init=False, repr=False, default=())
    _too_low: Needles = field(init=False, repr=False, default=((), ()))

    def __post_init__(self) -> None:
        object.__setattr__(self, "_needles", tuple(self._all_needles()))
        low = [name.encode() for name, level in LEVELS.items() if level < self.level]
        too_low = tuple(b'","level":"%b"' % name for name in low), tuple(b" - %b - " % name for name in low)
        object.__setattr__(self, "_too_low", too_low)

    @property
    def takes_all(self) -> bool:
        """Whether every record fits that lies between the times."""
        return not (self.level or self.operation or self.run or self.user or self.text or self.where or self.own)

    def for_channel(self, channel: ChannelFiles) -> Query:
        """Return what is asked of the records of one channel."""
        return replace(self, own=channel.key) if channel.own_only else self

    def select(self, block: bytes, keys: Keys, number: int, channel: str) -> list[Record]:
        """Return the records of a block that are wanted, in the order of the block.

        Args:
            block: Whole records.
            keys: Of the file.
            number: Which of the channels is read.
            channel: Its key.
        """
        needles, all_fit, fields = self._needles, self.takes_all, None
        found = []
        for raw in self._likely(candidates(block, needles[0]) if needles else records_in(block)):
            key = keys.of(raw)
            if key < self.since or (self.until and key >= self.until):
                continue
            if not all_fit:
                fields = fields_of(Record(key, number, raw), "" if self.own else channel)
                if not self._fits(fields):
                    continue
            found.append(Record(key, number, raw, fields))
        return found

    def _likely(self, raws: Sequence[bytes]) -> Sequence[bytes]:
        """Leave out what a look at the raw bytes tells apart, which costs a tenth of reading the fields."""
        for group in self._needles[1:]:
            raws = [raw for raw in raws if any(map(raw.__contains__, group))]
        json, text = self._too_low
        if json:
            raws = [raw for raw in raws if not (raw.startswith(json, JSON_LEVEL) or raw.startswith(text, TEXT_LEVEL))]
        return raws

    def _fits(self, fields: Mapping[str, Any]) -> bool:
        return (
            (not self.level or _rank(fields.get("level")) >= self.level)
            and (not self.operation or self.operation in (fields.get("operation"), fields.get("operation_id")))
            and (not self.run or fields.get("run_id") == self.run)
            and (not self.user or _is_user(fields.get("user_id"), self.user))
            and (not self.text or _holds(fields, self.text))
            and (not self.own or fields.get("channel") == self.own)
            and all(each.matches(fields) for each in self.where)
        )

    def _all_needles(self) -> list[tuple[bytes, ...]]:
        """Collect what the raw bytes of a wanted record hold; the first is likely the rarest."""
        ids = (needle(each, quoted=True) for each in (self.own, self.run, self.operation))
        groups: list[tuple[bytes, ...]] = [(each,) for each in (*ids, needle(self.text)) if each]
        groups += [group for each in self.where for group in each.needles]
        return groups + [(each,) for each in (needle(self.user),) if each]  # a number stands there without quotes


def parse_time(text: str, now: dt.datetime, *, option: str = "--since") -> bytes:
    """Read a moment.

    Args:
        text: RFC 3339, a date, ``today``, ``yesterday``, ``now``, or an age such as ``10m``, ``2h`` or ``3d``. Without
            an offset it is local time, as ``today`` is.
        now: The present, with its time zone.
        option: Which option gave it, for the message.

    Returns:
        Its key.

    Raises:
        SettingsError: If it is none of these.
    """
    word = text.strip().lower()
    ago = _AGO.fullmatch(word)
    try:
        if ago:
            return instant_key(now - dt.timedelta(**{_UNITS[ago[2]]: int(ago[1])}))
        if word == "now":
            return instant_key(now)
        if word in _DAYS_BACK:
            day = now.astimezone().date() - dt.timedelta(days=_DAYS_BACK[word])
            return instant_key(dt.datetime(day.year, day.month, day.day).astimezone())
        return instant_key(dt.datetime.fromisoformat(text.strip()).astimezone())
    except (ValueError, OverflowError):
        remedy = "such as 2026-01-15T09:30:00Z, 2026-01-15, 10m, 2h, 3d, today or yesterday"
        raise SettingsError(f"{option} must be a time", text, remedy) from None


def level_number(name: str) -> int:
    """Return the number of a level.

    Raises:
        SettingsError: If there is no such level.
    """
    known = {**LEVELS, "WARN": LEVELS["WARNING"], "FATAL": LEVELS["CRITICAL"]}
    if name.upper() not in known:
        raise SettingsError("--level must be a log level", name, closest(name.upper(), LEVELS))
    return known[name.upper()]


def _is_user(found: Any, user: str) -> bool:
    return found == user or (type(found) is int and str(found) == user)


def _rank(level: Any) -> int:
    if not isinstance(level, str):
        return 0
    if level.startswith(_NUMBERED) and level.removeprefix(_NUMBERED).isdecimal():
        return int(level.removeprefix(_NUMBERED))
    return LEVELS.get(level, 0)


def _holds(fields: Mapping[str, Any], text: str) -> bool:
    message = fields.get("message")
    if isinstance(message, str) and text in message:
        return True
    waiting = [fields.get(key) for key in ("exception", "context", "following")]
    while waiting:
        value = waiting.pop()
        if isinstance(value, str):
            if text in value:
                return True
        elif isinstance(value, dict):
            waiting += (*value, *value.values())
        elif isinstance(value, list):
            waiting += value
        elif value is not None and text in orjson.dumps(value).decode():
            return True
    return False
