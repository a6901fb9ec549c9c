"""The settings name the channels; one place makes them."""

from __future__ import annotations

from pathlib import Path

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline._settings_alerts import CHANNELS
from ml_pipeline.config._alert_ways import channel_names, channel_of, channels_of
from ml_pipeline.errors import SettingsError
from ml_pipeline.testing.alert_channel_contract import sample_message
from tests.processes import run_python

MAIL = {"smtp_host": "127.0.0.1", "alert_email_from": "a@example.org", "alert_email_to": "b@example.org"}
EVERYTHING = MAIL | {
    "slack_webhook_file": "slack",
    "pagerduty_key_file": "pagerduty",
    "teams_webhook_file": "teams",
    "alert_webhook_url": "https://alerts.example.org/",
    "alert_channels": ",".join(CHANNELS),
}


def test_by_default_alerts_are_mailed_where_there_is_a_server() -> None:
    """And the secrets of the stack's Alertmanager alone make no second message."""
    with ml_pipeline.override(slack_webhook_file="slack", pagerduty_key_file="key") as settings:
        assert channels_of(settings) == ()
    with ml_pipeline.override(**MAIL) as settings:
        assert [channel.name for channel in channels_of(settings)] == ["email"]


def test_every_channel_is_made_under_its_name() -> None:
    """In the order of the setting."""
    with ml_pipeline.override(**EVERYTHING) as settings:
        assert [channel.name for channel in channels_of(settings)] == list(CHANNELS)
        assert channel_names(settings) == tuple(CHANNELS)


def test_a_channel_that_cannot_be_made_costs_no_other() -> None:
    """It is counted and said."""
    with ml_pipeline.override(strict=False, **MAIL, alert_channels="email,console") as settings:
        broken = settings.model_copy(update={"alert_email_from": "not an address"})
        assert [channel.name for channel in channels_of(broken)] == ["console"]
        assert _runtime.tally.telemetry_errors["alerting", "AlertError"] == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("slak", "a channel must be one of the known ones (got 'slak'); did you mean 'slack'?"),
        ("slack", "the channel slack needs ML_PIPELINE_SLACK_WEBHOOK_FILE; set it"),
        ("email", "the channel email needs ML_PIPELINE_SMTP_HOST; set it"),
        ("alertmanager", "the channel alertmanager needs ML_PIPELINE_ALERTMANAGER_URL; set it"),
        ("webhook", "the channel webhook needs ML_PIPELINE_ALERT_WEBHOOK_URL; set it"),
    ],
)
def test_a_channel_without_what_it_needs_says_what(name: str, text: str) -> None:
    """The setting to set is named."""
    with ml_pipeline.override() as settings, pytest.raises(SettingsError) as refused:
        channel_of(name, settings)
    assert str(refused.value) == text


def test_a_file_that_takes_a_part_has_taken_nothing(tmp_path: Path) -> None:
    """What a full disk cut off is delivered again, on a line of its own."""
    code = f"""
import resource
from pathlib import Path
from ml_pipeline.config._alert_local import FileChannel
from ml_pipeline.testing.alert_channel_contract import sample_message
file, (_, most) = Path({str(tmp_path / "alerts.jsonl")!r}), resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (100, most))
try:
    FileChannel(file).send(sample_message())
except OSError as cut:
    assert str(cut) == f"{{file}} took a part of the alert", cut
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    FileChannel(file).send(sample_message())
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    first, second, rest = (tmp_path / "alerts.jsonl").read_bytes().split(b"\n")
    assert (len(first), len(second) > 1_000, rest) == (100, True, b"")


def test_the_file_lies_in_the_data_folder_unless_told_otherwise(tmp_path: Path) -> None:
    """Each step of a delivery is told to whoever asks."""
    with ml_pipeline.override(data_dir=tmp_path / "data") as settings:
        said: list[str] = []
        channel_of("file", settings, said.append).send(sample_message())
        file = tmp_path / "data" / "alerts" / "delivered.jsonl"
        assert file.read_bytes().count(b"\n") == 1
        assert said == [f"appended 1 lines to {file}"]
    with ml_pipeline.override(alert_file=tmp_path / "mine.jsonl") as settings:
        channel_of("file", settings).send(sample_message())
        with (tmp_path / "mine.jsonl").open("ab") as torn:
            torn.write(b'{"cut')
        channel_of("file", settings).send(sample_message())
        assert [line[:6] for line in (tmp_path / "mine.jsonl").read_bytes().split(b"\n")] == [
            b'{"deli',
            b'{"cut',
            b'{"deli',
            b"",
        ]
