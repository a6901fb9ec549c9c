"""The example pipeline, observed and bare: the very same steps, with and without the package around them."""

from __future__ import annotations

from benchmarks.harness import Case

__all__ = ["FIXED", "STEPS"]

_MEASURE = """
import json, resource, sys, time
trees, observed = int(sys.argv[1]), sys.argv[2] == "observed"
begin = time.perf_counter()
from ml_pipeline.pipelines import _sklearn_steps as steps
from ml_pipeline.drift import check
from ml_pipeline.pipelines.batches import BatchSource
from ml_pipeline.pipelines.table import bundled_table
import sklearn.ensemble, sklearn.metrics, sklearn.model_selection, sklearn.impute, sklearn.datasets
if observed:
    from ml_pipeline.pipelines.sklearn_pipeline import PipelineOptions, SklearnPipeline

def bare():
    from pathlib import Path
    table = bundled_table()
    steps.check_table(table)
    features = steps.extract_features(table)
    model = steps.train(features, table.task, "m", trees=trees, rounds=10)
    sha256 = steps.save_model(model, Path("artifacts/models/m_model.pkl"))
    steps.evaluate(model, features)
    model = steps.load_model(Path("artifacts/models/m_model.pkl"), sha256)
    source = BatchSource(features.held_out)
    for _ in range(3):
        batch = source.draw()
        steps.predict(model, batch.columns)
        check(model.profile, batch.columns)

cpu = time.process_time()
if observed:
    SklearnPipeline(PipelineOptions(trees=trees)).run()
else:
    bare()
cpu = time.process_time() - cpu
if observed:
    from ml_pipeline._runtime import shutdown
    shutdown()
print(json.dumps({
    "cpu_s": cpu,
    "whole_s": time.perf_counter() - begin,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
}))
"""

STEPS = [
    Case("the steps, bare", _MEASURE, ("10000", "bare")),
    Case("the steps, observed", _MEASURE, ("10000", "observed")),
]
"""Scaled until the bare steps take more than 10 s of processor time."""

FIXED = [
    Case("smallest run, bare", _MEASURE, ("10", "bare")),
    Case("smallest run, observed", _MEASURE, ("10", "observed")),
]
"""Where next to nothing is computed, what is left is the fixed cost: imports, opening and closing of files."""
