"""Logging: a record lies in its file, once and whole, whatever thread, process, handler or disk is at work."""

from __future__ import annotations

import io
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._channels import CHANNELS, ROOT
from ml_pipeline.config.logging_config import (
    AuditLogger,
    DirectLogger,
    PipelineLogger,
    audit_logger,
    get_logger,
    log_operation,
    main_logger,
)
from ml_pipeline.config.operation_logger import operation_logger
from ml_pipeline.errors import UnknownChannelError

LOGS = Path("ml_pipeline/logs")
WRITABLE = sorted(CHANNELS.keys() - {"audit", "errors"})


def _lines(name: str = "ml_pipeline.log", folder: Path = LOGS) -> list[dict[str, Any]]:
    path = folder / name
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def _messages(name: str = "ml_pipeline.log") -> list[str]:
    return [line.get("message", "") for line in _lines(name)]


def _files() -> set[str]:
    return {str(path.relative_to(LOGS)) for path in LOGS.rglob("*.log")}


def _run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_promised_call() -> None:
    """The first line anyone writes has its message, operation and user, and the place it was written at."""
    main_logger.info("Processing data", extra=log_operation(operation="data_processing", user_id="user123", rows=3))
    (line,) = _lines()
    assert (line["level"], line["logger"], line["channel"]) == ("INFO", "ml_pipeline", "ml_pipeline")
    assert (line["message"], line["operation"], line["user_id"]) == ("Processing data", "data_processing", "user123")
    assert (line["pipeline"], line["context"]) == ("test", {"rows": 3})
    assert (Path(line["file"]).name, line["function"]) == ("test_logging_config.py", "test_the_promised_call")


@pytest.mark.parametrize("channel", [*WRITABLE, "airflow.daily_etl", "airflow.my.dag"])
def test_a_record_lies_in_the_file_of_its_channel_alone(channel: str) -> None:
    """INFO is in one file; ERROR is in that file and in errors.log, the same line."""
    path = channel + ".log" if channel == ROOT else channel.replace(".", "/", 1) + ".log"
    logger = get_logger(channel, "worker")
    logger.info("fine")
    assert _files() == {path}
    logger.error("broken")
    assert _files() == {path, "errors.log"}
    assert [(line["message"], line["channel"], line["logger"]) for line in _lines(path)] == [
        ("fine", channel, "worker"),
        ("broken", channel, "worker"),
    ]
    assert _lines("errors.log") == _lines(path)[1:]


def test_a_record_of_the_errors_channel_is_written_once() -> None:
    """Who writes to errors.log by name finds an ERROR there once."""
    get_logger("errors", "x").error("broken")
    assert _messages("errors.log") == ["broken"]
    assert _files() == {"errors.log"}


def test_get_logger() -> None:
    """The shown name is the calling module's unless one is given; the same arguments give the same object."""
    logger = get_logger("training.model_training")
    assert isinstance(logger, PipelineLogger)
    assert logger.name == f"ml_pipeline.training.model_training.{__name__}"
    assert get_logger("training.model_training") is logger
    assert get_logger("ml_pipeline", "ml_pipeline") is main_logger
    logger.info("shown")
    assert _lines("training/model_training.log")[0]["logger"] == __name__
    with pytest.raises(UnknownChannelError, match=r"did you mean 'pipeline\.data_quality'\?"):
        get_logger("pipeline.data_qualty")


def test_a_module_named_like_a_channel_is_only_a_module() -> None:
    """A logger shown as "audit" or "training.model_training" in the main channel writes to the main log."""
    for name in ("audit", "errors", "training.model_training", "ml_pipeline"):
        logger = get_logger("ml_pipeline", name)
        assert not isinstance(logger, AuditLogger)
        logger.info(name)
    assert [(line["message"], line["logger"]) for line in _lines()] == [
        (name, name) for name in ("audit", "errors", "training.model_training", "ml_pipeline")
    ]
    assert _files() == {"ml_pipeline.log"}


