"""Grafana's HTTP API, behind the session, the authentication and the error classes of grafana-api.

Nothing else here uses that library, and of it nothing but its generic calls, for Grafana 13 no longer answers the
numeric ids of the others. What the library does not foresee (a page of a proxy, an empty answer) becomes one error.
"""

from __future__ import annotations

import base64
import os
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ml_pipeline.config._hosts import is_loopback
from ml_pipeline.errors import DashboardError, flat, without_credentials

if TYPE_CHECKING:
    from collections.abc import Callable

    import requests

    from ml_pipeline.config._grafana_access import GrafanaAccess

__all__ = ["Answer", "GrafanaClient"]

TIMEOUT_SECONDS: Final = 10.0
OLDEST_VERSION: Final = 10
_SHORTEST_TIMEOUT_SECONDS: Final = 3.0
_LONGEST_PAUSE_SECONDS: Final = 1.0
_SHORTEST_SECRET: Final = 4
_OK: Final = 200
_NO_CONTENT: Final = 204
_REDIRECT: Final = 300
_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True)
class Answer:
    """What Grafana, or what stands before it, answered.

    Attributes:
        status: The HTTP status; 0 where there was no answer.
        body: The JSON; an empty object where there is none.
        message: Why not, where the status is 0 or an error.
    """

    status: int
    body: Any = field(default_factory=dict)
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether it was done."""
        return _OK <= self.status < _REDIRECT

    @property
    def fields(self) -> dict[str, Any]:
        """The body, where it is an object."""
        return self.body if isinstance(self.body, dict) else {}

    @property
    def items(self) -> list[dict[str, Any]]:
        """The objects of the body, where it is a list."""
        return [each for each in self.body if isinstance(each, dict)] if isinstance(self.body, list) else []

    def __str__(self) -> str:
        return f"{self.status} {self.message}".strip()


class GrafanaClient:
    """A session with one Grafana. Not for several threads at once.

    Args:
        access: Where it is, and the way in.
        timeout_seconds: The longest silence of one call.
    """

    def __init__(self, access: GrafanaAccess, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self.access = access
        self.version = ""
        self._timeout = timeout_seconds
        self._api = _session(access, timeout_seconds)
        self._api.s.hooks["response"].append(self._remember)
        self._response: requests.Response | None = None
        self._secrets = _secrets(access)

    def call(self, method: str, path: str, body: object = None) -> Answer:
        """Ask Grafana for something.

        Args:
            method: ``GET``, ``POST``, ``PUT`` or ``DELETE``.
            path: Below ``/api``, with its slash.
            body: What is sent as JSON.

        Returns:
            The answer; a refusal is one too.

        Raises:
            DashboardError: If nothing answers, it is no Grafana, or it does not know the user or the token.
        """
        answer = self._exchange(method, path, body)
        if not answer.status:
            raise self._silent(answer.message)
        if answer.status == _UNAUTHORIZED:
            remedy = "make a new one" if self.access.token else "check both; after five wrong tries Grafana waits 5 min"
            raise DashboardError(f"Grafana must know {self._what()}", str(answer), remedy)
        return answer

    def wait(self, seconds: float, say: Callable[[str], None]) -> None:
        """Wait until Grafana is up.

        Args:
            seconds: How long at most; with 0 it must be up now.
            say: Told what is waited for, and again when the reason changes.

        Raises:
            DashboardError: If it is not up in time, or will never be: another page, a certificate, an old version.
        """
        deadline = time.monotonic() + seconds
        told, pause = "", 0.1
        while reason := self._not_up(deadline - time.monotonic()):
            remaining = deadline - time.monotonic()
            if remaining <= 0:
                raise self._silent(reason)
            if reason != told:
                say(f"waiting up to {seconds:g} s for Grafana at {self.access.url}: {reason}")
                told = reason
            time.sleep(min(pause, remaining))
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)

    def close(self) -> None:
        """Close the connections."""
        self._api.s.close()

    def _not_up(self, remaining: float) -> str:
        # Why it is not up yet, or an empty string. What will not mend itself is raised.
        self._api.timeout = min(self._timeout, max(remaining, _SHORTEST_TIMEOUT_SECONDS))
        try:
            answer = self._exchange("GET", "/health", None)
        finally:
            self._api.timeout = self._timeout
        if answer.status == 0 or answer.status >= _SERVER_ERROR:
            return str(answer) if answer.status else answer.message
        if not answer.ok or "database" not in answer.fields:
            raise DashboardError(
                "Grafana's address must lead to Grafana", f"{answer} from {self.access.url}/api/health", "correct --url"
            )
        self.version = flat(str(answer.fields.get("version") or ""))
        major = re.match(r"\d+", self.version)  # a server can be told to hide it
        if major and int(major[0]) < OLDEST_VERSION:
            raise DashboardError(f"Grafana must be version {OLDEST_VERSION} or newer", self.version, "upgrade it")
        return ""

    def _exchange(self, method: str, path: str, body: object) -> Answer:
        from grafana_api.grafana_api import GrafanaException
        from requests import exceptions

        self._response = None
        try:
            content = getattr(self._api, method)(path, json=body)
        except (exceptions.JSONDecodeError, exceptions.TooManyRedirects, GrafanaException):
            return self._judged()
        except exceptions.RequestException as broken:
            return Answer(0, message=self._unreachable(broken))
        except (TypeError, ValueError):  # the library took a page, or a bare value, for an object
            return self._judged()
        if not isinstance(content, (dict, list)):
            raise self._not_grafana("JSON that is no object")
        return Answer(_OK, content)

    def _judged(self) -> Answer:
        # An answer that the library could not read, or an error: judged by what came.
        response = self._response
        if response is None:
            return Answer(0, message="the request could not be sent")
        if _REDIRECT <= response.status_code < _CLIENT_ERROR:
            target = self._cleaned(response.headers.get("Location", "")).partition("?")[0]
            raise DashboardError("Grafana's address must not redirect", f"to {target}", "give --url that address")
        if response.status_code == _NO_CONTENT:
            return Answer(_NO_CONTENT)
        try:
            content = response.json()
        except ValueError:
            page = self._page(response)
            if response.status_code < _CLIENT_ERROR:
                raise self._not_grafana(page) from None
            return Answer(response.status_code, message=page)
        message = content.get("message") if isinstance(content, dict) else None
        return Answer(response.status_code, content, self._cleaned(str(message or response.reason or "")))

    def _not_grafana(self, came: str) -> DashboardError:
        return DashboardError(
            "Grafana's API must answer JSON, not a page",
            came,
            f"give --url the address that leads past the proxy or login page at {self.access.url}",
        )

    def _page(self, response: requests.Response) -> str:
        kind = response.headers.get("Content-Type", "").partition(";")[0] or "text"
        title = re.search(r"<title[^>]*>(.{0,200}?)</title", response.text[:100_000], re.IGNORECASE | re.DOTALL)
        name = self._cleaned(title[1]) if title else ""
        return f"a page ({kind}) {name}".strip()

    def _unreachable(self, broken: requests.RequestException) -> str:
        """Say why there was no answer; a wrong certificate will not mend itself and is raised."""
        from requests import exceptions

        cause = getattr(broken.args[0], "reason", broken.args[0]) if broken.args else broken
        if isinstance(broken, exceptions.SSLError):
            raise DashboardError(
                f"{self.access.url} must speak TLS with a certificate that this machine trusts",
                self._cleaned(str(cause)),
                "name the file of its authority in REQUESTS_CA_BUNDLE, or correct --url",
            )
        if isinstance(broken, exceptions.ProxyError):
            return "the proxy of HTTP_PROXY or HTTPS_PROXY does not answer; NO_PROXY names hosts it is not for"
        if isinstance(broken, exceptions.Timeout):
            return f"no answer within {self._api.timeout:.3g} s"
        if type(cause).__name__ == "NameResolutionError":
            return "no such host"
        if isinstance(getattr(cause, "__cause__", None), ConnectionRefusedError):
            return "nothing listens there"
        return f"the connection failed ({type(cause).__name__})"

    def _silent(self, reason: str) -> DashboardError:
        return DashboardError(
            f"Grafana must answer at {self.access.url}", reason, "start it (make up), or correct --url or GRAFANA_URL"
        )

    def _what(self) -> str:
        return "the token" if self.access.token else f"user {self.access.user} and the password"

    def _cleaned(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return flat(without_credentials(text))[:300]

    def _remember(self, response: requests.Response, *_: object, **__: object) -> None:
        self._response = response


def _session(access: GrafanaAccess, timeout_seconds: float) -> Any:
    # The library's session. Bytes, because `requests` would write a user's name in Latin-1, and Grafana reads UTF-8.
    from grafana_api import GrafanaFace

    parts = urlsplit(access.url)
    host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
    path = parts.path.strip("/")
    api = GrafanaFace(
        auth=access.token or (access.user.encode(), str(access.password).encode()),
        host=host,
        port=parts.port,
        protocol=parts.scheme,
        url_path_prefix=f"{path}/" if path else "",
        timeout=timeout_seconds,
    ).api
    api.s.max_redirects = 0  # a redirected POST would arrive as a GET
    if is_loopback(str(parts.hostname)):
        api.s.trust_env = False  # the proxies of the environment; its certificates are still wanted
        api.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    return api


def _secrets(access: GrafanaAccess) -> tuple[str, ...]:
    # What no message may hold, in the forms it is sent in.
    both = base64.b64encode(f"{access.user}:{access.password}".encode()).decode()
    found = (access.token, both, access.password)
    return tuple(secret for secret in found if secret and len(secret) >= _SHORTEST_SECRET)
