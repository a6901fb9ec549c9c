"""The short way of a record: the same bytes as the long one, and only where nobody else listens."""

from __future__ import annotations

import json
import logging
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _context, _log_fast
from ml_pipeline.config._encoding import rfc3339
from ml_pipeline.config._log_outlet import Outlet
from ml_pipeline.config.logging_config import get_logger, log_operation, main_logger

LOGS = Path("ml_pipeline/logs")


@contextmanager
def root_handlers(*handlers: logging.Handler) -> Iterator[None]:
    """Have the root logger hold these handlers alone; pytest's own would take every record the long way."""
    root = logging.getLogger()
    before, root.handlers = root.handlers, list(handlers)
    try:
        yield
    finally:
        root.handlers = before


@pytest.fixture
def long_way(monkeypatch: pytest.MonkeyPatch) -> list[logging.LogRecord]:
    """The records that went the long way."""
    seen: list[logging.LogRecord] = []
    write = Outlet.write

    def spy(self: Outlet, record: logging.LogRecord) -> None:
        seen.append(record)
        write(self, record)

    monkeypatch.setattr(Outlet, "write", spy)
    return seen


class Kept(logging.Handler):
    """Keeps the records it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.records.append(record)


def _lines(name: str = "ml_pipeline.log") -> list[dict[str, Any]]:
    path = LOGS / name
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def _both_ways(action: Callable[[], object], moment: float, name: str = "ml_pipeline.log") -> list[tuple[str, bytes]]:
    """What a log call wrote, or raised, where nobody else listens, and where somebody does."""
    outcomes = []
    before = sys.modules["time"].time
    for handlers in ([], [Kept()]):
        written = (LOGS / name).stat().st_size if (LOGS / name).exists() else 0
        with root_handlers(*handlers), pytest.MonkeyPatch.context() as patch:
            patch.setattr("logging.time.time", lambda: moment)
            _, error = _runtime.attempt(action)
        content = (LOGS / name).read_bytes() if (LOGS / name).exists() else b""
        outcomes.append((f"{type(error).__name__}: {error}" if error else "", content[written:]))
    assert sys.modules["time"].time is before
    return outcomes


class _Unprintable:
    def __repr__(self) -> str:
        raise ValueError("no")


NAMES = st.text(max_size=8) | st.sampled_from(
    ["rows", "password", "name", "args", "message", "ml_pipeline", "taskName", "timestamp", "stack_info", "a\x7fb", "é"]
)
PLAIN = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**53 - 2, 2**53 + 2)
    | st.floats()
    | st.text(max_size=20)
    | st.text(st.sampled_from('ab\x7f\x80\u2028\u202e\ud800\n\x1b"\\'), max_size=6)
)
OTHER = st.sampled_from([[1], (1,), {"password": "x"}, b"x", _Unprintable(), Path("a"), True, "x" * 9_000])
FIELDS = st.dictionaries(NAMES, PLAIN | OTHER, max_size=6)
MESSAGES = st.text(max_size=20) | st.sampled_from(["%s", "%d of %s", "%(a)s", "100 %", "%.2f", "", "m" * 5_000])
MOMENTS = (
    st.floats(0, 4_000_000_000)
    | st.integers(0, 4_000_000_000)
    | st.tuples(st.integers(1_700_000_000, 1_700_000_003), st.integers(0, 2**22)).map(lambda x: x[0] + x[1] / 2**22)
)
IDS = st.none() | st.text(max_size=5) | st.sampled_from(["", "u" * 9_000, "\x7f", "\ud800"])


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    message=MESSAGES,
    args=st.lists(PLAIN | OTHER, max_size=2),
    fields=FIELDS,
    how=st.sampled_from(["raw", "given", "none", "both"]),
    carried=st.none() | FIELDS,
    ids=st.fixed_dictionaries(dict.fromkeys(_context.VARIABLES, IDS)),
    operation=IDS,
    level=st.sampled_from([logging.INFO, logging.ERROR, 35]),
    moment=MOMENTS,
)
@example("m", [], {"a": math.nan}, "raw", None, dict.fromkeys(_context.VARIABLES), None, logging.INFO, 1.0)
@example("m", [], {"a": 1}, "raw", None, dict.fromkeys(_context.VARIABLES), None, logging.INFO, 1_700_000_000.0078125)
@example("m", [], {}, "none", None, dict.fromkeys(_context.VARIABLES), None, logging.INFO, 1_700_000_000.9999998)
@example("m", [], {}, "given", {"ml_pipeline": None}, dict.fromkeys(_context.VARIABLES), None, logging.INFO, 1.0)
def test_both_ways_write_the_same_bytes(  # noqa: PLR0917 - drawn by name
    message: str,
    args: list[Any],
    fields: dict[str, Any],
    how: str,
    carried: dict[str, Any] | None,
    ids: dict[str, str | None],
    operation: str | None,
    level: int,
    moment: float,
) -> None:
    """Whatever is logged, and whatever it raises, at one place, in one thread, at one moment."""
    raw: dict[str, Any] = fields if how in {"raw", "both"} else {}
    made = log_operation(operation, "u", **{k: v for k, v in fields.items() if k not in {"operation", "user_id"}})
    extra = {**raw, **(made if how in {"given", "both"} else {})} if how != "none" else None
    around, token = _context.restore(ids), _context.fields.set(carried)
    try:
        short, long = _both_ways(lambda: main_logger.log(level, message, *args, extra=extra), moment)
    finally:
        _context.fields.reset(token)
        _context.undo(around)
    assert short == long
    assert short[0] or short[1].count(b"\n") == 1


CALLS: list[Callable[[], object]] = [
    lambda: main_logger.info("plain"),
    lambda: main_logger.warning("with %s and %d", "arguments", 3),
    lambda: main_logger.info("fields", extra={"rows": 3, "score": 0.5, "ok": True, "note": "é\x7f\u2028", "no": None}),
    lambda: main_logger.info("given", extra=log_operation("train", "u1", name="m", args=3, rows=1)),
    lambda: main_logger.log(logging.INFO, "by level"),
    lambda: main_logger.log(35, "of no name"),
    lambda: main_logger.critical("x"),
    lambda: logging.LoggerAdapter(main_logger, {"rows": 1}).info("by an adapter"),
    lambda: main_logger.getChild("below").info("by a child"),
    lambda: main_logger.bind(rows=1).info("bound"),  # type: ignore[attr-defined]
]


@pytest.mark.parametrize("call", CALLS)
def test_plain_records_take_the_short_way(call: Callable[[], object], long_way: list[logging.LogRecord]) -> None:
    """Nothing in them is new but moment, message and fields; the line is that of the long way."""
    short, long = _both_ways(call, 1_700_000_000.25)
    assert short == long
    assert len(long_way) == 1
    assert b'"file":"' + __file__.encode() in short[1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: main_logger.info("m", exc_info=True),
        lambda: main_logger.error("m", exc_info=(ValueError, ValueError("x"), None)),
        lambda: main_logger.error("m", exc_info=ValueError("x")),
        lambda: main_logger.exception("m"),
        lambda: main_logger.info("m", stack_info=True),
        lambda: main_logger.info("m", stacklevel=2),
        lambda: main_logger.info("%(a)s", {"a": 1}),
        lambda: main_logger.info(ValueError("m")),
        lambda: main_logger.info("m", extra={"password": "hunter2"}),
        lambda: main_logger.info("m", extra={"rows": [1]}),
        lambda: main_logger.info("m", extra={"x": math.inf}),
        lambda: main_logger.info(""),
    ],
)
def test_other_records_take_the_long_way(call: Callable[[], object], long_way: list[logging.LogRecord]) -> None:
    """Exceptions, stacks, objects, hidden names; nothing is written twice."""
    with root_handlers():
        call()
    assert len(long_way) == len(_lines()) == 1


@pytest.mark.parametrize("extra", [{"name": 1}, {"message": "x"}, {"asctime": 1}, 5])
def test_an_extra_that_logging_refuses_is_refused(extra: Any) -> None:
    """With the error of `logging`, and no line."""
    short, long = _both_ways(lambda: main_logger.info("m", extra=extra), 1.0)
    assert short == long
    assert short[0].startswith(("KeyError", "TypeError"))
    assert not _lines()


def test_an_option_that_no_log_call_has_is_refused() -> None:
    """As `logging` does."""
    with root_handlers(), pytest.raises(TypeError, match="unexpected keyword argument 'rows'"):
        main_logger.info("m", rows=3)  # type: ignore[call-arg]


def test_whoever_listens_gets_a_record_from_the_next_one_on(long_way: list[logging.LogRecord]) -> None:
    """A handler of the root logger, of ours or in between is noticed when it is added, and forgotten when removed."""
    child = get_logger("training.model_training", "t")
    between = logging.getLogger("ml_pipeline.training")
    with root_handlers():
        for listened in (logging.getLogger(), main_logger, between, child):
            handler = Kept()
            child.info("before")
            listened.addHandler(handler)
            child.info("while")
            listened.removeHandler(handler)
            child.info("after")
            assert [record.getMessage() for record in handler.records] == ["while"]
            assert type(handler.records[0]) is logging.LogRecord
    assert [record.getMessage() for record in long_way] == ["while"] * 4
    assert [line["message"] for line in _lines("training/model_training.log")] == ["before", "while", "after"] * 4


def test_caplog_and_its_level(caplog: pytest.LogCaptureFixture) -> None:
    """The test kit of the users' own tests gets real records, at the level it asks for."""
    with caplog.at_level(logging.DEBUG, logger="ml_pipeline"):
        main_logger.debug("seen", extra={"rows": 3})
    main_logger.debug("not seen")
    assert [(record.getMessage(), record.rows) for record in caplog.records] == [("seen", 3)]  # type: ignore[attr-defined]
    assert [line["message"] for line in _lines()] == ["seen"]