def test_children_and_plain_loggers_write_to_their_channel() -> None:
    """`getChild` and `logging.getLogger` below ``ml_pipeline`` are loggers of ours without being asked."""
    get_logger("inference.predictions", "model").getChild("v2").info("child")
    logging.getLogger("ml_pipeline.inference.predictions").info("by channel")
    logging.getLogger("ml_pipeline.my.module").info("plain")
    assert [(line["message"], line["logger"]) for line in _lines("inference/predictions.log")] == [
        ("child", "model.v2"),
        ("by channel", "predictions"),
    ]
    assert [(line["message"], line["logger"]) for line in _lines()] == [("plain", "my.module")]


@pytest.mark.parametrize("name", ["name", "args", "message", "levelname", "msg", "exc_info", "asctime"])
def test_context_never_clashes_and_raw_extra_does_as_ever(name: str) -> None:
    """`log_operation` takes any keyword; a raw ``extra=`` with a name of the record's own raises KeyError."""
    main_logger.info("kept", extra=log_operation(**{name: "value"}))
    assert _lines()[0]["context"] == {name: "value"}
    with pytest.raises(KeyError, match=f"Attempt to overwrite '{name}' in LogRecord"):
        main_logger.info("refused", extra={name: "value"})


def test_caplog_sees_every_record(caplog: pytest.LogCaptureFixture) -> None:
    """Records propagate: of the main logger, of channels, of plain children, and of operations."""
    main_logger.info("one")
    get_logger("training.model_training", "t").info("two")
    logging.getLogger("ml_pipeline.x").warning("three")
    with operation_logger.operation("custom", "work"):
        pass
    assert [record.getMessage() for record in caplog.records][:4] == ["one", "two", "three", "work started"]


def test_caplog_at_level_and_back(caplog: pytest.LogCaptureFixture) -> None:
    """A level set for a block holds in it, even before the first record, and ours is in force after it."""
    with caplog.at_level(logging.DEBUG, logger="ml_pipeline"):
        main_logger.debug("seen")
    main_logger.debug("unseen")
    logging.getLogger("ml_pipeline.child").debug("unseen too")
    with caplog.at_level(logging.ERROR, logger="ml_pipeline"):
        logging.getLogger("ml_pipeline.child").warning("unseen three")
    logging.getLogger("ml_pipeline.child").info("seen again")
    assert [record.getMessage() for record in caplog.records] == ["seen", "seen again"]
    assert _messages() == ["seen", "seen again"]


def test_a_handler_of_the_root_logger_sees_every_record() -> None:
    """What `logging.basicConfig` sets up gets our records too, formatted its own way."""
    program = (
        "import logging\n"
        "logging.basicConfig(format='%(levelname)s|%(name)s|%(message)s')\n"
        "from ml_pipeline.config.logging_config import get_logger, log_operation\n"
        "get_logger('training.model_training', 'fit').info('epoch %d', 3, extra=log_operation(name='x'))\n"
    )
    done = _run(program, ML_PIPELINE_LOG_CONSOLE="auto")
    assert done.stderr == "INFO|ml_pipeline.training.model_training.fit|epoch 3\n"
    assert _messages("training/model_training.log") == ["epoch 3"]


FIRST = """
import logging
before = logging.getLogger("ml_pipeline.made.before")
from ml_pipeline.config import logging_config
assert len(logging.getLogger("ml_pipeline").handlers) == 1
{}
"""


@pytest.mark.parametrize(
    "call",
    [
        "before.debug('first')",
        "logging_config.main_logger.debug('first')",
        "logging_config.get_logger('ml_pipeline', 'x').debug('first')",
        "logging.getLogger('ml_pipeline.later').debug('first')",
        "logging.getLogger('ml_pipeline').getChild('child').debug('first')",
    ],
)
def test_the_level_holds_for_the_very_first_record(isolated: Path, call: str) -> None:
    """LOG_LEVEL decides on the first DEBUG record already, also of a logger made before the import."""
    done = _run(FIRST.format(call), ML_PIPELINE_LOG_LEVEL="DEBUG")
    assert (done.returncode, done.stderr) == (0, "")
    assert _messages() == ["first"]
    done = _run(FIRST.format(call), ML_PIPELINE_LOG_LEVEL="INFO")
    assert (done.returncode, done.stderr) == (0, "")
    assert _messages() == ["first"]


