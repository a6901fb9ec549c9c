"""From the library's models to plain JSON that Grafana 10 to 13 read alike."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from grafana_foundation_sdk.cog.encoder import JSONEncoder

if TYPE_CHECKING:
    from grafana_foundation_sdk.models.dashboard import Dashboard

__all__ = ["plain"]

# What the library writes unasked. A placement would hide links and annotations in a menu from Grafana 12 on.
_UNASKED: Final = frozenset({"placement", "auto", "auto_count", "auto_min", "repeatDirection", "builtIn"})
_OF_A_LINK: Final = frozenset({"title", "url", "targetBlank"})


def plain(dashboard: Dashboard) -> dict[str, Any]:
    """Return a dashboard as JSON values; Grafana gives the id."""
    value = json.loads(JSONEncoder().encode(dashboard))
    value["panels"] = [_links_shortened(panel) for panel in value["panels"]]
    return {"id": None, **_without_unasked(value)}


def _without_unasked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_unasked(each) for key, each in value.items() if key not in _UNASKED}
    return [_without_unasked(each) for each in value] if isinstance(value, list) else value


def _links_shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [_links_shortened(each) for each in value]
    if not isinstance(value, dict):
        return value
    if value.get("type") == "link":
        return {key: each for key, each in value.items() if key in _OF_A_LINK}
    return {key: _links_shortened(each) for key, each in value.items()}
