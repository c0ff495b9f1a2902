"""Headless Chromium driven over the DevTools protocol's pipe: pages that talk to a server, and what they say of it."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.servers.install import CHROMIUM

_QUIET = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--hide-scrollbars")
PATIENCE_S = 60.0
ELSEWHERE = "guard.test"
"""This machine, by a name that a browser does not take for it."""
_HASTE = "{ const real = setTimeout; globalThis.setTimeout = (f, ms = 0) => real(f, ms / 20); }"


def executable() -> str:
    found = next((path for name in CHROMIUM if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip("no Chromium here: the page is not looked at (apt-get install chromium)")
    return found


class Page:
    """One tab. `errors`: what its console said that was an error, and exceptions."""

    def __init__(self, asked: int, told: int, *, haste: bool) -> None:
        self._asked, self._told = asked, told
        self._number, self._rest = 0, b""
        self._answers: dict[int, dict[str, Any]] = {}
        self._session: str | None = None
        self.errors: list[str] = []
        self.requested: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")
        if haste:
            self.send("Page.addScriptToEvaluateOnNewDocument", source=_HASTE)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._asked, json.dumps(message).encode() + b"\0")
        ends = time.monotonic() + PATIENCE_S
        while self._number not in self._answers:
            self._read(ends)
        answer = self._answers.pop(self._number)
        assert "error" not in answer, (method, answer)
        return answer["result"]

    def _read(self, ends: float) -> None:
        ready, _, _ = select.select([self._told], [], [], max(0.0, ends - time.monotonic()))
        assert ready, "Chromium says nothing"
        data = os.read(self._told, 1 << 20)
        assert data, "Chromium has ended"
        *whole, self._rest = (self._rest + data).split(b"\0")
        for one in map(json.loads, whole):
            if "id" in one:
                self._answers[one["id"]] = one
            else:
                self._hear(one["method"], one.get("params", {}))

    def _hear(self, method: str, params: Mapping[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
            self.errors.append(json.dumps(params["args"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
            self.errors.append(f"{params['entry']['text']} {params['entry'].get('url', '')}".strip())
        elif method == "Network.requestWillBeSent":
            self.requested.append(params["request"]["url"])

    def open(self, url: str) -> None:
        self.send("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def run(self, script: str) -> Any:
        """The value of an expression."""
        told = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def wait(self, script: str) -> Any:
        """Until an expression is true; its value."""
        ends = time.monotonic() + PATIENCE_S
        while not (value := self.run(script)):
            assert time.monotonic() < ends, f"never: {script}; {self.run('document.body.innerText')!r}; {self.errors}"
            time.sleep(0.05)
        return value

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def resize(self, width: int, height: int) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def prefer(self, scheme: str) -> None:
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def type(self, text: str) -> None:
        self.send("Input.insertText", text=text)

    def press(self, key: str, text: str = "") -> None:
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, text=text, windowsVirtualKeyCode=13)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, code=key)

    def picture(self, file: Path) -> None:
        """What is seen, as a PNG."""
        file.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def page(directory: Path, *, haste: bool = True) -> Iterator[Page]:
    """A tab of a browser of its own, with a profile in that directory. haste: what the page waits for comes sooner."""
    in_read, in_write = os.pipe()
    out_read, out_write = os.pipe()
    command = f'exec "$@" 3<&{in_read} 4>&{out_write}'  # the pipe is descriptors 3 and 4
    known = f"--host-resolver-rules=MAP {ELSEWHERE} 127.0.0.1"
    arguments = (executable(), "--headless=new", *_QUIET, known, f"--user-data-dir={directory / 'profile'}")
    with (directory / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            ["bash", "-c", command, "bash", *arguments, "--remote-debugging-pipe"],
            stdout=log,
            stderr=log,
            pass_fds=(in_read, out_write),
        )
    os.close(in_read)
    os.close(out_write)
    try:
        yield Page(in_write, out_read, haste=haste)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        os.close(in_write)
        os.close(out_read)
