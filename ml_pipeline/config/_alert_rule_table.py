"""Rules for a person: one line each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ml_pipeline.config._alert_occurrences import number
from ml_pipeline.config._alert_rules import RULE_FIELDS
from ml_pipeline.config._encoding import to_plain

if TYPE_CHECKING:
    from typing import Any

    from ml_pipeline.config._alert_rules import AlertRule

__all__ = ["COLUMNS", "condition_text", "rule_fields", "rule_row"]

COLUMNS: Final = ("name", "severity", "watches", "condition", "runbook")


def rule_row(rule: AlertRule) -> tuple[str, ...]:
    """Write a rule as a row under `COLUMNS`."""
    watched = f"{rule.on}: {rule.value}" + (f" / {rule.per}" if rule.per else "") if rule.value else rule.on
    where = ", ".join(f"{path}={'|'.join(map(str, wanted))}" for path, wanted in rule.wanted.items())
    return rule.name, rule.severity, watched + (f" where {where}" if where else ""), condition_text(rule), rule.runbook


def condition_text(rule: AlertRule) -> str:
    """Say in a few words when a rule fires."""
    if rule.drop is not None:
        text = f"more than {number(rule.drop)} below {number(rule.baseline)}"
    else:
        text = next(
            f"{side} {number(level)}"
            for side, level in (("above", rule.above), ("below", rule.below), ("is", rule.equals))
            if level is not None
        )
    text += "" if rule.clear is None else f", clear at {number(rule.clear)}"
    text += f", {rule.needed} of {rule.window}" if rule.window > 1 else ""
    return text + (f", for {number(rule.for_seconds)} s" if rule.for_seconds else "")


def rule_fields(rule: AlertRule) -> dict[str, Any]:
    """Return what a rule says, as plain JSON values; what is left to its default too."""
    plain: dict[str, Any] = to_plain({name: getattr(rule, name) for name in RULE_FIELDS}, None)
    return plain
