"""Deliveries: at least once, later each time, dead when hopeless; and the history file."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._alert_background import AlertBackground
from ml_pipeline.config._alert_channels import AlertMessage
from ml_pipeline.config._alert_delivery import (
    FIRST_RETRY_SECONDS,
    LONGEST_RETRY_SECONDS,
    MOST_ATTEMPTS,
    Deliverer,
    count_delivery,
)
from ml_pipeline.config._alert_history import HistoryFile
from ml_pipeline.config._alert_records import Alert
from ml_pipeline.config._alert_routes import RateLimit
from ml_pipeline.config._alert_sqlite import SqliteAlertStore
from ml_pipeline.config._alert_store import AlertStore
from ml_pipeline.config.prometheus_metrics import pipeline_metrics
from ml_pipeline.errors import AlertError
from tests.config.test_alert_store import said
from tests.support import eventually


class Channel:
    """Does as a test says."""

    def __init__(self, name: str = "pager", send: Callable[[AlertMessage], None] = lambda message: None) -> None:
        self.name = name
        self._send = send

    def send(self, message: AlertMessage) -> None:
        """Deliver."""
        self._send(message)


class Post:
    """A deliverer, its outbox, and the clock they go by."""

    def __init__(
        self, store: AlertStore, *channels: Channel, jitter: float = 0.0, timeout_seconds: float = 5.0
    ) -> None:
        self.store = store
        self.now = 1000.0
        self.results: list[tuple[str, str, float]] = []
        self.deliverer = Deliverer(
            lambda: store,
            channels,
            clock=lambda: self.now,
            on_delivery=lambda *attempt: self.results.append(attempt),
            timeout_seconds=timeout_seconds,
            jitter=lambda: jitter,
        )

    def put(self, operation: str = "data_ingestion") -> None:
        """Put an alert into the outbox."""
        self.store.record(said(self.now, operation=operation), channels=self.deliverer.channels, cooldown_seconds=0.0)

    def due(self) -> float | None:
        """Return how long until something is due."""
        due = self.store.next_due(self.deliverer.channels)
        return None if due is None else due - self.now


@pytest.fixture
def store() -> Iterator[AlertStore]:
    """Return an empty outbox."""
    store = SqliteAlertStore(":memory:")
    yield store
    store.close()


def failing(error: Exception) -> Callable[[AlertMessage], None]:
    """Return what always fails."""

    def send(message: AlertMessage) -> None:
        raise error

    return send


def test_a_channel_that_works_is_asked_once(store: AlertStore) -> None:
    """What was sent is due no more, and its attempt is told with the seconds since the alert."""
    post = Post(store, Channel())
    post.put()
    post.now += 2.5
    assert post.deliverer.flush(1.0)
    assert post.deliverer.flush(1.0)
    assert post.results == [("pager", "sent", 2.5)]
    assert post.due() is None


@pytest.mark.parametrize(("jitter", "share"), [(0.0, 1.0), (1.0, 0.5)])
def test_each_failure_waits_twice_as_long(store: AlertStore, jitter: float, share: float) -> None:
    """From 2 s to an hour, shortened by up to half; in the end the delivery is dead, and the alert stays."""
    post = Post(store, Channel(send=failing(ConnectionRefusedError("down"))), jitter=jitter)
    post.put()
    pauses = []
    while (pause := post.due()) is not None:
        post.now += pause
        pauses.append(pause)
        assert post.deliverer.flush(1.0)
    assert len(pauses) == MOST_ATTEMPTS
    assert pauses[:5] == [0.0, *(FIRST_RETRY_SECONDS * share * factor for factor in (1, 2, 4, 8))]
    assert max(pauses) == LONGEST_RETRY_SECONDS * share
    assert sum(pauses) > 36 * 3600, "a server may be down for a day and a half"
    assert [result for _, result, _ in post.results] == ["failed"] * (MOST_ATTEMPTS - 1) + ["dead"]
    assert len(store.find(limit=10)) == 1


def test_what_can_never_be_delivered_is_dead_at_once(store: AlertStore, capsys: pytest.CaptureFixture[str]) -> None:
    """An `AlertError` of the channel ends the delivery; it is counted, and said on stderr."""
    post = Post(store, Channel(send=failing(AlertError("a mail server must take the alert", "554"))))
    post.put()
    post.deliverer.flush(1.0)
    assert post.results == [("pager", "dead", 0.0)]
    assert store.summarise(0.0).deliveries == {"pager": {"dead": 1}}
    assert _runtime.tally.telemetry_errors["alerting", "AlertError"] == 1
    assert "a mail server must take the alert (got '554')" in capsys.readouterr().err


def test_a_channel_that_fails_holds_up_no_other(store: AlertStore) -> None:
    """Each channel has a delivery of its own."""
    post = Post(store, Channel("broken", failing(OSError("down"))), Channel("pager"))
    post.put()
    post.deliverer.flush(1.0)
    assert sorted(post.results) == [("broken", "failed", 0.0), ("pager", "sent", 0.0)]


def test_a_retry_comes_by_itself(store: AlertStore) -> None:
    """In the background, without another call: woken once, it comes back when the delivery is due."""
    answers: list[Exception | None] = [OSError("down"), None]

    def send(message: AlertMessage) -> None:
        if (answer := answers.pop(0)) is not None:
            raise answer

    post = Post(store, Channel(send=send), jitter=1.0)
    post.deliverer._clock = time.time
    post.now = time.time()
    post.put()
    post.deliverer.wake()
    eventually(lambda: len(post.results) == 2)
    assert [result for _, result, _ in post.results] == ["failed", "sent"]
    post.deliverer.close()


def test_an_outbox_that_cannot_be_read_is_looked_at_again(store: AlertStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that is locked for a while does not end the deliveries of the process."""
    monkeypatch.setattr("ml_pipeline.config._alert_delivery._LOOK_SECONDS", 0.01)
    with ml_pipeline.override(strict=False):
        post = Post(store, Channel())
        post.put()
        broken = [RuntimeError("locked")] * 3

        def outbox() -> AlertStore:
            if broken:
                raise broken.pop()
            return store

        post.deliverer._store = outbox
        post.deliverer.wake()
        eventually(lambda: post.results)
        post.deliverer.close()
        assert _runtime.tally.telemetry_errors["alerting", "RuntimeError"] == 3


