"""The reference pipeline on scikit-learn, from the source to checked predictions; each step is one observed operation.

Ingest, validate, extract features, train, evaluate, deploy, predict, check for drift. What the steps do stands in
`ml_pipeline.pipelines._sklearn_steps`; what happens to batches, in `ml_pipeline.pipelines.batch_pipeline`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from ml_pipeline import _runtime
from ml_pipeline._platform import replace_durably
from ml_pipeline.config.data_lineage import lineage_tracker
from ml_pipeline.config.logging_config import get_logger
from ml_pipeline.config.monitoring_config import monitor_resources
from ml_pipeline.config.operation_logger import operation_logger
from ml_pipeline.errors import SettingsError
from ml_pipeline.pipelines import _sklearn_steps as steps
from ml_pipeline.pipelines.batch_pipeline import BatchPipeline, DeployedModel, fail_if_asked
from ml_pipeline.pipelines.batches import BatchSource
from ml_pipeline.pipelines.table import Table, bundled_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["STEPS", "PipelineOptions", "PipelineResult", "SklearnPipeline"]

_FILE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
STEPS: Final = ("ingest", "validate", "features", "train", "evaluate", "deploy", "predict", "drift")
"""The steps by the names that `PipelineOptions.fail_at` takes, in order."""


@dataclass(frozen=True)
class PipelineOptions:
    """What to run.

    Attributes:
        model_name: Names the model and its file.
        trees: Size of the forest.
        rounds: In how many steps it is trained, each reported as progress.
        batches: How many batches are predicted, drawn from the held-out rows.
        drift: Whether the last batch is shifted on purpose.
        seed: Of the split, the forest and the batches.
        environment: Where the model is deployed to.
        user_id: Who runs it.
        fail_at: The step that shall fail, of `STEPS`.
        read: Returns the table to learn from.

    Raises:
        SettingsError: If a number is not positive, a name cannot be that of a file, or *fail_at* is no step.
    """

    model_name: str = "breast_cancer_classifier"
    trees: int = 100
    rounds: int = 10
    batches: int = 3
    drift: bool = False
    seed: int = 0
    environment: str = "production"
    user_id: str = "ml-pipeline"
    fail_at: str | None = None
    read: Callable[[], Table] = field(default=bundled_table, repr=False)

    def __post_init__(self) -> None:
        for name in ("trees", "rounds", "batches"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} must be 1 or more", getattr(self, name), "give a positive number")
        for name in ("model_name", "environment"):
            if not _FILE_NAME.fullmatch(getattr(self, name)):
                raise SettingsError(
                    f"{name} must be up to 100 letters, digits, '_', '-' and '.', and begin with a letter or digit",
                    getattr(self, name),
                    "it names files",
                )
        if self.fail_at is not None and self.fail_at not in STEPS:
            raise SettingsError("the step that shall fail must be a step", self.fail_at, "one of: " + ", ".join(STEPS))


@dataclass
class PipelineResult:
    """What a run came to; filled as the steps complete.

    Attributes:
        run_id: The run.
        dataset: Name and version of the data.
        model_path: The saved model.
        model_sha256: The hash of that file.
        model_version: The version it was deployed as.
        scores: On the validation rows.
    """

    run_id: str = ""
    dataset: str = ""
    model_path: Path | None = None
    model_sha256: str = ""
    model_version: str = ""
    scores: dict[str, float] = field(default_factory=dict)


class SklearnPipeline:
    """Runs the steps in order, each as an operation of one run.

    Args:
        options: What to run.
    """

    def __init__(self, options: PipelineOptions | None = None) -> None:
        self.options = options or PipelineOptions()
        self.result = PipelineResult()
        self.serving: BatchPipeline | None = None
        self._trainer = get_logger("training.model_training", "model_trainer")
        self._quality = get_logger("pipeline.data_quality", "data_validator")
        self._loader = get_logger("inference.model_loading", "model_loader")

    def run(self) -> PipelineResult:
        """Run every step.

        Returns:
            What came of it; the same object as ``result``, which also holds what was done before a failure.

        Raises:
            Exception: What the failing step raised.
        """
        with operation_logger.operation("custom", "pipeline_run", user_id=self.options.user_id) as run:
            self.result.run_id = run.run_id
            table, data_id = self._ingest()
            validation_id = self._validate(table, data_id)
            features, features_id = self._extract_features(table, validation_id)
            model, model_id = self._train(table, features, features_id)
            self._evaluate(model, features)
            deployment_id = self._deploy(model, model_id)
            self.serving = BatchPipeline(
                self._deployed(deployment_id), BatchSource(features.held_out, self.options.seed), self.options.fail_at
            )
            for number in range(1, self.options.batches + 1):
                last = number == self.options.batches
                self.serving.handle(features_id, drift=self.options.drift and last, single_predictions=True)
        return self.result

    def _ingest(self) -> tuple[Table, str]:
        with operation_logger.operation("ingestion") as op:
            fail_if_asked(self.options.fail_at, "ingest")
            table = self.options.read()
            self.result.dataset = f"{table.name} {table.version}"
            op.set(source_name=table.source, dataset_name=table.name, dataset_version=table.version)
            op.count(records=table.rows, columns=len(table.columns))
            _, data_id = lineage_tracker.track_data_ingestion(
                source_name=table.source,
                dataset_name=table.name,
                records_count=table.rows,
                dataset_version=table.version,
                content_hash=table.content_hash,
                source_uri=table.uri,
            )
        return table, data_id

    def _validate(self, table: Table, data_id: str) -> str:
        with operation_logger.operation("validation", dataset_name=table.name, dataset_version=table.version) as op:
            fail_if_asked(self.options.fail_at, "validate")
            checks = steps.check_table(table)
            for check, passed in checks.items():
                self._quality.log(20 if passed else 30, f"{check}: {'passed' if passed else 'failed'}")
            op.set(checks=checks)
            op.count(records=table.rows, checks=len(checks), failed=sum(not passed for passed in checks.values()))
            return lineage_tracker.track_validation(
                data_id, passed=all(checks.values()), checks=checks, records_count=table.rows
            )

    def _extract_features(self, table: Table, validation_id: str) -> tuple[steps.Features, str]:
        output = f"{table.name}_features"
        with operation_logger.operation("feature_extraction", dataset_name=table.name, output_name=output) as op:
            fail_if_asked(self.options.fail_at, "features")
            features = steps.extract_features(table, seed=self.options.seed)
            op.count(records=table.rows, features=len(features.names))
            features_id = lineage_tracker.track_transformation(
                validation_id,
                output,
                output_version=table.version,
                transformation="split 60/20/20, impute, standardise, one-hot",
                parameters={"seed": self.options.seed},
                records_count=table.rows,
            )
        return features, features_id

    def _train(self, table: Table, features: steps.Features, features_id: str) -> tuple[steps.Model, str]:
        options, path = self.options, self._model_path()
        with operation_logger.operation(
            "training",
            model_name=options.model_name,
            dataset_version=table.version,
            trees=options.trees,
            data_ids=[features_id],
        ) as op:
            kind = "RandomForestClassifier" if table.task == "classification" else "RandomForestRegressor"
            op.set(model_type=kind)
            self._trainer.info(f"Model training started for {kind}")
            self._trainer.info(f"Training set size: {features.train.shape}")
            self._trainer.info(f"Validation set size: {features.validation.shape}")
            fail_if_asked(self.options.fail_at, "train")
            score = 0.0

            def on_round(number: int, validation_score: float) -> None:
                nonlocal score
                score = validation_score
                op.progress(number, options.rounds, epoch=number)

            with monitor_resources("training"):
                model = steps.train(
                    features,
                    table.task,
                    options.model_name,
                    trees=options.trees,
                    rounds=options.rounds,
                    seed=options.seed,
                    on_round=on_round,
                )
            name = "Accuracy" if table.task == "classification" else "R2"
            self._trainer.info(f"Training completed. {name}: {score:.4f}")
            sha256 = steps.save_model(model, path)
            self._trainer.info(f"Model saved to {_shown(path)}")
            self.result.model_path, self.result.model_sha256, self.result.model_version = path, sha256, sha256[:12]
            op.set(model_version=sha256[:12], artifact_sha256=sha256)
            op.measure(**{name.lower(): score})
            model_id = lineage_tracker.track_training(
                features_id,
                options.model_name,
                sha256[:12],
                model_type=kind,
                metrics={name.lower(): score},
                parameters={"trees": options.trees, "seed": options.seed},
                artifact_sha256=sha256,
            )
        return model, model_id

    def _evaluate(self, model: steps.Model, features: steps.Features) -> None:
        with operation_logger.operation("evaluation", **self._model_facts()) as op:
            fail_if_asked(self.options.fail_at, "evaluate")
            self.result.scores = steps.evaluate(model, features)
            op.measure(**self.result.scores)
            op.count(records=len(features.validation))
            text = ", ".join(f"{name}={value:.4f}" for name, value in self.result.scores.items())
            get_logger("monitoring.model_performance", "model_evaluator").info(f"{model.name}: {text}")

    def _deploy(self, model: steps.Model, model_id: str) -> str:
        facts = self._model_facts() | {"environment": self.options.environment, "model_id": model_id}
        with operation_logger.operation("deployment", **facts):
            fail_if_asked(self.options.fail_at, "deploy")
            # A copy: what is deployed must not change when the next training replaces the model file.
            replace_durably(self._deployed_path(), self._model_path().read_bytes())
            pointer = {"model": model.name, "version": self.result.model_version, "sha256": self.result.model_sha256}
            replace_durably(self._pointer_path(), orjson.dumps(pointer, option=orjson.OPT_INDENT_2) + b"\n")
            return lineage_tracker.track_deployment(model_id, self.options.environment)

    def _model_facts(self) -> dict[str, str]:
        return {"model_name": self.options.model_name, "model_version": self.result.model_version}

    def _model_path(self) -> Path:
        return _runtime.settings().artifact_dir / "models" / f"{self.options.model_name}_model.pkl"

    def _deployed(self, deployment_id: str) -> DeployedModel:
        pointer: dict[str, Any] = orjson.loads(self._pointer_path().read_bytes())
        model = steps.load_model(self._deployed_path(), pointer["sha256"])
        self._loader.info(f"Model {model.name} {pointer['version']} loaded from {_shown(self._deployed_path())}")
        return DeployedModel(model, pointer["version"], deployment_id)

    def _deployed_path(self) -> Path:
        return self._model_path().with_name(f"{self.options.model_name}_{self.options.environment}.pkl")

    def _pointer_path(self) -> Path:
        return self._deployed_path().with_suffix(".json")


def _shown(path: Path) -> str:
    """A path below the working directory as people write it, any other in full."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
