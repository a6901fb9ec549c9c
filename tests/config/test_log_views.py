"""Views of a logger: fields in common, lazy values, patches; and blocks whose fields every record carries."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._log_views import _entered
from ml_pipeline.config.logging_config import audit_logger, configure_logging, get_logger, log_operation, main_logger
from ml_pipeline.errors import SettingsError

LOGS = Path("ml_pipeline/logs")


@pytest.fixture(params=["alone", "watched"])
def _both_ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records take the short way, or are a ``LogRecord`` because pytest watches the root logger."""
    if request.param == "alone":
        monkeypatch.setattr(logging.getLogger(), "handlers", [])


pytestmark = pytest.mark.usefixtures("_both_ways")


def _lines(name: str = "ml_pipeline.log") -> list[dict[str, Any]]:
    path = LOGS / name
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []


def test_bound_fields_are_on_every_record() -> None:
    """Under ``context``, with operation and user as ids; the call's own win; the place is the caller's."""
    logger = main_logger.bind(user_id="u1", batch=7, name="no clash")
    logger.info("one")
    logger.warning("two %d", 2, extra=log_operation(operation="o", batch=8))
    logger.info("three", extra={"batch": 9})
    one, two, three = _lines()
    assert (one["user_id"], one["context"]) == ("u1", {"batch": 7, "name": "no clash"})
    assert (two["message"], two["operation"], two["context"]["batch"]) == ("two 2", "o", 8)
    assert three["context"]["batch"] == 9
    assert {(Path(line["file"]).name, line["function"]) for line in (one, two, three)} == {
        ("test_log_views.py", "test_bound_fields_are_on_every_record")
    }


def test_a_view_is_never_changed() -> None:
    """Each binding makes another; the logger itself has none."""
    first = main_logger.bind(a=1)
    second = first.bind(b=2).bind(a=3)
    for logger in (first, second, main_logger):
        logger.info("x")  # type: ignore[attr-defined]
    assert [line.get("context") for line in _lines()] == [{"a": 1}, {"a": 3, "b": 2}, None]


def test_a_view_is_a_logger_adapter() -> None:
    """Level, name, exception, stack level and further wrapping work as documented."""
    logger = get_logger("training.model_training", "t").bind(a=1)
    assert isinstance(logger, logging.LoggerAdapter)
    assert logger.isEnabledFor(logging.INFO)
    assert not logger.isEnabledFor(logging.DEBUG)
    try:
        raise ValueError("x")  # noqa: TRY301 - to be logged
    except ValueError:
        logger.exception("failed")
    logging.LoggerAdapter(logger.logger, {"b": 2}).info("wrapped")

    def helper() -> None:
        logger.info("helped", stacklevel=2)

    helper()
    failed, wrapped, helped = _lines("training/model_training.log")
    assert (failed["exception"]["type"], failed["context"]) == ("ValueError", {"a": 1})
    assert wrapped["context"] == {"b": 2}
    assert helped["function"] == "test_a_view_is_a_logger_adapter"


def test_bound_secrets_are_redacted() -> None:
    """A bound field is a field."""
    main_logger.bind(api_token="hunter2").info("x")
    assert _lines()[0]["context"] == {"api_token": "[redacted]"}


def test_bound_audit_fields_say_who_and_what() -> None:
    """The audit trail takes them as it takes those of a call."""
    audit_logger.bind(user_id="u1", object="model").info("deployed", extra=log_operation(version="3"))
    line = _lines("audit.log")[0]
    assert (line["user_id"], line["context"]["object"], line["context"]["version"]) == ("u1", "model", "3")


def test_lazy_values_are_computed_only_if_they_are_written() -> None:
    """Arguments and fields that can be called; of a level that is off, none is."""
    asked: list[str] = []

    def value(name: str) -> Callable[[], str]:
        return lambda: asked.append(name) or name  # type: ignore[func-returns-value]

    logger = main_logger.opt(lazy=True)
    logger.debug("%s", value("no"), extra={"n": value("no")})
    assert asked == []
    logger.info("%s and %s", value("yes"), 2, extra={"n": value("field")})
    logger.bind(b=value("bound")).info("x", extra=log_operation(rows=value("rows")))
    first, second = _lines()
    assert (first["message"], first["context"]["n"]) == ("yes and 2", "field")
    assert second["context"]["rows"] == "rows"
    assert first["function"] == "test_lazy_values_are_computed_only_if_they_are_written"


def test_a_lazy_value_that_raises() -> None:
    """It says so on the line, and the job goes on."""
    main_logger.opt(lazy=True).info("got %s", lambda: 1 / 0)
    assert _lines()[0]["message"] == "got <ZeroDivisionError when computed>"


