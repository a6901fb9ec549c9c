"""Every error this package raises on purpose, and the tree they form.

::

    MLPipelineError
    ├── SettingsError         a setting, an environment variable or a command-line argument
    ├── InputDataError        a table, a file or a column the pipeline was given
    ├── OperationStateError   an operation completed twice, or never started
    ├── UnknownChannelError   a log channel that is not in the channel table
    ├── LineageError          a node, an edge or a walk that cannot be
    ├── AlertError            an alert, a severity or a delivery channel
    ├── DeliveryError         an alert that could not be delivered now, and is tried again
    ├── StoreError            a database that is somewhere else and cannot be used now
    ├── DashboardError        Grafana, or a dashboard file
    └── DriftInputError       samples a drift statistic is not defined on

A message has three parts: the rule, the value given, and the remedy. They are kept as attributes, so that a caller can
show them its own way. ``str`` joins them into one line, which drives no terminal and survives a ``repr`` that raises.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

__all__ = [
    "AlertError",
    "DashboardError",
    "DeliveryError",
    "DriftInputError",
    "InputDataError",
    "LineageError",
    "MLPipelineError",
    "OperationStateError",
    "SettingsError",
    "StoreError",
    "UnknownChannelError",
    "closest",
    "flat",
    "without_credentials",
]

_USER_INFO = re.compile(r"//[^/@\s]*@")
_QUERY_SECRETS = re.compile(r"([?&][^=&\s]*(?:token|key|secret|password|auth)[^=&\s]*=)[^&\s'\"]+", re.IGNORECASE)
_SHOWN_CHARACTERS = 200
_NOTHING = object()
_PLAIN = frozenset({str, int, float, bool, type(None)})
_REPR = reprlib.Repr()
_REPR.maxother = 1_000


class MLPipelineError(Exception):
    """The root of the tree: catch this to catch every error the package raises on purpose.

    Args:
        rule: What must hold, as one clause without a full stop.
        given: The value that broke the rule; its ``repr`` is shown, shortened to one line.
        remedy: What the reader can do about it, as one clause.
    """

    stops_the_job = False
    """Whether it goes on through the guard around telemetry; set on the few errors that must stop the work."""

    def __init__(self, rule: str, given: object = _NOTHING, remedy: str = "") -> None:
        self.rule = rule
        self.given = given
        self.remedy = remedy
        super().__init__(rule)

    def __str__(self) -> str:
        given = "" if self.given is _NOTHING else f" (got {_shown(self.given)})"
        remedy = f"; {self.remedy}" if self.remedy else ""
        return flat(f"{self.rule}{given}{remedy}")

    def __reduce__(self) -> tuple[Any, ...]:
        # A worker process pickles the error to send it home. What was given may be a lock, or a gigabyte: unless it is
        # plain it travels as the text that is shown. The marker for "no value" must not become a new object on the way.
        plain = type(self.given) in _PLAIN
        given = () if self.given is _NOTHING else (self.given if plain else _Shown(_shown(self.given)),)
        state = {name: value for name, value in self.__dict__.items() if name not in ("rule", "given", "remedy")}
        return (_rebuilt, (type(self), self.rule, self.remedy, *given), state)


class SettingsError(MLPipelineError, ValueError):
    """A setting, an environment variable or an argument is unknown or out of range."""


class InputDataError(MLPipelineError, ValueError):
    """A table, file or column cannot be used for what was asked."""


class OperationStateError(MLPipelineError, RuntimeError):
    """An operation was completed that is not open."""


class UnknownChannelError(MLPipelineError, ValueError):
    """A log channel is not in the channel table."""


class LineageError(MLPipelineError, ValueError):
    """A lineage node, edge or walk cannot be."""


class AlertError(MLPipelineError, ValueError):
    """An alert or its delivery was described wrongly."""


class DeliveryError(MLPipelineError, ConnectionError):
    """An alert could not be delivered now; it stays in the outbox and is tried again."""

    retry_after_seconds: float | None = None
    """How long the receiver asked to be left alone, where it did."""


class StoreError(MLPipelineError, ConnectionError):
    """A store cannot be used now: its database is away, or its disk is full."""


class DashboardError(MLPipelineError, RuntimeError):
    """Grafana refused something, or a dashboard file is broken."""


class DriftInputError(MLPipelineError, ValueError):
    """A drift statistic is not defined on the samples given."""


def closest(name: str, known: Iterable[str], *, prefix: str = "") -> str:
    """Suggest the known name that *name* was most likely meant to be.

    Args:
        name: What was given.
        known: The names that exist.
        prefix: What many names begin with; it makes none of them closer.

    Returns:
        ``did you mean 'x'?``, or the sorted list of all names where none comes close.
    """
    names = {each.removeprefix(prefix): each for each in sorted(known)}
    match = difflib.get_close_matches(name.removeprefix(prefix), names, n=1, cutoff=0.6)
    return f"did you mean {names[match[0]]!r}?" if match else "known: " + ", ".join(names.values())


def without_credentials(text: str) -> str:
    """Hide what a URL may carry that nobody else should read: its user and password, and a token in its query.

    Args:
        text: Any text, with any number of URLs.

    Returns:
        The text with ``***`` in their place.
    """
    return _QUERY_SECRETS.sub(r"\1***", _USER_INFO.sub("//***@", text))


def flat(text: str) -> str:
    r"""Write a text on one line that steers no terminal.

    Args:
        text: Any text.

    Returns:
        The text with each run of white space as one space, and what cannot be printed as ``\x1b`` and so on.
    """
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in line)


def _shown(value: object) -> str:
    # The value's own ``repr``, or its address where that raises.
    text = without_credentials(flat(_REPR.repr_instance(value, 0)))
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 1] + "…"


class _Shown(str):
    """The text of a value that another process was given."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _rebuilt(kind: type[MLPipelineError], rule: str, remedy: str, given: object = _NOTHING) -> MLPipelineError:
    return kind(rule, given, remedy)
