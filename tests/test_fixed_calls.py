"""The calls that users were promised work exactly as written."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CALLS = """
def train_model(): pass

from ml_pipeline.config.logging_config import main_logger, log_operation
main_logger.info("Processing data", extra=log_operation(operation="data_processing", user_id="user123"))

from ml_pipeline.config.operation_logger import operation_logger
op_id = operation_logger.log_training_start(model_name="alzheimer_classifier", model_type="random_forest", dataset_version="v1.0")
operation_logger.log_training_complete(operation_id=op_id, model_name="alzheimer_classifier", model_version="1.0.0", metrics={"roc_auc": 0.92})

from ml_pipeline.config.monitoring_config import monitor_resources
with monitor_resources("training"): train_model()

from ml_pipeline.config.alerting import alert_manager
alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")

from ml_pipeline.config.data_lineage import lineage_tracker
source_id, data_id = lineage_tracker.track_data_ingestion(source_name="ADNI", dataset_name="ADNI_2024", records_count=5000)
"""


def test_promised_calls_work_as_written(isolated: Path) -> None:
    """The five examples run in a fresh process, and each leaves what it promises."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", CALLS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    logs = Path("ml_pipeline/logs")
    lines = [json.loads(line) for line in (logs / "ml_pipeline.log").read_text().splitlines()]
    first = lines[0]
    assert (first["message"], first["operation"], first["user_id"]) == ("Processing data", "data_processing", "user123")
    completed = [line for line in lines if line.get("context", {}).get("event") == "complete"]
    assert completed[0]["context"]["metrics"] == {"roc_auc": 0.92}
    (alert,) = json.loads((logs / "alerts.json").read_text())
    assert (alert["kind"], alert["operation"]) == ("processing_failure", "data_ingestion")
    nodes = json.loads(Path("ml_pipeline/data_storage/metadata/lineage/nodes.json").read_text())
    assert {"ADNI", "ADNI_2024"} <= {node["name"] for node in nodes}