def test_patches_change_the_record() -> None:
    """In order, each with what the one before left."""

    def first(fields: dict[str, Any]) -> None:
        fields["message"] = f"[{fields['message']}]"
        fields["context"]["rows"] = 1
        fields["user_id"] = "patched"

    def second(fields: dict[str, Any]) -> None:
        fields["context"]["rows"] += 1

    given = {"kept": 1}
    main_logger.patch(first).patch(second).info("x %d", 5, extra={"ml_pipeline": log_operation(**given)["ml_pipeline"]})
    (line,) = _lines()
    assert (line["message"], line["user_id"], line["context"]) == ("[x 5]", "patched", {"kept": 1, "rows": 2})
    assert given == {"kept": 1}


def test_a_patch_that_raises_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The record is written as it was."""
    ml_pipeline.configure(strict=False)

    def broken(fields: dict[str, Any]) -> None:
        fields["context"]["half"] = True
        raise RuntimeError("patch")

    def spoiling(fields: dict[str, Any]) -> None:
        fields["context"] = None

    main_logger.patch(broken).patch(spoiling).info("x")
    (line,) = _lines()
    assert (line["message"], line.get("context")) == ("x", None)
    assert _runtime.tally.telemetry_errors == {("log_patch", "RuntimeError"): 1, ("log_patch", "SettingsError"): 1}
    assert "log_patch: RuntimeError: patch" in capsys.readouterr().err
    with pytest.raises(SettingsError, match="patch takes a function that changes the fields it is given"):
        main_logger.patch(3)  # type: ignore[arg-type]


def test_views_combine() -> None:
    """Bound, lazy, patched, limited and caught at once."""
    logger = main_logger.bind(a=1).opt(lazy=True).patch(lambda fields: fields["context"].update(b=2)).limit(every=2)
    for _ in range(2):
        logger.info("%s", lambda: "computed")
    with logger.catch(ValueError, message="kept"):
        raise ValueError("x")
    first, second = _lines()
    assert (first["message"], first["context"]) == ("computed", {"a": 1, "b": 2})
    assert (second["message"], second["exception"]["type"]) == ("kept", "ValueError")
    assert second["context"] == {"a": 1, "b": 2}


# blocks


def test_a_block_whose_fields_every_record_carries() -> None:
    """Of every logger of ours; the innermost wins, the call's own wins over both; afterwards nothing is left."""
    with main_logger.contextualize(user_id="u1", batch=7, stage="outer"):
        get_logger("training.model_training", "t").info("one")
        with main_logger.contextualize(stage="inner"):
            main_logger.info("two", extra=log_operation(batch=8))
            main_logger.bind(x=1).info("three")
    main_logger.info("four")
    (one,) = _lines("training/model_training.log")
    two, three, four = _lines()
    assert (one["user_id"], one["context"]) == ("u1", {"batch": 7, "stage": "outer"})
    assert (two["user_id"], two["context"]) == ("u1", {"batch": 8, "stage": "inner"})
    assert three["context"] == {"batch": 7, "stage": "inner", "x": 1}
    assert "user_id" not in four
    assert "context" not in four


def test_other_libraries_records_carry_them_too() -> None:
    """What is captured has the fields of the block around it."""
    configure_logging(capture=True)
    with main_logger.contextualize(batch=7):
        logging.getLogger("some.library").warning("theirs")
    configure_logging(capture=False)
    assert _lines()[0]["context"] == {"batch": 7}


def test_secrets_of_a_block_are_redacted() -> None:
    """Its fields are fields, nested ones too."""
    with main_logger.contextualize(login={"password": "hunter2"}):
        main_logger.info("x")
    assert _lines()[0]["context"] == {"login": {"password": "[redacted]"}}


def test_functions_are_decorated() -> None:
    """Plain and async, called at the same time: each has its own fields."""

    @main_logger.contextualize(batch=1)
    def plain() -> None:
        main_logger.info("plain")

    @main_logger.contextualize(batch=2)
    async def coroutine(number: int) -> None:
        with main_logger.contextualize(number=number):
            await asyncio.sleep(0)
            main_logger.info("async")

    async def run() -> None:
        await asyncio.gather(*(coroutine(number) for number in range(20)))
        main_logger.info("after")

    plain()
    asyncio.run(run())
    first, *many, last = _lines()
    assert first["context"] == {"batch": 1}
    assert sorted(line["context"]["number"] for line in many) == list(range(20))
    assert {line["context"]["batch"] for line in many} == {2}
    assert "context" not in last


def test_a_thread_has_its_own() -> None:
    """Another thread does not see the fields, and a block that is left by an exception leaves none."""
    with main_logger.contextualize(batch=7):
        thread = threading.Thread(target=lambda: main_logger.info("elsewhere"))
        thread.start()
        thread.join()
    with pytest.raises(ValueError, match="invalid"), main_logger.contextualize(batch=7):
        int("x")
    main_logger.info("after")
    assert [line.get("context") for line in _lines()] == [None, None]


