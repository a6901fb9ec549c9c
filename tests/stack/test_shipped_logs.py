"""Log files that the log shipper, a member of their folder's group, cannot read: found, with the remedy."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stack.files import unread_logs


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A log folder as the package makes it."""
    folder = tmp_path / "logs"
    (folder / "inference").mkdir(parents=True)
    (folder / "inference" / "predictions.log").touch()
    for name in ("ml_pipeline.log", "audit.log", "errors.log", "alerts.json"):
        (folder / name).touch()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o750 if path.is_dir() else 0o640)
    return folder


@pytest.mark.parametrize(
    ("mode", "name"),
    [(0o700, ""), (0o740, "inference"), (0o600, "ml_pipeline.log"), (0o600, "inference/predictions.log")],
)
def test_logs_that_the_shipper_cannot_read(logs: Path, mode: int, name: str) -> None:
    """A folder or file that is closed to the group is named, with the command that opens it."""
    assert unread_logs(logs) is None
    (logs / name).chmod(mode)
    assert unread_logs(logs) == (
        f"the log shipper, a member of group {logs.stat().st_gid}, must be able to read the logs "
        f"(got {str(logs / name)!r}); chmod -R g+rX {logs}"
    )


def test_logs_that_need_not_be_read(logs: Path) -> None:
    """What is not shipped may be closed, and what is gone is no longer there to be read."""
    for name in ("audit.log", "errors.log", "alerts.json"):
        (logs / name).chmod(0o600)
    (logs / "gone.log").symlink_to("nowhere")
    assert unread_logs(logs) is None


def test_logs_of_another_group(logs: Path) -> None:
    """A file of a group that the shipper is not in counts by what everybody may do."""
    path = logs / "ml_pipeline.log"
    os.chown(path, -1, logs.stat().st_gid + 1) if os.getuid() == 0 else pytest.skip("changing a group needs root")
    (logs / "inference").chmod(0o700)
    assert unread_logs(logs) == (
        f"the log shipper, a member of group {logs.stat().st_gid}, must be able to read the logs "
        f"(got {str(logs / 'inference')!r} and 1 more); "
        f"chgrp -R {logs.stat().st_gid} {logs} && chmod -R g+rX {logs}"
    )
    path.chmod(0o644)
    (logs / "inference").chmod(0o750)
    assert unread_logs(logs) is None


def test_folder_with_a_space(tmp_path: Path) -> None:
    """The command can be pasted as it is."""
    folder = tmp_path / "my logs"
    folder.mkdir(0o700)
    assert str(unread_logs(folder)).endswith(f"; chmod -R g+rX '{folder}'")
