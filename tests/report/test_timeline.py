"""The timeline: whole while a run is small, bounded however large it gets, and never without what went wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.report.charts import ticks
from ml_pipeline.report.run import Run
from ml_pipeline.report.timeline import MOST_ROWS, rows, timeline_section
from ml_pipeline.report.values import NONE
from tests.report.runs import failed_run, fine_run, operation
from tests.report.strict_html import Page

TIMES = "\N{MULTIPLICATION SIGN}"


def _read(run: Run) -> Page:
    page = Page()
    page.feed(str(timeline_section(run)))
    assert page.open == []
    return page


def test_a_small_run_is_drawn_whole() -> None:
    """Each operation has a row, below the one around it, with its status as a word, what it did and how long it took."""
    drawn = rows(Run(fine_run()))
    assert [(row.name, row.depth) for row in drawn] == [
        ("pipeline_run", 0),
        ("data_ingestion", 1),
        ("data_validation", 1),
        ("model_training", 1),
        ("prediction", 1),
    ]
    text = _read(Run(fine_run())).text
    assert "model_training , ok 569 records 1 s" in text
    assert "5 operations" in text


def test_an_error_is_told_where_it_arose() -> None:
    """Not again by the operation around it, which failed of it."""
    assert _read(Run(failed_run())).text.count("TimeoutError: the store did not answer") == 1


def test_many_of_one_name_share_a_row() -> None:
    """More than five siblings of a name become one row that says how many, how they went and how long they took."""
    many = [operation(number, "prediction", start=number / 100, seconds=0.01) for number in range(1, 101)]
    run = Run(fine_run(operations=[operation(0, "pipeline_run", parent=None, seconds=2), *many]))
    assert [row.name for row in rows(run)] == ["pipeline_run", f"prediction {TIMES}100"]
    text = _read(run).text
    assert "100 ok; median 10 ms, longest 10 ms" in text
    assert "101 operations, in 2 rows: those of one name drawn together" in text


def test_what_went_wrong_keeps_a_row_of_its_own() -> None:
    """Up to three a name; the rest are in the common row, which then shows the worst status."""
    many = [
        operation(number, "prediction", status="failed" if number % 20 == 0 else "ok", start=number / 100)
        for number in range(1, 101)
    ]
    drawn = rows(Run(fine_run(operations=[operation(0, "pipeline_run", parent=None), *many])))
    assert [row.name for row in drawn] == ["pipeline_run", f"prediction {TIMES}97", *["prediction"] * 3]
    assert [row.status for row in drawn] == ["ok", "failed", *["failed"] * 3]


def test_names_past_the_bound_are_drawn_together() -> None:
    """A thousand names: as many rows as there are at most, failures among them, and nothing left out."""
    many = [
        operation(number, f"step_{number}", status="failed" if number == 777 else "ok", seconds=number)
        for number in range(1, 1_001)
    ]
    run = Run(fine_run(operations=[operation(0, "pipeline_run", parent=None), *many]))
    drawn = rows(run)
    assert len(drawn) == MOST_ROWS
    assert "step_777" in {row.name for row in drawn}
    assert any(row.name == "942 other names" for row in drawn)
    assert sum(len(row.operations) for row in drawn) == 1_001


def test_inner_operations_without_room_are_counted() -> None:
    """Outer rows come first; what is inside them and not drawn is said, and so is what the recorder left out."""
    outer = [operation(number, f"outer_{number}") for number in range(1, 60)]
    inner = [operation(100 + number, "inner", parent=number) for number in range(1, 60)]
    run = Run(fine_run(operations=[operation(0, "run", parent=None), *outer, *inner], operations_left_out=7))
    assert len(rows(run)) == MOST_ROWS
    assert "59 inside them not drawn, 7 more were only counted" in _read(run).text


def test_ten_thousand_operations_are_a_bounded_drawing() -> None:
    """Neither rows nor bars grow with the number of operations."""
    many = [
        operation(number, f"name_{number % 7}", parent=(number - 1) // 10, start=number / 10, seconds=0.01)
        for number in range(1, 10_000)
    ]
    drawn = str(timeline_section(Run(fine_run(operations=[operation(0, "run", parent=None, seconds=1_000), *many]))))
    assert len(drawn) < 300_000


def test_operations_inside_each_other_without_end_are_bounded() -> None:
    """A chain of ten thousand, each inside the one before, is drawn to its bound."""
    chain = [operation(number, f"n{number}", parent=number - 1) for number in range(1, 10_000)]
    assert len(rows(Run(fine_run(operations=[operation(0, "run", parent=None), *chain])))) == MOST_ROWS


def test_operations_around_each_other_end() -> None:
    """Operations that name each other as the one around them are counted and not followed for ever."""
    circle = [operation(1, "a", parent=2), operation(2, "b", parent=1), operation(3, "c", parent=3)]
    run = Run(fine_run(operations=[operation(0, "run", parent=None), *circle]))
    assert [row.name for row in rows(run)] == ["run"]
    assert "3 inside them not drawn" in _read(run).text


def test_an_open_operation_reaches_to_the_end() -> None:
    """Its end was not seen, so it has no duration."""
    run = Run(fine_run(operations=[operation(0, "run", parent=None, seconds=4.0), operation(1, "step", status="open")]))
    assert f"step , open 569 records {NONE}" in _read(run).text
    assert '<rect x="0%" y="7" width="100%" height="10" class="bar"/>' in str(timeline_section(run))


def test_a_run_without_operations_has_no_timeline() -> None:
    """The section is then left out."""
    assert timeline_section(Run({})) is None


@given(st.floats(min_value=1e-3, max_value=1e9))
def test_ticks_are_round_few_and_in_range(end: float) -> None:
    """From 0, at most seven, evenly spaced, and more than one unless the axis is a single step."""
    moments = ticks(end)
    assert moments[0] == 0
    assert 2 <= len(moments) <= 7
    assert moments[-1] <= end * (1 + 1e-9)


@pytest.mark.parametrize(
    ("end", "step"), [(0.07, 0.02), (5.09, 1.0), (59.0, 10.0), (500.0, 120), (7_200.0, 1_200), (1e6, 172_800.0)]
)
def test_ticks_are_where_people_expect_them(end: float, step: float) -> None:
    """1, 2 and 5 below a minute; then minutes, hours and days."""
    assert ticks(end)[1] == pytest.approx(step)
