"""A database of several hosts may be away: nothing is lost, nothing is said twice, and nobody waits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ml_pipeline import _runtime
from ml_pipeline.config._alert_records import Alert, Delivery
from ml_pipeline.config._alert_shared import SharedAlertStore
from ml_pipeline.config._alert_silences import Silence, new_silence
from ml_pipeline.config._alert_sqlite import SqliteAlertStore, SqliteDatabase
from ml_pipeline.config._alert_store import AlertStore
from ml_pipeline.config._alert_tables import AlertTables
from ml_pipeline.errors import StoreError
from ml_pipeline.testing.alert_fallback_contract import AlertFallbackContract
from ml_pipeline.testing.alert_outbox_contract import AlertOutboxContract
from ml_pipeline.testing.alert_store_contract import AlertStoreContract, record, said
from ml_pipeline.testing.alert_upkeep_contract import AlertUpkeepContract

EMAIL = ("email",)


class Distant(SqliteDatabase):
    """A database that can be away; and can go between writing a transaction and saying so."""

    is_away = False
    goes_at_commit = False
    asked = 0

    def rows(self, *given):  # type: ignore[no-untyped-def]
        """Answer, or be away."""
        self._answer()
        return super().rows(*given)

    def execute(self, *given):  # type: ignore[no-untyped-def]
        """Answer, or be away."""
        self._answer()
        return super().execute(*given)

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:
        """Answer, or be away, or go in between."""
        self._answer()
        with super().transaction(durable=durable):
            yield
        if self.goes_at_commit:
            self.goes_at_commit, self.is_away = False, True
            self._answer()

    def _answer(self) -> None:
        self.asked += 1
        if self.is_away:
            raise StoreError("the database must be reachable", remedy="see to it")


class World:
    """A host's view of a database, and what is behind it."""

    def __init__(self, folder: Path) -> None:
        self.database = Distant(":memory:")
        self.held = AlertTables(self.database)
        self.path = folder / "outbox.db"
        self.now = 0.0
        self.opened: list[SqliteAlertStore] = []
        self.store = self.another()

    def another(self) -> SharedAlertStore:
        """Return what another process of the host would open."""
        return SharedAlertStore(
            self.held, self._own, self.path.exists, monotonic=lambda: self.now, pause=lambda _: None
        )

    def _own(self) -> SqliteAlertStore:
        self.opened.append(SqliteAlertStore(self.path))
        return self.opened[-1]

    def go(self) -> None:
        """Be away from now on."""
        self.database.is_away = True

    def come_back(self) -> None:
        """Be there again, and have that noticed."""
        self.database.is_away = False
        self.now += 5.0

    def claim(self, time: float, store: SharedAlertStore | None = None) -> Delivery | None:
        """Take the next message, whatever it waits for."""
        return (store or self.store).claim(EMAIL, time=time, lease_seconds=30.0, early=True)

    def deliver(self, time: float, store: SharedAlertStore | None = None) -> list[str]:
        """Send everything, and return the operations of the alerts in it."""
        sent: list[str] = []
        while (delivery := self.claim(time, store)) is not None:
            sent += [f"{alert.operation}: {delivery.reason}" for alert in delivery.alerts]
            (store or self.store).settle(delivery.delivery_id, "sent", time=time)
        return sent

    def left(self) -> list[Alert]:
        """What the host's own store holds."""
        return [] if not self.path.exists() else self._own().find(limit=100)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A database that is there, with nothing in it."""
    with _runtime.override(strict=False):
        world = World(tmp_path)
        yield world
        world.store.close()
        for own in world.opened:
            own.close()


class TestWhileItIsThere(AlertStoreContract, AlertOutboxContract, AlertFallbackContract, AlertUpkeepContract):
    """The store over a database that is there."""

    @pytest.fixture
    def store(self, world: World) -> AlertStore:
        """Return an empty store."""
        return world.store


def test_while_it_is_there_the_host_keeps_nothing(world: World) -> None:
    """Not even an empty file."""
    record(world.store, said(), *EMAIL)
    assert world.deliver(1000.0) == ["data_ingestion: firing"]
    assert not world.path.exists()


def test_what_is_raised_while_it_is_away_is_delivered_and_moves_over(world: World) -> None:
    """At once, by the host itself; then it stands in the database as if it had been raised there."""
    world.go()
    outcome, alert_id = record(world.store, said(details={"rows": 3}), *EMAIL)
    assert outcome == "raised"
    assert world.deliver(1000.0) == ["data_ingestion: firing"]
    world.come_back()
    assert world.claim(1010.0) is None
    assert world.left() == []
    (held,) = world.held.find(limit=10)
    assert (held.alert_id, held.details) == (alert_id, {"rows": 3})
    assert [(each.channel, each.state) for each in world.held.deliveries(alert_id)] == [("email", "sent")]
    assert world.store.resolve(alert_id, time=1020.0) is not None
    assert world.deliver(1100.0) == ["data_ingestion: resolved"]


def test_what_was_not_delivered_meanwhile_is_delivered_by_anyone(world: World) -> None:
    """The message moves over as it is, with what has become of it."""
    world.go()
    record(world.store, said(), *EMAIL)
    first = world.claim(1000.0)
    assert first is not None
    world.store.settle(first.delivery_id, "pending", time=1001.0, due=1030.0, error="refused")
    world.come_back()
    assert world.claim(1010.0) is None
    again = world.held.claim(EMAIL, time=1030.0, lease_seconds=30.0)
    assert again is not None
    assert (again.delivery_id, again.attempt) == (first.delivery_id, 2)


def test_a_message_that_moved_while_it_was_on_its_way_is_settled_where_it_is(world: World) -> None:
    """Another process of the host moved it."""
    world.go()
    record(world.store, said(), *EMAIL)
    message = world.claim(1000.0)
    assert message is not None
    world.database.is_away = False
    other = world.another()
    assert world.claim(1001.0, other) is None
    world.store.settle(message.delivery_id, "sent", time=1002.0)
    world.come_back()
    assert world.deliver(2000.0) == []
    assert world.held.summarise(0.0).deliveries == {"email": {"sent": 1}}


def test_a_repeat_of_what_the_database_holds_stays_a_repeat(world: World) -> None:
    """It is counted under the alert, and not delivered again."""
    _, alert_id = record(world.store, said(1000.0), *EMAIL)
    assert world.deliver(1000.0) == ["data_ingestion: firing"]
    world.go()
    assert [record(world.store, said(1001.0 + n), *EMAIL) for n in range(3)] == [("suppressed", alert_id)] * 3
    assert world.deliver(1010.0) == []
    world.come_back()
    assert world.deliver(1020.0) == []
    held = world.held.get(alert_id)
    assert held is not None
    assert (held.count, held.held_back, held.last_time) == (4, 3, 1003.0)


def test_two_processes_count_the_same_alert(world: World) -> None:
    """Each knows it, and no count is lost."""
    other = world.another()
    _, alert_id = record(world.store, said(1000.0), *EMAIL)
    record(other, said(1000.5), *EMAIL)
    world.go()
    for store in (world.store, other):
        assert record(store, said(1002.0), *EMAIL) == ("suppressed", alert_id)
    world.come_back()
    world.claim(1020.0)
    assert world.left() == []
    held = world.held.get(alert_id)
    assert held is not None
    assert (held.count, held.held_back) == (4, 3)


def test_what_is_resolved_while_it_is_away_is_said_once_it_is_back(world: World) -> None:
    """To those who were told of the alert; whether this process remembers the alert, or only clears its identity."""
    _, alert_id = record(world.store, said(1000.0, operation="a"), *EMAIL)
    record(world.held, said(1000.0, operation="b"), *EMAIL)
    assert sorted(world.deliver(1000.0)) == ["a: firing", "b: firing"]
    world.go()
    assert world.store.resolve(alert_id, time=1010.0) is not None
    assert world.store.clear(1011.0, operation="b") == []
    world.come_back()
    assert sorted(world.deliver(2000.0)) == ["a: resolved", "b: resolved"]
    assert world.held.find(limit=10, only_active=True) == []


def test_what_is_learned_meanwhile_is_added(world: World) -> None:
    """Another view of the failure, who sees to it, and that nobody did."""
    _, alert_id = record(world.store, said(1000.0, run_id="r"), *EMAIL)
    world.go()
    event = said(1001.0, automatic=True, run_id="r", operation_id="o", message="the event", details={"stack": "x"})
    assert record(world.store, event) == ("refined", alert_id)
    assert world.store.acknowledge(alert_id, by="Ada", time=1002.0) is not None
    world.come_back()
    world.claim(1020.0)
    held = world.held.get(alert_id)
    assert held is not None
    assert (held.state, held.operation_id, held.acknowledged_by, held.count) == ("refined", "o", "Ada", 2)
    assert held.details["stack"] == "x"


def test_what_becomes_critical_meanwhile_is_critical(world: World) -> None:
    """The host says so, and nobody says it again."""
    often = replace(said(1000.0, severity="warning"), escalate_after=2)
    _, alert_id = record(world.store, often, *EMAIL)
    assert world.deliver(1000.0) == ["data_ingestion: firing"]
    world.go()
    for time in (1001.0, 1002.0):
        record(world.store, said(time, severity="warning"), *EMAIL)
    assert [alert.alert_id for alert in world.store.escalate(lambda alert: EMAIL, time=1003.0)] == [alert_id]
    assert world.deliver(1003.0) == ["data_ingestion: escalated"]
    world.come_back()
    assert world.deliver(1010.0) == []
    assert world.store.escalate(lambda alert: EMAIL, time=1010.0) == []
    held = world.held.get(alert_id)
    assert held is not None
    assert (held.severity, held.escalated, held.count) == ("critical", True, 3)


def test_what_is_remembered_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest alerts, and those that are repeated."""
    monkeypatch.setattr("ml_pipeline.config._alert_shared._MOST_REMEMBERED", 2)
    for operation in ("a", "b", "a", "c"):
        record(world.store, said(operation=operation), *EMAIL)
    world.go()
    outcomes = {operation: record(world.store, said(operation=operation), *EMAIL)[0] for operation in "abc"}
    assert outcomes == {"a": "suppressed", "b": "raised", "c": "suppressed"}


