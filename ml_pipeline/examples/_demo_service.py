"""A small prediction service on the loopback address, and a client that asks it things, rightly and wrongly."""

from __future__ import annotations

import json
import logging
import socketserver
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from ml_pipeline import _runtime
from ml_pipeline.errors import InputDataError
from ml_pipeline.pipelines._sklearn_steps import predict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ml_pipeline.pipelines._sklearn_steps import Model
    from ml_pipeline.pipelines.table import Array

__all__ = ["Service", "ask", "served"]

Answer: TypeAlias = tuple[int, dict[str, Any]]

_LOOPBACK: Final = "127.0.0.1"
_EARLIER_MODEL: Final = "earlier_model.pkl"
_DECISIONS: Final = {"benign": "approve", "malignant": "deny"}
_OK, _BAD_REQUEST, _NOT_FOUND, _FAILURE = 200, 400, 404, 500
_TIMEOUT_SECONDS: Final = 10
_POLL_SECONDS: Final = 0.01
_MOST_BODY_BYTES: Final = 65_536
_REPORT_EVERY: Final = 5
_WRONG_EVERY: Final = 6


class Service:
    """Answers requests for predictions, and counts and logs each of them.

    Not thread-safe: the server in front of it takes one request after the other.

    Args:
        model: What decides whether a biopsy may be filed as benign.
        loggers: Where that is logged: ``api_requests``, ``predictions`` and ``errors``.
        folder: Where it looks for the model before this one.

    Attributes:
        requests: How many were answered.
        errors: How many of them with a status of 400 or more.
        seconds: What all of them took together.
    """

    def __init__(self, model: Model, loggers: Mapping[str, logging.Logger], folder: Path) -> None:
        self._model = model
        self._loggers = loggers
        self._folder = folder
        self._predictions = 0
        self.requests = 0
        self.errors = 0
        self.seconds = 0.0

    def average_milliseconds(self) -> float:
        """Return the average latency.

        Raises:
            ZeroDivisionError: Before the first request; left so on purpose, for the demo needs a real failure.
        """
        return 1_000 * self.seconds / self.requests

    def answer(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one request; whatever goes wrong in it is logged and becomes a status."""
        started = time.perf_counter()
        answered, failed = _runtime.attempt(self._route, f"{method} {path}", body)
        if isinstance(failed, InputDataError):
            answered = _BAD_REQUEST, {"error": str(failed)}
        elif failed is not None:
            self._loggers["errors"].error(f"{method} {path}: {type(failed).__name__}: {failed}", exc_info=failed)
        code, told = answered or (_FAILURE, {"error": "internal error, see errors.log"})
        self._count(f"{method} {path}", code, time.perf_counter() - started)
        return code, told

    def _route(self, request: str, body: bytes) -> Answer:
        routes: dict[str, Callable[[], dict[str, Any]]] = {
            "POST /predict": lambda: self._predict(body),
            "GET /latency": lambda: {"average_milliseconds": self.average_milliseconds()},
            "GET /earlier-model": lambda: {"bytes": len((self._folder / _EARLIER_MODEL).read_bytes())},
        }
        if request not in routes:
            return _NOT_FOUND, {"error": f"the routes are {', '.join(routes)}"}
        return _OK, routes[request]()

    def _predict(self, body: bytes) -> dict[str, Any]:
        row = _numbers(body, self._model.encoder.numeric)
        (decided,), (confidence,) = predict(self._model, {name: np.array([value]) for name, value in row.items()})
        decision = _DECISIONS[decided]
        self._predictions += 1
        self._loggers["predictions"].info(
            f"Prediction {self._predictions}: {decision}, confidence {confidence:.4f}, features {json.dumps(row)}"
        )
        return {"decision": decision, "confidence": confidence}

    def _count(self, request: str, code: int, took: float) -> None:
        self.requests += 1
        self.errors += code >= _BAD_REQUEST
        self.seconds += took
        level = logging.ERROR if code >= _FAILURE else logging.WARNING if code >= _BAD_REQUEST else logging.INFO
        self._loggers["api_requests"].log(level, f"{request} {code} {1_000 * took:.2f} ms")


def ask(
    log: logging.Logger, service: Service, url: str, rows: Mapping[str, Array], *, requests: int, seed: int
) -> None:
    """Be the client: two requests that fail inside the service, then predictions, some asked for wrongly.

    Args:
        log: Where the service's figures go now and then.
        service: Whose they are.
        url: Where it answers.
        rows: The rows to ask about, each column of shape (k,).
        requests: How many of them, drawn with replacement.
        seed: Of the draw.
    """
    from requests import Session

    chosen = np.random.default_rng(seed).integers(len(next(iter(rows.values()))), size=requests)
    with Session() as client:
        client.trust_env = False  # a proxy named in the environment has no business on the loopback address
        client.get(f"{url}/latency", timeout=_TIMEOUT_SECONDS)
        client.get(f"{url}/earlier-model", timeout=_TIMEOUT_SECONDS)
        for number, row in enumerate(chosen.tolist(), 1):
            features = {name: float(values[row]) for name, values in rows.items()}
            if number % _WRONG_EVERY == 0:
                features.popitem()
            client.post(f"{url}/predict", json=features, timeout=_TIMEOUT_SECONDS)
            if number % _REPORT_EVERY == 0 or number == requests:
                average = service.average_milliseconds()
                log.info(f"Requests: {service.requests}, errors: {service.errors}, average latency: {average:.2f} ms")


@contextmanager
def served(service: Service) -> Iterator[str]:
    """Serve on a free port of the loopback address for the length of a block.

    Args:
        service: What answers.

    Yields:
        The URL it answers at.
    """
    with _Server(service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(_POLL_SECONDS,), name="prediction-service")
        thread.start()
        try:
            yield f"http://{_LOOPBACK}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


class _Server(socketserver.TCPServer):  # not http.server's own, which looks up the name of its address
    def __init__(self, service: Service) -> None:
        self.service = service
        super().__init__((_LOOPBACK, 0), _Request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # the client was stopped, by Ctrl-C for one
            super().handle_error(request, client_address)


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = _TIMEOUT_SECONDS

    def do_GET(self) -> None:
        self._reply(b"")

    def do_POST(self) -> None:
        self._reply(self.rfile.read(min(int(self.headers.get("Content-Length", 0)), _MOST_BODY_BYTES)))

    def _reply(self, body: bytes) -> None:
        code, told = self.server.service.answer(self.command, self.path, body)
        content = json.dumps(told).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's own signature
        """Say nothing: the service logs each request itself."""


def _numbers(body: bytes, names: tuple[str, ...]) -> dict[str, float]:
    """Read one row of features from the body of a request."""
    try:
        given = json.loads(body)
    except ValueError:
        given = None
    if not isinstance(given, dict):
        raise InputDataError("the body of a prediction request must be a JSON object", body, "send one")
    for name in names:
        if type(given.get(name)) not in (int, float):
            raise InputDataError(f"the feature {name!r} must be a number", given.get(name), "give every feature")
    return {name: float(given[name]) for name in names}
