"""The contract of an alert store's outbox, as tests: subclass it for a store of your own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ml_pipeline.config._alert_tables_outbox import GROUP_SECONDS, MOST_IN_A_MESSAGE
from ml_pipeline.testing.alert_store_contract import record, said

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ml_pipeline.config._alert_records import Delivery, DeliveryState
    from ml_pipeline.config._alert_store import AlertStore

__all__ = ["AlertOutboxContract", "claim"]


def claim(store: AlertStore, time: float, *, early: bool = False) -> Delivery | None:
    """Claim a mail for half a minute."""
    return store.claim(("email",), time=time, lease_seconds=30.0, early=early)


class AlertOutboxContract:
    """What any `AlertStore` must do for deliverers; subclass it and give the fixture ``store``."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[AlertStore]:
        """Return the store under test, empty."""
        raise NotImplementedError("a contract is held to a store: override the fixture `store`")

    def test_a_claim_is_one_callers_until_its_lease_ends(self, store: AlertStore) -> None:
        """Nobody else gets a claimed delivery; after the lease it is taken up again, one attempt later."""
        record(store, said(1000.0), "email")
        first = store.claim(("email",), time=1000.0, lease_seconds=30.0)
        assert store.claim(("email",), time=1029.9, lease_seconds=30.0) is None
        assert store.next_due(("email",)) == 1030.0
        second = store.claim(("email",), time=1030.0, lease_seconds=30.0)
        assert first is not None
        assert second is not None
        assert (first.delivery_id, second.attempt) == (second.delivery_id, 2)

    def test_only_channels_the_caller_has_are_claimed(self, store: AlertStore) -> None:
        """A process without a mail server leaves the mails to one that has it."""
        record(store, said(1000.0), "email")
        assert store.claim(("console",), time=1000.0, lease_seconds=1.0) is None
        assert store.next_due(("console",)) is None
        assert store.claim((), time=1000.0, lease_seconds=1.0) is None

    def test_a_failed_delivery_waits_for_its_time(self, store: AlertStore) -> None:
        """Put back with a time, it is not due before; settled for good, it is not due at all."""
        record(store, said(1000.0), "email")
        delivery = store.claim(("email",), time=1000.0, lease_seconds=30.0)
        assert delivery is not None
        store.settle(delivery.delivery_id, "pending", time=1001.0, due=1010.0, error="451 later")
        assert store.claim(("email",), time=1009.9, lease_seconds=30.0) is None
        assert store.next_due(("email",)) == 1010.0
        assert store.claim(("email",), time=1010.0, lease_seconds=30.0) is not None
        store.settle(delivery.delivery_id, "dead", time=1011.0, error="550 no")
        assert store.next_due(("email",)) is None
        assert store.summarise(0.0).deliveries == {"email": {"dead": 1}}

    def test_what_was_sent_stays_sent(self, store: AlertStore) -> None:
        """Where a lease ran out and two callers disagree, the one who sent it is right."""
        record(store, said(1000.0), "email")
        delivery = store.claim(("email",), time=1000.0, lease_seconds=1.0)
        assert delivery is not None
        states: list[DeliveryState] = ["dead", "sent", "pending", "dead"]
        for state in states:
            store.settle(delivery.delivery_id, state, time=1002.0, due=1003.0)
        assert store.summarise(0.0).deliveries == {"email": {"sent": 1}}

    def test_the_longest_due_comes_first(self, store: AlertStore) -> None:
        """Deliveries go out in the order in which they became due."""
        for index in (2, 0, 1):
            record(store, said(1000.0 + index, pipeline=f"p{index}"), "email")
        claimed = [store.claim(("email",), time=1010.0, lease_seconds=1.0) for _ in range(3)]
        assert [delivery.alert.pipeline for delivery in claimed if delivery] == ["p0", "p1", "p2"]

    def test_a_delivery_carries_the_alert_as_it_stands(self, store: AlertStore) -> None:
        """What was added between raising and sending is in what is sent."""
        record(store, said(1000.0, automatic=True, failure="x", operation_id="op"), "email")
        record(store, said(1000.0, failure="x", operation_id="op", details={"host": "db1"}), "email")
        delivery = store.claim(("email",), time=1000.0, lease_seconds=1.0)
        assert delivery is not None
        assert (delivery.alert.details, delivery.alert.count) == ({"host": "db1"}, 2)

    def test_what_is_raised_together_is_one_message(self, store: AlertStore) -> None:
        """Alerts of one pipeline that wait are one message, the most severe first; another pipeline has its own."""
        record(store, said(1000.0, operation="a", severity="warning"), "email")
        record(store, said(1000.0, operation="b"), "email")
        record(store, said(1000.0, operation="c", pipeline="other"), "email")
        messages = [claim(store, 1000.0), claim(store, 1000.0), claim(store, 1000.0)]
        said_of = [[alert.operation for alert in message.alerts] for message in messages if message]
        assert said_of == [["b", "a"], ["c"]]

    def test_what_comes_later_shares_the_next_message(self, store: AlertStore) -> None:
        """The first alert is due at once, and what follows within half a minute that long after its message."""
        record(store, said(1000.0, operation="a"), "email")
        first = claim(store, 1000.5)
        for index in range(3):
            record(store, said(1001.0 + index, operation=f"b{index}"), "email")
        assert first is not None
        store.settle(first.delivery_id, "sent", time=1000.6)
        assert claim(store, 1030.4) is None
        assert store.next_due(("email",)) == 1000.5 + GROUP_SECONDS
        second = claim(store, 1030.5)
        assert second is not None
        assert len(second.alerts) == 3
        assert second.queued == 1001.0

    def test_after_a_while_the_first_is_due_at_once_again(self, store: AlertStore) -> None:
        """What is raised longer than that after the last message waits for nothing, nor after a clock stepped back."""
        record(store, said(1000.0, operation="a"), "email")
        assert claim(store, 1000.0) is not None
        record(store, said(1030.0, operation="b"), "email")
        assert claim(store, 1030.0) is not None
        record(store, said(500.0, operation="c"), "email")
        assert claim(store, 500.0) is not None

    def test_what_was_raised_just_before_a_message_shares_the_next_one(self, store: AlertStore) -> None:
        """Whoever waited for the store while a message was made is no first of a group."""
        record(store, said(1000.0, operation="first"), "email")
        assert claim(store, 1000.5) is not None
        record(store, said(1000.4, operation="second"), "email")
        assert claim(store, 1000.6) is None
        assert store.next_due(("email",)) == 1030.4

    def test_a_clock_that_is_set_back_holds_nothing_up(self, store: AlertStore) -> None:
        """What was to be sent in what is now the future is sent at once, and then by the clock there is."""
        record(store, said(5000.0, operation="sent"), "email")
        sent = claim(store, 5000.0)
        assert sent is not None
        store.settle(sent.delivery_id, "sent", time=5000.0)
        record(store, said(5001.0, operation="waits"), "email")
        message = claim(store, 1400.0)
        assert message is not None
        assert message.alert.operation == "waits"
        store.settle(message.delivery_id, "pending", time=1400.0, due=1402.0)
        assert claim(store, 1401.0) is None
        assert claim(store, 1402.0) is not None

    def test_who_is_about_to_end_takes_what_waits(self, store: AlertStore) -> None:
        """Early, the next message goes without waiting for more; what waits for another attempt is not hurried."""
        record(store, said(1000.0, operation="a"), "email")
        first = claim(store, 1000.0)
        record(store, said(1001.0, operation="b"), "email")
        assert first is not None
        store.settle(first.delivery_id, "pending", time=1001.0, due=1003.0)
        second = claim(store, 1001.0, early=True)
        assert second is not None
        assert [alert.operation for alert in second.alerts] == ["b"]
        assert claim(store, 1001.0, early=True) is None

    def test_a_message_that_was_tried_stays_as_it_was(self, store: AlertStore) -> None:
        """A retry has the same id and the same alerts; a later alert is part of another message."""
        record(store, said(1000.0, operation="a"), "email")
        record(store, said(1000.0, operation="b"), "email")
        first = claim(store, 1000.0)
        assert first is not None
        store.settle(first.delivery_id, "pending", time=1000.0, due=1100.0)
        record(store, said(1050.0, operation="c"), "email")
        other = claim(store, 1050.0)
        assert other is not None
        store.settle(other.delivery_id, "sent", time=1050.0)
        again = claim(store, 1100.0)
        assert again is not None
        assert [alert.operation for alert in other.alerts] == ["c"]
        assert (again.delivery_id, again.attempt) == (first.delivery_id, 2)
        assert again.alerts == first.alerts

    def test_a_message_is_bounded_and_the_rest_is_counted(self, store: AlertStore) -> None:
        """Of many alerts the most severe are in the message; all of them are settled with it."""
        for index in range(MOST_IN_A_MESSAGE + 20):
            record(store, said(1000.0, operation=f"o{index}", severity="info"), "email")
        record(store, said(1000.0, operation="worst"), "email")
        message = claim(store, 1000.0)
        assert message is not None
        assert (len(message.alerts), message.more) == (MOST_IN_A_MESSAGE, 21)
        assert message.alert.operation == "worst"
        store.settle(message.delivery_id, "sent", time=1001.0)
        assert store.summarise(0.0).deliveries == {"email": {"sent": MOST_IN_A_MESSAGE + 21}}

    def test_what_was_delivered_is_said_to_be_over(self, store: AlertStore) -> None:
        """A resolved alert is a message to those channels where it was sent, and once."""
        occurrence = said(1000.0)
        record(store, occurrence, "email", "console")
        message = claim(store, 1000.0)
        assert message is not None
        store.settle(message.delivery_id, "sent", time=1000.0)
        store.resolve(occurrence.alert.alert_id, time=1010.0)
        over = claim(store, 1010.0)
        assert over is not None
        assert (over.reason, over.alert.state, over.alert.alert_id) == ("resolved", "resolved", message.alert.alert_id)
        store.settle(over.delivery_id, "sent", time=1011.0)
        assert claim(store, 2000.0) is None
        console = store.claim(("console",), time=1010.0, lease_seconds=1.0)
        assert console is not None
        assert (console.reason, console.alert.state) == ("firing", "resolved")
        store.settle(console.delivery_id, "sent", time=1012.0)
        assert store.claim(("console",), time=2000.0, lease_seconds=1.0) is None, "that message has said it"

    def test_what_is_over_while_its_message_is_on_its_way_is_said_afterwards(self, store: AlertStore) -> None:
        """The message cannot say it: as soon as it was sent, another one follows."""
        occurrence = said(1000.0)
        record(store, occurrence, "email")
        message = claim(store, 1000.0)
        store.resolve(occurrence.alert.alert_id, time=1000.1)
        assert message is not None
        assert claim(store, 1000.2) is None
        store.settle(message.delivery_id, "sent", time=1000.3)
        over = claim(store, 1000.3)
        assert over is not None
        assert over.reason == "resolved"

    def test_what_never_arrived_is_not_said_to_be_over(self, store: AlertStore) -> None:
        """A dead letter is followed by no notice."""
        occurrence = said(1000.0)
        record(store, occurrence, "email")
        message = claim(store, 1000.0)
        assert message is not None
        store.settle(message.delivery_id, "dead", time=1001.0)
        store.resolve(occurrence.alert.alert_id, time=1010.0)
        assert claim(store, 2000.0) is None
