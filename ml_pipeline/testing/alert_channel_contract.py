"""The contract of an alert channel, as tests: subclass it for a channel of your own."""

from __future__ import annotations

import logging
import time
import traceback
from typing import TYPE_CHECKING, Any, Protocol, get_args

import pytest

from ml_pipeline.config._alert_channels import AlertChannel, AlertMessage, Reason
from ml_pipeline.config._alert_records import Alert
from ml_pipeline.errors import AlertError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["HOSTILE", "AlertChannelContract", "ChannelReceiver", "sample_alert", "sample_message"]

HOSTILE = (
    "x\r\nBcc: evil@example.org\r\n\r\nbody",
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "<!channel> <https://evil.example.org|click> *bold* [click](https://evil.example.org)",
    "=?utf-8?q?x=0D=0ABcc:_evil@example.org?=",
    "\x1b[31mred\x1b[0m \u202eesrever \x00 \u2028",
    "\ud83d lone, \udc80 and \U0001f525 whole",
    '"quoted" <evil@example.org>, {curly} %s %(name)s ${HOME}',
    "m" * 1_000_000,
)
"""Texts that have broken messages: line breaks, markup of every kind, encoded words, half characters, a megabyte."""

_TIMEOUT_SECONDS = 0.6
_SLACK_SECONDS = 5.0
"""What a busy machine may take on top; a server that could draw an attempt out would take minutes."""


class ChannelReceiver(Protocol):
    """The other end of a channel, which does as it is told.

    Attributes:
        channel: The channel under test, connected to it.
        secret: What no exception, log or message may show; empty where there is none.
        temporary: Faults after which a message may be delivered later, for `break_by`.
        permanent: Faults after which it never can be.
    """

    channel: AlertChannel
    secret: str
    temporary: tuple[str, ...]
    permanent: tuple[str, ...]

    def break_by(self, fault: str) -> None:
        """Have every delivery fail so, until `mend`."""
        ...

    def mend(self) -> None:
        """Take messages again."""
        ...

    def texts(self) -> list[str]:
        """Return what a person would read of each message taken, in order; fail if one is not whole."""
        ...

    def keys(self) -> list[str]:
        """Return by what each message taken can be told from others."""
        ...


def sample_alert(**fields: Any) -> Alert:
    """Make an alert with every field filled in; what is given wins."""
    given: dict[str, Any] = {
        "alert_id": "0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f5a6",
        "time": 1_700_000_000.0,
        "last_time": 1_700_000_060.0,
        "kind": "processing_failure",
        "severity": "critical",
        "pipeline": "adni",
        "operation": "data_ingestion",
        "operation_id": "0192f3a4-5b6c-7d8e-9fa0-000000000001",
        "run_id": "0192f3a4-5b6c-7d8e-9fa0-000000000002",
        "user_id": "ann",
        "model": "classifier",
        "feature": "age",
        "error_type": "TimeoutError",
        "message": "data_ingestion failed: TimeoutError: Connection timeout",
        "count": 2,
        "name": "IngestionErrors",
        "labels": {"team": "ml"},
        "runbook": "https://help.example.org/IngestionErrors",
        "details": {
            "rows": 3,
            "stacktrace": "Traceback:\n  <module>\nTimeoutError",
            "series": [[1_700_000_000.0 + each, each / 10] for each in range(20)],
            "threshold": 1.5,
        },
    }
    return Alert(**given | fields)


def sample_message(*alerts: Alert, number: int = 1, **fields: Any) -> AlertMessage:
    """Make a message of these alerts, by default of one.

    Args:
        *alerts: What it tells.
        number: Two numbers are two deliveries.
        **fields: Fields of the message.
    """
    given = {"delivery_id": f"0192f3a4-0000-7000-8000-{number:012x}", "timeout_seconds": 10.0, **fields}
    return AlertMessage(alerts=alerts or (sample_alert(),), **given)


