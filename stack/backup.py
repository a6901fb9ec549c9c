"""Saving the stack's volumes and secrets to one file, and bringing them back.

The file is a tar archive, readable by its owner alone, for it holds the passwords::

    manifest.json          when, of which version, and the SHA-256 of every other member
    secrets/<name>         what `make up` generated
    volumes/<volume>.tar   each volume, as tar saw it from inside a container
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tarfile
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import __version__
from stack.docker import Compose, StackError, docker
from stack.files import GENERATED, STATE
from stack.state import restoring
from stack.volumes import Volumes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Say = Callable[[str], None]

__all__ = ["back_up", "read_manifest", "restore"]

_MANIFEST: Final = "manifest.json"
_FORMAT: Final = 1
_CHUNK_BYTES: Final = 1 << 20
_TOLD_EVERY_BYTES: Final = 500_000_000
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)


def back_up(compose: Compose, folder: Path, say: Say) -> Path:
    """Save every volume and secret; services that run are stopped for it and started again, whatever comes of it.

    Args:
        compose: The project.
        folder: Where the file is written to.
        say: Told what is being done.

    Returns:
        The file.

    Raises:
        StackError: If there is nothing to save, a volume cannot be read, or the disk is full; no
            half-written file is left. Services that do not become healthy again are no error of the backup's: *say*
            is told.
    """
    volumes = Volumes(compose)
    if not volumes.existing():
        raise StackError("there must be a stack to back up", compose.root.name, "run make up first")
    running = [each for each in compose.containers() if each.get("State") == "running"]
    target = folder / f"stack-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.tar"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Beside the result, not in /tmp, which may be memory; gone afterwards, whatever comes of it.
        with tempfile.TemporaryDirectory(dir=folder, prefix=".stack-") as scratch:
            if running:
                say("stopping the services, so that what is saved is of one moment")
                compose.read("stop", every_profile=True)
            _archive(Path(scratch), compose.root / STATE / "secrets", volumes, say).replace(target)
    except OSError as refused:
        rule, remedy = "a backup must be writable", "mend that, or name another DIR"
        if refused.errno in _FULL:
            rule, remedy = "a backup must fit on its disk", "free some space, or name another DIR"
        raise StackError(rule, f"{refused.filename or folder}: {refused.strerror}", remedy) from None
    finally:
        if running:
            _start_again(compose, running, say)
    return target


def read_manifest(archive: Path, say: Say | None = None) -> dict[str, Any]:
    """Read and check a backup, every byte of it.

    Args:
        archive: The file.
        say: Told how far it is, now and then.

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
            meter = _Meter(say, "checked", archive.stat().st_size)
            found = {each.name: _sha256(_member(tar, each), meter) for each in iter(tar.next, None)}
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


def restore(compose: Compose, archive: Path, say: Say, *, checked: bool = False) -> None:
    """Replace every volume and secret by those of a backup; the stack is down afterwards.

    A volume that the backup does not hold is emptied. Interrupted, it can simply be run again: nothing is taken from
    what it replaces; `stack.state.is_half_restored` tells until then.

    Args:
        compose: The project.
        archive: A file of `back_up`.
        say: Told what is being done.
        checked: Whether `read_manifest` has just read it.

    Raises:
        StackError: If, before anything is touched, the backup is not whole, the image is not built or there is too
            little room; or if the backup cannot be read to its end, or a volume or a secret not be written.
    """
    if not checked:
        read_manifest(archive, say)
    volumes = Volumes(compose)
    parts = {f"volumes/{key}.tar": key for key in volumes.declared()}
    secrets = {f"secrets/{name}": compose.root / STATE / "secrets" / name for name in GENERATED}
    try:
        with _opened(archive) as tar:
            members = {each.name: each for each in tar if each.name != _MANIFEST}
            # Names decide what is written, so only the known ones are taken: none can lead anywhere else.
            stale = sorted(set(members) - set(parts) - set(secrets))
            if stale:
                raise StackError(
                    "every part of a backup must be a volume or a secret of this stack",
                    stale,
                    "use the version that made it",
                )
            _build(compose)
            _check_room(volumes, sum(member.size for name, member in members.items() if name in parts))
            say("stopping the stack")
            compose.read("down", every_profile=True)
            with restoring(compose.root, archive):
                for name in sorted(set(members) & set(secrets)):
                    _restore_secret(secrets[name], _member(tar, members[name]).read())
                for name, key in parts.items():
                    _restore_volume(volumes, key, tar, members.get(name), say)
    except (OSError, tarfile.TarError) as refused:
        raise _unrestored(archive, refused) from None


