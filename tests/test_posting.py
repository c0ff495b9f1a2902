"""One receiver: what is tried again and what is not, tokens and certificates that change, and where that ends."""

import threading
from typing import Any

import pytest

from guard.delivering import Undelivered
from guard.posting import MAX_ANSWER_BYTES, Poster
from guard.settings import ConfigError
from guard.settings import Receiver as Settings
from tests.proxy.certs import Authority
from tests.receivers import Receiver, receiving
from tests.servers.process import free_port


@pytest.fixture
def receiver():
    with receiving() as made:
        yield made


def poster_of(url: str, **values: Any) -> Poster:
    options = {"path": values.pop("path", ""), "first_wait_s": values.pop("first_wait_s", 0.001)}
    return Poster(Settings(url=url, **values), "events", **options)


def post(poster: Poster) -> bytes:
    return poster.post(b"body", {"content-type": "text/plain"})


def test_a_body_is_taken(receiver: Receiver) -> None:
    receiver.body = b"thanks"
    assert post(poster_of(receiver.url, path="/v1/traces")) == b"thanks"
    assert post(poster_of(f"{receiver.url}/own/path", path="/v1/traces")) == b"thanks"
    assert [request.path for request in receiver.requests] == ["/v1/traces", "/own/path"]
    assert receiver.requests[0].headers["content-type"] == "text/plain"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_is_tried_again(receiver: Receiver, status: int) -> None:
    receiver.answers = [status, status]
    post(poster_of(receiver.url, attempts=3))
    assert len(receiver.requests) == 3
    receiver.answers = [status, status]
    with pytest.raises(Undelivered, match=f"status {status}"):
        post(poster_of(receiver.url, attempts=2))


@pytest.mark.parametrize("status", [302, 400, 401, 413])
def test_what_is_not_tried_again(receiver: Receiver, status: int) -> None:
    receiver.answers, receiver.headers = [status], {"location": "/elsewhere"}
    with pytest.raises(Undelivered, match=f"status {status}"):
        post(poster_of(receiver.url))
    assert len(receiver.requests) == 1


def test_a_receiver_that_is_away_or_silent() -> None:
    with pytest.raises(Undelivered, match="NewConnectionError"):
        post(poster_of(f"http://127.0.0.1:{free_port()}", attempts=2))
    with receiving(held=True) as held, pytest.raises(Undelivered, match="ReadTimeoutError"):
        post(poster_of(held.url, attempts=2, timeout_s=0.1))
    assert len(held.requests) == 2


def test_hurry_ends_the_waiting(receiver: Receiver) -> None:
    receiver.always, receiver.headers = 503, {"retry-after": "3600"}
    poster = poster_of(receiver.url)
    ended: list[Undelivered] = []

    def run() -> None:
        try:
            post(poster)
        except Undelivered as error:
            ended.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    receiver.until(lambda r: len(r.requests) == 1)
    poster.hurry()
    thread.join(20)
    assert not thread.is_alive()
    assert ended
    assert len(receiver.requests) == 1  # the wait was for another attempt, which is not made
    with pytest.raises(Undelivered):
        post(poster)
    assert len(receiver.requests) == 2  # what is still queued has one


def test_an_endless_answer_is_cut(receiver: Receiver) -> None:
    receiver.body = b"x" * (3 * MAX_ANSWER_BYTES)
    poster = poster_of(receiver.url)
    assert len(post(poster)) == MAX_ANSWER_BYTES
    assert len(post(poster)) == MAX_ANSWER_BYTES


def test_tokens_and_headers_are_read_again(receiver: Receiver, tmp_path, monkeypatch, caplog) -> None:
    token, headers = tmp_path / "token", tmp_path / "headers"
    token.write_text("first\n")
    headers.write_text("X-Tenant: a\n\nX-Other: b: c\n")
    monkeypatch.setenv("HEADERS_OF_TEST", "x-scope: s")
    poster = poster_of(receiver.url, token_file=token, headers_file=headers, headers_env="HEADERS_OF_TEST")
    post(poster)
    token.write_text("the second\n".replace(" ", "-"))
    post(poster)
    one, two = (request.headers for request in receiver.requests)
    assert (one["authorization"], two["authorization"]) == ("Bearer first", "Bearer the-second")
    assert (one["x-tenant"], one["x-other"], one["x-scope"]) == ("a", "b: c", "s")
    token.write_text("secret words")
    post(poster)
    post(poster)
    assert receiver.requests[-1].headers["authorization"] == "Bearer the-second"
    (complaint,) = caplog.messages
    assert complaint == f"kept the old version: token_file: cannot use {token}: not one word"


