"""Who may read the log files: their owner and group, whatever the umask, because a log shipper reads them by group."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import time
from pathlib import Path

import pytest

from ml_pipeline import _platform, configure
from ml_pipeline.config._log_files import AppendFile, AppendFiles
from ml_pipeline.config._log_retention import Keeper, Retention, channel_files
from ml_pipeline.config._log_rotation import Rotation
from ml_pipeline.config.alerting import alert_manager
from ml_pipeline.config.logging_config import get_logger, main_logger
from ml_pipeline.settings import load_settings
from tests.processes import in_fork

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")

GROUP_READS = "0640"
GROUP_PASSES = "0750"


def mode(path: Path) -> str:
    """The mode of a file or folder, as `chmod` takes it."""
    return f"{stat.S_IMODE(path.stat().st_mode):04o}"


def under_umask(mask: int) -> None:
    """Have what is made from now on lose these bits, and write logs, set aside and compressed ones among them."""
    os.umask(mask)
    configure(log_dir="var/log/pipeline", log_max_bytes=10_000)
    alert_manager.alert_processing_failure("load", "broken")
    alert_manager.flush()
    main_logger.error("one")
    for number in range(60):
        get_logger("training.model_training").info("%d %s", number, "x" * 300)
    folder = Path("var/log/pipeline")
    Keeper(lambda: channel_files(folder), Retention(90), clock=lambda: time.time() + 60).sweep()


@pytest.mark.parametrize(("mask", "around"), [(0o077, "0750"), (0o022, "0755"), (0o000, "0777"), (0o007, "0770")])
def test_files_and_folders_have_their_modes_whatever_the_umask(mask: int, around: str, isolated: Path) -> None:
    """Those of the channels, the present ones as well as those that were set aside, and the folders they lie in."""

    def work() -> list[object]:
        under_umask(mask)
        files = [path for path in Path("var").rglob("*") if ".log" in path.name and path.name != "audit.log"]
        folders = {path.parent for path in files}
        return [
            sorted({path.suffix for path in files}),
            sorted({mode(path) for path in files}),
            sorted({mode(path) for path in folders}),
            [mode(Path("var")), mode(Path("var/log"))],
        ]

    suffixes, of_files, of_folders, of_others = in_fork(work)
    assert {".log", ".gz"} <= set(suffixes)
    assert of_files == [GROUP_READS]
    assert of_folders == [GROUP_PASSES]
    assert of_others == [around] * 2, "a folder that is not ours alone is only widened for its group"


def test_what_is_there_keeps_its_mode(tmp_path: Path) -> None:
    """An administrator has decided on it."""
    folder = tmp_path / "logs"
    folder.mkdir(mode=0o700)
    (folder / "x.log").touch()
    (folder / "x.log").chmod(0o600)
    file = AppendFile(folder / "x.log", Rotation(folder))
    file.write(b"line\n")
    assert (mode(folder), mode(folder / "x.log")) == ("0700", "0600")
    file.close()


def test_a_file_that_was_set_aside_keeps_its_mode_when_compressed(tmp_path: Path) -> None:
    """And its group, where it may be given."""
    path = tmp_path / "ml_pipeline.log.2026-11-20.1"
    path.write_bytes(b"line\n")
    path.chmod(0o604)
    if os.geteuid() == 0:
        os.chown(path, -1, 12_345)
    group = path.stat().st_gid
    Keeper(lambda: [tmp_path / "ml_pipeline.log"], Retention(99_999), clock=lambda: time.time() + 60).sweep()
    packed = path.with_name(f"{path.name}.gz")
    assert mode(packed) == "0604"
    assert packed.stat().st_gid == group


def test_the_group_of_the_folder_goes_on_below(tmp_path: Path) -> None:
    """Where a folder gives its group to what is made in it, so do the ones that are made there."""
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared").chmod(0o2770)
    if mode(tmp_path / "shared") != "2770":
        pytest.skip("this file system has no such bit")
    file = AppendFile(tmp_path / "shared" / "logs" / "training" / "x.log", Rotation(tmp_path / "shared" / "logs"))
    file.write(b"line\n")
    assert mode(tmp_path / "shared" / "logs") == "2750"
    assert mode(file.path.parent) == "2750"
    file.close()


def test_removed_files_and_folders_get_their_modes_again(isolated: Path) -> None:
    """Also when it is another job's umask that is in force by then."""

    def work() -> list[str]:
        os.umask(0o077)
        clock = [0.0]
        folder = Path("logs").absolute()
        file = AppendFile(folder / "a" / "x.log", Rotation(folder), monotonic=lambda: clock[0])
        found = []
        for gone in ("a/x.log", "a", "."):
            file.write(b"line\n")
            path = folder / gone
            path.unlink() if path.is_file() else shutil.rmtree(path)
            clock[0] += 1
            file.write(b"line\n")
            found += [mode(folder), mode(folder / "a"), mode(file.path)]
        return found

    assert in_fork(work) == [GROUP_PASSES, GROUP_PASSES, GROUP_READS] * 3


def test_a_file_system_without_modes_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its answer to a change of mode is no reason to lose a line."""

    def refuse(*_arguments: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(Path, "chmod", refuse)
    files = AppendFiles.of(load_settings({"log_dir": tmp_path / "logs"}))
    files["training/model_training.log"].write(b"line\n")
    assert (tmp_path / "logs" / "training" / "model_training.log").read_bytes() == b"line\n"
    files.close()


def test_a_link_to_a_file_that_is_not_there_makes_it(tmp_path: Path) -> None:
    """What a link leads to is someone's own arrangement, but it is a log file."""
    (tmp_path / "x.log").symlink_to(tmp_path / "elsewhere.log")
    file = AppendFile(tmp_path / "x.log", Rotation(tmp_path))
    file.write(b"line\n")
    assert (tmp_path / "elsewhere.log").read_bytes() == b"line\n"
    file.close()


@pytest.mark.parametrize("what", ["file", "dangling link"])
def test_a_folder_that_cannot_be_made_says_what_is_in_the_way(what: str, tmp_path: Path) -> None:
    """By its path."""
    path = tmp_path / "logs"
    path.write_text("in the way") if what == "file" else path.symlink_to(tmp_path / "nowhere")
    with pytest.raises(FileExistsError, match=str(path)):
        _platform.make_group_folder(path)
    with pytest.raises(OSError, match="logs"):
        _platform.make_group_folder(path / "training")
