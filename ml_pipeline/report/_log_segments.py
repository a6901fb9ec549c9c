"""Which files hold the log: the current file of each channel, and those that were rotated away from it."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._channels import CHANNELS, ERRORS, channel_path
from ml_pipeline.config._log_rotation import SUFFIX_PATTERN
from ml_pipeline.errors import InputDataError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ChannelFiles", "find_channels"]

_NAME: Final = re.compile(rf"(?P<name>.+)\.log(?:{SUFFIX_PATTERN})?")
_FOLDERS: Final = frozenset(key.partition(".")[0] for key in CHANNELS if "." in key) | {"airflow"}


@dataclass(slots=True)
class ChannelFiles:
    """The files of one channel.

    Attributes:
        key: The channel.
        current: The file that is written to; it may not exist.
        rotated: Those that were set aside, each without its ``.gz``, oldest first.
        own_only: Whether records that name another channel are left out, being copies.
    """

    key: str
    current: Path
    rotated: list[Path] = field(default_factory=list)
    own_only: bool = False


def find_channels(folder: Path, names: Sequence[str] = (), *, may_come: bool = False) -> list[ChannelFiles]:
    """Find the channels of a log directory.

    Args:
        folder: The log directory.
        names: Channels, or folders of channels such as ``training``; none for all. ``errors`` repeats what other
            channels hold: unless it is named, only its own records count.
        may_come: Whether the directory may still be missing, and then holds no channels.

    Returns:
        The channels that have files, by key.

    Raises:
        InputDataError: If there is no such directory, or something else lies there.
        UnknownChannelError: If a name is neither in the channel table nor in the directory.
    """
    if not folder.is_dir() and (folder.exists() or not may_come):
        raise InputDataError(
            "a log directory must exist to be read", str(folder), "set ML_PIPELINE_LOG_DIR, or name it with --dir"
        )
    found = _all_channels(folder)
    for name in names:
        if name not in _FOLDERS and not any(_is_in(key, name) for key in found):
            channel_path(name)
    if not names and ERRORS in found:
        found[ERRORS].own_only = True
    return [found[key] for key in sorted(found) if not names or any(_is_in(key, name) for name in names)]


def _is_in(key: str, name: str) -> bool:
    return key == name or key.startswith(name + ".")


def _all_channels(folder: Path) -> dict[str, ChannelFiles]:
    found: dict[str, ChannelFiles] = {}
    rotated: dict[str, dict[Path, tuple[str, int]]] = {}
    for below, path, name in _log_files(folder):
        key = ".".join((*below, name["name"]))
        if key not in found:
            found[key] = ChannelFiles(key, path.parent / f"{name['name']}.log")
        if name["day"]:
            plain = path.with_suffix("") if path.suffix == ".gz" else path
            rotated.setdefault(key, {})[plain] = (name["day"], int(name["number"]))
    for key, segments in rotated.items():
        found[key].rotated = sorted(segments, key=segments.__getitem__)
    return found


def _log_files(folder: Path) -> Iterator[tuple[tuple[str, ...], Path, re.Match[str]]]:
    for where, _, names in os.walk(folder):
        inside = Path(where)
        for each in names:
            name = _NAME.fullmatch(each)
            if name and _may_be_a_file(inside / each):
                yield inside.relative_to(folder).parts, inside / each, name


def _may_be_a_file(path: Path) -> bool:
    """Say no to what would have us wait for its writer, as a pipe; what is gone was rotated or compressed just now."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return True
