"""The journal of the audit trail: who writes many records waits for it alone, and a machine that stops loses none."""

from __future__ import annotations

import contextlib
import errno
import io
import json
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _platform, _runtime
from ml_pipeline.config import _audit_journal
from ml_pipeline.config._audit import AuditReport, AuditTrail, verify
from ml_pipeline.config._audit_export import Wanted, export_trail, export_trail_to
from ml_pipeline.config._audit_files import OpenFile
from ml_pipeline.config._audit_journal import journal_path
from ml_pipeline.errors import SettingsError
from tests.config.audit_kit import KEY, files_of, lines_of, rotating
from tests.processes import in_fork

FEW = _audit_journal._FEW + 1
"""Records that a process waits for the trail itself for."""
LENGTH = 1 << 19


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a trail is to lie."""
    return tmp_path / "audit.log"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were waited for."""
    seen: list[str] = []
    real = _audit_journal.synchronise

    def synchronise(descriptor: int) -> None:
        seen.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(_audit_journal, "synchronise", synchronise)
    return seen


@contextlib.contextmanager
def _start(boot: str) -> Iterator[None]:
    """What runs within, runs after this start of the machine."""
    with mock.patch.object(_platform, "boot_id", return_value=boot):
        yield


def _append(trail: AuditTrail, count: int, *, first: int = 0) -> None:
    for number in range(first, first + count):
        trail.append({"message": f"record {number}", "context": {"object": "ADNI"}})


def _stop(trail: AuditTrail) -> None:
    """End as a killed process does: nothing is waited for any more."""
    trail._close_all()


def _messages(path: Path) -> list[str]:
    return [json.loads(line)["message"] for _, _, line in lines_of(path)]


def _numbers(count: int) -> list[str]:
    return [f"record {number}" for number in range(count)]


def test_who_writes_few_records_waits_for_the_trail(path: Path, waits: list[str]) -> None:
    """A journal is made only where it is worth it; then it is waited for alone."""
    trail = AuditTrail(path)
    _append(trail, FEW)
    assert set(waits) == {"audit.log"}
    waits.clear()
    _append(trail, 100, first=FEW)
    assert set(waits) == {"audit.journal"}
    held = journal_path(path).stat()
    assert (held.st_size, stat.S_IMODE(held.st_mode)) == (LENGTH, 0o640)
    waits.clear()
    trail.close()
    assert waits == ["audit.log"]
    assert verify(path) == AuditReport(intact=True, records=FEW + 100)


def test_few_records_make_no_journal(path: Path) -> None:
    """Nor does a system that does not tell when it started."""
    trail = AuditTrail(path)
    _append(trail, FEW - 1)
    trail.close()
    assert not journal_path(path).exists()
    with mock.patch.object(_platform, "boot_id", return_value=None):
        other = AuditTrail(path)
        _append(other, 2 * FEW)
        other.close()
    assert not journal_path(path).exists()


def test_the_records_stand_in_both_files(path: Path) -> None:
    """What was written since the journal began is in it, line by line as in the trail."""
    trail = AuditTrail(path, KEY)
    _append(trail, FEW + 10)
    content, journal = path.read_bytes(), journal_path(path).read_bytes()
    began = json.loads(journal[:512])
    newest = content[began["at"] :]
    assert newest.count(b"\n") == 10
    assert journal[512:].startswith(newest)
    assert not journal[512 + len(newest) :].strip(b"\0")
    assert json.loads(content[: began["at"]].splitlines()[-1])["hash"] == began["hash"]


