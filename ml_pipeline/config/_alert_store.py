"""Where alerts are kept, and the outbox of their deliveries: the contract of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_pipeline.config._alert_records import Alert, AlertSummary, Delivery, DeliveryState, Occurrence, Recorded

__all__ = ["AlertStore"]


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
        """Mark an alert as over, so that the next occurrence is a new one.

        Args:
            alert_id: The alert.
            time: Now.

        Returns:
            The alert, or None if there is none of that id or it was resolved before.
        """
        ...

    def clear(self, time: float, **identity: str) -> list[Alert]:
        """Mark every open alert of an identity resolved.

        Args:
            time: Now.
            **identity: Fields of an `Alert`, all of which must be equal.

        Returns:
            The alerts as they stand now; empty where none was open.
        """
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
    ) -> list[Alert]:
        """Return the newest alerts that meet every condition given, newest first.

        Args:
            limit: At most so many.
            kind: Of this kind.
            severity: Of this severity.
            state: In this state.
            since: Raised at this time or later.
            only_active: Not resolved, and the latest of their identity.
        """
        ...

    def summarise(self, since: float) -> AlertSummary:
        """Count the alerts raised since a moment."""
        ...

    def claim(self, channels: Sequence[str], *, time: float, lease_seconds: float) -> Delivery | None:
        """Take the delivery that has been due for longest, so that nobody else has it while the lease lasts.

        The attempt is counted at once: a delivery that kills its process is not tried for ever.

        Args:
            channels: Names of the channels the caller can deliver through.
            time: Now.
            lease_seconds: For how long it is the caller's.

        Returns:
            The delivery, or None if none is due.
        """
        ...

    def settle(self, delivery_id: str, state: DeliveryState, *, time: float, due: float = 0.0, error: str = "") -> None:
        """End a claim.

        Args:
            delivery_id: The delivery.
            state: What became of it; ``pending`` to try again.
            time: Now.
            due: When to try again.
            error: Why it was not sent.
        """
        ...

    def next_due(self, channels: Sequence[str]) -> float | None:
        """Return when the next delivery through these channels can be claimed, or None if there is none."""
        ...

    def close(self) -> None:
        """Give back what the store holds open."""
        ...
