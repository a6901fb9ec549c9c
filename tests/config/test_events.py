from __future__ import annotations

import dataclasses
import errno
import sys
import threading
import types
import typing
import uuid
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _context, _events, _metric_specs, _routes
from ml_pipeline.config._channels import CHANNELS
from ml_pipeline.config._events import (
    EMPTY,
    AlertEvent,
    AuditEvent,
    Bus,
    DriftEvent,
    Event,
    LineageEvent,
    OperationEvent,
    ResourceSample,
)
from ml_pipeline.errors import AlertError
from tests.processes import in_fork, python_answer

EVENTS: dict[type[Event], dict[str, Any]] = {
    OperationEvent: {"type": "start", "kind": "training", "name": "fit"},
    AlertEvent: {"alert_id": "a", "state": "raised", "kind": "data_drift", "severity": "info", "message": "m"},
    ResourceSample: {"name": "fit", "cpu_ratio": 0.5, "memory_bytes": 1, "memory_available_bytes": 2},
    DriftEvent: {"model": "m", "batch": "b", "verdict": "no_drift", "rows": 3},
    LineageEvent: {"kind": "training", "nodes": (), "edges": ()},
    AuditEvent: {"action": "training"},
}


def event(action: str = "test") -> AuditEvent:
    """Return some event."""
    return AuditEvent(action=action)


@pytest.fixture
def sink() -> Iterator[Callable[[str, Callable[[Bus], None]], str]]:
    """Make modules that can be named as sinks."""
    made: list[str] = []

    def make(name: str, subscribe_to: Callable[[Bus], None]) -> str:
        module = types.ModuleType(name)
        module.subscribe_to = subscribe_to  # type: ignore[attr-defined]
        sys.modules[name] = module
        made.append(name)
        return name

    yield make
    for name in made:
        del sys.modules[name]


# events


def test_every_event_is_here() -> None:
    """The six types of the design."""
    assert set(get_args(Event)) == set(EVENTS)


@pytest.mark.parametrize("kind", EVENTS)
def test_events_are_frozen_and_know_where_they_come_from(kind: type[Event]) -> None:
    """Each has an id of its own, and the pipeline, run, operation and user around it."""
    tokens = _context.restore({"run_id": "r", "operation_id": "o", "user_id": "u"})
    first, second = kind(**EVENTS[kind]), kind(**EVENTS[kind])
    _context.undo(tokens)
    assert (first.pipeline, first.run_id, first.operation_id, first.user_id) == ("test", "r", "o", "u")
    assert first.event_id < second.event_id
    assert uuid.UUID(first.event_id).version == 7
    assert first.time <= second.time
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.time = 0.0  # type: ignore[misc]
    with pytest.raises((AttributeError, TypeError)):
        first.other = 1  # type: ignore[union-attr]
    with pytest.raises(TypeError, match="positional argument"):
        typing.cast("Any", kind)("x")
    with pytest.raises(TypeError, match="does not support item assignment"):
        EMPTY["a"] = 1  # type: ignore[index]


# the table of routes


def test_every_kind_and_type_has_one_route() -> None:
    """What is declared is what there is."""
    assert list(_routes.OPERATIONS) == list(get_args(_events.Kind))
    assert set(_routes.OTHERS) == {kind.__name__ for kind in EVENTS} - {"OperationEvent"}
    assert all(route.kind == kind for kind, route in _routes.OPERATIONS.items())
    with pytest.raises(TypeError):
        _routes.OPERATIONS["more"] = _routes.Route("OperationEvent")  # type: ignore[index]


def test_routes_lead_to_channels_and_metrics_that_exist() -> None:
    """Every metric that is declared as moved is declared as a metric."""
    declared = set(_metric_specs.METRICS)
    for route in (*_routes.OPERATIONS.values(), *_routes.OTHERS.values()):
        assert route.channel in CHANNELS
        assert set(route.metrics) <= declared, set(route.metrics) - declared


# the bus


def test_subscribers_are_told_in_the_order_they_came() -> None:
    """Each of every event, on the publisher's thread."""
    bus, heard = Bus(), list[Any]()
    for name in "abc":
        bus.subscribe(name, lambda event, name=name: heard.append((name, event, threading.get_ident())))  # type: ignore[misc]
    published = event()
    bus.publish(published)
    assert heard == [(name, published, threading.get_ident()) for name in "abc"]


