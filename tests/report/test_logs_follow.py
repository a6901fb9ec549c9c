"""``ml-pipeline logs -f``: what is written while somebody looks on, through rotation, truncation and new files."""

from __future__ import annotations

import gzip
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.errors import InputDataError, UnknownChannelError
from ml_pipeline.report import _log_follow
from ml_pipeline.report._log_segments import find_channels
from ml_pipeline.report.logs import show_logs
from tests.report.logs_kit import LOGS, line, messages, write
from tests.support import eventually

Step = Callable[[], Any]
MAIN = LOGS / "ml_pipeline.log"
_LOOKS = 5
"""Between two steps: so often that the directory is read once more."""


@pytest.fixture(autouse=True)
def log_directory(isolated: Path) -> None:
    """Have one, as a pipeline that ran once does."""
    LOGS.mkdir(parents=True)


@pytest.fixture
def follow(capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """Return what follows, does a step whenever nothing is new, then presses Ctrl-C; it returns the messages shown."""

    def run(*steps: Step, channels: tuple[str, ...] = (), code: int = 130, **options: Any) -> list[str]:
        left = [each for step in steps for each in (step, *[lambda: None] * (_LOOKS - 1))]

        def pause(_seconds: float) -> None:
            if not left:
                raise KeyboardInterrupt
            left.pop(0)()

        assert show_logs(LOGS, channels, follow=True, output="json", pause=pause, **options) == code
        captured = capsys.readouterr()
        assert captured.err == ""
        return messages(captured.out)

    return run


def add(path: Path, *lines: bytes) -> None:
    """Append to a log file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b"".join(lines))


def set_aside(number: int, path: Path = MAIN) -> Path:
    """Rename a log file as rotation does."""
    return path.rename(f"{path}.2026-11-20.{number}")


def pack(path: Path) -> None:
    """Compress a file as rotation does."""
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()


def test_the_last_ten_come_first_then_what_is_new(follow: Callable[..., list[str]]) -> None:
    """Unless another number is asked for, or a time."""
    write("ml_pipeline.log", *(line(n, f"{n}") for n in range(12)))
    assert follow(lambda: add(MAIN, line(20, "new"))) == [*map(str, range(2, 12)), "new"]
    assert follow(tail=0) == []
    assert follow(tail=1) == ["new"]
    assert follow(since="2026-11-20T10:00:11Z") == ["11", "new"]


def test_a_limit_counts_what_is_new_too(follow: Callable[..., list[str]]) -> None:
    """It ends with the last record wanted, by itself."""
    write("ml_pipeline.log", line(1, "a"))
    found = follow(lambda: add(MAIN, line(2, "b"), line(3, "c"), line(4, "d")), limit=3, code=0)
    assert found == ["a", "b", "c"]
    assert follow(limit=2, code=0) == ["a", "b"]


def test_several_channels_are_merged_by_time(follow: Callable[..., list[str]]) -> None:
    """What is new since the last look is put in order; filters hold for it."""
    training = LOGS / "training" / "model_training.log"
    write("ml_pipeline.log", line(0, "old"))
    write("training/model_training.log", line(0.5, "older"))

    def step() -> None:
        add(MAIN, line(1, "a"), line(4, "d"), line(5, "unwanted", level="DEBUG"))
        add(training, line(2, "b"), line(3, "c"))

    assert follow(step, tail=0, level="INFO") == ["a", "b", "c", "d"]
    assert follow(
        lambda: (add(MAIN, line(6, "no")), add(training, line(7, "yes"))), channels=("training",), tail=0
    ) == ["yes"]


def test_what_is_written_while_the_files_are_read_keeps_its_order(
    follow: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files are read one by one: a record of the second waits for an older one that the first has by now."""
    write("ml_pipeline.log", line(0, "old"))
    training = write("training/model_training.log", line(0, "old"))
    read = _log_follow._Growing.new_lines

    def reading(growing: Any) -> bytes:
        if "c" in waiting and os.path.samestat(os.fstat(growing.file.fileno()), training.stat()):
            waiting.remove("c")
            add(MAIN, line(6, "b"))
            add(training, line(4, "a"), line(7, "c"))
        return read(growing)

    waiting: list[str] = []
    monkeypatch.setattr(_log_follow._Growing, "new_lines", reading)
    monkeypatch.setattr(_log_follow, "_now", lambda: b"2026-11-20T10:00:05.000000Z")
    assert follow(lambda: waiting.append("c"), tail=0) == ["a", "b", "c"]


def test_a_line_is_shown_when_it_is_whole(follow: Callable[..., list[str]]) -> None:
    """Half a line waits for its other half, even where it was there at the beginning."""
    first, second = line(1, "first"), line(2, "second")
    write("ml_pipeline.log", first[:30])
    steps = (lambda: add(MAIN, first[30:], second[:50]), lambda: add(MAIN, second[50:]))
    assert follow(*steps) == ["first", "second"]


def test_a_file_that_is_rotated_is_followed_on(follow: Callable[..., list[str]]) -> None:
    """A writer that has not noticed yet still reaches us through the old one."""
    write("ml_pipeline.log", line(1, "a"))

    def rotated() -> None:
        old = set_aside(1)
        add(MAIN, line(3, "c"))
        add(old, line(2, "b"))

    assert follow(rotated, lambda: add(Path(f"{MAIN}.2026-11-20.1"), line(4, "late")), tail=0) == ["b", "c", "late"]


@pytest.mark.parametrize("moment", [1, 2])
def test_a_file_that_is_rotated_as_following_begins_is_shown_once(
    moment: int, follow: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever look at the directory it falls behind."""
    write("ml_pipeline.log", line(1, "a"))
    looks = 0

    def find(*asked: Any, **how: Any) -> Any:
        nonlocal looks
        looks += 1
        found = find_channels(*asked, **how)
        if looks == moment:
            set_aside(1)
            add(MAIN, line(2, "b"))
        return found

    monkeypatch.setattr("ml_pipeline.report.logs.find_channels", find)
    monkeypatch.setattr(_log_follow, "find_channels", find)
    assert follow(lambda: add(MAIN, line(3, "c"))) == ["a", "b", "c"]


def test_files_that_came_and_went_between_two_looks_are_read(follow: Callable[..., list[str]]) -> None:
    """Also where they, or the one that was looked at, are compressed already; none is read twice."""
    write("ml_pipeline.log.2026-11-19.7", line(0, "before"))
    write("ml_pipeline.log", line(1, "a"))

    def rotated_thrice(*packed: int) -> Step:
        def step() -> None:
            base = 10 * len(list(LOGS.iterdir()))
            for number in range(3):
                add(MAIN, line(base % 50 + number, f"{base + number}"))
                name = set_aside(base + number)
                if number in packed:
                    pack(name)
            add(MAIN, line(base % 50 + 5, f"{base + 5}"))

        return step

    assert follow(rotated_thrice(), tail=0) == ["20", "21", "22", "25"]
    assert follow(rotated_thrice(1), tail=0) == ["50", "51", "52", "55"]
    assert follow(rotated_thrice(0, 1), tail=0) == ["80", "81", "82", "85"]


def test_a_channel_that_is_new_is_shown_from_its_first_record(follow: Callable[..., list[str]]) -> None:
    """Even where its file was set aside before it was noticed, and where nothing was there at the beginning."""
    new = LOGS / "airflow" / "nightly.log"

    def step() -> None:
        add(new, line(1, "a"))
        set_aside(1, new)
        add(new, line(2, "b"))

    assert follow(step) == ["a", "b"]
    new.unlink()
    assert follow(lambda: add(new, line(3, "c")), channels=("airflow",), tail=0) == ["c"]


def test_a_truncated_file_is_read_from_its_start(follow: Callable[..., list[str]]) -> None:
    """As after ``logrotate`` with ``copytruncate``."""
    write("ml_pipeline.log", line(1, "a"), line(2, "b"))
    assert follow(lambda: MAIN.write_bytes(line(3, "c")), tail=0) == ["c"]


def test_a_replaced_or_removed_file_is_noticed(follow: Callable[..., list[str]]) -> None:
    """The new one counts from its start, when it comes."""
    write("ml_pipeline.log", line(1, "a"))
    assert follow(MAIN.unlink, lambda: add(MAIN, line(3, "c")), tail=0) == ["c"]


def test_records_of_errors_come_once(follow: Callable[..., list[str]]) -> None:
    """New ones too."""
    write("ml_pipeline.log", line(1, "a"))

    def step() -> None:
        add(MAIN, line(2, "b", level="ERROR"))
        add(LOGS / "errors.log", line(2, "b", level="ERROR"), line(3, "own", level="ERROR", channel="errors"))

    assert follow(step, tail=0) == ["b", "own"]


def test_more_than_is_read_at_once_is_cut_between_lines(
    follow: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a line longer than that comes out in pieces."""
    lines = [line(n, f"{n}") for n in range(9)]
    monkeypatch.setattr(_log_follow, "_MOST_BYTES", len(lines[0]) * 2 + 20)
    write("ml_pipeline.log")
    assert follow(lambda: add(MAIN, *lines), tail=0) == [*map(str, range(9))]
    assert len(follow(lambda: add(MAIN, line(9, "x" * len(lines[0]) * 3)), tail=0)) > 1


def test_a_new_file_that_cannot_be_read_is_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """And the others go on; the exit code stays that of Ctrl-C."""
    write("ml_pipeline.log", line(1, "a"))
    left: list[Step] = [
        lambda: add(LOGS / "airflow" / "x.log.2026-11-20.1.gz", b"no gzip"),
        *[lambda: None] * _LOOKS,
        lambda: add(LOGS / "airflow" / "x.log", line(2, "b")),
        *[lambda: None] * _LOOKS,
    ]

    def pause(_seconds: float) -> None:
        if not left:
            raise KeyboardInterrupt
        left.pop(0)()

    assert show_logs(LOGS, follow=True, output="json", pause=pause) == 130
    captured = capsys.readouterr()
    assert messages(captured.out) == ["a", "b"]
    assert captured.err == (
        f"warning: {LOGS}/airflow/x.log.2026-11-20.1.gz: cannot be read: Not a gzipped file (b'no')\n"
    )


def test_on_a_terminal_it_is_coloured_and_ctrl_c_ends_it_quietly() -> None:
    """Exit code 130, no traceback; what is new is there at once."""
    write("ml_pipeline.log", line(1, "shown", level="ERROR"))
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ml_pipeline", "logs", "-f"],
        stdin=theirs, stdout=theirs, stderr=theirs,
        env={name: value for name, value in os.environ.items() if name != "NO_COLOR"},
    )  # fmt: skip
    os.close(theirs)
    seen = bytearray()
    os.set_blocking(ours, False)

    def has(text: bytes) -> bool:
        with suppress(OSError):  # nothing yet, or nobody writes any more
            seen.extend(os.read(ours, 65_536))
        return text in seen

    try:
        eventually(lambda: has(b"shown"))
        add(MAIN, line(2, "new"))
        eventually(lambda: has(b"new"))
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        has(b"")
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    lines = seen.decode().splitlines()
    assert lines[0] == "\x1b[2mtime                        level    logger               message\x1b[0m"
    assert lines[1] == "2026-11-20T10:00:01.000000Z \x1b[31mERROR   \x1b[0m model_trainer        shown"
    assert lines[2:] == ["2026-11-20T10:00:02.000000Z INFO     model_trainer        new"]


def test_before_the_first_record_it_waits(capsys: pytest.CaptureFixture[str]) -> None:
    """It says so, and shows what is written once there is something; a name that is no channel is refused at once."""
    LOGS.rmdir()
    steps = [lambda: None, lambda: add(MAIN, line(1, "first")), *[lambda: None] * _LOOKS]

    def pause(_seconds: float) -> None:
        if not steps:
            raise KeyboardInterrupt
        steps.pop(0)()

    with pytest.raises(UnknownChannelError):
        show_logs(LOGS, ["trainin"], follow=True, pause=pause)
    assert show_logs(LOGS, follow=True, output="json", pause=pause) == 130
    captured = capsys.readouterr()
    assert messages(captured.out) == ["first"]
    assert captured.err == f"waiting for {LOGS}: nothing has been logged there yet\n"


def test_what_is_no_directory_is_not_waited_for(isolated: Path) -> None:
    """As it would never become one."""
    (isolated / "file").write_text("", encoding="utf-8")
    with pytest.raises(InputDataError, match=r"^a log directory must exist to be read \(got '.*/file'\)"):
        show_logs(isolated / "file", follow=True)
