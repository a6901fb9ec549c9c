"""What the running stack shows: targets, boards, and a failure that becomes a mail."""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import subprocess
import sys
import threading
import time
from datetime import datetime
from typing import Any

import pytest
import requests

from grafana.dashboards import EMPTY_IN_DEMO, EMPTY_QUERIES_IN_DEMO
from tests.stack.docker.conftest import Inbox, Stack
from tests.support import ROOT, eventually

RUNS = 20
BOARDS = json.loads((ROOT / "ml_pipeline/config/grafana_dashboards.json").read_bytes())["dashboards"]
ANSWERS = {
    "$__rate_interval": "1m",
    "$__interval": "15s",
    "$__range_s": "600",
    "$__range": "10m",
}


def test_every_target_is_up(stack: Stack) -> None:
    """Prometheus reaches every service, and has no target besides."""

    def states() -> dict[str, str]:
        answer = requests.get(f"{stack.url('PROMETHEUS_PORT')}/api/v1/targets", timeout=10).json()
        return {each["labels"]["job"]: each["health"] for each in answer["data"]["activeTargets"]}

    jobs = "ml-pipeline pushgateway node prometheus alertmanager grafana loki alloy mailpit"
    eventually(lambda: states() == dict.fromkeys(jobs.split(), "up"), seconds=60)


def _panels(board: dict[str, Any]) -> list[dict[str, Any]]:
    """Every panel, those inside collapsed rows too."""
    return [inner for panel in board["panels"] for inner in (panel, *panel.get("panels", ()))]


def _queries() -> list[tuple[str, str, str]]:
    """Every PromQL query that the demo can answer, as (board, panel, text with the variables filled in)."""
    return [
        (board["uid"], panel["title"], _filled(target["expr"]))
        for board in BOARDS
        for panel in _panels(board)
        for target in panel.get("targets", ())
        if target.get("datasource", {}).get("type") == "prometheus" and "expr" in target
        if (board["uid"], panel["title"]) not in EMPTY_IN_DEMO
        if (board["uid"], panel["title"], target["refId"]) not in EMPTY_QUERIES_IN_DEMO
    ]


def _filled(expr: str) -> str:
    for name, value in ANSWERS.items():
        expr = expr.replace(name, value)
    return re.sub(r"\$\{?\w+(:\w+)?\}?", ".+", expr)


def test_every_panel_has_data(stack: Stack) -> None:
    """Each query of the six boards is answered with data from the running pipeline, but for the few listed with a reason."""
    stack.run("example", "--drift")  # a pushed run, beside the scraped one
    waiting = _queries()
    assert len(waiting) > 100

    def left() -> list[tuple[str, str, str]]:
        waiting[:] = [query for query in waiting if not stack.query(query[2])]
        return waiting

    try:
        eventually(lambda: not left(), seconds=240)
    except pytest.fail.Exception:
        pytest.fail(f"no data: {waiting}")


def test_the_boards_are_in_their_folder(stack: Stack) -> None:
    """The boards are in Grafana, in their folder, as the file has them."""
    found = {each["uid"]: each for each in stack.grafana("/api/search?type=dash-db")}
    assert set(found) == {board["uid"] for board in BOARDS}
    assert {each["folderUid"] for each in found.values()} == {"ml-pipeline"}


def test_boards_twice_are_the_same(stack: Stack) -> None:
    """`make dashboards` again: everything is kept or unchanged."""
    said = [stack.run("dashboards").stdout for _ in range(2)]
    assert said[0] == said[1]
    assert said[0].count("unchanged") == 7  # the folder and six boards
    assert said[0].count("kept (provisioned)") == 3


def _failed_at(stack: Stack, pipeline: str) -> float:
    log = stack.root / "ml_pipeline/logs/ml_pipeline.log"
    lines = [json.loads(line) for line in log.read_text().splitlines() if f'"pipeline":"{pipeline}"' in line]
    (failed,) = [
        line for line in lines if line["context"].get("event") == "fail" and line["context"]["kind"] == "training"
    ]
    return datetime.fromisoformat(failed["timestamp"]).timestamp()


