"""A run on the terminal: a line a step while it works, and a short summary at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ml_pipeline.config._encoding import one_line
from ml_pipeline.config._events import DEFAULT_BUS, Bus, Event, OperationEvent

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

__all__ = ["LiveProgress", "print_summary"]

_MARKS: Final = {"complete": "[green]✓[/]", "fail": "[red]✗[/]", "cancel": "[yellow]■[/]", "abandon": "[yellow]?[/]"}
_STYLES: Final = {"ok": "green", "failed": "bold red", "cancelled": "yellow", "abandoned": "yellow", "open": "yellow"}


class LiveProgress:
    """Shows each step of the runs on *bus* while it works: a bar on a terminal, a line a step elsewhere.

    Args:
        console: Where to.
        bus: What to listen to.
    """

    def __init__(self, console: Console | None = None, bus: Bus = DEFAULT_BUS) -> None:
        self._console = console or Console(stderr=True)
        self._bus = bus
        self._tasks: dict[str, TaskID] = {}
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )

    def __enter__(self) -> Self:
        self._unsubscribe = self._bus.subscribe("progress", self, frozenset({OperationEvent}).__contains__)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._unsubscribe()
        self._progress.stop()

    def __call__(self, event: Event) -> None:
        """Show what happened to a step; the run around the steps and single predictions are not steps."""
        if not isinstance(event, OperationEvent) or event.parent_id is None or event.attributes.get("single"):
            return
        key = event.operation_id or ""
        if event.type == "start":
            self._tasks[key] = self._progress.add_task(escape(one_line(event.name)), total=None)
        elif event.type == "progress":
            if key in self._tasks:
                self._progress.update(
                    self._tasks[key], completed=event.counts.get("done", 0), total=event.counts.get("total")
                )
        else:
            if key in self._tasks:
                self._progress.remove_task(self._tasks.pop(key))
            self._progress.console.print(_step_line(event), soft_wrap=True)


def print_summary(summary: Mapping[str, Any], files: Mapping[str, str], console: Console | None = None) -> None:
    """Print what a person wants to know after a run.

    Args:
        summary: From `RunRecorder.summary`.
        files: What lies where, by what it is.
        console: Where to; by default stdout.
    """
    console = console or Console(highlight=False)
    style = _STYLES.get(summary["status"], "yellow")
    took = summary.get("duration_seconds")
    console.print(
        f"\n[bold]Run[/] {summary['run_id']}  [{style}]{summary['status']}[/]"
        + (f" in {took:.2f} s" if took is not None else "")
    )
    console.print(_steps_table(summary["operations"]))
    if summary.get("scores"):
        scores = "  ".join(f"{escape(name)} [bold]{_number(value)}[/]" for name, value in summary["scores"].items())
        console.print(f"[bold]Scores[/]  {scores}", soft_wrap=True)
    held_back = summary.get("alerts_held_back")
    repeats = f", {held_back} held back as repeats of alerts raised earlier" if held_back else ""
    console.print(f"[bold]Alerts[/]  {len(summary['alerts']) or 'none'}{repeats}")
    for alert in summary["alerts"]:
        console.print(
            f"  [red]{alert['severity']}[/] {alert['kind']}: {escape(one_line(alert['message']))}", soft_wrap=True
        )
    width = max(map(len, files), default=0)
    for name, path in files.items():
        console.print(f"[bold]{name:<{width}}[/]  {escape(path)}", soft_wrap=True)


def _number(value: object) -> str:
    """A score; one that is no number, such as a NaN, is a text in the summary."""
    return f"{value:.4f}" if isinstance(value, (int, float)) else escape(one_line(str(value)))


def _step_line(event: OperationEvent) -> str:
    took = f"{event.duration_seconds:8.2f} s" if event.duration_seconds is not None else ""
    why = f"  [red]{escape(one_line(f'{event.error.type}: {event.error.message}'))}[/]" if event.error else ""
    return f"{_MARKS[event.type]} {escape(one_line(event.name)):<22}{took}{why}"


def _steps_table(operations: list[dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("step", "status", "seconds", "what"):
        table.add_column(column, justify="right" if column == "seconds" else "left")
    for operation in operations:
        if operation["parent_id"] is None:
            continue
        took = operation["duration_seconds"]
        counts = ", ".join(f"{value:g} {key}" for key, value in operation["counts"].items())
        table.add_row(
            escape(one_line(operation["name"])),
            f"[{_STYLES[operation['status']]}]{operation['status']}[/]",
            "" if took is None else f"{took:.2f}",
            escape(one_line(operation["error"] or counts)),
        )
    return table
