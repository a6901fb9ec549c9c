"""Puts the data sources, the folder and the dashboards into Grafana 10 to 13; a script and a module.

Without arguments it finds this project's own stack and the password that was generated for it. Any other Grafana is
named by ``GRAFANA_URL`` with ``GRAFANA_TOKEN``, or ``GRAFANA_USER`` and ``GRAFANA_PASSWORD_FILE``, or by the options.
Doing it again changes nothing; a board that somebody edited in Grafana is put back, and what it was stays in Grafana's
version history. ``grafana_dashboards.json`` is built from the Python source in ``grafana/``, which stays the truth.
"""

from __future__ import annotations

import sys
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

if not __package__:  # run as a file: the package may not be installed
    sys.path[0] = str(Path(__file__).resolve().parents[2])
    if find_spec("typer") is None:
        sys.exit("the package typer is missing: run make setup")

import typer

from ml_pipeline import _platform
from ml_pipeline._command import BAD_INPUT, run_script
from ml_pipeline.config import _grafana_boards as boards
from ml_pipeline.config._grafana_access import GrafanaAccess, checked_address, find_access, project_variable
from ml_pipeline.config._grafana_boards import DASHBOARDS, read_dashboards
from ml_pipeline.config._grafana_client import GrafanaClient
from ml_pipeline.config._grafana_sources import ALERTMANAGER_URL, LOKI_URL, PROMETHEUS_URL, data_sources
from ml_pipeline.config._grafana_steps import SetupResult, Steps
from ml_pipeline.errors import DashboardError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

__all__ = [
    "GrafanaAccess",
    "SetupResult",
    "export_dashboards",
    "find_access",
    "main",
    "read_dashboards",
    "setup_dashboards",
]

WAIT_SECONDS = 60.0


def setup_dashboards(
    access: GrafanaAccess | None = None,
    *,
    dashboards: Sequence[dict[str, Any]] | None = None,
    only: Sequence[str] = (),
    dry_run: bool = False,
    prune: bool = False,
    prometheus_url: str | None = None,
    loki_url: str | None = None,
    alertmanager_url: str | None = None,
    runbooks_url: str | None = None,
    wait_seconds: float = WAIT_SECONDS,
    say: Callable[[str], None] | None = None,
    on_result: Callable[[SetupResult], None] | None = None,
) -> tuple[SetupResult, ...]:
    """Put the data sources, the folder and the dashboards into Grafana.

    Args:
        access: Where it is and the way in; by default what `find_access` finds.
        dashboards: What `read_dashboards` returned; by default the shipped ones.
        only: The uids of the dashboards to put there; none means all.
        dry_run: Write nothing, and return what would be done.
        prune: Delete the dashboards of our folder that carry our tag and are not among *dashboards*.
        prometheus_url: Prometheus, as Grafana's server sees it; by default ``GRAFANA_PROMETHEUS_URL``. Where neither
            is given, a data source that is there keeps its address and a new one gets the stack's.
        loki_url: Loki, likewise; ``GRAFANA_LOKI_URL``.
        alertmanager_url: Alertmanager, likewise; ``GRAFANA_ALERTMANAGER_URL``.
        runbooks_url: Where the boards' links to runbooks lead; by default ``RUNBOOKS_URL``, else what they hold.
        wait_seconds: How long to wait for Grafana to be up.
        say: Told what it waits for.
        on_result: Called with each result at once.

    Returns:
        One result for each thing, in the order they were done. One that failed does not stop the others; running it
        again mends what was left.

    Raises:
        DashboardError: If Grafana cannot be reached or does not let us in, or the folder or the file is wrong.
        SettingsError: If an address or the way in is missing or wrong.
    """
    every = read_dashboards() if dashboards is None else list(dashboards)
    picked = _prepared(every, only, runbooks_url)
    sources = _sources(prometheus_url, loki_url, alertmanager_url)
    results = []
    with closing(GrafanaClient(access or find_access())) as client:
        client.wait(wait_seconds, say or _silent)
        steps = Steps(client, dry_run=dry_run)
        keep = {each["uid"] for each in every} if prune else None
        for result in _done(steps, sources, picked, keep):
            results.append(result)
            (on_result or _silent)(result)
    return tuple(results)


