"""The alert rules: they load, they fire and keep still as their cases say, and each has its page."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_pipeline.config._metric_specs import METRICS, PREFIX
from tests.support import ROOT, require

RULES = ROOT / "prometheus" / "rules"
CASES = RULES / "tests"
RUNBOOKS = ROOT / "docs" / "runbooks"
BOARDS = ROOT / "ml_pipeline" / "config" / "grafana_dashboards.json"

ALERTS = {
    *("PipelineFailure", "StepTooSlow", "PipelineSilent", "PipelineAbsent", "IngestionErrors", "StaleData"),
    *("TrainingFailure", "ModelPerformanceDown", "DataDrift", "DataQuality", "PredictionErrors", "PredictionLatency"),
    *("HighCpu", "HighMemory", "HostMemoryLow", "DiskFilling", "TelemetryErrors", "LogRecordsDropped", "TargetDown"),
    *("PipelineRestarting", "NotificationsFailing", "RuleEvaluationFailing", "ConfigReloadFailed", "Watchdog"),
}
OF_PIPELINES = {"processing_failure", "resource_threshold", "data_quality", "model_performance", "data_drift"}
SEVERITIES = {"info", "warning", "critical"}
RESOLVING = {
    *("PipelineFailure", "TrainingFailure", "PipelineRestarting", "TargetDown", "PipelineAbsent", "DataDrift"),
    *("ConfigReloadFailed", "HighCpu"),
}
SAMPLES = {"counter": [""], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}
BY_PROMETHEUS = {"job", "instance", "le"}


@cache
def _groups() -> list[dict[str, Any]]:
    return [
        group for path in sorted(RULES.glob("*.yml")) for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
    ]


def _rules() -> Iterator[dict[str, Any]]:
    for group in _groups():
        yield from group["rules"]


def _alerts() -> list[dict[str, Any]]:
    return [rule for rule in _rules() if "alert" in rule]


def _expressions() -> dict[str, str]:
    """Every piece of PromQL, by the rule it stands in: expressions, and the queries inside of descriptions."""
    texts: dict[str, str] = {}
    for number, rule in enumerate(_rules()):
        name = f"{rule.get('alert') or rule['record']} ({number})"
        described = rule.get("annotations", {}).get("description", "")
        queries = re.findall(r'query \(printf\s+"((?:[^"\\]|\\.)*)"', described)
        texts[name] = "\n".join([str(rule["expr"]), *(query.replace("%q", '"x"') for query in queries)])
    return texts


def _pages() -> list[Path]:
    return sorted(RUNBOOKS.glob("*.md"))


def _promql_of_pages() -> dict[str, str]:
    return {
        page.stem: "\n".join(re.findall(r"^```promql\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL))
        for page in _pages()
        if page.stem != "README"
    }


def _tests() -> Iterator[dict[str, Any]]:
    for path in sorted(CASES.glob("*.yml")):
        yield from yaml.safe_load(path.read_text("utf-8"))["tests"]


def _cases() -> Iterator[dict[str, Any]]:
    for test in _tests():
        yield from test["alert_rule_test"]


def _promtool(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [require("promtool"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_rules_are_valid() -> None:
    """Prometheus loads every rule, and its linter has nothing to say, not even of duplicates."""
    done = _promtool("check", "rules", "--lint=all", "--lint-fatal", *sorted(RULES.glob("*.yml")))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", sorted(CASES.glob("*.yml")), ids=lambda path: path.stem)
def test_alerts_fire_and_keep_still(path: Path) -> None:
    """Alerts fire, keep still and resolve as the cases say, with these very labels and texts."""
    done = _promtool("test", "rules", path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_are_those_agreed() -> None:
    """The alerts are exactly those that the routes, the boards and the runbooks know."""
    assert {rule["alert"] for rule in _alerts()} == ALERTS


@pytest.mark.parametrize("rule", _alerts(), ids=lambda rule: f"{rule['alert']}-{rule['labels']['severity']}")
def test_alert_says_what_it_must(rule: dict[str, Any]) -> None:
    """An alert has its two labels, a constant summary, a description of the case at hand, and its runbook."""
    name, labels, annotations = rule["alert"], rule["labels"], rule["annotations"]
    assert set(labels) == {"severity", "kind"}
    assert labels["severity"] in SEVERITIES
    assert labels["kind"] in OF_PIPELINES | {"stack"}
    assert set(annotations) == {"summary", "description", "runbook_url"}
    assert "{{" not in annotations["summary"]
    assert annotations["summary"].endswith(".")
    assert name == "Watchdog" or "{{" in annotations["description"]
    assert annotations["runbook_url"] == f"{{{{ $externalLabels.runbooks }}}}/{name}.md"


def test_alerts_of_pipelines_have_no_other_labels() -> None:
    """What fires of a pipeline is told apart by alert, pipeline, kind and severity alone; the rest by job and instance."""
    for case in _cases():
        for expected in case["exp_alerts"]:
            labels = set(expected["exp_labels"]) - {"severity", "kind"}
            assert labels == {"pipeline"} or labels <= {"job", "instance"}, case["alertname"]


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_alert_has_a_case_for_firing_and_for_not_firing(name: str) -> None:
    """Every alert is shown to fire, at every severity it has, and to keep still; the watchdog only fires."""
    cases = [case["exp_alerts"] for case in _cases() if case["alertname"] == name]
    fired = {alert["exp_labels"]["severity"] for case in cases for alert in case}
    assert fired == {rule["labels"]["severity"] for rule in _alerts() if rule["alert"] == name}
    assert name == "Watchdog" or [] in cases


@pytest.mark.parametrize("name", sorted(RESOLVING))
def test_alert_is_shown_to_end(name: str) -> None:
    """Where it matters that an alert ends, one and the same case shows it firing first and keeping still later."""
    for test in _tests():
        fired = [bool(case["exp_alerts"]) for case in test["alert_rule_test"] if case["alertname"] == name]
        if any(before and not after for before, after in pairwise(fired)):
            return
    pytest.fail(f"no case shows that {name} ends")


def test_failures_alert_at_once() -> None:
    """A failure waits for nothing: no `for`, and its group is evaluated as often as Prometheus evaluates at all."""
    group = next(group for group in _groups() if group["name"] == "failures")
    assert "interval" not in group
    alerts = [rule for rule in group["rules"] if "alert" in rule]
    assert {rule["alert"] for rule in alerts} == {"PipelineFailure", "TrainingFailure", "IngestionErrors"}
    assert not [rule for rule in alerts if "for" in rule]


def test_every_alert_has_a_page_and_every_page_an_alert() -> None:
    """`docs/runbooks/` holds a page of each alert's name and a list of all of them, and nothing else."""
    assert {page.stem for page in _pages()} == ALERTS | {"README"}
    listed = re.findall(r"^\| \[(\w+)\]\(\1\.md\)", (RUNBOOKS / "README.md").read_text("utf-8"), re.MULTILINE)
    assert listed == sorted(ALERTS)


