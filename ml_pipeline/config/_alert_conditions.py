"""When a watched value calls for an alert, and when it no longer does; pure.

Notations:

====== ================================================================= =====
Symbol Meaning                                                           Unit
====== ================================================================= =====
v      one observation                                                   its own
a, c   the level it must pass, and the one it must come back to          as v
b[i]   whether the i-th observation was bad; between a and c as before   1
k, m   the condition holds while k of the last m observations were bad   1
t      when it was observed, by a clock that is held to go forward       s
====== ================================================================= =====

A condition that holds for ``for_seconds`` fires, once; one that stops holding clears, once. Between the two levels
nothing changes, so a value that wavers around one of them does not flap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

__all__ = ["Condition", "Scalar", "Step", "Watch"]

Scalar: TypeAlias = "bool | float | str"
Step = Literal["", "fire", "repeat", "hold", "clear"]
"""What an observation asks for: raise the alert, count a repeat under it, hold one back, resolve it; or nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """What makes an observation bad, and how many of them make the condition hold.

    Attributes:
        above: Bad past this level.
        below: Bad under this level.
        clear: Good again at this level and on its far side; None for the level itself.
        equals: Bad where it is this value.
        needed: Bad observations that it takes (k).
        window: Observations looked back on (m).
        for_seconds: How long the condition must hold without a break before it fires.
    """

    above: float | None = None
    below: float | None = None
    clear: float | None = None
    equals: Scalar | None = None
    needed: int = 1
    window: int = 1
    for_seconds: float = 0.0

    def is_bad(self, value: Scalar, before: bool | None) -> bool | None:
        """Judge one observation.

        Args:
            value: What was observed.
            before: How the one before it was judged; None for the first.

        Returns:
            The judgement; None where there is none, for NaN, for a text where a number is asked for, and for a first
            value between the levels.
        """
        if self.equals is not None:
            # To Python, True is 1.
            return value == self.equals and isinstance(value, bool) == isinstance(self.equals, bool)
        if isinstance(value, (bool, str)) or math.isnan(value):
            return None
        if self.above is not None:
            clear = self.above if self.clear is None else self.clear
            return True if value > self.above else False if value <= clear else before
        if self.below is not None:
            clear = self.below if self.clear is None else self.clear
            return True if value < self.below else False if value >= clear else before
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Where a condition stands for one identity; each observation gives a new state.

    Attributes:
        recent: How the last observations were judged, oldest first; at most m.
        since: Since when the condition has held without a break; None while it does not.
        phase: ``quiet``, ``pending`` until it has held long enough, ``held`` back by the cooldown, or ``firing``.
        fired: When it last fired.
        time: The latest time seen.
        is_known: Whether an alert of an earlier process can no longer be open.
    """

    recent: tuple[bool, ...] = ()
    since: float | None = None
    phase: Literal["quiet", "pending", "held", "firing"] = "quiet"
    fired: float = -math.inf
    time: float = -math.inf
    is_known: bool = False

    def after(self, condition: Condition, value: Scalar, time: float, cooldown_seconds: float) -> tuple[Watch, Step]:
        """Take in an observation.

        Args:
            condition: What to judge it by.
            value: What was observed.
            time: When; a time before the latest counts as that one.
            cooldown_seconds: How long after it fired it may not fire again, even if it cleared in between.

        Returns:
            The new state, and what it asks for.
        """
        bad = condition.is_bad(value, self.recent[-1] if self.recent else None)
        if bad is None:
            return self, ""
        now = max(self.time, time)
        recent = (*self.recent, bad)[-condition.window :]
        if sum(recent) < condition.needed:
            return self._quiet(condition, recent, now)
        since = now if self.since is None else self.since
        holding = replace(self, recent=recent, since=since, time=now)
        if self.phase == "firing":
            return holding, "repeat" if bad else ""
        if now - since < condition.for_seconds:
            return replace(holding, phase="pending"), ""
        if now - self.fired < cooldown_seconds:
            return replace(holding, phase="held"), "" if self.phase == "held" else "hold"
        return replace(holding, phase="firing", fired=now, is_known=True), "fire"

    def _quiet(self, condition: Condition, recent: tuple[bool, ...], now: float) -> tuple[Watch, Step]:
        # What was observed before this process began is unknown, and may have been bad.
        is_certain = sum(recent) + condition.window - len(recent) < condition.needed
        clears = self.phase == "firing" or (is_certain and not self.is_known)
        watch = Watch(recent=recent, fired=self.fired, time=now, is_known=self.is_known or clears)
        return watch, "clear" if clears else ""
