"""Operations: one start, one end, the right ids, whatever ends them and in whatever order."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import gc
import hashlib
import json
import multiprocessing
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _context, logging_config
from ml_pipeline.config._events import Bus, OperationEvent
from ml_pipeline.config.logging_config import main_logger
from ml_pipeline.config.operation_logger import OperationLogger, OperationScope, operation_logger
from ml_pipeline.errors import OperationStateError

LOGS = Path("ml_pipeline/logs")
RUN = "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6"


class Observed:
    """An operation logger with a bus of its own, and every event that came through it."""

    def __init__(self) -> None:
        self.events: list[OperationEvent] = []
        bus = Bus()
        bus.subscribe("test", self.events.append)  # type: ignore[arg-type]
        self.log = OperationLogger(bus)

    @property
    def types(self) -> list[str]:
        """What happened, in order."""
        return [event.type for event in self.events]

    @property
    def last(self) -> OperationEvent:
        """What happened last."""
        return self.events[-1]


@pytest.fixture
def seen() -> Observed:
    """What the operations of a test published."""
    return Observed()


@pytest.fixture
def lenient() -> Iterator[None]:
    """Telemetry as users run it: nothing is raised."""
    ml_pipeline.configure(strict=False)
    yield
    ml_pipeline.configure(strict=True)


def _lines(name: str = "ml_pipeline.log") -> list[dict[str, Any]]:
    path = LOGS / name
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []


def _here() -> tuple[str | None, str | None]:
    return _context.operation_id.get(), _context.run_id.get()


def _raised(error: Exception) -> Exception:
    def fail() -> None:
        raise error

    try:
        fail()
    except type(error):
        pass
    return error


def _run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_a_block_is_one_operation(seen: Observed) -> None:
    """A ``with`` block publishes its start with what is known, and one end with all that was said inside."""
    with seen.log.operation("ingestion", user_id="ann", source_name="ADNI") as op:
        assert _here() == (op.operation_id, op.run_id)
        assert seen.log.open_operations() == {op.operation_id: "data_ingestion"}
        op.progress(50, 100, rejected=2)
        op.set(dataset_name="ADNI_2024")
        op.count(records=100)
        op.measure(quality=0.9)
    start, progress, end = seen.events
    assert (start.type, start.duration_seconds, start.attributes) == ("start", None, {"source_name": "ADNI"})
    assert (progress.type, progress.counts) == ("progress", {"done": 50, "total": 100, "rejected": 2})
    assert (end.type, end.attributes) == ("complete", {"source_name": "ADNI", "dataset_name": "ADNI_2024"})
    assert (end.counts, end.metrics) == ({"rejected": 2, "records": 100}, {"quality": 0.9})
    assert end.duration_seconds is not None
    assert end.duration_seconds >= 0
    for event in seen.events:
        assert (event.operation_id, event.run_id) == (op.operation_id, op.run_id)
        assert (event.kind, event.name, event.user_id, event.pipeline) == ("ingestion", "data_ingestion", "ann", "test")
    assert len({event.event_id for event in seen.events}) == 3
    assert (_here(), seen.log.open_operations()) == ((None, None), {})


def test_nested_operations_have_parent_and_run(seen: Observed) -> None:
    """Inside an operation, the next one has it as parent, and its run and user; the next outermost has a new run."""
    with seen.log.operation("custom", "outer", user_id="ann") as outer:
        with seen.log.operation("custom", "inner") as inner:
            main_logger.info("inside")
        assert _here()[0] == outer.operation_id
    with seen.log.operation("custom") as later:
        pass
    assert seen.events[1].parent_id == outer.operation_id
    assert (inner.run_id, seen.events[1].user_id) == (outer.run_id, "ann")
    assert (later.run_id != outer.run_id, seen.last.parent_id) == (True, None)
    assert (_lines()[0]["operation"], _lines()[0]["operation_id"]) == ("inner", inner.operation_id)


def test_a_run_of_another_process_is_joined(seen: Observed) -> None:
    """With RUN_ID set, the outermost operations belong to that run."""
    ml_pipeline.configure(run_id=RUN)
    for _ in range(2):
        with seen.log.operation("custom") as op:
            assert op.run_id == RUN


def test_leaving_a_scope_that_nobody_entered_does_nothing(seen: Observed) -> None:
    """A stray `__exit__`, and a second one, end nothing."""
    scope = seen.log.operation("custom")
    scope.__exit__(None, None, None)
    with scope:
        pass
    scope.__exit__(None, None, None)
    assert seen.types == ["start", "complete"]


def test_shutdown_ends_what_is_open_and_its_context(seen: Observed) -> None:
    """What is abandoned at the end leaves no context behind, which matters where the process lives on."""
    seen.log.log_data_ingestion_start("ADNI")
    seen.log.log_training_start("m")
    _runtime.shutdown()
    assert seen.types == ["start", "start", "abandon", "abandon"]
    assert (_here(), seen.log.open_operations()) == ((None, None), {})


def test_the_scope_before_and_after_its_block(seen: Observed) -> None:
    """Before the block there is no id; after it, the id can still be asked for."""
    scope = seen.log.operation("custom")
    assert (scope.operation_id, scope.run_id) == ("", "")
    with scope:
        inside = scope.operation_id
    assert (scope.operation_id, scope.run_id) == (inside, seen.last.run_id)


def test_a_decorated_function(seen: Observed) -> None:
    """Each call is an operation of its own, named after the function, which keeps its name and result."""

    @seen.log.operation("feature_extraction", dataset_name="ADNI")
    def extract(rows: int) -> int:
        """Double."""
        return rows * 2

    assert [extract(1), extract(2)] == [2, 4]
    assert (extract.__name__, extract.__doc__) == ("extract", "Double.")
    assert seen.types == ["start", "complete"] * 2
    assert {event.name for event in seen.events} == {"extract"}
    assert len({event.operation_id for event in seen.events}) == 2
    named = seen.log.operation("custom", "given")(functools.partial(extract, 3))
    assert named() == 6
    assert seen.events[4].name == "given"
    assert seen.log.operation("custom")(functools.partial(int, "7"))() == 7
    assert seen.last.name == "operation"


def test_a_recursive_function(seen: Observed) -> None:
    """A decorated function may call itself; the calls are nested operations."""

    @seen.log.operation("custom")
    def down(rest: int) -> None:
        if rest:
            down(rest - 1)

    down(2)
    first, second, third = seen.events[:3]
    assert (second.parent_id, third.parent_id) == (first.operation_id, second.operation_id)
    assert seen.types == ["start"] * 3 + ["complete"] * 3


def test_a_decorated_coroutine_function_and_async_with(seen: Observed) -> None:
    """The operation lasts until the coroutine is done, not until it is made."""

    @seen.log.operation("custom")
    async def fetch() -> str:
        async with seen.log.operation("custom", "inner"):
            await asyncio.sleep(0)
        assert seen.types == ["start", "start", "complete"]
        return "fetched"

    assert asyncio.run(fetch()) == "fetched"
    assert [event.name for event in seen.events] == ["fetch", "inner", "inner", "fetch"]
    assert _here() == (None, None)


def test_generator_functions_are_refused(seen: Observed) -> None:
    """Decorating a generator function would observe nothing: it is refused at once, in words."""

    def sync() -> Iterator[int]:
        yield 1

    async def asynchronous() -> AsyncIterator[int]:
        yield 1

    for function in (sync, asynchronous):
        with pytest.raises(OperationStateError) as caught:
            seen.log.operation("custom")(function)
        assert str(caught.value) == (
            "an operation decorates a function that works when it is called, not a generator "
            f"(got '{function.__qualname__}'); use `with operation_logger.operation(...)` inside it"
        )


def test_a_scope_may_be_entered_again_and_inside_itself(seen: Observed) -> None:
    """One scope object used twice, nested, or by tasks at once, is as many operations, each ended once."""
    scope = seen.log.operation("custom")
    with scope, scope:
        pass
    with scope:
        pass

    async def work() -> tuple[str, str | None]:
        async with scope:
            await asyncio.sleep(0)
            return scope.operation_id, _here()[0]

    async def all_of_them() -> list[tuple[str, str | None]]:
        return await asyncio.gather(*(work() for _ in range(10)))

    assert all(mine == here for mine, here in asyncio.run(all_of_them()))
    ended = Counter(event.operation_id for event in seen.events if event.type == "complete")
    assert len(ended) == 13
    assert set(ended.values()) == {1}
    assert _here() == (None, None)


def test_a_started_operation_restores_the_context_when_it_is_completed(seen: Observed) -> None:
    """Between start and complete the context is the operation's; after it, what it was before."""
    with seen.log.operation("custom") as around:
        operation_id = seen.log.log_training_start("m", "forest", "v1", user_id="ann", depth=3)
        assert _here() == (operation_id, around.run_id)
        assert _context.user_id.get() == "ann"
        seen.log.log_training_complete(operation_id, model_version="2", metrics={"roc_auc": 0.92}, note="fine")
        assert (_here()[0], _context.user_id.get()) == (around.operation_id, None)
    start, end = seen.events[1:3]
    facts = {"model_name": "m", "model_type": "forest", "dataset_version": "v1", "depth": 3}
    assert (start.parent_id, start.attributes) == (around.operation_id, facts)
    assert end.attributes == {**facts, "model_version": "2", "note": "fine"}
    assert (end.metrics, end.user_id) == ({"roc_auc": 0.92}, "ann")


