"""A headless Chromium that tests drive through chromedriver, by the W3C's WebDriver protocol over loopback."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = "" if CHROMIUM and DRIVER else "no chromium and chromedriver on PATH (Debian: chromium, chromium-driver)"

FLAGS = (
    *("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "hide-scrollbars"),
    *("disable-background-networking", "disable-component-update", "disable-sync", "disable-dev-shm-usage"),
    "host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",  # whatever asks for another host fails
)


class Browser:
    """One browser with one window; `close` ends it."""

    def __init__(self) -> None:
        self._profile = tempfile.TemporaryDirectory()
        assert DRIVER is not None
        self._driver = subprocess.Popen(
            [DRIVER, "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self._driver.stdout is not None
        lines = iter(self._driver.stdout.readline, "")
        port = next(found[1] for line in lines if (found := re.search(r"started successfully on port (\d+)", line)))
        self._root = f"http://127.0.0.1:{port}/session"
        options = {"binary": CHROMIUM, "args": [*FLAGS, f"user-data-dir={self._profile.name}"]}
        wanted = {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        self._root += "/" + self._ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]

    def _ask(self, method: str, path: str, content: Any = None) -> Any:
        data = None if method == "GET" else json.dumps(content or {}).encode()
        request = urllib.request.Request(self._root + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def open(self, page: Path, fragment: str = "") -> None:
        """Load a page from disk; an address that differs in its fragment alone loads anew, too."""
        self._ask("POST", "/url", {"url": "about:blank"})
        self._ask("POST", "/url", {"url": page.as_uri() + fragment})

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what the body of a function returns in the page; a promise is waited for."""
        return self._ask("POST", "/execute/sync", {"script": script, "args": arguments})

    def wait(self, condition: str, *arguments: Any, seconds: float = 20.0) -> Any:
        """Wait until an expression is true in the page, and return it."""
        until = time.monotonic() + seconds
        while not (found := self.run(f"return {condition}", *arguments)):
            assert time.monotonic() < until, f"not within {seconds} s: {condition}"
            time.sleep(0.05)
        return found

    def show(self, width: int, *, dark: bool = False, height: int = 800, media: str = "screen") -> None:
        """Give the page a width in CSS pixels, a colour scheme, and screen or print."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._command("Emulation.setDeviceMetricsOverride", metrics)
        self._command("Emulation.setEmulatedMedia", {"media": media, "features": [scheme]})

    def _command(self, name: str, parameters: Any) -> Any:
        return self._ask("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    def messages(self) -> list[str]:
        """Return what the console has had since the last time, warnings and errors."""
        rows = self._ask("POST", "/se/log", {"type": "browser"})
        return [row["message"] for row in rows if row["level"] in {"WARNING", "SEVERE"}]

    def press(self, key: str, code: int) -> None:
        """Press a key where the focus is."""
        for kind in ("rawKeyDown", "keyUp"):
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code}
            self._command("Input.dispatchKeyEvent", event)

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """Save what is seen as PNG; `whole` is all of the page."""
        shot = self._command(
            "Page.captureScreenshot", {"captureBeyondViewport": whole, "format": "png"} | self._clip(whole)
        )
        path.write_bytes(base64.b64decode(shot["data"]))

    def _clip(self, whole: bool) -> dict[str, Any]:
        if not whole:
            return {}
        size = self._command("Page.getLayoutMetrics", {})["cssContentSize"]
        return {"clip": {**size, "scale": 1}}

    def close(self) -> None:
        """End browser and driver."""
        steps: list[Callable[[], Any]] = [lambda: self._ask("DELETE", ""), self._driver.terminate, self._driver.wait]
        for step in steps:
            step()
        assert self._driver.stdout is not None
        self._driver.stdout.close()
        self._profile.cleanup()
