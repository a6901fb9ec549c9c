"""What importing costs: milliseconds and modules, for the package and each module users import."""

from __future__ import annotations

from benchmarks.harness import Case

__all__ = ["CASES"]

_MEASURE = """
import json, sys, time
before = len(sys.modules)
begin = time.perf_counter()
if sys.argv[1]:
    __import__(sys.argv[1])
print(json.dumps({"ms": (time.perf_counter() - begin) * 1000, "modules": len(sys.modules) - before}))
"""

CASES = [
    Case(f"import {name}", _MEASURE, (name,))
    for name in (
        "logging.config",
        "prometheus_client",
        "ml_pipeline",
        "ml_pipeline.config.logging_config",
        "ml_pipeline.config.operation_logger",
        "ml_pipeline.config.monitoring_config",
        "ml_pipeline.config.alerting",
        "ml_pipeline.config.prometheus_metrics",
        "ml_pipeline.config.data_lineage",
        "ml_pipeline.config.setup_dashboards",
    )
]
"""The standard library's ``logging.config`` and prometheus-client stand first, to compare with."""
