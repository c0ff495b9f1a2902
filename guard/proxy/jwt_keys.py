"""Verified JWTs: a claim of a token whose signature, expiry, issuer and audience hold.

Keys come from a PEM public key or a JWKS document, asymmetric ones only, so that a public key can never be taken for an
HMAC secret. A verified token is kept by its digest until it expires: a repeated call costs microseconds.
"""

import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from guard.reloading import Reloading
from guard.settings import JwtIdentity

LEEWAY_S = 30
MAX_TOKEN = 16 * 1024
MAX_CACHED = 4096
MAX_KEYS = 100

_ASYMMETRIC = frozenset({"RSA", "EC", "OKP"})
Keys = Mapping[str | None, tuple[Any, str | None]]  # by key id: the key and the only algorithm it is for, if it says so


class InvalidToken(ValueError):
    """A token that proves nothing."""


def parse_keys(raw: bytes) -> Keys:
    """A PEM public key (under the id None) or a JWKS document. Raises ValueError."""
    if raw.lstrip().startswith(b"-----BEGIN"):
        try:
            return {None: (load_pem_public_key(raw), None)}
        except (ValueError, UnsupportedAlgorithm):
            raise ValueError("not a PEM public key") from None
    try:
        entries = [entry for entry in json.loads(raw)["keys"] if entry.get("use", "sig") == "sig"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError("neither a PEM public key nor a JWKS document") from None
    if not 0 < len(entries) <= MAX_KEYS:
        raise ValueError(f"the JWKS document holds {len(entries)} signing keys; 1 to {MAX_KEYS} are taken")
    if not all(isinstance(entry.get(name), str | None) for entry in entries for name in ("kty", "kid", "alg")):
        raise ValueError("the JWKS document has a `kty`, `kid` or `alg` that is no text")
    keys = {entry.get("kid"): (_public_key(entry), entry.get("alg")) for entry in entries}
    if len(keys) < len(entries):
        raise ValueError("two keys of the JWKS document have the same `kid`, or none")
    return keys


def _public_key(entry: dict[str, Any]) -> Any:
    if entry.get("kty") not in _ASYMMETRIC or "d" in entry:
        raise ValueError("the JWKS document holds a secret key; only public ones belong there")
    try:
        return jwt.PyJWK(entry).key
    except jwt.PyJWTError as error:
        raise ValueError(f"the JWKS document holds a key that cannot be used: {type(error).__name__}") from None


class Tokens:
    """Claims of verified tokens. Raises ConfigError where the keys cannot be read."""

    def __init__(self, settings: JwtIdentity, now: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._file = Reloading(parse_keys, settings.keys_file)
        self._keys = self._file.value
        self._now = now
        self._known: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def claim(self, token: str) -> str:
        """The configured claim. Raises InvalidToken."""
        if len(token) > MAX_TOKEN:
            raise InvalidToken("too long")
        keys = self._file.value
        if keys is not self._keys:  # what a withdrawn key has signed counts no more
            self._keys = keys
            self._known.clear()
        digest = hashlib.blake2b(token.encode(errors="surrogatepass"), digest_size=32).digest()
        known = self._known.get(digest)
        if known is not None and self._now() < known[1]:
            self._known.move_to_end(digest)
            return known[0]
        self._known.pop(digest, None)
        value, expires = self._verify(token)
        self._known[digest] = (value, expires)
        if len(self._known) > MAX_CACHED:
            self._known.popitem(last=False)
        return value

    def _verify(self, token: str) -> tuple[str, float]:
        """The claim, and until when it holds."""
        settings = self._settings
        try:
            claims = jwt.decode(
                token,
                key=self._key(jwt.get_unverified_header(token)),
                algorithms=list(settings.algorithms),
                issuer=settings.issuer,
                audience=settings.audience,
                leeway=LEEWAY_S,
                options={"require": ["exp"], "verify_aud": settings.audience is not None},
            )
            expires = float(claims["exp"]) + LEEWAY_S
        except Exception as error:  # noqa: BLE001 - whatever a hostile token makes a parser raise, it proves nothing
            raise InvalidToken(type(error).__name__) from None
        value = claims.get(settings.claim)
        if not isinstance(value, str) or not value:
            raise InvalidToken("no claim")
        return value, expires

    def _key(self, header: Mapping[str, Any]) -> Any:
        kid = header.get("kid")
        found = self._keys.get(kid) if isinstance(kid, str) else None
        if found is None and len(self._keys) == 1 and (kid is None or None in self._keys):
            found = next(iter(self._keys.values()))  # nothing to choose from
        if found is None:
            raise InvalidToken("unknown key")
        key, algorithm = found
        if algorithm is not None and header.get("alg") != algorithm:
            raise InvalidToken("another algorithm than the key's")
        return key
