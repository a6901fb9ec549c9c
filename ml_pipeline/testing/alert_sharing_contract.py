"""The contract of an alert store that several processes share, as tests: subclass it for a store of your own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeAlias

import pytest

from ml_pipeline.testing.alert_store_contract import record, said

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ml_pipeline.config._alert_store import AlertStore

__all__ = ["AlertSharingContract", "Opened"]

Opened: TypeAlias = Callable[[], "AlertStore"]
"""Opens the same data once more."""


class AlertSharingContract:
    """What an `AlertStore` must do that others have open too; subclass it and give the fixture ``opened``."""

    @pytest.fixture
    def opened(self, tmp_path: Path) -> Iterator[Opened]:
        """Return what opens the same data once more, empty at first."""
        raise NotImplementedError("a contract is held to a store: override the fixture `opened`")

    def test_the_cooldown_holds_across_openings(self, opened: Opened) -> None:
        """A restart or a second process starts no new cooldown and loses no count."""
        first = opened()
        _, alert_id = record(first, said(1000.0), "email")
        assert record(opened(), said(1001.0)) == ("suppressed", alert_id)
        assert first.find(limit=1)[0].held_back == 1

    def test_a_lease_holds_across_openings(self, opened: Opened) -> None:
        """What one has claimed, the other gets only when the lease has run out."""
        first, second = opened(), opened()
        record(first, said(1000.0), "email")
        assert first.claim(("email",), time=1000.0, lease_seconds=30.0) is not None
        assert second.claim(("email",), time=1001.0, lease_seconds=30.0) is None
        assert second.claim(("email",), time=1030.0, lease_seconds=30.0) is not None

    def test_two_openings_at_once_make_one_alert(self, opened: Opened) -> None:
        """The look and the write are one: two stores that race raise one alert."""
        stores = [opened() for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            outcomes = list(pool.map(lambda index: record(stores[index % 4], said())[0], range(100)))
        assert outcomes.count("raised") == 1

    def test_two_openings_claim_each_delivery_once(self, opened: Opened) -> None:
        """Four deliverers that race share a hundred deliveries without a double."""
        stores = [opened() for _ in range(4)]
        for index in range(50):
            record(stores[0], said(pipeline=f"p{index}"), "email")
        with ThreadPoolExecutor(4) as pool:
            claims = list(
                pool.map(lambda index: stores[index % 4].claim(("email",), time=1000.0, lease_seconds=9.0), range(100))
            )
        assert len({claim.delivery_id for claim in claims if claim}) == sum(claim is not None for claim in claims) == 50
