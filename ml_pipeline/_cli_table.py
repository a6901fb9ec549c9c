"""Tables of the command line: for a terminal, and for ``grep``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["show_table"]

_WIDEST: Final = 10_000


def show_table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """Print a table.

    Args:
        columns: Its heads; one that is ``id`` is neither cut nor wrapped, for an id that was cannot be pasted.
        rows: Its cells; texts from anywhere.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ml_pipeline.config._encoding import one_line

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    # Piped to a file or to grep, a row must stay a line, however wide.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDEST)
    console.print(table)
