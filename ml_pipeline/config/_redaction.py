"""What must not be read by whoever reads a log: fields whose name says so, and texts that match a pattern.

A name is split into words at ``_``, ``-``, ``.`` and wherever else a letter or digit ends, and at the humps of
``camelCase``. It hides its text when its last word, or its last two, are on the list: ``db_password`` and ``X-Api-Key``
do, ``max_tokens`` and ``primary_key`` do not. Numbers are never hidden.

Patterns are off until ``ML_PIPELINE_REDACT_PATTERNS`` is set, because each is searched for in every text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from ml_pipeline import _runtime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["HIDDEN_WORDS", "LONGEST_MATCH", "REDACTED", "Redaction", "current"]

REDACTED: Final = "[redacted]"

HIDDEN_WORDS: Final = (
    "password",
    "passwd",
    "secret",
    "token",
    "api_key",
    "private_key",
    "authorization",
    "cookie",
    "credential",
    "credentials",
)
"""The names that hide their texts whatever the settings say; ``ML_PIPELINE_REDACT_KEYS`` adds to them."""

LONGEST_MATCH: Final = 8_192
"""A match of up to so many characters is found whole, wherever in a text it lies."""

_WINDOW: Final = 8_192
"""So much of a text is searched at once, and `LONGEST_MATCH` beyond it: a pattern may take quadratic time."""

_MOST_REMEMBERED: Final = 4_096
_LONGEST_NAME: Final = 200
_HUMP: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_BETWEEN_WORDS: Final = re.compile(r"[\W_]+")


class Redaction:
    """Decides what is hidden; a value, safe for threads.

    Args:
        keys: Names that hide their texts, beside `HIDDEN_WORDS`, of any number of words.
        patterns: Regular expressions whose matches are hidden.

    Attributes:
        patterned: Whether there are patterns; without one, `text` returns what it is given.
    """

    __slots__ = ("_counts", "_known", "_names", "_patterns", "patterned")

    def __init__(self, keys: Iterable[str] = (), patterns: Iterable[str] = ()) -> None:
        words = [_words(name) for name in (*HIDDEN_WORDS, *keys)]
        self._names = frozenset("_".join(each) for each in words if each)
        self._counts = sorted({len(each) for each in words if each})
        self._patterns = tuple(re.compile(pattern) for pattern in patterns)
        self._known: dict[str, bool] = {}
        self.patterned = bool(self._patterns)

    def hides(self, key: str) -> bool:
        """Say whether the texts of a field are hidden because of its name; a name seen before costs one look-up."""
        known = self._known.get(key)
        return self._judged(key) if known is None else known

    def text(self, value: str, start: int = 0, stop: int | None = None) -> str:
        """Hide what the patterns match.

        Args:
            value: Any text.
            start: Where the part that will be shown begins.
            stop: Where it ends; by default with the text.

        Returns:
            That part, with `REDACTED` in place of each match, also of one that only begins or ends in it. Matches that
            touch are one, and what was redacted before stays as it is.
        """
        stop = len(value) if stop is None else min(stop, len(value))
        if not self.patterned or (len(value) <= _WINDOW and not self._is_found_in(value)):
            return value[start:stop]
        found = list(self._matches(value, start, stop))
        marks = list(_marks(value)) if found else []
        found = [match for match in found if not any(mark[0] <= match[0] and match[1] <= mark[1] for mark in marks)]
        return _veiled(value, start, stop, sorted(found + marks)) if found else value[start:stop]

    def _judged(self, key: str) -> bool:
        words = _words(key[-_LONGEST_NAME:])
        hidden = any("_".join(words[-count:]) in self._names for count in self._counts)
        if len(key) <= _LONGEST_NAME and len(self._known) < _MOST_REMEMBERED:
            self._known[key] = hidden
        return hidden

    def _is_found_in(self, value: str) -> bool:
        for pattern in self._patterns:  # noqa: SIM110 - most texts end here, and `any` would take three times as long
            if pattern.search(value) is not None:
                return True
        return False

    def _matches(self, value: str, start: int, stop: int) -> Iterator[tuple[int, int]]:
        for begin in range(max(start - LONGEST_MATCH, 0), stop, _WINDOW):
            end = min(begin + _WINDOW, stop) + LONGEST_MATCH
            for pattern in self._patterns:
                for match in pattern.finditer(value, begin, end):
                    if match.end() > match.start():
                        yield match.span()


def current() -> Redaction:
    """Return the redaction that the settings in force ask for."""
    settings = _runtime.settings()
    return _built(settings.redact_keys, settings.redact_patterns)


def _veil(line: str, start: int, stop: int) -> str:
    return current().text(line, start, stop)


_runtime.say_through(_veil)


@lru_cache(maxsize=8)
def _built(keys: tuple[str, ...], patterns: tuple[str, ...]) -> Redaction:
    return Redaction(keys, patterns)


def _words(name: str) -> list[str]:
    return [word.lower() for word in _BETWEEN_WORDS.split(_HUMP.sub("_", name)) if word]


def _marks(value: str) -> Iterator[tuple[int, int]]:
    at = value.find(REDACTED)
    while at >= 0:
        yield at, at + len(REDACTED)
        at = value.find(REDACTED, at + len(REDACTED))


def _veiled(value: str, start: int, stop: int, hidden: list[tuple[int, int]]) -> str:
    parts: list[str] = []
    shown_to, hidden_to = start, -1
    for begin, end in hidden:
        if end <= start or begin >= stop:
            continue
        if begin > hidden_to:  # otherwise it touches the one before it, whose mark stands for both
            parts += [value[shown_to:begin], REDACTED]
        hidden_to = max(hidden_to, end)
        shown_to = max(shown_to, hidden_to)
    return "".join([*parts, value[shown_to:stop]])
