"""The alert store in PostgreSQL keeps every promise of the one in SQLite, and stays usable whatever the server does."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from sqlite3 import DatabaseError

import pytest

from ml_pipeline import _runtime
from ml_pipeline.config._alert_postgres import PostgresAlertStore
from ml_pipeline.config._alert_postgres_dialect import translated
from ml_pipeline.config._alert_store import AlertStore
from ml_pipeline.config._events import Bus
from ml_pipeline.config._health_checks import BUILT_IN, check_shared_outbox
from ml_pipeline.config.alerting import AlertManager
from ml_pipeline.errors import StoreError
from ml_pipeline.testing.alert_fallback_contract import AlertFallbackContract
from ml_pipeline.testing.alert_outbox_contract import AlertOutboxContract
from ml_pipeline.testing.alert_sharing_contract import AlertSharingContract, Opened
from ml_pipeline.testing.alert_store_contract import AlertStoreContract, record, said
from ml_pipeline.testing.alert_upkeep_contract import AlertUpkeepContract
from tests.config.alerting_world import Pager
from tests.postgres import PASSWORD, PostgresServer, running_server
from tests.processes import in_fork, kill_for_rounds, run_python
from tests.support import ROOT, eventually, free_port

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


@pytest.mark.parametrize(
    ("statement", "said_there"),
    [
        ("a = :b AND c = ':'", "a = %(b)s AND c = ':'"),
        ("a LIKE 'x%'", "a LIKE 'x%%'"),
        ("a IS :b AND c IS NOT :d AND e IS NULL AND f IS NOT NULL",
         "a IS NOT DISTINCT FROM %(b)s AND c IS DISTINCT FROM %(d)s AND e IS NULL AND f IS NOT NULL"),
        ("SELECT max(a, :b), max(c)", "SELECT greatest(a, %(b)s), max(c)"),
        ("a IN (SELECT value FROM json_each(:names))",
         "a IN (SELECT value FROM json_array_elements_text(CAST(%(names)s AS json)))"),
    ],
)  # fmt: skip
def test_a_statement_is_said_in_the_servers_words(statement: str, said_there: str) -> None:
    """What the two dialects say differently, and nothing else."""
    assert translated(statement) == said_there


def test_a_text_that_the_server_cannot_keep_is_kept_as_far_as_it_can(opened: Opened) -> None:
    """A zero byte, half a character, and what looks like a parameter."""
    store = opened()
    record(store, said(message="a\0b \ud800 %s %(x)s :time '; DROP TABLE alerts; --", details={"zero": "\0"}))
    (alert,) = store.find(limit=2)
    assert alert.message == "a\ufffdb ? %s %(x)s :time '; DROP TABLE alerts; --"
    assert alert.details == {"zero": "\0"}


def test_a_time_keeps_its_microseconds(opened: Opened) -> None:
    """A number of the server's default type would lose minutes."""
    store = opened()
    record(store, said(1_700_000_000.123456))
    assert store.find(limit=1)[0].time == 1_700_000_000.123456


def test_the_tables_are_made_once_by_however_many(server: PostgresServer, url: str) -> None:
    """Eight stores that open an empty database at once."""
    stores = [PostgresAlertStore(url, server.password_file) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda store: record(store, said())[0], stores))
    for store in stores:
        store.close()
    assert sorted(outcomes) == ["raised", *["suppressed"] * 7]


def test_a_connection_that_was_cut_is_opened_again(server: PostgresServer, opened: Opened) -> None:
    """By the next call, which succeeds."""
    store = opened()
    record(store, said(), "email")
    server.cut()
    assert record(store, said())[0] == "suppressed"
    server.cut()
    assert store.claim(("email",), time=1000.0, lease_seconds=9.0) is not None


