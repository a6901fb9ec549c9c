"""Saving the stack's volumes and secrets to one file, and bringing them back.

The file is a tar archive, readable by its owner alone, for it holds the passwords::

    manifest.json          when, of which version, and the SHA-256 of every other member
    secrets/<name>         what `make up` generated
    volumes/<volume>.tar   each volume, as tar saw it from inside a container
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tarfile
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import __version__
from stack.docker import Compose, StackError, docker
from stack.files import GENERATED, STATE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["back_up", "read_manifest", "restore"]

_MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_CHUNK_BYTES: Final = 1 << 20


def back_up(compose: Compose, folder: Path, say: Callable[[str], None]) -> Path:
    """Save every volume and secret; services that run are stopped for it and started again, whatever comes of it.

    Args:
        compose: The project.
        folder: Where the file is written to.
        say: Told what is being done.

    Returns:
        The file.

    Raises:
        StackError: If there is nothing to save, a volume cannot be read, or the disk is full; no
            half-written file is left.
    """
    volumes = _existing_volumes(compose)
    if not volumes:
        raise StackError("there must be a stack to back up", compose.root.name, "run make up first")
    image = _image(compose)
    running = sorted({each["Service"] for each in compose.containers() if each.get("State") == "running"})
    target = folder / f"stack-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside the result, not in /tmp, which may be memory; gone afterwards, whatever comes of it.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".stack-") as scratch:
            if running:
                say("stopping the services, so that what is saved is of one moment")
                compose.read("stop", every_profile=True)
            _archive(Path(scratch), compose.root / STATE / "secrets", volumes, image, say).replace(target)
    except OSError as refused:
        raise StackError(
            "a backup must fit on its disk", f"{folder}: {refused.strerror}", "free some space, or name another DIR"
        ) from None
    finally:
        if running:
            say("starting them again")
            compose.read("up", "--detach", "--wait", "--no-build", "--no-recreate", *running)
    return target


def read_manifest(archive: Path) -> dict[str, Any]:
    """Read and check a backup, every byte of it.

    Args:
        archive: The file.

    Returns:
        Its manifest.

    Raises:
        StackError: If it is no backup, of a newer form, cut off, or changed.
    """
    try:
        with _opened(archive) as tar:
            first = tar.next()
            if first is None or first.name != _MANIFEST:
                raise StackError("a backup must begin with its manifest", str(archive), "name a file of make backup")
            manifest = _checked(json.loads(_member(tar, first).read()))
            found = {each.name: _sha256(_member(tar, each)) for each in iter(tar.next, None)}
    except FileNotFoundError:
        raise StackError("a backup must exist to be restored", str(archive), "name one: make restore FILE=…") from None
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError, ArithmeticError) as broken:
        raise StackError(
            "a backup must be whole", f"{archive}: {type(broken).__name__}", "use another; nothing was changed"
        ) from None
    told: dict[str, str] = manifest["sha256"]
    if found != told:
        changed = sorted(name for name in {*found, *told} if found.get(name) != told.get(name))
        raise StackError(
            "a backup must be whole", f"{archive}: {', '.join(changed)}", "use another; nothing was changed"
        )
    return manifest


def restore(compose: Compose, archive: Path, say: Callable[[str], None]) -> None:
    """Replace every volume and secret by those of a backup; the stack is down afterwards.

    Interrupted, it can simply be run again: nothing is taken from what it replaces.

    Args:
        compose: The project.
        archive: A file of `back_up`.
        say: Told what is being done.

    Raises:
        StackError: If the backup is not whole, before anything is touched, or a volume cannot be written.
    """
    read_manifest(archive)
    volumes = {f"volumes/{key}.tar": (key, name) for key, name in _volumes(compose).items()}
    secrets = {f"secrets/{name}": compose.root / STATE / "secrets" / name for name in GENERATED}
    try:
        with _opened(archive) as tar:
            members = {each.name: each for each in tar if each.name != _MANIFEST}
            # Names decide what is written, so only the known ones are taken: none can lead anywhere else.
            stale = sorted(set(members) - set(volumes) - set(secrets))
            if stale:
                raise StackError(
                    "every part of a backup must be a volume or a secret of this stack",
                    stale,
                    "use the version that made it",
                )
            say("stopping the stack")
            compose.read("down", every_profile=True)
            for name in sorted(set(members) & set(secrets)):
                _restore_secret(secrets[name], _member(tar, members[name]).read())
            compose.read("create", "--build", every_profile=True)  # makes the volumes, with the right owners
            image = _image(compose)
            for name in sorted(set(members) & set(volumes)):
                key, volume = volumes[name]
                say(f"restoring {key} ({members[name].size / 1e6:.1f} MB)")
                _unpack(volume, image, _member(tar, members[name]))
    except OSError as refused:
        raise StackError(
            "a backup needs room to be restored", str(refused.strerror), "free some space and run it again"
        ) from None


def _archive(scratch: Path, secrets: Path, volumes: dict[str, str], image: str, say: Callable[[str], None]) -> Path:
    """Write the manifest first, so that a reader knows at once what it has; the parts are copied before."""
    parts = {f"secrets/{name}": secrets / name for name in GENERATED if (secrets / name).is_file()}
    for key, volume in volumes.items():
        part = scratch / f"{key}.tar"
        _pack(volume, image, part)
        say(f"saved {key} ({part.stat().st_size / 1e6:.1f} MB)")
        parts[f"volumes/{key}.tar"] = part
    manifest = {
        "format": _FORMAT,
        "version": __version__,
        "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        "sha256": {name: _sha256(path.open("rb")) for name, path in parts.items()},
    }
    (scratch / _MANIFEST).write_text(json.dumps(manifest, indent=2))
    archive = scratch / "archive"
    with os.fdopen(os.open(archive, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, path in {_MANIFEST: scratch / _MANIFEST, **parts}.items():
                tar.add(path, name)
        file.flush()
        os.fsync(file.fileno())
    return archive


def _pack(volume: str, image: str, target: Path) -> None:
    with target.open("wb") as out:
        _in_container(volume, image, "tar -C /volume -cf - .", stdout=out, writes=False)


def _unpack(volume: str, image: str, source: Any) -> None:
    with tempfile.TemporaryFile() as copy:
        for chunk in _chunks(source):
            copy.write(chunk)
        copy.seek(0)
        command = "find /volume -mindepth 1 -delete && tar -C /volume -xpf -"
        _in_container(volume, image, command, stdin=copy, writes=True)


def _in_container(
    volume: str, image: str, command: str, *, writes: bool, stdin: Any = None, stdout: Any = None
) -> None:
    """Run a command that sees one volume and nothing else, with only the rights that other users' files ask for."""
    rights = ("CHOWN", "FOWNER", "DAC_OVERRIDE") if writes else ("DAC_READ_SEARCH",)
    done = subprocess.run(
        ["docker", "run", "--rm", "--interactive", "--network=none", "--user=0:0", "--read-only", "--cap-drop=ALL"]
        + [f"--cap-add={right}" for right in rights]
        + [f"--volume={volume}:/volume{'' if writes else ':ro'}", "--entrypoint=sh", image, "-c", command],
        stdin=stdin or subprocess.DEVNULL,
        stdout=stdout or subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        check=False,
    )
    if done.returncode:
        said = " ".join(done.stderr.decode("utf-8", "replace").split())[:300]
        raise StackError("a volume must be readable and writable", f"{volume}: {said}", "mend that and run it again")


