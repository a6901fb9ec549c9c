"""What the tests of ``ml-pipeline logs`` share: a log directory of a few lines, and the command run in it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

LOGS = Path("ml_pipeline") / "logs"
RUN = "01a1fc3f-0e18-7000-8a30-b094bf394c1a"


@pytest.fixture
def zurich() -> Iterator[None]:
    """Live in Zurich, where the clocks change."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Europe/Zurich")
        time.tzset()
        yield
    time.tzset()


def line(second: float, message: str = "said", **fields: Any) -> bytes:
    """Return a JSON line of a minute of 2026-11-20, 10:00 UTC."""
    known = {
        "timestamp": f"2026-11-20T10:00:{second:09.6f}Z",
        "level": "INFO",
        "logger": "model_trainer",
        "channel": "ml_pipeline",
        "message": message,
    }
    return orjson.dumps({**known, **fields}) + b"\n"


def write(name: str, *lines: bytes) -> Path:
    """Write a log file, by its path below the log directory."""
    path = LOGS / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(lines))
    return path


def messages(printed: str) -> list[str]:
    """Return the messages of what ``--format json`` printed."""
    return [orjson.loads(each)["message"] for each in printed.splitlines()]
