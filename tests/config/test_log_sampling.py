"""A noisy call site is held back on request: counted, said, and never in the audit trail."""

from __future__ import annotations

import json
import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._log_sampling import HeldBack, Limit
from ml_pipeline.config.logging_config import audit_logger, get_logger, main_logger
from ml_pipeline.config.operation_logger import operation_logger
from ml_pipeline.errors import SettingsError
from tests.support import eventually

LOGS = Path("ml_pipeline/logs")
SITE = ("ml_pipeline", "a.py", 3, 20)


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        """The time."""
        return self.now


def _lines(name: str = "ml_pipeline.log") -> list[dict[str, Any]]:
    path = LOGS / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _messages(name: str = "ml_pipeline.log") -> list[str]:
    return [line["message"] for line in _lines(name)]


def test_off_by_default() -> None:
    """Every record is written."""
    for number in range(500):
        main_logger.info("row %d", number)
    assert len(_lines()) == 500
    assert not _runtime.tally.log_records_dropped


def test_the_setting_limits_each_call_site_alone() -> None:
    """A burst of as many, then the rate; other sites, operations and the audit trail are whole; the rest is said."""
    ml_pipeline.configure(log_records_per_second=0.001)
    main_logger.info("opens")
    for number in range(50):
        main_logger.info("noisy %d", number)
        audit_logger.info("audited")
    with operation_logger.operation("custom", "work"):
        main_logger.warning("quiet")
    _runtime.shutdown()
    assert [message for message in _messages() if message.startswith("noisy")] == ["noisy 0"]
    assert "quiet" in _messages()
    assert {"work started"} <= set(_messages())
    assert _messages("audit.log").count("audited") == 50
    assert _runtime.tally.log_records_dropped == {"sampled": 49}
    (said,) = [line for line in _lines() if "held back" in line["message"]]
    assert said["message"].startswith("49 records of test_log_sampling.py:")
    assert said["level"] == "INFO"


def test_the_setting_can_be_taken_back() -> None:
    """After `configure` without it, everything passes, on the short way."""
    ml_pipeline.configure(log_records_per_second=0.001)
    main_logger.info("opens")
    ml_pipeline.configure(log_records_per_second=None)
    for number in range(5):
        main_logger.info("row %d", number)
    assert _messages() == ["opens", *(f"row {number}" for number in range(5))]
    assert main_logger.handlers[0].filters == []


def test_handlers_of_ones_own_see_every_record(caplog: pytest.LogCaptureFixture) -> None:
    """Only what our files get is limited."""
    ml_pipeline.configure(log_records_per_second=0.001)
    main_logger.info("opens")
    for number in range(9):
        main_logger.info("row %d", number)
    assert len([record for record in caplog.records if record.getMessage().startswith("row")]) == 9
    assert len(_messages()) == 2


def test_one_in_so_many() -> None:
    """The first, then every tenth; a view shares its count with others of the same kind."""
    for number in range(25):
        main_logger.limit(every=10).info("row %d", number)
    _runtime.shutdown()
    assert _messages()[:3] == ["row 0", "row 10", "row 20"]
    assert _messages()[3].startswith("22 records of test_log_sampling.py:")
    assert _runtime.tally.log_records_dropped == {"sampled": 22}


def test_a_rate_by_view() -> None:
    """The burst passes, the rest does not, each line of code for itself; the place on the line is the caller's."""
    logger = get_logger("training.model_training", "t").limit(per_second=0.001)
    for number in range(5):
        logger.info("one %d", number)
        logger.info("other %d", number)
    first, second = _lines("training/model_training.log")
    assert (first["message"], second["message"]) == ("one 0", "other 0")
    assert first["function"] == "test_a_rate_by_view"
    assert second["line"] == first["line"] + 1


def test_what_is_disabled_is_not_counted() -> None:
    """A DEBUG record that would not be written is not held back."""
    for _ in range(5):
        main_logger.limit(every=2).debug("x")
    assert not _runtime.tally.log_records_dropped


