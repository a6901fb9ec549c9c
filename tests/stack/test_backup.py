"""Backups: every kind of damage is refused before anything is touched, and no name in one leads anywhere else."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import stat
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_pipeline import __version__
from stack.backup import back_up, read_manifest, restore
from stack.docker import Compose, StackError
from stack.files import GENERATED
from tests.stack.docker_program import Answer, DockerProgram, healthy_engine

VOLUMES = {"grafana-data": "p_grafana-data", "loki-data": "p_loki-data"}
CONTAINERS = [{"Service": "grafana", "State": "running"}, {"Service": "loki", "State": "exited"}]
PARTS = {f"secrets/{name}": f"old {name}".encode() for name in GENERATED} | {
    "volumes/grafana-data.tar": b"g" * 3000,
    "volumes/loki-data.tar": b"l" * 100,
}
Members = list[tuple[str, bytes]]


def _manifest(parts: dict[str, bytes], **changed: Any) -> bytes:
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    told = {"format": 1, "version": __version__, "created": "2026-01-02T03:04:05Z", "sha256": digests}
    return json.dumps(told | changed).encode()


def _tar(members: Members) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def _whole(parts: dict[str, bytes] | None = None) -> bytes:
    chosen = PARTS if parts is None else parts
    return _tar([("manifest.json", _manifest(chosen)), *chosen.items()])


WHOLE = _whole()


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DockerProgram:
    """A Docker with two volumes, one running service and one that ended."""
    made = DockerProgram(tmp_path / "bin", healthy_engine(["grafana", "loki"], VOLUMES, CONTAINERS))
    made.install(monkeypatch)
    return made


@pytest.fixture
def compose(isolated: Path) -> Compose:
    """A stack with its secrets."""
    folder = isolated / ".stack" / "secrets"
    folder.mkdir(parents=True)
    for name in GENERATED:
        (folder / name).write_text(f"now {name}")
    (isolated / ".env").write_text("STACK_LOG_GROUP=0\n")
    return Compose(isolated)


@pytest.fixture
def small_disk(isolated: Path) -> Iterator[Path]:
    """A folder with room for next to nothing."""
    folder = isolated / "small"
    folder.mkdir()
    command = ["/bin/mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting needs root: {done.stderr.strip()}")
    yield folder
    subprocess.run(["/bin/umount", "--lazy", str(folder)], check=True)


def _file(content: bytes, name: str = "backup.tar") -> Path:
    path = Path(name)
    path.write_bytes(content)
    return path


def _refused(ask: Callable[[], object]) -> StackError:
    with pytest.raises(StackError) as refused:
        ask()
    return refused.value


def _parts(archive: Path) -> dict[str, bytes]:
    with tarfile.open(archive) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def test_whole(isolated: Path) -> None:
    """A backup that nobody touched gives its manifest."""
    assert read_manifest(_file(WHOLE))["created"] == "2026-01-02T03:04:05Z"
    assert read_manifest(_file(_whole({})))["sha256"] == {}


def test_missing(isolated: Path) -> None:
    """A name that is no file."""
    assert str(_refused(lambda: read_manifest(Path("none.tar")))) == (
        "a backup must exist to be restored (got 'none.tar'); name one: make restore FILE=…"
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"text " * 500, gzip.compress(WHOLE), gzip.compress(WHOLE)[:-50], b"\x1f\x8b\x08\0" * 300, b"PK\3\4" * 200],
    ids=["empty", "text", "compressed", "compressed-cut", "gzip-junk", "zip-junk"],
)
def test_not_a_tar(isolated: Path, content: bytes) -> None:
    """A file of another kind, a compressed one too, is no backup."""
    assert str(_refused(lambda: read_manifest(_file(content)))) == (
        "a backup must be whole (got 'backup.tar: ReadError'); use another; nothing was changed"
    )


def test_a_folder(isolated: Path) -> None:
    """A folder is none either."""
    assert str(_refused(lambda: read_manifest(isolated))).startswith("a backup must be whole (got ")


@pytest.mark.parametrize("members", [[], [("other.txt", b"x")], [*PARTS.items(), ("manifest.json", _manifest(PARTS))]])
def test_without_its_manifest(isolated: Path, members: Members) -> None:
    """A tar archive that does not begin with a manifest."""
    assert str(_refused(lambda: read_manifest(_file(_tar(members))))) == (
        "a backup must begin with its manifest (got 'backup.tar'); name a file of make backup"
    )


@pytest.mark.parametrize("form", [2, 0, "1", None])
def test_of_another_form(isolated: Path, form: object) -> None:
    """A newer version's backup is left to the newer version."""
    content = _tar([("manifest.json", _manifest(PARTS, format=form)), *PARTS.items()])
    assert str(_refused(lambda: read_manifest(_file(content)))) == (
        f"this version reads backups of form 1 (got {form!r}); use the version that made it"
    )


