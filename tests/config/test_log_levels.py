"""Levels per channel and per module: from the settings, from `ml-pipeline logs level`, on SIGHUP."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.cli import main
from ml_pipeline.config._log_levels import Told, taken_for_module, tell_level, told_levels
from ml_pipeline.config.logging_config import audit_logger, configure_logging, get_logger, main_logger
from ml_pipeline.errors import SettingsError
from tests.support import eventually

LOGS = Path("ml_pipeline/logs")
DATA = Path("ml_pipeline/data_storage")


def _messages(name: str = "ml_pipeline.log") -> list[str]:
    path = LOGS / name
    return [json.loads(line)["message"] for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _levels(*names: str) -> list[int]:
    return [logging.getLogger(name).getEffectiveLevel() for name in names]


def test_a_group_a_channel_and_a_module() -> None:
    """Each has its level, the module's wins, and everything else keeps LOG_LEVEL."""
    ml_pipeline.configure(log_levels="training=WARNING,training.model_training=DEBUG,my=ERROR,my.module=CRITICAL")
    for channel, name in (
        ("training.model_training", "a"),
        ("training.data_preprocessing", "a"),
        ("training.model_training", "my.other"),
        ("training.model_training", "my.module.deep"),
        ("inference.predictions", "mine"),
    ):
        logger = get_logger(channel, name)
        for level in ("debug", "info", "warning", "error", "critical"):
            getattr(logger, level)(f"{name} {level}")
    assert _messages("training/data_preprocessing.log") == ["a warning", "a error", "a critical"]
    assert _messages("inference/predictions.log") == [
        f"mine {each}" for each in ("info", "warning", "error", "critical")
    ]
    assert _messages("training/model_training.log") == [
        *(f"a {each}" for each in ("debug", "info", "warning", "error", "critical")),
        *(f"my.other {each}" for each in ("error", "critical")),
        "my.module.deep critical",
    ]


def test_a_logger_made_later_follows() -> None:
    """By `get_logger`, `getChild` or `logging.getLogger`, ours or another library's."""
    ml_pipeline.configure(log_levels="my.module=DEBUG,noisy=ERROR")
    main_logger.info("in force")
    late = get_logger("inference.predictions", "my.module.late")
    assert late.isEnabledFor(logging.DEBUG)
    assert late.getChild("child").isEnabledFor(logging.DEBUG)
    assert _levels("ml_pipeline.my.module.x", "my.module", "noisy.sub") == [logging.DEBUG, logging.DEBUG, logging.ERROR]


def test_everything_by_its_name() -> None:
    """``ml_pipeline`` is every logger, as LOG_LEVEL is."""
    ml_pipeline.configure(log_levels="ml_pipeline=DEBUG")
    main_logger.debug("seen")
    assert _messages() == ["seen"]


def test_a_level_that_a_program_set_stays() -> None:
    """Neither the settings nor the command overwrite it, and it survives `configure`."""
    logger, other = get_logger("training.model_training", "own"), logging.getLogger("own.library")
    logger.setLevel(logging.ERROR)
    other.setLevel(logging.CRITICAL)
    ml_pipeline.configure(log_levels="training=DEBUG,own=DEBUG,own.library=DEBUG")
    main_logger.info("in force")
    tell_level(DATA, "own", "INFO")
    ml_pipeline.configure(log_max_bytes=20_000)
    main_logger.info("in force")
    assert (logger.level, other.level) == (logging.ERROR, logging.CRITICAL)
    logger.setLevel(logging.NOTSET)
    other.setLevel(logging.NOTSET)


def test_what_was_set_is_taken_back() -> None:
    """After `configure` without a level, its loggers are as they were."""
    ml_pipeline.configure(log_levels="training=DEBUG,library=ERROR")
    main_logger.info("in force")
    assert _levels("ml_pipeline.training", "library") == [logging.DEBUG, logging.ERROR]
    ml_pipeline.configure(log_levels="")
    main_logger.info("in force")
    assert _levels("ml_pipeline.training") == [logging.INFO]
    assert logging.getLogger("library").level == logging.NOTSET


def test_the_audit_trail_has_no_level() -> None:
    """It is refused, and every audit record is written."""
    ml_pipeline.configure(log_levels="ml_pipeline=CRITICAL")
    audit_logger.info("deployed")
    assert "deployed" in _messages("audit.log")
    with pytest.raises(
        SettingsError, match=re.escape("the audit trail has no level: every record is written (got 'audit')")
    ):
        tell_level(DATA, "audit", "INFO")


