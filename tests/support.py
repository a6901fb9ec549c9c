"""What several tests need: waiting with a deadline, free ports, and running the example."""

from __future__ import annotations

import mmap
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pytest

T = TypeVar("T")

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / "ml_pipeline" / "examples" / "logging_monitoring_example.py"
INTERVAL_SECONDS = 0.02
_chance = random.SystemRandom()


def eventually(look: Callable[[], T], *, seconds: float = 30.0) -> T:
    """Return the first true answer of *look*, or fail when the deadline passes."""
    deadline = time.monotonic() + seconds
    while True:
        answer = look()
        if answer:
            return answer
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds} s: {look}")
        time.sleep(INTERVAL_SECONDS)


def free_port() -> int:
    """Return a port of the loopback address that nobody listens on.

    Below those that the system gives to outgoing connections, which would take it before the test does; and not by the
    seed that the tests share.
    """
    while True:
        port = _chance.randrange(15_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def free_ports(names: Collection[str]) -> dict[str, int]:
    """Return a port as `free_port` finds it for each name, no two the same."""
    free: set[int] = set()
    while len(free) < len(names):
        free.add(free_port())
    return dict(zip(names, free, strict=True))


def used_memory(size: int) -> mmap.mmap:
    """Return memory in use of this many bytes, fresh from the kernel: the heap may have as much left from before."""
    block = mmap.mmap(-1, size)
    while block.tell() < size:
        block.write(b"x" * min(1 << 20, size - block.tell()))
    return block


def require(program: str, *folders: Path) -> str:
    """Return where a program stands, or skip; where ``REQUIRE`` names it, its absence is a failure.

    Args:
        program: As the shell would call it.
        *folders: Where it may be besides.
    """
    found = shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", os.defpath), *map(str, folders))))
    if found:
        return found
    if program in os.environ.get("REQUIRE", "").split(","):
        pytest.fail(f"REQUIRE names {program}, which is not installed")
    pytest.skip(f"{program} is not installed; the system's package manager has it")


def run_example(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the example pipeline in the working directory, small unless told otherwise."""
    return subprocess.run(
        example_command(arguments), env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@contextmanager
def started_example(*arguments: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start the example pipeline in the working directory, and make sure that it does not outlive the block."""
    process = subprocess.Popen(
        example_command(arguments),
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def example_command(arguments: Sequence[str]) -> list[str]:
    """Return the command line of the example with a small forest."""
    small = [] if any(argument.startswith("--trees") for argument in arguments) else ["--trees", "10"]
    return [sys.executable, str(EXAMPLE), *small, *arguments]
