"""The six dashboards, built from this source into ``ml_pipeline/config/grafana_dashboards.json``.

``python -m grafana.dashboards`` writes the file, ``--check`` compares it, ``--outline`` prints what each board holds.
To find a panel, open the module of its board and look for its title.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Final

with warnings.catch_warnings():
    # The library prefers the second form of dashboards, which Grafana 10 and 11 do not read.
    warnings.simplefilter("ignore", DeprecationWarning)
    from grafana.dashboards import alerts, drift, ingestion, overview, resources, training
    from grafana.dashboards._board import RUNBOOKS, TAG, Board
    from grafana.dashboards._exceptions import EMPTY_IN_DEMO, EMPTY_QUERIES_IN_DEMO, LINTER_EXCEPTIONS, NOT_ON_A_BOARD
    from grafana.dashboards._plain import plain

__all__ = [
    "BOARDS",
    "EMPTY_IN_DEMO",
    "EMPTY_QUERIES_IN_DEMO",
    "FILE",
    "LINTER_EXCEPTIONS",
    "NOT_ON_A_BOARD",
    "RUNBOOKS",
    "TAG",
    "built",
]

BOARDS: Final[tuple[Board, ...]] = (
    overview.BOARD,
    ingestion.BOARD,
    training.BOARD,
    drift.BOARD,
    resources.BOARD,
    alerts.BOARD,
)
"""In the order of the file."""

FILE: Final = Path(__file__).resolve().parents[2] / "ml_pipeline" / "config" / "grafana_dashboards.json"


def built() -> str:
    """Return the text of the file that the source makes."""
    dashboards = [plain(board.build()) for board in BOARDS]
    return json.dumps({"dashboards": dashboards}, sort_keys=True, indent=1, ensure_ascii=False) + "\n"
