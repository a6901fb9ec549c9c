"""What an alert is, what is said about it, and how two sayings of one failure become one alert."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from ml_pipeline.config._alert_names import rule_of
from ml_pipeline.config._alert_secrets import veiled
from ml_pipeline.config._encoding import encode, one_line, rfc3339, to_plain
from ml_pipeline.config._events import EMPTY, Severity
from ml_pipeline.config._redaction import current
from ml_pipeline.errors import AlertError, closest

if TYPE_CHECKING:
    from collections.abc import Hashable, Mapping

__all__ = [
    "SEVERITIES",
    "Alert",
    "AlertSummary",
    "Delivery",
    "DeliveryReason",
    "DeliveryRecord",
    "DeliveryState",
    "Occurrence",
    "Outcome",
    "Recorded",
    "bounded_details",
    "bounded_text",
    "check_filters",
    "judge",
    "may_be_one",
    "merged",
    "repeated",
]

AlertRecordState = Literal["raised", "refined", "resolved"]
DeliveryState = Literal["pending", "sent", "dead", "covered"]
"""``covered`` is what need not be sent any more, because something else has said it."""

DeliveryReason = Literal["firing", "resolved", "escalated", "digest"]
"""Why a message is sent: alerts were raised, are over, have become critical; or a while is summed up."""

Outcome = Literal["raised", "suppressed", "refined", "implied"]
"""``implied`` is the failure of an operation whose cause, a failure inside it, is an alert already."""

SEVERITIES: Final[tuple[Severity, ...]] = get_args(Severity)
STATES: Final[tuple[AlertRecordState, ...]] = get_args(AlertRecordState)
STACKTRACE: Final = "stacktrace"
"""Where the traceback lies in an alert's details."""

MOST_NAME_CHARACTERS: Final = 200
MOST_MESSAGE_CHARACTERS: Final = 1_000
MOST_DETAIL_BYTES: Final = 16_384
"""Of one alert's details, as JSON; a traceback of 8,000 characters leaves as much again for the rest."""

