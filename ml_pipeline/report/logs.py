"""``ml-pipeline logs``: read, filter, merge and follow the log files."""

from __future__ import annotations

import datetime as dt
import sys
import time
from contextlib import closing
from itertools import islice
from typing import TYPE_CHECKING, Final

from ml_pipeline._command import FAILED, Told, forget_output, say
from ml_pipeline.config._encoding import one_line
from ml_pipeline.errors import SettingsError
from ml_pipeline.report._log_follow import Follower
from ml_pipeline.report._log_query import Query, level_number, parse_time
from ml_pipeline.report._log_reader import Reader
from ml_pipeline.report._log_segments import find_channels
from ml_pipeline.report._log_show import Output
from ml_pipeline.report._log_where import parse_where

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ml_pipeline.report._log_records import Record

__all__ = ["show_logs"]

_INTERRUPTED: Final = Told(130)
_LINES_BEFORE_FOLLOWING: Final = 10


def show_logs(
    folder: Path,
    channels: Sequence[str] = (),
    *,
    follow: bool = False,
    since: str | None = None,
    until: str | None = None,
    level: str | None = None,
    operation: str | None = None,
    run: str | None = None,
    user: str | None = None,
    text: str | None = None,
    where: Sequence[str] = (),
    output: str = "table",
    limit: int | None = None,
    tail: int | None = None,
    now: dt.datetime | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> int:
    """Print the records of the log that are wanted, merged by time.

    Args:
        folder: The log directory.
        channels: Which; by default all, without the records that ``errors`` repeats from others.
        follow: Whether to go on with what is written from now on, after the last ten records unless told otherwise;
            a log directory that does not exist yet is waited for.
        since: The earliest time; see `parse_time`.
        until: The time before which to stop.
        level: The least level.
        operation: The name or the id of the operation.
        run: The id of the run.
        user: The id of the user.
        text: What stands in the message, the exception or the context.
        where: Expressions over the fields, all of which must hold; see `parse_where`.
        output: ``table``, ``json``, ``pretty`` or ``text``.
        limit: How many to show, from the first.
        tail: How many to show, up to the last.
        now: The present, for the times; by default the clock's.
        pause: Waits so many seconds between two looks.

    Returns:
        The exit code: 0; 1 where a file could not be read or the records not written, which stderr says; 130 after
        Ctrl-C.

    Raises:
        MLPipelineError: If what is asked for cannot be; the message says why.
    """
    if follow and until is not None:
        raise SettingsError("--follow must stand without --until", until, "leave one of them out")
    if limit is not None and tail is not None:
        raise SettingsError("--limit must stand without --tail", limit, "leave one of them out")
    present = now or dt.datetime.now(dt.UTC)
    query = Query(
        since=b"" if since is None else parse_time(since, present),
        until=b"" if until is None else parse_time(until, present, option="--until"),
        level=0 if level is None else level_number(level),
        operation=operation or "",
        run=run or "",
        user=user or "",
        text=text or "",
        where=[parse_where(each) for each in where],
    )
    if query.until and query.until <= query.since:
        raise SettingsError("--since must be before --until", since, "exchange them")
    if follow and since is None and tail is None and limit is None:
        tail = _LINES_BEFORE_FOLLOWING
    warnings = _Warnings()
    with Reader(
        lambda: find_channels(folder, channels, may_come=follow), query, warnings, whole_lines=follow
    ) as reader:
        printed = Output(output, reader.keys)
        follower = Follower(reader, folder, channels, query, warnings, pause=pause) if follow else None
        if not folder.exists():
            sys.stderr.write(f"waiting for {one_line(str(folder))}: nothing has been logged there yet\n")
        records = reader.records() if tail is None else iter(reader.last(tail))
        stopped = _printed(records, follower, printed, limit)
    return stopped or (FAILED if warnings.given else 0)


def _printed(records: Iterator[Record], follower: Follower | None, output: Output, limit: int | None) -> int:
    """Print until the end, the limit, Ctrl-C, or until nobody reads any more; return the exit code."""
    left = sys.maxsize if limit is None else limit
    try:
        for record in islice(records, left):
            output.write(record)
            left -= 1
        output.flush()
        if follower is not None and left:
            with closing(follower.batches()) as batches:
                for batch in batches:
                    for record in batch[:left]:
                        output.write(record)
                    output.flush()
                    left -= len(batch)
                    if left <= 0:
                        break
    except BrokenPipeError:
        forget_output()
    except OSError as error:
        if error is not output.refused:  # of a file that is read
            raise
        forget_output()
        return say(f"the records cannot be written to the standard output: {error.strerror or error}", FAILED)
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


class _Warnings:
    """Says on stderr what could not be read, and remembers that it did."""

    def __init__(self) -> None:
        self.given = False

    def __call__(self, line: str) -> None:
        self.given = True
        sys.stderr.write(f"warning: {one_line(line)}\n")
