"""The audit trail: what was written stands, what was tampered with shows, and what must be audited is."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline import _runtime
from ml_pipeline.config import _audit_loss, _events, logging_config
from ml_pipeline.config._audit import GENESIS, AuditReport, AuditTrail, read_key, verify
from ml_pipeline.config._events import (
    AuditEvent,
    Bus,
    Event,
    LineageEdge,
    LineageEvent,
    LineageNode,
    OperationEvent,
    publish,
)
from ml_pipeline.config._routes import OPERATIONS
from ml_pipeline.config.logging_config import audit_logger, get_logger, log_operation
from ml_pipeline.config.operation_logger import OperationLogger
from ml_pipeline.errors import OperationStateError, SettingsError

TRAIL = Path("ml_pipeline/logs/audit.log")
KEY = b"k" * 32
AUDITED = sorted(kind for kind, route in OPERATIONS.items() if route.audited)


def _oracle(path: Path, key: bytes | None = None) -> list[dict[str, Any]]:
    """Recompute the chain of a file by its description alone, and return its records."""
    previous, records = "0" * 64, []
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        record = json.loads(line)
        body = line[: line.rindex(b',"hash":"')]
        digest = hmac.new(key, body, hashlib.sha256) if key else hashlib.sha256(body)
        assert list(record)[-3:] == ["seq", "prev", "hash"]
        assert (record["seq"], record["prev"], record["hash"]) == (number, previous, digest.hexdigest())
        previous = record["hash"]
        records.append(record)
    return records


def _written(path: Path, count: int = 6, key: bytes | None = None) -> list[bytes]:
    trail = AuditTrail(path, key)
    for number in range(count):
        trail.append({"message": f"record {number}", "context": {"hash": "x", "n": [1, {"hash": "nested"}]}})
    trail.close()
    return path.read_bytes().splitlines(keepends=True)


@pytest.mark.parametrize("key", [None, KEY])
def test_the_chain_is_as_described(tmp_path: Path, key: bytes | None) -> None:
    """An independent computation of the chain agrees, and so does `verify`."""
    path = tmp_path / "audit.log"
    _written(path, 6, key)
    _written(path, 2, key)
    assert len(_oracle(path, key)) == 8
    assert verify(path, key) == AuditReport(intact=True, records=8)


def test_an_empty_or_missing_trail_is_intact(tmp_path: Path) -> None:
    """Nothing written is nothing tampered with."""
    assert verify(tmp_path / "audit.log") == AuditReport(intact=True, records=0, has_head=False)
    (tmp_path / "audit.log").touch()
    assert verify(tmp_path / "audit.log") == AuditReport(intact=True, records=0, has_head=False)


def test_the_reason_is_told(tmp_path: Path) -> None:
    """Each way of tampering has its own words, with the number of the record."""
    path = tmp_path / "audit.log"
    lines = _written(path)
    reasons = {}
    for name, edited in {
        "changed": [lines[0], lines[1].replace(b"record 1", b"record X"), *lines[2:]],
        "removed": [lines[0], *lines[2:]],
        "inserted": [lines[0], b"2024-01-15 - forged\n", *lines[1:]],
    }.items():
        path.write_bytes(b"".join(edited))
        reasons[name] = verify(path).reason
    assert reasons == {
        "changed": "record 2 was changed, or written with another key",
        "removed": "record 2 should stand here, but this is record 3: records are missing or added",
        "inserted": "it is no audit record",
    }


def test_a_chain_recomputed_without_the_right_past_is_found(tmp_path: Path) -> None:
    """A record with a sound hash of its own that follows nothing, or has no ``prev``, or no number, is found."""
    path = tmp_path / "audit.log"
    first = _written(path, 1)[0]
    for body, reason in (
        (b'{"seq":2,"prev":"00"', "record 2 does not follow the record before it"),
        (b'{"seq":2', "record 2 does not follow the record before it"),
        (b'{"seq":1e999', "record 2 should stand here, but this is record -1: records are missing or added"),
        (b'["seq"', "record 2 should stand here, but this is record -1: records are missing or added"),
    ):
        path.write_bytes(first + body + b',"hash":"' + hashlib.sha256(body).hexdigest().encode() + b'"}\n')
        assert verify(path) == AuditReport(intact=False, records=1, line=2, reason=reason, file="audit.log")


def test_a_key_makes_the_chain_unforgeable(tmp_path: Path) -> None:
    """With another key, or with none, no record verifies."""
    path = tmp_path / "audit.log"
    _written(path, 3, KEY)
    assert verify(path, KEY).intact
    for wrong in (None, b"w" * 32):
        assert verify(path, wrong).line == 1


def test_the_key_file(tmp_path: Path) -> None:
    """The key is what the file holds without white space around it; unreadable or short is one clear line."""
    path = tmp_path / "key"
    assert read_key(None) is None
    path.write_bytes(b"  " + KEY + b"\n")
    assert read_key(path) == KEY
    path.write_bytes(b"short\n")
    with pytest.raises(SettingsError) as caught:
        read_key(path)
    assert str(caught.value) == (
        "the key in ML_PIPELINE_AUDIT_KEY_FILE must have at least 16 bytes (got '5 bytes'); "
        "write a longer one, for instance with `openssl rand -hex 32`"
    )
    with pytest.raises(SettingsError) as caught:
        read_key(tmp_path)
    assert str(caught.value) == (
        f"ML_PIPELINE_AUDIT_KEY_FILE must be a readable file (got '{tmp_path}'); correct it (Is a directory)"
    )


def _append_many(path: Path, writer: int, count: int) -> None:
    trail = AuditTrail(path)
    for number in range(count):
        trail.append({"message": f"{writer}:{number}"})


def test_threads_keep_one_chain(tmp_path: Path) -> None:
    """Eight threads, through one object and through several, write one chain with every record."""
    path = tmp_path / "audit.log"
    shared = AuditTrail(path)

    def append(writer: int) -> None:
        trail = shared if writer % 2 else AuditTrail(path)
        for number in range(20):
            trail.append({"message": f"{writer}:{number}"})

    threads = [threading.Thread(target=append, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {record["message"] for record in _oracle(path)} == {f"{w}:{n}" for w in range(8) for n in range(20)}


def test_processes_keep_one_chain(tmp_path: Path) -> None:
    """Two processes write one chain with every record."""
    path = tmp_path / "audit.log"
    spawn = multiprocessing.get_context("spawn")
    workers = [spawn.Process(target=_append_many, args=(path, writer, 60)) for writer in range(2)]
    for worker in workers:
        worker.start()
    _append_many(path, 2, 60)
    for worker in workers:
        worker.join()
    assert {record["message"] for record in _oracle(path)} == {f"{w}:{n}" for w in range(3) for n in range(60)}


def test_a_record_written_while_another_is_encoded_stands_before_it(tmp_path: Path) -> None:
    """A ``__repr__`` that audits while its record is being encoded breaks no chain; its own record comes first."""
    path = tmp_path / "audit.log"
    trail = AuditTrail(path)

    class Speaking:
        def __repr__(self) -> str:
            trail.append({"message": "inner"})
            return "spoken"

    trail.append({"message": "outer", "context": {"value": Speaking()}})
    trail.append({"message": "next"})
    assert [record["message"] for record in _oracle(path)] == ["inner", "outer", "next"]


def test_a_signal_handler_may_audit(tmp_path: Path) -> None:
    """Records of a handler that interrupts other records are all there, in one chain."""
    path = tmp_path / "audit.log"
    trail = AuditTrail(path)
    handled = said = 0

    def handle(*_: object) -> None:
        nonlocal handled
        handled += 1
        trail.append({"message": "handler"})

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.005)
    try:
        while handled < 20:
            trail.append({"message": "main"})
            said += 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    messages = [record["message"] for record in _oracle(path)]
    assert (messages.count("main"), messages.count("handler")) == (said, handled)


def test_a_record_that_does_not_fit_leaves_no_trace(tmp_path: Path) -> None:
    """Where the disk is full, `append` raises, and the trail ends where it ended before, ready for the next record."""
    program = f"""
