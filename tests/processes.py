"""Running a piece of a test in a process of its own: a new interpreter, or a fork."""

from __future__ import annotations

import json
import os
import random
import select
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from tests.support import ROOT

DEADLINE_SECONDS = 60.0


def run_python(code: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run *code* in a new interpreter, in the working folder, with the package importable."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )


def python_answer(code: str, *arguments: str, **environment: str) -> Any:
    """Run *code* in a new interpreter and return the JSON it prints last; nothing may go wrong in it."""
    done = run_python(code, *arguments, **environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def left_by_its_reader(*arguments: str) -> tuple[bytes, int]:
    """Run ``ml-pipeline``, take a line of what it writes, and go; what it says on stderr, and its exit code."""
    ours = subprocess.Popen(
        [sys.executable, "-m", "ml_pipeline", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with ours:
        assert ours.stdout
        assert ours.stderr
        assert ours.stdout.readline()
        ours.stdout.close()
        complaint = ours.stderr.read()
    return complaint, ours.returncode


def kill_for_rounds(program: str, *arguments: object, **environment: str) -> dict[str, Any]:
    """Run a program of the tests that kills what it starts, as often as ``FAULT_ROUNDS`` says, or ten times.

    Args:
        program: Its module; it is given the arguments, the rounds and a seed, and prints its answer as JSON at the end.
        *arguments: What it is about.
        **environment: Variables of its own.

    Returns:
        The answer, in which it must have found no fault, with the number of ``rounds``.
    """
    rounds, seed = int(os.environ.get("FAULT_ROUNDS", "10")), random.randrange(1 << 32)
    done = subprocess.run(
        [sys.executable, "-m", program, *map(str, arguments), str(rounds), str(seed)],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert not answer.get("fault"), f"seed {seed}: {answer}"
    return {**answer, "rounds": rounds}


def in_fork(work: Callable[[], object]) -> Any:
    """Return what *work* returns in a forked child, which must be plain JSON; the child ends at once, past ``atexit``."""
    if not hasattr(os, "fork"):
        pytest.skip("this system has no fork")
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is what is tested
        pid = os.fork()
    if pid == 0:
        try:
            answer = json.dumps({"answer": work()})
        except BaseException as error:  # noqa: BLE001 - told to the parent, whatever it is
            answer = json.dumps({"error": repr(error)})
        os.write(writing, answer.encode())
        os._exit(0)
    os.close(writing)
    return _answer_of(pid, reading)


def _answer_of(pid: int, reading: int) -> Any:
    with os.fdopen(reading, "rb") as pipe:
        if not select.select([pipe], [], [], DEADLINE_SECONDS)[0]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail("the forked child hangs")
        answered = json.loads(pipe.read())
    os.waitpid(pid, 0)
    assert "error" not in answered, answered["error"]
    return answered["answer"]


def tell_until_killed(
    write: Callable[[int, int], object], writers: int, wanted: int, *, wait_seconds: float = 0.0
) -> list[str]:
    """Fork writers, and kill them once they have told of so much together.

    Args:
        write: What a writer does until then; given its number and the pipe in which it tells of each thing, a line each.
        writers: How many there are.
        wanted: Of how many things they tell at least.
        wait_seconds: How long after that they are killed.

    Returns:
        All that they told of.
    """
    reading, told = os.pipe()
    children = []
    for number in range(writers):
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            try:
                write(number, told)
            finally:
                os._exit(1)
        children.append(pid)
    os.close(told)
    heard = _heard(reading, b"", DEADLINE_SECONDS, wanted)
    heard = _heard(reading, heard, wait_seconds, sys.maxsize)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)
    while more := os.read(reading, 65_536):
        heard += more
    os.close(reading)
    return heard.decode().splitlines()


def _heard(reading: int, heard: bytes, seconds: float, wanted: int) -> bytes:
    """Read until there are so many lines, the time is over, or nobody is left who could write."""
    end = time.monotonic() + seconds
    while (
        heard.count(b"\n") < wanted
        and (left := end - time.monotonic()) > 0
        and select.select([reading], [], [], left)[0]
        and (more := os.read(reading, 65_536))
    ):
        heard += more
    return heard
