"""The package as a whole: what it imports, what it exports, what its docstring promises."""

from __future__ import annotations

import ast
import doctest
import pickle
import subprocess
import sys
from pathlib import Path

import ml_pipeline.drift
from ml_pipeline.drift import DriftReport, ReferenceProfile, check
from tests.drift.tables import mixed

FOLDER = Path(ml_pipeline.drift.__file__).parent


def test_example_in_the_docstring() -> None:
    """The example runs and prints what it says."""
    assert doctest.testmod(ml_pipeline.drift) == doctest.TestResults(failed=0, attempted=6)


def test_exports() -> None:
    """At most 25 names, in order, and all there."""
    names = ml_pipeline.drift.__all__
    assert names == sorted(names)
    assert len(names) <= 25
    assert all(hasattr(ml_pipeline.drift, name) for name in names)


def test_pure_imports() -> None:
    """Of this project only the errors are imported, of others only numpy and scipy."""
    allowed = {"numpy", "scipy", "ml_pipeline.errors", "ml_pipeline.drift", *sys.stdlib_module_names}
    for path in FOLDER.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert any(name == each or name.startswith(f"{each}.") for each in allowed), (path.name, name)


def test_light_import() -> None:
    """A check runs without pandas, scikit-learn and scipy's statistics ever being loaded."""
    code = (
        "import sys; from ml_pipeline.drift import ReferenceProfile, check;"
        "reference = {'x': range(100), 'c': ['a', 'b'] * 50};"
        "check(ReferenceProfile.fit(reference), {'x': range(100), 'c': ['a', None] * 50});"
        "print(*{'pandas', 'sklearn', 'scipy.stats', 'scipy.optimize'} & sys.modules.keys())"
    )
    root = FOLDER.parent.parent
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], cwd=root, capture_output=True, text=True, check=False
    )
    assert (ran.stdout.strip(), ran.stderr, ran.returncode) == ("", "", 0)


def test_results_travel() -> None:
    """Profiles, counts and reports survive pickling, as worker processes need."""
    profile = ReferenceProfile.fit(mixed(200, 0))
    report = check(profile, mixed(200, 1))
    assert pickle.loads(pickle.dumps((profile, report))) == (profile, report)
    assert isinstance(report, DriftReport)
