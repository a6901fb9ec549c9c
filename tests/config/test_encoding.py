from __future__ import annotations

import dataclasses
import datetime as dt
import decimal
import enum
import json
import re
import sys
import threading
import uuid
from collections import OrderedDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import orjson
import pandas as pd
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ml_pipeline.config import _encoding
from ml_pipeline.config._encoding import dumps, one_line, rfc3339, to_plain

UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Unicode's control characters, line separators, and all characters with the property Bidi_Control."""
MOST_BYTES = 8 * _encoding.MAX_TOTAL_CHARACTERS + 64 * _encoding.MAX_VALUES


def checked(value: object) -> Any:
    """Encode a value, hold the line to every promise, and return what a reader gets."""
    line = dumps(value)
    assert len(line) <= MOST_BYTES
    assert not UNSAFE.search(line.decode("utf-8"))
    read = json.loads(line, parse_constant=pytest.fail)
    assert read == orjson.loads(line)
    return read


class Colour(enum.Enum):
    """Two plain values, and one that is not."""

    RED = 1
    BLUE = "blue"
    ODD = ("a", 1)


class Level(enum.IntEnum):
    """A number with a name."""

    HIGH = 3


class Name(enum.StrEnum):
    """A text with a name."""

    FIRST = "first"


class Text(str):
    """A text that lies about itself."""

    __slots__ = ()

    def __len__(self) -> int:
        raise RuntimeError

    def __str__(self) -> str:
        raise RuntimeError

    def __getitem__(self, key: object) -> str:
        raise RuntimeError

    def isascii(self) -> bool:
        """Lie."""
        return True


class EvilMeta(type):
    """A class whose name cannot be read."""

    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise RuntimeError


class EvilName(metaclass=EvilMeta):
    """Cannot be printed, and neither can its class."""

    def __repr__(self) -> str:
        raise RuntimeError


class EvilClass:
    """Claims a class that cannot be read."""

    @property
    def __class__(self) -> Any:
        raise RuntimeError

    @__class__.setter
    def __class__(self, value: Any) -> None: ...


class Liar:
    """Claims to be a dictionary."""

    __class__ = dict  # type: ignore[assignment]


class EvilAttributes:
    """Raises for any attribute, even its ``dtype``."""

    def __getattr__(self, name: str) -> object:
        raise RuntimeError(name)


class EndlessRepr:
    """Prints another of its kind, for ever."""

    def __repr__(self) -> str:
        return repr(EndlessRepr())


class BinaryRepr:
    """Prints no text at all."""

    def __repr__(self) -> str:
        return b"bytes"  # type: ignore[return-value]


class EvilMapping(Mapping[str, int]):
    """Has three items, and breaks at the third; cannot say how many it has."""

    def __getitem__(self, key: str) -> int:
        if key == "c":
            raise RuntimeError
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter("abc")

    def __len__(self) -> int:
        raise RuntimeError


class Endless(Mapping[str, int]):
    """Never ends."""

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield str(number)

    def __len__(self) -> int:
        return sys.maxsize


class EvilList(list[int]):
    """Breaks when walked, after the first item."""

    def __iter__(self) -> Iterator[int]:
        yield 1
        raise RuntimeError


class FakeArray:
    """Has a shape and a type, and turns into another of its kind for ever."""

    dtype, shape = "odd", (1,)

    def tolist(self) -> object:
        """Return the other kind."""
        return OtherArray()


class OtherArray(FakeArray):
    """The other kind."""

    def tolist(self) -> object:
        """Return the first kind."""
        return FakeArray()


@dataclasses.dataclass
class Node:
    """May hold itself."""

    name: str
    next: object = None


class UnprintableError(Exception):
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError


ANYTHING = object()
EVIL: list[tuple[object, object]] = [
    (Text("text"), "text"),
    (EvilName(), "<EvilName: RuntimeError when printed>"),
    (EvilClass(), "<EvilClass: RuntimeError when read>"),
    (EvilMapping(), {"a": 1, "b": 1, "…": "RuntimeError when read"}),
    (EvilList([1, 2]), [1, "… RuntimeError when read"]),
    (BinaryRepr(), "<BinaryRepr: TypeError when printed>"),
    (UnprintableError(), "UnprintableError: <UnprintableError: RuntimeError when printed>"),
    (Liar(), ANYTHING),
    (EvilAttributes(), ANYTHING),
    (EndlessRepr(), ANYTHING),
    (FakeArray(), ANYTHING),
    (MagicMock(), ANYTHING),
    (MagicMock(spec=dict), ANYTHING),
    (MagicMock(spec=str), ANYTHING),
    (Endless(), ANYTHING),
    (type("X" * 1_000_000, (), {"__repr__": None})(), ANYTHING),
]


