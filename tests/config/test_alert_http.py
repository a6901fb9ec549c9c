"""What the services of the channels get over HTTP, and what is made of their answers."""

from __future__ import annotations

import base64
import datetime as dt
import json
from collections.abc import Iterator
from dataclasses import replace
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from ml_pipeline.config._alert_http import HttpService
from ml_pipeline.config._alert_pagerduty import PagerDutyChannel, dedup_key
from ml_pipeline.config._alert_slack import SlackChannel
from ml_pipeline.config._alert_teams import TeamsChannel
from ml_pipeline.config._alert_webhook import WebhookChannel, signature
from ml_pipeline.errors import AlertError, DeliveryError, SettingsError
from ml_pipeline.testing.alert_channel_contract import sample_alert, sample_message
from tests.config.alert_receivers import SECRET, HttpEnd, all_texts
from tests.config.test_alert_channels import certificate, server_side
from tests.support import free_port

__all__ = ["certificate"]  # a fixture, used by its name


@pytest.fixture
def end() -> Iterator[HttpEnd]:
    """Return a service."""
    service = HttpEnd(all_texts)
    with service.serving():
        yield service


@pytest.fixture
def secret_file(tmp_path: Path, end: HttpEnd) -> Path:
    """Return the file with the service's address."""
    file = tmp_path / "secret"
    file.write_text(end.address + "\n")
    return file


def body(end: HttpEnd, index: int = -1) -> Any:
    """Return what was posted."""
    return json.loads(end.posted[index][1])


def post(address: str, *, said: list[str] | None = None, is_secret: bool = True, timeout_seconds: float = 10.0) -> None:
    """Post something, as a channel does."""
    say = (said if said is not None else []).append
    service = HttpService("Slack", "mend it", frozenset({"no_service"}), is_secret=is_secret, say=say)
    service.post(address, b"{}", timeout_seconds=timeout_seconds)


# answers


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("400", AlertError, "Slack must take the alert (got '400'); mend it"),
        ("404", AlertError, "Slack must take the alert (got '404'); mend it"),
        ("408", DeliveryError, "Slack must take the alert (got '408'); it is tried again"),
        ("429", DeliveryError, "Slack must take the alert (got '429'); it is tried again"),
        ("503", DeliveryError, "Slack must take the alert (got '503'); it is tried again"),
        ("302", DeliveryError, "Slack must take the alert (got '302'); it is tried again"),
        ("drop", DeliveryError, "Slack must take the alert (got 'the connection was cut off'); it is tried again"),
        ("cut", DeliveryError, "Slack must take the alert (got 'the connection was cut off'); it is tried again"),
        ("garbage", DeliveryError, "Slack must take the alert (got 'the connection was cut off'); it is tried again"),
        ("hang", DeliveryError, "Slack must take the alert (got 'no answer in time'); it is tried again"),
        ("drip", DeliveryError, "Slack must take the alert (got 'no answer in time'); it is tried again"),
    ],
)
def test_an_answer_decides_what_becomes_of_an_alert(
    end: HttpEnd, fault: str, error: type[Exception], text: str
) -> None:
    """A 4xx ends the delivery, but for 408 and 429; all else is for later."""
    end.break_by(fault)
    with pytest.raises(error) as refused:
        post(end.address, timeout_seconds=0.5)
    assert type(refused.value) is error
    assert str(refused.value) == text


def test_what_was_answered_is_answered(end: HttpEnd) -> None:
    """A service that has taken an alert and then goes on talking gets it once."""
    end.break_by("body")
    post(end.address, timeout_seconds=3.0)
    assert len(end.posted) == 1


