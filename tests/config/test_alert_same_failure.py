"""Which failures are the same one: by operation, by exception, by what led to them."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.config._events import ErrorInfo
from ml_pipeline.config._failures import failed_operation
from ml_pipeline.config.alerting import alert_manager, alert_on_failure
from ml_pipeline.config.operation_logger import operation_logger
from tests.config.alerting_world import World


@pytest.fixture
def world() -> World:
    """Return a world where nothing has happened yet."""
    return World()


# Two failures are two alerts


def test_another_failure_of_the_same_step_is_another_alert() -> None:
    """What does not name its exception joins no failure of another operation; a call outside refines the latest."""
    with pytest.raises(ConnectionError), operation_logger.operation("ingestion", source_name="db1"):
        raise ConnectionError("db1 down")
    second = operation_logger.log_data_ingestion_start(source_name="db2")
    operation_logger.log_data_ingestion_error(second, error="schema mismatch in db2")
    alert_manager.alert_processing_failure("data_ingestion", "totally other", model="modelX", severity="info")
    latest, first = alert_manager.history()
    assert (first.message, first.severity, first.model) == (
        "data_ingestion failed: ConnectionError: db1 down",
        "critical",
        "",
    )
    assert (latest.operation_id, latest.severity) == (second, "critical")
    assert latest.details["also_said"] == ["data_ingestion failed: totally other"]


@pytest.mark.parametrize("call_first", [True, False])
def test_the_error_call_and_the_alert_call_are_one_alert(call_first: bool) -> None:
    """Both as documented, without any context, in either order."""
    op_id = operation_logger.log_data_ingestion_start(source_name="ADNI")
    if call_first:
        alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")
    operation_logger.log_data_ingestion_error(op_id, error="no answer")
    if not call_first:
        alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")
    (alert,) = alert_manager.history()
    assert (alert.operation_id, alert.state, alert.count) == (op_id, "refined", 2)


# One exception is one alert


def _load(error: BaseException) -> None:
    with operation_logger.operation("ingestion", name="load"):
        raise error


def test_an_exception_names_the_operation_it_failed() -> None:
    """A call that is given the exception after the operation refines its alert, under whatever name."""
    with pytest.raises(TimeoutError) as failed:
        _load(TimeoutError("Connection timeout"))
    alert_manager.alert_processing_failure("data_ingestion", failed.value, host="db1")
    (alert,) = alert_manager.history()
    assert (alert.operation, alert.details["host"], alert.count) == ("load", "db1", 2)


@pytest.mark.parametrize("way", ["cause", "context", "group"])
def test_what_an_exception_led_to_is_the_same_failure(way: str) -> None:
    """Raised from it, raised while it was handled, or in a group with it: a call and a block add to its alert."""

    def led_to(error: Exception) -> None:
        if way == "cause":
            raise RuntimeError("import failed") from error
        if way == "group":
            raise ExceptionGroup("branches failed", [ValueError("x"), error])
        raise RuntimeError("import failed")

    def nightly() -> None:
        try:
            _load(TimeoutError("Connection timeout"))
        except TimeoutError as error:
            led_to(error)

    with pytest.raises(Exception, match="failed") as failed, alert_on_failure("nightly_import"):
        nightly()
    alert_manager.alert_processing_failure("nightly_import", failed.value)
    (alert,) = alert_manager.history()
    assert (alert.operation, alert.error_type, alert.count) == ("load", "TimeoutError", 3)


def test_what_is_raised_from_none_is_a_failure_of_its_own() -> None:
    """An exception that was said to have no cause has none."""
    try:
        _load(TimeoutError("Connection timeout"))
    except TimeoutError:
        with pytest.raises(RuntimeError), alert_on_failure("nightly_import"):
            raise RuntimeError("import failed") from None
    assert [alert.operation for alert in alert_manager.history()] == ["nightly_import", "load"]


def test_causes_that_go_round_in_circles_end() -> None:
    """Two exceptions that each have the other as their cause are one failure of no operation."""
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert failed_operation(first) is None


def test_an_operation_that_failed_of_another_adds_nothing(world: World) -> None:
    """Its event says whose failure led to its own; and where that one is not known, it is an alert."""
    wrapped: dict[str, Any] = {
        "kind": "custom",
        "name": "pipeline_run",
        "error": ErrorInfo("RuntimeError", "import failed"),
    }
    world.fail("inner")
    world.fail("outer", "around", attributes={"caused_by": "inner"}, **wrapped)
    world.fail("around", None, **wrapped)
    assert [alert.operation for alert in world.alerts.history()] == ["data_ingestion"]
    assert world.states() == ["raised"]
    world.fail("another", attributes={"caused_by": "nobody"}, **wrapped)
    assert world.states() == ["raised", "raised"]