def test_who_does_not_propagate_is_not_heard_above(long_way: list[logging.LogRecord]) -> None:
    """Of the main logger the files stay; a child that does not propagate writes none."""
    handler, child = Kept(), main_logger.getChild("apart")
    with root_handlers(handler):
        main_logger.propagate = child.propagate = False
        try:
            main_logger.info("kept")
            child.info("lost")
        finally:
            main_logger.propagate = child.propagate = True
    assert [line["message"] for line in _lines()] == ["kept"]
    assert not handler.records
    assert not long_way


@pytest.mark.parametrize("filtered", [lambda: main_logger, lambda: main_logger.handlers[0]])
def test_filters_are_asked(filtered: Callable[[], logging.Filterer], long_way: list[logging.LogRecord]) -> None:
    """A filter needs a record, and may change or refuse it."""

    def judge(record: logging.LogRecord) -> bool:
        record.rows = 7
        return "no" not in record.getMessage()

    with root_handlers():
        filtered().addFilter(judge)
        try:
            main_logger.info("yes")
            main_logger.info("no")
        finally:
            filtered().removeFilter(judge)
        main_logger.info("no more")
    assert [(line["message"], line.get("context")) for line in _lines()] == [("yes", {"rows": 7}), ("no more", None)]
    assert [record.getMessage() for record in long_way] == ["yes"]


