"""The compose file's promises, read from it: hardened services, loopback ports, secrets by file, pinned images."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stack.docker import COMPOSE_FILE
from stack.files import GENERATED
from stack.preflight import PORTS
from tests.support import ROOT

TEXT = (ROOT / COMPOSE_FILE).read_text("utf-8")
PROJECT: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = PROJECT["services"]
TAG_ALONE = {"pipeline": "built here", "dashboards": "built here", "postgres": "its publisher rebuilds the tag"}
"""Services whose image has no digest, each with the reason."""


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_hardened(name: str) -> None:
    """Read-only, without capabilities or new privileges, not root, limited, its own log rotated, and checked."""
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert str(service["user"]).split(":")[0] not in ("", "0", "root")
    assert set(service["deploy"]["resources"]["limits"]) == {"cpus", "memory", "pids"}
    assert service["logging"]["options"]["max-size"]
    assert service["restart"] == ("no" if name == "dashboards" else "unless-stopped")
    assert ("healthcheck" in service) == (name != "dashboards")
    assert not service.get("privileged")
    assert "docker.sock" not in str(service.get("volumes", ""))
    assert service["networks"], "a service without networks would join the default one"


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_is_a_pinned_variable(name: str) -> None:
    """`${NAME_IMAGE:-repository:tag@digest}`: a mirror can be named, and what is fetched cannot change."""
    variable, repository, tag, digest = re.fullmatch(
        r"\$\{([A-Z_]+_IMAGE):-([^:@]+):([^:@}]+)(@sha256:[0-9a-f]{64})?\}", SERVICES[name]["image"]
    ).groups()  # type: ignore[union-attr]
    assert variable == "PIPELINE_IMAGE" or variable == f"{name.upper().replace('-', '_')}_IMAGE"
    assert repository
    assert tag != "latest"
    assert bool(digest) == (name not in TAG_ALONE)


def test_the_dockerfile_takes_its_base_from_outside() -> None:
    """The base image is an argument in both stages, and compose hands it on with the same default."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert re.findall(r"^(?:ARG|FROM) .*PYTHON_IMAGE.*$", dockerfile, re.MULTILINE) == [
        "ARG PYTHON_IMAGE=python:3.13-slim-bookworm",
        "FROM ${PYTHON_IMAGE} AS build",
        "FROM ${PYTHON_IMAGE}",
    ]
    assert SERVICES["pipeline"]["build"]["args"] == {"PYTHON_IMAGE": "${PYTHON_IMAGE:-python:3.13-slim-bookworm}"}


def test_only_loopback_ports_each_a_variable() -> None:
    """What is published is published on 127.0.0.1, under the variables that are checked before the start."""
    published = [port for service in SERVICES.values() for port in service.get("ports", ())]
    found = [re.fullmatch(r"127\.0\.0\.1:\$\{([A-Z_]+):-(\d+)\}:\d+", port) for port in published]
    assert all(found), published
    variables = {match[1]: int(match[2]) for match in found if match}
    assert variables == PORTS | {"POSTGRES_PORT": 5432}


def test_networks_join_only_what_must_talk() -> None:
    """Two services share a network only where one of them calls the other."""
    calls = {
        "prometheus": {
            "pipeline",
            "alertmanager",
            "mailpit",
            "grafana",
            "loki",
            "alloy",
            "pushgateway",
            "node-exporter",
        },
        "grafana": {"prometheus", "loki", "alertmanager"},
        "dashboards": {"grafana"},
        "alertmanager": {"mailpit"},
        "alloy": {"loki"},
    }
    bystanders = {  # on one network because a third calls both
        ("pipeline", "pushgateway"), ("pipeline", "node-exporter"), ("pushgateway", "node-exporter"),
        ("loki", "alertmanager"), ("dashboards", "prometheus"), ("dashboards", "loki"), ("dashboards", "alertmanager"),
    }  # fmt: skip
    for one, first in SERVICES.items():
        for other, second in SERVICES.items():
            together = one < other and set(first["networks"]) & set(second["networks"])
            called = other in calls.get(one, set()) or one in calls.get(other, set())
            allowed = called or (one, other) in bystanders or (other, one) in bystanders
            assert not together or allowed, (one, other, together)
            assert (
                one == other or other not in calls.get(one, set()) or set(first["networks"]) & set(second["networks"])
            )


def test_secrets_are_files_that_are_generated() -> None:
    """No variable carries a password: each secret is a file below .stack/ that `make up` writes."""
    files = {name: secret["file"] for name, secret in PROJECT["secrets"].items()}
    assert files == {name: f"./.stack/secrets/{name}" for name in GENERATED}
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|SECRET|TOKEN|KEY", name) and "DISABLED" not in name:
                assert name.endswith("_FILE"), name
                assert value.startswith("/run/secrets/"), name


def test_named_volumes_lie_where_the_images_write() -> None:
    """A volume takes the owner of the image's folder, so each is mounted on exactly that folder."""
    places = {
        place.split(":")[0]: place.split(":")[1]
        for service in SERVICES.values()
        for place in service.get("volumes", ())
        if isinstance(place, str) and place.split(":")[0] in PROJECT["volumes"] and not place.endswith(":ro")
    }
    assert places == {
        "pipeline-logs": "/var/log/ml_pipeline",
        "pipeline-data": "/var/lib/ml_pipeline",
        "prometheus-data": "/prometheus",
        "alertmanager-data": "/alertmanager",
        "grafana-data": "/var/lib/grafana",
        "loki-data": "/loki",
        "alloy-data": "/var/lib/alloy/data",
        "pushgateway-data": "/pushgateway",
        "postgres-data": "/var/lib/postgresql/data",
    }
    assert set(places) == set(PROJECT["volumes"])


def test_addresses_that_resolve_inside_are_set_here() -> None:
    """The pipeline in the stack has no SMTP settings, and `.env.example` none of the inner names."""
    assert not [name for name in SERVICES["pipeline"]["environment"] if "SMTP" in name or "EMAIL" in name]
    example = (ROOT / ".env.example").read_text("utf-8")
    assert not re.search(r"http://(grafana|prometheus|loki|alertmanager|pushgateway|mailpit)\b", example)


def test_compose_reads_it(tmp_path: Path) -> None:
    """Compose itself accepts the file, every profile on; it needs no daemon for that."""
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker with its compose plugin is not installed")
    command = [
        docker,
        "compose",
        "-f",
        str(ROOT / COMPOSE_FILE),
        "--project-directory",
        str(tmp_path),
        "--profile",
        "*",
    ]
    ready = {**os.environ, "STACK_LOG_GROUP": "0"}
    done = subprocess.run([*command, "config", "-q"], capture_output=True, text=True, check=False, env=ready)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run([*command, "config", "-q"], capture_output=True, text=True, check=False)
    assert "run 'make up' first" in done.stderr
