"""Takes alerts from the outbox to their channels, off the caller's thread, until each has arrived or is given up."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from ml_pipeline import _runtime
from ml_pipeline.config._alert_channels import AlertMessage
from ml_pipeline.config._alert_records import bounded_text
from ml_pipeline.config._alert_routes import RateLimit
from ml_pipeline.config._worker import Worker
from ml_pipeline.errors import AlertError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_pipeline.config._alert_channels import AlertChannel
    from ml_pipeline.config._alert_records import Delivery
    from ml_pipeline.config._alert_store import AlertStore

__all__ = ["Deliverer", "DeliveryHook", "count_delivery", "count_from_zero"]

FIRST_RETRY_SECONDS: Final = 2.0
LONGEST_RETRY_SECONDS: Final = 3_600.0
MOST_ATTEMPTS: Final = 100
"""About three days, longer than a weekend; after that the delivery is a dead letter, and the alert in the history."""

_GATHER_SECONDS: Final = 0.5
"""A call about a failure often comes a moment before the operation's own event, which knows the traceback."""

_LOOK_SECONDS: Final = 30.0
"""How often to look into the outbox at least: another process may have died over what it had put there."""

_LEASE_MARGIN_SECONDS: Final = 30.0
_LEASE_TIMEOUTS: Final = 3  # a channel that keeps to its time needs one
_MOST_ERROR_CHARACTERS: Final = 500

DeliveryHook: TypeAlias = Callable[[str, str, float], None]
"""Told of each attempt: channel, result (``sent``, ``failed`` or ``dead``), seconds since the first alert in it."""


def count_delivery(channel: str, result: str, seconds: float) -> None:
    """Count an attempt in the metrics; the default hook."""
    from ml_pipeline.config.prometheus_metrics import pipeline_metrics

    pipeline_metrics.alert_delivered(channel, result, seconds)


def count_from_zero(channels: Sequence[str]) -> None:
    """Have the metrics count what becomes of deliveries through these channels from 0 on."""
    from ml_pipeline.config.prometheus_metrics import pipeline_metrics

    pipeline_metrics.alert_channels(channels)


