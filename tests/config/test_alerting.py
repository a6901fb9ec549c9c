"""Alerts as users meet them: said by calls, events and blocks; one for each cause; kept, published and delivered."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _context, alerting
from ml_pipeline.config._alert_records import (
    MOST_DETAIL_BYTES,
    MOST_MESSAGE_CHARACTERS,
    MOST_NAME_CHARACTERS,
    bounded_details,
    bounded_text,
)
from ml_pipeline.config._encoding import encode
from ml_pipeline.config._events import AlertEvent, Bus, DriftEvent, ErrorInfo, Event, OperationEvent
from ml_pipeline.config.alerting import Alert, AlertManager, AlertMessage, alert_manager, alert_on_failure
from ml_pipeline.errors import AlertError
from tests.config.test_alert_channels import Mailbox, Server
from tests.support import eventually, free_port

KEYS = [
    "alert_id", "time", "state", "kind", "severity", "pipeline", "operation", "operation_id", "run_id", "user_id",
    "model", "feature", "error_type", "message", "count", "held_back", "last_time", "details",
]  # fmt: skip


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


class Pager:
    """A channel that keeps what it is given, or fails as it is told to."""

    name = "pager"

    def __init__(self) -> None:
        self.sent: list[AlertMessage] = []
        self.failures: list[Exception] = []

    def send(self, message: AlertMessage) -> None:
        """Take a message, or raise the next failure."""
        if self.failures:
            raise self.failures.pop(0)
        self.sent.append(message)


class World:
    """A manager with a bus, a clock and a channel of its own, and all that it published."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.pager = Pager()
        self.bus = Bus()
        self.attempts: list[tuple[str, str, float]] = []
        self.alerts = self.manager()
        self.bus.subscribe("alerting", self.alerts.observe)
        self.events: list[AlertEvent] = []
        self.bus.subscribe("test", self._keep)

    def manager(self) -> AlertManager:
        """Make another manager on the same store, as another process would."""
        return AlertManager(
            channels=[self.pager],
            clock=self.clock,
            bus=self.bus,
            on_delivery=lambda *attempt: self.attempts.append(attempt),
        )

    def fail(self, operation_id: str, parent_id: str | None = None, **fields: Any) -> None:
        """Publish the failure of an operation."""
        given = {
            "kind": "ingestion",
            "name": "data_ingestion",
            "run_id": "run",
            "error": ErrorInfo("TimeoutError", "Connection timeout", "Traceback"),
            **fields,
        }
        self.bus.publish(OperationEvent(type="fail", operation_id=operation_id, parent_id=parent_id, **given))

    def states(self) -> list[str]:
        """Return what happened to alerts, in order."""
        return [event.state for event in self.events]

    def _keep(self, event: Event) -> None:
        if isinstance(event, AlertEvent):
            self.events.append(event)


@pytest.fixture
def world() -> World:
    """Return a world where nothing has happened yet."""
    return World()


@pytest.fixture
def within() -> Iterator[Callable[..., None]]:
    """Return what enters the context of an operation."""
    tokens: list[Any] = []
    yield lambda **values: tokens.extend(_context.restore(values))
    _context.undo(tokens)


# What users call


def test_the_promised_call_works_as_written() -> None:
    """The default manager takes the call of the documentation and keeps the alert."""
    alert_id = alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")
    (alert,) = alert_manager.history()
    assert (alert.alert_id, alert.pipeline, alert.operation) == (alert_id, "test", "data_ingestion")
    assert (alert.kind, alert.severity, alert.error_type) == ("processing_failure", "critical", "")
    assert alert.message == "data_ingestion failed: Connection timeout"
    assert alert_manager.active() == [alert]


def test_an_exception_brings_its_type_and_traceback(world: World) -> None:
    """Given the exception itself, the alert has its class, its message and where it was raised."""
    try:
        raise TimeoutError("Connection timeout")
    except TimeoutError as error:
        world.alerts.alert_processing_failure("data_ingestion", error, model="m", host="db1", nothing=None)
    (alert,) = world.alerts.history()
    assert (alert.error_type, alert.model) == ("TimeoutError", "m")
    assert alert.message == "data_ingestion failed: TimeoutError: Connection timeout"
    assert "raise TimeoutError" in alert.details["stacktrace"]
    assert {**alert.details, "stacktrace": ""} == {"stacktrace": "", "host": "db1"}


