"""What a rule can look at: the fields of an event, by dotted path, and which event is about what."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_names import FAILURE_KIND
from ml_pipeline.config._events import AuditEvent, DriftEvent, ErrorInfo, OperationEvent, ResourceSample
from ml_pipeline.errors import closest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ml_pipeline.config._events import Event

__all__ = ["EACH", "FAILURES", "SUBJECTS", "Subject", "matches", "readings"]

EACH: Final = "*"
"""Stands, as the last part of a path, for every entry: each is watched by itself."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A type of event that rules can be on.

    Attributes:
        event: The type.
        kind: The kind of alert, unless a rule says another.
        kinds: The kind of alert by the field that is watched.
        operation: Returns what operation an event is about.
        model: Returns what model it is about.
    """

    event: type[Any]
    kind: str
    kinds: Mapping[str, str]
    operation: Callable[[Any], object]
    model: Callable[[Any], object]

    def check(self, path: str, *, is_pattern: bool = False) -> None:
        """Make sure that events of this type can have what a path names.

        Args:
            path: Such as ``metrics.roc_auc``, or ``disk_free_bytes.*`` for each entry.
            is_pattern: Whether the path selects events, and so must name one thing.

        Raises:
            ValueError: If they cannot; the text is the remedy.
        """
        first, dot, rest = path.partition(".")
        known = {each.name: str(each.type) for each in fields(self.event)}
        if first not in known:
            raise ValueError(closest(first, known))
        if "ErrorInfo" in known[first]:
            parts = [each.name for each in fields(ErrorInfo)]
            if rest not in parts:
                raise ValueError(closest(rest, parts) if rest else f"say which part, as in {first}.type")
        elif "Mapping" in known[first]:
            if not rest or (is_pattern and rest == EACH):
                raise ValueError(f"say which entry, as in {first}.NAME")
        elif dot:
            raise ValueError(f"write {first} alone: it has no parts")


FAILURES: Final = frozenset({"fail", "abandon"})
"""Types of the events of operations that did not go well."""

SUBJECTS: Final[Mapping[str, Subject]] = MappingProxyType(
    {
        "operation": Subject(
            OperationEvent,
            FAILURE_KIND,
            MappingProxyType({"metrics": "model_performance", "counts": "data_quality"}),
            lambda event: event.name,
            lambda event: event.attributes.get("model_name"),
        ),
        "resources": Subject(
            ResourceSample, "resource_threshold", MappingProxyType({}), lambda event: event.name, lambda _: ""
        ),
        "drift": Subject(DriftEvent, "data_drift", MappingProxyType({}), lambda _: "", lambda event: event.model),
        "audit": Subject(AuditEvent, "audit", MappingProxyType({}), lambda event: event.action, lambda _: ""),
    }
)
"""By the name that a rule's ``on`` gives them."""


def readings(event: Event, path: str) -> Iterator[tuple[str, object]]:
    """Return what an event has at a path: the last part of the path, and the value; nothing where it has none."""
    first, _, rest = path.partition(".")
    held = getattr(event, first, None)
    if not rest:
        if held is not None:
            yield first, held
    elif isinstance(held, ErrorInfo):
        yield rest, getattr(held, rest)
    elif isinstance(held, Mapping):
        if rest == EACH:
            yield from ((str(key), value) for key, value in held.items())
        elif (found := _entry(held, rest)) is not None:
            yield rest, found


def matches(event: Event, where: Mapping[str, tuple[Any, ...]]) -> bool:
    """Say whether an event is one of those that a rule selects.

    Args:
        event: The event.
        where: For each path the values it may have; a text may hold ``*`` and ``?``.
    """
    return all(any(_is_one(value, wanted) for _, value in readings(event, path)) for path, wanted in where.items())


def _entry(held: Mapping[Any, Any], key: str) -> object:
    found = held.get(key)
    if found is None and "." in key:  # a name with a dot in it wins over an entry in an entry
        first, _, rest = key.partition(".")
        inner = held.get(first)
        return _entry(inner, rest) if isinstance(inner, Mapping) else None
    return found


def _is_one(value: object, wanted: tuple[Any, ...]) -> bool:
    if isinstance(value, str):
        return any(isinstance(each, str) and fnmatch.fnmatchcase(value, each) for each in wanted)
    return any(value == each and isinstance(value, bool) == isinstance(each, bool) for each in wanted)
