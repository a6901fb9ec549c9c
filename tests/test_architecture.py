"""The design's rules about the code itself, each held by a test."""

from __future__ import annotations

import ast
import fnmatch
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from ml_pipeline.config._context import VARIABLES
from tests.support import ROOT

PACKAGE = ROOT / "ml_pipeline"

LEVELS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    # level: (its modules, a public one and the private ones that serve it; the levels it may import besides itself)
    "errors": (("errors", "_platform", "_tally"), ()),
    "settings": (("settings", "_settings_*", "_environment"), ("errors",)),
    "runtime": (("__init__", "_runtime", "_command"), ("settings",)),
    "events": (
        tuple(f"config.{name}" for name in ("__init__", "_events", "_ids", "_context", "_routes", "_encoding", "_fields", "_hosts", "_redaction", "_worker", "_sqlite", "_scoped")),
        ("runtime",),
    ),
    "metrics": (("config.prometheus_metrics", "config._metric*", "config._push"), ("events",)),
    "logging": (("config.logging_config", "config._log_*", "config._audit*", "config._channels", "config._failures"), ("metrics",)),
    "lineage": (("config.data_lineage", "config._lineage_*"), ("logging",)),
    "alerting": (("config.alerting", "config._alert_*"), ("lineage",)),
    "monitoring": (
        ("config.monitoring_config", "config._health*", "config._performance", "config._resource*", "config._thresholds",
         "config._ticker", "config._usage"),
        ("alerting",),
    ),
    "operations": (("config.operation_logger", "config._operation*", "config._open_operations"), ("monitoring",)),
    "dashboards": (("config.setup_dashboards", "config._grafana*"), ("operations",)),
    "self-check": (("config.test_logging_monitoring",), ("dashboards",)),
    "drift": (("drift.*",), ("errors",)),
    "tracking": (("tracking.*",), ("dashboards", "drift")),
    "serving": (("serving.*",), ("dashboards", "drift")),
    "pipelines": (("pipelines.*",), ("dashboards", "drift")),
    "report": (("report.*",), ("dashboards", "drift")),
    "examples": (("examples.*",), ("tracking", "serving", "pipelines", "report")),
    "integrations": (("integrations.*",), ("tracking", "serving", "pipelines", "report")),
    "cli": (("cli", "_cli_*", "__main__"), ("self-check", "examples", "integrations")),
    "testing": (("testing.*",), ("self-check", "examples")),
}  # fmt: skip
"""Who may import whom: a level may import itself, those named, and what those may import."""

LOADS_BY_NAME = {
    "config._events": "the sinks are loaded at the first event, not by an import",
    "config.test_logging_monitoring": "the self-check says of each module that it was imported",
}

LONGER: dict[str, str] = {}
"""Files past 400 lines, each with the reason."""

MOST_LINES = 400
MOST_NAMES = 25
MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_CALLS = {"list", "dict", "set", "defaultdict", "deque", "Counter", "OrderedDict"}
MUTATIONS = {
    "append",
    "add",
    "update",
    "pop",
    "popitem",
    "clear",
    "extend",
    "insert",
    "remove",
    "discard",
    "setdefault",
    "sort",
    "appendleft",
}


