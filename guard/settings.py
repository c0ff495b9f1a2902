"""The settings as types: every key of the file with its default, bounds and meaning. `guard.config` reads them.

Every default is the safe one: loopback listeners, shadow mode, dangerous methods denied, everything bounded.
Sizes are in bytes (`_bytes`), times in seconds (`_s`), rates in 1 (not per cent).
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from guard import places, registry
from guard.types import Action, Kind, Level, Mode, OnError, When


class ConfigError(ValueError):
    """Bad settings. `path` names the key: `models.0.detectors.1.options.bits`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path}: {message}" if path else message)
        self.path = path


class _Settings(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, allow_inf_nan=False
    )


class ServerTls(_Settings):
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


class ClientTls(_Settings):
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


class Listen(_Settings):
    """Where callers connect."""

    address: str = "127.0.0.1:9000"
    """HOST:PORT (port 0: any free one) or unix:/PATH."""
    tls: ServerTls | None = None
    compression: Compression = "none"
    """Compression of answers, for callers that accept it. Requests may be compressed whatever this says."""


class Upstream(_Settings):
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


class Embedded(_Settings):
    """An ONNX file served in this process with onnxruntime."""

    file: Path
    """The ONNX file."""
    require_gpu: bool = False
    """Refuse to start where onnxruntime does not really use CUDA."""
    threads: int = Field(1, ge=1, le=256)
    """onnxruntime's threads for one call."""
    max_batch_rows: int = Field(1024, ge=1)
    """Larger batches are refused."""


class Stage(_Settings):
    """One stage of a model."""

    stage: str
    """Its registered name."""
    mode: Mode = Mode.ENFORCE
    """Capped by the model's mode: in a shadow model no stage acts."""
    on_error: OnError = OnError.ALLOW
    """What a failure of this stage means for the query, where the stage enforces."""
    options: dict[str, Any] = Field(default_factory=dict)
    """The stage's own options."""


class Detector(Stage):
    """A stage that scores an input."""

    weight: float = Field(1.0, gt=0)
    """Its share of the model's false-positive budget, relative to the other detectors'."""


class Monitor(Stage):
    """A stage that judges a caller by its queries over time."""


class Acting(Stage):
    """A stage that changes an input or an answer."""

    when: When = When.SUSPICIOUS
    """`always`, or only where the policy asks for it."""


class Output(Acting):
    """An output protection."""

    degree: int = Field(1, ge=1, le=3)
    """From which degree on it acts, where suspicious answers are degraded: 1 those of callers on watch, 2 of suspect
    ones, 3 of hostile ones and answers to inputs that were flagged themselves."""


class Exemption(_Settings):
    """A caller for whom nothing is enforced until a day. What would be done is recorded; that he is exempt, too."""

    caller: str = Field(min_length=1, max_length=256)
    """As events name him."""
    until: AwareDatetime
    """With a time zone: `2027-01-31T00:00:00Z`."""
    reason: str = Field(min_length=1, max_length=500)
    approved_by: tuple[str, ...] = Field(min_length=1, max_length=8)
    """Who answers for it; two, where your rules want two."""


Response = Action | tuple[Action, ...]
"""One action, or several that are done together."""


