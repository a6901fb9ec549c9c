"""Redaction: what a name or a pattern hides reaches no file, console, alert or mail, and nothing else is touched."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import string
import tempfile
import uuid
from argparse import Namespace
from collections import UserList, UserString, deque
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, Field

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._alert_records import bounded_text
from ml_pipeline.config._audit import verify
from ml_pipeline.config._encoding import AUDIT_EXEMPT, LINE_EXEMPT, MAX_CHARACTERS, to_plain
from ml_pipeline.config._failures import error_info
from ml_pipeline.config._redaction import HIDDEN_WORDS, LONGEST_MATCH, REDACTED, Redaction, current
from ml_pipeline.config.alerting import alert_manager
from ml_pipeline.config.data_lineage import lineage_tracker
from ml_pipeline.config.logging_config import audit_logger, get_logger, log_operation, main_logger
from ml_pipeline.config.operation_logger import operation_logger
from ml_pipeline.report.summary import RunRecorder, write_summary
from tests.config.alerting_world import mail_server
from tests.support import eventually

LOGS = Path("ml_pipeline/logs")
KEY = "sk-[a-z0-9]{12}"
"""What a pattern finds in the tests: keys like ``sk-0123456789ab``."""

HIDING = ["password", "db_password", "apiKey", "X-Api-Key", "Authorization", "AWS_SECRET", "ssn"]
SHOWING = ["max_tokens", "primary_key", "name", "api", "key", "tokens", "password_hash", "a b", "é", "x"]
PLAIN = Redaction(["ssn"])
PATTERNED = Redaction(["ssn"], [KEY])


@pytest.mark.parametrize(
    "name",
    [
        *HIDDEN_WORDS,
        *(f"db_{name}" for name in HIDDEN_WORDS),
        *(name.upper() for name in HIDDEN_WORDS),
        *("dbPassword", "DBPassword", "userAPIKey", "apiKey", "OAuth2Token", "Set-Cookie", "X-Api-Key"),
        *("Proxy-Authorization", "spark.ssl.keyPassword", "client secret", "token_", "__token", "_private__key"),
        "x" * 500 + "_token",
    ],
)
def test_a_name_hides_by_its_last_word_or_two(name: str) -> None:
    """However its words are put together."""
    assert Redaction().hides(name)


@pytest.mark.parametrize(
    "name",
    [
        *("max_tokens", "primary_key", "tokens", "token_id", "password_hash", "secretary", "passwords", "key", "api"),
        *("apikey", "keyApi", "cookies", "user_id", "author", "", "_", "tokenizer", "credentialed", "private", "é"),
    ],
)
def test_other_names_hide_nothing(name: str) -> None:
    """A longer word is another word, and so is one that stands further to the front."""
    assert not Redaction().hides(name)


def test_settings_add_names_of_any_number_of_words() -> None:
    """They are read as the names of fields are."""
    redaction = Redaction(["ssn", "dateOfBirth", "Straße", "__"])
    for name in ("patient_ssn", "SSN", "date_of_birth", "mother_dateOfBirth", "date-of-birth", "straße"):
        assert redaction.hides(name)
    for name in ("ssn_count", "of_birth", "birth", "date", ""):
        assert not redaction.hides(name)


def test_it_is_the_redaction_of_the_settings_in_force() -> None:
    """Also after they change."""
    assert not current().hides("ssn")
    assert not current().patterned
    with _runtime.override(redact_keys="ssn", redact_patterns=KEY):
        assert current().hides("ssn")
        assert current().text("a sk-0123456789ab b") == "a [redacted] b"
        assert current() is current()
    assert not current().hides("ssn")


def test_what_is_remembered_is_bounded() -> None:
    """Names made up by the million are judged, not kept."""
    redaction = Redaction()
    for number in range(10_000):
        assert not redaction.hides(f"name_{number}")
        assert redaction.hides(f"name{number}_token")
    assert len(redaction._known) <= 4_096


# values


def leaves() -> st.SearchStrategy[Any]:
    """Values that JSON has too, and secrets of the pattern among them."""
    secret = st.from_regex(KEY, fullmatch=True)
    return (
        st.none()
        | st.booleans()
        | st.integers(-(2**53), 2**53)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=20)
        | secret
        | st.tuples(st.text(max_size=5), secret, st.text(max_size=5)).map("".join)
    )


def trees(names: list[str]) -> st.SearchStrategy[Any]:
    """Nested values with fields of these names."""
    return st.recursive(
        leaves(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(names), inner, max_size=4),
        max_leaves=20,
    )


def expected(value: Any, hidden: bool = False) -> Any:
    """Say by the rule itself what must come out."""
    if isinstance(value, dict):
        return {name: expected(item, hidden or name in HIDING) for name, item in value.items()}
    if isinstance(value, list):
        return [expected(item, hidden) for item in value]
    if isinstance(value, str):
        return REDACTED if hidden else value
    return value


@given(trees(HIDING + SHOWING))
def test_below_a_hidden_name_every_text_is_hidden_and_nothing_else(value: Any) -> None:
    """At any depth; names, numbers and all that stands elsewhere are as without redaction."""
    assert to_plain(value, PLAIN) == to_plain(expected(value))


@given(trees(SHOWING))
def test_where_no_name_hides_nothing_is_changed(value: Any) -> None:
    """The same value comes out."""
    assert to_plain(value, PLAIN) == to_plain(value)


@given(trees(HIDING + SHOWING))
def test_no_match_of_a_pattern_is_left(value: Any) -> None:
    """In texts, nor in names."""
    assert not re.search(KEY, json.dumps(to_plain(value, PATTERNED)))


@given(trees(HIDING + SHOWING), st.sampled_from([PLAIN, PATTERNED]))
def test_redacting_twice_is_redacting_once(value: Any, redaction: Redaction) -> None:
    """A text passes through more than one door on its way."""
    once = to_plain(value, redaction)
    assert to_plain(once, redaction) == once


@dataclasses.dataclass
class Login:
    """What is not a dictionary has names too."""

    user: str
    password: Any


def test_what_becomes_a_text_is_a_text() -> None:
    """Bytes, paths, moments, objects; what stays a number stays."""
    values = [b"x", Path("x"), Login("ann", "x"), {"deep": [("x", 1)]}, object(), 2**70, ValueError("x")]
    assert to_plain({"token": [uuid.UUID(int=7), Decimal("1.5")]}, Redaction()) == {"token": [REDACTED, REDACTED]}
    for value in values:
        told = json.dumps(to_plain({"token": value}, Redaction()))
        assert "x" not in told.replace("0x", "")
        assert REDACTED in told
    assert to_plain({"token": [1, 2.5, None, True, ""]}, Redaction()) == {"token": [1, 2.5, None, True, REDACTED]}
    assert to_plain(Login("ann", "x"), Redaction()) == {"user": "ann", "password": REDACTED}


class Pair(NamedTuple):
    """A list whose places have names."""

    user: str
    password: Any


ACCOUNTS = np.array(
    [("ann", "x", (7, "x"))],
    dtype=[("user", "U9"), ("password", "U9"), ("session", [("number", int), ("token", "U9")])],
)

CONTAINERS = [
    (Pair("ann", "x"), ["ann", REDACTED]),
    (Pair("ann", ["x", 1]), ["ann", [REDACTED, 1]]),
    (SimpleNamespace(user="ann", password="x"), {"user": "ann", "password": REDACTED}),
    (Namespace(password="x", rows=3), {"password": REDACTED, "rows": 3}),
    (deque([{"token": "x"}, 1]), [{"token": REDACTED}, 1]),
    (UserList([{"token": "x"}]), [{"token": REDACTED}]),
    ({"a": {"token": "x"}}.values(), [{"token": REDACTED}]),
    ({"user": "ann", "token": "x"}.items(), [["user", "ann"], ["token", REDACTED]]),
    (pd.Series({"user": "ann", "password": "x"}), ["ann", REDACTED]),
    (pd.Series(["x", 1], name="token"), [REDACTED, 1]),
    (pd.Series([{"token": "x"}]), [{"token": REDACTED}]),
    (pd.Index(["x"], name="token"), [REDACTED]),
    (np.array([("x", 1)], dtype=[("token", "U9"), ("n", int)]), [[REDACTED, 1]]),
    (np.array(["ann", None], dtype=object), ["ann", None]),
    (ACCOUNTS, [["ann", REDACTED, [7, REDACTED]]]),
    (ACCOUNTS[0], ["ann", REDACTED, [7, REDACTED]]),
    (ACCOUNTS.reshape(()), ["ann", REDACTED, [7, REDACTED]]),
    (ACCOUNTS.view(np.recarray)[0], ["ann", REDACTED, [7, REDACTED]]),
    (np.zeros((), [("token", "U2", (2,)), ("n", int, (2,))]), [[REDACTED, REDACTED], [0, 0]]),
    ((1, "ann"), [1, "ann"]),
    (range(3), "range(0, 3)"),
    (UserString("ann"), "'ann'"),
]


@pytest.mark.parametrize(("value", "shown"), CONTAINERS, ids=lambda value: type(value).__name__)
def test_names_count_in_any_common_container(value: object, shown: object) -> None:
    """Wherever a container keeps them: a named tuple, a namespace, an index, a column; items are looked into."""
    for redaction in (PLAIN, PATTERNED):
        assert to_plain(value, redaction) == shown
        assert to_plain({"deep": [value]}, redaction) == {"deep": [shown]}


class Account(BaseModel, extra="allow"):
    """What a service reads from a request."""

    user: str
    password: str
    keys: dict[str, Any] = {}
    pin: str = Field("1234", repr=False)
    held: Any = None


def test_fields_of_a_pydantic_model_have_names() -> None:
    """Those that its ``repr`` shows, given beyond the declared ones too; models inside models, and cycles, as ever."""
    account = Account(user="ann", password="x", keys={"api_key": "x", "n": 1}, session_token="x")
    shown = {"user": "ann", "password": REDACTED, "keys": {"api_key": REDACTED, "n": 1}, "held": None}
    for redaction in (PLAIN, PATTERNED):
        assert to_plain(account, redaction) == {**shown, "session_token": REDACTED}
    account.held = account
    assert to_plain([account], PLAIN) == [{**shown, "held": "…", "session_token": REDACTED}]
    assert to_plain({"secret": Account(user="ann", password="x")}, PLAIN)["secret"]["user"] == REDACTED
    assert to_plain(Account, PLAIN) == f"{__name__}.Account"
    assert to_plain(Account(user="ann", password="x")).startswith("Account(user='ann', password='x'"), "ids stay"


def test_fields_of_an_attrs_class_have_names() -> None:
    """Those that its ``repr`` shows, in the words it has for them."""
    attrs = pytest.importorskip("attrs")
    fields = {
        "user": attrs.field(),
        "password": attrs.field(),
        "pin": attrs.field(default="1234", repr=False),
        "card": attrs.field(default="4111", repr=lambda value: f"…{value[-1]}"),
        "rows": attrs.field(default=3),
        "late": attrs.field(init=False),
    }
    for slots in (True, False):
        login: Any = attrs.make_class("Login", fields, slots=slots)("ann", "x")
        login.late = "now"
        shown = {"user": "ann", "password": REDACTED, "card": "…1", "rows": 3, "late": "now"}
        assert to_plain({"deep": [login]}, PLAIN) == {"deep": [shown]}
        del login.late
        told = to_plain(login, PLAIN)
        assert told.pop("…") == "AttributeError when read"
        assert told == {name: shown[name] for name in ("user", "password", "card", "rows")}


@dataclasses.dataclass
class Connection:
    """What its ``repr`` leaves out is left out."""

    host: str
    pin: str = dataclasses.field(default="1234", repr=False)
    rows: int = 3


def test_a_dataclass_shows_what_its_repr_shows() -> None:
    """A field with ``repr=False`` is not told; without redaction, of which ids are made, all are."""
    assert to_plain([Connection("h")], PLAIN) == [{"host": "h", "rows": 3}]
    assert to_plain([Connection("h")]) == [{"host": "h", "pin": "1234", "rows": 3}]
    made = dataclasses.make_dataclass("Made", [("a", int, 1)], bases=(Connection,))("h")
    assert to_plain(made, PLAIN) == {"host": "h", "rows": 3, "a": 1}
    silent = dataclasses.make_dataclass("Silent", [("a", int)], repr=False)(1)
    assert to_plain(silent, PLAIN) == {"a": 1}


@dataclasses.dataclass
class Masking:
    """What it shows is its own affair, but for what names hide."""

    host: str
    pin: str
    password: Any = ""
    told: str = "***"

    def __repr__(self) -> str:
        return f"Masking({self.host!r}, pin=***, {self.told})"


def test_the_repr_that_somebody_wrote_for_a_class_stands_for_it() -> None:
    """It may mask what no name hides; what a name hides, however deep, does not come back by it."""
    for redaction in (PLAIN, PATTERNED):
        assert to_plain(Masking("h", "1234"), redaction) == "Masking('h', pin=***, ***)"
        assert to_plain({"token": Masking("h", "1234")}, redaction) == {"token": REDACTED}
        for password in ("hunter2", "hun\nter'2\\", b"hunter2", ["hunter2"], {"deep": ("hunter2",)}):
            value = Masking("h", "1234", password, told=f"{password} {password!r}")
            told = json.dumps([to_plain(value, redaction), to_plain(Masking("h", "1", "2", repr(value)), redaction)])
            assert "hunter2" not in told
            assert "ter'2" not in told
            assert told.startswith("[\"Masking('h', pin=***, ")
    inner = Masking("h", "1234", "hunter2", told="hunter2")
    outer = Masking("h", "1234", told=repr(inner))
    outer.host = inner  # type: ignore[assignment]
    assert "hunter2" not in to_plain(outer, PLAIN)
    assert to_plain(Masking("h", "1234")) == {"host": "h", "pin": "1234", "password": "", "told": "***"}


def test_what_cannot_be_searched_for_is_not_told() -> None:
    """A text hidden below the depth that is read might stand in the ``repr`` of a class."""
    deep: Any = {"password": "hunter2"}
    for _ in range(20):
        deep = [deep]
    assert to_plain(Masking("h", "1", deep, told=repr(deep)), PLAIN) == "<Masking: …>"
    assert to_plain(_Cyclic(None), PLAIN) == "in own words"


def test_the_repr_of_a_class_is_bounded() -> None:
    """In length, where half a hidden text is one too, and in how much is searched for."""
    secret = "hunter2" * 500
    assert "hunter2" not in to_plain(Masking("h", "1", secret, told=secret * 100 + "x" * 10_000_000), PLAIN)
    long = Masking("h", "1", "hunter2", told="hunter2 told " * 100_000)
    assert REDACTED in to_plain(long, PLAIN)
    assert "hunter2" not in to_plain(long, PLAIN)
    assert len(to_plain(long, PLAIN)) < MAX_CHARACTERS + 100
    many = [f"word {number}" for number in range(1_000)]
    assert to_plain(Masking("h", "1", many, told=repr(many) * 1_000), PLAIN) == "<Masking: …>"


def test_the_repr_of_attrs_and_pydantic_classes_likewise() -> None:
    """Generated ones show the fields; one that somebody wrote stands for the value."""
    attrs = pytest.importorskip("attrs")

    class Words(Account):
        def __repr__(self) -> str:
            return f"{self.user} by {self.password}"

    assert to_plain(Words(user="ann", password="hunter2"), PLAIN) == f"ann by {REDACTED}"

    @attrs.define
    class Told:
        user: str
        password: str

        def __repr__(self) -> str:
            return f"{self.user} by {self.password}"

    assert to_plain(Told("ann", "hunter2"), PLAIN) == f"ann by {REDACTED}"


@dataclasses.dataclass
class _Cyclic:
    """It has itself inside, as nodes have their parents."""

    itself: Any

    def __post_init__(self) -> None:
        self.itself = self

    def __repr__(self) -> str:
        return "in own words"


def test_a_class_that_only_looks_like_one_is_printed() -> None:
    """By a name it happens to have, of another sort."""

    class Regression:
        model_fields = {"password": 1}  # noqa: RUF012
        __attrs_attrs__ = "none"

        def __repr__(self) -> str:
            return "Regression()"

    assert to_plain(Regression(), PLAIN) == "Regression()"


def test_many_fields_are_bounded_as_any_container() -> None:
    """In width; what is left out is marked."""
    wide = Account(user="ann", password="x", **{f"f{number}": number for number in range(2_000)})
    told = to_plain(wide, PLAIN)
    assert len(told) == 1_001
    assert told["…"] == "1004 more"


def test_a_container_that_closes_on_itself_ends() -> None:
    """As a dictionary does."""
    around: Any = SimpleNamespace(token="x", items=deque())
    around.items.append(around)
    assert to_plain(around, PLAIN) == {"token": REDACTED, "items": ["…"]}
    assert to_plain(deque(range(1_001)), PLAIN)[-1] == "… 1 more"


def test_names_without_a_redaction_are_made_as_ever() -> None:
    """What lies in a container is no part of the ids that were given: they must not change."""
    assert to_plain(deque([1])) == "deque([1])"
    assert to_plain(SimpleNamespace(a=1)) == "namespace(a=1)"
    assert to_plain(Pair("ann", "x")) == ["ann", "x"]


def test_a_name_that_clashes_hides_all_the_same() -> None:
    """The position it gets is not its last word."""
    assert to_plain({b"x_token": 1, "b'x_token'": "hunter2"}, Redaction()).popitem()[1] == REDACTED
    assert to_plain({"sk-0123456789ab": 1, "sk-0123456789ac": 2}, PATTERNED) == {REDACTED: 1, f"{REDACTED} (2)": 2}


def test_a_value_that_breaks_while_it_is_read_ends_the_hiding() -> None:
    """What stands beside it is shown."""

    class Broken(dict[str, Any]):
        def items(self) -> Any:
            raise OSError

    assert to_plain([{"token": Broken(a=1)}, {"name": "ann"}], Redaction())[1] == {"name": "ann"}
    assert to_plain({"token": Broken(a=1), "name": "ann"}, PATTERNED)["name"] == "ann"


def test_user_id_is_exempt_from_patterns_alone() -> None:
    """Whoever reads a log must learn who did it; a name on the list hides it below ``context``."""
    mail = Redaction((), [r"\S+@\S+"])
    value = {"user_id": "ann@example.org", "deep": [{"user_id": "ann@example.org", "to": "ann@example.org"}]}
    assert to_plain(value, mail) == {
        "user_id": "ann@example.org",
        "deep": [{"user_id": "ann@example.org", "to": REDACTED}],
    }
    inside = {"user_id": {"password": "x", "mail": "ann@example.org"}}
    assert to_plain(inside, mail) == {"user_id": {"password": REDACTED, "mail": REDACTED}}
    assert to_plain({"user_id": "ann"}, Redaction(["user_id"])) == {"user_id": REDACTED}
    assert to_plain({"token": {"user_id": "ann"}}, mail) == {"token": {"user_id": REDACTED}}


def test_fixed_names_are_never_hidden() -> None:
    """A line keeps its keys, its moment and its ids, whatever the settings say."""
    broad = Redaction(["id", "message", "level", "context", "action"], [".+"])
    line = {"timestamp": "2026", "message": "said", "user_id": "ann", "context": {"action": "read", "run_id": "1"}}
    assert to_plain(line, broad, LINE_EXEMPT) == {
        "timestamp": "2026",
        "message": REDACTED,
        "user_id": "ann",
        "context": {REDACTED: REDACTED, f"{REDACTED} (2)": REDACTED},
    }
    names = Redaction(["id", "message", "level", "context", "action"], ["said|read"])
    assert to_plain(line, names, LINE_EXEMPT)["context"] == {"action": REDACTED, "run_id": REDACTED}
    audited = to_plain(line, names, AUDIT_EXEMPT)
    assert (audited["message"], audited["context"]) == ("said", {"action": "read", "run_id": REDACTED})


# texts

SHORT_PATTERNS = ["a+", "b", "ab?c", "c$", "^a", "(?<=b)c", r"\bd\w*", "x*", "[ab]{3}"]


@given(st.text("abcd x", max_size=30), st.lists(st.sampled_from(SHORT_PATTERNS), min_size=1, max_size=3))
def test_what_is_matched_is_hidden_and_the_rest_is_kept(text: str, patterns: list[str]) -> None:
    """Each pattern sees the text as it was; matches that touch are one."""
    spans = [match.span() for pattern in patterns for match in re.finditer(pattern, text)]
    hidden = [any(start <= place < end for start, end in spans) for place in range(len(text))]
    parts = "".join("\0" if is_hidden else each for each, is_hidden in zip(text, hidden, strict=True))
    assert Redaction((), patterns).text(text) == re.sub("\0+", REDACTED, parts)


@given(st.text("abcd [redacted]", max_size=40) | st.sampled_from([REDACTED * 2, f"a{REDACTED}b"]))
def test_a_mark_stays_a_mark(text: str) -> None:
    """Patterns that match what was written in place of a secret change nothing more."""
    for pattern in ("[a-z]+", r"\w", ".+", "e", "redacted"):
        once = Redaction((), [pattern]).text(text)
        assert Redaction((), [pattern]).text(once) == once


@given(st.integers(0, 3 * LONGEST_MATCH), st.integers(1, LONGEST_MATCH))
@hypothesis_settings(max_examples=60)
def test_a_match_is_found_wherever_it_lies(before: int, length: int) -> None:
    """Texts are searched in pieces; no piece ends within a match."""
    text = "." * before + "<" + "x" * (length - 2) + ">" + "." * LONGEST_MATCH if length > 1 else "." * before + "<>"
    assert Redaction((), ["<x*>"]).text(text) == re.sub("<x*>", REDACTED, text)


@given(st.integers(0, 40), st.integers(0, 40))
def test_a_part_of_a_text_shows_no_part_of_a_match(start: int, stop: int) -> None:
    """Also where the match begins before the part, or ends after it."""
    text = "before sk-0123456789ab after sk-zyxwvutsrqpo"
    part = PATTERNED.text(text, start, max(start, stop))
    assert not set("0123456789zyxwvu") & set(part)
    assert PATTERNED.text(text, 0, 9) == "before [redacted]"
    assert PATTERNED.text(text, 10, 26) == "[redacted] aft"


def test_without_a_pattern_a_text_is_what_it_was() -> None:
    """The very object, for nothing need be done."""
    text = "x" * 100_000
    assert Redaction().text(text) is text
    assert PATTERNED.text("short") == "short"


@pytest.mark.parametrize("shift", range(16))
def test_a_secret_at_the_cut_is_hidden_whole(shift: int) -> None:
    """A text is searched before it is shortened: half a secret is one, too."""
    secret = "sk-0123456789ab"
    long = "." * (MAX_CHARACTERS - shift) + secret + "." * MAX_CHARACTERS
    for value in (long, long.encode(), ValueError(long[14:])):
        assert "sk-" not in str(to_plain(value, PATTERNED)).replace("ValueError", "")
    with _runtime.override(redact_patterns=KEY):
        error = error_info(ValueError(long))
        assert "sk-" not in error.message + error.stacktrace
        assert "sk-" not in bounded_text("." * (200 - shift) + secret)
        alert_manager.alert_processing_failure("a", error_of("." * shift + secret + "." * 7_990))
        get_logger("ml_pipeline").error("broken", exc_info=error_of("." * (32_700 - shift) + secret + "." * 99_000))
        alert_manager.flush()
        for path in written():
            assert b"0123" not in path.read_bytes()
            assert b"89ab" not in path.read_bytes()


def error_of(message: str) -> Exception:
    """Return an exception that has a traceback."""
    with pytest.raises(ValueError, match="sk-") as caught:
        raise ValueError(message)
    return caught.value


def written() -> list[Path]:
    """Every file there is."""
    return [path for path in Path().rglob("*") if path.is_file()]


# everywhere


def secrets() -> st.SearchStrategy[str]:
    """Texts that stand nowhere by chance."""
    return st.text(string.ascii_lowercase + string.digits, min_size=12, max_size=12).map("zq".__add__)


def say_everywhere(hidden: str, key: str) -> None:
    """Put a secret below hidden names, and one that a pattern finds, into everything that writes."""
    facts = {"db_password": hidden, "login": Login("ann", hidden), "note": f"with {key}!", key: 1}
    main_logger.info(f"said {key}", extra=log_operation(f"op {key}", "ann", **facts))
    main_logger.info("said", extra={"apiKey": hidden})
    main_logger.warning("%s", key, stack_info=True, extra={"headers": [{"Cookie": hidden, "Accept": "*"}]})
    get_logger("training.model_training").error("broken", exc_info=error_of(key))
    audit_logger.info("export", extra=log_operation(user_id="ann", object="data", token=hidden, purpose=key))
    alert_manager.alert_processing_failure(f"load {key}", error_of(key), secret={"a": [hidden]}, note=key)
    alert_manager.alert_data_quality("rows", message=f"bad {key}", private_key=hidden)
    lineage_tracker.track_data_ingestion("source", "data", credentials=hidden, note=key)
    operation_logger.log_prediction(features=[1], decision={"token": hidden, "note": key})
    with RunRecorder() as recorder:
        with pytest.raises(ValueError, match="sk-"), operation_logger.operation("training", **facts) as scope:
            raise ValueError(key)
        summary = recorder.summary(scope.run_id, passwd=hidden, notes=[key], deep={"token": [hidden]})
        write_summary(Path("runs"), summary)
    operation_logger.log_training_start(model_name=key, api_key=hidden)  # left open: it stands in the journal


@hypothesis_settings(max_examples=6)
@given(secrets(), st.from_regex(KEY, fullmatch=True), st.sampled_from(["json", "text"]))
def test_what_is_redacted_reaches_no_file_console_alert_or_mail(hidden: str, key: str, log_format: str) -> None:
    """All that is written is read again, byte for byte; the trail's chain holds."""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.chdir(tempfile.mkdtemp(dir=Path.cwd())),  # an alert that was raised before is not mailed again
        mail_server() as mailbox,
        _runtime.override(redact_patterns=KEY, log_format=log_format, log_console="on", log_level="DEBUG"),
    ):
        console = Console()
        patch.setattr("sys.stderr", console)
        around = _context.restore(dict.fromkeys(_context.VARIABLES))
        say_everywhere(hidden, key)
        alert_manager.flush()
        eventually(lambda: set(alert_manager.summary().deliveries["email"]) == {"sent"})  # in one mail, or in several
        _context.undo(around)
        texts = {str(path): path.read_bytes() for path in written()}
        texts |= {f"mail {number}": mail.as_bytes() for number, (_, mail) in enumerate(mailbox.received)}
        for number, (_, mail) in enumerate(mailbox.received):
            bodies = [str(part.get_content()) for part in mail.walk() if not part.is_multipart()]
            texts[f"mail {number}, decoded"] = "\n".join([*bodies, str(mail["Subject"])]).encode()
        texts["console"] = console.text.encode()
        texts["alerts"] = str(alert_manager.history()).encode()
        assert verify(LOGS / "audit.log").intact
    assert {name for name, text in texts.items() if hidden.encode() in text or key.encode() in text} == set()
    for name in ("console", "alerts", "mail 0, decoded", str(LOGS / "audit.log")):
        assert REDACTED.encode() in texts[name], name
    for part in ("operations/", "lineage/", "runs/"):
        assert any(part in name and REDACTED.encode() in text for name, text in texts.items()), part


