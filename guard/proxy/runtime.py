"""The settings in force and everything made of them. A reload makes another one and swaps it in whole.

What outlives a reload (the store, metrics, watchers, admission, work in the background) is `Shared`; upstreams that
did not change are handed on, with their connections.
"""

import asyncio
import contextlib
import logging
import secrets
import time
from collections import Counter
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from guard import config
from guard.audit import Audit, Broadcast, Event
from guard.batching import Gathering
from guard.delivering import Delivery
from guard.engine import Engine
from guard.events import Exempted
from guard.journal import Journal
from guard.lately import Lately
from guard.metrics import Metrics
from guard.networks import Networks
from guard.places import Place
from guard.profile import Profile, load_profile
from guard.proxy.admission import Admission
from guard.proxy.background import Background
from guard.proxy.challenges import Challenges
from guard.proxy.crew import Crew
from guard.proxy.embedded import EmbeddedUpstream
from guard.proxy.identity import Chain, Cohorts
from guard.proxy.models import GuardedModel, Route
from guard.proxy.plane import make_upstream
from guard.proxy.rations import Rations
from guard.quarantining import Quarantine, open_place
from guard.reloading import fingerprint
from guard.settings import ConfigError, History, Model, Receiver, Settings, Tracing, Upstream
from guard.signing import Signers, signers_of, vouch_of
from guard.stores.client import Server
from guard.stores.fallback import OWN, FallbackStore
from guard.stores.memory import MemoryStore
from guard.stores.valkey import ValkeyStore
from guard.tracing import Tracer
from guard.types import OnError, Store

MIN_SECRET_BYTES = 16
MAX_PROBES = 64
EMBEDDED_TIMEOUT_S = 30.0
GATHER_S = 0.5
"""How long spans wait for others, to be sent together."""
_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Shared:
    """What outlives a reload.

    holders:   how many runtimes use an upstream or an audit, by id: a retiring one may still answer calls.
    draining:  no new callers are wanted.
    closing:   the listener stops now.
    answering: cleared for the moment in which the listener stops; answers wait for it.
    turn:      a file that workers lock while they write to the audit log.
    """

    metrics: Metrics
    store: MemoryStore | FallbackStore
    watchers: Broadcast[Event]
    journal: Journal
    secret: bytes
    admission: Admission
    probes: Admission
    background: Background
    lately: Lately = field(default_factory=Lately)
    started: float = field(default_factory=time.time)
    holders: Counter[int] = field(default_factory=Counter)
    draining: bool = False
    closing: bool = False
    answering: asyncio.Event = field(default_factory=asyncio.Event)
    turn: Path | None = None

    def __post_init__(self) -> None:
        self.answering.set()


def share(settings: Settings, turn: Path | None = None) -> Shared:
    """Raises ConfigError."""
    metrics, limits, history = Metrics(), settings.limits, settings.history
    store = _store(history, metrics)
    return Shared(
        metrics=metrics,
        store=store,
        watchers=Broadcast(metrics),
        journal=Journal(settings.audit.max_explained),
        secret=secret_of(settings).encode(),
        admission=Admission(limits.max_concurrent_calls, limits.max_queued_calls, metrics),
        probes=Admission(MAX_PROBES, 0, metrics),
        background=Background(limits.max_concurrent_calls),
        turn=turn,
    )


def _store(history: History, metrics: Metrics) -> MemoryStore | FallbackStore:
    """Raises ConfigError."""
    bounds: dict[str, Any] = {
        "max_entries": history.max_entries,
        "max_callers": history.max_callers,
        "ttl_s": history.ttl_s,
        "on_evict": lambda what: metrics.store_evicted.labels(what).inc(),
    }
    if history.store == "memory":
        return MemoryStore(**bounds)
    plain = history.valkey.model_dump(exclude={"timeout_s", "on_away"})
    try:
        shared = ValkeyStore(Server(**plain), timeout_s=history.valkey.timeout_s, **bounds)
    except ImportError:
        raise ConfigError(
            "history.store", "valkey needs the extra `valkey`: pip install '.[valkey]' in a clone"
        ) from None
    except ValueError as error:
        raise ConfigError("history.valkey", str(error)) from None
    own = MemoryStore(**bounds, first=OWN) if history.valkey.on_away == "local" else None
    apart = history.valkey.cluster
    return FallbackStore(shared, own, apart=apart, on_away=lambda away: metrics.store_away.set(float(away)))