def _restore_secret(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    path.chmod(0o444)


def _volumes(compose: Compose) -> dict[str, str]:
    return {key: volume["name"] for key, volume in compose.configuration()["volumes"].items()}


def _existing_volumes(compose: Compose) -> dict[str, str]:
    there = set(docker("volume", "ls", "--format", "{{.Name}}").splitlines())
    return {key: name for key, name in _volumes(compose).items() if name in there}


def _image(compose: Compose) -> str:
    return str(compose.configuration()["services"]["pipeline"]["image"])


def _opened(archive: Path) -> tarfile.TarFile:
    return tarfile.open(archive, "r:")


def _checked(manifest: Any) -> dict[str, Any]:
    """Refuse what is not shaped like a manifest; ``sha256`` must be a digest by name."""
    if manifest["format"] != _FORMAT:
        raise StackError("this version reads backups of form 1", manifest["format"], "use the version that made it")
    if not isinstance(manifest["created"], str) or not isinstance(manifest["sha256"], dict):
        raise TypeError(_MANIFEST)
    return dict(manifest)


def _member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> Any:
    file = tar.extractfile(member) if member.isreg() else None  # a link would be followed
    if file is None:
        raise tarfile.ReadError(f"{member.name} is no file")
    return file


def _sha256(file: Any) -> str:
    digest = hashlib.sha256()
    with file:
        for chunk in _chunks(file):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: Any) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk
