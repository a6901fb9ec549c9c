"""Group commit: many threads wait for the disk together, and nobody waits for ever."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline.config import _audit_chain, _audit_journal
from ml_pipeline.config._audit import AuditReport, AuditTrail, verify
from ml_pipeline.config._audit_chain import record_bodies
from ml_pipeline.config._audit_commit import GroupCommit
from ml_pipeline.config._audit_journal import journal_path
from tests.config.audit_kit import lines_of
from tests.support import eventually

THREADS = 8


def _threads(work: Callable[[int], object], count: int = THREADS) -> list[threading.Thread]:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_who_waits_meanwhile_is_written_together() -> None:
    """While one commit is under way, the records of all other threads gather for the next one."""
    batches: list[list[bytes]] = []
    going, go_on = threading.Event(), threading.Event()

    def commit(bodies: list[bytes]) -> None:
        batches.append(bodies)
        going.set()
        go_on.wait(30)

    group = GroupCommit(commit)
    first = _threads(lambda _: group.put([b"first"]), 1)
    assert going.wait(30)
    others = _threads(lambda number: group.put([b"%d" % number, b"%d" % number]))
    eventually(lambda: len(group._queue) == THREADS + 1)
    go_on.set()
    for thread in first + others:
        thread.join(30)
    assert batches[0] == [b"first"]
    assert len(batches) == 2
    assert sorted(batches[1]) == sorted([b"%d" % number for number in range(THREADS)] * 2)
    assert all(batches[1][at] == batches[1][at + 1] for at in range(0, 2 * THREADS, 2)), (
        "a call's records stay together"
    )


def test_one_wait_for_the_disk_serves_many_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight threads cause far fewer waits for the disk than they write records."""
    waits: list[int] = []
    real = _audit_journal.synchronise

    def synchronise(descriptor: int) -> None:
        waits.append(descriptor)
        real(descriptor)

    monkeypatch.setattr(_audit_journal, "synchronise", synchronise)
    trail = AuditTrail(tmp_path / "audit.log")
    ready = threading.Barrier(THREADS)

    def write(number: int) -> None:
        ready.wait(30)
        for at in range(25):
            trail.append({"message": f"{number}:{at}"})

    for thread in _threads(write):
        thread.join()
    trail.close()
    messages = [json.loads(line)["message"] for _, _, line in lines_of(tmp_path / "audit.log")]
    for number in range(THREADS):
        own = [message for message in messages if message.startswith(f"{number}:")]
        assert own == [f"{number}:{at}" for at in range(25)], "in the order of its thread"
    assert len(waits) < len(messages)
    assert verify(tmp_path / "audit.log") == AuditReport(intact=True, records=25 * THREADS)


