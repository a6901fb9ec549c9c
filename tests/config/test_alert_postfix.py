"""Mails through Debian's Postfix: what a real server makes of them."""

from __future__ import annotations

import email
import email.policy
import smtplib
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

import ml_pipeline
from ml_pipeline.config._alert_channels import EmailChannel
from ml_pipeline.config.alerting import alert_manager
from ml_pipeline.errors import AlertError
from ml_pipeline.testing.alert_channel_contract import HOSTILE, sample_alert, sample_message
from tests.config.postfix import PASSWORD, REALM, USER, Postfix, running_postfix
from tests.config.test_alert_channels import certificate
from tests.support import eventually

__all__ = ["certificate"]  # a fixture, used by its name


@pytest.fixture(scope="module")
def postfix(certificate: tuple[Path, Path]) -> Iterator[Postfix]:
    """Return a server."""
    with running_postfix(certificate) as server:
        yield server


@pytest.fixture
def password_file(tmp_path: Path) -> Path:
    """Return the file with the password."""
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    return file


def channel(postfix: Postfix, certificate: tuple[Path, Path], password_file: Path, **options: Any) -> EmailChannel:
    """Make a channel to it, encrypted and with a login."""
    given = {
        "sender": f"pipeline@{REALM}",
        "recipients": [f"ops@{REALM}"],
        "user": f"{USER}@{REALM}",
        "password_file": password_file,
        "tls_context": ssl.create_default_context(cafile=certificate[0]),
        **options,
    }
    return EmailChannel("127.0.0.1", postfix.port, **given)


def read(mail: bytes) -> EmailMessage:
    """Read a mail as its receiver does."""
    parsed = email.message_from_bytes(mail, policy=email.policy.default)
    assert isinstance(parsed, EmailMessage)
    return parsed


def test_a_mail_arrives_encrypted_and_logged_in(
    postfix: Postfix, certificate: tuple[Path, Path], password_file: Path
) -> None:
    """The server takes it, and each step is told; what lies in the mailbox is what was sent, picture and all."""
    before, said = len(postfix.mails()), list[str]()
    channel(postfix, certificate, password_file, say=said.append).send(sample_message())
    assert said[:3] == [
        f"connected to 127.0.0.1, port {postfix.port}",
        "encrypted with TLSv1.3",
        f"logged in as {USER}@{REALM}",
    ]
    assert said[3].startswith("the server has taken the mail (250 2.0.0 Ok: queued as ")
    mail = read(eventually(lambda: postfix.mails()[before:])[0])
    assert "with ESMTPSA" in mail["Received"]
    assert mail["Subject"].strip() == "[CRITICAL] adni: data_ingestion failed: TimeoutError: Connection timeout"
    assert mail["Message-ID"] == f"<{sample_message().delivery_id}@{REALM}>"
    assert [part.get_content_type() for part in mail.walk()][-1] == "image/png"


def test_no_text_makes_a_mail_that_it_refuses(
    postfix: Postfix, certificate: tuple[Path, Path], password_file: Path
) -> None:
    """Each hostile text arrives, to nobody but whom it is for."""
    before, sending = len(postfix.mails()), channel(postfix, certificate, password_file)
    for number, text in enumerate(HOSTILE):
        alert = replace(sample_alert(), message=text, operation=text, pipeline=text, details={text: text})
        sending.send(sample_message(alert, number=number, note=text))
    eventually(lambda: len(postfix.mails()) - before == len(HOSTILE))
    for mail in map(read, postfix.mails()[before:]):
        assert (mail["Delivered-To"], mail["To"], mail["Bcc"]) == (f"ops@{REALM}", f"ops@{REALM}", None)


def test_a_wrong_password_is_for_later(
    postfix: Postfix, certificate: tuple[Path, Path], password_file: Path, tmp_path: Path
) -> None:
    """It can be put right while the outbox keeps the mail; the server's answer does not show it."""
    wrong = tmp_path / "wrong"
    wrong.write_text("not-" + PASSWORD)
    with pytest.raises(smtplib.SMTPAuthenticationError) as refused:
        channel(postfix, certificate, wrong).send(sample_message())
    assert (refused.value.smtp_code, refused.value.smtp_error) == (535, "the mail server refused the login")


def test_without_a_login_it_relays_nothing(
    postfix: Postfix, certificate: tuple[Path, Path], password_file: Path
) -> None:
    """Its refusal is final, and names the recipient."""
    with pytest.raises(AlertError, match=r"a mail server must take a recipient .*554 5\.7\.1"):
        channel(postfix, certificate, password_file, user=None).send(sample_message())


def test_a_certificate_that_is_not_trusted_gets_nothing(
    postfix: Postfix, certificate: tuple[Path, Path], password_file: Path
) -> None:
    """Neither the mail nor the password."""
    with pytest.raises(ssl.SSLCertVerificationError):
        channel(postfix, certificate, password_file, tls_context=None).send(sample_message())


def test_a_failure_is_with_the_server_within_two_seconds(
    postfix: Postfix, certificate: tuple[Path, Path], password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the call to the server's answer, by the settings alone."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate[0]))
    with ml_pipeline.override(
        smtp_host="127.0.0.1",
        smtp_port=postfix.port,
        smtp_user=f"{USER}@{REALM}",
        smtp_password_file=password_file,
        alert_email_from=f"pipeline@{REALM}",
        alert_email_to=f"ops@{REALM}",
    ):
        begun = time.monotonic()
        alert_manager.alert_processing_failure(operation="data_ingestion", error="Connection timeout")
        eventually(lambda: alert_manager.summary().deliveries == {"email": {"sent": 1}})
        assert time.monotonic() - begun < 2.0
