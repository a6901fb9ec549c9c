"""The page as a whole: what it says of each kind of run, and that nothing a run holds can break it."""

from __future__ import annotations

import base64
import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_pipeline.config._encoding import encode, to_plain
from ml_pipeline.report.page import build_page, write_report
from ml_pipeline.report.run import Run
from ml_pipeline.report.style import policy
from tests.report.runs import RUN_ID, at, drift_details, failed_run, fine_run, operation
from tests.report.strict_html import Page, read

SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="2144" height="396"><title id="i-ok">a graph</title></svg>'


def _page(summary: dict[str, Any], **more: Any) -> Page:
    return read(build_page(Run(summary), **more))


def test_a_fine_run_says_so() -> None:
    """The verdict in a few words, the key facts, and each section that has something to say."""
    page = _page(fine_run(), lineage_svg=SVG)
    text = page.text
    assert "The run was fine It completed in 4 s, and nothing needs you." in text
    assert "All 4 steps succeeded no alerts no drift in 1 batch" in text
    for tile in ("Status ok 5 operations", "Duration 4 s from 09:30:00 UTC", "Data set visits 052841a65ec7",
                 "ROC AUC 0.9758 of 2 scores", "Predictions 1,140", "Alerts none", "Drift none 1 batch checked"):  # fmt: skip
        assert tile in text
    for section in ("timeline", "alerts", "drift", "scores", "resources", "lineage", "files"):
        assert section in page.attributes["id"]
    assert "failures" not in page.attributes["id"]
    assert page.tags.count("h1") == 1


def test_a_failed_run_says_which_step_and_why(tmp_path: Path) -> None:
    """The innermost step, its error in one sentence, a link to its log lines, and there they are."""
    event = {"operation_id": "op-3", "run_id": RUN_ID, "level": "ERROR", "logger": "operation_logger"}
    said = {"timestamp": at(2.2), "message": "Training set size: (341, 30)"}
    failed = {"timestamp": at(2.5), "message": "model_training failed", "context": {"event": "fail"}}
    lines = [json.dumps(event | line, separators=(",", ":")) for line in (said, failed)]
    (tmp_path / "ml_pipeline.log").write_text("\n".join(lines) + "\n")
    path = write_report(tmp_path / "runs", failed_run(), log_dir=tmp_path)
    assert path == tmp_path / "runs" / RUN_ID / "report.html"
    assert [each.name for each in path.parent.iterdir()] == ["report.html"], "no partial file is left"
    page = read(path.read_text("utf-8"))
    assert "The run failed in model_training TimeoutError: the store did not answer" in page.text
    assert "3 steps: 2 ok, 1 failed 1 critical alert" in page.text
    assert "#failures" in page.attributes["href"]
    assert "09:30:02.200 ERROR operation_logger Training set size: (341, 30) 09:30:02.500" in page.text
    assert "critical 09:30:02 processing_failure model_training model_training failed" in page.text


def test_without_logs_a_failure_is_still_told() -> None:
    """Where the log's lines are not to be had, the page says so."""
    assert (
        "model_training failed: TimeoutError: the store did not answer The ends of the log" in _page(failed_run()).text
    )


def _cancelled() -> dict[str, Any]:
    run = failed_run(alerts=[])
    for op in run["operations"]:
        op["error"], op["status"] = None, "cancelled" if op["status"] == "failed" else op["status"]
    return run | {"status": "cancelled", "error": None, "alerts": []}


