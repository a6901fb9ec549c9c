"""catch: an exception is logged where it is caught, with the values that led to it."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._log_catch import exception_text, level_number
from ml_pipeline.config.logging_config import get_logger, main_logger
from ml_pipeline.errors import OperationStateError, SettingsError

LOGS = Path("ml_pipeline/logs")


class Unprintable:
    """Cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Mute(type):
    """A class that tells nothing."""

    def __getattribute__(cls, name: str) -> Any:
        """Refuse."""
        raise RuntimeError(name)


class Liar:
    """Has no class that it would tell."""

    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise RuntimeError("no class")


def _lines(name: str = "ml_pipeline.log") -> list[dict[str, Any]]:
    path = LOGS / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def _divide(rows: float, password: str = "hunter2") -> float:
    options = {"db_password": password, "depth": 3}
    return rows / (len(options) - 2)


def test_a_block_is_logged_and_left() -> None:
    """The line stands at ERROR, in errors.log too, with the place of the block and the exception's type and message."""
    with main_logger.catch():
        _divide(5)
    (line,) = _lines()
    assert (line["level"], line["message"]) == ("ERROR", "An exception was caught in test_a_block_is_logged_and_left")
    assert (Path(line["file"]).name, line["function"]) == ("test_log_catch.py", "test_a_block_is_logged_and_left")
    assert (line["exception"]["type"], line["exception"]["message"]) == (
        "ZeroDivisionError",
        "float division by zero"[6:],
    )
    assert _lines("errors.log") == [line]


def test_values_are_shown_and_secrets_are_not() -> None:
    """Below each line of code stand its variables; what a name hides in a field it hides here, at any depth."""
    with main_logger.catch():
        _divide(5)
    stack = _lines()[0]["exception"]["stacktrace"]
    assert "    rows = 5\n" in stack
    assert '    password = "[redacted]"\n' in stack
    assert '    options = {"db_password":"[redacted]","depth":3}\n' in stack
    for path in LOGS.rglob("*.log"):
        assert b"hunter2" not in path.read_bytes()


def test_patterns_hold_for_values_too() -> None:
    """REDACT_PATTERNS hides matches wherever they stand in the text."""
    ml_pipeline.configure(redact_patterns=("sk-[a-z]+",))
    key = "the key is sk-abc"
    with main_logger.catch():
        raise ValueError(f"bad {key}")
    (line,) = _lines()
    assert line["exception"]["message"] == "bad the key is [redacted]"
    assert "sk-abc" not in json.dumps(line)


def test_credentials_in_an_address_are_not_shown() -> None:
    """A connection text is shown without its user and password."""
    address = "postgres://ml:s3cret@db/ml"
    with main_logger.catch():
        raise ValueError(len(address))
    assert 'address = "postgres://***@db/ml"' in _lines()[0]["exception"]["stacktrace"]


def test_features_are_personal_data() -> None:
    """Arrays, and what is called features, are shown only where LOG_FEATURES is full."""
    for shown in ("hashed", "full"):
        ml_pipeline.configure(log_features=shown)
        features, row, score = {"age": 71}, np.array([71.5, 2.0]), np.float64(0.5)
        with main_logger.catch():
            raise ValueError(len(features) + row.size + score)
    hashed, full = (line["exception"]["stacktrace"] for line in _lines())
    assert 'features = "<dict: not shown unless ML_PIPELINE_LOG_FEATURES is full>"' in hashed
    assert 'row = "<ndarray (2,): not shown unless ML_PIPELINE_LOG_FEATURES is full>"' in hashed
    assert "score = 0.5" in hashed
    assert 'features = {"age":71}' in full
    assert "row = [71.5,2.0]" in full


def test_hostile_values() -> None:
    """An object that cannot be printed, or lies about its class, a cycle, a megabyte: the line is whole and bounded."""
    bad, liar, text = Unprintable(), Liar(), "x" * 1_000_000
    mute = Mute("Silent", (), {})()
    cycle: list[Any] = [text]
    cycle.append(cycle)
    forged = 'a\nb\x1b[31m\u2028{"level":"INFO"}'
    with main_logger.catch():
        raise ValueError(len([bad, liar, cycle, forged, mute]))
    (line,) = _lines()
    stack = line["exception"]["stacktrace"]
    assert 'bad = "<Unprintable: RuntimeError when printed>"' in stack
    assert "liar = " in stack
    assert "mute = " in stack
    assert r"\u2028" in stack
    assert len(stack) < 5_000
    assert stack.rstrip().endswith("ValueError: 5")


def test_an_exception_that_cannot_be_printed() -> None:
    """Its type is told, and the frames."""

    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no")

    value = 3
    with main_logger.catch():
        raise MuteError(value)
    (line,) = _lines()
    assert line["exception"]["message"] == "<RuntimeError when printed>"
    assert "value = 3" in line["exception"]["stacktrace"]


