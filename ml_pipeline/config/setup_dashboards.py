"""Puts the dashboards of ``grafana_dashboards.json`` into Grafana; a script and a module.

Where Grafana is, and who may write to it, comes from ``GRAFANA_URL``, ``GRAFANA_TOKEN``, ``GRAFANA_USER`` and
``GRAFANA_PASSWORD_FILE``. This version carries no dashboards of its own yet; it reads and judges a file of yours.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

if not __package__:  # run as a file: the package may not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    if find_spec("typer") is None:
        sys.exit("the package typer is missing: run make setup")

import orjson
import typer

from ml_pipeline._command import run_script
from ml_pipeline.errors import DashboardError

__all__ = ["main", "read_dashboards", "setup"]

DASHBOARDS = Path(__file__).with_name("grafana_dashboards.json")


def read_dashboards(path: Path = DASHBOARDS) -> list[dict[str, Any]]:
    """Read a file of dashboards.

    Args:
        path: JSON of the form ``{"dashboards": [{"uid": …, "title": …}, …]}``.

    Returns:
        The dashboards, in their order.

    Raises:
        DashboardError: If the file is missing or broken, or a dashboard lacks its uid or title.
    """
    if not path.is_file():
        raise DashboardError("a file of dashboards must exist", str(path), "name one with --file")
    try:
        dashboards = orjson.loads(path.read_bytes())["dashboards"]
    except (ValueError, KeyError, TypeError) as broken:
        raise DashboardError(
            'a file of dashboards must be JSON of the form {"dashboards": [...]}', str(path), f"mend it ({broken})"
        ) from None
    for number, dashboard in enumerate(dashboards, 1):
        if not isinstance(dashboard, dict) or not (dashboard.get("uid") and dashboard.get("title")):
            raise DashboardError("every dashboard must have a uid and a title", f"dashboard {number}", f"mend {path}")
    return list(dashboards)


def setup(
    file: Annotated[Path, typer.Option(help="The dashboards to read.", show_default=False)] = DASHBOARDS,
) -> int:
    """Read the dashboards and list them; this version does not send them to Grafana yet."""
    for dashboard in read_dashboards(file):
        typer.echo(f"{dashboard['uid']}  {dashboard['title']}")
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run the script.

    Args:
        arguments: Command-line arguments; by default the process's own.

    Returns:
        The exit code.
    """
    return run_script(setup, arguments)


if __name__ == "__main__":
    sys.exit(main())
