"""Expressions over the fields of a log record, such as ``context.roc_auc > 0.9 and level == ERROR``.

::

    expression = all {"or" all}          all = one {"and" one}
    one        = "not" one | "(" expression ")" | FIELD OPERATOR VALUE
    FIELD      = a key, and with dots the keys inside it; quoted where it is no plain word: context."mean radius"
    OPERATOR   = == != < > <= >= ~       (~ searches a regular expression)
    VALUE      = a number, true, false, null, 'text', "text", or a plain word

Numbers compare with numbers, texts with texts. A field that is not there is equal to ``null``, and to nothing else.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Needles", "Where", "needle", "parse_where"]

Needles = tuple[tuple[bytes, ...], ...]
"""Groups of texts: the raw bytes of every record that is wanted hold at least one text of each group."""

_TOKEN: Final = re.compile(
    r"""\s*(?:
      (?P<operator>==|!=|<=|>=|<|>|~) | (?P<bracket>[()])
    | (?P<number>[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?(?![^\s()<>=!~]))
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")(?![^\s()<>=!~])
    | (?P<word>(?:[^\s()<>=!~'"]+|(?<=\.)"[^"]*")+)
    )""",
    re.VERBOSE,
)
_KEY: Final = re.compile(r'"([^"]*)"|([^."]+)')
_FIELD: Final = re.compile(r'[^\W\d][^."]*(?:\.(?:"[^"]*"|[^."]+))*')
_PLAIN_RUN: Final = re.compile(r"[ -!#-.0-\[\]-~]+")
_CONSTANTS: Final = {"true": True, "false": False, "null": None}
_JOINING: Final = frozenset({"and", "or", "not"})
_WITHOUT_KEY: Final = frozenset({"timestamp", "level", "logger", "channel", "message", "exception", "following"})
"""What a record may say without the key, as one in the text format does."""
_MOST_CHARACTERS: Final = 2_000
_DEEPEST: Final = 50
_NUMBERS: Final = frozenset({int, float})
_COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
}
_NO_FIELD: Final = object()


@dataclass(frozen=True, slots=True)
class Where:
    """One expression, ready to be asked.

    Attributes:
        matches: Says whether the fields of a record fit.
        needles: What the raw bytes of every record that fits must hold.
    """

    matches: Callable[[Mapping[str, Any]], bool]
    needles: Needles = ()


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


def parse_where(expression: str) -> Where:
    """Read an expression.

    Args:
        expression: See the module's text.

    Returns:
        What asks a record.

    Raises:
        SettingsError: If it is no expression; the message names the position of the fault, counted from 1.
    """
    if len(expression) > _MOST_CHARACTERS:
        raise SettingsError(f"a --where expression must have at most {_MOST_CHARACTERS:,} characters", len(expression))
    return _Parser(expression).parse()


def needle(text: str, *, quoted: bool = False) -> bytes:
    """Return bytes that stand in every raw record that holds a text, however its writer escaped it.

    Args:
        text: The text.
        quoted: Whether the text is a whole JSON string.

    Returns:
        The longest part that needs no escape; empty where there is none.
    """
    longest = max(_PLAIN_RUN.findall(text), key=len, default="")
    return (f'"{text}"' if text and quoted and longest == text else longest).encode("ascii")


class _Parser:
    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens = self._split()
        self._next = 0
        self._depth = 0

    def parse(self) -> Where:
        found = self._any()
        if self._peek().kind != "end":
            raise self._wrong(self._peek(), "'and', 'or' or the end was expected")
        return found

    def _split(self) -> list[_Token]:
        tokens, at = [], 0
        text = self._expression.rstrip()
        while at < len(text):
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                start = at + len(text[at:]) - len(text[at:].lstrip())
                what = "a text without its closing quote" if text[start] in "'\"" else "a character without a meaning"
                raise self._wrong(_Token("", "", start), f"there is {what}")
            tokens.append(_Token(found.lastgroup, found[found.lastgroup], found.start(found.lastgroup)))
            at = found.end()
        return [*tokens, _Token("end", "", len(text))]

    def _any(self) -> Where:
        found = self._all()
        while self._took("or"):
            found = _either(found, self._all())
        return found

    def _all(self) -> Where:
        found = self._one()
        while self._took("and"):
            found = _both(found, self._one())
        return found

    def _one(self) -> Where:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise self._wrong(self._peek(), f"it is nested more than {_DEEPEST} deep")
        if self._took("not"):
            inner = self._one()
            found = Where(lambda fields: not inner.matches(fields))
        elif self._took("("):
            found = self._any()
            if not self._took(")"):
                raise self._wrong(self._peek(), "')' was expected")
        else:
            found = self._comparison()
        self._depth -= 1
        return found

    def _comparison(self) -> Where:
        field = self._take()
        if field.kind != "word" or field.text in _JOINING or not _FIELD.fullmatch(field.text):
            raise self._wrong(field, "a field was expected")
        sign = self._take()
        if sign.kind != "operator":
            raise self._wrong(sign, "an operator was expected, one of == != < > <= >= ~")
        value = self._take()
        if value.kind not in ("number", "text", "word") or value.text in _JOINING:
            raise self._wrong(value, "a value was expected")
        path = tuple(quoted or plain for quoted, plain in _KEY.findall(field.text))
        return self._compared(path, sign, value)

    def _compared(self, path: tuple[str, ...], sign: _Token, value: _Token) -> Where:
        wanted = _value(value)
        if sign.text == "~":
            try:
                pattern = re.compile(wanted if isinstance(wanted, str) else value.text)
            except re.error as wrong:
                raise self._wrong(value, f"the regular expression is broken: {wrong}") from None
            return Where(lambda fields: _found(pattern, _at(fields, path)), _needles(path, sign.text, wanted))
        if sign.text in _COMPARE and (wanted is None or isinstance(wanted, bool)):
            raise self._wrong(value, f"{sign.text} needs a number or a text")
        return Where(_test(path, sign.text, wanted), _needles(path, sign.text, wanted))

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._peek()
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _took(self, text: str) -> bool:
        token = self._peek()
        if token.kind in ("word", "bracket") and token.text == text:
            self._next += 1
            return True
        return False

    def _wrong(self, token: _Token, what: str) -> SettingsError:
        return SettingsError(
            f"a --where expression must read FIELD OPERATOR VALUE: at character {token.at + 1} {what}",
            self._expression,
            "such as 'context.metrics.roc_auc > 0.9'",
        )


def _value(token: _Token) -> Any:
    if token.kind == "number":
        number = float(token.text)
        return int(token.text) if re.fullmatch(r"[-+]?\d+", token.text) else number
    if token.kind == "text":  # a backslash keeps its meaning for regular expressions; before a quote it has none
        quote = token.text[0]
        return token.text[1:-1].replace(f"\\{quote}", quote)
    return _CONSTANTS.get(token.text, token.text)


def _test(path: tuple[str, ...], sign: str, wanted: Any) -> Callable[[Mapping[str, Any]], bool]:
    if sign in _COMPARE:
        compare = _COMPARE[sign]
        return lambda fields: _alike(found := _at(fields, path), wanted) and compare(found, wanted)
    if sign == "==":
        return lambda fields: _equal(_at(fields, path), wanted)
    if wanted is None:
        return lambda fields: not _equal(_at(fields, path), None)
    return lambda fields: (found := _at(fields, path)) is not _NO_FIELD and not _equal(found, wanted)


def _at(fields: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = fields
    for key in path:
        if type(value) is dict and key in value:
            value = value[key]
        elif type(value) is list and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return _NO_FIELD
    return value


def _alike(found: Any, wanted: Any) -> bool:
    return type(found) is type(wanted) or (type(found) in _NUMBERS and type(wanted) in _NUMBERS)


def _equal(found: Any, wanted: Any) -> bool:
    if wanted is None:
        return found is None or found is _NO_FIELD
    return _alike(found, wanted) and bool(found == wanted)


def _found(pattern: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and pattern.search(value) is not None


def _needles(path: tuple[str, ...], sign: str, wanted: Any) -> Needles:
    """Say what a record that fits one comparison must hold; the text format writes no keys."""
    found = []
    if sign == "==" and isinstance(wanted, str) and path[0] not in ("timestamp", "channel"):
        found.append(needle(wanted))
    if path[0] not in _WITHOUT_KEY and wanted is not None:  # the inmost key is the rarest
        found += [needle(key) for key in reversed(path) if not key.isdecimal()]
    return tuple((each,) for each in found if each)


def _both(left: Where, right: Where) -> Where:
    return Where(lambda fields: left.matches(fields) and right.matches(fields), left.needles + right.needles)


def _either(left: Where, right: Where) -> Where:
    needles: Needles = (left.needles[0] + right.needles[0],) if left.needles and right.needles else ()
    return Where(lambda fields: left.matches(fields) or right.matches(fields), needles)