@pytest.mark.parametrize(("value", "expected"), EVIL, ids=[str(number) for number in range(len(EVIL))])
def test_nothing_that_a_class_does_breaks_the_line(value: object, expected: object) -> None:
    """What cannot be read is named by its type, and its neighbours are kept; as value, item and key."""
    read = checked(value)
    around = checked({"before": 1, "evil": value, "after": [value, 2]})
    assert (list(around), around["before"], around["after"][1]) == (["before", "evil", "after"], 1, 2)
    if expected is not ANYTHING:
        assert read == around["evil"] == around["after"][0] == expected
    if type(value).__hash__ is not None:
        assert list(checked({value: 1, "after": 2}).values()) == [1, 2]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (-0.0, 0.0),
        (float("nan"), "NaN"),
        (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"),
        (2**53, 2**53),
        (2**53 + 1, "9007199254740993"),
        (-(2**53) - 1, "-9007199254740993"),
        (10**4_000, "<int of 13288 bits>"),
        (10**1_000_000, "<int of 3321929 bits>"),
        (b"caf\xc3\xa9\xff\n", "café\\xff\n"),
        (bytearray(b"x"), "x"),
        (b"x" * 1_000_000, "x" * 8_192 + "… 991808 more characters"),
        ("x" * 1_000_000, "x" * 8_192 + "… 991808 more characters"),
        ("\ud800a\udfff", "\\ud800a\\udfff"),
        ((1, 2), [1, 2]),
        ({3}, [3]),
        (frozenset({"a"}), ["a"]),
        ({1: "a"}.keys(), [1]),
        ({1: "a"}.items(), [[1, "a"]]),
        (range(3), "range(0, 3)"),
        (deque([1]), "deque([1])"),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(int, a=1), {"a": 1}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Colour.RED, 1),
        (Colour.BLUE, "blue"),
        (Colour.ODD, "Colour.ODD"),
        (Level.HIGH, 3),
        (Name.FIRST, "first"),
        (Path("/a/b"), "/a/b"),
        (PurePosixPath("c"), "c"),
        (decimal.Decimal("1.50"), "1.50"),
        (decimal.Decimal("NaN"), "NaN"),
        (uuid.UUID(int=7), "00000000-0000-0000-0000-000000000007"),
        ({uuid.UUID(int=7): [decimal.Decimal("-0.10")]}, {"00000000-0000-0000-0000-000000000007": ["-0.10"]}),
        (type("Amount", (decimal.Decimal,), {"__str__": None})("1.50"), "Decimal('1.50')"),  # not exactly of that type
        (1 + 2j, "(1+2j)"),
        (dt.datetime(2026, 1, 15, 10, 30, tzinfo=dt.timezone(dt.timedelta(hours=1))), "2026-01-15T09:30:00Z"),
        (dt.datetime(2026, 1, 15, 10, 30), "2026-01-15T10:30:00"),  # noqa: DTZ001 - users give these
        (dt.date(2026, 1, 15), "2026-01-15"),
        (dt.time(10, 30), "10:30:00"),
        (dt.timedelta(minutes=1.5), 90.0),
        (OSError("disk full"), "OSError: disk full"),
        (int, "builtins.int"),
        (Node("a", Node("b")), {"name": "a", "next": {"name": "b", "next": None}}),
        (np.float64("nan"), "NaN"),
        (np.float32(0.5), 0.5),
        (np.int64(7), 7),
        (np.uint64(2**64 - 1), "18446744073709551615"),
        (np.bool_(True), True),
        (np.str_("text"), "text"),
        (np.bytes_(b"x"), "x"),
        (np.array(3), 3),
        (np.array([]), []),
        (np.array([1.0, np.nan]), [1.0, "NaN"]),
        (np.eye(2, dtype=int), [[1, 0], [0, 1]]),
        (np.arange(32), list(range(32))),
        (np.arange(33), "<ndarray (33,) int64>"),
        (np.zeros((1000, 1000), dtype=np.float32), "<ndarray (1000, 1000) float32>"),
        (np.array(["a", None], dtype=object), ["a", None]),
        (np.datetime64("2026-01-15T10:30:00"), "2026-01-15T10:30:00"),
        (np.datetime64("NaT"), None),
        (np.array([(1, 2.5)], dtype=[("a", int), ("b", float)]), [[1, 2.5]]),
        (pd.Timestamp("2026-01-15T10:30:00Z"), "2026-01-15T10:30:00Z"),
        (pd.NaT, "NaT"),
        (pd.NA, "<NA>"),
        (pd.Series([1, 2]), [1, 2]),
        (pd.Series(range(100)), "<Series (100,) int64>"),
        (pd.Index(["a"]), ["a"]),
        (pd.DataFrame({"a": [1]}), "<DataFrame (1, 1)>"),
        (pd.DataFrame({"dtype": [1], "shape": [2], "tolist": [3]}), "<DataFrame (1, 3)>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_sort_of_value_has_one_form(value: object, expected: object) -> None:
    """The one the reference says; NaN and infinities as texts, because JSON has no number for them."""
    assert checked(value) == expected
    assert checked({"key": [value]}) == {"key": [expected]}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({1: "number", "1": "text"}, {"1": "number", "1 (2)": "text"}),
        ({"1": "text", 1: "number"}, {"1": "text", "1 (2)": "number"}),
        ({None: 1, "None": 2, True: 3, "True": 4}, {"None": 1, "None (2)": 2, "True": 3, "True (4)": 4}),
        ({1: 1, "1 (3)": 2, "1": 3}, {"1": 1, "1 (3)": 2, "1 (3) (3)": 3} | {"1 (3)": 2}),
        ({"\ud800": 1, "\\ud800": 2}, {"\\ud800": 1, "\\ud800 (2)": 2}),
        ({"x" * 9_000: 1, "x" * 8_999 + "y": 2}, {"x" * 8_192 + "… 808 more characters": 1, "x" * 8_192 + "… 808 more characters (2)": 2}),
        ({"…": "theirs", **{str(n): n for n in range(1_000)}}, None),
        ({np.str_("a"): 1, np.int64(2): 2}, {"a": 1, "np.int64(2)": 2}),
        ({Name.FIRST: 1, Colour.RED: 2, (1, "a"): 3, b"b": 4}, {"first": 1, "<Colour.RED: 1>": 2, "(1, 'a')": 3, "b'b'": 4}),
        ({float("nan"): 1}, {"nan": 1}),
    ],
    ids=range(10),
)  # fmt: skip
def test_no_two_keys_become_one(value: dict[object, object], expected: dict[str, object] | None) -> None:
    """Keys become texts; the later of two that come out alike gets its position, and no value is lost."""
    read = checked(value)
    if expected is not None:
        assert read == expected
    assert len(read) == len(value)