@pytest.mark.parametrize(
    ("say", "kind", "feature", "message", "details"),
    [
        (
            lambda alerts: alerts.alert_resource_threshold("memory", 0.951, 0.9, unit="ratio", free=3),
            "resource_threshold",
            "memory",
            "memory is 0.951, threshold 0.9 (ratio)",
            {"value": 0.951, "threshold": 0.9, "unit": "ratio", "free": 3},
        ),
        (
            lambda alerts: alerts.alert_resource_threshold("cpu", float("nan"), "much"),
            "resource_threshold",
            "cpu",
            "cpu is nan, threshold much",
            {"value": "NaN", "threshold": "much"},
        ),
        (
            lambda alerts: alerts.alert_data_quality("age_not_null", dataset="ADNI", failed=3, total=100),
            "data_quality",
            "ADNI: age_not_null",
            "ADNI: age_not_null failed for 3 of 100",
            {"check": "age_not_null", "dataset": "ADNI", "failed": 3, "total": 100},
        ),
        (
            lambda alerts: alerts.alert_data_quality("unique", failed=3, message="Ids are not unique"),
            "data_quality",
            "unique",
            "Ids are not unique",
            {"check": "unique", "failed": 3},
        ),
        (
            lambda alerts: alerts.alert_data_quality("unique", failed=3),
            "data_quality",
            "unique",
            "unique failed for 3",
            {"check": "unique", "failed": 3},
        ),
        (
            lambda alerts: alerts.alert_model_performance("m", "roc_auc", 0.71, 0.8, basis="realised"),
            "model_performance",
            "roc_auc",
            "m: roc_auc is 0.71, threshold 0.8",
            {"value": 0.71, "threshold": 0.8, "basis": "realised"},
        ),
        (
            lambda alerts: alerts.alert_data_drift("m", "age", effect=0.3, batch="b1"),
            "data_drift",
            "age",
            "m: drift in age (b1)",
            {"features": ["age"], "effect": 0.3, "batch": "b1"},
        ),
        (
            lambda alerts: alerts.alert_data_drift("m", ("a", "b", "c", "d", "e", "f")),
            "data_drift",
            "",
            "m: drift in a, b, c, d, e and 1 more",
            {"features": ["a", "b", "c", "d", "e", "f"]},
        ),
        (
            lambda alerts: alerts.alert_data_drift("m", []),
            "data_drift",
            "",
            "m: drift in its data",
            {"features": []},
        ),
    ],
)
def test_what_is_measured_is_said_in_a_sentence(
    world: World, say: Callable[[AlertManager], str], kind: str, feature: str, message: str, details: dict[str, Any]
) -> None:
    """Each call of the other four makes a warning with a sentence for people and the facts for programs."""
    say(world.alerts)
    (alert,) = world.alerts.history()
    assert (alert.kind, alert.severity, alert.feature) == (kind, "warning", feature)
    assert (alert.message, alert.details) == (message, details)


def test_an_alert_carries_the_context_it_is_said_in(world: World, within: Callable[..., None]) -> None:
    """Operation, run and user come from the caller's context, and what is passed wins."""
    within(operation="model_training", operation_id="op", run_id="run", user_id="ada")
    world.alerts.alert_resource_threshold("memory", 0.95, 0.9)
    world.alerts.alert_processing_failure("upload", "no", operation_id="op2")
    failed, measured = world.alerts.history()
    assert (measured.operation, measured.operation_id, measured.run_id) == ("model_training", "op", "run")
    assert (measured.user_id, failed.operation, failed.operation_id) == ("ada", "upload", "op2")


def test_the_cooldown_returns_the_alert_it_counts_under(world: World) -> None:
    """A repeat is published as suppressed with its own words, under the first alert's id; later it is news again."""
    first = world.alerts.alert_processing_failure("a", "one")
    world.clock.now += 299.9
    assert world.alerts.alert_processing_failure("a", "two") == first
    world.clock.now += 0.1
    assert world.alerts.alert_processing_failure("a", "three") != first
    assert [(event.state, event.reason) for event in world.events] == [
        ("raised", ""),
        ("suppressed", "cooldown"),
        ("raised", ""),
    ]
    assert (world.events[1].alert_id, world.events[1].message) == (first, "a failed: two")
    assert world.alerts.summary().held_back == 1


