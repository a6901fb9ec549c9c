"""The journal of open operations: what a killed process left open is reported once, by the next start."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline import _platform, _runtime
from ml_pipeline.config._events import Bus, OperationEvent
from ml_pipeline.config._operation_journal import OperationJournal
from ml_pipeline.config.operation_logger import OperationLogger
from tests.support import eventually

LOG = Path("ml_pipeline/logs/ml_pipeline.log")
JOURNALS = Path("ml_pipeline/data_storage/operations")
DEAD_PID = 999_999_999


def _entry(operation_id: str, **known: Any) -> dict[str, Any]:
    return {"operation_id": operation_id, "kind": "training", "name": "fit", "pipeline": "p", **known}


def _another_process(pid: int) -> Callable[[int], str | None]:
    """Let *pid* be a process that started at 7; our own is the only other one."""
    return lambda asked: "7" if asked == pid else _platform.process_start(asked) if asked == os.getpid() else None


def _left_by_a_dead_process(folder: Path, *lines: object, pid: int = DEAD_PID, host: str | None = None) -> Path:
    """Write the journal of a process that is gone, under the name that process would have given it."""
    mine = OperationJournal(folder)._file.path.name
    name = re.sub(r"_\d+_", f"_{pid}_", mine, count=1)
    name = name if host is None else f"{host}_{name.partition('_')[2]}"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of journals, empty."""
    path = tmp_path / "operations"
    path.mkdir()
    return path


def _abandoned() -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in LOG.read_bytes().splitlines()] if LOG.exists() else []
    return [line for line in lines if line["context"].get("event") == "abandon"]


def test_a_clean_end_leaves_no_file(folder: Path) -> None:
    """The file exists from the first start until `close`, and says what is open."""
    journal = OperationJournal(folder)
    assert list(folder.iterdir()) == []
    journal.started(_entry("a"))
    journal.started(_entry("a"))
    journal.started(_entry("b"))
    journal.ended("a")
    journal.ended("a")
    journal.ended("never started")
    (path,) = folder.iterdir()
    assert [json.loads(line) for line in path.read_bytes().splitlines()] == [
        {"start": _entry("a")},
        {"start": _entry("b")},
        {"end": "a"},
    ]
    journal.close()
    assert list(folder.iterdir()) == []
    journal.close()


def test_what_a_dead_process_left_open_is_handed_out_once(folder: Path) -> None:
    """Only what never ended, oldest first; its file is gone, and it counts as open here until it is reported."""
    lines = [{"start": _entry("c")}, {"start": _entry("a")}, {"end": "c"}, {"start": _entry("b", attributes={"x": 1})}]
    path = _left_by_a_dead_process(folder, *lines)
    journal = OperationJournal(folder)
    assert journal.left_behind() == [_entry("a"), _entry("b", attributes={"x": 1})]
    assert not path.exists()
    assert journal.left_behind() == []
    assert OperationJournal(folder).left_behind() == []
    (mine,) = folder.iterdir()
    assert mine.read_bytes().count(b'"start"') == 2
    journal.ended("a")
    journal.ended("b")
    assert mine.read_bytes().count(b'"end"') == 2


def test_a_process_that_lives_keeps_its_journal(folder: Path) -> None:
    """By pid and start time: a living process is left alone, and a dead one whose pid is used again is not."""
    path = _left_by_a_dead_process(folder, {"start": _entry("a")}, pid=4321)
    start = re.search(r"_4321_([\d.]+)_", path.name)
    assert start is not None
    assert OperationJournal(folder, process_start=lambda _: start[1]).left_behind() == []
    assert OperationJournal(folder, process_start=_another_process(4321)).left_behind() == [_entry("a")]


def test_the_journal_of_another_host_is_left_alone(folder: Path) -> None:
    """On a shared folder, nobody can tell whether another host's process lives."""
    path = _left_by_a_dead_process(folder, {"start": _entry("a")}, host="another-host")
    assert OperationJournal(folder).left_behind() == []
    assert path.exists()


