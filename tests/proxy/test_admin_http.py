import asyncio
import contextlib
import json
from types import SimpleNamespace

import pytest

from guard import config
from guard.metrics import Metrics
from guard.proxy import admin_http
from guard.proxy.admin_http import BadRequest, encode, has_token, parse_head
from guard.proxy.door import HERE, TRIES, Door
from guard.settings import ConfigError
from tests.proxy.world import eventually

TOKEN = "s3cret-token"


def door_of(token: str | None) -> Door:
    return Door(token, lambda _: None)


def settings(tmp_path):
    return config.validate(
        {
            "upstream": {"address": "127.0.0.1:8001"},
            "secret_file": str(tmp_path / "secret"),
            "admin": {"token_file": str(tmp_path / "token")},
        }
    )


@pytest.fixture
async def admin(tmp_path):
    (tmp_path / "secret").write_text("the-hash-key-0123456789")
    (tmp_path / "token").write_text(TOKEN)
    runtime = SimpleNamespace(settings=settings(tmp_path), metrics=Metrics(), ready=True, serving=True)
    state = SimpleNamespace(runtime=runtime)
    listener = await admin_http.start(lambda: state.runtime, "127.0.0.1:0", door_of(TOKEN))
    state.address, state.listener = listener.address, listener
    yield state
    await listener.close()


async def exchange(address: str, raw: bytes) -> bytes:
    host, _, port = address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(raw)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    return answer


