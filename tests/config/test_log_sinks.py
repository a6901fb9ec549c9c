"""Sinks that a program adds: what they are given, and that nothing they do reaches the job."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import io
import json
import logging
import logging.config
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._log_files import AppendFile
from ml_pipeline.config._log_retention import Keeper, Retention
from ml_pipeline.config._log_shapes import Message
from ml_pipeline.config._log_sinks import _WordRotation
from ml_pipeline.config._log_words import retention_days, rotation_words
from ml_pipeline.config.logging_config import audit_logger, get_logger, log_operation, main_logger
from ml_pipeline.errors import SettingsError
from tests.support import eventually

LOGS = Path("ml_pipeline/logs")


@pytest.fixture(autouse=True)
def _without_sinks() -> Any:
    """Every test begins and ends without sinks."""
    yield
    main_logger.remove()


def _fail(text: str) -> None:
    raise ValueError(text)


def _messages(name: str = "ml_pipeline.log") -> list[str]:
    path = LOGS / name
    return [json.loads(line)["message"] for line in path.read_text("utf-8").splitlines()] if path.exists() else []


# what they are given


def test_a_path_holds_the_lines_of_our_files() -> None:
    """By default the very lines; the file is opened by the first record, with its folder."""
    main_logger.add("own/extra.log")
    assert not Path("own").exists()
    main_logger.info("one", extra=log_operation(rows=3))
    get_logger("training.model_training", "t").info("two")
    ours = (LOGS / "ml_pipeline.log").read_text("utf-8") + (LOGS / "training/model_training.log").read_text("utf-8")
    assert Path("own/extra.log").read_text("utf-8") == ours


def test_a_channels_sink_gets_that_channel_alone() -> None:
    """Records of the loggers below it too, and no others."""
    logger = get_logger("training.model_training", "t")
    logger.add("own.log", format="{message}")
    logger.info("mine")
    logger.getChild("deep").info("mine too")
    main_logger.info("not mine")
    assert Path("own.log").read_text("utf-8") == "mine\nmine too\n"
    logger.remove()


def test_a_function_is_given_a_text_with_its_fields() -> None:
    """The text has no line end; ``record`` is what stands on the line of JSON."""
    seen: list[Message] = []
    main_logger.add(seen.append, format="{level}:{message}")
    main_logger.warning("hot %d", 3, extra=log_operation("cool", "u1", rows=3))
    (message,) = seen
    assert message == "WARNING:hot 3"
    assert message.record == json.loads((LOGS / "ml_pipeline.log").read_text("utf-8"))
    assert (message.record["operation"], message.record["context"]) == ("cool", {"rows": 3})


def test_a_file_object_gets_lines_of_text() -> None:
    """What is written is flushed, and the object is never closed."""
    stream = io.StringIO()
    sink = main_logger.add(stream)
    main_logger.info("shown")
    main_logger.remove(sink)
    main_logger.info("not shown")
    assert stream.getvalue().endswith(" - INFO - ml_pipeline - shown\n")
    assert not stream.closed


@pytest.mark.parametrize(
    ("form", "line"),
    [
        ("{level: <8}|{logger}|{message}", "INFO    |ml_pipeline|hello"),
        ("{name} {extra[rows]:>4} {context[no][deep]}{user_id}{line:>0}", None),
        (lambda fields: f"<{fields['message']}>", "<hello>"),
        (logging.Formatter("%(levelname)s %(message)s %(rows)s"), "INFO hello 3"),
    ],
)
def test_formats(form: Any, line: str | None) -> None:
    """A template of the line's keys, where what is missing is empty; a function; a `logging.Formatter`."""
    seen: list[str] = []
    main_logger.add(seen.append, format=form)
    main_logger.info("hello", extra=log_operation(rows=3))
    if line is None:
        assert seen[0].startswith("ml_pipeline    3 ")
    else:
        assert seen == [line]


def test_a_template_is_filled_whatever_a_field_holds() -> None:
    """The time may be cut; a field of the caller's that a format does not fit stands as it is, and no record is lost."""
    seen: list[str] = []
    main_logger.add(seen.append, format="{time:.10}|{level!s:>8}|{context[rows]:>4d}|{context[score][a]}|{message}")
    main_logger.info("fits", extra=log_operation(rows=3, score={"a": 1}))
    main_logger.info("does not", extra=log_operation(rows=[3], score="high"))
    today = json.loads((LOGS / "ml_pipeline.log").read_text("utf-8").splitlines()[0])["timestamp"][:10]
    assert seen == [f"{today}|    INFO|   3|1|fits", f"{today}|    INFO|[3]||does not"]


