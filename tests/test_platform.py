from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from stat import S_IMODE

import psutil
import pytest

from ml_pipeline import _platform
from ml_pipeline.cli import main
from tests.processes import in_fork, python_answer, run_python
from tests.support import eventually

STAT = "4321 (evil) name) R 1 4321 4321 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 1 0 {start} 1 1 1 1 1 1\n"


def fake_proc(folder: Path, **stats: str) -> Path:
    """Make a process file system in which these processes live, and we ourselves."""
    for pid, stat in {"self": STAT.format(start=1), **stats}.items():
        (folder / pid.lstrip("p")).mkdir()
        (folder / pid.lstrip("p") / "stat").write_text(stat, encoding="ascii")
    return folder


def test_the_start_of_a_process_is_read_past_its_name(tmp_path: Path) -> None:
    """A process may call itself anything, brackets and blanks included."""
    proc = fake_proc(tmp_path, p4321=STAT.format(start=777))
    assert _platform.process_start(4321, proc=proc) == "777"


@pytest.mark.parametrize("state", ["Z", "X", "x"])
def test_a_zombie_is_gone(state: str, tmp_path: Path) -> None:
    """It runs no code any more, though its parent has not asked how it ended."""
    proc = fake_proc(tmp_path, p4321=STAT.format(start=777).replace(" R ", f" {state} "))
    assert _platform.process_start(4321, proc=proc) is None


def test_a_process_that_is_not_there_is_gone(tmp_path: Path) -> None:
    """Where the process file system shows others, its silence counts."""
    assert _platform.process_start(4321, proc=fake_proc(tmp_path)) is None


@pytest.mark.parametrize("broken", ["missing", "short", "empty", "unreadable"])
def test_without_a_process_file_system_psutil_is_asked(broken: str, tmp_path: Path) -> None:
    """Other systems have none, and some containers an unusual one."""
    if broken == "unreadable":
        (tmp_path / str(os.getpid()) / "stat").mkdir(parents=True)
    elif broken != "missing":
        fake_proc(tmp_path, **{f"p{os.getpid()}": "1 (x) R 1\n" if broken == "short" else ""})
    assert _platform.process_start(os.getpid(), proc=tmp_path) == f"{psutil.Process().create_time():.2f}"


@pytest.mark.parametrize("pid", [-1, 2**31 - 1, 2**64])
def test_no_process_has_an_impossible_id(pid: int, tmp_path: Path) -> None:
    """A damaged journal may name any number."""
    assert _platform.process_start(pid) is None
    assert _platform.process_start(pid, proc=tmp_path) is None


