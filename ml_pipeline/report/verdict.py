"""The first thing on the page: was the run fine, and if not, what hurt."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from ml_pipeline.report.icons import icon, tone
from ml_pipeline.report.markup import Html, el
from ml_pipeline.report.values import clip, counted, duration, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ml_pipeline.report.drift_batches import Batch
    from ml_pipeline.report.run import Operation, Run

__all__ = ["Verdict", "judge", "verdict_section"]

_ENDED: Final = {"failed": "failed", "cancelled": "was cancelled"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the run went, for a person.

    Attributes:
        status: The run's status, or ``warning`` where it ended well but something wants a look.
        title: A few words.
        why: One sentence; may be empty.
        facts: What else is worth knowing at once.
        link: Where to look: the id of a section, and what the link says; both may be empty.
    """

    status: str
    title: str
    why: str
    facts: tuple[str, ...]
    link: tuple[str, str] = ("", "")


def judge(run: Run, batches: Sequence[Batch]) -> Verdict:
    """Say how a run went.

    Args:
        run: The run.
        batches: What was checked for drift.
    """
    drifted = [batch for batch in batches if batch.verdict == "drift"]
    facts = (_steps(run), _alerts(run), _drift(batches, drifted), _telemetry(run))
    link = ("failures", "See the log around it") if run.stopped else ("", "")
    where = run.stopped[0] if run.stopped else None
    if run.status in _ENDED:
        return Verdict(run.status, _stopped(run, where), _why(run, where), facts, link)
    if run.status == "abandoned":
        why = "Its process ended without a word; the next run found it open."
        return Verdict("abandoned", "The run was abandoned", why, facts)
    if run.status == "ok":
        return _completed(run, drifted, facts, link)
    if run.error:
        return Verdict("failed", "The run failed", run.error, facts)
    if run.operations:
        why = "What is below is what was known by then."
        return Verdict("open", "The run had not ended when this page was written", why, facts)
    return Verdict("unknown", "Nothing is known of this run", "No operation was recorded.", ())


def verdict_section(verdict: Verdict) -> Html:
    """Show the verdict."""
    target, label = verdict.link
    facts = [el("li", fact) for fact in verdict.facts if fact]
    return el(
        "section",
        icon(verdict.status),
        el("h1", verdict.title),
        el("p", clip(verdict.why), class_="why") if verdict.why else None,
        el("ul", *facts) if facts else None,
        el("p", el("a", f"{label} ↓", href=f"#{target}"), class_="go") if target else None,
        class_=f"card verdict {tone(verdict.status)}",
        aria_label="Verdict",
    )


def _stopped(run: Run, where: Operation | None) -> str:
    title = f"The run {_ENDED[run.status]}"
    if where is None or where.parent_id is None or where.status != run.status:
        return title
    return f"{title} {'in' if run.status == 'failed' else 'during'} {clip(where.name, 80)}"


def _why(run: Run, where: Operation | None) -> str:
    if run.status == "cancelled":
        after = f" after {duration(run.duration)}" if run.duration is not None else ""
        return f"It was told to stop{after}."
    return (where.error if where else "") or run.error or "No reason was given."


def _completed(run: Run, drifted: Sequence[Batch], facts: tuple[str, ...], link: tuple[str, str]) -> Verdict:
    if run.stopped:
        names = ", ".join(dict.fromkeys(op.name for op in run.stopped[:3]))
        title = f"The run completed, but {counted(len(run.stopped), 'operation')} did not"
        return Verdict("warning", title, f"{names}: {run.stopped[0].error or run.stopped[0].status}", facts, link)
    if drifted:
        worst = max(drifted, key=lambda batch: batch.strongest)
        title = f"The run completed; {'data drifted' if len(drifted) > 1 else 'a batch drifted'}"
        return Verdict("warning", title, f"{worst.name}: {worst.reason}", facts, ("drift", "See what drifted"))
    if run.alerts:
        title = f"The run completed with {counted(len(run.alerts), 'alert')}"
        return Verdict("warning", title, text(run.alerts[0].get("message")), facts, ("alerts", "See the alerts"))
    took = f" in {duration(run.duration)}" if run.duration is not None else ""
    return Verdict("ok", "The run was fine", f"It completed{took}, and nothing needs you.", facts)


def _steps(run: Run) -> str:
    if not run.steps:
        return ""
    if all(op.status == "ok" for op in run.steps) and not run.left_out:
        return f"All {len(run.steps):,} steps succeeded" if len(run.steps) > 1 else "The only step succeeded"
    went = Counter(op.status for op in run.steps)
    return f"{counted(len(run.steps), 'step')}: " + ", ".join(f"{count:,} {status}" for status, count in went.items())


def _alerts(run: Run) -> str:
    if run.held_back and not run.alerts:
        return f"{counted(run.held_back, 'alert')} held back as repeats"
    severities = Counter(text(alert.get("severity")) for alert in run.alerts)
    worst = next((severity for severity in ("critical", "warning") if severities[severity]), "")
    if worst and len(severities) == 1:
        return counted(len(run.alerts), "warning" if worst == "warning" else "critical alert")
    return counted(len(run.alerts), "alert") + (f", {severities[worst]:,} {worst}" if worst else "")


def _drift(batches: Sequence[Batch], drifted: Sequence[Batch]) -> str:
    if not batches:
        return ""
    if drifted:
        return f"{len(drifted):,} of {counted(len(batches), 'batch', 'batches')} drifted"
    judged = [batch for batch in batches if batch.verdict == "no_drift"]
    return f"no drift in {counted(len(judged), 'batch', 'batches')}" if judged else "no verdict on drift"


def _telemetry(run: Run) -> str:
    return counted(run.telemetry_errors, "telemetry error") if run.telemetry_errors else ""
