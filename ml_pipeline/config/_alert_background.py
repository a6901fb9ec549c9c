"""What an alert manager does off the caller's thread: deliveries, the counts of repeats, and the history file."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

from ml_pipeline import _runtime
from ml_pipeline.config._alert_active import ActiveAlerts
from ml_pipeline.config._alert_alertmanager import AlertmanagerChannel
from ml_pipeline.config._alert_cooldowns import Cooldowns
from ml_pipeline.config._alert_delivery import Deliverer, count_from_zero
from ml_pipeline.config._alert_history import NEWEST, HistoryFile
from ml_pipeline.config._alert_recoveries import Recoveries
from ml_pipeline.config._alert_routes import Routes
from ml_pipeline.config._alert_store import ALERTMANAGER
from ml_pipeline.config._alert_upkeep import Upkeep
from ml_pipeline.config._alert_ways import channels_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ml_pipeline.config._alert_channels import AlertChannel
    from ml_pipeline.config._alert_delivery import DeliveryHook
    from ml_pipeline.config._alert_records import Alert
    from ml_pipeline.config._alert_store import AlertStore
    from ml_pipeline.config._events import AlertState
    from ml_pipeline.settings import Settings

__all__ = ["AlertBackground", "Publish", "open_store"]

_FOLDER: Final = "alerts"
_OUTBOX: Final = "outbox.db"
_DAY_SECONDS: Final = 86_400.0
_MOST_WATCHED: Final = 200


class Publish(Protocol):
    """Publishes what happened to an alert."""

    def __call__(self, alert: Alert, state: AlertState, *, reason: str = "", count: int = 1) -> None:
        """Say that *alert* is in *state* now."""
        ...


def open_store(settings: Settings, on_return: Callable[[], None]) -> AlertStore:
    """Open the store that the settings name.

    Args:
        settings: In force now.
        on_return: Called when a database that was away is back.
    """
    path, waiting = settings.data_dir / _FOLDER / _OUTBOX, settings.alertmanager_fallback_seconds
    if settings.database_url is None:
        from ml_pipeline.config._alert_embedded import open_embedded

        return open_embedded(path, fallback_seconds=waiting, on_return=on_return, strict=settings.strict)
    from ml_pipeline.config._alert_postgres import PostgresAlertStore
    from ml_pipeline.config._alert_shared import SharedAlertStore
    from ml_pipeline.config._alert_sqlite import SqliteAlertStore

    database = PostgresAlertStore(settings.database_url, settings.database_password_file, fallback_seconds=waiting)
    own = partial(SqliteAlertStore, path, fallback_seconds=waiting)
    return SharedAlertStore(database, own, path.exists, on_return=on_return)


class AlertBackground:
    """The deliverer, the cooldowns and the history file of one manager, opened and closed together.

    Opening one resumes what an earlier process left undelivered.

    Args:
        settings: In force now.
        store: Returns the store, opening it if need be.
        channels: Where alerts are delivered; None for what the settings say.
        clock: Seconds since the Unix epoch.
        on_delivery: Told of each attempt to deliver.
        publish: Told of what happens to alerts meanwhile.
        is_shared: Whether the store is the one that the settings name, which has a history file.
    """

    def __init__(
        self,
        settings: Settings,
        store: Callable[[], AlertStore],
        channels: Sequence[AlertChannel] | None,
        *,
        clock: Callable[[], float],
        on_delivery: DeliveryHook,
        publish: Publish,
        is_shared: bool,
    ) -> None:
        self._history: HistoryFile | None = None
        self._store = store
        self._has_raised = False  # an alert, which memory may hold while the outbox cannot be made
        self._publish = publish
        folder = settings.data_dir / _FOLDER
        outbox = folder / _OUTBOX
        self._clock = clock
        self._alertmanager: AlertmanagerChannel | None = None
        self._routes: Routes | None = None  # what code gives as channels gets everything
        if channels is None:
            self._alertmanager = AlertmanagerChannel.from_settings(
                settings, lambda limit: store().told(ALERTMANAGER, limit=limit), clock=clock
            )
            own = channels_of(settings)
            self._routes = _routes(settings, tuple(channel.name for channel in own))
            channels = (*(() if self._alertmanager is None else (self._alertmanager,)), *own)

        def is_there() -> bool:
            return not is_shared or settings.database_url is not None or self._has_raised or outbox.exists()

        upkeep = Upkeep(
            store,
            tuple(channel.name for channel in channels),
            self.channels_of,
            clock=clock,
            publish=publish,
            cooldown_seconds=settings.alert_cooldown_seconds,
            digest=settings.alert_digest,
            keep_seconds=settings.log_retention_days * _DAY_SECONDS,
        )
        self._deliverer = Deliverer(
            store,
            channels,
            clock=clock,
            on_delivery=on_delivery,
            timeout_seconds=settings.smtp_timeout_seconds,
            upkeep=lambda: self._look_after(upkeep),
            is_there=is_there,
            limits=None if self._routes is None else self._routes.limits,
        )
        self.cooldowns = Cooldowns(self._hold, clock=clock)
        self._raised: dict[str, None] = {}
        self._active = ActiveAlerts(store, settings.name, clock=clock) if is_shared else None
        self.recoveries = Recoveries(store, is_there, clock=clock, wake=self.wake)
        if is_shared:
            count_from_zero(self._deliverer.channels)
            self._history = HistoryFile(
                settings.log_dir / "alerts.json", folder / "alerts.json.lock", lambda: store().find(limit=NEWEST)
            )
        if is_there():
            self.wake()
        elif channels:  # another process may make the outbox, and die over what it puts there
            self._deliverer.wake()

    def channels_of(self, alert: Alert) -> tuple[str, ...]:
        """Name the channels that an alert goes to: Alertmanager, and where the routes say."""
        if self._routes is None:
            return self._deliverer.channels
        first = () if self._alertmanager is None else (self._alertmanager.name,)
        return (*first, *self._routes.channels(alert, self._clock()))

    def raised(self, alert: Alert) -> None:
        """Have an alert that this process raised delivered, and watched for others' resolving it."""
        self._has_raised = True
        self._raised[alert.alert_id] = None
        if len(self._raised) > _MOST_WATCHED:
            self._raised.pop(next(iter(self._raised)), None)
        self.wake()

    def wake(self) -> None:
        """Have what is due delivered and the history written, soon."""
        self._deliverer.wake()
        self.touch()

    def touch(self) -> None:
        """Have the history written soon."""
        if self._history is not None:
            self._history.touch()

    def flush(self, timeout_seconds: float) -> bool:
        """Write the counts and the history, and deliver what is due; see `Deliverer.flush`."""
        self.cooldowns.write()
        if self._history is not None:
            self._history.flush()
        return self._deliverer.flush(timeout_seconds)

    def close(self) -> None:
        """Write the counts and the history first, which need no server; then deliver for as long as that may take."""
        self.cooldowns.close()
        if self._history is not None:
            self._history.close()
        self._deliverer.close()

    def _look_after(self, upkeep: Upkeep) -> float | None:
        self._forget_those_over()
        if self._active is not None:
            self._active.look()
        times = [upkeep.run(), None if self._alertmanager is None else self._alertmanager.refresh()]
        return min((time for time in times if time is not None), default=None)

    def _forget_those_over(self) -> None:
        """Keep the number of active alerts right: a person or another process may have resolved some of ours."""
        from ml_pipeline.config.prometheus_metrics import pipeline_metrics

        for alert_id in list(self._raised):
            alert = self._store().get(alert_id)
            if alert is None or alert.state == "resolved":
                self._raised.pop(alert_id, None)
                self.cooldowns.forget(alert_id)
                pipeline_metrics.alert_is_over(alert_id)

    def _hold(self, alert_id: str, count: int, last: float) -> bool:
        alert = self._store().hold(alert_id, count, time=last)
        if alert is None:
            return False
        self.recoveries.failed(alert)
        self._publish(alert, "suppressed", reason="cooldown", count=count)
        self.wake()  # it may have been said often enough to escalate
        return alert.state != "resolved"


def _routes(settings: Settings, names: tuple[str, ...]) -> Routes:
    # A route that cannot be one costs the routes, not the alerts.
    with _runtime.guard("alerting"):
        return Routes.of(settings, names)
    return Routes(names)
