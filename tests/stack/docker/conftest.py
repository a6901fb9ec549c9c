"""A stack of its own on a real Docker engine: a copy of the project, another project name, free ports, local images.

`make test-stack` sets ``STACK_TESTS``; without it nothing here is collected, so that `make test` never starts Docker.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pytest
import requests
from dotenv import dotenv_values

from stack.preflight import PORTS
from tests.support import ROOT, eventually, free_port

collect_ignore_glob = [] if os.environ.get("STACK_TESTS") else ["test_*.py"]

COMPOSE = ("docker", "compose", "--file", "docker-compose.infrastructure.yml")
LIVELY = {
    "DEMO_TREES": "5",
    "DEMO_INTERVAL_SECONDS": "3",
    "DEMO_RETRAIN_EVERY": "5",
    "DEMO_TRAFFIC": "3",
    "PROMETHEUS_OTLP_FLAG": "--log.level=info",  # the local build of Prometheus has no OTLP receiver
}


@dataclass
class Stack:
    """A running stack.

    Attributes:
        root: The copy of the project it runs from.
        variables: What its ``.env`` began with.
    """

    root: Path
    variables: dict[str, str] = field(default_factory=dict)

    def url(self, name: str) -> str:
        """Return the address of a published port, by its variable."""
        return f"http://127.0.0.1:{self.variables[name]}"

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run `python -m stack`, as the Makefile's targets do."""
        return subprocess.run(
            [sys.executable, "-m", "stack", *arguments],
            cwd=self.root,
            env={**os.environ, "ML_PIPELINE_STRICT": "0", **environment},
            capture_output=True,
            text=True,
            check=False,
        )

    def up(self) -> str:
        """Run `make up`'s command, which must work, and return what it printed."""
        done = self.run("up")
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def compose(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Compose alone."""
        return subprocess.run([*COMPOSE, *arguments], cwd=self.root, capture_output=True, text=True, check=False)

    def containers(self) -> dict[str, dict[str, Any]]:
        """Return what `docker inspect` says of each service's container."""
        name = self.variables["COMPOSE_PROJECT_NAME"]
        ids = _docker("ps", "--all", "--quiet", "--filter", f"label=com.docker.compose.project={name}").split()
        found = json.loads(_docker("inspect", *ids)) if ids else []
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    def query(self, promql: str, at: float | None = None) -> list[dict[str, Any]]:
        """Return what Prometheus answers to an instant query."""
        answer = requests.post(
            f"{self.url('PROMETHEUS_PORT')}/api/v1/query",
            data={"query": promql} | ({"time": at} if at else {}),
            timeout=30,
        ).json()
        assert answer["status"] == "success", (promql, answer)
        result: list[dict[str, Any]] = answer["data"]["result"]
        return result if answer["data"]["resultType"] != "scalar" else [{"value": result}]

    def mails(self) -> list[dict[str, Any]]:
        """Return the inbox, newest first."""
        answer = requests.get(f"{self.url('MAILPIT_PORT')}/api/v1/messages?limit=1000", timeout=30).json()
        return list(answer["messages"])

    def mail(self, subject: str, seconds: float = 60.0) -> dict[str, Any]:
        """Return the newest mail whose subject holds a text, as soon as there is one."""
        return eventually(
            lambda: next((mail for mail in self.mails() if subject in mail["Subject"]), None), seconds=seconds
        )  # type: ignore[return-value]

    def grafana(self, path: str) -> Any:
        """Return what Grafana's API answers."""
        password = (self.root / ".stack/secrets/grafana_admin_password").read_text()
        answer = requests.get(f"{self.url('GRAFANA_PORT')}{path}", auth=("admin", password), timeout=30)
        answer.raise_for_status()
        return answer.json()


class Inbox:
    """Watches the inbox and remembers when each subject was first seen; a ``with`` block."""

    def __init__(self, stack: Stack) -> None:
        self.seen: dict[str, float] = {}
        self._stack = stack
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            for mail in self._stack.mails():
                self.seen.setdefault(mail["Subject"], time.time())


@pytest.fixture(scope="session")
def images() -> dict[str, str]:
    """The local images, by variable; without a file that names them the tests skip."""
    named = os.environ.get("STACK_IMAGES_ENV")
    if not named:
        if "docker" in os.environ.get("REQUIRE", "").split(","):
            pytest.fail("REQUIRE names docker, but STACK_IMAGES_ENV names no file of local images")
        pytest.skip("STACK_IMAGES_ENV names no env file with local images (PROMETHEUS_IMAGE=... and so on)")
    return {name: value for name, value in dotenv_values(named).items() if value}


@pytest.fixture(scope="session")
def copy(images: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A copy of the project with an ``.env``, before its first start; everything is removed at the end."""
    root = tmp_path_factory.mktemp("stack") / "project"
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]  # a new file is not yet tracked
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    for name in filter(None, names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, root / name)
    project = f"test-{os.getpid()}"
    stack = Stack(root, images | LIVELY | {name: str(free_port()) for name in (*PORTS, "POSTGRES_PORT")})
    stack.variables["COMPOSE_PROJECT_NAME"] = project
    (root / ".env").write_text("".join(f"{name}={value}\n" for name, value in stack.variables.items()))
    try:
        yield stack
    finally:
        if os.environ.get("KEEP_STACK") != "1":
            stack.run("purge")
            built = f"ml-pipeline-observability:{project}"
            subprocess.run(["docker", "image", "rm", built], capture_output=True, check=False)


@pytest.fixture(scope="session")
def stack(copy: Stack) -> Stack:
    """The stack, up and healthy."""
    copy.up()
    return copy


def _docker(*arguments: str) -> str:
    return subprocess.run(["docker", *arguments], capture_output=True, text=True, check=True).stdout