def test_a_record_factory_is_asked(long_way: list[logging.LogRecord]) -> None:
    """What it adds is on the line."""

    def factory(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **kwargs)
        record.host = "here"
        return record

    with root_handlers():
        logging.setLogRecordFactory(factory)
        try:
            main_logger.info("made")
        finally:
            logging.setLogRecordFactory(logging.LogRecord)
        main_logger.info("plain")
    assert [line.get("context") for line in _lines()] == [{"host": "here"}, None]
    assert len(long_way) == 1


def test_levels_are_those_of_the_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """`logging.disable`, ``disabled``, a level's new name and a changed setting count from the next record on."""
    with root_handlers():
        main_logger.info("one")
        logging.disable(logging.INFO)
        main_logger.info("disabled")
        logging.disable(logging.NOTSET)
        with monkeypatch.context() as patch:
            patch.setattr(main_logger, "disabled", True)
            main_logger.info("disabled")
            main_logger.log(logging.INFO, "disabled")
        logging.addLevelName(logging.INFO, "NOTE")
        try:
            main_logger.info("two")
        finally:
            logging.addLevelName(logging.INFO, "INFO")
        before = main_logger.level
        main_logger.setLevel(logging.DEBUG)
        main_logger.debug("three")
        main_logger.setLevel(logging.WARNING)
        main_logger.info("not at this level")
        main_logger.setLevel(before)
    assert [(line["level"], line["message"]) for line in _lines()] == [
        ("INFO", "one"),
        ("NOTE", "two"),
        ("DEBUG", "three"),
    ]


