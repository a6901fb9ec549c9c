from __future__ import annotations

import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.config import _ids
from ml_pipeline.config._ids import Uuid7Factory, content_id, new_id
from tests.processes import in_fork

MOMENT_NS = 1_700_000_000_123_456_789
PLAIN = st.text(st.characters(codec="utf-8")) | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.none()
IDENTITIES = st.dictionaries(st.text(st.characters(codec="utf-8")), PLAIN, max_size=8)


def test_an_identifier_is_a_uuid_of_version_7() -> None:
    """Any reader of UUIDs reads it: version, variant, and the moment it was made in milliseconds."""
    parsed = uuid.UUID(Uuid7Factory(clock_ns=lambda: MOMENT_NS)())
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == MOMENT_NS // 1_000_000
    made = new_id()
    assert str(uuid.UUID(made)) == made


def test_the_layout_is_that_of_the_standard() -> None:
    """48 bits of time, the version, a counter that starts at zero, the variant, and what the random source gave."""
    make = Uuid7Factory(clock_ns=lambda: MOMENT_NS, random=lambda count: b"\xff" * count)
    assert make() == "018bcfe5-687b-7000-bfff-ffffffffffff"
    assert make() == "018bcfe5-687b-7001-bfff-ffffffffffff"


@given(st.lists(st.integers(-(10**18), 2**62), min_size=2, max_size=50))
def test_identifiers_ascend_whatever_the_clock_does(moments: list[int]) -> None:
    """It may stand still, step back, or stand before the epoch."""
    clock: Iterator[int] = iter(moments)
    make = Uuid7Factory(clock_ns=lambda: next(clock))
    made = [make() for _ in moments]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert all((uuid.UUID(each).version, uuid.UUID(each).variant) == (7, uuid.RFC_4122) for each in made)


def test_more_identifiers_than_the_counter_holds_still_ascend() -> None:
    """Within one millisecond; the time then runs ahead by one."""
    make = Uuid7Factory(clock_ns=lambda: MOMENT_NS)
    made = [make() for _ in range(10_000)]
    assert made == sorted(set(made))


def test_threads_share_a_factory() -> None:
    """Each thread's identifiers ascend, and none is given twice."""
    made: list[list[str]] = []
    together = threading.Barrier(8)

    def make() -> None:
        together.wait()
        made.append([new_id() for _ in range(500)])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(each == sorted(each) for each in made)
    assert len({each for some in made for each in some}) == 4_000


def test_a_forked_child_makes_its_own() -> None:
    """Even where another thread of the parent was just making one."""
    is_held, may_end = threading.Event(), threading.Event()

    def hold() -> None:
        with new_id._lock:
            is_held.set()
            may_end.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    is_held.wait()
    try:
        theirs = in_fork(lambda: [new_id() for _ in range(10)])
    finally:
        may_end.set()
        thread.join()
    assert not {new_id() for _ in range(10)} & set(theirs)


def test_a_signal_handler_may_make_one() -> None:
    """Also where it interrupts the making of one."""
    with new_id._lock:
        assert new_id() < new_id()


def test_what_a_thing_is_decides_its_identifier() -> None:
    """The first 24 digits of the SHA-256 over the canonical JSON, as anyone can compute them."""
    canonical = '{"name":"ADNI_2024","type":"dataset","version":"é"}'.encode()
    identity = {"type": "dataset", "name": "ADNI_2024", "version": "é"}
    assert content_id("dataset", identity) == "dataset:" + hashlib.sha256(canonical).hexdigest()[:24]
    assert content_id("model", {}) == "model:" + hashlib.sha256(b"{}").hexdigest()[:24]


@given(IDENTITIES)
def test_the_canonical_form_is_that_of_the_standard_library(identity: dict[str, object]) -> None:
    """Keys sorted, no white space, UTF-8: every language can make it."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert content_id("x", identity) == "x:" + hashlib.sha256(canonical).hexdigest()[:24]


@given(IDENTITIES, st.randoms())
def test_the_order_of_keys_does_not_matter(identity: dict[str, object], random: Random) -> None:
    """Two processes may collect the same facts in different order."""
    shuffled = list(identity.items())
    random.shuffle(shuffled)
    assert content_id("x", identity) == content_id("x", dict(shuffled))


@given(IDENTITIES, IDENTITIES)
def test_different_things_have_different_identifiers(one: dict[str, object], other: dict[str, object]) -> None:
    """A number is not its text, and nothing is not missing."""
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (content_id("x", one) == content_id("x", other)) == same


@pytest.mark.parametrize("value", [object(), 2**64, "\ud800"], ids=["object", "large", "surrogate"])
def test_what_has_no_canonical_form_is_refused(value: object) -> None:
    """Better than an identifier that another process would not find again."""
    with pytest.raises(TypeError):
        content_id("x", {"value": value})


def test_the_module_says_what_it_offers() -> None:
    """Nothing else is for others."""
    assert sorted(_ids.__all__) == ["Uuid7Factory", "content_id", "new_id"]
