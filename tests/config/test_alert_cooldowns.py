"""Repeats that are held back without asking the store: counted, written in time, and never for too long."""

from __future__ import annotations

from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _alert_cooldowns
from ml_pipeline.config._alert_cooldowns import WRITE_SECONDS, Cooldowns
from ml_pipeline.config._alert_occurrences import block, left, repeat_key
from ml_pipeline.config._alert_records import Alert
from ml_pipeline.testing.alert_store_contract import said
from tests.config.alerting_world import World, inside
from tests.support import eventually


class Memory:
    """Cooldowns, the clocks they go by, and what they wrote."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.passed = 0.0
        self.written: list[tuple[str, int, float]] = []
        self.open = True
        self.broken: list[Exception] = []
        self.cooldowns = Cooldowns(self._hold, clock=lambda: self.now, monotonic=lambda: self.passed)

    def learn(self, key: Hashable = "key", cooldown_seconds: float = 60.0) -> Alert:
        """Learn of an alert that was raised at 1000."""
        alert = said(1000.0).alert
        self.cooldowns.learn(key, alert, cooldown_seconds)
        return alert

    def _hold(self, alert_id: str, count: int, last: float) -> bool:
        if self.broken:
            raise self.broken.pop()
        self.written.append((alert_id, count, last))
        return self.open


@pytest.fixture
def memory() -> Memory:
    """Return cooldowns that know nothing."""
    return Memory()


@pytest.fixture
def world() -> World:
    """Return a world where nothing has happened yet."""
    return World()


def test_what_is_known_is_held_back_and_counted(memory: Memory) -> None:
    """Under its alert, with the time of the last; another key is not."""
    alert = memory.learn()
    for _ in range(3):
        assert memory.cooldowns.held("key") == alert.alert_id
        memory.now += 1
    assert memory.cooldowns.held("other") == ""
    memory.cooldowns.close()
    assert memory.written == [(alert.alert_id, 3, 1002.0)]


@pytest.mark.parametrize(("now", "passed"), [(1060.0, 0.0), (999.9, 0.0), (1000.0, WRITE_SECONDS)])
def test_it_is_held_back_for_as_long_as_that_is_sure(memory: Memory, now: float, passed: float) -> None:
    """Not past the cooldown, not after a clock stepped back, and not long after the store was asked."""
    memory.learn()
    memory.now, memory.passed = now, passed
    assert memory.cooldowns.held("key") == ""
    memory.cooldowns.close()
    assert memory.written == []


def test_counts_are_written_by_themselves(memory: Memory) -> None:
    """Soon, all of one alert together."""
    alert = memory.learn()
    for _ in range(1000):
        memory.cooldowns.held("key")
    eventually(lambda: memory.written)
    assert memory.written == [(alert.alert_id, 1000, 1000.0)]
    memory.cooldowns.close()


def test_what_is_over_is_held_back_no_more(memory: Memory) -> None:
    """Told so, or found out by writing; what was counted meanwhile is written all the same."""
    alert = memory.learn()
    memory.learn("other")
    memory.cooldowns.held("key")
    memory.cooldowns.forget(alert.alert_id)
    assert memory.cooldowns.held("key") == ""
    assert memory.cooldowns.held("other") != ""
    memory.open = False
    memory.cooldowns.write()
    assert memory.cooldowns.held("other") == ""
    assert len(memory.written) == 2


def test_what_cannot_be_written_is_written_later(memory: Memory) -> None:
    """With what was counted since; the failure is counted."""
    alert = memory.learn()
    memory.cooldowns.held("key")
    memory.broken = [RuntimeError("locked")]
    with pytest.raises(RuntimeError, match="locked"):
        memory.cooldowns.write()
    memory.cooldowns.held("key")
    memory.cooldowns.close()
    assert memory.written == [(alert.alert_id, 2, 1000.0)]


def test_memory_is_bounded(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest key is forgotten; and where too many alerts wait to be counted, the store is asked."""
    monkeypatch.setattr(_alert_cooldowns, "_MOST_KNOWN", 2)
    monkeypatch.setattr(_alert_cooldowns, "_MOST_COUNTED", 1)
    for key in "abc":
        memory.learn(key)
    assert memory.cooldowns.held("a") == ""
    assert memory.cooldowns.held("b") != ""
    assert memory.cooldowns.held("c") == ""
    assert memory.cooldowns.held("b") != ""
    memory.cooldowns.close()