@pytest.mark.parametrize("name", ["notes.txt", "host_1.jsonl", ".hidden_1_2_3.jsonl", "x_y_z_w.jsonl"])
def test_other_files_are_left_alone(folder: Path, name: str) -> None:
    """What is not named like a journal is none, and a missing folder has none."""
    (folder / name).write_text("{}")
    assert OperationJournal(folder).left_behind() == []
    assert (folder / name).read_text() == "{}"
    assert OperationJournal(folder / "missing").left_behind() == []


@settings(deadline=None)
@given(st.lists(st.binary(max_size=30) | st.sampled_from([b"5\n", b"[]\n", b'{"start": 5}\n', b'{"start": {}}\n'])))
def test_a_damaged_journal_loses_only_what_is_damaged(tmp_path_factory: Any, damage: list[bytes]) -> None:
    """Torn and foreign lines are passed over; the whole ones count."""
    folder = tmp_path_factory.mktemp("journal")
    lines = [{"start": _entry("a")}, *(each.replace(b"\r", b"") + b"\n" for each in damage), {"start": _entry("b")}]
    _left_by_a_dead_process(folder, *lines, b'{"start": {"operation_id": "torn')
    assert OperationJournal(folder).left_behind() == [_entry("a"), _entry("b")]


def test_an_operation_in_two_files_is_reported_once(folder: Path) -> None:
    """A starter that was killed while taking over a journal leaves it twice; it is handed out once all the same."""
    _left_by_a_dead_process(folder, {"start": _entry("a")}, pid=DEAD_PID)
    _left_by_a_dead_process(folder, {"start": _entry("a")}, {"start": _entry("b")}, pid=DEAD_PID - 1)
    assert OperationJournal(folder).left_behind() == [_entry("a"), _entry("b")]


