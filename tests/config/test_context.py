from __future__ import annotations

import asyncio
import json
import multiprocessing
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline import _runtime
from ml_pipeline.config import _context
from ml_pipeline.config._context import VARIABLES, Carried, current, restore, undo
from ml_pipeline.config.logging_config import main_logger
from ml_pipeline.config.operation_logger import operation_logger

HERE = {
    "operation": "training",
    "operation_id": "o-1",
    "run_id": "r-1",
    "user_id": "me",
    "trace_id": "t",
    "span_id": "s",
}
START_METHODS = [each for each in ("spawn", "fork") if each in multiprocessing.get_all_start_methods()]


@pytest.fixture(autouse=True)
def nothing_set() -> Iterator[None]:
    """Begin in no operation, whatever ran before."""
    tokens = restore(dict.fromkeys(VARIABLES))
    yield
    undo(tokens)


def seen(*extra: object) -> tuple[dict[str, str], tuple[object, ...]]:
    """Return the context this runs in, and what it was given."""
    return current(), extra


def leave_context_behind() -> None:
    """Set a variable and forget to undo it, as a job of someone else may."""
    _context.restore({"user_id": "somebody else"})


def test_every_variable_has_the_key_it_has_on_a_line() -> None:
    """In the order of the line's keys; nothing is set at first."""
    assert list(VARIABLES) == ["operation", "operation_id", "run_id", "user_id", "trace_id", "span_id"]
    assert all(VARIABLES[key] is getattr(_context, key) for key in VARIABLES)
    assert current() == {}


@given(st.lists(st.dictionaries(st.sampled_from(list(VARIABLES)), st.none() | st.text(), max_size=6), max_size=6))
def test_what_is_set_is_undone_layer_by_layer(layers: list[dict[str, str | None]]) -> None:
    """Keys that a layer does not name keep theirs, and None unsets."""
    states, tokens = [current()], []
    for layer in layers:
        tokens.append(restore(layer))
        states.append({key: value for key, value in {**states[-1], **layer}.items() if value is not None})
        assert current() == states[-1]
    for token in reversed(tokens):
        assert current() == states.pop()
        undo(token)
    assert current() == states.pop() == {}


def test_a_carried_function_runs_where_it_was_taken() -> None:
    """In a thread that knows nothing of it, with its arguments; the thread is as before afterwards."""
    tokens = restore(HERE)
    carried, alone = Carried(seen), Carried(seen, {})
    undo(tokens)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(carried, 1, "two").result() == (HERE, (1, "two"))
        assert pool.submit(seen).result() == ({}, ())
        pool.submit(leave_context_behind).result()
        assert pool.submit(carried).result() == (HERE, ())
        assert pool.submit(alone).result() == ({}, ())
        assert pool.submit(seen).result() == ({"user_id": "somebody else"}, ())


def test_the_context_is_undone_after_an_exception() -> None:
    """Which goes on."""

    def fail() -> None:
        assert current() == {"run_id": "r-1"}
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        Carried(fail, {"run_id": "r-1"})()
    assert current() == {}


@pytest.mark.parametrize("method", START_METHODS)
def test_the_context_goes_into_a_process_pool(method: str) -> None:
    """Pickled with the function, whatever way the processes start."""
    tokens = restore(HERE)
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        futures = [pool.submit(Carried(seen), number) for number in range(3)]
        undo(tokens)
        assert [future.result() for future in futures] == [(HERE, (number,)) for number in range(3)]


def log_one(number: int) -> None:
    """Log a record where the pool runs it, and close the files as a worker that ends does."""
    main_logger.info("number %d", number)
    _runtime.shutdown()


def contexts() -> list[tuple[str, object]]:
    """What was logged, and what the lines carry."""
    lines = Path("ml_pipeline/logs/ml_pipeline.log").read_bytes().splitlines()
    return [(line["message"], line.get("context")) for line in map(json.loads, lines)]


