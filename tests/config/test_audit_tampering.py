"""Whatever is done to the files of an audit trail, `verify` finds the first line that is not as it was written."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.config._audit import AuditReport, AuditTrail, verify
from ml_pipeline.config._audit_head import DAMAGED
from tests.config.audit_kit import KEY, content_of, files_of, lines_of, pack, write_trail

RECORDS = 9
FOREIGN = [b"\n", b'{"message":"forged","seq":3,"prev":"","hash":"00"}\n', b"[]\n", b"2024-01-15 - forged\n"]


@pytest.fixture(scope="module", params=[None, KEY], ids=["plain", "keyed"])
def original(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes | None]:
    """A sound trail of several files, and its key."""
    path = tmp_path_factory.mktemp("audit") / "audit.log"
    write_trail(path, RECORDS, key=request.param, max_bytes=900)
    assert len(files_of(path)) >= 3
    assert verify(path, request.param) == AuditReport(intact=True, records=RECORDS)
    return path, request.param


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to tamper in."""
    return tmp_path_factory.mktemp("tampered")


def _copied(original: Path, scratch: Path) -> Path:
    shutil.rmtree(scratch)
    shutil.copytree(original.parent, scratch)
    return scratch / original.name


def _any_line(data: st.DataObject, path: Path) -> tuple[Path, int, list[bytes]]:
    """A line of a trail: its file, its place there, and all lines of that file."""
    file = data.draw(st.sampled_from(files_of(path)))
    lines = content_of(file).splitlines(keepends=True)
    return file, data.draw(st.integers(0, max(len(lines) - 1, 0))), lines


def _edit(data: st.DataObject, path: Path) -> None:
    """Do one thing to the files of a trail."""
    what = data.draw(st.sampled_from(["change", "remove", "insert", "repeat", "swap", "cut", "remove file"]))
    file, at, lines = _any_line(data, path)
    other, there, others = _any_line(data, path)
    content = b"".join(lines)
    match what:
        case "change" if content:
            where = data.draw(st.integers(0, len(content) - 1))
            file.write_bytes(content[:where] + bytes([data.draw(st.integers(0, 255))]) + content[where + 1 :])
        case "remove" if lines:
            file.write_bytes(b"".join([*lines[:at], *lines[at + 1 :]]))
        case "insert":
            file.write_bytes(b"".join([*lines[:at], data.draw(st.sampled_from(FOREIGN)), *lines[at:]]))
        case "repeat" if others:
            file.write_bytes(b"".join([*lines[:at], others[there], *lines[at:]]))
        case "swap" if lines and others and file != other:
            lines[at], others[there] = others[there], lines[at]
            file.write_bytes(b"".join(lines))
            other.write_bytes(b"".join(others))
        case "cut" if content:
            file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        case "remove file":
            file.unlink(missing_ok=True)


@given(st.data())
def test_any_edit_is_found_where_it_is(original: tuple[Path, bytes | None], scratch: Path, data: st.DataObject) -> None:
    """Changed, removed, inserted, repeated, swapped or cut, in whichever file: the first line that differs is named.

    Only what stands behind the record that the head names, and has no end, may be a record that was never completed.
    """
    source, key = original
    path = _copied(source, scratch)
    before = [line for _, _, line in lines_of(path)]
    for _ in range(data.draw(st.integers(1, 3))):
        _edit(data, path)
    after = lines_of(path)
    pairs = list(zip((line for _, _, line in after), before, strict=False))
    same = next((at for at, (line, written) in enumerate(pairs) if line != written), len(pairs))
    report = verify(path, key)
    is_torn = len(after) == RECORDS + 1 and same == RECORDS and after[-1][0] == path.name and after[-1][2][-1:] != b"\n"
    if same == len(before) and (same == len(after) or is_torn):
        assert report == AuditReport(intact=True, records=same, torn=is_torn)
        return
    left = sum(name == path.name for name, _, _ in after)
    name, line = after[same][:2] if same < len(after) else (path.name, left + 1)
    assert (report.intact, report.records, report.file, report.line) == (False, same, name, line)
    assert report.reason


@given(st.data())
def test_a_compressed_file_is_held_to_the_same(
    original: tuple[Path, bytes | None], scratch: Path, data: st.DataObject
) -> None:
    """A byte changed in a ``.gz`` is found, or changes nothing of what it holds."""
    source, key = original
    path = _copied(source, scratch)
    pack(files_of(path)[1])
    packed = files_of(path)[1]
    assert verify(path, key).intact
    content = bytearray(packed.read_bytes())
    where = data.draw(st.integers(0, len(content) - 1))
    content[where] ^= data.draw(st.integers(1, 255))
    packed.write_bytes(bytes(content))
    report = verify(path, key)
    if report.intact:
        assert content_of(packed) == content_of(files_of(source)[1])
    else:
        assert report.file == packed.name
        assert report.reason