import resource
from pathlib import Path
from ml_pipeline.config._audit import AuditTrail
trail = AuditTrail(Path({str(tmp_path / "audit.log")!r}))
trail.append({{"message": "first"}})
resource.setrlimit(resource.RLIMIT_FSIZE, (200, resource.RLIM_INFINITY))
try:
    trail.append({{"message": "second"}})
except OSError as full:
    print(full.strerror)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
trail.append({{"message": "third"}})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "File too large\n"
    assert [record["message"] for record in _oracle(tmp_path / "audit.log")] == ["first", "third"]


def test_a_huge_record_keeps_its_place_in_the_chain(tmp_path: Path) -> None:
    """What is cut from a record too large to write is never its number or its link; others find its end."""
    path = tmp_path / "audit.log"
    huge: list[Mapping[str, Any]] = [
        {"context": {f"k{n}": "x" * 8_000 for n in range(100)}},
        {"context": [[0] * 900 for _ in range(100)]},
    ]
    for fields in huge:
        trail = AuditTrail(path)
        trail.append(fields)
        trail.close()
    assert path.stat().st_size > 3 * (1 << 16)
    assert len(_oracle(path)) == 2


def test_a_trail_that_was_moved_or_cut_shows_the_gap(tmp_path: Path) -> None:
    """A process that is still writing does not start a clean chain where its earlier records have gone."""
    path = tmp_path / "audit.log"
    trail = AuditTrail(path)
    for number in range(3):
        trail.append({"message": str(number)})
    path.rename(tmp_path / "moved.log")
    trail.append({"message": "3"})
    assert verify(tmp_path / "moved.log").records == 3
    missing = "record 1 should stand here, but this is record {}: records are missing or added"
    assert verify(path) == AuditReport(False, 0, 1, missing.format(4), file="audit.log")
    path.write_bytes(b"")
    trail.append({"message": "4"})
    assert verify(path) == AuditReport(False, 0, 1, missing.format(5), file="audit.log")


