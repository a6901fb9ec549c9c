"""Every test runs in a folder of its own, under strict telemetry, and leaves nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _context

settings.register_profile("house", deadline=None)  # a loaded machine is no failure of the property
settings.load_profile("house")


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