@pytest.mark.parametrize(
    "form", ["json", "text", "{message} {context}", str, logging.Formatter("%(message)s %(api_token)s")]
)
def test_secrets_reach_no_sink(form: Any) -> None:
    """Redaction holds whatever the format: by name and by pattern, in message, fields, exception and record."""
    form = json.dumps if form is str else form  # a function of the fields
    ml_pipeline.configure(redact_patterns=("sk-[a-z]+",))
    seen: list[Message] = []
    main_logger.add(seen.append, format=form)
    main_logger.add("own.log", format=form)
    try:
        _fail("bad sk-abc")
    except ValueError:
        main_logger.exception("key %s", "sk-abc", extra={"api_token": "hunter2", "note": "sk-def"})
    everything = f"{seen[0]} {seen[0].record} {Path('own.log').read_text('utf-8')}"
    assert "[redacted]" in everything
    assert not any(secret in everything for secret in ("sk-abc", "sk-def", "hunter2"))


@pytest.mark.parametrize("form", ["text", "{message} {context[note]}", logging.Formatter("%(message)s %(note)s")])
def test_no_text_forges_a_line(form: Any) -> None:
    """Line ends and terminal codes in messages and fields are escaped; a traceback stands on indented lines."""
    main_logger.add("own.log", format=form)
    try:
        _fail("one\n2026-01-01 - INFO - forged")
    except ValueError:
        main_logger.exception("a\nb\x1b[31m", extra={"note": "c\r\nd\u2028"})
    first, *others = Path("own.log").read_text("utf-8").splitlines()
    assert "\x1b" not in first
    assert r"a\nb" in first
    assert others
    assert all(line.startswith("    ") for line in others)


def test_a_template_may_place_the_exception() -> None:
    """Where it names it, it is not added at the end."""
    main_logger.add("own.log", format="{exception}\n--{message}")
    try:
        _fail("x")
    except ValueError:
        main_logger.exception("after")
    text = Path("own.log").read_text("utf-8")
    assert text.endswith("ValueError: x\n--after\n")
    assert text.count("Traceback") == 1


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        (None, ["main", "loud", "trained"]),
        ("training", ["trained"]),
        ("training.model_training", ["trained"]),
        ("my", ["trained"]),
        ("train", []),
        (lambda record: record.levelno >= logging.WARNING, ["loud"]),
        (logging.Filter("ml_pipeline.training"), ["trained"]),
    ],
)
def test_filters(select: Any, expected: list[str]) -> None:
    """By channel, group or module; by a function of the record; by a `logging.Filter`."""
    seen: list[str] = []
    main_logger.add(seen.append, filter=select, format="{message}")
    main_logger.info("main")
    main_logger.warning("loud")
    get_logger("training.model_training", "my.module").info("trained")
    assert seen == expected


def test_level_and_standard_calls() -> None:
    """The least level; and `setLevel`, `addFilter` and `removeHandler` work as on any handler."""
    seen: list[str] = []
    sink = main_logger.add(seen.append, level="warning", format="{message}")
    main_logger.info("no")
    main_logger.warning("yes")
    sink.setLevel(logging.INFO)
    main_logger.info("now")
    main_logger.removeHandler(sink)
    main_logger.error("gone")
    assert seen == ["yes", "now"]


# rotation and retention


def test_rotation_by_size_compresses_and_keeps() -> None:
    """At the size the file is set aside under the usual name; no line is lost."""
    main_logger.add("own.log", format="{message}", rotation="2 KB", retention="30 days")
    for number in range(300):
        main_logger.info("line %04d", number)
    main_logger.remove()
    aside = sorted(Path().glob("own.log.*"), key=lambda path: int(path.name.split(".")[3]))
    assert len(aside) >= 1
    read = b"".join(
        gzip.decompress(each.read_bytes()) if each.suffix == ".gz" else each.read_bytes() for each in aside
    ).decode()
    assert (read + Path("own.log").read_text("utf-8")).splitlines() == [f"line {number:04d}" for number in range(300)]


