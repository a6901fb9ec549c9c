"""The few pictures that say how something went, so that colour is never alone in saying it."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from ml_pipeline.report.markup import Html, el, join

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SPRITE", "TONES", "favicon", "icon", "pill"]

TONES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "ok": "ok",
        "failed": "bad",
        "cancelled": "warn",
        "abandoned": "warn",
        "open": "idle",
        "drift": "warn",
        "no_drift": "ok",
        "insufficient_data": "idle",
        "critical": "bad",
        "warning": "warn",
        "info": "idle",
    }
)
"""The tone of each status, verdict and severity; that of any other is ``idle``."""

_DISC: Final = "M8 0a8 8 0 1 1 0 16A8 8 0 0 1 8 0z"
_PATHS: Final = {
    "ok": f"{_DISC}M12.1 4.6l-5.3 5.3-2.9-2.9-1.2 1.2 4.1 4.1 6.5-6.5z",
    "failed": f"{_DISC}M5.2 3.9L3.9 5.2 6.7 8l-2.8 2.8 1.3 1.3L8 9.3l2.8 2.8 1.3-1.3L9.3 8l2.8-2.8-1.3-1.3L8 6.7z",
    "cancelled": f"{_DISC}M5 5v6h6V5z",
    "abandoned": f"{_DISC}M3.8 7v2h1.9V7zM7 7v2h2V7zM10.3 7v2h1.9V7z",
    "open": "M8 0a8 8 0 1 1 0 16A8 8 0 0 1 8 0zM8 1.7v12.6A6.3 6.3 0 0 0 8 1.7z",
    "warning": "M8 .8l7.7 14H.3zM7.1 5.6v4.9h1.8V5.6zM7.1 11.6v1.8h1.8v-1.8z",
    "info": f"{_DISC}M7.1 3.4v1.9h1.8V3.4zM7.1 6.6v6h1.8v-6z",
}
_DRAWN_AS: Final = {
    "drift": "warning",
    "no_drift": "ok",
    "insufficient_data": "open",
    "critical": "failed",
    "unknown": "open",
}
_COLOURS: Final = {"ok": "#1a7f37", "bad": "#cf222e", "warn": "#bf8700", "idle": "#6e7781"}

SPRITE: Final = el(
    "svg",
    *(
        el("symbol", el("path", d=path, fill="currentColor", fill_rule="evenodd"), id=f"i-{name}", viewBox="0 0 16 16")
        for name, path in _PATHS.items()
    ),
    width=0,
    height=0,
    aria_hidden="true",
    class_="unseen",
)
"""Holds each picture once; goes into the page before the first `icon`."""


def icon(name: str) -> Html:
    """Show the picture of a status, verdict or severity; beside it stands a word for those who do not see it."""
    return el("svg", el("use", href=f"#i-{_drawn(name)}"), class_=f"icon {tone(name)}", aria_hidden="true")


def pill(name: str, label: str) -> Html:
    """Show a status, verdict or severity as picture and word."""
    return el("span", join((icon(name), label)), class_=f"pill {tone(name)}")


def tone(name: str) -> str:
    """Return the class that colours a status, verdict or severity."""
    return TONES.get(name, "idle")


def favicon(name: str) -> str:
    """Return the picture as a data URL, for the browser's tab."""
    colour = _COLOURS[tone(name)].replace("#", "%23")
    path = _PATHS[_drawn(name)]
    return (
        "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E"
        f"%3Cpath fill='{colour}' fill-rule='evenodd' d='{path}'/%3E%3C/svg%3E"
    )


def _drawn(name: str) -> str:
    name = _DRAWN_AS.get(name, name)
    return name if name in _PATHS else "open"
