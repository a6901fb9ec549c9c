"""Alerts as users meet them: what they call, what they ask, and what they do wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._alert_records import (
    MOST_DETAIL_BYTES,
    MOST_MESSAGE_CHARACTERS,
    MOST_NAME_CHARACTERS,
    Occurrence,
    bounded_details,
    bounded_text,
)
from ml_pipeline.config._alert_sqlite import SqliteAlertStore
from ml_pipeline.config._encoding import encode
from ml_pipeline.config._ids import new_id
from ml_pipeline.config.alerting import Alert, AlertManager, alert_manager
from ml_pipeline.errors import AlertError
from tests.config.alerting_world import (
    World,
    inside,
)

KEYS = [
    "alert_id", "time", "state", "kind", "severity", "pipeline", "operation", "operation_id", "run_id", "user_id",
    "model", "feature", "error_type", "message", "count", "held_back", "last_time", "details", "name",
    "labels", "runbook", "acknowledged_by", "acknowledged_time", "escalated", "muted",
]  # fmt: skip


@pytest.fixture
def world() -> World:
    """Return a world where nothing has happened yet."""
    return World()


# What users call


def test_the_promised_call_works_as_written() -> None:
    """The default manager takes the call of the documentation and keeps the alert."""
    alert_id = alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")
    (alert,) = alert_manager.history()
    assert (alert.alert_id, alert.pipeline, alert.operation) == (alert_id, "test", "data_ingestion")
    assert (alert.kind, alert.severity, alert.error_type) == ("processing_failure", "critical", "")
    assert alert.name == "IngestionErrors"
    assert alert.message == "data_ingestion failed: Connection timeout"
    assert alert_manager.active() == [alert]


def test_an_exception_brings_its_type_and_traceback(world: World) -> None:
    """Given the exception itself, the alert has its class, its message and where it was raised."""
    try:
        raise TimeoutError("Connection timeout")  # noqa: TRY301 - an exception that was raised, with its traceback
    except TimeoutError as error:
        world.alerts.alert_processing_failure("data_ingestion", error, model="m", host="db1", nothing=None)
    (alert,) = world.alerts.history()
    assert (alert.error_type, alert.model) == ("TimeoutError", "m")
    assert alert.message == "data_ingestion failed: TimeoutError: Connection timeout"
    assert "raise TimeoutError" in alert.details["stacktrace"]
    assert {**alert.details, "stacktrace": ""} == {"stacktrace": "", "host": "db1"}


@pytest.mark.parametrize(
    ("say", "kind", "wanted", "details"),
    [
        (
            lambda alerts: alerts.alert_resource_threshold("memory", 0.951, 0.9, unit="ratio", free=3),
            "resource_threshold",
            ("memory", "memory is 0.951, threshold 0.9 (ratio)"),
            {"value": 0.951, "threshold": 0.9, "unit": "ratio", "free": 3},
        ),
        (
            lambda alerts: alerts.alert_resource_threshold("cpu", float("nan"), "much"),
            "resource_threshold",
            ("cpu", "cpu is nan, threshold much"),
            {"value": "NaN", "threshold": "much"},
        ),
        (
            lambda alerts: alerts.alert_data_quality("age_not_null", dataset="ADNI", failed=3, total=100),
            "data_quality",
            ("ADNI: age_not_null", "ADNI: age_not_null failed for 3 of 100"),
            {"check": "age_not_null", "dataset": "ADNI", "failed": 3, "total": 100},
        ),
        (
            lambda alerts: alerts.alert_data_quality("unique", failed=3, message="Ids are not unique"),
            "data_quality",
            ("unique", "Ids are not unique"),
            {"check": "unique", "failed": 3},
        ),
        (
            lambda alerts: alerts.alert_data_quality("unique", failed=3),
            "data_quality",
            ("unique", "unique failed for 3"),
            {"check": "unique", "failed": 3},
        ),
        (
            lambda alerts: alerts.alert_model_performance("m", "roc_auc", 0.71, 0.8, basis="realised"),
            "model_performance",
            ("roc_auc", "m: roc_auc is 0.71, threshold 0.8"),
            {"value": 0.71, "threshold": 0.8, "basis": "realised"},
        ),
        (
            lambda alerts: alerts.alert_data_drift("m", "age", effect=0.3, batch="b1"),
            "data_drift",
            ("age", "m: drift in age (b1)"),
            {"features": ["age"], "effect": 0.3, "batch": "b1"},
        ),
        (
            lambda alerts: alerts.alert_data_drift("m", ("a", "b", "c", "d", "e", "f")),
            "data_drift",
            ("", "m: drift in a, b, c, d, e and 1 more"),
            {"features": ["a", "b", "c", "d", "e", "f"]},
        ),
        (
            lambda alerts: alerts.alert_data_drift("m", []),
            "data_drift",
            ("", "m: drift in its data"),
            {"features": []},
        ),
    ],
)
def test_what_is_measured_is_said_in_a_sentence(
    world: World, say: Callable[[AlertManager], str], kind: str, wanted: tuple[str, str], details: dict[str, Any]
) -> None:
    """Each call of the other four makes a warning with a sentence for people and the facts for programs."""
    say(world.alerts)
    (alert,) = world.alerts.history()
    assert (alert.kind, alert.severity, alert.details) == (kind, "warning", details)
    assert (alert.feature, alert.message) == wanted


def test_an_alert_carries_the_context_it_is_said_in(world: World) -> None:
    """Operation, run and user come from the caller's context, and what is passed wins."""
    with inside(operation="model_training", operation_id="op", run_id="run", user_id="ada"):
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