def test_operations_may_end_in_any_order(seen: Observed) -> None:
    """Whichever of three open operations ends first, the context is that of one still open, and none at the end."""
    for order in ([0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0], [0, 2, 1], [2, 0, 1]):
        ids = [
            seen.log.log_training_start("a"),
            seen.log.log_data_ingestion_start("b"),
            seen.log.log_training_start("c"),
        ]
        still_open = list(ids)
        for index in order:
            if index == 1:
                seen.log.log_data_ingestion_complete(ids[1])
            else:
                seen.log.log_training_complete(ids[index])
            still_open.remove(ids[index])
            assert _here()[0] == (still_open[-1] if still_open else None)
        assert _here() == (None, None)


def test_a_started_operation_may_outlive_the_block_around_it(seen: Observed) -> None:
    """What was started in a block and is completed after it brings back the context around both."""
    with seen.log.operation("custom", "block"):
        operation_id = seen.log.log_training_start("m")
    assert _here()[0] == operation_id
    seen.log.log_training_complete(operation_id)
    assert _here() == (None, None)
    assert [(event.name, event.type) for event in seen.events] == [
        ("block", "start"),
        ("model_training", "start"),
        ("block", "complete"),
        ("model_training", "complete"),
    ]


def _steps(log: OperationLogger) -> Iterator[str]:
    with log.operation("custom", "generator") as op:
        yield op.operation_id
        yield op.operation_id


@pytest.mark.parametrize("closed_inside", [True, False])
def test_a_generator_may_be_closed_inside_or_after_another_operation(seen: Observed, *, closed_inside: bool) -> None:
    """A block inside a suspended generator disturbs no other block's context, and leaves none behind."""
    with contextlib.ExitStack() as stack:
        steps = _steps(seen.log)
        if closed_inside:
            next(steps)
        block = stack.enter_context(seen.log.operation("custom", "block"))
        if closed_inside:
            steps.close()  # type: ignore[attr-defined]
            assert _here()[0] == block.operation_id
        else:
            next(steps)
    steps.close()  # type: ignore[attr-defined]
    assert _here() == (None, None)
    assert sorted((event.name, event.type) for event in seen.events if event.type != "start") == [
        ("block", "complete"),
        ("generator", "cancel"),
    ]


