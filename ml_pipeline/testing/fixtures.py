"""pytest fixtures: ``pytest_plugins = ["ml_pipeline.testing.fixtures"]`` in a ``conftest.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ml_pipeline.config._events import AlertEvent
from ml_pipeline.testing.fakes import CapturedEvents, FakeClock, isolated

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["CapturedAlerts", "captured_alerts", "captured_events", "fake_clock", "observed_in"]


class CapturedAlerts:
    """The alerts raised so far, oldest first; repeats that were held back are not among them."""

    def __init__(self, events: CapturedEvents) -> None:
        self._events = events

    def __iter__(self) -> Iterator[AlertEvent]:
        return iter(self._events.of(AlertEvent, state="raised"))

    def __len__(self) -> int:
        return sum(1 for _ in self)


@pytest.fixture
def observed_in(tmp_path: Path) -> Iterator[Path]:
    """The folder in which everything the test observes is kept; telemetry that fails raises."""
    with isolated(tmp_path / "observed") as folder:
        yield folder


@pytest.fixture
def captured_events(observed_in: Path) -> Iterator[CapturedEvents]:  # noqa: ARG001 - isolation comes first
    """Every event published during the test."""
    with CapturedEvents() as events:
        yield events


@pytest.fixture
def captured_alerts(captured_events: CapturedEvents) -> CapturedAlerts:
    """The alerts raised during the test."""
    return CapturedAlerts(captured_events)


@pytest.fixture
def fake_clock() -> FakeClock:
    """A clock that moves only when it is told to."""
    return FakeClock()
