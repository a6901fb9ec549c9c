"""Lineage as a drawing: an SVG that needs no program but a browser, in light and in dark."""

from __future__ import annotations

import html
import itertools
import re
import unicodedata
from typing import TYPE_CHECKING, Final

from ml_pipeline.config._encoding import one_line, rfc3339
from ml_pipeline.config._lineage_geometry import BOX_HEIGHT, BOX_WIDTH, COLUMN_GAP, Geometry, Point, Route, arrange
from ml_pipeline.config._lineage_model import NODE_TYPES, UNKNOWN
from ml_pipeline.config._lineage_view import Arrow, View, arrow_label, detail, heading, summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_pipeline.config._lineage_model import NodeRecord

__all__ = ["to_svg"]

_MARGIN: Final = 32.0
_HEAD: Final = 88.0
_LEGEND_ROW: Final = 28.0
_LEGEND_ITEM: Final = 112.0
_LEAST_WIDTH: Final = 620.0
_PADDING: Final = 18.0
_TOOLTIP_CHARACTERS: Final = 300
_BOLD: Final = 1.1
"""How much wider bold text is."""

_COLOURS: Final = {
    "source": ("#57606a", "#9aa4af"),
    "dataset": ("#0969da", "#58a6ff"),
    "validation": ("#1a7f37", "#3fb950"),
    "features": ("#0b7a8f", "#39c5cf"),
    "model": ("#8250df", "#bc8cff"),
    "deployment": ("#bc4c00", "#ffa657"),
    "batch": ("#9a6700", "#e3b341"),
    "prediction": ("#bf3989", "#f778ba"),
    "unknown": ("#6e7781", "#768390"),
}
"""By type of node: the colour on light paper, and on dark."""

_STYLE: Final = """
text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,"Noto Sans",sans-serif;fill:#1f2328}
.paper{fill:#ffffff}
.title{font-size:18px;font-weight:600}
.note,.detail,.key{font-size:12px}
.type{font-size:10px;font-weight:600;letter-spacing:.08em}
.name{font-size:13px;font-weight:600}
.note,.detail,.label{fill:#59636e}
.label{font-size:11px;text-anchor:middle;paint-order:stroke;stroke:#ffffff;stroke-width:5px;stroke-linejoin:round}
.arrow{fill:none;stroke:#8c959f;stroke-width:1.5}
.head{fill:#8c959f}
.arrow.failed{stroke:#cf222e;stroke-width:1.75;stroke-dasharray:6 4}
.head.failed,.label.failed{fill:#cf222e}
.box{fill-opacity:.07;stroke-width:1.25;stroke-opacity:.55}
"""
_DARK_STYLE: Final = """
text{fill:#e6edf3}
.paper{fill:#0d1117}
.note,.detail,.label{fill:#9198a1}
.label{stroke:#0d1117}
.arrow{stroke:#6e7681}
.head{fill:#6e7681}
.arrow.failed{stroke:#ff7b72}
.head.failed,.label.failed{fill:#ff7b72}
.box{fill-opacity:.13}
"""


def to_svg(shown: View) -> str:
    """Draw a graph from left to right.

    Args:
        shown: What to draw.

    Returns:
        A whole SVG document. Every name in it is escaped; nothing in it is fetched or run.
    """
    number = {node.node_id: index for index, node in enumerate(shown.nodes)}
    ends = [(number[arrow.source_id], number[arrow.target_id]) for arrow in shown.arrows]
    geometry = arrange(len(shown.nodes), ends)
    width = max(geometry.width + 2 * _MARGIN, _LEAST_WIDTH)
    legend, legend_height = _legend(shown, width - 2 * _MARGIN)
    legend_top = _HEAD + geometry.height + _MARGIN
    height = legend_top + legend_height + _MARGIN / 2
    return "\n".join(
        (
            '<svg xmlns="http://www.w3.org/2000/svg" class="lineage" role="img"',
            '  aria-labelledby="lineage-title lineage-summary"',
            f'  width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">',
            '<title id="lineage-title">Data lineage</title>',
            f'<desc id="lineage-summary">{_text(summary(shown))}</desc>',
            f"<style>{_style()}</style>",
            _HEADS,
            '<rect class="paper" width="100%" height="100%"/>',
            f'<text class="title" x="{_MARGIN:.0f}" y="40">Data lineage</text>',
            f'<text class="note" x="{_MARGIN:.0f}" y="62">{_text(summary(shown))}</text>',
            f'<g transform="translate({_MARGIN:.0f} {_HEAD:.0f})">',
            *_graph(shown, ends, geometry),
            "</g>",
            f'<g transform="translate({_MARGIN:.0f} {legend_top:.0f})">',
            *legend,
            "</g>",
            "</svg>\n",
        )
    )