def test_an_abandoned_generator_is_cancelled_when_it_is_collected(seen: Observed) -> None:
    """A generator that nobody finishes ends its operation when it dies."""
    next(_steps(seen.log))
    gc.collect()
    assert seen.types == ["start", "cancel"]
    assert seen.last.error is not None
    assert seen.last.error.type == "GeneratorExit"


def test_an_async_generator_closed_in_another_task_leaves_that_tasks_context_alone(seen: Observed) -> None:
    """Closing somebody else's generator does not change whose operation the closing code runs for."""

    async def stream() -> AsyncIterator[int]:
        with seen.log.operation("custom", "stream"):
            yield 1
            yield 2

    async def main() -> None:
        open_stream = stream()
        await asyncio.create_task(open_stream.__anext__())  # type: ignore[arg-type]
        async with seen.log.operation("custom", "other") as other:
            await open_stream.aclose()  # type: ignore[attr-defined]
            assert _here() == (other.operation_id, other.run_id)
        assert _here() == (None, None)

    asyncio.run(main())
    assert Counter(event.type for event in seen.events) == {"start": 2, "cancel": 1, "complete": 1}


def test_an_operation_may_be_completed_in_a_task_that_inherited_it(seen: Observed) -> None:
    """In the task that completes it, the context is the one from before its start."""

    async def finish(operation_id: str) -> tuple[str | None, str | None]:
        seen.log.log_training_complete(operation_id)
        return _here()

    async def main() -> None:
        with seen.log.operation("custom") as around:
            operation_id = seen.log.log_training_start("m")
            assert await asyncio.create_task(finish(operation_id)) == (around.operation_id, around.run_id)
        assert _here() == (None, None)

    asyncio.run(main())
    assert _here() == (None, None)


def test_an_operation_that_another_thread_ends_is_no_parent_afterwards(seen: Observed) -> None:
    """Started here and completed by a thread, it is not what the next operation here belongs to."""

    def in_a_thread(function: Callable[..., None], operation_id: str) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(function, operation_id).result()

    with seen.log.operation("custom", "around") as around:
        outer, inner = seen.log.log_data_ingestion_start("ADNI"), seen.log.log_training_start("m")
        in_a_thread(seen.log.log_data_ingestion_complete, outer)
        in_a_thread(seen.log.log_training_complete, inner)
        with seen.log.operation("custom", "next"):
            pass
        assert _here()[0] == around.operation_id
    assert next(event for event in seen.events if event.name == "next").parent_id == around.operation_id
    assert _here() == (None, None)
    for _ in range(20):
        in_a_thread(seen.log.log_training_complete, seen.log.log_training_start("m"))
    assert {event.parent_id for event in seen.events[-40:]} == {None}


def test_contexts_that_nobody_comes_back_to_are_bounded(seen: Observed) -> None:
    """Operations that were started in contexts which are gone are not remembered for ever."""
    ids = [contextvars.copy_context().run(seen.log.log_training_start, "m") for _ in range(1_050)]
    for operation_id in ids:
        seen.log.log_training_complete(operation_id)
    assert Counter(seen.types) == {"start": 1_050, "complete": 1_050}
    assert len(seen.log._operations._ended_elsewhere) == 1_000
    assert (_here(), seen.log.open_operations()) == ((None, None), {})


def test_a_task_keeps_the_operation_it_was_started_in(seen: Observed) -> None:
    """A task that outlives the operation around its start stays in that run."""

    async def later(started: asyncio.Event) -> None:
        await started.wait()
        for _ in range(2):
            async with seen.log.operation("custom", "later"):
                pass

    async def main() -> None:
        ended = asyncio.Event()
        async with seen.log.operation("custom", "request") as request:
            task = asyncio.create_task(later(ended))
        ended.set()
        await task
        told = {(event.parent_id, event.run_id) for event in seen.events if event.name == "later"}
        assert told == {(request.operation_id, request.run_id)}

    asyncio.run(main())


def test_a_hundred_tasks_keep_their_ids_apart(seen: Observed) -> None:
    """Concurrent tasks each see their own operation, below that of the task which gathers them."""

    async def work(number: int) -> None:
        async with seen.log.operation("custom", f"task {number}") as op:
            await asyncio.sleep(0)
            inner = seen.log.log_training_start(f"m{number}")
            await asyncio.sleep(0)
            assert _here()[0] == inner
            seen.log.log_training_complete(inner)
            assert _here() == (op.operation_id, op.run_id)
            op.count(number=number)

    async def main() -> None:
        async with seen.log.operation("custom", "all") as around:
            await asyncio.gather(*(work(number) for number in range(100)))
            assert _here()[0] == around.operation_id

    asyncio.run(main())
    around = seen.events[0].operation_id
    tasks = [event for event in seen.events if event.name.startswith("task") and event.type == "complete"]
    assert {(event.name, event.counts["number"]) for event in tasks} == {(f"task {n}", n) for n in range(100)}
    assert {event.parent_id for event in tasks} == {around}
    assert len({event.run_id for event in seen.events}) == 1
    assert len({event.operation_id for event in seen.events}) == 201


def test_threads_with_and_without_carry(seen: Observed) -> None:
    """A thread starts a run of its own, unless its function was carried there; the context does not stick to it."""

    def work() -> tuple[str | None, str]:
        with seen.log.operation("custom", "worker") as op:
            return seen.last.parent_id, op.run_id

    with ThreadPoolExecutor(1) as pool, seen.log.operation("custom") as around:
        alone = pool.submit(work).result()
        carried = pool.submit(seen.log.carry(work)).result()
        again = pool.submit(work).result()
        sticking = pool.submit(_here).result()
    assert carried == (around.operation_id, around.run_id)
    assert alone[0] is again[0] is None
    assert len({alone[1], again[1], around.run_id}) == 3
    assert sticking == (None, None)


def _in_another_process(number: int) -> tuple[int, str | None, str | None, str]:
    with operation_logger.operation("custom", "worker") as op:
        main_logger.info("from the worker")
    return number, op.run_id, _context.user_id.get(), op.operation_id


