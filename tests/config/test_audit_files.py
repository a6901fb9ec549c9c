"""The files of the audit trail: head, rotation, retention, modes, and a folder that an earlier version left."""

from __future__ import annotations

import gzip
import os
import stat
import threading
from pathlib import Path

import pytest

import ml_pipeline
from ml_pipeline import _platform, _runtime
from ml_pipeline.config._audit import AuditReport, AuditTrail, verify
from ml_pipeline.config._audit_chain import GENESIS, START, digest, seal, sign
from ml_pipeline.config._audit_head import DAMAGED, read_head
from ml_pipeline.config._audit_retention import expire
from ml_pipeline.config._audit_segments import read_anchor
from ml_pipeline.config._log_retention import compress
from ml_pipeline.config._log_rotation import day_of, day_text, rotated_files
from ml_pipeline.config.logging_config import audit_logger
from tests.config.audit_kit import KEY, Clock, content_of, files_of, lines_of, pack, rotating, write_daily, write_trail
from tests.processes import in_fork, python_answer
from tests.support import eventually


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a trail is to lie."""
    return tmp_path / "audit.log"


def _names(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir() if each.name.startswith("audit"))


def _old_trail(path: Path) -> None:
    """A trail as the version before wrote it: without a head."""
    write_trail(path, 3)
    lines = content_of(path).replace(b'"head":"new",', b"").splitlines(keepends=True)
    place, content = START, b""
    for line in lines:
        sealed, place = seal([line[: line.rindex(b'"seq":')]], place, None, is_first=False)
        content += sealed
    path.write_bytes(content)
    path.with_name("audit.head").unlink()


def test_the_head_names_the_last_record(path: Path) -> None:
    """After each record ``audit.head`` holds its number and hash, in one line of a fixed length."""
    trail = AuditTrail(path)
    for count in (1, 12, 200):
        trail.append_all([{"message": "one"}] * count)
        last = lines_of(path)[-1][2]
        head = path.with_name("audit.head").read_bytes()
        place = read_head(path.with_name("audit.head"), None)
        assert place is not None
        assert f'"seq":{place[0]},'.encode() in last
        assert place[1].encode() in last
        assert (len(head), head.count(b"\n"), head[-1:]) == (256, 1, b"\n")


def test_a_head_that_lags_behind_is_accepted_and_overtaken(path: Path) -> None:
    """Records behind the one it names stand, as after a power failure, and the next record moves it on."""
    write_trail(path, 2)
    head = path.with_name("audit.head")
    earlier = head.read_bytes()
    write_trail(path, 3)
    head.write_bytes(earlier)
    assert verify(path) == AuditReport(intact=True, records=5)
    write_trail(path, 1)
    assert verify(path) == AuditReport(intact=True, records=6)
    assert read_head(head, None) == (6, read_head(head, None)[1])  # type: ignore[index]


def test_a_trail_of_the_version_before_goes_on(path: Path) -> None:
    """Without a head it is intact, and said to have none; the first new record makes one, and says so itself."""
    _old_trail(path)
    assert verify(path) == AuditReport(intact=True, records=3, has_head=False)
    write_trail(path, 2)
    assert verify(path) == AuditReport(intact=True, records=5)
    assert [b'"head":"new"' in line for _, _, line in lines_of(path)] == [False, False, False, True, False]
    path.with_name("audit.head").unlink()
    assert not verify(path).intact


def test_whoever_writes_first_beside_a_new_head_says_so(path: Path) -> None:
    """One process makes the head, another writes the first record, a third comes before the head was moved on."""
    maker = AuditTrail(path)
    maker.check()
    new = path.with_name("audit.head").read_bytes()
    write_trail(path, 1)
    path.with_name("audit.head").write_bytes(new)
    write_trail(path, 1)
    maker.append({"message": "maker"})
    maker.close()
    assert [b'"head":"new"' in line for _, _, line in lines_of(path)] == [True, False, False]
    assert verify(path) == AuditReport(intact=True, records=3)


def test_a_file_that_cannot_be_set_aside_is_written_on(path: Path) -> None:
    """The fault is counted, said once, and no record is lost; nor where only what follows the renaming fails."""
    ml_pipeline.configure(strict=False)
    rotation = rotating(path, max_bytes=300)
    trail = AuditTrail(path, rotation=rotation)
    trail.append_all([{"message": "one"}] * 3)
    path.with_name(".rotation.lock").mkdir()
    trail.append({"message": "two"})
    assert len(files_of(path)) == 1
    path.with_name(".rotation.lock").rmdir()

    def fail() -> None:
        raise OSError("no thread")

    rotation.on_rotated = fail
    trail.append({"message": "three"})
    trail.close()
    assert [len(content_of(each).splitlines()) for each in files_of(path)] == [4, 1]
    assert verify(path) == AuditReport(intact=True, records=5)
    assert _runtime.tally.telemetry_errors["audit_rotation", "IsADirectoryError"] == 1


def test_a_head_under_another_key_is_replaced_and_shows(path: Path) -> None:
    """A writer with another key goes on, and leaves a trail that verifies with neither."""
    write_trail(path, 2, key=KEY)
    assert read_head(path.with_name("audit.head"), None) == DAMAGED
    write_trail(path, 1, key=b"w" * 32)
    assert not verify(path, KEY).intact
    assert not verify(path, b"w" * 32).intact


SEALED = [
    {},
    {"seq": 3},
    {"seq": "3", "hash": GENESIS},
    {"seq": True, "hash": GENESIS},
    {"seq": -1, "hash": GENESIS},
    {"seq": 2**60, "hash": GENESIS},
    {"seq": 3, "hash": None},
    {"seq": 3, "hash": "x"},
]


@pytest.mark.parametrize("fields", SEALED)
def test_a_head_that_names_no_place_is_replaced_and_shows(path: Path, fields: dict[str, object]) -> None:
    """Without a key anyone can make its checksum fit: what it lacks must not stop the trail."""
    write_trail(path, 3)
    head = path.with_name("audit.head")
    head.write_bytes(sign(b"audit.head", fields, None)[:-1].ljust(255) + b"\n")
    assert verify(path).reason == f"audit.head: {DAMAGED}"
    write_trail(path, 1)
    report = verify(path)
    assert (report.records, report.line) == (3, 4)
    assert report.reason == "record 4 began a new audit.head: the one before was removed, and records may be missing"


@pytest.mark.parametrize("body", [b"{", b"[1", b'{"seq":'])
def test_a_head_that_is_no_json_is_damaged(path: Path, body: bytes) -> None:
    """However well its checksum fits."""
    write_trail(path, 3)
    line = body + b',"mac":"' + digest(b"audit.head\n" + body, None).encode() + b'"}'
    path.with_name("audit.head").write_bytes(line.ljust(255) + b"\n")
    assert verify(path).reason == f"audit.head: {DAMAGED}"
    write_trail(path, 1)
    assert len(lines_of(path)) == 4


@pytest.mark.parametrize(
    "fields",
    [
        *SEALED,
        {"seq": 1, "hash": GENESIS},
        {"seq": 1, "hash": GENESIS, "day": "1", "number": 1, "head": True},
        {"seq": 1, "hash": GENESIS, "day": 1, "number": None, "head": True},
        {"seq": 1, "hash": GENESIS, "day": 1, "number": 1, "head": "yes"},
    ],
)
def test_an_anchor_that_names_no_place_is_damaged(path: Path, fields: dict[str, object]) -> None:
    """`verify` says so, nothing is removed, and the trail goes on."""
    write_trail(path, 9, max_bytes=900)
    files = files_of(path)
    path.with_name("audit.anchor").write_bytes(sign(b"audit.anchor", fields, None))
    assert verify(path).reason == f"audit.anchor: {DAMAGED}"
    expire(path, None, oldest=1 << 40)
    write_trail(path, 1)
    assert files_of(path) == files
    assert len(lines_of(path)) == 10


def test_a_folder_in_place_of_a_file_that_was_set_aside(path: Path) -> None:
    """Is a fault that `verify` names; the trail goes on behind the record that its head names."""
    write_trail(path, 3)
    folder = path.with_name("audit.log.2026-01-01.1")
    path.unlink()
    folder.mkdir()
    write_trail(path, 1)
    report = verify(path)
    assert (report.intact, report.file, report.line) == (False, folder.name, 1)
    assert report.reason == "from here on the file cannot be unpacked"
    assert b'"seq":4,' in content_of(path)


def test_files_are_for_owner_and_group_whatever_the_umask(tmp_path: Path) -> None:
    """Every file has mode 0640 and the new folder 0750, under a umask of 000 as of 077."""
    for number, mask in enumerate((0o000, 0o077)):
        path = tmp_path / f"logs {number}" / "audit.log"
        before = os.umask(mask)
        try:
            write_trail(path, 9, max_bytes=900)
            expire(path, None, oldest=day_of(files_of(path)[0].stat().st_mtime) + 2)
        finally:
            os.umask(before)
        assert (path.parent / "audit.anchor").is_file()
        assert {stat.S_IMODE(each.stat().st_mode) for each in path.parent.glob("audit*")} == {0o640}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o750


def test_rotation_by_size_keeps_the_chain(path: Path) -> None:
    """A full file is set aside under its day and number, and the chain goes on in the next."""
    write_trail(path, 9, max_bytes=900)
    today = day_text(day_of(path.stat().st_mtime))
    rotated = [each.name for each in files_of(path)[:-1]]
    assert rotated == [f"audit.log.{today}.{number + 1}" for number in range(len(rotated))]
    assert len(rotated) >= 2
    assert verify(path) == AuditReport(intact=True, records=9)


def test_rotation_by_day_keeps_the_chain(path: Path) -> None:
    """The first record of a new day begins a new file."""
    clock = Clock()
    trail = AuditTrail(path, rotation=rotating(path, clock=clock))
    for day in range(3):
        trail.append_all([{"message": f"{day}"}] * 2)
        os.utime(path, (clock.now, clock.now))
        clock.pass_days(1)
    trail.close()
    assert [each.name for each in files_of(path)] == ["audit.log.2024-10-04.1", "audit.log.2024-10-05.1", "audit.log"]
    assert verify(path) == AuditReport(intact=True, records=6)


def test_a_clock_that_is_set_back_does_not_change_the_order(path: Path) -> None:
    """A file is never set aside under a day before one that has been: the names stay in the order of the chain."""
    clock = Clock()
    trail = AuditTrail(path, rotation=rotating(path, max_bytes=300, clock=clock))
    for days in (0, 1, -5, -3, 9):
        trail.append_all([{"message": "one"}] * 3)
        os.utime(path, (clock.now, clock.now))
        clock.pass_days(days)
    trail.close()
    numbers = [line.split(b'"seq":')[1].split(b",")[0] for _, _, line in lines_of(path)]
    assert numbers == [str(number).encode() for number in range(1, 16)]
    assert verify(path) == AuditReport(intact=True, records=15)


def test_compressed_files_are_read(path: Path) -> None:
    """Whatever of what was set aside is compressed, the chain is walked through it."""
    write_trail(path, 9, max_bytes=900)
    for each in files_of(path)[:-1]:
        pack(each)
        assert verify(path) == AuditReport(intact=True, records=9)


def test_both_forms_of_a_file_count_once(path: Path) -> None:
    """A kill between the compressed form and the removal of the other leaves both, with the same records."""
    write_trail(path, 9, max_bytes=900)
    oldest = files_of(path)[0]
    content = oldest.read_bytes()
    pack(oldest)
    oldest.write_bytes(content)
    assert verify(path) == AuditReport(intact=True, records=9)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_compressed_form_with_other_lines_is_found(
    path: Path, capsys: pytest.CaptureFixture[str], *, damaged: bool
) -> None:
    """`verify` names it, the compression leaves both forms, and neither is removed because of its age."""
    write_trail(path, 9, max_bytes=900)
    genuine = files_of(path)[0]
    content = genuine.read_bytes()
    packed = path.with_name(f"{genuine.name}.gz")
    false = gzip.compress(content.replace(b"record 1", b"RECORD 1"))
    packed.write_bytes(false[:-8] if damaged else false)
    report = verify(path)
    assert (report.intact, report.records, report.file) == (False, 9, packed.name)
    assert report.line == 2
    assert report.reason == f"it is not what {genuine.name} holds, which is intact: remove {packed.name}"
    if not damaged:
        expire(path, None, oldest=day_of(genuine.stat().st_mtime) + 1)
        assert (
            f"it is not intact: {packed.name}, line 2: it is not what {genuine.name} holds" in capsys.readouterr().err
        )
        assert compress(genuine, now=genuine.stat().st_ctime + 10)
        assert packed.read_bytes() == false
        packed.unlink()
    assert genuine.read_bytes() == content
    assert compress(genuine, now=genuine.stat().st_ctime + 10)
    assert verify(path) == AuditReport(intact=True, records=9)


def test_compression_leaves_what_verifies(path: Path) -> None:
    """The files are compressed by the same means as those of other logs."""
    write_trail(path, 9, max_bytes=900)
    for each in files_of(path)[:-1]:
        assert compress(each, now=each.stat().st_ctime + 10)
    assert all(each.suffix == ".gz" for each in files_of(path)[:-1])
    assert verify(path) == AuditReport(intact=True, records=9)


def test_a_writer_goes_on_where_only_rotated_files_are_left(path: Path) -> None:
    """After a kill between setting the file aside and making the next, the chain goes on; without a head, too."""
    for headless in (False, True):
        for packed in (False, True):
            folder = path.parent / f"{headless} {packed}"
            trail = folder / "audit.log"
            write_trail(trail, 3)
            trail.rename(folder / "audit.log.2026-01-01.1")
            if packed:
                pack(folder / "audit.log.2026-01-01.1")
            if headless:
                (folder / "audit.head").unlink()
            else:
                assert verify(trail) == AuditReport(intact=True, records=3)
            write_trail(trail, 1)
            assert lines_of(trail)[-1][2].split(b'"seq":')[1].startswith(b"4,")
            assert verify(trail).intact is not headless


def test_an_expired_file_leaves_an_anchor(path: Path) -> None:
    """What is too old is removed; the chain goes on behind a signed anchor, which can be neither changed nor removed."""
    first_day = write_daily(path, 4, key=KEY)
    expire(path, KEY, oldest=first_day + 1)
    assert _names(path)[:3] == ["audit.anchor", "audit.head", "audit.log"]
    assert [each.day for each in rotated_files(path)] == [first_day + 1, first_day + 2]
    assert verify(path, KEY) == AuditReport(intact=True, records=6, removed=2)
    anchor = path.with_name("audit.anchor")
    content = anchor.read_bytes()
    anchor.write_bytes(content.replace(b'"seq":2', b'"seq":4'))
    assert read_anchor(path, KEY) == DAMAGED
    assert not verify(path, KEY).intact
    anchor.unlink()
    assert verify(path, KEY).reason == "record 1 should stand here, but this is record 3: records are missing or added"
    anchor.write_bytes(content)
    files_of(path)[0].unlink()
    assert verify(path, KEY).reason == "record 3 should stand here, but this is record 5: records are missing or added"


def test_retention_by_days(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Day after day, what is older than the days that are kept goes, packed or not, and every state verifies."""
    clock = Clock()
    trail = AuditTrail(path, KEY, rotation=rotating(path, clock=clock), retention_days=3)
    for day in range(8):
        trail.append_all([{"message": f"{day}"}] * 2)
        os.utime(path, (clock.now, clock.now))
        if day % 2:
            pack(files_of(path)[-2])
        trail._expire()
        report = verify(path, KEY)
        assert (report.intact, report.records + report.removed) == (True, 2 * day + 2)
        clock.pass_days(1)
    trail.close()
    assert [each.day for each in rotated_files(path)] == [day_of(clock.now) - each for each in (4, 3, 2)]


