"""The fields of an object by their names, so that a name that is hidden hides them: dataclasses, attrs, pydantic.

They are known by what such classes have; no library is imported for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Fields", "of_attrs_or_pydantic", "of_dataclass"]


_NOTHING: Final[Mapping[str, Any]] = {}


class Fields(Mapping[str, Any]):
    """The fields of an object, read one at a time so that nothing is copied deeply.

    Args:
        value: The object.
        names: Of the fields.
        shown: What makes a field's text, by name, where its class says so.
    """

    def __init__(self, value: Any, names: Iterable[str], shown: Mapping[str, Callable[[Any], Any]] = _NOTHING) -> None:
        self._value = value
        self._names = list(names)
        self._shown = shown

    def __getitem__(self, name: str) -> Any:
        value = getattr(self._value, name)
        return self._shown[name](value) if name in self._shown else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def of_dataclass(value: Any) -> Fields | None:
    """Return the fields of an instance of a dataclass; None if it is none."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    return Fields(value, [field.name for field in dataclasses.fields(value)])


def of_attrs_or_pydantic(value: Any) -> Fields | None:
    """Return the fields that the ``repr`` of an attrs class or pydantic model shows; None if it is neither."""
    kind = type(value)
    attributes = getattr(kind, "__attrs_attrs__", None)
    if isinstance(attributes, tuple):
        told = {each.name: each.repr for each in attributes if each.repr}
        return Fields(value, told, {name: how for name, how in told.items() if callable(how)})
    fields = getattr(kind, "model_fields", None)
    if isinstance(fields, Mapping) and hasattr(kind, "__pydantic_validator__"):
        extra = getattr(value, "__pydantic_extra__", None) or {}  # given beyond the fields, where the model allows it
        return Fields(value, [*(name for name, field in fields.items() if field.repr), *extra])
    return None
