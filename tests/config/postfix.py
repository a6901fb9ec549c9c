"""A Postfix of its own, in a folder of its own: STARTTLS, a login against a password file, and a mailbox."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support import eventually, free_port, require

USER, REALM, PASSWORD = "robot", "example.org", "correct-horse-battery"
_NOBODY = 65534

_MAIN = """
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
inet_interfaces = loopback-only
inet_protocols = ipv4
myhostname = mail.{realm}
mydestination =
alias_maps =
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = encrypt
smtpd_tls_auth_only = yes
smtpd_sasl_auth_enable = yes
smtpd_sasl_type = cyrus
smtpd_sasl_path = smtpd
smtpd_sasl_local_domain = {realm}
smtpd_relay_restrictions = permit_sasl_authenticated, reject
virtual_mailbox_domains = {realm}
virtual_mailbox_base = {folder}/mail
virtual_mailbox_maps = static:box/
virtual_uid_maps = static:{nobody}
virtual_gid_maps = static:{nobody}
"""

_MASTER = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
proxymap unix - - n - - proxymap
anvil unix - - n - 1 anvil
virtual unix - n n - - virtual
error unix - - n - - error
retry unix - - n - - error
postlog unix-dgram n - n - 1 postlogd
"""

_SASL = """# In the folder where Debian's Postfix looks for it: sasl, beside its own configuration.
pwcheck_method: auxprop
auxprop_plugin: sasldb
sasldb_path: {folder}/users
mech_list: PLAIN LOGIN
"""


@dataclass(frozen=True)
class Postfix:
    """Where it listens, and what has arrived.

    Attributes:
        port: Of the loopback address.
        folder: All that is its own.
    """

    port: int
    folder: Path

    def mails(self) -> list[bytes]:
        """Return what lies in the mailbox."""
        return [each.read_bytes() for each in sorted((self.folder / "mail" / "box" / "new").glob("*"))]

    def log(self) -> str:
        """Return what it says of itself."""
        return (self.folder / "log").read_text()


def self_signed(folder: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that signs itself, and its key.

    Args:
        folder: Where both are written.
    """
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [require("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True,
        capture_output=True,
    )  # fmt: skip
    return certificate, key


@contextlib.contextmanager
def running_postfix(certificate: tuple[Path, Path]) -> Iterator[Postfix]:
    """Start one, and stop it in the end; skip where it or a login cannot be had.

    Args:
        certificate: Of the server, and its key.
    """
    program, saslpasswd = require("postfix"), require("saslpasswd2")
    if os.geteuid():
        pytest.skip("Postfix drops its rights after the start, so that only root can start one")
    # Not below pytest's folder, into which the users that Postfix runs as cannot look.
    folder = Path(tempfile.mkdtemp(prefix="postfix-"))
    try:
        folder.chmod(0o755)
        postfix = Postfix(free_port(), folder)
        _configure(postfix, certificate, saslpasswd)
        command = [program, "-c", str(folder / "etc")]
        subprocess.run([*command, "start"], check=True, capture_output=True)
        try:
            eventually(lambda: (folder / "log").exists() and "daemon started" in postfix.log())
            yield postfix
        finally:
            subprocess.run([*command, "stop"], check=False, capture_output=True)
    finally:
        shutil.rmtree(folder)


def _configure(postfix: Postfix, certificate: tuple[Path, Path], saslpasswd: str) -> None:
    folder = postfix.folder
    for name in ("etc", "etc/sasl", "queue", "data", "mail"):
        (folder / name).mkdir()
    shutil.chown(folder / "data", "postfix")
    os.chown(folder / "mail", _NOBODY, _NOBODY)
    copies = [shutil.copy(each, folder / "etc") for each in certificate]
    words = {"folder": folder, "realm": REALM, "nobody": _NOBODY, "certificate": copies[0], "key": copies[1]}
    (folder / "etc" / "main.cf").write_text(_MAIN.format(**words))
    (folder / "etc" / "master.cf").write_text(_MASTER.format(port=postfix.port))
    (folder / "etc" / "sasl" / "smtpd.conf").write_text(_SASL.format(**words))
    users = folder / "users"
    subprocess.run([saslpasswd, "-p", "-c", "-f", users, "-u", REALM, USER], input=PASSWORD.encode(), check=True)
    shutil.chown(users, "postfix")
