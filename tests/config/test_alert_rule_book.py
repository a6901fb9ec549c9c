"""Rules at work: values and events become alerts of their rule, once, and resolve by themselves."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._alert_course import course_of
from ml_pipeline.config._alert_rule_book import MOST_IDENTITIES
from ml_pipeline.config._alert_sqlite import SqliteAlertStore
from ml_pipeline.config._events import AlertEvent, AuditEvent, Bus, DriftEvent, OperationEvent, ResourceSample
from ml_pipeline.config.alerting import Alert, AlertManager, AlertRule, alert_manager
from ml_pipeline.errors import AlertError
from tests.config.alerting_world import Clock, World


@pytest.fixture
def world() -> World:
    """Return a world where nothing has happened yet."""
    return World()


def queue(**fields: Any) -> AlertRule:
    """Return a rule on a measured value."""
    given: dict[str, Any] = {"name": "QueueTooLong", "on": "queue_length", "above": 100, "clear": 80}
    return AlertRule(**{**given, **fields})


def complete(kind: Any = "evaluation", **fields: Any) -> OperationEvent:
    """Return the end of an operation."""
    given: dict[str, Any] = {"name": "weekly_evaluation", "attributes": {"model_name": "m"}, "operation_id": "o"}
    return OperationEvent(type="complete", kind=kind, **{**given, **fields})


def drift(verdict: Any = "drift", **fields: Any) -> DriftEvent:
    """Return the verdict on a batch."""
    return DriftEvent(**{"model": "m", "batch": "b", "verdict": verdict, "rows": 100, **fields})


def alert(world: World) -> Alert:
    """Return the only alert there is."""
    (only,) = world.alerts.history()
    return only


# Measured values


def test_a_measured_value_past_its_level_alerts_once_and_resolves_itself(world: World) -> None:
    """One alert with the rule's name, labels and runbook, with the values around the moment; and one end."""
    world.alerts.add_rule(queue(labels={"team": "imaging"}, runbook="https://example.org/queue", severity="critical"))
    for value in (90, 120, 130, 90):
        world.alerts.observe_value("queue_length", value, site="Köln")
        world.clock.now += 1
    raised = alert(world)
    assert (raised.name, raised.rule, raised.kind, raised.severity) == (
        "QueueTooLong",
        "QueueTooLong",
        "measured_value",
        "critical",
    )
    assert (raised.labels, raised.runbook) == ({"team": "imaging", "site": "Köln"}, "https://example.org/queue")
    assert raised.message == "queue_length, site=Köln is 120, above 100"
    assert (raised.details["value"], raised.details["threshold"]) == (120, 100)
    assert raised.details["series"] == [[1_700_000_000.0, 90], [1_700_000_001.0, 120]]
    world.alerts.observe_value("queue_length", 80, site="Köln")
    world.alerts.observe_value("queue_length", 70, site="Köln")
    assert alert(world).state == "resolved"
    assert world.states() == ["raised", "resolved"]


def test_two_series_of_a_value_are_two_alerts(world: World) -> None:
    """Labels tell them apart, in any order; the end of one is not the end of the other."""
    world.alerts.add_rule(queue())
    world.alerts.observe_value("queue_length", 120, site="a", model="m")
    world.alerts.observe_value("queue_length", 120, model="m", site="a")
    world.alerts.observe_value("queue_length", 120, site="b", operation="import", feature="depth")
    world.alerts.observe_value("queue_length", 120)
    found = {(each.feature, each.model, each.operation) for each in world.alerts.active()}
    assert found == {
        ("queue_length, model=m, site=a", "m", ""),
        ("depth, operation=import, site=b", "", "import"),
        ("queue_length", "", ""),
    }
    world.alerts.observe_value("queue_length", 1)
    assert {each.feature for each in world.alerts.active()} == {
        "queue_length, model=m, site=a",
        "depth, operation=import, site=b",
    }


def test_an_end_is_that_of_the_very_series(world: World) -> None:
    """What has no model neither joins what has one, nor resolves it."""
    world.alerts.add_rule(queue())
    world.alerts.observe_value("queue_length", 120, model="m")
    world.alerts.observe_value("queue_length", 120)
    assert len(world.alerts.active()) == 2
    world.alerts.observe_value("queue_length", 1)
    assert [each.model for each in world.alerts.active()] == ["m"]