@hypothesis_settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(HIDING + SHOWING), trees(HIDING + SHOWING), min_size=1, max_size=4), st.booleans()
)
def test_both_ways_of_a_record_hide_the_same(fields: dict[str, Any], is_plain: bool) -> None:
    """The short one of plain records, which no pattern keeps from being taken, and that of a ``LogRecord``."""
    with _runtime.override(redact_keys="ssn"):
        logger = get_logger("pipeline.data_quality", "short" if is_plain else "long")
        message: Any = "said" if is_plain else ValueError("said")
        logger.info(message, extra=log_operation(**fields))
    line = json.loads((LOGS / "pipeline/data_quality.log").read_bytes().splitlines()[-1])
    assert line["context"] == to_plain(expected(fields))


class Console:
    """A stream that keeps what it is given."""

    closed = False

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        """Keep it."""
        self.text += text

    def flush(self) -> None:
        """Do nothing."""


def test_numbers_and_other_fields_of_a_line_are_untouched() -> None:
    """What is hidden leaves no trace on what stands beside it."""
    main_logger.info("in", extra={"password": "x", "pin_token": 1234, "max_tokens": "512", "primary_key": "id"})
    line = json.loads((LOGS / "ml_pipeline.log").read_text().splitlines()[-1])
    assert line["context"] == {
        "password": REDACTED,
        "pin_token": 1234,
        "max_tokens": "512",
        "primary_key": "id",
    }


