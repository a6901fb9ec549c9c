"""A PostgreSQL server of the tests' own: made in a folder of its own, on a free port, by nobody in particular."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support import free_port, require

PASSWORD = "p@ss/word:1"
"""Of every role; what a URL would need to have escaped."""


class PostgresServer:
    """A server that can be stopped, started, halted and asked, as its administrator."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self.password_file = folder / "password"
        self.password_file.write_text(PASSWORD + "\n", "utf-8")
        self._data, self._log = folder / "data", folder / "log"
        self._programs = Path(require("initdb", *sorted(Path("/usr/lib/postgresql").glob("*/bin")))).parent
        self._who: dict[str, Any] = {}
        if os.geteuid() == 0:  # which the server refuses to run as
            nobody = pwd.getpwnam("nobody")
            self._who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
            for path in (folder, self.password_file):
                os.chown(path, nobody.pw_uid, nobody.pw_gid)
        self._run("initdb", "--no-sync", "--auth=scram-sha-256", f"--pwfile={self.password_file}", "--username=admin",
                  "--encoding=UTF8", "--locale=C")  # fmt: skip
        self._options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
        self._options += " -c max_connections=50 -c fsync=off"

    def url(self, user: str = "admin", database: str = "postgres") -> str:
        """Say where a database is."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._run("pg_ctl", "start", "--wait", f"--log={self._log}", "-o", self._options)

    def stop(self) -> None:
        """Stop it, cutting every connection."""
        self._run("pg_ctl", "stop", "--wait", "--mode=immediate")

    def processes(self) -> list[int]:
        """Return the ids of its processes, its own first."""
        own = int((self._data / "postmaster.pid").read_text("utf-8").split()[0])
        return [own, *map(int, Path(f"/proc/{own}/task/{own}/children").read_text("utf-8").split())]

    def ask(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run a statement as the administrator."""
        import psycopg

        with psycopg.connect(self.url(database=database), password=PASSWORD, autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload,unused-ignore]
            return cursor.fetchall() if cursor.description else []

    def empty(self) -> str:
        """Remove what stores have made, and say where they may make it again."""
        self.ask("DROP SCHEMA IF EXISTS ml_pipeline CASCADE")
        return self.url()

    def cut(self) -> None:
        """End every connection but the one that asks for it."""
        self.ask(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename <> ''"
        )

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "--pgdata", str(self._data), *arguments]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              check=False, cwd="/", **self._who)  # fmt: skip
        assert done.returncode == 0, (command, self._log.read_text() if self._log.exists() else "")


@contextmanager
def running_server() -> Iterator[PostgresServer]:
    """Make and start a server for the length of a block."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        server = PostgresServer(folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)
