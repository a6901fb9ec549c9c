"""The pages on reading log files: their commands find something in the logs of the example and of the lab demo."""

from __future__ import annotations

import gzip
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import ml_pipeline
from ml_pipeline.config._channels import CHANNELS
from ml_pipeline.report._log_show import FORMATS
from tests.support import EXAMPLE, ROOT, require

DEMO = ROOT / "ml_pipeline" / "examples" / "logging_demo.py"
PAGE = ROOT / "ml_pipeline" / "logs" / "README.md"
HOW_TO = ROOT / "docs" / "how-to" / "read-the-logs.md"


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ML_PIPELINE_")}


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went well, with drift, one that failed, and one log rotated and compressed."""
    folder = tmp_path_factory.mktemp("used")
    for arguments, code in ((["--drift"], 0), (["--fail-at", "train"], 1)):
        command = [sys.executable, str(EXAMPLE), "--trees", "10", *arguments]
        done = subprocess.run(command, cwd=folder, env=_environment(), capture_output=True, check=False)
        assert done.returncode == code, done.stderr
    training = folder / "ml_pipeline" / "logs" / "training" / "model_training.log"
    training.with_name("model_training.log.2026-11-20.1.gz").write_bytes(gzip.compress(training.read_bytes()))
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one run of the lab demo."""
    folder = tmp_path_factory.mktemp("lab")
    subprocess.run([sys.executable, str(DEMO)], cwd=folder, env=_environment(), capture_output=True, check=True)
    return folder


def _commands(page: Path, fence: str) -> list[str]:
    return re.findall(rf"^```{fence}\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def _run_commands(block: str, folder: Path, setting: str = "") -> None:
    """Run each command, and see that it prints something; what follows a file is run once."""
    for program in re.findall(r"\b(?:bash|jq|grep|zgrep|tail)\b", "bash " + block):
        require(program)
    own = f"{setting}{shlex.quote(sys.executable)} -m ml_pipeline "
    once = block.replace("tail -F", "tail").replace("logs -f", "logs").replace("--tail 0", "--tail 10").strip()
    once = re.sub(r"^(run=\$\()?ml-pipeline ", rf"\1{own}", once, flags=re.MULTILINE)
    for command in [once] if "$(" in once else once.splitlines():
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
            env=_environment(),
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout.strip(), command


@pytest.mark.parametrize("commands", _commands(PAGE, "bash"))
def test_the_commands_for_json_work(commands: str, used: Path) -> None:
    """Each finds something in the logs of the example pipeline."""
    _run_commands(commands, used / "ml_pipeline" / "logs", "ML_PIPELINE_LOG_DIR=. ")


@pytest.mark.parametrize("commands", _commands(PAGE, "sh"))
def test_the_commands_for_text_work(commands: str, lab: Path) -> None:
    """Each finds something in the files of the demo."""
    _run_commands(commands, lab)


@pytest.mark.parametrize("commands", _commands(HOW_TO, "bash"))
def test_the_commands_of_the_how_to_page_work(commands: str, used: Path) -> None:
    """Each finds something in the logs of the example pipeline."""
    _run_commands(commands, used)


def test_the_demo_s_folder_can_be_read(lab: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All seven files, merged; those of errors.log, whose lines name no channel, where it is named."""
    from ml_pipeline.report.logs import show_logs

    written = {path.stem: path.read_text("utf-8") for path in lab.glob("*.log")}
    assert show_logs(lab, output="text") == 0
    shown = capsys.readouterr().out.splitlines()
    text = [
        line for name, lines in written.items() if name not in ("errors", "app_json") for line in lines.splitlines()
    ]
    assert sorted(shown) == sorted([*text, *(line for line in shown if " - app - ml_pipeline_" in line)])
    assert len(shown) == len(text) + 2
    assert [line[:23] for line in shown] == sorted(line[:23] for line in shown)
    assert show_logs(lab, ["errors"], output="text") == 0
    assert capsys.readouterr().out == written["errors"]


def test_the_how_to_page_names_every_option_and_format() -> None:
    """As the command has them."""
    from typer.main import get_command

    from ml_pipeline.cli import app

    (command,) = (each for name, each in get_command(app).commands.items() if name == "logs")  # type: ignore[attr-defined]
    options = {option for each in command.params for option in each.opts if option.startswith("--")}
    text = HOW_TO.read_text("utf-8")
    assert {option for option in options if option not in text} <= {"--follow", "--help"}
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == set(FORMATS)


def test_the_page_names_every_file() -> None:
    """Those of the channel table, the open-ended one and the alert history; and no other."""
    named = re.findall(r"^\| `([^`]+)` \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert sorted(named) == sorted([each.path for each in CHANNELS.values()] + ["airflow/<dag_id>.log", "alerts.json"])


def test_the_page_names_settings_that_exist() -> None:
    """And its links lead somewhere."""
    text = PAGE.read_text("utf-8")
    known = {f"ML_PIPELINE_{field.upper()}" for field in ml_pipeline.Settings.model_fields}
    assert set(re.findall(r"\bML_PIPELINE_[A-Z_]+", text)) <= known
    assert all((PAGE.parent / target).is_file() for target in re.findall(r"\]\((?!https?:)([^)#]+)", text))
