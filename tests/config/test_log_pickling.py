"""Loggers that travel: to a worker that has never heard of this package, by their pickled form."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline.config.logging_config import AuditLogger, PipelineLogger, audit_logger, get_logger, main_logger
from tests.processes import run_python

LOGS = Path("ml_pipeline/logs")

WORKER = """
import pickle, sys
from pathlib import Path
for log in pickle.loads(Path(sys.argv[1]).read_bytes()):
    log.info("from %s", type(log).__name__)
"""


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (LOGS / name).read_bytes().splitlines()]


def test_a_worker_that_has_not_imported_us_writes_where_its_parent_does() -> None:
    """What it unpickles is a logger of ours, of the same channel and shown name; the audit trail is no exception."""
    ml_pipeline.configure(log_console="off")
    trained = get_logger("training.model_training", "my.app")
    loggers = (main_logger, audit_logger, trained, trained.getChild("below"), get_logger("ml_pipeline", "audit"))
    Path("loggers").write_bytes(pickle.dumps(loggers))
    done = run_python(WORKER, "loggers")
    assert (done.returncode, done.stderr) == (0, "")
    assert [(line["logger"], line["message"]) for line in _lines("training/model_training.log")] == [
        ("my.app", "from DirectLogger"),
        ("my.app.below", "from DirectLogger"),
    ]
    assert [line["logger"] for line in _lines("ml_pipeline.log")] == ["ml_pipeline", "audit"]
    assert [line["message"] for line in _lines("audit.log")] == ["from DirectAuditLogger"]


def test_at_home_it_is_the_same_logger() -> None:
    """One that goes through a pickle and back in one process is itself, whatever its class adds."""

    class Own(logging.Logger):
        pass

    logging.setLoggerClass(Own)
    try:
        own = get_logger("pipeline.data_quality", "own")
    finally:
        logging.setLoggerClass(logging.Logger)
    for logger in (own, get_logger("ml_pipeline", "audit"), main_logger.getChild("a.b"), audit_logger):
        assert pickle.loads(pickle.dumps(logger)) is logger
        assert isinstance(logger, AuditLogger if logger is audit_logger else PipelineLogger)


def test_one_that_is_no_more_the_logger_of_its_name_is_refused() -> None:
    """As `logging` refuses it: the other process would get another one."""
    with pytest.raises(pickle.PicklingError, match="logger cannot be pickled"):
        pickle.dumps(type(main_logger)("ml_pipeline"))
