"""The alert store in PostgreSQL keeps every promise of the one in SQLite, and stays usable whatever the server does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ml_pipeline.config._alert_postgres import PostgresAlertStore
from ml_pipeline.config._alert_store import AlertStore
from ml_pipeline.testing.alert_fallback_contract import AlertFallbackContract
from ml_pipeline.testing.alert_outbox_contract import AlertOutboxContract
from ml_pipeline.testing.alert_sharing_contract import AlertSharingContract, Opened
from ml_pipeline.testing.alert_store_contract import AlertStoreContract
from ml_pipeline.testing.alert_upkeep_contract import AlertUpkeepContract
from tests.postgres import PostgresServer, running_server

psycopg = pytest.importorskip("psycopg")


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A server of these tests' own."""
    with running_server() as server:
        yield server


@pytest.fixture
def url(server: PostgresServer) -> str:
    """Where a database without a store is."""
    return server.empty()


@pytest.fixture
def opened(server: PostgresServer, url: str) -> Iterator[Opened]:
    """What opens the store in that database once more."""
    stores: list[PostgresAlertStore] = []

    def another() -> PostgresAlertStore:
        stores.append(PostgresAlertStore(url, server.password_file))
        return stores[-1]

    yield another
    for store in stores:
        store.close()


class TestInPostgres(
    AlertStoreContract, AlertOutboxContract, AlertFallbackContract, AlertUpkeepContract, AlertSharingContract
):
    """The store in PostgreSQL."""

    refusal = psycopg.IntegrityError

    @pytest.fixture
    def opened(self, opened: Opened) -> Opened:
        """Return what opens the same database once more."""
        return opened

    @pytest.fixture
    def store(self, opened: Opened) -> AlertStore:
        """Return an empty store."""
        return opened()
