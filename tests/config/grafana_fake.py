"""A server that answers as Grafana 13 does, on a free port of the loopback address, with faults to order.

Data sources by uid alone, file-provisioned things read-only, versions compared unless told to overwrite, a password or
a token asked for everywhere but at the health check.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

USER = "admin"
PASSWORD = "correct horse"  # with a space, as people choose them
TOKEN = "glsa_0123456789"
FOLDER = {"uid": "ml-pipeline", "title": "ML Pipeline"}

Reply = tuple[int, Any]


@dataclass
class Fault:
    """What is answered instead, to requests of one method whose path begins so."""

    method: str
    path: str
    status: int = 0
    body: Any = None
    kind: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)
    first: Callable[[], object] | None = None
    times: int = 10**6


class GrafanaFake:
    """One Grafana; what it holds may be read and changed directly."""

    def __init__(self) -> None:
        self.version: str | None = "13.2.3"
        self.sources: dict[str, dict[str, Any]] = {}
        self.folders: dict[str, dict[str, Any]] = {}
        self.boards: dict[str, dict[str, Any]] = {}
        self.messages: list[str] = []
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.closing = threading.Event()
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def serve(self) -> None:
        """Answer until it is closed."""
        self._server.serve_forever(poll_interval=0.02)

    def close(self) -> None:
        """Stop, and let go of whoever is kept waiting."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def fail(self, method: str, path: str, status: int, body: Any = None, **how: Any) -> None:
        """Answer something else from now on, or *times* often."""
        self.faults.append(Fault(method, path, status, {} if body is None else body, **how))

    def hang(self, method: str, path: str) -> None:
        """Keep the caller waiting until the server closes."""
        self.faults.append(Fault(method, path, 503, {}, first=self.closing.wait))

    def meanwhile(self, method: str, path: str, action: Callable[[], object], times: int = 1) -> None:
        """Do something just before a request is answered, as another person would."""
        self.faults.append(Fault(method, path, first=action, times=times))

    def put_board(self, uid: str, /, folder: str = "ml-pipeline", *, provisioned: bool = False, **board: Any) -> None:
        """Save a board as a person would in the browser."""
        version = self.boards[uid]["dashboard"]["version"] + 1 if uid in self.boards else 1
        whole = {"title": uid, "tags": ["ml-pipeline"], **board, "uid": uid, "id": 7, "version": version}
        self.boards[uid] = {"dashboard": whole, "meta": {"folderUid": folder, "provisioned": provisioned}}

    def writes(self) -> list[str]:
        """Every request that could change something."""
        return [f"{method} {path}" for method, path in self.requests if method != "GET"]

    # how it answers

    def answer(self, method: str, target: str, authorization: str, raw: bytes) -> Reply:
        """What Grafana says."""
        path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
        if path == "/api/health":
            return 200, {"database": "ok"} | ({"version": self.version} if self.version else {})
        refused = self._not_let_in(authorization)
        if refused:
            return refused
        body = json.loads(raw) if raw and raw != b"null" else {}
        for pattern, handle in (
            (r"/api/datasources", self._all_sources),
            (r"/api/datasources/uid/([^/]+)", self._one_source),
            (r"/api/folders", self._all_folders),
            (r"/api/folders/([^/]+)", self._one_folder),
            (r"/api/dashboards/db", self._save_board),
            (r"/api/dashboards/uid/([^/]+)", self._one_board),
        ):
            matched = re.fullmatch(pattern, path)
            if matched:
                return handle(method, body, *matched.groups())
        if path == "/api/search":
            return 200, self._search(query)
        return 404, {"message": "Not found"}

    def _not_let_in(self, authorization: str) -> Reply | None:
        scheme, _, given = authorization.partition(" ")
        if scheme == "Bearer":
            return None if given == TOKEN else (401, {"message": "Invalid API key"})
        known = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        return None if given == known else (401, {"message": "Invalid username or password"})

    def _all_sources(self, method: str, body: dict[str, Any]) -> Reply:
        if method == "GET":
            return 200, list(self.sources.values())
        if any(body["name"] == each["name"] or body["uid"] == each["uid"] for each in self.sources.values()):
            return 409, {"message": "data source with the same name already exists"}
        self.sources[body["uid"]] = {
            "id": 1, "orgId": 1, "basicAuth": False, "isDefault": False, "readOnly": False, **body, "version": 1,
        }  # fmt: skip
        return 200, {"message": "Datasource added"}

    def _one_source(self, method: str, body: dict[str, Any], uid: str) -> Reply:
        there = self.sources.get(uid)
        if there is None:
            return 404, {"message": "Data source not found"}
        if method == "GET":
            return 200, there
        if there.get("readOnly"):
            return 403, {"message": "Cannot update read-only data source"}
        if body.get("version") not in (None, there["version"]):
            return 409, {"message": "Datasource has already been updated by someone else. Please reload and try again"}
        self.sources[uid] = {"id": 1, "orgId": 1, "readOnly": False, **body, "version": there["version"] + 1}
        return 200, {"message": "Datasource updated"}

    def _all_folders(self, method: str, body: dict[str, Any]) -> Reply:
        if body["uid"] in self.folders:
            return 409, {"message": "a folder/dashboard with the same uid already exists"}
        self.folders[body["uid"]] = dict(body)
        return 200, body

    def _one_folder(self, method: str, body: dict[str, Any], uid: str) -> Reply:
        return (200, self.folders[uid]) if uid in self.folders else (404, {"message": "folder not found"})

    def _save_board(self, method: str, body: dict[str, Any]) -> Reply:
        board = body["dashboard"]
        there = self.boards.get(board["uid"])
        if there and there["meta"].get("provisioned"):
            return 400, {"message": "Cannot save provisioned dashboard"}
        before = there["dashboard"]["version"] if there else 0
        if there and not body["overwrite"] and board.get("version") != before:
            return 412, {"message": "The dashboard has been changed by someone else", "status": "version-mismatch"}
        if body["folderUid"] not in self.folders:
            return 404, {"message": "Folder not found"}
        self.messages.append(body["message"])
        self.boards[board["uid"]] = {
            "dashboard": {"fiscalYearStartMonth": 0, "links": [], **board, "id": 7, "version": before + 1},
            "meta": {"folderUid": body["folderUid"], "provisioned": False},
        }
        return 200, {"uid": board["uid"], "status": "success", "version": before + 1}

    def _one_board(self, method: str, body: dict[str, Any], uid: str) -> Reply:
        if uid not in self.boards:
            return 404, {"message": "Dashboard not found"}
        return 200, self.boards.pop(uid) if method == "DELETE" else self.boards[uid]

    def _search(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        return [
            {"uid": uid, "title": each["dashboard"]["title"], "folderUid": each["meta"]["folderUid"]}
            for uid, each in self.boards.items()
            if query["tag"][0] in each["dashboard"]["tags"] and each["meta"]["folderUid"] == query["folderUIDs"][0]
        ]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def handle_any(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                target = self.path
                fake.requests.append((self.command, target))
                fault = next((each for each in fake.faults if fake.meets(each, self.command, target)), None)
                if fault:
                    fault.times -= 1
                    if fault.first:
                        fault.first()
                if fault and fault.status:
                    self.reply(fault.status, fault.body, fault.kind, fault.headers)
                    return
                with fake._lock:
                    status, body = fake.answer(self.command, target, self.headers.get("Authorization", ""), raw)
                self.reply(status, body)

            def reply(
                self, status: int, body: Any, kind: str = "application/json", headers: dict[str, str] | None = None
            ) -> None:
                data = body.encode() if isinstance(body, str) else json.dumps(body).encode()
                data = b"" if status == 204 else data
                try:
                    self.send_response(status)
                    for name, value in {"Content-Type": kind, **(headers or {})}.items():
                        self.send_header(name, value)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:  # the caller has gone
                    pass

            do_GET = do_POST = do_PUT = do_DELETE = handle_any  # noqa: N815 - the names that the server calls

        return Handler

    @staticmethod
    def meets(fault: Fault, method: str, target: str) -> bool:
        """Whether a fault is for this request."""
        return fault.times > 0 and fault.method == method and target.startswith(fault.path)


@contextmanager
def running_grafana() -> Iterator[GrafanaFake]:
    """Start one and stop it afterwards."""
    fake = GrafanaFake()
    thread = threading.Thread(target=fake.serve, daemon=True)
    thread.start()
    try:
        yield fake
    finally:
        fake.close()
        thread.join(10)