class Policy(_Settings):
    """What is done where something fired in a stage that enforces: one action, or a list of them."""

    on_input: Response | None = None
    """A detector fired on this input. Unset: `purify` where a purifier waits for that, else `degrade` where an
    output protection does, else `deny`: a refusal tells an attacker which input it was, and the others hardly do."""
    on_clear: Literal[Action.ALLOW, Action.CHALLENGE] = Action.ALLOW
    """What is asked of everybody, whatever is known of him, beside what the keys below say. Extraction with the model's
    own kind of inputs cannot be told from use by looks; what answers cost can grow with how many were had."""
    on_watch: Response = Action.ALLOW
    """The caller's evidence is a third of the way (in logarithms) to an alarm."""
    on_suspect: Response | None = None
    """It is two thirds of the way. Unset: `degrade` where an output protection of degree 1 or 2 can, else `allow`."""
    on_hostile: Response = Action.DENY
    """It has come all the way; or this query joins a cluster of queries whose evidence has."""
    calm_s: float = Field(3600.0, gt=0, le=30 * 86_400)
    """How long after the last query that spoke against him a hostile caller stays so; then his evidence begins anew."""
    lag_rows: int = Field(8, ge=1, le=1000)
    """What is done about a caller follows his level at rows drawn at random, so many apart in the mean; and a row that
    joins an alarming cluster is held against its caller for up to twice as many rows. 1: at once, which lets callers
    read off which query it was."""
    delay_s: float = Field(1.0, gt=0, le=60)
    """`delay` holds an answer back for half of this up to all of it, and never for more than half of what is left until
    its deadline."""
    throttle_rows_per_s: float = Field(0.2, gt=0)
    """`throttle` answers a caller so many rows in the long run; past it, calls are RESOURCE_EXHAUSTED."""
    throttle_burst_rows: float = Field(5.0, ge=1)
    """So many rows at once, after a rest. A query with more is never answered."""
    exempt: tuple[Exemption, ...] = Field((), max_length=100)
    """Callers for whom nothing is enforced, for a time."""

    def exempts(self, caller: str, now: float) -> bool:
        """Whether he is exempt now, in seconds since 1970."""
        return any(one.caller == caller and now < one.until.timestamp() for one in self.exempt)


def _several(response: Response) -> frozenset[Action]:
    return frozenset((response,) if isinstance(response, Action) else response)


class Budget(_Settings):
    """What each caller may have of a model; past it, calls are RESOURCE_EXHAUSTED, and say when to come back.

    Budgets fill up again evenly; a caller who rests for long has them whole. Unset: no limit.
    """

    mode: Mode = Mode.ENFORCE
    """Capped by the model's mode. `shadow` counts what would be refused."""
    rows_per_s: float | None = Field(None, gt=0)
    """In the long run."""
    burst_rows: float = Field(100.0, ge=1)
    """With `rows_per_s`: so many at once. A query with more is never answered."""
    rows_per_day: float | None = Field(None, ge=1)
    bits_per_day: float | None = Field(None, gt=0)
    """Of information in answers as they left: log2(classes) a row, and the entropy of its probabilities."""

    @property
    def unlimited(self) -> bool:
        """Whether nothing is limited."""
        return self.mode is Mode.OFF or (self.rows_per_s is self.rows_per_day is self.bits_per_day is None)


class Challenge(_Settings):
    """The puzzles of `challenge`: work that a caller's computer does before he is answered, in SHA-256 hashes.

    A row costs `hashes_per_row * growth ** progress`. Progress goes from 0 to 1: on the way from `grows_from` to 1, of
    what the monitor `extraction_budget` estimates, where it enforces; else, and where that is more, by the caller's
    level: 0, 1/3 on watch, 2/3 suspect, 1 hostile.
    """

    hashes_per_row: float = Field(4000.0, ge=16, le=2**32)
    """Expected work for one row at no progress: 4,000 are about 2 ms of one core in the Python client."""
    growth: float = Field(1000.0, ge=1, le=1e6)
    """At the end a row costs so many times as much as at the beginning."""
    grows_from: float = Field(0.5, ge=0, lt=1)
    """Up to this estimate a row costs what it costs at first: what callers come to who only use the model."""
    max_hashes_per_row: float = Field(4_000_000.0, ge=16, le=2**40)
    """Never more than this."""
    ttl_s: float = Field(120.0, ge=1, le=3600)
    """How long a puzzle is good. Its solution is good once."""
    stream_rows: int = Field(32, ge=1, le=65_536)
    """For how many rows the puzzle is that a stream is ended with: metadata travel once a stream."""

    @model_validator(mode="after")
    def _ordered(self) -> "Challenge":
        if self.max_hashes_per_row < self.hashes_per_row:
            raise ValueError("max_hashes_per_row must be at least hashes_per_row")
        return self

    def hashes(self, progress: float) -> float:
        """Expected work for one row of a caller who has come so far."""
        return float(min(self.max_hashes_per_row, self.hashes_per_row * self.growth ** max(0.0, min(1.0, progress))))


