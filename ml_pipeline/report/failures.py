"""What did not end well, with the log around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from ml_pipeline.report.icons import icon, tone
from ml_pipeline.report.markup import Html, el, join, lines
from ml_pipeline.report.values import clip, clock, counted, moment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ml_pipeline.report.excerpts import Excerpt, LogLine
    from ml_pipeline.report.run import Operation, Run

__all__ = ["MOST_SHOWN", "failures_section"]

MOST_SHOWN: Final = 5
"""Of how many operations the page shows the log."""


def failures_section(run: Run, excerpts: Sequence[Excerpt]) -> Html | None:
    """Show the operations that did not end well; nothing where there are none.

    Args:
        run: The run.
        excerpts: What the log says around them.
    """
    if not run.stopped:
        return None
    by_operation = {excerpt.operation_id: excerpt for excerpt in excerpts}
    shown = [_stopped(op, by_operation) for op in run.stopped[:MOST_SHOWN]]
    more = len(run.stopped) - len(shown)
    return el(
        "section",
        el("header", el("h2", "Where it stopped"), el("p", "the log lines of this run up to that moment, in UTC")),
        *shown,
        el("p", f"{counted(more, 'more operation')} did not end well.", class_="note") if more > 0 else None,
        class_="card",
        id="failures",
    )


def _stopped(op: Operation, excerpts: Mapping[str, Excerpt]) -> Html:
    title = f"{clip(op.name, 120)} {op.status}" + (f": {op.error}" if op.error else "")
    excerpt = excerpts.get(op.operation_id)
    if excerpt is None:
        told: Html = el("p", "The ends of the log files hold no JSON line about it.", class_="note")
    else:
        *before, last = excerpt.lines
        listed = el("ol", *(_line(line) for line in before), _line(last, hit=op.status), class_="log")
        trace = el("pre", lines(last.stacktrace), class_="trace", tabindex=0, role="region", aria_label="Traceback")
        told = join((listed, trace if last.stacktrace else None))
    return el("article", el("h3", icon(op.status), el("span", title)), told, class_="excerpt")


def _line(line: LogLine, *, hit: str = "") -> Html:
    at = moment(line.timestamp)
    css = f"hit{'' if tone(hit) == 'bad' else ' stopped'}" if hit else None
    return el(
        "li",
        el("time", clip(line.timestamp, 40) if at is None else clock(at, digits=3), datetime=line.timestamp),
        el("span", line.level, class_=f"level {line.level.lower()}" if line.level.isalpha() else "level"),
        el("span", clip(line.logger, 60), class_="from"),
        el("span", line.message, class_="said"),
        class_=css,
    )
