"""The contract of an outbox whose alerts go through Alertmanager while that can be reached, as tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_pipeline.config._alert_store import ALERTMANAGER
from ml_pipeline.testing.alert_store_contract import record, said

if TYPE_CHECKING:
    from ml_pipeline.config._alert_records import Delivery
    from ml_pipeline.config._alert_store import AlertStore

__all__ = ["AlertFallbackContract"]

BOTH = (ALERTMANAGER, "email")
AFTER = 60.0
LEASE = 30.0


def claim(store: AlertStore, time: float, *channels: str, early: bool = False) -> Delivery | None:
    """Claim the next message."""
    return store.claim(channels or (*BOTH, "slack"), time=time, lease_seconds=LEASE, early=early)


def states(store: AlertStore) -> dict[str, dict[str, int]]:
    """Count deliveries by channel and state."""
    return {channel: dict(counts) for channel, counts in store.summarise(0.0).deliveries.items()}  # type: ignore[arg-type]


class AlertFallbackContract:
    """What an `AlertStore` must do about the channel `ALERTMANAGER`; subclass it and give the fixture ``store``."""

    def test_the_other_channels_wait_for_alertmanager(self, store: AlertStore) -> None:
        """What it has taken is covered: nobody sends it again."""
        record(store, said(1000.0), *BOTH, "slack")
        taken = claim(store, 1000.0)
        assert taken is not None
        assert (taken.channel, taken.note) == (ALERTMANAGER, "")
        assert claim(store, 1000.0) is None
        store.settle(taken.delivery_id, "sent", time=1001.0)
        assert states(store) == {ALERTMANAGER: {"sent": 1}, "email": {"covered": 1}, "slack": {"covered": 1}}
        assert claim(store, 5000.0) is None
        assert store.next_due(BOTH) is None

    def test_what_it_has_not_taken_in_time_goes_the_other_ways(self, store: AlertStore) -> None:
        """Each of them, with a note that says so; then it is Alertmanager that is covered."""
        record(store, said(1000.0), *BOTH, "slack")
        assert store.next_due(("email", "slack")) == 1000.0 + AFTER
        tried = claim(store, 1000.0)
        assert tried is not None
        store.settle(tried.delivery_id, "pending", time=1001.0, due=1500.0, error="nothing listens there")
        assert claim(store, 1000.0 + AFTER - 1) is None
        for channel in ("email", "slack"):
            sent = claim(store, 1000.0 + AFTER, channel)
            assert sent is not None
            assert sent.note == "Alertmanager has not taken this, so the pipeline sends it itself."
            store.settle(sent.delivery_id, "sent", time=1000.0 + AFTER)
        assert states(store) == {ALERTMANAGER: {"covered": 1}, "email": {"sent": 1}, "slack": {"sent": 1}}
        assert claim(store, 5000.0) is None

    def test_what_it_refuses_for_good_goes_the_other_ways(self, store: AlertStore) -> None:
        """A dead letter covers nothing."""
        record(store, said(1000.0), *BOTH)
        refused = claim(store, 1000.0)
        assert refused is not None
        store.settle(refused.delivery_id, "dead", time=1000.0, error="400")
        assert claim(store, 1000.0 + AFTER) is not None
        assert states(store) == {ALERTMANAGER: {"dead": 1}, "email": {"pending": 1}}

    def test_what_is_on_its_way_through_one_is_not_sent_through_the_other(self, store: AlertStore) -> None:
        """Not even when it is due, until that attempt has ended or its lease is over; nobody spins meanwhile."""
        record(store, said(1000.0), *BOTH)
        assert claim(store, 1000.0 + AFTER - 1, ALERTMANAGER) is not None
        assert claim(store, 1000.0 + AFTER, "email") is None
        over = 1000.0 + AFTER - 1 + LEASE
        assert store.next_due(("email",)) == over
        mail = claim(store, over, "email")
        assert mail is not None
        assert claim(store, over, ALERTMANAGER) is None
        assert store.next_due((ALERTMANAGER,)) == over + LEASE
        store.settle(mail.delivery_id, "sent", time=over)
        assert store.next_due((ALERTMANAGER,)) is None

    def test_a_message_that_is_tried_again_leaves_out_what_was_covered_since(self, store: AlertStore) -> None:
        """Of two alerts in a mail that could not be sent, Alertmanager has taken one."""
        record(store, said(1000.0, operation="a"), *BOTH)
        mail = claim(store, 1000.0 + AFTER, "email")
        assert mail is not None
        store.settle(mail.delivery_id, "pending", time=1061.0, due=1070.0, error="4xx")
        record(store, said(1062.0, operation="b"), *BOTH)
        taken = claim(store, 1063.0, ALERTMANAGER)
        assert taken is not None
        assert {alert.operation for alert in taken.alerts} == {"a", "b"}
        store.settle(taken.delivery_id, "sent", time=1064.0)
        assert claim(store, 5000.0) is None
        assert states(store) == {ALERTMANAGER: {"sent": 2}, "email": {"covered": 2}}

    def test_alertmanager_is_told_of_all_at_once_and_groups_by_itself(self, store: AlertStore) -> None:
        """No limit of a message, no pause after the last one."""
        for number in range(150):
            record(store, said(1000.0, operation=str(number)), *BOTH)
        first = claim(store, 1000.0)
        assert first is not None
        assert (len(first.alerts), first.more) == (150, 0)
        store.settle(first.delivery_id, "sent", time=1000.0)
        record(store, said(1001.0, operation="later"), *BOTH)
        assert claim(store, 1001.0) is not None

    def test_the_end_is_told_to_whoever_was_told_of_the_alert(self, store: AlertStore) -> None:
        """Through Alertmanager where it took it, else the other way; and at once."""
        _, through = record(store, said(1000.0, operation="a"), *BOTH)
        taken = claim(store, 1000.0)
        assert taken is not None
        store.settle(taken.delivery_id, "sent", time=1000.0)
        _, around = record(store, said(1001.0, operation="b"), *BOTH)
        mail = claim(store, 1001.0 + AFTER, "email")
        assert mail is not None
        store.settle(mail.delivery_id, "sent", time=1062.0)
        for alert_id in (through, around):
            store.resolve(alert_id, time=1100.0)
        ends = {}
        for _ in range(2):
            end = claim(store, 1140.0)
            assert end is not None
            ends[end.channel] = [alert.alert_id for alert in end.alerts], end.reason
            store.settle(end.delivery_id, "sent", time=1140.0)
        assert ends == {ALERTMANAGER: ([through], "resolved"), "email": ([around], "resolved")}

    def test_open_alerts_that_it_was_told_of_can_be_asked_for(self, store: AlertStore) -> None:
        """To be told again; not what is over, and not what went another way."""
        _, first = record(store, said(1000.0, operation="a"), *BOTH)
        taken = claim(store, 1000.0)
        assert taken is not None
        assert store.told(ALERTMANAGER, limit=10) == []
        store.settle(taken.delivery_id, "sent", time=1000.0)
        record(store, said(1001.0, operation="b"), "email")
        assert [alert.alert_id for alert in store.told(ALERTMANAGER, limit=10)] == [first]
        assert store.told("email", limit=10) == []
        store.resolve(first, time=1002.0)
        assert store.told(ALERTMANAGER, limit=10) == []

    def test_at_the_end_of_a_process_nothing_waits(self, store: AlertStore) -> None:
        """Alertmanager is asked first; where it cannot be reached the mail goes, for nobody may be there later."""
        record(store, said(1000.0), *BOTH)
        first = claim(store, 1001.0, early=True)
        assert first is not None
        assert first.channel == ALERTMANAGER
        store.settle(first.delivery_id, "pending", time=1001.0, due=1003.0)
        second = claim(store, 1001.0, early=True)
        assert second is not None
        assert second.channel == "email"