def _dependency() -> Iterator[int]:
    with main_logger.contextualize(user_id="u", batch=7):
        yield 1


def test_a_block_is_left_in_another_context() -> None:
    """As frameworks resume a generator: nothing is raised, and neither context has the fields afterwards."""
    generator = _dependency()
    copy_context().run(next, generator)
    copy_context().run(next, generator, None)
    main_logger.info("never here")
    assert [line.get("context") for line in _lines()] == [None]


def test_a_block_is_left_in_a_copy_of_its_context() -> None:
    """As a task is: the fields go from the copy at once, and from the context itself with the next block."""
    generator = _dependency()
    entered = copy_context()
    entered.run(next, generator)
    copy = entered.copy()
    copy.run(next, generator, None)
    copy.run(main_logger.info, "left")
    entered.run(main_logger.contextualize(last=1)(main_logger.info), "the next block")
    entered.run(main_logger.info, "entered")
    assert [(line.get("user_id"), line.get("context")) for line in _lines()] == [
        (None, None), (None, {"last": 1}), (None, None)
    ]  # fmt: skip


def test_an_async_generator_that_is_not_finished() -> None:
    """Its block ends in a task of the loop's own; the block around it takes the fields along when it ends."""
    complaints: list[dict[str, Any]] = []

    async def numbers() -> AsyncIterator[int]:
        with main_logger.contextualize(user_id="u", batch=7):
            yield 1

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, about: complaints.append(about))
        with main_logger.contextualize(stage="outer"):
            source = numbers()
            async for _ in source:
                break
            await asyncio.create_task(source.aclose())  # type: ignore[attr-defined]
        main_logger.info("after")

    asyncio.run(run())
    (line,) = _lines()
    assert (complaints, line.get("user_id"), line.get("context")) == ([], None, None)


def test_one_block_is_shared_by_threads_and_tasks() -> None:
    """Each that enters it leaves it as it came; the object itself may be entered again inside."""
    shared = main_logger.contextualize(batch=7)
    all_inside = threading.Barrier(4)

    def work() -> None:
        with shared:
            all_inside.wait(30)
            with shared:
                main_logger.info("inside")
            all_inside.wait(30)
        main_logger.info("after")

    async def task() -> None:
        with shared:
            await asyncio.sleep(0)
            main_logger.info("inside")
        main_logger.info("after")

    async def run() -> None:
        await asyncio.gather(*(task() for _ in range(4)))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(work) for _ in range(4)]:
            done.result()
    asyncio.run(run())
    told = [(line["message"], line.get("context")) for line in _lines()]
    assert sorted(told, key=str) == [("after", None)] * 8 + [("inside", {"batch": 7})] * 8


def test_blocks_end_in_any_order() -> None:
    """Two generators in one context: the fields of both are gone once both have ended."""
    first, second = _dependency(), _dependency()
    next(first)
    next(second)
    next(first, None)
    main_logger.info("one is open")
    next(second, None)
    main_logger.info("after")
    assert [line.get("context") for line in _lines()] == [{"batch": 7}, None]


def test_a_task_that_outlives_the_block_keeps_its_fields() -> None:
    """It was started inside; blocks of its own come and go, and hold nothing of those long over."""
    entries: list[weakref.ref[object]] = []
    tasks: set[asyncio.Task[None]] = set()

    async def chained(left: int, ended: asyncio.Event) -> None:
        with main_logger.contextualize(stage=left):
            entries.append(weakref.ref(_entered.get()))  # type: ignore[arg-type]
            if left:
                tasks.add(following := asyncio.create_task(chained(left - 1, ended)))
                following.add_done_callback(tasks.discard)
        main_logger.info("after")
        if not left:
            gc.collect()
            assert sum(each() is not None for each in entries) < 5
            ended.set()

    async def run() -> None:
        ended = asyncio.Event()
        with main_logger.contextualize(batch=7):
            started = asyncio.create_task(chained(20, ended))
        await started
        await asyncio.wait_for(ended.wait(), 30)

    asyncio.run(run())
    assert all(line["context"]["batch"] == 7 for line in _lines())


def test_generators_are_refused() -> None:
    """Their body runs outside of the call."""

    def numbers() -> Iterator[int]:
        yield 1

    with pytest.raises(SettingsError) as refused:
        main_logger.contextualize(batch=1)(numbers)
    assert str(refused.value).startswith("contextualize decorates a plain or async function (got <function ")
    assert str(refused.value).endswith("; use it in a with statement instead")
