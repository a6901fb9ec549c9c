"""From the call to the other side, by the settings alone: routed, told again when it is over, and patient."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline.config._alert_sqlite import SqliteAlertStore
from ml_pipeline.config.alerting import alert_manager
from ml_pipeline.errors import DeliveryError
from tests.config.alert_receivers import SECRET, HttpEnd, all_texts
from tests.config.test_alert_delivery import Channel, Post, failing
from tests.support import eventually


@pytest.fixture
def slack(tmp_path: Path) -> Iterator[HttpEnd]:
    """Return Slack, which the settings name."""
    end = HttpEnd(all_texts)
    webhook = tmp_path / "webhook"
    webhook.write_text(end.address)
    ml_pipeline.configure(
        slack_webhook_file=webhook, alert_file=tmp_path / "alerts.jsonl", alert_channels="slack,file", name="adni"
    )
    with end.serving():
        yield end


def lines(tmp_path: Path) -> list[tuple[str, str]]:
    """Return reason and severity of each line of the file."""
    file = tmp_path / "alerts.jsonl"
    told = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
    return [(each["reason"], each["severity"]) for each in told]


def test_an_alert_goes_every_way_and_so_does_its_end(slack: HttpEnd, tmp_path: Path) -> None:
    """Each channel has it by itself; a second message says that it is over."""
    alert_id = alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")
    assert alert_manager.flush()
    assert len(slack.posted) == 1
    assert alert_manager.resolve(alert_id)
    assert alert_manager.flush()
    assert lines(tmp_path) == [("firing", "critical"), ("resolved", "critical")]
    assert [text.split("\n")[0][:11] for text in slack.texts()] == ["[CRITICAL] ", "[RESOLVED] "]


def test_a_channel_that_is_down_holds_up_no_other(slack: HttpEnd, tmp_path: Path) -> None:
    """What one cannot take now waits in the outbox; the others have it."""
    slack.break_by("503")
    slack.headers = {"Retry-After": "1000"}
    with ml_pipeline.override(strict=False):
        alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")
        alert_manager.flush()
        eventually(lambda: lines(tmp_path) == [("firing", "critical")])
        assert alert_manager.summary().deliveries == {"slack": {"pending": 1}, "file": {"sent": 1}}


def test_what_is_only_said_goes_to_the_file_alone(slack: HttpEnd, tmp_path: Path) -> None:
    """By default; a route may want it otherwise."""
    alert_manager.alert_data_quality("age_not_null", failed=1, total=9, severity="info")
    assert alert_manager.flush()
    assert lines(tmp_path) == [("firing", "info")]
    pytest.importorskip("yaml")
    rules = tmp_path / "rules.yml"
    rules.write_text("routes:\n  - match: {severity: info}\n    channels: [slack]\n")
    ml_pipeline.configure(alert_rules_file=rules)
    alert_manager.alert_data_quality("sex_not_null", failed=1, total=9, severity="info")
    assert alert_manager.flush()
    assert len(lines(tmp_path)) == 1
    assert len(slack.posted) == 1


def test_pagerduty_is_called_where_its_region_is(slack: HttpEnd, tmp_path: Path) -> None:
    """The address is a setting; the key is in its file."""
    key = tmp_path / "key"
    key.write_text(SECRET)
    ml_pipeline.configure(pagerduty_key_file=key, pagerduty_url=slack.address, alert_channels="pagerduty")
    alert_id = alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")
    assert alert_manager.flush()
    assert alert_manager.resolve(alert_id)
    assert alert_manager.flush()
    events = [json.loads(body) for _, body in slack.posted]
    assert [event["event_action"] for event in events] == ["trigger", "resolve"]
    assert len({event["dedup_key"] for event in events}) == 1


@pytest.mark.parametrize(("asked", "pause"), [(None, 2.0), (0.5, 2.0), (1_000.0, 1_000.0)])
def test_a_pause_that_a_service_asks_for_is_kept(asked: Any, pause: float) -> None:
    """Never shorter than the deliverer's own."""
    busy = DeliveryError("Slack must take the alert", "429", "it is tried again")
    busy.retry_after_seconds = asked
    store = SqliteAlertStore(":memory:")
    post = Post(store, Channel(send=failing(busy)))
    with ml_pipeline.override(strict=False):
        post.put()
        post.deliverer.flush(1.0)
    assert post.due() == pause
    store.close()
