"""The settings of alerting: what calls for an alert, and the ways it goes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from ml_pipeline._settings_core import PREFIX, CommaSeparated, CoreSettings, Port
from ml_pipeline.errors import closest

__all__ = ["CHANNELS", "AlertSettings"]

CHANNELS: dict[str, str] = {
    "email": "smtp_host",
    "slack": "slack_webhook_file",
    "pagerduty": "pagerduty_key_file",
    "teams": "teams_webhook_file",
    "webhook": "alert_webhook_url",
    "console": "",
    "file": "",
}
"""Every way an alert may go, and the setting without which it leads nowhere."""

_BESIDE = {"smtp_oauth_token_file": "smtp_user", "alert_webhook_key_file": "alert_webhook_url"}
"""What does nothing without another setting, and that one."""


class AlertSettings(CoreSettings):
    """How alerts are held back and delivered."""

    smtp_host: str | None = Field(None, description="Mail server; unset: no e-mail is sent.")
    smtp_port: Port = Field(587, description="Port of the mail server.")
    smtp_user: str | None = Field(None, description="Login name at the mail server.")
    smtp_password_file: Path | None = Field(None, description="File with the password for the mail server.")
    smtp_oauth_token_file: Path | None = Field(
        None, description="File with an access token: the login is XOAUTH2 with it, in place of a password."
    )
    smtp_security: Literal["none", "starttls", "tls"] = Field(
        "starttls", description="How the connection to the mail server is protected."
    )
    smtp_timeout_seconds: float = Field(10.0, gt=0, le=600, description="Longest wait for the mail server.")

    alert_email_from: str | None = Field(None, description="Sender of alert mails.")
    alert_email_to: CommaSeparated = Field((), description="Receivers of alert mails, separated by commas.")
    alert_cooldown_seconds: float = Field(
        300.0, ge=0, description="How long a repeat of an alert is held back and counted."
    )
    alert_digest: Literal["off", "daily", "weekly"] = Field(
        "off", description="Whether what was raised in a day or a week, in UTC, is summed up in a mail at its end."
    )

    alert_rules_file: Path | None = Field(
        None, description="YAML file with alert rules of your own, routes and limits of the channels."
    )

    alertmanager_url: str | None = Field(
        None,
        description="Alertmanager that alerts are posted to; the process's own ways then stand in only where that "
        "cannot be reached.",
    )
    alertmanager_fallback_seconds: float = Field(
        60.0, ge=0, le=86_400, description="How long they wait for Alertmanager to take an alert."
    )

    slack_webhook_file: Path | None = Field(
        None,
        description="File with the address of a Slack webhook; the stack's Alertmanager delivers to it, and the "
        "process itself where `ALERT_CHANNELS` holds `slack`.",
    )
    pagerduty_key_file: Path | None = Field(
        None,
        description="File with a PagerDuty integration key; the stack's Alertmanager delivers critical alerts to it, "
        "and the process itself where `ALERT_CHANNELS` holds `pagerduty`.",
    )
    pagerduty_url: str = Field(
        "https://events.pagerduty.com/v2/enqueue",
        description="Where the process's own events for PagerDuty go; in Europe `https://events.eu.pagerduty.com/v2/enqueue`.",
    )
    teams_webhook_file: Path | None = Field(
        None, description="File with the address of a Microsoft Teams workflow that takes webhook requests."
    )
    alert_webhook_url: str | None = Field(
        None, repr=False, description="Address that alerts are posted to as JSON, for the channel `webhook`."
    )
    alert_webhook_key_file: Path | None = Field(
        None, description="File with the key that signs what is posted there; unset: it is not signed."
    )
    alert_file: Path | None = Field(
        None, description="File of the channel `file`; by default `alerts/delivered.jsonl` in the data folder."
    )
    alert_channels: CommaSeparated = Field(
        (),
        description="Ways that this process itself delivers alerts, separated by commas: `email`, `slack`, "
        "`pagerduty`, `teams`, `webhook`, `console`, `file`; unset: `email`, where there is a mail server.",
    )

    @field_validator("alert_email_from", "alert_email_to")
    @classmethod
    def _addresses(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for address in (value,) if isinstance(value, str) else value or ():
            if not re.fullmatch(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+", address):
                raise ValueError(f"must be a mail address like ops@example.org, {address!r} is not")
        return value

    @field_validator("alert_webhook_url", "pagerduty_url")
    @classmethod
    def _webhook(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^\s/?#@]+([/?]\S*)?", value):
            raise ValueError("must be an address like https://alerts.example.org/hook, without user and password")
        return value

    @field_validator("alertmanager_url")
    @classmethod
    def _alertmanager(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"https?://[^\s/?#@]+(/[^\s?#]*)?", value):
            raise ValueError("must be an address like http://127.0.0.1:9093, without user and password")
        return value

    @field_validator(*_BESIDE)
    @classmethod
    def _accompanied(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        needed = _BESIDE[str(info.field_name)]
        if value is not None and not info.data.get(needed):
            raise ValueError(f"needs {PREFIX}{needed.upper()} beside it")
        return value

    @field_validator("alert_channels")
    @classmethod
    def _channels(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        for name in value:
            if name not in CHANNELS:
                raise ValueError(f"must be known channels, {name!r} is none: {closest(name, CHANNELS)}")
            needed = CHANNELS[name]
            if needed and not info.data.get(needed):
                raise ValueError(f"{name} needs {PREFIX}{needed.upper()} beside it")
        if len(set(value)) < len(value):
            raise ValueError("must name each channel once")
        return value

    @model_validator(mode="after")
    def _addressed(self) -> AlertSettings:
        if self.smtp_host and not (self.alert_email_from and self.alert_email_to):
            raise ValueError(
                "ML_PIPELINE_SMTP_HOST needs ML_PIPELINE_ALERT_EMAIL_FROM and ML_PIPELINE_ALERT_EMAIL_TO beside it"
            )
        return self
