"""Who gets which alert, when, and how many at most."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import ml_pipeline
from ml_pipeline.config._alert_records import Alert
from ml_pipeline.config._alert_routes import RateLimit, Routes
from ml_pipeline.errors import AlertError
from ml_pipeline.testing.alert_channel_contract import sample_alert

ALL = ("email", "slack", "pagerduty", "console", "file")
NOON = dt.datetime(2026, 1, 15, 12, 0, tzinfo=dt.UTC).timestamp()
HOUR = 3_600.0


def sent(routes: list[dict[str, Any]], alert: Alert, time: float = NOON) -> tuple[str, ...]:
    """Return where an alert goes."""
    return Routes.read({"routes": routes}, ALL).channels(alert, time)


@pytest.mark.parametrize(("severity", "channels"), [("critical", ALL), ("warning", ALL), ("info", ("console", "file"))])
def test_without_routes_a_warning_goes_everywhere(severity: Any, channels: tuple[str, ...]) -> None:
    """And what is only said goes to nobody's pocket."""
    assert sent([], sample_alert(severity=severity)) == channels
    assert sent([{"match": {"pipeline": "other"}, "channels": []}], sample_alert(severity=severity)) == channels


@pytest.mark.parametrize(
    "match",
    [
        {"severity": "critical"},
        {"severity": ["warning", "critical"]},
        {"kind": "processing_failure", "pipeline": "ad*", "operation": "data_*", "model": "*", "feature": "age"},
        {"name": "IngestionErrors"},
        {"labels": {"team": ["ops", "m?"]}},
        {},
        None,
    ],
)  # fmt: skip
def test_a_route_takes_what_it_matches(match: Any) -> None:
    """Every field named must match one of its patterns."""
    assert sent([{"match": match, "channels": ["slack"]}], sample_alert()) == ("slack",)


@pytest.mark.parametrize(
    "match", [{"severity": "info"}, {"severity": "critical", "pipeline": "other"}, {"labels": {"site": "x"}}]
)
def test_a_route_leaves_what_it_does_not_match(match: Any) -> None:
    """One field that does not match is enough."""
    assert sent([{"match": match, "channels": ["slack"]}], sample_alert()) == ALL


def test_the_first_route_that_matches_is_taken_and_may_let_others_follow() -> None:
    """In the order of the file; a channel is named once."""
    routes: list[dict[str, Any]] = [
        {"match": {"severity": "critical"}, "channels": ["pagerduty", "slack"], "continue": True},
        {"channels": ["slack", "email"]},
        {"channels": ["console"]},
    ]
    assert sent(routes, sample_alert()) == ("pagerduty", "slack", "email")
    assert sent(routes, sample_alert(severity="warning")) == ("slack", "email")
    assert sent([{"channels": []}], sample_alert()) == ()


@pytest.mark.parametrize(
    ("time", "zone", "open_hours"),
    [
        ("22:00-06:00", None, {22, 23, 0, 1, 2, 3, 4, 5}),
        ("06:00-22:00", None, set(range(6, 22))),
        ("00:00-24:00", None, set(range(24))),
        ("22:00-06:00", "Asia/Tokyo", set(range(13, 21))),
    ],
)
def test_a_route_may_be_for_a_time_of_day(time: str, zone: str | None, open_hours: set[int]) -> None:
    """From the first minute to before the last, over midnight too, in its zone; by default UTC."""
    route = {"time": time, "channels": ["pagerduty"]} | ({"zone": zone} if zone else {})
    midnight = NOON - 12 * HOUR
    for hour in range(24):
        for second in (0.0, HOUR - 1):
            taken = sent([route], sample_alert(), midnight + hour * HOUR + second) == ("pagerduty",)
            assert taken == (hour in open_hours), (hour, second)


