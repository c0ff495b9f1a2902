"""A rolling restart under load: `python -m deploy.rolling` restarts two real Guards in turn and counts failed calls.

    python -m deploy.rolling [--balancer envoy|grpc] [--plane grpcio|fast] [--rounds N] [--callers N] [--kill]

Callers call without a pause and never try again themselves. Between them and the Guards is either a real Envoy with
deploy/envoy/envoy.yaml, or gRPC's own round robin with health checking in the client, as behind a headless Service. In
each round every Guard gets a SIGTERM, ends, and is started again on its port; the next one follows when it is ready, as
a Deployment with maxUnavailable 0 does. `--kill` sends SIGKILL instead: the control, whose calls fail. The exit status
is 0 where no call failed.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from grpc import aio

from bench.proxy import programs
from guard.proxy.health import OWN
from tests.proxy.world import INFER, request, serving
from tests.servers import guard
from tests.servers.process import answers, free_port, running

CONFIG = Path(__file__).parent / "envoy" / "envoy.yaml"
HEALTH = "/grpc.health.v1.Health/Check"
DRAIN_S, DEADLINE_S = 20, 30.0
_ROUND_ROBIN = {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": OWN}}


@dataclass
class Seen:
    """How calls ended, and how many calls each started Guard had when it ended."""

    ends: Counter[str] = field(default_factory=Counter)
    served: list[int] = field(default_factory=list)

    @property
    def failed(self) -> int:
        return self.ends.total() - self.ends["OK"]


@contextlib.contextmanager
def envoy(directory: Path, ports: list[int]) -> Iterator[str]:
    """A real Envoy with the shipped configuration, but for addresses; yields its own."""
    tree = yaml.safe_load(CONFIG.read_text())
    port, resources = free_port(), tree["static_resources"]
    address = {"address": "127.0.0.1", "port_value": port}
    resources["listeners"][0]["address"]["socket_address"] = address
    ((cluster),) = resources["clusters"]
    cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = [
        {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": one}}}} for one in ports
    ]
    del tree["admin"]
    file = directory / "envoy.json"
    file.write_text(json.dumps(tree))
    command = [programs.envoy(), "-c", str(file), "--concurrency", "1", "--use-dynamic-base-id", "-l", "warning"]
    own = f"127.0.0.1:{port}"
    with running([*command, "--disable-hot-restart"], directory / "envoy.log", lambda: answers(own, HEALTH)):
        yield own


def validate() -> None:
    """Envoy's own word on the shipped file. Raises CalledProcessError."""
    subprocess.run([programs.envoy(), "--mode", "validate", "-c", str(CONFIG)], check=True, capture_output=True)


@contextlib.contextmanager
def _balanced(kind: str, directory: Path, ports: list[int]) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """The address and the channel's options for callers."""
    if kind == "envoy":
        with envoy(directory, ports) as address:
            yield address, [("grpc.enable_retries", 0)]
    else:
        listed = ",".join(f"127.0.0.1:{port}" for port in ports)
        yield f"ipv4:{listed}", [("grpc.service_config", json.dumps(_ROUND_ROBIN)), ("grpc.enable_retries", 0)]


@contextlib.asynccontextmanager
async def _guard(directory: Path, port: int, upstream: str, plane: str) -> AsyncIterator[guard.Guarded]:
    tree = {
        "listen": {"address": f"127.0.0.1:{port}"}, "upstream": {"address": upstream}, "plane": plane,
        "unlisted_models": "allow", "limits": {"drain_s": DRAIN_S},
    }  # fmt: skip
    started = guard.start(directory, tree)
    running_one = await asyncio.to_thread(started.__enter__)
    try:
        yield running_one
    finally:
        await asyncio.to_thread(started.__exit__, None, None, None)


async def _calls(number: int, channel: aio.Channel, seen: Seen, end: asyncio.Event) -> None:
    method: Any = channel.unary_unary(INFER)
    for turn in itertools.cycle(range(8)):  # several keys each: so that every Guard has some of them
        if end.is_set():
            return
        metadata = (("x-api-key", f"caller {number}, {turn}"),)
        try:
            await method(request(), timeout=DEADLINE_S, metadata=metadata)
            seen.ends["OK"] += 1
        except aio.AioRpcError as error:
            seen.ends[f"{error.code().name} {error.details()}"] += 1


def _end(guarded: guard.Guarded, kill: bool) -> None:
    guarded.process.kill() if kill else guarded.process.terminate()


def _count(guarded: guard.Guarded) -> int:
    """Calls that a Guard has answered with OK."""
    with urllib.request.urlopen(f"http://{guarded.admin}/metrics", timeout=20) as page:
        text = page.read().decode()
    pattern = r'^grpc_server_handled_total\{.*grpc_code="OK".*grpc_method="ModelInfer".*\} (\S+)$'
    return sum(int(float(one)) for one in re.findall(pattern, text, re.MULTILINE))


async def restart(
    directory: Path, *, balancer: str, plane: str = "grpcio", rounds: int = 1, callers: int = 16, kill: bool = False
) -> Seen:
    """Two Guards, each restarted once a round, while so many callers call."""
    seen, end, ports = Seen(), asyncio.Event(), [free_port(), free_port()]

    async def infer(_: bytes, context: object) -> bytes:  # noqa: ARG001
        await asyncio.sleep(0.02)
        return b"done"

    async def enough() -> None:
        """Every caller has called some more times, whoever serves them now."""
        until = seen.ends.total() + 10 * callers
        while seen.ends.total() < until:  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.05)

    async with serving(infer=infer) as server, contextlib.AsyncExitStack() as stack:
        places = [directory / str(port) for port in ports]
        stacks = [await stack.enter_async_context(contextlib.AsyncExitStack()) for _ in ports]
        now: list[guard.Guarded] = []
        for place, port, own in zip(places, ports, stacks, strict=True):
            place.mkdir()
            now.append(await own.enter_async_context(_guard(place, port, server.address, plane)))
        address, options = await asyncio.to_thread(stack.enter_context, _balanced(balancer, directory, ports))
        channel = await stack.enter_async_context(aio.insecure_channel(address, options))
        tasks = [asyncio.create_task(_calls(one, channel, seen, end)) for one in range(callers)]
        await enough()
        for _ in range(rounds):
            for place, port, own, which in zip(places, ports, stacks, range(2), strict=True):
                seen.served.append(await asyncio.to_thread(_count, now[which]))
                _end(now[which], kill)
                await asyncio.to_thread(now[which].process.wait, DRAIN_S + 20)
                await own.aclose()
                now[which] = await own.enter_async_context(_guard(place, port, server.address, plane))
                await _has_traffic(now[which])
                await enough()
        end.set()
        await asyncio.gather(*tasks)
        seen.served += [await asyncio.to_thread(_count, one) for one in now]
    return seen


async def _has_traffic(guarded: guard.Guarded) -> None:
    """The new one is in use again: only then may the next one go."""
    while not await asyncio.to_thread(_count, guarded):  # noqa: ASYNC110 - another process
        await asyncio.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--balancer", choices=("envoy", "grpc"), default="envoy")
    parser.add_argument("--plane", choices=("grpcio", "fast"), default="grpcio")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--kill", action="store_true")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        seen = asyncio.run(restart(Path(directory), **vars(words)))
    print(f"{seen.ends.total()} calls, {2 * words.rounds} restarts, {seen.failed} failed: {dict(seen.ends)}")
    print(f"each Guard answered: {seen.served}")
    return bool(seen.failed or not all(seen.served))


if __name__ == "__main__":
    sys.exit(main())
