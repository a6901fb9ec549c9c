"""The questions of ``ml-pipeline logs``: expressions, times and levels, and the shortcut over raw bytes."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.errors import SettingsError
from ml_pipeline.report._log_query import LEVELS, Query, level_number, parse_time
from ml_pipeline.report._log_records import Keys, Record, fields_of
from ml_pipeline.report._log_where import needle, parse_where
from tests.report.logs_kit import zurich  # noqa: F401 - a fixture

FIELDS: dict[str, Any] = {
    "level": "ERROR",
    "message": 'it\'s a "test" of C:\\dir',
    "context": {
        "roc_auc": 0.93,
        "n": 3,
        "zero": 0,
        "ok": True,
        "none": None,
        "mean radius": 17.9,
        "a.b": "dotted",
        "list": [10, {"x": "in"}],
        "or": "joining",
        "größe": "groß",
        "": "nameless",
    },
    "run-id": "01a1-7000",
}


@pytest.mark.parametrize(
    "expression",
    [
        "context.roc_auc > 0.9",
        "context.roc_auc>0.9",
        "context.roc_auc >= .93",
        "context.n <= 3 and context.n >= 3.0 and context.n < 1e1 and context.n > -1",
        "context.n == 3.0",
        "context.zero == 0",
        "context.zero != false",
        "context.ok == true",
        "context.none == null",
        "context.missing == null",
        "context.none != 5",
        "context.n != '3'",
        "context.n != null",
        "not context.missing == 5",
        "not (context.missing != 5)",
        "level == ERROR",
        "level == 'ERROR'",
        'level == "ERROR"',
        "level > DEBUG",
        "level ~ ^ERR",
        "level ~ 'R{2}OR$'",
        "message == 'it\\'s a \"test\" of C:\\dir'",
        "message ~ 'C:\\\\dir'",
        'context."mean radius" > 17',
        'context."a.b" == dotted',
        'context."or" == joining',
        "context.list.0 == 10",
        "context.list.1.x ~ n",
        "context.größe == groß",
        "run-id == 01a1-7000",
        "level == INFO or context.n == 3",
        "level == INFO and context.n == 9 or level == ERROR",
        "level == ERROR and not level == INFO and (context.n == 9 or context.n == 3)",
    ],
)
def test_an_expression_that_holds(expression: str) -> None:
    """Numbers compare with numbers, texts with texts; keys are quoted where they are no plain words."""
    assert parse_where(expression).matches(FIELDS)


@pytest.mark.parametrize(
    "expression",
    [
        "context.roc_auc > 0.93",
        "context.n > 'a'",
        "context.n == '3'",
        "context.ok == 1",
        "context.n == true",
        "context.ok > 0",
        "context.n ~ 3",
        "context.missing > 0",
        "context.missing != 5",
        "context.missing == 5",
        "context.n.deeper == 3",
        "context.list.9 == 1",
        "context.list.x == 1",
        "context.a.b == dotted",
        "message < null_",
        "level == ERROR and level == INFO",
        "not level == ERROR",
    ],
)
def test_an_expression_that_does_not_hold(expression: str) -> None:
    """A field that is not there is equal to null and to nothing else, and unlike nothing."""
    fields = {**FIELDS, "message": "zzz"}
    assert not parse_where(expression).matches(fields)


@pytest.mark.parametrize(
    ("expression", "position", "what"),
    [
        ("", 1, "a field was expected"),
        ("  ", 1, "a field was expected"),
        ("5 > 3", 1, "a field was expected"),
        ("'a' == b", 1, "a field was expected"),
        ("or == 1", 1, "a field was expected"),
        ("a..b == 1", 1, "a field was expected"),
        (".a == 1", 1, "a field was expected"),
        ("a", 2, "an operator was expected, one of == != < > <= >= ~"),
        ("a b", 3, "an operator was expected, one of == != < > <= >= ~"),
        ("a = 1", 3, "there is a character without a meaning"),
        ("a == ", 5, "a value was expected"),
        ("a == ==", 6, "a value was expected"),
        ("a == and", 6, "a value was expected"),
        ("a == 'b", 6, "there is a text without its closing quote"),
        ("a > true", 5, "> needs a number or a text"),
        ("a <= null", 6, "<= needs a number or a text"),
        ("a ~ '('", 5, "the regular expression is broken: missing ), unterminated subpattern at position 0"),
        ("a == 1 b == 2", 8, "'and', 'or' or the end was expected"),
        ("(a == 1", 8, "')' was expected"),
        ("a == 1)", 7, "'and', 'or' or the end was expected"),
        ("a == 1 and", 11, "a field was expected"),
        ("not " * 60 + "a == 1", 201, "it is nested more than 50 deep"),
        ("__import__('os').system('x')", 11, "an operator was expected, one of == != < > <= >= ~"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_position(expression: str, position: int, what: str) -> None:
    """Counted from 1; with the expression and an example."""
    with pytest.raises(SettingsError) as refused:
        parse_where(expression)
    assert str(refused.value).startswith(
        f"a --where expression must read FIELD OPERATOR VALUE: at character {position} {what} (got "
    )
    assert str(refused.value).endswith("such as 'context.metrics.roc_auc > 0.9'")


def test_an_expression_has_a_longest_length() -> None:
    """So that no one waits for it."""
    with pytest.raises(SettingsError, match=r"a --where expression must have at most 2,000 characters \(got 2500\)"):
        parse_where("a == 1 or " * 250)


ZURICH_NOON = dt.datetime(2026, 11, 20, 11, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-01-15T09:30:00Z", "2026-01-15T09:30:00.000000Z"),
        ("2026-01-15T09:30:00.5+05:30", "2026-01-15T04:00:00.500000Z"),
        ("2026-01-15 09:30", "2026-01-15T08:30:00.000000Z"),
        ("2026-07-15", "2026-07-14T22:00:00.000000Z"),
        ("today", "2026-11-19T23:00:00.000000Z"),
        ("Yesterday", "2026-11-18T23:00:00.000000Z"),
        ("now", "2026-11-20T11:00:00.000000Z"),
        ("90s", "2026-11-20T10:58:30.000000Z"),
        ("10m", "2026-11-20T10:50:00.000000Z"),
        (" 2 h ", "2026-11-20T09:00:00.000000Z"),
        ("3d", "2026-11-17T11:00:00.000000Z"),
        ("1w", "2026-11-13T11:00:00.000000Z"),
    ],
)
@pytest.mark.usefixtures("zurich")
def test_a_time_is_read(text: str, moment: str) -> None:
    """RFC 3339, a date, a word or an age; local where it has no offset."""
    assert parse_time(text, ZURICH_NOON).decode() == moment


TEXTS = st.text(st.sampled_from('abc0 "/\\\n\tüẞ\u2028😀.[]{}'), max_size=6)
VALUES = st.one_of(TEXTS, st.integers(-3, 3), st.sampled_from([0.5, 1e20, True, None]), st.lists(TEXTS, max_size=2))
KEYS = st.sampled_from(["a", "b c", "ü", '"'])
CONTEXTS = st.dictionaries(KEYS, VALUES | st.dictionaries(KEYS, VALUES, max_size=2), max_size=3)
RECORDS = st.fixed_dictionaries(
    {"message": TEXTS},
    optional={
        "level": st.sampled_from([*LEVELS, "Level 33", "odd"]),
        "operation": TEXTS,
        "operation_id": st.sampled_from(["id-1", "id-2"]),
        "run_id": st.sampled_from(["r-1", "r/2"]),
        "user_id": TEXTS | st.integers(-3, 12),
        "logger": TEXTS,
        "exception": st.fixed_dictionaries({"type": TEXTS, "stacktrace": TEXTS}),
        "context": CONTEXTS,
    },
)
FIELD = st.sampled_from(["message", "level", "context.a", 'context."b c"', "context.a.ü", "context.ü", "user_id"])
WANTED = st.sampled_from(["1", "0.5", "null", "true", "ERROR", "a", "'b'", "'/'", "' '", "'ü'"])
ONE = st.builds(lambda *parts: " ".join(parts), FIELD, st.sampled_from(["==", "!=", "~"]), WANTED)
WHERE = st.one_of(
    ONE,
    st.builds(lambda left, word, right: f"{left} {word} {right}", ONE, st.sampled_from(["and", "or"]), ONE),
    st.builds(lambda one: f"not ({one})", ONE),
)
QUERIES = st.fixed_dictionaries(
    {},
    optional={
        "level": st.sampled_from(sorted(LEVELS.values())),
        "operation": TEXTS | st.just("id-1"),
        "run": st.sampled_from(["r-1", "r/2"]),
        "user": TEXTS | st.sampled_from(["1", "-3", "12"]),
        "text": TEXTS,
        "where": st.lists(WHERE.map(parse_where), max_size=2),
    },
)


def _line(fields: dict[str, Any], number: int) -> bytes:
    stamped = {"timestamp": f"2026-11-20T10:00:00.{number:06d}Z", **fields}
    return (orjson.dumps, lambda each: json.dumps(each).encode())[number % 2](stamped)


@given(st.lists(RECORDS, max_size=8), QUERIES)
def test_the_shortcut_over_raw_bytes_finds_what_reading_everything_finds(
    records: list[dict[str, Any]], asked: dict[str, Any]
) -> None:
    """Whatever stands in the records, however it was escaped, whatever is asked."""
    lines = [_line(each, number) for number, each in enumerate(records)]
    query = Query(**asked)
    found = query.select(b"".join(each + b"\n" for each in lines), Keys(), 0, "ml_pipeline")
    expected = [each for each in lines if query._fits(fields_of(Record(b"", 0, each), "ml_pipeline"))]
    assert [record.raw for record in found] == expected


LINES = st.text(st.sampled_from("ab 1"), max_size=4)
PART = st.sampled_from(["exception.stacktrace", "following", "exception", "message", "logger", "level", "context.a"])
ASKED = st.builds(lambda *parts: " ".join(parts), PART, st.sampled_from(["==", "!=", "~"]), WANTED)


@given(st.lists(st.tuples(LINES, st.lists(LINES, max_size=2)), max_size=4), ASKED, st.booleans())
def test_the_shortcut_holds_for_lines_of_text(said: list[tuple[str, list[str]]], asked: str, of_text: bool) -> None:
    """A traceback below a line in the text format, and what follows a JSON line: neither has a key."""
    heads = [
        f"2026-11-20 11:00:00,{number:03} - ERROR - ab - {message}"
        if of_text
        else _line({"message": message}, number).decode()
        for number, (message, _) in enumerate(said)
    ]
    raws = ["\n".join((head, *(f"    {each}" for each in below))) for head, (_, below) in zip(heads, said, strict=True)]
    block = "".join(raw + "\n" for raw in raws).encode()
    query = Query(where=[parse_where(asked)])
    everything = Query().select(block, Keys(), 0, "ml_pipeline")
    expected = [each.raw for each in everything if query._fits(fields_of(each, "ml_pipeline"))]
    assert [each.raw for each in query.select(block, Keys(), 0, "ml_pipeline")] == expected


@given(TEXTS)
def test_a_needle_stands_in_every_encoding_of_its_text(text: str) -> None:
    """Escaped as little as JSON allows, or as much as is usual."""
    for encoded in (orjson.dumps(text), json.dumps(text).encode(), json.dumps(text).replace("/", "\\/").encode()):
        assert needle(text) in encoded
        assert needle(text, quoted=True) in encoded


def test_levels_have_short_names_too() -> None:
    """As ``logging`` has."""
    assert (level_number("warn"), level_number("FATAL"), level_number("info")) == (30, 50, 20)
