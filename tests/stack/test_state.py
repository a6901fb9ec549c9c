"""Whose compose project it is, and a restore that is not finished: what no command goes on without knowing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import stack.__main__ as command_line
from stack.docker import COMPOSE_FILE
from stack.files import MARK
from stack.volumes import Volumes
from tests.stack.backups import UNPACK, file_of, whole
from tests.stack.docker_program import Answer, DockerProgram

CHANGING = ("up", "down", "restart", "backup", "upgrade", "purge", "restore")
NOT_KNOWN = "volumes must be known to be this folder's (got {!r}); set another COMPOSE_PROJECT_NAME in .env; "
NOT_KNOWN += "if they are this folder's all the same, run this once with STACK_ADOPT=p"
PART = whole({"volumes/grafana-data.tar": b"g"})


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """Another checkout of the project."""
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / COMPOSE_FILE).touch()
    return folder


def _run(command: str) -> int:
    return command_line.main([command, str(file_of(PART)), "--yes"] if command == "restore" else [command])


def _error(capfd: pytest.CaptureFixture[str], command: str, code: int = 2) -> str:
    capfd.readouterr()
    assert _run(command) == code
    (line,) = [each for each in capfd.readouterr().err.splitlines() if each.startswith("error: ")]
    return line.removeprefix("error: ")


def _changes(program: DockerProgram) -> list[list[str]]:
    """What was done to the project, and not just asked."""
    return [each for each in program.compose_commands() if each[0] != "config" and "json" not in each]


def _remember(root: Path, *folders: Path, names: tuple[str, ...] = ("p",)) -> None:
    told = {"names": names, "folders": [str(each) for each in folders]}
    (root / ".stack" / "project.json").write_text(json.dumps(told))


def _remembered(root: Path) -> dict[str, list[str]]:
    told: dict[str, list[str]] = json.loads((root / ".stack" / "project.json").read_text())
    return told


def test_project_of_another_folder(
    program: DockerProgram, started: Path, first: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """No command changes what another checkout started under the same name, whichever of them is run."""
    program.tell(Answer(("ps", "--filter"), f"{first}\n{first}\n"))
    for command in CHANGING:
        assert _error(capfd, command) == (
            f"a compose project must be used from the folder that started it (got 'p: {first}'); "
            "set another COMPOSE_PROJECT_NAME in .env, or go there; "
            "if that folder was moved to here, run this once with STACK_ADOPT=p"
        )
    assert _changes(program) == []
    assert (started / ".stack/secrets/postgres_password").exists()


def test_own_project_is_named(
    program: DockerProgram, started: Path, first: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Where this folder has a project of its own, the remedy is its name."""
    _remember(started, started, names=("second",))
    program.tell(Answer(("ps", "--filter"), f"{first}\n"))
    assert "; set COMPOSE_PROJECT_NAME=second in .env, or go there; " in _error(capfd, "purge")
    assert (started / ".stack").exists()


OF_A_FOLDER_NOT_TO_BE_SEEN = json.dumps({"names": ["p"], "folders": ["/" + "x" * 300]})


