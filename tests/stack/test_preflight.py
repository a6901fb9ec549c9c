"""What is checked before anything is started: each thing that is missing is one line with its remedy."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from stack import docker as docker_module
from stack import preflight
from stack.docker import Compose, StackError, docker, environment
from tests.stack.docker_program import Answer, DockerProgram, healthy_engine
from tests.support import ROOT, free_port, free_ports

NOT_INSTALLED = (
    "the stack needs Docker, which is not installed; "
    "install Docker Engine with its Compose plugin; everything but the stack works without (make demo)"
)


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DockerProgram:
    """A Docker that has all that the stack needs."""
    made = DockerProgram(tmp_path / "bin", healthy_engine(["grafana"], {}, []))
    made.install(monkeypatch)
    return made


@pytest.fixture
def ports() -> dict[str, str]:
    """A free port for each variable, none of which a `listener` could be given."""
    return {name: str(port) for name, port in free_ports(preflight.PORTS).items()}


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of the loopback address that somebody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def _refused(variables: dict[str, str], root: Path = Path()) -> str:
    with pytest.raises(StackError) as refused:
        preflight.check(Compose(root), variables)
    return str(refused.value)


def test_all_is_well(program: DockerProgram, ports: dict[str, str]) -> None:
    """A Docker of today with free ports is accepted before there is an `.env`, and nothing was started."""
    assert not Path(".env").exists()
    preflight.check(Compose(Path()), ports)
    assert all(set(call) & {"--version", "version", "info", "ps", "config", "ls"} for call in program.asked())


def test_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ports: dict[str, str]) -> None:
    """Without the program: what to install, and what works without it."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _refused(ports) == NOT_INSTALLED


def test_docker_that_may_not_be_run(program: DockerProgram, ports: dict[str, str]) -> None:
    """A file of that name that is no program is as good as none."""
    (program.folder / "docker").write_bytes(b"")
    (program.folder / "docker").chmod(0o644)
    assert _refused(ports) == NOT_INSTALLED


def test_no_compose_plugin(program: DockerProgram, ports: dict[str, str]) -> None:
    """A Docker without the plugin takes `compose` for an unknown command."""
    program.tell(Answer(("compose", "version"), err="docker: 'compose' is not a docker command.\n", code=1))
    assert _refused(ports) == (
        "the stack needs Compose v2, which this Docker does not have; "
        "install the docker-compose-plugin package of your Docker"
    )


@pytest.mark.parametrize("version", ["2.19.9", "v2.19.1", "1.29.2"])
def test_compose_too_old(program: DockerProgram, ports: dict[str, str], version: str) -> None:
    """A Compose that does not know what the compose file uses."""
    program.tell(Answer(("compose", "version"), out=version))
    assert _refused(ports) == (
        f"Compose must be 2.20 or newer (got {version!r}); upgrade the docker-compose-plugin package"
    )


@pytest.mark.parametrize("version", ["2.20.0", "v2.20.3", "2.40.3-desktop.1", "5.0.1"])
def test_compose_new_enough(program: DockerProgram, ports: dict[str, str], version: str) -> None:
    """However a Compose writes its version."""
    program.tell(Answer(("compose", "version"), out=version))
    preflight.check(Compose(Path()), ports)


def test_daemon_does_not_answer(program: DockerProgram, ports: dict[str, str]) -> None:
    """The daemon is not running: what Docker said, and how to start it."""
    said = "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?"
    program.tell(Answer(("info",), err=f"warning: x\n{said}\n\n", code=1))
    assert _refused(ports) == f"the Docker daemon must answer (got {said!r}); start it: systemctl start docker"


def test_daemon_does_not_answer_an_old_client(program: DockerProgram, ports: dict[str, str]) -> None:
    """A client that ends well with nothing said has not reached the daemon either."""
    program.tell(Answer(("info", "{{.ServerVersion}}"), out="\n"))
    assert _refused(ports) == "the Docker daemon must answer; start it: systemctl start docker"


