"""What every command of this package does the same way: exit codes, one-line errors, Ctrl-C and SIGTERM.

Exit codes: 0 fine, 1 a step failed, 2 bad input or configuration, 130 Ctrl-C, 143 SIGTERM.
"""

from __future__ import annotations

import ast
import inspect
import os
import signal
import sys
from contextlib import contextmanager, suppress
from textwrap import dedent
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline._runtime import shutdown
from ml_pipeline.errors import MLPipelineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import typer

__all__ = [
    "BAD_INPUT",
    "FAILED",
    "TERMINATED",
    "Told",
    "forget_output",
    "run_command",
    "run_script",
    "say",
    "single_command",
]

FAILED: Final = 1
BAD_INPUT: Final = 2
_INTERRUPTED: Final = 130
TERMINATED: Final = 143


class Told(int):
    """An exit code that needs no line: one is written, or Ctrl-C is how it is meant to end."""


def run_command(app: typer.Typer, arguments: Sequence[str] | None = None, name: str | None = None) -> int:
    """Run a command line to its end.

    Args:
        app: The commands.
        arguments: What was given; by default the process's own.
        name: What the program calls itself; by default the name of the script.

    Returns:
        The exit code. Bad input, whoever noticed it, is one line on stderr and code 2, never a traceback.
    """
    from typer.exceptions import TyperException

    _describe(app)
    try:
        with _terminable():
            given = None if arguments is None else list(arguments)
            result: Any = app(args=given, prog_name=name, standalone_mode=False)
    except TyperException as wrong:
        return say(f"{wrong.format_message().splitlines()[0]} See --help.", wrong.exit_code)
    except MLPipelineError as wrong:
        return say(str(wrong), BAD_INPUT)
    except KeyboardInterrupt:
        result = _INTERRUPTED
    except SystemExit as stopped:
        if stopped.code != TERMINATED:
            raise
        return say("stopped by SIGTERM; what was done before it is kept", TERMINATED)
    finally:
        shutdown()
    if result == _INTERRUPTED and not isinstance(result, Told):  # Typer makes this of a Ctrl-C, without a word
        return say("stopped by Ctrl-C; what was done before it is kept", _INTERRUPTED)
    return result if isinstance(result, int) else 0


def run_script(command: Callable[..., int], arguments: Sequence[str] | None = None) -> int:
    """Run a function as the only command of a script; its annotations are the options.

    Args:
        command: The function; it returns the exit code.
        arguments: What was given; by default the process's own.

    Returns:
        The exit code; see `run_command`.
    """
    return run_command(single_command(command), arguments)


def single_command(command: Callable[..., int]) -> typer.Typer:
    """Make the command line of one function, without the extras of Typer that print more than one line."""
    import typer

    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    _describe(app)
    return app


def _describe(app: typer.Typer) -> None:
    """Where Python drops docstrings, under ``PYTHONOPTIMIZE=2``, give the commands their help from the source."""
    if sys.flags.optimize < 2:  # noqa: PLR2004 - as the interpreter counts
        return
    for command in app.registered_commands:
        with suppress(OSError):  # there is none, as in a package of byte code alone
            (function,) = ast.parse(dedent(inspect.getsource(command.callback or _describe))).body
            if isinstance(function, ast.FunctionDef):
                command.help = command.help or ast.get_docstring(function)
    for group in app.registered_groups:
        if group.typer_instance is not None:
            _describe(group.typer_instance)


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM unwind the stack as Ctrl-C does, so that open operations end as cancelled."""

    def stop(_number: int, _frame: object) -> None:
        raise SystemExit(TERMINATED)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: signals are someone else's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def forget_output() -> None:
    """Let what is left in the buffers go nowhere, or the interpreter would complain of the closed pipe at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def say(line: str, code: int) -> int:
    """Say on stderr, in one line, why a command ends.

    Args:
        line: What is said.
        code: The exit code.

    Returns:
        The exit code, which a command around this one takes without saying anything more.
    """
    sys.stderr.write(f"error: {' '.join(line.split())}\n")
    return Told(code)
