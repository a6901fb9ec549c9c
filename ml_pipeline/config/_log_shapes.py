"""What a sink is given of a record: a line of JSON, the text format, a template, or what a formatter makes of it.

Whatever the format, what stands in it is redacted and bounded, and no text in a record ends a line.
"""

from __future__ import annotations

import copy
import logging
import string
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from ml_pipeline import _runtime
from ml_pipeline.config._encoding import one_line
from ml_pipeline.config._log_format import JSON_KEYS, OWN_ATTRIBUTES, json_line, line_fields, text_line
from ml_pipeline.errors import SettingsError, closest

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Message", "Shape", "Shapes", "shape_of"]

Resolve: TypeAlias = "Callable[[str], tuple[str, str]]"
Shape: TypeAlias = "Callable[[logging.LogRecord], object]"

_ALIASES: Final = {"time": "timestamp", "name": "logger", "extra": "context"}
"""Other names of ours for what loguru's templates call so."""
_NAMES: Final = (*JSON_KEYS, *_ALIASES)
_SAMPLE: Final = {**dict.fromkeys(JSON_KEYS, "text"), "line": 1, "process": 1, "context": {}}
"""A record, to try a template on: all but these three are texts."""
_FILLED: Final = "a template must be one that str.format can fill"
_TIME_REMEDY: Final = (
    "the time is a text in UTC, such as 2026-01-15T09:30:25.123456Z: write {time}, or {time:.19} for less"
)
_RULE: Final = "format must be 'json', 'text', a template, a function of the fields, or a logging.Formatter"


class Message(str):
    """What a function is given: the text, and in `record` its fields under the fixed keys.

    Attributes:
        record: The fields as they stand on a line of JSON, redacted.
    """

    __slots__ = ("record",)

    record: dict[str, Any]

    @classmethod
    def of(cls, text: str, record: dict[str, Any]) -> Message:
        """Join a text and the fields it was made from."""
        message = cls(text)
        message.record = record
        return message


class Shapes:
    """One format, for the kinds of sinks.

    Args:
        resolve: Tells, for the name of a logger, its channel and the name shown.
        written: Makes the text of a record; it has no line end.
    """

    def __init__(self, resolve: Resolve, written: Callable[[logging.LogRecord], str]) -> None:
        self._resolve = resolve
        self._written = written

    def line(self, record: logging.LogRecord) -> str:
        """The text with its line end."""
        return self._written(record) + "\n"

    def message(self, record: logging.LogRecord) -> Message:
        """The text, with the fields."""
        return Message.of(self._written(record), _fields(record, self._resolve))


def shape_of(format: Any, resolve: Resolve, *, coloured: bool = False) -> Shapes:  # noqa: A002 - as `add` has it
    """Make what a format asks for.

    Args:
        format: ``"json"``, ``"text"``, a template such as ``"{timestamp} {level} {message}"``, a function from the
            fields to a text, or a `logging.Formatter`.
        resolve: Tells, for the name of a logger, its channel and the name shown.
        coloured: Whether the text format may colour the level.

    Raises:
        SettingsError: If it is none of these, or the template names what no record has.
    """
    if format == "json":
        return Shapes(resolve, lambda record: _json(record, resolve)[:-1].decode("utf-8"))
    if format == "text":
        return Shapes(resolve, lambda record: text_line(record, resolve(record.name)[1], coloured=coloured)[:-1])
    if isinstance(format, logging.Formatter):
        return Shapes(resolve, lambda record: format.format(_standing_in(record, _fields(record, resolve))))
    if isinstance(format, str) and "{" in format:
        template = _Template(format)
        return Shapes(resolve, lambda record: template.filled(_fields(record, resolve)))
    if callable(format) and not isinstance(format, type):
        return Shapes(resolve, lambda record: str(format(_fields(record, resolve))))
    raise SettingsError(_RULE, format, "as in format='{timestamp} {level} {message}'")


def _json(record: logging.LogRecord, resolve: Resolve) -> bytes:
    return json_line(line_fields(record, *resolve(record.name)))


def _fields(record: logging.LogRecord, resolve: Resolve) -> dict[str, Any]:
    fields: dict[str, Any] = orjson.loads(_json(record, resolve))
    return fields


