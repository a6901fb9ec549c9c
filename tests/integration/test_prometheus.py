"""A real Prometheus scrapes the running example and finds the right values."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from tests.support import eventually, free_port, require, started_example

CONFIG = """\
global: {{scrape_interval: 1s}}
scrape_configs:
  - job_name: example
    static_configs: [{{targets: ['127.0.0.1:{port}']}}]
"""


@pytest.fixture
def example(isolated: Path) -> Iterator[int]:
    """The port on which the example, its run finished, still serves its metrics."""
    port = free_port()
    with started_example("--metrics-port", str(port), "--linger", "120"):
        eventually(lambda: Path("ml_pipeline/data_storage/runs/latest/summary.json").exists(), seconds=60)
        yield port


def _scrape(port: int, accept: str = "text/plain") -> str:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def test_a_real_prometheus_finds_the_series(example: int, tmp_path: Path) -> None:
    """Operations, training and predictions are in Prometheus with the values of the run's summary."""
    program = require("prometheus")
    port = free_port()
    (tmp_path / "prometheus.yml").write_text(CONFIG.format(port=example))
    server = subprocess.Popen(
        [
            program,
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    def query(expression: str) -> float | None:
        url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                result = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return float(result[0]["value"][1]) if result else None

    try:
        eventually(lambda: query('ml_pipeline_operations_total{kind="training",status="complete"}'), seconds=60)
        summary = json.loads(Path("ml_pipeline/data_storage/runs/latest/summary.json").read_text())
        expected = {
            'sum(ml_pipeline_operations_total{status="complete"})': 13,
            'sum(ml_pipeline_operations_total{status="fail"})': 0,
            "sum(ml_pipeline_operations_in_progress)": 0,
            "sum(ml_pipeline_ingested_records_total)": 569,
            'ml_pipeline_training_score{metric="accuracy"}': summary["scores"]["accuracy"],
            'ml_pipeline_model_performance{metric="roc_auc",basis="realised"}': summary["scores"]["roc_auc"],
            "sum(ml_pipeline_predictions_total)": summary["predictions"],
            "ml_pipeline_model_deployments_total": 1,
            "sum(ml_pipeline_telemetry_errors_total) or vector(0)": 0,
        }
        assert {name: query(name) for name in expected} == pytest.approx(expected)
    finally:
        server.terminate()
        server.wait(timeout=30)


def test_promtool_has_nothing_to_say(example: int) -> None:
    """`promtool check metrics` accepts the exposition of a finished run."""
    done = subprocess.run(
        [require("promtool"), "check", "metrics"], input=_scrape(example), capture_output=True, text=True, check=False
    )
    ours = [line for line in (done.stdout + done.stderr).splitlines() if "ml_pipeline" in line]
    assert ours == []


def test_the_exposition_is_strict_openmetrics(example: int) -> None:
    """The OpenMetrics parser reads it, and the durations carry the ids of their operation as exemplars."""
    text = _scrape(example, "application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    durations = families["ml_pipeline_operation_duration_seconds"]
    exemplars = [sample.exemplar for sample in durations.samples if sample.exemplar]
    assert exemplars
    assert all(set(exemplar.labels) == {"operation_id", "run_id"} for exemplar in exemplars)