def test_a_level_that_a_user_set_is_never_overwritten() -> None:
    """Set before the import, before the first record, or after a change of settings: it stays."""
    program = (
        "import logging, ml_pipeline\n"
        "logging.getLogger('ml_pipeline').setLevel(logging.{})\n"
        "from ml_pipeline.config.logging_config import main_logger\n"
        "main_logger.info('one')\n"
        "ml_pipeline.configure(log_level='DEBUG')\n"
        "main_logger.info('two')\n"
    )
    assert _run(program.format("ERROR")).stderr == ""
    assert _messages() == []
    assert _run(program.format("DEBUG"), ML_PIPELINE_LOG_LEVEL="ERROR").stderr == ""
    assert _messages() == ["one", "two"]


def test_a_change_of_the_level_reaches_every_logger() -> None:
    """After `configure`, loggers that had remembered the old level follow the new one."""
    plain = logging.getLogger("ml_pipeline.plain")
    for level, expected in (("INFO", 1), ("DEBUG", 3), ("ERROR", 3), ("DEBUG", 5)):
        ml_pipeline.configure(log_level=level)
        plain.debug("plain")
        main_logger.debug("main")
        if level == "INFO":
            plain.info("plain")
        assert len([message for message in _messages() if message in ("plain", "main")]) == expected
        assert main_logger.getEffectiveLevel() == plain.getEffectiveLevel() == getattr(logging, level)


def test_a_childs_own_level_counts() -> None:
    """A plain child with a level of its own is asked for it, from the first record on."""
    child = logging.getLogger("ml_pipeline.chatty")
    child.setLevel(logging.DEBUG)
    try:
        child.debug("one")
        main_logger.debug("unseen")
        child.debug("two")
    finally:
        child.setLevel(logging.NOTSET)
    assert _messages() == ["one", "two"]


