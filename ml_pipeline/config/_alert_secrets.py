"""Secrets of the channels: read from their files at each attempt, so that they may be changed meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["read_secret"]


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