def test_a_cut_mark_takes_no_ones_key() -> None:
    """A user's own ``…`` stands beside it."""
    read = checked({"…": "theirs", **{str(number): number for number in range(2_000)}})
    assert (read["…"], read["… (1001)"]) == ("theirs", "1001 more")
    assert len(read) == 1_001


def test_cycles_end_where_they_close() -> None:
    """In lists, dictionaries and dataclasses; a value that is merely used twice is shown twice."""
    cycle: list[object] = [1]
    cycle.append(cycle)
    assert checked(cycle) == [1, "…"]
    loop: dict[str, object] = {"a": 1}
    loop["self"] = {"loop": loop}
    assert checked(loop) == {"a": 1, "self": {"loop": "…"}}
    node = Node("n")
    node.next = [node]
    assert checked(node) == {"name": "n", "next": ["…"]}
    twice = [1]
    assert checked([twice, twice]) == [[1], [1]]


def test_depth_is_bounded() -> None:
    """A thousand levels, or a million, are as cheap as sixteen."""
    deep: object = "bottom"
    for _ in range(100_000):
        deep = [deep]
    assert dumps(deep) == b"[" * 16 + '"…"'.encode() + b"]" * 16


def test_width_is_bounded() -> None:
    """The first thousand items are shown, and how many there are besides."""
    assert checked(list(range(1_005)))[-1] == "… 5 more"
    assert checked({str(number): number for number in range(1_005)})["…"] == "5 more"
    assert checked(set(range(1_005)))[-1] == "… 5 more"
    wide = dataclasses.make_dataclass("Wide", [(f"field_{number}", int, 0) for number in range(1_005)])
    assert checked(wide())["…"] == "5 more"


