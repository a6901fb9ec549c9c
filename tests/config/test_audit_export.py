"""`ml-pipeline audit`: what it says of a trail, and what an auditor gets out of it."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path

import pytest

import ml_pipeline
from ml_pipeline.cli import main
from ml_pipeline.config._audit import AuditTrail
from ml_pipeline.config._audit_export import COLUMNS, Wanted, export_trail
from ml_pipeline.config._audit_retention import expire
from ml_pipeline.config._log_levels import tell_level
from ml_pipeline.config.logging_config import audit_logger, log_operation
from tests.config.audit_kit import content_of, files_of, lines_of, pack, write_daily, write_trail
from tests.processes import left_by_its_reader
from tests.support import run_example

TRAIL = Path("ml_pipeline/logs/audit.log")


def _audited() -> None:
    audit_logger.info("ingest", extra=log_operation("ingestion", "ann", object="ADNI", version="v1", rows=5))
    audit_logger.info("train", extra=log_operation("training", "bob", object="model", dataset_name="ADNI"))
    audit_logger.info("=cmd()", extra=log_operation("review", "@eve", object="+1", version="-1", result="\tdenied"))


def _table(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    """One row a record, who did what to what first; the rest of what it says is one cell of JSON."""
    _audited()
    assert main(["audit", "export"]) == 0
    said = capsys.readouterr()
    rows = _table(said.out)
    assert said.out.splitlines()[0] == ",".join(f'"{column}"' for column in COLUMNS)
    assert said.err == "3 records\n"
    assert [(row["seq"], row["user_id"], row["action"], row["object"], row["version"]) for row in rows[:2]] == [
        ("1", "ann", "ingest", "ADNI", "v1"),
        ("2", "bob", "train", "model", ""),
    ]
    assert (rows[0]["result"], rows[0]["operation"], rows[0]["context"]) == ("success", "ingestion", '{"rows":5}')
    assert rows[1]["prev"] == rows[0]["hash"] == json.loads(TRAIL.read_bytes().splitlines()[0])["hash"]


def test_no_cell_is_a_formula(capsys: pytest.CaptureFixture[str]) -> None:
    """What a spreadsheet would run or compute gets a quote in front; JSON Lines stay as they are."""
    _audited()
    main(["audit", "export", "--user", "@eve"])
    (row,) = _table(capsys.readouterr().out)
    cells = (row["user_id"], row["action"], row["object"], row["version"], row["result"])
    assert cells == ("'@eve", "'=cmd()", "'+1", "'-1", "'\tdenied")
    main(["audit", "export", "--user", "@eve", "--format", "jsonl"])
    assert capsys.readouterr().out.encode() == TRAIL.read_bytes().splitlines(keepends=True)[2]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        (["--user", "ann"], ["ingest"]),
        (["--object", "model"], ["train"]),
        (["--dataset", "ADNI"], ["ingest", "train"]),
        (["--since", "1h"], ["ingest", "train", "=cmd()"]),
        (["--until", "1h"], []),
        (["--since", "2020-01-01", "--until", "2020-01-02"], []),
        (["--user", "bob", "--object", "ADNI", "--since", "today"], ["train"]),
    ],
)
def test_what_is_wanted(options: list[str], wanted: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """By user, by what it was done to, by time; all that is given must hold."""
    _audited()
    assert main(["audit", "export", "--format", "jsonl", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["context"]["action"] for line in lines] == wanted


def test_the_moments_are_those_of_the_records() -> None:
    """`since` is the first moment that counts, `until` the first that does not."""
    record = {"timestamp": "2026-01-15T09:30:25.123456Z"}
    assert Wanted(since="2026-01-15T09:30:25.123456Z").fits(record)
    assert not Wanted(until="2026-01-15T09:30:25.123456Z").fits(record)
    assert not Wanted(since="2026-01-15T09:30:25.123457Z").fits(record)


def test_rotated_and_compressed_files_are_exported(tmp_path: Path) -> None:
    """From the first record to the last, in their order."""
    path = tmp_path / "audit.log"
    write_trail(path, 9, max_bytes=900)
    pack(files_of(path)[1])
    out = io.BytesIO()
    assert export_trail(path, out, "jsonl", Wanted()) == (9, 0)
    assert out.getvalue() == b"".join(line for _, _, line in lines_of(path))


def test_to_a_file(isolated: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file is there whole or not at all, for owner and group."""
    _audited()
    assert main(["audit", "export", "--out", "audit.csv"]) == 0
    assert len(_table((isolated / "audit.csv").read_bytes().decode())) == 3
    assert (isolated / "audit.csv").stat().st_mode & 0o027 == 0
    assert main(["audit", "export", "-o", "missing/audit.csv"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: an export must be able to read the trail and to write its file (got 'missing/.audit.csv.partial'); "
        "correct that (No such file or directory)"
    )
    assert sorted(each.name for each in isolated.iterdir()) == ["audit.csv", "ml_pipeline"]


@pytest.mark.parametrize(
    "out",
    [
        *("audit.log", "audit.head", "audit.anchor", "audit.log.2026-01-01.1", "audit.log.2026-01-02.1.gz"),
        *("ml_pipeline.log", "training/../errors.log", "ml_pipeline.log.2026-01-01.1", "link", "hard"),
    ],
)
def test_an_export_replaces_no_log_file(out: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the trail, nor what belongs to it, nor another log, however it is named; all stay as they are."""
    _audited()
    logs = TRAIL.parent
    (logs / "training").mkdir(exist_ok=True)
    (logs / "link").symlink_to("audit.log")
    (logs / "hard").hardlink_to(TRAIL)
    before = {each: each.read_bytes() for each in logs.iterdir() if each.is_file()}
    assert main(["audit", "export", "--format", "jsonl", "--out", str(logs / out)]) == 2
    assert capsys.readouterr().err == (
        f"error: an export must not be written over a log file or under its name (got '{logs / out}'); "
        "name another file\n"
    )
    assert {each: each.read_bytes() for each in logs.iterdir() if each.is_file()} == before


def test_an_export_of_another_trail_replaces_no_log_file() -> None:
    """The trail of the log folder is safe from it, and so is a trail that is a link; beside them, a file is written."""
    _audited()
    write_trail(Path("kept/audit.log"), 3)
    Path("other.log").symlink_to("kept/audit.log")
    for out in (str(TRAIL), "other.log", "kept/audit.log", "kept/audit.head", "other.anchor", "other.log.1"):
        assert main(["audit", "export", "other.log", "--out", out]) == 2
    assert len(lines_of(TRAIL)) == len(lines_of(Path("kept/audit.log"))) == 3
    assert Path("other.log").is_symlink()
    assert main(["audit", "export", "other.log", "--out", str(TRAIL.with_name("audit.csv"))]) == 0


def test_an_export_replaces_no_file_unasked(capsys: pytest.CaptureFixture[str]) -> None:
    """With `--force` it does, but nothing that is no file."""
    _audited()
    Path("mine.csv").write_text("mine", encoding="utf-8")
    Path("dangling.csv").symlink_to("nowhere")
    for out in ("mine.csv", "dangling.csv"):
        assert main(["audit", "export", "--out", out]) == 2
        assert capsys.readouterr().err == (
            f"error: an export must not replace a file that is there (got '{out}'); "
            "name another file, or give --force\n"
        )
    assert Path("mine.csv").read_text("utf-8") == "mine"
    assert main(["audit", "export", "--out", "mine.csv", "--force"]) == 0
    assert Path("mine.csv").read_bytes().startswith(b'"seq"')
    capsys.readouterr()
    os.mkfifo("pipe")
    for out in ("pipe", os.devnull, "."):
        assert main(["audit", "export", "--out", out, "--force"]) == 2
        assert capsys.readouterr().err == (
            f"error: an export must be written to a file, or with - to the standard output (got '{out}'); name a file\n"
        )


@pytest.mark.parametrize("out", ["k", "sub/../k", "link", "hard"])
def test_an_export_replaces_no_key(
    out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither that of the trail nor another file that a setting names; the trail still verifies."""
    Path("k").write_bytes(b"0123456789abcdef")
    Path("sub").mkdir()
    Path("link").symlink_to("k")
    Path("hard").hardlink_to("k")
    monkeypatch.setenv("ML_PIPELINE_AUDIT_KEY_FILE", str(Path("k").absolute()))
    monkeypatch.setenv("ML_PIPELINE_SMTP_PASSWORD_FILE", "password")
    ml_pipeline.configure()
    _audited()
    for each in (out, "password"):
        assert main(["audit", "export", "--out", each, "--force"]) == 2
        assert capsys.readouterr().err == (
            "error: an export must not be written over a key, a store or another file that the pipeline works with "
            f"(got '{each}'); name another file\n"
        )
    assert Path("k").read_bytes() == b"0123456789abcdef"
    assert main(["audit", "verify"]) == 0


def test_an_export_replaces_nothing_that_the_data_folder_keeps(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever a pipeline writes there; a file of one's own in it is not meant."""
    _audited()
    data = Path("ml_pipeline/data_storage")
    done = run_example("--drift")
    assert done.returncode == 0, done.stderr
    tell_level(data, "training", "DEBUG")
    found = [each for each in data.rglob("*") if each.is_file()]
    assert {"lineage.db", "outbox.db", "report.html", "log_levels.json"} <= {each.name for each in found}
    for each in found:
        before = each.read_bytes()
        assert main(["audit", "export", "--force", "--out", str(each)]) == 2, each
        assert each.read_bytes() == before
    assert "a store or another file that the pipeline works with" in capsys.readouterr().err
    assert main(["audit", "export", "--out", str(data / "reviewed.csv")]) == 0


def test_a_closed_pipe_ends_quietly() -> None:
    """As ``ml-pipeline audit export | head -1`` closes it."""
    for number in range(1_000):
        audit_logger.info(f"record {number} {'x' * 200}")
    assert left_by_its_reader("audit", "export") == (b"", 0)


def test_no_cell_is_parted_where_lists_have_semicolons(capsys: pytest.CaptureFixture[str]) -> None:
    """Every cell stands in quotes: a spreadsheet that parts cells at ``;`` finds no formula inside one."""
    audit_logger.info("ingest", extra=log_operation("ingestion", "ann", object="ds;=1+1"))
    main(["audit", "export"])
    said = capsys.readouterr().out
    assert '"ds;=1+1"' in said
    assert [row["object"] for row in _table(said)] == ["ds;=1+1"]


def test_lines_that_are_no_records_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be read is left out and counted, and the exit code is 1."""
    _audited()
    with TRAIL.open("ab") as file:
        file.write(b"forged\n[1]\n{torn")
    assert main(["audit", "export"]) == 1
    said = capsys.readouterr()
    assert len(_table(said.out)) == 3
    assert said.err == "3 records; 3 lines are no records: see `ml-pipeline audit verify`\n"


def test_an_unknown_format_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, exit code 2."""
    _audited()
    assert main(["audit", "export", "--format", "xml"]) == 2
    assert capsys.readouterr().err == "error: --format must be csv or jsonl (got 'xml'); known: csv, jsonl\n"
    assert main(["audit", "export", "--since", "never"]) == 2


def test_verify_says_what_there_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No head yet, records removed because of their age, a torn record, and the file a fault is in."""
    path = tmp_path / "audit.log"
    first_day = write_daily(path, 4)
    expire(path, None, oldest=first_day + 1)
    with path.open("ab") as file:
        file.write(b'{"message":')
    assert main(["audit", "verify", str(path)]) == 0
    assert capsys.readouterr().out == (
        "intact: 6 records, after 2 that were removed because of their age, "
        "and a torn record at its end that was never completed\n"
    )
    second = files_of(path)[0]
    second.write_bytes(content_of(second).replace(b"day", b"DAY"))
    assert main(["audit", "verify", str(path)]) == 1
    assert capsys.readouterr().out == (
        f"not intact: {second.name}, line 1: record 3 was changed, or written with another key; "
        "0 records before it are intact\n"
    )
    path.unlink()
    assert main(["audit", "verify", str(path)]) == 1, "a trail that was removed is not one that never was"


def test_a_trail_that_cannot_be_read_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line and exit code 2: it is not known whether anything is wrong with it."""
    path = tmp_path / "audit.log"
    write_trail(path, 1)
    path.with_name("audit.head").unlink()
    path.with_name("audit.head").mkdir()
    assert main(["audit", "verify", str(path)]) == 2
    assert capsys.readouterr().err == (
        f"error: an audit trail must be readable to be verified (got '{path.with_name('audit.head')}'); "
        "correct that (Is a directory)\n"
    )


def test_verify_of_a_trail_without_a_head(capsys: pytest.CaptureFixture[str]) -> None:
    """A trail of the version before is intact, and the lack of a head is said."""
    trail = AuditTrail(TRAIL)
    trail.check()
    trail.close()
    TRAIL.with_name("audit.head").unlink()
    assert main(["audit", "verify"]) == 0
    assert capsys.readouterr().out == (
        "intact: 0 records; there is no head yet: records cut off the end would not show\n"
    )
