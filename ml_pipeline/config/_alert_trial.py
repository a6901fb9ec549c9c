"""Sending one alert to try a channel, and telling what happened step by step."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ml_pipeline import _runtime
from ml_pipeline.config._alert_channels import AlertMessage
from ml_pipeline.config._alert_records import Alert
from ml_pipeline.config._alert_store import ALERTMANAGER
from ml_pipeline.config._alert_ways import channel_names, channel_of
from ml_pipeline.config._alert_words import title
from ml_pipeline.config._ids import new_id
from ml_pipeline.errors import AlertError, SettingsError, flat

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ml_pipeline.config._alert_channels import AlertChannel
    from ml_pipeline.settings import Settings

__all__ = ["try_channels"]


def try_channels(names: Sequence[str], settings: Settings, say: Callable[[str], None]) -> bool:
    """Send a test over channels, past the outbox and the history.

    Args:
        names: Of the channels; by default those that alerts go to.
        settings: What makes the channels.
        say: Told of each step, on a line of its own; never of a secret.

    Returns:
        Whether each of them has taken it.

    Raises:
        SettingsError: If there is no channel, no such channel, or what it needs is not set.
        AlertError: If a mail address cannot be one.
    """
    through = (ALERTMANAGER,) if settings.alertmanager_url else ()
    names = names or (*through, *channel_names(settings))
    if not names:
        remedy = "set ML_PIPELINE_SMTP_HOST or ML_PIPELINE_ALERT_CHANNELS"
        raise SettingsError("alerts must go somewhere to be tested", remedy=remedy)

    def tell(name: str) -> Callable[[str], None]:
        return lambda step: say(f"{name}: {step}")

    channels = [(channel_of(name, settings, tell(name)), tell(name)) for name in names]
    taken = [_try(channel, settings, steps) for channel, steps in channels]  # each of them, whatever one says
    return all(taken)


def _try(channel: AlertChannel, settings: Settings, say: Callable[[str], None]) -> bool:
    now, begun = time.time(), time.monotonic()
    alert = Alert(
        alert_id=new_id(),
        time=now,
        last_time=now,
        kind="test",
        name="AlertTest",
        severity="info",
        pipeline=settings.name,
        message=f"a test of the alert channel {channel.name}",
    )
    message = AlertMessage(
        delivery_id=new_id(), alerts=(alert,), reason="test", timeout_seconds=settings.smtp_timeout_seconds
    )
    say(f"sending {title(message)!r}, delivery {message.delivery_id}")
    _, failed = _runtime.attempt(channel.send, message)
    seconds = f"{time.monotonic() - begun:.2f} s"
    if failed is None:
        say(f"delivered in {seconds}")
        return True
    what = "an alert would be given up" if isinstance(failed, AlertError) else "an alert would be tried again"
    say(f"not delivered after {seconds}: {flat(f'{type(failed).__name__}: {failed}')}; {what}")
    return False