def _unrestored(archive: Path, refused: Exception) -> StackError:
    reason = getattr(refused, "strerror", None) or type(refused).__name__
    place = getattr(refused, "filename", None) or archive
    if getattr(refused, "errno", None) in _FULL:
        return StackError(
            "a backup needs room to be restored", f"{place}: {reason}", "free some space and restore again"
        )
    rule = "a backup must be readable, and the secrets writable, to be restored"
    return StackError(rule, f"{place}: {reason}", "mend that and restore again")


def _start_again(compose: Compose, running: list[dict[str, Any]], say: Say) -> None:
    """Start what ran; that one of them is ill, as it may have been before, is not to hide what came of the backup."""
    say("starting them again")
    services = sorted({each["Service"] for each in running})
    try:
        compose.read("up", "--detach", "--wait", "--no-build", "--no-recreate", *services)
    except StackError as ill:
        with suppress(StackError):  # Compose leaves out what depends on one that is ill, though it ran before
            docker("start", *(each["Name"] for each in running))
        say(f"warning: not every service became healthy again ({ill.given}): see make ps")


def _build(compose: Compose) -> None:
    """Have the image whose tar is used; services of profiles that are off need no image for a restore."""
    if compose.run("build", "pipeline"):
        raise StackError("the pipeline's image must build", remedy="the lines above say why; nothing was changed")


def _check_room(volumes: Volumes, needed: int) -> None:
    """Ask before anything is touched; what the volumes hold now is gone before the backup's content comes."""
    free = volumes.room()
    if free is None:
        return
    if free < needed:
        free += sum(volumes.size(key) for key in volumes.existing())
    if free < needed:
        raise StackError(
            "a backup must fit on Docker's disk to be restored",
            f"{_megabytes(needed)}, with room for {_megabytes(free)}",
            "free some space; nothing was changed",
        )


def _restore_volume(volumes: Volumes, key: str, tar: tarfile.TarFile, member: tarfile.TarInfo | None, say: Say) -> None:
    there = key in volumes.existing()
    if member is None:
        if there:
            say(f"emptying {key}, which the backup does not hold")
            volumes.replace(key)
        return
    say(f"restoring {key} ({_megabytes(member.size)})")
    if not there:
        volumes.create(key)
    meter = _Meter(say, f"{key}: restored", member.size)
    volumes.replace(key, meter.through(_chunks(_member(tar, member))))


def _archive(scratch: Path, secrets: Path, volumes: Volumes, say: Say) -> Path:
    """Write the manifest first, so that a reader knows at once what it has; the parts are copied before."""
    parts = {f"secrets/{name}": secrets / name for name in GENERATED if (secrets / name).is_file()}
    for key in volumes.existing():
        part = scratch / f"{key}.tar"
        if not volumes.pack(key, part):
            say(f"{key} was written to by another while it was read: what was written then may be missing")
        say(f"saved {key} ({_megabytes(part.stat().st_size)})")
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


def _restore_secret(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o700)
    path.unlink(missing_ok=True)
    path.write_bytes(content)
    path.chmod(0o444)


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


def _sha256(file: Any, meter: _Meter | None = None) -> str:
    digest = hashlib.sha256()
    with file:
        for chunk in meter.through(_chunks(file)) if meter else _chunks(file):
            digest.update(chunk)
    return digest.hexdigest()


def _chunks(file: Any) -> Iterator[bytes]:
    while chunk := file.read(_CHUNK_BYTES):
        yield chunk


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB"


@dataclass
class _Meter:
    """Tells now and then how much of a long piece of work is done."""

    say: Say | None
    words: str
    total: int
    done: int = 0
    told: int = 0

    def through(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass chunks on, and count them."""
        for chunk in chunks:
            yield chunk
            self.done += len(chunk)
            if self.say and self.done - self.told >= _TOLD_EVERY_BYTES:
                self.told = self.done
                self.say(f"{self.words} {_megabytes(self.done)} of {_megabytes(self.total)}")
