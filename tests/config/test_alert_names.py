"""Alerts of the process and of Prometheus have one name where they mean the same."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from ml_pipeline.config._alert_alertmanager import label_set
from ml_pipeline.config._alert_names import INHIBITED, alert_name, rule_of
from ml_pipeline.config._events import DriftEvent, ErrorInfo, OperationEvent
from tests.config.alerting_world import World
from tests.support import ROOT

RULES = "".join(path.read_text("utf-8") for path in (ROOT / "prometheus" / "rules").glob("*.yml"))


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"kind": "processing_failure", "operation_kind": "training"}, "TrainingFailure"),
        ({"kind": "processing_failure", "operation_kind": "ingestion"}, "IngestionErrors"),
        ({"kind": "processing_failure", "operation_kind": "validation"}, "PipelineFailure"),
        ({"kind": "processing_failure", "operation": "data_ingestion"}, "IngestionErrors"),
        ({"kind": "processing_failure", "operation": "model_training"}, "TrainingFailure"),
        ({"kind": "processing_failure", "operation": "nightly_import"}, "PipelineFailure"),
        ({"kind": "resource_threshold", "feature": "memory"}, "HighMemory"),
        ({"kind": "resource_threshold", "feature": "cpu"}, "HighCpu"),
        ({"kind": "resource_threshold", "feature": "disk_free /data"}, "DiskFilling"),
        ({"kind": "data_quality"}, "DataQuality"),
        ({"kind": "model_performance"}, "ModelPerformanceDown"),
        ({"kind": "data_drift"}, "DataDrift"),
    ],
)
def test_an_alert_is_called_as_the_rule_that_means_the_same(given: dict[str, str], name: str) -> None:
    """Each name stands in a rule of the stack, of the same kind."""
    assert alert_name(**given) == name
    rules = re.findall(rf"- alert: {name}\n.*?labels: {{.*?kind: (\w+)", RULES, re.DOTALL)
    assert set(rules) == {given["kind"]}


def test_what_no_rule_means_is_called_after_its_kind() -> None:
    """In CamelCase, as rules are."""
    assert alert_name("resource_threshold", feature="gpu") == "ResourceThreshold"
    assert alert_name("label_delay") == "LabelDelay"


def test_only_the_name_of_a_users_rule_is_part_of_the_identity() -> None:
    """The names above say nothing that the kind does not."""
    assert rule_of("data_drift", "DataDrift") == rule_of("label_delay", "LabelDelay") == rule_of("a", "") == ""
    assert rule_of("resource_threshold", "ResourceThreshold") == ""
    assert rule_of("data_drift", "AgeDrifts") == "AgeDrifts"


def test_what_mutes_others_has_a_name_and_they_have_kinds() -> None:
    """The table of inhibitions speaks of alerts that there are."""
    assert set(INHIBITED) <= {"IngestionErrors", "TrainingFailure", "PipelineFailure"}
    assert {kind for kinds in INHIBITED.values() for kind in kinds} <= {
        "data_drift",
        "data_quality",
        "model_performance",
    }


@pytest.fixture
def world() -> World:
    """Return a world where nothing has happened yet."""
    return World()


def test_alerts_of_the_process_have_the_labels_of_the_rules(world: World) -> None:
    """Name, kind and severity, for whatever a process raises by itself or by a call: else one cause were two mails."""
    for kind, name in (("training", "model_training"), ("ingestion", "data_ingestion"), ("custom", "pipeline_run")):
        world.fail(f"failed {kind}", kind=kind, name=name, run_id=None, error=ErrorInfo("ValueError", f"of {kind}"))
        abandoned: Any = {"kind": kind, "name": f"{name} left", "operation_id": f"left {kind}"}
        world.bus.publish(OperationEvent(type="abandon", **abandoned))
    batch: Any = {"model": "tree", "batch": "1", "rows": 100, "drifted": ("age",), "effects": {"age": 1.0}}
    world.bus.publish(DriftEvent(verdict="drift", alarm=True, **batch))
    world.alerts.alert_data_quality("age_not_null")
    world.alerts.alert_data_drift("forest", ["age"])
    world.alerts.alert_model_performance("forest", "roc_auc", 0.7, 0.9)
    world.alerts.alert_processing_failure("nightly_import", "no answer")
    for resource in ("cpu", "memory", "disk_free /data"):
        world.alerts.alert_resource_threshold(resource, 0.95, 0.9)
    posted = {
        (alert.name, alert.kind, alert.severity)
        for alert in world.alerts.history()
        if dict(label_set(alert)).keys() == {"alertname", "pipeline", "kind", "severity"}
    }
    assert len(posted) == 9
    assert posted <= {(rule["alert"], rule["labels"]["kind"], rule["labels"]["severity"]) for rule in _rules()}


def test_rules_that_mean_the_same_have_no_labels_besides() -> None:
    """They give one series for each pipeline; a disk is a host's, and the one exception."""
    for rule in _rules():
        if rule["alert"] in {"TrainingFailure", "IngestionErrors", "PipelineFailure", "DataDrift", "DataQuality",
                             "ModelPerformanceDown", "HighCpu", "HighMemory"}:  # fmt: skip
            assert rule["labels"].keys() == {"severity", "kind"}, rule["alert"]
            assert "by (pipeline)" in rule["expr"] or rule["expr"].startswith("pipeline:"), rule["alert"]


def _rules() -> list[dict[str, Any]]:
    files = [yaml.safe_load(path.read_text("utf-8")) for path in (ROOT / "prometheus" / "rules").glob("*.yml")]
    return [rule for file in files for group in file["groups"] for rule in group["rules"] if "alert" in rule]
