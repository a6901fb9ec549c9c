"""A rule says what calls for an alert, and one that cannot be judged is told with its field, its value and a remedy."""

from __future__ import annotations

import contextlib
import copy
import json
import math
import pickle
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_pipeline.cli import main
from ml_pipeline.config._alert_rule_file import load_rules, read_document
from ml_pipeline.config._alert_rules import AlertRule
from ml_pipeline.config._alert_template import Template
from ml_pipeline.errors import AlertError
from tests.support import ROOT

EVALUATION: dict[str, Any] = {"name": "R", "on": "operation", "value": "metrics.roc_auc", "below": 0.8}
MEASURED: dict[str, Any] = {"name": "R", "on": "queue_length", "above": 100}


def test_a_rule_has_what_it_takes_to_judge() -> None:
    """Its condition, what it selects, and the threshold a person reads."""
    rule = AlertRule(**EVALUATION, clear=0.82, needed=2, window=3, for_seconds=60, where={"type": ["complete", "fail"]})
    assert (rule.condition.below, rule.condition.clear, rule.condition.needed, rule.condition.window) == (
        0.8,
        0.82,
        2,
        3,
    )
    assert rule.wanted == {"type": ("complete", "fail")}
    assert (rule.threshold, rule.severity, rule.cooldown_seconds) == (0.8, "warning", None)
    assert AlertRule(name="D", on="loss", drop=0.1, baseline=0.9).threshold == pytest.approx(0.8)
    assert AlertRule(name="D", on="operation", value="metrics.a", drop=0.1, baseline="attributes.b").threshold is None
    assert AlertRule(name="D", on="drift", value="verdict", equals="drift").threshold == "drift"
    assert rule == AlertRule(
        **EVALUATION, clear=0.82, needed=2, window=3, for_seconds=60, where={"type": ["complete", "fail"]}
    )
    with pytest.raises(TypeError, match="does not support item assignment"):
        rule.labels["team"] = "x"  # type: ignore[index]