def test_no_login_of_the_environment_goes_along(end: HttpEnd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a .netrc says of a proxy or a service is for other programs."""
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password word")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{end.port}")
    post("http://alerts.invalid/", is_secret=False)
    assert "authorization" not in end.posted[0][0]


def test_a_word_the_service_is_known_for_is_shown(end: HttpEnd) -> None:
    """It tells a person what to do; no other word is repeated."""
    end.break_by("404")
    end.words = b"no_service\n"
    with pytest.raises(AlertError) as refused:
        post(end.address)
    assert refused.value.given == "404 no_service"


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ("17", 17.0),
        ("999999", 3_600.0),
        ("soon", None),
        ("-1", None),
        ("", None),
    ],
)
@pytest.mark.parametrize("status", ["429", "503"])
def test_a_service_may_ask_for_a_pause(end: HttpEnd, status: str, told: str, seconds: Any) -> None:
    """In seconds, an hour at most; what is no number is no pause."""
    end.break_by(status)
    end.headers = {"Retry-After": told}
    with pytest.raises(DeliveryError) as refused:
        post(end.address)
    assert refused.value.retry_after_seconds == seconds


@pytest.mark.parametrize(("minutes", "seconds"), [(30, pytest.approx(1_800.0, abs=60.0)), (-30, 0.0)])
def test_a_service_may_name_the_moment(end: HttpEnd, minutes: int, seconds: Any) -> None:
    """As a date, which is made here: a parameter that tells the time is another one in each process of the tests."""
    end.break_by("429")
    end.headers = {"Retry-After": format_datetime(dt.datetime.now(dt.UTC) + dt.timedelta(minutes=minutes))}
    with pytest.raises(DeliveryError) as refused:
        post(end.address)
    assert refused.value.retry_after_seconds == seconds


def test_a_service_that_is_not_there() -> None:
    """Nobody listening and no such host are told apart."""
    with pytest.raises(DeliveryError, match="nothing listens there"):
        post(f"http://127.0.0.1:{free_port()}/")
    with pytest.raises(DeliveryError, match="no such host"):
        post("https://nobody.invalid/")


@pytest.mark.parametrize(
    "address", ["", "hooks.slack.com", "ftp://example.org/", "https://", "https://a b/", "https://me:word@x.org/", "http://[::1/", "https://x.org/ö", "https://x.org:99999999/", "https://x.org/a#b"],
)  # fmt: skip
def test_an_address_that_is_none_is_not_shown(address: str) -> None:
    """It may hold the secret all the same; the file is to be corrected, and the alert waits for that."""
    with pytest.raises((SettingsError, DeliveryError)) as refused:
        post(address)
    assert "word" not in str(refused.value)
    if isinstance(refused.value, SettingsError):
        assert str(refused.value) == "the address of Slack must be like https://example.org/…; mend it"


def test_a_secret_goes_over_tls_or_not_at_all() -> None:
    """But on this machine; an address that is no secret may be in the clear."""
    with pytest.raises(SettingsError) as refused:
        post("http://192.0.2.1/secret")
    assert str(refused.value) == "the address of Slack must begin with https://; mend it"
    with pytest.raises(DeliveryError):
        post("http://nobody.invalid/", is_secret=False)


def test_tls_is_checked(end: HttpEnd, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that nobody trusts gets nothing; one that is trusted gets it, and each step is told."""
    end._server.socket = server_side(certificate).wrap_socket(end._server.socket, server_side=True)
    address = end.address.replace("http:", "https:")
    said: list[str] = []
    with pytest.raises(DeliveryError, match="its certificate is not trusted"):
        post(address, said=said)
    assert said == [
        f"connected to 127.0.0.1, port {end.port}",
        "Slack has not taken it: its certificate is not trusted",
    ]
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate[0]))
    said.clear()
    post(address, said=said)
    assert said[1] == "encrypted with TLSv1.3"
    assert len(end.posted) == 1


def test_the_whole_address_goes_over_the_wire(end: HttpEnd) -> None:
    """Path and query arrive, although the library is given neither."""
    said: list[str] = []
    post(end.address, said=said)
    assert end.paths == [f"/services/{SECRET}?sig={SECRET}"]
    assert said == [f"connected to 127.0.0.1, port {end.port}", "posted 2 bytes", "Slack has taken it (202)"]
    for rest, path in (("", "/"), ("/", "/"), ("?a=b", "/?a=b")):
        post(f"http://127.0.0.1:{end.port}{rest}")
        assert end.paths[-1] == path


