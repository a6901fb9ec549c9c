"""A rule: what calls for an alert, said once, in Python or in a file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import Any, Final

from ml_pipeline.config._alert_conditions import Condition, Scalar
from ml_pipeline.config._alert_records import MOST_MESSAGE_CHARACTERS, MOST_NAME_CHARACTERS, SEVERITIES
from ml_pipeline.config._alert_subjects import FAILURES, SUBJECTS, Subject
from ml_pipeline.config._alert_template import Template
from ml_pipeline.config._events import EMPTY, Severity
from ml_pipeline.errors import AlertError, closest

__all__ = ["MEASURED_KIND", "AlertRule"]

MEASURED_KIND: Final = "measured_value"

_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,99}", re.ASCII)
_MEASURED: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.:/-]{0,199}", re.ASCII)
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_SHARED_LABELS: Final = frozenset({"alertname", "pipeline", "kind", "severity"})
_FIELDS: Final = frozenset(
    {"name", "value", "threshold", "baseline", "pipeline", "operation", "model", "feature", "severity", "kind"}
)
_MOST: Final = 1e300  # past it, differences are no numbers
_MOST_WINDOW: Final = 1_000
_MOST_LABELS: Final = 20
_WHAT_HOLDS: Final = ("above", "below", "equals", "drop")


def _empty() -> Mapping[str, Any]:
    return EMPTY


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertRule:
    """When to alert, how bad it is, and what to say.

    Exactly one of *above*, *below*, *equals* and *drop* says what is bad. Rules that differ in nothing but their
    condition, such as a warning and a critical level, are two rules with two names.

    Attributes:
        name: The alert's name, which is unique among the rules.
        on: ``operation``, ``resources``, ``drift`` or ``audit``, for events of that type; or the name of a value that
            ``alert_manager.observe_value`` is given.
        where: Selects events: values by dotted path, such as ``{"kind": "evaluation", "type": "complete"}``. A text
            may hold ``*`` and ``?``, and several values in a list are any of them.
        value: Which field of an event is watched, by dotted path, such as ``metrics.roc_auc``; ``disk_free_bytes.*``
            watches each entry by itself.
        per: Another field, which *value* is divided by, such as ``counts.records``.
        above: Bad past this level.
        below: Bad under this level.
        clear: For these two and for *drop*: good again from this level on, so that a value that wavers around the
            other does not flap.
        equals: Bad where the value is this one.
        drop: Bad where the value lies more than so much under *baseline*.
        baseline: What *drop* is measured from: a number, or a field of the same event by dotted path.
        needed: How many observations must be bad, …
        window: … of the last so many.
        for_seconds: How long the condition must hold without a break; judged at each observation.
        severity: ``info``, ``warning`` or ``critical``.
        kind: The alert's kind; by default that of what is watched.
        labels: Further labels of the alert.
        message: What to say, with gaps such as ``{value:.3f}``, ``{threshold}``, ``{model}`` and ``{labels.site}``.
        cooldown_seconds: How long after one alert the same rule holds the next back; None for the setting.
        escalate_after: After how many occurrences the alert becomes critical.
        escalate_seconds: After how long unresolved and unacknowledged it does.
        runbook: Address or name of the page that helps.

    Raises:
        AlertError: If the rule can never, or not as it stands, be judged: it names the rule, the field and the remedy.
    """

    name: str
    on: str
    where: Mapping[str, Any] = field(default_factory=_empty)
    value: str = ""
    per: str = ""
    above: float | None = None
    below: float | None = None
    clear: float | None = None
    equals: Scalar | None = None
    drop: float | None = None
    baseline: float | str | None = None
    needed: int = 1
    window: int = 1
    for_seconds: float = 0.0
    severity: Severity = "warning"
    kind: str = ""
    labels: Mapping[str, str] = field(default_factory=_empty)
    message: str = ""
    cooldown_seconds: float | None = None
    escalate_after: int | None = None
    escalate_seconds: float | None = None
    runbook: str = ""
    wanted: Mapping[str, tuple[Any, ...]] = field(init=False, repr=False, compare=False, default_factory=_empty)
    condition: Condition = field(init=False, repr=False, compare=False, default=Condition())
    template: Template = field(init=False, repr=False, compare=False, default=Template(()))

    def __post_init__(self) -> None:
        check = _Check(self)
        check.names()
        subject = SUBJECTS.get(self.on)
        check.watched(subject)
        check.levels()
        check.numbers()
        check.texts()
        for name, made in (
            ("wanted", check.wanted(subject)),
            ("condition", check.condition()),
            ("template", check.template()),
            ("where", MappingProxyType(dict(self.where))),
            ("labels", MappingProxyType(dict(self.labels))),
        ):
            object.__setattr__(self, name, made)

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings do not travel to another process.
        given = {name: getattr(self, name) for name in RULE_FIELDS}
        return _made, ({name: dict(each) if isinstance(each, Mapping) else each for name, each in given.items()},)

    @property
    def threshold(self) -> Scalar | None:
        """What the value must pass; None where it is measured from a baseline that each event brings."""
        if self.drop is not None:
            return self.baseline - self.drop if isinstance(self.baseline, (int, float)) else None
        return next((each for each in (self.above, self.below, self.equals) if each is not None), None)


def _made(given: dict[str, Any]) -> AlertRule:
    return AlertRule(**given)


RULE_FIELDS: Final = tuple(each.name for each in fields(AlertRule) if each.init)
"""What a rule may say, in order."""


@dataclass(frozen=True, slots=True)
class _Check:
    """Judges a rule field by field, so that the first thing wrong with it is told in one line."""

    rule: AlertRule

    def given(self, name: str) -> object:
        # Whatever a file says, or a caller that no type checker saw.
        return getattr(self.rule, name)

    def fail(self, name: str, must: str, remedy: str) -> AlertError:
        return AlertError(f"rule {self.rule.name!r}: {name} must {must}", getattr(self.rule, name), remedy)

    def names(self) -> None:
        name, on = self.given("name"), self.given("on")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise AlertError(
                "a rule's name must be a word of letters, digits, _ and -, beginning with a letter",
                name,
                "call it as you would an alert of Prometheus, such as QueueTooLong",
            )
        if not isinstance(on, str) or not _MEASURED.fullmatch(on):
            raise self.fail("on", "name a type of event or a measured value", closest(str(on), SUBJECTS))

    def watched(self, subject: Subject | None) -> None:
        rule = self.rule
        if not isinstance(self.given("where"), Mapping):
            raise self.fail("where", "hold values by path", "write it as in where: {kind: training}")
        if subject is None:
            for name in ("value", "per", "where"):
                if getattr(rule, name):
                    close = closest(rule.on, SUBJECTS)
                    hint = close if close.startswith("did") else "leave it out; labels of a value tell its series apart"
                    raise self.fail(name, f"not be given for a measured value, as {rule.on!r} is", hint)
            if isinstance(rule.baseline, str):
                raise self.fail("baseline", "be a number for a measured value", "give the number")
            return
        if not rule.value:
            raise self.fail("value", "name the field of the event that is watched", "as in value: metrics.roc_auc")
        for name in ("value", "per", "baseline"):
            path = getattr(rule, name)
            if path and (name != "baseline" or isinstance(path, str)):
                self.path(subject, name, path, is_pattern=name != "value")

    def path(self, subject: Subject, name: str, path: object, *, is_pattern: bool) -> None:
        try:
            subject.check(str(path), is_pattern=is_pattern)
        except ValueError as unknown:
            must = f"name a field that events of {self.rule.on!r} have"
            raise AlertError(f"rule {self.rule.name!r}: {name} must {must}", path, str(unknown)) from None

    def wanted(self, subject: Subject | None) -> Mapping[str, tuple[Any, ...]]:
        wanted = {}
        for path, value in self.rule.where.items():
            if subject is not None:
                self.path(subject, "where", path, is_pattern=True)
            values = tuple(value) if isinstance(value, (list, tuple)) else (value,)
            if not values or not all(isinstance(each, (str, int, float)) for each in values):
                raise self.fail("where", "give each path a text, a number, or a list of them", f"correct {path}")
            wanted[path] = values
        if self.rule.value == "type" and "type" in wanted and FAILURES.issuperset(wanted["type"]):
            wanted["type"] += ("complete",)  # a rule that only hears of failures would never hear that they are over
        return MappingProxyType(wanted)

    def levels(self) -> None:
        rule = self.rule
        given = [name for name in _WHAT_HOLDS if getattr(rule, name) is not None]
        if len(given) != 1:
            raise AlertError(
                f"rule {rule.name!r}: exactly one of {', '.join(_WHAT_HOLDS)} must say what is bad",
                given,
                "keep one of them; two levels are two rules" if given else "add one, as in below: 0.8",
            )
        for name in ("above", "below", "clear", "drop"):
            self.number(name, -math.inf)
        if not isinstance(self.given("equals"), (str, bool, int, float, type(None))):
            raise self.fail("equals", "be a text, a number, or true or false", "write the one value that is bad")
        if rule.clear is not None:
            self.clear()
        if (rule.drop is None) != (rule.baseline is None):
            raise self.fail("baseline", "go with drop, and drop with baseline", "give both or neither")
        if rule.drop is not None and rule.drop < 0:
            raise self.fail("drop", "be 0 or more", "say how far under its baseline the value may lie")
        baseline = self.given("baseline")
        if isinstance(baseline, bool) or not isinstance(baseline, (str, int, float, type(None))):
            raise self.fail("baseline", "be a number or a field of the event", "as in baseline: 0.92")
        if not isinstance(baseline, str):
            self.number("baseline", -math.inf)

    def clear(self) -> None:
        rule = self.rule
        if rule.equals is not None:
            raise self.fail("clear", "go with above, below or drop", "leave it out: another value is good again")
        level = rule.below if rule.below is not None else rule.above if rule.above is not None else rule.drop
        is_wrong = rule.clear < level if rule.below is not None else rule.clear > level  # type: ignore[operator]
        if is_wrong:
            side = "at or above below" if rule.below is not None else "at or below the level"
            raise self.fail("clear", f"lie {side}, which is {level}", "a value must come back, not go further")

    def numbers(self) -> None:
        rule = self.rule
        for name, most in (("needed", _MOST_WINDOW), ("window", _MOST_WINDOW), ("escalate_after", math.inf)):
            given = getattr(rule, name)
            if given is not None and (isinstance(given, bool) or not isinstance(given, int) or not 1 <= given <= most):
                limit = f"from 1 to {most}" if most < math.inf else "of at least 1"
                raise self.fail(name, f"be a whole number {limit}", "count observations")
        if rule.needed > rule.window:
            raise self.fail("needed", f"be at most window, which is {rule.window}", "2 of 3 is needed: 2, window: 3")
        for name in ("for_seconds", "cooldown_seconds", "escalate_seconds"):
            self.number(name, 0.0)

    def number(self, name: str, least: float) -> None:
        given = getattr(self.rule, name)
        if given is None and name != "for_seconds":
            return
        if isinstance(given, bool) or not isinstance(given, (int, float)) or not -_MOST < given < _MOST:
            raise self.fail(name, "be a number", "write it without a unit, as in 0.8")
        if given < least:
            raise self.fail(name, "be 0 or more", "give seconds")

    def texts(self) -> None:
        rule = self.rule
        if rule.severity not in SEVERITIES:
            raise self.fail("severity", "be one of the known ones", closest(str(rule.severity), SEVERITIES))
        for name, most in (
            ("kind", MOST_NAME_CHARACTERS),
            ("runbook", MOST_MESSAGE_CHARACTERS),
            ("message", MOST_MESSAGE_CHARACTERS),
        ):
            given = getattr(rule, name)
            if not isinstance(given, str) or len(given) > most:
                raise self.fail(name, f"be a text of at most {most} characters", "shorten it")
        labels = self.given("labels")
        if not isinstance(labels, Mapping) or len(labels) > _MOST_LABELS:
            raise self.fail("labels", f"be at most {_MOST_LABELS} texts by name", "as in labels: {team: imaging}")
        for label, text in labels.items():
            if not isinstance(label, str) or not _LABEL.fullmatch(label) or not isinstance(text, str):
                raise self.fail("labels", "be texts by names of letters, digits and _", f"correct {label!r}")
            if label in _SHARED_LABELS:
                raise self.fail("labels", "not name what every alert has", f"leave out {label!r}")

    def condition(self) -> Condition:
        rule = self.rule
        return Condition(
            above=rule.above if rule.drop is None else rule.drop,
            below=rule.below,
            clear=rule.clear,
            equals=rule.equals,
            needed=rule.needed,
            window=rule.window,
            for_seconds=rule.for_seconds,
        )

    def template(self) -> Template:
        try:
            return Template.of(self.rule.message, _FIELDS)
        except ValueError as broken:
            raise self.fail("message", "have only gaps with a known name", str(broken)) from None