def test_a_process_pool_with_carry() -> None:
    """In a spawned worker, operations and log lines carry the parent's operation, run and user."""
    with operation_logger.operation("custom", "parent", user_id="ann") as around:
        carried = operation_logger.carry(_in_another_process)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            number, run_id, user_id, operation_id = pool.submit(carried, 7).result()
    assert (number, run_id, user_id) == (7, around.run_id, "ann")
    started = next(line for line in _lines() if line.get("message") == "worker started")
    said = next(line for line in _lines() if line.get("message") == "from the worker")
    assert (started["context"]["parent_id"], started["process"] != os.getpid()) == (around.operation_id, True)
    assert (said["operation_id"], said["run_id"], said["user_id"]) == (operation_id, around.run_id, "ann")


def test_a_call_inside_a_block_of_its_kind_refines_it(seen: Observed) -> None:
    """start, progress and complete inside a ``with`` of their kind are one operation, which ends with the block."""
    with seen.log.operation("ingestion", source_name="ADNI") as op:
        assert seen.log.log_data_ingestion_start("ADNI", "ADNI_2024", user_id="ann") == op.operation_id
        seen.log.log_data_ingestion_progress(records_processed=1, total_records=2)
        seen.log.log_data_ingestion_complete(records_count=2, content_hash="abc")
        assert seen.types == ["start", "progress"]
        op.count(rejected=1)
    assert seen.types == ["start", "progress", "complete"]
    assert seen.last.counts == {"records": 2, "rejected": 1}
    assert seen.last.attributes == {"source_name": "ADNI", "dataset_name": "ADNI_2024", "content_hash": "abc"}
    assert (seen.last.user_id, _here()) == ("ann", (None, None))


def test_a_call_of_another_kind_is_an_operation_inside(seen: Observed) -> None:
    """A training started within an ingestion is an operation of its own; once told, the next is one too."""
    with seen.log.operation("data_access") as op:
        training = seen.log.log_training_start("m")
        assert training != op.operation_id
        seen.log.log_training_complete(training)
        assert seen.log.log_data_access("first", "ann") == op.operation_id
        second = seen.log.log_data_access("second", "bob", purpose="audit", records_count=3)
    assert second != op.operation_id
    ends = [(event.attributes.get("dataset_name"), event.user_id) for event in seen.events if event.type == "complete"]
    assert ends == [(None, None), ("second", "bob"), ("first", "ann")]
    assert next(event for event in seen.events if event.operation_id == second).parent_id == op.operation_id


def test_progress_without_an_id_finds_the_operation_around(seen: Observed) -> None:
    """A callback deep inside a training reports on it, also from within a block of another kind."""
    with seen.log.operation("training") as op, seen.log.operation("custom", "fold"):
        seen.log.log_training_progress(epoch=3, total_epochs=10, loss=0.5)
    progress = seen.events[2]
    assert (progress.type, progress.operation_id) == ("progress", op.operation_id)
    assert progress.counts == {"done": 3, "total": 10, "epoch": 3}
    assert (progress.metrics, seen.last.counts) == ({"loss": 0.5}, {})


def test_one_failure_said_twice_is_one_end(seen: Observed) -> None:
    """An error told inside, and the exception that follows, are one failure with the exception's traceback."""

    @seen.log.operation("ingestion")
    def ingest() -> None:
        seen.log.log_data_ingestion_error(error="Connection timeout", host="db")
        raise TimeoutError("gave up")

    with pytest.raises(TimeoutError):
        ingest()
    assert seen.types == ["start", "fail"]
    assert seen.last.error is not None
    assert (seen.last.error.type, seen.last.error.message) == ("TimeoutError", "gave up")
    assert "raise TimeoutError" in seen.last.error.stacktrace
    assert seen.last.attributes == {"host": "db", "reported_error": "Connection timeout"}


def test_an_error_that_is_told_and_swallowed_is_a_failure(seen: Observed) -> None:
    """Who says that an ingestion failed and goes on has a failed ingestion; the words of an exception stay."""
    with seen.log.operation("ingestion"):
        seen.log.log_data_ingestion_error(error=_raised(TimeoutError("too slow")))
        seen.log.log_data_ingestion_error(error="it was too slow")
    assert seen.types == ["start", "fail"]
    assert seen.last.error is not None
    assert (seen.last.error.type, seen.last.error.message) == ("TimeoutError", "too slow")
    assert "Traceback" in seen.last.error.stacktrace


def test_a_failure_is_not_made_good_by_a_completion(seen: Observed) -> None:
    """Completing what was told to have failed is a misuse, and it stays a failure."""
    with seen.log.operation("ingestion"):
        seen.log.log_data_ingestion_error(error="no")
        with pytest.raises(OperationStateError, match="a completion must name an operation that is open"):
            seen.log.log_data_ingestion_complete(records_count=5)
    assert seen.types == ["start", "fail"]


def test_a_failure_told_before_ctrl_c_stays_the_reason(seen: Observed) -> None:
    """Ctrl-C after a told failure does not hide the failure."""

    @seen.log.operation("ingestion")
    def ingest() -> None:
        seen.log.log_data_ingestion_error(error="Connection timeout")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest()
    assert seen.last.type == "fail"
    assert seen.last.error is not None
    assert seen.last.error.message == "Connection timeout"


@pytest.mark.parametrize("error", [KeyboardInterrupt("now"), SystemExit(0), asyncio.CancelledError(), GeneratorExit()])
def test_what_is_no_failure_cancels_and_goes_on(seen: Observed, error: BaseException) -> None:
    """Ctrl-C, an exit, a cancelled task and a closed generator cancel the operation, and are not held back."""
    with pytest.raises(type(error)), seen.log.operation("training"):
        raise error
    assert seen.types == ["start", "cancel"]
    assert seen.last.error is not None
    assert (seen.last.error.type, seen.last.error.stacktrace) == (type(error).__name__, "")