def export_dashboards(
    folder: Path,
    access: GrafanaAccess | None = None,
    *,
    dashboards: Sequence[dict[str, Any]] | None = None,
    only: Sequence[str] = (),
    dry_run: bool = False,
    runbooks_url: str | None = None,
    wait_seconds: float = WAIT_SECONDS,
    say: Callable[[str], None] | None = None,
) -> tuple[tuple[SetupResult, str], ...]:
    """Write the dashboards that were changed in Grafana to files, and show the difference; Grafana is only read.

    Args:
        folder: Gets ``<uid>.json`` of each that differs; it is made if it is missing.
        access: As for `setup_dashboards`, and so are the others.
        dashboards: What to compare with.
        only: Which of them.
        dry_run: Write no file.
        runbooks_url: Where links to runbooks lead; that alone is no difference.
        wait_seconds: How long to wait for Grafana to be up.
        say: Told what it waits for.

    Returns:
        Each dashboard's result, and its difference as a unified diff of sorted JSON.

    Raises:
        DashboardError: As for `setup_dashboards`; or a file cannot be written.
        SettingsError: If the way in is missing or wrong.
    """
    every = read_dashboards() if dashboards is None else list(dashboards)
    picked = _prepared(every, only, runbooks_url)
    with closing(GrafanaClient(access or find_access())) as client:
        client.wait(wait_seconds, say or _silent)
        steps = Steps(client)
        return tuple(_exported(steps, board, None if dry_run else folder) for board in picked)


def _prepared(every: Sequence[dict[str, Any]], only: Sequence[str], runbooks_url: str | None) -> list[dict[str, Any]]:
    url = runbooks_url or project_variable("RUNBOOKS_URL")
    checked = checked_address("RUNBOOKS_URL", url) if url else None
    return [boards.with_runbooks(each, checked) for each in boards.chosen(every, only)]


def _sources(prometheus: str | None, loki: str | None, alertmanager: str | None) -> list[tuple[dict[str, Any], bool]]:
    # Each data source, and whether one that is there keeps its address because nobody named one.
    given = {
        name: url or project_variable(f"GRAFANA_{name.upper()}_URL")
        for name, url in (("prometheus", prometheus), ("loki", loki), ("alertmanager", alertmanager))
    }
    for name, url in given.items():
        if url:
            given[name] = checked_address(f"the address of {name.capitalize()}", url)
    described = data_sources(
        given["prometheus"] or PROMETHEUS_URL, given["loki"] or LOKI_URL, given["alertmanager"] or ALERTMANAGER_URL
    )
    return [(each, not given[each["uid"]]) for each in described]


def _done(
    steps: Steps,
    sources: Sequence[tuple[dict[str, Any], bool]],
    picked: Sequence[dict[str, Any]],
    keep: set[str] | None,
) -> Iterator[SetupResult]:
    yield steps.folder()  # the first that needs the password: where it is wrong, that is said once
    for wanted, keep_url in sources:
        try:
            yield steps.source(wanted, keep_url=keep_url)
        except DashboardError as wrong:
            yield SetupResult("data source", wanted["uid"], wanted["name"], "failed", str(wrong))
    for board in picked:
        try:
            yield steps.board(board)
        except DashboardError as wrong:
            yield SetupResult("dashboard", board["uid"], board["title"], "failed", str(wrong))
    if keep is not None:
        yield from _pruned(steps, keep)


def _pruned(steps: Steps, keep: set[str]) -> Iterator[SetupResult]:
    for uid, title in list(steps.left_over(keep)):
        try:
            result = steps.delete(uid, title)
        except DashboardError as wrong:
            result = SetupResult("dashboard", uid, title, "failed", str(wrong))
        if result:
            yield result


def _exported(steps: Steps, board: dict[str, Any], folder: Path | None) -> tuple[SetupResult, str]:
    uid, title = board["uid"], board["title"]
    try:
        found = steps.read(uid)
    except DashboardError as wrong:
        return SetupResult("dashboard", uid, title, "failed", str(wrong)), ""
    if found is None:
        return SetupResult("dashboard", uid, title, "missing", "it is not in this Grafana"), ""
    changed = boards.difference(board, found.board)
    if not changed:
        return SetupResult("dashboard", uid, title, "unchanged"), ""
    if folder is None:
        return SetupResult("dashboard", uid, title, "would export"), changed
    path = folder / f"{uid}.json"
    try:
        _platform.replace_durably(path, boards.as_file(found.board))
    except OSError as unwritable:
        raise DashboardError("--export must name a folder that can be written", str(path), str(unwritable)) from None
    return SetupResult("dashboard", uid, title, "exported", str(path)), changed


