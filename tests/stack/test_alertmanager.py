"""Alertmanager's rendered configuration: valid for all settings, the right receivers, and no secret in it."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, reject
from hypothesis import strategies as st

from ml_pipeline.errors import SettingsError
from ml_pipeline.settings import Settings, load_settings
from stack.alertmanager import render, runbook_of, secret_files
from stack.docker import StackError
from tests.support import ROOT, require

TEMPLATE = ROOT / "prometheus" / "alertmanager.yml.template"
MAIL = {"smtp_host": "smtp.example.org", "alert_email_from": "a@example.org", "alert_email_to": "b@example.org"}
HOSTILE = "p\"a'ss: {{ .x }} ${HOME} $smtp_from # \\ é"

COMBINATIONS = list(
    itertools.product(
        (None, "none", "starttls", "tls"), (25, 465, 587, 2465), (None, "mail"), (False, True), (False, True)
    )
)


def _settings(
    security: str | None, port: int, user: str | None, *, slack: bool, pagerduty: bool, folder: Path = Path("secrets")
) -> Settings:
    """Settings of one combination; every secret file that they name is there."""
    folder.mkdir(exist_ok=True)
    values: dict[str, Any] = {}
    if security:
        values |= MAIL | {"smtp_security": security, "smtp_port": port}
        if user:
            values |= {"smtp_user": user, "smtp_password_file": folder / "password"}
    if slack:
        values["slack_webhook_file"] = folder / "webhook"
    if pagerduty:
        values["pagerduty_key_file"] = folder / "key"
    for name, value in values.items():
        if name.endswith("_file"):
            Path(value).write_text(HOSTILE)
    return load_settings(values)


def _rendered(settings: Settings) -> dict[str, Any]:
    configuration: dict[str, Any] = yaml.safe_load(render(TEMPLATE, settings))
    return configuration


def _receiver(configuration: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = (each for each in configuration["receivers"] if each["name"] == name)
    return dict(found)


def _written(text: str, folder: Path) -> Path:
    """Write a configuration whose secrets lie in *folder* instead of the container's."""
    path = folder / "alertmanager.yml"
    path.write_text(text.replace("/run/secrets/", f"{folder}/"))
    for name in ("smtp_password", "slack_webhook", "pagerduty_key"):
        (folder / name).write_text("https://hooks.example.org/services/x")
    return path