def test_a_connection_that_is_cut_within_a_transaction_changes_nothing(server: PostgresServer, opened: Opened) -> None:
    """The error says what happened; the next call finds everything as it was."""
    store = opened()
    assert isinstance(store, PostgresAlertStore)
    record(store, said())

    def change() -> None:
        with store.database.transaction():
            store.database.execute("UPDATE alerts SET count = 9")
            server.cut()
            store.database.execute("UPDATE alerts SET count = 10")

    with pytest.raises(StoreError, match=r"must be reachable: .*terminating connection"):
        change()
    eventually(lambda: _answers(store))
    assert store.find(limit=1)[0].count == 1


def _answers(store: AlertStore) -> bool:
    try:
        store.find(limit=1)
    except StoreError:
        return False
    return True


def test_a_server_that_is_not_there_is_said_at_once(server: PostgresServer, tmp_path: Path) -> None:
    """In one line, with what to do, and without the password."""
    port = free_port()
    store = PostgresAlertStore(f"postgresql://ml@127.0.0.1:{port}/ml", server.password_file)
    began = time.monotonic()
    for _ in range(20):
        with pytest.raises(StoreError) as caught:
            store.find(limit=1)
    assert time.monotonic() - began < 4.0
    text = str(caught.value)
    assert text.startswith("the alert outbox in PostgreSQL must be reachable: connection failed: ")
    assert text.endswith("; correct ML_PIPELINE_DATABASE_URL, or see to the server")
    assert "\n" not in text
    assert PASSWORD not in text
    store.close()


def test_a_wrong_password_is_said_and_not_shown(server: PostgresServer, tmp_path: Path) -> None:
    """It is the server's to refuse it."""
    file = tmp_path / "password"
    file.write_text("hush-hush", "utf-8")
    store = PostgresAlertStore(server.url(), file)
    with pytest.raises(StoreError, match='password authentication failed for user "admin"') as caught:
        store.find(limit=1)
    assert "hush" not in "".join(map(repr, (caught.value, caught.value.__cause__, str(caught.value))))


def test_a_password_file_that_is_not_there_is_named(server: PostgresServer, tmp_path: Path) -> None:
    """With the setting that names it."""
    store = PostgresAlertStore(server.url(), tmp_path / "none")
    with pytest.raises(StoreError) as caught:
        store.find(limit=1)
    assert str(caught.value) == (
        f"the file with the database's password must be readable: [Errno 2] No such file or directory: '{tmp_path}/none'; "
        "correct ML_PIPELINE_DATABASE_PASSWORD_FILE"
    )


def test_a_role_without_rights_is_told_what_it_needs(server: PostgresServer, url: str) -> None:
    """To make the schema, or to have it made; what others made it may not read either."""
    server.ask("DROP ROLE IF EXISTS nobody")
    server.ask(f"CREATE ROLE nobody LOGIN PASSWORD '{PASSWORD}'")
    store = PostgresAlertStore(server.url("nobody"), server.password_file)
    with pytest.raises(StoreError) as caught:
        record(store, said())
    assert str(caught.value) == (
        "the alert outbox's role must be allowed to use the schema ml_pipeline: permission denied for database postgres; "
        "GRANT CREATE ON DATABASE lets its role make the schema; or have its owner make it once"
    )
    own = PostgresAlertStore(url, server.password_file)
    record(own, said())
    own.close()
    eventually(lambda: "permission denied for" in _refusal(store))
    server.ask("GRANT USAGE ON SCHEMA ml_pipeline TO nobody")
    server.ask("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA ml_pipeline TO nobody")
    assert eventually(lambda: _answers(store))
    assert record(store, said())[0] == "suppressed"
    store.close()


def _refusal(store: AlertStore) -> str:
    try:
        record(store, said())
    except StoreError as refused:
        return str(refused)
    return ""