@pytest.mark.parametrize("proc", [Path("/proc"), Path("/nowhere")])
def test_a_process_is_told_from_one_that_ended(proc: Path) -> None:
    """From its start to its end the answer is the same; then, even before it is reaped, there is none."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        started = _platform.process_start(child.pid, proc=proc)
        assert started is not None
        assert _platform.process_start(child.pid, proc=proc) == started
        child.kill()
        eventually(lambda: _platform.process_start(child.pid, proc=proc) is None)
    finally:
        child.kill()
        child.communicate()
    assert _platform.process_start(child.pid, proc=proc) is None


def test_the_start_of_the_machine_has_an_id(tmp_path: Path) -> None:
    """The same for every process of it; none where the system draws none, or says nothing."""
    place = tmp_path / "sys" / "kernel" / "random"
    assert _platform.boot_id(proc=tmp_path) is None
    place.mkdir(parents=True)
    (place / "boot_id").write_text("6f1c-22\n")
    assert _platform.boot_id(proc=tmp_path) == "6f1c-22"
    (place / "boot_id").write_bytes(b"\xff")
    assert _platform.boot_id(proc=tmp_path) is None
    if Path("/proc/sys/kernel/random/boot_id").exists():
        assert _platform.boot_id() == python_answer(
            "import json; from ml_pipeline import _platform; print(json.dumps(_platform.boot_id()))"
        )


@pytest.mark.skipif(not hasattr(os, "pwrite"), reason="this system has no positioned write")
def test_a_file_that_is_appended_to_is_written_in_its_middle(tmp_path: Path) -> None:
    """And is appended to again afterwards."""
    pytest.importorskip("fcntl")
    path = tmp_path / "log"
    path.write_bytes(b"one two three")
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND)
    _platform.overwrite(descriptor, b"TWO", 4)
    os.write(descriptor, b" four")
    os.close(descriptor)
    assert path.read_bytes() == b"one TWO three four"


def test_a_lock_keeps_other_processes_out_until_it_is_given_up(tmp_path: Path) -> None:
    """Advisory, exclusive, and gone with the process that held it."""
    import fcntl

    path = tmp_path / "lock"

    def try_lock() -> str:
        with path.open("ab") as other:
            try:
                fcntl.flock(other.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return "kept out"
            return "in"

    with path.open("ab") as file:
        _platform.lock_exclusive(file.fileno())
        assert in_fork(try_lock) == "kept out"
        _platform.unlock(file.fileno())
        assert in_fork(try_lock) == "in"


def test_without_locks_one_process_a_file_is_the_users_promise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A system without ``fcntl`` runs the same pipeline."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with (tmp_path / "lock").open("ab") as file:
        _platform.lock_exclusive(file.fileno())
        _platform.unlock(file.fileno())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    """Its folder is made, its content is the new one, and nothing else is left."""
    path = tmp_path / "a" / "b" / "nodes.json"
    for content in (b"old", b"", b"x" * 1_000_000):
        _platform.replace_durably(path, content)
        assert path.read_bytes() == content
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_replacement_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk, or when Ctrl-C comes in the middle; and no half-written file beside it."""
    path = tmp_path / "nodes.json"
    _platform.replace_durably(path, b"old")
    for stopped in (OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()):

        def fail(descriptor: int, stopped: BaseException = stopped) -> None:
            raise stopped

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(type(stopped)):
            _platform.replace_durably(path, b"new")
        with pytest.raises(type(stopped)):
            _platform.replace_durably(path, b"new", for_group=True)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.glob("*nodes*")) == [path]


