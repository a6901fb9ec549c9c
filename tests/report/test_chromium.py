"""The page in a real browser: it asks for nothing, breaks no policy, and fits a phone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.report.page import build_page
from ml_pipeline.report.run import Run
from tests.report.chromium import Chromium
from tests.report.runs import drift_details, failed_run, fine_run
from tests.support import require

SVG = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="2144" height="300"><style>.box{fill:#0969da}</style>'
    '<rect class="box" width="2144" height="300"/></svg>'
)
LONG = "W" * 300
RUNS: dict[str, dict[str, Any]] = {
    "fine": fine_run(),
    "drifted": fine_run(drift_details=[drift_details("batch-1", "drift", 0.4)]),
    "failed": failed_run(),
    "empty": {"run_id": "r"},
    "hostile": failed_run(pipeline=LONG, dataset=LONG, files={LONG: LONG}) | {"scores": {LONG: 0.5}, "error": LONG},
}


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    """One browser for all pages."""
    with Chromium(require("chromium"), tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(params=sorted(RUNS))
def page(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The page of each kind of run."""
    path = tmp_path / "report.html"
    path.write_text(build_page(Run(RUNS[request.param]), lineage_svg=SVG), "utf-8")
    return path


def test_it_asks_for_nothing_but_itself(browser: Chromium, page: Path) -> None:
    """One file is loaded, pictures come out of it, and neither the console nor the policy has anything to say."""
    browser.open(page)
    assert browser.requests[0] == page.as_uri()
    assert all(address.startswith("data:image/svg+xml") for address in browser.requests[1:])
    assert browser.messages == []
    assert browser.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") == "1120px", "styled"
    assert browser.evaluate("document.querySelector('img').naturalWidth") == 2144, "the graph is drawn"


@pytest.mark.parametrize("width", [390, 1200])
def test_it_never_scrolls_sideways(browser: Chromium, page: Path, width: int) -> None:
    """The page is as wide as the screen; what is wider scrolls in a box of its own."""
    browser.open(page, width=width)
    assert browser.evaluate("document.documentElement.scrollWidth") == width
    beyond = """[...document.querySelectorAll('main :not(.graph *):not(.unseen)')]
        .filter(each => each.getBoundingClientRect().right > innerWidth + 1).map(each => each.outerHTML.slice(0, 80))"""
    assert browser.evaluate(beyond) == []


@pytest.mark.parametrize("page", ["failed"], indirect=True)
def test_dark_is_dark_and_paper_is_light(browser: Chromium, page: Path) -> None:
    """The reader's scheme is followed on screens, and not on paper."""
    ground = "getComputedStyle(document.body).backgroundColor"
    browser.open(page)
    light = browser.evaluate(ground)
    browser.open(page, dark=True)
    assert browser.evaluate(ground) == "rgb(13, 17, 23)" != light
    scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
    browser.call("Emulation.setEmulatedMedia", media="print", features=scheme)
    assert browser.evaluate(ground) == "rgb(255, 255, 255)"
    assert browser.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--ink')") == "#1c2128"
    browser.call("Emulation.setEmulatedMedia", media="")


@pytest.mark.parametrize("page", ["drifted", "failed"], indirect=True)
def test_the_accessibility_tree_names_what_there_is(browser: Chromium, page: Path) -> None:
    """Landmarks, one main heading, and a name for every picture that a screen reader meets."""
    browser.open(page)
    nodes = browser.call("Accessibility.getFullAXTree")["nodes"]
    seen = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]]
    roles = [role for role, _ in seen]
    assert {"main", "navigation", "contentinfo", "banner"} <= set(roles)
    assert [name for role, name in seen if role in ("image", "img", "region") and not name] == []
