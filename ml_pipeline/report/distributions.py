"""A feature's distribution in the reference and in a batch, as a small picture."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from ml_pipeline.report.charts import curves, steps_path, x
from ml_pipeline.report.markup import Html, el
from ml_pipeline.report.values import clip, percent, probability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_pipeline.report.drift_batches import Feature

__all__ = ["distribution_figure", "rebinned"]

_BINS: Final = 22
_END_WIDTH: Final = 1.5  # of an end bar, in bins
_GAP: Final = 0.6
_WHISKER: Final = 3.0
_LEVELS: Final = 6
_BESIDE_BINS: Final = 4
_MOST_CHARACTERS: Final = 60


def distribution_figure(feature: Feature, batch_name: str) -> Html:
    """Draw both distributions of a feature over the same axis.

    Args:
        feature: With its distributions.
        batch_name: The batch they are of.
    """
    is_numeric = len(feature.edges) > 1 and len(feature.labels) == len(feature.edges) - 1 + _BESIDE_BINS
    said = [f"effect {feature.effect:.2f}"]
    if feature.p_adjusted is not None:
        said.append(probability(feature.p_adjusted))
    said.append(clip(batch_name, _MOST_CHARACTERS))
    return el(
        "figure",
        el("figcaption", el("h3", clip(feature.name, _MOST_CHARACTERS)), el("p", " · ".join(said), class_="note")),
        _histogram(feature) if is_numeric else _levels(feature),
        _nulls(feature),
        class_="drifted" if feature.verdict == "drift" else None,
    )


def rebinned(
    edges: Sequence[float], shares: Sequence[float], low: float, high: float, bins: int = _BINS
) -> list[float]:
    """Spread quantile bins, which all look alike, over bins of one width, which show a shape.

    Args:
        edges: Ends of the bins, ascending, shape (k + 1,).
        shares: Share of the rows in each, shape (k,); taken as spread evenly inside a bin.
        low: Left end of the new bins.
        high: Right end, above *low*.
        bins: How many new ones.

    Returns:
        Shares: below *low*, in each new bin, above *high*; shape (bins + 2,), with the sum of *shares*.
    """
    width = (high - low) / bins
    limits = [low + width * index for index in range(bins)] + [high]
    spread = [0.0] * (bins + 2)
    for (left, right), share in zip(pairwise(edges), shares, strict=True):
        first, last = _slot(left, low, width, bins), _slot(right, low, width, bins)
        if first == last or right <= left:
            spread[last if right <= left else first] += share
            continue
        for slot in range(first, last + 1):
            begin = left if slot == first else limits[slot - 1]
            end = right if slot == last else limits[slot]
            spread[slot] += share * max(end - begin, 0.0) / (right - left)
    return spread


def _slot(value: float, low: float, width: float, bins: int) -> int:
    """Return 0 below the new bins, 1 to *bins* inside, *bins* + 1 above; the right end is inside."""
    if value < low:
        return 0
    inside = int((value - low) / width) + 1
    return inside if inside <= bins else bins + (value > low + width * bins * (1 + 1e-12))


def _histogram(feature: Feature) -> Html:
    low, high = _view(feature.edges)
    both = [_slots(feature.edges, shares, low, high) for shares in (feature.reference, feature.batch)]
    most = max(*both[0], *both[1], 1e-9)
    edges, gaps = _positions()
    reference, batch = ([share / most for share in slots] for slots in both)
    drawn = [el("path", d=path, class_="ref") for path in _parts(edges, reference, gaps)] + [
        el("path", d=path, class_="new") for path in _parts(edges, batch, gaps)
    ]
    told = (
        f"{feature.name}: below {low:.4g}: reference {percent(both[0][0])}, batch {percent(both[1][0])}; "
        f"above {high:.4g}: reference {percent(both[0][-1])}, batch {percent(both[1][-1])}"
    )
    return el(
        "div",
        el(
            "svg",
            curves(*drawn, el("line", x1=0, x2=1000, y1=100, y2=100, class_="base")),
            width="100%",
            height=92,
            role="img",
            aria_label=told,
        ),
        el(
            "div",
            el("span", f"< {low:.3g}"),
            el("span", f"{(low + high) / 2:.3g}"),
            el("span", f"> {high:.3g}"),
            class_="ends",
        ),
    )


def _view(edges: Sequence[float]) -> tuple[float, float]:
    """Leave a long tail out of the picture, where a few rows would take most of the room."""
    lower, upper = edges[len(edges) // 4], edges[-1 - len(edges) // 4]
    reach = _WHISKER * (upper - lower)
    low, high = (max(edges[0], lower - reach), min(edges[-1], upper + reach)) if reach > 0 else (edges[0], edges[-1])
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _slots(edges: Sequence[float], shares: Sequence[float], low: float, high: float) -> list[float]:
    slots = rebinned(edges, shares[3:-1], low, high)
    slots[0] += shares[2]
    slots[-1] += shares[-1]
    return slots


def _positions() -> tuple[list[float], tuple[int, int]]:
    """Place the slots: an end bar, a gap, the bins, a gap, an end bar."""
    whole = 2 * (_END_WIDTH + _GAP) + _BINS
    first = _END_WIDTH + _GAP
    edges = [0.0, _END_WIDTH, *(first + index for index in range(_BINS + 1)), whole - _END_WIDTH, whole]
    return [edge / whole for edge in edges], (1, len(edges) - 3)


def _parts(edges: Sequence[float], heights: Sequence[float], gaps: tuple[int, int]) -> list[str]:
    left, right = gaps
    parts = (
        (edges[: left + 1], heights[:1]),
        (edges[left + 1 : right + 1], heights[1:-1]),
        (edges[right + 1 :], heights[-1:]),
    )
    return [_outline(part_edges, part) for part_edges, part in parts if any(part)]


def _outline(edges: Sequence[float], heights: Sequence[float]) -> str:
    """Draw steps that begin and end on the floor."""
    return steps_path([edges[0], *edges, edges[-1]], [0.0, *heights, 0.0])


def _levels(feature: Feature) -> Html:
    cells = list(zip(feature.labels, feature.reference, feature.batch, strict=True))[2:]
    cells.sort(key=lambda cell: -max(cell[1:]))
    shown = [cell for cell in cells[:_LEVELS] if max(cell[1:])]
    rest = cells[_LEVELS:]
    if any(max(cell[1:]) for cell in rest):
        shown.append((f"{len(rest):,} more", sum(cell[1] for cell in rest), sum(cell[2] for cell in rest)))
    most = max((share for cell in shown for share in cell[1:]), default=1.0) or 1.0
    return el("ul", *(_level(*cell, most) for cell in shown), class_="levels")


def _level(label: str, reference: float, batch: float, most: float) -> Html:
    return el(
        "li",
        el("span", clip(label, 40)),
        el(
            "svg",
            el("rect", x="0", y=5, width=x(reference / most), height=7, class_="ref"),
            el("rect", x="0", y=13, width=x(batch / most), height=5, class_="new solid"),
            width="100%",
            height=23,
            role="img",
            aria_label=f"reference {percent(reference)}, batch {percent(batch)}",
        ),
        el("span", percent(batch), class_="figure"),
    )


def _nulls(feature: Feature) -> Html | None:
    said = [
        f"{what} {percent(feature.reference[cell])} → {percent(feature.batch[cell])}"
        for cell, what in enumerate(("null", "infinite"))
        if len(feature.labels) > cell and (feature.reference[cell] or feature.batch[cell])
    ]
    return el("p", ", ".join(said), class_="note") if said else None