@pytest.mark.parametrize(
    ("summary", "said"),
    [
        (_cancelled(), "The run was cancelled during model_training It was told to stop after 4 s."),
        (fine_run(status="abandoned"), "The run was abandoned Its process ended without a word"),
        (fine_run(status="open", duration_seconds=None), "The run had not ended when this page was written"),
        ({"run_id": "r"}, "Nothing is known of this run No operation was recorded."),
        ({"run_id": "r", "error": "InputDataError: no such file"}, "The run failed InputDataError: no such file"),
        ({"run_id": "r", "status": "failed"}, "The run failed No reason was given."),
        (
            fine_run(drift_details=[drift_details("batch-1", "drift", 0.4)]),
            "The run completed; a batch drifted batch-1: 1 of 2 features drifted: age",
        ),
        (
            fine_run(drift_details=[drift_details(name, "drift", 0.4) for name in ("a", "b")]),
            "The run completed; data drifted a: 1 of 2 features drifted: age",
        ),
        (
            fine_run(alerts=[{"severity": "warning", "message": "disk 91 % full"}]),
            "The run completed with 1 alert disk 91 % full All 4 steps succeeded 1 warning",
        ),
        (
            fine_run(alerts=[{"severity": "warning"}, {"severity": "critical"}, {"severity": "odd"}]),
            "3 alerts, 1 critical",
        ),
        (
            fine_run(operations=[*fine_run()["operations"], operation(9, "retry", status="failed")]),
            "The run completed, but 1 operation did not retry: TimeoutError: the store did not answer",
        ),
        (
            fine_run(drift_details=[drift_details("b", "insufficient_data")]),
            "All 4 steps succeeded no alerts no verdict on drift",
        ),
        (fine_run(operations=[operation(0, "only", parent=None)]), "The run was fine"),
        (
            fine_run(telemetry_errors=[{"sink": "alerting", "error": "OSError", "count": 3}]),
            "Observing itself failed, while the run went on: alerting OSError (3 times)",
        ),
    ],
)
def test_the_verdict(summary: dict[str, Any], said: str) -> None:
    """In a sentence, for every way a run can end."""
    assert said in _page(summary).text


def test_the_cause_is_the_failure_that_ended_the_run() -> None:
    """Of several failures, the last that raised what the run raised: those before it were caught."""
    run = failed_run()
    early = operation(7, "first_try", status="failed", start=0.5, seconds=0.1)
    other = operation(8, "cleanup", status="failed", start=2.9, seconds=0.1) | {"error": "OSError: no such file"}
    run["operations"] += [early, other]
    text = _page(run).text
    assert "The run failed in model_training" in text
    assert text.index("model_training failed:") < text.index("first_try failed:") < text.index("cleanup failed:")


def test_many_failures_are_bounded() -> None:
    """The log is shown around the first few; the others are counted."""
    run = failed_run()
    run["operations"] += [operation(10 + number, f"step_{number}", status="failed") for number in range(20)]
    assert "16 more operations did not end well." in _page(run).text


def test_the_section_that_matters_comes_first() -> None:
    """Drift stands before the alerts when it is the verdict, and the navigation follows the page."""
    ids = _page(fine_run()).attributes["id"]
    assert ids.index("alerts") < ids.index("drift")
    page = _page(fine_run(drift_details=[drift_details("batch-1", "drift", 0.4)]))
    assert page.attributes["id"].index("drift") < page.attributes["id"].index("alerts")
    links = [target for target in page.attributes["href"] if target in ("#alerts", "#drift")]
    assert links == ["#drift", "#drift", "#alerts"]


def test_the_lineage_graph_is_a_picture() -> None:
    """It goes in as it is, with its ids to itself, and can be made larger where it is wide; a huge one is named only."""
    page = _page(fine_run(), lineage_svg=SVG)
    (source,) = page.attributes["src"]
    assert base64.b64decode(source.partition(",")[2]).decode() == SVG
    assert page.attributes["alt"] != [""]
    assert "larger" in page.text
    assert "larger" not in _page(fine_run(), lineage_svg=SVG.replace("2144", "800")).text
    huge = _page(fine_run(), lineage_svg=SVG + " " * (1 << 20))
    assert "The graph is too large for this page (1 MiB)" in huge.text
    assert "src" not in huge.attributes


def test_the_page_asks_for_nothing() -> None:
    """No script, no frame, no address of another place; the policy would block them anyway."""
    html = build_page(Run(failed_run()), lineage_svg=SVG)
    page = read(html)
    assert {"script", "iframe", "object", "form"}.isdisjoint(page.tags)
    assert policy() in page.attributes["content"]
    addresses = set(re.findall(r"[a-z]+://[^\s\"'<)&]+", html))
    assert addresses == {"http://www.w3.org/2000/svg"}, "a name, not an address that is fetched"


