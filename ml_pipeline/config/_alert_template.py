"""The message of a rule: a text with named gaps, checked when the rule is made, for it must not fail when it fires."""

from __future__ import annotations

import re
from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline import _runtime
from ml_pipeline.config._alert_occurrences import number
from ml_pipeline.config._alert_records import bounded_text
from ml_pipeline.errors import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["LABELS", "Template"]

LABELS: Final = "labels."
"""What the name of a label begins with in a template."""

_FORM: Final = re.compile(r"[+,_]?0?\d{0,2},?(\.\d{1,2})?[defgs%]?", re.ASCII)
_LABEL: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Template:
    """A message with gaps: ``{value}``, ``{value:.3f}``, ``{labels.site}``; a brace of its own is doubled.

    Unlike `str.format` it reaches no attribute and no item, and converts nothing: a gap is a name that is known.

    Attributes:
        parts: The texts between the gaps, each with the gap after it, its name and its form; None for no gap.
    """

    parts: tuple[tuple[str, str | None, str], ...]

    @classmethod
    def of(cls, text: str, known: frozenset[str]) -> Template:
        """Read a template.

        Args:
            text: The text.
            known: The names that a gap may have, beside labels.

        Raises:
            ValueError: If a gap is not closed, has no such name, or a form that no number can take; the text says what
                to do about it.
        """
        try:
            parts = list(Formatter().parse(text))
        except ValueError:
            raise ValueError("double a brace that is meant as one, and close every gap, as in {value}") from None
        for _, name, form, conversion in parts:
            if name is None:
                continue
            is_label = name.startswith(LABELS) and _LABEL.fullmatch(name.removeprefix(LABELS))
            if not is_label and name not in known:
                raise ValueError(f"{{{name}}} is no field of it: {closest(name, known)}")
            if conversion or not _FORM.fullmatch(form or "") or _fails(form or ""):
                raise ValueError(f"write {{{name}}} alone, or with the form of a number as in {{{name}:.3f}}")
        return cls(tuple((before, name, form or "") for before, name, form, _ in parts))

    def fill(self, fields: Mapping[str, object], labels: Mapping[str, str]) -> str:
        """Write the message.

        Args:
            fields: Values by name; one that is missing is empty.
            labels: Labels by name, likewise.
        """
        return "".join(
            before + ("" if name is None else _shown(_looked_up(name, fields, labels), form))
            for before, name, form in self.parts
        )


def _looked_up(name: str, fields: Mapping[str, object], labels: Mapping[str, str]) -> object:
    return labels.get(name.removeprefix(LABELS)) if name.startswith(LABELS) else fields.get(name)


def _shown(value: object, form: str) -> str:
    if value is None:
        return ""
    text, failed = _runtime.attempt(format, value, form) if form else (None, None)
    if text is not None and failed is None:
        return bounded_text(text)
    return number(value) if isinstance(value, (int, float)) else bounded_text(value)


def _fails(form: str) -> bool:
    # A number takes any form of numbers; a text takes none of them and is shown as it is.
    call: Callable[..., Any] = format
    return bool(form) and all(_runtime.attempt(call, each, form)[1] for each in (0.5, 1, "text"))
