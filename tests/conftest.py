"""Every test runs in a folder of its own, under strict telemetry, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _context

# A loaded machine is no failure of the property. "repeatable" tries the same examples each time, so that a change is
# judged by what it changes; "house" tries others, and finds what those leave out.
settings.register_profile("house", deadline=None)
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "house"))

# A shell ignores Ctrl-C for what it starts in the background, and children inherit that: the tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run in an empty folder with default settings, strict, and forget all of it afterwards."""
    for name in list(os.environ):
        if name.startswith(("ML_PIPELINE_", "GRAFANA_")):
            monkeypatch.delenv(name)
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    ml_pipeline.reset()
    ml_pipeline.configure(name="test", strict=True, log_console="off")
    around = _context.restore(dict.fromkeys(_context.VARIABLES))
    yield folder
    _context.undo(around)
    _runtime.shutdown()
    ml_pipeline.reset()


@pytest.fixture
def small_disk(isolated: Path) -> Iterator[Callable[..., Path]]:
    """Mounts a small file system of its own at a folder, because root is not stopped by permissions."""
    mounted: list[Path] = []

    def mount(folder: Path, options: str) -> Path:
        folder.mkdir(parents=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"mounting needs root: {done.stderr.strip()}")
        mounted.append(folder.absolute())
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