def test_a_file_that_is_away_is_told_once_each_time(receiver: Receiver, tmp_path, caplog) -> None:
    token, away = tmp_path / "token", tmp_path / "away"
    token.write_text("first")
    poster = poster_of(receiver.url, token_file=token)
    for _ in range(2):
        token.rename(away)
        for _ in range(3):
            post(poster)
        away.rename(token)
        post(poster)
    assert caplog.messages == [f"kept the old version: token_file: cannot use {token}: No such file or directory"] * 2
    assert {request.headers["authorization"] for request in receiver.requests} == {"Bearer first"}


def test_what_cannot_be_used_is_refused_and_named(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("HEADERS_OF_TEST", raising=False)
    monkeypatch.setenv("ODD_HEADERS_OF_TEST", "x-ok: 1\nsecret")
    texts = {"empty": b"", "bad": b"x-a: b\nsecret without a colon", "two": b"secret words", "odd": b"secret\xff"}
    files = {name: tmp_path / name for name in (*texts, "missing")}
    for name, text in texts.items():
        files[name].write_bytes(text)
    key = Authority().leaf("guard").write(tmp_path, "guard")[1]
    bad: list[tuple[dict[str, Any], str]] = [
        ({"token_file": files["missing"]}, "token_file: cannot use {missing}: No such file or directory"),
        ({"token_file": tmp_path}, f"token_file: cannot use {tmp_path}: Is a directory"),
        ({"token_file": files["empty"]}, "token_file: cannot use {empty}: not one word"),
        ({"token_file": files["two"]}, "token_file: cannot use {two}: not one word"),
        ({"token_file": files["odd"]}, "token_file: cannot use {odd}: not ASCII, or too large"),
        ({"headers_file": files["bad"]}, "headers_file: cannot use {bad}: line 2 is not NAME: VALUE"),
        ({"headers_env": "HEADERS_OF_TEST"}, "headers_env: cannot use HEADERS_OF_TEST: not set, or empty"),
        (
            {"headers_env": "ODD_HEADERS_OF_TEST"},
            "headers_env: cannot use ODD_HEADERS_OF_TEST: line 2 is not NAME: VALUE",
        ),
        ({"tls": {"ca_file": files["missing"]}}, "tls.ca_file: cannot use {missing}: No such file or directory"),
        ({"tls": {"ca_file": files["bad"]}}, "tls.ca_file: cannot use {bad}: not a PEM file that can be used"),
        (
            {"tls": {"cert_file": files["bad"], "key_file": key}},
            f"tls.cert_file: cannot use {{bad}} with {key}: not a PEM file that can be used",
        ),
    ]
    for values, said in bad:
        with pytest.raises(ConfigError) as error:
            poster_of("https://127.0.0.1:1", **values)
        assert str(error.value) == said.format(**files)


def test_tls_with_an_authority_of_its_own(tmp_path) -> None:
    authority, other = Authority(), Authority("other")
    cert = authority.leaf("", dns=("collector.example",)).write(tmp_path, "server")
    ca, wrong = tmp_path / "ca.pem", tmp_path / "wrong.pem"
    ca.write_bytes(authority.pem)
    wrong.write_bytes(other.pem)
    with receiving(cert=cert) as receiver:
        named = {"server_name": "collector.example"}
        post(poster_of(receiver.url, tls={"ca_file": ca, **named}))
        for tls in ({"ca_file": wrong, **named}, {"ca_file": ca}, {"ca_file": ca, "server_name": "x.example"}, named):
            with pytest.raises(Undelivered, match="SSLError"):
                post(poster_of(receiver.url, attempts=1, tls=tls))
        rotated = poster_of(receiver.url, attempts=1, tls={"ca_file": wrong, **named})
        wrong.write_bytes(authority.pem)
        post(rotated)
    assert len(receiver.requests) == 2


def test_a_certificate_of_ones_own(tmp_path) -> None:
    authority = Authority()
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.pem)
    cert = authority.leaf("", dns=("collector.example",)).write(tmp_path, "server")
    own, key = authority.leaf("guard").write(tmp_path, "guard")
    tls = {"ca_file": ca, "server_name": "collector.example"}
    with receiving(cert=cert, callers=ca) as receiver:
        post(poster_of(receiver.url, tls={**tls, "cert_file": own, "key_file": key}))
        with pytest.raises(Undelivered):
            post(poster_of(receiver.url, attempts=1, tls=tls))
    assert len(receiver.requests) == 1
