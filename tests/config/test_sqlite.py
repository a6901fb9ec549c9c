from __future__ import annotations

import multiprocessing
import sqlite3
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from ml_pipeline.config._sqlite import connect
from tests.processes import run_python

SCHEMA = """
CREATE TABLE IF NOT EXISTS parent (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS child (id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parent (id));
CREATE INDEX IF NOT EXISTS child_parent ON child (parent);
"""


def test_a_store_is_made_with_its_folder_and_tables(tmp_path: Path) -> None:
    """In WAL mode, with foreign keys, and with rows that have names."""
    with closing(connect(tmp_path / "a" / "b" / "store.db", schema=SCHEMA)) as store:
        pragmas = {
            name: store.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("journal_mode", "synchronous", "foreign_keys")
        }
        assert pragmas == {"journal_mode": "wal", "synchronous": 1, "foreign_keys": 1}
        store.execute("INSERT INTO parent (name) VALUES ('x')")
        assert dict(store.execute("SELECT * FROM parent").fetchone()) == {"id": 1, "name": "x"}
        with pytest.raises(sqlite3.IntegrityError, match="FOREIGN KEY"):
            store.execute("INSERT INTO child (parent) VALUES (7)")


def test_a_store_is_opened_again_as_it_was_left(tmp_path: Path) -> None:
    """Each statement commits by itself."""
    for count in range(3):
        with closing(connect(tmp_path / "store.db", schema=SCHEMA)) as store:
            assert store.execute("SELECT count(*) FROM parent").fetchone()[0] == count
            store.execute("INSERT INTO parent (name) VALUES ('x')")


def test_what_was_committed_survives_the_process(tmp_path: Path) -> None:
    """Killed in the middle of the next write, which leaves nothing."""
    code = (
        "import os, pathlib, sys\nfrom ml_pipeline.config._sqlite import connect\n"
        "store = connect(pathlib.Path(sys.argv[1]), schema=sys.argv[2])\n"
        "store.execute(\"INSERT INTO parent (name) VALUES ('kept')\")\n"
        "store.execute('BEGIN IMMEDIATE')\n"
        "store.execute(\"INSERT INTO parent (name) VALUES ('half')\")\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert run_python(code, str(tmp_path / "store.db"), SCHEMA).returncode == -9
    with closing(connect(tmp_path / "store.db", schema=SCHEMA)) as store:
        assert [row["name"] for row in store.execute("SELECT name FROM parent")] == ["kept"]


def test_any_thread_may_use_it_in_turn(tmp_path: Path) -> None:
    """The owner's lock sees to the turns."""
    store, lock = connect(tmp_path / "store.db", schema=SCHEMA), threading.Lock()

    def insert(number: int) -> None:
        with lock:
            store.execute("INSERT INTO parent (name) VALUES (?)", (str(number),))

    with closing(store), ThreadPoolExecutor(4) as pool:
        list(pool.map(insert, range(100)))
        assert store.execute("SELECT count(*) FROM parent").fetchone()[0] == 100


def make_and_write(path: Path, moment: float) -> None:
    """Open the store at one moment with others, and write to it."""
    while time.time() < moment:
        pass
    with closing(connect(path, schema=SCHEMA)) as store:
        store.execute("INSERT INTO parent (name) VALUES ('x')")


def test_processes_that_make_one_store_at_once_all_succeed(tmp_path: Path) -> None:
    """The first use of a fresh folder by a pool of workers; none is turned away."""
    with ProcessPoolExecutor(6, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(make_and_write, [tmp_path / "warm" / str(each) for each in range(6)], [0.0] * 6))
        for attempt in range(10):
            path = tmp_path / str(attempt) / "store.db"
            list(pool.map(make_and_write, [path] * 6, [time.time() + 0.02] * 6))
            with closing(connect(path, schema=SCHEMA)) as store:
                assert store.execute("SELECT count(*) FROM parent").fetchone()[0] == 6


def test_a_store_that_stays_locked_is_given_up(tmp_path: Path) -> None:
    """After the time that was given, with the reason; and at once for what no waiting mends."""
    with closing(connect(tmp_path / "store.db", schema=SCHEMA)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        began = time.monotonic()
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            connect(tmp_path / "store.db", schema=SCHEMA + "CREATE TABLE more (x);", busy_seconds=0.1)
        assert 0.1 <= time.monotonic() - began < 5
    with pytest.raises(sqlite3.OperationalError, match="syntax error"):
        connect(tmp_path / "store.db", schema="NONSENSE", busy_seconds=3_600)


def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    """A file of something else, a folder, or a file where the folder should be."""
    other = tmp_path / "other.db"
    other.write_bytes(b"something else entirely\n" * 100)
    with pytest.raises(sqlite3.DatabaseError, match="not a database"):
        connect(other, schema=SCHEMA)
    assert other.read_bytes() == b"something else entirely\n" * 100
    with pytest.raises(sqlite3.OperationalError, match="unable to open"):
        connect(tmp_path, schema=SCHEMA)
    with pytest.raises(OSError, match=r"exists|directory"):
        connect(other / "store.db", schema=SCHEMA)
