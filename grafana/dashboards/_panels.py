"""One helper for each kind of panel, so that a board reads as a list of questions and queries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, Required, TypedDict, TypeVar, Unpack

from grafana_foundation_sdk.builders import bargauge, common, heatmap, loki, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.builders import logs as logs_builder
from grafana_foundation_sdk.builders.dashboard import FieldColor
from grafana_foundation_sdk.models import common as c
from grafana_foundation_sdk.models.dashboard import DynamicConfigValue, FieldColorModeId
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.dashboards._links import TROUBLE, Logs, logs_link, runbook_link
from grafana.dashboards._words import FINE_OR_FAILING, NEUTRAL, Scale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from grafana_foundation_sdk.builders.dashboard import DashboardLink

__all__ = [
    "LOKI",
    "PROMETHEUS",
    "Given",
    "Panel",
    "bars",
    "dressed",
    "heat",
    "lines",
    "log_lines",
    "loki_query",
    "query",
    "ranking",
    "timeline",
    "words",
]

PROMETHEUS: Final = c.DataSourceRef(type_val="prometheus", uid="${datasource}")
LOKI: Final = c.DataSourceRef(type_val="loki", uid="${loki_datasource}")
_LETTERS: Final = "ABCDEFGHIJKLMNOP"
Panel = Any
"""A panel's builder; the library has no common base of them."""


class Given(TypedDict, total=False):
    """What every panel says of itself.

    Attributes:
        about: What it shows and how to read it, in a sentence or two.
        unit: Grafana's unit id.
        empty: What it means when there is nothing to show.
        runbook: The alert whose runbook belongs to it.
        logs: The lines behind it.
        w: Columns of 24.
        h: Height.
    """

    about: Required[str]
    unit: Required[str]
    empty: Required[str]
    runbook: str
    logs: Logs
    w: int
    h: int


class _Builder(Protocol):
    def title(self, title: str) -> Any: ...
    def description(self, description: str) -> Any: ...
    def unit(self, unit: str) -> Any: ...
    def no_value(self, no_value: str) -> Any: ...
    def links(self, links: list[Any]) -> Any: ...
    def span(self, w: int) -> Any: ...
    def height(self, h: int) -> Any: ...
    def datasource(self, datasource: c.DataSourceRef) -> Any: ...


B = TypeVar("B", bound=_Builder)


def dressed(panel: B, title: str, given: Given, *, w: int, h: int, source: c.DataSourceRef = PROMETHEUS) -> B:
    """Give a panel its title, its words, its place and its links."""
    links: list[DashboardLink] = [logs_link(given.get("logs", TROUBLE))]
    if "runbook" in given:
        links.append(runbook_link(given["runbook"]))
    panel.title(title).description(given["about"]).unit(given["unit"]).no_value(given["empty"]).links(links)
    panel.span(given.get("w", w)).height(given.get("h", h)).datasource(source)
    return panel


def query(expression: str, legend: str = "", *, place: int = 0, exemplars: bool = False) -> prometheus.Dataquery:
    """A query over time."""
    found = prometheus.Dataquery().expr(expression).legend_format(legend or "__auto").range()
    return found.ref_id(_LETTERS[place]).datasource(PROMETHEUS).exemplar(exemplars)


def loki_query(expression: str, most_lines: int) -> loki.Dataquery:
    """The latest lines."""
    return loki.Dataquery().expr(expression).query_type("range").max_lines(most_lines).ref_id("A").datasource(LOKI)


def words(
    title: str, expression: str, scale: Scale = NEUTRAL, *, legend: str = "", decimals: int = 0, **given: Unpack[Given]
) -> stat.Panel:
    """One number, or one word, for now or for the time shown: is it fine?

    Args:
        title: The question, in a few words.
        expression: PromQL with one sample, or one for each name that *legend* shows.
        scale: When it is fine.
        legend: What is shown in place of the number.
        decimals: Digits behind the point.
        given: See `Given`.
    """
    asked = prometheus.Dataquery().expr(expression).legend_format(legend or "__auto").instant()
    panel = (
        stat.Panel()
        .with_target(asked.ref_id("A").datasource(PROMETHEUS))
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .thresholds(scale.thresholds)
        .mappings(scale.mappings)
        .decimals(decimals)
        .graph_mode(c.BigValueGraphMode.NONE)
        .color_mode(c.BigValueColorMode.BACKGROUND_SOLID if scale.judges else c.BigValueColorMode.NONE)
        .text_mode(c.BigValueTextMode.NAME if legend else c.BigValueTextMode.VALUE)
    )
    return dressed(panel, title, given, w=4, h=4)


def lines(
    title: str,
    queries: Mapping[str, str],
    *,
    limits: Scale = NEUTRAL,
    low: float | None = 0,
    high: float | None = None,
    exemplars: bool = False,
    **given: Unpack[Given],
) -> timeseries.Panel:
    """Lines over time: since when?

    Args:
        title: What is drawn.
        queries: PromQL by its legend, which may name labels: ``{{kind}}``.
        limits: Thresholds drawn as dashed lines.
        low: Lower end of the axis.
        high: Upper end.
        exemplars: Whether to show single operations as points that lead to their lines.
        given: See `Given`.
    """
    panel = _over_time(queries, exemplars=exemplars).line_width(2).fill_opacity(0)
    panel.thresholds(limits.thresholds)
    if limits.judges:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(c.GraphThresholdsStyleMode.DASHED))
    if low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)
    return dressed(panel, title, given, w=12, h=8)


