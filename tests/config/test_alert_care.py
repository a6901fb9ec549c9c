"""What people do about alerts, and what time does: seen to, silenced, muted, escalated, over, summed up, forgotten."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _alert_occurrences as occurrences
from ml_pipeline.config._alert_active import LOOK_SECONDS
from ml_pipeline.config._alert_recoveries import Recoveries
from ml_pipeline.config._alert_upkeep import digest_period
from ml_pipeline.config._events import Bus, OperationEvent
from ml_pipeline.config.alerting import Alert, AlertManager
from ml_pipeline.config.prometheus_metrics import PipelineMetrics, pipeline_metrics
from ml_pipeline.errors import AlertError
from tests.config.alerting_world import World
from tests.support import eventually


@pytest.fixture
def world() -> World:
    """Return a world where nothing has happened yet."""
    return World()


def reasons(world: World) -> list[tuple[str, list[str]]]:
    """Return why each message was sent, and of which operations."""
    return [(message.reason, [alert.operation for alert in message.alerts]) for message in world.pager.sent]


def warn(world: World, operation: str = "a", **escalation: Any) -> str:
    """Raise a warning that may escalate."""
    said = occurrences.from_call(
        "data_quality", "warning", "m", {}, time=world.clock.now, operation=operation, feature="f"
    )
    return world.alerts.say(replace(said, **escalation))


@contextlib.contextmanager
def held_up(world: World) -> Iterator[None]:
    """Keep the background from delivering meanwhile, however slow the disk is."""
    with world.alerts._background.get()._deliverer._one_at_a_time:
        yield


# Messages


def test_what_happens_at_once_is_one_message(world: World) -> None:
    """The alerts of a moment share a mail; the next ones share another, half a minute later."""
    with held_up(world):
        for name in "abc":
            world.alerts.alert_processing_failure(name, "x")
    assert world.alerts.flush()
    for name in "de":
        world.clock.now += 1
        world.alerts.alert_processing_failure(name, "x")
    world.clock.now += 30
    assert world.alerts.flush()
    assert reasons(world) == [("firing", ["a", "b", "c"]), ("firing", ["d", "e"])]


def test_what_does_not_fit_is_counted(world: World) -> None:
    """Of 120 alerts the message holds 100, and says how many it does not."""
    with held_up(world):
        for index in range(120):
            world.alerts.alert_processing_failure(f"o{index}", "x")
    world.alerts.flush()
    (message,) = world.pager.sent
    assert len(message.alerts) == 100
    assert message.note == "20 more alerts are not shown here: see `ml-pipeline alerts list`."


def test_the_background_waits_to_share_and_not_too_long(world: World) -> None:
    """The first goes out within a second; the next one waits, until its time has come."""
    world.alerts.alert_processing_failure("a", "x")
    eventually(lambda: world.pager.sent)
    world.alerts.alert_processing_failure("b", "x")
    due = world.alerts._store.get().next_due(("pager",))
    assert due == world.clock.now + 30
    world.clock.now += 30
    world.alerts._background.get().wake()
    eventually(lambda: len(world.pager.sent) == 2)


def test_what_was_delivered_is_said_to_be_over(world: World) -> None:
    """By hand or because a condition has cleared; several in one message."""
    with held_up(world):
        ids = [world.alerts.alert_processing_failure(name, "x") for name in "abc"]
    world.alerts.flush()
    with held_up(world):
        world.alerts.resolve(ids[0])
        world.alerts.clear("processing_failure", "test", operation="b")
    world.alerts.flush()
    world.alerts.flush()
    assert reasons(world) == [("firing", ["a", "b", "c"]), ("resolved", ["a", "b"])]
    assert {alert.state for alert in world.pager.sent[1].alerts} == {"resolved"}


def test_a_notice_goes_out_by_itself(world: World) -> None:
    """Nothing else has to happen after an alert was resolved."""
    alert_id = world.alerts.alert_processing_failure("a", "x")
    world.alerts.flush()
    world.alerts.resolve(alert_id)
    eventually(lambda: len(world.pager.sent) == 2)


# Acknowledged, escalated


def test_an_acknowledged_alert_does_not_escalate(world: World) -> None:
    """Who sees to it stands in the history; of two warnings only the other becomes critical."""
    with held_up(world):
        seen, other = (warn(world, name, escalate_seconds=600.0) for name in "ab")
    world.alerts.flush()
    assert world.alerts.acknowledge(seen, by="ada")
    world.clock.now += 600
    world.alerts.flush()
    assert reasons(world) == [("firing", ["a", "b"]), ("escalated", ["b"])]
    by_id = {alert.alert_id: alert for alert in world.alerts.history()}
    assert (by_id[seen].acknowledged_by, by_id[seen].severity) == ("ada", "warning")
    assert (by_id[other].severity, by_id[other].escalated) == ("critical", True)
    assert world.states() == ["raised", "raised", "acknowledged", "escalated"]


def test_time_alone_escalates(world: World) -> None:
    """The background knows when that is."""
    warn(world, escalate_seconds=0.0)
    eventually(lambda: len(world.pager.sent) == 2)
    assert reasons(world) == [("firing", ["a"]), ("escalated", ["a"])]


def test_repeats_escalate(world: World) -> None:
    """Those that were only counted in memory, too."""
    for _ in range(6):
        warn(world, escalate_after=5, key="key")
    world.alerts.flush()
    assert [reason for reason, _ in reasons(world)][-1] == "escalated"
    assert world.states().count("escalated") == 1


@pytest.mark.parametrize(
    ("alert_id", "by", "text"),
    [
        ("nobody", "ada", "an alert that is acknowledged must be open (got 'nobody'); see alert_manager.active()"),
        ("nobody", " ", "an acknowledgement must have a name (got ' '); say who sees to it"),
    ],
)
def test_an_acknowledgement_that_cannot_be(world: World, alert_id: str, by: str, text: str) -> None:
    """Is an error under strict, and counted otherwise."""
    with pytest.raises(AlertError) as refused:
        world.alerts.acknowledge(alert_id, by=by)
    assert str(refused.value) == text
    with ml_pipeline.override(strict=False):
        assert not world.alerts.acknowledge(alert_id, by=by)


# Silenced, muted


def test_a_silenced_alert_is_heard_when_the_silence_ends(world: World) -> None:
    """It is raised and counted as held back; delivered once, if it is still open."""
    silence = world.alerts.silence(seconds=3600, reason="repair", by="ada", operation="a*")
    assert silence is not None
    assert world.alerts.silences() == [silence]
    over = world.alerts.alert_processing_failure("a1", "x")
    world.alerts.alert_processing_failure("a2", "x")
    world.alerts.alert_processing_failure("b", "x")
    world.alerts.flush()
    assert reasons(world) == [("firing", ["b"])]
    assert [(event.state, event.reason) for event in world.events[:2]] == [("raised", ""), ("suppressed", "silence")]
    world.alerts.resolve(over)
    world.clock.now += 3600
    for _ in range(2):
        world.alerts.flush()
    assert reasons(world)[1:] == [("firing", ["a2"])]
    assert world.alerts.silences() == []


def test_a_silence_that_is_ended_is_over_at_once(world: World) -> None:
    """In the background, without another alert."""
    silence = world.alerts.silence(seconds=3600, reason="repair", name="*")
    assert silence is not None
    world.alerts.alert_processing_failure("a", "x")
    assert world.alerts.flush()
    assert world.pager.sent == []
    assert world.alerts.end_silence(silence.silence_id)
    eventually(lambda: world.pager.sent)
    text = f"a silence that is ended must last still (got '{silence.silence_id}'); see alert_manager.silences()"
    with pytest.raises(AlertError) as refused:
        world.alerts.end_silence(silence.silence_id)
    assert str(refused.value) == text
    with ml_pipeline.override(strict=False):
        assert not world.alerts.end_silence(silence.silence_id)
        assert world.alerts.silence(seconds=0, reason="repair", name="*") is None


def test_a_process_without_channels_leaves_it_to_others(world: World) -> None:
    """It could deliver to nobody."""
    world.alerts.silence(seconds=60, reason="repair", name="*")
    world.alerts.alert_processing_failure("a", "x")
    world.clock.now += 60
    AlertManager(channels=[], clock=world.clock, bus=world.bus).flush()
    assert world.pager.sent == []
    world.alerts.flush()
    assert reasons(world) == [("firing", ["a"])]


def test_a_failed_ingestion_mutes_the_drift_it_causes(world: World) -> None:
    """Until it is resolved; the drift that is still there is told then."""
    failed = world.alerts.alert_processing_failure("data_ingestion", "x")
    world.alerts.alert_data_drift("m", "age")
    world.alerts.flush()
    world.alerts.resolve(failed)
    world.clock.now += 30
    world.alerts.flush()
    kinds = [(message.reason, message.alert.kind) for message in world.pager.sent]
    assert sorted(kinds) == [
        ("firing", "data_drift"),
        ("firing", "processing_failure"),
        ("resolved", "processing_failure"),
    ]
    assert [event.reason for event in world.events if event.state == "suppressed"] == ["inhibition"]


def test_the_metrics_count_each_reason(world: World) -> None:
    """From the events: what is active and what was held back by cooldown, silence and inhibition, from 0 on."""
    metrics = PipelineMetrics(CollectorRegistry())
    world.bus.subscribe("metrics", metrics)

    def value(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"ml_pipeline_{name}", {"pipeline": "test", **labels})

    failed = world.alerts.alert_processing_failure("data_ingestion", "x")
    for _ in range(50):
        world.alerts.alert_processing_failure("data_ingestion", "x")
    world.alerts.alert_data_drift("m", "age")
    assert value("alerts_suppressed_total", reason="silence") == 0
    world.alerts.silence(seconds=60, reason="repair", operation="b")
    warned = world.alerts.alert_processing_failure("b", "x", severity="warning")
    world.alerts.acknowledge(warned, by="ada")
    world.alerts.flush()
    assert value("alerts_suppressed_total", reason="cooldown") == 50
    assert value("alerts_suppressed_total", reason="inhibition") == 1
    assert value("alerts_suppressed_total", reason="silence") == 1
    assert (value("alerts_active", severity="critical"), value("alerts_active", severity="warning")) == (1, 2)
    world.alerts.resolve(failed)
    assert value("alerts_active", severity="critical") == 0


def test_an_alert_that_escalates_is_active_as_critical(world: World) -> None:
    """Once, not beside the warning it was."""
    metrics = PipelineMetrics(CollectorRegistry())
    world.bus.subscribe("metrics", metrics)
    warn(world, escalate_seconds=60.0)
    world.clock.now += 60
    world.alerts.flush()
    values = {
        severity: metrics.registry.get_sample_value(
            "ml_pipeline_alerts_active", {"pipeline": "test", "severity": severity}
        )
        for severity in ("warning", "critical")
    }
    assert values == {"warning": 0, "critical": 1}


def test_what_another_process_resolves_is_not_active_here(world: World) -> None:
    """The gauge of the process that raised it follows within half a minute; unknown alerts change nothing."""

    def active() -> float | None:
        labels = {"pipeline": "elsewhere_resolved", "severity": "critical"}
        return pipeline_metrics.registry.get_sample_value("ml_pipeline_alerts_active", labels)

    ml_pipeline.configure(name="elsewhere_resolved")
    alerts = AlertManager(channels=[world.pager], on_delivery=lambda *_: None)
    alert_id = alerts.alert_processing_failure("a", "x")
    assert active() == 1
    assert AlertManager(channels=[], bus=Bus()).resolve(alert_id)
    assert active() == 1
    for _ in range(2):
        alerts.flush()
    assert active() == 0


# Summed up, forgotten


def test_the_day_is_summed_up_in_a_mail(world: World) -> None:
    """Once, by whichever process is first, after its end in UTC; other channels get none."""
    world.pager.name = "email"
    ml_pipeline.configure(alert_digest="daily")
    world.clock.now = dt.datetime(2026, 11, 20, 15, tzinfo=dt.UTC).timestamp()
    for name in ("a", "b"):
        world.alerts.alert_processing_failure(name, "x")
    world.alerts.alert_processing_failure("a", "x")
    world.alerts.alert_data_quality("unique")
    world.alerts.flush()
    world.pager.sent.clear()
    world.clock.now = dt.datetime(2026, 11, 21, 0, 1, tzinfo=dt.UTC).timestamp()
    for manager in (world.manager(), world.alerts, world.manager()):
        manager.flush()
    (message,) = world.pager.sent
    assert message.reason == "digest"
    assert message.note == "3 alerts in 2026-11-20 (UTC): 2 critical, 1 warning; 1 repeats were held back."
    assert len(message.alerts) == 3


@pytest.mark.parametrize("digest", ["off", "daily"])
def test_no_digest_where_nothing_happened_or_nobody_wants_one(world: World, digest: str) -> None:
    """Off by default."""
    world.pager.name = "email"
    ml_pipeline.configure(alert_digest=digest)
    if digest == "off":
        world.alerts.alert_processing_failure("a", "x")
        world.alerts.flush()
        world.pager.sent.clear()
    world.clock.now += 86_400
    world.alerts.flush()
    assert world.pager.sent == []


def test_periods_are_days_and_weeks_in_utc() -> None:
    """The last whole one; a week begins on Monday."""
    now = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC).timestamp()

    def at(day: int, month: int = 11) -> float:
        return dt.datetime(2026, month, day, tzinfo=dt.UTC).timestamp()

    assert digest_period("daily", now) == ("2026-11-20", at(20), at(21), at(22))
    assert digest_period("weekly", now) == ("the week from 2026-11-09", at(9), at(16), at(23))
    assert digest_period("weekly", at(23)) == ("the week from 2026-11-16", at(16), at(23), at(30))


def test_old_alerts_are_forgotten(world: World) -> None:
    """After the days that log files are kept."""
    world.alerts.alert_processing_failure("a", "x")
    world.alerts.flush()
    _runtime.shutdown()
    world.clock.now += 90 * 86_400 + 1
    world.alerts.alert_processing_failure("b", "x")
    world.alerts.flush()
    assert [alert.operation for alert in world.alerts.history()] == ["b"]


# Where to


def test_the_settings_routes_decide_where_an_alert_goes(tmp_path: Path) -> None:
    """Those of the file; by default a warning goes everywhere, and what is for information to files and the console."""
    pytest.importorskip("yaml")
    file = tmp_path / "alerts.yml"
    file.write_text("routes:\n  - match: {operation: quiet}\n    channels: []\n")
    ml_pipeline.configure(alert_channels="console,file", alert_rules_file=file)
    alerts = AlertManager(bus=Bus(), on_delivery=lambda *_: None)
    alerts.alert_processing_failure("quiet", "x")
    alerts.alert_processing_failure("loud", "x")
    alerts.flush()
    assert alerts.summary().deliveries == {"console": {"sent": 1}, "file": {"sent": 1}}


def test_routes_that_cannot_be_cost_no_alert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mistake is said, and everything goes everywhere."""
    pytest.importorskip("yaml")
    file = tmp_path / "alerts.yml"
    file.write_text("routes:\n  - match: {operation: a}\n    channels: [fax]\n")
    ml_pipeline.configure(strict=False, alert_channels="file", alert_rules_file=file)
    alerts = AlertManager(bus=Bus(), on_delivery=lambda *_: None)
    alerts.alert_processing_failure("a", "x")
    alerts.flush()
    assert alerts.summary().deliveries == {"file": {"sent": 1}}
    assert "a channel must be among those alerts are delivered to (got 'fax')" in capsys.readouterr().err


