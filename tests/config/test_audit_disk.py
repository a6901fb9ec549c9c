"""The audit trail on a disk that forgets: pages that nobody waited for are lost at random when the power goes.

The disk is a model, so that thousands of moments can be tried; `test_audit_power` cuts a real one. Three writers share a
trail as three processes do. Any of their system calls may be their last, be interrupted, or find the disk full.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import ml_pipeline
from ml_pipeline import _platform
from ml_pipeline.config import _audit_files, _audit_journal
from ml_pipeline.config._audit import AuditTrail, verify
from ml_pipeline.config._log_retention import Keeper
from tests.config.audit_kit import KEY, lines_of, rotating

ROUNDS = int(os.environ.get("FAULT_ROUNDS", "25"))
WRITERS = 3
STEPS = 90
PAGE = 256
REAL = {
    name: getattr(os, name) for name in ("write", "pwrite", "ftruncate", "rename", "unlink", "replace", "fdatasync")
}


class _KilledError(BaseException):
    """Ends a writer in the middle of a call, and all that it would still do."""


class _Disk:
    """What lies on disk of each file, by its number, and which pages differ from that."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._files: dict[int, tuple[bytearray, set[int]]] = {}
        self._calls_left: int | None = None
        self._fault: BaseException | None = None
        self.is_dead = False

    def order(self, fault: BaseException | None) -> None:
        """Raise *fault* at one of the next calls; None: at none."""
        self._fault = fault
        self._calls_left = self._dice.randint(1, 14) if fault else None
        self.is_dead = False

    def _step(self) -> None:
        if self.is_dead:
            raise _KilledError
        if self._calls_left is not None and self._fault is not None:
            self._calls_left -= 1
            if not self._calls_left:
                self._calls_left = None
                self.is_dead = isinstance(self._fault, _KilledError)
                raise self._fault

    def _after(self) -> None:
        if not isinstance(self._fault, OSError):  # which would not have done it
            self._step()

    def _held(self, descriptor: int) -> tuple[bytearray, set[int]]:
        number = os.fstat(descriptor).st_ino
        if number not in self._files:
            self._files[number] = bytearray(Path(f"/proc/self/fd/{descriptor}").read_bytes()), set()
        return self._files[number]

    def _changed(self, descriptor: int, start: int, end: int) -> None:
        self._held(descriptor)[1].update(range(start // PAGE, max(end - 1, start) // PAGE + 1))

    def write(self, descriptor: int, content: Any) -> int:
        """Append; what goes to the standard streams is none of ours."""
        if descriptor < 3:
            return int(REAL["write"](descriptor, content))
        self._step()
        self._held(descriptor)
        start = os.fstat(descriptor).st_size
        if self._calls_left == 1:
            content = bytes(content)[: len(content) // 2 or 1]
        written = int(REAL["write"](descriptor, content))
        self._changed(descriptor, start, start + written)
        self._after()
        return written

    def pwrite(self, descriptor: int, content: bytes, at: int) -> int:
        """Write somewhere."""
        self._step()
        self._held(descriptor)
        written = int(REAL["pwrite"](descriptor, content, at))
        self._changed(descriptor, at, at + written)
        self._after()
        return written

    def ftruncate(self, descriptor: int, size: int) -> None:
        """Cut."""
        self._step()
        self._held(descriptor)
        REAL["ftruncate"](descriptor, size)
        self._changed(descriptor, size, size + 1)
        self._after()

    def synchronise(self, descriptor: int) -> None:
        """Wait until all of a file is on disk."""
        self._step()
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            on_disk, changed = self._held(descriptor)
            present = Path(f"/proc/self/fd/{descriptor}").read_bytes()
            self._take(on_disk, present, changed)
            del on_disk[len(present) :]
            changed.clear()
        self._after()

    def named(self, name: str) -> Callable[..., Any]:
        """A call on names, which are on disk at once."""

        def call(*arguments: Any, **options: Any) -> Any:
            self._step()
            with contextlib.suppress(FileNotFoundError):  # the number of what goes is soon that of another file
                self._files.pop(Path(arguments[-1]).stat().st_ino, None)
            answer = REAL[name](*arguments, **options)
            self._after()
            return answer

        return call

    def stop(self, folder: Path) -> None:
        """Leave of each file what was on disk, and of the rest what chance has written."""
        for path in filter(Path.is_file, folder.iterdir()):
            if path.stat().st_ino not in self._files:
                continue
            on_disk, changed = self._files[path.stat().st_ino]
            present, pages = path.read_bytes(), sorted(changed)
            if path.name.startswith("audit.log"):  # which only grows: a file system writes that in order
                pages = pages[: self._dice.randint(0, len(pages))]
            else:
                pages = [page for page in pages if self._dice.random() < 0.5]
            if len(present) < len(on_disk):
                if self._dice.random() < 0.5:
                    del on_disk[len(present) :]
                else:
                    pages = [page for page in pages if (page + 1) * PAGE <= len(present)]
            self._take(on_disk, present, pages)
            path.write_bytes(on_disk)
        self._files.clear()

    @staticmethod
    def _take(on_disk: bytearray, present: bytes, pages: Any) -> None:
        for page in sorted(pages):
            start = page * PAGE
            on_disk.extend(bytes(max(0, min(start, len(present)) - len(on_disk))))
            on_disk[start : start + PAGE] = present[start : start + PAGE]


@contextlib.contextmanager
def _on(disk: _Disk, boots: list[int]) -> Iterator[None]:
    calls = {name: getattr(disk, name) for name in ("write", "pwrite", "ftruncate")}
    calls |= {name: disk.named(name) for name in ("rename", "unlink", "replace")}
    with (
        mock.patch.multiple(os, fsync=disk.synchronise, fdatasync=disk.synchronise, **calls),
        mock.patch.object(_audit_journal, "synchronise", disk.synchronise),
        mock.patch.object(_audit_files, "synchronise", disk.synchronise),
        mock.patch.object(_platform, "boot_id", side_effect=lambda: f"start {boots[0]}"),
    ):
        yield


class _World:
    """A trail, who writes it, and what they were told is on disk."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._dice = random.Random(seed)
        self._boots = [0]
        self._told: set[str] = set()
        self._count = 0
        self._log: list[Any] = [seed]
        self._disk = _Disk(self._dice)

    def live(self) -> None:
        """Write, kill, interrupt and cut the power for some steps, and judge what is left."""
        with _on(self._disk, self._boots):
            writers = [self._writer() for _ in range(WRITERS)]
            for _ in range(STEPS):
                what = self._dice.choices(["write", "batch", "fault", "kill", "close", "stop"], [60, 8, 15, 3, 3, 4])[0]
                at = self._dice.choice([0, 0, 0, 1, 1, 2])
                self._log.append((what, at, self._count))
                if what in {"write", "batch", "fault"}:
                    faults = [_KilledError(), KeyboardInterrupt(), OSError(28, "No space left on device")]
                    self._disk.order(self._dice.choice(faults) if what == "fault" else None)
                    if not self._has_survived(writers[at], self._dice.randint(2, 9) if what == "batch" else 1):
                        writers[at] = self._writer()
                elif what == "close":
                    writers[at].close()
                elif what == "kill":
                    writers[at]._close_all()
                    writers[at] = self._writer()
                else:
                    writers = self._stopped(writers)
                    self._judge()
            self._stopped(writers)
            self._has_survived(self._writer(), 1)
            self._judge()

    def _writer(self) -> AuditTrail:
        largest = self._dice.choice([None, None, 4_000, 12_000])
        path = self._folder / "audit.log"
        return AuditTrail(path, KEY, rotation=rotating(path, max_bytes=largest) if largest else None)

    def _has_survived(self, writer: AuditTrail, count: int) -> bool:
        names = [str(self._count + each) for each in range(count)]
        self._count += count
        padding = "x" * self._dice.choice([0, 0, 100, 500])
        with contextlib.suppress(OSError, KeyboardInterrupt, _KilledError):
            writer.append_all([{"message": name, "padding": padding} for name in names])
            self._told.update(names)
        is_dead = self._disk.is_dead
        self._disk.order(None)
        if is_dead:
            writer._close_all()
        return not is_dead

    def _stopped(self, writers: list[AuditTrail]) -> list[AuditTrail]:
        for writer in writers:
            writer._close_all()
        gc.collect()
        self._disk.stop(self._folder)
        self._boots[0] += 1
        return [self._writer() for _ in writers]

    def _judge(self) -> None:
        report = verify(self._folder / "audit.log", KEY)
        assert report.intact, (report, self._log)
        if not report.pending:
            found = [
                json.loads(line)["message"] for _, _, line in lines_of(self._folder / "audit.log") if line[-1:] == b"\n"
            ]
            assert len(found) == len(set(found)), self._log
            assert self._told <= set(found), (self._told - set(found), self._log)


def test_no_power_cut_loses_doubles_or_breaks_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was told as written is there once, in a chain that verifies, after any number of stops."""
    ml_pipeline.configure(strict=False)
    monkeypatch.setattr(Keeper, "wake", lambda _: None)  # its thread is none of the writers
    monkeypatch.setattr(_audit_journal, "_FEW", 2)
    monkeypatch.setattr(_audit_journal, "_ROOM", 3_000)
    for _ in range(ROUNDS):
        seed = random.randrange(1 << 32)
        folder = tmp_path / str(seed)
        folder.mkdir()
        _World(folder, seed).live()