@cache
def modules() -> dict[str, ast.Module]:
    """Every module by its name below the package; a package is its ``__init__``."""
    names = {".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))}
    return {name: ast.parse(path.read_text("utf-8"), str(path)) for name, path in names.items()}


def path_of(module: str) -> Path:
    """Where a module stands."""
    return PACKAGE.joinpath(*module.split(".")).with_suffix(".py")


def level_of(module: str) -> str:
    """The one level a module belongs to."""
    found = [
        level for level, (patterns, _) in LEVELS.items() if any(fnmatch.fnmatchcase(module, each) for each in patterns)
    ]
    assert len(found) == 1, f"{module} must stand in one line of LEVELS, it stands in {found}"
    return found[0]


def below(level: str) -> set[str]:
    """Everything a level may import."""
    return {level}.union(*(below(each) for each in LEVELS[level][1]))


def imports(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every module of this package that is imported anywhere below a node, and the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "ml_pipeline":
                    yield resolved(alias.name), node.lineno
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            if str(node.module).split(".")[0] == "ml_pipeline":
                for alias in node.names:
                    yield resolved(f"{node.module}.{alias.name}", str(node.module)), node.lineno


def resolved(dotted: str, parent: str = "") -> str:
    """Name the module that a dotted name stands for: itself, a package, or the module it is a name of."""
    for candidate in (dotted, f"{dotted}.__init__", parent, f"{parent}.__init__"):
        name = candidate.removeprefix("ml_pipeline").removeprefix(".")
        if name in modules():
            return name
    raise AssertionError(f"{dotted} does not exist")


def at_import(tree: ast.Module) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, those inside ``if`` and ``try`` too, but not for types alone."""
    waiting: list[ast.stmt] = list(tree.body)
    while waiting:
        statement = waiting.pop(0)
        yield statement
        if isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING":
            waiting += statement.orelse
        elif isinstance(statement, (ast.If, ast.Try)):
            waiting += [*statement.body, *statement.orelse]


def test_a_module_imports_only_what_stands_below_it() -> None:
    """At its top, inside functions and for types alike."""
    wrong = [
        f"{module}:{line} ({level_of(module)}) imports {name} ({level_of(name)})"
        for module, tree in modules().items()
        for name, line in imports(tree)
        if level_of(name) not in below(level_of(module))
    ]
    assert not wrong


@pytest.mark.parametrize("forbidden", ["testing", "integrations", "cli"])
def test_nobody_imports_what_is_for_the_outside(forbidden: str) -> None:
    """The test kit, the integrations and the command line are ends; ``__main__`` is the command line."""
    importers = {
        module
        for module, tree in modules().items()
        for name, _ in imports(tree)
        if name.split(".")[0] == forbidden and module.split(".")[0] != forbidden
    }
    assert importers <= ({"__main__"} if forbidden == "cli" else set())


def test_modules_do_not_import_each_other_in_circles() -> None:
    """Each can be imported first."""
    graph = {
        module: {
            name
            for statement in at_import(tree)
            if isinstance(statement, (ast.Import, ast.ImportFrom))
            for name, _ in imports(statement)
        }
        for module, tree in modules().items()
    }
    TopologicalSorter(graph).prepare()


def test_only_the_declared_modules_load_others_by_name() -> None:
    """An import that no reader and no checker sees needs a reason."""
    loading = {module for module, tree in modules().items() if {"import_module", "__import__"} & names_called(tree)}
    assert loading == set(LOADS_BY_NAME)


def names_called(tree: ast.AST) -> set[str]:
    """The last part of the name of everything that is called."""
    functions = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {
        each.attr if isinstance(each, ast.Attribute) else each.id
        for each in functions
        if isinstance(each, (ast.Attribute, ast.Name))
    }


def test_drift_is_pure() -> None:
    """Arrays in, results out: numpy and scipy alone, and nothing that reads, writes, waits or asks for the time."""
    impure = {
        "os",
        "io",
        "pathlib",
        "socket",
        "threading",
        "logging",
        "subprocess",
        "time",
        "random",
        "tempfile",
    }
    for module, tree in modules().items():
        if level_of(module) == "drift":
            found = {
                name.split(".")[0]
                for node in ast.walk(tree)
                if isinstance(node, (ast.Import, ast.ImportFrom))
                for name in (
                    [str(node.module)] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
                )
            }
            assert not found & impure, f"{module} imports {found & impure}"
            assert not {"open", "print", "input"} & names_called(tree), module


# state


def test_only_the_runtime_changes_what_a_module_holds() -> None:
    """No ``global``, no assignment to another module, no module-level container that grows."""
    wrong = [
        f"{module}:{line}"
        for module, tree in modules().items()
        if module != "_runtime"
        for line in changes_of_state(tree)
    ]
    assert not wrong


def changes_of_state(tree: ast.Module) -> Iterator[int]:
    """Lines that change what a module of this package holds."""
    siblings = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ml_pipeline")
        for alias in node.names
        if f"{node.module}.{alias.name}".removeprefix("ml_pipeline.") in modules()
    }
    containers = set(module_containers(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Global):
            yield node.lineno
        for target in changed_by(node):
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) in siblings:
                yield target.lineno
            if isinstance(target, ast.Subscript) and ast.unparse(target.value) in containers:
                yield target.lineno
        if isinstance(node, ast.Call):
            owner, _, called = ast.unparse(node.func).rpartition(".")
            if called in ("globals", "reload") or (called in MUTATIONS and owner in containers):
                yield node.lineno


def changed_by(node: ast.AST) -> list[ast.expr]:
    """What a statement assigns to or deletes."""
    if isinstance(node, (ast.Assign, ast.Delete)):
        return list(node.targets)
    return [node.target] if isinstance(node, (ast.AugAssign, ast.AnnAssign)) else []


def module_containers(tree: ast.Module) -> Iterator[str]:
    """Names at module level that hold a list, dictionary or set."""
    for statement in at_import(tree):
        if isinstance(statement, (ast.Assign, ast.AnnAssign)) and statement.value is not None:
            value = statement.value
            is_call = (
                isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in MUTABLE_CALLS
            )
            if isinstance(value, MUTABLE) or is_call:
                yield from (each.id for each in changed_by(statement) if isinstance(each, ast.Name))


def test_ids_are_set_by_restore_and_undo_alone() -> None:
    """They keep what was made of the ids in step with them; set past them, a log line would say whose it was before."""
    variables = "|".join(VARIABLES)
    setters = re.compile(rf"\b(?:{variables}|VARIABLES\[[^]]*\])\.(?:set|reset)\(")
    found = {
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if setters.search(path.read_text("utf-8"))
    }
    assert found == {"config/_context.py"}


def test_a_module_level_name_is_bound_once() -> None:
    """A second assignment would be a change of state."""
    for module, tree in modules().items():
        bound = [each.id for part in tree.body for each in changed_by(part) if isinstance(each, ast.Name)]
        assert len(bound) == len(set(bound)), (module, sorted(name for name in bound if bound.count(name) > 1))
        assert not any(isinstance(each, (ast.AugAssign, ast.Delete)) for each in at_import(tree)), module


# errors


def broad_handlers(tree: ast.AST) -> Iterator[int]:
    """Lines that catch everything."""
    for node in ast.walk(tree):
        caught: list[ast.expr | None] = []
        if isinstance(node, ast.ExceptHandler):
            caught = list(node.type.elts) if isinstance(node.type, ast.Tuple) else [node.type]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("suppress"):
            caught = list(node.args)
        for each in caught:
            if each is None or ast.unparse(each).split(".")[-1] in ("Exception", "BaseException"):
                yield int(getattr(node, "lineno", 0))


def test_one_place_catches_everything() -> None:
    """`_runtime.attempt`; `_runtime.guard` is the only other door, and no other block swallows what is raised in it."""
    found = [(module, line) for module, tree in modules().items() for line in broad_handlers(tree)]
    assert [module for module, _ in found] == ["_runtime"]
    runtime = modules()["_runtime"]
    attempt = next(node for node in runtime.body if isinstance(node, ast.FunctionDef) and node.name == "attempt")
    assert attempt.lineno <= found[0][1] <= int(attempt.end_lineno or 0)
    swallowing = [
        f"{module}.{owner.name}"
        for module, tree in modules().items()
        for owner in ast.walk(tree)
        if isinstance(owner, ast.ClassDef)
        for method in owner.body
        if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) and method.name in ("__exit__", "__aexit__")
        if method.returns is None or ast.unparse(method.returns) != "None"
    ]
    # `catch` keeps what its caller names where it is caught, on request, and logs it.
    assert swallowing == ["_runtime.guard", "config._log_catch.Catch"]


def test_errors_of_our_own_come_from_one_tree() -> None:
    """Every exception class of the package stands in ``errors.py``, or is one of an example's own."""
    outside = [
        f"{module}.{node.name}"
        for module, tree in modules().items()
        if module != "errors"
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and node.name.endswith("Error")
    ]
    assert all(name.startswith(("pipelines.", "examples.", "testing.")) for name in outside), outside


# names and sizes


def test_a_module_says_what_it_is_and_what_it_offers() -> None:
    """A docstring; and ``__all__`` where others may import it, with few names, each once, that exist."""
    for module, tree in modules().items():
        assert ast.get_docstring(tree), f"{module} needs a docstring"
        offered = exported(tree)
        is_public = not module.rpartition(".")[2].startswith("_")
        assert offered is not None or not is_public, f"{module} needs __all__"
        assert len(offered or ()) <= MOST_NAMES, f"{module} offers {len(offered or ())} names"
        assert len(offered or ()) == len(set(offered or ()))
        assert set(offered or ()) <= defined(tree), (module, set(offered or ()) - defined(tree))


def exported(tree: ast.Module) -> list[str] | None:
    """The names in ``__all__``."""
    for statement in tree.body:
        if any(isinstance(each, ast.Name) and each.id == "__all__" for each in changed_by(statement)):
            assert isinstance(statement, (ast.Assign, ast.AnnAssign))
            assert statement.value is not None
            return list(ast.literal_eval(statement.value))
    return None


def defined(tree: ast.Module) -> set[str]:
    """Every name a module has, those for types and those it makes on demand included."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {alias.asname or alias.name for alias in node.names}
        found |= {each.id for each in changed_by(node) if isinstance(each, ast.Name)}
    return found


def test_a_file_is_small() -> None:
    """At most 400 lines, or a reason; and a reason only while it is needed."""
    lines = {module: len(path_of(module).read_text("utf-8").splitlines()) for module in modules()}
    assert {module: count for module, count in lines.items() if count > MOST_LINES}.keys() == LONGER.keys()


def test_every_line_of_the_table_is_used_or_foreseen() -> None:
    """A level that loses its last module is taken out."""
    foreseen = {"tracking", "serving", "integrations"}
    used = {level_of(module) for module in modules()}
    assert set(LEVELS) - foreseen <= used
