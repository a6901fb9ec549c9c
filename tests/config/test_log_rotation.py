"""Rotation: a file is set aside once, when it is full or its day is over, and no line is lost or doubled by it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_pipeline import _platform, _runtime
from ml_pipeline.config._log_files import AppendFile
from ml_pipeline.config._log_rotation import Rotation, day_of, day_text, rotated_files
from tests.processes import in_fork

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
HOUR = 3_600.0
LINE = b"a line of twenty by\n"


class Clock:
    """A wall clock and a monotonic one, moved by hand."""

    def __init__(self) -> None:
        self.now = NOON
        self.ticks = 1_000.0

    def wall(self) -> float:
        """Seconds since 1970."""
        return self.now

    def monotonic(self) -> float:
        """Seconds that only go forward."""
        return self.ticks

    def go(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.ticks += seconds

    def set(self, seconds: float) -> None:
        """Set the wall clock, as an administrator does; a second passes too."""
        self.now = seconds
        self.ticks += 1


class RotationByHand(Rotation):
    """Reads the times of files, which the machine's clock gave them, by a clock that is moved by hand."""

    def __init__(self, folder: Path, clock: Clock, max_bytes: int | None = None) -> None:
        super().__init__(folder, max_bytes=max_bytes, clock=clock.wall)
        self._by_hand = clock

    def day_of_file(self, held: os.stat_result) -> int:
        """The day by the clock that is moved by hand."""
        return day_of(held.st_mtime - time.time() + self._by_hand.now) if held.st_size else self.today()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def log_file(folder: Path, clock: Clock, *, max_bytes: int | None = None, name: str = "x.log") -> AppendFile:
    """A file with its own view of the folder, as another process has it."""
    return AppendFile(folder / name, RotationByHand(folder, clock, max_bytes), monotonic=clock.monotonic)


def age(path: Path, *, days: int) -> None:
    """Make a file look as if it had last been written to days ago."""
    then = time.time() - days * 24 * HOUR
    os.utime(path, (then, then))


def names(folder: Path) -> list[str]:
    """What lies in a folder, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.name not in (".rotation.lock", "work"))


def lines_of(path: Path) -> list[bytes]:
    """Every line, from the oldest rotated file to the present one."""
    return b"".join(each.read_bytes() for each in [*(old.path for old in rotated_files(path)), path]).splitlines()


# when


def test_a_full_file_is_set_aside(tmp_path: Path, clock: Clock) -> None:
    """The write after the one that filled it goes to a new file of the same mode."""
    file = log_file(tmp_path, clock, max_bytes=2 * len(LINE))
    for _ in range(5):
        file.write(LINE)
    assert names(tmp_path) == ["x.log", "x.log.2026-11-20.1", "x.log.2026-11-20.2"]
    assert [path.stat().st_size // len(LINE) for path in sorted(tmp_path.glob("x.log*"))] == [1, 2, 2]
    assert stat.S_IMODE((tmp_path / "x.log").stat().st_mode) & 0o137 == 0
    file.close()


def test_without_a_size_only_the_day_counts(tmp_path: Path, clock: Clock) -> None:
    """No file is ever full."""
    file = log_file(tmp_path, clock)
    for _ in range(100):
        file.write(LINE)
        clock.go(1)
    assert names(tmp_path) == ["x.log"]
    file.close()


def test_the_first_line_of_a_day_begins_a_file(tmp_path: Path, clock: Clock) -> None:
    """Not a second later, and the file that was set aside has the name of its own day."""
    file = log_file(tmp_path, clock)
    clock.now = NOON + 12 * HOUR - 0.25
    file.write(b"before\n")
    clock.go(0.25)
    file.write(b"after\n")
    assert (tmp_path / "x.log.2026-11-20.1").read_bytes() == b"before\n"
    assert (tmp_path / "x.log").read_bytes() == b"after\n"
    file.close()


def test_a_file_of_an_earlier_day_is_set_aside_when_it_is_opened(tmp_path: Path, clock: Clock) -> None:
    """A job that runs once a day leaves a file a day, under the day of its last line."""
    path = tmp_path / "x.log"
    path.write_bytes(b"old\n")
    age(path, days=3)
    file = log_file(tmp_path, clock)
    file.write(b"new\n")
    assert (tmp_path / "x.log.2026-11-17.1").read_bytes() == b"old\n"
    assert path.read_bytes() == b"new\n"
    file.close()


def test_an_empty_file_is_not_set_aside(tmp_path: Path, clock: Clock) -> None:
    """There is nothing in it."""
    path = tmp_path / "x.log"
    path.touch()
    age(path, days=3)
    file = log_file(tmp_path, clock, max_bytes=1)
    file.write(b"new\n")
    assert names(tmp_path) == ["x.log"]
    file.close()


def test_days_are_those_of_utc_whatever_the_time_zone(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A day of 23 or 25 hours, and a clock that reads the same hour twice, make no file more and none less."""
    monkeypatch.setenv("TZ", "America/New_York")
    file = log_file(tmp_path, clock)
    clock.now = datetime(2026, 10, 31, tzinfo=UTC).timestamp()  # the clocks go back on the night after
    for _ in range(72):
        file.write(LINE)
        clock.go(HOUR)
    rotated = {old.path.name: len(old.path.read_bytes().splitlines()) for old in rotated_files(tmp_path / "x.log")}
    assert rotated == {"x.log.2026-10-31.1": 24, "x.log.2026-11-01.1": 24}
    file.close()


