from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._resource_sources import (
    ProcSource,
    PsutilSource,
    Source,
    Space,
    choose_source,
    high_water_bytes,
)
from ml_pipeline.config._resources import Probe, Reading, existing, to_sample, watched_folders
from tests.support import used_memory

MIB = 1 << 20
HAS_PROC = Path("/proc/self/statm").exists()
SOURCES = [
    pytest.param(ProcSource(), id="proc", marks=pytest.mark.skipif(not HAS_PROC, reason="no /proc on this system")),
    pytest.param(PsutilSource(), id="psutil"),
]


@pytest.mark.parametrize("source", SOURCES)
class TestSource:
    """What every source promises."""

    def test_resident_memory_follows_an_allocation(self, source: Source) -> None:
        """50 MB that are really used show up as at least 40."""
        before = source.resident_bytes()
        block = used_memory(50 * MIB)
        assert source.resident_bytes() - before >= 40 * MIB
        block.close()

    def test_written_bytes_follow_a_write(self, source: Source, tmp_path: Path) -> None:
        """What is written to a file is counted once it is on its way to storage, and nothing counts backwards."""
        read_before, written_before = source.io_bytes()
        with (tmp_path / "data").open("wb") as file:
            file.write(os.urandom(4 * MIB))
            file.flush()
            os.fsync(file.fileno())
        read, written = source.io_bytes()
        assert read >= read_before
        # A file system in memory writes to no storage, and a sandbox may count nothing.
        assert written - written_before >= 4 * MIB or written == written_before

    def test_machine_memory_lies_between_nothing_and_all(self, source: Source) -> None:
        """There is memory, and not more free than there is."""
        space = source.machine_memory()
        assert 0 < space.free_bytes <= space.total_bytes


class Machine:
    """A machine's files, written below a folder."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        self.write("proc/self/statm", "1000 250 100 1 0 200 0\n")
        self.write(
            "proc/self/io", "rchar: 9\nwchar: 9\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 1\n"
        )
        self.write("proc/meminfo", "MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  600 kB\n")

    def write(self, path: str, text: str) -> None:
        """Write one file."""
        file = self.proc.parent / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def group_v2(self, path: str, limit: str, used: int, inactive: int = 0) -> None:
        """Write the files of a control group of version 2."""
        self.write(f"cgroup/{path}/memory.max", f"{limit}\n")
        self.write(f"cgroup/{path}/memory.current", f"{used}\n")
        self.write(f"cgroup/{path}/memory.stat", f"anon 5\ninactive_file {inactive}\nactive_file 7\n")

    def source(self) -> ProcSource:
        """Return a source that reads this machine."""
        return ProcSource(self.proc, self.cgroup)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


class TestProcSource:
    """Real files of a machine made up for each test."""

    def test_reads_pages_as_bytes(self, machine: Machine) -> None:
        """Resident memory is the second field of statm, in pages."""
        assert machine.source().resident_bytes() == 250 * os.sysconf("SC_PAGE_SIZE")

    def test_reads_storage_bytes_not_characters(self, machine: Machine) -> None:
        """What came from the page cache (rchar) is not read from storage."""
        assert machine.source().io_bytes() == (4096, 8192)

    def test_io_that_is_withheld_counts_as_nothing(self, machine: Machine) -> None:
        """A container that hides its io file leaves the counters at 0."""
        (machine.proc / "self" / "io").unlink()
        assert machine.source().io_bytes() == (0, 0)

    def test_without_control_groups_the_machine_counts(self, machine: Machine) -> None:
        """Memory is MemAvailable of MemTotal, in bytes."""
        assert machine.source().machine_memory() == Space(600 * 1024, 1000 * 1024)

    def test_a_limited_group_counts_instead(self, machine: Machine) -> None:
        """In a container the limit counts, and reclaimable page cache is not in use."""
        machine.write("proc/self/cgroup", "0::/box\n")
        machine.group_v2("box", "400000", used=300_000, inactive=50_000)
        assert machine.source().machine_memory() == Space(150_000, 400_000)

    def test_the_tightest_group_above_counts(self, machine: Machine) -> None:
        """A roomy group inside a tight one has no more than the tight one leaves."""
        machine.write("proc/self/cgroup", "0::/outer/inner\n")
        machine.group_v2("outer/inner", "400000", used=0)
        machine.group_v2("outer", "500000", used=490_000)
        assert machine.source().machine_memory() == Space(10_000, 500_000)

    def test_a_group_without_limit_leaves_the_machine(self, machine: Machine) -> None:
        """The limit `max` is no limit; one that is set later is seen."""
        machine.write("proc/self/cgroup", "0::/box\n")
        machine.group_v2("box", "max", used=300_000)
        source = machine.source()
        assert source.machine_memory().total_bytes == 1000 * 1024
        machine.group_v2("box", "400000", used=300_000)
        assert source.machine_memory().total_bytes == 400_000

    def test_a_group_that_vanishes_leaves_the_machine(self, machine: Machine) -> None:
        """A group removed while the process runs is no failure."""
        machine.write("proc/self/cgroup", "0::/box\n")
        machine.group_v2("box", "400000", used=0)
        source = machine.source()
        source.machine_memory()
        (machine.cgroup / "box" / "memory.current").unlink()
        assert source.machine_memory().total_bytes == 1000 * 1024

    def test_version_1_has_files_of_its_own(self, machine: Machine) -> None:
        """The memory controller of version 1 is found below its own mount, beside others that do not matter."""
        machine.write("proc/self/cgroup", "5:cpu,cpuacct:/box\n4:memory:/box\n0::/box\n")
        machine.write("cgroup/memory/box/memory.limit_in_bytes", "400000\n")
        machine.write("cgroup/memory/box/memory.usage_in_bytes", "300000\n")
        machine.write("cgroup/memory/box/memory.stat", "inactive_file 1\ntotal_inactive_file 100000\n")
        assert machine.source().machine_memory() == Space(200_000, 400_000)

    def test_a_path_of_the_host_stands_for_the_root_of_the_container(self, machine: Machine) -> None:
        """A container that sees the host's path finds its own limit at the mount."""
        machine.write("proc/self/cgroup", "0::/system.slice/docker-1.scope\n")
        machine.group_v2("", "400000", used=100_000)
        assert machine.source().machine_memory() == Space(300_000, 400_000)

    def test_a_group_over_its_limit_has_nothing_left(self, machine: Machine) -> None:
        """Free memory is never negative."""
        machine.write("proc/self/cgroup", "0::/box\n")
        machine.group_v2("box", "400000", used=500_000)
        assert machine.source().machine_memory() == Space(0, 400_000)


