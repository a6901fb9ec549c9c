"""Dashboards as values: reading the file, and telling a real difference from what Grafana adds by itself."""

from __future__ import annotations

import difflib
import json
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import orjson

from ml_pipeline.errors import DashboardError, closest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["DASHBOARDS", "TAG", "as_file", "chosen", "difference", "is_same", "read_dashboards", "with_runbooks"]

DASHBOARDS: Final = Path(__file__).with_name("grafana_dashboards.json")
TAG: Final = "ml-pipeline"
RUNBOOKS: Final = "runbooks"
"""The hidden constant of every board that links to runbooks begin with."""

_UID: Final = re.compile(r"[A-Za-z0-9_-]{1,40}")
_BOOKKEEPING: Final = frozenset({"id", "version", "iteration"})
_RAISED_BY_GRAFANA: Final = frozenset({"schemaVersion", "pluginVersion"})
_EMPTY: Final[tuple[object, ...]] = (None, "", [], {})
_DEFAULTS: Final[Mapping[str, object]] = {
    "editable": True,
    "fiscalYearStartMonth": 0,
    "graphTooltip": 0,
    "liveNow": False,
    "preload": False,
}
"""What a whole dashboard has where it does not say so; Grafana writes these out."""


def read_dashboards(path: Path = DASHBOARDS) -> list[dict[str, Any]]:
    """Read a file of dashboards.

    Args:
        path: JSON of the form ``{"dashboards": [{"uid": …, "title": …}, …]}``.

    Returns:
        The dashboards, in their order.

    Raises:
        DashboardError: If the file is missing or broken, or a dashboard lacks its uid or title, or shares its uid.
    """
    if not path.is_file():
        raise DashboardError("a file of dashboards must exist", str(path), "name one with --file")
    try:
        dashboards = orjson.loads(path.read_bytes())["dashboards"]
    except OSError as unreadable:
        raise DashboardError("a file of dashboards must be readable", str(path), str(unreadable.strerror)) from None
    except (ValueError, KeyError, TypeError) as broken:
        raise _wrong_form(path, str(broken)) from None
    if not isinstance(dashboards, list) or not dashboards:
        raise _wrong_form(path, "it holds no list of dashboards")
    for number, dashboard in enumerate(dashboards, 1):
        _check(dashboard, number, path)
    twice = [uid for uid, count in Counter(each["uid"] for each in dashboards).items() if count > 1]
    if twice:
        raise DashboardError("every dashboard must have a uid of its own", twice[0], f"mend {path}")
    return list(dashboards)


def chosen(dashboards: Sequence[dict[str, Any]], only: Sequence[str]) -> list[dict[str, Any]]:
    """Pick dashboards by uid.

    Args:
        dashboards: All of them.
        only: The uids; none picks all.

    Returns:
        The dashboards, in the order of the file.

    Raises:
        DashboardError: If a uid is not among them.
    """
    known = [each["uid"] for each in dashboards]
    for uid in only:
        if uid not in known:
            raise DashboardError("--only must name a dashboard of the file", uid, closest(uid, known, prefix="ml-"))
    return [each for each in dashboards if not only or each["uid"] in only]


def with_runbooks(dashboard: Mapping[str, Any], url: str | None) -> dict[str, Any]:
    """Point a dashboard's links to runbooks elsewhere.

    Args:
        dashboard: It is not changed.
        url: Where the pages are; None leaves what the dashboard has.

    Returns:
        A dashboard whose constant ``runbooks``, if it has one, is *url*.
    """
    variables = (dashboard.get("templating") or {}).get("list") or []
    if url is None or not any(each.get("name") == RUNBOOKS for each in variables):
        return dict(dashboard)
    changed = [_constant(each, url.rstrip("/")) if each.get("name") == RUNBOOKS else each for each in variables]
    return {**dashboard, "templating": {**dashboard["templating"], "list": changed}}


def is_same(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Say whether Grafana holds a dashboard as it is in the file, but for what it adds by itself.

    That is: its own id, version and iteration; version numbers of schema and plugins; empty values written out;
    the defaults of a whole dashboard; the built-in annotation query.
    """
    return _plain(ours) == _plain(theirs)


def difference(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """Show what somebody changed in Grafana, as a unified diff of sorted JSON; empty where `is_same` holds."""
    uid = ours["uid"]
    before, after = (_text(_plain(each)).splitlines(keepends=True) for each in (ours, theirs))
    return "".join(difflib.unified_diff(before, after, f"{uid} in the file", f"{uid} in Grafana"))


def as_file(theirs: Mapping[str, Any]) -> bytes:
    """Write a dashboard of Grafana as a file that can be compared: sorted, without its id and version there."""
    return _text({key: value for key, value in theirs.items() if key not in _BOOKKEEPING}).encode()


def _wrong_form(path: Path, reason: str) -> DashboardError:
    rule = 'a file of dashboards must be JSON of the form {"dashboards": [...]}'
    return DashboardError(rule, str(path), f"mend it ({reason})")


def _check(dashboard: object, number: int, path: Path) -> None:
    if not isinstance(dashboard, dict) or not (dashboard.get("uid") and dashboard.get("title")):
        raise DashboardError("every dashboard must have a uid and a title", f"dashboard {number}", f"mend {path}")
    if not isinstance(dashboard["uid"], str) or not _UID.fullmatch(dashboard["uid"]):
        rule = "a dashboard's uid must be 1 to 40 letters, digits, - and _"
        raise DashboardError(rule, dashboard["uid"], f"mend {path}")


def _constant(variable: Mapping[str, Any], url: str) -> dict[str, Any]:
    changed = {**variable, "query": url}
    if variable.get("current"):
        changed["current"] = {**variable["current"], "text": url, "value": url}
    if variable.get("options"):
        changed["options"] = [{**variable["options"][0], "text": url, "value": url}]
    return changed


def _plain(dashboard: Mapping[str, Any]) -> dict[str, Any]:
    # The dashboard without what `is_same` looks past.
    kept = {key: value for key, value in dashboard.items() if key not in _BOOKKEEPING}
    annotations = (kept.get("annotations") or {}).get("list") or []
    kept["annotations"] = {"list": [each for each in annotations if not each.get("builtIn")]}
    plain: dict[str, Any] = _without_empty(kept)
    return {key: value for key, value in plain.items() if key not in _DEFAULTS or value != _DEFAULTS[key]}


def _without_empty(value: Any) -> Any:
    # An empty value and a missing one mean the same in a dashboard; 0 and false do not.
    if isinstance(value, list):
        return [_without_empty(each) for each in value]
    if not isinstance(value, dict):
        return value
    parts = {key: _without_empty(each) for key, each in value.items() if key not in _RAISED_BY_GRAFANA}
    return {key: each for key, each in parts.items() if each not in _EMPTY}


def _text(value: object) -> str:
    return json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
