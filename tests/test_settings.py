from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

import ml_pipeline
from ml_pipeline.cli import main
from ml_pipeline.errors import SettingsError
from ml_pipeline.settings import (
    PREFIX,
    Settings,
    environment_name,
    environment_text,
    is_secret,
    load_settings,
    salvage_settings,
)
from tests.processes import run_python

RUN_ID = "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6"
MAIL = {"alert_email_from": "ml@example.org", "alert_email_to": "ops@example.org"}

BESIDE = {
    "smtp_host": MAIL,
    "smtp_oauth_token_file": {"smtp_user": "ml"},
    "database_password_file": {"database_url": "postgresql:///ml"},
    "alert_webhook_key_file": {"alert_webhook_url": "https://alerts.example.org"},
}

GOOD: dict[str, tuple[str, object]] = {
    "name": ("alzheimer", "alzheimer"),
    "run_id": (RUN_ID.upper(), RUN_ID),
    "strict": ("1", True),
    "log_dir": ("/var/log/ml", Path("/var/log/ml")),
    "data_dir": ("/srv/../srv/data", Path("/srv/data")),
    "artifact_dir": ("~/models", Path.home() / "models"),
    "log_level": ("debug", "DEBUG"),
    "log_levels": (" training = debug ,, my.module=WARNING,", ("training=DEBUG", "my.module=WARNING")),
    "log_records_per_second": ("0.5", 0.5),
    "log_format": ("text", "text"),
    "log_mode": ("buffered", "buffered"),
    "log_flush_seconds": ("0.5", 0.5),
    "log_slow_seconds": ("0", 0.0),
    "log_console": ("off", "off"),
    "log_features": ("none", "none"),
    "log_max_bytes": ("10000", 10_000),
    "log_retention_days": ("30", 30),
    "log_total_bytes": ("5000000000", 5_000_000_000),
    "redact_keys": (" ssn ,, dateOfBirth,", ("ssn", "dateOfBirth")),
    "redact_patterns": ("sk-[a-z]+\n\n  [0-9]{16} ", ("sk-[a-z]+", "[0-9]{16}")),
    "audit_key_file": ("/run/key", Path("/run/key")),
    "audit_retention_days": ("3653", 3653),
    "audit_required": ("true", True),
    "smtp_host": ("mail.example.org", "mail.example.org"),
    "smtp_port": ("465", 465),
    "smtp_user": ("ml", "ml"),
    "smtp_password_file": ("/run/password", Path("/run/password")),
    "slack_webhook_file": ("/run/slack", Path("/run/slack")),
    "pagerduty_key_file": ("/run/pagerduty", Path("/run/pagerduty")),
    "smtp_oauth_token_file": ("/run/token", Path("/run/token")),
    "smtp_security": ("tls", "tls"),
    "smtp_timeout_seconds": ("2.5", 2.5),
    "alert_email_from": ("ml@example.org", "ml@example.org"),
    "alert_email_to": (" a@example.org ,, b@example.org,", ("a@example.org", "b@example.org")),
    "alert_cooldown_seconds": ("0", 0.0),
    "alert_rules_file": ("/etc/alerts.yml", Path("/etc/alerts.yml")),
    "pagerduty_url": ("https://events.eu.pagerduty.com/v2/enqueue", "https://events.eu.pagerduty.com/v2/enqueue"),
    "teams_webhook_file": ("/run/teams", Path("/run/teams")),
    "alert_digest": ("daily", "daily"),
    "alertmanager_url": ("http://127.0.0.1:9093/am", "http://127.0.0.1:9093/am"),
    "alertmanager_fallback_seconds": ("30", 30.0),
    "alert_webhook_url": ("https://alerts.example.org/hook?a=b", "https://alerts.example.org/hook?a=b"),
    "alert_webhook_key_file": ("/run/webhook", Path("/run/webhook")),
    "alert_file": ("/srv/alerts.jsonl", Path("/srv/alerts.jsonl")),
    "alert_channels": (" console ,, file,", ("console", "file")),
    "database_url": ("postgresql://ml@db:5432/ml?sslmode=require", "postgresql://ml@db:5432/ml?sslmode=require"),
    "database_password_file": ("/run/password", Path("/run/password")),
    "lineage_export_nodes": ("0", 0),
    "metrics_port": ("9100", 9100),
    "metrics_host": ("0.0.0.0", "0.0.0.0"),
    "pushgateway_url": ("http://127.0.0.1:9091", "http://127.0.0.1:9091"),
    "grafana_url": ("https://grafana.example.org/sub", "https://grafana.example.org/sub"),
    "grafana_token": ("glsa_s3cret", "glsa_s3cret"),
    "grafana_user": ("ops", "ops"),
    "grafana_password_file": ("/run/grafana", Path("/run/grafana")),
}

