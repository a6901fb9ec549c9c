"""One cause, one alert: whoever says it, how often, in whatever order."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ml_pipeline import _runtime
from ml_pipeline.config import alerting
from ml_pipeline.config._events import DriftEvent, ErrorInfo, OperationEvent
from ml_pipeline.config.alerting import alert_manager, alert_on_failure
from ml_pipeline.config.operation_logger import operation_logger
from ml_pipeline.errors import AlertError
from tests.config.alerting_world import World, inside


@pytest.fixture
def world() -> World:
    """Return a world where nothing has happened yet."""
    return World()


def test_one_failure_said_three_times_is_one_alert(world: World) -> None:
    """The operation's event, the call inside it and the call after it: one alert, one delivery, all details."""
    with inside(operation="data_ingestion", operation_id="op", run_id="run"):
        ids = [world.alerts.alert_processing_failure("ingest ADNI", "no answer", host="db1")]
        world.fail(
            "op", attributes={"source_name": "ADNI", "model_name": "m", "features": [1, 2]}, counts={"records": 3}
        )
        ids.append(world.alerts.alert_processing_failure("data_ingestion", TimeoutError("Connection timeout")))
        assert len(set(ids)) == 1
        world.alerts.flush()
        (alert,) = world.alerts.history()
        (message,) = world.pager.sent
        assert message.alert == alert
        assert (alert.error_type, alert.model, alert.run_id) == ("TimeoutError", "m", "run")
        assert alert.details["host"] == "db1"
        assert alert.details["source_name"] == "ADNI"
        assert alert.details["counts"] == {"records": 3}
        assert "features" not in alert.details, "the features of a person do not leave the machine"
        assert world.states() == ["raised", "refined", "refined"]


def test_three_ways_of_saying_it_are_one_alert() -> None:
    """With the real operations: the error call, the alert call and the exception through two blocks."""

    def fetch() -> None:
        raise TimeoutError("Connection timeout")

    @alert_on_failure("nightly_import")
    def nightly_import() -> None:
        with operation_logger.operation("custom", name="pipeline_run"), operation_logger.operation("ingestion"):
            try:
                fetch()
            except TimeoutError as error:
                operation_logger.log_data_ingestion_error(error=error)
                alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")
                raise

    with pytest.raises(TimeoutError):
        nightly_import()
    (alert,) = alert_manager.history()
    assert (alert.operation, alert.error_type, alert.held_back) == ("data_ingestion", "TimeoutError", 0)
    assert "raise TimeoutError" in alert.details["stacktrace"]


@pytest.mark.parametrize("event_first", [True, False])
def test_a_text_without_a_type_is_about_the_same_failure(world: World, event_first: bool) -> None:
    """A call outside any operation that names the operation refines its alert, whichever came first."""
    if event_first:
        world.fail("op")
    world.alerts.alert_processing_failure("data_ingestion", "Connection timeout")
    if not event_first:
        world.fail("op")
    (alert,) = world.alerts.history()
    assert (alert.error_type, alert.operation_id, alert.state) == ("TimeoutError", "op", "refined")


def test_a_failure_that_travels_up_is_one_alert(world: World) -> None:
    """The innermost operation is alerted; those around it, failing with the same error, add nothing."""
    world.fail("inner", "middle")
    world.fail("middle", "outer", kind="training", name="model_training")
    world.fail("outer", None, kind="custom", name="pipeline_run")
    assert [alert.operation for alert in world.alerts.history()] == ["data_ingestion"]
    assert world.states() == ["raised"]


def test_another_failure_of_the_operation_around_is_another_alert(world: World) -> None:
    """An operation that survives the failure inside it and then fails by itself is alerted too."""
    world.fail("inner", "outer")
    world.fail("outer", None, kind="training", name="model_training", error=ErrorInfo("ValueError", "nan"))
    assert [alert.operation for alert in world.alerts.history()] == ["model_training", "data_ingestion"]


def test_an_abandoned_run_is_one_alert(world: World) -> None:
    """A process that dies leaves all its operations open: one alert, for the first that is found."""
    for operation_id, name in (("outer", "pipeline_run"), ("inner", "model_training")):
        event = OperationEvent(type="abandon", kind="custom", name=name, operation_id=operation_id, run_id="run")
        world.bus.publish(event)
    (alert,) = world.alerts.history()
    assert (alert.severity, alert.error_type) == ("critical", "Abandoned")
    assert alert.message == "pipeline_run was abandoned"


