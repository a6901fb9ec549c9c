"""The command line, ``ml-pipeline``: the same product from the shell.

Each command imports what it needs when it is called, so that ``--help`` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_pipeline._cli_alerts import alerts
from ml_pipeline._cli_table import show_table
from ml_pipeline._command import FAILED, forget_output, run_command, single_command

if TYPE_CHECKING:
    from ml_pipeline.settings import Settings

__all__ = ["app", "main"]

app = typer.Typer(
    name="ml-pipeline",
    help="Observability for machine-learning pipelines: logs, metrics, alerts and lineage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
lineage = typer.Typer(help="Walk from a source to what was made of it, and back.", no_args_is_help=True)
audit = typer.Typer(help="Verify and export the audit trail.", no_args_is_help=True)
app.add_typer(lineage, name="lineage")
app.add_typer(alerts, name="alerts")
app.add_typer(audit, name="audit")

_NOTICED = (
    "a process notices with the next record that it writes, within a second; one that writes none at its level notices "
    "only if it called configure_logging(reload=True)"
)
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
    show_table(("check", "status", "reason"), ((one.name, one.status, one.reason) for one in state.checks))
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
    show_table(("variable", "value", "meaning"), rows)
    return 0


@app.command()
def logs(
    channels: Annotated[
        list[str] | None,
        typer.Argument(help="Such as training.model_training, or training; by default all, each record once."),
    ] = None,
    *,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what is written from now on.")] = False,
    since: Annotated[str | None, typer.Option(help="From when: RFC 3339, 10m, 2h, 3d, today.")] = None,
    until: Annotated[str | None, typer.Option(help="Until when, likewise.")] = None,
    level: Annotated[str | None, typer.Option(help="The least level, such as WARNING.")] = None,
    operation: Annotated[str | None, typer.Option(help="The name or the id of the operation.")] = None,
    run_id: Annotated[str | None, typer.Option("--run", help="The id of the run.")] = None,
    user: Annotated[str | None, typer.Option(help="The id of the user.")] = None,
    text: Annotated[str | None, typer.Option(help="What stands in the message, the exception or the context.")] = None,
    where: Annotated[
        list[str] | None, typer.Option(help="Such as 'context.metrics.roc_auc > 0.9'; == != < > <= >= ~, and, or, not.")
    ] = None,
    output: Annotated[str, typer.Option("--format", help="table, json, pretty or text.")] = "table",
    limit: Annotated[int | None, typer.Option(min=1, help="How many to show, from the first.")] = None,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, help="How many to show, up to the last.")] = None,
    folder: Annotated[Path | None, typer.Option("--dir", help="The log directory; by default the one set.")] = None,
    pid: Annotated[int | None, typer.Option(help="With `logs level`: only this process.")] = None,
) -> int:
    """Show the records of the log files, rotated ones too, merged by time.

    `ml-pipeline logs level CHANNEL LEVEL` changes the least level of a channel or module in running processes instead;
    LEVEL may be `default`. `ml-pipeline logs level` lists what was changed.
    """
    if channels and channels[0] == "level":
        return _level(channels[1:], pid)
    if pid is not None:
        raise typer.BadParameter("--pid goes with `ml-pipeline logs level CHANNEL LEVEL`")
    from ml_pipeline.report.logs import show_logs
    from ml_pipeline.settings import load_settings

    return show_logs(
        folder or load_settings().log_dir,
        channels or (),
        follow=follow,
        since=since,
        until=until,
        level=level,
        operation=operation,
        run=run_id,
        user=user,
        text=text,
        where=where or (),
        output=output,
        limit=limit,
        tail=tail,
    )


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
    show_table(("type", "name", "version", "id"), ((n.type, n.name, n.version, n.node_id) for n in nodes))
    return 0 if nodes else FAILED


@lineage.command()
def find(
    kind: Annotated[str | None, typer.Option("--type", help="Only nodes of this type, such as model.")] = None,
    name: Annotated[str | None, typer.Option(help="Only nodes of this name.")] = None,
) -> int:
    """List nodes."""
    from ml_pipeline.config.data_lineage import lineage_tracker

    nodes = lineage_tracker.find(type=kind, name=name)
    show_table(("type", "name", "version", "id"), ((n.type, n.name, n.version, n.node_id) for n in nodes))
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


@audit.command()
def verify(
    file: Annotated[Path | None, typer.Argument(help="The trail; by default audit.log in the log folder.")] = None,
) -> int:
    """Walk the hash chain and find the first record that was changed, removed or inserted."""
    from ml_pipeline.config._audit import read_key
    from ml_pipeline.config._audit import verify as verify_chain
    from ml_pipeline.errors import InputDataError

    trail, settings_now = _audit_trail(file)
    key = read_key(settings_now.audit_key_file)
    try:
        report = verify_chain(trail, key)
    except OSError as unreadable:
        raise InputDataError(
            "an audit trail must be readable to be verified",
            unreadable.filename or str(trail),
            f"correct that ({unreadable.strerror})",
        ) from None
    if not report.intact:
        where = f"line {report.line}" if report.file == trail.name else f"{report.file}, line {report.line}"
        typer.echo(f"not intact: {where}: {report.reason}; {report.records} records before it are intact")
        return FAILED
    torn = ", and a torn record at its end that was never completed" if report.torn else ""
    removed = f", after {report.removed} that were removed because of their age" if report.removed else ""
    pending = (
        f", of which {report.pending} are in audit.journal alone since the machine stopped" if report.pending else ""
    )
    headless = "" if report.has_head else "; there is no head yet: records cut off the end would not show"
    typer.echo(f"intact: {report.records} records{pending}{removed}{torn}{headless}")
    return 0


@audit.command("export")
def export_audit(
    file: Annotated[Path | None, typer.Argument(help="The trail; by default audit.log in the log folder.")] = None,
    *,
    form: Annotated[str, typer.Option("--format", help="csv or jsonl, the lines as they are.")] = "csv",
    since: Annotated[str | None, typer.Option(help="From when: RFC 3339, 10m, 2h, 3d, today.")] = None,
    until: Annotated[str | None, typer.Option(help="Until when, likewise.")] = None,
    user: Annotated[str | None, typer.Option(help="The id of the user.")] = None,
    subject: Annotated[
        str | None, typer.Option("--object", "--dataset", help="What it was done to: a data set, a model.")
    ] = None,
    out: Annotated[str, typer.Option("--out", "-o", help="The file to write; - is the standard output.")] = "-",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it is there.")] = False,
) -> int:
    """Write the records of the audit trail, those of its rotated files too, for an auditor."""
    import datetime as dt

    from ml_pipeline.config._audit import read_key
    from ml_pipeline.config._audit_export import FORMATS, Wanted, export_trail, export_trail_to, kept_files
    from ml_pipeline.config._log_retention import channel_files
    from ml_pipeline.errors import InputDataError, SettingsError, closest
    from ml_pipeline.report._log_query import parse_time

    if form not in FORMATS:
        raise SettingsError("--format must be csv or jsonl", form, closest(form, FORMATS))
    now = dt.datetime.now(dt.UTC)
    wanted = Wanted(
        since and parse_time(since, now).decode(),
        until and parse_time(until, now, option="--until").decode(),
        user,
        subject,
    )
    trail, settings_now = _audit_trail(file)
    key = read_key(settings_now.audit_key_file)
    try:
        if out == "-":
            written, unreadable = export_trail(trail, sys.stdout.buffer, form, wanted, key)
            sys.stdout.flush()
        else:
            logs = [settings_now.log_dir / "audit.log", *channel_files(settings_now.log_dir)]
            kept = kept_files(settings_now)
            written, unreadable = export_trail_to(
                Path(out), trail, form, wanted, key=key, logs=logs, kept=kept, force=force
            )
    except BrokenPipeError:  # as of `| head`, which has seen enough
        forget_output()
        return 0
    except OSError as failed:
        raise InputDataError(
            "an export must be able to read the trail and to write its file",
            failed.filename or out,
            f"correct that ({failed.strerror})",
        ) from None
    damaged = f"; {unreadable} lines are no records: see `ml-pipeline audit verify`" if unreadable else ""
    typer.echo(f"{written} records{damaged}", err=True)
    return FAILED if unreadable else 0


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What was given; by default the process's own.

    Returns:
        The exit code; see `ml_pipeline._command`.
    """
    return run_command(app, arguments, "ml-pipeline")