class Validation(_Settings):
    """Checks of values against the profile. What fails is INVALID_ARGUMENT where this enforces."""

    mode: Mode = Mode.ENFORCE
    """Capped by the model's mode. `shadow` records a finding and forwards, `off` does not look."""
    finite: bool = True
    """Refuse NaN and infinities."""
    bounds: bool = True
    """Refuse values outside the profile's bounds, where the profile knows them for sure."""


class Images(_Settings):
    """Encoded images (JPEG, PNG) in BYTES inputs, decoded for inspection."""

    max_pixels: int = Field(4096 * 4096, ge=1)
    """Larger images are refused before they are decoded."""
    max_bytes: int = Field(16 * 1024 * 1024, ge=1)
    """Larger encoded images are refused."""


class Model(_Settings):
    """One guarded model."""

    name: str = Field(min_length=1)
    """As callers name it."""
    upstream: Upstream | None = None
    """Its server, if not the default upstream."""
    embedded: Embedded | None = None
    """Serve it in this process instead."""
    profile: Path | None = None
    """What `guard fit` wrote. Needed by every detector and monitor."""
    on_profile_mismatch: OnError = OnError.ALLOW
    """If the profile was not made for what is served: forward uninspected (counted, alarmed) or refuse calls."""
    mode: Mode = Mode.SHADOW
    """The most that any stage of this model may do."""
    canary: float = Field(1.0, ge=0, le=1)
    """The share of callers (by a keyed hash) for whom enforcement is real; the others are in shadow."""
    false_positive_rate: float = Field(0.01, gt=0, lt=1)
    """The share of clean inputs that the detectors together may flag."""
    escalate_below: float | None = Field(None, gt=0, le=1)
    """Ask view detectors (extra upstream rows) only about inputs to which the detectors that look at the input alone
    give together a p-value of at most this; default: about every input."""
    escalate_sample: float = Field(0.0, ge=0, le=1)
    """With `escalate_below`: the share of all other inputs (by a keyed hash) that they are asked about, too."""
    extra_rows: Literal["ride", "beside"] = "ride"
    """How rows that detectors ask the model about travel, where the answer waits for them: behind the caller's own in
    one call, if the profile says that the model batches and they fit (a batched row's answer can differ in its last
    bits, as with any dynamic batcher), or always in calls beside the caller's, whose answer then stays bit-equal."""
    false_alarms_per_caller_month: float = Field(0.001, gt=0, lt=1)
    """The share of benign callers that the monitors together may call hostile within 30 days."""
    false_alarms_per_month: float = Field(0.01, gt=0, lt=1)
    """How many clusters of benign queries, of all callers together, may be called an attack within 30 days."""
    validation: Validation = Validation()
    images: Images = Images()
    detectors: tuple[Detector, ...] = ()
    monitors: tuple[Monitor, ...] = ()
    purifiers: tuple[Acting, ...] = ()
    """Applied in this order."""
    outputs: tuple[Output, ...] = ()
    """Applied in this order."""
    policy: Policy = Policy()
    budget: Budget = Budget()
    challenge: Challenge = Challenge()

    @property
    def of_input(self) -> frozenset[Action]:
        """What is done about an input that a detector flagged: without a word of the policy, the mildest that helps."""
        if self.policy.on_input is not None:
            return _several(self.policy.on_input)
        if any(one.mode is Mode.ENFORCE and one.when is When.SUSPICIOUS for one in self.purifiers):
            return frozenset({Action.PURIFY})
        return frozenset({Action.DEGRADE if self._can_degrade(Level.HOSTILE) else Action.DENY})

    def of(self, level: Level) -> frozenset[Action]:
        """What is done about queries of a caller on this level."""
        if level is Level.SUSPECT and self.policy.on_suspect is None:
            return frozenset({Action.DEGRADE if self._can_degrade(level) else Action.ALLOW})
        policy = self.policy
        return _several((policy.on_clear, policy.on_watch, policy.on_suspect, policy.on_hostile)[level] or Action.ALLOW)

    @property
    def of_everybody(self) -> frozenset[Action]:
        """What is done about each query."""
        return self.of(Level.CLEAR)

    @property
    def challenges(self) -> bool:
        """Whether it ever asks for proof of work."""
        return any(Action.CHALLENGE in do for do in (self.of_input, *map(self.of, Level)))

    @property
    def remembers(self) -> bool:
        """Whether anything is kept of callers between calls: evidence, what they have used up, proofs."""
        asked = (self.of_input, *map(self.of, Level))
        watched = any(monitor.mode is not Mode.OFF for monitor in self.monitors)
        rationed = not self.budget.unlimited or any(Action.THROTTLE in do for do in asked)
        return watched or rationed or self.challenges

    def _can_degrade(self, level: Level) -> bool:
        """Whether an output protection acts on suspicious answers to a caller on this level, and only on these."""
        return any(
            output.mode is Mode.ENFORCE and output.when is When.SUSPICIOUS and output.degree <= level
            for output in self.outputs
        )

    def _degraded_by_nothing(self) -> str | None:
        """The key of a policy that degrades, where no output protection acts to that degree."""
        if not self.outputs or any(output.when is When.ALWAYS for output in self.outputs):
            return None
        least = min(output.degree for output in self.outputs)
        of_levels = {"on_watch": Level.WATCH, "on_suspect": Level.SUSPECT, "on_hostile": Level.HOSTILE}
        degrees = {key: (self.of(level), int(level)) for key, level in of_levels.items() if self.monitors}
        if self.detectors:
            degrees["on_input"] = (self.of_input, int(Level.HOSTILE))
        return next((key for key, (do, degree) in degrees.items() if Action.DEGRADE in do and degree < least), None)

    @model_validator(mode="after")
    def _coherent(self) -> "Model":
        if self.upstream is not None and self.embedded is not None:
            raise ValueError("upstream and embedded exclude each other")
        if (self.detectors or self.monitors or self.purifiers or self.outputs) and self.profile is None:
            raise ValueError("stages need a profile: run `guard fit` and set `profile`")
        if self.escalate_sample and self.escalate_below is None:
            raise ValueError("escalate_sample goes with escalate_below")
        for kind in ("detectors", "monitors", "purifiers", "outputs"):
            stages = [stage.stage for stage in getattr(self, kind)]
            if len(set(stages)) != len(stages):
                raise ValueError(f"{kind}: a stage is listed twice")
        return self

    @model_validator(mode="after")
    def _able(self) -> "Model":
        """The policy asks for nothing that nobody does."""
        asked = set[Action]()
        if self.detectors:
            asked |= self.of_input
        if self.monitors:
            asked = asked.union(*map(self.of, Level))
        if Action.PURIFY in asked and not self.purifiers:
            raise ValueError("policy says purify, but there is no purifier")
        if Action.DEGRADE in asked and not self.outputs:
            raise ValueError("policy says degrade, but there is no output protection")
        idle = self._degraded_by_nothing()
        if idle is not None:
            raise ValueError(f"policy.{idle} says degrade, but every output protection has a higher degree")
        if Action.CHALLENGE in self.of_everybody and self.profile is None:
            raise ValueError("policy.on_clear says challenge, which needs a profile")
        if self.budget.bits_per_day is not None and self.profile is None:
            raise ValueError("budget.bits_per_day needs a profile, which says what answers mean")
        return self


