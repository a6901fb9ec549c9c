"""The operations that are open in this process: started, refined, ended, and published as they change."""

from __future__ import annotations

import logging
import sys
from collections import OrderedDict
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final, cast

from ml_pipeline import _platform, _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._events import EMPTY, Bus, ErrorInfo, Kind, OperationEvent, OperationState
from ml_pipeline.config._failures import error_info
from ml_pipeline.config._ids import new_id
from ml_pipeline.config._log_format import EXTRA_KEY, beside, is_empty, plain_text, without_empty
from ml_pipeline.config._operation import OperationRecord, complain
from ml_pipeline.config._operation_journal import OperationJournal
from ml_pipeline.config._routes import OPERATIONS
from ml_pipeline.errors import OperationStateError, closest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_pipeline.settings import Settings

__all__ = ["OpenOperations"]

_SHOWN_OPEN: Final = 5
_MOST_ENDED_ELSEWHERE: Final = 1_000


class OpenOperations:
    """Keeps the open operations, their journal on disk, and the context of the caller in step.

    Thread-safe. An operation is either managed, which means that a ``with`` or a decorator ends it, or it is ended by a
    call that names it.

    Args:
        bus: Where the events go.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._open: dict[str, OperationRecord] = {}
        self._ended_elsewhere: OrderedDict[str, OperationRecord] = OrderedDict()
        self._hooked = False
        self._journal: _runtime.Lazy[OperationJournal] = _runtime.Lazy(
            lambda settings: OperationJournal(
                settings.data_dir / "operations", [record.journal_entry() for record in list(self._open.values())]
            ),
            OperationJournal.close,
        )

    def names(self) -> dict[str, str]:
        """Return the names of the open operations by id."""
        return {key: record.name for key, record in list(self._open.items())}

    def current(self) -> OperationRecord | None:
        """Return the operation around the caller, if it is open in this process."""
        return self._open.get(_context.operation_id.get() or "")

    def open(
        self, kind: str, name: str | None, attributes: Mapping[str, Any], *, user_id: str | None = None
    ) -> OperationRecord:
        """Start an operation without entering its context; `OperationScope` and the ``log_*`` calls stand on this.

        Args:
            kind: What sort of work; an unknown kind is recorded as ``custom``.
            name: What it is called.
            attributes: Facts known beforehand.
            user_id: Who does it.

        Returns:
            The open operation.

        Raises:
            OperationStateError: If an audit trail is required and cannot be written.
        """
        self._hook()
        self._leave_ended()
        known, name = self._kind(kind, name)
        run_id = _context.run_id.get() or _runtime.settings().run_id or new_id()
        user_id = _context.user_id.get() if is_empty(user_id) else plain_text(user_id)
        record = OperationRecord(new_id(), known, name, attributes, run_id=run_id, user_id=user_id)
        record.parent = self.current()
        self._open[record.operation_id] = record
        with _runtime.guard("operation_journal"):
            self._journal.get().started(record.journal_entry())
        self._announce(record)
        return record

    def _announce(self, record: OperationRecord) -> None:
        begun = False
        try:
            self._bus.publish(record.event("start"))
            begun = True
        finally:
            if not begun:  # an audit trail that is required, or Ctrl-C: the work will not begin
                _runtime.attempt(self.end, record, "cancel", error_info(sys.exception(), record.operation_id))

    def refine(
        self,
        record: OperationRecord | None,
        kind: str,
        facts: Mapping[str, Any] = EMPTY,
        counts: object = None,
        metrics: object = None,
    ) -> None:
        """Add facts, counts and scores to an operation; where it is not open, they are recorded as unmatched."""
        if record is None or not record.is_open:
            self._unmatched("refinement", kind, record and record.operation_id, facts, counts=counts, metrics=metrics)
        else:
            complain(record.refine(facts, counts, metrics))

    def leave(self, record: OperationRecord) -> None:
        """Bring back the context around an operation that ends.

        While an operation inside it is still open, its context stays: that one brings back the context around both when
        it ends. So it does not matter in which order operations end that a generator or a ``log_*`` call left open.
        """
        inner = self.current()
        if inner is not None and inner.is_inside(record):
            return
        if not record.undo() and _context.operation_id.get() == record.operation_id:
            _context.restore(record.previous)
        around = record.parent
        while around is not None and not around.is_open and around.undo():
            around = around.parent

    def _leave_ended(self) -> None:
        """Leave an operation that was started here and ended by another thread or task, which could not do it."""
        while True:
            ended = self._ended_elsewhere.get(_context.operation_id.get() or "")
            if ended is None or not ended.undo():
                return
            self._ended_elsewhere.pop(ended.operation_id, None)

    def report_progress(
        self, record: OperationRecord | None, kind: str, counts: Mapping[str, Any], metrics: object = None
    ) -> None:
        """Publish how far an operation has come; where it is not open, that is recorded as unmatched."""
        if record is None or not record.is_open:
            self._unmatched("progress", kind, record and record.operation_id, EMPTY, counts=counts, metrics=metrics)
            return
        refused = record.refine(EMPTY, counts, metrics)
        self._bus.publish(record.event("progress"))
        complain(refused)

    def end(self, record: OperationRecord, how: OperationState, error: ErrorInfo | None = None) -> None:
        """End an operation, once."""
        if self._open.pop(record.operation_id, None) is None:  # ended already, or the parent's of this forked process
            return
        record.is_open = False
        if record.tokens:
            self._ended_elsewhere[record.operation_id] = record
            if len(self._ended_elsewhere) > _MOST_ENDED_ELSEWHERE:
                self._ended_elsewhere.popitem(last=False)
        if error is not None and not (how == "cancel" and record.error):
            record.hear(error)
        for key in ("done", "total", "epoch"):  # what progress was measured in; the end has counts of its own
            record.counts.pop(key, None)
        try:
            self._bus.publish(record.event("fail" if record.ended == "fail" else how))
        finally:
            with _runtime.guard("operation_journal"):
                self._journal.get().ended(record.operation_id)

    def start(self, kind: Kind, user_id: str | None, facts: Mapping[str, Any]) -> str:
        """Start an operation that a later call will end, and enter its context; inside a managed one, refine that."""
        around, given = self.current(), without_empty(facts)
        if around is not None and around.kind == kind and not _contradicts(around, given):
            if around.managed and around.ended is None:
                around.refine(given)
                around.user_id = around.user_id if is_empty(user_id) else plain_text(user_id)
                return around.operation_id
            if not around.managed and around.started_with == given:
                # The same start again, as when a notebook's cell failed and is run anew: nobody will end the first.
                self.leave(around)
                self.end(around, "abandon")
        record = self.open(kind, None, given, user_id=user_id)
        record.enter()
        return record.operation_id

    def once(self, kind: Kind, user_id: str | None, counts: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
        """Record an operation that is over when it is told."""
        operation_id = self.start(kind, user_id, facts)
        self.complete(kind, operation_id, counts, {}, {})
        return operation_id

    def progress(self, kind: Kind, operation_id: str | None, counts: Mapping[str, Any], metrics: object = None) -> None:
        """Publish how far an operation has come."""
        record = self._found(kind, operation_id)
        if record is None:
            self._unmatched("progress", kind, operation_id, EMPTY, counts=counts, metrics=metrics)
        else:
            self.report_progress(record, kind, counts, metrics)

    def complete(
        self,
        kind: Kind,
        operation_id: str | None,
        counts: Mapping[str, Any],
        metrics: object,
        facts: Mapping[str, Any],
    ) -> None:
        """Complete an operation; one that is not open, or was ended before, is recorded as unmatched."""
        record = self._found(kind, operation_id)
        if record is None or record.ended is not None:
            self._unmatched("completion", kind, operation_id, facts, counts=counts, metrics=metrics)
            return
        refused = record.refine(facts, counts, metrics)
        self._finish(record, "complete")
        complain(refused)

    def fail(self, kind: Kind, operation_id: str | None, error: object, facts: Mapping[str, Any]) -> None:
        """Fail an operation; one that is not open is recorded as unmatched."""
        record = self._found(kind, operation_id)
        if record is None:
            self._unmatched("failure", kind, operation_id, facts, error=error)
            return
        record.refine(facts)
        record.fail_with(error)
        self._finish(record, "fail")

    def _finish(self, record: OperationRecord, how: OperationState) -> None:
        if record.managed:
            record.ended = how  # the block it refines is not over: its end is published there, with its whole duration
        else:
            self.leave(record)
            self.end(record, how)

    def _found(self, kind: Kind, operation_id: object) -> OperationRecord | None:
        """The open operation of that kind and id; without an id, the innermost of that kind around the caller."""
        if operation_id is not None:
            named = self._open.get(operation_id) if isinstance(operation_id, str) else None
            return named if named is not None and named.kind == kind else None
        around = self.current()
        while around is not None and not (around.kind == kind and around.is_open):
            around = around.parent
        return around

    def _kind(self, kind: str, name: str | None) -> tuple[Kind, str]:
        kind, name = plain_text(kind), plain_text(name)
        route = OPERATIONS.get(kind)
        if route is not None:
            return cast("Kind", kind), name or route.name
        with _runtime.guard("operation_logger"):
            raise OperationStateError("an operation's kind must be in the table", kind, closest(kind, OPERATIONS))
        return "custom", name or kind

    def _unmatched(
        self,
        what: str,
        kind: str,
        operation_id: object,
        facts: Mapping[str, Any],
        *,
        counts: object = None,
        metrics: object = None,
        error: object = None,
    ) -> None:
        from ml_pipeline.config.logging_config import get_logger

        names = [f"{key} ({name})" for key, name in list(self.names().items())[:_SHOWN_OPEN]]
        now_open = ", ".join(names) or "none"
        told = {"unmatched": what, "given_operation_id": operation_id, "counts": counts, "metrics": metrics}
        info = None if error is None else asdict(error_info(error))
        logger = get_logger("ml_pipeline", "operation_logger")
        logger.log(
            logging.WARNING if error is None else logging.ERROR,
            f"Unmatched {what} of {kind} {plain_text(operation_id) or 'without an id'}",
            extra={
                EXTRA_KEY: {
                    "operation": OPERATIONS[kind].name if kind in OPERATIONS else kind,
                    "user_id": None,
                    "exception": info,
                    "context": beside(told, facts),
                }
            },
        )
        with _runtime.guard("operation_logger"):
            raise OperationStateError(
                f"a {what} must name an operation that is open", operation_id, f"open now: {now_open}"
            )

    def _hook(self) -> None:
        if not self._hooked:
            self._hooked = True
            _runtime.on_exit(self._abandon_open)
            _runtime.on_configure(self._carry_over)
            _platform.after_fork_in_child(self._forget_parent)
            self._report_left_behind()

    def _carry_over(self, _before: Settings, _after: Settings) -> None:
        """Write what is open into the journal of the new settings at once: the process may be killed before it ends."""
        if self._open:
            with _runtime.guard("operation_journal"):
                self._journal.get()

    def _forget_parent(self) -> None:
        """In a forked child: the parent's operations are the parent's to end."""
        for record in self._open.values():
            record.is_open = False
        self._open.clear()

    def _abandon_open(self) -> None:
        for record in sorted(self._open.values(), key=lambda record: record.operation_id, reverse=True):
            self.leave(record)
            self.end(record, "abandon")

    def _report_left_behind(self) -> None:
        with _runtime.guard("operation_journal"):
            journal = self._journal.get()
            # The innermost first: it is what one alert for all of them tells of, as it is where operations fail.
            for left in reversed(journal.left_behind()):
                self._bus.publish(_abandoned(left))
                journal.ended(left["operation_id"])


def _contradicts(record: OperationRecord, facts: Mapping[str, Any]) -> bool:
    """Whether *facts* name another model, data set or source than the operation does: then they are not about it."""
    return any(
        key.endswith(("_name", "_version")) and record.attributes[key] != value
        for key, value in facts.items()
        if key in record.attributes
    )


def _abandoned(left: Mapping[str, Any]) -> OperationEvent:
    kind = str(left.get("kind"))
    return OperationEvent(
        type="abandon",
        kind=cast("Kind", kind) if kind in OPERATIONS else "custom",
        name=str(left.get("name")),
        pipeline=str(left.get("pipeline")),
        run_id=left.get("run_id"),
        operation_id=left["operation_id"],
        parent_id=left.get("parent_id"),
        user_id=left.get("user_id"),
        attributes={**(left.get("attributes") or {}), "earlier_process": True},
    )
