"""What people do about alerts: see to one, or silence some for a while."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ml_pipeline import _runtime
from ml_pipeline.config._alert_records import bounded_text
from ml_pipeline.config._alert_silences import Silence, new_silence
from ml_pipeline.errors import AlertError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ml_pipeline.config._alert_background import AlertBackground
    from ml_pipeline.config._alert_records import Alert
    from ml_pipeline.config._alert_store import AlertStore
    from ml_pipeline.config._events import AlertState

__all__ = ["AlertCare"]

_SINK: Final = "alerting"


class AlertCare:
    """What an `AlertManager` is told by people."""

    _clock: Callable[[], float]
    _store: _runtime.Lazy[AlertStore]
    _background: _runtime.Lazy[AlertBackground]

    def acknowledge(self, alert_id: str, *, by: str) -> bool:
        """Say who sees to an alert; it does not escalate then.

        Args:
            alert_id: The alert.
            by: The name of whoever does.

        Returns:
            Whether it was open.

        Raises:
            AlertError: Only with ``ML_PIPELINE_STRICT=1``, if there is no open alert of that id, or no name.
        """
        with _runtime.guard(_SINK):
            name = bounded_text(by, is_id=True)
            if not name.strip():
                raise AlertError("an acknowledgement must have a name", by, "say who sees to it")
            alert = self._store.get().acknowledge(alert_id, by=name, time=self._clock())
            if alert is None:
                remedy = "see alert_manager.active()"
                raise AlertError("an alert that is acknowledged must be open", alert_id, remedy)
            self._background.get().touch()
            self._publish(alert, "acknowledged")
            return True
        return False

    def silence(self, *, seconds: float, reason: str, by: str = "", **matchers: str) -> Silence | None:
        """Have alerts recorded and counted, but not delivered, for a while.

        What is still open when the silence ends is delivered then. What was delivered before is not taken back.

        Args:
            seconds: How long.
            reason: Why.
            by: Who says so.
            **matchers: Which alerts: by ``name``, ``kind``, ``pipeline``, ``operation``, ``model``, ``feature`` or
                ``severity`` a text, in which ``*`` stands for any characters. All must fit.

        Returns:
            The silence; None if it could not be made.

        Raises:
            AlertError: Only with ``ML_PIPELINE_STRICT=1``, if it matches by nothing or by a field that there is not,
                never ends, or has no reason.
        """
        with _runtime.guard(_SINK):
            silence = new_silence(matchers, now=self._clock(), seconds=seconds, reason=reason, by=by)
            self._store.get().add_silence(silence)
            return silence
        return None

    def end_silence(self, silence_id: str) -> bool:
        """End a silence now; what it muted and is still open is delivered.

        Args:
            silence_id: The silence.

        Returns:
            Whether it lasted still.

        Raises:
            AlertError: Only with ``ML_PIPELINE_STRICT=1``, if there is no such silence.
        """
        with _runtime.guard(_SINK):
            if not self._store.get().end_silence(silence_id, time=self._clock()):
                remedy = "see alert_manager.silences()"
                raise AlertError("a silence that is ended must last still", silence_id, remedy)
            self._background.get().wake()
            return True
        return False

    def silences(self) -> list[Silence]:
        """Return the silences that last, the first to end first."""
        with _runtime.guard(_SINK):
            return self._store.get().silences(self._clock())
        return []

    def _publish(self, alert: Alert, state: AlertState, *, reason: str = "", count: int = 1) -> None:
        raise NotImplementedError
