"""What becomes due by time alone: alerts are heard again, escalate, are summed up, are forgotten."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from ml_pipeline import _runtime
from ml_pipeline.config._alert_records import SEVERITIES

if TYPE_CHECKING:
    from ml_pipeline.config._alert_records import Alert, AlertSummary
    from ml_pipeline.config._alert_store import AlertStore
    from ml_pipeline.config._events import AlertState

__all__ = ["ChannelsOf", "Digest", "Upkeep", "digest_period"]

ChannelsOf: TypeAlias = Callable[["Alert"], Sequence[str]]
Digest = Literal["off", "daily", "weekly"]

_DAY_SECONDS: Final = 86_400.0
_DIGEST_CHANNEL: Final = "email"


class Upkeep:
    """Looks after the alerts of a store; any number of processes may, and each thing is done once.

    Args:
        store: Returns the store.
        channels: Names of the channels of this process; one that has none leaves it to others to be heard.
        channels_of: Names the channels that an alert goes to.
        clock: Seconds since the Unix epoch.
        publish: Told of each alert that escalates or is over.
        cooldown_seconds: How long a failure that was made good stays open, from when it was raised.
        digest: How often what happened is summed up in a mail.
        keep_seconds: How long an alert is kept after it was last said.
    """

    def __init__(
        self,
        store: Callable[[], AlertStore],
        channels: Sequence[str],
        channels_of: ChannelsOf,
        *,
        clock: Callable[[], float],
        publish: Callable[[Alert, AlertState], None],
        cooldown_seconds: float,
        digest: Digest,
        keep_seconds: float,
    ) -> None:
        self._store = store
        self._channels = channels
        self._channels_of = channels_of
        self._clock = clock
        self._publish = publish
        self._cooldown_seconds = cooldown_seconds
        self._digest = digest if _DIGEST_CHANNEL in channels else "off"
        self._keep_seconds = keep_seconds
        self._digested = ""
        self._forgotten = float("-inf")

    def run(self) -> float | None:
        """Do what is due.

        Returns:
            When to run again, in seconds since the Unix epoch; None where nothing will be due by time alone.
        """
        store, now = self._store(), self._clock()
        if now - self._forgotten >= _DAY_SECONDS:
            self._forgotten = now
            store.forget(now - self._keep_seconds)
        for alert in store.resolve_mended(now - self._cooldown_seconds, time=now):
            self._publish(alert, "resolved")
        if not self._channels:
            return store.next_change(now)
        store.unmute(self._channels_of, time=now)
        for alert in store.escalate(self._channels_of, time=now):
            self._publish(alert, "escalated")
        times = [store.next_change(now)]
        with _runtime.guard("alerting"):  # a database of several hosts that is away must not hold up what is due here
            times.append(self._sum_up(store, now))
        return min((time for time in times if time is not None), default=None)

    def _sum_up(self, store: AlertStore, now: float) -> float | None:
        if self._digest == "off":
            return None
        period, since, until, following = digest_period(self._digest, now)
        if period != self._digested:
            note = _sentence(period, store.summarise(since, until))
            store.digest(period, (_DIGEST_CHANNEL,), note, since=since, until=until)
            self._digested = period
        return following


def digest_period(digest: Literal["daily", "weekly"], now: float) -> tuple[str, float, float, float]:
    """Name the last whole day, or week from Monday, in UTC.

    Args:
        digest: Which of the two.
        now: Seconds since the Unix epoch.

    Returns:
        Its name, when it began and ended, and when the next one ends.
    """
    today = dt.datetime.fromtimestamp(now, dt.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    days = 1 if digest == "daily" else 7
    end = today if digest == "daily" else today - dt.timedelta(days=today.weekday())
    begin = end - dt.timedelta(days=days)
    name = f"{begin:%Y-%m-%d}" if digest == "daily" else f"the week from {begin:%Y-%m-%d}"
    return name, begin.timestamp(), end.timestamp(), (end + dt.timedelta(days=days)).timestamp()


def _sentence(period: str, summary: AlertSummary) -> str:
    by_severity = ", ".join(
        f"{summary.by_severity[severity]} {severity}"
        for severity in reversed(SEVERITIES)
        if severity in summary.by_severity
    )
    repeats = f"; {summary.held_back} repeats were held back" if summary.held_back else ""
    return f"{summary.alerts} alerts in {period} (UTC): {by_severity}{repeats}." if summary.alerts else ""