def test_what_is_over_is_resolved_by_its_identity(world: World) -> None:
    """All parts that are given must match; each alert is published as resolved, and what is none of it stays open."""
    age = world.alerts.alert_data_drift("m", "age")
    sex = world.alerts.alert_data_drift("m", "sex")
    failed = world.alerts.alert_processing_failure("a", "b")
    assert world.alerts.clear("data_drift", "test", model="other") == []
    assert world.alerts.clear("data_drift", "elsewhere") == []
    assert world.alerts.clear("data_drift", "test", feature="age", name="DataDrift") == [age]
    assert world.alerts.clear("data_drift", "test", feature="age") == []
    assert [alert.alert_id for alert in world.alerts.active()] == [failed, sex]
    assert world.states() == ["raised"] * 3 + ["resolved"]


def test_a_rule_of_the_users_is_part_of_the_identity(world: World) -> None:
    """Two rules about one value are two alerts, each with its own cooldown, labels and page."""
    settings: dict[str, Any] = {"kind": "data_drift", "severity": "warning", "pipeline": "test", "message": "m"}

    def say(name: str, time: float, cooldown: float | None = None) -> str:
        alert = Alert(
            alert_id=new_id(), time=time, last_time=time, name=name, labels={"team": "a"}, runbook="r", **settings
        )
        return world.alerts.say(Occurrence(alert=alert, cooldown_seconds=cooldown))

    now = world.clock.now
    first = say("AgeDrifts", now)
    assert say("SexDrifts", now) != first
    assert say("AgeDrifts", now + 299) == first
    assert say("AgeDrifts", now + 299, cooldown=60) != first
    assert {(alert.labels["team"], alert.runbook) for alert in world.alerts.history()} == {("a", "r")}
    assert len(world.alerts.clear("data_drift", "test", name="AgeDrifts")) == 1


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


def test_channels_have_names_of_their_own(world: World) -> None:
    """Two channels of one name could not be told apart in the outbox: an error before any work starts."""
    with pytest.raises(AlertError) as wrong:
        AlertManager(channels=[world.pager, world.pager])
    assert str(wrong.value) == (
        "each alert channel must have a name of its own (got ['pager', 'pager']); rename one of them"
    )


def test_a_store_of_ones_own_writes_no_file(world: World) -> None:
    """A manager with a store in memory keeps its alerts there, and delivers them, without touching the disk."""
    store = SqliteAlertStore(":memory:")
    alerts = AlertManager(store, channels=[world.pager], bus=world.bus, on_delivery=lambda *_: None)
    alert_id = alerts.alert_processing_failure("a", "b")
    assert alerts.flush()
    assert [message.alert.alert_id for message in world.pager.sent] == [alert_id]
    _runtime.shutdown()
    assert [alert.alert_id for alert in alerts.history()] == [alert_id], "what was given is not closed"
    assert [path for path in Path.cwd().rglob("*") if path.is_file()] == []
    store.close()


# What users do wrong, and what goes wrong


