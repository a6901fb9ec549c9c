"""Records of loguru's own logger come in through one line: once, with the current ids."""

from __future__ import annotations

import datetime as dt
import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from loguru import logger as theirs

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config.logging_config import capture_sink, configure_logging, main_logger
from ml_pipeline.config.operation_logger import operation_logger

LOGS = Path("ml_pipeline/logs")


class Handed(str):
    """What loguru hands to a function: a text with its record."""

    __slots__ = ("record",)


def _message(text: str = "hello", level: int = 20, name: str = "INFO", **changes: Any) -> Handed:
    handed = Handed(f"2026-11-21 | {name} | {text}\n")
    handed.record = {  # type: ignore[attr-defined]
        "elapsed": dt.timedelta(seconds=1),
        "exception": None,
        "extra": {},
        "file": SimpleNamespace(name="app.py", path="/srv/app.py"),
        "function": "work",
        "level": SimpleNamespace(name=name, no=level, icon=""),
        "line": 12,
        "message": text,
        "module": "app",
        "name": "app.jobs",
        "process": SimpleNamespace(id=99, name="MainProcess"),
        "thread": SimpleNamespace(id=1, name="worker"),
        "time": dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC),
        **changes,
    }
    return handed


def _lines(name: str = "ml_pipeline.log") -> list[dict[str, Any]]:
    path = LOGS / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def test_a_record_as_a_line_of_ours() -> None:
    """Moment, level, place and thread are loguru's; the ids are those around it; what was bound is context."""
    with operation_logger.operation("custom", "work") as op:
        capture_sink(_message("100%", extra={"rows": 3, "user_id": "u1", "api_token": "hunter2"}))
    (line,) = [each for each in _lines() if each["logger"] == "app.jobs"]
    assert (line["timestamp"], line["level"], line["message"]) == ("2026-11-21T12:00:00.000000Z", "INFO", "100%")
    assert (line["file"], line["line"], line["function"]) == ("/srv/app.py", 12, "work")
    assert (line["thread"], line["process"]) == ("worker", 99)
    assert (line["operation_id"], line["user_id"]) == (op.operation_id, "u1")
    assert line["context"] == {"rows": 3, "api_token": "[redacted]"}


def test_levels_and_exceptions() -> None:
    """The levels that loguru adds keep their names; an exception is told; ERROR and up lie in errors.log too."""
    try:
        int("x")
    except ValueError as error:
        caught = SimpleNamespace(type=type(error), value=error, traceback=error.__traceback__)
    capture_sink(_message(level=25, name="SUCCESS"))
    capture_sink(_message(level=40, name="ERROR", exception=caught))
    assert [line["level"] for line in _lines()] == ["SUCCESS", "ERROR"]
    (line,) = _lines("errors.log")
    assert line["exception"]["type"] == "ValueError"
    assert "Traceback" in line["exception"]["stacktrace"]


def test_never_twice() -> None:
    """A record that came to loguru from `logging` is written once: ours by our handler, others by capture if it is on."""

    class Intercept(logging.Handler):
        """What programs use to send everything to loguru."""

        def emit(self, record: logging.LogRecord) -> None:
            capture_sink(_message(record.getMessage(), name=record.levelname))

    intercept = Intercept()
    logging.getLogger().addHandler(intercept)
    try:
        main_logger.warning("ours")
        logging.getLogger("library").warning("theirs")
        configure_logging(capture=True)
        main_logger.warning("ours too")
        logging.getLogger("library").warning("theirs too")
    finally:
        configure_logging(capture=False)
        logging.getLogger().removeHandler(intercept)
    assert [line["message"] for line in _lines()] == ["ours", "theirs", "ours too", "theirs too"]


@pytest.mark.parametrize("broken", [{"extra": 3}, {"time": "noon"}, {"exception": 3}])
def test_what_is_no_record_raises_nothing(broken: dict[str, Any]) -> None:
    """It is counted; loguru and the job go on."""
    ml_pipeline.configure(strict=False)
    capture_sink(_message(**broken))
    capture_sink("a text alone\n")
    assert [line["message"] for line in _lines()] == ["a text alone"]
    assert sum(_runtime.tally.telemetry_errors.values()) == 1


def test_the_real_loguru() -> None:
    """One line brings its records in: those of `bind` with their fields, those of `exception` with the exception."""
    theirs.remove()
    number = theirs.add(capture_sink, level="INFO")
    with operation_logger.operation("custom", "work") as op:
        theirs.debug("no")
        theirs.bind(rows=3).info("hello {}", "you")
        try:
            int("x")
        except ValueError:
            theirs.exception("failed")
    theirs.remove(number)
    first, second = [line for line in _lines() if line["logger"] == __name__]
    assert (first["message"], first["context"], first["operation_id"]) == ("hello you", {"rows": 3}, op.operation_id)
    assert first["function"] == "test_the_real_loguru"
    assert (second["level"], second["exception"]["type"]) == ("ERROR", "ValueError")