def test_a_rule_can_be_given_to_another_process() -> None:
    """And copied."""
    rule = AlertRule(**EVALUATION, where={"type": ["complete"]}, labels={"team": "x"}, message="{value:.1f}")
    for other in (pickle.loads(pickle.dumps(rule)), copy.deepcopy(rule)):
        assert (other, other.wanted, other.template) == (rule, rule.wanted, rule.template)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (
            MEASURED | {"name": "queue too long"},
            (
                "a rule's name must be a word of letters, digits, _ and -, beginning with a letter (got 'queue too long'); "
                "call it as you would an alert of Prometheus, such as QueueTooLong"
            ),
        ),
        (
            MEASURED | {"on": "a value"},
            (
                "rule 'R': on must name a type of event or a measured value (got 'a value'); "
                "known: audit, drift, operation, resources"
            ),
        ),
        (
            MEASURED | {"on": "operations", "value": "metrics.a"},
            (
                "rule 'R': value must not be given for a measured value, as 'operations' is (got 'metrics.a'); "
                "did you mean 'operation'?"
            ),
        ),
        (
            MEASURED | {"where": {"kind": "training"}},
            (
                "rule 'R': where must not be given for a measured value, as 'queue_length' is "
                "(got {'kind': 'training'}); leave it out; labels of a value tell its series apart"
            ),
        ),
        (
            MEASURED | {"above": None, "drop": 1, "baseline": "attributes.b"},
            "rule 'R': baseline must be a number for a measured value (got 'attributes.b'); give the number",
        ),
        (
            EVALUATION | {"where": "training"},
            "rule 'R': where must hold values by path (got 'training'); write it as in where: {kind: training}",
        ),
        (
            EVALUATION | {"where": {"knd": "training"}},
            "rule 'R': where must name a field that events of 'operation' have (got 'knd'); did you mean 'kind'?",
        ),
        (
            EVALUATION | {"where": {"kind": {"a": 1}}},
            (
                "rule 'R': where must give each path a text, a number, or a list of them (got {'kind': {'a': 1}}); "
                "correct kind"
            ),
        ),
        (
            EVALUATION | {"where": {"attributes.*": "x"}},
            (
                "rule 'R': where must name a field that events of 'operation' have (got 'attributes.*'); "
                "say which entry, as in attributes.NAME"
            ),
        ),
        (
            EVALUATION | {"value": ""},
            "rule 'R': value must name the field of the event that is watched (got ''); as in value: metrics.roc_auc",
        ),
        (
            EVALUATION | {"value": "metric.roc_auc"},
            (
                "rule 'R': value must name a field that events of 'operation' have (got 'metric.roc_auc'); "
                "did you mean 'metrics'?"
            ),
        ),
        (
            EVALUATION | {"value": "metrics"},
            (
                "rule 'R': value must name a field that events of 'operation' have (got 'metrics'); "
                "say which entry, as in metrics.NAME"
            ),
        ),
        (
            EVALUATION | {"value": "duration_seconds.x"},
            (
                "rule 'R': value must name a field that events of 'operation' have (got 'duration_seconds.x'); "
                "write duration_seconds alone: it has no parts"
            ),
        ),
        (
            EVALUATION | {"value": "error"},
            (
                "rule 'R': value must name a field that events of 'operation' have (got 'error'); "
                "say which part, as in error.type"
            ),
        ),
        (
            EVALUATION | {"value": "error.typ"},
            "rule 'R': value must name a field that events of 'operation' have (got 'error.typ'); did you mean 'type'?",
        ),
        (
            MEASURED | {"below": 1},
            (
                "rule 'R': exactly one of above, below, equals, drop must say what is bad (got ['above', 'below']); "
                "keep one of them; two levels are two rules"
            ),
        ),
        (
            MEASURED | {"above": None},
            (
                "rule 'R': exactly one of above, below, equals, drop must say what is bad (got []); "
                "add one, as in below: 0.8"
            ),
        ),
        (
            MEASURED | {"above": "80%"},
            "rule 'R': above must be a number (got '80%'); write it without a unit, as in 0.8",
        ),
        (
            MEASURED | {"above": None, "drop": 0.1, "baseline": math.nan},
            "rule 'R': baseline must be a number (got nan); write it without a unit, as in 0.8",
        ),
        (
            MEASURED | {"above": -(10**400)},
            f"rule 'R': above must be a number (got -1{'0' * 197}…); write it without a unit, as in 0.8",
        ),
        (
            MEASURED | {"above": math.inf},
            "rule 'R': above must be a number (got inf); write it without a unit, as in 0.8",
        ),
        (
            MEASURED | {"above": None, "equals": [1]},
            "rule 'R': equals must be a text, a number, or true or false (got [1]); write the one value that is bad",
        ),
        (
            MEASURED | {"clear": 101},
            (
                "rule 'R': clear must lie at or below the level, which is 100 (got 101); "
                "a value must come back, not go further"
            ),
        ),
        (
            EVALUATION | {"clear": 0.7},
            "rule 'R': clear must lie at or above below, which is 0.8 (got 0.7); a value must come back, not go further",
        ),
        (
            MEASURED | {"above": None, "equals": 1, "clear": 0},
            "rule 'R': clear must go with above, below or drop (got 0); leave it out: another value is good again",
        ),
        (
            MEASURED | {"baseline": 1},
            "rule 'R': baseline must go with drop, and drop with baseline (got 1); give both or neither",
        ),
        (
            MEASURED | {"above": None, "drop": 0.1},
            "rule 'R': baseline must go with drop, and drop with baseline (got None); give both or neither",
        ),
        (
            MEASURED | {"above": None, "drop": -0.1, "baseline": 1},
            "rule 'R': drop must be 0 or more (got -0.1); say how far under its baseline the value may lie",
        ),
        (
            MEASURED | {"above": None, "drop": 0.1, "baseline": [1]},
            "rule 'R': baseline must be a number or a field of the event (got [1]); as in baseline: 0.92",
        ),
        (
            MEASURED | {"needed": 0},
            "rule 'R': needed must be a whole number from 1 to 1000 (got 0); count observations",
        ),
        (
            MEASURED | {"window": 2.5},
            "rule 'R': window must be a whole number from 1 to 1000 (got 2.5); count observations",
        ),
        (
            MEASURED | {"escalate_after": True},
            "rule 'R': escalate_after must be a whole number of at least 1 (got True); count observations",
        ),
        (
            MEASURED | {"needed": 3},
            "rule 'R': needed must be at most window, which is 1 (got 3); 2 of 3 is needed: 2, window: 3",
        ),
        (MEASURED | {"for_seconds": -1}, "rule 'R': for_seconds must be 0 or more (got -1); give seconds"),
        (
            MEASURED | {"for_seconds": None},
            "rule 'R': for_seconds must be a number (got None); write it without a unit, as in 0.8",
        ),
        (
            MEASURED | {"cooldown_seconds": "5m"},
            "rule 'R': cooldown_seconds must be a number (got '5m'); write it without a unit, as in 0.8",
        ),
        (
            MEASURED | {"severity": "warn"},
            "rule 'R': severity must be one of the known ones (got 'warn'); did you mean 'warning'?",
        ),
        (
            MEASURED | {"runbook": 5},
            "rule 'R': runbook must be a text of at most 1000 characters (got 5); shorten it",
        ),
        (
            MEASURED | {"labels": ["team"]},
            "rule 'R': labels must be at most 20 texts by name (got ['team']); as in labels: {team: imaging}",
        ),
        (
            MEASURED | {"labels": {"team": 1}},
            "rule 'R': labels must be texts by names of letters, digits and _ (got {'team': 1}); correct 'team'",
        ),
        (
            MEASURED | {"labels": {"severity": "x"}},
            "rule 'R': labels must not name what every alert has (got {'severity': 'x'}); leave out 'severity'",
        ),
        (
            MEASURED | {"message": "{valeu}"},
            (
                "rule 'R': message must have only gaps with a known name (got '{valeu}'); "
                "{valeu} is no field of it: did you mean 'value'?"
            ),
        ),
        (
            MEASURED | {"message": "{value"},
            (
                "rule 'R': message must have only gaps with a known name (got '{value'); "
                "double a brace that is meant as one, and close every gap, as in {value}"
            ),
        ),
        (
            MEASURED | {"message": "{value!r}"},
            (
                "rule 'R': message must have only gaps with a known name (got '{value!r}'); "
                "write {value} alone, or with the form of a number as in {value:.3f}"
            ),
        ),
    ],
)
def test_a_rule_that_cannot_be_judged_is_told(given: dict[str, Any], wanted: str) -> None:
    """The rule by name, what must hold, what was given, and what to do."""
    with pytest.raises(AlertError) as wrong:
        AlertRule(**given)
    assert str(wrong.value) == wanted


