"""How the page looks: one style sheet, light and dark, for screens of any width and for paper.

The rules stand in ``page.css``, the colours here. The page's content security policy allows this sheet by its hash and
no other, so no element has a ``style`` attribute: geometry stands in SVG attributes, colour in classes.
"""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["DARK", "LIGHT", "policy", "sheet"]

LIGHT: Final[Mapping[str, str]] = MappingProxyType(
    {
        "page": "#f5f7f9",
        "card": "#ffffff",
        "soft": "#eff2f5",
        "edge": "#d5dbe1",
        "ink": "#1c2128",
        "muted": "#57606a",
        "link": "#0757ba",
        "ok": "#1a7f37",
        "ok-soft": "#e6f6ea",
        "bad": "#c21c2c",
        "bad-soft": "#fdecec",
        "warn": "#8a5600",
        "warn-soft": "#fdf3d8",
        "idle": "#57606a",
        "idle-soft": "#eceff2",
        "cpu": "#0969da",
        "memory": "#8250df",
        "reference": "#a4aeb9",
        "batch": "#c2410c",
    }
)
"""Colours on light paper, by what they mean."""

DARK: Final[Mapping[str, str]] = MappingProxyType(
    {
        "page": "#0d1117",
        "card": "#151b23",
        "soft": "#1f262f",
        "edge": "#323a44",
        "ink": "#e9eef4",
        "muted": "#9da7b3",
        "link": "#6cb0ff",
        "ok": "#4cc266",
        "ok-soft": "#12281b",
        "bad": "#ff8078",
        "bad-soft": "#32171b",
        "warn": "#e0ab3a",
        "warn-soft": "#2b220f",
        "idle": "#9da7b3",
        "idle-soft": "#222932",
        "cpu": "#58a6ff",
        "memory": "#b58cf7",
        "reference": "#5d6875",
        "batch": "#ff9a56",
    }
)
"""The same on dark."""


@cache
def sheet() -> str:
    """Return the whole style sheet."""
    rules = (resources.files(__package__) / "page.css").read_text("utf-8")
    # Paper is light whatever the reader's screen is.
    return f"{_variables(LIGHT)}\n@media screen and (prefers-color-scheme: dark) {{{_variables(DARK)}}}\n{rules}"


@cache
def policy() -> str:
    """Return what the page may load: nothing but pictures that it holds itself, and `sheet`."""
    digest = base64.b64encode(hashlib.sha256(sheet().encode()).digest()).decode()
    return f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'sha256-{digest}'"


def _variables(colours: Mapping[str, str]) -> str:
    return ":root{" + ";".join(f"--{name}:{colour}" for name, colour in colours.items()) + "}"