class Deliverer:
    """Delivers at least once: what one process leaves undone, another, or the next start, takes up.

    Thread-safe. One message at a time is on its way from this object, and the store's leases keep other processes from
    sending it too. A delivery that fails is tried again after 2 s, 4 s, and so on up to an hour, each shortened by up
    to half at random, so that many processes do not come back at once.

    Args:
        store: Returns the outbox.
        channels: Where to deliver, each with a name of its own.
        clock: Seconds since the Unix epoch.
        on_delivery: Told of each attempt.
        timeout_seconds: How long one attempt, and the end of the process, may take.
        upkeep: Run before each look into the outbox; returns when to run it again, in seconds since the Unix epoch, or
            None.
        is_there: Returns whether the outbox has been made, by whichever process; it is not made by looking into it.
        limits: How often each channel may be used by this process; None for as often as there is something to say.
        jitter: Returns a random number from 0 to 1.
    """

    def __init__(
        self,
        store: Callable[[], AlertStore],
        channels: Sequence[AlertChannel],
        *,
        clock: Callable[[], float],
        on_delivery: DeliveryHook,
        timeout_seconds: float,
        upkeep: Callable[[], float | None] = lambda: None,
        is_there: Callable[[], bool] = lambda: True,
        limits: RateLimit | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._store = store
        self._channels = {channel.name: channel for channel in channels}
        self._clock = clock
        self._on_delivery = on_delivery
        self._timeout_seconds = timeout_seconds
        self._upkeep = upkeep
        self._is_there = is_there
        self._limits = limits or RateLimit({})
        self._jitter = jitter
        self._worker = Worker("alerting")
        self._one_at_a_time = threading.Lock()
        self._until = math.inf

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the channels."""
        return tuple(self._channels)

    def wake(self) -> None:
        """Have what is due delivered in the background, once what else is said about it has been gathered."""
        self._worker.submit("deliver", self._deliver, delay_seconds=_GATHER_SECONDS)

    def flush(self, timeout_seconds: float) -> bool:
        """Deliver what is due now or only waits to share a message, on the caller's thread.

        Args:
            timeout_seconds: When to give up.

        Returns:
            Whether nothing is due any more.
        """
        until = time.monotonic() + timeout_seconds
        if not self._one_at_a_time.acquire(timeout=max(timeout_seconds, 0.0)):
            return False
        try:
            self._upkeep()
            return self._drain(until, early=True)
        finally:
            self._one_at_a_time.release()

    def close(self) -> None:
        """Deliver what is due, for as long as one attempt may take, and end."""
        self._until = time.monotonic() + self._timeout_seconds
        self._worker.close()

    def _deliver(self) -> None:
        pause: float | None = _LOOK_SECONDS if self._channels else None
        is_last = self._until != math.inf
        try:
            if self._is_there():
                pause = self._work(pause)
        finally:
            if self._until != math.inf:  # if that is since this began, it has left what waits to share a message
                pause = None if is_last else 0.0
            if pause is not None:
                self._worker.submit("deliver", self._deliver, delay_seconds=pause)

    def _work(self, pause: float | None) -> float | None:
        """Do what is due, and return for how long there is nothing to do then."""
        with self._one_at_a_time:
            times = [self._upkeep()]
            self._drain(math.inf, early=self._until != math.inf)
        now = self._clock()
        for channel in self._channels:
            due = self._store().next_due((channel,))
            times.append(None if due is None else max(due, now + self._limits.wait(channel, now)))
        pauses = [max(time - now, 0.0) for time in times if time is not None]
        return min(pauses if pause is None else [*pauses, pause], default=None)

    def _drain(self, until: float, *, early: bool) -> bool:
        lease_seconds = _LEASE_TIMEOUTS * self._timeout_seconds + _LEASE_MARGIN_SECONDS
        while (left := min(until, self._until) - time.monotonic()) > 0:
            now = self._clock()
            free = [channel for channel in self._channels if not self._limits.wait(channel, now)]
            delivery = self._store().claim(free, time=now, lease_seconds=lease_seconds, early=early)
            if delivery is None:
                return not self._is_held_up(now)
            self._limits.delay(delivery.channel, now)
            self._attempt(delivery, min(left, self._timeout_seconds))
        return False

    def _is_held_up(self, now: float) -> bool:
        """Say whether something is due that a limit lets wait."""
        held_up = [channel for channel in self._channels if self._limits.wait(channel, now)]
        due = self._store().next_due(held_up) if held_up else None
        return due is not None and due <= now

    def _attempt(self, delivery: Delivery, timeout_seconds: float) -> None:
        message = AlertMessage(
            delivery_id=delivery.delivery_id,
            alerts=delivery.alerts,
            reason=delivery.reason,
            timeout_seconds=timeout_seconds,
            note=_note(delivery),
        )
        _, failed = _runtime.attempt(self._channels[delivery.channel].send, message)
        result = "sent" if failed is None else self._failed(delivery, failed)
        if failed is None:
            self._store().settle(delivery.delivery_id, "sent", time=self._clock())
        with _runtime.guard("alerting"):
            self._on_delivery(delivery.channel, result, max(self._clock() - delivery.queued, 0.0))

    def _failed(self, delivery: Delivery, failed: Exception) -> str:
        _runtime.telemetry_error("alerting", failed)
        is_dead = isinstance(failed, AlertError) or delivery.attempt >= MOST_ATTEMPTS
        now = self._clock()
        self._store().settle(
            delivery.delivery_id,
            "dead" if is_dead else "pending",
            time=now,
            due=now + max(self._pause_seconds(delivery.attempt), getattr(failed, "retry_after_seconds", None) or 0.0),
            error=bounded_text(failed, _MOST_ERROR_CHARACTERS),
        )
        return "dead" if is_dead else "failed"

    def _pause_seconds(self, attempt: int) -> float:
        longest = min(FIRST_RETRY_SECONDS * 2.0 ** (attempt - 1), LONGEST_RETRY_SECONDS)
        return longest * (1 - self._jitter() / 2)


def _note(delivery: Delivery) -> str:
    if not delivery.more:
        return delivery.note
    rest = f"{delivery.more} more alerts are not shown here: see `ml-pipeline alerts list`."
    return f"{delivery.note} {rest}".strip()