@pytest.mark.parametrize(
    ("words", "last", "now", "is_due", "day"),
    [
        ("00:00", "2026-11-20 23:59:59", "2026-11-21 00:00:00", True, "2026-11-20"),
        ("03:30", "2026-11-20 23:59:59", "2026-11-21 03:29:59", False, ""),
        ("03:30", "2026-11-21 03:29:59", "2026-11-21 03:30:00", True, "2026-11-21"),
        ("1 week", "2026-11-15 23:00:00", "2026-11-16 00:00:00", True, "2026-11-15"),
        ("1 week", "2026-11-16 00:00:00", "2026-11-22 23:59:59", False, ""),
        ("2 hours", "2026-11-20 11:59:59", "2026-11-20 12:00:01", True, "2026-11-20"),
        ("1 GB", "2026-01-01 00:00:00", "2026-11-20 12:00:01", False, ""),
    ],
)
def test_rotation_by_time(words: str, last: str, now: str, is_due: bool, day: str) -> None:
    """A file whose last line is of another period is set aside, after a restart too, under the day of that line."""
    clock = dt.datetime.fromisoformat(now + "+00:00").timestamp
    path = Path("own.log").absolute()
    path.write_text("line\n", encoding="utf-8")
    os.utime(path, (before := dt.datetime.fromisoformat(last + "+00:00").timestamp(), before))
    rotation = _WordRotation(path.parent, rotation_words(words), clock=clock)
    held = path.stat()
    assert rotation.is_due(held.st_size, rotation.day_of_file(held)) is is_due
    if is_due:
        assert rotation.rotate(path, held, rotation.day_of_file(held))
        assert Path(f"own.log.{day}.1").read_text("utf-8") == "line\n"
        left = rotation.seconds_left_today()
        assert 0 < left <= 7 * 86_400


def test_the_days_that_a_file_is_kept_begin_with_its_last_line() -> None:
    """A file of a whole week is kept for a week more, not removed with the first line of the next one."""
    sunday, tuesday = (dt.datetime(2026, 11, day, 12, tzinfo=dt.UTC).timestamp() for day in (15, 17))
    path = Path("own.log").absolute()
    path.write_text("the last line\n", encoding="utf-8")
    os.utime(path, (sunday, sunday))
    now = tuesday
    file = AppendFile(path, _WordRotation(path.parent, rotation_words("1 week"), clock=lambda: now))
    file.write(b"the next week\n")
    file.close()
    keeper = Keeper(lambda: [path], Retention(retention_days("1 week")), clock=lambda: now)
    for days, kept in ((0, 1), (5, 1), (6, 0)):  # the 17th, the 22nd, the 23rd
        now = tuesday + days * 86_400
        keeper.sweep()
        assert len(list(Path().glob("own.log.*"))) == kept
    assert path.read_text("utf-8") == "the next week\n"


# hostile


def test_a_sink_that_raises_is_counted_and_said_once(capsys: pytest.CaptureFixture[str]) -> None:
    """The job goes on, and so do our files and the other sinks; so with a filter and a format that raise."""
    ml_pipeline.configure(strict=False)
    seen: list[str] = []

    def broken(_: object) -> None:
        raise RuntimeError("sink")

    main_logger.add(broken)
    main_logger.add(seen.append, filter=broken)
    main_logger.add(seen.append, format=broken)
    main_logger.add(seen.append, format="{message}")
    for _ in range(3):
        main_logger.info("x")
    assert seen == ["x"] * 3
    assert _messages() == ["x"] * 3
    assert _runtime.tally.log_records_dropped == {"RuntimeError": 9}
    assert _runtime.tally.telemetry_errors == {("log_sink", "RuntimeError"): 9}
    assert capsys.readouterr().err.count("ml_pipeline: log_sink: RuntimeError: sink") == 1


def test_a_closed_stream_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """What can no longer be written to raises nothing into the job."""
    ml_pipeline.configure(strict=False)
    stream = io.StringIO()
    main_logger.add(stream)
    stream.close()
    main_logger.info("x")
    assert _runtime.tally.log_records_dropped == {"ValueError": 1}
    assert "log_sink" in capsys.readouterr().err


def test_a_sink_that_logs_ends() -> None:
    """Its own record goes to our files and to the others, never back to itself; that is counted."""
    first: list[str] = []
    second: list[str] = []

    def echo(message: Message) -> None:
        first.append(message)
        main_logger.info("first saw %s", message)

    def answer(message: Message) -> None:
        second.append(message)
        main_logger.info("second saw %s", message)

    main_logger.add(echo, format="{message}")
    main_logger.add(answer, format="{message}")
    main_logger.info("x")
    assert first == ["x", "second saw x"]
    assert second == ["first saw x", "x"]
    assert len(_messages()) == len(set(_messages()))
    assert _runtime.tally.log_records_dropped["recursion"] > 0