def test_another_logger_class_is_kept_and_ours_is_in_front() -> None:
    """Under `logging.setLoggerClass`, levels and auditing work, and the other class's methods stay."""
    program = (
        "import logging\n"
        "class Loud(logging.Logger):\n"
        "    def shout(self, text): self.info(text.upper())\n"
        "logging.setLoggerClass(Loud)\n"
        "from ml_pipeline.config.logging_config import audit_logger, get_logger, main_logger\n"
        "main_logger.shout('one'); get_logger('ml_pipeline', 'x').shout('two'); audit_logger.shout('three')\n"
        "assert get_logger('ml_pipeline', 'x') is get_logger('ml_pipeline', 'x')\n"
    )
    done = _run(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert _messages() == ["ONE", "TWO"]
    assert _messages("audit.log") == ["THREE"]


def test_new_loggers_are_made_of_our_class_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """None has to change its class, which would make it slow; what a signal handler makes in the middle is not ours."""
    make, others = logging.Logger.__init__, list[logging.Logger]()

    def make_and_interrupt(self: logging.Logger, name: str) -> None:
        others.append(logging.getLogger(f"somebody.else.{name}"))
        make(self, name)

    monkeypatch.setattr(DirectLogger, "__init__", make_and_interrupt)
    parent = get_logger("ml_pipeline", "made.directly")
    child = parent.getChild("below")
    assert [each.name for each in others] == [f"somebody.else.{each.name}" for each in (parent, child)]
    assert {type(each) for each in others} == {logging.Logger}
    assert logging.Logger.manager.loggerClass is None


def test_where_a_record_was_written() -> None:
    """File, line and function are the caller's, through an adapter and through ``stacklevel``."""

    def helper() -> None:
        main_logger.info("helped", stacklevel=2)

    logging.LoggerAdapter(main_logger, log_operation(user_id="ann")).info("adapted")
    helper()
    first, second = _lines()
    assert {first["function"], second["function"]} == {"test_where_a_record_was_written"}
    assert second["line"] == first["line"] + 1
    assert first["user_id"] == "ann"


def test_exceptions_and_stacks() -> None:
    """``exc_info`` and ``stack_info`` are on the line, and in errors.log."""
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        main_logger.exception("failed")
    main_logger.info("here", stack_info=True, exc_info=True)
    failed, here = _lines()
    assert (failed["exception"]["type"], failed["exception"]["message"]) == ("ZeroDivisionError", "division by zero")
    assert "exception" not in here
    assert here["context"]["stack_info"].startswith("Stack (most recent call last):")
    assert _lines("errors.log") == [failed]


def test_a_deep_traceback_is_in_errors_log_whole() -> None:
    """errors.log promises the full traceback: the last frames are there, however long the text before them."""

    def deep(rest: int) -> None:
        if rest:
            (deep if rest % 2 else other)(rest - 1)
        raise ValueError("at the bottom")

    def other(rest: int) -> None:
        deep(rest)

    try:
        deep(120)
    except ValueError:
        main_logger.exception("failed")
    trace = _lines("errors.log")[0]["exception"]["stacktrace"]
    assert len(trace) > 10_000
    assert trace.startswith("Traceback")
    assert trace.endswith("ValueError: at the bottom\n")


def test_the_ids_around_a_record_are_on_it() -> None:
    """Inside an operation every line carries operation, operation_id, run_id and user_id; a line's own win."""
    with operation_logger.operation("custom", "work", user_id="ann") as op:
        get_logger("training.model_training", "t").info("inside")
        main_logger.info("own", extra=log_operation(operation="mine", user_id="bob"))
    main_logger.info("outside")
    inside = _lines("training/model_training.log")[0]
    own, outside = (next(line for line in _lines() if line["message"] == message) for message in ("own", "outside"))
    assert (inside["operation"], inside["operation_id"], inside["run_id"], inside["user_id"]) == (
        "work",
        op.operation_id,
        op.run_id,
        "ann",
    )
    assert (own["operation"], own["operation_id"], own["user_id"]) == ("mine", op.operation_id, "bob")
    assert not outside.keys() & {"operation", "operation_id", "run_id", "user_id"}


@pytest.mark.parametrize("value", [np.array([1, 2]), np.array([]), float("nan"), b"\xff", object(), [[1]], {"a": {1}}])
def test_a_hostile_user_is_no_reason_to_lose_a_record(value: Any) -> None:
    """A user that cannot be compared or tested for truth is written as well as it can be."""
    main_logger.info("said", extra=log_operation(user_id=value, operation=value))
    (line,) = _lines()
    assert line["message"] == "said"
    assert {"user_id", "operation"} <= line.keys()


def test_the_text_format() -> None:
    """With LOG_FORMAT=text the files hold text lines, errors with their traceback; audit.log stays JSON."""
    ml_pipeline.configure(log_format="text")
    get_logger("training.model_training", "model_trainer").info("Training set size: %s", (8000, 19))
    try:
        _ = 1 / 0
    except ZeroDivisionError:
        main_logger.exception("failed\nforged")
    audit_logger.info("reviewed")
    (line,) = (LOGS / "training" / "model_training.log").read_text().splitlines()
    assert line.endswith(" - INFO - model_trainer - Training set size: (8000, 19)")
    first, *others = (LOGS / "errors.log").read_text().splitlines()
    assert first.endswith(" - ERROR - ml_pipeline - failed\\nforged")
    assert others[0] == "    Traceback (most recent call last):"
    assert others[-1] == "    ZeroDivisionError: division by zero"
    assert _messages("audit.log") == ["reviewed"]


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _shown(monkeypatch: pytest.MonkeyPatch, stream: Any, **settings: Any) -> str:
    monkeypatch.setattr(sys, "stderr", stream)
    ml_pipeline.configure(**settings)
    get_logger("ml_pipeline", "shop").warning("said")
    text: str = stream.getvalue()
    return text


def test_the_console_on_and_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """``on`` shows text lines on stderr, ``off`` none; a terminal gets colour, unless NO_COLOR is set."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert _shown(monkeypatch, io.StringIO(), log_console="off") == ""
    assert _shown(monkeypatch, io.StringIO(), log_console="on").endswith(" - WARNING - shop - said\n")
    assert " - \x1b[33mWARNING\x1b[0m - shop" in _shown(monkeypatch, _Terminal(), log_console="on")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in _shown(monkeypatch, _Terminal(), log_console="on")


def test_the_console_left_to_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """``auto`` shows lines, unless a stream handler of the root logger shows them already; a file is no console."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    assert _shown(monkeypatch, io.StringIO(), log_console="auto").endswith(" - WARNING - shop - said\n")
    file = logging.FileHandler("own.log", delay=True)
    monkeypatch.setattr(root, "handlers", [file])
    assert _shown(monkeypatch, io.StringIO(), log_console="auto")
    monkeypatch.setattr(root, "handlers", [logging.StreamHandler(io.StringIO())])
    assert _shown(monkeypatch, io.StringIO(), log_console="auto") == ""
    file.close()


def test_a_broken_console_costs_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without stderr, or with one that is closed or broken, the files get every record and nothing is raised."""
    closed = io.StringIO()
    closed.close()
    ml_pipeline.configure(strict=False, log_console="on")
    for stream in (None, closed, object(), io.TextIOWrapper(io.BytesIO(), "ascii", "strict")):
        monkeypatch.setattr(sys, "stderr", stream)
        main_logger.info("é")
    assert _messages() == ["é"] * 4
    assert {sink for sink, _ in _runtime.tally.telemetry_errors} == {"console"}


def test_threads_lose_and_tear_nothing() -> None:
    """Eight threads of 500 records each, into two files: every one is there, whole."""
    loggers = [main_logger, get_logger("training.model_training", "t")]

    def write(writer: int) -> None:
        for number in range(500):
            loggers[number % 2].info("%d:%d", writer, number)

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    written = Counter(_messages() + _messages("training/model_training.log"))
    assert written == Counter(f"{writer}:{number}" for writer in range(8) for number in range(500))
    assert 3_900 <= sum(_runtime.tally.log_records.values()) <= 4_000  # a statistic, which threads may race for


def _log_many(writer: int) -> None:
    for number in range(250):
        main_logger.info("%d:%d", writer, number)


def test_processes_lose_and_tear_nothing() -> None:
    """Four spawned processes write to one file; the settings given here reach them."""
    ml_pipeline.configure(log_dir="shared")
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_log_many, args=(writer,)) for writer in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    messages = [line["message"] for line in _lines(folder=Path("shared"))]
    assert Counter(messages) == Counter(f"{writer}:{number}" for writer in range(4) for number in range(250))


def test_a_forked_child_logs() -> None:
    """Parent and child write to the same files, each its own records once, even while a thread is logging."""
    program = """
import os, threading
from ml_pipeline.config.logging_config import audit_logger, main_logger
from ml_pipeline.config.operation_logger import operation_logger
main_logger.info("before"); audit_logger.info("before")
stop = threading.Event()
def chatter():
    while not stop.is_set():
        main_logger.info("chatter"); audit_logger.info("chatter")
thread = threading.Thread(target=chatter); thread.start()
children = []
for number in range(5):
    child = os.fork()
    if child == 0:
        main_logger.info("child"); audit_logger.info("child")
        with operation_logger.operation("custom", "in child"): pass
        os._exit(0)
    children.append(child)
codes = [os.waitpid(child, 0)[1] for child in children]
stop.set(); thread.join()
main_logger.info("after"); audit_logger.info("after")
assert codes == [0] * 5, codes
"""
    done = _run(program)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("ml_pipeline.log", "audit.log"):
        told = Counter(_messages(name))
        assert (told["before"], told["child"], told["after"]) == (1, 5, 1)
    assert Counter(_messages())["in child started"] == 5


def test_a_signal_handler_may_log() -> None:
    """A handler that interrupts the logging of a record logs its own; none is lost and none is torn."""
    handled = said = 0

    def handle(*_: object) -> None:
        nonlocal handled
        handled += 1
        main_logger.info("handler")

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while handled < 100:
            main_logger.info("main")
            said += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert Counter(_messages()) == {"main": said, "handler": handled}


def _take_away_root_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    # Those of pytest have locks of their own, and keep what was logged alive.
    monkeypatch.setattr(logging.getLogger(), "handlers", [])


def test_objects_may_log_when_they_are_printed_or_die(monkeypatch: pytest.MonkeyPatch) -> None:
    """``__repr__`` and ``__del__`` that log in the middle of a record neither block nor spoil it."""
    _take_away_root_handlers(monkeypatch)

    class Speaking:
        def __repr__(self) -> str:
            main_logger.info("printed")
            return "spoken"

        def __del__(self) -> None:
            main_logger.info("died")

    main_logger.info("value %r", Speaking(), extra=log_operation(value=Speaking()))
    assert Counter(_messages()) == {"value spoken": 1, "printed": 2, "died": 2}


def test_an_object_may_wait_for_a_thread_that_logs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No lock is held while the code of a logged object runs: its thread and ours do not wait for each other."""
    _take_away_root_handlers(monkeypatch)

    class Waiting:
        def __str__(self) -> str:
            thread = threading.Thread(target=main_logger.info, args=("from the thread",))
            thread.start()
            thread.join(20)
            return "done" if not thread.is_alive() else "deadlock"

    main_logger.info("%s", Waiting())
    assert _messages() == ["from the thread", "done"]


def _folder_in_place() -> None:
    (LOGS / "ml_pipeline.log").mkdir(parents=True)


def _full_device() -> None:
    LOGS.mkdir(parents=True)
    (LOGS / "ml_pipeline.log").symlink_to("/dev/full")


def _file_for_folder() -> None:
    LOGS.parent.mkdir()
    LOGS.write_text("in the way")


@pytest.mark.parametrize(
    ("breakage", "reasons"),
    [
        (_folder_in_place, {"IsADirectoryError": 3}),
        (_full_device, {"OSError": 3}),
        (_file_for_folder, {"FileExistsError": 6}),
    ],
)
def test_a_failing_disk_never_breaks_the_job(
    breakage: Callable[[], None], reasons: dict[str, int], capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is raised; every lost record is counted, each cause is said once, and other files are written."""
    ml_pipeline.configure(strict=False)
    breakage()
    for _ in range(3):
        main_logger.info("lost")
        get_logger("training.model_training", "t").info("elsewhere")
    assert _runtime.tally.log_records_dropped == reasons
    assert _runtime.tally.telemetry_errors == {("logging_config", reason): count for reason, count in reasons.items()}
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ml_pipeline: logging_config: ")]
    assert len(said) == len(reasons)
    assert all(line.endswith("(counted in ml_pipeline_telemetry_errors_total)") for line in said)
    if breakage is not _file_for_folder:
        assert _messages("training/model_training.log") == ["elsewhere"] * 3


def test_a_failing_disk_raises_under_strict() -> None:
    """With STRICT, as in tests, the failure is the caller's."""
    _folder_in_place()
    with pytest.raises(IsADirectoryError):
        main_logger.info("lost")


def test_an_error_that_cannot_go_to_its_own_file_is_in_errors_log() -> None:
    """One failing file does not keep an ERROR from the other."""
    ml_pipeline.configure(strict=False)
    _folder_in_place()
    main_logger.error("kept")
    assert _messages("errors.log") == ["kept"]


def test_a_disk_that_was_full_loses_only_what_did_not_fit() -> None:
    """Records before and after are whole; the torn one stands on a line of its own; the loss is counted."""
    program = """
import resource
from ml_pipeline import _runtime
from ml_pipeline.config.logging_config import main_logger
main_logger.info("before")
size = __import__("os").path.getsize("ml_pipeline/logs/ml_pipeline.log")
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20, resource.RLIM_INFINITY))
main_logger.info("lost"); main_logger.info("lost")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
main_logger.info("after"); main_logger.info("again")
print(dict(_runtime.tally.log_records_dropped))
"""
    done = _run(program, ML_PIPELINE_STRICT="0")
    assert done.stdout == "{'OSError': 2}\n"
    assert done.stderr.count("\n") == 1
    first, torn, *others = (LOGS / "ml_pipeline.log").read_bytes().splitlines()
    assert json.loads(first)["message"] == "before"
    assert len(torn) == 20
    assert [json.loads(line)["message"] for line in others] == ["after", "again"]


def test_a_record_that_cannot_be_formatted_is_counted() -> None:
    """What no rule foresaw loses one record, says so, and nothing else."""
    ml_pipeline.configure(strict=False)
    record = logging.makeLogRecord({"name": "ml_pipeline", "msg": "when?", "levelno": 20, "created": float("inf")})
    main_logger.handle(record)
    main_logger.info("next")
    assert _messages() == ["next"]
    assert _runtime.tally.log_records_dropped == {"OverflowError": 1}


def test_kill_9_loses_no_record_whose_call_returned() -> None:
    """Every record that the killed process was told is logged is in the file, whole."""
    program = """
import sys
from ml_pipeline.config.logging_config import main_logger
number = 0
while True:
    main_logger.info("%d", number)
    sys.stdout.write(f"{number}\\n")
    sys.stdout.flush()
    number += 1
"""
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    told = [writer.stdout.readline() for _ in range(100)]
    writer.send_signal(signal.SIGKILL)
    told += list(writer.stdout)
    writer.stdout.close()
    writer.wait()
    told = [line.strip() for line in told if line.endswith("\n")]
    written = _messages()
    assert written[: len(told)] == told
    assert written == [str(number) for number in range(len(written))]


def test_records_are_counted_by_channel_and_level() -> None:
    """What was written is counted; errors are known at 0 beforehand, so that the first one is an increase."""
    main_logger.info("one")
    get_logger("training.model_training", "t").error("two")
    counted = {key: count for key, count in _runtime.tally.log_records.items() if count}
    assert counted == {
        ("ml_pipeline", "INFO"): 1,
        ("training.model_training", "ERROR"): 1,
        ("errors", "ERROR"): 1,
    }
    zero = {key for key, count in _runtime.tally.log_records.items() if not count}
    assert {(channel, level) for channel in WRITABLE for level in ("ERROR", "CRITICAL")} - counted.keys() <= zero


def test_a_change_of_folder_holds_from_the_next_record() -> None:
    """Loggers made before `configure` write to the new folder after it."""
    logger = get_logger("training.model_training", "t")
    logger.info("old")
    ml_pipeline.configure(log_dir="elsewhere")
    logger.info("new")
    assert _messages("training/model_training.log") == ["old"]
    assert [line["message"] for line in _lines("training/model_training.log", Path("elsewhere"))] == ["new"]


def test_a_filter_of_our_handler_counts() -> None:
    """A filter that someone adds to the handler keeps records from the files."""
    (handler,) = main_logger.handlers
    kept = logging.Filter("ml_pipeline.kept")
    handler.addFilter(kept)
    try:
        logging.getLogger("ml_pipeline.kept").info("in")
        logging.getLogger("ml_pipeline.other").info("out")
    finally:
        handler.removeFilter(kept)
    assert _messages() == ["in"]


def test_loggers_can_be_pickled() -> None:
    """A logger travels to a process pool by its name, as any logger does."""
    import pickle

    for logger in (main_logger, audit_logger, get_logger("training.model_training", "t")):
        assert pickle.loads(pickle.dumps(logger)) is logger