# Messages


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("{name}: {value} > {threshold}", "R: 0.123457 > 1"),
        ("{value:.2f} of {{all}} {baseline}", "0.12 of {all} "),
        ("{value:d} {model:.1f}", "0.123457 {x}"),
        ("{labels.site} {labels.nobody}.", "Köln ."),
        ("plain", "plain"),
    ],
)
def test_a_message_is_filled(text: str, wanted: str) -> None:
    """Numbers have six digits or the form asked for; what is missing is empty; what is filled in is not read again."""
    template = Template.of(text, frozenset({"name", "value", "threshold", "baseline", "model"}))
    fields = {"name": "R", "value": 0.123456789, "threshold": 1, "baseline": None, "model": "{x}"}
    assert template.fill(fields, {"site": "Köln"}) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "{0}",
        "{value.real}",
        "{value[0]}",
        "{value:{name}}",
        "{value:>999999999}",
        "}",
        "{labels.}",
        "{labels.a.b}",
    ],
)
def test_a_message_reaches_nothing_but_its_fields(text: str) -> None:
    """No attribute, no item, no gap in a gap, no width that fills the memory."""
    with pytest.raises(ValueError, match=r"is no field of it|double a brace|write \{value\} alone"):
        Template.of(text, frozenset({"value", "name"}))


@given(st.text(), st.one_of(st.none(), st.text(), st.floats(), st.integers(), st.booleans()))
def test_a_message_that_was_taken_can_be_filled(text: str, value: object) -> None:
    """Whatever a rule's author writes is either refused at once or never fails."""
    try:
        template = Template.of(text.replace("v", "{value:.3f}"), frozenset({"value"}))
    except ValueError:
        return
    assert isinstance(template.fill({"value": value}, {}), str)


