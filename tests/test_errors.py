from __future__ import annotations

import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import errors
from ml_pipeline.errors import (
    AlertError,
    DashboardError,
    DeliveryError,
    DriftInputError,
    InputDataError,
    LineageError,
    MLPipelineError,
    OperationStateError,
    SettingsError,
    StoreError,
    UnknownChannelError,
    closest,
    flat,
)

TREE = {
    SettingsError: ValueError,
    InputDataError: ValueError,
    OperationStateError: RuntimeError,
    UnknownChannelError: ValueError,
    LineageError: ValueError,
    AlertError: ValueError,
    DeliveryError: ConnectionError,
    StoreError: ConnectionError,
    DashboardError: RuntimeError,
    DriftInputError: ValueError,
}


class Unprintable:
    """Cannot be printed."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Hostile:
    """Prints what would clear a terminal and forge a line."""

    def __repr__(self) -> str:
        return "\x1b[2Jgone\n2026 - INFO - forged\u202e\u2028"


@pytest.mark.parametrize(("kind", "builtin"), TREE.items())
def test_every_error_is_caught_by_the_root_and_by_its_builtin(
    kind: type[MLPipelineError], builtin: type[Exception]
) -> None:
    """Whoever catches ValueError or RuntimeError, or the root, catches it."""
    assert issubclass(kind, MLPipelineError)
    assert issubclass(kind, builtin)
    assert not kind.stops_the_job
    assert getattr(ml_pipeline, kind.__name__) is kind


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    """Each error is drawn once, and nothing is drawn that does not exist."""
    drawn = [line.split()[1] for line in str(errors.__doc__).splitlines() if "── " in line]
    assert drawn == [kind.__name__ for kind in TREE]
    assert {name for name in errors.__all__ if name.endswith("Error")} == {*drawn, "MLPipelineError"}


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (SettingsError("a port must be free"), "a port must be free"),
        (SettingsError("a port must be free", 80), "a port must be free (got 80)"),
        (SettingsError("a port must be free", None), "a port must be free (got None)"),
        (
            SettingsError("a port must be free", 80, "choose one above 1024"),
            "a port must be free (got 80); choose one above 1024",
        ),
        (SettingsError("a port must be free", remedy="choose another"), "a port must be free; choose another"),
        (SettingsError("a name must be\none line", "a\nb"), "a name must be one line (got 'a\\nb')"),
        (SettingsError("x", Hostile()), "x (got \\x1b[2Jgone 2026 - INFO - forged\\u202e)"),
        (SettingsError("x\x1b[2J"), "x\\x1b[2J"),
    ],
)
def test_a_message_is_the_rule_the_value_and_the_remedy_on_one_line(error: MLPipelineError, text: str) -> None:
    """Whatever the value prints, the message ends no line and steers no terminal."""
    assert str(error) == text


def test_the_parts_of_a_message_are_attributes() -> None:
    """A caller can show them its own way."""
    error = AlertError("a severity must be known", "bad", "use one of three")
    assert (error.rule, error.given, error.remedy) == ("a severity must be known", "bad", "use one of three")
    assert repr(error) == "AlertError('a severity must be known')"


@pytest.mark.parametrize("value", [Unprintable(), 10**5000, [Unprintable()]], ids=["object", "integer", "list"])
def test_a_value_that_cannot_be_printed_is_named_by_its_type(value: object) -> None:
    """The error about it can still be printed."""
    assert str(SettingsError("x", value)).startswith(f"x (got <{type(value).__name__} instance at 0x")


def test_a_long_value_is_shortened() -> None:
    """A message is for a person."""
    message = str(SettingsError("x", "y" * 1_000_000))
    assert message == "x (got '" + "y" * 198 + "…)"


@given(st.text())
def test_flat_text_is_one_printable_line(text: str) -> None:
    """Whatever went in, and flattening again changes nothing."""
    line = flat(text)
    assert line.isprintable()
    assert flat(line) == line


@pytest.mark.parametrize(
    ("name", "known", "prefix", "suggestion"),
    [
        ("log_dri", ["log_dir", "data_dir"], "", "did you mean 'log_dir'?"),
        ("zzz", ["b", "a"], "", "known: a, b"),
        ("", ["a"], "", "known: a"),
        ("P_TOKEN", ["P_NAME", "TOKEN"], "P_", "did you mean 'TOKEN'?"),
        ("P_ZZZ", ["P_NAME", "TOKEN"], "P_", "known: P_NAME, TOKEN"),
    ],
)
def test_the_closest_name_is_suggested_or_all_are_listed(
    name: str, known: list[str], prefix: str, suggestion: str
) -> None:
    """A prefix that all names share makes none of them closer."""
    assert closest(name, known, prefix=prefix) == suggestion


def raise_in_worker(value: object) -> None:
    """Fail as a job in a pool does."""
    error = LineageError("a node must have a name", threading.Lock() if value == "lock" else value, "name it")
    error.stops_the_job = True
    error.add_note("in the worker")
    raise error


@pytest.mark.parametrize("method", ["spawn", "fork"])
def test_an_error_comes_home_from_a_worker_process(method: str) -> None:
    """With its type, message, notes and whether it stops the job; even about a value that cannot travel."""
    if method not in multiprocessing.get_all_start_methods():
        pytest.skip(f"this system has no {method}")
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        for value in ("plain", 3, None, {"a": [1]}, "lock"):
            with pytest.raises(LineageError) as caught:
                pool.submit(raise_in_worker, value).result()
            shown = "<unlocked _thread.lock object at 0x" if value == "lock" else f"{value!r})"
            assert str(caught.value).startswith(f"a node must have a name (got {shown}")
            assert str(caught.value).endswith("; name it")
            assert caught.value.stops_the_job
            assert caught.value.__notes__ == ["in the worker"]


@pytest.mark.parametrize("kind", [MLPipelineError, *TREE])
def test_an_error_survives_pickling_twice(kind: type[MLPipelineError]) -> None:
    """From a worker's worker, too; an error without a value stays one without."""
    bare = kind("rule", remedy="remedy")
    about = [kind("rule", value, "remedy") for value in (None, "text", 1.5, ["a", {"b": 1}], Hostile())]
    for error in (bare, *about):
        once = pickle.loads(pickle.dumps(error))
        twice = pickle.loads(pickle.dumps(once))
        assert type(twice) is kind
        assert (twice.rule, twice.remedy) == ("rule", "remedy")
        assert str(error) == str(once) == str(twice)
