"""Where a panel leads: to the lines in Loki behind it, to the runbook, and to the logs of one operation."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from grafana_foundation_sdk.builders.dashboard import DashboardLink

__all__ = ["ERRORS", "TROUBLE", "Logs", "explore_url", "link", "logs_link", "operation_logs", "runbook_link"]

_VARIABLE: Final = re.compile(r"(\$\{[^}]*\})")
# A link is no query: Grafana puts the value of "All" (.+) into it as it stands, and a plus in a URL is a blank;
# encoded, several pipelines become a glob. One of the two forms is right in each case, and the other matches nothing.
_CHOSEN_PIPELINES: Final = 'pipeline=~"${pipeline:percentencode}" or pipeline=~"${pipeline:pipe}"'


@dataclass(frozen=True, slots=True)
class Logs:
    """Lines in Loki.

    Attributes:
        level: Levels, as a regular expression; empty for all.
        channel: Channels, likewise.
        tail: What follows the stream selector, such as ``| logger="alerting"``.
    """

    level: str = ""
    channel: str = ""
    tail: str = ""

    @property
    def query(self) -> str:
        """LogQL for a panel."""
        return f"{self._stream(pipeline='$pipeline')} {self.tail}".rstrip()

    @property
    def readable(self) -> str:
        """LogQL for a panel, with the message in place of the JSON line; a line that is no JSON stays."""
        shown = "{{.level}} {{.pipeline}} {{.operation}}: {{or .message __line__}}"
        return f'{self.query} | json message="message" | line_format "{shown}"'

    @property
    def url(self) -> str:
        """Explore, for the chosen pipelines and the time shown."""
        return explore_url(f"{self._stream()} | {_CHOSEN_PIPELINES} {self.tail}".rstrip())

    def _stream(self, **labels: str) -> str:
        labels |= {name: value for name, value in (("level", self.level), ("channel", self.channel)) if value}
        return "{" + ", ".join(['job="ml_pipeline"', *(f'{name}=~"{value}"' for name, value in labels.items())]) + "}"


TROUBLE: Final = Logs(level="WARNING|ERROR|CRITICAL")
ERRORS: Final = Logs(level="ERROR|CRITICAL")


def explore_url(query: str) -> str:
    """Return the address of a query in Explore, for the time that the dashboard shows.

    Args:
        query: LogQL; variables as ``${name:format}``, which Grafana fills in.
    """
    source = {"type": "loki", "uid": "${loki_datasource}"}
    pane = {
        "datasource": source["uid"],
        "queries": [{"refId": "A", "expr": query, "queryType": "range", "datasource": source}],
        "range": {"from": "${__from}", "to": "${__to}"},
    }
    parts = _VARIABLE.split(json.dumps({"logs": pane}, separators=(",", ":")))
    panes = "".join(part if _VARIABLE.fullmatch(part) else quote(part, safe="") for part in parts)
    return f"/explore?schemaVersion=1&orgId=1&panes={panes}"


def operation_logs(field: str = "operation_id") -> DashboardLink:
    """The lines of the operation, or the run, that a row of a table or a point names in *field*."""
    value = f"${{__data.fields.{field}:percentencode}}"
    return link(f"Lines of this {field.removesuffix('_id')}", explore_url(f'{{job="ml_pipeline"}} | {field}="{value}"'))


def logs_link(logs: Logs, title: str = "Logs") -> DashboardLink:
    """The lines behind a panel."""
    return link(title, logs.url)


def runbook_link(alert: str) -> DashboardLink:
    """What an alert means and what to do; *alert* may be a field of a row."""
    return link(f"Runbook: {alert}" if alert.isalnum() else "Runbook", f"${{runbooks}}/{alert}.md")


def link(title: str, url: str) -> DashboardLink:
    """A link that opens beside the dashboard."""
    return DashboardLink(title).url(url).target_blank(True)
