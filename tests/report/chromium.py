"""A headless Chromium, driven over its own pipe: no port, no driver, no network."""

from __future__ import annotations

import base64
import json
import os
import select
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Chromium"]

_OPTIONS = (
    "--headless",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# The browser reads descriptor 3 and writes 4.
_LAUNCHER = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
_DEADLINE_SECONDS = 60.0


@dataclass
class Chromium:
    """One browser with one tab; a ``with`` block.

    Attributes:
        program: Where Chromium stands.
        profile: An empty folder for its files.
        requests: The addresses that pages asked for, in order.
        messages: What the console and the security policy said.
    """

    program: str
    profile: Path
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        commands, self._to_browser = os.pipe()
        self._from_browser, replies = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCHER, str(commands), str(replies), *self._command()],
            pass_fds=(commands, replies),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(commands)
        os.close(replies)
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        with ExitStack() as undo:
            undo.callback(self._stop)
            self._open_tab()
            undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _open_tab(self) -> None:
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")

    def _stop(self) -> None:
        os.close(self._to_browser)  # the browser ends when its pipe does
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from_browser)

    def open(self, page: Path, *, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """Load a file and wait until everything in it is there."""
        self.requests.clear()
        self.messages.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=page.as_uri())
        self._until("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression in the page; the page's own policy does not stop it."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise ValueError(answer["exceptionDetails"])
        return answer["result"].get("value")

    def screenshot(self, *, most_height: int = 8000) -> bytes:
        """Return a picture of the whole page, as PNG."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], most_height), "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command of the DevTools protocol, and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to_browser, json.dumps(message).encode() + b"\0")
        while (reply := self._next()).get("id") != self._number:
            self._note(reply)
        if "error" in reply:
            raise ValueError(f"{method}: {reply['error']}")
        result: dict[str, Any] = reply["result"]
        return result

    def _command(self) -> list[str]:
        return [self.program, *_OPTIONS, f"--user-data-dir={self.profile}"]

    def _until(self, method: str) -> None:
        while (event := self._next()).get("method") != method:
            self._note(event)

    def _note(self, event: dict[str, Any]) -> None:
        about = event.get("params", {})
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif event.get("method") == "Log.entryAdded":
            self.messages.append(about["entry"]["text"])

    def _next(self) -> dict[str, Any]:
        deadline = time.monotonic() + _DEADLINE_SECONDS
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._from_browser], [], [], max(deadline - time.monotonic(), 0))
            block = os.read(self._from_browser, 1 << 16) if ready else b""
            if not block:
                raise TimeoutError(f"no answer from Chromium within {_DEADLINE_SECONDS:g} s")
            self._unread += block
        message, _, self._unread = self._unread.partition(b"\0")
        parsed: dict[str, Any] = json.loads(message)
        return parsed
