"""A guarded model as the proxy holds it: settings, engine, where it is served, and what is served there now.

What is served is asked with ModelReady and ModelMetadata: at the start, at each new connection to the upstream, and
every REFRESH_S. A profile that was made for something else is not used; `on_profile_mismatch` says what happens then.
Known bypass: a model that is swapped behind a connection that stays open is seen up to REFRESH_S late.
The upstream must answer ModelMetadata without a caller's credentials.
"""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from weakref import WeakSet

from guard.drift import Drift, Report, Watched
from guard.engine import Engine
from guard.metrics import Metrics
from guard.profile import Profile, ProfileError
from guard.proxy import methods, status
from guard.proxy.seam import Metadata, Reply, Upstream
from guard.proxy.status import Code
from guard.settings import Model
from guard.tracing import Live
from guard.types import Finding, InvalidQuery, Mode, ModelMetadata, ViewDetector
from guard.wire.messages import Dialect, Head, Inference, InvalidAnswer, check_against, parse_metadata
from guard.wire.open_inference_pb2 import ModelMetadataRequest, ModelReadyRequest, ModelReadyResponse

REFRESH_S = 30.0
BESIDE_S = 30.0
"""How long no rows are added to callers' calls after that has made one fail."""
PROBE_TIMEOUT_S = 5.0
UNDESCRIBED = ModelMetadata("", (), "", (), ())
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Route:
    """Where calls go, and this hop's settings."""

    upstream: Upstream
    timeout_s: float
    dialect: Dialect

    @property
    def connection(self) -> int | None:
        """Which connection to the upstream this is, None while there is none; always the same without a network."""
        connection: int | None = getattr(self.upstream, "connection", 0)
        return connection


HUNG_S = 5.0
"""A server that has said nothing for so long is late, although its caller gave up first: else one that hangs behind
callers with deadlines of their own would look well."""


async def ask(
    route: Route,
    metrics: Metrics,
    model: str,
    purpose: str,
    path: str,
    body: bytes,
    metadata: Metadata,
    timeout_s: float,
    span: Live | None = None,
) -> Reply:
    """One unary call, counted; below this span, where the caller's call is traced."""
    below = None if span is None else span.call(methods.traced(path), route.upstream.name, purpose)
    if below is not None:
        metadata = below.onto(metadata)
    started = time.perf_counter()
    code = "CANCELLED"
    try:
        reply = await route.upstream.unary(path, body, metadata, min(timeout_s, route.timeout_s))
        code = status.name_of(reply.code)
    finally:
        if code == "CANCELLED" and time.perf_counter() - started >= HUNG_S:
            code = "DEADLINE_EXCEEDED"
        metrics.upstream_calls.labels(model, purpose, code).inc()
        metrics.upstream_seconds.labels(model, purpose).observe(time.perf_counter() - started)
        if below is not None:
            below.end_rpc(code)
    return reply


