"""The data sources that the dashboards read, each defined once: for Grafana's API and for its provisioning file.

Without a tracing backend an exemplar and a log line lead to Explore, on the log lines of the same operation or run.
The links use the ``left`` form of an Explore address, which Grafana 10 reads and newer versions migrate.
"""

from __future__ import annotations

import json
from typing import Any, Final
from urllib.parse import quote

__all__ = ["ALERTMANAGER_URL", "LOKI_URL", "PROMETHEUS_URL", "data_sources"]

PROMETHEUS_URL: Final = "http://prometheus:9090"
LOKI_URL: Final = "http://loki:3100"
ALERTMANAGER_URL: Final = "http://alertmanager:9093"

SCRAPE_INTERVAL: Final = "10s"
"""Prometheus's own: with another, ``$__rate_interval`` would be too short or too coarse."""

_VALUE: Final = "${__value.raw}"
_RANGE: Final = {"from": "now-7d", "to": "now"}


def data_sources(
    prometheus_url: str = PROMETHEUS_URL, loki_url: str = LOKI_URL, alertmanager_url: str = ALERTMANAGER_URL
) -> tuple[dict[str, Any], ...]:
    """Describe the data sources as Grafana's API takes them.

    Args:
        prometheus_url: Prometheus, as Grafana's server sees it.
        loki_url: Loki, likewise.
        alertmanager_url: Alertmanager, likewise.

    Returns:
        Prometheus, Loki and Alertmanager, new each time. A provisioning file holds the same with every ``$`` doubled.
    """
    return (
        _source("prometheus", "Prometheus", prometheus_url, _prometheus()),
        _source("loki", "Loki", loki_url, _loki()),
        _source("alertmanager", "Alertmanager", alertmanager_url, _alertmanager()),
    )


def _source(uid: str, name: str, url: str, json_data: dict[str, Any]) -> dict[str, Any]:
    # `isDefault` is left out: another default data source, chosen by the people of that Grafana, stays theirs.
    return {"uid": uid, "name": name, "type": uid, "access": "proxy", "url": url, "jsonData": json_data}


def _prometheus() -> dict[str, Any]:
    link = {"name": "operation_id", "url": _logs_by("operation_id"), "urlDisplayLabel": "Logs of this operation"}
    return {"timeInterval": SCRAPE_INTERVAL, "httpMethod": "POST", "exemplarTraceIdDestinations": [link]}


def _loki() -> dict[str, Any]:
    return {
        "derivedFields": [
            {
                "name": label,
                "matcherType": "label",
                "matcherRegex": label,
                "url": _logs_by(label),
                "urlDisplayLabel": f"Logs of this {thing}",
            }
            for label, thing in (("operation_id", "operation"), ("run_id", "run"))
        ]
    }


def _alertmanager() -> dict[str, Any]:
    return {"implementation": "prometheus", "handleGrafanaManagedAlerts": False}


def _logs_by(label: str) -> str:
    # Address of Explore with the log lines whose label has the value that is clicked.
    query = {"refId": "A", "expr": f'{{job="ml_pipeline"}} | {label}="{_VALUE}"'}
    pane = json.dumps({"datasource": "loki", "queries": [query], "range": _RANGE}, separators=(",", ":"))
    before, after = pane.split(_VALUE)
    return f"/explore?left={quote(before, safe='')}{_VALUE}{quote(after, safe='')}"