def test_a_file_made_at_midnight_is_of_the_new_day(tmp_path: Path) -> None:
    """Though the kernel's clock, which ticks, may have stamped it with the day before."""
    path = tmp_path / "x.log"
    path.write_bytes(LINE)
    midnight = NOON + 12 * HOUR
    os.utime(path, (midnight, midnight - 0.01))
    assert day_text(Rotation(tmp_path).day_of_file(path.stat())) == "2026-11-21"


# clocks that are set


def test_a_clock_set_back_by_less_than_a_day_goes_on_in_the_same_file(tmp_path: Path, clock: Clock) -> None:
    """Around midnight too, where each host of a shared file may see another day."""
    file = log_file(tmp_path, clock)
    clock.now = NOON + 12 * HOUR + 1
    file.write(LINE)
    clock.set(NOON + 12 * HOUR - 1)
    file.write(LINE)
    clock.set(NOON + 12 * HOUR + 1)
    file.write(LINE)
    assert names(tmp_path) == ["x.log"]
    file.close()


def test_a_clock_that_was_years_ahead_is_survived(tmp_path: Path, clock: Clock) -> None:
    """The file of the wrong day is set aside, instead of being written to until that day comes."""
    file = log_file(tmp_path, clock)
    clock.now = datetime(2036, 1, 1, tzinfo=UTC).timestamp()
    file.write(LINE)
    clock.set(NOON)
    file.write(LINE)
    assert names(tmp_path) == ["x.log", "x.log.2036-01-01.1"]
    file.close()


def test_a_name_that_is_taken_is_never_taken_again(tmp_path: Path, clock: Clock) -> None:
    """The number counts on past every file of the day, compressed or not, with gaps or not."""
    for taken in ("x.log.2026-11-20.1", "x.log.2026-11-20.9.gz", "x.log.2026-11-19.50"):
        (tmp_path / taken).write_bytes(b"kept")
    file = log_file(tmp_path, clock, max_bytes=1)
    file.write(LINE)
    clock.set(NOON + 24 * HOUR)
    file.write(LINE)  # sets the file of the 20th aside
    clock.set(NOON)
    file.write(LINE)  # full: it has the day of its line
    clock.set(NOON + 1)
    file.write(LINE)
    assert (tmp_path / "x.log.2026-11-20.9.gz").read_bytes() == b"kept"
    assert (tmp_path / "x.log.2026-11-20.10").read_bytes() == LINE
    assert names(tmp_path) == [
        "x.log", "x.log.2026-11-19.50", "x.log.2026-11-20.1", "x.log.2026-11-20.10", "x.log.2026-11-20.11",
        "x.log.2026-11-20.9.gz", "x.log.2026-11-21.1",
    ]  # fmt: skip
    for name in ("x.log", "x.log.2026-11-20.11", "x.log.2026-11-21.1"):
        assert (tmp_path / name).read_bytes() == LINE
    file.close()


def test_days_past_the_calendar_are_its_last() -> None:
    """A wrong time on a file is no reason to lose a line."""
    assert day_text(day_of(-5.0)) == "1970-01-01"
    assert day_text(day_of(1e15)) == "9999-12-31"
    assert day_text(day_of(NOON)) == "2026-11-20"