def _audit_trail(file: Path | None) -> tuple[Path, Settings]:
    from ml_pipeline.config._audit_head import head_path
    from ml_pipeline.config._audit_segments import segment_files
    from ml_pipeline.errors import InputDataError
    from ml_pipeline.settings import load_settings

    now = load_settings()
    trail = file or now.log_dir / "audit.log"
    if not (trail.is_file() or head_path(trail).is_file() or segment_files(trail)):
        raise InputDataError("an audit trail must exist to be verified", str(trail), "name the file")
    return trail, now


def _level(arguments: list[str], pid: int | None) -> int:
    from ml_pipeline.config._log_levels import taken_for_module, tell_level, told_levels
    from ml_pipeline.settings import load_settings

    data_dir = load_settings().data_dir
    if not arguments and pid is None:
        rows = ((told.name, told.level, "all" if told.pid is None else str(told.pid)) for told in told_levels(data_dir))
        show_table(("channel or module", "level", "processes"), rows)
        return 0
    if len(arguments) != 2:  # noqa: PLR2004 - a channel and a level
        raise typer.BadParameter("give a channel and a level, as in `ml-pipeline logs level training DEBUG`")
    name, level = arguments
    told = tell_level(data_dir, name, level, pid)
    whom = "every process" if pid is None else f"process {pid}"
    typer.echo(f"{name}: {told.level if told else 'as in the settings'}, for {whom} that uses {data_dir}")
    hint = taken_for_module(name)
    if told and hint:
        typer.echo(f"note: {hint}", err=True)
    typer.echo(f"note: {_NOTICED}", err=True)
    return 0


def _walk(direction: str, node_id: str) -> int:
    from ml_pipeline.config.data_lineage import lineage_tracker

    found = getattr(lineage_tracker, direction)(node_id)
    show_table(("type", "name", "version", "id"), ((n.type, n.name, n.version, n.node_id) for n in found.nodes))
    return 0


if __name__ == "__main__":
    sys.exit(main())