def test_of_starters_at_once_each_operation_goes_to_one(folder: Path) -> None:
    """Eight journals that take over twenty files at the same moment hand each operation out once."""
    for number in range(20):
        _left_by_a_dead_process(folder, {"start": _entry(f"op{number:02d}")}, pid=DEAD_PID - number)
    journals = [OperationJournal(folder) for _ in range(8)]
    barrier = threading.Barrier(len(journals))
    taken: list[str] = []

    def take(journal: OperationJournal) -> None:
        barrier.wait()
        taken.extend(entry["operation_id"] for entry in journal.left_behind())

    threads = [threading.Thread(target=take, args=(journal,)) for journal in journals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [f"op{number:02d}" for number in range(20)]


def test_two_journals_of_one_process_do_not_disturb_each_other(folder: Path) -> None:
    """A second operation logger has a file of its own; closing one leaves the other's."""
    first, _other = OperationJournal(folder), OperationJournal(folder, [_entry("b")])
    first.started(_entry("a"))
    assert len(list(folder.iterdir())) == 2
    first.close()
    (left,) = folder.iterdir()
    assert json.loads(left.read_bytes()) == {"start": _entry("b")}


def test_the_file_is_bounded_by_what_is_open(folder: Path) -> None:
    """Under an operation that stays open, thousands may begin and end; the file keeps what is needed."""
    journal = OperationJournal(folder)
    journal.started(_entry("service"))
    (path,) = folder.iterdir()
    largest = 0
    for number in range(6_000):
        journal.started(_entry(f"request {number}"))
        journal.ended(f"request {number}")
        largest = max(largest, path.stat().st_size)
    assert largest < 300_000
    journal.ended("service")
    journal.started(_entry("after"))
    renamed = path.rename(_left_by_a_dead_process(folder))
    assert OperationJournal(folder).left_behind() == [_entry("after")]
    assert not renamed.exists()


def test_threads_share_a_journal(folder: Path) -> None:
    """Threads that begin and end operations at once, past the bound, lose none that is open."""
    journal = OperationJournal(folder)

    def work(worker: int) -> None:
        for number in range(800):
            journal.started(_entry(f"{worker}:{number}"))
            if number % 100:
                journal.ended(f"{worker}:{number}")

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (path,) = folder.iterdir()
    path.rename(_left_by_a_dead_process(folder))
    still_open = {entry["operation_id"] for entry in OperationJournal(folder).left_behind()}
    assert still_open == {f"{worker}:{number}" for worker in range(4) for number in range(0, 800, 100)}


def test_a_folder_that_cannot_be_written_is_counted_and_the_work_goes_on(isolated: Path) -> None:
    """Without a journal, operations are observed as ever."""
    import ml_pipeline

    (isolated / "in the way").touch()
    ml_pipeline.configure(strict=False, data_dir=isolated / "in the way")
    events: list[OperationEvent] = []
    bus = Bus()
    bus.subscribe("test", events.append)  # type: ignore[arg-type]
    with OperationLogger(bus).operation("custom"):
        pass
    assert [event.type for event in events] == ["start", "complete"]
    assert {sink for sink, _ in _runtime.tally.telemetry_errors} == {"operation_journal"}


KILLED = """
import os, signal
from ml_pipeline.config.operation_logger import operation_logger
with operation_logger.operation("custom", "over"): pass
with operation_logger.operation("ingestion", user_id="ann", source_name="ADNI") as outer:
    with operation_logger.operation("training", model_name="m\\nforged") as inner:
        print(outer.operation_id, inner.operation_id, outer.run_id, flush=True)
        {}
        os.kill(os.getpid(), signal.SIGKILL)
"""
NEXT = """
from ml_pipeline.config.operation_logger import operation_logger
with operation_logger.operation("custom", "next"): pass
"""


def _run(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("before", ["pass", "import ml_pipeline; ml_pipeline.configure(log_level='DEBUG')"])
def test_kill_9_is_seen_at_the_next_start(isolated: Path, before: str) -> None:
    """The next start reports what was open with its own ids, run, user and facts, as abandoned; the one after, nothing.

    Also where the settings were changed in the middle of the operations.
    """
    killed = _run(KILLED.format(before))
    assert killed.returncode == -signal.SIGKILL
    outer, inner, run = killed.stdout.split()
    assert _abandoned() == []
    for _ in range(2):
        done = _run(NEXT)
        assert (done.returncode, done.stderr) == (0, "")
        second, first = _abandoned()  # the innermost is reported first
    assert [first["operation_id"], second["operation_id"]] == [outer, inner]
    assert (first["run_id"], second["run_id"], second["context"]["parent_id"]) == (run, run, outer)
    assert (first["level"], first["message"], first["user_id"]) == ("WARNING", "data_ingestion abandoned", "ann")
    assert (first["context"]["source_name"], first["context"]["earlier_process"]) == ("ADNI", True)
    assert second["context"]["model_name"] == "m\nforged"
    assert list(JOURNALS.iterdir()) == []


def test_two_starts_at_once_report_once(isolated: Path) -> None:
    """Of two processes that start together after a kill, one reports each operation."""
    killed = _run(KILLED.format("pass"))
    ids = killed.stdout.split()[:2]
    starters = [subprocess.Popen([sys.executable, "-c", NEXT]) for _ in range(2)]
    assert [starter.wait() for starter in starters] == [0, 0]
    assert Counter(line["operation_id"] for line in _abandoned()) == Counter(ids)


def test_a_living_process_is_not_reported(isolated: Path) -> None:
    """While one process works, others start and end without declaring its operations abandoned."""
    program = (
        "import sys\n"
        "from ml_pipeline.config.operation_logger import operation_logger\n"
        "with operation_logger.operation('custom', 'long'):\n"
        "    print('open', flush=True)\n"
        "    sys.stdin.readline()\n"
    )
    worker = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    )
    with worker:
        assert worker.stdout is not None
        assert worker.stdin is not None
        assert worker.stdout.readline() == "open\n"
        assert _run(NEXT).returncode == 0
        assert _abandoned() == []
        worker.stdin.write("go on\n")
        worker.stdin.flush()
        assert worker.wait() == 0
    assert _abandoned() == []
    eventually(lambda: list(JOURNALS.iterdir()) == [])
