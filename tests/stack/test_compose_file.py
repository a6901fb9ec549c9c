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
from stack.files import GENERATED, MARK, STATE
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
        r"\$\{([A-Z_]+_IMAGE):-([^:@]+):([^:@}]+|\$\{[^}]+\})(@sha256:[0-9a-f]{64})?\}", SERVICES[name]["image"]
    ).groups()  # type: ignore[union-attr]
    assert variable == "PIPELINE_IMAGE" or variable == f"{name.upper().replace('-', '_')}_IMAGE"
    assert repository
    assert tag != "latest"
    assert bool(digest) == (name not in TAG_ALONE)


def test_the_image_that_is_built_is_called_after_the_project() -> None:
    """Two checkouts under two project names do not run each other's pipeline; the one-shot uses what was built here."""
    default = "${COMPOSE_PROJECT_NAME:-" + PROJECT["name"] + "}"
    assert SERVICES["pipeline"]["image"] == f"${{PIPELINE_IMAGE:-ml-pipeline-observability:{default}}}"
    assert SERVICES["dashboards"]["image"] == SERVICES["pipeline"]["image"]


def test_the_dockerfile_takes_its_base_from_outside() -> None:
    """The base image is an argument in both stages, and compose hands it on with the same default."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    assert re.findall(r"^(?:ARG|FROM) .*PYTHON_IMAGE.*$", dockerfile, re.MULTILINE) == [
        "ARG PYTHON_IMAGE=python:3.13-slim-bookworm",
        "FROM ${PYTHON_IMAGE} AS build",
        "FROM ${PYTHON_IMAGE}",
    ]
    assert SERVICES["pipeline"]["build"]["args"] == {"PYTHON_IMAGE": "${PYTHON_IMAGE:-python:3.13-slim-bookworm}"}


def test_an_edit_of_the_source_is_built_without_a_package_index() -> None:
    """All that is fetched is fetched, by its hash, before the source is copied; afterwards pip may not look anywhere."""
    steps = re.sub(r" *\\\n *", " ", (ROOT / "Dockerfile").read_text("utf-8")).splitlines()
    source = steps.index("COPY ml_pipeline ml_pipeline")
    installs = {number: step for number, step in enumerate(steps) if " install " in step}
    locked = [step for number, step in installs.items() if number < source]
    assert [re.findall(r"requirements-\w+\.lock", step) for step in locked] == [
        ["requirements-image.lock"],
        ["requirements-build.lock"],
    ]
    assert all("--require-hashes" in step for step in locked)
    (own,) = (step for number, step in installs.items() if number > source)
    assert {"--no-index", "--no-build-isolation"} <= set(own.split())


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
        "pipeline": {"alertmanager"},
        "alloy": {"loki"},
    }
    bystanders = {  # on one network because a third calls both
        ("pipeline", "pushgateway"), ("pipeline", "node-exporter"), ("pushgateway", "node-exporter"),
        ("alertmanager", "pushgateway"), ("alertmanager", "node-exporter"),
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
    """A volume takes owner and mode of the image's folder, so each is mounted on exactly that folder."""
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
        "mailpit-data": "/var/tmp",
        "grafana-data": "/var/lib/grafana",
        "loki-data": "/loki",
        "alloy-data": "/var/lib/alloy/data",
        "pushgateway-data": "/pushgateway",
        "postgres-data": "/var/lib/postgresql/data",
    }
    assert set(places) == set(PROJECT["volumes"])


def test_what_a_service_keeps_lies_in_its_volume() -> None:
    """The files that settings name are below the service's volume: in a tmpfs, `make down` would lose them."""
    kept = {
        "mailpit": SERVICES["mailpit"]["environment"]["MP_DATABASE"],
        "pushgateway": SERVICES["pushgateway"]["command"][0].partition("=")[2],
        "postgres": SERVICES["postgres"]["environment"]["PGDATA"],
    }
    for name, path in kept.items():
        (volume,) = SERVICES[name]["volumes"]
        folder = volume.split(":")[1]
        assert Path(path).is_relative_to(folder), name
        assert folder not in SERVICES[name].get("tmpfs", ()), name