def test_it_must_hold_for_its_time_by_the_managers_clock(world: World) -> None:
    """Before that it is pending; a good value in between begins anew."""
    world.alerts.add_rule(queue(for_seconds=60, clear=None))
    for value, later in ((120, 59), (120, 0), (90, 1), (120, 60)):
        world.alerts.observe_value("queue_length", value)
        world.clock.now += later
    assert world.alerts.history() == []
    world.alerts.observe_value("queue_length", 121)
    assert alert(world).message == "queue_length is 121, above 100, for 60 s"


def test_what_comes_back_within_the_cooldown_is_held_back_and_counted(world: World) -> None:
    """No second alert, although the first is resolved; it comes when the cooldown is over and it still holds."""
    world.alerts.add_rule(queue(cooldown_seconds=100))
    for value in (120, 1, 120, 120):
        world.alerts.observe_value("queue_length", value)
    assert world.states() == ["raised", "resolved", "suppressed"]
    assert (world.events[-1].reason, world.events[-1].alert_id) == ("cooldown", alert(world).alert_id)
    world.clock.now += 100
    world.alerts.observe_value("queue_length", 120)
    assert [each.state for each in world.alerts.history()] == ["raised", "resolved"]


def test_the_setting_is_the_cooldown_of_a_rule_without_one(world: World) -> None:
    """As for every alert."""
    ml_pipeline.configure(alert_cooldown_seconds=0)
    world.alerts.add_rule(queue())
    for value in (120, 1, 120):
        world.alerts.observe_value("queue_length", value)
    assert world.states() == ["raised", "resolved", "raised"]


def test_while_it_fires_it_is_said_again_only_for_an_escalation(world: World) -> None:
    """Each bad value counts under the open alert, however old that is; without an escalation none is even written."""
    world.alerts.add_rule(queue(escalate_after=5, escalate_seconds=3_600))
    world.alerts.add_rule(queue(name="QueueLong", above=50, clear=None))
    for _ in range(3):
        world.alerts.observe_value("queue_length", 120)
        world.clock.now += 1_000
    counts = {each.name: each.count for each in world.alerts.history()}
    assert counts == {"QueueTooLong": 3, "QueueLong": 1}


def test_it_becomes_critical_after_so_many_bad_values(world: World) -> None:
    """With one further message, which has the values around the moment."""
    world.alerts.add_rule(queue(escalate_after=3))
    for value in (90, 120, 125, 130, 140):
        world.alerts.observe_value("queue_length", value)
        world.clock.now += 10
        world.alerts.flush()
    assert [message.reason for message in world.pager.sent] == ["firing", "escalated"]
    assert (alert(world).severity, alert(world).escalated) == ("critical", True)
    course = course_of(alert(world).details)
    assert course is not None
    assert (course.threshold, [value for _, value in course.points]) == (100, [90, 120])


def test_k_of_m_and_a_text(world: World) -> None:
    """A text may be what is bad, and some of the last ones must be."""
    world.alerts.add_rule(AlertRule(name="Degraded", on="state", equals="degraded", needed=2, window=3))
    for state in ("degraded", "fine", "degraded"):
        world.alerts.observe_value("state", state)
    assert alert(world).message == "state is degraded, 2 of 3 times"
    assert "series" not in alert(world).details


def test_a_drop_is_measured_from_the_baseline(world: World) -> None:
    """The threshold that a person reads is the value it must not fall under."""
    world.alerts.add_rule(
        AlertRule(
            name="AucFell",
            on="auc",
            drop=0.05,
            clear=0.02,
            baseline=0.9,
            message="{model}: {value:.3f} < {threshold:.2f} ({baseline}, {labels.model})",
        )
    )
    for value in (0.86, 0.84, 0.87):
        world.alerts.observe_value("auc", value, model="m")
    assert alert(world).message == "m: 0.840 < 0.85 (0.9, m)"
    assert alert(world).state == "raised"
    world.alerts.observe_value("auc", 0.89, model="m")
    assert alert(world).state == "resolved"
    world.alerts.observe_value("auc", "n/a", model="m")


