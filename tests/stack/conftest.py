"""A project folder and a Docker on which the stack comes up, for tests of the commands."""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import stack.__main__ as command_line
from stack.files import GENERATED, MARK
from stack.preflight import PORTS
from tests.stack.docker_program import DockerProgram, healthy_engine
from tests.support import ROOT, free_ports

SERVICES = ["alertmanager", "dashboards", "grafana", "pipeline", "prometheus", "pushgateway"]
LONG_RUNNING = [name for name in SERVICES if name != "dashboards"]
HEALTHY = [{"Service": name, "Name": f"p-{name}-1", "State": "running", "Health": "healthy"} for name in LONG_RUNNING]
VOLUMES = {"grafana-data": "p_grafana-data"}


class Alertmanager(BaseHTTPRequestHandler):
    """Takes a reload, or refuses it as it is told to."""

    answer = (200, "")

    def do_POST(self) -> None:
        """Answer."""
        code, text = type(self).answer
        self.send_response(code)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def alertmanager(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of something that takes reloads as Alertmanager does."""
    monkeypatch.setattr(Alertmanager, "answer", (200, ""))
    server = ThreadingHTTPServer(("127.0.0.1", 0), Alertmanager)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def root(isolated: Path, monkeypatch: pytest.MonkeyPatch, alertmanager: int) -> Path:
    """A project folder whose ports are free, but for Alertmanager's, which this stack itself has."""
    (isolated / "prometheus").mkdir()
    shutil.copy(ROOT / "prometheus" / "alertmanager.yml.template", isolated / "prometheus")
    ports = free_ports(PORTS) | {"ALERTMANAGER_PORT": alertmanager}
    (isolated / ".env").write_text("".join(f"{name}={port}\n" for name, port in ports.items()))
    monkeypatch.setattr(command_line, "_ROOT", isolated)
    return isolated


@pytest.fixture
def program(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alertmanager: int) -> DockerProgram:
    """A Docker on which the stack comes up."""
    ours = {"Service": "x", "Name": "p-x-1", "State": "running", "Publishers": [{"PublishedPort": alertmanager}]}
    made = DockerProgram(tmp_path / "bin", healthy_engine(SERVICES, VOLUMES, [*HEALTHY, ours]))
    made.install(monkeypatch)
    return made


@pytest.fixture
def started(root: Path) -> Path:
    """The project after its first `make up`."""
    (root / ".stack" / "secrets").mkdir(parents=True)
    for name in GENERATED:
        (root / ".stack" / "secrets" / name).write_text(name)
    (root / ".stack" / MARK).touch()
    (root / ".stack" / "project.json").write_text(json.dumps({"names": ["p"], "folders": [str(root)]}))
    with (root / ".env").open("a") as file:
        file.write(f"STACK_LOG_GROUP={os.getgid()}\n")
    return root