_MOST_ALSO_SAID: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One cause, alerted once.

    Attributes:
        alert_id: UUIDv7 text.
        time: When it was raised, in seconds since the Unix epoch.
        state: ``raised``, ``refined`` once another call has added to it, or ``resolved``.
        kind: ``processing_failure``, ``resource_threshold``, ``data_quality``, ``model_performance``, ``data_drift``.
        severity: ``info``, ``warning`` or ``critical``.
        pipeline: The pipeline it happened in.
        operation: The operation it concerns, by name.
        operation_id: That operation.
        run_id: The run it happened in.
        user_id: Who was running it.
        model: The model it concerns.
        feature: What was judged: the feature, the check, the metric or the resource.
        error_type: Class of the exception behind it; empty where it is unknown.
        message: One sentence for a person.
        count: How often it was said, repeats included.
        held_back: How many repeats the cooldown held back.
        last_time: When it was last said.
        details: Whatever else is known, as plain JSON values.
        name: The alert's name, such as ``TrainingFailure``: that of a rule, or the one its kind has in Prometheus.
        labels: Further labels, given by a rule.
        runbook: Address or name of the page that helps.
        acknowledged_by: Who sees to it; empty while nobody does.
        acknowledged_time: Since when, in seconds since the Unix epoch.
        escalated: Whether it has become critical since it was raised, by itself or because nobody saw to it.
        muted: ``silence`` or ``inhibition`` while it is recorded and not delivered; else empty.
    """

    alert_id: str
    time: float
    state: AlertRecordState = "raised"
    kind: str
    severity: Severity
    pipeline: str
    operation: str = ""
    operation_id: str | None = None
    run_id: str | None = None
    user_id: str | None = None
    model: str = ""
    feature: str = ""
    error_type: str = ""
    message: str
    count: int = 1
    held_back: int = 0
    last_time: float
    details: Mapping[str, Any] = field(default_factory=lambda: EMPTY)
    name: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    runbook: str = ""
    acknowledged_by: str = ""
    acknowledged_time: float | None = None
    escalated: bool = False
    muted: str = ""

    @property
    def rule(self) -> str:
        """The rule of the user's that raised it, which is part of its identity; empty where none did."""
        return rule_of(self.kind, self.name)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in the order of ``alerts.json``; times as RFC 3339 in UTC."""
        plain = {part.name: getattr(self, part.name) for part in fields(self)}
        return plain | {
            "time": rfc3339(self.time),
            "last_time": rfc3339(self.last_time),
            "details": dict(self.details),
            "labels": dict(self.labels),
            "acknowledged_time": None if self.acknowledged_time is None else rfc3339(self.acknowledged_time),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence:
    """Something that calls for an alert, before it is known whether it is a new one.

    Attributes:
        alert: The alert that it would be.
        automatic: Whether an event said it, not a call.
        failure: Message of the exception; None for what is measured and does not travel upwards.
        places: Operations and blocks the failure has left, beside ``alert.operation_id``.
        around: Operations and blocks the failure reaches next, if nobody handles it.
        cooldown_seconds: How long its repeats are held back; None for the setting.
        escalate_after: The alert becomes critical when it was said so often; None for never.
        escalate_seconds: It becomes critical after so long without being resolved or acknowledged; None for never.
        key: What has the same key as one that was held back is held back without asking the store; None for nothing.
    """

    alert: Alert
    automatic: bool = False
    failure: str | None = None
    places: tuple[str, ...] = ()
    around: tuple[str, ...] = ()
    cooldown_seconds: float | None = None
    escalate_after: int | None = None
    escalate_seconds: float | None = None
    key: Hashable = None


@dataclass(frozen=True, slots=True)
class Recorded:
    """What became of an occurrence.

    Attributes:
        alert: The alert it belongs to, as it stands now.
        outcome: Whether that is a new one, or what was done with it.
    """

    alert: Alert
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Alerts of one group on their way through one channel, in one message.

    Attributes:
        delivery_id: Stays the same from attempt to attempt.
        channel: Name of the channel.
        attempt: Which attempt this is, counted from 1.
        alerts: What to deliver, as it stands now, the most severe first; the same alerts at each attempt.
        reason: Why.
        queued: Since when the first of them has been waiting, in seconds since the Unix epoch.
        more: How many alerts it has beside those, too many for one message.
        note: A sentence for the top; empty for none.
    """

    delivery_id: str
    channel: str
    attempt: int
    alerts: tuple[Alert, ...]
    reason: DeliveryReason = "firing"
    queued: float = 0.0
    more: int = 0
    note: str = ""

    @property
    def alert(self) -> Alert:
        """The first of them."""
        return self.alerts[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryRecord:
    """What became of one alert on one channel.

    Attributes:
        delivery_id: Of the message it is in; empty while it waits to be in one.
        channel: Name of the channel.
        reason: Why it is sent.
        state: What became of it.
        attempts: How often it was tried.
        due: When it is tried next, or was, in seconds since the Unix epoch.
        settled: Since when it is in that state; None while it is pending.
        error: Why the last attempt failed.
    """

    delivery_id: str
    channel: str
    reason: DeliveryReason
    state: DeliveryState
    attempts: int
    due: float
    settled: float | None
    error: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields; times as RFC 3339 in UTC."""
        plain = {part.name: getattr(self, part.name) for part in fields(self)}
        return plain | {"due": rfc3339(self.due), "settled": None if self.settled is None else rfc3339(self.settled)}


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertSummary:
    """The alerts raised since some moment, counted.

    Attributes:
        since: That moment, in seconds since the Unix epoch.
        alerts: How many were raised.
        by_kind: How many of each kind.
        by_severity: How many of each severity.
        held_back: Repeats of them that the cooldown held back.
        deliveries: How many of their deliveries are ``pending``, ``sent``, ``dead`` or ``covered``, by channel.
    """

    since: float
    alerts: int
    by_kind: Mapping[str, int]
    by_severity: Mapping[str, int]
    held_back: int
    deliveries: Mapping[str, Mapping[DeliveryState, int]]


def judge(existing: Alert, *, automatic: bool, said: Occurrence, passing: bool) -> Outcome:
    """Decide what a second saying of an alert is.

    Args:
        existing: The alert that it matches.
        automatic: Whether only events have said that one so far.
        said: The new saying.
        passing: Whether the match is a failure on its way up through *said*'s operation.

    Returns:
        ``implied`` for the failure of an operation around the failed one; ``suppressed`` for a repeat, which adds
        nothing but a count; ``refined`` for another view of the same failure.
    """
    if passing and said.automatic:
        return "implied"
    two_views = automatic != said.automatic and may_be_one(existing, said.alert)
    return "refined" if two_views or _identity(existing) != _identity(said.alert) else "suppressed"


def may_be_one(first: Alert, second: Alert) -> bool:
    """Say whether two alerts may tell one failure: of one operation, or unnamed by one of them and within one run."""
    if first.operation_id and second.operation_id:
        return first.operation_id == second.operation_id
    return not (first.run_id and second.run_id) or first.run_id == second.run_id


def merged(existing: Alert, said: Occurrence) -> Alert:
    """Add to an alert what another saying of the same failure knows.

    Args:
        existing: The alert so far.
        said: What was said now. A call's details win over those of an event.

    Returns:
        The alert with both, as severe as the severest of them; what was known of it stays.
    """
    new = said.alert
    first, second = (new.details, existing.details) if said.automatic else (existing.details, new.details)
    details = {**first, **second}
    heard = list(existing.details.get("also_said", ()))
    if new.message != existing.message and new.message not in heard:
        details["also_said"] = [*heard, new.message][-_MOST_ALSO_SAID:]
    return replace(
        existing,
        state="resolved" if existing.state == "resolved" else "refined",
        severity=max(existing.severity, new.severity, key=SEVERITIES.index),
        operation_id=existing.operation_id or new.operation_id,
        run_id=existing.run_id or new.run_id,
        user_id=existing.user_id or new.user_id,
        model=existing.model or new.model,
        feature=existing.feature or new.feature,
        error_type=existing.error_type or new.error_type,
        count=existing.count + 1,
        last_time=new.last_time,
        details=bounded_details(details),
        # An event knows what kind of operation it was; a call only its name.
        name=(new.name if said.automatic else existing.name) or existing.name or new.name,
        labels={**existing.labels, **new.labels} if new.labels else existing.labels,
        runbook=existing.runbook or new.runbook,
    )


def repeated(existing: Alert, said: Occurrence) -> Alert:
    """Count a repeat that was held back.

    Args:
        existing: The alert so far.
        said: The repeat.

    Returns:
        The alert with one more to its counts.
    """
    return replace(existing, count=existing.count + 1, held_back=existing.held_back + 1, last_time=said.alert.last_time)


def check_filters(limit: int, severity: str | None, state: str | None) -> None:
    """Make sure that a question about the history can have an answer.

    Raises:
        AlertError: If *limit* is not positive, or a severity or state does not exist.
    """
    if limit < 1:
        raise AlertError("a limit must be at least 1", limit, "leave it out for 100")
    for what, given, known in (("severity", severity, SEVERITIES), ("state", state, STATES)):
        if given is not None and given not in known:
            raise AlertError(f"a {what} must be one of the known ones", given, closest(given, known))


def bounded_text(value: object, most_characters: int = MOST_NAME_CHARACTERS, *, is_id: bool = False) -> str:
    """Turn any value into one line of text.

    Args:
        value: Anything; None is empty.
        most_characters: Longest text; what is cut off is marked with ``…``.
        is_id: Whether it says which one, or who: then nothing in it is redacted.

    Returns:
        The text, redacted, without characters that end lines or steer terminals.
    """
    plain = to_plain(value, None if is_id else current())
    if plain is None:
        return ""
    plain = plain if is_id else veiled(plain)
    text = one_line(plain if isinstance(plain, str) else encode(plain).decode())
    return text if len(text) <= most_characters else text[: most_characters - 1] + "…"


def bounded_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Turn details into plain JSON values, redacted, that fit together into `MOST_DETAIL_BYTES`.

    Args:
        details: Anything by name; None is left out.

    Returns:
        What fits, in the order given; in place of a value that does not, how long it was.
    """
    kept: dict[str, Any] = {}
    room = MOST_DETAIL_BYTES
    plain = veiled(to_plain({key: value for key, value in details.items() if value is not None}, current()))
    for index, (key, value) in enumerate(plain.items()):
        size = len(encode({key: value}))
        if size > room:
            value = f"… {size} bytes left out"  # noqa: PLW2901 - the stand-in takes the value's place
            size = len(encode({key: value}))
        if size > room:
            kept["…"] = f"{len(plain) - index} more"
            break
        kept[key] = value
        room -= size
    return kept


def _identity(alert: Alert) -> tuple[str, ...]:
    return (
        alert.kind,
        alert.pipeline,
        alert.operation,
        alert.model,
        alert.feature,
        alert.error_type,
        alert.rule,
    )