def test_a_value_of_another_kind_is_taken_or_told(world: World) -> None:
    """A number of numpy's is a number; what is none is told, and so is a name that is an event's."""
    import numpy as np

    world.alerts.add_rule(queue())
    world.alerts.observe_value("queue_length", np.float32(120))
    world.alerts.observe_value("queue_length", float("nan"))
    assert alert(world).details["value"] == 120
    with pytest.raises(AlertError, match=r"must be a number or a text \(got 1000.*…\); convert it first"):
        world.alerts.observe_value("queue_length", 10**400)
    with pytest.raises(AlertError, match=r"must be a number or a text \(got \[1, 2\]\); convert it first"):
        world.alerts.observe_value("queue_length", [1, 2])  # type: ignore[arg-type]
    with pytest.raises(AlertError, match=r"not be called as a type of event is \(got 'drift'\); rename it"):
        world.alerts.observe_value("drift", 1)
    world.alerts.observe_value("nobody_watches_this", 5)


def test_hostile_labels_are_bounded_and_redacted(world: World) -> None:
    """Whatever a label holds, the alert is one line of bounded text, and its end finds it."""
    world.alerts.add_rule(queue())
    hostile = {"site": "a\r\nBcc: x\x1b[2J" + "x" * 10_000, "password": "hunter2"}
    world.alerts.observe_value("queue_length", 120, **hostile)
    raised = alert(world)
    assert "\n" not in raised.feature + raised.message + raised.labels["site"]
    assert max(len(raised.feature), len(raised.labels["site"])) <= 200
    world.alerts.observe_value("queue_length", 1, **hostile)
    assert alert(world).state == "resolved"


