"""Alerts through Alertmanager: what is posted, how it is kept alive, and who tells of it where it cannot be reached."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._alert_alertmanager import (
    FAILURE_SECONDS,
    LEAST_SECONDS,
    LIFE_SECONDS,
    REFRESH_SECONDS,
    AlertmanagerChannel,
    label_set,
)
from ml_pipeline.config._alert_records import Alert
from ml_pipeline.config._encoding import rfc3339
from ml_pipeline.config.alerting import AlertManager, AlertRule
from ml_pipeline.testing.alert_channel_contract import sample_alert, sample_message
from tests.config.alert_receivers import HttpEnd, all_texts
from tests.config.alerting_world import Clock, mail_server
from tests.support import free_port


class End(HttpEnd):
    """An Alertmanager that keeps what it is told."""

    def batches(self) -> list[list[dict[str, Any]]]:
        """Return the alerts of each request."""
        return [json.loads(body) for _, body in self.posted]


@pytest.fixture
def end() -> Iterator[End]:
    """Run the other end."""
    end = End(all_texts)
    with end.serving():
        yield end


class Path:
    """A channel to an end, with a clock and the alerts that are open."""

    def __init__(self, end: End) -> None:
        self.clock = Clock()
        self.open: list[Alert] = []
        self.channel = AlertmanagerChannel(
            f"http://127.0.0.1:{end.port}/", lambda _: self.open, clock=self.clock, boards="http://grafana/"
        )

    def alert(self, **fields: Any) -> Alert:
        """Return an alert that was raised just now."""
        return sample_alert(time=self.clock.now, last_time=self.clock.now, **fields)


@pytest.fixture
def path(end: End) -> Path:
    """Return a channel to the end."""
    return Path(end)


def moment(text: str) -> float:
    """Return the seconds since the Unix epoch of a time in RFC 3339."""
    return dt.datetime.fromisoformat(text).timestamp()


def test_an_alert_is_posted_with_the_labels_of_the_rules(path: Path, end: End) -> None:
    """And with what a person reads, from when, for how long, and where to look."""
    alert = path.alert(name="IngestionErrors", runbook="https://example.org/r", labels={"team": "x", "größe": "1"})
    path.channel.send(sample_message(alert))
    ((entry,),) = end.batches()
    assert entry["labels"] == {
        "alertname": "IngestionErrors",
        "pipeline": alert.pipeline,
        "kind": alert.kind,
        "severity": alert.severity,
        "team": "x",
    }
    assert entry["annotations"]["summary"] == alert.message
    assert f"Alert id: {alert.alert_id}" in entry["annotations"]["description"]
    assert entry["annotations"]["runbook_url"] == "https://example.org/r"
    assert entry["generatorURL"] == "http://grafana/d/ml-alerts"
    assert moment(entry["startsAt"]) == path.clock.now
    assert moment(entry["endsAt"]) == path.clock.now + LIFE_SECONDS
    assert end.paths == ["/api/v2/alerts"]


def test_the_end_is_posted_when_the_last_of_a_label_set_is_over(path: Path, end: End) -> None:
    """Another open alert with the same labels keeps it firing."""
    over = path.alert(state="resolved")
    path.open = [path.alert(alert_id="other", operation="another")]
    path.clock.now += 3_600
    path.channel.send(sample_message(over, reason="resolved"))
    assert end.batches() == []
    path.open = []
    path.channel.send(sample_message(over, reason="resolved"))
    ((entry,),) = end.batches()
    assert moment(entry["endsAt"]) == path.clock.now


def test_what_was_soon_over_is_told_all_the_same(path: Path, end: End) -> None:
    """Alertmanager waits a moment before it tells anybody; an alert that has ended by then would be told to nobody."""
    path.channel.send(sample_message(path.alert(state="resolved")))
    path.channel.send(sample_message(path.alert(state="resolved"), reason="resolved"))
    assert [moment(entry["endsAt"]) for (entry,) in end.batches()] == [path.clock.now + LEAST_SECONDS] * 2


def test_once_escalated_the_less_severe_one_is_over(path: Path, end: End) -> None:
    """It has another label set now."""
    path.clock.now += 3_600
    alert = sample_alert(severity="critical", escalated=True, time=path.clock.now - 3_600)
    path.channel.send(sample_message(alert, reason="escalated"))
    (entries,) = end.batches()
    ends = {entry["labels"]["severity"]: moment(entry["endsAt"]) - path.clock.now for entry in entries}
    assert ends == {"critical": LIFE_SECONDS, "warning": 0}


def test_a_digest_is_not_posted(path: Path, end: End) -> None:
    """It is a mail's matter."""
    path.channel.send(sample_message(reason="digest"))
    assert end.batches() == []