def test_the_cooldown_is_a_setting(world: World) -> None:
    """`ML_PIPELINE_ALERT_COOLDOWN_SECONDS` is read at each alert."""
    ml_pipeline.configure(alert_cooldown_seconds=0)
    assert len({world.alerts.alert_processing_failure("a", "b") for _ in range(3)}) == 3


def test_the_cooldown_survives_a_restart(world: World) -> None:
    """What is opened anew finds the alert of before, and counts under it."""
    first = world.alerts.alert_processing_failure("a", "b")
    _runtime.shutdown()
    assert world.manager().alert_processing_failure("a", "b") == first
    assert world.alerts.history()[0].held_back == 1


def test_resolving_is_said_once(world: World) -> None:
    """A resolved alert is published as such, is active no more, and ends its cooldown."""
    alert_id = world.alerts.alert_processing_failure("a", "b")
    assert world.alerts.resolve(alert_id)
    assert world.alerts.active() == []
    assert [alert.alert_id for alert in world.alerts.history(state="resolved")] == [alert_id]
    assert world.alerts.alert_processing_failure("a", "b") != alert_id
    assert world.states() == ["raised", "resolved", "raised"]
    with pytest.raises(AlertError) as wrong:
        world.alerts.resolve(alert_id)
    assert str(wrong.value) == (
        f"an alert that is resolved must be open (got '{alert_id}'); see alert_manager.active()"
    )


def test_the_summary_counts_a_period(world: World) -> None:
    """Only what was raised within the period, by kind and severity, with its deliveries."""
    world.alerts.alert_processing_failure("a", "b")
    world.clock.now += 3600
    world.alerts.alert_data_quality("unique")
    world.alerts.flush()
    summary = world.alerts.summary(60)
    assert (summary.alerts, summary.by_kind, summary.by_severity) == (1, {"data_quality": 1}, {"warning": 1})
    assert summary.deliveries == {"pager": {"sent": 1}}
    assert world.alerts.summary().alerts == 2


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ({"limit": 0}, "a limit must be at least 1 (got 0); leave it out for 100"),
        (
            {"severity": "critcal"},
            "a severity must be one of the known ones (got 'critcal'); did you mean 'critical'?",
        ),
        ({"state": "open"}, "a state must be one of the known ones (got 'open'); known: raised, refined, resolved"),
    ],
)
def test_a_question_without_an_answer_is_an_error(world: World, question: dict[str, Any], text: str) -> None:
    """A limit, severity or state that cannot be is named, with the remedy."""
    with pytest.raises(AlertError) as wrong:
        world.alerts.history(**question)
    assert str(wrong.value) == text


# One failure, one alert


def test_one_failure_said_three_times_is_one_alert(world: World, within: Callable[..., None]) -> None:
    """The operation's event, the call inside it and the call after it: one alert, one delivery, all details."""
    within(operation="data_ingestion", operation_id="op", run_id="run")
    ids = [world.alerts.alert_processing_failure("ingest ADNI", "no answer", host="db1")]
    world.fail("op", attributes={"source_name": "ADNI", "model_name": "m", "features": [1, 2]}, counts={"records": 3})
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


@pytest.mark.parametrize("event_first", [True, False])
def test_a_text_without_a_type_is_about_the_same_failure(world: World, event_first: bool) -> None:
    """A call outside any operation that names the operation refines its alert, whichever came first."""
    says = [
        lambda: world.fail("op"),
        lambda: world.alerts.alert_processing_failure("data_ingestion", "Connection timeout"),
    ]
    for say in says if event_first else reversed(says):
        say()
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


def test_an_abandoned_run_is_one_warning(world: World) -> None:
    """A process that dies leaves all its operations open: one alert, for the first that is found."""
    for operation_id, name in (("outer", "pipeline_run"), ("inner", "model_training")):
        event = OperationEvent(type="abandon", kind="custom", name=name, operation_id=operation_id, run_id="run")
        world.bus.publish(event)
    (alert,) = world.alerts.history()
    assert (alert.severity, alert.error_type) == ("warning", "Abandoned")
    assert alert.message == "pipeline_run was abandoned"


