"""Data lineage: what was made from what, from the source to the single prediction, walkable both ways.

::

    from ml_pipeline.config.data_lineage import lineage_tracker

    source_id, data_id = lineage_tracker.track_data_ingestion(
        source_name="ADNI", dataset_name="ADNI_2024", records_count=5000
    )
    model_id = lineage_tracker.track_training(data_id, "alzheimer_classifier", "1.0.0")
    batch_id = lineage_tracker.track_inference(model_id, batch_name="2024-06-01")
    lineage_tracker.upstream(batch_id).nodes

A thing is its type, name and version (or content hash), so every process gives it the same id, and what is recorded
twice is there once. Operations record their own steps at their end; a ``track_*`` call for the same step refines that
record and never adds a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from ml_pipeline import _runtime
from ml_pipeline.config import _lineage_steps as steps
from ml_pipeline.config._events import DEFAULT_BUS, Bus, Event, LineageEdge, LineageNode, OperationEvent
from ml_pipeline.config._lineage_export import LineageFiles
from ml_pipeline.config._lineage_model import EdgeRecord, Lineage, NodeRecord
from ml_pipeline.config._lineage_queries import LineageQueries
from ml_pipeline.config._lineage_recorder import SINK, LineageRecorder
from ml_pipeline.config._lineage_sqlite import SqliteLineageStore
from ml_pipeline.config._lineage_step import About, Origin, Step
from ml_pipeline.config._lineage_store import LineageStore, MemoryLineageStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ml_pipeline.settings import Settings

__all__ = [
    "EdgeRecord",
    "Lineage",
    "LineageEdge",
    "LineageNode",
    "LineageStore",
    "LineageTracker",
    "MemoryLineageStore",
    "NodeRecord",
    "SqliteLineageStore",
    "lineage_tracker",
    "subscribe_to",
]

Status = Literal["complete", "failed"]


class LineageTracker(LineageQueries):
    """Records the steps of a pipeline as a graph, and answers questions about it.

    Thread-safe. A ``track_*`` call returns its ids whatever happens to the store, and never raises for the sake of
    telemetry: a store that fails is counted and tried again, and a misuse, such as an input that nobody recorded, is
    kept with all its data, counted, and raised only with ``ML_PIPELINE_STRICT=1``. When the call returns, what it said
    is in the store. The calls record lineage alone: metrics move by what the operation around them is told, as in
    ``op.set(checks=...)`` and ``op.count(records=...)``. Every ``track_*`` call also takes:

    - ``operation_id``: the operation that did the step; by default the one of its kind around the call.
    - ``status``: ``"complete"``, or ``"failed"`` where the step was tried and made nothing.
    - further keyword arguments, which are kept with the step, on its edges.

    Args:
        store: Where the graph is kept, and closed by whoever made it; by default ``metadata/lineage/lineage.db`` below
            the data directory, with files beside it that are brought up to date at the end of each run.
        bus: Where is told what was recorded; `subscribe` its operations with `on_event`.
    """

    def __init__(self, store: LineageStore | None = None, bus: Bus | None = None) -> None:
        self._given = store
        self._bus = DEFAULT_BUS if bus is None else bus
        self._opened = _runtime.Lazy(_open_store, SqliteLineageStore.close)
        self._at_work = _runtime.Lazy(self._start, _AtWork.close, phase=1)

    def track_data_ingestion(
        self,
        /,
        source_name: str,
        dataset_name: str,
        records_count: int | None = None,
        *,
        source_version: str = "",
        dataset_version: str = "",
        content_hash: str = "",
        source_uri: str = "",
        columns: Sequence[str] | None = None,
        operation_id: str | None = None,
        status: Status = "complete",
        **attributes: object,
    ) -> tuple[str, str]:
        """Record that a data set was read from a source.

        Args:
            source_name: Where the data come from.
            dataset_name: What they are called here.
            records_count: How many records there are.
            source_version: Which version of the source.
            dataset_version: Which version of the data set; data sets of one name and version are one.
            content_hash: A hash of the data; stands for the version where there is none.
            source_uri: Where the source lies.
            columns: Names of the columns.
            operation_id: See the class.
            status: See the class.
            **attributes: See the class.

        Returns:
            The ids of the source and of the data set.
        """
        step = steps.ingestion(
            _about(operation_id, status, attributes),
            source_name,
            dataset_name,
            source_version=source_version,
            source_uri=source_uri,
            dataset_version=dataset_version,
            content_hash=content_hash,
            records_count=records_count,
            columns=columns,
        )
        self._record(step)
        return step.inputs[0], step.target.node_id

    def track_validation(
        self,
        /,
        data_id: str,
        validation_name: str = "data_validation",
        *,
        passed: bool,
        checks: Mapping[str, object] | None = None,
        records_count: int | None = None,
        operation_id: str | None = None,
        status: Status = "complete",
        **attributes: object,
    ) -> str:
        """Record a verdict on data.

        Args:
            data_id: What was judged.
            validation_name: What the check is called.
            passed: The verdict; a check that found bad data is still complete.
            checks: The result of each single check, by name.
            records_count: How many records were judged.
            operation_id: See the class.
            status: See the class.
            **attributes: See the class.

        Returns:
            The id of the validation, which may be the input of what is made from the data it judged.
        """
        about = _about(operation_id, status, attributes)
        return self._record(
            steps.validation(about, data_id, validation_name, passed=passed, checks=checks, records_count=records_count)
        )

    def track_transformation(
        self,
        /,
        input_ids: str | Sequence[str],
        output_name: str,
        *,
        output_version: str = "",
        transformation: str = "",
        parameters: Mapping[str, object] | None = None,
        records_count: int | None = None,
        columns: Sequence[str] | None = None,
        operation_id: str | None = None,
        status: Status = "complete",
        **attributes: object,
    ) -> str:
        """Record that features, or any other data, were made from data.

        Args:
            input_ids: What they were made from; up to 10,000 ids.
            output_name: What they are called.
            output_version: Which version; features of one name and version are one.
            transformation: What was done.
            parameters: With which parameters.
            records_count: How many records there are now.
            columns: Names of the columns.
            operation_id: See the class.
            status: See the class.
            **attributes: See the class.

        Returns:
            The id of the features.
        """
        step = steps.transformation(
            _about(operation_id, status, attributes),
            input_ids,
            output_name,
            output_version=output_version,
            transformation=transformation,
            parameters=parameters,
            records_count=records_count,
            columns=columns,
        )
        return self._record(step)

    def track_training(
        self,
        /,
        data_ids: str | Sequence[str],
        model_name: str,
        model_version: str = "",
        *,
        model_type: str = "",
        metrics: Mapping[str, float] | None = None,
        parameters: Mapping[str, object] | None = None,
        artifact_sha256: str = "",
        artifact_uri: str = "",
        operation_id: str | None = None,
        status: Status = "complete",
        **attributes: object,
    ) -> str:
        """Record that a model was trained.

        Args:
            data_ids: What it learned from, or was scored on; up to 10,000 ids.
            model_name: Which model.
            model_version: Which version; models of one name and version are one.
            model_type: Its class or algorithm.
            metrics: Its scores.
            parameters: Its hyperparameters.
            artifact_sha256: Hash of the model's file.
            artifact_uri: Where that file lies.
            operation_id: See the class.
            status: See the class.
            **attributes: See the class.

        Returns:
            The id of the model.
        """
        step = steps.training(
            _about(operation_id, status, attributes),
            data_ids,
            model_name,
            model_version=model_version,
            model_type=model_type,
            metrics=metrics,
            parameters=parameters,
            artifact_sha256=artifact_sha256,
            artifact_uri=artifact_uri,
        )
        return self._record(step)

    def track_deployment(
        self,
        /,
        model_id: str,
        environment: str = "production",
        *,
        endpoint: str = "",
        replicas: int | None = None,
        operation_id: str | None = None,
        status: Status = "complete",
        **attributes: object,
    ) -> str:
        """Record that a model was put to work.

        Args:
            model_id: Which model.
            environment: Where; one model in one environment is one deployment.
            endpoint: Where it answers.
            replicas: How many times over.
            operation_id: See the class.
            status: See the class.
            **attributes: See the class.

        Returns:
            The id of the deployment.
        """
        about = _about(operation_id, status, attributes)
        return self._record(steps.deployment(about, model_id, environment, endpoint=endpoint, replicas=replicas))

    def track_inference(
        self,
        /,
        model_id: str,
        data_id: str | Sequence[str] | None = None,
        *,
        batch_name: str,
        predictions_count: int | None = None,
        prediction_ids: Sequence[str] = (),
        operation_id: str | None = None,
        status: Status = "complete",
        **attributes: object,
    ) -> str:
        """Record a batch of predictions.

        Args:
            model_id: What predicted: a model or a deployment.
            data_id: What it predicted from.
            batch_name: What the batch is called; one name is one batch of that model or deployment.
            predictions_count: How many predictions it has.
            prediction_ids: Ids of single predictions, such as `log_prediction` returns; each becomes a node of type
                ``prediction`` and that name, up to 10,000. How many more there were is kept with the batch.
            operation_id: See the class.
            status: See the class.
            **attributes: See the class.

        Returns:
            The id of the batch.
        """
        step = steps.inference(
            _about(operation_id, status, attributes),
            model_id,
            data_id,
            batch_name,
            predictions_count=predictions_count,
            prediction_ids=prediction_ids,
        )
        return self._record(step)

    def on_event(self, event: Event) -> None:
        """Record what an operation did, at its end; subscribe this to a bus. Other events are ignored."""
        if not isinstance(event, OperationEvent):
            return
        single = bool(event.attributes.get("single"))
        at_work = self._at_work.peek() if single else self._at_work.get()  # a prediction alone opens nothing
        if at_work is None:
            return
        at_work.recorder.on_operation(event)
        if event.parent_id is None and not single and event.type not in ("start", "progress"):
            at_work.files.run_ended()

    def flush(self) -> None:
        """Bring the files of the default store up to date now, instead of within a second of the run's end."""
        if (at_work := self._at_work.peek()) is not None:
            at_work.files.flush()

    def _record(self, step: Step) -> str:
        with _runtime.guard(SINK):
            self._at_work.get().recorder.called(step)
        return step.target.node_id

    def _reading(self) -> LineageStore:
        return self._opened.get() if self._given is None else self._given

    def _files(self) -> LineageFiles:
        return self._at_work.get().files

    def _start(self, settings: Settings) -> _AtWork:
        most_nodes = settings.lineage_export_nodes if self._given is None else None
        files = LineageFiles(self._reading, _folder(settings), most_nodes)
        return _AtWork(LineageRecorder(self._reading, self._bus.publish, files.recorded), files)


class _AtWork:
    """What a tracker has once it is used: open in one process under one set of settings."""

    __slots__ = ("files", "recorder")

    def __init__(self, recorder: LineageRecorder, files: LineageFiles) -> None:
        self.recorder = recorder
        self.files = files

    def close(self) -> None:
        with _runtime.guard(SINK):
            self.recorder.flush()
        self.files.close()


def _about(operation_id: object, status: object, attributes: Mapping[str, object]) -> About:
    return About(Origin.here(operation_id), status, attributes)


def _folder(settings: Settings) -> Path:
    return settings.data_dir / "metadata" / "lineage"


def _open_store(settings: Settings) -> SqliteLineageStore:
    return SqliteLineageStore(_folder(settings) / "lineage.db")


lineage_tracker: Final = LineageTracker()
"""The default tracker, on the default bus."""


def subscribe_to(bus: Bus) -> None:
    """Have `lineage_tracker` record the operations of *bus*."""
    bus.subscribe(SINK, lineage_tracker.on_event, frozenset({OperationEvent}).__contains__)