def test_threads_lose_no_count(memory: Memory) -> None:
    """Eight threads that count at once, while counts are written, count all."""
    memory.learn()
    with ThreadPoolExecutor(8) as pool:
        held = list(pool.map(lambda _: bool(memory.cooldowns.held("key")), range(8000)))
        memory.cooldowns.write()
    memory.cooldowns.close()
    assert all(held)
    assert sum(count for _, count, _ in memory.written) == 8000


# In the manager


def test_a_loop_of_repeats_asks_the_store_once_a_second(world: World) -> None:
    """All of them are counted in the history, the summary and one event, whatever words they are said in."""
    first = world.alerts.alert_processing_failure("a", "row 0")
    for index in range(1, 1000):
        assert world.alerts.alert_processing_failure("a", f"row {index}") == first
    (alert,) = world.alerts.history()
    assert (alert.count, alert.held_back) == (1000, 999)
    assert world.alerts.summary().held_back == 999
    suppressed = [event for event in world.events if event.state == "suppressed"]
    assert len(suppressed) < 100
    assert sum(event.count for event in suppressed) == 999
    assert {(event.alert_id, event.reason) for event in suppressed} == {(first, "cooldown")}


def test_nothing_is_lost_at_the_end_of_the_process(world: World) -> None:
    """What was counted a moment ago is written when everything is closed."""
    for _ in range(100):
        world.alerts.alert_data_quality("unique", dataset="ADNI")
    _runtime.shutdown()
    assert world.manager().history()[0].held_back == 99


def test_resolving_is_known_at_once(world: World) -> None:
    """The next occurrence is news, though repeats were held back in memory until now."""
    first = world.alerts.alert_processing_failure("a", "b")
    for _ in range(5):
        world.alerts.alert_processing_failure("a", "b")
    world.alerts.resolve(first)
    assert world.alerts.alert_processing_failure("a", "b") != first


def test_what_tells_a_repeat() -> None:
    """The whole identity and where it is said; the words only where the operations around know a failure by them."""

    def key(*identity: str, error: object = "b", severity: str = "critical") -> Hashable:
        return repeat_key("processing_failure", severity, *identity, error=error)

    keys = [key("a", "", ""), key("b", "", ""), key("a", "m", ""), key("a", "", "", severity="info")]
    assert key("a", "", "", error="other words") == keys[0]
    with inside(operation="a", operation_id="op", run_id="run"):
        keys += [key("a", "", ""), key("a", "", "another", error="one"), key("a", "", "another", error="two")]
        assert key("a", "", "op", error="one") == key("a", "", "op", error=ValueError("two"))
    token = block.set("block")
    keys += [key("a", "", "", error="one"), key("a", "", "", error=ValueError("two"))]
    block.reset(token)
    assert None not in keys
    assert len(set(keys)) == len(keys)


def test_what_takes_a_closer_look_has_no_key() -> None:
    """What is no text, or a long one, or no severity; and a failure that leaves a block, which may be known by that."""
    hostile: Any = object()
    assert repeat_key("k", "critical", hostile) is None
    assert repeat_key("k", "critical", "x" * 201) is None
    assert repeat_key("k", "critcal", "a") is None
    assert repeat_key("k", "critical", "another", error="x" * 1001) is None
    token = left.set("block")
    assert repeat_key("k", "critical", "a") is None
    left.reset(token)


def test_a_cooldown_of_nothing_holds_nothing_back(world: World) -> None:
    """Not in memory either."""
    ml_pipeline.configure(alert_cooldown_seconds=0)
    assert len({world.alerts.alert_processing_failure("a", "b") for _ in range(20)}) == 20
