"""Signatures of profiles and settings (Ed25519), so that who can write their files cannot change a defence unseen.

A signature is 64 raw bytes over the file's bytes, beside it as FILE.sig: `guard sign` makes it, and so does
`openssl pkeyutl -sign -rawin`. A profile's is over profile.json, which names the digests of all its other files.
"""

import os
import re
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from guard import reloading
from guard.settings import ConfigError

SIGNATURE_BYTES = 64
MAX_SIGNERS = 100
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


class Unsigned(ValueError):
    """A file without a signature that counts. Its text is for operators."""


class Signers:
    """Who may sign: public keys."""

    def __init__(self, keys: tuple[Ed25519PublicKey, ...]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def check(self, path: Path, raw: bytes) -> None:
        """Whether one of them has signed these bytes of a file. Raises Unsigned."""
        beside = signature_of(path)
        try:
            signature = reloading.read(beside)
        except (OSError, ValueError) as error:
            raise Unsigned(f"{path} must be signed: {reloading.why(error)}") from None
        if not any(_holds(key, signature, raw) for key in self._keys):
            raise Unsigned(f"{beside} is not a signature of {path} by a key that is trusted")


def _holds(key: Ed25519PublicKey, signature: bytes, raw: bytes) -> bool:
    try:
        key.verify(signature, raw)
    except InvalidSignature:
        return False
    return True


def signature_of(path: Path) -> Path:
    """Where a file's signature is."""
    return path.with_name(f"{path.name}.sig")


def signers_of(file: Path | None, where: str) -> Signers | None:
    """The public keys of a PEM file, None without one. where: the key's path in the settings. Raises ConfigError."""
    if file is None:
        return None
    try:
        keys = tuple(load_pem_public_key(pem) for pem in _PEM.findall(reloading.read(file)))
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        reason = reloading.why(error) if isinstance(error, OSError) else "not PEM public keys"
        raise ConfigError(where, f"{file}: {reason}") from None
    known = tuple(key for key in keys if isinstance(key, Ed25519PublicKey))
    if not 0 < len(known) <= MAX_SIGNERS or len(known) < len(keys):
        raise ConfigError(where, f"{file}: needs one to {MAX_SIGNERS} Ed25519 public keys, and no others")
    return Signers(known)


def sign(path: Path, key_file: Path) -> Path:
    """Sign a file, or a profile's directory; returns where the signature is. Raises ConfigError, OSError."""
    target = path / "profile.json" if path.is_dir() else path
    try:
        key = load_pem_private_key(reloading.read(key_file), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = reloading.why(error) if isinstance(error, OSError) else "not a PEM private key without a password"
        raise ConfigError("--key", f"{key_file}: {reason}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("--key", f"{key_file}: needs an Ed25519 key (openssl genpkey -algorithm ed25519)")
    beside = signature_of(target)
    _put(beside, key.sign(target.read_bytes()))
    return beside


def _put(path: Path, raw: bytes) -> None:
    """Whole, in the place of what is there: where that is a symlink, of the link. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(raw)
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
