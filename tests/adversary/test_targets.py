import argparse

import pytest

from adversary.targets import UsageError, add_target, as_callers, endpoint_of


def named(*words):
    parser = argparse.ArgumentParser()
    add_target(parser)
    return endpoint_of(parser.parse_args(["--target", "a:1", "--model-name", "m", *words]))


def test_defaults():
    endpoint = named()
    assert (endpoint.target, endpoint.model, endpoint.identities, endpoint.tls) == ("a:1", "m", ((),), None)
    assert (endpoint.form.low, endpoint.form.high, endpoint.form.layout) == (0.0, 1.0, "as_given")


def test_what_the_model_wants():
    words = "--input x --output y --low -1 --high 2 --mean 1,2,3 --std 4,5,6 --layout nchw_to_nhwc --meaning logits"
    endpoint = named(*words.split())
    assert (endpoint.input_name, endpoint.output_name, endpoint.meaning) == ("x", "y", "logits")
    form = endpoint.form
    assert (form.low, form.high, form.mean, form.std) == (-1.0, 2.0, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    assert form.layout == "nchw_to_nhwc"


def test_tls_is_off_until_it_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.crt"))
    assert named().tls is None
    assert named("--tls").tls is not None
    assert named("--server-name", "other").tls.server_name == "other"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--std", "0"], "every std must be above 0"),
        (["--low", "1"], "low must be below high"),
        (["--ca", "/none.crt"], "--ca: cannot read /none.crt"),
        (["--cert", "/none.crt"], "--key: a certificate and its key go together"),
        (["--key", "/none.key"], "--cert: a certificate and its key go together"),
        (["--header", "=x"], "write NAME=VALUE"),
    ],
)
def test_what_does_not_go_together(words, message):
    with pytest.raises(UsageError, match=message):
        named(*words)


def test_callers():
    endpoint = as_callers(named("--header", "A=b"), "X-Api-Key", "kind", 2)
    assert endpoint.identities == ((("a", "b"), ("x-api-key", "kind-0")), (("a", "b"), ("x-api-key", "kind-1")))
    assert as_callers(named(), "x", "kind", 0).identities == ((),)