def secret_of(settings: Settings) -> str:
    """What keys every hash; random where none is set. Raises ConfigError."""
    text = config.read_secret(settings.secret_file, "GUARD_SECRET", where="secret_file")
    if text is None:
        _log.warning("no secret is set: callers' hashes and fingerprints change with each start")
        return secrets.token_hex(32)
    if len(text.encode()) < MIN_SECRET_BYTES:
        raise ConfigError("secret_file", f"the secret has less than {MIN_SECRET_BYTES} bytes")
    return text


@dataclass(eq=False)
class Runtime:
    """One version of the settings, at work.

    pool, readers: threads for stages, and for reading messages, so that stages that hang hold up stages only.
    calls:         how many are being handled with it.
    tracer:        chooses the calls that are traced; None: none is.
    """

    settings: Settings
    shared: Shared
    models: Mapping[str, GuardedModel]
    routes: Mapping[Any, Route]
    default: Route
    identity: Chain
    cohorts: Cohorts
    audit: Audit
    quarantine: Quarantine
    tracer: Tracer | None
    pool: Crew
    readers: Crew
    calls: int = 0
    server_ready: dict[Route, bool] = field(default_factory=dict)
    rations: Rations = field(init=False)
    challenges: Challenges = field(init=False)

    def __post_init__(self) -> None:
        most = self.settings.limits.max_delayed_calls
        self.rations = Rations(self.shared.store, self.shared.metrics, self.shared.secret, most)
        self.challenges = Challenges(self.shared.store, self.shared.metrics, self.shared.secret)

    @property
    def metrics(self) -> Metrics:
        """What is counted."""
        return self.shared.metrics

    @property
    def store(self) -> Store:
        """What monitors remember."""
        return self.shared.store

    @property
    def watchers(self) -> Broadcast[Event]:
        """Who watches decisions."""
        return self.shared.watchers

    @property
    def journal(self) -> Journal:
        """What can be explained."""
        return self.shared.journal

    @property
    def lately(self) -> Lately:
        """What operators who look on are shown."""
        return self.shared.lately

    @property
    def secret(self) -> bytes:
        """What keys every hash."""
        return self.shared.secret

    @property
    def started(self) -> float:
        """Seconds since 1970."""
        return self.shared.started

    @property
    def upstreams_ready(self) -> bool:
        """Whether calls are welcome, as far as servers are concerned."""
        return not self.shared.draining and all(self.server_ready.get(route) for route in self.routes.values())

    @property
    def ready(self) -> bool:
        """Whether calls are welcome: not draining, every upstream and every model ready."""
        return self.upstreams_ready and all(model.ready for model in self.models.values())

    @property
    def serving(self) -> bool:
        """Whether some calls are welcome: not draining, and one upstream at least ready."""
        return not self.shared.draining and any(self.server_ready.get(route) for route in self.routes.values())

    @cached_property
    def longest_s(self) -> float:
        """The longest that any upstream may take."""
        return max(route.timeout_s for route in self.routes.values())

    def route(self, model: str) -> Route | None:
        """Where a model is served; None where callers may not ask for it."""
        if model in self.models:
            return self.models[model].route
        return self.default if self.settings.unlisted_models is OnError.ALLOW else None

    @property
    def _held(self) -> dict[int, Any]:
        """What must be closed when no runtime uses it any more."""
        upstreams = (route.upstream for route in self.routes.values())
        return {id(thing): thing for thing in (*upstreams, self.audit, self.quarantine, self.tracer) if thing}

    def hold(self) -> None:
        """Claim what this runtime uses."""
        self.shared.holders.update(self._held.keys())

    async def idle(self) -> None:
        """Wait until no call is handled with this runtime any more."""
        while self.calls:  # noqa: ASYNC110 - once a reload, and nobody waits for it
            await asyncio.sleep(0.05)

    async def retire(self, within_s: float = 5.0) -> None:
        """Let go of what it uses; what nobody else uses is closed. within_s: for the quarantine to be written."""
        closing: list[Awaitable[None]] = []
        for key, thing in self._held.items():
            self.shared.holders[key] -= 1
            if self.shared.holders[key]:
                continue
            del self.shared.holders[key]
            if thing is self.quarantine:
                closing.append(asyncio.to_thread(self.quarantine.close, within_s))
            else:
                threaded = thing is self.audit or thing is self.tracer
                closing.append(asyncio.to_thread(thing.close) if threaded else thing.close())
        await asyncio.gather(*closing)
        self.pool.close()
        self.readers.close()