def test_fields_of_every_line_go_into_a_thread_pool() -> None:
    """As they are, and only into what was carried; the thread is as before afterwards."""
    lock = threading.Lock()
    with ThreadPoolExecutor(1) as pool:
        with main_logger.contextualize(fold=3, guard=lock, user_id="ann"):
            carried = operation_logger.carry(main_logger.info)
            found = pool.submit(operation_logger.carry(_context.fields.get)).result()
        pool.submit(carried, "inside").result()
        pool.submit(main_logger.info, "outside").result()
        pool.submit(Carried(main_logger.info, {}), "of nobody").result()
    assert found is not None
    assert found["guard"] is lock
    assert contexts() == [("inside", {"fold": 3, "guard": repr(lock)}), ("outside", None), ("of nobody", None)]


@pytest.mark.parametrize("method", START_METHODS)
def test_fields_of_every_line_go_into_a_process_pool(method: str) -> None:
    """As they stand on a line: what cannot be pickled, a secret, a gigabyte is no hindrance, nor sent."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        with main_logger.contextualize(fold=3, guard=threading.Lock(), password="x", long="y" * 10**6):
            carried = operation_logger.carry(log_one)
        assert len(pickle.dumps(carried)) < 20_000
        pool.submit(carried, 1).result()
        pool.submit(log_one, 2).result()
    (first, told), second = contexts()
    assert (first, second) == ("number 1", ("number 2", None))
    assert isinstance(told, dict)
    assert list(told) == ["fold", "guard", "password", "long"]
    assert (told["fold"], told["password"]) == (3, "[redacted]")
    assert told["guard"].startswith("<unlocked _thread.lock object")


def test_a_carried_coroutine_function_has_the_fields_of_every_line() -> None:
    """Also after its first ``await``; around it they are as they were."""

    async def work() -> object:
        await asyncio.sleep(0)
        return _context.fields.get()

    with main_logger.contextualize(fold=3):
        carried = Carried(work)

    async def main() -> object:
        with main_logger.contextualize(fold=4):
            return await carried(), _context.fields.get()

    assert asyncio.run(main()) == ({"fold": 3}, {"fold": 4})


def test_a_carried_function_can_be_carried_on() -> None:
    """From a pool's worker into that worker's pool; the innermost context holds."""
    once = pickle.loads(pickle.dumps(Carried(seen, {"run_id": "r-1"})))
    assert once() == ({"run_id": "r-1"}, ())
    assert Carried(once, {"run_id": "r-2", "user_id": "me"})() == ({"run_id": "r-1"}, ())


def test_tasks_inherit_the_context_and_do_not_see_each_other() -> None:
    """What one task sets, neither its siblings nor its parent see."""

    async def child(name: str) -> list[dict[str, str]]:
        at_first = current()
        restore({"operation_id": name})
        await asyncio.sleep(0)
        return [at_first, current()]

    async def parent() -> list[list[dict[str, str]]]:
        restore({"run_id": "r-1"})
        found = await asyncio.gather(*(child(name) for name in "abc"))
        assert current() == {"run_id": "r-1"}
        return found

    assert asyncio.run(parent()) == [
        [{"run_id": "r-1"}, {"run_id": "r-1", "operation_id": name}] for name in "abc"
    ]  # fmt: skip
    assert current() == {}


def test_a_carried_coroutine_function_runs_where_it_was_taken() -> None:
    """Not only until its first ``await``."""

    async def work(number: int) -> tuple[dict[str, str], int]:
        await asyncio.sleep(0)
        return current(), number

    async def main() -> list[tuple[dict[str, str], int]]:
        carried = [Carried(work, {"user_id": str(number)}) for number in range(3)]
        found = await asyncio.gather(*(each(number) for number, each in enumerate(carried)))
        assert current() == {}
        return list(found)

    assert asyncio.run(main()) == [({"user_id": str(number)}, number) for number in range(3)]
