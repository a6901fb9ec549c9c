"""Kills the writers of one audit trail, again and again, and says what was left: ``python -m tests.config.audit_kills``.

A program of its own, because it forks: arguments are the trail, the number of rounds, and the seed.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
from pathlib import Path

from ml_pipeline.config._audit import AuditTrail, verify
from ml_pipeline.config._log_rotation import Rotation
from tests.config.audit_kit import lines_of, pack

WRITERS = 4
MAX_BYTES = 6_000
MOST_RECORDS = 25


def _write(path: Path, name: str, told: int) -> None:
    """Write records until the kill; tell of each once it is on disk."""
    trail = AuditTrail(path, b"k" * 32, rotation=Rotation(path.parent, max_bytes=MAX_BYTES))
    number = 0
    while True:
        count = number % 3 + 1
        records = [{"message": f"{name}:{number + each}"} for each in range(count)]
        trail.append_all(records)
        os.write(told, b"".join(b"%b\n" % record["message"].encode() for record in records))
        number += count


def _round(path: Path, name: str, wanted: int) -> list[str]:
    """Start writers, kill them when together they have told of so many records, and return those."""
    reading, told = os.pipe()
    children = []
    for writer in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            try:
                _write(path, f"{name}.{writer}", told)
            finally:
                os._exit(1)
        children.append(pid)
    os.close(told)
    heard = b""
    while heard.count(b"\n") < wanted and select.select([reading], [], [], 60)[0]:
        heard += os.read(reading, 65_536)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
    for pid in children:
        os.waitpid(pid, 0)
    while more := os.read(reading, 65_536):
        heard += more
    os.close(reading)
    return heard.decode().split()


def main() -> None:
    """Kill for some rounds; print what was told, what was found, and the first fault."""
    path, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dice = random.Random(seed)
    told: list[str] = []
    fault = ""
    torn = 0
    for number in range(rounds):
        told += _round(path, str(number), dice.randint(1, MOST_RECORDS))
        report = verify(path, b"k" * 32)
        torn += report.torn
        found = [json.loads(line)["message"] for _, _, line in lines_of(path) if line.endswith(b"\n")]
        if not report.intact:
            fault = f"round {number}: {report}"
        elif len(found) != len(set(found)) or not set(told) <= set(found):
            fault = f"round {number}: {len(set(told) - set(found))} missing, {len(found) - len(set(found))} doubled"
        if fault:
            break
        old = [each for each in path.parent.glob("audit.log.*") if each.suffix != ".gz"]
        if number % 3 == 0 and old:
            pack(min(old, key=lambda each: int(each.suffix[1:])))
    files = len(list(path.parent.glob("audit.log*")))
    print(json.dumps({"told": len(told), "torn": torn, "files": files, "fault": fault}))


if __name__ == "__main__":
    main()
