"""A page read strictly: every element closed in its order, every attribute once, every id once."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

__all__ = ["Page", "read"]

_VOID = frozenset({"meta", "link", "br", "hr", "img", "input"})


@dataclass
class Page(HTMLParser):
    """What stands in a page.

    Attributes:
        tags: Every element, in order.
        attributes: Every attribute's value, by name.
        texts: Every text outside the style sheet.
    """

    tags: list[str] = field(default_factory=list)
    attributes: dict[str, list[str]] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []

    @property
    def text(self) -> str:
        """All texts, one after another, with single spaces."""
        return " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Open an element."""
        self.handle_startendtag(tag, attrs)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take in an element's name and attributes."""
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"an attribute twice: <{tag} {names}>"
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.setdefault(name, []).append(value or "")

    def handle_endtag(self, tag: str) -> None:
        """Close the element that was opened last."""
        assert self.open, f"</{tag}> without a start"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        """Take in a text."""
        if "style" not in self.open:
            self.texts.append(data)


def read(html: str) -> Page:
    """Parse a page, and hold it to the rules that any page must keep."""
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == [], f"never closed: {page.open}"
    ids = page.attributes["id"]
    assert len(ids) == len(set(ids)), "an id twice"
    for target in page.attributes.get("href", []):
        assert target.startswith("data:image/") or target.removeprefix("#") in ids, f"nowhere to go: {target}"
    for source in page.attributes.get("src", []):
        assert source.startswith("data:image/svg+xml;base64,")
    assert "style" not in page.attributes, "the policy would block it"
    assert not any(name.startswith("on") for name in page.attributes)
    return page
