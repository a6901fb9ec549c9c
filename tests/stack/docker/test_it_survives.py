"""Killed containers, `down` and `up`, backups: what was collected is there afterwards."""

from __future__ import annotations

import os
import signal
import subprocess
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.stack.docker.conftest import Stack
from tests.stack.docker.test_up import LONG_RUNNING
from tests.support import eventually

COUNT = 'sum(ml_pipeline_operations_total{job="ml-pipeline"})'
LINEAGE = (
    "import sqlite3; c = sqlite3.connect('file:/var/lib/ml_pipeline/metadata/lineage/lineage.db?mode=ro', uri=True); "
    "print(*sorted(r[0] for r in c.execute('select node_id from nodes where type != \"prediction\"')), sep='\\n')"
)
pytestmark = pytest.mark.timeout(1200)
HEALTHY_SECONDS = 300
"""Only a machine that does much else needs more than a minute."""


def _value(stack: Stack, at: float) -> float:
    """How many operations Prometheus knew of at a moment."""
    found = stack.query(COUNT, at)
    return float(found[0]["value"][1]) if found else 0.0


def _lineage(stack: Stack) -> set[str]:
    done = stack.compose("exec", "-T", "pipeline", "python", "-c", LINEAGE)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def _healthy(stack: Stack) -> bool:
    containers = stack.containers()
    return all(containers[name]["State"].get("Health", {}).get("Status") == "healthy" for name in LONG_RUNNING)


def _remember(stack: Stack) -> dict[str, Any]:
    """What must be the same afterwards: a series at a moment, lineage, boards, a silence, a pushed metric, the inbox."""
    at = eventually(lambda: stack.query(f"{COUNT} > 0"), seconds=HEALTHY_SECONDS)[0]["value"][0]
    silence = {
        "matchers": [{"name": "alertname", "value": "Kept", "isRegex": False}],
        "startsAt": "2026-01-01T00:00:00Z",
        "endsAt": "2099-01-01T00:00:00Z",
        "createdBy": "test",
        "comment": "must survive",
    }
    url = f"{stack.url('ALERTMANAGER_PORT')}/api/v2/silences"
    made = requests.post(url, json=silence, timeout=10).json()["silenceID"]
    push = f"{stack.url('PUSHGATEWAY_PORT')}/metrics/job/kept"
    assert requests.put(push, data="kept_metric 42\n", timeout=10).ok
    assert _beside_the_mails(stack, "echo kept >kept").returncode == 0
    return {"at": at, "value": _value(stack, at), "lineage": _lineage(stack), "silence": made}