def test_without_the_driver_the_remedy_is_said(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(StoreError) as caught:
        PostgresAlertStore(server.url()).find(limit=1)
    assert str(caught.value) == (
        "a postgresql:// outbox needs the driver psycopg, which cannot be loaded: import of psycopg halted; None in "
        'sys.modules; pip install "ml-pipeline-observability[postgres]"'
    )


def test_opening_a_store_reaches_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the driver nor the server, until the first use."""
    monkeypatch.setitem(sys.modules, "psycopg", None)
    PostgresAlertStore("postgresql://nowhere.invalid/none", Path("none")).close()


def test_a_child_has_a_connection_of_its_own(opened: Opened) -> None:
    """Fork: parent and child go on, each over its own."""
    store = opened()
    assert isinstance(store, PostgresAlertStore)
    record(store, said(), "email")
    backend = "SELECT pg_backend_pid() AS pid"
    mine = store.database.rows(backend)[0]["pid"]
    assert in_fork(lambda: store.database.rows(backend)[0]["pid"]) != mine
    assert store.database.rows(backend)[0]["pid"] == mine


def test_a_server_that_is_halted_holds_nobody_up(server: PostgresServer, url: str) -> None:
    """It takes connections and says nothing more: eight callers are told so within the limit, not each in turn."""
    store = PostgresAlertStore(url, server.password_file, timeout_seconds=2.0)
    record(store, said())
    halted = server.processes()
    for process in halted:
        os.kill(process, signal.SIGSTOP)
    try:
        began = time.monotonic()
        with ThreadPoolExecutor(8) as pool:
            refusals = list(pool.map(lambda _: _refusal(store), range(8)))
        took = time.monotonic() - began
    finally:
        for process in halted:
            os.kill(process, signal.SIGCONT)
    assert all("must be reachable" in refusal for refusal in refusals)
    assert took < 6.0
    assert eventually(lambda: _answers(store))
    store.close()


def test_whoever_is_stopped_within_a_transaction_gives_way(server: PostgresServer, url: str) -> None:
    """A process that halts while it holds the writers' lock is cut off by the server; another goes on."""
    slow, other = (PostgresAlertStore(url, server.password_file, timeout_seconds=2.0) for _ in range(2))
    record(other, said())

    def halt() -> None:
        with slow.database.transaction():
            slow.database.execute("UPDATE alerts SET count = 9")
            eventually(lambda: not _refusal(other))

    with pytest.raises(StoreError, match=r"idle-in-transaction timeout|terminating connection|closed"):
        halt()
    assert other.find(limit=1)[0].count >= 2
    for store in (slow, other):
        store.close()


CLAIM = """
import sys, time
from pathlib import Path
from sqlite3 import DatabaseError
from ml_pipeline.config._alert_postgres import PostgresAlertStore
url, password_file, leased = sys.argv[1:]
store = PostgresAlertStore(url, Path(password_file))
while (claimed := store.claim(("email",), time=1000.0, lease_seconds=float(leased))) is not None:
    print(claimed.delivery_id, flush=True)
"""


def test_processes_that_claim_at_once_share_the_messages(server: PostgresServer, url: str, opened: Opened) -> None:
    """Exactly one gets each; and what one had that was killed, another gets when the lease is over."""
    store = opened()
    for number in range(60):
        record(store, said(pipeline=f"p{number}"), "email")
    command = [sys.executable, "-c", CLAIM, url, str(server.password_file), "30"]
    processes = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
        for _ in range(3)
    ]
    claimed = []
    assert processes[0].stdout is not None
    claimed.append(processes[0].stdout.readline().strip())
    processes[0].kill()
    for process in processes:
        claimed += process.communicate(timeout=60)[0].split()
    after = []
    while (late := store.claim(("email",), time=1030.0, lease_seconds=30.0)) is not None:
        after.append(late.delivery_id)
    assert len(set(claimed)) == len(claimed)
    assert len(after) == 60
    assert set(claimed) <= set(after)


def test_kill_at_random_moments(server: PostgresServer, url: str, tmp_path: Path) -> None:
    """Every alert whose call returned arrives, in one message, as it does with an outbox of the host's own."""
    answer = kill_for_rounds(
        "tests.config.alert_kills",
        tmp_path,
        ML_PIPELINE_DATABASE_URL=url,
        ML_PIPELINE_DATABASE_PASSWORD_FILE=str(server.password_file),
    )
    assert answer["told"] >= answer["rounds"]
    assert not list(tmp_path.rglob("outbox.db"))