@pytest.mark.parametrize("code", [1, 3, "no GPU"])
def test_an_exit_that_says_that_something_went_wrong_is_a_failure(seen: Observed, code: object) -> None:
    """`sys.exit("no GPU")` is how scripts fail: the operation fails with it, and the exit goes on."""
    with pytest.raises(SystemExit), seen.log.operation("training"):
        raise SystemExit(code)
    assert seen.types == ["start", "fail"]
    assert seen.last.error is not None
    assert (seen.last.error.type, seen.last.error.message) == ("SystemExit", str(code))


def test_a_start_that_names_another_thing_is_an_operation_inside(seen: Observed) -> None:
    """A search that trains three models in one block has four operations: none of them takes another's name."""
    with seen.log.operation("training", "grid", model_name="grid") as grid:
        ids = [seen.log.log_training_start(f"model{number}") for number in range(1)]
        for number, each in enumerate(ids):
            seen.log.log_training_complete(each, metrics={"auc": number})
        second = seen.log.log_training_start("model1")
        seen.log.log_training_complete(second, metrics={"auc": 1})
    assert len({grid.operation_id, *ids, second}) == 3
    ends = {event.operation_id: event for event in seen.events if event.type == "complete"}
    assert ends[grid.operation_id].attributes["model_name"] == "grid"
    assert ends[second].attributes["model_name"] == "model1"
    assert {ends[second].parent_id, ends[ids[0]].parent_id} == {grid.operation_id}


def test_the_same_start_again_abandons_the_first(seen: Observed) -> None:
    """A notebook's cell that failed after its start is run anew: the first start is abandoned, nothing nests under it."""
    first = seen.log.log_training_start("m", dataset_version="v1")
    second = seen.log.log_training_start("m", dataset_version="v1")
    seen.log.log_training_complete(second)
    assert [(event.type, event.operation_id) for event in seen.events] == [
        ("start", first),
        ("abandon", first),
        ("start", second),
        ("complete", second),
    ]
    assert seen.last.parent_id is None


def test_an_exception_raised_in_two_operations_is_told_in_both(seen: Observed) -> None:
    """A cached exception object keeps its traceback in the second operation, which is not around the first."""
    reused = ValueError("again")
    for _ in range(2):
        with pytest.raises(ValueError, match="again"), seen.log.operation("custom"):
            raise reused
    told = [event.error.stacktrace for event in seen.events if event.type == "fail" and event.error]
    assert len(told) == 2
    assert all("ValueError: again" in each for each in told)


def test_a_failure_names_the_operation_that_caused_it(seen: Observed) -> None:
    """Itself, as a cause or in a group: the failure around says which operation inside it came first."""

    @seen.log.operation("ingestion")
    def ingest() -> None:
        raise TimeoutError("slow")

    @seen.log.operation("custom", "outer")
    def wrapped(around: Callable[[Exception], Exception]) -> None:
        try:
            ingest()
        except TimeoutError as error:
            raise around(error) from error

    for around in (lambda _: RuntimeError("no data"), lambda error: ExceptionGroup("many", [error])):
        with pytest.raises((RuntimeError, ExceptionGroup)):
            wrapped(around)
        inner, outer = [event for event in seen.events if event.type == "fail"][-2:]
        assert outer.attributes["caused_by"] == inner.operation_id


def test_a_cancelled_task_cancels_its_operation(seen: Observed) -> None:
    """The event loop's own cancellation goes through and leaves the operation cancelled."""

    async def main() -> None:
        async def work() -> None:
            async with seen.log.operation("custom"):
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert seen.types == ["start", "cancel"]


def test_a_traceback_is_told_once(seen: Observed) -> None:
    """Of nested operations that fail by one exception, the innermost has the traceback; all have type and message."""
    with pytest.raises(ValueError, match="bad"), seen.log.operation("custom", "outer"), seen.log.operation("custom"):
        raise ValueError("bad")
    inner, outer = (event.error for event in seen.events if event.type == "fail")
    assert inner is not None
    assert outer is not None
    assert (inner.type, inner.message) == (outer.type, outer.message) == ("ValueError", "bad")
    assert (bool(inner.stacktrace), outer.stacktrace) == (True, "")


