"""What is done to Grafana: idempotent, never over a version that was not read, and each refusal in plain words."""

from __future__ import annotations

from typing import Any

import pytest

from ml_pipeline.config._grafana_client import GrafanaClient
from ml_pipeline.config._grafana_steps import SetupResult, Steps
from ml_pipeline.errors import DashboardError
from tests.config.grafana_fake import FOLDER, GrafanaFake

BOARD: dict[str, Any] = {"uid": "ml-a", "title": "A", "tags": ["ml-pipeline"], "panels": [{"id": 1, "title": "p"}]}
HISTORY = "its previous version {} stays in Grafana's version history"


@pytest.fixture
def grafana(grafana: GrafanaFake) -> GrafanaFake:
    """A running Grafana that has our folder."""
    grafana.folders["ml-pipeline"] = dict(FOLDER)
    return grafana


def board(action: str, note: str = "") -> SetupResult:
    """The result of our board."""
    return SetupResult("dashboard", "ml-a", "A", action, note)


# folder


def test_the_folder_is_made_once(steps: Steps, dry: Steps, grafana: GrafanaFake) -> None:
    """A dry run makes none; a title that was changed in Grafana stays."""
    grafana.folders.clear()
    assert dry.folder().action == "would create"
    assert grafana.writes() == []
    assert steps.folder() == SetupResult("folder", "ml-pipeline", "ML Pipeline", "created")
    grafana.folders["ml-pipeline"]["title"] = "Ours"
    assert steps.folder() == SetupResult("folder", "ml-pipeline", "Ours", "unchanged")
    assert len(grafana.writes()) == 1


def test_a_folder_that_somebody_else_makes_meanwhile_is_fine(steps: Steps, grafana: GrafanaFake) -> None:
    """Two that start together both succeed."""
    grafana.folders.clear()
    grafana.meanwhile("POST", "/api/folders", lambda: grafana.folders.update({"ml-pipeline": dict(FOLDER)}))
    assert steps.folder().action == "created"


@pytest.mark.parametrize(
    ("method", "status", "body", "message"),
    [
        (
            "POST",
            412,
            "a folder with that name already exists",
            (
                "the folder ML Pipeline must have the uid ml-pipeline (got '412 a folder with that name already exists'); "
                "rename the other folder of that title in Grafana"
            ),
        ),
        (
            "POST",
            403,
            "no",
            (
                "the folder ML Pipeline must be permitted (got '403 no'); "
                "give the user or token the role Admin (Editor is enough for dashboards alone)"
            ),
        ),
        (
            "GET",
            500,
            "database is locked",
            "Grafana refused the folder ML Pipeline (got '500 database is locked'); mend that and run this again",
        ),
    ],
)
def test_a_folder_refused(  # noqa: PLR0917 - the fault's three parts, and what runs into it
    method: str, status: int, body: str, message: str, steps: Steps, grafana: GrafanaFake
) -> None:
    """Each in one line with the remedy."""
    grafana.folders.clear()
    grafana.fail(method, "/api/folders", status, {"message": body})
    with pytest.raises(DashboardError) as error:
        steps.folder()
    assert str(error.value) == message


# dashboards


def test_a_board_is_made_and_then_left_alone(steps: Steps, dry: Steps, grafana: GrafanaFake) -> None:
    """Grafana's own additions are no difference."""
    assert dry.board(BOARD) == board("would create")
    assert grafana.writes() == []
    assert steps.board(BOARD) == board("created")
    assert steps.board(BOARD) == board("unchanged")
    assert grafana.boards["ml-a"]["meta"]["folderUid"] == "ml-pipeline"
    assert grafana.messages == ["setup_dashboards.py"]


def test_a_board_changed_in_grafana_is_put_back(steps: Steps, dry: Steps, grafana: GrafanaFake) -> None:
    """And where its previous version is, is said."""
    steps.board(BOARD)
    grafana.put_board("ml-a", **{**BOARD, "panels": []})
    assert dry.board(BOARD) == board("would update", HISTORY.format(2))
    assert steps.board(BOARD) == board("updated", HISTORY.format(2))
    assert grafana.boards["ml-a"]["dashboard"]["panels"] == BOARD["panels"]
    assert steps.board(BOARD) == board("unchanged")


def test_a_board_in_another_folder_is_moved(steps: Steps, grafana: GrafanaFake) -> None:
    """Its content is the same, its place is not."""
    grafana.put_board("ml-a", folder="elsewhere", **BOARD)
    grafana.boards["ml-a"]["meta"]["folderTitle"] = "Elsewhere"
    assert steps.board(BOARD) == board("updated", f"moved from the folder Elsewhere; {HISTORY.format(1)}")
    assert steps.board(BOARD).action == "unchanged"


def test_a_board_saved_meanwhile_is_read_again_once(steps: Steps, grafana: GrafanaFake) -> None:
    """What the other person saved stays in the history; a second time is an error, and running it again mends it."""
    grafana.put_board("ml-a", panels=[])
    grafana.meanwhile("POST", "/api/dashboards/db", lambda: grafana.put_board("ml-a", title="mine"))
    assert steps.board(BOARD) == board("updated", HISTORY.format(2))
    grafana.put_board("ml-a", panels=[])
    grafana.meanwhile("POST", "/api/dashboards/db", lambda: grafana.put_board("ml-a", title="mine"), times=2)
    with pytest.raises(DashboardError) as error:
        steps.board(BOARD)
    assert str(error.value) == (
        "nobody must save the dashboard A while it is replaced "
        "(got '412 The dashboard has been changed by someone else'); run this again"
    )
    assert steps.board(BOARD).action == "updated"


