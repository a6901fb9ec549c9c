"""The settings: typed values, read once at the border from the environment or ``.env``.

Every setting has a unit in its name where it has one, and a sentence that the reference documentation repeats. A name
with the prefix ``ML_PIPELINE_`` that is not known here is an error, for a misspelt setting would silently do nothing.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ml_pipeline import _environment
from ml_pipeline.errors import SettingsError, closest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "PREFIX",
    "Settings",
    "environment_name",
    "environment_text",
    "is_secret",
    "load_settings",
    "salvage_settings",
]

PREFIX = "ML_PIPELINE_"

_LONGEST_NAME = 255
_SECRETS = frozenset({"grafana_token"})
_RESERVED = {
    "ALERTMANAGER_URL": "delivery through Alertmanager",
    "DATABASE_URL": "PostgreSQL stores",
}
"""Names kept for what this version does not do: refused when set, because a setting must never be silently ignored."""

CommaSeparated = Annotated[tuple[str, ...], NoDecode]
FieldNames = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_environment.field_names)]
Expressions = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_environment.expressions)]
LevelRules = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_environment.level_rules)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """What a process was told, frozen; paths are absolute from the moment of reading.

    Values come, in this order, from the arguments, the environment (``ML_PIPELINE_NAME`` and so on), and the file
    ``.env`` in the working directory. Secrets are read from files named here, never given as values.

    Raises:
        SettingsError: From `load_settings`; building the class by hand raises pydantic's ``ValidationError``.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_file=_environment.ENV_FILE,
        env_file_encoding="utf-8",
        env_ignore_empty=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # it would show every value beside the wrong one, secrets too
        extra="ignore",  # names without the prefix are not ours to judge; ours are checked in `load_settings`
        frozen=True,
        validate_default=True,
        populate_by_name=True,
    )

    name: str = Field(
        "",
        description="The pipeline's name on logs, metrics, alerts and lineage; by default the working folder's name.",
    )
    run_id: str | None = Field(
        None,
        description="Join this run (a UUID), which another process started, instead of starting a new one.",
    )
    strict: bool = Field(
        False, description="Raise where telemetry fails or is misused, instead of recording it; for tests."
    )

    log_dir: Path = Field(Path("ml_pipeline/logs"), description="Folder of the log files.")
    data_dir: Path = Field(
        Path("ml_pipeline/data_storage"),
        description="Folder of lineage, the alert outbox, what failed of late and the files of each run.",
    )
    artifact_dir: Path = Field(Path("artifacts"), description="Folder of the models.")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        "INFO", description="Least severe level that is written."
    )
    log_levels: LevelRules = Field((), description="Levels of channels and modules: `training=DEBUG,my.module=INFO`.")
    log_records_per_second: float | None = Field(None, gt=0, description="Most that one call site writes; unset: all.")
    log_format: Literal["json", "text"] = Field(
        "json",
        description="What the log files hold: JSON Lines, or the text format. `audit.log` is JSON whatever is set.",
    )
    log_mode: Literal["write-through", "buffered"] = Field(
        "write-through",
        description="When a record leaves the process: `write-through` hands it to the kernel before the call returns; "
        "`buffered` lets records wait, which costs half as much, and those that wait when it is killed are lost; an "
        "unhandled SIGTERM, such as `docker stop` sends, kills it too.",
    )
    log_flush_seconds: float = Field(1.0, gt=0, le=3_600, description="How long a buffered record waits at most.")
    log_slow_seconds: float = Field(
        2.0, ge=0, le=3_600, description="Records to a file that takes longer wait in memory or are dropped; 0: never."
    )
    log_console: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Text lines on stderr; `auto` is off where the root logger already has a stream handler.",
    )
    log_features: Literal["full", "hashed", "none"] = Field(
        "hashed",
        description="How the features of a prediction, which are personal data, are logged: `full`, not at all with "
        "`none`, or as an HMAC whose key stays in the data folder.",
    )
    log_max_bytes: int = Field(
        100_000_000, ge=10_000, description="A log file of this size is set aside; so is each at the end of a UTC day."
    )
    log_retention_days: int = Field(90, ge=1, description="How many days log files that were set aside are kept.")
    log_total_bytes: int | None = Field(
        None, ge=1, description="Remove the oldest log files, the audit trail never, past this total; unset: no cap."
    )

    redact_keys: FieldNames = Field(
        (), description="Endings of field names whose texts are hidden, beside `password`, `token` and so on; by comma."
    )
    redact_patterns: Expressions = Field(
        (), description="Regular expressions, one a line; what they match is hidden in every text that is written."
    )

    audit_key_file: Path | None = Field(
        None, description="File with the secret key that makes the audit trail's hash chain an HMAC."
    )
    audit_retention_days: int = Field(
        2557, ge=1, description="How many days files of the audit trail that were set aside are kept: seven years."
    )
    audit_required: bool = Field(False, description="Stop an operation whose audit record cannot be written.")

    smtp_host: str | None = Field(None, description="Mail server; unset: no e-mail is sent.")
    smtp_port: Port = Field(587, description="Port of the mail server.")
    smtp_user: str | None = Field(None, description="Login name at the mail server.")
    smtp_password_file: Path | None = Field(None, description="File with the password for the mail server.")
    smtp_security: Literal["none", "starttls", "tls"] = Field(
        "starttls", description="How the connection to the mail server is protected."
    )
    smtp_timeout_seconds: float = Field(10.0, gt=0, le=600, description="Longest wait for the mail server.")

    alert_email_from: str | None = Field(None, description="Sender of alert mails.")
    alert_email_to: CommaSeparated = Field((), description="Receivers of alert mails, separated by commas.")
    alert_cooldown_seconds: float = Field(
        300.0, ge=0, description="How long a repeat of an alert is held back and counted."
    )

    slack_webhook_file: Path | None = Field(
        None, description="File with the address of a Slack webhook; the stack's Alertmanager delivers to it."
    )
    pagerduty_key_file: Path | None = Field(
        None,
        description="File with a PagerDuty integration key; the stack's Alertmanager delivers critical alerts to it.",
    )

    lineage_export_nodes: int = Field(
        20_000,
        ge=0,
        description="Up to this many nodes, `nodes.json` and `edges.json` are kept up to date; past it, on demand.",
    )

    pushgateway_url: str | None = Field(
        None, repr=False, description="Pushgateway that takes the metrics of batch jobs."
    )
    metrics_port: Port | None = Field(None, description="Port on which metrics are served; unset: no server.")
    metrics_host: str = Field("127.0.0.1", description="Address on which metrics are served.")

    grafana_url: str = Field(
        "http://127.0.0.1:3000",
        validation_alias=AliasChoices("GRAFANA_URL"),
        description="Grafana that receives the dashboards.",
    )
    grafana_token: str | None = Field(
        None,
        validation_alias=AliasChoices("GRAFANA_TOKEN"),
        repr=False,
        description="Service-account token for Grafana.",
    )
    grafana_user: str = Field(
        "admin",
        validation_alias=AliasChoices("GRAFANA_USER"),
        description="Grafana user, where no token is given.",
    )
    grafana_password_file: Path | None = Field(
        None,
        validation_alias=AliasChoices("GRAFANA_PASSWORD_FILE"),
        description="File with that user's password.",
    )

    @field_validator("alert_email_to", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("alert_email_from", "alert_email_to")
    @classmethod
    def _addresses(cls, value: str | tuple[str, ...] | None) -> str | tuple[str, ...] | None:
        for address in (value,) if isinstance(value, str) else value or ():
            if not re.fullmatch(r"[^@\s<>,;\"]+@[^@\s<>,;\"]+", address):
                raise ValueError(f"must be a mail address like ops@example.org, {address!r} is not")
        return value

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("run_id")
    @classmethod
    def _uuid(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", value.lower()):
            raise ValueError("must be a UUID like 0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6")
        return value.lower() if value else value

    @field_validator("name")
    @classmethod
    def _label(cls, value: str) -> str:
        if not value.isprintable() or len(value) > _LONGEST_NAME:
            raise ValueError(f"must be one printable line of at most {_LONGEST_NAME} characters")
        return value.strip()

    @field_validator("grafana_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/]\S*", value):
            raise ValueError("must be an address like http://127.0.0.1:3000")
        return value

    @field_validator("*", mode="after")
    @classmethod
    def _absolute(cls, value: Any) -> Any:
        return _environment.absolute(value) if isinstance(value, Path) else value

    @field_validator("*", mode="after")
    @classmethod
    def _exportable(cls, value: Any) -> Any:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, (str, Path)) and not _environment.is_exportable(str(text)):
                raise ValueError("must be text that an environment variable can hold")
        return value

    @model_validator(mode="after")
    def _complete(self) -> Settings:
        if not self.name:
            object.__setattr__(self, "name", _environment.folder_name() or "ml_pipeline")
        if self.smtp_host and not (self.alert_email_from and self.alert_email_to):
            raise ValueError(
                "ML_PIPELINE_SMTP_HOST needs ML_PIPELINE_ALERT_EMAIL_FROM and ML_PIPELINE_ALERT_EMAIL_TO beside it"
            )
        return self


def environment_name(field: str) -> str:
    """Name the environment variable of a setting.

    Args:
        field: A field of `Settings`, such as ``log_dir``.

    Returns:
        Its variable, such as ``ML_PIPELINE_LOG_DIR`` or ``GRAFANA_URL``.
    """
    alias = Settings.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return PREFIX + field.upper()


def environment_text(settings: Settings, field: str) -> str | None:
    """Write a setting's value as its environment variable would hold it.

    Args:
        settings: Where the value stands.
        field: Its name.

    Returns:
        The text; None where the setting is unset, or a secret, which no other process may read from the environment.
    """
    value = getattr(settings, field)
    if value is None or is_secret(field):
        return None
    if isinstance(value, bool):
        return "1" if value else "0"
    separator = "\n" if field == "redact_patterns" else ","
    return separator.join(value) if isinstance(value, tuple) else str(value)


def is_secret(field: str) -> bool:
    """Say whether a setting's value must never be shown or handed on."""
    return field in _SECRETS


def load_settings(values: Mapping[str, object] | None = None) -> Settings:
    """Read the settings and judge every one of them.

    Args:
        values: Settings given by the caller, by field name (``log_dir``); they win over the environment.

    Returns:
        The settings, frozen.

    Raises:
        SettingsError: If a name is unknown or a value out of range; one line names the setting, the value, the remedy.
    """
    given = dict(values or {})
    _refuse_unknown_fields(given)
    _refuse_unknown_environment(_environment.named_variables(_environment.variables_of_file()))
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as invalid:
        raise _one_line(invalid) from None


def salvage_settings(values: Mapping[str, object] | None = None) -> Settings:
    """Read the settings that are sound and leave the others at their defaults.

    A pipeline that is already running must not stop over a misspelt variable: the caller has said the error that
    `load_settings` raised, and goes on with this.

    Args:
        values: Settings given by the caller, by field name.

    Returns:
        Settings without the names and values that `load_settings` would refuse.
    """
    try:
        from_file = _environment.variables_of_file()
    except SettingsError:
        from_file = {}
    candidates: dict[str, object] = {**_fields_of(_environment.named_variables(from_file)), **(values or {})}
    candidates = {field: value for field, value in candidates.items() if field in Settings.model_fields}
    while True:
        try:
            return _IsolatedSettings(**candidates)  # type: ignore[arg-type]
        except ValidationError as invalid:
            for field in {str(error["loc"][0]).lower() if error["loc"] else "smtp_host" for error in invalid.errors()}:
                if field in candidates:
                    del candidates[field]
                else:  # a default is wrong only where it lies below a working folder that is gone
                    candidates[field] = Path(tempfile.gettempdir()) / Settings.model_fields[field].default


class _IsolatedSettings(Settings):
    """Settings from arguments alone."""

    model_config = SettingsConfigDict(env_file=None)

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, **_: Any) -> tuple[Any, ...]:  # type: ignore[override]  # noqa: ARG003
        return (init_settings,)


