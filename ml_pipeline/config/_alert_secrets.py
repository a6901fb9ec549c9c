"""Secrets: those of the channels, read anew at each attempt; and those that a text of somebody else's may carry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ml_pipeline.errors import SettingsError, without_credentials

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_secret", "veiled"]


def read_secret(file: Path, setting: str) -> str:
    """Read a secret.

    Args:
        file: Where it stands, as one line of printable ASCII.
        setting: The setting that names the file, for messages.

    Returns:
        The secret.

    Raises:
        SettingsError: If the file cannot be read, or holds anything else; never with a word of what it holds.
    """
    reason = ""
    try:
        content = file.read_bytes()
    except OSError as unreadable:
        content, reason = b"", unreadable.strerror or "it cannot be read"
    text = content.strip().decode("ascii", "replace")
    if not reason and not text:
        reason = "it is empty"
    elif not reason and not (text.isascii() and text.isprintable()):
        reason = "it holds more than a line of ASCII"
    if reason:
        rule = f"ML_PIPELINE_{setting.upper()} must name a readable file with one line"
        raise SettingsError(rule, str(file), f"correct that: {reason}")
    return text


def veiled(plain: Any) -> Any:
    """Hide what the URLs in a plain JSON value give away, however deep: an alert leaves the host, and is forwarded."""
    if isinstance(plain, str):
        return without_credentials(plain) if "://" in plain else plain
    if isinstance(plain, dict):
        return {key: veiled(value) for key, value in plain.items()}
    return [veiled(value) for value in plain] if isinstance(plain, list) else plain
