"""Posts a message to a service over HTTP, for Slack, PagerDuty, Microsoft Teams and webhooks.

A notification library (apprise, notifiers, slack-sdk) was not taken: they keep the secret in the address that their
exceptions and logs show, know neither a time for the whole attempt nor Retry-After nor what may be tried again, and
what is left of the work is one POST that `requests`, a dependency already, makes.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import re
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from ml_pipeline import _runtime
from ml_pipeline.config._alert_deadline import Deadline
from ml_pipeline.config._alert_session import session_of
from ml_pipeline.config._hosts import is_loopback
from ml_pipeline.errors import AlertError, DeliveryError, SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import requests

__all__ = ["HttpService"]

_ADDRESS: Final = re.compile(r"(https?://[A-Za-z0-9._:\[\]-]+)([/?][!-\"$-~]*)?")
_LONGEST_PAUSE_SECONDS: Final = 3_600.0
_MOST_BODY_BYTES: Final = 65_536
_MOST_READ_BYTES: Final = 16_777_216
_DEEPEST: Final = 12  # wrapped in each other by three libraries
_OK: Final = range(200, 300)
_REFUSED: Final = range(400, 500)
_LATER: Final = frozenset({408, 429})
_PROBLEMS: Final = {
    "SSLCertVerificationError": "its certificate is not trusted",
    "SSLError": "no TLS with it",
    "ProxyError": "the proxy of HTTPS_PROXY does not answer",
    "TimeoutError": "no answer in time",
    "Timeout": "no answer in time",
    "gaierror": "no such host",
    "ConnectionRefusedError": "nothing listens there",
    "ConnectionResetError": "the connection was cut off",
    "RemoteDisconnected": "the connection was cut off",
    "IncompleteRead": "the connection was cut off",
    "ProtocolError": "the connection was cut off",
}
_HEADERS: Final = {"User-Agent": "ml-pipeline-observability", "Content-Type": "application/json"}


@dataclass(frozen=True, slots=True)
class _Answer:
    """What came back, without a word that could hold the secret.

    Attributes:
        status: The HTTP status; 0 where there was no answer.
        problem: Why there was none.
        retry_after_seconds: How long to wait, where the service said so.
        word: What the service said, where that is one of the words it is known for.
    """

    status: int = 0
    problem: str = ""
    retry_after_seconds: float | None = None
    word: str = ""

    def __str__(self) -> str:
        return f"{self.status} {self.word}".strip() if self.status else self.problem


@dataclass(frozen=True, slots=True)
class HttpService:
    """A service that takes messages by POST, and may be asked what it holds.

    Attributes:
        name: What messages call it.
        remedy: What to do where it refuses for good.
        words: The answers it is known for, which may be shown; whatever else it says may repeat the secret.
        is_secret: Whether its address is, so that it must go over TLS unless it is this machine.
        say: Told of each step.
    """

    name: str
    remedy: str
    words: frozenset[str] = frozenset()
    is_secret: bool = True
    say: Callable[[str], None] = lambda _: None

    def post(
        self,
        address: str,
        *contents: bytes,
        timeout_seconds: float,
        headers: Mapping[str, str] | None = None,
        on_taken: Callable[[bytes], object] = lambda _: None,
    ) -> None:
        """Post one body after the other, over one connection.

        Args:
            address: Where to; no exception, no log and no step shows more of it than its host.
            *contents: JSON.
            timeout_seconds: How long it may take altogether.
            headers: Further headers.
            on_taken: Told of each body that the service has taken.

        Raises:
            AlertError: If the service refuses one for good (a 4xx but 408 and 429).
            DeliveryError: If it may take it later: no answer in time, a redirection, a 5xx, 408 or 429.
            SettingsError: If the address is none.
        """
        with self._asking(address, timeout_seconds) as (session, origin, deadline):
            session.headers.update(headers or {})
            for content in contents:
                answer, failed = _runtime.attempt(_exchange, session, origin, content, deadline, self.words)
                if answer is None:
                    answer = _Answer(problem="no answer in time" if deadline.is_over else _problem(failed))
                self._judge(answer)
                on_taken(content)

    def read(self, address: str, *, timeout_seconds: float) -> Any:
        """Ask for JSON.

        Args:
            address: What for; shown as little as by `post`.
            timeout_seconds: How long it may take altogether.

        Returns:
            What the JSON says.

        Raises:
            AlertError: If the service refuses for good.
            DeliveryError: If it may answer later.
            SettingsError: If the address is none.
            ValueError: If the answer is no JSON.
            requests.RequestException: If the connection fails.
        """
        with (
            self._asking(address, timeout_seconds) as (session, origin, deadline),
            session.get(origin, timeout=deadline.left(), allow_redirects=False, stream=True) as response,
        ):
            if response.status_code not in _OK:
                self._judge(_Answer(response.status_code))
            return json.loads(response.raw.read(_MOST_READ_BYTES, decode_content=True))

    @contextlib.contextmanager
    def _asking(self, address: str, timeout_seconds: float) -> Iterator[tuple[requests.Session, str, Deadline]]:
        origin, target = self._parts(address)
        with Deadline(timeout_seconds, self.say) as deadline, session_of(deadline, target) as session:
            if is_loopback(urlsplit(origin).hostname or ""):  # no proxy is nearer; certificates are still wanted
                session.trust_env = False
                session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True
            session.auth = lambda request: request  # no login of a .netrc goes along
            session.headers.update(_HEADERS)
            yield session, origin, deadline

    def _judge(self, answer: _Answer) -> None:
        if answer.status in _OK:
            self.say(f"{self.name} has taken it ({answer})")
            return
        self.say(f"{self.name} has not taken it: {answer}")
        if answer.status in _REFUSED and answer.status not in _LATER:
            raise AlertError(f"{self.name} must take the alert", str(answer), self.remedy)
        later = DeliveryError(f"{self.name} must take the alert", str(answer), "it is tried again")
        later.retry_after_seconds = answer.retry_after_seconds
        raise later

    def _parts(self, address: str) -> tuple[str, str]:
        """Return the address up to the host, with a slash, and the rest."""
        parts = _ADDRESS.fullmatch(address)
        origin, target = (parts[1] + "/", parts[2] or "/") if parts else ("", "")
        host, failed = _runtime.attempt(lambda: urlsplit(origin).hostname)
        if failed is not None or not host:
            raise SettingsError(f"the address of {self.name} must be like https://example.org/…", remedy=self.remedy)
        if self.is_secret and not address.startswith("https://") and not is_loopback(host):
            raise SettingsError(f"the address of {self.name} must begin with https://", remedy=self.remedy)
        return origin, target if target.startswith("/") else "/" + target


def _exchange(
    session: requests.Session, origin: str, content: bytes, deadline: Deadline, words: frozenset[str]
) -> _Answer:
    response = session.post(
        origin,
        data=content,
        timeout=deadline.left(),
        allow_redirects=False,  # the secret would go along, and the message would not
        stream=True,
    )
    if deadline.is_over:  # what was cut off may look like an answer
        return _Answer(problem="no answer in time")
    deadline.say(f"posted {len(content)} bytes")
    pause = _pause(response.headers.get("Retry-After", ""))
    with response:
        # The status has decided by now: whoever breaks off in the middle of the words has answered.
        said, _ = _runtime.attempt(lambda: response.raw.read(_MOST_BODY_BYTES, decode_content=False).strip())
    is_refused = response.status_code not in _OK
    word = next((each for each in sorted(words) if is_refused and each.encode() == said), "")
    return _Answer(response.status_code, "", pause, word)


def _pause(text: str) -> float | None:
    # Seconds, or a moment (RFC 9110, section 10.2.3).
    if re.fullmatch(r"[0-9]{1,9}", text.strip()):
        seconds = float(text)
    else:
        moment, _ = _runtime.attempt(parsedate_to_datetime, text)
        if moment is None:
            return None
        seconds = (moment.astimezone(dt.UTC) - dt.datetime.now(dt.UTC)).total_seconds()
    return min(max(seconds, 0.0), _LONGEST_PAUSE_SECONDS)


def _problem(failed: BaseException | None) -> str:
    # In words of our own, by the classes of what failed and of what that came from.
    kinds: list[str] = []
    for _ in range(_DEEPEST):
        if failed is None:
            break
        kinds += [kind.__name__ for kind in type(failed).__mro__]
        wrapped = [*failed.args[:1], getattr(failed, "reason", None), failed.__cause__ or failed.__context__]
        failed = next((each for each in reversed(wrapped) if isinstance(each, BaseException)), None)
    return next((words for kind, words in _PROBLEMS.items() if kind in kinds), "the connection failed")