def test_moments_of_one_millisecond_are_rounded_as_datetime_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also halfway between two microseconds, at both ends, and where the clock was set back a little or a lot."""
    ticks = [tick / 2**22 for tick in range(-8, 4_200)]  # of a float's resolution in these years
    halfway = [1_700_000_000 + odd / 2**7 for odd in (1, 3, 5)]
    moments = [moment for half in halfway for moment in (half, half - 1e-3, *(half + tick for tick in ticks), half)]
    monkeypatch.setattr(_log_fast.time, "time", iter(moments).__next__)
    with root_handlers():
        for _ in moments:
            main_logger.info("now")
    assert [line["timestamp"] for line in _lines()] == [rfc3339(moment) for moment in moments]


def test_a_level_that_is_no_number_is_refused() -> None:
    """As `logging` does."""
    with root_handlers(), pytest.raises(TypeError, match="level must be an integer"):
        main_logger.log("INFO", "m")  # type: ignore[arg-type]


def test_what_logging_leaves_out_for_speed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The switches of the standard library's documentation: call site, threads and processes."""
    monkeypatch.setattr(logging, "_srcfile", None)
    monkeypatch.setattr(logging, "logThreads", False)
    monkeypatch.setattr(logging, "logProcesses", False)
    short, long = _both_ways(lambda: main_logger.info("m", extra={"rows": 1}), 1.0)
    assert short == long
    assert list(_lines()[0]) == ["timestamp", "level", "logger", "channel", "message", "pipeline", "context"]


def test_who_said_it_is_who_it_is_now() -> None:
    """A thread's new name, a new pipeline name and a new line of the same function are seen."""
    thread = threading.current_thread()
    before = thread.name
    with root_handlers():
        main_logger.info("a")
        thread.name = "renamed"
        try:
            main_logger.info("b")
        finally:
            thread.name = before
        ml_pipeline.configure(name="other")
        main_logger.info("c")
    lines = [line for line in _lines() if line["message"] in {"a", "b", "c"}]
    assert [line["thread"] for line in lines] == [before, "renamed", before]
    assert [line["pipeline"] for line in lines] == ["test", "test", "other"]
    assert len({line["line"] for line in lines}) == 3


