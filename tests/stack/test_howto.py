"""The how-to pages: what they show is valid, and they and the compose file know the same variables and images."""

from __future__ import annotations

import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_pipeline.settings import Settings, environment_name, load_settings
from tests.support import ROOT, require

HOW_TO = ROOT / "docs" / "how-to"
PAGES = sorted(HOW_TO.glob("*.md"))
COMPOSE = (ROOT / "docker-compose.infrastructure.yml").read_text("utf-8")
EXAMPLE = (ROOT / ".env.example").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
PARTS = {"## See that it worked", "## What can go wrong"}
FOREIGN = {
    "HTTPS_PROXY", "NO_PROXY", "NO_COLOR",
    "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
    "SINCE_WHEN",
    "GF_SECURITY_COOKIE_SECURE",
}  # fmt: skip
"""Names of other programs, and one of a list in the boards' source."""


def _blocks(page: Path, language: str) -> Iterator[str]:
    """Every block of a language, those inside of lists too."""
    fenced = rf"^( *)```{language}\n(.*?)^\1```$"
    for _, text in re.findall(fenced, page.read_text("utf-8"), re.MULTILINE | re.DOTALL):
        yield textwrap.dedent(text)


def _yaml_blocks() -> list[tuple[str, str]]:
    return [(page.stem, block) for page in PAGES for block in _blocks(page, "yaml")]


def _file_blocks() -> dict[str, str]:
    """The blocks whose first line, a comment, names their file."""
    named = ((re.match(r"# (\S+\.yml)\n", block), block) for _, block in _yaml_blocks())
    return {found[1]: block for found, block in named if found}


def _promtool(*arguments: object) -> None:
    command = [require("promtool"), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def _compose() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(COMPOSE)
    return found


@pytest.fixture
def prometheus(isolated: Path) -> Path:
    """A copy of the project's Prometheus files, with what the pages add to them."""
    folder = isolated / "prometheus"
    shutil.copytree(ROOT / "prometheus", folder)
    for name, block in _file_blocks().items():
        if name.startswith("prometheus/"):
            path = isolated / name
            path.write_text((path.read_text("utf-8") if path.is_file() else "") + "\n" + block)
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_has_its_parts(page: Path) -> None:
    """A page says what you get, then the steps, how to see that it worked, and what can go wrong; the list has it."""
    text = page.read_text("utf-8")
    if page.stem == "README":
        assert set(re.findall(r"^\| \[[^]]+\]\((\S+)\)", text, re.MULTILINE)) == {
            each.name for each in PAGES if each != page
        }
        return
    assert "You get" in text.split("\n## ")[0]
    headings = re.findall(r"^## .*", text, re.MULTILINE)
    assert headings[-2] in PARTS | {"## See that it is so"}
    assert headings[-1] == "## What can go wrong"


@pytest.mark.parametrize(("page", "block"), _yaml_blocks())
def test_yaml_is_valid(page: str, block: str) -> None:
    """Each YAML block can be read, and is not empty."""
    assert yaml.safe_load(block), page


def test_every_file_shown_is_known() -> None:
    """The files that the pages show are those that the tests below look at; another would go unchecked."""
    assert set(_file_blocks()) == {
        "alert-rules.yml",  # looked at with the rules, in tests/config/test_alert_rules.py
        "compose.yml",
        "prometheus/prometheus.yml",
        "prometheus/rules/clinic.yml",
        "prometheus/rules/tests/clinic.yml",
        "prometheus/targets/host-b.yml",
        "prometheus/targets/scoring.yml",
    }


def test_the_rule_fires_and_keeps_still(prometheus: Path) -> None:
    """Prometheus takes the rule that the page adds, its linter too, and the page's own cases pass."""
    _promtool("check", "rules", "--lint=all", "--lint-fatal", prometheus / "rules" / "clinic.yml")
    _promtool("test", "rules", prometheus / "rules" / "tests" / "clinic.yml")


def test_the_configuration_takes_what_the_pages_add(prometheus: Path) -> None:
    """Prometheus's configuration, with remote-write at its end, the rule and the targets, is valid."""
    configuration = prometheus / "prometheus.yml"
    text = configuration.read_text("utf-8").replace("/etc/prometheus/", f"{prometheus}/")
    configuration.write_text(text)
    (prometheus / "remote_write_password").write_text("word")
    _promtool("check", "config", configuration)
    (written,) = yaml.safe_load(text)["remote_write"]
    assert {"action": "labeldrop", "regex": "runbooks"} in written["write_relabel_configs"]


@pytest.mark.parametrize("block", [block for page in PAGES for block in _blocks(page, "ini")])
def test_what_goes_into_env_is_accepted(block: str, isolated: Path) -> None:
    """The lines that a page puts into `.env` are settings that a process takes, and variables of the compose file."""
    (isolated / ".env").write_text(block)
    settings = load_settings()
    values = dict(line.split("=", 1) for line in block.splitlines())
    for name, value in values.items():
        if name.startswith("ML_PIPELINE_"):
            assert settings.model_fields_set >= {name.removeprefix("ML_PIPELINE_").lower()}, name
        else:
            assert f"${{{name}:-" in COMPOSE, name
            assert value


def test_a_container_of_ones_own_joins_what_is_there() -> None:
    """Network, volume and user of the page's compose file are those of the stack."""
    stack, own = _compose(), yaml.safe_load(_file_blocks()["compose.yml"])
    (service,) = own["services"].values()
    assert service["user"] == stack["services"]["pipeline"]["user"]
    assert own["networks"]["metrics"]["name"] in {f"{stack['name']}_{name}" for name in stack["networks"]}
    assert own["volumes"]["logs"]["name"] in {f"{stack['name']}_{name}" for name in stack["volumes"]}
    assert "metrics" in stack["services"]["prometheus"]["networks"]
    (target,) = yaml.safe_load(_file_blocks()["prometheus/targets/scoring.yml"])
    assert target["targets"] == [
        f"{name}:{service['environment']['ML_PIPELINE_METRICS_PORT']}" for name in own["services"]
    ]


def test_the_panel_of_the_page_can_be_built() -> None:
    """The piece of Python that adds a panel gives one, with its title and its query."""
    (block,) = _blocks(HOW_TO / "add-a-metric-and-a-panel.md", "py")
    names: dict[str, Any] = {}
    exec(block, names)
    built = names["panel"].build()
    assert built.title == "Visits rejected, by reason"
    assert "clinic_visits_rejected_total" in built.targets[0].expr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_variable_of_a_page_exists(page: Path) -> None:
    """A variable that a page names is in the compose file, is a setting, or belongs to another program."""
    known = set(re.findall(r"\b[A-Z][A-Z_]+\b", COMPOSE)) | {environment_name(field) for field in Settings.model_fields}
    named = set(re.findall(r"(?<!\$)\b[A-Z]+(?:_[A-Z]+)+\b", page.read_text("utf-8")))
    assert named <= known | FOREIGN | {"COMPOSE_PROFILES"}


def test_every_variable_of_the_compose_file_is_described() -> None:
    """What can be set stands in `.env.example`, which names nothing else of the stack."""
    variables = set(re.findall(r"\$\{([A-Z_]+)", COMPOSE))
    described = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", EXAMPLE))
    assert variables <= described
    settings = {environment_name(field) for field in Settings.model_fields}
    assert described <= variables | settings | {"COMPOSE_PROFILES", "ML_PIPELINE_"}


def test_defaults_are_those_of_the_compose_file() -> None:
    """A commented variable in `.env.example` shows the default, so that uncommenting it changes nothing."""
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^{}$]+)\}", COMPOSE))
    for name, value in re.findall(r"^#([A-Z_]+)=(.*)$", EXAMPLE, re.MULTILINE):
        if name in defaults and not name.endswith("_IMAGE"):
            assert value in (defaults[name], defaults[name].removeprefix("./")), name