# The file

GOOD = """
rules:
  - name: QueueTooLong
    on: queue_length
    above: 1e2
    labels: {team: "on"}
    escalate_after: 3
  - name: AucTooLow
    on: operation
    where: {kind: evaluation, type: complete}
    value: metrics.roc_auc
    below: 0.8
    message: null
routes: [anything]
"""


def rules_file(text: str | bytes) -> Path:
    """Write a file of rules."""
    path = Path("rules.yml").absolute()
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_file_is_read() -> None:
    """Rules in their order; what is null is left out, `on` is a text, and 1e2 a number."""
    path = rules_file(GOOD)
    first, second = load_rules(path)
    assert (first.name, first.on, first.above, first.labels, first.escalate_after) == (
        "QueueTooLong",
        "queue_length",
        100.0,
        {"team": "on"},
        3,
    )
    assert (second.wanted, second.below) == ({"kind": ("evaluation",), "type": ("complete",)}, 0.8)
    assert read_document(path)["routes"] == ["anything"]
    assert load_rules(rules_file("")) == load_rules(rules_file("rules:")) == ()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("rules: {}", "{path}: rules must be a list (got {}); begin each rule with `- name:`"),
        ("- a", "{path}: a file of alert rules must have sections (got ['a']); begin it with `rules:`"),
        ("rule: []", "{path}: a section must be one of the known ones (got 'rule'); did you mean 'rules'?"),
        ("rules: [5]", "{path}: rule 1: a rule must be fields by name (got 5); begin it with `- name:`"),
        (
            GOOD.replace("above:", "limit:"),
            (
                "{path}: rule 1: rule 'QueueTooLong': a field must be one of the known ones (got 'limit'); "
                "known: above, baseline, below, clear, cooldown_seconds, drop, equals, escalate_after, escalate_seconds, "
                "for_seconds, kind, labels, message, name, needed, on, per, runbook, severity, value, where, window"
            ),
        ),
        (
            GOOD.replace("labels:", "label:"),
            (
                "{path}: rule 1: rule 'QueueTooLong': a field must be one of the known ones (got 'label'); "
                "did you mean 'labels'?"
            ),
        ),
        ("rules: [{name: R}]", "{path}: rule 1: rule 'R': on must be given (got {'name': 'R'}); add on"),
        (
            GOOD.replace("below: 0.8", "below: low").replace("1e2", "high"),
            (
                "{path}: rule 1: rule 'QueueTooLong': above must be a number (got 'high'); "
                "write it without a unit, as in 0.8 (rules that are wrong: 2)"
            ),
        ),
        (
            GOOD.replace("AucTooLow", "QueueTooLong"),
            "{path}: rule 2: a rule must have a name of its own (got 'QueueTooLong'); rename one of them",
        ),
        (
            "rules:\n  - name: A\n    on: x\n    name: B\n",
            "a file of alert rules must be YAML (got '{path}'); correct line 2, column 5 ('name' stands twice)",
        ),
        (
            "rules: [",
            (
                "a file of alert rules must be YAML (got '{path}'); correct line 1, column 9 "
                "(expected the node content, but found '<stream end>')"
            ),
        ),
        (
            "a: !!python/object/apply:os.system [true]",
            (
                "a file of alert rules must be YAML (got '{path}'); correct line 1, column 4 (could not determine a "
                "constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system')"
            ),
        ),
        (b"rules: \xff", "a file of alert rules must be YAML (got '{path}'); correct it (invalid start byte)"),
        (
            "rules: &a [*a]",
            "a file of alert rules must be YAML (got '{path}'); correct it (more than 100000 nodes, aliases written out)",
        ),
        (
            "a: &a [x, x, x, x, x, x, x, x, x]\n"
            + "\n".join(f"b{n}: &b{n} [{', '.join(['*a' if n == 0 else f'*b{n - 1}'] * 9)}]" for n in range(9)),
            "a file of alert rules must be YAML (got '{path}'); correct it (more than 100000 nodes, aliases written out)",
        ),
        ("[" * 5_000, "a file of alert rules must be YAML (got '{path}'); correct it (nested too deep)"),
    ],
)
def test_a_file_that_is_wrong_is_told(text: str | bytes, wanted: str) -> None:
    """Where in the file, which rule, what must hold, what was given, and what to do."""
    path = rules_file(text)
    with pytest.raises(AlertError) as wrong:
        load_rules(path)
    assert str(wrong.value) == wanted.replace("{path}", str(path))


