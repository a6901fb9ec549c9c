"""The log channels: which record lies in which file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ml_pipeline.errors import UnknownChannelError, closest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CHANNELS", "ROOT", "Channel", "LoggerNames", "channel_path"]

ROOT: Final = "ml_pipeline"
"""The logger at the top, and the channel of every record that has no other."""

AUDIT: Final = "audit"
ERRORS: Final = "errors"
_OPEN_ENDED: Final = "airflow"
_MOST_NAMES: Final = 10_000
_DAG_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")


@dataclass(frozen=True, slots=True)
class Channel:
    """One log file.

    Attributes:
        key: What `get_logger` takes: the path with dots and without ``.log``.
        holds: What lies in it, in a few words.
    """

    key: str
    holds: str

    @property
    def path(self) -> str:
        """The file below the log directory."""
        return self.key.replace(".", "/") + ".log"


CHANNELS: Final[Mapping[str, Channel]] = MappingProxyType(
    {
        key: Channel(key, holds)
        for key, holds in (
            (ROOT, "the main logger, operations, and every logger without a channel"),
            (AUDIT, "the audit trail: JSON, hash-chained, whatever the format setting"),
            (ERRORS, "ERROR and up of every channel, with the full traceback"),
            ("training.model_training", "training: sizes, epochs, scores, saved models"),
            ("training.hyperparameter_tuning", "searches over hyperparameters"),
            ("training.data_preprocessing", "feature extraction and preprocessing"),
            ("inference.predictions", "single predictions"),
            ("inference.batch_predictions", "batches of predictions"),
            ("inference.model_loading", "models loaded for serving"),
            ("inference.api_requests", "requests to the prediction service"),
            ("pipeline.sklearn_pipeline", "steps of the scikit-learn pipeline"),
            ("pipeline.spark_pipeline", "steps of the Spark pipeline"),
            ("pipeline.data_quality", "data quality checks"),
            ("monitoring.model_performance", "realised and estimated model performance"),
            ("monitoring.data_drift", "drift verdicts"),
            ("monitoring.system_metrics", "resource samples"),
            ("monitoring.monitoring", "the monitoring itself"),
        )
    }
)
"""Every channel but the open-ended ``airflow.<dag_id>``, by key."""


def channel_path(key: str) -> str:
    """Return the file of a channel, below the log directory.

    Args:
        key: A key of `CHANNELS`, or ``airflow.<dag_id>``.

    Returns:
        The path with forward slashes.

    Raises:
        UnknownChannelError: If there is no such channel.
    """
    if key in CHANNELS:
        return CHANNELS[key].path
    head, _, dag_id = key.partition(".")
    if head == _OPEN_ENDED and dag_id:
        if _DAG_ID.fullmatch(dag_id) and ".." not in dag_id:
            return f"{_OPEN_ENDED}/{dag_id}.log"
        raise UnknownChannelError(
            "a DAG id in a channel must be up to 200 letters, digits, '_', '-' and single dots", dag_id, "rename it"
        )
    raise UnknownChannelError("a log channel must be in the channel table", key, closest(key, CHANNELS))


class LoggerNames:
    """Tells, for the name of a logger, its channel and the name shown on the line.

    Loggers are named ``ml_pipeline.<channel>.<name>``; both parts may hold dots, so what `get_logger` made is
    remembered, and only the names of other loggers are taken apart.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[str, str]] = {ROOT: (ROOT, ROOT)}

    def register(self, channel: str, shown: str) -> str:
        """Return the logger's name for a channel and a shown name, and remember both."""
        base = ROOT if channel == ROOT else f"{ROOT}.{channel}"
        name = base if shown == ROOT and channel == ROOT else f"{base}.{shown}"
        self._known[name] = (channel, shown)
        return name

    def resolve(self, logger: str) -> tuple[str, str]:
        """Return (channel, shown name) for a logger's name."""
        known = self._known.get(logger)
        return known if known is not None else self._taken_apart(logger)

    def _taken_apart(self, logger: str) -> tuple[str, str]:
        below = logger.removeprefix(ROOT + ".")
        parts = below.split(".")
        found = (ROOT, below)
        named = ".".join(parts[:2]) in CHANNELS or (
            parts[0] == _OPEN_ENDED and _DAG_ID.fullmatch(below[len(_OPEN_ENDED) + 1 :])
        )
        if len(parts) > 1 and named:
            found = (".".join(parts[:2]), ".".join(parts[2:]) or parts[1])
        if len(self._known) < _MOST_NAMES:
            self._known[logger] = found
        return found