def test_the_source_is_proc_where_it_is_mounted(machine: Machine, tmp_path: Path) -> None:
    """Elsewhere psutil is asked."""
    assert isinstance(choose_source(machine.proc), ProcSource)
    assert isinstance(choose_source(tmp_path / "nowhere"), PsutilSource)


def test_a_system_without_io_counters_counts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The psutil of macOS has no such method."""
    monkeypatch.delattr(psutil.Process, "io_counters")
    assert PsutilSource().io_bytes() == (0, 0)


def test_a_system_without_a_high_water_mark_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Python of Windows has no module `resource`, and no `/proc`."""
    monkeypatch.setitem(sys.modules, "resource", None)
    assert high_water_bytes(tmp_path) == 0


def test_a_system_without_proc_asks_getrusage(tmp_path: Path) -> None:
    """MacOS has `resource`, and no `/proc`."""
    assert high_water_bytes(tmp_path) > 0


def test_the_high_water_mark_is_not_that_of_the_parent() -> None:
    """The child of a process that was large once begins with a mark of its own."""
    block = b"x" * (300 * MIB)
    code = "from ml_pipeline.config._resource_sources import high_water_bytes; print(high_water_bytes())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) < len(block)


def test_the_high_water_mark_stays_when_memory_is_given_back() -> None:
    """The mark is at least what was resident at any time, also afterwards."""
    block = b"x" * (20 * MIB)
    resident = choose_source().resident_bytes()
    del block
    assert high_water_bytes() >= resident - MIB


class BrokenSource(PsutilSource):
    """Cannot read the process."""

    def resident_bytes(self) -> int:
        """Fail."""
        raise OSError("no such process")