def test_open_alerts_are_refreshed_each_minute(path: Path, end: End) -> None:
    """One request for all, one entry a label set; nothing is open: nothing is posted."""
    assert path.channel.refresh() == path.clock.now + REFRESH_SECONDS
    path.open = [path.alert(alert_id="a"), path.alert(alert_id="b"), path.alert(alert_id="c", name="Other")]
    path.clock.now += REFRESH_SECONDS - 1
    path.channel.refresh()
    assert end.batches() == []
    path.clock.now += 1
    path.channel.refresh()
    path.channel.refresh()
    (entries,) = end.batches()
    assert len(entries) == 2
    assert {moment(entry["endsAt"]) for entry in entries} == {path.clock.now + LIFE_SECONDS}
    path.open = []
    path.clock.now += REFRESH_SECONDS
    path.channel.refresh()
    assert len(end.batches()) == 1


def test_a_failure_that_nothing_made_good_is_not_refreshed_for_ever(path: Path, end: End) -> None:
    """As the rules of Prometheus let it end; what is measured is refreshed as long as it is open."""
    path.open = [path.alert(), path.alert(kind="data_quality", alert_id="q")]
    path.clock.now += FAILURE_SECONDS
    path.channel.refresh()
    assert [entry["labels"]["kind"] for entry in end.batches()[0]] == ["data_quality"]


def test_a_refresh_that_fails_is_counted_and_the_next_one_is_due(path: Path, end: End) -> None:
    """The pipeline's other deliveries go on."""
    end.break_by("503")
    path.open = [path.alert()]
    path.clock.now += REFRESH_SECONDS
    with _runtime.override(strict=False):
        assert path.channel.refresh() == path.clock.now + REFRESH_SECONDS
    end.mend()
    path.clock.now += REFRESH_SECONDS
    path.channel.refresh()
    assert len(end.batches()) == 1


def held(entry: dict[str, Any], source: str) -> list[dict[str, Any]]:
    """Return what Alertmanager answers where it holds one alert."""
    return [{"labels": entry["labels"], "generatorURL": source}]


def test_what_prometheus_tells_is_left_to_it(path: Path, end: End) -> None:
    """Neither kept alive nor ended, until nobody tells of it and it is over here too."""
    alert = path.alert()
    path.open = [alert]
    path.channel.send(sample_message(alert))
    ((entry,),) = end.batches()
    end.answers["/api/v2/alerts"] = held(entry, "http://prometheus/graph?g0.expr=up")
    path.clock.now += REFRESH_SECONDS
    path.channel.refresh()
    end.answers["/api/v2/alerts"] = []  # Prometheus says that it is over
    path.clock.now += REFRESH_SECONDS
    path.channel.refresh()
    path.channel.send(sample_message(replace(alert, state="resolved"), reason="resolved"))
    assert len(end.batches()) == 1
    path.open = []
    path.clock.now += LIFE_SECONDS
    path.channel.send(sample_message(replace(alert, state="resolved"), reason="resolved"))
    assert len(end.batches()) == 2


def test_what_only_the_process_tells_it_keeps_alive(path: Path, end: End) -> None:
    """Alertmanager holds it with a source of ours."""
    path.open = [path.alert()]
    path.channel.send(sample_message(path.open[0]))
    ((entry,),) = end.batches()
    end.answers["/api/v2/alerts"] = held(entry, entry["generatorURL"])
    path.clock.now += REFRESH_SECONDS
    path.channel.refresh()
    assert len(end.batches()) == 2


@pytest.mark.parametrize(("began", "posts"), [(-60, 1), (+60, 2)])
def test_what_is_gone_was_ended_or_forgotten(path: Path, end: End, began: float, posts: int) -> None:
    """An Alertmanager that was started since has forgotten it and is told again; else somebody said that it is over."""
    path.open = [path.alert()]
    path.channel.send(sample_message(path.open[0]))
    end.answers = {"/api/v2/alerts": [], "/api/v2/status": {"uptime": rfc3339(path.clock.now + began)}}
    path.clock.now += REFRESH_SECONDS
    path.channel.refresh()
    assert len(end.batches()) == posts