@pytest.mark.parametrize(
    "manifest",
    [
        b"", b"{", b"\xff\xfe", b"[]", b"1", b"null", b"{}", b'"text"', b'{"format": 1}',
        _manifest(PARTS, sha256=None), _manifest(PARTS, sha256=["x"]), _manifest(PARTS, created=5),
        b'{"format": 1, "sha256": {}}',
    ],
)  # fmt: skip
def test_manifest_that_is_none(isolated: Path, manifest: bytes) -> None:
    """A manifest of another shape."""
    refused = _refused(lambda: read_manifest(_file(_tar([("manifest.json", manifest), *PARTS.items()]))))
    assert re.fullmatch(
        r"a backup must be whole \(got 'backup\.tar: \w+Error'\); use another; nothing was changed", str(refused)
    )


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ([item for item in PARTS.items() if item[0] != "volumes/loki-data.tar"], "volumes/loki-data.tar"),
        ([*PARTS.items(), ("volumes/more.tar", b"")], "volumes/more.tar"),
        ([*(PARTS | {"secrets/postgres_password": b"x"}).items()], "secrets/postgres_password"),
        ([*PARTS.items(), ("secrets/postgres_password", b"second")], "secrets/postgres_password"),
    ],
    ids=["missing", "extra", "changed", "twice"],
)
def test_parts_that_differ_from_the_manifest(isolated: Path, members: Members, named: str) -> None:
    """The part that is missing, added or changed is named."""
    assert str(_refused(lambda: read_manifest(_file(_tar([("manifest.json", _manifest(PARTS)), *members]))))) == (
        f"a backup must be whole (got 'backup.tar: {named}'); use another; nothing was changed"
    )


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("name", ["manifest.json", "volumes/loki-data.tar"])
def test_part_that_is_no_file(isolated: Path, kind: bytes, name: str) -> None:
    """Folders, links and devices have no place in it; a link is not followed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        if name != "manifest.json":
            content = _manifest({name: PARTS["secrets/postgres_password"]})
            entry = tarfile.TarInfo("manifest.json")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "manifest.json"
        tar.addfile(entry)
    assert str(_refused(lambda: read_manifest(_file(file.getvalue())))) == (
        "a backup must be whole (got 'backup.tar: ReadError'); use another; nothing was changed"
    )


def _refused_or_the_same(content: bytes) -> None:
    """A damaged backup is refused in one line, unless the damage lies where nothing is: all that counts is the same."""
    path = _file(content)
    try:
        manifest = read_manifest(path)
    except StackError:
        return
    assert manifest["sha256"] == json.loads(_manifest(PARTS))["sha256"]
    assert {name: content for name, content in _parts(path).items() if name in PARTS} == PARTS


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(length=st.integers(0, len(WHOLE) - 1))
def test_cut_off_anywhere(isolated: Path, length: int) -> None:
    """Whatever is missing at the end."""
    _refused_or_the_same(WHOLE[:length])


@settings(max_examples=500, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(WHOLE) - 1), flip=st.integers(1, 255))
def test_one_byte_changed_anywhere(isolated: Path, place: int, flip: int) -> None:
    """Whichever byte is another one."""
    content = bytearray(WHOLE)
    content[place] ^= flip
    _refused_or_the_same(bytes(content))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, len(WHOLE) - 1), junk=st.binary(min_size=1, max_size=600))
def test_a_stretch_overwritten_anywhere(isolated: Path, place: int, junk: bytes) -> None:
    """Whatever was written over a part of it."""
    _refused_or_the_same((WHOLE[:place] + junk + WHOLE[place + len(junk) :])[: len(WHOLE)])


@pytest.mark.parametrize("name", PARTS)
def test_one_byte_of_a_part_changed(isolated: Path, name: str) -> None:
    """A change within a volume or a secret is always found, and the part named."""
    with tarfile.open(_file(WHOLE)) as tar:
        place = tar.getmember(name).offset_data
    content = bytearray(WHOLE)
    content[place] ^= 1
    assert _refused(lambda: read_manifest(_file(bytes(content)))).given == f"backup.tar: {name}"


def test_back_up(program: DockerProgram, compose: Compose) -> None:
    """Volumes and secrets are in one file that only its owner reads; what ran is stopped meanwhile, and runs again."""
    program.tell(Answer(("run",), out="what tar says"))
    said: list[str] = []
    archive = back_up(compose, Path("deep/backups"), said.append)
    assert re.fullmatch(r"deep/backups/stack-\d{8}T\d{6}Z\.tar", str(archive))
    assert list(archive.parent.iterdir()) == [archive]
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    manifest = read_manifest(archive)
    assert (manifest["format"], manifest["version"]) == (1, __version__)
    parts = _parts(archive)
    assert next(iter(parts)) == "manifest.json"
    del parts["manifest.json"]
    assert parts == {f"secrets/{name}": f"now {name}".encode() for name in GENERATED} | {
        f"volumes/{key}.tar": b"what tar says" for key in VOLUMES
    }
    commands = [each for each in program.compose_commands() if each[0] in ("stop", "up")]
    assert commands == [["stop"], ["up", "--detach", "--wait", "--no-build", "--no-recreate", "grafana"]]
    assert said[0] == "stopping the services, so that what is saved is of one moment"
    assert said[-1] == "starting them again"
    for call in (each for each in program.asked() if each[0] == "run"):
        assert {"--network=none", "--read-only", "--cap-drop=ALL", "--cap-add=DAC_READ_SEARCH"} <= set(call)
        assert any(re.fullmatch(r"--volume=p_[a-z-]+:/volume:ro", word) for word in call)


def test_back_up_of_a_stopped_stack(program: DockerProgram, compose: Compose) -> None:
    """Nothing is stopped, and nothing is started afterwards."""
    program.answers = healthy_engine(["grafana"], VOLUMES, [])
    program.tell(Answer(("run",), out="x"))
    back_up(compose, Path("backups"), lambda _: None)
    assert not [each for each in program.compose_commands() if each[0] in ("stop", "up")]


def test_back_up_without_a_stack(program: DockerProgram, compose: Compose) -> None:
    """Without a volume there is nothing to save."""
    program.tell(Answer(("volume", "ls"), out="of_another_project\n"))
    assert str(_refused(lambda: back_up(compose, Path("backups"), print))) == (
        "there must be a stack to back up (got 'work'); run make up first"
    )
    assert not Path("backups").exists()


def test_back_up_of_a_volume_that_cannot_be_read(program: DockerProgram, compose: Compose) -> None:
    """What Docker says is passed on, nothing half-written is left, and the services run again."""
    program.tell(Answer(("run",), err="tar: cannot open\n  x", code=2))
    assert str(_refused(lambda: back_up(compose, Path("backups"), lambda _: None))) == (
        "a volume must be readable and writable (got 'p_grafana-data: tar: cannot open x'); mend that and run it again"
    )
    assert list(Path("backups").iterdir()) == []
    assert program.compose_commands()[-1][0] == "up"


def test_back_up_onto_a_full_disk(program: DockerProgram, compose: Compose, small_disk: Path) -> None:
    """A disk too small: one line, nothing half-written, and the services run again."""
    program.tell(Answer(("run",), out="x" * 5000))
    refused = _refused(lambda: back_up(compose, small_disk, lambda _: None))
    assert refused.rule in ("a backup must fit on its disk", "a volume must be readable and writable")
    assert "No space left on device" in str(refused.given)
    assert list(small_disk.iterdir()) == []
    assert program.compose_commands()[-1][0] == "up"


def test_back_up_into_a_file(program: DockerProgram, compose: Compose) -> None:
    """A folder that cannot be made."""
    Path("backups").write_text("")
    refused = _refused(lambda: back_up(compose, Path("backups"), lambda _: None))
    assert str(refused) == (
        "a backup must fit on its disk (got 'backups: File exists'); free some space, or name another DIR"
    )


def test_restore(program: DockerProgram, compose: Compose, tmp_path: Path) -> None:
    """Secrets are the backup's, each volume is given its own part, and the stack is down meanwhile."""
    for key, name in VOLUMES.items():
        program.tell(Answer(("run", f"--volume={name}:/volume"), reads=str(tmp_path / key)))
    said: list[str] = []
    restore(compose, _file(WHOLE), said.append)
    folder = compose.root / ".stack" / "secrets"
    for name in GENERATED:
        assert (folder / name).read_bytes() == PARTS[f"secrets/{name}"]
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o444
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {key: (tmp_path / key).read_bytes() for key in VOLUMES} == {
        key: PARTS[f"volumes/{key}.tar"] for key in VOLUMES
    }
    assert [each[0] for each in program.compose_commands() if each[0] != "config"] == ["down", "create"]
    assert said == ["stopping the stack", "restoring grafana-data (0.0 MB)", "restoring loki-data (0.0 MB)"]


