"""A deployed model at work: batches are ingested, validated, encoded, predicted and checked for drift, all observed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config.data_lineage import lineage_tracker
from ml_pipeline.config.logging_config import get_logger
from ml_pipeline.config.monitoring_config import record_drift
from ml_pipeline.config.operation_logger import operation_logger
from ml_pipeline.drift import DriftAlarm, DriftReport, check, distribution
from ml_pipeline.pipelines import _sklearn_steps as steps
from ml_pipeline.pipelines.table import is_missing

if TYPE_CHECKING:
    from ml_pipeline.pipelines.batches import Batch, BatchSource

__all__ = ["BatchPipeline", "DeployedModel", "InjectedFailureError", "fail_if_asked"]

_DRAWN_FEATURES: Final = 8
_KEPT_DETAILS: Final = 100


class InjectedFailureError(RuntimeError):
    """The failure that was asked for, so that its log, metric, alert and mail can be seen."""


def fail_if_asked(fail_at: str | None, step: str) -> None:
    """Raise `InjectedFailureError` if *step* is the one that shall fail."""
    if fail_at == step:
        raise InjectedFailureError(f"step {step} fails because it was asked to")


@dataclass(frozen=True)
class DeployedModel:
    """A model in use.

    Attributes:
        model: What predicts.
        version: Which version of it.
        deployment_id: Its lineage node.
    """

    model: steps.Model
    version: str
    deployment_id: str

    @property
    def facts(self) -> dict[str, str]:
        """What operations say about it."""
        return {"model_name": self.model.name, "model_version": self.version}


@dataclass
class BatchPipeline:
    """Handles batches with one deployed model.

    Attributes:
        deployed: The model.
        source: Where batches come from.
        fail_at: The step that shall fail, if any.
        predictions: How many were made so far.
        drift_details: For each of the last 100 batches, what the report page draws of its drift check.
    """

    deployed: DeployedModel
    source: BatchSource
    fail_at: str | None = None
    predictions: int = 0
    drift_details: list[dict[str, Any]] = field(default_factory=list)
    _alarm: DriftAlarm = field(default_factory=DriftAlarm)

    def handle(self, data_id: str, *, drift: bool = False, single_predictions: bool = False) -> None:
        """Predict the next batch, and check it for drift.

        Args:
            data_id: The lineage node the batch is drawn from.
            drift: Whether to shift it on purpose.
            single_predictions: Whether each prediction becomes a lineage node; a batch always does.
        """
        batch = self.source.draw(drift=drift)
        batch_id = self._predict(batch, data_id, single_predictions=single_predictions)
        self._check_drift(batch, batch_id)

    def round(self, *, drift: bool = False) -> str:
        """Handle one fresh batch from ingestion to drift check, as a run of its own.

        Args:
            drift: Whether to shift it on purpose.

        Returns:
            The run's id.
        """
        with operation_logger.operation("custom", "batch_run", **self.deployed.facts) as run:
            batch, data_id = self._ingest(drift=drift)
            validation_id = self._validate(batch, data_id)
            features_id = self._extract_features(batch, validation_id)
            batch_id = self._predict(batch, features_id, single_predictions=False)
            self._check_drift(batch, batch_id)
        return run.run_id

    def _ingest(self, *, drift: bool) -> tuple[Batch, str]:
        source, dataset = "held-out rows", f"{self.deployed.model.name}_batches"
        with operation_logger.operation("ingestion", source_name=source, dataset_name=dataset) as op:
            fail_if_asked(self.fail_at, "ingest")
            batch = self.source.draw(drift=drift)
            version = batch.content_hash[:12]
            op.set(dataset_version=version, batch=batch.number)
            op.count(records=batch.rows)
            _, data_id = lineage_tracker.track_data_ingestion(
                source_name=source, dataset_name=dataset, records_count=batch.rows, dataset_version=version
            )
        return batch, data_id

    def _validate(self, batch: Batch, data_id: str) -> str:
        with operation_logger.operation("validation", batch=batch.number) as op:
            fail_if_asked(self.fail_at, "validate")
            encoder = self.deployed.model.encoder
            expected = {*encoder.numeric, *encoder.categorical}
            checks = {
                "columns_present": expected <= set(batch.columns),
                "rows_present": batch.rows > 0,
                "values_present": all(not is_missing(values).any() for values in batch.columns.values()),
            }
            op.set(checks=checks)
            op.count(records=batch.rows, checks=len(checks), failed=sum(not passed for passed in checks.values()))
            return lineage_tracker.track_validation(
                data_id, passed=all(checks.values()), checks=checks, records_count=batch.rows
            )

    def _extract_features(self, batch: Batch, validation_id: str) -> str:
        output = f"{self.deployed.model.name}_batch_features"
        with operation_logger.operation("feature_extraction", output_name=output) as op:
            fail_if_asked(self.fail_at, "features")
            matrix = self.deployed.model.encoder.transform(batch.columns)
            op.count(records=len(matrix), features=matrix.shape[1])
            return lineage_tracker.track_transformation(
                validation_id, output, output_version=batch.content_hash[:12], transformation="as in training"
            )

    def _predict(self, batch: Batch, data_id: str, *, single_predictions: bool) -> str:
        model = self.deployed.model
        deployment_id = self.deployed.deployment_id
        with operation_logger.operation("prediction", **self.deployed.facts, model_id=deployment_id) as op:
            fail_if_asked(self.fail_at, "predict")
            name = f"{op.run_id}/batch-{batch.number}"
            op.set(batch=name)
            decisions, confidences = steps.predict(model, batch.columns)
            rows = zip(*(values.tolist() for values in batch.columns.values()), strict=True)
            ids = [
                operation_logger.log_prediction(
                    features=dict(zip(batch.columns, row, strict=True)), decision=decision, confidence=confidence
                )
                for row, decision, confidence in zip(rows, decisions, confidences, strict=True)
            ]
            op.count(predictions=len(decisions))
            self.predictions += len(decisions)
            get_logger("inference.batch_predictions", "predictor").info(
                f"Batch {batch.number}: {len(decisions)} predictions by {model.name} {self.deployed.version}"
            )
            return lineage_tracker.track_inference(
                deployment_id,
                data_id,
                batch_name=name,
                predictions_count=len(decisions),
                prediction_ids=ids if single_predictions else (),
            )

    def _check_drift(self, batch: Batch, batch_id: str) -> None:
        model = self.deployed.model
        with operation_logger.operation("drift_check", **self.deployed.facts, batch=batch.number) as op:
            fail_if_asked(self.fail_at, "drift")
            counts = model.profile.count(batch.columns)
            report = check(model.profile, counts)
            self._alarm = self._alarm.after(report)
            op.set(verdict=report.verdict.value, drifted=list(report.drifted))
            op.count(records=batch.rows, features=len(report.features), drifted=len(report.drifted))
            record_drift(
                model.name,
                f"batch-{batch.number}",
                report.verdict.value,
                rows=batch.rows,
                effects={feature.name: feature.effect for feature in report.features},
                drifted=report.drifted,
                reason=report.reason,
                alarm=self._alarm.raised and report.verdict == "drift",
            )
            self.drift_details.append(_details(self.deployed, batch, report, counts))
            del self.drift_details[:-_KEPT_DETAILS]
            lineage_tracker.track_validation(
                batch_id,
                f"drift_check {op.run_id}/batch-{batch.number}",
                passed=report.verdict != "drift",
                checks={"no_drift": report.verdict != "drift"},
            )


def _details(deployed: DeployedModel, batch: Batch, report: DriftReport, counts: Any) -> dict[str, Any]:
    """What the report page draws: every feature's effect, and the distributions of those that moved most."""
    ranked = sorted(report.features, key=lambda feature: feature.effect, reverse=True)
    features = []
    for index, feature in enumerate(ranked):
        shown: dict[str, Any] = {
            "name": feature.name,
            "kind": feature.kind,
            "verdict": feature.verdict.value,
            "reason": feature.reason,
            "effect": feature.effect,
            "p_adjusted": feature.p_adjusted,
        }
        if index < _DRAWN_FEATURES and feature.name in counts.columns:
            drawn = distribution(deployed.model.profile, counts, feature.name)
            shown |= {"labels": drawn.labels, "edges": drawn.edges, "reference": drawn.reference, "batch": drawn.batch}
        features.append(shown)
    return {
        "batch": f"batch-{batch.number}",
        "verdict": report.verdict.value,
        "reason": report.reason,
        "rows": batch.rows,
        "detectable_shift": report.detectable_shift,
        "features": features,
    }
