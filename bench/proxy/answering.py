"""An upstream that answers as a model server does, headers included. `python -m bench.proxy.answering PORT DIRECTORY`.

DIRECTORY has a file a method, which is its framed answer. No file server does: theirs add date, server and the like to
every answer, which is metadata to gRPC, and costs proxies a step that no model server makes them take.
"""

import asyncio
import sys
from pathlib import Path
from typing import Any, cast

from guard.proxy.fast import library

_HEAD = ((":status", "200"), ("content-type", "application/grpc"))
_DONE = (("grpc-status", "0"),)
_UNKNOWN = (*_HEAD, ("grpc-status", "12"))
_WINDOW = 2**20 - 1
_LIMIT = 256 * 1024


class Answering(asyncio.Protocol):
    """One connection."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self._answers = answers
        self._paths: dict[int, str] = {}
        self._session = library.session(
            server=True, stream_window=_WINDOW, connection_window=2**24 - 1, max_frame=_WINDOW, max_streams=1000,
            max_header_bytes=16384,
        )  # fmt: skip

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        self._transport = cast("asyncio.Transport", transport)
        self._write()

    def data_received(self, data: bytes) -> None:
        """Answer what is complete."""
        try:
            events = self._session.receive(data)
        except library.ProtocolError:
            self._transport.abort()
            return
        for kind, number, payload, end in events:
            if kind == library.HEADERS and payload is not None:
                self._paths[number] = dict(payload).get(":path", "")
            elif kind == library.DATA and not end:
                self._session.consume(number, len(payload))
            elif kind == library.CLOSED:
                self._paths.pop(number, None)
            if end and number in self._paths:
                self._answer(number, self._paths.pop(number))
        self._write()

    def _answer(self, number: int, path: str) -> None:
        answer = self._answers.get(path.rpartition("/")[2])
        if answer is None:
            self._session.respond(number, _UNKNOWN, False)
        else:
            self._session.respond(number, _HEAD, _DONE, answer)

    def _write(self) -> None:
        while data := self._session.send(_LIMIT):
            self._transport.write(data)


async def serve(port: int, answers: dict[str, bytes]) -> None:
    """Until it is killed."""
    server = await asyncio.get_running_loop().create_server(lambda: Answering(answers), "127.0.0.1", port)
    await server.serve_forever()


def main(port: str, directory: str) -> None:
    """As the command line says."""
    factory: Any = None
    try:
        import uvloop  # noqa: PLC0415 - an extra

        factory = uvloop.new_event_loop
    except ImportError:
        pass
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(serve(int(port), {file.name: file.read_bytes() for file in Path(directory).iterdir()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
