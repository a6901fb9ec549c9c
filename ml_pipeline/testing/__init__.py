"""For tests of your own pipeline: what it says is caught, nothing reaches your logs, and time is yours.

With pytest, in a ``conftest.py``::

    pytest_plugins = ["ml_pipeline.testing.fixtures"]

and then::

    def test_ingestion_failure_raises_one_alert(captured_alerts):
        with pytest.raises(TimeoutError):
            ingest("a source that never answers")
        assert [alert.kind for alert in captured_alerts] == ["processing_failure"]

A store or a channel of your own is held to the promises of ours by a subclass of `LineageStoreContract`,
`AlertStoreContract` or `AlertChannelContract`, in ``ml_pipeline.testing.lineage_store_contract``,
``…alert_store_contract`` and ``…alert_channel_contract``, that overrides the fixture ``store`` or ``receiver``.

Without pytest, `isolated` and `CapturedEvents` are context managers.
"""

from __future__ import annotations

from ml_pipeline.config._events import AlertEvent, AuditEvent, DriftEvent, LineageEvent, OperationEvent, ResourceSample
from ml_pipeline.config._lineage_store import MemoryLineageStore
from ml_pipeline.testing.fakes import CapturedEvents, FakeClock, isolated

__all__ = [
    "AlertEvent",
    "AuditEvent",
    "CapturedEvents",
    "DriftEvent",
    "FakeClock",
    "LineageEvent",
    "MemoryLineageStore",
    "OperationEvent",
    "ResourceSample",
    "isolated",
]