def test_the_identities_of_a_rule_are_bounded(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """The one not seen for longest goes, but none that has an alert to resolve; that is counted and said."""
    with _runtime.override(strict=False):
        world.alerts.add_rule(queue())
        world.alerts.observe_value("queue_length", 120, request="first")
        for request in range(MOST_IDENTITIES + 5):
            world.alerts.observe_value("queue_length", 1, request=str(request))
        world.alerts.observe_value("queue_length", 1, request="first")
        assert len(world.alerts._book.get()._by_name["QueueTooLong"].series) == MOST_IDENTITIES
    assert alert(world).state == "resolved"
    assert "rule 'QueueTooLong' must watch at most 1000 identities" in capfd.readouterr().err


def test_an_alert_that_an_earlier_process_left_open_is_resolved(world: World) -> None:
    """The first good value of a process ends it, without an alert of its own."""
    world.alerts.add_rule(queue())
    world.alerts.observe_value("queue_length", 120)
    later = world.manager()
    later.add_rule(queue())
    later.observe_value("queue_length", 90)
    assert alert(world).state == "raised"
    later.observe_value("queue_length", 70)
    assert alert(world).state == "resolved"
    assert world.states() == ["raised", "resolved"]


@pytest.mark.parametrize(("later", "count"), [(3_600, [2]), (86_399, [2]), (86_400, [1, 1])])
def test_what_an_earlier_process_alerted_is_the_same_cause_for_a_day(
    world: World, later: float, count: list[int]
) -> None:
    """However long the cooldown was over; what nobody saw for a day is news."""
    world.alerts.add_rule(queue(cooldown_seconds=10))
    world.alerts.observe_value("queue_length", 120)
    world.clock.now += later
    after = world.manager()
    after.add_rule(queue(cooldown_seconds=10))
    after.observe_value("queue_length", 130)
    assert [each.count for each in world.alerts.history()] == count
    after.observe_value("queue_length", 70)
    assert world.alerts.history()[0].state == "resolved"
    assert world.alerts.active() == []


def test_the_cooldown_of_an_alert_that_an_earlier_process_resolved_goes_on(world: World) -> None:
    """What comes back in the next process is held back by it."""
    world.alerts.add_rule(queue())
    for value in (120, 70):
        world.alerts.observe_value("queue_length", value)
    world.clock.now += 299
    after = world.manager()
    after.add_rule(queue())
    after.observe_value("queue_length", 120)
    assert world.states() == ["raised", "resolved", "suppressed"]
    world.clock.now += 1
    after.observe_value("queue_length", 120)
    assert world.states()[-1] == "raised"


def test_a_condition_that_holds_for_long_is_counted_each_hour(world: World) -> None:
    """Under its one alert, so that it is seen to go on; nothing more is delivered."""
    world.alerts.add_rule(queue())
    for _ in range(4):
        for _ in range(10):
            world.alerts.observe_value("queue_length", 120)
        world.clock.now += 3_600
        world.alerts.flush()
    assert (alert(world).count, len(world.pager.sent)) == (4, 1)


def test_from_many_threads_it_is_one_alert(world: World) -> None:
    """Whoever sees it first."""
    world.alerts.add_rule(queue())
    threads = [
        threading.Thread(target=lambda: [world.alerts.observe_value("queue_length", 120) for _ in range(50)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert world.states() == ["raised"]


# Events


def test_a_model_below_its_floor(world: World) -> None:
    """An evaluation's metric, per model; the alert is of the kind that dashboards know."""
    where = {"kind": "evaluation", "type": "complete"}
    world.alerts.add_rule(AlertRule(name="AucTooLow", on="operation", where=where, value="metrics.roc_auc", below=0.8))
    world.bus.publish(complete(metrics={"roc_auc": 0.79}))
    world.bus.publish(complete(metrics={"f1": 0.1}))
    world.bus.publish(complete("training", metrics={"roc_auc": 0.1}))
    world.bus.publish(complete(metrics={"roc_auc": 0.85}, attributes={"model_name": "other"}))
    raised = alert(world)
    assert (raised.kind, raised.model, raised.operation, raised.feature) == (
        "model_performance",
        "m",
        "weekly_evaluation",
        "roc_auc",
    )
    assert (raised.message, raised.state) == ("m: roc_auc is 0.79, below 0.8", "raised")
    assert (raised.operation_id, raised.run_id) == ("o", None)
    world.bus.publish(complete(metrics={"roc_auc": 0.8}))
    assert alert(world).state == "resolved"


def test_estimated_performance_against_the_baseline_that_came_with_it(world: World) -> None:
    """Where labels are late, the estimate is watched; a baseline may be a field of the same event."""
    world.alerts.add_rule(
        AlertRule(
            name="EstimateFell",
            on="operation",
            where={"kind": "evaluation", "attributes.basis": "estimated"},
            value="metrics.roc_auc",
            drop=0.05,
            baseline="attributes.baseline",
        )
    )
    world.bus.publish(complete(metrics={"roc_auc": 0.5}))
    facts = {"model_name": "m", "basis": "estimated"}
    world.bus.publish(complete(metrics={"roc_auc": 0.5}, attributes=facts))
    world.bus.publish(complete(metrics={"roc_auc": 0.8}, attributes={**facts, "baseline": 0.9}))
    assert alert(world).message == "m: roc_auc is 0.8, more than 0.05 below its baseline 0.9"
    assert alert(world).details["threshold"] == pytest.approx(0.85)


def test_the_share_of_rows_that_failed(world: World) -> None:
    """One field over another; nothing is said where the other is 0 or missing."""
    world.alerts.add_rule(
        AlertRule(
            name="Rejected",
            on="operation",
            where={"kind": ["validation"]},
            value="counts.failed",
            per="counts.records",
            above=0.05,
        )
    )
    for counts in ({"failed": 6, "records": 0}, {"failed": 6}, {"failed": 6, "records": 100}):
        world.bus.publish(complete("validation", counts=counts))
    assert (alert(world).kind, alert(world).details["value"]) == ("data_quality", 0.06)


def test_an_event_is_selected_by_numbers_too(world: World) -> None:
    """By any field, also one in a table; what is true is not 1."""
    where = {"rows": [100, 200], "effects.age": 1}
    world.alerts.add_rule(AlertRule(name="Odd", on="drift", where=where, value="reason", equals="odd"))
    for fields in ({"effects": {"age": True}}, {"rows": 5, "effects": {"age": 1}}, {"effects": {}}):
        world.bus.publish(drift(reason="odd", **fields))
    assert world.alerts.history() == []
    world.bus.publish(drift(reason="odd", effects={"age": 1.0}))
    assert alert(world).message == "m: reason is odd"


def test_k_of_m_drifted_batches_stand_in_place_of_the_automatic_alarm(world: World) -> None:
    """One cause, one alert; a batch with too few rows says nothing; other models keep their automatic alarm."""
    world.alerts.add_rule(
        AlertRule(
            name="DriftTwice", on="drift", where={"model": "m*"}, value="verdict", equals="drift", needed=2, window=3
        )
    )
    for verdict in ("drift", "insufficient_data", "no_drift", "drift"):
        world.bus.publish(drift(verdict, alarm=verdict == "drift"))
    assert (alert(world).name, alert(world).kind, alert(world).model) == ("DriftTwice", "data_drift", "m")
    world.bus.publish(drift(model="other", alarm=True, drifted=("age",)))
    assert {each.name for each in world.alerts.history()} == {"DriftTwice", "DataDrift"}


def test_a_rule_on_effects_leaves_the_automatic_alarm_alone(world: World) -> None:
    """It tells something else: each feature by itself."""
    world.alerts.add_rule(AlertRule(name="Moved", on="drift", value="effects.*", above=0.3))
    world.bus.publish(drift(effects={"age": 0.4, "sex": 0.1, "bmi": 0.5}, drifted=("age", "bmi"), alarm=True))
    assert {(each.name, each.feature) for each in world.alerts.history()} == {
        ("Moved", "age"),
        ("Moved", "bmi"),
        ("DataDrift", ""),
    }


def test_a_rule_on_failures_stands_in_place_of_their_own_alerts(world: World) -> None:
    """Where it names the type; other operations alert as ever."""
    world.alerts.add_rule(
        AlertRule(
            name="PredictionsFail",
            on="operation",
            where={"kind": "prediction", "type": ["complete", "fail"]},
            value="type",
            equals="fail",
            needed=2,
            window=4,
        )
    )
    world.fail("1", kind="prediction", name="predict")
    assert world.alerts.history() == []
    world.bus.publish(complete("prediction", name="predict", attributes={}))
    world.fail("2", kind="prediction", name="predict")
    assert (alert(world).name, alert(world).kind) == ("PredictionsFail", "processing_failure")
    world.fail("3")
    assert len(world.alerts.history()) == 2


@pytest.mark.parametrize("call_first", [True, False])
def test_a_call_about_a_failure_that_a_rule_tells_adds_to_that_alert(world: World, call_first: bool) -> None:
    """One failure is one alert, whoever says it first; made good, it is over, though the rule names failures alone."""
    failing = {"kind": "ingestion", "type": "fail"}
    rule = AlertRule(
        name="IngestFailed", on="operation", where=failing, value="type", equals="fail", severity="warning"
    )
    world.alerts.add_rule(rule)
    if not call_first:
        world.fail("1")
    world.alerts.alert_processing_failure("data_ingestion", TimeoutError("Connection timeout"), operation_id="1")
    if call_first:
        world.fail("1")
    assert len(world.alerts.history()) == 1
    assert (alert(world).state, alert(world).count, alert(world).severity) == ("refined", 2, "critical")
    world.alerts.flush()
    assert len(world.pager.sent) == 1
    world.clock.now += 400
    world.bus.publish(complete("ingestion", name="data_ingestion", attributes={}))
    world.clock.now += 400
    world.alerts.flush()
    assert world.alerts.active() == []


def test_resources_each_disk_by_itself(world: World) -> None:
    """With hysteresis; two disks that fill up are two alerts."""
    world.alerts.add_rule(AlertRule(name="DiskLow", on="resources", value="disk_free_bytes.*", below=100, clear=200))
    for free in (150, 90, 150, 250):
        world.bus.publish(
            ResourceSample(
                name="process",
                cpu_ratio=1,
                memory_bytes=1,
                memory_available_bytes=1,
                disk_free_bytes={"/data": free, "/v1.5": 99},
            )
        )
    found = {each.feature: (each.kind, each.state) for each in world.alerts.history()}
    assert found == {"/data": ("resource_threshold", "resolved"), "/v1.5": ("resource_threshold", "raised")}


def test_what_is_audited_and_what_an_error_was(world: World) -> None:
    """A rule may be on any plain field, also of an entry in an entry, or of a kind of its own."""
    world.alerts.add_rule(AlertRule(name="Refused", on="audit", value="result", equals="failure", kind="security"))
    world.alerts.add_rule(AlertRule(name="OutOfDisk", on="operation", value="error.type", equals="OSError"))
    world.alerts.add_rule(AlertRule(name="Nested", on="operation", value="attributes.checks.age", equals=False))
    world.bus.publish(AuditEvent(action="data_access", result="failure"))
    world.bus.publish(complete(attributes={"checks": {"age": False}}))
    world.fail("1", kind="custom", name="job")
    assert {(each.name, each.kind) for each in world.alerts.history() if each.rule} == {
        ("Refused", "security"),
        ("Nested", "processing_failure"),
    }


# The rules themselves


def test_rules_are_added_listed_and_removed(world: World) -> None:
    """Each name once; what a removed rule alerted is resolved."""
    rule = queue()
    world.alerts.add_rule(rule)
    assert world.alerts.rules() == (rule,)
    with pytest.raises(
        AlertError, match=r"name of its own \(got 'QueueTooLong'\); rename it, or remove_rule the other"
    ):
        world.alerts.add_rule(queue(above=5, clear=None))
    world.alerts.observe_value("queue_length", 120)
    with pytest.raises(AlertError, match=r"must be there \(got 'QueueToLong'\); did you mean 'QueueTooLong'\?"):
        world.alerts.remove_rule("QueueToLong")
    world.alerts.remove_rule("QueueTooLong")
    assert (alert(world).state, world.alerts.rules()) == ("resolved", ())
    world.alerts.observe_value("queue_length", 120)
    assert len(world.alerts.history()) == 1


def test_the_file_of_the_settings_is_in_force() -> None:
    """Beside rules that were added, which outlive a change of settings."""
    Path("rules.yml").write_text("rules: [{name: FromFile, on: x, above: 1}]")
    alert_manager.add_rule(queue())
    try:
        ml_pipeline.configure(alert_rules_file="rules.yml")
        assert [rule.name for rule in alert_manager.rules()] == ["FromFile", "QueueTooLong"]
        alert_manager.observe_value("x", 2)
        assert [each.name for each in alert_manager.history()] == ["FromFile"]
    finally:
        alert_manager.remove_rule("QueueTooLong")


def test_a_wrong_file_costs_its_rules_and_not_the_job(world: World, capfd: pytest.CaptureFixture[str]) -> None:
    """None of it is taken, which is said once; rules that were added work on. Strict telemetry raises."""
    Path("rules.yml").write_text("rules: [{name: Good, on: x, above: 1}, {name: Bad, on: x}]")
    ml_pipeline.configure(alert_rules_file="rules.yml")
    with pytest.raises(AlertError, match="rule 2: rule 'Bad': exactly one of"):
        alert_manager.rules()
    with _runtime.override(strict=False):
        for _ in range(3):
            alert_manager.observe_value("x", 2)
        assert alert_manager.rules() == ()
        assert alert_manager.history() == []
    assert capfd.readouterr().err.count("rule 'Bad'") == 1


STEPS = st.tuples(st.sampled_from("abc"), st.sampled_from([50, 90, 120]), st.booleans(), st.integers(0, 400))


@settings(max_examples=150)
@given(st.lists(STEPS, max_size=40), st.sampled_from([0, 300]), st.integers(1, 3))
def test_whatever_comes_each_alert_is_resolved_once(
    steps: list[tuple[str, int, bool, int]], cooldown: int, window: int
) -> None:
    """Also by another process, which takes over in the middle; once all is good, nothing is open."""
    clock, bus, store = Clock(), Bus(), SqliteAlertStore(":memory:")
    events: list[AlertEvent] = []
    bus.subscribe("test", lambda event: events.append(event) if isinstance(event, AlertEvent) else None)
    rule = queue(cooldown_seconds=cooldown, needed=(window + 1) // 2, window=window)

    def process() -> AlertManager:
        manager = AlertManager(store=store, channels=[], clock=clock, bus=bus)
        manager.add_rule(rule)
        return manager

    manager = process()
    good = [(site, 50, False, 0) for site in "abc"] * window
    for site, value, is_new, later in [*steps, *good]:
        manager = process() if is_new else manager
        clock.now += later
        manager.observe_value("queue_length", value, site=site)
    told: dict[str, list[str]] = {}
    for event in events:
        if event.state != "suppressed":
            told.setdefault(event.alert_id, []).append(event.state)
    assert all(states == ["raised", "resolved"] for states in told.values()), told
    assert manager.active() == []
    _runtime.shutdown()
    store.close()
