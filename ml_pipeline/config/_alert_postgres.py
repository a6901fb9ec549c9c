"""The alert store and outbox in PostgreSQL, which the processes of several hosts may use."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import threading
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, cast

from ml_pipeline.config import _alert_postgres_dialect as _dialect
from ml_pipeline.config._alert_tables import AlertTables
from ml_pipeline.config._alert_tables_base import FALLBACK_SECONDS
from ml_pipeline.config._worker import Worker
from ml_pipeline.errors import StoreError, without_credentials

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import psycopg

    from ml_pipeline.config._alert_tables_base import Row

__all__ = ["SCHEMA", "TIMEOUT_SECONDS", "PostgresAlertStore", "PostgresDatabase"]

SCHEMA: Final = "ml_pipeline"
"""The schema of the tables, so that a database may have others of the same names."""

TIMEOUT_SECONDS: Final = 5.0
"""The longest wait for the server, by itself and by us; of a lock, too, and of a process that holds one and is slow."""

_PAUSE_SECONDS: Final = 1.0
"""For how long nobody else tries what has just failed, of those who waited for their turn."""

_SHORTEST_SECONDS: Final = 0.1

_SERVERS_SHARE: Final = 0.8
"""Of the limit, after which the server itself gives up: that says more than a line that was cut."""

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
_ONE_WRITER: Final = 7_020_115_190_201
"""Key of the advisory lock that whoever writes holds until the end of the transaction, as in SQLite: what the store
looks at is then what it changes. It is one of this database alone, and no other program's, with any luck."""

_ADDRESS: Final = "correct ML_PIPELINE_DATABASE_URL, or see to the server"
_DRIVER: Final = 'pip install "ml-pipeline-observability[postgres]"'
_SESSION: Final = f"""
SET search_path TO {SCHEMA};
SET statement_timeout = '{{milliseconds}}ms';
SET lock_timeout = '{{milliseconds}}ms';
SET idle_in_transaction_session_timeout = '{{milliseconds}}ms';
"""
_BEGIN: Final = f"BEGIN; SELECT pg_advisory_xact_lock({_ONE_WRITER})"
_PRESENT: Final = f"""
SELECT nspname AS name FROM pg_namespace WHERE nspname = '{SCHEMA}'
UNION ALL SELECT indexname FROM pg_indexes WHERE schemaname = '{SCHEMA}'
UNION ALL SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = '{SCHEMA}'
"""  # noqa: S608 - constants


