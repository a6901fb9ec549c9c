"""Which label sets another than this package tells Alertmanager of: Prometheus, whose rules have the same names.

Of two that tell of one alert, Alertmanager believes whoever says that it is over, and fires it anew when the other
repeats it; Prometheus says for a quarter of an hour that an alert is over. So only one may keep it alive: Prometheus,
where it does, because it goes on when the process does not.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from ml_pipeline import _runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from ml_pipeline.config._alert_http import HttpService

__all__ = ["Elsewhere", "Labels"]

_ALERTS: Final = "/api/v2/alerts?filter=" + quote('pipeline!=""', safe="")
_STATUS: Final = "/api/v2/status"

Labels = tuple[tuple[str, str], ...]


class Elsewhere:
    """Asks Alertmanager, and remembers what it said for as long as an alert is open.

    For one thread.

    Args:
        service: Alertmanager.
        address: Its own, without a path.
        source: The link that alerts of this package have as their source; empty where they have none.
        clock: Seconds since the Unix epoch.
    """

    def __init__(self, service: HttpService, address: str, source: str, *, clock: Callable[[], float]) -> None:
        self._service = service
        self._address = address
        self._source = source
        self._clock = clock
        self._theirs: frozenset[Labels] = frozenset()
        self._until: dict[Labels, tuple[float, float]] = {}

    def posted(self, ends: Mapping[Labels, float]) -> None:
        """Remember until when alerts were said to live, in seconds since the Unix epoch, by label set."""
        now = self._clock()
        self._until = {labels: each for labels, each in self._until.items() if each[1] > now}
        self._until |= {labels: (now, end) for labels, end in ends.items()}

    def look(self, still_open: Collection[Labels], *, timeout_seconds: float) -> None:
        """Find out what others tell of; what cannot be found out stays as it was.

        Args:
            still_open: What is forgotten where it is not among these and nobody tells of it.
            timeout_seconds: How long that may take altogether.
        """
        held, _ = _runtime.attempt(self._held, timeout_seconds / 2)
        if held is None:  # the post that follows fails as well, and that is counted
            return
        others = {labels for labels, source in held.items() if source and source != self._source}
        gone = {labels for labels, (_, end) in self._until.items() if end > self._clock() and labels not in held}
        if gone:
            began, _ = _runtime.attempt(self._began, timeout_seconds / 2)
            # Who began after it was told has forgotten it; else somebody has said that it is over.
            others |= {labels for labels in gone if began is not None and began < self._until[labels][0]}
        self._theirs = frozenset(others | (self._theirs & set(still_open)))

    def tell(self, labels: Labels) -> bool:
        """Return whether others keep an alert of these labels alive, and say when it is over."""
        return labels in self._theirs

    def _held(self, timeout_seconds: float) -> dict[Labels, str]:
        entries: list[Any] = self._service.read(self._address + _ALERTS, timeout_seconds=timeout_seconds)
        return {tuple(sorted(entry["labels"].items())): entry.get("generatorURL", "") for entry in entries}

    def _began(self, timeout_seconds: float) -> float:
        status: dict[str, str] = self._service.read(self._address + _STATUS, timeout_seconds=timeout_seconds)
        return dt.datetime.fromisoformat(status["uptime"]).timestamp()
