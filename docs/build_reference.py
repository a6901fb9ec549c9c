"""Writes ``docs/reference`` from the code, so that the two cannot disagree; ``make docs`` runs it."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from ml_pipeline import errors
from ml_pipeline.config._channels import CHANNELS
from ml_pipeline.config._log_format import JSON_KEYS
from ml_pipeline.config._metric_specs import METRICS, PREFIX
from ml_pipeline.config._routes import OPERATIONS, OTHERS, Route
from ml_pipeline.settings import Settings, environment_name

REFERENCE = Path(__file__).with_name("reference")
_NOTE = "<!-- Made from the code by `make docs`. -->\n\n"


def settings_page() -> str:
    """Every setting: variable, default, meaning."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.default
        shown = "" if default in (None, "", ()) else str(default)
        rows.append((f"`{environment_name(name)}`", f"`{shown}`" if shown else "", field.description or ""))
    return (
        "# Settings\n\n"
        "From the environment or `.env` in the working directory; `configure(log_dir=…)` takes the same names in lower case\n"
        "and without the prefix. An unknown `ML_PIPELINE_*` name, or a bad value, is an error. `ml-pipeline settings` shows\n"
        "what is in force.\n\n" + _table(("variable", "default", "meaning"), rows)
    )


def logging_page() -> str:
    """The channels, and the keys of a line."""
    channels = [(f"`{one.key}`", f"`{one.path}`", one.holds) for one in CHANNELS.values()]
    channels.append(("`airflow.<dag_id>`", "`airflow/<dag_id>.log`", "one file a DAG"))
    return (
        "# Log channels and lines\n\n"
        "`get_logger(channel, name=None)` returns a standard logger; `name` is what its lines show, by default the calling\n"
        "module. A record lies in one file, below the log directory; ERROR and up also in `errors.log`.\n\n"
        + _table(("channel", "file", "holds"), channels)
        + "\nA line of JSON has these keys, in this order; one that is empty is absent:\n\n"
        + ", ".join(f"`{key}`" for key in JSON_KEYS)
        + ".\n\nWhat the caller gives, by `extra=log_operation(…)` or any `extra=`, lies under `context`. Lines of `audit.log` add\n"
        "`seq`, `prev` and `hash`; the first beside a new `audit.head` adds `head`. `timestamp` is RFC 3339 in UTC with six digits. With `ML_PIPELINE_LOG_FORMAT=text`, a line is\n"
        "`2024-01-15 10:30:25,123 - INFO - model_trainer - Model training started`, in local time.\n"
    )


def events_page() -> str:
    """The routes: what each kind of event writes where."""
    return (
        "# Events, and what each writes where\n\n"
        "Operations, by kind. Each start, progress and end is a log line; an end is audited where the table says so, records\n"
        "its lineage edge, and a failure raises its alert.\n\n"
        + _table(
            ("kind", "default name", "channel", "metrics", "lineage edge", "alert", "audited"),
            (_route_cells(route, first=f"`{route.kind}`", second=f"`{route.name}`") for route in OPERATIONS.values()),
        )
        + "\nThe other events:\n\n"
        + _table(
            ("event", "channel", "metrics", "lineage edge", "alert", "audited"),
            (_route_cells(route, first=f"`{route.event}`") for route in OTHERS.values()),
        )
    )


def metrics_page() -> str:
    """Every metric."""
    rows = (
        (f"`{PREFIX}{one.name}`", one.type, ", ".join(f"`{label}`" for label in one.labels), one.help)
        for one in METRICS.values()
    )
    return "# Metrics\n\n" + _table(("name", "type", "labels", "meaning"), rows)


def lineage_page() -> str:
    """The calls that record lineage, with what they return, and those that walk it."""
    from ml_pipeline.config.data_lineage import LineageTracker

    calls = [name for name in vars(LineageTracker) if not name.startswith("_")]
    return "# Lineage\n\n" + "\n".join(_method(LineageTracker, name) for name in calls)


def errors_page() -> str:
    """The error tree."""
    return f"# Errors\n\n{inspect.cleandoc(errors.__doc__ or '')}\n"


def map_page() -> str:
    """Every module, and what it is for."""
    package = REFERENCE.parents[1] / "ml_pipeline"
    rows = []
    for path in sorted(package.rglob("*.py")):
        said = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        rows.append((f"`{path.relative_to(package.parent)}`", " ".join(said.split("\n\n")[0].split())))
    return (
        "# Where to find what\n\n"
        "Users call the modules without an underscore; a module with one serves the public module of its subject, and\n"
        "`tests/test_architecture.py` says who may import whom.\n\n" + _table(("module", "what it is for"), rows)
    )


def cli_page() -> str:
    """Every command."""
    from ml_pipeline.cli import app

    lines = ["# Command line\n", "`ml-pipeline` and `python -m ml_pipeline` are the same.\n"]
    rows = [(f"`ml-pipeline {_command_name(c)}`", _first_line(c.callback)) for c in app.registered_commands]
    for group in app.registered_groups:
        commands = group.typer_instance.registered_commands if group.typer_instance else ()
        rows += [(f"`ml-pipeline {group.name} {_command_name(c)}`", _first_line(c.callback)) for c in commands]
    return "\n".join(lines) + "\n" + _table(("command", "what it does"), rows)


PAGES = {
    "settings": settings_page,
    "logging": logging_page,
    "events": events_page,
    "metrics": metrics_page,
    "lineage": lineage_page,
    "errors": errors_page,
    "cli": cli_page,
    "map": map_page,
}


def main() -> None:
    """Write every page."""
    REFERENCE.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (REFERENCE / f"{name}.md").write_text(_NOTE + page(), encoding="utf-8")
        print(f"docs/reference/{name}.md")


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _route_cells(route: Route, *, first: str, second: str | None = None) -> tuple[str, ...]:
    cells = [first] if second is None else [first, second]
    metrics = ", ".join(f"`{name}`" for name in route.metrics)
    return (*cells, f"`{route.channel}`", metrics, route.edge, route.alert, "yes" if route.audited else "")


def _method(owner: type, name: str) -> str:
    member = inspect.getattr_static(owner, name)
    function = getattr(owner, name)
    if not inspect.isfunction(function):
        return f"## `{name}`\n\n{inspect.cleandoc(getattr(member, '__doc__', '') or '')}\n"
    signature = str(inspect.signature(function)).replace("self, ", "").replace("(self)", "()")
    return (
        f"## `{name}`\n\n```text\n{name}{signature}\n```\n\n```text\n{inspect.cleandoc(function.__doc__ or '')}\n```\n"
    )


def _command_name(command: object) -> str:
    return getattr(command, "name", None) or getattr(command, "callback").__name__.replace("_", "-")  # noqa: B009


def _first_line(function: object) -> str:
    return inspect.cleandoc(getattr(function, "__doc__", "") or "").splitlines()[0]


if __name__ == "__main__":
    main()
