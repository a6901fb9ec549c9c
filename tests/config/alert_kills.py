"""Kills the processes that share one outbox, again and again, and says what arrived: ``python -m tests.config.alert_kills``.

A program of its own, because it forks: arguments are the folder, the number of rounds, and the seed.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from functools import partial
from pathlib import Path

import ml_pipeline
from ml_pipeline.config import _alert_delivery, _alert_tables_outbox
from ml_pipeline.config._events import Bus
from ml_pipeline.config.alerting import AlertManager, AlertMessage
from tests.processes import tell_until_killed

WRITERS = 2
MOST_ALERTS = 40


class Post:
    """A channel that files what it is given; what is in the file has arrived."""

    name = "post"

    def __init__(self, file: Path) -> None:
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def send(self, message: AlertMessage) -> None:
        """File it, and take a moment over it."""
        names = sorted(alert.operation for alert in message.alerts)
        os.write(self._file, json.dumps([message.delivery_id, names]).encode() + b"\n")
        time.sleep(0.002)


def _write(file: Path, turn: int, writer: int, told: int) -> None:
    """Raise alerts until the kill; tell of each once its call has returned."""
    name = f"{turn}.{writer}"
    alerts = AlertManager(channels=[Post(file)], bus=Bus(), on_delivery=lambda *_: None)
    number = 0
    while True:
        alerts.alert_processing_failure(f"{name}.{number}", "x")
        os.write(told, b"%b.%d\n" % (name.encode(), number))
        number += 1


def main(folder: Path, rounds: int, seed: int) -> dict[str, object]:
    """Kill so often, deliver what is left, and compare.

    Args:
        folder: Where to work.
        rounds: How often to kill.
        seed: Of the random moments.

    Returns:
        How many alerts were told of and how many messages there were, how many of those were repeats and were under way
        at a kill, and the first fault.
    """
    os.chdir(folder)
    ml_pipeline.configure(name="kills", strict=True)
    # Everything is delivered soon and in full, so that kills meet deliveries as often as calls.
    _alert_delivery._GATHER_SECONDS = 0.001  # type: ignore[misc]
    _alert_tables_outbox.GROUP_SECONDS = 0.01  # type: ignore[misc]
    _alert_tables_outbox.MOST_IN_A_MESSAGE = 1_000_000  # type: ignore[misc]
    chance, file = random.Random(seed), folder / "post"
    told: list[str] = []
    for number in range(rounds):
        write = partial(_write, file, number)
        wanted, wait = chance.randrange(1, MOST_ALERTS), chance.random() * 0.01
        told += tell_until_killed(write, WRITERS, wanted, wait_seconds=wait)
    before = len(file.read_bytes().splitlines()) if file.exists() else 0
    later = AlertManager(
        channels=[Post(file)], bus=Bus(), clock=lambda: time.time() + 10_000, on_delivery=lambda *_: None
    )
    fault = "" if later.flush(600.0) else "not everything was delivered in time"
    messages: dict[str, list[str]] = {}
    lines = file.read_bytes().splitlines()
    arrived: dict[str, str] = {}
    for line in lines:
        delivery_id, names = json.loads(line)
        if messages.setdefault(delivery_id, names) != names:
            fault = f"message {delivery_id} had other alerts when it was repeated"
        for name in names:
            if arrived.setdefault(name, delivery_id) != delivery_id:
                fault = f"alert {name} is in two messages"
    missing = sorted(set(told) - set(arrived))
    if missing:
        fault = f"{len(missing)} alerts never arrived, such as {missing[0]}"
    repeats = len(lines) - len(messages)
    return {"told": len(told), "messages": len(messages), "before": before, "repeats": repeats, "fault": fault}


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))))
