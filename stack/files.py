"""The files that containers need and nobody commits: passwords, Alertmanager's configuration, a line of ``.env``."""

from __future__ import annotations

import os
import re
import secrets
import stat
from typing import TYPE_CHECKING, Final

from ml_pipeline._platform import replace_durably
from stack.alertmanager import render, secret_files
from stack.docker import StackError

if TYPE_CHECKING:
    from pathlib import Path

    from ml_pipeline.settings import Settings

__all__ = ["GENERATED", "STATE", "prepare"]

STATE: Final = ".stack"
"""The folder of everything that is generated; git ignores it."""
GENERATED: Final = ("grafana_admin_password", "grafana_secret_key", "postgres_password")
"""Secrets made once and kept: Grafana and PostgreSQL take them only when their volumes are new."""

_VARIABLE: Final = "STACK_LOG_GROUP"
_NOTE: Final = "# Written by `make up`: the group whose log files the log shipper may read."
_SECRET_BYTES: Final = 24


def prepare(root: Path, settings: Settings) -> None:
    """Write what is missing and renew what the settings changed; what is there and right stays as it is.

    Args:
        root: The folder with the compose file.
        settings: Where mail goes to.

    Raises:
        StackError: If a file with a secret cannot be read, or a folder cannot be written.
    """
    try:
        (root / STATE).mkdir(exist_ok=True)
        (root / STATE).chmod(0o755)  # whatever the umask: who may write here could put other secrets in place
        _write_secrets(root / STATE / "secrets", settings)
        configuration = root / STATE / "alertmanager" / "alertmanager.yml"
        _write(configuration, render(root / "prometheus" / "alertmanager.yml.template", settings), 0o644)
        configuration.parent.chmod(0o755)  # whatever the umask: the container is another user
        settings.log_dir.mkdir(parents=True, exist_ok=True)
        _write_variable(root / ".env", str(settings.log_dir.stat().st_gid))
    except OSError as refused:
        raise StackError(
            f"the stack's files must be writable below {root.name}/",
            f"{refused.filename or root / STATE}: {refused.strerror}",
            "correct the permissions, or free some space",
        ) from None


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
    after, found = re.subn(rb"^" + _VARIABLE.encode() + rb"=[^\r\n]*", line, before, flags=re.MULTILINE)
    if not found:
        end = b"\r\n" if b"\r\n" in before else b"\n"
        gap = end if before and not before.endswith(b"\n") else b""
        after = before + gap + _NOTE.encode() + end + line + end
    if after != before:
        _replace(path, after, stat.S_IMODE(path.stat().st_mode) if path.exists() else 0o600)
