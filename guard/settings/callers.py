"""Who calls, and what is remembered of him."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from guard.settings.base import Section


class SpiffeIdentity(Section):
    """The SPIFFE id (URI SAN) of a verified client certificate."""

    kind: Literal["spiffe"]
    trust_domain: str | None = None
    """Accept only ids of this trust domain."""


class SubjectIdentity(Section):
    """The common name of a verified client certificate."""

    kind: Literal["mtls_subject"]


class JwtIdentity(Section):
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


class ApiKeyIdentity(Section):
    """A keyed hash of an API key."""

    kind: Literal["api_key"]
    header: str = "x-api-key"
    known_file: Path | None = None
    """Lines of `NAME SHA256HEX`: only these keys identify, under their names. Default: every key is a caller."""


class HeaderIdentity(Section):
    """A header that a trusted peer (an ingress, a mesh) sets."""

    kind: Literal["header"]
    header: str
    trusted_peers: tuple[str, ...] = Field(min_length=1)
    """CIDR ranges; `unix` for callers on a Unix socket."""


class PeerIdentity(Section):
    """The peer's IP address, without the port."""

    kind: Literal["peer"]
    ipv6_prefix: int = Field(64, ge=1, le=128)
    """IPv6 callers own whole prefixes: this much of the address counts."""


IdentitySource = Annotated[
    SpiffeIdentity | SubjectIdentity | JwtIdentity | ApiKeyIdentity | HeaderIdentity | PeerIdentity,
    Field(discriminator="kind"),
]


class NetworkCohort(Section):
    """All callers of one network, by the peer's IP address."""

    kind: Literal["network"]
    ipv4_prefix: int = Field(24, ge=1, le=32)
    ipv6_prefix: int = Field(48, ge=1, le=128)


class HeaderCohort(Section):
    """All callers with one value of a header that a trusted peer (an ingress, a mesh) sets: a tenant, say."""

    kind: Literal["header"]
    header: str
    trusted_peers: tuple[str, ...] = Field(min_length=1)
    """CIDR ranges; `unix` for callers on a Unix socket."""


CohortSource = Annotated[NetworkCohort | HeaderCohort, Field(discriminator="kind")]


class Identity(Section):
    """Who calls: the first source of the chain that knows."""

    chain: tuple[IdentitySource, ...] = (PeerIdentity(kind="peer"),)
    """Strongest first."""
    required: bool = False
    """UNAUTHENTICATED where no source knows; else such callers share the identity `anonymous`."""
    cohorts: tuple[CohortSource, ...] = Field((), max_length=4)
    """Groups that a caller is counted in beside himself; all callers together are one in any case. An alarming cohort
    is told of, and nothing is done about its callers."""


class Valkey(Section):
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


class History(Section):
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