def test_scores_of_any_kind() -> None:
    """Shares have a bar, errors and others a number; many are cut, which is said."""
    page = _page(fine_run(scores={"rmse": 1234.5, "r2": -0.2, **{f"s{n}": 0.5 for n in range(30)}, "bad": "NaN"}))
    assert "RMSE 1,234 R² -0.2000 s0 0.5000" in page.text
    assert "8 more scores not shown." in page.text


def test_a_page_of_what_json_gives_back() -> None:
    """The page of a summary is that of its file."""
    run = failed_run(drift_details=[drift_details("batch-1", "drift", 0.2)])
    assert build_page(Run(json.loads(encode(to_plain(run))))) == build_page(Run(run))


def _texts(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the texts of a summary stand."""
    if isinstance(value, dict):
        return [place for key, item in value.items() for place in _texts(item, (*path, key))]
    if isinstance(value, list):
        return [place for index, item in enumerate(value) for place in _texts(item, (*path, index))]
    return [path] if isinstance(value, str) else []


def _replaced(summary: dict[str, Any], places: list[tuple[Any, ...]], text: object) -> dict[str, Any]:
    changed = copy.deepcopy(summary)
    for *way, last in places:
        holder: Any = changed
        for step in way:
            holder = holder[step]
        holder[last] = text
    return changed


FULL = failed_run(drift_details=[drift_details("batch-1", "drift", 0.4)], model_sha256="ab" * 32)
PLACES = _texts(FULL)
HOSTILE = (
    "</script><script>alert(1)</script>",
    "</style></svg><img src=x onerror=alert(1)>",
    '" onload="alert(1)" x=\'',
    "\x1b[31mred\x1b[0m\x07",
    "\u202egnp.exe\u2066\u061c",
    "&lt;&#x3c;]]>--><!--",
    "x" * 100_000,
    "\ud800\ufffe\x00",
)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_hostile_text_gets_out(text: str) -> None:
    """Put in the place of every text of a summary at once, and of its keys, it stays a text, and a short one."""
    summary = _replaced(FULL, PLACES, text) | {"scores": {text: 0.5}, "files": {text: text}}
    html = build_page(Run(summary), lineage_svg=text)
    page = read(html)
    assert {"script", "iframe", "form"}.isdisjoint(page.tags)
    assert page.tags.count("img") == page.tags.count("style") == 1, "the lineage graph, and the page's own sheet"
    assert not any(character in html for character in "\x00\x07\x1b\u202e\u2066\u061c")
    assert len(html) < 300_000


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(st.sampled_from(PLACES), unique=True), st.text() | st.sampled_from(HOSTILE))
def test_any_text_anywhere(places: list[tuple[Any, ...]], text: str) -> None:
    """Whatever texts stand wherever, the page is whole and holds no element that it would not hold otherwise."""
    html = build_page(Run(_replaced(FULL, places, text)))
    assert {"script", "img", "form"}.isdisjoint(read(html).tags)
    html.encode("utf-8")


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PARTS: list[tuple[Any, ...]] = [(key,) for key in FULL] + [("operations", 0, key) for key in FULL["operations"][0]]
PARTS += [("drift_details", 0, key) for key in FULL["drift_details"][0]]
PARTS += [("drift_details", 0, "features", 0, key) for key in FULL["drift_details"][0]["features"][0]]
PARTS += [("resources", 0, key) for key in FULL["resources"][0]] + [("alerts", 0, key) for key in FULL["alerts"][0]]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.sampled_from(PARTS), JSON)
def test_any_value_anywhere(place: tuple[Any, ...], value: object) -> None:
    """A summary of another version, or edited by hand: a part of any type is shown or left out, and nothing raises."""
    read(build_page(Run(_replaced(FULL, [place], value))))
