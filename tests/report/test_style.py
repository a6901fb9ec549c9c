"""The style sheet: readable in light and dark, and the only one the page's policy allows."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from ml_pipeline.report.style import DARK, LIGHT, policy, sheet

TEXT_ON = [
    ("ink", "page"), ("ink", "card"), ("ink", "soft"), ("muted", "page"), ("muted", "card"), ("muted", "soft"),
    ("link", "page"), ("link", "card"),
    *((tone, ground) for tone in ("ok", "bad", "warn", "idle") for ground in ("card", f"{tone}-soft")),
    *(("ink", f"{tone}-soft") for tone in ("ok", "bad", "warn", "idle")),
    *(("muted", f"{tone}-soft") for tone in ("ok", "bad", "warn", "idle")),
    *(("card", tone) for tone in ("ok", "bad", "warn", "idle")),
]  # fmt: skip
DRAWN_ON_CARD = ("ok", "bad", "warn", "idle", "cpu", "memory", "batch")


def _luminance(colour: str) -> float:
    parts = (int(colour[index : index + 2], 16) / 255 for index in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: str, other: str) -> float:
    """Return the contrast ratio of WCAG 2.2."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast(colours: dict[str, str]) -> None:
    """Texts have a contrast of 4.5 to 1 at least, and drawings of 3 to 1 (WCAG 2.2, AA)."""
    texts = {pair: _contrast(colours[pair[0]], colours[pair[1]]) for pair in TEXT_ON}
    assert {pair: ratio for pair, ratio in texts.items() if ratio < 4.5} == {}
    drawn = {name: _contrast(colours[name], colours["card"]) for name in DRAWN_ON_CARD}
    assert {name: ratio for name, ratio in drawn.items() if ratio < 3} == {}


def test_light_and_dark_have_the_same_colours() -> None:
    """Each name has a colour in both, and the sheet uses no other name."""
    assert LIGHT.keys() == DARK.keys()
    used = set(re.findall(r"var\(--([a-z-]+)", sheet()))
    assert used - set(LIGHT) == {"tone", "tint", "hue"}
    assert set(LIGHT) <= used


def test_the_policy_allows_this_sheet_and_nothing_from_elsewhere() -> None:
    """The sheet by its hash, pictures the page holds itself, and no script at all; the sheet itself fetches nothing."""
    digest = base64.b64encode(hashlib.sha256(sheet().encode()).digest()).decode()
    assert policy().startswith("default-src 'none'; img-src data:;")
    assert f"style-src 'sha256-{digest}'" in policy()
    assert "unsafe" not in policy()
    assert "url(" not in sheet()
    assert "@import" not in sheet()
