"""A short run of each target, and what was found by long ones."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from guard import config
from guard.proxy.fast import heads
from guard.proxy.jwt_keys import parse_keys
from guard.settings import ConfigError
from tests.fuzz import targets
from tests.fuzz.__main__ import kept
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import TARGETS, Wrong

RUNS = {"settings": 500, "profile": 2000}


@pytest.mark.parametrize("name", TARGETS)
def test_the_kept_corpus(name: str) -> None:
    inputs = [*kept(name), *SEEDS[name]()]
    assert len(inputs) >= 2
    for one in inputs:
        TARGETS[name](one)


@pytest.mark.parametrize("name", ["request", "who", "head"])
def test_a_short_run(name: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.fuzz", name, "--runs", "10000", "--artifacts", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "number_of_executed_units: 10000" in done.stderr
    assert not list(tmp_path.iterdir())


def test_control_a_fault_is_found(tmp_path: Path) -> None:
    """A target that raises at bytes that only coverage leads to."""
    code = (
        "import sys, atheris\n"
        "@atheris.instrument_func\n"
        "def target(data):\n"
        "    if data[:1] == b'G' and data[1:2] == b'u' and data[2:3] == b'!': raise ValueError\n"
        "atheris.Setup(sys.argv, target)\n"
        "atheris.Fuzz()\n"
    )
    words = [sys.executable, "-c", code, "-runs=2000000", "-seed=1", f"-artifact_prefix={tmp_path}/"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=170, check=False)
    assert done.returncode != 0
    assert [file.read_bytes()[:3] for file in tmp_path.iterdir()] == [b"Gu!"]


def test_what_a_target_must_not_see_is_wrong() -> None:
    with pytest.raises(Wrong, match="no text for a caller"):
        targets._fit_to_be_seen(ValueError("a\nb"))


# --- found by it


def test_a_key_of_the_settings_that_is_a_mapping() -> None:
    """It ended `guard check` with a TypeError."""
    with pytest.raises(ConfigError, match=r"a key that is no name \(line 1\)"):
        config._parse("history: {valkey:,{addresses: []}}\n")


def test_a_head_without_a_method() -> None:
    """libnghttp2 lets none pass; the reader of heads must not rely on it."""
    with pytest.raises(heads.Refused) as refused:
        heads.read([(":path", "/a/B"), ("content-type", "application/grpc"), ("te", "trailers")])
    assert refused.value.headers == ((":status", "405"),)


@pytest.mark.parametrize("name", ["kty", "kid", "alg"])
def test_a_jwks_key_whose_names_are_no_text(name: str) -> None:
    """It ended the start with a TypeError."""
    key = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "1"}
    assert parse_keys(json.dumps({"keys": [key]}).encode())
    with pytest.raises(ValueError, match="no text"):
        parse_keys(json.dumps({"keys": [{**key, name: {"a": 1}}]}).encode())
