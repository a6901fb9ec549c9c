"""What drifted: the verdict on each batch, the effect on each feature, and the strongest as pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ml_pipeline.report.charts import round_up, x
from ml_pipeline.report.distributions import distribution_figure
from ml_pipeline.report.icons import pill
from ml_pipeline.report.markup import Html, el
from ml_pipeline.report.tables import Column, table
from ml_pipeline.report.values import NONE, clip, counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_pipeline.report.drift_batches import Batch, Feature

__all__ = ["drift_section"]

_MOST_BATCHES: Final = 50
_MOST_BARS: Final = 15
_MOST_FIGURES: Final = 8
_MOST_CHARACTERS: Final = 80
_SHIFT_OF_GAP: Final = math.sqrt(2 * math.pi)  # of two normal laws, for small shifts
_ANSWERS: Final = {"drift": "drift", "no_drift": "no drift", "insufficient_data": "no verdict"}

_COLUMNS: Final = (
    Column("verdict", "still"),
    Column("batch"),
    Column("rows", "right"),
    Column("why"),
    Column("detectable shift", "right"),
)


@dataclass(frozen=True, slots=True)
class _Moved:
    """One feature over all batches: where it moved furthest, and how far in the others."""

    feature: Feature
    batch: Batch
    others: tuple[float, ...]


def drift_section(batches: Sequence[Batch]) -> Html | None:
    """Show the drift checks of a run; nothing where there were none.

    Args:
        batches: In their order.
    """
    if not batches:
        return None
    moved = _moved(batches)
    figures = [each for each in moved if each.feature.is_drawn][:_MOST_FIGURES]
    drawn = [*_effects(moved, batches), *_figures(figures)]
    if drawn and not any(batch.verdict == "drift" for batch in batches):
        drawn = [el("details", el("summary", "How far each feature moved"), *drawn)]
    header = el("header", el("h2", "Drift"), el("p", _said(batches)))
    return el("section", header, _batches_table(batches), *drawn, class_="card", id="drift")


def _said(batches: Sequence[Batch]) -> str:
    drifted = sum(batch.verdict == "drift" for batch in batches)
    return f"{drifted:,} of {counted(len(batches), 'batch', 'batches')} drifted from the reference"


def _moved(batches: Sequence[Batch]) -> list[_Moved]:
    seen: dict[str, list[tuple[Feature, Batch]]] = {}
    for batch in batches:
        for feature in batch.features:
            seen.setdefault(feature.name, []).append((feature, batch))
    found = []
    for places in seen.values():
        places.sort(key=lambda place: (place[0].verdict != "drift", -place[0].effect))
        others = tuple(feature.effect for feature, _ in places[1:])
        found.append(_Moved(*places[0], others))
    return sorted(found, key=lambda each: (-each.feature.effect, each.feature.name))


def _batches_table(batches: Sequence[Batch]) -> Html:
    drifted_first = sorted(range(len(batches)), key=lambda index: batches[index].verdict != "drift")
    shown = [batches[index] for index in sorted(drifted_first[:_MOST_BATCHES])]
    rows = [
        (
            pill(batch.verdict, _ANSWERS.get(batch.verdict, batch.verdict or "unknown")),
            clip(batch.name, _MOST_CHARACTERS),
            NONE if batch.rows is None else f"{batch.rows:,}",
            batch.reason,
            NONE if batch.detectable_shift is None else f"{batch.detectable_shift:.2f} \N{GREEK SMALL LETTER SIGMA}",
        )
        for batch in shown
    ]
    return table(_COLUMNS, rows, left_out=len(batches) - len(shown))


def _effects(moved: Sequence[_Moved], batches: Sequence[Batch]) -> list[Html]:
    if not moved:
        return []
    shown, rest = moved[:_MOST_BARS], moved[_MOST_BARS:]
    floor, detectable = shown[0].feature.floor, _detectable(batches)
    end = min(round_up(max(shown[0].feature.effect, detectable or 0.0, 2 * floor)), 1.0)
    drawn = [
        _legend(floor, detectable, several=len(batches) > 1),
        el("ul", *(_effect(each, end, detectable) for each in shown), class_="rows"),
    ]
    if rest:
        most = rest[0].feature.effect
        said = f"{counted(len(rest), 'more feature')} with an effect of {most:.3f} or less."
        drawn.append(el("p", said, class_="note"))
    return drawn


def _detectable(batches: Sequence[Batch]) -> float | None:
    """Return the effect of the smallest shift that every batch would have shown, for normal features."""
    shifts = [batch.detectable_shift for batch in batches if batch.detectable_shift is not None]
    return max(shifts) / _SHIFT_OF_GAP if shifts else None


def _legend(floor: float, detectable: float | None, *, several: bool) -> Html:
    block = {"width": 22, "height": 10, "y": 1}
    keys = [
        (el("rect", class_="effect", **block), "largest effect on a feature, 0 to 1"),
        (el("g", el("rect", class_="effect", **block), class_="drifted"), "drift"),
        (el("line", x1=11, x2=11, y1=0, y2=12, class_="floor"), f"floor {floor:g}: less does not matter"),
    ]
    if detectable is not None:
        said = f"{detectable:.2f}: a shift this large would have shown (80 % power)"
        keys.append((el("line", x1=11, x2=11, y1=0, y2=12, class_="detectable"), said))
    if several:
        keys.append((el("line", x1=11, x2=11, y1=1, y2=11, class_="other"), "the other batches"))
    return el("p", *(el("span", _key(drawn), said) for drawn, said in keys), class_="legend")


def _effect(each: _Moved, end: float, detectable: float | None) -> Html:
    feature = each.feature
    marks = [el("line", y1=7, y2=17, class_="other", **_upright(effect / end)) for effect in each.others]
    marks.append(el("line", y1=0, y2=24, class_="floor", **_upright(feature.floor / end)))
    if detectable is not None:
        marks.append(el("line", y1=0, y2=24, class_="detectable", **_upright(detectable / end)))
    bar = el(
        "svg",
        el("rect", x="0", y=5, width="100%", height=14, rx=2, class_="groove"),
        el("rect", x="0", y=5, width=x(feature.effect / end), height=14, rx=2, class_="effect"),
        *marks,
        width="100%",
        height=24,
        class_="track",
        role="img",
        aria_label=f"effect {feature.effect:.3f}, {_ANSWERS.get(feature.verdict, 'unknown')}",
    )
    is_drift = feature.verdict == "drift"
    return el(
        "li",
        el("span", clip(feature.name, _MOST_CHARACTERS), class_="label"),
        bar,
        el("span", f"{feature.effect:.2f}" + (" drift" if is_drift else ""), class_="figure"),
        class_="drifted" if is_drift else None,
    )


def _upright(share: float) -> dict[str, str]:
    return {"x1": x(share), "x2": x(share)}


def _figures(figures: Sequence[_Moved]) -> list[Html]:
    if not figures:
        return []
    legend = (
        el("span", _key(el("rect", width=22, height=10, y=1, class_="ref")), "reference"),
        el("span", _key(el("path", d="M1 11V2h12v5h8v4", class_="new")), "batch"),
    )
    return [
        el("p", *legend, class_="legend"),
        el("div", *(distribution_figure(each.feature, each.batch.name) for each in figures), class_="multiples"),
    ]


def _key(drawn: Html) -> Html:
    return el("svg", drawn, aria_hidden="true")
