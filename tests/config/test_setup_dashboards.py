"""The dashboards script and module against a Grafana: what it does, says, and returns."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.config.setup_dashboards import (
    GrafanaAccess,
    SetupResult,
    export_dashboards,
    main,
    read_dashboards,
    setup_dashboards,
)
from ml_pipeline.errors import DashboardError, SettingsError
from tests.config.grafana_fake import PASSWORD, TOKEN, GrafanaFake
from tests.support import ROOT, free_port

SCRIPT = ROOT / "ml_pipeline" / "config" / "setup_dashboards.py"
BOARDS: list[dict[str, Any]] = [
    {
        "uid": "ml-a",
        "title": "Board A",
        "tags": ["ml-pipeline"],
        "templating": {"list": [{"name": "runbooks", "type": "constant", "query": "http://127.0.0.1:9090/consoles"}]},
    },
    {"uid": "ml-b", "title": "Board B", "tags": ["ml-pipeline"], "panels": [{"id": 1, "type": "stat"}]},
]

CREATED = """\
folder       ml-pipeline    created            ML Pipeline
data source  prometheus     created            Prometheus
data source  loki           created            Loki
data source  alertmanager   created            Alertmanager
dashboard    ml-a           created            Board A
dashboard    ml-b           created            Board B
"""

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(grafana: GrafanaFake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line with the address and the password given: exit code, stdout, stderr."""
    monkeypatch.delenv("RUNBOOKS_URL", raising=False)
    Path("boards.json").write_text(json.dumps({"dashboards": BOARDS}))
    Path("password").write_text(f"{PASSWORD}\n")

    def call(*arguments: str, url: str = "") -> tuple[int, str, str]:
        given = ["--url", url or grafana.url, "--password-file", "password", "--file", "boards.json", "--wait", "0"]
        code = main([*given, *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return call


def test_help_works_as_a_script(isolated: Path) -> None:
    """`python setup_dashboards.py --help` answers from any folder, and no option takes a secret."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--help"],
        capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "120"},
    )  # fmt: skip
    assert done.returncode == 0
    options = {word for word in done.stdout.split() if word.startswith("--")}
    assert options >= {
        "--url", "--user", "--password-file", "--token-file", "--file", "--only", "--dry-run", "--export", "--prune",
        "--wait", "--prometheus-url", "--loki-url", "--alertmanager-url",
    }  # fmt: skip
    assert not options & {"--password", "--token"}


def test_without_arguments_it_finds_the_stack_of_its_project(grafana: GrafanaFake, tmp_path: Path) -> None:
    """The generated password below the project, and the port in its .env; from any folder."""
    project = tmp_path / "project"
    shutil.copytree(
        ROOT / "ml_pipeline", project / "ml_pipeline", ignore=shutil.ignore_patterns("logs", "data_storage", "__pycache__")
    )  # fmt: skip
    (project / "ml_pipeline" / "config" / "grafana_dashboards.json").write_text(json.dumps({"dashboards": BOARDS}))
    secrets = project / ".stack" / "secrets"
    secrets.mkdir(parents=True)
    (secrets / "grafana_admin_password").write_text(PASSWORD)
    (project / ".env").write_text(f"GRAFANA_PORT={grafana.port}\nRUNBOOKS_URL=http://books\n")
    environment = {key: value for key, value in os.environ.items() if key not in ("GRAFANA_PORT", "RUNBOOKS_URL")}
    done = subprocess.run(
        [sys.executable, str(project / "ml_pipeline" / "config" / "setup_dashboards.py")],
        capture_output=True, text=True, check=False, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, CREATED, "")
    assert grafana.boards["ml-a"]["dashboard"]["templating"]["list"][0]["query"] == "http://books"


def test_it_creates_everything_and_then_changes_nothing(run: Run, grafana: GrafanaFake) -> None:
    """Each thing is a line; the second time every line says unchanged."""
    assert run() == (0, CREATED, "")
    grafana.requests.clear()
    assert run() == (0, CREATED.replace("created  ", "unchanged"), "")
    assert grafana.writes() == []


def test_a_token_is_a_way_in(run: Run, grafana: GrafanaFake, capsys: pytest.CaptureFixture[str]) -> None:
    """From a file."""
    Path("token").write_text(TOKEN)
    assert main(["--url", grafana.url, "--token-file", "token", "--file", "boards.json"]) == 0
    assert capsys.readouterr().out == CREATED


def test_a_dry_run_writes_nothing_and_says_what_it_would_do(run: Run, grafana: GrafanaFake) -> None:
    """As the real run will say it afterwards."""
    code, out, _ = run("--dry-run")
    assert (code, out.count("would create")) == (0, 6)
    assert grafana.writes() == []


def test_only_some_boards(run: Run, grafana: GrafanaFake) -> None:
    """An unknown uid is an error before anything is sent."""
    code, out, _ = run("--only", "ml-b")
    assert code == 0
    assert "ml-a" not in out
    assert list(grafana.boards) == ["ml-b"]
    grafana.requests.clear()
    assert run("--only", "ml-x") == (
        2,
        "",
        "error: --only must name a dashboard of the file (got 'ml-x'); known: ml-a, ml-b\n",
    )
    assert grafana.requests == []


def test_boards_that_are_not_in_the_file_are_pruned_when_told(run: Run, grafana: GrafanaFake) -> None:
    """Ours alone; --only does not make the others of the file superfluous."""
    run()
    grafana.put_board("old", title="Old")
    grafana.put_board("theirs", folder="elsewhere", title="Theirs")
    assert "  old  " not in run()[1]
    line = "dashboard    old            {:<18} Old (not in the file)\n"
    assert run("--prune", "--dry-run")[1].endswith(line.format("would delete"))
    assert "old" in grafana.boards
    assert run("--prune", "--only", "ml-a")[1].endswith(line.format("deleted"))
    assert sorted(grafana.boards) == ["ml-a", "ml-b", "theirs"]


def test_a_board_that_cannot_be_pruned_is_an_error(run: Run, grafana: GrafanaFake) -> None:
    """Others go on; a board that somebody took out of the folder meanwhile is passed over."""
    run()
    for uid in ("old", "older", "moved"):
        grafana.put_board(uid, title=uid.title())

    def move() -> None:
        grafana.boards["moved"]["meta"]["folderUid"] = "elsewhere"

    grafana.meanwhile("GET", "/api/dashboards/uid/moved", move)
    grafana.fail("DELETE", "/api/dashboards/uid/old", 500, {"message": "oops"}, times=1)
    code, out, err = run("--prune")
    assert code == 2
    assert "older          deleted" in out
    assert "moved" not in out
    assert err == (
        "error: dashboard old: Grafana refused deleting the dashboard Old (got '500 oops'); "
        "mend that and run this again\n"
    )


def test_export_saves_what_was_changed_and_shows_it(run: Run, grafana: GrafanaFake) -> None:
    """Grafana is only read; the source stays the truth, and that is said."""
    run()
    grafana.put_board("ml-b", title="Board B", panels=[{"id": 1, "type": "gauge"}])
    grafana.requests.clear()
    code, out, err = run("--export", "out/boards")
    assert code == 0
    assert out == (
        "dashboard    ml-a           unchanged          Board A\n"
        "--- ml-b in the file\n"
        "+++ ml-b in Grafana\n"
        "@@ -2,7 +2,7 @@\n"
        '   "panels": [\n'
        "     {\n"
        '       "id": 1,\n'
        '-      "type": "stat"\n'
        '+      "type": "gauge"\n'
        "     }\n"
        "   ],\n"
        '   "tags": [\n'
        "dashboard    ml-b           exported           Board B (out/boards/ml-b.json)\n"
    )
    assert err == (
        "the Python source in grafana/ stays the truth: carry over what is to stay, then run make dashboards\n"
    )
    assert [each.name for each in Path("out/boards").iterdir()] == ["ml-b.json"]
    saved = json.loads(Path("out/boards/ml-b.json").read_text())
    assert saved == {"uid": "ml-b", "title": "Board B", "tags": ["ml-pipeline"], "panels": [{"id": 1, "type": "gauge"}]}
    assert grafana.writes() == []


def test_export_in_a_dry_run_and_of_what_is_not_there(run: Run, grafana: GrafanaFake) -> None:
    """It writes no file; a board that is missing is no difference, one that cannot be read is an error."""
    grafana.put_board("ml-b")
    code, out, _ = run("--export", "out", "--dry-run")
    assert code == 0
    assert "dashboard    ml-a           missing            Board A (it is not in this Grafana)\n" in out
    assert "dashboard    ml-b           would export       Board B\n" in out
    assert not Path("out").exists()
    grafana.fail("GET", "/api/dashboards/uid/ml-a", 500, {"message": "oops"})
    code, _, err = run("--export", "out")
    assert code == 2
    assert "error: dashboard ml-a: Grafana refused reading the dashboard ml-a (got '500 oops')" in err
    assert Path("out/ml-b.json").exists()


def test_export_needs_a_folder_and_stands_alone(run: Run, grafana: GrafanaFake) -> None:
    """Each in one line."""
    grafana.put_board("ml-a")
    Path("file").write_text("")
    code, _, err = run("--export", "file")
    assert code == 2
    assert err.startswith("error: --export must name a folder that can be written (got 'file/ml-a.json'); ")
    assert run("--export", "x", "--prune") == (
        2,
        "",
        "error: --export only reads and --prune deletes; give one of them\n",
    )


def test_the_address_of_the_runbooks_comes_from_the_environment(
    run: Run, grafana: GrafanaFake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It replaces the boards' hidden constant, and is no change that an export would show."""
    run()
    monkeypatch.setenv("RUNBOOKS_URL", "https://wiki.example.org/runbooks/")
    code, out, _ = run()
    assert (code, out.count("unchanged"), out.count("updated")) == (0, 5, 1)
    assert grafana.boards["ml-a"]["dashboard"]["templating"]["list"][0]["query"] == "https://wiki.example.org/runbooks"
    assert run()[1].count("unchanged") == 6
    assert run("--export", "out")[1].count("unchanged") == 2
    monkeypatch.setenv("RUNBOOKS_URL", "wiki")
    assert run()[2] == "error: RUNBOOKS_URL must look like http://127.0.0.1:3000 (got 'wiki'); correct it\n"


def test_the_addresses_of_the_data_sources(run: Run, grafana: GrafanaFake, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option or environment; what nobody names stays as it is in Grafana."""
    monkeypatch.setenv("GRAFANA_LOKI_URL", "http://loki.example.org/")
    run("--prometheus-url", "http://prom.example.org")
    found = {uid: each["url"] for uid, each in grafana.sources.items()}
    assert found == {
        "prometheus": "http://prom.example.org",
        "loki": "http://loki.example.org",
        "alertmanager": "http://alertmanager:9093",
    }
    monkeypatch.delenv("GRAFANA_LOKI_URL")
    out = run()[1]
    assert out.count("(keeps the address it has)") == 2
    assert {uid: each["url"] for uid, each in grafana.sources.items()} == found
    assert run("--loki-url", "http://u:p@loki")[2] == (
        "error: the address of Loki must hold no user and no password; give the address alone\n"
    )


def test_one_board_that_fails_does_not_stop_the_others(run: Run, grafana: GrafanaFake) -> None:
    """All are reported, the exit code is 2, and running it again mends what was left."""
    grafana.put_board("ml-a", provisioned=True)
    grafana.fail("POST", "/api/datasources", 500, {"message": "oops"}, times=1)
    code, out, err = run()
    assert code == 2
    assert err == (
        "error: data source prometheus: Grafana refused creating the data source Prometheus (got '500 oops'); "
        "mend that and run this again\n"
        "error: dashboard ml-a: a dashboard that Grafana loads from a file of its own cannot be replaced "
        "(got 'Board A'); take it out of Grafana's provisioning folder, or leave it out with --only\n"
    )
    assert "dashboard    ml-b           created" in out
    grafana.boards.pop("ml-a")
    assert run()[0] == 0
    assert sorted(grafana.sources) == ["alertmanager", "loki", "prometheus"]


@pytest.mark.parametrize("status", [500, 200])
def test_a_proxys_page_for_one_board_is_its_error(status: int, run: Run, grafana: GrafanaFake) -> None:
    """With an error status or without; the next board goes on."""
    page = "<html><title>Blocked</title>message</html>"
    grafana.fail("POST", "/api/dashboards/db", status, page, kind="text/html", times=1)
    code, out, err = run()
    assert code == 2
    assert err.startswith("error: dashboard ml-a: Grafana")
    assert "a page (text/html) Blocked" in err
    assert err.count("\n") == 1
    assert "ml-b           created" in out


def test_a_wrong_password_is_one_line(run: Run, grafana: GrafanaFake) -> None:
    """Not one for each board; and it is asked once, for Grafana locks after five."""
    Path("password").write_text("battery staple")
    assert run() == (
        2,
        "",
        (
            "error: Grafana must know user admin and the password (got '401 Invalid username or password'); "
            "check both; after five wrong tries Grafana waits 5 min\n"
        ),
    )
    assert len(grafana.requests) == 2


def test_waiting_is_shown(run: Run, grafana: GrafanaFake) -> None:
    """What it waits for and how long, on stderr."""
    grafana.fail("GET", "/api/health", 503, {"database": "failing"}, times=1)
    code, out, err = run("--wait", "20")
    assert (code, out) == (0, CREATED)
    assert err == f"waiting up to 20 s for Grafana at {grafana.url}: 503 Service Unavailable\n"


def test_nothing_listens(run: Run) -> None:
    """One line, exit code 2."""
    url = f"http://127.0.0.1:{free_port()}"
    assert run(url=url) == (
        2,
        "",
        (
            f"error: Grafana must answer at {url} (got 'nothing listens there'); "
            "start it (make up), or correct --url or GRAFANA_URL\n"
        ),
    )


@pytest.mark.parametrize("content", ["{", "[]", '{"dashboards": [{"uid": "a"}]}', '{"dashboards": []}'])
def test_a_broken_file_is_one_line_before_anything_is_asked(content: str, run: Run, grafana: GrafanaFake) -> None:
    """Nothing is half done."""
    Path("boards.json").write_text(content)
    code, out, err = run()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("error: ")
    assert grafana.requests == []


def test_a_password_in_the_address_is_refused_and_not_shown(run: Run) -> None:
    """It would be in the process list."""
    assert run(url="http://admin:hunter2@127.0.0.1:1") == (
        2,
        "",
        "error: Grafana's address must hold no user and no password; give the address alone\n",
    )


# as a module


def test_the_function_returns_what_was_done(grafana: GrafanaFake) -> None:
    """One frozen result for each thing; listeners are optional."""
    access = GrafanaAccess(grafana.url, password=PASSWORD)
    heard: list[SetupResult] = []
    results = setup_dashboards(access, dashboards=BOARDS, on_result=heard.append)
    assert results == tuple(heard)
    assert results[-1] == SetupResult("dashboard", "ml-b", "Board B", "created")
    assert [each.action for each in setup_dashboards(access, dashboards=BOARDS)] == ["unchanged"] * 6
    assert not any(each.failed for each in results)
    grafana.put_board("ml-b", title="mine")
    pairs = export_dashboards(Path("out"), access, dashboards=BOARDS)
    assert [(each.uid, each.action, bool(changed)) for each, changed in pairs] == [
        ("ml-a", "unchanged", False),
        ("ml-b", "exported", True),
    ]


def test_the_function_raises_where_nothing_can_be_done(grafana: GrafanaFake) -> None:
    """No way in; no Grafana; a board that is not there."""
    with pytest.raises(DashboardError, match="Grafana must know the token"):
        setup_dashboards(GrafanaAccess(grafana.url, token="glsa_wrong"), dashboards=BOARDS)
    with pytest.raises(DashboardError, match="--only must name a dashboard of the file"):
        setup_dashboards(GrafanaAccess(grafana.url, token=TOKEN), dashboards=BOARDS, only=["x"])
    with pytest.raises(SettingsError, match="the address of Loki must look like"):
        setup_dashboards(GrafanaAccess(grafana.url, token=TOKEN), dashboards=BOARDS, loki_url="loki")


def test_the_shipped_boards_go_in_and_stay(grafana: GrafanaFake) -> None:
    """Twice the same, whatever is in the file."""
    shipped = read_dashboards()
    access = GrafanaAccess(grafana.url, password=PASSWORD)
    assert {each.action for each in setup_dashboards(access, dashboards=shipped)} == {"created"}
    assert {each.action for each in setup_dashboards(access, dashboards=shipped)} == {"unchanged"}
    assert sorted(grafana.boards) == sorted(each["uid"] for each in shipped)
