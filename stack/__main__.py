"""``python -m stack COMMAND``: what the Makefile's stack targets call."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import requests
import typer

import ml_pipeline
from ml_pipeline._command import FAILED, TERMINATED, run_command, run_script, say
from ml_pipeline.settings import load_settings
from stack import preflight
from stack.alertmanager import runbooks_address
from stack.backup import back_up, read_manifest, restore
from stack.docker import Compose, StackError, docker, environment
from stack.files import MARK, STATE, forget, is_known, prepare, unread_logs
from stack.state import check_all_gone, check_owner, check_restored, claim, is_half_restored

__all__ = ["app", "main"]

app = typer.Typer(
    name="stack",
    help="Run the stack of docker-compose.infrastructure.yml.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_ROOT: Final = Path(__file__).resolve().parents[1]
_ONE_SHOT: Final = "dashboards"
_WAIT_SECONDS: Final = 300
_RELOAD_SECONDS: Final = 10.0
_INTERRUPTED: Final = 130
_PAGES: Final = (
    ("Grafana (the boards)", "GRAFANA_PORT"),
    ("Mailpit (the inbox)", "MAILPIT_PORT"),
    ("Prometheus", "PROMETHEUS_PORT"),
    ("Alertmanager", "ALERTMANAGER_PORT"),
    ("Pushgateway", "PUSHGATEWAY_PORT"),
)
_PASS_ON: Final = {"ignore_unknown_options": True, "allow_extra_args": True}


@app.command()
def up() -> int:
    """Start everything, wait until it is healthy, provision the boards, and say where it all is."""
    settings = load_settings()  # first: it has the clearer words for a broken .env
    compose, variables = Compose(_ROOT), environment(_ROOT)
    check_restored(_ROOT)
    preflight.check(compose, variables)
    prepare(_ROOT, settings)
    claim(compose)
    _start(compose)
    _reload(compose, variables)
    code = compose.run("run", "--rm", "--no-TTY", "--no-deps", _ONE_SHOT)
    if code:
        return code
    _tell(compose, environment(_ROOT), mail_to=settings.alert_email_to if settings.smtp_host else ())
    unread = unread_logs(settings.log_dir, predictions=variables.get("SHIP_PREDICTIONS") == "1")
    if unread:
        typer.echo(f"warning: {unread}", err=True)
    return 0


@app.command()
def down() -> int:
    """Stop everything; what was collected stays."""
    return _ours().run("down", "--remove-orphans", every_profile=True)


@app.command()
def ps() -> int:
    """Show the services and their health."""
    return _ready().run("ps", "--all")


@app.command()
def logs(service: Annotated[list[str] | None, typer.Argument(help="Only of these services.")] = None) -> int:
    """Follow what the services say, until Ctrl-C."""
    compose = _ready()
    try:
        return compose.run("logs", "--follow", "--tail=100", *(service or ()))
    except KeyboardInterrupt:  # how it is meant to end
        return 0


@app.command()
def restart(service: Annotated[list[str] | None, typer.Argument(help="Only these services.")] = None) -> int:
    """Restart services, which then read their configuration files anew, and wait until they are healthy."""
    compose = _whole()
    chosen = service or _long_running(compose)
    return compose.run("restart", *chosen) or compose.run("up", "--detach", "--wait", "--no-recreate", *chosen)


@app.command(context_settings=_PASS_ON, add_help_option=False)
def dashboards(context: typer.Context) -> int:
    """Put the boards into Grafana again; further options are those of setup_dashboards.py."""
    from ml_pipeline.config.setup_dashboards import main as set_up

    _ready()
    variables = environment(_ROOT)
    # From here and not from the one-shot container, whose files, such as those of --export, vanish with it.
    os.environ["RUNBOOKS_URL"] = runbooks_address(variables)
    password = _ROOT / STATE / "secrets" / "grafana_admin_password"
    access = [f"--url={_address(variables, 'GRAFANA_PORT')}", f"--user={variables.get('GRAFANA_USER', 'admin')}"]
    return set_up([*access, f"--password-file={password}", *context.args])


@app.command(context_settings=_PASS_ON, add_help_option=False)
def example(context: typer.Context) -> int:
    """Run the example pipeline on this machine, observed by the running stack."""
    from ml_pipeline.examples.logging_monitoring_example import run

    compose = _ready()
    load_settings()
    variables = environment(_ROOT)
    if not any(each["Service"] == "pushgateway" and each["State"] == "running" for each in compose.containers()):
        raise StackError("the stack must be running to observe the example", remedy="run make up first, or make demo")
    os.environ["ML_PIPELINE_PUSHGATEWAY_URL"] = _address(variables, "PUSHGATEWAY_PORT")
    # Mail about this run comes from Alertmanager; a second one from the process would be about the same cause.
    ml_pipeline.configure(smtp_host=None, alertmanager_url=_address(variables, "ALERTMANAGER_PORT"))
    return run_script(run, context.args)


@app.command()
def backup(folder: Annotated[Path, typer.Argument(help="Where the file is written to.")] = Path("backups")) -> int:
    """Save the volumes and the generated secrets to one file; the stack stops for as long as that takes."""
    typer.echo(f"saved to {back_up(_whole(), folder, typer.echo)}; it holds passwords: keep it where you keep those")
    return 0


@app.command("restore")
def restore_backup(
    archive: Annotated[Path, typer.Argument(help="A file of `make backup`.")],
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> int:
    """Replace the stack's volumes and secrets by those of a backup, and start it."""
    settings, manifest = load_settings(), read_manifest(archive, typer.echo)
    compose, variables = Compose(_ROOT), environment(_ROOT)
    preflight.check(compose, variables)
    if not yes and not _agreed(f"replace what this stack holds by the backup of {manifest['created']}?"):
        typer.echo("nothing was changed", err=True)
        return FAILED
    prepare(_ROOT, settings)
    claim(compose)
    try:
        restore(compose, archive, typer.echo, checked=True)
    except KeyboardInterrupt:
        return _stopped("Ctrl-C", _INTERRUPTED)
    except SystemExit:
        return _stopped("SIGTERM", TERMINATED)
    return up()