def test_a_full_journal_begins_anew(path: Path, waits: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The trail is waited for once for many records, and a record too large for the journal is none for it."""
    monkeypatch.setattr(_audit_journal, "_ROOM", 8_192)
    trail = AuditTrail(path)
    _append(trail, FEW + 200)
    assert 1 < waits.count("audit.log") - FEW < 20
    waits.clear()
    trail.append({"message": "large", "context": {f"k{n}": "x" * 1_000 for n in range(20)}})
    assert waits == ["audit.log"]
    _append(trail, 3)
    assert waits == ["audit.log"] + ["audit.journal"] * 3
    trail.close()
    assert journal_path(path).stat().st_size == 8_192 + 512
    assert verify(path) == AuditReport(intact=True, records=FEW + 204)


damages: st.SearchStrategy[Callable[[bytes], bytes]] = st.one_of(
    st.integers(0, 3_000).map(lambda cut: lambda lost: lost[:cut]),
    st.just(lambda lost: bytes(len(lost))),
    st.tuples(st.integers(0, 3_000), st.integers(0, 3_000), st.sampled_from([b"\0", b"\n", b"x"])).map(
        lambda hole: lambda lost: lost[: hole[0]] + hole[2] * len(lost[hole[0] : sum(hole[:2])]) + lost[sum(hole[:2]) :]
    ),
)
"""What becomes of the bytes that only the system's cache held: cut, or never written in some place."""


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), damages, st.sampled_from([None, KEY]), st.booleans())
def test_a_machine_that_stops_loses_nothing(
    tmp_path_factory: pytest.TempPathFactory,
    batches: list[int],
    damage: Callable[[bytes], bytes],
    key: bytes | None,
    is_head_old: bool,
) -> None:
    """Whatever of the cache had come to disk: every record verifies, is exported, and is put back by the next writer."""
    path = tmp_path_factory.mktemp("power") / "audit.log"
    head, total = path.with_name("audit.head"), FEW + sum(batches)
    with _start("one"):
        trail = AuditTrail(path, key)
        _append(trail, FEW)
        durable, early = path.stat().st_size, head.read_bytes()
        for size in batches:
            trail.append_all({"message": f"record {FEW + sum(batches)}"} for _ in range(size))
        _stop(trail)
    content = path.read_bytes()
    left = content[:durable] + damage(content[durable:])
    path.write_bytes(left)
    if is_head_old:
        head.write_bytes(early)
    with _start("two"):
        report = verify(path, key)
        assert (report.intact, report.records) == (True, total)
        assert bool(report.pending) == (left != content)
        exported = io.BytesIO()
        assert export_trail(path, exported, "jsonl", Wanted(), key) == (total, 0)
        assert exported.getvalue() == content
        assert path.read_bytes() == left, "who only reads, writes nothing"
        trail = AuditTrail(path, key)
        trail.append({"message": "after"})
        trail.close()
        assert path.read_bytes().startswith(content)
        assert verify(path, key) == AuditReport(intact=True, records=total + 1)
        assert not journal_path(path).exists()