def test_a_sink_that_waits_for_a_thread_that_logs() -> None:
    """The thread's records are dropped there and counted, the first after a while; they stand in our files."""
    ml_pipeline.configure(strict=False, log_slow_seconds=0.05)
    seen: list[str] = []

    def joining(message: Message) -> None:
        if message == "joins":
            thread = threading.Thread(target=lambda: [main_logger.info("of the thread") for _ in range(50)])
            thread.start()
            thread.join(30)
            assert not thread.is_alive()
        seen.append(message)

    main_logger.add(joining, format="{message}")
    main_logger.info("joins")
    main_logger.info("after")
    assert seen == ["joins", "after"]
    assert _messages() == ["joins", *["of the thread"] * 50, "after"]
    assert _runtime.tally.log_records_dropped == {"TimeoutError": 50}


def test_what_is_said_of_a_sink_that_keeps_others_waiting(capsys: pytest.CaptureFixture[str]) -> None:
    """The rule, how long, and what to do."""
    ml_pipeline.configure(strict=False, log_slow_seconds=0.05)
    is_inside, is_over = threading.Event(), threading.Event()

    def slow(_: object) -> None:
        is_inside.set()
        is_over.wait(30)

    main_logger.add(slow)
    first = threading.Thread(target=lambda: main_logger.info("first"))
    first.start()
    assert is_inside.wait(30)
    main_logger.info("second")
    said = capsys.readouterr().err
    assert "a sink must let other threads have their turn (got none in 0.05 s); in it, wait for no thread " in said
    assert "that logs, and put what takes long in a queue" in said
    is_over.set()
    first.join(30)


def test_remove_while_others_write() -> None:
    """No line is torn, nothing is written after remove has returned, and nothing raises."""
    ending = threading.Event()
    started = threading.Barrier(5)

    def work(number: int) -> None:
        started.wait()
        while not ending.is_set():
            main_logger.info("line of %d", number)

    threads = [threading.Thread(target=work, args=(each,)) for each in range(4)]
    for thread in threads:
        thread.start()
    started.wait()
    for round_ in range(10):
        sink = main_logger.add(f"own{round_}.log", format="{message} end")
        path = Path(f"own{round_}.log")
        eventually(lambda path=path: path.exists() and path.stat().st_size > 200)  # type: ignore[misc]
        main_logger.remove(sink)
        size = path.stat().st_size
        main_logger.info("after")
        assert path.stat().st_size == size
        assert all(line.endswith(" end") for line in path.read_text("utf-8").splitlines())
    ending.set()
    for thread in threads:
        thread.join()


def test_removing() -> None:
    """One that is not there is refused; without an argument all of the logger's go, and other handlers stay."""
    other = logging.NullHandler()
    main_logger.addHandler(other)
    sink = main_logger.add(lambda _: None)
    main_logger.remove(sink)
    with pytest.raises(SettingsError, match="remove takes what add of the same logger returned"):
        main_logger.remove(sink)
    with pytest.raises(SettingsError, match="remove takes what add of the same logger returned"):
        main_logger.remove(other)
    main_logger.add(lambda _: None)
    main_logger.add("own.log")
    main_logger.remove()
    assert other in main_logger.handlers
    assert len(main_logger.handlers) == 2
    main_logger.removeHandler(other)


def test_dict_config_closes_and_the_sink_reopens() -> None:
    """`dictConfig` closes handlers that are still in use: the file is opened again."""
    main_logger.add("own.log", format="{message}")
    main_logger.info("before")
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
    main_logger.info("after")
    ml_pipeline.configure(log_max_bytes=20_000)
    main_logger.info("configured")
    assert Path("own.log").read_text("utf-8").split() == ["before", "after", "configured"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_writes_too() -> None:
    """Even when another thread was inside the sink at the moment of the fork."""
    main_logger.add("own.log", format="{message}")
    slow = threading.Event()
    entered = threading.Event()

    def wait(_: object) -> None:
        if threading.current_thread() is not threading.main_thread():
            entered.set()
            slow.wait(30)

    blocking = main_logger.add(wait)
    thread = threading.Thread(target=lambda: main_logger.info("of the thread"))
    thread.start()
    assert entered.wait(30)
    child = os.fork()
    if child == 0:
        main_logger.info("of the child")
        os._exit(0)
    slow.set()
    thread.join()
    _, status = eventually(lambda: (ended := os.waitpid(child, os.WNOHANG))[0] and ended)
    assert os.waitstatus_to_exitcode(status) == 0
    main_logger.remove(blocking)
    eventually(lambda: sorted(Path("own.log").read_text("utf-8").splitlines()) == ["of the child", "of the thread"])


def test_sinks_cost_nothing_when_gone() -> None:
    """After the last is removed, records take the short way again."""
    sink = main_logger.add(lambda _: None)
    main_logger.remove(sink)
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.getLogger(), "handlers", [])  # those of pytest
        patch.setattr(main_logger, "makeRecord", lambda *_: made.append("a record"))
        main_logger.info("x")
    assert (made, _messages()) == ([], ["x"])


