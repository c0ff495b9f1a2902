"""The end of a pod with Guard as a sidecar, in the kubelet's order: hooks of all containers at once, SIGTERM for the
server when its own has ended, and for a native sidecar only when the server has.

No kubelet is here. What runs are the hooks of deploy/kubernetes-pod.yaml, a real Guard as a process, and a gRPC server
that ends as abruptly as it can.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from grpc import aio

from tests.proxy.world import INFER, Ended, Server, ended, eventually, request, serving
from tests.servers import guard

POD = Path(__file__).parents[1] / "deploy" / "kubernetes-pod.yaml"
SLOW_S = 4.0
"""Of a call: longer than Guard goes on taking new ones."""


def hooks() -> tuple[list[str], list[str]]:
    """The commands of the sidecar's and of the server's."""
    (pod,) = yaml.safe_load_all(POD.read_text())
    found = (pod["spec"]["initContainers"], pod["spec"]["containers"])
    one, other = (containers[0]["lifecycle"]["preStop"]["exec"]["command"] for containers in found)
    return one, other


def at(hook: list[str], guarded: guard.Guarded) -> list[str]:
    """The server's, with the ports that Guard has here."""
    for named, address in (("9000", guarded.address), ("9464", guarded.admin)):
        hook = [part.replace(f"open {named}", f"open {address.rpartition(':')[2]}") for part in hook]
    return hook


async def run(command: list[str]) -> None:
    """With this Python as `python`, which the machine need not have by that name."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    process = await asyncio.create_subprocess_exec(*command, env=os.environ | {"PATH": path})
    await process.wait()


async def end(guarded: guard.Guarded, server: Server, *, hooked: bool) -> None:
    """What the kubelet does, with the grace period left out."""

    async def server_ends(hook: list[str]) -> None:
        if hooked:
            await run(at(hook, guarded))
        await server.server.stop(None)

    async def sidecar_ends(hook: list[str], turn: "asyncio.Task[None]") -> None:
        if hooked:
            await run([part.replace("kill(1,", f"kill({guarded.process.pid},") for part in hook])
        await turn
        with contextlib.suppress(ProcessLookupError):
            guarded.process.send_signal(signal.SIGTERM)

    of_guard, of_server = hooks()
    turn = asyncio.create_task(server_ends(of_server))
    await sidecar_ends(of_guard, turn)
    await asyncio.to_thread(guarded.process.wait, 30)


@pytest.mark.parametrize("hooked", [True, False], ids=["with the hooks", "without"])
async def test_a_sidecar_s_pod_ends_without_a_failed_call(tmp_path: Path, hooked: bool) -> None:
    """Calls under way, and those that come until the endpoints have gone, are answered; without hooks they fail."""

    async def infer(_: bytes, context: Any) -> bytes:
        await asyncio.sleep(SLOW_S)
        return b"done"

    async with serving(infer=infer) as server:
        tree = {"upstream": {"address": server.address}, "unlisted_models": "allow", "limits": {"drain_s": 20}}
        with guard.start(tmp_path, tree) as guarded:
            async with aio.insecure_channel(guarded.address) as channel:
                method: Any = channel.unary_unary(INFER)
                calls: list[asyncio.Task[Ended]] = []

                def call() -> None:
                    calls.append(asyncio.create_task(ended(method(request(), timeout=30))))

                call()
                await eventually(lambda: len(server.calls()) == 1)
                ending = asyncio.create_task(end(guarded, server, hooked=hooked))
                for _ in range(10):  # for a second: until nobody is sent here any more
                    await asyncio.sleep(0.1)
                    call()
                codes = Counter([(await one).code for one in calls])
                await ending
    if hooked:
        assert codes == {grpc.StatusCode.OK: 11}
    else:
        assert codes[grpc.StatusCode.UNAVAILABLE] == 11, codes


async def test_a_server_that_is_restarted_alone_waits_for_nobody(tmp_path: Path) -> None:
    """Guard does not drain then: the hook gives up."""
    _, hook = hooks()
    async with serving() as server:
        with guard.start(tmp_path, {"upstream": {"address": server.address}, "unlisted_models": "allow"}) as guarded:
            await asyncio.wait_for(run(at(hook, guarded)), 8)
            assert guarded.process.poll() is None
