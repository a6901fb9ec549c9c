"""The short way of an audit record: the same line as by the detour, and only where nobody else takes it."""

from __future__ import annotations

import json
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _context, _log_events
from ml_pipeline.config._alert_rules import AlertRule
from ml_pipeline.config._audit import AuditTrail
from ml_pipeline.config._audit_chain import record_bodies
from ml_pipeline.config._events import DEFAULT_BUS, AuditEvent
from ml_pipeline.config.alerting import alert_manager
from ml_pipeline.config.logging_config import AuditLogger, audit_logger, log_operation
from ml_pipeline.errors import OperationStateError
from ml_pipeline.testing.fakes import CapturedEvents
from tests.config.test_log_fast import IDS, MESSAGES, MOMENTS, PLAIN
from tests.processes import in_fork, python_answer

TRAIL = Path("ml_pipeline/logs/audit.log")


@pytest.fixture
def detour(monkeypatch: pytest.MonkeyPatch) -> list[logging.LogRecord]:
    """The records that took the detour, after the one that every sink is told of."""
    audit_logger.info("first")
    seen: list[logging.LogRecord] = []
    publish = _log_events.publish_audit_record

    def spy(record: logging.LogRecord) -> None:
        seen.append(record)
        publish(record)

    monkeypatch.setattr(_log_events, "publish_audit_record", spy)
    return seen


def _lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in TRAIL.read_bytes().splitlines()] if TRAIL.exists() else []


def _both_ways(action: Callable[[], object], moment: float) -> list[tuple[str, list[bytes]]]:
    """What a log call gave the trail, or raised, where nobody else takes it, and where somebody does."""
    outcomes = []
    for listening in (lambda _: False, lambda _: True):
        written: list[bytes] = []
        end = DEFAULT_BUS.subscribe("listening", lambda _: None, listening)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(AuditTrail, "append", lambda _, fields, to=written: to.extend(record_bodies((fields,))))
            patch.setattr(AuditTrail, "append_encoded", lambda _, body, to=written: to.append(body))
            patch.setattr("logging.time.time", lambda: moment)
            _, error = _runtime.attempt(action)
        end()
        outcomes.append((f"{type(error).__name__}: {error}" if error else "", written))
    return outcomes


class _Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no")


class _Text(str):
    """A text of a class of its own."""

    __slots__ = ()


NAMES = st.text(max_size=8) | st.sampled_from(
    [
        "rows",
        "password",
        "name",
        "message",
        "ml_pipeline",
        "result",
        "object",
        "version",
        "action",
        "given",
        "operation",
        "exception",
        "user_id",
        "é",
    ]
)
OTHER = st.sampled_from(
    [[1], (1,), {}, {"password": "x"}, {"type": "E"}, {1: 2**53}, b"x", _Unprintable(), Path("a"), "x" * 9_000, _Text()]
)
FIELDS = st.dictionaries(NAMES, PLAIN | OTHER, max_size=6)
NOTHING_AROUND: Any = dict.fromkeys(_context.VARIABLES)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    message=MESSAGES | st.sampled_from([5, None, _Text("m"), ValueError("m")]),
    args=st.lists(PLAIN | OTHER, max_size=2),
    fields=FIELDS,
    how=st.sampled_from(["raw", "given", "none", "both", "by hand"]),
    carried=st.none() | FIELDS,
    ids=st.fixed_dictionaries(dict.fromkeys(_context.VARIABLES, IDS)),
    operation=IDS | PLAIN | OTHER,
    user=IDS | PLAIN | OTHER,
    level=st.sampled_from([logging.INFO, logging.ERROR, 35, 0, True]),
    moment=MOMENTS,
)
@example("m", [], {"operation": "raw"}, "raw", None, NOTHING_AROUND, None, None, logging.INFO, 1.0)
@example("m", [], {"operation": ""}, "raw", {"operation": "carried"}, NOTHING_AROUND, "", "", logging.INFO, 1.0)
@example("m", [], {"action": "", "given": {}}, "given", None, NOTHING_AROUND, None, None, logging.INFO, 1.0)
@example("m", [], {"action": 1, "given": 2}, "given", {"given": 3}, NOTHING_AROUND, None, None, logging.INFO, 1.0)
@example("m", [], {"exception": {"type": "E"}}, "given", None, NOTHING_AROUND, None, None, logging.INFO, 1.0)
@example("m", [], {}, "none", {"ml_pipeline": 1, "result": None}, NOTHING_AROUND, None, None, logging.INFO, 1.0)
@example("m", [], {"n": 2**53}, "given", None, NOTHING_AROUND, None, None, logging.INFO, 1.0)
@example("m", [], {"n": 2**60, "m": {"n": -(2**53)}}, "given", None, NOTHING_AROUND, None, None, logging.INFO, 1.0)
@example("m", [], {"rows": 1}, "both", None, NOTHING_AROUND, 7, 0, logging.INFO, 1_700_000_000.0078125)
def test_both_ways_write_the_same_bytes(  # noqa: PLR0917 - drawn by name
    message: Any,
    args: list[Any],
    fields: dict[str, Any],
    how: str,
    carried: dict[str, Any] | None,
    ids: dict[str, str | None],
    operation: Any,
    user: Any,
    level: int,
    moment: float,
) -> None:
    """Whatever is logged, and whatever it raises, in one thread, at one moment."""
    made = log_operation(operation, user, **{k: v for k, v in fields.items() if k not in {"operation", "user_id"}})
    extra = {
        "raw": fields,
        "given": made,
        "none": None,
        "both": {**fields, **made},
        "by hand": {"ml_pipeline": fields},
    }[how]
    around, token = _context.restore(ids), _context.fields.set(carried)
    try:
        short, long = _both_ways(lambda: audit_logger.log(level, message, *args, extra=extra), moment)
    finally:
        _context.fields.reset(token)
        _context.undo(around)
    assert short == long
    assert bool(short[0]) is not (len(short[1]) == 1)