class SpiffeIdentity(_Settings):
    """The SPIFFE id (URI SAN) of a verified client certificate."""

    kind: Literal["spiffe"]
    trust_domain: str | None = None
    """Accept only ids of this trust domain."""


class SubjectIdentity(_Settings):
    """The common name of a verified client certificate."""

    kind: Literal["mtls_subject"]


class JwtIdentity(_Settings):
    """A claim of a JWT with a verified signature."""

    kind: Literal["jwt"]
    header: str = "authorization"
    """Metadata key; a `Bearer ` prefix is taken off."""
    keys_file: Path
    """PEM public key, or a JWKS document. Rotated files are picked up."""
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"], ...
    ] = (
        "RS256",
        "ES256",
        "EdDSA",
    )
    """Asymmetric algorithms only."""
    issuer: str | None = None
    audience: str | None = None
    claim: str = "sub"


class ApiKeyIdentity(_Settings):
    """A keyed hash of an API key."""

    kind: Literal["api_key"]
    header: str = "x-api-key"
    known_file: Path | None = None
    """Lines of `NAME SHA256HEX`: only these keys identify, under their names. Default: every key is a caller."""


class HeaderIdentity(_Settings):
    """A header that a trusted peer (an ingress, a mesh) sets."""

    kind: Literal["header"]
    header: str
    trusted_peers: tuple[str, ...] = Field(min_length=1)
    """CIDR ranges; `unix` for callers on a Unix socket."""