def test_retentions_and_ports_of_the_pages_are_the_defaults() -> None:
    """The tables of the pages say what the compose file does."""
    defaults = dict(re.findall(r"\$\{([A-Z_]+):-([^{}$]+)\}", COMPOSE))
    kept = (HOW_TO / "backup-restore-upgrade.md").read_text("utf-8")
    for name, value in re.findall(r"^\| `([A-Z_]+)` \| `(\w+)` \|", kept, re.MULTILINE):
        assert defaults[name] == value, name
    ports = re.findall(
        r"^\| ([\d and]+) .*?\| (`[A-Z_`, ]+`) \|", (HOW_TO / "security.md").read_text("utf-8"), re.MULTILINE
    )
    shown = {
        name: port
        for numbers, names in ports
        for name, port in zip(re.findall(r"[A-Z_]+", names), re.findall(r"\d+", numbers), strict=True)
    }
    assert shown == {name: value for name, value in defaults.items() if name.endswith("_PORT")}


def test_images_of_the_documentation_are_those_of_the_compose_file() -> None:
    """Wherever a page names one of the stack's images with a tag, it is the tag that the compose file has."""
    images = dict(re.findall(r"\$\{[A-Z_]+_IMAGE:-([^:@}]+):([^:@}]+)", COMPOSE))
    assert len(images) > 8
    shown = 0
    for page in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / ".env.example"]:
        text = page.read_text("utf-8")
        for repository, tag in images.items():
            tags = set(re.findall(rf"(?<![\w-]){re.escape(repository)}:([\w.-]*[\w-])", text))
            assert tags <= {tag}, page
            shown += len(tags)
    assert shown, "no page names an image: the pattern is wrong"


def test_the_readme_counts_right() -> None:
    """The number of alerts that the README speaks of is the number of runbooks."""
    (alerts,) = re.findall(r"(\d+) tested alerts", README)
    assert int(alerts) == len(list((ROOT / "docs" / "runbooks").glob("*.md"))) - 1
