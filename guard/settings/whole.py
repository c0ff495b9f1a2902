"""The whole file."""

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from guard.settings.base import Section
from guard.settings.callers import History, Identity
from guard.settings.models import Model
from guard.settings.operators import Admin, Audit, Quarantine, Tracing
from guard.settings.transport import Batching, Limits, Listen, Methods, Upstream
from guard.types import OnError


class Settings(Section):
    """The whole file."""

    workers: int = Field(1, ge=1, le=64)
    """Processes that answer calls, all on one port. More than one share their history: `history.store: valkey`, unless
    nothing is to be remembered of callers. A connection stays with one worker: a client with one channel uses one."""
    allocator: Literal["keep", "system"] = "keep"
    """Where the C library is glibc: keep the memory of large messages for the next ones, or give it back after each,
    which costs page faults for all of it (`python -m bench.allocator`). MALLOC_* variables of the environment stay as
    they are. A change needs a restart."""
    plane: Literal["grpcio", "fast"] = "grpcio"
    """What speaks HTTP/2 to callers and upstreams: grpcio, or libnghttp2 at a fraction of its cost. Where `fast` cannot
    be used, grpcio is, and the log says why. A change needs a restart."""
    listen: Listen = Listen()
    upstream: Upstream | None = None
    """The default upstream."""
    models: tuple[Model, ...] = ()
    unlisted_models: OnError = OnError.DENY
    """Models not under `models`: refuse them, or forward them uninspected (counted)."""
    identity: Identity = Identity()
    methods: Methods = Methods()
    limits: Limits = Limits()
    batching: Batching = Batching()
    history: History = History()
    admin: Admin = Admin()
    audit: Audit = Audit()
    tracing: Tracing = Tracing()
    quarantine: Quarantine = Quarantine()
    secret_file: Path | None = None
    """At least 16 bytes that key every hash (callers, fingerprints, canary); or set GUARD_SECRET.

    Default: random at each start."""
    signers_file: Path | None = None
    """Ed25519 public keys (PEM): every profile must be signed by one of them (`guard sign`), or it is not used. For the
    settings themselves say `--signers` on the command line."""

    @model_validator(mode="after")
    def _coherent(self) -> "Settings":
        names = [model.name for model in self.models]
        if len(set(names)) != len(names):
            raise ValueError("models: a name is listed twice")
        for model in self.models:
            if self.upstream is None and model.upstream is None and model.embedded is None:
                raise ValueError(
                    f"model {model.name!r} has neither an upstream nor a file, and there is no default upstream"
                )
            if model.signed_as is not None and self.signers_file is None:
                raise ValueError(f"model {model.name!r}: signed_as needs a signers_file")
        if self.upstream is None and not self.models:
            raise ValueError("nothing to guard: set upstream or models")
        if self.batching.max_wait_us / 1e6 >= self.limits.inspection_timeout_s:
            raise ValueError("batching.max_wait_us must be less than limits.inspection_timeout_s")
        if self.history.store == "valkey" and self.history.valkey.timeout_s >= self.limits.inspection_timeout_s:
            raise ValueError("history.valkey.timeout_s must be less than limits.inspection_timeout_s")
        return self

    @model_validator(mode="after")
    def _together(self) -> "Settings":
        """Several workers share what they must."""
        if self.workers == 1:
            return self
        if self.listen.address.startswith("unix:"):
            raise ValueError("listen.address: a Unix socket has one listener: HOST:PORT, or workers: 1")
        remembering = next((i for i, model in enumerate(self.models) if model.remembers), None)
        if self.history.store == "memory" and remembering is not None:
            raise ValueError(
                f"history.store: memory is each worker's own, and what models.{remembering} remembers of callers would "
                f"be in {self.workers} parts: valkey, or workers: 1"
            )
        return self
