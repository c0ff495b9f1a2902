"""How a connection to an endpoint is protected: the authorities it trusts, and the certificate it shows.

Files are read once and checked, so that what cannot work is said before anything is sent, and workers elsewhere need
no files. One certificate is one caller: who is to be told apart needs headers, or another run.
"""

import ssl
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization


class TlsError(ValueError):
    """Files that cannot be used. `name` says which: ca, cert or key."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__(message)
        self.name = name


@dataclass(frozen=True, slots=True)
class Tls:
    """PEM, as read.

    ca:           authorities that may sign the server's certificate; None: gRPC's own list.
    cert, key:    what the client shows (mutual TLS); both or none.
    server_name:  expected in the server's certificate instead of the address's host.
    """

    ca: bytes | None = None
    cert: bytes | None = None
    key: bytes | None = field(default=None, repr=False)
    server_name: str = ""

    @property
    def options(self) -> tuple[tuple[str, str], ...]:
        """What a channel needs besides its credentials."""
        return (("grpc.ssl_target_name_override", self.server_name),) if self.server_name else ()


def read(ca: Path | None = None, cert: Path | None = None, key: Path | None = None, server_name: str = "") -> Tls:
    """Without a `ca` the system's authorities. Raises TlsError."""
    if (cert is None) != (key is None):
        raise TlsError("key" if key is None else "cert", "a certificate and its key go together")
    roots = _system() if ca is None else _read("ca", ca)
    if ca is not None:
        _certificates("ca", ca, roots)
    if cert is None or key is None:
        return Tls(roots, server_name=server_name)
    made = Tls(roots, _read("cert", cert), _read("key", key), server_name)
    if _public(key, made.key) != _certificates("cert", cert, made.cert)[0].public_key():
        raise TlsError("key", f"{key} does not belong to the certificate {cert}")
    return made


def _system() -> bytes | None:
    """The bundle that OpenSSL takes, which SSL_CERT_FILE names where it is set."""
    path = ssl.get_default_verify_paths().cafile
    return None if path is None else _read("ca", Path(path))


def _read(name: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise TlsError(name, f"cannot read {path}: {error.strerror}") from None


def _certificates(name: str, path: Path, pem: bytes | None) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem or b"")
    except ValueError:
        raise TlsError(name, f"{path} holds no PEM certificate") from None


def _public(path: Path, pem: bytes | None) -> object:
    try:
        return serialization.load_pem_private_key(pem or b"", password=None).public_key()
    except (ValueError, TypeError):
        raise TlsError("key", f"{path} holds no PEM private key without a password") from None
