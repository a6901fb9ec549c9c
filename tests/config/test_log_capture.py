"""Capture: other loggers, warnings and uncaught exceptions come through, once, with the current ids."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.config.logging_config import configure_logging, main_logger
from ml_pipeline.config.operation_logger import operation_logger

LOGS = Path("ml_pipeline/logs")


@pytest.fixture
def capturing() -> Iterator[None]:
    """Capture is on during the test, asked for twice."""
    configure_logging(capture=True)
    configure_logging(capture=True)
    yield
    configure_logging(capture=False)


def _lines(name: str = "ml_pipeline.log") -> list[dict[str, Any]]:
    path = LOGS / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def test_off_until_it_is_asked_for() -> None:
    """Without capture, another library's record is not ours to write."""
    logging.getLogger("airflow.task").warning("not captured")
    assert _lines() == []


@pytest.mark.usefixtures("capturing")
def test_foreign_records_once_with_ids() -> None:
    """A record of another logger lies once in the main log, under its own name, with the operation around it."""
    with operation_logger.operation("custom", "work") as op:
        logging.getLogger("airflow.task").warning("captured")
    (line,) = [line for line in _lines() if line["message"] == "captured"]
    assert (line["logger"], line["channel"], line["operation_id"]) == ("airflow.task", "ml_pipeline", op.operation_id)


@pytest.mark.usefixtures("capturing")
def test_our_own_records_are_not_doubled() -> None:
    """What our own handler has written is not written again by capture."""
    main_logger.warning("ours")
    assert [line["message"] for line in _lines()].count("ours") == 1


@pytest.mark.usefixtures("capturing")
def test_errors_of_others_are_in_errors_log() -> None:
    """ERROR and up of other loggers lie in errors.log too."""
    logging.getLogger("some.library").error("broken")
    assert [line["message"] for line in _lines("errors.log")] == ["broken"]


def test_warnings_are_captured() -> None:
    """`warnings.warn` becomes a record of the logger py.warnings."""
    with warnings.catch_warnings():  # capture replaces showwarning, which this puts back
        warnings.simplefilter("always")
        configure_logging(capture=True)
        warnings.warn("old argument", DeprecationWarning, stacklevel=1)
        configure_logging(capture=False)
    (line,) = _lines()
    assert line["logger"] == "py.warnings"
    assert "old argument" in line["message"]


def test_warnings_that_the_program_captures_stay_captured() -> None:
    """Stopping ends what starting began: a handler of the program's at ``py.warnings`` goes on to hear them."""
    heard: list[str] = []
    theirs = logging.Handler()
    theirs.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("py.warnings")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(capture=True)
        logger.addHandler(theirs)
        configure_logging(capture=True)
        configure_logging(capture=False)
        warnings.warn("old argument", DeprecationWarning, stacklevel=1)
        logger.removeHandler(theirs)
        logging.captureWarnings(capture=False)
    (text,) = heard
    assert "old argument" in text
    assert _lines() == []


def test_hooks_are_put_back() -> None:
    """Stopping restores the exception hooks and the root logger's handlers."""
    before = (sys.excepthook, list(logging.getLogger().handlers))
    configure_logging(capture=True)
    assert sys.excepthook != before[0]
    configure_logging(capture=False)
    assert (sys.excepthook, list(logging.getLogger().handlers)) == before


def test_an_uncaught_exception_is_logged_and_still_shown(isolated: Path) -> None:
    """The traceback is in errors.log and on stderr as ever; an exception in a thread likewise."""
    program = (
        "import threading\n"
        "from ml_pipeline.config.logging_config import configure_logging\n"
        "configure_logging(capture=True)\n"
        "thread = threading.Thread(target=lambda: {}['missing'], name='loader'); thread.start(); thread.join()\n"
        "raise ValueError('nobody caught me')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "nobody caught me" in done.stderr
    told = {line["message"]: line["exception"]["type"] for line in _lines("errors.log")}
    assert told == {"Uncaught exception in loader": "KeyError", "Uncaught exception": "ValueError"}
    assert [(line["file"], line["line"], line["function"]) for line in _lines("errors.log")] == [
        ("<string>", 4, "<lambda>"), ("<string>", 5, "<module>")
    ]  # fmt: skip