@app.command()
def upgrade(folder: Annotated[Path, typer.Argument(help="Where the backup is written to.")] = Path("backups")) -> int:
    """Back up, and start what the compose file names now: images that are new are fetched, the pipeline's is built."""
    typer.echo(f"saved to {back_up(_whole(), folder, typer.echo)}: make restore FILE=… brings it back")
    return up()


@app.command()
def purge() -> int:
    """Remove the stack with everything it holds."""
    if is_known(_ROOT):
        docker("--version")
        compose = Compose(_ROOT)
        check_owner(compose)
        # Without the files of `make up` too: somebody may have removed them while there are volumes.
        compose.read("down", "--volumes", "--remove-orphans", every_profile=True, before_up=True)
        check_all_gone(compose)  # of a volume that somebody else uses, Compose only warns
        forget(_ROOT)
    return 0


def _agreed(question: str) -> bool:
    try:
        return typer.confirm(question)
    except typer.Abort:  # nobody there to answer
        typer.echo()
        return False


def _ready() -> Compose:
    if not (_ROOT / STATE / MARK).is_file():
        raise StackError("there must be a stack", str(_ROOT.name), "run make up first")
    docker("--version")
    return Compose(_ROOT)


def _ours() -> Compose:
    compose = _ready()
    check_owner(compose)
    return compose


def _whole() -> Compose:
    compose = _ours()
    check_restored(_ROOT)
    return compose


def _stopped(by: str, code: int) -> int:
    """Say how a restore that was stopped leaves the stack, in place of what is said of other commands."""
    half, old = (
        "the stack is down and half restored: restore again",
        "nothing was replaced: make up starts what was there",
    )
    return say(f"stopped by {by}; {half if is_half_restored(_ROOT) else old}", code)


def _long_running(compose: Compose) -> list[str]:
    return sorted(set(compose.read("config", "--services").split()) - {_ONE_SHOT})


def _start(compose: Compose) -> None:
    """Start the services that go on running; one that ends would make ``--wait`` fail, however well it ended."""
    typer.echo("starting the stack; the first time, images are fetched and built ...", err=True)
    services = _long_running(compose)
    wait = ("--wait", f"--wait-timeout={_WAIT_SECONDS}")
    if compose.run("up", "--detach", "--build", "--remove-orphans", *wait, *services) == 0:
        return
    states = {each["Service"]: each.get("Health") or each["State"] for each in compose.containers()}
    failing = {
        name: state for name, state in states.items() if name in services and state not in ("healthy", "running")
    }
    for service, state in sorted(failing.items(), key=lambda each: each[1] != "unhealthy"):  # others may wait for it
        said = compose.read("logs", "--no-log-prefix", "--tail=1", service).strip()
        raise StackError("every service must become healthy", f"{service}: {state}", f"it says: {said or 'nothing'}")
    raise StackError("every service must start", remedy="the lines above say why")


def _reload(compose: Compose, variables: dict[str, str]) -> None:
    """Have Prometheus and Alertmanager read their files again, which Compose does not know of."""
    try:
        compose.read("exec", "-T", "prometheus", "promtool", "check", "config", "/etc/prometheus/prometheus.yml")
        compose.read("exec", "-T", "prometheus", "sh", "-c", "kill -HUP 1")
    except StackError as wrong:
        raise StackError(
            "Prometheus must accept prometheus/", wrong.given, "correct it; the old one is in use"
        ) from None
    with requests.Session() as session:
        session.trust_env = False  # a proxy does not know this machine's loopback address
        try:
            answer = session.post(f"{_address(variables, 'ALERTMANAGER_PORT')}/-/reload", timeout=_RELOAD_SECONDS)
            said = "" if answer.ok else answer.text.strip()
        except requests.RequestException as silent:
            said = type(silent).__name__
    if said:
        raise StackError("Alertmanager must accept its configuration", said, "correct ML_PIPELINE_SMTP_* in .env")


def _address(variables: dict[str, str], name: str) -> str:
    return f"http://127.0.0.1:{variables.get(name, preflight.PORTS[name])}"


def _tell(compose: Compose, variables: dict[str, str], mail_to: tuple[str, ...]) -> None:
    rows = [(title, _address(variables, name)) for title, name in _PAGES]
    password = Path(os.path.relpath(_ROOT / STATE / "secrets" / "grafana_admin_password"))
    rows.append(("Grafana's user", f"{variables.get('GRAFANA_USER', 'admin')}, password in {password}"))
    rows.append(("Mail goes to", ", ".join(mail_to) or "Mailpit, until ML_PIPELINE_SMTP_HOST is set in .env"))
    rows.append(("Services", f"{len(_long_running(compose))}, all healthy (make ps, make logs, make down)"))
    rows.append(("Next", "make example ARGS='--fail-at train' puts a mail into the inbox within a minute"))
    for title, value in rows:
        typer.echo(f"  {title:<22} {value}")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: What was given; by default the process's own.

    Returns:
        The exit code; see `ml_pipeline._command`.
    """
    os.chdir(_ROOT)  # settings, and the paths in them, are those of the folder with the compose file
    result: Any = run_command(app, arguments, "stack")
    return int(result)


if __name__ == "__main__":
    sys.exit(main())
