"""Backups: every kind of damage is refused before anything is touched, and no name in one leads anywhere else."""

from __future__ import annotations

import gzip
import io
import json
import re
import stat
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_pipeline import __version__
from stack.backup import back_up, read_manifest
from stack.docker import Compose, StackError
from stack.files import GENERATED
from tests.stack.backups import (
    PARTS,
    VOLUMES,
    WHOLE,
    Members,
    docker_with_volumes,
    file_of,
    manifest_of,
    parts_of,
    refused,
    stack_with_secrets,
    tar_of,
    whole,
)
from tests.stack.docker_program import Answer, DockerProgram, healthy_engine


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> DockerProgram:
    """A Docker with two volumes, one running service and one that ended."""
    return docker_with_volumes(tmp_path / "bin", monkeypatch)


@pytest.fixture
def compose(isolated: Path) -> Compose:
    """A stack with its secrets."""
    return stack_with_secrets(isolated)


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


def test_whole(isolated: Path) -> None:
    """A backup that nobody touched gives its manifest."""
    assert read_manifest(file_of(WHOLE))["created"] == "2026-01-02T03:04:05Z"
    assert read_manifest(file_of(whole({})))["sha256"] == {}


def test_missing(isolated: Path) -> None:
    """A name that is no file."""
    assert str(refused(lambda: read_manifest(Path("none.tar")))) == (
        "a backup must exist to be restored (got 'none.tar'); name one: make restore FILE=…"
    )


@pytest.mark.parametrize(
    "content",
    [b"", b"text " * 500, gzip.compress(WHOLE), gzip.compress(WHOLE)[:-50], b"\x1f\x8b\x08\0" * 300, b"PK\3\4" * 200],
    ids=["empty", "text", "compressed", "compressed-cut", "gzip-junk", "zip-junk"],
)
def test_not_a_tar(isolated: Path, content: bytes) -> None:
    """A file of another kind, a compressed one too, is no backup."""
    assert str(refused(lambda: read_manifest(file_of(content)))) == (
        "a backup must be whole (got 'backup.tar: ReadError'); use another; nothing was changed"
    )


def test_a_folder(isolated: Path) -> None:
    """A folder is none either."""
    assert str(refused(lambda: read_manifest(isolated))).startswith("a backup must be whole (got ")


@pytest.mark.parametrize(
    "members", [[], [("other.txt", b"x")], [*PARTS.items(), ("manifest.json", manifest_of(PARTS))]]
)
def test_without_its_manifest(isolated: Path, members: Members) -> None:
    """A tar archive that does not begin with a manifest."""
    assert str(refused(lambda: read_manifest(file_of(tar_of(members))))) == (
        "a backup must begin with its manifest (got 'backup.tar'); name a file of make backup"
    )


@pytest.mark.parametrize("form", [2, 0, "1", None])
def test_of_another_form(isolated: Path, form: object) -> None:
    """A newer version's backup is left to the newer version."""
    content = tar_of([("manifest.json", manifest_of(PARTS, format=form)), *PARTS.items()])
    assert str(refused(lambda: read_manifest(file_of(content)))) == (
        f"this version reads backups of form 1 (got {form!r}); use the version that made it"
    )