def test_alerts_go_on_while_the_server_is_stopped_and_started(server: PostgresServer, url: str) -> None:
    """By settings alone: each alert is delivered once and stands in the database in the end; no call waits long."""
    _runtime.configure(database_url=url, database_password_file=server.password_file, strict=False)
    pager = Pager()
    alerts = AlertManager(channels=[pager], bus=Bus(), on_delivery=lambda *_: None)
    longest = 0.0
    for number in range(9):
        if number == 3:
            server.stop()
        if number == 6:
            assert alerts.flush()
            assert [alert.operation for message in pager.sent for alert in message.alerts][3:] == ["o3", "o4", "o5"]
            server.start()
        began = time.monotonic()
        alerts.alert_processing_failure(f"o{number}", "x")
        alerts.alert_processing_failure("o0", "x")
        longest = max(longest, time.monotonic() - began)
        assert alerts.flush()
    assert longest < 5.0
    # A host that has not been asked to deliver looks for the database by itself; here it is asked for as long as it takes.
    store = PostgresAlertStore(url, server.password_file)
    eventually(lambda: alerts.flush() and store.summarise(0.0).alerts == 9)
    assert sorted(alert.operation for message in pager.sent for alert in message.alerts) == [f"o{n}" for n in range(9)]
    assert store.summarise(0.0).deliveries == {"pager": {"sent": 9}}
    assert {alert.operation: alert.count for alert in store.find(limit=20)}["o0"] == 10
    assert _runtime.tally.telemetry_errors["alerting", "StoreError"] >= 1
    store.close()


def test_hosts_go_on_while_the_server_comes_and_goes(server: PostgresServer, url: str, tmp_path: Path) -> None:
    """Three processes on two hosts: what they told of arrives and stands in the database, and no call waits long.

    A commit whose answer is lost may be said by two hosts; that is one alert each time the server goes, if at all.
    """
    processes = []
    for name, host in (("a", "1"), ("b", "1"), ("c", "2")):
        environment = {
            "ML_PIPELINE_DATABASE_URL": url,
            "ML_PIPELINE_DATABASE_PASSWORD_FILE": str(server.password_file),
            "ML_PIPELINE_DATA_DIR": str(tmp_path / host),
            "ML_PIPELINE_LOG_DIR": str(tmp_path / name),
            "ML_PIPELINE_STRICT": "0",
        }
        command = [sys.executable, "-m", "tests.config.alert_outages", name, str(tmp_path), "6"]
        processes.append(
            subprocess.Popen(command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True,
                             stderr=subprocess.DEVNULL)
        )  # fmt: skip
    outages = 2
    for number in range(outages):
        eventually(lambda before=number: _counted(server) > 50 * before)
        server.stop()
        server.start()
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    told = {name for answer in answers for name in answer["told"]}
    messages: dict[str, set[str]] = {}
    for line in (tmp_path / "post").read_text("utf-8").splitlines():
        delivery_id, names = json.loads(line)
        for name in names:
            messages.setdefault(name, set()).add(delivery_id)
    assert told - set(messages) == set()
    assert sum(len(ids) > 1 for ids in messages.values()) <= outages * len(processes)
    assert server.ask("SELECT count(*), count(DISTINCT operation) FROM ml_pipeline.alerts") == [(len(told), len(told))]
    assert server.ask("SELECT DISTINCT state FROM ml_pipeline.deliveries") == [("sent",)]
    assert max(answer["longest"] for answer in answers) < 10.0
    assert all(answer["errors"] for answer in answers)


def _counted(server: PostgresServer) -> int:
    with contextlib.suppress(psycopg.Error):
        return int(server.ask("SELECT count(*) FROM ml_pipeline.alerts")[0][0])
    return 0