def test_the_whole_is_bounded() -> None:
    """However many values of whatever length, and however often one of them is used."""
    shared: object = "x" * 10_000
    for _ in range(10):
        shared = [shared] * 100
    long = checked({"shared": shared, "texts": ["\x01" * 10_000] * 1_000, "after": 1})
    assert len(json.dumps(long)) < MOST_BYTES
    many = checked([[["\ud800" * 9] * 1_000] * 1_000] * 1_000)
    assert len(json.dumps(many)) < MOST_BYTES
    assert checked({"k" * 8_000 + str(number): number for number in range(500)})


def test_other_threads_may_change_a_dictionary_that_is_logged() -> None:
    """What is shown is a moment of it, not an error."""
    shared = dict.fromkeys(map(str, range(500)), 0)
    stop = threading.Event()

    def change() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            shared[f"new {number % 50}"] = number
            shared.pop(f"new {(number + 7) % 50}", None)

    thread = threading.Thread(target=change)
    thread.start()
    try:
        for _ in range(50):
            assert "when read" not in checked({"shared": shared})["shared"].get("…", "")
    finally:
        stop.set()
        thread.join()


def test_ctrl_c_is_not_kept_from_the_job() -> None:
    """What is no `Exception` goes on, even out of a value's ``repr``."""

    class Interrupting:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dumps({"a": Interrupting()})


def test_a_deep_stack_is_no_reason_to_raise() -> None:
    """A recursion that logs at its bottom gets a line, or the marks of what could not be read."""

    def descend(value: object) -> bytes:
        try:
            return descend(value)
        except RecursionError:
            return dumps_or_nothing(value)

    def dumps_or_nothing(value: object) -> bytes:
        try:
            return dumps(value)
        except RecursionError:
            return b"null"

    json.loads(descend({"a": [{"b": [1, object()]}]}))


EVIL_VALUES = [value for value, _ in EVIL if type(value) not in (Endless, MagicMock)]

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates() | st.decimals()
    | st.datetimes(timezones=st.none() | st.timezones()) | st.timedeltas() | st.complex_numbers() | st.uuids()
    | st.text(st.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp"))) | st.integers(0, len(EVIL_VALUES) - 1).map(lambda number: EVIL_VALUES[number])
    | st.integers(-(10**400), 10**400) | st.floats().map(np.float64) | st.floats(width=32).map(np.float32)
    | st.lists(st.floats(), max_size=40).map(np.array)
)  # fmt: skip
KEYS = (
    st.text() | st.integers(-2, 2) | st.sampled_from(["-1", "0", "1", "None", "True", "…"]) | st.none() | st.booleans()
)
NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5) | st.tuples(inner, inner)
        | st.builds(Node, st.text(), inner) | inner.map(lambda value: MappingProxyType({"proxy": value}))
    ),
    max_leaves=25,
)  # fmt: skip


@hypothesis_settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(NESTED)
def test_any_value_is_one_valid_line(value: object) -> None:
    """Nothing raises, nothing is forged, and every parser reads the same."""
    checked(value)
    checked({"context": {"given": value}})


@given(st.recursive(st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
                    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner)))  # fmt: skip
def test_plain_json_is_left_as_it_is(value: object) -> None:
    """What JSON can say is said exactly."""
    assert checked(value) == value
    assert to_plain(value) == value


@given(st.text() | st.text(st.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp"))))
def test_a_text_is_made_one_line_that_steers_nothing(text: str) -> None:
    """Every other character stays, and the whole can be written as UTF-8."""
    line = one_line(text)
    assert not UNSAFE.search(line)
    line.encode("utf-8")
    if not UNSAFE.search(text) and text.encode("utf-8", "ignore").decode() == text:
        assert line == text


def test_escapes_show_what_stood_there() -> None:
    """As Python would write it."""
    assert one_line("a\nb\x1b[31m\u202e\u200f\ud800é🙂") == "a\\nb\\x1b[31m\\u202e\\u200f\\ud800é🙂"
    assert dumps("\x7f\x85\u2028\u202e\u061c\u200f") == b'"\\u007f\\u0085\\u2028\\u202e\\u061c\\u200f"'


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (1_768_469_425.123456, "2026-01-15T09:30:25.123456Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (-62_135_596_800, "0001-01-01T00:00:00.000000Z"),
        (1.9999999, "1970-01-01T00:00:02.000000Z"),
    ],
)
def test_a_moment_has_always_the_same_width(seconds: float, text: str) -> None:
    """Six digits and ``Z``, so that lines sort by time."""
    assert rfc3339(seconds) == text
