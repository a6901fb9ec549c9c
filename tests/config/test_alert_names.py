"""Alerts of the process and of Prometheus have one name where they mean the same."""

from __future__ import annotations

import re

import pytest

from ml_pipeline.config._alert_names import INHIBITED, alert_name, rule_of
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
