"""The rules of one manager at work: each value that they watch is judged, and what that asks for is said."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Protocol

from ml_pipeline import _runtime
from ml_pipeline.config._alert_conditions import Watch
from ml_pipeline.config._alert_records import bounded_text
from ml_pipeline.config._alert_rule_said import Seen, kind_of, occurrence
from ml_pipeline.config._alert_subjects import EACH, FAILURES, SUBJECTS, matches, readings
from ml_pipeline.errors import AlertError, closest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ml_pipeline.config._alert_conditions import Scalar, Step
    from ml_pipeline.config._alert_records import Alert, Occurrence
    from ml_pipeline.config._alert_rule_said import Key
    from ml_pipeline.config._alert_rules import AlertRule
    from ml_pipeline.config._events import Event

__all__ = ["MOST_IDENTITIES", "Crier", "RuleBook"]

MOST_IDENTITIES: Final = 1_000
"""Of one rule: a label that never repeats must not fill the memory."""

SAY_AGAIN_SECONDS: Final = 3_600.0
"""A condition that still holds is said again so often: counted under its alert, and not delivered."""

SAME_CAUSE_SECONDS: Final = 86_400.0
"""What another process said within a day, and nobody has resolved, is the same cause; later it is news."""

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

    def latest(self, kind: str, pipeline: str, *, operation: str, model: str, feature: str, name: str) -> Alert | None:
        """Return the last alert of an identity, open or not."""
        ...


@dataclass(slots=True)
class _Series:
    """What is known of one identity."""

    watch: Watch = field(default_factory=Watch)
    points: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_MOST_POINTS))
    alert_id: str = ""
    said: float = -math.inf


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

    def judges(self, kind: type[Event]) -> bool:
        """Say whether a rule is on events of this type."""
        return bool(self._by_subject.get(_ON.get(kind, "")))

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
        seen = Seen(
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
            seen = Seen(
                pipeline=event.pipeline,
                operation=subject.operation(event) or "",
                model=subject.model(event) or "",
                feature=feature,
                value=judged,
                baseline=baseline,
                event=event,
            )
            self._judge(watched, seen, time)

    def _judge(self, watched: _Watched, seen: Seen, time: float) -> None:
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
                if step == "fire" and not series.alert_id:
                    step = self._recalled(rule, series, seen.key, time, cooldown)
                self._act(step, rule, series, replace(seen, baseline=baseline), time)

    def _recalled(self, rule: AlertRule, series: _Series, key: Key, time: float, cooldown_seconds: float) -> Step:
        """Say what it is that a rule fires for the first time in this process, which others came before."""
        before = self._crier.latest(**_identity(rule, key))
        if before is None:
            return "fire"
        if before.state == "resolved":
            if not 0 <= time - before.time < cooldown_seconds:
                return "fire"
            series.watch = replace(series.watch, phase="held", fired=before.time)
        elif time - before.last_time >= SAME_CAUSE_SECONDS:
            return "fire"
        series.alert_id = before.alert_id
        return "hold" if before.state == "resolved" else "repeat"

    def _act(self, step: Step, rule: AlertRule, series: _Series, seen: Seen, time: float) -> None:
        if step == "clear":
            self._clear(rule, seen.key)
        elif step == "hold":
            self._crier.hold_back(occurrence(rule, seen, series.points, time), series.alert_id)
        elif step == "fire":
            series.alert_id, series.said = self._crier.say(occurrence(rule, seen, series.points, time)), time
        elif rule.escalate_after is not None or not 0 <= time - series.said < SAY_AGAIN_SECONDS:
            again = replace(occurrence(rule, seen, series.points, time), cooldown_seconds=math.inf)
            series.alert_id, series.said = self._crier.say(again), time  # however old the alert is, this is no new one

    def _clear(self, rule: AlertRule, key: Key) -> None:
        self._crier.clear(**_identity(rule, key))


def _identity(rule: AlertRule, key: Key) -> dict[str, str]:
    pipeline, operation, model, feature = key
    identity = {"operation": operation, "model": model, "feature": feature}
    shown = {name: bounded_text(text) for name, text in identity.items()}
    return {"kind": kind_of(rule), "pipeline": bounded_text(pipeline, is_id=True), "name": rule.name, **shown}


def _stands_in(rule: AlertRule, event: Event) -> bool:
    if rule.on == "drift":
        return rule.value in _ALARMING
    # Of one that went well nobody alerts; what calls have said of it before is resolved as ever.
    kind = getattr(event, "type", "")
    return rule.on == "operation" and kind in FAILURES and kind in rule.wanted.get("type", ())


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
