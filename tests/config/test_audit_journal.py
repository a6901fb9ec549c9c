"""The journal of the audit trail: what a power failure leaves, whatever was on disk by then."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import stat
from pathlib import Path

import pytest

from ml_pipeline.config import _audit
from ml_pipeline.config._audit import AuditReport, AuditTrail, verify
from ml_pipeline.config._audit_files import OpenFile
from ml_pipeline.config._audit_journal import journal_path
from tests.config.audit_kit import KEY, files_of, lines_of, rotating

STEPS = 120


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a trail is to lie."""
    return tmp_path / "trail" / "audit.log"


class Disk:
    """Knows what of a trail was put on disk, and lays out what a power failure may leave.

    Args:
        path: The trail.
        dice: Decides what else reached the disk: of the trail, any number of bytes, and of the journal likewise.
    """

    def __init__(self, path: Path, dice: random.Random) -> None:
        self._path = path
        self._dice = dice
        self._sure: dict[int, int] = {}
        self._journal = b""
        self._synchronise = _audit._synchronise

    def synchronise(self, descriptor: int) -> None:
        """Stands in for ``os.fdatasync``: does it, and remembers."""
        self._synchronise(descriptor)
        held = os.fstat(descriptor)
        if journal_path(self._path).exists() and os.path.samestat(held, journal_path(self._path).stat()):
            self._journal = journal_path(self._path).read_bytes()
        else:
            self._sure[held.st_ino] = held.st_size

    def fail(self, target: Path) -> Path:
        """Lay out in a new folder what is left when the power fails now."""
        target.mkdir()
        for each in self._path.parent.glob("audit.log*"):
            content = each.read_bytes()
            sure = min(self._sure.get(each.stat().st_ino, 0), len(content))
            left = content[: self._dice.randint(sure, len(content))]
            (target / each.name).write_bytes(left)
        shutil.copy(self._path.with_name("audit.head"), target)
        present = journal_path(self._path).read_bytes() if journal_path(self._path).exists() else b""
        at = self._dice.choice([0, len(present), self._dice.randint(0, len(present))])
        (target / journal_path(self._path).name).write_bytes(present[:at] + self._journal[at:])
        return target / "audit.log"


class Story:
    """Two writers of one trail who do anything, and what they were told.

    Args:
        path: The trail.
        dice: Decides.
        max_bytes: When its files are full.
    """

    def __init__(self, path: Path, dice: random.Random, max_bytes: int | None) -> None:
        self.disk = Disk(path, dice)
        self.told: list[str] = []
        self._dice = dice
        self._is_failing = False
        rotation = None if max_bytes is None else rotating(path, max_bytes=max_bytes)
        self.trails = [AuditTrail(path, KEY, rotation=rotation) for _ in range(2)]
        self._trail = self.trails[0]

    def synchronise(self, descriptor: int) -> None:
        """Stands in for ``os.fdatasync``, on a disk that fails at times."""
        if self._is_failing:
            raise OSError(5, "Input/output error")
        self.disk.synchronise(descriptor)

    def step(self, number: int) -> None:
        """Write once, then maybe something else."""
        messages = [f"{number}.{at}" for at in range(self._dice.choice([1, 1, 1, 2, 5]))]
        self._is_failing = self._dice.random() < 0.1
        with contextlib.suppress(OSError):
            self._trail.append_all([{"message": message} for message in messages])
            self.told += messages
        self._is_failing = False
        if self._dice.random() < 0.2:
            self._trail = self._dice.choice(self.trails)
        if self._dice.random() < 0.1:
            self._dice.choice(self.trails).close()
        if self._dice.random() < 0.1:
            self._dice.choice(self.trails).check()


def _messages(path: Path) -> list[str]:
    return [json.loads(line)["message"] for _, _, line in lines_of(path) if line.endswith(b"\n")]