class PeerIdentity(_Settings):
    """The peer's IP address, without the port."""

    kind: Literal["peer"]
    ipv6_prefix: int = Field(64, ge=1, le=128)
    """IPv6 callers own whole prefixes: this much of the address counts."""


IdentitySource = Annotated[
    SpiffeIdentity | SubjectIdentity | JwtIdentity | ApiKeyIdentity | HeaderIdentity | PeerIdentity,
    Field(discriminator="kind"),
]


class NetworkCohort(_Settings):
    """All callers of one network, by the peer's IP address."""

    kind: Literal["network"]
    ipv4_prefix: int = Field(24, ge=1, le=32)
    ipv6_prefix: int = Field(48, ge=1, le=128)


class HeaderCohort(_Settings):
    """All callers with one value of a header that a trusted peer (an ingress, a mesh) sets: a tenant, say."""

    kind: Literal["header"]
    header: str
    trusted_peers: tuple[str, ...] = Field(min_length=1)
    """CIDR ranges; `unix` for callers on a Unix socket."""


CohortSource = Annotated[NetworkCohort | HeaderCohort, Field(discriminator="kind")]


class Identity(_Settings):
    """Who calls: the first source of the chain that knows."""

    chain: tuple[IdentitySource, ...] = (PeerIdentity(kind="peer"),)
    """Strongest first."""
    required: bool = False
    """UNAUTHENTICATED where no source knows; else such callers share the identity `anonymous`."""
    cohorts: tuple[CohortSource, ...] = Field((), max_length=4)
    """Groups that a caller is counted in beside himself; all callers together are one in any case. An alarming cohort
    is told of, and nothing is done about its callers."""


class Methods(_Settings):
    """What is done with methods beyond inference, health, metadata, config and statistics."""

    allow: tuple[str, ...] = ()
    """Denied methods to pass through after all, by name: `RepositoryModelLoad`, or a full path for unknown services."""
    allow_parameters: tuple[Literal["shared_memory", "classification"], ...] = ()
    """Let inference requests carry these where Guard cannot inspect what they stand for. Triton's classification of the
    output that a profile names is inspected, and needs no leave."""


class Limits(_Settings):
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
    max_queued_calls: int = Field(256, ge=0)
    """Calls waiting for their turn; further ones are RESOURCE_EXHAUSTED at once, and so are those whose deadline would
    pass while they wait, by the pace at which places have become free."""
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


class Valkey(_Settings):
    """A Valkey or Redis (7 or later) that several workers and replicas share. Needs the extra `valkey`."""

    addresses: tuple[str, ...] = Field(("127.0.0.1:6379",), min_length=1, max_length=64)
    """HOST:PORT; of a cluster any of its nodes, else one."""
    cluster: bool = False
    """Whether it is one. All of a model's keys are on one of its slots."""
    username: str | None = None
    password_file: Path | None = None
    """Where the password is; or `password_env`. A rotated file is picked up."""
    password_env: str | None = None
    """The environment variable that holds the password."""
    tls: bool = False
    ca_file: Path | None = None
    """PEM bundle that signs the server; default: the system's."""
    cert_file: Path | None = None
    key_file: Path | None = None
    timeout_s: float = Field(0.1, gt=0, le=10)
    """The longest that a round trip may take, one for each 64 rows; less than `limits.inspection_timeout_s`."""
    on_away: Literal["local", "on_error"] = "local"
    """While it does not answer: keep history in this process, or let each monitor's `on_error` allow or deny."""


