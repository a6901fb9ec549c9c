"""The contract of an alert store, as tests: subclass it for a store of your own."""

from __future__ import annotations

import sqlite3
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from ml_pipeline.config._alert_records import Alert, Occurrence
from ml_pipeline.config._alert_tables import SAME_FAILURE_SECONDS
from ml_pipeline.config._ids import new_id

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ml_pipeline.config._alert_store import AlertStore

__all__ = ["AlertStoreContract", "record", "said"]

COOLDOWN = 60.0


def said(
    time: float = 1000.0,
    *,
    automatic: bool = False,
    failure: str | None = None,
    places: tuple[str, ...] = (),
    around: tuple[str, ...] = (),
    **fields: Any,
) -> Occurrence:
    """Make an occurrence; what a test does not name is the same everywhere."""
    given = {
        "alert_id": new_id(),
        "kind": "processing_failure",
        "severity": "critical",
        "pipeline": "p",
        "operation": "data_ingestion",
        "message": "data_ingestion failed",
        **fields,
    }
    alert = Alert(time=time, last_time=time, **given)
    return Occurrence(alert=alert, automatic=automatic, failure=failure, places=places, around=around)


def record(store: AlertStore, occurrence: Occurrence, *channels: str, cooldown: float = COOLDOWN) -> tuple[str, str]:
    """Record an occurrence and return what became of it, and under which alert."""
    recorded = store.record(occurrence, channels=channels, cooldown_seconds=cooldown)
    return recorded.outcome, recorded.alert.alert_id