def test_a_system_without_pread_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system has no positioned read, the end of the trail is found all the same."""
    path = tmp_path / "audit.log"
    _written(path, 2)
    monkeypatch.delattr(os, "pread")
    _written(path, 2)
    assert len(_oracle(path)) == 4


def test_check_says_whether_a_record_could_be_written(tmp_path: Path) -> None:
    """`check` writes nothing; it raises where `append` would."""
    trail = AuditTrail(tmp_path / "logs" / "audit.log")
    trail.check()
    assert (tmp_path / "logs" / "audit.log").read_bytes() == b""
    trail.close()
    (tmp_path / "in the way").touch()
    with pytest.raises(NotADirectoryError):
        AuditTrail(tmp_path / "in the way" / "x" / "audit.log").check()


@pytest.fixture
def operations() -> OperationLogger:
    """An operation logger whose events go to the log and the audit trail alone."""
    bus = Bus()
    logging_config.subscribe_to(bus)
    return OperationLogger(bus)


@pytest.mark.parametrize("kind", AUDITED)
def test_automatic_records(operations: OperationLogger, kind: str) -> None:
    """Every audited kind of operation leaves one record at its end: user, object, version, result, and the ids."""
    facts = {"dataset_name": "ADNI", "dataset_version": "v1"}
    with operations.operation(kind, user_id="ann", **facts) as op:
        op.count(records=5)
    with pytest.raises(TimeoutError), operations.operation(kind, name="again", **facts):
        raise TimeoutError("too slow")
    done, failed = _oracle(TRAIL)
    assert (done["message"], done["user_id"], done["operation"]) == (kind, "ann", OPERATIONS[kind].name)
    assert (done["operation_id"], done["run_id"], done["pipeline"]) == (op.operation_id, op.run_id, "test")
    expected = {"action": kind, "object": "ADNI", "version": "v1", "result": "success", "counts": {"records": 5}}
    assert done["context"] == expected
    assert (failed["context"]["result"], failed["context"]["error"], failed["operation"]) == (
        "failure",
        "too slow",
        "again",
    )
    assert failed["user_id"]


def test_what_is_audited() -> None:
    """The kinds that an auditor asks for are audited without anyone asking."""
    assert AUDITED == [
        "data_access",
        "deployment",
        "feature_extraction",
        "ingestion",
        "prediction",
        "training",
        "validation",
    ]


def test_the_other_results(operations: OperationLogger) -> None:
    """An operation that was cancelled says so, and one that is no one's business is not audited."""
    with pytest.raises(KeyboardInterrupt), operations.operation("training"):
        raise KeyboardInterrupt
    with operations.operation("custom"):
        operations.log_prediction(features=[1], decision="AD")
    (record,) = _oracle(TRAIL)
    assert record["context"]["result"] == "cancelled"
    assert record["context"]["object"] == "model_training"


