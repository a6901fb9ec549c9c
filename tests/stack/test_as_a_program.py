"""The stack's commands as users run them: processes of their own, in a folder that holds what they need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import stack.__main__ as command_line
from tests.support import ROOT

COMMANDS = (
    "backup", "dashboards", "down", "example", "logs", "ps", "purge", "restart", "restore", "up", "upgrade",
)  # fmt: skip
UNKNOWN = (
    "an ML_PIPELINE_* variable in the environment or .env must be a known setting "
    "(got 'ML_PIPELINE_NAMME'); did you mean 'ML_PIPELINE_NAME'?"
)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the commands need."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("stack", "prometheus"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "rules"))
    for name in ("docker-compose.infrastructure.yml", "Makefile"):
        shutil.copy(ROOT / name, folder)
    return folder


def _run(copy: Path, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command as users do, in the copy; the coverage of a copy would count for nothing."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "COV_"))}
    return subprocess.run(
        command, cwd=copy, env=inherited | environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_help(copy: Path) -> None:
    """The list of commands, and each one's own page, are there without a stack and without Docker."""
    done = _run(copy, [sys.executable, "-m", "stack", "--help"], PATH=str(copy))
    assert done.returncode == 0, done.stderr
    assert all(f" {name} " in done.stdout for name in COMMANDS)
    assert "Run the stack of docker-compose.infrastructure.yml." in done.stdout
    assert list(COMMANDS) == sorted(
        each.name or getattr(each.callback, "__name__", "") for each in command_line.app.registered_commands
    )


def test_as_a_program(copy: Path) -> None:
    """Each command that needs a stack, and a wrong one, ends with code 2 and one line, whatever folder it is run in."""
    for arguments, said in (
        (["ps"], f"error: there must be a stack (got '{copy.name}'); run make up first"),
        (["nonsense"], "error: No such command 'nonsense'. See --help."),
    ):
        done = _run(copy, [sys.executable, "-m", "stack", *arguments])
        assert (done.returncode, done.stderr.splitlines()) == (2, [said])
    (copy / ".env").write_text("ML_PIPELINE_NAMME=x\n")
    done = _run(copy, [sys.executable, "-m", "stack", "up"])
    (copy / ".env").unlink()
    assert (done.returncode, done.stderr.splitlines()) == (
        2,
        [f"error: {UNKNOWN}"],
    )
    assert not (copy / ".stack").exists()


def test_make_restore_without_a_file(copy: Path) -> None:
    """`make restore` alone says what it needs."""
    (copy / ".venv").mkdir(exist_ok=True)
    for name in ("requirements.lock", "pyproject.toml"):
        (copy / name).touch()
    (copy / ".venv" / "bin").mkdir(exist_ok=True)
    (copy / ".venv" / "bin" / "python").touch()
    (copy / ".venv" / ".installed").touch()
    done = _run(copy, ["make", "--no-print-directory", "restore"])
    assert done.returncode == 2
    assert done.stdout == "make restore needs a backup: make restore FILE=backups/stack-....tar\n"


@pytest.mark.parametrize(
    ("folder", "line", "asked"),
    [
        (True, "STACK_LOG_GROUP=0", True),
        (True, "", True),
        (False, "A=1\nSTACK_LOG_GROUP=0", True),
        (False, "# STACK_LOG_GROUP", False),
    ],
)
def test_make_purge(tmp_path: Path, *, folder: bool, line: str, asked: bool) -> None:
    """The stack is removed where anything of it is left, and is no concern where nothing is."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    program = tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$@" >asked\n')
    program.chmod(0o755)
    (tmp_path / ".env").write_text(f"{line}\n")
    if folder:
        (tmp_path / ".stack").mkdir()
    done = _run(tmp_path, ["make", "--no-print-directory", "purge", "YES=1"])
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "asked").exists() == asked
    if asked:
        assert (tmp_path / "asked").read_text() == "-m stack purge\n"
    assert not (tmp_path / ".venv").exists()
