"""A table that becomes a list of cards where the screen is narrow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_pipeline.report.markup import Html, el, join

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Column", "table"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        label: Its head.
        css: The class of its cells; empty for none.
    """

    label: str
    css: str = ""


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, left_out: int = 0) -> Html:
    """Build a table.

    Args:
        columns: From left to right.
        rows: Their cells; texts are escaped.
        left_out: How many rows there are beyond these, which is said below.
    """
    head = el("tr", *(el("th", column.label, scope="col", class_=column.css or None) for column in columns))
    body = (
        el(
            "tr",
            *(
                el("td", el("span", cell), data_label=column.label, class_=column.css or None)
                for column, cell in zip(columns, row, strict=True)
            ),
        )
        for row in rows
    )
    drawn = el("table", el("thead", head), el("tbody", *body))
    return join((drawn, el("p", f"{left_out:,} more are not shown.", class_="note") if left_out else None))
