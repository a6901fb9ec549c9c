"""``ml-pipeline alerts …``: the alert history, and what people do about alerts."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path  # noqa: TC003 - Typer reads the annotations when it runs
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ml_pipeline import _runtime
from ml_pipeline._cli_table import show_table
from ml_pipeline._command import FAILED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ml_pipeline.config.alerting import AlertManager

__all__ = ["alerts"]

alerts = typer.Typer(help="Read the alert history, see to alerts and silence them.", no_args_is_help=True)

AlertId = Annotated[str, typer.Argument(metavar="ID", help="The id of an alert; `alerts list` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON, every field.")]


@alerts.command("list")
def list_alerts(
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many, newest first.")] = 20,
    *,
    active: Annotated[bool, typer.Option("--active", help="Only those that nobody has resolved.")] = False,
    kind: Annotated[str | None, typer.Option(help="Only of this kind, such as data_drift.")] = None,
    severity: Annotated[str | None, typer.Option(help="Only of this severity.")] = None,
    state: Annotated[str | None, typer.Option(help="Only raised, refined or resolved ones.")] = None,
    since: Annotated[str | None, typer.Option(help="From when: RFC 3339, 10m, 2h, 3d, today.")] = None,
    as_json: AsJson = False,
) -> int:
    """List the newest alerts."""
    from ml_pipeline.config._alert_records import check_filters
    from ml_pipeline.report.alerts import ALERT_COLUMNS, alert_row, moment

    check_filters(limit, severity, state)
    with _manager() as manager:
        found = manager.history(
            limit=limit,
            kind=kind,
            severity=severity,
            state=state,
            since=moment(since) if since else None,
            only_active=active,
        )
    if as_json:
        _json([alert.to_dict() for alert in found])
    else:
        show_table(ALERT_COLUMNS, (alert_row(alert) for alert in found))
    return 0


@alerts.command("test")
def try_out(
    channel: Annotated[
        list[str] | None, typer.Option(help="Such as email; several times for several. By default all that are set.")
    ] = None,
) -> int:
    """Send a test over the channels, and say what happens step by step; the exit code is 1 where one fails."""
    from ml_pipeline.config._alert_trial import try_channels
    from ml_pipeline.settings import load_settings

    return 0 if try_channels(channel or (), load_settings(), typer.echo) else FAILED


@alerts.command()
def show(alert_id: AlertId, *, as_json: AsJson = False) -> int:
    """Show all that is known of an alert, and where it was delivered."""
    from ml_pipeline.report.alerts import DELIVERY_COLUMNS, alert_fields, delivery_row, found_or_refused

    with _manager() as manager:
        alert = found_or_refused(manager.get(alert_id), alert_id)
        deliveries = manager.deliveries(alert_id)
    if as_json:
        _json({**alert.to_dict(), "deliveries": [delivery.to_dict() for delivery in deliveries]})
        return 0
    for name, text in alert_fields(alert):
        typer.echo(f"{name}: {text}")
    if deliveries:
        typer.echo()
        show_table(DELIVERY_COLUMNS, (delivery_row(delivery) for delivery in deliveries))
    return 0


@alerts.command()
def ack(alert_id: AlertId, *, by: Annotated[str, typer.Option(metavar="NAME", help="Who sees to it.")]) -> int:
    """Say who sees to an alert; it does not escalate then."""
    from ml_pipeline.report.alerts import open_or_refused

    with _manager() as manager:
        open_or_refused(manager.get(alert_id), alert_id)
        manager.acknowledge(alert_id, by=by)
    typer.echo(f"{alert_id}: seen to by {by}")
    return 0


@alerts.command()
def resolve(alert_id: AlertId) -> int:
    """Say that the cause of an alert is gone."""
    from ml_pipeline.report.alerts import open_or_refused

    with _manager() as manager:
        open_or_refused(manager.get(alert_id), alert_id)
        manager.resolve(alert_id)
    typer.echo(f"{alert_id}: resolved")
    return 0


@alerts.command()
def silence(
    matchers: Annotated[
        list[str],
        typer.Argument(
            metavar="FIELD=TEXT...",
            help="Such as name=DataDrift 'model=alz*'; by name, kind, pipeline, operation, model, feature or severity.",
        ),
    ],
    *,
    lasting: Annotated[str, typer.Option("--for", metavar="TIME", help="How long: 30m, 2h, 3d.")],
    reason: Annotated[str, typer.Option(help="Why.")],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who says so.")] = "",
) -> int:
    """Record and count alerts, but deliver none, for a while; what is open then is delivered."""
    from ml_pipeline.report.alerts import duration_seconds, matchers_of, silence_row

    given = matchers_of(matchers)
    with _manager() as manager:
        made = manager.silence(seconds=duration_seconds(lasting), reason=reason, by=by, **given)
    if made is not None:
        typer.echo(f"{made.silence_id}: {silence_row(made)[1]} until {silence_row(made)[0]}")
    return 0


@alerts.command()
def unsilence(
    silence_id: Annotated[str, typer.Argument(metavar="ID", help="The id of a silence; `alerts silences` shows it.")],
) -> int:
    """End a silence now."""
    from ml_pipeline.report.alerts import lasting_or_refused

    with _manager() as manager:
        lasting_or_refused(manager.silences(), silence_id)
        manager.end_silence(silence_id)
    typer.echo(f"{silence_id}: ended")
    return 0


@alerts.command()
def silences(*, as_json: AsJson = False) -> int:
    """List the silences that last."""
    from ml_pipeline.report.alerts import SILENCE_COLUMNS, silence_row

    with _manager() as manager:
        lasting = manager.silences()
    if as_json:
        _json([each.to_dict() for each in lasting])
    else:
        show_table(SILENCE_COLUMNS, (silence_row(each) for each in lasting))
    return 0


@alerts.command()
def summary(
    period: Annotated[str, typer.Argument(metavar="PERIOD", help="How far back: 30m, 2h, 7d.")] = "1d",
    *,
    as_json: AsJson = False,
) -> int:
    """Count the alerts of the last while, and their deliveries."""
    from ml_pipeline.report.alerts import duration_seconds, summary_fields, summary_rows

    with _manager() as manager:
        counted = manager.summary(duration_seconds(period, option="PERIOD"))
    if as_json:
        _json(summary_fields(counted))
    else:
        show_table(("what", "which", "how many"), summary_rows(counted))
    return 0


@alerts.command("rules")
def list_rules(
    file: Annotated[Path | None, typer.Argument(help="A file to check; by default the one set.")] = None,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, every field.")] = False,
) -> int:
    """Check the file of alert rules, its routes and limits too, and list the rules."""
    from ml_pipeline._settings_alerts import CHANNELS
    from ml_pipeline.config._alert_routes import Routes
    from ml_pipeline.config._alert_rule_file import load_rules
    from ml_pipeline.config._alert_rule_table import COLUMNS, rule_fields, rule_row
    from ml_pipeline.config._alert_ways import channel_names
    from ml_pipeline.settings import load_settings

    settings = load_settings()
    path = file or settings.alert_rules_file
    rules = () if path is None else load_rules(path)
    known = channel_names(settings) if file is None else tuple(CHANNELS)  # a file may be for another machine
    Routes.of(settings.model_copy(update={"alert_rules_file": path}), known)
    if as_json:
        _json([rule_fields(rule) for rule in rules])
    else:
        show_table(COLUMNS, (rule_row(rule) for rule in rules))
    return 0


@contextmanager
def _manager() -> Iterator[AlertManager]:
    """Give a manager that raises what is wrong, and leaves deliveries to the pipelines."""
    from ml_pipeline.config.alerting import AlertManager

    with _runtime.override(strict=True):
        yield AlertManager(channels=())


def _json(value: Any) -> None:
    from ml_pipeline.config._encoding import encode

    typer.echo(encode(value).decode())