def test_the_file_that_the_guide_shows_is_taken() -> None:
    """As it stands there."""
    page = (ROOT / "docs" / "how-to" / "alert-rules.md").read_text("utf-8")
    shown = re.findall(r"^ *```yaml\n(.*?)^ *```", page, re.MULTILINE | re.DOTALL)
    assert len(load_rules(rules_file(textwrap.dedent(shown[0])))) == 6


def test_a_file_that_cannot_be_read_is_told() -> None:
    """It is not there, or is no file of rules by its size."""
    with pytest.raises(AlertError, match=r"must be readable \(got '.*none\.yml'\); correct that \(No such file"):
        load_rules(Path("none.yml").absolute())
    with pytest.raises(AlertError, match=r"must have at most 1000000 bytes \(got '.*'\); shorten it"):
        load_rules(rules_file(b"#" * 1_000_001))


def test_without_pyyaml_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """The extra is named."""
    monkeypatch.setitem(__import__("sys").modules, "yaml", None)
    with pytest.raises(AlertError, match=r"needs PyYAML \(got '.*'\); install ml-pipeline-observability\[rules\]"):
        load_rules(rules_file(GOOD))


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(["name", "on", "above", "where", "labels", "window", "message", "value"]), inner
            )
        ),
        max_leaves=12,
    )
)
def test_no_file_breaks_in_another_way(document: object) -> None:
    """Whatever stands in it, it is taken or told; a person never sees a traceback."""
    import yaml

    path = rules_file(yaml.safe_dump({"rules": [document]}))
    with contextlib.suppress(AlertError):
        load_rules(path)


# On the command line


def test_rules_are_checked_and_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """A line each, in words; as JSON, every field."""
    good = GOOD.replace("routes: [anything]", "routes: [{channels: [slack]}]")
    path = rules_file(good.replace("message: null", "needed: 2\n    window: 3\n    for_seconds: 60\n    clear: 0.82"))
    assert main(["alerts", "rules", str(path)]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1] == ["QueueTooLong", "warning", "queue_length", "above", "100"]
    shown = "AucTooLow warning operation: metrics.roc_auc where kind=evaluation, type=complete below 0.8, clear at 0.82, 2 of 3, for 60 s"
    assert lines[2] == shown.split()
    assert main(["alerts", "rules", "--json", str(path)]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["labels"], second["where"]) == ({"team": "on"}, {"kind": "evaluation", "type": "complete"})


def test_the_file_of_the_settings_is_listed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By default; without one there are none."""
    assert main(["alerts", "rules"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    text = "rules: [{name: A, on: auc, drop: 0.1, baseline: 0.9}, {name: B, on: state, equals: bad}, {name: C, on: operation, value: counts.a, per: counts.b, below: 1}]"
    monkeypatch.setenv("ML_PIPELINE_ALERT_RULES_FILE", str(rules_file(text)))
    assert main(["alerts", "rules"]) == 0
    out = capsys.readouterr().out
    assert "more than 0.1 below 0.9" in out
    assert "is bad" in out
    assert "operation: counts.a / counts.b" in out


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("routes: [{match: {severity: crit}, channels: [file]}]", "route 1: "),
        ("routes: [{match: {}, channels: [emial]}]", "a channel must be among those alerts are delivered to"),
        ("limits: {file: 20/fortnight}", "limits: file must be so many a second, minute or hour"),
    ],
)
def test_routes_of_the_file_are_checked_too(text: str, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever checks a file learns all that is wrong with it, not only of its rules."""
    assert main(["alerts", "rules", str(rules_file(text))]) == 2
    assert told in capsys.readouterr().err


def test_a_wrong_file_is_told_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """In one line, with the exit code for bad input."""
    assert main(["alerts", "rules", str(rules_file("rules: [{name: A, on: x}]"))]) == 2
    assert "rule 'A': exactly one of above, below, equals, drop must say what is bad" in capsys.readouterr().err
