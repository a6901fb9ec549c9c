"""What a query names: its metrics, the labels that it matches and groups by; and which query a link to Explore asks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ml_pipeline.config._metric_specs import METRICS, PREFIX

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_RANGE = re.compile(r"\[[^\]]*\]")
_MATCHERS = re.compile(r"\{[^}]*\}")
_LABEL_LISTS = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_NAME = re.compile(r"(?<![\w:.$])([a-zA-Z_:][\w:]*)\b(?!\s*\()")
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\{([^}]*)\}")
_MATCHER_LABEL = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_WORDS = frozenset({"and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "inf", "nan"})

VARIABLES = {
    "$__rate_interval": "1m",
    "$__interval": "1m",
    "$__range": "1h",
    "$__range_s": "3600",
    "$pipeline": ".+",
    "$model": ".+",
}
"""What Grafana would put in place of its variables."""


def substituted(expression: str, variables: Mapping[str, str] = VARIABLES) -> str:
    """The expression as Prometheus would be asked it."""
    for name in sorted(variables, key=len, reverse=True):
        expression = expression.replace(name, variables[name])
    return expression


def metric_names(expression: str) -> set[str]:
    """Every metric that an expression reads."""
    bare = _LABEL_LISTS.sub(" ", _RANGE.sub(" ", _MATCHERS.sub(" ", _STRING.sub('""', expression))))
    bare = re.sub(r"\boffset\s+\S+", " ", bare)
    return {name for name in _NAME.findall(bare) if name.lower() not in _WORDS}


def matched_labels(expression: str) -> Iterator[tuple[str, str]]:
    """Each metric with each label that its selector matches on."""
    for name, matchers in _SELECTOR.findall(_STRING.sub('""', expression)):
        for label in _MATCHER_LABEL.findall(matchers):
            yield name, label


def grouped_labels(expression: str) -> set[str]:
    """The labels in every ``by (...)`` and its like, and those that ``label_replace`` sets."""
    lists = ",".join(_LABEL_LISTS.findall(_STRING.sub('""', expression)))
    made = re.findall(r'label_replace\(.*?, "(\w+)", "\w+", "", ""\)', expression)
    return {label.strip() for label in lists.split(",") if label.strip()} | set(made)


def base_name(name: str) -> str:
    """A metric of ours as it is declared: without the prefix, and a histogram without its suffix."""
    bare = name.removeprefix(PREFIX)
    stem, _, suffix = bare.rpartition("_")
    is_series = suffix in {"bucket", "sum", "count"} and stem in METRICS and METRICS[stem].type == "histogram"
    return stem if is_series else bare


def addresses(panel: Mapping[str, Any]) -> Iterator[str]:
    """Where a panel leads, and its rows and points."""
    yield from (link["url"] for link in panel["links"])
    for override in panel["fieldConfig"]["overrides"]:
        for made in override["properties"]:
            yield from (link["url"] for link in made["value"]) if made["id"] == "links" else ()


def panes_of(url: str) -> dict[str, Any]:
    """The panes that an address of Explore opens."""
    asked = parse_qs(urlsplit(url).query)
    assert asked["schemaVersion"] == ["1"]
    panes: dict[str, Any] = json.loads(asked["panes"][0])
    return panes


def pane_of(url: str) -> str:
    """The query that an address of Explore asks."""
    (pane,) = panes_of(url).values()
    query: str = pane["queries"][0]["expr"]
    return query