def test_the_audit_logger_writes_to_the_trail_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Its records are in audit.log and nowhere else, with user, object, version, result, and whatever was given."""
    extra = log_operation("review", "ann", object="model", version="2", result="denied", action="mine", rows=3)
    audit_logger.info("access_review", extra={**extra, "ticket": 7})
    (record,) = _oracle(TRAIL)
    assert (record["message"], record["user_id"], record["operation"]) == ("access_review", "ann", "review")
    assert record["context"] == {
        "action": "access_review",
        "object": "model",
        "version": "2",
        "result": "denied",
        "given": {"action": "mine"},
        "ticket": 7,
        "rows": 3,
    }
    assert sorted(path.name for path in TRAIL.parent.iterdir()) == ["audit.head", "audit.log"]
    assert caplog.records == []
    assert _runtime.tally.audit_records == 1


def test_the_audit_logger_ignores_levels_and_disabled() -> None:
    """Nothing that silences loggers silences the audit trail."""
    before = audit_logger.level
    audit_logger.setLevel(logging.CRITICAL)
    audit_logger.disabled = True
    logging.disable(logging.CRITICAL)
    try:
        audit_logger.debug("one")
        audit_logger.log(1, "two %s", "args")
        get_logger("audit", "reviews").info("three")
    finally:
        logging.disable(logging.NOTSET)
        audit_logger.disabled = False
        audit_logger.setLevel(before)
    assert [record["message"] for record in _oracle(TRAIL)] == ["one", "two args", "three"]


def test_every_logger_of_the_audit_channel_keeps_the_chain() -> None:
    """Children of the audit logger, and plain loggers by its name, write records of the chain, not bare lines."""
    get_logger("audit").warning("one")
    audit_logger.getChild("billing").warning("two")
    logging.getLogger("ml_pipeline.audit.plain").error("three")
    assert [record["message"] for record in _oracle(TRAIL)] == ["one", "two", "three"]
    assert not (TRAIL.parent / "errors.log").exists()


def test_an_exception_is_audited_with_its_traceback() -> None:
    """`audit_logger.exception` keeps type, message and traceback under the fixed key."""
    empty: dict[str, int] = {}
    try:
        empty["missing"]
    except KeyError:
        audit_logger.exception("lookup", extra=log_operation(result="failure"))
    (record,) = _oracle(TRAIL)
    assert (record["exception"]["type"], record["exception"]["message"]) == ("KeyError", "'missing'")
    assert "KeyError: 'missing'" in record["exception"]["stacktrace"]


@settings(deadline=None)
@given(
    st.dictionaries(st.text(max_size=5), st.text() | st.binary() | st.floats() | st.integers(), max_size=4), st.text()
)
def test_hostile_audit_records_stay_in_the_chain(tmp_path_factory: Any, context: dict[str, Any], user: str) -> None:
    """Whatever is audited, each record is one line of the chain."""
    path = tmp_path_factory.mktemp("hostile") / "audit.log"
    trail = AuditTrail(path)
    trail.append({"message": user, "user_id": user, "context": context})
    trail.append(context)
    trail.close()
    assert len(path.read_bytes().splitlines()) == 2
    assert verify(path).records == 2


def test_lineage_recorded_outside_an_operation_is_audited() -> None:
    """An explicit lineage call with no operation around it leaves its own record; an automatic one does not."""
    nodes = (LineageNode(node_id="s:1", type="source", name="ADNI"), LineageNode(node_id="d:1", type="data", name="A"))
    edge = LineageEdge(source_id="s:1", target_id="d:1", kind="ingestion", status="failed")
    bus = Bus()
    logging_config.subscribe_to(bus)
    bus.publish(LineageEvent(kind="ingestion", nodes=nodes, edges=(edge,), user_id="ann"))
    bus.publish(LineageEvent(kind="ingestion", nodes=nodes, edges=(edge,), automatic=True))
    bus.publish(LineageEvent(kind="ingestion", nodes=nodes, edges=(edge,), operation_id="inside"))
    (record,) = _oracle(TRAIL)
    assert record["user_id"] == "ann"
    assert record["context"] == {
        "action": "ingestion",
        "object": "A",
        "result": "failure",
        "nodes": ["s:1", "d:1"],
    }


def test_a_change_of_configuration_is_audited_without_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which settings changed, from what to what; of a secret only that it changed, and no credentials in a URL."""
    audit_logger.info("opened")
    ml_pipeline.configure(log_level="DEBUG", grafana_token="hunter2", grafana_url="http://ann:hunter3@g.example/")
    record = _oracle(TRAIL)[-1]
    assert (record["message"], record["context"]["object"]) == ("configuration_change", "ml_pipeline")
    assert record["context"]["changed"] == {
        "log_level": ["INFO", "DEBUG"],
        "grafana_token": "[redacted]",
        "grafana_url": ["http://127.0.0.1:3000", "http://***@g.example/"],
    }
    assert b"hunter" not in TRAIL.read_bytes()