@pytest.mark.parametrize(
    "memory",
    [None, "{", "[]", "1", '{"names": 1}', '{"names": []}', '{"names":["p"],"folders":[]}', OF_A_FOLDER_NOT_TO_BE_SEEN],
)
def test_volumes_of_nobody_knows_whom(
    program: DockerProgram, started: Path, memory: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """Volumes without a container are another's, unless this folder remembers the project."""
    (started / ".stack/project.json").write_text(memory or "")
    if memory is None:
        (started / ".stack/project.json").unlink()
    program.tell(Answer(("ps", "--filter")), Answer(("volume", "ls"), "p_b\np_a\n"))
    for command in ("up", "purge"):
        assert _error(capfd, command) == NOT_KNOWN.format("p_a and 1 more")
    program.tell(Answer(("volume", "ls"), "p_a\n"))
    assert _error(capfd, "backup") == NOT_KNOWN.format("p_a")
    assert _changes(program) == []


def test_volumes_after_down(program: DockerProgram, root: Path) -> None:
    """What `make up` began is remembered when no container is left."""
    assert _run("up") == 0
    assert _remembered(root) == {"names": ["p"], "folders": [str(root)]}
    assert _run("down") == 0
    assert _run("up") == 0
    assert _run("purge") == 0
    assert not (root / ".stack").exists()


def test_folder_behind_a_link(program: DockerProgram, started: Path, tmp_path: Path) -> None:
    """A folder is the same one whatever link leads to it."""
    (tmp_path / "current").symlink_to(started)
    program.tell(Answer(("ps", "--filter"), f"{tmp_path / 'current'}\n"))
    assert _run("down") == 0


def test_folder_that_was_moved(program: DockerProgram, started: Path, tmp_path: Path) -> None:
    """What a folder began before it was moved stays its own, also after Compose has left some containers as they were."""
    old = tmp_path / "old"
    _remember(started, old)
    program.tell(Answer(("ps", "--filter"), f"{old}\n{started}\n"))
    for _ in range(2):
        assert _run("up") == 0
        assert _remembered(started) == {"names": ["p"], "folders": [str(old), str(started)]}
    assert _run("down") == 0


def test_folder_that_was_copied(
    program: DockerProgram, started: Path, first: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A copy remembers what the first one began, which is the first one's for as long as that is there."""
    _remember(started, first)
    program.tell(Answer(("ps", "--filter"), f"{first}\n"))
    assert "a compose project must be used from the folder" in _error(capfd, "purge")
    program.tell(Answer(("ps", "--filter")))
    assert _error(capfd, "purge") == NOT_KNOWN.format("p_grafana-data")
    assert _changes(program) == []
    (first / COMPOSE_FILE).unlink()
    assert _run("purge") == 0


def test_adopted(
    program: DockerProgram, started: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """A project is taken over when its very name is given, and is this folder's from then on."""
    (started / ".stack/project.json").unlink()
    old = tmp_path / "old"
    program.tell(Answer(("ps", "--filter"), f"{old}\n"))
    monkeypatch.setenv("STACK_ADOPT", "q")
    assert "STACK_ADOPT=p" in _error(capfd, "up")
    monkeypatch.setenv("STACK_ADOPT", "p")
    assert _run("up") == 0
    monkeypatch.delenv("STACK_ADOPT")
    assert _run("down") == 0


def test_purge_of_a_volume_that_is_in_use(
    program: DockerProgram, started: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a container of somebody's own holds on to is named, and purge can be run again."""
    program.tell(Answer(("volume", "ls"), "p_loki-data\np_grafana-data\n"))
    assert _error(capfd, "purge") == (
        "every volume must be removed before its passwords are (got 'p_grafana-data and 1 more'); "
        "remove the containers that use it (docker ps --all --filter volume=p_grafana-data), "
        "then docker volume rm p_grafana-data p_loki-data, and run make purge again"
    )
    assert (started / ".stack/secrets/postgres_password").exists()
    program.tell(Answer(("volume", "ls")))
    assert _run("purge") == 0
    assert not (started / ".stack").exists()


def test_purge_after_the_name_was_changed(
    program: DockerProgram, started: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """What this folder began under another name is not forgotten."""
    _remember(started, started, names=("old", "gone", "p"))
    program.tell(Answer(("volume", "label=com.docker.compose.project=old"), "old_grafana-data\n"))
    assert _error(capfd, "purge") == (
        "every project that was started from here must be removed before its passwords are (got 'old'); "
        "set COMPOSE_PROJECT_NAME=old in .env and run make purge again"
    )
    assert (started / ".stack" / MARK).exists()


@pytest.mark.parametrize(
    ("stop", "code", "by"), [(KeyboardInterrupt(), 130, "Ctrl-C"), (SystemExit(143), 143, "SIGTERM")], ids=str
)
def test_restore_that_is_stopped(
    program: DockerProgram, started: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    *, stop: BaseException, code: int, by: str,
) -> None:  # fmt: skip
    """The line says what it leaves; nothing starts or saves that until a restore has come to its end."""

    def stopped(*_: object) -> None:
        raise stop

    program.tell(Answer(("run", UNPACK)))
    with monkeypatch.context() as patched:
        patched.setattr(Volumes, "replace", stopped)
        assert _error(capfd, "restore", code) == (
            f"stopped by {by}; the stack is down and half restored: restore again"
        )
    archive = Path("backup.tar").absolute()
    for command in ("up", "restart", "backup", "upgrade"):
        assert _error(capfd, command) == (
            f"a restore must be finished before the stack is used (got {str(archive)!r}); "
            f"restore again: make restore FILE={archive}; or make purge, to begin with nothing"
        )
    assert _run("down") == 0
    assert _run("restore") == 0
    assert _run("down") == 0
    assert _run("up") == 0


def test_restore_that_is_stopped_early(
    program: DockerProgram, started: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Before the first volume is replaced, what was there is whole."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Volumes, "room", stopped)
    assert _error(capfd, "restore", 130) == ("stopped by Ctrl-C; nothing was replaced: make up starts what was there")
    assert _run("up") == 0


def test_restore_that_fails_leaves_its_mark(
    program: DockerProgram, started: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A failure is as good as Ctrl-C; `make purge` is the way out for who has lost the backup."""
    program.tell(Answer(("run", UNPACK), err="no space", code=1))
    assert "a volume must be readable and writable" in _error(capfd, "restore")
    assert "a restore must be finished before the stack is used" in _error(capfd, "up")
    assert _run("purge") == 0
    assert _run("up") == 0