def test_what_was_sent_when_it_went_is_not_sent_again(world: World) -> None:
    """The database is told of it before anything else is asked of it."""
    record(world.store, said(), *EMAIL)
    message = world.claim(1000.0)
    assert message is not None
    world.go()
    world.store.settle(message.delivery_id, "sent", time=1001.0)
    world.come_back()
    assert world.deliver(5000.0) == []
    assert world.held.summarise(0.0).deliveries == {"email": {"sent": 1}}


def test_what_is_owed_is_told_at_the_end(world: World) -> None:
    """The database is back, and nobody has looked yet."""
    record(world.store, said(), *EMAIL)
    message = world.claim(1000.0)
    assert message is not None
    world.go()
    world.store.settle(message.delivery_id, "sent", time=1001.0)
    world.database.is_away = False
    told: list[object] = []
    world.database.connection.set_trace_callback(told.append)
    world.store.close()
    assert "COMMIT" in told


def test_what_was_written_without_an_answer_is_one_alert(world: World) -> None:
    """The commit arrived, its confirmation did not: the host keeps it too, and one message is sent."""
    world.database.goes_at_commit = True
    outcome, alert_id = record(world.store, said(), *EMAIL)
    assert outcome == "raised"
    assert world.deliver(1000.0) == ["data_ingestion: firing"]
    world.come_back()
    assert world.deliver(2000.0) == []
    assert [alert.alert_id for alert in world.held.find(limit=10)] == [alert_id]
    assert world.held.summarise(0.0).deliveries == {"email": {"sent": 1}}


