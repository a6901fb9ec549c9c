"""Processes that write one audit trail are killed at random moments: what was acknowledged is there, and it verifies."""

from __future__ import annotations

from pathlib import Path

from tests.processes import kill_for_rounds


def test_kill_four_writers_at_random_moments(tmp_path: Path) -> None:
    """Every record whose call returned is there once, in a chain that verifies, over files set aside and packed."""
    answer = kill_for_rounds("tests.config.audit_kills", tmp_path / "audit.log")
    assert answer["told"] >= answer["rounds"]
    assert answer["files"] > 1
