"""A clock that stands still, events that are kept, and a process that writes only where a test may."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ml_pipeline import _runtime
from ml_pipeline.config._events import DEFAULT_BUS, Bus, Event

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["CapturedEvents", "FakeClock", "isolated"]

E = TypeVar("E")


class FakeClock:
    """A clock that moves only when it is told to; pass it wherever a ``clock`` is an argument.

    Args:
        now: Seconds since the Unix epoch to start from.
    """

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time, in seconds."""
        return self.now

    def advance(self, seconds: float) -> float:
        """Move on, and return the new time.

        Args:
            seconds: How far; negative for a clock that is set back.
        """
        self.now += seconds
        return self.now


class CapturedEvents:
    """Keeps every event that is published while its block runs.

    Args:
        bus: What to listen to.
    """

    def __init__(self, bus: Bus = DEFAULT_BUS) -> None:
        self._bus = bus
        self._unsubscribe: Callable[[], None] | None = None
        self.events: list[Event] = []

    def __enter__(self) -> Self:
        self._unsubscribe = self._bus.subscribe("captured_events", self.events.append)
        return self

    def __exit__(self, *_: object) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def __len__(self) -> int:
        return len(self.events)

    def of(self, kind: type[E], **facts: object) -> list[E]:
        """Return the events of one type that have these facts.

        Args:
            kind: Such as `OperationEvent`.
            **facts: Attributes and the values they must have, such as ``type="fail"``.
        """
        chosen = [event for event in self.events if isinstance(event, kind)]
        return [event for event in chosen if all(getattr(event, name) == value for name, value in facts.items())]


@contextlib.contextmanager
def isolated(folder: Path | None = None, **settings: Any) -> Iterator[Path]:
    """Keep everything that is observed inside the block in one folder, and strict: what fails in here raises.

    Args:
        folder: Where logs, data and models go; by default a temporary folder, which is removed.
        **settings: Further settings by name, as `ml_pipeline.configure` takes them.

    Yields:
        The folder.
    """
    with contextlib.ExitStack() as stack:
        home = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        given: dict[str, Any] = {
            "name": "test",
            "strict": True,
            "log_console": "off",
            "log_dir": home / "logs",
            "data_dir": home / "data",
            "artifact_dir": home / "artifacts",
            "smtp_host": None,
            "pushgateway_url": None,
        }
        stack.enter_context(_runtime.override(**(given | settings)))
        try:
            yield home
        finally:
            _runtime.shutdown()
