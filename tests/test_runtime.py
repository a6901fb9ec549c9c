from __future__ import annotations

import functools
import io
import multiprocessing
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline._runtime import Lazy, guard
from ml_pipeline.errors import AlertError, LineageError, MLPipelineError, SettingsError
from ml_pipeline.settings import Settings, load_settings
from tests.processes import in_fork, python_answer, run_python

START_METHODS = [each for each in ("spawn", "fork") if each in multiprocessing.get_all_start_methods()]


class Opened:
    """Counts how often a resource was built and closed, and under which pipeline's name."""

    def __init__(self, phase: _runtime.Phase = 2) -> None:
        self.history: list[str] = []
        self.lazy = Lazy(self.build, self.close, phase)

    def build(self, settings: Settings) -> object:
        """Open one."""
        self.history.append(f"open {settings.name}")
        return object()

    def close(self, value: object) -> None:
        """Close it."""
        self.history.append(f"close {_runtime.settings().name}")


@pytest.fixture
def heard(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, Settings]]:
    """What the only listener was told."""
    told: list[tuple[Settings, Settings]] = []
    monkeypatch.setattr(_runtime._state, "listeners", [])
    _runtime.on_configure(lambda before, after: told.append((before, after)))
    return told


# configure


def test_what_is_configured_reaches_processes_started_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """They agree on everything, except that secrets stay here and unset is unset."""
    monkeypatch.setenv("ML_PIPELINE_METRICS_PORT", "9100")
    ml_pipeline.configure(
        log_dir="elsewhere",
        audit_required=True,
        alert_email_to="a@b.c,d@e.f",
        metrics_port=None,
        grafana_token="s3cret",
    )
    code = (
        "import json, os\nfrom ml_pipeline import _runtime\ns = _runtime.settings()\n"
        "print(json.dumps([str(s.log_dir), s.audit_required, s.alert_email_to, s.metrics_port, s.grafana_token, s.name]))"
    )
    assert python_answer(code) == [str(Path.cwd() / "elsewhere"), True, ["a@b.c", "d@e.f"], None, None, "test"]
    assert "s3cret" not in repr(dict(os.environ))


def test_the_users_own_secret_stays_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was put there for workers, and a whole set of settings does not take it away."""
    monkeypatch.setenv("GRAFANA_TOKEN", "theirs")
    ml_pipeline.configure(load_settings())
    ml_pipeline.configure(grafana_token="ours")
    assert os.environ["GRAFANA_TOKEN"] == "theirs"
    assert _runtime.settings().grafana_token == "ours"


def test_configured_values_add_up() -> None:
    """A later call keeps what an earlier one said."""
    ml_pipeline.configure(name="first", smtp_user="me")
    after = ml_pipeline.configure(name="second")
    assert (after.name, after.smtp_user, after.strict) == ("second", "me", True)
    assert _runtime.settings() is after


def test_a_whole_set_of_settings_can_be_put_in_force() -> None:
    """As another process sends them; single values win over it."""
    sent = load_settings({"name": "sent", "smtp_user": "them"})
    after = ml_pipeline.configure(sent, smtp_user="me")
    assert (after.name, after.smtp_user) == ("sent", "me")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"smtp_port": 0}, "smtp_port: input should be greater than or equal to 1"),
        ({"smtp_prot": 1}, r"a setting must be one of the known names \(got 'smtp_prot'\); did you mean 'smtp_port'"),
        ({"log_dir": "a\0b"}, "log_dir: must be text that an environment variable can hold"),
    ],
)
def test_a_wrong_configuration_changes_nothing(values: dict[str, object], message: str) -> None:
    """Neither settings nor variables, and what is open stays open."""
    opened = Opened()
    opened.lazy.get()
    settings, environment = _runtime.settings(), dict(os.environ)
    with pytest.raises(SettingsError, match=message):
        ml_pipeline.configure(name="other", **values)
    assert _runtime.settings() is settings
    assert dict(os.environ) == environment
    assert opened.history == ["open test"]
    assert opened.lazy.is_open


def test_what_is_no_set_of_settings_is_refused() -> None:
    """A dictionary is given by name."""
    with pytest.raises(SettingsError) as caught:
        ml_pipeline.configure({"name": "x"})  # type: ignore[arg-type]
    assert str(caught.value) == (
        "configure takes a Settings, or settings by name (got {'name': 'x'}); as in log_dir=\"logs\""
    )


def test_resources_are_closed_under_the_old_settings_and_opened_under_the_new() -> None:
    """What waits in a resource belongs to where it was opened."""
    opened = Opened()
    first = opened.lazy.get()
    ml_pipeline.configure(name="new")
    assert not opened.lazy.is_open
    assert opened.lazy.get() is not first
    assert opened.history == ["open test", "close test", "open new"]


def test_threads_that_configure_at_once_lose_nothing() -> None:
    """Each one's settings are in force at the end."""
    fields = {"smtp_user": "a", "smtp_port": 1, "metrics_port": 2, "grafana_user": "b", "metrics_host": "::1"}
    together = threading.Barrier(len(fields))

    def configure(field: str, value: object) -> None:
        together.wait()
        ml_pipeline.configure(None, **{field: value})

    run_threads([functools.partial(configure, field, value) for field, value in fields.items()])
    assert {field: getattr(_runtime.settings(), field) for field in fields} == fields