_HEADS: Final = "<defs>{}{}</defs>".format(
    *(
        f'<marker id="lineage-head{name}" viewBox="0 0 8 8" refX="7.5" refY="4" markerWidth="8" markerHeight="8"'
        ' markerUnits="userSpaceOnUse" orient="auto-start-reverse">'
        f'<path class="head{css}" d="M0 0L8 4L0 8z"/></marker>'
        for name, css in (("", ""), ("-failed", " failed"))
    )
)


def _style() -> str:
    """Return the rules for light paper and for dark; none of them reaches a page that the drawing is set into."""
    light, dark = ("\n".join(_rules_of_types(paper)) for paper in (0, 1))
    return f"{_scoped(_STYLE + light)}@media (prefers-color-scheme:dark){{\n{_scoped(_DARK_STYLE + dark)}}}\n"


def _rules_of_types(paper: int) -> list[str]:
    rules = [f".{kind}{{fill:{colours[paper]};stroke:{colours[paper]}}}" for kind, colours in _COLOURS.items()]
    return [*rules, "text.type,.bar{stroke:none}"]


def _scoped(rules: str) -> str:
    lines = (line.partition("{") for line in rules.strip().splitlines())
    return "".join(f"{','.join(f'.lineage {one}' for one in which.split(','))}{{{what}\n" for which, _, what in lines)


def _graph(shown: View, ends: Sequence[tuple[int, int]], geometry: Geometry) -> list[str]:
    arrows = list(zip(shown.arrows, geometry.routes, ends, strict=True))
    drawn = [
        _arrow(arrow, route, geometry.boxes[source], shown.nodes[source], shown.nodes[target])
        for arrow, route, (source, target) in arrows
    ]
    drawn += [_box(node, corner) for node, corner in zip(shown.nodes, geometry.boxes, strict=True)]
    return drawn + [_label(arrow, route) for arrow, route, _ in arrows if route.points]


def _arrow(arrow: Arrow, route: Route, corner: Point, source: NodeRecord, target: NodeRecord) -> str:
    if route.points:
        way = _curve(route.points)
    else:
        way = f"M{corner[0] + BOX_WIDTH - 48:.1f} {corner[1]:.1f}c0 -18 24 -18 24 0"
    failed = arrow.status == "failed"
    head = f'marker-{"start" if route.turned else "end"}="url(#lineage-head{"-failed" if failed else ""})"'
    told = f"{arrow_label(arrow)}: {heading(source)} → {heading(target)}"
    css = "arrow failed" if failed else "arrow"
    return f'<path class="{css}" d="{way}" {head}><title>{_text(told[:_TOOLTIP_CHARACTERS])}</title></path>'


def _curve(points: Sequence[Point]) -> str:
    """Draw a curve through the gaps between columns and a straight line through the columns."""
    way = [f"M{points[0][0]:.1f} {points[0][1]:.1f}"]
    for index, ((x1, y1), (x2, y2)) in enumerate(itertools.pairwise(points)):
        middle = (x1 + x2) / 2
        crosses_gap = index % 2 == 0
        way.append(f"C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} {y2:.1f}" if crosses_gap else f"H{x2:.1f}")
    return "".join(way)


def _label(arrow: Arrow, route: Route) -> str:
    css = "label failed" if arrow.status == "failed" else "label"
    label = _shortened(arrow_label(arrow), COLUMN_GAP - 12, 11)
    return f'<text class="{css}" x="{route.label[0]:.1f}" y="{route.label[1] + 4:.1f}">{_text(label)}</text>'


