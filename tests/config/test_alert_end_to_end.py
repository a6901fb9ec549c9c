"""From the call to the receiver: nothing lost, nobody kept waiting, no secret shown."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config._events import Bus, OperationEvent
from ml_pipeline.config.alerting import AlertManager, AlertMessage, alert_manager
from tests.config.alerting_world import Clock, World, authenticator, mail_server, mail_through
from tests.support import eventually, free_port


@pytest.fixture
def world() -> World:
    """Return a world where nothing has happened yet."""
    return World()


def test_an_alert_is_mailed_where_the_settings_name_a_server() -> None:
    """The default channel: what is raised arrives, with no call but the alert's own."""
    with mail_server() as mailbox:
        alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")
        ((envelope, mail),) = eventually(lambda: mailbox.received)
    assert envelope.rcpt_tos == ["b@example.org"]
    assert "data_ingestion failed: Connection timeout" in mail["Subject"]


def test_a_server_that_comes_back_gets_every_alert_once(world: World) -> None:
    """While it is down nothing is lost; ten minutes later both alerts arrive, in one message as at its first attempt."""
    world.pager.failures = [ConnectionRefusedError("down")] * 1000
    with world.alerts._background.get()._deliverer._one_at_a_time:
        for name in ("a", "b"):
            world.alerts.alert_processing_failure(name, "x")
    for _ in range(60):
        world.alerts.flush()
        world.clock.now += 10
    world.pager.failures = []
    world.clock.now += 3600
    assert world.alerts.flush()
    (message,) = world.pager.sent
    assert [alert.operation for alert in message.alerts] == ["a", "b"]
    results = [result for _, result, _ in world.attempts]
    assert (results.count("sent"), results.count("dead")) == (1, 0)
    assert 6 <= results.count("failed") <= 12, "exponential: about nine attempts in ten minutes"


def test_what_a_killed_process_said_the_next_one_delivers(isolated: Path) -> None:
    """`kill -9` right after the call returned: the alert is in the store, and the next start delivers it."""
    script = (
        "import os, signal\n"
        "from ml_pipeline.config._events import Bus\n"
        "from ml_pipeline.config.alerting import AlertManager\n"
        "class Never:\n"
        "    name = 'pager'\n"
        "    def send(self, message): signal.pause()\n"
        "AlertManager(channels=[Never()], bus=Bus()).alert_processing_failure('data_ingestion', 'Connection timeout')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (-9, "")
    world = World()
    world.clock.now = 4_000_000_000.0  # past any lease of the killed process
    world.bus.publish(OperationEvent(type="start", kind="training", name="t"))
    eventually(lambda: world.pager.sent)
    world.alerts.flush()
    (message,) = world.pager.sent
    assert (message.alert.operation, message.alert.held_back) == ("data_ingestion", 2)
    (entry,) = json.loads((_runtime.settings().log_dir / "alerts.json").read_text())
    assert entry["alert_id"] == message.alert.alert_id


def test_what_a_process_was_killed_over_is_sent_again_after_its_lease(isolated: Path) -> None:
    """`kill -9` while sending: nobody touches the delivery during the lease; then it goes out, under the same id."""
    script = (
        "import signal, pathlib\n"
        "from ml_pipeline.config._events import Bus\n"
        "from ml_pipeline.config.alerting import AlertManager\n"
        "class Hangs:\n"
        "    name = 'pager'\n"
        "    def send(self, message):\n"
        "        pathlib.Path('delivery').write_text(message.delivery_id)\n"
        "        signal.pause()\n"
        "AlertManager(channels=[Hangs()], bus=Bus(), clock=lambda: 1_700_000_000.0)"
        ".alert_processing_failure('data_ingestion', 'x')\n"
        "signal.pause()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", script])
    delivery_id = eventually(lambda: Path("delivery").exists() and Path("delivery").read_text())
    process.kill()
    process.wait()
    world = World()
    world.clock.now += _runtime.settings().smtp_timeout_seconds
    assert world.alerts.flush()
    assert world.pager.sent == []
    world.clock.now += 3600
    assert world.alerts.flush()
    assert [message.delivery_id for message in world.pager.sent] == [delivery_id]


def test_the_job_waits_for_no_server(world: World) -> None:
    """A channel that hangs keeps no caller waiting, and the end of the process only for its time."""
    ml_pipeline.configure(smtp_timeout_seconds=0.2)
    hung = threading.Event()

    def hang(message: AlertMessage) -> None:
        hung.wait(message.timeout_seconds)
        raise TimeoutError("silence")

    world.pager.send = hang  # type: ignore[method-assign]
    for index in range(20):
        world.alerts.alert_processing_failure(f"o{index}", "x")
    assert len(world.alerts.history()) == 20
    _runtime.shutdown()
    assert len(world.attempts) <= 3
    assert sum(world.manager().summary().deliveries["pager"].values()) == 20
    assert "sent" not in world.manager().summary().deliveries["pager"]


def test_at_the_end_of_the_process_what_is_due_goes_out(isolated: Path) -> None:
    """A script whose last act is an alert delivers it and writes the history before it ends."""
    script = (
        "from ml_pipeline.config._events import Bus\n"
        "from ml_pipeline.config.alerting import AlertManager\n"
        "AlertManager(bus=Bus()).alert_processing_failure('data_ingestion', 'Connection timeout')\n"
    )
    with mail_server() as mailbox:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=False
        )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(mailbox.received) == 1
    (entry,) = json.loads((_runtime.settings().log_dir / "alerts.json").read_text())
    assert (entry["operation"], entry["state"], entry["count"]) == ("data_ingestion", "raised", 1)


def test_a_port_where_nobody_listens_costs_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The alert is kept for later, the failure said once and counted at each attempt."""
    mail_through(free_port())
    clock = Clock()
    alerts = AlertManager(bus=Bus(), clock=clock, on_delivery=lambda *_: None)
    alerts.alert_processing_failure("a", "b")
    for _ in range(2):
        alerts.flush()
        clock.now += 100
    assert alerts.summary().deliveries == {"email": {"pending": 1}}
    assert capsys.readouterr().err.count("ConnectionRefusedError") == 1
    assert _runtime.tally.telemetry_errors["alerting", "ConnectionRefusedError"] == 2


def test_secrets_are_in_no_alert(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A refused login shows the password nowhere: not in the outbox, the history or on stderr."""
    secret = tmp_path / "password"
    secret.write_text("hunter2")
    with mail_server(authenticator=authenticator, auth_require_tls=False) as mailbox:
        ml_pipeline.configure(smtp_user="robot", smtp_password_file=secret)
        alerts = AlertManager(bus=Bus(), on_delivery=lambda *_: None)
        alerts.alert_processing_failure("a", "b")
        assert alerts.flush()
        _runtime.shutdown()
    assert mailbox.received == []
    files = [path for path in Path.cwd().rglob("*") if path.is_file()]
    assert any(path.name == "outbox.db" for path in files)
    assert not any(b"hunter2" in path.read_bytes() for path in files)
    assert "hunter2" not in capsys.readouterr().err