BAD = [
    ("name", "a\tb", "must be one printable line of at most 255 characters (got 'a\\tb')"),
    ("name", "x" * 256, f"must be one printable line of at most 255 characters (got '{'x' * 198}…)"),
    ("run_id", "run-1", "must be a UUID like 0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6 (got 'run-1')"),
    ("run_id", RUN_ID + "\n", f"must be a UUID like 0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6 (got '{RUN_ID}\\n')"),
    ("strict", "maybe", "input should be a valid boolean, unable to interpret input (got 'maybe')"),
    ("log_dir", "~nosuchuser/x", "must begin with a home folder that exists, or without ~ (got '~nosuchuser/x')"),
    ("log_level", "LOUD", "input should be 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL' (got 'LOUD')"),
    ("log_levels", "training=LOUD", "must be levels like training=DEBUG,my.module=WARNING, 'training=LOUD' is none (got 'training=LOUD')"),
    ("log_levels", "audit=INFO", "must be levels like training=DEBUG,my.module=WARNING, 'audit=INFO' is none (got 'audit=INFO')"),
    ("log_records_per_second", "0", "input should be greater than 0 (got '0')"),
    ("log_format", "xml", "input should be 'json' or 'text' (got 'xml')"),
    ("log_mode", "lazy", "input should be 'write-through' or 'buffered' (got 'lazy')"),
    ("log_flush_seconds", "0", "input should be greater than 0 (got '0')"),
    ("log_slow_seconds", "-1", "input should be greater than or equal to 0 (got '-1')"),
    ("log_console", "yes", "input should be 'auto', 'on' or 'off' (got 'yes')"),
    ("log_features", "some", "input should be 'full', 'hashed' or 'none' (got 'some')"),
    ("log_max_bytes", "100", "input should be greater than or equal to 10000 (got '100')"),
    ("log_retention_days", "0", "input should be greater than or equal to 1 (got '0')"),
    ("audit_retention_days", "0", "input should be greater than or equal to 1 (got '0')"),
    ("log_total_bytes", "0", "input should be greater than or equal to 1 (got '0')"),
    ("redact_keys", "ssn,_", "must be names with a letter or digit, separated by commas, '_' is none (got 'ssn,_')"),
    ("redact_patterns", "a\n(b", "must be regular expressions, one a line, '(b' is none (missing ), unterminated subpattern at position 0) (got 'a\\n(b')"),
    ("redact_patterns", "[[:a:]]", "must be regular expressions, one a line, '[[:a:]]' is none (Possible nested set at position 1) (got '[[:a:]]')"),
    ("audit_key_file", "~nosuchuser/k", "must begin with a home folder that exists, or without ~ (got '~nosuchuser/k')"),
    ("audit_required", "2", "input should be a valid boolean, unable to interpret input (got '2')"),
    ("smtp_port", "0", "input should be greater than or equal to 1 (got '0')"),
    ("smtp_port", "65536", "input should be less than or equal to 65535 (got '65536')"),
    ("smtp_port", "mail", "input should be a valid integer, unable to parse string as an integer (got 'mail')"),
    ("smtp_security", "ssl", "input should be 'none', 'starttls' or 'tls' (got 'ssl')"),
    ("smtp_timeout_seconds", "0", "input should be greater than 0 (got '0')"),
    ("smtp_timeout_seconds", "601", "input should be less than or equal to 600 (got '601')"),
    ("alert_email_from", "ops", "must be a mail address like ops@example.org, 'ops' is not (got 'ops')"),
    ("alert_email_to", "a@b.c,d e@f.g", "must be a mail address like ops@example.org, 'd e@f.g' is not (got 'a@b.c,d e@f.g')"),
    ("alert_cooldown_seconds", "-1", "input should be greater than or equal to 0 (got '-1')"),
    ("alert_cooldown_seconds", "inf", "input should be a finite number (got 'inf')"),
    ("alert_cooldown_seconds", "nan", "input should be a finite number (got 'nan')"),
    ("alert_webhook_url", "ftp://a", "must be an address like https://alerts.example.org/hook, without user and password (got 'ftp://a')"),
    ("alert_webhook_url", "https://me:word@a/b", "must be an address like https://alerts.example.org/hook, without user and password (got 'https://***@a/b')"),
    ("alertmanager_url", "127.0.0.1:9093", "must be an address like http://127.0.0.1:9093, without user and password (got '127.0.0.1:9093')"),
    ("alertmanager_url", "http://me:word@am", "must be an address like http://127.0.0.1:9093, without user and password (got 'http://***@am')"),
    ("alertmanager_fallback_seconds", "-1", "input should be greater than or equal to 0 (got '-1')"),
    ("smtp_oauth_token_file", "/run/token", "needs ML_PIPELINE_SMTP_USER beside it (got '/run/token')"),
    ("alert_webhook_key_file", "/run/key", "needs ML_PIPELINE_ALERT_WEBHOOK_URL beside it (got '/run/key')"),
    ("pagerduty_url", "eu", "must be an address like https://alerts.example.org/hook, without user and password (got 'eu')"),
    ("alert_channels", "slak", "must be known channels, 'slak' is none: did you mean 'slack'? (got 'slak')"),
    ("alert_channels", "console,console", "must name each channel once (got 'console,console')"),
    ("alert_channels", "email", "email needs ML_PIPELINE_SMTP_HOST beside it (got 'email')"),
    ("alert_channels", "slack", "slack needs ML_PIPELINE_SLACK_WEBHOOK_FILE beside it (got 'slack')"),
    ("alert_channels", "pagerduty", "pagerduty needs ML_PIPELINE_PAGERDUTY_KEY_FILE beside it (got 'pagerduty')"),
    ("alert_channels", "teams", "teams needs ML_PIPELINE_TEAMS_WEBHOOK_FILE beside it (got 'teams')"),
    ("alert_channels", "webhook", "webhook needs ML_PIPELINE_ALERT_WEBHOOK_URL beside it (got 'webhook')"),
    ("database_password_file", "/run/password", "needs ML_PIPELINE_DATABASE_URL beside it (got '/run/password')"),
    ("lineage_export_nodes", "-1", "input should be greater than or equal to 0 (got '-1')"),
    ("metrics_port", "70000", "input should be less than or equal to 65535 (got '70000')"),
    ("grafana_url", "grafana:3000", "must be an address like http://127.0.0.1:3000 (got 'grafana:3000')"),
]  # fmt: skip