def test_flush_gives_up_in_time(store: AlertStore) -> None:
    """What is not sent when the time is over stays in the outbox, and each attempt gets what time is left."""
    given: list[float] = []
    post = Post(store, Channel(send=lambda message: given.append(message.timeout_seconds)), timeout_seconds=5.0)
    post.put()
    assert not post.deliverer.flush(0.0)
    assert not post.deliverer.flush(-1.0)
    assert post.deliverer.flush(2.0)
    assert len(given) == 1
    assert 0 < given[0] <= 2.0


def test_one_conversation_at_a_time(store: AlertStore) -> None:
    """A flush while the background is sending waits for it, but not for ever."""
    post = Post(store, Channel())
    with post.deliverer._one_at_a_time:
        assert not post.deliverer.flush(0.01)
    assert post.deliverer.flush(1.0)


def test_after_the_end_nothing_is_tried_again(store: AlertStore) -> None:
    """Closing tries what is due once, and does not wait for what is due later."""
    post = Post(store, Channel(send=failing(OSError("down"))))
    post.put()
    post.deliverer.wake()
    post.deliverer.close()
    assert [result for _, result, _ in post.results] == ["failed"]


def test_each_attempt_is_in_the_metrics() -> None:
    """The default hook counts by channel and result."""
    labels = {"channel": "test_alert_delivery", "result": "failed"}
    count_delivery("test_alert_delivery", "failed", 1.0)
    assert pipeline_metrics.registry.get_sample_value("ml_pipeline_alert_deliveries_total", labels) == 1.0


def test_a_hook_that_fails_costs_no_delivery(store: AlertStore) -> None:
    """What is sent is settled whatever the metrics say."""
    with ml_pipeline.override(strict=False):
        post = Post(store, Channel())

        def broken(*attempt: Any) -> None:
            raise RuntimeError("no")

        post.deliverer._on_delivery = broken
        post.put()
        assert post.deliverer.flush(1.0)
    assert store.summarise(0.0).deliveries == {"pager": {"sent": 1}}


def test_a_limit_holds_a_channel_up_and_no_other(store: AlertStore) -> None:
    """What a limit lets wait is not claimed, so that it may be joined; it goes out when its time has come."""
    post = Post(store, Channel("slack"), Channel("pager"))
    post.deliverer._limits = RateLimit({"slack": (1, 60.0)})
    post.put("a")
    assert post.deliverer.flush(1.0)
    post.now += 30
    for name in ("b", "c"):
        post.put(name)
        assert not post.deliverer.flush(1.0), "something is due"
    assert [channel for channel, _, _ in post.results] == ["slack", "pager", "pager", "pager"]
    post.now += 30
    assert post.deliverer.flush(1.0)
    assert post.results[4:] == [("slack", "sent", 30.0)]
    assert store.summarise(0.0).deliveries == {"slack": {"sent": 3}, "pager": {"sent": 3}}


