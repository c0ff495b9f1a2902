"""Write the messages of a stream of grpc.aio's, and leave it to the server to say how the stream ends.

A server may end a stream while messages are on their way to it. A write that fails then makes grpc.aio put INTERNAL,
"Internal error from Core", in the place of the server's status, and the answers that were not read yet are lost
(grpc/grpc#36066; one such stream in five, measured). So these writes go around the method that does it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

from grpc import aio

_log = logging.getLogger(__name__)


_ENDED = (aio.AioRpcError, aio.InternalError, asyncio.InvalidStateError)
"""What a write fails with where the call has ended, or is about to."""
_SOURCE_OVER = (aio.UsageError, aio.InternalError)
"""What reading a caller's messages fails with where his call is over."""


async def write_all(call: Any, bodies: AsyncIterator[bytes]) -> None:
    """Write each, then half-close; returns early where the call ends. Where `bodies` fails, the call is cancelled."""
    below = getattr(call, "_cython_call", None)
    write = getattr(below, "send_serialized_message", call.write)
    messages = aiter(bodies)
    try:
        await call.wait_for_connection()
        while (body := await _next(call, messages)) is not None:
            if call.done():
                return
            await write(body)
        await call.done_writing()  # nothing where the call has ended
    except _ENDED:
        return
    except asyncio.CancelledError:
        call.cancel()
        raise
    except aio.UsageError:  # the channel was closed under the call
        call.cancel()
    except Exception:  # noqa: BLE001 - its text must not reach a caller
        if call.cancel():
            _log.exception("a stream's messages cannot be sent")


async def _next(call: Any, messages: AsyncIterator[bytes]) -> bytes | None:
    """The next message; None: there are no more, or they cannot be read, and the call is cancelled."""
    try:
        return await anext(messages, None)
    except _SOURCE_OVER:
        call.cancel()
    except Exception:  # noqa: BLE001 - its text must not reach a caller
        if call.cancel():
            _log.exception("a stream's messages cannot be read")
    return None
