"""The documentation is executed and cross-checked: what it shows works, and what exists is in it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from ml_pipeline.config._channels import CHANNELS
from ml_pipeline.config._metric_specs import METRICS
from ml_pipeline.config._routes import OPERATIONS, OTHERS
from ml_pipeline.settings import Settings, environment_name

ROOT = Path(__file__).resolve().parents[1]
GUIDE = ROOT / "ml_pipeline" / "config" / "LOGGING_MONITORING_README.md"
PAGES = [ROOT / "README.md", GUIDE, ROOT / "ml_pipeline" / "logs" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def _reference_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_reference", ROOT / "docs" / "build_reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", [p for p in PAGES if "```python" in p.read_text("utf-8")], ids=lambda p: p.name)
def test_snippets_run(page: Path, isolated: Path) -> None:
    """Every Python block of a page runs, in order, in an empty folder, strictly."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(_blocks(page, "python"))],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", sorted(_reference_builder().PAGES))
def test_reference_is_what_the_code_says(name: str) -> None:
    """Each page of the reference is exactly what `make docs` would write."""
    builder = _reference_builder()
    written = (builder.REFERENCE / f"{name}.md").read_text("utf-8")
    assert written == builder._NOTE + builder.PAGES[name](), "run `make docs`"


def test_reference_has_no_page_too_many() -> None:
    """Every page of the reference is made from the code."""
    builder = _reference_builder()
    assert {path.stem for path in builder.REFERENCE.glob("*.md")} == set(builder.PAGES)


def test_every_name_is_in_the_reference_and_back() -> None:
    """Settings, channels, metrics and kinds of event stand in the reference, and it names none that does not exist."""
    text = {
        name: (ROOT / "docs" / "reference" / f"{name}.md").read_text("utf-8") for name in _reference_builder().PAGES
    }
    assert set(re.findall(r"`((?:ML_PIPELINE|GRAFANA)_[A-Z_]+)` \|", text["settings"])) == {
        environment_name(field) for field in Settings.model_fields
    }
    assert set(re.findall(r"^\| `ml_pipeline_(\w+)` \|", text["metrics"], re.MULTILINE)) == set(METRICS)
    named = set(re.findall(r"^\| `([\w.<>]+)` \|", text["logging"], re.MULTILINE))
    assert named == set(CHANNELS) | {"airflow.<dag_id>"}
    assert set(re.findall(r"^\| `(\w+)` \|", text["events"], re.MULTILINE)) == set(OPERATIONS) | set(OTHERS)


def test_every_variable_a_page_names_exists() -> None:
    """No page tells of a setting that the package does not know."""
    known = {environment_name(field) for field in Settings.model_fields}
    for page in [*PAGES, ROOT / ".env.example"]:
        named = set(re.findall(r"\bML_PIPELINE_[A-Z][A-Z_]*[A-Z]\b", page.read_text("utf-8")))
        assert named <= known, page


def test_every_make_command_a_page_names_exists() -> None:
    """No page tells of a `make` target that is not in the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    for page in PAGES:
        named = set(re.findall(r"`make ([a-z-]+)", page.read_text("utf-8")))
        named |= {
            line.split()[1] for block in _blocks(page, "bash") for line in block.splitlines() if line[:5] == "make "
        }
        assert named <= targets, page


def test_every_link_between_pages_leads_somewhere() -> None:
    """A relative link names a file that is there."""
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
            assert (page.parent / target).is_file(), f"{page.name}: {target}"
