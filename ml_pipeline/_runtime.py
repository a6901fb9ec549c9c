"""The global state department: the only module whose state changes while a process runs.

It holds the settings in force, the resources opened under them, and the plain counters of what went wrong. Everything
else in the package is either a value, or an object that asks here for what it needs when it is first used.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, TypeVar

from ml_pipeline import _platform
from ml_pipeline._tally import Tally
from ml_pipeline.errors import MLPipelineError, SettingsError, flat

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
    "say_through",
    "settings",
    "shutdown",
    "tally",
    "telemetry_error",
]

T = TypeVar("T")

Phase = Literal[1, 2]
"""When a resource is closed: 1 what works off the caller's thread, 2 the files and stores it writes to."""

_MOST_SAID = 1_000
_LONGEST_LINE = 2_000


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
        self.said: dict[str, object] = {}
        self.veil: Callable[[str, int, int], str] = lambda line, start, stop: line[start:stop]
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
    with _platform.importing:
        from ml_pipeline.settings import load_settings, salvage_settings

    with _state.lock:
        if _state.settings is None:
            try:
                _state.settings = load_settings(_state.given)
            except SettingsError:
                salvaged, said = salvage_settings(_state.given)
                if salvaged.strict:
                    raise
                _state.settings = salvaged
                for line in said:
                    tally.count_error("settings", "SettingsError")
                    say_once(f"settings:{line}", line)
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
    with _platform.importing:
        from ml_pipeline.settings import Settings, load_settings
    if settings is not None:
        if not isinstance(settings, Settings):
            raise SettingsError("configure takes a Settings, or settings by name", settings, 'as in log_dir="logs"')
        values = {**settings.model_dump(), **values}
    load_settings({**_state.given, **values})  # what is wrong raises here, before anything is closed
    before, was_open = _state.settings, bool(_state.resources)
    _close_resources()  # still under the settings they were opened with: what waits in them belongs there
    with _state.lock:
        given = {**_state.given, **values}
        after = load_settings(given)
        _state.given, _state.settings = given, after
        _export(after, values)
    _close_resources()  # what other threads opened meanwhile
    if before is not None and was_open and before != after:
        for listener in list(_state.listeners):
            with guard("configure"):
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
        given, environment, before = _state.given, dict(_state.environment_before), _state.settings
        variables = {name: os.environ.get(name) for name in _variables()}
    try:
        yield configure(**values)
    finally:
        _close_resources()
        with _state.lock:
            _state.given, _state.environment_before, _state.settings = given, environment, before
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
        with _state.lock:
            value = self._take()
            if self in _state.resources:
                _state.resources.remove(self)
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
    # Workers first: what they still write needs the files. The last opened first, as it may use those before it. Again,
    # since closing one may open another, but not for ever. Outside the lock, which a worker may be waiting for.
    for phase in (1, 2) * 3:
        for resource in [each for each in reversed(_state.resources) if each._phase == phase]:
            resource._shut()


def _hook_process() -> None:
    if _state.hooked:
        return
    _state.hooked = True
    atexit.unregister(shutdown)  # a forked child may have its parent's
    atexit.register(shutdown)
    if _platform.is_worker():
        from multiprocessing.util import Finalize

        Finalize(None, shutdown, exitpriority=-100)  # after all others; a forked worker leaves past ``atexit``


def _forget_parent() -> None:
    _state.lock = threading.RLock()  # another thread of the parent may have held it
    _state.hooked = False
    # Kept, not dropped: a garbage-collected SQLite connection would touch the parent's files.
    _state.parents += [resource._take() for resource in _state.resources]
    _state.resources = []


_platform.after_fork_in_child(_forget_parent)


def _variables() -> list[str]:
    from ml_pipeline.settings import Settings, environment_name

    return [environment_name(field) for field in Settings.model_fields]


def _export(after: Settings, values: Mapping[str, object]) -> None:
    from ml_pipeline.settings import environment_name, environment_text, is_secret

    for field in values:
        if is_secret(field):
            continue
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
            _, lost = attempt(self._on_error, error)
            if lost is not None:
                telemetry_error(self._sink, lost)
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
    kind, (message, unprintable) = type(error).__name__, attempt(str, error)
    message = f"<{type(unprintable).__name__} when printed>" if message is None else message
    tally.count_error(sink, kind)
    say_once(
        f"{sink}:{message if isinstance(error, MLPipelineError) else kind}",
        f"{sink}: {kind}: {message} (counted in ml_pipeline_telemetry_errors_total)",
    )


def say_once(key: str, line: str) -> None:
    """Write one line to stderr, the first time only; what was said is bounded, and so is a line.

    Args:
        key: What makes it the same matter.
        line: The text; it is kept to one line that steers no terminal.
    """
    key = key[:_LONGEST_LINE]
    if key not in _state.said and len(_state.said) >= _MOST_SAID:
        key, line = "", f"{_MOST_SAID} different failures were said; the others are only counted"
    if _state.said.setdefault(key, mine := object()) is mine:  # atomic: of two threads, one says it
        shown, _ = attempt(_state.veil, line, 0, _LONGEST_LINE)
        attempt(_platform.write_stderr, f"ml_pipeline: {flat(shown or key)}\n")


def say_through(veil: Callable[[str, int, int], str]) -> None:
    """Have *veil* called for each line that is said: it returns the part between two places, less what it hides."""
    _state.veil = veil
