"""The global state department: the only module whose state changes while a process runs.

It holds the settings in force, the resources opened under them, and the plain counters of what went wrong. Everything
else in the package is either a value, or an object that asks here for what it needs when it is first used.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from ml_pipeline import _platform
from ml_pipeline.errors import MLPipelineError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from types import TracebackType

    from ml_pipeline.settings import Settings

__all__ = [
    "Lazy",
    "Tally",
    "attempt",
    "configure",
    "guard",
    "on_configure",
    "on_exit",
    "override",
    "reset",
    "say_once",
    "settings",
    "shutdown",
    "tally",
    "telemetry_error",
]

T = TypeVar("T")

Phase = Literal[1, 2]
"""When a resource is closed: 1 what works off the caller's thread, 2 the files and stores it writes to."""

_MOST_SAID = 1_000


class Tally:
    """Plain integers that hot paths count with, and a metrics collector reads.

    An increment of a Prometheus counter costs a tenth of a log record; a dictionary of integers costs next to nothing.
    The interpreter's lock makes each update whole enough: two threads racing for one key may lose an increment of a
    statistic, never a record.
    """

    __slots__ = ("audit_records", "log_records", "log_records_dropped", "telemetry_errors")

    def __init__(self) -> None:
        self.log_records: Counter[tuple[str, str]] = Counter()
        """Records written, by (channel, level)."""
        self.log_records_dropped: Counter[str] = Counter()
        """Records that could not be written, by reason."""
        self.telemetry_errors: Counter[tuple[str, str]] = Counter()
        """Failures of this package itself, by (sink, exception type)."""
        self.audit_records = 0
        """Audit records on disk."""

    def clear(self) -> None:
        """Start again from nothing; meant for tests."""
        for counts in (self.log_records, self.log_records_dropped, self.telemetry_errors):
            counts.clear()
        self.audit_records = 0


class _State:
    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.settings: Settings | None = None
        self.given: dict[str, object] = {}
        self.environment_before: dict[str, str | None] = {}
        self.resources: list[Lazy[Any]] = []
        self.parents: list[object] = []
        self.listeners: list[Callable[[Settings, Settings], None]] = []
        self.exit_actions: list[Callable[[], None]] = []
        self.said: set[str] = set()
        self.hooked = False


_state: Final = _State()
tally: Final = Tally()


def settings() -> Settings:
    """Return the settings in force, reading them at the first call.

    Returns:
        The settings. Where one of them is wrong, the error is said once on stderr and the sound ones are used, for a
        running pipeline must not stop over telemetry; `configure` and the command line raise instead.

    Raises:
        SettingsError: If a setting is wrong and ``ML_PIPELINE_STRICT`` is on.
    """
    return _state.settings or _first_settings()


def _first_settings() -> Settings:
    from ml_pipeline.settings import load_settings, salvage_settings

    with _state.lock:
        if _state.settings is None:
            try:
                _state.settings = load_settings(_state.given)
            except SettingsError as wrong:
                salvaged = salvage_settings(_state.given)
                if salvaged.strict:
                    raise
                _state.settings = salvaged
                tally.telemetry_errors["settings", "SettingsError"] += 1
                say_once(f"settings:{wrong}", f"{wrong}; going on without it")
        return _state.settings


def configure(settings: Settings | None = None, /, **values: object) -> Settings:
    """Put settings in force for this process and for the ones it starts from now on.

    Files, stores and threads opened under the old settings are closed, and opened anew when next used. What is given by
    name is also written to the ``ML_PIPELINE_*`` variables of this process (never a secret), so that workers started
    later agree; a pool that is already running keeps the old ones.

    Args:
        settings: A whole set, for instance from another process.
        **values: Single settings by name, such as ``log_dir="logs"``; they are added to those of earlier calls.

    Returns:
        The settings now in force.

    Raises:
        SettingsError: If a name is unknown or a value out of range; nothing is changed then.
    """
    from ml_pipeline.settings import load_settings

    with _state.lock:
        before = _state.settings
        if settings is not None:
            values = {**settings.model_dump(), **values}
        given = {**_state.given, **values}
        after = load_settings(given)
        was_open = bool(_state.resources)
        _state.given, _state.settings = given, after
        _export(after, values)
    _close_resources()
    if before is not None and was_open and before != after:
        for listener in _state.listeners:
            listener(before, after)
    return after


@contextlib.contextmanager
def override(**values: object) -> Iterator[Settings]:
    """Put settings in force for the length of a block, then the earlier ones again; meant for tests.

    Args:
        **values: Settings by name, as `configure` takes them.

    Yields:
        The settings in force inside the block.

    Raises:
        SettingsError: If a name is unknown or a value out of range.
    """
    with _state.lock:
        given, environment = _state.given, dict(_state.environment_before)
        variables = {name: os.environ.get(name) for name in _variables()}
    try:
        yield configure(**values)
    finally:
        with _state.lock:
            _state.given, _state.environment_before, _state.settings = given, environment, None
            _restore(variables)
        _close_resources()


def reset() -> None:
    """Forget everything: close what is open, and read the settings anew at the next use; meant for tests."""
    _close_resources()
    with _state.lock:
        _restore(_state.environment_before)
        _state.given, _state.environment_before, _state.settings = {}, {}, None
        _state.said.clear()
    tally.clear()


def on_configure(listener: Callable[[Settings, Settings], None]) -> None:
    """Have *listener* called with the settings before and after, when they change under something that is open."""
    _state.listeners.append(listener)