class GuardedModel:
    """One model of the settings.

    ready:    the upstream serves it.
    engine:   its defence; None where there is none, or the profile is not used.
    challenges: whether it ever asks for proof of work.
    drift:    whether its traffic still is like the fit's clean inputs.
    metadata: what the upstream says of it; None where it has not said.
    mismatch: why the profile is not used; None where it is, or there is none.
    reason:   why it is not ready, or the mismatch.
    """

    def __init__(
        self, settings: Model, route: Route, engine: Engine | None, profile: Profile | None, metrics: Metrics
    ) -> None:
        self.settings, self.route, self.profile = settings, route, profile
        self._engine = engine
        self.challenges = settings.challenges
        encoded = profile is not None and profile.space.layout == "encoded"
        self._is_plain = settings.budget.unlimited and not self.challenges and not encoded
        self.ready = False
        self.reason = "not asked yet"
        self.metadata: ModelMetadata | None = None
        self._sound: WeakSet[Head] = WeakSet()
        self.mismatch: str | None = None
        self._metrics = metrics
        self._asked_at = -REFRESH_S
        self._connection: int | None = None
        self._asking: asyncio.Task[Reply | None] | None = None
        self._beside_until = 0.0
        self.drift = Drift({} if engine is None else _watched(engine))

    @property
    def name(self) -> str:
        """As callers name it."""
        return self.settings.name

    @property
    def engine(self) -> Engine | None:
        """Its defence."""
        return None if self.mismatch else self._engine

    @property
    def upstream(self) -> Upstream:
        """Its server."""
        return self.route.upstream

    @property
    def may_ride(self) -> bool:
        """Whether rows of Guard's own may be added to a caller's call."""
        return self.settings.extra_rows == "ride" and time.monotonic() >= self._beside_until

    def rode_in_vain(self) -> None:
        """A call failed with Guard's rows, and was answered without them: none are added for a while."""
        _log.warning("model %s: a call failed for the rows added to it; none are added for %g s", self.name, BESIDE_S)
        self._beside_until = time.monotonic() + BESIDE_S

    @property
    def protects_outputs(self) -> bool:
        """Whether answers may be changed."""
        return self.settings.mode is Mode.ENFORCE and any(o.mode is Mode.ENFORCE for o in self.settings.outputs)

    @property
    def makes_classes(self) -> bool:
        """Whether its server knows Triton's classification extension."""
        return self.route.dialect == "triton" and self.settings.embedded is None

    def enforces_for(self, caller: str, now: float) -> bool:
        """Whether enforcement is real for him."""
        if self._engine is not None:  # of the canary, too, where its profile does not fit
            return self._engine.enforces_for(caller, now)
        return self.settings.mode is Mode.ENFORCE and not self.settings.policy.exempts(caller, now)

    def inherit(self, former: "GuardedModel") -> None:
        """Take over what is known of the same model at the same upstream."""
        self._sound.clear()
        self.metadata, self._connection, self._asked_at = former.metadata, former._connection, former._asked_at  # noqa: SLF001
        self.ready, self.reason = former.ready, former.reason
        self._judge_profile()
        if self.drift.stages == former.drift.stages and _digest(self.profile) == _digest(former.profile):
            self.drift = former.drift
        else:
            self._show_drift(dict.fromkeys(former.drift.reports, Report(0, 0.0, 0.0, 0.0, alarm=False)))
        self._show()

    def watch_drift(self, findings: Iterable[Finding]) -> None:
        """Look at what was found on one query."""
        self._show_drift(self.drift.add(findings))

    def _show_drift(self, reports: Mapping[str, Report]) -> None:
        for stage, report in reports.items():
            self._metrics.drift_distance.labels(self.name, stage).set(report.distance)
            self._metrics.drift_alarm.labels(self.name, stage).set(report.alarm)

    def fits(self, version: str) -> bool:
        """Whether the profile was made for this version; empty: the server's choice."""
        if not version or self.profile is None:
            return True
        return version == _latest(self.profile.metadata.versions)

    def check(self, inference: Inference) -> None:
        """Compare the declared inputs with the metadata, where that is this version's. Raises InvalidQuery."""
        head = inference.head
        if self.metadata is None or not self.describes(head.version) or head in self._sound:
            return
        inspected = frozenset() if self.profile is None else frozenset({self.profile.input_name})
        check_against(inference, self.metadata, required=inspected)  # others may be optional
        self._sound.add(head)

    def passes(self, inference: Inference, caller: str, now: float) -> int | None:
        """How many rows a request has that is valid, where that is all that there is to it; None where it is not.

        There are no stages, budgets or challenges, and it is known to be the model that was fitted.
        """
        engine, profile, head = self.engine, self.profile, inference.head
        if not self._is_plain or engine is None or profile is None or head.hidden or not self.is_current:
            return None
        x = inference.tensors.get(profile.input_name)
        if x is None or x.ndim == 0 or x.dtype == object or not self.fits(head.version):
            return None
        try:
            self.check(inference)
            return len(x) if engine.vet(x, caller, now) else None
        except InvalidQuery:
            return None

    def describes(self, version: str) -> bool:
        """Whether the metadata is this version's."""
        return not version or (self.metadata is not None and version == _latest(self.metadata.versions))

    @property
    def is_current(self) -> bool:
        """Whether the metadata is of the upstream's present connection."""
        connection = self.route.connection
        return self.metadata is not None and connection is not None and connection == self._connection

    async def ensure_current(self) -> Reply | None:
        """Know what is served, asking where the connection is new; the upstream's reply where it does not say."""
        return None if self.is_current else await self._ask_once()

    async def _ask_once(self) -> Reply | None:
        """Ask, or wait for the one who already does."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask_metadata())
        return await asyncio.shield(self._asking)

    async def probe(self) -> None:
        """Ask whether it is ready, and, where that is due, what it is."""
        body = ModelReadyRequest(name=self.name).SerializeToString()
        reply = await self._ask("health", methods.MODEL_READY, body)
        ready, reason = _read_ready(reply)
        if ready and (not self.ready or not self.is_current or time.monotonic() - self._asked_at > REFRESH_S):
            away = await self._ask_once()
            ready, reason = (False, away.details or "no metadata") if away else (True, self.mismatch or "")
        elif ready:
            reason = self.mismatch or ""
        if (ready, reason) != (self.ready, self.reason):
            _log.log(logging.INFO if ready else logging.WARNING, "model %s: %r", self.name, reason or "ready")
        self.ready, self.reason = ready, reason
        self._show()

    async def _ask(self, purpose: str, path: str, body: bytes) -> Reply:
        return await ask(self.route, self._metrics, self.name, purpose, path, body, (), PROBE_TIMEOUT_S)

    async def _ask_metadata(self) -> Reply | None:
        """Learn what is served; the upstream's reply where it does not say."""
        before = self.route.connection
        body = ModelMetadataRequest(name=self.name).SerializeToString()
        reply = await self._ask("metadata", methods.MODEL_METADATA, body)
        if reply.code not in {Code.OK, Code.UNIMPLEMENTED}:
            self._connection = None
            return reply
        self.metadata = _read_metadata(reply)
        self._sound.clear()
        self._connection = before if before == self.route.connection else None  # else: nobody knows whose answer it is
        self._asked_at = time.monotonic()
        self._judge_profile()
        self._show()
        return None

    def _judge_profile(self) -> None:
        former, self.mismatch = self.mismatch, None
        if self.profile is not None and self.metadata == UNDESCRIBED:
            self.mismatch = "the upstream does not describe the model, so that the profile cannot be compared"
        elif self.profile is not None and self.metadata is not None:
            try:
                self.profile.check_served(self.metadata)
            except ProfileError as error:
                self.mismatch = str(error)
        if self.mismatch and self.mismatch != former:
            _log.error("model %s: %r", self.name, self.mismatch)

    def _show(self) -> None:
        self._metrics.model_ready.labels(self.name).set(self.ready)
        self._metrics.profile_mismatch.labels(self.name).set(self.mismatch is not None)