@given(st.data())
def test_a_changed_head_is_found(original: tuple[Path, bytes | None], scratch: Path, data: st.DataObject) -> None:
    """No byte of the head can be another."""
    source, key = original
    path = _copied(source, scratch)
    head = path.with_name("audit.head")
    content = bytearray(head.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    head.write_bytes(bytes(content))
    expected = AuditReport(False, RECORDS, 1, f"audit.head: {DAMAGED}", file="audit.head")
    assert verify(path, key) == expected


def test_records_cut_off_the_end_are_missed(original: tuple[Path, bytes | None], scratch: Path) -> None:
    """The head names the last record; what is missing before it is said, with the numbers."""
    source, key = original
    path = _copied(source, scratch)
    lines = content_of(path).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]))
    last = f"audit.head names record {RECORDS} as the last"
    reason = f"record {RECORDS} is missing here: {last}"
    assert verify(path, key) == AuditReport(False, RECORDS - 1, len(lines), reason, file="audit.log")
    path.unlink()
    kept = RECORDS - len(lines)
    reason = f"records {kept + 1} to {RECORDS} are missing here: {last}"
    if len(lines) > 1:
        assert verify(path, key) == AuditReport(False, kept, 1, reason, file="audit.log")


def test_records_that_were_cut_off_stay_missing(original: tuple[Path, bytes | None], scratch: Path) -> None:
    """A writer that comes to a trail with records cut off goes on with the numbers that the head gives."""
    source, key = original
    path = _copied(source, scratch)
    lines = content_of(path).splitlines(keepends=True)
    for left in (b"".join(lines[:-1]), b"".join(lines)[:-9]):
        path.write_bytes(left)
        trail = AuditTrail(path, key)
        trail.append({"message": "after"})
        trail.close()
        report = verify(path, key)
        assert (report.intact, report.records, report.line) == (False, RECORDS - 1, len(lines))
        path.write_bytes(b"".join(lines))


def test_a_removed_head_shows(original: tuple[Path, bytes | None], scratch: Path) -> None:
    """Without its head a trail that had one is not intact, nor after a writer has made a new one."""
    source, key = original
    path = _copied(source, scratch)
    path.with_name("audit.head").unlink()
    report = verify(path, key)
    reason = "audit.head is missing, though a record was written beside it: records may be missing from here on"
    assert (report.intact, report.records, report.reason, report.has_head) == (False, RECORDS, reason, False)
    trail = AuditTrail(path, key)
    trail.append({"message": "after"})
    trail.close()
    reason = "record 10 began a new audit.head: the one before was removed, and records may be missing"
    report = verify(path, key)
    assert (report.intact, report.records, report.reason, report.has_head) == (False, RECORDS, reason, True)


def test_a_chain_that_was_computed_anew_does_not_fit_its_head(
    original: tuple[Path, bytes | None], tmp_path: Path
) -> None:
    """Who rewrites the whole trail and leaves the head shows himself even without a key."""
    source, key = original
    path = tmp_path / "audit.log"
    write_trail(path, RECORDS - 1, key=key)
    trail = AuditTrail(path, key)
    trail.append({"message": "another one"})
    trail.close()
    shutil.copy(source.with_name("audit.head"), path.with_name("audit.head"))
    reason = f"record {RECORDS} is not the one that audit.head names"
    assert verify(path, key) == AuditReport(False, RECORDS - 1, RECORDS, reason, file="audit.log")


@given(st.data())
def test_a_torn_tail_behind_the_head_is_no_tampering_and_is_healed(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Cut anywhere behind the record that the head names, as a power failure would, the trail stands and goes on."""
    path = tmp_path_factory.mktemp("torn") / "audit.log"
    write_trail(path, 2)
    head = path.with_name("audit.head").read_bytes()
    before = path.stat().st_size
    write_trail(path, 3)
    content = path.read_bytes()
    path.with_name("audit.head").write_bytes(head)  # which is written after the records, and not forced to disk
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    report = verify(path)
    assert report.records == whole
    assert report.intact == (cut >= before)
    assert report.torn == (cut >= before and not content[:cut].endswith(b"\n"))
    write_trail(path, 1)
    report = verify(path)
    healed = cut < before and content[cut : cut + 1] == b"\n"  # all that was missing: the next record begins with it
    assert (report.intact, report.records) == (
        (True, whole + 1 + healed) if cut >= before - 1 else (False, whole + healed)
    )