def _amtool(*arguments: object) -> str:
    done = subprocess.run(
        [require("amtool"), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("security", "port", "user", "slack", "pagerduty"), COMBINATIONS)
def test_every_combination(
    isolated: Path, *, security: str | None, port: int, user: str | None, slack: bool, pagerduty: bool
) -> None:
    """Each way to send mail, with each set of channels, gives exactly the options that it means, and no secret."""
    settings = _settings(security, port, user, slack=slack, pagerduty=pagerduty)
    text = render(TEMPLATE, settings)
    assert not re.search(r"\$\{|\$[A-Za-z_]|^#(slack|pagerduty):", text, re.MULTILINE)
    assert HOSTILE not in text
    assert str(isolated) not in text
    configuration = yaml.safe_load(text)
    options = {
        "resolve_timeout": "5m",
        "smtp_smarthost": f"smtp.example.org:{port}" if security else "mailpit:1025",
        "smtp_from": "a@example.org" if security else "ml-pipeline@localhost",
        "smtp_hello": "ml-pipeline",
        "smtp_require_tls": security == "starttls",
    }
    if security == "tls" and port != 465:
        options["smtp_force_implicit_tls"] = True
    if security and user:
        options |= {"smtp_auth_username": "mail", "smtp_auth_password_file": "/run/secrets/smtp_password"}
    assert configuration["global"] == options

    team, on_call = _receiver(configuration, "team"), _receiver(configuration, "on-call")
    assert _receiver(configuration, "nobody") == {"name": "nobody"}
    assert team["email_configs"] == on_call["email_configs"]
    assert [mail["to"] for mail in team["email_configs"]] == ["b@example.org" if security else "ops@localhost"]
    assert set(team) == {"name", "email_configs"} | ({"slack_configs"} if slack else set())
    assert set(on_call) == set(team) | ({"pagerduty_configs"} if pagerduty else set())
    for each in (*team.get("slack_configs", ()), *on_call.get("slack_configs", ())):
        assert (each["api_url_file"], each["send_resolved"]) == ("/run/secrets/slack_webhook", True)
    for each in on_call.get("pagerduty_configs", ()):
        assert (each["routing_key_file"], each["send_resolved"]) == ("/run/secrets/pagerduty_key", True)
    named = set(re.findall(r"/run/secrets/(\w+)", text))
    assert named == set(secret_files(settings)), "what is named is put there, and nothing else"


@pytest.mark.parametrize("security", [None, "none", "starttls", "tls"])
@pytest.mark.parametrize("user", [None, "mail"])
@pytest.mark.parametrize("channels", [False, True])
def test_amtool_accepts_it(security: str | None, user: str | None, channels: bool, tmp_path: Path) -> None:
    """Alertmanager's own checker loads it, with its secret files in place and any way to send mail."""
    settings = _settings(security, 465, user, slack=channels, pagerduty=channels)
    said = _amtool("check-config", _written(render(TEMPLATE, settings), tmp_path))
    assert "SUCCESS" in said
    assert " - 3 inhibit rules" in said
    assert " - 3 receivers" in said


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ({"alertname": "Watchdog", "severity": "info"}, "nobody"),
        ({"alertname": "Watchdog", "severity": "critical"}, "nobody"),
        ({"alertname": "TrainingFailure", "severity": "critical", "pipeline": "p"}, "on-call"),
        ({"alertname": "TargetDown", "severity": "critical", "job": "loki"}, "on-call"),
        ({"alertname": "DataDrift", "severity": "warning", "pipeline": "p"}, "team"),
        ({"alertname": "LogRecordsDropped", "severity": "info"}, "team"),
        ({"alertname": "OfSomebodyElse"}, "team"),
        ({"alertname": "WatchdogOfSomebodyElse", "severity": "critical"}, "on-call"),
    ],
)
def test_routes(labels: dict[str, str], receiver: str, tmp_path: Path) -> None:
    """Who is told, by alert and severity; the watchdog, which always fires, is no mail."""
    configuration = _written(render(TEMPLATE, load_settings()), tmp_path)
    given_labels = [f"{name}={value}" for name, value in labels.items()]
    said = _amtool("config", "routes", "test", f"--config.file={configuration}", *given_labels)
    assert said.split() == [receiver]