def test_a_kill_between_anchor_and_removal_is_finished(path: Path) -> None:
    """A file whose anchor was written is not read any more, and goes the next time."""
    first_day = write_daily(path, 3)
    first = files_of(path)[0]
    content = first.read_bytes()
    expire(path, None, oldest=first_day + 1)
    first.write_bytes(content)
    assert verify(path) == AuditReport(intact=True, records=4, removed=2)
    expire(path, None, oldest=first_day + 1)
    assert not first.exists()
    assert verify(path) == AuditReport(intact=True, records=4, removed=2)


def test_what_was_tampered_with_is_kept(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that is not intact is evidence: it stays past its days, with all that came after it, and it is said."""
    write_trail(path, 9, max_bytes=900)
    first = files_of(path)[0]
    first.write_bytes(first.read_bytes().replace(b"record 1", b"record X"))
    before = _names(path)
    expire(path, None, oldest=rotated_files(path)[-1].day + 9)
    assert _names(path) == before
    day = day_text(rotated_files(path)[0].day)
    reason = "line 2: record 2 was changed, or written with another key"
    assert f"{first.name} is kept past {day}, for it is not intact: {reason}" in capsys.readouterr().err


def test_nothing_is_removed_behind_a_damaged_anchor(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a sound anchor nobody can say where the chain goes on: nothing is removed, and it is said."""
    write_trail(path, 9, max_bytes=900)
    path.with_name("audit.anchor").write_bytes(b"{}\n")
    before = _names(path)
    expire(path, None, oldest=rotated_files(path)[-1].day + 9)
    assert _names(path) == before
    assert f"no audit file is removed: audit.anchor: {DAMAGED}" in capsys.readouterr().err
    report = verify(path)
    assert (report.intact, report.file, report.reason) == (False, "audit.anchor", f"audit.anchor: {DAMAGED}")


def test_a_file_of_a_clock_that_was_wrong_is_kept(path: Path) -> None:
    """A file of 1970 was written before the clock was set; its age is unknown."""
    write_trail(path, 2)
    path.rename(path.with_name("audit.log.1970-01-01.1"))
    write_trail(path, 1)
    expire(path, None, oldest=20_000)
    assert verify(path) == AuditReport(intact=True, records=3)


def test_two_do_not_remove_at_once(path: Path) -> None:
    """While another process removes, nothing is done."""
    write_trail(path, 9, max_bytes=900)
    before = _names(path)
    import fcntl

    with path.with_name(".audit-retention.lock").open("w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        expire(path, None, oldest=rotated_files(path)[-1].day + 9)
        assert _names(path) == before
    expire(path, None, oldest=rotated_files(path)[-1].day + 9)
    assert _names(path) == ["audit.anchor", "audit.head", "audit.log"]
    assert verify(path).intact


def test_the_settings_decide(isolated: Path) -> None:
    """LOG_MAX_BYTES sets the trail's files aside, and AUDIT_RETENTION_DAYS is handed on."""
    ml_pipeline.configure(log_max_bytes=10_000, audit_retention_days=1)
    for number in range(60):
        audit_logger.info("review", extra={"text": f"{number} " * 60})
    trail = isolated / "ml_pipeline" / "logs" / "audit.log"
    assert len(files_of(trail)) > 1
    assert verify(trail) == AuditReport(intact=True, records=60)


def test_what_was_set_aside_is_compressed_in_the_background(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread starts when a file is set aside, compresses it once it has rested, and ends."""
    monkeypatch.setattr("ml_pipeline.config._log_retention._REST_SECONDS", 0.05)
    trail = AuditTrail(path, rotation=rotating(path, max_bytes=900))
    for number in range(9):
        trail.append({"message": f"record {number}", "context": {"text": "x" * 200}})
    eventually(lambda: all(each.suffix == ".gz" for each in files_of(path)[:-1]))
    trail.close()
    eventually(lambda: not any(each.name == "ml-pipeline-log-files" for each in threading.enumerate()))
    assert verify(path) == AuditReport(intact=True, records=9)


def test_verify_beside_a_writer_that_rotates(path: Path) -> None:
    """While records are written, files set aside and packed, the trail is never said to be broken."""
    stop = threading.Event()
    trail = AuditTrail(path, rotation=rotating(path, max_bytes=2_000))

    def write() -> None:
        while not stop.is_set():
            trail.append_all([{"message": "x" * 100}] * 3)

    def packs() -> None:
        while not stop.is_set():
            for each in files_of(path)[:-1]:
                if each.suffix != ".gz":
                    compress(each, now=each.stat().st_ctime + 10)

    threads = [threading.Thread(target=each) for each in (write, packs)]
    for thread in threads:
        thread.start()
    try:
        counts = [verify(path) for _ in range(30)]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        trail.close()
    assert all(report.intact for report in counts), [report for report in counts if not report.intact]
    assert [report.records for report in counts] == sorted(report.records for report in counts)


def test_a_forked_child_holds_no_lock_of_its_parent(path: Path) -> None:
    """A child that was forked in the middle of a write keeps nobody out, and writes to the trail itself."""
    trail = AuditTrail(path)
    trail.append({"message": "parent"})
    descriptor = trail._locked()
    answer = in_fork(lambda: (trail._file._handle, trail._group._leading.acquire(blocking=False)))
    _platform.unlock(descriptor)
    assert answer == [None, True]
    in_fork(lambda: trail.append({"message": "child"}))
    trail.append({"message": "parent again"})
    assert verify(path) == AuditReport(intact=True, records=3)


def test_files_that_someone_closed_are_opened_anew(path: Path) -> None:
    """A program that closes every descriptor, as a daemon does, costs one record at most and no other's file."""
    program = """
import json, os, sys
from pathlib import Path
from ml_pipeline.config._audit import AuditTrail, verify
path = Path(sys.argv[1])
trail = AuditTrail(path)
trail.append({"message": "one"})
os.closerange(3, 64)
others = [open(path.with_name(f"other {n}"), "w+b") for n in range(8)]
lost = 0
for _ in range(3):
    try:
        trail.append({"message": "more"})
    except OSError:
        lost += 1
trail.close()
sizes = [os.fstat(other.fileno()).st_size for other in others]
report = verify(path)
print(json.dumps([lost, sizes, report.intact, report.records]))
"""
    lost, sizes, intact, records = python_answer(program, str(path))
    assert lost <= 1
    assert (sizes, intact, records) == ([0] * 8, True, 4 - lost)
