"""Dashboards as values: which differences count, and the address of the runbooks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.config._grafana_boards import as_file, chosen, difference, is_same, read_dashboards, with_runbooks
from ml_pipeline.errors import DashboardError

PANEL: dict[str, Any] = {"id": 1, "type": "stat", "fieldConfig": {"defaults": {"min": 0}}, "targets": [{"expr": "up"}]}
BOARD: dict[str, Any] = {"uid": "ml-a", "title": "A", "tags": ["ml-pipeline"], "panels": [PANEL]}


@pytest.mark.parametrize(
    "added",
    [
        {"id": 5, "version": 9, "iteration": 1},
        {"schemaVersion": 42},
        {"links": [], "refresh": "", "timepicker": {}, "gnetId": None, "fiscalYearStartMonth": 0, "graphTooltip": 0},
        {"annotations": {"list": [{"builtIn": 1, "name": "Annotations & Alerts"}]}},
        {"panels": [{**PANEL, "pluginVersion": "13.2.3", "description": "", "transparent": None}]},
    ],
)
def test_what_grafana_adds_is_no_difference(added: dict[str, Any]) -> None:
    """Its bookkeeping, and empty values and defaults written out."""
    assert is_same(BOARD, {**BOARD, **added})
    assert difference(BOARD, {**BOARD, **added}) == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"title": "B"},
        {"graphTooltip": 1},
        {"editable": False},
        {"tags": ["ml-pipeline", "mine"]},
        {"annotations": {"list": [{"name": "Releases"}]}},
        {"panels": [{**PANEL, "fieldConfig": {"defaults": {}}}]},
        {"panels": [{**PANEL, "transparent": False}]},
        {"panels": [{**PANEL, "targets": [{"expr": "down"}]}]},
        {"panels": [PANEL, {**PANEL, "id": 2}]},
    ],
)
def test_what_a_person_changes_is_a_difference(changed: dict[str, Any]) -> None:
    """Zero and false are values, not empty."""
    assert not is_same(BOARD, {**BOARD, **changed})
    assert difference(BOARD, {**BOARD, **changed}).startswith("--- ml-a in the file\n+++ ml-a in Grafana\n@@")


def test_an_exported_file_is_sorted_and_without_bookkeeping() -> None:
    """So that two of them can be compared."""
    text = as_file({"version": 3, "uid": "a", "title": "Ü", "id": 1}).decode()
    assert text == '{\n  "title": "Ü",\n  "uid": "a"\n}\n'


def test_the_address_of_the_runbooks_is_replaced_in_a_copy() -> None:
    """In the constant's query, its current value and its options; other variables and the given board stay."""
    constant = {"name": "runbooks", "query": "old", "current": {"text": "old", "value": "old"}, "options": [{"text": "old", "value": "old", "selected": True}]}  # fmt: skip
    board = {**BOARD, "templating": {"list": [{"name": "pipeline", "query": "q"}, constant]}}
    before = json.dumps(board)
    changed = with_runbooks(board, "https://wiki.example.org/runbooks/")
    new = "https://wiki.example.org/runbooks"
    assert changed["templating"]["list"] == [
        {"name": "pipeline", "query": "q"},
        {
            "name": "runbooks",
            "query": new,
            "current": {"text": new, "value": new},
            "options": [{"text": new, "value": new, "selected": True}],
        },
    ]
    assert json.dumps(board) == before
    assert with_runbooks(board, None) == board
    assert with_runbooks(BOARD, new) == BOARD
    bare = with_runbooks({"templating": {"list": [{"name": "runbooks"}]}}, new)
    assert bare["templating"]["list"] == [{"name": "runbooks", "query": new}]


def test_boards_are_picked_in_the_order_of_the_file() -> None:
    """None named means all; one that is not there is an error with the likely name."""
    every = [{"uid": "ml-overview"}, {"uid": "ml-drift"}]
    assert chosen(every, []) == every
    assert chosen(every, ["ml-drift", "ml-overview"]) == every
    with pytest.raises(DashboardError) as error:
        chosen(every, ["ml-drfit"])
    assert str(error.value) == "--only must name a dashboard of the file (got 'ml-drfit'); did you mean 'ml-drift'?"


FORM = "a file of dashboards must be JSON of the form {\"dashboards\": [...]} (got 'boards.json'); mend it ("


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "a file of dashboards must exist (got 'boards.json'); name one with --file"),
        ("[]", FORM),
        ("{", FORM),
        ("\udcff", FORM),
        ('{"dashboards": {}}', FORM + "it holds no list of dashboards)"),
        ('{"dashboards": []}', FORM + "it holds no list of dashboards)"),
        ('{"dashboards": [3]}', "every dashboard must have a uid and a title (got 'dashboard 1'); mend boards.json"),
        (
            '{"dashboards": [{"uid": "a"}]}',
            "every dashboard must have a uid and a title (got 'dashboard 1'); mend boards.json",
        ),
        (
            '{"dashboards": [{"uid": "../a", "title": "A"}]}',
            "a dashboard's uid must be 1 to 40 letters, digits, - and _ (got '../a'); mend boards.json",
        ),
        (
            '{"dashboards": [{"uid": "a", "title": "A"}, {"uid": "a", "title": "B"}]}',
            "every dashboard must have a uid of its own (got 'a'); mend boards.json",
        ),
    ],
)
def test_a_broken_file_is_one_clear_error(content: str | None, message: str) -> None:
    """The error names the rule, the file and the remedy."""
    path = Path("boards.json")
    if content is not None:
        path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DashboardError) as error:
        read_dashboards(path)
    assert str(error.value).startswith(message)


def test_the_boards_are_returned_in_their_order() -> None:
    """As the file has them."""
    boards = [{"uid": "ml-b", "title": "B"}, {"uid": "ml-a", "title": "A", "panels": []}]
    Path("boards.json").write_text(json.dumps({"dashboards": boards}))
    assert read_dashboards(Path("boards.json")) == boards