# Made good


def test_what_goes_well_again_is_over_after_its_cooldown(world: World) -> None:
    """A failed operation whose next run ends well resolves its alert by itself; flapping makes no second one."""
    world.fail("first")
    world.alerts.flush()
    for number in range(3):
        complete(world, f"good{number}")
        world.fail(f"bad{number}")
    complete(world, "last")
    world.alerts.flush()
    assert [reason for reason, _ in reasons(world)] == ["firing"]
    world.clock.now += 300
    world.alerts.flush()
    assert reasons(world) == [("firing", ["data_ingestion"]), ("resolved", ["data_ingestion"])]
    assert world.alerts.active() == []
    assert world.states().count("raised") == world.states().count("resolved") == 1


def test_another_start_makes_it_good(world: World) -> None:
    """The process that failed is gone; the one that does it well finds its alert."""
    world.fail("first", attributes={"model_name": "m"})
    _runtime.shutdown()
    world.clock.now += 300
    complete(world, "other", attributes={"model_name": "other"})
    world.alerts.flush()
    assert len(world.alerts.active()) == 1
    complete(world, "second", attributes={"model_name": "m"})
    world.alerts.flush()
    assert world.alerts.active() == []


def test_an_operation_that_goes_well_all_the_time_asks_no_store(world: World) -> None:
    """Nor is one made for it; with one, it is asked once in a while, and after each failure."""
    asked: list[float] = []
    there = False
    store = world.alerts._store
    passed = [0.0]
    recoveries = Recoveries(
        lambda: asked.append(passed[0]) or store.get(),  # type: ignore[func-returns-value]
        lambda: there,
        clock=world.clock,
        wake=lambda: None,
        monotonic=lambda: passed[0],
    )
    good = OperationEvent(type="complete", operation_id="op", kind="prediction", name="prediction")
    recoveries.completed(good)
    assert asked == []
    there = True
    for second in range(100):
        passed[0] = second
        recoveries.completed(good)
    assert asked == [30.0, 60.0, 90.0]
    recoveries.failed(replace(alert_of_failure(world), operation="prediction"))
    recoveries.completed(good)
    assert asked[3:] == [99.0]


