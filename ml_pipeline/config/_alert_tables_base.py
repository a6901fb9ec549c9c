"""What the parts of an alert store share: the database as they see it, and alerts as rows of its tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

import orjson

from ml_pipeline.config._alert_records import Alert
from ml_pipeline.config._encoding import encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from contextlib import AbstractContextManager

__all__ = ["COLUMNS", "FALLBACK_SECONDS", "Database", "Row", "Tables", "alert_of", "as_json", "values_of"]

FALLBACK_SECONDS: Final = 60.0

COLUMNS: Final = tuple(Alert.__dataclass_fields__)
"""The columns of the table ``alerts`` that are fields of an `Alert`."""


class Row(Protocol):
    """A row, by the names of its columns."""

    def __getitem__(self, name: str, /) -> Any:
        """Return the value of a column."""
        ...

    def keys(self) -> Iterable[str]:
        """Return the names of the columns."""
        ...


class Database(Protocol):
    """Runs the store's statements, whose dialect is SQLite's as far as PostgreSQL can be told the same.

    Thread-safe. Named parameters alone (``:name``): texts, numbers, truth values as 0 and 1, and None. A statement
    outside a transaction is one by itself. What an engine raises goes on, and nothing is changed then.
    """

    @property
    def lock(self) -> AbstractContextManager[object]:
        """Held by one thread at a time; a thread may take it again."""
        ...

    def rows(self, statement: str, given: Mapping[str, Any] = ..., /) -> list[Row]:
        """Run a statement and return what it finds."""
        ...

    def execute(self, statement: str, given: Mapping[str, Any] = ..., /) -> int:
        """Run a statement and return how many rows it changed."""
        ...

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[None]:
        """Have what the block does happen whole or not at all, with nobody else writing meanwhile.

        Args:
            durable: Whether it survives a power cut once the block is left, not only the end of the process.
        """
        ...

    def close(self) -> None:
        """Give back what is open."""
        ...


class Tables:
    """The tables of a store in one database. Thread-safe.

    Args:
        database: Where they are.
        fallback_seconds: How long the other channels wait for Alertmanager to take an alert.
    """

    def __init__(self, database: Database, *, fallback_seconds: float = FALLBACK_SECONDS) -> None:
        self._database = database
        self._fallback_seconds = fallback_seconds

    @property
    def database(self) -> Database:
        """Where the tables are."""
        return self._database

    def close(self) -> None:
        """See `AlertStore.close`."""
        self._database.close()


def as_json(texts: Iterable[str]) -> str:
    """Write texts as the JSON array that ``json_each`` reads."""
    return orjson.dumps(list(texts)).decode()


def values_of(alert: Alert) -> dict[str, Any]:
    """Return an alert's values by column."""
    values = {name: getattr(alert, name) for name in COLUMNS}
    return values | {
        "details": encode(dict(alert.details)).decode(),
        "labels": encode(dict(alert.labels)).decode(),
        "rule": alert.rule,
    }


def alert_of(row: Row) -> Alert:
    """Return the alert that a row of the table ``alerts`` holds."""
    values = {name: row[name] for name in COLUMNS}
    return Alert(
        **values
        | {
            "details": orjson.loads(row["details"]),
            "labels": orjson.loads(row["labels"]),
            "escalated": bool(row["escalated"]),
        }
    )
