"""Closed by default: loopback ports, no root, nothing writable, no secret where somebody may read it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import requests

from stack.files import GENERATED
from tests.stack.docker.conftest import Stack


def test_only_loopback_listens(stack: Stack) -> None:
    """Every published port is bound to 127.0.0.1; what is not for people is not published at all."""
    published = {
        (service, binding["HostIp"], binding["HostPort"])
        for service, container in stack.containers().items()
        for bindings in (container["NetworkSettings"]["Ports"] or {}).values()
        for binding in bindings or ()
    }
    assert {address for _, address, _ in published} == {"127.0.0.1"}
    assert {service for service, _, _ in published} == {
        "grafana", "prometheus", "alertmanager", "pushgateway", "mailpit", "loki",
    }  # fmt: skip


def test_nobody_is_root(stack: Stack) -> None:
    """Every process of every container has another user than root, no capability, and cannot get more."""
    for service, container in stack.containers().items():
        if not container["State"]["Running"]:
            continue
        status = Path(f"/proc/{container['State']['Pid']}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert "0" not in fields["Uid"].split(), service
        assert int(fields["CapEff"], 16) == 0, service
        assert int(fields["CapBnd"], 16) == 0, service
        assert fields["NoNewPrivs"].strip() == "1", service


def test_images_cannot_be_written(stack: Stack) -> None:
    """The root file system of each container is read-only, and its memory, processors and processes are limited."""
    for service, container in stack.containers().items():
        host = container["HostConfig"]
        assert host["ReadonlyRootfs"], service
        assert host["Memory"] > 0, service
        assert host["NanoCpus"] > 0, service
        assert host["PidsLimit"] > 0, service
        assert host["LogConfig"]["Config"]["max-size"], service


def test_no_secret_shows(stack: Stack) -> None:
    """The generated passwords are in no inspection, no rendered configuration, no log and no metric."""
    secrets = [(stack.root / ".stack/secrets" / name).read_text() for name in GENERATED]
    shown = {
        "docker inspect": json.dumps(stack.containers()),
        "compose config": stack.compose("--profile", "*", "config").stdout,
        "logs": stack.compose("logs").stdout,
        "alertmanager.yml": (stack.root / ".stack/alertmanager/alertmanager.yml").read_text(),
        ".env": (stack.root / ".env").read_text(),
    }
    for name in ("PROMETHEUS_PORT", "ALERTMANAGER_PORT", "PUSHGATEWAY_PORT", "GRAFANA_PORT", "LOKI_PORT"):
        shown[name] = requests.get(f"{stack.url(name)}/metrics", timeout=10).text
    for where, text in shown.items():
        assert text, where
        for secret in secrets:
            assert len(secret) >= 24
            assert secret not in text, where


def test_generated_files_are_ours_alone(stack: Stack) -> None:
    """The folder of the secrets is 0700, and the files in it can be read by the containers' users and written by none."""
    folder = stack.root / ".stack/secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE((folder / name).stat().st_mode) for name in GENERATED} == {0o444}
    assert stat.S_IMODE((stack.root / ".stack/alertmanager/alertmanager.yml").stat().st_mode) == 0o644


def test_grafana_has_no_default_password(stack: Stack) -> None:
    """Neither nobody nor admin:admin gets in."""
    url = f"{stack.url('GRAFANA_PORT')}/api/search"
    assert requests.get(url, timeout=10).status_code == 401
    assert requests.get(url, auth=("admin", "admin"), timeout=10).status_code == 401


def test_only_what_must_talk_can(stack: Stack) -> None:
    """A pipeline reaches Alertmanager, but no mail, no boards and no logs; Alertmanager reaches the inbox."""

    def networks(service: str) -> set[str]:
        names = stack.containers()[service]["NetworkSettings"]["Networks"]
        return {name.removeprefix(f"{stack.variables['COMPOSE_PROJECT_NAME']}_") for name in names}

    assert networks("pipeline") == {"metrics"}
    assert networks("alloy") == {"logs"}
    assert networks("pipeline") & networks("alertmanager")
    for other in ("grafana", "loki", "alloy", "mailpit"):
        assert not networks("pipeline") & networks(other), other
    lookup = "import socket; socket.gethostbyname('mailpit')"
    assert stack.compose("exec", "-T", "pipeline", "python", "-c", lookup).returncode != 0
    assert networks("alertmanager") & networks("mailpit")


def test_the_image_has_no_build_tools(stack: Stack) -> None:
    """Neither a compiler nor pip is in the environment that the pipeline runs in."""
    looked = "import shutil, importlib.util as u; print(shutil.which('gcc'), shutil.which('make'), u.find_spec('pip'))"
    assert stack.compose("exec", "-T", "pipeline", "python", "-c", looked).stdout.split() == ["None", "None", "None"]
