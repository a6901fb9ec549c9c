"""Processes that write one audit trail are killed at random moments: what was acknowledged is there, and it verifies."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

from tests.support import ROOT

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "10"))


def test_kill_four_writers_at_random_moments(tmp_path: Path) -> None:
    """Every record whose call returned is there once, in a chain that verifies, over files set aside and packed."""
    seed = random.randrange(1 << 32)
    done = subprocess.run(
        [sys.executable, "-m", "tests.config.audit_kills", str(tmp_path / "audit.log"), str(ROUNDS), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["fault"] == "", f"seed {seed}: {answer}"
    assert answer["told"] >= ROUNDS
    assert answer["files"] > 1