@pytest.mark.parametrize("max_bytes", [None, 6_000])
def test_no_power_failure_takes_what_was_told(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_bytes: int | None
) -> None:
    """After any number of writers, batches, closings and failures, what is left verifies, and goes on with no gap."""
    seed = random.randrange(1 << 32)
    story = Story(path, random.Random(seed), max_bytes)
    monkeypatch.setattr(_audit, "_synchronise", story.synchronise)
    monkeypatch.setattr("ml_pipeline.config._audit_journal._BYTES", 3_000)  # so that it is full again and again
    for number in range(STEPS):
        story.step(number)
        if not story.told:
            continue
        left = story.disk.fail(tmp_path / f"left {number}")
        where = f"seed {seed}, step {number}"
        assert verify(left, KEY) == AuditReport(intact=True, records=len(story.told)), where
        heir = AuditTrail(left, KEY)
        heir.append({"message": "after"})
        heir.close()
        assert _messages(left) == [*story.told, "after"], where
        assert verify(left, KEY) == AuditReport(intact=True, records=len(story.told) + 1), where
        shutil.rmtree(left.parent)
    for each in story.trails:
        each.close()
    assert verify(path, KEY) == AuditReport(intact=True, records=len(story.told))


def _waits(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    waits: list[str] = []
    real = _audit._synchronise

    def synchronise(descriptor: int) -> None:
        waits.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(_audit, "_synchronise", synchronise)
    return waits


def test_one_writer_waits_for_the_journal_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first record waits for the trail, those that follow for the journal, until it is full or closed."""
    waits = _waits(monkeypatch)
    trail = AuditTrail(path)
    for _ in range(4):
        trail.append({"message": "small"})
    assert waits == ["audit.log", *[".audit.journal"] * 3]
    trail.append_all([{"message": "large" * 100}] * 600)
    trail.append({"message": "small"})
    trail.check()
    assert waits[4:] == ["audit.log", ".audit.journal", "audit.log"]
    trail.append({"message": "small"})
    trail.close()
    assert waits[7:] == [".audit.journal", "audit.log"]
    assert verify(path) == AuditReport(intact=True, records=606)
    assert len(lines_of(path)) == 606


def test_another_writer_waits_for_the_trail(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What another has written is on disk before its copies are overwritten."""
    trails = [AuditTrail(path), AuditTrail(path)]
    waits = _waits(monkeypatch)
    for trail in (*trails, *trails):
        trail.append({"message": "in turns"})
    assert waits == ["audit.log"] * 4
    trails[0].append({"message": "one"})
    trails[0].append({"message": "after the other"})
    assert waits[4:] == ["audit.log", ".audit.journal"]
    assert verify(path) == AuditReport(intact=True, records=6)


def test_the_journal_keeps_its_length_and_mode(path: Path) -> None:
    """However many records go through it, it has 256 KiB, and mode 0640 as every file of the trail."""
    trail = AuditTrail(path)
    for _ in range(6):
        trail.append_all([{"message": "x" * 1000}] * 100)
    held = journal_path(path).stat()
    assert (held.st_size, stat.S_IMODE(held.st_mode)) == (262_144, 0o640)
    trail.close()
    assert verify(path) == AuditReport(intact=True, records=600)


@pytest.mark.parametrize("obstacle", ["folder", "removed", "shortened"])
def test_without_its_journal_the_trail_is_written_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch, obstacle: str
) -> None:
    """A journal that cannot be made, or is removed or cut meanwhile, costs the wait for the trail, and no record."""
    if obstacle == "folder":
        journal_path(path).mkdir(parents=True)
    trail = AuditTrail(path)
    trail.append_all([{"message": "one"}])
    trail.append({"message": "two"})
    if obstacle == "removed":
        journal_path(path).unlink()
    if obstacle == "shortened":
        os.truncate(journal_path(path), 0)
    waits = _waits(monkeypatch)
    trail.append({"message": "three"})
    assert waits == ["audit.log"]
    trail.append({"message": "four"})
    assert waits[1:] == ["audit.log" if obstacle == "folder" else ".audit.journal"]
    assert verify(path) == AuditReport(intact=True, records=4)