def _beside_the_mails(stack: Stack, command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the folder of Mailpit's database, as Mailpit's own user."""
    return stack.compose("exec", "-T", "mailpit", "sh", "-c", f'cd "$(dirname "$MP_DATABASE")" && {command}')


def _same(stack: Stack, before: dict[str, Any]) -> None:
    assert before["value"] > 0
    assert _value(stack, before["at"]) == before["value"]
    assert before["lineage"] <= _lineage(stack)
    found = requests.get(f"{stack.url('ALERTMANAGER_PORT')}/api/v2/silence/{before['silence']}", timeout=10).json()
    assert found["comment"] == "must survive"
    assert "kept_metric" in requests.get(f"{stack.url('PUSHGATEWAY_PORT')}/metrics", timeout=10).text
    assert _beside_the_mails(stack, "cat kept && echo >>kept").stdout.startswith("kept")
    assert len(stack.grafana("/api/search?type=dash-db")) == 6


def test_each_container_that_dies_comes_back(stack: Stack) -> None:
    """Its main process is killed, as the kernel does when memory is short: Docker starts it again and all is healthy."""
    for service in sorted(LONG_RUNNING):
        before = stack.containers()[service]
        os.kill(before["State"]["Pid"], signal.SIGKILL)

        def again(service: str = service, before: dict[str, Any] = before) -> bool:
            state = stack.containers()[service]["State"]
            return state["Running"] and state["Pid"] != before["State"]["Pid"]

        eventually(again, seconds=60)
        assert stack.containers()[service]["Id"] == before["Id"], "restarted, not made anew"
    eventually(lambda: _healthy(stack), seconds=HEALTHY_SECONDS)
    stack.up()  # a local image that stands in for Grafana may hold the boards in memory


def test_a_killed_prometheus_has_what_it_held(stack: Stack) -> None:
    """The series from before the kill, from its write-ahead log; the pipeline's lineage likewise."""
    before = _remember(stack)
    # Pushgateway and Alertmanager keep theirs on disk at intervals and at a stop: here the two that write ahead die.
    for service in ("prometheus", "pipeline"):
        os.kill(stack.containers()[service]["State"]["Pid"], signal.SIGKILL)
    eventually(lambda: _healthy(stack), seconds=HEALTHY_SECONDS)
    eventually(lambda: _value(stack, before["at"]) == before["value"], seconds=HEALTHY_SECONDS)
    _same(stack, before)


def _kill(stack: Stack, *services: str) -> None:
    """`docker kill`, after which Docker leaves a container alone, whatever its restart policy."""
    for service in services:
        subprocess.run(["docker", "kill", stack.containers()[service]["Id"]], capture_output=True, check=True)


def _down(stack: Stack) -> set[str]:
    """The targets that an alert names."""
    # Not the series ALERTS: those of a Prometheus that was killed show for five minutes more.
    found = requests.get(f"{stack.url('PROMETHEUS_PORT')}/api/v1/alerts", timeout=10).json()["data"]["alerts"]
    firing = (each["labels"] for each in found if each["state"] == "firing")
    return {labels["job"] for labels in firing if labels["alertname"] == "TargetDown"}


def test_what_an_operator_kills_is_told(stack: Stack) -> None:
    """Docker does not start again what was killed by `docker kill`: an alert names each target, `make up` mends it."""
    killed = {
        "loki": "loki",
        "node-exporter": "node",
        "pushgateway": "pushgateway",
        "alloy": "alloy",
        "pipeline": "ml-pipeline",
        "grafana": "grafana",
    }
    _kill(stack, *killed)
    eventually(lambda: _down(stack) == set(killed.values()), seconds=HEALTHY_SECONDS)
    mail = stack.mail("TargetDown", seconds=60)
    assert "what to do: " in mail["Text"]
    assert not any(stack.containers()[service]["State"]["Running"] for service in killed)
    stack.up()
    eventually(lambda: not _down(stack), seconds=HEALTHY_SECONDS)


def test_what_carries_the_mail_is_killed(stack: Stack) -> None:
    """Without Alertmanager and inbox the alerts stand in Prometheus; without that, nobody tells; `make up` mends all."""
    _kill(stack, "alertmanager", "mailpit")
    eventually(lambda: _down(stack) == {"alertmanager", "mailpit"}, seconds=HEALTHY_SECONDS)
    _kill(stack, "prometheus")
    killed = ("alertmanager", "mailpit", "prometheus")
    assert not any(stack.containers()[service]["State"]["Running"] for service in killed)
    stack.up()
    assert _healthy(stack)
    eventually(lambda: not _down(stack), seconds=HEALTHY_SECONDS)


def test_a_log_folder_made_anew_needs_a_restart(stack: Stack) -> None:
    """The shipper holds on to the folder it was given; `make restart SERVICE=alloy` gives it the one there is now."""
    folder = stack.root / "ml_pipeline/logs"
    look = ("exec", "-T", "alloy", "cat", "/var/log/ml_pipeline/host/ml_pipeline.log")
    folder.rename(folder.with_name("logs-from-before"))
    folder.mkdir()
    (folder / "ml_pipeline.log").write_text("the new one\n")
    assert stack.compose(*look).stdout != "the new one\n"
    restarted = stack.run("restart", "alloy")
    assert restarted.returncode == 0, restarted.stderr
    assert stack.compose(*look).stdout == "the new one\n"


def test_down_and_up(stack: Stack) -> None:
    """`make down` and `make up`: series, lineage, silences, pushed metrics and boards are there."""
    before = _remember(stack)
    assert stack.run("down").returncode == 0
    assert not stack.containers()
    stack.up()
    _same(stack, before)


def test_backup_into_an_empty_stack(stack: Stack, tmp_path: Path) -> None:
    """A backup restored where nothing is left gives the same boards, series and lineage; a damaged one changes nothing."""
    before = _remember(stack)
    saved = stack.run("backup", str(tmp_path / "backups"))
    assert saved.returncode == 0, saved.stderr
    (archive,) = (tmp_path / "backups").iterdir()
    assert archive.stat().st_mode & 0o777 == 0o600
    assert _healthy(stack)
    env = (stack.root / ".env").read_text()

    damaged = tmp_path / "damaged.tar"
    content = bytearray(archive.read_bytes())
    with tarfile.open(archive) as tar:
        place = tar.getmember("volumes/pipeline-data.tar").offset_data + 100
    content[place] ^= 1
    damaged.write_bytes(content)
    refused = stack.run("restore", str(damaged), "--yes")
    assert refused.returncode == 2
    assert "a backup must be whole" in refused.stderr
    assert "volumes/pipeline-data.tar" in refused.stderr
    assert _healthy(stack)

    password = (stack.root / ".stack/secrets/grafana_admin_password").read_text()
    assert stack.run("purge").returncode == 0
    assert not stack.containers()
    assert not (stack.root / ".stack").exists()
    (stack.root / ".env").write_text(env)
    restored = stack.run("restore", str(archive), "--yes")
    assert restored.returncode == 0, restored.stderr
    assert (stack.root / ".stack/secrets/grafana_admin_password").read_text() == password
    _same(stack, before)
    assert _value(stack, time.time()) > 0
    assert set(stack.containers()) <= {*LONG_RUNNING, "dashboards"}, "what no profile asks for is not made"
