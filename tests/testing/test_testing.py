"""The package's own test kit, used as its documentation says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from ml_pipeline.config._events import OperationEvent
from ml_pipeline.config.alerting import AlertManager, alert_manager
from ml_pipeline.config.operation_logger import operation_logger
from ml_pipeline.testing import CapturedEvents, FakeClock, isolated

USERS_CONFTEST = 'pytest_plugins = ["ml_pipeline.testing.fixtures"]\n'
USERS_TEST = """
import pytest
from ml_pipeline.config._events import OperationEvent
from ml_pipeline.config.operation_logger import operation_logger

@operation_logger.operation("ingestion", "load", source_name="clinic")
def ingest():
    raise TimeoutError("a source that never answers")

def test_ingestion_failure_raises_one_alert(captured_alerts, captured_events):
    with pytest.raises(TimeoutError):
        ingest()
    assert [alert.kind for alert in captured_alerts] == ["processing_failure"]
    assert [event.type for event in captured_events.of(OperationEvent)] == ["start", "fail"]

def test_nothing_is_left_of_the_test_before(captured_alerts, observed_in, fake_clock):
    assert len(captured_alerts) == 0
    assert fake_clock.advance(5) == fake_clock()
"""


def test_the_documented_fixtures_work_in_a_users_project(isolated: Path) -> None:
    """A project of one's own with the documented conftest: its tests pass, and its folder stays clean."""
    Path("conftest.py").write_text(USERS_CONFTEST)
    Path("test_users.py").write_text(USERS_TEST)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", "test_users.py"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "2 passed" in done.stdout, done.stdout
    assert {path.name for path in isolated.iterdir()} <= {"conftest.py", "test_users.py", "__pycache__"}


def test_isolated_keeps_everything_in_one_folder(tmp_path: Path) -> None:
    """Inside the block logs and data go to the folder; afterwards the settings are the earlier ones."""
    with isolated(tmp_path / "here") as folder, operation_logger.operation("custom", "work"):
        pass
    assert (folder / "logs" / "ml_pipeline.log").is_file()
    assert not Path("ml_pipeline").exists()


def test_captured_events_are_chosen_by_type_and_facts() -> None:
    """`of` returns the events of a type with the given attributes, in order."""
    with CapturedEvents() as events, operation_logger.operation("custom", "work"):
        pass
    assert [event.type for event in events.of(OperationEvent, name="work")] == ["start", "complete"]
    assert len(events) >= 2
    assert list(events) == events.events


def test_a_fake_clock_carries_an_alert_over_its_cooldown() -> None:
    """A manager that is given the clock raises again once the clock has passed the cooldown, and not before."""
    clock = FakeClock()
    manager = AlertManager(clock=clock)
    first = manager.alert_processing_failure("step", "broken")
    assert manager.alert_processing_failure("step", "broken") == first
    clock.advance(301)
    assert manager.alert_processing_failure("step", "broken") != first
    assert alert_manager is not manager