def test_what_moved_without_an_answer_moves_again(world: World) -> None:
    """Whatever was written and not confirmed is found to be there."""
    world.go()
    record(world.store, said(), *EMAIL)
    world.come_back()
    world.database.goes_at_commit = True
    assert world.deliver(1010.0) == ["data_ingestion: firing"]  # away again: by the host itself
    world.come_back()
    assert world.deliver(2000.0) == []
    assert world.left() == []
    assert world.held.summarise(0.0).deliveries == {"email": {"sent": 1}}


def test_what_an_earlier_process_left_moves_over(world: World) -> None:
    """Also what it kept before there was a database; without anything that is new."""
    earlier = SqliteAlertStore(world.path)
    for number in range(150):
        record(earlier, said(operation=f"o{number}"), *EMAIL)
    earlier.add_silence(_silence())
    earlier.close()
    found = world.claim(2000.0)
    assert found is not None
    assert (len(found.alerts), found.more) == (100, 50)
    assert world.left() == []
    assert world.held.summarise(0.0).alerts == 150
    assert [silence.reason for silence in world.held.silences(1000.0)] == ["tests"]


def test_who_asks_for_the_history_sees_what_an_earlier_process_left(world: World) -> None:
    """Also a program that delivers nothing, such as the command line."""
    earlier = SqliteAlertStore(world.path)
    record(earlier, said(operation="left"), *EMAIL)
    earlier.close()
    record(world.held, said(operation="held"), *EMAIL)
    assert {alert.operation for alert in world.store.find(limit=10)} == {"left", "held"}


