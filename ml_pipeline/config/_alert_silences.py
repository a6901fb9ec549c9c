"""Silences: alerts that people do not want to hear of for a while, and why."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_records import MOST_MESSAGE_CHARACTERS, bounded_text
from ml_pipeline.config._encoding import rfc3339
from ml_pipeline.config._ids import new_id
from ml_pipeline.errors import AlertError, closest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_pipeline.config._alert_records import Alert

__all__ = ["MATCHED", "Silence", "new_silence"]

MATCHED: Final = ("name", "kind", "pipeline", "operation", "model", "feature", "severity")
"""Fields of an alert that a silence may speak of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence:
    """Alerts that are recorded and counted, and not delivered while it lasts.

    Attributes:
        silence_id: UUIDv7 text.
        matchers: By field of an `Alert`, what its text must be; ``*`` stands for any characters. All must fit.
        since: From when, in seconds since the Unix epoch.
        until: Until when; an alert that is still open then is delivered.
        reason: Why.
        by: Who said so; empty where that is not known.
    """

    silence_id: str
    matchers: Mapping[str, str]
    since: float
    until: float
    reason: str
    by: str = ""

    def matches(self, alert: Alert) -> bool:
        """Say whether an alert is meant, whatever the time."""
        return all(_pattern(text).fullmatch(getattr(alert, field)) for field, text in self.matchers.items())

    def to_dict(self) -> dict[str, Any]:
        """Return the fields; times as RFC 3339 in UTC."""
        return {
            "silence_id": self.silence_id,
            "matchers": dict(self.matchers),
            "since": rfc3339(self.since),
            "until": rfc3339(self.until),
            "reason": self.reason,
            "by": self.by,
        }


def new_silence(matchers: Mapping[str, str], *, now: float, seconds: float, reason: str, by: str = "") -> Silence:
    """Make a silence that begins now.

    Args:
        matchers: See `Silence`; at least one.
        now: In seconds since the Unix epoch.
        seconds: How long it lasts.
        reason: Why; a silence that nobody can explain is one that nobody dares to end.
        by: Who says so.

    Raises:
        AlertError: If it matches by no field or by one that there is not, never ends or has no reason.
    """
    if not matchers:
        raise AlertError(
            "a silence must say which alerts it means", matchers, 'as in name="DataDrift"; "*" is any text'
        )
    for field, text in matchers.items():
        if field not in MATCHED:
            raise AlertError("a silence matches by a field that it can match by", field, closest(field, MATCHED))
        if not text:
            raise AlertError(f"a silence matches {field} by a text", text, 'name one; "*" is any text')
    if not (math.isfinite(seconds) and seconds > 0):
        raise AlertError("a silence must last for a while and end", seconds, "give seconds above 0, such as 3600")
    said = bounded_text(reason, MOST_MESSAGE_CHARACTERS)
    if not said.strip():
        raise AlertError("a silence must have a reason", reason, "say why, for whoever reads it tomorrow")
    fitting = {field: bounded_text(text, is_id=True) for field, text in matchers.items()}
    return Silence(
        silence_id=new_id(),
        matchers=fitting,
        since=now,
        until=now + seconds,
        reason=said,
        by=bounded_text(by, is_id=True),
    )


@lru_cache(maxsize=1_000)
def _pattern(text: str) -> re.Pattern[str]:
    return re.compile(".*".join(re.escape(part) for part in text.split("*")), re.DOTALL)