def test_a_failure_to_show_values_leaves_the_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong while values are read, the exception is told as Python tells it."""

    def broken(*_: object) -> None:
        raise RuntimeError("no values")

    monkeypatch.setattr("ml_pipeline.config._log_catch.to_plain", broken)
    try:
        _divide(5)
    except ZeroDivisionError as error:
        text = exception_text(error)
    assert "return rows / (len(options) - 2)" in text
    assert "rows = 5" not in text


def test_causes_and_groups_are_told_with_their_values() -> None:
    """Each exception of the chain has its own frames and values."""

    def inner(depth: int) -> None:
        raise KeyError(depth)

    def outer(attempt: int) -> None:
        try:
            inner(attempt * 2)
        except KeyError as error:
            raise ExceptionGroup("both", [ValueError("v"), error]) from error

    with main_logger.catch():
        outer(21)
    stack = _lines()[0]["exception"]["stacktrace"]
    assert "attempt = 21" in stack
    assert "depth = 42" in stack
    assert "The above exception was the direct cause" in stack


def test_deep_recursion_is_bounded() -> None:
    """A thousand frames make no megabyte."""

    def down(level: int) -> int:
        return down(level + 1) + 1

    with main_logger.catch():
        down(0)
    (line,) = _lines()
    assert line["exception"]["type"] == "RecursionError"
    assert len(line["exception"]["stacktrace"]) < 70_000


@pytest.mark.parametrize("bare", [True, False])
def test_a_function_returns_the_default(bare: bool) -> None:
    """As a decorator with or without arguments; name, signature and docstring stay."""
    decorate: Any = main_logger.catch if bare else main_logger.catch(ZeroDivisionError, default=-1)

    @decorate
    def ratio(above: float, below: float) -> float:
        """Divide."""
        return above / below

    assert ratio(6, 3) == 2
    assert ratio(6, below=0) == (None if bare else -1)
    assert (ratio.__name__, ratio.__doc__) == ("ratio", "Divide.")
    assert list(inspect.signature(ratio).parameters) == ["above", "below"]
    (line,) = _lines()
    assert line["message"].endswith(".ratio")
    assert line["function"] == "test_a_function_returns_the_default"
    assert "/_log_catch.py" not in line["exception"]["stacktrace"]


def test_async_functions_and_generators() -> None:
    """Coroutines, generators and async generators are caught where they run, not where they are made."""

    @main_logger.catch(default="late")
    async def fetch(key: str) -> str:
        await asyncio.sleep(0)
        raise OSError(key)

    @main_logger.catch(default="end")
    def count(most: int) -> Iterator[int]:
        got = yield 1
        assert got == "sent"
        raise ValueError(most)

    @main_logger.catch
    async def stream(most: int) -> AsyncIterator[int]:
        yield most
        raise LookupError(most)

    async def run() -> tuple[str, list[int]]:
        assert inspect.iscoroutinefunction(fetch)
        return await fetch("k"), [each async for each in stream(7)]

    assert asyncio.run(run()) == ("late", [7])
    counting: Any = count(3)
    assert next(counting) == 1
    with pytest.raises(StopIteration) as ended:
        counting.send("sent")
    assert ended.value.value == "end"
    assert [line["exception"]["type"] for line in _lines()] == ["OSError", "LookupError", "ValueError"]
    assert 'key = "k"' in _lines()[0]["exception"]["stacktrace"]


def test_a_closed_generator_is_no_error() -> None:
    """GeneratorExit, a cancelled task and Ctrl-C pass: they are no ``Exception``."""
    closed = []

    @main_logger.catch
    def numbers() -> Iterator[int]:
        try:
            yield 1
        finally:
            closed.append(True)

    source = numbers()
    next(source)
    source.close()  # type: ignore[attr-defined]
    with pytest.raises(KeyboardInterrupt), main_logger.catch():
        raise KeyboardInterrupt
    assert closed == [True]
    assert _lines() == []


def test_reraise_exclude_and_onerror() -> None:
    """The exception goes on after it is logged; what is excluded goes on unlogged; onerror is told."""
    told: list[BaseException] = []
    with pytest.raises(ValueError, match="x"), main_logger.catch(reraise=True, onerror=told.append, level="warning"):
        raise ValueError("x")
    with pytest.raises(KeyError), main_logger.catch(LookupError, exclude=KeyError):
        raise KeyError("k")
    with pytest.raises(ValueError, match="y"), main_logger.catch((OSError, KeyError)):
        raise ValueError("y")
    (line,) = _lines()
    assert line["level"] == "WARNING"
    assert [str(error) for error in told] == ["x"]


def test_an_onerror_that_raises_is_counted() -> None:
    """It does not reach the job; an exit that it asks for does."""
    ml_pipeline.configure(strict=False)

    def broken(error: BaseException) -> None:
        raise RuntimeError("handler")

    def leave(error: BaseException) -> None:
        raise SystemExit(3)

    with main_logger.catch(onerror=broken):
        raise ValueError("x")
    with pytest.raises(SystemExit), main_logger.catch(onerror=leave):
        raise ValueError("x")
    assert _runtime.tally.telemetry_errors == {("log_catch", "RuntimeError"): 1}
    assert len(_lines()) == 2


def test_what_stops_the_job_stops_it() -> None:
    """An operation that cannot be audited does not run, caught or not."""
    stop = OperationStateError("no")
    stop.stops_the_job = True
    with pytest.raises(OperationStateError), main_logger.catch():
        raise stop


def test_one_object_serves_many_threads() -> None:
    """A catch has no state: nested, shared and concurrent uses do not mix."""
    caught = get_logger("training.model_training", "t").catch(message="failed in %s at 100%")

    @caught
    def work(number: int) -> None:
        with caught:
            raise ValueError(number)
        raise KeyError(number)  # after the block, which kept its own

    threads = [threading.Thread(target=work, args=(each,)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = _lines("training/model_training.log")
    assert sorted(line["exception"]["type"] for line in lines) == ["KeyError"] * 8 + ["ValueError"] * 8
    assert {line["message"] for line in lines if line["exception"]["type"] == "ValueError"} == {
        "failed in work at 100%"
    }


def test_foreign_handlers_get_the_exception(caplog: pytest.LogCaptureFixture) -> None:
    """A handler of one's own finds ``exc_info`` as after `logging.Logger.exception`."""
    with main_logger.catch():
        raise ValueError("x")
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[0] is ValueError


