"""The channels that the settings name; what else makes one asks here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_pipeline import _runtime
from ml_pipeline.config._alert_store import ALERTMANAGER
from ml_pipeline.errors import SettingsError, closest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from typing import Any

    from ml_pipeline.config._alert_channels import AlertChannel
    from ml_pipeline.settings import Settings

__all__ = ["channel_names", "channel_of", "channels_of"]


def channel_names(settings: Settings) -> tuple[str, ...]:
    """Name the channels that this process delivers to by itself."""
    return settings.alert_channels or (("email",) if settings.smtp_host else ())


def channels_of(settings: Settings) -> tuple[AlertChannel, ...]:
    """Make the channels that the settings name; one that cannot be made is counted, and costs no other."""
    made: list[AlertChannel] = []
    for name in channel_names(settings):
        with _runtime.guard("alerting"):
            made.append(channel_of(name, settings))
    return tuple(made)


def channel_of(name: str, settings: Settings, say: Callable[[str], None] = lambda _: None) -> AlertChannel:
    """Make one channel.

    Args:
        name: Such as ``slack``, or ``alertmanager``; it need not be among those that alerts go to.
        settings: With what that channel needs.
        say: Told of each step of a delivery.

    Raises:
        SettingsError: If there is no such channel, or what it needs is not set.
        AlertError: If a mail address cannot be one.
    """
    from ml_pipeline._settings_alerts import CHANNELS
    from ml_pipeline.config._alert_alertmanager import AlertmanagerChannel
    from ml_pipeline.settings import environment_name

    if name == ALERTMANAGER:
        through = AlertmanagerChannel.from_settings(settings, say=say)
        if through is None:
            raise SettingsError(f"the channel {name} needs ML_PIPELINE_ALERTMANAGER_URL", remedy="set it")
        return through
    if name not in CHANNELS:
        raise SettingsError("a channel must be one of the known ones", name, closest(name, (*CHANNELS, ALERTMANAGER)))
    needed = CHANNELS[name]
    value = getattr(settings, needed) if needed else ""
    if value is None:
        raise SettingsError(f"the channel {name} needs {environment_name(needed)}", remedy="set it")
    return _made(name, value, settings, say)


def _made(name: str, value: Any, settings: Settings, say: Callable[[str], None]) -> AlertChannel:
    from ml_pipeline.config._alert_channels import EmailChannel
    from ml_pipeline.config._alert_local import ConsoleChannel, FileChannel
    from ml_pipeline.config._alert_pagerduty import PagerDutyChannel
    from ml_pipeline.config._alert_slack import SlackChannel
    from ml_pipeline.config._alert_teams import TeamsChannel
    from ml_pipeline.config._alert_webhook import WebhookChannel

    makers: dict[str, Callable[[], AlertChannel]] = {
        "email": lambda: EmailChannel.from_settings(settings, say),
        "slack": lambda: SlackChannel(value, say=say),
        "pagerduty": lambda: PagerDutyChannel(value, address=settings.pagerduty_url, say=say),
        "teams": lambda: TeamsChannel(value, say=say),
        "webhook": lambda: WebhookChannel(value, settings.alert_webhook_key_file, say=say),
        "console": ConsoleChannel,
        "file": lambda: FileChannel(settings.alert_file or _default_file(settings), say=say),
    }
    return makers[name]()


def _default_file(settings: Settings) -> Path:
    return settings.data_dir / "alerts" / "delivered.jsonl"
