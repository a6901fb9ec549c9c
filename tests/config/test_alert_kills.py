"""Processes that share an outbox are killed, and flood it: nothing is lost, nothing is said twice, nobody is flooded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline import _runtime
from ml_pipeline.config import _alert_delivery
from ml_pipeline.config._events import Bus
from ml_pipeline.config.alerting import AlertManager
from tests.config.alerting_world import Mailbox, Pager, Server, World, mail_through
from tests.processes import kill_for_rounds
from tests.support import eventually, free_port

PROCESSES, THREADS, IDENTITIES = 4, 8, 100
STORM = 10_000 if "FAULT_ROUNDS" in os.environ else 4_000

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")


def test_kill_at_random_moments(tmp_path: Path) -> None:
    """Every alert whose call returned arrives after a restart, in one message, repeated whole and under its id."""
    answer = kill_for_rounds("tests.config.alert_kills", tmp_path)
    assert answer["told"] >= answer["rounds"]
    assert answer["before"] > 0, f"no delivery was under way: {answer}"


HANGS = """
import pathlib, signal, sys
from ml_pipeline.config import _alert_delivery
from ml_pipeline.config._events import Bus
from ml_pipeline.config.alerting import AlertManager
_alert_delivery._GATHER_SECONDS = 0.0
_alert_delivery._LEASE_MARGIN_SECONDS = 1.0
class Hangs:
    name = "pager"
    def send(self, message):
        pathlib.Path("delivery").write_text(message.delivery_id)
        signal.pause()
AlertManager(channels=[Hangs()], bus=Bus()).alert_processing_failure("data_ingestion", "x")
signal.pause()
"""


def test_a_kill_while_holding_the_lease_is_taken_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is idle, and was there before the outbox, delivers it by itself, under the same id."""
    monkeypatch.setattr(_alert_delivery, "_LOOK_SECONDS", 0.1)
    monkeypatch.setenv("ML_PIPELINE_SMTP_TIMEOUT_SECONDS", "0.1")
    pager = Pager()
    idle = AlertManager(channels=[pager], bus=Bus(), on_delivery=lambda *_: None)
    idle._background.get()
    outbox = _runtime.settings().data_dir / "alerts" / "outbox.db"
    assert not outbox.exists()
    process = subprocess.Popen([sys.executable, "-c", HANGS])
    eventually(lambda: pager.sent or (Path("delivery").exists() and Path("delivery").read_text()))
    process.kill()
    process.wait()
    if not Path("delivery").exists():  # the idle one was quicker
        return
    (message,) = eventually(lambda: pager.sent)
    assert message.delivery_id == Path("delivery").read_text()


STORMY = f"""
import json, os, pathlib, resource, sys, threading
from ml_pipeline.config._events import Bus
from ml_pipeline.config.alerting import AlertManager
file = os.open("post", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
class Post:
    name = "post"
    def send(self, message):
        names = [alert.operation for alert in message.alerts]
        os.write(file, json.dumps([message.delivery_id, names, message.note]).encode() + b"\\n")
alerts = AlertManager(channels=[Post()], bus=Bus(), on_delivery=lambda *_: None)
count = int(sys.argv[1])
def storm(first):
    for number in range(first, count, {THREADS}):
        alerts.alert_processing_failure(f"o{{number % {IDENTITIES}}}", f"row {{number}}")
def rss():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def run():
    threads = [threading.Thread(target=storm, args=(number,)) for number in range({THREADS})]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
run()
before = rss()
for _ in range(3): run()
print(rss() - before)
"""


def test_a_storm_is_few_messages(tmp_path: Path) -> None:
    """Of thousands of alerts of a hundred identities a hundred are delivered; the rest is counted; memory is flat."""
    share = STORM // PROCESSES // 4
    processes = [
        subprocess.Popen([sys.executable, "-c", STORMY, str(share)], stdout=subprocess.PIPE, text=True)
        for _ in range(PROCESSES)
    ]
    grown = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0] * PROCESSES
    messages = [json.loads(line) for line in Path("post").read_text().splitlines()]
    delivered: list[Any] = [name for _, names, _ in messages for name in names]
    assert sorted(delivered) == sorted(f"o{index}" for index in range(IDENTITIES))
    summary = AlertManager(channels=[], bus=Bus()).summary()
    assert (summary.alerts, summary.held_back) == (IDENTITIES, STORM - IDENTITIES)
    assert summary.deliveries == {"post": {"sent": IDENTITIES}}
    assert max(grown) < 16 * 2**20


def test_a_mail_server_that_is_down_for_ten_minutes() -> None:
    """What is raised meanwhile is delivered once it is back, each alert in one mail, though every attempt had failed."""
    port = free_port()
    mail_through(port)
    world = World()
    alerts = AlertManager(clock=world.clock, bus=world.bus, on_delivery=lambda *attempt: world.attempts.append(attempt))
    for second in range(0, 600, 5):
        if second % 60 == 0:
            alerts.alert_processing_failure(f"o{second // 60}", "x")
        alerts.flush()
        world.clock.now += 5
    assert {result for _, result, _ in world.attempts} == {"failed"}
    mailbox = Mailbox()
    server = Server(mailbox)
    server.port = port
    server.start()
    try:
        world.clock.now += 3600
        assert alerts.flush()
    finally:
        server.stop()
    texts = [mail.as_string() for _, mail in mailbox.received]
    assert len({mail["Message-ID"] for _, mail in mailbox.received}) == len(texts)
    for index in range(10):
        assert sum(f"o{index} failed" in text for text in texts) == 1
    assert alerts.summary(86_400).deliveries == {"email": {"sent": 10}}
