"""``ml-pipeline alerts test``: one message, and what happened step by step."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ml_pipeline
from ml_pipeline.cli import main
from tests.config.alert_receivers import SECRET, HttpEnd, SmtpEnd, all_texts


@pytest.fixture
def mail_end(tmp_path: Path) -> Iterator[SmtpEnd]:
    """Return a mail server that the settings name."""
    end = SmtpEnd(tmp_path / "password")
    with end.serving():
        ml_pipeline.configure(
            name="adni",
            smtp_host="127.0.0.1",
            smtp_port=end.port,
            smtp_user="robot",
            smtp_password_file=tmp_path / "password",
            smtp_security="none",
            alert_email_from="a@example.org",
            alert_email_to="b@example.org",
        )
        yield end


def told(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return what was said, without what differs each time."""
    said = capsys.readouterr().out
    assert SECRET not in said
    said = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", said)
    return re.sub(r"[0-9]+\.[0-9]{2} s", "N s", said).splitlines()


def test_a_mail_is_told_step_by_step(mail_end: SmtpEnd, capsys: pytest.CaptureFixture[str]) -> None:
    """By default over what is set; nothing is left in the history."""
    assert main(["alerts", "test"]) == 0
    assert told(capsys) == [
        "email: sending '[TEST] adni: a test of the alert channel email', delivery ID",
        f"email: connected to 127.0.0.1, port {mail_end.port}",
        "email: logged in as robot",
        "email: the server has taken the mail (250 because of *** and ***)",
        "email: delivered in N s",
    ]
    assert mail_end.mails[0]["Subject"].strip() == "[TEST] adni: a test of the alert channel email"
    assert not (ml_pipeline.configure().data_dir / "alerts").exists()


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("535 auth", "not delivered after N s: SMTPAuthenticationError: (535, 'the mail server refused the login'); an alert would be tried again"),
        ("554", "not delivered after N s: AlertError: a mail server must take the alert (got '554 because of *** and ***'); see its log for the reason; an alert would be given up"),
    ],
)  # fmt: skip
def test_what_failed_is_told_too(mail_end: SmtpEnd, capsys: pytest.CaptureFixture[str], fault: str, words: str) -> None:
    """With what would become of an alert; the exit code is 1."""
    mail_end.break_by(fault)
    assert main(["alerts", "test", "--channel", "email"]) == 1
    assert told(capsys)[-1] == f"email: {words}"


def test_several_channels_are_each_tried(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that fails keeps no other from being tried; it need not be among those that alerts go to."""
    end = HttpEnd(all_texts)
    webhook = tmp_path / "webhook"
    webhook.write_text(end.address)
    ml_pipeline.configure(name="adni", slack_webhook_file=webhook)
    with end.serving():
        end.break_by("404")
        end.words = b"no_service"
        assert main(["alerts", "test", "--channel", "slack", "--channel", "file", "--channel", "console"]) == 1
    said = told(capsys)
    assert said[2:4] == [f"slack: posted {len_of(said[2])} bytes", "slack: Slack has not taken it: 404 no_service"]
    assert said[4].startswith(
        "slack: not delivered after N s: AlertError: Slack must take the alert (got '404 no_service'); write the address"
    )
    assert said[-3].startswith("file: delivered")
    assert said[-1] == "console: delivered in N s"


def len_of(line: str) -> str:
    """Return the number in a line."""
    found = re.search(r"[0-9]+", line)
    assert found
    return found[0]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "alerts must go somewhere to be tested; set ML_PIPELINE_SMTP_HOST or ML_PIPELINE_ALERT_CHANNELS"),
        (["--channel", "slak"], "a channel must be one of the known ones (got 'slak'); did you mean 'slack'?"),
        (["--channel", "teams"], "the channel teams needs ML_PIPELINE_TEAMS_WEBHOOK_FILE; set it"),
    ],
)
def test_what_cannot_be_tried_is_an_error_of_the_settings(
    capsys: pytest.CaptureFixture[str], arguments: list[str], text: str
) -> None:
    """Exit code 2, and one line that says what to set."""
    assert main(["alerts", "test", *arguments]) == 2
    assert text in capsys.readouterr().err


def test_alertmanager_is_tried_too(capsys: pytest.CaptureFixture[str]) -> None:
    """Where it is set, by default and before the ways that stand in; where it is not, that is told."""
    assert main(["alerts", "test", "--channel", "alertmanager"]) == 2
    assert "the channel alertmanager needs ML_PIPELINE_ALERTMANAGER_URL; set it" in capsys.readouterr().err
    end = HttpEnd(all_texts)
    with end.serving():
        ml_pipeline.configure(alertmanager_url=f"http://127.0.0.1:{end.port}", name="adni")
        assert main(["alerts", "test"]) == 0
    steps = told(capsys)
    assert steps[0] == "alertmanager: sending '[TEST] adni: a test of the alert channel alertmanager', delivery ID"
    assert steps[-2:] == ["alertmanager: Alertmanager has taken it (202)", "alertmanager: delivered in N s"]
    assert end.paths == ["/api/v2/alerts"]
