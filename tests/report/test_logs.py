"""``ml-pipeline logs``: which records are read, in which order, and which are left out."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from itertools import count
from pathlib import Path
from typing import Any

import orjson
import pytest

from ml_pipeline.cli import main
from ml_pipeline.report._log_query import Query
from ml_pipeline.report._log_reader import Reader
from ml_pipeline.report._log_segments import find_channels
from tests.processes import left_by_its_reader
from tests.report.logs_kit import LOGS, RUN, line, messages, write, zurich  # noqa: F401 - a fixture

pytestmark = pytest.mark.usefixtures("zurich")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """Run the command and return the messages it printed."""
    code = main(["logs", "--format", "json", *arguments])
    captured = capsys.readouterr()
    assert (code, captured.err) == (0, "")
    return messages(captured.out)


def test_channels_are_merged_by_time(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever file a record lies in."""
    write("ml_pipeline.log", line(1, "a"), line(4, "d"))
    write("training/model_training.log", line(2, "b"), line(5, "e"))
    write("airflow/nightly.dag.log", line(3, "c"))
    assert shown(capsys) == ["a", "b", "c", "d", "e"]


def test_channels_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    """One by its key, many by their folder."""
    write("ml_pipeline.log", line(1, "main"))
    write("training/model_training.log", line(2, "training"))
    write("training/data_preprocessing.log", line(3, "preparing"))
    write("airflow/nightly.log", line(4, "airflow"))
    assert shown(capsys, "training.model_training") == ["training"]
    assert shown(capsys, "training", "airflow.nightly") == ["training", "preparing", "airflow"]
    assert shown(capsys, "inference.predictions") == []


def test_no_record_is_shown_twice(capsys: pytest.CaptureFixture[str]) -> None:
    """errors.log repeats what lies in the other files: only its own records count, unless it is named."""
    write("ml_pipeline.log", line(1, "broken", level="ERROR"))
    own = line(2, "its own", level="ERROR", channel="errors")
    text = b"2026-11-20 11:00:03,000 - ERROR - x - of a channel that it does not tell\n"
    write("errors.log", line(1, "broken", level="ERROR"), own, text)
    assert shown(capsys) == ["broken", "its own"]
    assert shown(capsys, "--tail", "1") == ["its own"]
    assert shown(capsys, "--level", "ERROR", "--text", "broken") == ["broken"]
    assert shown(capsys, "errors") == ["broken", "its own", "of a channel that it does not tell"]
    assert shown(capsys, "errors", "ml_pipeline") == ["broken", "broken", *shown(capsys, "errors")[1:]]


def test_rotated_files_are_read_oldest_first(capsys: pytest.CaptureFixture[str]) -> None:
    """By day and number, compressed or not; one that is being compressed counts once, a half one not at all."""
    write("ml_pipeline.log", line(9, "current"))
    write("ml_pipeline.log.2026-11-20.2", line(4, "two"))
    write("ml_pipeline.log.2026-11-20.10", line(5, "ten"))
    write("ml_pipeline.log.2026-11-19.1.gz", gzip.compress(line(1, "old") + line(2, "older")))
    write("ml_pipeline.log.2026-11-20.2.gz", gzip.compress(line(4, "two")))
    write("ml_pipeline.log.2026-11-20.10.gz.partial", gzip.compress(line(5, "ten"))[:9])
    assert shown(capsys) == ["old", "older", "two", "ten", "current"]
    assert shown(capsys, "--tail", "4") == ["older", "two", "ten", "current"]
    assert shown(capsys, "--limit", "2") == ["old", "older"]
    assert shown(capsys, "--tail", "0") == []


def test_a_rotation_between_finding_and_reading_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """A rotated file that is the open one under its new name is not read twice."""
    current = write("ml_pipeline.log", line(1, "once"))
    os.link(current, f"{current}.2026-11-20.1")
    assert shown(capsys) == ["once"]
    assert shown(capsys, "--tail", "9") == ["once"]