@pytest.mark.parametrize("type_", ["start", "progress", "complete", "cancel"])
def test_other_ends_are_no_alert(world: World, type_: Any) -> None:
    """Nothing is alerted when an operation goes on, ends well, or is cancelled; and no store is made for that."""
    world.bus.publish(OperationEvent(type=type_, kind="training", name="t", operation_id="op"))
    assert not (_runtime.settings().data_dir / "alerts").exists()


def test_a_batch_that_drifted_is_one_alert(world: World, within: Callable[..., None]) -> None:
    """All its features are in the details; the call about it refines it; a batch that did not drift is none."""
    within(operation="drift_check", operation_id="op")
    drifted = DriftEvent(
        model="m", batch="b1", verdict="drift", rows=9, effects={"a": 0.4, "b": 0.3, "c": 0.0}, drifted=("a", "b")
    )
    world.bus.publish(drifted)
    world.bus.publish(DriftEvent(model="m", batch="b2", verdict="no_drift", rows=9))
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


def test_one_kind_does_not_refine_another(world: World, within: Callable[..., None]) -> None:
    """Within one operation, a failure and a quality problem are two alerts, and so are two checks."""
    within(operation="data_ingestion", operation_id="op")
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

    async def both() -> list[Any]:
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
    with pytest.raises(TimeoutError), alert_on_failure("nightly", manager=world.alerts):
        world.fail("inner", "outer")
        world.fail("outer", None, kind="custom", name="pipeline_run")
        raise TimeoutError("Connection timeout")
    (alert,) = world.alerts.history()
    assert (alert.operation, alert.state) == ("data_ingestion", "refined")


def test_a_block_inside_an_operation_is_one_alert(world: World, within: Callable[..., None]) -> None:
    """The block tells it first; the operation's own failure refines that, and the one around it adds nothing."""
    within(operation="data_ingestion", operation_id="op", run_id="run")
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


# What users do wrong, and what goes wrong


