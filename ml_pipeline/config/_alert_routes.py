"""Which channels an alert goes to, by what it is and by the time of day; and how often a channel may be used.

The sections ``routes`` and ``limits`` of the file that ``ML_PIPELINE_ALERT_RULES_FILE`` names::

    routes:
      - match: {severity: critical}
        time: "22:00-06:00"
        zone: Europe/Berlin
        channels: [pagerduty, slack]
      - match: {pipeline: "adni*", labels: {team: ml}}
        channels: [slack]
    limits:
      slack: 20/minute
"""

from __future__ import annotations

import datetime as dt
import re
from collections import deque
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ml_pipeline.config._alert_records import SEVERITIES
from ml_pipeline.errors import AlertError, closest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from ml_pipeline.config._alert_records import Alert
    from ml_pipeline.settings import Settings

__all__ = ["RateLimit", "Route", "Routes"]

_LOCAL: Final = ("console", "file")
_FIELDS: Final = ("match", "time", "zone", "channels", "continue")
_MATCHED: Final = ("severity", "kind", "pipeline", "operation", "model", "feature", "name")
_LABELS: Final = "labels"
_TIME: Final = re.compile(r"([01][0-9]|2[0-4]):([0-5][0-9])-([01][0-9]|2[0-4]):([0-5][0-9])")
_DAY_MINUTES: Final = 1_440
_LIMIT: Final = re.compile(r"([1-9][0-9]{0,5})/(second|minute|hour)")
_SECONDS: Final = {"second": 1.0, "minute": 60.0, "hour": 3_600.0}
_LIMITS: Final = {"slack": (60, 60.0), "teams": (60, 60.0), "pagerduty": (60, 60.0)}
"""What these services take from one sender without objecting, with room left for others that use the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Alerts of some sort, and the channels they go to.

    Attributes:
        match: Patterns by field, of which an alert's field must match one; ``*`` stands for anything.
        labels: The same by label.
        minutes: From which minute of the day to which, the last not included; past midnight where the second is less.
        zone: The time zone of these.
        channels: Where to; none at all for alerts that are only recorded.
        goes_on: Whether the routes after it are asked too.
    """

    match: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    minutes: tuple[int, int] | None = None
    zone: dt.tzinfo = dt.UTC
    channels: tuple[str, ...]
    goes_on: bool = False

    def takes(self, alert: Alert, time: float) -> bool:
        """Say whether an alert goes this way.

        Args:
            alert: The alert.
            time: Now, in seconds since the Unix epoch.
        """
        fields = ((patterns, str(getattr(alert, name))) for name, patterns in self.match.items())
        labels = ((patterns, str(alert.labels.get(name, ""))) for name, patterns in self.labels.items())
        is_its_kind = all(
            any(fnmatchcase(value, pattern) for pattern in patterns) for patterns, value in (*fields, *labels)
        )
        return is_its_kind and self._is_open(time)

    def _is_open(self, time: float) -> bool:
        if self.minutes is None:
            return True
        local = dt.datetime.fromtimestamp(time, self.zone)
        now, (first, end) = local.hour * 60 + local.minute, self.minutes
        return first <= now < end if first < end else now >= first or now < end


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes in order, and what is done with an alert that none of them takes.

    Attributes:
        configured: Every channel there is.
        routes: The routes.
        limits: How often each channel may be used.
    """

    configured: tuple[str, ...]
    routes: tuple[Route, ...] = ()
    limits: RateLimit = field(default_factory=lambda: RateLimit(_LIMITS))

    @classmethod
    def of(cls, settings: Settings, configured: Sequence[str] | None = None) -> Routes:
        """Read the routes of the file that the settings name.

        Args:
            settings: With ``alert_rules_file`` set, or without any routes.
            configured: Names of the channels there are; by default those of the settings.

        Raises:
            AlertError: If the file cannot be used, or a route or a limit cannot be; it names the first.
        """
        from ml_pipeline.config._alert_ways import channel_names

        names = tuple(channel_names(settings) if configured is None else configured)
        if settings.alert_rules_file is None:
            return cls(names)
        from ml_pipeline.config._alert_rule_file import read_document

        return cls.read(read_document(settings.alert_rules_file), names)

    @classmethod
    def read(cls, document: Mapping[str, Any], configured: Sequence[str]) -> Routes:
        """Read the routes and limits of a document.

        Args:
            document: Its sections by name.
            configured: Names of the channels there are.

        Raises:
            AlertError: If a route or a limit cannot be.
        """
        listed = document.get("routes")
        if not isinstance(listed, list) and listed is not None:
            raise AlertError("routes must be a list", listed, "begin each with `- match:`")
        routes = tuple(_route(each, f"route {place}", configured) for place, each in enumerate(listed or (), 1))
        return cls(tuple(configured), routes, RateLimit(_LIMITS | _limits(document.get("limits"), configured)))

    def channels(self, alert: Alert, time: float) -> tuple[str, ...]:
        """Name the channels that an alert goes to.

        Args:
            alert: The alert.
            time: Now, in seconds since the Unix epoch.

        Returns:
            Those of the first route that takes it, and of further ones where that says so. Without any: every channel
            for a warning and worse, the console and the file for the rest.
        """
        chosen: list[str] = []
        is_taken = False
        for route in self.routes:
            if route.takes(alert, time):
                chosen += route.channels
                is_taken = True
                if not route.goes_on:
                    break
        if is_taken:
            return tuple(dict.fromkeys(chosen))
        return tuple(name for name in self.configured if alert.severity != SEVERITIES[0] or name in _LOCAL)


class RateLimit:
    """How often each channel may be used. For one thread at a time.

    Args:
        limits: By channel: how many messages in how many seconds.
    """

    def __init__(self, limits: Mapping[str, tuple[int, float]]) -> None:
        self._limits = dict(limits)
        self._used: dict[str, deque[float]] = {name: deque(maxlen=most) for name, (most, _) in limits.items()}

    def delay(self, channel: str, now: float) -> float:
        """Ask to use a channel.

        Args:
            channel: Its name.
            now: Seconds since the Unix epoch.

        Returns:
            0 if it may be used now, which is then counted; else in how many seconds to ask again.
        """
        wait = self.wait(channel, now)
        if not wait and channel in self._limits:
            self._used[channel].append(now)
        return wait

    def wait(self, channel: str, now: float) -> float:
        """Return what `delay` would, and count nothing."""
        if channel not in self._limits:
            return 0.0
        most, seconds = self._limits[channel]
        used = self._used[channel]
        if len(used) < most or not 0 <= now - used[0] < seconds:  # a clock that was set back holds nothing up
            return 0.0
        return used[0] + seconds - now


def _route(given: object, place: str, configured: Sequence[str]) -> Route:
    if not isinstance(given, dict):
        raise AlertError(f"{place} must be fields by name", given, "begin it with `- match:`")
    for key in given:
        if key not in _FIELDS:
            raise AlertError(f"{place}: a field must be one of the known ones", key, closest(str(key), _FIELDS))
    channels = given.get("channels")
    if not isinstance(channels, list):
        raise AlertError(f"{place}: channels must be a list", channels, "write [] to deliver to none")
    for name in channels:
        if name not in configured:
            remedy = f"{closest(str(name), configured)}; or add it to ML_PIPELINE_ALERT_CHANNELS"
            raise AlertError(f"{place}: a channel must be among those alerts are delivered to", name, remedy)
    goes_on = given.get("continue", False)
    if not isinstance(goes_on, bool):
        raise AlertError(f"{place}: continue must be true or false", goes_on, "leave it out for false")
    matched = given.get("match") or {}
    if not isinstance(matched, dict):
        raise AlertError(f"{place}: match must be patterns by field", matched, "write {} for every alert")
    labels = matched.get(_LABELS) or {}
    if not isinstance(labels, dict):
        raise AlertError(f"{place}: labels must be patterns by name", labels, "write them as {team: ml}")
    return Route(
        match={key: _patterns(value, str(key), place) for key, value in matched.items() if key != _LABELS},
        labels={str(key): _texts(value, f"{place}: {key}") for key, value in labels.items()},
        minutes=_minutes(given.get("time"), place),
        zone=_zone(given.get("zone"), place),
        channels=tuple(channels),
        goes_on=goes_on,
    )


def _patterns(value: object, key: str, place: str) -> tuple[str, ...]:
    if key not in _MATCHED:
        known = (*_MATCHED, _LABELS)
        raise AlertError(f"{place}: what is matched must be a field of an alert", key, closest(key, known))
    patterns = _texts(value, f"{place}: {key}")
    for pattern in patterns:
        if key == "severity" and not any(fnmatchcase(each, pattern) for each in SEVERITIES):
            raise AlertError(
                f"{place}: a severity must be one of the known ones", pattern, closest(pattern, SEVERITIES)
            )
    return patterns


def _texts(value: object, place: str) -> tuple[str, ...]:
    listed = value if isinstance(value, list) else [value]
    if not listed or not all(isinstance(each, str) for each in listed):
        raise AlertError(f"{place} must be a text or a list of texts", value, "put it in quotation marks")
    return tuple(listed)


def _minutes(value: object, place: str) -> tuple[int, int] | None:
    if value is None:
        return None
    found = _TIME.fullmatch(value) if isinstance(value, str) else None
    first, end = (int(found[1]) * 60 + int(found[2]), int(found[3]) * 60 + int(found[4])) if found else (0, 0)
    if found is None or first >= _DAY_MINUTES or end > _DAY_MINUTES or first == end:
        raise AlertError(f'{place}: a time must be like "22:00-06:00"', value, "leave it out for the whole day")
    return first, end


def _zone(value: object, place: str) -> dt.tzinfo:
    if value is None:
        return dt.UTC
    try:
        return ZoneInfo(value if isinstance(value, str) else "")
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise AlertError(f"{place}: a zone must be one that this machine knows", value, "as in Europe/Berlin") from None


def _limits(given: object, configured: Sequence[str]) -> dict[str, tuple[int, float]]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise AlertError("limits must be texts by channel", given, "as in slack: 20/minute")
    limits = {}
    for name, value in given.items():
        if name not in configured:
            known = closest(str(name), configured)
            raise AlertError("a limit must be for a channel that alerts are delivered to", name, known)
        found = _LIMIT.fullmatch(value) if isinstance(value, str) else None
        if found is None:
            raise AlertError(f"limits: {name} must be so many a second, minute or hour", value, "as in 20/minute")
        limits[str(name)] = (int(found[1]), _SECONDS[found[2]])
    return limits
