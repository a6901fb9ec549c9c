"""The dashboards script: it answers `--help`, reads a file of dashboards, and says what is wrong with one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ml_pipeline.config.setup_dashboards import main, read_dashboards
from ml_pipeline.errors import DashboardError

SCRIPT = Path(__file__).resolve().parents[2] / "ml_pipeline" / "config" / "setup_dashboards.py"


def test_help_works_as_a_script(isolated: Path) -> None:
    """`python setup_dashboards.py --help` answers from any folder."""
    done = subprocess.run([sys.executable, str(SCRIPT), "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert "--file" in done.stdout


def test_it_lists_the_dashboards_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """Each dashboard is a line with its uid and title."""
    Path("boards.json").write_text('{"dashboards": [{"uid": "ml-overview", "title": "ML Pipeline Overview"}]}')
    assert main(["--file", "boards.json"]) == 0
    assert capsys.readouterr().out == "ml-overview  ML Pipeline Overview\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a file of dashboards must exist (got 'boards.json'); name one with --file"),
        ("[]", "a file of dashboards must be JSON of the form {\"dashboards\": [...]} (got 'boards.json'); mend it ("),
        ("{", "a file of dashboards must be JSON of the form {\"dashboards\": [...]} (got 'boards.json'); mend it ("),
        (
            '{"dashboards": [{"uid": "a"}]}',
            "every dashboard must have a uid and a title (got 'dashboard 1'); mend boards.json",
        ),
    ],
)
def test_a_broken_file_is_one_clear_error(
    content: str | None, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the rule, the file and the remedy; on the command line it is one line and exit code 2."""
    path = Path("boards.json")
    if content is not None:
        path.write_text(content)
    with pytest.raises(DashboardError) as error:
        read_dashboards(path)
    assert str(error.value).startswith(message)
    assert main(["--file", "boards.json"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
