"""What the log says around the operations that did not end well.

All log files are read backwards at once, merged by time, until the lines that are wanted are found or the run's start
is reached: of gigabytes of logs, a few blocks at their ends are read.
"""

from __future__ import annotations

import heapq
from collections import deque
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

import orjson

from ml_pipeline.config._channels import AUDIT, CHANNELS
from ml_pipeline.report.tail import MOST_BYTES, lines_from_end
from ml_pipeline.report.values import mapping, text

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Sequence
    from pathlib import Path

__all__ = ["LINES_BEFORE", "Excerpt", "LogLine", "read_excerpts"]

LINES_BEFORE: Final = 8
"""How many lines of the run are shown before the line that tells of the failure."""

_MOST_FILES: Final = 64
_MOST_STACK_LINES: Final = 60
_STACK_HEAD: Final = 10
_STAMP: Final = b'{"timestamp":"'
_STAMP_END: Final = len(_STAMP) + len("2026-01-15T09:30:25.123456Z")
_ENDS: Final = frozenset({"fail", "cancel"})


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line of the log.

    Attributes:
        timestamp: RFC 3339, UTC.
        level: Such as ``ERROR``.
        logger: Who said it.
        message: What.
        stacktrace: The traceback, without its middle where it is long.
    """

    timestamp: str
    level: str
    logger: str
    message: str
    stacktrace: str = ""


@dataclass(slots=True)
class Excerpt:
    """The line that tells how an operation ended, and those before it.

    Attributes:
        operation_id: The operation.
        lines: From the earliest to the line that tells of the end.
    """

    operation_id: str
    lines: deque[LogLine] = field(default_factory=deque)


def read_excerpts(
    log_dir: Path,
    run_id: str,
    operation_ids: Sequence[str],
    *,
    started: str = "",
    before: int = LINES_BEFORE,
    most_bytes: int = MOST_BYTES,
) -> list[Excerpt]:
    """Find what the log says around the ends of operations.

    Args:
        log_dir: The folder of the logs.
        run_id: Only lines of this run are shown.
        operation_ids: The operations.
        started: When the run began, RFC 3339 UTC; nothing before it is read. Empty: there is no such limit.
        before: How many lines before each end.
        most_bytes: How much of the end of each file is read at most.

    Returns:
        An excerpt for each operation whose end was found, in the order of *operation_ids*.
    """
    found: dict[str, Excerpt] = {}
    filling: list[Excerpt] = []
    wanted = set(operation_ids)
    with ExitStack() as stack:
        sources = [
            stack.enter_context(closing(_records(paths, run_id.encode(), started.encode(), most_bytes)))
            for paths in _files(log_dir)
        ]
        for record in _without_copies(heapq.merge(*sources, key=_stamp, reverse=True)):
            line = _line(record)
            for excerpt in filling:
                excerpt.lines.appendleft(line)
            filling = [excerpt for excerpt in filling if len(excerpt.lines) <= before]
            ended = text(record.get("operation_id"))
            if ended in wanted and text(mapping(record.get("context")).get("event")) in _ENDS:
                wanted.discard(ended)
                found[ended] = Excerpt(ended, deque([line]))
                filling.append(found[ended])
            if not wanted and not filling:
                break
    return [found[each] for each in operation_ids if each in found]


def _files(log_dir: Path) -> list[list[Path]]:
    """Name each log, and after it the file it was last rotated to; the audit trail has no failures of its own."""
    current = [log_dir / channel.path for channel in CHANNELS.values() if channel.key != AUDIT]
    current += sorted((log_dir / "airflow").glob("*.log"))[: _MOST_FILES - len(current)]
    return [[path, *_rotated(path)] for path in current]


def _rotated(path: Path) -> list[Path]:
    older = [each for each in path.parent.glob(f"{path.name}.*") if each.suffix != ".gz" and each.is_file()]
    return sorted(older, key=lambda each: each.name)[-1:]


def _records(paths: Sequence[Path], run_id: bytes, started: bytes, most_bytes: int) -> Generator[dict[str, Any]]:
    lines = (lines_from_end(path, most_bytes=most_bytes) for path in paths)
    for line in chain.from_iterable(lines):
        if line.startswith(_STAMP) and line[len(_STAMP) : _STAMP_END] < started:
            return
        if run_id in line and (record := _parsed(line)).get("run_id") == run_id.decode():
            yield record


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:  # a text line, or one that a killed process left torn
        return {}
    return record if isinstance(record, dict) else {}


def _stamp(record: dict[str, Any]) -> str:
    return text(record.get("timestamp"))


def _without_copies(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Drop the copies that ``errors.log`` holds of the lines of other files; they have the same moment."""
    moment = ""
    seen: list[dict[str, Any]] = []
    for record in records:
        if _stamp(record) != moment:
            moment, seen = _stamp(record), []
        if record not in seen:
            seen.append(record)
            yield record


def _line(record: dict[str, Any]) -> LogLine:
    stacktrace = mapping(record.get("exception")).get("stacktrace")
    return LogLine(
        timestamp=_stamp(record),
        level=text(record.get("level")),
        logger=text(record.get("logger")),
        message=text(record.get("message")),
        stacktrace=_shortened(stacktrace) if isinstance(stacktrace, str) else "",
    )


def _shortened(stacktrace: str) -> str:
    lines = stacktrace.rstrip().split("\n")
    middle = len(lines) - _MOST_STACK_LINES
    if middle > 0:
        end = _MOST_STACK_LINES - _STACK_HEAD
        lines = [*lines[:_STACK_HEAD], f"  … {middle:,} more lines …", *lines[-end:]]
    return "\n".join(line[:500] for line in lines)