def test_rotated_files_are_told_from_others(tmp_path: Path) -> None:
    """Oldest first, by day and number; what only looks alike is left out."""
    for name in ("x.log", "x.log.2026-11-20.10", "x.log.2026-11-20.9.gz", "x.log.2026-11-19.11", "x.log.1", "x.log.gz",
                 "x.log.2026-13-20.1", "x.log.2026-11-20.1.bz2", "xx.log.2026-11-20.1", ".x.log.2026-11-20.1.gz.partial",
                 "x.log.2026-11-20.\N{ARABIC-INDIC DIGIT ONE}"):  # fmt: skip
        (tmp_path / name).touch()
    found = [(old.path.name, old.number, old.is_packed) for old in rotated_files(tmp_path / "x.log")]
    assert found == [
        ("x.log.2026-11-19.11", 11, False),
        ("x.log.2026-11-20.9.gz", 9, True),
        ("x.log.2026-11-20.10", 10, False),
    ]
    assert rotated_files(tmp_path / "missing" / "x.log") == []


# several writers


def test_a_file_is_set_aside_once_and_all_writers_notice(tmp_path: Path, clock: Clock) -> None:
    """Of several writers that find it due, one renames it; the others find the new one."""
    files = [log_file(tmp_path, clock) for _ in range(4)]
    for file in files:
        file.write(b"before\n")
    clock.set(NOON + 12 * HOUR + 1)
    for file in files:
        file.write(b"after\n")
    assert names(tmp_path) == ["x.log", "x.log.2026-11-20.1"]
    assert (tmp_path / "x.log").read_bytes() == b"after\n" * 4
    for file in files:
        file.close()


def test_a_writer_notices_within_a_second_and_loses_nothing_until_then(tmp_path: Path, clock: Clock) -> None:
    """What it writes in the meantime lies in the file that was set aside."""
    one, other = log_file(tmp_path, clock, max_bytes=40), log_file(tmp_path, clock, max_bytes=1_000)
    other.write(b"first\n")
    one.write(LINE * 2)
    one.write(b"one\n")
    other.write(b"second\n")
    clock.go(0.99)
    other.write(b"third\n")
    clock.go(0.01)
    other.write(b"fourth\n")
    assert (tmp_path / "x.log.2026-11-20.1").read_bytes() == b"first\n" + LINE * 2 + b"second\nthird\n"
    assert (tmp_path / "x.log").read_bytes() == b"one\nfourth\n"
    one.close()
    other.close()


