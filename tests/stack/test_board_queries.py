"""What the boards' queries answer, asked of real series: by `promtool`, with Grafana's variables filled in."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana.dashboards import _queries as q
from tests.stack import promql_names as pq
from tests.support import ROOT, require

COUNTER = "ml_pipeline_ingestion_errors_total"
MEMORY = "ml_pipeline_process_resident_memory_bytes"
SCRAPED = 'job="ml-pipeline", instance="a:8000"'
PUSHED = 'job="nightly"'

Series = dict[str, str]


def series_of(name: str, labels: str) -> str:
    """A series of one of our metrics, with the labels that it has."""
    own = ', source="s", error="e"' if name == COUNTER else ""
    return f'{name}{{{labels}, pipeline="p"{own}}}'


def answer(folder: Path, query: str, series: Series, at: str, expected: float | None) -> None:
    """Check what a query answers; the range that the board shows is an hour, a sample is there each minute."""
    samples: list[dict[str, Any]] = [] if expected is None else [{"value": expected}]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [{"expr": pq.substituted(query), "eval_time": at, "exp_samples": samples}],
    }
    path = folder / "case.yml"
    path.write_text(json.dumps({"rule_files": [], "tests": [test]}), "utf-8")
    done = subprocess.run([require("promtool"), "test", "rules", path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("series", "expected"),
    [
        pytest.param({series_of(COUNTER, SCRAPED): "7+0x150 9+0x40", f"up{{{SCRAPED}}}": "1+0x200"}, 2, id="known"),
        pytest.param({series_of(COUNTER, SCRAPED): "_x150 3+0x40", f"up{{{SCRAPED}}}": "1+0x200"}, 3, id="born"),
        pytest.param(
            {series_of(COUNTER, SCRAPED): "1+0x30 stale _x118 1+0x40", f"up{{{SCRAPED}}}": "1+0x200"},
            1,
            id="born again, of a process that was started anew",
        ),
        pytest.param(
            {series_of(COUNTER, SCRAPED): "_x150 4+0x40", f"up{{{SCRAPED}}}": "_x150 1+0x40"}, 4, id="a new target"
        ),
        pytest.param(
            {
                series_of(COUNTER, SCRAPED): "500+0x110 stale _x13 500+0x70",
                f"up{{{SCRAPED}}}": "1+0x110 0+0x13 1+0x70",
            },
            0,
            id="scrapes were missed as the range began",
        ),
        pytest.param(
            {
                series_of(COUNTER, PUSHED): "1000+0x110 stale _x13 1000+0x70",
                f"push_time_seconds{{{PUSHED}}}": "60+0x110 stale _x13 60+0x70",
            },
            0,
            id="the Pushgateway was away as the range began",
        ),
        pytest.param(
            {
                series_of(COUNTER, PUSHED): "1000+0x110 stale _x13 1000+0x20 0+0x9 5+0x40",
                f"push_time_seconds{{{PUSHED}}}": "60+0x110 stale _x13 60+0x20 8700+0x49",
            },
            5,
            id="and then the job ran",
        ),
        pytest.param(
            {
                series_of(COUNTER, SCRAPED): "1+0x100 stale _x28 1+0x60",
                f"up{{{SCRAPED}}}": "1+0x100 0+0x28 1+0x60",
                f"process_start_time_seconds{{{SCRAPED}}}": "60+0x100 stale _x28 7790+0x60",
            },
            1,
            id="the target was down as the range began, and the process that came up met the error anew",
        ),
        pytest.param(
            {
                series_of(COUNTER, SCRAPED): "500+0x110 stale _x13 500+0x20 3+0x49",
                f"up{{{SCRAPED}}}": "1+0x110 0+0x13 1+0x70",
                f"process_start_time_seconds{{{SCRAPED}}}": "60+0x110 stale _x13 60+0x20 8730+0x49",
            },
            3,
            id="scrapes were missed as the range began, and the process was started anew later",
        ),
        pytest.param(
            {
                series_of(COUNTER, SCRAPED): "_x150 0 5000+0x9 stale _x3 0 4000+0x20",
                f"up{{{SCRAPED}}}": "1+0x160 0+0x3 1+0x40",
            },
            9000,
            id="born, and born again with the next process",
        ),
    ],
)
def test_what_is_counted_in_the_range(tmp_path: Path, series: Series, expected: float) -> None:
    """A counter counts what it grew in the range, a newborn in full; what it reached before a gap does not count."""
    answer(tmp_path, f"round({q.in_range('ingestion_errors_total')})", series, "3h", expected)


@pytest.mark.parametrize(
    ("labels", "pushes", "expected"),
    [
        pytest.param(SCRAPED, None, 8, id="scraped"),
        pytest.param(PUSHED, "60+60x30", 8, id="it pushes while it runs"),
        pytest.param(PUSHED, "60+0x30", None, id="it is over"),
    ],
)
def test_what_a_living_process_uses(tmp_path: Path, labels: str, pushes: str | None, expected: float | None) -> None:
    """What a job last said of its memory is shown while it runs, and not once it is over."""
    series = {series_of(MEMORY, labels): "8+0x30"} | ({f"push_time_seconds{{{labels}}}": pushes} if pushes else {})
    answer(tmp_path, q.living("process_resident_memory_bytes"), series, "20m", expected)


def test_boards_and_rules_agree_on_when_a_job_is_over() -> None:
    """The boards' number is that of the rules."""
    groups = yaml.safe_load((ROOT / "prometheus/rules/thresholds.yml").read_text("utf-8"))["groups"]
    numbers = {rule["record"]: rule["expr"] for group in groups for rule in group["rules"]}
    assert numbers["threshold:push_over:seconds"] == f"vector({q.OVER_SECONDS})"