CALLS: list[Callable[[], object]] = [
    lambda: audit_logger.info("plain"),
    lambda: audit_logger.warning("with %s and %d", "arguments", 3),
    lambda: audit_logger.debug("fields", extra={"rows": [1], "score": 0.5, "ok": True, "password": "hunter2"}),
    lambda: audit_logger.error("given", extra=log_operation("train", "ann", object="model", version="2", rows=1)),
    lambda: audit_logger.critical("both", extra={**log_operation("train", action="mine"), "ticket": 7}),
    lambda: audit_logger.log(1, "by level"),
    lambda: logging.LoggerAdapter(audit_logger, {"rows": 1}).info("by an adapter"),
    lambda: audit_logger.bind(user_id="ann", rows=1).info("bound"),
    lambda: audit_logger.info(""),
]


@pytest.mark.parametrize("call", CALLS)
def test_plain_records_take_the_short_way(call: Callable[[], object], detour: list[logging.LogRecord]) -> None:
    """And the line is that of the detour."""
    with audit_logger.contextualize(study="ADNI", user_id="eve"):
        short, long = _both_ways(call, 1_700_000_000.25)
        assert short == long
        assert len(detour) == 1
        call()
    assert len(detour) == 1
    assert len(_lines()) == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: audit_logger.info("m", exc_info=ValueError("x")),
        lambda: audit_logger.exception("m"),
        lambda: audit_logger.info("m", stack_info=True),
        lambda: audit_logger.info("m", stacklevel=2),
        lambda: audit_logger.info("%(a)s", {"a": 1}),
        lambda: audit_logger.info("%s", [1]),
        lambda: audit_logger.info("%d", "x"),
        lambda: audit_logger.info(ValueError("m")),
        lambda: audit_logger.info("m", extra={"ml_pipeline": 1}),
        lambda: audit_logger.info("m", extra={_Text("rows"): 1}),
        lambda: audit_logger.log(True, "m"),
    ],
)
def test_other_records_take_the_detour(call: Callable[[], object], detour: list[logging.LogRecord]) -> None:
    """Exceptions, stacks, objects; nothing is written twice."""
    call()
    assert len(detour) == 1
    assert len(_lines()) == 2


@pytest.mark.parametrize("extra", [{"name": 1}, {"message": "x"}, {"asctime": 1}, 5])
def test_an_extra_that_logging_refuses_is_refused(extra: Any) -> None:
    """With the error of `logging`, and no line."""
    short, long = _both_ways(lambda: audit_logger.info("m", extra=extra), 1.0)
    assert short == long
    assert short[0].startswith(("KeyError", "TypeError"))


def test_what_no_log_call_takes_is_refused() -> None:
    """As `logging` does."""
    with pytest.raises(TypeError, match="unexpected keyword argument 'rows'"):
        audit_logger.info("m", rows=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="level must be an integer"):
        audit_logger.log("INFO", "m")  # type: ignore[arg-type]


