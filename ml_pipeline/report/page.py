"""The page of one run: a single HTML file that needs no network, no script and no other file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from ml_pipeline._platform import replace_durably
from ml_pipeline.config._encoding import rfc3339
from ml_pipeline.report.charts import HATCH
from ml_pipeline.report.drift_batches import batches_of
from ml_pipeline.report.drift_section import drift_section
from ml_pipeline.report.excerpts import Excerpt, read_excerpts
from ml_pipeline.report.failures import MOST_SHOWN, failures_section
from ml_pipeline.report.icons import SPRITE, favicon
from ml_pipeline.report.markup import Html, el, join
from ml_pipeline.report.resources import resources_section
from ml_pipeline.report.run import Run
from ml_pipeline.report.sections import alerts_section, files_section, lineage_section, scores_section, tiles
from ml_pipeline.report.style import policy, sheet
from ml_pipeline.report.timeline import timeline_section
from ml_pipeline.report.values import clip, clock, day
from ml_pipeline.report.verdict import Verdict, judge, verdict_section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["build_page", "write_report"]

_NAVIGATION: Final = (
    ("timeline", "Timeline"),
    ("failures", "Where it stopped"),
    ("alerts", "Alerts"),
    ("drift", "Drift"),
    ("scores", "Scores"),
    ("resources", "Resources"),
    ("lineage", "Lineage"),
    ("files", "Files"),
)


def write_report(
    folder: Path, summary: Mapping[str, Any], *, lineage_svg: str = "", log_dir: Path | None = None
) -> Path:
    """Write ``<run_id>/report.html`` below *folder*.

    Args:
        folder: The folder of all runs.
        summary: From `RunRecorder.summary`.
        lineage_svg: The lineage graph of the run.
        log_dir: Where the logs lie; lines around what failed are taken from them.

    Returns:
        The file.

    Raises:
        OSError: If it cannot be written.
    """
    run = Run(summary)
    excerpts: Sequence[Excerpt] = ()
    if log_dir is not None and run.run_id:
        stopped = [op.operation_id for op in run.stopped[:MOST_SHOWN]]
        started = "" if run.started is None else rfc3339(run.started)
        excerpts = read_excerpts(log_dir, run.run_id, stopped, started=started) if stopped else ()
    path = folder / str(summary["run_id"]) / "report.html"
    replace_durably(path, build_page(run, lineage_svg=lineage_svg, excerpts=excerpts).encode())
    return path


def build_page(run: Run, *, lineage_svg: str = "", excerpts: Sequence[Excerpt] = ()) -> str:
    """Build the page.

    Args:
        run: The run.
        lineage_svg: Its lineage graph; empty for none.
        excerpts: What the log says around what failed.

    Returns:
        A whole HTML document.
    """
    batches = batches_of(run.summary)
    verdict = judge(run, batches)
    alerts, drift = alerts_section(run), drift_section(batches)
    sections = (
        timeline_section(run),
        failures_section(run, excerpts),
        *((drift, alerts) if verdict.link[0] == "drift" else (alerts, drift)),
        scores_section(run),
        resources_section(run),
        lineage_section(lineage_svg),
        files_section(run),
    )
    body = join(section for section in sections if section)
    main = el("main", verdict_section(verdict), tiles(run, batches), _navigation(body), body, id="main")
    skip = el("a", "Skip to the report", href="#main", class_="skip")
    page = el("body", skip, SPRITE, HATCH, _top(run), main, _FOOT)
    return "<!doctype html>\n" + el("html", _head(run, verdict), page, lang="en") + "\n"


def _head(run: Run, verdict: Verdict) -> Html:
    return el(
        "head",
        el("meta", charset="utf-8"),
        el("meta", http_equiv="Content-Security-Policy", content=policy()),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("meta", name="referrer", content="no-referrer"),
        el("title", f"{clip(verdict.title, 80)}: {clip(run.pipeline, 80) or 'pipeline'} {run.run_id[:8]}"),
        el("link", rel="icon", href=favicon(verdict.status)),
        el("style", Html(sheet())),
    )


def _top(run: Run) -> Html:
    when = f"{day(run.started)} {clock(run.started)} UTC" if run.started is not None else None
    return el(
        "header",
        el("strong", clip(run.pipeline, 80) or "Pipeline"),
        el("span", when) if when else None,
        el("span", "run ", el("code", clip(run.run_id, 80))) if run.run_id else None,
        class_="top",
    )


def _navigation(body: Html) -> Html:
    places = sorted((body.find(f' id="{name}"'), name, label) for name, label in _NAVIGATION)
    links = (el("li", el("a", label, href=f"#{name}")) for place, name, label in places if place >= 0)
    return el("nav", el("ul", *links), aria_label="Sections")


_FOOT: Final = el(
    "footer",
    "All times are UTC. The same as data: ",
    el("code", "summary.json"),
    " beside this page.",
    class_="foot",
)
