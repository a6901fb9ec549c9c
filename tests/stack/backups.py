"""Backups for tests: whole ones, of any parts, and what is asked of them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline import __version__
from stack.docker import Compose, StackError
from stack.files import GENERATED, MARK
from tests.stack.docker_program import DockerProgram, healthy_engine

__all__ = [
    "CONTAINERS", "EMPTY", "PACK", "PARTS", "UNPACK", "VOLUMES", "WHOLE", "Members", "docker_with_volumes", "file_of",
    "manifest_of", "parts_of", "refused", "stack_with_secrets", "tar_of", "whole",
]  # fmt: skip

VOLUMES = {"grafana-data": "p_grafana-data", "loki-data": "p_loki-data"}
CONTAINERS = [
    {"Service": "grafana", "State": "running", "Name": "p-grafana-1"},
    {"Service": "loki", "State": "exited", "Name": "p-loki-1"},
]
PARTS = {f"secrets/{name}": f"old {name}".encode() for name in GENERATED} | {
    "volumes/grafana-data.tar": b"g" * 3000,
    "volumes/loki-data.tar": b"l" * 100,
}
PACK = "tar --warning=no-file-changed -C /volume -cf - ."
EMPTY = "find /volume -mindepth 1 -delete"
UNPACK = f"{EMPTY} && tar -C /volume -xpf -"
Members = list[tuple[str, bytes]]


def manifest_of(parts: dict[str, bytes], **changed: Any) -> bytes:
    """The manifest that belongs to parts, or one that is changed."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    told = {"format": 1, "version": __version__, "created": "2026-01-02T03:04:05Z", "sha256": digests}
    return json.dumps(told | changed).encode()


def tar_of(members: Members) -> bytes:
    """A tar archive of members."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def whole(parts: dict[str, bytes] | None = None) -> bytes:
    """A backup that nobody touched."""
    chosen = PARTS if parts is None else parts
    return tar_of([("manifest.json", manifest_of(chosen)), *chosen.items()])


WHOLE = whole()


def file_of(content: bytes, name: str = "backup.tar") -> Path:
    """A file in the working directory."""
    path = Path(name)
    path.write_bytes(content)
    return path


def refused(ask: Callable[[], object]) -> StackError:
    """What is raised, which must be one of the stack's errors."""
    with pytest.raises(StackError) as error:
        ask()
    return error.value


def parts_of(archive: Path) -> dict[str, bytes]:
    """What a backup holds."""
    with tarfile.open(archive) as tar:
        return {each.name: tar.extractfile(each).read() for each in tar}  # type: ignore[union-attr]


def docker_with_volumes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> DockerProgram:
    """Install a Docker with two volumes, one running service and one that ended."""
    made = DockerProgram(folder, healthy_engine(["grafana", "loki"], VOLUMES, CONTAINERS))
    made.install(monkeypatch)
    return made


def stack_with_secrets(root: Path) -> Compose:
    """Make what `make up` leaves in a folder."""
    folder = root / ".stack" / "secrets"
    folder.mkdir(parents=True)
    for name in GENERATED:
        (folder / name).write_text(f"now {name}")
    (root / ".stack" / MARK).touch()
    (root / ".env").write_text("STACK_LOG_GROUP=0\n")
    return Compose(root)
