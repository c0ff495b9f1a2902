"""One attack on one Guard with two workers, over gRPC: with a Valkey between them they see what one process sees."""

import asyncio
import os
import signal
import time
from pathlib import Path

import pytest
from grpc import aio

from guard.cli_top import Guard as Page
from guard.client import GuardClient
from guard.proxy.private import Worker
from guard.types import Level
from tests.servers import guard, valkey
from tests.servers.calls import digits, unary
from tests.servers.process import free_port, workers_of
from tests.stores.attack import MONITORS, QUERIES, attack, model

FEW = 3
TOKEN = "a-token-for-operators"


@pytest.fixture
def common(digits_file: Path, digits_profile: Path, tmp_path: Path):
    (tmp_path / "secret").write_text("the same in every worker")
    (tmp_path / "token").write_text(TOKEN)
    return {
        "models": [model(digits_file, digits_profile, *MONITORS)],
        "secret_file": str(tmp_path / "secret"),
        "limits": {"drain_s": 0.0},
    }


def home(tmp_path: Path, name: str) -> Path:
    (tmp_path / name).mkdir()
    return tmp_path / name


def first_refusal(address: str) -> int:
    """At which query of the attack, each on a connection of its own, it is first refused."""
    for i, x in enumerate(attack()):
        got = unary(address, "ModelInfer", digits(x[None]).SerializeToString())
        assert got.code in {"OK", "PERMISSION_DENIED"}
        if got.code != "OK":
            return i
    return QUERIES


def parent_of(started: guard.Guarded) -> int:
    """`setpriv` became Guard, or there is none."""
    return started.process.pid


async def events_in(directory: str, number: int, caller: str) -> int:
    """How many of a caller's decisions one worker keeps."""
    async with aio.insecure_channel(f"unix:{directory}/w{number}.sock") as channel:
        return len(await Worker(channel).events(caller=caller))


def test_two_workers_on_one_valkey_refuse_as_soon_as_one_process(common, tmp_path: Path) -> None:
    with guard.start(home(tmp_path, "one"), common | {"history": {"store": "memory"}}) as one:
        alone = first_refusal(one.address)
    assert 0 < alone < QUERIES
    pages = free_port()
    admin = {"http": f"127.0.0.1:{pages}", "grpc": f"127.0.0.1:{free_port()}", "token_file": str(tmp_path / "token")}
    with valkey.start(tmp_path) as port:
        history = {"store": "valkey", "valkey": {"addresses": [f"127.0.0.1:{port}"], "timeout_s": 0.5}}
        settings = common | {"workers": 2, "history": history, "admin": admin}
        with guard.start(home(tmp_path, "two"), settings) as two, GuardClient(admin["grpc"], TOKEN) as client:
            assert first_refusal(two.address) <= alone + FEW
            (caller,) = client.callers()
            assert caller.level is Level.HOSTILE

            words = next(iter(workers_of(parent_of(two)).values()))
            directory = words[words.index("guard.proxy.worker") + 1]
            for x in attack(seed=3):  # which worker a connection gets is chance: until both have something to tell
                own = [asyncio.run(events_in(directory, i, caller.caller)) for i in range(2)]
                if min(own) > 0:
                    break
                unary(two.address, "ModelInfer", digits(x[None]).SerializeToString())
            assert min(own) > 0, "each has answered some"
            story = client.explain(caller=caller.caller, limit=QUERIES)
            assert len(story.decisions) + story.left_out == sum(own), "and the parent tells of all"
            assert [one.time for one in story.decisions] == sorted(one.time for one in story.decisions)
            linked = [link for one in story.decisions for link in one.links if link.trace.neighbour >= 0]
            assert linked
            assert all(link.decision_id for link in linked), "a row is linked to rows that another worker answered"
            levels = [one.level for one in story.crossings]
            assert levels == sorted(set(levels)), "each level is crossed once"
            (same,) = client.explain(decision_id=story.decisions[-1].decision_id).decisions
            assert same == story.decisions[-1]

            shown = Page("127.0.0.1", pages, TOKEN).look()  # what `guard top` and the page show
            assert [(one["caller"], one["level"]) for one in shown["callers"]] == [(caller.caller, "hostile")]
            assert max(way for _, way in shown["callers"][0]["points"]) >= 1.0
            assert len({one["decision_id"] for one in shown["decisions"]}) >= sum(own) / 2
            assert [one["time"] for one in shown["decisions"]] == sorted(d["time"] for d in shown["decisions"])[::-1]

            assert client.forgive("digits", caller.caller)
            assert not [one for one in client.callers() if one.level is not Level.CLEAR]
        events = two.events()  # whole lines, whoever wrote them
        assert len({event["decision_id"] for event in events if "decision_id" in event}) >= sum(own) / 2


def test_a_worker_that_is_killed_is_replaced_and_forgets_nothing(common, tmp_path: Path) -> None:
    admin = f"127.0.0.1:{free_port()}"
    with valkey.start(tmp_path) as port:
        history = {"store": "valkey", "valkey": {"addresses": [f"127.0.0.1:{port}"], "timeout_s": 0.5}}
        settings = common | {"workers": 2, "history": history, "admin": {"http": admin, "grpc": None}}
        with guard.start(home(tmp_path, "two"), settings) as two:
            assert first_refusal(two.address) < QUERIES
            before = workers_of(parent_of(two))
            assert len(before) == 2
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            until = time.monotonic() + 60
            body = digits(attack()[-1][None]).SerializeToString()
            codes = []
            while time.monotonic() < until and (not codes or codes[-1] == "UNAVAILABLE"):
                codes.append(unary(two.address, "ModelInfer", body).code)
            assert codes[-1] == "PERMISSION_DENIED", codes  # he is known to those that begin
            assert not set(before) & set(workers_of(parent_of(two)))