def test_a_failed_replacement_without_the_disk_leaves_the_old_file_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is full: what was written of the new one is removed."""
    path = tmp_path / "a" / "failed.json"
    _platform.replace_whole(path, b"old")
    rename = Path.replace

    def fail(partial: Path, target: Path) -> Path:
        assert partial.read_bytes() == b"new"
        raise OSError(errno.ENOSPC, "disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        _platform.replace_whole(path, b"new")
    monkeypatch.setattr(Path, "replace", rename)
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]
    _platform.replace_whole(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such modes")
def test_a_file_is_replaced_for_its_group(tmp_path: Path) -> None:
    """It and what is made of its folder can be read by their group alone, whatever the umask."""
    path = tmp_path / "a" / "audit.head"
    before = os.umask(0o077)
    try:
        _platform.replace_durably(path, b"one", for_group=True)
    finally:
        os.umask(before)
    assert S_IMODE(path.stat().st_mode) == 0o640
    assert S_IMODE(path.parent.stat().st_mode) == 0o750
    assert path.read_bytes() == b"one"


@pytest.mark.parametrize("closed", [(2,), (0, 2), (0, 1, 2)])
def test_no_file_is_opened_under_the_number_of_a_stream(closed: tuple[int, ...], tmp_path: Path) -> None:
    """Where a stream is closed, its number stays free."""

    def open_several() -> list[int]:
        for stream in closed:
            os.close(stream)
        opened = [_platform.open_for_group(tmp_path / "log", os.O_WRONLY | os.O_APPEND)]
        opened.append(_platform.open_file(tmp_path / "trail", os.O_RDWR | os.O_CREAT, 0o640))
        _platform.replace_durably(tmp_path / "nodes.json", b"{}")
        return [*opened, *(stream for stream in closed if _is_open(stream)), *map(os.get_inheritable, opened)]

    first, second, *rest = in_fork(open_several)
    assert 2 < first < second
    assert rest == [False, False]
    assert ((tmp_path / "trail").stat().st_mode & 0o777, (tmp_path / "nodes.json").read_bytes()) == (0o640, b"{}")


def test_where_no_other_number_is_left_nothing_stays_open(tmp_path: Path) -> None:
    """It is an error, as with every file that cannot be opened."""

    def open_one() -> tuple[int | None, bool]:
        os.close(2)
        last = os.dup(0)  # the number 2
        os.close(last)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        try:
            _platform.open_file(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
        except OSError as failed:
            return failed.errno, _is_open(2)
        return None, _is_open(2)

    assert in_fork(open_one) == [errno.EMFILE, False]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def test_what_a_library_says_on_a_closed_stderr_reaches_no_file_of_ours() -> None:
    """Neither the audit trail, nor what lies beside it, nor a log, nor a store: the trail stays intact."""
    done = run_python(
        "import os\n"
        "os.close(2)\n"
        "from ml_pipeline.config.logging_config import audit_logger, main_logger\n"
        "from ml_pipeline.config.data_lineage import lineage_tracker\n"
        "def native():\n"
        "    try: os.write(2, b'libgomp: warning\\n')\n"
        "    except OSError: pass\n"
        "for _ in range(3):\n"
        "    audit_logger.info('trained'); native()\n"
        "    main_logger.error('failed'); native()\n"
        "    lineage_tracker.track_data_ingestion('ADNI', 'ADNI_2024', 5); native()\n",
    )
    assert done.returncode == 0, done.stderr
    written = [each for each in Path().rglob("*") if each.is_file()]
    assert {"audit.log", "audit.head", "ml_pipeline.log", "errors.log", "lineage.db"} <= {each.name for each in written}
    assert [each.name for each in written if b"libgomp" in each.read_bytes()] == []
    assert main(["audit", "verify"]) == 0


def test_threads_that_replace_one_file_do_not_mix(tmp_path: Path) -> None:
    """The file holds what one of them wrote, whole, at every moment."""
    path, failures = tmp_path / "nodes.json", []
    contents = [bytes([letter]) * 200_000 for letter in b"abcd"]
    together = threading.Barrier(len(contents) + 1)

    def replace(content: bytes) -> None:
        together.wait()
        try:
            for _ in range(10):
                _platform.replace_durably(path, content)
        except OSError as failed:
            failures.append(failed)

    _platform.replace_durably(path, contents[0])
    threads = [threading.Thread(target=replace, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    together.wait()
    while any(thread.is_alive() for thread in threads):
        assert path.read_bytes() in contents
    for thread in threads:
        thread.join()
    assert not failures
    assert [each.name for each in tmp_path.glob("*nodes*")] == ["nodes.json"]


def test_an_action_runs_in_forked_children(tmp_path: Path) -> None:
    """In the child, not in the parent."""
    pids: list[int] = []
    _platform.after_fork_in_child(lambda: pids.append(os.getpid()))
    assert in_fork(lambda: pids == [os.getpid()])
    assert pids == []


def test_a_fork_waits_for_who_holds_the_barrier() -> None:
    """It waits for who holds the barrier, but not for itself."""
    barrier, held, is_done = _platform.ForkBarrier(), threading.Event(), []

    def hold() -> None:
        with barrier:
            held.set()
            threading.Event().wait(0.2)
            is_done.append(True)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert in_fork(lambda: _passes(barrier) and is_done == [True])
    thread.join()
    with barrier:
        assert in_fork(lambda: True)
    assert _passes(barrier)


def test_a_fork_does_not_wait_for_ever() -> None:
    """Past its time it goes on, and the child finds the barrier free."""
    barrier, held, over = _platform.ForkBarrier(longest=0.01), threading.Event(), threading.Event()

    def hold() -> None:
        with barrier:
            held.set()
            over.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    assert in_fork(lambda: _passes(barrier))
    over.set()
    thread.join()
    assert _passes(barrier)


def _passes(barrier: _platform.ForkBarrier) -> bool:
    """Whether another thread gets through."""

    def enter() -> None:
        with barrier:
            passed.append(True)

    passed: list[bool] = []
    thread = threading.Thread(target=enter, daemon=True)
    thread.start()
    thread.join(5.0)
    return passed == [True]


def test_without_fork_nothing_is_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that cannot fork has no children to prepare."""
    monkeypatch.delattr(os, "register_at_fork")
    _platform.ForkBarrier()
    _platform.after_fork_in_child(pytest.fail)
