"""Where alerts are kept, and the outbox of their deliveries: the contract of a store."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

from ml_pipeline.config._events import EMPTY

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

__all__ = ["ALERTMANAGER", "AlertStore"]

ALERTMANAGER: Final = "alertmanager"
"""The channel that the others stand in for: where an alert goes there too, they wait, and whoever was first covers the
rest, so that one cause is told once."""


class AlertStore(Protocol):
    """Keeps alerts, and which of them have yet to be delivered where.

    Thread-safe; other processes may use the same data at the same time. A store does not outlive a fork: a child opens
    its own. Times are seconds since the Unix epoch, by the caller's clock. Any method raises what its engine raises,
    and has then changed nothing.
    """

    def record(self, said: Occurrence, *, channels: Sequence[str], cooldown_seconds: float) -> Recorded:
        """Make a new alert, or count the occurrence under the one it belongs to.

        Args:
            said: What happened, at ``said.alert.time``.
            channels: Where a new alert is to be delivered.
            cooldown_seconds: How long a repeat is counted under the alert before it.

        Returns:
            The alert and what became of the occurrence. A new alert and its deliveries are on disk by then.
        """
        ...

    def resolve(self, alert_id: str, *, time: float) -> Alert | None:
        """Mark an alert as over, so that the next occurrence is a new one, and say so where it was delivered.

        Args:
            alert_id: The alert.
            time: Now.

        Returns:
            The alert, or None if there is none of that id or it was resolved before.
        """
        ...

    def clear(self, time: float, **identity: str) -> list[Alert]:
        """Mark every open alert of an identity resolved, as `resolve` does.

        Args:
            time: Now.
            **identity: Fields of an `Alert`, all of which must be equal.

        Returns:
            The alerts as they stand now; empty where none was open.
        """
        ...

    def get(self, alert_id: str) -> Alert | None:
        """Return one alert, or None if there is none of that id."""
        ...

    def deliveries(self, alert_id: str) -> list[DeliveryRecord]:
        """Return what became of an alert on each channel, in the order it was to be said."""
        ...

    def acknowledge(self, alert_id: str, *, by: str, time: float) -> Alert | None:
        """Note who sees to an alert, so that it does not escalate.

        Args:
            alert_id: The alert.
            by: Who.
            time: Now.

        Returns:
            The alert, or None if there is none of that id or it was resolved before.
        """
        ...

    def hold(self, alert_id: str, count: int, *, time: float) -> Alert | None:
        """Count repeats that were held back without asking the store.

        Args:
            alert_id: The alert.
            count: How many.
            time: When the last of them was said.

        Returns:
            The alert as it stands now, or None if there is none of that id.
        """
        ...

    def went_well(self, pipeline: str, operation: str, model: str, *, time: float) -> bool:
        """Note that an operation has gone well since it failed; a repeat of the failure takes that back.

        Args:
            pipeline: Where.
            operation: Its name.
            model: The model it concerns.
            time: When.

        Returns:
            Whether an open alert of a failure, raised by no rule, was waiting for that.
        """
        ...

    def resolve_mended(self, raised_before: float, *, time: float) -> list[Alert]:
        """Resolve, as `resolve` does, the alerts of failures that were made good.

        Args:
            raised_before: Only those raised at this time or earlier.
            time: Now.

        Returns:
            The alerts as they stand now.
        """
        ...

    def add_silence(self, silence: Silence) -> None:
        """Keep a silence; what is raised while it lasts is muted."""
        ...

    def end_silence(self, silence_id: str, *, time: float) -> bool:
        """End a silence now; say whether it lasted still."""
        ...

    def silences(self, time: float) -> list[Silence]:
        """Return the silences that last, the first to end first."""
        ...

    def unmute(self, channels_of: Callable[[Alert], Sequence[str]], *, time: float) -> list[Alert]:
        """Have the open alerts delivered that nothing mutes any more.

        Args:
            channels_of: Names the channels of an alert.
            time: Now.

        Returns:
            Those alerts.
        """
        ...

    def escalate(self, channels_of: Callable[[Alert], Sequence[str]], *, time: float) -> list[Alert]:
        """Make critical, and have delivered once more, what was said too often or has been open for too long.

        Args:
            channels_of: Names the channels of an alert.
            time: Now.

        Returns:
            The alerts that escalated, as they stand now.
        """
        ...

    def next_change(self, time: float) -> float | None:
        """Return when an alert escalates or may be heard again next by time alone, or None for never."""
        ...

    def digest(self, period: str, channels: Sequence[str], note: str, *, since: float, until: float) -> bool:
        """Have a period summed up in one message of its most severe alerts; once, whoever asks.

        Args:
            period: Its name.
            channels: Where to.
            note: The sentence for the top.
            since: When the period began.
            until: When it ended.

        Returns:
            Whether nobody had asked before.
        """
        ...

    def forget(self, before: float) -> int:
        """Remove what was last said before a moment and has not yet to be delivered; return how many rows that were."""
        ...

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
        """Return the newest alerts that meet every condition given, newest first.

        Args:
            limit: At most so many.
            kind: Of this kind.
            severity: Of this severity.
            state: In this state.
            since: Raised at this time or later.
            only_active: Not resolved, and the latest of their identity.
            identity: With these texts in these fields of an `Alert`.
        """
        ...

    def summarise(self, since: float, until: float = math.inf) -> AlertSummary:
        """Count the alerts raised since a moment and before another."""
        ...

    def claim(
        self, channels: Sequence[str], *, time: float, lease_seconds: float, early: bool = False
    ) -> Delivery | None:
        """Take the message that has been due for longest, so that nobody else has it while the lease lasts.

        What waits in a group (channel, pipeline and reason) is one message from the first claim on; what is raised
        later is part of another. The first of a group is due at once; what is raised within `GROUP_SECONDS` of a
        message is due so long after that one. The attempt is counted at once: a message that kills its process is not
        tried for ever.

        Args:
            channels: Names of the channels the caller can deliver through.
            time: Now.
            lease_seconds: For how long it is the caller's.
            early: Whether to take also what waits to share a message, because the caller is about to end.

        Returns:
            The message, or None if none is due.
        """
        ...

    def settle(self, delivery_id: str, state: DeliveryState, *, time: float, due: float = 0.0, error: str = "") -> None:
        """End a claim; what was resolved since then is said to those who were told of it.

        Args:
            delivery_id: The message.
            state: What became of it; ``pending`` to try again.
            time: Now.
            due: When to try again.
            error: Why it was not sent.
        """
        ...

    def told(self, channel: str, *, limit: int) -> list[Alert]:
        """Return the alerts that are open and were delivered through a channel, the oldest first.

        Args:
            channel: Its name.
            limit: At most so many.
        """
        ...

    def next_due(self, channels: Sequence[str]) -> float | None:
        """Return when the next delivery through these channels can be claimed, or None if there is none."""
        ...

    def close(self) -> None:
        """Give back what the store holds open."""
        ...