def test_a_bucket_refills() -> None:
    """After the burst, one record per interval, however long it was quiet before."""
    clock = Clock()
    limit = Limit(2.0, None, lambda _: None, clock=clock)
    assert [limit.passes(SITE) for _ in range(4)] == [True, True, False, False]
    clock.now += 0.5
    assert [limit.passes(SITE) for _ in range(2)] == [True, False]
    clock.now += 1_000
    assert [limit.passes(SITE) for _ in range(4)] == [True, True, False, False]


def test_what_was_held_back_is_said_every_ten_seconds() -> None:
    """Not at every record; and what is left at the end."""
    clock = Clock()
    told: list[HeldBack] = []
    limit = Limit(1.0, None, told.append, clock=clock)
    for _ in range(200):
        limit.passes(SITE)
        clock.now += 0.1
    limit.close()
    limit.close()
    assert [each.seconds for each in told] == pytest.approx([10.0, 10.0], abs=0.2)
    passed = 200 - sum(each.records for each in told)
    assert passed in (20, 21)


def test_a_site_more_than_the_most_is_said_and_forgotten() -> None:
    """The table of call sites is bounded."""
    told: list[HeldBack] = []
    limit = Limit(None, 2, told.append, clock=Clock())
    for number in range(1_001):
        limit.passes(("x", "a.py", number, 20))
        limit.passes(("x", "a.py", number, 20))
    assert len(told) == 1_000


@given(st.lists(st.floats(0, 5), max_size=200), st.floats(0.1, 20))
def test_never_more_than_the_rate(pauses: list[float], rate: float) -> None:
    """In any span, at most a burst and the rate times the span pass, and what does not pass is counted."""
    clock, told = Clock(), list[HeldBack]()
    limit = Limit(rate, None, told.append, clock=clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        passed += limit.passes(SITE)
    limit.close()
    assert passed <= max(rate, 1) + rate * sum(pauses) + 1e-6
    assert passed + sum(each.records for each in told) == len(pauses)


def test_many_threads_lose_no_count() -> None:
    """Passed and held back together are all of them."""
    limited = main_logger.limit(every=7)

    def work() -> None:
        for _ in range(500):
            limited.info("x")

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(_lines()) == 286  # of 2,000 the first of each seven
    assert _runtime.tally.log_records_dropped == {"sampled": 2_000 - 286}


def test_a_forked_child_counts_for_itself() -> None:
    """Its parent's lock and counts stay behind, and so does the filter."""
    ml_pipeline.configure(log_records_per_second=0.001)
    main_logger.info("opens")
    child = os.fork()
    if child == 0:
        for _ in range(3):
            main_logger.info("of the child")
        os._exit(len(main_logger.handlers[0].filters))
    _, status = eventually(lambda: (ended := os.waitpid(child, os.WNOHANG))[0] and ended)
    assert os.waitstatus_to_exitcode(status) == 1
    assert _messages() == ["opens", "of the child"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "a limit needs a rate or a ratio; as in per_second=5, or every=100"),
        ({"per_second": 0}, "per_second must be a number > 0 (got 0); as in per_second=5"),
        ({"per_second": float("inf")}, "per_second must be a number > 0 (got inf); as in per_second=5"),
        ({"per_second": "5"}, "per_second must be a number > 0 (got '5'); as in per_second=5"),
        ({"every": 0}, "every must be a whole number >= 1 (got 0); as in every=100"),
        ({"every": True}, "every must be a whole number >= 1 (got True); as in every=100"),
        ({"per_second": True}, "per_second must be a number > 0 (got True); as in per_second=5"),
        ({"every": 2.5}, "every must be a whole number >= 1 (got 2.5); as in every=100"),
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    """At once, not at a record."""
    with pytest.raises(SettingsError) as refused:
        main_logger.limit(**arguments)
    assert str(refused.value) == message


def test_the_audit_trail_is_never_sampled() -> None:
    """Neither the logger nor a view of it can be limited."""
    for logger in (audit_logger, audit_logger.bind(user_id="u")):
        with pytest.raises(SettingsError, match="the audit trail is never sampled"):
            logger.limit(every=2)  # type: ignore[attr-defined]
    assert logging.getLogger("ml_pipeline.audit").filters == []
