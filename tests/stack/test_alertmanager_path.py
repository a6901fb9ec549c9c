"""The process's own alerts through a real Alertmanager: one mail for a cause, whichever of the two is there to send it."""

from __future__ import annotations

import json
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline.config._encoding import rfc3339
from ml_pipeline.config.alerting import AlertManager
from ml_pipeline.settings import load_settings
from stack.alertmanager import render
from tests.config.alerting_world import Mailbox, Server
from tests.support import ROOT, eventually, free_port, require

FALLBACK_SECONDS = 3.0
NOTE = "Alertmanager has not taken this, so the pipeline sends it itself."


class World:
    """An Alertmanager with the shipped configuration, a mail server, and a manager that is to use the first."""

    def __init__(self, folder: Path, program: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.mailbox = Mailbox()
        self.server = Server(self.mailbox)
        self.server.start()
        self._program = program
        rendered = render(ROOT / "prometheus" / "alertmanager.yml.template", load_settings())
        for shipped, tested in {
            "mailpit:1025": f"127.0.0.1:{self.server.port}",
            "group_interval: 30s": "group_interval: 1s",
        }.items():
            assert shipped in rendered
            rendered = rendered.replace(shipped, tested)
        (folder / "alertmanager.yml").write_text(rendered)
        ml_pipeline.configure(
            name="trees",
            strict=False,
            alertmanager_url=f"http://127.0.0.1:{self.port}",
            alertmanager_fallback_seconds=FALLBACK_SECONDS,
            smtp_host="127.0.0.1",
            smtp_port=self.server.port,
            smtp_security="none",
            alert_email_from="pipeline@example.org",
            alert_email_to="ops@example.org",
        )
        self.alerts = AlertManager()

    @contextmanager
    def alertmanager(self, *, killed: bool = False) -> Iterator[None]:
        """Run Alertmanager while the block runs; its memory of what it sent outlives it, unless it is killed."""
        command = [
            self._program,
            f"--config.file={self.folder / 'alertmanager.yml'}",
            f"--storage.path={self.folder / 'storage'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]
        with (self.folder / "alertmanager.log").open("ab") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said)
        try:
            eventually(lambda: self.ask("status") is not None)
            yield
        finally:
            process.kill() if killed else process.terminate()
            process.wait(timeout=30)

    def ask(self, what: str) -> Any:
        """Ask Alertmanager; None where it does not answer."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/api/v2/{what}", timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return None

    def post(self, *entries: dict[str, Any]) -> None:
        """Tell Alertmanager of alerts, as Prometheus does."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/api/v2/alerts",
            json.dumps(entries).encode(),
            {"Content-Type": "application/json"},
        )
        urllib.request.urlopen(request, timeout=5).close()

    def wait_for_notes(self) -> None:
        """Wait until Alertmanager has noted what it has mailed, which it does after its mail has been taken.

        It looks into its notes at each turn of a group, one second apart, and a turn ends with its note.
        """
        asked = self._times_asked_of_notes()
        eventually(lambda: self._times_asked_of_notes() > asked)

    def _times_asked_of_notes(self) -> float:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            (times,) = re.findall(rb"^alertmanager_nflog_queries_total (\S+)$", answer.read(), re.MULTILINE)
        return float(times)

    def mails(self) -> tuple[list[str], list[str]]:
        """Return the subjects of Alertmanager's mails and of the process's own."""
        own: list[str] = []
        through: list[str] = []
        for envelope, mail in list(self.mailbox.received):
            (own if envelope.mail_from == "pipeline@example.org" and _is_own(mail) else through).append(
                str(mail["Subject"])
            )
        return through, own

    def deliveries(self) -> dict[str, dict[str, int]]:
        """Count deliveries by channel and state."""
        return {name: dict(counts) for name, counts in self.alerts.summary().deliveries.items()}  # type: ignore[arg-type]

    def refresh(self) -> None:
        """Have Alertmanager told again of what is open, before the minute is over."""
        channel = self.alerts._background.get()._alertmanager
        assert channel is not None
        channel._refreshed = 0.0
        channel.refresh()


def _is_own(mail: EmailMessage) -> bool:
    return "ml-pipeline" in str(mail["List-Id"])


@pytest.fixture
def world(tmp_path: Path, isolated: Path) -> Iterator[World]:
    """Return a world where Alertmanager does not run yet."""
    made = World(tmp_path, require("prometheus-alertmanager"))
    try:
        yield made
    finally:
        ml_pipeline.reset()
        made.server.stop()


def test_an_alert_is_one_mail_of_alertmanagers_and_its_end_another(world: World) -> None:
    """Within seconds; the process itself mails nothing."""
    # A clock behind that of Alertmanager: an alert lives a minute at least, which a test need not wait for.
    world.alerts = AlertManager(clock=lambda: time.time() - 90)
    with world.alertmanager():
        began = time.monotonic()
        alert_id = world.alerts.alert_processing_failure("fit", "no memory", model="forest")
        eventually(lambda: world.mails()[0])
        assert time.monotonic() - began < 30
        (entry,) = world.ask("alerts")
        assert entry["labels"] == {
            "alertname": "PipelineFailure", "pipeline": "trees", "kind": "processing_failure", "severity": "critical",
        }  # fmt: skip
        assert entry["annotations"]["summary"] == "fit failed: no memory"
        world.alerts.resolve(alert_id)
        through = eventually(lambda: world.mails()[0][1:] and world.mails()[0])
        assert [subject.split("]")[0] for subject in through] == ["[FIRING 1", "[RESOLVED"]
        assert "PipelineFailure in trees" in through[0]
        assert world.mails()[1] == []
        eventually(lambda: world.deliveries() == {"alertmanager": {"sent": 2}, "email": {"covered": 1}})


