"""How every command ends: its exit code, and one line where something stopped it."""

from __future__ import annotations

import os
import signal

import pytest

from ml_pipeline._command import run_script
from tests.processes import run_python

CTRL_C = "error: stopped by Ctrl-C; what was done before it is kept\n"


def _interrupted() -> int:
    raise KeyboardInterrupt


def _signalled() -> int:
    os.kill(os.getpid(), signal.SIGINT)
    return 0


def _whose_program_was_interrupted() -> int:
    return 130


def _that_runs_another() -> int:
    return run_script(_interrupted, [])


@pytest.mark.parametrize("command", [_interrupted, _signalled, _whose_program_was_interrupted, _that_runs_another])
def test_ctrl_c_is_one_line(command: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C, also in a program that the command runs, ends with code 130 and one line, whatever Typer makes of it."""
    assert run_script(command, []) == 130  # type: ignore[arg-type]
    assert capsys.readouterr().err == CTRL_C


@pytest.mark.parametrize("code", [0, 1, 2, 3])
def test_other_codes_are_the_commands_own(code: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is added to what a command returns by itself."""

    def command() -> int:
        return code

    assert run_script(command, []) == code
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("arguments", [["--help"], ["logs", "--help"], ["alerts", "--help"], ["run", "--help"]])
def test_the_help_does_not_hang_on_docstrings(arguments: list[str]) -> None:
    """An image that runs Python with `-OO` explains itself as well."""
    code = "import sys; from ml_pipeline.cli import main; sys.exit(main(sys.argv[1:]))"
    plain, optimised = (run_python(code, *arguments, PYTHONOPTIMIZE=level) for level in ("", "2"))
    assert optimised.stdout == plain.stdout != ""
