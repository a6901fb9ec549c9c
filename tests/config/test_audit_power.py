"""The power of a disk is cut while several processes write an audit trail to it: what was acknowledged is there."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, require

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "10"))


def test_cut_the_power_at_random_moments(tmp_path: Path) -> None:
    """Each record whose call returned is in the trail or in its journal, and in the trail after the next record."""
    require("mkfs.ext4")
    seed = random.randrange(1 << 32)
    done = subprocess.run(
        [sys.executable, "-m", "tests.config.audit_power", str(tmp_path), str(ROUNDS), str(seed)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    if answer["cannot"]:
        pytest.skip(f"mounting needs root: {answer['cannot']}")
    assert answer["fault"] == "", f"seed {seed}: {answer}"
    assert answer["told"] >= ROUNDS
    assert answer["pending"], "nothing was in the cache alone: no power was cut"