KEPT: dict[tuple[str, str], object] = {
    ("redact_keys", "ssn,_"): ("ssn",),
    ("redact_patterns", "a\n(b"): ("a",),
    ("alert_email_to", "a@b.c,d e@f.g"): ("a@b.c",),
    ("alert_channels", "console,console"): ("console",),
    ("audit_required", "2"): True,
    ("audit_key_file", "~nosuchuser/k"): Path(os.devnull, "audit.key"),
}
"""What is salvaged of a bad value, where it is not the default."""


def test_every_setting_has_a_test_and_a_sentence() -> None:
    """A setting that is added here is described and tried."""
    fields = set(Settings.model_fields)
    assert set(GOOD) == fields
    for field in fields:
        assert str(Settings.model_fields[field].description).endswith("."), field


@pytest.mark.parametrize("field", GOOD)
@pytest.mark.parametrize("source", ["environment", "file", "argument"])
def test_a_good_value_is_read_from_everywhere(field: str, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Environment, ``.env`` and argument are read the same way."""
    ml_pipeline.reset()
    text, value = GOOD[field]
    for name, address in BESIDE.get(field, {}).items():
        monkeypatch.setenv(environment_name(name), address)
    if source == "environment":
        monkeypatch.setenv(environment_name(field), text)
    elif source == "file":
        Path(".env").write_text(f"{environment_name(field)}='{text}'\n", encoding="utf-8")
    assert getattr(load_settings({field: text} if source == "argument" else {}), field) == value


@pytest.mark.parametrize(("field", "text", "message"), BAD)
@pytest.mark.parametrize("source", ["environment", "file", "argument"])
def test_a_bad_value_is_one_clear_line(
    field: str, text: str, message: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It names the setting, the rule, the value and the remedy; the sound settings can still be had."""
    ml_pipeline.reset()
    name, values = environment_name(field), {field: text} if source == "argument" else {}
    default = getattr(load_settings(), field)
    if source == "environment":
        monkeypatch.setenv(name, text)
    elif source == "file":
        Path(".env").write_text(f'{name}="{text}"\n', encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings(values)
    said, remedy = (name, "unset it") if source != "argument" else (field, "leave it out")
    shown = name if source != "argument" else f"the argument {field}"
    assert str(caught.value) == f"{said}: {message}; correct {shown} or {remedy}"
    salvaged = salvage_settings(values)
    assert getattr(salvaged.settings, field) == KEPT.get((field, text), default)
    assert len(salvaged.said) == 1
    assert salvaged.said[0].startswith(f"{caught.value}; going on ")


@pytest.mark.parametrize("text", ["\ud800", "a\0b"])
def test_a_value_that_no_variable_can_hold_is_refused(text: str) -> None:
    """A worker started later could not be told of it."""
    for field, value in {"smtp_user": text, "audit_key_file": text, "alert_email_to": f"{text}@b.c"}.items():
        with pytest.raises(SettingsError) as caught:
            load_settings({field: value})
        assert str(caught.value) == (
            f"{field}: must be text that an environment variable can hold (got {value!r}); "
            f"correct the argument {field} or leave it out"
        )


def test_several_bad_values_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, which says what there is after it."""
    monkeypatch.setenv("ML_PIPELINE_SMTP_PORT", "0")
    monkeypatch.setenv("ML_PIPELINE_METRICS_PORT", "0")
    with pytest.raises(
        SettingsError,
        match=r"^ML_PIPELINE_SMTP_PORT: .* 1 \(1 more after it: ML_PIPELINE_METRICS_PORT\) \(got '0'\); correct",
    ):
        load_settings()


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("ML_PIPELINE_LOG_DRI", "did you mean 'ML_PIPELINE_LOG_DIR'?"),
        ("ML_PIPELINE_LOGDIR", "did you mean 'ML_PIPELINE_LOG_DIR'?"),
        ("ml_pipeline_naem", "did you mean 'ML_PIPELINE_NAME'?"),
        ("ML_PIPELINE_GRAFANA_TOKEN", "did you mean 'GRAFANA_TOKEN'?"),
    ],
)
@pytest.mark.parametrize("source", ["environment", "file"])
def test_a_misspelt_variable_is_an_error_that_names_the_closest(
    name: str, suggestion: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A misspelt setting would silently do nothing; its value, which may be a secret, is not shown."""
    if source == "environment":
        monkeypatch.setenv(name, "hunter2")
    else:
        Path(".env").write_text(f"{name}=hunter2\n", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == (
        "an ML_PIPELINE_* variable in the environment or .env must be a known setting "
        f"(got '{name.upper()}'); {suggestion}"
    )
    assert salvage_settings().settings.name == "test"


def test_a_name_like_none_lists_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing comes close, the names there are."""
    monkeypatch.setenv("ML_PIPELINE_ZQX", "1")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    known = ", ".join(sorted(environment_name(field) for field in Settings.model_fields))
    assert str(caught.value).endswith(f"(got 'ML_PIPELINE_ZQX'); known: {known}")


def test_an_unknown_argument_is_an_error_that_names_the_closest() -> None:
    """Also one that pydantic would have taken under another name."""
    with pytest.raises(
        SettingsError, match=r"^a setting must be one of the known names \(got 'logdir'\); did you mean 'log_dir'\?$"
    ):
        load_settings({"logdir": "x"})
    with pytest.raises(SettingsError, match="one of the known names"):
        load_settings({"GRAFANA_URL": "http://x"})


def test_other_names_in_the_file_are_not_ours_to_judge() -> None:
    """A ``.env`` serves other programs too."""
    Path(".env").write_text(
        "DATABASE_URL=x\nAWS_KEY\n# comment\nGRAFANA_PORT=1\nML_PIPELINE_SMTP_USER=me\n", encoding="utf-8"
    )
    assert load_settings().smtp_user == "me"


def test_the_environment_wins_over_the_file_and_arguments_over_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of how near they are."""
    Path(".env").write_text(
        "ML_PIPELINE_SMTP_PORT=1\nML_PIPELINE_METRICS_PORT=1\nML_PIPELINE_SMTP_USER=file\n", encoding="utf-8"
    )
    monkeypatch.setenv("ML_PIPELINE_SMTP_PORT", "2")
    monkeypatch.setenv("ML_PIPELINE_METRICS_PORT", "2")
    settings = load_settings({"metrics_port": 3})
    assert (settings.smtp_user, settings.smtp_port, settings.metrics_port) == ("file", 2, 3)


def test_an_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compose files and CI set variables to nothing; the file's value is used then, or the default."""
    Path(".env").write_text(
        "ML_PIPELINE_SMTP_USER=file\nML_PIPELINE_LOG_LEVEL=\nML_PIPELINE_MISSPELT=\n", encoding="utf-8"
    )
    for name in ("SMTP_USER", "SMTP_PORT", "ALERT_EMAIL_TO", "RUN_ID", "ALSO_MISSPELT"):
        monkeypatch.setenv(PREFIX + name, "")
    settings = load_settings()
    assert (settings.smtp_user, settings.smtp_port, settings.log_level) == ("file", 587, "INFO")
    assert (settings.alert_email_to, settings.run_id) == ((), None)


@pytest.mark.parametrize(
    "url",
    ["postgres://db/x", "mysql://db/x", "postgresql://ml:hush@db/x", "postgresql://ml:hu/sh@db/x", "postgresql://ml:hu?sh@db/x",
     "postgresql://db/x?password=hush", "postgresql://db/x?pass%77ord=hush", "postgresql://db/x y", "postgresql://ml@db@hush/x"],
)  # fmt: skip
def test_a_database_that_cannot_be_is_refused_and_no_password_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only PostgreSQL is known, and a password belongs in a file."""
    monkeypatch.setenv("ML_PIPELINE_DATABASE_URL", url)
    monkeypatch.setenv("ML_PIPELINE_DATABASE_PASSWORD_FILE", "/run/password")
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value) == (
        "ML_PIPELINE_DATABASE_URL: must be an address like postgresql://user@host/name (no other database is known), "
        "without its password, which stands in the file that ML_PIPELINE_DATABASE_PASSWORD_FILE names "
        "(1 more after it: ML_PIPELINE_DATABASE_PASSWORD_FILE) (got '***'); correct ML_PIPELINE_DATABASE_URL or unset it"
    )
    salvaged = salvage_settings().settings
    assert (salvaged.name, salvaged.database_url, salvaged.database_password_file) == ("test", None, None)


@pytest.mark.parametrize(
    "url",
    ["postgresql://", "postgresql:///ml", "postgresql://ml@[::1]:5432/ml?sslmode=verify-full", "postgresql://a:1,b:2/ml",
     "postgresql:///ml?host=/var/run/postgresql"],
)  # fmt: skip
def test_what_libpq_knows_may_stand_in_the_address(url: str) -> None:
    """Several hosts, a socket's folder, options."""
    assert load_settings({"database_url": url}).database_url == url


@pytest.mark.parametrize("content", [b"\xff\xfeM\0L\0", b"ML_PIPELINE_NAME=caf\xe9\n"])
def test_a_file_that_is_not_utf8_is_one_clear_line(content: bytes) -> None:
    """As some editors write it; its other lines are used."""
    Path(".env").write_bytes(content)
    with pytest.raises(
        SettingsError,
        match=r"^every line of \.env must be text in UTF-8 \(got '.*'\); correct line 1$",
    ):
        load_settings()
    assert salvage_settings().settings.name == "test"


def test_a_file_with_a_byte_order_mark_is_read() -> None:
    """The first name in it would otherwise be another one."""
    Path(".env").write_bytes(b"\xef\xbb\xbfML_PIPELINE_SMTP_USER=me\r\n")
    assert load_settings().smtp_user == "me"


def test_a_mail_server_needs_both_addresses() -> None:
    """An alert that nobody sends or gets is worse than none; without the server it is salvaged."""
    for missing in MAIL:
        values = {"smtp_host": "mail", **MAIL, missing: None if missing == "alert_email_from" else ()}
        with pytest.raises(SettingsError) as caught:
            load_settings(values)
        assert str(caught.value) == (
            "ML_PIPELINE_SMTP_HOST needs ML_PIPELINE_ALERT_EMAIL_FROM and ML_PIPELINE_ALERT_EMAIL_TO beside it; "
            "set them, or unset the first"
        )
        salvaged = salvage_settings(values).settings
        assert salvaged.smtp_host is None
    assert load_settings({"smtp_host": "mail", **MAIL}).smtp_host == "mail"
    assert salvage_settings({"smtp_host": "mail", **MAIL, "alert_email_from": "nobody"}).settings.smtp_host is None


def test_all_that_is_wrong_at_once_is_salvaged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each wrong value falls back to its default, what protects to the safe side, and the sound ones are kept."""
    ml_pipeline.reset()
    expected = load_settings(
        {
            "grafana_user": "sound",
            "log_console": "off",
            "metrics_host": "::1",
            "audit_required": True,
            "audit_key_file": os.devnull + "/audit.key",
            "redact_keys": "ssn",
            "alert_email_to": "a@b.c",
        }
    )
    for field, text, _ in BAD:
        monkeypatch.setenv(environment_name(field), text)
    monkeypatch.setenv("GRAFANA_USER", "sound")
    salvaged = salvage_settings({"unknown": 1, "log_console": "off", "metrics_host": "::1"}).settings
    assert salvaged.model_dump() == expected.model_dump()


def test_paths_are_absolute_from_the_moment_of_reading(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A job that changes its folder later keeps its files together."""
    settings = load_settings({"log_dir": "logs/../l", "audit_key_file": Path("key")})
    here = Path.cwd()
    monkeypatch.chdir(tmp_path)
    assert settings.log_dir == here / "l"
    assert settings.audit_key_file == here / "key"
    assert settings.data_dir == here / "ml_pipeline" / "data_storage"
    assert settings.artifact_dir == here / "artifacts"


@pytest.mark.parametrize(("folder", "name"), [("plain", "plain"), ("a\nb", "a_b"), (" ", "ml_pipeline")])
def test_the_name_is_that_of_the_working_folder(
    folder: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one printable line; blank names count as unset."""
    ml_pipeline.reset()
    (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / folder)
    assert load_settings().name == name
    assert load_settings({"name": "  "}).name == name


def test_a_removed_working_folder_is_an_error_that_can_be_salvaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths have no meaning in it; a running pipeline goes on with the folder for temporary files."""
    ml_pipeline.reset()
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert str(caught.value).startswith(
        "ML_PIPELINE_LOG_DIR: must be absolute, because the working folder is gone "
        "(2 more after it: ML_PIPELINE_DATA_DIR, ML_PIPELINE_ARTIFACT_DIR) (got"
    )
    salvaged = salvage_settings({"data_dir": "/srv/data", "artifact_dir": "relative"}).settings
    assert (salvaged.name, salvaged.data_dir) == ("ml_pipeline", Path("/srv/data"))
    private = salvaged.log_dir.parents[1]
    assert private == salvaged.artifact_dir.parent
    assert (private.stat().st_mode & 0o777, private.stat().st_uid) == (0o700, os.getuid())
    assert salvage_settings().settings.log_dir.parents[1] != private, "no path that somebody could foresee"


def test_without_a_folder_for_temporary_files_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where not even a private folder can be made, the settings are still read."""
    ml_pipeline.reset()
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    salvaged = salvage_settings()
    assert salvaged.settings.log_dir == Path(os.devnull, "ml_pipeline", "logs")
    assert salvaged.said[0] == (
        "ML_PIPELINE_LOG_DIR: must be absolute, because the working folder is gone (got PosixPath('ml_pipeline/logs')); "
        f"set ML_PIPELINE_LOG_DIR; going on with {salvaged.settings.log_dir}"
    )


def test_settings_are_values() -> None:
    """Nobody changes them under someone else."""
    settings = load_settings({"smtp_port": 25})
    with pytest.raises(ValidationError, match="frozen"):
        settings.smtp_port = 26  # type: ignore[misc]
    assert settings == load_settings({"smtp_port": 25}) != load_settings({"smtp_port": 26})


def test_a_secret_is_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not in the representation, a message or the environment of another process."""
    secret = "glsa_s3cret"
    settings = load_settings({"grafana_token": secret})
    assert settings.grafana_token == secret
    assert is_secret("grafana_token")
    assert secret not in repr(settings) + str(settings)
    assert environment_text(settings, "grafana_token") is None
    monkeypatch.setenv("GRAFANA_TOKEN", secret)
    for wrong in ({"smtp_port": 0}, {"smtp_host": "x"}, {"grafana_token": secret + "\0"}, {"grafana_token": [secret]}):
        with pytest.raises(SettingsError) as caught:
            load_settings(wrong)
        assert secret not in str(caught.value) + repr(caught.value)
    with pytest.raises(ValidationError) as by_hand:
        Settings(smtp_host="x", grafana_token=secret)
    assert secret not in str(by_hand.value)


def test_names_and_secrets_are_told_apart() -> None:
    """The variable of a setting is its name with the prefix, except where its users expect another."""
    assert environment_name("log_dir") == "ML_PIPELINE_LOG_DIR"
    assert environment_name("grafana_url") == "GRAFANA_URL"
    assert [field for field in Settings.model_fields if is_secret(field)] == ["grafana_token"]


def text_values() -> st.SearchStrategy[str]:
    """Texts that an environment variable can hold."""
    return st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=50)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "name": text_values().filter(lambda text: text.isprintable() and text.strip()),
    "strict": st.booleans(),
    "log_dir": text_values().filter(lambda text: not text.startswith("~")),
    "log_level": st.sampled_from(["DEBUG", "error"]),
    "smtp_user": text_values(),
    "smtp_port": st.integers(1, 65535),
    "smtp_timeout_seconds": st.floats(0.001, 600, allow_nan=False),
    "alert_cooldown_seconds": st.floats(0, 1e300, allow_nan=False),
    "redact_keys": st.lists(st.from_regex(r"[a-z_]*[a-z]", fullmatch=True), max_size=3).map(tuple),
    "redact_patterns": st.lists(st.from_regex(r"[a-z,]+[+?]?", fullmatch=True), max_size=3).map(tuple),
    "alert_email_to": st.lists(st.from_regex(r"[a-z0-9.]+@[a-z.]+", fullmatch=True), max_size=3).map(tuple),
    "metrics_port": st.none() | st.integers(1, 65535),
}


@hypothesis_settings(max_examples=50, deadline=None)
@given(st.fixed_dictionaries({}, optional=VALUES))
def test_what_is_exported_is_read_back_the_same(values: dict[str, Any]) -> None:
    """A worker that reads the environment has the settings of the process that started it."""
    settings = load_settings({"name": "default", **values})
    with pytest.MonkeyPatch.context() as patch:
        for field in ("name", *values):
            text = environment_text(settings, field)
            if text is None:
                patch.delenv(environment_name(field), raising=False)
            else:
                patch.setenv(environment_name(field), text)
        assert load_settings() == settings


@hypothesis_settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*GOOD, "unknown"]), st.text() | st.none() | st.integers() | st.floats() | st.binary()
    )
)
def test_any_values_are_read_or_refused_in_one_line_and_salvaged(values: dict[str, Any]) -> None:
    """Nothing but a `SettingsError` comes out, and the salvaged settings could be exported."""
    message = ""
    try:
        load_settings(values)
    except SettingsError as wrong:
        message = str(wrong)
    assert message.isprintable()
    salvaged = salvage_settings(values).settings
    assert math.isfinite(salvaged.alert_cooldown_seconds)
    for field in Settings.model_fields:
        os.fsencode(environment_text(salvaged, field) or "")


