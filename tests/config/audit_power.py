"""Cuts the power of the disk that an audit trail is written to: ``python -m tests.config.audit_power FOLDER ROUNDS SEED``.

A program of its own, because it forks and mounts; it needs root. The disk is an ext4 file system in a file. What is in
that file when the writers are killed is what had come to disk; the rest was in the system's cache, and goes with it: the
next round begins with a copy of the file, after another start of the machine.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from unittest import mock

from ml_pipeline import _platform
from ml_pipeline.config._audit import AuditTrail, verify
from ml_pipeline.config._log_rotation import Rotation
from tests.config.audit_kit import lines_of
from tests.processes import tell_until_killed

KEY = b"k" * 32
WRITERS = 3
MAX_BYTES = 60_000
DISK_BYTES = 24 << 20
MOST_RECORDS = 240
NEVER_BY_ITSELF = "loop,commit=300"
"""Mounted so, the file system commits where it is asked to alone, as far as seconds go."""


def _write(path: Path, turn: int, writer: int, told: int) -> None:
    """Write records until the kill; tell of each once it is on disk. One writes as many short processes would."""
    number = 0
    while True:
        if not number or (not writer and not number % 5):
            trail = AuditTrail(path, KEY, rotation=Rotation(path.parent, max_bytes=MAX_BYTES))
        name = f"{turn}.{writer}:{number}"
        trail.append({"message": name})
        os.write(told, name.encode() + b"\n")
        number += 1


def _mounted(image: Path, folder: Path) -> str:
    """Mount a disk; why it cannot be, if so."""
    done = subprocess.run(["mount", "-o", NEVER_BY_ITSELF, image, folder], capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def _judged(path: Path, told: set[str]) -> tuple[int, str]:
    """How many records stood in the journal alone, and what is wrong."""
    report = verify(path, KEY)
    trail = AuditTrail(path, KEY)
    trail.append({"message": f"after {len(told)}"})
    trail.close()
    after = verify(path, KEY)
    found = [json.loads(line)["message"] for _, _, line in lines_of(path)]
    if not (report.intact and after.intact) or after.pending:
        return report.pending, f"{report} {after}"
    if len(found) != len(set(found)) or not told <= set(found):
        return report.pending, f"{len(told - set(found))} missing, {len(found) - len(set(found))} doubled"
    return report.pending, ""


def main() -> None:
    """Cut the power for some rounds; print what was told, how much was in the journal alone, and the first fault."""
    folder, rounds, dice = Path(sys.argv[1]), int(sys.argv[2]), random.Random(int(sys.argv[3]))
    image, disk = folder / "image", folder / "disk"
    disk.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
    told: set[str] = set()
    pending, fault = 0, _mounted(image, disk)
    answer = {"cannot": fault}
    for number in range(rounds if not fault else 0):
        with mock.patch.object(_platform, "boot_id", return_value=f"start {number}"):
            writing = partial(_write, disk / "audit.log", number)
            told.update(tell_until_killed(writing, WRITERS, dice.randint(1, MOST_RECORDS)))
        shutil.copyfile(image, folder / "copy")
        subprocess.run(["umount", disk], check=True)
        (folder / "copy").replace(image)
        fault = _mounted(image, disk)
        if not fault:
            with mock.patch.object(_platform, "boot_id", return_value=f"start {number + 1}"):
                alone, fault = _judged(disk / "audit.log", told)
                pending += alone
        if fault:
            fault = f"round {number}: {fault}"
            break
    answer |= {} if answer["cannot"] else {"told": len(told), "pending": pending, "fault": fault}
    subprocess.run(["umount", disk], check=False, capture_output=True)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
