"""The log channels: which record lies in which file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ml_pipeline.errors import UnknownChannelError, closest

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CHANNELS", "OPEN_ENDED", "ROOT", "Channel", "LoggerNames", "channel_path"]

ROOT: Final = "ml_pipeline"
"""The logger at the top, and the channel of every record that has no other."""

AUDIT: Final = "audit"
ERRORS: Final = "errors"
OPEN_ENDED: Final = "airflow"
"""The folder, and the beginning of a key, with one file a DAG."""
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
    key = str(key)
    if key in CHANNELS:
        return CHANNELS[key].path
    head, _, dag_id = key.partition(".")
    if head == OPEN_ENDED and dag_id:
        if _DAG_ID.fullmatch(dag_id) and ".." not in dag_id:
            return f"{OPEN_ENDED}/{dag_id}.log"
        raise UnknownChannelError(
            "a DAG id in a channel must be up to 200 letters, digits, '_', '-' and single dots", dag_id, "rename it"
        )
    raise UnknownChannelError("a log channel must be in the channel table", key, closest(key, CHANNELS))


class LoggerNames:
    """Tells, for the name of a logger, its channel and the name shown on the line.

    Loggers are named ``ml_pipeline.<channel>.<name>``. Both parts may hold dots, so a name alone can be ambiguous: what
    `get_logger` made is remembered, its children follow it, and only the names of other loggers are taken apart.
    """

    def __init__(self) -> None:
        self._registered: dict[str, tuple[str, str]] = {ROOT: (ROOT, ROOT), f"{ROOT}.{AUDIT}": (AUDIT, AUDIT)}
        self._derived: dict[str, tuple[str, str]] = {}

    def register(self, channel: str, shown: str) -> str:
        """Return the logger's name for a channel and a shown name, and remember both."""
        name = ROOT if channel == ROOT else f"{ROOT}.{channel}"
        if (channel, shown) != (ROOT, ROOT):
            name = f"{name}.{shown}"
        while self._registered.get(name) != (channel, shown):
            if self._is_free(name, channel):
                self._registered[name] = (channel, shown)
                self._derived.clear()
            else:  # it belongs to another channel, as the name of a module called "audit" would
                name = f"{ROOT}.{name}"
        return name

    def resolve(self, logger: str) -> tuple[str, str]:
        """Return (channel, shown name) for a logger's name."""
        known = self._registered.get(logger) or self._derived.get(logger)
        return known if known is not None else self._derive(logger)

    def _is_free(self, name: str, channel: str) -> bool:
        return name not in self._registered and (channel != ROOT or self.resolve(name)[0] == ROOT)

    def _derive(self, logger: str) -> tuple[str, str]:
        if logger.startswith(ROOT + "."):
            found = self._below_registered(logger) or _taken_apart(logger.removeprefix(ROOT + "."))
        else:  # another library's: `airflow.task` is no channel of ours
            found = (ROOT, logger)
        if len(self._derived) < _MOST_NAMES:
            self._derived[logger] = found
        return found

    def _below_registered(self, logger: str) -> tuple[str, str] | None:
        parent, dot, rest = logger.rpartition(".")
        while dot and parent != ROOT:
            if parent in self._registered:
                channel, shown = self._registered[parent]
                return channel, f"{shown}.{rest}"
            parent, dot, part = parent.rpartition(".")
            rest = f"{part}.{rest}"
        return None


def _taken_apart(below: str) -> tuple[str, str]:
    first, _, rest = below.partition(".")
    second, _, shown = rest.partition(".")
    channel = f"{first}.{second}"
    if channel in CHANNELS or (first == OPEN_ENDED and _DAG_ID.fullmatch(second)):
        return channel, shown or second
    if first in CHANNELS and first != ROOT:
        return first, rest or first
    return ROOT, below