def test_a_limit_is_waited_for(store: AlertStore) -> None:
    """The background comes back when the channel may be used again, not before."""
    post = Post(store, Channel("slack"))
    post.deliverer._limits = RateLimit({"slack": (1, 20.0)})
    post.put("a")
    assert post.deliverer.flush(1.0)
    post.now += 1
    store.record(said(post.now, pipeline="other"), channels=("slack",), cooldown_seconds=0.0)
    assert post.deliverer._work(30.0) == 19.0


def test_an_address_that_cannot_be_one_costs_the_mails_not_the_alerts() -> None:
    """A setting that no mail can be sent with is counted, and the rest goes on."""
    with ml_pipeline.override(
        strict=False, smtp_host="127.0.0.1", alert_email_from="a@example.org", alert_email_to="b@example.org"
    ) as settings:
        broken = settings.model_copy(update={"alert_email_from": "not an address"})
        background = AlertBackground(
            broken,
            lambda: pytest.fail("no alert"),
            None,
            clock=time.time,
            on_delivery=count_delivery,
            publish=lambda *_, **__: None,
            is_shared=True,
        )
        assert background.channels_of(alert(0)) == ()
        background.close()
        assert _runtime.tally.telemetry_errors["alerting", "AlertError"] == 1


# alerts.json


def alert(index: int) -> Alert:
    """Make the alert of some moment."""
    return said(1000.0 + index, operation=f"o{index}").alert


def test_the_history_file_is_a_whole_array(tmp_path: Path) -> None:
    """One object a line, in the order given; an empty history is an empty array."""
    kept: list[Alert] = []
    history = HistoryFile(tmp_path / "logs" / "alerts.json", tmp_path / "data" / "lock", lambda: kept)
    history.flush()
    path = tmp_path / "logs" / "alerts.json"
    assert path.read_text() == "[]\n"
    kept.extend(alert(index) for index in (2, 1))
    history.flush()
    lines = path.read_text().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("[", "]", 4)
    assert json.loads(path.read_text()) == [each.to_dict() for each in kept]
    assert [each.name for each in path.parent.iterdir()] == ["alerts.json"]
    history.close()


def test_a_storm_is_written_once(tmp_path: Path) -> None:
    """A thousand alerts within a second are one writing, and the last of them is in it."""
    reads: list[int] = []
    kept: list[Alert] = []

    def newest() -> list[Alert]:
        reads.append(len(kept))
        return kept

    history = HistoryFile(tmp_path / "alerts.json", tmp_path / "lock", newest)
    for index in range(1000):
        kept.append(alert(index))
        history.touch()
    history.close()
    assert reads == [1000]


def test_the_history_takes_a_tenth_of_the_time_at_most(tmp_path: Path) -> None:
    """A long history is written less often: ten times as long apart as it takes."""
    history = HistoryFile(tmp_path / "alerts.json", tmp_path / "lock", list)
    history._took_seconds = 60.0
    history.touch()
    (due, _), *_ = history._worker._due.values()
    assert due - time.monotonic() == pytest.approx(600.0, abs=5.0)
    history.close()


def test_the_end_delivers_what_a_run_of_before_has_left(tmp_path: Path) -> None:
    """A message that is on its way at the end of the process is no reason to keep the others."""
    on_its_way, let_go = threading.Event(), threading.Event()

    def hang(_: AlertMessage) -> None:
        on_its_way.set()
        assert let_go.wait(5)

    store = SqliteAlertStore(":memory:")
    heard: list[str] = []
    post = Post(store, Channel("pager", lambda message: heard.append(message.alert.operation)), Channel("slow", hang))
    store.record(said(1000.0, operation="first"), channels=("pager",), cooldown_seconds=60.0)
    assert post.deliverer.flush(5.0)
    store.record(said(1000.0, operation="shares the next"), channels=("pager",), cooldown_seconds=60.0)
    store.record(said(1000.0, operation="slow"), channels=("slow",), cooldown_seconds=60.0)
    post.deliverer.wake()
    assert on_its_way.wait(5)
    closing = threading.Thread(target=post.deliverer.close)
    closing.start()
    eventually(lambda: post.deliverer._until < float("inf"))
    let_go.set()
    closing.join()
    assert heard == ["first", "shares the next"]
    store.close()