def test_an_answer_that_is_none_changes_nothing(path: Path, end: End) -> None:
    """What cannot be read is as if nothing had been asked."""
    path.open = [path.alert()]
    for answer in ([{"no": "labels"}], "no list", None):
        end.answers["/api/v2/alerts"] = answer
        path.clock.now += REFRESH_SECONDS
        path.channel.refresh()
    assert len(end.batches()) == 3


def test_label_sets_are_equal_where_alertmanager_says_so() -> None:
    """Empty labels are no labels; a rule's own never replace the shared ones."""
    first = label_set(sample_alert(labels={"pipeline": "x", "team": ""}))
    assert first == label_set(sample_alert(labels={}))
    assert dict(label_set(sample_alert(name="")))["alertname"] == "Alert"


# Together with the process's own mail


class World:
    """A manager whose settings name an Alertmanager and a mail server."""

    def __init__(self, port: int) -> None:
        self.clock = Clock()
        ml_pipeline.configure(alertmanager_url=f"http://127.0.0.1:{port}", strict=False)
        self.alerts = AlertManager(clock=self.clock)

    def flush(self, *, later: float = 0.0) -> None:
        """Let time pass and have what is due then delivered, as the background does."""
        self.clock.now += later
        background = self.alerts._background.get()
        assert background._alertmanager is not None
        background._alertmanager.refresh()
        with background._deliverer._one_at_a_time:
            background._deliverer._drain(float("inf"), early=False)

    def deliveries(self) -> dict[str, dict[str, int]]:
        """Count deliveries by channel and state."""
        return {name: dict(counts) for name, counts in self.alerts.summary(1e9).deliveries.items()}  # type: ignore[arg-type]


def test_while_alertmanager_takes_them_the_process_mails_nothing(end: End) -> None:
    """Raised and over: both are posted, and neither is mailed."""
    with mail_server() as mailbox:
        world = World(end.port)
        alert_id = world.alerts.alert_data_quality("age_not_null")
        world.flush()
        world.flush(later=600)
        world.alerts.resolve(alert_id)
        world.flush(later=600)
        assert world.deliveries() == {"alertmanager": {"sent": 2}, "email": {"covered": 1}}
        assert mailbox.received == []
    fired, refreshed, over = end.batches()
    assert fired[0]["labels"] == refreshed[0]["labels"] == over[0]["labels"]
    assert moment(over[0]["endsAt"]) == world.clock.now


def test_where_it_cannot_be_reached_the_process_mails_and_says_so() -> None:
    """After the time set, once; when it is back, it is told of new alerts, and not of those that were mailed."""
    end = End(all_texts)
    with mail_server() as mailbox:
        world = World(end.port)
        end.break_by("503")
        with end.serving():
            world.alerts.alert_data_quality("age_not_null")
            world.flush()
            world.flush(later=59)
            assert mailbox.received == []
            world.flush(later=1)
            ((_, mail),) = mailbox.received
            body = mail.get_body(("plain",))
            assert body is not None
            assert "Alertmanager has not taken this, so the pipeline sends it itself." in body.get_content()
            end.mend()
            for _ in range(3):
                world.flush(later=3_600)
            assert (len(mailbox.received), end.batches()) == (1, [])
            world.alerts.alert_data_quality("another_check")
            world.flush()
            assert [entry["annotations"]["summary"] for (entry,) in end.batches()] == ["another_check failed"]
        assert world.deliveries() == {"alertmanager": {"covered": 1, "sent": 1}, "email": {"sent": 1, "covered": 1}}


def test_at_the_end_of_a_process_nobody_waits_for_an_alertmanager_that_is_gone() -> None:
    """The mail goes at once: there may be no next run for a day."""
    with mail_server() as mailbox:
        world = World(free_port())
        world.alerts.alert_data_quality("age_not_null")
        world.alerts.flush()
        assert len(mailbox.received) == 1


def test_an_alert_of_a_rule_is_resolved_there_too(end: End) -> None:
    """With the rule's name and labels."""
    world = World(end.port)
    world.alerts.add_rule(AlertRule(name="QueueTooLong", on="queue", above=5, labels={"team": "x"}))
    world.alerts.observe_value("queue", 9)
    world.flush()
    world.clock.now += 300
    world.alerts.observe_value("queue", 1)
    world.flush()
    fired, over = (batch[-1] for batch in end.batches() if batch)
    assert fired["labels"] == {
        "alertname": "QueueTooLong",
        "pipeline": "test",
        "kind": "measured_value",
        "severity": "warning",
        "team": "x",
    }
    assert moment(over["endsAt"]) == world.clock.now