@pytest.mark.parametrize("page", _pages(), ids=lambda page: page.stem)
def test_page_is_whole(page: Path) -> None:
    """A page says what its alert means, how to see it, what to do and when to silence; Prometheus can serve it."""
    text = page.read_text("utf-8")
    assert "{{" not in text, "Prometheus serves the pages as templates"
    if page.stem != "README":
        assert re.findall(r"^(#+ .*)", text, re.MULTILINE) == [f"# {page.stem}", "## See it", "## Do", "## Silence"]
        assert "```promql\n" in text


def test_pages_name_boards_and_panels_that_exist() -> None:
    """What a page says to look at is on the board that it names."""
    if not BOARDS.is_file():
        pytest.skip("the boards are not built: `make boards`")
    boards = {
        board["title"]: {panel["title"] for panel in board["panels"]}
        for board in json.loads(BOARDS.read_text("utf-8"))["dashboards"]
    }
    for page in _pages():
        text = page.read_text("utf-8")
        assert set(re.findall(r"\*\*([\w ]+)\*\*", text)) <= set(boards), page.name
        for board, panels in re.findall(r"^Board \*\*([\w ]+)\*\*: (.*)\.$", text, re.MULTILINE):
            assert set(re.findall(r"\*([^*]+)\*", panels)) <= boards[board], page.name


@pytest.mark.parametrize(("name", "text"), [*_expressions().items(), *_promql_of_pages().items()])
def test_every_metric_and_label_exists(name: str, text: str) -> None:
    """Rules and pages ask only for metrics that the package has, recorded series that are recorded, and real labels."""
    recorded = {rule["record"] for rule in _rules() if "record" in rule}
    series = set(re.findall(r"\b[a-z]\w*:[\w:]+", text))
    assert series <= recorded, f"{name}: not recorded"
    known = {PREFIX + spec.name + end: set(spec.labels) for spec in METRICS.values() for end in SAMPLES[spec.type]}
    for metric, selector in re.findall(rf"(?<![\w:])({PREFIX}\w+)\b(?!:)(?:{{([^}}]*)}})?", text):
        assert metric in known, f"{name}: {metric}"
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", re.sub(r'"(?:[^"\\]|\\.)*"', '""', selector)))
        assert labels <= known[metric] | BY_PROMETHEUS, f"{name}: {metric}"


def test_every_threshold_is_used_and_no_number_stands_twice() -> None:
    """Every number of `thresholds.yml` decides something, and rules compare with those, not with numbers of their own."""
    expressions = [str(rule["expr"]) for rule in _rules()]
    for record in (rule["record"] for rule in _rules() if str(rule.get("record")).startswith("threshold:")):
        assert any(f"scalar({record})" in expression for expression in expressions), record
    for name, text in _expressions().items():
        assert set(re.findall(r"[<>]=? *([\d.]+)", text)) <= {"0"}, name
