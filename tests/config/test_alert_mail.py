"""What a mail says: of one alert and of several, and why; threads, pictures and links."""

from __future__ import annotations

import email
import email.policy
from dataclasses import replace
from email.message import EmailMessage
from typing import Any

import pytest

from ml_pipeline.config._alert_channels import AlertMessage, Reason
from ml_pipeline.config._alert_mail import Envelope, compose
from ml_pipeline.config._alert_records import Alert
from ml_pipeline.config._alert_words import MOST_SECTIONS, counted, title
from tests.config.test_alert_channels import ALERT, ID, RECIPIENTS, SENDER, part

SERIES = [[1_700_000_000.0 + 5 * index, 0.5 + index / 100] for index in range(40)]


def alerts(*severities: Any, **fields: Any) -> tuple[Alert, ...]:
    """Make alerts of these severities, each of its own operation."""
    return tuple(
        replace(ALERT, alert_id=f"a{index}", severity=severity, message=f"step{index} failed", **{"count": 1, **fields})
        for index, severity in enumerate(severities)
    )


def mail(
    *told: Alert, reason: Reason = "firing", sender: str = SENDER, delivery_id: str = ID, **fields: Any
) -> EmailMessage:
    """Compose a mail, and read it as its receiver does."""
    message = AlertMessage(delivery_id=delivery_id, alerts=told, reason=reason, timeout_seconds=1.0, **fields)
    written = compose(message, Envelope(sender, RECIPIENTS)).as_bytes()
    assert written.isascii()
    parsed = email.message_from_bytes(written, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    assert not parsed.defects
    return parsed


def test_several_alerts_are_one_mail_with_a_section_each() -> None:
    """The subject names the worst and how many more there are; the worst also comes first inside."""
    several = mail(*alerts("warning", "critical", "info", "warning"))
    assert several["Subject"] == "[CRITICAL] adni: step1 failed + 3 more"
    text, page = part(several, "plain"), part(several, "html")
    for told in (text, page):
        places = [told.index(f"step{index} failed") for index in (1, 0, 3, 2)]
        assert places == sorted(places)
        assert all(f"a{index}" in told for index in range(4))
    assert text.count("Severity:") == 4


def test_a_subject_is_cut_before_the_number_of_the_others() -> None:
    """However long the name and the message are, what is left out is in the middle."""
    long = alerts("critical", "info", pipeline="p" * 200)
    message = AlertMessage(delivery_id=ID, alerts=(replace(long[0], message="m" * 900), long[1]), timeout_seconds=1.0)
    said = title(message)
    assert len(said) == 160
    assert said.startswith("[CRITICAL] " + "p" * 59 + "…: mmm")
    assert said.endswith("m… + 1 more")


@pytest.mark.parametrize(
    ("reason", "subject", "sentence"),
    [
        ("firing", "[WARNING] adni: step0 failed", ""),
        ("resolved", "[RESOLVED] adni: step0 failed", "Resolved: the cause is gone."),
        (
            "escalated",
            "[ESCALATED] adni: step0 failed",
            "Escalated: it is worse than it was, or goes on and nobody has acknowledged it.",
        ),
        ("test", "[TEST] adni: step0 failed", "A test: nothing has happened."),
        ("digest", "[DIGEST] adni: 1 alert: 1 warning", "In sum: 1 alert: 1 warning."),
    ],
)
def test_the_reason_stands_in_the_subject_and_on_top(reason: Reason, subject: str, sentence: str) -> None:
    """Why a mail is sent is seen before it is opened; a note comes before all else."""
    told = mail(*alerts("warning"), reason=reason, note="Alertmanager has not been reachable since noon.")
    assert told["Subject"] == subject
    top = ["Alertmanager has not been reachable since noon.", *([sentence] if sentence else [])]
    assert part(told, "plain").splitlines()[: len(top)] == top
    page = part(told, "html")
    assert all(f"<p>{line}</p>" in page for line in top)
    assert ("#2e8540" in page) == (reason == "resolved"), "what is over is green"


def test_a_digest_has_a_line_for_each() -> None:
    """Of whatever many alerts, and of none."""
    told = part(mail(*alerts("info", "critical", count=3), reason="digest"), "plain")
    assert told.splitlines()[2:] == [
        "2023-11-14T22:13:20.000000Z CRITICAL adni: step1 failed (3 times)",
        "2023-11-14T22:13:20.000000Z INFO adni: step0 failed (3 times)",
    ]
    nothing = mail(reason="digest")
    assert (nothing["Subject"], part(nothing, "plain")) == ("[DIGEST] no alerts", "In sum: no alerts.\n")
    elsewhere = (*alerts("info"), replace(ALERT, pipeline="other"))
    assert mail(*elsewhere, reason="digest")["Subject"] == "[DIGEST] 2 pipelines: 2 alerts: 1 critical, 1 info"
    assert counted(elsewhere) == "2 alerts: 1 critical, 1 info"


def test_a_storm_of_alerts_is_a_mail_that_a_server_takes() -> None:
    """The worst are told whole; the others get a line."""
    many = alerts(*["warning"] * 100, details={"stacktrace": "x" * 8000, "more": "y" * 8000})
    told = mail(*many)
    text = part(told, "plain")
    assert text.count("Severity:") == MOST_SECTIONS
    assert all(f"step{index} failed" in text for index in range(100))
    assert len(told.as_bytes()) < 2_000_000
    assert len(told["References"].split()) == 21


@pytest.mark.parametrize("reason", ["firing", "resolved", "escalated"])
def test_mails_about_one_alert_are_a_thread(reason: Reason) -> None:
    """Each answers the same mail that was never sent, whatever else is in it."""
    both = mail(*alerts("info", "critical"), reason=reason)
    assert both["In-Reply-To"] == "<a1@example.org>"
    assert both["References"] == "<a0@example.org> <a1@example.org>"
    assert both["Message-ID"] == f"<{ID}@example.org>"
    assert both["List-Id"] == "ml-pipeline alerts <ml-pipeline-alerts.example.org>"


@pytest.mark.parametrize("reason", ["digest", "test"])
def test_what_is_about_no_alert_is_in_no_thread(reason: Reason) -> None:
    """A digest and a test stand alone."""
    alone = mail(*alerts("info"), reason=reason)
    assert (alone["In-Reply-To"], alone["References"]) == (None, None)


@pytest.mark.parametrize(
    ("sender", "list_id"),
    [
        ("a@" + ".".join(["d" * 60] * 4), "ml-pipeline-alerts." + ".".join(["d" * 60] * 4)),
        ("a@[127.0.0.1]", "ml-pipeline-alerts.localhost"),
        ("a@münchen.example", "ml-pipeline-alerts.xn--mnchen-3ya.example"),
    ],
)
def test_a_thread_holds_whatever_the_domain(sender: str, list_id: str) -> None:
    """Ids are ASCII, and no long domain breaks them up."""
    told = mail(*alerts("info", "info"), sender=sender)
    domain = Envelope(sender, RECIPIENTS).domain
    assert told["In-Reply-To"].strip() == f"<a0@{domain}>"
    assert told["References"].split() == [f"<a1@{domain}>", f"<a0@{domain}>"]
    assert told["Message-ID"].strip() == f"<{ID}@{domain}>"
    assert told["List-Id"].split()[-1] == f"<{list_id}>"


def test_a_mail_is_dated_by_what_it_tells() -> None:
    """An alert by when it was raised, however late it arrives; what is told later by when that was made."""
    assert mail(*alerts("info"))["Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"
    assert mail(*alerts("info"), reason="resolved")["Date"] == "Sun, 03 Nov 2024 20:07:44 +0000"
    assert mail(*alerts("info"), reason="resolved", delivery_id="x")["Date"] == "Tue, 14 Nov 2023 22:13:20 +0000"


def test_the_picture_stands_in_the_mail() -> None:
    """It comes along with the page that shows it, has its words for those who see none, and replaces the numbers."""
    told = mail(*alerts("warning", "info", details={"series": SERIES, "threshold": 0.8, "rows": 3}))
    related = told.get_payload(1)
    assert isinstance(related, EmailMessage)
    assert (told.get_content_type(), related.get_content_type()) == ("multipart/alternative", "multipart/related")
    page, first, second = related.iter_parts()
    words = "40 values over 195 s: from 0.5 to 0.89 (least 0.5, most 0.89); threshold 0.8"
    for picture in (first, second):
        assert (picture.get_content_type(), picture.get_content_disposition()) == ("image/png", "inline")
        content = picture.get_payload(decode=True)
        assert isinstance(content, bytes)
        assert content.startswith(b"\x89PNG")
        shown = f'<img src="cid:{picture["Content-ID"].strip("<>")}" alt="{words}"'
        assert shown in page.get_content()
    assert first["Content-ID"] != second["Content-ID"]
    text = part(told, "plain")
    assert f"Course:        {words}" in text
    assert "series" not in text
    assert "rows:          3" in text


@pytest.mark.parametrize(
    "series",
    ["no", [], [[1, 2]], [[1, 2], [1, 3]], [[1, 2], [2, None]], [[1, 2], [2, True]], [[1], [2]], [1, 2], [[1, 2], [2, 1e301]], [[0, 0]] * 20_000],
)  # fmt: skip
def test_what_is_no_course_is_told_as_it_is(series: Any) -> None:
    """A detail that only has the name is a detail like any other."""
    told = mail(*alerts("info", details={"series": series}))
    assert "series:" in part(told, "plain")
    assert "cid:" not in part(told, "html")


def test_the_page_that_helps_is_a_link_where_it_is_an_address() -> None:
    """Nothing else is made clickable."""
    page = part(mail(*alerts("info", runbook='https://help.example.org/?a=b&c="d"')), "html")
    address = "https://help.example.org/?a=b&amp;c=&quot;d&quot;"
    assert f'<a href="{address}">{address}</a>' in page
    for runbook in ("javascript:alert(1)", "https://a b", "DataDrift", "https://a\u202eb"):
        assert "<a " not in part(mail(*alerts("info", runbook=runbook)), "html")


def test_every_fact_of_an_alert_is_told() -> None:
    """Its name, labels, runbook and who sees to it too."""
    text = part(
        mail(*alerts("info", name="Slow", labels={"team": "ml", "site": "x"}, runbook="Slow", acknowledged_by="ann")),
        "plain",
    )
    for line in ("Alert:         Slow", "Labels:        team=ml, site=x", "Runbook:       Slow", "Seen to by:    ann"):
        assert line in text.splitlines()