@pytest.fixture
def unwritable(isolated: Path) -> Path:
    """A log folder that cannot be made, because a file has its name; even root cannot write there."""
    path = isolated / "in the way"
    path.touch()
    return path


@pytest.mark.parametrize("strict", [True, False])
def test_what_must_be_audited_and_cannot_does_not_run(
    operations: OperationLogger, unwritable: Path, *, strict: bool
) -> None:
    """With AUDIT_REQUIRED, the start of an audited operation raises before any work, whatever STRICT says."""
    ml_pipeline.configure(strict=strict, audit_required=True, log_dir=unwritable)
    ran = []
    with pytest.raises(OperationStateError) as caught, operations.operation("ingestion"):
        ran.append(True)
    assert str(caught.value) == (
        f"an operation that cannot be audited does not run (got \"[Errno 17] File exists: '{unwritable}'\"); "
        "mend the disk or unset ML_PIPELINE_AUDIT_REQUIRED"
    )
    with pytest.raises(OperationStateError):
        operations.log_training_start("model")
    with pytest.raises(OperationStateError):
        audit_logger.info("by hand")
    assert (ran, operations.open_operations()) == ([], {})


def test_what_need_not_be_audited_runs(operations: OperationLogger, unwritable: Path) -> None:
    """AUDIT_REQUIRED stops only the kinds that are audited."""
    ml_pipeline.configure(strict=False, audit_required=True, log_dir=unwritable)
    ran = []
    with operations.operation("custom"):
        ran.append(True)
    assert ran


