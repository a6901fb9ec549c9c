"""The stack's volumes, which belong to the containers' users: a container reads and writes them for us.

It has no network, and is made of the pipeline's own image, the only one that is always there; that has GNU tar.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from stack.docker import Compose, StackError, docker

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Volumes"]

_DIFFERS: Final = 1  # tar's code for a file that was written to or removed while it was read
_EMPTY: Final = "find /volume -mindepth 1 -delete"
_SHOWN_CHARACTERS: Final = 300


class Volumes:
    """The volumes of a project, by what the compose file calls them.

    Args:
        compose: The project; volumes of profiles that are off count too.
    """

    def __init__(self, compose: Compose) -> None:
        project = compose.configuration()
        self._project: str = project["name"]
        self._image: str = project["services"]["pipeline"]["image"]
        self._declared: dict[str, dict[str, Any]] = project["volumes"]

    def declared(self) -> list[str]:
        """Return every volume of the compose file."""
        return sorted(self._declared)

    def existing(self) -> list[str]:
        """Return those that are there."""
        there = set(docker("volume", "ls", "--format", "{{.Name}}").splitlines())
        return [key for key in self.declared() if self._name(key) in there]

    def create(self, key: str) -> None:
        """Create a volume as Compose would; its owner comes with its content, so no service's image is needed.

        Args:
            key: Which one.
        """
        volume = self._declared[key]
        labels = {"com.docker.compose.project": self._project, "com.docker.compose.volume": key}
        told = [f"--label={name}={value}" for name, value in {**volume.get("labels", {}), **labels}.items()]
        driver = [f"--driver={volume['driver']}"] if "driver" in volume else []
        options = [f"--opt={name}={value}" for name, value in volume.get("driver_opts", {}).items()]
        docker("volume", "create", *told, *driver, *options, volume["name"])

    def room(self) -> int | None:
        """Return how many bytes are free where volumes are, wherever the engine has them; None if it does not tell."""
        return self._kibibytes("", "df -Pk /volume", column=-3)

    def size(self, key: str) -> int:
        """Return how many bytes of the disk a volume takes; 0 if that is not told.

        Args:
            key: Which one.
        """
        return self._kibibytes(self._name(key), "du -sk /volume", column=0) or 0

    def pack(self, key: str, target: Path) -> bool:
        """Save a volume as a tar archive.

        Args:
            key: Which one.
            target: The file.

        Returns:
            Whether nobody wrote to it meanwhile.
        """
        with target.open("wb") as out:
            done = self._run(self._name(key), "tar --warning=no-file-changed -C /volume -cf - .", out=out)
        if done.returncode == _DIFFERS and target.stat().st_size:  # an archive is never empty
            return False
        _refuse_failure(done, self._name(key), "mend that and run it again")
        return True

    def replace(self, key: str, content: Iterable[bytes] | None = None) -> None:
        """Replace what a volume holds.

        Args:
            key: Which one.
            content: A tar archive, passed on as it comes; None leaves the volume empty.
        """
        command = _EMPTY if content is None else f"{_EMPTY} && tar -C /volume -xpf -"
        done = self._run(self._name(key), command, writes=True, content=content)
        remedy = "free some space or mend that, and restore again: until then the stack is down and half restored"
        _refuse_failure(done, self._name(key), remedy)

    def _name(self, key: str) -> str:
        return str(self._declared[key]["name"])

    def _kibibytes(self, volume: str, command: str, column: int) -> int | None:
        """Return bytes from the last line of ``df -Pk`` or ``du -sk``."""
        done = self._run(volume, command)
        _refuse_failure(done, volume or "a new one", "mend that and run it again; nothing was changed")
        try:
            return int(done.stdout.splitlines()[-1].split()[column]) * 1024
        except (IndexError, ValueError):
            return None

    def _run(
        self,
        volume: str,
        command: str,
        *,
        writes: bool = False,
        content: Iterable[bytes] | None = None,
        out: Any = subprocess.PIPE,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run a command that sees one volume and nothing else, with only the rights that other users' files ask for.

        Args:
            volume: Its name; empty for a new one that vanishes with the container.
            command: What its shell runs; the volume is /volume.
            writes: Whether it changes the volume.
            content: What it reads from stdin.
            out: Where its stdout goes; by default that is returned.
        """
        rights = ("CHOWN", "FOWNER", "DAC_OVERRIDE") if writes else ("DAC_READ_SEARCH",)
        mount = f"{volume}:/volume{'' if writes else ':ro'}" if volume else "/volume"
        process = subprocess.Popen(
            ["docker", "run", "--rm", "--interactive", "--network=none", "--user=0:0", "--read-only", "--cap-drop=ALL"]
            + [f"--cap-add={right}" for right in rights]
            + [f"--volume={mount}", "--entrypoint=sh", self._image, "-c", command],
            stdin=subprocess.DEVNULL if content is None else subprocess.PIPE,
            stdout=out,
            stderr=subprocess.PIPE,
        )
        given, process.stdin = process.stdin, None
        # Fed from beside, for a program that says much while nobody reads it would stop for ever.
        with process, ThreadPoolExecutor(1) as feeder:
            try:
                fed = feeder.submit(_feed, given, content or ())
                told, said = process.communicate()
                fed.result()
            finally:
                process.kill()  # nothing, where it has ended
        return subprocess.CompletedProcess(process.args, process.returncode, told, said)


def _feed(given: Any, content: Iterable[bytes]) -> None:
    if given is None:
        return
    with suppress(BrokenPipeError), given:  # it ended before all was read: its own words say why
        for chunk in content:
            given.write(chunk)


def _refuse_failure(done: subprocess.CompletedProcess[bytes], volume: str, remedy: str) -> None:
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:_SHOWN_CHARACTERS]
        raise StackError("a volume must be readable and writable", f"{volume}: {said}", remedy)
