"""A noisy call site, held back: at most so many records a second, or one in so many.

Off until asked for. Only what the files and the console get is held back: handlers of one's own see every record. What
was held back is counted in ``ml_pipeline_log_records_dropped_total`` and said in a line of the same logger. The audit
trail never passes through here, nor do the lines of operations, which have no call site.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from pathlib import PurePath
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ml_pipeline import _runtime
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LIMITS", "HeldBack", "Limit", "Limits", "SiteFilter", "judge_limit", "say_held_back"]

Site: TypeAlias = "tuple[str, str, int, int]"  # logger, file, line, level

_SAY_SECONDS: Final = 10.0
_MOST_SITES: Final = 1_000
_REASON: Final = "sampled"


class _State:
    __slots__ = ("allowance", "asked_at", "held_back", "said_at", "seen")

    def __init__(self, allowance: float, now: float) -> None:
        self.allowance = allowance
        self.asked_at = self.said_at = now
        self.held_back = self.seen = 0


class HeldBack(NamedTuple):
    """What is to be said of a call site."""

    site: Site
    records: int
    seconds: float


class Limit:
    """Decides which records of each call site pass. Thread-safe.

    Args:
        per_second: At most so many records a second, after a first burst of as many; None: no such limit.
        every: The first of so many passes, then the next first one; None: all.
        say: Told of what was held back, at most once in ten seconds for a site, and at the end.
        clock: Seconds that only go forward.
    """

    def __init__(
        self,
        per_second: float | None,
        every: int | None,
        say: Callable[[HeldBack], object],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._per_second = per_second
        self._every = every
        self._say = say
        self._clock = clock
        self._begin()

    def _begin(self) -> None:
        self._owner = os.getpid()
        self._lock = threading.RLock()  # a signal handler may log in here
        self._sites: dict[Site, _State] = {}

    def passes(self, site: Site) -> bool:
        """Say whether the record at hand is written; what is not is counted."""
        if self._owner != os.getpid():  # another thread of the parent may have held the lock
            self._begin()
        told = []
        with self._lock:
            now = self._clock()
            state = self._sites.get(site)
            if state is None:
                if len(self._sites) >= _MOST_SITES:
                    told += self._taken(now)
                    self._sites.clear()
                state = self._sites.setdefault(site, _State(self._burst(), now))
            passed = self._decide(state, now)
            if not passed:
                state.held_back += 1
                _runtime.tally.log_records_dropped[_REASON] += 1
            if now - state.said_at >= _SAY_SECONDS and (state.held_back or passed):
                told += self._taken(now, site)
        self._tell(told)
        return passed

    def close(self) -> None:
        """Say what has not been said."""
        with self._lock:
            told = self._taken(self._clock())
        self._tell(told)

    def _burst(self) -> float:
        return max(self._per_second or 0.0, 1.0)

    def _decide(self, state: _State, now: float) -> bool:
        state.seen += 1
        if self._every is not None and (state.seen - 1) % self._every:
            return False
        if self._per_second is None:
            return True
        state.allowance = min(state.allowance + (now - state.asked_at) * self._per_second, self._burst())
        state.asked_at = now
        if state.allowance < 1:
            return False
        state.allowance -= 1
        return True

    def _taken(self, now: float, only: Site | None = None) -> list[HeldBack]:
        found = []
        for site, state in self._sites.items() if only is None else [(only, self._sites[only])]:
            if state.held_back:
                found.append(HeldBack(site, state.held_back, now - state.said_at))
            state.held_back, state.said_at = 0, now
        return found

    def _tell(self, told: list[HeldBack]) -> None:
        for each in told:  # outside the lock: to say it is to log
            with _runtime.guard("log_sampling"):
                self._say(each)


class SiteFilter:
    """A filter for our handler that holds back the records of noisy call sites; gives way to another of its kind.

    Args:
        handler: The handler.
        per_second: At most so many records a second of each site; None: all.
    """

    def __init__(self, handler: logging.Handler, per_second: float | None) -> None:
        self._handler = handler
        self._limit = Limit(per_second, None, say_held_back)
        for each in [each for each in handler.filters if isinstance(each, SiteFilter)]:
            handler.removeFilter(each)  # of the process this one was forked from
        if per_second is not None:
            handler.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the record is written; see `logging.Filter.filter`."""
        if not record.pathname or not record.lineno:  # of an operation, or of ours about what was held back
            return True
        return self._limit.passes((record.name, record.pathname, record.lineno, record.levelno))

    def close(self) -> None:
        """Let everything pass, and say what has not been said."""
        self._handler.removeFilter(self)
        self._limit.close()


class Limits:
    """The limits in use, by rate and ratio; each counts its call sites apart. Thread-safe."""

    def __init__(self) -> None:
        self._limits: dict[tuple[float | None, int | None], Limit] = {}

    def of(self, per_second: float | None, every: int | None) -> Limit:
        """Return the limit of a rate and a ratio."""
        found = self._limits.get((per_second, every))
        if found is None:
            found = self._limits.setdefault((per_second, every), Limit(per_second, every, say_held_back))
        return found

    def close(self) -> None:
        """Say what has not been said."""
        for each in list(self._limits.values()):
            each.close()


LIMITS: Final = _runtime.Lazy(lambda _: Limits(), Limits.close, phase=1)


def judge_limit(per_second: object, every: object) -> None:
    """Judge what a caller asks for.

    Args:
        per_second: At most so many records a second, > 0.
        every: One record of so many, >= 1.

    Raises:
        SettingsError: If neither is given, or one is out of range.
    """
    if per_second is None and every is None:
        raise SettingsError("a limit needs a rate or a ratio", remedy="as in per_second=5, or every=100")
    is_rate = isinstance(per_second, (int, float)) and not isinstance(per_second, bool)
    if per_second is not None and not (is_rate and 0 < per_second < float("inf")):  # type: ignore[operator]
        raise SettingsError("per_second must be a number > 0", per_second, "as in per_second=5")
    if every is not None and (not isinstance(every, int) or isinstance(every, bool) or every < 1):
        raise SettingsError("every must be a whole number >= 1", every, "as in every=100")


def say_held_back(held: HeldBack) -> None:
    """Write a line that says what was held back, by the logger it belongs to and at the level it has."""
    name, file, line, level = held.site
    logger = logging.getLogger(name)
    text = f"{held.records} records of {PurePath(file).name}:{line} were held back in {held.seconds:.1f} s"
    logger.handle(logger.makeRecord(name, level, "", 0, text, (), None))
