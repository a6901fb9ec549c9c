"""What the tests of monitoring sample from and publish to."""

from __future__ import annotations

from ml_pipeline.config._events import Event, ResourceSample
from ml_pipeline.config._resource_sources import Space


class Published:
    """Keeps what was published."""

    def __init__(self) -> None:
        self.samples: list[ResourceSample] = []

    def __call__(self, event: Event) -> None:
        """Take a sample, as the bus would."""
        assert isinstance(event, ResourceSample)
        self.samples.append(event)


class FakeSource:
    """A machine with 100 bytes of memory, of which as many are free as a test says."""

    def __init__(self) -> None:
        self.free = 50
        self.error: Exception | None = None

    def resident_bytes(self) -> int:
        """Return a constant, or fail as told."""
        if self.error:
            raise self.error
        return 40

    def io_bytes(self) -> tuple[int, int]:
        """Return constants."""
        return 3, 4

    def machine_memory(self) -> Space:
        """Return what the test said."""
        return Space(self.free, 100)