def test_a_running_pipeline_goes_on_and_says_once_what_is_wrong() -> None:
    """A misspelt variable must not stop a training; strict telemetry raises instead."""
    code = (
        "from ml_pipeline import _runtime\n"
        "for _ in range(3): print(_runtime.settings().smtp_port, _runtime.settings().log_level)\n"
        "print(dict(_runtime.tally.telemetry_errors))\n"
    )
    wrong = {"ML_PIPELINE_SMTP_PORT": "0", "ML_PIPELINE_LOG_LEVEL": "debug", "ML_PIPELINE_STRICT": ""}
    done = run_python(code, **wrong)
    assert done.stdout.splitlines() == ["587 DEBUG"] * 3 + ["{('settings', 'SettingsError'): 1}"]
    assert done.stderr == (
        "ml_pipeline: ML_PIPELINE_SMTP_PORT: input should be greater than or equal to 1 (got '0'); "
        "correct ML_PIPELINE_SMTP_PORT or unset it; going on without it\n"
    )
    strict = run_python(code, **wrong | {"ML_PIPELINE_STRICT": "1"})
    assert "ml_pipeline.errors.SettingsError: ML_PIPELINE_SMTP_PORT: input" in strict.stderr


def test_what_is_to_be_hidden_stays_hidden_beside_a_mistake() -> None:
    """One pattern that is none takes no other along, nor does a line of ``.env`` that is not UTF-8."""
    Path(".env").write_bytes(b"ML_PIPELINE_REDACT_KEYS=ssn\n# ann\xe9e\n\nML_PIPELINE_SMTP_USER=caf\xe9\n")
    code = (
        "from ml_pipeline.config.logging_config import main_logger, log_operation\n"
        "main_logger.info('of 123-45-6789', extra=log_operation('x', ssn='123'))\n"
    )
    patterns = "\\d{3}-\\d{2}-\\d{4}\n(unclosed"
    done = run_python(code, ML_PIPELINE_REDACT_PATTERNS=patterns, ML_PIPELINE_STRICT="")
    written = Path("ml_pipeline/logs/ml_pipeline.log").read_text("utf-8")
    assert "123" not in written
    assert '"message":"of [redacted]"' in written
    name, what = "ML_PIPELINE_REDACT_PATTERNS", "; going on with what is sound of it"
    rule = "must be regular expressions, one a line, '(unclosed' is none (missing ), unterminated subpattern at position 0)"
    lines = [
        f"every line of .env must be text in UTF-8 (got '#'); correct line 2{what}",
        f"every line of .env must be text in UTF-8 (got 'ML_PIPELINE_SMTP_USER'); correct line 4{what}",
        f"{name}: {rule} (got {patterns!r}); correct {name} or unset it{what}",
    ]
    assert done.stderr == "".join(f"ml_pipeline: {line}\n" for line in lines)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"ML_PIPELINE_REDACT_KEYS=ssn,gr\xf6sse,mrn\n", {"redact_keys": ("ssn", "mrn")}),
        (b"ML_PIPELINE_REDACT_KEYS='ssn\n", {"redact_keys": ("ssn",)}),
        (b"export ML_PIPELINE_REDACT_KEYS=\"ssn\nML_PIPELINE_SMTP_USER=\"me\"\n", {"redact_keys": ("ssn",), "smtp_user": "me"}),
        (b"ML_PIPELINE_AUDIT_REQUIRED='1\n", {"audit_required": True}),
        (b"ML_PIPELINE_AUDIT_REQUIRED=caf\xe9\n", {"audit_required": True}),
        (b"what is this\nML_PIPELINE_SMTP_USER=me\n", {"smtp_user": "me"}),
        (b"\xef\xbb\xbfML_PIPELINE_SMTP_USER=me\nwhat is this\n", {"smtp_user": "me"}),
    ],
)  # fmt: skip
def test_the_good_lines_of_a_file_are_used(content: bytes, expected: dict[str, object]) -> None:
    """And what can be told of a bad one."""
    Path(".env").write_bytes(content)
    with pytest.raises(SettingsError, match=r"^every line of \.env must be "):
        load_settings()
    assert salvage_settings().settings.model_dump(include=set(expected)) == expected


