"""Signatures of profiles and settings (Ed25519), so that who can write their files cannot change a defence unseen.

A signature is 64 raw bytes beside the file, as FILE.sig, over a line that says what the file is and the file's bytes:

    guard-signature-1 profile "resnet"
    guard-signature-1 settings "guard.yaml"

So one signed file cannot stand in for another: who checks knows the kind and the name that he expects. `guard sign`
makes it, and `openssl pkeyutl -sign -rawin`, too. A profile's is over profile.json, which has its other files' digests.
Not seen: that a file is a former one of the same name. Who minds puts a version into the name.
"""

import json
import os
import re
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from guard import reloading
from guard.settings import ConfigError, Model

Kind = Literal["profile", "settings"]
Vouch = Callable[[Path, bytes], None]
MAX_SIGNERS = 100
PROFILE = "profile.json"
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)


class Unsigned(ValueError):
    """A file without a signature that counts. Its text is for operators."""


class Signers:
    """Who may sign: public keys."""

    def __init__(self, keys: tuple[Ed25519PublicKey, ...]) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    def vouch(self, kind: Kind, name: str) -> Vouch:
        """What looks at a file and its bytes: whether one of them has signed it as this. It raises Unsigned."""
        return partial(self._check, kind, name)

    def _check(self, kind: Kind, name: str, path: Path, raw: bytes) -> None:
        beside = signature_of(path)
        try:
            signature = reloading.read(beside)
        except (OSError, ValueError) as error:
            raise Unsigned(f"{path} must be signed: {reloading.why(error)}") from None
        if any(_holds(key, signature, statement(kind, name, raw)) for key in self._keys):
            return
        if any(_holds(key, signature, raw) for key in self._keys):
            raise Unsigned(f"{beside} does not say what {path} is: sign it anew with `guard sign`")
        raise Unsigned(f"{beside} is not a signature of {path} as {kind} {name!r} by a key that is trusted")


def statement(kind: Kind, name: str, raw: bytes) -> bytes:
    """What is signed of a file's bytes."""
    return f"guard-signature-1 {kind} {json.dumps(name)}\n".encode("ascii") + raw


def vouch_of(signers: Signers | None, model: Model) -> Vouch | None:
    """What looks at a model's profile; None where nobody need have signed it."""
    return None if signers is None else signers.vouch("profile", model.signed_as or model.name)


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


def sign(path: Path, key_file: Path, name: str | None = None) -> Path:
    """Sign settings, or a profile's directory; returns where the signature is. Raises ConfigError, OSError.

    name: what it is signed as; default: the model's that the profile was made of, or the file's.
    """
    target = path / PROFILE if path.is_dir() else path
    try:
        key = load_pem_private_key(reloading.read(key_file), None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        reason = reloading.why(error) if isinstance(error, OSError) else "not a PEM private key without a password"
        raise ConfigError("--key", f"{key_file}: {reason}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("--key", f"{key_file}: needs an Ed25519 key (openssl genpkey -algorithm ed25519)")
    raw, beside = target.read_bytes(), signature_of(target)
    is_profile = target.name == PROFILE
    name = name or (_model_of(target, raw) if is_profile else target.name)
    _put(beside, key.sign(statement("profile" if is_profile else "settings", name, raw)))
    return beside


def _model_of(path: Path, raw: bytes) -> str:
    """Raises ConfigError."""
    try:
        return str(json.loads(raw)["model"]["name"])
    except (ValueError, TypeError, KeyError):
        raise ConfigError("", f"{path} is not a profile's: it names no model") from None


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
