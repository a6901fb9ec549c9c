"""Plain integers that hot paths count with, and a metrics collector reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, MutableMapping

__all__ = ["Cells", "Tally"]

_MOST_KINDS = 1_000
_OTHER = ("other", "other")


class Cells(MutableMapping[tuple[str, str], int]):
    """Counts by key, of which a hot path keeps the cell: to add to that costs a third of looking it up."""

    __slots__ = ("_cells", "_shared")

    def __init__(self) -> None:
        self._cells: dict[tuple[str, str], list[list[int]]] = {}
        self._shared: dict[tuple[tuple[str, str], ...], list[int]] = {}

    def cell(self, *keys: tuple[str, str]) -> list[int]:
        """Return the one place that counts for all of these keys at once, until the next `clear`."""
        made = [0]
        cell = self._shared.setdefault(keys, made)
        if cell is made:
            for key in keys:
                self._cells.setdefault(key, []).append(cell)
        return cell

    def __getitem__(self, key: tuple[str, str]) -> int:
        self.cell(key)
        return sum(count for (count,) in self._cells.get(key, ()))

    def __setitem__(self, key: tuple[str, str], count: int) -> None:
        self.cell(key)[0] += count - self[key]

    def __delitem__(self, key: tuple[str, str]) -> None:
        del self._cells[key]
        for keys in [keys for keys in self._shared if key in keys]:
            del self._shared[keys]

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(list(self._cells))  # other threads may add one meanwhile

    def __len__(self) -> int:
        return len(self._cells)


class Tally:
    """What the package counts of its own work.

    An increment of a Prometheus counter costs a tenth of a log record; a dictionary of integers costs next to nothing.
    The interpreter's lock makes each update whole enough: two threads racing for one key may lose an increment of a
    statistic, never a record.
    """

    __slots__ = ("audit_records", "log_records", "log_records_dropped", "telemetry_errors")

    def __init__(self) -> None:
        self.log_records = Cells()
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
