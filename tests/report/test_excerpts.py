"""Excerpts: the right lines of the right run, however large and however broken the log files are."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.report.excerpts import LINES_BEFORE, read_excerpts
from ml_pipeline.report.tail import lines_from_end
from tests.report.runs import RUN_ID, at

TRACE = 'Traceback (most recent call last):\n  File "a.py", line 1\nTimeoutError: no answer\n'


def _line(seconds: float, message: str, *, op: str = "op-1", run: str = RUN_ID, event: str = "") -> dict[str, Any]:
    line: dict[str, Any] = {
        "timestamp": at(seconds),
        "level": "ERROR" if event == "fail" else "INFO",
        "logger": "trainer",
        "message": message,
        "operation_id": op,
        "run_id": run,
    }
    if event == "fail":
        line["exception"] = {"type": "TimeoutError", "message": "no answer", "stacktrace": TRACE}
    return line | ({"context": {"event": event}} if event else {})


def _write(path: Path, *lines: dict[str, Any] | bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        for line in lines:
            compact = line if isinstance(line, bytes) else json.dumps(line, separators=(",", ":")).encode()
            file.write(compact + b"\n")


def test_the_failing_line_and_those_before_it(tmp_path: Path) -> None:
    """Lines of the run from all channels in their order up to the failure, its copy in errors.log only once."""
    failure = _line(2.0, "training failed", event="fail")
    _write(tmp_path / "ml_pipeline.log", _line(0.0, "training started"), failure, _line(3.0, "alert raised"))
    _write(tmp_path / "errors.log", failure)
    _write(tmp_path / "training" / "model_training.log", _line(1.0, "epoch 1"), _line(1.5, "other", run="another run"))
    _write(tmp_path / "airflow" / "daily.log", _line(0.5, "task queued"))
    (excerpt,) = read_excerpts(tmp_path, RUN_ID, ["op-1"])
    assert [line.message for line in excerpt.lines] == ["training started", "task queued", "epoch 1", "training failed"]
    last = excerpt.lines[-1]
    assert (last.timestamp, last.level, last.logger) == (at(2.0), "ERROR", "trainer")
    assert last.stacktrace == TRACE.rstrip()


def test_only_a_few_lines_before(tmp_path: Path) -> None:
    """However much a run said before it failed."""
    said = [_line(second, f"line {second}") for second in range(100)]
    _write(tmp_path / "ml_pipeline.log", *said, _line(100.0, "failed", event="fail"))
    (excerpt,) = read_excerpts(tmp_path, RUN_ID, ["op-1"])
    assert [line.message for line in excerpt.lines] == [*(f"line {s}" for s in range(92, 100)), "failed"]
    assert len(excerpt.lines) == LINES_BEFORE + 1


def test_each_operation_has_its_own_excerpt_in_the_order_asked(tmp_path: Path) -> None:
    """Failures close together share the lines before them; a cancellation has an excerpt, too."""
    _write(
        tmp_path / "ml_pipeline.log",
        _line(0.0, "start"),
        _line(1.0, "a failed", op="a", event="fail"),
        _line(2.0, "b cancelled", op="b", event="cancel"),
    )
    found = read_excerpts(tmp_path, RUN_ID, ["b", "a", "never seen"])
    assert [excerpt.operation_id for excerpt in found] == ["b", "a"]
    assert [[line.message for line in excerpt.lines] for excerpt in found] == [
        ["start", "a failed", "b cancelled"],
        ["start", "a failed"],
    ]


def test_nothing_before_the_run_is_read(tmp_path: Path) -> None:
    """Reading stops at the start of the run, so that a log of years costs nothing."""
    _write(tmp_path / "ml_pipeline.log", _line(-9.0, "too early", event="fail"), _line(1.0, "of the run"))
    assert read_excerpts(tmp_path, RUN_ID, ["op-1"], started=at(0)) == []
    assert len(read_excerpts(tmp_path, RUN_ID, ["op-1"])) == 1


def test_only_the_end_of_a_large_file_is_read(tmp_path: Path) -> None:
    """Of a file past the bound its last bytes are read, and a failure that lies before them is not found."""
    log = tmp_path / "ml_pipeline.log"
    _write(log, _line(1.0, "early", op="early", event="fail"))
    _write(log, *(_line(2.0, "x" * 1_000) for _ in range(300)))
    _write(log, _line(3.0, "late", op="late", event="fail"))
    found = read_excerpts(tmp_path, RUN_ID, ["early", "late"], most_bytes=100_000)
    assert [excerpt.operation_id for excerpt in found] == ["late"]


def test_a_file_of_gigabytes_costs_no_more_than_its_end(tmp_path: Path) -> None:
    """A sparse file of four gigabytes, with the failure at its end."""
    log = tmp_path / "ml_pipeline.log"
    with log.open("wb") as file:
        file.truncate(4 << 30)
    _write(log, b"", _line(1.0, "started"), _line(2.0, "failed", event="fail"))
    (excerpt,) = read_excerpts(tmp_path, RUN_ID, ["op-1"], most_bytes=1 << 20)
    assert [line.message for line in excerpt.lines] == ["started", "failed"]


def test_a_run_across_a_rotation(tmp_path: Path) -> None:
    """What was just rotated away is read on; what was compressed is not."""
    _write(tmp_path / "ml_pipeline.log.2026-11-20.1.gz", b"\x1f\x8b")
    _write(tmp_path / "ml_pipeline.log.2026-11-20.2", _line(0.0, "started"))
    _write(tmp_path / "ml_pipeline.log", _line(1.0, "failed", event="fail"))
    (excerpt,) = read_excerpts(tmp_path, RUN_ID, ["op-1"])
    assert [line.message for line in excerpt.lines] == ["started", "failed"]


def test_broken_and_foreign_lines_are_passed_over(tmp_path: Path) -> None:
    """Text lines, torn lines, JSON of another shape and bytes that are no text."""
    _write(
        tmp_path / "ml_pipeline.log",
        f"2026-11-21 09:30:00,000 - INFO - trainer - run {RUN_ID}".encode(),
        f'{{"run_id":"{RUN_ID}","torn'.encode(),
        f'["{RUN_ID}"]'.encode(),
        b"\xff\xfe" + RUN_ID.encode(),
        {"run_id": RUN_ID, "timestamp": 5, "exception": "text", "context": []},
        _line(1.0, "failed", event="fail"),
    )
    (excerpt,) = read_excerpts(tmp_path, RUN_ID, ["op-1"])
    assert excerpt.lines[-1].message == "failed"


def test_no_logs_no_excerpts(tmp_path: Path) -> None:
    """A folder without logs, none at all, and a pipe in place of a file."""
    assert read_excerpts(tmp_path, RUN_ID, ["op-1"]) == []
    assert read_excerpts(tmp_path / "missing", RUN_ID, ["op-1"]) == []
    os.mkfifo(tmp_path / "errors.log")
    assert read_excerpts(tmp_path, RUN_ID, ["op-1"]) == []


def test_a_long_traceback_keeps_its_ends(tmp_path: Path) -> None:
    """A recursion's thousand frames are shortened in the middle, where they say least."""
    frames = "\n".join(f"frame {number}" for number in range(1_000))
    _write(
        tmp_path / "ml_pipeline.log",
        _line(1.0, "failed", event="fail") | {"exception": {"stacktrace": f"{frames}\nRecursionError"}},
    )
    (excerpt,) = read_excerpts(tmp_path, RUN_ID, ["op-1"])
    shown = excerpt.lines[-1].stacktrace.split("\n")
    assert len(shown) == 61
    assert (shown[0], shown[10], shown[-1]) == ("frame 0", "  … 941 more lines …", "RecursionError")


@settings(max_examples=60)
@given(
    st.lists(st.binary(max_size=200).map(lambda line: line.replace(b"\n", b"")), max_size=40),
    st.integers(min_value=1, max_value=3),
)
def test_lines_from_the_end_are_the_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], more: int
) -> None:
    """Read whole, a file's lines come back reversed; cut short, the last of them do, and none is torn."""
    path = tmp_path_factory.mktemp("tail") / "log"
    path.write_bytes(b"\n".join(lines))
    wanted = [line for line in reversed(lines) if line.strip()]
    assert list(lines_from_end(path)) == wanted
    cut = list(lines_from_end(path, most_bytes=path.stat().st_size // (more + 1)))
    assert cut == wanted[: len(cut)]


def test_lines_longer_than_a_block(tmp_path: Path) -> None:
    """A line may span any number of the blocks that the file is read in."""
    path = tmp_path / "log"
    long = [bytes([letter]) * size for letter, size in ((97, 200_000), (98, 65_536), (99, 1), (100, 300_001))]
    path.write_bytes(b"\n".join(long) + b"\n")
    assert list(lines_from_end(path)) == long[::-1]
