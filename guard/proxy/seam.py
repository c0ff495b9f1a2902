"""The seam between Guard and whatever speaks HTTP/2: bytes and metadata in, bytes and metadata out.

Status codes are plain gRPC numbers here (0 = OK); `guard.proxy.status` names the ones that Guard itself gives.
"""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

Metadata = tuple[tuple[str, str | bytes], ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """The other end of a connection.

    address:  as gRPC names it: `ipv4:10.0.0.1:4711`, `ipv6:[::1]:4711` (percent-encoded or not), `unix:...`.
    auth:     what TLS verified: `x509_subject_alternative_name`, `x509_common_name`, `peer_spiffe_id`; empty without.
    """

    address: str
    auth: Mapping[str, tuple[bytes, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Call:
    """One call as it came in. path: `/package.Service/Method`; timeout_s: what is left of the deadline, None: none."""

    path: str
    metadata: Metadata
    timeout_s: float | None
    peer: Peer

    @property
    def method(self) -> str:
        """The method's bare name."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class Reply:
    """How a call ended. A body exists only with code 0 (unary)."""

    body: bytes = b""
    code: int = 0
    details: str = ""
    initial: Metadata = ()
    trailing: Metadata = ()


class UpstreamStream(Protocol):
    """One bidirectional stream to an upstream. Cancelling the task that reads it cancels the stream."""

    async def initial(self) -> Metadata:
        """The initial metadata, once there."""
        ...

    def messages(self) -> AsyncIterator[bytes]:
        """The answers, until the stream ends (whatever its status)."""
        ...

    async def status(self) -> Reply:
        """How it ended; `body` is empty."""
        ...


class Upstream(Protocol):
    """A server that Guard stands in front of, over the network or in this process. Never raises for a status."""

    name: str

    async def unary(self, path: str, body: bytes, metadata: Metadata, timeout_s: float) -> Reply:
        """One unary call."""
        ...

    def stream(
        self, path: str, bodies: AsyncIterator[bytes], metadata: Metadata, timeout_s: float | None
    ) -> UpstreamStream:
        """One bidirectional stream."""
        ...

    async def close(self) -> None:
        """Release what is held."""
        ...
