"""The operations that are open in this process: started, refined, ended, and published as they change."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, cast

from ml_pipeline import _platform, _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._events import Bus, ErrorInfo, Kind, OperationEvent, OperationState
from ml_pipeline.config._ids import new_id
from ml_pipeline.config._operation import OperationRecord, error_info, numbers
from ml_pipeline.config._operation_journal import OperationJournal
from ml_pipeline.config._routes import OPERATIONS
from ml_pipeline.errors import OperationStateError, closest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OpenOperations"]

_SHOWN_OPEN: Final = 5


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
        known, name = self._kind(kind, name)
        run_id = _context.run_id.get() or _runtime.settings().run_id or new_id()
        record = OperationRecord(
            new_id(), known, name, attributes, run_id=run_id, user_id=user_id or _context.user_id.get()
        )
        record.parent = self._open.get(record.parent_id or "")
        self._open[record.operation_id] = record
        with _runtime.guard("operation_journal"):
            self._journal.get().started(record.journal_entry())
        try:
            self._bus.publish(record.event("start"))
        except OperationStateError as refused:
            with contextlib.suppress(OperationStateError):
                self.end(record, "cancel", error_info(refused, record.operation_id))
            raise
        return record

    def report_progress(self, record: OperationRecord, counts: Mapping[str, Any], metrics: Mapping[str, Any]) -> None:
        """Publish how far an operation has come."""
        record.counts.update(numbers(counts))
        record.metrics.update(numbers(metrics))
        self._bus.publish(record.event("progress"))

    def end(self, record: OperationRecord, how: OperationState, error: ErrorInfo | None = None) -> None:
        """End an operation, once."""
        if not record.is_open:
            return
        record.is_open = False
        self._open.pop(record.operation_id, None)
        record.error = error or record.error
        for key in ("done", "total"):  # what progress was measured in; the end has counts of its own
            record.counts.pop(key, None)
        try:
            self._bus.publish(record.event("fail" if record.ended == "fail" else how))
        finally:
            with _runtime.guard("operation_journal"):
                self._journal.get().ended(record.operation_id)

    def start(self, kind: Kind, user_id: str | None, facts: Mapping[str, Any]) -> str:
        """Start an operation that a later call will end, and enter its context; inside a managed one, refine that."""
        given = {key: value for key, value in facts.items() if value not in (None, "")}
        around = self._around(kind)
        if around is not None and around.managed:
            around.attributes.update(given)
            around.user_id = user_id or around.user_id
            return around.operation_id
        record = self.open(kind, None, given, user_id=user_id)
        _context.restore(record.context())
        return record.operation_id

    def once(self, kind: Kind, user_id: str | None, counts: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
        """Record an operation that is over when it is told."""
        operation_id = self.start(kind, user_id, facts)
        self.complete(kind, operation_id, counts, {}, {})
        return operation_id

    def progress(
        self, kind: Kind, operation_id: str | None, counts: Mapping[str, Any], metrics: Mapping[str, Any] | None = None
    ) -> None:
        """Publish how far an operation has come."""
        record = self._found(kind, operation_id)
        if record is None:
            self._unmatched("progress", kind, operation_id, {**counts, **(metrics or {})})
        else:
            self.report_progress(record, {k: v for k, v in counts.items() if v is not None}, metrics or {})

    def complete(
        self,
        kind: Kind,
        operation_id: str | None,
        counts: Mapping[str, Any],
        metrics: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> None:
        """Complete an operation; one that is not open, or was completed before, is recorded as unmatched."""
        record = self._found(kind, operation_id)
        if record is None or record.ended == "complete":
            self._unmatched("completion", kind, operation_id, {**facts, **counts, **metrics})
            return
        record.counts.update(numbers({key: value for key, value in counts.items() if value is not None}))
        record.metrics.update(numbers(metrics))
        record.attributes.update({key: value for key, value in facts.items() if value not in (None, "")})
        self._finish(record, "complete")

    def fail(self, kind: Kind, operation_id: str | None, error: BaseException | str, facts: Mapping[str, Any]) -> None:
        record = self._found(kind, operation_id)
        if record is None:
            self._unmatched("failure", kind, operation_id, {**facts, "error": error})
            return
        record.attributes.update(facts)
        record.error = error_info(error, record.operation_id)
        self._finish(record, "fail")

    def _finish(self, record: OperationRecord, how: OperationState) -> None:
        if record.managed:
            record.ended = how  # the block it refines is not over: its end is published there, with its whole duration
            return
        if _context.operation_id.get() == record.operation_id:
            outermost = record
            while outermost.parent is not None and not outermost.parent.is_open:
                outermost = outermost.parent
            _context.restore(outermost.previous)
        self.end(record, how)

    def _around(self, kind: Kind) -> OperationRecord | None:
        record = self.current()
        return record if record is not None and record.kind == kind else None

    def _found(self, kind: Kind, operation_id: str | None) -> OperationRecord | None:
        return self._around(kind) if operation_id is None else self._open.get(operation_id)

    def _kind(self, kind: str, name: str | None) -> tuple[Kind, str]:
        route = OPERATIONS.get(kind)
        if route is not None:
            return cast("Kind", kind), name or route.name
        with _runtime.guard("operation_logger"):
            raise OperationStateError("an operation's kind must be in the table", kind, closest(kind, OPERATIONS))
        return "custom", name or kind

    def _unmatched(self, what: str, kind: Kind, operation_id: str | None, facts: Mapping[str, Any]) -> None:
        from ml_pipeline.config.logging_config import get_logger, log_operation

        names = [f"{key} ({name})" for key, name in list(self.names().items())[:_SHOWN_OPEN]]
        now_open = ", ".join(names) or "none"
        get_logger("ml_pipeline", "operation_logger").warning(
            f"Unmatched {what} of {kind} {operation_id}",
            extra=log_operation(OPERATIONS[kind].name, unmatched=what, given_operation_id=operation_id, **facts),
        )
        with _runtime.guard("operation_logger"):
            raise OperationStateError(
                f"a {what} must name an operation that is open", operation_id, f"open now: {now_open}"
            )

    def _hook(self) -> None:
        if not self._hooked:
            self._hooked = True
            _runtime.on_exit(self._abandon_open)
            _platform.after_fork_in_child(self._open.clear)  # the parent's operations are the parent's to end
            self._report_left_behind()

    def _abandon_open(self) -> None:
        for record in sorted(self._open.values(), key=lambda record: record.operation_id, reverse=True):
            self.end(record, "abandon")

    def _report_left_behind(self) -> None:
        with _runtime.guard("operation_journal"):
            journal = self._journal.get()
            for left in journal.left_behind():
                self._bus.publish(
                    OperationEvent(
                        type="abandon",
                        kind=self._kind(str(left["kind"]), None)[0],
                        name=str(left["name"]),
                        pipeline=str(left["pipeline"]),
                        run_id=left.get("run_id"),
                        operation_id=left["operation_id"],
                        parent_id=left.get("parent_id"),
                        user_id=left.get("user_id"),
                        attributes={**(left.get("attributes") or {}), "earlier_process": True},
                    )
                )
                journal.ended(left["operation_id"])