def test_of_one_identity_only_the_latest_is_active_wherever_it_was_raised(world: World) -> None:
    """What moves over is older or newer than what is there."""
    for times in ((1000.0, 2000.0), (2000.0, 1000.0)):
        operation = f"at {times[0]}"
        record(world.held, said(times[0], operation=operation))
        world.go()
        record(world.store, said(times[1], operation=operation), cooldown=0.0)
        world.come_back()
        world.claim(3000.0)
        active = world.held.find(limit=10, only_active=True)
        assert [alert.time for alert in active if alert.operation == operation] == [2000.0]


def test_what_is_silenced_stays_silent(world: World) -> None:
    """The host's own store is told of the silences that it was last seen to have."""
    world.store.add_silence(_silence())
    world.claim(1000.0)
    world.go()
    record(world.store, said(), *EMAIL)
    assert world.deliver(1000.0) == []
    world.come_back()
    assert world.deliver(1001.0) == []
    assert [alert.muted for alert in world.held.find(limit=10)] == ["silence"]


def test_nobody_waits_for_it_again(world: World) -> None:
    """One call finds out; then only whoever delivers looks, every five seconds."""
    world.go()
    record(world.store, said(), *EMAIL)
    asked = world.database.asked
    for number in range(50):
        record(world.store, said(operation=f"o{number}"), *EMAIL)
        world.claim(1000.0)
    assert world.database.asked == asked
    assert world.store.next_due(EMAIL) == 1000.0 + 5.0
    world.now += 5.0
    world.claim(1005.0)
    assert world.database.asked == asked + 1
    assert _runtime.tally.telemetry_errors[("alerting", "StoreError")] == 2


def test_what_only_the_database_can_know_is_an_error_meanwhile(world: World) -> None:
    """A silence is for every host, a digest of all of them, and an alert of another host is not known here."""
    _, alert_id = record(world.held, said(), *EMAIL)
    world.go()
    record(world.store, said(operation="other"), *EMAIL)
    for ask in (
        lambda: world.store.add_silence(_silence()),
        lambda: world.store.end_silence("s", time=1000.0),
        lambda: world.store.silences(1000.0),
        lambda: world.store.digest("p", EMAIL, "", since=0.0, until=1.0),
        lambda: world.store.get(alert_id),
        lambda: world.store.resolve(alert_id, time=1000.0),
        lambda: world.store.acknowledge(alert_id, by="Ada", time=1000.0),
        lambda: world.store.hold(alert_id, 3, time=1000.0),
    ):
        with pytest.raises(StoreError, match=r"^the database must be reachable; see to it$"):
            ask()
    assert [alert.operation for alert in world.store.find(limit=10)] == ["other"]
    assert world.store.summarise(0.0).alerts == 1


def test_time_goes_by_meanwhile(world: World) -> None:
    """What is due by time alone is done for what the host keeps."""
    world.go()
    record(world.store, said(1000.0), *EMAIL)
    assert world.store.told("email", limit=10) == []
    assert world.store.unmute(lambda alert: EMAIL, time=1001.0) == []
    assert world.store.escalate(lambda alert: EMAIL, time=1001.0) == []
    assert world.store.went_well("p", "data_ingestion", "", time=1002.0)
    assert world.store.next_change(1002.0) is not None
    assert [alert.state for alert in world.store.resolve_mended(1001.0, time=1100.0)] == ["resolved"]
    assert world.store.deliveries(world.left()[0].alert_id)[0].state == "pending"
    assert world.store.forget(900.0) == 0


def _silence() -> Silence:
    return new_silence({"kind": "processing_failure"}, now=900.0, seconds=1000.0, reason="tests", by="Ada")
