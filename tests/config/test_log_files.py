"""Append files: a line is whole or it is not there, whoever else writes, whatever the disk does."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest

from ml_pipeline.config._log_files import AppendFile, AppendFiles
from ml_pipeline.config._log_handle import ends_torn

THREADS = 8
LINES = 500


def _line(writer: int, number: int) -> bytes:
    return f"{writer}:{number}:{'x' * (number % 97)}\n".encode()


def _write_many(path: Path, writer: int) -> None:
    file = AppendFile(path)
    for number in range(LINES):
        file.write(_line(writer, number))


def _all_lines(writers: int) -> Counter[bytes]:
    return Counter(_line(writer, number) for writer in range(writers) for number in range(LINES))


def test_folder_and_file_are_made_at_the_first_write(tmp_path: Path) -> None:
    """Nothing exists before the first line; then the file is there, readable by owner and group alone."""
    file = AppendFile(tmp_path / "a" / "b" / "x.log")
    assert not (tmp_path / "a").exists()
    file.write(b"one\n")
    assert file.path.read_bytes() == b"one\n"
    assert file.path.stat().st_mode & 0o007 == 0
    file.close()
    file.write(b"two\n")
    assert file.path.read_bytes() == b"one\ntwo\n"


def test_threads_share_a_file(tmp_path: Path) -> None:
    """Of eight threads' lines, through one object or several, none is lost and none is torn."""
    shared = AppendFile(tmp_path / "x.log")

    def write(writer: int) -> None:
        file = shared if writer % 2 else AppendFile(shared.path)
        for number in range(LINES):
            file.write(_line(writer, number))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(shared.path.read_bytes().splitlines(keepends=True)) == _all_lines(THREADS)


def test_processes_share_a_file(tmp_path: Path) -> None:
    """Of four processes' lines, none is lost and none is torn."""
    spawn = multiprocessing.get_context("spawn")
    path = tmp_path / "x.log"
    workers = [spawn.Process(target=_write_many, args=(path, writer)) for writer in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert Counter(path.read_bytes().splitlines(keepends=True)) == _all_lines(4)


@pytest.mark.parametrize(("content", "torn"), [(b"", False), (b"a\n", False), (b"a\nb", True), (b"\n", False)])
def test_ends_torn(tmp_path: Path, content: bytes, *, torn: bool) -> None:
    """A file is torn where its last line has no end."""
    path = tmp_path / "x.log"
    path.write_bytes(content)
    assert ends_torn(path, path.stat()) is torn


def test_a_torn_line_is_followed_by_a_fresh_one(tmp_path: Path) -> None:
    """What a killed process left half-written takes no whole line with it."""
    path = tmp_path / "x.log"
    path.write_bytes(b"whole\nhal")
    file = AppendFile(path)
    file.write(b"next\n")
    file.write(b"after\n")
    assert path.read_bytes() == b"whole\nhal\nnext\nafter\n"


def test_a_line_that_is_being_written_is_not_taken_for_a_torn_one(tmp_path: Path) -> None:
    """Who opens a file while others write long lines to it puts no empty line between theirs."""
    path = tmp_path / "x.log"

    def write_long() -> None:
        file = AppendFile(path)
        for _ in range(2_000):
            file.write(b"w" * 3_000 + b"\n")

    def open_often() -> None:
        for _ in range(700):
            file = AppendFile(path)
            file.write(b"o" * 90 + b"\n")
            file.close()

    threads = [threading.Thread(target=work) for work in (write_long, open_often, open_often)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(map(len, path.read_bytes().splitlines())) == {3_000: 2_000, 90: 1_400}


def test_a_disk_that_fills_raises_and_the_next_line_is_fresh(tmp_path: Path) -> None:
    """A line that does not fit raises; once there is room again, the next line stands on a line of its own."""
    program = f"""
import resource
from pathlib import Path
from ml_pipeline.config._log_files import AppendFile
file = AppendFile(Path({str(tmp_path / "x.log")!r}))
file.write(b"whole\\n")
resource.setrlimit(resource.RLIMIT_FSIZE, (9, resource.RLIM_INFINITY))
for line in (b"too long\\n", b"no room\\n"):
    try:
        file.write(line)
    except OSError as full:
        print(full.errno)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
file.write(b"next\\n")
file.write(b"after\\n")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(errno.EFBIG)] * 2
    assert (tmp_path / "x.log").read_bytes() == b"whole\ntoo\nnext\nafter\n"


def test_no_space_left(tmp_path: Path) -> None:
    """A full device raises ENOSPC to the caller of `write`."""
    (tmp_path / "x.log").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        AppendFile(tmp_path / "x.log").write(b"line\n")
    assert caught.value.errno == errno.ENOSPC


def test_a_folder_in_the_place_of_the_file(tmp_path: Path) -> None:
    """A folder of the file's name raises; once it is gone, writing goes on."""
    file = AppendFile(tmp_path / "x.log")
    file.path.mkdir()
    with pytest.raises(IsADirectoryError):
        file.write(b"one\n")
    file.path.rmdir()
    file.write(b"two\n")
    assert file.path.read_bytes() == b"two\n"


def test_a_file_in_the_place_of_the_folder(tmp_path: Path) -> None:
    """A folder that cannot be made raises at each write, and is made as soon as it can be."""
    (tmp_path / "logs").write_text("in the way")
    file = AppendFile(tmp_path / "logs" / "x.log")
    with pytest.raises(FileExistsError):
        file.write(b"one\n")
    (tmp_path / "logs").unlink()
    file.write(b"two\n")
    assert file.path.read_bytes() == b"two\n"


def test_a_pipe_can_be_written_to(tmp_path: Path) -> None:
    """A log file that is a pipe, as a link to /dev/stdout is in a container, gets its lines from the first on."""
    pipe = tmp_path / "x.log"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    file = AppendFile(pipe)
    file.write(b"one\n")
    file.write(b"two\n")
    assert os.read(reader, 100) == b"one\ntwo\n"
    file.close()
    os.close(reader)


def test_files_are_kept_by_their_relative_path(tmp_path: Path) -> None:
    """Each relative path has one file; closing closes all, and a later write opens them again."""
    files = AppendFiles(tmp_path)
    files["a/x.log"].write(b"one\n")
    assert files["a/x.log"] is files["a/x.log"]
    files.close()
    files["a/x.log"].write(b"two\n")
    assert (tmp_path / "a" / "x.log").read_bytes() == b"one\ntwo\n"
    files.close()


def test_a_killed_writer_loses_nothing_it_was_told_is_written(tmp_path: Path) -> None:
    """After ``kill -9``, every line whose `write` returned is in the file, whole."""
    program = f"""
import sys
from pathlib import Path
from ml_pipeline.config._log_files import AppendFile
file = AppendFile(Path({str(tmp_path / "x.log")!r}))
number = 0
while True:
    file.write(b"%d\\n" % number)
    sys.stdout.write(f"{{number}}\\n")
    sys.stdout.flush()
    number += 1
"""
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    told = [writer.stdout.readline() for _ in range(200)]
    writer.send_signal(signal.SIGKILL)
    told += list(writer.stdout)
    writer.wait()
    writer.stdout.close()
    told = [line for line in told if line.endswith("\n")]
    written = (tmp_path / "x.log").read_text().splitlines(keepends=True)
    assert written[: len(told)] == told
    assert [int(line) for line in written] == list(range(len(written)))
