"""Elsewhere than Linux: without fcntl, resource, pwd, grp, os.fork and /proc, everything imports and the example runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

HIDE = '''
import builtins, importlib.abc, io, os, sys

HIDDEN = {"fcntl", "resource", "pwd", "grp", "termios"}

class Hidden(importlib.abc.MetaPathFinder):
    """Modules that other systems lack."""
    def find_spec(self, name, path=None, target=None):
        if name in HIDDEN:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Hidden())
for name in HIDDEN:
    sys.modules.pop(name, None)
for name in ("fork", "forkpty", "register_at_fork", "getuid", "geteuid", "pread", "pwrite"):
    if hasattr(os, name):
        delattr(os, name)

real_open = io.open

def open_without_proc(file, *args, **kwargs):
    """psutil, which has its own way on every system, may look into /proc; we may not."""
    if str(file).startswith(("/proc", "/sys")) and "psutil" not in sys._getframe(1).f_globals.get("__name__", ""):
        raise FileNotFoundError(2, "No such file or directory", str(file))
    return real_open(file, *args, **kwargs)

builtins.open = io.open = open_without_proc
'''


def _run_hidden(program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", HIDE + program], capture_output=True, text=True, check=False)


def test_every_module_imports(isolated: Path) -> None:
    """No module of the package needs what only Linux has when it is imported."""
    modules = sorted(
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "ml_pipeline").rglob("*.py")
        if path.name != "__main__.py"
    )
    done = _run_hidden(f"import importlib\nfor name in {modules!r}: importlib.import_module(name)\n")
    assert done.returncode == 0, done.stderr


def test_the_example_runs(isolated: Path) -> None:
    """A whole run: exit code 0, no failure of telemetry, and the audit trail and the lineage are there."""
    program = (
        "from ml_pipeline.examples.logging_monitoring_example import main\n"
        "sys.exit(main(['--trees', '10', '--drift']))\n"
    )
    done = _run_hidden(program)
    assert done.returncode == 0, done.stderr
    summary = json.loads(Path("ml_pipeline/data_storage/runs/latest/summary.json").read_text())
    assert summary["telemetry_errors"] == []
    assert Path("ml_pipeline/logs/audit.log").stat().st_size