def test_told_levels_are_noticed_on_the_way_of_a_record() -> None:
    """Within a second of records; what is told wins over the settings, and is taken back."""
    ml_pipeline.configure(log_levels="training=ERROR")
    logger = get_logger("training.model_training", "t")
    main_logger.info("before")
    assert main(["logs", "level", "training", "debug"]) == 0

    def is_noticed() -> bool:
        main_logger.info("tick")
        return logger.isEnabledFor(logging.DEBUG)

    started = time.monotonic()
    eventually(is_noticed)
    assert time.monotonic() - started < 5
    assert main(["logs", "level", "training", "default"]) == 0
    eventually(lambda: not is_noticed())
    assert logger.getEffectiveLevel() == logging.ERROR


def test_only_the_process_that_is_meant() -> None:
    """A level for another process is not ours; one for us is, unless the id was used again since."""
    tell_level(DATA, "training", "DEBUG", os.getppid())
    tell_level(DATA, "inference", "DEBUG", os.getpid())
    main_logger.info("in force")
    assert _levels("ml_pipeline.training", "ml_pipeline.inference") == [logging.INFO, logging.DEBUG]
    rows = [row._replace(start="1") for row in told_levels(DATA)]
    (DATA / "log_levels.json").write_text(json.dumps([row._asdict() for row in rows]), encoding="utf-8")
    ml_pipeline.configure(log_max_bytes=20_000)
    main_logger.info("in force")
    assert _levels("ml_pipeline.inference") == [logging.INFO]