def test_values_on_request() -> None:
    """`opt(values=True)` shows the values in `exception` and wherever ``exc_info`` is given."""
    logger = main_logger.opt(values=True)
    try:
        _divide(9)
    except ZeroDivisionError as error:
        logger.exception("first")
        logger.warning("second", exc_info=error, extra={"n": 1})
        main_logger.exception("plain")
        text = exception_text(error)
    first, second, plain = _lines()
    assert "rows = 9" in first["exception"]["stacktrace"]
    assert "rows = 9" in second["exception"]["stacktrace"]
    assert second["context"] == {"n": 1}
    assert "rows = 9" not in plain["exception"]["stacktrace"]
    assert 'password = "[redacted]"' in text


def test_the_text_format_shows_values_on_indented_lines() -> None:
    """No value can pass for a line of the log."""
    ml_pipeline.configure(log_format="text")
    with main_logger.catch():
        _divide(5)
    lines = (LOGS / "ml_pipeline.log").read_text("utf-8").splitlines()
    assert any(line.strip() == "rows = 5" for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (lambda: main_logger.catch(3), "catch takes exception classes (got 3); as in catch((OSError, ValueError))"),
        (lambda: main_logger.catch(int), "catch takes exception classes (got <class 'int'>); as in catch((OSError, "),
        (lambda: main_logger.catch(exclude="x"), "catch takes exception classes (got 'x'); as in catch((OSError, "),
        (lambda: main_logger.catch(level="LOUD"), "a level must be a number or the name of one (got 'LOUD'); known: "),
        (lambda: main_logger.catch(level=1.5), "a level must be a number or the name of one (got 1.5); as in level="),
        (lambda: main_logger.catch()(int), "catch decorates a function, or takes exception classes (got <class 'int'>)"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_at_once(use: Any, message: str) -> None:
    """Before anything is caught."""
    with pytest.raises(SettingsError) as refused:
        use()
    assert str(refused.value).startswith(message)


def test_levels_by_name_or_number() -> None:
    """As `logging` names them, in any case."""
    assert level_number("warning") == level_number(logging.WARNING) == 30


# whose record it is


async def _failing(divisor: int = 0) -> float:
    await asyncio.sleep(0)
    return 1 / divisor


@pytest.mark.parametrize("is_view", [False, True])
def test_what_a_task_or_thread_runs_names_itself(*, is_view: bool) -> None:
    """Its caller would be a line of asyncio's or of `threading`; one who awaits it is its caller, as ever."""
    logger = main_logger.bind(batch=7).limit(every=1) if is_view else main_logger
    coroutine = logger.catch(_failing)

    async def run() -> None:
        await asyncio.create_task(coroutine())
        await coroutine()

    @logger.catch(level="WARNING")  # type: ignore[untyped-decorator, unused-ignore]
    def worked() -> None:
        int("x")

    asyncio.run(run())
    thread = threading.Thread(target=worked)
    thread.start()
    thread.join(30)
    lines = _lines()
    assert [(line["function"], line["level"]) for line in lines] == [
        ("_failing", "ERROR"), ("run", "ERROR"), ("worked", "WARNING")
    ]  # fmt: skip
    assert {Path(line["file"]).name for line in lines} == {"test_log_catch.py"}
    assert lines[0]["line"] == _failing.__code__.co_firstlineno + 2
    assert [line.get("context") for line in lines] == [{"batch": 7} if is_view else None] * 3
    assert all("Traceback" in line["exception"]["stacktrace"] for line in lines)


def test_what_a_task_runs_is_held_back_as_ever() -> None:
    """By the level and by the limit, at the place that is shown."""
    coroutine = main_logger.limit(every=2).catch(_failing)

    async def run() -> None:
        await asyncio.gather(*(asyncio.create_task(main_logger.catch(level="DEBUG")(_failing)()) for _ in range(2)))
        await asyncio.gather(*(asyncio.create_task(coroutine()) for _ in range(4)))

    asyncio.run(run())
    assert [line["function"] for line in _lines()] == ["_failing"] * 2
