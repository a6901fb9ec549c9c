"""A record as a line: JSON with fixed keys, or the text format; nothing a caller gives forges either."""

from __future__ import annotations

import calendar
import json
import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.config import _context
from ml_pipeline.config._log_format import (
    EXTRA_KEY,
    JSON_KEYS,
    beside,
    exception_of,
    is_empty,
    json_line,
    line_fields,
    message_of,
    plain_text,
    text_line,
)
from ml_pipeline.config.logging_config import log_operation

SAMPLE = """\
2024-01-15 10:30:25,123 - INFO - model_trainer - Model training started for LogisticRegression
2024-01-15 10:30:25,124 - INFO - model_trainer - Training set size: (8000, 19)
2024-01-15 10:30:25,125 - INFO - model_trainer - Validation set size: (2000, 19)
2024-01-15 10:30:27,856 - INFO - model_trainer - Training completed. Accuracy: 0.8532
2024-01-15 10:30:27,857 - INFO - model_trainer - Model saved to artifacts/models/logistic_regression_model.pkl
"""
MOMENT = 1705314625.123456  # 2024-01-15 10:30:25.123456 UTC
STAMP = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - ")


class Evil:
    """An object that refuses everything it can be asked."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("evil")

    __repr__ = __str__ = __bool__ = __len__ = __iter__ = __format__ = __eq__ = __getattr__ = _refuse
    __hash__ = _refuse


class EvilError(Exception):
    """An exception that cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("evil")


def _cycle() -> list[Any]:
    around: list[Any] = [1]
    around.append(around)
    return around


any_text = st.text(st.characters(exclude_categories=()), max_size=40) | st.sampled_from(
    ["a\nb", "\x1b[31mred\x1b[0m", '"quoted"', "\u2028\u2029\x85\x0b\x0c\x1c", "\ud800", "\u202eabc", "\r\n", "%s %d %"]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | any_text
    | st.binary(max_size=20)
    | st.builds(Evil)
    | st.builds(EvilError)
    | st.builds(_cycle)
    | st.floats(width=32).map(np.float32)
    | st.integers(-(2**63), 2**63 - 1).map(np.int64)
    | st.lists(st.floats(), max_size=4).map(np.array)
    | st.just({1, 2})
)
anything = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3), max_leaves=8
)


def _record(message: object = "said", *args: object, extra: dict[str, Any] | None = None, **known: Any) -> Any:
    logger = logging.getLogger("ml_pipeline.test_log_format")
    record = logger.makeRecord(
        logger.name, logging.INFO, "/app/train.py", 7, message, args, known.pop("exc_info", None), "fit", extra
    )
    record.created = MOMENT
    for name, value in known.items():
        setattr(record, name, value)
    return record


def test_a_field_that_this_python_has_no_name_for_is_the_caller_s() -> None:
    """``taskName`` is an attribute of every record from Python 3.12 on, and before that a name like any other."""
    given = {"taskName": 1} if sys.version_info < (3, 12) else {"task": 1}
    assert _parsed(_record(extra=given))["context"] == given


def _parsed(record: logging.LogRecord, shown: str = "trainer") -> dict[str, Any]:
    line = json_line(line_fields(record, "training.model_training", shown))
    assert line.endswith(b"\n")
    assert len(line.decode("utf-8").splitlines()) == 1
    parsed: dict[str, Any] = json.loads(line)
    return parsed