def test_unsubscribing_twice_ends_one_subscription() -> None:
    """The same handler may be subscribed again and again; each subscription is its own."""
    bus, heard = Bus(), list[Any]()
    end = bus.subscribe("same", heard.append)
    bus.subscribe("same", heard.append)
    end()
    end()
    bus.publish(event())
    assert len(heard) == 1


def test_a_subscriber_may_subscribe_and_unsubscribe_while_it_is_told() -> None:
    """From the next event on."""
    bus, heard = Bus(), list[Any]()

    def first(event: Event) -> None:
        end_first()
        bus.subscribe("late", lambda event: heard.append("late"))
        end_last()

    end_first = bus.subscribe("first", first)
    end_last = bus.subscribe("last", lambda event: heard.append("last"))
    bus.publish(event())
    assert heard == ["last"]
    bus.publish(event())
    assert heard == ["last", "late"]


def test_a_subscriber_may_publish() -> None:
    """An event about an event is told before the first is told to the others."""
    bus, heard = Bus(), list[Any]()

    def answer(event: Event) -> None:
        if isinstance(event, AuditEvent) and event.action == "question":
            bus.publish(AuditEvent(action="answer"))

    bus.subscribe("answering", answer)
    bus.subscribe("hearing", lambda event: heard.append(event.action))  # type: ignore[union-attr]
    bus.publish(event("question"))
    assert heard == ["answer", "question"]


def failing(error: Exception) -> Callable[[Event], None]:
    """Return a handler that fails."""

    def fail(event: Event) -> None:
        raise error

    return fail


def test_a_failing_subscriber_does_not_starve_the_others(capsys: pytest.CaptureFixture[str]) -> None:
    """It is counted under its name, and said once."""
    ml_pipeline.configure(strict=False)
    bus, heard = Bus(), list[Any]()
    bus.subscribe("broken", failing(OSError("disk full")))
    bus.subscribe("sound", heard.append)
    for _ in range(3):
        bus.publish(event())
    assert len(heard) == 3
    assert _runtime.tally.telemetry_errors == {("broken", "OSError"): 3}
    assert capsys.readouterr().err.count("broken: OSError: disk full") == 1


def test_what_is_raised_is_raised_after_all_were_told() -> None:
    """Under strict telemetry the first failure; without it, an error that is meant to stop the job."""
    bus, heard = Bus(), list[Any]()
    bus.subscribe("broken", failing(OSError("disk full")))
    bus.subscribe("broken too", failing(ValueError("this too")))
    bus.subscribe("sound", heard.append)
    with pytest.raises(OSError, match="disk full"):
        bus.publish(event())
    ml_pipeline.configure(strict=False)
    stop = AlertError("it must be audited")
    stop.stops_the_job = True
    bus.subscribe("required", failing(stop))
    bus.subscribe("last", heard.append)
    with pytest.raises(AlertError, match="must be audited"):
        bus.publish(event())
    assert len(heard) == 3


def test_a_subscriber_may_take_some_types_only() -> None:
    """Which, it is asked whenever an event comes, so that it may change its mind."""
    bus, heard, wanted = Bus(), list[Any](), set[Any]()
    bus.subscribe("choosing", heard.append, wanted.__contains__)
    audited, sampled = event(), ResourceSample(**EVENTS[ResourceSample])
    bus.publish(audited)
    wanted.add(AuditEvent)
    bus.publish(audited)
    bus.publish(sampled)
    assert heard == [audited]


