"""Plain integers that hot paths count with, and a metrics collector reads."""

from __future__ import annotations

from collections import Counter, defaultdict

__all__ = ["Tally"]

_MOST_KINDS = 1_000
_OTHER = ("other", "other")


class Tally:
    """What the package counts of its own work.

    An increment of a Prometheus counter costs a tenth of a log record; a dictionary of integers costs next to nothing.
    The interpreter's lock makes each update whole enough: two threads racing for one key may lose an increment of a
    statistic, never a record.
    """

    __slots__ = ("audit_records", "log_records", "log_records_dropped", "telemetry_errors")

    def __init__(self) -> None:
        self.log_records: defaultdict[tuple[str, str], int] = defaultdict(int)  # its update costs half a Counter's
        """Records written, by (channel, level)."""
        self.log_records_dropped: Counter[str] = Counter()
        """Records that could not be written, by reason."""
        self.telemetry_errors: Counter[tuple[str, str]] = Counter()
        """Failures of this package itself, by (sink, exception type)."""
        self.audit_records = 0
        """Audit records on disk."""

    def count_error(self, sink: str, kind: str) -> None:
        """Count a failure; past the bound of different ones, those that are new count as ``other``.

        Args:
            sink: Who failed.
            kind: The exception's type.
        """
        known = (sink, kind) in self.telemetry_errors or len(self.telemetry_errors) < _MOST_KINDS
        self.telemetry_errors[(sink, kind) if known else _OTHER] += 1

    def clear(self) -> None:
        """Start again from nothing; meant for tests."""
        for counts in (self.log_records, self.log_records_dropped, self.telemetry_errors):
            counts.clear()
        self.audit_records = 0