class AlertStoreContract:
    """What any `AlertStore` must do; subclass it and give the fixture ``store``.

    Attributes:
        refusal: What the store raises where a value is missing.
    """

    refusal: type[Exception] = sqlite3.IntegrityError

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[AlertStore]:
        """Return the store under test, empty."""
        raise NotImplementedError("a contract is held to a store: override the fixture `store`")

    def test_a_first_occurrence_is_an_alert_to_deliver_everywhere(self, store: AlertStore) -> None:
        """A new alert is kept as it was said, with one delivery a channel."""
        occurrence = said(details={"rows": 3}, model="m", error_type="TimeoutError", user_id="u", run_id="r")
        assert record(store, occurrence, "email", "console") == ("raised", occurrence.alert.alert_id)
        assert store.find(limit=10) == [occurrence.alert]
        claimed = [store.claim(("email", "console"), time=1000.0, lease_seconds=10.0) for _ in range(3)]
        assert [delivery.channel for delivery in claimed if delivery] == ["email", "console"]
        assert claimed[2] is None
        assert claimed[0] is not None
        assert (claimed[0].attempt, claimed[0].alert) == (1, occurrence.alert)

    def test_a_repeat_is_counted_and_held_back(self, store: AlertStore) -> None:
        """Within the cooldown a repeat is counted under the alert; it is no alert and no delivery of its own."""
        _, first = record(store, said(1000.0), "email")
        assert record(store, said(1059.9, message="again"), "email") == ("suppressed", first)
        (alert,) = store.find(limit=10)
        assert (alert.count, alert.held_back, alert.time, alert.last_time) == (2, 1, 1000.0, 1059.9)
        assert alert.message == "data_ingestion failed"
        assert store.summarise(0.0).deliveries == {"email": {"pending": 1}}

    def test_after_the_cooldown_it_is_news_again(self, store: AlertStore) -> None:
        """The cooldown counts from the alert, not from its last repeat."""
        record(store, said(1000.0))
        record(store, said(1059.0))
        assert record(store, said(1060.0))[0] == "raised"
        assert [alert.count for alert in store.find(limit=10)] == [1, 2]

    def test_no_cooldown_holds_nothing_back(self, store: AlertStore) -> None:
        """With a cooldown of 0 every occurrence is an alert, even at one moment, even in one operation."""
        for _ in range(3):
            assert record(store, said(operation_id="op", failure="x"), cooldown=0.0)[0] == "raised"

    def test_a_clock_that_steps_back_holds_back_no_longer(self, store: AlertStore) -> None:
        """An alert from what is now the future is no reason to be silent until then."""
        record(store, said(5000.0))
        assert record(store, said(1000.0))[0] == "raised"

    @pytest.mark.parametrize("field", ["kind", "pipeline", "operation", "model", "feature", "error_type"])
    def test_each_part_of_the_identity_makes_another_alert(self, store: AlertStore, field: str) -> None:
        """Two occurrences that differ in one part of the identity are two alerts; the message is no part of it."""
        one: dict[str, Any] = {"model": "m", "feature": "f", "error_type": "E", field: "one"}
        record(store, said(**one))
        assert record(store, said(**{**one, field: "two"}))[0] == "raised"

    @pytest.mark.parametrize("field", ["error_type", "model"])
    @pytest.mark.parametrize("known_first", [True, False])
    def test_what_one_side_does_not_know_is_no_difference(
        self, store: AlertStore, field: str, known_first: bool
    ) -> None:
        """An unknown exception type or model matches a known one, whichever came first, and is filled in."""
        values: list[dict[str, Any]] = [{field: "known"}, {field: ""}]
        known, unknown = (said(**value) for value in values)
        first, second = (known, unknown) if known_first else (unknown, known)
        _, alert_id = record(store, first)
        assert record(store, second) == ("refined", alert_id)
        (alert,) = store.find(limit=10)
        assert (getattr(alert, field), alert.state, alert.count, alert.held_back) == ("known", "refined", 2, 0)

    @pytest.mark.parametrize("field", ["error_type", "model"])
    @pytest.mark.parametrize("known_first", [True, False])
    def test_two_operations_share_no_failure_by_what_is_unknown(
        self, store: AlertStore, field: str, known_first: bool
    ) -> None:
        """What one side does not know joins no two operations; only the whole identity does, as a repeat."""
        values: list[dict[str, Any]] = [{field: "known"}, {field: ""}]
        first, second = values if known_first else reversed(values)
        record(store, said(operation_id="a", **first))
        assert record(store, said(operation_id="b", **second))[0] == "raised"
        assert record(store, said(operation_id="c", **second))[0] == "suppressed"

    @pytest.mark.parametrize("named_first", [True, False])
    @pytest.mark.parametrize(("run_id", "outcome"), [("r", "refined"), (None, "refined"), ("other", "raised")])
    def test_who_names_no_operation_speaks_of_one_of_the_run(
        self, store: AlertStore, run_id: str | None, outcome: str, named_first: bool
    ) -> None:
        """Without an operation's id a call is about a failure of its own run, or of any where it is in none."""
        event = said(automatic=True, failure="x", error_type="E", operation_id="op", run_id="r")
        call = said(failure="y", run_id=run_id)
        first, second = (event, call) if named_first else (call, event)
        record(store, first)
        assert record(store, second)[0] == outcome

    def test_a_refinement_takes_nothing_back(self, store: AlertStore) -> None:
        """A model that is known stays, and so does a severity that was higher."""
        record(store, said(automatic=True, failure="x", operation_id="op", model="m"))
        record(store, said(failure="y", operation_id="op", model="other", severity="info"))
        (alert,) = store.find(limit=10)
        assert (alert.model, alert.severity, alert.count) == ("m", "critical", 2)

    def test_a_call_refines_what_an_event_raised(self, store: AlertStore) -> None:
        """A call about the same operation adds its details, which win; the first message stays, and the severity."""
        _, first = record(store, said(automatic=True, failure="x", operation_id="op", details={"a": 1, "b": 1}))
        call = said(failure="y", operation_id="op", severity="warning", message="mine", details={"b": 2})
        assert record(store, call) == ("refined", first)
        (alert,) = store.find(limit=10)
        assert (alert.severity, alert.details) == ("critical", {"a": 1, "b": 2, "also_said": ["mine"]})
        assert alert.message == "data_ingestion failed"

    def test_an_event_refines_what_a_call_raised(self, store: AlertStore) -> None:
        """Said first by the caller, the alert keeps the caller's details, gains the event's, and is as severe as it."""
        record(store, said(failure="y", operation_id="op", severity="warning", details={"b": 2}))
        event = said(automatic=True, failure="x", operation_id="op", operation="other", details={"a": 1, "b": 1})
        assert record(store, event)[0] == "refined"
        (alert,) = store.find(limit=10)
        assert (alert.severity, alert.details) == ("critical", {"a": 1, "b": 2})

    def test_a_repeat_by_the_same_voice_is_held_back(self, store: AlertStore) -> None:
        """Two calls that say the same in one operation are a repeat; so are two failures of two operations."""
        record(store, said(failure="x", operation_id="op"))
        assert record(store, said(failure="x", operation_id="op"))[0] == "suppressed"
        assert record(store, said(automatic=True, failure="x", operation_id="op2"))[0] == "suppressed"

    def test_what_else_was_said_is_bounded(self, store: AlertStore) -> None:
        """Of a hundred different sentences about one failure the last eight are kept."""
        record(store, said(automatic=True, failure="x", operation_id="op"))
        for index in range(100):
            record(store, said(failure="x", operation_id="op", model=f"m{index}", message=f"m{index}"))
        (alert,) = store.find(limit=10)
        assert alert.details["also_said"] == [f"m{index}" for index in range(92, 100)]

    def test_a_failure_on_its_way_up_is_one_alert(self, store: AlertStore) -> None:
        """The operations around a failed one, failing with the same error, add nothing."""
        _, first = record(
            store, said(automatic=True, failure="x", error_type="E", operation_id="a", around=("b",)), "email"
        )
        for name, parent in (("b", "c"), ("c", "d")):
            outer = said(
                automatic=True, failure="x", error_type="E", operation_id=name, operation=name, around=(parent,)
            )
            assert record(store, outer, "email") == ("implied", first)
        (alert,) = store.find(limit=10)
        assert (alert.count, alert.state) == (1, "raised")

    def test_a_failure_that_another_led_to_adds_nothing(self, store: AlertStore) -> None:
        """An operation that failed of another's failure is no alert, whatever it says; nor are those around it."""
        _, first = record(store, said(automatic=True, failure="x", error_type="E", operation_id="a"), "email")
        other: dict[str, Any] = {"automatic": True, "failure": "y", "error_type": "Other", "operation": "outer"}
        assert record(store, said(operation_id="b", places=("a",), **other), "email") == ("implied", first)
        assert record(store, said(operation_id="c", places=("b",), **other), "email") == ("implied", first)
        assert record(store, said(operation_id="d", places=("nobody",), **other), "email")[0] == "raised"

    @pytest.mark.parametrize("other", [{"failure": "other"}, {"error_type": "Other"}])
    def test_another_failure_around_it_is_another_alert(self, store: AlertStore, other: dict[str, str]) -> None:
        """A parent that fails with another type or message has a failure of its own."""
        record(store, said(automatic=True, failure="x", error_type="E", operation_id="a", around=("b",)))
        outer: dict[str, Any] = {"failure": "x", "error_type": "E", **other}
        assert record(store, said(automatic=True, operation="outer", operation_id="b", **outer))[0] == "raised"

    def test_parallel_branches_are_told_apart(self, store: AlertStore) -> None:
        """Eight branches that fail alike at once are one alert, and none of their parents adds one."""
        branches = [
            said(automatic=True, failure="x", error_type="E", operation_id=f"a{i}", around=(f"b{i}",)) for i in range(8)
        ]
        outcomes = [record(store, branch)[0] for branch in branches]
        assert outcomes == ["raised"] + ["suppressed"] * 7
        for index in range(8):
            outer = said(automatic=True, failure="x", error_type="E", operation="outer", operation_id=f"b{index}")
            assert record(store, outer)[0] == "implied"

    def test_a_failure_is_recognised_for_a_while_only(self, store: AlertStore) -> None:
        """The same words in the same long-lived operation, much later, are another failure."""
        record(store, said(1000.0, automatic=True, failure="x", operation_id="a", around=("b",)))
        later = 1000.0 + SAME_FAILURE_SECONDS
        outer = said(later, automatic=True, failure="x", operation="outer", operation_id="b")
        assert record(store, outer)[0] == "raised"
        assert record(store, said(later, failure="x", operation_id="a"))[0] == "raised"

    def test_a_resolved_alert_makes_the_next_one_news(self, store: AlertStore) -> None:
        """Resolving ends the cooldown, in the same operation too, and says so once."""
        occurrence = said(1000.0, failure="x", operation_id="op")
        record(store, occurrence)
        resolved = store.resolve(occurrence.alert.alert_id, time=1001.0)
        assert resolved is not None
        assert (resolved.state, resolved.last_time) == ("resolved", 1001.0)
        assert store.resolve(occurrence.alert.alert_id, time=1002.0) is None
        assert store.resolve("nobody", time=1002.0) is None
        assert record(store, said(1003.0, failure="x", operation_id="op"))[0] == "raised"

    def test_a_late_view_of_a_resolved_alert_does_not_open_it(self, store: AlertStore) -> None:
        """The operation's own failure, told after its alert was resolved, adds to it and leaves it resolved."""
        occurrence = said(failure="x", operation_id="op")
        record(store, occurrence)
        store.resolve(occurrence.alert.alert_id, time=1001.0)
        assert record(store, said(automatic=True, failure="x", operation_id="op"))[0] == "refined"
        assert [alert.state for alert in store.find(limit=10)] == ["resolved"]

    def test_of_one_identity_only_the_latest_is_active(self, store: AlertStore) -> None:
        """An alert raised anew after its cooldown takes the place of the earlier one; a resolved one has none."""
        record(store, said(1000.0))
        latest = said(2000.0)
        record(store, latest)
        other = said(2001.0, operation="other")
        record(store, other)
        active = [alert.alert_id for alert in store.find(limit=10, only_active=True)]
        assert active == [other.alert.alert_id, latest.alert.alert_id]
        store.resolve(other.alert.alert_id, time=2002.0)
        assert [alert.alert_id for alert in store.find(limit=10, only_active=True)] == [latest.alert.alert_id]

    def test_the_history_is_newest_first_and_can_be_asked_for_less(self, store: AlertStore) -> None:
        """Each condition narrows the answer, and several narrow it together."""
        for index, (kind, severity) in enumerate([("a", "info"), ("a", "critical"), ("b", "info")]):
            record(store, said(1000.0 + index, kind=kind, severity=severity, operation=f"o{index}"))
        find = store.find
        assert [alert.time for alert in find(limit=10)] == [1002.0, 1001.0, 1000.0]
        assert [alert.time for alert in find(limit=2)] == [1002.0, 1001.0]
        assert [alert.time for alert in find(limit=10, kind="a", severity="info")] == [1000.0]
        assert [alert.time for alert in find(limit=10, since=1001.0)] == [1002.0, 1001.0]
        assert find(limit=10, state="resolved") == []

    def test_the_history_of_one_identity_can_be_asked_for(self, store: AlertStore) -> None:
        """However many others there are since."""
        _, wanted = record(store, said(1000.0, model="m", feature="f"))
        record(store, said(1001.0, model="m", feature="g"))
        found = store.find(limit=1, kind="processing_failure", identity={"model": "m", "feature": "f"})
        assert [alert.alert_id for alert in found] == [wanted]
        assert store.find(limit=1, identity={"model": "none"}) == []

    def test_the_summary_counts_what_was_raised_since(self, store: AlertStore) -> None:
        """By kind, severity, repeats held back, and deliveries by channel and state."""
        record(store, said(500.0), "email")
        record(store, said(1000.0), "email", "console")
        record(store, said(1001.0), "email", "console")
        record(store, said(1002.0, kind="data_drift", severity="warning"), "email")
        delivery = store.claim(("console",), time=1002.0, lease_seconds=1.0)
        assert delivery is not None
        store.settle(delivery.delivery_id, "sent", time=1003.0)
        summary = store.summarise(1000.0)
        assert (summary.since, summary.alerts, summary.held_back) == (1000.0, 2, 1)
        assert summary.by_kind == {"processing_failure": 1, "data_drift": 1}
        assert summary.by_severity == {"critical": 1, "warning": 1}
        assert summary.deliveries == {"email": {"pending": 2}, "console": {"sent": 1}}

    def test_threads_at_once_make_one_alert(self, store: AlertStore) -> None:
        """Four hundred occurrences from eight threads are one alert and 399 repeats."""
        with ThreadPoolExecutor(8) as pool:
            outcomes = list(pool.map(lambda _: record(store, said())[0], range(400)))
        assert (outcomes.count("raised"), outcomes.count("suppressed")) == (1, 399)
        assert store.find(limit=10)[0].held_back == 399

    def test_what_fails_changes_nothing(self, store: AlertStore) -> None:
        """An alert whose deliveries cannot be written is not there either, and the store goes on."""
        broken: Any = None
        with pytest.raises(self.refusal):
            record(store, said(), "email", broken)
        assert store.find(limit=10) == []
        assert store.summarise(0.0).deliveries == {}
        assert record(store, said(), "email")[0] == "raised"