def test_somebody_else_putting_the_same_board_meanwhile_is_fine(steps: Steps, grafana: GrafanaFake) -> None:
    """Two that start together both succeed."""
    grafana.meanwhile("POST", "/api/dashboards/db", lambda: grafana.put_board("ml-a", **BOARD))
    assert steps.board(BOARD) == board("unchanged")


def test_a_provisioned_board_that_is_the_same_is_kept(steps: Steps, grafana: GrafanaFake) -> None:
    """There is nothing to do."""
    grafana.put_board("ml-a", provisioned=True, **BOARD)
    assert steps.board(BOARD) == board("kept (provisioned)")


PROVISIONED = (
    "a dashboard that Grafana loads from a file of its own cannot be replaced (got 'A'); "
    "take it out of Grafana's provisioning folder, or leave it out with --only"
)


@pytest.mark.parametrize("is_dry", [True, False])
def test_a_provisioned_board_that_differs_is_an_error(
    is_dry: bool, client: GrafanaClient, grafana: GrafanaFake
) -> None:
    """Named, with the remedy, before anything is sent."""
    grafana.put_board("ml-a", provisioned=True)
    with pytest.raises(DashboardError) as error:
        Steps(client, dry_run=is_dry).board(BOARD)
    assert str(error.value) == PROVISIONED
    assert grafana.writes() == []


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (400, {"message": "Cannot save provisioned dashboard"}, PROVISIONED),
        (
            412,
            {"message": "A dashboard with the same name exists", "status": "name-exists"},
            (
                "the title A must be free in the folder ML Pipeline "
                "(got '412 A dashboard with the same name exists'); rename the other dashboard in Grafana"
            ),
        ),
        (
            404,
            {"message": "Not found"},
            (
                "Grafana must know the route /api/dashboards/db, as versions 10 to 13 do (got '404 Not found'); "
                "use one of them"
            ),
        ),
        (
            404,
            {"message": "Folder not found"},
            "Grafana refused saving the dashboard A (got '404 Folder not found'); mend that and run this again",
        ),
        (
            403,
            {"message": "Access denied to save dashboard"},
            (
                "saving the dashboard A must be permitted (got '403 Access denied to save dashboard'); "
                "give the user or token the role Admin (Editor is enough for dashboards alone)"
            ),
        ),
        (
            502,
            "<html><title>Bad gateway</title>message</html>",
            (
                "Grafana refused saving the dashboard A (got '502 a page (application/json) Bad gateway'); "
                "mend that and run this again"
            ),
        ),
    ],
)
def test_a_board_refused(status: int, body: Any, message: str, steps: Steps, grafana: GrafanaFake) -> None:
    """Each in one line with the remedy."""
    grafana.fail("POST", "/api/dashboards/db", status, body)
    with pytest.raises(DashboardError) as error:
        steps.board(BOARD)
    assert str(error.value) == message


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (
            406,
            {"message": "dashboard api version not supported"},
            (
                "the dashboard ml-a must be of the classic schema (got '406 dashboard api version not supported'); "
                "it was saved in Grafana's new one: restore an older version there, or delete it, and run this again"
            ),
        ),
        (
            500,
            {"message": "oops"},
            "Grafana refused reading the dashboard ml-a (got '500 oops'); mend that and run this again",
        ),
        (200, [], "Grafana refused reading the dashboard ml-a (got '200'); mend that and run this again"),
    ],
)
def test_a_board_that_cannot_be_read(status: int, body: Any, message: str, steps: Steps, grafana: GrafanaFake) -> None:
    """It is not written then."""
    grafana.fail("GET", "/api/dashboards/uid", status, body)
    with pytest.raises(DashboardError) as error:
        steps.board(BOARD)
    assert str(error.value) == message
    assert grafana.writes() == []


# what is left over


def test_only_our_own_boards_are_left_over(steps: Steps, grafana: GrafanaFake) -> None:
    """In our folder, with our tag, not in the file."""
    grafana.put_board("ml-a")
    grafana.put_board("old", title="Old")
    grafana.put_board("theirs", folder="elsewhere")
    grafana.put_board("untagged", tags=[])
    assert list(steps.left_over({"ml-a"})) == [("old", "Old")]
    assert steps.delete("theirs", "x") is None
    assert steps.delete("untagged", "x") is None
    assert steps.delete("gone", "x") is None
    assert grafana.writes() == []


def test_a_left_over_board_is_deleted(steps: Steps, dry: Steps, grafana: GrafanaFake) -> None:
    """Not in a dry run, and not one from a file of Grafana's own."""
    grafana.put_board("old")
    assert dry.delete("old", "Old") == SetupResult("dashboard", "old", "Old", "would delete", "not in the file")
    assert "old" in grafana.boards
    assert steps.delete("old", "Old") == SetupResult("dashboard", "old", "Old", "deleted", "not in the file")
    assert grafana.boards == {}
    grafana.put_board("old", provisioned=True)
    assert steps.delete("old", "Old") == SetupResult("dashboard", "old", "Old", "kept (provisioned)")


def test_a_search_or_a_deletion_refused(steps: Steps, grafana: GrafanaFake) -> None:
    """Said; a board that is gone already is no error."""
    grafana.put_board("old")
    grafana.fail("DELETE", "/api/dashboards", 400, {"message": "no"}, times=1)
    with pytest.raises(DashboardError) as error:
        steps.delete("old", "Old")
    assert str(error.value) == (
        "Grafana refused deleting the dashboard Old (got '400 no'); mend that and run this again"
    )
    grafana.fail("DELETE", "/api/dashboards", 404, {"message": "gone"}, times=1)
    assert steps.delete("old", "Old") is not None
    grafana.fail("GET", "/api/search", 500, {"message": "no"})
    with pytest.raises(DashboardError, match="Grafana refused searching the dashboards"):
        list(steps.left_over(set()))
