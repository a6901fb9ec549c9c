"""What the Alerts dashboard shows of the pipelines' own alerts, asked of a real Prometheus that scrapes a real process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.config.alerting_world import Mailbox, Server
from tests.stack import promql_names as pq
from tests.support import ROOT, eventually, free_port, require

PIPELINE = "board"
PROGRAM = """
import sys
from ml_pipeline.config.alerting import alert_manager as alerts
from ml_pipeline.config.operation_logger import operation_logger
from ml_pipeline.config.prometheus_metrics import start_metrics_server

with operation_logger.operation("validation"):
    pass
print(start_metrics_server(0).url, flush=True)
if sys.stdin.readline() == "alert\\n":
    alerts.silence(seconds=600, reason="known", kind="data_quality")
    alerts.alert_processing_failure("data_ingestion", "no answer")
    alerts.alert_processing_failure("data_ingestion", "no answer")
    alerts.alert_data_drift("forest", ["age"])
    alerts.alert_data_quality("age_not_null")
    memory = alerts.alert_resource_threshold("memory", 0.95, 0.9)
    while alerts.summary().deliveries.get("email", {}).get("sent", 0) == 0:
        alerts.flush()
    alerts.resolve(memory)
    alerts.flush()
    print("done", flush=True)
    sys.stdin.readline()
"""

Samples = list[tuple[dict[str, str], float]]


def queries() -> list[tuple[str, str]]:
    """Return the board's queries of the processes' own alerts, each with its panel's title."""
    boards = json.loads((ROOT / "ml_pipeline/config/grafana_dashboards.json").read_bytes())["dashboards"]
    (board,) = (each for each in boards if each["uid"] == "ml-alerts")
    return [
        (panel["title"], target["expr"])
        for panel in board["panels"]
        for target in panel.get("targets", ())
        if "ml_pipeline_alert" in target.get("expr", "")
    ]


class World:
    """A Prometheus that scrapes every second what a file names."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.mailbox = Mailbox()
        (folder / "targets.yml").write_text("[]")
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s}\n"
            "scrape_configs: [{job_name: ml-pipeline, file_sd_configs: [{files: [targets.yml], refresh_interval: 1s}]}]\n"
        )

    def ask(self, query: str) -> Samples:
        """Return what Prometheus answers to an instant query, with the board's variables filled in."""
        filled = pq.substituted(query, {**pq.VARIABLES, "$pipeline": PIPELINE})
        address = f"http://127.0.0.1:{self.port}/api/v1/query?{urllib.parse.urlencode({'query': filled})}"
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            return []
        return [(each["metric"], float(each["value"][1])) for each in found]

    def values(self, title: str, *labels: str) -> dict[tuple[str, ...], float]:
        """Return what a panel's first query answers, by labels; rounded, for Prometheus extrapolates."""
        query = next(expr for of, expr in queries() if of == title)
        return {tuple(metric.get(name, "") for name in labels): round(value) for metric, value in self.ask(query)}

    @contextmanager
    def process(self, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """Run the program, and have it scraped."""
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            env={**os.environ, "ML_PIPELINE_NAME": PIPELINE, "ML_PIPELINE_STRICT": "0", **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        try:
            address = urllib.parse.urlsplit(process.stdout.readline()).netloc
            (self.folder / "targets.yml").write_text(json.dumps([{"targets": [address]}]))
            eventually(lambda: self.ask(f'up{{instance="{address}"}} == 1'), seconds=60)
            yield process
        finally:
            process.communicate("", timeout=60)


@pytest.fixture
def world(tmp_path: Path, isolated: Path) -> Iterator[World]:
    """Run Prometheus and a mail server."""
    made = World(tmp_path)
    program = require("prometheus")
    server = Server(made.mailbox)
    server.start()
    os.environ |= _mail_settings(server.port)
    with (tmp_path / "prometheus.log").open("wb") as said:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={tmp_path / 'prometheus.yml'}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{made.port}",
            ],
            stdout=said,
            stderr=said,
        )
    try:
        yield made
    finally:
        process.terminate()
        process.wait(timeout=30)
        server.stop()
        for name in _mail_settings(0):
            del os.environ[name]


def _mail_settings(port: int) -> dict[str, str]:
    return {
        "ML_PIPELINE_SMTP_HOST": "127.0.0.1",
        "ML_PIPELINE_SMTP_PORT": str(port),
        "ML_PIPELINE_SMTP_SECURITY": "none",
        "ML_PIPELINE_ALERT_EMAIL_FROM": "a@example.org",
        "ML_PIPELINE_ALERT_EMAIL_TO": "b@example.org",
    }


def test_every_panel_shows_what_happened(world: World) -> None:
    """Raised, held back, silenced, muted, put off, delivered, given up: each is counted, and shown where it belongs."""
    world.mailbox.data = ["451 later", "250 OK", "554 no"]
    with world.process() as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("alert\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        eventually(
            lambda: (
                world.values("Sent by the pipelines themselves", "channel", "result")
                == {("email", "sent"): 1, ("email", "failed"): 1, ("email", "dead"): 1}
            ),
            seconds=30,
        )
        assert {title: bool(world.ask(query)) for title, query in queries()} == {title: True for title, _ in queries()}
        assert world.values("Open in the pipelines") == {(): 3}
        assert world.values("Open in the pipelines, by severity", "severity") == {
            ("critical",): 1, ("warning",): 2, ("info",): 0,
        }  # fmt: skip
        assert world.values("Given up by the pipelines") == {(): 1}
        held_back = world.values("Held back by the pipelines", "reason")
        assert held_back == {("cooldown",): 1, ("silence",): 1, ("inhibition",): 1}
        raised = world.values("Raised by each pipeline", "kind", "severity")
        assert {key: value for key, value in raised.items() if value} == {
            ("processing_failure", "critical"): 1,
            ("data_drift", "warning"): 1,
            ("data_quality", "warning"): 1,
            ("resource_threshold", "warning"): 1,
        }
    with world.process():  # a process that has raised nothing itself
        eventually(lambda: world.values("Open in the pipelines") == {(): 3}, seconds=60)


def test_the_board_asks_for_each_metric_of_alerts() -> None:
    """So that the test above has asked for all of them."""
    names = {name for _, query in queries() for name in pq.metric_names(query) if name.startswith("ml_pipeline_alert")}
    assert names == {
        "ml_pipeline_alerts_total",
        "ml_pipeline_alerts_active",
        "ml_pipeline_alerts_suppressed_total",
        "ml_pipeline_alert_deliveries_total",
        "ml_pipeline_alert_delivery_seconds_bucket",
    }
