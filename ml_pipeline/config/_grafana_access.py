"""Where Grafana is and who may write to it: from arguments, from the settings, or this project's own stack."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from ml_pipeline.config._hosts import is_loopback
from ml_pipeline.errors import SettingsError

if TYPE_CHECKING:
    from urllib.parse import SplitResult

__all__ = ["PROJECT", "GrafanaAccess", "checked_address", "find_access", "project_variable"]

PROJECT: Final = Path(__file__).resolve().parents[2]
STACK_PASSWORD: Final = Path(".stack/secrets/grafana_admin_password")
"""Below the project's folder; ``make up`` generates it."""

_HEADER_VALUE: Final = re.compile(r"[!-~]+")
_WAYS: Final = (
    "give --token-file, --password-file, GRAFANA_TOKEN or GRAFANA_PASSWORD_FILE; "
    "for the stack of this project make up generates a password"
)


@dataclass(frozen=True, slots=True)
class GrafanaAccess:
    """An address and a way in: a token, or a user with a password.

    Args:
        url: Grafana's address with its path, if it has one; it holds no user and no password.
        token: A service account's token; it wins over user and password.
        user: A user, where there is no token.
        password: That user's password.

    Raises:
        SettingsError: If the address is none, or neither token nor password is given.
    """

    url: str
    token: str | None = field(default=None, repr=False)
    user: str = "admin"
    password: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "url", checked_address("Grafana's address", self.url))
        if not self.token and not self.password:
            raise SettingsError("Grafana needs a token or a password", remedy=_WAYS)
        if self.token and not _HEADER_VALUE.fullmatch(self.token):
            raise SettingsError("a Grafana token must be one word of plain ASCII", remedy="give the token alone")


def find_access(
    url: str | None = None,
    *,
    user: str | None = None,
    password_file: Path | None = None,
    token_file: Path | None = None,
    project: Path = PROJECT,
) -> GrafanaAccess:
    """Find Grafana, and the way in.

    Args:
        url: Its address; by default ``GRAFANA_URL``, and without that the stack's on this host.
        user: A user; by default ``GRAFANA_USER``.
        password_file: A file with that user's password. By default ``GRAFANA_PASSWORD_FILE``, and without that, for
            the stack's Grafana alone, the generated password.
        token_file: A file with a token, which wins over a password; by default ``GRAFANA_TOKEN`` holds one.
        project: The folder of the stack.

    Returns:
        The address and the credentials.

    Raises:
        SettingsError: If a setting is wrong, a file cannot be read, or there is neither token nor password.
    """
    from ml_pipeline.settings import load_settings

    if token_file and (password_file or user):
        raise SettingsError("--token-file stands alone", remedy="leave out --user and --password-file, or the token")
    settings = load_settings()
    stack_url = f"http://127.0.0.1:{_stack_port(project)}"
    url = url or (settings.grafana_url if "grafana_url" in settings.model_fields_set else stack_url)
    user = user or settings.grafana_user
    if token_file:
        return GrafanaAccess(url, token=_secret(token_file))
    if settings.grafana_token and not password_file:
        return GrafanaAccess(url, token=settings.grafana_token)
    password_file = password_file or settings.grafana_password_file or _stack_password(url, stack_url, project)
    if password_file is None:
        raise SettingsError("Grafana needs a token or a password", remedy=_WAYS)
    return GrafanaAccess(url, user=user, password=_secret(password_file))


def checked_address(what: str, url: str) -> str:
    """Judge the address of a service.

    Args:
        what: How a message calls it.
        url: The address.

    Returns:
        The address without a slash at its end.

    Raises:
        SettingsError: If it is no ``http`` or ``https`` address, or holds a user or a password.
    """
    if "@" in url:
        raise SettingsError(f"{what} must hold no user and no password", remedy="give the address alone")
    parts = _split(url)
    if parts is None or parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingsError(f"{what} must look like http://127.0.0.1:3000", url, "correct it")
    return url.rstrip("/")


def project_variable(name: str, project: Path = PROJECT) -> str | None:
    """Read a variable of the stack.

    Args:
        name: Such as ``GRAFANA_PORT``.
        project: The folder whose ``.env`` holds it where the environment does not.

    Returns:
        Its value; None where it is unset or empty.

    Raises:
        SettingsError: If the file is there and cannot be read.
    """
    from dotenv import dotenv_values

    if os.environ.get(name):
        return os.environ[name]
    file = project / ".env"
    if not file.is_file():
        return None
    try:
        return dotenv_values(file).get(name) or None
    except (OSError, UnicodeDecodeError):
        raise SettingsError("the project's .env must be a readable text file", str(file), "correct it") from None


def _split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no number
    except ValueError:
        return None
    return None if re.search(r"\s", url) else parts


def _stack_port(project: Path) -> int:
    text = project_variable("GRAFANA_PORT", project) or "3000"
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 2**16:
        raise SettingsError("GRAFANA_PORT must be a port, 1 to 65535", text, "correct it or unset it")
    return int(text)


def _stack_password(url: str, stack_url: str, project: Path) -> Path | None:
    # The generated password goes to the stack's own Grafana and to no other.
    here, stack = _split(url), _split(stack_url)
    if here is None or stack is None or here.port != stack.port or not is_loopback(here.hostname or ""):
        return None
    file = project / STACK_PASSWORD
    return file if file.exists() else None


def _secret(file: Path) -> str:
    try:
        text = file.read_text("utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as unreadable:
        reason = getattr(unreadable, "strerror", None) or "not UTF-8"
        raise SettingsError("a file with a token or a password must be readable", str(file), reason) from None
    if not text.strip():
        raise SettingsError("a file with a token or a password must not be empty", str(file), "write it into the file")
    return text