async def build(settings: Settings, shared: Shared, former: Runtime | None = None) -> Runtime:
    """Everything that the settings ask for; what of `former` can go on is used again. Raises ConfigError, ProfileError.

    Where a part cannot be made, those that were are closed again.
    """
    async with contextlib.AsyncExitStack() as undo:
        runtime = await _made(settings, shared, former, undo)
        undo.pop_all()
    runtime.hold()
    _tell_exempt(runtime)
    return runtime


async def _made(settings: Settings, shared: Shared, former: Runtime | None, undo: contextlib.AsyncExitStack) -> Runtime:
    routes = await _routes(settings, former, undo)
    models, networks = {}, Networks(_gathering(settings, shared.metrics))
    signers = await asyncio.to_thread(signers_of, settings.signers_file, "signers_file")
    for model in settings.models:
        profile, engine = await asyncio.to_thread(arm, model, shared.secret, networks, signers)
        models[model.name] = _guard(model, routes[_key(settings, model)], engine, profile, shared, former)
    first = next(iter(routes.values()))  # there is one, or the settings would be invalid
    default = first if settings.upstream is None else routes[settings.upstream]
    identity = Chain(settings.identity, shared.secret, lambda source: shared.metrics.identities.labels(source).inc())
    cohorts = Cohorts(settings.identity, lambda source: shared.metrics.identities.labels(source).inc())
    place = await asyncio.to_thread(_place, settings, former)
    tracer, audit = _same_tracer(settings, former), _same_audit(settings, former)
    if tracer is None and settings.tracing.to is not None:
        tracer = _tracer(settings.tracing, settings.tracing.to, shared)
        undo.push_async_callback(asyncio.to_thread, tracer.close)
    if audit is None:
        audit = await asyncio.to_thread(_audit, settings, shared)  # a pipe waits for its reader
        undo.push_async_callback(asyncio.to_thread, audit.close)
    quarantine = _same_quarantine(settings, former)
    if quarantine is None:
        quarantine = Quarantine(settings.quarantine, place, shared.metrics)
        undo.push_async_callback(asyncio.to_thread, quarantine.close)
    threads = settings.limits.inspection_threads
    return Runtime(
        settings=settings,
        shared=shared,
        models=models,
        routes=routes,
        default=default,
        identity=identity,
        cohorts=cohorts,
        audit=audit,
        quarantine=quarantine,
        tracer=tracer,
        pool=Crew("guard-inspection", threads),
        readers=Crew("guard-reading", threads),
        server_ready={} if former is None else dict(former.server_ready),
    )


def _tell_exempt(runtime: Runtime) -> None:
    """Every override is written down."""
    now = time.time()
    for model in runtime.settings.models:
        for one in model.policy.exempt:
            if now < one.until.timestamp():
                until, reason = one.until.timestamp(), one.reason
                runtime.audit.record(Exempted(now, one.caller, model.name, until, reason, one.approved_by))


def _same_quarantine(settings: Settings, former: Runtime | None) -> Quarantine | None:
    """The former one, where it is to go on."""
    return former.quarantine if former and former.settings.quarantine == settings.quarantine else None


def _place(settings: Settings, former: Runtime | None) -> Place | None:
    """Raises ConfigError."""
    return None if _same_quarantine(settings, former) else open_place(settings.quarantine)


def _same_tracer(settings: Settings, former: Runtime | None) -> Tracer | None:
    """The former one, where it is to go on."""
    return former.tracer if former and former.settings.tracing == settings.tracing else None