def run_threads(actions: list[Callable[[], object]]) -> None:
    """Run all at once, each in a thread, to their ends."""
    threads = [threading.Thread(target=action) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# listeners


def test_listeners_hear_of_a_change_under_something_open(heard: list[tuple[Settings, Settings]]) -> None:
    """Not of a first configuration, and not of one that changes nothing."""
    ml_pipeline.configure(name="before")
    assert heard == []
    Opened().lazy.get()
    ml_pipeline.configure(name="before")
    assert heard == []
    Opened().lazy.get()
    ml_pipeline.configure(name="after")
    assert [(before.name, after.name) for before, after in heard] == [("before", "after")]


def test_a_failing_listener_does_not_undo_the_change(heard: list[tuple[Settings, Settings]]) -> None:
    """It is counted, and the others hear of it."""

    def fail(before: Settings, after: Settings) -> None:
        raise OSError("disk full")

    _runtime.on_configure(fail)
    _runtime.on_configure(lambda before, after: heard.append((before, after)))
    ml_pipeline.configure(strict=False)
    Opened().lazy.get()
    ml_pipeline.configure(name="after")
    assert _runtime.settings().name == "after"
    assert len(heard) == 2
    assert _runtime.tally.telemetry_errors == {("configure", "OSError"): 1}


# override and reset


def test_an_override_lasts_for_its_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then settings and variables are exactly what they were, nested or not."""
    monkeypatch.setenv("ML_PIPELINE_SMTP_USER", "outside")
    settings, environment = ml_pipeline.configure(smtp_port=25), dict(os.environ)
    with ml_pipeline.override(smtp_user="one") as one:
        assert one is _runtime.settings()
        with ml_pipeline.override(smtp_user="two", smtp_port=26):
            assert (_runtime.settings().smtp_user, os.environ["ML_PIPELINE_SMTP_USER"]) == ("two", "two")
            ml_pipeline.configure(metrics_port=9100)
        assert _runtime.settings() is one
        assert os.environ["ML_PIPELINE_SMTP_USER"] == "one"
        assert "ML_PIPELINE_METRICS_PORT" not in os.environ
    assert _runtime.settings() is settings
    assert dict(os.environ) == environment
    ml_pipeline.reset()
    assert os.environ["ML_PIPELINE_SMTP_USER"] == "outside"
    assert "ML_PIPELINE_SMTP_PORT" not in os.environ


def test_an_override_ends_with_an_exception_too() -> None:
    """Whether the block raises, or the override itself is refused."""
    settings, environment = _runtime.settings(), dict(os.environ)
    with pytest.raises(KeyboardInterrupt), ml_pipeline.override(name="inside"):
        raise KeyboardInterrupt
    with pytest.raises(SettingsError, match="smtp_port"), ml_pipeline.override(smtp_port=0):
        pytest.fail("the block must not run")
    assert _runtime.settings() is settings
    assert dict(os.environ) == environment


def test_resources_opened_in_an_override_are_closed_at_its_end() -> None:
    """Under the settings of the block; those around it are opened anew."""
    opened = Opened()
    opened.lazy.get()
    with ml_pipeline.override(name="inside"):
        opened.lazy.get()
    opened.lazy.get()
    assert opened.history == ["open test", "close test", "open inside", "close inside", "open test"]


def test_reset_forgets_everything(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """What was configured, opened, counted and said; variables are as they were before the first call."""
    ml_pipeline.reset()
    monkeypatch.setenv("ML_PIPELINE_NAME", "outside")
    ml_pipeline.configure(name="inside", smtp_user="me")
    opened = Opened()
    opened.lazy.get()
    _runtime.tally.audit_records += 1
    _runtime.tally.log_records["audit", "INFO"] += 1
    _runtime.tally.log_records_dropped["OSError"] += 1
    _runtime.telemetry_error("lineage", OSError("full"))
    ml_pipeline.reset()
    tally = _runtime.tally
    assert (tally.audit_records, tally.log_records, tally.log_records_dropped, tally.telemetry_errors) == (
        0,
        {},
        {},
        {},
    )
    assert not opened.lazy.is_open
    assert (_runtime.settings().name, _runtime.settings().smtp_user) == ("outside", None)
    assert "ML_PIPELINE_SMTP_USER" not in os.environ
    _runtime.telemetry_error("lineage", OSError("full"))
    assert capsys.readouterr().err.count("lineage: OSError: full") == 2


def test_settings_are_read_once() -> None:
    """Racing threads get the same ones."""
    ml_pipeline.reset()
    found: list[Settings] = []
    together = threading.Barrier(8)

    def read() -> None:
        together.wait()
        found.append(_runtime.settings())

    run_threads([read] * 8)
    assert all(each is found[0] for each in found)


# Lazy


def test_racing_threads_open_a_resource_once() -> None:
    """All of them get the one."""
    opened, found = Opened(), []
    together = threading.Barrier(16)

    def get() -> None:
        together.wait()
        found.append(opened.lazy.get())

    run_threads([get] * 16)
    assert opened.history == ["open test"]
    assert all(each is found[0] for each in found)
    assert opened.lazy.peek() is found[0]


def test_a_resource_that_cannot_be_opened_is_tried_again() -> None:
    """The next use may find the disk mended; nothing is open until then."""
    answers: list[object] = [OSError("disk full"), "open"]

    def build(settings: Settings) -> object:
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return answer

    lazy: Lazy[object] = Lazy(build, lambda value: None)
    with pytest.raises(OSError, match="disk full"):
        lazy.get()
    assert not lazy.is_open
    assert lazy.peek() is None
    assert lazy.get() == "open"


def test_a_forked_child_opens_its_own_and_leaves_the_parents_alone() -> None:
    """Whatever the child closes, the parent goes on with what it opened."""
    opened = Opened()
    ours = opened.lazy.get()

    def in_child() -> list[object]:
        before = opened.lazy.is_open
        own = opened.lazy.get() is not ours
        _runtime.shutdown()
        return [before, own, opened.history]

    assert in_fork(in_child) == [False, True, ["open test", "open test", "close test"]]
    assert opened.history == ["open test"]
    assert opened.lazy.peek() is ours


def test_a_forked_child_is_not_stopped_by_a_lock_of_its_parent() -> None:
    """Another thread may be opening something at the moment of the fork."""
    is_opening, may_end = threading.Event(), threading.Event()

    def open_slowly(settings: Settings) -> object:
        is_opening.set()
        return may_end.wait()

    slow = Lazy(open_slowly, lambda value: None)
    thread = threading.Thread(target=slow.get)
    thread.start()
    is_opening.wait()
    try:
        assert in_fork(lambda: bool(Opened().lazy.get())) is True
    finally:
        may_end.set()
        thread.join()


def write_last_words(path: Path) -> None:
    """Say who closes the resource."""
    path.write_text(f"closed in {os.getpid()}", encoding="utf-8")


WORKERS_FILE: Lazy[Path] = Lazy(lambda settings: settings.data_dir, write_last_words, phase=1)


def use_in_worker() -> tuple[bool, str, bool]:
    """Open the resource as a job in a pool does."""
    was_open = WORKERS_FILE.is_open
    return was_open, str(WORKERS_FILE.get()), _runtime.settings().strict


@pytest.mark.parametrize("method", START_METHODS)
def test_a_pool_worker_has_the_settings_opens_its_own_and_closes_it_at_its_end(method: str, tmp_path: Path) -> None:
    """Forked workers leave past ``atexit``, and still end in order."""
    path = tmp_path / "closed"
    ml_pipeline.configure(data_dir=path)
    if method == "fork":
        WORKERS_FILE.get()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as pool:
        assert pool.submit(use_in_worker).result() == (False, str(path), True)
        pid = pool.submit(os.getpid).result()
    assert path.read_text(encoding="utf-8") == f"closed in {pid}"


# shutdown


@pytest.fixture
def no_actions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only this test's actions run at its end."""
    monkeypatch.setattr(_runtime._state, "exit_actions", [])


def test_workers_are_closed_before_files_and_the_last_opened_first(no_actions: None) -> None:
    """What workers still write needs the files, and a resource may use those opened before it."""
    order: list[str] = []
    phases: dict[str, _runtime.Phase] = {"file": 2, "worker": 1, "second file": 2, "second worker": 1}
    for name, phase in phases.items():
        Lazy(lambda settings, name=name: name, order.append, phase).get()  # type: ignore[misc]
    _runtime.on_exit(lambda: order.append("last words"))
    _runtime.shutdown()
    assert order == ["last words", "second worker", "worker", "second file", "file"]
    _runtime.shutdown()
    assert order[5:] == ["last words"]


def test_what_is_reopened_at_the_end_is_closed_again() -> None:
    """A job that waited may write to a file that was closed, and a file's last words may wake a worker."""
    file, order = Opened(), []
    worker = Lazy(lambda settings: "worker", lambda value: order.append(file.lazy.get()), 1)
    sends = Lazy(lambda settings: "sends", lambda value: order.append(worker.get()), 2)
    worker.get()
    sends.get()
    _runtime.shutdown()
    assert not file.lazy.is_open
    assert not worker.is_open
    assert file.history.count("open test") == file.history.count("close test") == 2


def test_a_resource_that_reopens_itself_does_not_stop_the_end() -> None:
    """It is closed a few times, and then left."""
    closed, goes_on = [], [True]

    def reopen(value: str) -> None:
        closed.append(value)
        if goes_on:
            lazy.get()

    lazy: Lazy[str] = Lazy(lambda settings: "itself", reopen)
    lazy.get()
    _runtime.shutdown()
    assert len(closed) == 3
    goes_on.clear()
    _runtime.shutdown()
    assert not lazy.is_open


def test_one_that_cannot_be_closed_does_not_keep_the_others_open(no_actions: None) -> None:
    """It is counted; so is an action that fails."""
    ml_pipeline.configure(strict=False)
    opened = Opened()
    opened.lazy.get()

    def fail(*_: object) -> None:
        raise OSError("disk full")

    Lazy(lambda settings: "broken", fail).get()
    _runtime.on_exit(fail)
    _runtime.shutdown()
    assert not opened.lazy.is_open
    assert _runtime.tally.telemetry_errors == {("shutdown", "OSError"): 2}


@pytest.mark.parametrize("ending", ["pass", "raise SystemExit(0)", "os.kill(os.getpid(), signal.SIGINT)"])
def test_everything_is_closed_when_the_process_ends(ending: str) -> None:
    """At its end, at an exit, and after Ctrl-C."""
    code = (
        "import os, signal\nfrom ml_pipeline import _runtime\n"
        "_runtime.Lazy(lambda settings: 1, lambda value: print('closed')).get()\n"
        "_runtime.on_exit(lambda: print('last words'))\n" + ending
    )
    assert run_python(code).stdout == "last words\nclosed\n"


# guard


def test_telemetry_never_breaks_the_job_and_never_hides(capsys: pytest.CaptureFixture[str]) -> None:
    """A failure is swallowed, counted each time, and said the first time."""
    ml_pipeline.configure(strict=False)
    for text in ("disk full", "still full"):
        with guard("lineage"):
            raise OSError(text)
    with guard("alerting"):
        raise OSError("disk full")
    assert _runtime.tally.telemetry_errors == {("lineage", "OSError"): 2, ("alerting", "OSError"): 1}
    assert capsys.readouterr().err == (
        "ml_pipeline: lineage: OSError: disk full (counted in ml_pipeline_telemetry_errors_total)\n"
        "ml_pipeline: alerting: OSError: disk full (counted in ml_pipeline_telemetry_errors_total)\n"
    )


def test_errors_of_our_own_are_said_once_a_message(capsys: pytest.CaptureFixture[str]) -> None:
    """Two misuses are two matters, one misuse repeated is one."""
    ml_pipeline.configure(strict=False)
    for given_value in (1, 2, 1):
        with guard("lineage"):
            raise LineageError("a node must have a name", given_value, "name it")
    assert [line.split(" (got")[1][:3] for line in capsys.readouterr().err.splitlines()] == [" 1)", " 2)"]


def test_strict_telemetry_raises() -> None:
    """What is swallowed for users is seen by tests; it is counted all the same."""
    with pytest.raises(OSError, match="disk full"), guard("lineage"):
        raise OSError("disk full")
    assert _runtime.tally.telemetry_errors == {("lineage", "OSError"): 1}


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_is_no_exception_goes_on(kind: type[BaseException]) -> None:
    """Ctrl-C, an exit and a cancellation are the job's, not telemetry's."""
    ml_pipeline.configure(strict=False)
    with pytest.raises(kind), guard("lineage"):
        raise kind
    assert not _runtime.tally.telemetry_errors


def test_an_error_that_is_meant_to_stop_the_job_stops_it() -> None:
    """Such as an audit trail that is required and cannot be written; whoever raised it has counted it."""
    ml_pipeline.configure(strict=False)
    stop = AlertError("an operation that cannot be audited does not run")
    stop.stops_the_job = True
    with pytest.raises(AlertError, match="cannot be audited"), guard("audit"):
        raise stop
    assert not _runtime.tally.telemetry_errors


def test_what_would_be_lost_can_be_kept() -> None:
    """The block's owner is told of the failure, and may itself fail."""
    ml_pipeline.configure(strict=False)
    kept: list[Exception] = []
    failed = OSError("disk full")
    with guard("lineage", kept.append):
        raise failed
    assert kept == [failed]

    def fail(error: Exception) -> None:
        raise ValueError("this too")

    with guard("alerting", fail):
        raise failed
    assert _runtime.tally.telemetry_errors == {
        ("lineage", "OSError"): 1,
        ("alerting", "OSError"): 1,
        ("alerting", "ValueError"): 1,
    }


def test_a_block_that_does_not_fail_is_left_alone() -> None:
    """Nothing is counted."""
    with guard("lineage", lambda error: pytest.fail("nothing failed")):
        pass
    assert not _runtime.tally.telemetry_errors


class UnprintableError(Exception):
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no")


def test_an_error_that_cannot_be_printed_is_still_said(capsys: pytest.CaptureFixture[str]) -> None:
    """By its type."""
    ml_pipeline.configure(strict=False)
    with guard("lineage"):
        raise UnprintableError
    assert "ml_pipeline: lineage: UnprintableError: <RuntimeError when printed> (counted" in capsys.readouterr().err


def test_what_is_said_is_one_bounded_line_that_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the message of an exception is."""
    ml_pipeline.configure(strict=False)
    for sink, text in (("a", "\x1b[2J\nforged: line\u2028\u202e"), ("b", "x" * 1_000_000), ("c", "\udcff")):
        with guard(sink):
            raise OSError(text)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert all(line.isprintable() and len(line) < 2_100 for line in lines)
    assert lines[0].startswith("ml_pipeline: a: OSError: \\x1b[2J forged: line")
    assert lines[2].startswith("ml_pipeline: c: OSError: \\udcff")


class BrokenStream(io.StringIO):
    """Fails in a way of its own."""

    def write(self, text: str) -> int:
        """Fail."""
        raise RuntimeError("no writing here")


def closed_stream() -> io.StringIO:
    """Return a stream that somebody closed."""
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream", [None, BrokenStream(), closed_stream(), object()], ids=["none", "broken", "closed", "odd"]
)
def test_without_a_stderr_the_job_goes_on(stream: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nowhere to say it, and it is counted."""
    ml_pipeline.configure(strict=False)
    monkeypatch.setattr(sys, "stderr", stream)
    with guard("lineage"):
        raise OSError("disk full")
    assert _runtime.tally.telemetry_errors == {("lineage", "OSError"): 1}


def test_a_stderr_without_unicode_gets_it_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than nothing."""
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii", errors="strict", write_through=True)
    monkeypatch.setattr(sys, "stderr", stream)
    _runtime.say_once("key", "café")
    assert raw.getvalue() == b"ml_pipeline: caf\\xe9\n"


def test_racing_threads_say_it_once(capsys: pytest.CaptureFixture[str]) -> None:
    """One line, however many fail at once."""
    together = threading.Barrier(8)

    def say() -> None:
        together.wait()
        _runtime.say_once("key", "it failed")

    run_threads([say] * 8)
    assert capsys.readouterr().err == "ml_pipeline: it failed\n"


def test_what_is_said_and_counted_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    """Past the bound it says that it says no more, once, and new failures are counted together."""
    ml_pipeline.configure(strict=False)
    for number in range(1_010):
        _runtime.telemetry_error(f"sink {number}", OSError("x"))
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1_001
    assert lines[-1] == "ml_pipeline: 1000 different failures were said; the others are only counted"
    errors = _runtime.tally.telemetry_errors
    assert (len(errors), errors["other", "other"], errors.total()) == (1_001, 10, 1_010)


def test_an_attempt_returns_what_happened() -> None:
    """The result or the exception; what is no `Exception` goes on."""
    assert _runtime.attempt(int, "7") == (7, None)
    result, broken = _runtime.attempt(int, "x")
    assert result is None
    assert isinstance(broken, ValueError)
    with pytest.raises(KeyboardInterrupt):
        _runtime.attempt(interrupt)


def interrupt() -> None:
    """Be stopped by Ctrl-C."""
    raise KeyboardInterrupt


def test_the_package_offers_little_and_loads_settings_on_demand() -> None:
    """`Settings` is there for whoever asks, and no other name is."""
    assert ml_pipeline.Settings is Settings
    assert sorted(ml_pipeline.__all__) == ml_pipeline.__all__
    assert all(hasattr(ml_pipeline, name) for name in ml_pipeline.__all__)
    with pytest.raises(AttributeError, match="module 'ml_pipeline' has no attribute 'setings'"):
        _ = ml_pipeline.setings
    assert issubclass(MLPipelineError, Exception)