@pytest.mark.parametrize(
    "manifest",
    [
        b"", b"{", b"\xff\xfe", b"[]", b"1", b"null", b"{}", b'"text"', b'{"format": 1}',
        manifest_of(PARTS, sha256=None), manifest_of(PARTS, sha256=["x"]), manifest_of(PARTS, created=5),
        b'{"format": 1, "sha256": {}}',
    ],
)  # fmt: skip
def test_manifest_that_is_none(isolated: Path, manifest: bytes) -> None:
    """A manifest of another shape."""
    error = refused(lambda: read_manifest(file_of(tar_of([("manifest.json", manifest), *PARTS.items()]))))
    assert re.fullmatch(
        r"a backup must be whole \(got 'backup\.tar: \w+Error'\); use another; nothing was changed", str(error)
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
    assert str(refused(lambda: read_manifest(file_of(tar_of([("manifest.json", manifest_of(PARTS)), *members]))))) == (
        f"a backup must be whole (got 'backup.tar: {named}'); use another; nothing was changed"
    )


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
@pytest.mark.parametrize("name", ["manifest.json", "volumes/loki-data.tar"])
def test_part_that_is_no_file(isolated: Path, kind: bytes, name: str) -> None:
    """Folders, links and devices have no place in it; a link is not followed."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        if name != "manifest.json":
            content = manifest_of({name: PARTS["secrets/postgres_password"]})
            entry = tarfile.TarInfo("manifest.json")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kind, "manifest.json"
        tar.addfile(entry)
    assert str(refused(lambda: read_manifest(file_of(file.getvalue())))) == (
        "a backup must be whole (got 'backup.tar: ReadError'); use another; nothing was changed"
    )


def _refused_or_the_same(content: bytes) -> None:
    """A damaged backup is refused in one line, unless the damage lies where nothing is: all that counts is the same."""
    path = file_of(content)
    try:
        manifest = read_manifest(path)
    except StackError:
        return
    assert manifest["sha256"] == json.loads(manifest_of(PARTS))["sha256"]
    assert {name: content for name, content in parts_of(path).items() if name in PARTS} == PARTS


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
    with tarfile.open(file_of(WHOLE)) as tar:
        place = tar.getmember(name).offset_data
    content = bytearray(WHOLE)
    content[place] ^= 1
    assert refused(lambda: read_manifest(file_of(bytes(content)))).given == f"backup.tar: {name}"


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
    parts = parts_of(archive)
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


def test_back_up_while_a_service_is_ill(program: DockerProgram, compose: Compose) -> None:
    """The backup is as good; what ran runs again, and it is said that not all of it is well."""
    program.tell(
        Answer(("run",), out="x"), Answer(("compose", "up"), err="container p-mailpit-1 is unhealthy", code=1),
        Answer(("start",)),
    )  # fmt: skip
    said: list[str] = []
    assert read_manifest(back_up(compose, Path("backups"), said.append))["format"] == 1
    assert program.asked()[-1] == ["start", "p-grafana-1"], "Compose leaves out what depends on the one that is ill"
    assert said[-1] == (
        "warning: not every service became healthy again (container p-mailpit-1 is unhealthy): see make ps"
    )


def test_back_up_that_fails_while_a_service_is_ill(program: DockerProgram, compose: Compose) -> None:
    """What is told is why there is no backup, and no more than a warning that the services are ill or will not start."""
    program.tell(
        Answer(("run",), err="tar: bad disk", code=2), Answer(("compose", "up"), err="unhealthy", code=1),
        Answer(("start",), err="no such network", code=1),
    )  # fmt: skip
    said: list[str] = []
    assert "tar: bad disk" in str(refused(lambda: back_up(compose, Path("backups"), said.append)))
    assert said[-1].startswith("warning: not every service became healthy again (unhealthy)")


def test_back_up_of_a_stopped_stack(program: DockerProgram, compose: Compose) -> None:
    """Nothing is stopped, and nothing is started afterwards."""
    program.answers = healthy_engine(["grafana"], VOLUMES, [])
    program.tell(Answer(("run",), out="x"))
    back_up(compose, Path("backups"), lambda _: None)
    assert not [each for each in program.compose_commands() if each[0] in ("stop", "up")]


def test_back_up_without_a_stack(program: DockerProgram, compose: Compose) -> None:
    """Without a volume there is nothing to save."""
    program.tell(Answer(("volume", "ls"), out="of_another_project\n"))
    assert str(refused(lambda: back_up(compose, Path("backups"), print))) == (
        "there must be a stack to back up (got 'work'); run make up first"
    )
    assert not Path("backups").exists()


def test_back_up_of_a_volume_that_cannot_be_read(program: DockerProgram, compose: Compose) -> None:
    """What Docker says is passed on, nothing half-written is left, and the services run again."""
    program.tell(Answer(("run",), err="tar: cannot open\n  x", code=2))
    assert str(refused(lambda: back_up(compose, Path("backups"), lambda _: None))) == (
        "a volume must be readable and writable (got 'p_grafana-data: tar: cannot open x'); mend that and run it again"
    )
    assert list(Path("backups").iterdir()) == []
    assert program.compose_commands()[-1][0] == "up"


def test_back_up_while_another_writes(program: DockerProgram, compose: Compose) -> None:
    """A container that is not of the stack may go on writing: the file is whole, and it is said what may be missing."""
    program.tell(
        Answer(("run", "--volume=p_loki-data:/volume:ro"), out="what tar says", code=1), Answer(("run",), out="x")
    )
    said: list[str] = []
    archive = back_up(compose, Path("backups"), said.append)
    assert parts_of(archive)["volumes/loki-data.tar"] == b"what tar says"
    assert "loki-data was written to by another while it was read: what was written then may be missing" in said
    assert "saved loki-data (0.0 MB)" in said
    assert not [line for line in said if line.startswith("grafana-data was")]


def test_back_up_without_tar(program: DockerProgram, compose: Compose) -> None:
    """The same code with nothing written is a failure: an archive is never empty."""
    program.tell(Answer(("run",), err="tar: unrecognized option", code=1))
    assert "p_grafana-data: tar: unrecognized option" in str(
        refused(lambda: back_up(compose, Path("backups"), lambda _: None))
    )
    assert list(Path("backups").iterdir()) == []


def test_back_up_onto_a_full_disk(program: DockerProgram, compose: Compose, small_disk: Path) -> None:
    """A disk too small: one line, nothing half-written, and the services run again."""
    program.tell(Answer(("run",), out="x" * 5000))
    error = refused(lambda: back_up(compose, small_disk, lambda _: None))
    assert error.rule in ("a backup must fit on its disk", "a volume must be readable and writable")
    assert "No space left on device" in str(error.given)
    assert list(small_disk.iterdir()) == []
    assert program.compose_commands()[-1][0] == "up"


def test_back_up_into_a_file(program: DockerProgram, compose: Compose) -> None:
    """A folder that cannot be made."""
    Path("backups").write_text("")
    error = refused(lambda: back_up(compose, Path("backups"), lambda _: None))
    assert str(error) == ("a backup must be writable (got 'backups: File exists'); mend that, or name another DIR")
