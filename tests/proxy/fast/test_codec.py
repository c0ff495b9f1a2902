"""gRPC's forms in headers: what goes out comes back, and nothing else is taken."""

import base64
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from guard.proxy.fast import codec

SECONDS = st.floats(min_value=0, max_value=1e9, allow_nan=False)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1S", 1.0), ("2H", 7200.0), ("3M", 180.0), ("99999999m", 99999.999), ("5u", 5e-6), ("0n", 0.0), ("007S", 7.0)],
)
def test_timeouts(text: str, seconds: float) -> None:
    assert codec.timeout_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "S", "1", "1s", "-1S", "+1S", "1.5S", " 1S", "1S ", "123456789S", "1SS", "\u0661S", "1_0S", "1S\n"]
)
def test_what_is_no_timeout_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="grpc-timeout"):
        codec.timeout_s(text)


@given(SECONDS)
def test_a_timeout_is_never_longer_than_asked_for(seconds: float) -> None:
    said = codec.timeout_s(codec.timeout(seconds))
    assert said <= max(seconds, 1.1e-6)
    if seconds >= 1e-3:
        assert said >= min(seconds * 0.99, 99_999_999)


@given(st.text())
def test_messages_come_back(text: str) -> None:
    clean = text.encode("utf-8", "replace").decode()
    quoted = codec.quoted(clean)
    assert all(" " <= char <= "~" for char in quoted)
    assert codec.unquoted(quoted) == clean


@given(st.text(alphabet=string.printable + "%é", max_size=50))
def test_any_message_can_be_read(text: str) -> None:
    assert isinstance(codec.unquoted(text), str)


def test_blanks_and_percents() -> None:
    assert codec.quoted("a b%c\n") == "a b%25c%0A"
    assert codec.unquoted("%zz%f") == "%zz%f"
    assert codec.unquoted("%ff") == "\ufffd"


@given(st.lists(st.binary(), min_size=1, max_size=4), st.booleans())
def test_binary_values_come_back(values: list[bytes], padded: bool) -> None:
    texts = [base64.b64encode(value).decode() for value in values]
    joined = ",".join(text if padded else text.rstrip("=") for text in texts)
    assert codec.binary(joined) == values
    assert codec.decoded((("x-bin", joined), ("x", "y"))) == (*(("x-bin", value) for value in values), ("x", "y"))


@given(st.text(max_size=20))
def test_binary_values_are_base64_or_refused(text: str) -> None:
    try:
        values = codec.binary(text)
    except ValueError:
        return
    assert all(isinstance(value, bytes) for value in values)


@pytest.mark.parametrize("text", ["?", "a", "ab=c", "====", "YQ\n?", "Y Q"])
def test_what_is_no_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="binary"):
        codec.binary(text)


@given(st.binary())
def test_metadata_are_sent_without_padding(value: bytes) -> None:
    ((key, sent),) = codec.encoded((("x-bin", value),))
    assert (key, b"=" in sent) == ("x-bin", False)
    assert codec.binary(sent.decode()) == [value]
    assert codec.encoded((("x", "y"),)) == (("x", "y"),)
