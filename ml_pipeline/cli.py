"""The command line, ``ml-pipeline``: the same product from the shell.

Each command imports what it needs when it is called, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_pipeline._command import FAILED, run_command, single_command

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["app", "main"]

app = typer.Typer(
    name="ml-pipeline",
    help="Observability for machine-learning pipelines: logs, metrics, alerts and lineage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
lineage = typer.Typer(help="Walk from a source to what was made of it, and back.", no_args_is_help=True)
alerts = typer.Typer(help="Read the alert history.", no_args_is_help=True)
audit = typer.Typer(help="Verify the audit trail.", no_args_is_help=True)
app.add_typer(lineage, name="lineage")
app.add_typer(alerts, name="alerts")
app.add_typer(audit, name="audit")

_WIDEST = 10_000
_PASS_ON = {"ignore_unknown_options": True, "allow_extra_args": True}


@app.command(context_settings=_PASS_ON, add_help_option=False)
def run(context: typer.Context) -> int:
    """Run the example pipeline; `ml-pipeline run --help` lists its options."""
    from ml_pipeline.examples.logging_monitoring_example import run as run_example

    result: Any = single_command(run_example)(args=context.args, prog_name="ml-pipeline run", standalone_mode=False)
    return result if isinstance(result, int) else 0


@app.command()
def check() -> int:
    """Check that everything is installed and works; writes to a temporary folder only."""
    from ml_pipeline.config.test_logging_monitoring import main as check_all

    return check_all()


@app.command()
def health() -> int:
    """Show what works and what does not; the exit code is 1 where something fails."""
    from ml_pipeline.config.monitoring_config import health_check

    state = health_check()
    _table(("check", "status", "reason"), ((one.name, one.status, one.reason) for one in state.checks))
    return FAILED if state.status == "failing" else 0


@app.command()
def settings() -> int:
    """Show every setting in force, with the variable that changes it; secrets stay hidden."""
    from ml_pipeline.errors import without_credentials
    from ml_pipeline.settings import Settings, environment_name, environment_text, is_secret, load_settings

    now = load_settings()
    rows = (
        (
            environment_name(name),
            ("***" if getattr(now, name) else "")
            if is_secret(name)
            else without_credentials(environment_text(now, name) or ""),
            field.description or "",
        )
        for name, field in Settings.model_fields.items()
    )
    _table(("variable", "value", "meaning"), rows)
    return 0


@lineage.command()
def upstream(node_id: Annotated[str, typer.Argument(help="Such as model:1f2e3d…; `lineage find` lists them.")]) -> int:
    """Show everything that a node was made from."""
    return _walk("upstream", node_id)


@lineage.command()
def downstream(
    node_id: Annotated[str, typer.Argument(help="Such as source:1f2e3d…; `lineage find` lists them.")],
) -> int:
    """Show everything that was made from a node."""
    return _walk("downstream", node_id)


@lineage.command()
def path(
    from_id: Annotated[str, typer.Argument(help="Where to start.")],
    to_id: Annotated[str, typer.Argument(help="Where to arrive.")],
) -> int:
    """Show the shortest way from one node to another."""
    from ml_pipeline.config.data_lineage import lineage_tracker

    nodes = lineage_tracker.path(from_id, to_id)
    _table(("type", "name", "version", "id"), ((n.type, n.name, n.version, n.node_id) for n in nodes))
    return 0 if nodes else FAILED


@lineage.command()
def find(
    kind: Annotated[str | None, typer.Option("--type", help="Only nodes of this type, such as model.")] = None,
    name: Annotated[str | None, typer.Option(help="Only nodes of this name.")] = None,
) -> int:
    """List nodes."""
    from ml_pipeline.config.data_lineage import lineage_tracker

    nodes = lineage_tracker.find(type=kind, name=name)
    _table(("type", "name", "version", "id"), ((n.type, n.name, n.version, n.node_id) for n in nodes))
    return 0


@lineage.command()
def export(
    folder: Annotated[Path | None, typer.Argument(help="Where to; by default beside the store.")] = None,
) -> int:
    """Write nodes.json, edges.json, lineage.dot and lineage.svg."""
    from ml_pipeline.config.data_lineage import lineage_tracker

    for written in lineage_tracker.export_json(folder):
        typer.echo(written)
    typer.echo(lineage_tracker.export_dot(None if folder is None else folder / "lineage.dot"))
    typer.echo(lineage_tracker.export_svg(None if folder is None else folder / "lineage.svg"))
    return 0


@alerts.command("list")
def list_alerts(limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 20) -> int:
    """List the newest alerts."""
    from ml_pipeline.config._encoding import rfc3339
    from ml_pipeline.config.alerting import alert_manager

    rows = alert_manager.history(limit=limit)
    _table(
        ("time", "severity", "kind", "operation", "message"),
        ((rfc3339(a.time), a.severity, a.kind, a.operation, a.message) for a in rows),
    )
    return 0


@audit.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="The trail; by default audit.log in the log folder.")] = None,
) -> int:
    """Walk the hash chain and find the first record that was changed, removed or inserted."""
    from ml_pipeline.config._audit import read_key
    from ml_pipeline.config._audit import verify as verify_chain
    from ml_pipeline.errors import InputDataError
    from ml_pipeline.settings import load_settings

    now = load_settings()
    trail = file or now.log_dir / "audit.log"
    if not trail.is_file():
        raise InputDataError("an audit trail must exist to be verified", str(trail), "name the file")
    report = verify_chain(trail, read_key(now.audit_key_file))
    torn = ", and a torn record at its end that was never completed" if report.torn else ""
    if report.intact:
        typer.echo(f"intact: {report.records} records{torn}")
        return 0
    typer.echo(f"not intact: line {report.line}: {report.reason}; {report.records} records before it are intact")
    return FAILED


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What was given; by default the process's own.

    Returns:
        The exit code; see `ml_pipeline._command`.
    """
    return run_command(app, arguments, "ml-pipeline")


def _walk(direction: str, node_id: str) -> int:
    from ml_pipeline.config.data_lineage import lineage_tracker

    found = getattr(lineage_tracker, direction)(node_id)
    _table(("type", "name", "version", "id"), ((n.type, n.name, n.version, n.node_id) for n in found.nodes))
    return 0


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from ml_pipeline.config._encoding import one_line

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:  # an id that is cut or wrapped cannot be pasted
        table.add_column(column, no_wrap=column == "id", overflow="fold")
    for row in rows:
        table.add_row(*(Text(one_line(cell)) for cell in row))
    # Piped to a file or to grep, a row must stay a line, however wide.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDEST)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
