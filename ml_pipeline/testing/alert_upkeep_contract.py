"""The contract of what an alert store does with alerts that were raised, as tests: subclass it for one of your own."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from ml_pipeline.config._alert_silences import Silence
from ml_pipeline.config._alert_tables_upkeep import INHIBITION_SECONDS, LOOK_AGAIN_SECONDS
from ml_pipeline.testing.alert_outbox_contract import claim
from ml_pipeline.testing.alert_store_contract import record, said

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ml_pipeline.config._alert_records import Alert
    from ml_pipeline.config._alert_store import AlertStore

__all__ = ["AlertUpkeepContract"]


def by_mail(_: Alert) -> tuple[str, ...]:
    """Send everything by mail."""
    return ("email",)


def silence(**fields: Any) -> Silence:
    """Make a silence from 1000 to 1100 of everything in one pipeline."""
    given = {"silence_id": "s", "matchers": {"pipeline": "p"}, "since": 1000.0, "until": 1100.0, "reason": "repair"}
    return Silence(**{**given, **fields})


class AlertUpkeepContract:
    """What any `AlertStore` must do as time passes; subclass it and give the fixture ``store``."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[AlertStore]:
        """Return the store under test, empty."""
        raise NotImplementedError("a contract is held to a store: override the fixture `store`")

    def test_an_alert_is_found_by_its_id(self, store: AlertStore) -> None:
        """As it stands; None for an id that there is not."""
        occurrence = said(labels={"team": "a"}, name="N", runbook="r")
        record(store, occurrence)
        assert store.get(occurrence.alert.alert_id) == occurrence.alert
        assert store.get("nobody") is None

    def test_an_acknowledged_alert_has_a_name(self, store: AlertStore) -> None:
        """Open alerts can be acknowledged, by another after that, and others not."""
        occurrence = said()
        record(store, occurrence)
        for name in ("ada", "bob"):
            alert = store.acknowledge(occurrence.alert.alert_id, by=name, time=1001.0)
            assert alert is not None
            assert (alert.acknowledged_by, alert.acknowledged_time) == (name, 1001.0)
        store.resolve(occurrence.alert.alert_id, time=1002.0)
        assert store.acknowledge(occurrence.alert.alert_id, by="ada", time=1003.0) is None
        assert store.acknowledge("nobody", by="ada", time=1003.0) is None

    def test_repeats_counted_elsewhere_are_added(self, store: AlertStore) -> None:
        """With the time of the last; an alert that is over is told apart, and counts all the same."""
        occurrence = said(1000.0)
        record(store, occurrence)
        alert = store.hold(occurrence.alert.alert_id, 10, time=1005.0)
        assert alert is not None
        assert (alert.count, alert.held_back, alert.last_time) == (11, 10, 1005.0)
        store.resolve(occurrence.alert.alert_id, time=1006.0)
        over = store.hold(occurrence.alert.alert_id, 1, time=1005.5)
        assert over is not None
        assert (over.state, over.held_back, over.last_time) == ("resolved", 11, 1006.0)
        assert store.hold("nobody", 1, time=1000.0) is None

    def test_a_silenced_alert_is_recorded_and_not_delivered(self, store: AlertStore) -> None:
        """It is in the history, muted, and its repeats are counted; another alert is delivered."""
        store.add_silence(silence())
        occurrence = said(1000.0)
        recorded = store.record(occurrence, channels=("email",), cooldown_seconds=60.0)
        assert (recorded.outcome, recorded.alert.muted) == ("raised", "silence")
        assert record(store, said(1001.0), "email")[0] == "suppressed"
        assert claim(store, 1001.0) is None
        record(store, said(1002.0, pipeline="other"), "email")
        assert claim(store, 1002.0) is not None

    @pytest.mark.parametrize("time", [999.9, 1100.0])
    def test_a_silence_has_its_time(self, store: AlertStore, time: float) -> None:
        """Before and after it an alert is delivered."""
        store.add_silence(silence())
        record(store, said(time), "email")
        assert claim(store, time) is not None

    def test_what_is_open_when_its_silence_ends_is_delivered_once(self, store: AlertStore) -> None:
        """Not before; what was resolved meanwhile is never heard of, and neither is its end."""
        store.add_silence(silence())
        over, still = said(1000.0, operation="over"), said(1000.0, operation="still")
        for occurrence in (over, still):
            record(store, occurrence, "email")
        store.resolve(over.alert.alert_id, time=1010.0)
        assert store.unmute(by_mail, time=1099.0) == []
        (heard,) = store.unmute(by_mail, time=1100.0)
        assert (heard.operation, heard.muted) == ("still", "")
        assert store.unmute(by_mail, time=1101.0) == []
        message = claim(store, 1101.0)
        assert message is not None
        assert message.alerts == (still.alert,)
        assert claim(store, 1102.0, early=True) is None

    def test_a_silence_can_be_ended(self, store: AlertStore) -> None:
        """Once, and those that last are listed, the first to end first."""
        store.add_silence(silence())
        store.add_silence(silence(silence_id="t", until=1050.0, by="ada"))
        assert [each.silence_id for each in store.silences(1010.0)] == ["t", "s"]
        assert store.silences(1010.0)[1] == silence()
        assert store.end_silence("s", time=1010.0)
        assert not store.end_silence("s", time=1010.0)
        assert not store.end_silence("nobody", time=1010.0)
        assert [each.silence_id for each in store.silences(1010.0)] == ["t"]

    def test_a_failed_ingestion_mutes_what_it_causes(self, store: AlertStore) -> None:
        """Alarms about data of the same pipeline, while it is open; they are delivered when it is over."""
        failed = said(1000.0, name="IngestionErrors")
        record(store, failed, "email")
        drift = said(1001.0, kind="data_drift", name="DataDrift", severity="warning", operation="")
        assert store.record(drift, channels=("email",), cooldown_seconds=60.0).alert.muted == "inhibition"
        for heard in (
            said(1001.0, kind="data_drift", pipeline="other"),
            said(1001.0, kind="resource_threshold"),
            said(1001.0, operation="x"),
        ):
            assert store.record(heard, channels=("email",), cooldown_seconds=60.0).alert.muted == ""
        assert store.unmute(by_mail, time=1002.0) == []
        store.resolve(failed.alert.alert_id, time=1003.0)
        assert store.unmute(by_mail, time=1003.0) == [drift.alert]

    def test_a_failure_that_nobody_resolves_mutes_for_a_while_only(self, store: AlertStore) -> None:
        """After an hour without a word the ingestion has gone well, or nobody looks."""
        record(store, said(1000.0, name="IngestionErrors"), "email")
        record(store, said(1001.0, kind="data_quality"), "email")
        assert store.unmute(by_mail, time=999.0 + INHIBITION_SECONDS) == []
        assert len(store.unmute(by_mail, time=1000.0 + INHIBITION_SECONDS)) == 1

    def test_one_cause_takes_the_place_of_another(self, store: AlertStore) -> None:
        """What is silenced when its cause is over stays muted, for another reason."""
        failed = said(1000.0, name="IngestionErrors")
        record(store, failed)
        drift = said(1001.0, kind="data_drift")
        record(store, drift)
        store.add_silence(silence(matchers={"kind": "data_*"}))
        store.resolve(failed.alert.alert_id, time=1002.0)
        assert store.unmute(by_mail, time=1003.0) == []
        alert = store.get(drift.alert.alert_id)
        assert alert is not None
        assert alert.muted == "silence"

    def test_what_is_said_too_often_becomes_critical(self, store: AlertStore) -> None:
        """One further message, once."""
        occurrence = replace(said(1000.0, severity="warning"), escalate_after=3)
        record(store, occurrence, "email")
        assert claim(store, 1000.0) is not None
        record(store, said(1001.0, severity="warning"), "email")
        assert store.escalate(by_mail, time=1001.0) == []
        record(store, said(1002.0, severity="warning"), "email")
        (alert,) = store.escalate(by_mail, time=1002.0)
        assert (alert.severity, alert.escalated) == ("critical", True)
        assert store.escalate(by_mail, time=1003.0) == []
        message = claim(store, 1003.0)
        assert message is not None
        assert (message.reason, message.alerts) == ("escalated", (alert,))

    def test_what_becomes_worse_is_said_at_once(self, store: AlertStore) -> None:
        """No cooldown of a warning holds back what is critical; that is told once, and where critical ones go."""
        _, alert_id = record(store, said(1000.0, severity="warning", message="85 %"), "email")
        assert claim(store, 1000.0) is not None
        assert record(store, said(1001.0, severity="critical", message="99 %"), "email", "pager") == (
            "refined",
            alert_id,
        )
        alert = store.get(alert_id)
        assert alert is not None
        assert (alert.severity, alert.message, alert.escalated, alert.count) == ("critical", "99 %", True, 2)
        for channel, reason in (("email", "escalated"), ("pager", "firing")):
            message = store.claim((channel,), time=1001.0, lease_seconds=10.0)
            assert message is not None
            assert (message.reason, message.alerts) == (reason, (alert,))
        assert record(store, said(1002.0, severity="critical"), "email", "pager")[0] == "suppressed"
        assert record(store, said(1003.0, severity="warning"), "email", "pager")[0] == "suppressed"
        assert len(store.deliveries(alert_id)) == 3

    def test_what_becomes_worse_before_it_is_said_is_said_once(self, store: AlertStore) -> None:
        """Neither what waits still, nor another view of the failure, makes a second message on a channel."""
        record(store, said(1000.0, severity="warning"), "email")
        record(store, said(1000.1, severity="critical"), "email", "pager")
        message = claim(store, 1000.5)
        assert message is not None
        assert message.alert.severity == "critical"
        record(store, said(1000.0, severity="warning", operation="b", operation_id="o"), "email")
        assert claim(store, 1030.5) is not None
        seen = said(1031.0, severity="critical", operation="b", operation_id="o", automatic=True)
        assert record(store, seen, "email", "pager")[0] == "refined"
        assert [delivery.reason for delivery in store.deliveries(store.find(limit=1)[0].alert_id)] == ["firing"] * 2

    def test_what_becomes_worse_while_it_is_muted_is_heard_once(self, store: AlertStore) -> None:
        """A silence holds for what is worse, too, unless it names the severity."""
        store.add_silence(silence(matchers={"severity": "warning"}))
        record(store, said(1000.0, severity="warning"), "email")
        record(store, said(1001.0, severity="critical"), "email")
        assert claim(store, 1001.0) is None
        assert len(store.unmute(by_mail, time=1001.0)) == 1
        message = claim(store, 1001.0)
        assert message is not None
        assert (message.reason, message.alert.severity) == ("firing", "critical")

    def test_what_nobody_sees_to_becomes_critical(self, store: AlertStore) -> None:
        """After its time, and not if it was acknowledged or resolved; when that is can be asked."""
        occurrences = [replace(said(1000.0, operation=name), escalate_seconds=60.0) for name in "abc"]
        for occurrence in occurrences:
            record(store, occurrence)
        assert store.next_change(1000.0) == 1060.0
        store.acknowledge(occurrences[0].alert.alert_id, by="ada", time=1001.0)
        store.resolve(occurrences[1].alert.alert_id, time=1001.0)
        assert store.escalate(by_mail, time=1059.9) == []
        assert [alert.operation for alert in store.escalate(by_mail, time=1060.0)] == ["c"]
        assert store.next_change(1060.0) is None

    def test_what_escalates_while_it_is_muted_is_heard_once(self, store: AlertStore) -> None:
        """Critical, when its silence ends."""
        store.add_silence(silence())
        record(store, replace(said(1000.0, severity="warning"), escalate_seconds=60.0), "email")
        store.escalate(by_mail, time=1060.0)
        assert claim(store, 1060.0) is None
        store.unmute(by_mail, time=1100.0)
        message = claim(store, 1100.0)
        assert message is not None
        assert (message.reason, message.alert.severity) == ("firing", "critical")
        assert claim(store, 1102.0, early=True) is None

    def test_that_it_is_critical_need_not_be_said_of_what_is_over(self, store: AlertStore) -> None:
        """A message that waits is covered by the notice."""
        occurrence = replace(said(1000.0, severity="warning"), escalate_seconds=60.0)
        record(store, occurrence, "email")
        message = claim(store, 1000.0)
        assert message is not None
        store.settle(message.delivery_id, "sent", time=1000.0)
        store.escalate(by_mail, time=1060.0)
        store.resolve(occurrence.alert.alert_id, time=1061.0)
        over = claim(store, 1061.0)
        assert over is not None
        assert over.reason == "resolved"
        assert claim(store, 1062.0) is None
        assert store.summarise(0.0).deliveries["email"]["covered"] == 1

    def test_a_muted_alert_is_looked_after(self, store: AlertStore) -> None:
        """At the end of the silence, and before that, as others may end it."""
        store.add_silence(silence())
        assert store.next_change(1000.0) is None
        record(store, said(1000.0), "email")
        assert store.next_change(1000.0) == 1000.0 + LOOK_AGAIN_SECONDS
        assert store.next_change(1090.0) == 1100.0

    def test_what_has_gone_well_since_is_resolved(self, store: AlertStore) -> None:
        """The failure of that operation and model, raised by then; nobody is told who was not told of it."""
        failed = said(1000.0, model="m")
        record(store, failed, "email")
        for other in (said(1000.0, operation="o"), said(1000.0, kind="data_quality"), said(1000.0, name="OfARule")):
            record(store, other)
        assert not store.went_well("p", "data_ingestion", "", time=1010.0)
        assert not store.went_well("other", "data_ingestion", "m", time=1010.0)
        assert not store.went_well("p", "data_ingestion", "m", time=999.0), "it has failed since"
        assert store.went_well("p", "data_ingestion", "m", time=1010.0)
        assert not store.went_well("p", "data_ingestion", "m", time=1020.0), "that is known"
        assert store.resolve_mended(999.9, time=1030.0) == []
        assert store.next_change(1030.0) == 1030.0 + LOOK_AGAIN_SECONDS
        (over,) = store.resolve_mended(1000.0, time=1060.0)
        assert (over.alert_id, over.state, over.last_time) == (failed.alert.alert_id, "resolved", 1060.0)
        assert store.resolve_mended(1000.0, time=1060.0) == []
        assert len(store.find(limit=10, only_active=True)) == 3

    @pytest.mark.parametrize("counted", [True, False])
    def test_what_fails_again_is_not_over(self, store: AlertStore, counted: bool) -> None:
        """A repeat takes back that it went well, until it goes well again."""
        failed = said(1000.0)
        record(store, failed)
        assert store.went_well("p", "data_ingestion", "", time=1005.0)
        if counted:
            store.hold(failed.alert.alert_id, 1, time=1010.0)
        else:
            record(store, said(1010.0))
        assert store.resolve_mended(1000.0, time=1060.0) == []
        assert store.went_well("p", "data_ingestion", "", time=1020.0)
        assert len(store.resolve_mended(1000.0, time=1060.0)) == 1

    def test_a_repeat_that_is_counted_late_takes_nothing_back(self, store: AlertStore) -> None:
        """It was said before the operation went well."""
        failed = said(1000.0)
        record(store, failed)
        assert store.went_well("p", "data_ingestion", "", time=1005.0)
        store.hold(failed.alert.alert_id, 1, time=1004.0)
        assert len(store.resolve_mended(1000.0, time=1060.0)) == 1

    def test_a_period_is_summed_up_once(self, store: AlertStore) -> None:
        """Its alerts in one message, the most severe first, with the sentence given; later askers get nothing."""
        for index, severity in enumerate(("info", "critical", "info", "info")):
            record(store, said(1000.0 + 10 * index, operation=f"o{index}", severity=severity, pipeline=f"p{index}"))
        assert store.digest("today", ("email",), "A day.", since=1000.0, until=1030.0)
        assert not store.digest("today", ("email",), "A day.", since=1000.0, until=1030.0)
        message = claim(store, 1030.0)
        assert message is not None
        assert (message.reason, message.note) == ("digest", "A day.")
        assert [alert.operation for alert in message.alerts] == ["o1", "o0", "o2"]
        assert store.summarise(1000.0, 1030.0).alerts == 3
        assert store.summarise(0.0).deliveries == {}

    def test_a_period_without_alerts_is_no_message(self, store: AlertStore) -> None:
        """Nobody is told that nothing happened."""
        assert store.digest("today", ("email",), "", since=0.0, until=1.0)
        assert claim(store, 1.0) is None

    def test_what_is_old_is_forgotten(self, store: AlertStore) -> None:
        """With its deliveries, by when it was last said; what has yet to be delivered is kept."""
        for name, last in (("old", 1000.0), ("said", 2000.0), ("waits", 1000.0)):
            record(
                store, said(1000.0, operation=name, failure="x", around=("o",)), *(["email"] if name != "said" else [])
            )
            if last > 1000.0:
                record(store, said(last, operation=name), cooldown=5000.0)
        message = claim(store, 1000.0)
        assert message is not None
        record(store, said(1000.0, operation="late"), "email")
        store.settle(message.delivery_id, "dead", time=1000.0)
        assert store.forget(1500.0) > 0
        assert {alert.operation for alert in store.find(limit=10)} == {"said", "late"}
        assert store.forget(1500.0) == 0