def test_it_is_said(path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By `audit verify` before, and by the writer that puts the records back."""
    from ml_pipeline.cli import main

    with _start("one"):
        trail = AuditTrail(path)
        _append(trail, FEW + 5)
        _stop(trail)
    path.write_bytes(b"".join(line for _, _, line in lines_of(path)[:-2]))
    with _start("two"):
        assert main(["audit", "verify", str(path)]) == 0
        shown = f"intact: {FEW + 5} records, of which 2 are in audit.journal alone since the machine stopped\n"
        assert capsys.readouterr().out == shown
        assert main(["audit", "export", str(path), "--format", "jsonl"]) == 0
        assert capsys.readouterr().out.count("\n") == FEW + 5
        _append(AuditTrail(path), 1)
    assert capsys.readouterr().err == (
        "ml_pipeline: audit.log lacked 2 records after the machine had stopped: they were written to it again from "
        "audit.journal\n"
    )


def test_what_is_cut_while_the_machine_runs_was_cut(path: Path) -> None:
    """The cache shows every record until the machine stops: a journal hides nobody's hand."""
    trail = AuditTrail(path)
    _append(trail, FEW + 5)
    _stop(trail)
    path.write_bytes(b"".join(line for _, _, line in lines_of(path)[:-2]))
    reason = f"records {FEW + 4} to {FEW + 5} are missing here: audit.head names record {FEW + 5} as the last"
    cut = AuditReport(False, FEW + 3, FEW + 4, reason, file="audit.log")
    assert verify(path) == cut
    _append(AuditTrail(path), 1)
    report = verify(path)
    assert (report.intact, report.records, report.line) == (False, FEW + 3, FEW + 4)


@given(st.integers(0, 511), st.integers(1, 255))
def test_a_journal_that_was_changed_puts_nothing_into_the_trail(
    tmp_path_factory: pytest.TempPathFactory, at: int, flip: int
) -> None:
    """Neither with another beginning, nor with forged records: without the key, none follows the chain."""
    path = tmp_path_factory.mktemp("forged") / "audit.log"
    with _start("one"):
        trail = AuditTrail(path, KEY)
        _append(trail, FEW + 3)
        _stop(trail)
    journal = bytearray(journal_path(path).read_bytes())
    journal[at] ^= flip
    content = path.read_bytes()
    size = len(content) - json.loads(bytes(journal_path(path).read_bytes()[:512]))["at"]
    journal[512 + size : 512 + size + 40] = b'{"message":"forged","seq":21,"hash":"x"}'
    journal_path(path).write_bytes(bytes(journal))
    with _start("two"):
        assert verify(path, KEY) == AuditReport(intact=True, records=FEW + 3)
        trail = AuditTrail(path, KEY)
        trail.append({"message": "after"})
        trail.close()
        assert path.read_bytes().startswith(content)
        assert verify(path, KEY) == AuditReport(intact=True, records=FEW + 4)


def _in_turns(path: Path, writers: list[AuditTrail], rounds: int) -> int:
    """Each writes a record after the other; how many there are."""
    for number in range(rounds):
        for trail in writers:
            _append(trail, 1, first=number)
    return rounds * len(writers)


def test_several_processes_share_it(path: Path, waits: list[str]) -> None:
    """Each goes on where the other was, beside one that waits for the trail itself; a stop loses none of theirs."""
    with _start("one"):
        one, two, plain = AuditTrail(path), AuditTrail(path), AuditTrail(path)
        count = _in_turns(path, [one, two], FEW)
        waits.clear()
        count += _in_turns(path, [one, two], 20)
        assert set(waits) == {"audit.journal"}
        count += _in_turns(path, [one, plain, two], 8)
        count += _in_turns(path, [one, two], 3)
        at = json.loads(journal_path(path).read_bytes()[:512])["at"]
        for trail in (one, two, plain):
            _stop(trail)
    content = path.read_bytes()
    # What the plain one wrote is on disk, and what came before it; of the others' the last ones are not.
    path.write_bytes(content[: content.rindex(b'{"message"')])
    with _start("two"):
        assert at < path.stat().st_size
        assert verify(path) == AuditReport(intact=True, records=count, pending=1)
        _append(AuditTrail(path), 1)
        assert path.read_bytes().startswith(content)


def test_a_forked_child_goes_on(path: Path) -> None:
    """It opens the files itself."""
    trail = AuditTrail(path)
    _append(trail, FEW + 1)
    in_fork(lambda: _append(trail, FEW))
    _append(trail, FEW)
    assert verify(path) == AuditReport(intact=True, records=3 * FEW + 1)


def test_a_journal_that_is_removed_or_replaced_is_made_anew(path: Path, waits: list[str]) -> None:
    """The record that finds it gone waits for the trail."""
    trail = AuditTrail(path)
    _append(trail, FEW + 1)
    waits.clear()
    journal_path(path).unlink()
    _append(trail, 2)
    assert waits == ["audit.log", "audit.journal"]
    journal_path(path).rename(path.with_name("moved"))
    journal_path(path).write_bytes(b"short")
    _append(trail, 2)
    assert waits == ["audit.log", "audit.journal"] * 2
    assert journal_path(path).stat().st_size == LENGTH
    assert verify(path) == AuditReport(intact=True, records=FEW + 5)


def test_a_trail_that_is_moved_away_is_on_disk(path: Path, waits: list[str]) -> None:
    """Whoever notices waits for what it wrote there; set aside by ourselves, it was waited for before."""
    trail = AuditTrail(path)
    _append(trail, FEW + 2)
    waits.clear()
    path.rename(path.with_name("moved.log"))
    _append(trail, 1)
    assert waits == ["moved.log", "audit.log"]
    trail.close()


def test_rotation_keeps_what_a_stop_would_lose(path: Path) -> None:
    """A file is set aside whole; the journal goes on with the next, and is completed there."""
    with _start("one"):
        trail = AuditTrail(path, rotation=rotating(path, max_bytes=8_000))
        _append(trail, 5 * FEW)
        _stop(trail)
    assert len(files_of(path)) > 2
    content = path.read_bytes()
    lines = content.splitlines(keepends=True)
    assert len(lines) > 3
    path.write_bytes(b"".join(lines[:-2]))
    with _start("two"):
        assert verify(path) == AuditReport(intact=True, records=5 * FEW, pending=2)
        path.write_bytes(content)
        assert verify(path) == AuditReport(intact=True, records=5 * FEW)
    assert _messages(path) == _numbers(5 * FEW)


def test_a_journal_of_what_was_set_aside_puts_nothing_into_the_next_trail(path: Path) -> None:
    """Processes that wait for the trail themselves leave it lying; a start of the machine later it is out of date."""
    with _start("one"):
        trail = AuditTrail(path)
        _append(trail, FEW + 5)
        trail.close()
        AuditTrail(path, rotation=rotating(path, max_bytes=1)).append({"message": "next file"})
        for number in range(40):
            _append(AuditTrail(path), 1, first=number)
    content = path.read_bytes()
    with _start("two"):
        assert verify(path) == AuditReport(intact=True, records=FEW + 46)
        _append(AuditTrail(path), 1)
        assert path.read_bytes().startswith(content)
        assert verify(path) == AuditReport(intact=True, records=FEW + 47)


def test_nobody_goes_on_behind_what_a_killed_writer_left_in_the_cache_alone(path: Path, waits: list[str]) -> None:
    """Its record is in the trail and not in the journal: the next one waits for the trail, and so for both."""
    trail = AuditTrail(path)
    _append(trail, FEW + 1)
    killed = AuditTrail(path)
    with (
        mock.patch.object(killed._journal, "keep", side_effect=SystemExit),
        mock.patch.object(killed._journal, "take_back"),
        mock.patch.object(os, "ftruncate"),
        pytest.raises(SystemExit),
    ):
        killed.append({"message": "never acknowledged"})
    waits.clear()
    _append(trail, 2)
    assert waits == ["audit.log", "audit.journal"]
    assert verify(path) == AuditReport(intact=True, records=FEW + 4)


def test_a_record_that_was_taken_back_displaces_no_other(path: Path, waits: list[str]) -> None:
    """On disk it may still be in the trail; whoever writes the next waits for that, whatever was in its hands."""
    one, two = AuditTrail(path), AuditTrail(path)
    _append(one, FEW + 1)
    with mock.patch.object(two._group, "settle", side_effect=KeyboardInterrupt), pytest.raises(KeyboardInterrupt):
        two.append({"message": "taken back"})
    waits.clear()
    _append(one, 2, first=FEW + 1)
    assert waits == ["audit.log", "audit.journal"]
    assert _messages(path) == _numbers(FEW + 3)


def test_putting_back_survives_its_own_kill(path: Path, waits: list[str]) -> None:
    """Who finds the trail complete in the cache waits for it all the same, before the journal goes."""
    with _start("one"):
        trail = AuditTrail(path)
        _append(trail, FEW + 5)
        _stop(trail)
    waits.clear()
    with _start("two"):
        _append(AuditTrail(path), 1)
    assert waits[0] == "audit.log"
    assert len(waits) == 2


def test_without_the_id_of_the_start_a_journal_is_left_alone(path: Path) -> None:
    """A process that is not shown it, as in a bare chroot, neither hides a cut nor takes the journal away."""
    trail = AuditTrail(path)
    _append(trail, FEW + 5)
    path.write_bytes(b"".join(line for _, _, line in lines_of(path)[:-2]))
    journal = journal_path(path).read_bytes()
    with mock.patch.object(_platform, "boot_id", return_value=None):
        assert not verify(path).intact
        _append(AuditTrail(path), 1)
    assert journal_path(path).read_bytes() == journal


def test_a_journal_of_another_key_is_kept(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It may hold what the trail lacks; who has that key can still read it."""
    trail = AuditTrail(path, KEY)
    _append(trail, FEW + 5)
    _stop(trail)
    journal = journal_path(path).read_bytes()
    _append(AuditTrail(path, b"n" * 32), FEW + 1)
    assert path.with_name("audit.journal.old").read_bytes() == journal
    said = "audit.journal was not written with this key: it is kept as audit.journal.old"
    assert said in capsys.readouterr().err


def test_an_export_beside_who_puts_records_back_and_sets_the_trail_aside(path: Path) -> None:
    """What was found missing of one file is no part of the next."""
    with _start("one"):
        trail = AuditTrail(path)
        _append(trail, FEW + 5)
        _stop(trail)
    path.write_bytes(b"".join(line for _, _, line in lines_of(path)[:-2]))
    found = _audit_journal.read_missing

    def and_then(trail: Path, key: bytes | None) -> Any:
        missing = found(trail, key)
        AuditTrail(path, rotation=rotating(path, max_bytes=1)).append({"message": "new"})
        return missing

    with _start("two"), mock.patch("ml_pipeline.config._audit_export.read_missing", and_then):
        assert export_trail(path, io.BytesIO(), "jsonl", Wanted()) == (FEW + 6, 0)


def test_a_folder_where_it_cannot_be_made(path: Path, waits: list[str]) -> None:
    """As on a disk with little room: every record waits for the trail, and nobody is bothered."""
    trail = AuditTrail(path)
    journal_path(path).mkdir()
    _append(trail, 2 * FEW)
    assert set(waits) == {"audit.log"}
    assert _runtime.tally.telemetry_errors == {}
    assert verify(path) == AuditReport(intact=True, records=2 * FEW)


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of files whose writing to disk fails."""
    names: set[str] = set()
    real = _audit_journal.synchronise

    def synchronise(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name in names:
            raise OSError(errno.EIO, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(_audit_journal, "synchronise", synchronise)
    return names


def test_a_journal_whose_disk_fails_is_done_without(path: Path, failing: set[str]) -> None:
    """The record is on disk with the trail; where that fails too, it is refused and leaves no trace."""
    trail = AuditTrail(path)
    _append(trail, FEW + 2)
    failing.add("audit.journal")
    _append(trail, 2, first=FEW + 2)
    failing.add("audit.log")
    with pytest.raises(OSError, match="Input/output error"):
        _append(trail, 1)
    failing.clear()
    _append(trail, 1, first=FEW + 4)
    assert _messages(path) == _numbers(FEW + 5)
    assert verify(path) == AuditReport(intact=True, records=FEW + 5)


def _lose(path: Path, at: int) -> None:
    """What a disk has not taken, and the cache let go of: it reads as zeros."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes(path.stat().st_size - at))


def test_a_disk_that_fails_later_loses_nothing_that_was_acknowledged(
    path: Path, failing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trail's writes fail behind our back: what the journal holds is written again, until that succeeds."""
    monkeypatch.setattr(_audit_journal, "_ROOM", 4_096)
    trail = AuditTrail(path)
    _append(trail, FEW)
    durable = path.stat().st_size
    failing.add("audit.log")
    written = FEW
    with contextlib.suppress(OSError):  # once the journal is full
        while written < 100:
            _append(trail, 1, first=written)
            written += 1
    assert FEW + 3 < written < 100
    with pytest.raises(OSError, match="Input/output error"):
        _append(trail, 1, first=written)
    _lose(path, durable)
    failing.clear()
    _append(trail, 3, first=written)
    trail.close()
    assert _messages(path) == _numbers(written + 3)
    assert verify(path) == AuditReport(intact=True, records=written + 3)


def test_whoever_comes_next_knows_of_a_disk_that_failed(path: Path, failing: set[str]) -> None:
    """The system tells of it once; the journal tells the others, and they write the trail again before anything else."""
    trail = AuditTrail(path)
    _append(trail, FEW)
    durable = path.stat().st_size
    _append(trail, 5, first=FEW)
    failing.add("audit.log")
    with pytest.raises(OSError, match="Input/output error"):
        _append(AuditTrail(path), 1)
    _stop(trail)
    _lose(path, durable)
    failing.clear()
    _append(AuditTrail(path), 1, first=FEW + 5)
    assert _messages(path) == _numbers(FEW + 6)
    assert verify(path) == AuditReport(intact=True, records=FEW + 6)


def test_what_can_no_longer_be_read_back_is_said(
    path: Path, failing: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trail failed, and somebody overwrote the journal: no record is taken, as if all were well."""
    ml_pipeline.configure(strict=False)
    monkeypatch.setattr(_audit_journal, "_ROOM", 4_096)
    trail = AuditTrail(path)
    _append(trail, FEW + 3)
    failing.add("audit.log")
    with pytest.raises(OSError, match="Input/output error"):
        trail.append_all([{"message": "x" * 500}] * 9)
    durable = json.loads(journal_path(path).read_bytes()[:512])["at"]
    _lose(path, durable)
    with journal_path(path).open("r+b") as file:
        file.seek(512)
        file.write(bytes(600))
    failing.clear()
    with pytest.raises(OSError, match="records could not be put on disk, nor be read back"):
        _append(trail, 1)


def test_an_export_replaces_no_journal(path: Path) -> None:
    """As it replaces no other part of a trail."""
    with pytest.raises(SettingsError, match="an export must not be written over a log file"):
        export_trail_to(journal_path(path), path, "csv", Wanted())


def test_an_open_file_is_known_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is in place is asked without asking for its state; a change on the way to it shows in time."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to("a")
    file = OpenFile(tmp_path / "link" / "file", os.O_CREAT)
    assert not file.is_in_place()
    file.open()
    assert file.is_in_place()
    looks: list[Any] = []
    monkeypatch.setattr(OpenFile, "status", lambda _: looks.append(1))
    assert file.is_in_place()
    assert looks == []
    monkeypatch.undo()
    (tmp_path / "a" / "file").rename(tmp_path / "a" / "other")
    assert not file.is_in_place()
    (tmp_path / "a" / "other").rename(tmp_path / "a" / "file")
    assert file.is_in_place()
    beside = OpenFile(tmp_path / "link" / "file", is_looked_for=False)
    beside.open()
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to("b")
    monkeypatch.setattr("ml_pipeline.config._audit_files._LOOK_SECONDS", 0.0)
    file._look_at = 0.0
    assert not file.is_in_place()
    assert beside.is_in_place(), "of files that belong together, one looks for all"
    (tmp_path / "a" / "file").unlink()
    assert not beside.is_in_place()
