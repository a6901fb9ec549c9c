"""What the short way appends to the open files itself: files are set aside, cut and refused under it all the same."""

from __future__ import annotations

import errno
import json
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _log_fast
from ml_pipeline.config._log_buffer import UrgentFile
from ml_pipeline.config._log_files import AppendFile
from ml_pipeline.config._log_rotation import Rotation, rotated_files
from ml_pipeline.config._log_slow import SlowWrite
from ml_pipeline.config.logging_config import main_logger
from tests.config.test_log_fast import LOGS, root_handlers

MAX_BYTES = 2_000_000
SPARE_BYTES = (1 << 30) // 1_000
LINE = b"a line of twenty by\n"


def append(file: AppendFile, line: bytes) -> None:
    """Do what the short way does with a file that offers its handle."""
    handle = file.handle
    assert handle is not None
    assert os.write(handle.number, line) == len(line)


def test_threads_fill_files_and_lose_nothing() -> None:
    """Of a file that is nearly full each byte counts, of others what is appended to all of them."""
    ml_pipeline.configure(log_max_bytes=MAX_BYTES, log_console="off")

    def write(writer: int) -> None:
        for number in range(5_000):
            main_logger.info("%d:%d", writer, number)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    with root_handlers():
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    path = LOGS / "ml_pipeline.log"
    rotated = rotated_files(path)
    assert len(rotated) >= 4
    sizes = [each.path.stat().st_size for each in rotated]
    assert min(sizes) >= MAX_BYTES
    said = [
        json.loads(line)["message"]
        for each in [*(each.path for each in rotated), path]
        for line in each.read_bytes().splitlines()
    ]
    for writer in range(8):
        own = [message for message in said if message.startswith(f"{writer}:")]
        assert own == [f"{writer}:{number}" for number in range(5_000)]