class PostgresDatabase:
    """The tables in one PostgreSQL database; a `Database`. Thread-safe, over one connection of this process.

    The connection is opened at the first use, and again where it broke or the process was forked. No connecting and no
    statement takes longer than the limit, and no transaction longer than twice that, whatever the server, or the
    network before it, does meanwhile; for a second after that, every use fails at once.

    Args:
        url: Such as ``postgresql://ml_pipeline@db.example.org/ml_pipeline``; what libpq knows may stand in its query.
        password_file: File with the password; None where the server asks for none, or libpq finds it.
        timeout_seconds: The longest wait for the server.

    Raises:
        StoreError: From each use, if the database cannot be reached or used.
    """

    _waits_since: float | None
    _works_since: float | None

    def __init__(
        self, url: str, password_file: Path | None = None, *, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> None:
        self._url = url
        self._password_file = password_file
        self._timeout_seconds = timeout_seconds
        self._inherited: list[object] = []
        self._begin()

    @property
    def lock(self) -> threading.RLock:
        """See `Database.lock`."""
        self._leave_parent()
        return self._lock

    def rows(self, statement: str, given: Mapping[str, Any] = _NOTHING, /) -> list[Row]:
        """See `Database.rows`."""
        with self._use():
            cursor = self._run(statement, given)
            return cast("list[Row]", cursor.fetchall())

    def execute(self, statement: str, given: Mapping[str, Any] = _NOTHING, /) -> int:
        """See `Database.execute`."""
        with self._use():
            return self._run(statement, given).rowcount

    @contextlib.contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[None]:  # noqa: ARG002 - see below
        """See `Database.transaction`.

        A commit is always as durable as the server is set up to make it. With less, what was sent a moment before the
        server dies would be sent again.
        """
        with self.lock:
            self._works_since = time.monotonic()
            try:
                with self._use():
                    self._again(_BEGIN)
                self._in_transaction = True
                yield
                with self._use():
                    self._send("COMMIT")
            finally:
                self._in_transaction = False
                self._roll_back()
                self._works_since = None

    def close(self) -> None:
        """See `Database.close`."""
        with self.lock:
            self._disconnect()
            self._watchdog.close()

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._connection: psycopg.Connection[Any] | None = None
        self._in_transaction = False
        self._watchdog = Worker("alerting")
        self._waits_since = self._works_since = None
        self._is_watched = False
        self._unreachable: tuple[float, StoreError] | None = None

    def _leave_parent(self) -> None:
        if self._owner != os.getpid():  # its connection is the parent's, who goes on using it: kept, never closed
            self._inherited.append(self._connection)
            self._begin()

    @contextlib.contextmanager
    def _use(self) -> Iterator[None]:
        """Say what goes wrong in our words, and give up what takes too long."""
        import_driver()
        import psycopg

        refused = (
            psycopg.OperationalError,
            psycopg.InterfaceError,
            psycopg.InternalError,
            psycopg.errors.InsufficientPrivilege,
            psycopg.errors.UndefinedTable,
        )
        with self.lock:
            if self._unreachable is not None and time.monotonic() < self._unreachable[0]:
                raise StoreError(self._unreachable[1].rule, remedy=self._unreachable[1].remedy)
            try:
                yield
                self._unreachable = None
            except refused as failed:
                said = _said(failed)
                if self._connection is None:
                    self._unreachable = (time.monotonic() + _PAUSE_SECONDS, said)
                raise said from failed
            finally:
                self._waits_since = None

    def _run(self, statement: str, given: Mapping[str, Any]) -> psycopg.Cursor[Any]:
        run = self._send if self._in_transaction else self._again
        return run(_dialect.translated(statement), _dialect.values(given))

    def _again(self, statement: str, given: Mapping[str, Any] | None = None) -> psycopg.Cursor[Any]:
        """Run the first statement of a conversation, once more where a connection of before turns out to be cut."""
        import psycopg

        was_open, began = self._connection is not None, time.monotonic()
        try:
            return self._send(statement, given)
        except psycopg.OperationalError:
            took_long = time.monotonic() - began > _PAUSE_SECONDS
            if not was_open or self._connection is not None or took_long:
                raise
            return self._send(statement, given)

    def _send(self, statement: str, given: Mapping[str, Any] | None = None) -> psycopg.Cursor[Any]:
        connection = self._connection or self._connect()
        self._watch()
        try:
            return connection.execute(statement, given)
        finally:
            if connection.closed:
                self._connection = None

    def _roll_back(self) -> None:
        """End what is left of a transaction; a connection that cannot even do that is given up."""
        import psycopg

        connection = self._connection
        if connection is None or connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE:
            return
        with contextlib.suppress(StoreError), self._use():
            self._send("ROLLBACK")
            return
        self._disconnect()

    def _connect(self) -> psycopg.Connection[Any]:
        import psycopg
        from psycopg.rows import dict_row

        connection = psycopg.Connection.connect(
            self._url,
            autocommit=True,
            row_factory=dict_row,
            cursor_factory=psycopg.ClientCursor,  # server-side parameters would each need a type
            password=self._password(),
            connect_timeout=max(int(self._timeout_seconds), 2),
            fallback_application_name="ml-pipeline",
        )
        self._connection = connection
        self._watch()
        try:
            connection.execute(_SESSION.format(milliseconds=int(self._timeout_seconds * _SERVERS_SHARE * 1_000)))
            self._make_tables(connection)
        except psycopg.Error:
            self._disconnect()
            raise
        return connection

    def _password(self) -> str | None:
        if self._password_file is None:
            return None
        try:
            return self._password_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as unreadable:
            rule = f"the file with the database's password must be readable: {unreadable}"
            raise StoreError(rule, remedy="correct ML_PIPELINE_DATABASE_PASSWORD_FILE") from unreadable

    def _make_tables(self, connection: psycopg.Connection[Any]) -> None:
        script = _dialect.schema()
        needed = set(re.findall(r"INDEX IF NOT EXISTS (\w+)", script)) | _dialect.columns()
        if needed <= {row["name"] for row in connection.execute(_PRESENT)}:
            return
        connection.execute(_BEGIN)
        if SCHEMA not in {row["name"] for row in connection.execute(_PRESENT)}:
            connection.execute(f"CREATE SCHEMA {SCHEMA}")
        connection.execute(script)
        connection.execute("COMMIT")

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _watch(self) -> None:
        """Have the connection cut if the server says nothing for too long: it may be halted, or the network gone."""
        self._waits_since = time.monotonic()
        if not self._is_watched:
            self._is_watched = True
            self._watchdog.submit("watch", self._look, delay_seconds=self._timeout_seconds)

    def _look(self) -> None:
        since, connection = self._waits_since, self._connection
        if since is None or connection is None:
            self._is_watched = False
            return
        ends = since + self._timeout_seconds
        if self._works_since is not None:
            ends = min(ends, self._works_since + 2 * self._timeout_seconds)
        left = ends - time.monotonic()
        if left <= 0:
            _cut(connection)
        self._watchdog.submit("watch", self._look, delay_seconds=max(left, _SHORTEST_SECONDS))


class PostgresAlertStore(AlertTables):
    """Alerts and outbox in one PostgreSQL database, which the processes of several hosts share; an `AlertStore`.

    Args:
        url: As `PostgresDatabase` takes it.
        password_file: As `PostgresDatabase` takes it.
        fallback_seconds: How long the other channels wait for Alertmanager to take an alert.
        timeout_seconds: The longest wait for the server.
    """

    def __init__(
        self,
        url: str,
        password_file: Path | None = None,
        *,
        fallback_seconds: float = FALLBACK_SECONDS,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        database = PostgresDatabase(url, password_file, timeout_seconds=timeout_seconds)
        super().__init__(database, fallback_seconds=fallback_seconds)


def import_driver() -> None:
    """Load psycopg.

    Raises:
        StoreError: If it is not installed.
    """
    try:
        import psycopg  # noqa: F401
    except ImportError as missing:
        rule = f"a postgresql:// outbox needs the driver psycopg, which cannot be loaded: {missing}"
        raise StoreError(rule, remedy=_DRIVER) from missing


def _said(failed: psycopg.Error) -> StoreError:
    import psycopg

    reason = without_credentials(str(failed)).strip() or type(failed).__name__
    if isinstance(failed, psycopg.errors.InsufficientPrivilege):
        remedy = "GRANT CREATE ON DATABASE lets its role make the schema; or have its owner make it once"
        return StoreError(
            f"the alert outbox's role must be allowed to use the schema {SCHEMA}: {reason}", remedy=remedy
        )
    return StoreError(f"the alert outbox in PostgreSQL must be reachable: {reason}", remedy=_ADDRESS)


def _cut(connection: psycopg.Connection[Any]) -> None:
    import psycopg

    with contextlib.suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as line:
        line.shutdown(socket.SHUT_RDWR)
