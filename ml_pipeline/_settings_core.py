"""The settings that everything has: names, folders, logs and the audit trail; and how settings are read.

What the other settings build on: they inherit the sources, and the checks of paths and texts.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from ml_pipeline import _environment

__all__ = ["PREFIX", "CommaSeparated", "CoreSettings", "Port"]

PREFIX = "ML_PIPELINE_"

_LONGEST_NAME = 255

CommaSeparated = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_environment.comma_separated)]
FieldNames = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_environment.field_names)]
Expressions = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_environment.expressions)]
LevelRules = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_environment.level_rules)]
ByteCount = Annotated[int, BeforeValidator(_environment.byte_words)]
Port = Annotated[int, Field(ge=1, le=65535)]


class CoreSettings(BaseSettings):
    """Where things are, who runs, and what is logged."""

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
        2.0,
        ge=0,
        le=3_600,
        description="Records to a file or sink that takes longer wait in memory or are dropped; 0: never.",
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
    log_max_bytes: ByteCount = Field(
        100_000_000,
        ge=10_000,
        description="A log file of this size, such as `100 MB`, is set aside; so is each at the end of a UTC day.",
    )
    log_retention_days: int = Field(90, ge=1, description="How many days log files that were set aside are kept.")
    log_total_bytes: ByteCount | None = Field(
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
    def _named(self) -> CoreSettings:
        if not self.name:
            object.__setattr__(self, "name", _environment.folder_name() or "ml_pipeline")
        return self
