"""A board: its rows of panels, and what all boards share: variables, links between them, annotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.builders.dashboard import (
    AnnotationQuery,
    ConstantVariable,
    Dashboard,
    DashboardLink,
    DatasourceVariable,
    QueryVariable,
    Row,
)
from grafana_foundation_sdk.models.dashboard import (
    DashboardCursorSync,
    DashboardLinkType,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from grafana.dashboards._panels import PROMETHEUS, Panel
from grafana.dashboards._queries import FIRING, selector
from ml_pipeline.config._metric_specs import PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from grafana_foundation_sdk.cog.builder import Builder
    from grafana_foundation_sdk.models.dashboard import AnnotationQuery as AnnotationModel
    from grafana_foundation_sdk.models.dashboard import Dashboard as Model
    from grafana_foundation_sdk.models.dashboard import VariableModel

__all__ = ["RUNBOOKS", "TAG", "Board"]

TAG: Final = "ml-pipeline"
RUNBOOKS: Final = "http://127.0.0.1:9090/consoles"
"""Where the runbooks are; `setup_dashboards` puts ``RUNBOOKS_URL`` in its place."""
_ALL: Final = ".+"


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard.

    Attributes:
        uid: Its address, which stays.
        title: Its name.
        about: Whose questions it answers.
        rows: Panels by the question that they answer, top to bottom.
        models: The metric whose label ``model`` can be chosen from; empty if models do not matter here.
        alertmanager: Whether an Alertmanager can be chosen.
        links: Further links at the top.
    """

    uid: str
    title: str
    about: str
    rows: Mapping[str, Sequence[Panel]]
    models: str = ""
    alertmanager: bool = False
    links: Sequence[DashboardLink] = ()

    def build(self) -> Model:
        """Put it together, as Grafana takes it."""
        board = (
            Dashboard(self.title)
            .uid(self.uid)
            .description(self.about)
            .tags([TAG])
            .editable()
            .tooltip(DashboardCursorSync.CROSSHAIR)
            .timezone("browser")
            .time("now-1h", "now")
            .refresh("30s")
            .variables(self._variables())
            .annotations(_annotations())
            .links([*_between_boards(), *self.links])
        )
        for question, panels in self.rows.items():
            board.with_row(Row(question))
            for panel in panels:
                board.with_panel(panel)
        model = board.build()
        for number, placed in enumerate(model.panels or [], 1):
            placed.id_val = number
        return model

    def _variables(self) -> list[Any]:
        variables: list[Any] = [
            _source("datasource", "Data Source", "prometheus"),
            _source("loki_datasource", "Logs", "loki"),
            _choice("pipeline", "Pipeline", f"label_values({PREFIX}operations_total, pipeline)"),
        ]
        if self.models:
            variables.append(_choice("model", "Model", f"label_values({selector(self.models)}, model)"))
        if self.alertmanager:
            variables.append(_source("alertmanager_datasource", "Alertmanager", "alertmanager"))
        return [*variables, _Runbooks("runbooks").label("Runbooks").value(RUNBOOKS)]


class _Runbooks(ConstantVariable):
    """A constant that links between boards do not carry along: each board has its own."""

    def build(self) -> VariableModel:
        model = super().build()
        model.skip_url_sync = True
        return model


def _source(name: str, label: str, kind: str) -> DatasourceVariable:
    """A variable for a data source; where none has the stack's uid, Grafana takes the first of its kind."""
    stacks = VariableOption(selected=True, text=kind.capitalize(), value=kind)
    return DatasourceVariable(name).label(label).type(kind).current(stacks)


def _choice(name: str, label: str, labels: str) -> QueryVariable:
    """A variable with several values, or all."""
    return (
        QueryVariable(name)
        .label(label)
        .datasource(PROMETHEUS)
        .definition(labels)
        .query({"query": labels, "refId": f"variable-{name}"})
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(_ALL)
        .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
    )


def _between_boards() -> list[DashboardLink]:
    boards = DashboardLink("ML Pipeline boards").type(DashboardLinkType.DASHBOARDS).tags([TAG])
    return [boards.keep_time(True).include_vars(True)]


def _annotations() -> list[Builder[AnnotationModel]]:
    deployed = f"sum by (pipeline, model) ({selector('model_deployments_total')})"
    before = f"sum by (pipeline, model) ({selector('model_deployments_total')} offset $__interval)"
    return [
        _annotation("Deployments", f"{deployed} - ({before} or 0 * {deployed}) > 0", "blue")
        .title_format("Deployed {{model}}")
        .text_format("{{pipeline}}"),
        _annotation("Alerts", FIRING, "red").title_format("{{alertname}}").text_format("{{severity}} {{pipeline}}"),
    ]


def _annotation(name: str, expression: str, colour: str) -> AnnotationQuery:
    annotation = AnnotationQuery().name(name).datasource(PROMETHEUS).enable(True).hide(False)
    return annotation.expr(expression).step("10s").icon_color(colour)
