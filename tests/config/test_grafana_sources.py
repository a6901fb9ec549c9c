"""The data sources: what Grafana is sent, and where the links of exemplars and log lines lead."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ml_pipeline.config._grafana_sources import data_sources


def followed(link: str, value: str) -> dict[str, Any]:
    """The pane that Explore opens when a value is clicked."""
    address = urlsplit(link.replace("${__value.raw}", value))
    assert address.path == "/explore"
    pane: dict[str, Any] = json.loads(parse_qs(address.query)["left"][0])
    return pane


def test_there_are_three_with_fixed_uids() -> None:
    """Boards and links name them by these uids; addresses are as Grafana's server sees them."""
    found = {each["uid"]: (each["name"], each["type"], each["access"], each["url"]) for each in data_sources()}
    assert found == {
        "prometheus": ("Prometheus", "prometheus", "proxy", "http://prometheus:9090"),
        "loki": ("Loki", "loki", "proxy", "http://loki:3100"),
        "alertmanager": ("Alertmanager", "alertmanager", "proxy", "http://alertmanager:9093"),
    }


def test_addresses_can_be_given() -> None:
    """Each is put into its own data source."""
    assert [each["url"] for each in data_sources("http://p", "http://l", "http://a")] == [
        "http://p",
        "http://l",
        "http://a",
    ]


def test_prometheus_leads_from_an_exemplar_to_the_log_lines_of_its_operation() -> None:
    """By operation_id, in Loki; and the interval is that of the scrapes."""
    settings = data_sources()[0]["jsonData"]
    assert (settings["timeInterval"], settings["httpMethod"]) == ("10s", "POST")
    (destination,) = settings["exemplarTraceIdDestinations"]
    assert destination["name"] == "operation_id"
    pane = followed(destination["url"], "0192-ab")
    assert pane["datasource"] == "loki"
    assert pane["queries"][0]["expr"] == '{job="ml_pipeline"} | operation_id="0192-ab"'


def test_loki_leads_from_a_line_to_its_operation_and_its_run() -> None:
    """Found in the structured metadata, not by a pattern over the line."""
    fields = data_sources()[1]["jsonData"]["derivedFields"]
    assert [(each["name"], each["matcherType"], each["matcherRegex"]) for each in fields] == [
        ("operation_id", "label", "operation_id"),
        ("run_id", "label", "run_id"),
    ]
    assert followed(fields[1]["url"], "r1")["queries"][0]["expr"] == '{job="ml_pipeline"} | run_id="r1"'


def test_alertmanager_is_prometheus_own() -> None:
    """Grafana's own alerts are not sent to it."""
    assert data_sources()[2]["jsonData"] == {"implementation": "prometheus", "handleGrafanaManagedAlerts": False}