@pytest.mark.parametrize("type_", ["start", "progress", "complete", "cancel"])
def test_other_ends_are_no_alert(world: World, type_: Any) -> None:
    """Nothing is alerted when an operation goes on, ends well, or is cancelled; and no store is made for that."""
    world.bus.publish(OperationEvent(type=type_, kind="training", name="t", operation_id="op"))
    assert not (_runtime.settings().data_dir / "alerts").exists()


def test_a_batch_that_drifted_is_one_alert(world: World) -> None:
    """All its features are in the details; the call about it refines it; no alarm, no alert."""
    with inside(operation="drift_check", operation_id="op"):
        drifted = DriftEvent(
            model="m",
            batch="b1",
            verdict="drift",
            rows=9,
            effects={"a": 0.4, "b": 0.3, "c": 0.0},
            drifted=("a", "b"),
            alarm=True,
        )
        world.bus.publish(drifted)
        world.bus.publish(DriftEvent(model="m", batch="b2", verdict="drift", rows=9, drifted=("c",)))
        world.bus.publish(DriftEvent(model="m", batch="b3", verdict="insufficient_data", rows=1))
        (alert,) = world.alerts.history()
        assert (alert.kind, alert.model, alert.message) == ("data_drift", "m", "m: drift in a, b (b1)")
        assert alert.details == {
            "features": ["a", "b"],
            "effects": {"a": 0.4, "b": 0.3},
            "batch": "b1",
            "rows": 9,
            "reason": "",
        }
        for features in (["a", "b"], "a"):
            assert world.alerts.alert_data_drift("m", features, owner="ada") == alert.alert_id
        assert world.states() == ["raised", "refined", "refined"]


def test_one_kind_does_not_refine_another(world: World) -> None:
    """Within one operation, a failure and a quality problem are two alerts, and so are two checks."""
    with inside(operation="data_ingestion", operation_id="op"):
        world.alerts.alert_data_quality("a")
        world.alerts.alert_data_quality("b")
        world.fail("op")
        assert len(world.alerts.history()) == 3


def test_its_own_events_raise_nothing(world: World) -> None:
    """A manager that hears of its alerts on the bus does nothing about them."""
    world.alerts.alert_processing_failure("a", "b")
    world.bus.publish(world.events[0])
    assert len(world.alerts.history()) == 1


# alert_on_failure


def test_a_block_that_fails_is_an_alert(world: World) -> None:
    """The exception goes on; the alert has its type and traceback."""
    with pytest.raises(ZeroDivisionError), alert_on_failure("import", severity="warning", manager=world.alerts):
        _ = 1 / 0
    (alert,) = world.alerts.history()
    assert (alert.operation, alert.error_type, alert.severity) == ("import", "ZeroDivisionError", "warning")
    assert "1 / 0" in alert.details["stacktrace"]


def test_a_block_that_ends_well_is_none(world: World) -> None:
    """Nothing is raised, and nothing is opened."""
    with alert_on_failure("import", manager=world.alerts):
        pass
    assert not (_runtime.settings().data_dir / "alerts").exists()


