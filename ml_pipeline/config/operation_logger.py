"""Operations: every step's start, progress, end or failure under one id, told once to every sink.

Three ways to say the same thing::

    with operation_logger.operation("ingestion", source_name="ADNI") as op:
        op.count(records=5000)

    @operation_logger.operation("feature_extraction")
    def extract(table): ...

    op_id = operation_logger.log_training_start(model_name="alzheimer_classifier")
    operation_logger.log_training_complete(operation_id=op_id, metrics={"roc_auc": 0.92})

Log lines, alerts and lineage inside carry the operation's id. A ``log_*`` call inside a ``with`` of its own kind
refines that operation; it never adds a second.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

import orjson

from ml_pipeline import _runtime
from ml_pipeline.config._context import Carried
from ml_pipeline.config._encoding import dumps
from ml_pipeline.config._events import DEFAULT_BUS, Bus, OperationEvent
from ml_pipeline.config._ids import new_id
from ml_pipeline.config._log_format import is_empty, plain_text
from ml_pipeline.config._open_operations import OpenOperations
from ml_pipeline.config._operation import OperationScope, complain, split_numbers
from ml_pipeline.config._routes import OPERATIONS
from ml_pipeline.errors import OperationStateError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ml_pipeline.settings import Settings

__all__ = ["OperationLogger", "OperationScope", "operation_logger"]

P = ParamSpec("P")
R = TypeVar("R")


class OperationLogger:
    """Starts and ends operations, and publishes what happens to them.

    Thread-safe. No call raises for the sake of telemetry: a misuse is recorded with its data, counted, and said once;
    with ``ML_PIPELINE_STRICT=1`` it raises `OperationStateError`.

    Args:
        bus: Where the events go.
    """

    def __init__(self, bus: Bus = DEFAULT_BUS) -> None:
        self._bus = bus
        self._operations = OpenOperations(bus)

    def operation(
        self, kind: str, name: str | None = None, *, user_id: str | None = None, **context: Any
    ) -> OperationScope:
        """Observe a block or a function; ``with``, ``async with`` and decorator.

        Args:
            kind: What sort of work it is, a kind of the table of routes, such as ``training``.
            name: What it is called; by default the kind's own name, or that of the decorated function.
            user_id: Who does it; by default the user around it.
            **context: Facts known beforehand, such as ``source_name``.

        Returns:
            The scope; inside the block it takes counts, scores and progress.
        """
        return OperationScope(self._operations, kind, name, user_id, context)

    def carry(self, function: Callable[P, R]) -> Callable[P, R]:
        """Take the context of the caller into a thread or process pool: ``pool.submit(operation_logger.carry(fn), x)``.

        Args:
            function: What the pool will call; for a process pool it must be picklable, as always.

        Returns:
            A function that runs it with the operation, run, user and `contextualize` fields of the moment `carry` was
            called. Into another process the fields go as they would stand on a line: plain, bounded and redacted.
        """
        return Carried(function)

    def open_operations(self) -> dict[str, str]:
        """Return the names of the operations that are open in this process, by id."""
        return self._operations.names()

    def log_data_ingestion_start(
        self, source_name: str, dataset_name: str | None = None, *, user_id: str | None = None, **context: Any
    ) -> str:
        """Start an ingestion.

        Args:
            source_name: Where the data come from.
            dataset_name: What they become; by default the source's name.
            user_id: Who does it.
            **context: Further facts, such as ``source_uri``, ``dataset_version``, ``content_hash``.

        Returns:
            The operation's id.
        """
        facts = {"source_name": source_name, "dataset_name": dataset_name, **context}
        return self._operations.start("ingestion", user_id, facts)

    def log_data_ingestion_progress(
        self, operation_id: str | None = None, *, records_processed: float, total_records: float | None = None
    ) -> None:
        """Say how many records have been ingested so far, of how many."""
        self._operations.progress("ingestion", operation_id, {"done": records_processed, "total": total_records})

    def log_data_ingestion_complete(
        self, operation_id: str | None = None, *, records_count: float | None = None, **context: Any
    ) -> None:
        """Complete an ingestion.

        Args:
            operation_id: What its start returned; by default the ingestion around the call.
            records_count: How many records there are now.
            **context: Further facts.
        """
        self._operations.complete("ingestion", operation_id, {"records": records_count}, {}, context)

    def log_data_ingestion_error(
        self, operation_id: str | None = None, *, error: BaseException | str, **context: Any
    ) -> None:
        """Fail an ingestion.

        Args:
            operation_id: What its start returned; by default the ingestion around the call.
            error: What went wrong; an exception brings its traceback.
            **context: Further facts.
        """
        self._operations.fail("ingestion", operation_id, error, context)

    def log_training_start(
        self,
        model_name: str,
        model_type: str = "",
        dataset_version: str = "",
        *,
        user_id: str | None = None,
        **context: Any,
    ) -> str:
        """Start a training.

        Args:
            model_name: Which model.
            model_type: Its class or algorithm.
            dataset_version: Which version of the data it learns from.
            user_id: Who does it.
            **context: Further facts, such as hyperparameters.

        Returns:
            The operation's id.
        """
        facts = {"model_name": model_name, "model_type": model_type, "dataset_version": dataset_version}
        return self._operations.start("training", user_id, {**facts, **context})

    def log_training_progress(
        self, operation_id: str | None = None, *, epoch: float, total_epochs: float | None = None, **metrics: float
    ) -> None:
        """Say which epoch the training has reached, of how many, with its scores so far."""
        self._operations.progress(
            "training", operation_id, {"done": epoch, "total": total_epochs, "epoch": epoch}, metrics
        )

    def log_training_complete(
        self,
        operation_id: str | None = None,
        *,
        model_name: str | None = None,
        model_version: str | None = None,
        metrics: Mapping[str, float] | None = None,
        **context: Any,
    ) -> None:
        """Complete a training.

        Args:
            operation_id: What its start returned; by default the training around the call.
            model_name: Which model.
            model_version: The version that it became.
            metrics: Its scores.
            **context: Further facts.
        """
        facts = {"model_name": model_name, "model_version": model_version, **context}
        self._operations.complete("training", operation_id, {}, metrics, facts)

    def log_training_error(
        self, operation_id: str | None = None, *, error: BaseException | str, **context: Any
    ) -> None:
        """Fail a training.

        Args:
            operation_id: What its start returned; by default the training around the call.
            error: What went wrong; an exception brings its traceback.
            **context: Further facts.
        """
        self._operations.fail("training", operation_id, error, context)

    def log_feature_extraction(
        self,
        dataset_name: str,
        output_name: str,
        *,
        features_count: float | None = None,
        records_count: float | None = None,
        user_id: str | None = None,
        **context: Any,
    ) -> str:
        """Record that features were extracted.

        Args:
            dataset_name: From which data set.
            output_name: What the features are called.
            features_count: How many features.
            records_count: For how many records.
            user_id: Who did it.
            **context: Further facts.

        Returns:
            The operation's id.
        """
        facts = {"dataset_name": dataset_name, "output_name": output_name, **context}
        return self._operations.once(
            "feature_extraction", user_id, {"features": features_count, "records": records_count}, facts
        )

    def log_model_deployment(
        self,
        model_name: str,
        model_version: str = "",
        environment: str = "production",
        *,
        user_id: str | None = None,
        **context: Any,
    ) -> str:
        """Record that a model was put into use.

        Args:
            model_name: Which model.
            model_version: Which version of it.
            environment: Where.
            user_id: Who did it.
            **context: Further facts.

        Returns:
            The operation's id.
        """
        facts = {"model_name": model_name, "model_version": model_version, "environment": environment, **context}
        return self._operations.once("deployment", user_id, {}, facts)

    def log_data_access(
        self,
        dataset_name: str,
        user_id: str | None = None,
        *,
        purpose: str = "",
        records_count: float | None = None,
        **context: Any,
    ) -> str:
        """Record that someone read data.

        Args:
            dataset_name: Which data set.
            user_id: Who.
            purpose: What for.
            records_count: How many records.
            **context: Further facts.

        Returns:
            The operation's id.
        """
        facts = {"dataset_name": dataset_name, "purpose": purpose, **context}
        return self._operations.once("data_access", user_id, {"records": records_count}, facts)

    def log_prediction(
        self,
        *,
        features: Any,
        decision: Any,
        confidence: float | None = None,
        model_name: str | None = None,
        model_version: str | None = None,
        **context: Any,
    ) -> str:
        """Record one prediction, in ``inference/predictions.log``.

        Args:
            features: What the model saw: a mapping, sequence or array. Written as ``ML_PIPELINE_LOG_FEATURES`` says, by
                default as a hash, because features of a person are personal data.
            decision: What the model decided.
            confidence: How sure it was, 0 to 1.
            model_name: Which model; by default that of the operation around the call.
            model_version: Which version of it; by default that of the operation around the call.
            **context: Further facts, such as the record's own id.

        Returns:
            The prediction's id, which its line carries as ``prediction_id``.
        """
        around = self._operations.current()
        known = around.attributes if around else {}
        facts: dict[str, Any] = {"prediction_id": new_id(), **context}
        facts.update(
            single=True,
            model_name=known.get("model_name", "") if is_empty(model_name) else model_name,
            model_version=known.get("model_version", "") if is_empty(model_version) else model_version,
            decision=decision,
            **_features(features),
        )
        metrics, refused = split_numbers({"confidence": confidence}, "metrics")
        self._bus.publish(
            OperationEvent(
                type="complete",
                kind="prediction",
                name=OPERATIONS["prediction"].name,
                attributes={**facts, **refused},
                metrics=metrics,
            )
        )
        complain(refused)
        return plain_text(facts["prediction_id"])


def _features(features: Any) -> dict[str, Any]:
    how = _runtime.settings().log_features
    if how == "none":
        return {}
    if how == "full":
        values, broken = _runtime.attempt(_listed, features)
        return {"features": features if broken is not None else values}
    with _runtime.guard("operation_logger"):  # without its key nothing is said of the features, rather than too much
        return {"features_hmac": hmac.new(_feature_key.get(), _canonical(features), hashlib.sha256).hexdigest()}
    return {}


def _read_feature_key(settings: Settings) -> bytes:
    """The key of this data folder, made at its first use: a plain hash of an age and a score is guessed in no time."""
    path = settings.data_dir / "feature_key"
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32))
    except FileExistsError:
        pass
    key = path.read_text("ascii").strip()
    if not key:
        raise OperationStateError("the key for hashed features must not be empty", str(path), "remove the file")
    return key.encode()


def _canonical(features: Any) -> bytes:
    """All of them as JSON, so that equal features have equal hashes, whether in a list, a tuple or an array."""
    options = orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS
    text, broken = _runtime.attempt(lambda: orjson.dumps(features, default=_listed, option=options))
    return dumps(features) if text is None or broken is not None else text


def _listed(values: Any) -> Any:
    """An array or series as a list, which is neither hashed nor written by its shape alone."""
    if hasattr(values, "tolist"):
        return values.tolist()
    raise TypeError(f"{type(values).__name__} is no array")


_feature_key: Final = _runtime.Lazy(_read_feature_key, lambda _: None)
operation_logger: Final = OperationLogger()
"""The default operation logger, on the default bus."""