def _box(node: NodeRecord, corner: Point) -> str:
    kind = node.type if node.type in _COLOURS else UNKNOWN
    name, fact = heading(node), detail(node)
    room = BOX_WIDTH - _PADDING - 8
    lower = 0 if fact else 8
    size = f'width="{BOX_WIDTH:.0f}" height="{BOX_HEIGHT:.0f}"'
    x = f'x="{_PADDING:.0f}"'
    kind_shown = _shortened(node.type.upper(), room, 11 * _BOLD)
    return (
        f'<g class="node" data-id="{_text(node.node_id)}"'
        f' transform="translate({corner[0]:.1f} {corner[1]:.1f})"><title>{_text(_told(node))}</title>'
        f'<rect class="paper" {size} rx="8"/><rect class="box {kind}" {size} rx="8"/>'
        f'<path class="bar {kind}" d="M8 0H5V{BOX_HEIGHT:.0f}H8a8 8 0 0 1 -8 -8V8a8 8 0 0 1 8 -8z"/>'
        f'<text class="type {kind}" {x} y="{18 + lower}">{_text(kind_shown)}</text>'
        f'<text class="name" {x} y="{37 + lower}">{_text(_shortened(name, room, 13 * _BOLD))}</text>'
        f'<text class="detail" {x} y="54">{_text(_shortened(fact, room, 12))}</text></g>'
    )


def _told(node: NodeRecord) -> str:
    """Say in a tooltip what the box has no room for."""
    parts = (f"{node.type} {heading(node)}", node.version, detail(node), node.node_id)
    told = ", ".join(part[:_TOOLTIP_CHARACTERS] for part in parts if part)
    return f"{told}, first recorded {rfc3339(node.first_seen)}"


def _legend(shown: View, room: float) -> tuple[list[str], float]:
    present = {node.type if node.type in _COLOURS else UNKNOWN for node in shown.nodes}
    keys = [
        f'<rect class="box {kind}" y="-10" width="14" height="14" rx="3"/><text class="key" x="22" y="1">{kind}</text>'
        for kind in NODE_TYPES
        if kind in present
    ]
    keys += [
        f'<path class="arrow{css}" d="M0 -3h22" marker-end="url(#lineage-head{head})"/>'
        f'<text class="key" x="30" y="1">{name}</text>'
        for css, head, name in (("", "", "complete"), (" failed", "-failed", "failed"))
    ]
    in_row = max(int(room // _LEGEND_ITEM), 1)
    placed = [
        f'<g transform="translate({column * _LEGEND_ITEM:.0f} {row * _LEGEND_ROW + 10:.0f})">{key}</g>'
        for key, (row, column) in zip(keys, (divmod(index, in_row) for index in range(len(keys))), strict=True)
    ]
    return placed, -(-len(keys) // in_row) * _LEGEND_ROW


def _shortened(text: str, width: float, size: float) -> str:
    """Leave out the middle of a text that is too wide: names differ at their ends as often as at their beginnings."""
    shown = one_line(text[: 4 * _TOOLTIP_CHARACTERS])
    if _width(shown) * size <= width:
        return shown
    front, back = list(shown[: len(shown) // 2]), list(shown[len(shown) // 2 :])
    while front and back and (_width(front) + _width(back) + 1) * size > width:
        if len(front) > len(back):
            front.pop()
        else:
            back.pop(0)
    return "".join((*front, "…", *back))


def _width(text: Sequence[str]) -> float:
    """Estimate the width of a text in ems: that of DejaVu Sans, the widest font that a browser is likely to take."""
    return sum(_character_width(character) for character in text)


def _character_width(character: str) -> float:
    if unicodedata.east_asian_width(character) in "WF":
        return 1.05
    if character in "ijlftrI.,:;'|!()[]/ -·":
        return 0.39
    return 0.95 if character in "mwMW@%—…" else 0.7 if character.isupper() else 0.62


def _text(text: str) -> str:
    """Return a text as it may stand in an element or a quoted attribute."""
    return html.escape(_NOT_IN_XML.sub("\ufffd", one_line(text)))


_NOT_IN_XML: Final = re.compile("[\ud800-\udfff\ufffe\uffff]")
