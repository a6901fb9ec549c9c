"""Restoring: what is not whole or not ours changes nothing, and afterwards the stack holds what the backup held."""

from __future__ import annotations

import errno
import json
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from stack import backup
from stack.backup import back_up, restore
from stack.docker import Compose
from stack.files import GENERATED
from stack.state import is_half_restored
from stack.volumes import Volumes
from tests.stack.backups import (
    EMPTY,
    PACK,
    PARTS,
    UNPACK,
    VOLUMES,
    WHOLE,
    docker_with_volumes,
    file_of,
    refused,
    stack_with_secrets,
    whole,
)  # fmt: skip
from tests.stack.docker_program import Answer, DockerProgram


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DockerProgram:
    """A Docker with two volumes, one running service and one that ended."""
    return docker_with_volumes(tmp_path / "bin", monkeypatch)


@pytest.fixture
def compose(isolated: Path) -> Compose:
    """A stack with its secrets."""
    return stack_with_secrets(isolated)


def test_restore(program: DockerProgram, compose: Compose, tmp_path: Path) -> None:
    """Secrets are the backup's, each volume is given its own part, and the stack is down meanwhile."""
    for key, name in VOLUMES.items():
        program.tell(Answer(("run", f"--volume={name}:/volume", UNPACK), reads=str(tmp_path / key)))
    said: list[str] = []
    restore(compose, file_of(WHOLE), said.append)
    folder = compose.root / ".stack" / "secrets"
    for name in GENERATED:
        assert (folder / name).read_bytes() == PARTS[f"secrets/{name}"]
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o444
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {key: (tmp_path / key).read_bytes() for key in VOLUMES} == {
        key: PARTS[f"volumes/{key}.tar"] for key in VOLUMES
    }
    assert [each for each in program.compose_commands() if each[0] != "config"] == [["build", "pipeline"], ["down"]]
    assert said == ["stopping the stack", "restoring grafana-data (0.0 MB)", "restoring loki-data (0.0 MB)"]
    assert not [each for each in program.asked() if each[:2] == ["volume", "create"]]


def test_restore_leaves_nothing_that_the_backup_does_not_hold(program: DockerProgram, compose: Compose) -> None:
    """A volume that is there and not in the backup is emptied, and that is said."""
    program.tell(Answer(("run", "--volume=p_loki-data:/volume", EMPTY)), Answer(("run", UNPACK)))
    said: list[str] = []
    parts = {name: content for name, content in PARTS.items() if name != "volumes/loki-data.tar"}
    restore(compose, file_of(whole(parts)), said.append)
    assert said[1:] == ["restoring grafana-data (0.0 MB)", "emptying loki-data, which the backup does not hold"]
    assert [each[-1] for each in program.asked() if each[0] == "run"] == ["df -Pk /volume", UNPACK, EMPTY]


def test_restore_where_nothing_is(program: DockerProgram, compose: Compose) -> None:
    """Volumes are created as Compose would, so that no image of a service is fetched; one without a part is not."""
    program.tell(Answer(("volume", "ls")), Answer(("run", UNPACK)))
    said: list[str] = []
    parts = {name: content for name, content in PARTS.items() if name != "volumes/loki-data.tar"}
    restore(compose, file_of(whole(parts)), said.append)
    assert [each for each in program.asked() if each[:2] == ["volume", "create"]] == [
        ["volume", "create", "--label=com.docker.compose.project=p", "--label=com.docker.compose.volume=grafana-data",
         "p_grafana-data"]
    ]  # fmt: skip
    assert said == ["stopping the stack", "restoring grafana-data (0.0 MB)"]


def test_restore_of_a_volume_of_another_kind(program: DockerProgram, compose: Compose) -> None:
    """A driver, its options and labels that a site gave a volume are kept."""
    volume = {"name": "x", "driver": "local", "driver_opts": {"type": "nfs", "o": "addr=a"}, "labels": {"site": "b"}}
    project = {"name": "p", "services": {"pipeline": {"image": "i"}}, "volumes": {"loki-data": volume}}
    program.tell(Answer(("config", "json"), json.dumps(project)), Answer(("run", UNPACK)))
    restore(compose, file_of(whole({"volumes/loki-data.tar": b"l"})), lambda _: None)
    (made,) = [each for each in program.asked() if each[:2] == ["volume", "create"]]
    assert {"--label=site=b", "--driver=local", "--opt=type=nfs", "--opt=o=addr=a"} < set(made)
    assert made[-1] == "x"


