"""The end of an operation as a step of lineage, read from the facts that the operation was given.

The facts are those that `operation_logger` names: ``source_name``, ``dataset_name``, ``dataset_version``,
``model_name``, ``model_version``, ``output_name``, ``environment``, ``batch``; or, where the code knows them, the ids
of nodes: ``input_ids``, ``data_ids``, ``data_id``, ``model_id``. An operation that does not say enough records nothing.

Data are often named with a version that is somebody else's, such as the feature store's. Where nothing is kept under
it, the latest data of that name are meant, so that a model's history is not cut; the version asked for stays on the
edge.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config import _lineage_steps as steps
from ml_pipeline.config._events import EMPTY
from ml_pipeline.config._lineage_model import DATASET, DEPLOYMENT, FEATURES, MODEL, described, digest_of, name_of
from ml_pipeline.config._lineage_step import About, Origin, Step
from ml_pipeline.config._lineage_store import LineageStore, NodeQuery

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ml_pipeline.config._events import LineageNode, OperationEvent
    from ml_pipeline.config._lineage_model import NodeRecord

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


@dataclass(frozen=True, slots=True)
class _Named:
    """What an operation names as its input.

    Attributes:
        ids: Its nodes.
        made: Those of them that are not kept yet.
        asked: The version that was asked for, by its key, where another stands in for it.
    """

    ids: tuple[str, ...] = ()
    made: tuple[LineageNode, ...] = ()
    asked: Mapping[str, str] = field(default_factory=lambda: EMPTY)


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

    def about(self, data: _Named | None = None) -> About:
        about = about_of(self.ending)
        return about if data is None else replace(about, attributes={**about.attributes, **data.asked})

    def data(self) -> _Named:
        """Return the data that went in."""
        ids = [
            node_id
            for key in ("input_ids", "data_ids", "data_id")
            for node_id in steps.ids_of(self.attributes.get(key))
        ]
        if ids:
            return _Named(tuple(ids))
        types = (FEATURES, DATASET)
        named, version = self._named("dataset_name", "dataset_version", types), self.text("dataset_version")
        if not named.made or not version:
            return named
        name = self.text("dataset_name")
        other = self._latest(name, types, self.event.run_id) or self._latest(name, types)
        return _Named((other,), asked={"dataset_version": version}) if other else named

    def model(self) -> _Named:
        """Return the model that was used; a version nobody recorded is a model of its own, never another's."""
        ids = steps.ids_of(self.attributes.get("model_id"))
        return _Named(ids) if ids else self._named("model_name", "model_version", (MODEL,))

    def server(self) -> _Named:
        """Return what predicted: the model's deployment in the environment named, if it is kept, or the model."""
        model, environment = self.model(), self.text("environment")
        if model.ids and environment:
            placed = described(DEPLOYMENT, environment, digest_of(model.ids[0]))
            if self._store.nodes(NodeQuery(ids=(placed.node_id,))):
                return _Named((placed.node_id,))
        return model

    def _named(self, name_key: str, version_key: str, types: tuple[str, ...]) -> _Named:
        name, version = self.text(name_key), self.text(version_key)
        if not name:
            return _Named()
        exact = [described(node_type, name, version) for node_type in types]
        if version:
            kept = _seen_last(self._store.nodes(NodeQuery(ids=[node.node_id for node in exact])))
        else:
            kept = self._latest(name, types)
        return _Named((kept,)) if kept else _Named((exact[-1].node_id,), (exact[-1],))

    def _latest(self, name: str, types: tuple[str, ...], run_id: str | None = None) -> str:
        queries = [NodeQuery(type=type_, name=name, run_id=run_id, newest=1) for type_ in types]
        return _seen_last([node for query in queries for node in self._store.nodes(query)])


def _seen_last(nodes: Sequence[NodeRecord]) -> str:
    return max(nodes, key=lambda node: node.last_seen).node_id if nodes else ""


def _ingestion(facts: _Facts) -> Step | None:
    source, dataset = facts.text("source_name"), facts.text("dataset_name")
    if not source:
        return None
    given = facts.get("source_version", "source_uri", "dataset_version", "content_hash", "columns")
    return steps.ingestion(
        facts.about(), source, dataset or source, records_count=facts.count("records"), guessed=not dataset, **given
    )


def _validation(facts: _Facts) -> Step | None:
    data = facts.data()
    if not data.ids:
        return None
    given = facts.get("passed", "checks")
    checks = given.get("checks")
    if isinstance(checks, dict) and checks:  # without any, it is not known whether the data passed
        passed = all(checks.values())
        if facts.event.type == "complete" or not passed:  # an end before the last check leaves the others open
            given.setdefault("passed", passed)
    name, records = facts.text("validation_name") or facts.event.name, facts.count("records")
    return steps.validation(facts.about(data), data.ids[0], name, records_count=records, made=data.made, **given)


def _transformation(facts: _Facts) -> Step | None:
    data, output = facts.data(), facts.text("output_name")
    if not data.ids or not output:
        return None
    given = facts.get("output_version", "transformation", "parameters", "columns")
    records = facts.count("records")
    return steps.transformation(facts.about(data), data.ids, output, records_count=records, made=data.made, **given)


def _training(facts: _Facts) -> Step | None:
    data, model = facts.data(), facts.text("model_name")
    if not data.ids or not model:
        return None
    given = facts.get("model_version", "model_type", "parameters", "artifact_sha256", "artifact_uri")
    metrics = dict(facts.event.metrics)
    return steps.training(facts.about(data), data.ids, model, metrics=metrics, made=data.made, **given)


def _deployment(facts: _Facts) -> Step | None:
    model = facts.model()
    if not model.ids:
        return None
    environment = facts.text("environment") or "production"
    given = facts.get("endpoint", "replicas")
    return steps.deployment(facts.about(), model.ids, environment, made=model.made, **given)


def _inference(facts: _Facts) -> Step | None:
    server, batch = facts.server(), facts.text("batch")
    if not server.ids or not batch:
        return None
    data = facts.data()
    return steps.inference(
        facts.about(data),
        server.ids,
        data.ids,
        batch,
        predictions_count=facts.count("predictions"),
        prediction_ids=facts.ending.predictions,
        left_out=facts.ending.left_out,
        made=(*server.made, *data.made),
    )


_READERS: Final[Mapping[str, Callable[[_Facts], Step | None]]] = {
    "ingestion": _ingestion,
    "validation": _validation,
    "transformation": _transformation,
    "training": _training,
    "deployment": _deployment,
    "inference": _inference,
}