class Batching(_Settings):
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


class History(_Settings):
    """Where monitors keep what they saw: only keyed digests, projections and embeddings, never inputs."""

    store: Literal["memory", "valkey"] = "memory"
    """In this process, or shared. A change needs a restart, as do all keys here."""
    valkey: Valkey = Valkey()

    max_entries: int = Field(100_000, ge=1)
    """Sketched rows kept over all models; the oldest go first."""
    max_callers: int = Field(100_000, ge=1)
    """Callers whose evidence is kept; the longest unseen go first."""
    ttl_s: float = Field(86_400.0, gt=0)
    """What is older is forgotten."""


class Admin(_Settings):
    """Operators' listeners. Keep them on loopback."""

    http: str | None = "127.0.0.1:9464"
    """/metrics, /healthz and /readyz for everyone, /config and what the page shows behind the token."""
    grpc: str | None = "127.0.0.1:9465"
    """Guard's own API with health and reflection, all behind the token. Not served without one."""
    token_file: Path | None = None
    """The bearer token; or set GUARD_ADMIN_TOKEN."""
    page: bool = True
    """The page to look at, on `http`: what it shows is behind the token. It also feeds `guard top`."""


class Receiver(_Settings):
    """A server that takes events or spans over HTTP. Redirects are not followed; proxies are not used."""

    url: str = Field(pattern=r"^https?://[^/@?#]+(/[^@?#]*)?$")
    """`http://127.0.0.1:4318`. OTLP: a URL without a path gets `/v1/traces` or `/v1/logs`."""
    headers_file: Path | None = None
    """`NAME: VALUE`, one a line, sent with each request. A rotated file is picked up, as are all here."""
    headers_env: str | None = None
    """The environment variable that holds the same."""
    token_file: Path | None = None
    """Where a bearer token is."""
    tls: ClientTls = ClientTls()
    timeout_s: float = Field(5.0, gt=0, le=60)
    """The longest that it may be silent."""
    attempts: int = Field(4, ge=1, le=10)
    """How often a delivery is tried, after 0.5, 1, 2 ... s, before it is given up and counted."""

    @model_validator(mode="after")
    def _not_in_clear(self) -> "Receiver":
        has_secret = bool(self.headers_file or self.headers_env or self.token_file)
        host = self.url.removeprefix("http://").partition("/")[0]
        if has_secret and self.url.startswith("http://") and not _LOOPBACK.match(host):
            raise ValueError("url: headers and tokens go over https, or to loopback")
        return self


_LOOPBACK = re.compile(r"^(localhost|127(\.\d+){3}|\[::1\])(:\d+)?$")
_NAME = r"^[a-z][a-z0-9_-]{0,31}$"
Form = Literal["guard", "ocsf"]


class ToStdout(_Settings):
    """Lines on standard output."""

    kind: Literal["stdout"]
    name: str = Field("stdout", pattern=_NAME)
    """In metrics and the log."""
    form: Form = "guard"
    """`guard`: audit events; `ocsf`: OCSF 1.6 Detection Findings."""


class ToFile(_Settings):
    """Lines in a file, which only its owner reads, and its predecessors: `audit.jsonl.1` is the latest of them."""

    kind: Literal["file"]
    name: str = Field("file", pattern=_NAME)
    """In metrics and the log."""
    path: Path
    form: Form = "guard"
    """As with `stdout`."""
    max_bytes: int = Field(100 * 1024 * 1024, ge=1024)
    """A file that would grow past it becomes a predecessor."""
    keep: int = Field(5, ge=1, le=1000)
    """Predecessors; older ones are deleted."""