def test_whoever_takes_audit_events_gets_them_from_the_next_one_on(detour: list[logging.LogRecord]) -> None:
    """A subscriber is noticed when it comes, and forgotten when it goes; one of other events is none."""
    audit_logger.info("before")
    with CapturedEvents() as captured:
        audit_logger.info("while")
    audit_logger.info("after")
    end = DEFAULT_BUS.subscribe("others", lambda _: None, lambda kind: kind is not AuditEvent)
    audit_logger.info("not for them")
    end()
    assert [(type(event), event.action) for event in captured] == [(AuditEvent, "while")]  # type: ignore[union-attr]
    assert [record.getMessage() for record in detour] == ["while"]
    assert [line["message"] for line in _lines()] == ["first", "before", "while", "after", "not for them"]


def test_a_rule_on_audit_events_is_judged(detour: list[logging.LogRecord]) -> None:
    """As long as there is one."""
    alert_manager.add_rule(AlertRule(name="Refused", on="audit", value="result", equals="denied", kind="security"))
    try:
        audit_logger.info("access", extra=log_operation(result="denied"))
    finally:
        assert [alert.name for alert in alert_manager.active()] == ["Refused"]
        alert_manager.remove_rule("Refused")
    audit_logger.info("access", extra=log_operation(result="denied"))
    assert len(detour) == 1
    assert [line["context"]["result"] for line in _lines()] == ["success", "denied", "denied"]


def test_every_sink_hears_of_the_first_record_after_it_was_closed(detour: list[logging.LogRecord]) -> None:
    """The metrics of a pipeline exist from then on, and alerts that wait are delivered."""
    name = f"audited {uuid.uuid4()}"
    labels = {"pipeline": name, "kind": "training", "status": "fail"}
    _runtime.shutdown()
    ml_pipeline.configure(name=name)
    assert REGISTRY.get_sample_value("ml_pipeline_operations_total", labels) is None
    audit_logger.info("one")
    assert REGISTRY.get_sample_value("ml_pipeline_operations_total", labels) == 0
    audit_logger.info("two")
    _runtime.shutdown()
    audit_logger.info("three")
    audit_logger.info("four")
    assert [record.getMessage() for record in detour] == ["one", "three"]
    assert [line["message"] for line in _lines()] == ["first", "one", "two", "three", "four"]
    assert [line["pipeline"] for line in _lines()] == ["test", *[name] * 4]


def test_a_fork_tells_its_own_sinks(detour: list[logging.LogRecord]) -> None:
    """A child's first record is that of its own process."""

    def in_child() -> list[str]:
        audit_logger.info("child")
        audit_logger.info("child again")
        return [record.getMessage() for record in detour]

    assert in_fork(in_child) == ["child"]
    first, second = (line for line in _lines() if line["message"].startswith("child"))
    assert first["process"] == second["process"] != os.getpid()


def test_a_record_factory_is_asked(detour: list[logging.LogRecord]) -> None:
    """What it adds is on the line, and the place it is told is that of the call, by any call."""

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **kwargs)
        record.host = "here"
        return record

    logging.setLogRecordFactory(factory)
    try:
        audit_logger.info("made")
        audit_logger.log(5, "made")
        audit_logger.log(True, "made")
        audit_logger.exception("made")
        audit_logger.bind(rows=1).info("made")
    finally:
        logging.setLogRecordFactory(logging.LogRecord)
    audit_logger.info("plain")
    assert [line["context"].get("host") for line in _lines()] == [None, *["here"] * 5, None]
    assert {(record.pathname, record.funcName) for record in detour} == {(__file__, "test_a_record_factory_is_asked")}
    assert len({record.lineno for record in detour}) == 5


def test_stacks_begin_at_the_call() -> None:
    """None of our own functions is in them."""
    audit_logger.info("m", stack_info=True)
    (line,) = _lines()
    stack = line["context"]["stack_info"].splitlines()
    assert "test_stacks_begin_at_the_call" in stack[-2]
    assert "/_audit_calls.py" not in line["context"]["stack_info"]


@pytest.fixture(params=["short", "detour"])
def way(request: pytest.FixtureRequest) -> Iterator[str]:
    """Both ways, one after the other."""
    if request.param == "short":
        yield request.param
    else:
        with CapturedEvents():
            yield request.param


