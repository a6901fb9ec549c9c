"""Data sources in Grafana: made and updated by uid, kept where they are not ours, refusals in plain words."""

from __future__ import annotations

import pytest

from ml_pipeline.config._grafana_client import GrafanaClient
from ml_pipeline.config._grafana_sources import data_sources
from ml_pipeline.config._grafana_steps import SetupResult, Steps
from ml_pipeline.errors import DashboardError
from tests.config.grafana_fake import GrafanaFake


def source(action: str, note: str = "") -> SetupResult:
    """The result of the data source."""
    return SetupResult("data source", "prometheus", "Prometheus", action, note)


def test_a_data_source_is_made_updated_and_left_alone(steps: Steps, dry: Steps, grafana: GrafanaFake) -> None:
    """By uid, with what is there compared first; people's own settings beside ours stay."""
    wanted = data_sources()[0]
    assert dry.source(wanted) == source("would create")
    assert grafana.writes() == []
    assert steps.source(wanted) == source("created")
    assert steps.source(wanted) == source("unchanged")
    theirs = grafana.sources["prometheus"]
    theirs["jsonData"] = {**wanted["jsonData"], "timeInterval": "60s", "tlsSkipVerify": True}
    theirs |= {"basicAuth": True, "name": "Prometheus"}
    assert dry.source(wanted) == source("would update")
    assert steps.source(wanted) == source("updated")
    now = grafana.sources["prometheus"]
    assert now["jsonData"] == {**wanted["jsonData"], "tlsSkipVerify": True}
    assert now["basicAuth"] is True
    assert steps.source(wanted) == source("unchanged")
    assert all("/datasources/uid/" in write or write == "POST /api/datasources" for write in grafana.writes())


def test_a_data_source_keeps_its_address_unless_one_is_named(steps: Steps, grafana: GrafanaFake) -> None:
    """The stack's address would break a working one elsewhere."""
    steps.source(data_sources("http://prom.example.org")[0])
    assert steps.source(data_sources()[0], keep_url=True) == source("unchanged", "keeps the address it has")
    assert grafana.sources["prometheus"]["url"] == "http://prom.example.org"
    assert steps.source(data_sources()[0]) == source("updated")
    assert grafana.sources["prometheus"]["url"] == "http://prometheus:9090"


def test_a_provisioned_data_source_is_kept(steps: Steps, grafana: GrafanaFake) -> None:
    """Whatever it holds, it is not ours to write."""
    grafana.sources["prometheus"] = {"uid": "prometheus", "name": "Prometheus", "type": "prometheus", "readOnly": True}
    assert steps.source(data_sources()[0]) == source("kept (provisioned)")
    assert grafana.writes() == []


def test_a_data_source_changed_meanwhile_is_read_again(steps: Steps, grafana: GrafanaFake) -> None:
    """Once; then it is an error."""
    steps.source(data_sources()[0])
    grafana.sources["prometheus"]["access"] = "direct"

    def save() -> None:
        grafana.sources["prometheus"]["version"] += 1

    grafana.meanwhile("PUT", "/api/datasources", save)
    assert steps.source(data_sources()[0]) == source("updated")
    grafana.sources["prometheus"]["access"] = "direct"
    grafana.meanwhile("PUT", "/api/datasources", save, times=2)
    with pytest.raises(DashboardError) as error:
        steps.source(data_sources()[0])
    assert str(error.value) == (
        "Grafana refused updating the data source Prometheus (got '409 Datasource has already been updated by someone "
        "else. Please reload and try again'); mend that and run this again"
    )


@pytest.mark.parametrize("is_dry", [True, False])
def test_the_same_name_under_another_uid(is_dry: bool, client: GrafanaClient, grafana: GrafanaFake) -> None:
    """Found before writing, in a dry run too."""
    grafana.sources["P1"] = {"uid": "P1", "name": "Prometheus", "type": "prometheus"}
    with pytest.raises(DashboardError) as error:
        Steps(client, dry_run=is_dry).source(data_sources()[0])
    assert str(error.value) == (
        "the data source Prometheus must have the uid prometheus (got 'uid P1'); "
        "rename the other data source of that name in Grafana, or give it that uid"
    )
    assert grafana.writes() == []


@pytest.mark.parametrize(
    ("method", "status", "message"),
    [
        (
            "POST",
            409,
            (
                "the data source Prometheus must have the uid prometheus (got '409 no'); "
                "rename the other data source of that name in Grafana, or give it that uid"
            ),
        ),
        (
            "GET",
            403,
            (
                "reading the data source Prometheus must be permitted (got '403 no'); "
                "give the user or token the role Admin (Editor is enough for dashboards alone)"
            ),
        ),
        (
            "POST",
            400,
            "Grafana refused creating the data source Prometheus (got '400 no'); mend that and run this again",
        ),
    ],
)
def test_a_data_source_refused(method: str, status: int, message: str, steps: Steps, grafana: GrafanaFake) -> None:
    """Each in one line with the remedy."""
    grafana.fail(method, "/api/datasources", status, {"message": "no"})
    with pytest.raises(DashboardError) as error:
        steps.source(data_sources()[0])
    assert str(error.value) == message


def test_an_update_refused(steps: Steps, grafana: GrafanaFake) -> None:
    """Not tried again."""
    steps.source(data_sources()[0])
    grafana.fail("PUT", "/api/datasources", 400, {"message": "no"})
    with pytest.raises(DashboardError) as error:
        steps.source(data_sources("http://other")[0])
    assert str(error.value) == (
        "Grafana refused updating the data source Prometheus (got '400 no'); mend that and run this again"
    )
    assert len(grafana.writes()) == 2


def test_a_data_source_of_another_type(steps: Steps, grafana: GrafanaFake) -> None:
    """It is not turned into ours."""
    grafana.sources["loki"] = {"uid": "loki", "name": "Loki", "type": "elasticsearch"}
    with pytest.raises(DashboardError) as error:
        steps.source(data_sources()[1])
    assert str(error.value) == (
        "the data source with the uid loki must be of the type loki (got 'elasticsearch'); "
        "remove or rename the other one in Grafana"
    )
