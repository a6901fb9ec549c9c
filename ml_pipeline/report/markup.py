"""HTML and SVG from Python, where a text can only become markup by being built as such.

>>> str(el("p", "<script>", el("b", "bold"), class_="note"))
'<p class="note">&lt;script&gt;<b>bold</b></p>'
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._encoding import one_line

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EMPTY", "Html", "el", "join", "lines"]

_VOID: Final = frozenset({"meta", "link", "br", "hr", "img", "input"})
_BY_ITSELF: Final = frozenset({"rect", "line", "path", "circle", "use"})
"""SVG elements without content, closed in their own tag."""

Attribute = str | float | bool | None
Child = str | None


class Html(str):
    """Finished markup; every other text is escaped when it becomes part of some."""

    __slots__ = ()


EMPTY: Final = Html("")


def el(tag: str, /, *children: Child, **attributes: Attribute) -> Html:
    """Build an element.

    Args:
        tag: Its name.
        *children: Markup as it is, texts escaped, None left out.
        **attributes: By name: a trailing underscore is dropped, any other is a hyphen (``class_``, ``aria_label``).
            None and False are left out, True is the name alone.

    Returns:
        The element.
    """
    opening = tag + "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{opening}>")
    if tag in _BY_ITSELF and not children:
        return Html(f"<{opening}/>")
    return Html(f"<{opening}>{join(children)}</{tag}>")


def join(children: Iterable[Child]) -> Html:
    """Put markup and texts one after another; texts are escaped."""
    return Html("".join(child if isinstance(child, Html) else _escaped(child) for child in children if child))


def lines(text: str) -> Html:
    """Escape a text of several lines, such as a traceback, and keep its lines."""
    return Html("\n".join(_escaped(line) for line in text.split("\n")))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{_escaped(value) if isinstance(value, str) else _number(value)}"'


def _number(value: float) -> str:
    """Write a coordinate with as many digits as a pixel can show."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _escaped(text: str) -> str:
    return html.escape(one_line(text))