@pytest.mark.parametrize("word", ["enabled", "ja", "on!", "2"])
def test_an_audit_that_somebody_wanted_is_required(word: str) -> None:
    """A word that is no clear no is a yes: nothing runs unaudited for want of the right one."""
    Path("ml_pipeline/logs/audit.log").mkdir(parents=True)
    done = run_python(
        "from ml_pipeline.config.operation_logger import operation_logger\n"
        "with operation_logger.operation('training'): print('RAN UNAUDITED')\n",
        ML_PIPELINE_AUDIT_REQUIRED=word,
        ML_PIPELINE_STRICT="",
    )
    assert done.returncode
    assert done.stdout == ""
    assert (
        "ml_pipeline: ML_PIPELINE_AUDIT_REQUIRED: input should be a valid boolean, unable to interpret input "
        f"(got '{word}'); correct ML_PIPELINE_AUDIT_REQUIRED or unset it; going on as if it were on\n"
    ) in done.stderr


def test_nothing_is_audited_without_the_key_that_was_meant(capsys: pytest.CaptureFixture[str]) -> None:
    """Such a record would make the trail one that was tampered with, for ever; it is refused and counted."""
    Path("k").write_bytes(b"0123456789abcdef")
    code = "from ml_pipeline.config.logging_config import audit_logger\naudit_logger.info('deployed')\n"
    run_python(code, ML_PIPELINE_AUDIT_KEY_FILE="k")
    done = run_python(code, ML_PIPELINE_AUDIT_KEY_FILE="~nosuchuser/k", ML_PIPELINE_STRICT="")
    assert done.returncode == 0
    assert "going on without audit records, which would have no key\n" in done.stderr
    assert "audit: SettingsError: ML_PIPELINE_AUDIT_KEY_FILE must be a readable file" in done.stderr
    ml_pipeline.configure(audit_key_file="k")
    assert main(["audit", "verify"]) == 0
    assert capsys.readouterr().out.startswith("intact: 1 records")


