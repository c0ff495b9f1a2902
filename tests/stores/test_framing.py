"""A caller who tries to get another one taken for an attacker: what he can do to him, over gRPC, and what he cannot."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from guard.client import GuardClient
from guard.types import Level
from tests.servers import guard
from tests.servers.calls import digits, unary
from tests.servers.models import images
from tests.servers.process import free_port
from tests.stores.attack import MONITORS, attack, model

HIS, OTHERS = images(1, seed=5), images(30, seed=77)
"""The image that `attack` circles around, which the victim will send; and natural ones that nobody else sends."""
TOKEN = "a-token-for-operators"


class Town:
    """A Guard whose callers are named by a header, and what it holds of them."""

    def __init__(self, address: str, admin: str) -> None:
        self.address, self.admin = address, admin

    def say(self, name: str, rows: Sequence[np.ndarray]) -> list[str]:
        """One call a row: its status."""
        bodies = [digits(row.reshape(1, 1, 28, 28)).SerializeToString() for row in rows]
        return [unary(self.address, "ModelInfer", body, metadata=(("x-user", name),)).code for body in bodies]

    def levels(self) -> dict[Level, int]:
        """How many callers have which."""
        with GuardClient(self.admin, TOKEN) as client:
            told = [caller.level for caller in client.callers()]
        return {level: told.count(level) for level in set(told)}


@pytest.fixture
def town(digits_file: Path, digits_profile: Path, tmp_path: Path) -> Iterator[Town]:
    (tmp_path / "secret").write_text("a secret that nobody guesses")
    (tmp_path / "token").write_text(TOKEN)
    admin = f"127.0.0.1:{free_port()}"
    settings: dict[str, Any] = {
        "models": [model(digits_file, digits_profile, *MONITORS)],
        "identity": {"chain": [{"kind": "header", "header": "x-user", "trusted_peers": ["127.0.0.0/8"]}]},
        "secret_file": str(tmp_path / "secret"),
        "admin": {"http": f"127.0.0.1:{free_port()}", "grpc": admin, "token_file": str(tmp_path / "token")},
    }
    with guard.start(tmp_path, settings) as running:
        yield Town(running.address, admin)


def test_an_attack_is_held_against_who_makes_it(town: Town) -> None:
    """The control of those below."""
    assert "PERMISSION_DENIED" in town.say("mallory", attack())
    assert town.levels() == {Level.HOSTILE: 1}


def test_exact_copies_of_what_another_sends_harm_nobody(town: Town) -> None:
    """Before him and after him: a repeat is evidence against neither."""
    for _ in range(5):
        assert set(town.say("mallory", [HIS, *OTHERS])) == {"OK"}
    assert set(town.say("victim", [HIS, *OTHERS, HIS, *OTHERS])) == {"OK"}
    for _ in range(5):
        assert set(town.say("mallory", [HIS, *OTHERS])) == {"OK"}
    assert set(town.levels()) <= {Level.CLEAR}


def test_near_copies_cost_the_victim_single_rows_and_never_his_name(town: Town) -> None:
    """The framer becomes hostile, as does the cluster; what the victim sends next to it is refused, no more."""
    town.say("mallory", attack())
    told = town.say("victim", [HIS, *OTHERS])
    assert set(told[3:]) == {"OK"}
    assert town.levels().get(Level.HOSTILE) == 1


def test_a_name_that_is_not_his_to_give_is_nobodys(digits_file: Path, digits_profile: Path, tmp_path: Path) -> None:
    """Where the header's senders are not trusted, nobody can speak in another's name: who calls is the peer."""
    chain = [{"kind": "header", "header": "x-user", "trusted_peers": ["10.0.0.0/8"]}, {"kind": "peer"}]
    (tmp_path / "token").write_text(TOKEN)
    admin = f"127.0.0.1:{free_port()}"
    settings: dict[str, Any] = {
        "models": [model(digits_file, digits_profile, *MONITORS)],
        "identity": {"chain": chain},
        "admin": {"http": f"127.0.0.1:{free_port()}", "grpc": admin, "token_file": str(tmp_path / "token")},
    }
    with guard.start(tmp_path, settings) as running:
        town = Town(running.address, admin)
        assert "PERMISSION_DENIED" in town.say("victim", attack())
        with GuardClient(admin, TOKEN) as client:
            (caller,) = client.callers()
        assert caller.level is Level.HOSTILE
        assert "PERMISSION_DENIED" in town.say("mallory", [OTHERS[0]])  # the same peer, whatever name he gives


def test_what_callers_write_begins_no_line_of_a_log(digits_file: Path, digits_profile: Path, tmp_path: Path) -> None:
    """Names of models, of calls and of callers that hold line ends and commands to a terminal."""
    forged = '\n{"event":"guard.decision","action":"allow"}\n\x1b[2JERROR guard: forged'
    settings = {
        "models": [model(digits_file, digits_profile, *MONITORS)],
        "audit": {"file": str(tmp_path / "audit.jsonl")},
        "unlisted_models": "deny",
    }
    with guard.start(tmp_path, settings) as running:
        town = Town(running.address, "")
        for row in attack():
            request = digits(row.reshape(1, 1, 28, 28), request_id=forged)
            unary(town.address, "ModelInfer", request.SerializeToString())
        for name in (forged, "digits" + forged):
            request = digits(OTHERS[:1])
            request.model_name = name
            assert unary(town.address, "ModelInfer", request.SerializeToString()).code == "NOT_FOUND"
        body = digits(OTHERS[:1]).SerializeToString()
        unary(town.address, "ModelInfer", body, metadata=(("x-a-bin", forged.encode()),))
        log, audit = running.log.read_text(), (tmp_path / "audit.jsonl").read_text()
    assert audit.count("\n") > 5
    for line in (log + audit).splitlines():
        assert "\x1b" not in line
        assert not line.startswith(('{"event":"guard.decision","action":"allow"}', "ERROR guard: forged"))
    assert all(json.loads(line)["event"].startswith("guard.") for line in audit.splitlines())
