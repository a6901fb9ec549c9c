"""The rule path without Docker: a real Prometheus and Alertmanager with the shipped files turn a failure into a mail."""

from __future__ import annotations

import json
import os
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiosmtpd.smtp import Envelope

from ml_pipeline.settings import load_settings
from stack.alertmanager import render, runbook_of
from tests.config.alerting_world import Mailbox, Server
from tests.support import ROOT, eventually, free_port, require, started_example

SHIPPED = ROOT / "prometheus"
RUNBOOKS = ROOT / "docs" / "runbooks"
JOBS = {"ml-pipeline", "prometheus", "alertmanager"}


@dataclass(frozen=True)
class World:
    """Where everything listens, and what was mailed."""

    prometheus: int
    alertmanager: int
    pipeline: int
    mailbox: Mailbox

    def ask(self, path: str, **parameters: str) -> Any:
        """Return what Prometheus's API answers; None while it cannot."""
        url = f"http://127.0.0.1:{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except OSError:
            return None

    def mails(self) -> list[tuple[Envelope, EmailMessage]]:
        """Return the mails about our pipeline, in order of arrival; there are others about targets that come and go."""
        return [(envelope, mail) for envelope, mail in self.mailbox.received if mail["Subject"].endswith(" in trees")]

    def subjects(self) -> list[str]:
        """Return the subjects of those."""
        return [str(mail["Subject"]) for _, mail in self.mails()]


def _text(mail: EmailMessage) -> str:
    body = mail.get_body(("plain",))
    assert body
    return str(body.get_content()).replace("\r\n", "\n")


def _prometheus_files(folder: Path, world: World) -> Path:
    """Copy the shipped files; addresses are others, targets that are not there are left out, no rule takes a minute.

    A failure made good is shown for 45 s instead of two minutes, which leaves Alertmanager the time to group.
    """
    sooner = {"interval: 1m": "interval: 15s", "expr: vector(120)": "expr: vector(45)"}
    (folder / "rules").mkdir()
    for path in SHIPPED.joinpath("rules").glob("*.yml"):
        rules = path.read_text("utf-8")
        for shipped, tested in sooner.items():
            rules = rules.replace(shipped, tested)
        (folder / "rules" / path.name).write_text(rules)
    (folder / "targets").mkdir()
    text = (SHIPPED / "prometheus.yml").read_text("utf-8")
    for name, port in (
        ("alertmanager:9093", world.alertmanager),
        ("pipeline:8000", world.pipeline),
        ("localhost:9090", world.prometheus),
    ):
        assert f"[{name}]" in text
        text = text.replace(f"[{name}]", f"['127.0.0.1:{port}']")
    configuration = yaml.safe_load(text)
    configuration["scrape_configs"] = [each for each in configuration["scrape_configs"] if each["job_name"] in JOBS]
    assert len(configuration["scrape_configs"]) == len(JOBS)
    (folder / "prometheus.yml").write_text(yaml.safe_dump(configuration))
    return folder / "prometheus.yml"