def _tracer(asked: Tracing, to: Receiver, shared: Shared) -> Tracer:
    """Raises ConfigError."""
    try:
        from guard.otlp import SpanCarrier  # noqa: PLC0415 - an extra

        carrier = SpanCarrier(to, asked.service_name)
    except ConfigError as error:
        raise error.below("tracing.to") from None

    def count(outcome: str, spans: int) -> None:
        if spans:
            shared.metrics.spans.labels(outcome).inc(spans)

    spans = Delivery("spans", carrier, count, thread="guard-spans", max_queued=asked.max_queued, gather_s=GATHER_S)
    limited = shared.metrics.untraced.inc
    return Tracer(spans, asked.ratio, asked.parents, max_per_s=asked.max_per_s, on_limited=limited)


def _same_audit(settings: Settings, former: Runtime | None) -> Audit | None:
    """The former one, where it is to go on."""
    if former is None or former.settings.audit != settings.audit:
        return None
    return former.audit if former.settings.tracing.service_name == settings.tracing.service_name else None


def _audit(settings: Settings, shared: Shared) -> Audit:
    try:
        return Audit(settings.audit, shared.metrics, shared.turn, settings.tracing.service_name)
    except OSError as error:
        raise ConfigError("audit.file", f"cannot open {settings.audit.file}: {error.strerror}") from None


def _key(settings: Settings, model: Model) -> Any:
    """What tells one upstream from another: its settings, and for a file also which version of it."""
    if model.embedded is None:
        return model.upstream or settings.upstream
    try:
        return model.name, model.embedded, fingerprint(model.embedded.file)
    except OSError as error:
        raise ConfigError("embedded.file", f"cannot read {model.embedded.file}: {error.strerror}") from None


async def _routes(settings: Settings, former: Runtime | None, undo: contextlib.AsyncExitStack) -> dict[Any, Route]:
    """Every upstream of the settings."""
    keys = ([settings.upstream] if settings.upstream else []) + [_key(settings, model) for model in settings.models]
    routes: dict[Any, Route] = {}
    for key in keys:
        if former is not None and key in former.routes:
            routes[key] = former.routes[key]
        elif key not in routes:
            routes[key] = await _open(key, settings)
            undo.push_async_callback(routes[key].upstream.close)
    return routes


async def _open(key: Any, settings: Settings) -> Route:
    if isinstance(key, Upstream):
        return Route(make_upstream(settings, key), key.timeout_s, key.dialect)
    name, embedded, _ = key
    upstream = await asyncio.to_thread(EmbeddedUpstream, embedded, name)
    _log.info("model %s: %s runs on %s", name, embedded.file, upstream.provider)
    return Route(upstream, EMBEDDED_TIMEOUT_S, "triton")


def _gathering(settings: Settings, metrics: Metrics) -> Gathering:
    asked = settings.batching
    return Gathering(
        max_wait_s=asked.max_wait_us / 1e6,
        max_rows=asked.max_rows,
        where=asked.where,
        patience_s=settings.limits.inspection_timeout_s,
        on_run=lambda name, rows: metrics.network_rows.labels(name).observe(rows),
        on_wait=lambda name, seconds: metrics.network_wait_seconds.labels(name).observe(seconds),
        on_alone=lambda name, why: metrics.network_alone.labels(name, why).inc(),
    )


def arm(
    model: Model, secret: bytes, networks: Networks | None = None, signers: Signers | None = None
) -> tuple[Profile | None, Engine | None]:
    """The model's profile and engine. Raises ConfigError, ProfileError."""
    if model.profile is None:
        return None, None
    profile = load_profile(model.profile, vouch_of(signers, model))
    return profile, Engine(model, profile, secret, networks)


def _guard(
    model: Model, route: Route, engine: Engine | None, profile: Profile | None, shared: Shared, former: Runtime | None
) -> GuardedModel:
    guarded = GuardedModel(model, route, engine, profile, shared.metrics)
    if isinstance(route.upstream, EmbeddedUpstream):
        shared.metrics.provider.labels(model.name, route.upstream.provider).set(1)
    before = None if former is None else former.models.get(model.name)
    if before is not None and before.route is route:
        guarded.inherit(before)
    return guarded
