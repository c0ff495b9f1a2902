"""The page in a real browser and `guard top`, beside a real Guard that is attacked: an attack is seen as it happens."""

import asyncio
import contextlib
import io
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from guard import config
from guard.lately import merged
from guard.metrics import Metrics
from guard.proxy import admin_http, overview
from guard.proxy.admin_page import AdminPage
from guard.proxy.door import HERE, TRIES, Door
from guard.proxy.overview import Away, Overview
from guard.wire.guard.v1 import guard_pb2 as pb
from tests.proxy import watched
from tests.proxy.watched import HOSTILE_NAME, TOKEN, Watched
from tests.servers import browser
from tests.servers.browser import Page
from tests.servers.models import faint_stripes, images
from tests.servers.process import free_port


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, digits_file: Path, clean_file: Path) -> Iterator[Watched]:
    directory = tmp_path_factory.mktemp("watched")
    profile = watched.fit(directory, digits_file, clean_file)
    with watched.start(directory, digits_file, profile) as started:
        yield started


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser.page(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.fixture
def page(chromium: Page) -> Page:
    chromium.open("about:blank")
    chromium.errors.clear()
    chromium.requested.clear()
    chromium.resize(1280, 1000)
    return chromium


def sign_in(page: Page, url: str, token: str = TOKEN) -> None:
    """With the keyboard alone: the field has the focus."""
    page.open(url)
    if page.run("sessionStorage.length"):  # of the test before
        page.run("document.querySelector('#leave').click()")
        page.open(url)
        page.errors.clear()
    page.wait("document.activeElement.id === 'token'")
    assert page.run("document.querySelector('#bare').hidden"), "the loopback is this machine"
    page.type(token)
    page.press("Enter", "\r")


SHOWN = "!document.querySelector('#shown').hidden"


# --- a real Guard, a real attack


def test_an_attack_is_seen_as_it_happens(guarded: Watched, page: Page, tmp_path: Path) -> None:
    sign_in(page, guarded.url)
    page.wait(SHOWN)
    guarded.send(images(1, seed=100), "alice")
    assert "mallory" not in page.text("#shown")
    assert guarded.attack("mallory") > 50
    page.wait("document.querySelector('#callers tbody').innerText.includes('mallory')")
    row = page.wait(
        "[...document.querySelectorAll('#callers tr')].find(r => r.innerText.includes('hostile'))?.innerText"
    )
    assert "header:mallory" in row
    assert "fingerprint" in row
    assert "alice" not in page.text("#callers"), "there is nothing against her"
    assert "header:mallory" in page.text("#decisions")
    assert "would be deny" in page.text("#decisions")
    assert page.run("document.querySelectorAll('#evidence svg .line').length") == 1
    assert page.run("document.querySelectorAll('#traffic svg').length") == 1
    drawn = "[...document.querySelectorAll('#decisions canvas')].filter(c => !c.hidden && c.width === 28).length"
    assert page.wait(drawn) > 0, "flagged inputs are drawn"
    page.picture(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
    assert page.errors == []
    assert {url.startswith(guarded.url) for url in page.requested if not url.startswith("about:")} == {True}


def test_what_callers_name_themselves_is_inert(guarded: Watched, page: Page) -> None:
    guarded.send(faint_stripes(), HOSTILE_NAME)
    sign_in(page, guarded.url)
    page.wait("document.querySelector('#decisions')?.innerText.includes('onerror')")
    assert f"header:{HOSTILE_NAME}" in page.text("#decisions")
    assert page.run("document.title") == "Guard"
    assert page.run("document.querySelectorAll('#shown img, #shown script').length") == 0
    assert page.errors == []


def test_top_sees_it_too(guarded: Watched) -> None:
    if not guarded.overview()["callers"]:
        guarded.attack("mallory")
    done = subprocess.run(
        [sys.executable, "-m", "guard.cli", "top", "--admin", guarded.admin, "--once"],
        env={**os.environ, "GUARD_ADMIN_TOKEN": TOKEN, "COLUMNS": "120"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    (row,) = [line for line in done.stdout.splitlines() if "header:mallory" in line and "hostile" in line]
    assert "fingerprint" in row


# --- a page of what a test says


class Said:
    """A source that tests tell what to say; it runs in a thread, and can go and come back."""

    def __init__(self) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self.away = False
        self.noticed: dict[str, Any] = merged([], 1, 1)
        self.answer = pb.StatusResponse(version="9", config_digest="d")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._listener: admin_http.AdminHttp | None = None
        self.door = Door(TOKEN, lambda _: None)

    @property
    def url(self) -> str:
        return f"http://{self.address}/"

    async def status(self) -> pb.StatusResponse:
        if self.away:
            raise Away
        return self.answer

    async def lately(self) -> dict[str, Any]:
        return json.loads(json.dumps(self.noticed))

    def _do(self, work: Callable[[], Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work(), self._loop).result(60)

    async def _come(self) -> None:
        made = config.validate({"upstream": {"address": "127.0.0.1:1"}})
        metrics = Metrics()
        for stage in (HOSTILE_NAME, "s"):
            metrics.findings.labels(stage, "detector", HOSTILE_NAME, "shadow").inc()
        show = Overview(self, lambda: made, lambda: metrics, lambda: True)
        page = AdminPage(self.door, show, lambda: made.quarantine)
        runtime: Any = type("Shown", (), {"settings": made, "metrics": metrics})
        self._listener = await admin_http.start(lambda: runtime, self.address, self.door, page)

    def come(self) -> None:
        if not self._thread.is_alive():
            self._thread.start()
        self._do(self._come)

    def go(self) -> None:
        if self._listener is not None:
            self._do(self._listener.close)
        self._listener = None

    def end(self) -> None:
        self.go()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Iterator[Said]:
    monkeypatch.setattr(overview, "FRESH_S", 0.0)
    made = Said()
    made.come()
    yield made
    made.end()


def test_a_wrong_token_and_the_right_one(said: Said, page: Page) -> None:
    sign_in(page, said.url, "not the token")
    page.wait("document.querySelector('#told').innerText !== ''")
    assert page.text("#told") == "That is not the token."
    assert page.run("document.querySelector('#shown').hidden")
    assert not any(url.endswith("/overview") for url in page.requested)
    assert all("401" in error for error in page.errors), "the browser's own word on it, and nothing else"
    page.errors.clear()
    page.type(TOKEN)  # over the selected wrong one
    page.press("Enter", "\r")
    page.wait(SHOWN)
    kept = page.run("JSON.stringify(sessionStorage) + JSON.stringify(localStorage) + document.cookie + location.href")
    assert TOKEN not in kept
    assert page.run("document.querySelector('#token').value") == ""
    page.open(said.url)
    page.wait(SHOWN)  # without being asked again
    page.run("document.querySelector('#leave').click()")
    page.wait("!document.querySelector('#door').hidden")
    page.open(said.url)
    page.wait("!document.querySelector('#door').hidden")
    assert page.errors == []


def test_a_connection_that_others_can_read(said: Said, page: Page) -> None:
    page.open(f"http://{browser.ELSEWHERE}:{said.address.rpartition(':')[2]}/")
    page.wait("document.activeElement.id === 'token'")
    assert "not encrypted" in page.text("#bare")
    page.type(TOKEN)
    page.press("Enter", "\r")
    page.wait(SHOWN)
    assert page.errors == []


def test_too_many_wrong_tokens(said: Said, page: Page) -> None:
    for _ in range(TRIES):
        said.door.knock("Bearer wrong", HERE)
    sign_in(page, said.url)
    page.wait("document.querySelector('#told').innerText.includes('too many')")


def test_a_session_that_guard_has_forgotten(said: Said, page: Page) -> None:
    sign_in(page, said.url)
    page.wait(SHOWN)
    said.door.leave(f"Bearer {page.run('sessionStorage.getItem(`guard-session`)')}")
    page.wait("document.querySelector('#told').innerText === 'The session has ended.'")
    assert page.run("document.querySelector('#shown').hidden")


def test_guard_goes_and_comes_back(said: Said, page: Page) -> None:
    sign_in(page, said.url)
    page.wait(SHOWN)
    said.go()
    page.wait("document.querySelector('#notice').innerText.includes('Guard does not answer.')")
    assert page.text("#state") == "unreachable"
    assert "What is shown is from" in page.text("#notice")
    said.away = True
    said.come()
    page.wait("document.querySelector('#notice').innerText.includes('no worker answers')")
    said.away = False
    page.wait("document.querySelector('#notice').hidden")
    assert page.text("#state").startswith("ready")


def hostile() -> tuple[dict[str, Any], pb.StatusResponse]:
    """Every word that somebody else may have chosen, and more."""
    name = f"{HOSTILE_NAME}\u202eevil\u0000\u2028\ud7ff" + "w" * 200
    decision = {
        "time": 1_795_780_800.0, "decision_id": "0" * 32, "model": name, "caller": name, "action": name,
        "would_be": name, "level": name, "former_level": "clear", "reason": name, "atlas_techniques": [name],
        "rows": 3, "pictures": {"rows": [0], "layout": "nhwc", "shape": [1, 1, 1], "low": [0.0], "high": [1.0]},
        "findings": [
            {"stage": name, "kind": name, "mode": name, "p_value": 0.1, "threshold": 1, "fired": True, "error": name}
        ],
    }  # fmt: skip
    caller = {
        "model": name, "caller": name, "level": name, "heard": 1_795_780_800.0, "rows": 1, "monitors": {name: 0.9},
        "points": [(1_795_780_799.0, 0.5), (1_795_780_800.0, 0.9)],
    }  # fmt: skip
    known = {**caller, "caller": "__proto__", "level": "hostile"}
    stage = pb.StageStatus(name=name, kind="detector", drift=pb.Drift(rows=9, alarm=True))
    model = pb.ModelStatus(name=name, upstream=name, reason=name, stages=[stage])
    levels = {"clear": 1200, "watch": 30, "suspect": 4, "hostile": 51}
    noticed = {"decisions": [decision], "callers": [caller, known], "followed": 1285, "levels": levels, "left_out": 4}
    return noticed, pb.StatusResponse(version=name, config_digest=name, models=[model])


@pytest.mark.parametrize(("width", "scheme"), [(400, "dark"), (1280, "light")])
def test_every_name_is_inert_and_nothing_scrolls_sideways(said: Said, page: Page, width: int, scheme: str) -> None:
    said.noticed, said.answer = hostile()
    page.resize(width, 800)
    page.prefer(scheme)
    sign_in(page, said.url)
    page.wait("document.querySelectorAll('#callers tbody tr').length === 2")
    assert page.run("document.title") == "Guard"
    assert page.run("document.querySelectorAll('#shown img, #shown script, #shown b').length") == 0
    assert page.run("document.documentElement.scrollWidth") <= width
    text = page.text("#shown")
    assert HOSTILE_NAME in text
    assert "\\u{202e}evil\\u{0}" in text, "what would turn the line around is spelt out"
    assert "\u202e" not in text
    assert "51\nhostile; 4 suspect, 30 on watch, of 1285 followed" in page.text("#tiles")
    assert "alarm" in page.text("#drift")
    assert all("404" in error and "/pictures/" in error for error in page.errors), page.errors
    light = page.run("getComputedStyle(document.body).backgroundColor")
    assert light == {"dark": "rgb(17, 21, 27)", "light": "rgb(246, 247, 249)"}[scheme]


def test_a_console_error_would_be_seen(page: Page) -> None:
    page.run("console.error('loud')")
    page.run("setTimeout(() => { throw new Error('louder') }, 0)")
    page.wait("true")
    page.run("new Promise(done => setTimeout(done, 50))")
    assert any("loud" in error for error in page.errors)
    assert any("louder" in error for error in page.errors)


def test_the_browser_holds_to_the_policy(said: Said, page: Page) -> None:
    """Were something to slip in, it would not run."""
    page.open(said.url)
    for script in (
        "document.body.innerHTML = '<img src=x>'",
        "document.querySelector('h1').setAttribute('onclick', 'document.title = `hacked`')",
        "document.head.append(Object.assign(document.createElement('script'), {text: 'document.title = `hacked`'}))",
    ):
        assert (
            page.run(f"(() => {{ try {{ {script}; return 'done' }} catch (e) {{ return e.name }} }})()") == "TypeError"
        )
    elsewhere = page.run("fetch('http://127.0.0.1:9/').then(() => 'sent', error => error.name)")
    assert elsewhere == "TypeError"
    assert page.run("document.title") == "Guard"
    assert any("Content Security Policy" in error for error in page.errors)


# --- guard top without a terminal, and with one


def looked(said: Said, *arguments: str, terminal: bool = False, token: str = TOKEN, until: Callable[[int], bool]) -> (
    tuple[int, str, str]
):  # fmt: skip
    """`guard top` in this process; `until` ends it (and may do something) between two looks."""
    from rich.console import Console

    from guard import cli_top
    from guard.cli import main

    out, err, looks = io.StringIO(), io.StringIO(), iter(range(1000))
    real = Console

    def console(**options: Any) -> Console:
        return real(file=out, force_terminal=terminal, width=120, height=50, **options)

    def sleep(_: float) -> None:
        if until(next(looks)):
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.setenv("GUARD_ADMIN_TOKEN", token)
        patch.setattr(cli_top, "Console", console)
        patch.setattr(cli_top.time, "sleep", sleep)
        patch.setattr(cli_top, "_quiet", lambda: None)
        code = main(["top", "--admin", said.address, *arguments])
    return code, out.getvalue(), err.getvalue()


def test_top_says_that_guard_is_away(said: Said) -> None:
    said.go()
    code, out, err = looked(said, "--once", until=lambda _: True)
    assert (code, out) == (1, "")
    assert f"Guard does not answer on {said.address}: Connection refused" in err


def test_top_on_a_terminal_goes_on_while_guard_is_away(said: Said) -> None:
    said.noticed, said.answer = hostile()

    def between(look: int) -> bool:
        (said.go, said.come, lambda: None)[min(look, 2)]()
        return look == 2

    code, out, _ = looked(said, terminal=True, until=between)
    assert code == 0
    assert "\x1b[?1049h" in out, "a screen of its own"
    assert out.count("asking again") == 1
    assert out.count("Callers by evidence") == 3, "seen, away with the last that was seen, seen again"
    assert "\u202e" not in out
    assert "\\u202eevil" in out


def test_top_elsewhere_prints_look_after_look(said: Said) -> None:
    def between(look: int) -> bool:
        (said.go, said.come, lambda: None)[min(look, 2)]()
        return look == 2

    code, out, err = looked(said, "--json", until=between)
    assert code == 0
    assert [json.loads(line)["version"] for line in out.splitlines()] == ["9", "9"]
    assert err.count("does not answer") == 1


@pytest.mark.parametrize(
    ("arguments", "token", "code", "text"),
    [
        (("--once",), "wrong", 1, "the token is not Guard's"),
        ((), "wrong", 1, "the token is not Guard's"),
        (("--every", "0.1"), TOKEN, 2, "--every"),
        (("--admin", "nowhere"), TOKEN, 2, "is not HOST:PORT"),
        (("--once",), "t\u00f6ken", 2, "printable ASCII"),
    ],
)
def test_top_says_what_is_wrong(said: Said, arguments: tuple[str, ...], token: str, code: int, text: str) -> None:
    found, _, err = looked(said, *arguments, token=token, until=lambda _: True)
    assert (found, text in err) == (code, True), err


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"\x00\x00\x12\x04\x00\x00\x00\x00\x00", "is no admin.http"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "what answers is no Guard"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<html>...", "what answers is no Guard"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "this Guard shows nothing"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\n\x1b[2J", "answers 500: \\u001b[2J"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "what answers is no Guard"),
        (b"", "does not answer"),
    ],
)
def test_top_beside_what_is_no_guard(said: Said, answer: bytes, text: str) -> None:
    said.go()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        said.address = f"127.0.0.1:{server.getsockname()[1]}"
        code, _, err = looked(said, "--once", until=lambda _: True)
        thread.join()
    assert (code, text in err) == (1, True), err
    assert "\x1b" not in err


def test_top_needs_a_token(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from guard.cli import main

    monkeypatch.delenv("GUARD_ADMIN_TOKEN", raising=False)
    assert main(["top", "--once"]) == 2
    assert "the admin token is needed" in capsys.readouterr().err


def test_top_waits_where_too_many_wrong_tokens_were_tried(said: Said) -> None:
    for _ in range(TRIES):
        said.door.knock("Bearer wrong", HERE)
    code, _, err = looked(said, "--once", until=lambda _: True)
    assert (code, "too many wrong tokens" in err) == (1, True)