async def get(state, path: str, *headers: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    head = "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""])
    top, _, body = (await exchange(state.address, head.encode())).partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    return int(first.split()[1]), {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}, body


async def test_metrics_are_open(admin):
    admin.runtime.metrics.invalid.labels("m").inc(3)
    status, headers, body = await get(admin, "/metrics")
    assert (status, headers["content-type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert b'guard_invalid_queries_total{model="m"} 3.0' in body
    assert int(headers["content-length"]) == len(body)
    assert "server" not in headers


async def test_health_and_readiness(admin):
    assert (await get(admin, "/healthz"))[0] == 200
    assert (await get(admin, "/readyz"))[0] == 200
    assert (await get(admin, "/readyz/any"))[0] == 200
    admin.runtime.ready = False
    assert (await get(admin, "/healthz"))[0] == 200
    assert (await get(admin, "/readyz/any"))[0] == 200
    status, _, body = await get(admin, "/readyz")
    assert (status, body) == (503, b"not ready\n")
    admin.runtime.serving = False
    assert (await get(admin, "/healthz"))[0] == 200
    assert (await get(admin, "/readyz/any"))[0] == 503


async def test_query_string_does_not_change_the_page(admin):
    assert (await get(admin, "/healthz?verbose=1"))[0] == 200


async def test_config_with_the_token(admin):
    status, headers, body = await get(admin, "/config", f"Authorization: Bearer {TOKEN}")
    assert (status, headers["content-type"]) == (200, "application/json")
    document = json.loads(body)
    assert document["settings"]["upstream"]["address"] == "127.0.0.1:8001"
    assert document["digest"] == config.digest(admin.runtime.settings)


async def test_config_names_the_files_of_secrets_and_shows_none(admin):
    _, _, body = await get(admin, "/config", f"Authorization: Bearer {TOKEN}")
    assert json.loads(body)["settings"]["admin"]["token_file"].endswith("/token")
    assert TOKEN.encode() not in body
    assert b"the-hash-key" not in body


@pytest.mark.parametrize(
    "headers",
    [
        (),
        ("Authorization: Bearer wrong",),
        ("Authorization: Bearer ",),
        (f"Authorization: Basic {TOKEN}",),
        (f"Authorization: {TOKEN}",),
        (f"Authorization: Bearer {TOKEN}x",),
        (f"Authorization: Bearer {TOKEN}", "Authorization: Bearer other"),
        (f"X-Authorization: Bearer {TOKEN}",),
    ],
)
async def test_config_without_the_right_token(admin, headers):
    status, answered, body = await get(admin, "/config", *headers)
    assert (status, answered["www-authenticate"]) == (401, "Bearer")
    assert b"8001" not in body


async def test_config_when_no_token_is_set(tmp_path):
    runtime = SimpleNamespace(settings=settings(tmp_path), metrics=Metrics())
    listener = await admin_http.start(lambda: runtime, "127.0.0.1:0", door_of(None))
    status, _, body = await get(SimpleNamespace(address=listener.address), "/config", "Authorization: Bearer ")
    await listener.close()
    assert status == 403
    assert b"GUARD_ADMIN_TOKEN" in body


async def test_a_reload_is_seen(admin, tmp_path):
    admin.runtime = SimpleNamespace(
        settings=config.validate({"upstream": {"address": "10.0.0.9:1"}}), metrics=admin.runtime.metrics
    )
    _, _, body = await get(admin, "/config", f"Authorization: Bearer {TOKEN}")
    assert json.loads(body)["settings"]["upstream"]["address"] == "10.0.0.9:1"


@pytest.mark.parametrize("path", ["/", "/nothing", "/config/", "/metrics/../config", "//config", "/%63onfig"])
async def test_anything_else_is_not_found(admin, path):
    assert (await get(admin, path, f"Authorization: Bearer {TOKEN}"))[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "get"])
async def test_other_methods_are_refused(admin, method):
    status, headers, _ = await get(admin, "/config", f"Authorization: Bearer {TOKEN}", method=method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


async def test_head_has_no_body(admin):
    status, headers, body = await get(admin, "/healthz", method="HEAD")
    assert (status, headers["content-length"], body) == (200, "3", b"")


@pytest.mark.parametrize(
    "raw", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"GET /<script> \r\n\r\n", b"GET http://x/ HTTP/1.1\r\n\r\n"]
)
async def test_what_is_no_request_is_not_echoed(admin, raw):
    answer = await exchange(admin.address, raw)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"script" not in answer
    assert b"python" not in answer.lower()


async def test_large_head_is_refused(admin):
    answer = await exchange(admin.address, b"GET /healthz HTTP/1.1\r\nX: " + b"a" * admin_http.MAX_HEAD_BYTES)
    assert answer.startswith(b"HTTP/1.1 431 ")


async def test_slow_client_is_cut_off(admin, monkeypatch):
    monkeypatch.setattr(admin_http, "TIMEOUT_S", 0.05)
    assert await exchange(admin.address, b"GET /healthz HTTP/1.1\r\n") == b""
    assert (await get(admin, "/healthz"))[0] == 200


class Slow:
    """Pages that take their time, so that who has asked keeps a place."""

    def __init__(self, listener: admin_http.AdminHttp) -> None:
        self.go = asyncio.Event()
        self._pages = listener._connections._pages

    async def answer(self, request: admin_http.Request) -> admin_http.Response:
        await self.go.wait()
        return await self._pages.answer(request)


async def test_connections_are_bounded(admin, monkeypatch):
    """Those that have asked keep their places."""
    monkeypatch.setattr(admin_http, "MAX_CONNECTIONS", 1)
    slow = Slow(admin.listener)
    monkeypatch.setattr(admin.listener._connections, "_pages", slow)
    first = asyncio.create_task(get(admin, "/healthz"))
    await eventually(lambda: admin.listener._connections._open and not admin.listener._connections._idle)
    assert await exchange(admin.address, b"") == b""  # at once: nothing was read
    slow.go.set()
    assert (await first)[0] == 200
    for _ in range(100):
        with contextlib.suppress(ConnectionError):
            if (await exchange(admin.address, b"GET /healthz HTTP/1.1\r\n\r\n")).startswith(b"HTTP/1.1 200 "):
                return
    pytest.fail("the place of a connection that ended is not free again")


@pytest.mark.parametrize("asks", [b"", b"GET /metrics HTTP/1.1\r\n\r\n"], ids=["silent", "does not read"])
async def test_probes_get_through_a_crowd(admin, monkeypatch, caplog, asks):
    """Else whoever reaches the port has Guard restarted by its kubelet."""
    monkeypatch.setattr(admin.runtime.metrics, "exposition", lambda: (b"#" * 2**24, "text/plain"))
    host, _, port = admin.address.rpartition(":")
    crowd = []
    for _ in range(3 * admin_http.MAX_CONNECTIONS):
        crowd.append(await asyncio.open_connection(host, int(port), limit=1024))
        crowd[-1][1].write(asks)
        await asyncio.sleep(0)
    try:
        for _ in range(10):
            assert (await get(admin, "/healthz"))[0] == 200
        assert len(admin.listener._connections._open) <= admin_http.MAX_CONNECTIONS
    finally:
        for _, writer in crowd:
            writer.transport.abort()
    await eventually(lambda: not admin.listener._connections._open)
    await admin.listener.close()
    assert not caplog.records


async def test_closing_ends_open_connections(tmp_path):
    runtime = SimpleNamespace(settings=settings(tmp_path), metrics=Metrics())
    listener = await admin_http.start(lambda: runtime, "127.0.0.1:0", door_of(None))
    host, _, port = listener.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    async with asyncio.timeout(5):
        await listener.close()
        assert await reader.read() == b""
    writer.close()


@pytest.mark.parametrize("address", ["9464", "localhost:", "localhost:http", "127.0.0.1:99999", "192.0.2.1:0"])
async def test_bad_address(tmp_path, address):
    with pytest.raises(ConfigError, match=r"admin\.http"):
        await admin_http.start(lambda: None, address, door_of(None))


def test_parse_head():
    request = parse_head(b"GET /a?b=c HTTP/1.0\r\nA:  1 \r\nb: x\r\nB: y\r\n\r\n")
    assert (request.method, request.path, dict(request.headers)) == ("GET", "/a", {"a": "1", "b": None})


@pytest.mark.parametrize(
    "head",
    [
        b"\r\n\r\n",
        b"GET /\r\n\r\n",
        b"GET / HTTP/2\r\n\r\n",
        b"GET / HTTP/1.1\r\n: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nA : x\r\n\r\n",
    ],
)
def test_parse_head_refuses(head):
    with pytest.raises(BadRequest):
        parse_head(head)


def test_has_token():
    assert has_token("bearer  t ", "t")
    assert not has_token(None, "t")


def test_encode():
    raw = encode(admin_http.Response(admin_http.HTTPStatus.OK, b"x", headers={"A": "b"}))
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert raw.endswith(b"\r\nConnection: close\r\nA: b\r\n\r\nx")


async def test_tries_are_counted_by_address(admin, monkeypatch):
    """Who reaches the port from elsewhere, to scrape it, takes no tries of who is on this host."""
    peers = []

    def visitor(address: str) -> str:
        peers.append(address)
        return "10.0.0.7" if len(peers) <= TRIES + 1 else HERE

    monkeypatch.setattr(admin_http, "visitor", visitor)
    codes = [(await get(admin, "/config", "Authorization: Bearer wrong"))[0] for _ in range(TRIES + 1)]
    assert codes == [*[401] * TRIES, 429]
    assert (await get(admin, "/config", f"Authorization: Bearer {TOKEN}"))[0] == 200
    assert set(peers) == {"127.0.0.1"}