def test_a_time_follows_the_clocks_of_its_zone() -> None:
    """Summer time moves it, as it moves people."""
    route = {"time": "08:00-09:00", "zone": "Europe/Berlin", "channels": ["pagerduty"]}
    for month, utc in ((1, 7), (7, 6)):
        moment = dt.datetime(2026, month, 15, utc, 30, tzinfo=dt.UTC).timestamp()
        assert sent([route], sample_alert(), moment) == ("pagerduty",)
        assert sent([route], sample_alert(), moment + HOUR) == ALL


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ({"routes": {}}, "routes must be a list (got {}); begin each with `- match:`"),
        ({"routes": ["slack"]}, "route 1 must be fields by name (got 'slack'); begin it with `- match:`"),
        ({"routes": [{"channels": []}, {"chanels": []}]}, "route 2: a field must be one of the known ones (got 'chanels'); did you mean 'channels'?"),
        ({"routes": [{"match": {}}]}, "route 1: channels must be a list (got None); write [] to deliver to none"),
        ({"routes": [{"channels": ["slak"]}]}, "route 1: a channel must be among those alerts are delivered to (got 'slak'); did you mean 'slack'?; or add it to ML_PIPELINE_ALERT_CHANNELS"),
        ({"routes": [{"channels": [], "continue": "no"}]}, "route 1: continue must be true or false (got 'no'); leave it out for false"),
        ({"routes": [{"channels": [], "match": "all"}]}, "route 1: match must be patterns by field (got 'all'); write {} for every alert"),
        ({"routes": [{"channels": [], "match": {"sevrity": "info"}}]}, "route 1: what is matched must be a field of an alert (got 'sevrity'); did you mean 'severity'?"),
        ({"routes": [{"channels": [], "match": {"severity": "criticl"}}]}, "route 1: a severity must be one of the known ones (got 'criticl'); did you mean 'critical'?"),
        ({"routes": [{"channels": [], "match": {"pipeline": 3}}]}, "route 1: pipeline must be a text or a list of texts (got 3); put it in quotation marks"),
        ({"routes": [{"channels": [], "match": {"labels": ["team"]}}]}, "route 1: labels must be patterns by name (got ['team']); write them as {team: ml}"),
        ({"routes": [{"channels": [], "match": {"labels": {"team": []}}}]}, "route 1: team must be a text or a list of texts (got []); put it in quotation marks"),
        ({"routes": [{"channels": [], "time": "22-6"}]}, "route 1: a time must be like \"22:00-06:00\" (got '22-6'); leave it out for the whole day"),
        ({"routes": [{"channels": [], "time": "24:00-06:00"}]}, "route 1: a time must be like \"22:00-06:00\" (got '24:00-06:00'); leave it out for the whole day"),
        ({"routes": [{"channels": [], "time": 1320}]}, "route 1: a time must be like \"22:00-06:00\" (got 1320); leave it out for the whole day"),
        ({"routes": [{"channels": [], "zone": "Europe/Berlni"}]}, "route 1: a zone must be one that this machine knows (got 'Europe/Berlni'); as in Europe/Berlin"),
        ({"routes": [{"channels": [], "zone": "../passwd"}]}, "route 1: a zone must be one that this machine knows (got '../passwd'); as in Europe/Berlin"),
        ({"limits": ["slack"]}, "limits must be texts by channel (got ['slack']); as in slack: 20/minute"),
        ({"limits": {"slak": "1/minute"}}, "a limit must be for a channel that alerts are delivered to (got 'slak'); did you mean 'slack'?"),
        ({"limits": {"slack": "20"}}, "limits: slack must be so many a second, minute or hour (got '20'); as in 20/minute"),
        ({"limits": {"slack": "0/minute"}}, "limits: slack must be so many a second, minute or hour (got '0/minute'); as in 20/minute"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_route_is_one_clear_line(document: dict[str, Any], text: str) -> None:
    """It says which route, what is wrong with it, and what to write."""
    with pytest.raises(AlertError) as refused:
        Routes.read(document, ALL)
    assert str(refused.value) == text


def test_a_limit_is_kept_and_comes_free_again() -> None:
    """So many in so long; then how long to wait, which counts nothing."""
    limits = Routes.read({"limits": {"email": "2/minute"}}, ALL).limits
    assert [limits.delay("email", now) for now in (100.0, 110.0, 120.0, 159.0)] == [0.0, 0.0, 40.0, 1.0]
    assert [limits.delay("email", now) for now in (160.0, 160.0, 170.0)] == [0.0, 10.0, 0.0]
    assert not any(limits.delay("console", 100.0) for _ in range(1_000))
    assert sum(not limits.delay("slack", 100.0) for _ in range(1_000)) == 60, "what Slack takes without being asked"


def test_a_clock_that_is_set_back_holds_nothing_up() -> None:
    """An hour back is not an hour's wait."""
    limits = RateLimit({"email": (1, 60.0)})
    assert limits.delay("email", 10_000.0) == 0.0
    assert limits.delay("email", 6_400.0) == 0.0
    assert limits.delay("email", 6_401.0) == 59.0


@given(st.lists(st.floats(0, 30), max_size=60), st.integers(1, 5))
def test_a_limit_holds_in_every_window(pauses: list[float], most: int) -> None:
    """However the messages come, no window of its length has more; and waiting as told is enough."""
    limit, now, sent_at = RateLimit({"email": (most, 10.0)}), 1_000.0, []
    for pause in pauses:
        now += pause
        wait = limit.delay("email", now)
        if wait:
            now += wait + 1e-6
            assert limit.delay("email", now) == 0.0
        sent_at.append(now)
    assert all(later - first >= 10.0 - 1e-6 for first, later in zip(sent_at, sent_at[most:], strict=False))


def test_routes_are_read_from_the_file_of_rules(tmp_path: Path) -> None:
    """Beside the rules; without a file, what the settings name."""
    pytest.importorskip("yaml")
    file = tmp_path / "alerts.yml"
    file.write_text(
        'routes:\n  - match: {severity: critical}\n    time: "00:00-24:00"\n    channels: [file]\nlimits: {file: 1/hour}\n'
    )
    with ml_pipeline.override(alert_channels="console,file", alert_rules_file=file) as settings:
        routes = Routes.of(settings)
        assert routes.channels(sample_alert(), NOON) == ("file",)
        assert routes.limits.delay("file", NOON) == 0.0
        assert routes.limits.delay("file", NOON) == HOUR
        with pytest.raises(AlertError, match=r"^route 1: a channel must be among"):
            Routes.of(settings, ["pager"])
    with ml_pipeline.override(alert_channels="console,file") as settings:
        assert Routes.of(settings).channels(sample_alert(), NOON) == ("console", "file")
        assert Routes.of(settings, ["pager"]).channels(sample_alert(), NOON) == ("pager",)