def _raised(error: Exception) -> Any:
    def fail() -> None:
        raise error

    try:
        fail()
    except type(error):
        return sys.exc_info()


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Set the local time zone, and put it back."""

    def put(name: str) -> None:
        monkeypatch.setenv("TZ", name)
        time.tzset()

    before = os.environ.get("TZ")
    yield put
    os.environ.pop("TZ", None) if before is None else os.environ.__setitem__("TZ", before)
    time.tzset()


@pytest.mark.parametrize(("name", "offset"), [("UTC", 0), ("Europe/Berlin", -3600), ("America/New_York", 5 * 3600)])
def test_the_text_sample_byte_for_byte(zone: Any, name: str, offset: int) -> None:
    """A fixed clock reproduces the five promised lines exactly, in whatever zone is local."""
    zone(name)
    written = ""
    for line in SAMPLE.splitlines():
        stamp, _, _, message = line.split(" - ", 3)
        whole = time.strptime(stamp[:19], "%Y-%m-%d %H:%M:%S")
        moment = calendar.timegm(whole) + int(stamp[20:]) / 1000 + offset
        written += text_line(_record(message, created=moment), "model_trainer")
    assert written == SAMPLE


@settings(deadline=None)
@given(st.integers(0, 4_000_000_000), st.integers(0, 999))
def test_text_and_json_say_the_same_moment(seconds: int, milliseconds: int) -> None:
    """No binary fraction makes the milliseconds of one format differ from those of the other."""
    record = _record(created=seconds + milliseconds / 1000)
    stamp = line_fields(record, "c", "s")["timestamp"]
    assert stamp.endswith(f".{milliseconds:03d}000Z")
    assert text_line(record, "s")[19:23] == f",{milliseconds:03d}"


def test_json_keys_in_their_order() -> None:
    """A record with everything has every key, in the promised order; the timestamp has six digits and Z."""
    tokens = _context.restore(dict.fromkeys(_context.VARIABLES, "here"))
    extra = log_operation(operation="fit", user_id="u", rows=3)
    parsed = _parsed(_record("hello", exc_info=_raised(TimeoutError("too slow")), extra=extra))
    _context.undo(tokens)
    assert tuple(parsed) == JSON_KEYS
    assert parsed["timestamp"] == "2024-01-15T10:30:25.123456Z"
    assert (parsed["operation"], parsed["user_id"], parsed["operation_id"]) == ("fit", "u", "here")
    assert (parsed["file"], parsed["line"], parsed["function"]) == ("/app/train.py", 7, "fit")
    assert (parsed["process"], parsed["thread"]) == (os.getpid(), "MainThread")
    assert tuple(parsed["exception"]) == ("type", "message", "stacktrace")
    assert parsed["exception"]["type"] == "TimeoutError"
    assert parsed["exception"]["stacktrace"].endswith("TimeoutError: too slow\n")
    assert parsed["context"] == {"rows": 3}


def test_empty_keys_are_absent() -> None:
    """What is empty is not on the line: no nulls, no empty objects."""
    record = _record("", pathname="", funcName=None, threadName=None, process=None)
    assert tuple(_parsed(record)) == ("timestamp", "level", "logger", "channel", "pipeline")
    assert _parsed(_record(created=0.0))["timestamp"] == "1970-01-01T00:00:00.000000Z"


@pytest.mark.parametrize("name", ["name", "args", "message", "levelname", "context", "msg", "exc_info", EXTRA_KEY])
def test_no_name_in_log_operation_clashes(name: str) -> None:
    """Any keyword of `log_operation` lies under ``context``, and moves nothing else on the line."""
    plain = _parsed(_record())
    parsed = _parsed(_record(extra=log_operation(**{name: "given"})))
    assert parsed.pop("context") == {name: "given"}
    assert parsed == plain


def test_a_raw_extra_lies_under_context() -> None:
    """Plain ``extra=`` of logging works too, beside `log_operation`, and even under our own key."""
    extra = {**log_operation(operation="fit", a=1), "b": np.int64(2)}
    assert _parsed(_record(extra=extra))["context"] == {"b": 2, "a": 1}
    for value in ("text", {"a": 1}, None, 5):
        record = _record(extra={EXTRA_KEY: value})
        assert _parsed(record)["context"] == {EXTRA_KEY: value}
        assert text_line(record, "s").endswith(" - s - said\n")


def test_arguments_that_do_not_fit_the_message_are_kept() -> None:
    """A mistake in a format string loses neither the message nor the data."""
    assert message_of(_record("rows: %d of %d", 5)) == "rows: %d of %d (5,)"
    assert message_of(_record("rows: %d", "many")) == "rows: %d ('many',)"
    assert message_of(_record("no place", 1, 2)) == "no place (1, 2)"
    assert message_of(_record("%(a)s", {"b": 1})) == "%(a)s {'b': 1}"
    assert message_of(_record("%d", Evil())) == "%d <RuntimeError when printed>"
    assert message_of(_record(Evil())) == "Evil ()"
    assert message_of(_record({"not": "a string"})) == "{'not': 'a string'}"


def test_a_traceback_is_whole() -> None:
    """A long traceback keeps its beginning and its end, and says how much is left out between."""
    text = "first\n" + "x" * 200_000 + "\nlast"
    error = {"type": "E", "stacktrace": text}
    record = _record(extra={EXTRA_KEY: {"operation": None, "user_id": None, "context": {}, "exception": error}})
    trace = _parsed(record)["exception"]["stacktrace"]
    assert trace.startswith("first\n")
    assert trace.endswith("\nlast")
    assert "… 134475 more characters …" in trace
    error["stacktrace"] = text[:20_000]
    assert _parsed(record)["exception"]["stacktrace"] == text[:20_000]


def test_exceptions_that_cannot_be_printed() -> None:
    """An exception whose text raises is still named, with its traceback."""
    told = exception_of(_record(exc_info=_raised(EvilError())), {})
    assert told is not None
    assert (told["type"], told["message"]) == ("EvilError", "<RuntimeError when printed>")
    assert "raise error" in told["stacktrace"]
    assert exception_of(_record(exc_info=(None, None, None)), {}) is None
    assert exception_of(_record(exc_text="formatted elsewhere"), {}) == {"stacktrace": "formatted elsewhere"}


def test_traceback_and_stack_in_text_are_indented() -> None:
    """In the text format a traceback and a stack follow, indented, so that none of their lines passes for a record."""
    forged = "2024-01-15 10:30:25,123 - INFO - root - all is well"
    trace = _raised(ValueError(f"bad\n{forged}\x1b[2J"))
    record = _record(exc_info=trace, stack_info=f"Stack (most recent call last):\n{forged}")
    first, *others = text_line(record, "s").splitlines()
    assert first.endswith(" - s - said")
    assert all(line.startswith("    ") for line in others)
    assert f"    {forged}\\x1b[2J" in others
    assert others[-1] == f"    {forged}"
    assert _parsed(record)["context"] == {"stack_info": f"Stack (most recent call last):\n{forged}"}


def test_the_level_is_coloured_where_asked() -> None:
    """Only the level is coloured, and INFO is left as it is."""
    assert " - \x1b[33mWARNING\x1b[0m - s - said" in text_line(_record(levelname="WARNING"), "s", coloured=True)
    assert "\x1b" not in text_line(_record(levelname="WARNING"), "s")
    assert "\x1b" not in text_line(_record(), "s", coloured=True)


@settings(deadline=None)
@given(
    message=anything,
    arguments=st.lists(anything, max_size=2),
    user=anything,
    context=st.dictionaries(any_text, anything),
)
def test_hostile_values_make_one_json_line(
    message: Any, arguments: list[Any], user: Any, context: dict[str, Any]
) -> None:
    """Whatever is logged, the line is one line of valid JSON with the fixed keys, and no exception comes back."""
    record = _record(message, extra={EXTRA_KEY: {"operation": None, "user_id": user, "context": context}})
    record.args = tuple(arguments)
    parsed = _parsed(record)
    assert [key for key in JSON_KEYS if key in parsed] == list(parsed)
    assert (parsed["level"], parsed["timestamp"]) == ("INFO", "2024-01-15T10:30:25.123456Z")
    assert len(parsed.get("context", {})) <= len(context)


@settings(deadline=None)
@given(message=anything, arguments=st.lists(anything, max_size=2), level=any_text, shown=any_text)
def test_hostile_values_forge_no_text_line(message: Any, arguments: list[Any], level: str, shown: str) -> None:
    """In the text format there is one line, with the true stamp, and no character that steers a terminal."""
    record = _record(message, levelname=level)
    record.args = tuple(arguments)
    line = text_line(record, shown).encode("utf-8", "backslashreplace").decode("utf-8")
    assert line.splitlines(keepends=True) == [line]
    assert STAMP.match(line)
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", line[:-1])


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=()), max_size=200))
def test_a_hostile_exception_forges_no_text_line(text: str) -> None:
    """No text in a traceback starts a line that could be a record, or steers a terminal."""
    record = _record(exc_info=_raised(ValueError(text)))
    _, *others = text_line(record, "s").encode("utf-8", "backslashreplace").decode("utf-8").splitlines()
    assert all(line.startswith("    ") for line in others)
    assert all(not STAMP.match(line) for line in others)


def test_a_megabyte_is_cut() -> None:
    """Both formats cut a very long message at the same place and say what is missing."""
    record = _record("x" * 1_000_000, extra=log_operation(blob="y" * 1_000_000))
    parsed = _parsed(record)
    assert parsed["message"] == "x" * 8_192 + "… 991808 more characters"
    assert parsed["context"]["blob"].endswith("… 991808 more characters")
    assert text_line(record, "s").endswith(f" - s - {parsed['message']}\n")


def test_emptiness_is_told_by_type() -> None:
    """A caller's object is never compared or tested for truth; 0 and False are something."""
    empty: list[object] = [None, "", {}, ()]
    something: list[object] = [0, False, [], "x", np.array([]), Evil(), float("nan")]
    assert all(map(is_empty, empty))
    assert not any(map(is_empty, something))
    assert (plain_text(None), plain_text(np.int64(3)), plain_text("a"), plain_text(Evil())) == (
        "",
        "3",
        "a",
        "<Evil: RuntimeError when read>",
    )


def test_beside_keeps_both_values_of_a_name() -> None:
    """Where a caller's field has a name of ours, ours keeps its place and theirs lies below ``given``."""
    assert beside({"event": "start", "kind": None}, {"event": 1, "kind": 2, "rows": 3, "x": ""}) == {
        "event": "start",
        "given": {"event": 1, "kind": 2},
        "rows": 3,
    }
    assert beside({"a": 1}, {"given": 2}) == {"a": 1, "given": {"given": 2}}
