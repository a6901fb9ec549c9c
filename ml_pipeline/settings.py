"""The settings: typed values, read once at the border from the environment or ``.env``.

Every setting has a unit in its name where it has one, and a sentence that the reference documentation repeats. A name
with the prefix ``ML_PIPELINE_`` that is not known here is an error, for a misspelt setting would silently do nothing.
"""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from pydantic import AliasChoices, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import SettingsConfigDict

from ml_pipeline import _environment
from ml_pipeline._settings_alerts import AlertSettings
from ml_pipeline._settings_core import PREFIX, Port
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

_SECRETS = frozenset({"grafana_token"})
_HOST = r"(?:[^\s:@/?#,\[\]]*|\[[0-9A-Fa-f:.%]+\])(?::[0-9]+)?"
_DATABASE = rf"postgresql://(?:[^\s:@/?#]+@)?{_HOST}(?:,{_HOST})*(?:/[^\s/?#@]*)?(?:\?[^\s#]*)?"
_NEVER_SHOWN = frozenset({"database_url"})
"""Settings whose wrong values may hold what nobody else should read."""


class Settings(AlertSettings):
    """What a process was told, frozen; paths are absolute from the moment of reading.

    Values come, in this order, from the arguments, the environment (``ML_PIPELINE_NAME`` and so on), and the file
    ``.env`` in the working directory. Secrets are read from files named here, never given as values.

    Raises:
        SettingsError: From `load_settings`; building the class by hand raises pydantic's ``ValidationError``.
    """

    database_url: str | None = Field(
        None,
        description="PostgreSQL database of the alert outbox, `postgresql://user@host/name`, for several hosts; unset: "
        "a file in the data folder. Lineage and the audit trail are local in any case.",
    )
    database_password_file: Path | None = Field(None, description="File with the password for the database.")

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

    @field_validator("database_url")
    @classmethod
    def _database(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parameters = {name.lower() for name, _ in parse_qsl(value.partition("?")[2], keep_blank_values=True)}
        if not re.fullmatch(_DATABASE, value) or {"password", "sslpassword"} & parameters:
            raise ValueError(
                "must be an address like postgresql://user@host/name (no other database is known), without its "
                f"password, which stands in the file that {PREFIX}DATABASE_PASSWORD_FILE names"
            )
        return value

    @field_validator("database_password_file")
    @classmethod
    def _of_database(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not info.data.get("database_url"):
            raise ValueError(f"needs {PREFIX}DATABASE_URL beside it")
        return value

    @field_validator("grafana_url")
    @classmethod
    def _address(cls, value: str) -> str:
        if not re.fullmatch(r"https?://[^\s/]\S*", value):
            raise ValueError("must be an address like http://127.0.0.1:3000")
        return value


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
    value = "***" if is_secret(field) or field in _NEVER_SHOWN else problem["input"]
    return SettingsError(f"{name}: {message[0].lower()}{message[1:]}{more}", value, f"correct {name} or unset it")
