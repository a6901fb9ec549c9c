"""`make up`: all healthy, twice, and only what was changed changes."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import requests

from stack.files import GENERATED
from tests.stack.docker.conftest import Stack
from tests.support import eventually

LONG_RUNNING = {
    "alertmanager", "alloy", "grafana", "loki", "mailpit", "node-exporter", "pipeline", "prometheus", "pushgateway",
}  # fmt: skip


def test_before_the_first_up_compose_names_the_remedy(copy: Stack, tmp_path: Path) -> None:
    """Compose alone, on a fresh clone: one line says to run `make up`."""
    fresh = tmp_path / "docker-compose.infrastructure.yml"
    fresh.write_text((copy.root / fresh.name).read_text())
    done = Stack(tmp_path).compose("up", "--detach")
    assert done.returncode != 0
    assert "run 'make up' first - it writes the passwords and the configuration" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_taken_port_is_one_line(copy: Stack) -> None:
    """Somebody listens on one of the ports: the port, its variable and the remedy, before anything is started."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = copy.run("up", LOKI_PORT=str(port))
    assert (done.returncode, done.stderr) == (
        2,
        (
            f"error: the stack's ports on 127.0.0.1 must be free (got '{port} is taken'); "
            "set LOKI_PORT in .env to another port, or stop what listens there\n"
        ),
    )


def test_all_healthy_and_told(stack: Stack) -> None:
    """Every service is healthy, and the addresses, the user and the place of the password are printed."""
    said = stack.up()
    states = {name: each["State"].get("Health", {}).get("Status") for name, each in stack.containers().items()}
    assert {name: states[name] for name in LONG_RUNNING} == dict.fromkeys(LONG_RUNNING, "healthy")
    assert stack.url("GRAFANA_PORT") in said
    assert "admin, password in .stack/secrets/grafana_admin_password" in said
    assert "Mailpit, until ML_PIPELINE_SMTP_HOST is set in .env" in said


def test_again_changes_nothing(stack: Stack) -> None:
    """The second time: the same containers, the same files, every board unchanged."""

    def state() -> tuple[object, ...]:
        ids = {name: each["Id"] for name, each in stack.containers().items() if name in LONG_RUNNING}
        files = [stack.root / ".env", stack.root / ".stack/alertmanager/alertmanager.yml"]
        files += [stack.root / ".stack/secrets" / name for name in GENERATED]
        return ids, [(file.read_bytes(), file.stat().st_mtime_ns) for file in files]

    before = state()
    said = stack.up()
    assert state() == before
    boards = [line for line in said.splitlines() if line.startswith("dashboard ")]
    assert len(boards) == 6
    assert all("unchanged" in line for line in boards)


def test_after_the_first_up_compose_works_alone(stack: Stack) -> None:
    """`docker compose up -d` without the Makefile: nothing is missing."""
    done = stack.compose("up", "--detach")
    assert done.returncode == 0, done.stderr
    one_shot = lambda: stack.containers()["dashboards"]["State"]  # noqa: E731
    assert eventually(lambda: one_shot()["Status"] == "exited" and one_shot())["ExitCode"] == 0


def test_a_changed_env_is_applied(stack: Stack) -> None:
    """Another receiver and another retention in `.env`: Alertmanager's configuration and Loki's container follow."""
    env = stack.root / ".env"
    before, loki = env.read_text(), stack.containers()["loki"]["Id"]
    try:
        env.write_text(before + "ML_PIPELINE_ALERT_EMAIL_TO=lead@example.org\nLOKI_RETENTION=720h\n")
        stack.up()
        status = requests.get(f"{stack.url('ALERTMANAGER_PORT')}/api/v2/status", timeout=10).json()
        assert "to: lead@example.org" in status["config"]["original"]
        assert stack.containers()["loki"]["Id"] != loki
        assert "LOKI_RETENTION=720h" in stack.containers()["loki"]["Config"]["Env"]
    finally:
        env.write_text(before)
    stack.up()
    status = requests.get(f"{stack.url('ALERTMANAGER_PORT')}/api/v2/status", timeout=10).json()
    assert "to: ops@localhost" in status["config"]["original"]


def test_an_edited_source_is_built_from_what_is_there(stack: Stack) -> None:
    """After an edit of the package, neither its requirements nor the build backend is fetched again."""
    source = stack.root / "ml_pipeline/__init__.py"
    before = source.read_text()
    try:
        source.write_text(before + "\n# edited\n")
        build = stack.compose("--progress", "plain", "build", "pipeline")
    finally:
        source.write_text(before)
    assert build.returncode == 0, build.stderr
    said = build.stdout + build.stderr
    steps = dict(re.findall(r"^(#\d+) \[.*\] RUN (.*)$", said, re.MULTILINE))
    built_anew = [step for number, step in steps.items() if f"{number} CACHED" not in said]
    assert any("--no-index" in step for step in built_anew), steps
    assert not [step for step in built_anew if "--require-hashes" in step]


def test_a_broken_rule_file_is_named(stack: Stack) -> None:
    """A mistake in a rule: `make up` says so, and Prometheus keeps the rules it has."""
    broken = stack.root / "prometheus/rules/zz_broken.yml"
    broken.write_text("groups: [{name: mine, rules: [{alert: Mine, expr: 'sum('}]}]\n")
    try:
        done = stack.run("up")
    finally:
        broken.unlink()
    assert done.returncode == 2
    assert "error: Prometheus must accept prometheus/" in done.stderr
    assert "correct it; the old one is in use" in done.stderr
    rules = requests.get(f"{stack.url('PROMETHEUS_PORT')}/api/v1/rules", timeout=10).json()
    assert "Watchdog" in str(rules)
    stack.up()


def test_the_shared_store_for_several_hosts(stack: Stack) -> None:
    """With its profile, PostgreSQL is healthy, asks for the generated password, and lets it in."""
    done = stack.run("up", COMPOSE_PROFILES="postgres")
    assert done.returncode == 0, done.stderr
    select = ("psql", "-h", "127.0.0.1", "-U", "ml_pipeline", "-d", "ml_pipeline", "-Atc", "select 1")
    with_password = ("sh", "-c", f"PGPASSWORD=$(cat /run/secrets/postgres_password) {' '.join(select[:-1])} 'select 1'")
    compose = ("--profile", "postgres", "exec", "-T", "postgres")
    assert stack.compose(*compose, *select).returncode != 0
    assert stack.compose(*compose, *with_password).stdout == "1\n"
    stack.compose("--profile", "postgres", "rm", "--stop", "--force", "postgres")
