"""The files that containers need and nobody commits: passwords, Alertmanager's configuration, a line of ``.env``."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ml_pipeline._platform import replace_durably
from stack.alertmanager import render, runbook_of, secret_files
from stack.docker import StackError, environment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ml_pipeline.settings import Settings

__all__ = ["GENERATED", "MARK", "STATE", "forget", "is_known", "prepare", "unread_logs", "writing"]

STATE: Final = ".stack"
"""The folder of everything that is generated; git ignores it."""
GENERATED: Final = ("grafana_admin_password", "grafana_secret_key", "postgres_password")
"""Secrets made once and kept: Grafana and PostgreSQL take them only when their volumes are new."""

MARK: Final = "run-make-up-first"
"""An empty file that the compose file insists on: where it is missing, Compose starts nothing, and shows this name."""

_VARIABLE: Final = "STACK_LOG_GROUP"
_NOTE: Final = "# Written by `make up`: the group whose log files the log shipper may read."
_SECRET_BYTES: Final = 24
_LINE: Final = re.compile(rb"^%b=[^\r\n]*" % _VARIABLE.encode(), re.MULTILINE)
_OURS: Final = re.compile(rb"^(?:%b\r?\n)?%b=[^\r\n]*(?:\r?\n|\Z)" % (_NOTE.encode(), _VARIABLE.encode()), re.MULTILINE)

_LOG_FOLDER_MODE: Final = 0o750
_NOT_SHIPPED: Final = ("audit.log", "errors.log")
_PREDICTIONS: Final = ("inference", "predictions.log")
_SHIPPER: Final = 473
"""The log shipper's user and group in the compose file."""
_IMAGE_GROUP: Final = 10000
"""The group of the pipeline's image, which the shipper is a member of too."""
_OWNER_BITS: Final = 6  # by how many bits a right lies above that of others
_GROUP_BITS: Final = 3


def prepare(root: Path, settings: Settings) -> None:
    """Write what is missing and renew what the settings changed; what is there and right stays as it is.

    Args:
        root: The folder with the compose file.
        settings: Where mail goes to.

    Raises:
        StackError: If a file with a secret cannot be read, or a folder cannot be written.
    """
    with writing(root):
        (root / STATE).mkdir(exist_ok=True)
        (root / STATE).chmod(0o755)  # whatever the umask: who may write here could put other secrets in place
        _write_secrets(root / STATE / "secrets", settings)
        configuration = root / STATE / "alertmanager" / "alertmanager.yml"
        runbook = runbook_of(root / "docs" / "runbooks", environment(root))
        _write(configuration, render(root / "prometheus" / "alertmanager.yml.template", settings, runbook), 0o644)
        configuration.parent.chmod(0o755)  # whatever the umask: the container is another user
        _make_log_folder(settings.log_dir)
        _write_variable(root / ".env", str(settings.log_dir.stat().st_gid))
        _write(root / STATE / MARK, "", 0o644)  # last: where it is, all is


def is_known(root: Path) -> bool:
    """Tell whether `make up` has left anything here.

    Args:
        root: The folder with the compose file.

    Raises:
        StackError: If ``.env`` cannot be read.
    """
    path = root / ".env"
    with writing(root):
        return (root / STATE).is_dir() or (path.is_file() and _LINE.search(path.read_bytes()) is not None)


def forget(root: Path) -> None:
    """Remove what `prepare` wrote, the line in ``.env`` too, so that Compose alone asks for `make up` again.

    Args:
        root: The folder with the compose file.

    Raises:
        StackError: If something cannot be removed.
    """
    with writing(root):
        path = (root / ".env").resolve()
        before = path.read_bytes() if path.is_file() else b""
        after = _OURS.sub(b"", before)
        if before != after and not after:
            path.unlink()
        elif before != after:
            _replace(path, after, stat.S_IMODE(path.stat().st_mode))
        if (root / STATE).is_dir():
            shutil.rmtree(root / STATE)