@pytest.mark.parametrize("arguments", [(), ("--tail", "99"), ("--since", "2026-11-20T10:00:00Z")])
@pytest.mark.parametrize("moments", [{1}, {2}, {1, 2}, {1, 2, 3}])
@pytest.mark.parametrize("packed", [False, True])
def test_no_file_is_lost_that_is_rotated_while_the_files_are_found(
    arguments: tuple[str, ...],
    moments: set[int],
    packed: bool,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whenever that is, however often, compressed at once or not: each record is shown once, in order."""
    current = write("ml_pipeline.log", line(0, "0"))
    looks = count(1)

    def find(*asked: Any, **how: Any) -> Any:
        found = find_channels(*asked, **how)
        number = next(looks)
        if number in moments:
            old = current.rename(f"{current}.2026-11-20.{number}")
            if packed:
                old.with_name(old.name + ".gz").write_bytes(gzip.compress(old.read_bytes()))
                old.unlink()
            write("ml_pipeline.log", line(number, str(number)))
        return found

    monkeypatch.setattr("ml_pipeline.report.logs.find_channels", find)
    found = shown(capsys, *arguments)
    assert found == [str(number) for number in (0, *sorted(moments))][: len(found)]
    assert set(found) >= {"0"}


def test_a_folder_that_goes_while_its_files_are_found_leaves_none_open() -> None:
    """What was opened before is closed."""
    write("ml_pipeline.log", line(1, "a"))
    found = iter([find_channels(LOGS)])
    here = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(StopIteration):
        Reader(lambda: next(found), Query(), print)
    assert len(list(Path("/proc/self/fd").iterdir())) == here


@pytest.mark.parametrize("name", ["ml_pipeline.log", "ml_pipeline.log.2026-11-20.1"])
def test_a_file_whose_name_changes_while_the_directory_is_read_is_found(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rotated or compressed between its name and the look at what it is."""
    first = write(name, line(1, "a"))
    walk = os.walk

    def changing(folder: Path) -> Any:
        seen = list(walk(folder))
        if first.exists():
            packed = first.with_name("ml_pipeline.log.2026-11-20.1.gz")
            packed.write_bytes(gzip.compress(first.read_bytes()))
            first.unlink()
        return seen

    monkeypatch.setattr(os, "walk", changing)
    assert shown(capsys) == ["a"]


def test_a_line_without_a_timestamp_belongs_to_the_line_before(capsys: pytest.CaptureFixture[str]) -> None:
    """A traceback of the text format stays with its record, through every filter."""
    write(
        "ml_pipeline.log",
        b"2026-11-20 11:00:01,500 - ERROR - trainer - broken\n    Traceback:\n      deep inside\n",
        b"2026-11-20 11:00:03,000 - INFO - trainer - going on\n",
    )
    write("training/model_training.log", line(2, "between"))
    assert main(["logs", "--format", "text"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-11-20 11:00:01,500 - ERROR - trainer - broken",
        "    Traceback:",
        "      deep inside",
        "2026-11-20 11:00:02,000 - INFO - model_trainer - between",
        "2026-11-20 11:00:03,000 - INFO - trainer - going on",
    ]
    assert shown(capsys, "--text", "deep inside") == ["broken"]
    assert shown(capsys, "--level", "ERROR") == ["broken"]
    assert shown(capsys, "--where", "logger == trainer and message ~ ^going") == ["going on"]
    assert shown(capsys, "--where", "exception.stacktrace ~ 'deep'") == ["broken"]


def test_what_stands_before_the_first_timestamp_is_shown_first(capsys: pytest.CaptureFixture[str]) -> None:
    """Even where a file holds nothing else."""
    write("ml_pipeline.log", b"no time\nnone here\n", line(1, "a"))
    write("airflow/odd.log", b"free text\n\n")
    assert shown(capsys) == ["free text", "no time\nnone here", "a"]


def test_the_hour_that_comes_twice_keeps_its_order(capsys: pytest.CaptureFixture[str]) -> None:
    """When daylight saving time ends, local times run backwards; the second hour is the later one."""
    stamps = ("02:59:00,000", "02:00:00,000", "02:30:00,000", "03:00:00,000")
    write("ml_pipeline.log", *(f"2026-10-25 {each} - INFO - x - {each}\n".encode() for each in stamps))
    assert main(["logs", "--format", "json"]) == 0
    times = [orjson.loads(each)["timestamp"][11:16] for each in capsys.readouterr().out.splitlines()]
    assert times == ["00:59", "01:00", "01:30", "02:00"]


def test_lines_of_others_are_placed_by_their_own_timestamp(capsys: pytest.CaptureFixture[str]) -> None:
    """Another offset, no offset, another order of the keys; one that is no time goes with the line before."""
    write(
        "ml_pipeline.log",
        b'{"message": "offset", "timestamp": "2026-11-20T12:00:01+02:00"}\n',
        b'{"message": "bare", "timestamp": "2026-11-20T10:00:03"}\n',
        b'{"message": "none", "timestamp": "soon"}\n{"message": "number", "timestamp": 5}\n',
    )
    write("training/model_training.log", line(2, "between"), line(4, "after"))
    assert shown(capsys) == ["offset", "between", "bare", "none", "number", "after"]


def test_a_torn_last_line_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    """Its writer is not done with it; one that is whole but for its line end counts, and a torn one inside is shown."""
    write("ml_pipeline.log", line(1, "whole"), line(2, "torn")[:60])
    write("training/model_training.log", line(3, "healed")[:70] + b"\n", line(4, "no line end").rstrip())
    found = shown(capsys)
    assert [found[0], found[2]] == ["whole", "no line end"]
    assert found[1].startswith('{"timestamp":"2026-11-20T10:00:03')


def test_times_bound_what_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """From --since on, up to before --until; rotated files too."""
    write("ml_pipeline.log.2026-11-20.1", line(1, "a"), line(2, "b"))
    write("ml_pipeline.log", line(3, "c"), line(4, "d"))
    assert shown(capsys, "--since", "2026-11-20T10:00:02Z", "--until", "2026-11-20T11:00:04+01:00") == ["b", "c"]
    assert shown(capsys, "--since", "2026-11-20T11:00:04") == ["d"]
    assert shown(capsys, "--until", "2026-11-20") == []


def test_of_a_large_file_only_what_lies_between_the_times_is_read(capsys: pytest.CaptureFixture[str]) -> None:
    """Bisection and windows find the same records as reading all of it."""
    day = [
        orjson.dumps(
            {"timestamp": f"2026-11-20T{n // 3600:02}:{n // 60 % 60:02}:{n % 60:02}.000000Z", "message": f"{n}"}
        )
        for n in range(86_400)
    ]
    write("ml_pipeline.log", b"\n".join(day), b"\n")
    assert shown(capsys, "--since", "2026-11-20T23:00:00Z", "--until", "2026-11-20T23:00:02Z") == ["82800", "82801"]
    assert shown(capsys, "--since", "2026-11-20T00:00:00Z", "--limit", "1") == ["0"]
    assert shown(capsys, "--until", "2026-11-20T00:00:01Z") == ["0"]
    assert shown(capsys, "--tail", "20000") == [str(n) for n in range(66_400, 86_400)]
    assert shown(capsys, "--tail", "2", "--text", "000") == ["85000", "86000"]
    assert shown(capsys, "--text", "3999") == [f"{n}" for n in range(86_400) if "3999" in f"{n}"]


def test_levels_are_taken_from_one_up(capsys: pytest.CaptureFixture[str]) -> None:
    """Those of logging and of loguru, and numbers without a name."""
    levels = ("TRACE", "DEBUG", "INFO", "SUCCESS", "WARNING", "Level 35", "ERROR", "CRITICAL", "made up")
    write("ml_pipeline.log", *(line(n, level, level=level) for n, level in enumerate(levels)), line(9, "none", level=3))
    assert shown(capsys, "--level", "warn") == ["WARNING", "Level 35", "ERROR", "CRITICAL"]
    assert shown(capsys, "--level", "SUCCESS") == ["SUCCESS", "WARNING", "Level 35", "ERROR", "CRITICAL"]
    assert shown(capsys, "--level", "fatal") == ["CRITICAL"]


def test_records_are_found_by_operation_run_and_user(capsys: pytest.CaptureFixture[str]) -> None:
    """An operation by its name or its id; a name with other characters too, however they were escaped."""
    write(
        "ml_pipeline.log",
        line(1, "a", operation="training", operation_id="op-1", run_id=RUN, user_id="ann"),
        line(2, "b", operation="training", operation_id="op-2", run_id=RUN, user_id="bob"),
        line(3, f"training op-1 {RUN} ann"),
        line(4, "d", operation='größe "x"'),
        b'{"timestamp": "2026-11-20T10:00:05Z", "message": "e", "operation": "gr\\u00f6\\u00dfe \\"x\\""}\n',
    )
    assert shown(capsys, "--operation", "training") == ["a", "b"]
    assert shown(capsys, "--operation", "op-2") == ["b"]
    assert shown(capsys, "--run", RUN) == ["a", "b"]
    assert shown(capsys, "--run", RUN, "--user", "ann") == ["a"]
    assert shown(capsys, "--operation", 'größe "x"') == ["d", "e"]


def test_a_user_may_be_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the program calls its users."""
    write("ml_pipeline.log", line(1, "a", user_id=5), line(2, "b", user_id="5"), line(3, "c", user_id=50))
    assert shown(capsys, "--user", "5") == ["a", "b"]


@pytest.mark.parametrize("lines", [1, 5_000])
def test_an_output_that_is_full_is_said_in_one_line(lines: int) -> None:
    """Exit code 1, and no traceback; also where it is noticed in the middle."""
    write("ml_pipeline.log", *(line(n % 60, "x" * 200) for n in range(lines)))
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "ml_pipeline", "logs"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False, text=True)
    said = "error: the records cannot be written to the standard output: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


def test_a_text_is_found_in_message_exception_and_context(capsys: pytest.CaptureFixture[str]) -> None:
    """Keys, texts and numbers; not in the names of loggers and files."""
    write(
        "ml_pipeline.log",
        line(1, "needle here"),
        line(2, "b", exception={"type": "E", "message": "a needle", "stacktrace": "x"}),
        line(3, "c", context={"deep": [{"needle": 1}]}),
        line(4, "d", logger="needle"),
        line(5, "e", context={"score": 0.9312, "none": None}),
        line(6, "two\nlines"),
    )
    assert shown(capsys, "--text", "needle") == ["needle here", "b", "c"]
    assert shown(capsys, "--text", "0.931") == ["e"]
    assert shown(capsys, "--text", "two\nlines") == ["two\nlines"]


def test_several_conditions_must_all_hold(capsys: pytest.CaptureFixture[str]) -> None:
    """Options, and several --where."""
    write(
        "ml_pipeline.log",
        line(1, "a", level="ERROR", context={"n": 1}),
        line(2, "b", level="ERROR", context={"n": 2}),
        line(3, "c", context={"n": 2}),
    )
    assert shown(capsys, "--level", "ERROR", "--where", "context.n > 1", "--where", "context.n < 9") == ["b"]


def test_json_lines_come_out_as_they_are(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Byte for byte; what would steer a terminal is escaped, and a line of the text format becomes JSON."""
    own = (
        b'{"timestamp":"2026-11-20T10:00:01.000000Z",  "message" : "gr\xc3\xb6\xc3\x9fe" ,"big":123456789012345678901}'
    )
    steering = '{"timestamp":"2026-11-20T10:00:02.000000Z","message":"\x9b31m \u202e\x7f"}'.encode()
    text = b"2026-11-20 11:00:03,000 - INFO - x - said \x1b[31m\n"
    write("ml_pipeline.log", own + b"\n" + steering + b"\n  on its own\n" + text)
    assert main(["logs", "--format", "json"]) == 0
    out = capsysbinary.readouterr().out.splitlines()
    assert out[0] == own
    assert out[1] == b'{"timestamp":"2026-11-20T10:00:02.000000Z","message":"\\u009b31m \\u202e\\u007f"}'
    assert orjson.loads(out[2])["message"] == "  on its own"
    assert orjson.loads(out[3]) == {
        "timestamp": "2026-11-20T10:00:03.000000Z",
        "level": "INFO",
        "logger": "x",
        "channel": "ml_pipeline",
        "message": "said \x1b[31m",
    }
    assert not {0x1B, 0x7F} & set(b"".join(out))


@pytest.mark.parametrize("output", ["table", "pretty", "text", "json"])
def test_nothing_in_a_line_steers_the_terminal(output: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever it stands, in records that are whole and in those that are not."""
    evil = "\x1b]0;title\x07 \x9b2J \u2028 \u202e \r\n forged"
    exception = {"type": evil, "message": evil, "stacktrace": evil}
    write(
        "ml_pipeline.log",
        line(1, evil, logger=evil, level=evil, context={evil: {evil: [evil]}}, exception=exception, **{evil: evil}),
        b'{"timestamp":"\x1b[31m\xc2\x9b' + b"0" * 20 + b'Z","message":\n',
        b"2026-11-20 11:00:03,000 - \x1b[31m - \x1b[31m - \x1b[31m\n\x1b[2J\r\n",
        b'{"timestamp":"2026-11-20T10:00:05.000000Z","message":"\xc2\x9b31m",\t"a":"\xe2\x80\xae"}\r\n',
    )
    assert main(["logs", "--format", output]) == 0
    printed = capsys.readouterr().out
    assert not {each for each in printed if not each.isprintable() and each != "\n"}
    assert not any(each.lstrip().startswith("forged") and not each.startswith("    ") for each in printed.splitlines())


def test_the_table_has_time_level_logger_and_message(capsys: pytest.CaptureFixture[str]) -> None:
    """One line a record, without a heading where it is piped."""
    write("ml_pipeline.log", line(1, "said"), b'{"timestamp":"2026-11-20T10:00:02.000000Z","message":5}\n')
    assert main(["logs"]) == 0
    assert capsys.readouterr().out == (
        "2026-11-20T10:00:01.000000Z INFO     model_trainer        said\n"
        "2026-11-20T10:00:02.000000Z -        -                    5\n"
    )


def test_pretty_shows_everything_a_record_says(capsys: pytest.CaptureFixture[str]) -> None:
    """Context by the paths that --where takes, and the traceback."""
    exception = {"type": "ValueError", "message": "bad", "stacktrace": "Traceback:\n  deep\nValueError: bad\n"}
    context = {"metrics": {"roc_auc": 0.93}, "tags": ["a"], "empty": {}, "mean radius": 3}
    write(
        "ml_pipeline.log",
        line(1, "broken", level="ERROR", run_id=RUN, context=context, exception=exception),
        line(2, "told", exception={"type": "ValueError", "message": "bad"}),
    )
    assert main(["logs", "--format", "pretty"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "2026-11-20T10:00:01.000000Z ERROR    model_trainer        broken",
        "    channel: ml_pipeline",
        f"    run_id: {RUN}",
        "    context.metrics.roc_auc: 0.93",
        '    context.tags: ["a"]',
        "    context.empty: {}",
        '    context."mean radius": 3',
        "      Traceback:",
        "        deep",
        "      ValueError: bad",
        "2026-11-20T10:00:02.000000Z INFO     model_trainer        told",
        "    channel: ml_pipeline",
        "      ValueError: bad",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense.channel"], "a log channel must be in the channel table (got 'nonsense.channel'); known: audit, errors"),
        (["trainin.model_training"], "did you mean 'training.model_training'?"),
        (["--since", "soon"], "--since must be a time (got 'soon'); such as 2026-01-15T09:30:00Z, 2026-01-15, 10m, 2h"),
        (["--until", "0001-01-01"], "--until must be a time (got '0001-01-01'); such as"),
        (["--since", "999999999w"], "--since must be a time (got '999999999w'); such as"),
        (["--since", "1h", "--until", "2h"], "--since must be before --until (got '1h'); exchange them"),
        (["--level", "WARNIG"], "--level must be a log level (got 'WARNIG'); did you mean 'WARNING'?"),
        (["--format", "jsn"], "--format must be table, json, pretty or text (got 'jsn'); did you mean 'json'?"),
        (["-f", "--until", "now"], "--follow must stand without --until (got 'now'); leave one of them out"),
        (["--limit", "1", "--tail", "2"], "--limit must stand without --tail (got 1); leave one of them out"),
        (["--dir", "nowhere"], "a log directory must exist to be read (got 'nowhere'); set ML_PIPELINE_LOG_DIR, or name it"),
        (["--where", "context.n >"], "at character 12 a value was expected (got 'context.n >'); such as"),
        (["--limit", "0"], "Invalid value for '--limit'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """It names the rule, the value and the remedy."""
    LOGS.mkdir(parents=True)
    assert main(["logs", *arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert (captured.err.count("\n"), captured.out) == (1, "")


def test_a_file_that_cannot_be_read_is_said_and_the_others_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1."""
    write("ml_pipeline.log", line(9, "shown"))
    write("ml_pipeline.log.2026-11-19.1.gz", gzip.compress(line(1, "lost" * 1000))[:40])
    write("ml_pipeline.log.2026-11-19.2.gz", b"no gzip at all")
    assert main(["logs", "--format", "json"]) == 1
    captured = capsys.readouterr()
    assert messages(captured.out) == ["shown"]
    folder = LOGS.absolute()
    ended = "Compressed file ended before the end-of-stream marker was reached"
    assert captured.err.splitlines() == [
        f"warning: {folder}/ml_pipeline.log.2026-11-19.1.gz: cannot be read: {ended}",
        f"warning: {folder}/ml_pipeline.log.2026-11-19.2.gz: cannot be read: Not a gzipped file (b'no')",
    ]


def test_a_closed_pipe_ends_quietly(isolated: Path) -> None:
    """As ``ml-pipeline logs | head`` closes it."""
    write("ml_pipeline.log", *(line(n % 60, "x" * 200) for n in range(5_000)))
    assert left_by_its_reader("logs") == (b"", 0)