def test_the_tables_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A million users, names or threads cost no more memory than a few thousand."""
    monkeypatch.setattr(_log_fast, "_MOST_KNOWN", 10)
    with root_handlers():
        for number in range(50):
            with_ids = _context.restore({"user_id": f"u{number}"})
            main_logger.info("m", extra={f"field{number}": number})
            _context.undo(with_ids)
    lines = _lines()
    assert [(line["user_id"], line["context"]) for line in lines] == [(f"u{n}", {f"field{n}": n}) for n in range(50)]


def test_a_file_that_fails_is_counted_and_the_others_are_written() -> None:
    """One of two files cannot be opened: the record is in the other."""
    ml_pipeline.configure(strict=False)
    (LOGS / "errors.log").mkdir(parents=True)
    with root_handlers():
        main_logger.error("broken")
    assert [line["message"] for line in _lines()] == ["broken"]
    assert _runtime.tally.log_records_dropped == {"IsADirectoryError": 1}
    assert _runtime.tally.log_records["ml_pipeline", "ERROR"] == 1
    assert _runtime.tally.log_records["errors", "ERROR"] == 0


def _run(program: str) -> list[dict[str, Any]]:
    """Run a program in a process of its own, and return the lines it wrote to the main log."""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return _lines()


@pytest.mark.parametrize(
    ("configuration", "wanted"),
    [
        ({"version": 1}, []),
        ({"version": 1, "disable_existing_loggers": False}, ["after"]),
        ({"version": 1, "incremental": True, "loggers": {"ml_pipeline": {"level": "ERROR"}}}, []),
        ({"version": 1, "incremental": True, "loggers": {"ml_pipeline": {"level": "DEBUG"}}}, ["after", "detail"]),
        ({"version": 1, "loggers": {"ml_pipeline": {"level": "INFO", "handlers": []}}}, []),
    ],
)
def test_a_configuration_by_dictionary_is_obeyed(configuration: dict[str, Any], wanted: list[str]) -> None:
    """It disables loggers, sets levels and takes handlers away as documented; the audit trail goes on all the same."""
    lines = _run(f"""
import logging.config
from ml_pipeline.config.logging_config import audit_logger, main_logger
main_logger.info("before")
logging.config.dictConfig({configuration!r})
main_logger.info("after")
main_logger.debug("detail")
audit_logger.info("audited")
""")
    assert [line["message"] for line in lines] == ["before", *wanted]
    assert '"audited"' in (LOGS / "audit.log").read_text("utf-8")


def test_loggers_from_before_the_import_take_the_short_way() -> None:
    """The one logger of the name is of our class then, and its children are as they were made."""
    lines = _run("""
import logging
early, child = logging.getLogger("ml_pipeline"), logging.getLogger("ml_pipeline.early")
from ml_pipeline.config import _log_outlet
from ml_pipeline.config.logging_config import get_logger, main_logger
assert early is main_logger and get_logger("ml_pipeline", "early") is child
def refuse(self, record): raise AssertionError(record.getMessage())
_log_outlet.Outlet.write = refuse
early.info("one"); child.info("two"); early.getChild("late").info("three")
""")
    assert [(line["logger"], line["message"]) for line in lines] == [
        ("ml_pipeline", "one"),
        ("early", "two"),
        ("late", "three"),
    ]


def test_a_fork_takes_its_own_process_along() -> None:
    """The id of the process is that of the child, in which the files are opened anew."""
    lines = _run("""
import os
from ml_pipeline.config.logging_config import main_logger
main_logger.info("parent")
child = os.fork()
if not child:
    main_logger.info("child"); os._exit(0)
os.waitpid(child, 0)
main_logger.info("parent")
""")
    assert [line["message"] for line in lines] == ["parent", "child", "parent"]
    assert lines[0]["process"] == lines[2]["process"] != lines[1]["process"]


def test_a_record_inside_a_record() -> None:
    """Logging in a signal handler and in ``__del__``, in the midst of other records: no deadlock, all are there."""
    lines = _run("""
import gc, signal
from ml_pipeline.config.logging_config import main_logger
class Dying:
    def __del__(self): main_logger.info("died")
signal.signal(signal.SIGALRM, lambda *_: main_logger.info("signal"))
main_logger.info("first")  # which opens the file, and takes long
signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
for number in range(3_000):
    a, b = Dying(), Dying()
    a.other, b.other = b, a
    main_logger.info("%d", number, extra={"rows": number})
signal.setitimer(signal.ITIMER_REAL, 0)
del a, b
gc.collect()
""")
    messages = [line["message"] for line in lines]
    assert messages.count("died") == 6_000
    assert [message for message in messages if message.isdigit()] == [str(number) for number in range(3_000)]
    assert "signal" in messages