def unread_logs(folder: Path, *, predictions: bool = False) -> str | None:
    """Say how to let the log shipper, a member of the log folder's group, read what it now cannot.

    Args:
        folder: Where the log files are.
        predictions: Whether it is to ship the log of single predictions too.

    Returns:
        One line with the remedy; None where all can be read.
    """
    group = folder.stat().st_gid
    groups = {group, _SHIPPER, _IMAGE_GROUP}
    unread = {path: found.st_gid for path, found in _unread(folder, groups, predictions=predictions).items()}
    if not unread:
        return None
    more = f" and {len(unread) - 1} more" if len(unread) > 1 else ""
    quoted = shlex.quote(str(folder))
    # What is of the image's group stays: its containers write there as members of it.
    change = f"find {quoted} ! -group {_IMAGE_GROUP} -exec chgrp {group} {{}} + && "
    if set(unread.values()) <= groups:
        change = ""
    return (
        f"the log shipper, a member of group {group}, must be able to read the logs (got {str(min(unread))!r}"
        f"{more}); {change}chmod -R g+rX {quoted}"
    )


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Turn a refusal of the file system into one clear line.

    Args:
        root: The folder with the compose file.
    """
    try:
        yield
    except OSError as refused:
        raise StackError(
            f"the stack's files must be writable below {root.name}/",
            f"{refused.filename or root / STATE}: {refused.strerror}",
            "correct the permissions, or free some space",
        ) from None


def _unread(folder: Path, groups: set[int], *, predictions: bool) -> dict[Path, os.stat_result]:
    """Find what is closed to the shipper, the topmost folder in place of what is in it."""
    found = folder.stat()
    if not _reads(found, groups):
        return {folder: found}  # with nothing in it yet too: logs will come
    unread = {}
    for path in _shipped(folder, predictions=predictions):
        for each in (*(folder / above for above in reversed(path.relative_to(folder).parents)), path):
            try:
                found = each.stat()
            except OSError:  # rotated away meanwhile, or a link to nothing
                break
            if not _reads(found, groups):
                unread[each] = found
                break
    return unread


def _shipped(folder: Path, *, predictions: bool) -> Iterator[Path]:
    """Find the files that the shipper's own patterns take, and folders that might hold some, for all we can see."""
    unseen: list[str] = []
    for place, folders, names in os.walk(folder, onerror=lambda refused: unseen.append(refused.filename)):
        folders.sort()
        for path in (Path(place, name) for name in sorted(names)):
            is_prediction = path.parts[-2:] == _PREDICTIONS
            if is_prediction and not (predictions and path.parent.parent == folder):
                continue
            if path.suffix == ".log" and path.name not in _NOT_SHIPPED:
                yield path
    yield from map(Path, unseen)


def _reads(found: os.stat_result, groups: set[int]) -> bool:
    shift = _OWNER_BITS if found.st_uid == _SHIPPER else _GROUP_BITS if found.st_gid in groups else 0
    wanted = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(found.st_mode) else stat.S_IROTH
    return found.st_mode >> shift & wanted == wanted


def _make_log_folder(folder: Path) -> None:
    """Make it with its mode, whatever the umask; one that is there already is somebody's, and stays as it is."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir()
    except FileExistsError:
        folder.mkdir(exist_ok=True)  # refuses a file of that name
    else:
        folder.chmod(_LOG_FOLDER_MODE)


def _write_secrets(folder: Path, settings: Settings) -> None:
    """Keep secrets in a folder that only this user enters; the files in it are read by the containers' users."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in GENERATED:
        if not (folder / name).is_file():
            _write(folder / name, secrets.token_urlsafe(_SECRET_BYTES), 0o444)
        (folder / name).chmod(0o444)
    mail = folder / "alertmanager"
    mail.mkdir(exist_ok=True)
    mail.chmod(0o755)
    wanted = secret_files(settings)
    for name, source in wanted.items():
        _write(mail / name, _read_secret(source), 0o444)
    for left in mail.iterdir():
        if left.name not in wanted:
            left.unlink()


def _read_secret(source: Path) -> str:
    try:
        text = source.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as unreadable:
        reason = getattr(unreadable, "strerror", None) or "not UTF-8"
        raise StackError(
            "a file with a secret must be readable", f"{source}: {reason}", "correct its name or its permissions"
        ) from None
    if not text:
        raise StackError("a file with a secret must not be empty", str(source), "write the secret into it")
    return text


def _write(path: Path, text: str, mode: int) -> None:
    content = text.encode()
    if path.is_file() and path.read_bytes() == content and stat.S_IMODE(path.stat().st_mode) == mode:
        return
    _replace(path, content, mode)


def _replace(path: Path, content: bytes, mode: int) -> None:
    before = os.umask(0o077)  # nobody else reads it before it has its mode
    try:
        replace_durably(path, content)
        path.chmod(mode)
    finally:
        os.umask(before)


def _write_variable(path: Path, group: str) -> None:
    """Keep one line of ``.env`` right, and leave every other byte of it alone."""
    path = path.resolve()  # a link stays one
    line = f"{_VARIABLE}={group}".encode()
    before = path.read_bytes() if path.exists() else b""
    after, found = _LINE.subn(line, before)
    if not found:
        end = b"\r\n" if b"\r\n" in before else b"\n"
        gap = end if before and not before.endswith(b"\n") else b""
        after = before + gap + _NOTE.encode() + end + line + end
    if after != before:
        _replace(path, after, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600)