def test_an_unknown_severity_is_recorded_as_a_warning(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The alert is kept; the mistake is counted, said once, and raised only under strict."""
    given: Any = "critcal"
    text = "a severity must be one of the known ones (got 'critcal'); did you mean 'critical'?"
    with pytest.raises(AlertError) as wrong:
        world.alerts.alert_processing_failure("a", "b", severity=given)
    assert str(wrong.value) == text
    ml_pipeline.reset()
    with ml_pipeline.override(strict=False):
        assert world.alerts.alert_processing_failure("other", "b", severity=given)
        assert [alert.severity for alert in world.alerts.history()] == ["warning", "warning"]
        assert _runtime.tally.telemetry_errors["alerting", "AlertError"] == 1
    assert capsys.readouterr().err.count(text) == 1


class _Vicious:
    def __repr__(self) -> str:
        raise RuntimeError("no")

    def __bool__(self) -> bool:
        raise RuntimeError("no")


class _ViciousError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "hostile",
    [
        "x\r\nBcc: evil@example.org\n\x1b[31m",
        "x" * 1_000_000,
        float("nan"),
        b"\xff\xfe",
        "\ud800",
        None,
        {"self": ...},
        _Vicious(),
        [[[[[object()]]]]] * 5000,
    ],
    ids=repr_or_type if (repr_or_type := lambda value: type(value).__name__) else None,
)
def test_whatever_is_said_is_one_whole_alert(world: World, hostile: Any) -> None:
    """In every place: one alert, within bounds, on one line of valid JSON."""
    world.alerts.alert_processing_failure(hostile, hostile, model=hostile, name=hostile, args=hostile, **{"…": hostile})
    (alert,) = world.alerts.history()
    assert len(alert.message) <= MOST_MESSAGE_CHARACTERS
    assert len(alert.operation) <= MOST_NAME_CHARACTERS
    assert len(encode(alert.details)) <= MOST_DETAIL_BYTES
    world.alerts.flush()
    lines = (_runtime.settings().log_dir / "alerts.json").read_bytes().splitlines()
    assert len(lines) == 3
    assert json.loads(lines[1]) == alert.to_dict()


def test_an_exception_that_cannot_be_printed(world: World) -> None:
    """Its class is known all the same."""
    world.alerts.alert_processing_failure("a", _ViciousError())
    assert world.alerts.history()[0].message == "a failed: _ViciousError"


def test_arguments_that_cannot_be_are_counted_not_raised(world: World) -> None:
    """Outside strict, a call that makes no sense costs a line on stderr, not the job."""
    with ml_pipeline.override(strict=False):
        broken: Any = 3
        assert world.alerts.alert_data_drift("m", broken) == ""
        assert world.alerts.alert_data_quality("c", dataset=_Vicious()) == ""  # type: ignore[arg-type]
        assert world.alerts.history(limit=0) == []
        assert not world.alerts.resolve("nobody")
        assert sum(_runtime.tally.telemetry_errors.values()) == 4


def test_without_a_store_log_and_metrics_still_learn_of_it(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """A store that cannot be opened is counted and said; every alert is published, and nothing is raised."""
    with ml_pipeline.override(strict=False):
        folder = _runtime.settings().data_dir
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.write_text("a file where the folder should be")
        assert world.alerts.alert_processing_failure("a", "b")
        assert world.alerts.history() == world.alerts.active() == []
        assert world.alerts.summary().alerts == 0
        assert not world.alerts.flush()
    assert world.states() == ["raised"]
    assert "alerting: NotADirectoryError" in capsys.readouterr().err or "FileExistsError" in capsys.readouterr().err


def test_secrets_are_in_no_alert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused login shows the password nowhere: not in the outbox, the history or on stderr."""
    secret = tmp_path / "password"
    secret.write_text("hunter2")
    mailbox = Mailbox()
    server = Server(mailbox, authenticator=lambda *_: None, auth_require_tls=False)
    server.start()
    ml_pipeline.configure(
        smtp_host="127.0.0.1", smtp_port=server.port, smtp_security="none", alert_email_from="a@example.org",
        alert_email_to="b@example.org", smtp_user="robot", smtp_password_file=secret,
    )  # fmt: skip
    alerts = AlertManager(bus=Bus(), on_delivery=lambda *_: None)
    alerts.alert_processing_failure("a", "b")
    alerts.flush()
    _runtime.shutdown()
    server.stop()
    files = [path for path in Path.cwd().rglob("*") if path.is_file()]
    assert any(path.name == "outbox.db" for path in files)
    assert not any(b"hunter2" in path.read_bytes() for path in files)
    assert "hunter2" not in capsys.readouterr().err


# Delivery


def test_an_alert_is_mailed_where_the_settings_name_a_server() -> None:
    """The default channel: what is raised arrives, with no call but the alert's own."""
    mailbox = Mailbox()
    server = Server(mailbox)
    server.start()
    ml_pipeline.configure(
        smtp_host="127.0.0.1", smtp_port=server.port, smtp_security="none", alert_email_from="a@example.org",
        alert_email_to="b@example.org",
    )  # fmt: skip
    alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")
    ((envelope, mail),) = eventually(lambda: mailbox.received)
    assert envelope.rcpt_tos == ["b@example.org"]
    assert "data_ingestion failed: Connection timeout" in mail["Subject"]
    server.stop()


def test_a_server_that_comes_back_gets_every_alert_once(world: World) -> None:
    """While it is down nothing is lost; ten minutes later each alert arrives, under the id of its first attempt."""
    world.pager.failures = [ConnectionRefusedError("down")] * 1000
    for name in ("a", "b"):
        world.alerts.alert_processing_failure(name, "x")
    for _ in range(60):
        world.alerts.flush()
        world.clock.now += 10
    world.pager.failures = []
    world.clock.now += 3600
    assert world.alerts.flush()
    assert sorted(message.alert.operation for message in world.pager.sent) == ["a", "b"]
    results = [result for _, result, _ in world.attempts]
    assert (results.count("sent"), results.count("dead")) == (2, 0)
    assert 6 <= results.count("failed") / 2 <= 12, "exponential: about nine attempts in ten minutes"


def test_what_a_killed_process_said_the_next_one_delivers(isolated: Path) -> None:
    """`kill -9` right after the call returned: the alert is in the store, and the next start delivers it."""
    script = (
        "import os, signal\n"
        "from ml_pipeline.config._events import Bus\n"
        "from ml_pipeline.config.alerting import AlertManager\n"
        "class Never:\n"
        "    name = 'pager'\n"
        "    def send(self, message): signal.pause()\n"
        "AlertManager(channels=[Never()], bus=Bus()).alert_processing_failure('data_ingestion', 'Connection timeout')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (-9, "")
    world = World()
    world.clock.now = 4_000_000_000.0  # past any lease of the killed process
    world.bus.publish(OperationEvent(type="start", kind="training", name="t"))
    eventually(lambda: world.pager.sent)
    world.alerts.flush()
    (message,) = world.pager.sent
    assert (message.alert.operation, message.alert.held_back) == ("data_ingestion", 2)
    (entry,) = json.loads((_runtime.settings().log_dir / "alerts.json").read_text())
    assert entry["alert_id"] == message.alert.alert_id


def test_the_job_waits_for_no_server(world: World) -> None:
    """A channel that hangs keeps no caller waiting, and the end of the process only for its time."""
    ml_pipeline.configure(smtp_timeout_seconds=0.2)
    hung = threading.Event()

    def hang(message: AlertMessage) -> None:
        hung.wait(message.timeout_seconds)
        raise TimeoutError("silence")

    world.pager.send = hang  # type: ignore[method-assign]
    for index in range(20):
        world.alerts.alert_processing_failure(f"o{index}", "x")
    assert len(world.alerts.history()) == 20
    _runtime.shutdown()
    assert len(world.attempts) <= 3
    assert world.manager().summary().deliveries["pager"]["pending"] == 20


def test_at_the_end_of_the_process_what_is_due_goes_out(isolated: Path) -> None:
    """A script whose last act is an alert delivers it and writes the history before it ends."""
    mailbox = Mailbox()
    server = Server(mailbox)
    server.start()
    ml_pipeline.configure(
        smtp_host="127.0.0.1", smtp_port=server.port, smtp_security="none", alert_email_from="a@example.org",
        alert_email_to="b@example.org",
    )  # fmt: skip
    script = (
        "from ml_pipeline.config._events import Bus\n"
        "from ml_pipeline.config.alerting import AlertManager\n"
        "AlertManager(bus=Bus()).alert_processing_failure('data_ingestion', 'Connection timeout')\n"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False)
    server.stop()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(mailbox.received) == 1
    (entry,) = json.loads((_runtime.settings().log_dir / "alerts.json").read_text())
    assert list(entry) == KEYS
    assert (entry["operation"], entry["state"], entry["count"]) == ("data_ingestion", "raised", 1)


def test_a_port_where_nobody_listens_costs_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The alert is kept for later, the failure said once and counted at each attempt."""
    ml_pipeline.configure(
        smtp_host="127.0.0.1", smtp_port=free_port(), smtp_security="none", alert_email_from="a@example.org",
        alert_email_to="b@example.org",
    )  # fmt: skip
    clock = Clock()
    alerts = AlertManager(bus=Bus(), clock=clock, on_delivery=lambda *_: None)
    alerts.alert_processing_failure("a", "b")
    for _ in range(2):
        alerts.flush()
        clock.now += 100
    assert alerts.summary().deliveries == {"email": {"pending": 1}}
    assert capsys.readouterr().err.count("ConnectionRefusedError") == 1
    assert _runtime.tally.telemetry_errors["alerting", "ConnectionRefusedError"] == 2


# Bounds


@given(st.dictionaries(st.text(max_size=50), st.text(max_size=9_000) | st.floats() | st.lists(st.text(max_size=500))))
def test_details_always_fit(details: dict[str, Any]) -> None:
    """Whatever is given, its JSON is within the bound, and what fits by itself is whole."""
    kept = bounded_details(details)
    assert len(encode(kept)) <= MOST_DETAIL_BYTES
    assert len(details) == len(kept) or "…" in kept


@given(st.text(), st.integers(1, 50))
def test_a_name_is_one_short_line(text: str, most: int) -> None:
    """Never longer than asked for, and never with a character that ends a line."""
    shown = bounded_text(text, most)
    assert len(shown) <= most
    assert len(shown.splitlines()) <= 1


def test_an_alert_as_a_dictionary_has_the_keys_of_the_file() -> None:
    """In the order of the documentation, times as RFC 3339."""
    alert = Alert(alert_id="a", time=0.0, last_time=0.5, kind="k", severity="info", pipeline="p", message="m")
    assert list(alert.to_dict()) == KEYS
    assert (alert.to_dict()["time"], alert.to_dict()["last_time"]) == (
        "1970-01-01T00:00:00.000000Z",
        "1970-01-01T00:00:00.500000Z",
    )
