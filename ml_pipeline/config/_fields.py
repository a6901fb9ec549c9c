"""The fields of an object by their names, so that a name that is hidden hides them: dataclasses, attrs, pydantic.

They are known by what such classes have; no library is imported for it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections import UserString
from collections.abc import Mapping, Sequence, ValuesView
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Fields", "Row", "has_own_repr", "inside", "names_in", "of_dataclass", "rows"]

_NO_ARRAYS: Final = (str, bytes, bytearray, memoryview, range, UserString)
"""Sequences that are read as a whole."""
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


class Row(list[Any]):
    """Items with their names, as a named tuple has them."""

    __slots__ = ("names",)

    def __init__(self, items: Iterable[Any], names: tuple[Any, ...]) -> None:
        super().__init__(items)
        self.names = names


def names_in(value: object) -> tuple[Any, ...]:
    """Return the names of the items of a row or a named tuple; empty for others."""
    if isinstance(value, Row):
        return value.names
    names = getattr(type(value), "_fields", ()) if isinstance(value, tuple) else ()
    return names if type(names) is tuple else ()


def rows(plain: Any, dtype: Any) -> Any:
    """Give names to what ``tolist`` made of a structured array or scalar, where it has left tuples.

    Args:
        plain: The tuple, or lists of them.
        dtype: The type of its elements, which may be structured again.
    """
    if type(plain) is list:
        return [rows(each, dtype) for each in plain]
    if type(plain) is not tuple or not dtype.names:
        return plain
    return Row([rows(item, dtype[name].base) for item, name in zip(plain, dtype.names, strict=True)], dtype.names)


def of_dataclass(value: Any, *, shown_only: bool) -> Fields | None:
    """Return the fields of an instance of a dataclass; None if it is none.

    Args:
        value: Anything.
        shown_only: Whether those with ``repr=False`` are left out.
    """
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return None
    return Fields(value, [field.name for field in dataclasses.fields(value) if field.repr or not shown_only])


def has_own_repr(kind: type) -> bool:
    """Say whether somebody wrote the ``__repr__`` of a class: that of a library lists the fields, or nothing."""
    method: Any = kind.__repr__
    code = getattr(getattr(method, "__wrapped__", method), "__code__", None)
    if code is None or str(method.__module__).startswith("pydantic."):
        return False
    of_dataclasses = hasattr(method, "__wrapped__") and code.co_filename == "<string>"
    return not of_dataclasses and not code.co_filename.startswith("<attrs generated")


def inside(value: object) -> Any:
    """Return what lies in a value that has no form of its own, or None; its ``repr`` would tell what is hidden."""
    argparse = sys.modules.get("argparse")  # where nobody imported it there are no values of its
    if isinstance(value, SimpleNamespace) or (argparse is not None and isinstance(value, argparse.Namespace)):
        return vars(value)
    fields = of_attrs_or_pydantic(value)
    if fields is not None:
        return fields
    return value if isinstance(value, (ValuesView, Sequence)) and not isinstance(value, _NO_ARRAYS) else None


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
