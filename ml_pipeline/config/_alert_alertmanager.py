"""Alerts through Alertmanager: posted, refreshed while they are open, resolved when the last of a label set is over.

Alertmanager tells alerts apart by their labels. The rules in ``prometheus/rules`` and the process use the same ones, so
that both tell of one alert: ``alertname``, ``pipeline``, ``kind`` and ``severity``, and those of a rule of the user's.
What Prometheus tells of, it also keeps alive and ends: see `_alert_elsewhere`.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config._alert_elsewhere import Elsewhere
from ml_pipeline.config._alert_http import HttpService
from ml_pipeline.config._alert_names import FAILURE_KIND
from ml_pipeline.config._alert_store import ALERTMANAGER
from ml_pipeline.config._alert_words import facts
from ml_pipeline.config._encoding import encode, rfc3339, to_plain

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ml_pipeline.config._alert_channels import AlertMessage
    from ml_pipeline.config._alert_elsewhere import Labels
    from ml_pipeline.config._alert_records import Alert
    from ml_pipeline.settings import Settings

__all__ = ["AlertmanagerChannel", "label_set"]

REFRESH_SECONDS: Final = 60.0
LIFE_SECONDS: Final = 300.0
"""An alert that nobody refreshes any more is over for Alertmanager; four refreshes may fail before that."""

LEAST_SECONDS: Final = 60.0
"""An alert lives so long at least, however soon it was over: Alertmanager tells nobody of one that ends before that."""

FAILURE_SECONDS: Final = 129_600.0
"""A failure that nothing made good is not repeated for ever: a day and a half, as the rules of Prometheus have it."""

_MOST_OPEN: Final = 1_000
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_PATH: Final = "/api/v2/alerts"
_BOARD: Final = "/d/ml-alerts"


def label_set(alert: Alert, *, severity: str = "") -> Labels:
    """Return the labels by which Alertmanager knows an alert, sorted; without empty ones, which it drops.

    Args:
        alert: The alert.
        severity: Another one than it has now.
    """
    shared = {
        "alertname": alert.name or "Alert",
        "pipeline": alert.pipeline,
        "kind": alert.kind,
        "severity": severity or alert.severity,
    }
    own = {name: text for name, text in alert.labels.items() if _LABEL.fullmatch(name)}
    return tuple(sorted((name, text) for name, text in {**own, **shared}.items() if text))


class AlertmanagerChannel:
    """Posts alerts to the API v2 of an Alertmanager, an `AlertChannel` that also keeps them alive there.

    Args:
        address: Of the Alertmanager, such as ``http://127.0.0.1:9093``.
        told: Returns the open alerts that it was told of, by any process; see `AlertStore.told`.
        clock: Seconds since the Unix epoch.
        boards: Address of the Grafana that an alert's source link leads to.
        timeout_seconds: How long a refresh may take.
        say: Told of each step.
    """

    name: Final = ALERTMANAGER

    def __init__(
        self,
        address: str,
        told: Callable[[int], Sequence[Alert]],
        *,
        clock: Callable[[], float],
        boards: str = "",
        timeout_seconds: float = 10.0,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._address = address.rstrip("/") + _PATH
        self._told = told
        self._clock = clock
        self._boards = boards.rstrip("/") + _BOARD if boards else ""
        self._timeout_seconds = timeout_seconds
        self._service = HttpService("Alertmanager", "correct ML_PIPELINE_ALERTMANAGER_URL", is_secret=False, say=say)
        self._elsewhere = Elsewhere(self._service, address.rstrip("/"), self._boards, clock=clock)
        self._refreshed = clock()

    @classmethod
    def from_settings(
        cls,
        settings: Settings,
        told: Callable[[int], Sequence[Alert]] = lambda _: (),
        *,
        clock: Callable[[], float] = time.time,
        say: Callable[[str], None] = lambda _: None,
    ) -> AlertmanagerChannel | None:
        """Make the channel that the settings describe; None where they name no Alertmanager.

        Args:
            settings: In force now.
            told: As the class has it, as are the others; by default nothing is open.
            clock: Seconds since the Unix epoch.
            say: Told of each step.
        """
        if settings.alertmanager_url is None:
            return None
        return cls(
            settings.alertmanager_url,
            told,
            clock=clock,
            boards=settings.grafana_url,
            timeout_seconds=settings.smtp_timeout_seconds,
            say=say,
        )

    def send(self, message: AlertMessage) -> None:
        """Post the alerts of a message, or their ends; see `AlertChannel.send`. A digest is not for Alertmanager."""
        if message.reason == "digest":
            return
        ends = message.reason == "resolved"
        over = [alert for alert in message.alerts if alert.state == "resolved"] if ends else []
        fresh = [alert for alert in message.alerts if alert not in over]
        # Once escalated it has another label set; the one before must not stay behind.
        gone = [(label_set(alert, severity="warning"), alert) for alert in fresh if alert.escalated]
        gone += [(label_set(alert), alert) for alert in over]
        held = {label_set(alert) for alert in (*self._told(_MOST_OPEN), *fresh)}
        self._elsewhere.look(held, timeout_seconds=message.timeout_seconds / 2)
        gone = [(labels, alert) for labels, alert in gone if labels not in held and not self._elsewhere.tell(labels)]
        now = self._clock()
        posted = [(label_set(alert), alert, now + _life_seconds(alert)) for alert in fresh]
        posted += [(labels, alert, max(now, alert.time + LEAST_SECONDS)) for labels, alert in gone]
        self._post([self._entry(*each, message.note) for each in posted], message.timeout_seconds)
        self._elsewhere.posted({labels: ends for labels, _, ends in posted})

    def refresh(self) -> float:
        """Tell Alertmanager again of what is open, where that is due; a failure is counted, and the next one is due.

        Returns:
            When to refresh again, in seconds since the Unix epoch.
        """
        now = self._clock()
        if now - self._refreshed >= REFRESH_SECONDS or now < self._refreshed:
            self._refreshed = now
            with _runtime.guard("alerting"):
                held = {label_set(alert): alert for alert in self._told(_MOST_OPEN) if _goes_on(alert, now)}
                if held:
                    self._elsewhere.look(held, timeout_seconds=self._timeout_seconds)
                ours = {labels: alert for labels, alert in held.items() if not self._elsewhere.tell(labels)}
                ends = now + LIFE_SECONDS
                self._post([self._entry(*each, ends) for each in ours.items()], self._timeout_seconds)
                self._elsewhere.posted(dict.fromkeys(ours, ends))
        return self._refreshed + REFRESH_SECONDS

    def _entry(self, labels: Labels, alert: Alert, ends: float, note: str = "") -> dict[str, Any]:
        about = "\n".join(f"{name}: {value}" for name, value in facts(alert))
        annotations = {"summary": alert.message, "description": about, "runbook_url": alert.runbook, "note": note}
        entry = {
            "labels": dict(labels),
            "annotations": {name: text for name, text in annotations.items() if text},
            "startsAt": rfc3339(alert.time),
            "endsAt": rfc3339(max(ends, alert.time)),
        }
        return entry | ({"generatorURL": self._boards} if self._boards else {})

    def _post(self, entries: Iterable[dict[str, Any]], timeout_seconds: float) -> None:
        content = [to_plain(entry) for entry in entries]
        if content:
            self._service.post(self._address, encode(content), timeout_seconds=timeout_seconds)


def _life_seconds(alert: Alert) -> float:
    # One that was over before it could be told is told all the same, and ends by itself.
    return LEAST_SECONDS if alert.state == "resolved" else LIFE_SECONDS


def _goes_on(alert: Alert, now: float) -> bool:
    return alert.kind != FAILURE_KIND or now - alert.last_time < FAILURE_SECONDS