class UnprintableError(Exception):
    """An exception whose text raises, and that keeps no attributes."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError("evil")


def test_an_exception_that_cannot_be_printed_is_a_failure_like_any_other(seen: Observed) -> None:
    """What the work raised goes on, not what printing it raised."""
    with pytest.raises(UnprintableError), seen.log.operation("custom"):
        raise UnprintableError
    assert seen.last.error is not None
    assert (seen.last.error.type, seen.last.error.message) == ("UnprintableError", "<RuntimeError when printed>")


@pytest.mark.parametrize("operation_id", ["nope", None, 5, ["a", "list"]])
def test_completing_what_is_not_open_raises_under_strict(seen: Observed, operation_id: Any) -> None:
    """Under STRICT a completion that names no open operation of its kind raises, naming what is open."""
    with seen.log.operation("custom", "mine") as op:
        with pytest.raises(OperationStateError) as caught:
            seen.log.log_training_complete(operation_id)
        assert str(caught.value) == (
            f"a completion must name an operation that is open (got {operation_id!r}); "
            f"open now: {op.operation_id} (mine)"
        )


@pytest.mark.usefixtures("lenient")
def test_an_unmatched_completion_keeps_all_its_data(seen: Observed, capsys: pytest.CaptureFixture[str]) -> None:
    """By default it is a line in the log with everything given, one line on stderr, and a count; nothing is raised."""
    still_open = seen.log.log_data_ingestion_start("ADNI")
    known = seen.log.log_training_start("m")
    seen.log.log_training_complete(known)
    call = functools.partial(
        seen.log.log_training_complete,
        model_version="2",
        metrics={"roc_auc": 0.92},
        operation="clash",
        user_id="ann",
        unmatched=1,
    )
    call("unknown-id")
    call(known)
    seen.log.log_data_ingestion_complete(still_open, records_count=3)
    lines = [line for line in _lines() if line["message"].startswith("Unmatched")]
    assert [line["message"] for line in lines] == [
        "Unmatched completion of training unknown-id",
        f"Unmatched completion of training {known}",
    ]
    assert lines[0]["level"] == "WARNING"
    assert lines[0]["context"] == {
        "unmatched": "completion",
        "given_operation_id": "unknown-id",
        "metrics": {"roc_auc": 0.92},
        "given": {"unmatched": 1},
        "model_version": "2",
        "operation": "clash",
        "user_id": "ann",
    }
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "ml_pipeline: operation_logger: OperationStateError: a completion must name an operation that is open "
        f"(got 'unknown-id'); open now: {still_open} (data_ingestion) (counted in ml_pipeline_telemetry_errors_total)"
    )
    assert len(said) == 2
    assert _runtime.tally.telemetry_errors == {("operation_logger", "OperationStateError"): 2}
    assert Counter(seen.types) == {"start": 2, "complete": 2}


@pytest.mark.usefixtures("lenient")
def test_an_unmatched_failure_is_in_errors_log_with_its_traceback(seen: Observed) -> None:
    """An error told for an unknown operation is an error nonetheless."""
    seen.log.log_training_error("unknown", error=_raised(TimeoutError("too slow")), host="db")
    seen.log.log_training_progress("unknown", epoch=3)
    (line,) = _lines("errors.log")
    assert (line["level"], line["exception"]["type"], line["context"]["host"]) == ("ERROR", "TimeoutError", "db")
    assert "Traceback" in line["exception"]["stacktrace"]
    assert _lines()[1]["context"]["counts"]["epoch"] == 3


@pytest.mark.usefixtures("lenient")
def test_an_id_of_another_kind_is_not_taken(seen: Observed) -> None:
    """Completing an ingestion with the id of a training leaves the training as it is."""
    training = seen.log.log_training_start("m")
    seen.log.log_data_ingestion_complete(training, records_count=3)
    assert seen.log.open_operations() == {training: "model_training"}
    assert _lines()[0]["context"]["counts"] == {"records": 3}


@pytest.mark.usefixtures("lenient")
def test_what_is_said_before_or_after_the_block_is_recorded(seen: Observed) -> None:
    """A score measured after its block is no part of the operation any more; it is in the log, as unmatched."""
    scope = seen.log.operation("training")
    scope.set(too="early")
    with scope:
        pass
    scope.measure(roc_auc=0.92)
    scope.progress(1)
    assert seen.types == ["start", "complete"]
    early, late, progress = _lines()
    assert (early["message"], early["context"]["too"]) == ("Unmatched refinement of training without an id", "early")
    assert late["context"]["metrics"] == {"roc_auc": 0.92}
    assert progress["message"] == f"Unmatched progress of training {scope.operation_id}"
    with ml_pipeline.override(strict=True), pytest.raises(OperationStateError, match="a refinement must name"):
        scope.count(records=1)


def test_an_unknown_kind_raises_under_strict(seen: Observed) -> None:
    """A kind that is not in the table is told with the closest that is."""
    with pytest.raises(OperationStateError) as caught, seen.log.operation("trainin"):
        pass
    assert str(caught.value) == ("an operation's kind must be in the table (got 'trainin'); did you mean 'training'?")
    assert seen.events == []


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("kind", ["etl", "", None, ["etl"]])
def test_an_unknown_kind_is_recorded_as_custom(seen: Observed, kind: Any) -> None:
    """By default the work is observed all the same, under the name of the kind it was given."""
    with seen.log.operation(kind):
        pass
    assert seen.types == ["start", "complete"]
    assert seen.last.kind == "custom"
    assert seen.last.name == ("" if kind is None else str(kind))
    assert _runtime.tally.telemetry_errors["operation_logger", "OperationStateError"] == 1


def test_numbers_of_every_sort(seen: Observed) -> None:
    """Integers stay integers, NumPy's included; NaN is a number; None is nothing."""
    with seen.log.operation("custom") as op:
        op.count(a=np.int64(5), b=2.5, c=True, d=10**17 + 1, e=float("nan"), f=None)  # type: ignore[arg-type]
        op.measure(score=np.float32(0.5))  # type: ignore[arg-type]
    counts = dict(seen.last.counts)
    assert np.isnan(counts.pop("e"))
    assert counts == {"a": 5, "b": 2.5, "c": 1, "d": 10**17 + 1}
    assert [type(counts[key]) for key in "ab"] == [int, float]
    assert seen.last.metrics == {"score": 0.5}


def test_what_is_no_number_raises_under_strict_after_it_was_recorded(seen: Observed) -> None:
    """A count that is no number is told; the operation ends all the same, with the value as a fact."""
    operation_id = seen.log.log_data_ingestion_start("ADNI")
    with pytest.raises(OperationStateError) as caught:
        seen.log.log_data_ingestion_complete(operation_id, records_count="many")  # type: ignore[arg-type]
    assert str(caught.value) == "records must be a number (got 'many'); it is kept as a fact of the operation"
    assert (seen.last.type, seen.last.attributes["records"]) == ("complete", "many")


@pytest.mark.usefixtures("lenient")
@pytest.mark.parametrize("metrics", [[0.9], "0.9", 5, np.array([0.9]), {"roc_auc": "good"}, {"big": 10**400}])
def test_scores_that_are_no_numbers_are_kept_as_facts(seen: Observed, metrics: Any) -> None:
    """After ten hours of training, a wrong argument neither raises nor is lost."""
    operation_id = seen.log.log_training_start("m")
    seen.log.log_training_complete(operation_id, metrics=metrics)
    assert (seen.last.type, seen.last.metrics) == ("complete", {})
    kept = {key: value for key, value in seen.last.attributes.items() if key != "model_name"}
    assert kept == (metrics if isinstance(metrics, dict) else {"metrics": metrics})
    assert _runtime.tally.telemetry_errors["operation_logger", "OperationStateError"] == 1