def test_what_is_known_of_operations_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that never come again do not fill the memory."""
    monkeypatch.setattr("ml_pipeline.config._alert_recoveries._MOST_KNOWN", 10)
    recoveries = Recoveries(world.alerts._store.get, lambda: False, clock=world.clock, wake=lambda: None)
    for index in range(100):
        recoveries.completed(OperationEvent(type="complete", operation_id="op", kind="custom", name=f"o{index}"))
        assert len(recoveries._looked) <= 10


def complete(world: World, operation_id: str, **fields: Any) -> None:
    """Publish the good end of an ingestion."""
    given = {"kind": "ingestion", "name": "data_ingestion", **fields}
    world.bus.publish(OperationEvent(type="complete", operation_id=operation_id, **given))


def alert_of_failure(world: World) -> Alert:
    """Raise an alert of a failure and return it."""
    world.alerts.alert_processing_failure("a", "x")
    return world.alerts.history()[0]


def test_what_is_open_since_before_is_active_in_the_next_process(world: World) -> None:
    """Read from the store; as severe as it is there by now, and no longer once another has resolved it."""

    def active(severity: str) -> float | None:
        labels = {"pipeline": "next", "severity": severity}
        return pipeline_metrics.registry.get_sample_value("ml_pipeline_alerts_active", labels)

    def process() -> AlertManager:
        return AlertManager(channels=[world.pager], clock=world.clock, on_delivery=lambda *_: None, bus=Bus())

    ml_pipeline.configure(name="next")
    earlier, later = process(), process()
    alert_id = earlier.alert_processing_failure("a", "x")
    earlier.alert_data_quality("b")
    earlier.alert_processing_failure("c", "x", severity="warning")
    later.flush()
    assert (active("critical"), active("warning")) == (1, 2)
    later.flush()
    earlier.resolve(alert_id)
    world.clock.now += LOOK_SECONDS
    later.flush()
    assert (active("critical"), active("warning")) == (0, 2)