def test_a_cut_shows_as_soon_as_the_writer_goes_on(path: Path) -> None:
    """Records cut off a trail that is in use are in the journal until then; once it is closed, a cut shows at once."""
    trail = AuditTrail(path, KEY)
    for number in range(4):
        trail.append({"message": str(number)})
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    assert verify(path, KEY) == AuditReport(intact=True, records=4)
    trail.append({"message": "after"})
    report = verify(path, KEY)
    assert (report.intact, report.records, report.line) == (False, 3, 4)
    path.write_bytes(b"".join(lines))
    trail.close()
    path.write_bytes(b"".join(lines[:-1]))
    assert not verify(path, KEY).intact


def test_what_the_journal_holds_is_signed_too(path: Path) -> None:
    """A record that somebody without the key puts into the journal is shown, and never becomes one of the trail."""
    trail = AuditTrail(path, KEY)
    for number in range(3):
        trail.append({"message": str(number)})
    content = journal_path(path).read_bytes()
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    journal_path(path).write_bytes(content.replace(b'"message":"2"', b'"message":"X"'))
    report = verify(path, KEY)
    assert (report.intact, report.records, report.reason) == (
        False,
        2,
        "record 3 was changed, or written with another key",
    )
    heir = AuditTrail(path, KEY)
    heir.append({"message": "after"})
    assert [json.loads(line)["message"] for line in path.read_bytes().splitlines()] == ["0", "1", "after"]


def test_a_file_that_is_not_in_place_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set aside, removed, replaced, seen from another folder, or behind a link that leads elsewhere by now."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to("a")
    path = tmp_path / "a" / "file"
    monkeypatch.chdir(tmp_path / "a")
    for shown in (path, tmp_path / "link" / "file", Path("file")):
        file = OpenFile(shown, os.O_CREAT)
        assert (file.is_in_place(), file.size()) == (False, None)
        os.write(file.open(), b"four")
        assert [file.size(), file.size()] == [4, 4]
        path.rename(tmp_path / "b" / "file")
        assert not file.is_in_place()
        path.write_bytes(b"another")
        assert (file.is_in_place(), file.size()) == (False, None)
        path.unlink()
        (tmp_path / "b" / "file").rename(path)
        assert file.is_in_place()
        if not shown.is_absolute():
            monkeypatch.chdir(tmp_path / "b")
            assert not file.is_in_place()
        if "link" in shown.parts:
            (tmp_path / "link").unlink()
            (tmp_path / "link").symlink_to("b")
            assert not file.is_in_place()
        file.close()
        assert not file.is_in_place()
        path.unlink()


def test_a_file_in_place_is_asked_for_its_status_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its next write would get a time of its own, which the disk writes too, as long as that wait takes."""
    asked: list[OpenFile] = []
    real = OpenFile.status

    def status(file: OpenFile) -> os.stat_result | None:
        asked.append(file)
        return real(file)

    monkeypatch.setattr(OpenFile, "status", status)
    file = OpenFile(tmp_path / "file", os.O_CREAT)
    file.open()
    assert [file.is_in_place() for _ in range(5)] == [True] * 5
    assert len(asked) == 1


def test_closing_leaves_nothing_of_files_that_were_set_aside(path: Path) -> None:
    """Nor of a writer that was killed: a cut shows, however often a file was full before."""
    killed = AuditTrail(path, KEY)
    killed.append_all([{"message": "one"}])
    killed.append({"message": "two"})
    trail = AuditTrail(path, KEY, rotation=rotating(path, max_bytes=600))
    for number in range(7):
        trail.append({"message": str(number)})
    assert len(files_of(path)) > 2
    trail.close()
    for each in files_of(path)[1:]:
        each.unlink()
    report = verify(path, KEY)
    assert (report.intact, report.records) == (False, len(files_of(path)[0].read_bytes().splitlines()))
