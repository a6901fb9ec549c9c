"""``ml-pipeline alerts …``, as the shell sees it: tables, JSON, and what is said of what cannot be."""

from __future__ import annotations

import json

import pytest

from ml_pipeline.cli import main
from ml_pipeline.config.alerting import AlertManager, alert_manager
from ml_pipeline.report.alerts import duration_seconds
from tests.config.alerting_world import Pager


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[list[str]]:
    """Run a command that works, and return the words of its lines."""
    capsys.readouterr()
    assert main(["alerts", *arguments]) == 0
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that cannot work, and return what is said."""
    capsys.readouterr()
    assert main(["alerts", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


def test_the_list_can_be_narrowed(capsys: pytest.CaptureFixture[str]) -> None:
    """By kind, severity, state, time and number; every field as JSON."""
    failed = alert_manager.alert_processing_failure("first_step", "broken")
    drifted = alert_manager.alert_data_drift("m", "age")
    alert_manager.resolve(failed)
    heads, *rows = said(capsys, "list")
    assert heads == ["time", "severity", "state", "kind", "operation", "times", "message", "id"]
    assert [row[-1] for row in rows] == [drifted, failed]
    for narrowed in (("--active",), ("--kind", "data_drift"), ("--severity", "warning"), ("--limit", "1")):
        assert [row[-1] for row in said(capsys, "list", *narrowed)[1:]] == [drifted]
    assert [row[2] for row in said(capsys, "list", "--state", "resolved", "--since", "1h")[1:]] == ["resolved"]
    assert said(capsys, "list", "--since", "2100-01-01")[1:] == []
    capsys.readouterr()
    assert main(["alerts", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [alert.to_dict() for alert in alert_manager.history()]


def test_an_alert_is_shown_with_its_deliveries(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that is known of it, and nothing that steers a terminal."""
    pager = Pager()
    pager.failures = [OSError("down")]
    alerts = AlertManager(channels=[pager], on_delivery=lambda *_: None)
    try:
        raise TimeoutError("no \x1b[31m answer")  # noqa: TRY301 - with its traceback
    except TimeoutError as error:
        alert_id = alerts.alert_processing_failure("a", error, rows=3)
    alerts.flush()
    capsys.readouterr()
    assert main(["alerts", "show", alert_id]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"alert_id: {alert_id}" in lines
    assert "state: open" in lines
    assert "name: PipelineFailure" in lines
    assert "details.rows: 3" in lines
    assert "\x1b" not in "".join(lines)
    assert lines[-2].split() == ["channel", "why", "state", "attempts", "next", "or", "last", "error", "id"]
    assert lines[-1].split()[:4] == ["pager", "firing", "pending", "1"]
    assert "down" in lines[-1]
    assert main(["alerts", "show", alert_id, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["alert_id"], shown["deliveries"][0]["error"]) == (alert_id, "OSError: down")


def test_an_alert_is_seen_to_and_resolved(capsys: pytest.CaptureFixture[str]) -> None:
    """By a name, which the list shows; then it is over."""
    alert_id = alert_manager.alert_processing_failure("a", "b")
    assert said(capsys, "ack", alert_id, "--by", "ada") == [[f"{alert_id}:", "seen", "to", "by", "ada"]]
    assert said(capsys, "list")[1][2:6] == ["seen", "to", "by", "ada"]
    assert said(capsys, "resolve", alert_id) == [[f"{alert_id}:", "resolved"]]
    assert said(capsys, "list", "--active")[1:] == []


def test_alerts_are_silenced_for_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    """The silence is listed with its reason until it is ended."""
    ((silence_id, *words),) = said(
        capsys, "silence", "name=DataDrift", "model=alz*", "--for", "2h", "--reason", "repair", "--by", "ada"
    )
    silence_id = silence_id.removesuffix(":")
    assert words[:3] == ["name=DataDrift", "model=alz*", "until"]
    (row,) = said(capsys, "silences")[1:]
    assert row[1:] == ["name=DataDrift", "model=alz*", "repair", "ada", silence_id]
    assert main(["alerts", "silences", "--json"]) == 0
    (shown,) = json.loads(capsys.readouterr().out)
    assert shown["matchers"] == {"name": "DataDrift", "model": "alz*"}
    alert_manager.alert_data_drift("alzheimer", "age")
    assert said(capsys, "list")[1][2:4] == ["muted", "(silence)"]
    assert said(capsys, "unsilence", silence_id) == [[f"{silence_id}:", "ended"]]
    assert said(capsys, "silences")[1:] == []


def test_the_summary_counts(capsys: pytest.CaptureFixture[str]) -> None:
    """By severity, kind and delivery, over a period; as JSON too."""
    alerts = AlertManager(channels=[Pager()], on_delivery=lambda *_: None)
    for _ in range(3):
        alerts.alert_processing_failure("a", "b")
    alerts.alert_data_quality("unique")
    alerts.flush()
    rows = said(capsys, "summary", "7d")[1:]
    assert rows == [
        ["alerts", "2"],
        ["held", "back", "2"],
        ["severity", "critical", "1"],
        ["severity", "warning", "1"],
        ["kind", "data_quality", "1"],
        ["kind", "processing_failure", "1"],
        ["pager", "sent", "2"],
    ]
    assert main(["alerts", "summary", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["alerts"], shown["deliveries"]) == (2, {"pager": {"sent": 2}})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            ["show", "nobody"],
            "an alert that is shown must be in the history (got 'nobody'); see `ml-pipeline alerts list`",
        ),
        (
            ["ack", "nobody", "--by", "ada"],
            "an alert that is seen to or resolved must be open (got 'nobody'); see `ml-pipeline alerts list --active`",
        ),
        (
            ["resolve", "nobody"],
            "an alert that is seen to or resolved must be open (got 'nobody'); see `ml-pipeline alerts list --active`",
        ),
        (
            ["unsilence", "nobody"],
            "a silence that is ended must last still (got 'nobody'); see `ml-pipeline alerts silences`",
        ),
        (
            ["list", "--severity", "bad"],
            "a severity must be one of the known ones (got 'bad'); known: critical, info, warning",
        ),
        (
            ["silence", "nme=a", "--for", "2h", "--reason", "x"],
            "a silence matches by a field that it can match by (got 'nme'); did you mean 'name'?",
        ),
        (
            ["silence", "name", "--for", "2h", "--reason", "x"],
            "a silence matches by FIELD=TEXT (got 'name'); as in name=DataDrift",
        ),
        (
            ["silence", "name=a", "name=b", "--for", "2h", "--reason", "x"],
            "a silence matches by each field once (got 'name=b'); make two silences",
        ),
        (
            ["silence", "name=a", "--for", "soon", "--reason", "x"],
            "--for must be a number and a unit (got 'soon'); such as 30m, 2h, 3d",
        ),
        (["summary", "soon"], "PERIOD must be a number and a unit (got 'soon'); such as 30m, 2h, 3d"),
    ],
)
def test_what_cannot_be_is_one_line(capsys: pytest.CaptureFixture[str], arguments: list[str], text: str) -> None:
    """It names the rule, what was given and the remedy; the exit code is 2."""
    assert refused(capsys, *arguments) == f"error: {text}\n"


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("2H", 7200), (" 3d ", 259_200), ("1w", 604_800)]
)
def test_how_long_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    """Seconds to weeks."""
    assert duration_seconds(text) == seconds