def test_nobody_waits_for_a_lock(tmp_path: Path, clock: Clock) -> None:
    """While another process holds the lock, for however long, lines go on into the same file."""
    import fcntl

    file = log_file(tmp_path, clock, max_bytes=len(LINE))
    with (tmp_path / ".rotation.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for _ in range(3):
            file.write(LINE)
        assert names(tmp_path) == ["x.log"]
    file.write(LINE)
    file.write(LINE)
    assert "x.log.2026-11-20.1" in names(tmp_path)
    assert len(lines_of(file.path)) == 5
    file.close()


def test_a_lock_file_that_was_removed_keeps_nobody_out_for_good(tmp_path: Path, clock: Clock) -> None:
    """It is made anew."""
    file = log_file(tmp_path, clock, max_bytes=len(LINE))
    file.write(LINE)
    file.write(LINE)
    (tmp_path / ".rotation.lock").unlink()
    file.write(LINE)
    assert names(tmp_path) == ["x.log", "x.log.2026-11-20.1", "x.log.2026-11-20.2"]
    file.close()


def test_threads_rotate_one_file(tmp_path: Path) -> None:
    """Of eight threads' lines none is lost, none is doubled, and each thread's are in order."""
    path = tmp_path / "x.log"
    shared = AppendFile(path, Rotation(tmp_path, max_bytes=5_000))

    def write(writer: int) -> None:
        for number in range(500):
            shared.write(b"%d:%d\n" % (writer, number))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    shared.close()
    lines = lines_of(path)
    assert len(rotated_files(path)) >= 4
    for writer in range(8):
        own = [int(line.split(b":")[1]) for line in lines if line.startswith(b"%d:" % writer)]
        assert own == list(range(500))


# what others do to an open file


def test_a_removed_file_is_made_anew_within_a_second(tmp_path: Path, clock: Clock) -> None:
    """With its folder, if that is gone too."""
    file = AppendFile(tmp_path / "logs" / "x.log", monotonic=clock.monotonic)
    file.write(b"one\n")
    shutil.rmtree(tmp_path / "logs")
    file.write(b"lost with the file\n")
    clock.go(1)
    file.write(b"two\n")
    assert file.path.read_bytes() == b"two\n"
    file.close()


def test_a_removed_folder_is_made_anew_under_rotation(tmp_path: Path, clock: Clock) -> None:
    """The lock that lay in it as well."""
    rotation = RotationByHand(tmp_path / "logs", clock, len(LINE))
    file = AppendFile(tmp_path / "logs" / "x.log", rotation, monotonic=clock.monotonic)
    file.write(LINE)
    file.write(LINE)
    shutil.rmtree(tmp_path / "logs")
    clock.go(1)
    file.write(LINE)
    file.write(LINE)
    assert names(tmp_path / "logs") == ["x.log", "x.log.2026-11-20.1"]
    file.close()


def test_a_replaced_file_is_noticed_within_a_second(tmp_path: Path, clock: Clock) -> None:
    """As logrotate does it with ``create``: the lines up to then are in the old one."""
    file = log_file(tmp_path, clock)
    file.write(b"one\n")
    file.path.rename(tmp_path / "x.log.1")
    file.path.touch()
    clock.go(0.5)
    file.write(b"two\n")
    clock.go(0.5)
    file.write(b"three\n")
    assert (tmp_path / "x.log.1").read_bytes() == b"one\ntwo\n"
    assert file.path.read_bytes() == b"three\n"
    file.close()


def test_a_truncated_file_is_written_from_its_start(tmp_path: Path, clock: Clock) -> None:
    """As logrotate does it with ``copytruncate``: no hole of zeros, and its new size counts."""
    file = log_file(tmp_path, clock, max_bytes=3 * len(LINE))
    file.write(LINE)
    file.write(LINE)
    os.truncate(file.path, 0)
    clock.go(1)
    for _ in range(3):
        file.write(LINE)
    assert file.path.read_bytes() == LINE * 3
    file.write(LINE)
    assert names(tmp_path) == ["x.log", "x.log.2026-11-20.1"]
    file.close()


def test_a_real_logrotate_is_noticed_within_a_second_of_real_time(tmp_path: Path) -> None:
    """The same under the machine's own clock."""
    file = AppendFile(tmp_path / "x.log", Rotation(tmp_path))
    file.write(b"one\n")
    file.path.rename(tmp_path / "old")
    moved = datetime.now(UTC)
    while not file.path.exists():
        file.write(b"more\n")
        assert datetime.now(UTC) - moved < timedelta(seconds=5)
    assert (tmp_path / "old").read_bytes().endswith(b"more\n")
    assert file.path.read_bytes() == b"more\n"
    file.close()


def test_a_descriptor_that_someone_closed_is_not_used_again(tmp_path: Path, clock: Clock) -> None:
    """As programs that become daemons do; what has taken its number since is neither written to nor closed."""
    file = log_file(tmp_path, clock)
    file.write(b"one\n")
    os.close(file._descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        file.write(b"two\n")
    file.write(b"three\n")
    taken = file._descriptor
    os.close(taken)
    with (tmp_path / "theirs").open("wb", buffering=0) as theirs:
        assert theirs.fileno() == taken
        clock.go(1)
        file.write(b"four\n")
        theirs.write(b"whole")
    assert file.path.read_bytes() == b"one\nthree\nfour\n"
    assert (tmp_path / "theirs").read_bytes() == b"whole"
    file.close()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that a user without rights can reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


def as_nobody() -> None:
    """Give up the rights of root, for which there are no permissions to lose."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)


def test_lost_permission_raises_and_comes_back(open_folder: Path) -> None:
    """An open file is written on; one that must be opened raises until it may be, and then lines go on."""

    def work() -> list[str]:
        as_nobody()
        told, clock, folder = [], Clock(), open_folder / "logs"
        file = AppendFile(folder / "x.log", monotonic=clock.monotonic)
        file.write(b"one\n")
        for mode, gone in ((0o000, False), (0o500, False), (0o500, True), (0o700, False)):
            if gone:
                folder.chmod(0o700)
                file.path.unlink()
            folder.chmod(mode)
            clock.go(1)
            for _ in range(2):
                try:
                    file.write(b"%o\n" % mode)
                    told.append("written")
                except OSError as error:
                    told.append(type(error).__name__)
        return [*told, file.path.read_text()]

    assert in_fork(work) == ["written"] * 4 + ["PermissionError"] * 2 + ["written"] * 2 + ["700\n700\n"]


def test_a_folder_that_may_not_be_written_keeps_no_line_out(open_folder: Path) -> None:
    """The file is written on past its size, the failure is counted, and rotation goes on once it may."""

    def work() -> list[object]:
        as_nobody()
        _runtime.reset()
        os.environ["ML_PIPELINE_STRICT"] = "0"
        clock = Clock()
        file = log_file(open_folder / "logs", clock, max_bytes=len(LINE))
        file.write(LINE)
        (open_folder / "logs").chmod(0o500)
        for _ in range(3):
            file.write(LINE)
        counted = dict(_runtime.tally.telemetry_errors)
        (open_folder / "logs").chmod(0o700)
        file.write(LINE)
        return [str(counted), len(lines_of(file.path)), names(open_folder / "logs")]

    assert in_fork(work) == ["{('log_rotation', 'PermissionError'): 3}", 5, ["x.log", "x.log.2026-11-20.1"]]


def test_a_disk_that_fills_and_is_freed(tmp_path: Path) -> None:
    """Each line that does not fit raises; rotation and writing go on once there is room, and no line is torn."""
    program = f"""
import resource
from pathlib import Path
from ml_pipeline.config._log_files import AppendFile
from ml_pipeline.config._log_rotation import Rotation
folder = Path({str(tmp_path)!r})
file = AppendFile(folder / "x.log", Rotation(folder, max_bytes=30))
file.write(b"whole\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (9, resource.RLIM_INFINITY))
for line in (b"too long\\n", b"no room\\n"):
    try:
        file.write(line)
    except OSError as full:
        print(full.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
for number in range(5):
    file.write(b"line %d\\n" % number)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["File too large"] * 2
    assert lines_of(tmp_path / "x.log") == [b"whole", b"too", *(b"line %d" % number for number in range(5))]


# what is not rotated


def test_a_link_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    """Where it leads is someone's own arrangement."""
    (tmp_path / "x.log").symlink_to(tmp_path / "elsewhere.log")
    file = log_file(tmp_path, clock, max_bytes=1)
    for _ in range(3):
        file.write(LINE)
    assert names(tmp_path) == ["elsewhere.log", "x.log"]
    file.close()


def test_a_pipe_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    """It has neither size nor day."""
    os.mkfifo(tmp_path / "x.log")
    reader = os.open(tmp_path / "x.log", os.O_RDONLY | os.O_NONBLOCK)
    file = log_file(tmp_path, clock, max_bytes=1)
    for _ in range(3):
        file.write(LINE)
        clock.go(48 * HOUR)
    assert os.read(reader, 1_000) == LINE * 3
    file.close()
    os.close(reader)


@pytest.mark.parametrize(
    ("lacking", "reason"),
    [("windows", "Windows renames no file that is open"), ("locks", "this system has no file locks")],
)
def test_a_system_that_cannot_rotate_says_so_once(
    lacking: str,
    reason: str,
    isolated: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Lines go on into the same file."""
    if lacking == "windows":
        monkeypatch.setattr(_platform.sys, "platform", "win32")
    else:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    file = log_file(isolated, Clock(), max_bytes=1)
    for _ in range(3):
        file.write(LINE)
    assert file.path.read_bytes() == LINE * 3
    assert capsys.readouterr().err == f"ml_pipeline: log files are not rotated: {reason}\n"
    file.close()


def test_a_file_system_that_names_files_anew_each_time_is_written_to(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a file can never be found in its place, it is not looked for endlessly."""
    monkeypatch.setattr("ml_pipeline.config._log_files.is_in_place", lambda path, held: False)
    file = log_file(tmp_path, clock)
    file.write(LINE)
    clock.go(1)
    file.write(LINE)
    assert file.path.read_bytes() == LINE * 2
    file.close()


# interrupted by itself


def test_a_write_inside_a_write_lands_on_a_line_of_its_own(tmp_path: Path, clock: Clock) -> None:
    """A signal handler that logs, and one that closes the files, disturb no write that is under way."""
    inside: list[str] = []

    class Interrupting(RotationByHand):
        def is_due(self, size: int, day: int) -> bool:
            if not inside:
                inside.append("once")
                file.write(b"inner\n")
                file.close()
                file.let_go()
            return super().is_due(size, day)

    (tmp_path / "x.log").write_bytes(b"first\n")
    file = AppendFile(tmp_path / "x.log", Interrupting(tmp_path, clock, 1_000), monotonic=clock.monotonic)
    file.write(b"outer\n")
    assert file._descriptor < 0  # closed as asked, after the write
    file.write(b"last\n")
    assert file.path.read_bytes() == b"first\ninner\nouter\nlast\n"
    file.close()