def _silent(_: object) -> None:
    """Stand in for a listener that nobody gave."""


# the command line


def setup(
    *,
    url: Annotated[str | None, typer.Option(help="Grafana; else GRAFANA_URL, else this project's stack.")] = None,
    user: Annotated[str | None, typer.Option(help="Its user; else GRAFANA_USER, else admin.")] = None,
    password_file: Annotated[
        Path | None, typer.Option(help="File with the password; else GRAFANA_PASSWORD_FILE, else the stack's.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with a service account's token; else GRAFANA_TOKEN is the token.")
    ] = None,
    file: Annotated[Path, typer.Option(help="The dashboards; else those shipped.", show_default=False)] = DASHBOARDS,
    only: Annotated[
        list[str] | None, typer.Option(metavar="UID", help="Only this dashboard; may be given again.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Write nothing; say what would be done.")] = False,
    export: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write nothing to Grafana: save the boards changed there as DIR/<uid>.json and print the difference.",
        ),
    ] = None,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete boards of our folder and tag that are not in the file.")
    ] = False,
    wait: Annotated[float, typer.Option(metavar="SECONDS", min=0, help="Wait for Grafana to be up.")] = WAIT_SECONDS,
    prometheus_url: Annotated[
        str | None,
        typer.Option(help=f"Prometheus as Grafana sees it; else GRAFANA_PROMETHEUS_URL. New: {PROMETHEUS_URL}."),
    ] = None,
    loki_url: Annotated[
        str | None, typer.Option(help=f"Loki as Grafana sees it; else GRAFANA_LOKI_URL. New: {LOKI_URL}.")
    ] = None,
    alertmanager_url: Annotated[
        str | None,
        typer.Option(help=f"Alertmanager, likewise; else GRAFANA_ALERTMANAGER_URL. New: {ALERTMANAGER_URL}."),
    ] = None,
) -> int:
    """Put the data sources, the folder "ML Pipeline" and its dashboards into Grafana 10 to 13.

    Run again it changes nothing. A board edited in Grafana is put back as it is
    in the file; what it was stays in Grafana's version history, and --export
    shows it first. Data sources from Grafana's own provisioning files are kept.
    Another data source keeps its address unless one is given here.

    RUNBOOKS_URL in the environment is where the boards' links to runbooks lead.

    Exit code 2: something could not be done; each error is one line.
    """
    if export and prune:
        raise SettingsError("--export only reads and --prune deletes", remedy="give one of them")
    every = read_dashboards(file)
    access = find_access(url, user=user, password_file=password_file, token_file=token_file)
    if export:
        pairs = export_dashboards(
            export, access, dashboards=every, only=only or (), dry_run=dry_run, wait_seconds=wait, say=_to_stderr
        )
        return _show_export(pairs)
    results = setup_dashboards(
        access,
        dashboards=every,
        only=only or (),
        dry_run=dry_run,
        prune=prune,
        prometheus_url=prometheus_url,
        loki_url=loki_url,
        alertmanager_url=alertmanager_url,
        wait_seconds=wait,
        say=_to_stderr,
        on_result=_show,
    )
    return BAD_INPUT if any(each.failed for each in results) else 0


def _show_export(pairs: Sequence[tuple[SetupResult, str]]) -> int:
    for result, changed in pairs:
        typer.echo(changed, nl=False)
        _show(result)
    if any(changed for _, changed in pairs):
        _to_stderr(
            "the Python source in grafana/ stays the truth: carry over what is to stay, then run make dashboards"
        )
    return BAD_INPUT if any(result.failed for result, _ in pairs) else 0


def _show(result: SetupResult) -> None:
    if result.failed:
        _to_stderr(f"error: {result.kind} {result.uid}: {result.note}")
        return
    note = f" ({result.note})" if result.note else ""
    typer.echo(f"{result.kind:<12} {result.uid:<14} {result.action:<18} {result.title}{note}")


def _to_stderr(line: str) -> None:
    typer.echo(line, err=True)


def main(arguments: list[str] | None = None) -> int:
    """Run the script.

    Args:
        arguments: Command-line arguments; by default the process's own.

    Returns:
        The exit code.
    """
    return run_script(setup, arguments)


if __name__ == "__main__":
    sys.exit(main())