class Evil:
    """An object that refuses everything it can be asked."""

    def _refuse(self, *_: object) -> Any:
        raise RuntimeError("evil")

    __repr__ = __str__ = __bool__ = __len__ = __iter__ = __format__ = __eq__ = __float__ = __index__ = _refuse
    __hash__ = _refuse


hostile = st.one_of(
    st.none(),
    st.builds(Evil),
    st.text(st.characters(exclude_categories=()), max_size=5),
    st.binary(max_size=5),
    st.floats(),
    st.integers(),
    st.lists(st.floats(), max_size=2),
    st.lists(st.floats(), max_size=3).map(np.array),
    st.dictionaries(st.text(max_size=3), st.builds(Evil), max_size=2),
    st.builds(UnprintableError),
)


def _calls(log: OperationLogger) -> list[Callable[..., object]]:
    return [
        lambda a, b, c: log.log_data_ingestion_start(a, b, user_id=c, fact=a),
        lambda a, b, c: log.log_data_ingestion_progress(a, records_processed=b, total_records=c),
        lambda a, b, c: log.log_data_ingestion_complete(a, records_count=b, fact=c),
        lambda a, b, c: log.log_data_ingestion_error(a, error=b, fact=c),
        lambda a, b, c: log.log_training_start(a, b, c, user_id=a),
        lambda a, b, c: log.log_training_progress(a, epoch=b, total_epochs=c, loss=a),
        lambda a, b, c: log.log_training_complete(a, model_name=b, model_version=c, metrics=a),
        lambda a, b, c: log.log_training_error(None, error=a, fact=b),
        lambda a, b, c: log.log_feature_extraction(a, b, features_count=c, records_count=a, user_id=b),
        lambda a, b, c: log.log_model_deployment(a, b, c, user_id=a),
        lambda a, b, c: log.log_data_access(a, b, purpose=c, records_count=a),
        lambda a, b, c: log.log_prediction(features=a, decision=b, confidence=c, model_name=a, prediction_id=b),
        lambda a, b, c: _block(log.operation(a, b, user_id=c, fact=a), a, b),
    ]


def _block(scope: OperationScope, a: Any, b: Any) -> None:
    with scope as op:
        op.count(x=a)
        op.measure(y=b)
        op.set(z=a)
        op.progress(a, b)


@settings(max_examples=150, deadline=None)
@given(which=st.integers(0, 12), a=hostile, b=hostile, c=hostile, features=st.sampled_from(["full", "hashed", "none"]))
def test_no_call_raises_whatever_it_is_given(which: int, a: Any, b: Any, c: Any, features: str) -> None:
    """By default, no argument of any call brings an exception into the pipeline; what was started can be ended."""
    bus = Bus()
    logging_config.subscribe_to(bus)
    log = OperationLogger(bus)
    with ml_pipeline.override(strict=False, log_features=features):
        _calls(log)[which](a, b, c)
        for operation_id, name in log.open_operations().items():
            end = log.log_training_complete if name == "model_training" else log.log_data_ingestion_complete
            end(operation_id)
        assert (log.open_operations(), _here()) == ({}, (None, None))
        assert not [sink for sink, _ in _runtime.tally.telemetry_errors if sink != "operation_logger"]


def test_operations_told_in_one_call(seen: Observed) -> None:
    """Feature extraction, deployment and data access are a start and an end at once, with their facts."""
    ids = [
        seen.log.log_feature_extraction("ADNI", "features", features_count=19, records_count=5, scaler="z"),
        seen.log.log_model_deployment("m", "2", user_id="ann"),
        seen.log.log_data_access("ADNI", "bob", purpose="review", records_count=3),
    ]
    assert seen.types == ["start", "complete"] * 3
    assert [event.operation_id for event in seen.events[::2]] == ids
    assert seen.events[1].counts == {"features": 19, "records": 5}
    assert seen.events[1].attributes == {"dataset_name": "ADNI", "output_name": "features", "scaler": "z"}
    assert seen.events[3].attributes == {"model_name": "m", "model_version": "2", "environment": "production"}
    assert (seen.events[3].user_id, seen.events[5].user_id) == ("ann", "bob")
    assert seen.events[5].attributes == {"dataset_name": "ADNI", "purpose": "review"}
    assert _here() == (None, None)


def test_a_prediction_knows_the_model_around_it(seen: Observed) -> None:
    """A prediction inside a batch has the batch's model, ids and an id of its own; nothing is counted as ended twice."""
    with seen.log.operation("prediction", model_name="m", model_version="2") as batch:
        first = seen.log.log_prediction(features=[1.0], decision=np.int64(1), confidence=0.9, patient="p1")
        second = seen.log.log_prediction(features=[1.0], decision="AD", prediction_id="mine", single=False)
    one, two = seen.events[1:3]
    assert (one.type, one.operation_id, one.run_id) == ("complete", batch.operation_id, batch.run_id)
    assert (one.attributes["prediction_id"], second, one.metrics) == (first, "mine", {"confidence": 0.9})
    assert (one.attributes["model_name"], one.attributes["model_version"]) == ("m", "2")
    assert (one.attributes["patient"], one.attributes["single"]) == ("p1", True)
    assert (two.attributes["single"], two.metrics) == (True, {})


def _logged_features(features: Any, how: str) -> dict[str, Any]:
    seen = Observed()
    with ml_pipeline.override(log_features=how):
        seen.log.log_prediction(features=features, decision=1)
    return {key: value for key, value in seen.last.attributes.items() if key.startswith("features")}


def test_features_are_personal_data() -> None:
    """By default only a hash is written; ``full`` writes them all, ``none`` nothing."""
    many = np.arange(64.0)
    seen = Observed()
    seen.log.log_prediction(features={"age": 71}, decision=1)
    assert "age" not in repr(seen.last.attributes)
    assert len(seen.last.attributes["features_hmac"]) == 64
    assert seen.last.attributes["features_hmac"] != hashlib.sha256(b'{"age":71}').hexdigest()
    key = Path("ml_pipeline/data_storage/feature_key")
    assert key.stat().st_mode & 0o777 == 0o600
    assert _logged_features(many, "none") == {}
    assert _logged_features(many, "full") == {"features": [float(number) for number in range(64)]}
    assert _logged_features({"age": 71}, "full") == {"features": {"age": 71}}