def test_an_unknown_severity_is_recorded_as_a_warning(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The alert is kept; the mistake is counted, said once, and raised only under strict."""
    given: Any = "critcal"
    text = "a severity must be one of the known ones (got 'critcal'); did you mean 'critical'?"
    with ml_pipeline.override(strict=False):
        assert world.alerts.alert_processing_failure("a", "b", severity=given)
        assert [alert.severity for alert in world.alerts.history()] == ["warning"]
        assert _runtime.tally.telemetry_errors["alerting", "AlertError"] == 1
    assert capsys.readouterr().err.count(text) == 1
    with pytest.raises(AlertError) as wrong:
        world.alerts.alert_processing_failure("other", "b", severity=given)
    assert str(wrong.value) == text
    assert len(world.alerts.history()) == 2


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
    ids=lambda value: type(value).__name__,
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
    assert world.alerts.history()[0].message == "a failed: _ViciousError: <RuntimeError when printed>"


def test_arguments_that_cannot_be_are_counted_not_raised(world: World) -> None:
    """Outside strict, a call that makes no sense costs a line on stderr, not the job."""
    with ml_pipeline.override(strict=False):
        broken: Any = 3
        assert world.alerts.alert_data_drift("m", broken) == ""
        assert world.alerts.alert_data_quality("c", dataset=_Vicious()) == ""  # type: ignore[arg-type]
        assert world.alerts.history(limit=0) == []
        assert not world.alerts.resolve("nobody")
        assert sum(_runtime.tally.telemetry_errors.values()) == 4


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda alerts: alerts.alert_processing_failure(op="x"), "missing a required argument: 'operation'"),
        (lambda alerts: alerts.alert_data_quality(), "missing a required argument: 'check'"),
        (lambda alerts: alerts.alert_data_drift("m", "a", 0.3), "too many positional arguments"),
    ],
)
def test_arguments_that_do_not_fit_are_an_error_of_the_caller(
    world: World, call: Callable[[AlertManager], str], text: str
) -> None:
    """A call that no signature takes raises, as any function's does, strict or not; nothing is counted."""
    with ml_pipeline.override(strict=False):
        with pytest.raises(TypeError, match=f"^{text}$"):
            call(world.alerts)
        assert not _runtime.tally.telemetry_errors


def test_a_store_that_cannot_be_opened_costs_no_alert(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """It is counted and said; every alert is published and delivered, and nothing is raised."""
    with ml_pipeline.override(strict=False):
        folder = _runtime.settings().data_dir
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.write_text("a file where the folder should be")
        alert_id = world.alerts.alert_processing_failure("a", "b")
        assert [alert.alert_id for alert in world.alerts.history()] == [alert_id]
        assert world.alerts.summary().alerts == 1
        world.alerts.flush()
    assert world.states() == ["raised"]
    assert [message.alert.alert_id for message in world.pager.sent] == [alert_id]
    assert "ml_pipeline: alerting: " in capsys.readouterr().err


@pytest.mark.parametrize(
    "url", ["postgresql://ada:hunter2@db.example.org/x", "https://example.org/p?a=1&token=hunter2"]
)
def test_credentials_in_urls_are_hidden(world: World, url: str) -> None:
    """An exception often tells where it could not connect to, and with what: nobody reads that in a mail."""
    error = ConnectionError(f"cannot reach {url} now")
    alert_id = world.alerts.alert_processing_failure("a", error, model=url, source=[{"url": url}])
    alert = world.alerts.get(alert_id)
    assert alert is not None
    assert "hunter2" not in str(alert.to_dict())
    assert "example.org" in alert.message


# Bounds


@given(st.dictionaries(st.text(max_size=50), st.text(max_size=9_000) | st.floats() | st.lists(st.text(max_size=500))))
def test_details_always_fit(details: dict[str, Any]) -> None:
    """Whatever is given, its JSON is within the bound, and what fits by itself is whole."""
    kept = bounded_details(details)
    assert len(encode(kept)) <= MOST_DETAIL_BYTES
    assert len(details) == len(kept) or "…" in kept


def test_details_that_cannot_even_be_named_are_counted() -> None:
    """A name longer than the room that is left ends the details, with how many are missing."""
    names = [f"{index}".ljust(8_000, "x") for index in range(5)]
    kept = bounded_details(dict.fromkeys(names, 1))
    assert kept == {names[0]: 1, names[1]: 1, "…": "3 more"}


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