def test_restore_of_a_damaged_backup(program: DockerProgram, compose: Compose) -> None:
    """Nothing is asked of Docker, and no secret is changed."""
    assert _refused(lambda: restore(compose, _file(WHOLE[:5000]), print)).remedy == "use another; nothing was changed"
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
    archive = _file(_whole(PARTS | {name: b"evil"}))
    before = sorted(tmp_path.rglob("*"))
    refused = _refused(lambda: restore(compose, archive, print))
    assert refused.rule == "every part of a backup must be a volume or a secret of this stack"
    assert refused.given == [name]
    assert refused.remedy == "use the version that made it"
    assert [path for path in sorted(tmp_path.rglob("*")) if path not in before] == [tmp_path / "bin" / "asked.jsonl"]
    assert {each[0] for each in program.compose_commands()} == {"config"}
    assert (compose.root / ".stack/secrets/postgres_password").read_text() == "now postgres_password"


def test_restore_that_fails_half_way(program: DockerProgram, compose: Compose) -> None:
    """A volume that cannot be written is named; run again, the restore is whole."""
    program.tell(Answer(("run", "--volume=p_loki-data:/volume"), err="no space", code=1), Answer(("run",)))
    assert str(_refused(lambda: restore(compose, _file(WHOLE), lambda _: None))) == (
        "a volume must be readable and writable (got 'p_loki-data: no space'); mend that and run it again"
    )
    program.tell(Answer(("run",)))
    restore(compose, _file(WHOLE), lambda _: None)
    assert (compose.root / ".stack/secrets/postgres_password").read_bytes() == PARTS["secrets/postgres_password"]


def test_restore_without_room(program: DockerProgram, compose: Compose) -> None:
    """A secret that cannot be written is said in one line."""
    secret = compose.root / ".stack" / "secrets" / "postgres_password"
    secret.unlink()
    secret.mkdir()
    assert str(_refused(lambda: restore(compose, _file(WHOLE), lambda _: None))) == (
        "a backup needs room to be restored (got 'Is a directory'); free some space and run it again"
    )


def test_there_and_back(program: DockerProgram, compose: Compose) -> None:
    """What `back_up` writes, `restore` takes."""
    program.tell(Answer(("run",), out="x"))
    archive = back_up(compose, Path("backups"), lambda _: None)
    secret = compose.root / ".stack" / "secrets" / "grafana_admin_password"
    secret.write_text("another")
    restore(compose, archive, lambda _: None)
    assert secret.read_text() == "now grafana_admin_password"
