"""How every command ends: its exit code, and one line where something stopped it."""

from __future__ import annotations

import os
import signal

import pytest

from ml_pipeline._command import run_script

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
