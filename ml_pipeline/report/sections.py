"""The smaller parts of the page: key facts, scores, alerts, lineage, files."""

from __future__ import annotations

import base64
import re
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.report.charts import x
from ml_pipeline.report.icons import pill, tone
from ml_pipeline.report.markup import Html, el
from ml_pipeline.report.tables import Column, table
from ml_pipeline.report.values import (
    NONE,
    clip,
    clock,
    counted,
    duration,
    integer,
    mapping,
    mappings,
    moment,
    number,
    quantity,
    size,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ml_pipeline.report.drift_batches import Batch
    from ml_pipeline.report.run import Run

__all__ = ["alerts_section", "files_section", "lineage_section", "scores_section", "tiles"]

_BEST_KNOWN: Final = ("roc_auc", "r2", "accuracy", "f1", "average_precision")
_SCORE_NAMES: Final = {"roc_auc": "ROC AUC", "r2": "R²", "f1": "F1", "mae": "MAE", "rmse": "RMSE", "mse": "MSE"}
_LONG: Final = 14
_MOST_SCORES: Final = 24
_MOST_ALERTS: Final = 100
_MOST_SINKS: Final = 10
_MOST_FILES: Final = 50
_MOST_LINEAGE_BYTES: Final = 1 << 20
_SVG_WIDTH: Final = re.compile(r'<svg\b[^>]{0,400}?\swidth="(\d{1,6})"')
_COLUMN_WIDTH: Final = 1_200  # what is wider is drawn smaller, until the reader wants it larger
_WORST_FIRST: Final = ("critical", "warning", "info")
_ALERT_COLUMNS: Final = (
    Column("severity", "still"),
    Column("time (UTC)", "still"),
    Column("kind"),
    Column("operation"),
    Column("message"),
)


def tiles(run: Run, batches: Sequence[Batch]) -> Html:
    """Show the key facts of a run that are known.

    Args:
        run: The run.
        batches: What was checked for drift.
    """
    dataset, _, version = text(run.summary.get("dataset")).partition(" ")
    predictions = number(run.summary.get("predictions"))
    shown = [
        _tile("Status", run.status, f"{counted(len(run.operations) + run.left_out, 'operation')}", run.status),
        _tile("Duration", duration(run.duration), f"from {clock(run.started)} UTC" if run.started else ""),
        _tile("Data set", dataset, version) if dataset else None,
        _tile("Model version", run.version, _digest(run)) if run.version else None,
        _best_score(run),
        _tile("Predictions", quantity(predictions), "") if predictions else None,
        _alerts_tile(run),
        _drift_tile(batches) if batches else None,
    ]
    return el("dl", *shown, class_="tiles", aria_label="Key facts")


def scores_section(run: Run) -> Html | None:
    """Show the model's scores; nothing where it has none."""
    if not run.scores:
        return None
    shown = list(run.scores.items())[:_MOST_SCORES]
    more = len(run.scores) - len(shown)
    return el(
        "section",
        el("header", el("h2", "Scores"), el("p", "of the model on the validation rows")),
        el("ul", *(_score(name, value) for name, value in shown), class_="scores"),
        el("p", f"{counted(more, 'more score')} not shown.", class_="note") if more else None,
        class_="card",
        id="scores",
    )


def alerts_section(run: Run) -> Html:
    """Show the alerts that were raised, the worst first, and what went wrong with observing itself."""
    ranks = {severity: rank for rank, severity in enumerate(_WORST_FIRST)}
    alerts = sorted(run.alerts, key=lambda alert: ranks.get(text(alert.get("severity")), len(ranks)))
    rows = [_alert(alert) for alert in alerts[:_MOST_ALERTS]]
    said = counted(len(alerts), "alert") + " raised" if alerts else ""
    return el(
        "section",
        el("header", el("h2", "Alerts"), el("p", said)),
        table(_ALERT_COLUMNS, rows, left_out=len(alerts) - len(rows))
        if rows
        else el("p", "None were raised.", class_="note"),
        el("p", held_back_note(run.held_back), class_="note") if run.held_back else None,
        _telemetry(run),
        class_="card",
        id="alerts",
    )


def held_back_note(count: int) -> str:
    """Say why an alert that one might look for is not among those raised."""
    return f"{counted(count, 'repeat')} of alerts raised earlier held back by the cooldown; alerts.json counts them."


def _alert(alert: Mapping[str, Any]) -> tuple[str, ...]:
    at, severity = moment(alert.get("time")), text(alert.get("severity")) or "unknown"
    said = (text(alert.get(key)) or NONE for key in ("kind", "operation", "message"))
    return (pill(severity, severity), NONE if at is None else clock(at), *said)


def _telemetry(run: Run) -> Html | None:
    """Name the sinks that failed while the run went on; what they would have written is missing elsewhere."""
    if not run.telemetry_errors:
        return None
    named = [
        f"{text(given.get('sink'))} {text(given.get('error'))} ({integer(given.get('count')):,} times)"
        for given in mappings(run.summary.get("telemetry_errors"))[:_MOST_SINKS]
    ]
    return el("p", "Observing itself failed, while the run went on: ", ", ".join(named), class_="note")


def lineage_section(svg: str) -> Html | None:
    """Show the lineage graph as a picture, which keeps its ids and styles to itself.

    Args:
        svg: The graph; empty for none.
    """
    if not svg:
        return None
    raw = svg.encode("utf-8", "replace")
    if len(raw) > _MOST_LINEAGE_BYTES:
        said = f"The graph is too large for this page ({size(len(raw))}); its file is named below."
        return _lineage_card(None, el("p", said, class_="note"))
    picture = el(
        "img",
        src=f"data:image/svg+xml;base64,{base64.b64encode(raw).decode()}",
        alt="The lineage graph: from the sources through data sets and models to the predictions",
    )
    width = _SVG_WIDTH.search(svg)
    larger = el("label", el("input", type="checkbox"), "larger") if width and int(width[1]) > _COLUMN_WIDTH else None
    shown = el("div", picture, class_="graph", tabindex=0, role="region", aria_label="Lineage graph, scrolls sideways")
    return _lineage_card(larger, shown)


def _lineage_card(control: Html | None, shown: Html) -> Html:
    header = el("header", el("h2", "Lineage"), el("p", "what came from what"), control)
    return el("section", header, shown, class_="card", id="lineage")


def files_section(run: Run) -> Html | None:
    """Say where things lie; nothing where no file is named."""
    files = [(text(label), text(path)) for label, path in mapping(run.summary.get("files")).items()]
    if not files:
        return None
    listed = [part for label, path in files[:_MOST_FILES] for part in (el("dt", label), el("dd", el("code", path)))]
    header = el("header", el("h2", "Files"), el("p", "from the folder that the run was started in"))
    return el("section", header, el("dl", *listed, class_="files"), class_="card", id="files")


def _tile(label: str, value: str, more: str, status: str = "") -> Html:
    css = "value long" if len(value) > _LONG else "value"
    return el(
        "div",
        el("dt", clip(label, 40)),
        el("dd", el("span", clip(value, 60)), class_=f"{css} {tone(status)}" if status else css),
        el("dd", clip(more, 60), class_="more") if more else None,
        class_="tile",
    )


def _digest(run: Run) -> str:
    digest = text(run.summary.get("model_sha256"))
    return f"SHA-256 {digest[:16]}…" if digest else ""


def _best_score(run: Run) -> Html | None:
    if not run.scores:
        return None
    name = next((name for name in _BEST_KNOWN if name in run.scores), next(iter(run.scores)))
    return _tile(_score_name(name), _figure(run.scores[name]), f"of {counted(len(run.scores), 'score')}")


def _alerts_tile(run: Run) -> Html:
    severities = Counter(text(alert.get("severity")) for alert in run.alerts)
    worst = next((severity for severity in _WORST_FIRST if severities[severity]), "ok" if not run.alerts else "info")
    said = ", ".join(f"{severities[severity]:,} {severity}" for severity in _WORST_FIRST if severities[severity])
    held_back = f"{run.held_back:,} held back" if run.held_back else ""
    if held_back and worst == "ok":
        worst = "warning"
    return _tile(
        "Alerts", f"{len(run.alerts):,}" if run.alerts else "none", ", ".join(filter(None, (said, held_back))), worst
    )


def _drift_tile(batches: Sequence[Batch]) -> Html:
    went = Counter(batch.verdict for batch in batches)
    verdict = next((verdict for verdict in ("drift", "no_drift") if went[verdict]), "insufficient_data")
    said = {"drift": f"in {went['drift']:,} of {len(batches):,}", "no_drift": "none"}.get(verdict, "no verdict")
    return _tile("Drift", said, f"{counted(len(batches), 'batch', 'batches')} checked", verdict)


def _score(name: str, value: float) -> Html:
    bar = el(
        "svg",
        el("rect", x="0", y=2, width="100%", height=8, rx=2, class_="groove"),
        el("rect", x="0", y=2, width=x(value), height=8, rx=2, class_="value-bar"),
        width="100%",
        height=12,
        aria_hidden="true",
    )
    label = el("span", clip(_score_name(name), 60), class_="label")
    return el("li", label, el("b", _figure(value)), bar if 0 <= value <= 1 else None)


def _score_name(name: str) -> str:
    return _SCORE_NAMES.get(name, name.replace("_", " "))


def _figure(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 10 else quantity(value)  # noqa: PLR2004 - four digits either way
