"""A headless Chromium, spoken to by the DevTools protocol over the websocket of `tornado`."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--mute-audio"),
    *("--disable-background-networking", "--disable-dev-shm-usage", "--remote-debugging-port=0"),
)
START_SECONDS, ANSWER_SECONDS = 120.0, 120.0


class Browser:
    """One tab of a browser of its own; a context manager."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1280, 800)) -> None:
        """Start it; the test is skipped where there is no Chromium or no tornado.

        Parameters
        ----------
        folder : Path
            For its profile and its downloads.
        size : (int, int)
            Of the window, pixels.
        """
        websocket = pytest.importorskip("tornado.websocket")
        program = next(filter(None, map(shutil.which, NAMES)), None)
        if program is None:
            pytest.skip("no Chromium on the PATH")
        self.folder, self._loop, self._number = folder, asyncio.new_event_loop(), 0
        self.downloads = folder / "downloads"
        profile = folder / "profile"
        window = f"--window-size={size[0]},{size[1]}"
        self._process = subprocess.Popen(
            [program, *OPTIONS, window, f"--user-data-dir={profile}", "about:blank"],
            stderr=subprocess.DEVNULL,
        )
        try:
            self._connect(websocket, profile, size)
        except BaseException:
            self._process.kill()
            raise

    def _connect(self, websocket: Any, profile: Path, size: tuple[int, int]) -> None:
        port = _waited(lambda: (profile / "DevToolsActivePort").read_text().split("\n")[0])
        self.requests: list[str] = []  # addresses that the page asked for
        self.errors: list[str] = []  # exceptions that nothing caught, of the page that is open
        self.address = ""

        async def connected() -> Any:
            client = pytest.importorskip("tornado.httpclient").AsyncHTTPClient()
            found = await client.fetch(f"http://127.0.0.1:{port}/json/list")
            tab = next(one for one in json.loads(found.body) if one["type"] == "page")
            address = tab["webSocketDebuggerUrl"]
            return await websocket.websocket_connect(address, max_message_size=2**30)

        self._socket = self._loop.run_until_complete(connected())
        for domain in ("Page", "Runtime", "Network"):
            self.call(f"{domain}.enable")
        width, height = size
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)
        self.call("Page.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()
        self._process.terminate()
        self._process.wait(timeout=60)

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Send a command; its result."""
        self._number += 1
        told = {"id": self._number, "method": method, "params": arguments}

        async def answered() -> dict[str, Any]:
            await self._socket.write_message(json.dumps(told))
            while True:
                message = json.loads(await self._socket.read_message())
                if message.get("id") == self._number:
                    return dict(message)
                self._note(message)

        answer = self._loop.run_until_complete(asyncio.wait_for(answered(), timeout=ANSWER_SECONDS))
        assert "error" not in answer, f"{method}: {answer['error']}"
        return dict(answer["result"])

    def _note(self, message: dict[str, Any]) -> None:
        if message["method"] == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        if message["method"] == "Runtime.exceptionThrown":
            thrown = message["params"]["exceptionDetails"]
            # What a page was reading when it was left ends in an error that nobody sees.
            if thrown.get("url", self.address) == self.address:
                self.errors.append(json.dumps(thrown))

    def open(self, page: Path) -> None:
        """Open a file."""
        self.address = page.resolve().as_uri()
        self.call("Page.navigate", url=self.address)

    def value(self, expression: str) -> Any:
        """Evaluate JavaScript, promises awaited."""
        options = {"returnByValue": True, "awaitPromise": True}
        answer = self.call("Runtime.evaluate", expression=expression, **options)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str) -> Any:
        """Evaluate until it is true."""
        return _waited(
            lambda: self.value(f"(() => {{ try {{ return {expression}; }} catch {{}} }})()")
        )

    def press(self, *keys: str) -> None:
        """Press keys, by the names of `KeyboardEvent.key`."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def busy_seconds(self) -> float:
        """Time of a CPU that the page's main thread has worked since it was opened."""
        self.call("Performance.enable", timeDomain="threadTicks")
        metrics = self.call("Performance.getMetrics")["metrics"]
        return next(float(one["value"]) for one in metrics if one["name"] == "TaskDuration")

    def picture(self, file: Path) -> None:
        """Write what is seen as PNG."""
        file.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def downloaded(self, name: str) -> str:
        """Text of a file that the page saved, which is removed."""
        file = self.downloads / name
        text: str = _waited(lambda: file.stat().st_size and file.read_text())
        file.unlink()
        return text


def _waited(ready: Any) -> Any:
    """Ask until the answer is true."""
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            if answer := ready():
                return answer
        except OSError:
            pass
        assert time.monotonic() < end, "the browser does not answer"
        time.sleep(0.05)