def test_a_subscriber_that_cannot_say_what_it_takes_does_not_starve_the_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is counted as one that fails; and it may be one that takes everything."""
    ml_pipeline.configure(strict=False)
    bus, heard = Bus(), list[Any]()

    def cannot_say(kind: type[Event]) -> bool:
        raise ValueError(kind.__name__)

    bus.subscribe("sound", heard.append)
    assert bus.is_left_to("sound", AuditEvent)
    bus.subscribe("undecided", heard.append, cannot_say)
    bus.publish(event())
    assert len(heard) == 1
    assert _runtime.tally.telemetry_errors == {("undecided", "ValueError"): 1}
    assert capsys.readouterr().err.count("undecided: ValueError: AuditEvent") == 1
    assert not bus.is_left_to("sound", AuditEvent)


def test_an_event_is_left_to_the_only_one_who_takes_it() -> None:
    """Not while the sinks are still to be loaded, nor where two of a name take it."""
    bus, heard = Bus(), list[Any]()
    assert not bus.is_left_to("a", AuditEvent)
    bus.subscribe("a", heard.append)
    bus.subscribe("b", heard.append, frozenset({OperationEvent}).__contains__)
    assert bus.is_left_to("a", AuditEvent)
    assert not bus.is_left_to("a", OperationEvent)
    assert not bus.is_left_to("b", AuditEvent)
    end = bus.subscribe("a", heard.append)
    assert not bus.is_left_to("a", AuditEvent)
    end()
    assert bus.is_left_to("a", AuditEvent)
    waiting = Bus(("no.such_sink",))
    waiting.subscribe("a", heard.append)
    assert not waiting.is_left_to("a", AuditEvent)


# the default sinks


def test_sinks_are_loaded_at_the_first_event_and_come_first(sink: Callable[[str, Callable[[Bus], None]], str]) -> None:
    """However early others subscribed; and once."""
    heard: list[str] = []
    names = [
        sink(f"sink_{letter}", lambda bus, letter=letter: bus.subscribe(letter, lambda event: heard.append(letter)))  # type: ignore[misc]
        for letter in "ab"
    ]
    bus = Bus(tuple(names))
    bus.subscribe("early", lambda event: heard.append("early"))
    assert heard == []
    bus.publish(event())
    bus.publish(event())
    assert heard == ["a", "b", "early"] * 2


def test_the_first_events_of_racing_threads_reach_every_sink(
    sink: Callable[[str, Callable[[Bus], None]], str],
) -> None:
    """While one thread loads the sinks, the others wait instead of losing their event."""
    heard: dict[str, list[Event]] = {"early": [], "a": [], "b": []}
    is_loading, may_load = threading.Event(), threading.Event()

    def load_slowly(bus: Bus) -> None:
        is_loading.set()
        may_load.wait()
        bus.subscribe("a", heard["a"].append)

    bus = Bus((sink("slow_sink", load_slowly), sink("quick_sink", lambda bus: bus.subscribe("b", heard["b"].append))))  # type: ignore[arg-type]
    bus.subscribe("early", heard["early"].append)
    events = [event() for _ in range(8)]
    threads = [threading.Thread(target=bus.publish, args=(each,)) for each in events]
    for thread in threads:
        thread.start()
    is_loading.wait()
    may_load.set()
    for thread in threads:
        thread.join()
    for told in heard.values():
        assert sorted(each.event_id for each in told) == [each.event_id for each in events]


def test_a_sink_may_publish_while_it_is_loaded(sink: Callable[[str, Callable[[Bus], None]], str]) -> None:
    """Whoever is there by then hears of it."""
    heard: list[str] = []

    def load(bus: Bus) -> None:
        bus.publish(AuditEvent(action="loading"))

    bus = Bus((sink("publishing_sink", load),))
    bus.subscribe("early", lambda event: heard.append(event.action))  # type: ignore[union-attr]
    bus.publish(event("first"))
    assert heard == ["loading", "first"]


def test_a_sink_that_cannot_be_loaded_does_not_starve_the_others(
    sink: Callable[[str, Callable[[Bus], None]], str],
) -> None:
    """It is counted once, and not tried at every event."""
    ml_pipeline.configure(strict=False)
    heard: list[Event] = []
    bus = Bus(("no.such_sink", sink("sound_sink", lambda bus: bus.subscribe("sound", heard.append))))  # type: ignore[arg-type]
    bus.publish(event())
    bus.publish(event())
    assert len(heard) == 2
    assert _runtime.tally.telemetry_errors == {("such_sink", "ModuleNotFoundError"): 1}


def test_a_sink_that_lacked_what_there_may_be_again_is_loaded_later(
    sink: Callable[[str, Callable[[Bus], None]], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where no more files can be open at the first event; not with every event, and never twice."""
    ml_pipeline.configure(strict=False)
    clock = [100.0]
    monkeypatch.setattr(_events._time, "monotonic", lambda: clock[0])
    heard: list[str] = []
    tries: list[float] = []

    def load(bus: Bus) -> None:
        tries.append(clock[0])
        bus.subscribe("late", lambda event: heard.append(event.action))  # type: ignore[union-attr]
        if len(tries) < 3:
            raise OSError(errno.EMFILE, "Too many open files")

    bus = Bus((sink("late_sink", load), sink("sound_sink", lambda bus: None)))  # type: ignore[arg-type]
    for name in ("one", "two", "three", "four"):
        bus.publish(event(name))
        bus.publish(event(f"{name} more"))
        clock[0] += 1.0
    assert tries == [100.0, 101.0, 102.0]
    assert heard == ["three", "three more", "four", "four more"]
    assert _runtime.tally.telemetry_errors == {("late_sink", "OSError"): 2}