# what is refused


_FILLED = "a template must be one that str.format can fill"
_TIME_REMEDY = "the time is a text in UTC, such as 2026-01-15T09:30:25.123456Z: write {time}, or {time:.19}"


async def _coroutine(_: object) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: main_logger.add(3), "a sink must be a path, a function, or an object with write (got 3); give one of"),
        (lambda: main_logger.add(int), "a sink must be a path, a function, or an object with write (got <class 'int'>)"),
        (lambda: main_logger.add(_coroutine), "a sink must not be a coroutine function: a log call waits for nobody"),
        (lambda: main_logger.add(logging.NullHandler()), "add makes a handler of its own (got <NullHandler (NOTSET)>); "),
        (lambda: main_logger.add("."), "the path of a sink must be a file, not a folder"),
        (lambda: main_logger.add("~nosuchuser/x"), "the path of a sink must be one that a file can have"),
        (lambda: main_logger.add(LOGS / "audit.log"), "a sink must not write to the file of a channel"),
        (lambda: main_logger.add(LOGS / "audit.head"), "a sink must not write to the file of a channel"),
        (lambda: main_logger.add("ml_pipeline/logs/../logs/errors.log"), "a sink must not write to the file of a channel"),
        (lambda: main_logger.add(LOGS / "airflow/a.log"), "a sink must not write to the file of a channel"),
        (lambda: main_logger.add(LOGS / "airflow/a.log.2026-01-01.1"), "a sink must not write to the file of a channel"),
        (lambda: main_logger.add(LOGS / "alerts.json"), "a sink must not write to the file of a channel"),
        (lambda: main_logger.add(LOGS / ".rotation.lock"), "a sink must not write to the file of a channel"),
        (lambda: main_logger.add("\x00"), "the path of a sink must be one that a file can have (got '\\x00'); embedded"),
        (lambda: main_logger.add("a{time}.log"), "the path of a sink has no placeholders (got 'a{time}.log'); with rot"),
        (lambda: main_logger.add("{time:YYYY}/a.log"), "the path of a sink has no placeholders (got '{time:YYYY}/a.log')"),
        (lambda: main_logger.add("x.log", level="LOUD"), "a level must be a number or the name of one (got 'LOUD')"),
        (lambda: main_logger.add("x.log", rotation="soon"), "a rotation must be a size, a period, a time of day"),
        (lambda: main_logger.add("x.log", retention="1 day"), "retention needs a rotation (got '1 day'); give both"),
        (lambda: main_logger.add("x.log", rotation="1 day", retention="10"), "a retention must be a number of whole days"),
        (lambda: main_logger.add(sys.stderr, rotation="1 day"), "rotation and retention are for a path"),
        (lambda: main_logger.add("x.log", filter=3), "filter must be a function of a record, a channel or module by"),
        (lambda: main_logger.add("x.log", format="xml"), "format must be 'json', 'text', a template, a function of the"),
        (lambda: main_logger.add("x.log", format="{mesage}"), "a template names the fields of a line (got 'mesage'); did"),
        (lambda: main_logger.add("x.log", format="{}"), "a template names the fields of a line (got '')"),
        (lambda: main_logger.add("x.log", format="{message"), "a template must be one that str.format can fill (got '{"),
        (lambda: main_logger.add("x.log", format="{message.x}"), "a template must be one that str.format can fill"),
        (lambda: main_logger.add("x.log", format="{time:YYYY-MM-DD HH:mm:ss.SSS} | {level} | {message}"),
         f"{_FILLED} (got '{{time:YYYY-MM-DD HH:mm:ss.SSS}}'); {_TIME_REMEDY}"),
        (lambda: main_logger.add("x.log", format="{timestamp:%H:%M}"), "a template must be one that str.format can fill"),
        (lambda: main_logger.add("x.log", format="{message} {level:d}"),
         "a template must be one that str.format can fill (got '{level:d}'); Unknown format code 'd' for object of type"),
        (lambda: main_logger.add("x.log", format="{message:.f}"), "a template must be one that str.format can fill (got '{"),
        (lambda: main_logger.add("x.log", format="{line:%Q}"), "a template must be one that str.format can fill"),
        (lambda: audit_logger.add("x.log"), "the audit trail goes to its own file alone (got 'ml_pipeline.audit'); add"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_at_once(use: Any, message: str) -> None:
    """When the sink is added, not at a record; nothing is added then."""
    with pytest.raises(SettingsError) as refused:
        use()
    assert str(refused.value).startswith(message)
    assert len(main_logger.handlers) == 1
