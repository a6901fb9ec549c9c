"""Tables: where is it? From Prometheus, one column a query; from Loki, one row a line."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Unpack

from grafana_foundation_sdk.builders import common, prometheus, table
from grafana_foundation_sdk.models.common import TableCellHeight
from grafana_foundation_sdk.models.dashboard import DataTransformerConfig, DynamicConfigValue
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.dashboards._links import Logs, operation_logs
from grafana.dashboards._panels import LOKI, PROMETHEUS, Given, dressed, loki_query
from grafana.dashboards._words import NEUTRAL, Scale

if TYPE_CHECKING:
    from collections.abc import Sequence

    from grafana_foundation_sdk.builders.dashboard import DashboardLink

__all__ = ["Column", "failures", "rows"]

_LETTERS: Final = "ABCDEFGHIJ"
_MOST_ROWS: Final = 50


@dataclass(frozen=True, slots=True)
class Column:
    """A column of values.

    Attributes:
        name: Its heading.
        expression: PromQL, by the keys of the table; one sample a row.
        unit: Grafana's unit id.
        decimals: Digits behind the point.
        scale: How values are judged.
    """

    name: str
    expression: str
    unit: str = "short"
    decimals: int = 0
    scale: Scale = field(default=NEUTRAL)

    @property
    def properties(self) -> list[DynamicConfigValue]:
        """How Grafana shows its cells."""
        shown = [DynamicConfigValue("unit", self.unit), DynamicConfigValue("decimals", self.decimals)]
        shown.append(DynamicConfigValue("mappings", self.scale.mappings))
        if self.scale.judges:
            shown.append(DynamicConfigValue("thresholds", self.scale.thresholds.build()))
            shown.append(DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
        return shown


def rows(
    title: str,
    keys: Sequence[str],
    columns: Sequence[Column],
    *,
    sort: str = "",
    links: Sequence[DashboardLink] = (),
    **given: Unpack[Given],
) -> table.Panel:
    """A table from Prometheus: a row for each value of the keys, a column for each query.

    Args:
        title: What stands in a row.
        keys: Labels that tell the rows apart, in order.
        columns: The values.
        sort: The heading to sort by, largest first; the first key if empty.
        links: Where the first key of a row leads.
        given: See `Given`.
    """
    panel = table.Panel()
    for letter, column in zip(_LETTERS, columns, strict=False):
        asked = prometheus.Dataquery().expr(column.expression).instant().format(PromQueryFormat.TABLE)
        panel.with_target(asked.ref_id(letter).datasource(PROMETHEUS))
        panel.override_by_name(column.name, column.properties)
    headings = {f"Value #{letter}": column.name for letter, column in zip(_LETTERS, columns, strict=False)}
    headings["Value"] = columns[0].name  # what Grafana calls it where there is one query
    panel.with_transformation(DataTransformerConfig("merge", options={}))
    panel.with_transformation(_organised([*keys, *headings], headings, hidden=("Time", "__name__")))
    panel.sort_by([common.TableSortByFieldState().display_name(sort or keys[0]).desc(bool(sort))])
    if links:
        panel.override_by_name(keys[0], [DynamicConfigValue("links", [each.build() for each in links])])
    return dressed(panel.cell_height(TableCellHeight.SM).filterable(True), title, given, w=12, h=8)


def failures(title: str, found: Logs, **given: Unpack[Given]) -> table.Panel:
    """A table from Loki: a row for each line, which leads to the lines of its operation and of its run."""
    asked = Logs(found.level, found.channel, f'{found.tail} | json message="message", error="exception.type"'.strip())
    shown = ("Time", "timestamp", "pipeline", "operation", "error", "message", "operation_id", "run_id")
    panel = (
        table.Panel()
        .with_target(loki_query(asked.query, _MOST_ROWS))
        .with_transformation(DataTransformerConfig("extractFields", options={"source": "labels", "format": "auto"}))
        .with_transformation(DataTransformerConfig("filterFieldsByName", options={"include": {"names": list(shown)}}))
        .with_transformation(_organised(shown, {"timestamp": "Time"}))  # as newer Grafanas may call it
        .override_by_name("Time", [DynamicConfigValue("custom.width", 170)])
        .cell_height(TableCellHeight.SM)
        .sort_by([common.TableSortByFieldState().display_name("Time").desc(True)])
    )
    for name in ("operation_id", "run_id"):
        link: Any = operation_logs(name).build()
        panel.override_by_name(name, [DynamicConfigValue("links", [link]), DynamicConfigValue("custom.width", 310)])
    given.setdefault("logs", found)
    return dressed(panel, title, given, w=24, h=8, source=LOKI)


def _organised(order: Sequence[str], names: dict[str, str], hidden: Sequence[str] = ()) -> DataTransformerConfig:
    return DataTransformerConfig(
        "organize",
        options={
            "indexByName": {name: place for place, name in enumerate(order)},
            "renameByName": names,
            "excludeByName": dict.fromkeys(hidden, True),
        },
    )
