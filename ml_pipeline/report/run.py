"""A summary as the page reads it: typed, sorted, and with the operations as a tree."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.report.values import (
    integer,
    mapping,
    mappings,
    moment,
    number,
    quantity,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["Operation", "Run"]

_FACTS_SHOWN: Final = 4
_SHORTEST_SECONDS: Final = 1e-3


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the run.

    Attributes:
        operation_id: Its id.
        parent_id: That of the operation around it; None for the outermost.
        name: What it is called.
        status: ``ok``, ``failed``, ``cancelled``, ``abandoned`` or ``open``.
        start: Seconds since the start of the run; never negative.
        seconds: How long it took; None where its end was not seen.
        facts: Its counts and scores, in a few words.
        error: Why it failed.
    """

    operation_id: str
    parent_id: str | None
    name: str
    status: str
    start: float
    seconds: float | None
    facts: str
    error: str


class Run:
    """What is known of a run.

    Args:
        summary: From `RunRecorder.summary`, or read from ``summary.json``.
    """

    def __init__(self, summary: Mapping[str, Any]) -> None:
        self.summary = summary
        self.run_id = text(summary.get("run_id"))
        self.pipeline = text(summary.get("pipeline"))
        self.status = text(summary.get("status")) or "unknown"
        self.alerts = mappings(summary.get("alerts"))
        self.held_back = integer(summary.get("alerts_held_back"))
        self.left_out = integer(summary.get("operations_left_out"))
        given = mappings(summary.get("operations"))
        starts = [begin for op in given if (begin := moment(op.get("started"))) is not None]
        self.started = min(starts, default=moment(summary.get("started")))
        self.operations = sorted((_operation(op, self.started) for op in given), key=lambda op: op.start)

    @cached_property
    def seconds(self) -> float:
        """How long the page's time axis is: to the end of the last operation, and never 0."""
        return max(*map(_end, self.operations), self.duration or 0.0, _SHORTEST_SECONDS)

    @property
    def duration(self) -> float | None:
        """How long the run took; None if its end was not seen."""
        return number(self.summary.get("duration_seconds"))

    @cached_property
    def children(self) -> Mapping[str | None, Sequence[Operation]]:
        """The operations by the one around them; those whose surroundings are not known lie under None."""
        known = {op.operation_id for op in self.operations}
        found: dict[str | None, list[Operation]] = {}
        for op in self.operations:
            found.setdefault(op.parent_id if op.parent_id in known else None, []).append(op)
        return found

    @cached_property
    def steps(self) -> Sequence[Operation]:
        """What the run did, one level below the outermost operation where there is one."""
        outermost = self.children.get(None, [])
        return self.children.get(outermost[0].operation_id, []) if len(outermost) == 1 else outermost

    @cached_property
    def stopped(self) -> Sequence[Operation]:
        """Where things went wrong: failed or cancelled operations that hold no other such, the run's cause first."""
        wrong = [op for op in self.operations if op.status in ("failed", "cancelled")]
        around = {op.parent_id for op in wrong}
        inner = [op for op in wrong if op.operation_id not in around] or wrong
        # What ended the run was the last to raise what the run raised; what came before it was caught.
        causes = [op for op in inner if op.status == self.status and op.error == self.error]
        cause = max(causes or [op for op in inner if op.status == self.status], key=_end, default=None)
        return inner if cause is None else [cause, *(op for op in inner if op is not cause)]

    @cached_property
    def error(self) -> str:
        """Why the run failed."""
        outermost = (op.error for op in self.children.get(None, []) if op.status == "failed" and op.error)
        return next(outermost, "") or text(self.summary.get("error"))

    @property
    def version(self) -> str:
        """The version of its model."""
        return text(self.summary.get("model_version"))

    @property
    def telemetry_errors(self) -> int:
        """How often observing itself failed, while the run went on."""
        return sum(integer(given.get("count")) for given in mappings(self.summary.get("telemetry_errors")))

    @cached_property
    def scores(self) -> Mapping[str, float]:
        """The model's scores."""
        given = mapping(self.summary.get("scores")).items()
        return {text(name): score for name, value in given if (score := number(value)) is not None}


def _end(op: Operation) -> float:
    return op.start + (op.seconds or 0.0)


def _operation(given: Mapping[str, Any], run_started: float | None) -> Operation:
    started = moment(given.get("started"))
    seconds = number(given.get("duration_seconds"))
    return Operation(
        operation_id=text(given.get("operation_id")),
        parent_id=text(given.get("parent_id")) or None,
        name=text(given.get("name")) or "(unnamed)",
        status=text(given.get("status")) or "open",
        start=0.0 if started is None or run_started is None else started - run_started,
        seconds=None if seconds is None else max(seconds, 0.0),
        facts=_facts(given),
        error=text(given.get("error")),
    )


def _facts(given: Mapping[str, Any]) -> str:
    counts = [_counted(text(name), value) for name, value in mapping(given.get("counts")).items()]
    scores = [
        f"{text(name)} {value:.4g}"
        for name, score in mapping(given.get("metrics")).items()
        if (value := number(score)) is not None
    ]
    facts = [fact for fact in (*counts, *scores) if fact]
    more = len(facts) - _FACTS_SHOWN
    return ", ".join(facts[:_FACTS_SHOWN]) + (f" and {more:,} more" if more > 0 else "")


def _counted(name: str, value: object) -> str:
    count = number(value)
    return "" if count is None else f"{quantity(count)} {name}"