def bars(
    title: str,
    queries: Mapping[str, str],
    *,
    colours: Mapping[str, str] | None = None,
    percent: bool = False,
    **given: Unpack[Given],
) -> timeseries.Panel:
    """Stacked bars over time, for counts.

    Args:
        title: What is counted.
        queries: PromQL by its legend.
        colours: By the name of a series, where a name has a meaning.
        percent: Whether shares matter, not numbers.
        given: See `Given`.
    """
    mode = c.StackingMode.PERCENT if percent else c.StackingMode.NORMAL
    panel = _over_time(queries).draw_style(c.GraphDrawStyle.BARS).line_width(0).fill_opacity(70).min(0)
    panel.stacking(common.StackingConfig().mode(mode).group("A"))
    for name, colour in (colours or {}).items():
        panel.override_by_name(name, [DynamicConfigValue("color", {"mode": "fixed", "fixedColor": colour})])
    return dressed(panel, title, given, w=12, h=8)


def timeline(
    title: str, expression: str, legend: str, scale: Scale = FINE_OR_FAILING, **given: Unpack[Given]
) -> statetimeline.Panel:
    """States over time, in words: since when is it not fine, and which?"""
    panel = (
        statetimeline.Panel()
        .with_target(query(expression, legend))
        .thresholds(scale.thresholds)
        .mappings(scale.mappings)
        .color_scheme(FieldColor().mode(FieldColorModeId.THRESHOLDS))
        .merge_values(True)
        .show_value(c.VisibilityMode.AUTO)
        .row_height(0.8)
        .fill_opacity(80)
        .line_width(0)
        .legend(_legend())
        .tooltip(_tooltip())
    )
    return dressed(panel, title, given, w=12, h=8)


def ranking(
    title: str,
    expression: str,
    legend: str,
    scale: Scale = NEUTRAL,
    *,
    high: float | None = None,
    decimals: int = 0,
    **given: Unpack[Given],
) -> bargauge.Panel:
    """Bars side by side, for now or for the time shown: where?"""
    asked = prometheus.Dataquery().expr(expression).legend_format(legend).instant().ref_id("A").datasource(PROMETHEUS)
    panel = (
        bargauge.Panel()
        .with_target(asked)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .orientation(c.VizOrientation.HORIZONTAL)
        .display_mode(c.BarGaugeDisplayMode.BASIC)
        .value_mode(c.BarGaugeValueMode.TEXT)
        .show_unfilled(True)
        .thresholds(scale.thresholds if scale.judges else Scale(((None, "blue"),)).thresholds)
        .decimals(decimals)
        .min(0)
    )
    if high is not None:
        panel.max(high)
    return dressed(panel, title, given, w=8, h=8)


def heat(title: str, expression: str, **given: Unpack[Given]) -> heatmap.Panel:
    """The buckets of a histogram over time: how are values spread?"""
    asked = query(expression, "{{le}}").format(PromQueryFormat.HEATMAP)
    colours = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Blues").steps(64)
    panel = heatmap.Panel().with_target(asked).calculate(False).color(colours)
    panel.y_axis(heatmap.YAxisConfig().unit(given["unit"]))
    return dressed(panel, title, given, w=12, h=8)


def log_lines(title: str, found: Logs, **given: Unpack[Given]) -> logs_builder.Panel:
    """Lines from Loki, newest first: why? A line's details lead to its operation, the panel's link to whole lines."""
    panel = (
        logs_builder.Panel()
        .with_target(loki_query(found.readable, 200))
        .show_time(True)
        .wrap_log_message(True)
        .enable_log_details(True)
        .prettify_log_message(False)
        .sort_order(c.LogsSortOrder.DESCENDING)
        .dedup_strategy(c.LogsDedupStrategy.NONE)
    )
    given.setdefault("logs", found)
    return dressed(panel, title, given, w=24, h=9, source=LOKI)


def _over_time(queries: Mapping[str, str], *, exemplars: bool = False) -> timeseries.Panel:
    panel = timeseries.Panel().legend(_legend()).tooltip(_tooltip()).show_points(c.VisibilityMode.AUTO)
    for place, (legend, expression) in enumerate(queries.items()):
        panel.with_target(query(expression, legend, place=place, exemplars=exemplars))
    return panel


def _legend() -> common.VizLegendOptions:
    legend = common.VizLegendOptions().display_mode(c.LegendDisplayMode.LIST).placement(c.LegendPlacement.BOTTOM)
    return legend.show_legend(True)


def _tooltip() -> common.VizTooltipOptions:
    return common.VizTooltipOptions().mode(c.TooltipDisplayMode.MULTI).sort(c.SortOrder.DESCENDING)
