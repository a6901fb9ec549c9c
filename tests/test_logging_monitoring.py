"""The self-check, under pytest and as a script."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = ROOT / "ml_pipeline" / "config" / "test_logging_monitoring.py"
EXPECTED = """\
✓ logging_config imported
✓ operation_logger imported
✓ monitoring_config imported
✓ alerting imported
✓ prometheus_metrics imported
✓ data_lineage imported
✓ All modules imported successfully!
✓ All basic functionality tests passed!
"""


def test_self_check_prints_exactly_what_it_promises(tmp_path: Path) -> None:
    """From any folder it prints its eight lines, and writes nothing there."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    done = subprocess.run([sys.executable, str(SCRIPT)], cwd=folder, capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (EXPECTED, 0), done.stderr
    assert list(folder.iterdir()) == []


def test_self_check_names_the_remedy_where_a_package_is_missing(tmp_path: Path) -> None:
    """Without a package it says one line, and its exit code is 1."""
    (tmp_path / "orjson.py").write_text("raise ModuleNotFoundError(\"No module named 'orjson'\", name='orjson')\n")
    done = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "the package orjson is missing: run make setup\n"
    assert done.returncode == 1


if __name__ == "__main__":
    sys.exit(subprocess.call([sys.executable, str(SCRIPT)]))
