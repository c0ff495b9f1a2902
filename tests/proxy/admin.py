"""A small Guard without its proxy, for tests of its own API: real engine, store, audit and metrics."""

import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from guard import config
from guard.audit import Audit, Broadcast, Event
from guard.drift import Drift
from guard.engine import Engine
from guard.journal import Journal
from guard.lately import Lately
from guard.metrics import Metrics
from guard.profile import Profile
from guard.proxy import admin_grpc
from guard.proxy.door import Door
from guard.settings import Audit as AuditSettings
from guard.settings import Model, Settings
from guard.stores.memory import MemoryStore
from tests.core.helpers import MeanDetector, OverlapMonitor, ViewGap, model_of, profile_of

TOKEN = "the-admin-token"
SECRET = b"a secret of sixteen bytes"
CLEAN = np.linspace(0.0, 0.5, 99)  # p-values in steps of 1 %, the budget is 10 %
PROFILE = profile_of(
    {
        ("detector", "test_mean"): (MeanDetector(), CLEAN),
        ("detector", "test_views"): (ViewGap(), CLEAN),
        ("monitor", "test_overlap"): (OverlapMonitor(), np.zeros(999)),
    }
)
GOOD, BAD = np.full((1, 4), 0.1, np.float32), np.full((1, 4), 0.9, np.float32)
Y = np.array([[0.2, 0.3, 0.5]], np.float32)


@dataclass(frozen=True)
class FakeUpstream:
    """Nothing is ever sent there."""

    name: str = "127.0.0.1:8001"


@dataclass(frozen=True)
class FakeModel:
    """What the API sees of a guarded model."""

    settings: Model
    profile: Profile | None = PROFILE
    engine: Engine | None = None
    mismatch: str | None = None
    ready: bool = True
    reason: str = ""
    upstream: Any = FakeUpstream()
    drift: Drift = field(default_factory=lambda: Drift({}))

    @classmethod
    def of(cls, profile: Profile = PROFILE, **values: Any) -> "FakeModel":
        """A model with these settings, at work."""
        settings = model_of(**values)
        return cls(settings, profile, Engine(settings, profile, SECRET))


@dataclass
class FakeRuntime:
    """What the API sees of a runtime."""

    models: Mapping[str, FakeModel]
    audit: Audit
    metrics: Metrics
    store: MemoryStore = field(default_factory=MemoryStore)
    watchers: Broadcast[Event] = field(init=False)
    journal: Journal = field(default_factory=lambda: Journal(100))
    lately: Lately = field(default_factory=Lately)
    settings: Settings = field(
        default_factory=lambda: config.validate({"upstream": {"address": "127.0.0.1:8001"}, "limits": {"max_rows": 8}})
    )
    started: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.watchers = Broadcast(self.metrics, max_readers=4)


@contextlib.asynccontextmanager
async def serving(audit_file: Path, **models: FakeModel) -> AsyncIterator[tuple[FakeRuntime, str]]:
    """The API over these models, and its address."""
    metrics = Metrics()
    runtime = FakeRuntime(models, Audit(AuditSettings(file=audit_file), metrics), metrics)
    listener = await admin_grpc.start(lambda: runtime, "127.0.0.1:0", Door(TOKEN, lambda _: None))
    try:
        yield runtime, listener.address
    finally:
        await listener.close(0.0)
        runtime.audit.close()
