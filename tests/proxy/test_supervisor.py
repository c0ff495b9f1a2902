"""What the parent of several workers makes of settings that none of them takes, and of a worker that cannot begin."""

import asyncio
import json
import signal
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc import aio

from guard import config
from guard.proxy import supervisor
from guard.proxy.post import Post
from guard.proxy.private import State
from guard.proxy.supervisor import HUNG_LOOKS, HUNG_S, REFUSED_S
from guard.settings import Settings


def settings(timeout_s: float) -> Settings:
    return config.validate({"workers": 2, "upstream": {"address": "127.0.0.1:1", "timeout_s": timeout_s}})


@pytest.fixture
def parent(tmp_path: Path) -> Any:
    posts = [Post(tmp_path, number, "127.0.0.1:1") for number in range(2)]
    return supervisor._Supervisor(settings(1.0), lambda: settings(2.0), posts, {}, "info")


def taken_by(parent: Any, *of: Settings) -> None:
    parent._states = {
        number: State(ready=True, serving=True, digest=config.digest(one)) for number, one in enumerate(of)
    }


async def test_settings_that_no_worker_takes_are_given_up(parent: Any) -> None:
    former = parent.settings
    taken_by(parent, former, former)
    await parent._reload()
    assert parent.settings.upstream.timeout_s == 2.0
    parent._settle(parent._changed_at + REFUSED_S - 1.0)
    assert parent.settings.upstream.timeout_s == 2.0  # they have time
    parent._settle(parent._changed_at + REFUSED_S + 1.0)
    assert parent.settings is former
    assert json.loads(parent._posts[0].settings.read_text()) == config.public(former)


async def test_settings_that_one_worker_takes_stay(parent: Any) -> None:
    former = parent.settings
    taken_by(parent, former, former)
    await parent._reload()
    taken_by(parent, former, parent.settings)
    parent._settle(parent._changed_at + REFUSED_S + 1.0)
    assert parent.settings.upstream.timeout_s == 2.0


async def test_a_worker_that_cannot_be_started_is_tried_again(parent: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0

    async def spawn(_: Any) -> Any:
        nonlocal tried
        tried += 1
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(parent, "_spawn", spawn)
    monkeypatch.setattr(supervisor, "SOON_S", 0.01)
    monkeypatch.setattr(supervisor.metrics, "bury", lambda *_: None)
    parent._begun = True
    keeper = asyncio.create_task(parent._keep(parent._posts[0]))
    async with asyncio.timeout(10):
        while tried < 3:
            await asyncio.sleep(0.01)
    parent._stop.set()
    assert await keeper == 0


class Silent:
    """A link to a worker that does not answer."""

    def __init__(self) -> None:
        self.own = self

    async def state(self) -> State:
        raise aio.AioRpcError(grpc.StatusCode.DEADLINE_EXCEEDED, aio.Metadata(), aio.Metadata())


async def test_a_worker_that_answers_no_more_is_killed(parent: Any) -> None:
    """Once it has answered: one that is still beginning has time."""
    process = await asyncio.create_subprocess_exec("sleep", "60")
    try:
        process.send_signal(signal.SIGSTOP)
        parent._links, parent._processes = [Silent()], {0: process}
        long_ago = time.monotonic() - HUNG_S - 1.0
        parent._silent[0] = long_ago, HUNG_LOOKS
        await parent._look_at(0)  # it has not answered once
        parent._heard.add(0)
        parent._silent[0] = long_ago + 5.0, HUNG_LOOKS
        await parent._look_at(0)  # not for so long
        parent._silent[0] = long_ago, 1
        await parent._look_at(0)  # the whole pod stood still, say
        await asyncio.sleep(0.2)
        assert process.returncode is None
        parent._silent[0] = long_ago, HUNG_LOOKS
        await parent._look_at(0)
        assert await asyncio.wait_for(process.wait(), 10) == -signal.SIGKILL
    finally:
        if process.returncode is None:
            process.kill()