class ToOtlp(_Settings):
    """OpenTelemetry log records over OTLP/HTTP. Needs the extra `otel`."""

    kind: Literal["otlp"]
    name: str = Field("otlp", pattern=_NAME)
    """In metrics and the log."""
    to: Receiver
    form: Form = "guard"
    """Of a record's body."""


class ToCloudEvents(_Settings):
    """CloudEvents 1.0 over HTTP. Needs the extra `events`."""

    kind: Literal["cloudevents"]
    name: str = Field("cloudevents", pattern=_NAME)
    """In metrics and the log."""
    to: Receiver
    form: Literal["guard", "ocsf", "kserve"] = "guard"
    """What they carry; `kserve`: two events a decision, typed like KServe's payload logger's, without payloads."""
    content: Literal["structured", "binary", "batch"] = "structured"
    """An event a request, in one JSON document or with its attributes as headers; or up to `max_batch` a request."""
    max_batch: int = Field(64, ge=1, le=256)
    service: str = Field("", max_length=256)
    """`kserve`: the InferenceService's name; default: the model's."""
    namespace: str = Field("", max_length=256)
    """`kserve`: the InferenceService's namespace."""


AuditSink = Annotated[ToStdout | ToFile | ToOtlp | ToCloudEvents, Field(discriminator="kind")]


class Audit(_Settings):
    """One JSON event for each decision that is not a plain allow."""

    file: Path | None = None
    """Append here; default: standard output. Workers take turns: lines are whole. `sinks` rotate theirs."""
    sinks: tuple[AuditSink, ...] = Field((), max_length=8)
    """Instead of `file`: where events go, each place with a queue and a thread of its own."""
    chain_key_file: Path | None = None
    """A secret of at least 16 bytes: lines of files and standard output get a keyed digest of themselves and of the
    line before, so that `guard audit verify` tells what was changed, taken out or added since."""
    sample_allowed: float = Field(0.0, ge=0, le=1)
    """The share of allowed queries that are recorded too."""
    max_queued: int = Field(10_000, ge=1)
    """Events waiting to be written, in each sink; further ones are dropped and counted."""
    max_explained: int = Field(10_000, ge=1)
    """Decisions kept in memory (each worker's) for `guard explain`: those in which a monitor found something."""

    @model_validator(mode="after")
    def _apart(self) -> "Audit":
        if self.sinks and self.file is not None:
            raise ValueError("file goes into sinks: {kind: file, path: ...}")
        names = {sink.name for sink in self.sinks}
        if len(names) != len(self.sinks):
            raise ValueError("sinks: give each a name of its own")
        places = [getattr(sink, "path", sink.kind) for sink in self.sinks if sink.kind in {"stdout", "file"}]
        if len(set(places)) != len(places):
            raise ValueError("sinks: two write to the same place")
        return self


class Tracing(_Settings):
    """OpenTelemetry spans over OTLP/HTTP: one a call, with one for each stage and each upstream call below it."""

    to: Receiver | None = None
    """Where spans go. Unset: no tracing. Needs the extra `otel`."""
    ratio: float = Field(0.01, ge=0, le=1)
    """The share of calls that are traced."""
    parents: Literal["follow", "join", "ignore"] = "follow"
    """Calls that bring a `traceparent`: do as it says; join its trace, but let `ratio` alone decide; or begin another
    trace. `follow` lets callers choose what is traced, up to `max_per_s`: they should be yours."""
    max_per_s: int = Field(500, ge=1)
    """Calls, and messages of streams, that are traced in a second; further ones are not, and are counted."""
    service_name: str = Field("guard", min_length=1, max_length=256)
    max_queued: int = Field(8192, ge=1, le=1_000_000)
    """Spans waiting to be sent; further ones are dropped and counted."""


class S3(_Settings):
    """How a bucket is reached. Credentials and region: from the environment or AWS's own files, never from here."""

    endpoint_url: str | None = Field(None, pattern=r"^https?://[^@/?#]+/?$")
    """Of a server that is not AWS's: `https://minio.internal:9000`."""
    server_side_encryption: Literal["AES256", "aws:kms"] | None = None
    """What each object is to be encrypted with; default: what the bucket does."""
    kms_key_id: str | None = None
    """With `aws:kms`: the key, if not the bucket's."""

    @model_validator(mode="after")
    def _key_of_kms(self) -> "S3":
        if self.kms_key_id is not None and self.server_side_encryption != "aws:kms":
            raise ValueError("kms_key_id goes with server_side_encryption: aws:kms")
        return self


