"""Counts that hot paths keep: one cell counts for several keys, and each key is the sum of its cells."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline._tally import Cells

KEYS = st.sampled_from([("a", "INFO"), ("a", "ERROR"), ("errors", "ERROR"), ("b", "INFO")])
GROUPS = st.lists(KEYS, min_size=1, max_size=3, unique=True).map(tuple)


@given(st.lists(st.tuples(GROUPS, st.integers(1, 5)), max_size=20))
def test_a_key_counts_what_all_of_its_cells_do(added: list[tuple[tuple[tuple[str, str], ...], int]]) -> None:
    """In whatever order the cells are asked for; the same keys have the same cell."""
    cells, wanted = Cells(), Counter[tuple[str, str]]()
    for keys, count in added:
        cells.cell(*keys)[0] += count
        for key in keys:
            wanted[key] += count
            cells[key] += 1
            wanted[key] += 1
        assert cells.cell(*keys) is cells.cell(*keys)
    assert dict(cells) == wanted


def test_what_was_cleared_counts_from_nothing() -> None:
    """A cell that somebody still holds counts for nobody any more."""
    cells = Cells()
    old = cells.cell(("a", "ERROR"), ("errors", "ERROR"))
    old[0] += 1
    cells.clear()
    assert dict(cells) == {}
    old[0] += 1
    cells.cell(("a", "ERROR"), ("errors", "ERROR"))[0] += 1
    assert dict(cells) == {("a", "ERROR"): 1, ("errors", "ERROR"): 1}
    del cells["a", "ERROR"]
    cells.cell(("a", "ERROR"), ("errors", "ERROR"))[0] += 1
    assert dict(cells) == {("a", "ERROR"): 1, ("errors", "ERROR"): 2}
