"""How long it takes from a failure to a mail that a server has accepted; ``LATENCY_ROUNDS=50`` prints more of it."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from statistics import median

import pytest

from ml_pipeline.config import _alert_occurrences as occurrences
from ml_pipeline.config._events import Bus
from ml_pipeline.config.alerting import AlertManager
from tests.config.alerting_world import Mailbox, mail_server
from tests.support import eventually

ROUNDS = int(os.environ.get("LATENCY_ROUNDS", "3"))


def delays(mailbox: Mailbox) -> list[float]:
    """Raise alerts one after the other, each of a pipeline of its own, and return how long each mail took."""
    alerts = AlertManager(bus=Bus(), on_delivery=lambda *_: None)
    took = []
    for number in range(ROUNDS):
        begin = time.time()
        said = occurrences.from_call("data_quality", "critical", "m", {}, time=begin, operation="o", feature="f")
        alerts.say(replace(said, alert=replace(said.alert, pipeline=f"p{number}")))
        eventually(lambda arrived=number + 1: len(mailbox.received) >= arrived, seconds=60.0)
        took.append(time.time() - begin)
    return sorted(took)


def show(what: str, took: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    """Print a distribution in one line, where somebody asked for it."""
    if "LATENCY_ROUNDS" not in os.environ:
        return
    tenth = took[int(len(took) * 0.9)]
    with capsys.disabled():
        print(
            f"\n{what}: {len(took)} mails, {took[0]:.2f} s at best, {median(took):.2f} s median, {tenth:.2f} s at the"
        )
        print(f"90th percentile, {took[-1]:.2f} s at worst")


def test_a_mail_is_there_within_two_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    """From the call to the server's word that it has taken it."""
    with mail_server() as mailbox:
        took = delays(mailbox)
    show("as it should be", took, capsys)
    assert median(took) <= 2.0


def test_a_mail_is_there_within_a_minute_though_the_first_attempt_fails(capsys: pytest.CaptureFixture[str]) -> None:
    """The server says "later" once for each."""
    with mail_server() as mailbox:
        mailbox.data = ["451 later", "250 OK"] * ROUNDS
        took = delays(mailbox)
    show("first attempt failing", took, capsys)
    assert took[-1] <= 60.0