def test_a_proxy_gets_the_whole_address(end: HttpEnd, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the form that proxies want, where the environment names one."""
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{end.port}")
    post("http://alerts.invalid/hook?a=b", is_secret=False)
    assert end.paths == ["http://alerts.invalid/hook?a=b"]
    assert end.posted[0][0]["host"] == "alerts.invalid"


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "No such file or directory"), ("", "it is empty"), ("two\nlines", "it holds more than a line of ASCII"), ("sécret", "it holds more than a line of ASCII")],
)  # fmt: skip
def test_a_secret_that_cannot_be_used_is_named_but_not_shown(tmp_path: Path, content: str | None, reason: str) -> None:
    """The file and the setting are; the alert waits until it is corrected."""
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError) as refused:
        SlackChannel(file).send(sample_message())
    rule = "ML_PIPELINE_SLACK_WEBHOOK_FILE must name a readable file with one line"
    assert (refused.value.rule, refused.value.given, refused.value.remedy) == (
        rule,
        str(file),
        f"correct that: {reason}",
    )
    assert refused.value.__context__ is None


# Slack


def test_slack_gets_blocks_within_its_limits(end: HttpEnd, secret_file: Path) -> None:
    """However many alerts; no text of theirs is markup."""
    long = sample_alert(message="<!channel> *x* " + "m" * 900, details={"stacktrace": "t" * 9_000, "x": "y" * 9_000})
    SlackChannel(secret_file).send(sample_message(*[long] * 100, note="n" * 5_000))
    posted = body(end)
    assert posted["text"].startswith("[CRITICAL] adni: &lt;!channel&gt; *x* ")
    assert len(posted["blocks"]) <= 50
    texts = list(leaves(posted["blocks"]))
    assert max(len(text["text"]) for text in texts) <= 3_000
    assert {text["type"] for text in texts} <= {"plain_text", "text", "link"}
    assert len(posted["blocks"][0]["text"]["text"]) <= 150


def leaves(blocks: Any) -> Iterator[dict[str, Any]]:
    """Yield every object that holds a text."""
    if isinstance(blocks, dict):
        if isinstance(blocks.get("text"), str):
            yield blocks
        blocks = list(blocks.values())
    for each in blocks if isinstance(blocks, list) else ():
        yield from leaves(each)


# Teams


def test_teams_gets_a_card_that_fits(end: HttpEnd, secret_file: Path) -> None:
    """As many alerts as one may hold; its texts are runs, which are not read as Markdown."""
    alert = sample_alert(details={"stacktrace": "t" * 9_000})
    TeamsChannel(secret_file).send(sample_message(*[alert] * 100))
    assert len(end.posted[0][1]) <= 28_000
    card = body(end)["attachments"][0]["content"]
    assert {part["type"] for part in card["body"]} == {"RichTextBlock"}
    assert card["actions"] == [{"type": "Action.OpenUrl", "title": "Runbook", "url": alert.runbook}]
    TeamsChannel(secret_file).send(sample_message(replace(alert, state="resolved")))
    colours = {run.get("color") for part in body(end)["attachments"][0]["content"]["body"] for run in part["inlines"]}
    assert colours == {None, "Good"}


# PagerDuty


@pytest.fixture
def pagerduty(end: HttpEnd, tmp_path: Path) -> PagerDutyChannel:
    """Return the channel, with a key."""
    key = tmp_path / "key"
    key.write_text(SECRET)
    return PagerDutyChannel(key, address=f"http://127.0.0.1:{end.port}/v2/enqueue")


def actions(end: HttpEnd) -> list[str]:
    """Return what was done."""
    return [body(end, index)["event_action"] for index in range(len(end.posted))]


@pytest.mark.parametrize(
    ("reason", "fields", "done"),
    [
        ("firing", {}, ["trigger"]),
        ("escalated", {}, ["trigger"]),
        ("firing", {"acknowledged_by": "ann"}, ["trigger", "acknowledge"]),
        ("firing", {"state": "resolved"}, ["resolve"]),
        ("resolved", {}, ["resolve"]),
        ("test", {}, ["trigger", "resolve"]),
        ("digest", {}, []),
    ],
)
def test_pagerduty_is_told_what_becomes_of_an_incident(
    end: HttpEnd, pagerduty: PagerDutyChannel, reason: Any, fields: dict[str, Any], done: list[str]
) -> None:
    """All under one key; what is over opens nothing, and a test leaves nothing behind."""
    pagerduty.send(sample_message(sample_alert(**fields), reason=reason))
    assert actions(end) == done
    assert len({body(end, index)["dedup_key"] for index in range(len(done))}) <= 1


def test_one_cause_is_one_incident(end: HttpEnd, pagerduty: PagerDutyChannel) -> None:
    """Whatever its message, id and exception are by now; another operation is another."""
    pagerduty.send(sample_message())
    event = body(end)
    assert event["routing_key"] == SECRET
    assert event["payload"]["severity"] == "critical"
    assert event["payload"]["source"] == "adni"
    assert event["payload"]["timestamp"] == "2023-11-14T22:13:20.000000Z"
    assert event["links"] == [{"href": "https://help.example.org/IngestionErrors", "text": "Runbook"}]
    same = sample_alert(alert_id="other", message="other", error_type="", severity="warning", count=9)
    assert event["dedup_key"] == dedup_key(same)
    for other in (
        {"operation": "x"},
        {"pipeline": "x"},
        {"model": "x"},
        {"feature": "x"},
        {"kind": "x"},
        {"name": "My"},
    ):
        assert event["dedup_key"] != dedup_key(sample_alert(**other))


def test_a_message_that_was_sent_in_part_goes_on_where_it_stopped(end: HttpEnd, pagerduty: PagerDutyChannel) -> None:
    """What has been taken is not sent again by this process, however often the rest is tried."""
    message = sample_message(*(sample_alert(operation=f"o{each}") for each in range(3)))

    class Full(list[Any]):
        def append(self, posted: Any) -> None:
            super().append(posted)
            if len(self) == 2:
                end.break_by("503")

    end.posted = Full()
    with pytest.raises(DeliveryError):
        pagerduty.send(message)
    assert len(end.posted) == 2
    end.mend()
    pagerduty.send(message)
    assert [body(end, index)["payload"]["component"] for index in range(3)] == ["o0", "o1", "o2"]
    pagerduty.send(message)
    assert len(end.posted) == 6, "once it is whole, it is a message like any other"


# webhook


@pytest.mark.parametrize(
    ("content", "key"),
    [("a plain key", b"a plain key"), ("whsec_" + base64.b64encode(b"\0\xff key").decode(), b"\0\xff key")],
)
def test_a_webhook_is_signed_with_its_time(end: HttpEnd, tmp_path: Path, content: str, key: bytes) -> None:
    """Whoever has the key can tell that it is from us, whole, and not an old one sent again."""
    file = tmp_path / "key"
    file.write_text(content)
    message = sample_message()
    WebhookChannel(end.address, file, clock=lambda: 1_700_000_000.9).send(message)
    headers, posted = end.posted[0]
    assert headers["webhook-id"] == message.delivery_id
    assert headers["webhook-timestamp"] == "1700000000"
    assert headers["webhook-signature"] == signature(
        key, posted, message_id=message.delivery_id, timestamp="1700000000"
    )
    said = json.loads(posted)
    assert {**said, "alerts": []} == {
        "version": 1,
        "delivery_id": message.delivery_id,
        "reason": "firing",
        "title": "[CRITICAL] adni: data_ingestion failed: TimeoutError: Connection timeout",
        "note": "",
        "alerts": [],
    }
    assert said["alerts"][0]["alert_id"] == message.alert.alert_id
    assert said["alerts"][0]["time"] == "2023-11-14T22:13:20.000000Z"


def test_the_signature_is_that_of_the_standard() -> None:
    """The example of the Standard Webhooks specification's reference libraries."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    content = b'{"test": 2432232314}'
    assert signature(key, content, message_id="msg_p5jXN8AQM9LWM0D4loKWxJek", timestamp="1614265330") == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


def test_a_webhook_without_a_key_is_not_signed(end: HttpEnd) -> None:
    """Its id is told all the same."""
    WebhookChannel(end.address).send(sample_message())
    assert "webhook-signature" not in end.posted[0][0]
    assert "webhook-id" in end.posted[0][0]


@pytest.mark.parametrize("content", ["whsec_", "whsec_no base64!"])
def test_a_key_that_is_none_is_not_shown(end: HttpEnd, tmp_path: Path, content: str) -> None:
    """It is named by its file."""
    file = tmp_path / "key"
    file.write_text(content)
    with pytest.raises(SettingsError) as refused:
        WebhookChannel(end.address, file).send(sample_message())
    assert str(refused.value) == (
        f"a key that begins with whsec_ must go on in Base64 (got {str(file)!r}); correct that file"
    )
