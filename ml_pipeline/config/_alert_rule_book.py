"""The rules of one manager at work: each value that they watch is judged, and what that asks for is said."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from ml_pipeline import _runtime
from ml_pipeline.config import _alert_occurrences as _occurrences
from ml_pipeline.config._alert_conditions import Watch
from ml_pipeline.config._alert_occurrences import number
from ml_pipeline.config._alert_records import Occurrence, bounded_text
from ml_pipeline.config._alert_rules import MEASURED_KIND
from ml_pipeline.config._alert_subjects import EACH, SUBJECTS, matches, readings
from ml_pipeline.config._events import EMPTY
from ml_pipeline.errors import AlertError, closest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_pipeline.config._alert_conditions import Scalar, Step
    from ml_pipeline.config._alert_rules import AlertRule
    from ml_pipeline.config._events import Event

__all__ = ["MOST_IDENTITIES", "Crier", "RuleBook"]

MOST_IDENTITIES: Final = 1_000
"""Of one rule: a label that never repeats must not fill the memory."""

_MOST_POINTS: Final = 60
_ALARMING: Final = frozenset({"verdict", "alarm"})
"""Fields of a drift event that tell what its own alarm tells."""

_ON: Final = MappingProxyType({subject.event: name for name, subject in SUBJECTS.items()})
_RESOURCES: Final = MappingProxyType(
    {
        "memory": ("memory_bytes", "memory_available_bytes"),
        "cpu": ("cpu_ratio",),
        "disk_free": ("disk_free_bytes.{}",),
    }
)
"""By the resource that monitoring alerts: the fields of a sample that tell the same."""

Key = tuple[tuple[str, str], ...]


class Crier(Protocol):
    """Raises and resolves alerts; what an `AlertManager` is."""

    def say(self, occurrence: Occurrence) -> str:
        """Raise the alert that an occurrence calls for, or count it under the one it belongs to."""
        ...

    def hold_back(self, occurrence: Occurrence, alert_id: str) -> None:
        """Tell that an occurrence was held back by the cooldown of its rule."""
        ...

    def clear(
        self,
        kind: str,
        pipeline: str,
        *,
        operation: str | None = None,
        model: str | None = None,
        feature: str | None = None,
        name: str | None = None,
    ) -> list[str]:
        """Resolve the open alerts of an identity."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """One observation: what it is of, and what was seen."""

    pipeline: str
    operation: object
    model: object
    feature: str
    value: Scalar
    baseline: float | None = None
    labels: Mapping[str, str] = field(default_factory=lambda: EMPTY)
    event: Event | None = None

    @property
    def key(self) -> Key:
        return (("", self.pipeline), ("o", str(self.operation)), ("m", str(self.model)), ("f", self.feature))


@dataclass(slots=True)
class _Series:
    """What is known of one identity."""

    watch: Watch = field(default_factory=Watch)
    points: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MOST_POINTS))
    alert_id: str = ""


class _Watched:
    """One rule, and where it stands for each identity."""

    __slots__ = ("rule", "series")

    def __init__(self, rule: AlertRule) -> None:
        self.rule = rule
        self.series: OrderedDict[Key, _Series] = OrderedDict()

    def of(self, key: Key) -> _Series:
        found = self.series.get(key)
        if found is None:
            self._make_room()
            found = self.series[key] = _Series()
        self.series.move_to_end(key)
        return found

    def _make_room(self) -> None:
        if len(self.series) < MOST_IDENTITIES:
            return
        # The one not seen for longest, unless it has an alert to resolve.
        quiet = (key for key, series in self.series.items() if series.watch.phase != "firing")
        del self.series[next(quiet, next(iter(self.series)))]
        with _runtime.guard("alerting"):
            raise AlertError(
                f"rule {self.rule.name!r} must watch at most {MOST_IDENTITIES} identities",
                self.rule.on,
                "give observe_value labels with few values: the one not seen for longest was forgotten",
            )


class RuleBook:
    """Judges events and measured values by rules; there are none to begin with.

    Thread-safe: one observation is judged at a time, and what it asks for is said before the next one.

    Args:
        crier: Where alerts are raised and resolved.
    """

    def __init__(self, crier: Crier) -> None:
        self._lock = threading.RLock()
        self._crier = crier
        self._by_name: dict[str, _Watched] = {}
        self._by_subject: dict[str, tuple[_Watched, ...]] = {}

    @property
    def rules(self) -> tuple[AlertRule, ...]:
        """The rules, in the order they came."""
        return tuple(watched.rule for watched in self._by_name.values())

    def add(self, rule: AlertRule) -> None:
        """Judge by this rule too; one of that name that is here already stays."""
        with self._lock:
            if rule.name not in self._by_name:
                self._by_name[rule.name] = watched = _Watched(rule)
                self._by_subject[rule.on] = (*self._by_subject.get(rule.on, ()), watched)

    def remove(self, name: str) -> None:
        """Judge by this rule no more, and resolve what it alerted.

        Raises:
            AlertError: If there is none of that name.
        """
        with self._lock:
            watched = self._by_name.pop(name, None)
            if watched is None:
                raise AlertError("a rule that is removed must be there", name, closest(name, self._by_name))
            on = watched.rule.on
            self._by_subject[on] = tuple(each for each in self._by_subject[on] if each is not watched)
            for key, series in watched.series.items():
                if series.watch.phase == "firing":
                    self._clear(watched.rule, key)

    def watches(self, resource: str) -> bool:
        """Say whether a rule is on a resource: ``memory``, ``cpu``, or ``disk_free`` and a path."""
        name, _, path = resource.partition(" ")
        paths = _RESOURCES.get(name, ())
        watched = {each.rule.value for each in self._by_subject.get("resources", ())}
        return not watched.isdisjoint(of.format(entry) for of in paths for entry in (path, EACH))

    def measure(self, name: str, value: Scalar, labels: Mapping[str, Any], time: float) -> None:
        """Judge a measured value.

        Args:
            name: What it is called.
            value: What was measured.
            labels: What tells its series apart; ``model``, ``operation`` and ``feature`` say what it concerns.
            time: Now.
        """
        watching = self._by_subject.get(name)
        if watching is None:
            return
        texts = {label: str(text) for label, text in labels.items()}
        told_apart = [f"{label}={texts[label]}" for label in sorted(texts) if label != "feature"]
        seen = _Seen(
            pipeline=_runtime.settings().name,
            operation=texts.get("operation", ""),
            model=texts.get("model", ""),
            feature=", ".join((texts.get("feature", name), *told_apart)),
            value=value,
            labels=texts,
        )
        for watched in watching:
            self._judge(watched, seen, time)

    def judge(self, event: Event, time: float) -> bool:
        """Judge an event.

        Args:
            event: Any event.
            time: Now.

        Returns:
            Whether a rule is about the very thing that the event alerts by itself, and so stands in its place.
        """
        stands_in = False
        for watched in self._by_subject.get(_ON.get(type(event), ""), ()):
            if matches(event, watched.rule.wanted):
                stands_in = stands_in or _stands_in(watched.rule, event)
                self._observe(watched, event, time)
        return stands_in

    def _observe(self, watched: _Watched, event: Event, time: float) -> None:
        rule, subject = watched.rule, SUBJECTS[watched.rule.on]
        if getattr(event, "verdict", "") == "insufficient_data" and "insufficient_data" not in _named(rule):
            return
        for feature, value in readings(event, rule.value):
            judged = _over(value, event, rule.per) if rule.per else _plain(value)
            baseline = _baseline(rule, event)
            if judged is None or (rule.drop is not None and baseline is None):
                continue
            seen = _Seen(
                pipeline=event.pipeline,
                operation=subject.operation(event) or "",
                model=subject.model(event) or "",
                feature=feature,
                value=judged,
                baseline=baseline,
                event=event,
            )
            self._judge(watched, seen, time)

    def _judge(self, watched: _Watched, seen: _Seen, time: float) -> None:
        rule = watched.rule
        baseline = rule.baseline if isinstance(rule.baseline, (int, float)) else seen.baseline
        judged = seen.value
        if rule.drop is not None:
            if baseline is None or isinstance(judged, (bool, str)):
                return
            judged = baseline - judged
        cooldown = rule.cooldown_seconds
        if cooldown is None:
            cooldown = _runtime.settings().alert_cooldown_seconds
        with self._lock:
            series = watched.of(seen.key)
            if not isinstance(seen.value, (bool, str)) and math.isfinite(seen.value):
                series.points.append((time, seen.value))
            series.watch, step = series.watch.after(rule.condition, judged, time, cooldown)
            if step:
                self._act(step, watched, series, replace(seen, baseline=baseline), time)

    def _act(self, step: Step, watched: _Watched, series: _Series, seen: _Seen, time: float) -> None:
        rule = watched.rule
        if step == "clear":
            self._clear(rule, seen.key)
        elif step == "hold":
            self._crier.hold_back(_occurrence(rule, seen, series, time), series.alert_id)
        elif step == "fire":
            series.alert_id = self._crier.say(_occurrence(rule, seen, series, time))
        elif rule.escalate_after is not None:  # however old the alert is, this is no new one
            again = replace(_occurrence(rule, seen, series, time), cooldown_seconds=math.inf)
            series.alert_id = self._crier.say(again)

    def _clear(self, rule: AlertRule, key: Key) -> None:
        pipeline, *concerns = (text for _, text in key)
        operation, model, feature = (bounded_text(text) for text in concerns)
        self._crier.clear(
            _kind(rule),
            bounded_text(pipeline, is_id=True),
            operation=operation,
            model=model,
            feature=feature,
            name=rule.name,
        )


def _occurrence(rule: AlertRule, seen: _Seen, series: _Series, time: float) -> Occurrence:
    threshold = seen.baseline - rule.drop if rule.drop is not None and seen.baseline is not None else rule.threshold
    facts = {
        "value": seen.value,
        "threshold": threshold,
        "baseline": seen.baseline,
        "series": [[round(at, 3), value] for at, value in series.points] or None,
    }
    shown = {
        **facts,
        "name": rule.name,
        "kind": _kind(rule),
        "severity": rule.severity,
        "pipeline": seen.pipeline,
        "operation": seen.operation,
        "model": seen.model,
        "feature": seen.feature,
    }
    labels = {**rule.labels, **{bounded_text(label): bounded_text(text) for label, text in seen.labels.items()}}
    message = rule.template.fill(shown, labels) if rule.message else _sentence(rule, seen, threshold)
    said = _occurrences.from_call(
        _kind(rule),
        rule.severity,
        message,
        facts,
        time=time,
        operation=seen.operation,
        model=seen.model,
        feature=seen.feature,
    )
    about: dict[str, Any] = {"pipeline": seen.pipeline}
    if seen.event is not None:  # which is not always published in its operation's context
        about |= {name: getattr(seen.event, name) for name in ("operation_id", "run_id", "user_id")}
    ids: dict[str, Any] = {name: bounded_text(text, is_id=True) or None for name, text in about.items()}
    alert = replace(said.alert, name=rule.name, labels=labels, runbook=rule.runbook, **ids)
    return replace(
        said,
        alert=alert,
        cooldown_seconds=rule.cooldown_seconds,
        escalate_after=rule.escalate_after,
        escalate_seconds=rule.escalate_seconds,
    )


def _sentence(rule: AlertRule, seen: _Seen, threshold: Scalar | None) -> str:
    concerns = seen.event and (seen.model or seen.operation)  # the labels of a measured value tell it
    subject = ": ".join(bounded_text(each) for each in (concerns, seen.feature) if each)
    if rule.equals is not None:
        what = f"is {number(seen.value)}"
    elif rule.drop is not None:
        what = f"is {number(seen.value)}, more than {number(rule.drop)} below its baseline {number(seen.baseline)}"
    else:
        side = "above" if rule.above is not None else "below"
        what = f"is {number(seen.value)}, {side} {number(threshold)}"
    often = f", {rule.needed} of {rule.window} times" if rule.window > 1 else ""
    long = f", for {number(rule.for_seconds)} s" if rule.for_seconds else ""
    return f"{subject} {what}{often}{long}"


def _kind(rule: AlertRule) -> str:
    subject = SUBJECTS.get(rule.on)
    if rule.kind or subject is None:
        return rule.kind or MEASURED_KIND
    return subject.kinds.get(rule.value.partition(".")[0], subject.kind)


def _stands_in(rule: AlertRule, event: Event) -> bool:
    if rule.on == "drift":
        return rule.value in _ALARMING
    return rule.on == "operation" and getattr(event, "type", "") in rule.wanted.get("type", ())


def _named(rule: AlertRule) -> tuple[Any, ...]:
    return (rule.equals, *rule.wanted.get("verdict", ()))


def _baseline(rule: AlertRule, event: Event) -> float | None:
    if isinstance(rule.baseline, str):
        found = _plain(next((value for _, value in readings(event, rule.baseline)), None))
        return found if isinstance(found, float) else None
    return rule.baseline


def _over(value: object, event: Event, path: str) -> float | None:
    above, below = _plain(value), _plain(next((each for _, each in readings(event, path)), None))
    return above / below if isinstance(above, float) and isinstance(below, float) and below else None


def _plain(value: object) -> Scalar | None:
    if value is None or isinstance(value, (bool, str)):
        return value
    converted, _ = _runtime.attempt(float, value)
    return converted