@pytest.mark.parametrize("stopped", [KeyboardInterrupt, OSError])
def test_loading_that_was_stopped_goes_on_at_the_next_event(
    stopped: type[BaseException], sink: Callable[[str, Callable[[Bus], None]], str]
) -> None:
    """Ctrl-C, or strict telemetry, in the middle of it costs no sink and doubles none."""
    heard: list[str] = []
    faults = [stopped]

    def load_b(bus: Bus) -> None:
        bus.subscribe("b", lambda event: heard.append("b"))
        if faults:
            raise faults.pop()("in the middle")

    names = [sink("first_sink", lambda bus: bus.subscribe("a", lambda event: heard.append("a")))]  # type: ignore[arg-type]
    names += [sink("stopped_sink", load_b)]
    names += [sink("last_sink", lambda bus: bus.subscribe("c", lambda event: heard.append("c")))]  # type: ignore[arg-type]
    bus = Bus(tuple(names))
    bus.subscribe("early", lambda event: heard.append("early"))
    with pytest.raises(stopped, match="in the middle"):
        bus.publish(event())
    bus.publish(event())
    assert heard == ["a", "b", "c", "early"]


def test_a_forked_child_is_not_stopped_by_its_parents_loading(
    sink: Callable[[str, Callable[[Bus], None]], str],
) -> None:
    """Another thread may have been loading the sinks at the moment of the fork."""
    is_loading, may_load = threading.Event(), threading.Event()

    def load_slowly(bus: Bus) -> None:
        is_loading.set()
        may_load.wait()

    bus = Bus((sink("slow_sink", load_slowly),))
    thread = threading.Thread(target=bus.publish, args=(event(),))
    thread.start()
    is_loading.wait()

    def in_child() -> int:
        heard: list[Event] = []
        may_load.set()
        bus.renew_lock()  # as the hook does for the bus of this process
        bus.subscribe("child", heard.append)
        bus.publish(event())
        return len(heard)

    try:
        assert in_fork(in_child) == 1
    finally:
        may_load.set()
        thread.join()


def test_the_default_sinks_are_loaded_by_the_first_event_only() -> None:
    """Not by an import, and not by a subscription; the sinks are those of the design, in its order."""
    code = (
        "import json, sys\nfrom ml_pipeline.config import _events\n"
        "sinks = list(_events._DEFAULT_SINKS)\n"
        "_events.subscribe('early', lambda event: None)\n"
        "before = [each for each in sinks if each in sys.modules]\n"
        "_events.publish(_events.AuditEvent(action='test'))\n"
        "after = [each for each in sinks if each in sys.modules]\n"
        "names = [name for _, name, *_ in _events.DEFAULT_BUS._subscribers]\n"
        "print(json.dumps([before, after, names]))\n"
    )
    before, after, names = python_answer(code)
    assert before == []
    assert [each.rpartition(".")[2] for each in after] == names[:-1]
    assert names == ["prometheus_metrics", "logging_config", "data_lineage", "alerting", "monitoring_config", "early"]


def test_the_default_bus_gets_a_new_lock_in_a_forked_child() -> None:
    """The hook is set; the lock of the parent may be held."""
    lock = _events.DEFAULT_BUS._lock
    assert in_fork(lambda: _events.DEFAULT_BUS._lock is lock) is False
    assert _events.DEFAULT_BUS._lock is lock


def test_annotations_can_be_resolved() -> None:
    """Tools that read the events' types find them."""
    for kind in EVENTS:
        assert typing.get_type_hints(kind)["time"] is float
