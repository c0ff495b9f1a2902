"""Who calls: the first source of the configured chain that knows.

A source that is presented with a bad, ambiguous or unknown credential knows nobody: the next one is asked, and the
failure is counted. An identity is `spiffe:...`, `cn:...`, `jwt:...`, `key:...`, `header:...` or `peer:...`, at most
256 characters of its value (longer: their digest). It goes to the audit log and the store, never into a metric.

Known bypass: whoever can make identities (open registration, many addresses) is as many callers. Bind the strongest
source that costs something to get.
"""

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import assert_never

from guard import settings as s
from guard.proxy.jwt_keys import InvalidToken, Tokens
from guard.proxy.peers import Peers, ip_of, is_unix
from guard.proxy.seam import Call
from guard.reloading import Reloading
from guard.settings import ConfigError

MAX_IDENTITY = 256
GLOBAL = "global"
_SPIFFE = re.compile(r"spiffe://([a-z0-9._-]{1,255})((?:/[A-Za-z0-9._-]+)+)")
_KNOWN_KEY = re.compile(r"(\S{1,256})\s+([0-9a-fA-F]{64})")

Count = Callable[[str], None]
Source = Callable[[Call], str | None]


@dataclass(frozen=True, slots=True)
class Caller:
    """A stable identity, and the kind of source that knew it."""

    id: str
    source: str


class Chain:
    """The configured sources in order. Raises ConfigError where one cannot be set up.

    count: is told the source that knew each caller (`none`: nobody did), and credentials that failed, such as
    `jwt_invalid`; the words are a closed list, fit for a metric's label.
    """

    def __init__(self, settings: s.Identity, secret: bytes, count: Count = lambda _: None) -> None:
        self._count = count
        self._sources = tuple(
            (source.kind, _build(source, secret, count, f"identity.chain.{i}"))
            for i, source in enumerate(settings.chain)
        )

    def caller(self, call: Call) -> Caller | None:
        """Who calls, None where no source knows."""
        for kind, source in self._sources:
            found = source(call)
            if found:
                self._count(kind)
                return Caller(found, kind)
        self._count("none")
        return None


class Cohorts:
    """The groups that a caller is counted in: `global`, and those of the settings. Raises ConfigError."""

    def __init__(self, settings: s.Identity, count: Count = lambda _: None) -> None:
        self._sources = tuple(
            _cohort(source, count, f"identity.cohorts.{i}") for i, source in enumerate(settings.cohorts)
        )

    def of(self, call: Call) -> tuple[str, ...]:
        """Their names."""
        found = (source(call) for source in self._sources)
        return (GLOBAL, *(name for name in found if name))


def _cohort(source: s.CohortSource, count: Count, path: str) -> Source:
    if isinstance(source, s.NetworkCohort):
        return lambda call: _network(call.peer.address, source.ipv4_prefix, source.ipv6_prefix)
    trusted = _peers(source.trusted_peers, path)
    return lambda call: _header(call, source, trusted, count)


@lru_cache(maxsize=4096)
def _network(address: str, ipv4_prefix: int, ipv6_prefix: int) -> str | None:
    ip = None if is_unix(address) else ip_of(address)
    if ip is None:
        return None
    prefix = ipv4_prefix if ip.version == 4 else ipv6_prefix  # noqa: PLR2004 - IPv4
    return f"network:{ipaddress.ip_network((ip, prefix), strict=False)}"


def _peers(ranges: tuple[str, ...], path: str) -> Peers:
    try:
        return Peers(ranges)
    except ValueError as error:
        raise ConfigError(f"{path}.trusted_peers", str(error)) from None


def _build(source: s.IdentitySource, secret: bytes, count: Count, path: str) -> Source:
    match source:
        case s.SpiffeIdentity():
            return lambda call: _spiffe(call, source, count)
        case s.SubjectIdentity():
            return _subject
        case s.JwtIdentity():
            tokens = Tokens(source)
            return lambda call: _jwt(call, source, tokens, count)
        case s.ApiKeyIdentity():
            return _api_key(source, secret, count)
        case s.HeaderIdentity():
            trusted = _peers(source.trusted_peers, path)
            return lambda call: _header(call, source, trusted, count)
        case s.PeerIdentity():
            return lambda call: _peer(call, source)
        case _:
            assert_never(source)


