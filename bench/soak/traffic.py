"""Who calls: honest callers who repeat and vary, attackers under new names, and those who send what nobody should.

Every answer that an honest caller gets is compared with the bare model's.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
from grpc import aio
from numpy.typing import NDArray

from guard.wire import messages
from tests.servers.models import images

INFER = "/inference.GRPCInferenceService/ModelInfer"
MODEL = "digits"
CLEAN = 512
QUERIES = 60
"""Of one attacker, who then takes another name."""
Images = NDArray[np.float32]


@dataclass
class Seen:
    """What came of the calls. ends: by kind of caller and status. late_s: an honest caller's answers, since `drain`."""

    ends: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: int = 0
    late_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def drain(self) -> list[float]:
        """Latencies since the last time."""
        taken, self.late_s = self.late_s, []
        return taken


class Bare:
    """The model itself."""

    def __init__(self, file: str) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def __call__(self, x: Images) -> Images:
        """(N, 10)."""
        (y,) = self._session.run(["probabilities"], {"image": x})
        return np.asarray(y)


class Traffic:
    """Tasks that call until they are cancelled."""

    def __init__(self, address: str, bare: Bare, seed: int, pause_s: float) -> None:
        self.seen = Seen()
        self._address, self._bare, self._pause_s = address, bare, pause_s
        self._rng = np.random.default_rng(seed)
        self._clean = images(CLEAN, seed=seed)
        self._named = 0

    def callers(self, honest: int, attackers: int, rude: int) -> list["asyncio.Task[None]"]:
        """So many of each kind."""
        kinds = [self._honest(i) for i in range(honest)]
        kinds += [self._attacker() for _ in range(attackers)]
        kinds += [self._rude() for _ in range(rude)]
        return [asyncio.create_task(kind) for kind in kinds]

    async def _ask(self, channel: aio.Channel, kind: str, name: str, x: Images, timeout_s: float = 20.0) -> Any:
        began = time.perf_counter()
        ask: Any = channel.unary_unary(INFER)
        try:
            body = await ask(
                messages.build_request(MODEL, {"image": x}), metadata=(("x-user", name),), timeout=timeout_s
            )
        except aio.AioRpcError as error:
            self.seen.ends[kind, error.code().name] += 1
            return None
        self.seen.ends[kind, "OK"] += 1
        if kind == "honest":
            self.seen.late_s.append(time.perf_counter() - began)
        y = messages.parse_response(body)["probabilities"]
        if not np.allclose(y, self._bare(x), rtol=1e-4, atol=1e-6):
            self.seen.wrong += 1
        return y

    async def _wait(self) -> None:
        await asyncio.sleep(float(self._rng.exponential(self._pause_s)))

    async def _honest(self, number: int) -> None:
        """Clean images, one in five sent twice, one in five with a little noise of a camera's."""
        async with aio.insecure_channel(self._address) as channel:
            while True:
                x = self._clean[self._rng.integers(CLEAN)][None]
                draw = self._rng.random()
                if draw < 0.2:
                    x = np.clip(np.roll(x, 1, axis=3), 0, 1)
                await self._ask(channel, "honest", f"honest-{number}", x)
                if draw > 0.8:
                    await self._ask(channel, "honest", f"honest-{number}", x)
                await self._wait()

    async def _attacker(self) -> None:
        """Small steps around one image, as decision-based attacks make them; then the next, under another name."""
        while True:
            self._named += 1
            name, x = f"attacker-{self._named}", self._clean[self._rng.integers(CLEAN)][None]
            async with aio.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                for _ in range(QUERIES):
                    step = self._rng.standard_normal(x.shape) * 0.003
                    await self._ask(channel, "attacker", name, np.clip(x + step, 0, 1).astype(np.float32))
                    await self._wait()

    async def _rude(self) -> None:
        """Bytes that are no message, calls that are given up, connections that say nothing, streams that end early."""
        host, _, port = self._address.rpartition(":")
        while True:
            draw = self._rng.integers(5)
            self.seen.ends["rude", str(draw)] += 1
            try:
                if draw == 0:
                    _, writer = await asyncio.open_connection(host, int(port))
                    writer.write(self._rng.bytes(200))
                    await writer.drain()
                    writer.close()
                else:
                    async with aio.insecure_channel(self._address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
                        await self._rudely(channel, int(draw))
            except (OSError, aio.AioRpcError) as error:
                self.seen.errors[type(error).__name__] += 1
            await self._wait()

    async def _rudely(self, channel: aio.Channel, draw: int) -> None:
        x = self._clean[self._rng.integers(CLEAN)][None]
        ask: Any = channel.unary_unary(INFER)
        if draw == 1:
            await ask(self._rng.bytes(500), timeout=5)
        elif draw == 2:
            call = ask(messages.build_request(MODEL, {"image": x}), timeout=5)
            await asyncio.sleep(float(self._rng.exponential(0.002)))
            call.cancel()
        elif draw == 3:
            await ask(messages.build_request(MODEL, {"image": np.repeat(x, 200, axis=0)}), timeout=0.001)
        else:
            talk: Any = channel.stream_stream(INFER.replace("ModelInfer", "ModelStreamInfer"))
            stream = talk(timeout=5)
            await stream.write(messages.build_request(MODEL, {"image": x}))
            await stream.read()
            stream.cancel()
