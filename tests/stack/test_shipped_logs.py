"""Log files that the log shipper, a member of their folder's group, cannot read: found, with the remedy."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
import yaml

from stack import files
from stack.docker import COMPOSE_FILE
from stack.files import unread_logs
from tests.support import ROOT


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A log folder as the package makes it."""
    folder = tmp_path / "logs"
    (folder / "inference").mkdir(parents=True)
    for name in ("predictions.log", "drift.log"):
        (folder / "inference" / name).touch()
    for name in ("ml_pipeline.log", "audit.log", "errors.log", "alerts.json"):
        (folder / name).touch()
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o750 if path.is_dir() else 0o640)
    return folder


@pytest.mark.parametrize(
    ("mode", "name"),
    [(0o700, ""), (0o740, "inference"), (0o600, "ml_pipeline.log"), (0o600, "inference/drift.log")],
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


def test_predictions(logs: Path) -> None:
    """The log of single predictions counts where it is shipped, and in no folder but its own."""
    path = logs / "inference" / "predictions.log"
    path.chmod(0o600)
    (logs / "more" / "inference").mkdir(parents=True)
    (logs / "more" / "inference" / "predictions.log").touch(0o600)
    assert unread_logs(logs) is None
    assert f"(got {str(path)!r});" in str(unread_logs(logs, predictions=True))


def test_folder_without_logs(logs: Path) -> None:
    """A private folder is nobody's concern until something in it is to be shipped."""
    private = logs / "private"
    private.mkdir(0o700)
    (private / "notes.txt").touch()
    (private / "audit.log").touch()
    assert unread_logs(logs) is None
    (private / "mine.log").touch(0o600)
    (private / "deeper").mkdir(0o700)
    (private / "deeper" / "mine.log").touch(0o600)
    assert f"(got {str(private)!r});" in str(unread_logs(logs)), "what is in it is not told one by one"


def test_folder_that_nobody_sees_into(logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is closed to us too may hold logs."""
    (logs / "closed").mkdir(0o700)
    listed = os.scandir

    def scandir(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert f"(got {str(logs / 'closed')!r});" in str(unread_logs(logs))


def _give(path: Path, *, user: int = -1, group: int = -1) -> None:
    if os.getuid():
        pytest.skip("giving a file away needs root")
    os.chown(path, user, group)


def test_logs_of_the_shipper_s_own_groups_and_user(logs: Path) -> None:
    """What the shipper reads as the member of another group, or as the owner, is read."""
    for name, group in (("ml_pipeline.log", 10000), ("inference", 473)):
        _give(logs / name, group=group)
    _give(logs / "inference" / "drift.log", user=473)
    (logs / "inference" / "drift.log").chmod(0o400)
    assert unread_logs(logs) is None
    (logs / "inference" / "drift.log").chmod(0o044)
    (logs / "ml_pipeline.log").chmod(0o604)
    assert unread_logs(logs) == (
        f"the log shipper, a member of group {logs.stat().st_gid}, must be able to read the logs "
        f"(got {str(logs / 'inference/drift.log')!r} and 1 more); chmod -R g+rX {logs}"
    )


def test_who_the_shipper_is() -> None:
    """Its user and groups are those of the compose file, and what it leaves out is what its configuration says."""
    alloy = yaml.safe_load((ROOT / COMPOSE_FILE).read_text("utf-8"))["services"]["alloy"]
    assert alloy["user"] == f"{files._SHIPPER}:{files._SHIPPER}"
    assert alloy["group_add"][0] == str(files._IMAGE_GROUP)
    (text,) = (path.read_text("utf-8") for path in (ROOT / "grafana" / "alloy").glob("*.alloy"))
    left_out = [name.removesuffix(".log") for name in (*files._NOT_SHIPPED, "/".join(files._PREDICTIONS))]
    assert f"/**/{{{','.join(left_out)}}}.log" in text


def test_logs_of_another_group(logs: Path) -> None:
    """A file of a group that the shipper is not in counts by what everybody may do; its own groups' files are left alone."""
    path, group = logs / "ml_pipeline.log", logs.stat().st_gid
    _give(path, group=4321)
    _give(logs / "inference" / "predictions.log", group=10000)
    (logs / "inference").chmod(0o700)
    said = unread_logs(logs)
    assert said == (
        f"the log shipper, a member of group {group}, must be able to read the logs "
        f"(got {str(logs / 'inference')!r} and 1 more); "
        f"find {logs} ! -group 10000 -exec chgrp {group} {{}} + && chmod -R g+rX {logs}"
    )
    subprocess.run(["sh", "-c", said.rpartition("); ")[2]], check=True)
    assert unread_logs(logs) is None
    assert (path.stat().st_gid, (logs / "inference" / "predictions.log").stat().st_gid) == (group, 10000)
    _give(path, group=4321)
    path.chmod(0o644)
    assert unread_logs(logs) is None


def test_folder_with_a_space(tmp_path: Path) -> None:
    """The command can be pasted as it is."""
    folder = tmp_path / "my logs"
    folder.mkdir(0o700)
    assert str(unread_logs(folder)).endswith(f"; chmod -R g+rX '{folder}'")
