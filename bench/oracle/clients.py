"""Who sends: the plain asynchronous loop that any client would write, and the oracle by each of its doors.

A sender is given batches and returns when all are answered. The plain loop builds a request of each batch and decodes
its answer, as a client must; `prepared` does neither, and shows what gRPC and the endpoint can do at most.
"""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import grpc
import numpy as np

from adversary.attack import Array, Meter, ScoreMeter
from adversary.oracle import AsyncOracle, Endpoint, Oracle
from bench.oracle.kinds import MODEL
from guard.wire import open_inference_pb2 as pb

Send = Callable[[Sequence[Array]], None]
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_BUDGET = 10**12


def request(x: Array, names: tuple[str, str]) -> pb.ModelInferRequest:
    """As the protocol's manual has it."""
    message = pb.ModelInferRequest(model_name=MODEL)
    message.inputs.add(name=names[0], datatype="FP32", shape=x.shape)
    message.outputs.add(name=names[1])
    message.raw_input_contents.append(x.tobytes())
    return message


def decoded(response: pb.ModelInferResponse) -> Array:
    """The only output, as an array."""
    return np.frombuffer(response.raw_output_contents[0], "<f4").reshape(tuple(response.outputs[0].shape))


class Plain:
    """The loop: so many workers take a batch each from the rest. Within one event loop."""

    def __init__(self, channel: grpc.aio.Channel, names: tuple[str, str]) -> None:
        self._names = names
        self._infer: Any = channel.unary_unary(
            _INFER,
            request_serializer=pb.ModelInferRequest.SerializeToString,
            response_deserializer=pb.ModelInferResponse.FromString,
        )
        self._raw: Any = channel.unary_unary(_INFER)
        self._bodies: dict[int, bytes] = {}

    async def send(self, batches: Sequence[Array], concurrency: int) -> None:
        """A request built, an answer decoded, each time."""

        async def one(x: Array) -> None:
            decoded(await self._infer(request(x, self._names), timeout=60))

        await _shared(batches, concurrency, one)

    def prepare(self, batches: Sequence[Array]) -> None:
        """The bytes of these, once and for all."""
        self._bodies = {id(x): request(x, self._names).SerializeToString() for x in batches}

    async def send_prepared(self, batches: Sequence[Array], concurrency: int) -> None:
        """Bytes that were prepared; answers that nobody reads."""

        async def one(x: Array) -> None:
            await self._raw(self._bodies[id(x)], timeout=60)

        await _shared(batches, concurrency, one)


async def _shared(batches: Sequence[Array], concurrency: int, one: Callable[[Array], Any]) -> None:
    rest = iter(batches)

    async def work() -> None:
        for x in rest:
            await one(x)

    await asyncio.gather(*(work() for _ in range(concurrency)))


class Clients:
    """All of them, connected to one endpoint."""

    def __init__(self, runner: "asyncio.Runner", plain: Plain, loop: AsyncOracle, oracle: Oracle) -> None:
        self._runner, self._plain, self._loop, self.oracle = runner, plain, loop, oracle

    def plain(self, batches: Sequence[Array], concurrency: int = 1) -> None:
        """The plain loop."""
        self._runner.run(self._plain.send(batches, concurrency))

    def senders(self, concurrency: int, batches: Sequence[Array]) -> dict[str, Send]:
        """By name. batches: all that will be sent."""
        self._plain.prepare(batches)
        prepared: dict[str, Send] = {
            "plain loop, prepared bytes": lambda xs: self._runner.run(self._plain.send_prepared(xs, concurrency)),
            "AsyncOracle.replies": lambda xs: self._runner.run(self._replies(xs, concurrency)),
            "Oracle.replies": lambda xs: _nothing(self.oracle.replies(xs, concurrency)),
        }
        return prepared if concurrency > 1 else {**prepared, **self._one_by_one()}

    def _one_by_one(self) -> dict[str, Send]:
        rows = _BUDGET
        scores, labels = ScoreMeter(self.oracle, 0, rows, rows), Meter(self.oracle, 0, rows, rows)
        asks: dict[str, Callable[[Array], object]] = {
            "Oracle.query": self.oracle.query,
            "Oracle.labels": self.oracle.labels,
            "Oracle.probabilities": self.oracle.probabilities,
            "Meter (labels)": labels.adversarial,
            "ScoreMeter (scores)": scores.scores,
        }
        return {"AsyncOracle.query": self._awaited, **{name: _each(ask) for name, ask in asks.items()}}

    async def _replies(self, batches: Sequence[Array], concurrency: int) -> None:
        """Hands back nothing: a runner makes a text of what its task returns, arrays and all."""
        await self._loop.replies(batches, concurrency)

    def _awaited(self, batches: Sequence[Array]) -> None:
        async def send() -> None:
            for x in batches:
                await self._loop.query(x)

        self._runner.run(send())


def _each(ask: Callable[[Array], object]) -> Send:
    def send(batches: Sequence[Array]) -> None:
        for x in batches:
            ask(x)

    return send


def _nothing(_replies: object) -> None:
    """Nobody reads them."""


@contextmanager
def connected(address: str) -> Iterator[Clients]:
    """To an endpoint, until the block ends."""
    endpoint = Endpoint(address, MODEL, timeout_s=60.0)
    with ExitStack() as stack:
        runner = stack.enter_context(asyncio.Runner())

        async def opened() -> tuple[grpc.aio.Channel, AsyncOracle]:
            return grpc.aio.insecure_channel(address, options=_UNBOUNDED), await AsyncOracle(
                endpoint, _BUDGET
            ).__aenter__()

        channel, loop = runner.run(opened())
        stack.callback(lambda: runner.run(channel.close()))
        stack.callback(lambda: runner.run(loop.__aexit__()))
        oracle = stack.enter_context(Oracle(endpoint, _BUDGET))
        tongue = loop.ledger.tongue
        names = ("", "") if tongue is None else (tongue.input_name, tongue.output_name)
        yield Clients(runner, Plain(channel, names), loop, oracle)