def test_the_same_labels_as_those_of_a_rule_are_one_alert(world: World) -> None:
    """Prometheus tells of it first; the process's alert joins it, and there is no second mail."""
    labels = {"alertname": "DataQuality", "pipeline": "trees", "kind": "data_quality", "severity": "warning"}
    with world.alertmanager():
        world.post({"labels": labels, "annotations": {"summary": "Data failed a quality check."}})
        eventually(lambda: world.mails()[0], seconds=60)
        world.alerts.alert_data_quality("age_not_null")
        eventually(lambda: world.deliveries().get("alertmanager") == {"sent": 1})
        (entry,) = world.ask("alerts")
        assert entry["labels"] == labels
        assert entry["annotations"]["summary"] == "age_not_null failed"
        # A later alert's mail shows that the groups have been looked at again since.
        world.alerts.alert_processing_failure("later", "x")
        eventually(lambda: len(world.mails()[0]) == 2)
        assert world.mails()[1] == []


@pytest.mark.parametrize("is_seen", [True, False])
def test_what_prometheus_says_is_over_is_not_fired_anew(world: World, is_seen: bool) -> None:
    """The process regards it as open, and lets it rest, whether it ever saw that Prometheus told of it or not."""
    with world.alertmanager():
        world.alerts.alert_processing_failure("fit", "no memory")
        eventually(lambda: world.mails()[0])
        rule = _of_a_rule(world.ask("alerts")[0])
        world.post(rule)
        if is_seen:
            world.refresh()
        world.post({**rule, "endsAt": _now()})
        eventually(lambda: world.mails()[0][1:])
        world.refresh()
        world.post({**rule, "endsAt": _now()})  # it says so again and again
        world.refresh()
        assert world.ask("alerts") == []
        world.alerts.alert_data_quality("later")
        through = eventually(lambda: world.mails()[0][2:] and world.mails()[0], seconds=60)
        assert [subject.split()[0] for subject in through] == ["[FIRING", "[RESOLVED]", "[FIRING"]
        assert "DataQuality" in through[2]


def test_what_prometheus_still_tells_is_not_over(world: World) -> None:
    """The process is sooner to know that it is; Prometheus ends it a little later, and that is one mail."""
    world.alerts = AlertManager(clock=lambda: time.time() - 90)  # as above
    with world.alertmanager():
        alert_id = world.alerts.alert_processing_failure("fit", "no memory")
        eventually(lambda: world.mails()[0])
        rule = _of_a_rule(world.ask("alerts")[0])
        world.post(rule)
        world.alerts.resolve(alert_id)
        eventually(lambda: world.deliveries().get("alertmanager") == {"sent": 2})
        (held,) = world.ask("alerts")
        assert held["generatorURL"] == rule["generatorURL"]
        world.post({**rule, "endsAt": _now()})
        through = eventually(lambda: world.mails()[0][1:] and world.mails()[0])
        assert [subject.split()[0] for subject in through] == ["[FIRING", "[RESOLVED]"]


def _of_a_rule(entry: dict[str, Any]) -> dict[str, Any]:
    """Return an alert with the same labels as Prometheus posts it."""
    source = "http://127.0.0.1:9090/graph?g0.expr=up&g0.tab=1"
    return {"labels": entry["labels"], "startsAt": entry["startsAt"], "generatorURL": source}


def _now() -> str:
    return rfc3339(time.time())


def test_without_alertmanager_the_process_mails_and_nobody_mails_again(world: World) -> None:
    """It takes over after the time set and says so; Alertmanager comes back and is told of what is new alone."""
    world.alerts.alert_processing_failure("alone", "x")
    eventually(lambda: world.mails()[1])
    ((_, mail),) = world.mailbox.received
    body = mail.get_body(("plain",))
    assert body is not None
    assert NOTE in body.get_content()
    eventually(lambda: world.deliveries() == {"alertmanager": {"covered": 1}, "email": {"sent": 1}})
    with world.alertmanager():
        world.refresh()
        assert world.ask("alerts") == []
        world.alerts.alert_data_quality("age_not_null")
        eventually(lambda: world.mails()[0], seconds=60)
        assert [entry["labels"]["alertname"] for entry in world.ask("alerts")] == ["DataQuality"]
        assert len(world.mails()[1]) == 1


def test_alertmanager_is_restarted_in_between(world: World) -> None:
    """It is told again of what is open, and mails it no second time; what came meanwhile the process has mailed."""
    with world.alertmanager():
        world.alerts.alert_processing_failure("before", "x")
        eventually(lambda: world.mails()[0])
        world.wait_for_notes()
    world.alerts.alert_data_quality("meanwhile")
    eventually(lambda: world.mails()[1])
    with world.alertmanager():
        world.refresh()
        (entry,) = eventually(lambda: world.ask("alerts"))
        assert entry["annotations"]["summary"] == "before failed: x"
        world.alerts.alert_resource_threshold("memory", 0.95, 0.9)
        eventually(lambda: len(world.mails()[0]) == 2, seconds=60)
    through, own = world.mails()
    assert [subject.split("]")[1].split()[0] for subject in through] == ["PipelineFailure", "HighMemory"]
    assert len(own) == 1


def test_alertmanager_is_killed_while_it_holds_alerts(world: World) -> None:
    """What it had taken and mailed is not mailed by the process too."""
    with world.alertmanager(killed=True):
        world.alerts.alert_processing_failure("taken", "x")
        eventually(lambda: world.mails()[0])
    world.alerts.alert_data_quality("meanwhile")
    eventually(lambda: world.mails()[1])
    through, own = world.mails()
    assert (len(through), len(own)) == (1, 1)
    assert "meanwhile" in own[0] or "DataQuality" in own[0]
