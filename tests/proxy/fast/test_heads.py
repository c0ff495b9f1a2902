"""What heads and answers mean, case by case."""

import pytest

from guard.proxy import status
from guard.proxy.fast import answers, heads
from guard.proxy.seam import Reply
from guard.proxy.status import Code

HEAD = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/a/B",
    ":authority": "x",
    "te": "trailers",
    "content-type": "application/grpc",
}


def refusal(**changes: str) -> dict[str, str]:
    fields = {**HEAD, **{key.replace("_", "-"): value for key, value in changes.items()}}
    with pytest.raises(heads.Refused) as refused:
        heads.read(tuple(fields.items()))
    return dict(refused.value.headers)


def test_a_head_and_what_is_the_callers() -> None:
    read = heads.read(
        (
            *HEAD.items(),
            ("grpc-timeout", "250m"),
            ("grpc-accept-encoding", "gzip"),
            ("user-agent", "me"),
            ("x", "y"),
            ("x", "z"),
            ("t-bin", "AAE,Ag"),
        )
    )
    assert (read.path, read.timeout_s, read.encoding, read.accepts) == ("/a/B", 0.25, "identity", "gzip")
    assert read.metadata == (("user-agent", "me"), ("x", "y"), ("x", "z"), ("t-bin", b"\0\1"), ("t-bin", b"\2"))


@pytest.mark.parametrize("kind", ["text/html", "application/json", "application/grpcx", "application/grp", ""])
def test_what_is_not_grpc_is_told_so_in_http(kind: str) -> None:
    assert refusal(content_type=kind) == {":status": "415"}


def test_other_things_that_end_a_call_with_its_head() -> None:
    assert refusal(te="gzip") == {":status": "400"}
    assert refusal(**{":method": "GET"}) == {":status": "405"}
    assert refusal(grpc_timeout="soon")["grpc-status"] == str(int(Code.INTERNAL))
    assert refusal(x_bin="?")["grpc-message"] == "malformed binary metadata"
    unknown = refusal(grpc_encoding="br")
    assert (unknown["grpc-status"], unknown["grpc-accept-encoding"]) == ("12", "identity,deflate,gzip")


@pytest.mark.parametrize("kind", ["application/grpc+proto", "application/grpc;charset=utf-8"])
def test_kinds_of_grpc_are_grpc(kind: str) -> None:
    assert heads.read(tuple({**HEAD, "content-type": kind}.items())).path == "/a/B"


@pytest.mark.parametrize(
    ("wanted", "accepts", "used"),
    [
        ("none", "gzip", None),
        ("gzip", "", None),
        ("gzip", "identity", None),
        ("gzip", "identity, deflate, gzip", "gzip"),
        ("gzip", "deflate", "deflate"),
        ("deflate", "identity,deflate,gzip", "deflate"),
        ("deflate", "gzip", "gzip"),
    ],
)
def test_answers_are_compressed_as_callers_accept(wanted: str, accepts: str, used: str | None) -> None:
    assert heads.answers_in(wanted, accepts) == used


def test_how_an_answer_ends() -> None:
    assert heads.closing(Reply(b"x")) == (("grpc-status", "0"),)
    said = heads.closing(Reply(code=5, details="a\nb", trailing=(("k-bin", b"\0"),)))
    assert said == (("grpc-status", "5"), ("grpc-message", "a%0Ab"), ("k-bin", b"AA"))
    assert heads.only_trailers(Reply(code=5))[0] == (":status", "200")


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({":status": "404"}, Code.UNIMPLEMENTED),
        ({":status": "401"}, Code.UNAUTHENTICATED),
        ({":status": "503"}, Code.UNAVAILABLE),
        ({":status": "418"}, Code.UNKNOWN),
        ({":status": "200", "content-type": "text/html"}, Code.INTERNAL),
        ({":status": "200", "content-type": "application/grpc", "grpc-encoding": "br"}, Code.INTERNAL),
        ({":status": "200", "x-bin": "?"}, Code.INTERNAL),
    ],
)
def test_responses_that_are_none(headers: dict[str, str], code: Code) -> None:
    reply, initial, _ = answers.opening(tuple(headers.items()))
    assert reply is not None
    assert (reply.code, initial) == (code, ())


def test_a_response_and_its_metadata() -> None:
    headers = ((":status", "200"), ("grpc-encoding", "gzip"), ("x", "y"), ("guard-decision-id", "forged"))
    assert answers.opening(headers) == (None, (("x", "y"),), "gzip")


@pytest.mark.parametrize(
    ("headers", "body", "reply"),
    [
        ((("grpc-status", "0"), ("x", "y")), b"b", Reply(b"b", trailing=(("x", "y"),))),
        ((("grpc-status", "0"),), None, status.upstream_broken()),
        ((), b"b", status.upstream_broken()),
        ((("grpc-status", "7"), ("grpc-message", "no%21")), None, Reply(code=7, details="no!")),
        ((("grpc-status", "99"),), None, Reply(code=99)),
        ((("grpc-status", "1e3"),), None, Reply(code=2)),
        ((("grpc-status", "-1"),), None, status.upstream_broken()),
        ((("grpc-status", "14"), ("grpc-message", "Cancelling all calls")), None, status.upstream_away()),
        ((("grpc-status", "14"), ("grpc-message", "busy")), None, Reply(code=14, details="busy")),
        ((("grpc-status", "4"), ("grpc-message", "Deadline Exceeded")), None, status.upstream_late()),
        ((("grpc-status", "4"), ("grpc-message", "mine")), None, Reply(code=4, details="mine")),
    ],
)
def test_how_an_upstreams_call_ended(headers: answers.Headers, body: bytes | None, reply: Reply) -> None:
    assert answers.ended(headers, (), body) == reply


@pytest.mark.parametrize(
    ("code", "reply"),
    [(7, status.upstream_away()), (2, status.upstream_broken()), (0, status.upstream_broken())],
)
def test_resets_are_constant_replies(code: int, reply: Reply) -> None:
    assert answers.was_reset(code) == reply
    assert answers.was_reset(8).code == Code.CANCELLED
    assert answers.was_reset(11).code == Code.RESOURCE_EXHAUSTED


def test_binary_metadata_of_very_many_values_are_refused() -> None:
    assert refusal(a_bin="," * 3700)["grpc-status"] == "13"
    assert len(heads.read((*HEAD.items(), ("a-bin", "YQ,Yg,Yw"))).metadata) == 3
    fields = tuple((f"k{i}-bin", ",".join(["YQ"] * 60)) for i in range(20))
    with pytest.raises(heads.Refused):
        heads.read((*HEAD.items(), *fields))
