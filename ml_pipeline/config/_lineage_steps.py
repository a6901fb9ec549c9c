"""The six steps of a pipeline as lineage: what each makes, from what, and under which identity.

A ``track_*`` call and the end of an operation describe a step with the same functions, so both mean the same nodes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sized
from dataclasses import replace
from typing import Final

from ml_pipeline import _runtime
from ml_pipeline.config._events import LineageNode
from ml_pipeline.config._lineage_model import (
    BATCH,
    DATASET,
    DEPLOYMENT,
    FEATURES,
    MODEL,
    PREDICTION,
    SOURCE,
    VALIDATION,
    described,
    digest_of,
    known,
    name_of,
)
from ml_pipeline.config._lineage_step import About, Step
from ml_pipeline.errors import LineageError

__all__ = [
    "MOST_INPUTS",
    "MOST_PREDICTIONS",
    "deployment",
    "ids_of",
    "inference",
    "ingestion",
    "training",
    "transformation",
    "validation",
]

MOST_INPUTS: Final = 10_000
"""Inputs of one step."""
MOST_PREDICTIONS: Final = 10_000
"""Single predictions that are kept as nodes of their batch."""


def ingestion(
    about: About,
    source_name: object,
    dataset_name: object,
    *,
    source_version: object = "",
    source_uri: object = "",
    dataset_version: object = "",
    content_hash: object = "",
    records_count: object = None,
    columns: object = None,
    guessed: bool = False,
) -> Step:
    """Make a data set from a source; without a version, its content hash tells it from others of its name."""
    source = described(SOURCE, source_name, source_version, uri=source_uri)
    dataset = described(
        DATASET,
        dataset_name,
        name_of(dataset_version) or content_hash,
        records_count=records_count,
        columns=columns,
        content_hash=content_hash,
    )
    step = _step("ingestion", about, dataset, source.node_id, made=(source,), records_count=records_count)
    return replace(step, guessed=guessed)


def validation(
    about: About,
    data_id: object,
    name: object,
    *,
    passed: object = None,
    checks: object = None,
    records_count: object = None,
    made: tuple[LineageNode, ...] = (),
) -> Step:
    """Judge data; the verdict belongs to the data it was found on, so the data is part of its identity."""
    inputs = ids_of(data_id)
    verdict = described(VALIDATION, name, _subject(inputs), passed=passed, checks=checks)
    facts = {"passed": passed, "checks": checks, "records_count": records_count}
    return _step("validation", about, verdict, inputs, made=made, **facts)


def transformation(
    about: About,
    input_ids: object,
    output_name: object,
    *,
    output_version: object = "",
    transformation: object = "",
    parameters: object = None,
    records_count: object = None,
    columns: object = None,
    made: tuple[LineageNode, ...] = (),
) -> Step:
    """Make features from data."""
    features = described(FEATURES, output_name, output_version, records_count=records_count, columns=columns)
    facts = {"transformation": transformation, "parameters": parameters, "records_count": records_count}
    return _step("transformation", about, features, ids_of(input_ids), made=made, **facts)


def training(
    about: About,
    data_ids: object,
    model_name: object,
    *,
    model_version: object = "",
    model_type: object = "",
    metrics: object = None,
    parameters: object = None,
    artifact_sha256: object = "",
    artifact_uri: object = "",
    made: tuple[LineageNode, ...] = (),
) -> Step:
    """Make a model from data."""
    model = described(
        MODEL,
        model_name,
        model_version,
        model_type=model_type,
        metrics=metrics,
        artifact_sha256=artifact_sha256,
        artifact_uri=artifact_uri,
    )
    return _step("training", about, model, ids_of(data_ids), made=made, metrics=metrics, parameters=parameters)


def deployment(
    about: About,
    model_id: object,
    environment: object,
    *,
    endpoint: object = "",
    replicas: object = None,
    made: tuple[LineageNode, ...] = (),
) -> Step:
    """Put a model to work; one model in one environment is one deployment."""
    inputs = ids_of(model_id)
    placed = described(DEPLOYMENT, environment, _subject(inputs), endpoint=endpoint, replicas=replicas)
    return _step("deployment", about, placed, inputs, made=made)


def inference(
    about: About,
    model_id: object,
    data_id: object,
    batch_name: object,
    *,
    predictions_count: object = None,
    prediction_ids: object = None,
    left_out: int = 0,
    made: tuple[LineageNode, ...] = (),
) -> Step:
    """Make a batch of predictions by a model from data; one name is one batch of that model or deployment."""
    makers = ids_of(model_id)
    listed, beyond = _bounded(prediction_ids, MOST_PREDICTIONS)
    batch = described(
        BATCH,
        batch_name,
        _subject(makers),
        predictions_count=predictions_count,
        predictions_listed=len(listed) or None,
        predictions_left_out=left_out + beyond or None,
    )
    step = _step("inference", about, batch, (*makers, *ids_of(data_id)), made=made, predictions_count=predictions_count)
    within = digest_of(batch.node_id)
    return replace(step, parts=tuple(described(PREDICTION, name, within) for name in dict.fromkeys(listed)))


def ids_of(value: object) -> tuple[str, ...]:
    """Read the inputs of a step.

    Args:
        value: One id, one node, several of either, or None.

    Returns:
        The ids as given, `MOST_INPUTS` and one at most, so that too many can be told from just enough.
    """
    return tuple(_bounded(value, MOST_INPUTS + 1)[0])


def _bounded(value: object, most: int) -> tuple[list[str], int]:
    """Return the first texts of *value*, and how many more it is known to have."""
    if value is None:
        return [], 0
    several = isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping))
    read, broken = _runtime.attempt(_first, value if several else (value,), most)
    if read is None or broken is not None:  # an iterable that raises: its text is all that can be kept of it
        return [name_of(value)], 0
    items, left_out = read
    names = [item.node_id if isinstance(item, LineageNode) else name_of(item) for item in items]
    return [name for name in names if name], left_out


def _first(items: Iterable[object], most: int) -> tuple[list[object], int]:
    first = list(itertools.islice(items, most))
    return first, max(len(items) - most, 0) if isinstance(items, Sized) else 0


def _subject(inputs: tuple[str, ...]) -> str:
    return digest_of(inputs[0]) if inputs else ""


def _step(
    kind: str,
    about: About,
    target: LineageNode,
    inputs: str | tuple[str, ...],
    *,
    made: tuple[LineageNode, ...] = (),
    **facts: object,
) -> Step:
    given = (inputs,) if isinstance(inputs, str) else inputs
    taken = tuple(dict.fromkeys(given[:MOST_INPUTS]))
    told = known({**facts, **about.attributes})
    status = name_of(about.status)
    nodes = (*made, target)
    if not taken:  # no edge to keep the facts on
        target = replace(target, attributes={**target.attributes, **told})
    return Step(
        kind=kind,
        origin=about.origin,
        target=target,
        inputs=taken,
        made=made,
        status="complete" if status == "complete" else "failed",
        facts=told,
        problems=tuple(_problems(kind, status, given, taken, nodes)),
    )


def _problems(
    kind: str, status: str, given: tuple[str, ...], taken: tuple[str, ...], nodes: Iterable[LineageNode]
) -> Iterable[LineageError]:
    for node in nodes:
        if not node.name:
            yield LineageError(f"a lineage node of type {node.type} must have a name", node.name, "name it")
    if not taken:
        yield LineageError(
            f"a step of kind {kind} must have an input", given, "pass the id that a track_* call returned"
        )
    if len(given) > MOST_INPUTS:
        yield LineageError(f"a step may have at most {MOST_INPUTS:,} inputs", f"{len(given)} or more", "group them")
    if status not in ("complete", "failed"):
        yield LineageError("the status of a step must be 'complete' or 'failed'", status, "it is kept as failed")
