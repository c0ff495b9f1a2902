"""Where calls come from and go to: listeners, TLS, upstreams, methods, limits."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from guard.settings.base import Section
from guard.types import OnError


class ServerTls(Section):
    """TLS towards callers. Rotated files are picked up without a restart."""

    cert_file: Path
    """PEM certificate chain."""
    key_file: Path
    """PEM private key."""
    client_ca_file: Path | None = None
    """PEM bundle that signs callers' certificates (mutual TLS); goes with `require_client_cert`."""
    require_client_cert: bool = False
    """Refuse callers without a certificate from `client_ca_file`."""

    @model_validator(mode="after")
    def _ca_for_clients(self) -> "ServerTls":
        if self.require_client_cert != (self.client_ca_file is not None):  # gRPC asks for certificates or it does not
            raise ValueError("client_ca_file and require_client_cert: true go together")
        return self


class ClientTls(Section):
    """TLS towards a server that Guard calls. Rotated files are picked up without a restart."""

    ca_file: Path | None = None
    """PEM bundle that signs the server; default: the system's."""
    cert_file: Path | None = None
    """PEM certificate chain that Guard presents (mutual TLS)."""
    key_file: Path | None = None
    """PEM private key for `cert_file`."""
    server_name: str | None = None
    """The name to expect in the server's certificate, if not the address."""

    @model_validator(mode="after")
    def _pair(self) -> "ClientTls":
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file go together")
        return self


Compression = Literal["none", "gzip", "deflate"]


class Listen(Section):
    """Where callers connect."""

    address: str = "127.0.0.1:9000"
    """HOST:PORT (port 0: any free one) or unix:/PATH."""
    tls: ServerTls | None = None
    compression: Compression = "none"
    """Compression of answers, for callers that accept it. Requests may be compressed whatever this says."""


class Upstream(Section):
    """A server that speaks the Open Inference Protocol."""

    address: str
    """HOST:PORT or unix:/PATH."""
    dialect: Literal["triton", "mlserver"] = "triton"
    """How ModelStreamInfer answers: Triton wraps each answer, MLServer does not."""
    tls: ClientTls | None = None
    timeout_s: float = Field(30.0, gt=0, le=3600)
    """The longest a unary call may take, and a stream may be silent, where the caller set no sooner deadline."""
    compression: Compression = "none"
    """Compression of requests on this hop."""


class Embedded(Section):
    """An ONNX file served in this process with onnxruntime."""

    file: Path
    """The ONNX file."""
    require_gpu: bool = False
    """Refuse to start where onnxruntime does not really use CUDA."""
    threads: int = Field(1, ge=1, le=256)
    """onnxruntime's threads for one call."""
    max_batch_rows: int = Field(1024, ge=1)
    """Larger batches are refused."""


class Methods(Section):
    """What is done with methods beyond inference, health, metadata, config and statistics."""

    allow: tuple[str, ...] = ()
    """Denied methods to pass through after all, by name: `RepositoryModelLoad`, or a full path for unknown services."""
    allow_parameters: tuple[Literal["shared_memory", "classification"], ...] = ()
    """Let inference requests carry these where Guard cannot inspect what they stand for. Triton's classification of the
    output that a profile names is inspected, and needs no leave."""


class Limits(Section):
    """Everything that grows, and what happens past it."""

    max_request_bytes: int = Field(64 * 1024 * 1024, ge=1024, le=2**31 - 1)
    """Larger requests are RESOURCE_EXHAUSTED."""
    max_response_bytes: int = Field(64 * 1024 * 1024, ge=1024, le=2**31 - 1)
    """Larger upstream answers are RESOURCE_EXHAUSTED."""
    max_metadata_bytes: int = Field(16 * 1024, ge=1024, le=1024 * 1024)
    max_connections: int = Field(1024, ge=1)
    """Callers' connections at once, with `plane: fast`. A further one takes the place of one without a call; where all
    have some, it is closed."""
    max_concurrent_calls: int = Field(256, ge=1)
    """Calls (streams count as one) handled at once."""
    max_queued_calls: int = Field(128, ge=0)
    """Calls waiting for their turn; further ones are RESOURCE_EXHAUSTED at once, and so are those whose deadline would
    pass while they wait, by the pace at which places have become free. Under overload the queue is full: as many as
    there are places double what an answered call takes."""
    max_rows: int = Field(4096, ge=1)
    """Rows of one inspected request; more are INVALID_ARGUMENT."""
    max_elements: int = Field(64 * 1024 * 1024, ge=1)
    """Elements of one tensor, BYTES strings included; more are INVALID_ARGUMENT."""
    inspection_timeout_s: float = Field(1.0, gt=0, le=60)
    """The longest the stages may take for one query, upstream calls not counted."""
    on_inspection_timeout: OnError = OnError.ALLOW
    """Past it, in a model that enforces: forward uninspected (counted), or refuse."""
    inspection_threads: int = Field(2, ge=1, le=256)
    max_delayed_calls: int = Field(32, ge=0)
    """Answers held back at once by `delay`; further ones leave without (counted)."""
    drain_s: float = Field(30.0, ge=0, le=3600)
    """After SIGTERM, how long calls in flight may take."""


class Batching(Section):
    """Networks of stages: rows of calls that are inspected at once go in one run of a network, which fills a GPU.

    As many calls are inspected at once as there are `limits.inspection_threads`: with a GPU, ask for about as many as
    calls come at once.
    """

    where: Literal["gpu", "everywhere", "nowhere"] = "gpu"
    """`gpu`: where onnxruntime really runs a network on CUDA. On CPUs it seldom pays (docs/results/batching.md)."""
    max_wait_us: int = Field(200, ge=0, le=100_000)
    """The longest that rows wait for further ones while the network could run. Who comes alone does not wait."""
    max_rows: int = Field(64, ge=1, le=256)
    """Of one run; less where a network's file fixes fewer. 1: no batching."""