def test_a_batch_waits_once_and_stands_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`append_all` writes its records one behind the other with a single wait."""
    waits: list[int] = []
    monkeypatch.setattr(_audit_journal, "synchronise", waits.append)
    trail = AuditTrail(tmp_path / "audit.log")
    trail.append_all({"message": str(number)} for number in range(1000))
    trail.append_all([])
    assert len(waits) == 2
    assert verify(tmp_path / "audit.log") == AuditReport(intact=True, records=1000)


def test_a_failure_reaches_everyone_who_waited_and_no_one_else() -> None:
    """All whose records were in a failed commit are told; the next commit is as good as any."""
    going, go_on = threading.Event(), threading.Event()
    commits: list[int] = []

    def commit(bodies: list[bytes]) -> None:
        commits.append(len(bodies))
        if len(commits) == 1:
            going.set()
            go_on.wait(30)
        if len(commits) == 2:
            raise OSError(28, "No space left on device")

    group = GroupCommit(commit)
    told: list[str] = []

    def put(name: str) -> None:
        try:
            group.put([b"x"])
        except OSError as failed:
            told.append(f"{name}: {failed.strerror}")
        else:
            told.append(f"{name}: written")

    first = _threads(lambda _: put("first"), 1)
    assert going.wait(30)
    others = _threads(lambda _: put("other"), 3)
    eventually(lambda: len(group._queue) == 4)
    go_on.set()
    for thread in first + others:
        thread.join(30)
    put("last")
    assert sorted(told) == ["first: written", "last: written"] + ["other: No space left on device"] * 3


def test_ctrl_c_while_waiting_leaves_the_others_going() -> None:
    """A waiting thread that is interrupted leaves its record to be written, and somebody else writes."""
    written: list[bytes] = []
    going, go_on = threading.Event(), threading.Event()

    def commit(bodies: list[bytes]) -> None:
        going.set()
        go_on.wait(30)
        written.extend(bodies)

    group = GroupCommit(commit)
    first = _threads(lambda _: group.put([b"first"]), 1)
    assert going.wait(30)
    signal_at = threading.Timer(0.05, lambda: os.kill(os.getpid(), signal.SIGINT))
    signal_at.start()
    with pytest.raises(KeyboardInterrupt):
        group.put([b"interrupted"])
    signal_at.join()
    others = _threads(lambda _: group.put([b"other"]), 2)
    eventually(lambda: len(group._queue) == 4)
    go_on.set()
    for thread in first + others:
        thread.join(30)
    assert sorted(written) == [b"first", b"interrupted", b"other", b"other"]


def test_ctrl_c_in_the_middle_of_a_commit_loses_nobody_else() -> None:
    """The thread that writes for others is interrupted: theirs are written by the next one."""
    written: list[bytes] = []
    queued = threading.Event()

    def commit(bodies: list[bytes]) -> None:
        if not written and b"mine" in bodies and not queued.is_set():
            eventually(lambda: len(group._queue) == 3)
            queued.set()
            raise KeyboardInterrupt
        written.extend(bodies)

    group = GroupCommit(commit)
    started = threading.Event()

    def other(_: int) -> None:
        started.wait(30)
        group.put([b"other"])

    others = _threads(other, 2)
    started.set()
    while not queued.is_set():
        try:
            group.put([b"mine"])
        except KeyboardInterrupt:
            break
        others += _threads(other, 2)
        written.clear()
    for thread in others:
        thread.join(30)
    group.put([])
    assert all(not thread.is_alive() for thread in others)
    assert b"other" in written
    assert not group._queue


def test_what_is_on_disk_is_not_written_again() -> None:
    """An interruption after that, anywhere in the commit, leaves the records done."""
    written: list[bytes] = []

    def commit(bodies: list[bytes]) -> None:
        written.extend(bodies)
        group.settle()
        if b"mine" in bodies:
            raise KeyboardInterrupt

    group = GroupCommit(commit)
    with pytest.raises(KeyboardInterrupt):
        group.put([b"mine"])
    group.put([b"later"])
    assert written == [b"mine", b"later"]
    assert not group._queue


def test_a_failure_after_the_records_are_on_disk_is_none_of_theirs() -> None:
    """Their caller must not write them again."""

    def commit(bodies: list[bytes]) -> None:
        group.settle()
        raise OSError(9, "Bad file descriptor")

    group = GroupCommit(commit)
    group.put([b"mine"])
    assert not group._queue


POINTS = 600
_WRITING = ("_audit.py", "_audit_files.py", "_audit_head.py", "_audit_journal.py")


def _interrupted(action: Callable[[], object], point: int) -> tuple[bool, bool]:
    """Run it, and raise at one line of the writing; whether it returned, and whether it came past that line.

    In a thread of its own: CPython forgets to leave the handlers that such an exception has left.
    """
    left, has_returned = point, False

    def step(frame: FrameType, event: str, _: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(_WRITING):
            return None if event == "call" else step
        left -= event in {"line", "return"}
        if left == 0 and event == "line":
            raise KeyboardInterrupt
        return step

    def run() -> None:
        nonlocal has_returned
        sys.settrace(step)
        try:
            action()
            has_returned = True
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(60)
    return has_returned, left <= 0


@pytest.mark.parametrize("few", [0, POINTS * POINTS], ids=["with a journal", "without"])
def test_an_exception_at_any_point_writes_no_record_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    """As a signal handler raises one between any two lines: a record that was told as written stands there once."""
    monkeypatch.setattr(_audit_journal, "_FEW", few)
    monkeypatch.setattr(_audit_journal, "_ROOM", 4_096)
    trail = AuditTrail(tmp_path / "audit.log")
    trail.append({"message": "first"})
    assert journal_path(tmp_path / "audit.log").exists() == (few == 0)
    told, point, was_reached = {"first"}, 0, True
    while was_reached and point < POINTS:
        point += 1
        message = f"record {point}"
        has_returned, was_reached = _interrupted(partial(trail.append, {"message": message}), point)
        told |= {message} if has_returned else set()
    trail.append({"message": "last"})
    trail.close()
    messages = [json.loads(line)["message"] for _, _, line in lines_of(tmp_path / "audit.log")]
    assert not was_reached
    assert len(messages) == len(set(messages))
    assert told < set(messages)
    assert verify(tmp_path / "audit.log").intact


def test_a_signal_handler_inside_a_commit_does_not_wait_for_itself() -> None:
    """What it writes is taken along by the commit it has interrupted."""
    written: list[list[bytes]] = []

    def commit(bodies: list[bytes]) -> None:
        written.append(bodies)
        if len(written) == 1:
            group.put([b"handler"])

    group = GroupCommit(commit)
    group.put([b"main"])
    assert written == [[b"main"], [b"handler"]]


def test_closing_inside_a_write_is_left_undone() -> None:
    """A handler that closes the trail in the middle of its write leaves the file to the write."""
    done: list[str] = []
    group = GroupCommit(lambda bodies: group.alone(lambda: done.append("closed")))
    group.put([b"main"])
    assert done == []
    group.alone(lambda: done.append("closed"))
    assert done == ["closed"]


plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4)
names = st.text(max_size=6) | st.sampled_from(["seq", "prev", "hash", "head", "password", "user_id", "object", "n"])
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))


@given(st.dictionaries(names, values, max_size=5))
def test_the_short_way_writes_the_same_bytes(fields: dict[str, Any]) -> None:
    """A record that is encoded without looking closer has the bytes it would have had anyhow."""
    short = record_bodies([fields])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_audit_chain, "_short_body", lambda *_: None)
        assert record_bodies([fields]) == short


def test_a_secret_is_hidden_on_the_short_way_too() -> None:
    """A small record with a secret, or under patterns, has it hidden."""
    record = {"message": "rotate", "context": {"action": "rotate", "password": "hunter2"}}
    assert b"hunter2" not in record_bodies([record])[0]
    ml_pipeline.configure(redact_patterns="hunter[0-9]")
    assert b"hunter3" not in record_bodies([{"message": "rotate", "context": {"note": "it was hunter3"}}])[0]
