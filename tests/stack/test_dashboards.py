"""The six dashboards: built from their source, right by the linter's rules, and agreeing with the metrics."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from grafana_foundation_sdk.models import units

from grafana import dashboards as source
from grafana.dashboards.__main__ import main
from ml_pipeline.config._metric_specs import METRICS, PREFIX
from tests.stack import promql_names as pq
from tests.support import ROOT, require

BOARDS: list[dict[str, Any]] = json.loads(source.FILE.read_text("utf-8"))["dashboards"]
TITLES = {
    "ml-overview": "ML Pipeline Overview",
    "ml-ingestion": "Data Ingestion Dashboard",
    "ml-training": "Training Dashboard",
    "ml-drift": "Data Drift Dashboard",
    "ml-resources": "Resource Monitoring Dashboard",
    "ml-alerts": "Alerts Dashboard",
}
MOST_PANELS = 25
GRID = 24
PANELS_OF_GRAFANA_10 = {"stat", "timeseries", "state-timeline", "table", "bargauge", "heatmap", "logs"}
NOT_OURS = re.compile(
    r"(node|prometheus|alertmanager)_\w+|up|(push_time|process_start_time|scrape_duration)_seconds|ALERTS(_FOR_STATE)?"
)
STREAM_LABELS = {"job", "level", "pipeline", "channel"}
FROM_OTHERS = {
    "instance",
    "job",
    "integration",
    "rule_group",
    "alertname",
    "severity",
    "kind",
    "pipeline",
    "alertstate",
}
UNITS = {value for value in vars(units).values() if isinstance(value, str)}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every panel but the rows, with the uid of its board."""
    for board in BOARDS:
        for panel in board["panels"]:
            if panel["type"] != "row":
                yield board["uid"], panel