def test_limits_are_no_tighter_than_use() -> None:
    """What holds ninety days or answers many queries at once has room: a limit stops a fault, not a busy hour."""
    limits = {name: service["deploy"]["resources"]["limits"] for name, service in SERVICES.items()}
    mebibytes = {name: _mebibytes(each["memory"]) for name, each in limits.items()}
    least = {"prometheus": 2048, "grafana": 768, "loki": 1024, "alloy": 512, "pipeline": 1024}
    assert {name: mebibytes[name] for name, needed in least.items() if mebibytes[name] < needed} == {}
    # Their programs make threads, which count, for every slow read of a disk.
    assert {name for name in ("prometheus", "grafana", "loki") if limits[name]["pids"] < 400} == set()


def _mebibytes(text: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([MG])", text).groups()  # type: ignore[union-attr]
    return int(number) * {"M": 1, "G": 1024}[unit]


def test_addresses_that_resolve_inside_are_set_here() -> None:
    """The pipeline in the stack has Alertmanager and no SMTP settings, and `.env.example` none of the inner names."""
    assert SERVICES["pipeline"]["environment"]["ML_PIPELINE_ALERTMANAGER_URL"] == "http://alertmanager:9093"
    assert not [name for name in SERVICES["pipeline"]["environment"] if "SMTP" in name or "EMAIL" in name]
    example = (ROOT / ".env.example").read_text("utf-8")
    assert not re.search(r"http://(grafana|prometheus|loki|alertmanager|pushgateway|mailpit)\b", example)


def _compose(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Compose on the file, with a project folder of one's own; it needs no daemon for what is asked here."""
    docker = shutil.which("docker")
    if not docker or subprocess.run([docker, "compose", "version"], capture_output=True, check=False).returncode:
        pytest.skip("docker with its compose plugin is not installed")
    project = ["-f", str(ROOT / COMPOSE_FILE), "--project-directory", str(folder), "--profile", "*"]
    return subprocess.run(
        [docker, "compose", *project, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **variables},
    )


def _after_up(folder: Path) -> dict[str, str]:
    """Give a folder what `make up` writes, as far as Compose asks for it, and return the variable of `.env`."""
    (folder / STATE).mkdir()
    (folder / STATE / MARK).touch()
    return {"STACK_LOG_GROUP": "0"}


def test_compose_reads_it(tmp_path: Path) -> None:
    """Compose itself accepts the file, every profile on."""
    done = _compose(tmp_path, "config", "-q", **_after_up(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


def test_without_what_make_up_writes_compose_names_it(tmp_path: Path) -> None:
    """Before the first `make up`, and where `.env` has its line but the files are gone: nothing starts, one line says."""
    done = _compose(tmp_path, "config", "-q")
    assert done.returncode
    assert "run 'make up' first" in done.stderr
    done = _compose(tmp_path, "config", "-q", STACK_LOG_GROUP="0")
    assert done.returncode
    (line,) = done.stderr.splitlines()
    assert f"env file {tmp_path}/.stack/run-make-up-first not found" in line


def test_compose_calls_the_image_after_the_project(tmp_path: Path) -> None:
    """The name that a second checkout is given is in the name of what it builds; without one it is the file's."""
    variables = _after_up(tmp_path)
    second = _compose(tmp_path, "config", "--images", COMPOSE_PROJECT_NAME="second", **variables)
    assert "ml-pipeline-observability:second" in second.stdout.split()
    first = _compose(tmp_path, "config", "--images", COMPOSE_PROJECT_NAME="", **variables)
    assert "ml-pipeline-observability:ml-pipeline" in first.stdout.split()
