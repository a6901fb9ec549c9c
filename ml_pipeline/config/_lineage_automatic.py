"""The end of an operation as a step of lineage, read from the facts that the operation was given.

The facts are those that `operation_logger` names: ``source_name``, ``dataset_name``, ``dataset_version``,
``model_name``, ``model_version``, ``output_name``, ``environment``, ``batch``; or, where the code knows them, the ids
of nodes: ``input_ids``, ``data_ids``, ``data_id``, ``model_id``. An operation that does not say enough records nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config import _lineage_steps as steps
from ml_pipeline.config._lineage_model import DATASET, DEPLOYMENT, FEATURES, MODEL, described, digest_of, name_of
from ml_pipeline.config._lineage_step import About, Origin, Step
from ml_pipeline.config._lineage_store import LineageStore, NodeQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ml_pipeline.config._events import LineageNode, OperationEvent

__all__ = ["FAILED_ENDS", "Ending", "about_of", "step_of"]

FAILED_ENDS: Final = frozenset({"fail", "cancel", "abandon"})
"""The ends of an operation that leave its edges failed."""


@dataclass(frozen=True, slots=True)
class Ending:
    """An operation that has ended, and what was seen of it while it was open.

    Attributes:
        event: Its end.
        began: When it started; None where its start was not seen.
        predictions: Ids of the single predictions inside it.
        left_out: How many more of those there were.
    """

    event: OperationEvent
    began: float | None = None
    predictions: tuple[str, ...] = ()
    left_out: int = 0


def step_of(ending: Ending, kind: str, store: LineageStore) -> Step | None:
    """Describe what an operation did.

    Args:
        ending: The operation.
        kind: The kind of edge it records.
        store: Where things are looked up that the operation names without their version.

    Returns:
        The step, or None where the operation's facts do not name what was made from what.
    """
    return _READERS[kind](_Facts(ending, store))


def about_of(ending: Ending) -> About:
    """Return who says that the operation ended, and how it did."""
    event, error = ending.event, ending.event.error
    origin = Origin(
        time=event.time,
        began=event.time if ending.began is None else ending.began,
        pipeline=event.pipeline,
        run_id=event.run_id,
        operation_id=event.operation_id,
        user_id=event.user_id,
        automatic=True,
    )
    ended = {
        "ended": event.type,
        "duration_seconds": event.duration_seconds,
        "error": {"type": error.type, "message": error.message} if error else None,
    }
    return About(origin, "failed" if event.type in FAILED_ENDS else "complete", ended)


class _Facts:
    """The facts of one operation, read as text, as ids, and as nodes."""

    def __init__(self, ending: Ending, store: LineageStore) -> None:
        self.event = ending.event
        self.ending = ending
        self.attributes: Mapping[str, Any] = ending.event.attributes
        self._store = store

    def text(self, key: str) -> str:
        return name_of(self.attributes.get(key))

    def get(self, *keys: str) -> dict[str, Any]:
        return {key: self.attributes[key] for key in keys if key in self.attributes}

    def count(self, key: str) -> float | None:
        return self.event.counts.get(key)

    def about(self) -> About:
        return about_of(self.ending)

    def data(self) -> tuple[tuple[str, ...], tuple[LineageNode, ...]]:
        """Return the ids of the data that went in, and the nodes that are not kept under them yet."""
        ids = [
            node_id
            for key in ("input_ids", "data_ids", "data_id")
            for node_id in steps.ids_of(self.attributes.get(key))
        ]
        return (tuple(ids), ()) if ids else self._named("dataset_name", "dataset_version", (FEATURES, DATASET))

    def model(self) -> tuple[tuple[str, ...], tuple[LineageNode, ...]]:
        """Return the id of the model that was used, and its node if nothing is kept under that yet."""
        ids = steps.ids_of(self.attributes.get("model_id"))
        return (ids, ()) if ids else self._named("model_name", "model_version", (MODEL,))

    def server(self) -> tuple[tuple[str, ...], tuple[LineageNode, ...]]:
        """Return what predicted: the model's deployment in the environment named, if it is kept, or the model."""
        model, made = self.model()
        environment = self.text("environment")
        if model and environment:
            placed = described(DEPLOYMENT, environment, digest_of(model[0]))
            if self._store.nodes(NodeQuery(ids=(placed.node_id,))):
                return (placed.node_id,), ()
        return model, made

    def _named(
        self, name_key: str, version_key: str, types: tuple[str, ...]
    ) -> tuple[tuple[str, ...], tuple[LineageNode, ...]]:
        name, version = self.text(name_key), self.text(version_key)
        if not name:
            return (), ()
        exact = [described(node_type, name, version) for node_type in types]
        if version:
            kept = self._store.nodes(NodeQuery(ids=[node.node_id for node in exact]))
        else:
            kept = [node for type_ in types for node in self._store.nodes(NodeQuery(type=type_, name=name, newest=1))]
        if kept:
            return (max(kept, key=lambda node: node.last_seen).node_id,), ()
        return (exact[-1].node_id,), (exact[-1],)


def _ingestion(facts: _Facts) -> Step | None:
    source, dataset = facts.text("source_name"), facts.text("dataset_name")
    if not source:
        return None
    given = facts.get("source_version", "source_uri", "dataset_version", "content_hash", "columns")
    return steps.ingestion(
        facts.about(), source, dataset or source, records_count=facts.count("records"), guessed=not dataset, **given
    )


def _validation(facts: _Facts) -> Step | None:
    ids, made = facts.data()
    if not ids:
        return None
    given = facts.get("passed", "checks")
    if facts.event.type == "complete":
        given.setdefault("passed", True)
    name = facts.text("validation_name") or facts.event.name
    return steps.validation(facts.about(), ids[0], name, records_count=facts.count("records"), made=made, **given)


def _transformation(facts: _Facts) -> Step | None:
    (ids, made), output = facts.data(), facts.text("output_name")
    if not ids or not output:
        return None
    given = facts.get("output_version", "transformation", "parameters", "columns")
    return steps.transformation(facts.about(), ids, output, records_count=facts.count("records"), made=made, **given)


def _training(facts: _Facts) -> Step | None:
    (ids, made), model = facts.data(), facts.text("model_name")
    if not ids or not model:
        return None
    given = facts.get("model_version", "model_type", "parameters", "artifact_sha256", "artifact_uri")
    return steps.training(facts.about(), ids, model, metrics=dict(facts.event.metrics), made=made, **given)


def _deployment(facts: _Facts) -> Step | None:
    ids, made = facts.model()
    if not ids:
        return None
    environment = facts.text("environment") or "production"
    return steps.deployment(facts.about(), ids, environment, made=made, **facts.get("endpoint", "replicas"))


def _inference(facts: _Facts) -> Step | None:
    (model, model_made), batch = facts.server(), facts.text("batch")
    if not model or not batch:
        return None
    data, data_made = facts.data()
    return steps.inference(
        facts.about(),
        model,
        data,
        batch,
        predictions_count=facts.count("predictions"),
        prediction_ids=facts.ending.predictions,
        left_out=facts.ending.left_out,
        made=(*model_made, *data_made),
    )


_READERS: Final[Mapping[str, Callable[[_Facts], Step | None]]] = {
    "ingestion": _ingestion,
    "validation": _validation,
    "transformation": _transformation,
    "training": _training,
    "deployment": _deployment,
    "inference": _inference,
}
