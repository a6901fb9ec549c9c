"""The ``/metrics`` endpoint for a process that has none of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry, start_http_server

from ml_pipeline import _runtime
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from threading import Thread
    from wsgiref.simple_server import WSGIServer

__all__ = ["MetricsServer", "start_metrics_server"]


class MetricsServer:
    """A running ``/metrics`` endpoint.

    Attributes:
        url: Where it answers.
    """

    def __init__(self, server: WSGIServer, thread: Thread, url: str) -> None:
        self._server = server
        self._thread = thread
        self.url = url

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_metrics_server(
    port: int | None = None, host: str | None = None, registry: CollectorRegistry = REGISTRY
) -> MetricsServer:
    """Serve the metrics over HTTP in a background thread.

    Args:
        port: Where to listen; by default ``ML_PIPELINE_METRICS_PORT``. 0 takes a free one, see ``url``.
        host: On which address; by default ``ML_PIPELINE_METRICS_HOST``.
        registry: What to serve.

    Returns:
        The running server.

    Raises:
        SettingsError: If no port is set, or it is taken or out of range.
    """
    settings = _runtime.settings()
    port = settings.metrics_port if port is None else port
    host = host or settings.metrics_host
    if port is None:
        raise SettingsError("a metrics server needs a port", remedy="give one, or set ML_PIPELINE_METRICS_PORT")
    if not 0 <= port <= 65_535:  # noqa: PLR2004 - the range of TCP ports
        raise SettingsError("a port must lie between 1 and 65535", port, "choose another")
    try:
        server, thread = start_http_server(port, host, registry)
    except (OSError, UnicodeError) as taken:  # a host name that no one could resolve is a UnicodeError
        raise SettingsError(
            f"the metrics port must be free and {host} an address of this machine",
            port,
            f"choose another ({getattr(taken, 'strerror', taken)})",
        ) from None
    place = f"[{host}]" if ":" in host else host
    return MetricsServer(server, thread, f"http://{place}:{server.server_port}/metrics")