def _run_pushed(stack: Stack, pipeline: str) -> subprocess.CompletedProcess[str]:
    """Run the example so that training fails; it pushes its metrics and knows of no Alertmanager."""
    told = {"ML_PIPELINE_NAME": pipeline, "ML_PIPELINE_PUSHGATEWAY_URL": stack.url("PUSHGATEWAY_PORT")}
    return subprocess.run(
        [sys.executable, "-m", "ml_pipeline.examples.logging_monitoring_example", "--fail-at", "train", "--trees", "2"],
        cwd=stack.root,
        env={**os.environ, "ML_PIPELINE_STRICT": "0", **told},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.timeout(900)  # twenty runs, one after another, on a machine that may be busy
def test_failures_become_mails(stack: Stack, capsys: pytest.CaptureFixture[str]) -> None:
    """By the rules alone, at a random moment, twenty times: a mail within 20 s by the median and 30 s at worst."""
    chance, pause = random.Random(), threading.Event()
    with Inbox(stack) as inbox:
        for number in range(RUNS):
            done = _run_pushed(stack, f"phase-{number:02}")
            assert done.returncode == 1, done.stderr
            pause.wait(chance.uniform(0, 2))  # the moment within Prometheus's interval is what varies
        wanted = {f"[FIRING 1] TrainingFailure in phase-{number:02}" for number in range(RUNS)}
        eventually(lambda: wanted <= set(inbox.seen), seconds=60)
    took = sorted(
        inbox.seen[f"[FIRING 1] TrainingFailure in phase-{number:02}"] - _failed_at(stack, f"phase-{number:02}")
        for number in range(RUNS)
    )
    with capsys.disabled():
        shown = " ".join(f"{seconds:.1f}" for seconds in took)
        print(f"\nfailure to mail, {RUNS} runs, s: median {statistics.median(took):.1f}, worst {took[-1]:.1f}: {shown}")
    assert statistics.median(took) <= 20
    assert took[-1] <= 30
    assert not any("PipelineFailure in phase-" in subject for subject in inbox.seen), "one cause, one mail"


def test_what_no_rule_covers_becomes_a_mail(stack: Stack) -> None:
    """An alert that code raises in the stack's pipeline reaches a person through Alertmanager, within seconds."""
    call = "from ml_pipeline.config.alerting import alert_manager as a; a.alert_data_quality('age_not_null')"
    named = ("exec", "-T", "-e", "ML_PIPELINE_NAME=called", "pipeline", "python", "-c", call)
    assert stack.compose(*named).returncode == 0
    assert "age_not_null failed" in stack.mail("[FIRING 1] DataQuality in called")["Text"]


def test_the_resolved_mail_follows(stack: Stack) -> None:
    """The next run of the same pipeline succeeds: a mail says that it is over, though process and rule both tell it."""
    failed = stack.run("example", "--fail-at", "train", "--trees", "2", ML_PIPELINE_NAME="mended")
    assert failed.returncode == 1
    mail = stack.mail("[FIRING 1] TrainingFailure in mended", seconds=10)  # the process tells it at once
    firing = 'ALERTS{alertname="TrainingFailure",pipeline="mended",alertstate="firing"}'
    eventually(lambda: stack.query(firing), seconds=60)
    assert "what to do: " in mail["Text"]
    assert stack.run("example", "--trees", "2", ML_PIPELINE_NAME="mended").returncode == 0
    trained = 'ml_pipeline_operations_total{pipeline="mended",job="mended",kind="training",status="complete"} == 1'
    eventually(lambda: stack.query(trained), seconds=60)  # what was pushed is on the boards
    stack.mail("[RESOLVED] TrainingFailure in mended", seconds=240)


def test_the_mail_names_a_page_that_is_served(stack: Stack) -> None:
    """The link of a mail leads to the runbook, which Prometheus serves."""
    runbook = stack.query('ALERTS{alertname="Watchdog"}')
    assert runbook
    page = requests.get(f"{stack.url('PROMETHEUS_PORT')}/consoles/TrainingFailure.md", timeout=10)
    assert page.status_code == 200
    assert page.text == (ROOT / "docs/runbooks/TrainingFailure.md").read_text()


def test_a_point_of_a_graph_leads_to_its_operation(stack: Stack) -> None:
    """Prometheus keeps the exemplars of the scraped pipeline: each carries the ids that its log lines have."""

    def exemplars() -> list[dict[str, Any]]:
        asked = {
            "query": "ml_pipeline_operation_duration_seconds_bucket",
            "start": str(time.time() - 300),
            "end": str(time.time()),
        }
        answer = requests.get(f"{stack.url('PROMETHEUS_PORT')}/api/v1/query_exemplars", params=asked, timeout=10).json()
        return [exemplar for series in answer["data"] for exemplar in series["exemplars"]]

    found = eventually(exemplars, seconds=60)
    assert all(set(each["labels"]) == {"operation_id", "run_id"} for each in found)
    wanted = found[-1]["labels"]["operation_id"]
    read = ("exec", "-T", "alloy", "grep", "-rlF", wanted, "/var/log/ml_pipeline/stack")
    assert "/var/log/ml_pipeline/stack/ml_pipeline.log" in stack.compose(*read).stdout.split()


def test_a_process_on_the_host_is_seen(stack: Stack) -> None:
    """Scraped through a target file, its log lines readable to the shipper, its own alert taken by Alertmanager."""
    networks = stack.containers()["prometheus"]["NetworkSettings"]["Networks"]
    gateway = networks[f"{stack.variables['COMPOSE_PROJECT_NAME']}_metrics"]["Gateway"]
    program = (
        "import sys, threading\n"
        "from ml_pipeline.config.operation_logger import operation_logger\n"
        "from ml_pipeline.config.prometheus_metrics import start_metrics_server\n"
        "with operation_logger.operation('custom', 'mine'):\n"
        "    print(start_metrics_server(0).url, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    environment = {"ML_PIPELINE_NAME": "on-the-host", "ML_PIPELINE_METRICS_HOST": gateway}
    target = stack.root / "prometheus/targets/mine.yml"
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=stack.root,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = process.stdout.readline().rpartition("/")[0].rpartition(":")[2]
        target.write_text(f'- targets: ["{gateway}:{port}"]\n')
        eventually(
            lambda: stack.query('ml_pipeline_operations_in_progress{pipeline="on-the-host",kind="custom"} == 1'),
            seconds=60,
        )
        read = ("exec", "-T", "alloy", "sh", "-c", "grep -c on-the-host /var/log/ml_pipeline/host/ml_pipeline.log")
        assert int(stack.compose(*read).stdout) >= 1
        assert stack.compose(
            "exec", "-T", "alloy", "sh", "-c", "echo >> /var/log/ml_pipeline/host/ml_pipeline.log"
        ).returncode
        alert = {"labels": {"alertname": "Mine", "pipeline": "on-the-host", "severity": "critical"}}
        url = f"{stack.url('ALERTMANAGER_PORT')}/api/v2/alerts"
        assert requests.post(url, json=[alert], timeout=10).status_code == 200
        stack.mail("Mine in on-the-host")
    finally:
        target.unlink(missing_ok=True)
        process.communicate("", timeout=30)


def test_no_cause_made_two_mails(stack: Stack) -> None:
    """Minutes after: one mail that a training failed and one that it is over, whoever told of it."""
    subjects = [mail["Subject"] for mail in stack.mails()]
    failures = [
        subject for subject in subjects if subject.endswith((" in mended", " in called")) or "phase-" in subject
    ]
    assert sorted(failures) == sorted(set(failures))
    assert {subject for subject in failures if "mended" in subject} == {
        "[FIRING 1] TrainingFailure in mended",
        "[RESOLVED] TrainingFailure in mended",
    }
