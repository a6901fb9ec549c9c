"""Observability for machine-learning pipelines: logs, metrics, alerts and lineage from one import.

Importing this package opens no file, thread or socket and pulls in no numeric library; the modules below
`ml_pipeline.config` do the work when they are first used::

    from ml_pipeline.config.operation_logger import operation_logger

    with operation_logger.operation("training", name="fit"):
        ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_pipeline._runtime import configure, override, reset
from ml_pipeline.errors import (
    AlertError,
    DashboardError,
    DeliveryError,
    DriftInputError,
    InputDataError,
    LineageError,
    MLPipelineError,
    OperationStateError,
    SettingsError,
    StoreError,
    UnknownChannelError,
)

if TYPE_CHECKING:
    from ml_pipeline.settings import Settings

__version__ = "0.1.0"

__all__ = [
    "AlertError",
    "DashboardError",
    "DeliveryError",
    "DriftInputError",
    "InputDataError",
    "LineageError",
    "MLPipelineError",
    "OperationStateError",
    "Settings",
    "SettingsError",
    "StoreError",
    "UnknownChannelError",
    "__version__",
    "configure",
    "override",
    "reset",
]


def __getattr__(name: str) -> object:
    # pydantic-settings costs 150 ms: paid by whoever asks for the class, not by every import of the package.
    if name == "Settings":
        from ml_pipeline.settings import Settings

        return Settings
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
