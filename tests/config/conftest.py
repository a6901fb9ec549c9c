"""What the tests of this folder share: a Grafana, a session with it, and the steps done in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ml_pipeline.config._grafana_access import GrafanaAccess
from ml_pipeline.config._grafana_client import GrafanaClient
from ml_pipeline.config._grafana_steps import Steps
from tests.config.grafana_fake import PASSWORD, GrafanaFake, running_grafana


@pytest.fixture
def grafana() -> Iterator[GrafanaFake]:
    """A running Grafana, empty."""
    with running_grafana() as fake:
        yield fake


@pytest.fixture
def client(grafana: GrafanaFake) -> Iterator[GrafanaClient]:
    """A session with it."""
    session = GrafanaClient(GrafanaAccess(grafana.url, password=PASSWORD))
    yield session
    session.close()


@pytest.fixture
def steps(client: GrafanaClient) -> Steps:
    """The steps, for real."""
    return Steps(client)


@pytest.fixture
def dry(client: GrafanaClient) -> Steps:
    """The steps, without writing."""
    return Steps(client, dry_run=True)