def test_every_alert_has_a_receiver(tmp_path: Path) -> None:
    """Each alert of the shipped rules, at its severity, goes where its severity says."""
    configuration = _written(render(TEMPLATE, load_settings()), tmp_path)
    rules = {
        (rule["alert"], rule["labels"]["severity"])
        for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert len(rules) > 20
    for name, severity in sorted(rules):
        wanted = "nobody" if name == "Watchdog" else "on-call" if severity == "critical" else "team"
        _amtool(
            "config", "routes", "test", f"--config.file={configuration}", f"--verify.receivers={wanted}",
            f"alertname={name}", f"severity={severity}",
        )  # fmt: skip


def test_times() -> None:
    """A failure is a mail within a second of Alertmanager hearing of it; info is repeated once a day."""
    route = _rendered(load_settings())["route"]
    assert (route["receiver"], route["group_by"]) == ("team", ["alertname", "pipeline"])
    assert (route["group_wait"], route["group_interval"], route["repeat_interval"]) == ("5s", "30s", "4h")
    watchdog, critical, info = route["routes"]
    assert set(watchdog) == {"matchers", "receiver"}
    assert critical["group_wait"] == "1s"
    assert info["repeat_interval"] == "24h"
    assert not any(each.get("continue") for each in route["routes"])


def _muted(target: dict[str, str], source: dict[str, str]) -> bool:
    """Say whether *source* mutes *target*, as Alertmanager's documentation defines it."""

    def fits(matchers: list[str], labels: dict[str, str]) -> bool:
        for matcher in matchers:
            parts = re.fullmatch(r'(\w+)(=~|=)"(.*)"', matcher)
            assert parts, matcher
            name, operator, value = parts.groups()
            pattern = value if operator == "=~" else re.escape(value)
            if not re.fullmatch(pattern, labels.get(name, "")):
                return False
        return True

    for rule in _rendered(load_settings())["inhibit_rules"]:
        # An alert on both sides of a rule does not mute itself.
        both = fits(rule["target_matchers"], source) and fits(rule["source_matchers"], target)
        equal = all(source.get(name, "") == target.get(name, "") for name in rule.get("equal", ()))
        if fits(rule["source_matchers"], source) and fits(rule["target_matchers"], target) and equal and not both:
            return True
    return False


def _alert(name: str, severity: str = "critical", **labels: str) -> dict[str, str]:
    return {"alertname": name, "severity": severity, **labels}


@pytest.mark.parametrize(
    ("target", "source", "muted"),
    [
        (_alert("PipelineFailure", pipeline="p"), _alert("TrainingFailure", pipeline="p"), False),
        (_alert("PipelineFailure", pipeline="p"), _alert("IngestionErrors", pipeline="p"), False),
        (_alert("TrainingFailure", pipeline="p"), _alert("PipelineFailure", pipeline="p"), False),
        (_alert("TrainingFailure", pipeline="p"), _alert("IngestionErrors", pipeline="p"), False),
        (_alert("PipelineSilent", "warning", pipeline="p"), _alert("PipelineAbsent"), True),
        (_alert("StaleData", "warning", pipeline="p"), _alert("PipelineAbsent"), True),
        (_alert("DataDrift", "warning", pipeline="p"), _alert("PipelineAbsent"), False),
        (_alert("PipelineAbsent"), _alert("TargetDown", job="ml-pipeline"), True),
        (_alert("PipelineAbsent"), _alert("TargetDown", job="loki"), False),
        (_alert("PipelineFailure", pipeline="p"), _alert("TargetDown", job="ml-pipeline"), False),
        (_alert("DiskFilling", "warning", instance="i"), _alert("DiskFilling", instance="i"), True),
        (_alert("DiskFilling", "warning", instance="i"), _alert("DiskFilling", instance="j"), False),
        (_alert("PredictionErrors", "warning", pipeline="p"), _alert("PredictionErrors", pipeline="p"), True),
        (_alert("PredictionErrors", "warning", pipeline="p"), _alert("PredictionErrors", pipeline="q"), False),
        (_alert("PredictionLatency", "warning", pipeline="p"), _alert("PredictionErrors", pipeline="p"), False),
        (_alert("PredictionErrors", pipeline="p"), _alert("PredictionErrors", "warning", pipeline="p"), False),
        (_alert("LogRecordsDropped", "info"), _alert("LogRecordsDropped"), False),
        (_alert("Watchdog", "info"), _alert("TargetDown", job="ml-pipeline"), False),
    ],
)
def test_inhibition(target: dict[str, str], source: dict[str, str], muted: bool) -> None:
    """The cause mutes its consequence, the critical the warning of the same thing, and nothing a failure of another kind."""
    assert _muted(target, source) is muted


def test_no_alert_mutes_itself() -> None:
    """No alert of any severity is silenced by its own like."""
    for name, severity in itertools.product(
        ("TrainingFailure", "PipelineFailure", "PipelineAbsent", "TargetDown", "DiskFilling", "StaleData"),
        ("warning", "critical"),
    ):
        alert = _alert(name, severity, pipeline="p", job="ml-pipeline", instance="i")
        assert not _muted(alert, alert)


@pytest.mark.parametrize(
    ("host", "smarthost"),
    [
        ("localhost", "host.docker.internal:587"),
        ("LocalHost", "host.docker.internal:587"),
        ("127.0.0.1", "host.docker.internal:587"),
        ("::1", "host.docker.internal:587"),
        ("2001:db8::1", "[2001:db8::1]:587"),
        ("192.0.2.1", "192.0.2.1:587"),
        ("smtp.example.org", "smtp.example.org:587"),
    ],
)
def test_mail_server(host: str, smarthost: str) -> None:
    """This machine has another name inside of a container; an IPv6 address stands in brackets."""
    assert _rendered(load_settings(MAIL | {"smtp_host": host}))["global"]["smtp_smarthost"] == smarthost


def test_several_receivers() -> None:
    """They stand in one header, and an address alone moves the inbox's mail."""
    configuration = _rendered(load_settings({"alert_email_to": "a@example.org, b@example.org"}))
    assert _receiver(configuration, "team")["email_configs"][0]["to"] == "a@example.org, b@example.org"
    assert configuration["global"]["smtp_smarthost"] == "mailpit:1025"


def test_without_a_mail_server_no_password_is_handed_on(isolated: Path) -> None:
    """A password without a server is neither named nor copied."""
    settings = load_settings({"smtp_password_file": "nowhere"})
    assert secret_files(settings) == {}
    assert "smtp_password" not in render(TEMPLATE, settings)


PRINTABLE = st.text(min_size=1, max_size=30)
ADDRESS = st.from_regex(r"[^@\s<>,;\"]{1,20}@[^@\s<>,;\"]{1,20}", fullmatch=True)


@given(host=PRINTABLE, user=PRINTABLE, sender=ADDRESS, receivers=st.lists(ADDRESS, min_size=1, max_size=3))
def test_any_text_comes_back(host: str, user: str, sender: str, receivers: list[str]) -> None:
    """Whatever text the settings accept is in the YAML with exactly that value, and adds nothing to it."""
    values = {"smtp_host": host, "smtp_user": user, "alert_email_from": sender, "alert_email_to": tuple(receivers)}
    try:
        settings = load_settings(values)
    except SettingsError:
        reject()
    configuration = _rendered(settings)
    assert configuration["global"]["smtp_from"] == settings.alert_email_from
    assert configuration["global"]["smtp_auth_username"] == settings.smtp_user
    assert settings.smtp_host
    shown = configuration["global"]["smtp_smarthost"].removesuffix(":587").removeprefix("[").removesuffix("]")
    assert shown == settings.smtp_host.removeprefix("[").removesuffix("]") or shown == "host.docker.internal"
    assert _receiver(configuration, "team")["email_configs"][0]["to"] == ", ".join(settings.alert_email_to)
    assert set(configuration) == {"global", "route", "inhibit_rules", "receivers"}


@pytest.mark.parametrize(
    "user", ["a\x7fb", "a\x85b", "a\u2028b", "a\ufeffb", "a\U0001f600b", "é\ttab", "$smtp_from", "${x}"]
)
def test_amtool_reads_any_user(user: str, tmp_path: Path) -> None:
    """What cannot be printed, what YAML folds, and what looks like a variable: Alertmanager's own reader takes it."""
    settings = load_settings(MAIL | {"smtp_user": user})
    assert _rendered(settings)["global"]["smtp_auth_username"] == user
    _amtool("check-config", _written(render(TEMPLATE, settings), tmp_path))


@pytest.mark.parametrize(("added", "given_"), [("# $nothing\n", "nothing"), ("# 100 $ a day\n", None)])
def test_template_that_asks_for_more(added: str, given_: str | None, tmp_path: Path) -> None:
    """A dollar sign that somebody added to the template is explained."""
    template = tmp_path / "alertmanager.yml.template"
    template.write_text(TEMPLATE.read_text("utf-8") + added)
    with pytest.raises(StackError) as refused:
        render(template, load_settings())
    assert refused.value.rule == "every $name in alertmanager.yml.template must be one that is filled in"
    if given_:
        assert refused.value.given == given_
    assert refused.value.remedy == (
        "write a plain dollar sign as $$; filled in are email_to, runbook, smtp_from, smtp_options, smtp_smarthost"
    )
    template.write_text(TEMPLATE.read_text("utf-8") + added.replace("$", "$$"))
    assert render(template, load_settings()).endswith(added)


def test_template_without_its_last_line_end(isolated: Path) -> None:
    """An editor that drops the last line's end does not drop the line."""
    (isolated / "template").write_text(TEMPLATE.read_text("utf-8").rstrip("\n"))
    settings = _settings(None, 25, None, slack=True, pagerduty=True)
    assert yaml.safe_load(render(isolated / "template", settings)) == _rendered(settings)


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({}, "http://127.0.0.1:9090/consoles"),
        ({"PROMETHEUS_PORT": "19090"}, "http://127.0.0.1:19090/consoles"),
        ({"PROMETHEUS_PORT": "19090", "RUNBOOKS_URL": "https://wiki/runbooks"}, "https://wiki/runbooks"),
    ],
)
def test_an_alert_without_a_page_has_that_of_its_name(variables: dict[str, str], address: str, tmp_path: Path) -> None:
    """Where there is one; Alertmanager accepts what says so, for Slack too."""
    runbook = runbook_of(ROOT / "docs" / "runbooks", variables)
    assert f"{address}/{{{{ .Labels.alertname }}}}.md" in runbook
    (names,) = re.findall(r'match "\^\((.*)\)\$"', runbook)
    assert {"TrainingFailure", "DataDrift", "PipelineFailure"} < set(names.split("|"))
    assert "README" not in names
    text = render(TEMPLATE, _settings(None, 25, None, slack=True, pagerduty=True), runbook)
    assert text.count(runbook) == 3
    _amtool("check-config", _written(text, tmp_path))
