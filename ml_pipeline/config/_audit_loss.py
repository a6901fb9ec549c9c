"""What is told of audit records that cannot be written: they are an operation that fails, until one can be again.

So each sink does with it what it does with any failure: a line in ``errors.log``, a metric, an alert that resolves.
"""

from __future__ import annotations

import time
from typing import Final

from ml_pipeline.config import _events

__all__ = ["AuditLoss"]

_OPERATION: Final = "audit_trail"
_EVERY_SECONDS: Final = 60.0
"""Between two that are told of: each record that is lost is counted, and one is enough for an alert."""


class AuditLoss:
    """Publishes that the audit trail fails, and that it goes well again. Thread-safe: who is late tells once more."""

    def __init__(self) -> None:
        self._told_at: float | None = None

    def failed(self, error: Exception) -> None:
        """A record was lost."""
        now = time.monotonic()
        if self._told_at is None or now >= self._told_at + _EVERY_SECONDS:
            self._told_at = now  # first: what is published may be audited, and fail likewise
            self._publish("fail", _events.ErrorInfo(type(error).__name__, str(error)))

    def went_well(self) -> None:
        """A record was written."""
        if self._told_at is not None:
            self._told_at = None
            self._publish("complete", None)

    @staticmethod
    def _publish(what: _events.OperationState, error: _events.ErrorInfo | None) -> None:
        _events.publish(
            _events.OperationEvent(
                type=what, kind="custom", name=_OPERATION, run_id=None, operation_id=None, error=error
            )
        )
