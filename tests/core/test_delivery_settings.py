"""Where events and spans go: what the settings take, and what they refuse."""

from typing import Any

import pytest

from guard import config
from guard.settings import ConfigError, Settings

URL = "https://collector.example:4318"


def settings_of(**values: Any) -> Settings:
    return config.validate({"upstream": {"address": "127.0.0.1:1"}, **values})


def refused(**values: Any) -> str:
    with pytest.raises(ConfigError) as error:
        settings_of(**values)
    return str(error.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:4318", "http://[::1]:4318/x", "http://localhost/v1/traces", URL])
@pytest.mark.parametrize("secret", [{"token_file": "t"}, {"headers_file": "h"}, {"headers_env": "H"}])
def test_secrets_travel_encrypted_or_stay_here(url: str, secret: dict[str, str]) -> None:
    assert settings_of(tracing={"to": {"url": url, **secret}}).tracing.to is not None
    for far in ("http://collector:4318", "http://127.0.0.1.example:4318", "http://localhost.example"):
        assert "loopback" in refused(tracing={"to": {"url": far, **secret}})
    assert settings_of(tracing={"to": {"url": "http://collector:4318"}}).tracing.to is not None


@pytest.mark.parametrize(
    "url", ["ftp://x", "http://", "http://user:secret@host/", "http://host/?token=secret", "host:4318"]
)
def test_urls_hold_no_secrets(url: str) -> None:
    assert refused(tracing={"to": {"url": url}}).startswith("tracing.to.url")


def test_sinks_are_told_apart() -> None:
    to = {"to": {"url": URL}}
    sinks = [{"kind": "stdout"}, {"kind": "file", "path": "a"}, {"kind": "otlp", **to}, {"kind": "cloudevents", **to}]
    names = ["stdout", "file", "otlp", "cloudevents"]
    assert [sink.name for sink in settings_of(audit={"sinks": sinks}).audit.sinks] == names
    assert "name of its own" in refused(audit={"sinks": [{"kind": "otlp", **to}, {"kind": "otlp", **to}]})
    two = settings_of(audit={"sinks": [{"kind": "otlp", **to}, {"kind": "otlp", "name": "other", **to}]})
    assert len(two.audit.sinks) == 2


def test_two_sinks_do_not_write_to_one_place() -> None:
    twice = [{"kind": "file", "path": "a"}, {"kind": "file", "path": "a", "name": "b", "form": "ocsf"}]
    assert "same place" in refused(audit={"sinks": twice})
    assert "same place" in refused(audit={"sinks": [{"kind": "stdout"}, {"kind": "stdout", "name": "b"}]})
    assert "file goes into sinks" in refused(audit={"file": "a", "sinks": [{"kind": "stdout"}]})


@pytest.mark.parametrize("tls", [{"ca_file": "ca.pem"}, {"server_name": "x"}, {"cert_file": "c", "key_file": "k"}])
def test_tls_is_not_asked_for_in_vain(tls: dict[str, str]) -> None:
    for url in ("http://127.0.0.1:4318", "http://collector:4318"):
        assert refused(tracing={"to": {"url": url, "tls": tls}}) == "tracing.to: tls: goes with an https url"
    sink = {"kind": "otlp", "to": {"url": "http://127.0.0.1:4318", "tls": tls}}
    assert "tls: goes with an https url" in refused(audit={"sinks": [sink]})
    assert settings_of(tracing={"to": {"url": URL, "tls": tls}}).tracing.to is not None
    assert settings_of(tracing={"to": {"url": "http://127.0.0.1:4318", "tls": {}}}).tracing.to is not None


def test_a_chain_needs_lines() -> None:
    sent: list[dict[str, Any]] = [{"kind": "otlp", "to": {"url": URL}}, {"kind": "cloudevents", "to": {"url": URL}}]
    for sinks in (sent[:1], sent):
        assert "chain_key_file: needs a sink" in refused(audit={"sinks": sinks, "chain_key_file": "k"})
        assert settings_of(audit={"sinks": sinks}).audit.sinks
    lines: list[dict[str, Any]] = [{"kind": "stdout"}, {"kind": "file", "path": "a"}]
    for audit in ({}, {"file": "a"}, {"sinks": [*sent, lines[0]]}, {"sinks": lines[1:]}):
        assert settings_of(audit={**audit, "chain_key_file": "k"}).audit.chain_key_file is not None