def test_the_worker_finds_the_database_by_itself(server: PostgresServer, url: str) -> None:
    """Nobody has to call anything, and there need be no channel; ``alerts.json`` is whole again, too."""
    _runtime.configure(database_url=url, database_password_file=server.password_file, strict=False)
    server.stop()
    alerts = AlertManager(channels=[], bus=Bus())
    try:
        alerts.alert_processing_failure("o", "x")
    finally:
        server.start()
    store = PostgresAlertStore(url, server.password_file)
    record(store, said(time.time() + 1, operation="another"))
    eventually(lambda: _answers(store) and store.summarise(0.0).alerts == 2)
    store.close()
    history = Path("ml_pipeline/logs/alerts.json")
    eventually(lambda: [alert["operation"] for alert in json.loads(history.read_text())] == ["another", "o"])


def test_a_database_of_an_earlier_version_gains_what_it_lacks(server: PostgresServer, url: str) -> None:
    """Columns and indexes; what is in it stays."""
    earlier = PostgresAlertStore(url, server.password_file)
    record(earlier, said(), "email")
    earlier.close()
    server.ask("ALTER TABLE ml_pipeline.alerts DROP COLUMN good_since; DROP INDEX ml_pipeline.deliveries_by_batch")
    now = PostgresAlertStore(url, server.password_file)
    assert now.went_well("p", "data_ingestion", "", time=1001.0)
    assert server.ask("SELECT count(*) FROM pg_indexes WHERE indexname = 'deliveries_by_batch'") == [(1,)]
    now.close()


def test_health_tells_of_the_shared_outbox(server: PostgresServer, url: str) -> None:
    """How its deliveries do, and that it is away, which stops nothing."""
    store = PostgresAlertStore(url, server.password_file)
    record(store, said(), "email")
    store.close()
    _runtime.configure(database_url=url, database_password_file=server.password_file)
    assert BUILT_IN["alert_outbox"]() == (
        "degraded",
        "deliveries: 1 pending, 1 of them overdue, 0 given up in the last day",
    )
    assert check_shared_outbox(url, server.password_file, lambda: 1000.0) == (
        "ok",
        "deliveries: 1 pending, 0 of them overdue, 0 given up in the last day",
    )
    status, reason = check_shared_outbox(f"postgresql://127.0.0.1:{free_port()}/ml", None)
    assert (status, reason[:46]) == ("degraded", "the alert outbox in PostgreSQL must be reachab")
    Path("ml_pipeline/data_storage/alerts").mkdir(parents=True)
    Path("ml_pipeline/data_storage/alerts/outbox.db").write_text("no database, but long enough to be looked at\n" * 100)
    with pytest.raises(DatabaseError, match="file is not a database"):
        BUILT_IN["alert_outbox"]()


def test_the_page_about_several_hosts_says_what_a_role_needs(server: PostgresServer) -> None:
    """Its statements, run as they stand there, make a role that owns the store and one that only uses it."""
    page = (ROOT / "docs" / "how-to" / "several-hosts.md").read_text("utf-8")
    owners, users = (
        re.sub("'choose.*?'", f"'{PASSWORD}'", block) for block in re.findall(r"```sql\n(.*?)```", page, re.DOTALL)
    )
    for statement in owners.strip().split("\n"):
        server.ask(statement)
    owner = PostgresAlertStore(server.url("ml_pipeline", "ml_pipeline"), server.password_file)
    record(owner, said())
    server.ask(users, "ml_pipeline")
    user = PostgresAlertStore(server.url("pipelines", "ml_pipeline"), server.password_file)
    assert record(user, said())[0] == "suppressed"
    assert record(user, said(operation="new"), "email")[0] == "raised"
    for store in (owner, user):
        store.close()


def test_no_password_is_shown_by_the_settings(server: PostgresServer) -> None:
    """The address and the file's name are; and a child process is told both."""
    _runtime.configure(database_url=server.url(), database_password_file=server.password_file)
    done = run_python(
        "import sys; from ml_pipeline.cli import main; sys.argv[1:] = ['settings']; main()", COLUMNS="400"
    )
    assert PASSWORD not in done.stdout + done.stderr
    assert str(server.password_file) in done.stdout.replace("\n", "")
