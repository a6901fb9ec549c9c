"""The channel table: every key, its file, and which channel a logger's name means."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml_pipeline.config._channels import CHANNELS, Channel, LoggerNames, channel_path
from ml_pipeline.errors import UnknownChannelError

FILES = {
    "ml_pipeline": "ml_pipeline.log",
    "audit": "audit.log",
    "errors": "errors.log",
    "training.model_training": "training/model_training.log",
    "training.hyperparameter_tuning": "training/hyperparameter_tuning.log",
    "training.data_preprocessing": "training/data_preprocessing.log",
    "inference.predictions": "inference/predictions.log",
    "inference.batch_predictions": "inference/batch_predictions.log",
    "inference.model_loading": "inference/model_loading.log",
    "inference.api_requests": "inference/api_requests.log",
    "pipeline.sklearn_pipeline": "pipeline/sklearn_pipeline.log",
    "pipeline.spark_pipeline": "pipeline/spark_pipeline.log",
    "pipeline.data_quality": "pipeline/data_quality.log",
    "monitoring.model_performance": "monitoring/model_performance.log",
    "monitoring.data_drift": "monitoring/data_drift.log",
    "monitoring.system_metrics": "monitoring/system_metrics.log",
    "monitoring.monitoring": "monitoring/monitoring.log",
}

names = st.sampled_from(["a", "b.c", "audit", "dag", "my.dag", "training.model_training", "model_training", "x.y.z"])
channels = st.sampled_from([*CHANNELS, "airflow.my", "airflow.my.dag", "airflow.my.dag.daily"])


def test_every_channel_has_its_file() -> None:
    """The table holds the promised channels, each in its file, and nothing else."""
    assert {key: channel_path(key) for key in CHANNELS} == FILES
    assert all(CHANNELS[key] == Channel(key, CHANNELS[key].holds) and CHANNELS[key].holds for key in CHANNELS)


def test_airflow_is_open_ended() -> None:
    """Each DAG has a file of its own, whatever its id, within Airflow's own rules for ids."""
    assert channel_path("airflow.daily_etl") == "airflow/daily_etl.log"
    assert channel_path("airflow.etl.v1-2") == "airflow/etl.v1-2.log"
    assert channel_path("airflow." + "x" * 200) == f"airflow/{'x' * 200}.log"


@pytest.mark.parametrize(
    "dag_id", ["../../etc/passwd", "a/b", "..", ".hidden", "a..b", "a\\b", "a\nb", "a\x00b", "x" * 201, "ü", " ", "-a"]
)
def test_a_dag_id_cannot_leave_the_folder(dag_id: str) -> None:
    """What could be a path, a hidden file or a line break is refused, with the rule."""
    with pytest.raises(UnknownChannelError) as caught:
        channel_path(f"airflow.{dag_id}")
    assert str(caught.value).startswith(
        "a DAG id in a channel must be up to 200 letters, digits, '_', '-' and single dots (got "
    )
    assert str(caught.value).endswith("; rename it")


@settings(deadline=None)
@given(st.text())
def test_no_key_names_a_file_outside(key: str) -> None:
    """Any text is a channel with a file below the log directory, or an error."""
    try:
        path = PurePosixPath(channel_path(key))
    except UnknownChannelError:
        return
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert len(path.parts) <= 2


def test_an_unknown_channel_names_the_closest() -> None:
    """A misspelt key is told with what was probably meant; a hopeless one with all there are."""
    with pytest.raises(UnknownChannelError) as caught:
        channel_path("training.model_trainin")
    assert str(caught.value) == (
        "a log channel must be in the channel table (got 'training.model_trainin'); "
        "did you mean 'training.model_training'?"
    )
    with pytest.raises(UnknownChannelError, match=r"known: audit, errors, inference\.api_requests"):
        channel_path("zzz")
    with pytest.raises(UnknownChannelError, match="must be in the channel table"):
        channel_path(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("logger", "meaning"),
    [
        ("ml_pipeline", ("ml_pipeline", "ml_pipeline")),
        ("ml_pipeline.x", ("ml_pipeline", "x")),
        ("ml_pipeline.x.y", ("ml_pipeline", "x.y")),
        ("ml_pipeline.training", ("ml_pipeline", "training")),
        ("ml_pipeline.training.model_training", ("training.model_training", "model_training")),
        ("ml_pipeline.training.model_training.a.b", ("training.model_training", "a.b")),
        ("ml_pipeline.airflow", ("ml_pipeline", "airflow")),
        ("ml_pipeline.airflow.etl", ("airflow.etl", "etl")),
        ("ml_pipeline.airflow.etl.task", ("airflow.etl", "task")),
        ("ml_pipeline.airflow...etc", ("ml_pipeline", "airflow...etc")),
        ("ml_pipeline.airflow.a b", ("ml_pipeline", "airflow.a b")),
        ("ml_pipeline.audit.x", ("audit", "audit.x")),
        ("ml_pipeline.errors.x", ("errors", "x")),
        ("airflow.task", ("ml_pipeline", "airflow.task")),
        ("training.model_training", ("ml_pipeline", "training.model_training")),
    ],
)
def test_a_plain_loggers_name_says_its_channel(logger: str, meaning: tuple[str, str]) -> None:
    """A logger that `get_logger` did not make is routed by its name; other libraries' names mean nothing here."""
    assert LoggerNames().resolve(logger) == meaning


def test_children_follow_their_parent() -> None:
    """A child of a DAG whose id has dots writes to that DAG's file, not to one named after the first part."""
    known = LoggerNames()
    name = known.register("airflow.my.dag", "task")
    assert known.resolve(f"{name}.child") == ("airflow.my.dag", "task.child")


def test_a_name_seen_before_its_registration_is_not_remembered_wrongly() -> None:
    """A record of a plain logger does not fix the meaning of a name that `get_logger` makes later."""
    known = LoggerNames()
    assert known.resolve("ml_pipeline.airflow.my.dag.task") == ("airflow.my", "dag.task")
    name = known.register("airflow.my.dag", "task")
    assert known.resolve(name) == ("airflow.my.dag", "task")


@settings(deadline=None)
@given(st.lists(st.tuples(channels, names), max_size=12))
def test_two_channels_never_share_a_logger(asked: list[tuple[str, str]]) -> None:
    """Whatever is asked for in whatever order, each pair has one name of its own, and its records their channel."""
    known = LoggerNames()
    made = {pair: known.register(*pair) for pair in asked}
    assert len(set(made.values())) == len(made)
    assert all(known.resolve(name) == pair for pair, name in made.items())
    assert all(known.register(*pair) == name for pair, name in made.items())
    assert all(pair[0] == "audit" or not name.startswith("ml_pipeline.audit") for pair, name in made.items())


def test_what_is_remembered_of_plain_loggers_is_bounded() -> None:
    """A program that makes a logger for each request does not fill the memory by it."""
    known = LoggerNames()
    for number in range(10_100):
        assert known.resolve(f"ml_pipeline.request_{number}") == ("ml_pipeline", f"request_{number}")
    assert len(known._derived) == 10_000
