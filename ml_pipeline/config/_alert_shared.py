"""The alert store of several hosts, which may be away: meanwhile the host's own stands in."""

from __future__ import annotations

import math
import threading
import time as _time
from collections import OrderedDict, deque
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from ml_pipeline import _runtime
from ml_pipeline.config import _alert_tables_move
from ml_pipeline.config._events import EMPTY
from ml_pipeline.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ml_pipeline.config._alert_records import (
        Alert,
        AlertSummary,
        Delivery,
        DeliveryRecord,
        DeliveryState,
        Occurrence,
        Recorded,
    )
    from ml_pipeline.config._alert_silences import Silence
    from ml_pipeline.config._alert_store import AlertStore
    from ml_pipeline.config._alert_tables import AlertTables

__all__ = ["RETRY_SECONDS", "SharedAlertStore"]

T = TypeVar("T")

RETRY_SECONDS: Final = 5.0
"""How often the worker sees whether the database is back."""

_MOVING_SECONDS: Final = 5.0
_PAUSE_SECONDS: Final = 0.15
"""Between what is moved at once: SQLite lets whoever waits for it look again every tenth of a second."""

_MOST_REMEMBERED: Final = 256
_MOST_OWED: Final = 10_000


class SharedAlertStore:
    """Alerts in a database that may be away; an `AlertStore`. Thread-safe.

    The first call that fails finds out that the database is away; from then on every call is answered from the host's
    own store, at once, and what is raised there is delivered from there. Whoever delivers, in the background, looks for
    the database again, and moves what the own store took over to it. What the database itself holds waits until it is
    back. The own store is told of this process's newest alerts and of the silences, so that repeats stay repeats, and
    what is silenced stays silent.

    Args:
        database: Raises `StoreError` while it is away.
        own: Opens the host's own store.
        is_own_there: Whether that has been made; what an earlier process left in it moves over, too.
        on_return: Called when the database is back, or has been told of what the own store held.
        retry_seconds: How often to look for the database.
        monotonic: Seconds that only go forward.
        pause: Waits so many seconds.
    """

    def __init__(
        self,
        database: AlertTables,
        own: Callable[[], AlertTables],
        is_own_there: Callable[[], bool],
        *,
        on_return: Callable[[], None] = lambda: None,
        retry_seconds: float = RETRY_SECONDS,
        monotonic: Callable[[], float] = _time.monotonic,
        pause: Callable[[float], None] = _time.sleep,
    ) -> None:
        self._database = database
        self._open_own = own
        self._is_own_there = is_own_there
        self._on_return = on_return
        self._retry_seconds = retry_seconds
        self._monotonic = monotonic
        self._pause = pause
        self._lock = threading.RLock()
        self._one_at_a_time = threading.Lock()  # catches up
        self._own: AlertTables | None = None
        self._away: StoreError | None = None
        self._look_at = -math.inf
        self._is_moving = False
        self._remembered: OrderedDict[str, tuple[Occurrence, float]] = OrderedDict()
        self._owed: deque[Callable[[], object]] = deque(maxlen=_MOST_OWED)
        self._silences: list[Silence] = []
        self._time = 0.0

    def record(self, said: Occurrence, *, channels: Sequence[str], cooldown_seconds: float) -> Recorded:
        """See `AlertStore.record`."""
        recorded = self._either(lambda store: store.record(said, channels=channels, cooldown_seconds=cooldown_seconds))
        if self._away is None and recorded.outcome != "implied":
            self._remember(replace(said, alert=recorded.alert), cooldown_seconds)
        return recorded

    def resolve(self, alert_id: str, *, time: float) -> Alert | None:
        """See `AlertStore.resolve`."""
        return self._forgotten(self._known(lambda store: store.resolve(alert_id, time=time)))

    def clear(self, time: float, **identity: str) -> list[Alert]:
        """See `AlertStore.clear`."""
        cleared = self._either(lambda store: store.clear(time, **identity))
        if self._away is not None:
            self._owed.append(partial(self._database.clear, time, **identity))
        return [alert for alert in cleared if self._forgotten(alert)]

    def get(self, alert_id: str) -> Alert | None:
        """See `AlertStore.get`."""
        return self._known(lambda store: store.get(alert_id))

    def deliveries(self, alert_id: str) -> list[DeliveryRecord]:
        """See `AlertStore.deliveries`."""
        return self._either(lambda store: store.deliveries(alert_id))

    def acknowledge(self, alert_id: str, *, by: str, time: float) -> Alert | None:
        """See `AlertStore.acknowledge`."""
        return self._known(lambda store: store.acknowledge(alert_id, by=by, time=time))

    def hold(self, alert_id: str, count: int, *, time: float) -> Alert | None:
        """See `AlertStore.hold`."""
        return self._known(lambda store: store.hold(alert_id, count, time=time))

    def went_well(self, pipeline: str, operation: str, model: str, *, time: float) -> bool:
        """See `AlertStore.went_well`."""
        return self._either(lambda store: store.went_well(pipeline, operation, model, time=time))

    def resolve_mended(self, raised_before: float, *, time: float) -> list[Alert]:
        """See `AlertStore.resolve_mended`."""
        mended = self._either(lambda store: store.resolve_mended(raised_before, time=time))
        return [alert for alert in mended if self._forgotten(alert)]

    def add_silence(self, silence: Silence) -> None:
        """See `AlertStore.add_silence`; it must be there for every host, so that this waits for the database."""
        self._only(lambda store: store.add_silence(silence))

    def end_silence(self, silence_id: str, *, time: float) -> bool:
        """See `AlertStore.end_silence`."""
        return self._only(lambda store: store.end_silence(silence_id, time=time))

    def silences(self, time: float) -> list[Silence]:
        """See `AlertStore.silences`."""
        return self._only(lambda store: store.silences(time))

    def unmute(self, channels_of: Callable[[Alert], Sequence[str]], *, time: float) -> list[Alert]:
        """See `AlertStore.unmute`."""
        return self._either(lambda store: store.unmute(channels_of, time=time))

    def escalate(self, channels_of: Callable[[Alert], Sequence[str]], *, time: float) -> list[Alert]:
        """See `AlertStore.escalate`."""
        return self._either(lambda store: store.escalate(channels_of, time=time))

    def next_change(self, time: float) -> float | None:
        """See `AlertStore.next_change`; also when to look for the database again."""
        self._time = time
        return self._soonest(self._either(lambda store: store.next_change(time)))

    def digest(self, period: str, channels: Sequence[str], note: str, *, since: float, until: float) -> bool:
        """See `AlertStore.digest`; it is of all hosts, so that this waits for the database."""
        return self._only(lambda store: store.digest(period, channels, note, since=since, until=until))

    def forget(self, before: float) -> int:
        """See `AlertStore.forget`."""
        return self._either(lambda store: store.forget(before))

    def find(
        self,
        *,
        limit: int,
        kind: str | None = None,
        severity: str | None = None,
        state: str | None = None,
        since: float | None = None,
        only_active: bool = False,
        identity: Mapping[str, str] = EMPTY,
    ) -> list[Alert]:
        """See `AlertStore.find`; while the database is away, what this host knows. What it kept moves over first."""
        self._reach()
        return self._either(
            lambda store: store.find(
                limit=limit,
                kind=kind,
                severity=severity,
                state=state,
                since=since,
                only_active=only_active,
                identity=identity,
            )
        )

    def summarise(self, since: float, until: float = math.inf) -> AlertSummary:
        """See `AlertStore.summarise`; while the database is away, what this host knows."""
        return self._either(lambda store: store.summarise(since, until))

    def claim(
        self, channels: Sequence[str], *, time: float, lease_seconds: float, early: bool = False
    ) -> Delivery | None:
        """See `AlertStore.claim`; this is also where the database is looked for."""
        self._time = time
        self._reach()
        return self._either(lambda store: store.claim(channels, time=time, lease_seconds=lease_seconds, early=early))

    def settle(self, delivery_id: str, state: DeliveryState, *, time: float, due: float = 0.0, error: str = "") -> None:
        """See `AlertStore.settle`; what the database cannot be told now it is told when it is back."""
        if self._own is not None:  # another process may have moved the message since
            self._own.settle(delivery_id, state, time=time, due=due, error=error)
        tell = partial(self._database.settle, delivery_id, state, time=time, due=due, error=error)
        if self._away is None:
            try:
                tell()
            except StoreError as failed:
                self._leave(failed)
            else:
                return
        self._owed.append(tell)

    def told(self, channel: str, *, limit: int) -> list[Alert]:
        """See `AlertStore.told`."""
        return self._either(lambda store: store.told(channel, limit=limit))

    def next_due(self, channels: Sequence[str]) -> float | None:
        """See `AlertStore.next_due`; also when to look for the database again, or to go on moving."""
        return self._soonest(self._either(lambda store: store.next_due(channels)))

    def close(self) -> None:
        """See `AlertStore.close`; what the database is owed it is told now, if it is there."""
        if self._owed:
            self._look_at = -math.inf
            self._reach()
        self._database.close()
        if self._own is not None:
            self._own.close()

    def _soonest(self, due: float | None) -> float | None:
        again = self._time + self._retry_seconds if self._away is not None else self._time if self._is_moving else None
        return min((each for each in (due, again) if each is not None), default=None)

    def _either(self, ask: Callable[[AlertStore], T]) -> T:
        """Ask the database, or while that is away the own store."""
        if self._away is None:
            try:
                return ask(self._database)
            except StoreError as failed:
                self._leave(failed)
        return ask(self._opened())

    def _known(self, ask: Callable[[AlertStore], T | None]) -> T | None:
        """Ask about one alert; that the own store does not know it means nothing."""
        found = self._either(ask)
        if found is None and self._away is not None:
            raise self._away
        return found

    def _only(self, ask: Callable[[AlertStore], T]) -> T:
        """Ask the database alone."""
        if self._away is not None:
            raise self._away
        return ask(self._database)

    def _remember(self, said: Occurrence, cooldown_seconds: float) -> None:
        with self._lock:
            self._remembered[said.alert.alert_id] = (said, cooldown_seconds)
            self._remembered.move_to_end(said.alert.alert_id)
            if len(self._remembered) > _MOST_REMEMBERED:
                self._remembered.popitem(last=False)

    def _forgotten(self, alert: Alert | None) -> Alert | None:
        if alert is not None:
            with self._lock:
                self._remembered.pop(alert.alert_id, None)
        return alert

    def _opened(self) -> AlertTables:
        with self._lock:
            if self._own is None:
                self._own = self._open_own()
            return self._own

    def _leave(self, failed: StoreError) -> None:
        """Have the own store stand in, once it knows what this process has raised of late."""
        _runtime.telemetry_error("alerting", failed)
        with self._lock:
            if self._away is None:
                own = self._opened()
                for said, cooldown_seconds in self._remembered.values():
                    own.know(said, cooldown_seconds=cooldown_seconds)
                for silence in self._silences:
                    own.add_silence(silence)
                self._look_at = self._monotonic() + self._retry_seconds
                self._away = failed

    def _reach(self) -> None:
        """See whether the database is back, tell it what it is owed, and move what the own store took."""
        if (self._monotonic() < self._look_at and not self._is_moving) or not self._one_at_a_time.acquire(
            blocking=False
        ):
            return
        self._look_at = self._monotonic() + self._retry_seconds
        try:
            self._catch_up()
        except StoreError as failed:
            self._leave(failed)
        finally:
            self._one_at_a_time.release()

    def _has_left(self) -> bool:
        return (self._own is not None or self._is_own_there()) and _alert_tables_move.holds_anything(self._opened())

    def _catch_up(self) -> None:
        while self._owed:
            self._owed[0]()
            self._owed.popleft()
        until = self._monotonic() + _MOVING_SECONDS
        is_news = self._away is not None
        self._is_moving = self._has_left()
        is_news |= self._is_moving
        while self._is_moving and self._monotonic() < until:
            _alert_tables_move.move(self._opened(), self._database)
            self._is_moving = self._has_left()
            if self._is_moving:
                self._pause(_PAUSE_SECONDS)
        self._silences = self._database.silences(self._time)  # also where nothing was owed and nothing is left
        self._away = None
        if is_news:
            self._on_return()
