"""The event bus: everything that happens is one event, and each sink takes from it what is its own.

The code that does the work publishes; metrics, log, lineage and alerts subscribe. No sink calls another. What an event
of each kind writes where is declared in `ml_pipeline.config._routes`.

Events are frozen and hold plain values. Times are seconds since the Unix epoch; they become RFC 3339 UTC at the border.
"""

from __future__ import annotations

import importlib
import threading
import time as _time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import itemgetter
from types import MappingProxyType
from typing import Any, Final, Literal, TypeAlias

from ml_pipeline import _platform, _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._ids import new_id

__all__ = [
    "DEFAULT_BUS",
    "EMPTY",
    "AlertEvent",
    "AuditEvent",
    "Bus",
    "DriftEvent",
    "ErrorInfo",
    "Event",
    "LineageEdge",
    "LineageEvent",
    "LineageNode",
    "OperationEvent",
    "ResourceSample",
    "publish",
    "subscribe",
]

Kind = Literal[
    "ingestion",
    "validation",
    "feature_extraction",
    "training",
    "evaluation",
    "deployment",
    "prediction",
    "drift_check",
    "data_access",
    "custom",
]
OperationState = Literal["start", "progress", "complete", "fail", "cancel", "abandon"]
Severity = Literal["info", "warning", "critical"]
AlertState = Literal["raised", "suppressed", "refined", "acknowledged", "escalated", "resolved"]
Verdict = Literal["drift", "no_drift", "insufficient_data"]

EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


