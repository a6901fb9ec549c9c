"""Writes Grafana's provisioning file of the data sources from their one definition; `make boards` calls it.

Grafana expands variables in provisioning files, so that a dollar of ours is written as two.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any, Final

import yaml

from ml_pipeline.config._grafana_sources import data_sources

__all__ = ["FILE", "provisioning_file"]

FILE: Final = Path(__file__).parent / "provisioning" / "datasources" / "datasources.yml"
_NOTE: Final = "# Made from ml_pipeline/config/_grafana_sources.py by `make boards`.\n"


def provisioning_file() -> str:
    """Return what the file holds, YAML."""
    sources = [copy.deepcopy(source) | {"isDefault": source["uid"] == "prometheus"} for source in data_sources()]
    document: dict[str, Any] = {"apiVersion": 1, "prune": True, "datasources": sources}
    return _NOTE + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1_000).replace("$", "$$")


if __name__ == "__main__":
    FILE.parent.mkdir(parents=True, exist_ok=True)
    FILE.write_text(provisioning_file(), "utf-8")