class Quarantine(_Settings):
    """Flagged inputs, marked so that training leaves them out: their digests, and only if asked the inputs themselves.

    `shadow` and `from_level` also say which rows' digests audit events carry, with or without a quarantine.
    """

    url: str | None = Field(None, min_length=1)
    """A directory, file:///PATH, or s3://BUCKET/PREFIX (needs the extra `quarantine`). Unset: no quarantine."""
    s3: S3 = S3()
    payload: bool = False
    """Keep the flagged rows, too. They are users' data: choose a place that is encrypted, and that few can read."""
    what: Literal["flagged", "denied"] = "flagged"
    """The flagged rows of all queries, or of those alone that are refused (`shadow`: would be)."""
    shadow: bool = True
    """Whether findings in shadow flag rows, too."""
    from_level: Literal["watch", "suspect", "hostile"] = "hostile"
    """From which level of their caller on all rows of a query are flagged."""
    max_item_bytes: int = Field(16 * 1024 * 1024, ge=1024, le=1024 * 1024 * 1024)
    """Of one query's kept rows; those that do not fit are told by their digests alone."""
    max_queued: int = Field(1000, ge=1)
    """Queries waiting to be written; further ones are dropped and counted."""
    max_queued_bytes: int = Field(64 * 1024 * 1024, ge=1024)
    """Kept rows waiting to be written; further ones are dropped and counted, their digests are written."""
    rows_per_day: int = Field(1_000_000, ge=1)
    """Digests that one process writes in a day (UTC); further ones are dropped and counted. About 0.3 kB each."""
    bytes_per_day: int = Field(1024 * 1024 * 1024, ge=1024)
    """Kept rows that one process writes in a day (UTC); further ones are dropped and counted, their digests written."""
    attempts: int = Field(4, ge=1, le=10)
    """How often a write is tried, after 0.5, 1, 2 ... s, before it is given up and counted."""

    @model_validator(mode="after")
    def _useful(self) -> "Quarantine":
        if self.url is None and self.payload:
            raise ValueError("payload needs a url")
        if self.url is not None:
            try:
                places.check(self.url)
            except places.PlaceError as error:
                raise ValueError(f"url {error}") from None
        return self


class Settings(_Settings):
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


def first_error(error: pydantic.ValidationError, prefix: str = "") -> ConfigError:
    """The first of pydantic's complaints, in one line with its path."""
    first = error.errors(include_url=False)[0]
    path = ".".join([prefix, *map(str, first["loc"])] if prefix else map(str, first["loc"]))
    message = "unknown key" if first["type"] in {"extra_forbidden", "unexpected_keyword_argument"} else first["msg"]
    return ConfigError(path, message.removeprefix("Value error, "))


def build_stage(kind: Kind, name: str, options: Mapping[str, Any], path: str = "") -> Any:
    """The stage with these options; raises ConfigError with the option's path."""
    if name not in registry.names(kind):
        registry.load()
    try:
        cls = registry.lookup(kind, name)
    except registry.UnknownStage as error:
        raise ConfigError(f"{path}.stage" if path else "stage", str(error)) from None
    where = f"{path}.options" if path else "options"
    known = cls.__dataclass_fields__
    for key in options:
        if key not in known:
            raise ConfigError(f"{where}.{key}", f"unknown option; {name} has: {', '.join(known) or 'none'}")
    try:
        return pydantic.TypeAdapter(cls).validate_python(dict(options))
    except pydantic.ValidationError as error:
        raise first_error(error, where) from None


STAGE_LISTS: tuple[tuple[str, Kind], ...] = (
    ("detectors", "detector"),
    ("monitors", "monitor"),
    ("purifiers", "purifier"),
    ("outputs", "output"),
)