def test_equal_features_have_equal_hashes_and_others_do_not() -> None:
    """Every value counts, however many there are; the sort of sequence and the order of keys do not."""
    many = np.arange(64.0)
    other = many.copy()
    other[50] += 1
    hashes = [_logged_features(each, "hashed")["features_hmac"] for each in (many, many.tolist(), tuple(many), other)]
    assert hashes[0] == hashes[1] == hashes[2] != hashes[3]
    assert _logged_features({"a": 1, "b": 2}, "hashed") == _logged_features({"b": np.int64(2), "a": 1}, "hashed")
    long = ["x" * 10_000 + end for end in "ab"]
    assert _logged_features(long[:1], "hashed") != _logged_features(long[1:], "hashed")
    assert _logged_features(Evil(), "hashed")


OPEN_AT_EXIT = """
import sys
from ml_pipeline.config.operation_logger import operation_logger
operation_logger.log_data_ingestion_start("ADNI", user_id="ann")
operation_logger.log_training_start("m")
{}
"""


@pytest.mark.parametrize("end", ["", "sys.exit(3)", "raise RuntimeError('unrelated')"])
def test_what_is_open_when_the_process_ends_is_abandoned(isolated: Path, end: str) -> None:
    """Innermost first, each open operation is recorded as abandoned, and its journal is removed."""
    done = _run(OPEN_AT_EXIT.format(end))
    assert "ml_pipeline: " not in done.stderr
    ends = [line for line in _lines() if line["context"].get("event") == "abandon"]
    assert [(line["operation"], line["level"]) for line in ends] == [
        ("model_training", "WARNING"),
        ("data_ingestion", "WARNING"),
    ]
    results = [(line["message"], line["context"]["result"]) for line in _lines("audit.log")]
    assert results == [("training", "abandoned"), ("ingestion", "abandoned")]
    assert list(Path("ml_pipeline/data_storage/operations").iterdir()) == []


def test_what_is_open_when_a_signal_ends_the_process_is_cancelled() -> None:
    """SystemExit out of a handler passes through the blocks, which end as cancelled."""
    program = """
import os, signal, sys
from ml_pipeline.config.operation_logger import operation_logger
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
with operation_logger.operation("ingestion"):
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
"""
    done = _run(program)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line["context"]["event"] for line in _lines() if "event" in line["context"]] == ["start", "cancel"]


def test_a_forked_child_ends_nothing_of_its_parent() -> None:
    """Whether the child leaves by `os._exit`, by an exception, or through the block: the parent's end is the one."""
    program = """
import os, sys
from ml_pipeline.config.operation_logger import operation_logger
started = operation_logger.log_data_ingestion_start("ADNI")
with operation_logger.operation("custom", "block"):
    for way in ("_exit", "exit"):
        child = os.fork()
        if child == 0:
            assert operation_logger.open_operations() == {}
            with operation_logger.operation("custom", "child " + way): pass
            if way == "_exit": os._exit(0)
            sys.exit(0)
        os.waitpid(child, 0)
    child = os.fork()
    if child:
        os.waitpid(child, 0)
if child:
    operation_logger.log_data_ingestion_complete(started)
"""
    done = _run(program)
    assert (done.returncode, done.stderr) == (0, "")
    told = [line for line in _lines() if "event" in line["context"]]
    assert sorted(
        (line["operation"], line["context"]["event"]) for line in told if line["message"][-7:] != "started"
    ) == [
        ("block", "complete"),
        ("child _exit", "complete"),
        ("child exit", "complete"),
        ("data_ingestion", "complete"),
    ]
    parents = {line["context"].get("parent_id") for line in told if line["operation"].startswith("child")}
    assert len(parents) == 1
    assert None not in parents


def test_settings_may_change_in_the_middle_of_an_operation() -> None:
    """The operation goes on under the new settings, and ends once, in the new folder."""
    with operation_logger.operation("custom", "work") as op:
        ml_pipeline.configure(log_dir="new/logs", data_dir="new/data", name="renamed")
        (journal,) = Path("new/data/operations").iterdir()
        assert op.operation_id in journal.read_text()
        assert list(Path("ml_pipeline/data_storage/operations").iterdir()) == []
        op.count(records=1)
    assert [line["context"]["event"] for line in _lines()] == ["start"]
    (line,) = [json.loads(line) for line in Path("new/logs/ml_pipeline.log").read_text().splitlines()]
    assert (line["context"]["event"], line["operation_id"], line["pipeline"]) == ("complete", op.operation_id, "test")


def test_a_sink_that_fails_at_the_start_leaves_nothing_open() -> None:
    """Under STRICT the start raises, the work does not begin, and the operation is not left open."""
    bus = Bus()
    types: list[str] = []

    def broken(event: Any) -> None:
        types.append(event.type)
        if event.type == "start":
            raise OSError("sink")

    bus.subscribe("broken", broken)
    log = OperationLogger(bus)
    with pytest.raises(OSError, match="sink"), log.operation("custom"):
        pytest.fail("the work began")
    assert (types, log.open_operations(), _here()) == (["start", "cancel"], {}, (None, None))


def test_threads_end_an_operation_once(seen: Observed) -> None:
    """Of eight threads that complete one operation at once, one does; the others are told."""
    ml_pipeline.configure(strict=False)
    operation_id = seen.log.log_training_start("m")
    barrier = threading.Barrier(8)

    def complete() -> None:
        barrier.wait()
        seen.log.log_training_complete(operation_id)

    threads = [threading.Thread(target=complete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(seen.types) == {"start": 1, "complete": 1}
