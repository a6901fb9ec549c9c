"""Talking to Docker and Compose: one place that runs them and turns what they say into one clear line."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.errors import MLPipelineError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["COMPOSE_FILE", "Compose", "StackError", "docker", "environment"]

COMPOSE_FILE = "docker-compose.infrastructure.yml"
_SHOWN_CHARACTERS = 300
_WITHOUT_UP: Final = {"STACK_LOG_GROUP": "0", "STACK_MARK": os.devnull}
"""In place of what `make up` writes and the compose file insists on."""


class StackError(MLPipelineError, RuntimeError):
    """The stack cannot be brought up, saved or changed as asked."""


def docker(*arguments: str, timeout: float | None = 60.0) -> str:
    """Run one ``docker`` command.

    Args:
        arguments: Its arguments.
        timeout: Longest wait in seconds; None for as long as it takes.

    Returns:
        What it printed on stdout, without white space around it.

    Raises:
        StackError: If there is no docker, or it failed; the message holds the last line it said.
    """
    try:
        done = subprocess.run(
            ["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False, errors="replace"
        )
    except (FileNotFoundError, PermissionError):
        raise StackError(
            "the stack needs Docker, which is not installed",
            remedy="install Docker Engine with its Compose plugin; everything but the stack works without (make demo)",
        ) from None
    except subprocess.TimeoutExpired:
        raise StackError(
            "Docker must answer", f"docker {arguments[0]}: nothing in {timeout:g} s", "restart the Docker daemon"
        ) from None
    if done.returncode:
        raise StackError("Docker must do what it is asked", _last_line(done.stderr or done.stdout), "mend that first")
    return done.stdout.strip()


@dataclass(frozen=True)
class Compose:
    """The stack's compose project.

    Attributes:
        root: The folder with the compose file; commands run there, so that its ``.env`` is read.
    """

    root: Path

    def run(self, *arguments: str, every_profile: bool = False) -> int:
        """Run a compose command that talks to the terminal itself.

        Args:
            arguments: Such as ``("ps",)``.
            every_profile: Whether services of profiles that are off take part, as they must when all is stopped.

        Returns:
            Its exit code.
        """
        return subprocess.run(
            self._command(arguments, every_profile=every_profile), cwd=self.root, check=False
        ).returncode

    def read(
        self, *arguments: str, every_profile: bool = False, given: bytes | None = None, before_up: bool = False
    ) -> str:
        """Run a compose command and return what it printed.

        Args:
            arguments: Such as ``("config", "--services")``.
            every_profile: As in `run`.
            given: What it reads from stdin.
            before_up: Whether it must work without the files of `make up`, for Compose reads the whole project even
                to list or remove containers.

        Raises:
            StackError: If it failed; the message holds the last line it said.
        """
        done = subprocess.run(
            self._command(arguments, every_profile=every_profile),
            cwd=self.root,
            capture_output=True,
            input=given,
            check=False,
            env=os.environ | _WITHOUT_UP if before_up else None,
        )
        if done.returncode:
            said = _last_line((done.stderr or done.stdout).decode("utf-8", "replace"))
            raise StackError("Compose must do what it is asked", said, "mend that first")
        return done.stdout.decode("utf-8", "replace").strip()

    def configuration(self) -> dict[str, Any]:
        """Return the project as Compose understands it, with every variable filled in."""
        return dict(json.loads(self.read("config", "--format", "json", every_profile=True)))

    def name(self) -> str:
        """Return the project's name, wherever it is set; before `make up` too."""
        return str(json.loads(self.read("config", "--format", "json", before_up=True))["name"])

    def containers(self) -> list[dict[str, Any]]:
        """Return this project's containers, stopped ones too: their ``Service``, ``State``, ``Health`` and more."""
        listed = self.read("ps", "--all", "--format", "json", before_up=True)
        if listed.startswith("["):  # Compose before 2.21: one array
            return list(json.loads(listed))
        return [json.loads(line) for line in listed.splitlines() if line]

    def _command(self, arguments: Iterable[str], *, every_profile: bool) -> list[str]:
        profiles = ["--profile", "*"] if every_profile else []
        return ["docker", "compose", "--file", COMPOSE_FILE, *profiles, *arguments]


def environment(root: Path) -> dict[str, str]:
    """Return what Compose fills variables in from: the environment, then ``.env`` beside the compose file.

    Args:
        root: The folder with the compose file.

    Returns:
        Values by name. One that is empty is left out, and in the environment hides the one of the file.

    Raises:
        StackError: If ``.env`` cannot be read.
    """
    from dotenv import dotenv_values

    try:
        merged = dotenv_values(root / ".env") | os.environ
    except (OSError, UnicodeDecodeError) as unreadable:
        reason = getattr(unreadable, "strerror", None) or "not UTF-8"
        raise StackError(".env must be a readable text file in UTF-8", reason, "correct it or remove it") from None
    return {name: value for name, value in merged.items() if value}


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:_SHOWN_CHARACTERS] if lines else "nothing was said"
