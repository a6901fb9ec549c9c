"""``python -m grafana.dashboards``: writes the dashboards' file, compares it, or prints an outline."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from grafana.dashboards import FILE, built

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["main", "outline"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the arguments ask.

    Args:
        arguments: As on the command line; its own if None.

    Returns:
        0, or 1 if ``--check`` found a difference.
    """
    parser = argparse.ArgumentParser(prog="python -m grafana.dashboards", description="Build the dashboards.")
    parser.add_argument("--check", action="store_true", help="compare the file with the source, write nothing")
    parser.add_argument("--outline", action="store_true", help="print rows, panels and sizes, write nothing")
    asked = parser.parse_args(arguments)
    text = built()
    if asked.outline:
        sys.stdout.writelines(f"{line}\n" for line in outline(json.loads(text)["dashboards"]))
        return 0
    if asked.check:
        return _compared(text)
    FILE.write_text(text, encoding="utf-8")
    sys.stdout.write(f"wrote {FILE}\n")
    return 0


def outline(dashboards: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Tell what each board holds, line by line."""
    for dashboard in dashboards:
        panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
        variables = ", ".join(variable["name"] for variable in dashboard["templating"]["list"])
        yield f"{dashboard['title']} ({dashboard['uid']}): {len(panels)} panels; {variables}"
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            if panel["type"] == "row":
                yield f"  {panel['title']}"
            else:
                size = f"{place['w']:>2} x {place['h']:<2} at {place['x']:>2},{place['y']:<3}"
                yield f"    {size} {panel['type']:<14} {panel['title']}"


def _compared(text: str) -> int:
    if FILE.is_file() and FILE.read_text(encoding="utf-8") == text:
        return 0
    sys.stderr.write(f"{FILE.name} must equal what its source builds: run python -m grafana.dashboards\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
