"""A wheel built from a used tree holds the package and nothing else, and works from another folder."""

from __future__ import annotations

import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.support import ROOT


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """A wheel of a tree in which a pipeline has already run."""
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", "artifacts", "logs", "data_storage")
    shutil.copytree(ROOT, tree, ignore=ignored)
    for used in ("ml_pipeline/logs/audit.log", "ml_pipeline/data_storage/alerts/outbox.db", "artifacts/models/m.pkl"):
        (tree / used).parent.mkdir(parents=True, exist_ok=True)
        (tree / used).write_text("left by a run")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")],
        cwd=tree,
        check=True,
        capture_output=True,
    )
    (built,) = (tmp_path / "dist").glob("*.whl")
    return built


def test_wheel_holds_no_logs_or_data(wheel: Path) -> None:
    """What runs leave in the tree is not in the wheel; what typing and the self-check need is."""
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if "/logs/" in name or "/data_storage/" in name or name.startswith("artifacts")]
    assert {name.split("/")[0].split("-")[0] for name in names} == {"ml_pipeline", "ml_pipeline_observability"}
    assert {"ml_pipeline/py.typed", "ml_pipeline/config/test_logging_monitoring.py"} <= set(names)


def test_wheel_works_in_an_empty_environment(wheel: Path, tmp_path: Path) -> None:
    """Installed into a fresh environment, with this one's packages beside it, the command runs from any folder."""
    home = tmp_path / "environment"
    venv.create(home, with_pip=False)
    site = next(home.glob("lib/python*/site-packages"))
    zipfile.ZipFile(wheel).extractall(site)
    packages = Path(sys.prefix) / "lib" / site.parent.name / "site-packages"
    (site / "beside.pth").write_text(f"{packages}\n")
    folder = tmp_path / "anywhere"
    folder.mkdir()
    done = subprocess.run(
        [str(home / "bin" / "python"), "-m", "ml_pipeline", "run", "--trees", "10"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    where = subprocess.run(
        [str(home / "bin" / "python"), "-c", "import ml_pipeline; print(ml_pipeline.__file__)"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(where.stdout.strip()).is_relative_to(home)