def _empty() -> Mapping[str, Any]:
    return EMPTY


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception as plain text.

    Attributes:
        type: Name of its class, such as ``TimeoutError``; empty where only a text was given.
        message: Its message.
        stacktrace: The formatted traceback; empty where there is none.
    """

    type: str
    message: str
    stacktrace: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Event:
    event_id: str = field(default_factory=new_id)
    time: float = field(default_factory=_time.time)
    pipeline: str = field(default_factory=lambda: _runtime.settings().name)
    run_id: str | None = field(default_factory=_context.run_id.get)
    operation_id: str | None = field(default_factory=_context.operation_id.get)
    user_id: str | None = field(default_factory=_context.user_id.get)


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationEvent(_Event):
    """Something happened to an operation.

    Attributes:
        type: What happened; `start`, then any number of `progress`, then exactly one of the others.
        kind: What sort of work it is.
        name: What the work is called, such as ``data_ingestion``.
        parent_id: The operation around it.
        attributes: Facts known from the start, such as ``source_name``.
        counts: How many of what, such as ``{"records": 569}``.
        metrics: Measured scores, such as ``{"roc_auc": 0.92}``.
        duration_seconds: Wall time since the start; None at the start.
        error: Why it failed.
    """

    type: OperationState
    kind: Kind
    name: str
    parent_id: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=_empty)
    counts: Mapping[str, float] = field(default_factory=_empty)
    metrics: Mapping[str, float] = field(default_factory=_empty)
    duration_seconds: float | None = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertEvent(_Event):
    """An alert was raised, held back, refined, acknowledged, escalated or resolved.

    Attributes:
        alert_id: The alert it is about; repeats and refinements of one alert share it.
        state: What happened to it.
        kind: ``processing_failure``, ``resource_threshold``, ``data_quality``, ``model_performance``, ``data_drift``.
        severity: How bad it is.
        message: One sentence for a person.
        operation: The operation it concerns, by name.
        model: The model it concerns.
        feature: The feature it concerns.
        error_type: Class of the exception behind it.
        details: Whatever else was given.
        reason: Why it was held back: ``cooldown``, ``silence`` or ``inhibition``.
        count: How many times that happened; more than 1 for repeats that were counted together.
    """

    alert_id: str
    state: AlertState
    kind: str
    severity: Severity
    message: str
    operation: str = ""
    model: str = ""
    feature: str = ""
    error_type: str = ""
    details: Mapping[str, Any] = field(default_factory=_empty)
    reason: str = ""
    count: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceSample(_Event):
    """What the process and the machine used at one moment.

    Attributes:
        name: What was running, as given to `monitor_resources`; ``process`` for the background monitor.
        cpu_ratio: Processor time over wall time since the sample before; 1.0 is one core.
        memory_bytes: Resident memory of the process.
        memory_available_bytes: Memory the machine could still give.
        disk_free_bytes: Free bytes by path.
        read_bytes: Read from storage by the process so far.
        written_bytes: Written to storage by the process so far.
    """

    name: str
    cpu_ratio: float
    memory_bytes: int
    memory_available_bytes: int
    disk_free_bytes: Mapping[str, int] = field(default_factory=_empty)
    read_bytes: int = 0
    written_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftEvent(_Event):
    """A batch was compared with its reference.

    Attributes:
        model: The model whose input or output it is.
        batch: Which batch.
        verdict: The three-valued answer.
        rows: How many rows the batch had.
        effects: Effect by feature: the largest gap between the cumulative distributions, 0 to 1.
        drifted: The features that drifted.
        reason: One sentence for a person.
        alarm: Whether this and the batches before it are reason for an alert; one batch in twenty drifts by chance.
    """

    model: str
    batch: str
    verdict: Verdict
    rows: int
    effects: Mapping[str, float] = field(default_factory=_empty)
    drifted: tuple[str, ...] = ()
    reason: str = ""
    alarm: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageNode:
    """Something that exists: a source, a data set, features, a model, a deployment, a batch of predictions.

    Attributes:
        node_id: Derived from type, name and version; see `content_id`.
        type: What sort of thing.
        name: What people call it.
        version: Which one of that name; empty where there is only one.
        attributes: Whatever else is known.
    """

    node_id: str
    type: str
    name: str
    version: str = ""
    attributes: Mapping[str, Any] = field(default_factory=_empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageEdge:
    """One thing was made from another, by one operation.

    Attributes:
        source_id: The node it was made from.
        target_id: The node that was made.
        kind: How: ``ingestion``, ``validation``, ``transformation``, ``training``, ``deployment``, ``inference``.
        status: ``complete``, or ``failed`` where the operation tried and did not.
        attributes: Counts, parameters, scores.
    """

    source_id: str
    target_id: str
    kind: str
    status: Literal["complete", "failed"] = "complete"
    attributes: Mapping[str, Any] = field(default_factory=_empty)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineageEvent(_Event):
    """Nodes and edges were recorded.

    Attributes:
        kind: The kind of the edges.
        nodes: Every node named.
        edges: Every edge named.
        new_nodes: How many of the nodes the store had not seen, by type.
        new_edges: How many of the edges the store had not seen.
        automatic: True where an operation recorded it by itself; false where a ``track_*`` call did.
    """

    kind: str
    nodes: tuple[LineageNode, ...]
    edges: tuple[LineageEdge, ...]
    new_nodes: Mapping[str, int] = field(default_factory=_empty)
    new_edges: int = 0
    automatic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent(_Event):
    """Someone did something to something, and how it ended.

    Attributes:
        action: What was done, such as ``training`` or ``configuration_change``.
        object: To what, such as a data set or a model.
        version: Which version of it.
        result: ``success``, ``failure``, ``cancelled`` or ``abandoned``.
        details: Whatever else was given.
    """

    action: str
    object: str = ""
    version: str = ""
    result: str = "success"
    details: Mapping[str, Any] = field(default_factory=_empty)


Event: TypeAlias = OperationEvent | AlertEvent | ResourceSample | DriftEvent | LineageEvent | AuditEvent
Handler: TypeAlias = Callable[[Event], None]
Takes: TypeAlias = Callable[[type[Any]], bool]

_DEFAULT_SINKS: Final = (
    "ml_pipeline.config.prometheus_metrics",
    "ml_pipeline.config.logging_config",
    "ml_pipeline.config.data_lineage",
    "ml_pipeline.config.alerting",
    "ml_pipeline.config.monitoring_config",
)
"""Named, not imported: a sink is loaded at the first event, and each module has a ``subscribe_to(bus)``."""
_RETRY_SECONDS: Final = 1.0  # until a sink that could not be loaded is tried again, at an event


class Bus:
    """Hands each event to all who take it, on the publisher's thread: the sinks first, then in the order they came.

    Thread-safe, and a subscriber may itself publish or subscribe. One that fails is counted and said once, and the
    others still get the event.

    Args:
        sinks: Modules whose ``subscribe_to(bus)`` is called at the first event.
    """

    def __init__(self, sinks: tuple[str, ...] = ()) -> None:
        self._waiting = sinks
        self._retry_at = 0.0
        self._subscribers: tuple[tuple[bool, str, Handler, Takes], ...] = ()
        self.renew_lock()

    def subscribe(self, name: str, handler: Handler, takes: Takes = lambda _: True) -> Callable[[], None]:
        """Have *handler* called with the events from now on.

        Args:
            name: The sink's name in ``ml_pipeline_telemetry_errors_total{sink}``.
            handler: Called with each event; it must not keep the caller waiting.
            takes: Says of a type of event, whenever one comes, whether the handler has any use for it now.

        Returns:
            A function that ends the subscription; calling it again does nothing.
        """
        with self._lock:
            entry = (not self._loading, name, handler, takes)
            self._subscribers = tuple(sorted((*self._subscribers, entry), key=itemgetter(0)))

        def unsubscribe() -> None:
            with self._lock:
                self._subscribers = tuple(other for other in self._subscribers if other is not entry)

        return unsubscribe

    def publish(self, event: Event) -> None:
        """Give *event* to every subscriber that takes it.

        Args:
            event: What happened.

        Raises:
            Exception: What the first failing subscriber raised, after all of them got the event; only with
                ``ML_PIPELINE_STRICT=1``, or where the error is one that stops the job.
        """
        if self._waiting and _time.monotonic() >= self._retry_at:
            self._load_sinks()
        first: Exception | None = None
        for _, name, handler, takes in self._subscribers:
            _, failed = _runtime.attempt(_hand_over, name, handler, takes, event)
            if failed is not None and first is None:
                first = failed
        if first is not None:
            raise first

    def is_left_to(self, name: str, kind: type[Event]) -> bool:
        """Say whether the subscriber of this name, and no other, takes events of this type now."""
        takers, _ = _runtime.attempt(lambda: [each for _, each, _, takes in self._subscribers if takes(kind)])
        return takers == [name] and not self._waiting  # who will come with the first event is not known yet

    def renew_lock(self) -> None:
        """Take a new lock; a forked child's may be held by a thread that stayed with the parent."""
        self._lock = threading.RLock()
        self._loading = False

    def _load_sinks(self) -> None:
        with self._lock:
            if self._loading:  # a sink that is being loaded publishes an event
                return
            self._loading, later = True, list[str]()
            try:
                while self._waiting:
                    with _platform.importing:  # a child that is forked in the middle would subscribe it twice
                        later += self._load(self._waiting[0])
                        self._waiting = self._waiting[1:]  # once it is empty, other threads no longer wait at the lock
            finally:
                if later:
                    self._waiting, self._retry_at = (*self._waiting, *later), _time.monotonic() + _RETRY_SECONDS
                self._loading = False

    def _load(self, module: str) -> tuple[str, ...]:
        """Load a sink; its name, if it lacked what the machine may have again, such as files that can be open."""
        before, failed, is_done = self._subscribers, None, False
        try:
            _, failed = _runtime.attempt(lambda: importlib.import_module(module).subscribe_to(self))
            is_done = failed is None
        finally:
            if not is_done:  # also by Ctrl-C: the next event loads it again, from the beginning
                self._subscribers = before
        if failed is not None:
            with _runtime.guard(module.rpartition(".")[2]):
                raise failed
        return (module,) if isinstance(failed, OSError | MemoryError) else ()


def _hand_over(name: str, handler: Handler, takes: Takes, event: Event) -> None:
    with _runtime.guard(name):
        if takes(type(event)):
            handler(event)


DEFAULT_BUS: Final = Bus(_DEFAULT_SINKS)
_platform.after_fork_in_child(DEFAULT_BUS.renew_lock)
publish: Final = DEFAULT_BUS.publish
subscribe: Final = DEFAULT_BUS.subscribe
