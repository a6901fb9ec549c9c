"""The power of a disk is cut while several processes write an audit trail to it: what was acknowledged is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.processes import kill_for_rounds
from tests.support import require


def test_cut_the_power_at_random_moments(tmp_path: Path) -> None:
    """Each record whose call returned is in the trail or in its journal, and in the trail after the next record."""
    require("mkfs.ext4")
    answer = kill_for_rounds("tests.config.audit_power", tmp_path)
    if answer["cannot"]:
        pytest.skip(f"mounting needs root: {answer['cannot']}")
    assert answer["told"] >= answer["rounds"]
    assert answer["pending"], "nothing was in the cache alone: no power was cut"
