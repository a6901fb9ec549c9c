"""Pushing metrics: for batch jobs, which are over before Prometheus comes to scrape."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from prometheus_client import REGISTRY, CollectorRegistry, push_to_gateway

from ml_pipeline import _runtime
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

__all__ = ["MetricsPusher", "push_metrics"]

_TIMEOUT_SECONDS: Final = 10.0
_FIRST_PUSH_SECONDS: Final = 0.25


def push_metrics(
    job: str | None = None,
    url: str | None = None,
    *,
    grouping: Mapping[str, str] | None = None,
    registry: CollectorRegistry = REGISTRY,
    timeout_seconds: float = _TIMEOUT_SECONDS,
) -> bool:
    """Send all metrics to a Pushgateway, where they replace what this job pushed before.

    Args:
        job: Name of the job; by default the pipeline's.
        url: Of the Pushgateway, such as ``http://127.0.0.1:9091``; by default ``ML_PIPELINE_PUSHGATEWAY_URL``.
        grouping: Further labels that tell this job's series from others, such as ``{"instance": "host-1"}``.
        registry: What to push.
        timeout_seconds: Longest wait.

    Returns:
        Whether the gateway took them. A gateway that is down or refuses is counted and said once; it stops no job.

    Raises:
        SettingsError: With ``ML_PIPELINE_STRICT=1``, if there is no URL or the gateway did not take them.
    """
    settings = _runtime.settings()
    with _runtime.guard("pushgateway"):
        gateway = url or settings.pushgateway_url
        if not gateway:
            remedy = "give url, or set ML_PIPELINE_PUSHGATEWAY_URL"
            raise SettingsError("pushing metrics needs a gateway", remedy=remedy)
        push_to_gateway(gateway, job or settings.name, registry, dict(grouping or {}), timeout_seconds, _by_requests)
        return True
    return False


class MetricsPusher:
    """Pushes all metrics while a batch job runs, and once more at its end; a ``with`` block.

    The first push, soon after the start, matters most: it shows the job's counters at 0, without which Prometheus
    cannot tell what this run added to them. Without ``ML_PIPELINE_PUSHGATEWAY_URL`` nothing is pushed.

    Args:
        every_seconds: Between two pushes.
    """

    def __init__(self, every_seconds: float = 5.0) -> None:
        self._every_seconds = every_seconds
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        if _runtime.settings().pushgateway_url:
            self._thread = threading.Thread(target=self._push_until_over, name="metrics-pusher", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread is not None:
            self._over.set()
            self._thread.join(_TIMEOUT_SECONDS)
            push_metrics()

    def _push_until_over(self) -> None:
        wait = _FIRST_PUSH_SECONDS
        while not self._over.wait(wait):
            _runtime.attempt(push_metrics)  # strictly, the push at the end raises what is wrong
            wait = self._every_seconds


def _by_requests(
    url: str, method: str, timeout: float | None, headers: list[tuple[str, str]], data: bytes
) -> Callable[[], None]:
    """prometheus-client's handler protocol over requests, whose errors are clear and which knows about proxies."""

    def send() -> None:
        import requests

        try:
            answer = requests.request(method, url, data=data, headers=dict(headers), timeout=timeout)
        except requests.RequestException as unreachable:
            raise SettingsError(
                "the Pushgateway must answer", url, f"start it or correct the URL ({type(unreachable).__name__})"
            ) from unreachable
        if not answer.ok:
            reason = " ".join(answer.text.split())[:200]
            said = f"{answer.status_code} {reason}"
            raise SettingsError("the Pushgateway must take the metrics", said, f"mend it at {url}")

    return send