def _bounded(prefix: str, value: str) -> str:
    if len(value) > MAX_IDENTITY:
        value = "sha256:" + hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()
    return f"{prefix}:{value}"


def _one(call: Call, key: str, kind: str, count: Count) -> str | None:
    """The header's only value. Several are ambiguous: Guard and the upstream might believe different ones."""
    values = [value for name, value in call.metadata if name == key.lower()]
    if len(values) > 1:
        count(f"{kind}_ambiguous")
        return None
    return values[0].strip() or None if values and isinstance(values[0], str) else None


def _spiffe(call: Call, settings: s.SpiffeIdentity, count: Count) -> str | None:
    """The id that gRPC names where the certificate's only URI SAN is a SPIFFE id."""
    ids = call.peer.auth.get("peer_spiffe_id", ())
    if not ids:
        return None
    parsed = _SPIFFE.fullmatch(ids[0].decode("ascii", errors="replace")) if len(ids) == 1 else None
    if parsed is None or settings.trust_domain not in {None, parsed[1]}:
        count("spiffe_invalid")
        return None
    return _bounded("spiffe", parsed[0])


def _subject(call: Call) -> str | None:
    names = call.peer.auth.get("x509_common_name", ())
    name = names[0].decode("utf-8", errors="replace") if len(names) == 1 else ""
    return _bounded("cn", name) if name else None


def _jwt(call: Call, settings: s.JwtIdentity, tokens: Tokens, count: Count) -> str | None:
    token = _one(call, settings.header, "jwt", count)
    if token is None:
        return None
    if token[:7].lower() == "bearer ":
        token = token[7:].strip()
    try:
        return _bounded("jwt", tokens.claim(token))
    except InvalidToken:
        count("jwt_invalid")
        return None


def _api_key(settings: s.ApiKeyIdentity, secret: bytes, count: Count) -> Source:
    file = None if settings.known_file is None else Reloading(parse_known_keys, settings.known_file)
    hash_key = hashlib.sha512(secret).digest()

    def source(call: Call) -> str | None:
        key = _one(call, settings.header, "api_key", count)
        if key is None:
            return None
        raw = key.encode(errors="surrogatepass")
        if file is None:
            return "key:" + hashlib.blake2b(raw, key=hash_key, digest_size=16, person=b"guard api key").hexdigest()
        name = _known(file.value, raw)
        if name is None:
            count("api_key_unknown")
        return None if name is None else f"key:{name}"

    return source


def parse_known_keys(raw: bytes) -> Mapping[bytes, str]:
    """Lines of `NAME SHA256HEX`, empty ones and those from # on left out. Raises ValueError."""
    known: dict[bytes, str] = {}
    for number, line in enumerate(raw.decode("utf-8").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        entry = _KNOWN_KEY.fullmatch(line.strip())
        if entry is None:
            raise ValueError(f"line {number} is not `NAME SHA256HEX`")
        known[bytes.fromhex(entry[2])] = entry[1]
    return known


def _known(keys: Mapping[bytes, str], raw: bytes) -> str | None:
    """The key's name; the time says nothing of which entry matched, or nearly did."""
    digest = hashlib.sha256(raw).digest()
    name = None
    for known, candidate in keys.items():
        if hmac.compare_digest(known, digest):
            name = candidate
    return name


def _header(call: Call, settings: s.HeaderIdentity | s.HeaderCohort, trusted: Peers, count: Count) -> str | None:
    value = _one(call, settings.header, "header", count)
    if value is None:
        return None
    if call.peer.address not in trusted:
        count("header_untrusted")
        return None
    return _bounded("header", value)


def _peer(call: Call, settings: s.PeerIdentity) -> str | None:
    return _peer_of(call.peer.address, settings.ipv6_prefix)


@lru_cache(maxsize=4096)  # one address a connection, many calls
def _peer_of(address: str, ipv6_prefix: int) -> str | None:
    if is_unix(address):
        return "peer:unix"
    ip = ip_of(address)
    if ip is None:
        return None
    if ip.version == 4:  # noqa: PLR2004 - IPv4
        return f"peer:{ip}"
    return f"peer:{ipaddress.ip_network((ip, ipv6_prefix), strict=False)}"
