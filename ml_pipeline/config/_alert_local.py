"""Alerts on this machine: on stderr, and in a file."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from ml_pipeline import _platform
from ml_pipeline.config._alert_words import line, opening, ordered, runbook_address, tag
from ml_pipeline.config._encoding import encode, one_line, to_plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ml_pipeline.config._alert_channels import AlertMessage

__all__ = ["ConsoleChannel", "FileChannel"]


class ConsoleChannel:
    """Writes a line for each alert to stderr.

    Args:
        write: Takes the text; by default stderr as it is when an alert is written.
    """

    name: Final = "console"

    def __init__(self, write: Callable[[str], None] = _platform.write_stderr) -> None:
        self._write = write

    def send(self, message: AlertMessage) -> None:
        """Write the lines, all at once; see `AlertChannel.send`."""
        whole, rest = ordered(message)
        word = "ALERT" if message.reason == "firing" else tag(message)
        lines = [f"[{word}] {each}" for each in opening(message)]
        for alert in (*whole, *rest):
            address = runbook_address(alert)
            known = " - ".join(each for each in (line(alert), one_line(alert.alert_id), address) if each)
            lines.append(f"[{word}] {known}")
        self._write("".join(f"ml_pipeline: {each}\n" for each in lines))


class FileChannel:
    """Appends a line of JSON for each alert to a file: the alert as in ``alerts.json``, and why it is there.

    Several processes may append to one file. A repeat, after a process was killed while it wrote, has the delivery id
    of the first.

    Args:
        path: The file; it and its folder are made when the first alert is written.
        say: Told of each step.
    """

    name: Final = "file"

    def __init__(self, path: Path, *, say: Callable[[str], None] = lambda _: None) -> None:
        self._path = path
        self._say = say

    def send(self, message: AlertMessage) -> None:
        """Append the lines, all at once; see `AlertChannel.send`.

        Raises:
            OSError: If the file cannot be written, or not all of it.
        """
        top = {"delivery_id": message.delivery_id, "reason": message.reason, "note": one_line(message.note)}
        lines = b"".join(encode({**top, **to_plain(alert.to_dict())}) + b"\n" for alert in message.alerts)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a+b", buffering=0) as file:
            if file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n":
                lines = b"\n" + lines  # what a full disk or a kill cut off stays a line of its own
            if file.write(lines) != len(lines):
                raise OSError(f"{self._path} took a part of the alert")
        self._say(f"appended {len(message.alerts)} lines to {self._path}")