class Lazy(Generic[T]):
    """A resource that is opened at its first use, and opened anew after `configure` and after a fork.

    Thread-safe. A child process never closes what its parent opened: it forgets the resource and opens its own.

    Args:
        build: Opens the resource under the settings in force.
        close: Gives it back.
        phase: When it is closed; see `Phase`.
    """

    __slots__ = ("_build", "_close", "_phase", "_value")

    def __init__(self, build: Callable[[Settings], T], close: Callable[[T], None], phase: Phase = 2) -> None:
        self._build = build
        self._close = close
        self._phase = phase
        self._value: T | None = None

    @property
    def is_open(self) -> bool:
        """Whether the resource has been opened and not closed since."""
        return self._value is not None

    def get(self) -> T:
        """Return the resource, opening it if need be.

        Raises:
            Exception: Whatever opening it raises.
        """
        value = self._value
        return value if value is not None else self._open()

    def peek(self) -> T | None:
        """Return the resource if it is open."""
        return self._value

    def _open(self) -> T:
        with _state.lock:
            if self._value is None:
                _hook_process()
                self._value = self._build(settings())
                _state.resources.append(self)
            return self._value

    def _take(self) -> T | None:
        value, self._value = self._value, None
        return value

    def _shut(self) -> None:
        value = self._take()
        if value is not None:
            with guard("shutdown"):
                self._close(value)


def on_exit(action: Callable[[], None]) -> None:
    """Have *action* called at the end of the process, while everything is still open."""
    with _state.lock:
        _hook_process()
        _state.exit_actions.append(action)


def shutdown() -> None:
    """Say what is still to be said, flush and close everything; what is used afterwards is opened anew."""
    for action in list(_state.exit_actions):
        with guard("shutdown"):
            action()
    _close_resources()


def _close_resources() -> None:
    # Workers first: what they still write needs the files. Closed outside the lock, which a worker may be waiting for.
    for phase in (1, 2):
        with _state.lock:
            due = [resource for resource in _state.resources if resource._phase == phase]
            _state.resources = [resource for resource in _state.resources if resource._phase != phase]
        for resource in due:
            resource._shut()


def _hook_process() -> None:
    if not _state.hooked:
        _state.hooked = True
        atexit.register(shutdown)
        _platform.after_fork_in_child(_forget_parent)


def _forget_parent() -> None:
    _state.lock = threading.RLock()
    # Kept, not dropped: a garbage-collected SQLite connection would touch the parent's files.
    _state.parents += [resource._take() for resource in _state.resources]
    _state.resources = []


def _variables() -> list[str]:
    from ml_pipeline.settings import Settings, environment_name

    return [environment_name(field) for field in Settings.model_fields]


def _export(after: Settings, values: Mapping[str, object]) -> None:
    from ml_pipeline.settings import environment_name, environment_text

    for field in values:
        text = environment_text(after, field)
        name = environment_name(field)
        _state.environment_before.setdefault(name, os.environ.get(name))
        _restore({name: text})


def _restore(variables: Mapping[str, str | None]) -> None:
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


class guard:  # noqa: N801 - reads as a statement: `with guard("lineage"):`
    """The one place where the package catches everything: telemetry never breaks the job, and never hides.

    An ``Exception`` inside the block is counted, said once on stderr and swallowed; with ``ML_PIPELINE_STRICT=1`` it
    goes on. What is not an ``Exception`` (Ctrl-C, exit, cancellation) always goes on, and so does an error of ours
    that is meant to stop the job, such as an audit trail that is required and cannot be written.

    Args:
        sink: Who failed, as it stands in ``ml_pipeline_telemetry_errors_total{sink}``.
        on_error: Called with the exception, to keep what would otherwise be lost.
    """

    __slots__ = ("_on_error", "_sink")

    def __init__(self, sink: str, on_error: Callable[[Exception], None] | None = None) -> None:
        self._sink = sink
        self._on_error = on_error

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception) or getattr(error, "stops_the_job", False):
            return False
        telemetry_error(self._sink, error)
        if self._on_error is not None:
            self._on_error(error)
        return not settings().strict


def attempt(action: Callable[..., T], *args: object) -> tuple[T, None] | tuple[None, Exception]:
    """Run code that is not ours and may raise anything, such as the ``repr`` of a logged object.

    This holds the package's only broad ``except``; `guard` is built on the same promise for our own code.

    Args:
        action: What to run.
        *args: What to give it.

    Returns:
        Its result and None, or None and what it raised.
    """
    try:
        return action(*args), None
    except Exception as error:  # noqa: BLE001 - the one place, see above
        return None, error


def telemetry_error(sink: str, error: Exception) -> None:
    """Count a failure of telemetry, and say it once on stderr.

    Args:
        sink: Who failed.
        error: What happened. The same type from the same sink is said once; of our own errors, the same message.
    """
    kind = type(error).__name__
    tally.telemetry_errors[sink, kind] += 1
    matter = str(error) if isinstance(error, MLPipelineError) else kind
    say_once(f"{sink}:{matter}", f"{sink}: {kind}: {error} (counted in ml_pipeline_telemetry_errors_total)")


def say_once(key: str, line: str) -> None:
    """Write one line to stderr, the first time only; the set of what was said is bounded.

    Args:
        key: What makes it the same matter.
        line: The text; it is kept to one line.
    """
    if key in _state.said or len(_state.said) >= _MOST_SAID:
        return
    _state.said.add(key)
    with contextlib.suppress(OSError, ValueError, AttributeError):  # no stderr, or a closed one: nowhere to say it
        sys.stderr.write("ml_pipeline: " + " ".join(line.split()) + "\n")
