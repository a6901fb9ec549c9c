"""The configuration of Prometheus, Loki, Alloy and Grafana: what their own tools or their documentation demand of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.data_sources import FILE, provisioning_file
from ml_pipeline.config._channels import CHANNELS
from ml_pipeline.config._grafana_sources import SCRAPE_INTERVAL, data_sources
from ml_pipeline.config.logging_config import get_logger, log_operation
from ml_pipeline.config.operation_logger import operation_logger
from tests.support import ROOT, require

PROMETHEUS: dict[str, Any] = yaml.safe_load((ROOT / "prometheus/prometheus.yml").read_text("utf-8"))
LOKI_TEXT = (ROOT / "grafana/loki/loki.yml").read_text("utf-8")
ALLOY = re.sub(r"^\s*//.*$", "", (ROOT / "grafana/alloy/config.alloy").read_text("utf-8"), flags=re.MULTILINE)
SERVICES: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.infrastructure.yml").read_text("utf-8"))["services"]

NEWER_THAN_DEBIANS = {"otlp", "scrape_protocols", "scrape_native_histograms", "extra_scrape_metrics", "retention"}

LOKI_KEYS = {
    "": {
        "auth_enabled",
        "server",
        "common",
        "schema_config",
        "ingester",
        "compactor",
        "limits_config",
        "ruler",
        "analytics",
    },
    "server": {"http_listen_port", "grpc_listen_port", "log_level"},
    "common": {"instance_addr", "path_prefix", "replication_factor", "ring", "storage"},
    "compactor": {"working_directory", "retention_enabled", "delete_request_store", "retention_delete_delay"},
    "limits_config": {"retention_period", "reject_old_samples_max_age", "allow_structured_metadata", "volume_enabled"},
    "ruler": {"wal"},
    "ingester": {"lifecycler"},
    "analytics": {"reporting_enabled"},
}
"""Keys that Loki 3.7 knows and 4.0 keeps; the file was accepted by Loki 3.7.8 itself."""

ALLOY_BLOCKS = {
    "logging", "discovery.relabel", "rule", "loki.source.file", "file_match", "loki.process", "stage.json",
    "stage.timestamp", "stage.labels", "stage.structured_metadata", "stage.label_drop", "loki.write", "endpoint",
}  # fmt: skip
ALLOY_ATTRIBUTES = {
    "level", "format", "targets", "source_labels", "regex", "action", "forward_to", "enabled", "sync_period",
    "expressions", "source", "values", "url",
}  # fmt: skip


def test_promtool_accepts_it(tmp_path: Path) -> None:
    """The shipped configuration with its rules loads, also on Debian's Prometheus 2.42."""
    promtool = require("promtool")
    shutil.copytree(ROOT / "prometheus", tmp_path / "prometheus")
    done = subprocess.run(
        [promtool, "check", "config", str(tmp_path / "prometheus/prometheus.yml")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_newer_than_what_is_tested() -> None:
    """No key stands in the file that the versions it is checked with do not know."""
    keys = set(re.findall(r"^\s*-?\s*(\w+):", (ROOT / "prometheus/prometheus.yml").read_text("utf-8"), re.MULTILINE))
    assert not keys & NEWER_THAN_DEBIANS


def test_every_service_is_scraped() -> None:
    """Each long-running service but the optional database is a target, under the port that its health check asks."""
    targets = {
        target.rpartition(":")[0]
        for job in PROMETHEUS["scrape_configs"]
        for group in job["static_configs"]
        for target in group["targets"]
    }
    assert targets - {"localhost"} | {"prometheus"} == set(SERVICES) - {"dashboards", "postgres"}


def test_grafana_knows_the_scrape_interval() -> None:
    """`timeInterval` is the scrape interval, without which `$__rate_interval` is wrong."""
    assert PROMETHEUS["global"]["scrape_interval"] == SCRAPE_INTERVAL
    assert data_sources()[0]["jsonData"]["timeInterval"] == SCRAPE_INTERVAL


def test_data_sources_are_what_the_code_says() -> None:
    """The provisioning file is what `make boards` would write; unescaped, it is what the API is sent."""
    text = FILE.read_text("utf-8")
    assert text == provisioning_file(), "run `make boards`"
    assert "$" not in text.replace("$$", "")
    provisioned = yaml.safe_load(text.replace("$$", "$"))["datasources"]
    default = [source.pop("isDefault") for source in provisioned]
    assert provisioned == list(data_sources())
    assert default == [True, False, False]


def test_loki_holds_only_keys_it_keeps() -> None:
    """Every key is one of the list, retention is on with what it needs, and no comment holds a variable."""
    loki = yaml.safe_load(LOKI_TEXT)
    for section, known in LOKI_KEYS.items():
        assert set(loki[section] if section else loki) <= known, section
    assert loki["compactor"]["retention_enabled"]
    assert loki["compactor"]["delete_request_store"] == "filesystem"
    (schema,) = loki["schema_config"]["configs"]
    assert (schema["store"], schema["schema"], schema["index"]["period"]) == ("tsdb", "v13", "24h")
    assert set(re.findall(r"\$\{?(\w*)", LOKI_TEXT)) == {"LOKI_RETENTION"} == set(SERVICES["loki"]["environment"])
    assert "$" not in "".join(re.findall(r"#.*", LOKI_TEXT)), "Loki expands variables in comments, too"


def test_alloy_is_made_of_known_blocks() -> None:
    """Braces balance, and every block and attribute is one that Alloy's reference names."""
    text = re.sub(r'"[^"\n]*"', '""', ALLOY)
    for opening, closing in ("{}", "[]", "()"):
        assert text.count(opening) == text.count(closing)
    assert set(re.findall(r"^\s*([a-z][\w.]*)(?: \"\")? \{$", text, re.MULTILINE)) == ALLOY_BLOCKS
    assert set(
        re.findall(r"^\t*  (?:  )?([a-z_]+)\s+= ", re.sub(r"= \{.*?\}", "= {}", text, flags=re.DOTALL), re.MULTILINE)
    ) <= (ALLOY_ATTRIBUTES)
    assert "\\" not in ALLOY, "a backslash must be doubled, which `alloy validate` does not notice"


def _alloy_map(block: str) -> dict[str, str]:
    """The object inside a block, such as the expressions of `stage.json`."""
    found = re.search(rf"{re.escape(block)} \{{\s*\w+ = \{{(.*?)\}}", ALLOY, re.DOTALL)
    assert found, block
    return dict(re.findall(r"(\w+)\s*=\s*\"([^\"]*)\"", found[1]))


def test_alloy_takes_from_a_line_what_is_there(isolated: Path) -> None:
    """Every field it reads stands in a real line; labels have few values, and every id is structured metadata."""
    with operation_logger.operation("custom", "mine", user_id="u"):
        get_logger("training.model_training").info("hello", extra=log_operation(operation="train"))
    line = json.loads(Path("ml_pipeline/logs/training/model_training.log").read_text().splitlines()[-1])
    read = {source or name for name, source in _alloy_map("stage.json").items()}
    assert read - set(line) == {"trace_id", "span_id"}, "there without OpenTelemetry too, but empty"
    labels, metadata = set(_alloy_map("stage.labels")), set(_alloy_map("stage.structured_metadata"))
    assert labels == {"level", "pipeline", "channel"}
    assert {"operation_id", "run_id", "user_id"} <= metadata
    assert labels | metadata | {"ts"} == set(_alloy_map("stage.json"))


def _shipped(folder: Path, ship_predictions: str) -> set[str]:
    """The files that the configuration's globs name, each with how often; as doublestar globs do."""
    (everything, exclude) = re.findall(r'"__path(?:_exclude)?__"\s*= "([^"]+)"', ALLOY)[1:]
    (predictions,) = re.findall(r'"__path__" = "([^"]+predictions\.log)"', ALLOY)
    inside = lambda pattern: folder.glob(pattern.removeprefix("/var/log/ml_pipeline/"))  # noqa: E731
    start, names, end = re.fullmatch(r"(.*)\{(.*)\}(.*)", exclude).groups()  # type: ignore[union-attr]
    excluded = {path for name in names.split(",") for path in inside(f"{start}{name}{end}")}
    keep = re.search(r'regex\s*= "(\d)"\s*action\s*= "keep"', ALLOY)
    assert keep
    more = list(inside(predictions)) if ship_predictions == keep[1] else []
    files = [path for path in inside(everything) if path not in excluded] + more
    assert len(files) == len(set(files)), "no record twice"
    return {str(path.relative_to(folder)) for path in files}


@pytest.mark.parametrize("ship", ["0", "1"])
def test_what_is_shipped(ship: str, tmp_path: Path) -> None:
    """Every channel's file of both folders, without the audit trail and `errors.log`; predictions only when asked for."""
    names = {channel.replace(".", "/") + ".log" for channel in CHANNELS} | {"airflow/nightly.log"}
    for place in ("stack", "host"):
        for name in names | {"ml_pipeline.log.2026-11-20.1", "ml_pipeline.log.2026-11-20.1.gz", "alerts.json"}:
            (tmp_path / place / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place / name).touch()
    left = {"audit.log", "errors.log"} | ({"inference/predictions.log"} if ship == "0" else set())
    assert _shipped(tmp_path, ship) == {f"{place}/{name}" for place in ("stack", "host") for name in names - left}


@pytest.mark.parametrize("variable", ["SHIP_PREDICTIONS"])
def test_alloy_reads_only_variables_that_compose_sets(variable: str) -> None:
    """`sys.env` names what the compose file gives."""
    assert set(re.findall(r'sys\.env\("(\w+)"\)', ALLOY)) == {variable} == set(SERVICES["alloy"]["environment"])
