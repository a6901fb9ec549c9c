"""What is checked before anything is started, so that what is missing is one clear line and not half a stack."""

from __future__ import annotations

import re
import socket
import stat
from typing import TYPE_CHECKING, Final

from stack.docker import Compose, StackError, docker
from stack.state import check_owner

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["MOUNTED", "PORTS", "check"]

MOUNTED: Final = ("docs/runbooks", "grafana/alloy", "grafana/loki", "grafana/provisioning/datasources", "prometheus")
"""The project's folders that containers read, each as a user of its own who is nobody here."""

PORTS: Final = {
    "GRAFANA_PORT": 3000,
    "PROMETHEUS_PORT": 9090,
    "ALERTMANAGER_PORT": 9093,
    "PUSHGATEWAY_PORT": 9091,
    "MAILPIT_PORT": 8025,
    "MAILPIT_SMTP_PORT": 1025,
    "LOKI_PORT": 3100,
}
"""The published ports by the variable that moves each."""
_OF_PROFILES: Final = {"postgres": {"POSTGRES_PORT": 5432}}

_ENGINE: Final = (20, 10)  # the first whose host-gateway lets Prometheus reach a pipeline on this machine
_COMPOSE: Final = (2, 20)  # the first that knows everything the compose file uses
_MEMORY_BYTES: Final = 1.8 * 1024**3  # a machine of 2 GiB reports about 1.9: the kernel keeps the rest
_LARGEST_PORT: Final = 65_535


def check(compose: Compose, variables: Mapping[str, str]) -> None:
    """Refuse to start what cannot work.

    Args:
        compose: The project.
        variables: What Compose will fill in.

    Raises:
        StackError: If a folder is closed to the containers, Docker or Compose is missing or too old, the daemon does
            not answer, memory is short, the project is another folder's, or a port is no port or is taken by
            someone else.
    """
    _check_folders(compose.root)
    _check_compose()
    _check_engine()
    _check_memory()
    check_owner(compose)  # before the ports: those of another folder's containers would pass for ours
    _check_ports(compose, variables)


def _check_folders(root: Path) -> None:
    """Find what a clone under a strict umask left to its owner alone: a container would say so in its log only."""
    closed = [name for name in MOUNTED if (root / name).is_dir() and any(_closed(root / name))]
    if closed:
        raise StackError(
            "folders that containers mount must be readable by other users",
            str(next(_closed(root / closed[0])).relative_to(root)),
            f"chmod -R go+rX {' '.join(closed)}",
        )


def _closed(folder: Path) -> Iterator[Path]:
    for path in (folder, *sorted(folder.rglob("*"))):
        mode = path.stat().st_mode if path.exists() else 0o777  # an editor's lock is a link to nothing
        wanted = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
        if mode & wanted != wanted and not path.name.startswith("."):  # nor are an editor's copies anybody's concern
            yield path


def _check_compose() -> None:
    docker("--version")
    try:
        version = docker("compose", "version", "--short")
    except StackError:
        raise StackError(
            "the stack needs Compose v2, which this Docker does not have",
            remedy="install the docker-compose-plugin package of your Docker",
        ) from None
    if _numbers(version) < _COMPOSE:
        raise StackError("Compose must be 2.20 or newer", version, "upgrade the docker-compose-plugin package")


def _check_engine() -> None:
    try:
        version = docker("info", "--format", "{{.ServerVersion}}")
    except StackError as silent:
        denied = "permission denied" in str(silent.given)
        raise StackError(
            "the Docker daemon must answer",
            silent.given,
            "add yourself to the group docker and log in again" if denied else "start it: systemctl start docker",
        ) from None
    if not version:  # older clients end well, whether or not anybody answered
        raise StackError("the Docker daemon must answer", remedy="start it: systemctl start docker")
    if _numbers(version) < _ENGINE:
        raise StackError("the Docker engine must be 20.10 or newer", version, "upgrade Docker")


def _check_memory() -> None:
    said = docker("info", "--format", "{{.MemTotal}}")
    total = int(said) if said.isdecimal() else 0  # 0: not known
    if 0 < total < _MEMORY_BYTES:
        raise StackError(
            "Docker must have a machine of 2 GiB or more, of which it sees at least 1.8",
            f"{total / 1024**3:.1f} GiB",
            "give Docker (or this machine) more memory",
        )


def _check_ports(compose: Compose, variables: Mapping[str, str]) -> None:
    ours = {
        publisher["PublishedPort"]
        for container in compose.containers()
        for publisher in container.get("Publishers") or ()
        if container.get("State") == "running"
    }
    asked: dict[int, str] = {}
    for name, usual in _published(variables).items():
        port = _port(name, variables.get(name, str(usual)))
        if port in asked:
            raise StackError(f"{name} and {asked[port]} must differ", port, f"set another {name} in .env")
        asked[port] = name
        if port not in ours and not _is_free(port):
            raise StackError(
                "the stack's ports on 127.0.0.1 must be free",
                f"{port} is taken",
                f"set {name} in .env to another port, or stop what listens there",
            )


def _published(variables: Mapping[str, str]) -> dict[str, int]:
    on = {name.strip() for name in variables.get("COMPOSE_PROFILES", "").split(",")}
    ports = dict(PORTS)
    for profile, more in _OF_PROFILES.items():
        if on & {profile, "*"}:
            ports |= more
    return ports


def _port(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and 0 < int(value) <= _LARGEST_PORT):
        raise StackError(f"{name} must be a port from 1 to 65535", value, f"correct {name} in .env")
    return int(value)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Linux keeps a port that was just closed for a while; a server takes it all the same, and so must the probe.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:  # below 1024 only root may bind, which the Docker daemon is
            return _nobody_answers(port)
        except OSError:
            return False
    return True


def _nobody_answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) != 0


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