def test_by_default_a_lost_audit_record_is_counted_and_the_work_goes_on(
    operations: OperationLogger, unwritable: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without AUDIT_REQUIRED, nothing is raised; each lost record is counted, and the cause is said once."""
    ml_pipeline.configure(strict=False, log_dir=unwritable)
    for _ in range(3):
        with operations.operation("ingestion"):
            pass
    assert _runtime.tally.log_records_dropped["audit FileExistsError"] == 3
    assert _runtime.tally.audit_records == 0
    assert capsys.readouterr().err.count("ml_pipeline: audit: FileExistsError") == 1


def test_a_bad_key_stops_the_audit_trail_and_not_the_logs(operations: OperationLogger, isolated: Path) -> None:
    """A key file that cannot be read loses audit records, which are counted, and no other record."""
    ml_pipeline.configure(strict=False, audit_key_file=isolated / "missing")
    with operations.operation("ingestion"):
        pass
    assert not TRAIL.exists()
    assert _runtime.tally.log_records_dropped["audit SettingsError"] == 1
    said = (TRAIL.parent / "ml_pipeline.log").read_text()
    assert "data_ingestion started" in said
    assert "data_ingestion completed" in said


def test_what_must_be_audited_with_a_bad_key_says_what_is_wrong_with_it(isolated: Path) -> None:
    """The remedy is that of the key."""
    ml_pipeline.configure(strict=False, audit_required=True, audit_key_file=isolated / "missing")
    with pytest.raises(OperationStateError) as caught:
        audit_logger.info("export")
    assert str(caught.value) == (
        "an operation that cannot be audited does not run (got 'ML_PIPELINE_AUDIT_KEY_FILE must be a readable file'); "
        "correct it (No such file or directory) or unset ML_PIPELINE_AUDIT_REQUIRED"
    )


def test_the_key_of_the_settings_is_used(isolated: Path) -> None:
    """With AUDIT_KEY_FILE the trail is an HMAC chain."""
    (isolated / "key").write_bytes(KEY)
    ml_pipeline.configure(audit_key_file=isolated / "key")
    publish(AuditEvent(action="review"))
    assert len(_oracle(TRAIL, KEY)) == 1


def test_someone_always_did_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a user, the record names the account; without a name for that, its number."""
    monkeypatch.setenv("USER", "ann")
    audit_logger.info("one")
    for name in ("USER", "LOGNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    audit_logger.info("two")
    assert [record["user_id"] for record in _oracle(TRAIL)] == ["ann", f"uid {os.getuid()}"]


def test_genesis() -> None:
    """The first record follows 64 zeros."""
    assert GENESIS == "0" * 64


def test_who_did_it_is_taken_from_a_plain_extra_too() -> None:
    """As object, version and result are; what `log_operation` says comes first, and nothing given is lost."""
    audit_logger.info("export", extra={"user_id": "dr.weber", "object": "ADNI", "result": "denied"})
    audit_logger.info("export", extra={"user_id": "dr.weber", **log_operation(user_id="ann", object="ADNI")})
    audit_logger.info("%s", "export", extra={"user_id": "dr.weber"}, stacklevel=1)
    said = [(line["user_id"], line["context"].get("user_id")) for line in _oracle(TRAIL)]
    assert said == [("dr.weber", None), ("ann", "dr.weber"), ("dr.weber", None)]


def test_a_child_of_the_audit_logger_is_one() -> None:
    """No level, nor `logging.disable`, keeps its records from the trail."""
    team = audit_logger.getChild("team")
    logging.disable(logging.CRITICAL)
    try:
        team.debug("review")
        team.getChild("night").info("export")
    finally:
        logging.disable(logging.NOTSET)
    assert [line["message"] for line in _oracle(TRAIL)] == ["review", "export"]


def test_an_audit_trail_that_fails_is_told_of(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an operation that fails: a line in errors.log and an alert, once a minute; and that it goes well again."""
    ml_pipeline.configure(strict=False)
    clock = [100.0]
    monkeypatch.setattr(_audit_loss.time, "monotonic", lambda: clock[0])
    trail = isolated / "ml_pipeline" / "logs" / "audit.log"
    trail.mkdir(parents=True)
    heard: list[tuple[str, str]] = []

    def hear(event: Event) -> None:
        assert isinstance(event, OperationEvent)
        heard.append((event.type, event.name))

    unsubscribe = _events.subscribe("test", hear, lambda kind: kind is OperationEvent)
    for _ in range(3):
        audit_logger.info("export")
    clock[0] += 60
    audit_logger.info("export")
    assert heard == [("fail", "audit_trail")] * 2
    assert _runtime.tally.telemetry_errors == {("audit", "IsADirectoryError"): 4}
    assert "audit_trail failed: IsADirectoryError" in (trail.parent / "errors.log").read_text()
    trail.rmdir()
    audit_logger.info("export")
    audit_logger.info("export")
    unsubscribe()
    assert heard[2:] == [("complete", "audit_trail")]
