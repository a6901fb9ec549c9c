"""Kills the writers of one audit trail, again and again, and says what was left: ``python -m tests.config.audit_kills``.

A program of its own, because it forks: arguments are the trail, the number of rounds, and the seed.
"""

from __future__ import annotations

import json
import os
import random
import sys
from functools import partial
from pathlib import Path

from ml_pipeline.config._audit import AuditTrail, verify
from ml_pipeline.config._log_rotation import Rotation
from tests.config.audit_kit import lines_of, pack
from tests.processes import tell_until_killed

WRITERS = 4
MAX_BYTES = 6_000
MOST_RECORDS = 25


def _write(path: Path, turn: int, writer: int, told: int) -> None:
    """Write records until the kill; tell of each once it is on disk."""
    name = f"{turn}.{writer}"
    trail = AuditTrail(path, b"k" * 32, rotation=Rotation(path.parent, max_bytes=MAX_BYTES))
    number = 0
    while True:
        count = number % 3 + 1
        records = [{"message": f"{name}:{number + each}"} for each in range(count)]
        trail.append_all(records)
        os.write(told, b"".join(b"%b\n" % record["message"].encode() for record in records))
        number += count


def main() -> None:
    """Kill for some rounds; print what was told, what was found, and the first fault."""
    path, rounds, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    dice = random.Random(seed)
    told: list[str] = []
    fault = ""
    torn = 0
    for number in range(rounds):
        told += tell_until_killed(partial(_write, path, number), WRITERS, dice.randint(1, MOST_RECORDS))
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
