"""The file of rules and routes: YAML 1.2, read and checked whole before anything of it is taken.

PyYAML is the extra ``rules``: YAML is what people who write alert rules know from Prometheus, and nobody else needs it.
As it stands it reads YAML 1.1, where ``on`` is true, ``22:00`` is 1320 and the second of two equal keys wins unseen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from ml_pipeline.config._alert_rules import RULE_FIELDS, AlertRule
from ml_pipeline.errors import AlertError, closest

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

__all__ = ["load_rules", "read_document"]

_SECTIONS: Final = ("rules", "routes", "limits")
_MOST_BYTES: Final = 1_000_000
_MOST_NODES: Final = 100_000
_CORE: Final = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", list("-+0123456789")),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
)
"""What a plain scalar is in the core schema of YAML 1.2, each with the characters it may begin with."""


def load_rules(path: Path, *, taken: Collection[str] = ()) -> tuple[AlertRule, ...]:
    """Read the rules of a file.

    Args:
        path: The file.
        taken: Names that rules have already.

    Returns:
        The rules, in the file's order.

    Raises:
        AlertError: If the file cannot be read, is not YAML, or one rule is wrong; it names the first of those, and how
            many there are.
    """
    listed = read_document(path).get("rules")
    if not isinstance(listed, list) and listed is not None:
        raise AlertError(f"{path}: rules must be a list", listed, "begin each rule with `- name:`")
    rules: dict[str, AlertRule] = {}
    wrong: list[AlertError] = []
    for place, fields in enumerate(listed or (), 1):
        try:
            rule = _rule(fields, {*taken, *rules})
            rules[rule.name] = rule
        except AlertError as error:
            wrong.append(AlertError(f"{path}: rule {place}: {error.rule}", error.given, error.remedy))
    if wrong:
        more = f" (rules that are wrong: {len(wrong)})" if len(wrong) > 1 else ""
        raise AlertError(wrong[0].rule, wrong[0].given, wrong[0].remedy + more)
    return tuple(rules.values())


def read_document(path: Path) -> Mapping[str, Any]:
    """Read the file of rules and routes.

    Args:
        path: The file.

    Returns:
        Its sections by name, ``rules``, ``routes`` and ``limits``; an empty file has none.

    Raises:
        AlertError: If it cannot be read, is too large, is not YAML, or has another section.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as unreadable:
        raise AlertError(
            "a file of alert rules must be readable", str(path), f"correct that ({unreadable.strerror})"
        ) from None
    if len(content) > _MOST_BYTES:
        raise AlertError(f"a file of alert rules must have at most {_MOST_BYTES} bytes", str(path), "shorten it")
    document = _parsed(content, path)
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise AlertError(f"{path}: a file of alert rules must have sections", document, "begin it with `rules:`")
    for section in document:
        if section not in _SECTIONS:
            raise AlertError(
                f"{path}: a section must be one of the known ones", section, closest(str(section), _SECTIONS)
            )
    return document


def _rule(given: object, taken: Collection[str]) -> AlertRule:
    if not isinstance(given, dict):
        raise AlertError("a rule must be fields by name", given, "begin it with `- name:`")
    name = given.get("name", "")
    for key in given:
        if key not in RULE_FIELDS:
            raise AlertError(
                f"rule {name!r}: a field must be one of the known ones", key, closest(str(key), RULE_FIELDS)
            )
    for key in ("name", "on"):
        if given.get(key) is None:
            raise AlertError(f"rule {name!r}: {key} must be given", given, f"add {key}")
    rule = AlertRule(**{key: value for key, value in given.items() if value is not None})
    if rule.name in taken:
        raise AlertError("a rule must have a name of its own", rule.name, "rename one of them")
    return rule


def _parsed(content: bytes, path: Path) -> Any:
    try:
        import yaml
    except ImportError:
        raise AlertError(
            "a file of alert rules needs PyYAML", str(path), "install ml-pipeline-observability[rules]"
        ) from None

    class Loader(yaml.SafeLoader):
        """Reads the core schema, and each key once."""

        yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as its base has it

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            made = super().construct_mapping(node, deep=deep)
            if len(made) < len(node.value):
                keys = [key.value for key, _ in node.value]
                twice = next((key for key in keys if keys.count(key) > 1), "<<")
                raise yaml.constructor.ConstructorError(None, None, f"{twice!r} stands twice", node.start_mark)
            return made

    for tag, pattern, first in _CORE:
        Loader.add_implicit_resolver(tag, re.compile(f"^(?:{pattern})$"), first)
    try:
        loader = Loader(content)
        node = loader.get_single_node()
        _expanded(node, {})
        return None if node is None else loader.construct_document(node)
    except (yaml.YAMLError, ValueError, RecursionError) as broken:
        mark = getattr(broken, "problem_mark", None)
        where = f"line {mark.line + 1}, column {mark.column + 1}" if mark else "it"
        problem = getattr(broken, "problem", None) or getattr(broken, "reason", None) or str(broken)
        if isinstance(broken, RecursionError):
            problem = "nested too deep"
        raise AlertError("a file of alert rules must be YAML", str(path), f"correct {where} ({problem})") from None


def _expanded(node: Any, known: dict[int, int]) -> int:
    """Count the nodes of a document with every alias written out: a few lines of aliases to aliases are billions."""
    if id(node) in known:
        return known[id(node)]
    known[id(node)] = _MOST_NODES + 1  # a node inside itself is never written out
    inner = getattr(node, "value", ())
    parts = [part for each in inner for part in (each if isinstance(each, tuple) else (each,))]
    known[id(node)] = count = 1 + sum(_expanded(part, known) for part in parts if not isinstance(part, str))
    if count > _MOST_NODES:
        raise ValueError(f"more than {_MOST_NODES} nodes, aliases written out")
    return count
