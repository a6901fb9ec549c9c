"""Settings that are read again while a process runs: on a signal, and without a record being written.

A signal handler must not wait for a lock, and to read settings takes several. So it only leaves a note for a thread,
which exists where someone asked for it.
"""

from __future__ import annotations

import signal
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Reload"]

_LOOK_SECONDS: Final = 1.0
_AGAIN: Final = "again"
_END: Final = "end"


class Reload:
    """Reads the settings again on SIGHUP, and looks every second for levels that were told; off until it is started.

    Starting twice is starting once. A forked child has the signal handler and no thread: there the signal does nothing,
    and levels that were told are noticed on the way of a record.

    Args:
        look: Sees whether levels were told.
    """

    def __init__(self, look: Callable[[], object]) -> None:
        self._look = look
        self._notes: SimpleQueue[str] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._before: Any = None

    def start(self) -> None:
        """Begin.

        Raises:
            SettingsError: If this is not the main thread, which alone may handle signals.
        """
        if self._thread is not None and self._thread.is_alive():
            return
        number = getattr(signal, "SIGHUP", None)  # Windows has none
        if number is not None:
            try:
                before = signal.signal(number, self._noted)
            except ValueError:
                raise SettingsError(
                    "reload=True must be asked for in the main thread", threading.current_thread().name, "ask there"
                ) from None
            self._before = self._before if before == self._noted else before
        self._thread = threading.Thread(target=self._run, name="ml-pipeline-log-reload", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; the handler that was there before has the signal again, unless someone took it since."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        number = getattr(signal, "SIGHUP", None)
        if number is not None and signal.getsignal(number) == self._noted:
            signal.signal(number, self._before or signal.SIG_DFL)
        self._notes.put(_END)
        if thread.is_alive():
            thread.join()

    def _noted(self, number: int, frame: Any) -> None:
        self._notes.put(_AGAIN)  # reentrant, unlike a lock
        if callable(self._before):
            self._before(number, frame)

    def _run(self) -> None:
        while True:
            try:
                note = self._notes.get(timeout=_LOOK_SECONDS)
            except Empty:
                self._look()
                continue
            if note == _END:
                return
            with _runtime.guard("log_reload"):  # a mistake in the file is said, and the settings stay as they are
                _runtime.configure()
            with _runtime.guard("log_reload"):
                self._look()