@pytest.mark.parametrize("leaving", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_leaving_is_no_failure(world: World, leaving: type[BaseException]) -> None:
    """Ctrl-C, an exit and a cancelled task go through without an alert."""
    with pytest.raises(leaving), alert_on_failure("import", manager=world.alerts):
        raise leaving
    assert world.alerts.history() == []


def test_a_decorated_function_alerts_at_each_call(world: World) -> None:
    """It keeps its name and result, may call itself and run in threads at once."""

    @alert_on_failure("divide", manager=world.alerts)
    def divide(by: int) -> float:
        """Divide one."""
        return 1 / by

    assert (divide(2), divide.__name__, divide.__doc__) == (0.5, "divide", "Divide one.")
    with ThreadPoolExecutor(4) as pool:
        failed = [future.exception() for future in [pool.submit(divide, 0) for _ in range(8)]]
    assert all(isinstance(error, ZeroDivisionError) for error in failed)
    (alert,) = world.alerts.history()
    assert (alert.count, alert.held_back) == (8, 7)


def test_a_coroutine_function_is_watched_while_it_runs(world: World) -> None:
    """Decorated or with ``async with``, what fails while it is awaited is alerted."""

    @alert_on_failure("decorated", manager=world.alerts)
    async def decorated() -> None:
        await asyncio.sleep(0)
        raise ValueError("a")

    async def block() -> None:
        async with alert_on_failure("block", manager=world.alerts):
            await asyncio.sleep(0)
            raise ValueError("b")

    async def both() -> tuple[Any, ...]:
        return await asyncio.gather(decorated(), block(), return_exceptions=True)

    assert [str(error) for error in asyncio.run(both())] == ["a", "b"]
    assert {alert.operation for alert in world.alerts.history()} == {"decorated", "block"}


def test_nested_blocks_are_one_alert(world: World) -> None:
    """The innermost block names the failure; the ones around it add nothing, in the next run as well."""
    for _ in range(2):
        with pytest.raises(ValueError, match="x"), alert_on_failure("outer", manager=world.alerts):  # noqa: SIM117
            with alert_on_failure("inner", manager=world.alerts):
                raise ValueError("x")
    (alert,) = world.alerts.history()
    assert (alert.operation, world.states().count("raised")) == ("inner", 1)


def test_a_block_around_an_operation_is_one_alert(world: World) -> None:
    """An operation that failed inside the block has told it already, and so has the operation around that."""

    @alert_on_failure("nightly", manager=world.alerts)
    def nightly() -> None:
        world.fail("inner", "outer")
        world.fail("outer", None, kind="custom", name="pipeline_run")
        raise TimeoutError("Connection timeout")

    with pytest.raises(TimeoutError):
        nightly()
    (alert,) = world.alerts.history()
    assert (alert.operation, alert.state) == ("data_ingestion", "refined")


def test_a_block_inside_an_operation_is_one_alert(world: World) -> None:
    """The block tells it first; the operation's own failure refines that, and the one around it adds nothing."""
    with inside(operation="data_ingestion", operation_id="op", run_id="run"):
        with pytest.raises(TimeoutError), alert_on_failure("download", manager=world.alerts):
            raise TimeoutError("Connection timeout")
        world.fail("op", "outer")
        world.fail("outer", None, kind="custom", name="pipeline_run")
        (alert,) = world.alerts.history()
        assert (alert.operation, alert.operation_id, alert.count) == ("download", "op", 2)


def test_the_default_manager_is_looked_up_when_it_fails(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block made before a manager is put in place alerts through that manager."""
    watched = alert_on_failure("import")
    monkeypatch.setattr(alerting, "alert_manager", world.alerts)
    with pytest.raises(ValueError, match="x"), watched:
        raise ValueError("x")
    assert len(world.alerts.history()) == 1


def test_a_generator_cannot_be_decorated() -> None:
    """Its call does no work; the error says what to write instead."""

    def rows() -> Iterator[int]:
        yield 1

    with pytest.raises(AlertError) as wrong:
        alert_on_failure("rows")(rows)
    assert str(wrong.value) == (
        "alert_on_failure decorates a function that works when it is called, not a generator"
        f" (got '{rows.__qualname__}'); use `with alert_on_failure(...)` inside it"
    )


async def _fails_at(night: int) -> None:
    if night == 1:
        raise OSError("no printer")


def test_a_block_that_goes_well_again_resolves_its_alert(world: World) -> None:
    """When the cooldown is over; a decorated coroutine does as well, and so does a call that says it."""
    job = alert_on_failure("nightly", manager=world.alerts)(_fails_at)
    for night in (0, 1, 2):
        world.clock.now += 86_400
        with contextlib.suppress(OSError):
            asyncio.run(job(night))
        world.alerts.flush()
    assert [each.state for each in world.alerts.history()] == ["resolved"]
    world.alerts.alert_processing_failure("by_hand", "x")
    world.alerts.went_well("by_hand")
    world.alerts.flush()
    assert [each.operation for each in world.alerts.active()] == ["by_hand"]
    world.clock.now += 301
    world.alerts.flush()
    assert world.alerts.active() == []