def test_a_file_offers_its_handle_while_it_has_room_to_spare(tmp_path: Path) -> None:
    """It is looked at before it can be full, however much is appended until then."""
    now = [1_000.0]
    room = 2 * SPARE_BYTES
    file = AppendFile(tmp_path / "x.log", Rotation(tmp_path, max_bytes=room), monotonic=lambda: now[0])
    file.write(LINE)
    now[0] += 0.0009
    file.tick(now[0])
    append(file, LINE)
    now[0] += 0.0002
    file.tick(now[0])
    assert file.handle is None
    file.write(LINE)
    append(file, LINE * (SPARE_BYTES // len(LINE)))
    now[0] += 0.0011
    file.write(LINE)
    assert file.handle is None, "each byte counts now"
    while not rotated_files(file.path):
        file.write(LINE)
    file.close()
    (rotated,) = rotated_files(file.path)
    assert room <= rotated.path.stat().st_size < room + len(LINE)


def test_what_was_cut_off_under_it_is_no_part_of_the_next_line(tmp_path: Path) -> None:
    """The next look finds that the last line has no end, whoever has written it."""
    now = [1_000.0]
    file = AppendFile(tmp_path / "x.log", monotonic=lambda: now[0])
    file.write(LINE)
    append(file, LINE)
    os.truncate(file.path, 2 * len(LINE) - 5)
    now[0] += 1
    file.tick(now[0])
    file.write(LINE)
    assert file.path.read_bytes() == LINE + LINE[:-5] + b"\n" + LINE
    with file.path.open("ab") as theirs:
        theirs.write(b"killed in the mid")
    now[0] += 1
    file.tick(now[0])
    file.write(LINE)
    assert file.path.read_bytes().endswith(b"\nkilled in the mid\n" + LINE)
    file.close()


def test_a_line_that_the_kernel_takes_in_part_is_on_a_line_of_its_own() -> None:
    """A limit of the kernel's on the size of files: what follows it is refused and counted, and written once it is lifted."""
    program = """
import pathlib, resource, signal
import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config.logging_config import main_logger
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ml_pipeline.configure(log_console="off", strict=False)
for number in range(3):
    main_logger.info("%d", number)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
size = pathlib.Path("ml_pipeline/logs/ml_pipeline.log").stat().st_size
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, limits[1]))
main_logger.info("in part")
main_logger.info("not at all")
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
main_logger.info("again")
main_logger.info("and again")
print(_runtime.tally.log_records_dropped["OSError"], _runtime.tally.log_records["ml_pipeline", "INFO"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "2 5\n"), done.stderr
    assert done.stderr.count("File too large") == 1
    lines = (LOGS / "ml_pipeline.log").read_bytes().splitlines()
    assert [json.loads(line)["message"] for line in [*lines[:3], *lines[4:]]] == ["0", "1", "2", "again", "and again"]
    assert re.fullmatch(rb'\{"timestam', lines[3])


def test_a_file_that_is_open_takes_lines_without_a_descriptor_to_spare() -> None:
    """The look at its end needs one, and does without."""
    program = """
import os, resource
import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config.logging_config import main_logger
ml_pipeline.configure(log_console="off", strict=False, log_max_bytes=3_000_000)
main_logger.info("first")
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held = []
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
for number in range(5_000):  # looked at now and then, as it fills
    main_logger.info("%d", number)
for descriptor in held:
    os.close(descriptor)
print(dict(_runtime.tally.log_records_dropped))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "{}\n", "")
    lines = (LOGS / "ml_pipeline.log").read_bytes().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["first", *map(str, range(5_000))]


def test_a_torn_line_is_known_where_the_file_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was written in part by this process has no end, whether that can be seen or not."""
    file = AppendFile(tmp_path / "x.log")
    file.write(LINE)
    refused = iter([OSError(errno.ENOSPC, "full")])
    handle = file.handle
    assert handle is not None
    assert os.write(handle.number, b"in p") == 4
    with monkeypatch.context() as disk:
        disk.setattr(os, "write", lambda *_: (_ for _ in ()).throw(next(refused)))
        with pytest.raises(OSError, match="full"):
            file.finish(b"art\n")
    with monkeypatch.context() as rights:
        rights.setattr(Path, "open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(errno.EACCES, "denied")))
        file.write(LINE)
    assert file.path.read_bytes() == LINE + b"in p\n" + LINE
    file.close()


def test_a_clock_that_stands_keeps_no_file_from_being_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests of programs stop it; then the files hear the time by the number of records."""
    ml_pipeline.configure(log_max_bytes=MAX_BYTES, log_console="off")
    monkeypatch.setattr(time, "time", lambda: 1_768_469_425.25)
    with root_handlers():
        for number in range(30_000):
            main_logger.info("%d %s", number, "x" * 100)
    sizes = [each.path.stat().st_size for each in rotated_files(LOGS / "ml_pipeline.log")]
    assert sizes
    assert max(sizes) < MAX_BYTES + SPARE_BYTES


def test_under_strict_the_other_files_have_the_line_and_count_it() -> None:
    """The error goes on afterwards."""
    ml_pipeline.configure(log_console="off", strict=True)
    (LOGS / "errors.log").mkdir(parents=True)
    with root_handlers():
        for _ in range(3):
            with pytest.raises(IsADirectoryError):
                main_logger.error("broken")
    assert len((LOGS / "ml_pipeline.log").read_bytes().splitlines()) == 3
    assert _runtime.tally.log_records["ml_pipeline", "ERROR"] == 3
    assert _runtime.tally.log_records["errors", "ERROR"] == 0


def test_a_buffer_that_takes_no_more_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines are dropped, each counted once, and as dropped."""
    ml_pipeline.configure(log_console="off", strict=False, log_mode="buffered")
    full = SlowWrite("a rule", "a value", "a remedy")

    def refuse(self: UrgentFile, line: bytes) -> bool:
        raise full

    monkeypatch.setattr(UrgentFile, "quick", refuse)
    with root_handlers():
        main_logger.error("dropped")
    assert _runtime.tally.log_records_dropped == {"SlowWrite": 2}
    assert _runtime.tally.log_records["ml_pipeline", "ERROR"] == 0
    assert _runtime.tally.log_records["errors", "ERROR"] == 0


def test_what_a_signal_handler_raises_goes_on_to_the_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time limit is an `OSError` too, and no fault of the file's."""
    ml_pipeline.configure(log_console="off", strict=False)

    def interrupted(descriptor: int, line: bytes) -> int:
        os.write(descriptor, line)
        raise TimeoutError("too late")

    monkeypatch.setattr(_log_fast, "_monotonic", lambda: 0.0)  # no look is due in between
    with root_handlers():
        main_logger.info("one")
        with monkeypatch.context() as clock:
            clock.setattr(_log_fast, "_append", interrupted)
            with pytest.raises(TimeoutError, match="too late"):
                main_logger.info("two")
        main_logger.info("three")
    lines = (LOGS / "ml_pipeline.log").read_bytes().splitlines()
    assert [json.loads(line)["message"] for line in lines] == ["one", "two", "three"]
    assert _runtime.tally.log_records_dropped == {}


def test_a_handle_that_someone_closed_costs_the_lines_until_the_next_look() -> None:
    """As a program does that closes every descriptor: one record is lost, and counted."""
    ml_pipeline.configure(log_console="off", strict=False)
    with root_handlers():
        main_logger.info("one")
        main_logger.info("two")
        path = (LOGS / "ml_pipeline.log").resolve()
        for descriptor in list(Path("/proc/self/fd").iterdir()):
            if descriptor.resolve() == path:
                os.close(int(descriptor.name))
        main_logger.info("lost")
        main_logger.info("three")
    assert [json.loads(line)["message"] for line in path.read_bytes().splitlines()] == ["one", "two", "three"]
    assert _runtime.tally.log_records_dropped == {"OSError": 1}
    assert _runtime.tally.log_records["ml_pipeline", "INFO"] == 3
