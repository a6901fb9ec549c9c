"""Every way out, held to the contract of a channel on real sockets and files."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.config._alert_alertmanager import AlertmanagerChannel
from ml_pipeline.config._alert_pagerduty import PagerDutyChannel
from ml_pipeline.config._alert_slack import SlackChannel
from ml_pipeline.config._alert_teams import TeamsChannel
from ml_pipeline.config._alert_webhook import WebhookChannel
from ml_pipeline.testing.alert_channel_contract import AlertChannelContract, ChannelReceiver
from tests.config.alert_receivers import SECRET, ConsoleEnd, FileEnd, HttpEnd, SmtpEnd, all_texts


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    """Return where a secret may be written."""
    return tmp_path / "secret"


class TestEmail(AlertChannelContract):
    """Mail with a password."""

    @pytest.fixture
    def receiver(self, secret_file: Path) -> Iterator[ChannelReceiver]:
        """The other end."""
        end = SmtpEnd(secret_file)
        with end.serving():
            yield end


class TestEmailByToken(AlertChannelContract):
    """Mail with an access token."""

    @pytest.fixture
    def receiver(self, secret_file: Path) -> Iterator[ChannelReceiver]:
        """The other end."""
        end = SmtpEnd(secret_file, token_file=secret_file, password_file=None)
        with end.serving():
            yield end


class TestSlack(AlertChannelContract):
    """Slack."""

    @pytest.fixture
    def receiver(self, secret_file: Path) -> Iterator[ChannelReceiver]:
        """The other end."""
        end = HttpEnd(all_texts)
        secret_file.write_text(end.address)
        end.channel = SlackChannel(secret_file)
        with end.serving():
            yield end


class TestTeams(AlertChannelContract):
    """Microsoft Teams."""

    @pytest.fixture
    def receiver(self, secret_file: Path) -> Iterator[ChannelReceiver]:
        """The other end."""
        end = HttpEnd(all_texts)
        secret_file.write_text(end.address + "\n")
        end.channel = TeamsChannel(secret_file)
        with end.serving():
            yield end


class TestPagerDuty(AlertChannelContract):
    """PagerDuty."""

    @pytest.fixture
    def receiver(self, secret_file: Path) -> Iterator[ChannelReceiver]:
        """The other end."""
        end = PagerDutyEnd(all_texts)
        secret_file.write_text(SECRET)
        end.channel = PagerDutyChannel(secret_file, address=end.address)
        with end.serving():
            yield end


class PagerDutyEnd(HttpEnd):
    """Takes an event for each alert."""

    def keys(self) -> list[str]:
        """Return the keys by which events are one incident."""
        return [self.event(index)["dedup_key"] for index in range(len(self.posted))]

    def event(self, index: int) -> dict[str, Any]:
        """Return one of the events."""
        event: dict[str, Any] = json.loads(self.posted[index][1])
        return event


class TestWebhook(AlertChannelContract):
    """A signed webhook."""

    @pytest.fixture
    def receiver(self, secret_file: Path) -> Iterator[ChannelReceiver]:
        """The other end."""
        end = HttpEnd(all_texts)
        secret_file.write_text(SECRET)
        end.channel = WebhookChannel(end.address, secret_file)
        with end.serving():
            yield end


class TestAlertmanager(AlertChannelContract):
    """Alertmanager."""

    @pytest.fixture
    def receiver(self) -> Iterator[ChannelReceiver]:
        """The other end."""
        end = AlertmanagerEnd(all_texts)
        end.channel = AlertmanagerChannel(f"http://127.0.0.1:{end.port}/{SECRET}", lambda _: (), clock=time.time)
        with end.serving():
            yield end


class AlertmanagerEnd(HttpEnd):
    """Takes lists of alerts."""

    def keys(self) -> list[str]:
        """Return what it tells alerts apart by, with the alert that they come from."""
        return [f"{alert['labels']} {alert['annotations']}" for _, body in self.posted for alert in json.loads(body)]


class TestConsole(AlertChannelContract):
    """The console."""

    @pytest.fixture
    def receiver(self) -> ChannelReceiver:
        """The other end."""
        return ConsoleEnd()


class TestFile(AlertChannelContract):
    """A file."""

    @pytest.fixture
    def receiver(self, tmp_path: Path) -> ChannelReceiver:
        """The other end."""
        return FileEnd(tmp_path)