def _failing(patch: pytest.MonkeyPatch) -> None:
    audit_logger.info("first")

    def fail(self: AuditTrail, record: Any) -> None:
        raise OSError("disk full")

    patch.setattr(AuditTrail, "append", fail)
    patch.setattr(AuditTrail, "append_encoded", fail)


@pytest.mark.usefixtures("way")
def test_a_failing_disk_is_counted_and_said_and_not_raised(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """By default, and by both ways."""
    ml_pipeline.configure(strict=False)
    _failing(monkeypatch)
    audit_logger.info("lost")
    audit_logger.info("lost")
    assert _runtime.tally.log_records_dropped == {"audit OSError": 2}
    assert _runtime.tally.telemetry_errors == {("audit", "OSError"): 2}
    assert _runtime.tally.audit_records == 1
    assert capsys.readouterr().err.count("ml_pipeline: audit: OSError: disk full") == 1


@pytest.mark.usefixtures("way")
def test_a_failing_disk_is_raised_where_telemetry_is_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """And counted."""
    _failing(monkeypatch)
    with pytest.raises(OSError, match="disk full"):
        audit_logger.info("lost")
    assert _runtime.tally.telemetry_errors == {("logging_config", "OSError"): 1, ("audit", "OSError"): 1}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("strict", [True, False])
def test_a_required_record_that_cannot_be_written_stops_the_caller(
    monkeypatch: pytest.MonkeyPatch, *, strict: bool
) -> None:
    """With AUDIT_REQUIRED, whatever STRICT says."""
    ml_pipeline.configure(strict=strict, audit_required=True)
    _failing(monkeypatch)
    with pytest.raises(OperationStateError, match="an operation that cannot be audited does not run"):
        audit_logger.info("lost")
    assert _runtime.tally.telemetry_errors == {("audit", "OSError"): 1}


def test_calls_of_another_class_stay_in_front() -> None:
    """A logger that someone made before us keeps the calls of its class, and takes the detour."""
    answer = python_answer(
        "import json, logging\n"
        "class Loud(logging.Logger):\n"
        "    def info(self, msg, *args, **kwargs): super().info(str(msg).upper(), *args, **kwargs)\n"
        "logging.setLoggerClass(Loud)\n"
        "from ml_pipeline.config.logging_config import AuditLogger, audit_logger\n"
        "audit_logger.info('loud'); audit_logger.warning('as it is')\n"
        "logged = [json.loads(line)['message'] for line in open('ml_pipeline/logs/audit.log')]\n"
        "print(json.dumps([isinstance(audit_logger, AuditLogger), logged]))\n"
    )
    assert answer == [True, ["LOUD", "as it is"]]
    assert isinstance(audit_logger, AuditLogger)


def test_records_of_many_threads_name_their_own(detour: list[logging.LogRecord]) -> None:
    """Each line says which thread and user it is of."""

    def work(number: int) -> None:
        with audit_logger.contextualize(user_id=f"u{number}"):
            for _ in range(5):
                audit_logger.info("worked", extra=log_operation(worker=number))

    threads = [threading.Thread(target=work, args=(number,), name=f"t{number}") for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = [(line["thread"], line["user_id"], line["context"]["worker"]) for line in _lines()[1:]]
    assert sorted(told) == sorted((f"t{n}", f"u{n}", n) for n in range(8) for _ in range(5))
    assert not detour


def test_a_record_inside_a_record() -> None:
    """Auditing in a signal handler and in ``__del__``, in the midst of other records: no deadlock, all are there."""
    counts = python_answer(
        "import gc, json, signal\n"
        "from ml_pipeline.config.logging_config import audit_logger\n"
        "class Dying:\n"
        "    def __del__(self): audit_logger.info('died')\n"
        "told = []\n"
        "def tell(*_): told.append(1); audit_logger.info('signal')\n"
        "signal.signal(signal.SIGALRM, tell)\n"
        "audit_logger.info('first')\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.005, 0.005)\n"
        "for number in range(200):\n"
        "    a, b = Dying(), Dying()\n"
        "    a.other, b.other = b, a\n"
        "    audit_logger.info('%d', number)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0)\n"
        "del a, b\n"
        "gc.collect()\n"
        "logged = [json.loads(line)['message'] for line in open('ml_pipeline/logs/audit.log')]\n"
        "plain = [int(each) for each in logged if each.isdigit()]\n"
        "print(json.dumps([logged.count('died'), plain == list(range(200)), logged.count('signal') == len(told)]))\n"
    )
    assert counts == [400, True, True]