def _fields_of(variables: Mapping[str, str]) -> dict[str, str]:
    by_variable = {environment_name(field): field for field in Settings.model_fields}
    return {by_variable[name]: value for name, value in variables.items() if name in by_variable}


def _refuse_unknown_fields(values: Mapping[str, object]) -> None:
    for name in values:
        if name not in Settings.model_fields:
            raise SettingsError("a setting must be one of the known names", name, closest(name, Settings.model_fields))


def _refuse_unknown_environment(variables: Iterable[str]) -> None:
    known = {environment_name(field) for field in Settings.model_fields}
    for name in variables:
        if not name.startswith(PREFIX) or name in known:
            continue
        purpose = _RESERVED.get(name.removeprefix(PREFIX))
        if purpose:
            raise SettingsError(f"{name} is kept for {purpose}, which this version does not do", remedy=f"unset {name}")
        raise SettingsError(
            f"an {PREFIX}* variable in the environment or .env must be a known setting",
            name,
            closest(name, known, prefix=PREFIX),
        )


def _one_line(invalid: ValidationError) -> SettingsError:
    problem = invalid.errors()[0]
    more = f" ({invalid.error_count() - 1} more after it)" if invalid.error_count() > 1 else ""
    message = problem["msg"].removeprefix("Value error, ")
    if not problem["loc"]:
        return SettingsError(message + more, remedy="set them, or unset the first")
    located = str(problem["loc"][0])
    field = located.lower()
    name = environment_name(field) if field in Settings.model_fields else located
    value = "***" if is_secret(field) else problem["input"]
    return SettingsError(f"{name}: {message[0].lower()}{message[1:]}{more}", value, f"correct {name} or unset it")