class TestProbe:
    """A whole reading."""

    def test_reads_everything_by_the_clocks_given(self, tmp_path: Path) -> None:
        """A reading holds the clocks, the process, the machine and the disk of each folder."""
        reading = Probe(clock=lambda: 12.0, cpu_clock=lambda: 3.0).read([tmp_path])
        assert (reading.seconds, reading.cpu_seconds) == (12.0, 3.0)
        assert reading.memory_bytes > 0
        assert reading.peak_memory_bytes > 0
        assert 0 < reading.memory.free_bytes <= reading.memory.total_bytes
        assert 0 < reading.disks[str(tmp_path)].free_bytes <= reading.disks[str(tmp_path)].total_bytes

    def test_a_folder_that_is_not_made_yet_stands_for_the_one_above(self, tmp_path: Path) -> None:
        """The disk is known before the first file, and looking makes no folder."""
        folder = tmp_path / "not" / "yet"
        assert Probe().read([folder]).disks[str(folder)].total_bytes > 0
        assert list(tmp_path.glob("not")) == []

    def test_a_part_that_fails_is_counted_and_the_others_are_read(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """One unreadable number costs that number alone."""
        with ml_pipeline.override(strict=False):
            reading = Probe(BrokenSource()).read([tmp_path])
        assert reading.memory_bytes == 0
        assert reading.memory.total_bytes > 0
        assert reading.disks
        assert _runtime.tally.telemetry_errors["monitoring_config", "OSError"] == 1
        assert "monitoring_config: OSError: no such process" in capsys.readouterr().err

    def test_the_processor_clock_counts_work_and_not_sleep(self) -> None:
        """A busy process has a ratio, from two readings."""
        probe = Probe()
        first = probe.read()
        start = time.process_time()
        while time.process_time() - start < 0.1:
            pass
        last = probe.read()
        assert last.cpu_seconds - first.cpu_seconds == pytest.approx(0.1, abs=0.05)
        assert last.cpu_ratio_since(first.seconds, first.cpu_seconds) > 0


@pytest.mark.parametrize(
    ("before", "ratio"),
    [
        pytest.param((8.0, 1.0), 1.0, id="two seconds of two"),
        pytest.param((6.0, 2.0), 0.25, id="one second of four"),
        pytest.param((8.0, 9.0), 0.0, id="the clock of a forked child begins again"),
        pytest.param((10.0, 1.0), 0.0, id="no time has passed"),
    ],
)
def test_cpu_ratio_is_processor_over_wall_time(before: tuple[float, float], ratio: float) -> None:
    """The ratio is in cores, and never negative or infinite."""
    assert Reading(seconds=10.0, cpu_seconds=3.0).cpu_ratio_since(*before) == ratio


def test_free_ratio_of_an_unknown_space_is_all() -> None:
    """What the system does not tell raises no alarm."""
    assert Space().free_ratio == 1.0
    assert Space(25, 100).free_ratio == 0.25


def test_existing_climbs_to_what_is_there(tmp_path: Path) -> None:
    """The nearest folder above stands in; a path without any is returned as it is."""
    assert existing(tmp_path) == tmp_path
    assert existing(tmp_path / "a" / "b") == tmp_path
    assert existing(Path("nothing")) == Path()


def test_the_watched_folders_are_those_of_the_settings(tmp_path: Path) -> None:
    """Data and logs are watched; one folder for both is watched once."""
    with ml_pipeline.override(data_dir=tmp_path / "data", log_dir=tmp_path / "logs"):
        assert watched_folders() == (tmp_path / "data", tmp_path / "logs")
    with ml_pipeline.override(data_dir=tmp_path, log_dir=tmp_path):
        assert watched_folders() == (tmp_path,)


def test_a_sample_takes_its_numbers_from_the_reading() -> None:
    """The event of a reading says the same in the words of the bus."""
    reading = Reading(
        seconds=1.0,
        cpu_seconds=1.0,
        memory_bytes=5,
        read_bytes=6,
        written_bytes=7,
        memory=Space(8, 9),
        disks={"/data": Space(10, 11)},
    )
    sample = to_sample("training", reading, 0.5)
    assert (sample.name, sample.cpu_ratio, sample.memory_bytes) == ("training", 0.5, 5)
    assert (sample.read_bytes, sample.written_bytes, sample.memory_available_bytes) == (6, 7, 8)
    assert sample.disk_free_bytes == {"/data": 10}