class _Template:
    """A text with ``{level}`` and the like, filled as by `str.format`; what a record does not have is empty."""

    def __init__(self, template: str) -> None:
        self._template = template
        placeholders, unfit = _runtime.attempt(_placeholders, template)
        if placeholders is None:
            raise SettingsError(_FILLED, template, str(unfit))
        names = {name for _, name in placeholders}
        for name in sorted(names):
            if name not in _NAMES:
                raise SettingsError("a template names the fields of a line", name, closest(name, _NAMES))
        self._tells_exception = "exception" in names
        for placeholder, name in placeholders:
            _, unfit = _runtime.attempt(placeholder.format_map, _values(_SAMPLE))
            if unfit is not None:
                is_time = _ALIASES.get(name, name) == "timestamp"
                raise SettingsError(_FILLED, placeholder, _TIME_REMEDY if is_time else str(unfit))

    def filled(self, fields: dict[str, Any]) -> str:
        """Write a record's fields."""
        values = _values(fields)
        told = _indented(fields)
        values["exception"] = told
        text, unfit = _runtime.attempt(self._template.format_map, values)
        if unfit is not None:
            text = _Lenient().vformat(self._template, (), values)
        return f"{text}\n{told}" if told and not self._tells_exception else str(text)


class _Lenient(string.Formatter):
    """Fills in what is not of the kind that a template wants of a caller's own field, as ``{context[rows]:d}`` does."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        found, unfit = _runtime.attempt(super().get_field, field_name, args, kwargs)
        return ("", field_name) if unfit is not None else found

    def format_field(self, value: Any, format_spec: str) -> Any:
        text, unfit = _runtime.attempt(format, value, format_spec)
        return str(value) if unfit is not None else text


def _placeholders(template: str) -> list[tuple[str, str]]:
    """Each field of a template as it stands there, and its name alone."""
    found = []
    for _, name, how, conversion in string.Formatter().parse(template):
        if name is not None:
            placeholder = f"{name}{f'!{conversion}' if conversion else ''}{f':{how}' if how else ''}"
            found.append((f"{{{placeholder}}}", name.partition(".")[0].partition("[")[0]))
    return found


def _values(fields: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {name: fields.get(name, _ABSENT) for name in JSON_KEYS}
    values.update({alias: values[name] for alias, name in _ALIASES.items()})
    return {name: _Fields(value) if isinstance(value, dict) else _shown(value) for name, value in values.items()}


class _Absent:
    """Stands for a field that a record does not have: nothing, in whatever format."""

    def __format__(self, how: str) -> str:
        return ""

    def __getitem__(self, name: object) -> _Absent:
        return self


_ABSENT: Final = _Absent()


class _Fields(dict[str, Any]):
    def __getitem__(self, name: str) -> Any:
        value = self.get(name, _ABSENT)
        return _Fields(value) if type(value) is dict else _shown(value)

    def __format__(self, how: str) -> str:
        return orjson.dumps(dict(self)).decode("utf-8")


def _shown(value: Any) -> Any:
    return one_line(value) if isinstance(value, str) else value


def _indented(fields: dict[str, Any]) -> str:
    """The traceback on lines that are indented, so that no text in it can pass for a line of the log."""
    stack = fields.get("exception", {}).get("stacktrace", "").rstrip()
    return "\n".join("    " + one_line(line) for line in stack.split("\n")) if stack else ""


def _standing_in(record: logging.LogRecord, fields: dict[str, Any]) -> logging.LogRecord:
    """A copy of a record for a formatter that is not ours, which holds nothing but what a line of ours would."""
    shown = copy.copy(record)
    for name in [each for each in shown.__dict__ if each not in OWN_ATTRIBUTES]:
        del shown.__dict__[name]
    context = fields.get("context", {})
    shown.__dict__.update({name: _shown(value) for name, value in context.items() if name not in OWN_ATTRIBUTES})
    shown.msg, shown.args = one_line(fields.get("message", "")), None
    shown.exc_info, shown.exc_text, shown.stack_info = None, _indented(fields) or None, None
    return shown