def queries(kind: str) -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Every query to a kind of data source: uid, panel, target."""
    for uid, panel in panels():
        for target in panel["targets"]:
            if target["datasource"]["type"] == kind:
                yield uid, panel, target


def expressions() -> Iterator[tuple[str, str]]:
    """Every PromQL expression with where it stands, those of annotations among them."""
    for uid, panel, target in queries("prometheus"):
        yield f"{uid}: {panel['title']}", target["expr"]
    for board in BOARDS:
        for annotation in board["annotations"]["list"]:
            yield f"{board['uid']}: {annotation['name']}", annotation["expr"]


def links() -> Iterator[tuple[str, str, str]]:
    """Every link of a panel, its rows and points among them: uid, panel, address."""
    return ((uid, panel["title"], url) for uid, panel in panels() for url in pq.addresses(panel))


class TestSource:
    """The file and its source."""

    def test_the_file_is_what_the_source_builds(self) -> None:
        """Whoever changes a board changes its source; the file follows."""
        assert source.FILE.read_text("utf-8") == source.built(), "run python -m grafana.dashboards"
        assert main(["--check"]) == 0

    def test_a_difference_is_named_and_mended(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """--check says what to run, and running it makes the two equal."""
        monkeypatch.setattr("grafana.dashboards.__main__.FILE", tmp_path / "grafana_dashboards.json")
        assert main(["--check"]) == 1
        assert capsys.readouterr().err == (
            "grafana_dashboards.json must equal what its source builds: run python -m grafana.dashboards\n"
        )
        assert main([]) == 0
        assert main(["--check"]) == 0

    def test_the_outline_names_every_panel(self, capsys: pytest.CaptureFixture[str]) -> None:
        """--outline prints each board with its rows and panels."""
        assert main(["--outline"]) == 0
        printed = capsys.readouterr().out
        assert all(title in printed for title in TITLES.values())
        assert all(panel["title"] in printed for _, panel in panels())


class TestBoards:
    """What every board has."""

    def test_titles_and_uids(self) -> None:
        """The six boards are called what everything else calls them."""
        assert {board["uid"]: board["title"] for board in BOARDS} == TITLES

    @pytest.mark.parametrize("board", BOARDS, ids=list(TITLES))
    def test_it_can_be_imported_and_changed(self, board: dict[str, Any]) -> None:
        """Grafana gives the id, people may edit, and the model is the plain one that 10 to 13 read."""
        assert board["id"] is None
        assert board["editable"] is True
        assert board["tags"] == ["ml-pipeline"]
        assert isinstance(board["schemaVersion"], int)
        assert {"apiVersion", "spec", "version"}.isdisjoint(board)
        assert {panel["type"] for panel in board["panels"]} <= PANELS_OF_GRAFANA_10 | {"row"}

    @pytest.mark.parametrize("board", BOARDS, ids=list(TITLES))
    def test_it_opens_with_whether_all_is_fine_and_ends_with_why(self, board: dict[str, Any]) -> None:
        """Top to bottom: is it fine, since when, where, why."""
        rows = [panel["title"] for panel in board["panels"] if panel["type"] == "row"]
        assert rows[:3] == ["Is it fine now?", "Since when?", "Where?"]
        assert rows[-1] == "Why?"
        kinds = [panel["type"] for panel in board["panels"]]
        assert kinds[1] == "stat"
        assert kinds[-1] == "logs"

    @pytest.mark.parametrize("board", BOARDS, ids=list(TITLES))
    def test_panels_fill_the_grid_and_do_not_overlap(self, board: dict[str, Any]) -> None:
        """Each cell of the grid belongs to one panel, each line of panels is full, and there are not too many."""
        taken: dict[tuple[int, int], str] = {}
        for panel in board["panels"]:
            place = panel["gridPos"]
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    assert taken.setdefault((x, y), panel["title"]) == panel["title"]
        depth = max(y for _, y in taken) + 1
        assert set(taken) == {(x, y) for x in range(GRID) for y in range(depth)}
        assert sum(panel["type"] != "row" for panel in board["panels"]) <= MOST_PANELS

    @pytest.mark.parametrize("board", BOARDS, ids=list(TITLES))
    def test_titles_and_ids_are_unique(self, board: dict[str, Any]) -> None:
        """A panel can be found by its title, and linked to by its id."""
        for key in ("title", "id"):
            values = [panel[key] for panel in board["panels"]]
            assert len(values) == len(set(values))

    @pytest.mark.parametrize("board", BOARDS, ids=list(TITLES))
    def test_deployments_and_alerts_are_marked(self, board: dict[str, Any]) -> None:
        """What was deployed and what fired stands on every graph."""
        assert [each["name"] for each in board["annotations"]["list"]] == ["Deployments", "Alerts"]

    @pytest.mark.parametrize("board", BOARDS, ids=list(TITLES))
    def test_boards_lead_to_each_other(self, board: dict[str, Any]) -> None:
        """The link by tag keeps the time and the choices, and is not hidden in a menu."""
        link = board["links"][0]
        assert (link["type"], link["tags"]) == ("dashboards", ["ml-pipeline"])
        assert link["keepTime"]
        assert link["includeVars"]
        assert "placement" not in json.dumps(board)


class TestVariables:
    """What can be chosen."""

    @pytest.mark.parametrize("board", BOARDS, ids=list(TITLES))
    def test_the_data_source_is_chosen_once(self, board: dict[str, Any]) -> None:
        """template-datasource: one for Prometheus, called as the linter wants; others are named by their kind."""
        kinds = {each["query"]: each for each in board["templating"]["list"] if each["type"] == "datasource"}
        assert kinds["prometheus"]["name"] == "datasource"
        assert kinds["prometheus"]["label"] == "Data Source"
        assert {each["name"] for kind, each in kinds.items() if kind != "prometheus"} <= {
            "loki_datasource",
            "alertmanager_datasource",
        }

    @pytest.mark.parametrize("board", BOARDS, ids=list(TITLES))
    def test_choices_allow_several_or_all_and_follow_the_time(self, board: dict[str, Any]) -> None:
        """template-on-time-change-reload, and the rules of template-job for the variables that stand in its place."""
        choices = {each["name"]: each for each in board["templating"]["list"] if each["type"] == "query"}
        assert "pipeline" in choices
        for choice in choices.values():
            assert choice["datasource"]["uid"] == "${datasource}"
            assert (choice["multi"], choice["includeAll"], choice["allValue"]) == (True, True, ".+")
            assert choice["refresh"] == 2
            assert choice["label"]
            metric, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", choice["definition"]).groups()  # type: ignore[union-attr]
            assert label in METRICS[pq.base_name(metric)].labels

    @pytest.mark.parametrize("board", BOARDS, ids=list(TITLES))
    def test_every_variable_used_is_there(self, board: dict[str, Any]) -> None:
        """No query or link names a variable that the board lacks, and none is there for nothing."""
        built_in = {"__rate_interval", "__interval", "__range", "__range_s", "__from", "__to", "__data", "__all"}
        used = set(re.findall(r"\$\{?(\w+)", json.dumps(board))) - built_in
        assert used == {each["name"] for each in board["templating"]["list"]}

    @pytest.mark.parametrize("board", BOARDS, ids=list(TITLES))
    def test_runbooks_is_a_hidden_constant(self, board: dict[str, Any]) -> None:
        """The one place that setup_dashboards changes; links between boards do not carry it along."""
        constant = next(each for each in board["templating"]["list"] if each["name"] == "runbooks")
        assert (constant["type"], constant["hide"], constant["skipUrlSync"]) == ("constant", 2, True)
        assert constant["query"] == source.RUNBOOKS


class TestPanels:
    """What every panel says of itself."""

    def test_the_data_source_is_the_chosen_one(self) -> None:
        """panel-datasource."""
        for uid, panel in panels():
            for found in (panel["datasource"], *(target["datasource"] for target in panel["targets"])):
                assert found["uid"] in {"${datasource}", "${loki_datasource}"}, (uid, panel["title"])

    def test_each_has_a_title_a_description_and_a_query(self) -> None:
        """panel-title-description and panel-no-targets, for every kind of panel."""
        for uid, panel in panels():
            assert panel["title"], uid
            assert panel["description"].endswith("."), (uid, panel["title"])
            assert panel["targets"], (uid, panel["title"])

    def test_each_has_a_unit_that_grafana_knows(self) -> None:
        """panel-units, for every kind of panel and every column."""
        for uid, panel in panels():
            config = panel["fieldConfig"]
            made = [each for override in config["overrides"] for each in override["properties"]]
            for unit in (config["defaults"]["unit"], *(each["value"] for each in made if each["id"] == "unit")):
                assert unit in UNITS or unit.startswith("suffix: "), (uid, panel["title"], unit)

    def test_nothing_to_show_is_said_in_words(self) -> None:
        """An empty panel says what that means."""
        for uid, panel in panels():
            words = panel["fieldConfig"]["defaults"]["noValue"]
            assert len(words.split()) > 1, (uid, panel["title"])
            assert words.lower() != "no data", (uid, panel["title"])

    def test_colours_are_grafanas_and_never_alone(self) -> None:
        """Named colours fit both themes; the zero and the one that a colour judges also have words."""
        found = set(re.findall(r'"(?:color|fixedColor)": "([^"]+)"', json.dumps(BOARDS)))
        assert found <= {"green", "orange", "red", "blue", "purple", "text", "rgba(255,0,255,0.7)"}

    def test_exceptions_name_panels_that_exist(self) -> None:
        """The list of panels that the demo cannot fill has no stale entry, and each has a reason."""
        known = {(uid, panel["title"]) for uid, panel in panels()}
        assert set(source.EMPTY_IN_DEMO) <= known
        known_queries = {
            (uid, panel["title"], target["refId"]) for uid, panel in panels() for target in panel["targets"]
        }
        assert set(source.EMPTY_QUERIES_IN_DEMO) <= known_queries
        assert all((*source.EMPTY_IN_DEMO.values(), *source.EMPTY_QUERIES_IN_DEMO.values()))
        assert all(source.LINTER_EXCEPTIONS.values())


class TestQueries:
    """What is asked, and how."""

    def test_promtool_reads_every_expression(self, tmp_path: Path) -> None:
        """target-promql: what Grafana would send is PromQL."""
        groups = [
            {"record": f"board:query:number{number}", "expr": pq.substituted(expression)}
            for number, (_, expression) in enumerate(expressions())
        ]
        rules = tmp_path / "rules.yml"
        rules.write_text(json.dumps({"groups": [{"name": "boards", "rules": groups}]}), "utf-8")
        ran = subprocess.run(
            [require("promtool"), "check", "rules", rules], capture_output=True, text=True, check=False
        )
        assert ran.returncode == 0, ran.stderr

    def test_graphs_use_the_rate_interval_and_the_rest_the_range(self) -> None:
        """target-rate-interval; "in this range" is asked once, never in a graph."""
        for uid, panel, target in queries("prometheus"):
            asked_once = panel["type"] not in {"timeseries", "state-timeline", "heatmap"}
            assert target["instant"] is asked_once, (uid, panel["title"])
            window = "$__range" if asked_once else "$__rate_interval"
            asked = target["expr"].replace("[1d] offset $__range", "")  # what was there before the range
            for found in re.findall(r"\[([^\]:]+)(?::[^\]]*)?\]", asked):
                assert found == window, (uid, panel["title"])

    def test_counters_are_never_shown_bare(self) -> None:
        """target-counter-agg: a total is grown from, counted from 0, or only a witness that it is 0."""
        allowed = re.compile(
            r"(?:rate|increase|resets|(?:max|min)_over_time)\(NAME(?:\{[^}]*\})?\[|NAME(?:\{[^}]*\})? offset|"
            r"0 \* sum(?: by \([^)]*\) )?\(NAME(?:\{[^}]*\})?\)".replace("NAME", r"(\w+_total)")
        )
        for uid, panel, target in queries("prometheus"):
            named = re.findall(r"\w+_total\b", target["expr"])
            assert len(allowed.findall(target["expr"])) == len(named), (uid, panel["title"])

    def test_every_query_aggregates(self) -> None:
        """A pushed and a scraped process of one pipeline are shown together."""
        for where, expression in expressions():
            if PREFIX in expression:
                assert re.search(r"\b(sum|max|min|count)\b", expression), where

    def test_legends_name_labels_that_the_query_keeps(self) -> None:
        """A legend is never half empty."""
        for uid, panel, target in queries("prometheus"):
            for label in re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")):
                assert label in pq.grouped_labels(target["expr"]) | {"le"}, (uid, panel["title"], label)

    def test_loki_is_asked_by_the_agreed_labels(self) -> None:
        """target-logql: a stream selector of low-cardinality labels, then filters."""
        found = [(f"{uid}: {panel['title']}", target["expr"]) for uid, panel, target in queries("loki")]
        found += [(f"{uid}: {title}", pq.pane_of(url)) for uid, title, url in links() if url.startswith("/explore")]
        for where, query in found:
            selector = re.match(r'\{((?:\w+=~?"[^"]*"(?:, )?)+)\}( \||$)', query)
            assert selector, (where, query)
            matched = dict(re.findall(r'(\w+)=~?"([^"]*)"', selector[1]))
            assert set(matched) <= STREAM_LABELS, where
            assert matched["job"] == "ml_pipeline", where

    def test_filters_of_lines_know_the_channels_and_levels(self) -> None:
        """A panel of logs names channels and levels that exist."""
        from ml_pipeline.config._channels import CHANNELS

        for uid, panel, target in queries("loki"):
            matched = dict(re.findall(r'(\w+)=~"([^"]*)"', target["expr"]))
            for pattern in matched.get("channel", ".*").split("|"):
                assert any(re.fullmatch(pattern, key) for key in CHANNELS), (uid, panel["title"], pattern)
            assert set(matched.get("level", "ERROR").split("|")) <= {"WARNING", "ERROR", "CRITICAL"}


class TestNames:
    """Boards and metrics agree, both ways."""

    def test_every_metric_on_a_board_exists(self) -> None:
        """Each is declared here, recorded by a rule, or known to come from the stack."""
        rules = "\n".join(path.read_text("utf-8") for path in sorted((ROOT / "prometheus" / "rules").glob("*.yml")))
        recorded = set(re.findall(r"record: *(\S+)", rules))
        for where, expression in expressions():
            for name in pq.metric_names(expression):
                known = pq.base_name(name) in METRICS if name.startswith(PREFIX) else NOT_OURS.fullmatch(name)
                assert known or name in recorded, (where, name)

    def test_every_label_on_a_board_exists(self) -> None:
        """What is matched on and grouped by are labels of the metrics asked."""
        for where, expression in expressions():
            ours = {pq.base_name(name) for name in pq.metric_names(expression) if name.startswith(PREFIX)}
            for name, label in pq.matched_labels(expression):
                if name.startswith(PREFIX):
                    assert label in METRICS[pq.base_name(name)].labels, (where, name, label)
            theirs = FROM_OTHERS if any(not name.startswith(PREFIX) for name in pq.metric_names(expression)) else set()
            labels = {label for name in ours for label in METRICS[name].labels}
            assert pq.grouped_labels(expression) <= labels | theirs | {"le"}, where

    def test_every_metric_is_on_a_board_or_listed(self) -> None:
        """A metric that nobody looks at is a metric too many, or a board too few."""
        used = {pq.base_name(name) for _, expression in expressions() for name in pq.metric_names(expression)}
        assert set(METRICS) - used == set(source.NOT_ON_A_BOARD)
        assert all(source.NOT_ON_A_BOARD.values())


class TestLinks:
    """Where panels lead."""

    def test_every_panel_leads_to_its_lines_and_its_runbook(self) -> None:
        """From a panel one gets to Loki, and to what to do; the runbook is a page that exists."""
        for uid, panel in panels():
            to_lines, to_runbook = (link["url"] for link in panel["links"])
            assert to_lines.startswith("/explore?"), (uid, panel["title"])
            page = to_runbook.removeprefix("${runbooks}/")
            assert (ROOT / "docs" / "runbooks" / page).is_file(), (uid, panel["title"], page)

    def test_explore_is_asked_for_the_time_and_pipelines_shown(self) -> None:
        """The address holds one pane with a Loki query, and Grafana's variables unencoded."""
        for uid, title, url in links():
            if url.startswith("/explore"):
                (pane,) = pq.panes_of(url).values()
                assert pane["datasource"] == "${loki_datasource}"
                assert pane["range"] == {"from": "${__from}", "to": "${__to}"}
                assert "pipeline" in url or "_id" in url or "__data.fields" in url, (uid, title)

    @pytest.mark.parametrize(
        ("encoded", "piped"), [(".%2B", ".+"), ("demo", "demo"), ("%7Ba%2Cb%7D", "a|b")], ids=["all", "one", "several"]
    )
    def test_explore_finds_the_chosen_pipelines(self, encoded: str, piped: str) -> None:
        """All, one or several pipelines: one of the two filters matches what was chosen, and nothing else does."""
        url = next(url for _, _, url in links() if "pipeline:pipe" in url)
        url = url.replace("${pipeline:percentencode}", encoded).replace("${pipeline:pipe}", piped)
        patterns = re.findall(r' pipeline=~"([^"]*)"', pq.pane_of(url))
        chosen = {"demo": piped in {".+", "demo"}, "a": piped in {".+", "a|b"}, "c": piped == ".+"}
        for name, is_chosen in chosen.items():
            assert any(re.fullmatch(pattern, name) for pattern in patterns) is is_chosen

    def test_a_row_leads_to_its_operation(self) -> None:
        """The latest failures lead to the lines of the operation and of the run."""
        for uid in TITLES:
            targets = [pq.pane_of(url) for board, _, url in links() if board == uid and "/explore" in url]
            for field in ("operation_id", "run_id"):
                wanted = f'{{job="ml_pipeline"}} | {field}="${{__data.fields.{field}:percentencode}}"'
                assert wanted in targets, uid