@contextmanager
def _running(command: list[str], said: Path, **environment: str) -> Iterator[None]:
    with said.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=os.environ | environment)
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Prometheus and Alertmanager with the shipped configuration, and a mail server."""
    programs = require("prometheus"), require("prometheus-alertmanager")
    folder = tmp_path_factory.mktemp("path")
    mailbox = Mailbox()
    server = Server(mailbox)
    server.start()
    made = World(free_port(), free_port(), free_port(), mailbox)
    runbook = runbook_of(RUNBOOKS, {"PROMETHEUS_PORT": str(made.prometheus)})
    rendered = render(SHIPPED / "alertmanager.yml.template", load_settings(), runbook)
    assert '"mailpit:1025"' in rendered
    (folder / "alertmanager.yml").write_text(rendered.replace("mailpit:1025", f"127.0.0.1:{server.port}"))
    pages = f"http://127.0.0.1:{made.prometheus}/consoles"
    try:
        with (
            _running(
                [
                    programs[1],
                    f"--config.file={folder / 'alertmanager.yml'}",
                    f"--storage.path={folder / 'alertmanager'}",
                    f"--web.listen-address=127.0.0.1:{made.alertmanager}",
                    f"--web.external-url=http://127.0.0.1:{made.alertmanager}/",
                    "--cluster.listen-address=",
                ],
                folder / "alertmanager.log",
            ),
            _running(
                [
                    programs[0],
                    f"--config.file={_prometheus_files(folder, made)}",
                    f"--storage.tsdb.path={folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{made.prometheus}",
                    f"--web.console.templates={RUNBOOKS}",
                    "--enable-feature=exemplar-storage,expand-external-labels",
                ],
                folder / "prometheus.log",
                RUNBOOKS_URL=pages,
            ),
        ):
            yield made
    finally:
        server.stop()


def test_promtool_accepts_the_shipped_file() -> None:
    """The shipped configuration is valid as it stands, with every rule that it names."""
    done = subprocess.run(
        [require("promtool"), "check", "config", str(SHIPPED / "prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "SUCCESS" in done.stdout


def test_every_rule_group_is_evaluated(world: World) -> None:
    """All shipped groups are loaded, evaluated every 5 s, and none of their rules has an error."""
    shipped = {
        group["name"]
        for path in SHIPPED.joinpath("rules").glob("*.yml")
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    }

    def evaluated() -> list[dict[str, Any]]:
        groups = (world.ask("rules") or {}).get("groups", [])
        done = groups and all(rule["health"] != "unknown" for group in groups for rule in group["rules"])
        return list(groups) if done else []

    groups = eventually(evaluated, seconds=60)
    assert {group["name"] for group in groups} == shipped
    assert {
        rule["name"]: rule.get("lastError") for group in groups for rule in group["rules"] if rule["health"] != "ok"
    } == {}
    failures = next(group for group in groups if group["name"] == "failures")
    assert failures["interval"] == 5


def test_a_failure_is_one_mail_and_its_end_another(world: World, isolated: Path) -> None:
    """The mail names the pipeline and the page that helps; the general alert keeps still; a good training resolves it."""
    environment = {"ML_PIPELINE_NAME": "trees", "ML_PIPELINE_STRICT": "0"}
    serving = ("--metrics-port", str(world.pipeline), "--linger", "120")
    with started_example("--fail-at", "train", *serving, **environment) as example:

        def told() -> bool:
            assert example.poll() is None, example.communicate()
            return bool(world.mails())

        eventually(told, seconds=90)

        def open_kinds() -> bool:
            opened = "pipeline_kind:ml_pipeline_operation_last_failure_timestamp_seconds:open"
            found = world.ask("query", query=f'{opened}{{pipeline="trees"}}')["result"]
            return {each["metric"]["kind"] for each in found} == {"training", "custom"}

        eventually(open_kinds, seconds=15)  # the run failed with its training; one of them is told

        def firing() -> list[dict[str, Any]]:
            return list(world.ask("query", query='ALERTS{alertstate="firing",pipeline="trees"}')["result"])

        assert [each["metric"]["alertname"] for each in eventually(firing, seconds=15)] == ["TrainingFailure"]
        assert all(set(each["metric"]) >= {"pipeline", "kind", "severity"} for each in firing())
        assert not [each for each in firing() if "runbooks" in each["metric"]]
    ((envelope, mail),) = world.mails()
    assert envelope.rcpt_tos == ["ops@localhost"]
    assert mail["From"] == "ml-pipeline@localhost"
    assert mail["Subject"] == "[FIRING 1] TrainingFailure in trees"
    assert mail["Auto-Submitted"] == "auto-generated"
    text = _text(mail)
    page = f"http://127.0.0.1:{world.prometheus}/consoles/TrainingFailure.md"
    assert f"what to do: {page}\n" in text
    assert f"http://127.0.0.1:{world.alertmanager}/#/alerts?receiver=on-call" in text
    assert "FIRING: A model could not be trained." in text
    assert "Training failed in trees, " in text
    assert "alertname=TrainingFailure kind=processing_failure pipeline=trees severity=critical" in text
    with urllib.request.urlopen(page, timeout=10) as answer:
        assert answer.read().decode() == (RUNBOOKS / "TrainingFailure.md").read_text("utf-8")

    eventually(lambda: (world.ask("query", query='up{job="ml-pipeline"} == 0') or {}).get("result"), seconds=30)
    still = 'ALERTS{alertstate="firing",alertname="TrainingFailure",pipeline="trees"}'
    assert len(world.ask("query", query=still)["result"]) == 1, "a process that is gone has made nothing good"

    with started_example(*serving, **environment):
        resolved = "[RESOLVED] TrainingFailure in trees"
        eventually(lambda: resolved in world.subjects(), seconds=100)
    assert world.subjects() == ["[FIRING 1] TrainingFailure in trees", resolved]
    _, mail = world.mails()[-1]
    text = _text(mail)
    assert "RESOLVED: A model could not be trained." in text
    assert " until 20" in text
    assert world.ask("query", query='ALERTS{alertstate="firing",pipeline="trees"}')["result"] == []


def test_a_failure_that_the_process_posts_too_is_one_alert_and_one_mail(world: World, isolated: Path) -> None:
    """The process is the first to tell of it, with the labels of the rule; Prometheus joins in and changes nothing."""
    alertmanager = f"http://127.0.0.1:{world.alertmanager}"
    environment = {"ML_PIPELINE_NAME": "both", "ML_PIPELINE_STRICT": "0", "ML_PIPELINE_ALERTMANAGER_URL": alertmanager}
    serving = ("--metrics-port", str(world.pipeline), "--linger", "120")

    def posted() -> list[dict[str, Any]]:
        try:
            with urllib.request.urlopen(f"{alertmanager}/api/v2/alerts?filter=pipeline%3Dboth", timeout=10) as answer:
                return list(json.load(answer))
        except OSError:  # it has only just been started
            return []

    def subjects() -> list[str]:
        return [str(mail["Subject"]) for _, mail in world.mailbox.received if mail["Subject"].endswith(" in both")]

    with started_example("--fail-at", "train", *serving, **environment):
        (of_process,) = eventually(posted, seconds=60)
        assert "Alert id" in of_process["annotations"]["description"]
        (of_both,) = eventually(lambda: [one for one in posted() if "g0.expr" in one["generatorURL"]], seconds=60)
        assert of_both["labels"] == of_process["labels"]
        assert of_both["startsAt"] == of_process["startsAt"]
        assert len(posted()) == 1
    assert subjects() == ["[FIRING 1] TrainingFailure in both"]
    (text,) = (_text(mail) for _, mail in world.mailbox.received if mail["Subject"].endswith(" in both"))
    page = f"http://127.0.0.1:{world.prometheus}/consoles/TrainingFailure.md"
    assert f"what to do: {page}\n" in text, "the process names no page; its alert has one by its name"
