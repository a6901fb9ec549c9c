"""`python -m stack COMMAND`, as the Makefile calls it: what it asks of Docker, what it says, how it ends."""

from __future__ import annotations

import io
import os
import shutil
import socket
import sqlite3
import sys
from contextlib import closing
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

import stack.__main__ as command_line
from stack.docker import Compose
from tests.stack.backups import PACK, UNPACK
from tests.stack.conftest import HEALTHY, LONG_RUNNING, SERVICES, VOLUMES, Alertmanager
from tests.stack.docker_program import Answer, DockerProgram, healthy_engine
from tests.support import free_port

AFTER_UP = ("down", "ps", "logs", "restart", "dashboards", "example", "backup", "upgrade")


def _done(program: DockerProgram) -> list[list[str]]:
    """What Compose was made to do; questions to it are left out."""
    return [each for each in program.compose_commands() if each[0] != "config" and "json" not in each]


def _error(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that is refused, and return its one line."""
    assert command_line.main(list(arguments)) == 2
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("error: ")


def test_up(program: DockerProgram, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Long-running services are waited for, Prometheus rereads its files, the boards come last; then all is told."""
    assert command_line.main(["up"]) == 0
    assert _done(program) == [
        ["up", "--detach", "--build", "--remove-orphans", "--wait", "--wait-timeout=300", *LONG_RUNNING],
        ["exec", "-T", "prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yml"],
        ["exec", "-T", "prometheus", "sh", "-c", "kill -HUP 1"],
        ["run", "--rm", "--no-TTY", "--no-deps", "dashboards"],
    ]
    said = capfd.readouterr()
    assert said.err == "starting the stack; the first time, images are fetched and built ...\n"
    ports = dict(line.split("=") for line in (root / ".env").read_text().splitlines() if not line.startswith("#"))
    for title, name in (
        ("Grafana (the boards)", "GRAFANA_PORT"),
        ("Mailpit (the inbox)", "MAILPIT_PORT"),
        ("Prometheus", "PROMETHEUS_PORT"),
        ("Alertmanager", "ALERTMANAGER_PORT"),
        ("Pushgateway", "PUSHGATEWAY_PORT"),
    ):
        assert f"  {title:<22} http://127.0.0.1:{ports[name]}\n" in said.out
    assert "admin, password in .stack/secrets/grafana_admin_password\n" in said.out
    assert "Mailpit, until ML_PIPELINE_SMTP_HOST is set in .env\n" in said.out
    assert f"{len(LONG_RUNNING)}, all healthy" in said.out
    assert (root / ".stack/secrets/grafana_admin_password").read_text() not in said.out


def test_up_with_a_mail_server(program: DockerProgram, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Where a mail server is set, the receivers are told, and Alertmanager's file has it."""
    with (root / ".env").open("a") as file:
        file.write("ML_PIPELINE_SMTP_HOST=smtp.example.org\nML_PIPELINE_ALERT_EMAIL_FROM=a@example.org\n")
        file.write("ML_PIPELINE_ALERT_EMAIL_TO=b@example.org,c@example.org\n")
    assert command_line.main(["up"]) == 0
    assert f"  {'Mail goes to':<22} b@example.org, c@example.org\n" in capfd.readouterr().out
    assert '"smtp.example.org:587"' in (root / ".stack/alertmanager/alertmanager.yml").read_text()


def test_up_with_a_service_that_stays_ill(program: DockerProgram, capfd: pytest.CaptureFixture[str]) -> None:
    """The service is named, not one that waited for it, with its state and the last line of its log."""
    ill = {"Service": "grafana", "State": "running", "Health": "unhealthy"}
    program.answers = healthy_engine(
        SERVICES,
        VOLUMES,
        [*HEALTHY[:1], {"Service": "dashboards", "State": "exited"}, {"Service": "alloy", "State": "exited"}, ill],
    )
    program.tell(Answer(("compose", "up"), code=1), Answer(("logs", "grafana"), out="database is locked\n"))
    _free_alertmanager_port()
    assert _error(capfd, "up") == (
        "every service must become healthy (got 'grafana: unhealthy'); it says: database is locked"
    )
    program.tell(Answer(("logs", "grafana")))
    assert _error(capfd, "up").endswith("; it says: nothing")


def test_up_with_a_service_that_exited(program: DockerProgram, capfd: pytest.CaptureFixture[str]) -> None:
    """One without a health check is told by its state."""
    program.answers = healthy_engine(SERVICES, VOLUMES, [{"Service": "pipeline", "State": "exited", "Health": ""}])
    program.tell(Answer(("compose", "up"), code=1), Answer(("logs",), out="Killed"))
    _free_alertmanager_port()
    assert _error(capfd, "up") == "every service must become healthy (got 'pipeline: exited'); it says: Killed"


def test_up_with_no_service_to_blame(program: DockerProgram, capfd: pytest.CaptureFixture[str]) -> None:
    """A build or a pull that failed: Compose has said why."""
    program.tell(Answer(("compose", "up"), code=17))
    assert _error(capfd, "up") == "every service must start; the lines above say why"


def test_up_with_rules_that_are_wrong(program: DockerProgram, capfd: pytest.CaptureFixture[str]) -> None:
    """Prometheus keeps the files it has, and what it says is passed on."""
    program.tell(Answer(("promtool",), err="FAILED: rules/x.yml: bad\n", code=1))
    assert _error(capfd, "up") == (
        "Prometheus must accept prometheus/ (got 'FAILED: rules/x.yml: bad'); correct it; the old one is in use"
    )
    assert _done(program)[-1][3:5] == ["promtool", "check"]


def test_up_with_an_alertmanager_that_refuses(
    program: DockerProgram, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What Alertmanager says of its configuration is passed on."""
    monkeypatch.setattr(Alertmanager, "answer", (500, "failed to reload config: no route\n"))
    assert _error(capfd, "up") == (
        "Alertmanager must accept its configuration (got 'failed to reload config: no route'); "
        "correct ML_PIPELINE_SMTP_* in .env"
    )


def test_up_with_an_alertmanager_that_is_silent(
    program: DockerProgram, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """So is that it does not answer at all; a proxy in the environment is not asked for this machine's own address."""
    _free_alertmanager_port()
    assert "Alertmanager must accept its configuration (got 'ConnectionError')" in _error(capfd, "up")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert "ConnectionError" in _error(capfd, "up")


def _free_alertmanager_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe, Path(".env").open("a") as file:
        file.write(f"\nALERTMANAGER_PORT={probe.getsockname()[1]}\n")


def test_up_with_boards_that_fail(program: DockerProgram, capfd: pytest.CaptureFixture[str]) -> None:
    """The exit code of the boards' step is the command's, and no success is told."""
    program.tell(Answer(("run", "dashboards"), code=2))
    assert command_line.main(["up"]) == 2
    assert capfd.readouterr().out == ""


def test_up_with_logs_that_nobody_ships(program: DockerProgram, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Log files that the log shipper cannot read are a warning with the remedy, and no failure."""
    folder = root / "ml_pipeline" / "logs"
    folder.mkdir(parents=True)
    folder.chmod(0o700)
    assert command_line.main(["up"]) == 0
    (warning,) = [line for line in capfd.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert warning.endswith(f"chmod -R g+rX {folder}")


def test_up_twice(program: DockerProgram, root: Path) -> None:
    """The second time nothing that was generated is another."""
    assert command_line.main(["up"]) == 0
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    assert command_line.main(["up"]) == 0
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_without_docker(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, started: Path,
                        capfd: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    """Each command says it in one line, and leaves no file behind."""
    monkeypatch.setenv("PATH", str(tmp_path))
    before = sorted(tmp_path.rglob("*"))
    for command in (*AFTER_UP, "up", "purge"):
        assert _error(capfd, command).startswith("the stack needs Docker, which is not installed; install Docker")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("command", AFTER_UP)
def test_before_the_first_up(program: DockerProgram, capfd: pytest.CaptureFixture[str], command: str) -> None:
    """Commands that need a stack say that there is none, and ask Docker for nothing."""
    assert _error(capfd, command) == "there must be a stack (got 'work'); run make up first"
    assert program.asked() == []


def test_purge_before_the_first_up(program: DockerProgram) -> None:
    """Nothing is there to be removed, which is no error."""
    assert command_line.main(["purge"]) == 0
    assert program.asked() == []


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["down"], [["down", "--remove-orphans"]]),
        (["ps"], [["ps", "--all"]]),
        (["logs"], [["logs", "--follow", "--tail=100"]]),
        (["logs", "loki", "grafana"], [["logs", "--follow", "--tail=100", "loki", "grafana"]]),
        (["restart"], [["restart", *LONG_RUNNING], ["up", "--detach", "--wait", "--no-recreate", *LONG_RUNNING]]),
        (["restart", "loki"], [["restart", "loki"], ["up", "--detach", "--wait", "--no-recreate", "loki"]]),
        (["purge"], [["down", "--volumes", "--remove-orphans"]]),
    ],
    ids=lambda each: " ".join(each) if isinstance(each[0], str) else "",
)
def test_what_compose_is_asked(
    program: DockerProgram, started: Path, arguments: list[str], asked: list[list[str]]
) -> None:
    """Each command is one or two of Compose's, and ends with its exit code."""
    assert command_line.main(arguments) == 0
    assert _done(program) == asked
    if arguments != ["purge"]:
        program.tell(Answer(("compose", asked[0][0]), code=3))
        assert command_line.main(arguments) == 3


def test_ctrl_c_ends_the_logs(program: DockerProgram, started: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Following ends with Ctrl-C, which is no failure."""

    def stopped(*_: object, **__: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(Compose, "run", stopped)
    assert command_line.main(["logs"]) == 0


def test_every_profile_is_stopped(program: DockerProgram, started: Path) -> None:
    """Stopping and removing reach services of profiles that are off now."""
    for command in ("down", "purge"):
        assert command_line.main([command]) == 0
        (asked,) = [each for each in program.asked() if "--remove-orphans" in each]
        assert "--profile" in asked
        (program.folder / "asked.jsonl").unlink()


def test_purge(program: DockerProgram, root: Path) -> None:
    """Nothing of `make up` is left, in `.env` neither, so that Compose alone says again to run it."""
    before = (root / ".env").read_bytes()
    assert command_line.main(["up"]) == 0
    assert command_line.main(["purge"]) == 0
    assert not (root / ".stack").exists()
    assert (root / ".env").read_bytes() == before


@pytest.mark.parametrize("left", [".stack", ".env", "both"])
def test_purge_of_what_is_half_there(program: DockerProgram, started: Path, left: str) -> None:
    """Where somebody removed one of the two by hand, the containers and volumes go all the same."""
    if left == ".stack":
        (started / ".env").unlink()
    elif left == ".env":
        shutil.rmtree(started / ".stack")
    assert command_line.main(["purge"]) == 0
    assert _done(program) == [["down", "--volumes", "--remove-orphans"]]
    assert command_line.main(["purge"]) == 0
    assert len(_done(program)) == 1, "now there is nothing left"


def test_purge_that_fails(program: DockerProgram, started: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Passwords of volumes that are still there are kept."""
    program.tell(Answer(("compose", "down"), err="volume is in use", code=1))
    assert "volume is in use" in _error(capfd, "purge")
    assert (started / ".stack/secrets/postgres_password").exists()


def test_backup_restore_upgrade(
    program: DockerProgram, started: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A backup is saved, brought back when asked for, and made before each upgrade."""
    program.tell(Answer(("run", PACK), out="x"), Answer(("run", UNPACK)))
    assert command_line.main(["backup"]) == 0
    (archive,) = Path("backups").iterdir()
    assert f"saved to {archive}; it holds passwords: keep it where you keep those\n" in capfd.readouterr().out

    (started / ".stack/secrets/postgres_password").chmod(0o600)
    (started / ".stack/secrets/postgres_password").write_text("another")
    for answer in ("n\n", ""):
        _stdin(monkeypatch, answer)
        assert command_line.main(["restore", str(archive)]) == 1
        said = capfd.readouterr()
        assert "replace what this stack holds by the backup of 20" in said.out
        assert said.err == "nothing was changed\n"
        assert (started / ".stack/secrets/postgres_password").read_text() == "another"
    _stdin(monkeypatch, "y\n")
    assert command_line.main(["restore", str(archive)]) == 0
    assert (started / ".stack/secrets/postgres_password").read_text() == "postgres_password"
    assert "all healthy" in capfd.readouterr().out
    assert command_line.main(["restore", str(archive), "--yes"]) == 0
    assert "[y/N]" not in capfd.readouterr().out

    assert command_line.main(["upgrade", "elsewhere"]) == 0
    (made,) = Path("elsewhere").iterdir()
    assert f"saved to {made}: make restore FILE=… brings it back\n" in capfd.readouterr().out
    assert not [each for each in _done(program) if each[0] in ("pull", "create")]


def _stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def test_restore_into_an_empty_folder(program: DockerProgram, root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A backup can be brought back before the first `make up`; one that is missing is said before anything else."""
    assert _error(capfd, "restore", "nothing.tar") == (
        "a backup must exist to be restored (got 'nothing.tar'); name one: make restore FILE=…"
    )
    assert not (root / ".stack").exists()
    assert program.asked() == []


def test_example_needs_a_running_stack(
    program: DockerProgram, started: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nobody would observe it."""
    program.answers = healthy_engine(SERVICES, VOLUMES, [{"Service": "pushgateway", "State": "exited"}])
    program.tell()
    assert _error(capfd, "example") == (
        "the stack must be running to observe the example; run make up first, or make demo"
    )


def test_example_is_run_for_the_stack(
    program: DockerProgram, started: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It tells the stack's Pushgateway and Alertmanager, sends no mail, and its options and exit code are the example's."""
    monkeypatch.setenv("ML_PIPELINE_PUSHGATEWAY_URL", "http://127.0.0.1:1")  # put back afterwards
    monkeypatch.setenv("ML_PIPELINE_SMTP_HOST", "127.0.0.1")
    monkeypatch.setenv("ML_PIPELINE_ALERT_EMAIL_FROM", "a@example.org")
    monkeypatch.setenv("ML_PIPELINE_ALERT_EMAIL_TO", "b@example.org")
    monkeypatch.setenv("ML_PIPELINE_STRICT", "0")
    taken: list[str] = []

    def gateway(handler: BaseHTTPRequestHandler) -> None:
        handler.rfile.read(int(handler.headers["Content-Length"]))
        taken.append(handler.path)
        handler.send_response(200)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    monkeypatch.setattr(Alertmanager, "do_PUT", gateway, raising=False)
    port = next(line for line in (started / ".env").read_text().splitlines() if line.startswith("ALERTMANAGER_PORT="))
    with (started / ".env").open("a") as file:
        file.write(port.replace("ALERTMANAGER", "PUSHGATEWAY") + "\n")
    assert command_line.main(["example", "--trees", "5", "--batches", "1", "--fail-at", "train"]) == 1
    assert "model_training" in capfd.readouterr().out
    assert taken
    assert all(path.startswith("/metrics/job/") for path in taken)
    with closing(sqlite3.connect("ml_pipeline/data_storage/alerts/outbox.db")) as store:
        assert list(store.execute("SELECT channel, state FROM deliveries")) == [("alertmanager", "sent")]


@pytest.mark.parametrize("command", ["up", "example", "restore"])
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"ML_PIPELINE_SMTP_HOTS=x\n", "an ML_PIPELINE_* variable in the environment or .env must be a known setting"),
        (b"ML_PIPELINE_SMTP_PORT=x\n", "ML_PIPELINE_SMTP_PORT: "),
        (b"=x y\n", "every line of .env must be NAME=value or a comment"),
        (b"A=\xff\n", "every line of .env must be text in UTF-8 (got 'A'); correct line "),
    ],
)
def test_env_that_is_wrong(
    program: DockerProgram, started: Path, capfd: pytest.CaptureFixture[str], *, command: str, line: bytes, said: str
) -> None:
    """A broken `.env` is one line, and nothing is started."""
    with (started / ".env").open("ab") as file:
        file.write(line)
    arguments = [command, "x.tar"] if command == "restore" else [command]
    assert command_line.main(arguments) == 2
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {said}")
    assert _done(program) == []


def test_dashboards_go_to_this_stack(
    started: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whatever Grafana the environment names, the boards go to the stack's, with its password and links to its runbooks."""
    port = free_port()
    monkeypatch.setenv("GRAFANA_URL", "https://grafana.example.org")
    monkeypatch.setenv("GRAFANA_TOKEN", "of-another-one")
    monkeypatch.setenv("RUNBOOKS_URL", "")
    with (started / ".env").open("a") as file:
        file.write(f"\nGRAFANA_PORT={port}\nPROMETHEUS_PORT=19090\n")
    assert command_line.main(["dashboards", "--dry-run", "--wait", "0.1"]) == 2
    assert f"http://127.0.0.1:{port}" in capfd.readouterr().err
    assert os.environ["RUNBOOKS_URL"] == "http://127.0.0.1:19090/consoles"
