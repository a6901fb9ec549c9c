"""What a manager offers about rules: add one, remove one, list them, and measure a value for them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config._alert_names import alert_name
from ml_pipeline.config._alert_rule_book import Crier, RuleBook
from ml_pipeline.config._alert_subjects import SUBJECTS
from ml_pipeline.errors import AlertError

if TYPE_CHECKING:
    from collections.abc import Callable

    from ml_pipeline.config._alert_records import Alert, Occurrence
    from ml_pipeline.config._alert_rules import AlertRule
    from ml_pipeline.config._events import AlertState, Event
    from ml_pipeline.settings import Settings

__all__ = ["RuleCalls"]

_SINK: Final = "alerting"
_PLAIN: Final = frozenset({float, str, bool})  # not an int, which may be too large for a float


class RuleCalls(Crier):
    """The part of an alert manager that deals with rules.

    Args:
        clock: Seconds since the Unix epoch.
        reads_file: Whether the rules of the file that the settings name are in force too.
    """

    def __init__(self, clock: Callable[[], float], *, reads_file: bool) -> None:
        self._rule_clock = clock
        self._reads_file = reads_file
        self._rules_added: dict[str, AlertRule] = {}
        # Under the settings in force, and not shared with a fork: its lock may have been held.
        self._book: _runtime.Lazy[RuleBook] = _runtime.Lazy(self._open_book, lambda _: None)

    def add_rule(self, rule: AlertRule) -> None:
        """Alert when this rule says so, beside those of the file that ``ML_PIPELINE_ALERT_RULES_FILE`` names.

        Args:
            rule: The rule. It stays in force when settings change.

        Raises:
            AlertError: If there is a rule of that name.
        """
        book = self._book.get()
        if rule.name in {each.name for each in book.rules} or self._rules_added.setdefault(rule.name, rule) is not rule:
            raise AlertError("a rule must have a name of its own", rule.name, "rename it, or remove_rule the other")
        book.add(rule)

    def remove_rule(self, name: str) -> None:
        """Alert by this rule no more, and resolve what it alerted; a rule of the file is back when settings change.

        Args:
            name: The rule's name.

        Raises:
            AlertError: If there is no rule of that name.
        """
        self._book.get().remove(name)
        self._rules_added.pop(name, None)

    def rules(self) -> tuple[AlertRule, ...]:
        """Return the rules in force: those of the file, then those that were added."""
        return self._book.get().rules

    def observe_value(self, name: str, value: float | str | bool, /, **labels: object) -> None:
        """Have a measured value judged by the rules that are on it; without one this does nothing.

        Args:
            name: What it is called: the ``on`` of a rule.
            value: What was measured. NaN says nothing.
            **labels: What tells this series from others of the name, each with few values; ``model``, ``operation`` and
                ``feature`` say what it concerns.

        Raises:
            AlertError: Only with ``ML_PIPELINE_STRICT=1``, if the value is neither number nor text, or the name is that
                of a type of event.
        """
        with _runtime.guard(_SINK):
            if name in SUBJECTS:
                raise AlertError("a measured value must not be called as a type of event is", name, "rename it")
            plain: float | str | bool = value if type(value) in _PLAIN else _number(value)
            self._book.get().measure(name, plain, labels, self._rule_clock())

    def has_rule_on(self, resource: str) -> bool:
        """Say whether a rule watches a resource, as `alert_resource_threshold` names it: then it is left to that."""
        with _runtime.guard(_SINK):
            return self._book.get().watches(resource)
        return False

    def clear_resource(self, resource: str) -> list[str]:
        """Resolve what `alert_resource_threshold` alerted, because the resource is well back.

        Args:
            resource: As it was named there.

        Returns:
            Ids of the alerts that were open.
        """
        kind = "resource_threshold"
        return self.clear(kind, _runtime.settings().name, feature=resource, name=alert_name(kind, feature=resource))

    def latest(self, kind: str, pipeline: str, **identity: str) -> Alert | None:
        """Return the last alert of a kind that has these fields, open or not."""
        raise NotImplementedError

    def hold_back(self, occurrence: Occurrence, alert_id: str) -> None:
        """Tell that an occurrence was held back by the cooldown of its rule, under the alert before it."""
        self._publish(replace(occurrence.alert, alert_id=alert_id), "suppressed", reason="cooldown")

    def _publish(self, alert: Alert, state: AlertState, *, reason: str = "") -> None:
        """Publish what happened to an alert."""
        raise NotImplementedError

    def _is_left_to_rules(self, event: Event) -> bool:
        """Have an event judged; say whether a rule stands in place of the alert that it raises by itself."""
        with _runtime.guard(_SINK):
            return self._book.get().judge(event, self._rule_clock())
        return False

    def _has_rules_on(self, kind: type[Event]) -> bool:
        book = self._book.peek()
        return book is None or book.judges(kind)

    def _open_book(self, settings: Settings) -> RuleBook:
        book = RuleBook(self)
        if self._reads_file and settings.alert_rules_file is not None:
            from ml_pipeline.config._alert_rule_file import load_rules

            # A file that is wrong costs its rules, all of them, and not the job.
            with _runtime.guard(_SINK):
                for rule in load_rules(settings.alert_rules_file, taken=self._rules_added):
                    book.add(rule)
        for rule in self._rules_added.values():
            book.add(rule)
        return book


def _number(value: Any) -> float:
    number, failed = _runtime.attempt(float, value)
    if number is None:
        raise AlertError("a measured value must be a number or a text", value, "convert it first") from failed
    return number