def test_daemon_not_for_this_user(program: DockerProgram, ports: dict[str, str]) -> None:
    """The socket refuses who is not in its group: starting the daemon would not help."""
    said = "permission denied while trying to connect to the Docker daemon socket"
    program.tell(Answer(("info",), err=said, code=1))
    assert _refused(ports) == (
        f"the Docker daemon must answer (got {said!r}); add yourself to the group docker and log in again"
    )


@pytest.mark.parametrize("version", ["20.9.1", "19.03.15"])
def test_engine_too_old(program: DockerProgram, ports: dict[str, str], version: str) -> None:
    """An engine without host-gateway."""
    program.tell(Answer(("info", "{{.ServerVersion}}"), out=version))
    assert _refused(ports) == f"the Docker engine must be 20.10 or newer (got {version!r}); upgrade Docker"


def test_too_little_memory(program: DockerProgram, ports: dict[str, str]) -> None:
    """Less than the stack lives in."""
    program.tell(Answer(("info", "{{.MemTotal}}"), out=str(1024**3 * 17 // 10)))
    assert _refused(ports) == (
        "Docker must have a machine of 2 GiB or more, of which it sees at least 1.8 (got '1.7 GiB'); "
        "give Docker (or this machine) more memory"
    )


@pytest.mark.parametrize("said", ["", "0", "<no value>", str(1024**3 * 19 // 10), str(2 * 1024**3)])
def test_memory_unknown_or_enough(program: DockerProgram, ports: dict[str, str], said: str) -> None:
    """A machine of 2 GiB, which reports less, is enough; an engine that does not tell is believed to have it."""
    program.tell(Answer(("info", "{{.MemTotal}}"), out=said))
    preflight.check(Compose(Path()), ports)


@pytest.fixture
def mounted(isolated: Path) -> Path:
    """The folders that containers mount, each with a folder and a file in it, as a usual clone has them."""
    for name in preflight.MOUNTED:
        (isolated / name / "more").mkdir(parents=True)
        (isolated / name / "more" / "file.yml").touch()
        for path in (isolated / name, *(isolated / name).rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    return isolated


def test_folders_that_containers_mount(program: DockerProgram, ports: dict[str, str], mounted: Path) -> None:
    """What others can read is well; an editor's own files beside it, and its locks, are nobody's concern."""
    (mounted / "prometheus" / ".rules.yml.swp").touch(0o600)
    (mounted / "prometheus" / ".#rules.yml").symlink_to("nobody@nowhere")
    preflight.check(Compose(mounted), ports)


@pytest.mark.parametrize(("closed", "mode"), [("", 0o700), ("", 0o754), ("more", 0o750), ("more/file.yml", 0o640)])
def test_folders_of_a_clone_under_a_strict_umask(
    program: DockerProgram, ports: dict[str, str], mounted: Path, closed: str, mode: int
) -> None:
    """What a container's user could not read is named, with the command that mends it, before Docker is asked."""
    for name in ("grafana/loki", "prometheus"):
        (mounted / name / closed).chmod(mode)
    shown = "/".join(filter(None, ("grafana/loki", closed)))
    assert _refused(ports, mounted) == (
        f"folders that containers mount must be readable by other users (got {shown!r}); "
        "chmod -R go+rX grafana/loki prometheus"
    )
    assert program.asked() == []


def test_mounted_folders_are_those_of_the_compose_file() -> None:
    """Every folder of the project that the compose file binds is looked at."""
    services = yaml.safe_load((ROOT / "docker-compose.infrastructure.yml").read_text("utf-8"))["services"].values()
    bound = {str(volume).partition(":")[0] for service in services for volume in service.get("volumes", ())}
    assert {each.removeprefix("./") for each in bound if each.startswith("./")} == set(preflight.MOUNTED)


@pytest.mark.parametrize("name", preflight.PORTS)
def test_port_taken(program: DockerProgram, ports: dict[str, str], listener: int, name: str) -> None:
    """The variable that moves the port is named."""
    assert _refused(ports | {name: str(listener)}) == (
        f"the stack's ports on 127.0.0.1 must be free (got '{listener} is taken'); "
        f"set {name} in .env to another port, or stop what listens there"
    )


def test_port_taken_by_ourselves(program: DockerProgram, ports: dict[str, str], listener: int) -> None:
    """What this stack's own running container publishes is no obstacle; a stopped container holds no port."""
    mine = {"Service": "grafana", "State": "running", "Publishers": [{"PublishedPort": listener}]}
    other = {"Service": "loki", "State": "running", "Publishers": None}
    program.answers = healthy_engine(["grafana"], {}, [mine, other])
    program.tell()
    preflight.check(Compose(Path()), ports | {"GRAFANA_PORT": str(listener)})
    program.answers = healthy_engine(["grafana"], {}, [mine | {"State": "exited"}])
    program.tell()
    assert "is taken" in _refused(ports | {"GRAFANA_PORT": str(listener)})


def test_ports_of_another_folder(program: DockerProgram, ports: dict[str, str], listener: int, tmp_path: Path) -> None:
    """Ports that another checkout's containers hold under our name do not pass for ours."""
    program.answers = healthy_engine(
        ["grafana"], {}, [{"State": "running", "Publishers": [{"PublishedPort": listener}]}]
    )
    program.tell(Answer(("ps", "--filter"), f"{tmp_path / 'first'}\n"))
    assert "must be used from the folder that started it (got 'p: " in _refused(ports | {"LOKI_PORT": str(listener)})


def test_port_of_a_connection_that_just_ended(program: DockerProgram, ports: dict[str, str]) -> None:
    """A port that the kernel still keeps for an old connection is free, for Docker takes it too."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            served, _ = server.accept()
            served.close()  # this side closes first, and so waits
            client.recv(1)
    preflight.check(Compose(Path()), ports | {"LOKI_PORT": str(port)})


def test_port_below_1024(
    program: DockerProgram, ports: dict[str, str], listener: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this user may not bind, a port is free unless somebody answers on it: Docker itself may bind."""

    class Unprivileged(socket.socket):
        """A socket of a user who may bind nothing."""

        def bind(self, address: object) -> None:
            """Refuse."""
            raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket, "socket", Unprivileged)
    preflight.check(Compose(Path()), ports)
    assert "is taken" in _refused(ports | {"GRAFANA_PORT": str(listener)})


@pytest.mark.parametrize("value", ["0", "65536", "-1", "3000/tcp", "127.0.0.1:3000", "٣٠٠٠", " 3000", "1e3", "abc"])
def test_no_port(program: DockerProgram, ports: dict[str, str], value: str) -> None:
    """A value that is no port is refused before Compose stumbles over it."""
    assert _refused(ports | {"LOKI_PORT": value}) == (
        f"LOKI_PORT must be a port from 1 to 65535 (got {value!r}); correct LOKI_PORT in .env"
    )


def test_the_same_port_twice(program: DockerProgram, ports: dict[str, str]) -> None:
    """Two services cannot share one; a variable that is not set counts with its usual port."""
    both = ports | {"LOKI_PORT": ports["GRAFANA_PORT"]}
    assert _refused(both) == (
        f"LOKI_PORT and GRAFANA_PORT must differ (got {ports['GRAFANA_PORT']}); set another LOKI_PORT in .env"
    )
    usual = {name: value for name, value in ports.items() if name != "LOKI_PORT"} | {"GRAFANA_PORT": "3100"}
    assert preflight.PORTS["LOKI_PORT"] == 3100
    assert "LOKI_PORT and GRAFANA_PORT must differ (got 3100)" in _refused(usual)


@pytest.mark.parametrize(("profiles", "counts"), [("", False), ("other", False), ("a, postgres", True), ("*", True)])
def test_port_of_a_profile(
    program: DockerProgram, ports: dict[str, str], listener: int, profiles: str, counts: bool
) -> None:
    """PostgreSQL's port matters where its profile is on, and only there."""
    variables = ports | {"POSTGRES_PORT": str(listener), "COMPOSE_PROFILES": profiles}
    if counts:
        assert "set POSTGRES_PORT in .env to another port" in _refused(variables)
    else:
        preflight.check(Compose(Path()), variables)


def test_ports_are_those_of_the_compose_file() -> None:
    """Every published port of the compose file is checked, under the number that it has there."""
    text = (ROOT / "docker-compose.infrastructure.yml").read_text("utf-8")
    published = {name: int(usual) for name, usual in re.findall(r'"127\.0\.0\.1:\$\{(\w+):-(\d+)\}:', text)}
    assert published == preflight.PORTS | {"POSTGRES_PORT": 5432}


def test_docker_hangs(program: DockerProgram) -> None:
    """A daemon that takes the question and never answers is not waited for."""
    program.tell(Answer(("info",), seconds=30))
    with pytest.raises(StackError) as hung:
        docker("info", timeout=0.5)
    assert str(hung.value) == "Docker must answer (got 'docker info: nothing in 0.5 s'); restart the Docker daemon"


def _ready(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what the compose file insists on."""
    monkeypatch.setenv("STACK_LOG_GROUP", "0")
    monkeypatch.setenv("STACK_MARK", os.devnull)


def test_docker_fails(program: DockerProgram, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Docker said last is passed on, wherever it said it, and shortened."""
    _ready(monkeypatch)
    for answer, shown in (
        (Answer(("x",), err="first\nlast\n \n", code=3), "last"),
        (Answer(("x",), out="on stdout", code=3), "on stdout"),
        (Answer(("x",), code=3), "nothing was said"),
        (Answer(("x",), err="long" * 200, code=3), ("long" * 200)[:300]),
    ):
        program.tell(answer)
        for ask in (docker, Compose(Path()).read):
            with pytest.raises(StackError) as failed:
                ask("x")
            assert failed.value.given == shown
            assert failed.value.remedy == "mend that first"
    program.tell(Answer(("x",), err="broken", code=3))
    with pytest.raises(StackError) as failed:
        docker("x")
    assert str(failed.value) == "Docker must do what it is asked (got 'broken'); mend that first"
    with pytest.raises(StackError) as failed:
        Compose(Path()).read("x")
    assert str(failed.value) == "Compose must do what it is asked (got 'broken'); mend that first"


def test_compose_reads_stdin_and_every_profile(
    program: DockerProgram, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands name the compose file, take input, and cover services whose profile is off where that is asked for."""
    _ready(monkeypatch)
    program.tell(Answer(("x",), out=" said \n", reads=str(tmp_path / "given")))
    assert Compose(tmp_path).read("x", given=b"bytes", every_profile=True) == "said"
    assert (tmp_path / "given").read_bytes() == b"bytes"
    assert program.asked()[-1] == ["compose", "--file", docker_module.COMPOSE_FILE, "--profile", "*", "x"]


def test_containers_before_and_since_compose_2_21(program: DockerProgram) -> None:
    """Compose printed one array, and prints a line each now; without containers one prints `[]`, the other nothing."""
    lines = ['{"Service": "a", "State": "running"}', '{"Service": "b", "State": "exited"}']
    for out, services in (
        ("\n".join(lines) + "\n", ["a", "b"]), (f"[{','.join(lines)}]\n", ["a", "b"]), ("[]\n", []), ("", []),
    ):  # fmt: skip
        program.tell(Answer(("ps", "json"), out))
        assert [each["Service"] for each in Compose(Path()).containers()] == services


def test_environment(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables are Compose's: the environment hides `.env`, even with an empty value, which means the default."""
    port = str(free_port())
    (isolated / ".env").write_text(f"LOKI_PORT={port}\nGRAFANA_PORT=3001\nMAILPIT_PORT=1\nEMPTY=\nNOTHING\n")
    monkeypatch.setenv("GRAFANA_PORT", "3002")
    monkeypatch.setenv("MAILPIT_PORT", "")
    found = environment(isolated)
    assert (found["LOKI_PORT"], found["GRAFANA_PORT"]) == (port, "3002")
    assert not {"MAILPIT_PORT", "EMPTY", "NOTHING"} & set(found)
    assert "LOKI_PORT" not in environment(isolated / "elsewhere")


def test_environment_unreadable(isolated: Path) -> None:
    """A `.env` in another encoding is said, not stumbled over."""
    (isolated / ".env").write_bytes(b"NAME=caf\xe9\n")
    with pytest.raises(StackError) as refused:
        environment(isolated)
    assert str(refused.value) == (
        ".env must be a readable text file in UTF-8 (got 'not UTF-8'); correct it or remove it"
    )