def test_the_command_lists_what_was_told(capsys: pytest.CaptureFixture[str]) -> None:
    """It says which processes are meant and which folder they use."""
    assert main(["logs", "level", "my.module", "warning"]) == 0
    assert main(["logs", "level", "training", "info", "--pid", str(os.getpid())]) == 0
    said = capsys.readouterr()
    noticed = (
        "note: a process notices with the next record that it writes, within a second; one that writes none at its "
        "level notices only if it called configure_logging(reload=True)\n"
    )
    assert said.err == "note: there is no channel my.module: it is taken for a module\n" + noticed * 2
    assert said.out.splitlines() == [
        f"my.module: WARNING, for every process that uses {DATA.absolute()}",
        f"training: INFO, for process {os.getpid()} that uses {DATA.absolute()}",
    ]
    assert main(["logs", "level"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
    assert rows == [["my.module", "WARNING", "all"], ["training", "INFO", str(os.getpid())]]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("trainin", "there is no channel trainin (did you mean 'training'?): it is taken for a module"),
        ("airflo", "there is no channel airflo (did you mean 'airflow'?): it is taken for a module"),
        ("sklearn", "there is no channel sklearn: it is taken for a module"),
        *((known, None) for known in ("training", "training.model_training", "ml_pipeline", "airflow", "airflow.dag")),
    ],
)
def test_a_name_that_is_no_channel_is_said(name: str, hint: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    """It may be a module that only another process knows, so it is told all the same."""
    assert taken_for_module(name) == hint
    assert main(["logs", "level", name, "DEBUG"]) == 0
    assert (f"note: {hint}\n" in capsys.readouterr().err) == (hint is not None)
    assert main(["logs", "level", name, "default"]) == 0
    assert "no channel" not in capsys.readouterr().err


def test_processes_that_are_gone_are_forgotten() -> None:
    """The file does not grow with every process that ever was."""
    ended = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    tell_level(DATA, "training", "DEBUG", ended.pid)
    ended.communicate(b"\n")
    tell_level(DATA, "inference", "DEBUG")
    assert told_levels(DATA) == [Told("inference", "DEBUG")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["level", "training"], "give a channel and a level, as in `ml-pipeline logs level training DEBUG`"),
        (["level", "training", "LOUD"], "a level must be one of the known names (got 'LOUD'); known: CRITICAL, DEBUG"),
        (["level", "training", "DEBG"], "a level must be one of the known names (got 'DEBG'); did you mean 'DEBUG'?"),
        (["level", "a b", "DEBUG"], "a level is for a channel or a module (got 'a b'); must be levels like training="),
        (["level", "audit", "DEBUG"], "the audit trail has no level: every record is written (got 'audit')"),
        (["level", "x", "DEBUG", "--pid", "999999999"], "--pid must be the id of a running process (got 999999999)"),
        (["--pid", "1"], "--pid goes with `ml-pipeline logs level CHANNEL LEVEL`"),
    ],
)
def test_the_command_refuses_clearly(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Rule, value and remedy; and nothing is told."""
    assert main(["logs", *arguments]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert told_levels(DATA) == []


@pytest.mark.parametrize("content", ["", "{}", "[1]", '[{"name": "x"}]', '[{"name": "audit", "level": "INFO"}]', "\xff[",
                                     '[{"name": "x", "level": "LOUD"}]', '[{"name": 3, "level": "INFO"}]'])  # fmt: skip
def test_a_file_that_is_none_of_ours(content: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It is said once and passed over: the records go on under the levels of the settings."""
    ml_pipeline.configure(strict=False)
    DATA.mkdir(parents=True)
    (DATA / "log_levels.json").write_bytes(content.encode("latin-1"))
    main_logger.info("in force")
    assert _messages() == ["in force"]
    if content != "{}":  # which tells nothing
        assert (
            capsys.readouterr().err.count("the levels that were told must be as `ml-pipeline logs level` writes") == 1
        )
        assert _runtime.tally.telemetry_errors == {("log_levels", "SettingsError"): 1}


def test_two_commands_at_once_lose_nothing() -> None:
    """Each waits for the other."""
    threads = [threading.Thread(target=tell_level, args=(DATA, f"m{each}", "INFO")) for each in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(each.name for each in told_levels(DATA)) == sorted(f"m{each}" for each in range(12))


@pytest.fixture
def reloading() -> Any:
    """SIGHUP reads the settings again during the test."""
    configure_logging(reload=True)
    configure_logging(reload=True)
    yield
    configure_logging(reload=False)


@pytest.mark.usefixtures("reloading")
def test_sighup_reads_the_file_again() -> None:
    """What `.env` says now is in force shortly after the signal, without a record."""
    main_logger.info("in force")
    Path(".env").write_text("ML_PIPELINE_LOG_LEVELS=training=DEBUG\n", encoding="utf-8")
    os.kill(os.getpid(), signal.SIGHUP)
    logger = get_logger("training.model_training", "t")
    eventually(lambda: logger.isEnabledFor(logging.DEBUG))
    logger.debug("seen")
    assert _messages("training/model_training.log") == ["seen"]


@pytest.mark.usefixtures("reloading")
def test_a_mistake_in_the_file_changes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """It is said, and the settings stay as they were."""
    ml_pipeline.configure(strict=False)
    main_logger.info("in force")
    Path(".env").write_text("ML_PIPELINE_LOG_LEVEL=LOUD\n", encoding="utf-8")
    os.kill(os.getpid(), signal.SIGHUP)
    said = "ML_PIPELINE_LOG_LEVEL"
    seen: list[str] = []
    eventually(lambda: seen.append(capsys.readouterr().err) or said in "".join(seen))
    main_logger.info("still")
    assert _messages() == ["in force", "still"]


@pytest.mark.usefixtures("reloading")
def test_a_silent_process_notices_too() -> None:
    """While the settings are reloaded, told levels are noticed without any record."""
    main_logger.info("in force")
    logger = get_logger("training.model_training", "t")
    tell_level(DATA, "training", "DEBUG")
    eventually(lambda: logger.isEnabledFor(logging.DEBUG), seconds=10)


def test_the_handler_before_is_called_and_put_back() -> None:
    """Another's SIGHUP handler still gets the signal, and has it alone afterwards."""
    told: list[int] = []

    def before(number: int, _: object) -> None:
        told.append(number)

    original = signal.signal(signal.SIGHUP, before)
    try:
        configure_logging(reload=True)
        os.kill(os.getpid(), signal.SIGHUP)
        eventually(lambda: told)
        configure_logging(reload=False)
        configure_logging(reload=False)
        assert signal.getsignal(signal.SIGHUP) is before
        assert not [each for each in threading.enumerate() if each.name == "ml-pipeline-log-reload"]
    finally:
        signal.signal(signal.SIGHUP, original)


def test_reload_belongs_to_the_main_thread() -> None:
    """Elsewhere it is refused clearly."""
    refused: list[SettingsError] = []

    def ask() -> None:
        try:
            configure_logging(reload=True)
        except SettingsError as error:
            refused.append(error)

    thread = threading.Thread(target=ask, name="worker")
    thread.start()
    thread.join()
    assert str(refused[0]) == "reload=True must be asked for in the main thread (got 'worker'); ask there"


def test_a_forked_child_has_the_levels() -> None:
    """It reads them anew, and its parent keeps its own."""
    ml_pipeline.configure(log_levels="training=DEBUG")
    main_logger.info("in force")
    child = os.fork()
    if child == 0:
        get_logger("training.model_training", "t").debug("of the child")
        os._exit(0)
    _, status = eventually(lambda: (ended := os.waitpid(child, os.WNOHANG))[0] and ended)
    assert os.waitstatus_to_exitcode(status) == 0
    assert _messages("training/model_training.log") == ["of the child"]
    assert _levels("ml_pipeline.training") == [logging.DEBUG]