def test_everything_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with its rule and remedy; past the most that is said, by name."""
    for name, value in {"LOG_LEVEL": "10", "LOG_RETENTION_DAYS": "0", "AUDIT_REQUIRED": "ja", "LOG_FOO": "1"}.items():
        monkeypatch.setenv(PREFIX + name, value)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "must be a known setting (3 more after it: ML_PIPELINE_LOG_LEVEL, " in str(caught.value)
    said = salvage_settings().said
    assert [line.partition(":")[0] for line in said[1:]] == [
        "ML_PIPELINE_LOG_LEVEL",
        "ML_PIPELINE_LOG_RETENTION_DAYS",
        "ML_PIPELINE_AUDIT_REQUIRED",
    ]
    assert said[0].startswith(
        "an ML_PIPELINE_* variable in the environment or .env must be a known setting (got 'ML_PI"
    )
    assert [line.rpartition("; ")[2] for line in said] == [*["going on without it"] * 3, "going on as if it were on"]
    for number in range(100):
        monkeypatch.setenv(f"{PREFIX}NONE_{number:02}", "1")
    said = salvage_settings().said
    assert len(said) == 21
    assert said[-1].startswith("84 more are wrong: ML_PIPELINE_NONE_")
    assert said[-1].endswith(", …")


def test_every_list_is_known_as_one() -> None:
    """So that one part of it that is wrong does not take the others along."""
    good = {field: text for field, (text, value) in GOOD.items() if isinstance(value, tuple)}
    for field, text in good.items():
        bad = f"{text}\na b\x00" if field == "redact_patterns" else f"{text},a b\x00"
        assert getattr(salvage_settings({field: bad}).settings, field) == GOOD[field][1]


@pytest.mark.parametrize(("words", "size"), [("100 MB", 100_000_000), (" 1.5GiB ", 1_610_612_736), ("20000", 20_000)])
def test_a_size_may_be_said_in_words(words: str, size: int) -> None:
    """As a rotation may."""
    settings = load_settings({"log_max_bytes": words, "log_total_bytes": words})
    assert (settings.log_max_bytes, settings.log_total_bytes) == (size, size)


@pytest.mark.parametrize("words", ["100 megs", "MB", "1,5 GB"])
def test_a_size_that_says_nothing_is_refused(words: str) -> None:
    """By its name and value."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"log_max_bytes": words})
    assert str(caught.value) == (
        "log_max_bytes: input should be a valid integer, unable to parse string as an integer "
        f"(got '{words}'); correct the argument log_max_bytes or leave it out"
    )


def test_levels_may_be_a_mapping() -> None:
    """As a program has them."""
    assert load_settings({"log_levels": {"training": "debug"}}).log_levels == ("training=DEBUG",)


def test_a_line_of_the_env_file_that_is_no_setting_is_an_error() -> None:
    """What dotenv would leave out with a warning is named, with its line."""
    Path(".env").write_text("ML_PIPELINE_NAME=clinic\nexport this is not a setting\n")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value) == (
        "every line of .env must be NAME=value or a comment (got 'export this is not a setting'); correct line 2"
    )


def test_no_value_of_a_broken_line_is_shown() -> None:
    """It may be a secret."""
    Path(".env").write_text("\n# mine\n\nGRAFANA_TOKEN='glsa_s3cret\n", encoding="utf-8")
    with pytest.raises(SettingsError) as error:
        load_settings()
    assert str(error.value) == (
        "every line of .env must be NAME=value or a comment (got 'GRAFANA_TOKEN=***'); correct line 4"
    )
    assert salvage_settings().settings.grafana_token == "glsa_s3cret"
