"""Names of rotated files, and whatever clocks do: found again, never taken twice, and no line lost."""

from __future__ import annotations

import os
import string
import tempfile
import time
from collections import Counter
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ml_pipeline.config._channels import CHANNELS
from ml_pipeline.config._log_files import AppendFile
from ml_pipeline.config._log_retention import Keeper, Retention, channel_files
from ml_pipeline.config._log_rotation import DAY_SECONDS, Rotation, day_of, day_text, rotated_files

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC).timestamp()
DAYS = st.dates(date(1970, 1, 1)).map(lambda day: (day - date(1970, 1, 1)).days)
NUMBERS = st.integers(1, 10**18 - 1)


@given(DAYS)
def test_a_day_is_written_as_calendars_do_and_read_back(day: int) -> None:
    """From 1970 to the last day there is."""
    assert day_text(day) == (date(1970, 1, 1) + timedelta(days=day)).isoformat()
    assert day_of(day * DAY_SECONDS) == day_of((day + 1) * DAY_SECONDS - 1) == day


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_moment_has_a_day(seconds: float) -> None:
    """A damaged clock or file system may name any."""
    assert len(day_text(day_of(seconds))) == len("2026-11-20")


@given(
    st.lists(st.tuples(DAYS, NUMBERS, st.booleans()), max_size=20), st.sampled_from(["x.log", "a.b.log", "x.log.log"])
)
@hypothesis_settings(max_examples=50)
def test_rotated_files_are_found_in_their_order(files: list[tuple[int, int, bool]], name: str) -> None:
    """Whatever they are named after, and whatever else lies there."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        for day, number, is_packed in files:
            path.with_name(f"{name}.{day_text(day)}.{number}{'.gz' * is_packed}").touch()
        path.with_name(f"y{name}.2026-11-20.1").touch()
        found = [(each.day, each.number, each.is_packed) for each in rotated_files(path)]
        assert found == sorted(set(files))


@given(st.text(string.ascii_letters + string.digits + "._-~ é\n", min_size=1, max_size=30))
@hypothesis_settings(max_examples=300)
def test_no_other_name_is_taken_for_one(suffix: str) -> None:
    """So that nothing of anyone else's is ever compressed or removed."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.log")
        Path(folder, f"x.log{suffix}").touch()
        for each in rotated_files(path):
            again = f"x.log.{day_text(each.day)}.{each.path.name.removesuffix('.gz').rpartition('.')[2]}"
            assert each.path.name in (again, f"{again}.gz")


class Clocks:
    """Moments that a test sets; the machine's own clock stamps the files."""

    def __init__(self) -> None:
        self.wall = NOON
        self.ticks = 0.0


class ByHand(Rotation):
    """Reads the times of files by a clock that is set by hand."""

    def __init__(self, folder: Path, clocks: Clocks, max_bytes: int) -> None:
        super().__init__(folder, max_bytes=max_bytes, clock=lambda: clocks.wall)
        self._clocks = clocks

    def day_of_file(self, held: os.stat_result) -> int:
        """The day by the clock that is set by hand."""
        return day_of(held.st_mtime - time.time() + self._clocks.wall) if held.st_size else self.today()


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["write", "write", "write", "wait", "set", "sweep", "reopen"]),
        st.integers(0, 2),
        st.floats(-400 * DAY_SECONDS, 400 * DAY_SECONDS),
    ),
    min_size=1,
    max_size=60,
)


@given(STEPS)
@hypothesis_settings(max_examples=150)
def test_no_line_is_lost_whatever_clocks_and_writers_do(steps: list[tuple[str, int, float]]) -> None:
    """Three writers of one file, a wall clock that jumps by up to a year either way, and files that are compressed."""
    with tempfile.TemporaryDirectory() as name:
        folder, clocks, told = Path(name), Clocks(), Counter[bytes]()
        path = folder / "ml_pipeline.log"
        files = [
            AppendFile(path, ByHand(folder, clocks, 60), monotonic=lambda: clocks.ticks, on_look=None) for _ in range(3)
        ]
        keeper = Keeper(
            lambda: [path],
            Retention(1_000_000),
            before=lambda: [file.let_go() for file in files],
            clock=lambda: time.time() + 60,
        )
        for number, (what, writer, seconds) in enumerate(steps):
            if what == "write":
                line = b"%d:%d:%s\n" % (writer, number, b"x" * (number % 40))
                files[writer].write(line)
                told[line] += 1
            elif what == "wait":
                clocks.ticks += abs(seconds)
                clocks.wall += abs(seconds)
            elif what == "set":
                clocks.wall += seconds
            elif what == "sweep":
                keeper.sweep()
            else:
                files[writer].close()
        for file in files:
            file.close()
        keeper.sweep()
        assert Counter(_lines(path)) == told
        for each in rotated_files(path):  # within a file, and so for each writer, in the order of the calls
            numbers = [int(line.split(b":")[1]) for line in _read(each.path).splitlines()]
            assert numbers == sorted(numbers)


def _read(path: Path) -> bytes:
    import gzip

    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def _lines(path: Path) -> list[bytes]:
    files = [*(old.path for old in rotated_files(path)), path]
    return b"".join(_read(each) for each in files if each.exists()).splitlines(keepends=True)


@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"])
@pytest.mark.parametrize("begin", [datetime(2026, 3, 7, tzinfo=UTC), datetime(2026, 10, 24, tzinfo=UTC)])
def test_each_day_of_a_month_with_a_change_of_the_clocks_is_one_file(
    zone: str, begin: datetime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 24 hours each, in whatever zone the process runs."""
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    clocks = Clocks()
    clocks.wall = begin.timestamp()
    file = AppendFile(tmp_path / "x.log", ByHand(tmp_path, clocks, 10**9), monotonic=lambda: clocks.ticks)
    for hour in range(30 * 24):
        file.write(b"%d\n" % hour)
        clocks.wall += 3_600
        clocks.ticks += 3_600
    file.close()
    monkeypatch.undo()
    time.tzset()
    found = [(each.day, each.number, len(each.path.read_bytes().splitlines())) for each in rotated_files(file.path)]
    assert found == [(day_of(begin.timestamp()) + day, 1, 24) for day in range(29)]


@given(st.sets(st.from_regex(r"[a-z][a-z0-9_.-]{0,12}", fullmatch=True), max_size=6))
@hypothesis_settings(max_examples=50)
def test_the_files_of_all_channels_are_found_but_the_audit_trail(dags: set[str]) -> None:
    """Those of DAGs by what lies there, rotated or not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "airflow").mkdir()
        for turn, dag in enumerate(sorted(dags)):
            (folder / "airflow" / f"{dag}.log{('', '.2026-11-20.3', '.2026-11-20.3.gz')[turn % 3]}").touch()
        found = [path.relative_to(folder).as_posix() for path in channel_files(folder)]
        assert "audit.log" not in found
        assert {channel.path for channel in CHANNELS.values()} - {"audit.log"} <= set(found)
        assert len(found) == len(set(found))
        ours = {path.removeprefix("airflow/").removesuffix(".log") for path in found if path.startswith("airflow/")}
        assert ours <= dags | {each.rpartition(".log")[0] for each in dags}
