"""The settings: typed values, read once at the border from the environment or ``.env``.

Every setting has a unit in its name where it has one, and a sentence that the reference documentation repeats. A name
with the prefix ``ML_PIPELINE_`` that is not known here is an error, for a misspelt setting would silently do nothing.
"""

from __future__ import annotations

import os
import re
import tempfile
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
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
    "Salvaged",
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

_CLOSED: Final[dict[str, tuple[object, str]]] = {
    "audit_required": (True, "going on as if it were on"),
    "audit_key_file": (Path(os.devnull, "audit.key"), "going on without audit records, which would have no key"),
}
"""What stands in for a wrong value where the default would protect less, and what is said of it."""

_AS_READ: Final = "going on with what is sound of it"
_WITHOUT: Final = "going on without it"
_MOST_SAID: Final = 20


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
    separator = _separator(field)
    return str(value) if separator is None else separator.join(value)


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
        SettingsError: If a name is unknown or a value out of range; one line names the setting, the value, the remedy,
            and which others are wrong too.
    """
    given = dict(values or {})
    candidates, wrong = _found(given)
    if not wrong:
        try:
            return Settings(**given)  # type: ignore[arg-type]
        except ValidationError as invalid:
            wrong = _errors(invalid, given)
    else:
        wrong |= _judged(candidates, given)[1]
    raise _together(wrong, given)


class Salvaged(NamedTuple):
    """Settings to go on with, and what is said of those that were wrong.

    Attributes:
        settings: The sound ones.
        said: A line for each other, bounded: its name, the rule, the remedy, and what is done in its place.
    """

    settings: Settings
    said: tuple[str, ...]


def salvage_settings(values: Mapping[str, object] | None = None) -> Salvaged:
    """Read the settings that are sound and leave the others at their defaults.

    A pipeline that is already running must not stop over a misspelt variable. What protects fails closed, though: of a
    list, such as the fields to hide, what is sound is kept; ``AUDIT_REQUIRED`` is on where it is no clear no; and
    where a key was meant, nothing is audited without one: the trail could not be verified from there on.

    Args:
        values: Settings given by the caller, by field name.

    Returns:
        Settings without the names and values that `load_settings` would refuse.
    """
    given = dict(values or {})
    candidates, wrong = _found(given)
    instead = {name: _AS_READ for name in wrong if name.startswith(_environment.ENV_FILE)}
    folder: Path | None = None
    while True:
        settings, refused = _judged(candidates, given)
        if settings is not None:
            return Salvaged(settings, tuple(_lines(wrong, instead, given)))
        for field, error in refused.items():
            wrong.setdefault(field, error)
            if field not in candidates:  # a default is wrong only where it lies below a working folder that is gone
                folder = folder or _private_folder()
                candidates[field] = folder / Settings.model_fields[field].default
                instead[field] = f"going on with {candidates[field]}"
                continue
            refused_value = candidates.pop(field)
            parts = () if field in instead else _sound_parts(field, refused_value, candidates)
            if field in _CLOSED:
                candidates[field], instead[field] = _CLOSED[field]
            elif parts:
                candidates[field], instead[field] = parts, _AS_READ
            else:
                instead[field] = _WITHOUT


class _IsolatedSettings(Settings):
    """Settings from arguments alone."""

    model_config = SettingsConfigDict(env_file=None)

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, **_: Any) -> tuple[Any, ...]:  # type: ignore[override]  # noqa: ARG003
        return (init_settings,)


def _fields_of(variables: Mapping[str, str]) -> dict[str, str]:
    by_variable = {environment_name(field): field for field in Settings.model_fields}
    return {by_variable[name]: value for name, value in variables.items() if name in by_variable}


def _found(given: Mapping[str, object]) -> tuple[dict[str, object], dict[str, SettingsError]]:
    """What the caller, the environment and ``.env`` say, by field, and by its name what cannot be a setting."""
    from_file, wrong = _environment.variables_of_file()
    in_utf8 = {name: sound for name, value in from_file.items() if (sound := _in_utf8(name.upper(), value))}
    variables = _environment.named_variables(in_utf8)
    known = {field: value for field, value in given.items() if field in Settings.model_fields}
    return {**_fields_of(variables), **known}, {**_unknown_fields(given), **wrong, **_unknown_variables(variables)}


def _judged(
    candidates: Mapping[str, object], given: Mapping[str, object]
) -> tuple[Settings | None, dict[str, SettingsError]]:
    """Make settings of what was found, or say by field what is wrong with it."""
    try:
        return _IsolatedSettings(**candidates), {}  # type: ignore[arg-type]
    except ValidationError as invalid:
        return None, _errors(invalid, given)


def _sound_parts(field: str, value: object, others: Mapping[str, object]) -> tuple[str, ...]:
    """Keep of a list what is right by itself, each once; nothing of what is no list."""
    separator = _separator(field)
    parts = value.split(separator) if separator and isinstance(value, str) else value
    if separator is None or not isinstance(parts, (list, tuple)):
        return ()
    texts = dict.fromkeys(part for part in parts if isinstance(part, str) and part.strip())
    return tuple(part for part in texts if field not in _judged({**others, field: (part,)}, {})[1])


def _in_utf8(variable: str, value: str) -> str:
    """Keep what was read as it was meant: the whole value, or parts of a list; empty where nothing was."""
    field = next(iter(_fields_of({variable: value})), "")
    if _environment.is_utf8(value) or not field or field in _CLOSED:
        return value
    separator = _separator(field)
    return separator.join(filter(_environment.is_utf8, value.split(separator))) if separator else ""


def _separator(field: str) -> str | None:
    """What stands between the parts of a list in a variable; None where the setting is no list."""
    if not isinstance(Settings.model_fields[field].default, tuple):
        return None
    return "\n" if field == "redact_patterns" else ","


def _private_folder() -> Path:
    """A folder that nobody else could have made or can look into, for what has no other place."""
    try:
        return Path(tempfile.mkdtemp(prefix="ml_pipeline-"))
    except OSError:  # then nothing can be written, and each who tries says so
        return Path(os.devnull)


def _unknown_fields(values: Mapping[str, object]) -> dict[str, SettingsError]:
    return {
        name: SettingsError("a setting must be one of the known names", name, closest(name, Settings.model_fields))
        for name in values
        if name not in Settings.model_fields
    }


def _unknown_variables(variables: Iterable[str]) -> dict[str, SettingsError]:
    known = {environment_name(field) for field in Settings.model_fields}
    return {
        name: SettingsError(
            f"an {PREFIX}* variable in the environment or .env must be a known setting",
            name,
            closest(name, known, prefix=PREFIX),
        )
        for name in variables
        if name.startswith(PREFIX) and name not in known
    }


def _errors(invalid: ValidationError, given: Mapping[str, object]) -> dict[str, SettingsError]:
    """The first that is wrong with each setting, by its field."""
    errors: dict[str, SettingsError] = {}
    for problem in invalid.errors():
        message = problem["msg"].removeprefix("Value error, ")
        if not problem["loc"]:
            errors.setdefault("smtp_host", SettingsError(message, remedy="set them, or unset the first"))
            continue
        located = str(problem["loc"][0])
        field = located.lower()
        value = "***" if is_secret(field) or field in _NEVER_SHOWN else problem["input"]
        name = _name_of(field, given) if field in Settings.model_fields else located
        if field in given:
            remedy = f"correct the argument {field} or leave it out"
        elif field in Settings.model_fields and value == Settings.model_fields[field].default:
            remedy = f"set {name}"
        else:
            remedy = f"correct {name} or unset it"
        errors.setdefault(field, SettingsError(f"{name}: {message[0].lower()}{message[1:]}", value, remedy))
    return errors


def _name_of(field: str, given: Mapping[str, object]) -> str:
    return environment_name(field) if field in Settings.model_fields and field not in given else field


def _together(wrong: Mapping[str, SettingsError], given: Mapping[str, object]) -> SettingsError:
    """The first error, which names the others."""
    (_, first), *others = wrong.items()
    if not others:
        return first
    names = _names((name for name, _ in others), given)
    return SettingsError(f"{first.rule} ({len(others)} more after it: {names})", first.given, first.remedy)


def _lines(wrong: Mapping[str, SettingsError], instead: Mapping[str, str], given: Mapping[str, object]) -> list[str]:
    """What is said of everything that is wrong, a line each, and one for those past the most."""
    lines = [f"{error}; {instead.get(name, _WITHOUT)}" for name, error in islice(wrong.items(), _MOST_SAID)]
    more = len(wrong) - len(lines)
    return [*lines, f"{more} more are wrong: {_names(islice(wrong, _MOST_SAID, None), given)}"] if more else lines


def _names(fields: Iterable[str], given: Mapping[str, object]) -> str:
    names = [_name_of(field, given) for field in islice(fields, _MOST_SAID + 1)]
    return ", ".join(names[:_MOST_SAID]) + (", …" if len(names) > _MOST_SAID else "")
