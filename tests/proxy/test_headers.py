"""Which metadata travels."""

import pytest

from guard.proxy.headers import to_caller, to_upstream
from guard.types import InvalidQuery

HOP = [":path", "te", "content-type", "user-agent", "host", "connection", "grpc-timeout", "grpc-encoding", "grpc-foo"]
KEPT = ["x-one", "traceparent", "authorization", "grpc-trace-bin", "grpc-status-details-bin", "ce-id"]


@pytest.mark.parametrize("key", HOP)
def test_hop_headers_stay(key: str) -> None:
    assert to_upstream(((key, "v"),)) == to_caller(((key, "v"),)) == ()


@pytest.mark.parametrize("key", KEPT)
def test_the_rest_travels_in_order_and_more_than_once(key: str) -> None:
    pairs = ((key, "1"), ("other", "2"), (key, "3"))
    assert to_upstream(pairs) == to_caller(pairs) == pairs


def test_guards_own_trailer_is_not_the_upstreams_to_set() -> None:
    assert to_caller((("guard-decision-id", "forged"),)) == ()


@pytest.mark.parametrize("value", ["ÿ", "a\nb", "\x7f", "\t"])
def test_values_that_cannot_be_sent_again(value: str) -> None:
    with pytest.raises(InvalidQuery):
        to_upstream((("x", value),))
    assert to_caller((("x", value), ("y", "1"))) == (("y", "1"),)


def test_binary_values_travel_as_bytes() -> None:
    assert to_upstream((("x-bin", b"\x00\xff"),)) == (("x-bin", b"\x00\xff"),)