def _watched(engine: Engine) -> dict[str, Watched]:
    """The detectors whose p-values say something of all inputs: not those that are asked about suspicious ones only."""
    some = engine.settings.escalate_below is not None
    return {
        stage.name: Watched(stage.threshold, stage.calibration.scores.size)
        for stage in engine.stages
        if stage.kind == "detector" and not (some and isinstance(stage.impl, ViewDetector))
    }


def _digest(profile: Profile | None) -> str:
    return "" if profile is None else profile.digest


def _latest(versions: tuple[str, ...]) -> str:
    """What a server answers with where no version is asked for: the highest number, or the last in its list."""
    numbers = [version for version in versions if version.isdecimal()]
    return max(numbers, key=int) if numbers and len(numbers) == len(versions) else (versions or ("",))[-1]


def _read_ready(reply: Reply) -> tuple[bool, str]:
    if reply.code == Code.UNIMPLEMENTED:  # answers, but not this question
        return True, ""
    if reply.code != Code.OK:
        return False, reply.details or status.name_of(reply.code)
    try:
        ready = ModelReadyResponse.FromString(reply.body).ready
    except Exception:  # noqa: BLE001 - protobuf's DecodeError, or anything a hostile upstream makes it raise
        return False, "the upstream's answer cannot be read"
    return ready, "" if ready else "the upstream says it is not ready"


def _read_metadata(reply: Reply) -> ModelMetadata:
    """What the upstream says; a model that it does not describe is one without inputs and outputs."""
    if reply.code != Code.OK:
        return UNDESCRIBED
    try:
        return parse_metadata(reply.body)
    except InvalidAnswer:
        return UNDESCRIBED