class AlertChannelContract:
    """What any `AlertChannel` must do; subclass it and give the fixture ``receiver``."""

    @pytest.fixture
    def receiver(self) -> Iterator[ChannelReceiver]:
        """Return the other end of the channel under test, with nothing received."""
        raise NotImplementedError("a contract is held to a channel: override the fixture `receiver`")

    def test_delivers(self, receiver: ChannelReceiver) -> None:
        """A message arrives once, with what it is about."""
        receiver.channel.send(sample_message())
        (text,) = receiver.texts()
        assert "data_ingestion failed: TimeoutError: Connection timeout" in text
        assert "adni" in text

    def test_tells_several_alerts(self, receiver: ChannelReceiver) -> None:
        """Each of them is told, whatever the reason; a note is told too."""
        told = [
            sample_alert(alert_id=f"id-{each}", operation=f"o{each}", message=f"step{each} failed") for each in range(3)
        ]
        receiver.channel.send(sample_message(*told, note="This is why."))
        text = "\n".join(receiver.texts())
        assert all(f"step{each} failed" in text for each in range(3))
        assert "This is why." in text

    def test_takes_every_reason(self, receiver: ChannelReceiver) -> None:
        """None of them is an error, and neither is a digest of nothing or a crowd of alerts."""
        for number, reason in enumerate(get_args(Reason)):
            receiver.channel.send(sample_message(reason=reason, number=number))
        receiver.channel.send(AlertMessage(delivery_id="nothing", alerts=(), reason="digest", timeout_seconds=10.0))
        crowd = [sample_alert(alert_id=f"id-{each}", operation="crowd") for each in range(100)]
        receiver.channel.send(sample_message(*crowd))
        assert receiver.texts()

    def test_repeats_can_be_told(self, receiver: ChannelReceiver) -> None:
        """Every attempt of one delivery has the same key, and another delivery has another."""
        for number in (1, 1, 2):
            alert = sample_alert(alert_id=f"id-{number}", operation=f"o{number}")
            receiver.channel.send(sample_message(alert, number=number))
        first, repeat, other = receiver.keys()
        assert first == repeat
        assert first != other

    def test_what_may_be_delivered_later(self, receiver: ChannelReceiver) -> None:
        """A fault of the moment is no `AlertError`, takes no longer than it may, and is over when it is over."""
        for fault in receiver.temporary:
            receiver.break_by(fault)
            begun = time.monotonic()
            failed = failure_of(receiver.channel, fault)
            assert not isinstance(failed, AlertError), fault
            assert time.monotonic() - begun < _TIMEOUT_SECONDS + _SLACK_SECONDS, fault
            receiver.mend()
            before = len(receiver.texts())
            receiver.channel.send(sample_message())
            assert len(receiver.texts()) == before + 1, fault

    def test_what_never_can_be_delivered(self, receiver: ChannelReceiver) -> None:
        """What the other end refuses for good is an `AlertError` with a remedy."""
        for fault in receiver.permanent:
            receiver.break_by(fault)
            failed = failure_of(receiver.channel, fault)
            assert isinstance(failed, AlertError), fault
            assert failed.remedy, fault

    def test_no_text_breaks_a_message(self, receiver: ChannelReceiver) -> None:
        """Whatever stands in the names, labels and details of an alert: the message arrives, and is whole."""
        for number, text in enumerate(HOSTILE):
            names = dict.fromkeys(("pipeline", "operation", "model", "feature", "error_type", "message", "name"), text)
            more = {"runbook": text, "acknowledged_by": text, "labels": {text: text}, "user_id": text}
            alert = sample_alert(
                **names, **more, details={text: text, "stacktrace": text, "series": text, "deep": [text]}
            )
            before = len(receiver.texts())
            receiver.channel.send(sample_message(alert, number=number, note=text))
            assert len(receiver.texts()) > before, text[:60]

    def test_no_secret_is_shown(
        self, receiver: ChannelReceiver, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
    ) -> None:
        """Neither an exception nor what it came from, nor stderr, nor any log, however the other end fails."""
        caplog.set_level(logging.DEBUG)
        receiver.channel.send(sample_message())
        for fault in (*receiver.temporary, *receiver.permanent) if receiver.secret else ():
            receiver.break_by(fault)
            failed = failure_of(receiver.channel, fault)
            shown = "".join(traceback.format_exception(failed)) + capsys.readouterr().err
            for error in chain_of(failed):
                shown += f"{error!r} {error} {error.args!r} {vars(error)!r}"
            assert receiver.secret not in shown, fault
        assert not receiver.secret or receiver.secret not in caplog.text


def failure_of(channel: AlertChannel, fault: str) -> Exception:
    """Return what sending raises; it must."""
    send: Callable[[AlertMessage], None] = channel.send
    with pytest.raises(Exception) as failed:  # noqa: PT011 - a channel may raise what it likes
        send(sample_message(timeout_seconds=_TIMEOUT_SECONDS))
    assert isinstance(failed.value, Exception), fault
    return failed.value


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception and all it came from, shown or not."""
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        each = pending.pop()
        if each is not None and id(each) not in seen:
            seen.add(id(each))
            yield each
            pending += [each.__cause__, each.__context__]