def test_restore_passes_a_volume_on_as_it_comes(
    program: DockerProgram, compose: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """No copy of a volume is laid down on this machine: without a folder for temporary files it works as well."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    big = b"v" * 3_000_000
    program.tell(Answer(("run", "--volume=p_loki-data:/volume"), reads=str(tmp_path / "got")), Answer(("run", UNPACK)))
    monkeypatch.setattr(backup, "_TOLD_EVERY_BYTES", 2_000_000)
    said: list[str] = []
    restore(compose, file_of(whole(PARTS | {"volumes/loki-data.tar": big})), said.append)
    assert (tmp_path / "got").read_bytes() == big
    assert [line for line in said if " of " in line] == [
        "checked 2.1 MB of 3.0 MB", "loki-data: restored 2.1 MB of 3.0 MB",
    ]  # fmt: skip


def test_restore_tells_what_the_container_says(program: DockerProgram, compose: Compose) -> None:
    """A container that ends before it has read all, or says much, stops nothing but this restore."""
    parts = file_of(whole(PARTS | {"volumes/loki-data.tar": b"v" * 3_000_000}))
    program.tell(
        Answer(("run", "--volume=p_loki-data:/volume"), err="no room " * 50_000, code=2), Answer(("run", UNPACK))
    )
    error = refused(lambda: restore(compose, parts, lambda _: None))
    assert str(error.given) == "p_loki-data: " + ("no room " * 50)[:300]


def test_backup_that_cannot_be_read_to_its_end(program: DockerProgram, compose: Compose, tmp_path: Path) -> None:
    """A disk that fails while a volume is passed on fails the restore: half a volume is not taken for a whole one."""
    program.tell(Answer(("run", UNPACK), reads=str(tmp_path / "got")))

    def broken() -> Iterator[bytes]:
        yield b"half"
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output error"):
        Volumes(compose).replace("loki-data", broken())
    assert (tmp_path / "got").read_bytes() == b"half"


@pytest.mark.parametrize(("free", "held", "enough"), [(0, 0, False), (0, 1, False), (2, 2, True), (4, 0, True)])
def test_room_is_asked_for_first(
    program: DockerProgram, compose: Compose, free: int, held: int, *, enough: bool
) -> None:
    """Where the volumes' disk is too small, also without what they hold now, the stack is not even stopped."""
    program.tell(
        Answer(("run", "df -Pk /volume"), f"Filesystem\n/dev/x 9 9 {free} 9% /volume\n"),
        Answer(("run", "du -sk /volume"), f"{held}\t/volume\n"),
        Answer(("run", UNPACK)),
    )
    if enough:
        restore(compose, file_of(WHOLE), lambda _: None)
        return
    assert str(refused(lambda: restore(compose, file_of(WHOLE), lambda _: None))) == (
        "a backup must fit on Docker's disk to be restored (got '0.0 MB, with room for 0.0 MB'); "
        "free some space; nothing was changed"
    )
    assert "down" not in {each[0] for each in program.compose_commands()}
    assert (compose.root / ".stack/secrets/postgres_password").read_text() == "now postgres_password"


@pytest.mark.parametrize("said", ["", "no number here\n"])
def test_room_that_is_not_told(program: DockerProgram, compose: Compose, said: str) -> None:
    """A restore is tried where nobody knows how much room there is."""
    program.tell(Answer(("run", "df -Pk /volume"), said), Answer(("run", UNPACK)))
    restore(compose, file_of(WHOLE), lambda _: None)


def test_restore_without_the_image(program: DockerProgram, compose: Compose) -> None:
    """An image that does not build leaves everything as it is."""
    program.tell(Answer(("compose", "build"), code=1))
    assert str(refused(lambda: restore(compose, file_of(WHOLE), print))) == (
        "the pipeline's image must build; the lines above say why; nothing was changed"
    )
    assert "down" not in {each[0] for each in program.compose_commands()}


def test_restore_of_a_damaged_backup(program: DockerProgram, compose: Compose) -> None:
    """Nothing is asked of Docker, and no secret is changed."""
    assert refused(lambda: restore(compose, file_of(WHOLE[:5000]), print)).remedy == "use another; nothing was changed"
    assert program.asked() == []
    assert (compose.root / ".stack/secrets/postgres_password").read_text() == "now postgres_password"


@pytest.mark.parametrize(
    "name",
    [
        "secrets/../../escaped", "secrets/..", "secrets/alertmanager", "secrets/", "/escaped", "../escaped", "escaped",
        "secrets/../secrets/postgres_password", "secrets/x/postgres_password", "secrets/other",
        "volumes/../escaped.tar", "volumes/x/grafana-data.tar", "volumes/grafana-data", "volumes/of-a-later-one.tar",
        "volumes/x:/host", "./secrets/postgres_password",
    ],
)  # fmt: skip
def test_restore_of_a_name_that_is_not_ours(
    program: DockerProgram, compose: Compose, tmp_path: Path, name: str
) -> None:
    """A part whose name is none of the stack's own, however well it is signed, is refused before anything is touched."""
    archive = file_of(whole(PARTS | {name: b"evil"}))
    before = sorted(tmp_path.rglob("*"))
    error = refused(lambda: restore(compose, archive, print))
    assert error.rule == "every part of a backup must be a volume or a secret of this stack"
    assert error.given == [name]
    assert error.remedy == "use the version that made it"
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == [tmp_path / "bin" / "asked.jsonl"]
    assert {each[0] for each in program.compose_commands()} == {"config"}
    assert (compose.root / ".stack/secrets/postgres_password").read_text() == "now postgres_password"


def test_restore_that_fails_half_way(program: DockerProgram, compose: Compose) -> None:
    """A volume that cannot be written is named; run again, the restore is whole."""
    program.tell(Answer(("run", "--volume=p_loki-data:/volume"), err="no space", code=1), Answer(("run",)))
    assert str(refused(lambda: restore(compose, file_of(WHOLE), lambda _: None))) == (
        "a volume must be readable and writable (got 'p_loki-data: no space'); "
        "free some space or mend that, and restore again: until then the stack is down and half restored"
    )
    program.tell(Answer(("run",)))
    restore(compose, file_of(WHOLE), lambda _: None)
    assert (compose.root / ".stack/secrets/postgres_password").read_bytes() == PARTS["secrets/postgres_password"]


def test_secret_that_cannot_be_written(program: DockerProgram, compose: Compose) -> None:
    """A secret that cannot be written is said in one line."""
    secret = compose.root / ".stack" / "secrets" / "postgres_password"
    secret.unlink()
    secret.mkdir()
    assert str(refused(lambda: restore(compose, file_of(WHOLE), lambda _: None))) == (
        "a backup must be readable, and the secrets writable, to be restored "
        f"(got '{secret}: Is a directory'); mend that and restore again"
    )


ROOM = ("a backup needs room to be restored (got 'backup.tar: {}')", "free some space and restore again")
BROKEN = (
    "a backup must be readable, and the secrets writable, to be restored (got 'backup.tar: {}')",
    "mend that and restore again",
)


@pytest.mark.parametrize(
    ("failure", "shown", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device", ROOM),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "Disk quota exceeded", ROOM),
        (OSError(errno.EIO, "Input/output error"), "Input/output error", BROKEN),
        (tarfile.ReadError("unexpected end of data"), "ReadError", BROKEN),
    ],
)
def test_disk_that_fails(
    program: DockerProgram, compose: Compose, monkeypatch: pytest.MonkeyPatch,
    *, failure: Exception, shown: str, said: tuple[str, str],
) -> None:  # fmt: skip
    """Space is asked for where space is what is missing; a disk that fails is called that, and the restore is unfinished."""

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(Volumes, "replace", fail)
    assert str(refused(lambda: restore(compose, file_of(WHOLE), lambda _: None))) == "; ".join(said).format(shown)
    assert is_half_restored(compose.root)


def test_there_and_back(program: DockerProgram, compose: Compose) -> None:
    """What `back_up` writes, `restore` takes."""
    program.tell(Answer(("run", PACK), out="x"), Answer(("run", UNPACK)))
    archive = back_up(compose, Path("backups"), lambda _: None)
    secret = compose.root / ".stack" / "secrets" / "grafana_admin_password"
    secret.write_text("another")
    restore(compose, archive, lambda _: None)
    assert secret.read_text() == "now grafana_admin_password"