@pytest.mark.parametrize("key", [None, b"0123456789abcdef"])
def test_the_trail_keeps_who_and_what_and_its_chain(key: bytes | None, tmp_path: Path) -> None:
    """Patterns that match all of it leave user, action, object, version and result alone."""
    key_file = tmp_path / "key"
    key_file.write_bytes(key or b"")
    ml_pipeline.configure(redact_patterns="[a-z]+", audit_key_file=key_file if key else None)
    for _ in range(3):
        audit_logger.info(
            "export", extra=log_operation(user_id="ann", object="data", version="vee", result="success", why="because")
        )
    path = LOGS / "audit.log"
    line = json.loads(path.read_text().splitlines()[-1])
    assert (line["message"], line["user_id"]) == ("export", "ann")
    assert {name: line["context"][name] for name in ("action", "object", "version", "result")} == {
        "action": "export",
        "object": "data",
        "version": "vee",
        "result": "success",
    }
    assert b"because" not in path.read_bytes()
    report = verify(path, key)
    assert (report.intact, report.records) == (True, 3)


def test_ids_and_hashes_never_change_by_it() -> None:
    """A node is the same node, and features the same features, whatever is hidden of them."""

    def made() -> tuple[Any, ...]:
        ids = lineage_tracker.track_data_ingestion("source", "data", password="x", note="y")
        operation_logger.log_prediction(features={"token": "x"}, decision="yes")
        line = (LOGS / "inference/predictions.log").read_text().splitlines()[-1]
        return (*ids, json.loads(line)["context"]["features_hmac"])

    before = made()
    with _runtime.override(redact_keys="source_name,data,features", redact_patterns="s[a-z]+e|x"):
        assert made() == before


def test_what_telemetry_says_of_its_own_failures_is_redacted(capsys: pytest.CaptureFixture[str]) -> None:
    """The message of what a store or server answered may hold an address with a key in it."""
    with _runtime.override(redact_patterns=KEY, strict=False):
        for place in (0, 1_990, 9_000):
            with _runtime.guard(f"sink {place}"):
                raise OSError("." * place + "https://u:sk-0123456789ab@host")
    said = capsys.readouterr().err
    assert said.startswith("ml_pipeline: sink 0: OSError: https://u:[redacted]@host (counted in")
    assert said.count("\n") == 3
    assert "0123" not in said


def test_a_hidden_fact_is_not_said_in_the_message() -> None:
    """The decision of a prediction stands in both."""
    with _runtime.override(redact_keys="decision"):
        operation_logger.log_prediction(features=[1], decision="hunter2")
    text = (LOGS / "inference/predictions.log").read_text()
    assert "hunter2" not in text
    assert json.loads(text)["message"].endswith(f": {REDACTED}")
